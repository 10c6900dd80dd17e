package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What one event may weigh. Longer values are cut and end in an ellipsis.
const (
	MaxIdentifier = 2048 // client and resource: as long as a client_id may be
	MaxField      = 256  // every other member
	MaxData       = 24   // entries of Data; the first in alphabetical order stay
	MaxDataKey    = 64
	MaxDataValue  = 512
)

// Removed stands where a value looked like a secret.
const Removed = "[removed]"

// secretNames are parts of a key that mark its value as a secret.
var secretNames = []string{
	"token", "secret", "assertion", "password", "passwd", "passphrase",
	"verifier", "authorization", "cookie", "credential", "private", "jwt",
}

// Clean returns a copy of the event that is safe to write and to show: lengths
// are capped, control characters, terminal sequences, line separators and
// direction overrides are spelled out as \u escapes, entries of Data that are
// named like a secret are dropped and values that look like one are replaced
// (AD-07, TK-13). The time is in UTC with microseconds. Cleaning twice changes
// nothing more.
func (e Event) Clean() Event {
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	e.Type = Type(clean(string(e.Type), MaxField))
	for _, f := range []*string{&e.Client, &e.Resource} {
		*f = clean(*f, MaxIdentifier)
	}
	for _, f := range []*string{&e.Ref, &e.User, &e.Grant, &e.IP, &e.Rule, &e.Code} {
		*f = clean(*f, MaxField)
	}
	if e.Data == nil {
		return e
	}
	data := make(map[string]string, min(len(e.Data), MaxData))
	for _, k := range slices.Sorted(maps.Keys(e.Data)) {
		if len(data) == MaxData {
			break
		}
		// Spelling out a control character can put letters in front of the rest.
		if shown := clean(k, MaxDataKey); !secretName(k) && !secretName(shown) {
			data[shown] = clean(e.Data[k], MaxDataValue)
		}
	}
	e.Data = data
	return e
}

// secretName reports whether a value with this name must not be recorded.
func secretName(key string) bool {
	k := strings.ToLower(key)
	if k == "code" {
		return true
	}
	for _, s := range secretNames {
		if strings.Contains(k, s) {
			return true
		}
	}
	return false
}

// clean escapes, removes secrets and cuts to limit bytes.
func clean(s string, limit int) string {
	if s == "" {
		return s
	}
	if len(s) > 8*limit { // nothing past this point can survive the cut
		s = s[:8*limit]
	}
	shown := cut(escape(s), limit)
	if secretShape(s) || shown != s && secretShape(shown) {
		return Removed
	}
	return shown
}

// escape spells out what could start a new record, move a cursor or turn the
// direction of text around.
func escape(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unsafeRune(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case unsafeRune(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// plain reports whether s is printable ASCII, which most values are.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// unsafeRune reports whether r is a control or format character or a line or
// paragraph separator.
func unsafeRune(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs)
}

const ellipsis = "…"

// cut shortens s to at most limit bytes without splitting a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit - len(ellipsis)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}

// secretShape reports whether s holds something that only a secret looks like: a
// compact JWS, the value of an Authorization header, a private key, a password
// hash.
func secretShape(s string) bool {
	if holdsJWS(s) || strings.Contains(s, "PRIVATE KEY-----") || strings.Contains(s, "$argon2") {
		return true
	}
	for _, scheme := range []string{"bearer", "basic", "dpop"} {
		if len(s) > len(scheme)+1 && strings.EqualFold(s[:len(scheme)], scheme) && s[len(scheme)] == ' ' {
			if credentials := strings.TrimSpace(s[len(scheme):]); len(credentials) >= 8 && !strings.ContainsAny(credentials, " \"") {
				return true
			}
		}
	}
	return false
}

// holdsJWS looks for a base64url JSON object ("eyJ") followed by a second part.
func holdsJWS(s string) bool {
	for {
		i := strings.Index(s, "eyJ")
		if i < 0 {
			return false
		}
		s = s[i:]
		n := base64Run(s)
		if n >= 10 && n < len(s) && s[n] == '.' && base64Run(s[n+1:]) >= 10 {
			return true
		}
		s = s[n:] // what begins inside this run ends where it ends
	}
}

func base64Run(s string) int {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return i
		}
	}
	return len(s)
}
