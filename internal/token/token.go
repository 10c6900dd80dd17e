// Package token serves the endpoints that clients and resource servers call
// directly: POST /token, POST /revoke and POST /introspect.
//
// Every grant goes through the one pipeline of [Handler.Token], so that none can
// forget a step: the client is authenticated before any code of a grant runs,
// policy and states are asked again, scope and resource may only shrink, and the
// single use is the last step, so that a refused request burns nothing. A grant
// sees neither the ResponseWriter nor the raw form. No endpoint here fetches a
// client's document (TOK-06, REV-04).
package token

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Grants is what the endpoints may do with codes, refresh tokens and grants.
type Grants interface {
	FindCode(ctx context.Context, h store.Hash, now time.Time) (store.Code, error)
	RedeemCode(ctx context.Context, r store.Redemption, now time.Time) (store.Grant, error)
	FindRefresh(ctx context.Context, ref store.RefreshRef, now time.Time) (store.Refresh, store.Grant, error)
	RotateRefresh(ctx context.Context, r store.Rotation, now time.Time) error
	RevokeGrant(ctx context.Context, grantID, reason string, now time.Time, events ...audit.Event) error
	GrantActive(ctx context.Context, grantID string) (store.Grant, error)
	OpenGrant(ctx context.Context, o store.Opening, now time.Time) (store.Grant, error)
}

// Denials is what the endpoints may do with single access tokens.
type Denials interface {
	DenyToken(ctx context.Context, jti string, expires time.Time, events ...audit.Event) error
	TokenDenied(ctx context.Context, jti string) (bool, error)
}

// Config configures a [Handler]. All pointers, functions and interfaces except
// Now are required.
type Config struct {
	Issuer  string
	Clients *clientauth.Authenticator
	Grants  Grants
	Denials Denials
	Keys    *keyring.Ring
	Policy  func() *policy.Set // the policy in force
	Audit   *audit.Log
	Now     func() time.Time // nil is time.Now

	// People, TokenProof and Certificate are for the userinfo endpoint: the
	// accounts, the check of the DPoP proof that comes with an access token that is
	// bound to the key jkt, and the thumbprint of the client certificate of a
	// request, or "". Without the last two a bound token is of no use there.
	People      People
	TokenProof  func(w http.ResponseWriter, r *http.Request, accessToken, jkt string) error
	Certificate func(r *http.Request) string

	// Named reports whether an operator spoke for a client. Of nobody else a
	// document is fetched for this endpoint. Nil: of everybody's.
	Named func(ctx context.Context, clientID string) (bool, error)

	// IDJAG are the issuers whose identity assertions are accepted; none: the
	// grant is not offered. It needs Identities. Exchange says who may exchange
	// tokens for which; without a rule that grant is not offered either.
	IDJAG      []TrustedIssuer
	Identities Identities
	Exchange   []ExchangeRule

	// Devices are the codes of devices; nil: there is no device flow.
	Devices Devices

	Access   time.Duration // life of an access token; 0 is 10 minutes
	Idle     time.Duration // a refresh token that is not used for so long ends; 0 is 14 days
	Absolute time.Duration // a refresh token family ends after this; 0 is 90 days
	Grace    time.Duration // how long a lost answer can be asked for again; 0 is 10 seconds, at most 30
}

// Handler serves the three endpoints. It is safe for concurrent use.
type Handler struct {
	cfg      Config
	verifier *clientauth.Limiter // wrong code verifiers, per code
	callers  *clientauth.Limiter // wrong secrets of resource servers
	pacer    *pacer              // devices that ask
}

