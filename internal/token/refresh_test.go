package token

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// signedIn returns a fresh grant of a public client and its refresh token.
func (h *house) signedIn(t *testing.T, client string, spoil ...func(*store.Grant)) (grantID, refresh string) {
	t.Helper()
	c := h.consent(t, client, spoil...)
	form := c.form()
	if client == keyed {
		form = h.assert(t, client, form)
	}
	return c.grantID, h.ok(t, form).get("refresh_token")
}

func TestRefresh(t *testing.T) {
	h := newHouse(t)
	t.Run("TOK-11, TOK-13, TOK-21 a refresh token is replaced by the next", func(t *testing.T) {
		id, first := h.signedIn(t, public)
		h.clock.move(time.Hour)
		r := h.ok(t, refreshForm(public, first))
		if r.get("refresh_token") == "" || r.get("refresh_token") == first || r.get("scope") != "read write" || r.json["expires_in"] != 600.0 {
			t.Fatalf("answer %s", r.body)
		}
		if a := h.claims(t, r); a.GrantID != id || a.Audience != mcp || !a.AuthTime.Equal(h.clock.now().Add(-time.Hour)) {
			t.Fatalf("token %+v", a)
		}
		h.ok(t, refreshForm(public, r.get("refresh_token")))
	})
	t.Run("TOK-13 a narrower scope is for one access token; the next refresh token has it all", func(t *testing.T) {
		_, first := h.signedIn(t, public)
		form := refreshForm(public, first)
		form.Set("scope", "read")
		form.Set("resource", mcp)
		r := h.ok(t, form)
		if r.get("scope") != "read" || h.claims(t, r).Scopes.String() != "read" {
			t.Fatalf("scope %q", r.get("scope"))
		}
		if r = h.ok(t, refreshForm(public, r.get("refresh_token"))); r.get("scope") != "read write" {
			t.Fatalf("scope %q", r.get("scope"))
		}
	})
	t.Run("TOK-13 an implied scope is within what was granted", func(t *testing.T) {
		_, first := h.signedIn(t, public)
		form := refreshForm(public, first)
		form.Set("scope", "list")
		if r := h.ok(t, form); r.get("scope") != "list" {
			t.Fatalf("scope %q", r.get("scope"))
		}
	})
	t.Run("mistake 26: offline_access in the scope of a refresh is a wish", func(t *testing.T) {
		_, first := h.signedIn(t, public)
		form := refreshForm(public, first)
		form.Set("scope", "read offline_access")
		if r := h.ok(t, form); r.get("scope") != "read" {
			t.Fatalf("scope %q", r.get("scope"))
		}
	})
	t.Run("mistake 39: a hundred refreshes in a row", func(t *testing.T) {
		_, token := h.signedIn(t, public)
		for range 100 {
			token = h.ok(t, refreshForm(public, token)).get("refresh_token")
		}
	})
}

