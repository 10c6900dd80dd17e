package clientauth

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/google/go-cmp/cmp"
)

// spending is a store that remembers what it was asked to spend, and fails when it
// is told to.
type spending struct {
	spent []spentID
	fails func(issuer string) error
}

type spentID struct {
	Issuer       string
	ID           store.Hash
	Expires, Now time.Time
}

func (s *spending) SpendID(_ context.Context, issuer string, id store.Hash, expires, now time.Time) error {
	s.spent = append(s.spent, spentID{issuer, id, expires.UTC(), now.UTC()})
	if s.fails != nil {
		return s.fails(issuer)
	}
	return nil
}

// asking is a directory that remembers which keys it was asked for.
type asking struct {
	*people
	kids  []string
	fresh map[string]jose.Set // by the kid that is asked for; else those of people
}

func (a *asking) Keys(ctx context.Context, c *directory.Client, kid string) (jose.Set, error) {
	a.kids = append(a.kids, kid)
	if set, ok := a.fresh[kid]; ok {
		return set, nil
	}
	return a.people.Keys(ctx, c, kid)
}

func TestWhatIsSpent(t *testing.T) {
	h := newAttestHouse(t, Attestation{})
	s := &spending{}
	h.cfg.Spender = s
	now := h.clock.now()
	instance := h.instance.Public().Thumbprint()
	t.Run("CAUTH-06 an assertion, under its issuer and for as long as a slow clock takes it", func(t *testing.T) {
		s.spent = nil
		claims := h.assertionClaims(keyed)
		h.accepted(t, withAssertion(h.sign(t, "", claims)), oauth.MethodPrivateKeyJWT)
		want := []spentID{{keyed, store.HashOf(claims["jti"].(string)), now.Add(2 * time.Minute), now}}
		if diff := cmp.Diff(want, s.spent); diff != "" {
			t.Errorf("spent (-want +got):\n%s", diff)
		}
	})
	t.Run("DPOP-01 a proof, under its key and for as long as it could come again", func(t *testing.T) {
		s.spent = nil
		if _, _, err := h.prove(t, h.people.clients[public], h.proof(t, h.instance, map[string]any{"jti": "p"})); err != nil {
			t.Fatal(err)
		}
		want := []spentID{{"\x00dpop " + instance, store.HashOf("p"), now.Add(6 * time.Minute), now}}
		if diff := cmp.Diff(want, s.spent); diff != "" {
			t.Errorf("spent (-want +got):\n%s", diff)
		}
	})
	t.Run("ATT-05, ATT-07 a proof of possession under its key, and then the challenge under a name of its own", func(t *testing.T) {
		s.spent = nil
		challenge := h.cfg.Nonces.Challenge(now)
		until, _ := h.cfg.Nonces.Challenged(challenge, now)
		if _, _, err := h.send(t, attempt{attestations: []string{h.attestation(t, nil)}, pops: []string{h.pop(t, map[string]any{"jti": "p", "challenge": challenge})}}); err != nil {
			t.Fatal(err)
		}
		want := []spentID{
			{"\x00attestation pop " + instance, store.HashOf("p"), now.Add(6 * time.Minute), now},
			{"\x00attestation challenge", store.HashOf(challenge), until.Add(time.Minute).UTC(), now},
		}
		if diff := cmp.Diff(want, s.spent); diff != "" {
			t.Errorf("spent (-want +got):\n%s", diff)
		}
	})
	t.Run("URL-15 a store that fails lets nobody in, and is not the client's fault", func(t *testing.T) {
		boom := errors.New("no disk")
		popped := func() error {
			a := h.good(t)
			a.pops = []string{h.pop(t, map[string]any{"challenge": h.cfg.Nonces.Challenge(h.clock.now())})}
			_, _, err := h.send(t, a)
			return err
		}
		for prefix, try := range map[string]func() error{
			keyed: func() error {
				_, err := h.Authenticate(t.Context(), withAssertion(h.sign(t, "", h.assertionClaims(keyed))))
				return err
			},
			"\x00dpop ": func() error {
				_, _, err := h.prove(t, h.people.clients[public], h.proof(t, h.instance, nil))
				return err
			},
			"\x00attestation pop ":      popped,
			"\x00attestation challenge": popped,
		} {
			s.fails = func(issuer string) error {
				if strings.HasPrefix(issuer, prefix) {
					return boom
				}
				return nil
			}
			if err := try(); !errors.Is(err, boom) || oauth.AsError(err).Code != oauth.ServerError {
				t.Errorf("%q: %v", prefix, err)
			}
		}
	})
}

