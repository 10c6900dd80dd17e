package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// DPoPUse says when tokens are bound to a key of this installation (RFC 9449).
type DPoPUse string

// When tokens are bound.
const (
	DPoPWhenRequired DPoPUse = ""           // only for a resource that takes no others
	DPoPIfOffered    DPoPUse = "if-offered" // wherever the authorization server can
	DPoPAlways       DPoPUse = "always"     // or not at all
)

const (
	headerProof = "DPoP"
	headerNonce = "DPoP-Nonce"
	maxNonce    = 1 << 10 // bytes of a nonce or challenge that is taken up
)

// binds decides whether the tokens of a sign-in are bound to a key, and with which
// algorithms that key may sign, in our order.
func (c *Client) binds(s *Server, who standing) (algs []string, bound bool, err error) {
	for _, alg := range jose.Algorithms {
		if len(s.Metadata.DPoPSigningAlgs) > 0 && nameOf(alg, s.Metadata.DPoPSigningAlgs) != "" && nameOf(alg, s.ResourceMetadata.DPoPSigningAlgs) != "" {
			algs = append(algs, alg)
		}
	}
	combined := !slices.ContainsFunc(who.methods, func(m string) bool { return m != oauth.MethodAttestationDPoP })
	required := c.cfg.DPoP == DPoPAlways || s.ResourceMetadata.DPoPRequired || combined
	switch {
	case len(algs) == 0 && required:
		return nil, false, c.check("CLI-24", "tokens can be bound to a key, as has to be", fmt.Errorf("%s does not offer DPoP with an algorithm of ours", s.Issuer))
	case len(algs) == 0 || !required && c.cfg.DPoP != DPoPIfOffered:
		return jose.Algorithms, false, nil
	}
	c.step(Step{Kind: StepDecide, Text: "bind the tokens to a key of this installation (DPoP)", Rule: "CLI-24"})
	return algs, true, nil
}

// keyFor returns the key for a sign-in, and whether tokens are bound to it. It is
// zero where no key is needed.
func (c *Client) keyFor(ctx context.Context, s *Server, who standing) (key Key, bound bool, method string, err error) {
	algs, bound, err := c.binds(s, who)
	if err != nil {
		return Key{}, false, "", err
	}
	if method, _, err = c.choose(&s.Metadata, who, bound); err != nil {
		return Key{}, false, "", err
	}
	if method == oauth.MethodAttestation {
		algs = slices.DeleteFunc(slices.Clone(algs), func(a string) bool { return nameOf(a, s.Metadata.AttestationPoPSigningAlgs) == "" })
	}
	if bound || attests(method) {
		key, err = c.installation(ctx, s.Issuer, algs)
	}
	return key, bound, method, err
}

// installation returns the key of this installation at an authorization server,
// and makes it at the first need. Each server sees another one, so that none can
// recognise the installation by what it was at another.
func (c *Client) installation(ctx context.Context, issuer string, algs []string) (Key, error) {
	if len(algs) == 0 {
		return Key{}, fmt.Errorf("%s takes no algorithm of ours", issuer)
	}
	usable := func(g *Grant) (Key, bool) {
		if g == nil || g.ProofKey == nil {
			return Key{}, false
		}
		k, err := ParseKey(g.ProofKey)
		return k, err == nil && slices.Contains(algs, k.Algorithm())
	}
	g, err := c.cfg.Store.Load(ctx, atIssuer(issuer))
	if err != nil {
		return Key{}, err
	}
	key, ok := usable(g)
	if ok {
		return key, nil
	}
	err = c.cfg.Store.Update(ctx, atIssuer(issuer), func(old *Grant) (*Grant, error) {
		if key, ok = usable(old); ok {
			return old, nil // another program was faster
		}
		next := Grant{Issuer: issuer}
		if old != nil {
			next = *old
		}
		var err error
		if key, err = GenerateKey(algs[0]); err == nil {
			next.ProofKey, err = key.MarshalPrivate()
		}
		return &next, err
	})
	return key, err
}

// atIssuer is the key in the Store under which stands what belongs to an issuer
// and to no resource. No URL is spelled so.
func atIssuer(issuer string) string { return "issuer " + issuer }

// atResource names a resource among those who give nonces: one that is its own
// authorization server has two.
func atResource(target string) string { return "resource " + target }

