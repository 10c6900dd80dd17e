package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
)

// dynamicChecks are the clauses about clients that register themselves.
var dynamicChecks = []Check{
	{"DCR-02, DCR-05: a client that registered itself comes back as it was", func(ctx context.Context, h *House) error {
		c := h.dynamic()
		err := h.RegisterDynamic(ctx, c, plenty, Noon)
		row, rerr := h.Client(ctx, c.ID)
		want := c
		want.Source, want.State, want.Created, want.LastUsed = store.SourceDCR, store.StateAllowed, Noon, Noon
		if err := errors.Join(err, rerr, same("row", row, want)); err != nil {
			return err
		}
		for name, spoil := range map[string]func(*store.Client){"a URL": func(c *store.Client) { c.ID = "https://evil.example/c" }, "no name": func(c *store.Client) { c.ID = "" },
			"no expiry": func(c *store.Client) { c.Expires = time.Time{} }, "expired": func(c *store.Client) { c.Expires = Noon }} {
			bad := h.dynamic()
			spoil(&bad)
			if err := h.RegisterDynamic(ctx, bad, plenty, Noon); err == nil {
				return fmt.Errorf("registered with %s", name)
			}
		}
		return nil
	}},
	{"DCR-04 only the newest registration token changes or removes a client", dynamicToken},
	{"DCR-01 a client that registered itself expires when it is not used, with all that is left of it", dynamicExpiry},
}

// dynamicToken spoils one thing per row of a change and of a removal.
func dynamicToken(ctx context.Context, h *House) error {
	rows := []struct {
		name  string
		spoil func(c *store.Client, token *string) error
		want  error
	}{
		{"nothing", func(*store.Client, *string) error { return nil }, nil},
		{"another token", func(_ *store.Client, token *string) error { *token = "registration 2"; return nil }, store.ErrConflict},
		{"unknown client", func(c *store.Client, _ *string) error { c.ID = "nobody"; return nil }, store.ErrNotFound},
		{"a registered client", func(c *store.Client, _ *string) error {
			h.n++
			c.ID = fmt.Sprint("registered-", h.n)
			return h.RegisterClient(ctx, store.Client{ID: c.ID, RegistrationHash: c.RegistrationHash}, Noon)
		}, store.ErrNotFound},
		{"blocked", func(c *store.Client, _ *string) error {
			return h.SetClientState(ctx, c.ID, store.StateBlocked, "", Noon)
		}, store.ErrBlocked},
		{"removed", func(c *store.Client, token *string) error { return h.RemoveDynamic(ctx, c.ID, *token, Noon) }, store.ErrBlocked},
	}
	for _, row := range rows {
		for _, verb := range []string{"update", "remove"} {
			c := h.dynamic()
			err := h.RegisterDynamic(ctx, c, plenty, Noon)
			token, u := c.RegistrationHash, c
			if err := errors.Join(err, row.spoil(&u, &token)); err != nil {
				return fmt.Errorf("%s: %w", row.name, err)
			}
			last, lerr := h.lastEvent(ctx)
			before, _ := h.Client(ctx, c.ID)
			u.Name, u.RegistrationHash, u.RedirectURIs, u.Metadata = "New", "registration 3", []string{"https://dyn.example/new"}, []byte("{}")
			u.Source, u.State = store.SourceRegistered, store.StatePending // what it may not choose
			if verb == "update" {
				err = h.UpdateDynamic(ctx, u, token, Noon)
			} else {
				err = h.RemoveDynamic(ctx, u.ID, token, Noon)
			}
			types, terr := h.eventTypes(ctx, last)
			got, gerr := h.Client(ctx, c.ID)
			want, recorded := before, 0
			switch {
			case row.want != nil:
			case verb == "update":
				want, recorded = u, 1
				want.Source, want.State, want.Created, want.LastUsed = store.SourceDCR, store.StateAllowed, Noon, Noon
			default:
				want.State, want.Reason, want.RegistrationHash, want.Expires, recorded = store.StateRetired, "removed itself", "", Noon, 1
			}
			if err := errors.Join(lerr, terr, gerr, is("answer", err, row.want), same("row", got, want), same("events", len(types), recorded)); err != nil {
				return fmt.Errorf("%s, %s: %w", row.name, verb, err)
			}
		}
	}
	c := h.dynamic()
	a := h.answer()
	a.Grant.ClientID, a.Remember = c.ID, true
	err := errors.Join(h.RegisterDynamic(ctx, c, plenty, Noon), h.AnswerConsent(ctx, a, Noon), h.RemoveDynamic(ctx, c.ID, c.RegistrationHash, Noon))
	_, ended := h.GrantActive(ctx, a.Grant.ID)
	_, forgotten := h.Consent(ctx, User, c.ID, Resource)
	if err := errors.Join(err, is("the grant of a client that removed itself", ended, store.ErrEnded), is("its consent", forgotten, store.ErrNotFound)); err != nil {
		return err
	}
	c = h.dynamic()
	last, lerr := h.lastEvent(ctx)
	err = errors.Join(lerr, h.RegisterDynamic(ctx, c, plenty, Noon, audit.Event{Type: audit.TypeClient, Client: c.ID, Code: "theirs"}),
		h.UpdateDynamic(ctx, c, c.RegistrationHash, Noon, audit.Event{Type: audit.TypeDecision, Client: c.ID}))
	types, terr := h.eventTypes(ctx, last)
	err = errors.Join(err, terr, same("events", types, []audit.Type{audit.TypeClient, audit.TypeClient, audit.TypeDecision}))
	c.RegistrationHash = ""
	if h.UpdateDynamic(ctx, c, "registration 1", Noon) == nil || h.RemoveDynamic(ctx, c.ID, "", Noon) == nil {
		return errors.New("changed without a token")
	}
	return err
}

