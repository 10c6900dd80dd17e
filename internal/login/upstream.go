package login

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/upstream"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// ACRUpstream is the authentication context class of a sign-in at an upstream
// provider whose own acr is not mapped.
const ACRUpstream = "urn:bonafide:acr:upstream"

// Ways in which a person at an upstream provider may come to an account, beside
// one that an administrator has linked.
const (
	LinkEmail  = "email"  // the account with the same verified address
	LinkCreate = "create" // a new account for a verified address
)

// Upstream is a provider at which people may sign in.
type Upstream struct {
	Provider *upstream.Provider
	Title    string            // what people read: "Sign in with Title"
	Link     []string          // LinkEmail, LinkCreate; nil: linked accounts only
	Domains  []string          // of verified addresses, in lower case, for Link
	ACR      map[string]string // what an acr of the provider is here
}

// Identities is what a sign-in at a provider may do to accounts.
type Identities interface {
	UserByIdentity(ctx context.Context, issuer, tenant, subject string) (store.User, error)
	UserByEmail(ctx context.Context, email string) (store.User, error)
	LinkIdentity(ctx context.Context, id store.Identity, create *store.User, events ...audit.Event) error
	SpendID(ctx context.Context, issuer string, id store.Hash, expires, now time.Time) error
	SignOutIdentity(ctx context.Context, f store.Farewell, now time.Time, events ...audit.Event) (store.Departed, error)
}

const (
	purposeTrip  = "login trip"  // trip, in a cookie
	purposeState = "login state" // travelState, in the state parameter

	tripLife = 10 * time.Minute
	tripSkew = time.Minute // between a provider's clock and ours
	maxTrips = 4           // of one browser at a time

	pathCallback    = "/login/callback/"
	pathBackchannel = "/login/backchannel/"

	maxCode = 4096
)

// trip is what the browser keeps while the person is at a provider (CONS-17). It
// is sealed in a cookie that is set when the person has chosen the provider, and
// taken away when they come back.
type trip struct {
	ID       string    `json:"i"`
	Name     string    `json:"p"` // of the provider that was asked (OIDC-06)
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"`
	Started  time.Time `json:"t"`
}

// travelState is the state parameter, sealed: which trip it belongs to, and where
// the person goes after the sign-in.
type travelState struct {
	ID string `json:"i"`
	Tx string `json:"x,omitempty"`
}

// tripCookie is the name of the cookie of a trip: each tab has its own.
func tripCookie(id string) string { return tripPrefix + id[:8] }

const tripPrefix = "trip_"

// makeRoom takes the oldest trips from a browser that has as many as it may have:
// whoever starts sign-ins and does not come back sends all of their cookies with
// every request, until a server refuses the header.
func (l *Login) makeRoom(w http.ResponseWriter, r *http.Request) {
	began := map[string]time.Time{}
	for _, name := range l.cfg.Edge.CookieNames(r, tripPrefix) {
		var t trip // of one that cannot be read, or is over: before all others
		if l.cfg.Sealer.Open(purposeTrip, l.cfg.Edge.Cookie(r, name), l.cfg.Now(), &t) != nil {
			t.Started = time.Time{}
		}
		began[name] = t.Started
	}
	names := slices.SortedFunc(maps.Keys(began), func(a, b string) int { return began[a].Compare(began[b]) })
	for _, name := range names[:max(0, len(names)-(maxTrips-1))] {
		l.cfg.Edge.ClearCookie(w, name)
	}
}

type upstreamView struct{ Name, Title string }

func (l *Login) upstreams() []upstreamView {
	var out []upstreamView
	for _, u := range l.cfg.Upstreams {
		out = append(out, upstreamView{u.Provider.Name(), u.Title})
	}
	return out
}

func (l *Login) upstream(name string) *Upstream {
	for i := range l.cfg.Upstreams {
		if l.cfg.Upstreams[i].Provider.Name() == name {
			return &l.cfg.Upstreams[i]
		}
	}
	return nil
}

