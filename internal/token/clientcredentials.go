package token

import (
	"context"
	"errors"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// findOwn decides what a client that acts for itself may get: one resource, as at
// the authorization endpoint, and of the scopes it asks for those that the
// resource has, its document lists and the policy leaves. There is no person, so
// there is no openid, no refresh token and nobody's subject (TOK-17, TOK-18).
func (h *Handler) findOwn(_ context.Context, is *issue) error {
	res, err := h.target(is)
	if err != nil {
		return err
	}
	asked := is.request.scopes
	if len(asked) == 0 {
		asked = res.Default
	}
	scopes := is.client.Narrow(asked.And(res.ScopeNames()))
	if len(scopes) == 0 && len(res.Scopes) > 0 {
		return oauth.Refuse(oauth.InvalidScope, "none of the requested scopes is available to this client; the resource has %s", res.ScopeNames()).Under("TOK-17")
	}
	is.open(store.KindClient, res.ID, scopes)
	return nil
}

// target returns the one resource that a request means: the one it names, or the
// default one.
func (h *Handler) target(is *issue) (*policy.Resource, error) {
	set := h.cfg.Policy()
	asked := is.resources
	if len(asked) == 0 {
		if set.DefaultResource == "" {
			return nil, oauth.Refuse(oauth.InvalidTarget, "resource is missing; name the protected server the token is for").Under("TOK-07")
		}
		asked = []string{set.DefaultResource}
	}
	var target *policy.Resource
	for _, id := range asked {
		res, ok := set.Resource(id)
		switch {
		case !ok:
			return nil, oauth.Refuse(oauth.InvalidTarget, "resource is not a protected server of this authorization server").Under("TOK-07")
		case target != nil && target.ID != res.ID:
			return nil, oauth.Refuse(oauth.InvalidTarget, "a token is for one resource; send one request for each").Under("TOK-09")
		}
		target = res
	}
	if !is.client.Decision.MayUse(target.ID) {
		return nil, oauth.Refuse(oauth.InvalidTarget, "the client may not use this resource").Under("TOK-07")
	}
	return target, nil
}

// open fills in the grant that the request begins. What was asked for is decided
// with it.
func (is *issue) open(kind, resource string, scopes oauth.Scopes) {
	c := is.client
	is.grant = store.Grant{
		ID: store.NewID(is.now), Kind: kind, ClientID: c.ID, Resource: resource, Scopes: scopes, SecurityDigest: c.SecurityDigest,
		AuthMethods: c.AuthMethods, AuthMethod: c.Method, KeyThumbprint: c.KeyThumbprint,
		JKT: is.jkt, InstanceJKT: c.InstanceJKT, CertThumbprint: is.certificate(),
	}
	is.request.scopes = nil
}

// openGrant commits a grant that no person was asked about: the client's row and
// document, the identifiers that are spent with it, and the event.
func (h *Handler) openGrant(ctx context.Context, is *issue) error {
	data := map[string]string{"jti": is.jti, "scope": is.answer.Scope, "method": is.client.Method, "grant_type": is.grantType}
	for name, value := range is.noted {
		data[name] = value
	}
	e := is.event(ctx, audit.TypeToken, data)
	o := store.Opening{Grant: is.grant, Spend: is.spend, Events: []audit.Event{e}}
	o.Client, o.Document = is.client.Rows(is.now)
	_, err := h.cfg.Grants.OpenGrant(ctx, o, is.now)
	switch {
	case errors.Is(err, store.ErrSpent):
		return oauth.Refuse(oauth.InvalidGrant, "the assertion was used before; each is good for one token").Under("XCH-04").Because(err)
	case errors.Is(err, store.ErrBlocked):
		return oauth.Refuse(oauth.UnauthorizedClient, "the client is not allowed here any more").Under("POL-05").Because(err)
	case errors.Is(err, store.ErrConflict):
		return oauth.Refuse(oauth.TemporarilyUnavailable, "the client was changed at this moment; try again").Because(err)
	case err != nil:
		return gone(err, "TOK-16", hintAccount)
	}
	h.cfg.Audit.Observe(e)
	return nil
}

const hintAccount = "the account of the person cannot be used here"
