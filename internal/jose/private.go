package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bonafide-id/bonafide/oauth"
	gojose "github.com/go-jose/go-jose/v4"
)

// Private is a signing key with one algorithm and a key ID. The zero value
// signs nothing.
type Private struct {
	key    Key
	signer crypto.Signer
	name   string // of the algorithm in headers; "" is ours
}

// Generate makes a key for one of Algorithms: P-256, Ed25519, or RSA with 2048
// bits. Its kid is its thumbprint.
func Generate(alg string) (Private, error) {
	var signer crypto.Signer
	var err error
	switch alg {
	case ES256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case PS256, RS256:
		signer, err = rsa.GenerateKey(rand.Reader, minRSABits)
	default:
		return Private{}, fmt.Errorf("generate key: unknown algorithm %q", alg)
	}
	if err != nil {
		return Private{}, fmt.Errorf("generate key: %w", err)
	}
	return newPrivate("", alg, signer)
}

func newPrivate(kid, alg string, signer crypto.Signer) (Private, error) {
	key, err := newKey(kid, alg, signer.Public())
	if err != nil {
		return Private{}, err
	}
	if key.kid == "" {
		key.kid = key.thumb
	}
	return Private{key: key, signer: signer}, nil
}

// Public returns the public half, under the same kid and algorithm.
func (p Private) Public() Key { return p.key }

// KID returns the key ID, which is never empty.
func (p Private) KID() string { return p.key.kid }

// Algorithm returns the one algorithm the key signs with.
func (p Private) Algorithm() string { return p.key.alg }

// Called returns the key under another name of its algorithm, for readers that
// know only that one: Ed25519 in place of EdDSA (RFC 9864). Any other name
// changes nothing.
func (p Private) Called(name string) Private {
	if Canonical(name) == p.key.alg {
		p.name = name
	}
	return p
}

// algorithm returns the name of the algorithm for a header.
func (p Private) algorithm() string {
	if p.name != "" {
		return p.name
	}
	return p.key.alg
}

// String names the key and tells nothing of its secret.
func (p Private) String() string { return "private key " + p.key.kid }

// GoString is String, so that %#v tells nothing either.
func (p Private) GoString() string { return p.String() }

// Sign returns claims as a compact JWS whose header holds alg, kid and, unless
// it is empty, typ. The claims have to encode to a JSON object.
func (p Private) Sign(typ string, claims any) (string, error) {
	return p.seal(struct {
		Alg string `json:"alg"`
		KID string `json:"kid"`
		Typ string `json:"typ,omitempty"`
	}{p.algorithm(), p.key.kid, typ}, claims)
}

// SignProof returns claims as a DPoP proof: a compact JWS whose header holds typ,
// alg and the public half of the key (RFC 9449 section 4.2). The claims are the
// caller's: jti, htm, htu, iat, and ath and nonce where they belong.
func (p Private) SignProof(claims any) (string, error) {
	public, err := gojose.JSONWebKey{Key: p.key.pub}.MarshalJSON()
	if err != nil {
		return "", errors.New("sign proof: no key")
	}
	return p.seal(struct {
		Typ string          `json:"typ"`
		Alg string          `json:"alg"`
		JWK json.RawMessage `json:"jwk"`
	}{oauth.TypDPoP, p.algorithm(), public}, claims)
}

func (p Private) seal(header, claims any) (string, error) {
	if p.signer == nil {
		return "", errors.New("sign token: no key")
	}
	head, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	if body[0] != '{' {
		return "", errors.New("sign token: claims are not a JSON object")
	}
	b64 := base64.RawURLEncoding
	token := make([]byte, 0, b64.EncodedLen(len(head))+b64.EncodedLen(len(body))+b64.EncodedLen(maxRSABits/8)+2)
	token = b64.AppendEncode(token, head)
	token = append(token, '.')
	token = b64.AppendEncode(token, body)
	sig, err := p.sign(token)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	token = append(token, '.')
	return string(b64.AppendEncode(token, sig)), nil
}

func (p Private) sign(input []byte) ([]byte, error) {
	sum := sha256.Sum256(input)
	switch key := p.signer.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return nil, err
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		return sig, nil
	case *rsa.PrivateKey:
		if p.key.alg == PS256 {
			return rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], pss)
		}
		return rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	case ed25519.PrivateKey:
		return ed25519.Sign(key, input), nil
	}
	return nil, errors.New("unknown type of key")
}

// MarshalJSON returns the key as a private JWK with kid, alg and use. The
// result is a secret.
func (p Private) MarshalJSON() ([]byte, error) {
	if p.signer == nil {
		return nil, errors.New("write private key: no key")
	}
	return gojose.JSONWebKey{Key: p.signer, KeyID: p.key.kid, Algorithm: p.key.alg, Use: "sig"}.MarshalJSON()
}

// MarshalJSON returns the key as a public JWK with kid and alg where they are
// known, and use "sig".
func (k Key) MarshalJSON() ([]byte, error) {
	if k.pub == nil {
		return nil, errors.New("write public key: no key")
	}
	return gojose.JSONWebKey{Key: k.pub, KeyID: k.kid, Algorithm: k.alg, Use: "sig"}.MarshalJSON()
}

// ParsePrivate reads a private JWK and holds it to the same demands as a
// public one. An elliptic curve key may leave out alg, which then follows from
// the curve; an RSA key, which fits two, may not. Without a kid it gets its
// thumbprint. RSA keys longer than 4096 bits are not read. No error quotes the
// key.
func ParsePrivate(raw []byte) (Private, error) {
	j, err := readJWK(raw)
	if err != nil {
		return Private{}, fmt.Errorf("read private key: %w", err)
	}
	if !j.private || j.kty == "oct" {
		return Private{}, errors.New("read private key: not a private key")
	}
	half := j
	half.private, half.hasOps = false, false // key_ops of a private key says "sign"
	pub, err := half.key()
	if err != nil {
		return Private{}, fmt.Errorf("read private key: %w", err)
	}
	var full gojose.JSONWebKey
	if err := full.UnmarshalJSON(raw); err != nil {
		return Private{}, errors.New("read private key: private and public half do not match")
	}
	signer, ok := full.Key.(crypto.Signer)
	if !ok {
		return Private{}, errors.New("read private key: not a private key")
	}
	if ec, ok := signer.(*ecdsa.PrivateKey); ok { // go-jose does not compare d with x and y
		d, err := ec.Bytes()
		if err != nil {
			return Private{}, errors.New("read private key: not a private key")
		}
		derived, err := ecdsa.ParseRawPrivateKey(ec.Curve, d)
		if err != nil || !derived.PublicKey.Equal(pub.pub) {
			return Private{}, errors.New("read private key: private and public half do not match")
		}
		signer = derived
	}
	alg := pub.alg
	if _, isRSA := pub.pub.(*rsa.PublicKey); isRSA && alg == "" {
		return Private{}, errors.New("read private key: an RSA key has to say its alg")
	}
	for _, a := range Algorithms {
		if alg == "" && pub.Fits(a) {
			alg = a
		}
	}
	p, err := newPrivate(pub.kid, alg, signer)
	if err != nil {
		return Private{}, fmt.Errorf("read private key: %w", err)
	}
	if p.key.thumb != pub.thumb {
		return Private{}, errors.New("read private key: private and public half do not match")
	}
	return p, nil
}
