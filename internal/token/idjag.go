package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// Limits on an identity assertion.
const (
	maxAssertion  = 16 << 10 // bytes
	assertionLife = 10 * time.Minute
	clockSkew     = time.Minute
	maxClaim      = 512 // bytes of an identifier in it
)

// idJAG is an identity assertion authorization grant on its way through the
// checks (draft-ietf-oauth-identity-assertion-authz-grant).
type idJAG struct {
	idClaims
	issuer    *TrustedIssuer
	resources []string
	scopes    oauth.Scopes
	hasScope  bool

	issued, expires, authTime time.Time
}

// idClaims are the members of an assertion that are read.
type idClaims struct {
	Issuer, Subject, Client, JTI, Tenant, Email, ACR string

	AMR                         []string
	Audience, Resource, Confirm json.RawMessage
	Verified                    json.RawMessage // email_verified
	Scope                       *string
	Expires, Issued, NotBefore  *float64
	AuthTime                    *float64
}

// read takes the members by their exact names.
func (c *idClaims) read(raw []byte) error {
	members, err := jose.ReadClaims(raw, map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "client_id": &c.Client, "jti": &c.JTI, "tenant": &c.Tenant, "email": &c.Email,
		"acr": &c.ACR, "amr": &c.AMR, "scope": &c.Scope,
		"exp": &c.Expires, "iat": &c.Issued, "nbf": &c.NotBefore, "auth_time": &c.AuthTime,
	})
	c.Audience, c.Resource, c.Confirm, c.Verified = members["aud"], members["resource"], members["cnf"], members["email_verified"]
	return err
}

// cheapest are the checks of an assertion that need no key, in their order. The
// issuer is found in the first of them.
var cheapest = []struct {
	rule, hint string
	check      func(*Handler, *issue, *idJAG) error
}{
	{"XCH-02", "aud of the assertion is not the issuer of this server alone", checkForUs},
	{"XCH-03", "client_id of the assertion is not the client of the request", checkForClient},
	{"XCH-04", "jti of the assertion is missing or too long", checkOnce},
	{"XCH-04", "the assertion has expired, is not valid yet, or is valid for too long", checkLife},
	{"XCH-05", "resource of the assertion is missing or malformed; it names the protected server that the token is for", checkFor},
	{"XCH-06", "scope of the assertion is malformed", checkScopes},
	{"XCH-10", "sub, tenant, email, acr or amr of the assertion is missing or malformed", checkSubject},
	{"XCH-09", "the assertion belongs to a key; the request needs a DPoP proof made with that key", checkConfirmed},
}

func notTrusted(cause error) error {
	return oauth.Refuse(oauth.InvalidGrant, "the assertion is not one that an issuer trusted here has made").Under("XCH-01").Because(cause)
}

// readAssertion parses an assertion and makes every check that needs no store.
// The signature comes last: looking for keys may cost a fetch. Which issuers are
// trusted is not said (META-14), and no error quotes the assertion (XCH-11).
func (h *Handler) readAssertion(ctx context.Context, is *issue) (*idJAG, error) {
	if len(is.assertion) > maxAssertion {
		return nil, oauth.Refuse(oauth.InvalidRequest, "assertion is larger than %d bytes", maxAssertion).Under("XCH-01")
	}
	m, err := jose.Parse(is.assertion, maxAssertion)
	if err != nil {
		return nil, notTrusted(fmt.Errorf("parse: %w", err))
	}
	if typ := strings.TrimPrefix(strings.ToLower(m.Header.Typ), "application/"); typ != oauth.TypIDJAG {
		return nil, oauth.Refuse(oauth.InvalidGrant, "typ of the assertion is not %s", oauth.TypIDJAG).Under("XCH-01")
	}
	a := &idJAG{}
	if err := a.read(m.Claims); errors.Is(err, jose.ErrText) {
		return nil, oauth.Refuse(oauth.InvalidGrant, "a claim of the assertion holds a NUL or is not valid Unicode").Under("XCH-10").Because(err)
	} else if err != nil {
		return nil, notTrusted(err)
	}
	if a.issuer = h.issuerOf(a.Issuer); a.issuer == nil {
		return nil, notTrusted(fmt.Errorf("issuer %.200q", a.Issuer))
	}
	if t := a.issuer.Tenants; len(t) == 0 && a.Tenant != "" || len(t) > 0 && !slices.Contains(t, a.Tenant) {
		return nil, notTrusted(fmt.Errorf("tenant %.200q of %s", a.Tenant, a.Issuer))
	}
	for _, c := range cheapest {
		if err := c.check(h, is, a); err != nil {
			return nil, oauth.Refuse(oauth.InvalidGrant, "%s", c.hint).Under(c.rule).Because(err)
		}
	}
	return a, verifyKey(ctx, a.issuer, m)
}

// checkForUs wants our issuer as the only audience.
func checkForUs(h *Handler, _ *issue, a *idJAG) error {
	if list, ok := oneOrMore(a.Audience); ok && len(list) == 1 && list[0] == h.cfg.Issuer {
		return nil
	}
	return fmt.Errorf("aud is %.200q", a.Audience)
}

