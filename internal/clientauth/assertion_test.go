package clientauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestGoodAssertion(t *testing.T) {
	h := newHouse(t)
	for name, claims := range map[string]func(map[string]any){
		"as it is":                             func(map[string]any) {},
		"CAUTH-04 aud as a list of one":        func(m map[string]any) { m["aud"] = []string{issuer} },
		"CAUTH-05 without iat":                 func(m map[string]any) { delete(m, "iat") },
		"CAUTH-05 with nbf and fractions":      func(m map[string]any) { m["nbf"], m["exp"] = m["iat"], float64(m["exp"].(int64))+0.5 },
		"CAUTH-05 a clock a minute ahead":      func(m map[string]any) { m["iat"] = m["iat"].(int64) + 60; m["exp"] = m["iat"].(int64) + 300 },
		"CAUTH-05 five minutes":                func(m map[string]any) { m["exp"] = m["iat"].(int64) + 300 },
		"unknown claims":                       func(m map[string]any) { m["htm"], m["AUD"] = "POST", "https://evil.test" },
		"CAUTH-06 a jti of exactly 256 bytes":  func(m map[string]any) { m["jti"] = strings.Repeat("j", 256) },
		"CAUTH-06 a jti with any characters":   func(m map[string]any) { m["jti"] = "' OR 1=1--\r\n\x00ü" },
		"CAUTH-05 a second before it runs out": func(m map[string]any) { m["exp"] = h.clock.now().Unix() + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			m := h.assertionClaims(keyed)
			claims(m)
			c := h.accepted(t, withAssertion(h.sign(t, oauth.TypClientAssertion, m)), oauth.MethodPrivateKeyJWT)
			if c.ID != keyed || c.KeyThumbprint != h.key.Public().Thumbprint() {
				t.Fatalf("client %s, key %s", c.ID, c.KeyThumbprint)
			}
		})
	}
	t.Run("CAUTH-03 the client_id parameter may stand there too", func(t *testing.T) {
		q := withAssertion(h.sign(t, "", h.assertionClaims(keyed)))
		q.ClientID = keyed
		h.accepted(t, q, oauth.MethodPrivateKeyJWT)
	})
	for _, typ := range []string{"", "JWT", "jwt", "client-authentication+jwt", "application/client-authentication+jwt", "oauth-client-auth+jwt"} {
		t.Run(fmt.Sprintf("CAUTH-09 type %q is accepted", typ), func(t *testing.T) {
			h.accepted(t, withAssertion(h.sign(t, typ, h.assertionClaims(keyed))), oauth.MethodPrivateKeyJWT)
		})
	}
	for _, alg := range jose.Algorithms {
		t.Run("CAUTH-07 "+alg+" is accepted", func(t *testing.T) {
			id := "https://" + strings.ToLower(alg) + ".test/c"
			key := generate(t, alg)
			h.people.add(directory.Client{ID: id, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodPrivateKeyJWT}, SigningAlg: alg})
			h.publish(id, key.Public())
			a, err := key.Sign("", h.assertionClaims(id))
			if err != nil {
				t.Fatal(err)
			}
			h.accepted(t, withAssertion(a), oauth.MethodPrivateKeyJWT)
		})
	}
}