func TestWhichKeysAreAskedFor(t *testing.T) {
	t.Run("CAUTH-10, CACHE-19 the keys are asked for by the kid of the assertion", func(t *testing.T) {
		h := newHouse(t)
		d := &asking{people: h.people}
		h.cfg.Directory = d
		h.accepted(t, withAssertion(h.sign(t, "", h.assertionClaims(keyed))), oauth.MethodPrivateKeyJWT)
		if !slices.Equal(d.kids, []string{h.key.KID()}) {
			t.Errorf("asked for %q", d.kids)
		}
	})
	t.Run("CACHE-19, ATT-03 and by that of the attestation, among several", func(t *testing.T) {
		h := newAttestHouse(t, Attestation{})
		d := &asking{people: h.people}
		h.cfg.Directory = d
		h.publish(native, generate(t, jose.ES256).Public(), h.key.Public())
		if _, _, err := h.send(t, h.good(t)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(d.kids, []string{h.key.KID()}) {
			t.Errorf("asked for %q", d.kids)
		}
	})
	t.Run("CAUTH-15, CACHE-19 a certificate with a known key makes nobody look again, one with a new key does", func(t *testing.T) {
		h := newHouse(t)
		cert, _ := selfSignedCert(t, elliptic.P256())
		key, err := jose.PublicKey(cert.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		seen := requestTo("/token")
		h.cfg.MTLS = &MTLS{Certificate: func(r *http.Request) (*x509.Certificate, error) {
			if r != seen {
				return nil, errors.New("another request")
			}
			return cert, nil
		}}
		const id = "https://tls.test/c.json"
		h.people.add(directory.Client{ID: id, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodSelfSignedTLS}})
		d := &asking{people: h.people}
		h.cfg.Directory = d
		h.publish(id, key)
		h.accepted(t, Request{ClientID: id, http: seen}, oauth.MethodSelfSignedTLS)
		if !slices.Equal(d.kids, []string{""}) {
			t.Errorf("asked for %q", d.kids)
		}
		d.kids, d.fresh = nil, map[string]jose.Set{key.Thumbprint(): {Keys: []jose.Key{key}}}
		h.publish(id, h.key.Public())
		h.accepted(t, Request{ClientID: id, http: seen}, oauth.MethodSelfSignedTLS)
		if !slices.Equal(d.kids, []string{"", key.Thumbprint()}) {
			t.Errorf("asked for %q", d.kids)
		}
	})
}

func TestTimesOfAssertions(t *testing.T) {
	h := newHouse(t)
	now := h.clock.now().Unix()
	for name, claims := range map[string]map[string]any{
		"attack CA-05: nbf that no clock shows":       {"nbf": 1e300},
		"attack CA-05: nbf before all time":           {"nbf": -1},
		"attack CA-05: exp a fraction of a second on": {"exp": float64(now) + 360.5, "iat": now + 60},
	} {
		t.Run(name, func(t *testing.T) {
			h.refused(t, withAssertion(h.sign(t, "", with(h.assertionClaims(keyed), claims))), "CAUTH-05")
		})
	}
	for name, claims := range map[string]map[string]any{
		"CAUTH-05 nbf at the beginning of time":     {"nbf": 0},
		"CAUTH-05 a fraction of a second before it": {"exp": float64(now) + 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			h.accepted(t, withAssertion(h.sign(t, "", with(h.assertionClaims(keyed), claims))), oauth.MethodPrivateKeyJWT)
		})
	}
	for name, claims := range map[string]map[string]any{
		"attack CA-02: aud is a list with another server alone": {"aud": []string{"https://evil.test"}},
		"attack CA-02: aud is a list of a list":                 {"aud": []any{[]string{issuer}}},
	} {
		t.Run(name, func(t *testing.T) {
			h.refused(t, withAssertion(h.sign(t, "", with(h.assertionClaims(keyed), claims))), "CAUTH-04")
		})
	}
	t.Run("attack CA-04: an assertion of nobody about nobody", func(t *testing.T) {
		h.refused(t, withAssertion(h.sign(t, "", with(h.assertionClaims(keyed), map[string]any{"iss": "", "sub": ""}))), "CAUTH-03")
	})
}

