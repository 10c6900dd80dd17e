package directory

import (
	"context"

	"github.com/bonafide-id/bonafide/cimd"
)

// Named reports whether an operator spoke for a client: by registering it, or by
// a rule of the policy that names it. Nothing is fetched. For what cannot be a
// client at all it is true, so that the caller refuses it as it refuses every
// client that is not known.
func (d *Directory) Named(ctx context.Context, clientID string) (bool, error) {
	row, known, err := d.row(ctx, clientID)
	if err != nil {
		return false, err
	}
	if known && row.Source == SourceRegistered || !known && !cimd.LooksLikeURL(clientID) {
		return true, nil
	}
	r := d.rules.Load()
	id, err := r.urls.Parse(clientID)
	if err != nil {
		return !known, nil //nolint:nilerr // what can be no client needs no rule
	}
	return r.policy.Decide(subject(id)).Explicit, nil
}
