package token

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/issuers"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// TrustedIssuer is a server whose identity assertions are accepted.
type TrustedIssuer struct {
	ID      string // its issuer identifier, byte for byte
	Keys    *issuers.Keys
	Tenants []string      // those that are accepted; none: it has no tenants
	Link    Linking       // how a person who is not linked yet is found; "" is LinkIdentity
	Life    time.Duration // the longest life of an assertion; 0 is 10 minutes

	EmailsVerified bool // an address without email_verified counts as verified
}

// Linking says how the person in an assertion becomes an account (XCH-10).
type Linking string

// The three ways. Each begins with the identity: issuer, tenant and subject.
const (
	LinkIdentity Linking = "identity" // only if it was linked before
	LinkEmail    Linking = "email"    // else the one account with the assertion's address is linked
	LinkCreate   Linking = "create"   // else a new account is made
)

// Identities is what the grant may do with accounts.
type Identities interface {
	UserByIdentity(ctx context.Context, issuer, tenant, subject string) (store.User, error)
	UserByEmail(ctx context.Context, email string) (store.User, error)
	LinkIdentity(ctx context.Context, id store.Identity, create *store.User, events ...audit.Event) error
}

func parseJWTBearer(p web.Params, q *request) error {
	if q.assertion = p.Form["assertion"]; q.assertion == "" {
		return missing("assertion")
	}
	return parseScope(p, q)
}

// findAssertion checks an identity assertion (ID-JAG): that a trusted issuer made
// it for this server, for this client and for one of our resources, and whom it
// speaks about. Nothing is written here; the assertion is spent in the commit
// that makes the grant (XCH-04).
func (h *Handler) findAssertion(ctx context.Context, is *issue) error {
	a, err := h.readAssertion(ctx, is)
	if err != nil {
		return err
	}
	res, err := h.targetOf(is, a)
	if err != nil {
		return err
	}
	stated := a.scopes
	if !a.hasScope {
		stated = res.Default
	}
	ceiling := is.client.Narrow(res.Expand(stated).And(res.ScopeNames()))
	scopes := stated.And(ceiling) // what is implied need not be spelled out
	if asked := is.request.scopes; len(asked) > 0 {
		scopes = asked.And(ceiling)
	}
	if len(scopes) == 0 && len(res.Scopes) > 0 {
		return invalidGrant("XCH-06", "assertion and request leave no scope of the resource; the resource has "+res.ScopeNames().String(), "no scope in common")
	}
	userID, err := h.person(ctx, is, a)
	if err != nil {
		return err
	}
	is.open(store.KindJWT, res.ID, scopes)
	is.grant.UserID, is.grant.AuthTime, is.grant.ACR, is.grant.AMR = userID, a.authTime, a.ACR, a.AMR
	is.spend = []store.SpentID{{Issuer: a.spender(), ID: store.HashOf(a.JTI), Expires: a.expires.Add(clockSkew)}}
	is.noted = map[string]string{"issuer": a.Issuer, "tenant": a.Tenant, "id_jag": a.JTI}
	return nil
}

// redeemAssertion links the person, where that is new, and commits the grant.
func (h *Handler) redeemAssertion(ctx context.Context, is *issue) error {
	if is.link != nil {
		if err := h.link(ctx, is); err != nil {
			return err
		}
	}
	return h.openGrant(ctx, is)
}

// link is an identity that is about to be linked: to an account, or to a new one
// under the first of the names that is free.
type link struct {
	store.Identity
	by    Linking
	email string
	names []string
}

const hintPerson = "no account here is linked to the person of the assertion; the person signs in here once, or an administrator links the account"

// person finds the account that an assertion speaks about: by its identity, and
// by e-mail address or as a new account only where the configuration says so. An
// address is a claim and no identity: it can be given to somebody else (XCH-10).
func (h *Handler) person(ctx context.Context, is *issue, a *idJAG) (userID string, err error) {
	u, err := h.cfg.Identities.UserByIdentity(ctx, a.Issuer, a.Tenant, a.Subject)
	switch {
	case err == nil && u.Disabled:
		return "", invalidGrant("XCH-10", hintAccount, "the account is disabled")
	case err == nil:
		return u.ID, nil
	case !errors.Is(err, store.ErrNotFound):
		return "", fmt.Errorf("find the account of an assertion: %w", err)
	}
	l := &link{by: a.issuer.Link, Identity: store.Identity{
		Issuer: a.Issuer, Tenant: a.Tenant, Subject: a.Subject, Email: a.Email, Created: is.now, LastSeen: is.now,
	}}
	known, err := h.byEmail(ctx, a)
	if err != nil {
		return "", err
	}
	switch {
	case l.by == LinkEmail && known != nil:
		l.UserID, l.Sole = known.ID, true
	case l.by == LinkCreate:
		l.UserID = store.NewID(is.now)
		if to := a.address(); known == nil && to != "" && a.verified() { // an address stands for one account
			l.email, l.names = to, []string{to}
		}
		l.names = append(l.names, a.Subject+"@"+hostOf(a.Issuer))
	default:
		return "", invalidGrant("XCH-10", hintPerson, fmt.Sprintf("subject %.200q of %s, tenant %.200q, is not linked", a.Subject, a.Issuer, a.Tenant))
	}
	is.link = l
	return l.UserID, nil
}

