package housetest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/client"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/bonafide-id/bonafide/resource"
)

// toolkit is our own client in a house: an application that calls a guarded MCP
// server, with a person at its browser.
type toolkit struct {
	*client.Client
	h     *House
	id    string
	steps []client.Step
	opens int
}

const appHost = "app.test"

// guarded puts a guarded MCP server at Resource.
func (h *House) guarded(d resource.DPoP) {
	h.TB.Helper()
	g, err := resource.New(resource.Config{
		Resource: Resource, AuthorizationServers: []string{Issuer}, Baseline: []string{"mcp:read"},
		Tools: map[string][]string{"search": nil, "create": {"mcp:write"}}, HTTP: h.HTTP, Now: h.Now, DPoP: d,
	})
	if err != nil {
		h.TB.Fatal(err)
	}
	mcp := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	})
	h.Net.Host("mcp.test").Handle("*", g.Handler(mcp))
}

// toolkit configures the client and publishes its document.
func (h *House) toolkit(change func(*client.Config)) *toolkit {
	h.TB.Helper()
	k := &toolkit{h: h, id: "https://" + appHost + "/c.json"}
	john := h.john()
	cfg := client.Config{ID: k.id, HTTP: h.HTTP, Now: h.Now, Trace: func(s client.Step) { k.steps = append(k.steps, s) }}
	cfg.Open = func(address string) error {
		k.opens++
		back := john.Consent(address).String()
		go func() {
			if resp, err := http.Get(back); err == nil {
				resp.Body.Close()
			}
		}()
		return nil
	}
	change(&cfg)
	var err error
	if k.Client, err = client.New(cfg); err != nil {
		h.TB.Fatal(err)
	}
	if cfg.ID != "" {
		h.Net.Host(appHost).ServeJSON("/c.json", k.Document("Toolkit"))
	}
	return k
}

// use calls a tool and fails the test unless the MCP server answered.
func (k *toolkit) use(t *testing.T, tool string) {
	t.Helper()
	resp, err := k.HTTPClient(Resource).Post(Resource, "application/json",
		strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+tool+`"}}`))
	if err != nil {
		t.Fatal(err, k.failures())
	}
	defer resp.Body.Close()
	if raw, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode, string(raw), resp.Header, k.failures())
	}
}

func (k *toolkit) failures() (out []string) {
	for _, s := range k.steps {
		if !s.OK() {
			out = append(out, s.Text+": "+s.Err.Error())
		}
	}
	return out
}

// asked counts the requests to an endpoint.
func (k *toolkit) asked(path string) (n int) {
	for _, s := range k.steps {
		if s.To == Issuer+path && s.Kind == client.StepAsk {
			n++
		}
	}
	return n
}

