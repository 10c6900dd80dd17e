// Package client is what an application needs to sign its user in at a
// protected MCP server and to call it: discovery, the browser flow on a
// loopback address, tokens that are kept, refreshed and stepped up, and an
// http.RoundTripper that puts the right token on the right request.
//
//	c, err := client.New(client.Config{ID: "https://app.example/client.json"})
//	…
//	httpClient := c.HTTPClient("https://mcp.example/mcp")
//
// That http.Client fits the Go MCP SDK (StreamableClientTransport.HTTPClient)
// and everything else that speaks HTTP: the first request opens the browser if
// nobody is signed in, and the application never sees a token. Without
// Config.Store it forgets tokens at its end; [NewFileStore] keeps them.
//
// An application on a web server, with a redirect URI there, uses
// [Client.Discover], [Client.Begin] and [Flow.Finish] itself. It needs a Client
// with a [Store] for each of its users, puts what Finish returns into that Store
// under the resource's URL (scheme and host in lower case, no fragment), and sets
// Config.Open to a function that fails: a server has no browser to open.
//
// The client introduces itself with the URL of a document ([Document]); a key
// ([Key]) proves it where it has one. [Config.Trace] tells every exchange and
// every check in plain words.
package client

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/safehttp"
	"github.com/bonafide-id/bonafide/oauth"
)

