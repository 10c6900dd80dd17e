package housetest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
	"github.com/bonafide-id/bonafide/resource"
)

// guarded asks a guard in front of the resource of the house, with a call of a tool.
func guarded(g *resource.Guard, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, Resource, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}`))
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	g.Protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w
}

func TestGuardsThatAsk(t *testing.T) {
	t.Parallel()
	h := New(t)
	guard := func(change func(*resource.Config)) *resource.Guard {
		t.Helper()
		c := resource.Config{
			Resource: Resource, AuthorizationServers: []string{Issuer}, Baseline: []string{"mcp:read"}, HTTP: h.HTTP, Now: h.Now,
			Tools: map[string][]string{"search": nil}, Introspection: &resource.Introspection{Secret: IntrospectionSecret},
		}
		change(&c)
		g, err := resource.New(c)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	john := h.john()
	t.Run("RS-23, INT-01, attack RS-17: a token that is revoked is refused within the time of the cache", func(t *testing.T) {
		g, without := guard(func(*resource.Config) {}), guard(func(c *resource.Config) { c.Introspection = nil })
		a := h.grant(john)
		token := a.Str("access_token")
		if w := guarded(g, token); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		h.Post("/revoke", change(nil2("token", a.Str("refresh_token")), []string{"client_id", ClientID}))
		if w := guarded(g, token); w.Code != 200 {
			t.Errorf("within the time: %d", w.Code)
		}
		h.Later(30 * time.Second)
		if w := guarded(g, token); w.Code != 401 || !strings.Contains(w.Header().Get("WWW-Authenticate"), string(oauth.InvalidToken)) {
			t.Errorf("after it: %d", w.Code)
		}
		if w := guarded(without, token); w.Code != 200 {
			t.Errorf("a guard that does not ask: %d", w.Code)
		}
	})
	t.Run("RS-23, attack TK-17, attack RS-16: with another secret nobody gets in", func(t *testing.T) {
		g := guard(func(c *resource.Config) { c.Introspection.Secret = "wrong" })
		if w := guarded(g, h.grant(john).Str("access_token")); w.Code != 503 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("RS-23 what this server never gave is not active", func(t *testing.T) {
		g := guard(func(*resource.Config) {})
		for _, token := range []string{"opaque", h.grant(john).Str("refresh_token")} {
			if w := guarded(g, token); w.Code != 401 {
				t.Errorf("%d", w.Code)
			}
		}
	})
	t.Run("RS-22, AUTHZ-24: a tool asks for a fresh sign-in, and the next token has one", func(t *testing.T) {
		g := guard(func(c *resource.Config) {
			c.Strength = map[string]resource.Strength{"search": {ACR: []string{"urn:bonafide:acr:password"}, MaxAge: time.Minute}}
		})
		john := h.john()
		h.Later(2 * time.Minute)
		w := guarded(g, h.grant(john).Str("access_token"))
		ch, err := oauth.ParseChallenges(w.Result().Header.Values("WWW-Authenticate"))
		if w.Code != 401 || err != nil || len(ch) != 1 || ch[0].Get("error") != "insufficient_user_authentication" {
			t.Fatalf("%d %v, %v", w.Code, ch, err)
		}
		page := john.Visit(h.Authorize("acr_values", ch[0].Get("acr_values"), "max_age", ch[0].Get("max_age"), "scope", ch[0].Get("scope")))
		if !page.Has("password") {
			t.Fatalf("no sign-in: %s", page.Text())
		}
		if page = john.SignIn(page); !page.Left {
			page = john.Answer(page, "allow")
		}
		a := h.Post("/token", CodeForm(page.URL.Query().Get("code")))
		if w := guarded(g, a.Str("access_token")); w.Code != 200 {
			t.Errorf("%d %s, with %s", w.Code, w.Body, a.Raw)
		}
	})
}
