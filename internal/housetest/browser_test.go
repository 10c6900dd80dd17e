package housetest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
)

// screen is a tab of Debian's Chromium in which every name leads to the house.
type screen struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex // guards what follows
	violations []string
}

// chromium starts a browser. It is skipped, with the reason, only where there is
// none: make test installs it.
func chromium(t *testing.T, h *House, width int, scripts bool) *screen {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium on this machine; scripts/need.sh chromium installs it")
	}
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Host {
		case "as.test":
			h.Server.Handler().ServeHTTP(w, r)
		case "idp.test":
			h.provider.serve(w, r)
		case "evil.test":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<title>evil</title><iframe id="f" src="%s"></iframe>`, strings.ReplaceAll(h.Authorize(), "&", "&amp;"))
		default:
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, "<title>arrived</title><p id=arrived>%s", r.Host)
		}
	}))
	t.Cleanup(front.Close)
	s := &screen{t: t}
	allocator := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.IgnoreCertErrors,
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(width, 900),
		chromedp.Flag("host-resolver-rules", "MAP *.test "+strings.TrimPrefix(front.URL, "https://")),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
	}
	ctx, cancel := chromedp.NewContext(t.Context(), chromedp.WithAllocatorOptions(allocator...), chromedp.WithListener(s.listen))
	t.Cleanup(cancel)
	s.ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	s.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		if _, err := cdp.Call(ctx, t, audits.Enable, cdp.Empty{}); err != nil {
			return chromedp.Void{}, err
		}
		if _, err := cdp.Call(ctx, t, log.Enable, cdp.Empty{}); err != nil {
			return chromedp.Void{}, err
		}
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts})
		return chromedp.Void{}, err
	}, chromedp.EmulateViewport(int64(width), 900))
	return s
}

// listen collects what the browser blocked.
func (s *screen) listen(ev any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := ev.(type) {
	case *audits.EventIssueAdded:
		if e.Issue.Code == audits.InspectorIssueCodeContentSecurityPolicyIssue {
			d := e.Issue.Details.ContentSecurityPolicyIssueDetails
			s.violations = append(s.violations, d.ViolatedDirective+" "+d.BlockedURL)
		}
	case *log.EventEntryAdded:
		if strings.Contains(e.Entry.Text, "Content Security Policy") || strings.Contains(e.Entry.Text, "Refused to") {
			s.violations = append(s.violations, e.Entry.Text)
		}
	}
}

func (s *screen) blocked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.violations...)
}

func (s *screen) do(steps ...chromedp.Action[chromedp.Void]) {
	s.t.Helper()
	if err := chromedp.Do(s.ctx, steps...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) text(selector string) string {
	s.t.Helper()
	v, err := chromedp.Run(s.ctx, chromedp.Text(chromedp.CSS(selector)))
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

func (s *screen) location() *url.URL {
	s.t.Helper()
	v, err := chromedp.Run(s.ctx, chromedp.Location())
	if err != nil {
		s.t.Fatal(err)
	}
	u, err := url.Parse(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

// shoot keeps a picture when BONAFIDE_SHOTS names a folder, for people to look at.
func (s *screen) shoot(name string) {
	s.t.Helper()
	dir := os.Getenv("BONAFIDE_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(s.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) signIn() {
	s.t.Helper()
	s.do(chromedp.SendKeys(chromedp.CSS(`[name=username]`), User), chromedp.SendKeys(chromedp.CSS(`[name=password]`), Password))
	if _, err := chromedp.RunResponse(s.ctx, chromedp.Click(chromedp.CSS(`form button[type=submit]`))); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) decide(value string) {
	s.t.Helper()
	if _, err := chromedp.RunResponse(s.ctx, chromedp.Click(chromedp.CSS(`button[name=decision][value=`+value+`]`))); err != nil {
		s.t.Fatal(err)
	}
}

func TestABrowserSignsInAgreesAndDenies(t *testing.T) {
	for _, c := range []struct {
		name    string
		width   int
		scripts bool
	}{{"desktop", 1280, true}, {"desktop without scripts", 1280, false}, {"phone", 390, true}} {
		t.Run(c.name, func(t *testing.T) {
			h := New(t)
			s := chromium(t, h, c.width, c.scripts)
			s.do(chromedp.Navigate(h.Authorize()))
			s.shoot(c.name + " sign-in")
			s.signIn()
			page := s.text("main")
			t.Run("CONS-01, CONS-02, CONS-04 the page says who asks, for what, and where the answer goes", func(t *testing.T) {
				for _, want := range []string{"good.test", "Example tools", "look things up", User} {
					if !strings.Contains(page, want) {
						t.Errorf("the page does not say %q: %s", want, page)
					}
				}
			})
			s.shoot(c.name + " consent")
			t.Run("CONS-01 the host is the largest text", func(t *testing.T) {
				if !c.scripts {
					return // the page is asked by a script of the test
				}
				got, err := chromedp.Run(s.ctx, chromedp.Evaluate[string](`(() => {
					let best = null, size = 0;
					for (const e of document.querySelectorAll('main *')) {
						if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
						const px = parseFloat(getComputedStyle(e).fontSize);
						if (px > size) { size = px; best = e; }
					}
					return best.textContent.trim();
				})()`))
				if err != nil || !strings.Contains(got, "good.test") {
					t.Errorf("the largest text is %q, %v", got, err)
				}
			})
			t.Run("the page is not wider than the screen", func(t *testing.T) {
				if !c.scripts {
					return
				}
				got, err := chromedp.Run(s.ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth`))
				if err != nil || got > c.width {
					t.Errorf("%d pixels wide, %v", got, err)
				}
			})
			s.decide("allow")
			if u := s.location(); u.Host != "good.test" || u.Query().Get("code") == "" || u.Query().Get("iss") != Issuer {
				t.Fatalf("after Allow the browser is at %s", u)
			}
			if a := h.Post("/token", CodeForm(s.location().Query().Get("code"))); !a.OK() {
				t.Errorf("the code: %d %s", a.Status, a.Raw)
			}

			s.do(chromedp.Navigate(h.Authorize("scope", "mcp:read mcp:write", "state", "s2")))
			if page := s.text("main"); !strings.Contains(page, "make changes") {
				t.Errorf("the step-up page: %s", page)
			}
			s.shoot(c.name + " step-up")
			s.decide("deny")
			t.Run("CONS-16 Cancel tells the client", func(t *testing.T) {
				if u := s.location(); u.Host != "good.test" || u.Query().Get("error") != "access_denied" || u.Query().Get("state") != "s2" {
					t.Errorf("after Cancel the browser is at %s", u)
				}
			})

			s.do(chromedp.Navigate(h.Authorize("redirect_uri", "https://good.test/other")))
			t.Run("AUTHZ-02, AUTHZ-30 a refusal is a page with a reference", func(t *testing.T) {
				page := s.text("main")
				if u := s.location(); u.Host != "as.test" || !strings.Contains(page, "good.test") {
					t.Errorf("at %s: %s", u, page)
				}
			})
			s.shoot(c.name + " refused")
			t.Run("CONS-06 nothing on the way violated the content security policy", func(t *testing.T) {
				if v := s.blocked(); len(v) > 0 {
					t.Errorf("%q", v)
				}
			})
		})
	}
}

