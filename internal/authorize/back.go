package authorize

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// tellClient answers a request with an error of OAuth. It goes to the client by
// itself only where the redirect URI has earned trust; otherwise the person sees
// what is wrong and may follow a link that names its destination. A stranger's
// document must not turn this server into an open redirector (AUTHZ-10, AUTHZ-11).
func (h *Handler) tellClient(w http.ResponseWriter, r *http.Request, a *attempt, user *login.User, e *oauth.Error) error {
	h.Audit.Note(h.event(r, audit.Event{
		Type: audit.TypeRefusal, Client: a.client.ID, User: userID(user), Resource: a.resourceID(), Rule: e.Rule, Code: string(e.Code),
		Data: map[string]string{"hint": e.Hint},
	}))
	trusted, err := h.backToClient(r.Context(), a, user)
	if err != nil {
		return err
	}
	where := h.errorURL(a, e)
	if trusted {
		return leave(w, r, where)
	}
	return h.Edge.Render(w, r, http.StatusBadRequest, web.Page{
		Title:    "This app's request cannot go on",
		Template: returnPage,
		Data: returnView{
			What: plainly(e.Code), Client: a.client.ID, Ref: web.Ref(r.Context()),
			Code: string(e.Code), Rule: e.Rule, Hint: e.Hint,
			Where: where, Destination: newDestination(a.redirect),
		},
	})
}

// backToClient reports whether an error may be redirected without asking: to a
// client that an operator registered, or that this very person has agreed to.
func (h *Handler) backToClient(ctx context.Context, a *attempt, user *login.User) (bool, error) {
	if a.client.Source == directory.SourceRegistered {
		return true, nil
	}
	if user == nil || a.client.FirstSeen {
		return false, nil
	}
	for i := range a.policy.Resources {
		_, err := h.Store.Consent(ctx, user.User.ID, a.client.ID, a.policy.Resources[i].ID)
		switch {
		case err == nil:
			return true, nil
		case !errors.Is(err, store.ErrNotFound):
			return false, err
		}
	}
	return false, nil
}

func (h *Handler) errorURL(a *attempt, e *oauth.Error) string {
	return oauth.AppendQuery(a.redirect, "error", string(e.Code), "error_description", describe(e),
		"state", a.req.State, "iss", h.Issuer)
}

// describe is the hint in the characters that error_description may have
// (OAuth 2.1 section 4.1.2.1).
func describe(e *oauth.Error) string {
	s := e.Hint
	if e.Rule != "" {
		s += " [" + e.Rule + "]"
	}
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return '\''
		}
		return c
	}, s)
}

// leave sends the browser to a client: 303, so that no form travels along
// (AUTHZ-15), and the redirect URI's own query stays as it is (AUTHZ-14).
func leave(w http.ResponseWriter, r *http.Request, where string) error {
	http.Redirect(w, r, where, http.StatusSeeOther)
	return nil
}

func loginRequired() *oauth.Error {
	return oauth.Refuse(oauth.LoginRequired, "the person has to sign in").Under("AUTHZ-23")
}

// untrustedSilence answers prompt=none for a client that nobody here knows while
// nobody is signed in: there is no one to ask and nowhere that may be told.
func untrustedSilence(clientID string) error {
	return &web.Refusal{
		Err: loginRequired(), Status: http.StatusBadRequest, ClientURL: clientID,
		Title: "You have to sign in first",
		What:  "The app asked us to answer without showing you anything, and you are not signed in. Nothing was shared.",
		Next:  "Go back to the app and connect again from there.",
	}
}

// outdated refuses a sealed value that has expired, was changed, or belongs to
// another browser or session. The three look the same.
func outdated(cause error) error {
	return &web.Refusal{
		Err:    oauth.Refuse(oauth.AccessDenied, "the sign-in was not continued in time, or not in the browser and session that began it").Under("AUTHZ-27").Because(cause),
		Status: http.StatusForbidden,
		Title:  "This page is no longer valid",
		What:   "It was open for too long, or it was opened in another browser or by another account. Nothing was shared.",
		Next:   "Go back to the app and start again.",
	}
}

// refusePrefetch gives a browser that only looks ahead nothing to keep: neither
// a code nor an error may be produced before the person really comes (CN-05).
func refusePrefetch(r *http.Request) error {
	if !strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch") && r.Header.Get("Purpose") != "prefetch" &&
		r.Header.Get("X-Moz") != "prefetch" && r.Header.Get("X-Purpose") != "preview" { // the older names of Firefox and Safari
		return nil
	}
	return web.Refuse(http.StatusTooEarly, oauth.Refuse(oauth.InvalidRequest, "this page is not for prefetching").Under("CONS-05"))
}

// startedHere reports whether the browser itself says that the request was not
// started by another site. Without the header nothing is assumed.
func startedHere(r *http.Request) bool {
	v := r.Header.Values("Sec-Fetch-Site")
	return len(v) == 1 && (v[0] == "none" || v[0] == "same-origin") || planted.Weak("silent")
}

// browser returns a digest that stands for this browser, and gives it the cookie
// that makes it recognizable if it has none. What was begun in one browser counts
// in no other (CN-14).
func (h *Handler) browser(w http.ResponseWriter, r *http.Request) string {
	v := h.Edge.Cookie(r, "browser")
	if len(v) != 43 {
		v = oauth.RandomToken(32)
		h.Edge.SetCookie(w, "browser", v, 0)
	}
	sum := sha256.Sum256([]byte(v))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// event completes an audit event with what the request knows.
func (h *Handler) event(r *http.Request, e audit.Event) audit.Event {
	e.Time, e.Ref = h.Now(), web.Ref(r.Context())
	if ip := web.ClientIP(r.Context()); ip.IsValid() {
		e.IP = ip.String()
	}
	return e
}

func userID(u *login.User) string {
	if u == nil {
		return ""
	}
	return u.User.ID
}

func (a *attempt) resourceID() string {
	if a.resource == nil {
		return ""
	}
	return a.resource.ID
}
