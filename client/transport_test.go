package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

func callBody(tool string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `"}}`
}

// call posts through the client and returns status and body.
func (w *world) call(t *testing.T, h *http.Client, body string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.target(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

func TestTransport(t *testing.T) {
	t.Run("CLI-01, CLI-14 the first call signs in, is repeated with its body, and later calls just work", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		for range 3 {
			if code, body, err := w.call(t, h, callBody("list")); code != 200 || body != "done" {
				t.Fatal(code, body, err)
			}
		}
		if w.opened() != 1 || len(w.rs.bodies) != 4 || w.rs.bodies[0] != w.rs.bodies[1] {
			t.Error(w.opened(), w.rs.bodies)
		}
	})
	t.Run("CLI-14 the token goes to the resource and nowhere else, and never into a query", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Fatal(err)
		}
		other := newRS(t, w.as)
		for _, address := range []string{other.URL + "/mcp", w.rs.URL + "/", w.rs.URL + "/mcp2", w.rs.URL + "/mcp/../admin", w.rs.URL + "/mcp/%2e%2e/admin"} {
			resp, err := h.Get(address)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		for _, s := range append(other.seen, w.rs.seen...) {
			if strings.Contains(s, "access_token=") || strings.Contains(s, "Bearer") && !strings.HasPrefix(s, "POST /mcp ") {
				t.Error(s)
			}
		}
		if w.opened() != 1 {
			t.Error("signed in for somebody else")
		}
	})
	t.Run("CLI-14 which addresses belong to a resource", func(t *testing.T) {
		for address, ok := range map[string]bool{
			"https://mcp.test/mcp":           true,
			"https://MCP.test/mcp":           true,
			"https://mcp.test/mcp/messages":  true,
			"https://mcp.test/mcp?session=1": true,
			"https://mcp.test/mcp2":          false,
			"https://mcp.test/":              false,
			"https://mcp.test/MCP":           false,
			"https://mcp.test:8443/mcp":      false,
			"http://mcp.test/mcp":            false,
			"https://evil.test/mcp":          false,
			"https://mcp.test.evil.test/mcp": false,
			"https://mcp.test/mcp/../x":      false,
			"https://mcp.test/mcp/%2e%2e/x":  false,
			"https://mcp.test/mcp/..%2fx":    false,
			"https://u@mcp.test/mcp":         false,
		} {
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			if got := within("https://mcp.test/mcp", u); got != ok {
				t.Errorf("%s: %v", address, got)
			}
		}
		u, _ := url.Parse("https://mcp.test/mcp")
		if !within("https://mcp.test/", u) || !within("https://mcp.test", u) {
			t.Error("a resource that is the whole host")
		}
	})
	t.Run("CLI-14 an Authorization header of the caller is left alone", func(t *testing.T) {
		w := newWorld(t, nil)
		req, _ := http.NewRequestWithContext(t.Context(), "GET", w.target(), nil)
		req.Header.Set("Authorization", "Bearer mine")
		resp, err := w.c.HTTPClient(w.target()).Do(req)
		if err != nil || resp.StatusCode != 401 || w.opened() != 0 {
			t.Fatal(err)
		}
		resp.Body.Close()
	})
	t.Run("CLI-14 a resource that is no URL", func(t *testing.T) {
		w := newWorld(t, nil)
		if _, _, err := w.call(t, w.c.HTTPClient("mcp.test"), "{}"); err == nil {
			t.Error("sent")
		}
	})
	t.Run("CLI-12 a body that can be sent only once is sent once", func(t *testing.T) {
		w := newWorld(t, nil)
		req, _ := http.NewRequestWithContext(t.Context(), "POST", w.target(), io.MultiReader(strings.NewReader("x")))
		resp, err := w.c.HTTPClient(w.target()).Do(req)
		if err != nil || resp.StatusCode != 401 || w.opened() != 0 || len(w.rs.bodies) != 1 {
			t.Fatal(err, w.opened())
		}
		resp.Body.Close()
	})
	t.Run("CLI-12 a body of known length is kept for a repetition", func(t *testing.T) {
		w := newWorld(t, nil)
		req, _ := http.NewRequestWithContext(t.Context(), "POST", w.target(), io.MultiReader(strings.NewReader("xyz")))
		req.ContentLength = 3
		resp, err := w.c.HTTPClient(w.target()).Do(req)
		if err != nil || resp.StatusCode != 200 || w.rs.bodies[1] != "xyz" {
			t.Fatal(err, w.rs.bodies)
		}
		resp.Body.Close()
	})
	t.Run("CLI-01 concurrent calls share one sign-in", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if code, _, err := w.call(t, h, callBody("list")); code != 200 {
					t.Error(code, err)
				}
			})
		}
		wg.Wait()
		if w.opened() != 1 {
			t.Error(w.opened())
		}
	})
	t.Run("CLI-12 a resource that refuses even a fresh token gets its answer through", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.token = func(m map[string]any) { m["access_token"] = "useless" }
		code, _, err := w.call(t, w.c.HTTPClient(w.target()), callBody("list"))
		if code != 401 || err != nil || w.opened() != 1 {
			t.Error(code, err, w.opened())
		}
	})
	t.Run("CLI-14 an application that signs in by itself calls with what it put into the store", func(t *testing.T) {
		store := NewMemoryStore()
		w := newWorld(t, func(c *Config) {
			c.Store, c.Open = store, func(string) error { return errors.New("a server has no browser") }
		})
		h := w.c.HTTPClient(w.target())
		if _, _, err := w.call(t, h, callBody("list")); err == nil {
			t.Error("somebody was signed in")
		}
		f := begin(t, w)
		g, err := f.Finish(t.Context(), visit(t, w, f).Encode())
		if err != nil {
			t.Fatal(err)
		}
		_ = store.Update(t.Context(), w.target(), func(*Grant) (*Grant, error) { return g, nil })
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Error(code, err)
		}
	})
	t.Run("CLI-12 a resource that refuses every token does not open a browser for every call", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.token = func(m map[string]any) { m["access_token"] = "useless" }
		h := w.c.HTTPClient(w.target())
		for range 6 {
			if code, _, err := w.call(t, h, callBody("list")); code != 401 || err != nil {
				t.Error(code, err)
			}
		}
		if w.opened() != maxSignIns {
			t.Errorf("%d sign-ins", w.opened())
		}
		w.as.with(func() { w.as.token = nil })
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Error("the user's own sign-in does not help:", code, err)
		}
		w.as.with(func() { clear(w.as.access); clear(w.as.refresh) })
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Error("success did not forget the failures:", code, err)
		}
	})
	t.Run("CLI-09 a sign-in that fails is the caller's error", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.answer = func(q url.Values) { q.Set("iss", "https://evil.test") }
		if _, _, err := w.call(t, w.c.HTTPClient(w.target()), callBody("list")); !errors.Is(err, ErrMismatch) {
			t.Error(err)
		}
	})
	t.Run("CLI-01 who gives up waiting does not hang behind another's sign-in", func(t *testing.T) {
		w := newWorld(t, nil)
		unlock, err := w.c.lock(t.Context(), w.target())
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.c.lock(ctx, w.target()); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestStepUp(t *testing.T) {
	needs := func(m map[string]string) func(*http.Request, string) string {
		return func(_ *http.Request, body string) string {
			for tool, scope := range m {
				if strings.Contains(body, `"`+tool+`"`) {
					return scope
				}
			}
			return "read"
		}
	}
	t.Run("CLI-12 the union of what was asked before and what is challenged", func(t *testing.T) {
		w := newWorld(t, nil)
		w.rs.needs = needs(map[string]string{"create": "write", "purge": "admin"})
		h := w.c.HTTPClient(w.target())
		for _, tool := range []string{"list", "create", "purge", "create"} {
			if code, _, err := w.call(t, h, callBody(tool)); code != 200 {
				t.Fatal(tool, code, err)
			}
		}
		var got []string
		for _, q := range w.as.asked {
			got = append(got, q.Get("scope"))
		}
		if s := strings.Join(got, ", "); s != "read, read write, read write admin" {
			t.Error(s)
		}
	})
	t.Run("CLI-12 what was asked before survives a lost grant", func(t *testing.T) {
		w := newWorld(t, nil)
		w.rs.needs = needs(map[string]string{"create": "write"})
		h := w.c.HTTPClient(w.target())
		if code, _, err := w.call(t, h, callBody("create")); code != 200 {
			t.Fatal(err)
		}
		w.as.with(func() { clear(w.as.access); clear(w.as.refresh) })
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Fatal(err)
		}
		if s := w.as.asked[len(w.as.asked)-1].Get("scope"); s != "read write" {
			t.Error(s)
		}
	})
	t.Run("CLI-12 a user who does not agree is asked twice for an operation and then left alone", func(t *testing.T) {
		w := newWorld(t, nil)
		w.rs.needs = needs(map[string]string{"create": "write", "purge": "admin"})
		w.as.grant = func(string) string { return "read" }
		h := w.c.HTTPClient(w.target())
		for range 5 {
			if code, _, err := w.call(t, h, callBody("create")); code != 403 || err != nil {
				t.Fatal(code, err)
			}
		}
		if w.opened() != 1+maxStepUps {
			t.Errorf("%d sign-ins", w.opened())
		}
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Error("another operation suffers:", err)
		}
		_, _, _ = w.call(t, h, callBody("purge"))
		if w.opened() != 1+2*maxStepUps {
			t.Errorf("%d sign-ins after another operation", w.opened())
		}
	})
	t.Run("attack RS-12: a server that keeps asking for more", func(t *testing.T) {
		w := newWorld(t, nil)
		n := 0
		w.rs.needs = func(*http.Request, string) string { n++; return fmt.Sprint("read more", n) }
		h := w.c.HTTPClient(w.target())
		for range 4 {
			if code, _, err := w.call(t, h, callBody("list")); code != 403 || err != nil {
				t.Fatal(code, err)
			}
		}
		if w.opened() > 1+maxStepUps {
			t.Errorf("%d sign-ins", w.opened())
		}
	})
	t.Run("CLI-12 a refusal that names nothing new is the answer", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		if code, _, _ := w.call(t, h, callBody("list")); code != 200 {
			t.Fatal(code)
		}
		g, _ := w.c.cfg.Store.Load(t.Context(), w.target())
		for _, header := range []string{`Bearer error="insufficient_scope", scope="read"`, `Bearer error="insufficient_scope"`, `Bearer error="insufficient_scope", scope="\""`} {
			resp := &http.Response{StatusCode: 403, Header: http.Header{"Www-Authenticate": {header}}}
			if next, err := w.c.stepUp(t.Context(), w.target(), g, tokenChallenge(resp), "op"); next != nil || err != nil {
				t.Error(header, next, err)
			}
		}
		if w.opened() != 1 {
			t.Error(w.opened())
		}
	})
	t.Run("CLI-12 success forgets earlier failures; memory is bounded", func(t *testing.T) {
		w := newWorld(t, nil)
		for range maxStepUps {
			if !w.c.mayStepUp("r op") {
				t.Fatal("too few")
			}
		}
		if w.c.mayStepUp("r op") {
			t.Error("too many")
		}
		w.c.helped("r", func() string { return "op" })
		if !w.c.mayStepUp("r op") {
			t.Error("not forgotten")
		}
		for n := range 2 * maxStepped {
			w.c.mayStepUp(fmt.Sprint(n))
		}
		if len(w.c.stepped) > maxStepped {
			t.Error(len(w.c.stepped))
		}
	})
}