func TestTimesOfAttestations(t *testing.T) {
	h := newAttestHouse(t, Attestation{})
	type m = map[string]any
	now := h.clock.now().Unix()
	for _, r := range []struct {
		row         string
		attest, pop m
		rule        string // "" is accepted
	}{
		{row: "ATT-02 valid for a minute already", attest: m{"nbf": now - 60}},
		{row: "ATT-02 a clock that is half a minute ahead", attest: m{"nbf": now + 30, "iat": now + 30}, pop: m{"nbf": now + 30, "iat": now + 30}},
		{row: "ATT-05 a proof that is five minutes old", pop: m{"iat": now - 300}},
		{row: "ATT-05 a proof that expires in a second", pop: m{"exp": now + 1, "nbf": now - 1}},
		{row: "ATT-04 a jti of exactly 256 bytes", pop: m{"jti": strings.Repeat("j", 256)}},
		{row: "ATT-04: a jti of 257 bytes", pop: m{"jti": strings.Repeat("j", 257)}, rule: "ATT-04"},
		{row: "ATT-02: beyond the skew", attest: m{"nbf": now + 61}, rule: "ATT-02"},
		{row: "ATT-02: nbf is no time", attest: m{"nbf": 1e300}, rule: "ATT-02"},
		{row: "ATT-02: nbf is a word", attest: m{"nbf": "later"}, rule: "ATT-02"},
		{row: "ATT-05: nbf of the proof is no time", pop: m{"nbf": 1e300}, rule: "ATT-05"},
		{row: "ATT-05: nbf of the proof is beyond the skew", pop: m{"nbf": now + 61}, rule: "ATT-05"},
		{row: "ATT-02: nbf of the proof is a word", pop: m{"nbf": "later"}, rule: "ATT-02"},
		{row: "ATT-02: cnf without a jwk, beside other members", attest: m{"cnf": m{"kid": "x", "jkt": "y"}}, rule: "ATT-02"},
	} {
		t.Run(r.row, func(t *testing.T) {
			_, _, err := h.send(t, attempt{attestations: []string{h.attestation(t, r.attest)}, pops: []string{h.pop(t, r.pop)}})
			if r.rule != "" {
				h.uniform(t, err, r.rule)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("ATT-07 a challenge that is not ours is refused, although none is demanded", func(t *testing.T) {
		_, _, err := h.send(t, attempt{attestations: []string{h.attestation(t, nil)}, pops: []string{h.pop(t, m{"challenge": "made up"})}})
		wantCode(t, err, oauth.UseAttestationChallenge, "ATT-07")
	})
	t.Run("ATT-01 a proof of possession that is none is not passed over for a DPoP proof", func(t *testing.T) {
		_, _, err := h.send(t, attempt{attestations: []string{h.attestation(t, nil)}, pops: []string{"x"}, proofs: []string{h.proof(t, h.instance, nil)}})
		h.uniform(t, err, "ATT-01")
	})
	t.Run("ATT-10, DPOP-03 where nonces are demanded the proof that stands in for another has one, and gets no challenge", func(t *testing.T) {
		h := newAttestHouse(t, Attestation{})
		h.cfg.RequireNonce = true
		a := attempt{attestations: []string{h.attestation(t, nil)}, proofs: []string{h.proof(t, h.instance, nil)}}
		_, answer, err := h.send(t, a)
		wantCode(t, err, oauth.UseDPoPNonce, "DPOP-03")
		h.cfg.Attestation.RequireChallenge = true
		a.proofs = []string{h.proof(t, h.instance, m{"nonce": answer.Get("DPoP-Nonce")})}
		if _, answer, err = h.send(t, a); err != nil || answer.Get("OAuth-Client-Attestation-Challenge") != "" {
			t.Errorf("%v, %v", answer, err)
		}
	})
	t.Run("ATT-07 the challenge that answers one which was used before is good", func(t *testing.T) {
		h := newAttestHouse(t, Attestation{RequireChallenge: true})
		send := func(challenge string) (http.Header, error) {
			_, answer, err := h.send(t, attempt{attestations: []string{h.attestation(t, nil)}, pops: []string{h.pop(t, m{"challenge": challenge})}})
			return answer, err
		}
		twice := h.cfg.Nonces.Challenge(h.clock.now())
		if _, err := send(twice); err != nil {
			t.Fatal(err)
		}
		answer, err := send(twice)
		wantCode(t, err, oauth.UseAttestationChallenge, "ATT-07")
		if _, err := send(answer.Get("OAuth-Client-Attestation-Challenge")); err != nil {
			t.Error(err)
		}
	})
	t.Run("attack CA-07: what one client can have remembered is bounded for attestations too, for each client", func(t *testing.T) {
		h := newAttestHouse(t, Attestation{})
		h.memory = newMemory(1, 2)
		for i := range 3 {
			_, _, err := h.send(t, h.good(t))
			if _, refused := errors.AsType[*web.Refusal](err); refused != (i == 2) {
				t.Fatalf("%d: %v", i, err)
			}
		}
		if _, _, err := h.send(t, attempt{attestations: []string{h.attestation(t, m{"sub": another})}, pops: []string{h.pop(t, nil)}}); err != nil {
			t.Errorf("another client: %v", err)
		}
		h.clock.move(time.Second)
		if _, _, err := h.send(t, h.good(t)); err != nil {
			t.Errorf("a second later: %v", err)
		}
	})
}

// attesterKeys are keys of an attester, which are asked for by kid and alg.
type attesterKeys map[string]jose.Key

func (k attesterKeys) Find(_ context.Context, kid, alg string) (jose.Key, error) {
	if key, ok := k[kid+" "+alg]; ok {
		return key, nil
	}
	return jose.Key{}, errors.New("no such key")
}

func TestTrustedAttesters(t *testing.T) {
	h := newAttestHouse(t, Attestation{})
	trusted, stranger := generate(t, jose.ES256), generate(t, jose.ES256)
	h.cfg.Attestation.Attesters = []Attester{{
		Issuer: "https://attester.test", Clients: []string{native}, Keys: attesterKeys{trusted.KID() + " " + jose.ES256: trusted.Public()},
	}}
	signed := func(k jose.Private, changes map[string]any) attempt {
		raw, err := k.Sign(oauth.TypAttestation, with(map[string]any{
			"iss": "https://attester.test", "sub": native, "exp": h.clock.now().Unix() + 60, "cnf": map[string]any{"jwk": h.instance.Public()},
		}, changes))
		if err != nil {
			t.Fatal(err)
		}
		return attempt{attestations: []string{raw}, pops: []string{h.pop(t, nil)}}
	}
	for row, a := range map[string]attempt{
		"ATT-03 an attester of the operator, by name": signed(trusted, nil),
		"ATT-03 and without its name":                 signed(trusted, map[string]any{"iss": nil}),
		"ATT-03 the client itself, without a name":    signed(h.key, map[string]any{"iss": nil}),
	} {
		t.Run(row, func(t *testing.T) {
			if _, _, err := h.send(t, a); err != nil {
				t.Error(err)
			}
		})
	}
	for row, a := range map[string]attempt{
		"ATT-03, attack CA-15: the kid of the attester, and another key": signed(renamed(t, stranger, trusted.KID()), nil),
		"ATT-03, attack CA-15: the same without a name":                  signed(renamed(t, stranger, trusted.KID()), map[string]any{"iss": nil}),
		"ATT-03, attack CA-15: the client under the name of an attester": signed(h.key, nil),
		"ATT-03, attack CA-15: the attester under another name":          signed(trusted, map[string]any{"iss": "https://other.test"}),
		"ATT-03, attack CA-15: the attester of another client":           signed(trusted, map[string]any{"sub": another}),
	} {
		t.Run(row, func(t *testing.T) {
			_, _, err := h.send(t, a)
			h.uniform(t, err, "ATT-03")
		})
	}
}

func TestAlgorithmsThatARuleAccepts(t *testing.T) {
	const id = "https://strict.test/c.json"
	setUp := func(t *testing.T) (*attestHouse, jose.Private) {
		h, rsa := newAttestHouse(t, Attestation{}), generate(t, jose.RS256)
		c := h.people.add(directory.Client{ID: id, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodPrivateKeyJWT, oauth.MethodAttestation, oauth.MethodAttestationDPoP}})
		c.Decision.SigningAlgs = []string{jose.ES256}
		h.publish(id, h.key.Public(), rsa.Public())
		return h, rsa
	}
	h, rsa := setUp(t)
	claims := map[string]any{"sub": id, "exp": h.clock.now().Unix() + 60, "cnf": map[string]any{"jwk": h.instance.Public()}}
	sign := func(k jose.Private, typ string, claims map[string]any) string {
		raw, err := k.Sign(typ, claims)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	ofRSA := with(claims, map[string]any{"cnf": map[string]any{"jwk": rsa.Public()}})
	popOfRSA := map[string]any{"aud": issuer, "jti": "rsa", "iat": h.clock.now().Unix()}
	t.Run("POL-09 ES256 is good where a rule accepts it alone", func(t *testing.T) {
		h.accepted(t, withAssertion(h.sign(t, "", h.assertionClaims(id))), oauth.MethodPrivateKeyJWT)
		for _, a := range []attempt{
			{attestations: []string{sign(h.key, oauth.TypAttestation, claims)}, pops: []string{h.pop(t, nil)}},
			{attestations: []string{sign(h.key, oauth.TypAttestation, claims)}, proofs: []string{h.proof(t, h.instance, nil)}},
		} {
			if _, _, err := h.send(t, a); err != nil {
				t.Error(err)
			}
		}
		if _, _, err := h.prove(t, h.people.clients[id], h.proof(t, h.instance, nil)); err != nil {
			t.Error(err)
		}
	})
	t.Run("POL-09 and RS256 is not, whatever is signed with it", func(t *testing.T) {
		h.refused(t, withAssertion(sign(rsa, "", h.assertionClaims(id))), "POL-09")
		for name, a := range map[string]attempt{
			"the attestation": {attestations: []string{sign(rsa, oauth.TypAttestation, claims)}, pops: []string{h.pop(t, nil)}},
			"the proof of possession": {attestations: []string{sign(h.key, oauth.TypAttestation, ofRSA)},
				pops: []string{sign(rsa, oauth.TypAttestationPoP, popOfRSA)}},
			"the DPoP proof in its place": {attestations: []string{sign(h.key, oauth.TypAttestation, ofRSA)}, proofs: []string{h.proof(t, rsa, nil)}},
		} {
			t.Run(name, func(t *testing.T) {
				_, _, err := h.send(t, a)
				h.uniform(t, err, "POL-09")
			})
		}
		_, _, err := h.prove(t, h.people.clients[id], h.proof(t, rsa, nil))
		wantCode(t, err, oauth.InvalidDPoPProof, "POL-09")
	})
}

func TestWhomAnAssertionIsForUnderFAPI(t *testing.T) {
	const id = "https://bank.test/c.json"
	h := newAttestHouse(t, Attestation{})
	c := h.people.add(directory.Client{ID: id, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodPrivateKeyJWT}})
	h.publish(id, h.key.Public())
	list := func() Request {
		claims := h.assertionClaims(id)
		claims["aud"] = []string{issuer}
		return withAssertion(h.sign(t, "", claims))
	}
	h.accepted(t, list(), oauth.MethodPrivateKeyJWT)
	c.Decision.FAPI = true
	t.Run("POL-09 aud is a text and no list, although it holds us alone", func(t *testing.T) {
		h.refused(t, list(), "POL-09")
		h.accepted(t, withAssertion(h.sign(t, "", h.assertionClaims(id))), oauth.MethodPrivateKeyJWT)
	})
}

func TestDemandsOfCertificates(t *testing.T) {
	h := newHouse(t)
	mtls := &MTLS{Certificate: func(*http.Request) (*x509.Certificate, error) { return nil, nil }}
	for _, r := range []struct {
		row      string
		doc      *cimd.Document
		mtls     *MTLS
		cert     string
		decision policy.Decision
		code     oauth.Code // "" is no demand
	}{
		{row: "DPOP-07 a certificate where the document asks for one", doc: &cimd.Document{MTLSBound: true}, mtls: mtls, cert: "x"},
		{row: "DPOP-07 none", doc: &cimd.Document{MTLSBound: true}, mtls: mtls, code: oauth.InvalidRequest},
		{row: "DPOP-07 where there are no certificates nobody needs one", doc: &cimd.Document{MTLSBound: true}},
		{row: "DPOP-07 a document that asks for none", doc: &cimd.Document{}, mtls: mtls},
		{row: "DPOP-07 a registered client", mtls: mtls},
		{row: "DPOP-04 a certificate does not stand in for a proof", doc: &cimd.Document{DPoPBound: true, MTLSBound: true}, mtls: mtls, cert: "x", code: oauth.InvalidDPoPProof},
		{row: "DPOP-04 nor where the policy demands one", mtls: mtls, cert: "x", decision: policy.Decision{RequireDPoP: true}, code: oauth.InvalidDPoPProof},
		{row: "POL-09 a certificate is good for FAPI 2.0", mtls: mtls, cert: "x", decision: policy.Decision{FAPI: true}},
	} {
		t.Run(r.row, func(t *testing.T) {
			h.cfg.MTLS = r.mtls
			c := &Client{Client: &directory.Client{ID: public, Doc: r.doc, Decision: r.decision}, CertThumbprint: r.cert}
			if err := h.Demands(c, ""); (err != nil) != (r.code != "") || err != nil && oauth.AsError(err).Code != r.code {
				t.Errorf("%v, want %q", err, r.code)
			}
			if err := h.Demands(c, "a key"); err != nil {
				t.Error(err)
			}
		})
	}
	cert, _ := selfSignedCert(t, elliptic.P256())
	h.cfg.MTLS = &MTLS{Certificate: func(*http.Request) (*x509.Certificate, error) { return cert, nil }}
	t.Run("DPOP-07 a certificate binds nothing that nobody wants bound", func(t *testing.T) {
		h.people.add(directory.Client{ID: "https://plain.test/c", Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodNone}, Doc: &cimd.Document{}})
		if c := h.accepted(t, Request{ClientID: "https://plain.test/c", http: requestTo("/token")}, oauth.MethodNone); c.CertThumbprint != "" {
			t.Errorf("%+v", c)
		}
	})
	const both = "https://both.test/c"
	c := h.people.add(directory.Client{ID: both, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodSelfSignedTLS, oauth.MethodNone}})
	key, err := jose.PublicKey(cert.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	h.publish(both, key)
	t.Run("POL-03 a certificate where the policy does not accept one", func(t *testing.T) {
		c.Decision.Methods = []string{oauth.MethodNone}
		h.refused(t, Request{ClientID: both, http: requestTo("/token")}, "POL-03")
		c.Decision.Methods = nil
	})
	t.Run("CAUTH-15 a certificate that cannot be read is no reason for a weaker method", func(t *testing.T) {
		h.cfg.MTLS.Certificate = func(*http.Request) (*x509.Certificate, error) { return nil, errors.New("no certificate") }
		h.refused(t, Request{ClientID: both, http: requestTo("/token")}, "CAUTH-15")
	})
}

func TestAgesOfProofs(t *testing.T) {
	h := newHouse(t)
	key, now := generate(t, jose.ES256), h.clock.now().Unix()
	for iat, ok := range map[int64]bool{now - 299: true, now - 302: false, now + 59: true, now + 62: false} {
		t.Run(fmt.Sprintf("DPOP-01 a proof made at %+d seconds", iat-now), func(t *testing.T) {
			if _, _, err := h.prove(t, h.people.clients[public], h.proof(t, key, map[string]any{"iat": iat})); (err == nil) != ok {
				t.Error(err)
			}
		})
	}
	t.Run("DPOP-03, DPOP-06 a nonce is demanded where a token is presented too, and given", func(t *testing.T) {
		h.cfg.RequireNonce = true
		w := httptest.NewRecorder()
		err := h.ProofOfToken(w, requestTo("/userinfo", h.proof(t, key, map[string]any{"htu": issuer + "/userinfo", "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"})), "tok", key.Public().Thumbprint())
		if err == nil || w.Header().Get("DPoP-Nonce") == "" {
			t.Errorf("%v, %v", err, w.Header())
		}
	})
}

func TestWhoWaits(t *testing.T) {
	edge, err := web.NewEdge(web.EdgeConfig{Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t)
	h.people.add(directory.Client{ID: "second", Source: store.SourceRegistered, AuthMethods: []string{oauth.MethodSecretPost}, SecretHash: HashSecret(h.secret)})
	try := func(id, secret string) (err error) {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr = "198.51.100.9:1234"
		edge.API(func(_ http.ResponseWriter, r *http.Request) error {
			_, err = h.Authenticate(r.Context(), Request{ClientID: id, Secret: secret})
			return nil
		}).ServeHTTP(httptest.NewRecorder(), r)
		return err
	}
	for range 10 {
		if oauth.AsError(try(post, "guess")).Code != oauth.InvalidClient {
			t.Fatal("not refused")
		}
	}
	t.Run("POL-08 who has to wait learns nothing more, whatever is sent", func(t *testing.T) {
		wantCode(t, try(post, "guess"), oauth.TemporarilyUnavailable, "POL-08")
		wantCode(t, try(post, h.secret), oauth.TemporarilyUnavailable, "POL-08")
	})
	t.Run("POL-08 another client of the same address does not wait", func(t *testing.T) {
		if err := try("second", h.secret); err != nil {
			t.Error(err)
		}
	})
	t.Run("CAUTH-14 a registered client without a secret has none to guess", func(t *testing.T) {
		h.people.add(directory.Client{ID: "bare", Source: store.SourceRegistered, AuthMethods: []string{oauth.MethodSecretPost}})
		h.refused(t, Request{ClientID: "bare", Secret: "x"}, "CAUTH-14")
	})
}

func TestLimiterWindows(t *testing.T) {
	c := &clock{t: time.Unix(1_700_000_000, 0)}
	t.Run("POL-08 what failed in one window does not count in the next", func(t *testing.T) {
		l := NewLimiter(LimiterConfig{Tries: 2, Window: 5 * time.Minute, Now: c.now})
		l.Failed("a")
		c.move(5*time.Minute - time.Second)
		l.Failed("a")
		if l.Allow("a") {
			t.Error("a third try within the window")
		}
		c.move(time.Second)
		if !l.Allow("a") {
			t.Error("no try after the window")
		}
		l.Failed("a")
		if !l.Allow("a") {
			t.Error("failures of the last window count")
		}
		if l.Failed("a"); l.Allow("a") {
			t.Error("those of the next do not")
		}
	})
	t.Run("POL-08 who fails again takes nobody's room", func(t *testing.T) {
		l := NewLimiter(LimiterConfig{Tries: 1, Max: 2, Now: c.now})
		l.Failed("a")
		for range 5 {
			l.Failed("b")
		}
		if l.Allow("a") || l.Allow("b") {
			t.Error("somebody was forgotten")
		}
	})
	t.Run("POL-08 the usual limits", func(t *testing.T) {
		l := NewLimiter(LimiterConfig{})
		if l.cfg.Tries != 10 || l.cfg.Window != time.Minute || l.cfg.Max != 10_000 || time.Since(l.cfg.Now()) > time.Minute {
			t.Errorf("%+v", l.cfg)
		}
	})
}

func TestWhatIsGiven(t *testing.T) {
	h := newHouse(t)
	limiter, nonces := NewLimiter(LimiterConfig{Tries: 1}), jose.RandomNonces(0)
	a, err := New(Config{Issuer: issuer, Directory: h.people, Spender: h.store, Limiter: limiter, Nonces: nonces})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("DPOP-03, POL-08 the nonces of all replicas and the limiter of the house are kept", func(t *testing.T) {
		if a.cfg.Limiter != limiter || a.cfg.Nonces != nonces || time.Since(a.cfg.Now()) > time.Minute {
			t.Errorf("%+v", a.cfg)
		}
	})
	t.Run("ATT-06 the challenge endpoint gives a nonce where one is demanded, and a challenge where attestations are on", func(t *testing.T) {
		for _, r := range []struct {
			nonce     bool
			attested  *Attestation
			wantNonce bool
			body      bool
		}{
			{nonce: true, wantNonce: true},
			{nonce: true, attested: &Attestation{}, wantNonce: true, body: true},
			{attested: &Attestation{}, body: true},
			{attested: &Attestation{RequireChallenge: true}, wantNonce: true, body: true},
			{},
		} {
			a.cfg.RequireNonce, a.cfg.Attestation = r.nonce, r.attested
			w := httptest.NewRecorder()
			if err := a.Challenge(w, httptest.NewRequest(http.MethodPost, "/challenge", nil)); err != nil {
				t.Fatal(err)
			}
			if given := w.Header().Get("DPoP-Nonce"); (given != "") != r.wantNonce || given != "" && !nonces.Good(given, time.Now()) {
				t.Errorf("%+v: nonce %q", r, given)
			}
			if strings.Contains(w.Body.String(), "attestation_challenge") != r.body {
				t.Errorf("%+v: %s", r, w.Body)
			}
		}
	})
	t.Run("CAUTH-03 the parameters of an assertion are read", func(t *testing.T) {
		q := FromHTTP(requestTo("/token"), web.Params{Form: web.Form{"client_assertion_type": "t", "client_assertion": "a"}})
		if q.AssertionType != "t" || q.Assertion != "a" {
			t.Errorf("%+v", q)
		}
	})
	t.Run("FETCH-20 what shows anything is not bare", func(t *testing.T) {
		with := requestTo("/par")
		with.Header.Set("OAuth-Client-Attestation", "x")
		q := FromHTTP(with, web.Params{})
		if a.cfg.Attestation = nil; !a.Bare(q) {
			t.Error("attestations are off")
		}
		if a.cfg.Attestation = (&Attestation{}); a.Bare(q) {
			t.Error("an attestation is shown")
		}
		cert, _ := selfSignedCert(t, elliptic.P256())
		for _, shown := range []struct {
			cert *x509.Certificate
			err  error
		}{{cert, nil}, {nil, errors.New("no certificate")}} {
			a.cfg.MTLS = &MTLS{Certificate: func(*http.Request) (*x509.Certificate, error) { return shown.cert, shown.err }}
			if a.Bare(FromHTTP(requestTo("/par"), web.Params{})) {
				t.Errorf("%+v", shown)
			}
		}
	})
	t.Run("DEV-09, FETCH-20 whoever is not let in is not looked up", func(t *testing.T) {
		var asked []string
		no := oauth.Refuse(oauth.UnauthorizedClient, "no").Under("DEV-09")
		q := Request{ClientID: public, Resolve: true, Admit: func(_ context.Context, id string) error { asked = append(asked, id); return no }}
		h.people.found = 0
		_, err := h.Authenticate(t.Context(), q)
		wantCode(t, err, oauth.UnauthorizedClient, "DEV-09")
		if !slices.Equal(asked, []string{public}) || h.people.found != 0 {
			t.Errorf("asked about %q, looked up %d", asked, h.people.found)
		}
		no = nil
		q.Admit = func(context.Context, string) error { return nil }
		h.accepted(t, q, oauth.MethodNone)
	})
}

func TestWhatTheAuditSays(t *testing.T) {
	h := newAttestHouse(t, Attestation{})
	edge, err := web.NewEdge(web.EdgeConfig{Issuer: issuer, Now: h.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	var ref string
	ask := func(q Request) audit.Event {
		t.Helper()
		log, err := audit.New(audit.Config{Sink: h.store, Now: h.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		h.cfg.Audit = log
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), 99).String()
		edge.API(func(_ http.ResponseWriter, r *http.Request) error {
			ref = web.Ref(r.Context())
			if _, err := h.Authenticate(r.Context(), q); err == nil {
				t.Error("let in")
			}
			return nil
		}).ServeHTTP(httptest.NewRecorder(), r)
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		events, err := h.store.Events(t.Context(), store.EventQuery{Type: audit.TypeRefusal})
		if err != nil || len(events) == 0 {
			t.Fatalf("%v, %v", events, err)
		}
		e := events[len(events)-1]
		e.Seq = 0
		return e
	}
	attestation := h.attestation(t, map[string]any{"exp": 1})
	for name, r := range map[string]struct {
		q            Request
		client, rule string
		check        string
	}{
		"Basic":          {Request{Basic: true, BasicUser: basic, BasicPass: "guess"}, basic, "CAUTH-13", "the secret is wrong"},
		"an attestation": {Request{Attestations: []string{attestation}}, native, "ATT-02", "the attestation has expired"},
	} {
		t.Run("CAUTH-17 the audit says who was refused at which check: "+name, func(t *testing.T) {
			got := ask(r.q)
			want := audit.Event{
				Time: h.clock.now(), Type: audit.TypeRefusal, Ref: ref, Client: r.client, IP: "198.51.100.9",
				Rule: r.rule, Code: "invalid_client", Data: map[string]string{"check": r.check},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("CAUTH-17 the hint names the one audience", func(t *testing.T) {
		if !strings.HasSuffix(h.hint, " "+issuer) {
			t.Error(h.hint)
		}
	})
}
