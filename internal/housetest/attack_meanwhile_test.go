package housetest

import (
	"testing"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// TestWhatHappensMeanwhile changes the world between the moment when a client asked
// ahead of the browser and the one when somebody answers.
func TestWhatHappensMeanwhile(t *testing.T) {
	t.Parallel()
	state := func(t *testing.T, h *House, id, state string) {
		t.Helper()
		s := h.Store()
		defer s.Close()
		if err := s.SetClientState(t.Context(), id, state, "test", h.Now()); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("mistake 30, PAR-05: a pushed request that a hostile page starts rides no remembered approval", func(t *testing.T) {
		h := New(t)
		john := h.john()
		h.grant(john)
		push := func(changes ...string) string { return pushed(ClientID, h.Post("/par", h.pushForm(changes...)).uri(t)) }
		if page := john.VisitFrom(push(), "cross-site"); page.Left || !page.Has("decision") {
			t.Errorf("silent: %s", page.URL)
		}
		back(t, john.VisitFrom(push("prompt", "none"), "cross-site"), oauth.ConsentRequired)
		if page := john.Visit(push()); !page.Left || page.URL.Query().Get("code") == "" {
			t.Errorf("started by the person: %d %s", page.Status, page.Text())
		}
	})
	t.Run("mistake 29, PAR-05: the client is blocked while its request waits, and while the page is open", func(t *testing.T) {
		h := New(t)
		john := h.john()
		h.grant(john)
		uri := h.Post("/par", h.pushForm()).uri(t)
		page := john.VisitFrom(pushed(ClientID, uri), "cross-site")
		other := h.Post("/par", h.pushForm()).uri(t)
		state(t, h, ClientID, store.StateBlocked)
		if page = john.Answer(page, "allow"); page.Left {
			t.Errorf("it was answered: %s", page.URL)
		}
		if page = john.Visit(pushed(ClientID, other)); page.Left || page.Has("decision") {
			t.Errorf("it is asked: %d %s", page.Status, page.URL)
		}
		if a := h.Post("/par", h.pushForm()); a.Status == 201 {
			t.Errorf("it may push: %s", a.Raw)
		}
	})
	t.Run("mistake 29, DEV-06: the client is blocked before the person answers, and after it", func(t *testing.T) {
		h := televised(t)
		john := h.john()
		h.connected(t, john) // so that there is a row to block
		before, after := h.started(), h.started()
		john.connect(john.enter(after.Str("user_code")), "allow")
		page := john.enter(before.Str("user_code"))
		state(t, h, tvID, store.StateBlocked)
		if page = john.connect(page, "allow"); page.Status == 200 {
			t.Errorf("it was answered: %s", page.Text())
		}
		for _, a := range []Answer{before, after} {
			if b := h.poll(a); b.OK() || b.Status >= 500 {
				t.Errorf("%d %s", b.Status, b.Raw)
			}
		}
		if a := h.device(); a.OK() {
			t.Errorf("it may ask: %s", a.Raw)
		}
	})
	t.Run("mistake 28, CACHE-21: the document of a device changes between the yes and the poll", func(t *testing.T) {
		h := televised(t)
		john, a := h.john(), h.started("scope", "mcp:read mcp:write")
		john.connect(john.enter(a.Str("user_code")), "allow")
		doc := tvDocument()
		doc["scope"], doc["grant_types"] = "mcp:read", []string{oauth.GrantDeviceCode}
		h.Net.Host("tv.test").ServeClient("/c.json", doc)
		if b := h.poll(a); !b.OK() || b.Str("scope") != "mcp:read mcp:write" || b.Str("refresh_token") == "" {
			t.Errorf("what was agreed to is not what came of it: %d %s", b.Status, b.Raw)
		}
	})
	t.Run("mistake 29, XCH-10: an account is switched off, and nothing that speaks for it is worth anything", func(t *testing.T) {
		h := agents(t)
		k, idpKey := h.keyed(agentDocument, jose.ES256), newKey(t, jose.ES256)
		h.Net.Host("idp.test").ServeJSON("/jwks.json", keySet(t, idpKey))
		a := k.post("/token", h.assertion(idpKey, nil))
		if !a.OK() {
			t.Fatal(a.Status, a.Raw)
		}
		_, claims := h.claims(a.Str("access_token"))
		s := h.Store()
		defer s.Close()
		if err := s.DisableUser(t.Context(), claims["sub"].(string), h.Now()); err != nil {
			t.Fatal(err)
		}
		k.post("/token", h.assertion(idpKey, nil)).check(t, 400, oauth.InvalidGrant)
		k.post("/token", map[string][]string{
			"grant_type": {oauth.GrantTokenExchange}, "subject_token": {a.Str("access_token")}, "subject_token_type": {oauth.TokenTypeAccess}, "resource": {notes},
		}).check(t, 400, oauth.InvalidRequest)
		if h.active(a.Str("access_token")) {
			t.Error("the token is active")
		}
	})
}

// connected connects a device once.
func (h *House) connected(t *testing.T, p *Person) Answer {
	t.Helper()
	a := h.started()
	p.connect(p.enter(a.Str("user_code")), "allow")
	b := h.poll(a)
	if !b.OK() {
		t.Fatal(b.Status, b.Raw)
	}
	return b
}
