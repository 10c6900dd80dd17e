package store

import (
	"context"
	"fmt"
	"time"
)

// How long rows stay after they have lost their use.
const (
	// ReplayWindow keeps spent codes past their expiry, so that a replay is still
	// told apart from noise.
	ReplayWindow = 24 * time.Hour
	// FamilyHistory keeps refresh tokens past their expiry: for so long others of
	// their family may live on, and one that comes back ends them (TOK-11).
	FamilyHistory = 90 * 24 * time.Hour
	// ClockMargin keeps single-use marks past their expiry, so that a clock
	// which is a little late cannot accept one twice.
	ClockMargin = 5 * time.Minute
	// GrantHistory keeps ended grants and consents for those who ask what was.
	GrantHistory = 90 * 24 * time.Hour
	// CacheLife keeps entries of the document cache that nobody saved again.
	CacheLife = 30 * 24 * time.Hour
)

// pruneStep is how many rows one step takes. Other changes run between the
// steps.
const pruneStep = 500

// prunings are the statements of Prune, each with how old a row must be.
var prunings = []struct {
	keep  time.Duration
	query string
}{
	// A rotation does not move its grant in the index: those in use are moved on first.
	{ReplayWindow, `UPDATE grants SET expires_at = head_expires_at WHERE id IN
		(SELECT id FROM grants WHERE ended_at IS NULL AND expires_at < $1 AND head_expires_at >= $1 ORDER BY expires_at LIMIT $2)`},
	{ReplayWindow, `UPDATE grants SET ended_at = $1, end_reason = 'expired' WHERE id IN
		(SELECT id FROM grants WHERE ended_at IS NULL AND expires_at < $1 AND head_expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{GrantHistory, `DELETE FROM grants WHERE id IN
		(SELECT id FROM grants WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2)`},
	{GrantHistory, `DELETE FROM consents WHERE (user_id, client_id, resource) IN
		(SELECT user_id, client_id, resource FROM consents WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2)`},
	{ReplayWindow, `DELETE FROM codes WHERE hash IN (SELECT hash FROM codes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{FamilyHistory, `DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ReplayWindow, `DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ClockMargin, `DELETE FROM consent_nonces WHERE hash IN (SELECT hash FROM consent_nonces WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ClockMargin, `DELETE FROM spent_ids WHERE hash IN (SELECT hash FROM spent_ids WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ClockMargin, `DELETE FROM denied_tokens WHERE jti IN (SELECT jti FROM denied_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{CacheLife, `DELETE FROM cache WHERE key IN (SELECT key FROM cache WHERE saved_at < $1 ORDER BY saved_at LIMIT $2)`},
}

// Prune ends grants that ran out and removes what has lost its use, in short
// steps that let other changes through (DS-13). It returns how many rows it
// touched and stops early when ctx ends. The audit is never pruned here.
func (s *Store) Prune(ctx context.Context, now time.Time) (n int, err error) {
	for _, p := range prunings {
		for {
			var touched int64
			err := s.write(ctx, func(t *tx) (err error) {
				touched, err = t.exec(p.query, micros(now.Add(-p.keep)), pruneStep)
				return err
			})
			if err != nil {
				return n, fmt.Errorf("prune: %w", err)
			}
			n += int(touched)
			if touched < pruneStep {
				break
			}
		}
	}
	return n, nil
}
