package login

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/upstream"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// account returns the account of a person at a provider. What counts is issuer
// and subject; an address leads to an account only once, only where the operator
// says so, and only a verified one of an admitted domain (OIDC-05). Somebody who
// comes for the first time twice at one moment, from two tabs and to two replicas,
// is one person: who loses the race looks again.
func (l *Login) account(r *http.Request, u *Upstream, p *upstream.Person) (store.User, error) {
	user, err := l.accountNow(r, u, p)
	if errors.Is(err, store.ErrConflict) {
		user, err = l.accountNow(r, u, p)
	}
	if errors.Is(err, store.ErrConflict) {
		return store.User{}, l.noAccount(r, u, p, "taken")
	}
	return user, err
}

// accountNow is account as things are at this moment. ErrConflict: they were
// otherwise when the link was to be written.
func (l *Login) accountNow(r *http.Request, u *Upstream, p *upstream.Person) (store.User, error) {
	ctx, now := r.Context(), l.cfg.Now()
	issuer := u.Provider.Issuer()
	user, err := l.cfg.Identities.UserByIdentity(ctx, issuer, "", p.Subject)
	code := "seen"
	var create *store.User
	switch {
	case err == nil:
	case !errors.Is(err, store.ErrNotFound):
		return store.User{}, fmt.Errorf("find the account of an identity: %w", err)
	default:
		if user, create, err = l.newcomer(r, u, p); err != nil {
			return store.User{}, err
		}
		code = "linked"
	}
	if user.Disabled {
		return store.User{}, l.noAccount(r, u, p, "disabled")
	}
	var events []audit.Event
	if code == "linked" {
		events = append(events, audit.Event{
			Time: now, Type: audit.TypeUser, Ref: web.Ref(ctx), User: user.ID, IP: web.ClientIP(ctx).String(), Code: code,
			Data: map[string]string{"upstream": u.Provider.Name(), "issuer": issuer, "subject": p.Subject},
		})
	}
	err = l.cfg.Identities.LinkIdentity(ctx, store.Identity{
		Issuer: issuer, Subject: p.Subject, UserID: user.ID, Email: p.Email, Created: now, LastSeen: now,
		Sole: code == "linked", // an address may be the next person's by now
	}, create, events...)
	switch {
	case errors.Is(err, store.ErrEnded):
		return store.User{}, l.noAccount(r, u, p, "disabled")
	case err != nil:
		return store.User{}, fmt.Errorf("link an identity: %w", err)
	}
	for _, e := range events {
		l.cfg.Audit.Observe(e)
	}
	return user, nil
}

// newcomer returns the account to link for somebody who was never here: one with
// the same address, or a new one.
func (l *Login) newcomer(r *http.Request, u *Upstream, p *upstream.Person) (store.User, *store.User, error) {
	switch {
	case len(u.Link) == 0:
		return store.User{}, nil, l.noAccount(r, u, p, "unknown")
	case p.Email == "" || !p.EmailVerified:
		return store.User{}, nil, l.noAccount(r, u, p, "unverified")
	case !admitted(p.Email, u.Domains):
		return store.User{}, nil, l.noAccount(r, u, p, "domain")
	}
	user, err := l.cfg.Identities.UserByEmail(r.Context(), p.Email)
	switch {
	case err == nil && user.Disabled:
		return store.User{}, nil, l.noAccount(r, u, p, "disabled")
	case err == nil && slices.Contains(u.Link, LinkEmail):
		return user, nil, nil
	case err == nil, errors.Is(err, store.ErrConflict):
		return store.User{}, nil, l.noAccount(r, u, p, "taken")
	case !errors.Is(err, store.ErrNotFound):
		return store.User{}, nil, fmt.Errorf("find the account of an address: %w", err)
	case !slices.Contains(u.Link, LinkCreate):
		return store.User{}, nil, l.noAccount(r, u, p, "unknown")
	}
	now := l.cfg.Now()
	fresh := store.User{ID: store.NewID(now), Name: p.Email, Email: p.Email, Created: now} // without a password: nobody signs in with one
	return fresh, &fresh, nil
}

// admitted reports whether an address is in one of the domains. There is one @ in
// it, so that nothing else can be taken for its domain.
func admitted(email string, domains []string) bool {
	local, domain, ok := strings.Cut(email, "@")
	return ok && local != "" && slices.Contains(domains, strings.ToLower(domain)) && !strings.ContainsFunc(email, func(r rune) bool { return r <= ' ' || r > '~' })
}

// serveBackchannel takes a logout token of a provider (OIDC-10): the person's
// sessions end here too, with what was connected in them, except for apps that
// were given access while the person is away. All of it happens in one commit with
// the spending of the token: a provider that gets an error comes again.
func (l *Login) serveBackchannel(w http.ResponseWriter, r *http.Request) error {
	u := l.upstream(strings.TrimPrefix(r.URL.Path, l.cfg.Edge.Path(pathBackchannel)))
	if u == nil {
		return web.Refuse(http.StatusNotFound, oauth.Refuse(oauth.InvalidRequest, "nothing stands at this address"))
	}
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	now, ctx := l.cfg.Now(), r.Context()
	bye, err := u.Provider.VerifyLogout(ctx, p.Form["logout_token"])
	if errors.Is(err, upstream.ErrUnavailable) {
		return oauth.Refuse(oauth.TemporarilyUnavailable, "the provider's keys cannot be had just now").Under("OIDC-10").Because(err)
	}
	refused := oauth.Refuse(oauth.InvalidRequest, "the logout token is not acceptable").Under("OIDC-10")
	if err != nil {
		return refused.Because(err)
	}
	issuer := u.Provider.Issuer()
	e := audit.Event{
		Time: now, Type: audit.TypeLogout, Ref: web.Ref(ctx), IP: web.ClientIP(ctx).String(), Rule: "OIDC-10",
		Data: map[string]string{"upstream": u.Provider.Name()},
	}
	ended, err := l.cfg.Identities.SignOutIdentity(ctx, store.Farewell{
		Issuer: issuer, Subject: bye.Subject, Reason: "signed out at the provider",
		Spend: store.SpentID{Issuer: issuer + " logout", ID: store.HashOf(bye.JTI), Expires: bye.Expires},
	}, now, e)
	if errors.Is(err, store.ErrSpent) {
		return refused.Because(err)
	}
	if err != nil {
		return err
	}
	if ended.UserID != "" { // else nobody is that here: there is nothing to end
		e.User = ended.UserID
		l.cfg.Audit.Observe(e)
		if l.cfg.Ended != nil {
			l.cfg.Ended(ctx, ended.Grants)
		}
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
