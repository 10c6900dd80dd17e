package login

import (
	"crypto/subtle"
	_ "embed" // the pages
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// What is sealed, for what, for how long.
const (
	purposeReturn = "login return" // Return, in the URL and the form
	purposeForm   = "login form"   // binding of the sign-in form to this browser
	purposeLogout = "logout form"  // binding of the sign-out form to the session
	purposeDevice = "login device" // device, in a cookie

	returnLife = 30 * time.Minute // as long as what waits behind it: nobody types a password in vain
	formLife   = time.Hour
	deviceLife = 180 * 24 * time.Hour
)

// browserCookie binds the sign-in form to the browser before there is a session,
// so that nobody can sign a stranger's browser in (AUTHZ-27, CN-11).
const browserCookie = "login"

// deviceCookie remembers that somebody signed in to an account at this browser:
// it keeps others from locking the owner out by guessing, and grants nothing.
const deviceCookie = "device"

//go:embed login.html
var loginHTML string

//go:embed logout.html
var logoutHTML string

var (
	loginPage  = web.Template("login", loginHTML)
	logoutPage = web.Template("logout", logoutHTML)
)

type loginView struct {
	Action, Tx, Token           string
	To, AppHost, Issuer         string
	Connections                 string
	Upstreams                   []upstreamView
	Passwords                   bool
	Again                       bool
	Username, Problem, BadField string
}

func (l *Login) serveLogin(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return l.answerLogin(w, r)
	}
	p, err := web.ParseQuery(r)
	if err != nil {
		return err
	}
	ret, err := l.open(p.Form["tx"])
	if err != nil {
		return err
	}
	if ret.Reason == ReasonNone {
		user, err := l.Current(r)
		if err != nil {
			return err
		}
		if user != nil {
			l.back(w, r, ret)
			return nil
		}
	}
	return l.showLogin(w, r, ret, loginView{Tx: p.Form["tx"], Username: ret.Username}, http.StatusOK)
}

// open returns the sealed way back, or the way home when there is none.
func (l *Login) open(tx string) (Return, error) {
	if tx == "" {
		return Return{Path: l.cfg.Home}, nil
	}
	own, callers, _ := strings.Cut(tx, ".")
	ret := Return{Sealed: callers}
	err := l.cfg.Sealer.Open(returning(callers), own, l.cfg.Now(), &ret)
	if err == nil {
		return ret, nil
	}
	refusal := web.Refuse(http.StatusBadRequest, oauth.Refuse(oauth.InvalidRequest,
		"the sign-in page has no valid way back; start a new authorization request").Under("AUTHZ-27").Because(err))
	refusal.Title, refusal.Turn, refusal.Next = "We lost track of this sign-in", "You", "Go back to the app and start again there."
	refusal.What = "The address of this page is damaged. Nothing was shared."
	if errors.Is(err, web.ErrSealExpired) {
		refusal.Title = "This sign-in took too long"
		refusal.What = "The page was open for more than half an hour. Nothing was shared."
	}
	return Return{}, refusal
}

// showLogin writes the sign-in page with a form that only this browser can send.
func (l *Login) showLogin(w http.ResponseWriter, r *http.Request, ret Return, v loginView, status int) error {
	e, now := l.cfg.Edge, l.cfg.Now()
	browser := e.Cookie(r, browserCookie)
	if browser == "" {
		browser = oauth.RandomToken(32)
		e.SetCookie(w, browserCookie, browser, 0)
	}
	token, err := l.cfg.Sealer.Seal(purposeForm, now.Add(formLife), store.HashOf(browser))
	if err != nil {
		return err
	}
	v.Action, v.Token = e.Path("/login"), token
	v.To, v.AppHost, v.Again, v.Issuer = e.BrandName(), ret.AppHost, ret.Reason == ReasonAgain, e.Host()
	v.Upstreams, v.Passwords = l.upstreams(), !l.cfg.NoPasswords
	if len(l.cfg.Upstreams) > 0 && ret.RedirectHost == "" {
		ret.RedirectHost = l.cfg.Upstreams[0].Provider.Issuer() // browsers apply form-action to the way to a provider too
	}
	if v.Tx == "" {
		v.Connections = l.connections()
	}
	if v.To == "" {
		v.To = v.Issuer
	}
	return e.Render(w, r, status, web.Page{Title: "Sign in", Template: loginPage, Data: v, RedirectHost: ret.RedirectHost})
}

