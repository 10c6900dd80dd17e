package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// state is what introspection says (RFC 7662 section 2.2). Everything else about
// an inactive token stays unsaid (INT-02).
type state struct {
	Active    bool     `json:"active"`
	Issuer    string   `json:"iss,omitempty"`
	Subject   string   `json:"sub,omitempty"`
	Audience  string   `json:"aud,omitempty"`
	ClientID  string   `json:"client_id,omitempty"`
	Scope     string   `json:"scope,omitempty"`
	Expires   int64    `json:"exp,omitempty"`
	Issued    int64    `json:"iat,omitempty"`
	NotBefore int64    `json:"nbf,omitempty"`
	JTI       string   `json:"jti,omitempty"`
	TokenType string   `json:"token_type,omitempty"`
	AuthTime  int64    `json:"auth_time,omitempty"`
	ACR       string   `json:"acr,omitempty"`
	AMR       []string `json:"amr,omitempty"`

	Confirmation map[string]string `json:"cnf,omitempty"`
	Actor        json.RawMessage   `json:"act,omitempty"`
	Details      json.RawMessage   `json:"authorization_details,omitempty"`
}

// Introspect serves POST /introspect (RFC 7662). The caller is a resource server
// with a secret, in HTTP Basic with the form-encoded resource identifier or the
// configured name as the user. It learns about access tokens for itself and
// about nothing else: a refresh token is never active (INT-04).
func (h *Handler) Introspect(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	res, err := h.caller(r)
	if err != nil {
		if oauth.AsError(err).Code == oauth.InvalidClient {
			w.Header().Set("WWW-Authenticate", `Basic realm="introspection endpoint", charset="UTF-8"`)
		}
		return err
	}
	token := p.Form["token"]
	if token == "" {
		return oauth.Refuse(oauth.InvalidRequest, "token is missing").Under("INT-01")
	}
	st, err := h.introspect(r.Context(), res, token)
	if err != nil {
		return err
	}
	if wantsSigned(r) {
		return h.signed(w, res, st)
	}
	return web.WriteJSON(w, http.StatusOK, st)
}

// mediaSigned is what a resource server accepts that wants the answer signed.
const mediaSigned = "application/token-introspection+jwt"

func wantsSigned(r *http.Request) bool {
	for accept := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		if media, _, err := mime.ParseMediaType(accept); err == nil && media == mediaSigned {
			return true
		}
	}
	return false
}

// signed answers with a JWT for this resource alone (RFC 9701 section 5; INT-05).
// It has a type of its own and neither sub nor exp, so that it can never pass for
// an access token.
func (h *Handler) signed(w http.ResponseWriter, res *policy.Resource, st *state) error {
	token, err := h.cfg.Keys.MintIntrospection(keyring.Introspection{Audience: res.ID, Issued: h.cfg.Now(), State: st})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaSigned)
	_, err = w.Write([]byte(token))
	return err
}

// caller authenticates the resource server (INT-01).
func (h *Handler) caller(r *http.Request) (*policy.Resource, error) {
	refused := oauth.Refuse(oauth.InvalidClient, "the resource server could not be authenticated; "+
		"use HTTP Basic with its form-encoded identifier or its name, and its secret").Under("INT-01")
	user, pass, ok := r.BasicAuth()
	if !ok {
		return nil, refused.Because(errors.New("no Basic credentials"))
	}
	name, err := url.QueryUnescape(user)
	secret, err2 := url.QueryUnescape(pass)
	if err = errors.Join(err, err2); err != nil {
		return nil, refused.Because(err)
	}
	source := clientauth.Source(r.Context(), "introspection "+name)
	if !h.callers.Allow(source) {
		return nil, oauth.Refuse(oauth.TemporarilyUnavailable, "too many failed attempts from this address; try again in a minute").Under("POL-08")
	}
	res, ok := resourceOf(h.cfg.Policy(), name)
	if !ok || res.IntrospectionSecret == "" || !clientauth.SecretMatches(secret, res.IntrospectionSecret) {
		h.callers.Failed(source)
		return nil, refused.Because(fmt.Errorf("no such resource server, or not its secret: %.200q", name))
	}
	h.callers.Passed(source)
	return res, nil
}

func resourceOf(set *policy.Set, name string) (*policy.Resource, bool) {
	if r, ok := set.Resource(name); ok {
		return r, true
	}
	for i := range set.Resources {
		if set.Resources[i].Name == name {
			return &set.Resources[i], true
		}
	}
	return nil, false
}

// introspect returns the state of a token as far as this resource may know it.
func (h *Handler) introspect(ctx context.Context, res *policy.Resource, token string) (*state, error) {
	t, err := h.cfg.Keys.VerifyAccess(token, h.cfg.Now())
	if err != nil || t.Audience != res.ID {
		return &state{}, nil //nolint:nilerr // a token that is not good is inactive, and no more is said (INT-02)
	}
	if live, err := h.alive(ctx, t); !live || err != nil {
		return &state{}, err
	}
	st := &state{
		Active: true, Issuer: h.cfg.Issuer, Subject: t.Subject, Audience: t.Audience, ClientID: t.ClientID,
		Scope: t.Scopes.String(), Expires: t.Expires.Unix(), Issued: t.Issued.Unix(), NotBefore: t.Issued.Unix(),
		JTI: t.JTI, TokenType: tokenType(t.CnfJKT), ACR: t.ACR, AMR: t.AMR,
		Actor: json.RawMessage(t.Actor), Details: json.RawMessage(t.Details),
	}
	for name, bound := range map[string]string{"jkt": t.CnfJKT, "x5t#S256": t.CnfX5T} {
		if bound != "" {
			if st.Confirmation == nil {
				st.Confirmation = map[string]string{}
			}
			st.Confirmation[name] = bound
		}
	}
	if !t.AuthTime.IsZero() {
		st.AuthTime = t.AuthTime.Unix()
	}
	return st, nil
}

// alive reports whether neither the token nor its grant was revoked, nor one of
// the grants that it was exchanged from.
func (h *Handler) alive(ctx context.Context, t keyring.AccessToken) (bool, error) {
	denied, err := h.cfg.Denials.TokenDenied(ctx, t.JTI)
	if denied || err != nil {
		return false, err
	}
	for _, id := range append([]string{t.GrantID}, t.Origins...) {
		if id == "" {
			continue
		}
		g, err := h.cfg.Grants.GrantActive(ctx, id)
		if isFact(err) {
			return false, nil
		}
		if err != nil || !g.Ended.IsZero() {
			return false, err
		}
	}
	return true, nil
}
