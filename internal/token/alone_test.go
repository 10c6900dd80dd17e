package token

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/issuers"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// The issuers of identity assertions: one of each way of linking.
const (
	idp       = "https://idp.test"
	idpEmail  = "https://email.idp.test"
	idpCreate = "https://create.idp.test"
	idpSure   = "https://sure.idp.test" // every address is verified there
)

// agent is a registered client with every grant.
const agent = "agent"

var everyGrant = []string{
	oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials, oauth.GrantJWTBearer, oauth.GrantTokenExchange,
}

var exchangeRules = []ExchangeRule{
	{Client: agent, From: mcp, To: []string{notes}},
	{Client: keyed, From: notes, To: []string{mcp}, Scopes: map[string]oauth.Scopes{"read": {"list", "gone"}}},
	{Client: basic, From: mcp, To: []string{mcp}},
}

// issuers returns the issuers that the house believes.
func (h *house) issuers(t testing.TB) []TrustedIssuer {
	t.Helper()
	var err error
	if h.idp, err = jose.Generate(jose.ES256); err != nil {
		t.Fatal(err)
	}
	raw, err := jose.MarshalSet(h.idp.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := issuers.New(issuers.Config{File: file, Now: h.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	return []TrustedIssuer{
		{ID: idp, Keys: keys},
		{ID: idpEmail, Keys: keys, Tenants: []string{"acme", "globex"}, Link: LinkEmail},
		{ID: idpCreate, Keys: keys, Link: LinkCreate, Life: time.Hour},
		{ID: idpSure, Keys: keys, Link: LinkEmail, EmailsVerified: true},
	}
}

// newAgents is a house with clients that may use every grant, each with a row.
func newAgents(t testing.TB) *house {
	t.Helper()
	h := newHouse(t)
	h.people.clients[agent] = &directory.Client{
		ID: agent, Source: store.SourceRegistered, State: directory.StateAllowed, AuthMethods: []string{oauth.MethodPrivateKeyJWT}, GrantTypes: everyGrant,
	}
	h.people.clients[public].GrantTypes = everyGrant
	for _, id := range []string{agent, basic, keyed} {
		c := h.people.clients[id]
		c.GrantTypes = everyGrant
		if err := h.store.RegisterClient(t.Context(), store.Client{
			ID: id, Source: c.Source, State: store.StateAllowed, GrantTypes: c.GrantTypes, AuthMethods: c.AuthMethods,
		}, h.clock.now()); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// proof returns a DPoP proof for /token.
func (h *house) proof(t testing.TB, k jose.Private) string {
	t.Helper()
	p, err := k.SignProof(map[string]any{"jti": oauth.RandomToken(8), "htm": "POST", "htu": issuer + "/token", "iat": h.clock.now().Unix()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newKey(t testing.TB) jose.Private {
	t.Helper()
	k, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func own(scope string, resources ...string) url.Values {
	f := url.Values{"grant_type": {oauth.GrantClientCredentials}, "resource": resources}
	if scope != "" {
		f.Set("scope", scope)
	}
	return f
}

func TestClientCredentials(t *testing.T) {
	h := newAgents(t)
	t.Run("TOK-17, TOK-18, XCH-13, RS-25 a client with a key acts for itself: no person, no refresh token, no ID token", func(t *testing.T) {
		r := h.ok(t, h.assert(t, agent, own("read write openid offline_access", mcp)))
		a := h.claims(t, r)
		if !a.ClientOnly || a.Subject != agent || a.ClientID != agent || a.Audience != mcp || a.Scopes.String() != "read write" || !a.AuthTime.IsZero() {
			t.Errorf("token %+v", a)
		}
		if r.get("token_type") != "Bearer" || r.json["refresh_token"] != nil || r.json["id_token"] != nil || r.get("scope") != "read write" {
			t.Errorf("answer %s", r.body)
		}
		g, err := h.store.GrantActive(t.Context(), a.GrantID)
		if err != nil || g.Kind != store.KindClient || g.UserID != "" || g.Resource != mcp {
			t.Errorf("grant %+v, %v", g, err)
		}
		events := h.events(t, audit.TypeToken)
		if e := events[len(events)-1]; e.User != "" || e.Client != agent || e.Grant != a.GrantID || e.Data["grant_type"] != oauth.GrantClientCredentials {
			t.Errorf("event %+v", e)
		}
		if st := h.introspect1(t, r.get("access_token")); st.json["active"] != true || st.get("sub") != agent || st.get("token_type") != "Bearer" {
			t.Errorf("introspection %s", st.body)
		}
	})
	t.Run("TOK-17 a client with a secret, too", func(t *testing.T) {
		h.ok(t, own("read", mcp), "Authorization", basicAuth(basic, h.secret))
	})
	t.Run("AUTHZ-26, TOK-17 details are agreed to by people, so that a client alone gets none, and no token that leaves them out", func(t *testing.T) {
		form := own("read", mcp)
		form.Set("authorization_details", `[{"type":"week"}]`)
		h.refused(t, oauth.InvalidDetails, h.assert(t, agent, form))
	})
	t.Run("REV-01, REV-02 the client ends its token, and nobody else", func(t *testing.T) {
		token := h.ok(t, h.assert(t, agent, own("read", mcp))).get("access_token")
		h.post("/revoke", url.Values{"token": {token}, "client_id": {other}})
		if st := h.introspect1(t, token); st.json["active"] != true {
			t.Fatal("another client ended it")
		}
		if r := h.post("/revoke", h.assert(t, agent, url.Values{"token": {token}})); r.status != 200 {
			t.Fatal(r.body)
		}
		if st := h.introspect1(t, token); st.json["active"] != false {
			t.Fatal(st.body)
		}
	})
	t.Run("REV-06, INT-02 blocking the client ends its tokens", func(t *testing.T) {
		token := h.ok(t, h.assert(t, agent, own("read", mcp))).get("access_token")
		if err := h.store.SetClientState(t.Context(), agent, store.StateBlocked, "test", h.clock.now()); err != nil {
			t.Fatal(err)
		}
		if st := h.introspect1(t, token); st.json["active"] != false {
			t.Error(st.body)
		}
		h.refused(t, oauth.UnauthorizedClient, h.assert(t, agent, own("read", mcp))) // in the commit, whatever was read before
		if err := h.store.SetClientState(t.Context(), agent, store.StateAllowed, "test", h.clock.now()); err != nil {
			t.Fatal(err)
		}
	})
	narrow := []string{"authorization_code"}
	for _, row := range []struct {
		name  string
		want  oauth.Code
		spoil func(*testing.T, url.Values) url.Values
	}{
		{"TOK-17 a client that only names itself", oauth.UnauthorizedClient, func(t *testing.T, f url.Values) url.Values {
			f.Set("client_id", public)
			return f
		}},
		{"TOK-17 a client with a document that no rule names", oauth.UnauthorizedClient, func(t *testing.T, f url.Values) url.Values {
			return h.assert(t, keyed, f)
		}},
		{"TOK-20 a client that does not declare the grant", oauth.UnauthorizedClient, func(t *testing.T, f url.Values) url.Values {
			return h.assert(t, either, f)
		}},
		{"POL-03 a rule that leaves the client other grants", oauth.UnauthorizedClient, func(t *testing.T, f url.Values) url.Values {
			h.people.rules(t, policy.Rule{Client: agent, Action: policy.Allow, Grants: narrow})
			return h.assert(t, agent, f)
		}},
		{"TOK-07, AUTHZ-16 a resource that is none", oauth.InvalidTarget, func(t *testing.T, f url.Values) url.Values {
			f.Set("resource", "https://other.test/")
			return h.assert(t, agent, f)
		}},
		{"TOK-09 two resources", oauth.InvalidTarget, func(t *testing.T, f url.Values) url.Values {
			f["resource"] = []string{mcp, notes}
			return h.assert(t, agent, f)
		}},
		{"TOK-07 no resource, where there is no default", oauth.InvalidTarget, func(t *testing.T, f url.Values) url.Values {
			f.Del("resource")
			return h.assert(t, agent, f)
		}},
		{"POL-03 a resource that the policy withholds", oauth.InvalidTarget, func(t *testing.T, f url.Values) url.Values {
			h.people.rules(t, policy.Rule{Client: agent, Action: policy.Allow, Resources: []string{notes}})
			return h.assert(t, agent, f)
		}},
		{"TOK-13 only scopes that the resource does not have", oauth.InvalidScope, func(t *testing.T, f url.Values) url.Values {
			f.Set("scope", "openid other")
			return h.assert(t, agent, f)
		}},
		{"POL-03 only scopes that the policy withholds", oauth.InvalidScope, func(t *testing.T, f url.Values) url.Values {
			h.people.rules(t, policy.Rule{Client: agent, Action: policy.Allow, Scopes: oauth.Scopes{"list"}, HasScopes: true})
			return h.assert(t, agent, f)
		}},
		{"TOK-13 a malformed scope", oauth.InvalidScope, func(t *testing.T, f url.Values) url.Values {
			f.Set("scope", `a"b`)
			return h.assert(t, agent, f)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			h.refused(t, row.want, row.spoil(t, own("read", mcp)))
			h.people.rules(t)
		})
	}
	t.Run("TOK-17 a rule that names a client with a document, and the grant", func(t *testing.T) {
		h.people.rules(t, policy.Rule{Client: keyed, Action: policy.Allow, Grants: everyGrant, Scopes: oauth.Scopes{"read"}, HasScopes: true})
		if a := h.claims(t, h.ok(t, h.assert(t, keyed, own("read write", mcp)))); a.Scopes.String() != "read" || !a.ClientOnly {
			t.Errorf("token %+v", a)
		}
		h.people.rules(t)
	})
}

// introspect1 asks as the MCP server.
func (h *house) introspect1(t testing.TB, token string) response {
	t.Helper()
	return h.post("/introspect", url.Values{"token": {token}}, "Authorization", basicAuth(mcp, mcpSecret))
}

func TestGrantTypesOfAConfiguration(t *testing.T) {
	t.Run("META-10, META-14 only what is configured is offered", func(t *testing.T) {
		var c Config
		plain := c.GrantTypes()
		c.IDJAG, c.Exchange = make([]TrustedIssuer, 1), make([]ExchangeRule, 1)
		all := c.GrantTypes()
		for _, g := range []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials} {
			if !slices.Contains(plain, g) {
				t.Errorf("%s is missing", g)
			}
		}
		for _, g := range []string{oauth.GrantJWTBearer, oauth.GrantTokenExchange} {
			if slices.Contains(plain, g) || !slices.Contains(all, g) {
				t.Errorf("%s: %v, %v", g, plain, all)
			}
		}
	})
	t.Run("TOK-01 a grant that is not configured is one that nobody knows", func(t *testing.T) {
		h := newAgents(t)
		h.cfg.IDJAG, h.cfg.Exchange = nil, nil
		for _, g := range []string{oauth.GrantJWTBearer, oauth.GrantTokenExchange} {
			h.refused(t, oauth.UnsupportedGrantType, h.assert(t, agent, url.Values{"grant_type": {g}}))
		}
	})
	t.Run("identity assertions need accounts", func(t *testing.T) {
		h := newAgents(t)
		c := h.cfg
		c.Identities = nil
		if _, err := New(c); err == nil {
			t.Error("accepted")
		}
	})
}
