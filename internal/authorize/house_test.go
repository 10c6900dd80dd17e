package authorize

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	issuer    = "https://as.example"
	goodID    = "https://good.example.com/c.json"
	nativeID  = "https://native.example.com/c.json"
	keyedID   = "https://keyed.example.com/c.json"
	operated  = "operated" // a registered client
	resource  = "https://mcp.example.com/mcp"
	verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636 appendix B
	challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

// testClock is the time of day in a test.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// place is a whole authorization endpoint over a real store, with a directory
// that has documents in a map instead of on the network, and a sign-in that
// believes what it is told.
type place struct {
	t     testing.TB
	clock *testClock
	store *store.Store
	dir   *shelf
	login *gateman
	edge  *web.Edge
	h     *Handler
	mux   *http.ServeMux
	seen  *events
}

type events struct {
	mu  sync.Mutex
	all []audit.Event
}

func (e *events) add(ev audit.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) types() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, ev := range e.all {
		out = append(out, string(ev.Type))
	}
	return out
}

// shelf is a directory: documents by client_id, the registered rows of the
// store, and the policy asked on every call.
type shelf struct {
	mu      sync.Mutex
	store   *store.Store
	docs    map[string]*cimd.Document
	cold    map[string]bool // documents that would have to be fetched
	fail    map[string]error
	policy  *policy.Set
	logo    []byte
	fetches int

	keys    map[string][]jose.Key
	noKeys  error
	lookups int // of keys
}

func (s *shelf) Find(ctx context.Context, id string, mayFetch bool) (*directory.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail[id]; err != nil {
		return nil, err
	}
	row, err := s.store.Client(ctx, id)
	known := err == nil
	if known && row.State != store.StateAllowed {
		return nil, web.Refuse(http.StatusForbidden, oauth.Refuse(oauth.UnauthorizedClient, "an administrator has blocked this client").Under("REV-06"))
	}
	if known && row.Source == store.SourceRegistered {
		dec := s.policy.Decide(policy.Subject{ID: id})
		return &directory.Client{ID: id, Source: directory.SourceRegistered, Name: row.Name, RedirectURIs: row.RedirectURIs,
			GrantTypes: row.GrantTypes, AuthMethods: row.AuthMethods, Policy: s.policy, Decision: dec, SecurityDigest: "registered"}, nil
	}
	doc, ok := s.docs[id]
	if !ok {
		return nil, web.Refuse(http.StatusBadGateway, oauth.Refuse(oauth.InvalidClient, "the document could not be fetched").Under("FETCH-05"))
	}
	dec := s.policy.Decide(policy.Subject{ID: id, Host: doc.ID.Host(), Port: 443})
	if dec.Action != policy.Allow {
		return nil, web.Refuse(http.StatusForbidden, oauth.Refuse(oauth.UnauthorizedClient, "refused by policy").Under("POL-01"))
	}
	if s.cold[id] {
		if !mayFetch {
			return nil, directory.ErrDeferred
		}
		s.fetches++
		delete(s.cold, id)
	}
	scopes, _ := oauth.ParseScopes(doc.Scope)
	return &directory.Client{ID: id, Source: directory.SourceCIMD, Name: doc.Name, Host: doc.ID.Host(), Doc: doc,
		RedirectURIs: doc.RedirectURIs, GrantTypes: doc.GrantTypes, AuthMethods: doc.AuthMethods, Scopes: scopes, HasScopes: doc.HasScope,
		Policy: s.policy, Decision: dec, SecurityDigest: doc.SecurityDigest, Version: row.Version, FirstSeen: !known}, nil
}

func (s *shelf) Keys(_ context.Context, c *directory.Client, _ string) (jose.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	if s.noKeys != nil {
		return jose.Set{}, s.noKeys
	}
	raw, err := jose.MarshalSet(s.keys[c.ID]...)
	if err != nil {
		return jose.Set{}, err
	}
	return jose.ParseSet(raw, jose.SetLimits{})
}

func (s *shelf) Logo(context.Context, string) ([]byte, error) {
	if s.logo == nil {
		return nil, errors.New("no logo")
	}
	return s.logo, nil
}

// put replaces a document, as a client's host would.
func (s *shelf) put(id string, change func(*cimd.Document)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := *s.docs[id]
	change(&d)
	s.docs[id] = &d
}

// gateman is a sign-in: whoever holds the session cookie it gave out.
type gateman struct {
	edge  *web.Edge
	store *store.Store
	clock *testClock
	last  login.Return
}

func (g *gateman) Current(r *http.Request) (*login.User, error) {
	v := g.edge.Cookie(r, "session")
	if v == "" {
		return nil, nil
	}
	s, u, err := g.store.FindSession(r.Context(), store.HashOf(v), g.clock.Now())
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrExpired) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &login.User{Session: s, User: u}, nil
}

