package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// ErrDrift reports a published document that does not fit the client.
var ErrDrift = errors.New("the published document does not fit this client")

// CheckPublished reads the document at Config.ID, as authorization servers do,
// and returns an error that wraps [ErrDrift] when the client cannot sign in with
// it: its redirect URI, its grant, its methods or its keys are not listed. A
// program may refuse to start then. Nothing of the document is taken over: what
// the client is stands in its configuration alone (CLI-28).
func (c *Client) CheckPublished(ctx context.Context) error {
	if c.cfg.ID == "" {
		return errors.New("check published document: the client has none")
	}
	var d Document
	if err := c.getJSON(ctx, "read the client's own document", c.cfg.ID, &d); err != nil {
		return fmt.Errorf("check published document: %w", err)
	}
	keys := d.JWKS
	if d.JWKSURI != "" && keys == nil && !c.cfg.Key.IsZero() {
		err := checkEndpoint(c.cfg.ID, d.JWKSURI)
		if err == nil {
			err = c.getJSON(ctx, "read the client's own keys", d.JWKSURI, &keys)
		}
		if err != nil {
			return fmt.Errorf("check published document: %w", err)
		}
	}
	for _, err := range []error{c.driftOfUse(d), c.driftOfMethods(d), c.driftOfKey(d, keys)} {
		if err = c.check("CLI-28", "the published document fits this client", err); err != nil {
			return fmt.Errorf("check published document: %w: %w", ErrDrift, err)
		}
	}
	return nil
}

func (c *Client) driftOfUse(d Document) error {
	want := c.Document("")
	if d.ClientID != c.cfg.ID {
		return fmt.Errorf("its client_id is %q", d.ClientID)
	}
	grants := d.GrantTypes
	if len(grants) == 0 {
		grants = []string{oauth.GrantAuthorizationCode} // the default of RFC 7591
	}
	if !slices.Contains(grants, want.GrantTypes[0]) {
		return fmt.Errorf("its grant_types lack %s", want.GrantTypes[0])
	}
	fits := func(listed string) bool { return oauth.MatchRedirect(listed, c.cfg.Redirect) }
	if c.browses() && !slices.ContainsFunc(d.RedirectURIs, fits) {
		return fmt.Errorf("its redirect_uris lack %s", c.cfg.Redirect)
	}
	return nil
}

// driftOfMethods wants one method in common: a document may list more, and a
// client may know more.
func (c *Client) driftOfMethods(d Document) error {
	theirs := d.AuthMethods
	if len(theirs) == 0 && d.AuthMethod != "" {
		theirs = []string{d.AuthMethod}
	}
	if len(theirs) == 0 {
		theirs = []string{oauth.MethodNone}
	}
	if !slices.ContainsFunc(c.cfg.Methods, func(m string) bool { return slices.Contains(theirs, m) }) {
		return fmt.Errorf("its methods are %q, the client's %q", theirs, c.cfg.Methods)
	}
	return nil
}

func (c *Client) driftOfKey(d Document, raw json.RawMessage) error {
	if c.cfg.Key.IsZero() || slices.Equal(c.cfg.Methods, []string{oauth.MethodNone}) {
		return nil
	}
	set, err := jose.ParseRemoteSet(raw, jose.SetLimits{})
	if err != nil {
		return fmt.Errorf("its keys: %w", err)
	}
	public := c.cfg.Key.private.Public()
	if k, err := set.Find(c.cfg.Key.ID(), c.cfg.Key.Algorithm()); err != nil || k.Thumbprint() != public.Thumbprint() {
		return fmt.Errorf("its keys lack %s", c.cfg.Key.ID())
	}
	if alg := d.SigningAlg; alg != "" && jose.Canonical(alg) != c.cfg.Key.Algorithm() && slices.Contains(c.cfg.Methods, oauth.MethodPrivateKeyJWT) {
		return fmt.Errorf("its token_endpoint_auth_signing_alg is %s", alg)
	}
	return nil
}
