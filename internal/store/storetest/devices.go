package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
)

// deviceChecks are the clauses about devices that wait for a person.
var deviceChecks = []Check{
	{"DEV-02, DEV-07: the request of a device is found by either code as it was made", func(ctx context.Context, h *House) error {
		d, err := h.start(ctx)
		want := d
		want.State = store.DevicePending
		byDevice, e1 := h.FindDevice(ctx, d.Hash, Noon)
		byUser, e2 := h.FindUserCode(ctx, d.UserCode, Noon)
		_, crossed := h.FindDevice(ctx, d.UserCode, Noon)
		_, unknown := h.FindUserCode(ctx, d.Hash, Noon)
		_, polled := h.PollDevice(ctx, d.UserCode, Noon)
		return errors.Join(err, e1, e2, same("by device code", byDevice, want), same("by user code", byUser, want),
			is("one code for the other", crossed, store.ErrNotFound), is("the other for one", unknown, store.ErrNotFound), is("poll by user code", polled, store.ErrNotFound))
	}},
	{"DEV-03, attack DV-09: a user code is taken as long as its request is kept, and not by its device code", func(ctx context.Context, h *House) error {
		d, err := h.start(ctx)
		other := h.device()
		other.UserCode = d.UserCode
		again := h.device()
		again.Hash = d.Hash
		found, ferr := h.FindUserCode(ctx, d.UserCode, Noon)
		return errors.Join(err, ferr, is("the user code", h.StartDevice(ctx, other, plenty), store.ErrConflict),
			is("the device code", h.StartDevice(ctx, again, plenty), store.ErrConflict), same("whose it is", found.Hash, d.Hash))
	}},
	{"DEV-04, attack DV-02: a poll before its time makes the interval longer, for this and all later polls", slowDown},
	{"DEV-04, attack FA-12: clocks that are 90 s apart make no device slow down that keeps to its interval", clocksApart},
	{"DEV-04, attack DV-09: a device code is good until the moment it expires", func(ctx context.Context, h *House) error {
		pending, err1 := h.start(ctx)
		early, ea, err2 := h.approved(ctx)
		late, la, err3 := h.approved(ctx)
		end := pending.Expires
		_, find := h.FindDevice(ctx, pending.Hash, end)
		_, typed := h.FindUserCode(ctx, pending.UserCode, end)
		_, polled := h.PollDevice(ctx, pending.Hash, end)
		_, ready := h.PollDevice(ctx, late.Hash, end)
		yes := h.yes(pending)
		yes.Answer.NonceExpires = end.Add(time.Hour)
		no := h.no()
		no.NonceExpires = end.Add(time.Hour)
		_, last := h.RedeemDevice(ctx, ofDevice(early, ea), end.Add(-time.Microsecond))
		_, over := h.RedeemDevice(ctx, ofDevice(late, la), end)
		_, none := h.RedeemDevice(ctx, store.Redemption{Hash: store.HashOf("stranger")}, Noon)
		return errors.Join(err1, err2, err3, is("find", find, store.ErrExpired), is("find by user code", typed, store.ErrExpired),
			is("poll", polled, store.ErrExpired), is("poll after a yes", ready, store.ErrExpired),
			is("approve", h.ApproveDevice(ctx, yes, end), store.ErrExpired), is("deny", h.DenyDevice(ctx, pending.UserCode, no, end), store.ErrExpired),
			is("redeem before the end", last, nil), is("redeem at the end", over, store.ErrExpired), is("redeem an unknown code", none, store.ErrNotFound))
	}},
	{"DEV-06, DPOP-02: a yes makes a grant that redemption ties to the client's keys", func(ctx context.Context, h *House) error {
		d, a, err := h.approved(ctx)
		seen, perr := h.PollDevice(ctx, d.Hash, Noon)
		_, typed := h.FindUserCode(ctx, d.UserCode, Noon)
		want := a.Answer.Grant
		want.Created, want.LastUsed, want.Kind, want.SID = Noon, Noon, store.KindDevice, "sid of user-1"
		before, gerr := h.GrantActive(ctx, a.Answer.Grant.ID)
		err = errors.Join(err, perr, gerr, same("state", seen.State, store.DeviceApproved), same("its grant", seen.GrantID, want.ID),
			is("typed again", typed, store.ErrSpent), same("before", before, want))
		got, rerr := h.RedeemDevice(ctx, ofDevice(d, a), Noon.Add(time.Second))
		want.AuthMethod, want.KeyThumbprint, want.LastUsed = "private_key_jwt", "thumbprint", Noon.Add(time.Second)
		want.JKT, want.InstanceJKT, want.CertThumbprint = "jkt", "instance", "x5t"
		used, uerr := h.FindDevice(ctx, d.Hash, Noon)
		_, again := h.PollDevice(ctx, d.Hash, Noon.Add(time.Minute))
		_, fresh, ferr := h.FindRefresh(ctx, refreshOf(a.Answer, 1), Noon)
		return errors.Join(err, rerr, ferr, same("redeemed", got, want), is("found afterwards", uerr, store.ErrSpent), same("which grant", used.GrantID, want.ID),
			is("polled afterwards", again, store.ErrSpent), same("of the refresh token", fresh, want),
			h.RotateRefresh(ctx, rotation(a.Answer, 1), Noon.Add(time.Minute)))
	}},
	{"DEV-04 a no is told at the next poll and gives nothing", func(ctx context.Context, h *House) error {
		d, err := h.start(ctx)
		no := h.no()
		no.Events = []audit.Event{{Type: audit.TypeConsentDenied, Client: ClientID}}
		last, lerr := h.lastEvent(ctx)
		err = errors.Join(err, lerr, h.DenyDevice(ctx, d.UserCode, no, Noon), is("deny again", h.DenyDevice(ctx, d.UserCode, h.no(), Noon), store.ErrSpent),
			is("the page again", h.DenyDevice(ctx, d.UserCode, no, Noon), store.ErrSpent), is("a yes after a no", h.ApproveDevice(ctx, h.yes(d), Noon), store.ErrSpent),
			is("no such code", h.DenyDevice(ctx, store.HashOf("nobody"), h.no(), Noon), store.ErrNotFound))
		types, terr := h.eventTypes(ctx, last)
		seen, perr := h.PollDevice(ctx, d.Hash, Noon)
		_, redeemed := h.RedeemDevice(ctx, store.Redemption{Hash: d.Hash}, Noon)
		return errors.Join(err, terr, perr, same("state", seen.State, store.DeviceDenied), same("grant", seen.GrantID, ""),
			is("redeem", redeemed, store.ErrConflict), same("events", types, []audit.Type{audit.TypeConsentDenied}))
	}},
	{"DEV-06, TOK-23 where a device was and what it asked for beside scopes goes with the answer", func(ctx context.Context, h *House) error {
		yes, a, err := h.approved(ctx)
		no, err2 := h.start(ctx)
		err = errors.Join(err, err2, same("the fixture has an address", yes.IP != "" && yes.Details != "", true), h.DenyDevice(ctx, no.UserCode, h.no(), Noon))
		g, gerr := h.GrantActive(ctx, a.Answer.Grant.ID)
		err = errors.Join(err, gerr, same("the grant has what was agreed to", g.Details, a.Answer.Grant.Details))
		for name, d := range map[string]store.Device{"agreed": yes, "denied": no} {
			left, ferr := h.FindDevice(ctx, d.Hash, Noon)
			err = errors.Join(err, ferr, same(name, left.IP+left.Details, ""), same(name+": whose it is", left.ClientID, d.ClientID))
		}
		return err
	}},
	{"attack DV-09: nothing is redeemed before a yes", func(ctx context.Context, h *House) error {
		d, err := h.start(ctx)
		_, redeemed := h.RedeemDevice(ctx, store.Redemption{Hash: d.Hash}, Noon)
		found, ferr := h.FindDevice(ctx, d.Hash, Noon)
		return errors.Join(err, ferr, is("redeem", redeemed, store.ErrConflict), same("state", found.State, store.DevicePending))
	}},
	{"attack DV-10: no yes when the ground has gone while the page was open", deviceGroundGone},
	{"attack DV-10: what no longer stands is neither polled nor redeemed, in the same commit", deviceStanding},
	{"CONS-13, POL-07: a yes to a device admits a fetched client, remembers and records in one commit", func(ctx context.Context, h *House) error {
		d := h.device()
		d.ClientID = fetchedID
		err := h.StartDevice(ctx, d, plenty, audit.Event{Type: audit.TypeFetch, Client: fetchedID})
		_, none := h.Client(ctx, fetchedID)
		waiting, perr := h.PollDevice(ctx, d.Hash, Noon)
		last, lerr := h.lastEvent(ctx)
		a := h.yes(d)
		a.Answer = fetched(a.Answer, fetchedID)
		a.Answer.Remember, a.Answer.Events = true, []audit.Event{{Type: audit.TypeConsent, Grant: a.Answer.Grant.ID}}
		err = errors.Join(err, perr, lerr, is("a row before anybody agreed", none, store.ErrNotFound), same("waiting", waiting.State, store.DevicePending),
			h.ApproveDevice(ctx, a, Noon), is("again", h.ApproveDevice(ctx, a, Noon), store.ErrSpent))
		row, rerr := h.Client(ctx, fetchedID)
		c, cerr := h.Consent(ctx, User, fetchedID, Resource)
		g, gerr := h.GrantActive(ctx, a.Answer.Grant.ID)
		types, terr := h.eventTypes(ctx, last)
		return errors.Join(err, rerr, cerr, gerr, terr, same("source", row.Source, store.SourceCIMD), same("scopes", sorted(c.Scopes), []string{"read", "write"}),
			same("version", g.Version, 1), same("events", types, []audit.Type{audit.TypeConsent}))
	}},
}

