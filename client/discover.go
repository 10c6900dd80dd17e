package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/oauth"
)

// Server is where and how to sign in for one resource, after every check.
type Server struct {
	Resource         string       // the resource's identifier, for the resource parameter
	Issuer           string       // the authorization server
	ClientID         string       // who the client is at that server
	Scopes           oauth.Scopes // what to ask for at first; empty asks for nothing in particular
	ACRValues        string       // how the user has to sign in, as the resource demands it (RFC 9470); "" is any
	MaxAge           string       // how many seconds ago at most; "" is any
	ResourceMetadata oauth.ResourceMetadata
	Metadata         oauth.ServerMetadata
}

// Discover finds out where to sign in for the resource at a URL: it asks the
// resource without a token, reads its challenge and its metadata, and then the
// authorization server's. Each document must be about the one that was asked
// for; an error that wraps [ErrMismatch] says which was not. With
// Config.RegisterAs it registers the client where there is no other way.
func (c *Client) Discover(ctx context.Context, resource string) (*Server, error) {
	target, err := canonical(resource)
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", resource, err)
	}
	resp, err := c.do(ctx, question{text: "ask the resource without a token, to learn what it wants", method: http.MethodGet, place: target})
	if err != nil {
		return nil, fmt.Errorf("discover %s: %w", target, err)
	}
	resp.Body.Close()
	return c.discover(ctx, target, tokenChallenge(resp))
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
	var strange []*oauth.ServerMetadata // servers that do not know the client
	found := func(id string, m *oauth.ServerMetadata) (*Server, error) {
		s := &Server{Resource: rm.Resource, Issuer: m.Issuer, ClientID: id, ResourceMetadata: *rm, Metadata: *m}
		s.Scopes = c.firstScopes(challenge, s)
		s.ACRValues, s.MaxAge = strength(challenge)
		return s, nil
	}
	for _, issuer := range issuers {
		m, err := c.serverMetadata(ctx, target, issuer)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		id, err := c.clientID(ctx, m)
		if err = c.check("CLI-06", "the authorization server takes a client_id of ours", err); err == nil {
			return found(id, m)
		}
		if strange = append(strange, m); c.cfg.RegisterAs == "" {
			failed = errors.Join(failed, err)
		}
	}
	if c.cfg.RegisterAs == "" {
		return nil, failed
	}
	for _, m := range strange {
		id, err := c.register(ctx, m)
		if err == nil {
			return found(id, m)
		}
		failed = errors.Join(failed, err)
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
	if len(scopes) > 0 && !c.cfg.Alone && s.listsOffline() {
		scopes = scopes.Or(oauth.Scopes{oauth.ScopeOfflineAccess})
	}
	scopes = s.askable(scopes)
	c.step(Step{Kind: StepDecide, Text: strings.TrimSpace(text + " " + scopes.String()), Rule: "CLI-11"})
	return scopes
}

func (s *Server) listsOffline() bool {
	return slices.Contains(s.Metadata.ScopesSupported, oauth.ScopeOfflineAccess)
}

// askable leaves offline_access out where the server does not list it, whoever
// named it (CLI-21).
func (s *Server) askable(scopes oauth.Scopes) oauth.Scopes {
	if s.listsOffline() {
		return scopes
	}
	return scopes.Without(oauth.Scopes{oauth.ScopeOfflineAccess})
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

// maxServers is how many of the authorization servers of a resource are tried: each
// is some requests to whomever the resource names.
const maxServers = 8

// candidates returns the authorization servers in the order in which to try
// them: those that know the client first (CLI-06). One that a stranger's network
// must not make us talk to refuses the whole document.
func (c *Client) candidates(target string, rm *oauth.ResourceMetadata) ([]string, error) {
	if len(rm.AuthorizationServers) == 0 {
		return nil, errors.New("the resource names no authorization server")
	}
	var known, rest []string
	for _, issuer := range rm.AuthorizationServers {
		err := checkEndpoint(c.vantage(target, issuer), issuer)
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
	all := append(known, rest...)
	return all[:min(len(all), maxServers)], nil
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
	if !slices.Contains(m.CodeChallengeMethodsSupported, "S256") && c.browses() {
		err = fmt.Errorf("%s does not advertise PKCE with S256", issuer)
	}
	if err := c.check("CLI-05", "the authorization server advertises PKCE with S256", err); err != nil {
		return nil, err
	}
	if err := c.checkEndpoints(target, &m); err != nil {
		return nil, err
	}
	return &m, nil
}

// browses reports whether sign-ins are those of a browser, with a code.
func (c *Client) browses() bool { return !c.cfg.Alone && c.cfg.Device == nil }

// checkEndpoints checks every address of the server that the client may send
// something to (CLI-23).
func (c *Client) checkEndpoints(target string, m *oauth.ServerMetadata) error {
	for _, e := range []struct {
		name, address string
		needed        bool
	}{
		{"authorization_endpoint", m.AuthorizationEndpoint, c.browses()},
		{"token_endpoint", m.TokenEndpoint, true},
		{"pushed_authorization_request_endpoint", m.PushedRequestEndpoint, false},
		{"device_authorization_endpoint", m.DeviceEndpoint, false},
		{"revocation_endpoint", m.RevocationEndpoint, false},
		{"registration_endpoint", m.RegistrationEndpoint, false},
		{"challenge_endpoint", m.ChallengeEndpoint, false},
	} {
		if e.address == "" && !e.needed {
			continue
		}
		if err := checkEndpoint(c.vantage(target, m.Issuer), e.address); err != nil {
			return c.check("CLI-19", "the "+e.name+" is an https URL", fmt.Errorf("%s of %s: %w", e.name, m.Issuer, err))
		}
	}
	return nil
}

// vantage returns where to judge an authorization server's addresses from: the
// resource that named it, or the server itself where the configuration knows it.
func (c *Client) vantage(target, issuer string) string {
	if c.cfg.Registered[issuer] != "" {
		return issuer
	}
	return target
}

// tokenChallenge returns the challenge of a response that is about access tokens,
// Bearer or DPoP, or an empty one: of several the first that says what is wrong. A
// header that cannot be read counts as absent.
func tokenChallenge(resp *http.Response) oauth.Challenge {
	if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
		return oauth.Challenge{}
	}
	all, err := oauth.ParseChallenges(resp.Header.Values("WWW-Authenticate"))
	if err != nil {
		return oauth.Challenge{}
	}
	var out oauth.Challenge
	for _, ch := range all {
		if !strings.EqualFold(ch.Scheme, oauth.TokenBearer) && !strings.EqualFold(ch.Scheme, oauth.TokenDPoP) {
			continue
		}
		if out.Scheme == "" || out.Get("error") == "" && ch.Get("error") != "" {
			out = ch
		}
	}
	return out
}
