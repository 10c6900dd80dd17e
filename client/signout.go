package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/bonafide-id/bonafide/oauth"
)

// SignOut forgets the grant for a resource on this computer and then revokes it
// at the server that gave it, where that server takes revocations (CLI-30). The
// grant is forgotten in any case: an error says that the server may still know it.
func (c *Client) SignOut(ctx context.Context, resource string) error {
	target, err := canonical(resource)
	if err != nil {
		return fmt.Errorf("sign out at %s: %w", resource, err)
	}
	var gone *Grant
	err = c.cfg.Store.Update(ctx, target, func(old *Grant) (*Grant, error) {
		gone = old
		return nil, nil
	})
	if err != nil {
		return err
	}
	if gone == nil || gone.AccessToken == "" && gone.RefreshToken == "" || !c.mine(ctx, gone) {
		return nil
	}
	if err := c.revoke(ctx, gone); err != nil {
		return fmt.Errorf("sign out at %s: the tokens are forgotten here and may not be revoked at %s: %w", target, gone.Issuer, err)
	}
	return nil
}

// revoke tells the issuer of a grant, and nobody else, that it is over: by the
// refresh token, which takes the access tokens along, or else by the access token
// (RFC 7009).
func (c *Client) revoke(ctx context.Context, g *Grant) error {
	m, err := c.serverMetadata(ctx, g.Resource, g.Issuer)
	if err != nil {
		return err
	}
	if m.RevocationEndpoint == "" {
		c.step(Step{Kind: StepDecide, Text: "leave it at forgetting the tokens: the server takes no revocations", Rule: "CLI-30"})
		return nil
	}
	form := url.Values{"token": {g.RefreshToken}, "token_type_hint": {"refresh_token"}}
	if g.RefreshToken == "" {
		form = url.Values{"token": {g.AccessToken}, "token_type_hint": {"access_token"}}
	}
	r, err := c.asGrant(ctx, g, m)
	if err != nil {
		return err
	}
	r.text, r.place, r.form = "revoke the tokens", m.RevocationEndpoint, form
	a, err := c.post(ctx, r)
	if err == nil && a.status != http.StatusOK {
		err = a.refused("revocation endpoint")
	}
	return err
}

// asGrant begins a request about a grant: as the client that it was given to, with
// the key that it is bound to.
func (c *Client) asGrant(ctx context.Context, g *Grant, m *oauth.ServerMetadata) (request, error) {
	who, err := c.standing(ctx, g.Issuer, g.ClientID)
	if err != nil {
		return request{}, err
	}
	r := request{server: m, client: who, bound: g.bound()}
	if g.ProofKey != nil {
		r.key, err = ParseKey(g.ProofKey)
	}
	return r, err
}

// Extensions returns the extensions of MCP that the client uses, by name, as they
// stand in the capabilities that a client declares with each request (CLI-29). It
// is nil when there are none.
func (c *Client) Extensions() map[string]any {
	if !c.cfg.Alone {
		return nil
	}
	return map[string]any{extensionClientCredentials: map[string]any{}}
}

// extensionClientCredentials names the extension of MCP by which a client gets
// tokens for itself.
const extensionClientCredentials = "io.modelcontextprotocol/oauth-client-credentials"
