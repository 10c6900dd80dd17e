package resource

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

const mcpURL = "https://mcp.test/mcp"

// server is an authorization server that publishes metadata and keys over TLS.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	keys    []jose.Key
	issuer  string // as stated in the metadata
	jwksURI string
	header  http.Header // of the JWKS response
	down    bool
	gate    chan struct{} // when not nil, JWKS responses wait for it
	jwks    atomic.Int64  // JWKS requests
	key     jose.Private
}

func newServer(t *testing.T) *server {
	t.Helper()
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{key: key, keys: []jose.Key{key.Public()}, header: http.Header{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.down {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		_ = json.NewEncoder(w).Encode(oauth.ServerMetadata{Issuer: s.issuer, JWKSURI: s.jwksURI})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		s.jwks.Add(1)
		s.mu.Lock()
		gate, keys, down := s.gate, s.keys, s.down
		for k, v := range s.header {
			w.Header()[k] = v
		}
		s.mu.Unlock()
		if gate != nil {
			<-gate
		}
		if down {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		raw, _ := jose.MarshalSet(keys...)
		_, _ = w.Write(raw)
	})
	s.Server = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	s.issuer, s.jwksURI = s.URL, s.URL+"/jwks"
	return s
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// clock is a time that tests move.
type clock struct{ now atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.now.Store(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC).Unix())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(c.now.Load(), 0) }
func (c *clock) advance(d time.Duration) { c.now.Add(int64(d / time.Second)) }

// world is a guard with its authorization server, and the server behind it.
type world struct {
	as    *server
	clock *clock
	guard *Guard
	seen  *http.Request // what the server behind the guard saw last; nil: nothing
	body  string
	last  Decision
}

func config(as *server, c *clock) Config {
	return Config{
		Resource:             mcpURL,
		AuthorizationServers: []string{as.URL},
		Name:                 "Tracker",
		Baseline:             []string{"mcp:read"},
		Scopes:               []Scope{{Name: "mcp:admin", Implies: []string{"mcp:write"}}, {Name: "mcp:write", Implies: []string{"mcp:read"}}, {Name: "mcp:read"}, {Name: "files:read"}},
		Tools:                map[string][]string{"list": nil, "create": {"mcp:write"}, "purge": {"mcp:admin"}},
		Methods:              map[string][]string{"resources/read": {"files:read"}},
		HTTP:                 as.Client(),
		Now:                  c.Now,
	}
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{as: newServer(t), clock: newClock()}
	cfg := config(w.as, w.clock)
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.guard, err = New(withObserver(cfg, &w.last)); err != nil {
		t.Fatal(err)
	}
	return w
}

func withObserver(cfg Config, last *Decision) Config {
	cfg.Observe = observe(last)
	return cfg
}

func (w *world) claims() map[string]any {
	now := w.clock.Now()
	return map[string]any{
		"iss": w.as.URL, "aud": mcpURL, "sub": "john", "client_id": "https://app.test/client.json", "jti": "t1",
		"scope": "mcp:read", "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	}
}

// token signs the good claims after a change.
func (w *world) token(t *testing.T, change func(map[string]any)) string {
	t.Helper()
	c := w.claims()
	if change != nil {
		change(c)
	}
	raw, err := w.as.key.Sign("at+jwt", c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func scope(s string) func(map[string]any) { return func(c map[string]any) { c["scope"] = s } }

// ask sends a request through the guard.
func (w *world) ask(r *http.Request) *httptest.ResponseRecorder {
	w.seen, w.body = nil, ""
	next := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.seen = r
		b, _ := io.ReadAll(r.Body)
		w.body = string(b)
	})
	rec := httptest.NewRecorder()
	w.guard.Protect(next).ServeHTTP(rec, r)
	return rec
}

func post(token, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

func callTool(name string) string {
	raw, _ := json.Marshal(name)
	return `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":` + string(raw) + `,"arguments":{}}}`
}

// challengeOf parses the one challenge of a refusal.
func challengeOf(t *testing.T, rec *httptest.ResponseRecorder) oauth.Challenge {
	t.Helper()
	return challengeWith(t, rec, "Bearer")
}

func challengeWith(t *testing.T, rec *httptest.ResponseRecorder, scheme string) oauth.Challenge {
	t.Helper()
	all, err := oauth.ParseChallenges(rec.Result().Header.Values("WWW-Authenticate"))
	if err != nil || len(all) != 1 || all[0].Scheme != scheme {
		t.Fatalf("challenges %v, error %v", all, err)
	}
	return all[0]
}

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

func benchWorld(b *testing.B) *world {
	b.Helper()
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		b.Fatal(err)
	}
	c := newClock()
	const issuerURL = "https://as.test"
	as := &server{Server: &httptest.Server{URL: issuerURL}, key: key}
	g, err := New(Config{Resource: mcpURL, AuthorizationServers: []string{issuerURL}, Now: c.Now, HTTP: http.DefaultClient})
	if err != nil {
		b.Fatal(err)
	}
	g.issuers[issuerURL].current.Store(&keySet{Set: jose.Set{Keys: []jose.Key{key.Public()}}, expires: c.Now().Add(time.Hour)})
	return &world{as: as, clock: c, guard: g}
}
