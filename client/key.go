package client

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/bonafide-id/bonafide/internal/jose"
)

// Key is a private key with which a client proves who it is. The zero Key is no
// key. Printing a Key shows its ID only.
type Key struct{ private jose.Private }

// GenerateKey makes a key for one of ES256, EdDSA, PS256 and RS256. Its ID is
// the key's thumbprint (RFC 7638).
func GenerateKey(alg string) (Key, error) {
	p, err := jose.Generate(alg)
	return Key{p}, err
}

// ParseKey reads a private JWK, or a PEM file with a PKCS #8, SEC 1 or PKCS #1
// key: P-256, Ed25519, or RSA with at least 2048 bits, which signs with RS256.
func ParseKey(raw []byte) (Key, error) {
	raw = bytes.TrimSpace(raw)
	if !bytes.HasPrefix(raw, []byte("{")) {
		var err error
		if raw, err = jwkFromPEM(raw); err != nil {
			return Key{}, fmt.Errorf("read key: %w", err)
		}
	}
	p, err := jose.ParsePrivate(raw)
	if err != nil {
		return Key{}, fmt.Errorf("read key: %w", err)
	}
	return Key{p}, nil
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.private.KID() == "" }

// ID returns the kid under which the key is published.
func (k Key) ID() string { return k.private.KID() }

// Algorithm returns the algorithm that the key signs with.
func (k Key) Algorithm() string { return k.private.Algorithm() }

// String shows the key's ID and algorithm.
func (k Key) String() string { return fmt.Sprintf("key %s (%s)", k.ID(), k.Algorithm()) }

// GoString is String, so that %#v does not print the key either.
func (k Key) GoString() string { return k.String() }

// MarshalPrivate returns the key as a private JWK, for a file that only its
// owner can read. [ParseKey] reads it.
func (k Key) MarshalPrivate() ([]byte, error) {
	if k.IsZero() {
		return nil, errors.New("there is no key")
	}
	return k.private.MarshalJSON()
}

// PublicKeys returns the JWK Set to publish at a document's jwks_uri: the public
// halves only, in the given order.
func PublicKeys(keys ...Key) ([]byte, error) {
	public := make([]jose.Key, 0, len(keys))
	for _, k := range keys {
		if k.IsZero() {
			return nil, errors.New("there is no key")
		}
		public = append(public, k.private.Public())
	}
	return jose.MarshalSet(public...)
}

// jwkFromPEM rewrites a PEM key as a private JWK.
func jwkFromPEM(raw []byte) ([]byte, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("neither a JWK nor PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block of type %q is not a private key that is read here", block.Type)
	}
	if err != nil {
		return nil, errors.New("the PEM block does not hold a private key")
	}
	b64 := base64.RawURLEncoding.EncodeToString
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		point, err := k.PublicKey.Bytes()
		if err != nil || k.Curve.Params().BitSize != 256 {
			return nil, errors.New("an elliptic-curve key must be on P-256")
		}
		d, err := k.Bytes()
		if err != nil {
			return nil, errors.New("the elliptic-curve key is not usable")
		}
		return json.Marshal(map[string]string{"kty": "EC", "crv": "P-256", "alg": jose.ES256,
			"x": b64(point[1:33]), "y": b64(point[33:65]), "d": b64(d)})
	case ed25519.PrivateKey:
		return json.Marshal(map[string]string{"kty": "OKP", "crv": "Ed25519", "alg": jose.EdDSA,
			"x": b64(k.Public().(ed25519.PublicKey)), "d": b64(k.Seed())})
	case *rsa.PrivateKey:
		if len(k.Primes) != 2 {
			return nil, errors.New("an RSA key must have two primes")
		}
		k.Precompute()
		n := func(i *big.Int) string { return b64(i.Bytes()) }
		return json.Marshal(map[string]string{"kty": "RSA", "alg": jose.RS256, "n": n(k.N), "e": n(big.NewInt(int64(k.E))),
			"d": n(k.D), "p": n(k.Primes[0]), "q": n(k.Primes[1]),
			"dp": n(k.Precomputed.Dp), "dq": n(k.Precomputed.Dq), "qi": n(k.Precomputed.Qinv)})
	}
	return nil, errors.New("this kind of key cannot sign here")
}