func TestABrowserComesBackToTheLoopbackListener(t *testing.T) {
	h := New(t)
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<p id=arrived>back") }))
	defer listener.Close()
	redirect := listener.URL + "/callback"
	h.Net.Host("good.test").ServeClient("/native.json", map[string]any{"redirect_uris": []string{"http://127.0.0.1/callback"}})
	s := chromium(t, h, 390, true)
	s.do(chromedp.Navigate(h.Authorize("client_id", "https://good.test/native.json", "redirect_uri", redirect)))
	s.signIn()
	t.Run("CONS-03, attack CN-10: the page says that the app runs on this computer", func(t *testing.T) {
		if page := s.text("main"); !strings.Contains(page, "127.0.0.1") || !strings.Contains(page, "this computer") {
			t.Errorf("%s", page)
		}
	})
	s.shoot("loopback consent")
	s.decide("allow")
	if u := s.location(); !strings.HasPrefix(u.String(), redirect+"?") || u.Query().Get("code") == "" {
		t.Errorf("the browser is at %s", u)
	}
	if v := s.blocked(); len(v) > 0 {
		t.Errorf("CONS-06 %q", v)
	}
}

func TestABrowserDoesNotFrameThePages(t *testing.T) {
	h := New(t)
	s := chromium(t, h, 800, true)
	s.do(chromedp.Navigate("https://evil.test/"), chromedp.WaitReady(chromedp.CSS("#f")))
	t.Run("CONS-06, attack CN-08: a page in a foreign frame shows nothing, and the browser says why", func(t *testing.T) {
		deadline := time.After(20 * time.Second)
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			for _, v := range s.blocked() {
				if strings.Contains(v, "frame-ancestors") {
					return
				}
			}
			select {
			case <-deadline:
				t.Fatalf("nothing was blocked: %q", s.blocked())
			case <-tick.C:
			}
		}
	})
}
