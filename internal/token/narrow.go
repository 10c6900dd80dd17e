package token

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/oauth"
)

// recheck asks again what may have changed since the grant was made: whether it
// still lives, the state of the client, the policy and the resource (TOK-16,
// POL-05). What the grant holds as a snapshot is not read from the document
// again.
func (h *Handler) recheck(_ context.Context, is *issue) error {
	c := is.client
	if !is.grant.Ended.IsZero() {
		return invalidGrant("TOK-16", hintGone, "the grant has ended: "+is.grant.EndReason)
	}
	if err := is.mayUse(); err != nil {
		return err
	}
	documented := slices.Contains(c.GrantTypes, oauth.GrantRefreshToken)
	refreshes := c.Decision.MayRefresh(documented)
	if is.grantType == oauth.GrantRefreshToken && !refreshes {
		return oauth.Refuse(oauth.UnauthorizedClient, "the client may not use refresh tokens").Under("TOK-20")
	}
	res, ok := h.cfg.Policy().Resource(is.grant.Resource)
	if !ok || !c.Decision.MayUse(res.ID) {
		return invalidGrant("POL-05", hintGone, "the resource was withdrawn from the client")
	}
	if !refreshes {
		is.noRefresh = "the client's document does not list refresh_token"
		if documented {
			is.noRefresh = "the policy gives this client no refresh tokens"
		}
	}
	return nil
}

// mayUse checks that the client may use the grant type: by its own declaration, by
// the policy and, where no person agrees, by the word of an operator (TOK-17,
// TOK-20). Whether it gets refresh tokens is decided apart from that.
func (is *issue) mayUse() error {
	c, name := is.client, is.grantType
	deny := func(rule, hint string) error { return oauth.Refuse(oauth.UnauthorizedClient, "%s", hint).Under(rule) }
	switch {
	case c.State != directory.StateAllowed || c.Decision.Action != policy.Allow:
		return deny("POL-05", "the client is not allowed here any more")
	case name == oauth.GrantRefreshToken:
		return nil
	case !c.Has(name):
		return deny("TOK-20", "the client may not use the grant type "+name)
	case !is.kind.alone:
		return nil
	case c.Method == oauth.MethodNone:
		return deny("TOK-17", "the grant type "+name+" is for clients that authenticate")
	case c.Source != directory.SourceRegistered && !c.Decision.Names(name):
		return deny("TOK-17", "an administrator has to name the client and the grant type "+name+" in a policy rule first")
	}
	return nil
}

// narrow decides about resource, scope and details, for every grant alike: all may
// only shrink (TOK-07, TOK-13), and a detail goes with its scope (AUTHZ-26). It
// changes nothing, so that a client can try again with the same code or refresh
// token.
func (h *Handler) narrow(_ context.Context, is *issue) error {
	set := h.cfg.Policy()
	for _, asked := range is.resources {
		res, ok := set.Resource(asked)
		if asked != is.grant.Resource && (!ok || res.ID != is.grant.Resource) {
			return oauth.Refuse(oauth.InvalidTarget, "resource is not the one that was granted").Under("TOK-07")
		}
	}
	is.scopes = is.grant.Scopes
	if len(is.request.scopes) > 0 {
		ceiling := is.grant.Scopes
		if res, ok := set.Resource(is.grant.Resource); ok {
			ceiling = res.Expand(ceiling)
		}
		asked := is.request.scopes
		if !ceiling.Has(oauth.ScopeOfflineAccess) {
			// Many clients repeat the scope of the authorization request, where
			// offline_access is a wish and not a permission.
			asked = asked.Without(oauth.Scopes{oauth.ScopeOfflineAccess})
		}
		if !ceiling.Covers(asked) {
			return oauth.Refuse(oauth.InvalidScope, "scope goes beyond what was granted").Under("TOK-13")
		}
		is.scopes = asked
	}
	before := len(is.scopes)
	is.scopes = is.client.Decision.Narrow(is.scopes)
	if before > 0 && len(is.scopes) == 0 {
		return invalidGrant("POL-05", hintGone, "the policy leaves none of the granted scopes")
	}
	return is.narrowDetails(set)
}

// narrowDetails decides about the details: what is left of the granted ones, and
// of those the ones that the request names, if it names any. Nobody but a person
// can grant others (RFC 9396 section 6).
func (is *issue) narrowDetails(set *policy.Set) error {
	res, ok := set.Resource(is.grant.Resource)
	if !ok {
		return nil // recheck has found it
	}
	is.details = set.KeepDetails(res, is.grant.Details, is.scopes)
	if is.grant.Details != "" && is.details == "" && len(is.scopes) == 0 {
		return invalidGrant("POL-05", hintGone, "the resource has none of the granted details any more")
	}
	if is.request.details == "" {
		return nil
	}
	var err error
	if is.details, err = set.SelectDetails(res, is.details, is.request.details); err != nil {
		return oauth.Refuse(oauth.InvalidDetails, "%s", err.Error()).Under("AUTHZ-26")
	}
	return nil
}

// mint makes the tokens, before the single use: if signing fails, nothing is
// lost. The access token has one audience, the resource of the grant (TOK-09).
func (h *Handler) mint(_ context.Context, is *issue) error {
	is.jti = oauth.RandomToken(16)
	g, expires := is.grant, is.now.Add(h.cfg.Access)
	if !is.until.IsZero() && is.until.Before(expires) {
		expires = is.until
	}
	t := keyring.AccessToken{
		Subject: g.UserID, ClientID: g.ClientID, Audience: g.Resource, GrantID: g.ID, JTI: is.jti, Origins: is.origins,
		Scopes: is.scopes, Issued: is.now, Expires: expires, AuthTime: g.AuthTime, ACR: g.ACR, AMR: g.AMR,
		CnfJKT: is.jkt, CnfX5T: is.certificate(), Actor: g.Actor, Details: is.details,
	}
	if g.UserID == "" { // nobody's subject is a client_id: accounts have identifiers of our own (TOK-18)
		t.Subject, t.ClientOnly = g.ClientID, true
	}
	access, err := h.cfg.Keys.MintAccess(t)
	if err != nil {
		return err
	}
	a := &is.answer
	a.AccessToken, a.TokenType, a.Scope = access, tokenType(is.jkt), is.scopes.String()
	a.ExpiresIn, a.Details = int64(expires.Sub(is.now).Seconds()), json.RawMessage(is.details)
	if is.kind.alone || !is.scopes.Has(oauth.ScopeOpenID) {
		return nil
	}
	id := keyring.IDToken{
		Subject: g.UserID, ClientID: g.ClientID, Issued: is.now, Expires: expires,
		AuthTime: g.AuthTime, ACR: g.ACR, AMR: g.AMR, SID: g.SID, AccessToken: access,
	}
	if is.grantType == oauth.GrantAuthorizationCode {
		id.Nonce = g.Nonce // not on refresh: OpenID Connect Core section 12.2
	}
	is.answer.IDToken, err = h.cfg.Keys.MintID(id)
	return err
}
