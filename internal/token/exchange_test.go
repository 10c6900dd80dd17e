package token

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/google/go-cmp/cmp"
)

// broken is a store of identities that says the same to everything.
type broken struct{ err error }

func (b broken) UserByIdentity(context.Context, string, string, string) (store.User, error) {
	return store.User{}, b.err
}
func (b broken) UserByEmail(context.Context, string) (store.User, error) { return store.User{}, b.err }
func (b broken) LinkIdentity(context.Context, store.Identity, *store.User, ...audit.Event) error {
	return b.err
}

func swap(token string, changes ...string) url.Values {
	f := url.Values{
		"grant_type": {oauth.GrantTokenExchange}, "subject_token": {token}, "subject_token_type": {oauth.TokenTypeAccess}, "resource": {notes},
	}
	for i := 0; i+1 < len(changes); i += 2 {
		if f.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			f.Del(changes[i])
		}
	}
	return f
}

func TestExchange(t *testing.T) {
	h := newAgents(t)
	c := h.consent(t, public)
	user := h.ok(t, c.form()).get("access_token")
	t.Run("XCH-12 a token for one resource becomes one for another, and says who acts", func(t *testing.T) {
		r := h.ok(t, h.assert(t, agent, swap(user, "requested_token_type", oauth.TokenTypeAccess)))
		a := h.claims(t, r)
		if a.Subject != "user-1" || a.ClientID != agent || a.Audience != notes || a.Scopes.String() != "read" || a.ClientOnly || a.ACR != "pwd" {
			t.Errorf("token %+v", a)
		}
		if a.Actor != `{"sub":"agent"}` || !cmp.Equal(a.Origins, []string{c.grantID}) {
			t.Errorf("act %s, origins %v", a.Actor, a.Origins)
		}
		if r.get("issued_token_type") != oauth.TokenTypeAccess || r.json["refresh_token"] != nil || r.json["id_token"] != nil {
			t.Errorf("answer %s", r.body)
		}
		st := h.post("/introspect", url.Values{"token": {r.get("access_token")}}, "Authorization", basicAuth(notes, "another secret"))
		if act, _ := st.json["act"].(map[string]any); st.json["active"] != true || act["sub"] != agent || st.get("client_id") != agent || st.get("sub") != "user-1" {
			t.Errorf("introspection %s", st.body)
		}
		events := h.events(t, audit.TypeToken)
		if e := events[len(events)-1]; e.User != "user-1" || e.Client != agent || e.Data["origin"] != c.grantID || e.Data["from"] != mcp {
			t.Errorf("event %+v", e)
		}
	})
	t.Run("XCH-12 the chain of actors grows, and a rule says what scopes are worth", func(t *testing.T) {
		h.people.rules(t, policy.Rule{Client: keyed, Action: policy.Allow, Grants: everyGrant})
		defer h.people.rules(t)
		first := h.claims(t, h.ok(t, h.assert(t, agent, swap(user))))
		again := h.ok(t, h.assert(t, agent, swap(user))).get("access_token")
		a := h.claims(t, h.ok(t, h.assert(t, keyed, swap(again, "resource", mcp))))
		if a.Actor != `{"sub":"`+keyed+`","act":{"sub":"agent"}}` || a.Scopes.String() != "list" || len(a.Origins) != 2 || a.Origins[0] != c.grantID || first.GrantID == a.Origins[1] {
			t.Errorf("token %+v", a)
		}
	})
	t.Run("XCH-12 a target by its name", func(t *testing.T) {
		for _, audience := range []string{notes, "Notes"} {
			if a := h.claims(t, h.ok(t, h.assert(t, agent, swap(user, "resource", "", "audience", audience)))); a.Audience != notes {
				t.Errorf("token %+v", a)
			}
		}
	})
	t.Run("XCH-12 never longer than the presented token", func(t *testing.T) {
		h.clock.move(9 * time.Minute)
		r := h.ok(t, h.assert(t, agent, swap(user)))
		if a, subject := h.claims(t, r), h.claims(t, response{json: map[string]any{"access_token": user}}); !a.Expires.Equal(subject.Expires) || r.json["expires_in"] != 60.0 {
			t.Errorf("expires %v, %v", a.Expires, r.json["expires_in"])
		}
		h.clock.move(time.Minute)
		h.refused(t, oauth.InvalidRequest, h.assert(t, agent, swap(user)))
	})
	t.Run("XCH-12, REV-03, INT-02 what ends the first grant ends what was exchanged from it", func(t *testing.T) {
		c := h.consent(t, public)
		first := h.ok(t, c.form())
		swapped := h.ok(t, h.assert(t, agent, swap(first.get("access_token")))).get("access_token")
		active := func() any {
			return h.post("/introspect", url.Values{"token": {swapped}}, "Authorization", basicAuth(notes, "another secret")).json["active"]
		}
		if active() != true {
			t.Fatal("not active")
		}
		if r := h.post("/revoke", url.Values{"token": {first.get("refresh_token")}, "client_id": {public}}); r.status != 200 {
			t.Fatal(r.body)
		}
		if active() != false {
			t.Fatal("still active")
		}
		h.refused(t, oauth.InvalidRequest, h.assert(t, agent, swap(first.get("access_token"))))
	})
	t.Run("DPOP-02 the exchanged token is bound to the key of the actor", func(t *testing.T) {
		k := newKey(t)
		user := h.ok(t, h.consent(t, public).form()).get("access_token")
		if a := h.claims(t, h.ok(t, h.assert(t, agent, swap(user)), "DPoP", h.proof(t, k))); a.CnfJKT != k.Public().Thumbprint() {
			t.Errorf("token %+v", a)
		}
	})
	t.Run("XCH-12, DPOP-02 a bound token never becomes a bearer token", func(t *testing.T) {
		k := newKey(t)
		bound := h.ok(t, h.consent(t, public).form(), "DPoP", h.proof(t, k)).get("access_token")
		h.refused(t, oauth.InvalidRequest, h.assert(t, agent, swap(bound)))
		h.ok(t, h.assert(t, agent, swap(bound)), "DPoP", h.proof(t, newKey(t)))
	})
	t.Run("XCH-12 a chain has an end", func(t *testing.T) {
		actor := ""
		for i := range maxActors + 1 {
			next, err := act("agent", actor)
			if (err == nil) != (i < maxActors) {
				t.Fatalf("actor %d: %v", i+1, err)
			}
			actor = next
		}
		if _, err := act("agent", "[]"); err == nil {
			t.Error("an actor that is no object")
		}
	})
}

