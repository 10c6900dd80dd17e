package housetest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/bonafide-id/bonafide/resource"
)

// notes is a second resource, and idp an identity provider.
const (
	notes = "https://notes.test/"
	idp   = "https://idp.test"
)

// agents starts a house where rules name the keyed client for the grants that no
// person agrees to.
func agents(t testing.TB) *House {
	t.Helper()
	return New(t, agentRules...)
}

var agentRules = []string{"policy: {default: allow}", `
  - id: https://notes.test/
    name: Notes
    scopes: [{name: "notes:read", title: read notes}]
policy:
  default: allow
  rules:
    - name: agents
      client: https://keyed.test/c.json
      action: allow
      grants: [authorization_code, refresh_token, client_credentials, "` + oauth.GrantJWTBearer + `", "` + oauth.GrantTokenExchange + `"]
id_jag:
  issuers:
    - {issuer: "https://idp.test", jwks_uri: "https://idp.test/jwks.json", link: create}
token_exchange:
  rules:
    - client: https://keyed.test/c.json
      from: https://mcp.test/mcp
      to: ["https://notes.test/"]
      scopes: {"mcp:read": ["notes:read"]}
default_resource: https://mcp.test/mcp
`}

// agentDocument is that of a client that nobody signs in to: it has no redirect
// URI.
var agentDocument = map[string]any{
	"redirect_uris": nil, "response_types": []string{},
	"grant_types": []string{oauth.GrantClientCredentials, oauth.GrantJWTBearer, oauth.GrantTokenExchange},
}

// post sends a form with a fresh assertion of the keyed client.
func (k *keyed) post(path string, form url.Values, edit ...func(*http.Request)) Answer {
	k.h.TB.Helper()
	return k.h.Post(path, change(form, with(k.assert(nil))), edit...)
}

func ownForm(changes ...string) url.Values {
	return change(url.Values{"grant_type": {oauth.GrantClientCredentials}, "resource": {Resource}, "scope": {"mcp:read"}}, changes)
}

