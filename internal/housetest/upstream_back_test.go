package housetest

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestComingBackFromAProvider(t *testing.T) {
	as, err := url.Parse(Issuer)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("CONS-17 the cookie of the trip is taken away", func(t *testing.T) {
		h, _ := ssoHouse(t)
		john := h.Traveller()
		if page := john.press(john.Visit(h.Authorize())); !page.Has("decision") {
			t.Fatalf("%d %s", page.Status, page.Text())
		}
		for _, c := range john.Cookies(as) {
			if strings.Contains(c.Name, "trip") {
				t.Errorf("%s", c.Name)
			}
		}
	})
	t.Run("OIDC-11 a sign-in that the provider says was yesterday is not told as one of now", func(t *testing.T) {
		h, idp := ssoHouse(t)
		h.Net.Host("good.test").ServeClient("/c.json", leaving())
		then := h.Now().Add(-24 * time.Hour).Unix()
		idp.Set(func(p *Provider) { p.Claims = func(c map[string]any) { c["auth_time"] = then } })
		john := h.Traveller()
		page := john.Answer(john.press(john.Visit(h.Authorize("scope", "openid mcp:read"))), "allow")
		_, id := h.claims(h.Post("/token", CodeForm(page.URL.Query().Get("code"))).Str("id_token"))
		if at, _ := id["auth_time"].(float64); int64(at) != then {
			t.Errorf("auth_time %v, want %d", id["auth_time"], then)
		}
	})
	t.Run("OIDC-05 a code that no provider would send is not passed on", func(t *testing.T) {
		h, idp := ssoHouse(t)
		idp.Set(func(p *Provider) {
			p.Answer = func(v url.Values) url.Values { v.Set("code", strings.Repeat("x", 4097)); return v }
		})
		john := h.Traveller()
		if page := john.press(john.Visit(h.Authorize())); page.Status != 403 {
			t.Errorf("%d %s", page.Status, page.Text())
		}
		if sent, _ := idp.Redeemed(); len(sent) != 0 {
			t.Errorf("%d requests to the provider", len(sent))
		}
	})
}

func TestAProviderSignsOutWhoIsAway(t *testing.T) {
	h, idp := ssoHouse(t)
	h.Net.Host("good.test").ServeClient("/c.json", leaving())
	john := h.Traveller()
	page := john.Answer(john.press(john.Visit(h.Authorize("scope", "openid offline_access mcp:read"))), "allow")
	a := h.Post("/token", CodeForm(page.URL.Query().Get("code")))
	if !a.OK() || !strings.Contains(a.Str("scope"), oauth.ScopeOfflineAccess) {
		t.Fatal(a.Raw)
	}
	now := h.Now().Unix()
	bye := idp.sign("logout+jwt", map[string]any{
		"iss": UpstreamIssuer, "aud": "bonafide", "sub": "u-1", "iat": now, "exp": now + 60, "jti": "j1",
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	})
	if r := h.Post("/login/backchannel/idp", nil2("logout_token", bye)); !r.OK() {
		t.Fatalf("%d %s", r.Status, r.Raw)
	}
	if p := john.Visit(Issuer + "/connections"); !p.Has("password") {
		t.Errorf("%s", p.Text())
	}
	if r := h.Post("/token", RefreshForm(a.Str("refresh_token"))); !r.OK() {
		t.Errorf("OIDC-10 what was given for when the person is away has ended: %d %s", r.Status, r.Raw)
	}
}

func TestTextThatNoStoreKeeps(t *testing.T) {
	for _, c := range []struct {
		claim string
		text  any
	}{
		{"sub", "u-1\x00"}, {"sub", "\x00"}, {"email", "john\x00@acme.example"}, {"acr", "gold\x00"}, {"amr", []string{"pwd", "\x00"}},
		{"preferred_username", "\x00"}, {"sid", "s\x00"},
	} {
		t.Run(fmt.Sprintf("OIDC-05, attack CN-17: a NUL in %s is refused and no failure of ours, %q", c.claim, c.text), func(t *testing.T) {
			h, idp := ssoHouse(t)
			idp.Set(func(p *Provider) { p.Claims = func(claims map[string]any) { claims[c.claim] = c.text } })
			john := h.Traveller()
			page := john.press(john.Visit(h.Authorize()))
			if page.Status != 403 || !strings.Contains(page.Text(), "could not accept the answer of Acme SSO") {
				t.Fatalf("%d %s", page.Status, page.Text())
			}
			h.Server.Close()
			if noted := h.Events(audit.TypeLoginFailed); len(noted) != 1 || !strings.Contains(noted[0].Data["error"], c.claim+": text holds a NUL") {
				t.Errorf("%+v", noted)
			}
		})
	}
	t.Run("OIDC-10 so is one in a logout token", func(t *testing.T) {
		h, idp := ssoHouse(t)
		now := h.Now().Unix()
		for _, claim := range []string{"sub", "jti", "sid"} {
			c := map[string]any{
				"iss": UpstreamIssuer, "aud": "bonafide", "sub": "u-1", "sid": "s", "iat": now, "exp": now + 60, "jti": "j1",
				"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
			}
			c[claim] = "x\x00"
			if r := h.Post("/login/backchannel/idp", nil2("logout_token", idp.sign("logout+jwt", c))); r.Status != 400 || r.Str("error") != "invalid_request" {
				t.Errorf("%s: %d %s", claim, r.Status, r.Raw)
			}
		}
	})
}
