package jose

import (
	"crypto"
	"encoding/json"
	"fmt"
	"testing"

	gojose "github.com/go-jose/go-jose/v4"
)

func TestPrivate(t *testing.T) {
	for alg, p := range testKeys() {
		t.Run("a private "+alg+" key survives writing and reading", func(t *testing.T) {
			raw, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			back, err := ParsePrivate(raw)
			if err != nil {
				t.Fatal(err)
			}
			if back.KID() != p.KID() || back.Algorithm() != alg || !back.Public().Equal(p.Public()) {
				t.Errorf("came back as %v %v", back.KID(), back.Algorithm())
			}
			token, err := back.Sign("", testClaims)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse(token, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(p.Public()); err != nil || m.Header.Typ != "" {
				t.Errorf("typ %q, %v", m.Header.Typ, err)
			}
			if p.KID() != p.Public().Thumbprint() {
				t.Error("a generated key is not named by its thumbprint")
			}
		})
		t.Run("a private "+alg+" key does not print", func(t *testing.T) {
			raw, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			var secret struct{ D string }
			if err := json.Unmarshal(raw, &secret); err != nil || secret.D == "" {
				t.Fatal("no secret to look for")
			}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
				if s := fmt.Sprintf(verb, p); s != "private key "+p.KID() && s != `"private key `+p.KID()+`"` {
					t.Errorf("%s prints %s", verb, s)
				}
			}
		})
	}
	members := func(p Private, change func(m map[string]any)) []byte {
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]any{}
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		if raw, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		return raw
	}
	other, err := Generate(ES256)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		alg  string
		set  func(m map[string]any)
		ok   bool
	}{
		{"alg follows from the curve", ES256, func(m map[string]any) { delete(m, "alg") }, true},
		{"alg follows from Ed25519", EdDSA, func(m map[string]any) { delete(m, "alg") }, true},
		{"kid is the thumbprint", ES256, func(m map[string]any) { delete(m, "kid") }, true},
		{"key_ops sign", ES256, func(m map[string]any) { m["key_ops"] = []string{"sign"} }, true},
		{"an RSA key without alg", RS256, func(m map[string]any) { delete(m, "alg") }, false},
		{"alg of another kind", ES256, func(m map[string]any) { m["alg"] = "RS256" }, false},
		{"for encryption", ES256, func(m map[string]any) { m["use"] = "enc" }, false},
		{"a public key", ES256, func(m map[string]any) { delete(m, "d") }, false},
		{"two halves that do not match", ES256, func(m map[string]any) { m["x"] = other.jwkMember("x"); m["y"] = other.jwkMember("y") }, false},
		{"a symmetric key", ES256, func(m map[string]any) { clear(m); m["kty"], m["k"] = "oct", "c2VjcmV0" }, false},
		{"primes that do not match", RS256, func(m map[string]any) { m["p"] = m["q"] }, false},
	} {
		t.Run("private key: "+row.name, func(t *testing.T) {
			p, err := ParsePrivate(members(testKeys()[row.alg], row.set))
			if (err == nil) != row.ok {
				t.Fatalf("error %v, want ok %v", err, row.ok)
			}
			if !row.ok {
				return
			}
			if p.Algorithm() != row.alg || p.KID() == "" {
				t.Errorf("alg %q, kid %q", p.Algorithm(), p.KID())
			}
		})
	}
	t.Run("nothing can be signed with no key, and no claims that are not an object", func(t *testing.T) {
		if _, err := (Private{}).Sign("", testClaims); err == nil {
			t.Error("signed with no key")
		}
		if _, err := json.Marshal(Private{}); err == nil {
			t.Error("wrote no key")
		}
		if _, err := json.Marshal(Key{}); err == nil {
			t.Error("wrote no public key")
		}
		for _, claims := range []any{"x", []int{1}, nil, func() {}} {
			if _, err := testKeys()[ES256].Sign("", claims); err == nil {
				t.Errorf("signed %T", claims)
			}
		}
		if _, err := Generate("HS256"); err == nil {
			t.Error("generated an HS256 key")
		}
		if _, err := ParsePrivate([]byte("{")); err == nil {
			t.Error("read half an object")
		}
	})
}

// jwkMember returns one member of the public JWK.
func (p Private) jwkMember(name string) string {
	raw, _ := json.Marshal(p.Public())
	m := map[string]string{}
	json.Unmarshal(raw, &m)
	return m[name]
}

func TestThumbprint(t *testing.T) {
	// The example of RFC 7638 section 3.1.
	const n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	set, err := ParseSet([]byte(`{"keys":[{"kty":"RSA","n":"`+n+`","e":"AQAB","alg":"RS256","kid":"2011-04-29"}]}`), SetLimits{})
	if err != nil || len(set.Keys) != 1 {
		t.Fatalf("%+v, %v", set, err)
	}
	if got := set.Keys[0].Thumbprint(); got != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" {
		t.Errorf("thumbprint %s", got)
	}
	sum, err := (&gojose.JSONWebKey{Key: set.Keys[0].pub}).Thumbprint(crypto.SHA256)
	if err != nil || b64.EncodeToString(sum) != set.Keys[0].Thumbprint() {
		t.Error("go-jose does not agree")
	}
}

func BenchmarkSign(b *testing.B) {
	p := testKeys()[ES256]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Sign("at+jwt", testClaims); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseVerify(b *testing.B) {
	p := testKeys()[ES256]
	token, err := p.Sign("at+jwt", testClaims)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m, err := Parse(token, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Verify(p.Public()); err != nil {
			b.Fatal(err)
		}
	}
}
