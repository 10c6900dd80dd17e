package resource

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestVerifyClaims(t *testing.T) {
	w := newWorld(t, nil)
	now := w.clock.Now().Unix()
	for _, tc := range []struct {
		name   string
		change func(map[string]any)
		ok     bool
	}{
		{"RS-12 a good token", func(map[string]any) {}, true},
		{"RS-11 one audience of several", func(c map[string]any) { c["aud"] = []string{"https://other.test", mcpURL} }, true},
		{"RS-11, attack RS-01: another server's token", func(c map[string]any) { c["aud"] = "https://other.test/mcp" }, false},
		{"RS-11, attack RS-01: no audience", func(c map[string]any) { delete(c, "aud") }, false},
		{"RS-11, attack RS-01: an empty list", func(c map[string]any) { c["aud"] = []string{} }, false},
		{"RS-11, attack RS-01: the client as audience", func(c map[string]any) { c["aud"] = c["client_id"] }, false},
		{"RS-11, attack RS-01: a prefix as audience", func(c map[string]any) { c["aud"] = "https://mcp.test" }, false},
		{"RS-11, attack RS-01: a trailing slash", func(c map[string]any) { c["aud"] = mcpURL + "/" }, false},
		{"RS-11 an audience that is a number", func(c map[string]any) { c["aud"] = 5 }, false},
		{"RS-10, attack RS-03: another issuer", func(c map[string]any) { c["iss"] = "https://evil.test" }, false},
		{"RS-10, attack RS-03: the issuer with a trailing slash", func(c map[string]any) { c["iss"] = w.as.URL + "/" }, false},
		{"RS-10, attack RS-03: no issuer", func(c map[string]any) { delete(c, "iss") }, false},
		{"RS-10 an issuer that is a list", func(c map[string]any) { c["iss"] = []string{w.as.URL} }, false},
		{"RS-12, attack RS-04: expired", func(c map[string]any) { c["exp"] = now - 1 }, false},
		{"RS-12, attack RS-04: expires this second", func(c map[string]any) { c["exp"] = now }, false},
		{"RS-12, attack RS-04: no expiry", func(c map[string]any) { delete(c, "exp") }, false},
		{"RS-12, attack RS-04: expiry as a string", func(c map[string]any) { c["exp"] = fmt.Sprint(now + 600) }, false},
		{"RS-12, attack RS-04: expiry beyond all time", func(c map[string]any) { c["exp"] = 1e300 }, false},
		{"RS-12, attack RS-04: expiry of null", func(c map[string]any) { c["exp"] = nil }, false},
		{"RS-12, attack RS-04: a negative expiry", func(c map[string]any) { c["exp"] = -5 }, false},
		{"RS-12 a fractional expiry", func(c map[string]any) { c["exp"] = float64(now) + 0.5 }, true},
		{"RS-12, attack RS-04: not before, in the future", func(c map[string]any) { c["nbf"] = now + 600 }, false},
		{"RS-12 not before, within the skew", func(c map[string]any) { c["nbf"] = now + 59 }, true},
		{"RS-12, attack RS-04: issued in the future", func(c map[string]any) { c["iat"] = now + 600 }, false},
		{"RS-12 issued within the skew", func(c map[string]any) { c["iat"] = now + 59 }, true},
		{"RS-12 no subject", func(c map[string]any) { delete(c, "sub") }, false},
		{"RS-12, attack RS-08: an ID token", func(c map[string]any) { c["nonce"] = "n" }, false},
		{"RS-24, DPOP-07 a token that is bound to a certificate", func(c map[string]any) { c["cnf"] = map[string]string{"x5t#S256": "x"} }, false},
		{"RS-24 a token that is bound to nothing that is known here", func(c map[string]any) { c["cnf"] = map[string]any{"kid": "x"} }, false},
		{"RS-24 a token that is bound to nothing", func(c map[string]any) { c["cnf"] = map[string]any{} }, false},
		{"RS-24 a binding of the wrong type", func(c map[string]any) { c["cnf"] = "x" }, false},
		{"RS-24 a thumbprint of the wrong type", func(c map[string]any) { c["cnf"] = map[string]any{"jkt": 1} }, false},
		{"RS-27 a scope outside the grammar", func(c map[string]any) { c["scope"] = "mcp:read \"" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := w.guard.Verify(t.Context(), w.token(t, tc.change))
			if tc.ok != (err == nil) {
				t.Fatalf("error %v", err)
			}
			if err != nil && oauth.AsError(err).Code != oauth.InvalidToken {
				t.Errorf("code %s", oauth.AsError(err).Code)
			}
			if err != nil {
				rec := w.ask(post(w.token(t, tc.change), callTool("list")))
				if rec.Code != 401 || challengeOf(t, rec).Get("error") != "invalid_token" {
					t.Errorf("RS-06 status %d, %s", rec.Code, rec.Header())
				}
			}
		})
	}
	t.Run("RS-12 the client may stand in azp, and scopes in scp", func(t *testing.T) {
		tok, err := w.guard.Verify(t.Context(), w.token(t, func(c map[string]any) {
			delete(c, "client_id")
			delete(c, "scope")
			c["azp"], c["scp"] = "app", []string{"mcp:read", "files:read"}
		}))
		if err != nil || tok.ClientID != "app" || tok.Scopes.String() != "mcp:read files:read" || tok.ClientHost() != "" {
			t.Errorf("%+v, %v", tok, err)
		}
	})
	t.Run("RS-25 a client that acts for itself", func(t *testing.T) {
		tok, err := w.guard.Verify(t.Context(), w.token(t, func(c map[string]any) { c["sub"] = c["client_id"] }))
		if err != nil || !tok.ClientOnly() {
			t.Errorf("%+v, %v", tok, err)
		}
	})
}

