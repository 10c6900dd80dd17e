package resource

import (
	"context"
	"net/url"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// Token is what a verified access token says. It does not hold the token
// itself: a server that needs access elsewhere gets a token of its own (RS-16).
type Token struct {
	Issuer   string       // authorization server that vouches for the rest
	Subject  string       // the user, unique within Issuer; equals ClientID when a client acts for itself
	ClientID string       // the application; for CIMD clients the URL of its document
	ID       string       // jti, for correlation; may be empty
	Scopes   oauth.Scopes // as granted, without what they imply
	Issued   time.Time    // zero when the token does not say
	Expires  time.Time

	// AuthTime and ACR say when and how the person signed in; zero where the token
	// does not say.
	AuthTime time.Time
	ACR      string

	// KeyThumbprint is that of the key whose possession the caller proved (RFC 9449,
	// RFC 7638); "" for a bearer token.
	KeyThumbprint string

	granted oauth.Scopes // Scopes and all that they imply; nil means Scopes
}

// User returns a name for the user that is unique across issuers: bind state
// that outlives a request to it.
func (t Token) User() string { return t.Issuer + " " + t.Subject }

// ClientHost returns the host of a client_id that is a URL, for logs and pages,
// or "".
func (t Token) ClientHost() string {
	if u, err := url.Parse(t.ClientID); err == nil && u.Scheme == "https" {
		return u.Hostname()
	}
	return ""
}

// ClientOnly reports that no user stands behind the token: the client acts for
// itself.
func (t Token) ClientOnly() bool { return t.Subject != "" && t.Subject == t.ClientID }

// Allows reports whether the token holds every one of the scopes, directly or
// through a broader one.
func (t Token) Allows(scopes ...string) bool {
	if t.granted == nil {
		return t.Scopes.Covers(scopes)
	}
	return t.granted.Covers(scopes)
}

type tokenKey struct{}

// FromContext returns the token of the request that ctx belongs to. ok is false
// when the request did not pass a [Guard].
func FromContext(ctx context.Context) (t Token, ok bool) {
	t, ok = ctx.Value(tokenKey{}).(Token)
	return t, ok
}

// NewContext returns a context that carries t: for adapters, and for tests of
// handlers that call [FromContext].
func NewContext(ctx context.Context, t Token) context.Context {
	return context.WithValue(ctx, tokenKey{}, t)
}