// slowDown polls in time, too early and in time again.
func slowDown(ctx context.Context, h *House) error {
	d, err := h.start(ctx)
	if err != nil {
		return err
	}
	last := Noon
	steps := []struct {
		after    time.Duration // since the poll before
		want     error
		interval time.Duration // from then on
	}{
		{0, nil, 5 * time.Second},
		{5 * time.Second, nil, 5 * time.Second},
		{5*time.Second - store.PollSlack, nil, 5 * time.Second},
		{5*time.Second - store.PollSlack - time.Microsecond, store.ErrTooFast, 10 * time.Second},
		{5 * time.Second, store.ErrTooFast, 15 * time.Second},
		{15 * time.Second, nil, 15 * time.Second},
		{10 * time.Second, store.ErrTooFast, 20 * time.Second},
		{time.Minute, nil, 20 * time.Second},
	}
	for i, step := range steps {
		at := last.Add(step.after)
		last = at
		got, err := h.PollDevice(ctx, d.Hash, at)
		kept, ferr := h.FindDevice(ctx, d.Hash, at)
		if err := errors.Join(ferr, is("poll", err, step.want), same("interval", got.Interval, step.interval), same("kept", kept.Interval, step.interval),
			same("next", got.NextPoll, at.Add(step.interval-store.PollSlack)), same("state", got.State, store.DevicePending)); err != nil {
			return fmt.Errorf("poll %d: %w", i+1, err)
		}
	}
	return nil
}

