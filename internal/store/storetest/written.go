package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
)

// writtenChecks are the clauses about rows that come back as they were written.
var writtenChecks = []Check{
	{"an account comes back as it was added", func(ctx context.Context, h *House) error {
		want := store.User{ID: "mary", Name: "Mary Ann", Email: "Mary@Example.test", PasswordHash: "$argon2id$her", Created: Noon}
		off := store.User{ID: "off", Name: "Off", Created: Noon, Disabled: true}
		err := errors.Join(h.AddUser(ctx, want), h.AddUser(ctx, off))
		for _, u := range []store.User{want, off} {
			got, gerr := h.UserByName(ctx, u.Name)
			err = errors.Join(err, gerr, same("account", got, u))
		}
		for name, bad := range map[string]store.User{"no identifier": {Name: "Nobody"}, "no name": {ID: "nobody"}} {
			if h.AddUser(ctx, bad) == nil {
				return fmt.Errorf("an account with %s", name)
			}
		}
		return errors.Join(err, is("a session of who was added as disabled", h.StartSession(ctx, store.Session{Hash: store.HashOf("off"), UserID: "off", Expires: Noon.Add(time.Hour)}), store.ErrNotFound))
	}},
	{"DCR-05 a client that an operator wrote down is an operator's, whatever it says", func(ctx context.Context, h *House) error {
		want := h.dynamic()
		want.Source, want.Reason, want.State = store.SourceDCR, "because", store.StatePending
		err := h.RegisterClient(ctx, want, Noon)
		row, rerr := h.Client(ctx, want.ID)
		want.Source, want.Created, want.LastUsed = store.SourceRegistered, Noon, Noon
		return errors.Join(err, rerr, same("row", row, want))
	}},
	{"REV-06, POL-07: a client that is held, allowed, blocked: its grants follow, its row says why and the audit what it cost", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		b, berr := h.code(ctx)
		last, lerr := h.lastEvent(ctx)
		err = errors.Join(err, berr, lerr)
		for _, step := range []struct {
			state string
			grant error
			ended string
		}{
			{store.StatePending, store.ErrBlocked, ""}, {store.StateAllowed, nil, ""}, {store.StatePending, store.ErrBlocked, ""}, {store.StateBlocked, store.ErrEnded, "2"}, {store.StateAllowed, store.ErrEnded, ""},
		} {
			reason := "why " + step.state
			err = errors.Join(err, h.SetClientState(ctx, ClientID, step.state, reason, Noon))
			row, rerr := h.Client(ctx, ClientID)
			_, g1 := h.GrantActive(ctx, a.Grant.ID)
			_, g2 := h.GrantActive(ctx, b.Grant.ID)
			events, eerr := h.Events(ctx, store.EventQuery{After: last})
			err = errors.Join(err, rerr, eerr, is(step.state, g1, step.grant), is(step.state+", not redeemed", g2, step.grant), same("row", []string{row.State, row.Reason}, []string{step.state, reason}))
			if len(events) != 1 {
				return errors.Join(err, fmt.Errorf("%d events", len(events)))
			}
			e := events[0]
			err = errors.Join(err, same("event", []string{string(e.Type), e.Client, e.Code, e.Data["reason"], e.Data["grants_ended"]}, []string{string(audit.TypeClient), ClientID, step.state, reason, step.ended}))
			last = e.Seq
		}
		return errors.Join(err, is("nobody", h.SetClientState(ctx, "", store.StateBlocked, "", Noon), store.ErrNotFound))
	}},
	{"POL-07 events are chosen by their type, by their reference and by both", func(ctx context.Context, h *House) error {
		last, err := h.lastEvent(ctx)
		for _, e := range []audit.Event{{Type: audit.TypeFetch, Ref: "one"}, {Type: audit.TypeRefusal, Ref: "one"}, {Type: audit.TypeFetch, Ref: "two"}, {Type: audit.TypeRefusal}} {
			e.Time = Noon
			err = errors.Join(err, h.AppendEvents(ctx, e))
		}
		for _, row := range []struct {
			q    store.EventQuery
			want []int64
		}{
			{store.EventQuery{}, []int64{1, 2, 3, 4}}, {store.EventQuery{Limit: 3}, []int64{1, 2, 3}}, {store.EventQuery{Type: audit.TypeFetch}, []int64{1, 3}},
			{store.EventQuery{Ref: "one"}, []int64{1, 2}}, {store.EventQuery{Type: audit.TypeFetch, Ref: "one"}, []int64{1}}, {store.EventQuery{Type: audit.TypeCode, Ref: "one"}, nil},
		} {
			q := row.q
			q.After = last
			events, eerr := h.Events(ctx, q)
			var got []int64
			for _, e := range events {
				got = append(got, e.Seq-last)
			}
			err = errors.Join(err, eerr, same(fmt.Sprintf("%+v", row.q), got, row.want))
		}
		return err
	}},
	{"XCH-04, XCH-12: a grant without a page names itself and its client, and lives as long as what it gave", func(ctx context.Context, h *House) error {
		for name, spoil := range map[string]func(*store.Grant){"no identifier": func(g *store.Grant) { g.ID = "" }, "no client": func(g *store.Grant) { g.ClientID = "" }} {
			o := h.opening()
			spoil(&o.Grant)
			if _, err := h.OpenGrant(ctx, o, Noon); err == nil || errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("a grant with %s: %v", name, err) //nolint:errorlint // a report of a test, nothing to unwrap
			}
		}
		short, long := h.opening(), h.opening()
		long.Refresh = fresh(refreshOf(store.Answer{Grant: long.Grant}, 1))
		_, e1 := h.OpenGrant(ctx, short, Noon)
		_, e2 := h.OpenGrant(ctx, long, Noon)
		err := errors.Join(e1, e2)
		for _, row := range []struct {
			after       time.Duration
			short, long error
		}{
			{store.UnboundGrant, nil, nil}, {store.UnboundGrant + time.Hour, store.ErrEnded, nil}, {14 * 24 * time.Hour, store.ErrEnded, nil}, {15 * 24 * time.Hour, store.ErrEnded, store.ErrEnded},
		} {
			_, perr := h.Prune(ctx, Noon.Add(row.after+store.ReplayWindow))
			_, s := h.GrantActive(ctx, short.Grant.ID)
			_, l := h.GrantActive(ctx, long.Grant.ID)
			err = errors.Join(err, perr, is(fmt.Sprint("without a refresh token, after ", row.after), s, row.short), is(fmt.Sprint("with one, after ", row.after), l, row.long))
		}
		return err
	}},
	{"a page of clients is as long as was asked", func(ctx context.Context, h *House) error {
		var err error
		for i := range 5 {
			err = errors.Join(err, h.RegisterClient(ctx, store.Client{ID: fmt.Sprint("opaque-", i)}, Noon))
		}
		for _, n := range []int{1, 3, 6, 7} {
			page, perr := h.Clients(ctx, "", n)
			err = errors.Join(err, perr, same(fmt.Sprint("of ", n), len(page), min(n, 6)))
		}
		return err
	}},
}
