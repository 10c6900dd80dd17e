package client

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
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

	// What a server has beyond the plain code flow; it is advertised in meta.
	clock    func() time.Time
	more     func(w http.ResponseWriter, r *http.Request) bool // answers first, if it wants to
	nonce    string                                            // demanded in proofs; "" demands none
	proofs   []*jose.Proof                                     // that came to it
	bound    map[string]string                                 // access and refresh tokens and the keys they are bound to
	pushes   map[string]url.Values                             // pushed requests by request_uri
	headers  []http.Header                                     // of POST requests
	lastForm url.Values                                        // of the last of them
}

func newAS(t *testing.T) *asServer {
	t.Helper()
	as := &asServer{codes: map[string]url.Values{}, refresh: map[string]string{}, access: map[string]string{}, bound: map[string]string{}, pushes: map[string]url.Values{}, clock: time.Now}
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
	if r.Method == http.MethodPost && r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		_ = r.ParseForm()
		as.headers, as.lastForm = append(as.headers, r.Header), r.PostForm
	}
	if as.more != nil && as.more(w, r) {
		return
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
	case r.URL.Path == "/par":
		as.push(w, r)
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
	if uri := q.Get("request_uri"); uri != "" {
		q = as.pushes[uri]
	}
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
	fail := func(code string) { failed(w, http.StatusBadRequest, code) }
	jkt, ok := as.proof(w, r)
	if !ok {
		return
	}
	if as.refuse != "" {
		fail(as.refuse)
		return
	}
	id := f.Get("client_id")
	if user, _, basic := r.BasicAuth(); basic {
		id = user
	}
	var scope string
	switch f.Get("grant_type") {
	case "authorization_code":
		q, ok := as.codes[f.Get("code")]
		ok = ok && (q.Get("dpop_jkt") == "" || q.Get("dpop_jkt") == jkt)
		delete(as.codes, f.Get("code"))
		if !ok || !oauth.VerifierMatches(f.Get("code_verifier"), q.Get("code_challenge")) ||
			f.Get("redirect_uri") != q.Get("redirect_uri") || id != q.Get("client_id") || f.Get("resource") != q.Get("resource") {
			fail("invalid_grant")
			return
		}
		if scope = q.Get("scope"); as.grant != nil {
			scope = as.grant(scope)
		}
	case "refresh_token":
		var ok bool
		if scope, ok = as.refresh[f.Get("refresh_token")]; !ok || as.bound[f.Get("refresh_token")] != jkt {
			fail("invalid_grant")
			return
		}
		delete(as.refresh, f.Get("refresh_token"))
	case "client_credentials":
		scope = f.Get("scope")
	case oauth.GrantDeviceCode:
		scope = "read"
	default:
		fail("unsupported_grant_type")
		return
	}
	as.count++
	access, refresh := fmt.Sprint("access", as.count), fmt.Sprint("refresh", as.count)
	as.access[access], as.refresh[refresh] = scope, scope
	out := map[string]any{"access_token": access, "token_type": "bearer", "expires_in": 600, "refresh_token": refresh, "scope": scope, "unheard_of": 1}
	if jkt != "" {
		as.bound[access], as.bound[refresh], out["token_type"] = jkt, jkt, "dPoP"
	}
	if f.Get("grant_type") == "client_credentials" {
		delete(out, "refresh_token")
	}
	if as.token != nil {
		as.token(out)
	}
	_ = json.NewEncoder(w).Encode(out)
}

func failed(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "<b>" + code + "</b>"})
}

// proof reads the DPoP proof of a request, if there is one, and refuses a bad one.
func (as *asServer) proof(w http.ResponseWriter, r *http.Request) (jkt string, ok bool) {
	raw := r.Header.Get("DPoP")
	if raw == "" {
		return "", true
	}
	p, err := jose.ParseProof(raw, jose.ProofRules{Method: r.Method, URL: as.URL + r.URL.Path, Now: as.clock(), Past: time.Minute, Future: time.Minute})
	if err != nil || len(r.Header["Dpop"]) != 1 {
		failed(w, http.StatusBadRequest, "invalid_dpop_proof")
		return "", false
	}
	as.proofs = append(as.proofs, p)
	if as.nonce != "" {
		w.Header().Set("DPoP-Nonce", as.nonce)
	}
	if p.Nonce != as.nonce {
		failed(w, http.StatusBadRequest, "use_dpop_nonce")
		return "", false
	}
	return p.JKT, true
}

func (as *asServer) push(w http.ResponseWriter, r *http.Request) {
	jkt, ok := as.proof(w, r)
	if !ok {
		return
	}
	as.count++
	uri := fmt.Sprint("urn:ietf:params:oauth:request_uri:", as.count)
	as.pushes[uri] = maps.Clone(r.PostForm)
	if jkt != "" {
		as.pushes[uri].Set("dpop_jkt", jkt)
	}
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"request_uri": uri, "expires_in": 60})
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
	nonce     string                                            // demanded in proofs; "" demands none
	proofs    []*jose.Proof                                     // that came to it
	first     func(w http.ResponseWriter, r *http.Request) bool // answers first, if it wants to
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
	first := rs.first
	rs.mu.Unlock()
	if first != nil && first(w, r) {
		return
	}
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
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	rs.as.mu.Lock()
	scope, good := rs.as.access[token]
	key := rs.as.bound[token]
	rs.as.mu.Unlock()
	point := `resource_metadata="` + rs.URL + rs.at + `"`
	if good && key != "" {
		p, err := jose.ParseProof(r.Header.Get("DPoP"), jose.ProofRules{Method: r.Method, URL: rs.URL + r.URL.Path, Now: rs.as.clock(), Past: time.Minute, Future: time.Minute, AccessToken: token})
		switch {
		case err != nil || p.JKT != key || scheme != "DPoP":
			w.Header().Set("WWW-Authenticate", `DPoP error="invalid_dpop_proof", `+point)
			w.WriteHeader(http.StatusUnauthorized)
			return
		case p.Nonce != rs.nonce:
			rs.proofs = append(rs.proofs, p)
			if rs.nonce != "-" {
				w.Header().Set("DPoP-Nonce", rs.nonce)
			}
			w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		rs.proofs = append(rs.proofs, p)
	} else {
		good = good && scheme == "Bearer"
	}
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
	as.clock = w.clock
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
