package token

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	issuer = "https://as.test"
	public = "https://public.test/client.json" // none
	other  = "https://other.test/client.json"  // none
	keyed  = "https://keyed.test/client.json"  // private_key_jwt
	either = "https://either.test/client.json" // both
	goose  = "https://goose.test/client.json"  // none, without refresh_token
	basic  = "registered-basic"

	mcp      = "https://mcp.test/mcp"
	notes    = "https://notes.test/"
	redirect = "http://127.0.0.1:33418/callback"

	mcpSecret = "the secret of the MCP server"
)

// people is a directory that holds what a test puts into it.
type people struct {
	mu      sync.Mutex
	clients map[string]*directory.Client
	keys    jose.Set
	set     *policy.Set
}

func (p *people) Stored(_ context.Context, id string) (*directory.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.clients[id]
	if !ok {
		return nil, oauth.Refuse(oauth.InvalidClient, "unknown").Under("URL-01")
	}
	out := *c
	out.Decision = p.set.Decide(policy.Subject{ID: id})
	return &out, nil
}

// Find finds whom Stored finds: strangers are for the whole house.
func (p *people) Find(ctx context.Context, id string, _ bool) (*directory.Client, error) {
	return p.Stored(ctx, id)
}

func (p *people) Keys(context.Context, *directory.Client, string) (jose.Set, error) {
	return p.keys, nil
}

func (p *people) policy() *policy.Set {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.set
}

// rules puts another policy in force.
func (p *people) rules(t testing.TB, rules ...policy.Rule) {
	t.Helper()
	set := &policy.Set{
		Default: policy.Allow, Rules: rules,
		Resources: []policy.Resource{
			{
				ID: mcp, Name: "MCP server", Aliases: []string{mcp + "/"}, IntrospectionSecret: clientauth.HashSecret(mcpSecret),
				Scopes: []policy.Scope{{Name: "read", Title: "read"}, {Name: "write", Title: "write", Implies: []string{"list"}}, {Name: "list", Title: "list"}, {Name: "admin", Title: "admin"}},
				Details: []policy.DetailType{
					{Type: "folder", Title: "one folder", Scope: "write", Fields: []policy.DetailField{{Name: "path", Title: "Path"}}},
					{Type: "week", Title: "one week"},
				},
			},
			{ID: notes, Name: "Notes", IntrospectionSecret: clientauth.HashSecret("another secret"), Scopes: []policy.Scope{{Name: "read", Title: "read"}}},
			{ID: "https://quiet.test/", Name: "Quiet"},
		},
	}
	if err := set.Check(); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set = set
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

// house is the three endpoints behind the real edge, on a real store.
type house struct {
	*Handler
	clock  *clock
	store  *store.Store
	people *people
	audit  *audit.Log
	mux    *http.ServeMux
	key    jose.Private // of keyed and either
	idp    jose.Private // of the issuers of identity assertions
	secret string       // of basic

	session store.Hash
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{clock: &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, mux: http.NewServeMux()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	h.store, err = store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "bonafide.db"), Now: h.clock.now})
	must(err)
	t.Cleanup(func() { h.store.Close() })
	h.audit, err = audit.New(audit.Config{Sink: h.store, Now: h.clock.now})
	must(err)
	h.key, err = jose.Generate(jose.ES256)
	must(err)
	secret, stored := clientauth.NewSecret()
	h.secret = secret
	grants := []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken}
	h.people = &people{clients: map[string]*directory.Client{}, keys: jose.Set{Keys: []jose.Key{h.key.Public()}}}
	for _, c := range []directory.Client{
		{ID: public, AuthMethods: []string{oauth.MethodNone}, GrantTypes: grants},
		{ID: other, AuthMethods: []string{oauth.MethodNone}, GrantTypes: grants},
		{ID: keyed, AuthMethods: []string{oauth.MethodPrivateKeyJWT}, GrantTypes: grants},
		{ID: either, AuthMethods: []string{oauth.MethodPrivateKeyJWT, oauth.MethodNone}, GrantTypes: grants},
		{ID: goose, AuthMethods: []string{oauth.MethodNone}, GrantTypes: grants[:1]},
		{ID: basic, Source: store.SourceRegistered, AuthMethods: []string{oauth.MethodSecretBasic}, GrantTypes: grants, SecretHash: stored},
	} {
		if c.Source == "" {
			c.Source = store.SourceCIMD
		}
		c.State = directory.StateAllowed
		h.people.clients[c.ID] = &c
	}
	h.people.rules(t)
	ring, err := keyring.New(t.Context(), keyring.Config{Issuer: issuer, Store: h.store, WrapKey: [32]byte{1}, Now: h.clock.now})
	must(err)
	clients, err := clientauth.New(clientauth.Config{Issuer: issuer, Directory: h.people, Spender: h.store, Now: h.clock.now})
	must(err)
	h.Handler, err = New(Config{
		Issuer: issuer, Clients: clients, Grants: h.store, Denials: h.store, Keys: ring, Policy: h.people.policy, Audit: h.audit, Now: h.clock.now,
		IDJAG: h.issuers(t), Identities: h.store, Exchange: exchangeRules,
	})
	must(err)
	edge, err := web.NewEdge(web.EdgeConfig{Issuer: issuer, Now: h.clock.now})
	must(err)
	h.mux.Handle("/token", edge.API(h.Token))
	h.mux.Handle("/revoke", edge.API(h.Revoke))
	h.mux.Handle("/introspect", edge.API(h.Introspect))

	must(h.store.AddUser(t.Context(), store.User{ID: "user-1", Name: "ada", PasswordHash: "x", Created: h.clock.now()}))
	h.signIn(t)
	return h
}

