package jose

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

var proofTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var proofRules = ProofRules{
	Method: "POST", URL: "https://as.test/token", Now: proofTime, Past: 5 * time.Minute, Future: time.Minute,
}

func publicJWK(t testing.TB, p Private) map[string]any {
	t.Helper()
	raw, err := p.Public().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func written(t testing.TB, members map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// changed returns members with changes; nil leaves one out.
func changed(members, changes map[string]any) map[string]any {
	out := maps.Clone(members)
	maps.Copy(out, changes)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

func ath(token string) string {
	sum := sha256.Sum256([]byte(token))
	return b64.EncodeToString(sum[:])
}

func TestParseProof(t *testing.T) {
	key := testKeys()[ES256]
	head := map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": publicJWK(t, key)}
	claims := map[string]any{"jti": "j1", "htm": "POST", "htu": "https://as.test/token", "iat": proofTime.Unix()}
	type m = map[string]any
	var private m
	raw, err := key.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(raw, &private)
	}
	if err != nil {
		t.Fatal(err)
	}
	for alg, p := range testKeys() {
		t.Run("DPOP-01 a good proof with "+alg, func(t *testing.T) {
			raw := forge(t, p, written(t, changed(head, m{"alg": alg, "jwk": publicJWK(t, p)})), written(t, changed(claims, m{"nonce": "n", "more": m{"a": 1}})))
			got, err := ParseProof(raw, proofRules)
			if err != nil {
				t.Fatal(err)
			}
			if got.JKT != p.Public().Thumbprint() || got.Alg != alg || got.JTI != "j1" || got.Nonce != "n" || !got.Issued.Equal(proofTime) || !strings.Contains(string(got.Claims), "more") {
				t.Errorf("%+v", got)
			}
		})
	}
	for _, r := range []struct {
		row          string
		head, claims m
		rules        func(*ProofRules)
		ok           bool
	}{
		{row: "DPOP-01 typ is missing", head: m{"typ": nil}},
		{row: "DPOP-01 typ is JWT", head: m{"typ": "JWT"}},
		{row: "DPOP-01 typ in another case", head: m{"typ": "DPOP+JWT"}},
		{row: "DPOP-01 jwk is missing", head: m{"jwk": nil}},
		{row: "DPOP-01 jwk is text", head: m{"jwk": "x"}},
		{row: "DPOP-01 jwk holds the private key", head: m{"jwk": private}},
		{row: "DPOP-01 jwk is symmetric", head: m{"jwk": m{"kty": "oct", "k": "AAAA"}}},
		{row: "DPOP-01 jwk is another key", head: m{"jwk": publicJWK(t, testKeys()[EdDSA])}},
		{row: "DPOP-01 jwk is for encryption", head: m{"jwk": changed(publicJWK(t, key), m{"use": "enc"})}},
		{row: "DPOP-01 jwk declares another algorithm", head: m{"jwk": changed(publicJWK(t, key), m{"alg": "EdDSA"})}},
		{row: "DPOP-01 alg none", head: m{"alg": "none"}},
		{row: "DPOP-01 alg HS256", head: m{"alg": "HS256"}},
		{row: "DPOP-01 crit", head: m{"crit": []string{"exp"}}},
		{row: "DPOP-01 a kid changes nothing", head: m{"kid": "x"}, ok: true},
		{row: "DPOP-01 jti is missing", claims: m{"jti": nil}},
		{row: "DPOP-01 jti is empty", claims: m{"jti": ""}},
		{row: "DPOP-01 jti is a number", claims: m{"jti": 1}},
		{row: "DPOP-01 jti is long", claims: m{"jti": strings.Repeat("x", 257)}},
		{row: "DPOP-01 htm is missing", claims: m{"htm": nil}},
		{row: "DPOP-01 htm is another method", claims: m{"htm": "GET"}},
		{row: "DPOP-01, attack DP-02: htm in another case", claims: m{"htm": "post"}},
		{row: "DPOP-01 htu is missing", claims: m{"htu": nil}},
		{row: "DPOP-01 htu is another path", claims: m{"htu": "https://as.test/revoke"}},
		{row: "DPOP-01 htu is another path below", claims: m{"htu": "https://as.test/token/"}},
		{row: "DPOP-01 htu is another host", claims: m{"htu": "https://evil.test/token"}},
		{row: "DPOP-01 htu is another port", claims: m{"htu": "https://as.test:8443/token"}},
		{row: "DPOP-01 htu is another scheme", claims: m{"htu": "http://as.test/token"}},
		{row: "DPOP-01 htu has user information", claims: m{"htu": "https://a@as.test/token"}},
		{row: "DPOP-01 htu is a path", claims: m{"htu": "/token"}},
		{row: "DPOP-01 htu with an escaped slash", claims: m{"htu": "https://as.test%2ftoken"}},
		{row: "DPOP-01, attack DP-02: query and fragment of htu are not looked at", claims: m{"htu": "https://as.test/token?a=b#c"}, ok: true},
		{row: "DPOP-01 htu in another spelling of the same URL", claims: m{"htu": "HTTPS://AS.test:443/%74oken"}, ok: true},
		{row: "DPOP-01 iat is missing", claims: m{"iat": nil}},
		{row: "DPOP-01 iat is text", claims: m{"iat": "now"}},
		{row: "DPOP-01 iat is null", claims: m{"iat": json.RawMessage("null")}},
		{row: "DPOP-01 iat is out of range", claims: m{"iat": 1e300}},
		{row: "DPOP-01 iat at the edge of the past", claims: m{"iat": proofTime.Unix() - 300}, ok: true},
		{row: "DPOP-01 iat beyond it", claims: m{"iat": proofTime.Unix() - 301}},
		{row: "DPOP-01 iat at the edge of the future", claims: m{"iat": proofTime.Unix() + 60}, ok: true},
		{row: "DPOP-01 iat beyond it", claims: m{"iat": float64(proofTime.Unix()) + 60.5}},
		{row: "attack DP-08: iat ten minutes ago", claims: m{"iat": proofTime.Unix() - 600}},
		{row: "attack DP-08: iat in ten minutes", claims: m{"iat": proofTime.Unix() + 600}},
		{row: "DPOP-01 nonce is a number", claims: m{"nonce": 1}},
		{row: "DPOP-01 ath of the token", claims: m{"ath": ath("tok")}, rules: func(r *ProofRules) { r.AccessToken = "tok" }, ok: true},
		{row: "DPOP-01 ath of another token", claims: m{"ath": ath("other")}, rules: func(r *ProofRules) { r.AccessToken = "tok" }},
		{row: "DPOP-01 no ath beside a token", rules: func(r *ProofRules) { r.AccessToken = "tok" }},
		{row: "DPOP-01 ath where no token is", claims: m{"ath": ath("tok")}, ok: true},
		{row: "DPOP-01 a default port in the configured URL", rules: func(r *ProofRules) { r.URL = "https://as.test:443/token" }, ok: true},
		{row: "DPOP-01 an IPv6 address", claims: m{"htu": "http://[::1]:80/token"}, rules: func(r *ProofRules) { r.URL = "http://[::1]/token" }, ok: true},
		{row: "DPOP-01 an IPv6 address and its port", claims: m{"htu": "http://[::1]:81/token"}, rules: func(r *ProofRules) { r.URL = "http://[::1]:81/token" }, ok: true},
		{row: "DPOP-01 no path is the root", claims: m{"htu": "https://as.test"}, rules: func(r *ProofRules) { r.URL = "https://as.test/" }, ok: true},
		{row: "DPOP-01 what is escaped stays escaped", claims: m{"htu": "https://as.test/a%2fb"}, rules: func(r *ProofRules) { r.URL = "https://as.test/a%2Fb" }, ok: true},
		{row: "DPOP-01 a configuration without a host", rules: func(r *ProofRules) { r.URL = "/token" }},
	} {
		t.Run(r.row, func(t *testing.T) {
			rules := proofRules
			if r.rules != nil {
				r.rules(&rules)
			}
			p, err := ParseProof(forge(t, key, written(t, changed(head, r.head)), written(t, changed(claims, r.claims))), rules)
			if r.ok && err != nil {
				t.Fatal(err)
			}
			if !r.ok && err == nil {
				t.Fatalf("accepted: %+v", p)
			}
		})
	}
	t.Run("DPOP-01 what SignProof makes", func(t *testing.T) {
		for _, p := range testKeys() {
			raw, err := p.SignProof(claims)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ParseProof(raw, proofRules); err != nil || got.JKT != p.Public().Thumbprint() {
				t.Errorf("%s: %v, %v", p.Algorithm(), got, err)
			}
		}
		if _, err := (Private{}).SignProof(claims); err == nil {
			t.Error("signed without a key")
		}
	})
	t.Run("DPOP-01 the signature of another key", func(t *testing.T) {
		other, err := Generate(ES256)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseProof(forge(t, other, written(t, head), written(t, claims)), proofRules); !errors.Is(err, ErrSignature) {
			t.Fatal(err)
		}
	})
	t.Run("DPOP-01 what is no JWT, and what is too large", func(t *testing.T) {
		for _, raw := range []string{"", "a.b", "a.b.c", strings.Repeat("a", 9000), forge(t, key, written(t, head), "[]"), forge(t, key, written(t, head), `{"jti":"a","jti":"b"}`)} {
			if _, err := ParseProof(raw, proofRules); err == nil {
				t.Errorf("accepted %.40q", raw)
			}
		}
	})
}

func TestParseJWK(t *testing.T) {
	key := testKeys()[ES256]
	raw, _ := key.MarshalJSON()
	if _, err := ParseJWK(raw); !errors.Is(err, ErrPrivateKey) {
		t.Errorf("attack CA-15: a private key: %v", err)
	}
	if _, err := ParseJWK([]byte(`{"kty":"RSA","d":7}`)); !errors.Is(err, ErrPrivateKey) {
		t.Errorf("attack CA-15: a private key that is malformed: %v", err)
	}
	raw, _ = key.Public().MarshalJSON()
	got, err := ParseJWK(raw)
	if err != nil || got.Thumbprint() != key.Public().Thumbprint() {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"kty":"EC"}`, `{"kty":1}`} {
		if _, err := ParseJWK([]byte(bad)); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

func TestPublicKey(t *testing.T) {
	for alg, p := range testKeys() {
		k, err := PublicKey(p.signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		if !(Set{Keys: []Key{{}, p.Public()}}).Has(k) || (Set{Keys: []Key{{}}}).Has(k) {
			t.Errorf("%s: the key is not found by its thumbprint", alg)
		}
	}
	big, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, pub := range []any{big.Public(), "key", nil} {
		if _, err := PublicKey(pub); err == nil {
			t.Errorf("accepted %T", pub)
		}
	}
}

func TestNonces(t *testing.T) {
	n, same := NewNonces([32]byte{1}, time.Minute), NewNonces([32]byte{1}, time.Minute)
	now := proofTime
	nonce := n.At(now)
	t.Run("DPOP-03 a nonce of any replica is good for one to two windows", func(t *testing.T) {
		if nonce != same.At(now) || !same.Good(nonce, now) || !same.Good(nonce, now.Add(time.Minute)) {
			t.Error("not good")
		}
		if n.At(now.Add(time.Minute)) == nonce {
			t.Error("the same in the next window")
		}
		if !n.Good(n.At(now.Add(time.Minute)), now) {
			t.Error("the nonce of a replica whose clock is ahead is refused")
		}
	})
	t.Run("attack DP-07: expired, of another server, made up", func(t *testing.T) {
		if n.Good(nonce, now.Add(2*time.Minute)) {
			t.Error("good after two windows")
		}
		for _, bad := range []string{"", "x", RandomNonces(time.Minute).At(now), nonce + "A", nonce[:len(nonce)-1], n.Challenge(now)} {
			if n.Good(bad, now) {
				t.Errorf("good: %q", bad)
			}
		}
	})
	t.Run("ATT-06 a challenge is new each time and good for two windows on any replica", func(t *testing.T) {
		c := n.Challenge(now)
		if c == n.Challenge(now) {
			t.Error("twice the same")
		}
		until, ok := same.Challenged(c, now.Add(119*time.Second))
		if !ok || !until.Equal(now.Add(2*time.Minute)) {
			t.Errorf("%v %v", until, ok)
		}
	})
	t.Run("attack CA-16: a challenge that is old, of another server, of the future, or a nonce", func(t *testing.T) {
		c := n.Challenge(now)
		if _, ok := n.Challenged(c, now.Add(2*time.Minute)); ok {
			t.Error("good after two windows")
		}
		if _, ok := n.Challenged(n.Challenge(now.Add(2*time.Minute)), now); ok {
			t.Error("good before it was made")
		}
		for _, bad := range []string{"", "x", nonce, RandomNonces(time.Minute).Challenge(now), c + "A", c[1:]} {
			if _, ok := n.Challenged(bad, now); ok {
				t.Errorf("good: %q", bad)
			}
		}
	})
}
