package token

import (
	"context"
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
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/google/go-cmp/cmp"
)

// overheard is a house that remembers what everybody who listens to the audit
// hears.
func overheard(t *testing.T, h *house) func(t *testing.T) audit.Event {
	t.Helper()
	var heard []audit.Event
	log, err := audit.New(audit.Config{Sink: h.store, Now: h.clock.now, Observe: func(e audit.Event) { heard = append(heard, e) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close(context.Background()) })
	h.cfg.Audit = log
	return func(t *testing.T) audit.Event {
		t.Helper()
		if len(heard) != 1 {
			t.Fatalf("heard %+v", heard)
		}
		e := heard[0]
		heard, e.Seq = nil, 0
		stored := h.events(t, e.Type)
		s := stored[len(stored)-1]
		s.Seq = 0
		if diff := cmp.Diff(s, e); diff != "" {
			t.Errorf("what was heard is not what is kept (-kept +heard):\n%s", diff)
		}
		return e
	}
}

func wantEvent(t *testing.T, got, want audit.Event) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func TestWhatTheAuditKeepsOfTokens(t *testing.T) {
	h := newHouse(t)
	heard := overheard(t, h)
	event := func(typ audit.Type, grantID string, data map[string]string) audit.Event {
		return audit.Event{Time: h.clock.now(), Type: typ, IP: "192.0.2.1", Client: public, User: "user-1", Grant: grantID, Resource: mcp, Data: data}
	}
	var first, second, grantID string
	t.Run("POL-07 the first tokens", func(t *testing.T) {
		c := h.consent(t, public)
		r := h.ok(t, c.form())
		first, grantID = r.get("refresh_token"), c.grantID
		got := heard(t)
		if got.Ref == "" {
			t.Error("without a reference")
		}
		got.Ref = ""
		wantEvent(t, got, event(audit.TypeToken, grantID, map[string]string{"jti": h.claims(t, r).JTI, "scope": "read write", "method": "none"}))
	})
	t.Run("POL-07 a refresh", func(t *testing.T) {
		r := h.ok(t, refreshForm(public, first))
		second = r.get("refresh_token")
		wantEvent(t, heard(t), event(audit.TypeRefresh, grantID, map[string]string{"jti": h.claims(t, r).JTI, "scope": "read write", "method": "none"}))
	})
	t.Run("POL-07, TOK-12 a lost answer that was asked for again", func(t *testing.T) {
		form := refreshForm(public, first)
		form.Set("scope", "read")
		r := h.ok(t, form)
		want := event(audit.TypeRefresh, grantID, map[string]string{"jti": h.claims(t, r).JTI, "scope": "read", "method": "none", "grace": "yes"})
		want.Rule = "TOK-12"
		got := heard(t)
		got.Ref = ""
		wantEvent(t, got, want)
	})
	t.Run("POL-07, TOK-11 reuse, once", func(t *testing.T) {
		h.ok(t, refreshForm(public, second))
		heard(t)
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first))
		got := heard(t)
		got.Ref = ""
		want := event(audit.TypeReuse, grantID, map[string]string{"what": "refresh token"})
		want.Rule = "TOK-11"
		wantEvent(t, got, want)
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first))
		if n := len(h.events(t, audit.TypeReuse)); n != 1 {
			t.Errorf("%d events", n)
		}
	})
	t.Run("POL-07, TOK-03 a code that comes back, once, with the reason at the grant", func(t *testing.T) {
		c := h.consent(t, public)
		h.ok(t, c.form())
		heard(t)
		for range 2 {
			h.refused(t, oauth.InvalidGrant, c.form())
		}
		got := heard(t)
		got.Ref = ""
		want := event(audit.TypeReuse, c.grantID, map[string]string{"what": "authorization code"})
		want.Rule = "TOK-03"
		wantEvent(t, got, want)
		if code, err := h.store.FindCode(t.Context(), store.HashOf(c.value), h.clock.now()); err != nil || code.Grant.EndReason != "authorization code used twice" {
			t.Errorf("%q, %v", code.Grant.EndReason, err)
		}
	})
	t.Run("POL-07, TOK-15 why there is no refresh token", func(t *testing.T) {
		h.ok(t, h.consent(t, goose).form())
		if e := heard(t); e.Data["no_refresh"] == "" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("POL-07, POL-09 a refresh that rotates nothing", func(t *testing.T) {
		k := newKey(t)
		h.people.rules(t, policy.Rule{Client: keyed, Action: policy.Allow, FAPI: true})
		defer h.people.rules(t)
		c := h.consent(t, keyed)
		token := h.ok(t, h.assert(t, keyed, c.form()), "DPoP", h.proof(t, k)).get("refresh_token")
		heard(t)
		r := h.ok(t, h.assert(t, keyed, refreshForm(keyed, token)), "DPoP", h.proof(t, k))
		got := heard(t)
		got.Ref = ""
		want := event(audit.TypeRefresh, c.grantID, map[string]string{"jti": h.claims(t, r).JTI, "scope": "read write", "method": "private_key_jwt", "rotated": "no"})
		want.Client = keyed
		wantEvent(t, got, want)
	})
	t.Run("POL-07, REV-03 revocations", func(t *testing.T) {
		c := h.consent(t, public)
		r := h.ok(t, c.form())
		heard(t)
		if got := h.post("/revoke", url.Values{"client_id": {public}, "token": {r.get("access_token")}}); got.status != http.StatusOK {
			t.Fatal(got.body)
		}
		got := heard(t)
		got.Ref = ""
		wantEvent(t, got, event(audit.TypeRevocation, c.grantID, map[string]string{"jti": h.claims(t, r).JTI}))
		if got := h.post("/revoke", url.Values{"client_id": {public}, "token": {r.get("refresh_token")}}); got.status != http.StatusOK {
			t.Fatal(got.body)
		}
		got = heard(t)
		got.Ref = ""
		wantEvent(t, got, event(audit.TypeRevocation, c.grantID, nil))
	})
}

func TestWhatARedemptionSays(t *testing.T) {
	h := newHouse(t)
	now := h.clock.now()
	is := &issue{now: now, jkt: "key", grant: store.Grant{ID: "grant"}, client: &clientauth.Client{
		Client: &directory.Client{ID: keyed, Doc: &cimd.Document{MTLSBound: true}}, Method: oauth.MethodAttestation, KeyThumbprint: "thumb", InstanceJKT: "instance", CertThumbprint: "cert",
	}}
	t.Run("DOC-18, DPOP-02, ATT-08, DPOP-07, TOK-14 everything that the client proved, and how long the family lives", func(t *testing.T) {
		got := h.redemption(is, store.HashOf("code"))
		want := store.Redemption{
			Hash: store.HashOf("code"), Method: oauth.MethodAttestation, KeyThumbprint: "thumb", JKT: "key", InstanceJKT: "instance", CertThumbprint: "cert",
			Refresh: &store.NewRefresh{Hash: store.HashOf(is.answer.RefreshToken), Family: got.Refresh.Family, Expires: now.Add(14 * 24 * time.Hour), Absolute: now.Add(90 * 24 * time.Hour)},
		}
		if diff := cmp.Diff(want, got); diff != "" || is.answer.RefreshToken == "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("TOK-14 a family that ends before it could be idle for so long", func(t *testing.T) {
		h.cfg.Absolute = time.Hour
		defer func() { h.cfg.Absolute = 90 * 24 * time.Hour }()
		if got := h.redemption(is, store.HashOf("code")).Refresh; !got.Expires.Equal(now.Add(time.Hour)) || !got.Absolute.Equal(got.Expires) {
			t.Errorf("%+v", got)
		}
	})
	t.Run("POL-09 under FAPI it ends with the family only", func(t *testing.T) {
		is.client.Decision.FAPI = true
		if got := h.redemption(is, store.HashOf("code")).Refresh; !got.Expires.Equal(got.Absolute) {
			t.Errorf("%+v", got)
		}
	})
	t.Run("TOK-15 no refresh token, and nothing kept of one", func(t *testing.T) {
		is.noRefresh, is.answer.RefreshToken = "so", ""
		if got := h.redemption(is, store.HashOf("code")); got.Refresh != nil || is.answer.RefreshToken != "" || got.KeyThumbprint != "thumb" {
			t.Errorf("%+v", got)
		}
	})
}

func TestWeaker(t *testing.T) {
	for _, r := range []struct {
		row           string
		began, comes  string
		beganKey, key string
		want          bool
	}{
		{row: "DOC-18 a secret, and then none", began: oauth.MethodSecretBasic, comes: oauth.MethodNone, want: true},
		{row: "DOC-18 a key, and then a secret", began: oauth.MethodPrivateKeyJWT, comes: oauth.MethodSecretPost, want: true},
		{row: "DOC-18 a key that the client publishes, and then an attestation", began: oauth.MethodPrivateKeyJWT, beganKey: "k", comes: oauth.MethodAttestation, want: true},
		{row: "DOC-18 another key", began: oauth.MethodPrivateKeyJWT, beganKey: "k", comes: oauth.MethodSelfSignedTLS, key: "l"},
		{row: "DOC-18 a secret sent in another place", began: oauth.MethodSecretBasic, comes: oauth.MethodSecretPost},
		{row: "DOC-18 an attestation in its other form", began: oauth.MethodAttestation, comes: oauth.MethodAttestationDPoP},
		{row: "DOC-18 nothing, and then a key", began: oauth.MethodNone, comes: oauth.MethodPrivateKeyJWT, key: "k"},
	} {
		t.Run(r.row, func(t *testing.T) {
			if got := weaker(&clientauth.Client{Method: r.comes, KeyThumbprint: r.key}, store.Grant{AuthMethod: r.began, KeyThumbprint: r.beganKey}); got != r.want {
				t.Errorf("weaker: %v", got)
			}
		})
	}
}

func TestWhatTokensSay(t *testing.T) {
	h := newHouse(t)
	mint := func(t *testing.T, is *issue) *issue {
		t.Helper()
		is.now, is.grant.ID, is.grant.ClientID, is.grant.Resource = h.clock.now(), "grant", keyed, mcp
		if is.client == nil {
			is.client = &clientauth.Client{Client: &directory.Client{ID: keyed}}
		}
		if err := h.mint(t.Context(), is); err != nil {
			t.Fatal(err)
		}
		return is
	}
	t.Run("DPOP-07, TOK-08 a token is bound to the certificate, and carries the whole sign-in", func(t *testing.T) {
		at := h.clock.now().Add(-time.Minute).UTC()
		is := mint(t, &issue{
			grant:  store.Grant{UserID: "user-1", AuthTime: at, ACR: "acr", AMR: []string{"a"}, Actor: `{"sub":"x"}`},
			client: &clientauth.Client{Client: &directory.Client{ID: keyed}, CertThumbprint: "cert"}, origins: []string{"o"}, details: `[{"type":"week"}]`, scopes: oauth.Scopes{"read"},
		})
		got, err := h.cfg.Keys.VerifyAccess(is.answer.AccessToken, is.now)
		if err != nil {
			t.Fatal(err)
		}
		if got.CnfX5T != "cert" || got.CnfJKT != "" || !got.AuthTime.Equal(at) || got.ACR != "acr" || !slices.Equal(got.AMR, []string{"a"}) || got.Actor != `{"sub":"x"}` ||
			!slices.Equal(got.Origins, []string{"o"}) || got.Details != `[{"type":"week"}]` || got.JTI != is.jti || got.Scopes.String() != "read" {
			t.Errorf("%+v", got)
		}
		if is.answer.TokenType != "Bearer" || is.answer.ExpiresIn != 600 || string(is.answer.Details) != `[{"type":"week"}]` {
			t.Errorf("%+v", is.answer)
		}
	})
	t.Run("XCH-12 what may live longer lives as long as all do, and what may not does not", func(t *testing.T) {
		for until, want := range map[time.Duration]int64{time.Hour: 600, 10 * time.Minute: 600, time.Minute: 60} {
			if is := mint(t, &issue{grant: store.Grant{UserID: "user-1"}, until: h.clock.now().Add(until)}); is.answer.ExpiresIn != want {
				t.Errorf("until %v: %d", until, is.answer.ExpiresIn)
			}
		}
	})
	t.Run("OIDC-01, OIDC-09 an ID token has the sign-in, the session and the hash of the access token", func(t *testing.T) {
		at := h.clock.now().Add(-time.Minute).UTC()
		is := &issue{grant: store.Grant{UserID: "user-1", AuthTime: at, ACR: "acr", AMR: []string{"a"}, SID: "sid", Nonce: "n"}, scopes: oauth.Scopes{"openid"}}
		is.grantType = oauth.GrantDeviceCode
		mint(t, is)
		m, err := jose.Parse(is.answer.IDToken, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, has := range []string{`"acr":"acr"`, `"amr":["a"]`, `"sid":"sid"`, `"at_hash":"`, `"auth_time":`, `"aud":"` + keyed + `"`, `"sub":"user-1"`} {
			if !strings.Contains(string(m.Claims), has) {
				t.Errorf("%s is not in %s", has, m.Claims)
			}
		}
		if strings.Contains(string(m.Claims), "nonce") {
			t.Errorf("%s", m.Claims)
		}
	})
	t.Run("TOK-18 none for a client that acts for itself, whatever scopes it has", func(t *testing.T) {
		is := &issue{scopes: oauth.Scopes{"openid"}}
		is.kind.alone = true
		if mint(t, is); is.answer.IDToken != "" {
			t.Error("an ID token")
		}
	})
	t.Run("AUTHZ-26 a resource that has no scopes, and a grant without details", func(t *testing.T) {
		h.ok(t, h.consent(t, public, func(g *store.Grant) { g.Resource, g.Scopes = "https://quiet.test/", nil }).form())
	})
	t.Run("AUTHZ-26 details that are withdrawn leave the scopes, and the answer says what is there", func(t *testing.T) {
		h.people.rules(t)
		form := h.consent(t, public, func(g *store.Grant) { g.Details = `[{"type":"week"}]` }).form()
		r := h.ok(t, form)
		if !strings.Contains(r.body, `"authorization_details":[{"type":"week"}]`) {
			t.Error(r.body)
		}
		h.people.set.Resources[0].Details = nil
		if r := h.ok(t, refreshForm(public, r.get("refresh_token"))); r.get("scope") != "read write" || r.json["authorization_details"] != nil {
			t.Error(r.body)
		}
		h.people.rules(t)
	})
	t.Run("mistake 26: offline_access that was granted can be asked for", func(t *testing.T) {
		r := h.ok(t, h.consent(t, public, func(g *store.Grant) { g.Scopes = oauth.Scopes{"read", "offline_access"} }).form())
		form := refreshForm(public, r.get("refresh_token"))
		form.Set("scope", "read offline_access")
		if r := h.ok(t, form); r.get("scope") != "read offline_access" {
			t.Error(r.body)
		}
	})
}

func TestWhoMayUseTheGrants(t *testing.T) {
	h := newAgents(t)
	t.Run("TOK-17 not even a registered client acts for itself that only names itself", func(t *testing.T) {
		h.people.clients["open"] = &directory.Client{ID: "open", Source: store.SourceRegistered, State: directory.StateAllowed, AuthMethods: []string{oauth.MethodNone}, GrantTypes: everyGrant}
		form := own("read", mcp)
		form.Set("client_id", "open")
		if r := h.refused(t, oauth.UnauthorizedClient, form); r.get("rule") != "TOK-17" {
			t.Error(r.body)
		}
	})
	t.Run("POL-03 a client with a list of resources gets tokens for those", func(t *testing.T) {
		h.people.rules(t, policy.Rule{Client: public, Action: policy.Allow, Resources: []string{mcp}})
		defer h.people.rules(t)
		h.ok(t, h.consent(t, public).form())
	})
	t.Run("DEV-09, TOK-17 a stranger is let in by the word of an operator, and asked about only where strangers may come", func(t *testing.T) {
		var asked []string
		named, failure := false, error(nil)
		h.cfg.Named = func(_ context.Context, id string) (bool, error) { asked = append(asked, id); return named, failure }
		defer func() { h.cfg.Named = nil }()
		try := func() response { return h.post("/token", h.assert(t, agent, own("read", mcp))) }
		try().is(t, 400, oauth.UnauthorizedClient, "TOK-17")
		if !slices.Equal(asked, []string{agent}) {
			t.Errorf("asked about %q", asked)
		}
		if failure = errors.New("disk"); try().status != http.StatusInternalServerError {
			t.Error("a failure of ours is a refusal")
		}
		if named, failure = true, nil; try().status != http.StatusOK {
			t.Error("named, and not let in")
		}
		named, asked = false, nil
		h.ok(t, h.consent(t, public).form())
		h.post("/revoke", url.Values{"client_id": {public}, "token": {"x"}})
		if len(asked) != 0 {
			t.Errorf("asked about %q", asked)
		}
		for name, g := range grants {
			if want := name != oauth.GrantAuthorizationCode && name != oauth.GrantRefreshToken; g.resolve != want {
				t.Errorf("%s: strangers may come: %v", name, g.resolve)
			}
		}
	})
	t.Run("META-10 the grants that work, in order", func(t *testing.T) {
		want := []string{oauth.GrantAuthorizationCode, oauth.GrantClientCredentials, oauth.GrantRefreshToken, oauth.GrantJWTBearer, oauth.GrantTokenExchange}
		for range 20 { // a map has no order
			if got := h.GrantTypes(); !slices.Equal(got, want) {
				t.Fatalf("%q", got)
			}
		}
	})
	t.Run("TOK-19 a challenge answers credentials in the header that turn out too weak, and nothing else", func(t *testing.T) {
		c := h.consent(t, basic, func(g *store.Grant) { g.AuthMethods = []string{oauth.MethodPrivateKeyJWT} })
		form := c.form()
		form.Del("client_id")
		if r := h.refused(t, oauth.InvalidClient, form, "Authorization", basicAuth(basic, h.secret)); r.header.Get("WWW-Authenticate") == "" {
			t.Error("no challenge")
		}
		form.Set("code", "unknown")
		if r := h.refused(t, oauth.InvalidGrant, form, "Authorization", basicAuth(basic, h.secret)); r.header.Get("WWW-Authenticate") != "" {
			t.Error("a challenge for a code")
		}
		form = h.consent(t, basic).form()
		form.Del("client_id")
		if r := h.ok(t, form, "Authorization", basicAuth(basic, h.secret)); r.header.Get("WWW-Authenticate") != "" {
			t.Error("a challenge for nothing")
		}
		if r := h.post("/token", own("read", mcp), "Authorization", "Basic x"); r.status != http.StatusUnauthorized || r.header.Get("WWW-Authenticate") == "" {
			t.Error(r.body)
		}
	})
	t.Run("attack TK-06: wrong verifiers of one code close no other one", func(t *testing.T) {
		a, b := h.consent(t, public), h.consent(t, public)
		bad := a.form()
		for range 5 {
			bad.Set("code_verifier", oauth.NewVerifier())
			h.refused(t, oauth.InvalidGrant, bad)
		}
		h.refused(t, oauth.InvalidGrant, a.form())
		h.ok(t, b.form())
	})
}

func TestConfigOfTheEndpoint(t *testing.T) {
	h := newHouse(t)
	good := h.cfg
	good.Access, good.Idle, good.Absolute, good.Grace = 0, 0, 0, 0
	for name, spoil := range map[string]func(*Config){
		"no issuer":                      func(c *Config) { c.Issuer = "" },
		"no clients":                     func(c *Config) { c.Clients = nil },
		"no grants":                      func(c *Config) { c.Grants = nil },
		"no denials":                     func(c *Config) { c.Denials = nil },
		"no keys":                        func(c *Config) { c.Keys = nil },
		"no policy":                      func(c *Config) { c.Policy = nil },
		"no audit":                       func(c *Config) { c.Audit = nil },
		"identity assertions of nobody":  func(c *Config) { c.Identities = nil },
		"tokens that have ended":         func(c *Config) { c.Access = -1 },
		"a grace that has ended":         func(c *Config) { c.Grace = -1 },
		"a grace that is not a lost one": func(c *Config) { c.Grace = 30*time.Second + 1 },
	} {
		t.Run("not accepted: "+name, func(t *testing.T) {
			c := good
			spoil(&c)
			if _, err := New(c); err == nil {
				t.Error("accepted")
			}
		})
	}
	t.Run("TOK-12, TOK-14 what is usual, and the longest grace", func(t *testing.T) {
		c := good
		c.IDJAG, c.Identities, c.Now = nil, nil, nil
		h, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if h.cfg.Access != 10*time.Minute || h.cfg.Idle != 14*24*time.Hour || h.cfg.Absolute != 90*24*time.Hour || h.cfg.Grace != 10*time.Second || time.Since(h.cfg.Now()) > time.Minute {
			t.Errorf("%+v", h.cfg)
		}
		c.Grace = 30 * time.Second
		if h, err := New(c); err != nil || h.cfg.Grace != c.Grace {
			t.Error(err)
		}
	})
}
