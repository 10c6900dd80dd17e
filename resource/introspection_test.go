package resource

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

const asked = "https://as.test"

// asker is an authorization server that is asked about tokens, as a transport.
type asker struct {
	key jose.Private

	mu        sync.Mutex
	tokens    map[string]map[string]any // what is said about each; nil: not active
	questions int
	status    int           // in place of 200
	kind      string        // in place of application/json
	raw       string        // in place of the answer
	slow      time.Duration // before an answer
	err       error         // in place of one
	auth      string        // of the last question
	form      url.Values
	endpoint  string
}

func (a *asker) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := func(status int, kind, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r.URL.String() {
	case asked + "/.well-known/oauth-authorization-server":
		raw, _ := json.Marshal(oauth.ServerMetadata{Issuer: asked, JWKSURI: asked + "/jwks", IntrospectionEndpoint: a.endpoint})
		return answer(200, "application/json", string(raw))
	case asked + "/jwks":
		raw, _ := jose.MarshalSet(a.key.Public())
		return answer(200, "application/json", string(raw))
	case asked + "/introspect":
	default:
		return answer(404, "text/plain", "")
	}
	a.questions++
	body, _ := io.ReadAll(r.Body)
	a.form, _ = url.ParseQuery(string(body))
	a.auth = r.Header.Get("Authorization")
	slow, err, status, kind, raw := a.slow, a.err, a.status, a.kind, a.raw
	said := a.tokens[a.form.Get("token")]
	if slow > 0 {
		a.mu.Unlock()
		select {
		case <-time.After(slow):
		case <-r.Context().Done():
			err = r.Context().Err()
		}
		a.mu.Lock()
	}
	if err != nil {
		return nil, err
	}
	if raw == "" {
		out := map[string]any{"active": false}
		if said != nil {
			out = maps.Clone(said)
			out["active"] = true
		}
		b, _ := json.Marshal(out)
		raw = string(b)
	}
	if status == 0 {
		status = 200
	}
	if kind == "" {
		kind = "application/json; charset=utf-8"
	}
	return answer(status, kind, raw)
}

func (a *asker) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *asker) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.questions
}

// asking is a guard that asks, on the clock of the bubble.
func asking(t *testing.T, change func(*Config)) (*asker, *Guard) {
	t.Helper()
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	a := &asker{key: key, tokens: map[string]map[string]any{}, endpoint: asked + "/introspect"}
	cfg := Config{
		Resource: mcpURL, AuthorizationServers: []string{asked}, Baseline: []string{"mcp:read"}, HTTP: &http.Client{Transport: a},
		Introspection: &Introspection{Secret: "s e:cret"},
	}
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a, g
}

// says is what a good answer about a token says, with changes.
func says(changes map[string]any) map[string]any {
	out := map[string]any{
		"iss": asked, "aud": mcpURL, "sub": "john", "client_id": "https://app.test/c.json", "scope": "mcp:read",
		"exp": time.Now().Add(10 * time.Minute).Unix(), "iat": time.Now().Unix(), "jti": "t1",
	}
	maps.Copy(out, changes)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

// status asks with a token and returns the status of the answer.
func status(g *Guard, token string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	g.Protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(rec, post(token, "{}"))
	return rec
}

func TestOpaqueTokens(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes map[string]any
		want    int
		rule    string
	}{
		{"RS-23 a good answer", nil, 200, ""},
		{"RS-23 iss may be left out", map[string]any{"iss": nil}, 200, ""},
		{"RS-10, RS-23 another issuer", map[string]any{"iss": "https://evil.test"}, 503, "RS-23"},
		{"RS-11, RS-23, attack RS-01: another audience", map[string]any{"aud": "https://other.test/"}, 401, "RS-11"},
		{"RS-11, RS-23, attack RS-01: no audience", map[string]any{"aud": nil}, 401, "RS-11"},
		{"RS-12, RS-23, attack RS-04: no expiry", map[string]any{"exp": nil}, 401, "RS-12"},
		{"RS-12, RS-23, attack RS-04: past its expiry", map[string]any{"exp": 1}, 401, "RS-12"},
		{"RS-12, RS-23 an expiry that is a text", map[string]any{"exp": "soon"}, 503, "RS-23"},
		{"RS-12, RS-23 not yet", map[string]any{"nbf": 4102444800}, 401, "RS-12"},
		{"RS-12, RS-23 no subject", map[string]any{"sub": nil}, 401, "RS-12"},
		{"RS-24, RS-23 bound to a key", map[string]any{"cnf": map[string]any{"jkt": "x"}}, 401, "DPOP-06"},
		{"RS-07, RS-23 too few scopes", map[string]any{"scope": "other"}, 403, "RS-07"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var last Decision
				a, g := asking(t, func(cfg *Config) { cfg.Observe = observe(&last) })
				a.tokens["opaque-1"] = says(c.changes)
				if rec := status(g, "opaque-1"); rec.Code != c.want || last.Rule != c.rule {
					t.Errorf("got %d under %s (%v), want %d under %s", rec.Code, last.Rule, last.Err, c.want, c.rule)
				}
				if a.auth != "Basic "+basicOf(url.QueryEscape(mcpURL), "s+e%3Acret") || a.form.Get("token") != "opaque-1" {
					t.Errorf("asked with %q and %v", a.auth, a.form)
				}
			})
		})
	}
	t.Run("RS-23 a token that is not active", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			for range 3 {
				if rec := status(g, "unknown"); rec.Code != 401 || !strings.Contains(rec.Header().Get("WWW-Authenticate"), "invalid_token") {
					t.Errorf("got %d", rec.Code)
				}
			}
			if a.count() != 1 {
				t.Errorf("%d questions", a.count())
			}
		})
	})
	t.Run("RS-23 the meaning of the token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			a.tokens["opaque-1"] = says(map[string]any{"acr": "gold", "auth_time": time.Now().Unix()})
			tok, err := g.Verify(t.Context(), "opaque-1")
			if err != nil || tok.Subject != "john" || tok.Issuer != asked || tok.ClientHost() != "app.test" || tok.ACR != "gold" || !tok.AuthTime.Equal(time.Now()) {
				t.Errorf("got %+v, %v", tok, err)
			}
		})
	})
}

