package store

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"
)

// FindRefresh returns a refresh token and its grant in one indexed read. A token
// that was used is returned without an error and with Used set: the caller
// decides between the grace of a lost answer and reuse (TOK-11, TOK-12). With
// ErrEnded (the grant has ended or its user is disabled), ErrBlocked (the client
// is not allowed) and ErrExpired both are returned too.
func (s *Store) FindRefresh(ctx context.Context, h Hash, now time.Time) (Refresh, Grant, error) {
	r := Refresh{Hash: h}
	var g grantRow
	var issued time.Time
	err := s.get(ctx, append([]any{instant{&issued}, &r.Generation, scopesAt(&r.Scopes), instant{&r.Expires}, instant{&r.Absolute},
		instant{&r.UsedAt}, &r.Successor, &r.Grace, &r.SuccessorUsed}, g.columns()...),
		`SELECT r.created_at, r.generation, r.scopes, r.expires_at, r.absolute_at, n.created_at, n.hash, n.grace,
			n.hash IS NOT NULL AND EXISTS (SELECT 1 FROM refresh_tokens m WHERE m.grant_id = r.grant_id AND m.generation = r.generation + 2),
			`+grantColumns+`
		FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id
		LEFT JOIN refresh_tokens n ON n.grant_id = r.grant_id AND n.generation = r.generation + 1
		WHERE r.hash = $1`, h)
	if err != nil {
		return Refresh{}, Grant{}, wrap("find refresh token", err)
	}
	r.GrantID = g.ID
	s.places.put(&place{hash: h, grantID: g.ID, generation: r.Generation, expires: r.Expires, absolute: r.Absolute})
	g.LastUsed = r.UsedAt // its newest token but for a race
	if r.Used = !r.UsedAt.IsZero(); !r.Used {
		g.LastUsed = issued
	}
	if r.Scopes == nil {
		r.Scopes = g.Scopes
	}
	if err := g.err(); err != nil {
		return r, g.Grant, wrap("find refresh token", err)
	}
	if !now.Before(r.Expires) {
		return r, g.Grant, wrap("find refresh token", ErrExpired)
	}
	return r, g.Grant, nil
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
	old, err := s.place(ctx, r.Old)
	if err != nil {
		return wrap("rotate refresh token", err)
	}
	absolute := old.absolute
	if !r.New.Absolute.IsZero() && r.New.Absolute.Before(absolute) {
		absolute = r.New.Absolute
	}
	expires := NewRefresh{Expires: r.New.Expires, Absolute: absolute}.expiry()
	return wrap("rotate refresh token", s.write(ctx, func(t *tx) error {
		if !now.Before(old.expires) {
			return t.whyNotRefresh(old, now)
		}
		n, err := t.exec(rotate, old.grantID, old.generation+1, r.New.Hash, lists[0], micros(now), micros(expires), micros(absolute), r.Grace)
		if err != nil {
			return err
		}
		if n == 0 {
			return t.whyNotRefresh(old, now)
		}
		return t.record(now, r.Events...)
	}))
}

// rotate writes the next generation of a family whose grant stands. The conflict
// on the generation is what makes each token good for one rotation.
const rotate = `INSERT INTO refresh_tokens (grant_id, generation, hash, scopes, created_at, expires_at, absolute_at, grace)
	SELECT g.id, $2, $3, $4, $5, $6, $7, $8 FROM grants g WHERE g.id = $1 AND ` + standing + `
	ON CONFLICT (grant_id, generation) DO NOTHING`

// place is where a refresh token stands in its family. It never changes as long
// as the token is known, so that it can be remembered without ever being wrong.
type place struct {
	hash              Hash
	grantID           string
	generation        int
	expires, absolute time.Time
}

// places remembers the tokens that were found last. Each has one slot, and who
// comes later takes it.
type places [1024]atomic.Pointer[place]

func (p *places) slot(h Hash) *atomic.Pointer[place] {
	return &p[binary.BigEndian.Uint16(h[:])%uint16(len(p))]
}

func (p *places) put(at *place) { p.slot(at.hash).Store(at) }

// place returns where a token stands, from memory if it was just found.
func (s *Store) place(ctx context.Context, h Hash) (*place, error) {
	if at := s.places.slot(h).Load(); at != nil && at.hash == h {
		return at, nil
	}
	at := &place{hash: h}
	err := s.get(ctx, []any{&at.grantID, &at.generation, instant{&at.expires}, instant{&at.absolute}},
		`SELECT grant_id, generation, expires_at, absolute_at FROM refresh_tokens WHERE hash = $1`, h)
	return at, err
}

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
func (t *tx) whyNotRefresh(old *place, now time.Time) error {
	var used bool
	if err := t.get([]any{&used}, `SELECT EXISTS (SELECT 1 FROM refresh_tokens WHERE grant_id = $1 AND generation = $2)`,
		old.grantID, old.generation+1); err != nil {
		return err
	}
	switch {
	case used:
		return ErrSpent
	case !now.Before(old.expires):
		return ErrExpired
	}
	return t.whyNotGrant(old.grantID)
}
