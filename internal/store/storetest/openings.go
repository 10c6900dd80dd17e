package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
)

// protocolChecks are the clauses about pushed requests, grants without a page,
// identities and sessions.
var protocolChecks = []Check{
	{"PAR-05, PAR-06: a pushed request comes back as it was, until it expires", func(ctx context.Context, h *House) error {
		p, err := h.push(ctx)
		got, last := h.FindPushed(ctx, p.Hash, p.Expires.Add(-time.Microsecond))
		old, over := h.FindPushed(ctx, p.Hash, p.Expires)
		_, none := h.FindPushed(ctx, store.HashOf("stranger"), Noon)
		return errors.Join(err, last, same("found", got, p), is("at the end", over, store.ErrExpired), same("whose it was", old.ClientID, p.ClientID), is("unknown", none, store.ErrNotFound))
	}},
	{"PAR-05 a pushed request can be answered by who has the page open, once and for its own client", func(ctx context.Context, h *House) error {
		p, err := h.push(ctx)
		later := p.Expires.Add(time.Minute)
		other := h.answer()
		other.Pushed, other.Grant.ClientID = &p.Hash, "other"
		gone := store.HashOf("gone")
		unknown := h.answer()
		unknown.Pushed = &gone
		err = errors.Join(err, h.RegisterClient(ctx, store.Client{ID: "other"}, Noon), is("another client", h.AnswerConsent(ctx, other, later), store.ErrExpired),
			is("one that is gone", h.AnswerConsent(ctx, unknown, later), store.ErrExpired), is("no to one that is gone", h.DenyPushed(ctx, gone, h.no(), later), store.ErrExpired))
		a := h.answer()
		a.Pushed = &p.Hash
		_, perr := h.Prune(ctx, later)
		err = errors.Join(err, perr, h.AnswerConsent(ctx, a, later))
		spent, ferr := h.FindPushed(ctx, p.Hash, Noon)
		b := h.answer()
		b.Pushed = &p.Hash
		err = errors.Join(err, is("found", ferr, store.ErrSpent), same("spent", spent.Spent, true), is("again", h.AnswerConsent(ctx, b, later), store.ErrSpent))
		b.Pushed = nil // the page of what failed can be answered
		return errors.Join(err, h.AnswerConsent(ctx, b, later))
	}},
	{"PAR-05 a no spends the pushed request and its page", func(ctx context.Context, h *House) error {
		p, err := h.push(ctx)
		q, qerr := h.push(ctx)
		no := h.no()
		no.Events = []audit.Event{{Type: audit.TypeConsentDenied, Client: ClientID}}
		last, lerr := h.lastEvent(ctx)
		err = errors.Join(err, qerr, lerr, h.DenyPushed(ctx, p.Hash, no, Noon), is("the page again", h.DenyPushed(ctx, q.Hash, no, Noon), store.ErrSpent),
			is("the request again", h.DenyPushed(ctx, p.Hash, h.no(), Noon), store.ErrSpent), is("too late", h.DenyPushed(ctx, q.Hash, h.no(), Noon.Add(time.Hour)), store.ErrExpired))
		types, terr := h.eventTypes(ctx, last)
		_, alive := h.FindPushed(ctx, q.Hash, Noon)
		return errors.Join(err, terr, alive, same("events", types, []audit.Type{audit.TypeConsentDenied}))
	}},
	{"PAR-05, TOK-23 what a pushed request says, login_hint and all, goes with its answer or soon after its end", func(ctx context.Context, h *House) error {
		yes, e1 := h.push(ctx)
		no, e2 := h.push(ctx)
		never, e3 := h.push(ctx)
		a := h.answer()
		a.Pushed = &yes.Hash
		err := errors.Join(e1, e2, e3, h.AnswerConsent(ctx, a, Noon), h.DenyPushed(ctx, no.Hash, h.no(), Noon))
		for name, p := range map[string]store.Pushed{"agreed": yes, "denied": no} {
			left, ferr := h.FindPushed(ctx, p.Hash, Noon)
			err = errors.Join(err, is(name, ferr, store.ErrSpent), same(name+": what is left", len(left.Request), 0), same(name+": whose it was", left.ClientID, p.ClientID))
		}
		_, perr := h.Prune(ctx, never.Expires.Add(store.PushedHistory))
		_, found := h.FindPushed(ctx, never.Hash, Noon)
		_, perr2 := h.Prune(ctx, never.Expires.Add(store.PushedHistory+time.Microsecond))
		_, gone := h.FindPushed(ctx, never.Hash, Noon)
		return errors.Join(err, perr, perr2, is("one that nobody answered", found, nil), is("and later", gone, store.ErrNotFound))
	}},
	{"PAR-11, attack DS-13: what was answered or has expired makes room for others", func(ctx context.Context, h *House) error {
		const most = 3
		var err error
		var requests []store.Pushed
		var devices []store.Device
		for i := range most {
			p := store.Pushed{Hash: store.HashOf(fmt.Sprint("p", i)), ClientID: ClientID, Created: Noon, Expires: Noon.Add(time.Duration(i+1) * time.Minute)}
			d := h.device()
			d.Expires = p.Expires
			requests, devices = append(requests, p), append(devices, d)
			err = errors.Join(err, h.PushRequest(ctx, p, most), h.StartDevice(ctx, d, most))
		}
		more := func(name string, now time.Time, want error) error {
			h.n++
			p := store.Pushed{Hash: store.HashOf(fmt.Sprint("more ", h.n)), ClientID: ClientID, Created: now, Expires: now.Add(time.Hour)}
			d := h.device()
			d.Created, d.Expires = now, now.Add(time.Hour)
			return errors.Join(is(name+": push", h.PushRequest(ctx, p, most), want), is(name+": device", h.StartDevice(ctx, d, most), want))
		}
		return errors.Join(err, more("full", Noon, store.ErrBusy), more("when one expires", Noon.Add(time.Minute), nil), more("full again", Noon.Add(time.Minute), store.ErrBusy),
			h.DenyPushed(ctx, requests[1].Hash, h.no(), Noon), h.DenyDevice(ctx, devices[1].UserCode, h.no(), Noon), more("when one is answered", Noon.Add(time.Minute), nil),
			more("and full", Noon.Add(time.Minute), store.ErrBusy))
	}},
	{"DPOP-02, ATT-08: a rotation ties a grant that began without to the keys that are shown, once", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		var got []string
		for i, keys := range [][2]string{{"", ""}, {"jkt", ""}, {"other", "instance"}, {"other", "other"}, {"", ""}} {
			r := rotation(a, i+1)
			r.JKT, r.InstanceJKT = keys[0], keys[1]
			_, g, ferr := h.FindRefresh(ctx, refreshOf(a, i+1), Noon)
			err = errors.Join(err, ferr, h.RotateRefresh(ctx, r, Noon))
			got = append(got, g.JKT+" "+g.InstanceJKT)
		}
		old, _, oerr := h.FindRefresh(ctx, refreshOf(a, 1), Noon)
		err = errors.Join(err, oerr, same("since when", []int{old.KeySince, old.InstanceSince}, []int{3, 4}))
		g, gerr := h.GrantActive(ctx, a.Grant.ID)
		return errors.Join(err, gerr, same("before each", got, []string{" ", " ", "jkt ", "jkt instance", "jkt instance"}), same("in the end", g.JKT+" "+g.InstanceJKT, "jkt instance"))
	}},
	{"DPOP-02, ATT-08: redemption writes into the grant what its tokens are bound to", func(ctx context.Context, h *House) error {
		a := h.answer()
		a.Code.JKT = "demanded"
		a.Grant.Details, a.Grant.Actor = `[{"type":"t"}]`, `{"sub":"agent"}`
		a.Grant.JKT, a.Grant.AuthMethod = "not yet", "not yet"
		err := h.AnswerConsent(ctx, a, Noon)
		c, ferr := h.FindCode(ctx, a.Code.Hash, Noon)
		err = errors.Join(err, ferr, same("demanded", c.JKT, "demanded"), same("bound before", c.Grant.JKT+c.Grant.AuthMethod, ""))
		r := redemption(a)
		r.JKT, r.InstanceJKT, r.CertThumbprint = "jkt", "instance", "x5t"
		g, rerr := h.RedeemCode(ctx, r, Noon)
		_, refreshed, ferr2 := h.FindRefresh(ctx, refreshOf(a, 1), Noon)
		return errors.Join(err, rerr, ferr2, same("bound", []string{g.JKT, g.InstanceJKT, g.CertThumbprint}, []string{"jkt", "instance", "x5t"}),
			same("kept", []string{g.Details, g.Actor, g.Kind, g.SID}, []string{`[{"type":"t"}]`, `{"sub":"agent"}`, store.KindCode, "sid of user-1"}), same("of the refresh token", refreshed, g))
	}},
	{"XCH-04, XCH-12: a grant without a page is written as it was asked for", func(ctx context.Context, h *House) error {
		o := h.opening()
		o.Events = []audit.Event{{Type: audit.TypeToken, Grant: o.Grant.ID}}
		last, lerr := h.lastEvent(ctx)
		g, err := h.OpenGrant(ctx, o, Noon)
		want := o.Grant
		want.Created, want.LastUsed = Noon, Noon
		_, again := h.OpenGrant(ctx, o, Noon)
		types, terr := h.eventTypes(ctx, last)
		active, aerr := h.GrantActive(ctx, o.Grant.ID)
		own := h.opening()
		own.Grant.UserID, own.Grant.Kind, own.Spend = "", store.KindClient, nil
		alone, oerr := h.OpenGrant(ctx, own, Noon)
		err = errors.Join(lerr, err, terr, aerr, oerr, same("opened", g, want), same("kept", active, want), is("again", again, store.ErrSpent),
			same("events", types, []audit.Type{audit.TypeToken}), same("of nobody", alone.UserID, ""))
		with := h.opening()
		first := refreshOf(store.Answer{Grant: with.Grant}, 1)
		with.Refresh = fresh(first)
		_, werr := h.OpenGrant(ctx, with, Noon)
		_, refreshed, rerr := h.FindRefresh(ctx, first, Noon)
		err = errors.Join(err, werr, rerr, same("bound", refreshed.JKT, "jkt"))
		for _, kind := range []string{"", store.KindCode, store.KindDevice} { // these need a page
			bad := h.opening()
			bad.Grant.Kind = kind
			if _, err := h.OpenGrant(ctx, bad, Noon); err == nil {
				return fmt.Errorf("a grant of the kind %q without a page", kind)
			}
		}
		return err
	}},
	{"REV-06, attack DV-10: no grant without a page for who does not stand", openingGroundGone},
	{"XCH-10 an identity is its issuer, its tenant and its subject, byte for byte", identities},
	{"XCH-10 an address means an account only when exactly one has it", byEmail},
	{"OIDC-09 a grant of each client in a session is found by the name that clients know", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		b, berr := h.family(ctx)
		d, da, derr := h.approved(ctx)
		_, rerr := h.RedeemDevice(ctx, ofDevice(d, da), Noon)
		other := h.answer()
		other.Session = session2
		err = errors.Join(err, berr, derr, rerr, h.StartSession(ctx, store.Session{Hash: session2, UserID: User, Created: Noon, Expires: Noon.Add(time.Hour)}), h.AnswerConsent(ctx, other, Noon),
			h.RevokeGrant(ctx, b.Grant.ID, "revoked", Noon))
		named, _, serr := h.FindSession(ctx, session2, Noon)
		of, gerr := h.SessionGrants(ctx, "sid of user-1")
		of2, gerr2 := h.SessionGrants(ctx, named.SID)
		none, nerr := h.SessionGrants(ctx, "")
		want := []string{a.Grant.ID, da.Answer.Grant.ID}
		slices.Sort(want)
		if named.SID == "" {
			return errors.New("a session without a name")
		}
		return errors.Join(err, serr, gerr, gerr2, nerr, same("of the first", ids(of), want[:1]), same("of the second", ids(of2), []string{other.Grant.ID}), same("of none", len(none), 0))
	}},
	{"OIDC-10 all sessions of an account end at once, and their names are told once", func(ctx context.Context, h *House) error {
		err := errors.Join(h.StartSession(ctx, store.Session{Hash: session2, UserID: User, SID: "second", Expires: Noon.Add(time.Hour)}),
			h.StartSession(ctx, store.Session{Hash: store.HashOf("old"), UserID: User, SID: "old", Expires: Noon}),
			h.AddUser(ctx, store.User{ID: "user-2", Name: "Eve", Created: Noon}),
			h.StartSession(ctx, store.Session{Hash: store.HashOf("hers"), UserID: "user-2", SID: "hers", Expires: Noon.Add(time.Hour)}))
		last, lerr := h.lastEvent(ctx)
		sids, eerr := h.EndSessionsOf(ctx, User, Noon, audit.Event{Type: audit.TypeLogout, User: User})
		slices.Sort(sids)
		again, aerr := h.EndSessionsOf(ctx, User, Noon)
		types, terr := h.eventTypes(ctx, last)
		_, _, gone := h.FindSession(ctx, session2, Noon)
		_, _, hers := h.FindSession(ctx, store.HashOf("hers"), Noon)
		return errors.Join(err, lerr, eerr, aerr, terr, same("names", sids, []string{"second", "sid of user-1"}), same("again", len(again), 0),
			is("a session", gone, store.ErrNotFound), hers, same("events", types, []audit.Type{audit.TypeLogout}))
	}},
	{"attack DS-13: pushed requests, devices and clients that came to nothing are swept away", func(ctx context.Context, h *House) error {
		p, err1 := h.push(ctx)
		d, err2 := h.start(ctx)
		used, a, err3 := h.approved(ctx)
		_, err4 := h.RedeemDevice(ctx, ofDevice(used, a), Noon)
		c := h.dynamic()
		c.Expires = Noon.Add(time.Minute)
		own := h.opening()
		own.Grant.UserID, own.Grant.Kind, own.Spend = "", store.KindClient, nil
		_, err5 := h.OpenGrant(ctx, own, Noon)
		err := errors.Join(err1, err2, err3, err4, err5, h.RegisterDynamic(ctx, c, plenty, Noon))
		day := 24 * time.Hour
		_, perr := h.Prune(ctx, p.Expires.Add(time.Hour)) // who is slow still has the page open
		_, e1 := h.FindPushed(ctx, p.Hash, Noon)
		_, perr2 := h.Prune(ctx, Noon.Add(20*time.Hour)) // a replay is still told apart
		_, e2 := h.FindDevice(ctx, d.Hash, Noon)
		perr = errors.Join(perr, perr2)
		_, e3 := h.RedeemDevice(ctx, ofDevice(used, a), Noon)
		_, e4 := h.GrantActive(ctx, own.Grant.ID)
		err = errors.Join(err, perr, e1, e2, is("a replay", e3, store.ErrSpent), e4)
		_, perr = h.Prune(ctx, Noon.Add(3*day))
		_, e1 = h.FindPushed(ctx, p.Hash, Noon)
		_, e2 = h.FindDevice(ctx, d.Hash, Noon)
		_, e3 = h.FindUserCode(ctx, used.UserCode, Noon)
		_, e4 = h.GrantActive(ctx, own.Grant.ID)
		_, e5 := h.Client(ctx, c.ID)
		err = errors.Join(err, perr, is("request", e1, store.ErrNotFound), is("device", e2, store.ErrNotFound), is("used device", e3, store.ErrNotFound),
			is("a client's own grant", e4, store.ErrEnded), is("client", e5, store.ErrNotFound))
		_, perr = h.Prune(ctx, Noon.Add(11*day))
		_, e4 = h.GrantActive(ctx, own.Grant.ID)
		_, alive := h.GrantActive(ctx, a.Answer.Grant.ID)
		_, other := h.Client(ctx, ClientID)
		return errors.Join(err, perr, is("a client's own grant, later", e4, store.ErrNotFound), alive, other)
	}},
}

