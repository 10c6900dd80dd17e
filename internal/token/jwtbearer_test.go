package token

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// jag are the claims of a good identity assertion about Ada, for agent.
func (h *house) jag(spoil map[string]any) map[string]any {
	now := h.clock.now().Unix()
	c := map[string]any{
		"iss": idp, "sub": "ada-at-idp", "aud": issuer, "client_id": agent, "jti": oauth.RandomToken(8), "iat": now, "exp": now + 300,
		"resource": mcp, "scope": "read write", "auth_time": now - 60, "acr": "mfa", "amr": []string{"pwd", "otp"}, "email": "ada@acme.test",
	}
	for name, v := range spoil {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

func presented(assertion string) url.Values {
	return url.Values{"grant_type": {oauth.GrantJWTBearer}, "assertion": {assertion}}
}

// vouch is the token request with an assertion.
func (h *house) vouch(t testing.TB, spoil map[string]any) url.Values {
	t.Helper()
	a, err := h.idp.Sign(oauth.TypIDJAG, h.jag(spoil))
	if err != nil {
		t.Fatal(err)
	}
	return h.assert(t, agent, presented(a))
}

func (h *house) linkAda(t testing.TB) {
	t.Helper()
	now := h.clock.now()
	for _, tenant := range []string{"", "acme"} {
		for _, iss := range []string{idp, idpEmail} {
			if err := h.store.LinkIdentity(t.Context(), store.Identity{
				Issuer: iss, Tenant: tenant, Subject: "ada-at-idp", UserID: "user-1", Created: now, LastSeen: now,
			}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestIdentityAssertion(t *testing.T) {
	h := newAgents(t)
	h.linkAda(t)
	t.Run("XCH-01, XCH-05, XCH-07, XCH-10 an assertion of a trusted issuer becomes a token for its person and resource", func(t *testing.T) {
		form := h.vouch(t, nil)
		r := h.ok(t, form)
		a := h.claims(t, r)
		if a.Subject != "user-1" || a.ClientID != agent || a.ClientOnly || a.Audience != mcp || a.Scopes.String() != "read write" || a.ACR != "mfa" || len(a.AMR) != 2 || a.AuthTime.IsZero() {
			t.Errorf("token %+v", a)
		}
		if r.json["refresh_token"] != nil || r.json["id_token"] != nil || r.get("token_type") != "Bearer" {
			t.Errorf("answer %s", r.body)
		}
		if g, err := h.store.GrantActive(t.Context(), a.GrantID); err != nil || g.Kind != store.KindJWT || g.UserID != "user-1" {
			t.Errorf("grant %+v, %v", g, err)
		}
	})
	t.Run("XCH-06 a request asks for less, and what is implied is there", func(t *testing.T) {
		form := h.vouch(t, nil)
		form.Set("scope", "list admin")
		if r := h.ok(t, form); r.get("scope") != "list" {
			t.Errorf("scope %q", r.get("scope"))
		}
	})
	t.Run("XCH-02, XCH-05 aud and resource may be arrays of one", func(t *testing.T) {
		h.ok(t, h.vouch(t, map[string]any{"aud": []string{issuer}, "resource": []string{mcp + "/"}}))
	})
	t.Run("XCH-05 the request picks one of several resources", func(t *testing.T) {
		form := h.vouch(t, map[string]any{"resource": []string{mcp, notes}})
		form.Set("resource", notes)
		if a := h.claims(t, h.ok(t, form)); a.Audience != notes || a.Scopes.String() != "read" {
			t.Errorf("token %+v", a)
		}
	})
	t.Run("XCH-04 it is good once, also when both come at a time", func(t *testing.T) {
		jti := oauth.RandomToken(8)
		var wg sync.WaitGroup
		won := make(chan int, 16)
		for range cap(won) {
			form := h.vouch(t, map[string]any{"jti": jti})
			wg.Go(func() { won <- h.post("/token", form).status })
		}
		wg.Wait()
		close(won)
		n := 0
		for status := range won {
			if status == 200 {
				n++
			} else if status != 400 {
				t.Errorf("status %d", status)
			}
		}
		if n != 1 {
			t.Fatalf("%d tokens", n)
		}
	})
	t.Run("XCH-04 a refused request does not use it up, and two issuers may use one jti", func(t *testing.T) {
		form := h.vouch(t, map[string]any{"jti": "the-same"})
		form.Set("scope", "admin")
		h.refused(t, oauth.InvalidGrant, form)
		h.ok(t, h.vouch(t, map[string]any{"jti": "the-same"}))
		h.ok(t, h.vouch(t, map[string]any{"jti": "the-same", "iss": idpEmail, "tenant": "acme"}))
	})
	t.Run("XCH-01, XCH-04 two tenants of an issuer may use one jti, and each of them once", func(t *testing.T) {
		now := h.clock.now()
		if err := h.store.LinkIdentity(t.Context(), store.Identity{Issuer: idpEmail, Tenant: "globex", Subject: "ada-at-idp", UserID: "user-1", Created: now, LastSeen: now}, nil); err != nil {
			t.Fatal(err)
		}
		for _, tenant := range []string{"acme", "globex"} {
			claims := map[string]any{"jti": "of two tenants", "iss": idpEmail, "tenant": tenant}
			h.ok(t, h.vouch(t, claims))
			h.refused(t, oauth.InvalidGrant, h.vouch(t, claims))
		}
	})
	t.Run("XCH-09 an assertion that belongs to a key needs its proof", func(t *testing.T) {
		k, stranger := newKey(t), newKey(t)
		cnf := map[string]any{"cnf": map[string]any{"jkt": k.Public().Thumbprint()}}
		h.refused(t, oauth.InvalidGrant, h.vouch(t, cnf))
		h.refused(t, oauth.InvalidGrant, h.vouch(t, cnf), "DPoP", h.proof(t, stranger))
		r := h.ok(t, h.vouch(t, cnf), "DPoP", h.proof(t, k))
		if a := h.claims(t, r); a.CnfJKT != k.Public().Thumbprint() || r.get("token_type") != "DPoP" {
			t.Errorf("token %+v", a)
		}
	})
	t.Run("XCH-11 neither the assertion nor the token stands in the audit log", func(t *testing.T) {
		form := h.vouch(t, nil)
		r := h.ok(t, form)
		all, err := h.store.Events(t.Context(), store.EventQuery{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			line := string(e.MarshalLine())
			for _, secret := range []string{form.Get("assertion"), r.get("access_token")} {
				if strings.Contains(line, secret) || strings.Contains(line, secret[strings.LastIndexByte(secret, '.'):]) {
					t.Errorf("event %s", line)
				}
			}
		}
		if e := all[len(all)-1]; e.Type != audit.TypeToken || e.User != "user-1" || e.Data["issuer"] != idp || e.Data["id_jag"] == "" {
			t.Errorf("event %+v", e)
		}
	})
	t.Run("TOK-14, INT-02 a disabled person's token is not active", func(t *testing.T) {
		token := h.ok(t, h.vouch(t, nil)).get("access_token")
		if err := h.store.DisableUser(t.Context(), "user-1", h.clock.now()); err != nil {
			t.Fatal(err)
		}
		if st := h.introspect1(t, token); st.json["active"] != false {
			t.Error(st.body)
		}
		h.refused(t, oauth.InvalidGrant, h.vouch(t, nil))
	})
}

// TestSpoiledIdentityAssertion spoils one thing per row. The same assertion
// without the fault is good in the end.
func TestSpoiledIdentityAssertion(t *testing.T) {
	h := newAgents(t)
	h.linkAda(t)
	now := h.clock.now().Unix()
	type m = map[string]any
	for _, row := range []struct {
		name  string
		rule  string
		claim m
	}{
		{"XCH-01 an issuer that nobody trusts", "XCH-01", m{"iss": "https://evil.test"}},
		{"XCH-01 no issuer", "XCH-01", m{"iss": nil}},
		{"XCH-01 a tenant where there are none", "XCH-01", m{"tenant": "acme"}},
		{"XCH-01 another tenant", "XCH-01", m{"iss": idpEmail, "tenant": "evil"}},
		{"XCH-01 no tenant", "XCH-01", m{"iss": idpEmail}},
		{"XCH-02 the token endpoint as audience", "XCH-02", m{"aud": issuer + "/token"}},
		{"XCH-02 another server beside us", "XCH-02", m{"aud": []string{issuer, "https://other.test"}}},
		{"XCH-02 no audience", "XCH-02", m{"aud": nil}},
		{"XCH-02 a slash more", "XCH-02", m{"aud": issuer + "/"}},
		{"XCH-03 another client", "XCH-03", m{"client_id": basic}},
		{"XCH-03 no client", "XCH-03", m{"client_id": nil}},
		{"XCH-04 no jti", "XCH-04", m{"jti": nil}},
		{"XCH-04 a jti without end", "XCH-04", m{"jti": strings.Repeat("x", 513)}},
		{"XCH-04 expired", "XCH-04", m{"exp": now}},
		{"XCH-04 no exp", "XCH-04", m{"exp": nil}},
		{"XCH-04 no iat", "XCH-04", m{"iat": nil}},
		{"XCH-04 valid for too long", "XCH-04", m{"exp": now + 601}},
		{"XCH-04 valid for too long, dated back", "XCH-04", m{"iat": now - 3600}},
		{"XCH-04 from the future", "XCH-04", m{"iat": now + 61, "exp": now + 120}},
		{"XCH-04 not yet valid", "XCH-04", m{"nbf": now + 61}},
		{"XCH-04 a time beyond all times", "XCH-04", m{"exp": 1e300}},
		{"XCH-05 no resource", "XCH-05", m{"resource": nil}},
		{"XCH-05 a resource of others", "XCH-05", m{"resource": "https://other.test/"}},
		{"XCH-05 several resources", "XCH-05", m{"resource": []string{mcp, notes}}},
		{"XCH-05 a resource that is no text", "XCH-05", m{"resource": 7}},
		{"XCH-06 scopes that the resource does not have", "XCH-06", m{"scope": "openid other"}},
		{"XCH-06 an empty scope", "XCH-06", m{"scope": ""}},
		{"XCH-06 no scope, where the resource has no default", "XCH-06", m{"scope": nil}},
		{"XCH-06 a malformed scope", "XCH-06", m{"scope": `a"b`}},
		{"XCH-09 a cnf that cannot be checked", "XCH-09", m{"cnf": m{"x5t#S256": "abc"}}},
		{"XCH-09 a cnf that is no object", "XCH-09", m{"cnf": "abc"}},
		{"XCH-10 no subject", "XCH-10", m{"sub": nil}},
		{"XCH-10 a subject of another person", "XCH-10", m{"sub": "bob-at-idp"}},
		{"XCH-10 the same subject in other letters", "XCH-10", m{"sub": "ADA-at-idp"}},
		{"XCH-10 a subject with a line break", "XCH-10", m{"sub": "ada-at-idp\n"}},
		{"XCH-10 a subject with a NUL", "XCH-10", m{"sub": "ada-at-idp\x00"}},
		{"XCH-10 a jti with a NUL", "XCH-10", m{"jti": "j\x00"}},
		{"XCH-10 an address with a NUL", "XCH-10", m{"email": "ada\x00@acme.test"}},
		{"XCH-10 a tenant with what stands for something lost", "XCH-10", m{"tenant": "acme\ufffd"}},
		{"XCH-10 the methods of a sign-in are words", "XCH-10", m{"amr": []string{"a b"}}},
		{"XCH-01 a claim of the wrong type", "XCH-01", m{"sub": 7}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if r := h.refused(t, oauth.InvalidGrant, h.vouch(t, row.claim)); r.get("rule") != row.rule {
				t.Errorf("rule %s: %s", r.get("rule"), r.body)
			}
		})
	}
	sign := func(t *testing.T, typ string) string {
		t.Helper()
		a, err := h.idp.Sign(typ, h.jag(nil))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, typ := range []string{"", "JWT", "at+jwt", "client-authentication+jwt", "oauth-id-jag"} {
		t.Run("XCH-01 typ "+typ, func(t *testing.T) {
			h.refused(t, oauth.InvalidGrant, h.assert(t, agent, presented(sign(t, typ))))
		})
	}
	t.Run("XCH-01 typ in its long form", func(t *testing.T) {
		h.ok(t, h.assert(t, agent, presented(sign(t, "application/"+oauth.TypIDJAG))))
	})
	t.Run("XCH-01 another key", func(t *testing.T) {
		a, err := newKey(t).Sign(oauth.TypIDJAG, h.jag(nil))
		if err != nil {
			t.Fatal(err)
		}
		h.refused(t, oauth.InvalidGrant, h.assert(t, agent, presented(a)))
	})
	t.Run("XCH-01 a spoiled signature", func(t *testing.T) {
		a := sign(t, oauth.TypIDJAG)
		a = a[:len(a)-8] + "AAAAAAAA"
		h.refused(t, oauth.InvalidGrant, h.assert(t, agent, presented(a)))
	})
	t.Run("XCH-01 no JWT, none, and one without end", func(t *testing.T) {
		h.refused(t, oauth.InvalidGrant, h.assert(t, agent, presented("abc")))
		h.refused(t, oauth.InvalidRequest, h.assert(t, agent, presented("")))
		h.refused(t, oauth.InvalidRequest, h.assert(t, agent, presented(strings.Repeat("x", maxAssertion+1))))
	})
	t.Run("XCH-08 a client that only names itself", func(t *testing.T) {
		a, err := h.idp.Sign(oauth.TypIDJAG, h.jag(m{"client_id": public}))
		if err != nil {
			t.Fatal(err)
		}
		form := presented(a)
		form.Set("client_id", public)
		h.refused(t, oauth.UnauthorizedClient, form)
	})
	t.Run("XCH-05, POL-03 a resource that the policy withholds", func(t *testing.T) {
		h.people.rules(t, policy.Rule{Client: agent, Action: policy.Allow, Resources: []string{notes}})
		defer h.people.rules(t)
		h.refused(t, oauth.InvalidGrant, h.vouch(t, nil))
	})
	t.Run("XCH-06 the request names another resource", func(t *testing.T) {
		form := h.vouch(t, nil)
		form.Set("resource", notes)
		h.refused(t, oauth.InvalidGrant, form)
	})
	t.Run("after all of that an assertion is still good", func(t *testing.T) { h.ok(t, h.vouch(t, nil)) })
}

func TestLinking(t *testing.T) {
	type m = map[string]any
	email := func(spoil m) m {
		c := m{"iss": idpEmail, "tenant": "acme", "email": "Ada@acme.test", "email_verified": true}
		for k, v := range spoil {
			c[k] = v
		}
		return c
	}
	addAccount := func(t *testing.T, h *house, id, address string) {
		t.Helper()
		if err := h.store.AddUser(t.Context(), store.User{ID: id, Name: id, Email: address, PasswordHash: "x", Created: h.clock.now()}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("XCH-10 an identity that nobody linked is refused, whatever its address", func(t *testing.T) {
		h := newAgents(t)
		addAccount(t, h, "user-2", "ada@acme.test")
		h.refused(t, oauth.InvalidGrant, h.vouch(t, nil))
	})
	t.Run("XCH-10 by address, where the configuration says so; from then on by identity", func(t *testing.T) {
		h := newAgents(t)
		addAccount(t, h, "user-2", "ada@acme.test")
		if a := h.claims(t, h.ok(t, h.vouch(t, email(nil)))); a.Subject != "user-2" {
			t.Fatalf("token %+v", a)
		}
		if e := h.events(t, audit.TypeUser); e[len(e)-1].Code != "linked" || e[len(e)-1].User != "user-2" || e[len(e)-1].Data["by"] != "email" {
			t.Errorf("events %+v", e)
		}
		if a := h.claims(t, h.ok(t, h.vouch(t, email(m{"email": "other@acme.test"})))); a.Subject != "user-2" {
			t.Fatalf("token %+v", a)
		}
	})
	for _, row := range []struct {
		name  string
		claim m
	}{
		{"no account has the address", m{"email": "bob@acme.test"}},
		{"there is no address", m{"email": ""}},
		{"the issuer says that it did not verify it", m{"email_verified": false}},
		{"the issuer does not say that it verified it", m{"email_verified": nil}},
		{"the issuer says so in a word", m{"email_verified": "true"}},
		{"the issuer says neither", m{"email_verified": 1}},
		{"the issuer says that it did not, where all addresses are verified", m{"iss": idpSure, "tenant": nil, "email_verified": false}},
	} {
		t.Run("XCH-10 not linked by address: "+row.name, func(t *testing.T) {
			h := newAgents(t)
			addAccount(t, h, "user-2", "ada@acme.test")
			h.refused(t, oauth.InvalidGrant, h.vouch(t, email(row.claim)))
		})
	}
	t.Run("XCH-10 not linked by an address that two accounts have, or a disabled one", func(t *testing.T) {
		h := newAgents(t)
		addAccount(t, h, "user-2", "ada@acme.test")
		addAccount(t, h, "user-3", "ada@acme.test")
		h.refused(t, oauth.InvalidGrant, h.vouch(t, email(nil)))
		for _, id := range []string{"user-2", "user-3"} {
			if err := h.store.DisableUser(t.Context(), id, h.clock.now()); err != nil {
				t.Fatal(err)
			}
		}
		h.refused(t, oauth.InvalidGrant, h.vouch(t, email(nil)))
	})
	t.Run("XCH-10 not linked by an address whose account is somebody else at the issuer", func(t *testing.T) {
		h := newAgents(t)
		addAccount(t, h, "user-2", "ada@acme.test")
		if a := h.claims(t, h.ok(t, h.vouch(t, email(nil)))); a.Subject != "user-2" {
			t.Fatalf("token %+v", a)
		}
		h.refused(t, oauth.InvalidGrant, h.vouch(t, email(m{"sub": "the-next-ada"})))
	})
	t.Run("XCH-10, CN-19 no new account for the address of a disabled one", func(t *testing.T) {
		h := newAgents(t)
		addAccount(t, h, "user-2", "ada@acme.test")
		if err := h.store.DisableUser(t.Context(), "user-2", h.clock.now()); err != nil {
			t.Fatal(err)
		}
		for _, verified := range []any{true, false, nil} {
			h.refused(t, oauth.InvalidGrant, h.vouch(t, m{"iss": idpCreate, "email_verified": verified}))
		}
	})
	t.Run("XCH-10 an address of which nothing is said counts where the operator says that all are verified", func(t *testing.T) {
		h := newAgents(t)
		addAccount(t, h, "user-2", "ada@acme.test")
		if a := h.claims(t, h.ok(t, h.vouch(t, m{"iss": idpSure}))); a.Subject != "user-2" {
			t.Fatalf("token %+v", a)
		}
	})
	t.Run("XCH-10 a new account, where the configuration says so, and never somebody else's", func(t *testing.T) {
		h := newAgents(t)
		addAccount(t, h, "user-2", "taken@acme.test")
		first := h.claims(t, h.ok(t, h.vouch(t, m{"iss": idpCreate, "email_verified": true})))
		again := h.claims(t, h.ok(t, h.vouch(t, m{"iss": idpCreate})))
		other := h.claims(t, h.ok(t, h.vouch(t, m{"iss": idpCreate, "sub": "mallory", "email": "taken@acme.test", "email_verified": true})))
		same := h.claims(t, h.ok(t, h.vouch(t, m{"iss": idpCreate, "sub": "eve", "email": nil})))
		if first.Subject != again.Subject || len(first.Subject) != 26 || other.Subject == "user-2" || same.Subject == first.Subject || same.Subject == other.Subject {
			t.Fatalf("%s, %s, %s, %s", first.Subject, again.Subject, other.Subject, same.Subject)
		}
		u, err := h.store.UserByID(t.Context(), first.Subject)
		if err != nil || u.Name != "ada@acme.test" || u.Email != "ada@acme.test" || u.PasswordHash != "" {
			t.Errorf("account %+v, %v", u, err)
		}
		u, err = h.store.UserByID(t.Context(), other.Subject)
		if err != nil || u.Email != "" || u.Name != "mallory@create.idp.test" {
			t.Errorf("account %+v, %v", u, err)
		}
	})
	for name, claim := range map[string]m{
		"that the issuer did not verify":   {"email": "boss@acme.test", "email_verified": false},
		"of which the issuer says nothing": {"email": "boss@acme.test"},
		"that is none":                     {"email": "root", "email_verified": true},
	} {
		t.Run("XCH-10 a new account does not get an address "+name+", nor its name", func(t *testing.T) {
			h := newAgents(t)
			claim["iss"], claim["sub"] = idpCreate, "mallory"
			a := h.claims(t, h.ok(t, h.vouch(t, claim)))
			if u, err := h.store.UserByID(t.Context(), a.Subject); err != nil || u.Email != "" || u.Name != "mallory@create.idp.test" {
				t.Fatalf("account %+v, %v", u, err)
			}
			h.refused(t, oauth.InvalidGrant, h.vouch(t, email(m{"email": "boss@acme.test", "sub": "boss-at-idp"})))
		})
	}
	t.Run("XCH-10 a name that is taken gives way to the subject", func(t *testing.T) {
		h := newAgents(t)
		addAccount(t, h, "ada@acme.test", "")
		a := h.claims(t, h.ok(t, h.vouch(t, m{"iss": idpCreate})))
		if u, err := h.store.UserByID(t.Context(), a.Subject); err != nil || u.Name != "ada-at-idp@create.idp.test" {
			t.Errorf("account %+v, %v", u, err)
		}
	})
	t.Run("XCH-10 when every name is taken the client is told to try again", func(t *testing.T) {
		h := newAgents(t)
		addAccount(t, h, "ada@acme.test", "")
		addAccount(t, h, "ada-at-idp@create.idp.test", "")
		if r := h.post("/token", h.vouch(t, m{"iss": idpCreate})); r.get("error") != string(oauth.TemporarilyUnavailable) {
			t.Error(r.body)
		}
	})
}

func TestKeysThatCannotBeHad(t *testing.T) {
	h := newAgents(t)
	h.linkAda(t)
	form := h.vouch(t, nil)
	h.clock.move(2 * time.Minute)
	t.Run("URL-15 a store that does not answer is a failure of ours", func(t *testing.T) {
		down := errors.New("down")
		h.cfg.Identities = broken{down}
		if r := h.post("/token", h.assert(t, agent, form)); r.status != 500 {
			t.Errorf("status %d: %s", r.status, r.body)
		}
		h.cfg.Identities = broken{store.ErrNotFound}
		h.cfg.IDJAG[0].Link = LinkEmail
		h.refused(t, oauth.InvalidGrant, h.assert(t, agent, form))
	})
}
