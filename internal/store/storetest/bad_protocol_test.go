package storetest_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/store/storetest"
)

// hurried is racy at the verbs of the whole protocol: it looks, finds that nobody
// was here, and believes it.
type hurried struct{ racy }

func (r *hurried) PushRequest(ctx context.Context, p store.Pushed, most int, events ...audit.Event) error {
	if !r.spend("push", p.Hash) {
		return store.ErrConflict
	}
	_ = r.Store.PushRequest(ctx, p, most, events...)
	return nil
}

func (r *hurried) AnswerConsent(ctx context.Context, a store.Answer, now time.Time) error {
	if a.Pushed == nil {
		return r.Store.AnswerConsent(ctx, a, now)
	}
	if !r.spend("pushed", *a.Pushed) {
		return store.ErrSpent
	}
	a.Pushed = nil
	return r.Store.AnswerConsent(ctx, a, now)
}

func (r *hurried) ApproveDevice(ctx context.Context, a store.DeviceAnswer, now time.Time) error {
	if !r.spend("answer", a.UserCode) {
		return store.ErrSpent
	}
	_ = r.Store.ApproveDevice(ctx, a, now)
	return nil
}

func (r *hurried) DenyDevice(ctx context.Context, userCode store.Hash, d store.Denial, now time.Time) error {
	if !r.spend("answer", userCode) {
		return store.ErrSpent
	}
	_ = r.Store.DenyDevice(ctx, userCode, d, now)
	return nil
}

func (r *hurried) RedeemDevice(ctx context.Context, red store.Redemption, now time.Time) (store.Grant, error) {
	if !r.spend("device", red.Hash) {
		return store.Grant{}, store.ErrSpent
	}
	g, _ := r.Store.RedeemDevice(ctx, red, now)
	return g, nil
}

func (r *hurried) PollDevice(ctx context.Context, h store.Hash, now time.Time) (store.Device, error) {
	d, err := r.FindDevice(ctx, h, now)
	if err == nil && now.Before(d.NextPoll) {
		return d, store.ErrTooFast
	}
	_, _ = r.Store.PollDevice(ctx, h, now)
	return d, err
}

func (r *hurried) OpenGrant(ctx context.Context, o store.Opening, now time.Time) (store.Grant, error) {
	for _, id := range o.Spend {
		if !r.spend(id.Issuer, id.ID) {
			return store.Grant{}, store.ErrSpent
		}
	}
	o.Spend = nil
	return r.Store.OpenGrant(ctx, o, now)
}

func (r *hurried) SignOutIdentity(ctx context.Context, f store.Farewell, now time.Time, events ...audit.Event) (store.Departed, error) {
	if !r.spend(f.Spend.Issuer, f.Spend.ID) {
		return store.Departed{}, store.ErrSpent
	}
	_, _ = r.Store.SignOutIdentity(ctx, f, now, events...)
	return store.Departed{}, nil
}

func (r *hurried) RegisterDynamic(ctx context.Context, c store.Client, most int, now time.Time, events ...audit.Event) error {
	if !r.spend("client", store.HashOf(c.ID)) {
		return store.ErrConflict
	}
	_ = r.Store.RegisterDynamic(ctx, c, most, now, events...)
	return nil
}

func (r *hurried) UpdateDynamic(ctx context.Context, c store.Client, old string, now time.Time, events ...audit.Event) error {
	if row, err := r.Client(ctx, c.ID); err != nil || row.RegistrationHash != old {
		return errors.Join(err, store.ErrConflict)
	}
	_ = r.Store.UpdateDynamic(ctx, c, old, now, events...)
	return nil
}

func (r *hurried) LinkIdentity(ctx context.Context, id store.Identity, create *store.User, events ...audit.Event) error {
	if create != nil { // in a commit of its own
		if err := r.AddUser(ctx, *create); err != nil {
			return err
		}
	}
	return r.Store.LinkIdentity(ctx, id, nil, events...)
}

// boundless counts before it takes its turn.
type boundless struct {
	racy
	n int // that it let in
}

func (b *boundless) PushRequest(ctx context.Context, p store.Pushed, most int, events ...audit.Event) error {
	if !b.below(most) {
		return store.ErrBusy
	}
	return b.Store.PushRequest(ctx, p, 1<<30, events...)
}

