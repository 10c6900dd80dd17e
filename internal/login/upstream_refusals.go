package login

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/upstream"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// strayed refuses an answer that does not belong to a trip of this browser:
// somebody else's, an old one, or one that came back before (CN-02, CN-11).
func (l *Login) strayed(r *http.Request, u *Upstream, code string) error {
	l.noteUpstream(r, u, upstreamEvent{code: "upstream_" + code, rule: "OIDC-05"})
	return &web.Refusal{
		Err:    oauth.Refuse(oauth.AccessDenied, "the answer of the provider does not belong to a sign-in that this browser began").Under("OIDC-05"),
		Status: http.StatusForbidden,
		Title:  "This sign-in did not begin here",
		What:   "It was begun in another browser, took more than ten minutes, or was finished before. You were not signed in.",
		Turn:   "You",
		Next:   "Go back to the app and start again there.",
	}
}

// providerFailed explains an error of the provider, which is either down or not
// to be believed. What it sent is not shown.
func (l *Login) providerFailed(r *http.Request, u *Upstream, err error) error {
	switch {
	case errors.Is(err, upstream.ErrUnavailable):
		l.noteUpstream(r, u, upstreamEvent{code: "upstream_unavailable", rule: "OIDC-05", cause: err})
		return &web.Refusal{
			Err:    oauth.Refuse(oauth.TemporarilyUnavailable, "the sign-in provider could not be asked").Under("OIDC-05").Because(err),
			Status: http.StatusServiceUnavailable,
			Title:  u.Title + " does not answer",
			What:   "We could not ask it who you are. You were not signed in.",
			Turn:   "Whoever runs " + u.Title,
			Next:   "Try again in a few minutes. If it happens again, give the reference below to your administrator.",
		}
	case errors.Is(err, upstream.ErrRefused):
		l.noteUpstream(r, u, upstreamEvent{code: "upstream_refused", rule: "OIDC-05", cause: err})
		return &web.Refusal{
			Err:    oauth.Refuse(oauth.AccessDenied, "the answer of the sign-in provider proves nothing").Under("OIDC-05").Because(err),
			Status: http.StatusForbidden,
			Title:  "We could not accept the answer of " + u.Title,
			What:   "It did not prove who you are. You were not signed in.",
			Turn:   "Whoever runs this server",
			Next:   "Try again. If it happens again, give the reference below to your administrator.",
		}
	}
	return err
}

// comeback is a person whom a provider sent back without a code.
type comeback struct {
	tx   string
	ret  Return
	code string
}

// reasons are the error codes of OAuth and OpenID Connect that we repeat; what
// else a provider may say is not for our page.
var reasons = []string{
	"access_denied", "login_required", "interaction_required", "account_selection_required", "consent_required",
	"unmet_authentication_requirements", "server_error", "temporarily_unavailable", "invalid_request", "unauthorized_client", "invalid_scope", "unsupported_response_type",
}

// providerSaysNo shows the sign-in page again: the person may choose another way.
func (l *Login) providerSaysNo(w http.ResponseWriter, r *http.Request, u *Upstream, c comeback) error {
	if !slices.Contains(reasons, c.code) {
		c.code = "an error that is not known here"
	}
	l.noteUpstream(r, u, upstreamEvent{code: "upstream_error", rule: "OIDC-05", cause: errors.New(c.code)})
	problem := u.Title + " did not sign you in (" + c.code + "). Try again, or choose another way. Reference " + web.Ref(r.Context()) + "."
	return l.showLogin(w, r, c.ret, loginView{Tx: c.tx, Username: c.ret.Username, Problem: problem}, http.StatusForbidden)
}

// stale refuses a sign-in that is older than what was asked for, or of which the
// provider does not say when it was: at is zero then.
func (l *Login) stale(r *http.Request, u *Upstream, at time.Time) error {
	if at.IsZero() {
		l.noteUpstream(r, u, upstreamEvent{code: "upstream_stale", rule: "OIDC-11", cause: errors.New("auth_time is missing")})
		return &web.Refusal{
			Err:    oauth.Refuse(oauth.LoginRequired, "the provider does not say when the person signed in").Under("OIDC-11"),
			Status: http.StatusForbidden,
			Title:  u.Title + " does not say when you signed in",
			What:   "The app wants to know that it was not long ago, and that cannot be told. Nothing was shared.",
			Turn:   "Whoever runs this server",
			Next:   "Choose another way to sign in if there is one, or give the reference below to your administrator.",
		}
	}
	l.noteUpstream(r, u, upstreamEvent{code: "upstream_stale", rule: "OIDC-11", cause: errors.New("auth_time is older than what was asked for")})
	return &web.Refusal{
		Err:    oauth.Refuse(oauth.LoginRequired, "the provider did not ask the person again").Under("OIDC-11"),
		Status: http.StatusForbidden,
		Title:  u.Title + " did not ask you again",
		What:   "This step needs a fresh sign-in, and the one we were told about is older. Nothing was shared.",
		Turn:   "You",
		Next:   "Sign out at " + u.Title + ", then go back to the app and start again.",
	}
}

// noAccount refuses somebody who is known at the provider and has no account here.
func (l *Login) noAccount(r *http.Request, u *Upstream, p *upstream.Person, code string) error {
	l.noteUpstream(r, u, upstreamEvent{code: "upstream_" + code, rule: "OIDC-05", subject: p.Subject})
	title, what := "You have no account here", "You have signed in at "+u.Title+", and nobody has linked that to an account here."
	switch code {
	case "unverified":
		what = "You have signed in at " + u.Title + ", which does not vouch for your address."
	case "domain":
		what = "You have signed in at " + u.Title + " with an address that is not admitted here."
	case "taken":
		what = "There is an account with your address or name already, and it is not linked to " + u.Title + "."
	case "disabled":
		title, what = "You cannot sign in here", "Your account here is switched off."
	}
	return &web.Refusal{
		Err:    oauth.Refuse(oauth.AccessDenied, "the person at the provider has no account here").Under("OIDC-05"),
		Status: http.StatusForbidden,
		Title:  title,
		What:   what + " Nothing was shared.",
		Turn:   "Whoever runs this server",
		Next:   "Give the reference below to your administrator.",
	}
}

// upstreamEvent is what is noted about a sign-in at a provider that led nowhere.
type upstreamEvent struct {
	code, rule, user, subject string
	cause                     error
}

func (l *Login) noteUpstream(r *http.Request, u *Upstream, e upstreamEvent) {
	data := map[string]string{"upstream": u.Provider.Name(), "issuer": u.Provider.Issuer()}
	if e.subject != "" {
		data["subject"] = e.subject
	}
	if e.cause != nil {
		data["error"] = e.cause.Error()
	}
	l.cfg.Audit.Note(audit.Event{
		Time: l.cfg.Now(), Type: audit.TypeLoginFailed, Ref: web.Ref(r.Context()), User: e.user,
		IP: web.ClientIP(r.Context()).String(), Code: e.code, Rule: e.rule, Data: data,
	})
}
