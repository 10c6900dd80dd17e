package resource

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

func newKey(t *testing.T) jose.Private {
	t.Helper()
	k, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// bound is a token that is bound to a key.
func (w *world) bound(t *testing.T, k jose.Private) string {
	t.Helper()
	return w.token(t, func(c map[string]any) { c["cnf"] = map[string]any{"jkt": k.Public().Thumbprint()} })
}

// proof is a good proof for POST /mcp with a token and a body, with changes.
func (w *world) proof(t *testing.T, k jose.Private, token string, changes map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"jti": oauth.RandomToken(12), "htm": "POST", "htu": mcpURL, "iat": w.clock.Now().Unix(), "ath": hashOf(token),
		"content_digest": digestOf(callTool("list")),
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	raw, err := k.SignProof(claims)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func withProof(scheme, token string, proofs ...string) *http.Request {
	r := post("", callTool("list"))
	r.Host = "evil.test" // no check may ask for it
	r.Header.Set("Authorization", scheme+" "+token)
	for _, p := range proofs {
		r.Header.Add("DPoP", p)
	}
	return r
}

func TestBoundTokens(t *testing.T) {
	type m = map[string]any
	w := newWorld(t, nil)
	key, thief := newKey(t), newKey(t)
	token, plain := w.bound(t, key), w.token(t, nil)
	t.Run("RS-24, DPOP-06 a bound token with its proof", func(t *testing.T) {
		rec := w.ask(withProof("DPoP", token, w.proof(t, key, token, nil)))
		if rec.Code != 200 || w.seen == nil {
			t.Fatal(rec.Code, rec.Body)
		}
		tok, _ := FromContext(w.seen.Context())
		if tok.KeyThumbprint != key.Public().Thumbprint() || w.body != callTool("list") {
			t.Errorf("%+v", tok)
		}
		if w.seen.Header.Get("DPoP")+w.seen.Header.Get("Authorization") != "" {
			t.Error("RS-16 credentials were passed on")
		}
		if rec := w.ask(withProof("dpop", token, w.proof(t, key, token, nil))); rec.Code != 200 {
			t.Error("the scheme is not compared without case")
		}
		if rec := w.ask(withProof("Bearer", plain, "not looked at")); rec.Code != 200 {
			t.Error("a bearer token is refused for a header that does not matter")
		}
	})
	for _, r := range []struct {
		row    string
		r      *http.Request
		code   oauth.Code
		scheme string
	}{
		{"DPOP-06, attack DP-04: a bound token with the scheme Bearer", withProof("Bearer", token), oauth.InvalidToken, "DPoP"},
		{"DPOP-06, attack DP-04: also with a proof", withProof("Bearer", token, w.proof(t, key, token, nil)), oauth.InvalidToken, "DPoP"},
		{"DPOP-06 a bearer token with the scheme DPoP", withProof("DPoP", plain, w.proof(t, key, plain, nil)), oauth.InvalidToken, "DPoP"},
		{"DPOP-06 a bearer token with the scheme DPoP and nothing else", withProof("DPoP", plain), oauth.InvalidToken, "DPoP"},
		{"RS-24 the proof of another key", withProof("DPoP", token, w.proof(t, thief, token, nil)), oauth.InvalidToken, "DPoP"},
		{"DPOP-01 no proof", withProof("DPoP", token), oauth.InvalidDPoPProof, "DPoP"},
		{"DPOP-01 two proofs", withProof("DPoP", token, w.proof(t, key, token, nil), w.proof(t, key, token, nil)), oauth.InvalidDPoPProof, "DPoP"},
		{"DPOP-01 a proof for another token", withProof("DPoP", token, w.proof(t, key, plain, nil)), oauth.InvalidDPoPProof, "DPoP"},
		{"DPOP-01 no ath", withProof("DPoP", token, w.proof(t, key, token, m{"ath": nil})), oauth.InvalidDPoPProof, "DPoP"},
		{"DPOP-01 another method", withProof("DPoP", token, w.proof(t, key, token, m{"htm": "GET"})), oauth.InvalidDPoPProof, "DPoP"},
		{"DPOP-01 the URL that the Host header names", withProof("DPoP", token, w.proof(t, key, token, m{"htu": "https://evil.test/mcp"})), oauth.InvalidDPoPProof, "DPoP"},
		{"DPOP-05, attack DP-08: iat ten minutes ago", withProof("DPoP", token, w.proof(t, key, token, m{"iat": w.clock.Now().Unix() - 600})), oauth.InvalidDPoPProof, "DPoP"},
		{"DPOP-05, attack DP-08: iat in ten minutes", withProof("DPoP", token, w.proof(t, key, token, m{"iat": w.clock.Now().Unix() + 600})), oauth.InvalidDPoPProof, "DPoP"},
		{"RS-24 the token itself is no good", withProof("DPoP", token+"A", w.proof(t, key, token+"A", nil)), oauth.InvalidToken, "DPoP"},
	} {
		t.Run(r.row, func(t *testing.T) {
			rec := w.ask(r.r)
			c := challengeWith(t, rec, r.scheme)
			if rec.Code != 401 || c.Get("error") != string(r.code) || c.Get("algs") != "ES256 PS256 RS256 EdDSA Ed25519" || c.Get("resource_metadata") == "" {
				t.Errorf("%d %v", rec.Code, c)
			}
			if w.seen != nil || w.last.Allowed || w.last.Token.Subject != "" || w.last.Code != r.code {
				t.Errorf("let through, or observed as %+v", w.last)
			}
		})
	}
	t.Run("DPOP-05 iat within five minutes to either side", func(t *testing.T) {
		for _, d := range []int64{-300, 300} {
			if rec := w.ask(withProof("DPoP", token, w.proof(t, key, token, m{"iat": w.clock.Now().Unix() + d}))); rec.Code != 200 {
				t.Error(d, rec.Body)
			}
		}
	})
	t.Run("attack DP-01, attack DP-02: a proof is good once, in whatever spelling", func(t *testing.T) {
		p := w.proof(t, key, token, m{"jti": "once"})
		if rec := w.ask(withProof("DPoP", token, p)); rec.Code != 200 {
			t.Fatal(rec.Body)
		}
		for _, again := range []string{p, w.proof(t, key, token, m{"jti": "once", "htu": mcpURL + "?again"})} {
			if c := challengeWith(t, w.ask(withProof("DPoP", token, again)), "DPoP"); c.Get("error") != "invalid_dpop_proof" {
				t.Error(c)
			}
		}
	})
	t.Run("attack DP-01: one that was made a while ago is good once too, for as long as it could come again", func(t *testing.T) {
		p := w.proof(t, key, token, m{"jti": "old", "iat": w.clock.Now().Unix() - 299})
		if rec := w.ask(withProof("DPoP", token, p)); rec.Code != 200 {
			t.Fatal(rec.Body)
		}
		if c := challengeWith(t, w.ask(withProof("DPoP", token, p)), "DPoP"); c.Get("error") != "invalid_dpop_proof" {
			t.Error(c)
		}
	})
	t.Run("attack DP-08: a proof is used up only when all else is good", func(t *testing.T) {
		p := w.proof(t, key, token, nil)
		r := withProof("DPoP", token, p)
		r.Body = http.NoBody
		before := len(w.guard.proofs.used)
		if rec := w.ask(r); rec.Code != 400 {
			t.Fatal(rec.Code)
		}
		if len(w.guard.proofs.used) != before {
			t.Error("remembered")
		}
	})
	t.Run("RS-07 too little scope is told under the scheme of the request", func(t *testing.T) {
		r := withProof("DPoP", token, w.proof(t, key, token, nil))
		r.Body = post("", callTool("create")).Body
		rec := w.ask(r)
		if c := challengeWith(t, rec, "DPoP"); rec.Code != 403 || c.Get("error") != "insufficient_scope" || c.Get("scope") == "" {
			t.Error(rec.Code, c)
		}
	})
	t.Run("RS-24 Verify sees no request and takes no bound token", func(t *testing.T) {
		if _, err := w.guard.Verify(t.Context(), token); oauth.AsError(err).Rule != "RS-24" {
			t.Error(err)
		}
	})
	t.Run("RS-33 a malformed header of the scheme DPoP", func(t *testing.T) {
		if rec := w.ask(withProof("DPoP", "a b")); rec.Code != 400 || challengeWith(t, rec, "DPoP").Get("error") != "invalid_request" {
			t.Error(rec.Code)
		}
	})
}

func TestProofTarget(t *testing.T) {
	key := newKey(t)
	for _, r := range []struct {
		row, resource, path, htu string
		ok                       bool
	}{
		{"DPOP-01 below the resource", mcpURL, "/mcp/files?x=y", "https://mcp.test/mcp/files", true},
		{"DPOP-01 below the resource, the proof of another path", mcpURL, "/mcp/files", "https://mcp.test/mcp/other", false},
		{"DPOP-01 behind something that rewrites paths", mcpURL, "/", mcpURL, true},
		{"DPOP-01 a path that only begins alike", mcpURL, "/mcpx", mcpURL, true},
		{"DPOP-01 a resource without a path", "https://mcp.test", "/any", "https://mcp.test/any", true},
		{"DPOP-01 a resource without a path, the proof of its root", "https://mcp.test", "/any", "https://mcp.test/", false},
	} {
		t.Run(r.row, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Resource = r.resource })
			token := w.token(t, func(c map[string]any) {
				c["aud"], c["cnf"] = r.resource, map[string]any{"jkt": key.Public().Thumbprint()}
			})
			req := httptest.NewRequest("POST", r.path, strings.NewReader(callTool("list")))
			req.Header.Set("Authorization", "DPoP "+token)
			req.Header.Set("DPoP", w.proof(t, key, token, map[string]any{"htu": r.htu}))
			if rec := w.ask(req); (rec.Code == 200) != r.ok {
				t.Error(rec.Code, rec.Body)
			}
		})
	}
	t.Run("DPOP-01 a request whose target is a whole URL", func(t *testing.T) {
		w := newWorld(t, nil)
		token := w.bound(t, key)
		req := withProof("DPoP", token, w.proof(t, key, token, nil))
		req.RequestURI = "https://evil.test/mcp"
		if rec := w.ask(req); rec.Code != 200 {
			t.Error(rec.Code, rec.Body)
		}
	})
}

