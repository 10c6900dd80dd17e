package upstream

import (
	"context"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// EventLogout is the member of events that makes a token a logout token.
const EventLogout = "http://schemas.openid.net/event/backchannel-logout"

// Farewell is what a provider's logout token says.
type Farewell struct {
	Subject, JTI string
	Expires      time.Time // until when the jti must not come again
}

// VerifyLogout checks a logout token of the provider (OpenID Connect Back-Channel
// Logout section 2.6, OIDC-10). Whether its jti came before is the caller's
// business. A token that names a session only is refused: we keep no names of
// sessions elsewhere.
func (p *Provider) VerifyLogout(ctx context.Context, token string) (*Farewell, error) {
	c, err := p.read(ctx, token, "", "JWT", oauth.TypLogoutToken)
	if err != nil {
		return nil, err
	}
	now := p.cfg.Now()
	event, has := c.Events[EventLogout]
	switch {
	case !has || !strings.HasPrefix(strings.TrimSpace(string(event)), "{"):
		return nil, refused("logout token: it is not about a logout")
	case c.hasNonce:
		return nil, refused("logout token: it has a nonce")
	case c.JTI == "" || len(c.JTI) > 255:
		return nil, refused("logout token: it has no jti")
	case c.Subject == "":
		return nil, refused("logout token: it names no subject")
	case now.Sub(at(*c.Issued)) > maxAge, c.Expires != nil && !now.Before(at(*c.Expires).Add(skew)):
		return nil, refused("logout token: it has expired")
	}
	return &Farewell{Subject: c.Subject, JTI: c.JTI, Expires: now.Add(2 * maxAge)}, nil
}
