package token

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// A refusal with one of these hints is the same whatever the cause: what the
// store knows about a secret is not for somebody who merely presents it.
const (
	hintCode = "the code is not known, has expired or was used before; start again at the authorization endpoint"
	hintGone = "what was granted has ended; start again at the authorization endpoint"
)

// parseCode reads a request with a code. A scope in it is ignored: what the code
// stands for was decided when it was issued.
func parseCode(p web.Params, q *request) error {
	q.code, q.verifier, q.redirectURI = p.Form["code"], p.Form["code_verifier"], p.Form["redirect_uri"]
	switch {
	case q.code == "":
		return missing("code")
	case q.verifier == "":
		return oauth.Refuse(oauth.InvalidRequest, "code_verifier is missing").Under("TOK-04")
	case !oauth.ValidVerifier(q.verifier):
		return oauth.Refuse(oauth.InvalidRequest, "code_verifier must be 43 to 128 unreserved characters").Under("TOK-04")
	}
	return nil
}

// findCode looks the code up and checks that this client may redeem it. A code
// that another client presents stays usable for its own (TK-05). So does one
// presented with a wrong verifier, for a lost race or a broken client must not
// cost the person a sign-in; the fifth wrong one closes it. Only a replay that
// is right in everything ends what the first use bought (TOK-03).
func (h *Handler) findCode(ctx context.Context, is *issue) error {
	hash := store.HashOf(is.request.code)
	code, err := h.cfg.Grants.FindCode(ctx, hash, is.now)
	if err != nil {
		return codeGone(err)
	}
	is.code, is.grant = code, code.Grant
	tries := string(hash[:])
	switch {
	case code.Grant.ClientID != is.client.ID && !planted.Weak("holder"):
		return invalidGrant("TOK-03", hintCode, "the code belongs to another client")
	case is.redirectURI != "" && is.redirectURI != code.RedirectURI:
		return invalidGrant("TOK-05", "redirect_uri is not the one of the authorization request, including its port", "wrong redirect_uri")
	case !slices.Contains(code.Grant.AuthMethods, is.client.Method):
		return oauth.Refuse(oauth.InvalidClient, "the client authenticates in another way than its document said when the code was issued").Under("DOC-18")
	case !h.verifier.Allow(tries):
		return invalidGrant("TOK-03", hintCode, "too many wrong verifiers")
	case !oauth.VerifierMatches(is.verifier, code.Challenge) && !planted.Weak("verifier"):
		h.verifier.Failed(tries)
		return invalidGrant("TOK-04", "code_verifier does not match the code_challenge", "wrong verifier")
	}
	if !code.Spent {
		return h.bind(ctx, is)
	}
	// Whoever redeemed it may have shown keys of theirs, which the code did not
	// belong to: its owner, who has others or none, has to be heard all the same.
	bound := is.grant
	bound.JKT, bound.CertThumbprint = code.JKT, ""
	if err := is.holds(bound); err != nil {
		return err
	}
	return h.replayed(ctx, is)
}

// redeemCode spends the code and writes the first refresh token in the same
// commit.
func (h *Handler) redeemCode(ctx context.Context, is *issue) error {
	data := map[string]string{"jti": is.jti, "scope": is.answer.Scope, "method": is.client.Method}
	redemption := h.redemption(is, is.code.Hash)
	if is.noRefresh != "" {
		data["no_refresh"] = is.noRefresh
	}
	e := is.event(ctx, audit.TypeToken, data)
	redemption.Events = []audit.Event{e}
	_, err := h.cfg.Grants.RedeemCode(ctx, redemption, is.now)
	if errors.Is(err, store.ErrSpent) {
		return h.replayed(ctx, is)
	}
	if err != nil {
		return codeGone(err)
	}
	h.cfg.Audit.Observe(e)
	return nil
}

// redemption is what ties the grant behind a code to the way the client proved
// itself, with the first refresh token, if it gets one.
func (h *Handler) redemption(is *issue, code store.Hash) store.Redemption {
	c := is.client
	r := store.Redemption{
		Hash: code, Method: c.Method, KeyThumbprint: c.KeyThumbprint,
		JKT: is.jkt, InstanceJKT: c.InstanceJKT, CertThumbprint: is.certificate(),
	}
	if is.noRefresh != "" {
		return r
	}
	absolute := is.now.Add(h.cfg.Absolute)
	expires := is.now.Add(min(h.cfg.Idle, h.cfg.Absolute))
	if c.Decision.FAPI { // it is not rotated, so that nothing moves its end
		expires = absolute
	}
	var fresh store.NewRefresh
	is.answer.RefreshToken, fresh = FirstRefresh(is.grant.ID, expires, absolute)
	r.Refresh = &fresh
	return r
}

// replayed answers a code that was used before and came back with the right
// verifier from the right client: either that is not the client, or the first
// one was not, so everything that came of the code ends.
func (h *Handler) replayed(ctx context.Context, is *issue) error {
	return h.reuse(ctx, is, reused{
		rule: "TOK-03", what: "authorization code",
		refusal: invalidGrant("TOK-03", hintCode, "the code was used before; its grant was ended"),
	})
}

type reused struct {
	rule, what string
	refusal    error
}

// reuse ends the grant of a spent secret that came back, and says so in the
// audit log in the same commit.
func (h *Handler) reuse(ctx context.Context, is *issue, r reused) error {
	if !is.grant.Ended.IsZero() {
		return r.refusal
	}
	e := is.event(ctx, audit.TypeReuse, map[string]string{"what": r.what})
	e.Rule = r.rule
	err := h.cfg.Grants.RevokeGrant(ctx, is.grant.ID, r.what+" used twice", is.now, e)
	if isFact(err) {
		return r.refusal
	}
	if err != nil {
		return fmt.Errorf("revoke grant: %w", err)
	}
	h.cfg.Audit.Observe(e)
	return r.refusal
}

func codeGone(err error) error { return gone(err, "TOK-03", hintCode) }

// gone turns a fact of the store into a refusal. What is no fact stays a failure
// of our own (URL-15).
func gone(err error, rule, hint string) error {
	if !isFact(err) {
		return err
	}
	return oauth.Refuse(oauth.InvalidGrant, "%s", hint).Under(rule).Because(err)
}

// isFact reports whether the store found out something, rather than failed to.
func isFact(err error) bool {
	for _, fact := range []error{store.ErrNotFound, store.ErrExpired, store.ErrEnded, store.ErrSpent, store.ErrBlocked} {
		if errors.Is(err, fact) {
			return true
		}
	}
	return false
}
