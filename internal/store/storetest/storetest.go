// Package storetest is the contract of the store. Every engine runs it, and so
// does a store that is known to be bad: a suite that it passes is worth nothing.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// Store is what the contract speaks about, in parts that belong together.
type Store interface {
	Accounts
	Clients
	Consents
	Tokens
	Grants
	Once
	Events
	Pushed
	Devices
	Openings
	Identities
	Farewells
	Dynamic
	Replicas
	Close() error
}

// Accounts are people and their sessions.
type Accounts interface {
	AddUser(context.Context, store.User) error
	UserByName(context.Context, string) (store.User, error)
	SetPassword(ctx context.Context, id, hash string, now time.Time) error
	DisableUser(ctx context.Context, id string, now time.Time) error
	StartSession(context.Context, store.Session) error
	FindSession(context.Context, store.Hash, time.Time) (store.Session, store.User, error)
	EndSession(context.Context, store.Hash) error
}

// Clients are clients and their documents.
type Clients interface {
	Client(context.Context, string) (store.Client, error)
	Clients(ctx context.Context, after string, limit int) ([]store.Client, error)
	RegisterClient(context.Context, store.Client, time.Time) error
	SetClientState(ctx context.Context, id, state, reason string, now time.Time) error
	Document(context.Context, string) (store.Document, error)
	LoadCache(context.Context, string) ([]byte, bool, error)
	SaveCache(ctx context.Context, key, clientID string, entry []byte) error
}

// Consents are what people answered.
type Consents interface {
	Consent(ctx context.Context, userID, clientID, resource string) (store.Consent, error)
	AnswerConsent(context.Context, store.Answer, time.Time) error
	DenyConsent(ctx context.Context, nonce store.Hash, expires, now time.Time, events ...audit.Event) error
}

// Tokens are codes and refresh tokens.
type Tokens interface {
	FindCode(context.Context, store.Hash, time.Time) (store.Code, error)
	RedeemCode(context.Context, store.Redemption, time.Time) (store.Grant, error)
	FindRefresh(context.Context, store.RefreshRef, time.Time) (store.Refresh, store.Grant, error)
	RotateRefresh(context.Context, store.Rotation, time.Time) error
}

// Grants are what was given.
type Grants interface {
	RevokeGrant(ctx context.Context, id, reason string, now time.Time, events ...audit.Event) error
	RevokeUserClient(ctx context.Context, userID, clientID string, now time.Time, events ...audit.Event) error
	EndGrantsOf(ctx context.Context, w store.Whose, reason string, now time.Time, events ...audit.Event) (int, error)
	GrantActive(context.Context, string) (store.Grant, error)
	Grants(ctx context.Context, userID, after string, limit int) ([]store.Grant, error)
	DenyToken(ctx context.Context, jti string, expires time.Time, events ...audit.Event) error
	TokenDenied(context.Context, string) (bool, error)
	Prune(context.Context, time.Time) (int, error)
}

// Once is what happens at most once.
type Once interface {
	SpendID(ctx context.Context, issuer string, id store.Hash, expires, now time.Time) error
	SigningKeys(context.Context) ([]store.SigningKey, error)
	AddSigningKey(ctx context.Context, key store.SigningKey, expectNewest string) error
}

// Events are the audit.
type Events interface {
	AppendEvents(context.Context, ...audit.Event) error
	Events(context.Context, store.EventQuery) ([]audit.Event, error)
	ForgetEvents(ctx context.Context, before, now time.Time) (int, error)
	VerifyEvents(context.Context) (intact, broken int64, err error)
}

var _ Store = (*store.Store)(nil)

// Open opens the store in a directory. Opened again, it has what it had.
type Open func(ctx context.Context, dir string) (Store, error)

// Check is one clause of the contract. Its error says how the store broke it.
type Check struct {
	Name string // starts with the rows it stands for
	Run  func(ctx context.Context, h *House) error
}

// House is a store with a person, her session and an allowed client in it.
type House struct {
	Store
	Reopen func() (Store, error) // a second handle on the same data
	n      int                   // counts fixtures, so that each has secrets of its own
}

// Checks returns the whole contract.
func Checks() []Check {
	return slices.Concat(onceChecks, protocolOnceChecks, tokenChecks, ruleChecks, deviceChecks, guessChecks, protocolChecks, farewellChecks, dynamicChecks, detailChecks, answerChecks, writtenChecks, replicaChecks)
}

// Run holds a store against the contract.
func Run(t *testing.T, open Open) {
	for _, c := range Checks() {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.In(t.Context(), t.TempDir(), open); err != nil {
				t.Error(err)
			}
		})
	}
}

// In runs one check on a fresh store in dir and returns how it was broken.
func (c Check) In(ctx context.Context, dir string, open Open) error {
	s, err := open(ctx, dir)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	h := &House{Store: s, Reopen: func() (Store, error) { return open(ctx, dir) }}
	if err := h.furnish(ctx); err != nil {
		return errors.Join(err, s.Close())
	}
	return errors.Join(c.Run(ctx, h), s.Close())
}

// The furniture.
const (
	User     = "user-1"
	ClientID = "https://mcpclient.example/oauth/metadata.json"
	Resource = "https://api.example/mcp"
)

