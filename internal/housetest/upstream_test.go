package housetest

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/store"
)

// ssoHouse is a house whose people sign in at the provider.
func ssoHouse(t *testing.T, changes ...string) (*House, *Provider) {
	t.Helper()
	h := New(t, append([]string{"", Upstream}, changes...)...)
	return h, NewProvider(h)
}

// SSO presses the button of the provider on the sign-in page, goes there and
// comes back.
func (p *Person) SSO(page *browse.Page) *browse.Page {
	p.House.TB.Helper()
	return p.Visit(p.ToProvider(page).String())
}

// ToProvider presses the button and returns where the browser is sent.
func (p *Person) ToProvider(page *browse.Page) *url.URL {
	p.House.TB.Helper()
	f, err := page.Form("with")
	if err != nil {
		p.House.TB.Fatalf("%v: %s", err, page.Text())
	}
	out := p.Send(f.With("with", "idp"))
	if !out.Left || out.URL.Host != "idp.test" {
		p.House.TB.Fatalf("the browser is at %s (%d): %s", out.URL, out.Status, out.Text())
	}
	return out.URL
}

// Traveller is a Person whose browser goes to the provider too.
func (h *House) Traveller() *Person {
	h.TB.Helper()
	p := h.Person()
	b, err := browse.New(browse.Config{
		RootCAs: h.Net.RootCAs(), Lookup: h.Net.Lookup, Dial: h.Net.Dial,
		Stops: func(u *url.URL) bool { return u.Host != "as.test" && u.Host != "idp.test" },
	})
	if err != nil {
		h.TB.Fatal(err)
	}
	p.Browser = b
	return p
}

// press presses the button of the provider and goes all the way.
func (p *Person) press(page *browse.Page) *browse.Page {
	p.House.TB.Helper()
	f, err := page.Form("with")
	if err != nil {
		p.House.TB.Fatalf("%v: %s", err, page.Text())
	}
	return p.Send(f.With("with", "idp"))
}

func TestPeopleSignInAtAProvider(t *testing.T) {
	h, idp := ssoHouse(t)
	john := h.Traveller()
	page := john.Visit(h.Authorize("scope", "openid mcp:read", "nonce", "n1"))
	if !strings.Contains(page.Text(), "Sign in with Acme SSO") || !page.Has("password") {
		t.Fatalf("%s", page.Text())
	}
	t.Run("CONS-17 nothing about the provider is in the browser before the person has chosen", func(t *testing.T) {
		as := must(url.Parse(Issuer))(t)
		for _, c := range john.Cookies(as) {
			if strings.Contains(c.Name, "trip") {
				t.Errorf("%s", c.Name)
			}
		}
		if len(idp.Asked()) != 0 {
			t.Error("the provider was asked")
		}
	})
	page = john.press(page)
	t.Run("CONS-17, attack CN-01: the consent page for this client stands before any code", func(t *testing.T) {
		if page.Left || !page.Has("decision") || !strings.Contains(page.Text(), "good.test") {
			t.Fatalf("%s (%d): %s", page.URL, page.Status, page.Text())
		}
	})
	t.Run("OIDC-05, OIDC-06 code, PKCE, state, nonce and a redirect URI of the provider's own", func(t *testing.T) {
		q := idp.Asked()[0]
		if q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("nonce")) < 32 ||
			len(q.Get("state")) < 32 || q.Get("redirect_uri") != Issuer+"/login/callback/idp" || q.Get("scope") != "openid email profile" {
			t.Errorf("%v", q)
		}
		if strings.Contains(q.Encode(), "good.test") {
			t.Errorf("the provider learns about the client: %v", q)
		}
	})
	page = john.Answer(page, "allow")
	if !page.Left {
		t.Fatal(page.Text())
	}
	a := h.Post("/token", CodeForm(page.URL.Query().Get("code")))
	if !a.OK() {
		t.Fatal(a.Raw)
	}
	t.Run("OIDC-05 acr, amr and auth_time of the provider arrive at the client", func(t *testing.T) {
		_, id := h.claims(a.Str("id_token"))
		amr, _ := id["amr"].([]any)
		if id["acr"] != "urn:acme:gold" || len(amr) != 2 || amr[0] != "hwk" || id["auth_time"] == nil {
			t.Errorf("%v", id)
		}
	})
	t.Run("OIDC-07 the provider's tokens go nowhere and are kept nowhere", func(t *testing.T) {
		h.Server.Close()
		events := must(h.Store().Events(t.Context(), store.EventQuery{Limit: 1000}))(t)
		if len(events) < 4 {
			t.Errorf("%d events", len(events))
		}
		for _, e := range events {
			if strings.Contains(string(e.MarshalLine()), "upstream-") {
				t.Errorf("%+v", e)
			}
		}
		if strings.Contains(a.Raw, "upstream-") || strings.Contains(page.URL.String(), "upstream-") {
			t.Error("the client got them")
		}
		kept := h.kept(t)
		if !strings.Contains(kept, UpstreamIssuer) {
			t.Fatal("the database was not read")
		}
		if strings.Contains(kept, "upstream-access") || strings.Contains(kept, "upstream-refresh") {
			t.Error("the database holds them")
		}
	})
	t.Run("OIDC-05 the identity is kept by issuer and subject", func(t *testing.T) {
		s := h.Store()
		u := must(s.UserByIdentity(t.Context(), UpstreamIssuer, "", "u-1"))(t)
		if u.Name != User {
			t.Errorf("%+v", u)
		}
	})
}

