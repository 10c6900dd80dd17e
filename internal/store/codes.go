package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// UnboundGrant is how long a grant without a refresh token counts as running
// after its code was redeemed. Access tokens live shorter than that.
const UnboundGrant = 24 * time.Hour

// FindCode returns a code and its grant. A code that was spent is returned
// without an error and with Spent set, so that the caller can tell a valid
// replay, and ends the grant only then (TOK-03). With ErrExpired, ErrEnded and
// ErrBlocked the code is returned too.
func (s *Store) FindCode(ctx context.Context, h Hash, now time.Time) (Code, error) {
	c := Code{Hash: h}
	var g grantRow
	err := s.get(ctx, append([]any{&c.RedirectURI, &c.Challenge, instant{&c.Expires}, instant{&c.SpentAt}, &c.JKT}, g.columns()...),
		`SELECT c.redirect_uri, c.challenge, c.expires_at, c.used_at, c.jkt, `+grantColumns+`
		FROM codes c JOIN grants g ON g.id = c.grant_id WHERE c.hash = $1`, h)
	if err != nil {
		return Code{}, wrap("find code", err)
	}
	c.Grant = g.Grant
	c.Spent = !c.SpentAt.IsZero()
	switch {
	case c.Spent:
		return c, nil
	case !now.Before(c.Expires):
		return c, wrap("find code", ErrExpired)
	}
	return c, wrap("find code", g.err())
}

// RedeemCode spends a code, ties its grant to the way the client authenticated
// and to its keys,
// writes the first refresh token and records the events, in one commit. It
// succeeds at most once per code: a second call returns ErrSpent, so that the
// caller can revoke what the first one bought. ErrExpired: the code is too old.
// ErrEnded: its grant has ended or the user is disabled. ErrBlocked: the client
// is not allowed. Whenever it fails, the code is as it was.
func (s *Store) RedeemCode(ctx context.Context, r Redemption, now time.Time) (Grant, error) {
	events, err := entries(now, r.Events...)
	if err != nil {
		return Grant{}, wrap("redeem code", err)
	}
	var g grantRow
	err = s.write(ctx, func(t *tx) error {
		var grantID string
		err := t.get([]any{&grantID}, `UPDATE codes SET used_at = $2 WHERE hash = $1 AND used_at IS NULL AND expires_at > $2 RETURNING grant_id`, r.Hash, micros(now))
		if errors.Is(err, ErrNotFound) {
			return t.whyNotCode(r.Hash)
		}
		if err != nil {
			return err
		}
		if err := t.bind(grantID, r, now); err != nil {
			return err
		}
		if err := t.get(g.columns(), `SELECT `+grantColumns+` FROM grants g WHERE g.id = $1`, grantID); err != nil {
			return err
		}
		return t.keep(events)
	})
	if err != nil {
		return Grant{}, wrap("redeem code", err)
	}
	return g.Grant, nil
}

// bind ties a grant to the client authentication that redeemed its code and gives
// it its first refresh token, if it gets one.
func (t *tx) bind(grantID string, r Redemption, now time.Time) error {
	expires, head := now.Add(UnboundGrant), 0
	var hash, family, headExpires, absolute any = nil, nil, 0, 0
	if r.Refresh != nil {
		expires, head = r.Refresh.expiry(), 1
		hash, family, headExpires, absolute = r.Refresh.Hash, r.Refresh.Family, micros(expires), micros(r.Refresh.Absolute)
	}
	n, err := t.exec(`UPDATE grants AS g SET auth_method = $2, key_thumbprint = $3, last_used_at = $4, expires_at = $5,
		head = $6, head_hash = $7, family_hash = $8, head_expires_at = $9, absolute_at = $10, jkt = $11, instance_jkt = $12, cert_thumbprint = $13
		WHERE g.id = $1 AND `+standing,
		grantID, r.Method, r.KeyThumbprint, micros(now), micros(expires), head, hash, family, headExpires, absolute, r.JKT, r.InstanceJKT, r.CertThumbprint)
	if err == nil && n == 0 {
		err = t.whyNotGrant(grantID)
	}
	return err
}

// whyNotCode tells why a code could not be spent.
func (t *tx) whyNotCode(h Hash) error {
	var used bool
	if err := t.get([]any{&used}, `SELECT used_at IS NOT NULL FROM codes WHERE hash = $1`, h); err != nil {
		return err
	}
	if used {
		return ErrSpent
	}
	return ErrExpired
}

// whyNotGrant tells why a grant does not stand.
func (t *tx) whyNotGrant(id string) error {
	var g grantRow
	if err := t.get(g.columns(), `SELECT `+grantColumns+` FROM grants g WHERE g.id = $1`, id); err != nil {
		return err
	}
	if err := g.err(); err != nil {
		return err
	}
	return fmt.Errorf("grant %s stands and does not", id)
}
