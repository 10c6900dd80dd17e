package keyring

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// maxToken bounds a token that is presented to us, in bytes.
const maxToken = 16 << 10

// ErrNotOurs says that a string is not an access token that we signed and that
// is still valid: another issuer or type, a key that is not published, a wrong
// signature, or expired.
var ErrNotOurs = errors.New("not a valid access token of this server")

// AccessToken is what an access token says. Times have whole seconds.
type AccessToken struct {
	Subject, ClientID, Audience, GrantID, JTI string

	Scopes          oauth.Scopes
	Issued, Expires time.Time

	// Of the person's sign-in; left out of a token without a person.
	AuthTime time.Time
	ACR      string
	AMR      []string

	// ClientOnly marks a token that no person stands behind: Subject is then
	// the client_id itself (RFC 9068 section 3).
	ClientOnly bool

	// What the token is bound to: the thumbprint of a DPoP key (RFC 9449 section
	// 6) and of a certificate (RFC 8705 section 3.1); "" for none.
	CnfJKT, CnfX5T string

	// Actor is who acts for the subject, as the JSON object of act (RFC 8693
	// section 4.1); Details are the granted authorization_details, as a JSON
	// array (RFC 9396 section 9.1); "" for none.
	Actor, Details string

	// Origins are the grants that the token's own grant came from, the oldest
	// first: when one of them ends, the token is no longer active.
	Origins []string
}

// accessClaims is the wire form (RFC 9068 section 2.2). The grant stands under
// "bonafide.id/grant", a collision-resistant private name (RFC 7519 section
// 4.3): introspection finds with it whether the grant still lives. So do the
// grants it came from, under "bonafide.id/origins".
type accessClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience string   `json:"aud"`
	ClientID string   `json:"client_id"`
	Issued   int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	JTI      string   `json:"jti"`
	Scope    string   `json:"scope,omitempty"`
	AuthTime int64    `json:"auth_time,omitzero"`
	ACR      string   `json:"acr,omitempty"`
	AMR      []string `json:"amr,omitempty"`
	Grant    string   `json:"bonafide.id/grant,omitempty"`
	Origins  []string `json:"bonafide.id/origins,omitempty"`

	Confirmation *confirmation   `json:"cnf,omitempty"`
	Actor        json.RawMessage `json:"act,omitempty"`
	Details      json.RawMessage `json:"authorization_details,omitempty"`
}

// confirmation is the cnf claim (RFC 7800).
type confirmation struct {
	JKT string `json:"jkt,omitempty"`
	X5T string `json:"x5t#S256,omitempty"`
}

// MintAccess signs an access token of type at+jwt with a single audience
// (TOK-08, TOK-09). It refuses to sign one that lives longer than TokenLife:
// the signing key would leave the JWKS before the token expires.
func (r *Ring) MintAccess(t AccessToken) (string, error) {
	if t.Subject == "" || t.ClientID == "" || t.Audience == "" || t.JTI == "" {
		return "", errors.New("mint access token: subject, client, audience and jti are required")
	}
	if t.ClientOnly != (t.Subject == t.ClientID) {
		return "", errors.New("mint access token: the subject is the client exactly when no person stands behind the token")
	}
	if err := r.checkLife(t.Issued, t.Expires); err != nil {
		return "", err
	}
	c := accessClaims{
		Issuer: r.cfg.Issuer, Subject: t.Subject, Audience: t.Audience, ClientID: t.ClientID,
		Issued: t.Issued.Unix(), Expires: t.Expires.Unix(), JTI: t.JTI, Scope: t.Scopes.String(), Grant: t.GrantID,
		Origins: t.Origins, Actor: json.RawMessage(t.Actor), Details: json.RawMessage(t.Details),
	}
	if t.CnfJKT != "" || t.CnfX5T != "" {
		c.Confirmation = &confirmation{JKT: t.CnfJKT, X5T: t.CnfX5T}
	}
	if !t.ClientOnly {
		c.AuthTime, c.ACR, c.AMR = seconds(t.AuthTime), t.ACR, t.AMR
	}
	return r.signer().private.Sign(oauth.TypAccessToken, &c)
}

