package register_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/register"
	"github.com/bonafide-id/bonafide/internal/store"
)

// registered is a store with one client that registered itself, and its token. The
// store itself refuses nothing: what is refused is refused before it.
func registered(t *testing.T) (b *broken, token string) {
	t.Helper()
	b = &broken{}
	w, got := ask(handler(t, b, nil), "POST", "/register", "", good)
	if w.Code != 201 {
		t.Fatal(w.Code, w.Body)
	}
	b.client = b.last
	b.client.ID, b.client.Source, b.client.State = "dyn-x", store.SourceDCR, store.StateAllowed
	token, _ = got["registration_access_token"].(string)
	return b, token
}

func TestWhoHoldsARegistration(t *testing.T) {
	const here = "/register/dyn-x"
	for _, c := range []struct {
		name   string
		path   string
		change func(c *store.Client)
		header []string // Authorization; TOKEN is the token
		status int
	}{
		{"its own token", here, nil, []string{"Bearer TOKEN"}, 200},
		{"the scheme in small letters", here, nil, []string{"bearer TOKEN"}, 200},
		{"none", here, nil, nil, 401},
		{"another", here, nil, []string{"Bearer TOKENx"}, 401},
		{"an empty one", here, nil, []string{"Bearer "}, 401},
		{"another scheme", here, nil, []string{"Basic TOKEN"}, 401},
		{"two headers", here, nil, []string{"Bearer TOKEN", "Bearer TOKEN"}, 401},
		{"an id of another kind", "/register/x", nil, []string{"Bearer TOKEN"}, 401},
		{"a client that did not register itself", here, func(c *store.Client) { c.Source = store.SourceRegistered }, []string{"Bearer TOKEN"}, 401},
		{"a client that is blocked", here, func(c *store.Client) { c.State = store.StateBlocked }, []string{"Bearer TOKEN"}, 401},
		{"a registration that is over", here, func(c *store.Client) { c.Expires = time.Now() }, []string{"Bearer TOKEN"}, 401},
		{"a client without a token", here, func(c *store.Client) { c.RegistrationHash = "" }, []string{"Bearer "}, 401},
	} {
		t.Run("DCR-04 "+c.name, func(t *testing.T) {
			for _, method := range []string{"GET", "PUT", "DELETE"} {
				b, token := registered(t)
				if c.change != nil {
					c.change(&b.client)
				}
				r := httptest.NewRequest(method, "https://as.test"+c.path, strings.NewReader(`{"client_id":"dyn-x","redirect_uris":["https://app.test/new"]}`))
				r.Header.Set("Content-Type", "application/json")
				for _, h := range c.header {
					r.Header.Add("Authorization", strings.Replace(h, "TOKEN", token, 1))
				}
				w := httptest.NewRecorder()
				handler(t, b, nil).ServeHTTP(w, r)
				want := c.status
				if method == "DELETE" && want == 200 {
					want = 204
				}
				if w.Code != want || want == 401 && (w.Header().Get("WWW-Authenticate") == "" || strings.Contains(w.Body.String(), "app.test")) {
					t.Errorf("%s: %d %s", method, w.Code, w.Body)
				}
			}
		})
	}
}