func (g *gateman) Redirect(w http.ResponseWriter, r *http.Request, back login.Return) error {
	g.last = back
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

func document(t testing.TB, id string, change func(*cimd.Document)) *cimd.Document {
	t.Helper()
	cid, err := cimd.Parse(id)
	if err != nil {
		t.Fatalf("parse %s: %v", id, err)
	}
	d := &cimd.Document{
		ID: cid, Name: "Good App", RedirectURIs: []string{"https://" + cid.Host() + "/cb"},
		GrantTypes: []string{"authorization_code", "refresh_token"}, ResponseTypes: []string{"code"}, AuthMethods: []string{"none"},
		ApplicationType: "web", DefaultMaxAge: -1, Raw: []byte(`{"client_id":"` + id + `"}`), Digest: "d1", SecurityDigest: "s1",
		Fetched: start.Add(-3 * time.Minute), Checked: start.Add(-3 * time.Minute),
	}
	if change != nil {
		change(d)
	}
	return d
}

var start = time.Date(2026, 8, 1, 9, 30, 0, 0, time.UTC)

func testPolicy() *policy.Set {
	return &policy.Set{
		Default: policy.Allow,
		Resources: []policy.Resource{
			{ID: resource, Name: "GitHub tools", Aliases: []string{resource + "/"}, Default: oauth.Scopes{"issues:read"}, Scopes: []policy.Scope{
				{Name: "issues:read", Title: "read issues", Description: "Can see the issues that you can see.", Tools: []string{"list_issues", "get_issue"}},
				{Name: "issues:write", Title: "create issues", Description: "Can open issues in your name.", Tools: []string{"create_issue"}, Implies: []string{"issues:read"}},
				{Name: "admin", Title: "change settings"},
			}, Details: []policy.DetailType{
				{Type: "repository", Title: "work in one repository", Description: "Stays inside of it.", Fields: []policy.DetailField{
					{Name: "repository", Title: "Repository", Required: true},
					{Name: "actions", Title: "It may", Values: []string{"read", "write"}, Many: true},
				}},
				{Type: "settings", Title: "change one setting", Scope: "admin"},
			}},
			{ID: "https://other.example.com/mcp", Name: "Other tools", Default: oauth.Scopes{"x"}, Scopes: []policy.Scope{{Name: "x", Title: "do x"}}},
		},
		DefaultResource: resource,
	}
}

func open(t testing.TB, change ...func(*Config)) *place {
	t.Helper()
	return openAt(t, issuer, change...)
}

// openAt is open for an issuer of one's own.
func openAt(t testing.TB, issuer string, change ...func(*Config)) *place {
	t.Helper()
	p := &place{t: t, clock: &testClock{now: start}, seen: &events{}}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	if p.store, err = store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "db"), Logger: quiet, Now: p.clock.Now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.store.Close() })
	log, err := audit.New(audit.Config{Sink: p.store, Observe: p.seen.add, Now: p.clock.Now, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close(context.Background()) })
	if p.edge, err = web.NewEdge(web.EdgeConfig{Issuer: issuer, Logger: quiet, Now: p.clock.Now, Brand: web.Brand{Name: "Acme"}}); err != nil {
		t.Fatal(err)
	}
	set := testPolicy()
	if err := set.Check(); err != nil {
		t.Fatal(err)
	}
	p.dir = &shelf{store: p.store, policy: set, cold: map[string]bool{}, fail: map[string]error{}, docs: map[string]*cimd.Document{
		goodID: document(t, goodID, nil),
		nativeID: document(t, nativeID, func(d *cimd.Document) {
			d.Name, d.RedirectURIs, d.ApplicationType = "Native App", []string{"http://127.0.0.1/cb", "http://localhost/cb"}, "native"
		}),
		keyedID: document(t, keyedID, func(d *cimd.Document) {
			d.Name, d.AuthMethods, d.JWKSURI = "Keyed App", []string{"private_key_jwt"}, "https://keyed.example.com/jwks"
			d.RedirectURIs = append(d.RedirectURIs, "http://127.0.0.1/cb")
		}),
	}}
	p.login = &gateman{edge: p.edge, store: p.store, clock: p.clock}
	for _, name := range []string{"john", "jane"} {
		err := p.store.AddUser(t.Context(), store.User{ID: name, Name: name, Email: name + "@acme.example", PasswordHash: "x", Created: start.Add(-time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
	}
	err = p.store.RegisterClient(t.Context(), store.Client{ID: operated, Name: "Intranet", RedirectURIs: []string{"https://intranet.example.com/cb"},
		GrantTypes: []string{"authorization_code"}, AuthMethods: []string{"client_secret_basic"}}, start)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Issuer: issuer, Directory: p.dir, Store: p.store, SignIn: p.login, Edge: p.edge,
		Sealer: web.NewSealer(sha256.Sum256([]byte("test"))), Audit: log, Now: p.clock.Now, Logger: quiet,
	}
	for _, f := range change {
		f(&c)
	}
	if p.h, err = New(c); err != nil {
		t.Fatal(err)
	}
	p.mux = http.NewServeMux()
	for _, r := range p.h.Routes() {
		p.mux.Handle(r.Pattern, r.Handler)
	}
	return p
}

// person is somebody at a browser.
type person struct {
	p       *place
	cookies map[string]string
	site    string // Sec-Fetch-Site of the next navigation
	extra   http.Header
}

func (p *place) browser() *person {
	return &person{p: p, cookies: map[string]string{}, site: "none", extra: http.Header{}}
}

// signedIn returns a browser in which a user signed in a moment ago.
func (p *place) signedIn(user string) *person {
	b := p.browser()
	b.signIn(user)
	return b
}

func (b *person) signIn(user string) {
	b.p.t.Helper()
	now := b.p.clock.Now()
	token := oauth.RandomToken(32)
	err := b.p.store.StartSession(b.p.t.Context(), store.Session{Hash: store.HashOf(token), UserID: user, AuthTime: now, Created: now, LastSeen: now,
		Expires: now.Add(12 * time.Hour), ACR: login.ACR, AMR: []string{"pwd"}})
	if err != nil {
		b.p.t.Fatal(err)
	}
	b.cookies["__Host-bonafide_session"] = token
}

// answer is a response, read.
type answered struct {
	*http.Response
	body string
}

func (b *person) do(method, target string, form url.Values) answered {
	b.p.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequestWithContext(b.p.t.Context(), method, issuer+target, body)
	r.RemoteAddr = "203.0.113.9:4711"
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", issuer)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	} else if b.site != "" {
		r.Header.Set("Sec-Fetch-Site", b.site)
	}
	for k, v := range b.extra {
		r.Header[k] = v
		if len(v) == 0 {
			r.Header.Del(k)
		}
	}
	for k, v := range b.cookies {
		r.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	w := httptest.NewRecorder()
	b.p.mux.ServeHTTP(w, r)
	res := w.Result()
	for _, c := range res.Cookies() {
		b.cookies[c.Name] = c.Value
	}
	raw, _ := io.ReadAll(res.Body)
	return answered{res, string(raw)}
}

func (b *person) get(target string) answered {
	b.p.t.Helper()
	return b.do(http.MethodGet, target, nil)
}

// asks returns a good authorization request with some parameters replaced; an
// empty value takes a parameter away.
func asks(id string, pairs ...string) url.Values {
	v := url.Values{
		"response_type": {"code"}, "client_id": {id}, "redirect_uri": {"https://good.example.com/cb"}, "scope": {"issues:read"},
		"resource": {resource}, "state": {"s1"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}
	switch id {
	case nativeID:
		v.Set("redirect_uri", "http://127.0.0.1:51004/cb")
	case keyedID:
		v.Set("redirect_uri", "https://keyed.example.com/cb")
	case operated:
		v.Set("redirect_uri", "https://intranet.example.com/cb")
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			v.Del(pairs[i])
		} else {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

func (b *person) authorize(v url.Values) answered {
	b.p.t.Helper()
	return b.get("/authorize?" + v.Encode())
}

var transactionField = regexp.MustCompile(`name="transaction" value="([^"]+)"`)

func (a answered) transaction() string {
	if m := transactionField.FindStringSubmatch(a.body); m != nil {
		return m[1]
	}
	return ""
}

// decide answers a consent page.
func (b *person) decide(page answered, choice string) answered {
	b.p.t.Helper()
	return b.do(http.MethodPost, "/consent", url.Values{"transaction": {page.transaction()}, "decision": {choice}})
}

// consents goes through the consent page once and returns the code.
func (b *person) consents(v url.Values) string {
	b.p.t.Helper()
	page := b.authorize(v)
	if page.transaction() == "" {
		b.p.t.Fatalf("no consent page: %d %s %s", page.StatusCode, page.Header.Get("Location"), page.body)
	}
	return b.decide(page, "allow").code(b.p.t)
}

// location returns the query of a redirect to the client.
func (a answered) location(t testing.TB) url.Values {
	t.Helper()
	if a.StatusCode != http.StatusSeeOther {
		t.Fatalf("status %d instead of 303: %s", a.StatusCode, a.body)
	}
	u, err := url.Parse(a.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

func (a answered) code(t testing.TB) string {
	t.Helper()
	c := a.location(t).Get("code")
	if c == "" {
		t.Fatalf("no code in %s", a.Header.Get("Location"))
	}
	return c
}

// local asserts that the answer stays here: an error page, no redirect.
func (a answered) local(t testing.TB, status int) {
	t.Helper()
	if a.StatusCode != status || a.Header.Get("Location") != "" {
		t.Errorf("got %d, Location %q; want a local page with %d\n%s", a.StatusCode, a.Header.Get("Location"), status, a.body)
	}
	if strings.Contains(a.body, "code=") {
		t.Errorf("the page holds a code:\n%s", a.body)
	}
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
