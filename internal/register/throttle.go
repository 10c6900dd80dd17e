package register

import (
	"net/netip"
	"sync"
	"time"
)

// throttle counts per key in windows of time that begin with the first count. Its
// memory is bounded. It is safe for concurrent use.
type throttle struct {
	window time.Duration

	mu     sync.Mutex // guards counts
	counts map[string]count
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

const maxCounted = 1 << 14 // keys

func newThrottle(window time.Duration) *throttle {
	return &throttle{window: window, counts: map[string]count{}}
}

// take counts one more for every key, unless one of them has no room: then
// nothing is counted and the wait until it has is returned.
func (t *throttle) take(now time.Time, limits ...limit) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range limits {
		if c := t.counts[l.key]; now.Before(c.until) && c.n >= l.most {
			wait = max(wait, c.until.Sub(now))
		}
	}
	if wait > 0 {
		return wait
	}
	for _, l := range limits {
		c := t.counts[l.key]
		if !now.Before(c.until) {
			t.room(now)
			c = count{until: now.Add(t.window)}
		}
		c.n++
		t.counts[l.key] = c
	}
	return 0
}

// room forgets what has ended when there are many keys, and one more if nothing
// has; the count of all, under the empty key, stays. The caller holds mu.
func (t *throttle) room(now time.Time) {
	if len(t.counts) < maxCounted {
		return
	}
	victim, looked := "", 0
	for key, c := range t.counts {
		if key != "" && !now.Before(c.until) {
			delete(t.counts, key)
		} else if key != "" {
			victim = key
		}
		if looked++; looked == 64 {
			break
		}
	}
	if len(t.counts) >= maxCounted && victim != "" {
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
