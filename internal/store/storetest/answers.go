package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// answerChecks are the clauses about the single conditions of a yes, and about the
// reach of an ending.
var answerChecks = []Check{
	{"CONS-13 a yes is one of somebody, for a client, whose row and document it brings", func(ctx context.Context, h *House) error {
		if err := errors.Join(h.AnswerConsent(ctx, fetched(h.answer(), fetchedID), Noon), h.RegisterClient(ctx, store.Client{ID: "other", Name: "Other"}, Noon)); err != nil {
			return err
		}
		for name, spoil := range map[string]func(*store.Answer){
			"no identifier": func(a *store.Answer) { a.Grant.ID = "" }, "no client": func(a *store.Answer) { a.Grant.ClientID, a.Client, a.Document = "", nil, nil },
			"another's row": func(a *store.Answer) { a.Client.ID = "other" }, "another's document": func(a *store.Answer) { a.Document.ClientID = "other" },
		} {
			a := fetched(h.answer(), fetchedID)
			spoil(&a)
			if err := h.AnswerConsent(ctx, a, Noon); err == nil || errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("a yes with %s: %v", name, err) //nolint:errorlint // a report of a test, nothing to unwrap
			}
			_, grant := h.GrantActive(ctx, a.Grant.ID)
			row, rerr := h.Client(ctx, "other")
			_, doc := h.Document(ctx, "other")
			if err := errors.Join(rerr, is(name, grant, store.ErrNotFound), same(name+": the other's row", row.Name, "Other"), is(name+": the other's document", doc, store.ErrNotFound)); err != nil {
				return err
			}
		}
		return nil
	}},
	{"attack CN-18: no code once the session has expired while the page was open", func(ctx context.Context, h *House) error {
		end := Noon.Add(5 * time.Minute)
		short := store.HashOf("short")
		err := h.StartSession(ctx, store.Session{Hash: short, UserID: User, SID: "short", Expires: end})
		answer := func(now time.Time) error {
			a := h.answer()
			a.Session = short
			return h.AnswerConsent(ctx, a, now)
		}
		d, derr := h.start(ctx)
		device := h.yes(d)
		device.Answer.Session = short
		return errors.Join(err, derr, answer(end.Add(-time.Microsecond)), is("at its end", answer(end), store.ErrNotFound), is("a device, at its end", h.ApproveDevice(ctx, device, end), store.ErrNotFound))
	}},
	{"attack CN-18: who is turned away are those whose connection was ended, not those whom others left", func(ctx context.Context, h *House) error {
		hers := h.answer()
		hers.Session, hers.Grant.UserID = store.HashOf("hers"), "user-2"
		other := h.answer()
		other.Grant.ClientID = "other"
		mine := h.answer()
		err := errors.Join(h.AddUser(ctx, store.User{ID: "user-2", Name: "Eve", Created: Noon}), h.StartSession(ctx, store.Session{Hash: hers.Session, UserID: "user-2", SID: "hers", Expires: Noon.Add(time.Hour)}),
			h.RegisterClient(ctx, store.Client{ID: "other"}, Noon), h.RevokeUserClient(ctx, User, ClientID, Noon))
		return errors.Join(err, is("mine", h.AnswerConsent(ctx, mine, Noon), store.ErrEnded), is("hers", h.AnswerConsent(ctx, hers, Noon), nil), is("mine with another client", h.AnswerConsent(ctx, other, Noon), nil))
	}},
	{"URL-15, DCR-01: a yes brings no row that may not be, nor one beside a row that is", func(ctx context.Context, h *House) error {
		held := fetched(h.answer(), fetchedID)
		held.Client.State = store.StatePending
		err := is("a row that is held", h.AnswerConsent(ctx, held, Noon), store.ErrBlocked)
		swept := h.answer()
		dyn := h.dynamic()
		dyn.Source, swept.Client, swept.Grant.ClientID = store.SourceDCR, &dyn, dyn.ID
		err = errors.Join(err, is("a client that registered itself and is gone", h.AnswerConsent(ctx, swept, Noon), store.ErrNotFound))
		taken := fetched(h.answer(), ClientID)
		taken.Document = nil
		err = errors.Join(err, is("a registered client, as fetched", h.AnswerConsent(ctx, taken, Noon), store.ErrConflict))
		for _, id := range []string{fetchedID, dyn.ID} {
			_, none := h.Client(ctx, id)
			err = errors.Join(err, is(id, none, store.ErrNotFound))
		}
		return err
	}},
	{"CONS-13 a yes brings the row of a fetched client up to its document, all of it", refetched},
	{"CONS-13 scopes add up for one resource, and the newest digest and time are kept", func(ctx context.Context, h *House) error {
		var err error
		for i, step := range []struct{ resource, digest, scope, want string }{
			{Resource, "one", "read", "read"}, {Resource + "/other", "one", "write", "write"}, {Resource, "one", "admin", "admin read"}, {Resource, "two", "read", "read"}, {Resource, "two", "write", "read write"},
		} {
			now := Noon.Add(time.Duration(i) * time.Minute)
			a := h.answer()
			a.Grant.Resource, a.Grant.SecurityDigest, a.Grant.Scopes, a.Remember = step.resource, step.digest, oauth.Scopes{step.scope}, true
			err = errors.Join(err, h.AnswerConsent(ctx, a, now))
			c, cerr := h.Consent(ctx, User, ClientID, step.resource)
			got := store.Consent{SecurityDigest: c.SecurityDigest, Given: c.Given}
			err = errors.Join(err, cerr, same(fmt.Sprint("scopes after ", i), fmt.Sprint(sorted(c.Scopes)), "["+step.want+"]"),
				same(fmt.Sprint("consent after ", i), got, store.Consent{SecurityDigest: step.digest, Given: now}))
		}
		return err
	}},
	{"DCR-01, attack FA-12: clocks that are apart neither prolong the life of a client nor shorten it", func(ctx context.Context, h *House) error {
		c := h.dynamic()
		err := h.RegisterDynamic(ctx, c, plenty, Noon)
		const ahead = 90 * time.Second
		for range 5 { // by two replicas in turn
			for _, by := range []time.Duration{ahead, 0} {
				a := h.answer()
				a.Grant.ClientID = c.ID
				err = errors.Join(err, h.AnswerConsent(ctx, a, Noon.Add(by)))
				row, rerr := h.Client(ctx, c.ID)
				err = errors.Join(err, rerr, same("used and expires", []time.Time{row.LastUsed, row.Expires}, []time.Time{Noon.Add(ahead), c.Expires.Add(ahead)}))
			}
		}
		return err
	}},
	{"DCR-04 a client that registered itself says how long it lives from now on, and is used by saying it", dynamicChange},
	{"REV-06 an ending is of one person and one client, of a client or of a person, and leaves what ended before", reach},
	{"AD-09 lists of grants go on behind the cursor, in order", func(ctx context.Context, h *House) error {
		var want []string
		var err error
		for range 7 {
			a, aerr := h.code(ctx)
			err, want = errors.Join(err, aerr), append(want, a.Grant.ID)
		}
		slices.Sort(want)
		for _, user := range []string{User, ""} {
			var got []string
			for after := ""; ; after = got[len(got)-1] {
				page, perr := h.Grants(ctx, user, after, 3)
				err = errors.Join(err, perr)
				for _, g := range page {
					got = append(got, g.ID)
				}
				if wantLen := min(3, 7-len(got)+len(page)); len(page) != wantLen {
					return errors.Join(err, fmt.Errorf("%d in a page behind %q, not %d", len(page), after, wantLen))
				}
				if len(page) < 3 {
					break
				}
			}
			err = errors.Join(err, same("grants of "+user, got, want))
		}
		return err
	}},
	{"TOK-14 a grant without a refresh token runs for a day after its code was redeemed", func(ctx context.Context, h *House) error {
		a, err := h.code(ctx)
		r := redemption(a)
		r.Refresh = nil
		_, rerr := h.RedeemCode(ctx, r, Noon)
		_, perr := h.Prune(ctx, Noon.Add(store.UnboundGrant+store.ReplayWindow))
		_, runs := h.GrantActive(ctx, a.Grant.ID)
		_, perr2 := h.Prune(ctx, Noon.Add(store.UnboundGrant+store.ReplayWindow+time.Hour))
		_, over := h.GrantActive(ctx, a.Grant.ID)
		return errors.Join(err, rerr, perr, perr2, is("within the day", runs, nil), is("later", over, store.ErrEnded))
	}},
}

