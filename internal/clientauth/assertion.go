package clientauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// Limits on a client assertion.
const (
	maxAssertion = 16 << 10 // bytes
	maxLife      = 5 * time.Minute
	skew         = time.Minute // how far the client's clock may be ahead of ours
	maxJTI       = 256         // bytes
)

// assertion is one client assertion on its way through the checks.
type assertion struct {
	request *Request
	message *jose.Message
	claims  claims
	now     time.Time
	issuer  string // ours
	expires time.Time
	client  *directory.Client
}

// claims are those of RFC 7523 section 3. A NumericDate may have a fraction.
type claims struct {
	Issuer, Subject, JTI       string
	Audience                   json.RawMessage
	Expires, NotBefore, Issued *float64
}

// read takes the members by their exact names; encoding/json alone would take
// "AUD" for "aud".
func (c *claims) read(raw []byte) error {
	members, err := jose.Object(raw)
	if err != nil {
		return err
	}
	c.Audience = members["aud"]
	for name, into := range map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "jti": &c.JTI, "exp": &c.Expires, "nbf": &c.NotBefore, "iat": &c.Issued,
	} {
		if v, ok := members[name]; ok && json.Unmarshal(v, into) != nil {
			return fmt.Errorf("%s has the wrong type", name)
		}
	}
	return nil
}

// cheap are the checks of an assertion that need neither a key nor the network,
// in their order; the client is looked up where known stands (CAUTH-12).
var cheap = []struct {
	rule  string
	check func(*assertion) error
}{
	{"CAUTH-09", checkType},
	{"CAUTH-03", checkIssuer},
	{"CAUTH-04", checkAudience},
	{"CAUTH-05", checkTimes},
	{"CAUTH-06", checkJTI},
}

// assertion authenticates with private_key_jwt (RFC 7523). The id of the
// assertion is spent last, after the signature: a stranger can neither fill the
// store nor use up the id of somebody else's assertion.
func (a *Authenticator) assertion(ctx context.Context, q *Request) (*Client, error) {
	if q.AssertionType != oauth.AssertionTypeJWT || q.Assertion == "" {
		return nil, fail("CAUTH-03", "client_assertion or its type %q cannot be used", q.AssertionType)
	}
	if len(q.Assertion) > maxAssertion {
		return nil, oauth.Refuse(oauth.InvalidRequest, "client_assertion is larger than %d bytes", maxAssertion).Under("CAUTH-12")
	}
	m, err := jose.Parse(q.Assertion, maxAssertion)
	if err != nil {
		return nil, fail("CAUTH-07", "parse: %w", err)
	}
	as := &assertion{request: q, message: m, now: a.cfg.Now(), issuer: a.cfg.Issuer}
	if err := as.claims.read(m.Claims); err != nil {
		return nil, fail("CAUTH-03", "claims: %w", err)
	}
	q.claimed = as.claims.Issuer
	for _, c := range cheap {
		if err := c.check(as); err != nil {
			return nil, fail(c.rule, "%w", err)
		}
	}
	as.client, err = a.known(ctx, q, as.claims.Issuer, oauth.MethodPrivateKeyJWT)
	if err != nil {
		return nil, err
	}
	if alg := as.client.SigningAlg; alg != "" && alg != m.Header.Alg {
		return nil, fail("CAUTH-07", "signed with %s; the client declares %s", m.Header.Alg, alg)
	}
	if !as.client.Decision.MaySign(m.Header.Alg) {
		return nil, fail("POL-09", "policy rule %q does not accept %s", as.client.Decision.Rule, m.Header.Alg)
	}
	if as.client.Decision.FAPI && !isText(as.claims.Audience) {
		return nil, fail("POL-09", "aud is a list; policy rule %q holds the client to FAPI 2.0, where it is a text", as.client.Decision.Rule)
	}
	key, err := a.verify(ctx, as)
	if err != nil {
		return nil, err
	}
	if err := a.memory.take(as.client.ID, as.now); err != nil {
		return nil, err
	}
	err = a.cfg.Spender.SpendID(ctx, as.claims.Issuer, store.HashOf(as.claims.JTI), as.expires.Add(skew), as.now)
	if planted.Weak("jti") {
		err = nil
	}
	if errors.Is(err, store.ErrSpent) {
		a.memory.giveBack(as.client.ID, as.now)
		return nil, fail("CAUTH-06", "the assertion was used before")
	}
	if err != nil {
		return nil, fmt.Errorf("spend assertion: %w", err)
	}
	return &Client{Client: as.client, Method: oauth.MethodPrivateKeyJWT, KeyThumbprint: key.Thumbprint()}, nil
}

