package clientauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// How old a DPoP proof or a proof of possession may be, and how far ahead the
// clock of its sender.
const (
	proofPast   = 5 * time.Minute
	proofFuture = skew
)

// Names in requests and answers.
const (
	headerProof       = "DPoP"
	headerNonce       = "DPoP-Nonce"
	spenderProof      = "\x00dpop " // a namespace of its own: no client_id begins with NUL
	spenderPoP        = "\x00attestation pop "
	spenderChallenge  = "\x00attestation challenge"
	hintProof         = "the DPoP proof cannot be used: "
	hintNonce         = "the DPoP proof must carry the nonce that the header DPoP-Nonce of this answer gives"
	hintProofDemanded = "this client gets tokens only with a DPoP proof"
	hintBindDemanded  = "this client gets tokens only with a DPoP proof or with its TLS certificate"
	hintCertDemanded  = "the metadata of this client asks for tokens bound to its TLS certificate, and none came with the request"
)

// Possession is a DPoP proof that was checked and not yet used up.
type Possession struct {
	JKT string // thumbprint of the key; "" when no proof came

	auth  *Authenticator
	proof *jose.Proof // nil: nothing to spend
}

// Spend uses the proof up: ErrSpent of the store becomes invalid_dpop_proof. It
// belongs behind everything that can refuse the request, so that strangers cannot
// fill the store (DP-08). Without a proof it does nothing.
func (p Possession) Spend(ctx context.Context) error {
	if p.proof == nil {
		return nil
	}
	return p.auth.spendProof(ctx, p.proof)
}

// Proof is the DPoP check of an endpoint (RFC 9449 section 4.3): none or one
// proof, made for this method and for the configured URL of the endpoint,
// whatever the Host header says, fresh, with our nonce where one is demanded, and
// never seen before. It returns the thumbprint of the key, or "" without a proof.
// A request without one is refused where the client's document or the policy
// demands it (DPOP-04); whether a grant does the caller has to know. Call it after
// everything else that can be checked, or use [Authenticator.Check].
func (a *Authenticator) Proof(w http.ResponseWriter, r *http.Request, c *Client) (jkt string, err error) {
	p, err := a.Check(w, r, c)
	if err != nil {
		return "", err
	}
	if err := c.demands(a, p.JKT); err != nil {
		return "", err
	}
	return p.JKT, p.Spend(r.Context())
}

// Check is [Authenticator.Proof] in two steps: it spends nothing, and it demands
// nothing, as at the endpoint for pushed requests, where dpop_jkt may stand in
// place of a proof. [Client.Demands] says what has to come.
func (a *Authenticator) Check(w http.ResponseWriter, r *http.Request, c *Client) (Possession, error) {
	if c != nil && c.proof != nil { // it authenticated the client and is spent
		return Possession{JKT: c.proof.JKT}, nil
	}
	proof, err := a.proof(w.Header(), r, proofDemands{nonce: a.cfg.RequireNonce})
	if err != nil || proof == nil {
		return Possession{}, err
	}
	if c != nil && !c.Decision.MaySign(proof.Alg) {
		return Possession{}, oauth.Refuse(oauth.InvalidDPoPProof, "the DPoP proof is signed in a way that is not accepted for this client").Under("POL-09")
	}
	return Possession{JKT: proof.JKT, auth: a, proof: proof}, nil
}

// ProofOfToken is the check of an endpoint that takes an access token as a
// resource does: exactly one proof, with the hash of the token (ath), made with
// the key that the token is bound to, whose thumbprint is jkt. A proof by another
// key is not remembered: whoever stole the token could make any number (DP-08).
func (a *Authenticator) ProofOfToken(w http.ResponseWriter, r *http.Request, token, jkt string) error {
	proof, err := a.proof(w.Header(), r, proofDemands{nonce: a.cfg.RequireNonce, token: token})
	switch {
	case err != nil:
		return err
	case proof == nil:
		return oauth.Refuse(oauth.InvalidDPoPProof, "a DPoP proof is missing").Under("DPOP-06")
	case jkt == "" || proof.JKT != jkt:
		return oauth.Refuse(oauth.InvalidToken, "the proof was made with another key than the token is bound to").Under("DPOP-06")
	}
	return a.spendProof(r.Context(), proof)
}