// openingGroundGone spoils one thing per row.
func openingGroundGone(ctx context.Context, h *House) error {
	rows := []struct {
		name  string
		spoil func(o *store.Opening) error
		want  error
	}{
		{"nothing", func(*store.Opening) error { return nil }, nil},
		{"unknown user", func(o *store.Opening) error { o.Grant.UserID = "nobody"; return nil }, store.ErrNotFound},
		{"unknown client", func(o *store.Opening) error { o.Grant.ClientID = "nobody"; return nil }, store.ErrNotFound},
		{"a registered client with a document", func(o *store.Opening) error {
			o.Document = &store.Document{ClientID: ClientID, Digest: "d"}
			return nil
		}, store.ErrConflict},
		{"a client that removed itself", func(o *store.Opening) error {
			c := h.dynamic()
			o.Grant.ClientID = c.ID
			return errors.Join(h.RegisterDynamic(ctx, c, plenty, Noon), h.RemoveDynamic(ctx, c.ID, c.RegistrationHash, Noon))
		}, store.ErrBlocked},
		{"client held", func(*store.Opening) error { return h.SetClientState(ctx, ClientID, store.StatePending, "", Noon) }, store.ErrBlocked},
		{"client retired", func(*store.Opening) error { return h.SetClientState(ctx, ClientID, store.StateRetired, "", Noon) }, store.ErrBlocked},
		{"client blocked", func(*store.Opening) error { return h.SetClientState(ctx, ClientID, store.StateBlocked, "", Noon) }, store.ErrBlocked},
		{"user disabled", func(*store.Opening) error {
			return errors.Join(h.SetClientState(ctx, ClientID, store.StateAllowed, "", Noon), h.DisableUser(ctx, User, Noon))
		}, store.ErrEnded},
	}
	for _, row := range rows {
		o := h.opening()
		if err := row.spoil(&o); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		_, got := h.OpenGrant(ctx, o, Noon)
		if err := is(row.name, got, row.want); err != nil {
			return err
		}
		if row.want == nil {
			continue
		}
		_, grant := h.GrantActive(ctx, o.Grant.ID)
		if err := errors.Join(is(row.name+": grant", grant, store.ErrNotFound),
			is(row.name+": the assertion is as it was", h.SpendID(ctx, o.Spend[0].Issuer, o.Spend[0].ID, o.Spend[0].Expires, Noon), nil)); err != nil {
			return err
		}
	}
	// A fetched client is admitted as with a consent, and one that was blocked
	// before anybody saw it is not.
	o := h.opening()
	a := fetched(store.Answer{Grant: o.Grant}, fetchedID)
	o.Grant, o.Client, o.Document, o.Grant.UserID, o.Grant.Kind = a.Grant, a.Client, a.Document, "", store.KindClient
	g, err := h.OpenGrant(ctx, o, Noon)
	row, rerr := h.Client(ctx, fetchedID)
	err = errors.Join(err, rerr, same("version", g.Version, 1), same("source", row.Source, store.SourceCIMD))
	stranger := strings.Replace(fetchedID, "fetched", "stranger", 1)
	p := h.opening()
	b := fetched(store.Answer{Grant: p.Grant}, stranger)
	p.Grant, p.Client, p.Document, p.Grant.UserID, p.Grant.Kind = b.Grant, b.Client, b.Document, "", store.KindClient
	err = errors.Join(err, h.SetClientState(ctx, stranger, store.StateBlocked, "phishing", Noon))
	_, blocked := h.OpenGrant(ctx, p, Noon)
	return errors.Join(err, is("blocked before anybody saw it", blocked, store.ErrBlocked))
}