// TestSpoiledRefresh spoils one thing per row. The refresh token survives.
func TestSpoiledRefresh(t *testing.T) {
	set := func(name, value string) func(*testing.T, *house, url.Values) {
		return func(_ *testing.T, _ *house, f url.Values) { f.Set(name, value) }
	}
	rule := func(r policy.Rule) func(*testing.T, *house, url.Values) {
		return func(t *testing.T, h *house, _ url.Values) {
			r.Name, r.Client = "rule", public
			if r.Action == "" {
				r.Action = policy.Allow
			}
			h.people.rules(t, r)
		}
	}
	for _, row := range []struct {
		name  string
		want  oauth.Code
		spoil func(*testing.T, *house, url.Values)
	}{
		{"TOK-13, attack RF-06: a wider scope", oauth.InvalidScope, set("scope", "read admin")},
		{"TOK-13, attack RF-06: a scope that nobody knows", oauth.InvalidScope, set("scope", "everything")},
		{"TOK-13 a scope that is none", oauth.InvalidScope, set("scope", `re"ad`)},
		{"TOK-07, attack RF-06: another resource", oauth.InvalidTarget, set("resource", notes)},
		{"TOK-13, attack RF-05: another client", oauth.InvalidGrant, set("client_id", other)},
		{"an unknown client is invalid_client", oauth.InvalidClient, set("client_id", "https://nobody.test/c")},
		{"a dead refresh token is invalid_grant", oauth.InvalidGrant, set("refresh_token", oauth.RandomToken(32))},
		{"TOK-01 no refresh token", oauth.InvalidRequest, func(_ *testing.T, _ *house, f url.Values) { f.Del("refresh_token") }},
		{"TOK-16, TOK-20, attack RF-05: the document withdrew the grant", oauth.UnauthorizedClient, func(_ *testing.T, h *house, _ url.Values) {
			h.people.clients[public].GrantTypes = []string{oauth.GrantAuthorizationCode}
		}},
		{"TOK-16, attack RF-05: the client was blocked", oauth.UnauthorizedClient, func(_ *testing.T, h *house, _ url.Values) {
			h.people.clients[public].State = directory.StateBlocked
		}},
		{"TOK-16, POL-05, mistake 29: the policy refuses the client", oauth.UnauthorizedClient, rule(policy.Rule{Action: policy.Deny})},
		{"TOK-20 the policy takes refresh tokens away", oauth.UnauthorizedClient, rule(policy.Rule{Refresh: policy.RefreshNever})},
		{"POL-05 the policy takes the resource away", oauth.InvalidGrant, rule(policy.Rule{Resources: []string{notes}})},
		{"POL-05 the policy takes every scope away", oauth.InvalidGrant, rule(policy.Rule{HasScopes: true})},
		{"POL-05, TOK-16: the resource is no more", oauth.InvalidGrant, func(t *testing.T, h *house, _ url.Values) {
			set := *h.people.policy()
			set.Resources = set.Resources[1:]
			if err := set.Check(); err != nil {
				t.Fatal(err)
			}
			h.people.set = &set
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHouse(t)
			_, token := h.signedIn(t, public)
			form := refreshForm(public, token)
			row.spoil(t, h, form)
			h.refused(t, row.want, form)
			h.people.rules(t)
			c := h.people.clients[public]
			c.GrantTypes, c.State = []string{"authorization_code", "refresh_token"}, directory.StateAllowed
			h.ok(t, refreshForm(public, token))
		})
	}
	t.Run("attack DO-28: the policy's ceiling narrows the next access token", func(t *testing.T) {
		h := newHouse(t)
		_, token := h.signedIn(t, public)
		h.people.rules(t, policy.Rule{Name: "r", Client: public, Action: policy.Allow, Scopes: oauth.Scopes{"read"}, HasScopes: true})
		if r := h.ok(t, refreshForm(public, token)); r.get("scope") != "read" {
			t.Fatalf("scope %q", r.get("scope"))
		}
	})
}

