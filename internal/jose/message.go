package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// Header is what we read of a JOSE header. Keys and key addresses in a header
// (jwk, jku, x5c, x5u) are never looked at: they are the sender's word about
// the sender (RFC 8725 section 3.10).
type Header struct {
	Alg string // one of Algorithms, by our name
	KID string // at most 256 bytes, any characters; "" if absent
	Typ string // as written; "" if absent
}

// Message is a token that was taken apart. Nothing in it is proven before
// Verify has returned nil.
type Message struct {
	Header Header
	Claims []byte // a JSON object, strictly read (see Object)

	signed    string // header and payload segment with the dot between them
	signature []byte
}

// Parse takes a compact JWS apart; it verifies nothing. Its cost is bounded by
// maxBytes (0 = 16 KiB), which is checked first. Refused are: everything that
// is not three base64url segments (JWE, the JSON forms), an algorithm outside
// Algorithms, the header members crit and b64, member names that stand twice,
// nested tokens, and a payload that is not a JSON object. The error quotes
// nothing of the token but a name that stands twice.
func Parse(compact string, maxBytes int) (*Message, error) {
	m, err := takeApart(compact, maxBytes)
	if err != nil {
		return nil, err
	}
	if _, err := members(m.Claims); err != nil {
		return nil, fmt.Errorf("read token payload: %w", err)
	}
	return m, nil
}

// takeApart is Parse without a look at the payload, which is any octets here.
func takeApart(compact string, maxBytes int) (*Message, error) {
	if maxBytes == 0 {
		maxBytes = 16 << 10
	}
	if len(compact) > maxBytes {
		return nil, fmt.Errorf("token is larger than %d bytes", maxBytes)
	}
	head, rest, ok := strings.Cut(compact, ".")
	if !ok {
		return nil, errors.New("not a compact JWS")
	}
	body, sig, ok := strings.Cut(rest, ".")
	if !ok || strings.IndexByte(sig, '.') >= 0 {
		return nil, errors.New("not a compact JWS")
	}
	m := &Message{signed: compact[:len(head)+1+len(body)]}
	var err error
	if m.Header, err = parseHeader(head); err != nil {
		return nil, err
	}
	if m.Claims, err = decode(body); err != nil {
		return nil, errors.New("token payload is not base64url")
	}
	if m.signature, err = decode(sig); err != nil || sig == "" {
		return nil, errors.New("token signature is not base64url")
	}
	return m, nil
}

func parseHeader(segment string) (Header, error) {
	raw, err := decode(segment)
	if err != nil {
		return Header{}, errors.New("token header is not base64url")
	}
	list, err := members(raw)
	if err != nil {
		return Header{}, fmt.Errorf("read token header: %w", err)
	}
	var h Header
	for _, m := range list {
		var dst *string
		var content string
		switch m.name {
		case "alg":
			dst = &h.Alg
		case "kid":
			dst = &h.KID
		case "typ":
			dst = &h.Typ
		case "cty":
			dst = &content
		case "crit", "b64": // we understand no extension, so none may be critical (RFC 7515 section 4.1.11)
			return Header{}, errors.New("token header asks for an extension")
		case "enc", "zip":
			return Header{}, errors.New("token header belongs to an encrypted token")
		default:
			continue
		}
		if *dst, err = text(m.value); err != nil {
			return Header{}, fmt.Errorf("token header member %s is not a string", m.name)
		}
		if content = strings.ToLower(content); content == "jwt" || content == "application/jwt" {
			return Header{}, errors.New("token is nested")
		}
	}
	if h.Alg = Canonical(h.Alg); !slices.Contains(Algorithms, h.Alg) {
		return Header{}, errors.New("token algorithm is not one of " + strings.Join(Algorithms, ", "))
	}
	if len(h.KID) > maxKID {
		return Header{}, errors.New("token kid is too long")
	}
	return h, nil
}

// Verify returns nil if and only if the key fits the algorithm of the header
// and made the signature. A key that does not fit is ErrNoKey, a signature
// that it did not make is ErrSignature.
func (m *Message) Verify(k Key) error {
	if !k.Fits(m.Header.Alg) {
		return ErrNoKey
	}
	ok := false
	switch pub := k.pub.(type) {
	case *ecdsa.PublicKey:
		// r and s, each with the size of the curve (RFC 7518 section 3.4)
		if len(m.signature) == 64 {
			sum := sha256.Sum256([]byte(m.signed))
			r, s := new(big.Int).SetBytes(m.signature[:32]), new(big.Int).SetBytes(m.signature[32:])
			ok = ecdsa.Verify(pub, sum[:], r, s)
		}
	case *rsa.PublicKey:
		sum := sha256.Sum256([]byte(m.signed))
		if m.Header.Alg == PS256 {
			ok = rsa.VerifyPSS(pub, crypto.SHA256, sum[:], m.signature, pss) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], m.signature) == nil
		}
	case ed25519.PublicKey:
		ok = ed25519.Verify(pub, []byte(m.signed), m.signature)
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

// pss is the one way to pad PS256: a salt as long as the hash (RFC 7518
// section 3.5).
var pss = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