// identities links and looks up.
func identities(ctx context.Context, h *House) error {
	id := store.Identity{Issuer: "https://idp.example", Tenant: "t1", Subject: "s1", UserID: User, Email: "john@idp.example", Created: Noon, LastSeen: Noon}
	last, err := h.lastEvent(ctx)
	err = errors.Join(err, h.LinkIdentity(ctx, id, nil, audit.Event{Type: audit.TypeUser, User: User, Code: "linked"}))
	id.LastSeen = Noon.Add(time.Hour)
	err = errors.Join(err, h.LinkIdentity(ctx, id, nil)) // seen again
	u, uerr := h.UserByIdentity(ctx, id.Issuer, id.Tenant, id.Subject)
	types, terr := h.eventTypes(ctx, last)
	err = errors.Join(err, uerr, terr, same("account", u.Name, "John"), same("events", types, []audit.Type{audit.TypeUser}))
	for _, k := range [][3]string{{"https://idp.example/", "t1", "s1"}, {"https://IDP.example", "t1", "s1"}, {id.Issuer, "", "s1"}, {id.Issuer, "t2", "s1"}, {id.Issuer, "t1", "S1"}, {id.Issuer, "t1s", "1"}} {
		_, none := h.UserByIdentity(ctx, k[0], k[1], k[2])
		err = errors.Join(err, is(fmt.Sprint(k), none, store.ErrNotFound))
	}
	other := id
	other.UserID = "user-2"
	new2 := &store.User{ID: "user-2", Name: "Eve", Created: Noon}
	err = errors.Join(err, is("somebody else, new", h.LinkIdentity(ctx, other, new2), store.ErrConflict))
	_, none := h.UserByName(ctx, "eve")
	err = errors.Join(err, is("an account that was made for nothing", none, store.ErrNotFound), h.AddUser(ctx, *new2), is("somebody else", h.LinkIdentity(ctx, other, nil), store.ErrConflict))
	other.Tenant = "t2"
	taken := other
	taken.UserID, taken.Subject = "user-3", "s3"
	nobody := taken
	nobody.UserID = "nobody"
	err = errors.Join(err, h.LinkIdentity(ctx, other, nil), is("a name that is taken", h.LinkIdentity(ctx, taken, &store.User{ID: "user-3", Name: "EVE", Created: Noon}), store.ErrConflict),
		is("no such account", h.LinkIdentity(ctx, nobody, nil), store.ErrNotFound), h.DisableUser(ctx, User, Noon), is("disabled", h.LinkIdentity(ctx, id, nil), store.ErrEnded))
	err = errors.Join(err, soleIdentity(ctx, h))
	still, serr := h.UserByIdentity(ctx, id.Issuer, id.Tenant, id.Subject)
	for _, bad := range []store.Identity{{Subject: "s", UserID: "user-2"}, {Issuer: "i", UserID: "user-2"}, {Issuer: "i", Subject: "s"}} {
		if h.LinkIdentity(ctx, bad, nil) == nil {
			return fmt.Errorf("linked %+v", bad)
		}
	}
	if h.LinkIdentity(ctx, other, &store.User{ID: "user-4", Name: "Mallory"}) == nil {
		return errors.New("one account was made and another linked")
	}
	return errors.Join(err, serr, same("disabled", still.Disabled, true))
}

