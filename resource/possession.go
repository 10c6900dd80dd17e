package resource

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// proofWindow is how far the time of a DPoP proof may be from ours, to either
// side: what the MCP extension for DPoP asks for.
const proofWindow = 5 * time.Minute

// DPoP says how tokens that are bound to a key are taken (RFC 9449). A token that
// is bound is never accepted without a proof, whatever stands here.
type DPoP struct {
	// Required refuses tokens that are not bound to a key, and says so in the
	// metadata (dpop_bound_access_tokens_required).
	Required bool
	// ContentDigest demands that the proof of each POST holds the digest of its
	// body (content_digest), as the MCP extension for DPoP has it. Bodies are then
	// always read.
	ContentDigest bool
	// RequireNonce demands a nonce of this server in each proof. Without it a proof
	// is good for five minutes, and only once.
	RequireNonce bool
	// NonceKey makes the nonces, so that several processes of one resource accept
	// each other's: at least 16 random octets, the same everywhere. nil is a key of
	// this process.
	NonceKey []byte
	// MaxProofs bounds how many used proofs are remembered, in memory and for at
	// most ten minutes; 0 is 200,000. One key gets a quarter of them, and one user
	// with all clients and keys a half, of what others have left.
	MaxProofs int
}

// credentials are what an Authorization header holds.
type credentials struct {
	token string
	dpop  bool // the scheme was DPoP and not Bearer
}

// confirmation is what a token is bound to (RFC 7800).
type confirmation struct {
	jkt   string // thumbprint of a DPoP key
	x5t   string // SHA-256 of a certificate
	other bool   // something that is not understood here
}

// readConfirmation reads cnf. What is not understood makes the token useless
// rather than less bound.
func readConfirmation(v []byte) (c confirmation, err error) {
	if v[0] != '{' {
		return c, errClaim
	}
	err = members(v, func(name string, v []byte) error {
		var err error
		switch name {
		case "jkt":
			c.jkt, err = claimText(v)
		case "x5t#S256":
			c.x5t, err = claimText(v)
		default:
			c.other = true
		}
		return err
	})
	c.other = c.other || c.jkt == "" && c.x5t == ""
	return c, err
}

// possess checks that the caller holds what the token is bound to: the key by a
// proof, the certificate by the connection. Scheme and token have to agree both
// ways (DPOP-06). The proof is nil where none was needed; it is not used up yet.
func (g *Guard) possess(w http.ResponseWriter, r *http.Request, cred credentials, c *claims) (*jose.Proof, error) {
	b := c.bound
	switch {
	case b == nil && !cred.dpop && !g.cfg.DPoP.Required:
		return nil, nil
	case b == nil && cred.dpop:
		return nil, invalid("DPOP-06", "the access token is not bound to a key; present it with the scheme Bearer")
	case b == nil:
		return nil, invalid("RS-24", "only access tokens that are bound to a key are accepted here")
	case b.other:
		return nil, invalid("RS-24", "the access token is bound in a way that is not understood here")
	case b.x5t != "" && !g.showsCertificate(r, b.x5t):
		return nil, invalid("DPOP-07", "the access token is bound to another certificate than the one of this connection")
	case b.jkt == "" && cred.dpop:
		return nil, invalid("DPOP-06", "the access token is not bound to a key; present it with the scheme Bearer")
	case b.jkt == "" && g.cfg.DPoP.Required:
		return nil, invalid("RS-24", "only access tokens that are bound to a key are accepted here")
	case b.jkt == "":
		return nil, nil
	case !cred.dpop:
		return nil, invalid("DPOP-06", "the access token is bound to a key; present it with the scheme DPoP and a proof")
	}
	return g.proof(w, r, cred.token, b.jkt)
}

