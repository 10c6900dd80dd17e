package authorize

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"

	"github.com/bonafide-id/bonafide/cimd"
)

// listener is an app on the person's computer.
func listener(t *testing.T, network, addr string) string {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Skipf("no %s here: %v", addr, err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if to := r.FormValue("to"); to != "" {
			fmt.Fprintf(w, `<a id="go" href="%s">connect</a>`, strings.ReplaceAll(to, "&", "&amp;"))
			return
		}
		fmt.Fprintf(w, "the app has %s", r.URL.RawQuery)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// TestRealBrowser answers consent pages with Chromium on a phone, with JavaScript
// left to itself: the page has none.
func TestRealBrowser(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil || testing.Short() {
		t.Skip("no chromium, or a short run")
	}
	var mux http.ServeMux
	server := httptest.NewServer(&mux)
	defer server.Close()
	p := openAt(t, server.URL)
	for _, r := range append(p.h.Routes(), p.edge.Routes()...) {
		mux.Handle(r.Pattern, r.Handler)
	}
	mux.Handle("/sign-in", p.edge.Page(func(w http.ResponseWriter, r *http.Request) error {
		b := p.signedIn("john")
		p.edge.SetCookie(w, "session", b.cookies["__Host-bonafide_session"], 0)
		return nil
	}))

	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)
	alloc, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	defer cancel()
	ctx, cancel := chromedp.NewContext(alloc)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	do := func(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatal(err)
		}
	}
	do(t)
	complaints := make(chan string, 100)
	if err := chromedp.Listen(ctx, func(ev any) {
		if e, ok := ev.(*log.EventEntryAdded); ok && strings.Contains(e.Entry.Text, "Content Security Policy") {
			complaints <- e.Entry.Text
		}
	}); err != nil {
		t.Fatal(err)
	}
	text := func(t *testing.T) string {
		t.Helper()
		s, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	follow := func(t *testing.T, selector string) string {
		t.Helper()
		if _, err := chromedp.RunResponse(ctx, chromedp.Click(selector)); err != nil {
			t.Fatal(err)
		}
		return text(t)
	}
	ask := func(id, app string, pairs ...string) string {
		v := asks(id, append([]string{"redirect_uri", app + "/cb"}, pairs...)...)
		return server.URL + "/authorize?" + v.Encode()
	}
	four := listener(t, "tcp4", "127.0.0.1:0")
	do(t, chromedp.EmulateViewport(390, 844), chromedp.Navigate(server.URL+"/sign-in"), chromedp.Navigate(ask(nativeID, four)))

	t.Run("CONS-01: the host is the largest thing on a phone, nothing scrolls sideways, everything can be touched", func(t *testing.T) {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(() => {
			const size = e => parseFloat(getComputedStyle(e).fontSize), h = document.querySelector("h1");
			const all = [...document.querySelectorAll("main *")].filter(e => e.innerText);
			return [
				h.innerText === "native.example.com", size(h) >= 28, all.every(e => e === h || h.contains(e) || size(e) < size(h)),
				h.getClientRects().length === 1 && h.offsetHeight < 2 * size(h), all.every(e => size(e) >= 14),
				document.documentElement.scrollWidth <= 390,
				[...document.querySelectorAll("button, summary")].every(e => e.getBoundingClientRect().height >= 44),
				document.activeElement === document.body,
			].join(" ");
		})()`))
		if err != nil || got != strings.TrimSpace(strings.Repeat("true ", 8)) {
			t.Errorf("got %s, %v", got, err)
		}
	})
	t.Run("CONS-16: cancel is as large as allow", func(t *testing.T) {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`(() => {
			const [a, b] = ["allow", "deny"].map(v => document.querySelector("form#consent button[name=decision][value=" + v + "]").getBoundingClientRect());
			return Math.abs(a.width - b.width) < 2 && Math.abs(a.height - b.height) < 2;
		})()`))
		if err != nil || !got {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("AUTHZ-15: allow leads to the app on this computer, past form-action", func(t *testing.T) {
		if s := follow(t, "button[value=allow]"); !strings.Contains(s, "the app has code=") || !strings.Contains(s, "state=s1&iss="+url.QueryEscape(server.URL)) {
			t.Errorf("the page says %s", s)
		}
	})
	t.Run("CONS-16: cancel too", func(t *testing.T) {
		do(t, chromedp.Navigate(ask(nativeID, four)))
		if s := follow(t, "button[value=deny]"); !strings.Contains(s, "the app has error=access_denied") {
			t.Errorf("the page says %s", s)
		}
	})
	t.Run("AUTHZ-04: an app on [::1]", func(t *testing.T) {
		six := listener(t, "tcp6", "[::1]:0")
		p.dir.put(nativeID, func(d *cimd.Document) { d.RedirectURIs = append(d.RedirectURIs, "http://[::1]/cb") })
		do(t, chromedp.Navigate(ask(nativeID, six)))
		if s := follow(t, "button[value=allow]"); !strings.Contains(s, "the app has code=") {
			t.Errorf("the page says %s", s)
		}
	})
	t.Run("attack CN-04, attack CN-05: typed is silent, followed from another page is not", func(t *testing.T) {
		do(t, chromedp.Navigate(ask(keyedID, four)))
		if s := follow(t, "button[value=allow]"); !strings.Contains(s, "the app has code=") {
			t.Fatalf("the page says %s", s)
		}
		do(t, chromedp.Navigate(ask(keyedID, four)))
		if s := text(t); !strings.Contains(s, "the app has code=") {
			t.Errorf("typed: the page says %s", s)
		}
		do(t, chromedp.Navigate(four+"/?to="+url.QueryEscape(ask(keyedID, four))))
		if s := follow(t, "#go"); !strings.Contains(s, "another site sent you here") {
			t.Errorf("followed: the page says %s", s)
		}
	})
	close(complaints)
	for c := range complaints {
		t.Error(c)
	}
}