// clocksApart polls at two replicas in turn, one of which has a clock that is
// ahead: a device that keeps to its interval is never told to slow down, and one
// that does not is told so by the clock that it asks.
func clocksApart(ctx context.Context, h *House) error {
	d, err := h.start(ctx)
	if err != nil {
		return err
	}
	const ahead = 90 * time.Second
	poll := func(after, ahead time.Duration, want error) {
		got, perr := h.PollDevice(ctx, d.Hash, Noon.Add(after+ahead))
		err = errors.Join(err, is(fmt.Sprint("poll after ", after, " by a clock that is ahead by ", ahead), perr, want))
		if want == nil {
			err = errors.Join(err, same("interval", got.Interval, 5*time.Second))
		}
	}
	for at := time.Duration(0); at < 100*time.Second; at += 10 * time.Second {
		poll(at, ahead, nil)
		poll(at+5*time.Second, 0, nil)
	}
	poll(96*time.Second, 0, store.ErrTooFast)
	return err
}

// deviceGroundGone spoils one thing per row between the page and its answer.
func deviceGroundGone(ctx context.Context, h *House) error {
	rows := []struct {
		name  string
		spoil func(a *store.DeviceAnswer) error
		want  error
	}{
		{"nothing", func(*store.DeviceAnswer) error { return nil }, nil},
		{"page too old", func(a *store.DeviceAnswer) error { a.Answer.NonceExpires = Noon; return nil }, store.ErrExpired},
		{"no such user code", func(a *store.DeviceAnswer) error { a.UserCode = store.HashOf("none"); return nil }, store.ErrNotFound},
		{"a code of another client", func(a *store.DeviceAnswer) error {
			a.Answer.Grant.ClientID = "other"
			return h.RegisterClient(ctx, store.Client{ID: "other"}, Noon)
		}, store.ErrNotFound},
		{"another's session", func(a *store.DeviceAnswer) error {
			a.Answer.Session = store.HashOf("session of user-2")
			return errors.Join(h.AddUser(ctx, store.User{ID: "user-2", Name: "Eve", Created: Noon}),
				h.StartSession(ctx, store.Session{Hash: a.Answer.Session, UserID: "user-2", Expires: Noon.Add(time.Hour)}))
		}, store.ErrNotFound},
		{"connection revoked", func(*store.DeviceAnswer) error {
			return h.RevokeUserClient(ctx, User, ClientID, Noon.Add(-time.Hour)) // by a clock that is behind
		}, store.ErrEnded},
		{"connection revoked before the page was shown", func(a *store.DeviceAnswer) error { return h.shown(ctx, &a.Answer) }, nil},
		{"client blocked and allowed", func(a *store.DeviceAnswer) error {
			return errors.Join(h.shown(ctx, &a.Answer), h.SetClientState(ctx, ClientID, store.StateBlocked, "", Noon), h.SetClientState(ctx, ClientID, store.StateAllowed, "", Noon))
		}, store.ErrEnded},
		{"all of the person ended", func(a *store.DeviceAnswer) error {
			return errors.Join(h.shown(ctx, &a.Answer), h.endAll(ctx))
		}, store.ErrEnded},
		{"client held", func(*store.DeviceAnswer) error { return h.SetClientState(ctx, ClientID, store.StatePending, "", Noon) }, store.ErrBlocked},
		{"client blocked", func(*store.DeviceAnswer) error { return h.SetClientState(ctx, ClientID, store.StateBlocked, "", Noon) }, store.ErrBlocked},
		{"user signed out", func(*store.DeviceAnswer) error { return h.EndSession(ctx, session) }, store.ErrNotFound},
		{"user disabled", func(*store.DeviceAnswer) error { return h.DisableUser(ctx, User, Noon) }, store.ErrNotFound},
	}
	for _, row := range rows {
		d, err := h.start(ctx)
		a := h.yes(d)
		if err := errors.Join(err, row.spoil(&a)); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		err = is(row.name, h.ApproveDevice(ctx, a, Noon), row.want)
		found, ferr := h.FindDevice(ctx, d.Hash, Noon)
		_, grant := h.GrantActive(ctx, a.Answer.Grant.ID)
		state := store.DeviceApproved
		if row.want != nil {
			state = store.DevicePending
			err = errors.Join(err, is(row.name+": grant", grant, store.ErrNotFound))
		}
		if err := errors.Join(err, ferr, same(row.name+": state", found.State, state)); err != nil {
			return err
		}
	}
	return nil
}

