package cimd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/bonafide-id/bonafide/internal/planted"
)

// record is the stored form of an entry. Freshness is not stored but computed
// again, so that new limits hold for old entries.
type record struct {
	Version  int         `json:"v"`
	URL      string      `json:"url"`
	Body     []byte      `json:"body,omitempty"`
	Header   http.Header `json:"header,omitempty"`
	Sent     time.Time   `json:"sent"`
	Received time.Time   `json:"received"`
	Fetched  time.Time   `json:"fetched"`
	Changed  time.Time   `json:"changed"`
	// Withdrawn is set when the host withdrew the client; without a body the record
	// only says that nothing is kept.
	Withdrawn *withdrawal `json:"withdrawn,omitempty"`
}

type withdrawal struct {
	Kind Kind   `json:"kind"`
	Rule string `json:"rule"`
	Hint string `json:"hint"`
}

const recordVersion = 1

// save hands an entry to the Persister. A response that must not be stored, and
// any earlier one in its place, is replaced by an empty record (CACHE-07, FT-22).
func (r *Resolver) save(ctx context.Context, t target, e *entry) {
	if r.cfg.Persist == nil || t.kind == kindLogo {
		return
	}
	rec := record{Version: recordVersion, URL: t.url, Sent: e.sent, Received: e.received,
		Fetched: e.fetched, Changed: e.changed}
	if e.withdrawn != nil {
		rec.Withdrawn = &withdrawal{e.withdrawn.Kind, e.withdrawn.Rule, e.withdrawn.Hint}
	}
	if e.fresh.Store || planted.Weak("nostore") {
		rec.Body, rec.Header = e.body, e.header
	}
	raw, err := json.Marshal(rec)
	if err == nil {
		err = r.cfg.Persist.Save(ctx, t.String(), t.id, raw)
	}
	if err != nil {
		r.observe(ctx, Event{Type: EventStore, ID: t.id, URL: t.url, Err: fmt.Errorf("save entry: %w", err)})
	}
}

// restore returns the entry that the Persister has for t and puts it in memory,
// or nil. Callers share one load. A failure is reported and is no answer about
// the client: everything kept can be fetched again.
func (r *Resolver) restore(ctx context.Context, t target) *entry {
	if r.cfg.Persist == nil || t.kind == kindLogo {
		return nil
	}
	t = t.own()
	fl, e, _ := r.loads.join(t.key(), func() (*entry, *Error) {
		return r.cacheOf(t).peek(t.key()), nil
	}, func() (*entry, *Error) {
		ctx, cancel := r.detached(ctx, r.cfg.Limits.Timeout)
		defer cancel()
		e, err := r.loadSafely(ctx, t)
		if err != nil {
			r.observe(ctx, Event{Type: EventStore, ID: t.id, URL: t.url, Err: fmt.Errorf("load entry: %w", err)})
		}
		if e != nil {
			// What was fetched in the meantime is newer than what was stored.
			e = r.cacheOf(t).add(t.key(), e, r.isPinned(t.id))
		}
		return e, nil
	})
	if fl != nil {
		e, _ = fl.result(ctx)
	}
	return e
}

// loadSafely is load with a panic as an error: a stored entry must not be able to
// end the process at each start.
func (r *Resolver) loadSafely(ctx context.Context, t target) (e *entry, err error) {
	defer func() {
		if p := recover(); p != nil {
			e, err = nil, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return r.load(ctx, t)
}

func (r *Resolver) load(ctx context.Context, t target) (*entry, error) {
	if t.kind == kindDocument {
		if _, err := r.cfg.URL.Parse(t.url); err != nil {
			return nil, nil //nolint:nilerr // the rules were tightened since: what is kept counts as absent
		}
	}
	raw, ok, err := r.cfg.Persist.Load(ctx, t.String())
	if err != nil || !ok {
		return nil, err
	}
	var rec record
	if err := json.Unmarshal(raw, &rec); err != nil {
		return nil, err
	}
	if rec.Version != recordVersion || rec.URL != t.url {
		return nil, errors.New("the entry is of another version or for another URL")
	}
	if len(rec.Body) == 0 {
		return nil, nil
	}
	if rec.Received.After(r.cfg.Now().Add(maxClockStep)) {
		return nil, errors.New("the entry is from the future")
	}
	e := &entry{
		header: rec.Header, sent: rec.Sent, received: rec.Received, fetched: rec.Fetched, changed: rec.Changed,
		attempted: rec.Received, known: true,
		fresh: r.freshness(t, rec.Header, rec.Sent, rec.Received),
	}
	if w := rec.Withdrawn; w != nil {
		e.withdrawn = &Error{Kind: w.Kind, Rule: w.Rule, Hint: w.Hint}
	}
	if e.header == nil {
		e.header = http.Header{}
	}
	if err := r.fill(t, e, rec.Body); err != nil {
		return nil, err
	}
	return e, nil
}
