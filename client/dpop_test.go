package client

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// offering is a world whose server offers DPoP and pushed requests.
func offering(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := newWorld(t, func(c *Config) {
		c.DPoP = DPoPIfOffered
		if change != nil {
			change(c)
		}
	})
	w.as.meta.DPoPSigningAlgs = []string{"ES256", "Ed25519"}
	w.as.meta.PushedRequestEndpoint = w.as.URL + "/par"
	return w
}

// used calls the tool and fails the test unless it answered.
func (w *world) used(t *testing.T, h *http.Client) {
	t.Helper()
	if code, body, err := w.call(t, h, callBody("list")); code != 200 {
		t.Fatal(code, body, err)
	}
}

func claimsOf(t *testing.T, p *jose.Proof) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(p.Claims, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDPoP(t *testing.T) {
	t.Run("CLI-24 tokens are bound to one key, from the pushed request to the call", func(t *testing.T) {
		w := offering(t, nil)
		h := w.c.HTTPClient(w.target())
		w.used(t, h)
		w.used(t, h)
		if len(w.as.proofs) != 2 || len(w.rs.proofs) != 2 {
			t.Fatal(len(w.as.proofs), len(w.rs.proofs))
		}
		jkt := w.as.proofs[0].JKT
		ids := map[string]bool{}
		for _, p := range append(w.as.proofs, w.rs.proofs...) {
			if p.JKT != jkt || ids[p.JTI] || len(p.JTI) < 16 {
				t.Error("another key, or a jti twice")
			}
			ids[p.JTI] = true
		}
		if got := w.as.pushes[w.as.asked[0].Get("request_uri")].Get("dpop_jkt"); got != jkt {
			t.Error("dpop_jkt", got)
		}
		c := claimsOf(t, w.rs.proofs[1])
		token := strings.TrimPrefix(strings.Fields(w.rs.seen[len(w.rs.seen)-1])[3], "DPoP ")
		sum := sha256.Sum256([]byte(token))
		if c["ath"] != base64.RawURLEncoding.EncodeToString(sum[:]) || c["content_digest"] != nil {
			t.Error(c)
		}
		for _, p := range w.as.proofs {
			if c := claimsOf(t, p); c["ath"] != nil || c["content_digest"] != nil {
				t.Error("at the authorization server:", c)
			}
		}
	})
	t.Run("CLI-24 the refreshed token is bound to the same key, also in another process", func(t *testing.T) {
		store := NewMemoryStore()
		w := offering(t, func(c *Config) { c.Store = store })
		w.used(t, w.c.HTTPClient(w.target()))
		w.advance(time.Hour)
		next, err := New(w.c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.used(t, next.HTTPClient(w.target()))
		if w.opened() != 1 || w.as.proofs[2].JKT != w.as.proofs[0].JKT {
			t.Error(w.opened(), len(w.as.proofs))
		}
		if _, err := w.c.TokenSource(t.Context(), w.target()).Token(); err == nil {
			t.Error("a bound token left without its key")
		}
	})
	t.Run("CLI-24 no DPoP unless it is wanted and offered, or the resource takes nothing else", func(t *testing.T) {
		for _, tc := range []struct {
			use             DPoPUse
			offered, needed bool
			bound, ok       bool
		}{
			{DPoPWhenRequired, true, false, false, true},
			{DPoPWhenRequired, true, true, true, true},
			{DPoPWhenRequired, false, true, false, false},
			{DPoPIfOffered, false, false, false, true},
			{DPoPIfOffered, true, false, true, true},
			{DPoPAlways, false, false, false, false},
			{DPoPAlways, true, false, true, true},
		} {
			w := newWorld(t, func(c *Config) { c.DPoP = tc.use })
			if w.rs.meta.DPoPRequired = tc.needed; tc.offered {
				w.as.meta.DPoPSigningAlgs = []string{"ES256"}
			}
			g, err := w.c.SignIn(t.Context(), w.target())
			if (err == nil) != tc.ok || tc.ok && g.bound() != tc.bound || !tc.ok && w.opened() != 0 {
				t.Errorf("%+v: %v, %v, %d", tc, g, err, w.opened())
			}
		}
	})
	t.Run("CLI-24, CLI-26 a server that said it binds tokens and did not", func(t *testing.T) {
		w := offering(t, nil)
		w.as.token = func(m map[string]any) { m["token_type"] = "Bearer" }
		if _, err := w.c.SignIn(t.Context(), w.target()); err == nil || !w.failed("CLI-26") {
			t.Error(err)
		}
	})
	t.Run("CLI-17, CLI-24 the algorithm is one of both servers, by the name they know", func(t *testing.T) {
		w := offering(t, nil)
		w.as.meta.DPoPSigningAlgs, w.rs.meta.DPoPSigningAlgs = []string{"ES256", "Ed25519"}, []string{"Ed25519"}
		w.used(t, w.c.HTTPClient(w.target()))
		raw := w.as.headers[len(w.as.headers)-1].Get("DPoP")
		head, _ := base64.RawURLEncoding.DecodeString(raw[:strings.IndexByte(raw, '.')])
		if w.as.proofs[0].Alg != jose.EdDSA || !strings.Contains(string(head), `"alg":"Ed25519"`) {
			t.Error(w.as.proofs[0].Alg, string(head))
		}
	})
	t.Run("CLI-13 another authorization server sees another key", func(t *testing.T) {
		w := offering(t, nil)
		one, err := w.c.installation(t.Context(), w.as.URL, jose.Algorithms)
		two, err2 := w.c.installation(t.Context(), "https://other.test", jose.Algorithms)
		again, err3 := w.c.installation(t.Context(), w.as.URL, jose.Algorithms)
		if errors.Join(err, err2, err3) != nil || one.ID() == two.ID() || one.ID() != again.ID() {
			t.Error(one, two, again, err, err2, err3)
		}
	})
	t.Run("CLI-22 the key does not show in prints of a grant", func(t *testing.T) {
		w := offering(t, nil)
		g, err := w.c.SignIn(t.Context(), w.target())
		if err != nil {
			t.Fatal(err)
		}
		var jwk struct{ D string }
		_ = json.Unmarshal(g.ProofKey, &jwk)
		if told := fmt.Sprintf("%v %+v %#v %v", g, *g, *g, w.steps); jwk.D == "" || strings.Contains(told, jwk.D) {
			t.Error(told)
		}
	})
	t.Run("CLI-24 a grant whose key is damaged", func(t *testing.T) {
		w := offering(t, nil)
		h := w.c.HTTPClient(w.target())
		w.used(t, h)
		_ = w.c.cfg.Store.Update(t.Context(), w.target(), func(g *Grant) (*Grant, error) { g.ProofKey = []byte("{}"); return g, nil })
		if _, _, err := w.call(t, h, "{}"); err == nil || !strings.Contains(err.Error(), "key") {
			t.Error(err)
		}
	})
	t.Run("CLI-24 a proof is about the address without query and fragment", func(t *testing.T) {
		w := newWorld(t, nil)
		raw, err := w.c.proof(key(t, "ES256"), proven{method: "GET", url: "https://mcp.test/mcp?a=b#c"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jose.ParseProof(raw, jose.ProofRules{Method: "GET", URL: "https://mcp.test/mcp", Now: w.clock()}); err != nil {
			t.Error(err)
		}
		if m, _ := jose.Parse(raw, 0); strings.Contains(string(m.Claims), "?") || strings.Contains(string(m.Claims), "#") {
			t.Error(string(m.Claims))
		}
	})
	t.Run("CLI-24 a configuration that is none", func(t *testing.T) {
		if _, err := New(Config{ID: appID, DPoP: "yes"}); err == nil {
			t.Error("accepted")
		}
	})
}

func TestNonces(t *testing.T) {
	t.Run("CLI-24, attack DP-07: a nonce of the authorization server, then kept and not asked for again", func(t *testing.T) {
		w := offering(t, nil)
		w.as.nonce = "n1"
		w.used(t, w.c.HTTPClient(w.target()))
		var got []string
		for _, p := range w.as.proofs {
			got = append(got, p.Nonce)
		}
		if !slices.Equal(got, []string{"", "n1", "n1"}) {
			t.Error(got)
		}
	})
	t.Run("CLI-24, attack DP-07: a nonce of the resource, exactly once more, each with a fresh proof", func(t *testing.T) {
		w := offering(t, nil)
		w.rs.nonce = "r1"
		h := w.c.HTTPClient(w.target())
		w.used(t, h)
		if len(w.rs.proofs) != 2 || w.rs.proofs[0].JTI == w.rs.proofs[1].JTI || w.rs.proofs[1].Nonce != "r1" {
			t.Error(len(w.rs.proofs))
		}
		w.rs.with(func() { w.rs.nonce = "r2" })
		w.used(t, h)
		if len(w.rs.proofs) != 4 || w.rs.proofs[2].Nonce != "r1" || w.rs.proofs[3].Nonce != "r2" {
			t.Error("the old nonce was not replaced")
		}
		for _, p := range w.as.proofs {
			if p.Nonce != "" {
				t.Error("the authorization server was shown the resource's nonce")
			}
		}
	})
	t.Run("attack DP-07: a resource that is never content gets two requests, and nobody is signed in again", func(t *testing.T) {
		w := offering(t, nil)
		h := w.c.HTTPClient(w.target())
		w.used(t, h)
		before := len(w.rs.proofs)
		w.rs.with(func() { w.rs.nonce = "-" }) // which it keeps to itself
		if code, _, err := w.call(t, h, callBody("list")); err != nil || code != 401 {
			t.Fatal(code, err)
		}
		if n := len(w.rs.proofs) - before; n != 1 || w.opened() != 1 {
			t.Error("without a nonce in the answer:", n, w.opened())
		}
		before = len(w.rs.proofs)
		w.rs.with(func() { w.rs.nonce = "moving" })
		w.c.calls.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			w.rs.with(func() { w.rs.nonce += "x" }) // another one for each request
			return w.rs.Client().Transport.RoundTrip(r)
		})
		code, _, err := w.call(t, w.c.HTTPClient(w.target()), callBody("list"))
		if n := len(w.rs.proofs) - before; err != nil || code != 401 || n != 2 || w.opened() != 1 {
			t.Error(code, err, n, w.opened())
		}
	})
	t.Run("attack DP-07: an authorization server that is never content gets two requests", func(t *testing.T) {
		w := offering(t, nil)
		w.as.meta.RequirePushed = true
		asked := 0
		w.as.more = func(rw http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/par" {
				return false
			}
			asked++
			rw.Header().Set("DPoP-Nonce", fmt.Sprint("n", asked))
			failed(rw, 400, "use_dpop_nonce")
			return true
		}
		_, err := w.c.SignIn(t.Context(), w.target())
		if e, is := errors.AsType[*ServerError](err); !is || e.Code != oauth.UseDPoPNonce || asked != 2 {
			t.Error(err, asked)
		}
	})
	t.Run("CLI-24 a proof that the resource refuses is its answer: another token would not help", func(t *testing.T) {
		w := offering(t, nil)
		h := w.c.HTTPClient(w.target())
		w.used(t, h)
		before := len(w.as.posted)
		w.rs.as.with(func() { w.rs.as.clock = func() time.Time { return w.clock().Add(time.Hour) } })
		if code, _, err := w.call(t, h, callBody("list")); err != nil || code != 401 || w.opened() != 1 || len(w.as.posted) != before {
			t.Error(code, err, w.opened())
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestContentDigest(t *testing.T) {
	digest := func(body string) string {
		sum := sha256.Sum256([]byte(body))
		return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	}
	t.Run("CLI-24 the digest of the body where the extension is on", func(t *testing.T) {
		w := offering(t, func(c *Config) { c.ContentDigest = true })
		h := w.c.HTTPClient(w.target())
		w.used(t, h)
		if c := claimsOf(t, w.rs.proofs[0]); c["content_digest"] != digest(callBody("list")) {
			t.Error(c)
		}
		req, _ := http.NewRequestWithContext(t.Context(), "POST", w.target(), io.MultiReader(strings.NewReader("once")))
		resp, err := h.Do(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(err)
		}
		resp.Body.Close()
		if c := claimsOf(t, w.rs.proofs[1]); c["content_digest"] != digest("once") || w.rs.bodies[len(w.rs.bodies)-1] != "once" {
			t.Error("a body of unknown length:", c)
		}
		resp, err = h.Get(w.target())
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(err)
		}
		resp.Body.Close()
		if c := claimsOf(t, w.rs.proofs[2]); c["content_digest"] != nil {
			t.Error("of a GET:", c)
		}
	})
	t.Run("CLI-24 a body without end is not kept", func(t *testing.T) {
		w := offering(t, func(c *Config) { c.ContentDigest = true })
		req, _ := http.NewRequestWithContext(t.Context(), "POST", w.target(), io.MultiReader(strings.NewReader(strings.Repeat("x", maxReplay+1))))
		if _, err := w.c.HTTPClient(w.target()).Do(req); err == nil || len(w.rs.bodies) != 0 {
			t.Error(err)
		}
	})
}

func TestPushedRequests(t *testing.T) {
	t.Run("CLI-24 the browser carries a reference and nothing else", func(t *testing.T) {
		k := key(t, "ES256")
		w := offering(t, func(c *Config) { c.DPoP, c.Key = DPoPWhenRequired, k })
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		q := w.as.asked[0]
		if len(q) != 2 || q.Get("client_id") != appID || !strings.HasPrefix(q.Get("request_uri"), "urn:") {
			t.Error(q)
		}
		pushed := w.as.pushes[q.Get("request_uri")]
		for name, want := range map[string]string{"response_type": "code", "scope": "read", "resource": w.target(), "client_id": appID, "code_challenge_method": "S256"} {
			if pushed.Get(name) != want {
				t.Errorf("%s = %q", name, pushed.Get(name))
			}
		}
		claims, _, _ := assertionClaims(t, k, pushed.Get("client_assertion"))
		if claims["aud"] != w.as.URL {
			t.Error("CLI-16:", claims)
		}
	})
	t.Run("CLI-17 the trace says once for each request how the client proves itself", func(t *testing.T) {
		w := offering(t, func(c *Config) { c.Key = key(t, "ES256") })
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, s := range w.steps {
			if s.Kind == StepDecide && s.Rule == "CLI-17" || s.Kind == StepAsk && len(s.Sent) > 0 {
				told = append(told, s.Text)
			}
		}
		proof := "prove the client with its key (private_key_jwt)"
		if want := []string{proof, "push the authorization request", proof, "redeem the code for tokens"}; !slices.Equal(told, want) {
			t.Errorf("told %q", told)
		}
	})
	t.Run("attack CA-14: an endpoint for pushed requests of somebody else gets an assertion for the issuer that was verified", func(t *testing.T) {
		k := key(t, "ES256")
		w := offering(t, func(c *Config) { c.Key = k })
		honest := newAS(t)
		w.as.meta.PushedRequestEndpoint, w.as.meta.RequirePushed = honest.URL+"/token", true
		_, _ = w.c.SignIn(t.Context(), w.target())
		if len(honest.posted) != 1 {
			t.Fatal("nothing was sent")
		}
		if claims, _, _ := assertionClaims(t, k, honest.posted[0].Get("client_assertion")); claims["aud"] != w.as.URL {
			t.Error("the honest server would accept it:", claims["aud"])
		}
	})
	for _, tc := range []struct {
		name     string
		required bool
		change   func(*world)
		ok       bool
	}{
		{"CLI-24 pushing fails for now, and need not be", false, func(w *world) { w.answers("/par", 503, "{}") }, true},
		{"CLI-24 pushing is too much for now", false, func(w *world) { w.answers("/par", 429, `{"error":"temporarily_unavailable"}`) }, true},
		{"CLI-24 pushing fails for now, and has to be", true, func(w *world) { w.answers("/par", 503, "{}") }, false},
		{"CLI-24 nobody answers, and need not", false, func(w *world) { w.as.meta.PushedRequestEndpoint = "https://127.0.0.1:1/par" }, true},
		{"CLI-24 a client that cannot prove itself does not go on without", false, func(w *world) {
			w.c.cfg.Methods, w.c.cfg.Attest = []string{oauth.MethodAttestation}, func(context.Context, Attestation) (string, error) { return "", errors.New("down") }
			w.as.meta.TokenAuthMethods = nil
		}, false},
		{"CLI-24 a refusal is one", false, func(w *world) { w.answers("/par", 400, `{"error":"invalid_request"}`) }, false},
		{"CLI-24 an answer without a reference", false, func(w *world) { w.answers("/par", 201, `{}`) }, false},
		{"CLI-24 pushing has to be, and there is no endpoint", true, func(w *world) { w.as.meta.PushedRequestEndpoint = "" }, false},
		{"CLI-23 an endpoint over http", false, func(w *world) { w.as.meta.PushedRequestEndpoint = "http://as.test/par" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := offering(t, nil)
			w.as.meta.RequirePushed = tc.required
			tc.change(w)
			_, err := w.c.SignIn(t.Context(), w.target())
			if (err == nil) != tc.ok || !tc.ok && w.opened() != 0 {
				t.Error(err, w.opened())
			}
			if tc.ok && w.as.asked[0].Get("code_challenge") == "" {
				t.Error(w.as.asked[0])
			}
		})
	}
}

// answers makes the authorization server answer one path in one way.
func (w *world) answers(path string, status int, body string) {
	w.as.more = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path {
			return false
		}
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
		return true
	}
}

func TestWebServersBeginWithAKey(t *testing.T) {
	t.Run("CLI-24 a flow of the application's own is bound and pushed as well", func(t *testing.T) {
		w := offering(t, nil)
		f := begin(t, w)
		u, _ := url.Parse(f.URL)
		q := w.as.pushes[u.Query().Get("request_uri")]
		w.as.codes["c1"] = q
		g, err := f.Finish(t.Context(), url.Values{"code": {"c1"}, "state": {q.Get("state")}, "iss": {w.as.URL}}.Encode())
		if err != nil || !g.bound() || g.ProofKey == nil {
			t.Fatal(g, err)
		}
	})
	t.Run("CLI-13 a client_id that is not this client's there", func(t *testing.T) {
		w := newWorld(t, nil)
		s, err := w.c.Discover(t.Context(), w.target())
		if err != nil {
			t.Fatal(err)
		}
		s.ClientID = "somebody"
		if _, err := w.c.Begin(t.Context(), s, redirectURI, nil); err == nil {
			t.Error("begun")
		}
	})
}