// Config says who the client is. ID, or an entry in Registered for each
// authorization server, is required; the zero value of the rest works for a
// program on somebody's computer.
type Config struct {
	// ID is the https URL of the client's document. It is the client_id at
	// every authorization server that accepts such documents. For trying things
	// out it may be http on localhost, 127.0.0.1 or [::1]; then no
	// authorization server on the public Internet is told it.
	ID string
	// Registered maps an issuer to the client_id that was registered there
	// before. It is used at that issuer, in place of ID, and nowhere else. An
	// issuer that stands here may be inside a private network even when the
	// resource is not.
	Registered map[string]string
	// Secrets maps an issuer to the client_secret that goes with the client_id in
	// Registered. It is sent to that issuer and to nobody else, unless the client
	// can prove itself with its Key there.
	Secrets map[string]string
	// RegisterAs is the name under which the client registers itself (RFC 7591), as
	// a native application with Redirect, at authorization servers that accept
	// neither documents nor a client_id of Registered; "" never registers. What such
	// a server gives is kept in Store under that server's issuer.
	RegisterAs string
	// Key signs the client's assertions (private_key_jwt) or, without Attest, its
	// attestations. The zero Key means that the client cannot prove itself (method
	// none).
	Key Key
	// Attest gets an attestation for this installation from whoever holds the keys
	// that the document publishes, which is the application's own backend. It is
	// kept in memory until it expires.
	Attest func(ctx context.Context, a Attestation) (string, error)
	// Methods are the authentication methods that the document names; nil is those
	// of attestations with Attest, else private_key_jwt with a Key and none without.
	Methods []string
	// DPoP says when tokens are bound to a key of this installation. The key stands
	// in Store with the tokens.
	DPoP DPoPUse
	// ContentDigest puts the digest of each POST's body into its DPoP proof, as the
	// MCP extension for DPoP wants it. A body of unknown length is then read into
	// memory, up to 1 MiB.
	ContentDigest bool
	// Redirect is the loopback redirect URI of the document; "" is
	// http://127.0.0.1/callback. Without a port in it any free port is used.
	Redirect string

	// Store keeps tokens; nil keeps them in memory.
	Store Store
	// Alone makes the client act for itself, without a person (client credentials).
	// It needs a Key, Attest or a secret, and an authorization server where somebody allowed
	// it that. No browser is opened and Confirm is asked all the same.
	Alone bool
	// Device, when it is set, signs the user in on another device in place of a
	// browser here (RFC 8628). It shows the code and the address and returns; the
	// sign-in goes on until the user has answered, the code has expired or ctx ends,
	// which ends with the sign-in.
	Device func(ctx context.Context, code DeviceCode) error
	// Open shows a URL to the user; nil is [OpenBrowser], which says nothing when
	// there is no browser to start: a program with a terminal prints the URL, too.
	// Only https URLs, and http ones on a loopback address, are passed to it.
	Open func(url string) error
	// Confirm is asked before each sign-in, with exactly the scopes that will be
	// requested; an error stops it. nil agrees: the authorization server's page
	// asks the user anyway.
	Confirm func(ctx context.Context, ask Ask) error
	// Wait is how long a user may take to sign in; 0 is 5 minutes, and on another
	// device as long as the code is good.
	Wait time.Duration

	// HTTP makes all requests; nil is a client of our own that trusts RootCAs
	// (nil: the system's) and ignores proxy variables. Discovery and token
	// requests never follow redirects and bound what they read in either case.
	HTTP    *http.Client
	RootCAs *x509.CertPool
	// Trace is told each exchange and each check, in order; nil is nobody. No
	// step holds a token, code, verifier or assertion. It is called from the
	// goroutines of all calls that are under way, and from those of refreshes.
	Trace func(Step)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Ask is a sign-in that is about to start.
type Ask struct {
	Resource string
	Issuer   string
	Scopes   oauth.Scopes // all that will be requested
	New      oauth.Scopes // those that the client did not ask for before
}

const defaultRedirect = "http://127.0.0.1/callback"

// Client signs in and keeps tokens. It is safe for concurrent use.
type Client struct {
	cfg   Config
	http  *http.Client // discovery and tokens: no redirects, bounded
	calls *http.Client // for requests to the resource

	mu      sync.Mutex               // guards the maps
	signing map[string]chan struct{} // by resource: holds one element during a sign-in
	stepped map[string]int           // by resource and operation: step-ups and sign-ins that did not help
	told    map[string]string        // nonces and challenges, by header and who gave them
	// by client_id and key
	attestations map[string]attested
}

// New checks the configuration and returns a Client. Nothing is sent.
func New(cfg Config) (*Client, error) {
	if cfg.ID == "" && len(cfg.Registered) == 0 && cfg.RegisterAs == "" {
		return nil, errors.New("configure client: neither a document's URL nor a registered client_id is given")
	}
	if cfg.ID != "" {
		if err := checkID(cfg.ID); err != nil {
			return nil, fmt.Errorf("configure client: %w", err)
		}
	}
	if cfg.Redirect == "" {
		cfg.Redirect = defaultRedirect
	}
	if !oauth.LoopbackRedirect(cfg.Redirect) || strings.Contains(cfg.Redirect, "?") {
		return nil, errors.New("configure client: Redirect must be http on 127.0.0.1, [::1] or localhost, without a query")
	}
	if err := cfg.checkMethods(); err != nil {
		return nil, fmt.Errorf("configure client: %w", err)
	}
	if cfg.DPoP != DPoPWhenRequired && cfg.DPoP != DPoPIfOffered && cfg.DPoP != DPoPAlways {
		return nil, fmt.Errorf("configure client: DPoP %q is not one of its constants", cfg.DPoP)
	}
	if cfg.Store == nil {
		cfg.Store = NewMemoryStore()
	}
	if cfg.Open == nil {
		cfg.Open = OpenBrowser
	}
	if cfg.Wait == 0 && cfg.Device == nil {
		cfg.Wait = 5 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{
		cfg: cfg, signing: map[string]chan struct{}{}, stepped: map[string]int{}, told: map[string]string{}, attestations: map[string]attested{},
	}
	c.buildHTTP()
	return c, nil
}

// String names the client and shows none of its keys and secrets.
func (c *Client) String() string { return fmt.Sprintf("client %q", cmp.Or(c.cfg.ID, c.cfg.RegisterAs)) }

// GoString is String, so that %#v shows no secret either.
func (c *Client) GoString() string { return c.String() }

// buildHTTP derives two clients: one for discovery and tokens, and one for calls
// to the resource, whose answers may be endless streams.
func (c *Client) buildHTTP() {
	h := c.cfg.HTTP
	if h == nil {
		h = safehttp.Trusted(safehttp.TrustedConfig{RootCAs: c.cfg.RootCAs, Timeout: requestTimeout, MaxBody: maxBody})
	}
	own, calls := *h, *h
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	own.Jar = nil
	if calls.Transport == nil || c.cfg.HTTP == nil {
		calls.Transport = safehttp.Streaming(safehttp.TrustedConfig{RootCAs: c.cfg.RootCAs})
	}
	if c.cfg.HTTP == nil {
		calls.Timeout, calls.CheckRedirect = 0, nil
	}
	c.http, c.calls = &own, &calls
}

// checkID applies the rules of a client identifier URL that a client maker gets
// wrong most often; the authorization server checks the rest.
func checkID(id string) error {
	u, err := url.Parse(id)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && !onThisComputer(id):
		return fmt.Errorf("client_id %q is not an https URL (http is for trying things out, on localhost, 127.0.0.1 or [::1])", id)
	case u.User != nil || strings.Contains(id, "@") && strings.Contains(u.Host, "@"):
		return fmt.Errorf("client_id %q must not hold user information", id)
	case strings.Contains(id, "#"):
		return fmt.Errorf("client_id %q must not have a fragment", id)
	case u.Path == "" || u.Path == "/":
		return fmt.Errorf("client_id %q needs a path", id)
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return fmt.Errorf("client_id %q must not have dot segments", id)
		}
	}
	return nil
}