func TestClientsThatActForThemselves(t *testing.T) {
	t.Parallel()
	h := agents(t)
	k := h.keyed(agentDocument, jose.ES256)
	var token string
	t.Run("TOK-17, XCH-13, CAUTH-08 a client that was never seen gets a token for itself, without redirect URIs", func(t *testing.T) {
		a := k.post("/token", ownForm())
		if token = a.Str("access_token"); !a.OK() || token == "" || a.Str("refresh_token") != "" || a.Str("token_type") != "Bearer" {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("RS-25, TOK-18 the resource tells it from a person's", func(t *testing.T) {
		g, err := resource.New(resource.Config{Resource: Resource, AuthorizationServers: []string{Issuer}, HTTP: h.HTTP, Now: h.Now})
		if err != nil {
			t.Fatal(err)
		}
		got, err := g.Verify(t.Context(), token)
		if err != nil || !got.ClientOnly() || got.ClientHost() != "keyed.test" {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err = g.Verify(t.Context(), h.grant(h.john()).Str("access_token")); err != nil || got.ClientOnly() {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("FETCH-19, CACHE-05 the next ones fetch nothing", func(t *testing.T) {
		before := h.fetches()
		for range 5 {
			if a := k.post("/token", ownForm("resource", "", "scope", "")); !a.OK() || a.Str("scope") != "mcp:read" {
				t.Fatalf("%d %s", a.Status, a.Raw)
			}
		}
		if n := h.fetches() - before; n != 0 {
			t.Errorf("%d connections", n)
		}
	})
	t.Run("TOK-17 a client that no rule names is told whom to ask", func(t *testing.T) {
		other := *k
		other.id = h.Net.Host("other.test").ServeClient("/c.json", map[string]any{
			"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://keyed.test/jwks.json", "grant_types": []string{oauth.GrantClientCredentials}, "redirect_uris": nil,
		})
		before := h.fetches()
		other.post("/token", ownForm()).check(t, 400, oauth.UnauthorizedClient)
		h.Post("/token", ownForm("client_id", other.id)).check(t, 400, oauth.UnauthorizedClient)
		if n := h.fetches() - before; n != 0 {
			t.Errorf("FETCH-19 %d connections for a stranger", n)
		}
		if _, err := h.Store().Client(t.Context(), other.id); err == nil {
			t.Error("FETCH-20 it has left a row")
		}
	})
	t.Run("TOK-17 the public client of the house may not", func(t *testing.T) {
		h.Post("/token", ownForm("client_id", ClientID)).check(t, 400, oauth.UnauthorizedClient)
	})
	t.Run("REV-01, REV-04 it ends its token, without a fetch", func(t *testing.T) {
		before := h.fetches()
		if !h.active(token) {
			t.Fatal("not active")
		}
		if a := k.post("/revoke", url.Values{"token": {token}}); !a.OK() || h.active(token) || h.fetches() != before {
			t.Errorf("%d %s, active %v", a.Status, a.Raw, h.active(token))
		}
	})
	t.Run("REV-06 an administrator's block ends the rest at once", func(t *testing.T) {
		token := k.post("/token", ownForm()).Str("access_token")
		s := h.Store()
		defer s.Close()
		if !h.active(token) {
			t.Fatal("not active")
		}
		if err := s.SetClientState(t.Context(), k.id, store.StateBlocked, "test", h.Now()); err != nil {
			t.Fatal(err)
		}
		if a := k.post("/token", ownForm()); a.OK() || h.active(token) {
			t.Errorf("%d %s, active %v", a.Status, a.Raw, h.active(token))
		}
	})
}

// assertion returns what the identity provider says about a person to the keyed
// client.
func (h *House) assertion(key jose.Private, change map[string]any) url.Values {
	h.TB.Helper()
	now := h.Now().Unix()
	c := map[string]any{
		"iss": idp, "sub": "jane", "aud": Issuer, "client_id": keyedID, "jti": oauth.RandomToken(8), "iat": now, "exp": now + 300,
		"resource": Resource, "scope": "mcp:write", "email": "jane@acme.example",
	}
	for name, v := range change {
		c[name] = v
	}
	return url.Values{"grant_type": {oauth.GrantJWTBearer}, "assertion": {sign(h.TB, key, oauth.TypIDJAG, c)}}
}

func TestIdentityAssertionsOfNobodyHere(t *testing.T) {
	t.Parallel()
	rules, logs := append(slices.Clone(agentRules), ", link: create}", "}"), &notebook{}
	h := New(t, rules...)
	h.Server.Close()
	h.Log = logs
	h.Start(rules...)
	key := newKey(t, jose.ES256)
	h.Net.Host("idp.test").ServeJSON("/jwks.json", keySet(t, key))
	k := h.keyed(agentDocument, jose.ES256)
	t.Run("XCH-10, XCH-11 the operator is told whom to link, the client is not", func(t *testing.T) {
		a := k.post("/token", h.assertion(key, nil))
		a.check(t, 400, oauth.InvalidGrant)
		if !strings.Contains(logs.String(), `\"jane\" of `+idp) || strings.Contains(a.Raw, "jane") {
			t.Errorf("%s; %s", a.Raw, logs)
		}
		jane := h.AddUser("jane", Password)
		s := h.Store()
		defer s.Close()
		if err := s.LinkIdentity(t.Context(), store.Identity{Issuer: idp, Subject: "jane", UserID: jane.ID}, nil); err != nil {
			t.Fatal(err)
		}
		if a := k.post("/token", h.assertion(key, nil)); !a.OK() {
			t.Errorf("linked: %d %s", a.Status, a.Raw)
		}
	})
}

func TestIdentityAssertions(t *testing.T) {
	t.Parallel()
	h := agents(t)
	k := h.keyed(agentDocument, jose.ES256)
	key, stranger := newKey(t, jose.ES256), newKey(t, jose.ES256)
	idpHost := h.Net.Host("idp.test")
	t.Run("XCH-01 while the keys cannot be had the client is told to try again", func(t *testing.T) {
		if a := k.post("/token", h.assertion(key, nil)); a.Str("error") != string(oauth.TemporarilyUnavailable) {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	h.Later(time.Minute)
	idpHost.ServeJSON("/jwks.json", keySet(t, key))
	var first Answer
	t.Run("XCH-01, XCH-05, XCH-07, XCH-10 what the identity provider says becomes a token, with no page", func(t *testing.T) {
		if first = k.post("/token", h.assertion(key, nil)); !first.OK() || first.Str("scope") != "mcp:write" || first.Str("refresh_token") != "" || !h.active(first.Str("access_token")) {
			t.Fatalf("%d %s", first.Status, first.Raw)
		}
		if e := h.Events(audit.TypeUser); len(e) == 0 || e[len(e)-1].Code != "added" || e[len(e)-1].Data["issuer"] != idp {
			t.Errorf("events %+v", e)
		}
	})
	t.Run("XCH-01, attack JK-12: keys that nobody has make the server look once in a while", func(t *testing.T) {
		before := idpHost.Count("/jwks.json")
		for range 20 {
			k.post("/token", h.assertion(newKey(t, jose.ES256), nil)).check(t, 400, oauth.InvalidGrant)
		}
		if n := idpHost.Count("/jwks.json") - before; n > 1 {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("XCH-01 the next key of the identity provider is found", func(t *testing.T) {
		idpHost.ServeJSON("/jwks.json", keySet(t, key, stranger))
		h.Later(time.Minute)
		if a := k.post("/token", h.assertion(stranger, nil)); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("attack CA-10: an identity assertion authenticates no client, and an assertion of a client is none", func(t *testing.T) {
		jag := h.assertion(key, map[string]any{"iss": k.id, "sub": k.id}).Get("assertion")
		h.Post("/token", change(ownForm(), with(jag))).check(t, 401, oauth.InvalidClient)
		h.Post("/token", change(ownForm(), with(sign(t, k.keys[0], oauth.TypIDJAG, k.claims(nil))))).check(t, 401, oauth.InvalidClient)
		k.post("/token", url.Values{"grant_type": {oauth.GrantJWTBearer}, "assertion": {k.assert(nil)}}).check(t, 400, oauth.InvalidGrant)
		k.post("/token", url.Values{"grant_type": {oauth.GrantJWTBearer}, "assertion": {first.Str("access_token")}}).check(t, 400, oauth.InvalidGrant)
	})
	t.Run("META-10, META-14 the grant is listed, and whom it trusts is not", func(t *testing.T) {
		a := h.Get("/.well-known/oauth-authorization-server")
		for member, want := range map[string]string{
			"authorization_grant_profiles_supported": oauth.ProfileIDJAG, "grant_types_supported": oauth.GrantJWTBearer,
			"token_endpoint_auth_methods_supported": oauth.MethodPrivateKeyJWT,
		} {
			if l, _ := a.Body[member].([]any); !slices.Contains(l, any(want)) {
				t.Errorf("%s: %v", member, l)
			}
		}
		if strings.Contains(a.Raw, "idp.test") {
			t.Error("an issuer is named")
		}
		plain := New(t).Get("/.well-known/oauth-authorization-server")
		if l, _ := plain.Body["grant_types_supported"].([]any); slices.Contains(l, any(oauth.GrantJWTBearer)) || plain.Body["authorization_grant_profiles_supported"] != nil {
			t.Errorf("without a configuration: %s", plain.Raw)
		}
	})
}

func TestTokenExchange(t *testing.T) {
	t.Parallel()
	h := agents(t)
	k := h.keyed(agentDocument, jose.ES256)
	john := h.grant(h.john())
	swap := func(token string) url.Values {
		return url.Values{"grant_type": {oauth.GrantTokenExchange}, "subject_token": {token}, "subject_token_type": {oauth.TokenTypeAccess}, "resource": {notes}}
	}
	var got resource.Token
	t.Run("XCH-12 an MCP server exchanges the token of its caller for one for another resource", func(t *testing.T) {
		a := k.post("/token", swap(john.Str("access_token")))
		if !a.OK() || a.Str("scope") != "notes:read" || a.Str("issued_token_type") != oauth.TokenTypeAccess {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		g, err := resource.New(resource.Config{Resource: notes, AuthorizationServers: []string{Issuer}, HTTP: h.HTTP, Now: h.Now})
		if err != nil {
			t.Fatal(err)
		}
		if got, err = g.Verify(t.Context(), a.Str("access_token")); err != nil || got.ClientID != k.id || got.ClientOnly() {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("XCH-12, DPOP-02 with a proof it is bound to the key of the server", func(t *testing.T) {
		key := newKey(t, jose.ES256)
		proof, err := key.SignProof(map[string]any{"jti": "1", "htm": "POST", "htu": Issuer + "/token", "iat": h.Now().Unix()})
		if err != nil {
			t.Fatal(err)
		}
		if a := k.post("/token", swap(john.Str("access_token")), header("DPoP", proof)); !a.OK() || a.Str("token_type") != "DPoP" {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("XCH-12 a token for another server is worth nothing here", func(t *testing.T) {
		a := k.post("/token", swap(john.Str("access_token")))
		k.post("/token", swap(a.Str("access_token"))).check(t, 400, oauth.InvalidTarget)
	})
	t.Run("XCH-12, REV-03 once John's connection ends, his token is exchanged no more", func(t *testing.T) {
		if a := h.Post("/revoke", url.Values{"token": {john.Str("refresh_token")}, "client_id": {ClientID}}); !a.OK() {
			t.Fatal(a.Raw)
		}
		k.post("/token", swap(john.Str("access_token"))).check(t, 400, oauth.InvalidRequest)
	})
}