func TestVerifyHeader(t *testing.T) {
	w := newWorld(t, nil)
	sign := func(typ string, key jose.Private, change func(map[string]any)) string {
		c := w.claims()
		if change != nil {
			change(c)
		}
		raw, err := key.Sign(typ, c)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	raw := func(header map[string]any) string {
		h, _ := json.Marshal(header)
		c, _ := json.Marshal(w.claims())
		b64 := base64.RawURLEncoding.EncodeToString
		return b64(h) + "." + b64(c) + "." + b64([]byte(strings.Repeat("s", 64)))
	}
	stranger, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	public, _ := stranger.Public().MarshalJSON()
	for _, tc := range []struct {
		name, token string
		ok          bool
	}{
		{"RS-12 typ at+jwt", sign("at+jwt", w.as.key, nil), true},
		{"RS-12 typ application/at+jwt", sign("application/at+jwt", w.as.key, nil), true},
		{"RS-12 typ in other case", sign("AT+JWT", w.as.key, nil), true},
		{"RS-12, attack RS-08: typ missing", sign("", w.as.key, nil), false},
		{"RS-12, attack RS-08: typ JWT", sign("JWT", w.as.key, nil), false},
		{"RS-12, attack RS-08: a client assertion", sign("client-authentication+jwt", w.as.key, nil), false},
		{"RS-12, attack RS-08: an opaque refresh token", "8xLOxBtZp8", false},
		{"RS-13 a stranger's key", sign("at+jwt", stranger, nil), false},
		{"RS-12, attack RS-07: alg none", raw(map[string]any{"alg": "none", "typ": "at+jwt"}), false},
		{"RS-12, attack RS-07: HS256", raw(map[string]any{"alg": "HS256", "typ": "at+jwt", "kid": w.as.key.KID()}), false},
		{"RS-12 a forged signature under a good kid", raw(map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": w.as.key.KID()}), false},
		{"RS-13 a key in the header", forge(stranger, map[string]any{"jwk": json.RawMessage(public)}, w.claims()), false},
		{"RS-13 a key set address in the header", forge(stranger, map[string]any{"jku": w.as.URL + "/evil"}, w.claims()), false},
		{"RS-12 critical extensions", raw(map[string]any{"alg": "ES256", "typ": "at+jwt", "crit": []string{"x"}}), false},
		{"RS-12 a token over the limit", sign("at+jwt", w.as.key, func(c map[string]any) { c["x"] = strings.Repeat("x", MaxToken) }), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := w.guard.Verify(t.Context(), tc.token)
			if tc.ok != (err == nil) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("RS-12, attack RS-08: the compatibility switch accepts JWT and nothing, but no ID token", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.AllowMissingTyp = true })
		for typ, ok := range map[string]bool{"": true, "JWT": true, "at+jwt": true, "logout+jwt": false} {
			tok, _ := w.as.key.Sign(typ, w.claims())
			if _, err := w.guard.Verify(t.Context(), tok); ok != (err == nil) {
				t.Error(typ, err)
			}
		}
		c := w.claims()
		c["nonce"] = "n"
		tok, _ := w.as.key.Sign("JWT", c)
		if _, err := w.guard.Verify(t.Context(), tok); err == nil {
			t.Error("an ID token passed")
		}
	})
	t.Run("RS-12, attack RS-07: an algorithm that this guard does not allow", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Algorithms = []string{jose.EdDSA} })
		if _, err := w.guard.Verify(t.Context(), w.token(t, nil)); err == nil {
			t.Error("ES256 passed")
		}
	})
}

