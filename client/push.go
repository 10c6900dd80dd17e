package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/bonafide-id/bonafide/oauth"
)

// push hands an authorization request to the server ahead of the browser (RFC
// 9126) and returns what is left for the address: the client and a reference. A
// server that takes pushed requests and cannot take this one for now gets it in
// the address, unless it demands that requests are pushed.
func (c *Client) push(ctx context.Context, f *Flow, pairs []string) ([]string, error) {
	m := &f.server.Metadata
	if m.PushedRequestEndpoint == "" {
		if m.RequirePushed {
			return nil, fmt.Errorf("%s demands pushed requests and names no endpoint for them", m.Issuer)
		}
		return pairs, nil
	}
	form := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			form.Set(pairs[i], pairs[i+1])
		}
	}
	a, err := c.post(ctx, request{
		text: "push the authorization request", place: m.PushedRequestEndpoint, server: m, client: f.standing, form: form, key: f.key, bound: f.bound,
	})
	if err == nil && a.status != http.StatusCreated && a.status != http.StatusOK {
		err = a.refused("endpoint for pushed requests")
	}
	if err != nil && !m.RequirePushed && ctx.Err() == nil && passing(err) {
		c.step(Step{Kind: StepDecide, Text: "put the request into the address: it could not be pushed", Rule: "CLI-24"})
		return pairs, nil
	}
	if err != nil {
		return nil, err
	}
	var out struct {
		URI string `json:"request_uri"`
	}
	if json.Unmarshal(a.body, &out) != nil || out.URI == "" {
		return nil, errors.New("the endpoint for pushed requests gave no request_uri")
	}
	return []string{"client_id", f.standing.id, "request_uri", out.URI}, nil
}

// actAlone gets a token for the client itself, without a person (client
// credentials, XCH-13).
func (c *Client) actAlone(ctx context.Context, s *Server, scopes oauth.Scopes) (*Grant, error) {
	who, err := c.standing(ctx, s.Issuer, s.ClientID)
	if err != nil {
		return nil, err
	}
	key, bound, method, err := c.keyFor(ctx, s, who)
	if err != nil {
		return nil, err
	}
	if method == oauth.MethodNone {
		return nil, fmt.Errorf("the client acts for itself and cannot prove itself to %s, which offers %q", s.Issuer, s.Metadata.TokenAuthMethods)
	}
	scopes = scopes.Without(oauth.Scopes{oauth.ScopeOfflineAccess}) // it has no user to be absent
	form := url.Values{"grant_type": {oauth.GrantClientCredentials}, "resource": {s.Resource}}
	if len(scopes) > 0 {
		form.Set("scope", scopes.String())
	}
	g, err := s.grant(scopes, key)
	if err != nil {
		return nil, err
	}
	return c.tokens(ctx, request{
		text: "ask for a token for the client itself", server: &s.Metadata, client: who, form: form, key: key, bound: bound,
	}, g)
}

// grant returns a grant of the server without tokens.
func (s *Server) grant(scopes oauth.Scopes, key Key) (*Grant, error) {
	g := &Grant{Resource: s.Resource, Issuer: s.Issuer, ClientID: s.ClientID, Asked: scopes, Scopes: scopes}
	var err error
	if !key.IsZero() {
		g.ProofKey, err = key.MarshalPrivate()
	}
	return g, err
}