// Noon is when everything happens unless said otherwise. Its fraction of a
// second has no more than the microseconds that are kept.
var Noon = time.Date(2026, 11, 21, 12, 0, 0, 123456000, time.UTC)

var session = store.HashOf("session of user-1")

func (h *House) furnish(ctx context.Context) error {
	return errors.Join(
		h.AddUser(ctx, store.User{ID: User, Name: "John", Email: "john@example.test", Created: Noon}),
		h.StartSession(ctx, store.Session{Hash: session, UserID: User, AuthTime: Noon, Created: Noon, LastSeen: Noon,
			Expires: Noon.Add(30 * 24 * time.Hour), ACR: "1", AMR: []string{"pwd"}, SID: "sid of user-1"}),
		h.RegisterClient(ctx, store.Client{ID: ClientID, Name: "Agent", RedirectURIs: []string{"http://localhost/cb"}}, Noon),
	)
}

// answer is a good yes; each has a page, a grant and a code of its own.
func (h *House) answer() store.Answer {
	h.n++
	name := fmt.Sprint(h.n)
	return store.Answer{
		Nonce: store.HashOf("nonce " + name), Session: session, NonceExpires: Noon.Add(10 * time.Minute),
		Grant: store.Grant{ID: store.NewID(Noon) + name, UserID: User, ClientID: ClientID, Resource: Resource, Scopes: oauth.Scopes{"read", "write"},
			SecurityDigest: "digest", AuthMethods: []string{"private_key_jwt", "none"}, AuthTime: Noon, ACR: "1", AMR: []string{"pwd"}, Nonce: "n-0S6"},
		Code: store.Code{Hash: store.HashOf("code " + name), RedirectURI: "http://localhost:1234/cb", Challenge: "challenge", Expires: Noon.Add(time.Minute)},
	}
}

// fetched makes a yes one for a client that was only fetched so far.
func fetched(a store.Answer, id string) store.Answer {
	a.Grant.ClientID = id
	a.Client = &store.Client{ID: id, Source: store.SourceCIMD, State: store.StateAllowed, Name: "Fetched", RedirectURIs: []string{"https://fetched.example/cb"}}
	a.Document = &store.Document{ClientID: id, Body: []byte(`{"v":1}`), Digest: "digest 1", SecurityDigest: "security 1", AuthMethods: []string{"none"}, FetchedAt: Noon}
	return a
}

// code leaves a code that can be redeemed.
func (h *House) code(ctx context.Context) (store.Answer, error) {
	a := h.answer()
	err := h.shown(ctx, &a)
	return a, errors.Join(err, h.AnswerConsent(ctx, a, Noon))
}

// redemption redeems the code of an answer for a refresh token named after it.
func redemption(a store.Answer) store.Redemption {
	return store.Redemption{Hash: a.Code.Hash, Method: "private_key_jwt", KeyThumbprint: "thumbprint",
		Refresh: fresh(refreshOf(a, 1))}
}

// fresh is a refresh token that ends when unused for two weeks.
func fresh(ref store.RefreshRef) *store.NewRefresh {
	return &store.NewRefresh{Hash: ref.Hash, Family: ref.Family, Expires: Noon.Add(14 * 24 * time.Hour), Absolute: Noon.Add(90 * 24 * time.Hour)}
}

// refreshOf is the refresh token of a generation.
func refreshOf(a store.Answer, generation int) store.RefreshRef {
	return rival(a, generation, 0)
}

// rival is another token that could have been of that generation.
func rival(a store.Answer, generation, i int) store.RefreshRef {
	return store.RefreshRef{GrantID: a.Grant.ID, Generation: generation, Family: store.HashOf("family " + a.Grant.ID),
		Hash: store.HashOf(fmt.Sprint("refresh ", a.Grant.ID, " ", generation, " ", i))}
}

// family leaves a grant with its first refresh token.
func (h *House) family(ctx context.Context) (store.Answer, error) {
	a, err := h.code(ctx)
	if err != nil {
		return a, err
	}
	_, err = h.RedeemCode(ctx, redemption(a), Noon)
	return a, err
}

// rotation replaces generation n of a family by the next.
func rotation(a store.Answer, n int) store.Rotation {
	return store.Rotation{Old: refreshOf(a, n), Grace: fmt.Appendf(nil, "sealed %d", n+1), New: *fresh(refreshOf(a, n+1))}
}

// race lets n goroutines go at once and returns how often do succeeded. Each
// other call must have failed with want.
func race(n int, want error, do func(i int) error) (won int, err error) {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = do(i)
		})
	}
	close(start)
	wg.Wait()
	for _, e := range errs {
		if e == nil {
			won++
		} else if !errors.Is(e, want) {
			err = fmt.Errorf("a loser got %w, not %w", e, want)
		}
	}
	return won, err
}

// once is race with exactly one winner.
func once(n int, want error, do func(i int) error) error {
	won, err := race(n, want, do)
	if err == nil && won != 1 {
		err = fmt.Errorf("%d of %d racers won", won, n)
	}
	return err
}

// is turns an unexpected error into a complaint.
func is(what string, got, want error) error {
	if errors.Is(got, want) {
		return nil
	}
	return fmt.Errorf("%s: got %v, want %v", what, got, want) //nolint:errorlint // a report of a test, nothing to unwrap
}

// same compares two values that print alike when they are.
func same(what string, got, want any) error {
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		return fmt.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
	return nil
}
