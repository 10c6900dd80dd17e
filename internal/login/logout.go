package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Clients is what the sign-out page asks about clients.
type Clients interface {
	Known(ctx context.Context, clientID string) (*directory.Client, error)
}

// Hints reads ID tokens that clients send back to us.
type Hints interface {
	VerifyHint(token string) (keyring.Hint, error)
}

const (
	pathLogout  = "/logout"
	pathSignOut = "/logout/confirm"

	maxLogoutState = 4096 // bytes of state, which is returned whole or not at all
)

type logoutView struct {
	Action, Token, Username, Issuer, Connections string
	AppHost                                      string // who asks, if a client does
	Return, ReturnHost                           string // where the person may go afterwards
}

// farewell is a request to sign out, once it was checked (OpenID Connect
// RP-Initiated Logout section 2). It travels sealed in the page's form, bound to
// the session.
type farewell struct {
	Session store.Hash `json:"s"`           // hash of the session's secret
	To      string     `json:"t,omitempty"` // where the person goes afterwards, complete
	AppHost string     `json:"a,omitempty"`

	hint *keyring.Hint // what a verified hint says; nil without one
}

// serveLogout takes a request to sign out: from a person who opens the page, or
// from a client that sends the browser here. A client whose ID token belongs to
// this very session ends it at once; otherwise the person is asked (OIDC-08).
func (l *Login) serveLogout(w http.ResponseWriter, r *http.Request) error {
	e := l.cfg.Edge
	if r.Method == http.MethodPost {
		// Browsers hold our cookies back on a POST from another site. Asked
		// again by GET, the same request finds the session.
		p, err := web.ParseBody(r)
		if err != nil {
			return err
		}
		q := url.Values{}
		for _, name := range []string{"id_token_hint", "client_id", "post_logout_redirect_uri", "state"} {
			if v := p.Form[name]; v != "" {
				q.Set(name, v)
			}
		}
		to := e.Path(pathLogout)
		if len(q) > 0 {
			to += "?" + q.Encode()
		}
		web.SeeOther(w, to)
		return nil
	}
	p, err := web.ParseQuery(r)
	if err != nil {
		return err
	}
	f, err := l.farewell(r.Context(), p.Form)
	if err != nil {
		return err
	}
	user, err := l.Current(r)
	switch {
	case err != nil:
		return err
	case user == nil && f.hint != nil && f.To != "":
		e.ClearCookie(w, sessionCookie)
		web.SeeOther(w, f.To)
		return nil
	case user == nil:
		e.ClearCookie(w, sessionCookie)
		return l.signedOut(w, r, f)
	case f.of(user):
		return l.signOut(w, r, user, f)
	}
	return l.askToSignOut(w, r, user, f)
}

// farewell checks a request to sign out. A redirect that the client does not
// list is refused on a page: the person never leaves for an unproven address.
func (l *Login) farewell(ctx context.Context, form web.Form) (farewell, error) {
	var f farewell
	if hint := form["id_token_hint"]; hint != "" && l.cfg.Hints != nil {
		// One that we cannot verify any more counts as none: it may be older than
		// the keys that are still published.
		if h, err := l.cfg.Hints.VerifyHint(hint); err == nil {
			f.hint = &h
		}
	}
	id := form["client_id"]
	switch {
	case f.hint != nil && id != "" && id != f.hint.ClientID:
		return f, l.badFarewell("client_id is not the client of id_token_hint")
	case f.hint != nil:
		id = f.hint.ClientID
	}
	to := form["post_logout_redirect_uri"]
	switch {
	case to != "" && id == "":
		return f, l.badFarewell("post_logout_redirect_uri needs client_id or an id_token_hint of ours")
	case id == "" || l.cfg.Clients == nil:
		return f, nil
	}
	web.SetClient(ctx, id)
	c, err := l.cfg.Clients.Known(ctx, id)
	if err != nil && oauth.AsError(err).Code == oauth.ServerError {
		return f, err
	}
	if err == nil && c.State == directory.StateAllowed {
		f.AppHost = c.Host
	}
	if to == "" {
		return f, nil
	}
	if err != nil || c.State != directory.StateAllowed || !slices.Contains(c.PostLogoutRedirectURIs, to) {
		return f, l.badFarewell("post_logout_redirect_uri is not one that the client lists, byte for byte")
	}
	if len(form["state"]) > maxLogoutState {
		return f, l.badFarewell(fmt.Sprintf("state is longer than %d bytes", maxLogoutState))
	}
	f.To = oauth.AppendQuery(to, "state", form["state"])
	return f, nil
}