// refetched answers twice for a fetched client, the second time with a document
// that changed in everything.
func refetched(ctx context.Context, h *House) error {
	first := fetched(h.answer(), fetchedID)
	err := h.AnswerConsent(ctx, first, Noon)
	a := fetched(h.answer(), fetchedID)
	a.Client = &store.Client{ID: fetchedID, Source: store.SourceCIMD, Name: "New", RedirectURIs: []string{"https://new.example/cb"}, GrantTypes: []string{"authorization_code", "refresh_token"},
		AuthMethods: []string{"private_key_jwt"}, Scope: "read write", HasScope: true, JWKS: []byte(`{"keys":[]}`), JWKSURI: "https://new.example/jwks",
		PostLogoutRedirectURIs: []string{"https://new.example/bye"}, BackchannelLogoutURI: "https://new.example/logout"}
	now := Noon.Add(time.Minute)
	a.Document = &store.Document{ClientID: fetchedID, Body: []byte(`{"v":2}`), Digest: "digest 2", SecurityDigest: "security 2", AuthMethods: []string{"private_key_jwt"}, FetchedAt: now.Add(-time.Second)}
	err = errors.Join(err, h.AnswerConsent(ctx, a, now))
	row, rerr := h.Client(ctx, fetchedID)
	want := *a.Client
	want.State, want.Version, want.Created, want.LastUsed = store.StateAllowed, 2, Noon, now
	doc, derr := h.Document(ctx, fetchedID)
	wantDoc := *a.Document
	wantDoc.Version = 2
	err = errors.Join(err, rerr, derr, same("row", row, want), same("document", doc, wantDoc))

	again := h.answer() // one that brings nothing rests on what there is
	again.Grant.ClientID = fetchedID
	err = errors.Join(err, h.AnswerConsent(ctx, again, now.Add(time.Minute)))
	g, gerr := h.GrantActive(ctx, again.Grant.ID)
	row, rerr = h.Client(ctx, fetchedID)
	want.LastUsed = now.Add(time.Minute)
	return errors.Join(err, gerr, rerr, same("version agreed to", g.Version, 2), same("row afterwards", row, want))
}

