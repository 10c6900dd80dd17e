package jose

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	gojose "github.com/go-jose/go-jose/v4"
)

// testKey returns one key for each algorithm; making RSA keys takes a while.
var testKeys = sync.OnceValue(func() map[string]Private {
	keys := make(map[string]Private)
	for _, alg := range Algorithms {
		p, err := Generate(alg)
		if err != nil {
			panic(err)
		}
		keys[alg] = p
	}
	return keys
})

var b64 = base64.RawURLEncoding

// forge signs any header and payload, however wrong, with a key.
func forge(t *testing.T, p Private, header, payload string) string {
	t.Helper()
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	sig, err := p.sign([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64.EncodeToString(sig)
}

var testClaims = map[string]any{"iss": "https://good.test/c.json", "exp": 1790000000}

func TestNamesOfAlgorithms(t *testing.T) {
	p, err := Generate(EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"": EdDSA, EdDSA: EdDSA, "Ed25519": "Ed25519", ES256: EdDSA} {
		t.Run("CAUTH-07 EdDSA called "+name, func(t *testing.T) {
			token, err := p.Called(name).Sign("", testClaims)
			if err != nil {
				t.Fatal(err)
			}
			head, err := base64.RawURLEncoding.DecodeString(token[:strings.IndexByte(token, '.')])
			if err != nil || !strings.Contains(string(head), `"alg":"`+want+`"`) {
				t.Errorf("%s, %v", head, err)
			}
			m, err := Parse(token, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(p.Public()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSignAndVerify(t *testing.T) {
	for alg, p := range testKeys() {
		t.Run("CAUTH-07 "+alg+" verifies here and by go-jose, and the other way round", func(t *testing.T) {
			token, err := p.Sign("client-authentication+jwt", testClaims)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse(token, 0)
			if err != nil {
				t.Fatal(err)
			}
			if want := (Header{Alg: alg, KID: p.KID(), Typ: "client-authentication+jwt"}); m.Header != want {
				t.Errorf("header %+v, want %+v", m.Header, want)
			}
			if string(m.Claims) != `{"exp":1790000000,"iss":"https://good.test/c.json"}` {
				t.Errorf("claims %s", m.Claims)
			}
			if err := m.Verify(p.Public()); err != nil {
				t.Error(err)
			}
			theirs, err := gojose.ParseSignedCompact(token, []gojose.SignatureAlgorithm{gojose.SignatureAlgorithm(alg)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := theirs.Verify(p.key.pub); err != nil {
				t.Errorf("go-jose: %v", err)
			}

			signer, err := gojose.NewSigner(gojose.SigningKey{Algorithm: gojose.SignatureAlgorithm(alg), Key: p.signer}, nil)
			if err != nil {
				t.Fatal(err)
			}
			object, err := signer.Sign([]byte(`{"sub":"x"}`))
			if err != nil {
				t.Fatal(err)
			}
			compact, err := object.CompactSerialize()
			if err != nil {
				t.Fatal(err)
			}
			if m, err = Parse(compact, 0); err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(p.Public()); err != nil {
				t.Errorf("token of go-jose: %v", err)
			}
		})
	}
}

func TestEd25519ByItsNewName(t *testing.T) {
	p := testKeys()[EdDSA]
	published := func(alg string) Set {
		t.Helper()
		var o map[string]any
		raw, err := p.Public().MarshalJSON()
		if err != nil || json.Unmarshal(raw, &o) != nil {
			t.Fatal(err)
		}
		o["alg"] = alg
		raw, err = json.Marshal(map[string]any{"keys": []any{o}})
		if err != nil {
			t.Fatal(err)
		}
		set, err := ParseSet(raw, SetLimits{})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	for _, row := range []struct{ key, header string }{{"EdDSA", "Ed25519"}, {"Ed25519", "EdDSA"}, {"Ed25519", "Ed25519"}} {
		t.Run("CAUTH-07 a key for "+row.key+" and a token by "+row.header+" are one algorithm (RFC 9864)", func(t *testing.T) {
			m, err := Parse(forge(t, p, `{"alg":"`+row.header+`","kid":"`+p.KID()+`"}`, `{}`), 0)
			if err != nil {
				t.Fatal(err)
			}
			if m.Header.Alg != EdDSA {
				t.Errorf("alg is %q", m.Header.Alg)
			}
			k, err := published(row.key).Find(p.KID(), m.Header.Alg)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(k); err != nil {
				t.Error(err)
			}
			if err := m.Verify(testKeys()[RS256].Public()); !errors.Is(err, ErrNoKey) {
				t.Errorf("an RSA key: %v", err)
			}
		})
	}
	for _, alg := range []string{"ed25519", "Ed448", "EDDSA"} {
		t.Run("CAUTH-07 "+alg+" is another name", func(t *testing.T) {
			if _, err := Parse(forge(t, p, `{"alg":"`+alg+`"}`, `{}`), 0); err == nil {
				t.Error("accepted")
			}
			if set := published(alg); len(set.Keys) != 0 {
				t.Error("the key is kept")
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	for alg, p := range testKeys() {
		token, err := p.Sign("at+jwt", testClaims)
		if err != nil {
			t.Fatal(err)
		}
		other, err := Generate(alg)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, _ := strings.Cut(token, ".")
		body, sig, _ := strings.Cut(rest, ".")
		rawSig, _ := b64.DecodeString(sig)
		flipped := slices.Clone(rawSig)
		flipped[len(flipped)/2] ^= 1
		longer := b64.EncodeToString([]byte(fmt.Sprintf(`{"alg":%q,"kid":%q}`, alg, p.KID())))
		for _, row := range []struct {
			name, token string
			key         Key
			want        error
		}{
			{"another key of the same kind", token, other.Public(), ErrSignature},
			{"another payload", head + "." + b64.EncodeToString([]byte(`{"iss":"x"}`)) + "." + sig, p.Public(), ErrSignature},
			{"another header", longer + "." + body + "." + sig, p.Public(), ErrSignature},
			{"a changed signature", head + "." + body + "." + b64.EncodeToString(flipped), p.Public(), ErrSignature},
			{"a short signature", head + "." + body + "." + b64.EncodeToString(rawSig[1:]), p.Public(), ErrSignature},
			{"a long signature", head + "." + body + "." + b64.EncodeToString(append(rawSig, 0)), p.Public(), ErrSignature},
			{"a signature of zeros", head + "." + body + "." + b64.EncodeToString(make([]byte, len(rawSig))), p.Public(), ErrSignature},
			{"no key", token, Key{}, ErrNoKey},
		} {
			t.Run("CAUTH-07 "+alg+" with "+row.name, func(t *testing.T) {
				m, err := Parse(row.token, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Verify(row.key); !errors.Is(err, row.want) {
					t.Errorf("got %v, want %v", err, row.want)
				}
			})
		}
		for otherAlg, q := range testKeys() {
			if otherAlg == alg {
				continue
			}
			t.Run("CAUTH-07, attack JK-08: a token of "+alg+" with a key of "+otherAlg, func(t *testing.T) {
				m, err := Parse(token, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Verify(q.Public()); !errors.Is(err, ErrNoKey) {
					t.Errorf("got %v, want ErrNoKey", err)
				}
			})
		}
	}
	t.Run("attack JK-08: a key of RS256 does not check PS256 and the other way round, though the key could", func(t *testing.T) {
		rs, ps := testKeys()[RS256], testKeys()[PS256]
		for _, row := range []struct {
			p   Private
			alg string
		}{{rs, PS256}, {ps, RS256}} {
			liar := row.p
			liar.key.alg = row.alg
			token, err := liar.Sign("", testClaims)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse(token, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(row.p.Public()); !errors.Is(err, ErrNoKey) {
				t.Errorf("%s: got %v, want ErrNoKey", row.alg, err)
			}
			open := row.p.Public()
			open.alg = "" // a key that leaves alg open fits both
			if err := m.Verify(open); err != nil {
				t.Errorf("%s with an open key: %v", row.alg, err)
			}
		}
	})
}

func TestParseRefuses(t *testing.T) {
	p := testKeys()[ES256]
	good := `{"alg":"ES256","kid":"a"}`
	payload := `{"iss":"x"}`
	if _, err := Parse(forge(t, p, good, payload), 0); err != nil {
		t.Fatalf("the good token: %v", err)
	}
	for name, header := range map[string]string{
		"CAUTH-07, attack JK-03: alg none":                  `{"alg":"none"}`,
		"CAUTH-07, attack JK-03: alg None":                  `{"alg":"None"}`,
		"CAUTH-07, attack JK-03: alg HS256":                 `{"alg":"HS256"}`,
		"CAUTH-07 alg ES384":                                `{"alg":"ES384"}`,
		"CAUTH-07 alg in lower case":                        `{"alg":"es256"}`,
		"CAUTH-07 alg missing":                              `{"kid":"a"}`,
		"CAUTH-07 alg under another case":                   `{"Alg":"ES256"}`,
		"CAUTH-07 alg is a list":                            `{"alg":["ES256"]}`,
		"CAUTH-07 alg is null":                              `{"alg":null}`,
		"CAUTH-08, attack CA-11: crit with b64":             `{"alg":"ES256","crit":["b64"],"b64":false}`,
		"CAUTH-08, attack CA-11: crit with an unknown name": `{"alg":"ES256","crit":["http://x"],"http://x":1}`,
		"CAUTH-08, attack CA-11: crit, empty":               `{"alg":"ES256","crit":[]}`,
		"attack CA-11: b64 without crit":                    `{"alg":"ES256","b64":false}`,
		"attack CA-11: alg twice":                           `{"alg":"ES256","alg":"none"}`,
		"attack CA-11: alg twice, once escaped":             `{"alg":"ES256","\u0061lg":"RS256"}`,
		"attack CA-11: a member twice further down":         `{"alg":"ES256","x":{"y":1,"y":2}}`,
		"attack CA-11: nested":                              `{"alg":"ES256","cty":"JWT"}`,
		"attack CA-11: nested, by its media type":           `{"alg":"ES256","cty":"application/jwt"}`,
		"attack CA-11: the header of a JWE":                 `{"alg":"ES256","enc":"A128GCM"}`,
		"attack CA-11: compressed":                          `{"alg":"ES256","zip":"DEF"}`,
		"attack JK-06: a kid of 64 kB":                      `{"alg":"ES256","kid":"` + strings.Repeat("a", 64<<10) + `"}`,
		"attack JK-06: a kid of 257 bytes":                  `{"alg":"ES256","kid":"` + strings.Repeat("a", 257) + `"}`,
		"kid is a number":                                   `{"alg":"ES256","kid":7}`,
		"typ is a number":                                   `{"alg":"ES256","typ":7}`,
		"a header that is no object":                        `["ES256"]`,
		"a header that is no JSON":                          `{"alg":"ES256"`,
		"bytes after the header":                            `{"alg":"ES256"}{}`,
		"a header that is not UTF-8":                        "{\"alg\":\"ES256\",\"kid\":\"\xff\"}",
		"a header nested too deeply":                        `{"alg":"ES256","x":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`,
		"an empty header":                                   ``,
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := Parse(forge(t, p, header, payload), 1<<20); err == nil {
				t.Errorf("parsed as %+v", m.Header)
			}
		})
	}
	token := forge(t, p, good, payload)
	head, rest, _ := strings.Cut(token, ".")
	body, sig, _ := strings.Cut(rest, ".")
	for name, token := range map[string]string{
		"nothing":                               "",
		"attack CA-11: five parts":              token + "..",
		"attack CA-11: the JSON form":           `{"payload":"` + body + `","protected":"` + head + `","signature":"` + sig + `"}`,
		"two parts":                             head + "." + body,
		"no signature":                          head + "." + body + ".",
		"no payload":                            head + ".." + sig,
		"padding":                               head + "=." + body + "." + sig,
		"a line break in the header":            head[:4] + "\n" + head[4:] + "." + body + "." + sig,
		"a line break in the signature":         head + "." + body + "." + sig[:8] + "\r\n" + sig[8:],
		"a space in front":                      " " + token,
		"the other alphabet":                    head + "." + body + "." + strings.Repeat("+/", 43),
		"stray bits at the end":                 head + "." + body + "." + sig[:len(sig)-1] + "B",
		"a payload that is no object":           forge(t, p, good, `"x"`),
		"a payload that is a token, not nested": forge(t, p, good, token),
		"a claim twice":                         forge(t, p, good, `{"sub":"a","sub":"b"}`),
		"a payload with bytes behind it":        forge(t, p, good, `{"sub":"a"} x`),
		"a payload that is not UTF-8":           forge(t, p, good, "{\"sub\":\"\xff\"}"),
		"attack CA-09: a million dots":          strings.Repeat(".", 1_000_000),
		"attack CA-09: a megabyte":              head + "." + strings.Repeat("A", 1<<20) + "." + sig,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse(token, 0); err == nil {
				t.Error("parsed")
			}
		})
	}
	t.Run("attack CA-09: the size is checked before anything else, and a million dots cost nothing", func(t *testing.T) {
		dots := strings.Repeat(".", 1_000_000)
		for limit, want := range map[int]float64{1000: 6, 2_000_000: 30} {
			if n := testing.AllocsPerRun(10, func() { Parse(dots, limit) }); n > want {
				t.Errorf("limit %d: %v allocations", limit, n)
			}
		}
		if _, err := Parse(token, len(token)); err != nil {
			t.Errorf("a token of exactly the limit: %v", err)
		}
		if _, err := Parse(token, len(token)-1); err == nil {
			t.Error("a token over the limit was parsed")
		}
	})
	t.Run("CAUTH-08, attack JK-05: keys and addresses in the header change nothing", func(t *testing.T) {
		evil, err := Generate(ES256)
		if err != nil {
			t.Fatal(err)
		}
		jwk, err := json.Marshal(evil.Public())
		if err != nil {
			t.Fatal(err)
		}
		header := `{"alg":"ES256","jwk":` + string(jwk) + `,"jku":"https://evil.test/k","x5u":"https://evil.test/x","x5c":["AA=="]}`
		m, err := Parse(forge(t, evil, header, payload), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(p.Public()); !errors.Is(err, ErrSignature) {
			t.Errorf("got %v, want ErrSignature", err)
		}
		if m, err = Parse(forge(t, p, header, payload), 0); err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(p.Public()); err != nil {
			t.Errorf("our own key: %v", err)
		}
	})
	t.Run("attack JK-06: hostile kids are values like any other and match nothing", func(t *testing.T) {
		set := Set{Keys: []Key{p.Public()}}
		for _, kid := range []string{"../../../../dev/null", "' OR 1=1--", "a\r\nb", "\x00", strings.ToUpper(p.KID()), p.KID() + " "} {
			quoted, _ := json.Marshal(kid)
			m, err := Parse(forge(t, p, `{"alg":"ES256","kid":`+string(quoted)+`}`, payload), 0)
			if err != nil || m.Header.KID != kid {
				t.Fatalf("kid %q: %+v, %v", kid, m, err)
			}
			if _, err := set.Find(m.Header.KID, m.Header.Alg); !errors.Is(err, ErrNoKey) {
				t.Errorf("kid %q: %v, want ErrNoKey", kid, err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for alg, p := range testKeys() {
		token, err := p.Sign("at+jwt", testClaims)
		if err != nil {
			f.Fatal(alg, err)
		}
		f.Add(token)
	}
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		m, err := Parse(token, 1<<20)
		if err != nil {
			return
		}
		theirs, err := gojose.ParseSignedCompact(token, []gojose.SignatureAlgorithm{gojose.SignatureAlgorithm(m.Header.Alg)})
		for _, p := range testKeys() {
			if m.Verify(p.Public()) != nil {
				continue
			}
			if err != nil {
				t.Fatalf("go-jose does not parse what verified here: %v", err)
			}
			if _, err := theirs.Verify(p.key.pub); err != nil {
				t.Fatalf("go-jose does not verify what verified here: %v", err)
			}
		}
	})
}