func (b *boundless) below(most int) bool {
	b.mu.Lock()
	n := b.n
	b.mu.Unlock()
	if n >= most {
		return false
	}
	for range 8 { // everybody who looks at this moment sees the same count
		runtime.Gosched()
	}
	b.mu.Lock()
	b.n++
	b.mu.Unlock()
	return true
}

// early is off by one at every expiry.
type early struct{ storetest.Store }

func (e early) RedeemDevice(ctx context.Context, r store.Redemption, now time.Time) (store.Grant, error) {
	return e.Store.RedeemDevice(ctx, r, now.Add(-time.Microsecond))
}

func (e early) FindPushed(ctx context.Context, h store.Hash, now time.Time) (store.Pushed, error) {
	return e.Store.FindPushed(ctx, h, now.Add(-time.Microsecond))
}

// patient tells a device to slow down and does not mean it.
type patient struct{ storetest.Store }

func (p patient) PollDevice(ctx context.Context, h store.Hash, now time.Time) (store.Device, error) {
	d, err := p.FindDevice(ctx, h, now)
	if err == nil && now.Before(d.NextPoll) {
		return d, store.ErrTooFast
	}
	return p.Store.PollDevice(ctx, h, now)
}

// stale reads what became of a device where it does not stand: in its own row.
type stale struct{ storetest.Store }

func (s stale) PollDevice(ctx context.Context, h store.Hash, now time.Time) (store.Device, error) {
	d, err := s.Store.PollDevice(ctx, h, now)
	if errors.Is(err, store.ErrEnded) || errors.Is(err, store.ErrBlocked) {
		err = nil
	}
	return d, err
}

// blind opens grants for whoever is named.
type blind struct{ storetest.Store }

func (b blind) OpenGrant(ctx context.Context, o store.Opening, now time.Time) (store.Grant, error) {
	user := o.Grant.UserID
	o.Grant.UserID = ""
	g, err := b.Store.OpenGrant(ctx, o, now)
	g.UserID = user
	return g, err
}

// unbound forgets the keys.
type unbound struct{ storetest.Store }

func (u unbound) RedeemDevice(ctx context.Context, r store.Redemption, now time.Time) (store.Grant, error) {
	r.JKT = ""
	return u.Store.RedeemDevice(ctx, r, now)
}

func (u unbound) RedeemCode(ctx context.Context, r store.Redemption, now time.Time) (store.Grant, error) {
	r.InstanceJKT = ""
	return u.Store.RedeemCode(ctx, r, now)
}

func (u unbound) RotateRefresh(ctx context.Context, r store.Rotation, now time.Time) error {
	r.InstanceJKT = ""
	return u.Store.RotateRefresh(ctx, r, now)
}

// friendly takes an address for another that looks alike, and an identity for one
// of another tenant.
type friendly struct{ storetest.Store }

func (f friendly) UserByEmail(ctx context.Context, email string) (store.User, error) {
	return f.Store.UserByEmail(ctx, strings.ToLower(email))
}

func (f friendly) UserByIdentity(ctx context.Context, issuer, tenant, subject string) (store.User, error) {
	u, err := f.Store.UserByIdentity(ctx, issuer, tenant, subject)
	if err != nil {
		u, err = f.Store.UserByIdentity(ctx, issuer, "t1", subject)
	}
	return u, err
}

// waving spends a farewell first and then looks whose it is, in any case of letters.
type waving struct{ storetest.Store }

func (w waving) SignOutIdentity(ctx context.Context, f store.Farewell, now time.Time, events ...audit.Event) (store.Departed, error) {
	if err := w.SpendID(context.WithoutCancel(ctx), f.Spend.Issuer, f.Spend.ID, f.Spend.Expires, now); err != nil {
		return store.Departed{}, err
	}
	u, err := w.UserByIdentity(ctx, "https://idp.example", "t1", strings.ToLower(f.Subject))
	if err != nil {
		return store.Departed{}, err
	}
	sids, err := w.EndSessionsOf(ctx, u.ID, now, events...)
	return store.Departed{UserID: u.ID, SIDs: sids}, err
}

// trusting changes a client with any token.
type trusting struct{ storetest.Store }

func (t trusting) UpdateDynamic(ctx context.Context, c store.Client, old string, now time.Time, events ...audit.Event) error {
	row, err := t.Client(ctx, c.ID)
	if err == nil && row.RegistrationHash != "" {
		old = row.RegistrationHash
	}
	return t.Store.UpdateDynamic(ctx, c, old, now, events...)
}

