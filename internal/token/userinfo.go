package token

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// People is what the userinfo endpoint may ask about accounts.
type People interface {
	UserByID(ctx context.Context, id string) (store.User, error)
}

// userinfo is what is said about a person (OpenID Connect Core section 5.3.2).
// There is no more in an account; nothing says that an address was verified,
// because nobody verifies it here.
type userinfo struct {
	Subject string `json:"sub"`
	Name    string `json:"preferred_username,omitempty"`
	Email   string `json:"email,omitempty"`
}

// The scopes that open more than the subject. They exist where an operator lists
// them among the scopes of a resource.
const (
	scopeProfile = "profile"
	scopeEmail   = "email"
)

// Userinfo serves GET and POST /userinfo: who the person behind an access token
// is. It takes every token of ours that was granted openid, whatever resource it
// is for, and none of a client without a person; sub is the one of the ID token
// (OIDC-03).
func (h *Handler) Userinfo(w http.ResponseWriter, r *http.Request) error {
	presented, err := presentedToken(r)
	if err != nil {
		return h.unauthorized(w, err)
	}
	t, err := h.cfg.Keys.VerifyAccess(presented.token, h.cfg.Now())
	if err != nil {
		return h.unauthorized(w, badToken().Because(err))
	}
	live, err := h.alive(r.Context(), t)
	if err != nil {
		return err
	}
	if !live {
		return h.unauthorized(w, badToken())
	}
	if err := h.possession(w, r, presented, t); err != nil {
		return h.unauthorized(w, err)
	}
	if t.ClientOnly || !t.Scopes.Has(oauth.ScopeOpenID) {
		return h.unauthorized(w, oauth.Refuse(oauth.InsufficientScope, "the access token was not granted the scope openid").Under("OIDC-03"))
	}
	user, err := h.cfg.People.UserByID(r.Context(), t.Subject)
	if errors.Is(err, store.ErrNotFound) || err == nil && user.Disabled {
		return h.unauthorized(w, badToken())
	}
	if err != nil {
		return err
	}
	out := userinfo{Subject: user.ID}
	if t.Scopes.Has(scopeProfile) {
		out.Name = user.Name
	}
	if t.Scopes.Has(scopeEmail) {
		out.Email = user.Email
	}
	return web.WriteJSON(w, http.StatusOK, &out)
}

// bearer is an access token and how it came.
type bearer struct {
	token string
	dpop  bool
}

const (
	schemeBearer = "Bearer"
	schemeDPoP   = "DPoP"
)

// errNoToken answers a request without any: with a challenge that names no error
// (RFC 6750 section 3.1).
var errNoToken = oauth.Refuse(oauth.InvalidToken, "an access token is missing").Under("OIDC-03")

// presentedToken finds the one access token of a request: in the Authorization
// header, or in the body of a POST; never in the query (RFC 6750 section 2.3).
func presentedToken(r *http.Request) (bearer, error) {
	var inBody string
	if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "" {
		p, err := web.ParseBody(r)
		if err != nil {
			return bearer{}, err
		}
		inBody = p.Form["access_token"]
	}
	headers := r.Header.Values("Authorization")
	switch {
	case len(headers) == 0 && inBody == "":
		return bearer{}, errNoToken
	case len(headers) == 0:
		return bearer{token: inBody}, nil
	case len(headers) > 1 || inBody != "":
		return bearer{}, oauth.Refuse(oauth.InvalidRequest, "the access token stands in more than one place").Under("OIDC-03")
	}
	scheme, token, ok := strings.Cut(headers[0], " ")
	token = strings.Trim(token, " ")
	switch {
	case ok && strings.EqualFold(scheme, schemeBearer):
		return bearer{token: token}, nil
	case ok && strings.EqualFold(scheme, schemeDPoP):
		return bearer{token: token, dpop: true}, nil
	}
	return bearer{}, errNoToken
}

// possession checks that a bound token came with a proof of its key, and one that
// is not bound as a bearer token (RFC 9449 section 7.1).
func (h *Handler) possession(w http.ResponseWriter, r *http.Request, b bearer, t keyring.AccessToken) error {
	switch {
	case t.CnfX5T != "" && (h.cfg.Certificate == nil || h.cfg.Certificate(r) != t.CnfX5T):
		return oauth.Refuse(oauth.InvalidToken, "the access token is bound to another certificate than the one of this connection").Under("OIDC-03")
	case t.CnfJKT == "" && !b.dpop:
		return nil
	case t.CnfJKT == "" || !b.dpop:
		return oauth.Refuse(oauth.InvalidToken, "a token with a bound key is presented with the scheme DPoP, every other with Bearer").Under("DPOP-06")
	case h.cfg.TokenProof == nil:
		return oauth.Refuse(oauth.InvalidToken, "proofs cannot be checked here").Under("DPOP-06")
	}
	return h.cfg.TokenProof(w, r, b.token, t.CnfJKT)
}

func badToken() *oauth.Error {
	return oauth.Refuse(oauth.InvalidToken, "the access token is not one of this server, has expired or was revoked").Under("OIDC-03")
}

// unauthorized sets the challenge that belongs to a refusal (RFC 6750 section 3,
// RFC 9449 section 7.1) and returns the refusal.
func (h *Handler) unauthorized(w http.ResponseWriter, err error) error {
	e := oauth.AsError(err)
	var params []oauth.Param
	switch {
	case errors.Is(err, errNoToken):
	case e.Code == oauth.InvalidToken || e.Code == oauth.InsufficientScope || e.Code == oauth.UseDPoPNonce || e.Code == oauth.InvalidDPoPProof:
		params = []oauth.Param{{Name: "error", Value: string(e.Code)}, {Name: "error_description", Value: e.Hint}}
	default:
		return err
	}
	if e.Code == oauth.InsufficientScope {
		params = append(params, oauth.Param{Name: "scope", Value: oauth.ScopeOpenID})
	}
	plain := params
	if e.Code == oauth.UseDPoPNonce || e.Code == oauth.InvalidDPoPProof {
		plain = nil
	}
	w.Header().Add("WWW-Authenticate", oauth.Challenge{Scheme: schemeBearer, Params: plain}.String())
	w.Header().Add("WWW-Authenticate", oauth.Challenge{Scheme: schemeDPoP, Params: append(params, oauth.Param{Name: "algs", Value: strings.Join(jose.Accepted, " ")})}.String())
	if e.Code == oauth.InsufficientScope {
		return err
	}
	return web.Refuse(http.StatusUnauthorized, err) // a proof that is refused here is 401 too, and 400 at /token
}
