package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

const (
	requestTimeout = 10 * time.Second
	maxBody        = 1 << 20
)

// Server is where and how to sign in for one resource, after every check.
type Server struct {
	Resource         string       // the resource's identifier, for the resource parameter
	Issuer           string       // the authorization server
	ClientID         string       // who the client is at that server
	Scopes           oauth.Scopes // what to ask for at first; empty asks for nothing in particular
	ResourceMetadata oauth.ResourceMetadata
	Metadata         oauth.ServerMetadata
}

// Discover finds out where to sign in for the resource at a URL: it asks the
// resource without a token, reads its challenge and its metadata, and then the
// authorization server's. Each document must be about the one that was asked
// for; an error that wraps [ErrMismatch] says which was not.
func (c *Client) Discover(ctx context.Context, resource string) (*Server, error) {
	target, err := canonical(resource)
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", resource, err)
	}
	resp, err := c.do(ctx, "ask the resource without a token, to learn what it wants", http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", target, err)
	}
	resp.Body.Close()
	return c.discover(ctx, target, bearerChallenge(resp))
}

// discover goes on from a challenge, which may be empty.
func (c *Client) discover(ctx context.Context, target string, challenge oauth.Challenge) (*Server, error) {
	s, err := c.findServer(ctx, target, challenge)
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", target, err)
	}
	return s, nil
}

func (c *Client) findServer(ctx context.Context, target string, challenge oauth.Challenge) (*Server, error) {
	rm, err := c.resourceMetadata(ctx, target, challenge.Get("resource_metadata"))
	if err != nil {
		return nil, err
	}
	issuers, err := c.candidates(target, rm)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, issuer := range issuers {
		m, err := c.serverMetadata(ctx, target, issuer)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		id, err := c.clientID(m)
		if err = c.check("CLI-06", "the authorization server takes a client_id of ours", err); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		s := &Server{Resource: rm.Resource, Issuer: issuer, ClientID: id, ResourceMetadata: *rm, Metadata: *m}
		s.Scopes = c.firstScopes(challenge, s)
		return s, nil
	}
	return nil, failed
}

// firstScopes follows the order of MCP: what the challenge names, else all that
// the resource lists, else nothing (CLI-11).
func (c *Client) firstScopes(challenge oauth.Challenge, s *Server) oauth.Scopes {
	scopes, err := oauth.ParseScopes(challenge.Get("scope"))
	text := "ask for the scopes of the challenge"
	if err != nil || len(scopes) == 0 {
		text = "ask for all scopes that the resource lists"
		scopes, err = oauth.ParseScopes(strings.Join(s.ResourceMetadata.ScopesSupported, " "))
	}
	if err != nil || len(scopes) == 0 {
		text, scopes = "ask for no scope in particular", nil
	}
	if len(scopes) > 0 && slices.Contains(s.Metadata.ScopesSupported, oauth.ScopeOfflineAccess) {
		scopes = scopes.Or(oauth.Scopes{oauth.ScopeOfflineAccess})
	}
	c.step(Step{Kind: StepDecide, Text: strings.TrimSpace(text + " " + scopes.String()), Rule: "CLI-11"})
	return scopes
}

// resourceMetadata reads the document that the challenge points to, else the one
// at the path-inserted and then at the root well-known place (CLI-01).
func (c *Client) resourceMetadata(ctx context.Context, target, pointed string) (*oauth.ResourceMetadata, error) {
	origin := originOf(target)
	if pointed != "" {
		err := c.check("CLI-02", "the challenge points to metadata on the resource's own origin", same(origin, originOf(pointed)))
		if err != nil {
			return nil, err
		}
		return c.readResourceMetadata(ctx, target, pointed, []string{target})
	}
	inserted, err := oauth.ResourceMetadataURL(target)
	if err != nil {
		return nil, err
	}
	rm, err := c.readResourceMetadata(ctx, target, inserted, []string{target})
	if _, absent := errors.AsType[*statusError](err); !absent {
		return rm, err
	}
	root := origin + "/.well-known/oauth-protected-resource"
	if root == inserted {
		return nil, err
	}
	return c.readResourceMetadata(ctx, target, root, []string{target, origin, origin + "/"})
}

func (c *Client) readResourceMetadata(ctx context.Context, target, place string, good []string) (*oauth.ResourceMetadata, error) {
	var rm oauth.ResourceMetadata
	if err := c.getJSON(ctx, "ask the resource for its metadata: who vouches for it", place, &rm); err != nil {
		return nil, err
	}
	var err error
	if !slices.Contains(good, rm.Resource) {
		err = fmt.Errorf("%w: the metadata is about %q, not about %s", ErrMismatch, rm.Resource, target)
	}
	if err := c.check("CLI-02", "the metadata is about the resource that was asked", err); err != nil {
		return nil, err
	}
	return &rm, nil
}

// candidates returns the authorization servers in the order in which to try
// them: those that know the client first (CLI-06). One that a stranger's network
// must not make us talk to refuses the whole document.
func (c *Client) candidates(target string, rm *oauth.ResourceMetadata) ([]string, error) {
	if len(rm.AuthorizationServers) == 0 {
		return nil, errors.New("the resource names no authorization server")
	}
	var known, rest []string
	for _, issuer := range rm.AuthorizationServers {
		err := checkEndpoint(target, issuer)
		if err == nil && strings.Contains(issuer, "?") {
			err = fmt.Errorf("%q has a query", issuer)
		}
		if err := c.check("CLI-23", "the authorization server's address can be trusted with a sign-in", err); err != nil {
			return nil, fmt.Errorf("authorization server: %w", err)
		}
		if c.cfg.Registered[issuer] != "" {
			known = append(known, issuer)
		} else {
			rest = append(rest, issuer)
		}
	}
	return append(known, rest...), nil
}

