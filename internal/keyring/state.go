package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
)

// key is one unwrapped key.
type key struct {
	kid, alg string
	sign     time.Time // from when it signs
	retire   time.Time // from when it is gone, if that is known
	private  jose.Private
	public   jose.Key
}

// state is a snapshot of the ring; it is never changed.
type state struct {
	keys []*key // those that are published, by the time from which they sign
	jwks []byte
}

// newState works out which keys are published at now. A key signs until its
// successor does, and stays for linger after that.
func newState(keys []*key, now time.Time, linger time.Duration) (*state, error) {
	slices.SortStableFunc(keys, func(a, b *key) int { return a.sign.Compare(b.sign) })
	s := &state{}
	var public []jose.Key
	for i, k := range keys {
		if i+1 < len(keys) && !keys[i+1].sign.Add(linger).After(now) {
			continue
		}
		s.keys = append(s.keys, k)
		public = append(public, k.public)
	}
	var err error
	s.jwks, err = jose.MarshalSet(public...)
	return s, err
}

// signer returns the key that signs at now: the newest whose time has come. A
// clock that runs behind all of them gets the oldest published one.
func (s *state) signer(now time.Time) *key { return s.newest(now) }

// newest returns the last key that signs by then, or the oldest one.
func (s *state) newest(by time.Time) *key {
	for i := len(s.keys) - 1; i > 0; i-- {
		if !s.keys[i].sign.After(by) {
			return s.keys[i]
		}
	}
	return s.keys[0]
}

// published returns the published key with that id.
func (s *state) published(kid string) *key {
	for _, k := range s.keys {
		if k.kid == kid {
			return k
		}
	}
	return nil
}

// wrap encrypts a private key with AES-256-GCM. The key id is authenticated
// with it, so that rows cannot be swapped.
func wrap(with [32]byte, p jose.Private) ([]byte, error) {
	raw, err := p.MarshalJSON()
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	box, err := boxOf(with)
	if err != nil {
		return nil, err
	}
	return box.Seal(nil, nil, raw, []byte(p.KID())), nil
}

func unwrap(with [32]byte, row store.SigningKey) (*key, error) {
	box, err := boxOf(with)
	if err != nil {
		return nil, err
	}
	raw, err := box.Open(nil, nil, row.Wrapped, []byte(row.KID))
	if err != nil {
		return nil, fmt.Errorf("signing key %s cannot be unwrapped: key_file holds another key than the one it was stored with", row.KID)
	}
	defer clear(raw)
	p, err := jose.ParsePrivate(raw)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", row.KID, err)
	}
	if p.KID() != row.KID || p.Algorithm() != row.Alg {
		return nil, errors.New("signing key " + row.KID + ": the stored key is another one than its row says")
	}
	return &key{kid: row.KID, alg: row.Alg, sign: row.Sign, private: p, public: p.Public()}, nil
}

func boxOf(with [32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(with[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