// Demands refuses a token request that is not bound to what the client's document
// or the policy wants its tokens bound to. jkt is the key of its proof, or "".
func (a *Authenticator) Demands(c *Client, jkt string) error { return c.demands(a, jkt) }

func (c *Client) demands(a *Authenticator, jkt string) error {
	bind, dpop := c.Decision.MustBind()
	switch {
	case jkt != "":
	case dpop || c.Doc != nil && c.Doc.DPoPBound:
		return oauth.Refuse(oauth.InvalidDPoPProof, hintProofDemanded).Under("DPOP-04")
	case c.CertThumbprint != "":
	case a.cfg.MTLS != nil && c.Doc != nil && c.Doc.MTLSBound:
		return oauth.Refuse(oauth.InvalidRequest, hintCertDemanded).Under("DPOP-07")
	case bind:
		return oauth.Refuse(oauth.InvalidDPoPProof, hintBindDemanded).Under("POL-09")
	}
	return nil
}

type proofDemands struct {
	nonce bool
	token string // that comes with it; "" asks for no ath
}

// proof checks everything about a proof but whether it was seen before. It is nil
// when none came. answer gets a nonce where nonces are demanded, so that the next
// proof can be made with it (DPOP-03).
func (a *Authenticator) proof(answer http.Header, r *http.Request, d proofDemands) (*jose.Proof, error) {
	headers := r.Header.Values(headerProof)
	if len(headers) == 0 {
		return nil, nil
	}
	now := a.cfg.Now()
	if d.nonce {
		answer.Set(headerNonce, a.cfg.Nonces.At(now))
	}
	if len(headers) > 1 {
		return nil, oauth.Refuse(oauth.InvalidDPoPProof, "%smore than one header was sent", hintProof).Under("DPOP-01")
	}
	p, err := jose.ParseProof(headers[0], jose.ProofRules{
		Method: r.Method, URL: a.endpoint(r), Now: now, Past: proofPast, Future: proofFuture, AccessToken: d.token,
	})
	if err != nil {
		return nil, oauth.Refuse(oauth.InvalidDPoPProof, "%s%v", hintProof, err).Under("DPOP-01")
	}
	if d.nonce && !a.cfg.Nonces.Good(p.Nonce, now) {
		return nil, oauth.Refuse(oauth.UseDPoPNonce, hintNonce).Under("DPOP-03")
	}
	return p, nil
}

// spendProof makes a proof single-use. The key is part of what is spent: nobody
// can use up the jti of somebody else, and neither another spelling of htm and htu
// nor another endpoint makes an old proof new (DP-02).
func (a *Authenticator) spendProof(ctx context.Context, p *jose.Proof) error {
	err := a.cfg.Spender.SpendID(ctx, spenderProof+p.JKT, store.HashOf(p.JTI), p.Issued.Add(proofPast+skew), a.cfg.Now())
	if planted.Weak("proof") {
		err = nil
	}
	if errors.Is(err, store.ErrSpent) {
		return oauth.Refuse(oauth.InvalidDPoPProof, "%sits jti was used before", hintProof).Under("DPOP-01").Because(err)
	}
	if err != nil {
		return fmt.Errorf("spend proof: %w", err)
	}
	return nil
}

// endpoint is the URL of the request as configured: the origin of the issuer, or
// of the second host where certificates are asked for, and the path. The Host
// header only chooses between these two.
func (a *Authenticator) endpoint(r *http.Request) string {
	base := a.cfg.Issuer
	if m := a.cfg.MTLS; m != nil && m.URL != "" {
		if u, err := url.Parse(m.URL); err == nil && r.Host == u.Host {
			base = m.URL
		}
	}
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + r.URL.EscapedPath()
}
