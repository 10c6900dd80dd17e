package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// detailChecks are the clauses about single columns and conditions: each was found
// by a change of the store that all other clauses let through.
var detailChecks = []Check{
	{"TOK-12 once its successor was used, a spent refresh token leads to no sealed answer", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		err = errors.Join(err, h.RotateRefresh(ctx, rotation(a, 1), Noon), h.RotateRefresh(ctx, rotation(a, 2), Noon))
		old, _, ferr := h.FindRefresh(ctx, refreshOf(a, 1), Noon)
		return errors.Join(err, ferr, same("used", []bool{old.Used, old.SuccessorUsed}, []bool{true, true}), same("sealed", len(old.Grace), 0), same("successor", old.Successor, store.Hash{}))
	}},
	{"TOK-14 the end of a family moves nearer and never away, and a token without an idle time lives until then", familyEnd},
	{"ATT-08 a rotation ties a grant to the instance alone", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		r := rotation(a, 1)
		r.InstanceJKT = "instance"
		err = errors.Join(err, h.RotateRefresh(ctx, r, Noon))
		g, gerr := h.GrantActive(ctx, a.Grant.ID)
		return errors.Join(err, gerr, same("tied", []string{g.JKT, g.InstanceJKT}, []string{"", "instance"}))
	}},
	{"CAUTH-06, attack FA-11: an identifier that has expired when it is spent is remembered as long as one that expires now", func(ctx context.Context, h *House) error {
		spend := func(now time.Time) error { return h.SpendID(ctx, "x", store.HashOf("jti"), Noon.Add(-time.Hour), now) }
		err := spend(Noon)
		_, perr := h.Prune(ctx, Noon.Add(store.ClockMargin))
		return errors.Join(err, perr, is("again", spend(Noon.Add(store.ClockMargin)), store.ErrSpent))
	}},
	{"REV-06, POL-07: a token that is denied twice is recorded once", func(ctx context.Context, h *House) error {
		last, err := h.lastEvent(ctx)
		for range 2 {
			err = errors.Join(err, h.DenyToken(ctx, "jti", Noon.Add(time.Minute), audit.Event{Type: audit.TypeRevocation, Client: ClientID}))
		}
		types, terr := h.eventTypes(ctx, last)
		return errors.Join(err, terr, same("events", types, []audit.Type{audit.TypeRevocation}))
	}},
	{"attack JK-14: signing keys come back as they were added, the oldest first", func(ctx context.Context, h *House) error {
		var want []store.SigningKey
		var err error
		newest := ""
		for i, kid := range []string{"c", "a", "b"} {
			at := Noon.Add(time.Duration(i) * time.Hour)
			k := store.SigningKey{KID: kid, Alg: "ES256", Wrapped: []byte("wrapped " + kid), Created: at, Publish: at.Add(time.Minute), Sign: at.Add(2 * time.Minute), Retire: at.Add(3 * time.Minute)}
			err = errors.Join(err, h.AddSigningKey(ctx, k, newest))
			want, newest = append(want, k), kid
		}
		keys, kerr := h.SigningKeys(ctx)
		return errors.Join(err, kerr, same("keys", keys, want))
	}},
	{"DEV-03 a guess counts against something and for some time, and a window that has ended begins anew", guessWindow},
	{"OIDC-10 a farewell names who says it of whom", func(ctx context.Context, h *House) error {
		for name, spoil := range map[string]func(*store.Farewell){"no issuer": func(f *store.Farewell) { f.Issuer = "" }, "no subject": func(f *store.Farewell) { f.Subject = "" }} {
			f := goodbye("ada", name)
			spoil(&f)
			if _, err := h.SignOutIdentity(ctx, f, Noon); err == nil {
				return fmt.Errorf("a farewell with %s", name)
			}
		}
		return nil
	}},
	{"OIDC-10 a farewell ends what was given in the sessions that it ends, and nothing else", farewellScope},
	{"OIDC-09 the clients of a session are told of by the oldest grant of each, oldest first", func(ctx context.Context, h *House) error {
		err := h.RegisterClient(ctx, store.Client{ID: "other"}, Noon)
		oldest := map[string]string{}
		for i := range 8 {
			a := h.answer()
			a.Grant.ClientID = []string{ClientID, "other"}[i%2]
			err = errors.Join(err, h.AnswerConsent(ctx, a, Noon))
			if id := oldest[a.Grant.ClientID]; id == "" || a.Grant.ID < id {
				oldest[a.Grant.ClientID] = a.Grant.ID
			}
		}
		over := h.answer() // all that this client has there has ended
		over.Grant.ClientID = "over"
		err = errors.Join(err, h.RegisterClient(ctx, store.Client{ID: "over"}, Noon), h.AnswerConsent(ctx, over, Noon), h.RevokeGrant(ctx, over.Grant.ID, "revoked", Noon))
		var got []string
		grants, gerr := h.SessionGrants(ctx, "sid of user-1")
		for _, g := range grants {
			got = append(got, g.ID)
		}
		return errors.Join(err, gerr, same("grants", got, slices.Sorted(maps.Values(oldest))))
	}},
	{"XCH-10, OIDC-05: the sole identity of an account is no matter of who else comes from there", func(ctx context.Context, h *House) error {
		mine := store.Identity{Issuer: "https://idp.example", Tenant: "t1", Subject: "john", UserID: User, Sole: true}
		hers := mine
		hers.Subject, hers.UserID = "eve", "user-2"
		nameless := mine
		nameless.Subject, nameless.UserID = "nobody", "user-3"
		err := errors.Join(h.AddUser(ctx, store.User{ID: "user-2", Name: "Eve", Created: Noon}), h.LinkIdentity(ctx, hers, nil), h.LinkIdentity(ctx, mine, nil))
		if h.LinkIdentity(ctx, nameless, &store.User{ID: "user-3", Created: Noon}) == nil {
			err = errors.Join(err, errors.New("an account without a name"))
		}
		return err
	}},
	{"XCH-10 two addresses that differ in one character are two", func(ctx context.Context, h *House) error {
		var err error
		for i, address := range []string{"joe_b@example.test", "joe?b@example.test", "Zoe@example.test", "zoe.b@example.test"} {
			err = errors.Join(err, h.AddUser(ctx, store.User{ID: fmt.Sprint("joe ", i), Name: fmt.Sprint("Joe ", i), Email: address, Created: Noon}))
		}
		for i, address := range []string{"JOE_B@example.test", "joe?b@EXAMPLE.test", "zoe@example.test", "ZOE.b@example.test"} {
			u, uerr := h.UserByEmail(ctx, address)
			err = errors.Join(err, uerr, same(address, u.ID, fmt.Sprint("joe ", i)))
		}
		for _, address := range []string{"joe_b`example.test", "zoe@examplextest", "joe b@example.test"} {
			_, none := h.UserByEmail(ctx, address)
			err = errors.Join(err, is(address, none, store.ErrNotFound))
		}
		return err
	}},
	{"DEV-02, PAR-01: what waits for a person says whose it is and for how long", func(ctx context.Context, h *House) error {
		for name, spoil := range map[string]func(*store.Device){"no client": func(d *store.Device) { d.ClientID = "" }, "no time to live": func(d *store.Device) { d.Expires = d.Created },
			"no interval": func(d *store.Device) { d.Interval = 0 }, "an interval backwards": func(d *store.Device) { d.Interval = -time.Second }} {
			d := h.device()
			spoil(&d)
			if h.StartDevice(ctx, d, plenty) == nil {
				return fmt.Errorf("a device with %s", name)
			}
		}
		for name, p := range map[string]store.Pushed{"no client": {Created: Noon, Expires: Noon.Add(time.Minute)}, "no time to live": {ClientID: ClientID, Created: Noon, Expires: Noon}} {
			if h.PushRequest(ctx, p, plenty) == nil {
				return fmt.Errorf("a pushed request with %s", name)
			}
		}
		return nil
	}},
	{"DEV-04 a device that was told when to ask first, and asks at once, is too fast", func(ctx context.Context, h *House) error {
		d := h.device()
		d.NextPoll = Noon.Add(d.Interval)
		err := h.StartDevice(ctx, d, plenty)
		_, early := h.PollDevice(ctx, d.Hash, Noon)
		return errors.Join(err, is("at once", early, store.ErrTooFast))
	}},
	{"DEV-04 a no is still told when the request would have expired", func(ctx context.Context, h *House) error {
		d, err := h.start(ctx)
		err = errors.Join(err, h.DenyDevice(ctx, d.UserCode, h.no(), Noon))
		found, ferr := h.FindDevice(ctx, d.Hash, d.Expires)
		polled, perr := h.PollDevice(ctx, d.Hash, d.Expires)
		return errors.Join(err, ferr, perr, same("states", []string{found.State, polled.State}, []string{store.DeviceDenied, store.DeviceDenied}))
	}},
	{"DCR-01, attack DS-13: a client that registered itself makes room the moment it expires", func(ctx context.Context, h *House) error {
		c := h.dynamic()
		next := h.dynamic()
		next.Expires = c.Expires.Add(time.Hour)
		return errors.Join(h.RegisterDynamic(ctx, c, 1, Noon), is("before", h.RegisterDynamic(ctx, next, 1, c.Expires.Add(-time.Microsecond)), store.ErrBusy),
			h.RegisterDynamic(ctx, next, 1, c.Expires))
	}},
	{"REV-06, CONS-13: what a person ended is told about for a season, what a client had for itself for a week", history},
}

