package token

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/google/go-cmp/cmp"
)

func TestRedeem(t *testing.T) {
	h := newHouse(t)
	t.Run("TOK-07, TOK-08, TOK-09, TOK-10, TOK-21 a code becomes an access token for one resource and a refresh token", func(t *testing.T) {
		c := h.consent(t, public)
		r := h.ok(t, c.form())
		if r.get("token_type") != "Bearer" || r.json["expires_in"] != 600.0 || r.get("scope") != "read write" || r.get("refresh_token") == "" || r.json["id_token"] != nil {
			t.Fatalf("answer %s", r.body)
		}
		a := h.claims(t, r)
		if a.Audience != mcp || a.Subject != "user-1" || a.ClientID != public || a.GrantID != c.grantID || a.ACR != "pwd" || !a.AuthTime.Equal(h.clock.now()) || a.Scopes.String() != "read write" {
			t.Fatalf("token %+v", a)
		}
	})
	t.Run("TOK-02, attack TK-13: nothing is stored on the way, good or bad", func(t *testing.T) {
		for _, form := range []url.Values{h.consent(t, public).form(), {"grant_type": {"hello"}}} {
			r := h.post("/token", form)
			if r.header.Get("Cache-Control") != "no-store" || r.header.Get("Pragma") != "no-cache" || r.header.Get("Content-Type") != "application/json" {
				t.Errorf("status %d, headers %v", r.status, r.header)
			}
		}
	})
	t.Run("TOK-24, attack TK-14: any origin may call, without credentials", func(t *testing.T) {
		r := h.ok(t, h.consent(t, public).form(), "Origin", "https://evil.test")
		if r.header.Get("Access-Control-Allow-Origin") != "*" || r.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Fatalf("headers %v", r.header)
		}
	})
	t.Run("TOK-05 redirect_uri may be left out", func(t *testing.T) {
		form := h.consent(t, public).form()
		form.Del("redirect_uri")
		h.ok(t, form)
	})
	t.Run("TOK-07 resource may be repeated, by its identifier or an alias", func(t *testing.T) {
		form := h.consent(t, public).form()
		form["resource"] = []string{mcp, mcp + "/", "HTTPS://MCP.test/mcp"}
		if a := h.claims(t, h.ok(t, form)); a.Audience != mcp {
			t.Fatalf("audience %s", a.Audience)
		}
	})
	t.Run("TOK-01 unknown parameters and a scope are ignored", func(t *testing.T) {
		form := h.consent(t, public).form()
		form.Set("scope", "admin")
		form.Set("hello", "world")
		if r := h.ok(t, form); r.get("scope") != "read write" {
			t.Fatalf("scope %q", r.get("scope"))
		}
	})
	t.Run("a client with a key, and one with a secret", func(t *testing.T) {
		h.ok(t, h.assert(t, keyed, h.consent(t, keyed).form()))
		form := h.consent(t, basic).form()
		form.Del("client_id")
		h.ok(t, form, "Authorization", basicAuth(basic, h.secret))
	})
	t.Run("TOK-23 neither code nor tokens stand in the store or in the audit log", func(t *testing.T) {
		c := h.consent(t, public)
		r := h.ok(t, c.form())
		all, err := h.store.Events(t.Context(), store.EventQuery{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			line := string(e.MarshalLine())
			for _, secret := range []string{c.value, c.verifier, r.get("refresh_token"), r.get("access_token")} {
				if strings.Contains(line, secret) {
					t.Errorf("event %s", line)
				}
			}
		}
	})
	t.Run("POL-07 the audit event has the grant and the jti", func(t *testing.T) {
		c := h.consent(t, public)
		r := h.ok(t, c.form())
		events := h.events(t, audit.TypeToken)
		e := events[len(events)-1]
		if e.Grant != c.grantID || e.Client != public || e.User != "user-1" || e.Resource != mcp || e.Ref == "" || e.Data["jti"] != h.claims(t, r).JTI || e.Data["method"] != "none" {
			t.Fatalf("event %+v", e)
		}
	})
}