// ACRs returns the authentication contexts that a sign-in here can have, the one
// of a password first.
func (l *Login) ACRs() []string {
	var out []string
	if !l.cfg.NoPasswords {
		out = append(out, ACR)
	}
	var mapped []string
	for _, u := range l.cfg.Upstreams {
		if !slices.Contains(out, ACRUpstream) {
			out = append(out, ACRUpstream)
		}
		for _, v := range u.ACR {
			if !slices.Contains(mapped, v) && v != ACR && v != ACRUpstream {
				mapped = append(mapped, v)
			}
		}
	}
	slices.Sort(mapped)
	return append(out, mapped...)
}

// leaveFor sends the person to a provider that they chose on our own page.
func (l *Login) leaveFor(w http.ResponseWriter, r *http.Request, ret Return, tx, name string) error {
	u := l.upstream(name)
	if u == nil {
		return web.Refuse(http.StatusNotFound, oauth.Refuse(oauth.InvalidRequest, "there is no such sign-in provider").Under("OIDC-05"))
	}
	now := l.cfg.Now()
	t := trip{ID: oauth.RandomToken(32), Name: name, Nonce: oauth.RandomToken(32), Verifier: oauth.NewVerifier(), Started: now}
	state, err := l.cfg.Sealer.Seal(purposeState, now.Add(tripLife), travelState{t.ID, tx})
	if err != nil {
		return err
	}
	to, err := u.Provider.AuthURL(r.Context(), upstream.Trip{
		State: state, Nonce: t.Nonce, Verifier: t.Verifier, Hint: ret.Username,
		Fresh: ret.fresh(), MaxAge: ret.MaxAge, Choose: ret.Choose || ret.Reason == ReasonSwitch, ACR: u.contexts(ret.ACR),
	})
	if err != nil {
		return l.providerFailed(r, u, err)
	}
	sealed, err := l.cfg.Sealer.Seal(purposeTrip, now.Add(tripLife), t)
	if err != nil {
		return err
	}
	l.makeRoom(w, r)
	l.cfg.Edge.SetCookie(w, tripCookie(t.ID), sealed, tripLife)
	web.SeeOther(w, to)
	return nil
}

// serveCallback takes the person back from a provider. Nothing of the answer is
// looked at before it is certain that this browser left for this provider, not
// long ago, and has not come back yet (OIDC-05, OIDC-06, CN-02, CN-11).
func (l *Login) serveCallback(w http.ResponseWriter, r *http.Request) error {
	u := l.upstream(strings.TrimPrefix(r.URL.Path, l.cfg.Edge.Path(pathCallback)))
	if u == nil {
		return web.Refuse(http.StatusNotFound, oauth.Refuse(oauth.InvalidRequest, "nothing stands at this address"))
	}
	p, err := web.ParseQuery(r)
	if err != nil {
		return err
	}
	st, t, err := l.trip(w, r, u, p.Form["state"])
	if err != nil {
		return err
	}
	ret, err := l.open(st.Tx)
	if err != nil {
		return err
	}
	if err := u.Provider.CheckIssuer(r.Context(), p.Form["iss"]); err != nil {
		return l.providerFailed(r, u, err)
	}
	if p.Form["error"] != "" {
		return l.providerSaysNo(w, r, u, comeback{st.Tx, ret, p.Form["error"]})
	}
	code := p.Form["code"]
	if code == "" || len(code) > maxCode {
		return l.providerFailed(r, u, fmt.Errorf("%w: no code", upstream.ErrRefused))
	}
	person, err := u.Provider.Exchange(r.Context(), code, upstream.Trip{Nonce: t.Nonce, Verifier: t.Verifier})
	if err != nil {
		return l.providerFailed(r, u, err)
	}
	if old, want := person.AuthTime, ret.since(t.Started, l.cfg.Now()); !want.IsZero() && (old.IsZero() || old.Before(want)) {
		return l.stale(r, u, old)
	}
	user, err := l.account(r, u, person)
	if err != nil {
		return err
	}
	return l.arrive(w, r, ret, arrival{u, person, user, t.Started})
}

