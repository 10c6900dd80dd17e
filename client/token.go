package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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

	// TokenType is Bearer or DPoP; "" is Bearer. ProofKey is the private JWK that
	// DPoP tokens are bound to, and that an attestation names.
	TokenType string          `json:"token_type,omitempty"`
	ProofKey  json.RawMessage `json:"proof_key,omitempty"`

	// What an authorization server gave the client that registered itself there: it
	// stands in a Grant without tokens, under a key of its own.
	Method string `json:"method,omitempty"`
	Secret string `json:"secret,omitempty"`
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
	g, err := f.server.grant(f.scopes, f.key)
	if err != nil {
		return nil, err
	}
	return c.tokens(ctx, request{
		text: "redeem the code for tokens", server: &f.server.Metadata, client: f.standing, form: form, key: f.key, bound: f.bound,
	}, g)
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
	r, err := c.asGrant(ctx, g, m)
	if err != nil {
		return nil, err
	}
	r.text, r.form = "refresh the token", form
	next := *g
	out, err := c.tokens(ctx, r, &next)
	if e, ok := errors.AsType[*ServerError](err); ok && (e.Code == oauth.InvalidGrant || e.Code == oauth.InvalidClient && r.client.dynamic) {
		return nil, fmt.Errorf("%w: %w", ErrSignIn, err)
	}
	return out, err
}

// tokens sends a token request and puts the answer into g.
func (c *Client) tokens(ctx context.Context, r request, g *Grant) (*Grant, error) {
	r.place = r.server.TokenEndpoint
	a, err := c.post(ctx, r)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		err := a.refused("token endpoint")
		if e, ok := errors.AsType[*ServerError](err); ok && e.Code == oauth.InvalidClient && r.client.dynamic {
			err = errors.Join(err, c.unregister(ctx, r.client, g.Issuer)) // the next sign-in registers anew
		}
		return nil, err
	}
	wanted := oauth.TokenBearer
	if r.bound {
		wanted = oauth.TokenDPoP
	}
	if err := c.check("CLI-26", "the token response holds a token of type "+wanted, g.read(a.body, wanted, c.cfg.Now())); err != nil {
		return nil, err
	}
	return g, nil
}

// read takes over a token response. Members that are not known are ignored, and
// what is absent stays as it was: the scopes, and the refresh token of a server
// that does not rotate.
func (g *Grant) read(raw []byte, wanted string, now time.Time) error {
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
	if !strings.EqualFold(t.TokenType, wanted) {
		return fmt.Errorf("the token type %q is not %s", t.TokenType, wanted)
	}
	if g.TokenType = ""; wanted != oauth.TokenBearer {
		g.TokenType = wanted
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
