package client

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

const appID = "https://app.test/client.json"

// asServer is an authorization server that behaves: it knows what it was asked,
// answers once per code, and rotates refresh tokens. A field changes one thing.
type asServer struct {
	*httptest.Server
	mu       sync.Mutex
	meta     oauth.ServerMetadata
	places   []string                  // metadata paths that were asked
	at       string                    // the only path at which metadata is; "" is RFC 8414's
	answer   func(url.Values)          // changes the answer to the browser
	grant    func(scope string) string // scopes that the user agrees to; nil: all
	token    func(map[string]any)      // changes the token response
	refuse   string                    // error code of the next token responses
	asked    []url.Values              // authorization requests
	posted   []url.Values              // token requests
	auth     []string                  // their Authorization headers
	codes    map[string]url.Values     // open codes and the requests they belong to
	refresh  map[string]string         // good refresh tokens and their scopes
	access   map[string]string         // good access tokens and their scopes
	count    int
	cookies  int    // requests with a cookie
	redirect string // when set, the token endpoint redirects there
}

func newAS(t *testing.T) *asServer {
	t.Helper()
	as := &asServer{codes: map[string]url.Values{}, refresh: map[string]string{}, access: map[string]string{}}
	as.Server = serveTLS(t, as.serve)
	as.meta = oauth.ServerMetadata{
		Issuer: as.URL, AuthorizationEndpoint: as.URL + "/authorize", TokenEndpoint: as.URL + "/token",
		TokenAuthMethods: []string{"client_secret_basic", "none", "private_key_jwt"}, CodeChallengeMethodsSupported: []string{"S256"},
		ClientIDMetadataDocument: true, IssParameterSupported: true,
	}
	return as
}

// serveTLS starts a server that keeps its complaints to itself.
func serveTLS(t *testing.T, h http.HandlerFunc) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func (as *asServer) with(f func()) {
	as.mu.Lock()
	defer as.mu.Unlock()
	f()
}

func (as *asServer) serve(w http.ResponseWriter, r *http.Request) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if r.Header.Get("Cookie") != "" {
		as.cookies++
	}
	at := as.at
	if at == "" {
		at = "/.well-known/oauth-authorization-server"
	}
	switch {
	case strings.Contains(r.URL.Path, "/.well-known/"):
		if as.places = append(as.places, r.URL.Path); r.URL.Path != at {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(as.meta)
	case r.URL.Path == "/authorize":
		as.authorize(w, r)
	case r.URL.Path == "/token" && as.redirect != "":
		http.Redirect(w, r, as.redirect, http.StatusTemporaryRedirect)
	case r.URL.Path == "/token":
		as.tokens(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (as *asServer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	as.asked = append(as.asked, q)
	as.count++
	code := fmt.Sprint("code", as.count)
	as.codes[code] = q
	out := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {as.meta.Issuer}}
	if as.answer != nil {
		as.answer(out)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+out.Encode(), http.StatusSeeOther)
}

func (as *asServer) tokens(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	f := r.PostForm
	as.posted, as.auth = append(as.posted, f), append(as.auth, r.Header.Get("Authorization"))
	fail := func(code string) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "<b>" + code + "</b>"})
	}
	if as.refuse != "" {
		fail(as.refuse)
		return
	}
	var scope string
	switch f.Get("grant_type") {
	case "authorization_code":
		q, ok := as.codes[f.Get("code")]
		delete(as.codes, f.Get("code"))
		if !ok || !oauth.VerifierMatches(f.Get("code_verifier"), q.Get("code_challenge")) ||
			f.Get("redirect_uri") != q.Get("redirect_uri") || f.Get("client_id") != q.Get("client_id") || f.Get("resource") != q.Get("resource") {
			fail("invalid_grant")
			return
		}
		if scope = q.Get("scope"); as.grant != nil {
			scope = as.grant(scope)
		}
	case "refresh_token":
		var ok bool
		if scope, ok = as.refresh[f.Get("refresh_token")]; !ok {
			fail("invalid_grant")
			return
		}
		delete(as.refresh, f.Get("refresh_token"))
	default:
		fail("unsupported_grant_type")
		return
	}
	as.count++
	access, refresh := fmt.Sprint("access", as.count), fmt.Sprint("refresh", as.count)
	as.access[access], as.refresh[refresh] = scope, scope
	out := map[string]any{"access_token": access, "token_type": "bearer", "expires_in": 600, "refresh_token": refresh, "scope": scope, "unheard_of": 1}
	if as.token != nil {
		as.token(out)
	}
	_ = json.NewEncoder(w).Encode(out)
}