// byEmail returns the account with the verified address of the assertion, or nil.
// An address that is not verified finds no account, but where its account is
// disabled the person gets no other one by leaving the proof out (CN-19).
func (h *Handler) byEmail(ctx context.Context, a *idJAG) (*store.User, error) {
	if a.issuer.Link == LinkIdentity || a.address() == "" {
		return nil, nil
	}
	u, err := h.cfg.Identities.UserByEmail(ctx, a.address())
	switch {
	case errors.Is(err, store.ErrNotFound), !a.verified() && errors.Is(err, store.ErrConflict):
		return nil, nil
	case errors.Is(err, store.ErrConflict):
		return nil, invalidGrant("XCH-10", hintPerson, "several accounts have the address")
	case err != nil:
		return nil, fmt.Errorf("find an account by its address: %w", err)
	case u.Disabled:
		return nil, invalidGrant("XCH-10", hintAccount, "the account with the address is disabled")
	case !a.verified():
		return nil, nil
	}
	return &u, nil
}

// link writes the link, and the account if it is new.
func (h *Handler) link(ctx context.Context, is *issue) error {
	l := is.link
	e := is.event(ctx, audit.TypeUser, map[string]string{"issuer": l.Issuer, "tenant": l.Tenant, "subject": l.Subject, "by": string(l.by)})
	e.Code, e.Grant = "linked", ""
	var err error
	if len(l.names) == 0 {
		err = h.cfg.Identities.LinkIdentity(ctx, l.Identity, nil, e)
	}
	for _, name := range l.names {
		e.Code = "added"
		u := store.User{ID: l.UserID, Name: name, Email: l.email, Created: is.now}
		if err = h.cfg.Identities.LinkIdentity(ctx, l.Identity, &u, e); !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	if errors.Is(err, store.ErrConflict) && l.Sole {
		return invalidGrant("XCH-10", hintPerson, "the account with the address is somebody else at the issuer")
	}
	if errors.Is(err, store.ErrConflict) { // a request beside this one linked it
		return oauth.Refuse(oauth.TemporarilyUnavailable, "the account was linked at this moment; try again").Under("XCH-10").Because(err)
	}
	if err != nil {
		return gone(err, "XCH-10", hintAccount)
	}
	h.cfg.Audit.Observe(e)
	return nil
}

// targetOf returns the resource that the assertion is for. It names one, or the
// request picks one of those that it names (XCH-05, XCH-06).
func (h *Handler) targetOf(is *issue, a *idJAG) (target *policy.Resource, err error) {
	set := h.cfg.Policy()
	for _, id := range a.resources {
		res, ok := set.Resource(id)
		if !ok || len(is.resources) > 0 && !slices.ContainsFunc(is.resources, func(asked string) bool {
			r, ok := set.Resource(asked)
			return ok && r.ID == res.ID
		}) {
			continue
		}
		if target != nil && target.ID != res.ID {
			return nil, invalidGrant("XCH-05", "the assertion is for several resources; name one of them as resource", "several resources")
		}
		target = res
	}
	switch {
	case target == nil:
		return nil, invalidGrant("XCH-05", "the resource of the assertion is not the one of the request, or not a protected server of this authorization server", "no such resource")
	case !is.client.Decision.MayUse(target.ID):
		return nil, invalidGrant("XCH-05", "the client may not use the resource of the assertion", "a policy withholds the resource")
	}
	return target, nil
}

// issuerOf returns a trusted issuer.
func (h *Handler) issuerOf(id string) *TrustedIssuer {
	for i := range h.cfg.IDJAG {
		if h.cfg.IDJAG[i].ID == id {
			return &h.cfg.IDJAG[i]
		}
	}
	return nil
}

func hostOf(issuer string) string {
	if u, err := url.Parse(issuer); err == nil {
		return u.Hostname()
	}
	return ""
}

// verifyKey finds the issuer's key and checks the signature.
func verifyKey(ctx context.Context, i *TrustedIssuer, m *jose.Message) error {
	key, err := i.Keys.Find(ctx, m.Header.KID, m.Header.Alg)
	if errors.Is(err, issuers.ErrUnavailable) {
		return oauth.Refuse(oauth.TemporarilyUnavailable, "the keys of the issuer cannot be had at the moment; try again").Under("XCH-01").Because(err)
	}
	if err == nil {
		err = m.Verify(key)
	}
	if err != nil {
		return notTrusted(err)
	}
	return nil
}