// proven is what a proof is about.
type proven struct {
	method, url string
	nonce       string // "" is none
	token       string // that it goes with; "" at an authorization server
	digest      string // of the body, where the MCP extension for DPoP is on
	algs        []string
}

// proof makes a DPoP proof for one request (RFC 9449 section 4.2).
func (c *Client) proof(k Key, p proven) (string, error) {
	claims := struct {
		JTI    string `json:"jti"`
		Method string `json:"htm"`
		URL    string `json:"htu"`
		Issued int64  `json:"iat"`
		Hash   string `json:"ath,omitempty"`
		Nonce  string `json:"nonce,omitempty"`
		Digest string `json:"content_digest,omitempty"`
	}{JTI: oauth.RandomToken(16), Method: p.method, Issued: c.cfg.Now().Unix(), Nonce: p.nonce, Digest: p.digest}
	claims.URL, _, _ = strings.Cut(p.url, "#")
	claims.URL, _, _ = strings.Cut(claims.URL, "?")
	if p.token != "" {
		sum := sha256.Sum256([]byte(p.token))
		claims.Hash = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return k.private.Called(nameOf(k.Algorithm(), p.algs)).SignProof(claims)
}

// hear keeps the nonce and the challenge of an answer, for the next request to
// the same server and to no other.
func (c *Client) hear(from string, h http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range []string{headerNonce, headerChallenge} {
		v := h.Get(name)
		if v == "" || len(v) > maxNonce {
			continue
		}
		if _, known := c.told[name+" "+from]; known || len(c.told) < maxStepped {
			c.told[name+" "+from] = v
		}
	}
}

// heard returns the latest nonce of a server.
func (c *Client) heard(from string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told[headerNonce+" "+from]
}

// authorize puts the token on a request, with a proof where it is bound to a key.
func (a *attempt) authorize(out *http.Request, g *Grant) error {
	if !g.bound() {
		out.Header.Set("Authorization", "Bearer "+g.AccessToken)
		return nil
	}
	key, err := ParseKey(g.ProofKey)
	if err != nil {
		return fmt.Errorf("the key that the token is bound to: %w", err)
	}
	p := proven{method: out.Method, url: out.URL.String(), nonce: a.client.heard(atResource(a.target)), token: g.AccessToken}
	if a.client.cfg.ContentDigest && out.Method == http.MethodPost {
		if p.digest, err = a.digest(); err != nil {
			return err
		}
	}
	proof, err := a.client.proof(key, p)
	if err != nil {
		return err
	}
	out.Header.Set("Authorization", oauth.TokenDPoP+" "+g.AccessToken)
	out.Header.Set(headerProof, proof)
	return nil
}

// digest is what the MCP extension for DPoP wants to know of a body.
func (a *attempt) digest() (string, error) {
	if a.replay == nil {
		return "", errors.New("a body of unknown length above 1 MiB cannot be sent with its digest (ContentDigest)")
	}
	body, err := a.replay()
	if err != nil {
		return "", err
	}
	defer body.Close()
	h := sha256.New()
	if _, err := io.Copy(h, body); err != nil {
		return "", err
	}
	return "sha-256=:" + base64.StdEncoding.EncodeToString(h.Sum(nil)) + ":", nil
}

// buffered keeps a body of unknown length, so that its digest can be told. One
// that is too long is left as it is.
func buffered(req *http.Request) (*http.Request, func() (io.ReadCloser, error), error) {
	raw, err := io.ReadAll(io.LimitReader(req.Body, maxReplay+1))
	if err != nil {
		req.Body.Close()
		return nil, nil, err
	}
	if len(raw) > maxReplay {
		req.Body.Close()
		return nil, nil, errors.New("a body of unknown length above 1 MiB cannot be sent with its digest (ContentDigest)")
	}
	req.Body.Close()
	return req, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }, nil
}

// bound reports whether the tokens of a grant are bound to its key.
func (g *Grant) bound() bool { return strings.EqualFold(g.TokenType, oauth.TokenDPoP) }

// publicJWK is the public half of a key, as it stands in cnf and in thumbprints.
func (k Key) publicJWK() json.RawMessage {
	raw, _ := k.private.Public().MarshalJSON() // a key that was made or parsed has one
	return raw
}