// rsServer is an MCP server that wants tokens of an asServer.
type rsServer struct {
	*httptest.Server
	as        *asServer
	mu        sync.Mutex
	meta      oauth.ResourceMetadata
	at        string // path of the metadata
	challenge string // overrides the challenge of a 401; "-" sends none
	seen      []string
	needs     func(r *http.Request, body string) string // scope of an operation
	bodies    []string
}

const insertedPath = "/.well-known/oauth-protected-resource/mcp"

func newRS(t *testing.T, as *asServer) *rsServer {
	t.Helper()
	rs := &rsServer{as: as, at: insertedPath}
	rs.Server = serveTLS(t, rs.serve)
	rs.meta = oauth.ResourceMetadata{Resource: rs.URL + "/mcp", AuthorizationServers: []string{as.URL}, ScopesSupported: []string{"read"}}
	return rs
}

func (rs *rsServer) with(f func()) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	f()
}

func (rs *rsServer) serve(w http.ResponseWriter, r *http.Request) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.seen = append(rs.seen, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Authorization"))
	if strings.HasPrefix(r.URL.Path, "/.well-known/") || r.URL.Path == "/elsewhere" {
		if r.URL.Path != rs.at {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(rs.meta)
		return
	}
	raw, _ := io.ReadAll(r.Body)
	rs.bodies = append(rs.bodies, string(raw))
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	rs.as.mu.Lock()
	scope, good := rs.as.access[token]
	rs.as.mu.Unlock()
	point := `resource_metadata="` + rs.URL + rs.at + `"`
	if !good {
		switch rs.challenge {
		case "":
			w.Header().Set("WWW-Authenticate", `Basic realm="x", Bearer scope="read", `+point)
		case "-":
		default:
			w.Header().Set("WWW-Authenticate", rs.challenge)
		}
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if rs.needs != nil {
		held, _ := oauth.ParseScopes(scope)
		wanted, _ := oauth.ParseScopes(rs.needs(r, string(raw)))
		if !held.Covers(wanted) {
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+wanted.String()+`", `+point)
			w.WriteHeader(http.StatusForbidden)
			return
		}
	}
	fmt.Fprint(w, "done")
}

// world is a client with its servers and a browser without eyes.
type world struct {
	as    *asServer
	rs    *rsServer
	c     *Client
	steps []Step
	opens int
	pages []string // what the browser showed at the end
	mu    sync.Mutex
	now   time.Time
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	as := newAS(t)
	w := &world{as: as, rs: newRS(t, as), now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	roots := x509.NewCertPool()
	roots.AddCert(as.Certificate())
	cfg := Config{ID: appID, RootCAs: roots, Open: w.open, Trace: w.trace, Now: w.clock}
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.c, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) target() string { return w.rs.URL + "/mcp" }

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) trace(s Step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, s)
}

// open is the browser: it follows redirects to the end.
func (w *world) open(address string) error {
	w.mu.Lock()
	w.opens++
	w.mu.Unlock()
	go func() {
		resp, err := w.as.Client().Get(address)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pages = append(w.pages, string(raw))
	}()
	return nil
}

func (w *world) opened() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opens
}

// failed returns the steps that did not go well.
func (w *world) failed(rule string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.steps {
		if s.Rule == rule && !s.OK() {
			return true
		}
	}
	return false
}

func key(t *testing.T, alg string) Key {
	t.Helper()
	k, err := GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// assertionClaims verifies an assertion and returns what it says.
func assertionClaims(t *testing.T, k Key, compact string) (claims map[string]any, typ, kid string) {
	t.Helper()
	m, err := jose.Parse(compact, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(k.private.Public()); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(m.Claims, &claims); err != nil {
		t.Fatal(err)
	}
	return claims, m.Header.Typ, m.Header.KID
}
