// Package keyring keeps the server's own signing keys and mints tokens with
// them: access tokens (RFC 9068) and ID tokens (OpenID Connect Core).
//
// A key goes through three stages: it is published, it signs, it is only
// published any more. The next key stands in the JWKS for longer than anybody
// may cache the JWKS before it signs, and the last one stays there until the
// last token it signed has expired (META-20). The stages follow from the rows
// in the store and the clock alone, so that replicas agree without talking.
// Private keys are stored wrapped with AES-256-GCM, bound to their key id.
package keyring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
)

// Keys is what the ring may do with the store.
type Keys interface {
	// SigningKeys returns all keys, oldest first.
	SigningKeys(ctx context.Context) ([]store.SigningKey, error)
	// AddSigningKey adds a key unless the newest one is not the one named
	// (""=there is none): then it returns store.ErrConflict.
	AddSigningKey(ctx context.Context, key store.SigningKey, expectNewest string) error
	// RetireSigningKey sets the time from which a key is gone.
	RetireSigningKey(ctx context.Context, kid string, at time.Time) error
}

// Config configures a [Ring]. Issuer, Store and WrapKey are required.
type Config struct {
	Issuer  string
	Alg     string // of new keys: ES256 (the default), EdDSA, RS256 or PS256
	Store   Keys
	WrapKey [32]byte         // wraps private keys; losing it means new keys
	Now     func() time.Time // nil is time.Now

	PublishAhead time.Duration // from publishing a key to signing with it; 0 is one hour, at least one minute
	SignFor      time.Duration // how long a key signs; 0 is 30 days
	TokenLife    time.Duration // the longest life of a token; 0 is one hour

	Audit *audit.Log // told about new keys; may be nil
}

const (
	cacheMost = 15 * time.Minute // the longest JWKS cache time that CacheFor gives
	clockSlop = 5 * time.Minute  // added to TokenLife: clocks of resource servers differ
)

// Ring is the set of our signing keys. It is safe for concurrent use.
type Ring struct {
	cfg   Config
	now   func() time.Time
	turn  sync.Mutex // held while keys are loaded or added; never while signing
	state atomic.Pointer[state]
}