func basicOf(user, pass string) string {
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth(user, pass)
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")
}

func TestSignedTokensThatAreAskedAbout(t *testing.T) {
	sign := func(t *testing.T, a *asker, changes map[string]any) string {
		t.Helper()
		raw, err := a.key.Sign("at+jwt", says(changes))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	run := func(name string, f func(t *testing.T, a *asker, g *Guard)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, g := asking(t, nil)
				f(t, a, g)
			})
		})
	}
	run("RS-23 a JWT that is not good here is not asked about", func(t *testing.T, a *asker, g *Guard) {
		other, _ := jose.Generate(jose.ES256)
		forged, _ := other.Sign("at+jwt", says(nil))
		for _, token := range []string{forged, sign(t, a, map[string]any{"aud": "https://other.test"}), sign(t, a, map[string]any{"exp": 1})} {
			a.tokens[token] = says(nil)
			if rec := status(g, token); rec.Code != 401 {
				t.Errorf("got %d", rec.Code)
			}
		}
		if a.count() != 0 {
			t.Errorf("%d questions", a.count())
		}
	})
	run("RS-23, attack RS-17: one that was revoked", func(t *testing.T, a *asker, g *Guard) {
		if rec := status(g, sign(t, a, nil)); rec.Code != 401 {
			t.Errorf("got %d", rec.Code)
		}
	})
	run("RS-23 the answer can take scopes away and add none", func(t *testing.T, a *asker, g *Guard) {
		token := sign(t, a, map[string]any{"scope": "mcp:read mcp:write"})
		a.tokens[token] = says(map[string]any{"scope": "mcp:read mcp:admin"})
		if tok, err := g.Verify(t.Context(), token); err != nil || tok.Scopes.String() != "mcp:read" {
			t.Errorf("got %v, %v", tok.Scopes, err)
		}
	})
	run("RS-24, RS-23 the answer can bind it", func(t *testing.T, a *asker, g *Guard) {
		token := sign(t, a, nil)
		a.tokens[token] = says(map[string]any{"cnf": map[string]any{"jkt": "x"}})
		if rec := status(g, token); rec.Code != 401 {
			t.Errorf("got %d", rec.Code)
		}
	})
	run("RS-23 the answer can end it earlier", func(t *testing.T, a *asker, g *Guard) {
		token := sign(t, a, nil)
		a.tokens[token] = says(map[string]any{"exp": time.Now().Add(time.Minute).Unix()})
		if tok, err := g.Verify(t.Context(), token); err != nil || time.Until(tok.Expires) != time.Minute {
			t.Errorf("got %v, %v", tok.Expires, err)
		}
	})
	for _, member := range []string{"sub", "client_id"} {
		run("RS-23 an answer about another token: "+member, func(t *testing.T, a *asker, g *Guard) {
			token := sign(t, a, nil)
			a.tokens[token] = says(map[string]any{member: "mallory"})
			if rec := status(g, token); rec.Code != 401 {
				t.Errorf("got %d", rec.Code)
			}
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(a *asker)
	}{
		{"down", func(a *asker) { a.err = errors.New("connection refused") }},
		{"500", func(a *asker) { a.status = 500 }},
		{"401: the secret is wrong", func(a *asker) { a.status = 401 }},
		{"a redirect", func(a *asker) { a.status = 302 }},
		{"a page", func(a *asker) { a.kind = "text/html" }},
		{"not JSON", func(a *asker) { a.raw = "active" }},
		{"a list", func(a *asker) { a.raw = "[true]" }},
		{"active twice", func(a *asker) { a.raw = `{"active":false,"active":true}` }},
		{"active as a text", func(a *asker) { a.raw = `{"active":"true"}` }},
		{"active as a number", func(a *asker) { a.raw = `{"active":1}` }},
		{"without end", func(a *asker) { a.raw = `{"active":true,"x":"` + strings.Repeat("x", 100<<10) + `"}` }},
		{"no endpoint in the metadata", func(a *asker) { a.endpoint = "" }},
		{"an endpoint over http", func(a *asker) { a.endpoint = "http://as.test/introspect" }},
	} {
		t.Run("RS-23, attack RS-16: "+c.name+" is no answer, and nobody gets in", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, g := asking(t, nil)
				a.tokens["good"] = says(nil)
				c.change(a)
				rec := status(g, "good")
				if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || rec.Header().Get("WWW-Authenticate") != "" {
					t.Errorf("got %d %v", rec.Code, rec.Header())
				}
			})
		})
	}
	t.Run("RS-23, attack RS-16: a slow answer is waited for three seconds, by all who ask together", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			a.tokens["good"], a.slow = says(nil), time.Hour
			began := time.Now()
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if rec := status(g, "good"); rec.Code != 503 || time.Since(began) > 3*time.Second {
						t.Errorf("got %d after %v", rec.Code, time.Since(began))
					}
				})
			}
			all.Wait()
			if a.count() != 1 {
				t.Errorf("%d questions", a.count())
			}
			if rec := status(g, "another"); rec.Code != 503 || time.Since(began) > 3*time.Second {
				t.Errorf("the next one waits again: %d after %v", rec.Code, time.Since(began))
			}
		})
	})
	t.Run("RS-23, attack RS-16: a flapping endpoint", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, func(c *Config) { c.Introspection.Cache = -1 })
			a.tokens["good"] = says(nil)
			for i := range 10 {
				a.change(func() { a.status = map[bool]int{true: 502}[i%2 == 1] })
				want := map[bool]int{true: 503, false: 200}[i%2 == 1]
				if rec := status(g, "good"); rec.Code != want {
					t.Errorf("%d: got %d, want %d", i, rec.Code, want)
				}
				time.Sleep(introspectionPause)
			}
		})
	})
	t.Run("RS-23, attack RS-16: many strangers' tokens at once are bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			a.slow = time.Second
			var all sync.WaitGroup
			for i := range 500 {
				all.Go(func() { status(g, "junk-"+strings.Repeat("x", i)) })
			}
			all.Wait()
			if a.count() > maxQuestions {
				t.Errorf("%d questions", a.count())
			}
			a.change(func() { a.slow = 0 })
			a.tokens["good"] = says(nil)
			if rec := status(g, "good"); rec.Code != 200 {
				t.Errorf("afterwards: %d", rec.Code)
			}
		})
	})
	t.Run("RS-23 who goes away takes nobody along", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			a.tokens["good"], a.slow = says(nil), time.Second
			ctx, cancel := contextWithCancel(t)
			go func() { _, _ = g.Verify(ctx, "good") }()
			synctest.Wait()
			cancel()
			if _, err := g.Verify(t.Context(), "good"); err != nil || a.count() != 1 {
				t.Errorf("%v after %d questions", err, a.count())
			}
		})
	})
}