// fresh reports whether the person has to prove now who they are.
func (r Return) fresh() bool { return r.Fresh || r.Reason == ReasonAgain }

// since returns from when on a sign-in at a provider will do, by its clock; zero
// if any will.
func (r Return) since(started, now time.Time) time.Time {
	switch {
	case r.fresh():
		return started.Add(-tripSkew)
	case r.MaxAge > 0:
		return now.Add(-r.MaxAge - tripSkew)
	}
	return time.Time{}
}

// contexts returns what the provider calls the contexts that will do. Only what
// the operator has mapped is asked for, and nothing where any sign-in there will
// do: no client's own words reach the provider.
func (u *Upstream) contexts(acr []string) (theirs []string) {
	if slices.Contains(acr, ACRUpstream) {
		return nil
	}
	for _, ours := range acr {
		for _, name := range slices.Sorted(maps.Keys(u.ACR)) {
			if u.ACR[name] == ours && name != "" && !strings.ContainsAny(name, " \t\r\n") {
				theirs = append(theirs, name)
			}
		}
	}
	return theirs
}

// arrival is a person who has proved at a provider who they are.
type arrival struct {
	upstream *Upstream
	person   *upstream.Person
	user     store.User
	started  time.Time
}

// arrive begins the session and sends the person on.
func (l *Login) arrive(w http.ResponseWriter, r *http.Request, ret Return, a arrival) error {
	now := l.cfg.Now()
	how := authentication{now, ACRUpstream, a.person.AMR}
	if acr := a.upstream.ACR[a.person.ACR]; a.person.ACR != "" && acr != "" {
		how.acr = acr
	}
	// A sign-in that happened on this trip is as fresh as ours: clocks differ, and
	// a second too early would ask the person twice. Of one whose time the provider
	// does not say nobody knows how fresh it is, and nobody is told that it is.
	if at := a.person.AuthTime; at.IsZero() || at.Before(a.started.Add(-tripSkew)) {
		how.at = at
	}
	event := audit.Event{
		Time: now, Type: audit.TypeLogin, Ref: web.Ref(r.Context()), User: a.user.ID, IP: web.ClientIP(r.Context()).String(),
		Data: map[string]string{"upstream": a.upstream.Provider.Name(), "acr": how.acr},
	}
	if err := l.cfg.Audit.Record(r.Context(), event); err != nil {
		return fmt.Errorf("record the sign-in: %w", err)
	}
	if err := l.start(w, r, a.user, how); err != nil {
		return err
	}
	l.back(w, r, ret)
	return nil
}

// trip finds the trip to which an answer belongs, and ends it.
func (l *Login) trip(w http.ResponseWriter, r *http.Request, u *Upstream, state string) (travelState, trip, error) {
	e, now := l.cfg.Edge, l.cfg.Now()
	var st travelState
	var t trip
	if err := l.cfg.Sealer.Open(purposeState, state, now, &st); err != nil || len(st.ID) < 8 {
		return st, t, l.strayed(r, u, "state")
	}
	sealed := e.Cookie(r, tripCookie(st.ID))
	if sealed == "" || l.cfg.Sealer.Open(purposeTrip, sealed, now, &t) != nil || t.ID != st.ID || t.Name != u.Provider.Name() {
		return st, t, l.strayed(r, u, "browser")
	}
	e.ClearCookie(w, tripCookie(st.ID))
	err := l.cfg.Identities.SpendID(r.Context(), "upstream trip", store.HashOf(st.ID), now.Add(tripLife), now)
	if errors.Is(err, store.ErrSpent) {
		return st, t, l.strayed(r, u, "replay")
	}
	if err != nil {
		return st, t, fmt.Errorf("end the trip: %w", err)
	}
	return st, t, nil
}
