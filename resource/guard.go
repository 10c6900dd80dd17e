// Package resource protects an MCP server: it publishes where to sign in
// (RFC 9728), checks the access token of every request (RFC 9068), and decides
// which tool a token may call.
//
// Build a [Guard] once with [New]. [Guard.Handler] is the whole job in one
// line: it serves the metadata and guards everything else. Where several
// resources share a host, mount [Guard.MetadataHandler] at [Guard.MetadataPath]
// and wrap each server with [Guard.Protect]. A handler learns who calls with
// [FromContext]; the token itself never reaches it, so it cannot be passed on.
//
// A scope in a token is necessary and not sufficient: what this user may do
// with these arguments stays the server's own decision.
//
// For the Go MCP SDK there is the sub-package resourcemcp.
package resource

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// Scope is one permission and the narrower ones that it includes.
type Scope struct {
	Name    string
	Implies []string // whoever holds Name holds these too, and what they imply
}

// Config says what is protected and by whom. Resource and AuthorizationServers
// are required; the zero value of everything else is a safe choice.
type Config struct {
	// Resource is the public URL of the MCP server, as clients write it:
	// https, lower-case, without default port, query and fragment. It is what a
	// token's audience must hold and what the metadata is built from; the Host
	// header never is. http is accepted for a loopback address.
	Resource string
	// AuthorizationServers are the issuers whose tokens are accepted. Their keys
	// are found through their own metadata and never mixed.
	AuthorizationServers []string
	// Name, Documentation and Policy are shown to people by clients (RFC 9728
	// section 2): a name, and the URLs of two pages.
	Name, Documentation, Policy string

	// Baseline are the scopes that every request needs. A request without a
	// token is asked for these and no more.
	Baseline []string
	// ScopesSupported is what the metadata lists; nil means Baseline.
	ScopesSupported []string
	// Scopes is the hierarchy. When it is not empty, every scope that this
	// configuration names must stand in it, so that a slip of the pen is found
	// at start-up.
	Scopes []Scope
	// Tools maps a tool's name, byte for byte, to the scopes a call needs beside
	// Baseline. When Tools, DefaultToolScopes, Methods and Strength are all nil,
	// bodies are not read at all.
	Tools map[string][]string
	// DefaultToolScopes is what a tool outside Tools needs beside Baseline. nil
	// means that such a tool does not exist: the guard answers the call with
	// "unknown tool" and the server never sees it. An empty list means Baseline
	// is enough, and so does nil when Tools is nil, too.
	DefaultToolScopes []string
	// Methods maps other JSON-RPC methods, such as "resources/read", to the
	// scopes they need beside Baseline.
	Methods map[string][]string

	// Strength maps tools to how the person has to have signed in for a call (RFC
	// 9470). Each one has to be among the tools.
	Strength map[string]Strength
	// HideTools leaves out of lists what the token's scopes do not cover. Package
	// resourcemcp does so; a server of your own asks [Guard.Shows].
	HideTools bool

	// Introspection, if not nil, asks the authorization server about each token.
	Introspection *Introspection

	// Origins are the web origins whose pages may call, such as
	// "https://inspector.example"; "*" is any. A request with another Origin is
	// refused. The resource's own origin is always good.
	Origins []string
	// Hosts are further values of the Host header that are good on a loopback
	// listener, beside the resource's host and the loopback names; "*" is any.
	// They matter for a server on the user's own computer, which web pages try
	// to reach by rebinding a name (DNS rebinding).
	Hosts []string

	// MaxBody bounds the body of one message in bytes; 0 is 4 MiB.
	MaxBody int64
	// Algorithms is the allow-list for token signatures; nil is ES256, PS256,
	// RS256 and EdDSA. Nothing outside those four is possible.
	Algorithms []string
	// Skew is how far ahead of ours an issuer's clock may be (iat, nbf); 0 is
	// 60 seconds. exp is compared without it: a client whose token is refused
	// a moment early gets a new one.
	Skew time.Duration
	// AllowMissingTyp accepts tokens whose typ is absent or "JWT", for
	// authorization servers that do not follow RFC 9068. Tokens that look like
	// ID tokens stay refused.
	AllowMissingTyp bool

	// DPoP says how tokens are taken that are bound to a key of the client.
	DPoP DPoP
	// Certificate returns the TLS certificate of the caller, or nil, for tokens
	// that are bound to one (RFC 8705). nil is the certificate of the connection;
	// behind a proxy that ends TLS, it is for you to read what the proxy says, and
	// to make sure that nobody else can say it.
	Certificate func(*http.Request) *x509.Certificate

	// HTTP fetches issuer metadata and keys; nil is a client of our own that
	// trusts RootCAs (nil: the system's) and ignores proxy variables. Redirects
	// are never followed and bodies are bounded in either case.
	HTTP    *http.Client
	RootCAs *x509.CertPool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Observe is called once per guarded request with what was decided and why,
	// for logs and audit; nil is nobody. It must not block.
	Observe func(context.Context, Decision)
}

// Decision is what a [Guard] decided on one request. It never holds a token.
type Decision struct {
	Allowed bool
	Status  int           // HTTP status of a refusal; 0 when allowed
	Code    oauth.Code    // error code as sent; "" when allowed or when no credentials came
	Rule    string        // requirement row that failed, such as "RS-11"
	Err     error         // the private cause, for the log
	Method  string        // JSON-RPC method, where the body was read; of a batch, the deciding one
	Tool    string        // tool name of a tools/call
	Needed  oauth.Scopes  // what the operation needs
	Token   Token         // zero when no valid token came
	Took    time.Duration // what the decision cost

	dpop bool // the answer is about a bound token
}