// familyEnd rotates with a nearer and with a later end.
func familyEnd(ctx context.Context, h *House) error {
	day := 24 * time.Hour
	ends := func(a store.Answer, generation int) ([]time.Time, error) {
		r, _, err := h.FindRefresh(ctx, refreshOf(a, generation), Noon)
		return []time.Time{r.Expires, r.Absolute}, err
	}
	a, err := h.family(ctx)
	for i, row := range []struct{ expires, absolute, wantExpires, wantAbsolute time.Duration }{
		{14 * day, 60 * day, 14 * day, 60 * day},
		{14 * day, 90 * day, 14 * day, 60 * day},
		{70 * day, 90 * day, 60 * day, 60 * day},
		{70 * day, 50 * day, 50 * day, 50 * day},
	} {
		r := rotation(a, i+1)
		r.New.Expires, r.New.Absolute = Noon.Add(row.expires), Noon.Add(row.absolute)
		err = errors.Join(err, h.RotateRefresh(ctx, r, Noon))
		got, ferr := ends(a, i+2)
		err = errors.Join(err, ferr, same(fmt.Sprint("after rotation ", i+1), got, []time.Time{Noon.Add(row.wantExpires), Noon.Add(row.wantAbsolute)}))
	}
	var lasting []string
	for name, expires := range map[string]time.Time{"no idle time": {}, "an idle time past the end": Noon.Add(91 * day)} {
		b, berr := h.code(ctx)
		r := redemption(b)
		r.Refresh.Expires = expires
		_, rerr := h.RedeemCode(ctx, r, Noon)
		got, ferr := ends(b, 1)
		err = errors.Join(err, berr, rerr, ferr, same(name, got, []time.Time{r.Refresh.Absolute, r.Refresh.Absolute}))
		lasting = append(lasting, b.Grant.ID)
	}
	_, perr := h.Prune(ctx, Noon.Add(90*day))
	for _, id := range lasting {
		_, stands := h.GrantActive(ctx, id)
		err = errors.Join(err, is("a grant as old as its family", stands, nil))
	}
	return errors.Join(err, perr)
}