func ownKey(t *testing.T, alg string) client.Key {
	t.Helper()
	k, err := client.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTheToolkitAgainstTheServer(t *testing.T) {
	t.Parallel()
	const nonces = "dpop: {require_nonce: true}"
	strict := resource.DPoP{Required: true, ContentDigest: true, RequireNonce: true}
	for _, tc := range []struct {
		name   string
		server string // added to the configuration
		guard  resource.DPoP
		change func(t *testing.T, c *client.Config)
		alone  bool
	}{
		{"CLI-24: pushed, and a bearer token", "", resource.DPoP{}, func(*testing.T, *client.Config) {}, false},
		{"CLI-24, CLI-17: a key of its own, pushing demanded", "par: {required: true}", resource.DPoP{}, func(t *testing.T, c *client.Config) { c.Key = ownKey(t, "EdDSA") }, false},
		{"CLI-24: bound tokens, nonces and digests everywhere", nonces, strict, func(_ *testing.T, c *client.Config) {
			c.DPoP, c.ContentDigest = client.DPoPAlways, true
		}, false},
		{"CLI-24: a resource that takes bound tokens alone", "", resource.DPoP{Required: true}, func(*testing.T, *client.Config) {}, false},
		{"CLI-17, ATT-04, ATT-08: an attested installation, with challenges", "attestation: {require_challenge: true}", resource.DPoP{}, func(t *testing.T, c *client.Config) {
			c.Key, c.Methods = ownKey(t, "ES256"), []string{oauth.MethodAttestation}
		}, false},
		{"CLI-17, ATT-10: an attested installation in the combined mode, with nonces", "attestation: {require_challenge: true}\n" + nonces, strict, func(t *testing.T, c *client.Config) {
			c.Key, c.Methods, c.ContentDigest = ownKey(t, "ES256"), []string{oauth.MethodAttestationDPoP}, true
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := New(t, "", tc.server)
			h.guarded(tc.guard)
			k := h.toolkit(func(c *client.Config) { tc.change(t, c) })
			k.use(t, "search")
			k.use(t, "search")
			if k.opens != 1 || k.asked("/par") == 0 {
				t.Fatal(k.opens, k.asked("/par"))
			}
			k.use(t, "create") // CLI-12: asks for more
			if k.opens != 2 {
				t.Error("step-up:", k.opens)
			}
			h.Later(2 * time.Hour)
			k.use(t, "create") // CLI-20: refreshed
			if k.opens != 2 {
				t.Error("signed in again in place of a refresh")
			}
			if err := k.SignOut(t.Context(), Resource); err != nil {
				t.Fatal("CLI-30:", err, k.failures())
			}
			if k.asked("/revoke") != 1 || len(h.Events(audit.TypeRevocation)) == 0 {
				t.Error("CLI-30: nothing was revoked")
			}
			k.use(t, "search")
			if k.opens != 3 {
				t.Error("after signing out:", k.opens)
			}
		})
	}
}

func TestTheToolkitActsAlone(t *testing.T) {
	t.Parallel()
	h := New(t, "policy: {default: allow}", `policy:
  default: allow
  rules: [{name: robots, client: "https://app.test/c.json", action: allow, grants: [client_credentials]}]`)
	h.guarded(resource.DPoP{Required: true})
	k := h.toolkit(func(c *client.Config) { c.Alone, c.Key = true, ownKey(t, "ES256") })
	t.Run("XCH-13, CLI-29: a token for the client itself, bound because the resource wants that", func(t *testing.T) {
		k.use(t, "search")
		h.Later(2 * time.Hour)
		k.use(t, "search")
		if k.opens != 0 || k.Extensions()["io.modelcontextprotocol/oauth-client-credentials"] == nil {
			t.Error(k.opens)
		}
	})
	t.Run("CLI-30: it is revoked like any other", func(t *testing.T) {
		if err := k.SignOut(t.Context(), Resource); err != nil || k.asked("/revoke") != 1 {
			t.Error(err)
		}
	})
}

func TestTheToolkitOnADevice(t *testing.T) {
	t.Parallel()
	h := New(t, "policy: {default: allow}", `policy:
  default: allow
  rules: [{host: app.test, action: allow}]
device: {interval: 1s}`)
	h.guarded(resource.DPoP{})
	john := h.john()
	var shown client.DeviceCode
	k := h.toolkit(func(c *client.Config) {
		c.DPoP = client.DPoPIfOffered
		c.Device = func(_ context.Context, d client.DeviceCode) error {
			shown = d
			page := john.Send(john.form(john.Visit(d.Complete), "user_code").With("user_code", d.UserCode))
			john.connect(page, "allow")
			h.Later(5 * time.Second)
			return nil
		}
	})
	t.Run("CLI-25: the user answers on another device", func(t *testing.T) {
		k.use(t, "search")
		if shown.VerificationURI != Issuer+"/device" || !strings.HasPrefix(shown.Complete, Issuer+"/device?user_code=") || k.opens != 0 {
			t.Errorf("%+v", shown)
		}
		h.Later(2 * time.Hour)
		k.use(t, "search")
		if k.asked("/device_authorization") != 1 {
			t.Error("connected again in place of a refresh")
		}
	})
}

func TestTheToolkitRegistersItself(t *testing.T) {
	t.Parallel()
	h := New(t, "cimd: {enabled: true, allow_test_names: true}", "cimd: {enabled: false}", "", "registration: {enabled: true}")
	h.guarded(resource.DPoP{})
	for name, change := range map[string]func(*testing.T, *client.Config){
		"CLI-27, DCR-03, CLI-13: a native client where documents are not accepted":     func(*testing.T, *client.Config) {},
		"CLI-27, CLI-17: with a key, and with bound tokens, or it would not be itself": func(t *testing.T, c *client.Config) { c.Key, c.DPoP = ownKey(t, "EdDSA"), client.DPoPAlways },
	} {
		t.Run(name, func(t *testing.T) {
			k := h.toolkit(func(c *client.Config) {
				c.ID, c.RegisterAs = "", "Toolkit"
				change(t, c)
			})
			k.use(t, "search")
			h.Later(2 * time.Hour)
			k.use(t, "search")
			if k.opens != 1 || k.asked("/register") != 1 {
				t.Error(k.opens, k.asked("/register"))
			}
			if err := k.SignOut(t.Context(), Resource); err != nil {
				t.Error("CLI-30:", err)
			}
		})
	}
}

func TestTheToolkitKeepsItsSignatures(t *testing.T) {
	t.Parallel()
	h := New(t)
	evil := h.Net.Host("evil-as.test")
	meta := func(w http.ResponseWriter, name string) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"issuer":"https://evil-as.test","authorization_endpoint":"https://evil-as.test/authorize","`+name+`":"`+
			Issuer+map[string]string{"token_endpoint": "/token", "pushed_authorization_request_endpoint": "/par"}[name]+`"`+
			map[bool]string{true: `,"token_endpoint":"https://evil-as.test/token"`}[name != "token_endpoint"]+
			`,"code_challenge_methods_supported":["S256"],"client_id_metadata_document_supported":true,"token_endpoint_auth_methods_supported":["private_key_jwt"]}`)
	}
	for _, name := range []string{"token_endpoint", "pushed_authorization_request_endpoint"} {
		evil.Handle("*", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.Contains(r.URL.Path, "oauth-protected-resource"):
				_, _ = io.WriteString(w, `{"resource":"https://evil-as.test/mcp","authorization_servers":["https://evil-as.test"]}`)
			case strings.Contains(r.URL.Path, "oauth-authorization-server"):
				meta(w, name)
			default:
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		t.Run("attack CA-14: an attacker names our "+name+" as its own, and the toolkit signs nothing for us", func(t *testing.T) {
			k := h.toolkit(func(c *client.Config) {
				c.Key = ownKey(t, "ES256")
				c.Open = func(address string) error {
					r := httptest.NewRequest("GET", address, nil)
					back := r.FormValue("redirect_uri") + "?code=made-up&iss=https://evil-as.test&state=" + r.FormValue("state")
					go func() {
						if resp, err := http.Get(back); err == nil {
							resp.Body.Close()
						}
					}()
					return nil
				}
			})
			_, err := k.SignIn(t.Context(), "https://evil-as.test/mcp")
			if err == nil || !strings.Contains(err.Error(), "invalid_client") {
				t.Error(err)
			}
		})
	}
}