// New loads the keys, and makes the first one if there is none: of several
// replicas that start at once, one makes it and the others take it (JK-14). It
// fails if a stored key cannot be unwrapped.
func New(ctx context.Context, c Config) (*Ring, error) {
	if c.Issuer == "" || c.Store == nil {
		return nil, errors.New("keyring: issuer and store are required")
	}
	if c.WrapKey == ([32]byte{}) {
		return nil, errors.New("keyring: the wrapping key is missing")
	}
	if c.Alg == "" {
		c.Alg = jose.ES256
	}
	if !slices.Contains(jose.Algorithms, c.Alg) {
		return nil, fmt.Errorf("keyring: algorithm %q is not one of %v", c.Alg, jose.Algorithms)
	}
	if c.PublishAhead == 0 {
		c.PublishAhead = time.Hour
	}
	if c.SignFor == 0 {
		c.SignFor = 30 * 24 * time.Hour
	}
	if c.TokenLife == 0 {
		c.TokenLife = time.Hour
	}
	if c.PublishAhead < time.Minute || c.SignFor < c.PublishAhead {
		return nil, errors.New("keyring: a key must be published for at least a minute before it signs, and sign for longer than that")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &Ring{cfg: c, now: c.Now}
	if err := r.Tick(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// CacheFor returns how long others may cache the JWKS: at most a third of the
// time that a key is published before it signs, so that a replica which reads
// the new key late still leaves room (META-20).
func (r *Ring) CacheFor() time.Duration { return min(r.cfg.PublishAhead/3, cacheMost) }

// JWKS returns the public keys as a JWK Set: the next key, the one that signs
// and those whose tokens may still live. The caller must not change it.
func (r *Ring) JWKS() []byte { return r.state.Load().jwks }

// Algorithms returns the algorithms of the published keys, each once, that of
// the signing key first: for the metadata.
func (r *Ring) Algorithms() []string {
	s := r.state.Load()
	out := []string{s.signer(r.now()).alg}
	for _, k := range s.keys {
		if !slices.Contains(out, k.alg) {
			out = append(out, k.alg)
		}
	}
	return out
}

// Tick reads the keys again and publishes the next one when it is due: when the
// newest key is about to have signed for SignFor, was retired by hand, or has
// another algorithm than the configuration asks for. Call it every minute or so.
func (r *Ring) Tick(ctx context.Context) error {
	return r.advance(ctx, func(newest *key, now time.Time) bool {
		end := newest.sign.Add(r.cfg.SignFor)
		if last := newest.retire.Add(-r.linger()); !newest.retire.IsZero() && last.Before(end) {
			end = last
		}
		return !end.After(now.Add(r.cfg.PublishAhead)) || newest.alg != r.cfg.Alg && !newest.sign.After(now)
	})
}

// Rotate publishes the next key now. It signs after PublishAhead, like any
// other. If a key already waits for its turn nothing changes.
func (r *Ring) Rotate(ctx context.Context) error {
	return r.advance(ctx, func(newest *key, now time.Time) bool { return !newest.sign.After(now) })
}

// advance loads the keys and adds one if there is none or due says so about the
// newest. A key that signs later than one published now would was made by a clock
// that ran ahead, and does not hold up the others (FA-11). When another replica
// was faster the keys are read again, and due is asked again.
func (r *Ring) advance(ctx context.Context, due func(newest *key, now time.Time) bool) error {
	r.turn.Lock()
	defer r.turn.Unlock()
	for range 5 {
		now := r.now()
		s, last, err := r.load(ctx, now)
		if err != nil {
			return err
		}
		if len(s.keys) > 0 && !due(s.newest(now.Add(r.cfg.PublishAhead+clockSlop)), now) {
			r.state.Store(s)
			return r.retire(ctx, s)
		}
		switch err := r.add(ctx, s, last, now); {
		case errors.Is(err, store.ErrConflict):
		case err != nil:
			return fmt.Errorf("add signing key: %w", err)
		default:
			due = func(*key, time.Time) bool { return false } // read what was added, and be done
		}
	}
	return errors.New("keyring: other replicas keep adding keys")
}

// load reads the keys. It returns them with the id of the one that was stored
// last. A key that was read before is not unwrapped again.
func (r *Ring) load(ctx context.Context, now time.Time) (s *state, last string, err error) {
	rows, err := r.cfg.Store.SigningKeys(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("read signing keys: %w", err)
	}
	known := map[string]*key{}
	if s := r.state.Load(); s != nil {
		for _, k := range s.keys {
			known[k.kid] = k
		}
	}
	var keys []*key
	for _, row := range rows {
		last = row.KID
		if !row.Retire.IsZero() && !row.Retire.After(now) {
			continue
		}
		k := &key{}
		if old := known[row.KID]; old != nil {
			*k = *old
		} else if k, err = unwrap(r.cfg.WrapKey, row); err != nil {
			return nil, "", err
		}
		k.retire = row.Retire
		keys = append(keys, k)
	}
	s, err = newState(keys, now, r.linger())
	return s, last, err
}

// retire writes down when the keys that have a successor are gone.
func (r *Ring) retire(ctx context.Context, s *state) error {
	for i, k := range s.keys {
		if i+1 == len(s.keys) || !k.retire.IsZero() {
			continue
		}
		if err := r.cfg.Store.RetireSigningKey(ctx, k.kid, s.keys[i+1].sign.Add(r.linger())); err != nil {
			return fmt.Errorf("retire signing key: %w", err)
		}
	}
	return nil
}

// linger is how long a key stays published after the next one began to sign.
func (r *Ring) linger() time.Duration { return r.cfg.TokenLife + clockSlop }

// generate makes a key whose kid can be typed as the argument of a command. One
// thumbprint in 64 begins with a hyphen, which every command line takes for an
// option, and a key has to be withdrawn in a hurry (bonafide keys retire).
func generate(alg string) (jose.Private, error) {
	for {
		private, err := jose.Generate(alg)
		if err != nil || !strings.HasPrefix(private.KID(), "-") {
			return private, err
		}
	}
}

// add generates a key and stores it behind last. It signs after PublishAhead,
// but at once if there is no other: then nobody can have cached a useful JWKS.
func (r *Ring) add(ctx context.Context, s *state, last string, now time.Time) error {
	private, err := generate(r.cfg.Alg)
	if err != nil {
		return err
	}
	sign := now
	if len(s.keys) > 0 {
		sign = now.Add(r.cfg.PublishAhead)
	}
	wrapped, err := wrap(r.cfg.WrapKey, private)
	if err != nil {
		return err
	}
	row := store.SigningKey{KID: private.KID(), Alg: r.cfg.Alg, Wrapped: wrapped, Created: now, Publish: now, Sign: sign}
	if err := r.cfg.Store.AddSigningKey(ctx, row, last); err != nil {
		return err
	}
	if r.cfg.Audit == nil {
		return nil
	}
	return r.cfg.Audit.Record(ctx, audit.Event{
		Time: now, Type: audit.TypeKey, Rule: "META-20",
		Data: map[string]string{"kid": row.KID, "alg": row.Alg, "signs_from": sign.UTC().Format(time.RFC3339)},
	})
}