// TestSpoiledRedemption spoils one member per row. The code survives every one
// of them and can then be redeemed properly.
func TestSpoiledRedemption(t *testing.T) {
	set := func(name, value string) func(*house, url.Values) {
		return func(_ *house, f url.Values) { f.Set(name, value) }
	}
	drop := func(name string) func(*house, url.Values) { return func(_ *house, f url.Values) { f.Del(name) } }
	for _, row := range []struct {
		name  string
		want  oauth.Code
		spoil func(*house, url.Values)
	}{
		{"TOK-04, attack TK-05: another client", oauth.InvalidGrant, set("client_id", other)},
		{"TOK-04, attack TK-06: a wrong verifier", oauth.InvalidGrant, set("code_verifier", oauth.NewVerifier())},
		{"TOK-04, attack TK-06: no verifier", oauth.InvalidRequest, drop("code_verifier")},
		{"attack TK-06: a verifier of 42 characters", oauth.InvalidRequest, set("code_verifier", strings.Repeat("a", 42))},
		{"attack TK-06: a verifier of 129 characters", oauth.InvalidRequest, set("code_verifier", strings.Repeat("a", 129))},
		{"attack TK-06: a verifier with other characters", oauth.InvalidRequest, set("code_verifier", strings.Repeat("ü", 43))},
		{"TOK-05, attack TK-07: another redirect_uri", oauth.InvalidGrant, set("redirect_uri", "http://127.0.0.1/callback")},
		{"TOK-05, attack TK-07: another port", oauth.InvalidGrant, set("redirect_uri", "http://127.0.0.1:33419/callback")},
		{"TOK-07, attack TK-08: another resource", oauth.InvalidTarget, set("resource", notes)},
		{"TOK-07, attack TK-08: a resource nobody knows", oauth.InvalidTarget, set("resource", "https://nobody.test/")},
		{"TOK-07, attack TK-08: the right resource and another", oauth.InvalidTarget, func(_ *house, f url.Values) { f["resource"] = []string{mcp, notes} }},
		{"TOK-01, attack TK-12: no grant_type", oauth.InvalidRequest, drop("grant_type")},
		{"TOK-01, attack TK-12: grant_type twice", oauth.InvalidRequest, func(_ *house, f url.Values) { f.Add("grant_type", "refresh_token") }},
		{"TOK-01, attack TK-12: code twice", oauth.InvalidRequest, func(_ *house, f url.Values) { f.Add("code", "x") }},
		{"TOK-01 no code", oauth.InvalidRequest, drop("code")},
		{"TOK-19 a grant type we do not have", oauth.UnsupportedGrantType, set("grant_type", "password")},
		{"a code that nobody issued", oauth.InvalidGrant, set("code", oauth.RandomToken(32))},
		{"an unknown client", oauth.InvalidClient, set("client_id", "https://nobody.test/c")},
		{"attack TK-10: no client_id", oauth.InvalidRequest, drop("client_id")},
		{"mistake 37: a failed authentication", oauth.InvalidClient, set("client_secret", "hello")},
		{"POL-05 a policy that has come to refuse the client", oauth.UnauthorizedClient, func(h *house, _ url.Values) {
			h.people.set.Rules = []policy.Rule{{Name: "no", Client: public, Action: policy.Deny}}
		}},
		{"POL-05 a policy that has come to want an approval", oauth.UnauthorizedClient, func(h *house, _ url.Values) {
			h.people.set.Default = policy.Ask
		}},
		{"POL-05 a policy that takes the resource away", oauth.InvalidGrant, func(h *house, _ url.Values) {
			h.people.set.Rules = []policy.Rule{{Name: "notes only", Client: public, Action: policy.Allow, Resources: []string{notes}}}
		}},
		{"POL-05 a policy that leaves no scope", oauth.InvalidGrant, func(h *house, _ url.Values) {
			h.people.set.Rules = []policy.Rule{{Name: "none", Client: public, Action: policy.Allow, HasScopes: true}}
		}},
		{"TOK-20 a policy that takes the grant away", oauth.UnauthorizedClient, func(h *house, _ url.Values) {
			h.people.set.Rules = []policy.Rule{{Name: "no codes", Client: public, Action: policy.Allow, Grants: []string{"client_credentials"}}}
		}},
		{"TOK-20 a document without the grant", oauth.UnauthorizedClient, func(h *house, _ url.Values) {
			h.people.clients[public].GrantTypes = []string{"refresh_token"}
		}},
		{"TOK-16 a client that an operator blocked", oauth.UnauthorizedClient, func(h *house, _ url.Values) {
			h.people.clients[public].State = directory.StateBlocked
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHouse(t)
			c := h.consent(t, public)
			form := c.form()
			row.spoil(h, form)
			h.refused(t, row.want, form)
			h.people.rules(t)
			h.people.clients[public].GrantTypes, h.people.clients[public].State = []string{"authorization_code", "refresh_token"}, directory.StateAllowed
			h.ok(t, c.form())
		})
	}
}