// forge signs with a stranger's key under a header that claims it.
func forge(key jose.Private, extra, claims map[string]any) string {
	good, _ := key.Sign("at+jwt", claims)
	parts := strings.Split(good, ".")
	header := map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": key.KID()}
	for k, v := range extra {
		header[k] = v
	}
	h, _ := json.Marshal(header)
	parts[0] = base64.RawURLEncoding.EncodeToString(h)
	return strings.Join(parts, ".")
}

func TestIssuersApart(t *testing.T) {
	t.Run("RS-10, attack RS-03: two trusted issuers with one kid, and keys that stay apart", func(t *testing.T) {
		a, b := newServer(t), newServer(t)
		c := newClock()
		cfg := config(a, c)
		cfg.AuthorizationServers = []string{a.URL, b.URL}
		g, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w := &world{as: a, clock: c, guard: g}
		if _, err := g.Verify(t.Context(), w.token(t, nil)); err != nil {
			t.Fatal(err)
		}
		claims := w.claims()
		tok, _ := b.key.Sign("at+jwt", claims) // says it comes from a
		if _, err := g.Verify(t.Context(), tok); err == nil {
			t.Error("b signed for a")
		}
		claims["iss"] = b.URL
		tok, _ = b.key.Sign("at+jwt", claims)
		if _, err := g.Verify(t.Context(), tok); err != nil {
			t.Error(err)
		}
	})
	t.Run("RS-10 metadata that names another issuer gives no keys", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.issuer += "/"
		_, err := w.guard.Verify(t.Context(), w.token(t, nil))
		if oauth.AsError(err).Code != oauth.TemporarilyUnavailable || w.as.jwks.Load() != 0 {
			t.Error(err)
		}
	})
	t.Run("RS-13 keys over http are not fetched", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.jwksURI = "http" + strings.TrimPrefix(w.as.jwksURI, "https")
		if _, err := w.guard.Verify(t.Context(), w.token(t, nil)); err == nil || !strings.Contains(err.Error(), "https jwks_uri") {
			t.Error(err)
		}
	})
}