// bound reports whether token was sealed for purpose together with secret.
func (l *Login) bound(purpose, token, secret string) bool {
	var h store.Hash
	if secret == "" || l.cfg.Sealer.Open(purpose, token, l.cfg.Now(), &h) != nil {
		return false
	}
	want := store.HashOf(secret)
	return subtle.ConstantTimeCompare(h[:], want[:]) == 1
}

// answerLogin takes the form: the browser first, then the budgets, then the
// password, then the session.
func (l *Login) answerLogin(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	ret, err := l.open(p.Form["tx"])
	if err != nil {
		return err
	}
	view := loginView{Tx: p.Form["tx"], Username: p.Form["username"]}
	browser := l.cfg.Edge.Cookie(r, browserCookie)
	if !l.bound(purposeForm, p.Form["form"], browser) {
		if done, err := l.signedInMeanwhile(w, r, ret); done || err != nil {
			return err
		}
		l.note(r, "", "form", "AUTHZ-27")
		view.Problem = "This page was open for too long, or your browser keeps no cookies for " + l.cfg.Edge.Host() + ". Please try again."
		return l.showLogin(w, r, ret, view, http.StatusBadRequest)
	}
	if name := p.Form["with"]; name != "" {
		// Each way to a provider costs us a request to it when the person comes back.
		if d := l.limits.source(web.ClientIP(r.Context()), l.cfg.Now()); d > 0 {
			l.note(r, "", "throttled", "POL-08")
			return l.tooMany(w, r, ret, view, d)
		}
		return l.leaveFor(w, r, ret, p.Form["tx"], name)
	}
	if l.cfg.NoPasswords {
		return web.Refuse(http.StatusForbidden, oauth.Refuse(oauth.AccessDenied, "nobody signs in with a password here").Under("OIDC-05"))
	}
	user, err := l.verify(r, attempt{p.Form["username"], p.Form["password"]})
	if refused, ok := errors.AsType[*tooOften](err); ok {
		return l.tooMany(w, r, ret, view, refused.wait)
	}
	if errors.Is(err, errWrong) {
		view.Problem, view.BadField = "This user name and password do not belong together. Check both and try again.", "true"
		return l.showLogin(w, r, ret, view, http.StatusUnprocessableEntity)
	}
	if err != nil {
		return err
	}
	now := l.cfg.Now()
	// The event first: a session that nobody recorded is worse than an event
	// without one.
	event := audit.Event{Time: now, Type: audit.TypeLogin, Ref: web.Ref(r.Context()), User: user.ID, IP: web.ClientIP(r.Context()).String()}
	if err := l.cfg.Audit.Record(r.Context(), event); err != nil {
		return fmt.Errorf("record the sign-in: %w", err)
	}
	if err := l.start(w, r, user, authentication{now, ACR, []string{AMRPassword}}); err != nil {
		return err
	}
	if err := l.remember(w, r, user, now); err != nil {
		return err
	}
	l.cfg.Edge.ClearCookie(w, browserCookie)
	l.back(w, r, ret)
	return nil
}

// tooMany says how long to wait.
func (l *Login) tooMany(w http.ResponseWriter, r *http.Request, ret Return, view loginView, wait time.Duration) error {
	w.Header().Set("Retry-After", strconv.Itoa(seconds(wait)))
	view.Problem = "There were many attempts in a short time. Please wait " + inWords(wait) + ", then try again."
	return l.showLogin(w, r, ret, view, http.StatusTooManyRequests)
}

// signedInMeanwhile goes on where the person has signed in from another tab, or
// pressed the button twice: it is what opening the page anew would do.
func (l *Login) signedInMeanwhile(w http.ResponseWriter, r *http.Request, ret Return) (bool, error) {
	if ret.Reason != ReasonNone {
		return false, nil
	}
	user, err := l.Current(r)
	if err != nil || user == nil {
		return false, err
	}
	l.back(w, r, ret)
	return true, nil
}

func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// inWords says a wait as a person would.
func inWords(d time.Duration) string {
	switch s := seconds(d); {
	case s <= 1:
		return "a second"
	case s <= 90:
		return strconv.Itoa(s) + " seconds"
	default:
		return strconv.Itoa((s+59)/60) + " minutes"
	}
}
