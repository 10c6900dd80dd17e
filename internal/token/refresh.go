package token

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const hintRefresh = "the refresh token is not known, has expired or was revoked; start again at the authorization endpoint"

func parseRefresh(p web.Params, q *request) error {
	if q.refreshToken = p.Form["refresh_token"]; q.refreshToken == "" {
		return missing("refresh_token")
	}
	return parseScope(p, q)
}

// findRefresh looks the refresh token up and checks that it is this client's and
// that the client authenticates no weaker than when the grant began (DOC-18). A
// token that was already rotated is either a lost answer, for which the same
// successor is given once more, or a theft, which ends the whole family (TOK-11,
// TOK-12).
func (h *Handler) findRefresh(ctx context.Context, is *issue) error {
	refresh, grant, err := h.cfg.Grants.FindRefresh(ctx, refreshRef(is.refreshToken), is.now)
	if err != nil {
		return gone(err, "TOK-16", hintRefresh)
	}
	is.refresh, is.grant = refresh, grant
	if grant.ClientID != is.client.ID && !planted.Weak("owner") {
		return invalidGrant("TOK-16", hintRefresh, "the refresh token belongs to another client")
	}
	if weaker(is.client, grant) {
		return oauth.Refuse(oauth.InvalidClient, "the grant began with a stronger client authentication than this request has").Under("DOC-18")
	}
	err = h.bind(ctx, is)
	switch {
	case err != nil && refresh.Used && is.holds(asItWas(grant, refresh)) == nil:
		return h.stolen(ctx, is) // one of the two who used it has tied what followed to a key of theirs
	case err != nil || !refresh.Used:
		return err
	}
	return h.again(ctx, is)
}

// strength orders the authentication methods.
var strength = map[string]int{
	oauth.MethodNone: 0, oauth.MethodSecretPost: 1, oauth.MethodSecretBasic: 1, oauth.MethodPrivateKeyJWT: 2,
	oauth.MethodAttestation: 2, oauth.MethodAttestationDPoP: 2, oauth.MethodSelfSignedTLS: 2,
}

// weaker reports whether a client authenticates in a weaker way than at the
// redemption of the code. The key may be another one, for keys rotate, but there
// has to be one.
func weaker(c *clientauth.Client, g store.Grant) bool {
	return strength[c.Method] < strength[g.AuthMethod] || (g.KeyThumbprint != "" && c.KeyThumbprint == "")
}

// rotate replaces the refresh token and commits. The next one carries the whole
// scope of the grant, whatever this access token was narrowed to (TOK-13).
func (h *Handler) rotate(ctx context.Context, is *issue) error {
	if is.successor != "" {
		return h.repeat(ctx, is)
	}
	if is.client.Decision.FAPI {
		return h.keep(ctx, is)
	}
	next := successor(is.refreshToken, is.refresh.RefreshRef)
	grace, err := sealGrace(is.refreshToken, is.grant.ID, next)
	if err != nil {
		return err
	}
	expires := is.now.Add(h.cfg.Idle)
	if expires.After(is.refresh.Absolute) {
		expires = is.refresh.Absolute
	}
	e := is.event(ctx, audit.TypeRefresh, map[string]string{"jti": is.jti, "scope": is.answer.Scope, "method": is.client.Method})
	e.Ref = "" // nobody is shown the reference of a success, and its index is the dearest page of the commit
	rotation := store.Rotation{
		Old:   is.refresh.RefreshRef,
		New:   newRefresh(next, expires, is.refresh.Absolute),
		Grace: grace, Events: []audit.Event{e},
	}
	rotation.JKT, rotation.InstanceJKT = is.ties()
	err = h.cfg.Grants.RotateRefresh(ctx, rotation, is.now)
	if errors.Is(err, store.ErrSpent) { // somebody was faster: look again
		return h.lost(ctx, is)
	}
	if err != nil {
		return gone(err, "TOK-16", hintRefresh)
	}
	is.answer.RefreshToken = next
	h.cfg.Audit.Observe(e)
	return nil
}

