package cimd

import (
	"container/list"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/safehttp"
)

const (
	backoffBase = time.Second
	// backoffMax bounds how long a host that works again stays unnoticed.
	backoffMax = 30 * time.Second
	// backoffMemory is how long a failure without a successor is remembered.
	backoffMemory = 10 * time.Minute
	maxFailures   = 8192
)

// backoff remembers what failed a moment ago. It is apart from the cache, because
// an error is never cached (CACHE-11): it only spaces the attempts. A bad document
// counts against its URL alone, so that made-up paths on an honest host hurt
// nobody else; a failing transport counts against the host (CACHE-13, DS-07).
type backoff struct {
	mu    sync.Mutex // guards both maps and what is in them
	urls  bounded[failure]
	hosts bounded[failure]
}

type failure struct {
	count int
	at    time.Time // when the newest failure settled
	until time.Time
	last  *Error
}

func newBackoff() *backoff {
	return &backoff{urls: newBounded[failure](maxFailures), hosts: newBounded[failure](maxFailures)}
}

// failed records a failure that settled now.
func (b *backoff) failed(t target, err *Error, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	base := backoffBase
	if t.kind == kindJWKS {
		base = keysCoolDown
	}
	err = forgetting(err)
	b.urls.at(t.digest()).add(err, now, base)
	if hostFailed(err) {
		b.hosts.at(t.host()).add(err, now, backoffBase)
	}
}

func (f *failure) add(err *Error, now time.Time, base time.Duration) {
	if now.Sub(f.until) > backoffMemory {
		f.count = 0
	}
	f.count++
	f.at, f.last = now, err
	f.until = now.Add(max(base, min(base<<min(f.count-1, 8), backoffMax)))
}

// hostFailed reports whether the whole host is out of reach. A refused address may
// be the fault of one URL without an explicit rule and counts against it alone.
func hostFailed(err *Error) bool {
	cause, ok := errors.AsType[*safehttp.Error](err)
	if err.Kind != KindFetch || !ok {
		return false
	}
	switch cause.Kind {
	case safehttp.KindDNS, safehttp.KindConnect, safehttp.KindTLS, safehttp.KindTimeout:
		return true
	}
	return false
}

// maxCause bounds the text of a cause that is remembered.
const maxCause = 512

// forgetting returns a copy of err that keeps what blocked and soft read and the
// text of the cause, but nothing the cause holds on to: that of a failed handshake
// holds every certificate the host sent, and there are thousands of failures.
func forgetting(err *Error) *Error {
	if _, small := err.Err.(statusError); small || err.Err == nil { //nolint:errorlint // a wrapped one is not small
		return err
	}
	e := *err
	text := err.Err.Error()
	short := errors.New(strings.Clone(text[:min(len(text), maxCause)]))
	if cause, ok := errors.AsType[*safehttp.Error](err.Err); ok {
		e.Err = &safehttp.Error{Kind: cause.Kind, Err: short}
	} else {
		e.Err = short
	}
	return &e
}

func timedOut(err *Error) bool {
	cause, ok := errors.AsType[*safehttp.Error](err)
	return ok && cause.Kind == safehttp.KindTimeout
}

// answered records that the host is there: it sent a response, good or bad.
func (b *backoff) answered(t target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hosts.drop(t.host())
}

// succeeded forgets the failures of a URL.
func (b *backoff) succeeded(t target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.urls.drop(t.digest())
}

// blocked returns the refusal while t must not be fetched, or nil. It repeats the
// rule and the hint of the failure it stands for and wraps it. A time limit may be
// the fault of one slow path that a stranger found: it does not hold up a client
// that has been good before.
func (b *backoff) blocked(t target, now time.Time, good bool) *Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.urls.peek(t.digest())
	h := b.hosts.peek(t.host())
	if h != nil && !(good && timedOut(h.last)) && (f == nil || h.until.After(f.until)) {
		f = h
	}
	if f == nil || !f.until.After(now) || f.at.After(now.Add(backoffMax)) {
		return nil // it is over; or the clock was set back, and nobody knows
	}
	wait := f.until.Sub(now)
	return &Error{Kind: KindBackoff, Rule: f.last.Rule, RetryAfter: wait, Err: f.last,
		Hint: f.last.Hint + "; the next attempt is possible in " + seconds(wait)}
}

// probe is called when a fetch of t starts. If the host failed before, the others
// who want something from it wait for the outcome, at most for d.
func (b *backoff) probe(t target, now time.Time, d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.hosts.peek(t.host()); h != nil {
		h.until = now.Add(d)
	}
}

// failedSince reports whether the host of t failed after a fetch of t was asked
// for, while it waited for its turn.
func (b *backoff) failedSince(t target, asked time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.hosts.peek(t.host())
	return h != nil && h.at.After(asked)
}

// state returns the failures of t, by its URL or else by its host.
func (b *backoff) state(t target) (failure, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.urls.peek(t.digest()); f != nil {
		return *f, true
	}
	if f := b.hosts.peek(t.host()); f != nil {
		return *f, true
	}
	return failure{}, false
}

// bounded is a map that forgets what was used longest ago.
type bounded[V any] struct {
	max   int
	elems map[string]*list.Element
	order *list.List // newest in front
}

type pair[V any] struct {
	name  string
	value V
}

func newBounded[V any](max int) bounded[V] {
	return bounded[V]{max: max, elems: make(map[string]*list.Element), order: list.New()}
}

// at returns the value of a name, which is new and zero if there was none.
func (b *bounded[V]) at(name string) *V {
	el := b.elems[name]
	if el == nil {
		name = strings.Clone(name) // it may be a small part of something large
		for b.order.Len() >= b.max {
			oldest := b.order.Back()
			delete(b.elems, b.order.Remove(oldest).(*pair[V]).name)
		}
		el = b.order.PushFront(&pair[V]{name: name})
		b.elems[name] = el
	} else {
		b.order.MoveToFront(el)
	}
	return &el.Value.(*pair[V]).value
}

func (b *bounded[V]) peek(name string) *V {
	if el := b.elems[name]; el != nil {
		return &el.Value.(*pair[V]).value
	}
	return nil
}

func (b *bounded[V]) drop(name string) {
	if el := b.elems[name]; el != nil {
		b.order.Remove(el)
		delete(b.elems, name)
	}
}
