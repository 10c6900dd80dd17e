package token

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/google/go-cmp/cmp"
)

// opening is a store that remembers what was opened and linked.
type opening struct {
	Grants
	Identities
	opened store.Opening
	at     time.Time
	links  []store.Identity
	users  []*store.User
	fails  error
}

func (o *opening) OpenGrant(ctx context.Context, g store.Opening, now time.Time) (store.Grant, error) {
	o.opened, o.at = g, now
	if o.fails != nil {
		return store.Grant{}, o.fails
	}
	return o.Grants.OpenGrant(ctx, g, now)
}

func (o *opening) LinkIdentity(ctx context.Context, id store.Identity, create *store.User, events ...audit.Event) error {
	o.links, o.users = append(o.links, id), append(o.users, create)
	return o.Identities.LinkIdentity(ctx, id, create, events...)
}

func TestWhatIsKeptOfAGrantWithoutAConsent(t *testing.T) {
	h := newAgents(t)
	o := &opening{Grants: h.store, Identities: h.store}
	h.cfg.Grants, h.cfg.Identities = o, o
	heard := overheard(t, h)
	k := newKey(t)
	t.Run("TOK-17, DPOP-02 the grant of a client that acts for itself says how it proved itself and which key its tokens have", func(t *testing.T) {
		h.people.clients[agent].SecurityDigest = "digest"
		r := h.ok(t, h.assert(t, agent, own("read", mcp)), "DPoP", h.proof(t, k))
		now := h.clock.now()
		got := o.opened.Grant
		want := store.Grant{
			ID: got.ID, Kind: store.KindClient, ClientID: agent, Resource: mcp, Scopes: oauth.Scopes{"read"}, SecurityDigest: "digest",
			AuthMethods: []string{oauth.MethodPrivateKeyJWT}, AuthMethod: oauth.MethodPrivateKeyJWT, KeyThumbprint: h.key.Public().Thumbprint(), JKT: k.Public().Thumbprint(),
		}
		if diff := cmp.Diff(want, got); diff != "" || !o.at.Equal(now) || got.ID < store.NewID(now.Add(-time.Hour)) || got.ID > store.NewID(now.Add(time.Hour)) {
			t.Errorf("%s at %v (-want +got):\n%s", got.ID, o.at, diff)
		}
		e := heard(t)
		e.Ref = ""
		wantEvent(t, e, audit.Event{Time: now, Type: audit.TypeToken, IP: "192.0.2.1", Client: agent, Grant: got.ID, Resource: mcp,
			Data: map[string]string{"jti": h.claims(t, r).JTI, "scope": "read", "method": "private_key_jwt", "grant_type": oauth.GrantClientCredentials}})
	})
	t.Run("ATT-08, DPOP-07 and which instance and certificate", func(t *testing.T) {
		is := &issue{now: h.clock.now(), client: &clientauth.Client{Client: &directory.Client{ID: agent}, InstanceJKT: "instance", CertThumbprint: "cert"}}
		if is.open(store.KindClient, mcp, nil); is.grant.InstanceJKT != "instance" || is.grant.CertThumbprint != "cert" {
			t.Errorf("%+v", is.grant)
		}
	})
	t.Run("TOK-17 the document of a client that nobody agreed to is kept with its first grant", func(t *testing.T) {
		h.people.rules(t, policy.Rule{Client: keyed, Action: policy.Allow, Grants: everyGrant})
		defer h.people.rules(t)
		h.people.clients[keyed].Doc = &cimd.Document{Name: "Keyed", Raw: []byte(`{"client_id":"` + keyed + `"}`), Digest: "d", SecurityDigest: "s"}
		defer func() { h.people.clients[keyed].Doc = nil }()
		h.post("/token", h.assert(t, keyed, own("read", mcp)))
		if c, d := o.opened.Client, o.opened.Document; c == nil || d == nil || c.ID != keyed || !c.Created.Equal(h.clock.now()) || d.Digest != "d" {
			t.Errorf("%+v %+v", c, d)
		}
	})
	for name, r := range map[string]struct {
		err  error
		code oauth.Code
		rule string
	}{
		"TOK-16 the account has ended":              {store.ErrEnded, oauth.InvalidGrant, "TOK-16"},
		"POL-05 the client was blocked":             {store.ErrBlocked, oauth.UnauthorizedClient, "POL-05"},
		"the client was changed at this moment":     {store.ErrConflict, oauth.TemporarilyUnavailable, ""},
		"XCH-04 what is good once was used before":  {store.ErrSpent, oauth.InvalidGrant, "XCH-04"},
		"URL-15 the store does not answer":          {errors.New("disk"), oauth.ServerError, ""},
		"TOK-16 the account is not there any more":  {store.ErrNotFound, oauth.InvalidGrant, "TOK-16"},
		"TOK-16 the account was there for too long": {store.ErrExpired, oauth.InvalidGrant, "TOK-16"},
	} {
		t.Run(name+": no token", func(t *testing.T) {
			o.fails = r.err
			defer func() { o.fails = nil }()
			got := h.post("/token", h.assert(t, agent, own("read", mcp)))
			if got.get("error") != string(r.code) || got.get("rule") != r.rule || got.json["access_token"] != nil {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	t.Run("XCH-04, XCH-07 an assertion is spent for as long as it could come again, and the audit says whose it was", func(t *testing.T) {
		h.linkAda(t)
		issued := h.jag(map[string]any{"iss": idpEmail, "tenant": "acme", "jti": "once"})
		raw, err := h.idp.Sign(oauth.TypIDJAG, issued)
		if err != nil {
			t.Fatal(err)
		}
		r := h.ok(t, h.assert(t, agent, presented(raw)))
		now := h.clock.now()
		spent := o.opened.Spend
		if len(spent) != 1 || spent[0].ID != store.HashOf("once") || !spent[0].Expires.Equal(now.Add(6*time.Minute)) || !strings.Contains(spent[0].Issuer, idpEmail) {
			t.Errorf("%+v", spent)
		}
		e := heard(t)
		e.Ref = ""
		wantEvent(t, e, audit.Event{Time: now, Type: audit.TypeToken, IP: "192.0.2.1", Client: agent, User: "user-1", Grant: o.opened.Grant.ID, Resource: mcp,
			Data: map[string]string{"jti": h.claims(t, r).JTI, "scope": "read write", "method": "private_key_jwt", "grant_type": oauth.GrantJWTBearer,
				"issuer": idpEmail, "tenant": "acme", "id_jag": "once"}})
	})
	t.Run("XCH-10 a new account and its link, and what the audit says of them", func(t *testing.T) {
		o.links, o.users = nil, nil
		log := h.cfg.Audit
		var all []audit.Event
		h.cfg.Audit, _ = audit.New(audit.Config{Sink: h.store, Now: h.clock.now, Observe: func(e audit.Event) { all = append(all, e) }})
		defer func() { h.cfg.Audit.Close(context.Background()); h.cfg.Audit = log }()
		h.ok(t, h.vouch(t, map[string]any{"iss": idpCreate, "sub": "bob", "email": "bob@acme.test", "email_verified": true}))
		now, userID := h.clock.now(), o.opened.Grant.UserID
		want := []store.Identity{{Issuer: idpCreate, Subject: "bob", UserID: userID, Email: "bob@acme.test", Created: now, LastSeen: now}}
		if diff := cmp.Diff(want, o.links); diff != "" {
			t.Errorf("links (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]*store.User{{ID: userID, Name: "bob@acme.test", Email: "bob@acme.test", Created: now}}, o.users); diff != "" {
			t.Errorf("users (-want +got):\n%s", diff)
		}
		if len(all) != 2 {
			t.Fatalf("%+v", all)
		}
		e := all[0]
		e.Ref, e.Seq = "", 0
		wantEvent(t, e, audit.Event{Time: now, Type: audit.TypeUser, IP: "192.0.2.1", Client: agent, User: userID, Resource: mcp, Code: "added",
			Data: map[string]string{"issuer": idpCreate, "tenant": "", "subject": "bob", "by": "create"}})
		kept := h.events(t, audit.TypeUser)
		if k := kept[len(kept)-1]; k.User != userID || k.Code != "added" {
			t.Errorf("%+v", k)
		}
	})
	t.Run("XCH-12 what is kept of an exchange", func(t *testing.T) {
		subject := h.ok(t, h.consent(t, public).form())
		heard(t)
		from := h.claims(t, subject)
		form := url.Values{"grant_type": {oauth.GrantTokenExchange}, "subject_token": {subject.get("access_token")}, "subject_token_type": {oauth.TokenTypeAccess}, "resource": {notes}}
		r := h.ok(t, h.assert(t, agent, form))
		e := heard(t)
		e.Ref = ""
		wantEvent(t, e, audit.Event{Time: h.clock.now(), Type: audit.TypeToken, IP: "192.0.2.1", Client: agent, User: "user-1", Grant: o.opened.Grant.ID, Resource: notes,
			Data: map[string]string{"jti": h.claims(t, r).JTI, "scope": "read", "method": "private_key_jwt", "grant_type": oauth.GrantTokenExchange,
				"from": mcp, "from_jti": from.JTI, "origin": from.GrantID}})
		if g := o.opened.Grant; g.UserID != "user-1" || g.Kind != store.KindExchange || g.Actor != `{"sub":"agent"}` || !g.AuthTime.Equal(from.AuthTime) || g.ACR != "pwd" || !slices.Equal(g.AMR, []string{"pwd"}) {
			t.Errorf("%+v", g)
		}
	})
}

func TestTargetsOfAClientThatActsForItself(t *testing.T) {
	h := newAgents(t)
	set := h.people.set
	set.Resources[0].Default = oauth.Scopes{"read", "list"}
	t.Run("TOK-07 the default resource and its default scopes", func(t *testing.T) {
		h.refused(t, oauth.InvalidTarget, h.assert(t, agent, own("")))
		set.DefaultResource = mcp
		defer func() { set.DefaultResource = "" }()
		if r := h.ok(t, h.assert(t, agent, own(""))); r.get("scope") != "read list" || h.claims(t, r).Audience != mcp {
			t.Error(r.body)
		}
	})
	t.Run("TOK-07 a resource may be named twice, also by an alias, and a resource without scopes gives a token without", func(t *testing.T) {
		h.ok(t, h.assert(t, agent, own("read", mcp, mcp+"/")))
		if r := h.ok(t, h.assert(t, agent, own("", "https://quiet.test/"))); r.get("scope") != "" {
			t.Error(r.body)
		}
	})
	t.Run("TOK-09 two resources", func(t *testing.T) {
		if r := h.refused(t, oauth.InvalidTarget, h.assert(t, agent, own("read", mcp, notes))); r.get("rule") != "TOK-09" {
			t.Error(r.body)
		}
	})
	t.Run("POL-03 only the resources of the rule", func(t *testing.T) {
		h.people.rules(t, policy.Rule{Client: agent, Action: policy.Allow, Resources: []string{notes}})
		defer h.people.rules(t)
		h.ok(t, h.assert(t, agent, own("read", notes)))
		if r := h.refused(t, oauth.InvalidTarget, h.assert(t, agent, own("read", mcp))); r.get("rule") != "TOK-07" {
			t.Error(r.body)
		}
		h.linkAda(t)
		h.ok(t, h.vouch(t, map[string]any{"resource": notes}))
		if r := h.refused(t, oauth.InvalidGrant, h.vouch(t, nil)); r.get("rule") != "XCH-05" {
			t.Error(r.body)
		}
	})
}

func TestEdgesOfIdentityAssertions(t *testing.T) {
	h := newAgents(t)
	h.linkAda(t)
	type m = map[string]any
	now := h.clock.now().Unix()
	many := func(n int) []string { return slices.Repeat([]string{mcp}, n) }
	for _, r := range []struct {
		row   string
		spoil m
		rule  string // "" is accepted
	}{
		{row: "XCH-04 a jti of 512 bytes", spoil: m{"jti": strings.Repeat("j", 512)}},
		{row: "XCH-04 a jti of 513 bytes", spoil: m{"jti": strings.Repeat("j", 513)}, rule: "XCH-04"},
		{row: "XCH-04 ten minutes", spoil: m{"exp": now + 600}},
		{row: "XCH-04 a second more", spoil: m{"exp": now + 601}, rule: "XCH-04"},
		{row: "XCH-04 made a minute ahead, for ten minutes", spoil: m{"iat": now + 60, "exp": now + 660}},
		{row: "XCH-04 made an hour ahead", spoil: m{"iat": now + 3600, "exp": now + 3601}, rule: "XCH-04"},
		{row: "XCH-04 nbf a minute ahead", spoil: m{"nbf": now + 60}},
		{row: "XCH-04 nbf a minute ago", spoil: m{"nbf": now - 60}},
		{row: "XCH-04 nbf beyond a minute", spoil: m{"nbf": now + 61}, rule: "XCH-04"},
		{row: "XCH-04 nbf is no time", spoil: m{"nbf": 1e300}, rule: "XCH-04"},
		{row: "XCH-04 nbf at the beginning of time", spoil: m{"nbf": 0}},
		{row: "XCH-04 nbf before all time", spoil: m{"nbf": -1}, rule: "XCH-04"},
		{row: "XCH-04 auth_time is no time", spoil: m{"auth_time": 1e300}, rule: "XCH-04"},
		{row: "XCH-04 auth_time is missing", spoil: m{"auth_time": nil}},
		{row: "XCH-04 made long ago", spoil: m{"iat": now - 660, "exp": now + 1}, rule: "XCH-04"},
		{row: "XCH-05 sixteen names of one resource", spoil: m{"resource": many(16)}},
		{row: "XCH-05 seventeen", spoil: m{"resource": many(17)}, rule: "XCH-05"},
		{row: "XCH-05 a list with an empty one", spoil: m{"resource": []string{mcp, ""}}, rule: "XCH-05"},
		{row: "XCH-05 an empty one", spoil: m{"resource": ""}, rule: "XCH-05"},
		{row: "XCH-05 a number among them", spoil: m{"resource": []any{mcp, 7}}, rule: "XCH-05"},
		{row: "XCH-02 aud with an empty one", spoil: m{"aud": []string{issuer, ""}}, rule: "XCH-02"},
		{row: "XCH-02 aud is a list of another", spoil: m{"aud": []string{"https://evil.test"}}, rule: "XCH-02"},
		{row: "XCH-09 cnf of no key", spoil: m{"cnf": m{"jkt": ""}}, rule: "XCH-09"},
		{row: "XCH-09 cnf is a word", spoil: m{"cnf": "key"}, rule: "XCH-09"},
		{row: "XCH-06 a request without scope, an assertion with one", spoil: m{"scope": "list"}},
		{row: "XCH-03 client_id is missing", spoil: m{"client_id": nil}, rule: "XCH-03"},
	} {
		t.Run(r.row, func(t *testing.T) {
			if r.rule == "" {
				h.ok(t, h.vouch(t, r.spoil))
			} else if got := h.refused(t, oauth.InvalidGrant, h.vouch(t, r.spoil)); got.get("rule") != r.rule {
				t.Error(got.body)
			}
		})
	}
	t.Run("XCH-09 cnf with the right key and something else that nobody can check", func(t *testing.T) {
		k := newKey(t)
		jkt := k.Public().Thumbprint()
		h.ok(t, h.vouch(t, m{"cnf": m{"jkt": jkt}}), "DPoP", h.proof(t, k))
		for _, cnf := range []m{{"jkt": jkt, "x5t#S256": "c"}, {"jkt": []string{jkt}}, {"JKT": jkt}} {
			if r := h.refused(t, oauth.InvalidGrant, h.vouch(t, m{"cnf": cnf}), "DPoP", h.proof(t, k)); r.get("rule") != "XCH-09" {
				t.Error(r.body)
			}
		}
	})
	t.Run("XCH-04 the longest life that the operator gives, and no more", func(t *testing.T) {
		h.ok(t, h.vouch(t, m{"iss": idpCreate, "sub": "long", "exp": now + 3600, "email": nil}))
		if r := h.refused(t, oauth.InvalidGrant, h.vouch(t, m{"iss": idpCreate, "sub": "long", "exp": now + 3601})); r.get("rule") != "XCH-04" {
			t.Error(r.body)
		}
	})
	t.Run("XCH-06 an assertion without a scope stands for the default of the resource", func(t *testing.T) {
		h.people.set.Resources[0].Default = oauth.Scopes{"list"}
		defer h.people.rules(t)
		if r := h.ok(t, h.vouch(t, m{"scope": nil})); r.get("scope") != "list" {
			t.Error(r.body)
		}
	})
	t.Run("XCH-06 a resource without scopes needs none", func(t *testing.T) {
		h.ok(t, h.vouch(t, m{"resource": "https://quiet.test/", "scope": nil}))
	})
	t.Run("TOK-13 a scope of the request that is none", func(t *testing.T) {
		form := h.vouch(t, nil)
		form.Set("scope", `"`)
		h.refused(t, oauth.InvalidScope, form)
	})
	for name, spoil := range map[string]m{
		"no sub":                        {"sub": nil},
		"a sub without end":             {"sub": strings.Repeat("s", 513), "email": nil},
		"a sub with a line break":       {"sub": "a\nb", "email": nil},
		"an address without end":        {"email": strings.Repeat("e", 513)},
		"an address with a line break":  {"email": "a@b\nc"},
		"acr with a control character":  {"acr": "a\nb", "email": nil},
		"amr with a control character":  {"amr": []string{"a\nb"}, "email": nil},
		"amr with an empty one":         {"amr": []string{""}, "email": nil},
		"amr with two words in one":     {"amr": []string{"a b"}, "email": nil},
		"more amr than anybody has":     {"amr": slices.Repeat([]string{"a"}, 17), "email": nil},
		"a tenant with a line break":    {"iss": idpEmail, "tenant": "acme\n"},
		"a name of a direction of text": {"sub": "a\u202eb", "email": nil},
	} {
		t.Run("XCH-10 no account is made of "+name, func(t *testing.T) {
			claims := with(m{"iss": idpCreate, "sub": "new"}, spoil)
			users, err := h.store.Users(t.Context(), "", 1000)
			if err != nil {
				t.Fatal(err)
			}
			h.refused(t, oauth.InvalidGrant, h.vouch(t, claims))
			if after, err := h.store.Users(t.Context(), "", 1000); err != nil || len(after) != len(users) {
				t.Errorf("%d accounts, then %d, %v", len(users), len(after), err)
			}
		})
	}
	t.Run("XCH-10 what is as long as it may be", func(t *testing.T) {
		h.ok(t, h.vouch(t, m{"iss": idpCreate, "sub": strings.Repeat("s", 512), "amr": slices.Repeat([]string{"a"}, 16), "email": nil}))
	})
}

func with(members, changes map[string]any) map[string]any {
	for name, v := range changes {
		members[name] = v
	}
	return members
}

func TestDeviceEvents(t *testing.T) {
	h, _ := withDevices(t)
	heard := overheard(t, h)
	code, user := h.begun(t, public)
	h.agreed(t, public, user)
	r := h.ok(t, pollForm(public, code))
	e := heard(t)
	e.Ref = ""
	t.Run("POL-07, DEV-04 what the audit keeps of the tokens of a device", func(t *testing.T) {
		wantEvent(t, e, audit.Event{Time: h.clock.now(), Type: audit.TypeToken, IP: "192.0.2.1", Client: public, User: "user-1", Grant: h.claims(t, r).GrantID, Resource: mcp,
			Data: map[string]string{"jti": h.claims(t, r).JTI, "scope": "read write", "method": "none", "grant": "device_code"}})
	})
	t.Run("TOK-15 a device whose client gets no refresh token", func(t *testing.T) {
		h.people.rules(t, policy.Rule{Client: goose, Action: policy.Allow})
		code, user := h.begun(t, goose)
		h.agreed(t, goose, user)
		r := h.ok(t, pollForm(goose, code))
		if e := heard(t); e.Data["no_refresh"] == "" || r.json["refresh_token"] != nil {
			t.Errorf("%+v %s", e, r.body)
		}
	})
	t.Run("DEV-09 a rule that opens the flow", func(t *testing.T) {
		yes := true
		h.people.rules(t, policy.Rule{Client: public, Action: policy.Allow, Device: &yes})
		code, _ := h.begun(t, public)
		h.post("/token", pollForm(public, code)).is(t, 400, oauth.AuthorizationPending, "DEV-04")
	})
	t.Run("DEV-06 a device that began with a key goes on with it", func(t *testing.T) {
		k := newKey(t)
		code, user := h.begun(t, public, func(d *store.Device) { d.JKT = k.Public().Thumbprint() })
		h.agreed(t, public, user)
		h.post("/token", pollForm(public, code)).is(t, 400, oauth.InvalidGrant, "DEV-06")
		h.post("/token", pollForm(public, code), "DPoP", h.proof(t, newKey(t))).is(t, 400, oauth.InvalidGrant, "DEV-06")
		if r := h.ok(t, pollForm(public, code), "DPoP", h.proof(t, k)); r.get("token_type") != "DPoP" {
			t.Error(r.body)
		}
	})
	t.Run("DEV-06, DPOP-02 a device that began without one may come with one", func(t *testing.T) {
		code, user := h.begun(t, public)
		h.agreed(t, public, user)
		if r := h.ok(t, pollForm(public, code), "DPoP", h.proof(t, newKey(t))); r.get("token_type") != "DPoP" {
			t.Error(r.body)
		}
	})
	t.Run("DEV-04 who comes too early hears how often it may", func(t *testing.T) {
		code, _ := h.begun(t, public)
		h.post("/token", pollForm(public, code))
		for _, want := range []string{"every 10 seconds", "every 15 seconds"} {
			if r := h.post("/token", pollForm(public, code)); !strings.Contains(r.get("error_description"), want) {
				t.Error(r.body)
			}
		}
	})
	t.Run("DEV-04 what another replica knows is taken over", func(t *testing.T) {
		p, now := newPacer(), h.clock.now()
		d := &store.Device{Hash: store.HashOf("d"), Interval: 20 * time.Second, NextPoll: now.Add(20 * time.Second), Expires: now.Add(time.Minute)}
		p.learn(d)
		if interval, early := p.early(d, now.Add(19*time.Second)); !early || interval != 25*time.Second {
			t.Errorf("%v, %v", interval, early)
		}
		p.learn(d)
		if interval, early := p.early(d, now.Add(20*time.Second)); early || interval != 20*time.Second {
			t.Errorf("%v, %v", interval, early)
		}
	})
	t.Run("DEV-04 what is over makes room for what is not", func(t *testing.T) {
		now := h.clock.now()
		full := func(until time.Time) *pacer {
			p := newPacer()
			for i := range maxPaced {
				p.codes[store.Hash{byte(i), byte(i >> 8), byte(i >> 16), 1}] = pace{until: until}
			}
			return p
		}
		for name, c := range map[string]struct {
			p    *pacer
			want int
		}{
			"nobody":                    {newPacer(), 1},
			"as many as there may be":   {full(now.Add(time.Second)), maxPaced},
			"as many, who have ended":   {full(now), maxPaced - 64 + 1},
			"as many, who ended before": {full(now.Add(-time.Hour)), maxPaced - 64 + 1},
		} {
			d := &store.Device{Hash: store.HashOf("new"), Interval: time.Second, Expires: now.Add(time.Minute)}
			c.p.early(d, now)
			if got, ok := c.p.codes[d.Hash]; len(c.p.codes) != c.want || !ok || !got.until.Equal(d.Expires) {
				t.Errorf("%s: %d are held, and %+v", name, len(c.p.codes), got)
			}
		}
		p := newPacer()
		for i := range 10 {
			p.early(&store.Device{Hash: store.Hash{byte(i)}, Expires: now.Add(-time.Hour)}, now)
		}
		if len(p.codes) != 10 {
			t.Errorf("%d of 10 are held where there is room", len(p.codes))
		}
		if p.learn(&store.Device{Hash: store.Hash{1}, Expires: now.Add(time.Minute)}); !p.codes[store.Hash{1}].until.Equal(now.Add(time.Minute)) {
			t.Error("it is not known when what was learnt ends")
		}
	})
	t.Run("DEV-04 a poll that only the store knows to be early is told how often it may, and the next costs no write", func(t *testing.T) {
		h, d := withDevices(t)
		code, _ := h.begun(t, public)
		h.post("/token", pollForm(public, code)).is(t, 400, oauth.AuthorizationPending, "DEV-04")
		h.pacer = newPacer() // another replica
		r := h.post("/token", pollForm(public, code))
		if r.is(t, 400, oauth.SlowDown, "DEV-04"); !strings.Contains(r.get("error_description"), "every 10 seconds") {
			t.Error(r.body)
		}
		before := d.polls
		h.post("/token", pollForm(public, code)).is(t, 400, oauth.SlowDown, "DEV-04")
		if d.polls != before {
			t.Error("written")
		}
	})
}

func TestSignedAnswersOfIntrospection(t *testing.T) {
	h := newHouse(t)
	token := h.ok(t, h.consent(t, public, func(g *store.Grant) { g.Details = `[{"type":"week"}]` }).form()).get("access_token")
	ask := func(accept string) response {
		return h.post("/introspect", url.Values{"token": {token}}, "Authorization", basicAuth(mcp, mcpSecret), "Accept", accept)
	}
	for _, accept := range []string{mediaSigned, "application/json;q=0.5, " + mediaSigned + ";q=1", "; , " + mediaSigned} {
		t.Run("INT-05 a resource server that wants the answer signed: "+accept, func(t *testing.T) {
			r := ask(accept)
			if r.status != http.StatusOK || r.header.Get("Content-Type") != mediaSigned {
				t.Fatalf("%d %v %s", r.status, r.header, r.body)
			}
			m, err := jose.Parse(r.body, 0)
			if err != nil || m.Header.Typ != "token-introspection+jwt" {
				t.Fatalf("%+v, %v", m, err)
			}
			set, err := jose.ParseSet(h.cfg.Keys.JWKS(), jose.SetLimits{})
			if err != nil {
				t.Fatal(err)
			}
			key, err := set.Find(m.Header.KID, m.Header.Alg)
			if err == nil {
				err = m.Verify(key)
			}
			if err != nil {
				t.Fatal(err)
			}
			var claims struct {
				Iss, Aud, Sub string
				Iat, Exp      int64
				State         state `json:"token_introspection"`
			}
			if err := json.Unmarshal(m.Claims, &claims); err != nil {
				t.Fatal(err)
			}
			if claims.Iss != issuer || claims.Aud != mcp || claims.Sub != "" || claims.Exp != 0 || claims.Iat != h.clock.now().Unix() || !claims.State.Active || claims.State.Subject != "user-1" {
				t.Errorf("%s", m.Claims)
			}
			if _, err := h.cfg.Keys.VerifyAccess(r.body, h.clock.now()); err == nil {
				t.Error("it passes for an access token")
			}
		})
	}
	for _, accept := range []string{"", "*/*", "application/json", "text/" + mediaSigned} {
		t.Run("INT-05 and one that does not: "+accept, func(t *testing.T) {
			if r := ask(accept); r.json["active"] != true || r.header.Get("Content-Type") == mediaSigned {
				t.Errorf("%v %s", r.header, r.body)
			}
		})
	}
	t.Run("INT-03 details and a certificate are told", func(t *testing.T) {
		now := h.clock.now()
		token, err := h.cfg.Keys.MintAccess(keyring.AccessToken{Subject: "user-1", ClientID: public, Audience: mcp, JTI: "j", Issued: now, Expires: now.Add(time.Minute), CnfX5T: "cert", Details: `[{"type":"week"}]`})
		if err != nil {
			t.Fatal(err)
		}
		r := h.introspects(t, token)
		if !strings.Contains(r.body, `"cnf":{"x5t#S256":"cert"}`) || !strings.Contains(r.body, `"authorization_details":[{"type":"week"}]`) || r.get("token_type") != "Bearer" || r.json["auth_time"] != nil {
			t.Error(r.body)
		}
	})
	t.Run("INT-01, POL-08 who guesses at one resource server does not hold up another", func(t *testing.T) {
		for range 10 {
			h.post("/introspect", url.Values{"token": {token}}, "Authorization", basicAuth(mcp, "guess"))
		}
		if r := h.post("/introspect", url.Values{"token": {token}}, "Authorization", basicAuth(mcp, mcpSecret)); r.status == http.StatusOK || r.header.Get("WWW-Authenticate") != "" {
			t.Errorf("%d %v", r.status, r.header)
		}
		if r := h.post("/introspect", url.Values{"token": {token}}, "Authorization", basicAuth(notes, "another secret")); r.status != http.StatusOK {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
	t.Run("INT-01 a resource without a secret has none that could be right", func(t *testing.T) {
		if r := h.post("/introspect", url.Values{"token": {token}}, "Authorization", basicAuth("https://quiet.test/", "")); r.status != http.StatusUnauthorized {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
}

func TestRevocationsOfOthers(t *testing.T) {
	h := newAgents(t)
	t.Run("REV-02, attack TK-16: a client that revokes what is another's is noted", func(t *testing.T) {
		r := h.ok(t, h.consent(t, public).form())
		for _, token := range []string{r.get("access_token"), r.get("refresh_token")} {
			if got := h.post("/revoke", url.Values{"client_id": {other}, "token": {token}}); got.status != http.StatusOK {
				t.Fatal(got.body)
			}
		}
		if err := h.audit.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		events := h.events(t, audit.TypeRefusal)
		if len(events) != 2 {
			t.Fatalf("%+v", events)
		}
		for _, e := range events {
			if e.Client != other || e.Rule != "REV-02" || e.IP != "192.0.2.1" || e.Ref == "" || !e.Time.Equal(h.clock.now()) {
				t.Errorf("%+v", e)
			}
		}
	})
	t.Run("REV-03, TOK-18 what a client without a person revokes is nobody's", func(t *testing.T) {
		heard := overheard(t, h)
		r := h.ok(t, h.assert(t, agent, own("read", mcp)))
		heard(t)
		if got := h.post("/revoke", h.assert(t, agent, url.Values{"token": {r.get("access_token")}})); got.status != http.StatusOK {
			t.Fatal(got.body)
		}
		if e := heard(t); e.User != "" || e.Client != agent {
			t.Errorf("%+v", e)
		}
	})
	t.Run("REV-03 a token is denied for as long as it lives", func(t *testing.T) {
		r := h.ok(t, h.consent(t, public).form())
		h.post("/revoke", url.Values{"client_id": {public}, "token": {r.get("access_token")}})
		h.clock.move(9 * time.Minute)
		if _, err := h.store.Prune(t.Context(), h.clock.now()); err != nil {
			t.Fatal(err)
		}
		if h.isActive(t, r.get("access_token")) {
			t.Error("active again")
		}
	})
}

func TestChallengesOfUserinfo(t *testing.T) {
	d := newDesk(t)
	now := d.clock.now()
	if err := d.store.AddUser(t.Context(), store.User{ID: "user-2", Name: "bob", Email: "bob@acme.test", PasswordHash: "x", Created: now}); err != nil {
		t.Fatal(err)
	}
	t.Run("OIDC-03 an address only for the scope email, a name only for profile", func(t *testing.T) {
		for scope, want := range map[string][2]string{"email": {"", "bob@acme.test"}, "profile": {"bob", ""}, "read": {}} {
			r := d.ask("GET", "", "Authorization", "Bearer "+d.token(t, func(a *keyring.AccessToken) { a.Subject, a.Scopes = "user-2", oauth.Scopes{"openid", scope} }))
			if r.get("preferred_username") != want[0] || r.get("email") != want[1] || r.get("sub") != "user-2" {
				t.Errorf("%s: %s", scope, r.body)
			}
		}
	})
	algs := ` algs="` + strings.Join(jose.Accepted, " ") + `"`
	bound := d.token(t, func(a *keyring.AccessToken) { a.CnfJKT = "key" })
	for _, r := range []struct {
		row, authorization string
		fails              error
		status             int
		want               []string
	}{
		{row: "OIDC-03 no token, and no error is named", status: 401, want: []string{"Bearer", "DPoP" + algs}},
		{row: "OIDC-03 a token that is none", authorization: "Bearer x", status: 401, want: []string{
			`Bearer error="invalid_token", error_description="the access token is not one of this server, has expired or was revoked"`,
			`DPoP error="invalid_token", error_description="the access token is not one of this server, has expired or was revoked",` + algs}},
		{row: "OIDC-03 the scope that is needed", authorization: "Bearer " + d.token(t, func(a *keyring.AccessToken) { a.Scopes = oauth.Scopes{"read"} }), status: 403, want: []string{
			`Bearer error="insufficient_scope", error_description="the access token was not granted the scope openid", scope="openid"`,
			`DPoP error="insufficient_scope", error_description="the access token was not granted the scope openid", scope="openid",` + algs}},
		{row: "DPOP-03 a nonce is a matter of proofs", authorization: "DPoP " + bound, fails: oauth.Refuse(oauth.UseDPoPNonce, "n"), status: 401, want: []string{
			"Bearer", `DPoP error="use_dpop_nonce", error_description="n",` + algs}},
		{row: "DPOP-01 and so is a bad proof", authorization: "DPoP " + bound, fails: oauth.Refuse(oauth.InvalidDPoPProof, "p"), status: 401, want: []string{
			"Bearer", `DPoP error="invalid_dpop_proof", error_description="p",` + algs}},
	} {
		t.Run(r.row, func(t *testing.T) {
			d.failed = r.fails
			var headers []string
			if r.authorization != "" {
				headers = []string{"Authorization", r.authorization}
			}
			got := d.ask("GET", "", headers...)
			if diff := cmp.Diff(r.want, got.header.Values("WWW-Authenticate")); diff != "" || got.status != r.status {
				t.Errorf("%d %s (-want +got):\n%s", got.status, got.body, diff)
			}
		})
	}
	d.failed = nil
	t.Run("DPOP-01 the proof is asked about the very token", func(t *testing.T) {
		var about, of string
		d.cfg.TokenProof = func(_ http.ResponseWriter, _ *http.Request, token, jkt string) error {
			about, of = token, jkt
			return nil
		}
		if r := d.ask("GET", "", "Authorization", "DPoP  "+bound+" "); r.status != 200 || about != bound || of != "key" {
			t.Errorf("%d %s, about %q of %q", r.status, r.body, about, of)
		}
	})
	t.Run("DPOP-06 a token without a key does not come with the scheme DPoP, nor a scheme that nobody knows", func(t *testing.T) {
		for _, scheme := range []string{"DPoP", "Basic", "Bearerx"} {
			if r := d.ask("GET", "", "Authorization", scheme+" "+d.token(t)); r.status != 401 {
				t.Errorf("%s: %d", scheme, r.status)
			}
		}
	})
	t.Run("OIDC-03 a token of which the certificate is not known to anybody here", func(t *testing.T) {
		d.cfg.Certificate = nil
		if r := d.ask("GET", "", "Authorization", "Bearer "+d.token(t, func(a *keyring.AccessToken) { a.CnfX5T = "c" })); r.status != 401 {
			t.Errorf("%d", r.status)
		}
	})
	t.Run("OIDC-03 a token that has expired", func(t *testing.T) {
		token := d.token(t)
		d.clock.move(time.Minute)
		defer d.clock.move(-time.Minute)
		if r := d.ask("GET", "", "Authorization", "Bearer "+token); r.status != 401 {
			t.Errorf("%d", r.status)
		}
	})
	t.Run("OIDC-03 a certificate of the connection says nothing about a token that is not bound to one", func(t *testing.T) {
		d.cfg.Certificate = func(*http.Request) string { return "c" }
		if r := d.ask("GET", "", "Authorization", "Bearer "+d.token(t)); r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
	t.Run("DPOP-06 a bound token does not come as a bearer token, although there is a proof", func(t *testing.T) {
		d.cfg.TokenProof = func(http.ResponseWriter, *http.Request, string, string) error { return nil }
		for _, r := range []response{d.ask("GET", "", "Authorization", "Bearer "+bound), d.ask("POST", url.Values{"access_token": {bound}}.Encode())} {
			if r.status != 401 || r.get("rule") != "DPOP-06" {
				t.Errorf("%d %s", r.status, r.body)
			}
		}
	})
	t.Run("OIDC-03 a body that is no form", func(t *testing.T) {
		if r := d.ask("POST", "{}", "Content-Type", "application/json"); r.status == 200 {
			t.Errorf("%d", r.status)
		}
	})
}

func TestExchangeOfBoundTokens(t *testing.T) {
	h := newAgents(t)
	now := h.clock.now()
	mint := func(change func(*keyring.AccessToken)) url.Values {
		c := h.consent(t, public)
		h.ok(t, c.form())
		a := keyring.AccessToken{Subject: "user-1", ClientID: public, Audience: mcp, GrantID: c.grantID, JTI: oauth.RandomToken(8), Scopes: oauth.Scopes{"read"}, Issued: now, Expires: now.Add(time.Minute)}
		change(&a)
		token, err := h.cfg.Keys.MintAccess(a)
		if err != nil {
			t.Fatal(err)
		}
		return h.assert(t, agent, url.Values{"grant_type": {oauth.GrantTokenExchange}, "subject_token": {token}, "subject_token_type": {oauth.TokenTypeAccess}, "resource": {notes}})
	}
	t.Run("XCH-12, DPOP-07 a token that is bound to a certificate never becomes a bearer token", func(t *testing.T) {
		h.refused(t, oauth.InvalidRequest, mint(func(a *keyring.AccessToken) { a.CnfX5T = "cert" }))
		h.ok(t, mint(func(a *keyring.AccessToken) { a.CnfX5T = "cert" }), "DPoP", h.proof(t, newKey(t)))
	})
	t.Run("XCH-12, DPOP-07 a certificate of the client is as good as a proof", func(t *testing.T) {
		form := mint(func(a *keyring.AccessToken) { a.CnfJKT = "key" })
		is := &issue{now: now, client: &clientauth.Client{Client: &directory.Client{ID: agent}, CertThumbprint: "cert"}}
		is.exchange.subject = form.Get("subject_token")
		if _, err := h.subjectToken(t.Context(), is); err != nil {
			t.Error(err)
		}
		is.client.CertThumbprint = ""
		if _, err := h.subjectToken(t.Context(), is); err == nil {
			t.Error("a bearer token of a bound one")
		}
	})
	t.Run("XCH-12 a token that came from no grant", func(t *testing.T) {
		h.refused(t, oauth.InvalidRequest, mint(func(a *keyring.AccessToken) { a.GrantID = "" }))
	})
	t.Run("XCH-12 a rule is for the tokens of one resource", func(t *testing.T) {
		form := mint(func(a *keyring.AccessToken) { a.Audience = notes })
		if r := h.refused(t, oauth.InvalidTarget, form); r.get("rule") != "XCH-12" {
			t.Error(r.body)
		}
	})
	t.Run("XCH-12 fewer scopes than the token is worth, and none where the target has none", func(t *testing.T) {
		h.cfg.Exchange = []ExchangeRule{{Client: agent, From: mcp, To: []string{mcp, "https://quiet.test/"}}}
		defer func() { h.cfg.Exchange = exchangeRules }()
		form := mint(func(a *keyring.AccessToken) { a.Scopes = oauth.Scopes{"read", "write"} })
		form.Set("resource", mcp)
		form.Set("scope", "list")
		if r := h.ok(t, form); r.get("scope") != "list" {
			t.Error(r.body)
		}
		form = mint(func(*keyring.AccessToken) {})
		form.Set("resource", "https://quiet.test/")
		if r := h.ok(t, form); r.get("scope") != "" {
			t.Error(r.body)
		}
	})
	t.Run("XCH-12 an actor token, or only its type", func(t *testing.T) {
		for _, name := range []string{"actor_token", "actor_token_type"} {
			form := mint(func(*keyring.AccessToken) {})
			form.Set(name, oauth.TokenTypeAccess)
			h.refused(t, oauth.InvalidRequest, form)
		}
	})
	t.Run("DPOP-01 a proof that was used before costs neither a code nor a refresh token", func(t *testing.T) {
		k := newKey(t)
		used := h.proof(t, k)
		h.ok(t, h.consent(t, public).form(), "DPoP", used)
		c := h.consent(t, public)
		h.refused(t, oauth.InvalidDPoPProof, c.form(), "DPoP", used)
		first := h.ok(t, c.form(), "DPoP", h.proof(t, k)).get("refresh_token")
		h.refused(t, oauth.InvalidDPoPProof, refreshForm(public, first), "DPoP", used)
		if r := h.ok(t, refreshForm(public, first), "DPoP", h.proof(t, k)); len(h.events(t, audit.TypeReuse)) != 0 || r.get("refresh_token") == first {
			t.Error(r.body)
		}
		for _, e := range h.events(t, audit.TypeRefresh) {
			if e.Data["grace"] != "" {
				t.Error("the refused request took the refresh token")
			}
		}
	})
	t.Run("TOK-16, POL-05 a client that is blocked in the store only, for a moment", func(t *testing.T) {
		refresh := h.ok(t, h.consent(t, public).form()).get("refresh_token")
		grants := h.cfg.Grants
		h.cfg.Grants = blocked{grants}
		defer func() { h.cfg.Grants = grants }()
		h.refused(t, oauth.InvalidGrant, refreshForm(public, refresh))
		h.cfg.Devices = blockedDevices{h.store}
		h.people.clients[public].GrantTypes = append(h.people.clients[public].GrantTypes, oauth.GrantDeviceCode)
		h.people.rules(t, policy.Rule{Client: public, Action: policy.Allow})
		code, _ := h.begun(t, public, func(d *store.Device) { d.Method = oauth.MethodNone })
		h.refused(t, oauth.UnauthorizedClient, pollForm(public, code))
		h.people.rules(t)
	})
	t.Run("XCH-12 what a scope implies is worth something too", func(t *testing.T) {
		h.cfg.Exchange = []ExchangeRule{{Client: agent, From: mcp, To: []string{notes}, Scopes: map[string]oauth.Scopes{"list": {"read"}}}}
		if r := h.ok(t, mint(func(a *keyring.AccessToken) { a.Scopes = oauth.Scopes{"write"} })); r.get("scope") != "read" {
			t.Error(r.body)
		}
	})
	t.Run("URL-15, XCH-12 a store that does not answer", func(t *testing.T) {
		h.cfg.Denials = brokenDenials{}
		if r := h.post("/token", mint(func(*keyring.AccessToken) {})); r.status != http.StatusInternalServerError {
			t.Errorf("%d %s", r.status, r.body)
		}
		if r := h.post("/introspect", url.Values{"token": {mint(func(*keyring.AccessToken) {}).Get("subject_token")}}, "Authorization", basicAuth(mcp, mcpSecret)); r.status != http.StatusInternalServerError {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
}

// blocked is a store that knows that the client is blocked, and blockedDevices one
// that finds out when a device polls.
type blocked struct{ Grants }

func (blocked) FindRefresh(context.Context, store.RefreshRef, time.Time) (store.Refresh, store.Grant, error) {
	return store.Refresh{}, store.Grant{}, store.ErrBlocked
}

type blockedDevices struct{ *store.Store }

func (blockedDevices) PollDevice(context.Context, store.Hash, time.Time) (store.Device, error) {
	return store.Device{}, store.ErrBlocked
}

// brokenDenials cannot say whether a token was denied.
type brokenDenials struct{}

func (brokenDenials) DenyToken(context.Context, string, time.Time, ...audit.Event) error {
	return errors.New("disk")
}
func (brokenDenials) TokenDenied(context.Context, string) (bool, error) {
	return false, errors.New("disk")
}
