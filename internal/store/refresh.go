package store

import (
	"context"
	"errors"
	"time"
)

// A grant notes its last use at most this often: the note is for people.
const lastUsedGrain = 5 * time.Minute

// FindRefresh returns a refresh token and its grant in one indexed read. A token
// that was used is returned without an error and with Used set: the caller
// decides between the grace of a lost answer and reuse (TOK-11, TOK-12). With
// ErrEnded (the grant has ended or its user is disabled), ErrBlocked (the client
// is not allowed) and ErrExpired both are returned too.
func (s *Store) FindRefresh(ctx context.Context, h Hash, now time.Time) (Refresh, Grant, error) {
	r := Refresh{Hash: h}
	var g Grant
	var st standing
	err := s.get(ctx, append([]any{&r.GrantID, &r.Generation, scopesAt(&r.Scopes), instant{&r.Expires}, instant{&r.Absolute},
		instant{&r.UsedAt}, &r.Successor, &r.Grace, &r.SuccessorUsed, &st}, g.columns()...),
		`SELECT r.grant_id, r.generation, r.scopes, r.expires_at, r.absolute_at, r.used_at, r.successor, r.grace,
			EXISTS (SELECT 1 FROM refresh_tokens n WHERE n.hash = r.successor AND n.used_at IS NOT NULL), `+standingColumns+`, `+grantColumns+`
		FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id WHERE r.hash = $1`, h)
	if err != nil {
		return Refresh{}, Grant{}, wrap("find refresh token", err)
	}
	r.Used = !r.UsedAt.IsZero()
	if r.Scopes == nil {
		r.Scopes = g.Scopes
	}
	if err := st.err(); err != nil {
		return r, g, wrap("find refresh token", err)
	}
	if !now.Before(r.Expires) {
		return r, g, wrap("find refresh token", ErrExpired)
	}
	return r, g, nil
}

// RotateRefresh spends a refresh token, writes its successor and records the
// events, in one commit. It succeeds at most once per token; the second call
// returns ErrSpent. ErrExpired, ErrEnded and ErrBlocked as for FindRefresh,
// decided in the same commit (TOK-16). The family's absolute expiry never moves
// back: the earlier of the old and the new one counts. Whenever RotateRefresh
// fails, the old token is as it was (RF-09).
func (s *Store) RotateRefresh(ctx context.Context, r Rotation, now time.Time) error {
	if r.Old == r.New.Hash {
		return errors.New("rotate refresh token: the successor is a new token")
	}
	return wrap("rotate refresh token", s.write(ctx, func(t *tx) error {
		var grantID string
		var generation int
		var absolute, lastUsed time.Time
		err := t.get([]any{&grantID, &generation, instant{&absolute}, instant{&lastUsed}},
			`UPDATE refresh_tokens SET used_at = $2, successor = $3, grace = $4
			WHERE hash = $1 AND used_at IS NULL AND expires_at > $2
			AND EXISTS (SELECT 1 FROM grants g WHERE g.id = refresh_tokens.grant_id AND `+standingHolds+`)
			RETURNING grant_id, generation, absolute_at, (SELECT g.last_used_at FROM grants g WHERE g.id = refresh_tokens.grant_id)`,
			r.Old, micros(now), r.New.Hash, r.Grace)
		if errors.Is(err, ErrNotFound) {
			return t.whyNotRefresh(r.Old, now)
		}
		if err != nil {
			return err
		}
		next := r.New
		if next.Absolute.IsZero() || absolute.Before(next.Absolute) {
			next.Absolute = absolute
		}
		if err := t.insertRefresh(next, grantID, generation+1); err != nil {
			return err
		}
		if now.Sub(lastUsed) >= lastUsedGrain {
			if _, err := t.exec(`UPDATE grants SET last_used_at = $2 WHERE id = $1`, grantID, micros(now)); err != nil {
				return err
			}
		}
		return t.record(now, r.Events...)
	}))
}

// insertRefresh writes a refresh token. It never outlives its family.
func (t *tx) insertRefresh(r NewRefresh, grantID string, generation int) error {
	lists, err := join(r.Scopes)
	if err != nil {
		return err
	}
	if r.Expires.IsZero() || r.Absolute.Before(r.Expires) {
		r.Expires = r.Absolute
	}
	_, err = t.exec(`INSERT INTO refresh_tokens (hash, grant_id, generation, scopes, expires_at, absolute_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		r.Hash, grantID, generation, lists[0], micros(r.Expires), micros(r.Absolute))
	return err
}

// whyNotRefresh tells why a refresh token could not be spent.
func (t *tx) whyNotRefresh(h Hash, now time.Time) error {
	var used bool
	var expires time.Time
	var grantID string
	if err := t.get([]any{&used, instant{&expires}, &grantID},
		`SELECT used_at IS NOT NULL, expires_at, grant_id FROM refresh_tokens WHERE hash = $1`, h); err != nil {
		return err
	}
	switch {
	case used:
		return ErrSpent
	case !now.Before(expires):
		return ErrExpired
	}
	return t.whyNotGrant(grantID)
}