// serverMetadata asks an issuer for its metadata at the known places in their
// fixed order (CLI-03) and checks what a client depends on.
func (c *Client) serverMetadata(ctx context.Context, target, issuer string) (*oauth.ServerMetadata, error) {
	places, err := oauth.ServerMetadataURLs(issuer)
	if err != nil {
		return nil, err
	}
	var m oauth.ServerMetadata
	for _, place := range places {
		m = oauth.ServerMetadata{}
		err = c.getJSON(ctx, "ask the authorization server for its metadata", place, &m)
		if _, absent := errors.AsType[*statusError](err); !absent {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if m.Issuer != issuer {
		err = fmt.Errorf("%w: the metadata names the issuer %q, not %s", ErrMismatch, m.Issuer, issuer)
	}
	if err := c.check("CLI-04", "the metadata names exactly the issuer that was asked", err); err != nil {
		return nil, err
	}
	if !slices.Contains(m.CodeChallengeMethodsSupported, "S256") {
		err = fmt.Errorf("%s does not advertise PKCE with S256", issuer)
	}
	if err := c.check("CLI-05", "the authorization server advertises PKCE with S256", err); err != nil {
		return nil, err
	}
	for name, endpoint := range map[string]string{"authorization_endpoint": m.AuthorizationEndpoint, "token_endpoint": m.TokenEndpoint} {
		if err := checkEndpoint(target, endpoint); err != nil {
			return nil, c.check("CLI-19", "the "+name+" is an https URL", fmt.Errorf("%s of %s: %w", name, issuer, err))
		}
	}
	return &m, nil
}

// canonical returns the one spelling of a resource's URL: scheme and host in
// lower case, no fragment, and nothing added (CLI-08).
func canonical(resource string) (string, error) {
	u, err := url.Parse(resource)
	if err != nil || u.Host == "" || u.User != nil {
		return "", errors.New("not an absolute URL without user information")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopbackName(u.Hostname())) {
		return "", errors.New("the resource must use https (http only on a loopback address)")
	}
	resource, _, _ = strings.Cut(resource, "#")
	_, after, _ := strings.Cut(resource, "://")
	end := strings.IndexAny(after, "/?")
	if end < 0 {
		end = len(after)
	}
	return u.Scheme + "://" + strings.ToLower(after[:end]) + after[end:], nil
}

// checkEndpoint accepts the address of an authorization server or one of its
// endpoints: https, and not inside a network that the resource is outside of.
// Only for a resource on this computer may it be http on this computer.
func checkEndpoint(target, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" || strings.Contains(raw, "#") {
		return fmt.Errorf("%q is not a plain absolute URL", raw)
	}
	t, err := url.Parse(target)
	if err != nil {
		return err
	}
	switch {
	case u.Scheme == "http" && loopbackName(u.Hostname()) && loopbackName(t.Hostname()):
		return nil
	case u.Scheme != "https":
		return fmt.Errorf("%q must use https", raw)
	case internalName(u.Hostname()) && !internalName(t.Hostname()):
		return fmt.Errorf("%q is inside a private network, and the resource is not", raw)
	}
	return nil
}

func loopbackName(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// internalName reports whether a host can only mean something inside a network.
func internalName(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap()
		return !a.IsGlobalUnicast() || a.IsPrivate()
	}
	for _, suffix := range []string{"localhost", "local", "internal", "home.arpa"} {
		if host == suffix || strings.HasSuffix(host, "."+suffix) {
			return true
		}
	}
	return !strings.Contains(host, ".")
}

func originOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return raw
	}
	return u.Scheme + "://" + strings.ToLower(u.Host)
}

func same(want, got string) error {
	if want != got {
		return fmt.Errorf("%w: %s is not on %s", ErrMismatch, got, want)
	}
	return nil
}

// bearerChallenge returns the Bearer challenge of a response, or an empty one. A
// header that cannot be read counts as absent.
func bearerChallenge(resp *http.Response) oauth.Challenge {
	if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
		return oauth.Challenge{}
	}
	all, err := oauth.ParseChallenges(resp.Header.Values("WWW-Authenticate"))
	if err != nil {
		return oauth.Challenge{}
	}
	for _, ch := range all {
		if strings.EqualFold(ch.Scheme, "Bearer") {
			return ch
		}
	}
	return oauth.Challenge{}
}

// statusError is an answer that is not the document: look in the next place.
type statusError struct {
	place  string
	status int
}

func (e *statusError) Error() string { return fmt.Sprintf("%s answered %d", e.place, e.status) }

func (c *Client) getJSON(ctx context.Context, text, place string, into any) error {
	resp, err := c.do(ctx, text, http.MethodGet, place, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &statusError{place, resp.StatusCode}
	}
	raw, err := readBounded(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s does not hold the JSON that was expected", place)
	}
	return nil
}

// do sends one request of discovery or sign-in, without redirects, and tells it.
func (c *Client) do(ctx context.Context, text, method, place string, form url.Values) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, place, body)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	to, _, _ := strings.Cut(place, "?")
	s := Step{Kind: StepAsk, To: to, Text: text}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		s.Sent = append(s.Sent, redact([]string{name, form.Get(name)})...)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		cancel()
		s.Err = fmt.Errorf("ask %s: %w", to, unwrapURL(err))
		c.step(s)
		return nil, s.Err
	}
	s.Status = resp.StatusCode
	c.step(s)
	resp.Body = &cancelBody{resp.Body, cancel}
	return resp, nil
}

// unwrapURL drops the *url.Error around a transport error: it repeats the URL.
func unwrapURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func readBounded(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(raw) > maxBody {
		err = errors.New("the answer is too large")
	}
	return raw, err
}