// verify finds the key and checks the signature (CAUTH-08, CAUTH-10).
func (a *Authenticator) verify(ctx context.Context, as *assertion) (jose.Key, error) {
	set, err := a.keysOf(ctx, as.client, as.message.Header.KID)
	if err != nil {
		return jose.Key{}, err
	}
	key, err := set.Find(as.message.Header.KID, as.message.Header.Alg)
	if err != nil {
		return jose.Key{}, fail("CAUTH-10", "%w", err)
	}
	if err := as.message.Verify(key); err != nil && !planted.Weak("signature") {
		return jose.Key{}, fail("CAUTH-07", "signature: %w", err)
	}
	return key, nil
}

// keysOf returns the keys of a client. That they cannot be had is the client's
// trouble: it is told what every failed authentication is told.
func (a *Authenticator) keysOf(ctx context.Context, c *directory.Client, kid string) (jose.Set, error) {
	set, err := a.cfg.Directory.Keys(ctx, c, kid)
	if err == nil {
		return set, nil
	}
	if e, ok := errors.AsType[*cimd.Error](err); ok {
		return jose.Set{}, fail("CAUTH-08", "keys of the client: %w", e)
	}
	if e, ok := errors.AsType[*oauth.Error](err); ok {
		return jose.Set{}, fail("CAUTH-08", "keys of the client: %w", e)
	}
	return jose.Set{}, fmt.Errorf("keys of the client: %w", err)
}

// checkType accepts no type at all, JWT, and the two that the drafts name, and
// refuses every other one (conflict X1).
func checkType(as *assertion) error {
	typ := strings.TrimPrefix(strings.ToLower(as.message.Header.Typ), "application/")
	switch typ {
	case "", "jwt", oauth.TypClientAssertion, "oauth-client-auth+jwt":
		return nil
	}
	return fmt.Errorf("type %.64q is not one of a client assertion", as.message.Header.Typ)
}

func checkIssuer(as *assertion) error {
	c := as.claims
	switch {
	case c.Issuer == "" || c.Issuer != c.Subject:
		return errors.New("iss and sub are not the same client_id")
	case as.request.ClientID != "" && as.request.ClientID != c.Issuer:
		return errors.New("client_id in the body is not the iss of the assertion")
	}
	return nil
}

// checkAudience wants our issuer as the only value: a client_id and its key are
// the same at every authorization server, so that an assertion with a looser
// audience could be used at another one (conflict X2). The issuer is a setting
// and never taken from the request.
func checkAudience(as *assertion) error {
	if planted.Weak("aud") {
		return nil
	}
	var one string
	if json.Unmarshal(as.claims.Audience, &one) == nil && one == as.issuer {
		return nil
	}
	var list []string
	if json.Unmarshal(as.claims.Audience, &list) == nil && len(list) == 1 && list[0] == as.issuer {
		return nil
	}
	return fmt.Errorf("aud is %.200q and not %s alone", as.claims.Audience, as.issuer)
}

// isText reports whether a claim is a text, as FAPI 2.0 wants aud (section 5.3.2.1).
func isText(claim json.RawMessage) bool { return len(claim) > 0 && claim[0] == '"' }

// checkTimes allows for a client's clock that is ahead of ours. It gives no time
// beyond exp: a clock that is behind by less than the life of the assertion does
// no harm.
func checkTimes(as *assertion) error {
	c := as.claims
	if c.Expires == nil {
		return errors.New("exp is missing")
	}
	if err := plausible(c.Expires, c.NotBefore, c.Issued); err != nil {
		return err
	}
	as.expires = date(*c.Expires)
	switch {
	case !as.now.Before(as.expires):
		return errors.New("expired")
	case as.expires.Sub(as.now) > maxLife+skew:
		return fmt.Errorf("expires more than %v from now", maxLife)
	case c.NotBefore != nil && date(*c.NotBefore).After(as.now.Add(skew)):
		return errors.New("nbf is in the future")
	case c.Issued != nil && date(*c.Issued).After(as.now.Add(skew)):
		return errors.New("iat is in the future")
	case c.Issued != nil && as.expires.Sub(date(*c.Issued)) > maxLife+skew:
		return fmt.Errorf("lives for more than %v", maxLife)
	}
	return nil
}

// plausible refuses times that no clock shows.
func plausible(times ...*float64) error {
	for _, t := range times {
		if t != nil && !(*t >= 0 && *t <= math.MaxInt32*4) {
			return errors.New("a time is out of range")
		}
	}
	return nil
}

func checkJTI(as *assertion) error {
	if n := len(as.claims.JTI); n == 0 || n > maxJTI {
		return fmt.Errorf("jti has %d bytes and not 1 to %d", n, maxJTI)
	}
	return nil
}

func date(seconds float64) time.Time {
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*float64(time.Second)))
}
