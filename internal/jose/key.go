package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	gojose "github.com/go-jose/go-jose/v4"
)

// Key is a public key that passed every check: it belongs to one of our
// algorithms, is strong enough and is meant for signatures. The zero value
// fits nothing.
type Key struct {
	kid   string
	alg   string
	thumb string
	pub   any // *ecdsa.PublicKey on P-256, *rsa.PublicKey or ed25519.PublicKey
}

// KID returns the key ID as published, or "".
func (k Key) KID() string { return k.kid }

// Algorithm returns the algorithm that the key declares, by our name, or "" when
// it leaves that open.
func (k Key) Algorithm() string { return k.alg }

// Thumbprint returns the SHA-256 thumbprint of RFC 7638 in base64url. It
// depends on the key alone, not on kid, alg or use.
func (k Key) Thumbprint() string { return k.thumb }

// Equal reports whether two keys are the same key under the same name.
func (k Key) Equal(o Key) bool {
	return k.kid == o.kid && k.alg == o.alg && k.thumb == o.thumb
}

// Fits reports whether the key may check signatures of algorithm alg: the type
// of key has to belong to it, and a declared algorithm has to be this one
// (RFC 8725 section 3.1).
func (k Key) Fits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch k.pub.(type) {
	case *ecdsa.PublicKey:
		return alg == ES256
	case *rsa.PublicKey:
		return alg == PS256 || alg == RS256
	case ed25519.PublicKey:
		return alg == EdDSA
	}
	return false
}

// privateMembers are the JWK members that no published key may have (RFC 7518
// section 6, RFC 9964).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

// jwk holds the members of a JWK that matter to us. All others, and x5c, x5u
// and their like among them, are not looked at.
type jwk struct {
	kty, use, alg, kid, crv, x, y, n, e string
	ops                                 []string
	hasOps, private                     bool
}

func readJWK(raw []byte) (jwk, error) {
	list, err := members(raw)
	if err != nil {
		return jwk{}, err
	}
	var j jwk
	texts := map[string]*string{
		"kty": &j.kty, "use": &j.use, "alg": &j.alg, "kid": &j.kid,
		"crv": &j.crv, "x": &j.x, "y": &j.y, "n": &j.n, "e": &j.e,
	}
	var bad error
	for _, m := range list {
		switch dst := texts[m.name]; {
		case dst != nil:
			if *dst, err = text(m.value); err != nil {
				bad = fmt.Errorf("%s is not a string", m.name)
			}
		case m.name == "key_ops":
			j.hasOps = true
			if err := json.Unmarshal(m.value, &j.ops); err != nil {
				bad = errors.New("key_ops is not an array of strings")
			}
		case slices.Contains(privateMembers, m.name):
			j.private = true
		}
	}
	j.private = j.private || j.kty == "oct"
	return j, bad
}

// key checks a public JWK and returns it as a Key. The error text names the
// fault and quotes nothing of the key.
func (j jwk) key() (Key, error) {
	switch {
	case j.private:
		return Key{}, ErrPrivateKey
	case len(j.kid) > maxKID:
		return Key{}, errors.New("kid is too long")
	case j.use != "" && j.use != "sig":
		return Key{}, errors.New("use is not sig")
	case j.hasOps && !slices.Contains(j.ops, "verify"):
		return Key{}, errors.New("key_ops does not contain verify")
	}
	pub, err := j.public()
	if err != nil {
		return Key{}, err
	}
	return newKey(j.kid, Canonical(j.alg), pub)
}

// newKey completes a Key from a checked public key.
func newKey(kid, alg string, pub any) (Key, error) {
	k := Key{kid: kid, alg: alg, pub: pub}
	if !slices.ContainsFunc(Algorithms, k.Fits) {
		return Key{}, errors.New("no supported algorithm")
	}
	sum, err := (&gojose.JSONWebKey{Key: pub}).Thumbprint(crypto.SHA256)
	if err != nil {
		return Key{}, fmt.Errorf("thumbprint: %w", err)
	}
	k.thumb = base64.RawURLEncoding.EncodeToString(sum)
	return k, nil
}

// public builds the key itself. go-jose refuses points that are not on their
// curve and Ed25519 keys of low order; RSA is ours because go-jose takes any
// exponent from 2 and stops at 4096 bits.
func (j jwk) public() (any, error) {
	switch j.kty {
	case "RSA":
		return j.rsa()
	case "EC":
		if !slices.Contains([]string{"P-256", "P-384", "P-521"}, j.crv) {
			return nil, errors.New("unknown curve")
		}
	case "OKP":
		if j.crv != "Ed25519" {
			return nil, errors.New("unknown curve")
		}
	case "":
		return nil, errors.New("kty is missing")
	default:
		return nil, errors.New("unknown kty")
	}
	for _, s := range []string{j.x, j.y} {
		if _, err := decode(s); err != nil {
			return nil, errors.New("coordinate is not base64url")
		}
	}
	clean := map[string]string{"kty": j.kty, "crv": j.crv, "x": j.x}
	if j.kty == "EC" {
		clean["y"] = j.y
	}
	raw, err := json.Marshal(clean)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	var k gojose.JSONWebKey
	if err := k.UnmarshalJSON(raw); err != nil {
		return nil, errors.New("not a valid public key on its curve")
	}
	if pub, ok := k.Key.(*ecdsa.PublicKey); ok && pub.Curve != elliptic.P256() {
		return nil, errors.New("no supported algorithm")
	}
	return k.Key, nil
}

// rsa bounds what a signature of the key is worth and what checking it costs
// (RFC 7518 section 3.3, RFC 8725 section 3.2).
func (j jwk) rsa() (any, error) {
	n, err := decode(j.n)
	if err != nil || j.n == "" {
		return nil, errors.New("modulus is not base64url")
	}
	e, err := decode(j.e)
	if err != nil || j.e == "" {
		return nil, errors.New("exponent is not base64url")
	}
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(n)}
	exp := new(big.Int).SetBytes(e)
	switch bits := pub.N.BitLen(); {
	case bits < minRSABits:
		return nil, fmt.Errorf("RSA modulus is shorter than %d bits", minRSABits)
	case bits > maxRSABits:
		return nil, fmt.Errorf("RSA modulus is longer than %d bits", maxRSABits)
	case pub.N.Bit(0) == 0:
		return nil, errors.New("RSA modulus is even")
	case exp.Cmp(minExponent) < 0, exp.Cmp(maxExponent) > 0, exp.Bit(0) == 0:
		return nil, errors.New("RSA exponent is out of range")
	}
	pub.E = int(exp.Int64())
	return pub, nil
}

// decode reads base64url without padding. encoding/base64 on its own lets line
// breaks and stray bits through, so that one value could be written in many
// ways.
func decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break in base64url")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}
