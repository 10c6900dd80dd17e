package oauth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
)

// NewVerifier returns a fresh PKCE verifier: 32 random octets in base64url, 43
// characters (OAuth 2.1 section 4.1.1).
func NewVerifier() string { return RandomToken(32) }

// RandomToken returns n random octets in base64url without padding.
func RandomToken(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails since Go 1.24: it aborts the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// S256 returns the S256 code challenge of a verifier.
func S256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// ValidVerifier reports whether v has the syntax of a code verifier: 43 to 128
// unreserved characters.
func ValidVerifier(v string) bool { return len(v) >= 43 && len(v) <= 128 && unreserved(v) }

// ValidChallenge reports whether c can be an S256 challenge: exactly 43
// characters of base64url (AUTHZ-08).
func ValidChallenge(c string) bool {
	if len(c) != 43 {
		return false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(c)
	return err == nil && len(b) == sha256.Size
}

// VerifierMatches reports, in constant time, whether verifier is the one behind
// an S256 challenge.
func VerifierMatches(verifier, challenge string) bool {
	return subtle.ConstantTimeCompare([]byte(S256(verifier)), []byte(challenge)) == 1
}

func unreserved(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_', c == '~':
		default:
			return false
		}
	}
	return true
}