func TestHowLongAnAnswerCounts(t *testing.T) {
	t.Run("RS-23, attack RS-17: a revoked token is good for the time of the cache and no longer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			a.tokens["good"] = says(nil)
			if rec := status(g, "good"); rec.Code != 200 {
				t.Fatalf("got %d", rec.Code)
			}
			a.change(func() { delete(a.tokens, "good") })
			time.Sleep(introspectionCache - time.Second)
			if rec := status(g, "good"); rec.Code != 200 || a.count() != 1 {
				t.Errorf("within the time: %d after %d questions", rec.Code, a.count())
			}
			time.Sleep(time.Second)
			if rec := status(g, "good"); rec.Code != 401 {
				t.Errorf("after it: %d", rec.Code)
			}
		})
	})
	t.Run("RS-23, attack RS-16: an answer that has run out does not count while the endpoint is down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			a.tokens["good"] = says(nil)
			status(g, "good")
			a.change(func() { a.err = errors.New("down") })
			time.Sleep(introspectionCache)
			if rec := status(g, "good"); rec.Code != 503 {
				t.Errorf("got %d", rec.Code)
			}
		})
	})
	t.Run("RS-23, attack RS-16: never past the expiry of the token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, func(c *Config) { c.Introspection.Cache = 5 * time.Minute })
			a.tokens["good"] = says(map[string]any{"exp": time.Now().Add(10 * time.Second).Unix()})
			status(g, "good")
			time.Sleep(10 * time.Second)
			if rec := status(g, "good"); rec.Code != 401 {
				t.Errorf("got %d", rec.Code)
			}
		})
	})
	t.Run("RS-23 without a cache each request asks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, func(c *Config) { c.Introspection.Cache = -1 })
			a.tokens["good"] = says(nil)
			for range 3 {
				status(g, "good")
			}
			if a.count() != 3 {
				t.Errorf("%d questions", a.count())
			}
		})
	})
	t.Run("RS-23 the memory is bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			past := &verdict{done: make(chan struct{}), until: time.Now().Add(time.Hour)}
			for i := range maxAnswers {
				g.introspect.answers[[32]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}] = past
			}
			a.tokens["good"] = says(nil)
			if rec := status(g, "good"); rec.Code != 200 || len(g.introspect.answers) > maxAnswers {
				t.Errorf("got %d with %d answers", rec.Code, len(g.introspect.answers))
			}
		})
	})
	t.Run("RS-32, RS-23, attack RS-17: an open stream ends soon after its token was revoked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			a.tokens["good"] = says(nil)
			began, lived := time.Now(), time.Duration(0)
			stream := g.Protect(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				time.Sleep(2 * introspectionCache)
				if r.Context().Err() != nil {
					t.Error("it ended while the token was good")
				}
				a.change(func() { delete(a.tokens, "good") })
				<-r.Context().Done()
				lived = time.Since(began)
			}))
			r := httptest.NewRequest(http.MethodGet, "/mcp", nil)
			r.Header.Set("Authorization", "Bearer good")
			stream.ServeHTTP(httptest.NewRecorder(), r)
			if lived > 4*introspectionCache {
				t.Errorf("it lived for %v", lived)
			}
		})
	})
}

