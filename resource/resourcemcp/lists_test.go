package resourcemcp_test

import (
	"slices"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bonafide-id/bonafide/resource"
	"github.com/bonafide-id/bonafide/resource/resourcemcp"
)

// names lists the tools that a token sees, and for whom the list may be kept.
func (w *world) names(t *testing.T, scope string) ([]string, string) {
	t.Helper()
	var b bearer
	token := w.token(t, "john", scope)
	b.token.Store(&token)
	res, err := w.connect(t, &b).ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, tool := range res.Tools {
		out = append(out, tool.Name)
	}
	return out, res.CacheScope
}

func TestListsOfTools(t *testing.T) {
	for _, c := range []struct {
		name, scope string
		hide        bool
		want        []string
		private     bool
	}{
		{"RS-20 all tools, so that a client can ask for more", "mcp:read", false, []string{"create", "whoami"}, false},
		{"RS-20 those that the token covers, and no cache shares the list", "mcp:read", true, []string{"whoami"}, true},
		{"RS-20 all of them for a token that covers all", "mcp:read mcp:write", true, []string{"create", "whoami"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorldWith(t, &mcp.StreamableHTTPOptions{Stateless: true}, nil, func(cfg *resource.Config) { cfg.HideTools = c.hide })
			for range 3 { // the same order each time, whoever asked before
				got, cache := w.names(t, c.scope)
				if !slices.Equal(got, c.want) || (cache == "private") != c.private {
					t.Errorf("got %v (%s), want %v", got, cache, c.want)
				}
				w.names(t, "mcp:read mcp:write")
			}
		})
	}
}

func TestAdvertise(t *testing.T) {
	t.Run("RS-30 the capabilities name the extensions", func(t *testing.T) {
		var o mcp.ServerOptions
		resourcemcp.Advertise(&o, resourcemcp.ClientCredentials, resourcemcp.EnterpriseManaged)
		w := newWorldWith(t, &mcp.StreamableHTTPOptions{Stateless: true}, &o, func(*resource.Config) {})
		var b bearer
		token := w.token(t, "john", "mcp:read")
		b.token.Store(&token)
		caps := w.connect(t, &b).InitializeResult().Capabilities
		for _, name := range []string{"io.modelcontextprotocol/oauth-client-credentials", "io.modelcontextprotocol/enterprise-managed-authorization"} {
			if _, ok := caps.Extensions[name]; !ok {
				t.Errorf("%s is missing: %v", name, caps.Extensions)
			}
		}
		if caps.Tools == nil || caps.Logging == nil { //nolint:staticcheck // what the SDK says of itself where nothing is set
			t.Errorf("what is there otherwise is gone: %+v", caps)
		}
	})
	t.Run("RS-30 what a server has set stays", func(t *testing.T) {
		o := mcp.ServerOptions{Capabilities: &mcp.ServerCapabilities{}}
		resourcemcp.Advertise(&o, resourcemcp.ClientCredentials)
		if o.Capabilities.Logging != nil || //nolint:staticcheck // what was set stays
			len(o.Capabilities.Extensions) != 1 {
			t.Errorf("%+v", o.Capabilities)
		}
	})
}

func TestStrengthBehindTheGuard(t *testing.T) {
	t.Run("RS-22 the second decision is as strict", func(t *testing.T) {
		w := newWorldWith(t, &mcp.StreamableHTTPOptions{Stateless: true}, nil, func(cfg *resource.Config) {
			cfg.Strength = map[string]resource.Strength{"create": {MaxAge: time.Minute}}
		})
		var b bearer
		token := w.token(t, "john", "mcp:read mcp:write")
		b.token.Store(&token)
		s := w.connect(t, &b)
		if _, err := call(t, s, "whoami"); err != nil {
			t.Error(err)
		}
		if _, err := call(t, s, "create"); err == nil || w.created.Load() != 0 {
			t.Errorf("%v, %d were created", err, w.created.Load())
		}
	})
}

func TestServersOnStandardInput(t *testing.T) {
	t.Run("RS-31 what did not come over HTTP past the guard calls no tool", func(t *testing.T) {
		w := newWorld(t, &mcp.StreamableHTTPOptions{Stateless: true})
		here, there := mcp.NewInMemoryTransports()
		served, err := w.server.Connect(t.Context(), there, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer served.Close()
		s, err := mcp.NewClient(&mcp.Implementation{Name: "test"}, nil).Connect(t.Context(), here, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := call(t, s, "create"); err == nil || w.created.Load() != 0 {
			t.Errorf("%v, %d were created", err, w.created.Load())
		}
	})
}
