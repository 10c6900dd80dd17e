package cimd

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/bonafide-id/bonafide/internal/planted"
)

type sourceKey struct{}

// WithSource names who causes the fetches of a context, such as the address of
// the browser or its session. Each source has its own budget; without a name only
// the budgets of the host and of the whole process apply.
func WithSource(ctx context.Context, source string) context.Context {
	return context.WithValue(ctx, sourceKey{}, source)
}

func sourceOf(ctx context.Context) string {
	s, _ := ctx.Value(sourceKey{}).(string)
	return s
}

// maxBuckets bounds the sources and hosts that are remembered: more than the global
// budget lets in while the bucket of one fills again. That budget holds for those
// that make more of them up.
const maxBuckets = 8192

// budget spends the fetches that strangers may cause (FETCH-19).
type budget struct {
	rates   Budgets
	mu      sync.Mutex // guards the buckets
	sources bounded[*rate.Limiter]
	sites   bounded[*rate.Limiter]
	global  *rate.Limiter
}

func newBudget(b Budgets) *budget {
	return &budget{
		rates:   b,
		sources: newBounded[*rate.Limiter](maxBuckets),
		sites:   newBounded[*rate.Limiter](maxBuckets),
		global:  limiter(b.Global),
	}
}

func limiter(r Rate) *rate.Limiter {
	if r.Every < 0 {
		return rate.NewLimiter(rate.Inf, 1)
	}
	return rate.NewLimiter(rate.Every(r.Every), r.Burst)
}

func bucket(b *bounded[*rate.Limiter], name string, r Rate) *rate.Limiter {
	l := b.at(name)
	if *l == nil {
		*l = limiter(r)
	}
	return *l
}

// take spends one fetch from the budgets of the source, the site and the process,
// or none of them. The refusal says when to come back.
func (b *budget) take(source, site string, now time.Time) *Error {
	if planted.Weak("budget") {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// A site is looked up last, and so remembered only for a fetch that the others
	// allow: requests that are refused cannot push out the bucket of a site that
	// has spent its budget.
	limits := []func() *rate.Limiter{
		func() *rate.Limiter { return bucket(&b.sources, source, b.rates.PerSource) },
		func() *rate.Limiter { return b.global },
		func() *rate.Limiter { return bucket(&b.sites, site, b.rates.PerHost) },
	}
	if source == "" {
		limits = limits[1:]
	}
	var taken []*rate.Reservation
	for _, limit := range limits {
		r := limit().ReserveN(now, 1)
		taken = append(taken, r)
		if wait := r.DelayFrom(now); wait > 0 {
			for _, t := range taken {
				t.CancelAt(now)
			}
			return busy(wait)
		}
	}
	return nil
}

func busy(wait time.Duration) *Error {
	return &Error{Kind: KindBusy, Rule: "FETCH-19", RetryAfter: wait,
		Hint: "too many client documents are being fetched; try again in " + seconds(wait)}
}

// gate bounds the fetches that are under way. Strangers get three quarters of the
// places, and a few for each site and each source; the rest is for clients that are
// known, so that slow hosts of strangers cannot stop their revalidation (FT-10).
type gate struct {
	max, strangers, perSite, perSource int

	mu      sync.Mutex // guards everything below
	total   int
	strange int
	held    map[place]int // by strangers
	waiting int
	changed chan struct{} // closed when a place becomes free
}

// place is what strangers hold places for: a site, or a source if it has a name.
type place struct{ site, source string }

func newGate(b Budgets) *gate {
	return &gate{
		max: b.InFlight, strangers: max(1, b.InFlight-b.InFlight/4),
		perSite: b.InFlightPerHost, perSource: max(1, b.InFlight/4),
		held: make(map[place]int), changed: make(chan struct{}),
	}
}

// enter waits for a place until ctx ends, and returns how to leave it.
func (g *gate) enter(ctx context.Context, p place, known bool) (leave func(), err *Error) {
	queued := false
	for {
		g.mu.Lock()
		if queued {
			g.waiting--
		}
		if g.total < g.max && (known || g.room(p)) {
			g.take(p, known, 1)
			g.mu.Unlock()
			return func() { g.leave(p, known) }, nil
		}
		if g.waiting >= 4*g.max {
			g.mu.Unlock()
			return nil, busy(time.Second)
		}
		g.waiting++
		queued = true
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			g.mu.Lock()
			g.waiting--
			g.mu.Unlock()
			return nil, busy(time.Second)
		}
	}
}

func (g *gate) leave(p place, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.take(p, known, -1)
	close(g.changed)
	g.changed = make(chan struct{})
}

// room reports whether a stranger may enter; the caller holds g.mu.
func (g *gate) room(p place) bool {
	return g.strange < g.strangers && g.held[place{site: p.site}] < g.perSite &&
		(p.source == "" || g.held[place{source: p.source}] < g.perSource)
}

// take counts a place; the caller holds g.mu.
func (g *gate) take(p place, known bool, n int) {
	g.total += n
	if known {
		return
	}
	g.strange += n
	for _, h := range []place{{site: p.site}, {source: p.source}} {
		if g.held[h] += n; g.held[h] == 0 {
			delete(g.held, h)
		}
	}
}
