package clientauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// fresh are the two refusals that a client can act on. They are told only to
// somebody with a good attestation and the key it names (ATT-07).
func (a *Authenticator) fresh(ctx context.Context, at *attestation) error {
	age := a.cfg.Attestation.MaxAge
	if age == 0 {
		age = DefaultMaxAge
	}
	tooOld := date(*at.claims.Expires).After(at.now.Add(age)) // without iat it has to expire within that time
	if at.claims.Issued != nil {
		tooOld = at.now.After(date(*at.claims.Issued).Add(age))
	}
	if tooOld {
		return oauth.Refuse(oauth.UseFreshAttestation, "the client attestation is too old; get a new one").Under("ATT-07")
	}
	if at.pop == nil || at.proof.Challenge == "" && !a.cfg.Attestation.RequireChallenge {
		return nil
	}
	if _, ok := a.cfg.Nonces.Challenged(at.proof.Challenge, at.now); !ok {
		return a.challenge(ctx, at.now)
	}
	return nil
}

// challenge refuses and gives a challenge for the next attempt.
func (a *Authenticator) challenge(ctx context.Context, now time.Time) error {
	web.Answer(ctx).Set(headerChallenge, a.cfg.Nonces.Challenge(now))
	return oauth.Refuse(oauth.UseAttestationChallenge,
		"the proof of possession must carry the challenge that the header %s of this answer gives", headerChallenge).Under("ATT-07")
}

// spendPoP uses up the proof and then its challenge: a proof that comes back is an
// attack, and a challenge that comes back in another proof asks for a fresh one.
func (a *Authenticator) spendPoP(ctx context.Context, at *attestation) error {
	until := date(*at.proof.Issued).Add(proofPast + skew)
	err := a.cfg.Spender.SpendID(ctx, spenderPoP+at.key.Thumbprint(), store.HashOf(at.proof.JTI), until, at.now)
	if errors.Is(err, store.ErrSpent) {
		return fail("ATT-05", "the proof of possession was used before: %w", err)
	}
	if err != nil {
		return fmt.Errorf("spend proof of possession: %w", err)
	}
	if at.proof.Challenge == "" {
		return nil
	}
	until, _ = a.cfg.Nonces.Challenged(at.proof.Challenge, at.now)
	err = a.cfg.Spender.SpendID(ctx, spenderChallenge, store.HashOf(at.proof.Challenge), until.Add(skew), at.now)
	if errors.Is(err, store.ErrSpent) {
		return a.challenge(ctx, at.now)
	}
	if err != nil {
		return fmt.Errorf("spend challenge: %w", err)
	}
	return nil
}

// Challenge serves POST /challenge: a challenge for the next proof of possession
// and, where nonces are demanded, a nonce for the next DPoP proof (ATT-06). It
// keeps nothing.
func (a *Authenticator) Challenge(w http.ResponseWriter, _ *http.Request) error {
	now := a.cfg.Now()
	attested := a.cfg.Attestation != nil
	if a.cfg.RequireNonce || attested && a.cfg.Attestation.RequireChallenge {
		w.Header().Set(headerNonce, a.cfg.Nonces.At(now))
	}
	body := map[string]string{}
	if attested {
		body["attestation_challenge"] = a.cfg.Nonces.Challenge(now)
	}
	return web.WriteJSON(w, http.StatusOK, body)
}
