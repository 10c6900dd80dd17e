package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// tokenChecks are the clauses about codes, refresh tokens and grants.
var tokenChecks = []Check{
	{"TOK-03 a spent code is found with its grant, as a replay, past its expiry", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		c, err := h.FindCode(ctx, a.Code.Hash, Noon.Add(time.Hour))
		return errors.Join(err, same("spent", c.Spent, true), same("grant", c.Grant.ID, a.Grant.ID), same("spent at", c.SpentAt, Noon))
	}},
	{"a code brings back what it was made with", func(ctx context.Context, h *House) error {
		a, err := h.code(ctx)
		if err != nil {
			return err
		}
		want := a.Grant
		want.Created, want.LastUsed, want.Kind, want.SID = Noon, Noon, store.KindCode, "sid of user-1"
		c, err := h.FindCode(ctx, a.Code.Hash, Noon)
		if err := errors.Join(err, same("found", c, store.Code{Hash: a.Code.Hash, Grant: want, RedirectURI: a.Code.RedirectURI, Challenge: "challenge", Expires: a.Code.Expires})); err != nil {
			return err
		}
		g, err := h.RedeemCode(ctx, redemption(a), Noon.Add(time.Second))
		want.AuthMethod, want.KeyThumbprint, want.LastUsed = "private_key_jwt", "thumbprint", Noon.Add(time.Second)
		return errors.Join(err, same("redeemed", g, want))
	}},
	{"a code is good until the moment it expires", func(ctx context.Context, h *House) error {
		early, err1 := h.code(ctx)
		late, err2 := h.code(ctx)
		end := early.Code.Expires
		_, ferr := h.FindCode(ctx, late.Code.Hash, end)
		_, last := h.RedeemCode(ctx, redemption(early), end.Add(-time.Microsecond))
		_, over := h.RedeemCode(ctx, redemption(late), end)
		_, none := h.RedeemCode(ctx, store.Redemption{Hash: store.HashOf("stranger")}, Noon)
		return errors.Join(err1, err2, is("find at the end", ferr, store.ErrExpired), is("redeem before the end", last, nil),
			is("redeem at the end", over, store.ErrExpired), is("redeem an unknown code", none, store.ErrNotFound))
	}},
	{"TOK-12 a spent refresh token leads to its successor and the sealed answer", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		now := Noon.Add(time.Minute)
		found, g, err := h.FindRefresh(ctx, refreshOf(a, 1), now)
		err = errors.Join(err, same("fresh", found, store.Refresh{RefreshRef: refreshOf(a, 1),
			Expires: Noon.Add(14 * 24 * time.Hour), Absolute: Noon.Add(90 * 24 * time.Hour)}), same("grant", g.AuthMethod, "private_key_jwt"))
		err = errors.Join(err, h.RotateRefresh(ctx, rotation(a, 1), now))
		spent, g, ferr := h.FindRefresh(ctx, refreshOf(a, 1), now)
		err = errors.Join(err, ferr, same("used", spent.Used, true), same("used at", spent.UsedAt, now), same("successor", spent.Successor, refreshOf(a, 2).Hash),
			same("grace", string(spent.Grace), "sealed 2"), same("successor used", spent.SuccessorUsed, false), same("last used", g.LastUsed, now))
		err = errors.Join(err, h.RotateRefresh(ctx, rotation(a, 2), now))
		spent, _, ferr = h.FindRefresh(ctx, refreshOf(a, 1), now)
		active, aerr := h.GrantActive(ctx, a.Grant.ID)
		return errors.Join(err, ferr, aerr, same("successor used", spent.SuccessorUsed, true), same("last used", active.LastUsed, now))
	}},
	{"POL-09 a refresh token that is kept stays the newest, and what came before it is reuse", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		err = h.RotateRefresh(ctx, rotation(a, 1), Noon)
		keep := store.Rotation{Old: refreshOf(a, 2), Keep: true}
		for i := range 6 {
			now := Noon.Add(time.Duration(i) * 10 * 24 * time.Hour)
			kept, _, ferr := h.FindRefresh(ctx, refreshOf(a, 2), now)
			err = errors.Join(err, ferr, same("used", kept.Used, false), h.RotateRefresh(ctx, keep, now))
			g, gerr := h.GrantActive(ctx, a.Grant.ID)
			err = errors.Join(err, gerr, same("last used", g.LastUsed, now))
		}
		now, absolute := Noon.Add(50*24*time.Hour), Noon.Add(90*24*time.Hour)
		before, _, ferr := h.FindRefresh(ctx, refreshOf(a, 1), now)
		kept, _, kerr := h.FindRefresh(ctx, refreshOf(a, 2), now)
		err = errors.Join(err, ferr, kerr, same("used", before.Used, true), same("grace", len(before.Grace), 0), same("end", []time.Time{kept.Expires, kept.Absolute}, []time.Time{absolute, absolute}),
			is("keep what was used", h.RotateRefresh(ctx, store.Rotation{Old: refreshOf(a, 1), Keep: true}, now), store.ErrSpent),
			is("keep a stranger", h.RotateRefresh(ctx, store.Rotation{Old: rival(a, 2, 1), Keep: true}, now), store.ErrNotFound),
			is("keep at the end", h.RotateRefresh(ctx, keep, absolute), store.ErrExpired),
			h.RevokeGrant(ctx, a.Grant.ID, "test", now))
		return errors.Join(err, is("keep what has ended", h.RotateRefresh(ctx, keep, now), store.ErrEnded))
	}},
	{"TOK-14 a refresh token ends when idle, and its family at a fixed time", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		idle, absolute := Noon.Add(14*24*time.Hour), Noon.Add(90*24*time.Hour)
		_, _, found := h.FindRefresh(ctx, refreshOf(a, 1), idle)
		err = errors.Join(is("find at the end", found, store.ErrExpired),
			is("rotate at the end", h.RotateRefresh(ctx, rotation(a, 1), idle), store.ErrExpired))
		r := rotation(a, 1)
		r.New.Expires, r.New.Absolute = absolute.Add(time.Hour), absolute.Add(24*time.Hour)
		err = errors.Join(err, h.RotateRefresh(ctx, r, idle.Add(-time.Microsecond)))
		next, _, ferr := h.FindRefresh(ctx, refreshOf(a, 2), idle)
		err = errors.Join(err, ferr, same("expiry", next.Expires, absolute), same("absolute expiry", next.Absolute, absolute))
		return errors.Join(err, is("rotate at the end of the family", h.RotateRefresh(ctx, rotation(a, 2), absolute), store.ErrExpired))
	}},
	{"TOK-11 a refresh token that was used is found as such past its expiry, as long as its family lives", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		day := 24 * time.Hour
		for i := 1; i <= 8; i++ {
			now := Noon.Add(time.Duration(i) * 10 * day)
			r := rotation(a, i)
			r.New.Expires = now.Add(14 * day)
			_, perr := h.Prune(ctx, now)
			err = errors.Join(err, perr, h.RotateRefresh(ctx, r, now))
		}
		now := Noon.Add(89 * day)
		_, perr := h.Prune(ctx, now)
		old, g, ferr := h.FindRefresh(ctx, refreshOf(a, 1), now)
		return errors.Join(err, perr, ferr, same("used", old.Used, true), same("grant", g.ID, a.Grant.ID),
			is("rotate", h.RotateRefresh(ctx, rotation(a, 1), now), store.ErrSpent))
	}},
	{"a spent refresh token stays spent when its short-lived successor has expired", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		r := rotation(a, 1)
		r.New.Expires = Noon.Add(time.Minute)
		later := Noon.Add(13 * 24 * time.Hour)
		err = h.RotateRefresh(ctx, r, Noon)
		_, perr := h.Prune(ctx, later)
		old, _, ferr := h.FindRefresh(ctx, refreshOf(a, 1), later)
		_, _, gone := h.FindRefresh(ctx, refreshOf(a, 2), later)
		return errors.Join(err, perr, ferr, same("used", old.Used, true), is("the successor", gone, store.ErrExpired),
			is("rotate again", h.RotateRefresh(ctx, rotation(a, 1), later), store.ErrSpent))
	}},
	{"TOK-16 what no longer stands is not refreshed, in the same commit", standing},
	{"REV-06 blocking a client ends its grants and refresh families at once, for good", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		pending, err := h.code(ctx)
		err = errors.Join(err, h.SetClientState(ctx, ClientID, store.StateBlocked, "phishing", Noon))
		_, blocked := h.RedeemCode(ctx, redemption(pending), Noon)
		err = errors.Join(err, is("rotate", h.RotateRefresh(ctx, rotation(a, 1), Noon), store.ErrEnded), is("redeem", blocked, store.ErrEnded),
			is("answer", h.AnswerConsent(ctx, h.answer(), Noon), store.ErrBlocked))
		err = errors.Join(err, h.SetClientState(ctx, ClientID, store.StateAllowed, "", Noon))
		g, active := h.GrantActive(ctx, a.Grant.ID)
		c, cerr := h.Client(ctx, ClientID)
		return errors.Join(err, cerr, is("grant after unblocking", active, store.ErrEnded), same("reason", g.EndReason, "client_blocked"),
			is("rotate after unblocking", h.RotateRefresh(ctx, rotation(a, 1), Noon), store.ErrEnded), same("row", c.State, store.StateAllowed))
	}},
	{"TOK-14 a new password ends sessions and grants", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		err = errors.Join(err, h.SetPassword(ctx, User, "$argon2id$new", Noon))
		_, _, ses := h.FindSession(ctx, session, Noon)
		u, uerr := h.UserByName(ctx, "JOHN")
		return errors.Join(err, uerr, is("session", ses, store.ErrNotFound), is("rotate", h.RotateRefresh(ctx, rotation(a, 1), Noon), store.ErrEnded),
			same("hash", u.PasswordHash, "$argon2id$new"), is("unknown user", h.SetPassword(ctx, "nobody", "x", Noon), store.ErrNotFound))
	}},
	{"revoking a grant again changes nothing", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		ev := audit.Event{Type: audit.TypeReuse, Grant: a.Grant.ID}
		err = errors.Join(err, h.RevokeGrant(ctx, a.Grant.ID, "reuse", Noon, ev), h.RevokeGrant(ctx, a.Grant.ID, "logout", Noon.Add(time.Hour), ev))
		g, active := h.GrantActive(ctx, a.Grant.ID)
		events, eerr := h.Events(ctx, store.EventQuery{Type: audit.TypeReuse})
		return errors.Join(err, eerr, is("grant", active, store.ErrEnded), same("reason", g.EndReason, "reuse"), same("ended", g.Ended, Noon),
			same("attack RF-01: reuse events", len(events), 1), is("unknown grant", h.RevokeGrant(ctx, "none", "x", Noon), store.ErrNotFound))
	}},
	{"TOK-11, TOK-12: only the newest token as a whole is good, and only a token of the family is a sign of reuse", func(ctx context.Context, h *House) error {
		a, err1 := h.family(ctx)
		b, err2 := h.family(ctx)
		err := errors.Join(err1, err2, h.RotateRefresh(ctx, rotation(a, 1), Noon), h.RotateRefresh(ctx, rotation(a, 2), Noon))
		stranger := store.HashOf("stranger")
		with := func(generation int, change func(*store.RefreshRef)) store.RefreshRef {
			ref := refreshOf(a, generation)
			change(&ref)
			return ref
		}
		for name, ref := range map[string]store.RefreshRef{
			"of no grant":                   with(3, func(r *store.RefreshRef) { r.GrantID = "none" }),
			"of another grant":              with(1, func(r *store.RefreshRef) { r.GrantID = b.Grant.ID }),
			"of another family":             with(3, func(r *store.RefreshRef) { r.Family = stranger }),
			"spent, of another family":      with(1, func(r *store.RefreshRef) { r.Family = stranger }),
			"spent, of no family":           with(1, func(r *store.RefreshRef) { r.Family = store.Hash{} }),
			"the newest, with another hash": with(3, func(r *store.RefreshRef) { r.Hash = stranger }),
			"the newest, with the last":     with(3, func(r *store.RefreshRef) { r.Hash = refreshOf(a, 2).Hash }),
			"from the future":               refreshOf(a, 4),
			"a hash alone":                  {Hash: refreshOf(a, 3).Hash},
		} {
			_, g, ferr := h.FindRefresh(ctx, ref, Noon)
			err = errors.Join(err, is(name, ferr, store.ErrNotFound), same(name+": its grant", g.ID, ""))
		}
		for name, old := range map[string]store.RefreshRef{
			"another hash": with(3, func(r *store.RefreshRef) { r.Hash = stranger }), "the future": refreshOf(a, 4),
			"no grant": with(3, func(r *store.RefreshRef) { r.GrantID = "none" }),
		} {
			r := rotation(a, 8)
			r.Old = old
			err = errors.Join(err, is("rotate with "+name, h.RotateRefresh(ctx, r, Noon), store.ErrNotFound))
		}
		forged, _, ferr := h.FindRefresh(ctx, with(1, func(r *store.RefreshRef) { r.Hash = stranger }), Noon)
		return errors.Join(err, ferr, same("spent, of the family", forged.Used, true), is("the newest", h.RotateRefresh(ctx, rotation(a, 3), Noon), nil))
	}},
	{"mistake 39: thousands of rotations", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		const n, part = 3000, 500
		var first, last time.Duration
		for i := 1; i <= n; i++ {
			start := time.Now()
			now := Noon.Add(time.Duration(i) * 10 * time.Minute)
			r := rotation(a, i)
			r.New.Expires = now.Add(14 * 24 * time.Hour)
			if _, _, err := h.FindRefresh(ctx, r.Old, now); err != nil {
				return fmt.Errorf("find generation %d: %w", i, err)
			}
			if err := h.RotateRefresh(ctx, r, now); err != nil {
				return fmt.Errorf("rotate generation %d: %w", i, err)
			}
			switch took := time.Since(start); {
			case i <= part:
				first += took
			case i > n-part:
				last += took
			}
		}
		if last > 10*first {
			return fmt.Errorf("the last %d rotations took %v, the first %v", part, last, first)
		}
		return nil
	}},
	{"REV-06 a denied access token stays denied until it expires", func(ctx context.Context, h *House) error {
		err := errors.Join(h.DenyToken(ctx, "jti-1", Noon.Add(time.Minute)), h.DenyToken(ctx, "jti-1", Noon.Add(time.Minute)))
		denied, err2 := h.TokenDenied(ctx, "jti-1")
		other, err3 := h.TokenDenied(ctx, "jti-2")
		return errors.Join(err, err2, err3, same("denied", denied, true), same("another", other, false))
	}},
}