func TestReuse(t *testing.T) {
	t.Run("TOK-11, attack RF-01: an old refresh token ends the whole family", func(t *testing.T) {
		h := newHouse(t)
		id, first := h.signedIn(t, public)
		second := h.ok(t, refreshForm(public, first)).get("refresh_token")
		h.clock.move(11 * time.Second)
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first))
		if h.active(t, id) {
			t.Fatal("the grant still lives")
		}
		h.refused(t, oauth.InvalidGrant, refreshForm(public, second))
		events := h.events(t, audit.TypeReuse)
		if len(events) != 1 || events[0].Grant != id || events[0].Rule != "TOK-11" || events[0].Client != public {
			t.Fatalf("events %+v", events)
		}
	})
	t.Run("TOK-12, attack RF-03: a lost answer can be asked for again", func(t *testing.T) {
		h := newHouse(t)
		id, first := h.signedIn(t, public)
		lost := h.ok(t, refreshForm(public, first))
		h.clock.move(time.Second)
		again := h.ok(t, refreshForm(public, first))
		if again.get("refresh_token") != lost.get("refresh_token") || again.get("access_token") == lost.get("access_token") {
			t.Fatal("TOK-12: the same successor, and a fresh access token")
		}
		h.clock.move(9 * time.Second) // the last instant of the grace
		h.ok(t, refreshForm(public, first))
		third := h.ok(t, refreshForm(public, again.get("refresh_token")))
		if !h.active(t, id) || third.get("refresh_token") == "" || len(h.events(t, audit.TypeReuse)) != 0 {
			t.Fatal("the family was destroyed")
		}
	})
	t.Run("TOK-12 the grace ends when the successor was used", func(t *testing.T) {
		h := newHouse(t)
		id, first := h.signedIn(t, public)
		second := h.ok(t, refreshForm(public, first)).get("refresh_token")
		h.ok(t, refreshForm(public, second))
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first))
		if h.active(t, id) {
			t.Fatal("the grant still lives")
		}
	})
	t.Run("TOK-12 the grace is for the same client only, and another one cannot end the family", func(t *testing.T) {
		h := newHouse(t)
		id, first := h.signedIn(t, public)
		h.ok(t, refreshForm(public, first))
		h.refused(t, oauth.InvalidGrant, refreshForm(other, first))
		h.clock.move(time.Minute)
		h.refused(t, oauth.InvalidGrant, refreshForm(other, first))
		if !h.active(t, id) {
			t.Fatal("the grant was ended by a stranger")
		}
	})
	t.Run("TOK-12 scope is narrowed in the grace as well", func(t *testing.T) {
		h := newHouse(t)
		_, first := h.signedIn(t, public)
		h.ok(t, refreshForm(public, first))
		form := refreshForm(public, first)
		form.Set("scope", "admin")
		h.refused(t, oauth.InvalidScope, form)
		form.Set("scope", "read")
		if r := h.ok(t, form); r.get("scope") != "read" {
			t.Fatalf("scope %q", r.get("scope"))
		}
	})
	t.Run("TOK-11, attack RF-01: an old refresh token that comes back after weeks ends the family as well", func(t *testing.T) {
		h := newHouse(t)
		id, stolen := h.signedIn(t, public)
		thief := h.ok(t, refreshForm(public, stolen)).get("refresh_token")
		for range 7 { // the thief goes on, the owner is away
			h.clock.move(10 * 24 * time.Hour)
			thief = h.ok(t, refreshForm(public, thief)).get("refresh_token")
			if _, err := h.store.Prune(t.Context(), h.clock.now()); err != nil {
				t.Fatal(err)
			}
		}
		h.refused(t, oauth.InvalidGrant, refreshForm(public, stolen))
		if events := h.events(t, audit.TypeReuse); h.active(t, id) || len(events) != 1 {
			t.Fatalf("the thief's chain still lives; events %v", events)
		}
		h.refused(t, oauth.InvalidGrant, refreshForm(public, thief))
	})
	t.Run("TOK-12, attack FA-11, attack FA-12: a clock that went back does not lengthen the grace", func(t *testing.T) {
		h := newHouse(t)
		h.clock.move(time.Hour)
		id, first := h.signedIn(t, public)
		h.ok(t, refreshForm(public, first))
		h.clock.move(-90 * time.Second) // another replica has another clock
		h.ok(t, refreshForm(public, first))
		h.clock.move(-time.Hour)
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first))
		if h.active(t, id) {
			t.Fatal("the grant still lives")
		}
	})
	t.Run("TOK-11 what somebody made up who held a token of the family ends the family, also within the grace", func(t *testing.T) {
		h := newHouse(t)
		id, first := h.signedIn(t, public)
		h.ok(t, refreshForm(public, first))
		raw := slices.Clone(splitRefresh(first))
		raw[ownAt] ^= 1
		h.refused(t, oauth.InvalidGrant, refreshForm(public, base64.RawURLEncoding.EncodeToString(raw)))
		if events := h.events(t, audit.TypeReuse); h.active(t, id) || len(events) != 1 {
			t.Fatalf("the grant lives; events %v", events)
		}
	})
	t.Run("TOK-16 what somebody made up who held none changes nothing", func(t *testing.T) {
		h := newHouse(t)
		id, first := h.signedIn(t, public)
		second := h.ok(t, refreshForm(public, first)).get("refresh_token")
		for name, at := range map[string]int{"another family": 0, "the newest, but for its own part": ownAt, "from the future": familySize} {
			raw := slices.Clone(splitRefresh(second))
			raw[at] ^= 1
			h.refused(t, oauth.InvalidGrant, refreshForm(public, base64.RawURLEncoding.EncodeToString(raw)))
			if !h.active(t, id) {
				t.Fatal(name + ": the grant ended")
			}
		}
		h.ok(t, refreshForm(public, second))
	})
	t.Run("TOK-23 what is kept for the grace opens with the old token only", func(t *testing.T) {
		sealed, err := sealGrace("old", "grant", "next")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := openGrace("old", "grant", sealed); err != nil || got != "next" {
			t.Fatalf("%q, %v", got, err)
		}
		for _, row := range [][2]string{{"other", "grant"}, {"old", "another grant"}} {
			if _, err := openGrace(row[0], row[1], sealed); err == nil {
				t.Error("opened")
			}
		}
	})
}