func (l *Login) badFarewell(hint string) error {
	return &web.Refusal{
		Err: oauth.Refuse(oauth.InvalidRequest, "%s", hint).Under("OIDC-08"), Status: http.StatusBadRequest,
		Title: "This sign-out link does not fit the app",
		What:  "The app asked us to sign you out in a way that we cannot follow. Nothing was changed.",
		Turn:  "You",
		Next:  "To sign out here, open " + l.cfg.Edge.URL(pathLogout),
	}
}

// of reports whether the client has shown an ID token of this session.
func (f *farewell) of(u *User) bool {
	return f.hint != nil && f.hint.Subject == u.User.ID && f.hint.SID != "" && f.hint.SID == u.Session.SID
}

// askToSignOut shows the page that asks.
func (l *Login) askToSignOut(w http.ResponseWriter, r *http.Request, u *User, f farewell) error {
	e := l.cfg.Edge
	f.Session = u.Session.Hash
	token, err := l.cfg.Sealer.Seal(purposeLogout, l.cfg.Now().Add(formLife), f)
	if err != nil {
		return err
	}
	return e.Render(w, r, http.StatusOK, web.Page{
		Title: "Sign out", Template: logoutPage, RedirectHost: f.To,
		Data: logoutView{
			Action: e.Path(pathSignOut), Token: token, Username: u.User.Name, Issuer: e.Host(), Connections: l.connections(),
			AppHost: f.AppHost, ReturnHost: web.SplitURL(f.To).Host,
		},
	})
}

// answerLogout takes the person's answer. It counts in the session to which the
// page was shown.
func (l *Login) answerLogout(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	user, err := l.Current(r)
	if err != nil {
		return err
	}
	if user == nil {
		l.cfg.Edge.ClearCookie(w, sessionCookie)
		return l.signedOut(w, r, farewell{})
	}
	var f farewell
	err = l.cfg.Sealer.Open(purposeLogout, p.Form["form"], l.cfg.Now(), &f)
	if err != nil || f.Session != user.Session.Hash {
		return l.askToSignOut(w, r, user, farewell{})
	}
	return l.signOut(w, r, user, f)
}

// signOut ends the session, tells the clients, and sends the person on.
func (l *Login) signOut(w http.ResponseWriter, r *http.Request, u *User, f farewell) error {
	e := l.cfg.Edge
	if err := l.cfg.Store.EndSession(r.Context(), u.Session.Hash); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("end session: %w", err)
	}
	l.tell(r.Context(), u.Session.SID)
	event := audit.Event{Time: l.cfg.Now(), Type: audit.TypeLogout, Ref: web.Ref(r.Context()), User: u.User.ID, IP: web.ClientIP(r.Context()).String()}
	if f.hint != nil {
		event.Client = f.hint.ClientID
	}
	if err := l.cfg.Audit.Record(r.Context(), event); err != nil {
		return fmt.Errorf("record the sign-out: %w", err)
	}
	e.ClearCookie(w, sessionCookie)
	if f.To != "" {
		web.SeeOther(w, f.To)
		return nil
	}
	return l.signedOut(w, r, f)
}

// tell hands a session that has ended to whoever tells the clients.
func (l *Login) tell(ctx context.Context, sid string) {
	if l.cfg.SignedOut != nil && sid != "" {
		l.cfg.SignedOut(ctx, sid)
	}
}

// signedOut says that nobody is signed in. Where a client named a way back
// without showing an ID token, the person may follow it by a link, which names
// its destination: a link to us must not become a redirect to anywhere.
func (l *Login) signedOut(w http.ResponseWriter, r *http.Request, f farewell) error {
	e := l.cfg.Edge
	return e.Render(w, r, http.StatusOK, web.Page{Title: "Signed out", Template: logoutPage, Data: logoutView{
		Issuer: e.Host(), Return: f.To, ReturnHost: web.SplitURL(f.To).Host,
	}})
}

// connections is the path of the page where people see what they connected.
func (l *Login) connections() string {
	if l.cfg.Connected == nil {
		return ""
	}
	return l.cfg.Edge.Path(pathConnections)
}
