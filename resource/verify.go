package resource

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/oauth"
)

// MaxToken is the longest access token that is looked at, in bytes.
const MaxToken = 16 << 10

// Verify checks a bearer token and returns what it says. The issuer decides
// which keys are tried, and only after it was found, byte for byte, among the
// configured ones. A token that is bound to a key or a certificate is refused:
// only [Guard.Protect] sees the request that has to prove it. An error is always
// an *oauth.Error: invalid_token, or temporarily_unavailable when the issuer's keys
// cannot be had.
func (g *Guard) Verify(ctx context.Context, token string) (Token, error) {
	t, c, err := g.verify(ctx, token)
	switch {
	case err != nil:
		return Token{}, err
	case c.bound != nil:
		return Token{}, invalid("RS-24", "the access token is bound to a key and cannot be used as a bearer token")
	case g.cfg.DPoP.Required:
		return Token{}, invalid("RS-24", "only access tokens that are bound to a key are accepted here")
	}
	return t, nil
}

// verify is Verify without a look at what the token is bound to.
func (g *Guard) verify(ctx context.Context, token string) (Token, *claims, error) {
	var c *claims
	var err error
	if g.introspect == nil || signed(token) {
		if c, err = g.local(ctx, token); err != nil {
			return Token{}, nil, err
		}
	}
	if g.introspect != nil {
		if c, err = g.confirm(ctx, token, c); err != nil {
			return Token{}, nil, err
		}
	}
	return Token{
		Issuer: c.issuer, Subject: c.subject, ClientID: c.clientID, ID: c.id,
		Scopes: c.scopes, Issued: c.issued, Expires: c.expires, AuthTime: c.authTime, ACR: c.acr, granted: g.expand(c.scopes),
	}, c, nil
}

// signed reports whether a token looks like a signed JWT, and not like one of which
// only the authorization server knows what it says.
func signed(token string) bool {
	return strings.HasPrefix(token, "ey") && strings.Count(token, ".") == 2
}

// local checks a signed token without asking about it.
func (g *Guard) local(ctx context.Context, token string) (*claims, error) {
	msg, err := jose.Parse(token, MaxToken)
	if err != nil {
		return nil, invalid("RS-12", "the access token is not a signed token that is accepted here").Because(err)
	}
	if !slices.Contains(g.algorithms, msg.Header.Alg) {
		return nil, invalid("RS-12", "the access token is signed in a way that is not accepted here")
	}
	if !g.goodType(msg.Header.Typ) {
		return nil, invalid("RS-12", "this is not an access token: its typ must be at+jwt")
	}
	c, err := readClaims(msg.Claims)
	if err != nil {
		return nil, invalid("RS-12", "the access token's claims cannot be read").Because(err)
	}
	from := g.issuers[c.issuer]
	if from == nil {
		return nil, invalid("RS-10", "the access token comes from an authorization server that is not trusted here")
	}
	key, err := from.key(ctx, msg.Header.KID, msg.Header.Alg)
	if errors.Is(err, errNoKeys) {
		return nil, oauth.Refuse(oauth.TemporarilyUnavailable, "the authorization server's keys cannot be had just now").Under("RS-13").Because(err)
	}
	if err != nil {
		return nil, invalid("RS-13", "the access token is signed with a key that is not known").Because(err)
	}
	if err := msg.Verify(key); err != nil {
		return nil, invalid("RS-12", "the access token's signature is wrong").Because(err)
	}
	if err := g.judge(c); err != nil {
		return nil, err
	}
	return c, nil
}

func (g *Guard) goodType(typ string) bool {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	return strings.EqualFold(typ, oauth.TypAccessToken) ||
		g.cfg.AllowMissingTyp && (typ == "" || strings.EqualFold(typ, "JWT"))
}