// checkForClient ties the assertion to who presents it: a client_id that is a URL
// means the same client at the issuer and here.
func checkForClient(_ *Handler, is *issue, a *idJAG) error {
	if a.Client == "" || a.Client != is.client.ID {
		return fmt.Errorf("client_id is %.200q", a.Client)
	}
	return nil
}

func checkOnce(_ *Handler, _ *issue, a *idJAG) error {
	if n := len(a.JTI); n == 0 || n > maxClaim {
		return fmt.Errorf("jti has %d bytes", n)
	}
	return nil
}

func checkLife(_ *Handler, is *issue, a *idJAG) error {
	if a.Expires == nil || a.Issued == nil {
		return errors.New("exp or iat is missing")
	}
	for _, t := range []*float64{a.Expires, a.Issued, a.NotBefore, a.AuthTime} {
		if t != nil && !(*t >= 0 && *t <= math.MaxInt32*4) {
			return errors.New("a time is out of range")
		}
	}
	a.expires, a.issued = time.Unix(int64(*a.Expires), 0), time.Unix(int64(*a.Issued), 0)
	if a.AuthTime != nil {
		a.authTime = time.Unix(int64(*a.AuthTime), 0).UTC()
	}
	life := a.issuer.Life
	if life == 0 {
		life = assertionLife
	}
	ahead := is.now.Add(clockSkew)
	switch {
	case !is.now.Before(a.expires):
		return errors.New("expired")
	case a.issued.After(ahead), a.NotBefore != nil && time.Unix(int64(*a.NotBefore), 0).After(ahead):
		return errors.New("from the future")
	case a.expires.Sub(a.issued) > life || a.expires.Sub(is.now) > life+clockSkew:
		return fmt.Errorf("valid for more than %v", life)
	}
	return nil
}

func checkFor(_ *Handler, _ *issue, a *idJAG) error {
	var ok bool
	if a.resources, ok = oneOrMore(a.Resource); !ok || len(a.resources) == 0 || len(a.resources) > 16 {
		return errors.New("no resource")
	}
	return nil
}

// checkScopes reads the scope. An assertion without one leaves it to us: then the
// default of the resource is the most.
func checkScopes(_ *Handler, _ *issue, a *idJAG) (err error) {
	if a.hasScope = a.Scope != nil; a.hasScope {
		a.scopes, err = oauth.ParseScopes(*a.Scope)
	}
	return err
}

func checkSubject(_ *Handler, _ *issue, a *idJAG) error {
	if a.Subject == "" {
		return errors.New("sub is missing")
	}
	for _, s := range append([]string{a.Subject, a.Tenant, a.Email, a.ACR}, a.AMR...) {
		if len(s) > maxClaim || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return errors.New("a claim is too long or holds a control character")
		}
	}
	if len(a.AMR) > 16 || slices.ContainsFunc(a.AMR, func(s string) bool { return s == "" || strings.Contains(s, " ") }) {
		return errors.New("amr is not a list of words")
	}
	return nil
}

// spender is whose jti it is: that of the issuer, and where it has tenants that of
// the tenant. To us they are different issuers (XCH-01, XCH-10), of which none may
// use up what another hands out; and since issuer and tenant are signed, one
// assertion is always spent under one name (XCH-04).
func (a *idJAG) spender() string {
	if a.Tenant == "" {
		return "id-jag " + a.Issuer
	}
	return fmt.Sprintf("id-jag %q of %q", a.Tenant, a.Issuer)
}

// address is the e-mail address of the assertion: nothing that could be the name
// of an account and no address. A word of the issuer that is not verified proves
// nothing about whose it is.
func (a *idJAG) address() string {
	local, domain, ok := strings.Cut(a.Email, "@")
	if !ok || local == "" || domain == "" || strings.ContainsAny(a.Email, " \t") {
		return ""
	}
	return a.Email
}

// verified reports whether the address belongs to the person: the issuer says true,
// or says nothing and the operator knows that it verifies every address.
func (a *idJAG) verified() bool {
	return string(a.Verified) == "true" || a.Verified == nil && a.issuer.EmailsVerified
}

// checkConfirmed wants a DPoP proof with the key that the assertion names. A cnf
// that we cannot check is not passed over.
func checkConfirmed(_ *Handler, is *issue, a *idJAG) error {
	if len(a.Confirm) == 0 {
		return nil
	}
	members, err := jose.Object(a.Confirm)
	if err != nil {
		return err
	}
	var jkt string
	if len(members) != 1 || json.Unmarshal(members["jkt"], &jkt) != nil || jkt == "" || jkt != is.jkt {
		return errors.New("cnf is not the thumbprint of the key of the proof")
	}
	return nil
}

// oneOrMore reads a string or an array of strings.
func oneOrMore(raw json.RawMessage) ([]string, bool) {
	var one string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{one}, true
	}
	var list []string
	err := json.Unmarshal(raw, &list)
	return list, err == nil && !slices.Contains(list, "")
}
