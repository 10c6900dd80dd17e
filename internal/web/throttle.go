package web

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

// Throttle counts per key in windows of time that begin with the first count.
// Counting comes before the deed, so that what happens at once is counted as what
// happens in a row. It is safe for concurrent use, and its memory is bounded.
type Throttle struct {
	window time.Duration

	mu     sync.Mutex // guards counts
	counts map[[sha256.Size]byte]count
}

type count struct {
	n     int
	until time.Time
}

// open reports whether the window of a count is open. One that ends later than the
// next one could was opened by a clock that has been put back since, and would bind
// its key until the clock is there again (FA-11). Up to that it is: who comes last
// may have read the clock before others did.
func (t *Throttle) open(c count, now time.Time) bool {
	return now.Before(c.until) && !c.until.After(now.Add(2*t.window))
}

// Limit allows a key so many counts in a window. Strangers may choose what is in
// the key, and how long it is: it is kept as its hash.
type Limit struct {
	Key  string
	Most int
}

// Everybody is the key of what all do together: it alone is never forgotten before
// its window has ended.
const Everybody = ""

func (l Limit) short() [sha256.Size]byte { return sha256.Sum256([]byte(l.Key)) }

const maxThrottled = 1 << 15 // keys

// NewThrottle returns a Throttle whose windows are this long.
func NewThrottle(window time.Duration) *Throttle {
	return &Throttle{window: window, counts: map[[sha256.Size]byte]count{}}
}

// Take counts one more for every key, unless one of them has no room: then nothing
// is counted and the wait until all have is returned.
func (t *Throttle) Take(now time.Time, limits ...Limit) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range limits {
		if c := t.counts[l.short()]; t.open(c, now) && c.n >= l.Most {
			wait = max(wait, c.until.Sub(now))
		}
	}
	if wait > 0 {
		return wait
	}
	for _, l := range limits {
		c := t.counts[l.short()]
		if !t.open(c, now) {
			t.room(now)
			c = count{until: now.Add(t.window)}
		}
		c.n++
		t.counts[l.short()] = c
	}
	return 0
}

// GiveBack takes one count off every key: the deed was not one to be counted.
func (t *Throttle) GiveBack(limits ...Limit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range limits {
		if c, ok := t.counts[l.short()]; ok && c.n > 0 {
			c.n--
			t.counts[l.short()] = c
		}
	}
}

// Count returns what is counted for a key at a moment.
func (t *Throttle) Count(now time.Time, key string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.counts[Limit{Key: key}.short()]; t.open(c, now) {
		return c.n
	}
	return 0
}

// room makes room for one more key: it looks at a few and forgets those whose
// window has ended, or any one but Everybody if none has. The caller holds mu.
func (t *Throttle) room(now time.Time) {
	if len(t.counts) < maxThrottled {
		return
	}
	all := Limit{Key: Everybody}.short()
	victim, looked := all, 0
	for key, c := range t.counts {
		if key != all {
			victim = key
		}
		if !t.open(c, now) {
			delete(t.counts, key)
		}
		if looked++; looked == 64 {
			break
		}
	}
	if len(t.counts) >= maxThrottled && victim != all {
		delete(t.counts, victim)
	}
}

// Network is the part of an address that one customer holds.
func Network(ip netip.Addr) string {
	ip = ip.Unmap()
	if ip.Is6() {
		p, _ := ip.Prefix(56)
		return p.String()
	}
	return ip.String()
}