// dynamicExpiry follows two clients to their end, one in use and one not.
func dynamicExpiry(ctx context.Context, h *House) error {
	day := 24 * time.Hour
	used, idle := h.dynamic(), h.dynamic()
	a, b := h.answer(), h.answer()
	a.Grant.ClientID, b.Grant.ClientID = used.ID, idle.ID
	a.Code.Expires = Noon.Add(20 * time.Hour)
	err := errors.Join(h.RegisterDynamic(ctx, used, plenty, Noon), h.RegisterDynamic(ctx, idle, plenty, Noon))
	a.NonceExpires, b.NonceExpires = Noon.Add(2*day), Noon.Add(2*day)
	err = errors.Join(err, h.AnswerConsent(ctx, a, Noon.Add(18*time.Hour))) // its day begins anew
	row, rerr := h.Client(ctx, used.ID)
	err = errors.Join(err, rerr, same("expires", row.Expires, Noon.Add(42*time.Hour)), same("used", row.LastUsed, Noon.Add(18*time.Hour)),
		is("idle, a day later", h.AnswerConsent(ctx, b, Noon.Add(day)), store.ErrBlocked),
		is("update, a day later", h.UpdateDynamic(ctx, idle, idle.RegistrationHash, Noon.Add(day)), store.ErrBlocked))
	u := used
	u.Expires, u.RegistrationHash = time.Time{}, "registration 2"
	err = errors.Join(err, h.UpdateDynamic(ctx, u, used.RegistrationHash, Noon.Add(30*time.Hour)))
	row, rerr = h.Client(ctx, used.ID)
	err = errors.Join(err, rerr, same("expires after a change", row.Expires, Noon.Add(54*time.Hour)))
	_, perr := h.Prune(ctx, Noon.Add(5*day))
	_, gone := h.Client(ctx, idle.ID)
	_, kept := h.Client(ctx, used.ID) // its grant is still told about
	err = errors.Join(err, perr, is("idle", gone, store.ErrNotFound), is("with a grant", kept, nil))
	_, perr = h.Prune(ctx, Noon.Add(120*day))
	_, gone = h.Client(ctx, used.ID)
	return errors.Join(err, perr, is("used, in the end", gone, store.ErrNotFound))
}
