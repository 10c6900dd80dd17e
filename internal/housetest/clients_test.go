package housetest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// quirk is how a client behaves on the wire, where it differs from the plain way.
type quirk struct {
	authorize []string // changes to the authorization request
	alg       string   // of its key, for private_key_jwt
	basic     bool     // the Go SDK: Basic with an empty secret first
	noRefresh bool     // its document does not list refresh_token
}

var quirks = map[string]quirk{
	"chatgpt":        {alg: jose.RS256},
	"chatgpt-app":    {alg: jose.RS256, authorize: []string{"scope", "mcp:read offline_access"}},
	"claude":         {authorize: []string{"scope", ""}},
	"claude-code":    {authorize: []string{"resource", "https://mcp.test/mcp/"}},
	"codex":          {basic: true},
	"goose":          {noRefresh: true},
	"mcpc":           {authorize: []string{"resource", ""}},
	"mcpjam":         {authorize: []string{"prompt", "consent", "scope", "mcp:read offline_access"}},
	"vercel-connect": {alg: jose.ES256},
	"vscode":         {authorize: []string{"resource", "HTTPS://MCP.test/mcp"}},
	"zed":            {basic: true, authorize: []string{"scope", "", "resource", ""}},
}

// TestEveryKnownClientSignsIn walks each published client through all legs, with
// the behaviour that was seen on the wire.
func TestEveryKnownClientSignsIn(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, published := h.john(), map[string]jose.Private{} // by host: both ChatGPT shapes share one jwks_uri
	for _, s := range cimdtest.Shapes() {
		q := quirks[s.Name]
		h.Net.ServeShape(s)
		var keys []jose.Private
		if q.alg != "" {
			name := strings.SplitN(s.ClientID, "/", 4)[2]
			key, ok := published[name]
			if !ok {
				key = newKey(t, q.alg)
				published[name] = key
			}
			keys = append(keys, key)
			host := h.Net.Host(name)
			for _, p := range []string{"/oauth/jwks.json", "/.well-known/jwks.json"} {
				host.ServeJSON(p, keySet(t, key))
			}
		}
		doc := redirectsOf(t, s.Body)
		for _, listed := range doc {
			for _, redirect := range spellings(listed) {
				t.Run("AUTHZ-04, AUTHZ-05, DOC-12, DOC-13, DOC-20, DOC-21, TOK-05: "+s.Name+" to "+redirect, func(t *testing.T) {
					visitor{t: t, h: h, john: john, shape: s, quirk: q, redirect: redirect, keys: keys}.walk()
				})
			}
		}
	}
	if strays := h.Net.Strays(); len(strays) != 0 {
		t.Errorf("strays: %v", strays)
	}
}

// spellings are the redirect URIs that a client uses for a listed one: another
// port of this computer on each start.
func spellings(listed string) []string {
	u, err := url.Parse(listed)
	if err != nil || u.Scheme == "https" {
		return []string{listed}
	}
	if p := u.Port(); p != "" && p != "13316" && p != "33418" {
		return nil // mcpc lists ten alike: the first is enough
	}
	u.Host = u.Hostname() + ":51004"
	if strings.Contains(listed, "[") {
		u.Host = "[::1]:51004"
	}
	return []string{listed, u.String()}
}

func redirectsOf(t *testing.T, body []byte) []string {
	t.Helper()
	d, err := jose.Object(body)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, part := range strings.Split(string(d["redirect_uris"]), `"`) {
		if strings.Contains(part, "://") {
			out = append(out, part)
		}
	}
	return out
}

type visitor struct {
	t        *testing.T
	h        *House
	john     *Person
	shape    cimdtest.Shape
	quirk    quirk
	redirect string
	keys     []jose.Private
}