func TestTransport(t *testing.T) {
	h := newHouse(t)
	do := func(contentType, query, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", issuer+"/token?"+query, strings.NewReader(body))
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		w := httptest.NewRecorder()
		h.mux.ServeHTTP(w, r)
		return w
	}
	form := h.consent(t, public).form().Encode()
	for _, row := range []struct{ name, contentType, query, body string }{
		{"JSON", "application/json", "", `{"grant_type":"authorization_code"}`},
		{"two types", "application/json, application/x-www-form-urlencoded", "", form},
		{"multipart", "multipart/form-data; boundary=x", "", form},
		{"no type", "", "", form},
		{"utf-7", "application/x-www-form-urlencoded; charset=utf-7", "", form},
		{"ten thousand parameters", "application/x-www-form-urlencoded", "", strings.Repeat("a=b&", 10000)},
		{"a megabyte", "application/x-www-form-urlencoded", "", "a=" + strings.Repeat("b", 1<<20)},
		{"in the query", "application/x-www-form-urlencoded", form, ""},
	} {
		t.Run("TOK-01, attack TK-11: "+row.name, func(t *testing.T) {
			w := do(row.contentType, row.query, row.body)
			if w.Code < 400 || w.Code >= 500 {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
		})
	}
	t.Run("TOK-01 only POST", func(t *testing.T) {
		w := httptest.NewRecorder()
		h.mux.ServeHTTP(w, httptest.NewRequest("GET", issuer+"/token?"+form, nil))
		if w.Code < 400 || w.Code >= 500 {
			t.Fatalf("status %d", w.Code)
		}
	})
	t.Run("mistake 37: none of them burned the code", func(t *testing.T) {
		if w := do("application/x-www-form-urlencoded", "", form); w.Code != http.StatusOK {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}

func TestClientsOnTheWire(t *testing.T) {
	h := newHouse(t)
	t.Run("TOK-19, attack TK-10: the Go MCP SDK tries Basic with an empty secret, then the body, with the same code", func(t *testing.T) {
		c := h.consent(t, public)
		form := c.form()
		form.Del("client_id")
		r := h.refused(t, oauth.InvalidClient, form, "Authorization", basicAuth(public, ""))
		if !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("WWW-Authenticate %q", r.header.Get("WWW-Authenticate"))
		}
		h.ok(t, c.form())
	})
	t.Run("TOK-19 without an Authorization header there is no challenge", func(t *testing.T) {
		form := h.consent(t, public).form()
		form.Set("client_id", "https://nobody.test/c")
		if r := h.refused(t, oauth.InvalidClient, form); r.header.Get("WWW-Authenticate") != "" {
			t.Error("a challenge without an attempt")
		}
	})
	t.Run("CAUTH-01, CAUTH-17: every endpoint wants the assertion of a client with keys, and says the same to every failure", func(t *testing.T) {
		seen := map[string]bool{}
		for _, path := range []string{"/token", "/revoke"} {
			for _, id := range []string{keyed, "https://nobody.test/c"} {
				r := h.post(path, url.Values{"client_id": {id}, "token": {"x"}, "grant_type": {"refresh_token"}, "refresh_token": {"x"}})
				if r.status != http.StatusUnauthorized {
					t.Errorf("%s for %s: %d", path, id, r.status)
				}
				delete(r.json, "reference")
				b, err := json.Marshal(r.json)
				if err != nil {
					t.Fatal(err)
				}
				seen[string(b)] = true
			}
		}
		if len(seen) != 1 {
			t.Errorf("answers differ: %v", seen)
		}
	})
	t.Run("mistake 34: the audience of an assertion does not follow the Host header", func(t *testing.T) {
		c := h.consent(t, keyed)
		now := h.clock.now().Unix()
		a, err := h.key.Sign("", map[string]any{"iss": keyed, "sub": keyed, "aud": "https://evil.test", "iat": now, "exp": now + 60, "jti": "x"})
		if err != nil {
			t.Fatal(err)
		}
		form := c.form()
		form.Del("client_id")
		form.Set("client_assertion_type", oauth.AssertionTypeJWT)
		form.Set("client_assertion", a)
		r := httptest.NewRequest("POST", "https://evil.test/token", strings.NewReader(form.Encode()))
		r.Host = "evil.test"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Forwarded-Host", "evil.test")
		w := httptest.NewRecorder()
		h.mux.ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		h.ok(t, h.assert(t, keyed, c.form()))
	})
}

func TestMethodOfTheCode(t *testing.T) {
	t.Run("DOC-18, attack DO-30: a document that drops its key after the code was issued", func(t *testing.T) {
		h := newHouse(t)
		c := h.consent(t, keyed)
		h.people.clients[keyed].AuthMethods = []string{oauth.MethodNone}
		h.refused(t, oauth.InvalidClient, c.form())
		h.people.clients[keyed].AuthMethods = []string{oauth.MethodPrivateKeyJWT}
		h.ok(t, h.assert(t, keyed, c.form()))
	})
	t.Run("attack DO-29, mistake 28: the redirect is the one of the authorization, whatever the document says now", func(t *testing.T) {
		h := newHouse(t)
		c := h.consent(t, public)
		h.people.clients[public].RedirectURIs = []string{"https://evil.test/cb"}
		form := c.form()
		form.Set("redirect_uri", "https://evil.test/cb")
		h.refused(t, oauth.InvalidGrant, form)
		h.ok(t, c.form())
	})
	t.Run("attack DO-28: a scope ceiling of the policy narrows what was granted", func(t *testing.T) {
		h := newHouse(t)
		c := h.consent(t, public)
		h.people.rules(t, policy.Rule{Name: "read only", Client: public, Action: policy.Allow, Scopes: oauth.Scopes{"read"}, HasScopes: true})
		if r := h.ok(t, c.form()); r.get("scope") != "read" || h.claims(t, r).Scopes.String() != "read" {
			t.Fatalf("scope %q", r.get("scope"))
		}
	})
}

func TestReplay(t *testing.T) {
	t.Run("TOK-03, attack TK-01: a valid replay ends what the first use bought", func(t *testing.T) {
		h := newHouse(t)
		c := h.consent(t, public)
		r := h.ok(t, c.form())
		h.refused(t, oauth.InvalidGrant, c.form())
		if h.active(t, c.grantID) {
			t.Fatal("the grant still lives")
		}
		h.refused(t, oauth.InvalidGrant, refreshForm(public, r.get("refresh_token")))
		events := h.events(t, audit.TypeReuse)
		if len(events) != 1 || events[0].Grant != c.grantID || events[0].Rule != "TOK-03" {
			t.Fatalf("events %+v", events)
		}
		h.refused(t, oauth.InvalidGrant, c.form()) // and once more, without another event
		if n := len(h.events(t, audit.TypeReuse)); n != 1 {
			t.Fatalf("%d events", n)
		}
	})
	t.Run("TOK-03 also after the code has expired", func(t *testing.T) {
		h := newHouse(t)
		c := h.consent(t, public)
		h.ok(t, c.form())
		h.clock.move(time.Hour)
		h.refused(t, oauth.InvalidGrant, c.form())
		if h.active(t, c.grantID) {
			t.Fatal("the grant still lives")
		}
	})
	t.Run("TOK-03 a replay that is wrong in anything revokes nothing", func(t *testing.T) {
		h := newHouse(t)
		c := h.consent(t, public)
		h.ok(t, c.form())
		for name, value := range map[string]string{
			"code_verifier": oauth.NewVerifier(), "client_id": other, "redirect_uri": "https://evil.test/cb", "client_secret": "x",
		} {
			form := c.form()
			form.Set(name, value)
			if r := h.post("/token", form); r.status == http.StatusOK {
				t.Fatalf("%s: %s", name, r.body)
			}
		}
		if !h.active(t, c.grantID) || len(h.events(t, audit.TypeReuse)) != 0 {
			t.Fatal("the grant was ended")
		}
	})
	t.Run("a code that expired is gone, and nothing else", func(t *testing.T) {
		h := newHouse(t)
		c := h.consent(t, public)
		h.clock.move(time.Minute)
		h.refused(t, oauth.InvalidGrant, c.form())
	})
	t.Run("attack TK-06: five wrong verifiers, and the code is closed until it expires", func(t *testing.T) {
		h := newHouse(t)
		c := h.consent(t, public)
		for range 5 {
			form := c.form()
			form.Set("code_verifier", oauth.NewVerifier())
			h.refused(t, oauth.InvalidGrant, form)
		}
		h.refused(t, oauth.InvalidGrant, c.form())
		if n := len(h.events(t, audit.TypeReuse)); n != 0 {
			t.Fatal("the grant was ended")
		}
	})
	t.Run("what a stranger hears about a code does not depend on it", func(t *testing.T) {
		h := newHouse(t)
		spent, fresh := h.consent(t, public), h.consent(t, public)
		h.ok(t, spent.form())
		var answers []map[string]any
		for _, value := range []string{spent.value, fresh.value, oauth.RandomToken(32)} {
			form := fresh.form()
			form.Set("code", value)
			form.Set("client_id", other)
			r := h.refused(t, oauth.InvalidGrant, form)
			delete(r.json, "reference")
			answers = append(answers, r.json)
		}
		if diff := cmp.Diff(answers[0], answers[1]) + cmp.Diff(answers[0], answers[2]); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestCodeRaces(t *testing.T) {
	h := newHouse(t)
	t.Run("TOK-22, attack TK-02: 16 racers with one code have one winner", func(t *testing.T) {
		for range 15 {
			c := h.consent(t, public)
			answers := race(16, func() response { return h.post("/token", c.form()) })
			won := 0
			for _, r := range answers {
				switch {
				case r.status == http.StatusOK:
					won++
				case r.get("error") != string(oauth.InvalidGrant):
					t.Fatalf("status %d: %s", r.status, r.body)
				}
			}
			if won != 1 {
				t.Fatalf("%d of 16 won", won)
			}
			if h.active(t, c.grantID) {
				t.Fatal("TOK-03: the losers were valid replays, and the grant still lives")
			}
		}
	})
}

// race releases n callers at once and collects what they got.
func race(n int, do func() response) []response {
	out := make([]response, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			out[i] = do()
		})
	}
	close(start)
	wg.Wait()
	return out
}

func TestRefreshIssue(t *testing.T) {
	t.Run("TOK-15, DOC-22 a client whose document has no refresh_token gets none, and the log says why", func(t *testing.T) {
		h := newHouse(t)
		if r := h.ok(t, h.consent(t, goose).form()); r.get("refresh_token") != "" {
			t.Fatal("a refresh token")
		}
		if e := h.events(t, audit.TypeToken); e[0].Data["no_refresh"] != "the client's document does not list refresh_token" {
			t.Fatalf("event %+v", e[0])
		}
	})
	t.Run("TOK-15 a policy may give it one, and then it can be used", func(t *testing.T) {
		h := newHouse(t)
		h.people.rules(t, policy.Rule{Name: "goose", Client: goose, Action: policy.Allow, Refresh: policy.RefreshAlways})
		r := h.ok(t, h.consent(t, goose).form())
		h.ok(t, refreshForm(goose, r.get("refresh_token")))
	})
	t.Run("TOK-15 a policy may give a client none", func(t *testing.T) {
		h := newHouse(t)
		h.people.rules(t, policy.Rule{Name: "no", Client: public, Action: policy.Allow, Refresh: policy.RefreshNever})
		if r := h.ok(t, h.consent(t, public).form()); r.get("refresh_token") != "" {
			t.Fatal("a refresh token")
		}
		if e := h.events(t, audit.TypeToken); e[0].Data["no_refresh"] != "the policy gives this client no refresh tokens" {
			t.Fatalf("event %+v", e[0])
		}
	})
	t.Run("mistake 26: offline_access is not needed, and does no harm", func(t *testing.T) {
		h := newHouse(t)
		c := h.consent(t, public, func(g *store.Grant) { g.Scopes = oauth.Scopes{"read", "offline_access"} })
		if r := h.ok(t, c.form()); r.get("refresh_token") == "" || r.get("scope") != "read offline_access" {
			t.Fatalf("answer %s", r.body)
		}
	})
}

func TestIDToken(t *testing.T) {
	h := newHouse(t)
	c := h.consent(t, public, func(g *store.Grant) { g.Scopes = oauth.Scopes{"openid", "read"} })
	r := h.ok(t, c.form())
	claims := func(t *testing.T, r response) map[string]any {
		t.Helper()
		m, err := jose.Parse(r.get("id_token"), 0)
		if err != nil {
			t.Fatal(err)
		}
		var out map[string]any
		if err := json.Unmarshal(m.Claims, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	t.Run("OIDC-01 with openid there is an ID token, with the nonce", func(t *testing.T) {
		got := claims(t, r)
		if got["aud"] != public || got["nonce"] != "nonce-1" || got["sub"] != "user-1" || got["at_hash"] == nil || got["auth_time"] == nil {
			t.Fatalf("claims %v", got)
		}
	})
	t.Run("OIDC-01 a refreshed one has no nonce and the time of the sign-in", func(t *testing.T) {
		before := claims(t, r)["auth_time"]
		h.clock.move(time.Hour)
		got := claims(t, h.ok(t, refreshForm(public, r.get("refresh_token"))))
		if _, has := got["nonce"]; has || got["auth_time"] != before {
			t.Fatalf("claims %v", got)
		}
	})
	t.Run("OIDC-04 it is no access token", func(t *testing.T) {
		got := h.post("/introspect", url.Values{"token": {r.get("id_token")}}, "Authorization", basicAuth(mcp, mcpSecret))
		if got.json["active"] != false {
			t.Fatalf("answer %s", got.body)
		}
	})
}