func TestUpdates(t *testing.T) {
	put := func(t *testing.T, b *broken, token, body string, change func(*register.Config)) (int, map[string]any) {
		t.Helper()
		w, got := ask(handler(t, b, change), "PUT", "/register/dyn-x", token, body)
		return w.Code, got
	}
	t.Run("DCR-04 a client changes what it gave and not what it was given", func(t *testing.T) {
		for body, status := range map[string]int{
			`{"client_id":"dyn-x","redirect_uris":["https://app.test/new"]}`:                              200,
			`{"redirect_uris":["https://app.test/new"]}`:                                                  400,
			`{"client_id":"dyn-y","redirect_uris":["https://app.test/new"]}`:                              400,
			`{"client_id":7,"redirect_uris":["https://app.test/new"]}`:                                    400,
			`{"client_id":"dyn-x","client_secret":"mine","redirect_uris":["https://app.test/new"]}`:       400,
			`{"client_id":"dyn-x","client_secret":7,"redirect_uris":["https://app.test/new"]}`:            400,
			`{"client_id":"dyn-x","registration_access_token":"t","redirect_uris":["https://app.test/"]}`: 400,
		} {
			b, token := registered(t)
			if got, out := put(t, b, token, body, nil); got != status {
				t.Errorf("%s: %d %v", body, got, out)
			}
		}
	})
	t.Run("DCR-04 the secret stays, goes with the method, and comes back as another", func(t *testing.T) {
		b, token := registered(t)
		had := b.client.SecretHash
		for _, step := range []struct {
			method string
			secret bool // is told
			same   bool // is the one from before
		}{{"client_secret_post", false, true}, {"none", false, false}, {"client_secret_basic", true, false}} {
			code, got := put(t, b, token, `{"client_id":"dyn-x","redirect_uris":["https://app.test/cb"],"token_endpoint_auth_method":"`+step.method+`"}`, nil)
			secret, told := got["client_secret"].(string)
			kept := b.last.SecretHash
			if code != 200 || told != step.secret || (kept == had) != step.same || (kept == "") != (step.method == "none") || told && !clientauth.SecretMatches(secret, kept) {
				t.Errorf("%s: %d %v", step.method, code, got)
			}
			token, _ = got["registration_access_token"].(string)
			b.client = b.last
			b.client.Source, b.client.State = store.SourceDCR, store.StateAllowed
		}
	})
	t.Run("DCR-01, DCR-04 a use moves the end on, to as long as ever and no longer", func(t *testing.T) {
		for _, method := range []string{"GET", "PUT"} {
			b, token := registered(t)
			later := time.Now().Add(29 * 24 * time.Hour)
			w, _ := ask(handler(t, b, func(c *register.Config) { c.Now = func() time.Time { return later } }), method, "/register/dyn-x", token, `{"client_id":"dyn-x","redirect_uris":["https://app.test/cb"]}`)
			if w.Code != 200 || !b.last.Expires.Equal(later.Add(30*24*time.Hour)) || b.last.RegistrationHash == b.client.RegistrationHash {
				t.Errorf("%s: %d until %v", method, w.Code, b.last.Expires)
			}
		}
	})
	t.Run("POL-01, DCR-04 under a policy that refuses them now nothing is changed, and they may go", func(t *testing.T) {
		b, token := registered(t)
		deny := []policy.Rule{{Name: "no", Dynamic: true, Action: policy.Deny}}
		for method, status := range map[string]int{"PUT": 400, "DELETE": 204} {
			h := handler(t, b, nil)
			b.set.Rules = deny
			b.last = store.Client{}
			if w, _ := ask(h, method, "/register/dyn-x", token, `{"client_id":"dyn-x","redirect_uris":["https://app.test/cb"]}`); w.Code != status || b.last.ID != "" {
				t.Errorf("%s: %d %s", method, w.Code, w.Body)
			}
		}
	})
}

func TestBoundsOfARegistration(t *testing.T) {
	t.Run("DCR-02, POL-03 a scope of a resource that the policy leaves out is not had", func(t *testing.T) {
		b := &broken{}
		h := handler(t, b, nil)
		b.set.Resources = append(b.set.Resources, policy.Resource{ID: "https://pay.test/", Name: "Pay", Scopes: []policy.Scope{{Name: "pay", Title: "pay"}}})
		b.set.Rules = []policy.Rule{{Name: "strangers", Dynamic: true, Action: policy.Ask, Resources: []string{"https://mcp.test/mcp"}}}
		if err := b.set.Check(); err != nil {
			t.Fatal(err)
		}
		for asked, want := range map[string]string{"read pay": "read", "read": "read", "pay": ""} {
			w, got := ask(h, "POST", "/register", "", `{"redirect_uris":["https://app.test/cb"],"scope":"`+asked+`"}`)
			if scope, _ := got["scope"].(string); scope != want || (w.Code == 201) != (want != "") {
				t.Errorf("%q: %d %s", asked, w.Code, w.Body)
			}
		}
	})
	t.Run("DCR-01 contacts are few and short", func(t *testing.T) {
		for n, status := range map[int]int{10: 201, 11: 400} {
			raw, _ := json.Marshal(map[string]any{"redirect_uris": []string{"https://app.test/cb"}, "contacts": strings.Fields(strings.Repeat("a@app.test ", n))})
			if w, _ := ask(handler(t, &broken{}, nil), "POST", "/register", "", string(raw)); w.Code != status {
				t.Errorf("%d: %d", n, w.Code)
			}
		}
	})
	t.Run("DCR-02 a body under a content coding is not read", func(t *testing.T) {
		for coding, status := range map[string]int{"": 201, "gzip": 415, "identity": 415} {
			r := httptest.NewRequest("POST", "https://as.test/register", strings.NewReader(good))
			r.Header.Set("Content-Type", "application/json")
			if coding != "" {
				r.Header.Set("Content-Encoding", coding)
			}
			w := httptest.NewRecorder()
			if handler(t, &broken{}, nil).ServeHTTP(w, r); w.Code != status {
				t.Errorf("%q: %d", coding, w.Code)
			}
		}
	})
}
