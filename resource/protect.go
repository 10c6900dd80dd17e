package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/oauth"
)

// Protect returns next behind the guard. Each request is checked on its own: a
// session or state handle is never taken for authentication. next sees requests
// whose token is valid and covers what the body asks for, with the token's
// meaning in the context and without the Authorization header.
//
// Refusals: 403 for a foreign Origin or Host; 401 without credentials or with a
// token that is not good; 400 for a malformed Authorization header or body; 403
// insufficient_scope with every scope that the operation needs; 413 and 431 for
// too much; 401 insufficient_user_authentication where a tool wants a stronger or
// fresher sign-in; 503 when the authorization server's keys or its word on a token
// cannot be had.
func (g *Guard) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := g.cfg.Now()
		d := Decision{Needed: g.baseline}
		if preflight, err := g.checkCaller(w, r); preflight {
			return
		} else if err != nil {
			g.refuse(w, r, &d, err)
			d.Took = g.cfg.Now().Sub(start)
			g.cfg.Observe(r.Context(), d)
			return
		}
		guarded, stream, err := g.admit(w, r, &d)
		d.Took = g.cfg.Now().Sub(start)
		if err != nil {
			g.refuse(w, r, &d, err)
			g.cfg.Observe(r.Context(), d)
			return
		}
		d.Allowed = true
		g.cfg.Observe(r.Context(), d)
		if stream {
			// A stream ends with the token that opened it (RS-32).
			ctx, cancel := context.WithTimeout(guarded.Context(), d.Token.Expires.Sub(g.cfg.Now()))
			defer cancel()
			guarded = guarded.WithContext(ctx)
			if cred, err := presented(r); g.introspect != nil && err == nil {
				go g.watch(ctx, cancel, cred.token)
			}
		}
		next.ServeHTTP(w, guarded)
	})
}

// listen is the method whose answer is a stream without end.
const listen = "subscriptions/listen"

// admit decides on one request and returns it as next may see it, and whether
// its answer is a stream. Where bodies are not read, the header tells: a server
// has to refuse one that differs from the body.
func (g *Guard) admit(w http.ResponseWriter, r *http.Request, d *Decision) (out *http.Request, stream bool, err error) {
	proof, err := g.authenticate(w, r, d)
	if err != nil {
		return nil, false, err
	}
	out = r.Clone(NewContext(r.Context(), d.Token))
	out.Header.Del("Authorization")
	out.Header.Del("DPoP")
	stream = r.Method == http.MethodGet || slices.Contains(r.Header.Values("Mcp-Method"), listen)
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodDelete:
		out.Body, out.ContentLength = http.NoBody, 0
	case g.readsBodies() || proof != nil && g.cfg.DPoP.ContentDigest:
		body, err := g.readBody(w, r)
		if err != nil {
			return nil, false, err
		}
		if proof != nil && g.cfg.DPoP.ContentDigest {
			if err := checkDigest(proof, body); err != nil {
				return nil, false, err
			}
		}
		if g.readsBodies() {
			msgs, err := g.operation(r.Header, body, d)
			if err != nil {
				return nil, false, err
			}
			if weak := g.strong(d.Token, msgs); weak != nil {
				return nil, false, oauth.Refuse(oauth.InsufficientUserAuthentication, "%s", weak.Error()).Under("RS-22").Because(weak)
			}
			stream = slices.ContainsFunc(msgs, func(m message) bool { return m.method == listen })
		}
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		out.TransferEncoding = nil
	}
	if !d.Token.Allows(d.Needed...) && !planted.Weak("scope") {
		return nil, false, oauth.Refuse(oauth.InsufficientScope, "this needs more permission than the access token has").Under("RS-07")
	}
	return out, stream, g.useUp(d.Token, proof)
}

// readsBodies reports whether the body of a request says what it needs.
func (g *Guard) readsBodies() bool {
	return g.cfg.Tools != nil || g.cfg.Methods != nil || g.cfg.DefaultToolScopes != nil || g.cfg.Strength != nil
}

