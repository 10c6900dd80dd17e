package resource

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/oauth"
)

func TestMetadata(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Documentation = "https://docs.test/tracker" })
	get := func(h http.Handler, method, path string) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		r := httptest.NewRequest(method, path, nil)
		r.Host = "evil.test"
		r.Header.Set("X-Forwarded-Host", "evil.test")
		h.ServeHTTP(rec, r)
		return rec
	}
	rec := get(w.guard.MetadataHandler(), "GET", w.guard.MetadataPath())
	t.Run("RS-01, RS-03, RS-28, RS-29 what it says comes from the configuration", func(t *testing.T) {
		var got oauth.ResourceMetadata
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := oauth.ResourceMetadata{
			Resource: mcpURL, AuthorizationServers: []string{w.as.URL}, ScopesSupported: []string{"mcp:read"},
			BearerMethods: []string{"header"}, ResourceName: "Tracker", ResourceDocs: "https://docs.test/tracker",
			DPoPSigningAlgs: []string{"ES256", "PS256", "RS256", "EdDSA", "Ed25519"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("RS-02 the path is inserted after the well-known name", func(t *testing.T) {
		if p := w.guard.MetadataPath(); p != "/.well-known/oauth-protected-resource/mcp" {
			t.Error(p)
		}
		if u := w.guard.MetadataURL(); u != metadataURL {
			t.Error(u)
		}
	})
	t.Run("RS-02 a resource with a host for itself", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Resource = "https://mcp.test" })
		if p := w.guard.MetadataPath(); p != "/.well-known/oauth-protected-resource" {
			t.Error(p)
		}
	})
	t.Run("RS-04 200, JSON, open to pages, cacheable, no empty lists", func(t *testing.T) {
		h := rec.Header()
		if rec.Code != 200 || h.Get("Content-Type") != "application/json" || h.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(h.Get("Cache-Control"), "max-age=") {
			t.Error(rec.Code, h)
		}
		w := newWorld(t, func(c *Config) { c.Baseline, c.Scopes, c.Tools, c.Methods = nil, nil, nil, nil })
		if body := get(w.guard.MetadataHandler(), "GET", "/").Body.String(); strings.Contains(body, "[]") || strings.Contains(body, "null") || strings.Contains(body, "scopes_supported") {
			t.Error(body)
		}
	})
	t.Run("RS-04 HEAD, OPTIONS and nothing else", func(t *testing.T) {
		for method, want := range map[string]int{"HEAD": 200, "OPTIONS": 204, "POST": 405} {
			if rec := get(w.guard.MetadataHandler(), method, "/"); rec.Code != want {
				t.Error(method, rec.Code)
			}
		}
	})
	t.Run("RS-02, RS-15 Handler serves both places to anyone and guards the rest", func(t *testing.T) {
		h := w.guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("not guarded") }))
		for path, want := range map[string]int{
			"/.well-known/oauth-protected-resource/mcp":   200,
			"/.well-known/oauth-protected-resource":       200,
			"/.well-known/oauth-protected-resource/other": 401,
			"/mcp": 401,
		} {
			if rec := get(h, "GET", path); rec.Code != want {
				t.Error(path, rec.Code)
			}
		}
	})
}

