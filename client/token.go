package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// Grant is what the user agreed to, and the tokens that prove it. It is stored
// under its resource and never used at another resource or issuer. Printing it
// shows no token.
type Grant struct {
	Resource     string       `json:"resource"`
	Issuer       string       `json:"issuer"`
	ClientID     string       `json:"client_id"`
	Scopes       oauth.Scopes `json:"scopes,omitempty"` // granted
	Asked        oauth.Scopes `json:"asked,omitempty"`  // requested, all times together
	AccessToken  string       `json:"access_token"`
	RefreshToken string       `json:"refresh_token,omitempty"`
	Expires      time.Time    `json:"expires,omitzero"` // zero: the server did not say
}

// String describes the grant without its tokens.
func (g Grant) String() string {
	return fmt.Sprintf("grant of %s for %s (%s) until %s", g.Issuer, g.Resource, g.Scopes, g.Expires.Format(time.RFC3339))
}

// GoString is String, so that %#v prints no token either.
func (g Grant) GoString() string { return g.String() }

// early is how long before its expiry a token is replaced.
const early = 30 * time.Second

func (g *Grant) fresh(now time.Time) bool {
	return g != nil && g.AccessToken != "" && (g.Expires.IsZero() || now.Add(early).Before(g.Expires))
}

// redeem exchanges the code of a flow.
func (c *Client) redeem(ctx context.Context, f *Flow, code string) (*Grant, error) {
	form := url.Values{
		"grant_type":    {oauth.GrantAuthorizationCode},
		"code":          {code},
		"redirect_uri":  {f.redirect},
		"code_verifier": {f.verifier},
		"resource":      {f.server.Resource},
	}
	g := &Grant{Resource: f.server.Resource, Issuer: f.server.Issuer, ClientID: f.server.ClientID, Asked: f.scopes, Scopes: f.scopes}
	return c.tokens(ctx, "redeem the code for tokens", &f.server.Metadata, form, g)
}

// refreshGrant asks the issuer of the grant, and nobody else, for new tokens. An
// error that wraps ErrSignIn says that the grant is over.
func (c *Client) refreshGrant(ctx context.Context, g *Grant) (*Grant, error) {
	if g.RefreshToken == "" {
		return nil, fmt.Errorf("%w: the token expired and there is none to refresh it", ErrSignIn)
	}
	m, err := c.serverMetadata(ctx, g.Resource, g.Issuer)
	if err != nil {
		return nil, err
	}
	form := url.Values{
		"grant_type":    {oauth.GrantRefreshToken},
		"refresh_token": {g.RefreshToken},
		"resource":      {g.Resource},
	}
	next := *g
	out, err := c.tokens(ctx, "refresh the token", m, form, &next)
	if e, ok := errors.AsType[*ServerError](err); ok && e.Code == oauth.InvalidGrant {
		return nil, fmt.Errorf("%w: %w", ErrSignIn, err)
	}
	return out, err
}

// tokens sends a token request and puts the answer into g. The client stands in
// the body, never in an Authorization header (CLI-15).
func (c *Client) tokens(ctx context.Context, text string, m *oauth.ServerMetadata, form url.Values, g *Grant) (*Grant, error) {
	form.Set("client_id", g.ClientID)
	method, err := c.method(m)
	if err != nil {
		return nil, err
	}
	if method == oauth.MethodPrivateKeyJWT {
		assertion, err := c.assertion(g.ClientID, m.Issuer)
		if err != nil {
			return nil, err
		}
		form.Set("client_assertion_type", oauth.AssertionTypeJWT)
		form.Set("client_assertion", assertion)
	}
	resp, err := c.do(ctx, text, http.MethodPost, m.TokenEndpoint, form)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := readBounded(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the token response: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, tokenRefusal(resp.StatusCode, raw)
	}
	if err := c.check("CLI-26", "the token response holds a bearer token", g.read(raw, c.cfg.Now())); err != nil {
		return nil, err
	}
	return g, nil
}