// guessWindow counts to the end of a window, and from there.
func guessWindow(ctx context.Context, h *House) error {
	d, err := h.start(ctx)
	john := []store.Allowance{{Key: store.HashOf("john"), Most: 2}}
	for name, g := range map[string]store.Guess{"against nothing": {Window: time.Minute}, "in no time": {Against: john}, "backwards": {Against: john, Window: -time.Minute}} {
		g.UserCode = d.UserCode // the right one
		if _, _, none := h.GuessUserCode(ctx, g, Noon); none == nil {
			err = errors.Join(err, fmt.Errorf("a guess that counts %s", name))
		}
	}
	wrong := func(now time.Time, want error, wantWait time.Duration) {
		_, wait, got := h.GuessUserCode(ctx, store.Guess{UserCode: store.HashOf("nobody"), Against: john, Window: time.Minute}, now)
		err = errors.Join(err, is(fmt.Sprint("a wrong code after ", now.Sub(Noon)), got, want), same("wait", wait, wantWait))
	}
	wrong(Noon, store.ErrNotFound, 0)
	end := Noon.Add(time.Minute)
	wrong(end, store.ErrNotFound, 0) // the window was over: the first of the next
	wrong(end.Add(30*time.Second), store.ErrNotFound, 0)
	wrong(end.Add(30*time.Second), store.ErrTooFast, 30*time.Second)
	end = end.Add(2 * time.Minute)
	wrong(end, store.ErrNotFound, 0)
	// A replica whose clock is late by all that is allowed counts in the same window.
	late := end.Add(-store.ClockMargin)
	wrong(late, store.ErrNotFound, 0)
	wrong(late, store.ErrTooFast, time.Minute+store.ClockMargin)
	wrong(end, store.ErrTooFast, time.Minute)
	return err
}

