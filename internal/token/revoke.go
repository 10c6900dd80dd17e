package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Revoke serves POST /revoke (RFC 7009). The answer is 200 whatever the token
// was, once the client is who it says: an unknown token, one of another client
// and a revoked one look the same (REV-02). token_type_hint is not needed to
// find a token and is not looked at. A refresh token takes its grant along, and
// with it every token of the grant but no other grant of the same client; an
// access token goes alone (REV-03).
func (h *Handler) Revoke(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	c, err := h.authenticate(w, r, clientauth.FromHTTP(r, p))
	if err != nil {
		return err
	}
	token := p.Form["token"]
	if token == "" {
		return oauth.Refuse(oauth.InvalidRequest, "token is missing").Under("REV-01")
	}
	if strings.Contains(token, ".") { // ours without dots are refresh tokens
		err = h.revokeAccess(r.Context(), c, token)
	} else {
		err = h.revokeRefresh(r.Context(), c, token)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (h *Handler) revokeRefresh(ctx context.Context, c *clientauth.Client, token string) error {
	now := h.cfg.Now()
	_, g, err := h.cfg.Grants.FindRefresh(ctx, refreshRef(token), now)
	switch {
	case errors.Is(err, store.ErrBlocked), errors.Is(err, store.ErrExpired):
		// It is of no use now, but its grant stands: once the client is allowed again
		// it would be, and an access token may be a few minutes old.
		err = nil
	case isFact(err):
		return nil
	}
	if err != nil {
		return err
	}
	e := revocation(ctx, c, g, now)
	switch {
	case g.ClientID != c.ID:
		h.foreign(e)
		return nil
	case !g.Ended.IsZero():
		return nil
	}
	err = h.cfg.Grants.RevokeGrant(ctx, g.ID, "revoked by the client", now, e)
	if isFact(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("revoke grant: %w", err)
	}
	h.cfg.Audit.Observe(e)
	return nil
}

func (h *Handler) revokeAccess(ctx context.Context, c *clientauth.Client, token string) error {
	now := h.cfg.Now()
	t, err := h.cfg.Keys.VerifyAccess(token, now)
	if err != nil {
		return nil //nolint:nilerr // not ours, or it does nothing any more (REV-02)
	}
	g := store.Grant{ID: t.GrantID, UserID: t.Subject, Resource: t.Audience}
	if t.ClientOnly {
		g.UserID = ""
	}
	e := revocation(ctx, c, g, now)
	if t.ClientID != c.ID {
		h.foreign(e)
		return nil
	}
	e.Data = map[string]string{"jti": t.JTI}
	if err := h.cfg.Denials.DenyToken(ctx, t.JTI, t.Expires, e); err != nil {
		return fmt.Errorf("deny token: %w", err)
	}
	h.cfg.Audit.Observe(e)
	return nil
}

// foreign notes that a client tried to revoke what belongs to another one. It
// has no effect (TK-16).
func (h *Handler) foreign(e audit.Event) {
	e.Type, e.Rule = audit.TypeRefusal, "REV-02"
	h.cfg.Audit.Note(e)
}

func revocation(ctx context.Context, c *clientauth.Client, g store.Grant, now time.Time) audit.Event {
	return audit.Event{
		Time: now, Type: audit.TypeRevocation, Ref: web.Ref(ctx), IP: ipOf(ctx),
		Client: c.ID, User: g.UserID, Grant: g.ID, Resource: g.Resource,
	}
}