func TestAProviderSaysNo(t *testing.T) {
	h, idp := ssoHouse(t)
	idp.Set(func(p *Provider) {
		p.Answer = func(v url.Values) url.Values {
			return url.Values{"error": {"access_denied"}, "error_description": {"<b>planted</b>"}, "state": v["state"], "iss": v["iss"]}
		}
	})
	john := h.Traveller()
	page := john.press(john.Visit(h.Authorize()))
	t.Run("OIDC-05 an error of the provider is explained, and the person may go on another way", func(t *testing.T) {
		if page.Status != 403 || !strings.Contains(page.Text(), "access_denied") || strings.Contains(page.Body, "planted") || !strings.Contains(page.Text(), "Reference") {
			t.Fatalf("%d %s", page.Status, page.Text())
		}
		if page = john.SignIn(page); !page.Has("decision") {
			t.Errorf("%s", page.Text())
		}
	})
	t.Run("OIDC-05 a provider that is down is said to be down", func(t *testing.T) {
		h, _ := ssoHouse(t)
		h.Net.Host("idp.test").Down(true)
		john := h.Traveller()
		if page := john.press(john.Visit(h.Authorize())); page.Status != 503 || !strings.Contains(page.Text(), "Acme SSO does not answer") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

func TestWhoGetsAnAccount(t *testing.T) {
	claims := func(pairs ...any) func(*Provider) {
		return func(p *Provider) {
			p.Claims = func(c map[string]any) {
				for i := 0; i+1 < len(pairs); i += 2 {
					c[pairs[i].(string)] = pairs[i+1]
				}
			}
		}
	}
	silent := func(p *Provider) { p.Claims = func(c map[string]any) { delete(c, "email_verified") } }
	for _, c := range []struct {
		name, link string
		who        func(*Provider)
		in         bool
		account    string
		text       string
	}{
		{"a verified address leads to its account", "link: [email]", claims(), true, User, ""},
		{"an address that is not verified leads nowhere", "link: [email, create]", claims("email_verified", false), false, "", "does not vouch"},
		{"an address of which the provider does not say whether it is verified", "link: [email, create]", silent, false, "", "does not vouch"},
		{"one of a provider that verifies all of them", "link: [email], emails_verified: true", silent, true, User, ""},
		{"no address", "link: [email, create]", claims("email", ""), false, "", "does not vouch"},
		{"an address elsewhere", "link: [email, create]", claims("email", "john@evil.test"), false, "", "not admitted"},
		{"an address with two domains", "link: [email, create]", claims("email", "john@evil.test@acme.example"), false, "", "not admitted"},
		{"somebody new", "link: [create]", claims("sub", "u-2", "email", "Jane@acme.example"), true, "Jane@acme.example", ""},
		{"somebody new where only accounts of ours may come", "link: [email]", claims("email", "jane@acme.example"), false, "", "nobody has linked"},
		{"an address that has an account, where new ones are made", "link: [create]", claims(), false, "", "already"},
		{"nobody is linked by address", "link: []", claims(), false, "", "nobody has linked"},
	} {
		t.Run("OIDC-05 "+c.name, func(t *testing.T) {
			h := New(t, "", strings.Replace(Upstream, "link: [email, create]", c.link, 1))
			idp := NewProvider(h)
			idp.Set(c.who)
			john := h.Traveller()
			page := john.press(john.Visit(h.Authorize()))
			if page.Has("decision") != c.in || !strings.Contains(page.Text(), c.text) {
				t.Fatalf("%d %s", page.Status, page.Text())
			}
			if c.in && !strings.Contains(page.Text(), c.account) {
				t.Errorf("%s", page.Text())
			}
		})
	}
	t.Run("OIDC-05 an address that was given to the next person does not lead to the account of the one before", func(t *testing.T) {
		h, idp := ssoHouse(t)
		john := h.Traveller()
		if page := john.press(john.Visit(h.Authorize())); !page.Has("decision") {
			t.Fatalf("%d %s", page.Status, page.Text())
		}
		idp.Set(claims("sub", "u-2"))
		next := h.Traveller()
		if page := next.press(next.Visit(h.Authorize("state", "s2"))); page.Has("decision") || page.Status != 403 || !strings.Contains(page.Text(), "already") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
	t.Run("OIDC-05, CN-19 who was switched off gets no new account for the same address", func(t *testing.T) {
		for _, link := range []string{"link: [create]", "link: [email, create]"} {
			h, _ := ssoHouse(t, "link: [email, create]", link)
			s := h.Store()
			u := must(s.UserByName(t.Context(), User))(t)
			if err := s.DisableUser(t.Context(), u.ID, h.Now()); err != nil {
				t.Fatal(err)
			}
			john := h.Traveller()
			if page := john.press(john.Visit(h.Authorize())); page.Has("decision") || page.Status != 403 || !strings.Contains(page.Text(), "switched off") {
				t.Errorf("%s: %d %s", link, page.Status, page.Text())
			}
		}
	})
	t.Run("OIDC-05 a linked person stays who they are, whatever their address", func(t *testing.T) {
		h := New(t, "", strings.Replace(Upstream, "link: [email, create], domains: [acme.example], ", "", 1))
		idp := NewProvider(h)
		idp.Set(claims("email", "other@evil.test"))
		s := h.Store()
		u := must(s.UserByName(t.Context(), User))(t)
		if err := s.LinkIdentity(t.Context(), store.Identity{Issuer: UpstreamIssuer, Subject: "u-1", UserID: u.ID, Created: h.Now(), LastSeen: h.Now()}, nil); err != nil {
			t.Fatal(err)
		}
		john := h.Traveller()
		if page := john.press(john.Visit(h.Authorize())); !page.Has("decision") {
			t.Fatalf("%d %s", page.Status, page.Text())
		}
		t.Run("CN-19 a disabled account is refused", func(t *testing.T) {
			if err := s.DisableUser(t.Context(), u.ID, h.Now()); err != nil {
				t.Fatal(err)
			}
			jane := h.Traveller()
			if page := jane.press(jane.Visit(h.Authorize("state", "s2"))); page.Status != 403 || !strings.Contains(page.Text(), "switched off") {
				t.Errorf("%d %s", page.Status, page.Text())
			}
		})
	})
}

func TestWithoutPasswords(t *testing.T) {
	h, idp := ssoHouse(t, "", "password_sign_in: false")
	john := h.Traveller()
	page := john.Visit(h.Authorize())
	t.Run("OIDC-05 the page has no password, and the endpoint takes none", func(t *testing.T) {
		if page.Has("password") {
			t.Fatal(page.Text())
		}
		f := must(page.Form("with"))(t)
		if p := john.Send(f.With("with", "").With("username", User).With("password", Password)); p.Status != 403 {
			t.Errorf("%d %s", p.Status, p.Text())
		}
	})
	t.Run("META-21 what a step-up may ask for is what a provider gives", func(t *testing.T) {
		acr, _ := h.Get("/.well-known/openid-configuration").Body["acr_values_supported"].([]any)
		if !slices.Equal(acr, []any{"urn:bonafide:acr:upstream", "urn:acme:gold"}) {
			t.Errorf("%v", acr)
		}
	})
	if page = john.press(page); !page.Has("decision") {
		t.Fatal(page.Text())
	}
	t.Run("OIDC-11 prompt=login makes the provider ask again", func(t *testing.T) {
		h.Later(5 * time.Minute)
		page := john.press(john.Visit(h.Authorize("prompt", "login", "state", "s2")))
		q := idp.Asked()[len(idp.Asked())-1]
		if q.Get("prompt") != "login" || q.Get("max_age") != "0" || !page.Has("decision") {
			t.Errorf("%v %s", q, page.Text())
		}
		h.Later(5 * time.Minute)
		then := h.Now().Add(-4 * time.Minute).Unix()
		idp.Set(func(p *Provider) { p.Claims = func(c map[string]any) { c["auth_time"] = then } })
		if page := john.press(john.Visit(h.Authorize("prompt", "login", "state", "s3"))); page.Status != 403 || !strings.Contains(page.Text(), "did not ask you again") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

func TestTheProviderSignsThePersonOut(t *testing.T) {
	h, idp := ssoHouse(t)
	h.Net.Host("good.test").ServeClient("/c.json", leaving())
	john := h.Traveller()
	page := john.Answer(john.press(john.Visit(h.Authorize("scope", "openid mcp:read"))), "allow")
	a := h.Post("/token", CodeForm(page.URL.Query().Get("code")))
	if !a.OK() {
		t.Fatal(a.Raw)
	}
	token := func(change func(map[string]any)) string {
		now := h.Now().Unix()
		c := map[string]any{
			"iss": UpstreamIssuer, "aud": "bonafide", "sub": "u-1", "iat": now, "exp": now + 60, "jti": "j1",
			"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
		}
		if change != nil {
			change(c)
		}
		return idp.sign("logout+jwt", c)
	}
	post := func(token string) Answer { return h.Post("/login/backchannel/idp", nil2("logout_token", token)) }
	for name, change := range map[string]func(map[string]any){
		"of another issuer": func(c map[string]any) { c["iss"] = "https://evil.test" }, "for another": func(c map[string]any) { c["aud"] = "x" },
		"with a nonce": func(c map[string]any) { c["nonce"] = "n" }, "without events": func(c map[string]any) { delete(c, "events") },
		"about something else": func(c map[string]any) { c["events"] = map[string]any{"x": map[string]any{}} }, "without jti": func(c map[string]any) { delete(c, "jti") },
		"expired": func(c map[string]any) { c["exp"] = 1000 }, "old": func(c map[string]any) { c["iat"] = 1000 }, "of a session only": func(c map[string]any) { delete(c, "sub"); c["sid"] = "s" },
	} {
		t.Run("OIDC-10 refused: a logout token "+name, func(t *testing.T) {
			if r := post(token(change)); r.Status != 400 || r.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%d %s", r.Status, r.Raw)
			}
		})
	}
	if p := john.Visit(Issuer + "/connections"); p.Has("password") {
		t.Fatal("signed out already")
	}
	t.Run("OIDC-10 the sessions end here too, with what was connected in them", func(t *testing.T) {
		good := token(nil)
		if r := post(good); !r.OK() {
			t.Fatalf("%d %s", r.Status, r.Raw)
		}
		if p := john.Visit(Issuer + "/connections"); !p.Has("password") {
			t.Errorf("%s", p.Text())
		}
		if r := h.Post("/token", RefreshForm(a.Str("refresh_token"))); r.Str("error") != "invalid_grant" {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
		if r := post(good); r.Status != 400 {
			t.Errorf("a logout token counts twice: %d", r.Status)
		}
		if r := post(token(func(c map[string]any) { c["sub"], c["jti"] = "nobody", "j2" })); !r.OK() {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
	})
	t.Run("OIDC-09, OIDC-10 our own clients are told", func(t *testing.T) {
		if h.Server.Close(); len(h.Events(audit.TypeLogoutNotice)) != 1 {
			t.Errorf("%+v", h.Events(audit.TypeLogoutNotice))
		}
	})
}