func TestStrength(t *testing.T) {
	h := newHouse(t)
	// either may come with a key or without
	withKey := func(t *testing.T) string {
		t.Helper()
		return h.ok(t, h.assert(t, either, h.consent(t, either).form())).get("refresh_token")
	}
	t.Run("DOC-18 a grant that began with a key cannot go on without one", func(t *testing.T) {
		token := withKey(t)
		h.refused(t, oauth.InvalidClient, refreshForm(either, token))
		r := h.ok(t, h.assert(t, either, refreshForm(either, token)))
		h.refused(t, oauth.InvalidClient, refreshForm(either, token)) // not in the grace either
		h.clock.move(time.Minute)
		h.refused(t, oauth.InvalidClient, refreshForm(either, token)) // and that ends nothing
		h.ok(t, h.assert(t, either, refreshForm(either, r.get("refresh_token"))))
	})
	t.Run("DOC-18 one that began without a key may use one", func(t *testing.T) {
		token := h.ok(t, h.consent(t, either).form()).get("refresh_token")
		h.ok(t, h.assert(t, either, refreshForm(either, token)))
	})
	t.Run("DOC-18 the key may be another one", func(t *testing.T) {
		token := withKey(t)
		before := h.key
		defer func() { h.key = before; h.people.keys.Keys = h.people.keys.Keys[:1] }()
		next := newHouse(t).key
		h.people.keys.Keys = append(h.people.keys.Keys, next.Public())
		h.key = next
		h.ok(t, h.assert(t, either, refreshForm(either, token)))
	})
}

func TestEnds(t *testing.T) {
	t.Run("TOK-14 a refresh token that is not used ends after 14 days", func(t *testing.T) {
		h := newHouse(t)
		_, token := h.signedIn(t, public)
		h.clock.move(14*24*time.Hour - time.Second)
		token = h.ok(t, refreshForm(public, token)).get("refresh_token")
		h.clock.move(14 * 24 * time.Hour)
		h.refused(t, oauth.InvalidGrant, refreshForm(public, token))
	})
	t.Run("TOK-14 a family ends after 90 days, however busy", func(t *testing.T) {
		h := newHouse(t)
		_, token := h.signedIn(t, public)
		for range 8 {
			h.clock.move(11 * 24 * time.Hour)
			token = h.ok(t, refreshForm(public, token)).get("refresh_token")
		}
		h.clock.move(2*24*time.Hour - time.Second)
		token = h.ok(t, refreshForm(public, token)).get("refresh_token")
		h.clock.move(time.Second)
		h.refused(t, oauth.InvalidGrant, refreshForm(public, token))
	})
	for name, end := range map[string]func(*testing.T, *house, string) error{
		"TOK-16, attack RF-08: the user was disabled": func(t *testing.T, h *house, _ string) error {
			return h.store.DisableUser(t.Context(), "user-1", h.clock.now())
		},
		"TOK-14, attack RF-08: the password was changed": func(t *testing.T, h *house, _ string) error {
			return h.store.SetPassword(t.Context(), "user-1", "y", h.clock.now())
		},
		"TOK-16, attack RF-08: the consent was revoked": func(t *testing.T, h *house, _ string) error {
			return h.store.RevokeUserClient(t.Context(), "user-1", public, h.clock.now())
		},
		"TOK-16, REV-06, mistake 29: the client was blocked": func(t *testing.T, h *house, _ string) error {
			return h.store.SetClientState(t.Context(), public, store.StateBlocked, "spam", h.clock.now())
		},
		"TOK-16 the grant was ended": func(t *testing.T, h *house, id string) error {
			return h.store.RevokeGrant(t.Context(), id, "test", h.clock.now())
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			c := h.consent(t, public)
			id, token := h.signedIn(t, public)
			r := h.ok(t, refreshForm(public, token))
			if err := end(t, h, id); err != nil {
				t.Fatal(err)
			}
			h.refused(t, oauth.InvalidGrant, refreshForm(public, r.get("refresh_token")))
			h.refused(t, oauth.InvalidGrant, refreshForm(public, token)) // nor in the grace
			if name != "TOK-16 the grant was ended" {
				h.refused(t, oauth.InvalidGrant, c.form()) // nor a code that is still out
			}
			st := h.post("/introspect", url.Values{"token": {r.get("access_token")}}, "Authorization", basicAuth(mcp, mcpSecret))
			if st.json["active"] != false {
				t.Fatalf("REV-06: the access token is still active: %s", st.body)
			}
		})
	}
	t.Run("attack RF-08: our signing key was rotated", func(t *testing.T) {
		h := newHouse(t)
		_, token := h.signedIn(t, public)
		if err := h.cfg.Keys.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.clock.move(2 * time.Hour)
		r := h.ok(t, refreshForm(public, token))
		h.claims(t, r)
	})
	t.Run("attack RF-10, mistake 32: another installation of the same client goes on", func(t *testing.T) {
		h := newHouse(t)
		_, laptop := h.signedIn(t, public)
		_, phone := h.signedIn(t, public)
		if r := h.post("/revoke", url.Values{"client_id": {public}, "token": {laptop}}); r.status != http.StatusOK {
			t.Fatalf("status %d", r.status)
		}
		h.refused(t, oauth.InvalidGrant, refreshForm(public, laptop))
		h.ok(t, refreshForm(public, phone))
	})
}