// deviceStanding spoils one thing per row between the yes and the next poll.
func deviceStanding(ctx context.Context, h *House) error {
	before := Noon.Add(-time.Second)
	rows := []struct {
		name          string
		spoil         func(a store.DeviceAnswer) error
		want, waiting error // with a yes, and without an answer
	}{
		{"nothing", func(store.DeviceAnswer) error { return nil }, nil, nil},
		{"grant revoked", func(a store.DeviceAnswer) error { return h.RevokeGrant(ctx, a.Answer.Grant.ID, "revoked", before) }, store.ErrEnded, nil},
		{"connection revoked", func(store.DeviceAnswer) error { return h.RevokeUserClient(ctx, User, ClientID, before) }, store.ErrEnded, nil},
		{"client held", func(store.DeviceAnswer) error {
			return h.SetClientState(ctx, ClientID, store.StatePending, "review", before)
		}, store.ErrBlocked, store.ErrBlocked},
		{"client blocked", func(store.DeviceAnswer) error {
			return h.SetClientState(ctx, ClientID, store.StateBlocked, "phishing", before)
		}, store.ErrEnded, store.ErrBlocked},
		{"new password", func(store.DeviceAnswer) error {
			return errors.Join(h.SetPassword(ctx, User, "$argon2id$new", before), h.StartSession(ctx, store.Session{Hash: session2, UserID: User, Expires: Noon.Add(time.Hour)}))
		}, store.ErrEnded, nil},
		{"user disabled", func(store.DeviceAnswer) error { return h.DisableUser(ctx, User, before) }, store.ErrEnded, nil},
	}
	on := session
	for _, row := range rows {
		if err := h.SetClientState(ctx, ClientID, store.StateAllowed, "", Noon); err != nil {
			return err
		}
		waiting, werr := h.start(ctx)
		d, err := h.start(ctx)
		a := h.yes(d)
		a.Answer.Session = on
		if err := errors.Join(werr, err, h.shown(ctx, &a.Answer), h.ApproveDevice(ctx, a, Noon), row.spoil(a)); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		if row.name == "new password" {
			on = session2
		}
		_, still := h.PollDevice(ctx, waiting.Hash, Noon)
		seen, polled := h.PollDevice(ctx, d.Hash, Noon)
		_, redeemed := h.RedeemDevice(ctx, ofDevice(d, a), Noon)
		if err := errors.Join(is("poll", polled, row.want), is("redeem", redeemed, row.want), is("poll without an answer", still, row.waiting),
			same("state", seen.State, store.DeviceApproved)); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	return nil
}

var session2 = store.HashOf("second session of user-1")
