package cimd

import (
	"context"
	"net/http"
	"time"
)

// Status is what an administrator can know about a client's document (CACHE-22).
type Status struct {
	// Document is the last good one, also when it expired or was withdrawn; nil if
	// there has been none since the start and the Persister has none.
	Document  *Document
	Usable    bool  // Resolve would return Document without asking the host
	Withdrawn error // why the document is out of use: an *Error, or nil
	Pinned    bool

	Freshness  Freshness   // the effective lifetime and its reason
	Header     http.Header // what the host said about caching, in its newest response
	LastFetch  time.Time   // when the host was last asked; zero if never
	LastChange time.Time   // when the document last became different
	NextCheck  time.Time   // from when on the next use asks the host; zero if now

	Failures     int       // fetches in a row that failed
	LastError    error     // the newest failure: an *Error, or nil
	BackoffUntil time.Time // until when uses do not ask the host after a failure; zero if they do
}

// Status reports what is known about a client, and whether anything is. It asks
// the Persister if memory holds nothing, never the host, and does not count as a
// use.
func (r *Resolver) Status(id ID) (Status, bool) {
	t := documentTarget(id)
	e := r.docs.peek(t.key())
	if e == nil && !id.IsZero() {
		e = r.restore(context.Background(), t)
	}
	now := r.cfg.Now()
	st := Status{Pinned: r.isPinned(id)}
	f, failed := r.backoff.state(t)
	if e == nil && !failed {
		return st, st.Pinned
	}
	if failed {
		st.Failures, st.LastError, st.LastFetch = f.count, f.last, f.at
		if f.until.After(now) {
			st.BackoffUntil, st.NextCheck = f.until, f.until
		}
	}
	if e == nil {
		return st, true
	}
	st.Document, st.Usable = e.doc, e.usable(now)
	st.Freshness, st.Header, st.LastChange = e.fresh, e.header.Clone(), e.changed
	if e.withdrawn != nil {
		st.Withdrawn = e.withdrawn
	}
	if e.received.After(st.LastFetch) {
		st.LastFetch = e.received
	}
	if st.Usable {
		st.NextCheck = e.fresh.Expires
	}
	return st, true
}
