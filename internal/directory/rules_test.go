package directory_test

import (
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

func checked(t *testing.T, set *policy.Set) *policy.Set {
	t.Helper()
	if err := set.Check(); err != nil {
		t.Fatal(err)
	}
	return set
}

func TestRulesFollowAReload(t *testing.T) {
	h := open(t)
	next := h.net.Host("next.test").ServeClient("/mcp", nil)
	if _, err := h.dir.Find(t.Context(), next, true); err != nil {
		t.Fatal(err)
	}
	set := checked(t, &policy.Set{Default: policy.Allow, Resources: []policy.Resource{
		{ID: resource, Name: "Tools"}, {ID: next, Name: "Next", Aliases: []string{"https://alias.test/mcp"}},
	}})
	h.dir.SetPolicy(set)
	for _, c := range []struct{ name, id string }{
		{"a resource that came with a reload", next},
		{"the alias of a resource", "https://alias.test/mcp"},
		{"another spelling of a resource", "https://NEXT.test/mcp/"},
	} {
		t.Run("URL-14 "+c.name+" is no client", func(t *testing.T) {
			before := len(h.net.Dials())
			_, err := h.dir.Find(t.Context(), c.id, true)
			if status, e := status(t, err); status != 400 || e.Rule != "URL-14" || len(h.net.Dials()) != before {
				t.Errorf("got %d %v", status, e)
			}
		})
	}
	t.Run("POL-05 a client comes with the policy that judged it, whole", func(t *testing.T) {
		c, err := h.dir.Find(t.Context(), h.net.Host("good.test").ServeClient("/c.json", nil), true)
		if err != nil || c.Policy != set {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

func TestRulesAboutRegisteredClients(t *testing.T) {
	h := open(t,
		policy.Rule{Client: "waits", Action: policy.Ask},
		policy.Rule{Client: "refused", Action: policy.Deny},
		policy.Rule{Host: "held.test", Action: policy.Deny},
	)
	for _, c := range []struct {
		name, id string
		code     oauth.Code
	}{
		{"POL-01 a rule that says ask holds a registered client back too", "waits", oauth.AccessDenied},
		{"POL-01 a rule that says deny refuses a registered client", "refused", oauth.UnauthorizedClient},
		{"POL-01 a rule about a host reaches a client that was registered under a URL", "https://held.test/c.json", oauth.UnauthorizedClient},
		{"POL-01 the default speaks about strangers only", "free", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			row := store.Client{ID: c.id, Source: directory.SourceRegistered, State: directory.StateAllowed, RedirectURIs: []string{"https://good.test/cb"},
				GrantTypes: []string{"authorization_code"}, AuthMethods: []string{oauth.MethodSecretBasic}}
			if err := h.store.RegisterClient(t.Context(), row, time.Now()); err != nil {
				t.Fatal(err)
			}
			found, err := h.dir.Find(t.Context(), c.id, true)
			if c.code == "" {
				if err != nil || found.Decision.Action != policy.Allow {
					t.Errorf("got %+v, %v", found, err)
				}
				return
			}
			if status, e := status(t, err); status != 403 || e.Code != c.code {
				t.Errorf("got %d %v", status, e)
			}
		})
	}
}

func TestAStoredDocumentUnderStricterRules(t *testing.T) {
	h := open(t)
	id := h.net.Host("good.test").ServeClient("/c.json", nil)
	c, err := h.dir.Find(t.Context(), id, true)
	if err != nil {
		t.Fatal(err)
	}
	h.agree(t, c)
	cfg := h.net.Config()
	cfg.URL.AllowTestNames = false
	d, err := directory.New(directory.Config{Store: h.store, Policy: checked(t, &policy.Set{Default: policy.Allow}), CIMD: cfg, Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Resolver().Close()
	t.Run("TOK-16 a client_id that the rules no longer accept is a refusal and not a failure of ours", func(t *testing.T) {
		if _, err := d.Stored(t.Context(), id); oauth.AsError(err).Code != oauth.InvalidClient {
			t.Errorf("got %v", err)
		}
	})
}

func TestAClientBlockedBeforeItWasUsed(t *testing.T) {
	h := open(t)
	const id = "https://good.test/c.json"
	for _, state := range []string{directory.StateBlocked, directory.StateAllowed} {
		if err := h.store.SetClientState(t.Context(), id, state, "test", time.Now()); err != nil {
			t.Fatal(err)
		}
		t.Run("REV-06, URL-15 it has no document, which is no failure of ours: "+state, func(t *testing.T) {
			if _, err := h.dir.Stored(t.Context(), id); oauth.AsError(err).Code != oauth.InvalidClient {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("CONS-11 nobody has agreed to it yet", func(t *testing.T) {
		h.net.Host("good.test").ServeClient("/c.json", nil)
		c, err := h.dir.Find(t.Context(), id, true)
		if err != nil || !c.FirstSeen {
			t.Fatalf("%+v, %v", c, err)
		}
		h.agree(t, c)
		if c, err = h.dir.Find(t.Context(), id, true); err != nil || c.FirstSeen {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

func TestMethodsUnderFAPI(t *testing.T) {
	t.Run("POL-09 of the methods of a client only keys and certificates are left", func(t *testing.T) {
		h := open(t, policy.Rule{Client: "bank", Action: policy.Allow, FAPI: true})
		row := store.Client{ID: "bank", Source: directory.SourceRegistered, State: directory.StateAllowed, RedirectURIs: []string{"https://good.test/cb"},
			GrantTypes: []string{"authorization_code"}, AuthMethods: []string{oauth.MethodPrivateKeyJWT, oauth.MethodSecretBasic, oauth.MethodNone}}
		if err := h.store.RegisterClient(t.Context(), row, time.Now()); err != nil {
			t.Fatal(err)
		}
		c, err := h.dir.Find(t.Context(), "bank", true)
		if err != nil || len(c.AuthMethods) != 1 || c.AuthMethods[0] != oauth.MethodPrivateKeyJWT {
			t.Errorf("%v, %v", c.AuthMethods, err)
		}
	})
}
