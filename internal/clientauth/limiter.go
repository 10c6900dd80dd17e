package clientauth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/web"
)

// LimiterConfig configures a [Limiter].
type LimiterConfig struct {
	Tries  int              // failures within Window after which a source has to wait; 0 is 10
	Window time.Duration    // 0 is one minute
	Max    int              // sources that are remembered at a time; 0 is 10,000
	Now    func() time.Time // nil is time.Now
}

// Limiter counts failed attempts per source and holds back those with too many
// (POL-08). Its memory is bounded. It is safe for concurrent use.
type Limiter struct {
	cfg LimiterConfig

	mu    sync.Mutex // guards tries
	tries map[[32]byte]tries
}

type tries struct {
	n     int
	until time.Time // end of the window that the first failure opened
}

// NewLimiter returns a limiter.
func NewLimiter(c LimiterConfig) *Limiter {
	if c.Tries == 0 {
		c.Tries = 10
	}
	if c.Window == 0 {
		c.Window = time.Minute
	}
	if c.Max == 0 {
		c.Max = 10_000
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Limiter{cfg: c, tries: map[[32]byte]tries{}}
}

// Source names who is counted: the thing that is tried, and the address from
// which it is tried (an IPv6 network of 64 bits counts as one).
func Source(ctx context.Context, what string) string {
	ip := web.ClientIP(ctx).Unmap()
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return what + " " + p.String()
		}
	}
	if ip == (netip.Addr{}) {
		return what
	}
	return what + " " + ip.String()
}

// Allow reports whether the source may try once more.
func (l *Limiter) Allow(source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.tries[sha256.Sum256([]byte(source))]
	return !ok || t.n < l.cfg.Tries || !l.cfg.Now().Before(t.until)
}

// Failed counts a failure.
func (l *Limiter) Failed(source string) {
	id, now := sha256.Sum256([]byte(source)), l.cfg.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.tries[id]
	if !ok && len(l.tries) >= l.cfg.Max {
		l.makeRoom(now)
	}
	if !ok || !now.Before(t.until) {
		t = tries{until: now.Add(l.cfg.Window)}
	}
	t.n++
	l.tries[id] = t
}

// Passed forgets the failures of a source.
func (l *Limiter) Passed(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.tries) > 0 {
		delete(l.tries, sha256.Sum256([]byte(source)))
	}
}

// makeRoom drops what has ended, and otherwise the source with the fewest
// failures among a few. The caller holds mu.
func (l *Limiter) makeRoom(now time.Time) {
	var victim [32]byte
	least, looked := -1, 0
	for id, t := range l.tries {
		if !now.Before(t.until) {
			delete(l.tries, id)
			continue
		}
		if looked++; looked <= 64 && (least < 0 || t.n < least) {
			victim, least = id, t.n
		}
	}
	if len(l.tries) >= l.cfg.Max {
		delete(l.tries, victim)
	}
}

// SecretMatches reports, in constant time, whether secret is the one behind the
// stored form that HashSecret gives.
func SecretMatches(secret, stored string) bool {
	return subtle.ConstantTimeCompare([]byte(HashSecret(secret)), []byte(strings.ToLower(stored))) == 1
}
