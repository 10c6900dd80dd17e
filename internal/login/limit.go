package login

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/bonafide-id/bonafide/oauth"
)

// gate lets a few sign-ins compute a hash at a time, and a few more wait: a
// flood of passwords must not take the memory and the cores from /token (DS-11).
type gate struct {
	running chan struct{}
	waiting chan struct{}
	wait    time.Duration
}

func newGate(n int, wait time.Duration) gate {
	return gate{make(chan struct{}, n), make(chan struct{}, 16*n), wait}
}

var errBusy = oauth.Refuse(oauth.TemporarilyUnavailable, "too many people are signing in at this moment").Under("DS-11")

// enter waits for a turn. The caller calls leave when it is done. The error is
// errBusy when there are too many waiters or the wait was too long, or the
// context's.
func (g gate) enter(ctx context.Context) (leave func(), err error) {
	select {
	case g.waiting <- struct{}{}:
		defer func() { <-g.waiting }()
	default:
		return nil, errBusy
	}
	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	select {
	case g.running <- struct{}{}:
		return func() { <-g.running }, nil
	case <-timer.C:
		return nil, errBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Limits on guessing (POL-08, CN-20). A source is an IPv4 address or an IPv6
// /56: it may try sourceBurst passwords at once and one a second after that, and
// a wrong one costs as much as failureCost right ones, so that an office behind
// one address can sign in on Monday while a list of names cannot be walked. An
// account is slowed down, never locked: after some wrong passwords each further
// one doubles the wait. The wait is kept per account and source, and, with more
// patience, for the account from everywhere; a browser that signed in to the
// account before is not counted with everywhere, so that nobody can keep the
// owner out by guessing.
const (
	sourceBurst = 60
	failureCost = 6
	trackedKeys = 1 << 15
)

var (
	perSource  = slope{free: 5, first: time.Second, most: 15 * time.Minute, forget: time.Hour}
	everywhere = slope{free: 30, first: time.Second, most: 5 * time.Minute, forget: 6 * time.Hour}
)

type limits struct {
	mu      *sync.Mutex // guards everything below
	sources *recent[rate.Limiter]
	waits   *recent[wait]
}

func newLimits() limits {
	return limits{new(sync.Mutex), newRecent[rate.Limiter](trackedKeys), newRecent[wait](trackedKeys)}
}

// source takes one attempt from the budget of an address and reports how long
// to wait if there is none.
func (l limits) source(ip netip.Addr, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	res := l.limiter(ip).ReserveN(now, 1)
	delay := res.DelayFrom(now)
	if delay > 0 {
		res.CancelAt(now)
	}
	return delay
}

// failed makes the attempt cost what a wrong password costs.
func (l limits) failed(ip netip.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limiter(ip).ReserveN(now, failureCost-1)
}

func (l limits) limiter(ip netip.Addr) *rate.Limiter {
	return l.sources.get(sourceKey(ip), func() *rate.Limiter { return rate.NewLimiter(rate.Every(time.Second), sourceBurst) })
}

// sourceKey is the part of an address that one customer holds.
func sourceKey(ip netip.Addr) string {
	if ip.Is6() {
		p, _ := ip.Prefix(56)
		return p.String()
	}
	return ip.String()
}

// account counts an attempt on an account, in advance, and reports how long to
// wait if it must not be made now. device is the browser's proof of an earlier
// sign-in to this account, or "".
func (l limits) account(account, device string, ip netip.Addr, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if device != "" {
		return l.wait("device "+device, perSource, now)
	}
	if d := l.wait("pair "+sourceKey(ip)+" "+account, perSource, now); d > 0 {
		return d
	}
	return l.wait("account "+account, everywhere, now)
}

// succeeded forgets the wrong attempts that came before a right one.
func (l limits) succeeded(account, device string, ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits.drop("device " + device)
	l.waits.drop("pair " + sourceKey(ip) + " " + account)
	if device == "" {
		l.waits.drop("account " + account)
	}
}

// slope says how the wait grows: free attempts without any, then first, doubled
// by each further one up to most; after forget without an attempt all is well.
type slope struct {
	free                int
	first, most, forget time.Duration
}

func (s slope) after(attempts int) time.Duration {
	if attempts <= s.free {
		return 0
	}
	return min(s.most, s.first<<min(attempts-s.free-1, 20))
}

// wait is the state of one key.
type wait struct {
	attempts    int
	until, last time.Time
}

func (l limits) wait(key string, s slope, now time.Time) time.Duration {
	w := l.waits.get(key, func() *wait { return new(wait) })
	if now.Sub(w.last) >= s.forget {
		*w = wait{}
	}
	if now.Before(w.until) {
		return w.until.Sub(now)
	}
	w.attempts++
	w.last, w.until = now, now.Add(s.after(w.attempts))
	return 0
}

// recent is a map that keeps at least the max keys that were used last and at
// most twice as many: when the young half is full it becomes the old half, and
// the old half is forgotten.
type recent[V any] struct {
	max        int
	young, old map[string]*V
}

func newRecent[V any](max int) *recent[V] {
	return &recent[V]{max, make(map[string]*V), nil}
}

func (m *recent[V]) get(key string, fresh func() *V) *V {
	if v, ok := m.young[key]; ok {
		return v
	}
	v, ok := m.old[key]
	if !ok {
		v = fresh()
	}
	if len(m.young) >= m.max {
		m.young, m.old = make(map[string]*V), m.young
	}
	m.young[key] = v
	return v
}

func (m *recent[V]) drop(key string) {
	delete(m.young, key)
	delete(m.old, key)
}
