package store

import (
	"context"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// Pushed is an authorization request that a client left here (RFC 9126). Hash is
// that of its request_uri.
type Pushed struct {
	Hash             Hash
	ClientID         string
	Request          []byte
	Created, Expires time.Time
	Spent            bool // a person answered it
}

// Denial is a person's no.
type Denial struct {
	Nonce        Hash      // of the page: it can be answered once
	NonceExpires time.Time // when the page stops being answerable
	Events       []audit.Event
}

// PushRequest keeps a request until a person answers it or it expires. ErrBusy:
// most requests wait already. ErrConflict: there is one with this hash.
func (s *Store) PushRequest(ctx context.Context, p Pushed, most int, events ...audit.Event) error {
	if p.ClientID == "" || !p.Created.Before(p.Expires) {
		return errors.New("push request: a client and an expiry are required")
	}
	if p.Request == nil {
		p.Request = []byte{}
	}
	if err := s.room(ctx, livePushed, most, p.Created); err != nil {
		return wrap("push request", err)
	}
	return wrap("push request", s.write(ctx, func(t *tx) error {
		if err := t.room(livePushed, most, p.Created); err != nil {
			return err
		}
		n, err := t.exec(`INSERT INTO pushed_requests (hash, client_id, request, created_at, expires_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			p.Hash, p.ClientID, p.Request, micros(p.Created), micros(p.Expires))
		if err == nil && n == 0 {
			err = ErrConflict
		}
		if err != nil {
			return err
		}
		return t.record(p.Created, events...)
	}))
}

// livePushed counts the requests that wait for a person, up to a bound.
const livePushed = `SELECT COUNT(*) FROM (SELECT 1 AS one FROM pushed_requests WHERE expires_at > $1 AND used_at IS NULL LIMIT $2) AS live`

// room returns ErrBusy when as many rows are live as may be. The change itself
// looks again: this look keeps a crowd that is turned away from the writer.
func (s *Store) room(ctx context.Context, live string, most int, now time.Time) error {
	var n int
	return isRoom(&n, most, s.get(ctx, []any{&n}, live, micros(now), max(most, 0)))
}

// room is the look that counts.
func (t *tx) room(live string, most int, now time.Time) error {
	var n int
	return isRoom(&n, most, t.get([]any{&n}, live, micros(now), max(most, 0)))
}

func isRoom(n *int, most int, err error) error {
	if err == nil && *n >= most {
		err = ErrBusy
	}
	return err
}

// FindPushed returns a request as it was pushed. With ErrExpired it is returned
// too, and with ErrSpent (a person has answered it) all of it but the Request
// itself, which is not kept any longer. The caller compares the client (PAR-06).
func (s *Store) FindPushed(ctx context.Context, h Hash, now time.Time) (Pushed, error) {
	p := Pushed{Hash: h}
	err := s.get(ctx, []any{&p.ClientID, &p.Request, instant{&p.Created}, instant{&p.Expires}, &p.Spent},
		`SELECT client_id, request, created_at, expires_at, used_at IS NOT NULL FROM pushed_requests WHERE hash = $1`, h)
	switch {
	case err != nil:
		return Pushed{}, wrap("find pushed request", err)
	case p.Spent:
		return p, wrap("find pushed request", ErrSpent)
	case !now.Before(p.Expires):
		return p, wrap("find pushed request", ErrExpired)
	}
	return p, nil
}

// DenyPushed carries out a person's no to a pushed request: the page and the
// request are spent, nothing else is written but the events. ErrSpent: either was
// answered before. ErrExpired: the page is too old.
func (s *Store) DenyPushed(ctx context.Context, pushed Hash, d Denial, now time.Time) error {
	return wrap("deny pushed request", s.write(ctx, func(t *tx) error {
		if err := t.spendNonce(d.Nonce, d.NonceExpires, now); err != nil {
			return err
		}
		if err := t.spendPushed(&pushed, "", now); err != nil {
			return err
		}
		return t.record(now, d.Events...)
	}))
}

// spendPushed marks a pushed request as answered and forgets what it said, which
// may be about a person. It may have expired since the page was shown: how long
// that can be answered is known by the page. A request
// that is gone is ErrExpired, as is one of another client than the one named.
func (t *tx) spendPushed(h *Hash, clientID string, now time.Time) error {
	if h == nil {
		return nil
	}
	var one int
	err := t.get([]any{&one}, `UPDATE pushed_requests SET used_at = $3, request = $4
		WHERE hash = $1 AND used_at IS NULL AND (client_id = $2 OR $2 = '') RETURNING 1`, *h, clientID, micros(now), []byte{})
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	var used bool
	err = t.get([]any{&used}, `SELECT used_at IS NOT NULL FROM pushed_requests WHERE hash = $1`, *h)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && !used:
		return ErrExpired
	case err == nil:
		return ErrSpent
	}
	return err
}