// standing spoils one thing that a refresh rests on per row.
func standing(ctx context.Context, h *House) error {
	before := Noon.Add(-time.Second)
	rows := []struct {
		name  string
		spoil func(a store.Answer) error
		want  error
	}{
		{"nothing", func(store.Answer) error { return nil }, nil},
		{"grant revoked", func(a store.Answer) error { return h.RevokeGrant(ctx, a.Grant.ID, "revoked", before) }, store.ErrEnded},
		{"connection revoked", func(a store.Answer) error { return h.RevokeUserClient(ctx, User, ClientID, before) }, store.ErrEnded},
		{"client held", func(store.Answer) error { return h.SetClientState(ctx, ClientID, store.StatePending, "review", before) }, store.ErrBlocked},
		{"client retired", func(store.Answer) error { return h.SetClientState(ctx, ClientID, store.StateRetired, "", before) }, store.ErrEnded},
		{"user disabled", func(store.Answer) error { return h.DisableUser(ctx, User, before) }, store.ErrEnded},
	}
	for _, row := range rows {
		if err := h.SetClientState(ctx, ClientID, store.StateAllowed, "", Noon); err != nil {
			return err
		}
		a, err := h.family(ctx)
		c, cerr := h.code(ctx)
		if err := errors.Join(err, cerr, row.spoil(a)); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		_, g, found := h.FindRefresh(ctx, refreshOf(a, 1), Noon)
		_, active := h.GrantActive(ctx, a.Grant.ID)
		want := row.want
		codeWant := want
		if row.name == "grant revoked" { // the code belongs to another grant
			codeWant = nil
		}
		_, redeem := h.RedeemCode(ctx, redemption(c), Noon)
		if err := errors.Join(
			is("find", found, want), is("active", active, want), same("grant", g.ID, a.Grant.ID),
			is("rotate", h.RotateRefresh(ctx, rotation(a, 1), Noon), want), is("redeem", redeem, codeWant)); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	return nil
}

// scopes is a shorthand.
func scopes(s ...string) oauth.Scopes { return s }
