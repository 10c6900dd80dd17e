package authorize

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/bonafide-id/bonafide/internal/store"
)

// A user code is eight letters of twenty, shown as WDJB-MJHT: consonants only,
// so that no code is a word, and no letter that passes for a digit or for
// another letter (RFC 8628 section 6.1).
const (
	userLetters   = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLen   = 8
	userCodeSpace = 25_600_000_000 // 20 to the power of 8

	maxTyped = 64 // bytes of what a person may type for a code
)

// newUserCode returns a fresh code without its dash.
func newUserCode() string {
	const even = 256 / len(userLetters) * len(userLetters) // above it some letters would come more often
	out := make([]byte, 0, userCodeLen)
	for len(out) < userCodeLen {
		var b [2 * userCodeLen]byte
		rand.Read(b[:])
		for _, c := range b {
			if int(c) < even && len(out) < userCodeLen {
				out = append(out, userLetters[int(c)%len(userLetters)])
			}
		}
	}
	return string(out)
}

// showUserCode returns a code as people see it.
func showUserCode(code string) string { return code[:userCodeLen/2] + "-" + code[userCodeLen/2:] }

// lookalikes are letters of other alphabets with the shape of a letter of ours:
// the keyboard of the person may be set to them.
var lookalikes = strings.NewReplacer(
	"В", "B", "С", "C", "Н", "H", "К", "K", "М", "M", "Р", "P", "Т", "T", "Х", "X", "Ј", "J", "Ѕ", "S", // Cyrillic
	"в", "B", "с", "C", "н", "H", "к", "K", "м", "M", "р", "P", "т", "T", "х", "X", "ј", "J", "ѕ", "S",
	"Β", "B", "Η", "H", "Κ", "K", "Μ", "M", "Ν", "N", "Ρ", "P", "Τ", "T", "Χ", "X", "Ζ", "Z", // Greek
)

// parseUserCode reads what a person typed: in either case, in the letters of any
// width, with dashes, dots and spaces of any kind. Every spelling of a code
// becomes the same eight letters, so that there is one bucket to count in and one
// row to look up (DV-05). It reports false for what cannot be a code.
func parseUserCode(typed string) (string, bool) {
	if len(typed) > maxTyped {
		return "", false
	}
	out := make([]byte, 0, userCodeLen)
	for _, c := range lookalikes.Replace(norm.NFKC.String(typed)) {
		up := unicode.ToUpper(c)
		switch {
		case up <= 'Z' && strings.IndexByte(userLetters, byte(up)) >= 0:
			if len(out) == userCodeLen {
				return "", false
			}
			out = append(out, byte(up))
		case unicode.IsSpace(c), unicode.IsPunct(c), unicode.Is(unicode.Cf, c), c == '−':
		default:
			return "", false
		}
	}
	return string(out), len(out) == userCodeLen
}

// userCodeHash is what is kept of a code. There are too few codes for a plain
// hash to hide one, so it takes a key that is not in the database.
func userCodeHash(key [32]byte, code string) store.Hash {
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(code))
	return store.Hash(mac.Sum(nil))
}
