// Package housetest runs the whole server in a test: the daemon's own code over
// TLS at https://as.test, in a small internet with document hosts, a clock that
// the test moves, people with browsers and clients that speak to /token. Nothing
// is replaced but the network, the clock and the names.
package housetest

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/safehttp"
	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// Names that every house has.
const (
	Issuer   = "https://as.test"
	Resource = "https://mcp.test/mcp"
	Redirect = "https://good.test/cb"
	User     = "john"
	Password = "correct horse battery"

	// Verifier and Challenge are the pair of RFC 7636 appendix B.
	Verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	Challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

// Config is the configuration of a house before a test changes it.
const Config = `
issuer: https://as.test
store: house.db
key_file: house.key
brand: {name: Acme}
cimd: {enabled: true, allow_test_names: true}
resources:
  - id: https://mcp.test/mcp
    name: Example tools
    aliases: [https://mcp.test/mcp/]
    default_scopes: [mcp:read]
    introspection_secret_sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
    scopes:
      - {name: "mcp:read", title: look things up, description: It can read what you can read., tools: [search]}
      - {name: "mcp:write", title: make changes, description: It can change things in your name., tools: [create], implies: ["mcp:read"]}
policy: {default: allow}
`

// IntrospectionSecret is the secret behind the hash in Config.
const IntrospectionSecret = "secret"

// House is a running server with its surroundings.
type House struct {
	TB     testing.TB
	Net    *cimdtest.Net
	Server *server.Server // the first, where there are several
	Dir    string
	HTTP   *http.Client // for programs: no cookies, no redirects
	Log    io.Writer    // of servers that Start starts, everything down to the last detail; nil for nowhere

	provider *Provider // the last one of NewProvider

	replicas

	mu     sync.Mutex // guards what follows
	now    time.Time
	events []audit.Event
}

// New starts a house. changes are pairs of text in Config and what stands there
// instead; a pair whose first half is empty is appended.
func New(t testing.TB, changes ...string) *House {
	t.Helper()
	return newHouse(t, everyHouse(t), changes...)
}

func newHouse(t testing.TB, r replicas, changes ...string) *House {
	t.Helper()
	h := &House{replicas: r, TB: t, Net: cimdtest.New(t), Dir: t.TempDir(), now: time.Now().Truncate(time.Second)}
	if err := os.WriteFile(filepath.Join(h.Dir, "house.key"), []byte(oauth.RandomToken(32)), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Net.Host("good.test").ServeClient("/c.json", nil)
	h.HTTP = safehttp.Trusted(safehttp.TrustedConfig{
		RootCAs: h.Net.RootCAs(), Timeout: 20 * time.Second, MaxBody: 2 << 20, Lookup: h.Net.Lookup, Dial: h.Net.Dial,
	})
	h.Start(changes...)
	h.AddUser(User, Password)
	return h
}

// Start starts the server, or starts it anew on the same database.
func (h *House) Start(changes ...string) {
	h.TB.Helper()
	text := h.stored(Config)
	for i := 0; i+1 < len(changes); i += 2 {
		if changes[i] == "" {
			text += changes[i+1] + "\n"
			continue
		}
		if !strings.Contains(text, changes[i]) {
			h.TB.Fatalf("the configuration does not hold %q", changes[i])
		}
		text = strings.Replace(text, changes[i], changes[i+1], 1)
	}
	cfg, err := server.Parse([]byte(text), h.Dir, false)
	if err != nil {
		h.TB.Fatal(err)
	}
	h.servers = nil
	for range max(h.count, 1) {
		h.servers = append(h.servers, h.serve(cfg))
	}
	h.Server = h.servers[0]
	h.Net.Host("as.test").Handle("*", h.balance())
}

// serve starts one server.
func (h *House) serve(cfg *server.Config) *server.Server {
	h.TB.Helper()
	e, logs := h.Net.Egress(), slog.New(slog.NewTextHandler(io.Discard, nil))
	if h.Log != nil {
		logs = slog.New(slog.NewTextHandler(h.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := server.New(h.TB.Context(), cfg, server.Options{
		Logger: logs, Now: h.Now,
		Observe: func(ev audit.Event) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.events = append(h.events, ev)
		},
		Egress: &cimd.Egress{Lookup: e.Lookup, Dial: e.Dial, RootCAs: e.RootCAs},
	})
	if err != nil {
		h.TB.Fatal(err)
	}
	h.TB.Cleanup(s.Close)
	return s
}

// Now is the clock of the house.
func (h *House) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// Later moves the clock.
func (h *House) Later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// Events returns the audit events of a type so far. Those of refusals
// are written behind the answer: close the server to have them all.
func (h *House) Events(kind audit.Type) []audit.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []audit.Event
	for _, e := range h.events {
		if e.Type == kind {
			out = append(out, e)
		}
	}
	return out
}

// Store opens the database of the house beside the server, as the command line does.
func (h *House) Store() *store.Store {
	h.TB.Helper()
	s, err := store.Open(h.TB.Context(), store.Config{Path: h.storePath(), Now: h.Now})
	if err != nil {
		h.TB.Fatal(err)
	}
	h.TB.Cleanup(func() { s.Close() })
	return s
}

// AddUser adds an account.
func (h *House) AddUser(name, password string) store.User {
	h.TB.Helper()
	u, err := login.NewUser(name, name+"@acme.example", password, h.Now())
	if err != nil {
		h.TB.Fatal(err)
	}
	s := h.Store()
	defer s.Close()
	if err := s.AddUser(h.TB.Context(), u); err != nil {
		h.TB.Fatal(err)
	}
	return u
}

// ClientID is the client that every house serves a good document for.
const ClientID = "https://good.test/c.json"

// Authorize returns the URL of an authorization request: a good one, with
// changes as pairs of name and value. An empty value leaves the parameter out.
func (h *House) Authorize(changes ...string) string {
	q := url.Values{
		"response_type": {"code"}, "client_id": {ClientID}, "redirect_uri": {Redirect}, "scope": {"mcp:read"},
		"resource": {Resource}, "state": {"s1"}, "code_challenge": {Challenge}, "code_challenge_method": {"S256"},
	}
	for i := 0; i+1 < len(changes); i += 2 {
		if q.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			q.Del(changes[i])
		}
	}
	return Issuer + "/authorize?" + q.Encode()
}

// Person returns a browser without cookies. It stops where the server has sent
// it away.
func (h *House) Person() *Person {
	h.TB.Helper()
	b, err := browse.New(browse.Config{
		RootCAs: h.Net.RootCAs(), Lookup: h.Net.Lookup, Dial: h.Net.Dial,
		Stops: func(u *url.URL) bool { return u.Host != "as.test" },
	})
	if err != nil {
		h.TB.Fatal(err)
	}
	return &Person{House: h, Browser: b}
}

// Person is somebody with a browser.
type Person struct {
	House *House
	*browse.Browser
}

// Visit opens an address.
func (p *Person) Visit(address string) *browse.Page {
	p.House.TB.Helper()
	page, err := p.Open(p.House.TB.Context(), address)
	if err != nil {
		p.House.TB.Fatal(err)
	}
	return page
}

// VisitFrom opens an address by a link on another site.
func (p *Person) VisitFrom(address, site string) *browse.Page {
	p.House.TB.Helper()
	page, err := p.From(p.House.TB.Context(), address, site)
	if err != nil {
		p.House.TB.Fatal(err)
	}
	return page
}

// Send submits a form.
func (p *Person) Send(f *browse.Form) *browse.Page {
	p.House.TB.Helper()
	page, err := p.Submit(p.House.TB.Context(), f)
	if err != nil {
		p.House.TB.Fatal(err)
	}
	return page
}

// SignIn fills in the sign-in page.
func (p *Person) SignIn(page *browse.Page) *browse.Page {
	p.House.TB.Helper()
	return p.SignInAs(page, User, Password)
}

// SignInAs fills in the sign-in page with a name and a password.
func (p *Person) SignInAs(page *browse.Page, name, password string) *browse.Page {
	p.House.TB.Helper()
	f, err := page.Form("password")
	if err != nil {
		p.House.TB.Fatal(err)
	}
	return p.Send(f.With("username", name).With("password", password))
}

// Answer allows or denies on the consent page.
func (p *Person) Answer(page *browse.Page, decision string) *browse.Page {
	p.House.TB.Helper()
	f, err := page.Form("decision")
	if err != nil {
		p.House.TB.Fatal(err)
	}
	return p.Send(f.With("decision", decision))
}

// Consent opens an authorization request, signs in if asked, allows, and returns
// the address that the browser was sent to.
func (p *Person) Consent(address string) *url.URL {
	p.House.TB.Helper()
	page := p.Visit(address)
	if page.Has("password") {
		page = p.SignIn(page)
	}
	if !page.Left {
		page = p.Answer(page, "allow")
	}
	if !page.Left {
		p.House.TB.Fatalf("the browser is still at %s (%d): %s", page.URL, page.Status, page.Text())
	}
	return page.URL
}

// Code is Consent for a test that only wants the code.
func (p *Person) Code(address string) string {
	p.House.TB.Helper()
	u := p.Consent(address)
	code := u.Query().Get("code")
	if code == "" {
		p.House.TB.Fatalf("no code: %s", u)
	}
	return code
}
