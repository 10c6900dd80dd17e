package upstream

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
)

// Person is who somebody is at a provider, as its ID token says.
type Person struct {
	Subject       string
	Email         string // "" if it says none
	EmailVerified bool
	UserName      string // preferred_username
	AuthTime      time.Time
	ACR           string
	AMR           []string
	SID           string
}

// idClaims are the claims that decide something (OpenID Connect Core section 2).
type idClaims struct {
	Issuer, Subject, Nonce, ACR, SID, JTI, Email, UserName string

	Audience                  audience
	Party                     *string // azp
	Expires, Issued, AuthTime *float64
	AMR                       []string
	Events                    map[string]json.RawMessage

	verified json.RawMessage // email_verified
	hasNonce bool
}

// read takes the claims by their exact names. Text that no store keeps is refused
// here, for everything that follows.
func (c *idClaims) read(raw []byte) error {
	members, err := jose.ReadClaims(raw, map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "aud": &c.Audience, "azp": &c.Party, "exp": &c.Expires, "iat": &c.Issued, "nonce": &c.Nonce,
		"auth_time": &c.AuthTime, "acr": &c.ACR, "amr": &c.AMR, "sid": &c.SID, "email": &c.Email,
		"preferred_username": &c.UserName, "jti": &c.JTI, "events": &c.Events,
	})
	if err != nil {
		return err
	}
	_, c.hasNonce = members["nonce"]
	c.verified = members["email_verified"]
	for name, t := range map[string]*float64{"exp": c.Expires, "iat": c.Issued, "auth_time": c.AuthTime} {
		if t != nil && !(*t >= 0 && *t <= 1<<40) {
			return fmt.Errorf("%s is out of range", name)
		}
	}
	return nil
}

// audience is one string or a list of them (RFC 7519 section 4.1.3).
type audience []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audience) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(a))
}

// verify checks an ID token as OpenID Connect Core section 3.1.3.7 says, and more
// strictly: the signature always counts, and no key and no algorithm comes from
// the token itself.
func (p *Provider) verify(ctx context.Context, token, nonce string) (*Person, error) {
	c, err := p.read(ctx, token, "", "JWT")
	if err != nil {
		return nil, err
	}
	now := p.cfg.Now()
	switch {
	case c.Nonce == "" || subtle.ConstantTimeCompare([]byte(c.Nonce), []byte(nonce)) != 1:
		return nil, refused("ID token: the nonce is not the one that was sent")
	case c.Events != nil:
		return nil, refused("ID token: it is a token about an event")
	case c.Expires == nil || !now.Before(at(*c.Expires).Add(skew)):
		return nil, refused("ID token: it has expired, or does not say when it does")
	case now.Sub(at(*c.Issued)) > maxAge:
		return nil, refused("ID token: it was not issued just now")
	}
	out := &Person{
		Subject: c.Subject, ACR: short(c.ACR), SID: c.SID,
		Email: short(c.Email), UserName: short(c.UserName),
		EmailVerified: string(c.verified) == "true" || c.verified == nil && p.cfg.EmailsVerified,
	}
	if t := c.AuthTime; t != nil && *t > 0 && !at(*t).After(now.Add(skew)) {
		out.AuthTime = at(*t)
	}
	for _, m := range c.AMR {
		if m != "" && len(m) <= 32 && len(out.AMR) < 8 && strings.Trim(m, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == "" {
			out.AMR = append(out.AMR, m)
		}
	}
	return out, nil
}

// read checks what ID tokens and logout tokens have in common: type, signature,
// issuer, audience, age and subject.
func (p *Provider) read(ctx context.Context, token string, types ...string) (*idClaims, error) {
	m, err := jose.Parse(token, maxIDToken)
	if err != nil {
		return nil, refused("token: %w", err)
	}
	if !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, m.Header.Typ) }) {
		return nil, refused("token: its type is that of another kind")
	}
	key, err := p.key(ctx, m.Header.KID, m.Header.Alg)
	if err != nil {
		return nil, err
	}
	if err := m.Verify(key); err != nil {
		return nil, refused("token: %w", err)
	}
	var c idClaims
	if err := c.read(m.Claims); err != nil {
		return nil, refused("token: %w", err)
	}
	now := p.cfg.Now()
	switch {
	case c.Issuer != p.cfg.Issuer:
		return nil, refused("token: it is from another issuer")
	case !slices.Contains(c.Audience, p.cfg.ClientID):
		return nil, refused("token: it is for another client")
	case len(c.Audience) > 1 && c.Party == nil:
		return nil, refused("token: it is for several and does not say for whom it was issued")
	case c.Party != nil && *c.Party != p.cfg.ClientID:
		return nil, refused("token: it was issued for another client")
	case c.Issued == nil || at(*c.Issued).After(now.Add(skew)):
		return nil, refused("token: it was issued in the future, or does not say when")
	case c.Subject == "" && c.SID == "" || len(c.Subject) > 255:
		return nil, refused("token: it names no subject")
	case c.Subject == "" && c.Events == nil:
		return nil, refused("token: it names no subject")
	}
	return &c, nil
}

// key returns the provider's key for a token. An unknown kid makes it look again,
// at most twice a minute.
func (p *Provider) key(ctx context.Context, kid, alg string) (jose.Key, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return jose.Key{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	key, err := p.keys.Find(kid, alg)
	if err == nil && now.Sub(p.keysAt) < life {
		return key, nil
	}
	known := err == nil && now.Sub(p.keysAt) < lastGood // expired, and better than nobody signing in
	if p.keysTried.IsZero() || now.Sub(p.keysTried) >= coolDown {
		var set jose.Set
		set, p.keysErr = p.keySet(ctx, d.JWKS)
		p.keysTried = p.cfg.Now()
		if p.keysErr == nil {
			p.keys, p.keysAt = set, now
			key, err = set.Find(kid, alg)
			known = err == nil
		}
	}
	switch {
	case known:
		return key, nil
	case p.keysErr != nil: // it may have come with the set that could not be read
		return jose.Key{}, p.keysErr
	case err == nil:
		return jose.Key{}, unavailable("key set: it is too old")
	}
	if errors.Is(err, jose.ErrAmbiguous) || errors.Is(err, jose.ErrNoKey) {
		return jose.Key{}, refused("token: %w", err)
	}
	return key, err
}

// keySet reads the provider's keys.
func (p *Provider) keySet(ctx context.Context, address string) (jose.Set, error) {
	raw, err := p.get(ctx, address)
	if err != nil {
		return jose.Set{}, err
	}
	set, err := jose.ParseRemoteSet(raw, jose.SetLimits{MaxBytes: maxDocument, MaxKeys: 64})
	if err != nil {
		return jose.Set{}, unavailable("key set: %w", err)
	}
	if len(set.Keys) == 0 { // a mistake over there takes nothing from us
		return jose.Set{}, unavailable("key set: it holds no usable key")
	}
	return set, nil
}

func at(seconds float64) time.Time { return time.Unix(int64(seconds), 0).UTC() }

// short drops a text that is too long for what it is meant to be.
func short(s string) string {
	if len(s) > 256 {
		return ""
	}
	return s
}
