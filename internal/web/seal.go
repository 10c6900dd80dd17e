package web

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrSeal is what [Sealer.Open] returns for everything that is not a value of
// ours, made for this purpose: it does not say which part was wrong.
var ErrSeal = errors.New("the sealed value is not ours, or not for this purpose")

// ErrSealExpired is what [Sealer.Open] returns for a value of ours whose time
// has passed.
var ErrSealExpired = errors.New("the sealed value has expired")

// maxSealed bounds what Open looks at, in characters.
const maxSealed = 64 << 10

// Sealer keeps state in the browser: what it seals nobody else can read, change
// or use for another purpose (AES-256-GCM with the purpose as additional data
// and a random nonce). A sealed value can be presented more than once; whatever
// must happen once needs the store.
type Sealer struct{ aead cipher.AEAD }

// NewSealer returns a sealer with the given key. Replicas of one server share
// the key; see [DeriveKey].
func NewSealer(key [32]byte) *Sealer {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has the right size
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return &Sealer{aead}
}

// Seal returns v as JSON, sealed for a purpose until expires (to the second), in
// base64url.
func (s *Sealer) Seal(purpose string, expires time.Time, v any) (string, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", purpose, err)
	}
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+8+len(body)+s.aead.Overhead())
	rand.Read(nonce)
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(body)), uint64(expires.Unix()))
	plain = append(plain, body...)
	out := base64.RawURLEncoding.EncodeToString(s.aead.Seal(nonce, nonce, plain, []byte(purpose)))
	if len(out) > maxSealed {
		return "", fmt.Errorf("seal %s: the value is too large", purpose)
	}
	return out, nil
}

// Open puts the value that was sealed for purpose into v. The error is ErrSeal
// or ErrSealExpired.
func (s *Sealer) Open(purpose, sealed string, now time.Time, v any) error {
	if len(sealed) > maxSealed {
		return ErrSeal
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	n := s.aead.NonceSize()
	if err != nil || len(raw) < n {
		return ErrSeal
	}
	plain, err := s.aead.Open(nil, raw[:n], raw[n:], []byte(purpose))
	if err != nil || len(plain) < 8 {
		return ErrSeal
	}
	if now.Unix() >= int64(binary.BigEndian.Uint64(plain)) {
		return ErrSealExpired
	}
	if json.Unmarshal(plain[8:], v) != nil {
		return ErrSeal
	}
	return nil
}

// DeriveKey returns the key for one purpose from the master secret of the
// server (HKDF-SHA256): keys for different purposes tell nothing about each
// other. The master must hold at least 16 random bytes; a shorter one is a
// mistake of the caller, and DeriveKey panics.
func DeriveKey(master []byte, purpose string) [32]byte {
	if len(master) < 16 {
		panic("web: the master secret is shorter than 16 bytes")
	}
	key, err := hkdf.Key(sha256.New, master, nil, "bonafide/1 "+purpose, 32)
	if err != nil {
		panic(err) // the size is within bounds
	}
	return [32]byte(key)
}
