package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// registration returns what the client registered itself as at an issuer; nil is
// nothing that can still be used.
func (c *Client) registration(ctx context.Context, issuer string) (*Grant, error) {
	if c.cfg.RegisterAs == "" {
		return nil, nil
	}
	r, err := c.cfg.Store.Load(ctx, atIssuer(issuer))
	if err != nil || r == nil || r.ClientID == "" || r.Issuer != issuer {
		return nil, err
	}
	if !r.Expires.IsZero() && !c.cfg.Now().Before(r.Expires) {
		return nil, nil
	}
	return r, nil
}

// register makes the client known to an authorization server that takes neither
// documents nor a client_id of ours (RFC 7591), once per issuer, and keeps what it
// is told under that issuer (CLI-13, CLI-27).
func (c *Client) register(ctx context.Context, m *oauth.ServerMetadata) (string, error) {
	if m.RegistrationEndpoint == "" {
		return "", fmt.Errorf("%w: %s, and it registers nobody", ErrNotAccepted, m.Issuer)
	}
	var id string
	err := c.cfg.Store.Update(ctx, atIssuer(m.Issuer), func(old *Grant) (*Grant, error) {
		if known, err := c.registration(ctx, m.Issuer); err == nil && known != nil {
			id = known.ClientID // another program was faster
			return old, nil
		}
		next := Grant{Issuer: m.Issuer}
		if old != nil {
			next.ProofKey = old.ProofKey
		}
		if err := c.askRegistration(ctx, m, &next); err != nil {
			return nil, fmt.Errorf("register at %s: %w", m.Issuer, err)
		}
		id = next.ClientID
		return &next, nil
	})
	return id, err
}

// askRegistration sends the registration and puts the answer into r. The request
// says everything that a document would: native, because the default is web.
func (c *Client) askRegistration(ctx context.Context, m *oauth.ServerMetadata, r *Grant) error {
	d := c.Document(c.cfg.RegisterAs)
	d.ClientID, d.AuthMethods = "", nil
	method, err := c.registeredMethod(m)
	if err != nil {
		return err
	}
	if d.AuthMethod = method; method != oauth.MethodPrivateKeyJWT && !attests(method) {
		d.SigningAlg, d.JWKS = "", nil
	}
	body, err := json.Marshal(struct {
		Document
		ClientID *string `json:"client_id,omitempty"` // the server gives it
	}{d, nil})
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, question{text: "register the client", method: http.MethodPost, place: m.RegistrationEndpoint, json: body})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := readBounded(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return answer{resp.StatusCode, raw}.refused("registration endpoint")
	}
	return c.check("CLI-27", "the registration is one that the client can use", r.registered(raw, method, d.RedirectURIs))
}

// registeredMethod chooses how to be registered: the client's own methods, else a
// secret that the server makes, in the body before Basic.
func (c *Client) registeredMethod(m *oauth.ServerMetadata) (string, error) {
	own := standing{methods: c.cfg.Methods}
	theirs := m.TokenAuthMethods
	lists := func(method string) bool { return slices.Contains(theirs, method) }
	if slices.Contains(c.cfg.Methods, oauth.MethodNone) && len(theirs) > 0 && !lists(oauth.MethodNone) {
		own.methods = slices.DeleteFunc(slices.Clone(own.methods), func(s string) bool { return s == oauth.MethodNone })
	}
	method, decided, err := c.choose(m, own, c.cfg.DPoP != DPoPWhenRequired && len(m.DPoPSigningAlgs) > 0)
	switch {
	case err == nil:
		c.step(decided)
		return method, nil
	case lists(oauth.MethodSecretPost):
		return oauth.MethodSecretPost, nil
	case lists(oauth.MethodSecretBasic):
		return oauth.MethodSecretBasic, nil
	}
	return "", err
}

// registered takes over a registration response. What the server registered in
// place of what was asked is a refusal, unless it is a secret that goes with one
// of the two ways to send it. A server that does not repeat the redirect URIs has
// taken them.
func (g *Grant) registered(raw []byte, method string, redirects []string) error {
	var out struct {
		ClientID string   `json:"client_id"`
		Secret   string   `json:"client_secret"`
		Expires  int64    `json:"client_secret_expires_at"`
		Method   string   `json:"token_endpoint_auth_method"`
		Redirect []string `json:"redirect_uris"`
	}
	if json.Unmarshal(raw, &out) != nil || out.ClientID == "" {
		return errors.New("the registration response holds no client_id")
	}
	if out.Method == "" {
		out.Method = method
	}
	for _, asked := range redirects {
		fits := func(listed string) bool { return oauth.MatchRedirect(listed, asked) }
		if out.Redirect != nil && !slices.ContainsFunc(out.Redirect, fits) {
			return fmt.Errorf("the server registered the redirect URIs %q in place of %s", out.Redirect, asked)
		}
	}
	secret := out.Method == oauth.MethodSecretPost || out.Method == oauth.MethodSecretBasic
	switch {
	case !secret && out.Method != method:
		return fmt.Errorf("the server registered the method %q in place of %q", out.Method, method)
	case secret && out.Secret == "":
		return fmt.Errorf("the server registered the method %q and gave no secret", out.Method)
	}
	g.ClientID, g.Method, g.Expires = out.ClientID, out.Method, time.Time{}
	if g.Secret = ""; secret {
		g.Secret = out.Secret
	}
	if secret && out.Expires > 0 {
		g.Expires = time.Unix(out.Expires, 0)
	}
	return nil
}

// unregister forgets a registration that the server does not know any more.
func (c *Client) unregister(ctx context.Context, who standing, issuer string) error {
	return c.cfg.Store.Update(ctx, atIssuer(issuer), func(old *Grant) (*Grant, error) {
		if old == nil || old.ClientID != who.id {
			return old, nil
		}
		return &Grant{Issuer: issuer, ProofKey: old.ProofKey}, nil
	})
}