// alone counts guesses for itself, as each replica would.
type alone struct {
	storetest.Store
	mu    *sync.Mutex
	wrong map[store.Hash]int
}

func (a alone) GuessUserCode(ctx context.Context, g store.Guess, now time.Time) (store.Device, time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range g.Against {
		if a.wrong[l.Key] >= l.Most {
			return store.Device{}, g.Window, store.ErrTooFast
		}
	}
	d, err := a.FindUserCode(ctx, g.UserCode, now)
	if err != nil {
		for _, l := range g.Against {
			a.wrong[l.Key]++
		}
	}
	return d, 0, err
}

// hoarder throws nothing away.
type hoarder struct{ storetest.Store }

func (h hoarder) Prune(context.Context, time.Time) (int, error) { return 0, nil }

func TestKnownBadStoresOfTheProtocolAreCaught(t *testing.T) {
	bad := []struct {
		name   string
		spoil  func(storetest.Store) storetest.Store
		caught []string // the starts of the checks that must fail
	}{
		{"look, believe, write", func(s storetest.Store) storetest.Store { return &hurried{racy{Store: s, seen: map[string]bool{}}} },
			[]string{"PAR-05 a pushed request is kept once", "PAR-05, attack CN-07", "attack DV-06, attack CN-07", "DEV-06, attack DV-07", "DEV-04, attack DV-02: of polls", "XCH-04, attack CA-01", "DCR-05 an identifier is taken once", "DCR-04 a registration token is used once", "XCH-10, OIDC-05: an identity", "XCH-10, OIDC-05: an address", "OIDC-10 a farewell is taken once", "OIDC-10 a farewell ends"}},
		{"count, then wait", func(s storetest.Store) storetest.Store { return &boundless{racy: racy{Store: s}} }, []string{"DCR-01, PAR-11"}},
		{"off by one", func(s storetest.Store) storetest.Store { return early{s} }, []string{"DEV-04, attack DV-09", "PAR-05, PAR-06"}},
		{"slow down without a consequence", func(s storetest.Store) storetest.Store { return patient{s} }, []string{"DEV-04, attack DV-02: a poll", "DEV-04, attack DV-02: of polls"}},
		{"a device whose grant ended", func(s storetest.Store) storetest.Store { return stale{s} }, []string{"attack DV-10: what no longer stands"}},
		{"a grant for anybody", func(s storetest.Store) storetest.Store { return blind{s} }, []string{"REV-06, attack DV-10: no grant without a page"}},
		{"keys that are forgotten", func(s storetest.Store) storetest.Store { return unbound{s} }, []string{"DEV-06, DPOP-02", "DPOP-02, ATT-08"}},
		{"near enough", func(s storetest.Store) storetest.Store { return friendly{s} }, []string{"XCH-10 an identity", "XCH-10 an address"}},
		{"a farewell for whoever is near", func(s storetest.Store) storetest.Store { return waving{s} }, []string{"OIDC-10 a farewell ends", "OIDC-10 a farewell is for one", "OIDC-10 a farewell that could not"}},
		{"each counts for itself", func(s storetest.Store) storetest.Store { return alone{s, new(sync.Mutex), map[store.Hash]int{}} }, []string{"DEV-03, attack DV-03: replicas", "DEV-03, attack DV-03, attack DS-13"}},
		{"any token will do", func(s storetest.Store) storetest.Store { return trusting{s} }, []string{"DCR-04 only the newest", "DCR-04 a registration token is used once"}},
		{"nothing is thrown away", func(s storetest.Store) storetest.Store { return hoarder{s} }, []string{"attack DS-13: pushed requests", "DCR-01 a client"}},
	}
	for _, b := range bad {
		for _, prefix := range b.caught {
			t.Run(b.name+": "+prefix, func(t *testing.T) {
				ran := false
				for _, c := range storetest.Checks() {
					if !strings.HasPrefix(c.Name, prefix) {
						continue
					}
					ran = true
					err := c.In(t.Context(), t.TempDir(), func(ctx context.Context, dir string) (storetest.Store, error) {
						s, err := store.Open(ctx, store.Config{Path: filepath.Join(dir, "bonafide.db")})
						if err != nil {
							return nil, err
						}
						return b.spoil(s), nil
					})
					if err == nil {
						t.Error("the contract passes a store that breaks it")
					} else {
						t.Log(err)
					}
				}
				if !ran {
					t.Errorf("no check starts with %q", prefix)
				}
			})
		}
	}
}