// authenticate finds and checks the token of a request and what it is bound to,
// and writes it into d.
func (g *Guard) authenticate(w http.ResponseWriter, r *http.Request, d *Decision) (*jose.Proof, error) {
	cred, err := presented(r)
	d.dpop = cred.dpop || g.cfg.DPoP.Required
	if err != nil {
		return nil, err
	}
	token, c, err := g.verify(r.Context(), cred.token)
	if err != nil {
		return nil, err
	}
	d.dpop = d.dpop || c.bound != nil && c.bound.jkt != ""
	proof, err := g.possess(w, r, cred, c)
	if err != nil {
		return nil, err
	}
	if proof != nil {
		token.KeyThumbprint = proof.JKT
	}
	d.Token = token
	return proof, nil
}

// operation reads what a body asks for into d, and returns its messages.
func (g *Guard) operation(h http.Header, body []byte, d *Decision) ([]message, error) {
	msgs, batch, err := readMessages(body)
	if err != nil {
		return nil, err
	}
	if err := checkHeaders(h, msgs, batch); err != nil {
		return nil, err
	}
	needed, m, err := g.needed(msgs)
	d.Method = m.method
	if m.method == "tools/call" {
		d.Tool = m.name
	}
	if err != nil {
		return nil, err
	}
	d.Needed = needed
	return msgs, nil
}

var (
	errTooLarge = errors.New("the body is too large")
	errEncoded  = errors.New("an encoded body is not read")
)

func (g *Guard) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, errEncoded
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.cfg.MaxBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, &rpcError{http.StatusBadRequest, rpcParse, nil, "RS-18", "the body could not be read"}
	}
	return body, nil
}

// errNoCredentials reports a request that did not try: its challenge carries no
// error (RS-05).
var errNoCredentials = errors.New("no credentials")

var errLongHeader = errors.New("the Authorization header is too long")

// presented returns the token of the one Authorization header. A token in the
// query is ignored when it stands alone and refused when it stands beside a header
// (RS-14).
func presented(r *http.Request) (credentials, error) {
	headers := r.Header.Values("Authorization")
	switch {
	case len(headers) == 0:
		return credentials{}, errNoCredentials
	case len(headers) > 1:
		return credentials{}, oauth.Refuse(oauth.InvalidRequest, "send one Authorization header").Under("RS-14")
	case strings.Contains(r.URL.RawQuery, "access_token") && r.URL.Query().Has("access_token"):
		return credentials{}, oauth.Refuse(oauth.InvalidRequest, "send the access token in the Authorization header only").Under("RS-14")
	case len(headers[0]) > MaxToken+len("Bearer "):
		return credentials{}, errLongHeader
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	dpop := strings.EqualFold(scheme, "DPoP")
	if scheme != "" && !strings.EqualFold(scheme, "Bearer") && !dpop && schemeName(scheme) {
		return credentials{}, errNoCredentials // another scheme: the client did not know better
	}
	token = strings.TrimLeft(token, " ")
	if !strings.EqualFold(scheme, "Bearer") && !dpop || !b64token(token) {
		return credentials{dpop: dpop}, oauth.Refuse(oauth.InvalidRequest, "the Authorization header must read: Bearer or DPoP, a space, the access token").Under("RS-33")
	}
	return credentials{token, dpop}, nil
}

func schemeName(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; (c < 'a' || c > 'z') && s[i] != '-' && (s[i] < '0' || s[i] > '9') {
			return false
		}
	}
	return true
}

