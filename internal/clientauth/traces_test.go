package clientauth

import (
	"context"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// noting is a memory that says how long it was told to keep something.
type noting struct {
	Spender
	until []time.Time
}

func (n *noting) SpendID(ctx context.Context, issuer string, id store.Hash, expires, now time.Time) error {
	n.until = append(n.until, expires)
	return n.Spender.SpendID(ctx, issuer, id, expires, now)
}

// What is good once has to be remembered for as long as it would be accepted, by
// a replica whose clock is behind as well.
func TestWhatIsUsedUpIsRememberedForLongEnough(t *testing.T) {
	h := newAttestHouse(t, Attestation{RequireChallenge: true})
	n := &noting{Spender: h.cfg.Spender}
	h.cfg.Spender = n
	now := h.clock.now()
	long := func(t *testing.T, want ...time.Time) {
		t.Helper()
		if len(n.until) != len(want) {
			t.Fatalf("%d were remembered, not %d", len(n.until), len(want))
		}
		for i, w := range want {
			if n.until[i].Before(w.Add(skew)) {
				t.Errorf("number %d until %v, and it is accepted until %v and by some for a minute more", i, n.until[i], w)
			}
		}
		n.until = nil
	}
	t.Run("attack CA-15: ATT-05 a proof of possession made with a clock that is ahead, and its challenge", func(t *testing.T) {
		ahead := now.Add(50 * time.Second)
		c := h.cfg.Nonces.Challenge(now)
		a := h.good(t)
		a.pops = []string{h.pop(t, map[string]any{"iat": ahead.Unix(), "challenge": c})}
		if _, _, err := h.send(t, a); err != nil {
			t.Fatal(err)
		}
		until, _ := h.cfg.Nonces.Challenged(c, now)
		long(t, ahead.Add(proofPast), until)
	})
	t.Run("attack DP-01: DPOP-01 a DPoP proof made with a clock that is ahead", func(t *testing.T) {
		ahead := now.Add(50 * time.Second)
		if _, _, err := h.prove(t, h.people.clients[public], h.proof(t, h.instance, map[string]any{"iat": ahead.Unix()})); err != nil {
			t.Fatal(err)
		}
		long(t, ahead.Add(proofPast))
	})
	t.Run("attack CA-01: CAUTH-06 a client assertion", func(t *testing.T) {
		claims := h.assertionClaims(keyed)
		claims["exp"] = now.Add(4 * time.Minute).Unix()
		h.accepted(t, withAssertion(h.sign(t, "", claims)), oauth.MethodPrivateKeyJWT)
		long(t, now.Add(4*time.Minute))
	})
}

func TestAProofOfPossessionIsItsJTI(t *testing.T) {
	t.Run("attack CA-15: ATT-05 the same jti with another challenge", func(t *testing.T) {
		h := newAttestHouse(t, Attestation{RequireChallenge: true})
		for i := range 2 {
			a := h.good(t)
			a.pops = []string{h.pop(t, map[string]any{"jti": "one", "challenge": h.cfg.Nonces.Challenge(h.clock.now())})}
			_, _, err := h.send(t, a)
			if i == 0 && err != nil {
				t.Fatal(err)
			}
			if i == 1 {
				h.uniform(t, err, "ATT-05")
			}
		}
	})
}

func TestWhatAPolicyHoldsBack(t *testing.T) {
	t.Run("POL-09 an assertion signed with an algorithm that a rule does not list", func(t *testing.T) {
		h := newHouse(t)
		h.people.clients[keyed].Decision.SigningAlgs = []string{jose.PS256}
		h.refused(t, withAssertion(h.sign(t, "", h.assertionClaims(keyed))), "POL-09")
	})
	t.Run("POL-03 a certificate where a rule does not list certificates", func(t *testing.T) {
		h := newHouse(t)
		c := h.people.add(directory.Client{ID: "https://tls.test/c.json", Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodSelfSignedTLS}})
		c.Decision = policy.Decision{Action: policy.Allow, Methods: []string{oauth.MethodPrivateKeyJWT}}
		if _, err := h.selfSigned(t.Context(), c, nil); oauth.AsError(err).Rule != "POL-03" {
			t.Error(err)
		}
	})
}

func TestWhoShowsNothing(t *testing.T) {
	h := newAttestHouse(t, Attestation{})
	for name, q := range map[string]Request{
		"HTTP Basic":                        {Basic: true},
		"a secret in the body":              {ClientID: native, Secret: "s"},
		"an assertion":                      {ClientID: native, Assertion: "a.b.c"},
		"a type of assertion":               {ClientID: native, AssertionType: oauth.AssertionTypeJWT},
		"an attestation":                    {ClientID: native, Attestations: []string{"a.b.c"}},
		"a proof of possession and no more": {ClientID: native, AttestationProofs: []string{"a.b.c"}},
	} {
		t.Run("PAR-11 somebody who shows "+name+" is asked to prove it", func(t *testing.T) {
			if h.Bare(q) {
				t.Error("bare")
			}
		})
	}
	t.Run("PAR-11 a name alone shows nothing", func(t *testing.T) {
		if !h.Bare(Request{ClientID: native}) {
			t.Error("not bare")
		}
	})
}