// TestSpoiledExchange spoils one member per row.
func TestSpoiledExchange(t *testing.T) {
	h := newAgents(t)
	first := h.ok(t, h.consent(t, public).form())
	user := first.get("access_token")
	own := h.ok(t, h.assert(t, agent, own("read", mcp))).get("access_token")
	foreign, err := newKey(t).Sign(oauth.TypAccessToken, map[string]any{"iss": issuer, "sub": "user-1", "aud": mcp, "client_id": public, "exp": h.clock.now().Unix() + 60, "jti": "1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name    string
		client  string
		want    oauth.Code
		changes []string
	}{
		{"no token", agent, oauth.InvalidRequest, []string{"subject_token", ""}},
		{"a token of nobody", agent, oauth.InvalidRequest, []string{"subject_token", "abc"}},
		{"a token with another signature", agent, oauth.InvalidRequest, []string{"subject_token", foreign}},
		{"a refresh token", agent, oauth.InvalidRequest, []string{"subject_token", first.get("refresh_token")}},
		{"TOK-18 a token without a person", agent, oauth.InvalidRequest, []string{"subject_token", own}},
		{"another type of token", agent, oauth.InvalidRequest, []string{"subject_token_type", "urn:ietf:params:oauth:token-type:id_token"}},
		{"no type", agent, oauth.InvalidRequest, []string{"subject_token_type", ""}},
		{"a refresh token is wanted", agent, oauth.InvalidRequest, []string{"requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"}},
		{"an actor token", agent, oauth.InvalidRequest, []string{"actor_token", user, "actor_token_type", oauth.TokenTypeAccess}},
		{"no target", agent, oauth.InvalidRequest, []string{"resource", ""}},
		{"a target that is none", agent, oauth.InvalidTarget, []string{"resource", "https://other.test/"}},
		{"an audience that is none", agent, oauth.InvalidTarget, []string{"audience", "Other"}},
		{"resource and audience disagree", agent, oauth.InvalidTarget, []string{"audience", mcp}},
		{"a target that no rule allows", agent, oauth.InvalidTarget, []string{"resource", "https://quiet.test/"}},
		{"a presented token that no rule allows", keyed, oauth.InvalidTarget, nil},
		{"a client that no rule names", either, oauth.InvalidTarget, nil},
		{"a scope that the presented token does not have", agent, oauth.InvalidScope, []string{"scope", "admin"}},
		{"a malformed scope", agent, oauth.InvalidScope, []string{"scope", `a"b`}},
	} {
		t.Run("XCH-12 "+row.name, func(t *testing.T) {
			h.people.rules(t, policy.Rule{Client: keyed, Action: policy.Allow, Grants: everyGrant}, policy.Rule{Client: either, Action: policy.Allow, Grants: everyGrant})
			defer h.people.rules(t)
			h.people.clients[either].GrantTypes = everyGrant
			h.refused(t, row.want, h.assert(t, row.client, swap(user, row.changes...)))
		})
	}
	t.Run("XCH-12, POL-03 the policy leaves no scope of the target", func(t *testing.T) {
		h.people.rules(t, policy.Rule{Client: agent, Action: policy.Allow, Scopes: oauth.Scopes{"write"}, HasScopes: true})
		defer h.people.rules(t)
		h.refused(t, oauth.InvalidScope, h.assert(t, agent, swap(user)))
	})
	t.Run("XCH-12, XCH-08 a client that only names itself", func(t *testing.T) {
		h.refused(t, oauth.UnauthorizedClient, swap(user, "client_id", public))
	})
	t.Run("XCH-12 a token that was denied", func(t *testing.T) {
		if r := h.post("/revoke", url.Values{"token": {user}, "client_id": {public}}); r.status != 200 {
			t.Fatal(r.body)
		}
		h.refused(t, oauth.InvalidRequest, h.assert(t, agent, swap(user)))
	})
}
