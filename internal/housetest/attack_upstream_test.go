package housetest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/jose"
)

func TestACallbackBelongsToItsBrowser(t *testing.T) {
	h, idp := ssoHouse(t)
	refused := func(t *testing.T, page *browse.Page) {
		t.Helper()
		if page.Left || page.Status != 403 || page.Has("decision") || !strings.Contains(page.Text(), "did not begin here") {
			t.Errorf("%s (%d): %s", page.URL, page.Status, page.Text())
		}
	}
	// callback leaves for the provider and returns the address at which it sends
	// the browser back, which is not opened.
	callback := func(p *Person) string {
		t.Helper()
		f, err := p.Visit(h.Authorize()).Form("with")
		if err != nil {
			t.Fatal(err)
		}
		page := p.Send(f.With("with", "idp")) // Person stops at idp.test
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, page.URL.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return h.Do(req).Header.Get("Location")
	}
	t.Run("attack CN-02: the attacker's answer in the victim's browser", func(t *testing.T) {
		refused(t, h.Person().VisitFrom(callback(h.Person()), "cross-site"))
	})
	t.Run("attack CN-11: an answer without a state, or with another's", func(t *testing.T) {
		attacker, victim := callback(h.Person()), h.Person()
		mine := callback(victim)
		u, v := must(url.Parse(attacker))(t), must(url.Parse(mine))(t)
		q := u.Query()
		q.Del("state")
		refused(t, victim.VisitFrom(Issuer+"/login/callback/idp?"+q.Encode(), "cross-site"))
		q.Set("state", v.Query().Get("state")[:40]+"A")
		refused(t, victim.VisitFrom(Issuer+"/login/callback/idp?"+q.Encode(), "cross-site"))
		refused(t, victim.VisitFrom(attacker, "cross-site"))
	})
	t.Run("CONS-17 an answer counts once, and for ten minutes", func(t *testing.T) {
		john := h.Person()
		address := callback(john)
		cookies := john.Cookies(must(url.Parse(Issuer))(t))
		if page := john.VisitFrom(address, "cross-site"); !page.Has("decision") {
			t.Fatalf("%s", page.Text())
		}
		thief := h.Person()
		thief.SetCookies(must(url.Parse(Issuer))(t), cookies)
		refused(t, thief.VisitFrom(address, "cross-site"))
		late := h.Person()
		address = callback(late)
		h.Later(11 * time.Minute)
		refused(t, late.VisitFrom(address, "cross-site"))
	})
	t.Run("CONS-17 two tabs do not disturb each other", func(t *testing.T) {
		john := h.Person()
		one, two := callback(john), callback(john)
		for _, address := range []string{one, two} {
			if page := john.VisitFrom(address, "cross-site"); !page.Has("decision") {
				t.Errorf("%s", page.Text())
			}
		}
	})
	t.Run("CONS-17, OIDC-11 the cookie is bound to the host and out of reach of scripts", func(t *testing.T) {
		page := h.Person().Visit(h.Authorize())
		f := must(page.Form("with"))(t)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.Action.String(), strings.NewReader(f.With("with", "idp").Values.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		if r := h.Do(req); r.Status != 400 || len(r.Header.Values("Set-Cookie")) > 1 {
			t.Errorf("CN-11 the form of another browser leaves for the provider: %d %v", r.Status, r.Header)
		}
	})
	if len(idp.Asked()) == 0 {
		t.Error("the provider was never asked")
	}
}

func TestALyingProvider(t *testing.T) {
	other, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	none := func(claims any) string {
		body, err := json.Marshal(claims)
		if err != nil {
			t.Error(err)
		}
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(body) + "."
	}
	set := func(name string, v any) func(*Provider) {
		return func(p *Provider) { p.Claims = func(c map[string]any) { c[name] = v } }
	}
	for _, c := range []struct {
		name string
		why  string // what the audit log says
		lie  func(*Provider)
	}{
		{"iss of another", "from another issuer", set("iss", "https://evil.test")},
		{"aud of another", "for another client", set("aud", "somebody")},
		{"aud of another, in a list", "for another client", set("aud", []string{"somebody"})},
		{"aud of several, azp missing", "for whom it was issued", set("aud", []string{"bonafide", "somebody"})},
		{"azp of another", "issued for another client", set("azp", "somebody")},
		{"expired", "has expired", set("exp", 1000)},
		{"without exp", "has expired", func(p *Provider) { p.Claims = func(c map[string]any) { delete(c, "exp") } }},
		{"issued tomorrow", "in the future", set("iat", 9999999999)},
		{"issued long ago", "not issued just now", set("iat", 1000)},
		{"nonce of another", "nonce is not", set("nonce", "another")},
		{"without nonce", "nonce is not", func(p *Provider) { p.Claims = func(c map[string]any) { delete(c, "nonce") } }},
		{"without sub", "names no subject", set("sub", "")},
		{"a logout token", "about an event", set("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}})},
		{"alg none", "algorithm is not", func(p *Provider) { p.Sign = none }},
		{"signed by another", "no key fits", func(p *Provider) { p.Sign = func(c any) string { s, _ := other.Sign("JWT", c); return s } }},
		{"an access token", "type is that of another", func(p *Provider) { p.Sign = func(c any) string { s, _ := p.Key.Sign("at+jwt", c); return s } }},
		{"no ID token", "no ID token", func(p *Provider) {
			p.Token = func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"access_token":"x"}`)) }
		}},
		{"no JSON", "no ID token", func(p *Provider) { p.Token = func(w http.ResponseWriter) { _, _ = w.Write([]byte(`<html>`)) } }},
		{"discovery of another", "about another issuer", func(p *Provider) { p.Discovery = func(d map[string]any) { d["issuer"] = "https://evil.test" } }},
		{"an endpoint on http", "not an https URL", func(p *Provider) {
			p.Discovery = func(d map[string]any) { d["token_endpoint"] = "http://idp.test/token" }
		}},
		{"a token endpoint at the metadata service", "169.254.169.254 is special-use", func(p *Provider) {
			p.Discovery = func(d map[string]any) { d["token_endpoint"] = "https://169.254.169.254/" }
		}},
		{"keys at an inner address", "10.0.0.7 is special-use", func(p *Provider) { p.Discovery = func(d map[string]any) { d["jwks_uri"] = "https://inner.test/" } }},
		{"iss of another in the answer", "iss of the answer", func(p *Provider) {
			p.Answer = func(v url.Values) url.Values { v.Set("iss", "https://evil.test"); return v }
		}},
		{"iss missing in the answer", "iss is missing", func(p *Provider) { p.Answer = func(v url.Values) url.Values { v.Del("iss"); return v } }},
		{"no code", "no code", func(p *Provider) { p.Answer = func(v url.Values) url.Values { v.Del("code"); return v } }},
		{"a code of its own making", "invalid_grant", func(p *Provider) { p.Answer = func(v url.Values) url.Values { v.Set("code", "x"); return v } }},
	} {
		t.Run("OIDC-05, OIDC-06, attack CN-17: "+c.name, func(t *testing.T) {
			h, idp := ssoHouse(t)
			h.Net.DNS("inner.test", netip.MustParseAddr("10.0.0.7"))
			idp.Set(c.lie)
			john := h.Traveller()
			page := john.press(john.Visit(h.Authorize()))
			if page.Left || page.Status != 403 && page.Status != 503 || page.Has("decision") {
				t.Errorf("%s (%d): %s", page.URL, page.Status, page.Text())
			}
			if !strings.Contains(page.Text(), "Reference") || strings.Contains(page.Body, "evil.test") || strings.Contains(page.Body, "10.0.0.7") || strings.Contains(page.Body, "169.254") {
				t.Errorf("%s", page.Text())
			}
			if again := john.Visit(Issuer + "/connections"); !again.Has("password") {
				t.Error("signed in")
			}
			if strays := h.Net.Strays(); len(strays) != 0 {
				t.Errorf("dialled %v", strays)
			}
			h.Server.Close()
			if noted := h.Events(audit.TypeLoginFailed); len(noted) != 1 || !strings.Contains(noted[0].Data["error"], c.why) {
				t.Errorf("%+v", noted)
			}
		})
	}
}

func TestProvidersAreNotMixedUp(t *testing.T) {
	two := strings.TrimSuffix(Upstream, "]") + ", {name: other, issuer: https://other-idp.test, client_id: bonafide}]"
	h := New(t, "", two)
	idp := NewProvider(h)
	john := h.Person()
	to := john.ToProvider(john.Visit(h.Authorize()))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	back := must(url.Parse(h.Do(req).Header.Get("Location")))(t)
	t.Run("OIDC-06 an answer counts at the redirect URI of the provider that was asked", func(t *testing.T) {
		elsewhere := *back
		elsewhere.Path = "/login/callback/other"
		if page := john.VisitFrom(elsewhere.String(), "cross-site"); page.Status != 403 {
			t.Errorf("%d %s", page.Status, page.Text())
		}
		if codes, _ := idp.Redeemed(); len(codes) != 0 || len(h.Net.Host("other-idp.test").Requests()) != 0 {
			t.Error("the code went somewhere")
		}
		if page := john.VisitFrom(Issuer+"/login/callback/nobody?"+back.RawQuery, "cross-site"); page.Status != 404 {
			t.Errorf("%d", page.Status)
		}
		if page := john.VisitFrom(back.String(), "cross-site"); !page.Has("decision") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

func TestAProviderInside(t *testing.T) {
	inside := netip.MustParseAddr("10.0.0.9")
	for _, c := range []struct {
		name, config string
		at           netip.Addr
		dialled      bool
	}{
		{"an inner address is not dialled", Upstream, inside, false},
		{"unless the operator says so", strings.Replace(Upstream, "client_id", "allow_private: true, client_id", 1), inside, true},
		{"and never the metadata service", strings.Replace(Upstream, "client_id", "allow_private: true, client_id", 1), netip.MustParseAddr("169.254.169.254"), false},
	} {
		t.Run("OIDC-05, attack CN-17: "+c.name, func(t *testing.T) {
			h := New(t, "", c.config)
			h.Net.DNS("idp.test", c.at)
			john := h.Traveller()
			if page := john.press(john.Visit(h.Authorize())); page.Status != 503 {
				t.Errorf("%d %s", page.Status, page.Text())
			}
			if strays := h.Net.Strays(); (len(strays) > 0) != c.dialled {
				t.Errorf("dialled %v", strays)
			}
		})
	}
}

func TestTripsAreBounded(t *testing.T) {
	h, _ := ssoHouse(t)
	john := h.Person()
	f := must(john.Visit(h.Authorize()).Form("with"))(t)
	t.Run("POL-08, OIDC-05 nobody makes us knock at the provider without end", func(t *testing.T) {
		for range 60 {
			if page := john.Send(f.With("with", "idp")); !page.Left {
				t.Fatalf("%d %s", page.Status, page.Text())
			}
		}
		if page := john.Send(f.With("with", "idp")); page.Status != 429 || page.Header.Get("Retry-After") == "" {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

func TestAbandonedTripsLeaveNoCookiesBehind(t *testing.T) {
	for name, issuer := range map[string]string{"a host": Issuer, "a path": Issuer + "/auth"} {
		t.Run("CONS-17, attack CN-13: who starts and does not come back keeps four cookies, the newest: an issuer that is "+name, func(t *testing.T) {
			h := New(t, "", Upstream, "issuer: https://as.test\n", "issuer: "+issuer+"\n")
			NewProvider(h)
			john := h.Person()
			address := h.Authorize()
			if issuer != Issuer {
				address = strings.Replace(address, Issuer, issuer, 1)
			}
			f := must(john.Visit(address).Form("with"))(t)
			trips := func() (names []string) {
				for _, c := range john.Cookies(must(url.Parse(issuer))(t)) {
					if strings.Contains(c.Name, "trip") {
						names = append(names, c.Name)
					}
				}
				return names
			}
			var last []string
			for range 9 {
				if page := john.Send(f.With("with", "idp")); !page.Left {
					t.Fatalf("%d %s", page.Status, page.Text())
				}
				h.Later(time.Second)
				now := trips()
				if len(now) > 4 {
					t.Fatalf("%d cookies: %v", len(now), now)
				}
				if len(last) == 4 && len(slices.DeleteFunc(slices.Clone(last), func(n string) bool { return !slices.Contains(now, n) })) != 3 {
					t.Errorf("more than one was dropped: %v, %v", last, now)
				}
				last = now
			}
			if len(last) != 4 {
				t.Errorf("%v", last)
			}
		})
	}
	t.Run("CONS-17 the last four that began can still come back, in any order", func(t *testing.T) {
		h, _ := ssoHouse(t)
		john := h.Person()
		f := must(john.Visit(h.Authorize()).Form("with"))(t)
		var back []string
		for range 6 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, john.Send(f.With("with", "idp")).URL.String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			back = append(back, h.Do(req).Header.Get("Location"))
			h.Later(time.Second)
		}
		for i, want := range []int{403, 403, 200, 200, 200, 200} {
			if page := john.VisitFrom(back[i], "cross-site"); page.Status != want {
				t.Errorf("%d: %d %s", i, page.Status, page.Text())
			}
		}
	})
}