// New checks the configuration.
func New(c Config) (*Handler, error) {
	if c.Issuer == "" || c.Clients == nil || c.Grants == nil || c.Denials == nil || c.Keys == nil || c.Policy == nil || c.Audit == nil {
		return nil, errors.New("token: the configuration is incomplete")
	}
	if len(c.IDJAG) > 0 && c.Identities == nil {
		return nil, errors.New("token: identity assertions need the identities")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, d := range []struct {
		value *time.Duration
		usual time.Duration
	}{{&c.Access, 10 * time.Minute}, {&c.Idle, 14 * 24 * time.Hour}, {&c.Absolute, 90 * 24 * time.Hour}, {&c.Grace, 10 * time.Second}} {
		if *d.value == 0 {
			*d.value = d.usual
		}
		if *d.value < 0 {
			return nil, errors.New("token: a lifetime is negative")
		}
	}
	if c.Grace > 30*time.Second {
		return nil, errors.New("token: the grace for a lost answer is at most 30 seconds")
	}
	return &Handler{
		cfg:      c,
		verifier: clientauth.NewLimiter(clientauth.LimiterConfig{Tries: 5, Window: 5 * time.Minute, Now: c.Now}),
		callers:  clientauth.NewLimiter(clientauth.LimiterConfig{Now: c.Now}),
		pacer:    newPacer(),
	}, nil
}

// issue is one token request on its way through the pipeline.
type issue struct {
	request
	kind   grantType
	now    time.Time
	client *clientauth.Client
	proof  clientauth.Possession // spent just before the single use
	jkt    string                // of the proof; "" without one

	grant   store.Grant
	code    store.Code    // of the authorization code grant
	refresh store.Refresh // of the refresh token grant
	scopes  oauth.Scopes  // of the access token, once narrowed
	details string        // and its authorization_details

	// Of the grants that no person agrees to.
	spend   []store.SpentID   // what is good for one grant only
	link    *link             // an identity that is new here
	origins []string          // the grants that this one came from
	until   time.Time         // the access token lives no longer; zero: as long as all do
	noted   map[string]string // for the audit event

	jti       string
	successor string // a refresh token that was already handed out once
	noRefresh string // why no refresh token is issued; "" if one is
	answer    answer
}

// answer is the response (OAuth 2.1 section 3.2.3). Scope is always sent (TOK-21).
type answer struct {
	AccessToken  string          `json:"access_token"`
	Issued       string          `json:"issued_token_type,omitempty"` // RFC 8693 section 2.2.1
	TokenType    string          `json:"token_type"`
	ExpiresIn    int64           `json:"expires_in"`
	Scope        string          `json:"scope"`
	RefreshToken string          `json:"refresh_token,omitempty"`
	IDToken      string          `json:"id_token,omitempty"`
	Details      json.RawMessage `json:"authorization_details,omitempty"` // RFC 9396 section 7
}

// Token serves POST /token.
func (h *Handler) Token(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	q, g, err := h.parse(p)
	if err != nil {
		return err
	}
	ctx := r.Context()
	who := clientauth.FromHTTP(r, p)
	if who.Resolve = g.resolve; g.prefer != nil {
		who.Prefer = g.prefer(h, ctx, &q)
	}
	client, err := h.authenticate(w, r, who)
	if err != nil {
		return err
	}
	if g.find == nil {
		return oauth.Refuse(oauth.UnsupportedGrantType, "grant_type must be one of %s", strings.Join(h.GrantTypes(), ", "))
	}
	is := &issue{request: q, kind: g, now: h.cfg.Now(), client: client}
	if err := h.prove(w, r, is); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *issue) error{
		h.find,
		h.bind,
		h.recheck,
		h.narrow,
		h.mint,
		func(ctx context.Context, is *issue) error { return is.proof.Spend(ctx) },
		func(ctx context.Context, is *issue) error { return g.redeem(h, ctx, is) },
	} {
		if err := step(ctx, is); err != nil {
			if oauth.AsError(err).Code == oauth.InvalidClient {
				challenge(w, r)
			}
			return err
		}
	}
	return web.WriteJSON(w, http.StatusOK, &is.answer)
}

// prove checks the DPoP proof of the request, and that there is one where the
// client's document or the policy demands it (DPOP-04).
func (h *Handler) prove(w http.ResponseWriter, r *http.Request, is *issue) (err error) {
	if is.proof, err = h.cfg.Clients.Check(w, r, is.client); err != nil {
		return err
	}
	is.jkt = is.proof.JKT
	return h.cfg.Clients.Demands(is.client, is.jkt)
}

// find is the part of the grant. One that no person agrees to is not even looked
// at for a client that may not use it.
func (h *Handler) find(ctx context.Context, is *issue) error {
	if is.kind.alone {
		if err := is.mayUse(); err != nil {
			return err
		}
	}
	return is.kind.find(h, ctx, is)
}

// authenticate is the client authentication of all endpoints. A failed one is
// answered with the challenge that HTTP asks for (TOK-19).
func (h *Handler) authenticate(w http.ResponseWriter, r *http.Request, q clientauth.Request) (*clientauth.Client, error) {
	q.Admit = h.admit
	c, err := h.cfg.Clients.Authenticate(r.Context(), q)
	if err != nil && oauth.AsError(err).Code == oauth.InvalidClient {
		challenge(w, r)
	}
	return c, err
}

// admit keeps strangers from making this server fetch: a grant that lets a client
// in before anybody has agreed to it is for those that an operator named (TOK-17,
// DEV-09).
func (h *Handler) admit(ctx context.Context, clientID string) error {
	if h.cfg.Named == nil {
		return nil
	}
	named, err := h.cfg.Named(ctx, clientID)
	if err == nil && !named {
		err = oauth.Refuse(oauth.UnauthorizedClient, "an administrator has to name the client in a policy rule first").Under("TOK-17")
	}
	return err
}

// challenge answers an attempt in the Authorization header with WWW-Authenticate.
func challenge(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="token endpoint", charset="UTF-8"`)
	}
}

// event returns an audit event about the issue.
func (is *issue) event(ctx context.Context, t audit.Type, data map[string]string) audit.Event {
	return audit.Event{
		Time: is.now, Type: t, Ref: web.Ref(ctx), IP: ipOf(ctx),
		Client: is.client.ID, User: is.grant.UserID, Grant: is.grant.ID, Resource: is.grant.Resource, Data: data,
	}
}

func ipOf(ctx context.Context) string {
	if ip := web.ClientIP(ctx); ip.IsValid() {
		return ip.String()
	}
	return ""
}

// invalidGrant is the refusal for a code or a refresh token that cannot be used.
// The hint tells apart only what the holder may know; rule and cause are for the
// log.
func invalidGrant(rule, hint, cause string) error {
	return oauth.Refuse(oauth.InvalidGrant, "%s", hint).Under(rule).Because(errors.New(cause))
}