func TestIntrospectionSettings(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
	}{
		{"RS-23 no secret", func(c *Config) { c.Introspection.Secret = "" }},
		{"RS-23 two authorization servers", func(c *Config) { c.AuthorizationServers = []string{asked, "https://other.test"} }},
		{"RS-23, attack RS-17: a cache that is too long", func(c *Config) { c.Introspection.Cache = time.Hour }},
		{"RS-23, attack RS-16: a wait that is too long", func(c *Config) { c.Introspection.Timeout = time.Minute }},
		{"RS-23, attack RS-16: a wait of less than nothing", func(c *Config) { c.Introspection.Timeout = -1 }},
		{"RS-23 an endpoint over http", func(c *Config) { c.Introspection.Endpoint = "http://as.test/introspect" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Resource: mcpURL, AuthorizationServers: []string{asked}, Introspection: &Introspection{Secret: "s"}}
			if _, err := New(cfg); err != nil {
				t.Fatal(err)
			}
			c.change(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("it was accepted")
			}
		})
	}
	t.Run("RS-23 an endpoint that was found is looked for again in an hour", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			for _, token := range []string{"one", "two", "three"} {
				a.tokens[token] = says(map[string]any{"exp": time.Now().Add(3 * time.Hour).Unix()})
			}
			if rec := status(g, "one"); rec.Code != 200 {
				t.Fatal(rec.Code)
			}
			a.change(func() { a.endpoint = "" })
			if rec := status(g, "two"); rec.Code != 200 {
				t.Errorf("at once: %d", rec.Code)
			}
			time.Sleep(endpointLife)
			if rec := status(g, "three"); rec.Code != 503 {
				t.Errorf("after an hour: %d", rec.Code)
			}
		})
	})
	t.Run("RS-23 an endpoint that is configured", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, func(c *Config) { c.Introspection.Endpoint, c.Introspection.User = asked+"/introspect", "tracker" })
			a.endpoint, a.tokens["good"] = "", says(nil)
			if rec := status(g, "good"); rec.Code != 200 || a.auth != "Basic "+basicOf("tracker", "s+e%3Acret") {
				t.Errorf("got %d with %q", rec.Code, a.auth)
			}
		})
	})
}
