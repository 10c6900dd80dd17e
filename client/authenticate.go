package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// standing is who the client is at one authorization server, and how it can prove
// that there.
type standing struct {
	id      string
	methods []string
	dynamic bool   // the client registered itself
	secret  string // that this server and the client share; "" is none
}

// secretMethods are the ways to send a secret, in the order in which they are
// preferred: the one that every server has to know comes first.
var secretMethods = []string{oauth.MethodSecretBasic, oauth.MethodSecretPost}

// standing returns what belongs to a client_id of ours at an issuer. Nothing of
// one issuer is ever used at another (CLI-13).
func (c *Client) standing(ctx context.Context, issuer, clientID string) (standing, error) {
	if secret := c.cfg.Secrets[issuer]; secret != "" && clientID != "" && clientID == c.cfg.Registered[issuer] {
		methods := slices.DeleteFunc(slices.Clone(c.cfg.Methods), func(m string) bool { return m == oauth.MethodNone })
		return standing{id: clientID, methods: append(methods, secretMethods...), secret: secret}, nil
	}
	if clientID != "" && (clientID == c.cfg.ID || clientID == c.cfg.Registered[issuer]) {
		return standing{id: clientID, methods: c.cfg.Methods}, nil
	}
	if r, err := c.registration(ctx, issuer); err != nil {
		return standing{}, err
	} else if r != nil && r.ClientID == clientID {
		return standing{id: clientID, methods: []string{r.Method}, dynamic: true, secret: r.Secret}, nil
	}
	return standing{}, fmt.Errorf("%w: %q is no client_id of this client at %s", ErrSignIn, clientID, issuer)
}

// checkMethods completes and checks how the client may authenticate.
func (cfg *Config) checkMethods() error {
	if cfg.Methods == nil {
		switch {
		case cfg.Attest != nil:
			cfg.Methods = []string{oauth.MethodAttestation, oauth.MethodAttestationDPoP}
		case !cfg.Key.IsZero():
			cfg.Methods = []string{oauth.MethodPrivateKeyJWT}
		default:
			cfg.Methods = []string{oauth.MethodNone}
		}
	}
	for _, m := range cfg.Methods {
		switch {
		case m == oauth.MethodNone:
		case m == oauth.MethodPrivateKeyJWT && cfg.Key.IsZero():
			return errors.New("private_key_jwt needs a Key")
		case m == oauth.MethodPrivateKeyJWT:
		case attests(m) && cfg.Attest == nil && cfg.Key.IsZero():
			return errors.New(m + " needs Attest, or a Key to make attestations with")
		case attests(m):
		default:
			return fmt.Errorf("method %q is not for a client with a document", m)
		}
	}
	if cfg.Alone && len(cfg.Secrets) == 0 && len(cfg.Methods) == 1 && cfg.Methods[0] == oauth.MethodNone {
		return errors.New("a client that acts for itself needs a Key or Attest: it has to prove who it is")
	}
	for issuer := range cfg.Secrets {
		if cfg.Registered[issuer] == "" {
			return fmt.Errorf("a secret for %s needs the client_id that is registered there", issuer)
		}
	}
	return nil
}

func attests(method string) bool {
	return method == oauth.MethodAttestation || method == oauth.MethodAttestationDPoP
}

// nameOf returns how to call the algorithm of a key in a header for a server that
// lists algorithms: "" when it lists others only. A server that lists none takes
// ours. Ed25519 is the name of EdDSA in RFC 9864, and some list that alone.
func nameOf(alg string, listed []string) string {
	if len(listed) == 0 || slices.Contains(listed, alg) {
		return alg
	}
	for _, l := range listed {
		if jose.Canonical(l) == alg {
			return l
		}
	}
	return ""
}

// choose says how the client authenticates: what it can do and what the server
// lists, the client's own key before an attestation, and that before nothing
// (CLI-17). A server that forgets to list none is still offered it. bound says
// that a DPoP proof goes along. No secret is sent but one that was made for the
// client at this very server. The step is for the trace of the request it is for.
func (c *Client) choose(m *oauth.ServerMetadata, who standing, bound bool) (string, Step, error) {
	theirs := m.TokenAuthMethods
	common := func(method string) bool {
		return slices.Contains(who.methods, method) && (len(theirs) == 0 || slices.Contains(theirs, method))
	}
	decide := func(method, text, rule string) (string, Step, error) {
		return method, Step{Kind: StepDecide, Text: text + " (" + method + ")", Rule: rule}, nil
	}
	attested := c.cfg.Attest != nil || nameOf(c.cfg.Key.Algorithm(), m.AttestationSigningAlgs) != ""
	switch {
	case common(oauth.MethodPrivateKeyJWT) && nameOf(c.cfg.Key.Algorithm(), m.TokenAuthSigningAlgs) != "":
		return decide(oauth.MethodPrivateKeyJWT, "prove the client with its key", "CLI-17")
	case common(oauth.MethodAttestationDPoP) && attested && bound:
		return decide(oauth.MethodAttestationDPoP, "prove this installation with an attestation and the DPoP proof", "CLI-17")
	case common(oauth.MethodAttestation) && attested:
		return decide(oauth.MethodAttestation, "prove this installation with an attestation", "CLI-17")
	case who.secret != "":
		for _, m := range secretMethods {
			if common(m) {
				return decide(m, "prove the client with the secret that it has at this server", "CLI-13")
			}
		}
	case slices.Contains(who.methods, oauth.MethodNone):
		return decide(oauth.MethodNone, "send the client_id without proof", "CLI-15")
	}
	return "", Step{}, fmt.Errorf("no authentication method in common: the client has %q with %q, %s offers %q with %q",
		who.methods, c.cfg.Key.Algorithm(), m.Issuer, theirs, m.TokenAuthSigningAlgs)
}

