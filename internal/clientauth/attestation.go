package clientauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	headerAttestation    = "OAuth-Client-Attestation"
	headerAttestationPoP = "OAuth-Client-Attestation-PoP"
	headerChallenge      = "OAuth-Client-Attestation-Challenge"

	// DefaultMaxAge is how old an attestation may be where no setting says more.
	DefaultMaxAge = 30 * 24 * time.Hour
)

// Attestation says how attestation-based client authentication works here. The
// keys that a client publishes are always trusted to attest it (ATT-03).
type Attestation struct {
	// RequireChallenge demands a challenge of ours in every proof of possession, or
	// our nonce in a DPoP proof that stands in for it.
	RequireChallenge bool
	// MaxAge is how long ago an attestation may have been made; 0 is DefaultMaxAge.
	MaxAge time.Duration
	// Attesters are trusted beside the clients themselves.
	Attesters []Attester
}

// Attester is somebody whom the operator trusts to attest certain clients.
type Attester struct {
	Issuer  string   // as in iss; an attestation without iss is tried with everybody who may attest the client
	Clients []string // the client_ids, byte for byte
	Keys    Keys
}

// Keys find the key of an attester for a token with this kid and alg. An unknown
// kid may make them look again, at a bounded rate.
type Keys interface {
	Find(ctx context.Context, kid, alg string) (jose.Key, error)
}

// attestation is one attestation with its proof, on its way through the checks.
type attestation struct {
	request *Request
	message *jose.Message // the attestation
	pop     *jose.Message // its proof; nil when a DPoP proof stands in for it
	claims  attestationClaims
	proof   popClaims
	key     jose.Key // of the client instance
	now     time.Time
	issuer  string // ours
}

// attestationClaims are those of a Client Attestation JWT. iss is no longer one of
// them, and is used where it stands there.
type attestationClaims struct {
	Issuer, Subject            string
	Expires, NotBefore, Issued *float64
}

// popClaims are those of a Client Attestation PoP JWT.
type popClaims struct {
	Audience                   json.RawMessage
	JTI, Challenge             string
	Expires, NotBefore, Issued *float64
}

// beforeKeys are the checks of an attestation that need neither the attester's
// keys nor the network, in their order. A check that is about the proof of
// possession does nothing where a DPoP proof stands in for it.
var beforeKeys = []struct {
	rule  string
	check func(*attestation) error
}{
	{"ATT-02", checkAttestation},
	{"ATT-02", checkAttestationTimes},
	{"ATT-04", checkPoP},
	{"ATT-05", checkPoPTimes},
}

// attested authenticates with attest_jwt_client_auth or, where a DPoP proof stands
// in for the proof of possession, with attest_jwt_client_auth_dpop. What is
// remembered is written last, after both signatures.
func (a *Authenticator) attested(ctx context.Context, q *Request) (*Client, error) {
	at, err := a.readAttestation(q)
	if err != nil {
		return nil, err
	}
	for _, c := range beforeKeys {
		if err := c.check(at); err != nil {
			return nil, fail(c.rule, "%w", err)
		}
	}
	var proof *jose.Proof
	method := oauth.MethodAttestation
	if at.pop == nil {
		method = oauth.MethodAttestationDPoP
		if proof, err = a.combined(ctx, at); err != nil {
			return nil, err
		}
	}
	client, err := a.known(ctx, q, at.claims.Subject, method)
	if err != nil {
		return nil, err
	}
	if err := maySign(client, at, proof); err != nil {
		return nil, err
	}
	if err := a.vouched(ctx, client, at); err != nil {
		return nil, err
	}
	if err := a.fresh(ctx, at); err != nil {
		return nil, err
	}
	if err := a.remember(client, at); err != nil {
		return nil, err
	}
	if proof != nil {
		err = a.spendProof(ctx, proof)
	} else {
		err = a.spendPoP(ctx, at)
	}
	if errors.Is(err, store.ErrSpent) {
		a.instances.giveBack(installation(client, at), at.now)
		a.memory.giveBack(client.ID, at.now)
	}
	if err != nil {
		return nil, err
	}
	if a.cfg.Attestation.RequireChallenge && proof == nil {
		web.Answer(ctx).Set(headerChallenge, a.cfg.Nonces.Challenge(at.now)) // for the next request
	}
	return &Client{Client: client, Method: method, InstanceJKT: at.key.Thumbprint(), proof: proof}, nil
}