// b64token is the grammar of a bearer token (RFC 6750 section 2.1).
func b64token(s string) bool {
	body := strings.TrimRight(s, "=")
	if body == "" {
		return false
	}
	for i := range len(body) {
		c := body[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte("-._~+/", c) < 0 {
			return false
		}
	}
	return true
}

// refuse writes the answer to a request that is not let through.
func (g *Guard) refuse(w http.ResponseWriter, r *http.Request, d *Decision, err error) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	d.Err = err
	if rpc, ok := errors.AsType[*rpcError](err); ok {
		d.Status, d.Rule = rpc.status, rpc.rule
		writeRPC(w, rpc)
		return
	}
	code, hint := oauth.Code(""), ""
	if e, ok := errors.AsType[*oauth.Error](err); ok {
		code, hint, d.Rule = e.Code, e.Hint, e.Rule
	}
	switch {
	case errors.Is(err, errNoCredentials):
		d.Status, d.Rule, hint = http.StatusUnauthorized, "RS-05", "an access token is needed"
	case errors.Is(err, errForeign):
		d.Status, d.Rule, hint = http.StatusForbidden, "RS-19", errForeign.Error()
	case errors.Is(err, errTooLarge):
		d.Status, hint = http.StatusRequestEntityTooLarge, err.Error()
	case errors.Is(err, errEncoded):
		d.Status, hint = http.StatusUnsupportedMediaType, err.Error()
	case errors.Is(err, errLongHeader):
		d.Status, d.Rule, hint = http.StatusRequestHeaderFieldsTooLarge, "RS-14", err.Error()
	case code == oauth.InvalidToken, code == oauth.InsufficientUserAuthentication, code == oauth.InvalidDPoPProof, code == oauth.UseDPoPNonce:
		d.Status = http.StatusUnauthorized
	case code == oauth.InsufficientScope:
		d.Status = http.StatusForbidden
	case code == oauth.TemporarilyUnavailable:
		d.Status = http.StatusServiceUnavailable
		h.Set("Retry-After", strconv.Itoa(int(firstRetry.Seconds())))
	default:
		d.Status = http.StatusBadRequest
	}
	d.Code = code
	if code != oauth.TemporarilyUnavailable && !errors.Is(err, errForeign) && (d.Status == 401 || d.Status == 403 || d.Status == 400) {
		h.Set("WWW-Authenticate", g.challenge(d, code, hint))
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(d.Status)
	body := struct {
		Error       oauth.Code `json:"error,omitempty"`
		Description string     `json:"error_description"`
	}{code, hint}
	_ = json.NewEncoder(w).Encode(body)
}

// challenge is what the client needs to do better: where to sign in, for which
// scopes (RS-05, RS-06, RS-07, RS-08) and, about a bound token, with which proofs
// (RFC 9449 section 7.1).
func (g *Guard) challenge(d *Decision, code oauth.Code, hint string) string {
	c := oauth.Challenge{Scheme: "Bearer"}
	if d.dpop {
		c.Scheme = "DPoP"
	}
	if code != "" {
		c.Params = append(c.Params, oauth.Param{Name: "error", Value: string(code)},
			oauth.Param{Name: "error_description", Value: hint})
	}
	scopes := g.baseline
	if code == oauth.InsufficientScope || code == oauth.InsufficientUserAuthentication {
		scopes = d.Needed // all that the operation needs, at once
	}
	if weak, ok := errors.AsType[*weakness](d.Err); ok {
		c.Params = append(c.Params, weak.params()...)
	}
	c.Params = append(c.Params,
		oauth.Param{Name: "scope", Value: scopes.String()},
		oauth.Param{Name: "resource_metadata", Value: g.metadataURL})
	if d.dpop {
		c.Params = append(c.Params, oauth.Param{Name: "algs", Value: strings.Join(jose.Accepted, " ")})
	}
	return c.String()
}

func writeRPC(w http.ResponseWriter, e *rpcError) {
	id := json.RawMessage("null")
	if e.id != nil {
		id = e.id
	}
	type rpcBody struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   rpcBody         `json:"error"`
	}{"2.0", id, rpcBody{e.code, e.text}})
}

// loopbackHost reports whether a host name without port is this computer.
func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