func (h *house) signIn(t testing.TB) {
	t.Helper()
	now := h.clock.now()
	h.session = store.HashOf(oauth.RandomToken(16))
	if err := h.store.StartSession(t.Context(), store.Session{
		Hash: h.session, UserID: "user-1", AuthTime: now, Created: now, LastSeen: now, Expires: now.Add(365 * 24 * time.Hour), ACR: "pwd", AMR: []string{"pwd"},
	}); err != nil {
		t.Fatal(err)
	}
}

// code is an authorization code in the hands of its client.
type code struct {
	client, value, verifier string
	grantID                 string
}

// consent makes the person agree to a client, and returns the code.
func (h *house) consent(t testing.TB, client string, spoil ...func(*store.Grant)) code {
	t.Helper()
	return h.consentTo(t, client, "", spoil...)
}

// consentTo is consent with a key that the code demands.
func (h *house) consentTo(t testing.TB, client, jkt string, spoil ...func(*store.Grant)) code {
	t.Helper()
	now := h.clock.now()
	c := code{client: client, value: oauth.RandomToken(32), verifier: oauth.NewVerifier(), grantID: store.NewID(now)}
	known := h.people.clients[client]
	g := store.Grant{
		ID: c.grantID, UserID: "user-1", ClientID: client, Resource: mcp, Scopes: oauth.Scopes{"read", "write"},
		SecurityDigest: "d1", AuthMethods: known.AuthMethods, AuthTime: now, ACR: "pwd", AMR: []string{"pwd"}, Nonce: "nonce-1",
	}
	for _, s := range spoil {
		s(&g)
	}
	row := store.Client{ID: client, Source: known.Source, State: store.StateAllowed, GrantTypes: known.GrantTypes, AuthMethods: known.AuthMethods}
	var doc *store.Document
	if known.Doc != nil {
		doc = &store.Document{ClientID: client, Body: known.Doc.Raw, Digest: known.Doc.Digest, SecurityDigest: known.SecurityDigest, FetchedAt: now}
	}
	if err := h.store.AnswerConsent(t.Context(), store.Answer{
		Nonce: store.HashOf(oauth.RandomToken(8)), Session: h.session, NonceExpires: now.Add(time.Minute), Client: &row, Document: doc, Grant: g,
		Code: store.Code{Hash: store.HashOf(c.value), JKT: jkt, RedirectURI: redirect, Challenge: oauth.S256(c.verifier), Expires: now.Add(time.Minute)},
	}, now); err != nil {
		t.Fatal(err)
	}
	return c
}

// form returns the token request for the code of a public client.
func (c code) form() url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "code": {c.value}, "code_verifier": {c.verifier}, "client_id": {c.client}, "redirect_uri": {redirect},
	}
}

func refreshForm(client, token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {client}}
}

// response is an answer of one of the endpoints.
type response struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func (r response) get(name string) string {
	s, _ := r.json[name].(string)
	return s
}

func (h *house) post(path string, form url.Values, headers ...string) response {
	r := httptest.NewRequest("POST", issuer+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.mux.ServeHTTP(w, r)
	out := response{status: w.Code, header: w.Header(), body: w.Body.String()}
	_ = json.Unmarshal(w.Body.Bytes(), &out.json) // an empty body has no members
	return out
}

func basicAuth(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(user)+":"+url.QueryEscape(pass)))
}

// ok posts to /token and wants tokens.
func (h *house) ok(t testing.TB, form url.Values, headers ...string) response {
	t.Helper()
	r := h.post("/token", form, headers...)
	if r.status != http.StatusOK || r.get("access_token") == "" {
		t.Fatalf("status %d: %s", r.status, r.body)
	}
	return r
}

// refused posts to /token and wants an error.
func (h *house) refused(t *testing.T, want oauth.Code, form url.Values, headers ...string) response {
	t.Helper()
	r := h.post("/token", form, headers...)
	if oauth.Code(r.get("error")) != want {
		t.Fatalf("status %d, want %s: %s", r.status, want, r.body)
	}
	status := http.StatusBadRequest
	if want == oauth.InvalidClient {
		status = http.StatusUnauthorized
	}
	if r.status != status {
		t.Errorf("status %d, want %d", r.status, status)
	}
	return r
}

// assert adds a fresh client assertion of a client with a key.
func (h *house) assert(t testing.TB, client string, form url.Values) url.Values {
	t.Helper()
	now := h.clock.now().Unix()
	a, err := h.key.Sign("", map[string]any{"iss": client, "sub": client, "aud": issuer, "iat": now, "exp": now + 60, "jti": oauth.RandomToken(8)})
	if err != nil {
		t.Fatal(err)
	}
	form.Del("client_id")
	form.Set("client_assertion_type", oauth.AssertionTypeJWT)
	form.Set("client_assertion", a)
	return form
}

// claims returns the verified claims of an access token.
func (h *house) claims(t *testing.T, r response) keyring.AccessToken {
	t.Helper()
	a, err := h.cfg.Keys.VerifyAccess(r.get("access_token"), h.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// events returns the audit events of a type.
func (h *house) events(t *testing.T, typ audit.Type) []audit.Event {
	t.Helper()
	ev, err := h.store.Events(t.Context(), store.EventQuery{Type: typ, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// active reports whether the grant still lives.
func (h *house) active(t *testing.T, grantID string) bool {
	t.Helper()
	_, err := h.store.GrantActive(t.Context(), grantID)
	return err == nil
}
