package client

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/oauth"
)

func TestDiscover(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*world)
		want   string // part of the error; "" is success
		wraps  error
	}{
		{"CLI-01 several challenges in one header, and the metadata it points to", func(*world) {}, "", nil},
		{"CLI-01 the challenge points elsewhere on the same origin", func(w *world) { w.rs.at = "/elsewhere" }, "", nil},
		{"CLI-01 no challenge: the path-inserted place", func(w *world) { w.rs.challenge = "-" }, "", nil},
		{"CLI-01 a challenge that cannot be read counts as none", func(w *world) { w.rs.challenge = `Bearer realm="unfinished` }, "", nil},
		{"CLI-01 no challenge and nothing there: the root", func(w *world) {
			w.rs.challenge, w.rs.at = "-", "/.well-known/oauth-protected-resource"
		}, "", nil},
		{"CLI-01, CLI-02 the root may speak for the whole host", func(w *world) {
			w.rs.challenge, w.rs.at, w.rs.meta.Resource = "-", "/.well-known/oauth-protected-resource", w.rs.URL
		}, "", nil},
		{"CLI-01 nothing anywhere", func(w *world) { w.rs.challenge, w.rs.at = "-", "/nowhere" }, "404", nil},
		{"CLI-02, attack RS-13: metadata about another resource", func(w *world) { w.rs.meta.Resource = "https://other.test/mcp" }, "not about", ErrMismatch},
		{"CLI-02, attack RS-13: metadata about the parent", func(w *world) { w.rs.meta.Resource = w.rs.URL }, "not about", ErrMismatch},
		{"CLI-02, attack RS-13: one slash more", func(w *world) { w.rs.meta.Resource += "/" }, "not about", ErrMismatch},
		{"attack RS-13: the challenge points to another origin", func(w *world) {
			w.rs.challenge = `Bearer resource_metadata="https://evil.test/.well-known/oauth-protected-resource/mcp"`
		}, "is not on", ErrMismatch},
		{"attack RS-13: an authorization server over http", func(w *world) {
			w.rs.meta.AuthorizationServers = []string{"http://as.test"}
		}, "https", nil},
		{"attack RS-13: one of several authorization servers over http", func(w *world) {
			w.rs.meta.AuthorizationServers = append(w.rs.meta.AuthorizationServers, "http://as.test")
		}, "https", nil},
		{"CLI-01 no authorization server", func(w *world) { w.rs.meta.AuthorizationServers = nil }, "no authorization server", nil},
		{"CLI-04 an issuer that differs", func(w *world) { w.as.meta.Issuer = "https://evil.test" }, "names the issuer", ErrMismatch},
		{"CLI-04 an issuer with one slash more", func(w *world) { w.as.meta.Issuer += "/" }, "names the issuer", ErrMismatch},
		{"CLI-05 no PKCE advertised", func(w *world) { w.as.meta.CodeChallengeMethodsSupported = nil }, "PKCE", nil},
		{"CLI-05 plain PKCE only", func(w *world) { w.as.meta.CodeChallengeMethodsSupported = []string{"plain"} }, "PKCE", nil},
		{"CLI-06 no client documents: an error that says so", func(w *world) { w.as.meta.ClientIDMetadataDocument = false }, "does not accept client documents", ErrNotAccepted},
		{"CLI-19, attack HO-13: an authorization endpoint that is a file", func(w *world) { w.as.meta.AuthorizationEndpoint = "file:///c:/windows/system32/calc.exe" }, "authorization_endpoint", nil},
		{"CLI-19, attack HO-13: javascript", func(w *world) { w.as.meta.AuthorizationEndpoint = "javascript:alert(1)" }, "authorization_endpoint", nil},
		{"CLI-19, attack HO-13: an option", func(w *world) { w.as.meta.AuthorizationEndpoint = "--upload-pack=x" }, "authorization_endpoint", nil},
		{"CLI-23 a token endpoint over http", func(w *world) { w.as.meta.TokenEndpoint = "http://as.test/token" }, "token_endpoint", nil},
		{"CLI-03 the metadata is nowhere", func(w *world) { w.as.at = "/nowhere" }, "404", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			tc.change(w)
			s, err := w.c.Discover(t.Context(), w.target())
			if tc.want == "" {
				if err != nil || s.Issuer != w.as.URL || s.Resource != w.rs.meta.Resource || s.ClientID != appID {
					t.Fatalf("%+v, %v", s, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || tc.wraps != nil && !errors.Is(err, tc.wraps) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// A document on this computer is for servers on this computer.
func TestDocumentOnThisComputer(t *testing.T) {
	c, err := New(Config{ID: "http://127.0.0.1:9000/client.json"})
	if err != nil {
		t.Fatal(err)
	}
	for issuer, ok := range map[string]bool{
		"http://localhost:8080": true, "https://127.0.0.1:8443": true, "https://10.0.0.8": true,
		"https://auth.example.com": false, "https://localhost.example.com": false, "https://93.184.216.34": false,
	} {
		t.Run("CLI-06 a document on this computer and the server "+issuer, func(t *testing.T) {
			id, err := c.clientID(t.Context(), &oauth.ServerMetadata{Issuer: issuer, ClientIDMetadataDocument: true})
			if ok && (err != nil || id != "http://127.0.0.1:9000/client.json") {
				t.Errorf("client_id %q, %v", id, err)
			}
			if !ok && (!errors.Is(err, ErrNotAccepted) || !strings.Contains(err.Error(), "on this computer")) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestDiscoverOrder(t *testing.T) {
	places := []string{
		"/.well-known/oauth-authorization-server/tenant",
		"/.well-known/openid-configuration/tenant",
		"/tenant/.well-known/openid-configuration",
	}
	for n := range places {
		t.Run("CLI-03 an issuer with a path is asked at three places in order", func(t *testing.T) {
			w := newWorld(t, nil)
			w.as.at, w.as.meta.Issuer = places[n], w.as.URL+"/tenant"
			w.rs.meta.AuthorizationServers = []string{w.as.URL + "/tenant"}
			if _, err := w.c.Discover(t.Context(), w.target()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(places[:n+1], w.as.places); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("CLI-03 an issuer without a path at two", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.at = "/.well-known/openid-configuration"
		if _, err := w.c.Discover(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"}, w.as.places); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("CLI-06 a server that knows the client comes first, under the name it knows", func(t *testing.T) {
		w := newWorld(t, nil)
		other := newAS(t)
		other.meta.ClientIDMetadataDocument = false
		w.rs.meta.AuthorizationServers = []string{w.as.URL, other.URL}
		w.c.cfg.Registered = map[string]string{other.URL: "registered-7"}
		s, err := w.c.Discover(t.Context(), w.target())
		if err != nil || s.Issuer != other.URL || s.ClientID != "registered-7" {
			t.Errorf("%+v, %v", s, err)
		}
	})
	t.Run("CLI-06 a server that does not take the client is passed over", func(t *testing.T) {
		w := newWorld(t, nil)
		other := newAS(t)
		other.meta.ClientIDMetadataDocument = false
		w.rs.meta.AuthorizationServers = []string{other.URL, w.as.URL}
		s, err := w.c.Discover(t.Context(), w.target())
		if err != nil || s.Issuer != w.as.URL {
			t.Errorf("%+v, %v", s, err)
		}
	})
	t.Run("CLI-11 first scopes: the challenge's, else the listed ones, else none", func(t *testing.T) {
		w := newWorld(t, nil)
		w.rs.meta.ScopesSupported = []string{"read", "more"}
		first := func() string {
			s, err := w.c.Discover(t.Context(), w.target())
			if err != nil {
				t.Fatal(err)
			}
			return s.Scopes.String()
		}
		if got := first(); got != "read" {
			t.Errorf("with a challenge: %q", got)
		}
		w.rs.challenge = "-"
		if got := first(); got != "read more" {
			t.Errorf("without: %q", got)
		}
		w.rs.meta.ScopesSupported = nil
		if got := first(); got != "" {
			t.Errorf("without both: %q", got)
		}
	})
	t.Run("CLI-21 offline_access only where the server lists it", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.meta.ScopesSupported = []string{"offline_access"}
		s, err := w.c.Discover(t.Context(), w.target())
		if err != nil || s.Scopes.String() != "read offline_access" {
			t.Errorf("%+v, %v", s, err)
		}
	})
	t.Run("CLI-21 whoever else names it: the caller, the resource, a challenge", func(t *testing.T) {
		w := newWorld(t, nil)
		w.rs.meta.ScopesSupported = []string{"read", "offline_access"}
		w.rs.challenge = `Bearer scope="read offline_access"`
		for _, extra := range [][]string{nil, {"offline_access"}} {
			if _, err := w.c.SignIn(t.Context(), w.target(), extra...); err != nil {
				t.Fatal(err)
			}
		}
		s, err := w.c.Discover(t.Context(), w.target())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.c.Begin(t.Context(), s, redirectURI, oauth.Scopes{"read", "offline_access"}); err != nil {
			t.Fatal(err)
		}
		for _, q := range w.as.asked {
			if q.Get("scope") != "read" {
				t.Error(q.Get("scope"))
			}
		}
	})
}

func TestAddresses(t *testing.T) {
	t.Run("CLI-23 an internal authorization server that the configuration knows", func(t *testing.T) {
		const as = "https://login.corp.internal"
		rm := &oauth.ResourceMetadata{AuthorizationServers: []string{as}}
		for id, ok := range map[string]bool{"": false, "registered-7": true} {
			w := newWorld(t, func(c *Config) { c.Registered = map[string]string{as: id} })
			if _, err := w.c.candidates("https://mcp.test/mcp", rm); ok != (err == nil) {
				t.Errorf("%q: %v", id, err)
			}
		}
	})
	t.Run("CLI-08 one spelling of a resource", func(t *testing.T) {
		for in, want := range map[string]string{
			"https://MCP.test/Path":       "https://mcp.test/Path",
			"HTTPS://mcp.test":            "https://mcp.test",
			"https://mcp.test/mcp#part":   "https://mcp.test/mcp",
			"https://mcp.test:8443/a?b=C": "https://mcp.test:8443/a?b=C",
			"https://mcp.test/":           "https://mcp.test/",
			"http://localhost:8081/mcp":   "http://localhost:8081/mcp",
		} {
			if got, err := canonical(in); err != nil || got != want {
				t.Errorf("%s: %s, %v", in, got, err)
			}
		}
		for _, in := range []string{"mcp.test", "http://mcp.test/mcp", "ftp://mcp.test", "https://u@mcp.test/", "https:///x", "::"} {
			if got, err := canonical(in); err == nil {
				t.Errorf("%s became %s", in, got)
			}
		}
	})
	t.Run("CLI-23, attack RS-13: an authorization server inside a network that the resource is outside of", func(t *testing.T) {
		const public, internal, dev = "https://mcp.test/mcp", "https://10.0.0.5/mcp", "http://127.0.0.1:8081/mcp"
		for _, tc := range []struct {
			target, as string
			ok         bool
		}{
			{public, "https://as.test", true},
			{public, "https://8.8.8.8", true},
			{public, "https://127.0.0.1", false},
			{public, "https://[::1]", false},
			{public, "https://[::ffff:10.0.0.1]", false},
			{public, "https://10.1.2.3", false},
			{public, "https://169.254.169.254", false},
			{public, "https://localhost", false},
			{public, "https://login.corp.internal", false},
			{public, "https://printer.local.", false},
			{public, "https://intranet", false},
			{public, "https://100.100.100.200", false},
			{public, "https://192.0.0.192", false},
			{public, "https://168.63.129.16", false},
			{public, "https://[64:ff9b::a9fe:a9fe]", false},
			{public, "https://[2002:7f00:1::]", false},
			{public, "https://[::1%25lo]", false},
			{public, "https://127.1", false},
			{public, "https://0177.0.0.1", false},
			{public, "https://0x7f.0x1", false},
			{public, "https://login.onion", false},
			{public, "http://as.test", false},
			{public, "http://127.0.0.1:8080", false},
			{public, "https://u:p@as.test", false},
			{public, "https://as.test#f", false},
			{internal, "https://10.0.0.6", true},
			{internal, "https://login", true},
			{internal, "https://as.test", true},
			{internal, "http://10.0.0.6", false},
			{dev, "http://127.0.0.1:8080", true},
			{dev, "http://localhost:8080", true},
			{dev, "http://10.0.0.6", false},
		} {
			if err := checkEndpoint(tc.target, tc.as); tc.ok != (err == nil) {
				t.Errorf("%s for %s: %v", tc.as, tc.target, err)
			}
		}
	})
}