func (v visitor) walk() {
	t, h := v.t, v.h
	changes := slices.Concat([]string{"client_id", v.shape.ClientID, "redirect_uri", v.redirect}, v.quirk.authorize)
	page := v.john.VisitFrom(h.Authorize(changes...), "cross-site")
	if page.Left || !page.Has("decision") {
		t.Fatalf("%d at %s: %s", page.Status, page.URL, page.Text())
	}
	u, err := url.Parse(v.redirect)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.Text(), "The answer goes to "+strings.Trim(u.Hostname(), "[]")) && !strings.Contains(page.Text(), "The answer goes to ["+u.Hostname()+"]") {
		t.Errorf("CONS-02: %s", page.Text())
	}
	page = v.john.Answer(page, "allow")
	if !page.Left || !strings.HasPrefix(page.URL.String(), v.redirect+"?") {
		t.Fatalf("the answer went to %s: %s", page.URL, page.Text())
	}
	got := page.URL.Query()
	if got.Get("iss") != Issuer || got.Get("state") != "s1" {
		t.Errorf("AUTHZ-12: %s", page.URL)
	}
	a := v.redeem(got.Get("code"))
	if !a.OK() || a.Str("scope") != "mcp:read" && a.Str("scope") != "mcp:read offline_access" {
		t.Fatalf("token: %d %s", a.Status, a.Raw)
	}
	if !h.active(a.Str("access_token")) {
		t.Error("the resource does not accept the token")
	}
	refresh := a.Str("refresh_token")
	if v.quirk.noRefresh {
		if refresh != "" {
			t.Error("TOK-15: there is a refresh token, and the document does not list it")
		}
		return
	}
	b := h.Post("/token", RefreshForm(refresh, v.prove("resource", "")...))
	if !b.OK() || b.Str("refresh_token") == "" || b.Str("refresh_token") == refresh {
		t.Fatalf("refresh: %d %s", b.Status, b.Raw)
	}
	if r := h.Post("/revoke", change(nil2("token", b.Str("refresh_token")), v.prove())); !r.OK() {
		t.Errorf("revoke: %d %s", r.Status, r.Raw)
	}
	if h.active(b.Str("access_token")) {
		t.Error("REV-03: the token lives on")
	}
}

// prove are the changes to a form by which the client says who it is.
func (v visitor) prove(more ...string) []string {
	v.t.Helper()
	out := slices.Concat([]string{"client_id", v.shape.ClientID}, more)
	if len(v.keys) == 0 {
		return out
	}
	k := keyed{h: v.h, id: v.shape.ClientID, keys: v.keys}
	return slices.Concat(out, with(sign(v.t, v.keys[0], "", k.claims(map[string]any{"jti": oauth.RandomToken(16)}))))
}

func (v visitor) redeem(code string) Answer {
	t, h := v.t, v.h
	resource := Resource
	if i := slices.Index(v.quirk.authorize, "resource"); i >= 0 {
		resource = v.quirk.authorize[i+1]
	}
	form := CodeForm(code, v.prove("redirect_uri", v.redirect, "resource", resource)...)
	if !v.quirk.basic {
		return h.Post("/token", form)
	}
	first := change(CodeForm(code, "redirect_uri", v.redirect, "resource", resource), []string{"client_id", ""})
	a := h.Post("/token", first, func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(v.shape.ClientID), "") })
	a.check(t, 401, oauth.InvalidClient)
	if !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("TOK-19: WWW-Authenticate is %q", a.Header.Get("WWW-Authenticate"))
	}
	return h.Post("/token", form)
}

// TestKnownClientsThatCannotComeIn are the ones that must be told why.
func TestKnownClientsThatCannotComeIn(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	t.Run("DOC-09: a FastMCP wildcard is no pattern, and the page says so", func(t *testing.T) {
		id := h.Net.Host("fastmcp.test").ServeClient("/c.json", map[string]any{"redirect_uris": []string{"http://localhost:*/callback"}})
		page := john.Visit(h.Authorize("client_id", id, "redirect_uri", "http://localhost:51004/callback"))
		local(t, page, 400)
		if !strings.Contains(page.Text(), "redirect_uris") {
			t.Error(page.Text())
		}
	})
	t.Run("DOC-18, CAUTH-14: ChatGPT cannot be played by a secret", func(t *testing.T) {
		k := h.keyed(nil, jose.RS256)
		code := k.code(john)
		h.Post("/token", CodeForm(code, "client_id", "", "redirect_uri", "https://keyed.test/cb"), basic(k.id, "a secret")).check(t, 401, oauth.InvalidClient)
		h.Post("/token", CodeForm(code, "client_id", k.id, "redirect_uri", "https://keyed.test/cb", "client_secret", "a secret")).check(t, 401, oauth.InvalidClient)
		if a := k.redeem(code, k.assert(nil)); !a.OK() {
			t.Errorf("mistake 37: the code was consumed: %d %s", a.Status, a.Raw)
		}
	})
	t.Run("AUTHZ-05: localhost and 127.0.0.1 do not stand for one another", func(t *testing.T) {
		id := h.Net.Host("local.test").ServeClient("/c.json", map[string]any{"redirect_uris": []string{"http://localhost/callback"}})
		for _, other := range []string{"http://127.0.0.1:51004/callback", "http://[::1]:51004/callback", "http://localhost:51004/callback/", "https://localhost/callback"} {
			local(t, john.Visit(h.Authorize("client_id", id, "redirect_uri", other)), 400)
		}
	})
}