func TestKeyRefresh(t *testing.T) {
	newKey := func() jose.Private {
		k, err := jose.Generate(jose.ES256)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	t.Run("RS-13, attack RS-05: 100,000 unknown kids cost one fetch per cool-down", func(t *testing.T) {
		w := newWorld(t, nil)
		good := w.token(t, nil)
		if _, err := w.guard.Verify(t.Context(), good); err != nil {
			t.Fatal(err)
		}
		i := w.guard.issuers[w.as.URL]
		w.clock.advance(31 * time.Second)
		for n := range 100_000 {
			if _, err := i.key(t.Context(), fmt.Sprint("kid", n), jose.ES256); err == nil {
				t.Fatal("found")
			}
		}
		if n := w.as.jwks.Load(); n != 2 {
			t.Errorf("%d fetches", n)
		}
		if _, err := w.guard.Verify(t.Context(), good); err != nil {
			t.Error("an honest call suffers:", err)
		}
	})
	t.Run("RS-13 a new key is found after the cool-down", func(t *testing.T) {
		w := newWorld(t, nil)
		if _, err := w.guard.Verify(t.Context(), w.token(t, nil)); err != nil {
			t.Fatal(err)
		}
		w.as.set(func() { w.as.key = newKey(); w.as.keys = append(w.as.keys, w.as.key.Public()) })
		if _, err := w.guard.Verify(t.Context(), w.token(t, nil)); err == nil {
			t.Error("fetched within the cool-down")
		}
		w.clock.advance(coolDown)
		if _, err := w.guard.Verify(t.Context(), w.token(t, nil)); err != nil {
			t.Error(err)
		}
	})
	t.Run("RS-13 concurrent callers share one fetch", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.gate = make(chan struct{})
		tok := w.token(t, nil)
		var wg sync.WaitGroup
		errs := make([]error, 32)
		for n := range errs {
			wg.Go(func() { _, errs[n] = w.guard.Verify(t.Context(), tok) })
		}
		close(w.as.gate)
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := w.as.jwks.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("RS-13 the last good keys survive an outage, for a day", func(t *testing.T) {
		w := newWorld(t, nil)
		long := func(c map[string]any) { c["exp"] = w.clock.Now().Add(1000 * time.Hour).Unix() }
		tok := w.token(t, long)
		if _, err := w.guard.Verify(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		w.as.set(func() { w.as.down = true })
		w.clock.advance(2 * time.Hour) // past the default lifetime
		for range 3 {
			if _, err := w.guard.Verify(t.Context(), tok); err != nil {
				t.Fatal(err)
			}
		}
		w.clock.advance(25 * time.Hour)
		rec := w.ask(post(tok, callTool("list")))
		if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || rec.Header().Get("WWW-Authenticate") != "" {
			t.Error(rec.Code, rec.Header())
		}
		w.as.set(func() { w.as.down = false })
		w.clock.advance(coolDown)
		if _, err := w.guard.Verify(t.Context(), tok); err != nil {
			t.Error("it does not recover:", err)
		}
	})
	t.Run("RS-13 a retired key stops being good when the set is fetched again", func(t *testing.T) {
		w := newWorld(t, nil)
		long := func(c map[string]any) { c["exp"] = w.clock.Now().Add(1000 * time.Hour).Unix() }
		tok := w.token(t, long)
		if _, err := w.guard.Verify(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		w.as.set(func() { w.as.keys = []jose.Key{newKey().Public()} })
		w.clock.advance(keysDefault)
		if _, err := w.guard.Verify(t.Context(), tok); err == nil {
			t.Error("still good")
		}
	})
	t.Run("RS-13 an empty or broken key set does not replace a good one", func(t *testing.T) {
		w := newWorld(t, nil)
		tok := w.token(t, func(c map[string]any) { c["exp"] = w.clock.Now().Add(10 * time.Hour).Unix() })
		if _, err := w.guard.Verify(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
		w.as.set(func() { w.as.keys = nil })
		w.clock.advance(keysDefault)
		if _, err := w.guard.Verify(t.Context(), tok); err != nil {
			t.Error(err)
		}
	})
	t.Run("RS-13 a caller who hangs up does not end the fetch for others", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.gate = make(chan struct{})
		ctx, cancel := contextWithCancel(t)
		cancel()
		if _, err := w.guard.Verify(ctx, w.token(t, nil)); oauth.AsError(err).Code != oauth.TemporarilyUnavailable {
			t.Error(err)
		}
		close(w.as.gate)
		if _, err := w.guard.Verify(t.Context(), w.token(t, nil)); err != nil {
			t.Error(err)
		}
	})
	t.Run("RS-13 redirects are not followed", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.Config.Handler = http.RedirectHandler("https://evil.test/", http.StatusFound)
		if _, err := w.guard.Verify(t.Context(), w.token(t, nil)); err == nil || !strings.Contains(err.Error(), "302") {
			t.Error(err)
		}
	})
	t.Run("RS-13 the lifetime of keys is what the response says, within limits", func(t *testing.T) {
		for _, tc := range []struct {
			cache, age string
			want       time.Duration
		}{
			{"", "", time.Hour},
			{"max-age=600", "", 10 * time.Minute},
			{"public, MAX-AGE=600", "300", 5 * time.Minute},
			{"max-age=0", "", time.Minute},
			{"no-store", "", time.Minute},
			{"max-age=31536000", "", 24 * time.Hour},
			{"max-age=600", "99999", time.Minute},
			{"max-age=x", "", time.Hour},
		} {
			h := http.Header{}
			h.Set("Cache-Control", tc.cache)
			h.Set("Age", tc.age)
			if got := lifetime(h); got != tc.want {
				t.Errorf("%q %q: %s, want %s", tc.cache, tc.age, got, tc.want)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	w := benchWorld(b)
	c := w.claims()
	tok, err := w.as.key.Sign("at+jwt", c)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.guard.Verify(b.Context(), tok); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRawECDSA(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	sum := sha256.Sum256([]byte("x"))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !ecdsa.Verify(&key.PublicKey, sum[:], r, s) {
			b.Fatal("wrong")
		}
	}
}