func TestContentDigest(t *testing.T) {
	type m = map[string]any
	key := newKey(t)
	for _, tools := range []bool{true, false} {
		w := newWorld(t, func(c *Config) {
			c.DPoP.ContentDigest = true
			if !tools {
				c.Tools, c.Methods = nil, nil
			}
		})
		token := w.bound(t, key)
		for _, r := range []struct {
			row    string
			change m
			ok     bool
		}{
			{"DPOP-05 the digest of the body", nil, true},
			{"DPOP-05 the digest of another body", m{"content_digest": digestOf(callTool("purge"))}, false},
			{"DPOP-05 no digest", m{"content_digest": nil}, false},
			{"DPOP-05 a digest that is no text", m{"content_digest": 1}, false},
			{"DPOP-05 in base64url", m{"content_digest": "sha-256=:" + hashOf(callTool("list")) + ":"}, false},
		} {
			t.Run(fmt.Sprintf("%s (bodies read: %v)", r.row, tools), func(t *testing.T) {
				rec := w.ask(withProof("DPoP", token, w.proof(t, key, token, r.change)))
				if r.ok {
					if rec.Code != 200 || w.body != callTool("list") {
						t.Fatal(rec.Code, rec.Body, w.body)
					}
					return
				}
				if c := challengeWith(t, rec, "DPoP"); rec.Code != 401 || c.Get("error") != "invalid_dpop_proof" || w.last.Rule != "DPOP-05" {
					t.Error(rec.Code, c)
				}
			})
		}
		t.Run("DPOP-05 a GET has no body and needs no digest", func(t *testing.T) {
			r := httptest.NewRequest("GET", "/mcp", nil)
			r.Header.Set("Authorization", "DPoP "+token)
			r.Header.Set("DPoP", w.proof(t, key, token, m{"htm": "GET", "content_digest": nil}))
			if rec := w.ask(r); rec.Code != 200 {
				t.Error(rec.Code, rec.Body)
			}
		})
	}
}

