package token

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/google/go-cmp/cmp"
)

// introspect asks about a token as the MCP server.
func (h *house) introspects(t *testing.T, token string) response {
	t.Helper()
	r := h.post("/introspect", url.Values{"token": {token}}, "Authorization", basicAuth(mcp, mcpSecret))
	if r.status != http.StatusOK {
		t.Fatalf("status %d: %s", r.status, r.body)
	}
	return r
}

func (h *house) isActive(t *testing.T, token string) bool {
	t.Helper()
	return h.introspects(t, token).json["active"] == true
}

func TestRevoke(t *testing.T) {
	h := newHouse(t)
	revoke := func(t *testing.T, client, token string, more ...string) response {
		t.Helper()
		form := url.Values{"client_id": {client}, "token": {token}}
		for i := 0; i+1 < len(more); i += 2 {
			form.Set(more[i], more[i+1])
		}
		return h.post("/revoke", form)
	}
	fine := func(t *testing.T, r response) {
		t.Helper()
		if r.status != http.StatusOK || r.body != "" || r.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("status %d: %s", r.status, r.body)
		}
	}
	t.Run("REV-01, REV-03 a refresh token takes its grant along", func(t *testing.T) {
		c := h.consent(t, public)
		r := h.ok(t, c.form())
		fine(t, revoke(t, public, r.get("refresh_token")))
		h.refused(t, oauth.InvalidGrant, refreshForm(public, r.get("refresh_token")))
		if h.isActive(t, r.get("access_token")) {
			t.Fatal("the access token is still active")
		}
		events := h.events(t, audit.TypeRevocation)
		if e := events[len(events)-1]; e.Grant != c.grantID || e.Client != public {
			t.Fatalf("event %+v", e)
		}
		fine(t, revoke(t, public, r.get("refresh_token"))) // and again
		if n := len(h.events(t, audit.TypeRevocation)); n != len(events) {
			t.Fatalf("%d events", n)
		}
	})
	t.Run("REV-03 a refresh token that was replaced does so too", func(t *testing.T) {
		id, first := h.signedIn(t, public)
		h.ok(t, refreshForm(public, first))
		fine(t, revoke(t, public, first))
		if h.active(t, id) {
			t.Fatal("the grant still lives")
		}
	})
	t.Run("REV-03 so does one of a client that waits for a decision, and one whose time was up a moment ago", func(t *testing.T) {
		state := func(s string) {
			if err := h.store.SetClientState(t.Context(), public, s, "", h.clock.now()); err != nil {
				t.Fatal(err)
			}
		}
		id, token := h.signedIn(t, public)
		state(store.StatePending)
		fine(t, revoke(t, public, token))
		state(store.StateAllowed)
		if h.active(t, id) {
			t.Error("the grant lives on once the client is allowed again")
		}
		h.refused(t, oauth.InvalidGrant, refreshForm(public, token))
		r := h.ok(t, h.consent(t, public).form())
		end := h.clock.now().Add(90 * 24 * time.Hour)
		for end.Sub(h.clock.now()) > 5*time.Second {
			h.clock.move(min(13*24*time.Hour, end.Sub(h.clock.now())-5*time.Second))
			r = h.ok(t, refreshForm(public, r.get("refresh_token")))
		}
		h.clock.move(6 * time.Second)
		h.refused(t, oauth.InvalidGrant, refreshForm(public, r.get("refresh_token")))
		fine(t, revoke(t, public, r.get("refresh_token")))
		if h.isActive(t, r.get("access_token")) {
			t.Error("the last access token of the family lives on")
		}
	})
	t.Run("REV-03 an access token goes alone", func(t *testing.T) {
		r := h.ok(t, h.consent(t, public).form())
		fine(t, revoke(t, public, r.get("access_token")))
		if h.isActive(t, r.get("access_token")) {
			t.Fatal("the access token is still active")
		}
		next := h.ok(t, refreshForm(public, r.get("refresh_token")))
		if !h.isActive(t, next.get("access_token")) {
			t.Fatal("the next one is not active")
		}
	})
	t.Run("REV-02, attack TK-16: what is not the client's stays, and the answer does not tell", func(t *testing.T) {
		r := h.ok(t, h.consent(t, public).form())
		for _, token := range []string{r.get("refresh_token"), r.get("access_token"), "unknown", "a.b.c", oauth.RandomToken(32)} {
			fine(t, revoke(t, other, token))
		}
		if !h.isActive(t, r.get("access_token")) {
			t.Fatal("the access token was revoked by another client")
		}
		h.ok(t, refreshForm(public, r.get("refresh_token")))
		if err := h.audit.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(h.events(t, audit.TypeRefusal)); n != 2 {
			t.Fatalf("%d notes about it, want 2", n)
		}
	})
	t.Run("REV-01, attack TK-16: a wrong hint does not matter", func(t *testing.T) {
		r := h.ok(t, h.consent(t, public).form())
		fine(t, revoke(t, public, r.get("refresh_token"), "token_type_hint", "access_token"))
		h.refused(t, oauth.InvalidGrant, refreshForm(public, r.get("refresh_token")))
		r = h.ok(t, h.consent(t, public).form())
		fine(t, revoke(t, public, r.get("access_token"), "token_type_hint", "hello"))
		if h.isActive(t, r.get("access_token")) {
			t.Fatal("still active")
		}
	})
	t.Run("REV-01, CAUTH-01 a client with keys authenticates, and the token has to be there", func(t *testing.T) {
		_, token := h.signedIn(t, keyed)
		if r := revoke(t, keyed, token); r.status != http.StatusUnauthorized {
			t.Fatalf("status %d", r.status)
		}
		fine(t, h.post("/revoke", h.assert(t, keyed, url.Values{"token": {token}})))
		if r := h.post("/revoke", url.Values{"client_id": {public}}); r.get("error") != string(oauth.InvalidRequest) {
			t.Fatalf("status %d: %s", r.status, r.body)
		}
		if r := h.post("/revoke", url.Values{"client_id": {public}, "token": {"a", "b"}}); r.get("error") != string(oauth.InvalidRequest) {
			t.Fatalf("status %d: %s", r.status, r.body)
		}
	})
	t.Run("REV-04, mistake 36: a client whose document is gone can still revoke", func(t *testing.T) {
		// The directory of these tests has no network at all: whatever is not
		// stored is an error. A blocked client gets no tokens, but may end some.
		_, token := h.signedIn(t, public)
		h.people.clients[public].State = directory.StateRetired
		fine(t, revoke(t, public, token))
		h.people.clients[public].State = directory.StateAllowed
		h.refused(t, oauth.InvalidGrant, refreshForm(public, token))
	})
	t.Run("REV-05 any origin may call", func(t *testing.T) {
		r := h.post("/revoke", url.Values{"client_id": {public}, "token": {"x"}}, "Origin", "https://app.test")
		if r.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Fatalf("headers %v", r.header)
		}
	})
}

