package cimd

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// The types of [Event].
const (
	EventFetch       = "fetch"       // a new representation was fetched and is good
	EventRevalidated = "revalidated" // the host confirmed with 304 what is kept
	EventRefused     = "refused"     // a client was refused, with or without a fetch; see Kind and Rule
	EventChanged     = "changed"     // a good document differs from the one before; see Members
	EventWithdrawn   = "withdrawn"   // a good copy was put out of use: 404, 410, mismatch, invalid
	EventStale       = "stale"       // a fetch failed and the last known good copy is used for now; Kind and Rule say why
	EventStore       = "store"       // the Persister failed, or an entry of it was damaged
)

// Event is something that happened to a client's document, key set or logo.
type Event struct {
	Type      string // one of the Event constants
	ID        ID     // the client
	URL       string // what was fetched: the client_id, its jwks_uri or its logo_uri
	Source    string // who caused it, as named with WithSource
	Kind      Kind   // of a refusal
	Rule      string // of a refusal
	Status    int    // the HTTP status; 0 if there was no response
	Duration  time.Duration
	Freshness Freshness
	Err       error // the failure with its private cause; for logs only

	// Of a change: the names of the top-level members that were added, removed or
	// given another value, and the digests of the whole document.
	Members              []string
	OldDigest, NewDigest string
}

func (r *Resolver) observe(ctx context.Context, ev Event) {
	if r.cfg.Observe == nil {
		return
	}
	if ev.Source == "" {
		ev.Source = sourceOf(ctx)
	}
	r.cfg.Observe(ctx, ev)
}

func (r *Resolver) refused(ctx context.Context, t target, err *Error) *Error {
	r.observe(ctx, Event{Type: EventRefused, ID: t.id, URL: t.url, Kind: err.Kind, Rule: err.Rule, Err: err})
	return err
}

const maxChangedMembers = 64

// changedMembers names the top-level members in which two documents differ, in
// order. Both documents are valid, so that a failure to read one cannot happen
// and would only leave names out.
func changedMembers(before, after []byte) []string {
	var a, b map[string]json.RawMessage
	if json.Unmarshal(before, &a) != nil || json.Unmarshal(after, &b) != nil {
		return nil
	}
	names := maps.Clone(a)
	maps.Copy(names, b)
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		x, inA := a[name]
		y, inB := b[name]
		if inA != inB || !bytes.Equal(compact(x), compact(y)) {
			changed = append(changed, name[:min(len(name), 64)])
		}
	}
	return changed[:min(len(changed), maxChangedMembers)]
}

func compact(v json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, v) != nil {
		return v
	}
	return b.Bytes()
}