// farewellScope says farewell to somebody who has had sessions before, beside
// others who have sessions without a name.
func farewellScope(ctx context.Context, h *House) error {
	in := func(name, user string, expires time.Time) (store.Answer, error) {
		hash := store.HashOf(name)
		err := h.StartSession(ctx, store.Session{Hash: hash, UserID: user, SID: name, Expires: Noon.Add(time.Hour)})
		a := h.answer()
		a.Session, a.Grant.UserID = hash, user
		err = errors.Join(err, h.AnswerConsent(ctx, a, Noon))
		if expires.Equal(Noon) {
			err = errors.Join(err, h.EndSession(ctx, hash))
		}
		return a, err
	}
	here, e1 := h.code(ctx)
	signedOut, e2 := in("signed out before", User, Noon)
	idle, e3 := in("idle", User, Noon.Add(time.Hour))
	err := errors.Join(e1, e2, e3, h.known(ctx))
	revoked, e4 := h.code(ctx)
	err = errors.Join(err, e4, h.RevokeGrant(ctx, revoked.Grant.ID, "revoked before", Noon))
	alone := h.opening() // in no session at all
	_, e5 := h.OpenGrant(ctx, alone, Noon)
	err = errors.Join(err, e5)

	now := Noon.Add(time.Hour) // the idle session ends in this moment
	f := goodbye("ada", "bye")
	f.Spend.Expires = now.Add(time.Hour)
	out, oerr := h.SignOutIdentity(ctx, f, now)
	_, ended := h.GrantActive(ctx, here.Grant.ID)
	was, _ := h.GrantActive(ctx, revoked.Grant.ID)
	err = errors.Join(err, oerr, same("sessions", out.SIDs, []string{"sid of user-1"}), same("told of", ids(out.Grants), []string{here.Grant.ID}), is("what was given in it", ended, store.ErrEnded),
		same("what was revoked before", []any{was.EndReason, was.Ended}, []any{"revoked before", Noon}))
	for name, id := range map[string]string{"in a session that was ended": signedOut.Grant.ID, "in one that has expired": idle.Grant.ID, "in none": alone.Grant.ID} {
		_, stands := h.GrantActive(ctx, id)
		err = errors.Join(err, is("what was given "+name, stands, nil))
	}
	return err
}

// history looks at what has ended as it grows old.
func history(ctx context.Context, h *House) error {
	day := 24 * time.Hour
	a := h.answer()
	a.Remember = true
	err := errors.Join(h.AnswerConsent(ctx, a, Noon), h.RevokeUserClient(ctx, User, ClientID, Noon))
	own := h.opening()
	own.Grant.UserID, own.Grant.Kind, own.Spend, own.Grant.Scopes = "", store.KindClient, nil, oauth.Scopes{"read"}
	_, oerr := h.OpenGrant(ctx, own, Noon)
	err = errors.Join(err, oerr, h.RevokeGrant(ctx, own.Grant.ID, "revoked", Noon))
	for _, row := range []struct {
		after        time.Duration
		person, self error
	}{
		{store.AloneHistory, store.ErrEnded, store.ErrEnded},
		{store.AloneHistory + day, store.ErrEnded, store.ErrNotFound},
		{store.GrantHistory, store.ErrEnded, store.ErrNotFound},
		{store.GrantHistory + day, store.ErrNotFound, store.ErrNotFound},
	} {
		_, perr := h.Prune(ctx, Noon.Add(row.after))
		_, person := h.GrantActive(ctx, a.Grant.ID)
		_, self := h.GrantActive(ctx, own.Grant.ID)
		err = errors.Join(err, perr, is(fmt.Sprint("a person's, after ", row.after), person, row.person), is(fmt.Sprint("a client's own, after ", row.after), self, row.self))
	}
	return err
}
