package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

func TestListener(t *testing.T) {
	start := func(t *testing.T, redirect string) (*listener, func(method, url, host string) (int, string, http.Header)) {
		l, err := listen(redirect)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.close)
		l.serve(func(q string) bool { return strings.Contains(q, "state=right") })
		ask := func(method, address, host string) (int, string, http.Header) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, method, address, nil)
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			raw, _ := io.ReadAll(resp.Body)
			return resp.StatusCode, string(raw), resp.Header
		}
		return l, ask
	}
	t.Run("CLI-18, attack HO-14: bound to the loopback address alone, on a free port", func(t *testing.T) {
		for redirect, ip := range map[string]string{"http://127.0.0.1/callback": "127.0.0.1", "http://localhost/callback": "127.0.0.1"} {
			l, _ := start(t, redirect)
			for _, n := range l.nets {
				a := n.Addr().(*net.TCPAddr)
				if !a.IP.IsLoopback() || a.Port == 0 {
					t.Error(a)
				}
			}
			if l.nets[0].Addr().(*net.TCPAddr).IP.String() != ip {
				t.Error(l.nets[0].Addr())
			}
			if !oauth.MatchRedirect(redirect, l.redirect) || l.redirect == redirect {
				t.Error(l.redirect)
			}
		}
	})
	t.Run("CLI-18 the port of the redirect URI, if it has one", func(t *testing.T) {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		fixed := "http://" + free.Addr().String() + "/cb"
		free.Close()
		l, _ := start(t, fixed)
		if l.redirect != fixed {
			t.Error(l.redirect)
		}
	})
	t.Run("CLI-18, attack HO-14: what is not the answer is not found and consumes nothing; the answer counts once", func(t *testing.T) {
		l, ask := start(t, "http://127.0.0.1/callback")
		for _, tc := range []struct{ method, path, host string }{
			{"GET", "/callback?code=x", ""},
			{"GET", "/callback?code=x&state=wrong", ""},
			{"GET", "/other?code=x&state=right", ""},
			{"GET", "/callback/?code=x&state=right", ""},
			{"POST", "/callback?code=x&state=right", ""},
			{"GET", "/callback?code=x&state=right", "evil.test"},
			{"GET", "/favicon.ico", ""},
		} {
			host := tc.host
			if host == "" {
				host = l.host
			}
			if code, body, _ := ask(tc.method, "http://"+l.host+tc.path, host); code != 404 || strings.Contains(body, "x&state") {
				t.Error(tc, code, body)
			}
		}
		select {
		case q := <-l.queries:
			t.Fatal("taken:", q)
		default:
		}
		l.outcome <- nil
		if code, body, _ := ask("GET", "http://"+l.host+"/callback?code=x&state=right", l.host); code != 200 || !strings.Contains(body, "You are signed in") {
			t.Error(code, body)
		}
		if q := <-l.queries; q != "code=x&state=right" {
			t.Error(q)
		}
		if code, _, _ := ask("GET", "http://"+l.host+"/callback?code=y&state=right", l.host); code != 404 {
			t.Error("a second answer was taken")
		}
	})
	t.Run("attack HO-14: the page escapes what the server says, and runs nothing", func(t *testing.T) {
		l, ask := start(t, "http://127.0.0.1/callback")
		l.outcome <- &ServerError{Code: "access_denied", Description: "<script>alert(1)</script>"}
		code, body, h := ask("GET", "http://"+l.host+"/callback?state=right", l.host)
		if code != 400 || strings.Contains(body, "<script") || !strings.Contains(body, "&lt;script&gt;") {
			t.Error(code, body)
		}
		if !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-store" {
			t.Error(h)
		}
	})
	t.Run("CLI-09 the page does not repeat an answer that belongs to somebody else", func(t *testing.T) {
		l, ask := start(t, "http://127.0.0.1/callback")
		l.outcome <- ErrMismatch
		if code, body, _ := ask("GET", "http://"+l.host+"/callback?state=right&error_description=call+555", l.host); code != 400 || strings.Contains(body, "555") {
			t.Error(body)
		}
	})
	t.Run("CLI-18 an answer for which nobody waits any more is told so, and holds nothing open", func(t *testing.T) {
		l, ask := start(t, "http://127.0.0.1/callback")
		closed := make(chan struct{})
		go func() {
			<-l.queries
			l.close() // without an outcome
			close(closed)
		}()
		if code, body, _ := ask("GET", "http://"+l.host+"/callback?code=x&state=right", l.host); code != 400 || !strings.Contains(body, "not signed in") {
			t.Error(code, body)
		}
		<-closed
	})
	t.Run("CLI-18 the port is free again afterwards", func(t *testing.T) {
		l, _ := start(t, "http://127.0.0.1/callback")
		l.close()
		again, err := net.Listen("tcp", l.host)
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
	})
	t.Run("CLI-18 a port that is taken", func(t *testing.T) {
		l, _ := start(t, "http://127.0.0.1/callback")
		if _, err := listen(l.redirect); err == nil {
			t.Error("shared")
		}
	})
}

