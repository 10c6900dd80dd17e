package client

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"

	"github.com/bonafide-id/bonafide/oauth"
)

// Flow is one sign-in under way: the user is at URL, and the answer will come to
// the redirect URI. It is good for one answer.
type Flow struct {
	URL string // where to send the user's browser

	client   *Client
	server   *Server
	standing standing
	key      Key  // of this installation; zero where it is not needed
	bound    bool // the tokens will be bound to key
	redirect string
	scopes   oauth.Scopes
	state    string
	verifier string
	done     atomic.Bool
}

// String names who is asked for what, and shows neither the address nor what has
// to stay here.
func (f *Flow) String() string {
	return fmt.Sprintf("sign-in at %s for %s (%s)", f.server.Issuer, f.server.Resource, f.scopes)
}

// GoString is String, so that %#v shows no secret either.
func (f *Flow) GoString() string { return f.String() }

// Begin prepares a sign-in at the server, and pushes the request there if the
// server takes that. redirect is the redirect URI exactly as it will be used;
// scopes may be nil for the server's first scopes. Issuer, verifier and state are
// recorded in the Flow before anybody is redirected.
func (c *Client) Begin(ctx context.Context, s *Server, redirect string, scopes oauth.Scopes) (*Flow, error) {
	f, err := c.begin(ctx, s, redirect, scopes)
	if err != nil {
		return nil, fmt.Errorf("begin sign-in: %w", err)
	}
	return f, nil
}

func (c *Client) begin(ctx context.Context, s *Server, redirect string, scopes oauth.Scopes) (*Flow, error) {
	if scopes == nil {
		scopes = s.Scopes
	}
	scopes = s.askable(scopes)
	f := &Flow{client: c, server: s, redirect: redirect, scopes: scopes, state: oauth.RandomToken(32), verifier: oauth.NewVerifier()}
	var err error
	if f.standing, err = c.standing(ctx, s.Issuer, s.ClientID); err != nil {
		return nil, err
	}
	var method string
	if f.key, f.bound, method, err = c.keyFor(ctx, s, f.standing); err != nil {
		return nil, err
	}
	pairs := []string{
		"response_type", "code",
		"client_id", s.ClientID,
		"redirect_uri", redirect,
		"scope", scopes.String(),
		"state", f.state,
		"code_challenge", oauth.S256(f.verifier),
		"code_challenge_method", "S256",
		"resource", s.Resource,
		"acr_values", s.ACRValues,
		"max_age", s.MaxAge,
	}
	if f.bound && method != oauth.MethodAttestationDPoP {
		pairs = append(pairs, "dpop_jkt", f.key.private.Public().Thumbprint())
	}
	if pairs, err = c.push(ctx, f, pairs); err != nil {
		return nil, err
	}
	f.URL = oauth.AppendQuery(s.Metadata.AuthorizationEndpoint, pairs...)
	if err := c.check("CLI-19", "the address for the browser is https, or this computer", checkOpen(f.URL)); err != nil {
		return nil, err
	}
	c.step(Step{Kind: StepUser, To: s.Metadata.AuthorizationEndpoint, Text: "send the user's browser to the authorization server", Sent: redact(pairs)})
	return f, nil
}

// Expects reports whether the query of a request to the redirect URI carries
// this flow's state, once. Anything else is not the awaited answer.
func (f *Flow) Expects(query string) bool {
	q, err := url.ParseQuery(query)
	return err == nil && len(q["state"]) == 1 && subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(f.state)) == 1
}

// Finish takes the query with which the browser came back, checks it, redeems
// the code and returns what was granted, which is not stored. A second call
// fails. Nothing of the answer is used or shown unless it belongs to this flow
// (CLI-09, CLI-10).
func (f *Flow) Finish(ctx context.Context, query string) (*Grant, error) {
	if f.done.Swap(true) {
		return nil, errors.New("finish sign-in: it was answered before")
	}
	code, err := f.answer(query)
	if err != nil {
		return nil, fmt.Errorf("finish sign-in: %w", err)
	}
	g, err := f.client.redeem(ctx, f, code)
	if err != nil {
		return nil, fmt.Errorf("finish sign-in: %w", err)
	}
	return g, nil
}

func (f *Flow) answer(query string) (code string, err error) {
	c := f.client
	q, err := url.ParseQuery(query)
	if err != nil {
		return "", fmt.Errorf("%w: the query cannot be read", ErrMismatch)
	}
	for _, name := range []string{"code", "state", "iss", "error", "error_description"} {
		if len(q[name]) > 1 {
			return "", c.check("CLI-10", "no parameter of the answer stands twice", fmt.Errorf("%w: %s stands twice", ErrMismatch, name))
		}
	}
	if !f.Expects(query) {
		err = fmt.Errorf("%w: the state is not the one that was sent", ErrMismatch)
	}
	if err := c.check("CLI-10", "the answer carries the state that was sent", err); err != nil {
		return "", err
	}
	if err := f.checkIssuer(q); err != nil {
		return "", err
	}
	code, refusal := q.Get("code"), q.Get("error")
	switch {
	case code != "" && refusal != "":
		return "", fmt.Errorf("%w: it holds a code and an error", ErrMismatch)
	case refusal != "":
		return "", &ServerError{Code: oauth.Code(refusal), Description: q.Get("error_description")}
	case code == "":
		return "", fmt.Errorf("%w: it holds neither a code nor an error", ErrMismatch)
	}
	c.step(Step{Kind: StepUser, Text: "the browser came back with a code"})
	return code, nil
}

// checkIssuer is the table of four rows: iss advertised or not, present or not
// (CLI-09; RFC 9207 section 2.4). Issuers are compared byte for byte.
func (f *Flow) checkIssuer(q url.Values) error {
	advertised, present := f.server.Metadata.IssParameterSupported, q.Has("iss")
	var err error
	text := "the answer names the issuer that was asked"
	switch {
	case present && q.Get("iss") != f.server.Issuer:
		err = fmt.Errorf("%w: it comes from another issuer", ErrMismatch)
	case advertised && !present:
		err = fmt.Errorf("%w: it names no issuer although the server said it would", ErrMismatch)
	case !present:
		text = "the server does not name itself in answers, and did not say that it would"
	}
	return f.client.check("CLI-09", text, err)
}