// soleIdentity links an account that may be one person at an issuer only.
func soleIdentity(ctx context.Context, h *House) error {
	id := store.Identity{Issuer: "https://sole.example", Subject: "s1", UserID: "user-2", Created: Noon, LastSeen: Noon, Sole: true}
	err := errors.Join(h.LinkIdentity(ctx, id, nil), h.LinkIdentity(ctx, id, nil)) // the same one may be seen again
	next := id
	next.Subject = "s2"
	err = errors.Join(err, is("the next person with the address", h.LinkIdentity(ctx, next, nil), store.ErrConflict))
	_, none := h.UserByIdentity(ctx, next.Issuer, "", next.Subject)
	elsewhere, tenant, added := next, next, next
	elsewhere.Issuer, tenant.Tenant, added.Sole = "https://elsewhere.example", "t1", false
	return errors.Join(err, is("nothing was linked", none, store.ErrNotFound),
		h.LinkIdentity(ctx, elsewhere, nil), h.LinkIdentity(ctx, tenant, nil), h.LinkIdentity(ctx, added, nil))
}

// byEmail looks people up by their address.
func byEmail(ctx context.Context, h *House) error {
	u, err := h.UserByEmail(ctx, "JOHN@Example.test")
	err = errors.Join(err, same("account", u.ID, User))
	for _, a := range []string{"", "john@example.tes", "john", "%", "\u212aohn@example.test", "jo\u0131hn@example.test"} {
		_, none := h.UserByEmail(ctx, a)
		err = errors.Join(err, is(fmt.Sprintf("%q", a), none, store.ErrNotFound))
	}
	err = errors.Join(err, h.AddUser(ctx, store.User{ID: "kim", Name: "Kim", Email: "kim@example.test", Created: Noon}), h.AddUser(ctx, store.User{ID: "none", Name: "None", Created: Noon}))
	_, kelvin := h.UserByEmail(ctx, "\u212aim@example.test") // the lower case of the Kelvin sign is k
	err = errors.Join(err, is("one that looks alike", kelvin, store.ErrNotFound), h.AddUser(ctx, store.User{ID: "user-2", Name: "Double", Email: "John@example.test", Created: Noon}))
	_, two := h.UserByEmail(ctx, "john@example.test")
	err = errors.Join(err, is("two accounts", two, store.ErrConflict), h.DisableUser(ctx, User, Noon))
	u, one := h.UserByEmail(ctx, "john@example.test")
	err = errors.Join(err, one, same("the one that is not disabled", u.ID, "user-2"), h.DisableUser(ctx, "user-2", Noon))
	off, gone := h.UserByEmail(ctx, "john@example.test")
	return errors.Join(err, gone, same("all disabled", off.Disabled, true))
}
