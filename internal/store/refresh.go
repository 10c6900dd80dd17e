package store

import (
	"context"
	"errors"
	"math"
	"time"
)

// FindRefresh returns a refresh token and its grant in one indexed read. A token
// that was used is returned without an error and with Used set, also past its
// expiry: the caller decides between the grace of a lost answer and reuse, which
// ends a family that lives on (TOK-11, TOK-12). Whether it is the very token that
// was used only its seal tells, and for its forerunners nothing does but that
// whoever made it held a token of the family. With ErrEnded (the grant has ended
// or its user is disabled), ErrBlocked (the client is not allowed) and ErrExpired
// both are returned too.
func (s *Store) FindRefresh(ctx context.Context, ref RefreshRef, now time.Time) (Refresh, Grant, error) {
	silent := ref.GrantID == ""
	if silent { // until migration 0007 each token had a row of its own
		if err := s.get(ctx, []any{&ref.GrantID, &ref.Generation}, `SELECT grant_id, generation FROM refresh_tokens WHERE hash = $1`, ref.Hash); err != nil {
			return Refresh{}, Grant{}, wrap("find refresh token", err)
		}
	}
	r := Refresh{RefreshRef: ref}
	var g grantRow
	var head int
	var headHash Hash
	var grace []byte
	err := s.get(ctx, append([]any{&head, &headHash, &r.Family, instant{&r.Expires}, instant{&r.Absolute}, &grace, &r.KeySince, &r.InstanceSince}, g.columns()...),
		`SELECT g.head, g.head_hash, g.family_hash, g.head_expires_at, g.absolute_at, g.head_grace, g.jkt_since, g.instance_since, `+grantColumns+` FROM grants g WHERE g.id = $1`, ref.GrantID)
	if err == nil && (!silent && ref.Family != r.Family || ref.Generation > head || ref.Generation == head && ref.Hash != headHash) {
		err = ErrNotFound
	}
	if err != nil {
		return Refresh{}, Grant{}, wrap("find refresh token", err)
	}
	if r.Used = ref.Generation < head; r.Used {
		r.UsedAt = g.LastUsed // a rotation is the only use
		if r.SuccessorUsed = ref.Generation+1 < head; !r.SuccessorUsed {
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
	if !r.Keep && r.Old.Hash == r.New.Hash {
		return errors.New("rotate refresh token: the successor is a new token")
	}
	events, err := entries(now, r.Events...)
	if err != nil {
		return wrap("rotate refresh token", err)
	}
	absolute := orNever(r.New.Absolute)
	expires := min(orNever(r.New.Expires), absolute)
	query, args := rotate, []any{r.Old.GrantID, r.Old.Generation, r.Old.Hash, micros(now), r.New.Hash, r.New.Family, expires, absolute, r.Grace}
	switch {
	case r.Keep:
		query, args = keepHead, args[:4]
	case r.JKT != "" || r.InstanceJKT != "":
		query, args = rotateAndTie, append(args, r.JKT, r.InstanceJKT)
	}
	return wrap("rotate refresh token", s.write(ctx, func(t *tx) error {
		n, err := t.exec(query, args...)
		if err != nil {
			return err
		}
		if n == 0 {
			return t.whyNotRefresh(r.Old, now)
		}
		return t.keep(events)
	}))
}

// rotate moves the head of a family whose grant stands from one generation to the
// next. It changes a row at most once for each generation.
const rotate = rotated + ofTheHead

// rotateAndTie is rotate that ties the grant to keys where it has none, from the
// next token on.
const rotateAndTie = rotated + `, jkt = CASE WHEN g.jkt = '' THEN $10 ELSE g.jkt END,
	jkt_since = CASE WHEN g.jkt = '' AND $10 <> '' THEN g.head + 1 ELSE g.jkt_since END,
	instance_jkt = CASE WHEN g.instance_jkt = '' THEN $11 ELSE g.instance_jkt END,
	instance_since = CASE WHEN g.instance_jkt = '' AND $11 <> '' THEN g.head + 1 ELSE g.instance_since END` + ofTheHead

// keepHead notes that the head was used and lets it live as long as its family.
// The token before it is no lost answer any more.
const keepHead = `UPDATE grants AS g SET last_used_at = $4, head_grace = NULL, head_expires_at = g.absolute_at` + ofTheHead

const (
	rotated = `UPDATE grants AS g SET head = g.head + 1, head_hash = $5, family_hash = $6, last_used_at = $4,
	head_expires_at = CASE WHEN g.absolute_at < $7 THEN g.absolute_at ELSE $7 END,
	absolute_at = CASE WHEN g.absolute_at < $8 THEN g.absolute_at ELSE $8 END, head_grace = $9`
	ofTheHead = `
	WHERE g.id = $1 AND g.head = $2 AND g.head_hash = $3 AND g.head_expires_at > $4 AND ` + standing
)

// orNever is micros, with no time at all as the end of all times.
func orNever(t time.Time) int64 {
	if t.IsZero() {
		return math.MaxInt64
	}
	return micros(t)
}

// expiry is the idle expiry, which is never later than the absolute one.
func (r NewRefresh) expiry() time.Time {
	if r.Expires.IsZero() || r.Absolute.Before(r.Expires) {
		return r.Absolute
	}
	return r.Expires
}

// whyNotRefresh tells why a refresh token could not be spent.
func (t *tx) whyNotRefresh(old RefreshRef, now time.Time) error {
	var head int
	var hash Hash
	var expires time.Time
	if err := t.get([]any{&head, &hash, instant{&expires}}, `SELECT head, head_hash, head_expires_at FROM grants WHERE id = $1`, old.GrantID); err != nil {
		return err
	}
	switch {
	case old.Generation < head:
		return ErrSpent
	case old.Generation > head || old.Hash != hash:
		return ErrNotFound
	case !now.Before(expires):
		return ErrExpired
	}
	return t.whyNotGrant(old.GrantID)
}
