package housetest

import (
	"net/http"
	"testing"

	"github.com/bonafide-id/bonafide/internal/store/pgtest"
	"github.com/bonafide-id/bonafide/internal/store/storetest"
)

// TestTheDatabaseIsAway: everything that needs it says so, and works again when
// it is back.
func TestTheDatabaseIsAway(t *testing.T) {
	proxy := pgtest.Shared(t).NewProxy(t)
	address := pgtest.Database(t, "bonafide", storetest.Migrate)
	h := newHouse(t, replicas{address: proxy.Through(t, address), count: 1})
	john := h.john()
	a, code := h.grant(john), john.Code(h.Authorize())
	proxy.Away(true)
	busy := func(t *testing.T, what string, b Answer) {
		t.Helper()
		if b.Status != http.StatusServiceUnavailable || b.Str("error") != "temporarily_unavailable" || b.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %v %s", what, b.Status, b.Header, b.Raw)
		}
	}
	t.Run("attack FA-06, attack FA-08: programs are told to come again, and nothing is decided", func(t *testing.T) {
		busy(t, "redeem", h.Post("/token", CodeForm(code)))
		busy(t, "refresh", h.Post("/token", RefreshForm(a.Str("refresh_token"))))
		busy(t, "introspect", h.Post("/introspect", nil2("token", a.Str("access_token")), basic(Resource, IntrospectionSecret)))
		busy(t, "revoke", h.Post("/revoke", change(nil2("token", a.Str("refresh_token")), []string{"client_id", ClientID})))
		busy(t, "push", h.Post("/par", h.pushForm()))
	})
	t.Run("attack FA-06: people see a page that says so", func(t *testing.T) {
		for _, address := range []string{h.Authorize(), Issuer + "/login"} {
			if page := john.Visit(address); page.Left || page.Status != http.StatusServiceUnavailable {
				t.Errorf("%s: %d %s", address, page.Status, page.Text())
			}
		}
	})
	t.Run("attack FA-08: it is not ready, and alive", func(t *testing.T) {
		if b := h.Get("/readyz"); b.Status != http.StatusServiceUnavailable || b.Str("status") != "degraded" {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
		if b := h.Get("/healthz"); !b.OK() {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
		if b := h.Get("/jwks"); !b.OK() {
			t.Errorf("resource servers cannot check tokens: %d %s", b.Status, b.Raw)
		}
	})
	proxy.Away(false)
	t.Run("attack FA-06: when it is back everything is as it was", func(t *testing.T) {
		eventually(t, "ready", func() bool { return h.Get("/readyz").OK() })
		eventually(t, "redeem", func() bool { return h.Post("/token", CodeForm(code)).OK() })
		if b := h.Post("/token", RefreshForm(a.Str("refresh_token"))); !b.OK() {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
	})
}

// TestTextThatNoDatabaseKeeps: PostgreSQL keeps no NUL, and nobody hears of that
// after they have said yes.
func TestTextThatNoDatabaseKeeps(t *testing.T) {
	for _, engine := range contestants {
		h := engine.house(t)
		for _, name := range []string{"nonce", "state", "dpop_jkt", "login_hint", "acr_values", "ui_locales", "code_challenge", "scope", "resource"} {
			t.Run("AZ-13 a NUL in "+name+": "+engine.name, func(t *testing.T) {
				john := h.Person()
				page := john.Visit(h.Authorize("scope", "openid files:read", name, "a\x00b"))
				if page.Has("password") {
					page = john.SignIn(page)
				}
				if page.Has("decision") {
					page = john.Answer(page, "allow")
				}
				if page.URL.Query().Get("code") != "" || !page.Left && page.Status != http.StatusBadRequest {
					t.Errorf("%d %s %s", page.Status, page.URL, page.Text())
				}
				form := h.pushForm()
				form.Set(name, "a\x00b")
				if a := h.Post("/par", form); a.Status != http.StatusBadRequest {
					t.Errorf("pushed: %d %s", a.Status, a.Raw)
				}
			})
		}
	}
}
