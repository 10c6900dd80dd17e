package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
)

const fetchedID = "https://fetched.example/client.json"

// ruleChecks are the clauses about people, clients, consent, the audit and what
// happens when things go wrong.
var ruleChecks = []Check{
	{"CONS-13 a consent is remembered for exactly this user, client and resource", func(ctx context.Context, h *House) error {
		a := h.answer()
		a.Remember = true
		err := h.AnswerConsent(ctx, a, Noon)
		c, found := h.Consent(ctx, User, ClientID, Resource)
		err = errors.Join(err, found, same("consent", c, store.Consent{UserID: User, ClientID: ClientID, Resource: Resource, SecurityDigest: "digest", Scopes: a.Grant.Scopes, Given: Noon}))
		for _, k := range [][3]string{{"user-2", ClientID, Resource}, {User, strings.Replace(ClientID, "mcpclient", "MCPclient", 1), Resource}, {User, ClientID + "/", Resource}, {User, ClientID, Resource + "/"}} {
			_, other := h.Consent(ctx, k[0], k[1], k[2])
			err = errors.Join(err, is(fmt.Sprint(k), other, store.ErrNotFound))
		}
		return err
	}},
	{"CONS-13 scopes add up under one security digest and start anew under another", func(ctx context.Context, h *House) error {
		for _, step := range []struct {
			digest   string
			remember bool
			ask      []string
			want     string
		}{
			{"one", true, scopes("read"), "read"}, {"one", true, scopes("write"), "read write"}, {"one", false, scopes("admin"), "read write"},
			{"two", true, scopes("admin"), "admin"},
		} {
			a := h.answer()
			a.Grant.SecurityDigest, a.Grant.Scopes, a.Remember = step.digest, step.ask, step.remember
			if err := h.AnswerConsent(ctx, a, Noon); err != nil {
				return err
			}
			c, err := h.Consent(ctx, User, ClientID, Resource)
			if err := errors.Join(err, same("scopes", c.Scopes.String(), step.want)); err != nil {
				return err
			}
		}
		err := h.RevokeUserClient(ctx, User, ClientID, Noon)
		ended, gone := h.Consent(ctx, User, ClientID, Resource)
		a := h.answer()
		a.Grant.SecurityDigest, a.Remember, a.Endings, a.Grant.Scopes = "two", true, ended.Endings, scopes("read")
		err = errors.Join(err, is("after revoking", gone, store.ErrNotFound), h.AnswerConsent(ctx, a, Noon.Add(time.Second)))
		c, found := h.Consent(ctx, User, ClientID, Resource)
		return errors.Join(err, found, same("scopes after revoking", c.Scopes.String(), "read"))
	}},
	{"attack CN-18: no code when the ground has gone while the page was open", groundGone},
	{"the first consent makes the client's row, later ones keep its versions", func(ctx context.Context, h *House) error {
		_, none := h.Client(ctx, fetchedID)
		err := errors.Join(is("before", none, store.ErrNotFound), h.SaveCache(ctx, "document:"+fetchedID, fetchedID, []byte("entry")))
		_, cached, cerr := h.LoadCache(ctx, "document:"+fetchedID)
		err = errors.Join(err, cerr, same("a stranger's cache entry", cached, false))
		for i, digest := range []string{"digest 1", "digest 1", "digest 2", "digest 1"} {
			a := fetched(h.answer(), fetchedID)
			a.Document.Digest, a.Document.Body = digest, []byte(digest)
			a.Client.Name = digest
			err = errors.Join(err, h.AnswerConsent(ctx, a, Noon))
			want := []int{1, 1, 2, 3}[i]
			c, ferr := h.FindCode(ctx, a.Code.Hash, Noon)
			d, derr := h.Document(ctx, fetchedID)
			row, rerr := h.Client(ctx, fetchedID)
			err = errors.Join(err, ferr, derr, rerr, same("version agreed to", c.Grant.Version, want), same("newest", d.Version, want), same("body", string(d.Body), digest),
				same("row's version", row.Version, want), same("row's name", row.Name, digest), same("row's source", row.Source, store.SourceCIMD), same("redirects", row.RedirectURIs, a.Client.RedirectURIs))
		}
		err = errors.Join(err, h.SaveCache(ctx, "document:"+fetchedID, fetchedID, []byte("entry")), h.SaveCache(ctx, "document:"+fetchedID, fetchedID, []byte("newer")))
		entry, cached, cerr := h.LoadCache(ctx, "document:"+fetchedID)
		return errors.Join(err, cerr, same("cached", cached, true), same("entry", string(entry), "newer"))
	}},
	{"a registered row is never taken over by a fetched document", func(ctx context.Context, h *House) error {
		before, err := h.Client(ctx, ClientID)
		a := fetched(h.answer(), ClientID)
		err = errors.Join(err, is("answer", h.AnswerConsent(ctx, a, Noon), store.ErrConflict))
		after, aerr := h.Client(ctx, ClientID)
		_, doc := h.Document(ctx, ClientID)
		_, code := h.FindCode(ctx, a.Code.Hash, Noon)
		return errors.Join(err, aerr, same("row", after, before), is("document", doc, store.ErrNotFound), is("code", code, store.ErrNotFound))
	}},
	{"URL-15 a client can be blocked before anybody saw it", func(ctx context.Context, h *House) error {
		err := errors.Join(is("allow", h.SetClientState(ctx, fetchedID, store.StateAllowed, "", Noon), store.ErrNotFound),
			h.SetClientState(ctx, fetchedID, store.StateBlocked, "phishing", Noon))
		c, cerr := h.Client(ctx, fetchedID)
		return errors.Join(err, cerr, same("state", c.State, store.StateBlocked), same("reason", c.Reason, "phishing"),
			is("answer", h.AnswerConsent(ctx, fetched(h.answer(), fetchedID), Noon), store.ErrBlocked))
	}},
	{"URL-15, mistake 35: a store that cannot answer never says that there is none", func(ctx context.Context, h *House) error {
		other, err := h.Reopen()
		if err != nil {
			return err
		}
		err = other.Close()
		_, e1 := other.Client(ctx, fetchedID)
		_, _, e2 := other.LoadCache(ctx, "x")
		_, e3 := other.TokenDenied(ctx, "x")
		_, _, e4 := other.FindRefresh(ctx, store.RefreshRef{Hash: session}, Noon)
		_, e5 := other.GrantActive(ctx, "x")
		_, e6 := other.Clients(ctx, "", 0)
		e7 := other.SpendID(ctx, "x", session, Noon, Noon)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, e8 := h.Client(ended, fetchedID)
		_, e9 := h.Clients(ended, "", 0)
		for i, e := range []error{e1, e2, e3, e4, e5, e6, e7, e8, e9} {
			if e == nil || errors.Is(e, store.ErrNotFound) || errors.Is(e, store.ErrSpent) {
				err = errors.Join(err, fmt.Errorf("call %d answered %v", i+1, e)) //nolint:errorlint // a report of a test, nothing to unwrap
			}
		}
		return err
	}},
	{"a caller that has gone changes nothing", func(ctx context.Context, h *House) error {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		id := store.HashOf("jti")
		return errors.Join(is("with an ended context", h.SpendID(ended, "x", id, Noon.Add(time.Minute), Noon), context.Canceled),
			is("afterwards", h.SpendID(ctx, "x", id, Noon.Add(time.Minute), Noon), nil))
	}},
	{"a failing change does not hurt its neighbours", func(ctx context.Context, h *House) error {
		var wg sync.WaitGroup
		errs := make([]error, crowd)
		for i := range crowd {
			wg.Go(func() {
				name := fmt.Sprint("person ", i/2) // every name twice: half of them fail
				errs[i] = h.AddUser(ctx, store.User{ID: fmt.Sprint("id ", i), Name: name, Created: Noon})
			})
		}
		wg.Wait()
		failed := 0
		for _, err := range errs {
			if errors.Is(err, store.ErrConflict) {
				failed++
			} else if err != nil {
				return err
			}
		}
		for i := range crowd / 2 {
			if _, err := h.UserByName(ctx, fmt.Sprint("person ", i)); err != nil {
				return err
			}
		}
		events, err := h.Events(ctx, store.EventQuery{Type: audit.TypeUser, Limit: 1000})
		return errors.Join(err, same("failures", failed, crowd/2), same("events", len(events), crowd/2+1))
	}},
	{"what was acknowledged survives without Close", func(ctx context.Context, h *House) error {
		a, err := h.family(ctx)
		if err != nil {
			return err
		}
		other, err := h.Reopen()
		if err != nil {
			return err
		}
		_, _, ses := other.FindSession(ctx, session, Noon)
		_, _, found := other.FindRefresh(ctx, refreshOf(a, 1), Noon)
		_, again := other.RedeemCode(ctx, redemption(a), Noon)
		return errors.Join(ses, found, is("the code", again, store.ErrSpent),
			is("the page", other.AnswerConsent(ctx, a, Noon), store.ErrSpent), other.Close())
	}},
	{"a session is good until the moment it expires or ends", func(ctx context.Context, h *House) error {
		end := Noon.Add(30 * 24 * time.Hour)
		ses, u, last := h.FindSession(ctx, session, end.Add(-time.Microsecond))
		_, _, over := h.FindSession(ctx, session, end)
		err := errors.Join(last, same("session", ses, store.Session{Hash: session, UserID: User, AuthTime: Noon, Created: Noon, LastSeen: Noon, Expires: end, ACR: "1", AMR: []string{"pwd"}, SID: "sid of user-1"}),
			same("user", u.Name, "John"), is("at the end", over, store.ErrNotFound), h.EndSession(ctx, session), h.EndSession(ctx, store.HashOf("nobody")))
		_, _, ended := h.FindSession(ctx, session, Noon)
		err = errors.Join(err, is("ended", ended, store.ErrNotFound), h.DisableUser(ctx, User, Noon), h.DisableUser(ctx, User, Noon))
		return errors.Join(err, is("session of a disabled user", h.StartSession(ctx, store.Session{Hash: store.HashOf("new"), UserID: User, Expires: end}), store.ErrNotFound))
	}},
	{"times are instants: the zone they are given in does not matter", func(ctx context.Context, h *House) error {
		zone := time.FixedZone("far", 14*3600)
		a := h.answer()
		a.Code.Expires, a.NonceExpires, a.Grant.AuthTime = a.Code.Expires.In(zone), a.NonceExpires.In(zone), Noon.In(zone)
		err := h.AnswerConsent(ctx, a, Noon.In(zone))
		c, ferr := h.FindCode(ctx, a.Code.Hash, Noon.In(time.FixedZone("west", -12*3600)))
		return errors.Join(err, ferr, same("expires", c.Expires, Noon.Add(time.Minute)), same("signed in", c.Grant.AuthTime, Noon), same("created", c.Grant.Created, Noon))
	}},
	{"lists go on behind the cursor, in order", func(ctx context.Context, h *House) error {
		var want, got []string
		for i := range 7 {
			id := fmt.Sprint("opaque-", i)
			want = append(want, id)
			if err := h.RegisterClient(ctx, store.Client{ID: id, JWKS: []byte("{}"), HasScope: true, Scope: "read"}, Noon); err != nil {
				return err
			}
		}
		want = append([]string{ClientID}, want...)
		for after := ""; ; {
			page, err := h.Clients(ctx, after, 3)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
			for _, c := range page {
				got = append(got, c.ID)
			}
			after = page[len(page)-1].ID
		}
		return same("clients", got, want)
	}},
	{"a person's list shows the grants that have not ended", func(ctx context.Context, h *House) error {
		a, err1 := h.family(ctx)
		b, err2 := h.family(ctx)
		err := errors.Join(err1, err2, h.RevokeGrant(ctx, a.Grant.ID, "x", Noon))
		mine, err3 := h.Grants(ctx, User, "", 0)
		all, err4 := h.Grants(ctx, "", "", 0)
		other, err5 := h.Grants(ctx, "user-2", "", 0)
		return errors.Join(err, err3, err4, err5, same("mine", ids(mine), []string{b.Grant.ID}), same("all", ids(all), []string{b.Grant.ID}), same("another's", len(other), 0))
	}},
	{"POL-07 events keep their order, their content and their sequence", func(ctx context.Context, h *House) error {
		e := audit.Event{Type: audit.TypeRefusal, Ref: "7K2M-44QX", Client: ClientID, User: User, Grant: "g", Resource: Resource, IP: "192.0.2.1", Rule: "FETCH-02", Code: "invalid_client", Time: Noon, Data: map[string]string{"status": "302"}}
		err := h.AppendEvents(ctx, audit.Event{Type: audit.TypeFetch, Client: "a\x1b[2J\nb"}, e)
		all, lerr := h.Events(ctx, store.EventQuery{})
		byRef, rerr := h.Events(ctx, store.EventQuery{Ref: "7K2M-44QX", Type: audit.TypeRefusal})
		if err := errors.Join(err, lerr, rerr, same("by reference", len(byRef), 1)); err != nil {
			return err
		}
		for i, e := range all {
			err = errors.Join(err, same("sequence", e.Seq, i+1))
		}
		n := len(all)
		e.Seq = int64(n)
		after, aerr := h.Events(ctx, store.EventQuery{After: int64(n - 1)})
		return errors.Join(err, aerr, same("event", byRef[0], e), same("cleaned", all[n-2].Client, `a\u001b[2J\u000ab`), same("after", after, []audit.Event{e}))
	}},
	{"POL-07 what did not happen leaves no event, what did leaves its own", func(ctx context.Context, h *House) error {
		a := h.answer()
		a.Events = []audit.Event{{Type: audit.TypeConsent, Grant: a.Grant.ID}, {Type: audit.TypeCode, Grant: a.Grant.ID}}
		err := errors.Join(h.AnswerConsent(ctx, a, Noon), is("again", h.AnswerConsent(ctx, a, Noon), store.ErrSpent))
		r := redemption(a)
		r.Events = []audit.Event{{Type: audit.TypeToken, Grant: a.Grant.ID}}
		_, e1 := h.RedeemCode(ctx, r, Noon)
		_, e2 := h.RedeemCode(ctx, r, Noon)
		events, e3 := h.Events(ctx, store.EventQuery{After: 2})
		var types []audit.Type
		for _, e := range events {
			types = append(types, e.Type)
		}
		return errors.Join(err, e1, is("redeem again", e2, store.ErrSpent), e3, same("events", types, []audit.Type{"consent", "code", "token"}))
	}},
	{"POL-07, AD-09 events that were removed for their age leave a proof behind", retention},
	{"attack DS-13: what was never finished is swept away in short steps", sweep},
}

