package clientauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	issuer = "https://as.test"
	keyed  = "https://keyed.test/client.json"  // private_key_jwt
	public = "https://public.test/client.json" // none
	either = "https://either.test/client.json" // both
	basic  = "registered-basic"
	post   = "registered-post"
)

// people is a directory that holds what a test puts into it and counts how
// often keys were asked for.
type people struct {
	mu        sync.Mutex
	clients   map[string]*directory.Client
	strangers map[string]*directory.Client
	keys      map[string]jose.Set
	asked     int
	found     int
	fetched   int
	refusal   error // of Find
	err       error // of Stored
	keysErr   error
}

func (p *people) Stored(_ context.Context, id string) (*directory.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, p.err
	}
	c, ok := p.clients[id]
	if !ok {
		return nil, oauth.Refuse(oauth.InvalidClient, "unknown").Under("URL-01")
	}
	return c, nil
}

// Find knows the strangers as well.
func (p *people) Find(ctx context.Context, id string, mayFetch bool) (*directory.Client, error) {
	p.found++
	if p.refusal != nil {
		return nil, p.refusal
	}
	if c, ok := p.strangers[id]; ok {
		if !mayFetch {
			return nil, directory.ErrDeferred
		}
		p.fetched++
		return c, nil
	}
	return p.Stored(ctx, id)
}

func (p *people) Keys(_ context.Context, c *directory.Client, _ string) (jose.Set, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return p.keys[c.ID], p.keysErr
}

func (p *people) add(c directory.Client) *directory.Client {
	c.State, c.Decision = directory.StateAllowed, policy.Decision{Action: policy.Allow, Rule: "test"}
	p.clients[c.ID] = &c
	return &c
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// house is an authenticator with the clients above.
type house struct {
	*Authenticator
	clock  *clock
	people *people
	store  *store.Store
	key    jose.Private // of keyed and either
	secret string       // of basic and post
}

func newHouse(t *testing.T) *house {
	t.Helper()
	c := &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "bonafide.db"), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h := &house{clock: c, store: s, key: generate(t, jose.ES256), people: &people{clients: map[string]*directory.Client{}, keys: map[string]jose.Set{}}}
	secret, stored := NewSecret()
	h.secret = secret
	for _, cl := range []directory.Client{
		{ID: keyed, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodPrivateKeyJWT}},
		{ID: public, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodNone}},
		{ID: either, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodPrivateKeyJWT, oauth.MethodNone}},
		{ID: basic, Source: store.SourceRegistered, AuthMethods: []string{oauth.MethodSecretBasic}, SecretHash: stored},
		{ID: post, Source: store.SourceRegistered, AuthMethods: []string{oauth.MethodSecretPost}, SecretHash: stored},
	} {
		h.people.add(cl)
	}
	h.publish(keyed, h.key.Public())
	h.publish(either, h.key.Public())
	if h.Authenticator, err = New(Config{Issuer: issuer, Directory: h.people, Spender: s, Now: c.now}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) publish(client string, keys ...jose.Key) {
	h.people.keys[client] = jose.Set{Keys: keys}
}