func TestNew(t *testing.T) {
	as := newServer(t)
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string // part of the error; "" is success
	}{
		{"RS-01 a good configuration", func(*Config) {}, ""},
		{"RS-29 a resource is required", func(c *Config) { c.Resource = "" }, "absolute URL"},
		{"RS-04 http is refused", func(c *Config) { c.Resource = "http://mcp.test/mcp" }, "https"},
		{"RS-04 http on this computer is for development", func(c *Config) { c.Resource = "http://127.0.0.1:8081/mcp" }, ""},
		{"RS-03 a fragment", func(c *Config) { c.Resource += "#" }, "fragment"},
		{"RS-03 a query", func(c *Config) { c.Resource += "?a=b" }, "query"},
		{"RS-03 user information", func(c *Config) { c.Resource = "https://u@mcp.test/mcp" }, "user information"},
		{"RS-03 upper case", func(c *Config) { c.Resource = "https://MCP.test/mcp" }, "lower case"},
		{"RS-03 an upper-case scheme", func(c *Config) { c.Resource = "HTTPS://mcp.test/mcp" }, "lower case"},
		{"RS-03 the default port", func(c *Config) { c.Resource = "https://mcp.test:443/mcp" }, "port"},
		{"RS-03 dot segments", func(c *Config) { c.Resource = "https://mcp.test/a/../mcp" }, "dot"},
		{"RS-03 escapes", func(c *Config) { c.Resource = "https://mcp.test/%6dcp" }, "plain"},
		{"RS-01 an authorization server is required", func(c *Config) { c.AuthorizationServers = nil }, "at least one"},
		{"RS-10 an issuer over http", func(c *Config) { c.AuthorizationServers = []string{"http://as.test"} }, "https"},
		{"RS-10 an issuer with a query", func(c *Config) { c.AuthorizationServers = []string{"https://as.test?a"} }, "query"},
		{"RS-10 an issuer twice", func(c *Config) { c.AuthorizationServers = append(c.AuthorizationServers, as.URL) }, "twice"},
		{"RS-17 offline_access in the baseline", func(c *Config) { c.Scopes, c.Baseline = nil, []string{"offline_access"} }, "offline_access"},
		{"RS-17 offline_access in the metadata", func(c *Config) { c.Scopes, c.ScopesSupported = nil, []string{"mcp:read", "offline_access"} }, "offline_access"},
		{"RS-17 offline_access of a tool", func(c *Config) { c.Scopes, c.Tools = nil, map[string][]string{"x": {"offline_access"}} }, "offline_access"},
		{"RS-27 a scope with a quote", func(c *Config) { c.Scopes, c.Baseline = nil, []string{`a"b`} }, "not a scope"},
		{"RS-27 a scope with a space", func(c *Config) { c.Scopes, c.Baseline = nil, []string{"a b"} }, "not a scope"},
		{"RS-27 a declared scope with a backslash", func(c *Config) { c.Scopes = append(c.Scopes, Scope{Name: `a\`}) }, "not a scope"},
		{"RS-27 a slip of the pen in a tool", func(c *Config) { c.Tools = map[string][]string{"x": {"mcp:raed"}} }, "not declared"},
		{"RS-27 a slip of the pen in a method", func(c *Config) { c.Methods = map[string][]string{"x": {"mcp:raed"}} }, "not declared"},
		{"RS-27 a slip of the pen in the default", func(c *Config) { c.DefaultToolScopes = []string{"mcp:raed"} }, "not declared"},
		{"RS-09 an undeclared implication", func(c *Config) { c.Scopes = append(c.Scopes, Scope{"x", []string{"y"}}) }, "not declared"},
		{"RS-09 a circle", func(c *Config) { c.Scopes = append(c.Scopes, Scope{"x", []string{"y"}}, Scope{"y", []string{"x"}}) }, "implies itself"},
		{"RS-09 a scope twice", func(c *Config) { c.Scopes = append(c.Scopes, Scope{Name: "mcp:read"}) }, "twice"},
		{"RS-18 a tool without a name", func(c *Config) { c.Tools = map[string][]string{"": nil} }, "no name"},
		{"RS-18 tools/call as a method", func(c *Config) { c.Methods = map[string][]string{"tools/call": {}} }, "use Tools"},
		{"RS-12 an algorithm of strangers", func(c *Config) { c.Algorithms = []string{"HS256"} }, "HS256"},
		{"RS-12 no algorithm", func(c *Config) { c.Algorithms = []string{} }, "no signature algorithm"},
		{"RS-19 an origin with a path", func(c *Config) { c.Origins = []string{"https://a.test/"} }, "origin"},
		{"RS-19 any origin", func(c *Config) { c.Origins = []string{"*"} }, ""},
		{"RS-28 a documentation page over http", func(c *Config) { c.Documentation = "http://docs.test" }, "documentation"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := config(as, newClock())
			tc.change(&cfg)
			_, err := New(cfg)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