// Guard protects one resource. It is safe for concurrent use.
type Guard struct {
	cfg          Config
	origin, host string
	metadataPath string
	metadataURL  string
	metadata     []byte
	baseline     oauth.Scopes
	tools        map[string]oauth.Scopes // full needs: baseline and the tool's
	methods      map[string]oauth.Scopes
	otherTools   oauth.Scopes
	implied      map[string]oauth.Scopes // scope -> itself and all below it
	algorithms   []string
	issuers      map[string]*issuer
	nonces       *jose.Nonces
	proofs       *replays
	introspect   *introspector // nil: tokens are checked here alone
}

// New checks the configuration and returns a Guard. Nothing is fetched: keys
// come with the first token.
func New(cfg Config) (*Guard, error) {
	g := &Guard{cfg: cfg, algorithms: cfg.Algorithms}
	g.defaults()
	for _, step := range []func() error{g.readResource, g.readScopes, g.readAlgorithms, g.readStrength, g.readOrigins, g.readIssuers, g.readIntrospection, g.readDPoP, g.buildMetadata} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("configure resource guard: %w", err)
		}
	}
	return g, nil
}

func (g *Guard) defaults() {
	if g.cfg.Now == nil {
		g.cfg.Now = time.Now
	}
	if g.cfg.Skew == 0 {
		g.cfg.Skew = time.Minute
	}
	if g.cfg.MaxBody == 0 {
		g.cfg.MaxBody = 4 << 20
	}
	if g.cfg.Observe == nil {
		g.cfg.Observe = func(context.Context, Decision) {}
	}
}

// readResource insists on one spelling, because clients and tokens repeat this
// URL byte for byte.
func (g *Guard) readResource() error {
	raw := g.cfg.Resource
	u, err := checkURL("resource", raw)
	if err != nil {
		return err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return errors.New("resource: a query is not supported; use a path")
	}
	if u.Path != "" && (u.EscapedPath() != u.Path || slices.ContainsFunc(strings.Split(u.Path, "/")[1:], dots)) {
		return errors.New("resource: the path must be plain, without escapes and dot segments")
	}
	if g.metadataURL, err = oauth.ResourceMetadataURL(raw); err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	g.origin, g.host = u.Scheme+"://"+u.Host, u.Host
	g.metadataPath = strings.TrimPrefix(g.metadataURL, g.origin)
	return nil
}

func dots(segment string) bool { return segment == "." || segment == ".." }

// checkURL accepts an https URL, or an http one on a loopback address, in its
// one canonical spelling.
func checkURL(what, raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return nil, fmt.Errorf("%s: %q is not an absolute URL", what, raw)
	case u.Scheme != "https" && (u.Scheme != "http" || !loopbackHost(u.Hostname())):
		return nil, fmt.Errorf("%s: %q must use https (http only on a loopback address)", what, raw)
	case u.User != nil:
		return nil, fmt.Errorf("%s: %q must not hold user information", what, raw)
	case strings.Contains(raw, "#"):
		return nil, fmt.Errorf("%s: %q must not have a fragment", what, raw)
	case !strings.HasPrefix(raw, u.Scheme+"://"+u.Host) || strings.ToLower(u.Host) != u.Host:
		return nil, fmt.Errorf("%s: write scheme and host of %q in lower case", what, raw)
	case u.Port() == map[string]string{"https": "443", "http": "80"}[u.Scheme] || strings.HasSuffix(u.Host, ":"):
		return nil, fmt.Errorf("%s: leave the default port out of %q", what, raw)
	}
	return u, nil
}

func (g *Guard) readAlgorithms() error {
	if g.algorithms == nil {
		g.algorithms = jose.Algorithms
	}
	for _, a := range g.algorithms {
		if !slices.Contains(jose.Algorithms, a) {
			return fmt.Errorf("algorithm %q is not one of %s", a, strings.Join(jose.Algorithms, ", "))
		}
	}
	if len(g.algorithms) == 0 {
		return errors.New("no signature algorithm is allowed")
	}
	return nil
}

func (g *Guard) readOrigins() error {
	for _, o := range g.cfg.Origins {
		if o == "*" {
			continue
		}
		u, err := url.Parse(o)
		if err != nil || u.Host == "" || u.Scheme+"://"+u.Host != o || strings.ToLower(o) != o {
			return fmt.Errorf("origin %q must look like https://host or https://host:port", o)
		}
	}
	return nil
}

func (g *Guard) readIssuers() error {
	if len(g.cfg.AuthorizationServers) == 0 {
		return errors.New("at least one authorization server is needed")
	}
	client := g.httpClient()
	g.issuers = make(map[string]*issuer, len(g.cfg.AuthorizationServers))
	for _, id := range g.cfg.AuthorizationServers {
		u, err := checkURL("authorization server", id)
		if err != nil {
			return err
		}
		if strings.Contains(id, "?") {
			return fmt.Errorf("authorization server %q must not have a query", id)
		}
		if g.issuers[id] != nil {
			return fmt.Errorf("authorization server %q is named twice", id)
		}
		g.issuers[id] = &issuer{id: id, plain: u.Scheme == "http", http: client, now: g.cfg.Now}
	}
	return nil
}