// dynamicChange changes and removes clients with and without the right to it.
func dynamicChange(ctx context.Context, h *House) error {
	c := h.dynamic()
	err := h.RegisterDynamic(ctx, c, plenty, Noon)
	u := c
	u.Expires = Noon.Add(48 * time.Hour)
	err = errors.Join(err, h.UpdateDynamic(ctx, u, c.RegistrationHash, Noon.Add(time.Hour)))
	row, rerr := h.Client(ctx, c.ID)
	err = errors.Join(err, rerr, same("expires and was used", []time.Time{row.Expires, row.LastUsed}, []time.Time{u.Expires, Noon.Add(time.Hour)}),
		is("removed at its end", h.RemoveDynamic(ctx, c.ID, c.RegistrationHash, u.Expires), store.ErrBlocked))
	fixed := h.dynamic() // it got no token, so that nothing is one
	fixed.RegistrationHash = ""
	err = errors.Join(err, h.RegisterDynamic(ctx, fixed, plenty, Noon))
	named := fixed
	named.RegistrationHash = "mine now"
	if h.RemoveDynamic(ctx, fixed.ID, "", Noon) == nil || h.UpdateDynamic(ctx, named, "", Noon) == nil {
		err = errors.Join(err, errors.New("a client without a registration token was changed"))
	}
	// An operator's client that has all that the statements ask for but its source.
	theirs := c
	theirs.ID = "registered"
	return errors.Join(err, h.RegisterClient(ctx, theirs, Noon), is("update an operator's", h.UpdateDynamic(ctx, theirs, theirs.RegistrationHash, Noon), store.ErrNotFound),
		is("remove an operator's", h.RemoveDynamic(ctx, theirs.ID, theirs.RegistrationHash, Noon), store.ErrNotFound))
}

// reach ends connections of two people with two clients, each in its own way.
func reach(ctx context.Context, h *House) error {
	hers := store.HashOf("hers")
	if err := errors.Join(h.AddUser(ctx, store.User{ID: "user-2", Name: "Eve", Created: Noon}), h.StartSession(ctx, store.Session{Hash: hers, UserID: "user-2", SID: "hers", Expires: Noon.Add(time.Hour)}),
		h.RegisterClient(ctx, store.Client{ID: "other"}, Noon)); err != nil {
		return err
	}
	type pair struct{ user, client string }
	pairs := []pair{{User, ClientID}, {User, "other"}, {"user-2", ClientID}, {"user-2", "other"}}
	for i, row := range []struct {
		whose store.Whose
		ends  []pair
	}{
		{store.Whose{UserID: User, ClientID: ClientID}, pairs[:1]},
		{store.Whose{ClientID: "other"}, []pair{pairs[1], pairs[3]}},
		{store.Whose{UserID: "user-2"}, pairs[2:]},
	} {
		var before store.Answer
		grants := map[pair]string{}
		var err error
		for _, p := range pairs {
			for n := range 2 {
				a := h.answer()
				a.Grant.UserID, a.Grant.ClientID, a.Remember = p.user, p.client, true
				if p.user != User {
					a.Session = hers
				}
				err = errors.Join(err, h.shown(ctx, &a), h.AnswerConsent(ctx, a, Noon))
				if grants[p] = a.Grant.ID; n == 0 && p == row.ends[0] {
					before = a
				}
			}
		}
		err = errors.Join(err, h.RevokeGrant(ctx, before.Grant.ID, "before", Noon))
		reason, now := fmt.Sprint("reason ", i), Noon.Add(time.Duration(i)*time.Second)
		_, eerr := h.EndGrantsOf(ctx, row.whose, reason, now, audit.Event{Type: audit.TypeRevocation})
		err = errors.Join(err, eerr)
		for _, p := range pairs {
			g, grant := h.GrantActive(ctx, grants[p])
			_, consent := h.Consent(ctx, p.user, p.client, Resource)
			name := fmt.Sprintf("%+v after the end of %+v", p, row.whose)
			if slices.Contains(row.ends, p) {
				err = errors.Join(err, is(name, grant, store.ErrEnded), same(name, []any{g.EndReason, g.Ended}, []any{reason, now}), is("consent of "+name, consent, store.ErrNotFound))
			} else {
				err = errors.Join(err, is(name, grant, nil), is("consent of "+name, consent, nil))
			}
		}
		was, _ := h.GrantActive(ctx, before.Grant.ID)
		if err := errors.Join(err, same("what ended before", was.EndReason, "before")); err != nil {
			return err
		}
	}
	if h.RevokeUserClient(ctx, "", ClientID, Noon) == nil || h.RevokeUserClient(ctx, User, "", Noon) == nil {
		return errors.New("a connection of nobody")
	}
	return nil
}
