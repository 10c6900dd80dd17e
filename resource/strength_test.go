package resource

import (
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

func strict(c *Config) {
	c.Strength = map[string]Strength{
		"create": {ACR: []string{"urn:gold", "urn:silver"}, MaxAge: 5 * time.Minute},
		"purge":  {MaxAge: time.Minute}, "list": {ACR: []string{"urn:bronze"}},
	}
}

func TestStrength(t *testing.T) {
	w := newWorld(t, strict)
	now := w.clock.Now()
	signedIn := func(acr any, ago time.Duration) func(map[string]any) {
		return func(c map[string]any) {
			c["scope"], c["acr"], c["auth_time"] = "mcp:admin", acr, now.Add(-ago).Unix()
			if acr == nil {
				delete(c, "acr")
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(map[string]any)
		body   string
		status int
	}{
		{"RS-22 strong and fresh", signedIn("urn:gold", time.Minute), callTool("create"), 200},
		{"RS-22 the other context", signedIn("urn:silver", 5*time.Minute), callTool("create"), 200},
		{"RS-22 another context", signedIn("urn:bronze", time.Minute), callTool("create"), 401},
		{"RS-22 no context", signedIn(nil, time.Minute), callTool("create"), 401},
		{"RS-22 a context that only begins like it", signedIn("urn:gol", time.Minute), callTool("create"), 401},
		{"RS-22 too long ago", signedIn("urn:gold", 5*time.Minute+time.Second), callTool("create"), 401},
		{"RS-22 in the future", signedIn("urn:gold", -time.Hour), callTool("create"), 401},
		{"RS-22 no auth_time", func(c map[string]any) { c["scope"], c["acr"] = "mcp:admin", "urn:gold" }, callTool("create"), 401},
		{"RS-22 age alone", signedIn(nil, time.Minute), callTool("purge"), 200},
		{"RS-22 context alone, whenever", signedIn("urn:bronze", 100*time.Hour), callTool("list"), 200},
		{"RS-22, attack RS-11: hidden in a batch", signedIn("urn:bronze", time.Minute), "[" + callTool("list") + "," + callTool("create") + "]", 401},
		{"RS-22 what is no tool call", signedIn(nil, 100*time.Hour), `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, 200},
		{"RS-12, RS-22 an acr that is no text", signedIn(7, time.Minute), callTool("create"), 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := w.ask(post(w.token(t, c.change), c.body))
			if rec.Code != c.status || (w.seen != nil) != (c.status == 200) {
				t.Errorf("got %d, %v", rec.Code, w.last.Err)
			}
		})
	}
	t.Run("RS-22, RS-08 the challenge says all that is wanted, scopes too", func(t *testing.T) {
		rec := w.ask(post(w.token(t, scope("mcp:read")), callTool("create")))
		ch := challengeOf(t, rec)
		got := []string{ch.Get("error"), ch.Get("acr_values"), ch.Get("max_age"), ch.Get("scope"), ch.Get("resource_metadata")}
		want := []string{"insufficient_user_authentication", "urn:gold urn:silver", "300", "mcp:read mcp:write", w.guard.MetadataURL()}
		if rec.Code != 401 || !slices.Equal(got, want) || w.last.Rule != "RS-22" || w.last.Tool != "create" {
			t.Errorf("%d %q, %+v", rec.Code, got, w.last)
		}
	})
	t.Run("RS-22 only what is wanted stands in it", func(t *testing.T) {
		ch := challengeOf(t, w.ask(post(w.token(t, scope("mcp:admin")), callTool("purge"))))
		if ch.Get("acr_values") != "" || ch.Get("max_age") != "60" {
			t.Errorf("%v", ch)
		}
	})
	t.Run("RS-22 a second decision says the same", func(t *testing.T) {
		for change, want := range map[string]bool{"urn:gold": true, "urn:bronze": false} {
			tok, err := w.guard.Verify(t.Context(), w.token(t, signedIn(change, time.Minute)))
			if err != nil || w.guard.Permits(tok, "create") != want || tok.ACR != change || !tok.AuthTime.Equal(now.Add(-time.Minute)) {
				t.Errorf("%s: %+v, %v", change, tok, err)
			}
		}
	})
}

func TestStrengthSettings(t *testing.T) {
	for _, c := range []struct {
		name string
		s    map[string]Strength
	}{
		{"RS-22 a tool that does not exist", map[string]Strength{"nothing": {MaxAge: time.Minute}}},
		{"RS-22 no name", map[string]Strength{"": {MaxAge: time.Minute}}},
		{"RS-22 nothing wanted", map[string]Strength{"list": {}}},
		{"RS-22 less than no time", map[string]Strength{"list": {MaxAge: -time.Second}}},
		{"RS-22 a part of a second", map[string]Strength{"list": {MaxAge: time.Millisecond}}},
		{"RS-22, RS-27 a value that breaks the challenge", map[string]Strength{"list": {ACR: []string{`a"b`}}}},
		{"RS-22, RS-27 two values in one", map[string]Strength{"list": {ACR: []string{"a b"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(newServer(t), newClock())
			cfg.Strength = c.s
			if _, err := New(cfg); err == nil {
				t.Error("it was accepted")
			}
		})
	}
	t.Run("RS-22 without tools bodies are read for it", func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			c.Tools, c.Methods, c.Strength = nil, nil, map[string]Strength{"create": {MaxAge: time.Minute}}
		})
		for tool, want := range map[string]int{"create": 401, "other": 200} {
			var rec *httptest.ResponseRecorder
			if rec = w.ask(post(w.token(t, nil), callTool(tool))); rec.Code != want {
				t.Errorf("%s: %d", tool, rec.Code)
			}
		}
	})
}

func TestListsOfTools(t *testing.T) {
	for _, c := range []struct {
		name  string
		hide  bool
		scope string
		want  []string
	}{
		{"RS-20 everything is listed, so that a client can ask for more", false, "mcp:read", []string{"create", "list", "nothing", "purge"}},
		{"RS-20 what the token does not cover is hidden", true, "mcp:read", []string{"list"}},
		{"RS-09, RS-20 a broader scope shows more", true, "mcp:write", []string{"create", "list"}},
		{"RS-20, RS-22 what lacks a sign-in only is listed", true, "mcp:admin", []string{"create", "list", "purge"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { strict(cfg); cfg.HideTools = c.hide })
			tok, err := w.guard.Verify(t.Context(), w.token(t, scope(c.scope)))
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc([]string{"create", "list", "nothing", "purge"}, func(n string) bool { return !w.guard.Shows(tok, n) })
			if !slices.Equal(got, c.want) || w.guard.HidesTools() != c.hide {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestPermits(t *testing.T) {
	t.Run("RS-21, RS-22 a call is permitted by scopes and by the sign-in, both", func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			c.Tools = map[string][]string{"pay": {"mcp:write"}}
			c.Strength = map[string]Strength{"pay": {ACR: []string{"gold"}}}
		})
		for _, c := range []struct {
			scopes oauth.Scopes
			acr    string
			want   bool
		}{{oauth.Scopes{"mcp:read", "mcp:write"}, "gold", true}, {oauth.Scopes{"mcp:read"}, "gold", false}, {oauth.Scopes{"mcp:read", "mcp:write"}, "", false}} {
			if got := w.guard.Permits(Token{Scopes: c.scopes, ACR: c.acr}, "pay"); got != c.want {
				t.Errorf("%v with %q: %v", c.scopes, c.acr, got)
			}
		}
		if w.guard.Permits(Token{Scopes: oauth.Scopes{"mcp:read", "mcp:write"}, ACR: "gold"}, "unknown") {
			t.Error("a tool that does not exist")
		}
	})
}
