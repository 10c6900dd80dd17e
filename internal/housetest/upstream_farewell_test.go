package housetest

import (
	"testing"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// TestAFarewellThatWasNotFinished: a logout token counts for the whole of what it
// asks for, or not yet.
func TestAFarewellThatWasNotFinished(t *testing.T) {
	h, idp := ssoHouse(t)
	h.Net.Host("good.test").ServeClient("/c.json", leaving())
	john := h.Traveller()
	page := john.Answer(john.press(john.Visit(h.Authorize("scope", "openid mcp:read"))), "allow")
	a := h.Post("/token", CodeForm(page.URL.Query().Get("code")))
	now := h.Now().Unix()
	bye := idp.sign("logout+jwt", map[string]any{
		"iss": UpstreamIssuer, "aud": "bonafide", "sub": "u-1", "iat": now, "exp": now + 60, "jti": "j1",
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	})
	post := func() Answer { return h.Post("/login/backchannel/idp", nil2("logout_token", bye)) }
	t.Run("OIDC-10, attack FA-06: a store that fails half-way has not spent the logout token", func(t *testing.T) {
		h.breaksHalfWay(t, true)
		if r := post(); r.Status < 500 {
			t.Fatalf("%d %s", r.Status, r.Raw)
		}
		if p := john.Visit(Issuer + "/connections"); p.Has("password") {
			t.Error("half of it was done")
		}
		h.breaksHalfWay(t, false)
		if r := post(); !r.OK() {
			t.Fatalf("the provider comes again and is told that it was here: %d %s", r.Status, r.Raw)
		}
		if p := john.Visit(Issuer + "/connections"); !p.Has("password") {
			t.Errorf("%s", p.Text())
		}
		if r := h.Post("/token", RefreshForm(a.Str("refresh_token"))); r.Str("error") != "invalid_grant" {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
		if r := post(); r.Status != 400 {
			t.Errorf("a logout token counts twice: %d", r.Status)
		}
	})
	t.Run("OIDC-09, OIDC-10 the clients of what ended are told once", func(t *testing.T) {
		if h.Server.Close(); len(h.Events(audit.TypeLogoutNotice)) != 1 {
			t.Errorf("%+v", h.Events(audit.TypeLogoutNotice))
		}
		if e := h.Events(audit.TypeLogout); len(e) != 1 || e[0].User == "" || e[0].Rule != "OIDC-10" {
			t.Errorf("%+v", e)
		}
	})
}