// judge decides on claims whose signature was verified.
func (g *Guard) judge(c *claims) error {
	now := g.cfg.Now()
	latest := now.Add(g.cfg.Skew)
	switch {
	case !slices.Contains(c.audience, g.cfg.Resource) && !planted.Weak("audience"):
		return invalid("RS-11", "the access token was issued for another resource")
	case c.expires.IsZero():
		return invalid("RS-12", "the access token has no expiry")
	case !now.Before(c.expires):
		return invalid("RS-12", "the access token has expired")
	case c.notBefore.After(latest):
		return invalid("RS-12", "the access token is not valid yet")
	case c.issued.After(latest):
		return invalid("RS-12", "the access token was issued in the future")
	case c.subject == "":
		return invalid("RS-12", "the access token names no subject")
	case c.idToken:
		return invalid("RS-12", "this is an ID token, not an access token")
	}
	return nil
}

func invalid(rule, hint string) *oauth.Error {
	return oauth.Refuse(oauth.InvalidToken, "%s", hint).Under(rule)
}

// claims are the members of an access token that decide something.
type claims struct {
	issuer, subject, clientID, id string
	audience                      []string
	scopes                        oauth.Scopes
	issued, notBefore, expires    time.Time
	bound                         *confirmation // cnf: possession has to be proven; nil if absent
	idToken                       bool          // nonce or at_hash
	authTime                      time.Time     // when the person signed in; zero if absent
	acr                           string        // how
}

var errClaim = errors.New("a claim has the wrong type")

// readClaims reads what jose.Parse has found to be strict JSON.
func readClaims(raw []byte) (*claims, error) {
	c := &claims{}
	var azp string
	err := members(raw, func(name string, v []byte) error {
		var err error
		switch name {
		case "iss":
			c.issuer, err = claimText(v)
		case "sub":
			c.subject, err = claimText(v)
		case "client_id":
			c.clientID, err = claimText(v)
		case "azp":
			azp, err = claimText(v)
		case "jti":
			c.id, err = claimText(v)
		case "aud":
			c.audience, err = claimList(v)
		case "scope":
			c.scopes, err = claimScopes(v)
		case "scp": // what Entra ID and Okta write instead
			if len(c.scopes) == 0 {
				c.scopes, err = claimScopes(v)
			}
		case "exp":
			c.expires, err = claimTime(v)
		case "nbf":
			c.notBefore, err = claimTime(v)
		case "iat":
			c.issued, err = claimTime(v)
		case "auth_time":
			c.authTime, err = claimTime(v)
		case "acr":
			c.acr, err = claimText(v)
		case "cnf":
			var b confirmation
			b, err = readConfirmation(v)
			c.bound = &b
		case "nonce", "at_hash", "c_hash":
			c.idToken = true
		}
		return err
	})
	if c.clientID == "" {
		c.clientID = azp
	}
	return c, err
}

func claimText(v []byte) (string, error) {
	if v[0] != '"' {
		return "", errClaim
	}
	return text(v), nil
}

func claimList(v []byte) ([]string, error) {
	if v[0] == '"' {
		return []string{text(v)}, nil
	}
	if v[0] != '[' {
		return nil, errClaim
	}
	var out []string
	for _, e := range elements(v) {
		s, err := claimText(e)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// claimScopes reads scopes. Those of a claim that is empty are none, and not nil.
func claimScopes(v []byte) (oauth.Scopes, error) {
	list, err := claimList(v)
	if err != nil {
		return nil, err
	}
	s, err := oauth.ParseScopes(strings.Join(list, " "))
	if s == nil {
		s = oauth.Scopes{}
	}
	return s, err
}

// claimTime reads a NumericDate: a number of seconds, never a string, within
// the years that a clock can show.
func claimTime(v []byte) (time.Time, error) {
	if v[0] == '"' {
		return time.Time{}, errClaim
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || f < 1 || f > 253402300799 {
		return time.Time{}, errClaim
	}
	whole := int64(f)
	return time.Unix(whole, int64((f-float64(whole))*1e9)), nil
}
