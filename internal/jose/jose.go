// Package jose signs and checks tokens.
package jose

import "errors"

// The signature algorithms.
const (
	ES256 = "ES256"
	PS256 = "PS256"
	RS256 = "RS256"
	EdDSA = "EdDSA"
)

// Algorithms is the allow-list.
var Algorithms = []string{ES256, PS256, RS256, EdDSA}

// Facts a caller branches on.
var (
	ErrPrivateKey = errors.New("key set contains private or symmetric key material")
	ErrNoKey      = errors.New("no key fits the token")
	ErrAmbiguous  = errors.New("more than one key fits the token")
	ErrSignature  = errors.New("signature does not verify")
)

// Key is a public key.
type Key struct{ kid, alg, thumb string }

// KID returns the key ID, or "".
func (k Key) KID() string { return k.kid }

// Algorithm returns the declared algorithm, or "".
func (k Key) Algorithm() string { return k.alg }

// Thumbprint returns the RFC 7638 thumbprint.
func (k Key) Thumbprint() string { return k.thumb }

// Fits reports whether the key can check a signature of algorithm alg.
func (k Key) Fits(alg string) bool { panic("being written") }

// Dropped is a key that was left out of a set.
type Dropped struct {
	Index       int
	KID, Reason string
}

// Set is a key set.
type Set struct {
	Keys    []Key
	Dropped []Dropped
}

// SetLimits bounds a set.
type SetLimits struct{ MaxBytes, MaxKeys int }

// ParseSet reads a set.
func ParseSet(raw []byte, lim SetLimits) (Set, error) { panic("being written") }

// ParseRemoteSet reads a set.
func ParseRemoteSet(raw []byte, lim SetLimits) (Set, error) { panic("being written") }

// Find selects a key.
func (s Set) Find(kid, alg string) (Key, error) { panic("being written") }

// Header is the JOSE header.
type Header struct{ Alg, KID, Typ string }

// Message is a parsed JWS.
type Message struct {
	Header Header
	Claims []byte
}

// Parse reads a compact JWS.
func Parse(compact string, maxBytes int) (*Message, error) { panic("being written") }

// Verify checks the signature.
func (m *Message) Verify(k Key) error { panic("being written") }

// Private is a signing key.
type Private struct{ key Key }

// Generate makes a key.
func Generate(alg string) (Private, error) { panic("being written") }

// Public returns the public half.
func (p Private) Public() Key { return p.key }

// KID returns the key ID.
func (p Private) KID() string { return p.key.kid }

// Algorithm returns the algorithm.
func (p Private) Algorithm() string { return p.key.alg }

// Sign signs claims.
func (p Private) Sign(typ string, claims any) (string, error) { panic("being written") }

// MarshalJSON returns the private JWK.
func (p Private) MarshalJSON() ([]byte, error) { panic("being written") }

// ParsePrivate reads a private JWK.
func ParsePrivate(raw []byte) (Private, error) { panic("being written") }

// MarshalSet returns a public JWKS.
func MarshalSet(keys ...Key) ([]byte, error) { panic("being written") }
