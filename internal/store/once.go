package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// SpendID spends the identifier of an assertion or proof. It succeeds once for
// each issuer and identifier until expires; the second call returns ErrSpent
// (CAUTH-06). Two issuers may use the same identifier (CA-08).
func (s *Store) SpendID(ctx context.Context, issuer string, id Hash, expires, now time.Time) error {
	key := spentKey(issuer, id)
	return wrap("spend identifier", s.write(ctx, func(t *tx) error { return t.spendID(key, expires, now) }))
}

// spentKey is one short key for an issuer and an identifier; the length keeps the
// two parts apart.
func spentKey(issuer string, id Hash) (key Hash) {
	h := sha256.New()
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(issuer)))
	h.Write(length[:])
	h.Write([]byte(issuer))
	h.Write(id[:])
	h.Sum(key[:0])
	return key
}

// spendID marks an identifier as spent until expires, and not less than until now.
func (t *tx) spendID(key Hash, expires, now time.Time) error {
	if expires.Before(now) {
		expires = now
	}
	n, err := t.exec(`INSERT INTO spent_ids (hash, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING`, key, micros(expires))
	if err == nil && n == 0 {
		err = ErrSpent
	}
	return err
}

// DenyToken puts an access token on the denylist until it expires by itself. The
// events are recorded when it was not there before.
func (s *Store) DenyToken(ctx context.Context, jti string, expires time.Time, events ...audit.Event) error {
	if jti == "" {
		return errors.New("deny token: an identifier is required")
	}
	return wrap("deny token", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING`, jti, micros(expires))
		if err != nil || n == 0 {
			return err
		}
		return t.record(s.now(), events...)
	}))
}

// TokenDenied reports whether an access token is on the denylist.
func (s *Store) TokenDenied(ctx context.Context, jti string) (bool, error) {
	var one int
	err := s.get(ctx, []any{&one}, `SELECT 1 FROM denied_tokens WHERE jti = $1`, jti)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, wrap("find denied token", err)
}

const signingKeyColumns = `kid, alg, wrapped, created_at, publish_at, sign_at, retire_at`

// SigningKeys returns our keys in the order in which they were added. Retired
// keys stay in the list.
func (s *Store) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	var out []SigningKey
	err := s.list(ctx, func(scan func(...any) error) error {
		var k SigningKey
		err := scan(&k.KID, &k.Alg, &k.Wrapped, instant{&k.Created}, instant{&k.Publish}, instant{&k.Sign}, instant{&k.Retire})
		out = append(out, k)
		return err
	}, `SELECT `+signingKeyColumns+` FROM signing_keys ORDER BY seq`)
	return out, wrap("list signing keys", err)
}

// AddSigningKey adds a key if expectNewest, the identifier of the newest key the
// caller saw or "" for none, is still the newest. Otherwise it returns
// ErrConflict: another replica was faster, and the caller reads again (JK-14).
func (s *Store) AddSigningKey(ctx context.Context, key SigningKey, expectNewest string) error {
	return wrap("add signing key", s.write(ctx, func(t *tx) error {
		var seq int64
		var newest string
		err := t.get([]any{&seq, &newest}, `SELECT seq, kid FROM signing_keys ORDER BY seq DESC LIMIT 1`)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if newest != expectNewest {
			return ErrConflict
		}
		n, err := t.exec(`INSERT INTO signing_keys (seq, `+signingKeyColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
			seq+1, key.KID, key.Alg, key.Wrapped, micros(key.Created), micros(key.Publish), micros(key.Sign), micros(key.Retire))
		if err == nil && n == 0 {
			err = ErrConflict
		}
		if err != nil {
			return err
		}
		return t.touch(TopicKeys)
	}))
}

// WithdrawSigningKey ends a key from a time on, by an operator's decision, and
// records it in the same commit. A key that ends earlier stays as it is.
// ErrNotFound means that there is no such key.
func (s *Store) WithdrawSigningKey(ctx context.Context, kid string, at time.Time) error {
	return wrap("withdraw signing key", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE signing_keys SET retire_at = CASE WHEN retire_at > 0 AND retire_at < $2 THEN retire_at ELSE $2 END WHERE kid = $1`, kid, micros(at))
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		return t.record(at, audit.Event{Type: audit.TypeKey, Code: "withdrawn", Data: map[string]string{"kid": kid}})
	}))
}

// RetireSigningKey sets the time from which a key is published no more.
func (s *Store) RetireSigningKey(ctx context.Context, kid string, at time.Time) error {
	return wrap("retire signing key", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE signing_keys SET retire_at = $2 WHERE kid = $1`, kid, micros(at))
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		return t.touch(TopicKeys)
	}))
}
