package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	headerAttestation    = "OAuth-Client-Attestation"
	headerAttestationPoP = "OAuth-Client-Attestation-PoP"
	headerChallenge      = "OAuth-Client-Attestation-Challenge"

	attestationLife = time.Hour   // of one that the client makes itself
	attestationLeft = time.Minute // how much life an attestation needs to be sent
)

// Attestation is what [Config.Attest] is asked for: a client attestation (draft
// attestation-based client authentication) about one installation.
type Attestation struct {
	ClientID string          // for sub
	Issuer   string          // the authorization server that will read it
	Instance json.RawMessage // the installation's public key, a JWK: for cnf.jwk
}

// attested is an attestation that was got before.
type attested struct {
	raw     string
	expires time.Time
}

// attest adds the headers of attestation-based authentication: the attestation,
// and the proof that this installation holds the key it names, which in the
// combined mode the DPoP proof is.
func (c *Client) attest(ctx context.Context, r request, method string, header http.Header) error {
	if r.key.IsZero() {
		return errors.New("there is no key of this installation to attest")
	}
	a, err := c.attestation(ctx, r)
	if err != nil {
		return err
	}
	header.Set(headerAttestation, a)
	if method == oauth.MethodAttestationDPoP {
		return nil
	}
	challenge, err := c.challenge(ctx, r.server)
	if err != nil {
		return err
	}
	key := r.key.private.Called(nameOf(r.key.Algorithm(), r.server.AttestationPoPSigningAlgs))
	pop, err := key.Sign(oauth.TypAttestationPoP, struct {
		Aud       string `json:"aud"`
		JTI       string `json:"jti"`
		Iat       int64  `json:"iat"`
		Challenge string `json:"challenge,omitempty"`
	}{r.server.Issuer, oauth.RandomToken(16), c.cfg.Now().Unix(), challenge})
	if err != nil {
		return err
	}
	header.Set(headerAttestationPoP, pop)
	return nil
}

// attestation returns one that is still good, from memory, from the application,
// or made with the client's own key.
func (c *Client) attestation(ctx context.Context, r request) (string, error) {
	now, name := c.cfg.Now(), r.attested()
	c.mu.Lock()
	kept, ok := c.attestations[name]
	c.mu.Unlock()
	if ok && now.Add(attestationLeft).Before(kept.expires) {
		return kept.raw, nil
	}
	var err error
	if c.cfg.Attest != nil {
		kept.raw, err = c.cfg.Attest(ctx, Attestation{ClientID: r.client.id, Issuer: r.server.Issuer, Instance: r.key.publicJWK()})
	} else {
		kept.raw, err = c.ownAttestation(r, now)
	}
	if err != nil {
		return "", fmt.Errorf("get an attestation: %w", err)
	}
	if kept.expires, err = attestationExpiry(kept.raw); err != nil {
		return "", fmt.Errorf("get an attestation: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attestations[name] = kept
	return kept.raw, nil
}

func (c *Client) ownAttestation(r request, now time.Time) (string, error) {
	key := c.cfg.Key.private.Called(nameOf(c.cfg.Key.Algorithm(), r.server.AttestationSigningAlgs))
	return key.Sign(oauth.TypAttestation, struct {
		Sub string                     `json:"sub"`
		Iat int64                      `json:"iat"`
		Exp int64                      `json:"exp"`
		Cnf map[string]json.RawMessage `json:"cnf"`
	}{r.client.id, now.Unix(), now.Add(attestationLife).Unix(), map[string]json.RawMessage{"jwk": r.key.publicJWK()}})
}

// attestationExpiry reads exp. Whether the rest is right is the server's to say.
func attestationExpiry(raw string) (time.Time, error) {
	m, err := jose.Parse(raw, 0)
	if err != nil {
		return time.Time{}, err
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(m.Claims, &claims) != nil || claims.Exp <= 0 || claims.Exp > 1<<40 {
		return time.Time{}, errors.New("it does not say when it expires")
	}
	return time.Unix(int64(claims.Exp), 0), nil
}

// attested names the attestation of a request: that of one client and one key.
func (r request) attested() string { return r.client.id + " " + r.key.ID() }

// dropAttestation forgets an attestation that the server finds too old, and
// reports whether there was one.
func (c *Client) dropAttestation(r request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, had := c.attestations[r.attested()]
	delete(c.attestations, r.attested())
	return had
}

// challenge returns the challenge for one proof of possession: the one that the
// last answer gave, which is good once, or one of the challenge endpoint. Without
// either there is none, and the server asks for one if it wants one.
func (c *Client) challenge(ctx context.Context, m *oauth.ServerMetadata) (string, error) {
	name := headerChallenge + " " + m.Issuer
	c.mu.Lock()
	kept := c.told[name]
	delete(c.told, name)
	c.mu.Unlock()
	if kept != "" || m.ChallengeEndpoint == "" {
		return kept, nil
	}
	resp, err := c.do(ctx, question{text: "ask for a challenge", method: http.MethodPost, place: m.ChallengeEndpoint})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	raw, err := readBounded(resp.Body)
	if err != nil {
		return "", err
	}
	c.hear(m.Issuer, resp.Header)
	var out struct {
		Challenge string `json:"attestation_challenge"`
	}
	if resp.StatusCode != http.StatusOK || json.Unmarshal(raw, &out) != nil || len(out.Challenge) > maxNonce {
		return "", fmt.Errorf("%s answered %d and no challenge", m.ChallengeEndpoint, resp.StatusCode)
	}
	return out.Challenge, nil
}
