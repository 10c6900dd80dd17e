package storetest_test

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/store/pgtest"
	"github.com/bonafide-id/bonafide/internal/store/storetest"
)

// racy is the mistake that stores make most: it reads, checks and writes, each
// step safe by itself. Everything else about it is good.
type racy struct {
	storetest.Store
	mu   sync.Mutex
	seen map[string]bool
}

// spend tells whether a secret was seen, and then, a moment later, marks it.
func (r *racy) spend(what string, h store.Hash) bool {
	key := what + string(h[:])
	r.mu.Lock()
	spent := r.seen[key]
	r.mu.Unlock()
	for range 8 {
		runtime.Gosched()
	}
	r.mu.Lock()
	r.seen[key] = true
	r.mu.Unlock()
	return !spent
}

func (r *racy) RedeemCode(ctx context.Context, red store.Redemption, now time.Time) (store.Grant, error) {
	if !r.spend("code", red.Hash) {
		return store.Grant{}, store.ErrSpent
	}
	c, err := r.FindCode(ctx, red.Hash, now)
	if err == nil {
		_, _ = r.Store.RedeemCode(ctx, red, now)
	}
	return c.Grant, err
}

func (r *racy) RotateRefresh(ctx context.Context, rot store.Rotation, now time.Time) error {
	if !r.spend("refresh", rot.Old.Hash) {
		return store.ErrSpent
	}
	_ = r.Store.RotateRefresh(ctx, rot, now)
	return nil
}

func (r *racy) SpendID(_ context.Context, issuer string, id store.Hash, _, _ time.Time) error {
	if !r.spend(issuer, id) {
		return store.ErrSpent
	}
	return nil
}

func (r *racy) AnswerConsent(ctx context.Context, a store.Answer, now time.Time) error {
	if !r.spend("page", a.Nonce) {
		return store.ErrSpent
	}
	return r.Store.AnswerConsent(ctx, a, now)
}

func (r *racy) DenyConsent(_ context.Context, nonce store.Hash, _, _ time.Time, _ ...audit.Event) error {
	if !r.spend("page", nonce) {
		return store.ErrSpent
	}
	return nil
}

func (r *racy) AddSigningKey(ctx context.Context, key store.SigningKey, expect string) error {
	keys, err := r.SigningKeys(ctx)
	if err != nil {
		return err
	}
	newest := ""
	if len(keys) > 0 {
		newest = keys[len(keys)-1].KID
	}
	if newest != expect {
		return store.ErrConflict
	}
	_ = r.Store.AddSigningKey(ctx, key, expect)
	return nil
}

// deaf says "there is none" when it cannot answer.
type deaf struct{ storetest.Store }

func (d deaf) Client(ctx context.Context, id string) (store.Client, error) {
	c, err := d.Store.Client(ctx, id)
	if err != nil {
		err = store.ErrNotFound
	}
	return c, err
}

// lenient is off by one at every expiry.
type lenient struct{ storetest.Store }

func (l lenient) RedeemCode(ctx context.Context, r store.Redemption, now time.Time) (store.Grant, error) {
	return l.Store.RedeemCode(ctx, r, now.Add(-time.Microsecond))
}

// forgetful does not end what a blocked client has.
type forgetful struct{ storetest.Store }

func (f forgetful) SetClientState(ctx context.Context, id, state, reason string, now time.Time) error {
	if state == store.StateBlocked {
		state = store.StatePending
	}
	return f.Store.SetClientState(ctx, id, state, reason, now)
}

func TestKnownBadStoresAreCaught(t *testing.T) {
	engines := map[string]storetest.Open{
		"SQLite": func(ctx context.Context, dir string) (storetest.Store, error) {
			return store.Open(ctx, store.Config{Path: filepath.Join(dir, "bonafide.db")})
		},
		"PostgreSQL": func(ctx context.Context, _ string) (storetest.Store, error) {
			address, err := pgtest.Shared(t).Copy(ctx, "bonafide", storetest.Migrate)
			if err != nil {
				return nil, err
			}
			return store.Open(ctx, store.Config{Path: address})
		},
	}
	for name, open := range engines {
		t.Run(name, func(t *testing.T) { areCaught(t, open) })
	}
}

func areCaught(t *testing.T, open storetest.Open) {
	bad := []struct {
		name   string
		spoil  func(storetest.Store) storetest.Store
		caught []string // the starts of the checks that must fail
	}{
		{"read, check, write", func(s storetest.Store) storetest.Store { return &racy{Store: s, seen: map[string]bool{}} },
			[]string{"TOK-03, TOK-22, attack TK-02", "TOK-11, TOK-22, attack RF-02", "CAUTH-06, attack CA-01", "attack CN-07", "attack JK-14: of many"}},
		{"an error read as none", func(s storetest.Store) storetest.Store { return deaf{s} }, []string{"URL-15, mistake 35"}},
		{"off by one", func(s storetest.Store) storetest.Store { return lenient{s} }, []string{"a code is good until"}},
		{"a block that only holds", func(s storetest.Store) storetest.Store { return forgetful{s} }, []string{"REV-06 blocking"}},
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
						s, err := open(ctx, dir)
						if err != nil {
							return nil, err
						}
						return b.spoil(s), nil
					})
					if err == nil {
						t.Error("the contract passes a store that breaks it")
					}
				}
				if !ran {
					t.Errorf("no check starts with %q", prefix)
				}
			})
		}
	}
}
