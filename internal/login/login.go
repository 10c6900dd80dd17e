// Package login answers one question: who is the user at this browser? It has
// local accounts (name and password), sessions, and the pages to sign in and
// out. A handler that needs a user asks [Login.Current] and, when nobody is
// signed in, sends the browser away with [Login.Redirect]; it comes back to a
// path of ours that travelled sealed.
package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
)

// ACR is the authentication context class of a sign-in with a password.
const ACR = "urn:bonafide:acr:password"

// AMRPassword is its method (RFC 8176).
const AMRPassword = "pwd"

// Store is what login may do to the store: read an account, keep sessions.
type Store interface {
	UserByName(ctx context.Context, name string) (store.User, error)
	StartSession(ctx context.Context, s store.Session) error
	FindSession(ctx context.Context, h store.Hash, now time.Time) (store.Session, store.User, error)
	SeeSession(ctx context.Context, h store.Hash, seen, expires time.Time) error
	EndSession(ctx context.Context, h store.Hash) error
}

// Config configures a [Login]. Edge, Store, Sealer and Audit are required.
type Config struct {
	Edge   *web.Edge
	Store  Store
	Sealer *web.Sealer
	Audit  *audit.Log
	// Now is the clock. Nil is time.Now.
	Now func() time.Time
	// Idle ends a session that was not used for so long; 0 is 12 h. Absolute
	// ends every session so long after the sign-in; 0 is 7 days.
	Idle, Absolute time.Duration
	// Home is where a person goes who signs in without having been sent: a
	// path of ours. Empty is "/".
	Home string
	// Hashing bounds the passwords that are checked at one time, each of which
	// takes 19 MiB and a core; 0 is half of the cores, 1 to 4, so that a flood of
	// passwords leaves room for everybody else, the database among them (DS-11).
	Hashing int
	// HashWait is how long a sign-in waits for its turn; 0 is 5 s.
	HashWait time.Duration

	// Clients and Hints let a client send a person here to sign out. Without
	// them /logout takes requests of people only.
	Clients Clients
	Hints   Hints
	// SignedOut is told the name of a session that has ended before its time, so
	// that clients can be told. It must not wait for them. Nil tells nobody.
	SignedOut func(ctx context.Context, sid string)
	// Ended is told the grants of sessions that a provider has ended, those included
	// that have ended with them: nobody can look for them by the session any more.
	// It must not wait for anybody. Nil tells nobody.
	Ended func(ctx context.Context, grants []store.Grant)
	// Connected is for the page of connections; without it there is none. Policy
	// gives it the names of resources and scopes, and AccessLife is how long an
	// access token is good after its connection has ended.
	Connected  Connected
	Policy     func() *policy.Set
	AccessLife time.Duration

	// Upstreams are the providers at which people may sign in; they need
	// Identities. NoPasswords switches local passwords off.
	Upstreams   []Upstream
	Identities  Identities
	NoPasswords bool
}

// Login knows who is signed in. It is safe for concurrent use.
type Login struct {
	cfg     Config
	gate    gate
	limits  limits
	nobody  string // the hash that is checked for an account that does not exist
	touched time.Duration
}

// User is a person who is signed in at this browser.
type User struct {
	Session store.Session
	User    store.User
}

// Reason is why a person is sent to sign in.
type Reason string

// The reasons to send a person to the sign-in page.
const (
	ReasonNone   Reason = ""       // nobody is signed in
	ReasonAgain  Reason = "again"  // prompt=login, or max_age has passed: the password is asked again
	ReasonSwitch Reason = "switch" // the person wants to use another account
)

// Return says where the browser goes after the sign-in, and what the page says
// meanwhile. All of it travels sealed in the browser.
type Return struct {
	// Path is one of our own paths below the issuer, without a query, such as
	// "/authorize/resume".
	Path string `json:"p"`
	// Sealed is the caller's sealed state; it comes back as the query
	// parameter "tx" of Path. Empty: Path alone.
	Sealed string `json:"-"` // it is sealed already, and travels bound to the rest
	// Reason says why somebody who may be signed in already is asked.
	Reason Reason `json:"r,omitempty"`
	// AppHost is the app on whose behalf the person signs in: its verified
	// host, or "". It is shown.
	AppHost string `json:"a,omitempty"`
	// Username fills the form (login_hint).
	Username string `json:"u,omitempty"`
	// Fresh says that the person has to prove now who they are, also where nobody
	// is signed in here: at a provider somebody may be (prompt=login, max_age=0).
	// ReasonAgain says so too.
	Fresh bool `json:"f,omitempty"`
	// MaxAge is how long ago a person may have proved it at a provider (max_age);
	// 0 is no bound.
	MaxAge time.Duration `json:"m,omitempty"`
	// Choose lets the person choose among accounts at a provider
	// (prompt=select_account). ReasonSwitch does so too.
	Choose bool `json:"c,omitempty"`
	// ACR are the authentication contexts of ours that will do, the preferred one
	// first; nil: any.
	ACR []string `json:"k,omitempty"`
	// RedirectHost is where the request may lead in the end, a redirect URI or
	// its origin. The page must allow it, because browsers apply form-action
	// to the redirects after a POST (see web.Page).
	RedirectHost string `json:"h,omitempty"`
}

