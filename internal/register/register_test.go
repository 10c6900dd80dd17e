package register_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/register"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
)

// broken is a store that fails as it is told, and a policy.
type broken struct {
	client store.Client
	err    error
	set    policy.Set
	last   store.Client
}

func (b *broken) Client(context.Context, string) (store.Client, error) { return b.client, b.err }

func (b *broken) RegisterDynamic(_ context.Context, c store.Client, _ int, _ time.Time, _ ...audit.Event) error {
	b.last = c
	return b.err
}

func (b *broken) UpdateDynamic(_ context.Context, c store.Client, _ string, _ time.Time, _ ...audit.Event) error {
	b.last = c
	return b.err
}

func (b *broken) RemoveDynamic(context.Context, string, string, time.Time, ...audit.Event) error {
	return b.err
}

func (b *broken) AppendEvents(context.Context, ...audit.Event) error { return nil }

func (b *broken) Dynamic() (policy.Decision, *policy.Set) {
	return b.set.Decide(policy.Subject{Dynamic: true}), &b.set
}

func handler(t *testing.T, b *broken, change func(*register.Config)) http.Handler {
	t.Helper()
	b.set.Default = policy.Allow
	b.set.Resources = []policy.Resource{{ID: "https://mcp.test/mcp", Name: "Tools", Scopes: []policy.Scope{{Name: "read", Title: "read"}}}}
	if err := b.set.Check(); err != nil {
		t.Fatal(err)
	}
	edge, err := web.NewEdge(web.EdgeConfig{Issuer: "https://as.test"})
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.New(audit.Config{Sink: b})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close(context.Background()) })
	c := register.Config{Store: b, Directory: b, Edge: edge, Audit: log, IDTokenAlg: "ES256"}
	if change != nil {
		change(&c)
	}
	h, err := register.New(c)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, r := range h.Routes() {
		mux.Handle(r.Pattern, r.Handler)
	}
	return mux
}

func ask(h http.Handler, method, path, token, body string) (*httptest.ResponseRecorder, map[string]any) {
	r := httptest.NewRequest(method, "https://as.test"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var out map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &out)
	return w, out
}

const good = `{"redirect_uris":["https://app.test/cb"]}`

func TestRegister(t *testing.T) {
	t.Run("DCR-03 what is assumed of a client that does not say can be changed", func(t *testing.T) {
		const local = `{"redirect_uris":["http://localhost:3000/cb"]}`
		if w, _ := ask(handler(t, &broken{}, nil), "POST", "/register", "", local); w.Code != 400 {
			t.Errorf("web: %d", w.Code)
		}
		w, got := ask(handler(t, &broken{}, func(c *register.Config) { c.ApplicationType = "native" }), "POST", "/register", "", local)
		if w.Code != 201 || got["application_type"] != "native" {
			t.Errorf("native: %d %s", w.Code, w.Body)
		}
	})
	t.Run("DCR-02 null is left out, and names are cleaned", func(t *testing.T) {
		b := &broken{}
		w, got := ask(handler(t, b, nil), "POST", "/register", "", `{"redirect_uris":["https://app.test/cb"],"jwks_uri":null,"client_name":"a\u202eb","scope":""}`)
		if w.Code != 201 || got["client_name"] != "ab" || got["scope"] != nil || b.last.HasScope {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("CAUTH-13, DCR-04 secrets are kept as hashes", func(t *testing.T) {
		b := &broken{}
		_, got := ask(handler(t, b, nil), "POST", "/register", "", good)
		raw, _ := json.Marshal(b.last)
		for _, name := range []string{"client_secret", "registration_access_token"} {
			if s, _ := got[name].(string); len(s) < 40 || strings.Contains(string(raw), s) {
				t.Errorf("%s is %q, and the row is %s", name, s, raw)
			}
		}
	})
	for _, c := range []struct {
		name   string
		err    error
		method string
		path   string
		status int
	}{
		{"DCR-01 no room", store.ErrBusy, "POST", "/register", 503},
		{"FA-04 a store that does not answer", errors.New("away"), "POST", "/register", 500},
		{"FA-04, DCR-04 nor when it is asked for a client", errors.New("away"), "GET", "/register/dyn-x", 500},
		{"DCR-04 no such client", store.ErrNotFound, "GET", "/register/dyn-x", 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			if w, got := ask(handler(t, &broken{err: c.err}, nil), c.method, c.path, "token", good); w.Code != c.status || got["client_id"] != nil {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	t.Run("DCR-01 other methods", func(t *testing.T) {
		h := handler(t, &broken{}, nil)
		for path, method := range map[string]string{"/register": "GET", "/register/dyn-x": "POST"} {
			if w, _ := ask(h, method, path, "", good); w.Code != 405 {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	})
	t.Run("DCR-04, META-17 a page may look after its registration", func(t *testing.T) {
		h := handler(t, &broken{}, nil)
		for path, want := range map[string]bool{"/register": false, "/register/dyn-x": true} {
			w, _ := ask(h, "OPTIONS", path, "", "")
			allowed := w.Header().Get("Access-Control-Allow-Methods")
			for _, method := range []string{"PUT", "DELETE"} {
				if got := strings.Contains(allowed, method); w.Code != 204 || got != want {
					t.Errorf("%s: %d, %s is among %q: %v", path, w.Code, method, allowed, got)
				}
			}
		}
	})
	t.Run("DCR-04 requests about registrations are bounded too", func(t *testing.T) {
		h := handler(t, &broken{err: store.ErrNotFound}, nil)
		codes := map[int]int{}
		for range 700 {
			w, _ := ask(h, "GET", "/register/dyn-x", "guess", "")
			codes[w.Code]++
		}
		if codes[401] != 600 || codes[429] != 100 {
			t.Errorf("%v", codes)
		}
	})
	t.Run("DCR-01 what it stands on is required", func(t *testing.T) {
		if _, err := register.New(register.Config{}); err == nil {
			t.Error("it was accepted")
		}
	})
}
