package housetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// Provider is an upstream OpenID provider at https://idp.test: an honest one,
// until a test makes it lie.
type Provider struct {
	House *House

	mu sync.Mutex // guards what follows

	Key       jose.Private
	Discovery func(map[string]any)         // changes the discovery document
	Claims    func(map[string]any)         // changes the claims of an ID token
	Sign      func(claims any) string      // signs it; nil signs with Key
	Answer    func(url.Values) url.Values  // changes the answer that goes back to us; nil of it is no answer
	Token     func(w http.ResponseWriter)  // replaces the answer of the token endpoint
	asked     []url.Values                 // what browsers brought
	redeemed  []url.Values                 // what was sent to the token endpoint
	basic     []string                     // users of HTTP Basic there
	codes     map[string]map[string]string // code: nonce, challenge, redirect
}

// UpstreamIssuer is the issuer of the provider.
const UpstreamIssuer = "https://idp.test"

// UpstreamSecret is our secret at the provider.
const UpstreamSecret = "our secret there"

// Upstream is the configuration of the provider, to be appended to Config.
const Upstream = `upstream: [{name: idp, title: Acme SSO, issuer: https://idp.test, client_id: bonafide, link: [email, create], domains: [acme.example], acr: {gold: "urn:acme:gold"}}]`

// NewProvider starts the provider in the net of a house. It signs everybody in
// as john@acme.example at once.
func NewProvider(h *House) *Provider {
	h.TB.Helper()
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		h.TB.Fatal(err)
	}
	p := &Provider{House: h, Key: key, codes: map[string]map[string]string{}}
	h.Net.Host("idp.test").Handle("*", http.HandlerFunc(p.serve))
	h.provider = p
	return p
}

// Set changes the provider while a house is running.
func (p *Provider) Set(change func(*Provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// Asked returns the authorization requests so far.
func (p *Provider) Asked() []url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]url.Values(nil), p.asked...)
}

// Redeemed returns the requests to the token endpoint so far, and who
// authenticated with HTTP Basic.
func (p *Provider) Redeemed() ([]url.Values, []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]url.Values(nil), p.redeemed...), append([]string(nil), p.basic...)
}

func (p *Provider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		d := map[string]any{
			"issuer": UpstreamIssuer, "authorization_endpoint": UpstreamIssuer + "/authorize", "token_endpoint": UpstreamIssuer + "/token",
			"jwks_uri": UpstreamIssuer + "/jwks", "authorization_response_iss_parameter_supported": true,
		}
		if p.Discovery != nil {
			p.Discovery(d)
		}
		p.json(w, d)
	case "/jwks":
		raw, err := jose.MarshalSet(p.Key.Public())
		if err != nil {
			p.House.TB.Error(err)
		}
		_, _ = w.Write(raw)
	case "/authorize":
		p.authorize(w, r)
	case "/token":
		p.token(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	p.asked = append(p.asked, q)
	code := oauth.RandomToken(8)
	p.codes[code] = map[string]string{"nonce": q.Get("nonce"), "challenge": q.Get("code_challenge"), "redirect": q.Get("redirect_uri")}
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {UpstreamIssuer}}
	if p.Answer != nil {
		back = p.Answer(back)
	}
	if back == nil {
		fmt.Fprint(w, "<title>provider</title><main>the provider asks for your password</main>")
		return
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.House.TB.Error(err)
	}
	p.redeemed = append(p.redeemed, r.PostForm)
	user, _, _ := r.BasicAuth()
	p.basic = append(p.basic, user)
	if p.Token != nil {
		p.Token(w)
		return
	}
	code, ok := p.codes[r.PostForm.Get("code")]
	delete(p.codes, r.PostForm.Get("code"))
	if !ok || oauth.S256(r.PostForm.Get("code_verifier")) != code["challenge"] || r.PostForm.Get("redirect_uri") != code["redirect"] {
		w.WriteHeader(http.StatusBadRequest)
		p.json(w, map[string]string{"error": "invalid_grant"})
		return
	}
	now := p.House.Now().Unix()
	claims := map[string]any{
		"iss": UpstreamIssuer, "sub": "u-1", "aud": "bonafide", "iat": now, "exp": now + 300, "nonce": code["nonce"], "auth_time": now,
		"email": User + "@acme.example", "email_verified": true, "acr": "gold", "amr": []string{"hwk", "pin"},
	}
	if p.Claims != nil {
		p.Claims(claims)
	}
	p.json(w, map[string]any{
		"access_token": "upstream-access-token", "refresh_token": "upstream-refresh-token", "token_type": "Bearer", "id_token": p.sign("JWT", claims),
	})
}

func (p *Provider) sign(typ string, claims any) string {
	if p.Sign != nil {
		return p.Sign(claims)
	}
	token, err := p.Key.Sign(typ, claims)
	if err != nil {
		p.House.TB.Error(err)
	}
	return token
}

func (p *Provider) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		p.House.TB.Error(err)
	}
}