// New checks the configuration.
func New(c Config) (*Login, error) {
	if c.Edge == nil || c.Store == nil || c.Sealer == nil || c.Audit == nil {
		return nil, errors.New("login: Edge, Store, Sealer and Audit are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Idle <= 0 {
		c.Idle = 12 * time.Hour
	}
	if c.Absolute <= 0 {
		c.Absolute = 7 * 24 * time.Hour
	}
	if c.Home == "" {
		c.Home = "/"
	}
	if c.Hashing <= 0 {
		c.Hashing = min(4, max(1, runtime.NumCPU()/2))
	}
	if c.HashWait <= 0 {
		c.HashWait = 5 * time.Second
	}
	if len(c.Upstreams) > 0 && c.Identities == nil || c.NoPasswords && len(c.Upstreams) == 0 {
		return nil, errors.New("login: upstream providers need Identities, and without passwords there must be a provider")
	}
	if !ownPath(c.Home) {
		return nil, fmt.Errorf("login: home %q is not a path of ours", c.Home)
	}
	return &Login{
		cfg: c, nobody: hashOfNobody(), gate: newGate(c.Hashing, c.HashWait), limits: newLimits(),
		touched: min(5*time.Minute, c.Idle/10),
	}, nil
}

// Routes returns what login answers: /login, /logout and, with Connected,
// /connections.
func (l *Login) Routes() []web.Route {
	e := l.cfg.Edge
	routes := []web.Route{
		{Pattern: e.Path("/login"), Handler: e.Page(l.serveLogin)},
		{Pattern: e.Path(pathLogout), Handler: e.Entry(l.serveLogout)},
		{Pattern: e.Path(pathSignOut), Handler: e.Page(web.Only(l.answerLogout, http.MethodPost))},
	}
	if len(l.cfg.Upstreams) > 0 {
		routes = append(routes,
			web.Route{Pattern: e.Path(pathCallback), Handler: e.Page(web.Only(l.serveCallback, http.MethodGet))},
			web.Route{Pattern: e.Path(pathBackchannel), Handler: e.API(web.Only(l.serveBackchannel, http.MethodPost))})
	}
	if l.cfg.Connected != nil {
		routes = append(routes, web.Route{Pattern: e.Path(pathConnections), Handler: e.Page(l.serveConnections)})
	}
	return routes
}

// Redirect sends the browser to the sign-in page with 303 (AUTHZ-15) and brings
// it back to ret within half an hour.
func (l *Login) Redirect(w http.ResponseWriter, r *http.Request, ret Return) error {
	if !ownPath(ret.Path) {
		return fmt.Errorf("login: return path %q is not a path of ours", ret.Path)
	}
	tx, err := l.seal(ret)
	if err != nil {
		return err
	}
	web.SeeOther(w, l.cfg.Edge.Path("/login")+"?tx="+url.QueryEscape(tx))
	return nil
}

// seal returns ret as it travels: what is about the page sealed, and behind it
// the caller's own sealed state, which is authenticated with it and not
// encrypted a second time.
func (l *Login) seal(ret Return) (string, error) {
	tx, err := l.cfg.Sealer.Seal(returning(ret.Sealed), l.cfg.Now().Add(returnLife), ret)
	if err != nil || ret.Sealed == "" {
		return tx, err
	}
	return tx + "." + ret.Sealed, nil
}

// returning is what a Return is sealed for: one with the caller's state opens
// only beside it.
func returning(callers string) string {
	if callers == "" {
		return purposeReturn
	}
	return purposeReturn + " with " + callers
}

// back ends the sign-in: 303 to where the person came from.
func (l *Login) back(w http.ResponseWriter, r *http.Request, ret Return) {
	to := l.cfg.Edge.Path(ret.Path)
	if ret.Sealed != "" {
		to += "?tx=" + url.QueryEscape(ret.Sealed)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// ownPath reports whether p is a plain path on our own host: never a URL, never
// the beginning of one.
func ownPath(p string) bool {
	return strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "//") && !strings.ContainsAny(p, "\\?#:%") &&
		strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") == ""
}