// remember counts one more proof that is to be remembered, for the installation and
// then for its client: one installation does not shut out all the others.
func (a *Authenticator) remember(c *directory.Client, at *attestation) error {
	if err := a.instances.take(installation(c, at), at.now); err != nil {
		return err
	}
	err := a.memory.take(c.ID, at.now)
	if err != nil {
		a.instances.giveBack(installation(c, at), at.now)
	}
	return err
}

func installation(c *directory.Client, at *attestation) string {
	return c.ID + " " + at.key.Thumbprint()
}

// readAttestation takes the headers apart (ATT-01). The grammar of a JWT is
// narrower than token68, so that a list in one header is refused as well.
func (a *Authenticator) readAttestation(q *Request) (*attestation, error) {
	if len(q.Attestations) != 1 || len(q.AttestationProofs) > 1 {
		return nil, fail("ATT-01", "%d attestations and %d proofs of possession were sent", len(q.Attestations), len(q.AttestationProofs))
	}
	at := &attestation{request: q, now: a.cfg.Now(), issuer: a.cfg.Issuer}
	var err error
	if at.message, err = jose.Parse(q.Attestations[0], maxAssertion); err != nil {
		return nil, fail("ATT-01", "parse attestation: %w", err)
	}
	if len(q.AttestationProofs) == 1 {
		if at.pop, err = jose.Parse(q.AttestationProofs[0], maxAssertion); err != nil {
			return nil, fail("ATT-01", "parse proof of possession: %w", err)
		}
	}
	if err := at.readClaims(); err != nil {
		return nil, fail("ATT-02", "%w", err)
	}
	q.claimed = at.claims.Subject
	return at, nil
}

func (at *attestation) readClaims() error {
	members, err := jose.Object(at.message.Claims)
	if err != nil {
		return err
	}
	c := &at.claims
	if err := readMembers(members, map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "exp": &c.Expires, "nbf": &c.NotBefore, "iat": &c.Issued,
	}); err != nil {
		return fmt.Errorf("attestation: %w", err)
	}
	cnf, err := jose.Object(members["cnf"])
	if err != nil || cnf["jwk"] == nil {
		return errors.New("attestation: cnf has no jwk")
	}
	if at.key, err = jose.ParseJWK(cnf["jwk"]); err != nil {
		return fmt.Errorf("attestation: cnf: %w", err)
	}
	if at.pop == nil {
		return nil
	}
	if members, err = jose.Object(at.pop.Claims); err != nil {
		return err
	}
	p := &at.proof
	p.Audience = members["aud"]
	if err := readMembers(members, map[string]any{
		"jti": &p.JTI, "challenge": &p.Challenge, "exp": &p.Expires, "nbf": &p.NotBefore, "iat": &p.Issued,
	}); err != nil {
		return fmt.Errorf("proof of possession: %w", err)
	}
	return nil
}

// readMembers takes members by their exact names.
func readMembers(members map[string]json.RawMessage, into map[string]any) error {
	for name, dst := range into {
		if v, ok := members[name]; ok && json.Unmarshal(v, dst) != nil {
			return fmt.Errorf("%s has the wrong type", name)
		}
	}
	return nil
}

func checkAttestation(at *attestation) error {
	switch {
	case at.message.Header.Typ != oauth.TypAttestation:
		return fmt.Errorf("type %.64q is not the one of an attestation", at.message.Header.Typ)
	case at.claims.Subject == "":
		return errors.New("the attestation has no sub")
	case at.request.ClientID != "" && at.request.ClientID != at.claims.Subject:
		return errors.New("client_id in the body is not the sub of the attestation")
	}
	return nil
}

func checkAttestationTimes(at *attestation) error {
	c := at.claims
	if c.Expires == nil {
		return errors.New("the attestation has no exp")
	}
	if err := plausible(c.Expires, c.NotBefore, c.Issued); err != nil {
		return err
	}
	switch {
	case !at.now.Before(date(*c.Expires)):
		return errors.New("the attestation has expired")
	case c.NotBefore != nil && date(*c.NotBefore).After(at.now.Add(skew)):
		return errors.New("the attestation is not valid yet")
	case c.Issued != nil && date(*c.Issued).After(at.now.Add(skew)):
		return errors.New("the attestation was made in the future")
	}
	return nil
}

