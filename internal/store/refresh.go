package store

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"
)

// FindRefresh returns a refresh token and its grant in one indexed read. A token
// that was used is returned without an error and with Used set, also past its
// expiry: the caller decides between the grace of a lost answer and reuse, which
// ends a family that lives on (TOK-11, TOK-12). With
// ErrEnded (the grant has ended or its user is disabled), ErrBlocked (the client
// is not allowed) and ErrExpired both are returned too.
func (s *Store) FindRefresh(ctx context.Context, h Hash, now time.Time) (Refresh, Grant, error) {
	r := Refresh{Hash: h}
	var g grantRow
	var head int
	var headHash Hash
	var grace []byte
	err := s.get(ctx, append([]any{&r.Generation, scopesAt(&r.Scopes), instant{&r.Expires}, instant{&r.Absolute}, &head, &headHash, &grace}, g.columns()...),
		`SELECT r.generation, r.scopes, r.expires_at, r.absolute_at, g.head, g.head_hash, g.head_grace, `+grantColumns+`
		FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id WHERE r.hash = $1`, h)
	if err != nil {
		return Refresh{}, Grant{}, wrap("find refresh token", err)
	}
	r.GrantID = g.ID
	s.places.put(&place{hash: h, grantID: g.ID, generation: r.Generation, expires: r.Expires, absolute: r.Absolute})
	if r.Scopes == nil {
		r.Scopes = g.Scopes
	}
	if r.Used = r.Generation < head; r.Used {
		r.UsedAt = g.LastUsed // a rotation is the only use
		if r.SuccessorUsed = r.Generation+1 < head; !r.SuccessorUsed {
			r.Successor, r.Grace = headHash, grace
		}
	}
	if err := g.err(); err != nil {
		return r, g.Grant, wrap("find refresh token", err)
	}
	if !r.Used && !now.Before(r.Expires) {
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
	if _, err := join(r.New.Scopes); err != nil {
		return wrap("rotate refresh token", err)
	}
	old, err := s.place(ctx, r.Old)
	if err != nil {
		return wrap("rotate refresh token", err)
	}
	events, err := entries(now, r.Events...)
	if err != nil {
		return wrap("rotate refresh token", err)
	}
	next := r.New
	if next.Absolute.IsZero() || old.absolute.Before(next.Absolute) {
		next.Absolute = old.absolute
	}
	return wrap("rotate refresh token", s.write(ctx, func(t *tx) error {
		if !now.Before(old.expires) {
			return t.whyNotRefresh(old, now)
		}
		n, err := t.exec(rotate, old.grantID, old.generation, r.New.Hash, micros(now), micros(next.expiry()), r.Grace)
		if err != nil {
			return err
		}
		if n == 0 {
			return t.whyNotRefresh(old, now)
		}
		if err := t.insertRefresh(next, old.grantID, old.generation+1); err != nil {
			return err
		}
		return t.keep(events)
	}))
}

// rotate moves the head of a family whose grant stands from one generation to the
// next. It changes a row at most once for each generation.
const rotate = `UPDATE grants AS g SET head = g.head + 1, head_hash = $3, head_expires_at = $5, head_grace = $6, last_used_at = $4
	WHERE g.id = $1 AND g.head = $2 AND ` + standing

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

// insertRefresh writes a refresh token.
func (t *tx) insertRefresh(r NewRefresh, grantID string, generation int) error {
	lists, err := join(r.Scopes)
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO refresh_tokens (hash, grant_id, generation, scopes, expires_at, absolute_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		r.Hash, grantID, generation, lists[0], micros(r.expiry()), micros(r.Absolute))
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
	var head int
	if err := t.get([]any{&head}, `SELECT head FROM grants WHERE id = $1`, old.grantID); err != nil {
		return err
	}
	switch {
	case old.generation < head:
		return ErrSpent
	case !now.Before(old.expires):
		return ErrExpired
	}
	return t.whyNotGrant(old.grantID)
}
