package keyring

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// EventLogout is the member of events that makes a token a logout token (OpenID
// Connect Back-Channel Logout section 2.4).
const EventLogout = "http://schemas.openid.net/event/backchannel-logout"

// LogoutToken tells one client that a session has ended.
type LogoutToken struct {
	Subject, ClientID, SID, JTI string

	Issued, Expires time.Time
}

type logoutClaims struct {
	Issuer   string              `json:"iss"`
	Subject  string              `json:"sub,omitempty"`
	Audience string              `json:"aud"`
	Issued   int64               `json:"iat"`
	Expires  int64               `json:"exp"`
	JTI      string              `json:"jti"`
	SID      string              `json:"sid,omitempty"`
	Events   map[string]struct{} `json:"events"`
}

// MintLogout signs a logout token. Its type is logout+jwt and it has no nonce,
// so that it never passes for an ID token (OIDC-09).
func (r *Ring) MintLogout(t LogoutToken) (string, error) {
	if t.ClientID == "" || t.JTI == "" || t.Subject == "" && t.SID == "" {
		return "", errors.New("mint logout token: a client, a jti and a subject or a session are required")
	}
	if err := r.checkLife(t.Issued, t.Expires); err != nil {
		return "", err
	}
	return r.signer().private.Sign(oauth.TypLogoutToken, &logoutClaims{
		Issuer: r.cfg.Issuer, Subject: t.Subject, Audience: t.ClientID, Issued: t.Issued.Unix(), Expires: t.Expires.Unix(),
		JTI: t.JTI, SID: t.SID, Events: map[string]struct{}{EventLogout: {}},
	})
}

// Hint is what one of our own ID tokens says about whom it was issued to.
type Hint struct{ Subject, ClientID, SID string }

// ErrNoHint says that a string is no ID token that we signed with a key that is
// still published.
var ErrNoHint = errors.New("not an ID token of this server")

// VerifyHint reads an ID token that comes back to us as id_token_hint. It may
// have expired: a client keeps it for as long as the person stays signed in
// (OpenID Connect RP-Initiated Logout section 4). What counts is that we signed
// it, and that it is an ID token and nothing else of ours (OIDC-04).
func (r *Ring) VerifyHint(token string) (Hint, error) {
	m, err := jose.Parse(token, maxToken)
	if err != nil {
		return Hint{}, ErrNoHint
	}
	k := r.state.Load().published(m.Header.KID)
	if m.Header.Typ != "JWT" || k == nil || m.Header.Alg != k.alg || m.Verify(k.public) != nil {
		return Hint{}, ErrNoHint
	}
	var c struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"`
		SID      string `json:"sid"`
	}
	if json.Unmarshal(m.Claims, &c) != nil || c.Issuer != r.cfg.Issuer || c.Subject == "" || c.Audience == "" {
		return Hint{}, ErrNoHint
	}
	return Hint{c.Subject, c.Audience, c.SID}, nil
}