func TestRefreshRaces(t *testing.T) {
	h := newHouse(t)
	t.Run("TOK-12, TOK-22, attack RF-02: 16 racers get the same successor, and there is one chain", func(t *testing.T) {
		for range 15 {
			id, token := h.signedIn(t, public)
			successors := map[string]bool{}
			for _, r := range race(16, func() response { return h.post("/token", refreshForm(public, token)) }) {
				if r.status != http.StatusOK {
					t.Fatalf("status %d: %s", r.status, r.body)
				}
				successors[r.get("refresh_token")] = true
			}
			if len(successors) != 1 || !h.active(t, id) {
				t.Fatalf("%d successors", len(successors))
			}
			for next := range successors {
				h.ok(t, refreshForm(public, next))
			}
		}
	})
	t.Run("attack RF-02: racers with the old token and its successor never get two chains", func(t *testing.T) {
		for range 10 {
			id, old := h.signedIn(t, public)
			next := h.ok(t, refreshForm(public, old)).get("refresh_token")
			var turn atomic.Int32
			heads := map[string]bool{}
			for _, r := range race(8, func() response {
				return h.post("/token", refreshForm(public, []string{old, next}[turn.Add(1)%2]))
			}) {
				if got := r.get("refresh_token"); got != "" && got != next {
					heads[got] = true
				}
			}
			if len(heads) > 1 {
				t.Fatalf("%d heads", len(heads))
			}
			if h.active(t, id) {
				continue // the old token came before its successor was used
			}
			for head := range heads {
				h.refused(t, oauth.InvalidGrant, refreshForm(public, head))
			}
		}
	})
}

// flaky is a store whose verbs fail, each when it is told to.
type flaky struct {
	Grants
	Denials
	find, redeem, rotate, revoke, deny, active error
}

func (f *flaky) FindRefresh(ctx context.Context, ref store.RefreshRef, now time.Time) (store.Refresh, store.Grant, error) {
	if f.find != nil {
		return store.Refresh{}, store.Grant{}, f.find
	}
	return f.Grants.FindRefresh(ctx, ref, now)
}

func (f *flaky) FindCode(ctx context.Context, h store.Hash, now time.Time) (store.Code, error) {
	if f.find != nil {
		return store.Code{}, f.find
	}
	return f.Grants.FindCode(ctx, h, now)
}

func (f *flaky) RedeemCode(ctx context.Context, r store.Redemption, now time.Time) (store.Grant, error) {
	if f.redeem != nil {
		return store.Grant{}, f.redeem
	}
	return f.Grants.RedeemCode(ctx, r, now)
}