func TestIntrospect(t *testing.T) {
	h := newHouse(t)
	r := h.ok(t, h.consent(t, public, func(g *store.Grant) { g.Scopes = oauth.Scopes{"openid", "read"} }).form())
	access, refresh := r.get("access_token"), r.get("refresh_token")
	t.Run("INT-01, INT-03 a resource server learns about its own token", func(t *testing.T) {
		a := h.claims(t, r)
		now := float64(h.clock.now().Unix())
		want := map[string]any{
			"active": true, "iss": issuer, "sub": "user-1", "aud": mcp, "client_id": public, "scope": "openid read", "exp": now + 600,
			"iat": now, "nbf": now, "jti": a.JTI, "token_type": "Bearer", "auth_time": now, "acr": "pwd", "amr": []any{"pwd"},
		}
		got := h.introspects(t, access)
		if diff := cmp.Diff(want, got.json); diff != "" || got.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("answer (-want +got):\n%s", diff)
		}
	})
	t.Run("INT-01 it may use its name, or an alias", func(t *testing.T) {
		for _, name := range []string{"MCP server", mcp + "/"} {
			got := h.post("/introspect", url.Values{"token": {access}}, "Authorization", basicAuth(name, mcpSecret))
			if got.json["active"] != true {
				t.Fatalf("%s: %s", name, got.body)
			}
		}
	})
	inactive := func(t *testing.T, token string) {
		t.Helper()
		if got := h.introspects(t, token); strings.TrimSpace(got.body) != `{"active":false}` {
			t.Fatalf("answer %s", got.body)
		}
	}
	t.Run("INT-02, attack TK-17: only active=false about a token for somebody else", func(t *testing.T) {
		got := h.post("/introspect", url.Values{"token": {access}}, "Authorization", basicAuth(notes, "another secret"))
		if got.status != http.StatusOK || strings.TrimSpace(got.body) != `{"active":false}` {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
	})
	t.Run("INT-02 or about garbage", func(t *testing.T) {
		for _, token := range []string{"x", "a.b.c", access + "x", strings.Repeat("a", 20000)} {
			inactive(t, token)
		}
	})
	t.Run("INT-04 a refresh token is never active", func(t *testing.T) { inactive(t, refresh) })
	t.Run("OIDC-04 nor an ID token", func(t *testing.T) { inactive(t, r.get("id_token")) })
	t.Run("INT-01, attack TK-17: without credentials, or with wrong ones", func(t *testing.T) {
		for name, headers := range map[string][]string{
			"none":              nil,
			"a client":          {"Authorization", basicAuth(public, "")},
			"a wrong secret":    {"Authorization", basicAuth(mcp, "guess")},
			"another's secret":  {"Authorization", basicAuth(mcp, "another secret")},
			"one without":       {"Authorization", basicAuth("https://quiet.test/", "")},
			"nobody":            {"Authorization", basicAuth("https://nobody.test/", "x")},
			"a bearer token":    {"Authorization", "Bearer " + access},
			"not form-encoded":  {"Authorization", "Basic JXp6Og=="},
			"the hash":          {"Authorization", basicAuth(mcp, h.people.set.Resources[0].IntrospectionSecret)},
			"an empty password": {"Authorization", basicAuth(mcp, "")},
		} {
			got := h.post("/introspect", url.Values{"token": {access}}, headers...)
			if got.status != http.StatusUnauthorized || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") || got.json["active"] != nil {
				t.Errorf("%s: status %d: %s", name, got.status, got.body)
			}
		}
	})
	t.Run("INT-01, POL-08 whoever guesses has to wait", func(t *testing.T) {
		h.clock.move(time.Minute)
		for range 10 {
			h.post("/introspect", url.Values{"token": {access}}, "Authorization", basicAuth(mcp, "guess"))
		}
		got := h.post("/introspect", url.Values{"token": {access}}, "Authorization", basicAuth(mcp, "guess"))
		if got.get("error") != string(oauth.TemporarilyUnavailable) {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
		h.clock.move(time.Minute)
	})
	t.Run("INT-01, POL-08 a few mistakes are forgotten once the secret is right", func(t *testing.T) {
		for range 3 {
			for range 9 {
				h.post("/introspect", url.Values{"token": {access}}, "Authorization", basicAuth(mcp, "guess"))
			}
			if got := h.post("/introspect", url.Values{"token": {access}}, "Authorization", basicAuth(mcp, mcpSecret)); got.status != http.StatusOK {
				t.Fatalf("status %d: %s", got.status, got.body)
			}
		}
	})
	t.Run("INT-01 without a token", func(t *testing.T) {
		got := h.post("/introspect", url.Values{}, "Authorization", basicAuth(mcp, mcpSecret))
		if got.get("error") != string(oauth.InvalidRequest) {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
	})
	t.Run("INT-02 expired", func(t *testing.T) {
		h.clock.move(10 * time.Minute)
		inactive(t, access)
	})
}