func TestRefresh(t *testing.T) {
	t.Run("CLI-08, CLI-20 an expiring token is replaced without the user, and the refresh token with it", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Fatal(err)
		}
		before, _ := w.c.cfg.Store.Load(t.Context(), w.target())
		w.advance(9*time.Minute + 45*time.Second)
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Fatal(err)
		}
		after, _ := w.c.cfg.Store.Load(t.Context(), w.target())
		if w.opened() != 1 || before.AccessToken == after.AccessToken || before.RefreshToken == after.RefreshToken {
			t.Error(w.opened(), before, after)
		}
		f := w.as.posted[1]
		if f.Get("grant_type") != "refresh_token" || f.Get("resource") != w.target() || f.Get("client_id") != appID || w.as.auth[1] != "" {
			t.Error(f)
		}
	})
	t.Run("CLI-20 a token that the resource refuses is refreshed first", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		w.as.with(func() { clear(w.as.access) })
		if code, _, err := w.call(t, h, callBody("list")); code != 200 || w.opened() != 1 {
			t.Error(code, err, w.opened())
		}
	})
	t.Run("CLI-20 invalid_grant: the user signs in again", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		w.as.with(func() { clear(w.as.refresh) })
		w.advance(time.Hour)
		if code, _, err := w.call(t, h, callBody("list")); code != 200 || w.opened() != 2 {
			t.Error(code, err, w.opened())
		}
	})
	t.Run("CLI-20 without a refresh token: the user signs in again", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.token = func(m map[string]any) { delete(m, "refresh_token") }
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		w.advance(time.Hour)
		if code, _, err := w.call(t, h, callBody("list")); code != 200 || w.opened() != 2 {
			t.Error(code, err, w.opened())
		}
	})
	t.Run("CLI-20 a server that does not rotate: the old refresh token stays", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		before, _ := w.c.cfg.Store.Load(t.Context(), w.target())
		w.as.with(func() { w.as.token = func(m map[string]any) { delete(m, "refresh_token") } })
		w.advance(time.Hour)
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Fatal(err)
		}
		after, _ := w.c.cfg.Store.Load(t.Context(), w.target())
		if after.RefreshToken != before.RefreshToken || after.AccessToken == before.AccessToken {
			t.Error(before, after)
		}
	})
	t.Run("CLI-20 a failing server: the token is used while it lasts, and the grant is kept", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		w.as.with(func() { w.as.refuse = "server_error" })
		w.advance(9*time.Minute + 45*time.Second)
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Error(err)
		}
		w.advance(time.Minute)
		if _, _, err := w.call(t, h, callBody("list")); err == nil {
			t.Error("an expired token was used")
		}
		w.as.with(func() { w.as.refuse = "" })
		if code, _, err := w.call(t, h, callBody("list")); code != 200 || w.opened() != 1 {
			t.Error(code, err, w.opened())
		}
	})
	t.Run("CLI-20 a caller who leaves during a refresh does not lose the rotated token", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		w.advance(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		w.as.token = func(map[string]any) { cancel() } // the old token is spent, the answer is not out yet
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, w.target(), strings.NewReader(callBody("list")))
		if resp, err := h.Do(req); err == nil {
			resp.Body.Close()
		}
		w.as.with(func() { w.as.token = nil })
		if code, _, err := w.call(t, h, callBody("list")); code != 200 || w.opened() != 1 {
			t.Error(code, err, w.opened())
		}
	})
	t.Run("CLI-20 a caller who leaves during a refresh does not wait for it", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		w.advance(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		w.as.token = func(map[string]any) { cancel(); <-left }
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, w.target(), strings.NewReader(callBody("list")))
		_, err := h.Do(req)
		close(left)
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("CLI-13 a grant that another program put there meanwhile is not used under its name", func(t *testing.T) {
		other := Grant{ClientID: "https://other.test/c", AccessToken: "theirs"}
		w := newWorld(t, func(c *Config) { c.Store = swapped{NewMemoryStore(), other} })
		_, _ = w.c.SignIn(t.Context(), w.target())
		w.advance(time.Hour)
		if g, err := w.c.current(t.Context(), w.target(), ""); g != nil || err != nil {
			t.Error(g, err)
		}
	})
	t.Run("CLI-20 16 callers spend a refresh token once", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		w.advance(time.Hour)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if code, _, err := w.call(t, h, callBody("list")); code != 200 {
					t.Error(code, err)
				}
			})
		}
		wg.Wait()
		if len(w.as.posted) != 2 || w.opened() != 1 {
			t.Errorf("%d token requests, %d sign-ins", len(w.as.posted), w.opened())
		}
	})
	t.Run("CLI-13 the resource moves to another authorization server: nothing of the old one goes there", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		old, _ := w.c.cfg.Store.Load(t.Context(), w.target())
		next := newAS(t)
		w.rs.with(func() { w.rs.as, w.rs.meta.AuthorizationServers = next, []string{next.URL} })
		if code, _, err := w.call(t, h, callBody("list")); code != 200 {
			t.Fatal(code, err)
		}
		for _, f := range next.posted {
			if f.Get("refresh_token") != "" {
				t.Error("the old refresh token was sent to the new server")
			}
		}
		now, _ := w.c.cfg.Store.Load(t.Context(), w.target())
		if now.Issuer != next.URL || old.Issuer == now.Issuer {
			t.Error(now)
		}
	})
	t.Run("CLI-13 what was asked at one authorization server is not asked at another", func(t *testing.T) {
		var asks []Ask
		w := newWorld(t, func(c *Config) {
			c.Confirm = func(_ context.Context, a Ask) error { asks = append(asks, a); return nil }
		})
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		next := newAS(t)
		w.rs.with(func() {
			w.rs.meta.AuthorizationServers = []string{next.URL}
			w.rs.needs = func(*http.Request, string) string { return "write" }
		})
		_, _, _ = w.call(t, h, callBody("create"))
		if len(asks) < 2 || asks[1].Issuer != next.URL || asks[1].Scopes.String() != "write" || asks[1].New.String() != "write" {
			t.Errorf("%+v", asks)
		}
		w.rs.with(func() { w.rs.as, w.rs.needs = next, nil })
		next.with(func() { clear(next.access); clear(next.refresh) })
		third := newAS(t)
		w.rs.with(func() { w.rs.as, w.rs.meta.AuthorizationServers = third, []string{third.URL} })
		_, _, _ = w.call(t, h, callBody("list"))
		if last := asks[len(asks)-1]; last.Issuer != third.URL || last.Scopes.String() != "read" || last.New.String() != "read" {
			t.Errorf("%+v", last)
		}
	})
	t.Run("CLI-13 a grant under another client_id is not used", func(t *testing.T) {
		w := newWorld(t, nil)
		h := w.c.HTTPClient(w.target())
		_, _, _ = w.call(t, h, callBody("list"))
		_ = w.c.cfg.Store.Update(t.Context(), w.target(), func(g *Grant) (*Grant, error) { g.ClientID = "https://other.test/c"; return g, nil })
		if code, _, _ := w.call(t, h, callBody("list")); code != 200 {
			t.Error(code)
		}
		if g, _ := w.c.cfg.Store.Load(t.Context(), w.target()); g.ClientID != appID {
			t.Error(g.ClientID)
		}
	})
	t.Run("CLI-20 a TokenSource for x/oauth2 signs in, reuses and refreshes", func(t *testing.T) {
		w := newWorld(t, nil)
		src := w.c.TokenSource(t.Context(), w.target())
		first, err := src.Token()
		if err != nil || first.TokenType != "Bearer" || first.RefreshToken != "" || !first.Expiry.Equal(w.now.Add(10*time.Minute)) {
			t.Fatalf("%v", err)
		}
		if again, err := src.Token(); err != nil || again.AccessToken != first.AccessToken {
			t.Error(err)
		}
		w.advance(time.Hour)
		if next, err := src.Token(); err != nil || next.AccessToken == first.AccessToken || w.opened() != 1 {
			t.Error(err, w.opened())
		}
	})
}

// swapped is a store in which another program is a moment faster.
type swapped struct {
	Store
	other Grant
}

func (s swapped) Update(ctx context.Context, key string, change func(*Grant) (*Grant, error)) error {
	return s.Store.Update(ctx, key, func(old *Grant) (*Grant, error) {
		if old != nil {
			old = &s.other
		}
		return change(old)
	})
}