// TestSpoiledClaims spoils one claim per row. None of them may ask for the
// client's keys.
func TestSpoiledClaims(t *testing.T) {
	h := newHouse(t)
	now := h.clock.now().Unix()
	set := func(name string, v any) func(map[string]any) { return func(m map[string]any) { m[name] = v } }
	drop := func(name string) func(map[string]any) { return func(m map[string]any) { delete(m, name) } }
	for _, row := range []struct {
		name, rule string
		spoil      func(map[string]any)
	}{
		{"attack CA-02: aud is the token endpoint", "CAUTH-04", set("aud", issuer+"/token")},
		{"attack CA-02: aud is the issuer with a slash", "CAUTH-04", set("aud", issuer+"/")},
		{"attack CA-02: aud is the issuer in capitals", "CAUTH-04", set("aud", strings.ToUpper(issuer))},
		{"attack CA-02: aud is a list with another server", "CAUTH-04", set("aud", []string{issuer, "https://evil.test"})},
		{"attack CA-02: aud is the issuer twice", "CAUTH-04", set("aud", []string{issuer, issuer})},
		{"attack CA-02: aud is an empty list", "CAUTH-04", set("aud", []string{})},
		{"attack CA-02: aud is another server", "CAUTH-04", set("aud", "https://evil.test")},
		{"attack CA-02: aud is missing", "CAUTH-04", drop("aud")},
		{"attack CA-02: aud is null", "CAUTH-04", set("aud", nil)},
		{"attack CA-02: aud is an object", "CAUTH-04", set("aud", map[string]any{"a": issuer})},
		{"attack CA-02: aud in other letters", "CAUTH-04", func(m map[string]any) { m["AUD"] = m["aud"]; delete(m, "aud") }},
		{"attack CA-04: iss is not sub", "CAUTH-03", set("sub", public)},
		{"attack CA-04: sub is missing", "CAUTH-03", drop("sub")},
		{"attack CA-04: iss is missing", "CAUTH-03", drop("iss")},
		{"attack CA-04: iss is a number", "CAUTH-03", set("iss", 7)},
		{"attack CA-05: exp is missing", "CAUTH-05", drop("exp")},
		{"attack CA-05: exp in ten years", "CAUTH-05", set("exp", now+10*365*86400)},
		{"attack CA-05: exp beyond five minutes and the skew", "CAUTH-05", set("exp", now+361)},
		{"attack CA-05: exp beyond five minutes and the skew, and no iat", "CAUTH-05", func(m map[string]any) { delete(m, "iat"); m["exp"] = now + 361 }},
		{"attack CA-05: exp past by a second", "CAUTH-05", set("exp", now-1)},
		{"attack CA-05: exp is now", "CAUTH-05", set("exp", now)},
		{"attack CA-05: exp as a string", "CAUTH-03", set("exp", "1893456000")},
		{"attack CA-05: exp as 1e300", "CAUTH-05", set("exp", 1e300)},
		{"attack CA-05: exp negative", "CAUTH-05", set("exp", -1)},
		{"attack CA-05: nbf in ten minutes", "CAUTH-05", set("nbf", now+600)},
		{"attack CA-05: nbf beyond the skew", "CAUTH-05", set("nbf", now+61)},
		{"attack CA-05: iat in ten minutes", "CAUTH-05", set("iat", now+600)},
		{"attack CA-05: iat negative", "CAUTH-05", set("iat", -5)},
		{"attack CA-05: made an hour ago", "CAUTH-05", set("iat", now-3600)},
		{"attack CA-07: jti is missing", "CAUTH-06", drop("jti")},
		{"attack CA-07: jti is empty", "CAUTH-06", set("jti", "")},
		{"attack CA-07: jti is a number", "CAUTH-03", set("jti", 7)},
		{"attack CA-07: jti of 257 bytes", "CAUTH-06", set("jti", strings.Repeat("j", 257))},
		{"attack CA-07: jti of 10 kB", "CAUTH-06", set("jti", strings.Repeat("j", 10<<10))},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := h.assertionClaims(keyed)
			row.spoil(m)
			h.refused(t, withAssertion(h.sign(t, "", m)), row.rule)
		})
	}
	t.Run("attack CA-04: client_id in the body is another", func(t *testing.T) {
		q := withAssertion(h.sign(t, "", h.assertionClaims(keyed)))
		q.ClientID = public
		h.refused(t, q, "CAUTH-03")
	})
	t.Run("attack CA-04, attack JK-13: the assertion of another client, or of nobody", func(t *testing.T) {
		h.refused(t, withAssertion(h.sign(t, "", h.assertionClaims("https://nobody.test/c"))), "URL-01")
		h.refused(t, withAssertion(h.sign(t, "", h.assertionClaims(public))), "CAUTH-01")
	})
	t.Run("CAUTH-12 none of all this asked for keys", func(t *testing.T) {
		if h.people.asked != 0 {
			t.Fatalf("keys were asked for %d times", h.people.asked)
		}
	})
}

