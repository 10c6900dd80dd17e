package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// Farewells are the words of other issuers that somebody has signed out there.
type Farewells interface {
	SignOutIdentity(ctx context.Context, f store.Farewell, now time.Time, events ...audit.Event) (store.Departed, error)
}

// goodbye is a farewell of the person of the house at an issuer, as subject.
func goodbye(subject, jti string) store.Farewell {
	return store.Farewell{
		Issuer: "https://idp.example", Tenant: "t1", Subject: subject, Reason: "signed out at the provider",
		Spend: store.SpentID{Issuer: "https://idp.example logout", ID: store.HashOf(jti), Expires: Noon.Add(20 * time.Minute)},
	}
}

// known links the person of the house to an identity.
func (h *House) known(ctx context.Context) error {
	return h.LinkIdentity(ctx, store.Identity{Issuer: "https://idp.example", Tenant: "t1", Subject: "ada", UserID: User, Created: Noon, LastSeen: Noon}, nil)
}

var farewellChecks = []Check{
	{"OIDC-10 a farewell ends the sessions of the person and what was given in them, and counts once", func(ctx context.Context, h *House) error {
		err := errors.Join(h.known(ctx), h.StartSession(ctx, store.Session{Hash: session2, UserID: User, SID: "second", Expires: Noon.Add(time.Hour)}),
			h.AddUser(ctx, store.User{ID: "user-2", Name: "Eve", Created: Noon}),
			h.StartSession(ctx, store.Session{Hash: store.HashOf("hers"), UserID: "user-2", SID: "hers", Expires: Noon.Add(time.Hour)}))
		here, herr := h.code(ctx)
		away := h.answer()
		away.Session, away.Grant.Scopes = session2, oauth.Scopes{"read", oauth.ScopeOfflineAccess}
		err = errors.Join(err, herr, h.AnswerConsent(ctx, away, Noon))
		last, lerr := h.lastEvent(ctx)
		e := audit.Event{Type: audit.TypeLogout}
		out, oerr := h.SignOutIdentity(ctx, goodbye("ada", "bye"), Noon, e)
		types, terr := h.eventTypes(ctx, last)
		slices.Sort(out.SIDs)
		want := []string{here.Grant.ID, away.Grant.ID}
		slices.Sort(want)
		alive := ids(out.Grants)
		slices.Sort(alive)
		_, _, s1 := h.FindSession(ctx, session, Noon)
		_, _, s2 := h.FindSession(ctx, session2, Noon)
		_, _, hers := h.FindSession(ctx, store.HashOf("hers"), Noon)
		_, gone := h.GrantActive(ctx, here.Grant.ID)
		_, stays := h.GrantActive(ctx, away.Grant.ID)
		_, again := h.SignOutIdentity(ctx, goodbye("ada", "bye"), Noon, e)
		next, nerr := h.SignOutIdentity(ctx, goodbye("ada", "bye 2"), Noon, e)
		return errors.Join(err, lerr, oerr, terr, nerr, same("whose", out.UserID, User), same("sessions", out.SIDs, []string{"second", "sid of user-1"}),
			same("grants", alive, want), is("the first session", s1, store.ErrNotFound), is("the second", s2, store.ErrNotFound), hers,
			is("what was given in it", gone, store.ErrEnded), stays, same("events", types, []audit.Type{audit.TypeLogout}),
			is("again", again, store.ErrSpent), same("sessions of the next", len(next.SIDs), 0))
	}},
	{"OIDC-10 a farewell tells once of each client in a session, and ends all that it has there", func(ctx context.Context, h *House) error {
		err := h.known(ctx)
		var grants []string
		for range 3 {
			c, cerr := h.code(ctx)
			err, grants = errors.Join(err, cerr), append(grants, c.Grant.ID)
		}
		offline := h.answer() // a scope of whose name that of a lasting one is a part
		offline.Grant.Scopes = oauth.Scopes{"offline_access_reports", "Offline_Access", "offline-access"}
		err, grants = errors.Join(err, h.AnswerConsent(ctx, offline, Noon)), append(grants, offline.Grant.ID)
		out, oerr := h.SignOutIdentity(ctx, goodbye("ada", "bye"), Noon)
		err = errors.Join(err, oerr, same("told of", len(out.Grants), 1))
		for _, id := range grants {
			g, ended := h.GrantActive(ctx, id)
			err = errors.Join(err, is(id, ended, store.ErrEnded), same("why", g.EndReason, "signed out at the provider"))
		}
		return err
	}},
	{"OIDC-09 a client that came to a session over and over hides nobody else there", func(ctx context.Context, h *House) error {
		answers := make([]store.Answer, 1001)
		for i := range answers {
			answers[i] = h.answer()
		}
		last := fetched(h.answer(), "https://fetched.example/client.json")
		last.Grant.ID = store.NewID(Noon.Add(time.Hour))
		var wg sync.WaitGroup
		errs := make([]error, len(answers))
		for i, a := range answers {
			wg.Go(func() { errs[i] = h.AnswerConsent(ctx, a, Noon) })
		}
		wg.Wait()
		err := errors.Join(errors.Join(errs...), h.AnswerConsent(ctx, last, Noon))
		of, gerr := h.SessionGrants(ctx, "sid of user-1")
		var clients []string
		for _, g := range of {
			clients = append(clients, g.ClientID)
		}
		return errors.Join(err, gerr, same("clients", clients, []string{ClientID, last.Grant.ClientID}))
	}},
	{"OIDC-10 a farewell is for one identity, byte for byte, and for nobody it is spent all the same", func(ctx context.Context, h *House) error {
		err := h.known(ctx)
		last, lerr := h.lastEvent(ctx)
		for name, f := range map[string]store.Farewell{"another subject": goodbye("ADA", "a"), "another tenant": goodbye("ada", "b"), "another issuer": goodbye("ada", "c")} {
			switch name {
			case "another tenant":
				f.Tenant = ""
			case "another issuer":
				f.Issuer += "/"
			}
			out, oerr := h.SignOutIdentity(ctx, f, Noon, audit.Event{Type: audit.TypeLogout})
			_, again := h.SignOutIdentity(ctx, f, Noon)
			err = errors.Join(err, oerr, same(name, out.UserID, ""), is(name+", again", again, store.ErrSpent))
		}
		_, _, found := h.FindSession(ctx, session, Noon)
		types, terr := h.eventTypes(ctx, last)
		return errors.Join(err, lerr, terr, found, same("events", len(types), 0))
	}},
	{"OIDC-10 a farewell that could not be taken is not spent", func(ctx context.Context, h *House) error {
		err := h.known(ctx)
		ended, end := context.WithCancel(ctx)
		end()
		_, lost := h.SignOutIdentity(ended, goodbye("ada", "bye"), Noon)
		_, _, still := h.FindSession(ctx, session, Noon)
		out, oerr := h.SignOutIdentity(ctx, goodbye("ada", "bye"), Noon)
		return errors.Join(err, is("with an ended context", lost, context.Canceled), still, oerr,
			same("sessions", out.SIDs, []string{"sid of user-1"}))
	}},
	{"OIDC-10 a farewell is taken once, across replicas", func(ctx context.Context, h *House) error {
		if err := h.known(ctx); err != nil {
			return err
		}
		return h.replicas(func(s func(int) Store) error {
			return inFewRounds(func(n int) error {
				h.n++
				f := goodbye("ada", fmt.Sprint("bye ", h.n))
				return once(n, store.ErrSpent, func(i int) error {
					_, err := s(i).SignOutIdentity(ctx, f, Noon)
					return err
				})
			})
		})
	}},
}
