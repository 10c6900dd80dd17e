// Package authorize is the authorization endpoint: from the first request of a
// client, through sign-in and the consent page, to the redirect that carries a
// code.
//
// A request is parsed into a [Request], its client is found, and the table in
// check.go decides in a fixed order what is wrong with it. Until the person has
// signed in nothing is written or kept: the request travels sealed in their
// browser, and everything is checked again, against the current document and
// policy, each time it comes back. The decision is taken in decide.go, the page
// is made in page.go, and the answer to it is read in answer.go.
package authorize

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
)

// Directory is what this package asks about clients.
type Directory interface {
	Find(ctx context.Context, clientID string, mayFetch bool) (*directory.Client, error)
	Keys(ctx context.Context, c *directory.Client, kid string) (jose.Set, error)
	Logo(ctx context.Context, clientID string) ([]byte, error)
}

// Store is all that this package may read and write.
type Store interface {
	Consent(ctx context.Context, userID, clientID, resource string) (store.Consent, error)
	AnswerConsent(ctx context.Context, a store.Answer, now time.Time) error
	DenyConsent(ctx context.Context, nonce store.Hash, expires, now time.Time, events ...audit.Event) error
	DenyPushed(ctx context.Context, pushed store.Hash, d store.Denial, now time.Time) error
	PushRequest(ctx context.Context, p store.Pushed, most int, events ...audit.Event) error
	FindPushed(ctx context.Context, h store.Hash, now time.Time) (store.Pushed, error)
	SpendID(ctx context.Context, issuer string, id store.Hash, expires, now time.Time) error
}

// Clients authenticates those who push requests.
type Clients interface {
	Authenticate(ctx context.Context, q clientauth.Request) (*clientauth.Client, error)
	Bare(q clientauth.Request) bool
	Check(w http.ResponseWriter, r *http.Request, c *clientauth.Client) (clientauth.Possession, error)
}

// Hints reads the ID tokens that come back as id_token_hint.
type Hints interface {
	VerifyHint(token string) (keyring.Hint, error)
}

// SignIn is what this package asks about people.
type SignIn interface {
	Current(r *http.Request) (*login.User, error)
	Redirect(w http.ResponseWriter, r *http.Request, back login.Return) error
}

// Config configures a [Handler]. All of Issuer, Directory, Store, SignIn, Edge,
// Sealer and Audit are required.
type Config struct {
	Issuer    string
	Directory Directory
	Store     Store
	SignIn    SignIn
	Edge      *web.Edge
	Sealer    *web.Sealer
	Audit     *audit.Log

	// FetchBeforeSignIn lets a person who is not signed in cause the fetch of a
	// client document. Off, the request waits until they are (FETCH-20).
	FetchBeforeSignIn bool
	// RefuseUnknownScopes answers invalid_scope where a scope does not exist,
	// instead of leaving it out.
	RefuseUnknownScopes bool
	// ACRs are the authentication contexts that a sign-in here can have. Those of
	// package login come first and are met by every one behind them; the others are
	// an operator's names for what a provider said, and each is met by itself alone.
	// Nil means the one of a password.
	ACRs []string
	// Connections is the path of the page where people end their connections, or
	// "" when there is none.
	Connections string
	// CodeLife is how long a code can be redeemed. 0 is 60 seconds.
	CodeLife time.Duration

	// Clients lets clients push their requests (RFC 9126); nil leaves POST /par out.
	Clients Clients
	// RequirePAR takes requests from POST /par only.
	RequirePAR bool
	// PushLife is how long a pushed request waits for its person. 0 is 60 seconds.
	PushLife time.Duration
	// Device opens the device flow (RFC 8628), which needs Clients too; nil leaves
	// it out.
	Device *DeviceFlow
	// Hints reads id_token_hint; nil takes no hint for good.
	Hints Hints
	// Certificates says that clients can show TLS certificates here.
	Certificates bool

	Logger *slog.Logger     // nil is slog.Default
	Now    func() time.Time // nil is time.Now
}

// Handler serves the authorization endpoint and the consent page.
type Handler struct {
	Config
	rules    rules
	throttle *web.Throttle // of those who push requests and prove nothing
	device   *deviceFlow
}

