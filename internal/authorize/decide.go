package authorize

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// mustSignIn reports whether the person has to sign in, and why. Who has proved
// after the request began who they are satisfies prompt=login and max_age, so that
// nobody is asked twice (AUTHZ-23, AUTHZ-24). Who came in since then by a sign-in
// at a provider that was older has chosen their account, and has the context that
// they have: asked again they would come back the same.
func (a *attempt) mustSignIn(user *login.User, started, now time.Time) (login.Reason, bool) {
	if user == nil {
		return login.ReasonNone, true
	}
	at := user.Session.AuthTime // zero: nobody knows
	fresh, came := !at.Before(started), !user.Session.Created.Before(started)
	switch {
	case fresh:
		return "", false
	case !came && !a.hintedAt(user):
		return login.ReasonSwitch, true
	case a.prompt.Has(promptLogin):
		return login.ReasonAgain, true
	case !came && a.prompt.Has(promptAccount):
		return login.ReasonSwitch, true
	case a.maxAge >= 0 && now.Sub(at) > a.maxAge, at.IsZero() && a.timeDemanded(), !came && !a.acrMet(user):
		return login.ReasonAgain, true
	}
	return "", false
}

// timeDemanded reports whether the client's ID token has to say when the person
// signed in, as its document can demand (OIDC-01).
func (a *attempt) timeDemanded() bool {
	return a.client.Doc != nil && a.client.Doc.RequireAuthTime && a.scopes.Has(oauth.ScopeOpenID)
}

// anyAge is a max_age that only makes a provider say when the person signed in.
const anyAge = 365 * 24 * time.Hour

// back is the way back from the sign-in page, with what the sign-in has to be,
// wherever it takes place.
func (a *attempt) back(why login.Reason) login.Return {
	ret := login.Return{Reason: why, Fresh: a.prompt.Has(promptLogin) || a.maxAge == 0, Choose: a.prompt.Has(promptAccount), ACR: a.acr}
	switch {
	case a.maxAge > 0:
		ret.MaxAge = a.maxAge
	case a.maxAge < 0 && a.timeDemanded():
		ret.MaxAge = anyAge
	}
	return ret
}

// outlined is back for a request of a client that is not known yet: what it says
// is taken as it stands, and all of it is checked after the sign-in.
func (h *Handler) outlined(v *visit) login.Return {
	a := &attempt{req: v.Request.outline(), client: &directory.Client{}, rules: &h.rules, maxAge: -1}
	if checkPrompt(a) != nil || checkMaxAge(a) != nil || checkACR(a) != nil {
		return login.Return{}
	}
	return a.back(login.ReasonNone)
}

// nobody is whom an id_token_hint names that we cannot read: it is not known
// whether the person who is signed in is the one.
const nobody = "\x00"

// takeHint notes whom id_token_hint names. One that we cannot read, because its
// key is long gone or it was another client's, names nobody. It is a hint: a
// person may come all the same and sign in, and only where nobody is to be asked
// it leaves nothing to go by (AUTHZ-23).
func (h *Handler) takeHint(a *attempt) {
	if a.req.Hint == "" {
		return
	}
	if h.Hints != nil {
		if hint, err := h.Hints.VerifyHint(a.req.Hint); err == nil && hint.ClientID == a.client.ID {
			a.hinted = hint.Subject
			return
		}
	}
	if a.prompt.Has(promptNone) {
		a.hinted = nobody
	}
}

// hintedAt reports whether the person is the one of id_token_hint, if there is one.
func (a *attempt) hintedAt(user *login.User) bool {
	return a.hinted == "" || a.hinted == user.User.ID
}

// acrMet reports whether the sign-in has one of the requested contexts.
func (a *attempt) acrMet(user *login.User) bool {
	return len(a.acr) == 0 || a.acr.Has(user.Session.ACR)
}

// decide answers a request that is in order and whose user is known: silently
// from a remembered consent, or by asking.
func (h *Handler) decide(w http.ResponseWriter, r *http.Request, a *attempt, v *visit, user *login.User) error {
	began := h.Now()
	before, err := h.remembered(r.Context(), a, user)
	if err != nil {
		return err
	}
	if v.Silent && a.mayBeSilent(before) {
		return h.issue(w, r, a, user, decision{
			nonce: oauth.RandomToken(32), asked: began, endings: before.Endings, silent: true, pushed: v.Pushed,
		})
	}
	if a.prompt.Has(promptNone) {
		return h.tellClient(w, r, a, user, oauth.Refuse(oauth.ConsentRequired, "the person has to agree on the consent page").Under("AUTHZ-23"))
	}
	return h.ask(w, r, a, question{Visit: *v, user: user, before: before})
}

// remembered returns what the person has agreed to for this client and resource;
// a consent without scopes when there is nothing. Either says after how many
// endings that was so.
func (h *Handler) remembered(ctx context.Context, a *attempt, user *login.User) (store.Consent, error) {
	c, err := h.Store.Consent(ctx, user.User.ID, a.client.ID, a.resource.ID)
	if errors.Is(err, store.ErrNotFound) {
		return store.Consent{Endings: c.Endings}, nil
	}
	return c, err
}

// mayBeSilent reports whether a remembered consent answers the request by
// itself: same person, client and resource, every scope covered and nothing
// beside scopes asked for (AUTHZ-26), no change in what makes the client secure
// (CONS-13), a client that is finished (CONS-12), and one of which an impostor
// cannot simply claim the name (CONS-05).
func (a *attempt) mayBeSilent(before store.Consent) bool {
	if before.Given.IsZero() || a.prompt.Has(promptConsent) || a.details.JSON != "" || a.client.Decision.Development {
		return false
	}
	if before.SecurityDigest != a.client.SecurityDigest || !a.resource.Expand(before.Scopes).Covers(a.scopes) {
		return false
	}
	if remember := a.client.Decision.Remember; remember != nil {
		return *remember
	}
	return provable(a.client)
}

// provable reports whether only the real client can use its client_id: it always
// authenticates itself, or its answers go to its https addresses alone. A public
// client that listens on the person's own computer is neither (CONS-05, CN-10), and
// of one that registered itself nobody knows which the real one is.
func provable(c *directory.Client) bool {
	if selfMade(c) {
		return false
	}
	return !slices.Contains(c.AuthMethods, oauth.MethodNone) || !slices.ContainsFunc(c.RedirectURIs, unclaimed)
}

// unclaimed reports whether any program on the person's computer could receive
// what is sent to uri.
func unclaimed(uri string) bool { return !strings.HasPrefix(uri, "https://") }