// groundGone spoils one thing per row between the page and its answer.
func groundGone(ctx context.Context, h *House) error {
	minute := Noon.Add(time.Minute)
	rows := []struct {
		name  string
		spoil func(a *store.Answer) error
		want  error
	}{
		{"nothing", func(*store.Answer) error { return nil }, nil},
		{"page too old", func(a *store.Answer) error { a.NonceExpires = minute; return nil }, store.ErrExpired},
		{"another's session", func(a *store.Answer) error {
			a.Session = store.HashOf("session of user-2")
			return errors.Join(h.AddUser(ctx, store.User{ID: "user-2", Name: "Eve", Created: Noon}),
				h.StartSession(ctx, store.Session{Hash: a.Session, UserID: "user-2", Expires: Noon.Add(time.Hour)}))
		}, store.ErrNotFound},
		{"unknown client", func(a *store.Answer) error { a.Grant.ClientID = fetchedID; return nil }, store.ErrNotFound},
		{"connection revoked", func(*store.Answer) error {
			return h.RevokeUserClient(ctx, User, ClientID, Noon.Add(-time.Hour)) // by a clock that is behind
		}, store.ErrEnded},
		{"connection revoked before the page was shown", func(a *store.Answer) error { return h.shown(ctx, a) }, nil},
		{"client blocked and allowed", func(a *store.Answer) error {
			return errors.Join(h.shown(ctx, a), h.SetClientState(ctx, ClientID, store.StateBlocked, "", Noon), h.SetClientState(ctx, ClientID, store.StateAllowed, "", Noon))
		}, store.ErrEnded},
		{"all of the person ended", func(a *store.Answer) error {
			return errors.Join(h.shown(ctx, a), h.endAll(ctx))
		}, store.ErrEnded},
		{"client held", func(*store.Answer) error { return h.SetClientState(ctx, ClientID, store.StatePending, "", Noon) }, store.ErrBlocked},
		{"client blocked", func(*store.Answer) error { return h.SetClientState(ctx, ClientID, store.StateBlocked, "", Noon) }, store.ErrBlocked},
		{"user signed out", func(*store.Answer) error { return h.EndSession(ctx, session) }, store.ErrNotFound},
		{"user disabled", func(*store.Answer) error { return h.DisableUser(ctx, User, Noon) }, store.ErrNotFound},
	}
	for _, row := range rows {
		a := h.answer()
		if err := row.spoil(&a); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		err := is(row.name, h.AnswerConsent(ctx, a, minute), row.want)
		_, found := h.FindCode(ctx, a.Code.Hash, Noon)
		if row.want != nil {
			err = errors.Join(err, is(row.name+": code", found, store.ErrNotFound))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// shown makes a page one that is shown now.
func (h *House) shown(ctx context.Context, a *store.Answer) error {
	c, err := h.Consent(ctx, a.Grant.UserID, a.Grant.ClientID, a.Grant.Resource)
	if a.Endings = c.Endings; errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return err
}

// endAll ends every connection of the person, whose session goes on.
func (h *House) endAll(ctx context.Context) error {
	_, err := h.EndGrantsOf(ctx, store.Whose{UserID: User}, "ended", Noon)
	return err
}

// sweep fills the tables that strangers and passers-by can fill.
func sweep(ctx context.Context, h *House) error {
	const n = 10_000
	var wg sync.WaitGroup
	errs := make([]error, crowd)
	for w := range crowd {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += crowd {
				errs[w] = h.SpendID(ctx, "x", store.HashOf(fmt.Sprint(i)), Noon.Add(time.Minute), Noon)
			}
		})
	}
	wg.Wait()
	a, err := h.family(ctx)
	err = errors.Join(errors.Join(errs...), err, h.DenyConsent(ctx, store.HashOf("page"), Noon.Add(time.Minute), Noon), h.DenyToken(ctx, "jti", Noon.Add(time.Minute)))
	early, e1 := h.Prune(ctx, Noon.Add(time.Minute))
	err = errors.Join(err, e1, same("rows touched too early", early, 0))
	swept, e2 := h.Prune(ctx, Noon.Add(time.Hour))
	err = errors.Join(err, e2, same("rows touched in time", swept, n+3)) // the answered page, the denied one and the token
	_, _, alive := h.FindRefresh(ctx, refreshOf(a, 1), Noon.Add(time.Hour))
	err = errors.Join(err, is("a live family", alive, nil))

	// Used until shortly before its end, the grant lives on; then it ends by itself.
	day := 24 * time.Hour
	r := rotation(a, 1)
	r.New.Expires = Noon.Add(27 * day)
	err = errors.Join(err, h.RotateRefresh(ctx, r, Noon.Add(13*day)))
	_, e3 := h.Prune(ctx, Noon.Add(20*day))
	_, active := h.GrantActive(ctx, a.Grant.ID)
	err = errors.Join(err, e3, is("a grant in use", active, nil))
	_, e4 := h.Prune(ctx, Noon.Add(40*day))
	g, idle := h.GrantActive(ctx, a.Grant.ID)
	err = errors.Join(err, e4, is("an idle grant", idle, store.ErrEnded), same("reason", g.EndReason, "expired"))
	_, e5 := h.Prune(ctx, Noon.Add(400*day))
	_, gone := h.GrantActive(ctx, a.Grant.ID)
	_, _, ses := h.FindSession(ctx, session, Noon)
	return errors.Join(err, e5, is("an old grant", gone, store.ErrNotFound), is("an old session", ses, store.ErrNotFound))
}

func ids(grants []store.Grant) []string {
	var out []string
	for _, g := range grants {
		out = append(out, g.ID)
	}
	slices.Sort(out)
	return out
}
