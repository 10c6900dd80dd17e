package oauth

import (
	"errors"
	"slices"
	"strings"
)

// Limits on a scope parameter: more is refused, never truncated.
const (
	MaxScopes      = 64
	MaxScopeLength = 128
)

// Scopes is a set of scope tokens in the order in which they were first named.
// The zero value is the empty set.
type Scopes []string

// ParseScopes reads a scope parameter: tokens separated by single or repeated
// spaces, duplicates dropped. It refuses characters outside the grammar of
// OAuth 2.1 section 1.4.1 and more than MaxScopes tokens.
func ParseScopes(s string) (Scopes, error) {
	if len(s) > MaxScopes*(MaxScopeLength+1) {
		return nil, errors.New("scope is too long")
	}
	var out Scopes
	for t := range strings.SplitSeq(s, " ") {
		if t == "" {
			continue
		}
		if !ValidScope(t) {
			return nil, errors.New("scope holds a character that is not allowed, or a token that is too long")
		}
		if !out.Has(t) {
			out = append(out, t)
		}
		if len(out) > MaxScopes {
			return nil, errors.New("too many scopes")
		}
	}
	return out, nil
}

// ValidScope reports whether t is one scope token: visible ASCII without the
// double quote and the backslash, at most MaxScopeLength characters (RS-27).
func ValidScope(t string) bool {
	if t == "" || len(t) > MaxScopeLength {
		return false
	}
	for i := range len(t) {
		if c := t[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// Has reports whether t is in the set.
func (s Scopes) Has(t string) bool { return slices.Contains(s, t) }

// Covers reports whether every scope of other is in s.
func (s Scopes) Covers(other Scopes) bool {
	for _, t := range other {
		if !s.Has(t) {
			return false
		}
	}
	return true
}

// And returns the scopes of s that are also in other, in the order of s.
func (s Scopes) And(other Scopes) Scopes {
	var out Scopes
	for _, t := range s {
		if other.Has(t) {
			out = append(out, t)
		}
	}
	return out
}

// Without returns the scopes of s that are not in other, in the order of s.
func (s Scopes) Without(other Scopes) Scopes {
	var out Scopes
	for _, t := range s {
		if !other.Has(t) {
			out = append(out, t)
		}
	}
	return out
}

// Or returns the scopes of s followed by those of other that s lacks.
func (s Scopes) Or(other Scopes) Scopes {
	out := slices.Clone(s)
	for _, t := range other {
		if !out.Has(t) {
			out = append(out, t)
		}
	}
	return out
}

// String returns the set as a scope parameter.
func (s Scopes) String() string { return strings.Join(s, " ") }
