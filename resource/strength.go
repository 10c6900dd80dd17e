package resource

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// Strength says how the person behind a token has to have signed in for a tool
// (RFC 9470). A token that falls short is answered with 401
// insufficient_user_authentication, upon which a client sends its person to sign
// in again.
type Strength struct {
	// ACR are the authentication contexts that are strong enough, the preferred one
	// first; nil is any. The guard does not know which of two is the stronger.
	ACR []string
	// MaxAge is how long ago the sign-in may be; 0 is any time.
	MaxAge time.Duration
}

// weakness is a tool call that the sign-in of the token is too weak for.
type weakness struct{ Strength }

func (w *weakness) Error() string { return "the person has to sign in again, or more strongly" }

// readStrength checks the configuration.
func (g *Guard) readStrength() error {
	for tool, s := range g.cfg.Strength {
		if _, known := g.Needs(tool); tool == "" || !known {
			return fmt.Errorf("strength: %q is not among the tools", tool)
		}
		if len(s.ACR) == 0 && s.MaxAge == 0 || s.MaxAge < 0 || s.MaxAge%time.Second != 0 {
			return fmt.Errorf("strength of %q: give acr values, or a number of seconds", tool)
		}
		for _, v := range s.ACR {
			if !oauth.ValidScope(v) {
				return fmt.Errorf("strength of %q: %q is not an acr value: visible characters without space, quote and backslash", tool, v)
			}
		}
	}
	return nil
}

// met reports whether the sign-in behind a token is strong enough. What a token
// does not say counts as weak.
func (s Strength) met(t Token, now time.Time, skew time.Duration) bool {
	if len(s.ACR) > 0 && !slices.Contains(s.ACR, t.ACR) {
		return false
	}
	return s.MaxAge == 0 || !t.AuthTime.IsZero() && !t.AuthTime.After(now.Add(skew)) && now.Sub(t.AuthTime) <= s.MaxAge
}

// strong returns what the token is too weak for among the messages of a body; nil
// if nothing.
func (g *Guard) strong(t Token, msgs []message) *weakness {
	for _, m := range msgs {
		if m.method != "tools/call" {
			continue
		}
		if s, ok := g.cfg.Strength[m.name]; ok && !s.met(t, g.cfg.Now(), g.cfg.Skew) {
			return &weakness{s}
		}
	}
	return nil
}

// params are those of the challenge (RFC 9470 section 3).
func (w *weakness) params() (out []oauth.Param) {
	if len(w.ACR) > 0 {
		out = append(out, oauth.Param{Name: "acr_values", Value: strings.Join(w.ACR, " ")})
	}
	if w.MaxAge > 0 {
		out = append(out, oauth.Param{Name: "max_age", Value: strconv.Itoa(int(w.MaxAge / time.Second))})
	}
	return out
}

// Permits reports whether a call of the tool with this token would be let through:
// its scopes cover what the tool needs, and its sign-in is strong enough. Adapters
// decide a second time with it, on what their library has read.
func (g *Guard) Permits(t Token, tool string) bool {
	s, demanding := g.cfg.Strength[tool]
	return g.holds(t, tool) && (!demanding || s.met(t, g.cfg.Now(), g.cfg.Skew))
}

func (g *Guard) holds(t Token, tool string) bool {
	needs, known := g.Needs(tool)
	return known && t.Allows(needs...)
}

// Shows reports whether a list of tools for this token should have the tool in it:
// always, so that a client can see what more permission would give it, or with
// HideTools only where its scopes cover what the tool needs (RS-20). A tool that
// lacks only a stronger sign-in is shown.
func (g *Guard) Shows(t Token, tool string) bool { return !g.cfg.HideTools || g.holds(t, tool) }

// HidesTools reports whether lists of tools differ by token, so that no cache may
// share them (cacheScope private).
func (g *Guard) HidesTools() bool { return g.cfg.HideTools }