// proof checks the DPoP proof of a request but for its body and for whether it
// was used before (RFC 9449 section 4.3).
func (g *Guard) proof(w http.ResponseWriter, r *http.Request, token, jkt string) (*jose.Proof, error) {
	headers := r.Header.Values("DPoP")
	if len(headers) != 1 {
		return nil, badProof("send exactly one DPoP header")
	}
	now := g.cfg.Now()
	p, err := jose.ParseProof(headers[0], jose.ProofRules{
		Method: r.Method, URL: g.target(r), Now: now, Past: proofWindow, Future: proofWindow, AccessToken: token,
	})
	if err != nil {
		return nil, badProof(err.Error())
	}
	if subtle.ConstantTimeCompare([]byte(p.JKT), []byte(jkt)) != 1 {
		return nil, invalid("DPOP-06", "the proof was made with another key than the access token is bound to")
	}
	if g.cfg.DPoP.RequireNonce {
		w.Header().Set("DPoP-Nonce", g.nonces.At(now))
		if !g.nonces.Good(p.Nonce, now) {
			return nil, oauth.Refuse(oauth.UseDPoPNonce, "the proof must carry the nonce that the header DPoP-Nonce of this answer gives").Under("DPOP-03")
		}
	}
	return p, nil
}

func badProof(why string) *oauth.Error {
	return oauth.Refuse(oauth.InvalidDPoPProof, "the DPoP proof cannot be used: %s", why).Under("DPOP-01")
}

// target is the URL that a proof has to be made for: the configured origin and the
// path of the request where that lies within the resource, and otherwise the
// resource, because the guard then stands behind something that rewrites paths.
// The Host header is not asked.
func (g *Guard) target(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") {
		path = r.URL.EscapedPath()
	}
	own := strings.TrimSuffix(strings.TrimPrefix(g.cfg.Resource, g.origin), "/")
	if own == "" || path == own || strings.HasPrefix(path, own+"/") {
		return g.origin + path
	}
	return g.cfg.Resource
}

// checkDigest holds the body against what the proof says about it (DPOP-05).
func checkDigest(p *jose.Proof, body []byte) error {
	var claim string
	err := members(p.Claims, func(name string, v []byte) error {
		var err error
		if name == "content_digest" {
			claim, err = claimText(v)
		}
		return err
	})
	sum := sha256.Sum256(body)
	if want := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"; err != nil || subtle.ConstantTimeCompare([]byte(claim), []byte(want)) != 1 {
		e := badProof("content_digest is not the SHA-256 digest of the body")
		return e.Under("DPOP-05")
	}
	return nil
}

// useUp makes a proof single-use. It comes last, so that only who holds a good
// token and its key can fill the memory, each user his own part of it (DP-08).
func (g *Guard) useUp(t Token, p *jose.Proof) error {
	if p == nil {
		return nil
	}
	switch g.proofs.use(t, p, g.cfg.Now()) {
	case proofUsed:
		return badProof("its jti was used before")
	case proofsFull:
		return oauth.Refuse(oauth.TemporarilyUnavailable, "too many proofs in a few minutes; slow down").Under("DPOP-01")
	}
	return nil
}

func (g *Guard) showsCertificate(r *http.Request, x5t string) bool {
	var cert *x509.Certificate
	switch {
	case g.cfg.Certificate != nil:
		cert = g.cfg.Certificate(r)
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		cert = r.TLS.PeerCertificates[0]
	}
	if cert == nil {
		return false
	}
	sum := sha256.Sum256(cert.Raw)
	return subtle.ConstantTimeCompare([]byte(x5t), []byte(base64.RawURLEncoding.EncodeToString(sum[:]))) == 1
}

// readDPoP prepares nonces and the memory of proofs.
func (g *Guard) readDPoP() error {
	d := g.cfg.DPoP
	if d.NonceKey != nil && len(d.NonceKey) < 16 {
		return errShortKey
	}
	g.nonces = jose.RandomNonces(0)
	if d.NonceKey != nil {
		g.nonces = jose.NewNonces(sha256.Sum256(d.NonceKey), 0)
	}
	g.proofs = newReplays(d.MaxProofs)
	return nil
}
