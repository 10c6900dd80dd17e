// Package jose signs and checks JSON Web Tokens and reads JSON Web Keys. It is
// the only package of the house that imports a JOSE library.
//
// It knows one form of token, the compact JWS, and the four signature
// algorithms of Algorithms. Everything else that JOSE offers is refused at the
// door: encryption, "none", HMAC, keys or key addresses in the header,
// extensions, detached and unencoded payloads, the JSON form, nested tokens.
//
// Keys are read by go-jose after our own strict reading of the JSON around
// them. Signatures are made and checked by the standard library's crypto
// packages on the parts that Parse took apart: that is half the overhead of
// the library, on the path that every protected request takes. The tests hold
// both directions against go-jose: what it signs verifies here, what we sign
// verifies there, and nothing passes here that it refuses, but for a header with
// a malformed value in a member that is not looked at here, such as jwk or x5c.
package jose

import (
	"errors"
	"math/big"
	"slices"
)

// The signature algorithms (RFC 7518, RFC 8037).
const (
	ES256 = "ES256"
	PS256 = "PS256"
	RS256 = "RS256"
	EdDSA = "EdDSA"
)

// Algorithms is the allow-list, in order of preference. It is the same list
// for client assertions, access tokens and everything we sign (RFC 8725
// section 3.1). It must not be modified.
var Algorithms = []string{ES256, PS256, RS256, EdDSA}

// ed25519Name is what RFC 9864 calls EdDSA with the only curve we know. Clients
// that follow it write the new name in headers, keys and documents.
const ed25519Name = "Ed25519"

// Accepted are all names by which others may call our algorithms: Algorithms and
// the new name of EdDSA. It must not be modified.
var Accepted = append(slices.Clone(Algorithms), ed25519Name)

// Canonical returns our name for an algorithm: EdDSA for Ed25519, and every other
// name as it is. It says nothing about whether the algorithm is allowed.
func Canonical(alg string) string {
	if alg == ed25519Name {
		return EdDSA
	}
	return alg
}

// The facts on which a caller branches.
var (
	// ErrPrivateKey says that a published key set holds private or symmetric
	// key material: its owner has to know, so nothing of the set is used.
	ErrPrivateKey = errors.New("key set contains private or symmetric key material")

	// ErrNoKey says that no key of a set fits the token. A set from a
	// jwks_uri may be out of date: fetch it again, at a bounded rate.
	ErrNoKey = errors.New("no key fits the token")

	// ErrAmbiguous says that several different keys fit the token.
	ErrAmbiguous = errors.New("more than one key fits the token")

	// ErrSignature says that the signature was not made by the key.
	ErrSignature = errors.New("signature does not verify")
)

// Sizes of untrusted things.
const (
	maxKID     = 256 // bytes of a key ID
	minRSABits = 2048
	maxRSABits = 8192 // verifying with more costs milliseconds
	maxDepth   = 16   // nesting of JSON
	maxMembers = 256  // of one JSON object; bounds the search for duplicates
)

// The exponents of RSA keys. The upper end is that of crypto/rsa.
var (
	minExponent = big.NewInt(1<<16 + 1)
	maxExponent = big.NewInt(1<<31 - 1)
)