func TestProofNonces(t *testing.T) {
	type m = map[string]any
	shared := []byte("sixteen octets or more")
	w := newWorld(t, func(c *Config) { c.DPoP = DPoP{RequireNonce: true, NonceKey: shared} })
	key := newKey(t)
	token := w.bound(t, key)
	first := func(claims m) string {
		t.Helper()
		rec := w.ask(withProof("DPoP", token, w.proof(t, key, token, claims)))
		if c := challengeWith(t, rec, "DPoP"); rec.Code != 401 || c.Get("error") != "use_dpop_nonce" {
			t.Fatal(rec.Code, c)
		}
		return rec.Header().Get("DPoP-Nonce")
	}
	t.Run("DPOP-03, attack DP-07: no nonce, an old one, one of another server: a fresh one, and then it works", func(t *testing.T) {
		old := first(nil)
		w.clock.advance(301 * time.Second)
		for _, nonce := range []string{"", old, jose.RandomNonces(0).At(w.clock.Now()), "x"} {
			fresh := first(m{"nonce": nonce})
			rec := w.ask(withProof("DPoP", token, w.proof(t, key, token, m{"nonce": fresh})))
			if rec.Code != 200 || rec.Header().Get("DPoP-Nonce") == "" {
				t.Error(rec.Code, rec.Body)
			}
		}
	})
	t.Run("DPOP-03 another process with the same key gives the same nonce", func(t *testing.T) {
		other := newWorld(t, func(c *Config) { c.DPoP = DPoP{RequireNonce: true, NonceKey: shared} })
		if other.guard.nonces.At(w.clock.Now()) != first(nil) {
			t.Error("another nonce")
		}
	})
	t.Run("DPOP-03 a page may read the nonce", func(t *testing.T) {
		r := withProof("DPoP", token, w.proof(t, key, token, nil))
		r.Header.Set("Origin", "https://mcp.test")
		if h := w.ask(r).Header().Get("Access-Control-Expose-Headers"); !strings.Contains(h, "DPoP-Nonce") {
			t.Error(h)
		}
	})
	t.Run("DPOP-03 a key that is too short", func(t *testing.T) {
		cfg := config(w.as, w.clock)
		cfg.DPoP.NonceKey = []byte("short")
		if _, err := New(cfg); err == nil {
			t.Error("accepted")
		}
	})
}