// keep answers with the same refresh token once more. Under FAPI 2.0 refresh
// tokens are not rotated as a routine: client and token are both bound to keys,
// and a lost answer must not cost the connection (section 5.3.2.1; POL-09).
func (h *Handler) keep(ctx context.Context, is *issue) error {
	e := is.event(ctx, audit.TypeRefresh, map[string]string{"jti": is.jti, "scope": is.answer.Scope, "method": is.client.Method, "rotated": "no"})
	err := h.cfg.Grants.RotateRefresh(ctx, store.Rotation{Old: is.refresh.RefreshRef, Keep: true, Events: []audit.Event{e}}, is.now)
	if errors.Is(err, store.ErrSpent) { // the rule is younger than a request beside this one
		return h.lost(ctx, is)
	}
	if err != nil {
		return gone(err, "TOK-16", hintRefresh)
	}
	is.answer.RefreshToken = is.refreshToken
	h.cfg.Audit.Observe(e)
	return nil
}

// lost is what a request does that lost the race for a refresh token: the same
// as one that comes a moment later.
func (h *Handler) lost(ctx context.Context, is *issue) error {
	if err := h.findRefresh(ctx, is); err != nil {
		return err
	}
	if is.successor == "" {
		return errors.New("rotate refresh token: it is spent and not spent")
	}
	return h.repeat(ctx, is)
}

// clocksApart is how far in the future the rotation may lie: the clocks of two
// replicas differ. What lies further ahead was written before a clock was moved
// back, and no grace lasts until the clock is there again (FA-11, FA-12).
const clocksApart = 2 * time.Minute

// again handles a refresh token that was rotated before. Within the grace, and
// as long as nobody used the successor, the answer may have been lost on its way:
// the same successor is taken out of its seal (RF-02, RF-03). There is never a
// second chain. Everything else is reuse (RF-01).
func (h *Handler) again(ctx context.Context, is *issue) error {
	since := is.now.Sub(is.refresh.UsedAt)
	if r := is.refresh; !r.SuccessorUsed && len(r.Grace) > 0 && -clocksApart <= since && since <= h.cfg.Grace {
		var err error
		if is.successor, err = openGrace(is.refreshToken, is.grant.ID, r.Grace); err == nil {
			return nil
		} // it is not the token that was used, but made by somebody who held one of its family
	}
	return h.stolen(ctx, is)
}

// stolen ends the family of a refresh token that was used before.
func (h *Handler) stolen(ctx context.Context, is *issue) error {
	if planted.Weak("family") {
		return invalidGrant("TOK-16", hintRefresh, "the refresh token was used before")
	}
	return h.reuse(ctx, is, reused{
		rule: "TOK-11", what: "refresh token",
		refusal: invalidGrant("TOK-16", hintRefresh, "the refresh token was used before; its grant was ended"),
	})
}

// repeat answers with the successor that was handed out before and a fresh
// access token.
func (h *Handler) repeat(ctx context.Context, is *issue) error {
	e := is.event(ctx, audit.TypeRefresh, map[string]string{"jti": is.jti, "scope": is.answer.Scope, "method": is.client.Method, "grace": "yes"})
	e.Rule = "TOK-12"
	if err := h.cfg.Audit.Record(ctx, e); err != nil {
		return fmt.Errorf("record refresh: %w", err)
	}
	is.answer.RefreshToken = is.successor
	return nil
}

// sealGrace encrypts the successor of a refresh token under a key that only the
// holder of the old token can derive: the store keeps the hash of either and
// learns neither (TOK-23). The grant is authenticated with it.
func sealGrace(old, grantID, successor string) ([]byte, error) {
	box, err := graceBox(old)
	if err != nil {
		return nil, err
	}
	return box.Seal(nil, nil, []byte(successor), []byte(grantID)), nil
}

func openGrace(old, grantID string, sealed []byte) (string, error) {
	box, err := graceBox(old)
	if err != nil {
		return "", err
	}
	plain, err := box.Open(nil, nil, sealed, []byte(grantID))
	if err != nil {
		return "", fmt.Errorf("open the sealed successor of a refresh token: %w", err)
	}
	return string(plain), nil
}

func graceBox(old string) (cipher.AEAD, error) {
	mac := hmac.New(sha256.New, []byte(old))
	mac.Write([]byte("bonafide: successor of this refresh token"))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
