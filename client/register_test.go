package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// registry is a world whose server knows no documents and registers everybody.
type registry struct {
	*world
	asked  []map[string]any
	answer func(out map[string]any) // changes the answer
	status int
}

func newRegistry(t *testing.T, change func(*Config)) *registry {
	t.Helper()
	r := &registry{status: 201}
	r.world = newWorld(t, func(c *Config) {
		c.RegisterAs = "My App"
		if change != nil {
			change(c)
		}
	})
	r.as.meta.ClientIDMetadataDocument, r.as.meta.RegistrationEndpoint = false, r.as.URL+"/register"
	r.as.more = func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path != "/register" {
			return false
		}
		var in map[string]any
		_ = json.NewDecoder(q.Body).Decode(&in)
		r.asked = append(r.asked, in)
		out := map[string]any{"client_id": fmt.Sprint("client-", len(r.asked)), "token_endpoint_auth_method": in["token_endpoint_auth_method"], "redirect_uris": in["redirect_uris"]}
		if r.answer != nil {
			r.answer(out)
		}
		w.WriteHeader(r.status)
		_ = json.NewEncoder(w).Encode(out)
		return true
	}
	return r
}

func TestRegistration(t *testing.T) {
	t.Run("CLI-27, DCR-03 a native client registers once and says that it is one", func(t *testing.T) {
		r := newRegistry(t, nil)
		h := r.c.HTTPClient(r.target())
		r.used(t, h)
		r.used(t, h)
		if _, err := r.c.SignIn(t.Context(), r.target()); err != nil {
			t.Fatal(err)
		}
		if len(r.asked) != 1 || r.as.asked[1].Get("client_id") != "client-1" {
			t.Fatal(r.asked, r.as.asked)
		}
		raw, _ := json.Marshal(r.asked[0])
		want := `{"application_type":"native","client_name":"My App","grant_types":["authorization_code","refresh_token"],` +
			`"redirect_uris":["http://127.0.0.1/callback"],"response_types":["code"],"token_endpoint_auth_method":"none"}`
		if string(raw) != want {
			t.Errorf("%s", raw)
		}
	})
	t.Run("CLI-27, CLI-06 not where the document is accepted, and not unasked", func(t *testing.T) {
		r := newRegistry(t, nil)
		r.as.meta.ClientIDMetadataDocument = true
		if g, err := r.c.SignIn(t.Context(), r.target()); err != nil || g.ClientID != appID || len(r.asked) != 0 {
			t.Error(g, err, r.asked)
		}
		r = newRegistry(t, func(c *Config) { c.RegisterAs = "" })
		if _, err := r.c.SignIn(t.Context(), r.target()); !errors.Is(err, ErrNotAccepted) || len(r.asked) != 0 {
			t.Error(err, r.asked)
		}
	})
	t.Run("CLI-06 a server further down the list that takes the document comes before registering", func(t *testing.T) {
		r := newRegistry(t, nil)
		second := newAS(t)
		r.rs.meta.AuthorizationServers = []string{r.as.URL, second.URL}
		if s, err := r.c.Discover(t.Context(), r.target()); err != nil || s.Issuer != second.URL || len(r.asked) != 0 {
			t.Error(s, err)
		}
	})
	t.Run("CLI-13 what one server gave is not used at another, which is asked anew", func(t *testing.T) {
		store := NewMemoryStore()
		one := newRegistry(t, func(c *Config) { c.Store = store })
		if _, err := one.c.SignIn(t.Context(), one.target()); err != nil {
			t.Fatal(err)
		}
		two := newRegistry(t, func(c *Config) { c.Store = store })
		two.answer = func(out map[string]any) { out["client_id"] = "other" }
		if _, err := two.c.SignIn(t.Context(), two.target()); err != nil || two.as.asked[0].Get("client_id") != "other" || len(two.asked) != 1 {
			t.Error(err, two.as.asked)
		}
	})
	for _, method := range []string{oauth.MethodSecretPost, oauth.MethodSecretBasic} {
		t.Run("CLI-13, CLI-17, CLI-27 a server that wants a secret gets back its own: "+method, func(t *testing.T) {
			r := newRegistry(t, nil)
			r.as.meta.TokenAuthMethods = []string{method}
			r.answer = func(out map[string]any) {
				out["client_secret"], out["client_secret_expires_at"] = "s3cret", r.now.Add(24*time.Hour).Unix()
			}
			h := r.c.HTTPClient(r.target())
			r.used(t, h)
			if r.asked[0]["token_endpoint_auth_method"] != method {
				t.Error(r.asked)
			}
			user, pass, basic := (&http.Request{Header: r.as.headers[0]}).BasicAuth()
			if inBody := r.as.posted[0].Get("client_secret") == "s3cret"; inBody == basic || basic && (user != "client-1" || pass != "s3cret") || basic != (method == oauth.MethodSecretBasic) {
				t.Error(r.as.posted, r.as.headers)
			}
			r.advance(25 * time.Hour) // the secret has expired
			r.used(t, h)
			if len(r.asked) != 2 {
				t.Error("the old secret is still in use")
			}
			if told := fmt.Sprintf("%+v", r.steps); strings.Contains(told, "s3cret") {
				t.Error("CLI-22: the trace tells it")
			}
		})
	}
	t.Run("CLI-27 a key is registered with its public half", func(t *testing.T) {
		k := key(t, "ES256")
		r := newRegistry(t, func(c *Config) { c.Key = k })
		r.used(t, r.c.HTTPClient(r.target()))
		raw, _ := json.Marshal(r.asked[0])
		if claims, _, _ := assertionClaims(t, k, r.as.posted[0].Get("client_assertion")); claims["sub"] != "client-1" || !strings.Contains(string(raw), `"jwks":{"keys"`) || strings.Contains(string(raw), `"d":`) {
			t.Error(claims, string(raw))
		}
	})
	for _, tc := range []struct {
		name   string
		change func(*registry)
		part   string
	}{
		{"CLI-27 a rejection says what was rejected", func(r *registry) {
			r.status, r.answer = 400, func(out map[string]any) { clear(out); out["error"] = "invalid_redirect_uri" }
		}, "invalid_redirect_uri"},
		{"CLI-27 a server that registers nobody", func(r *registry) { r.as.meta.RegistrationEndpoint = "" }, "registers nobody"},
		{"CLI-27 a server that is down", func(r *registry) { r.status = 503 }, "503"},
		{"CLI-27 another method than was asked for", func(r *registry) {
			r.answer = func(out map[string]any) { out["token_endpoint_auth_method"] = "private_key_jwt" }
		}, "in place of"},
		{"CLI-27 a secret that is none", func(r *registry) {
			r.answer = func(out map[string]any) { out["token_endpoint_auth_method"] = "client_secret_basic" }
		}, "no secret"},
		{"CLI-27 no client_id", func(r *registry) { r.answer = func(out map[string]any) { clear(out) } }, "no client_id"},
		{"CLI-23 an endpoint over http", func(r *registry) { r.as.meta.RegistrationEndpoint = "http://as.test/register" }, "registration_endpoint"},
		{"CLI-27, CLI-17 no method in common", func(r *registry) { r.as.meta.TokenAuthMethods = []string{"tls_client_auth"} }, "in common"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRegistry(t, nil)
			tc.change(r)
			_, err := r.c.SignIn(t.Context(), r.target())
			if err == nil || !strings.Contains(err.Error(), tc.part) || r.opened() != 0 {
				t.Errorf("%v, %d", err, r.opened())
			}
			if g, _ := r.c.cfg.Store.Load(t.Context(), atIssuer(r.as.URL)); g != nil && g.ClientID != "" {
				t.Error("kept", g)
			}
		})
	}
	t.Run("CLI-27 a server that has forgotten the client: the next call registers and signs in anew", func(t *testing.T) {
		r := newRegistry(t, nil)
		h := r.c.HTTPClient(r.target())
		r.used(t, h)
		r.advance(time.Hour)
		more := r.as.more
		r.as.more = func(w http.ResponseWriter, q *http.Request) bool {
			if q.URL.Path == "/token" && q.PostForm.Get("client_id") == "client-1" {
				failed(w, 401, "invalid_client")
				return true
			}
			return more(w, q)
		}
		r.used(t, h)
		if len(r.asked) != 2 || r.opened() != 2 {
			t.Error(len(r.asked), r.opened())
		}
	})
}