func tokenRefusal(status int, raw []byte) error {
	var refusal struct {
		Code        oauth.Code `json:"error"`
		Description string     `json:"error_description"`
	}
	if json.Unmarshal(raw, &refusal) != nil || refusal.Code == "" {
		return fmt.Errorf("the token endpoint answered %d without an OAuth error", status)
	}
	return &ServerError{Code: refusal.Code, Description: refusal.Description, Status: status}
}

// read takes over a token response. Members that are not known are ignored, and
// what is absent stays as it was: the scopes, and the refresh token of a server
// that does not rotate.
func (g *Grant) read(raw []byte, now time.Time) error {
	var t struct {
		AccessToken  string      `json:"access_token"`
		TokenType    string      `json:"token_type"`
		ExpiresIn    json.Number `json:"expires_in"`
		RefreshToken string      `json:"refresh_token"`
		Scope        *string     `json:"scope"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return errors.New("the token response is not the JSON that was expected")
	}
	if t.AccessToken == "" || strings.ContainsFunc(t.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the token response holds no usable access token")
	}
	if !strings.EqualFold(t.TokenType, "Bearer") {
		return fmt.Errorf("the token type %q is not Bearer", t.TokenType)
	}
	g.AccessToken, g.Expires = t.AccessToken, time.Time{}
	if s, err := strconv.ParseFloat(t.ExpiresIn.String(), 64); err == nil && s > 0 {
		g.Expires = now.Add(time.Duration(min(s, 10*365*86400)) * time.Second)
	}
	if t.RefreshToken != "" {
		g.RefreshToken = t.RefreshToken
	}
	if t.Scope != nil {
		scopes, err := oauth.ParseScopes(*t.Scope)
		if err != nil {
			return fmt.Errorf("the granted scope cannot be read: %w", err)
		}
		g.Scopes = scopes
	}
	return nil
}

// method chooses how the client authenticates: what its document and the server
// have in common, private_key_jwt before none (CLI-17). A server that forgets to
// list none is still offered it; no secret is ever sent.
func (c *Client) method(m *oauth.ServerMetadata) (string, error) {
	theirs := m.TokenAuthMethods
	common := func(method string) bool {
		return slices.Contains(c.cfg.Methods, method) && (len(theirs) == 0 || slices.Contains(theirs, method))
	}
	algs := m.TokenAuthSigningAlgs
	switch {
	case common(oauth.MethodPrivateKeyJWT) && (len(algs) == 0 || slices.Contains(algs, c.cfg.Key.Algorithm())):
		c.step(Step{Kind: StepDecide, Text: "prove the client with its key (private_key_jwt)", Rule: "CLI-17"})
		return oauth.MethodPrivateKeyJWT, nil
	case slices.Contains(c.cfg.Methods, oauth.MethodNone):
		c.step(Step{Kind: StepDecide, Text: "send the client_id without proof (none)", Rule: "CLI-15"})
		return oauth.MethodNone, nil
	}
	return "", fmt.Errorf("no authentication method in common: the client has %q with %q, %s offers %q with %q",
		c.cfg.Methods, c.cfg.Key.Algorithm(), m.Issuer, theirs, algs)
}

// assertionLife is how long an assertion is good; it is used at once.
const assertionLife = time.Minute

// assertion signs a fresh statement for one request. Its only audience is the
// issuer whose metadata was verified, whatever token endpoint that names: at
// another server it is worth nothing (CLI-16).
func (c *Client) assertion(clientID, issuer string) (string, error) {
	now := c.cfg.Now()
	return c.cfg.Key.private.Sign(oauth.TypClientAssertion, struct {
		Iss string `json:"iss"`
		Sub string `json:"sub"`
		Aud string `json:"aud"`
		JTI string `json:"jti"`
		Iat int64  `json:"iat"`
		Exp int64  `json:"exp"`
	}{clientID, clientID, issuer, oauth.RandomToken(16), now.Unix(), now.Add(assertionLife).Unix()})
}
