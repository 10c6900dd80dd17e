package store

import (
	"context"
	"errors"
	"time"
)

// FindRefresh returns a refresh token and its grant in one indexed read. A token
// that was used is returned without an error and with Used set: the caller
// decides between the grace of a lost answer and reuse (TOK-11, TOK-12). With
// ErrEnded (the grant has ended or its user is disabled), ErrBlocked (the client
// is not allowed) and ErrExpired both are returned too.
func (s *Store) FindRefresh(ctx context.Context, h Hash, now time.Time) (Refresh, Grant, error) {
	r := Refresh{Hash: h}
	var g Grant
	var st standing
	var issued time.Time
	err := s.get(ctx, append([]any{instant{&issued}, &r.GrantID, &r.Generation, scopesAt(&r.Scopes), instant{&r.Expires}, instant{&r.Absolute},
		instant{&r.UsedAt}, &r.Successor, &r.Grace, &r.SuccessorUsed, &st}, g.columns()...),
		`SELECT r.created_at, r.grant_id, r.generation, r.scopes, r.expires_at, r.absolute_at, n.created_at, n.hash, n.grace,
			n.hash IS NOT NULL AND EXISTS (SELECT 1 FROM refresh_tokens m WHERE m.grant_id = r.grant_id AND m.generation = r.generation + 2),
			`+standingColumns+`, `+grantColumns+`
		FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id
		LEFT JOIN refresh_tokens n ON n.grant_id = r.grant_id AND n.generation = r.generation + 1
		WHERE r.hash = $1`, h)
	if err != nil {
		return Refresh{}, Grant{}, wrap("find refresh token", err)
	}
	g.LastUsed = r.UsedAt // its newest token but for a race
	if r.Used = !r.UsedAt.IsZero(); !r.Used {
		g.LastUsed = issued
	}
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
	lists, err := join(r.New.Scopes)
	if err != nil {
		return wrap("rotate refresh token", err)
	}
	return wrap("rotate refresh token", s.write(ctx, func(t *tx) error {
		n, err := t.exec(rotate, r.Old, r.New.Hash, lists[0], micros(now), micros(r.New.Expires), micros(r.New.Absolute), r.Grace)
		if err != nil {
			return err
		}
		if n == 0 {
			return t.whyNotRefresh(r.Old, now)
		}
		return t.record(now, r.Events...)
	}))
}

// rotate writes the next generation of a family if the newest is the token
// presented, that token has not expired and its grant stands. The conflict on
// the generation is what makes a token good for one rotation. The successor
// inherits the absolute expiry if that is earlier, and never outlives it.
const rotate = `INSERT INTO refresh_tokens (grant_id, generation, hash, scopes, created_at, expires_at, absolute_at, grace)
	SELECT o.grant_id, o.generation + 1, $2, $3, $4,
		CASE WHEN $5 = 0 OR $5 > o.absolute_at THEN o.absolute_at WHEN $6 > 0 AND $5 > $6 THEN $6 ELSE $5 END,
		CASE WHEN $6 = 0 OR $6 > o.absolute_at THEN o.absolute_at ELSE $6 END, $7
	FROM refresh_tokens o JOIN grants g ON g.id = o.grant_id
	WHERE o.hash = $1 AND o.expires_at > $4 AND ` + standingHolds + `
	ON CONFLICT (grant_id, generation) DO NOTHING`

// insertRefresh writes the first refresh token of a family.
func (t *tx) insertRefresh(r NewRefresh, grantID string, now time.Time) error {
	lists, err := join(r.Scopes)
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO refresh_tokens (grant_id, generation, hash, scopes, created_at, expires_at, absolute_at) VALUES ($1, 1, $2, $3, $4, $5, $6)`,
		grantID, r.Hash, lists[0], micros(now), micros(r.expiry()), micros(r.Absolute))
	return err
}

// expiry is the idle expiry, which is never later than the absolute one.
func (r NewRefresh) expiry() time.Time {
	if r.Expires.IsZero() || r.Absolute.Before(r.Expires) {
		return r.Absolute
	}
	return r.Expires
}

// whyNotRefresh tells why a refresh token could not be spent.
func (t *tx) whyNotRefresh(h Hash, now time.Time) error {
	var used bool
	var expires time.Time
	var grantID string
	if err := t.get([]any{&used, instant{&expires}, &grantID},
		`SELECT EXISTS (SELECT 1 FROM refresh_tokens n WHERE n.grant_id = r.grant_id AND n.generation = r.generation + 1), r.expires_at, r.grant_id
		FROM refresh_tokens r WHERE r.hash = $1`, h); err != nil {
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