// checkPoP checks what the proof is about and that the key of the attestation made
// it. The audience is our issuer alone, as that of an assertion.
func checkPoP(at *attestation) error {
	if at.pop == nil {
		return nil
	}
	if at.pop.Header.Typ != oauth.TypAttestationPoP {
		return fmt.Errorf("type %.64q is not the one of a proof of possession", at.pop.Header.Typ)
	}
	if err := checkAudience(&assertion{claims: claims{Audience: at.proof.Audience}, issuer: at.issuer}); err != nil {
		return err
	}
	if n := len(at.proof.JTI); n == 0 || n > maxJTI {
		return fmt.Errorf("jti has %d bytes and not 1 to %d", n, maxJTI)
	}
	if err := at.pop.Verify(at.key); err != nil {
		return fmt.Errorf("proof of possession: %w", err)
	}
	return nil
}

func checkPoPTimes(at *attestation) error {
	if at.pop == nil {
		return nil
	}
	p := at.proof
	if p.Issued == nil {
		return errors.New("the proof of possession has no iat")
	}
	if err := plausible(p.Expires, p.NotBefore, p.Issued); err != nil {
		return err
	}
	switch issued := date(*p.Issued); {
	case issued.Before(at.now.Add(-proofPast)):
		return errors.New("the proof of possession is too old")
	case issued.After(at.now.Add(proofFuture)):
		return errors.New("the proof of possession was made in the future")
	case p.Expires != nil && !at.now.Before(date(*p.Expires)):
		return errors.New("the proof of possession has expired")
	case p.NotBefore != nil && date(*p.NotBefore).After(at.now.Add(skew)):
		return errors.New("the proof of possession is not valid yet")
	}
	return nil
}

// combined checks the DPoP proof that stands in for the proof of possession: it
// has to be made with the key of the attestation (ATT-10). Its nonce takes the
// place of the challenge.
func (a *Authenticator) combined(ctx context.Context, at *attestation) (*jose.Proof, error) {
	r := at.request.http
	if r == nil || len(r.Header.Values(headerProof)) == 0 {
		return nil, fail("ATT-01", "neither a proof of possession nor a DPoP proof was sent")
	}
	proof, err := a.proof(web.Answer(ctx), r, proofDemands{nonce: a.cfg.RequireNonce || a.cfg.Attestation.RequireChallenge})
	if err != nil {
		return nil, err
	}
	if proof.JKT != at.key.Thumbprint() {
		return nil, fail("ATT-10", "the DPoP proof was made with another key than the attestation names")
	}
	return proof, nil
}

func maySign(c *directory.Client, at *attestation, proof *jose.Proof) error {
	algs := []string{at.message.Header.Alg}
	if proof != nil {
		algs = append(algs, proof.Alg)
	} else {
		algs = append(algs, at.pop.Header.Alg)
	}
	for _, alg := range algs {
		if !c.Decision.MaySign(alg) {
			return fail("POL-09", "policy rule %q does not accept %s", c.Decision.Rule, alg)
		}
	}
	return nil
}

// vouched checks the signature of the attestation. It is made by an attester that
// the operator trusts for this client or, which is the natural case for a client
// with a document, with a key that the client itself publishes (ATT-03). A key, a
// chain or an address in the header of the attestation is not looked at.
func (a *Authenticator) vouched(ctx context.Context, c *directory.Client, at *attestation) error {
	head := at.message.Header
	named := false
	for _, t := range a.cfg.Attestation.Attesters {
		if !slices.Contains(t.Clients, c.ID) || at.claims.Issuer != "" && at.claims.Issuer != t.Issuer {
			continue
		}
		named = named || at.claims.Issuer != ""
		if key, err := t.Keys.Find(ctx, head.KID, head.Alg); err == nil && at.message.Verify(key) == nil {
			return nil
		}
	}
	if named {
		return fail("ATT-03", "the attester %s did not sign the attestation", at.claims.Issuer)
	}
	set, err := a.keysOf(ctx, c, head.KID)
	if err != nil {
		return err
	}
	key, err := set.Find(head.KID, head.Alg)
	if err != nil {
		return fail("ATT-03", "%w", err)
	}
	if err := at.message.Verify(key); err != nil {
		return fail("ATT-03", "attestation: %w", err)
	}
	return nil
}
