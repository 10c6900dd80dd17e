package audit

import (
	"net/netip"
	"strings"
	"time"
)

// What is written of noted events is shared between those who cause them, so that
// a flood by one hides nothing of what happens to another. A source may use three
// quarters of what a type may have; the rest is left to others. And the less was
// written of a source within the hour, the deeper it may reach into the last
// quarter of the burst: while many flood together, each of them is soon past the
// point where somebody of whom little was heard still gets through.
const (
	few        = 10
	fewIn      = time.Hour
	maxSources = 1 << 12 // remembered for certain; at most twice as many are
	maxFrom    = 64      // bytes of a name of a source
)

// share is the part of a limit that one source may use, or that all but the quiet
// sources may.
func share(limit float64) float64 { return limit * 3 / 4 }

// from names a source of events of one type.
type from struct {
	what Type
	who  string
}

// source is what one network, or one host of clients, has caused.
type source struct {
	bucket
	written int // in the hour that ends at until
	until   time.Time
}

// origin returns who caused an event: the part of an address that one customer
// holds, or without an address the host of the client.
func origin(e *Event) string {
	if ip, err := netip.ParseAddr(e.IP); err == nil {
		if ip = ip.Unmap(); ip.Is6() {
			p, _ := ip.Prefix(56)
			return p.String()
		}
		return ip.String()
	}
	host := e.Client
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host, _, _ = strings.Cut(rest, "/")
	}
	return strings.Clone(host[max(0, len(host)-maxFrom):]) // the end says whose it is
}

// source returns the source of an event. The caller holds l.mu.
func (l *Log) source(e *Event, now time.Time) (*source, string) {
	key := from{e.Type, origin(e)}
	if s, ok := l.young[key]; ok {
		return s, key.who
	}
	s, ok := l.old[key]
	if !ok {
		s = &source{bucket: full(share(float64(l.cfg.Burst)), now)}
	}
	if len(l.young) >= maxSources {
		l.young, l.old = map[from]*source{}, l.young
	}
	l.young[key] = s
	return s, key.who
}

// admit reports whether one more event is written, and counts it if not. The
// caller holds l.mu.
func (l *Log) admit(e *Event) bool {
	now := l.cfg.Now()
	b := l.bucket(e.Type)
	s, who := l.source(e, now)
	rate, burst := l.cfg.Rate, float64(l.cfg.Burst)
	b.fill(now, rate, burst)
	s.fill(now, share(rate), max(1, share(burst)))
	if !now.Before(s.until) || now.Add(fewIn).Before(s.until) { // also when the clock was set back
		s.written, s.until = 0, now.Add(fewIn)
	}
	kept := float64(int(burst-share(burst))) * float64(min(s.written, few)) / few // for those of whom less was written
	if b.tokens < 1+kept || s.tokens < 1 {
		b.miss(s, who)
		return false
	}
	b.tokens--
	s.tokens--
	s.written++
	return true
}

// miss counts an event that is not written, and remembers who caused most.
func (b *bucket) miss(s *source, who string) {
	b.suppressed++
	if s.round != b.round {
		s.round, s.suppressed = b.round, 0
	}
	if s.suppressed++; s.suppressed > b.most {
		b.most, b.mostFrom = s.suppressed, who
	}
}
