package clientauth

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestWhatOneClientHasRemembered(t *testing.T) {
	t.Run("attack CA-07: so many identifiers of one client at once, and not those of another", func(t *testing.T) {
		h := newHouse(t)
		h.memory = newMemory(1, 3)
		other := "https://other.test/c"
		h.people.add(directory.Client{ID: other, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodPrivateKeyJWT}})
		h.publish(other, h.key.Public())
		send := func(client string) error {
			_, err := h.Authenticate(t.Context(), withAssertion(h.sign(t, "", h.assertionClaims(client))))
			return err
		}
		for i := range 3 {
			if err := send(keyed); err != nil {
				t.Fatalf("assertion %d: %v", i, err)
			}
		}
		bad := h.assertionClaims(keyed)
		bad["aud"] = "https://evil.test"
		h.refused(t, withAssertion(h.sign(t, "", bad)), "CAUTH-04") // and counts for nobody
		refusal, ok := errors.AsType[*web.Refusal](send(keyed))
		if !ok || refusal.Err.Code != oauth.TemporarilyUnavailable || refusal.Status != http.StatusTooManyRequests || refusal.RetryAfter <= 0 {
			t.Fatalf("one too many: %+v", refusal)
		}
		if err := send(other); err != nil {
			t.Fatalf("another client: %v", err)
		}
		h.clock.move(time.Second)
		if err := send(keyed); err != nil {
			t.Fatalf("a second later: %v", err)
		}
	})
	t.Run("attack CA-07: an assertion of somebody else's key counts for nobody", func(t *testing.T) {
		h := newHouse(t)
		h.memory = newMemory(rate.Limit(0), 1)
		for range 5 {
			good := h.sign(t, "", h.assertionClaims(keyed))
			h.refused(t, withAssertion(good[:len(good)-8]+"AAAAAAAA"), "CAUTH-07")
		}
		h.accepted(t, withAssertion(h.sign(t, "", h.assertionClaims(keyed))), oauth.MethodPrivateKeyJWT)
	})
	t.Run("attack CA-07: one installation uses up what it may have remembered, and not what the others of its client may (ATT-05)", func(t *testing.T) {
		h := newAttestHouse(t, Attestation{})
		h.memory, h.instances = newMemory(rate.Limit(0), 10), newMemory(rate.Limit(0), 3)
		busy := func(err error) bool {
			refusal, ok := errors.AsType[*web.Refusal](err)
			return ok && refusal.Status == http.StatusTooManyRequests && refusal.RetryAfter > 0
		}
		for i := range 3 {
			if _, _, err := h.send(t, h.good(t)); err != nil {
				t.Fatalf("proof %d: %v", i, err)
			}
		}
		for range 20 {
			if _, _, err := h.send(t, h.good(t)); !busy(err) {
				t.Fatalf("one too many: %v", err)
			}
		}
		for range 2 {
			h.instance = generate(t, jose.ES256)
			for i := range 3 {
				if _, _, err := h.send(t, h.good(t)); err != nil {
					t.Fatalf("another installation, proof %d: %v", i, err)
				}
			}
		}
		h.instance = generate(t, jose.ES256)
		if _, _, err := h.send(t, h.good(t)); err != nil {
			t.Fatalf("the tenth of the client: %v", err)
		}
		if _, _, err := h.send(t, h.good(t)); !busy(err) {
			t.Fatalf("more than the client may have: %v", err)
		}
	})
	t.Run("attack CA-01, attack CA-07: what is sent again uses up nothing of what its client may have remembered", func(t *testing.T) {
		h := newAttestHouse(t, Attestation{})
		h.memory, h.instances = newMemory(rate.Limit(0), 7), newMemory(rate.Limit(0), 3)
		first := withAssertion(h.sign(t, "", h.assertionClaims(keyed)))
		h.accepted(t, first, oauth.MethodPrivateKeyJWT)
		for range 20 {
			h.refused(t, first, "CAUTH-06")
		}
		for range 6 {
			h.accepted(t, withAssertion(h.sign(t, "", h.assertionClaims(keyed))), oauth.MethodPrivateKeyJWT)
		}
		if _, err := h.Authenticate(t.Context(), withAssertion(h.sign(t, "", h.assertionClaims(keyed)))); oauth.AsError(err).Code != oauth.TemporarilyUnavailable {
			t.Errorf("one too many: %v", err)
		}
		both := attempt{attestations: []string{h.attestation(t, nil)}, proofs: []string{h.proof(t, h.instance, nil)}}
		for name, again := range map[string]attempt{"a proof of possession": h.good(t), "a DPoP proof": both} {
			if _, _, err := h.send(t, again); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for range 20 {
				if _, _, err := h.send(t, again); err == nil || oauth.AsError(err).Code == oauth.TemporarilyUnavailable {
					t.Fatalf("%s once more: %v", name, err)
				}
			}
		}
		for i, want := range []bool{true, false} {
			if _, _, err := h.send(t, h.good(t)); (err == nil) != want {
				t.Errorf("proof %d more of the installation: %v", i, err)
			}
		}
	})
	t.Run("attack CA-07: what a client may not have remembered does not count for its installation", func(t *testing.T) {
		h := newAttestHouse(t, Attestation{})
		h.memory, h.instances = newMemory(1, 1), newMemory(rate.Limit(0), 2)
		for i, want := range []bool{true, false, false, false} {
			if _, _, err := h.send(t, h.good(t)); (err == nil) != want {
				t.Fatalf("proof %d: %v", i, err)
			}
		}
		h.clock.move(time.Second)
		if _, _, err := h.send(t, h.good(t)); err != nil {
			t.Errorf("a second later: %v", err)
		}
	})
	t.Run("attack CA-07: the counts themselves are bounded, and the greedy are not forgotten first", func(t *testing.T) {
		m, now := newMemory(1, 100), time.Now()
		for range 100 {
			if err := m.take("greedy", now); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 2 * memoryClients {
			if err := m.take(fmt.Sprint("one of many ", i), now); err != nil {
				t.Fatal(err)
			}
		}
		if len(m.clients) > memoryClients {
			t.Errorf("%d clients are counted", len(m.clients))
		}
		if m.take("greedy", now) == nil {
			t.Error("the greedy one was forgotten")
		}
	})
}