func TestRequired(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.DPoP.Required = true })
	key := newKey(t)
	t.Run("RS-24 the metadata says so", func(t *testing.T) {
		var m map[string]any
		if err := json.Unmarshal(w.guard.metadata, &m); err != nil || m["dpop_bound_access_tokens_required"] != true || m["dpop_signing_alg_values_supported"] == nil {
			t.Error(m, err)
		}
	})
	t.Run("RS-24, RS-05 without credentials, the challenge asks for a proof", func(t *testing.T) {
		rec := w.ask(post("", callTool("list")))
		if c := challengeWith(t, rec, "DPoP"); rec.Code != 401 || c.Get("error") != "" || c.Get("algs") == "" || c.Get("resource_metadata") == "" {
			t.Error(rec.Code, c)
		}
	})
	t.Run("RS-24 a bearer token", func(t *testing.T) {
		if c := challengeWith(t, w.ask(post(w.token(t, nil), callTool("list"))), "DPoP"); c.Get("error") != "invalid_token" {
			t.Error(c)
		}
		if _, err := w.guard.Verify(t.Context(), w.token(t, nil)); oauth.AsError(err).Rule != "RS-24" {
			t.Error(err)
		}
	})
	t.Run("RS-24 a bound one", func(t *testing.T) {
		token := w.bound(t, key)
		if rec := w.ask(withProof("DPoP", token, w.proof(t, key, token, nil))); rec.Code != 200 {
			t.Error(rec.Code, rec.Body)
		}
	})
	t.Run("RS-24 one that is bound to a certificate only", func(t *testing.T) {
		cert := someCert(t)
		r := post(w.token(t, func(c map[string]any) { c["cnf"] = map[string]any{"x5t#S256": hashOf(string(cert.Raw))} }), callTool("list"))
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		if rec := w.ask(r); rec.Code != 401 {
			t.Error(rec.Code, rec.Body)
		}
	})
}

func someCert(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificateBoundTokens(t *testing.T) {
	cert, other := someCert(t), someCert(t)
	key := newKey(t)
	var said *x509.Certificate
	direct := newWorld(t, nil)
	proxied := newWorld(t, func(c *Config) { c.Certificate = func(*http.Request) *x509.Certificate { return said } })
	x5t := map[string]any{"x5t#S256": hashOf(string(cert.Raw))}
	for _, r := range []struct {
		row       string
		tls, said *x509.Certificate
		w         *world
		scheme    string
		ok        bool
	}{
		{"DPOP-07 with its certificate", cert, nil, direct, "Bearer", true},
		{"DPOP-07 with another one", other, nil, direct, "Bearer", false},
		{"DPOP-07 without", nil, nil, direct, "Bearer", false},
		{"DPOP-07 with its certificate, as the proxy says", nil, cert, proxied, "Bearer", true},
		{"DPOP-07 the certificate of the proxy itself does not count", cert, nil, proxied, "Bearer", false},
		{"DPOP-06, DPOP-07 with the scheme DPoP", cert, nil, direct, "DPoP", false},
	} {
		t.Run(r.row, func(t *testing.T) {
			said = r.said
			req := withProof(r.scheme, r.w.token(t, func(c map[string]any) { c["cnf"] = x5t }))
			if r.tls != nil {
				req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{r.tls}}
			}
			rec := r.w.ask(req)
			if r.ok != (rec.Code == 200) || !r.ok && challengeWith(t, rec, r.scheme).Get("error") != "invalid_token" {
				t.Error(rec.Code, rec.Body)
			}
		})
	}
	t.Run("DPOP-07 a token that is bound to both needs both", func(t *testing.T) {
		token := direct.token(t, func(c map[string]any) {
			c["cnf"] = map[string]any{"x5t#S256": x5t["x5t#S256"], "jkt": key.Public().Thumbprint()}
		})
		for shown, status := range map[*x509.Certificate]int{cert: 200, other: 401} {
			req := withProof("DPoP", token, direct.proof(t, key, token, nil))
			req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{shown}}
			if rec := direct.ask(req); rec.Code != status {
				t.Error(rec.Code, rec.Body)
			}
		}
	})
}
