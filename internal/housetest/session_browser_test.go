package housetest

import (
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// click clicks what a selector finds and waits for the page behind it.
func (s *screen) click(selector string) {
	s.t.Helper()
	if _, err := chromedp.RunResponse(s.ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		s.t.Fatal(err)
	}
}

// fits reports pages that are wider than the screen.
func (s *screen) fits(name string, width int) {
	s.t.Helper()
	if got, err := chromedp.Run(s.ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth`)); err != nil || got > width {
		s.t.Errorf("%s is %d pixels wide, %v", name, got, err)
	}
}

func TestABrowserComesAndGoes(t *testing.T) {
	for _, c := range []struct {
		name  string
		width int
	}{{"desktop", 1280}, {"phone", 390}} {
		t.Run(c.name, func(t *testing.T) {
			h, idp := ssoHouse(t)
			h.Net.Host("good.test").ServeClient("/c.json", leaving("client_name", "Good Client"))
			h.Net.Host("a-rather-long-name-of-a-host.with-many-labels.other.test").ServeClient("/tools/agent/client.json", map[string]any{"redirect_uris": []string{"https://other.test/cb"}})
			s := chromium(t, h, c.width, true)
			look := func(name string) {
				t.Helper()
				s.fits(name, c.width)
				s.shoot(c.name + " session " + name)
			}
			s.do(chromedp.Navigate(h.Authorize("scope", "openid mcp:read")))
			look("sign-in with a provider")
			s.click(`button[name=with]`)
			if page := s.text("main"); !strings.Contains(page, "good.test") || !strings.Contains(page, "My connections") {
				t.Fatalf("%s %s", s.location(), page)
			}
			look("consent after the provider")
			s.decide("allow")
			if s.location().Query().Get("code") == "" {
				t.Fatalf("%s", s.location())
			}
			a := h.Post("/token", CodeForm(s.location().Query().Get("code")))
			s.do(chromedp.Navigate(h.Authorize("client_id", "https://a-rather-long-name-of-a-host.with-many-labels.other.test/tools/agent/client.json", "redirect_uri", "https://other.test/cb", "scope", "mcp:write", "state", "s2")))
			s.click(`button[name=decision][value=allow]`)
			s.do(chromedp.Navigate(Issuer + "/connections"))
			if page := s.text("main"); !strings.Contains(page, "good.test") || !strings.Contains(page, "make changes") {
				t.Fatalf("CONS-14 %s", page)
			}
			look("connections")
			t.Run("CONS-14 a long host breaks between its labels and not inside one", func(t *testing.T) {
				got, err := chromedp.Run(s.ctx, chromedp.Evaluate[string](`(() => {
					const range = document.createRange();
					const lines = e => { range.selectNodeContents(e); return new Set([...range.getClientRects()].map(r => r.top)).size; };
					const broken = [...document.querySelectorAll(".app span")].filter(e => lines(e) > 1).map(e => e.innerText);
					return broken.join(" ") + [...document.querySelectorAll(".app")].map(e => e.innerText).join(" ");
				})()`))
				if err != nil || got != "a-rather-long-name-of-a-host.with-many-labels.other.test good.test" {
					t.Errorf("%q, %v", got, err)
				}
			})
			s.click(`.apps form button`)
			look("connections after one ended")
			s.do(chromedp.Click(chromedp.CSS(`details.fold summary`)))
			look("connections, all of them")
			s.click(`details.fold button`)
			look("connections, none")
			s.do(chromedp.Navigate(bye("client_id", ClientID, "post_logout_redirect_uri", "https://good.test/bye", "state", "s1")))
			look("sign out for a client")
			s.click(`main form button`)
			if u := s.location(); u.String() != "https://good.test/bye?state=s1" {
				t.Fatalf("OIDC-08 at %s", u)
			}
			s.do(chromedp.Navigate(bye("client_id", ClientID, "post_logout_redirect_uri", "https://good.test/bye")))
			look("signed out, with a way back")
			s.do(chromedp.Navigate(bye("id_token_hint", a.Str("id_token"), "post_logout_redirect_uri", "https://good.test/nowhere")))
			look("sign out refused")

			idp.Set(func(p *Provider) {
				p.Answer = func(v url.Values) url.Values {
					return url.Values{"error": {"access_denied"}, "state": v["state"], "iss": v["iss"]}
				}
			})
			s.do(chromedp.Navigate(h.Authorize("state", "s3")))
			s.click(`button[name=with]`)
			look("the provider says no")
			idp.Set(func(p *Provider) {
				p.Answer = nil
				p.Claims = func(c map[string]any) { c["sub"], c["email"] = "u-9", "eve@evil.test" }
			})
			s.click(`button[name=with]`)
			if page := s.text("main"); !strings.Contains(page, "no account here") {
				t.Fatalf("%s", page)
			}
			look("no account")
			s.do(chromedp.Navigate(Issuer + "/"))
			look("home")
			t.Run("CONS-06 nothing on the way violated the content security policy", func(t *testing.T) {
				if v := s.blocked(); len(v) > 0 {
					t.Errorf("%q", v)
				}
			})
		})
	}
}
