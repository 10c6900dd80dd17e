package cimd

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/safehttp"
)

// Resolver fetches the documents, key sets and logos of clients and remembers
// them. It is safe for concurrent use and starts no goroutine that outlives a
// fetch.
type Resolver struct {
	cfg     Config
	http    *safehttp.Fetcher
	docs    *cache
	keys    *cache
	logos   *cache
	backoff *backoff
	budget  *budget
	gate    *gate
	fetches flights
	loads   flights
	decode  chan struct{} // a place for each logo that is being decoded

	pinMu sync.RWMutex
	pins  map[string]struct{} // guarded by pinMu

	life context.Context // ends with Close
	end  context.CancelFunc
}

// New checks the configuration and returns a resolver.
func New(c Config) (*Resolver, error) {
	cfg, err := withDefaults(c)
	if err != nil {
		return nil, fmt.Errorf("configure resolver: %w", err)
	}
	rules := cfg.Egress.rules()
	rules.Now = cfg.Now
	fetcher, err := safehttp.New(rules)
	if err != nil {
		return nil, fmt.Errorf("configure resolver: %w", err)
	}
	mem := cfg.Limits.MemoryBytes
	r := &Resolver{
		cfg:     cfg,
		http:    fetcher,
		docs:    newCache(mem*5/8, cfg.Limits.MaxEntries),
		keys:    newCache(mem/4, cfg.Limits.MaxEntries),
		logos:   newCache(mem/8, cfg.Limits.MaxEntries),
		backoff: newBackoff(),
		budget:  newBudget(cfg.Budgets),
		gate:    newGate(cfg.Budgets),
		decode:  make(chan struct{}, 1), // an image may need much memory while it is decoded
		pins:    make(map[string]struct{}),
	}
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

// Close ends the fetches that are under way and waits for them. Later calls that
// need a fetch fail.
func (r *Resolver) Close() error {
	r.end()
	r.fetches.close()
	r.loads.close()
	return nil
}

// Resolve returns the document behind id. It is at most as old as its cache
// headers and the limits allow; one that is older, because its host cannot be
// reached, is marked Stale. The document is shared and must not be changed. An
// error is always a *Error.
//
// Any number of callers share one fetch, and a caller that goes away neither ends
// nor spoils it for the others. The answer from memory does not allocate.
func (r *Resolver) Resolve(ctx context.Context, id ID) (*Document, error) {
	t := documentTarget(id)
	if err := r.admit(ctx, t); err != nil {
		return nil, err
	}
	if e := r.docs.get(t.key()); e != nil && e.usable(r.cfg.Now()) {
		return e.doc, nil
	}
	return r.resolve(ctx, t)
}

// resolve is Resolve without an answer in memory.
func (r *Resolver) resolve(ctx context.Context, t target) (*Document, error) {
	if _, err := r.cfg.URL.Parse(t.url); err != nil {
		return nil, err
	}
	e, err := r.obtain(ctx, t, wish{served: (*entry).usable})
	if err == nil {
		return e.doc, nil
	}
	if old := r.standIn(ctx, t, err); old != nil {
		return old.stale(), nil
	}
	return nil, err
}

// Cached returns the document if it is fresh in memory or with the Persister. It
// never fetches, and so may be asked for a client whose user has no session yet
// (FETCH-20).
func (r *Resolver) Cached(ctx context.Context, id ID) (*Document, bool) {
	t := documentTarget(id)
	if r.admit(ctx, t) != nil {
		return nil, false
	}
	e := r.docs.get(t.key())
	if e == nil {
		e = r.restore(ctx, t)
	}
	if e == nil || !e.usable(r.cfg.Now()) {
		return nil, false
	}
	return e.doc, true
}

// Refresh asks the host now, whatever the cache and the back-off say, and returns
// the document it confirms. It is for administrators and draws on no budget. If
// the host cannot be reached the error says so, and what was kept stays in use as
// before.
func (r *Resolver) Refresh(ctx context.Context, id ID) (*Document, error) {
	t := documentTarget(id)
	if err := r.admit(ctx, t); err != nil {
		return nil, err
	}
	if _, err := r.cfg.URL.Parse(t.url); err != nil {
		return nil, err
	}
	e, err := r.obtain(ctx, t, wish{privileged: true})
	if err != nil {
		return nil, err
	}
	return e.doc, nil
}

// Revalidate asks the hosts of those clients whose documents have expired, a few
// at a time, and returns how many documents are good now. It is meant to be called
// from time to time with the clients that have live grants (FETCH-24): it draws on
// no budget, but respects Admit and the back-off. It returns early when ctx ends.
func (r *Resolver) Revalidate(ctx context.Context, ids []ID) int {
	work := make(chan ID)
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for range min(4, len(ids)) {
		wg.Go(func() {
			for id := range work {
				if r.revalidate(ctx, id) {
					mu.Lock()
					good++
					mu.Unlock()
				}
			}
		})
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		work <- id
	}
	close(work)
	wg.Wait()
	return good
}

func (r *Resolver) revalidate(ctx context.Context, id ID) bool {
	t := documentTarget(id)
	if ctx.Err() != nil || r.admit(ctx, t) != nil {
		return false
	}
	if _, err := r.cfg.URL.Parse(t.url); err != nil {
		return false
	}
	_, err := r.obtain(ctx, t, wish{served: (*entry).usable, exempt: true})
	return err == nil
}

// Pin protects the entries of a client, its document and its keys, against being
// pushed out by others and exempts it from the budgets: for clients with live
// grants and those that an operator listed. Pinning hands what is in memory to the
// Persister again, which may want it now. The set of pins belongs to the caller
// and is not bounded.
func (r *Resolver) Pin(id ID, on bool) {
	if id.IsZero() {
		return
	}
	t := documentTarget(id).own()
	r.pinMu.Lock()
	_, was := r.pins[t.url]
	if on {
		r.pins[t.url] = struct{}{}
	} else {
		delete(r.pins, t.url)
	}
	r.pinMu.Unlock()
	r.docs.pin(t.key(), on)
	e := r.docs.peek(t.key())
	if !on && e != nil {
		r.keys.pin(keysTarget(e.doc).key(), false)
	}
	if !on || was || e == nil {
		return
	}
	ctx, cancel := context.WithTimeout(r.life, r.cfg.Limits.Timeout)
	defer cancel()
	r.save(ctx, t, e)
	if k := keysTarget(e.doc); k.url != "" {
		r.keys.pin(k.key(), true)
		if e := r.keys.peek(k.key()); e != nil {
			r.save(ctx, k, e)
		}
	}
}

// keep puts an entry in memory. A key set that two clients share stays pinned when
// it was fetched for the one that is not.
func (r *Resolver) keep(t target, e *entry) {
	shared := t.kind == kindJWKS && r.keys.pinned(t.key())
	r.cacheOf(t).put(t.key(), e, shared || r.isPinned(t.id))
}

func (r *Resolver) isPinned(id ID) bool {
	r.pinMu.RLock()
	defer r.pinMu.RUnlock()
	_, ok := r.pins[id.raw]
	return ok
}

// admit is the door: the kill switch and the policy, before any lookup.
func (r *Resolver) admit(ctx context.Context, t target) error {
	if t.id.IsZero() {
		return &Error{Kind: KindURL, Rule: "URL-01", Hint: "there is no client_id"}
	}
	if r.cfg.Disabled != nil && r.cfg.Disabled() {
		return r.refused(ctx, t, &Error{Kind: KindDisabled, Rule: "FETCH-01",
			Hint: "this server does not accept client ID metadata documents at the moment"})
	}
	if r.cfg.Admit == nil {
		return nil
	}
	err := r.cfg.Admit(ctx, t.id)
	if err == nil {
		return nil
	}
	refusal, ok := errors.AsType[*Error](err)
	if !ok {
		refusal = &Error{Kind: KindRefused, Rule: "POL-01", Err: err,
			Hint: "the policy of this server does not accept this client"}
	}
	return r.refused(ctx, t, refusal)
}

// wish says what a caller of obtain would be content with.
type wish struct {
	// served reports whether an entry is good enough; nil: only a new answer is.
	served     func(*entry, time.Time) bool
	exempt     bool // draws on no budget
	privileged bool // nor waits for the back-off
}

// obtain returns the entry of t, from memory, from the Persister, or from its
// host. The order is: what is kept, the back-off, the budgets of this caller, and
// then one fetch that all callers share.
func (r *Resolver) obtain(ctx context.Context, t target, w wish) (*entry, *Error) {
	t = t.own()
	prev := r.cacheOf(t).peek(t.key())
	if prev == nil {
		prev = r.restore(ctx, t)
	}
	known := w.exempt || w.privileged || r.known(t, prev)
	good := known || prev != nil && prev.withdrawn == nil
	fl, e, err := r.fetches.join(t.key(), func() (*entry, *Error) {
		now := r.cfg.Now()
		if e := r.cacheOf(t).peek(t.key()); e != nil && w.served != nil && w.served(e, now) {
			return e, nil
		}
		if !w.privileged {
			if err := r.backoff.blocked(t, now, good); err != nil {
				return nil, err
			}
		}
		if !known {
			if err := r.budget.take(sourceOf(ctx), t.site(), now); err != nil {
				return nil, err
			}
		}
		r.backoff.probe(t, now, r.cfg.Limits.Timeout)
		return nil, nil
	}, func() (*entry, *Error) {
		return r.guarded(ctx, t, known)
	})
	if fl != nil {
		return fl.result(ctx)
	}
	return e, err
}

// known reports whether somebody agreed to the client of t: it is pinned, or its
// document or what is asked for was with the Persister.
func (r *Resolver) known(t target, prev *entry) bool {
	if r.isPinned(t.id) || prev != nil && prev.known {
		return true
	}
	doc := r.docs.peek(documentTarget(t.id).key())
	return doc != nil && doc.known
}

// guarded is a fetch on a context of its own: the caller that happens to start it
// cannot end it. A panic over hostile input becomes a failure of that input.
func (r *Resolver) guarded(ctx context.Context, t target, known bool) (e *entry, err *Error) {
	defer func() {
		if p := recover(); p != nil {
			e, err = nil, &Error{Kind: KindDocument, Rule: "FETCH-22", Hint: "the document could not be read",
				Err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
			r.backoff.failed(t, err, r.cfg.Now())
			_ = r.refused(ctx, t, err) // err itself is returned
		}
	}()
	ctx, cancel := r.detached(ctx, 2*r.cfg.Limits.Timeout)
	defer cancel()
	return r.fetch(ctx, t, known)
}

// detached returns a context that keeps the values of ctx, such as the source,
// but neither its end nor its deadline.
func (r *Resolver) detached(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d)
	stop := context.AfterFunc(r.life, cancel)
	return ctx, func() { stop(); cancel() }
}

func (r *Resolver) cacheOf(t target) *cache {
	switch t.kind {
	case kindJWKS:
		return r.keys
	case kindLogo:
		return r.logos
	}
	return r.docs
}

// standIn returns the kept entry if it may be used in place of err. If not, the
// observer hears of a refusal that it has not heard of from a fetch.
func (r *Resolver) standIn(ctx context.Context, t target, err *Error) *entry {
	if e := r.cacheOf(t).peek(t.key()); e != nil && r.standsIn(t, e, err) {
		return e
	}
	if err.Kind == KindBackoff || err.Kind == KindBusy {
		_ = r.refused(ctx, t, err) // the caller returns err itself
	}
	return nil
}

// standsIn is the rule: only against failures that say nothing about the client,
// and for a limited time. A key set also outlives an answer that is no key set,
// because an error must never leave a client without its keys (JK-12).
func (r *Resolver) standsIn(t target, e *entry, err *Error) bool {
	now := r.cfg.Now()
	if !soft(err) && (t.kind != kindJWKS || err.Kind == KindGone) {
		return false
	}
	return e.usable(now) || e.lastKnownGood(now, r.cfg.Limits.LastKnownGood)
}

// stale returns a copy of the document that says what it is.
func (e *entry) stale() *Document {
	d := *e.doc
	d.Stale = true
	return &d
}