// VerifyAccess returns what one of our own access tokens says. It accepts the
// type at+jwt, our issuer and a published key named by kid, and nothing else, so
// that an ID token or a client assertion never passes (OIDC-04). Any error is
// ErrNotOurs. Whether the grant was ended or the token denied is not its business.
func (r *Ring) VerifyAccess(token string, now time.Time) (AccessToken, error) {
	m, err := jose.Parse(token, maxToken)
	if err != nil {
		return AccessToken{}, notOurs(err)
	}
	k := r.state.Load().published(m.Header.KID)
	switch {
	case m.Header.Typ != oauth.TypAccessToken:
		return AccessToken{}, notOurs(errors.New("the type is not at+jwt"))
	case k == nil || m.Header.Alg != k.alg:
		return AccessToken{}, notOurs(errors.New("the key is not published"))
	}
	if err := m.Verify(k.public); err != nil {
		return AccessToken{}, notOurs(err)
	}
	var c accessClaims
	if err := json.Unmarshal(m.Claims, &c); err != nil {
		return AccessToken{}, notOurs(err)
	}
	if c.Issuer != r.cfg.Issuer || c.JTI == "" || now.Unix() >= c.Expires {
		return AccessToken{}, notOurs(errors.New("another issuer, or expired"))
	}
	scopes, err := oauth.ParseScopes(c.Scope)
	if err != nil {
		return AccessToken{}, notOurs(err)
	}
	t := AccessToken{
		Subject: c.Subject, ClientID: c.ClientID, Audience: c.Audience, GrantID: c.Grant, JTI: c.JTI, Scopes: scopes,
		Issued: time.Unix(c.Issued, 0).UTC(), Expires: time.Unix(c.Expires, 0).UTC(),
		ACR: c.ACR, AMR: c.AMR, ClientOnly: c.Subject == c.ClientID,
		Actor: string(c.Actor), Details: string(c.Details), Origins: c.Origins,
	}
	if c.Confirmation != nil {
		t.CnfJKT, t.CnfX5T = c.Confirmation.JKT, c.Confirmation.X5T
	}
	if c.AuthTime != 0 {
		t.AuthTime = time.Unix(c.AuthTime, 0).UTC()
	}
	return t, nil
}

// IDToken is what an ID token says (OpenID Connect Core section 2).
type IDToken struct {
	Subject, ClientID, Nonce string
	SID                      string // the name of the session in which it was asked for; "" for none

	Issued, Expires, AuthTime time.Time
	ACR                       string
	AMR                       []string

	// AccessToken is the one sent along; its hash becomes at_hash.
	AccessToken string
}

type idClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience string   `json:"aud"`
	Issued   int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	AuthTime int64    `json:"auth_time,omitzero"`
	Nonce    string   `json:"nonce,omitempty"`
	ACR      string   `json:"acr,omitempty"`
	AMR      []string `json:"amr,omitempty"`
	ATHash   string   `json:"at_hash,omitempty"`
	SID      string   `json:"sid,omitempty"`
}

// MintID signs an ID token. Its audience is the client and its type JWT, so
// that no resource server and no introspection takes it for an access token
// (OIDC-01, OIDC-04).
func (r *Ring) MintID(t IDToken) (string, error) {
	if t.Subject == "" || t.ClientID == "" {
		return "", errors.New("mint ID token: subject and client are required")
	}
	if err := r.checkLife(t.Issued, t.Expires); err != nil {
		return "", err
	}
	k := r.signer()
	c := idClaims{
		Issuer: r.cfg.Issuer, Subject: t.Subject, Audience: t.ClientID, Issued: t.Issued.Unix(), Expires: t.Expires.Unix(),
		AuthTime: seconds(t.AuthTime), Nonce: t.Nonce, ACR: t.ACR, AMR: t.AMR, SID: t.SID,
	}
	if t.AccessToken != "" {
		c.ATHash = halfHash(k.alg, t.AccessToken)
	}
	return k.private.Sign("JWT", &c)
}

// Introspection is a signed answer of the introspection endpoint.
type Introspection struct {
	Audience string // the resource server that asked
	Issued   time.Time
	State    any // the answer as it would stand in the JSON form
}

// MintIntrospection signs an answer for one resource server (RFC 9701 section 5).
// Its type keeps it apart from access and ID tokens.
func (r *Ring) MintIntrospection(i Introspection) (string, error) {
	return r.signer().private.Sign("token-introspection+jwt", &struct {
		Issuer   string `json:"iss"`
		Audience string `json:"aud"`
		Issued   int64  `json:"iat"`
		State    any    `json:"token_introspection"`
	}{r.cfg.Issuer, i.Audience, i.Issued.Unix(), i.State})
}

func (r *Ring) signer() *key { return r.state.Load().signer(r.now()) }

func (r *Ring) checkLife(issued, expires time.Time) error {
	if life := expires.Sub(issued); life <= 0 || life > r.cfg.TokenLife {
		return fmt.Errorf("mint token: a life of %v is not between zero and %v", life, r.cfg.TokenLife)
	}
	return nil
}

// halfHash is the left half of the hash that belongs to the algorithm (OpenID
// Connect Core section 3.1.3.6): SHA-512 for Ed25519, SHA-256 for the others.
func halfHash(alg, token string) string {
	if alg == jose.EdDSA {
		sum := sha512.Sum512([]byte(token))
		return base64.RawURLEncoding.EncodeToString(sum[:sha512.Size/2])
	}
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:sha256.Size/2])
}

// seconds is a NumericDate, and 0 for no time at all.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func notOurs(cause error) error { return fmt.Errorf("%w: %w", ErrNotOurs, cause) }
