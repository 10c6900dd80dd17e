package login

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"

	"github.com/bonafide-id/bonafide/internal/web"
)

// TestRealBrowser signs in with Chromium, at a --dev issuer, on the way from an
// authorization request to a native client's loopback listener.
func TestRealBrowser(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil || testing.Short() {
		t.Skip("no chromium, or a short run")
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("the app has the answer " + r.URL.RawQuery))
	}))
	defer app.Close()
	var mux http.ServeMux
	server := httptest.NewServer(&mux)
	defer server.Close()
	h := newHouse(t, func(c *Config) {
		c.Now, c.Edge = time.Now, newDevEdge(t, server.URL)
	})
	for _, r := range append(h.Routes(), h.cfg.Edge.Routes()...) {
		mux.Handle(r.Pattern, r.Handler)
	}
	mux.Handle("/authorize", h.cfg.Edge.Entry(func(w http.ResponseWriter, r *http.Request) error {
		user, err := h.Current(r)
		if err != nil {
			return err
		}
		if user == nil {
			return h.Redirect(w, r, Return{Path: "/authorize", AppHost: "app.example", RedirectHost: app.URL + "/cb"})
		}
		http.Redirect(w, r, app.URL+"/cb?user="+user.User.Name, http.StatusSeeOther)
		return nil
	}))

	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)
	alloc, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	defer cancel()
	ctx, cancel := chromedp.NewContext(alloc)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	complaints := make(chan string, 100)
	if err := chromedp.Listen(ctx, func(ev any) {
		if e, ok := ev.(*log.EventEntryAdded); ok && strings.Contains(e.Entry.Text, "Content Security Policy") {
			complaints <- e.Entry.Text
		}
	}); err != nil {
		t.Fatal(err)
	}
	text := func() string {
		s, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(390, 844), chromedp.Navigate(server.URL+"/authorize")); err != nil {
		t.Fatal(err)
	}
	if s := text(); !strings.Contains(s, "to go on with app.example") {
		t.Fatalf("the page says %s", s)
	}
	t.Run("CONS-06 the stylesheet passes the policy, and a phone needs no sideways scrolling", func(t *testing.T) {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[bool](
			`getComputedStyle(document.querySelector(".sheet")).paddingLeft === "20px" && document.documentElement.scrollWidth <= 390 &&
			[...document.querySelectorAll("button, input:not([type=hidden])")].every(e => e.getBoundingClientRect().height >= 44)`))
		if err != nil || !got {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("CONS-06, CN-12 a browser follows the form to the app, past form-action", func(t *testing.T) {
		if err := chromedp.Do(ctx, chromedp.SendKeys("#username", "john"), chromedp.SendKeys("#password", password)); err != nil {
			t.Fatal(err)
		}
		if _, err := chromedp.RunResponse(ctx, chromedp.Click("button[type=submit]")); err != nil {
			t.Fatal(err)
		}
		if s := text(); !strings.Contains(s, "the app has the answer user=john") {
			t.Errorf("the page says %s", s)
		}
	})
	close(complaints)
	for c := range complaints {
		t.Error(c)
	}
}

func newDevEdge(t *testing.T, issuer string) *web.Edge {
	t.Helper()
	e, err := web.NewEdge(web.EdgeConfig{Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	return e
}