func (f *flaky) RotateRefresh(ctx context.Context, r store.Rotation, now time.Time) error {
	if f.rotate != nil {
		return f.rotate
	}
	return f.Grants.RotateRefresh(ctx, r, now)
}

func (f *flaky) RevokeGrant(ctx context.Context, id, why string, now time.Time, e ...audit.Event) error {
	if f.revoke != nil {
		return f.revoke
	}
	return f.Grants.RevokeGrant(ctx, id, why, now, e...)
}

func (f *flaky) GrantActive(ctx context.Context, id string) (store.Grant, error) {
	if f.active != nil {
		return store.Grant{}, f.active
	}
	return f.Grants.GrantActive(ctx, id)
}

func (f *flaky) DenyToken(ctx context.Context, jti string, expires time.Time, e ...audit.Event) error {
	if f.deny != nil {
		return f.deny
	}
	return f.Denials.DenyToken(ctx, jti, expires, e...)
}

func TestOurOwnFailures(t *testing.T) {
	h := newHouse(t)
	f := &flaky{Grants: h.store, Denials: h.store}
	h.cfg.Grants, h.cfg.Denials = f, f
	boom := errors.New("disk on fire")
	server := func(t *testing.T, path string, form url.Values, headers ...string) {
		t.Helper()
		r := h.post(path, form, headers...)
		if r.status != http.StatusInternalServerError || r.get("error") != string(oauth.ServerError) {
			t.Fatalf("status %d: %s", r.status, r.body)
		}
	}
	t.Run("URL-15, mistake 35: a store that fails is server_error, and nothing is burned", func(t *testing.T) {
		c := h.consent(t, public)
		f.find = boom
		server(t, "/token", c.form())
		server(t, "/token", refreshForm(public, "x"))
		server(t, "/revoke", url.Values{"client_id": {public}, "token": {"x"}})
		f.find, f.redeem = nil, boom
		server(t, "/token", c.form())
		f.redeem = nil
		r := h.ok(t, c.form())
		f.rotate = boom
		server(t, "/token", refreshForm(public, r.get("refresh_token")))
		f.rotate = nil
		r = h.ok(t, refreshForm(public, r.get("refresh_token")))
		f.revoke, f.deny, f.active = boom, boom, boom
		server(t, "/revoke", url.Values{"client_id": {public}, "token": {r.get("refresh_token")}})
		server(t, "/revoke", url.Values{"client_id": {public}, "token": {r.get("access_token")}})
		server(t, "/introspect", url.Values{"token": {r.get("access_token")}}, "Authorization", basicAuth(mcp, mcpSecret))
		server(t, "/token", c.form()) // a replay that cannot be acted upon
		f.revoke, f.deny, f.active = nil, nil, nil
	})
	t.Run("a rotation that is refused as spent although it is not", func(t *testing.T) {
		_, token := h.signedIn(t, public)
		f.rotate = store.ErrSpent
		server(t, "/token", refreshForm(public, token))
		f.rotate = nil
		h.ok(t, refreshForm(public, token))
	})
	t.Run("TOK-16 what ended between the check and the commit is invalid_grant", func(t *testing.T) {
		_, token := h.signedIn(t, public)
		f.rotate = store.ErrEnded
		h.refused(t, oauth.InvalidGrant, refreshForm(public, token))
		f.rotate = nil
		f.redeem = store.ErrExpired
		h.refused(t, oauth.InvalidGrant, h.consent(t, public).form())
		f.redeem = nil
	})
}

func TestConfig(t *testing.T) {
	h := newHouse(t)
	for name, spoil := range map[string]func(*Config){
		"no issuer":         func(c *Config) { c.Issuer = "" },
		"no clients":        func(c *Config) { c.Clients = nil },
		"no store":          func(c *Config) { c.Grants = nil },
		"no keys":           func(c *Config) { c.Keys = nil },
		"no audit":          func(c *Config) { c.Audit = nil },
		"negative lifetime": func(c *Config) { c.Access = -1 },
		"TOK-12, attack RF-02: a grace of a minute": func(c *Config) { c.Grace = time.Minute },
	} {
		c := h.cfg
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