// clientID returns the client's name at an authorization server: the one that
// was registered there, else the document's URL where documents are accepted, else
// the one with which the client registered itself before (CLI-06).
func (c *Client) clientID(ctx context.Context, m *oauth.ServerMetadata) (string, error) {
	if id := c.cfg.Registered[m.Issuer]; id != "" {
		return id, nil
	}
	if m.ClientIDMetadataDocument && c.cfg.ID != "" {
		if onThisComputer(c.cfg.ID) && !internal(m.Issuer) {
			return "", fmt.Errorf("%w: %s cannot read %s, which is on this computer", ErrNotAccepted, m.Issuer, c.cfg.ID)
		}
		return c.cfg.ID, nil
	}
	if r, err := c.registration(ctx, m.Issuer); err != nil || r != nil {
		if err != nil {
			return "", err
		}
		return r.ClientID, nil
	}
	return "", fmt.Errorf("%w: %s", ErrNotAccepted, m.Issuer)
}

// Errors that a program may want to tell apart.
var (
	// ErrNotAccepted reports an authorization server that does not advertise
	// client_id_metadata_document_supported and at which no client_id is
	// registered in Config.Registered. The client registers itself only with
	// Config.RegisterAs.
	ErrNotAccepted = errors.New("the authorization server does not accept client documents, and no client_id is registered there")
	// ErrSignIn reports that only the user can go on: nobody is signed in, or
	// the sign-in was ended.
	ErrSignIn = errors.New("the user has to sign in")
	// ErrMismatch reports metadata or an answer that belongs to somebody else:
	// another resource, another issuer, another sign-in.
	ErrMismatch = errors.New("the answer does not belong to the question")
)

// ServerError is a refusal that the authorization server stated.
type ServerError struct {
	Code        oauth.Code
	Description string // the server's words; escape them before they are shown in a page
	Status      int    // HTTP status; 0 when the refusal came through the browser
	Reference   string // what whoever runs the server finds the refusal by; "" where none was given
}

// Error implements error. It is safe to print: what the server sent cannot
// steer a terminal.
func (e *ServerError) Error() string {
	code := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(e.Code))
	text := "the authorization server answered " + code
	if e.Description != "" {
		text += fmt.Sprintf(": %q", e.Description)
	}
	if e.Reference != "" {
		text += fmt.Sprintf(" (its reference is %q)", e.Reference)
	}
	return text
}
