package cimd

import (
	"context"
	"encoding/json"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/planted"
)

// keysCoolDown is the least time between two fetches of one jwks_uri, whatever
// key IDs strangers make up (JK-09).
const keysCoolDown = 30 * time.Second

func keysTarget(doc *Document) target { return target{kind: kindJWKS, url: doc.JWKSURI, id: doc.ID} }

// Keys returns the public keys of a client as a JWK set: those inside the
// document, or those at its jwks_uri. The set is not empty because of a failure:
// while the host fails, the last good set is used as long as a document would be.
// A kid that a fetched set does not have makes the resolver ask the host again, at
// most once in 30 seconds; the caller looks into the set it gets, where the kid
// may still be missing. An error is always a *Error.
func (r *Resolver) Keys(ctx context.Context, doc *Document, kid string) (json.RawMessage, error) {
	t := keysTarget(doc)
	if err := r.admit(ctx, t); err != nil {
		return nil, err
	}
	switch {
	case len(doc.JWKS) > 0:
		return doc.JWKS, nil
	case doc.JWKSURI == "":
		return nil, &Error{Kind: KindDocument, Rule: "DOC-19", Hint: "the document names no keys: it has neither jwks nor jwks_uri"}
	case doc.JWKSURI == doc.ID.String():
		return nil, &Error{Kind: KindDocument, Rule: "DOC-27", Hint: "jwks_uri must not be the client_id itself"}
	}
	served := func(e *entry, now time.Time) bool { return e.serves(kid, now) }
	if e := r.keys.get(t.key()); e != nil && served(e, r.cfg.Now()) {
		return e.keys.json, nil
	}
	e, err := r.obtain(ctx, t, wish{served: served})
	if err == nil {
		return e.keys.json, nil
	}
	if old := r.standIn(ctx, t, err); old != nil {
		return old.keys.json, nil
	}
	return nil, err
}

// serves reports whether a key set answers a question for kid without a fetch.
// Within the cool-down after the last attempt it always does, if it may be used.
func (e *entry) serves(kid string, now time.Time) bool {
	if !e.usable(now) {
		return false
	}
	since := now.Sub(e.attempted) // negative if the clock was set back
	return kid == "" || e.keys.kids[kid] || since < keysCoolDown && since > -maxClockStep && !planted.Weak("cooldown")
}

// parseKeys reads a fetched key set, without the keys that cannot be used.
func parseKeys(body []byte, limit int) (*fetchedKeys, *Error) {
	set, err := jose.ParseRemoteSet(body, jose.SetLimits{MaxBytes: limit})
	if err != nil {
		return nil, &Error{Kind: KindDocument, Rule: "DOC-19", Hint: "the key set (jwks_uri) is not a valid JWK set", Err: err}
	}
	raw, err := jose.MarshalSet(set.Keys...)
	if err != nil {
		return nil, &Error{Kind: KindDocument, Rule: "DOC-19", Hint: "the key set (jwks_uri) is not a valid JWK set", Err: err}
	}
	ks := &fetchedKeys{json: raw, kids: make(map[string]bool, len(set.Keys))}
	for _, k := range set.Keys {
		ks.kids[k.KID()] = true
	}
	return ks, nil
}