func TestSpoiledForm(t *testing.T) {
	h := newHouse(t)
	good := h.sign(t, "", h.assertionClaims(keyed))
	raw := func(header, claims string) string {
		b := base64.RawURLEncoding
		return b.EncodeToString([]byte(header)) + "." + b.EncodeToString([]byte(claims)) + "." + b.EncodeToString([]byte("0123456789012345678901234567890123456789012345678901234567890123"))
	}
	claims := `{"iss":"` + keyed + `"}`
	for _, row := range []struct{ name, rule, assertion string }{
		{"attack JK-03: alg none", "CAUTH-07", raw(`{"alg":"none"}`, claims)},
		{"attack JK-03: alg HS256 with the public key as the secret", "CAUTH-07", raw(`{"alg":"HS256"}`, claims)},
		{"attack CA-11: crit b64", "CAUTH-07", raw(`{"alg":"ES256","crit":["b64"],"b64":false}`, claims)},
		{"attack CA-11: an unknown crit", "CAUTH-07", raw(`{"alg":"ES256","crit":["hello"]}`, claims)},
		{"attack CA-11: alg twice", "CAUTH-07", raw(`{"alg":"ES256","alg":"RS256"}`, claims)},
		{"attack CA-11: a JWE", "CAUTH-07", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..aaaa.bbbb.cccc"},
		{"attack CA-11: JSON serialization", "CAUTH-07", `{"payload":"e30","signatures":[]}`},
		{"attack CA-09: a thousand dots", "CAUTH-07", strings.Repeat(".", 1000)},
		{"iss twice", "CAUTH-07", raw(`{"alg":"ES256"}`, `{"iss":"a","iss":"b"}`)},
		{"attack CA-10: an access token", "CAUTH-09", h.sign(t, "at+jwt", h.assertionClaims(keyed))},
		{"attack CA-10: a DPoP proof", "CAUTH-09", h.sign(t, "dpop+jwt", h.assertionClaims(keyed))},
		{"CAUTH-09 a logout token", "CAUTH-09", h.sign(t, "logout+jwt", h.assertionClaims(keyed))},
		{"CAUTH-09 an unknown type", "CAUTH-09", h.sign(t, "hello", h.assertionClaims(keyed))},
	} {
		t.Run(row.name, func(t *testing.T) { h.refused(t, withAssertion(row.assertion), row.rule) })
	}
	t.Run("attack CA-09: an assertion of 1 MiB is not parsed", func(t *testing.T) {
		for _, big := range []string{strings.Repeat(".", 1<<20), strings.Repeat("A", maxAssertion+1)} {
			if _, err := h.Authenticate(t.Context(), withAssertion(big)); oauth.AsError(err).Code != oauth.InvalidRequest {
				t.Fatalf("error %v", err)
			}
		}
	})
	t.Run("CAUTH-03 another assertion type, or half of the two parameters", func(t *testing.T) {
		for _, q := range []Request{
			{AssertionType: "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", Assertion: good}, {Assertion: good}, {AssertionType: oauth.AssertionTypeJWT},
		} {
			h.refused(t, q, "CAUTH-03")
		}
	})
	if h.people.asked != 0 {
		t.Errorf("CAUTH-12: keys were asked for %d times", h.people.asked)
	}
	h.accepted(t, withAssertion(good), oauth.MethodPrivateKeyJWT)
}

func TestKeys(t *testing.T) {
	t.Run("CAUTH-07 the signature of another key under the same kid", func(t *testing.T) {
		h := newHouse(t)
		good := h.sign(t, "", h.assertionClaims(keyed))
		cut := strings.LastIndexByte(good, '.')
		other := h.sign(t, "", h.assertionClaims(keyed))
		h.refused(t, withAssertion(good[:cut]+other[strings.LastIndexByte(other, '.'):]), "CAUTH-07")
		h.accepted(t, withAssertion(good), oauth.MethodPrivateKeyJWT) // the forgery did not spend the jti
	})
	t.Run("CAUTH-10, attack JK-06: a kid that no key has", func(t *testing.T) {
		h := newHouse(t)
		h.publish(keyed, generate(t, jose.ES256).Public())
		h.refused(t, withAssertion(h.sign(t, "", h.assertionClaims(keyed))), "CAUTH-10")
		for _, kid := range []string{"../../../../dev/null", "' OR 1=1--", "a\\r\\nb"} {
			head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"` + kid + `"}`))
			good := h.sign(t, "", h.assertionClaims(keyed))
			h.refused(t, withAssertion(head+good[strings.IndexByte(good, '.'):]), "CAUTH-10")
		}
	})
	t.Run("attack JK-06: a kid of 10 kB", func(t *testing.T) {
		h := newHouse(t)
		head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"` + strings.Repeat("k", 10<<10) + `"}`))
		good := h.sign(t, "", h.assertionClaims(keyed))
		h.refused(t, withAssertion(head+good[strings.IndexByte(good, '.'):]), "CAUTH-07")
	})
	t.Run("CAUTH-10 without a kid the only compatible key is meant, and two are too many", func(t *testing.T) {
		h := newHouse(t)
		bare, sign := bareKey(t)
		rsa := generate(t, jose.RS256)
		h.publish(keyed, rsa.Public(), bare)
		h.accepted(t, withAssertion(sign(h.assertionClaims(keyed))), oauth.MethodPrivateKeyJWT)
		h.publish(keyed, bare, generate(t, jose.ES256).Public())
		h.refused(t, withAssertion(sign(h.assertionClaims(keyed))), "CAUTH-10")
	})
	t.Run("CAUTH-07, attack JK-08: another algorithm than the document declares", func(t *testing.T) {
		h := newHouse(t)
		h.people.clients[keyed].SigningAlg = jose.RS256
		h.refused(t, withAssertion(h.sign(t, "", h.assertionClaims(keyed))), "CAUTH-07")
		if h.people.asked != 0 {
			t.Error("CAUTH-12: keys were asked for")
		}
	})
	t.Run("CAUTH-08, attack JK-05: a key in the header is not looked at", func(t *testing.T) {
		h := newHouse(t)
		villain := generate(t, jose.ES256)
		set, err := jose.MarshalSet(villain.Public())
		if err != nil {
			t.Fatal(err)
		}
		jwk := strings.TrimSuffix(strings.TrimPrefix(string(set), `{"keys":[`), `]}`)
		a, err := villain.Sign("", h.assertionClaims(keyed))
		if err != nil {
			t.Fatal(err)
		}
		for _, extra := range []string{`"jwk":` + jwk, `"jku":"https://evil.test/keys"`, `"x5u":"https://evil.test/x"`, `"x5c":["AAAA"]`} {
			head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"` + villain.KID() + `",` + extra + `}`))
			h.refused(t, withAssertion(head+a[strings.IndexByte(a, '.'):]), "CAUTH-10")
		}
	})
	t.Run("CAUTH-17 keys that cannot be had are the client's trouble, a broken store is ours", func(t *testing.T) {
		h := newHouse(t)
		good := withAssertion(h.sign(t, "", h.assertionClaims(keyed)))
		h.people.keysErr = fmt.Errorf("keys: %w", &cimd.Error{Kind: cimd.KindFetch, Rule: "FETCH-04"})
		h.refused(t, good, "CAUTH-08")
		h.people.keysErr = oauth.Refuse(oauth.TemporarilyUnavailable, "busy")
		h.refused(t, good, "CAUTH-08")
		h.people.keysErr = errors.New("disk on fire")
		if _, err := h.Authenticate(t.Context(), good); err == nil || oauth.AsError(err).Code != oauth.ServerError {
			t.Fatalf("error %v", err)
		}
		h.people.keysErr = nil
		h.accepted(t, good, oauth.MethodPrivateKeyJWT)
	})
}

func TestReplay(t *testing.T) {
	h := newHouse(t)
	t.Run("CAUTH-06, attack CA-01: an assertion is good once", func(t *testing.T) {
		q := withAssertion(h.sign(t, "", h.assertionClaims(keyed)))
		h.accepted(t, q, oauth.MethodPrivateKeyJWT)
		h.refused(t, q, "CAUTH-06")
	})
	t.Run("attack CA-01: 16 racers and two replicas have one winner", func(t *testing.T) {
		replica, err := New(Config{Issuer: issuer, Directory: h.people, Spender: h.store, Now: h.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			q := withAssertion(h.sign(t, "", h.assertionClaims(keyed)))
			var won atomic.Int32
			var wg sync.WaitGroup
			start := make(chan struct{})
			for i := range 16 {
				a := []*Authenticator{h.Authenticator, replica}[i%2]
				wg.Go(func() {
					<-start
					if _, err := a.Authenticate(context.Background(), q); err == nil {
						won.Add(1)
					}
				})
			}
			close(start)
			wg.Wait()
			if won.Load() != 1 {
				t.Fatalf("%d of 16 were accepted", won.Load())
			}
		}
	})
	t.Run("attack CA-08: two clients may use the same jti", func(t *testing.T) {
		for _, id := range []string{keyed, either} {
			m := h.assertionClaims(id)
			m["jti"] = "1"
			h.accepted(t, withAssertion(h.sign(t, "", m)), oauth.MethodPrivateKeyJWT)
		}
	})
	t.Run("CAUTH-06 the mark outlives the assertion and then goes", func(t *testing.T) {
		m := h.assertionClaims(keyed)
		q := withAssertion(h.sign(t, "", m))
		h.accepted(t, q, oauth.MethodPrivateKeyJWT)
		h.clock.move(59 * time.Second)
		if _, err := h.store.Prune(t.Context(), h.clock.now()); err != nil {
			t.Fatal(err)
		}
		h.refused(t, q, "CAUTH-06")
		h.clock.move(time.Second)
		h.refused(t, q, "CAUTH-05")
	})
	t.Run("CAUTH-06 the mark of the longest-lived assertion outlives it, whatever is pruned", func(t *testing.T) {
		m := h.assertionClaims(keyed)
		delete(m, "iat")
		m["exp"] = h.clock.now().Unix() + 360
		q := withAssertion(h.sign(t, "", m))
		h.accepted(t, q, oauth.MethodPrivateKeyJWT)
		h.clock.move(359 * time.Second)
		if _, err := h.store.Prune(t.Context(), h.clock.now()); err != nil {
			t.Fatal(err)
		}
		h.refused(t, q, "CAUTH-06")
	})
	t.Run("a store that fails is our failure", func(t *testing.T) {
		boom := errors.New("disk on fire")
		a, err := New(Config{Issuer: issuer, Directory: h.people, Spender: failing{boom}, Now: h.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Authenticate(t.Context(), withAssertion(h.sign(t, "", h.assertionClaims(keyed))))
		if !errors.Is(err, boom) || oauth.AsError(err).Code != oauth.ServerError {
			t.Fatalf("error %v", err)
		}
	})
}

type failing struct{ err error }

func (f failing) SpendID(context.Context, string, store.Hash, time.Time, time.Time) error {
	return f.err
}
