package authorize

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

// throttle counts per key in windows of time that begin with the first count.
// Counting comes before the deed, so that what happens at once is counted as what
// happens in a row. It is safe for concurrent use, and its memory is bounded.
type throttle struct {
	window time.Duration

	mu     sync.Mutex       // guards counts
	counts map[string]count // by what a key is shortened to
}

type count struct {
	n     int
	until time.Time
}

// limit allows a key so many counts in a window.
type limit struct {
	key  string
	most int
}

// short is the key as it is kept: strangers choose what is in it, and how long it
// is.
func (l limit) short() string {
	sum := sha256.Sum256([]byte(l.key))
	return string(sum[:])
}

const maxThrottled = 1 << 15 // keys

func newThrottle(window time.Duration) *throttle {
	return &throttle{window: window, counts: map[string]count{}}
}

// take counts one more for every key, unless one of them has no room: then
// nothing is counted and the wait until it has is returned.
func (t *throttle) take(now time.Time, limits ...limit) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range limits {
		if c := t.counts[l.short()]; now.Before(c.until) && c.n >= l.most {
			wait = max(wait, c.until.Sub(now))
		}
	}
	if wait > 0 {
		return wait
	}
	for _, l := range limits {
		c := t.counts[l.short()]
		if !now.Before(c.until) {
			t.room(now)
			c = count{until: now.Add(t.window)}
		}
		c.n++
		t.counts[l.short()] = c
	}
	return 0
}

// giveBack takes one count off every key: the deed was not one to be counted.
func (t *throttle) giveBack(limits ...limit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range limits {
		if c, ok := t.counts[l.short()]; ok && c.n > 0 {
			c.n--
			t.counts[l.short()] = c
		}
	}
}

// room makes room for one more key: it looks at a few and forgets those whose
// window has ended, or any one if none has. The caller holds mu.
func (t *throttle) room(now time.Time) {
	if len(t.counts) < maxThrottled {
		return
	}
	victim, looked := "", 0
	for key, c := range t.counts {
		victim = key
		if !now.Before(c.until) {
			delete(t.counts, key)
		}
		if looked++; looked == 64 {
			break
		}
	}
	if len(t.counts) >= maxThrottled {
		delete(t.counts, victim)
	}
}

// network is the part of an address that one customer holds.
func network(ip netip.Addr) string {
	ip = ip.Unmap()
	if ip.Is6() {
		p, _ := ip.Prefix(56)
		return p.String()
	}
	return ip.String()
}