func TestBrowser(t *testing.T) {
	t.Run("CLI-19, attack HO-13: only https and this computer's http are opened", func(t *testing.T) {
		for address, ok := range map[string]bool{
			"https://as.test/authorize?a=b&c=%20d": true,
			"http://127.0.0.1:8080/authorize":      true,
			"http://localhost:8080/authorize":      true,
			"http://as.test/authorize":             false,
			"file:///c:/windows/system32/calc.exe": false,
			"javascript:alert(1)":                  false,
			"--upload-pack=x":                      false,
			"-https://as.test":                     false,
			"https:as.test":                        false,
			"https://user:pw@as.test/":             false,
			"https://as.test/`id`":                 false,
			"https://as.test/\"&calc.exe":          false,
			"https://as.test/a b":                  false,
			"https://as.test/\ncalc":               false,
			"ms-msdt:/id":                          false,
			"":                                     false,
		} {
			if err := checkOpen(address); ok != (err == nil) {
				t.Errorf("%q: %v", address, err)
			}
		}
	})
	t.Run("CLI-19, attack HO-13: the URL is one argument and no shell reads it", func(t *testing.T) {
		const address = "https://x/$(calc)?a=1&b=2"
		for _, system := range []string{"linux", "darwin", "windows", "freebsd"} {
			argv := browserCommand(system, address)
			if argv[len(argv)-1] != address {
				t.Error(system, argv)
			}
			for _, shell := range []string{"sh", "bash", "cmd", "cmd.exe", "powershell"} {
				if argv[0] == shell {
					t.Error(system, argv)
				}
			}
		}
	})
	t.Run("attack HO-13: the opener refuses by itself", func(t *testing.T) {
		if err := OpenBrowser("ftp://as.test/calc"); err == nil || !strings.Contains(err.Error(), "scheme") {
			t.Error(err)
		}
	})
	t.Run("CLI-19 a system without a browser", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if err := OpenBrowser("https://as.test/"); err == nil {
			t.Error("opened")
		}
	})
}

func TestSignIn(t *testing.T) {
	t.Run("CLI-08, CLI-18 the whole way: browser, loopback, tokens, store", func(t *testing.T) {
		w := newWorld(t, nil)
		g, err := w.c.SignIn(t.Context(), w.target(), "extra")
		if err != nil || g.Scopes.String() != "read extra" {
			t.Fatalf("%v, %v", g, err)
		}
		if kept, err := w.c.cfg.Store.Load(t.Context(), w.target()); err != nil || kept.AccessToken != g.AccessToken {
			t.Error(kept, err)
		}
		used := w.as.asked[0].Get("redirect_uri")
		if !oauth.MatchRedirect(defaultRedirect, used) || w.as.posted[0].Get("redirect_uri") != used {
			t.Error(used)
		}
		u, _ := url.Parse(used)
		if c, err := net.DialTimeout("tcp", u.Host, time.Second); err == nil {
			c.Close()
			t.Error("the port is still open")
		}
		if err := w.c.SignOut(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		if kept, _ := w.c.cfg.Store.Load(t.Context(), w.target()); kept != nil {
			t.Error("still there")
		}
	})
	t.Run("CLI-09 the user says no", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.answer = func(q url.Values) {
			q.Del("code")
			q.Set("error", "access_denied")
		}
		_, err := w.c.SignIn(t.Context(), w.target())
		if e, is := errors.AsType[*ServerError](err); !is || e.Code != oauth.AccessDenied {
			t.Error(err)
		}
	})
	t.Run("attack HO-12: a mixed-up answer ends the sign-in without a token request", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.answer = func(q url.Values) { q.Set("iss", "https://evil.test") }
		if _, err := w.c.SignIn(t.Context(), w.target()); !errors.Is(err, ErrMismatch) || len(w.as.posted) != 0 || !w.failed("CLI-09") {
			t.Error(err)
		}
	})
	t.Run("CLI-12, attack RS-12: Confirm sees exactly what will be asked for, and can stop it", func(t *testing.T) {
		var asks []Ask
		w := newWorld(t, func(c *Config) {
			c.Confirm = func(_ context.Context, a Ask) error {
				asks = append(asks, a)
				if a.Scopes.Has("forbidden") {
					return errors.New("not that")
				}
				return nil
			}
		})
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		if _, err := w.c.SignIn(t.Context(), w.target(), "write"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.c.SignIn(t.Context(), w.target(), "forbidden"); !errors.Is(err, ErrSignIn) || w.opened() != 2 {
			t.Error(err, w.opened())
		}
		if asks[0].New.String() != "read" || asks[1].New.String() != "write" || asks[1].Scopes.String() != "read write" || asks[1].Scopes.String() != w.as.asked[1].Get("scope") {
			t.Errorf("%+v", asks)
		}
	})
	t.Run("CLI-18 a browser that never comes back", func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			c.Wait = time.Millisecond
			c.Open = func(string) error { return nil }
		})
		if _, err := w.c.SignIn(t.Context(), w.target()); !errors.Is(err, ErrSignIn) {
			t.Error(err)
		}
	})
	t.Run("CLI-19 a browser that cannot be opened", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Open = func(string) error { return errors.New("no screen") } })
		if _, err := w.c.SignIn(t.Context(), w.target()); err == nil || !strings.Contains(err.Error(), "no screen") {
			t.Error(err)
		}
	})
	t.Run("CLI-08 a resource that is no https URL", func(t *testing.T) {
		w := newWorld(t, nil)
		for _, bad := range []string{"mcp.test", "http://mcp.test"} {
			if _, err := w.c.SignIn(t.Context(), bad); err == nil {
				t.Error(bad)
			}
			if err := w.c.SignOut(t.Context(), bad); err == nil {
				t.Error(bad)
			}
			if _, err := w.c.TokenSource(t.Context(), bad).Token(); err == nil {
				t.Error(bad)
			}
		}
	})
}