func generate(t *testing.T, alg string) jose.Private {
	t.Helper()
	k, err := jose.Generate(alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// assertionClaims are those of a good assertion; jti is fresh each time.
func (h *house) assertionClaims(client string) map[string]any {
	now := h.clock.now().Unix()
	return map[string]any{
		"iss": client, "sub": client, "aud": issuer, "iat": now, "exp": now + 60, "jti": oauth.RandomToken(12),
	}
}

func (h *house) sign(t *testing.T, typ string, claims map[string]any) string {
	t.Helper()
	a, err := h.key.Sign(typ, claims)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func withAssertion(a string) Request {
	return Request{AssertionType: oauth.AssertionTypeJWT, Assertion: a}
}

// refused checks that a request is the uniform invalid_client under a rule.
func (h *house) refused(t *testing.T, q Request, rule string) {
	t.Helper()
	_, err := h.Authenticate(t.Context(), q)
	e, ok := errors.AsType[*oauth.Error](err)
	if !ok || e.Code != oauth.InvalidClient {
		t.Fatalf("error %v, want invalid_client", err)
	}
	if e.Rule != "CAUTH-17" || e.Hint != h.hint {
		t.Errorf("CAUTH-17: all failures look the same: %s, %q", e.Rule, e.Hint)
	}
	inner, ok := e.Err.(*oauth.Error)
	if !ok || inner.Err == nil || inner.Rule != rule {
		t.Errorf("cause %v, want rule %s", e.Err, rule)
	}
}

func (h *house) accepted(t *testing.T, q Request, method string) *Client {
	t.Helper()
	c, err := h.Authenticate(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if c.Method != method {
		t.Fatalf("method %s, want %s", c.Method, method)
	}
	return c
}

func TestMechanisms(t *testing.T) {
	h := newHouse(t)
	t.Run("a public client names itself in the body", func(t *testing.T) {
		if c := h.accepted(t, Request{ClientID: public}, oauth.MethodNone); c.ID != public || c.KeyThumbprint != "" {
			t.Fatalf("client %+v", c)
		}
		h.accepted(t, Request{ClientID: either}, oauth.MethodNone)
	})
	t.Run("CAUTH-01, attack CA-12: a client with keys only cannot come without an assertion", func(t *testing.T) {
		h.refused(t, Request{ClientID: keyed}, "CAUTH-01")
	})
	t.Run("attack CA-12, CAUTH-14: a secret for a client that is a document", func(t *testing.T) {
		for _, id := range []string{keyed, public, either} {
			h.refused(t, Request{ClientID: id, Secret: "hello"}, "CAUTH-14")
			h.refused(t, Request{Basic: true, BasicUser: id, BasicPass: "hello"}, "CAUTH-14")
		}
	})
	t.Run("CAUTH-14 not even if its row holds a hash", func(t *testing.T) {
		secret, stored := NewSecret()
		h.people.add(directory.Client{ID: "https://odd.test/c", Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodSecretPost}, SecretHash: stored})
		h.refused(t, Request{ClientID: "https://odd.test/c", Secret: secret}, "CAUTH-14")
	})
	t.Run("CAUTH-13 a registered client with its secret", func(t *testing.T) {
		h.accepted(t, Request{Basic: true, BasicUser: basic, BasicPass: h.secret}, oauth.MethodSecretBasic)
		h.accepted(t, Request{Basic: true, BasicUser: basic, BasicPass: h.secret, ClientID: basic}, oauth.MethodSecretBasic)
		h.accepted(t, Request{ClientID: post, Secret: h.secret}, oauth.MethodSecretPost)
	})
	t.Run("CAUTH-13 a wrong secret", func(t *testing.T) {
		h.refused(t, Request{ClientID: post, Secret: h.secret + "x"}, "CAUTH-13")
		h.refused(t, Request{Basic: true, BasicUser: basic, BasicPass: "guess"}, "CAUTH-13")
	})
	t.Run("CAUTH-13 the hash is not the secret", func(t *testing.T) {
		h.refused(t, Request{ClientID: post, Secret: HashSecret(h.secret)}, "CAUTH-13")
	})
	t.Run("CAUTH-01 the method is the registered one", func(t *testing.T) {
		h.refused(t, Request{ClientID: basic, Secret: h.secret}, "CAUTH-01")
		h.refused(t, Request{Basic: true, BasicUser: post, BasicPass: h.secret}, "CAUTH-01")
		h.refused(t, Request{ClientID: post}, "CAUTH-01")
	})
	t.Run("CAUTH-17 an unknown client looks like a failed one", func(t *testing.T) {
		h.refused(t, Request{ClientID: "https://nobody.test/c"}, "URL-01")
		h.refused(t, Request{Basic: true, BasicUser: "nobody", BasicPass: "x"}, "URL-01")
	})
	t.Run("POL-03 a method that the policy excludes", func(t *testing.T) {
		c := h.people.add(directory.Client{ID: "https://strict.test/c", Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodNone}})
		c.Decision.Methods = []string{oauth.MethodPrivateKeyJWT}
		h.refused(t, Request{ClientID: c.ID}, "POL-03")
	})
	t.Run("CAUTH-02, attack CA-12: two mechanisms, or two clients, or none", func(t *testing.T) {
		good := h.sign(t, "", h.assertionClaims(either))
		for name, q := range map[string]Request{
			"assertion and Basic":            {AssertionType: oauth.AssertionTypeJWT, Assertion: good, Basic: true, BasicUser: either},
			"assertion and secret":           {AssertionType: oauth.AssertionTypeJWT, Assertion: good, ClientID: either, Secret: "x"},
			"Basic and secret":               {Basic: true, BasicUser: basic, BasicPass: h.secret, ClientID: basic, Secret: h.secret},
			"attack TK-10: two client names": {Basic: true, BasicUser: basic, BasicPass: h.secret, ClientID: post},
			"attack TK-10: no client at all": {},
		} {
			if _, err := h.Authenticate(t.Context(), q); oauth.AsError(err).Code != oauth.InvalidRequest {
				t.Errorf("%s: %v", name, err)
			}
		}
		h.accepted(t, withAssertion(good), oauth.MethodPrivateKeyJWT) // none of it burned the assertion
	})
	t.Run("URL-15 a store that fails is not an unknown client", func(t *testing.T) {
		boom := errors.New("disk on fire")
		h.people.err = boom
		defer func() { h.people.err = nil }()
		_, err := h.Authenticate(t.Context(), Request{ClientID: public})
		if !errors.Is(err, boom) || oauth.AsError(err).Code != oauth.ServerError {
			t.Fatalf("error %v", err)
		}
	})
}

func TestFromHTTP(t *testing.T) {
	h := newHouse(t)
	header := func(user, pass string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
	}
	request := func(t *testing.T, body url.Values, authorization ...string) Request {
		t.Helper()
		r := httptest.NewRequest("POST", "/token?client_id="+url.QueryEscape(public), strings.NewReader(body.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, a := range authorization {
			r.Header.Add("Authorization", a)
		}
		p, err := web.ParseBody(r)
		if err != nil {
			t.Fatal(err)
		}
		return FromHTTP(r, p)
	}
	t.Run("URL-17 the user name of Basic is form-decoded", func(t *testing.T) {
		id := "https://reg.test/a:b?c=d%20e"
		h.people.add(directory.Client{ID: id, Source: store.SourceRegistered, AuthMethods: []string{oauth.MethodSecretBasic}, SecretHash: HashSecret("a b+c:d")})
		h.accepted(t, request(t, nil, header(url.QueryEscape(id), url.QueryEscape("a b+c:d"))), oauth.MethodSecretBasic)
	})
	t.Run("URL-17 the Go MCP SDK: Basic with an empty secret fails, then client_id in the body is good", func(t *testing.T) {
		h.refused(t, request(t, nil, header(url.QueryEscape(public), "")), "CAUTH-13")
		h.accepted(t, request(t, url.Values{"client_id": {public}}), oauth.MethodNone)
	})
	t.Run("attack TK-10: a raw colon splits the name", func(t *testing.T) {
		h.refused(t, request(t, nil, header(public, "")), "URL-01")
	})
	t.Run("TOK-19 a header that is not usable", func(t *testing.T) {
		for _, a := range [][]string{
			{"Bearer abc"}, {"Basic !!!"}, {"Basic"}, {header("a%zz", "b")}, {header("a", "%")}, {header(basic, h.secret), header(basic, h.secret)},
		} {
			h.refused(t, request(t, url.Values{"client_id": {public}}, a...), "TOK-19")
		}
	})
	t.Run("TOK-01 credentials in the query are not seen", func(t *testing.T) {
		if q := request(t, nil); q.Basic || q.ClientID+q.Secret+q.Assertion+q.AssertionType != "" {
			t.Fatalf("read %+v", q)
		}
	})
	t.Run("an empty client_secret is none", func(t *testing.T) {
		h.accepted(t, request(t, url.Values{"client_id": {public}, "client_secret": {""}}), oauth.MethodNone)
	})
}

func TestLimiter(t *testing.T) {
	h := newHouse(t)
	// through the edge, which knows the address
	try := func(t *testing.T, ip, id, secret string) *oauth.Error {
		t.Helper()
		edge, err := web.NewEdge(web.EdgeConfig{Issuer: issuer, Now: h.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		var got error
		r := httptest.NewRequest("POST", "/", nil)
		r.RemoteAddr = ip
		edge.API(func(w http.ResponseWriter, r *http.Request) error {
			_, got = h.Authenticate(r.Context(), Request{ClientID: id, Secret: secret})
			return nil
		}).ServeHTTP(httptest.NewRecorder(), r)
		if got == nil {
			return nil
		}
		return oauth.AsError(got)
	}
	t.Run("CAUTH-13, POL-08 whoever guesses has to wait, others do not", func(t *testing.T) {
		for range 10 {
			if e := try(t, "203.0.113.7:1000", post, "guess"); e.Code != oauth.InvalidClient {
				t.Fatalf("error %v", e)
			}
		}
		if e := try(t, "203.0.113.7:1000", post, h.secret); e == nil || e.Code != oauth.TemporarilyUnavailable {
			t.Fatalf("after ten guesses even the right secret waits: %v", e)
		}
		if e := try(t, "203.0.113.8:1000", post, h.secret); e != nil {
			t.Fatalf("another address: %v", e)
		}
		h.clock.move(time.Minute)
		if e := try(t, "203.0.113.7:1000", post, h.secret); e != nil {
			t.Fatalf("a minute later: %v", e)
		}
	})
	t.Run("POL-08 one IPv6 network is one source", func(t *testing.T) {
		for i := range 10 {
			try(t, fmt.Sprintf("[2001:db8:1:2::%x]:1000", i+1), post, "guess")
		}
		if e := try(t, "[2001:db8:1:2:ffff::1]:1000", post, h.secret); e == nil || e.Code != oauth.TemporarilyUnavailable {
			t.Fatalf("error %v", e)
		}
		if e := try(t, "[2001:db8:1:3::1]:1000", post, h.secret); e != nil {
			t.Fatalf("another network: %v", e)
		}
	})
	t.Run("POL-08 a success forgets the failures before it", func(t *testing.T) {
		for range 3 {
			for range 9 {
				try(t, "203.0.113.9:1000", post, "guess")
			}
			if e := try(t, "203.0.113.9:1000", post, h.secret); e != nil {
				t.Fatal(e)
			}
		}
	})
	t.Run("POL-08 memory is bounded, and the worst offenders stay", func(t *testing.T) {
		l := NewLimiter(LimiterConfig{Tries: 2, Max: 50, Now: h.clock.now})
		l.Failed("villain")
		l.Failed("villain")
		for i := range 1000 {
			l.Failed(fmt.Sprint("bystander ", i))
		}
		if len(l.tries) > 50 {
			t.Fatalf("%d sources", len(l.tries))
		}
		if l.Allow("villain") {
			t.Fatal("the villain was forgotten")
		}
		h.clock.move(time.Minute)
		l.Failed("one more")
		if len(l.tries) != 1 {
			t.Fatalf("%d sources after their windows ended", len(l.tries))
		}
	})
}

func TestConfig(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[string]Config{
		"no issuer":    {Directory: h.people, Spender: h.store},
		"no directory": {Issuer: issuer, Spender: h.store},
		"no spender":   {Issuer: issuer, Directory: h.people},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Config{Issuer: issuer, Directory: h.people, Spender: h.store}); err != nil {
		t.Error(err)
	}
}

func TestAuditOfFailures(t *testing.T) {
	h := newHouse(t)
	log, err := audit.New(audit.Config{Sink: h.store, Now: h.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	h.cfg.Audit = log
	m := h.assertionClaims(keyed)
	m["aud"] = "https://evil.test"
	h.refused(t, withAssertion(h.sign(t, "", m)), "CAUTH-04")
	h.refused(t, Request{ClientID: post, Secret: "my-guess"}, "CAUTH-13")
	h.accepted(t, Request{ClientID: public}, oauth.MethodNone)
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	events, err := h.store.Events(t.Context(), store.EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("CAUTH-17 the audit log says which check failed, and holds no secret", func(t *testing.T) {
		if len(events) != 2 || events[0].Rule != "CAUTH-04" || events[0].Client != keyed || events[1].Rule != "CAUTH-13" || events[1].Client != post {
			t.Fatalf("events %+v", events)
		}
		for _, e := range events {
			if e.Data["check"] == "" || strings.Contains(string(e.MarshalLine()), "my-guess") {
				t.Errorf("event %s", e.MarshalLine())
			}
		}
	})
}