// New checks the configuration.
func New(c Config) (*Handler, error) {
	if c.Issuer == "" || c.Directory == nil || c.Store == nil || c.SignIn == nil || c.Edge == nil || c.Sealer == nil || c.Audit == nil {
		return nil, errors.New("authorize: Issuer, Directory, Store, SignIn, Edge, Sealer and Audit are required")
	}
	if c.CodeLife < 0 || c.CodeLife > 10*time.Minute {
		return nil, errors.New("authorize: a code lives at most ten minutes")
	}
	if c.CodeLife == 0 {
		c.CodeLife = time.Minute
	}
	if c.ACRs == nil {
		c.ACRs = []string{login.ACR}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.PushLife == 0 {
		c.PushLife = time.Minute
	}
	if c.PushLife < 5*time.Second || c.PushLife > 10*time.Minute {
		return nil, errors.New("authorize: a pushed request lives for 5 seconds to ten minutes")
	}
	h := &Handler{
		Config: c, throttle: web.NewThrottle(time.Minute),
		rules: rules{refuseUnknownScopes: c.RefuseUnknownScopes, acrs: c.ACRs, requirePAR: c.RequirePAR, certificates: c.Certificates},
	}
	return h, h.openDevices()
}

const (
	pathAuthorize = "/authorize"
	pathResume    = "/authorize/resume"
	pathConsent   = "/consent"
	pathLogo      = "/logo"
	pathPush      = "/par"
)

// Routes returns where the handler stands. There is no CORS on any of them
// (AUTHZ-22), and none answers HEAD: it would have to issue a code to tell the
// truth.
func (h *Handler) Routes() []web.Route {
	routes := []web.Route{
		{Pattern: h.Edge.Path(pathAuthorize), Handler: h.Edge.Entry(h.authorize)},
		{Pattern: h.Edge.Path(pathResume), Handler: h.Edge.Page(web.Only(h.resume, http.MethodGet))},
		{Pattern: h.Edge.Path(pathConsent), Handler: h.Edge.Page(web.Only(h.answer, http.MethodPost))},
		{Pattern: h.Edge.Path(pathLogo), Handler: h.Edge.Page(web.Only(h.logo, http.MethodGet))},
	}
	if h.Clients != nil {
		routes = append(routes, web.Route{Pattern: h.Edge.Path(pathPush), Handler: h.Edge.API(web.Only(h.push, http.MethodPost))})
	}
	return append(routes, h.deviceRoutes()...)
}

// visit is a request together with the circumstances in which it arrived. They
// are taken down once and survive the sign-in sealed.
type visit struct {
	Request Request   `json:"q"`
	Started time.Time `json:"t"`
	Silent  bool      `json:"s"`           // the browser says that no other site sent the person here (CN-04)
	Browser string    `json:"b"`           // digest of the browser cookie
	Pushed  *pushed   `json:"h,omitempty"` // where the request was kept; nil: it came with the browser
}

// purposes of sealed values: one can never stand for another.
const (
	purposeVisit    = "authorize: visit"
	purposeQuestion = "authorize: question"
	purposeLogo     = "authorize: logo"

	visitLife = 30 * time.Minute
)

// authorize takes a request from a client.
func (h *Handler) authorize(w http.ResponseWriter, r *http.Request) error {
	if err := refusePrefetch(r); err != nil {
		return err
	}
	q, err := parse(r)
	if err != nil {
		return err
	}
	web.SetClient(r.Context(), q.ClientID)
	if r.Method == http.MethodPost {
		// Browsers hold our cookies back on a POST from another site. Asked
		// again by GET, the same request finds the session of the person.
		http.Redirect(w, r, h.Edge.Path(pathAuthorize)+"?"+q.query(), http.StatusSeeOther)
		return nil
	}
	v := &visit{Request: q, Started: h.now(), Silent: startedHere(r)}
	if q.uri != "" {
		if v.Request, v.Pushed, err = h.recall(r.Context(), q); err != nil {
			return err
		}
	}
	v.Browser = h.browser(w, r)
	return h.proceed(w, r, v)
}

// now is the time, as exact as the store keeps it.
func (h *Handler) now() time.Time { return h.Now().Truncate(time.Microsecond) }

// resume continues after the sign-in. Nothing that was found out before is
// taken over: the client, the policy and the request are looked at again
// (CACHE-21).
func (h *Handler) resume(w http.ResponseWriter, r *http.Request) error {
	if err := refusePrefetch(r); err != nil {
		return err
	}
	p, err := web.ParseQuery(r)
	if err != nil {
		return err
	}
	var v visit
	if err := h.Sealer.Open(purposeVisit, p.Form["tx"], h.Now(), &v); err != nil {
		return outdated(err)
	}
	if b := h.browser(w, r); v.Browser != b {
		// Somebody passed the address on, or a second tab raced the first for
		// the cookie. It is worth no more than a link to /authorize from a
		// stranger: nothing that the first browser did counts.
		v.Browser, v.Silent, v.Started = b, false, h.now()
	}
	web.SetClient(r.Context(), v.Request.ClientID)
	return h.proceed(w, r, &v)
}

// proceed takes a visit as far as it goes: to a refusal, to the sign-in page, to
// the consent page, or back to the client.
func (h *Handler) proceed(w http.ResponseWriter, r *http.Request, v *visit) error {
	user, err := h.SignIn.Current(r)
	if err != nil {
		return err
	}
	a, err := h.examine(r.Context(), v, user)
	switch {
	case errors.Is(err, directory.ErrDeferred):
		if strings.TrimSpace(v.Request.outline().Prompt) == promptNone {
			return untrustedSilence(v.Request.ClientID)
		}
		back := h.outlined(v)
		back.RedirectHost = v.Request.leadsTo()
		return h.signIn(w, r, v, back)
	case err != nil:
		if refusal, ok := asRefusal(err); ok {
			return h.tellClient(w, r, a, user, refusal)
		}
		return err
	}
	if reason, needed := a.mustSignIn(user, v.Started, h.Now()); needed {
		if a.prompt.Has(promptNone) {
			return h.tellClient(w, r, a, user, loginRequired())
		}
		back := a.back(reason)
		back.AppHost, back.RedirectHost = a.client.Host, a.redirect
		return h.signIn(w, r, v, back)
	}
	if !a.hintedAt(user) {
		return h.tellClient(w, r, a, user, loginRequired())
	}
	if !a.acrMet(user) {
		return h.tellClient(w, r, a, user, unmet())
	}
	return h.decide(w, r, a, v, user)
}

// examine finds the client and runs the table. With an errBack it also returns
// the attempt, because the answer needs the redirect URI.
func (h *Handler) examine(ctx context.Context, v *visit, user *login.User) (*attempt, error) {
	ctx = cimd.WithSource(ctx, source(ctx, user)) // of its document, and of its keys
	c, err := h.Directory.Find(ctx, v.Request.ClientID, user != nil || h.FetchBeforeSignIn)
	if err != nil {
		return nil, err
	}
	a := &attempt{req: &v.Request, client: c, policy: c.Policy, rules: &h.rules, at: atAuthorize}
	if v.Pushed != nil {
		a.pushed, a.unproven = true, v.Pushed.Unproven
	}
	if v.Request.Object != "" {
		o, err := h.unseal(ctx, c, &v.Request, v.Started)
		if err != nil {
			return nil, err
		}
		a.req, a.once = &o.Request, o.once()
	}
	if err := a.check(); err != nil {
		return a, err
	}
	h.takeHint(a)
	return a, nil
}

// source names who causes a fetch, so that one visitor cannot use up what all
// others may fetch, whatever part of their network they come from.
func source(ctx context.Context, user *login.User) string {
	if user != nil {
		return "user " + user.User.ID
	}
	return web.Network(web.ClientIP(ctx))
}

// signIn sends the person to the sign-in page with the visit sealed.
func (h *Handler) signIn(w http.ResponseWriter, r *http.Request, v *visit, back login.Return) error {
	sealed, err := h.Sealer.Seal(purposeVisit, h.Now().Add(visitLife), v)
	if err != nil {
		return err
	}
	back.Path, back.Sealed, back.Username = pathResume, sealed, v.Request.outline().LoginHint
	return h.SignIn.Redirect(w, r, back)
}