// request is one POST to an authorization server in the client's name.
type request struct {
	text   string // for the trace
	place  string // the endpoint
	server *oauth.ServerMetadata
	client standing
	form   url.Values
	key    Key  // of this installation; zero where neither tokens are bound nor attestations made
	bound  bool // send a DPoP proof with key
}

// answer is what came back, read and within bounds.
type answer struct {
	status int
	body   []byte
}

// refusal is what a server says in JSON about a request that it refused.
type refusal struct {
	Code        oauth.Code `json:"error"`
	Description string     `json:"error_description"`
	Reference   string     `json:"reference"`
}

// refused returns what the answer says, or an error about an answer that says
// nothing.
func (a answer) refused(whose string) error {
	var r refusal
	if json.Unmarshal(a.body, &r) != nil || r.Code == "" {
		return &statusError{"the " + whose, a.status}
	}
	return &ServerError{Code: r.Code, Description: r.Description, Status: a.status, Reference: r.Reference}
}

// post authenticates and sends a request. What the server asks for in its refusal,
// a nonce, a challenge, a fresh attestation, it gets once each, and no more: then
// the refusal is the answer (CLI-24).
func (c *Client) post(ctx context.Context, r request) (answer, error) {
	method, decided, err := c.choose(r.server, r.client, r.bound)
	if err != nil {
		return answer{}, err
	}
	c.step(decided)
	tried := map[oauth.Code]bool{}
	for {
		form, header, err := c.prove(ctx, r, method)
		if err != nil {
			return answer{}, err
		}
		resp, err := c.do(ctx, question{text: r.text, method: http.MethodPost, place: r.place, form: form, header: header})
		if err != nil {
			return answer{}, err
		}
		raw, err := readBounded(resp.Body)
		resp.Body.Close()
		if err != nil {
			return answer{}, fmt.Errorf("read the answer of %s: %w", r.place, err)
		}
		c.hear(r.server.Issuer, resp.Header)
		a := answer{resp.StatusCode, raw}
		e, _ := errors.AsType[*ServerError](a.refused(""))
		if a.status < 300 || e == nil || tried[e.Code] || !c.remedy(r, e.Code, resp.Header) {
			return a, nil
		}
		tried[e.Code] = true
		c.step(Step{Kind: StepDecide, Text: "send it once more: the server wants " + strings.TrimPrefix(string(e.Code), "use_"), Rule: "CLI-24"})
	}
}

// remedy reports whether a refusal gave what a second attempt needs.
func (c *Client) remedy(r request, code oauth.Code, h http.Header) bool {
	switch code {
	case oauth.UseDPoPNonce:
		return r.bound && h.Get(headerNonce) != ""
	case oauth.UseAttestationChallenge:
		return h.Get(headerChallenge) != "" || r.server.ChallengeEndpoint != ""
	case oauth.UseFreshAttestation:
		return c.dropAttestation(r)
	}
	return false
}

// prove returns the form and the headers of one attempt: assertions and proofs are
// good once. The client stands in the body, but for a registration that asks for
// Basic (CLI-15).
func (c *Client) prove(ctx context.Context, r request, method string) (url.Values, http.Header, error) {
	form, header := url.Values{}, http.Header{}
	for name, v := range r.form {
		form[name] = v
	}
	form.Set("client_id", r.client.id)
	switch method {
	case oauth.MethodPrivateKeyJWT:
		assertion, err := c.assertion(r.client.id, r.server)
		if err != nil {
			return nil, nil, err
		}
		form.Set("client_assertion_type", oauth.AssertionTypeJWT)
		form.Set("client_assertion", assertion)
	case oauth.MethodAttestation, oauth.MethodAttestationDPoP:
		if err := c.attest(ctx, r, method, header); err != nil {
			return nil, nil, err
		}
	case oauth.MethodSecretPost:
		form.Set("client_secret", r.client.secret)
	case oauth.MethodSecretBasic:
		form.Del("client_id")
		basic := http.Request{Header: header}
		basic.SetBasicAuth(url.QueryEscape(r.client.id), url.QueryEscape(r.client.secret))
	}
	if r.bound {
		proof, err := c.proof(r.key, proven{
			method: http.MethodPost, url: r.place, nonce: c.heard(r.server.Issuer), algs: r.server.DPoPSigningAlgs,
		})
		if err != nil {
			return nil, nil, err
		}
		header.Set(headerProof, proof)
	}
	return form, header, nil
}

// assertionLife is how long an assertion is good; it is used at once.
const assertionLife = time.Minute

// assertion signs a fresh statement for one request. Its only audience is the
// issuer whose metadata was verified, whatever endpoints that names: at another
// server it is worth nothing (CLI-16).
func (c *Client) assertion(clientID string, m *oauth.ServerMetadata) (string, error) {
	now := c.cfg.Now()
	key := c.cfg.Key.private.Called(nameOf(c.cfg.Key.Algorithm(), m.TokenAuthSigningAlgs))
	return key.Sign(oauth.TypClientAssertion, struct {
		Iss string `json:"iss"`
		Sub string `json:"sub"`
		Aud string `json:"aud"`
		JTI string `json:"jti"`
		Iat int64  `json:"iat"`
		Exp int64  `json:"exp"`
	}{clientID, clientID, m.Issuer, oauth.RandomToken(16), now.Unix(), now.Add(assertionLife).Unix()})
}
