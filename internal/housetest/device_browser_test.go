package housetest

import (
	"context"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// press clicks and waits for the next page.
func (s *screen) press(selector string) {
	s.t.Helper()
	if _, err := chromedp.RunResponse(s.ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		s.t.Fatal(err)
	}
}

// dark lets the system prefer dark colours.
func (s *screen) dark() {
	s.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
		})
		return chromedp.Void{}, err
	})
}

func TestABrowserConnectsADevice(t *testing.T) {
	for _, c := range []struct {
		name          string
		width         int
		scripts, dark bool
	}{{"desktop", 1280, true, false}, {"desktop dark without scripts", 1280, false, true}, {"phone", 390, true, false}, {"phone dark", 390, true, true}} {
		t.Run(c.name, func(t *testing.T) {
			h := televised(t)
			s := chromium(t, h, c.width, c.scripts)
			if c.dark {
				s.dark()
			}
			fits := func(page string) {
				t.Helper()
				s.shoot("device " + c.name + " " + page)
				if !c.scripts {
					return // the page is measured by a script of the test
				}
				got, err := chromedp.Run(s.ctx, chromedp.Evaluate[string](`(() => {
					const wide = document.documentElement.scrollWidth > innerWidth ? ["the page is wider than the screen"] : [];
					const low = [...document.querySelectorAll("main button, main summary, main label.check, main input:not([type=hidden]):not([type=checkbox])")]
						.filter(e => e.getBoundingClientRect().height < 44).map(e => e.textContent + " is too low to touch");
					const small = [...document.querySelectorAll("main *")].filter(e => e.innerText && parseFloat(getComputedStyle(e).fontSize) < 14).map(e => e.innerText + " is too small");
					return wide.concat(low, small).join("; ");
				})()`))
				if err != nil || got != "" {
					t.Errorf("%s: %s %v", page, got, err)
				}
			}
			s.do(chromedp.Navigate(Issuer + "/device"))
			s.signIn()
			fits("enter")
			a := h.started("scope", "mcp:read mcp:write")
			t.Run("attack DV-05: the code as somebody types it", func(t *testing.T) {
				s.do(chromedp.SendKeys(chromedp.CSS(`#user_code`), "aeio-uaei"))
				s.press(`button.primary`)
				fits("wrong")
				if text := s.text("main"); !strings.Contains(text, "eight letters") {
					t.Errorf("%s", text)
				}
				s.do(chromedp.Navigate(Issuer+"/device"), chromedp.SendKeys(chromedp.CSS(`#user_code`), strings.ToLower(strings.Replace(a.Str("user_code"), "-", " ", 1))))
				s.press(`button.primary`)
			})
			fits("confirm")
			t.Run("attack DV-06: the browser holds a yes back that compares nothing", func(t *testing.T) {
				s.do(chromedp.Click(chromedp.CSS(`button[value=allow]`)))
				if u := s.location(); u.Path != "/device/confirm" {
					t.Errorf("at %s", u)
				}
				h.poll(a).check(t, 400, "authorization_pending")
			})
			if c.scripts {
				t.Run("CONS-01, attack DV-06: the host is the largest text on the page of a device too", func(t *testing.T) {
					got, err := chromedp.Run(s.ctx, chromedp.Evaluate[string](`(() => {
						const size = e => parseFloat(getComputedStyle(e).fontSize), h = document.querySelector("h1");
						return [...document.querySelectorAll("main *")].filter(e => e.innerText && !h.contains(e) && size(e) >= size(h)).map(e => e.innerText).join("; ") || h.innerText;
					})()`))
					if err != nil || got != "tv.test" {
						t.Errorf("%q, %v", got, err)
					}
				})
			}
			s.do(chromedp.Click(chromedp.CSS(`input[name=started]`)))
			fits("confirmed")
			s.decide("allow")
			fits("done")
			if u := s.location(); u.Path != "/device/done" {
				t.Fatalf("at %s: %s", u, s.text("main"))
			}
			if b := h.poll(a); !b.OK() {
				t.Errorf("%d %s", b.Status, b.Raw)
			}
			d := h.started()
			s.do(chromedp.Navigate(d.Str("verification_uri_complete")))
			fits("brought")
			s.press(`button.primary`)
			s.decide("deny")
			fits("denied")
			h.poll(d).check(t, 400, "access_denied")
			t.Run("DEV-08 nothing on the way violated the content security policy", func(t *testing.T) {
				if v := s.blocked(); len(v) > 0 {
					t.Errorf("%q", v)
				}
			})
		})
	}
}
