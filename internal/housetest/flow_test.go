package housetest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestAPublicClientSignsInRefreshesAndLeaves(t *testing.T) {
	h := New(t)
	john := h.Person()
	back := john.Consent(h.Authorize())
	q := back.Query()
	t.Run("AUTHZ-12, AUTHZ-13, attack AZ-18: code, state and iss come back", func(t *testing.T) {
		if q.Get("code") == "" || q.Get("state") != "s1" || q.Get("iss") != Issuer {
			t.Errorf("got %s", back)
		}
	})
	a := h.Post("/token", CodeForm(q.Get("code")))
	if !a.OK() || a.Str("token_type") != "Bearer" || a.Str("scope") != "mcp:read" || a.Str("refresh_token") == "" {
		t.Fatalf("token: %d %s", a.Status, a.Raw)
	}
	h.Net.Host("good.test").Down(true)
	t.Run("TOK-06, FETCH-21: refresh works with the document host down", func(t *testing.T) {
		b := h.Post("/token", RefreshForm(a.Str("refresh_token")))
		if !b.OK() || b.Str("refresh_token") == a.Str("refresh_token") {
			t.Fatalf("refresh: %d %s", b.Status, b.Raw)
		}
		a = b
	})
	introspect := func(token string) Answer {
		return h.Post("/introspect", change(nil2("token", token), nil), func(r *http.Request) { r.SetBasicAuth("https%3A%2F%2Fmcp.test%2Fmcp", IntrospectionSecret) })
	}
	t.Run("INT-03 the resource sees its own token as active", func(t *testing.T) {
		i := introspect(a.Str("access_token"))
		if i.Body["active"] != true || i.Str("client_id") != ClientID || i.Str("aud") != Resource {
			t.Errorf("got %d %s", i.Status, i.Raw)
		}
	})
	t.Run("INT-05 the same answer signed, for this resource alone, and no access token", func(t *testing.T) {
		i := h.Post("/introspect", nil2("token", a.Str("access_token")), func(r *http.Request) {
			r.SetBasicAuth("https%3A%2F%2Fmcp.test%2Fmcp", IntrospectionSecret)
			r.Header.Set("Accept", "application/token-introspection+jwt")
		})
		if !i.OK() || i.Header.Get("Content-Type") != "application/token-introspection+jwt" {
			t.Fatalf("%d %v", i.Status, i.Header)
		}
		m, err := jose.Parse(i.Raw, 0)
		if err != nil || m.Header.Typ != "token-introspection+jwt" {
			t.Fatalf("%+v, %v", m, err)
		}
		set, err := jose.ParseSet([]byte(h.Get("/jwks").Raw), jose.SetLimits{})
		if err != nil {
			t.Fatal(err)
		}
		key, err := set.Find(m.Header.KID, m.Header.Alg)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(key); err != nil {
			t.Error(err)
		}
		var c struct {
			Iss, Aud, Sub string
			Exp           int64
			State         map[string]any `json:"token_introspection"`
		}
		if err := json.Unmarshal(m.Claims, &c); err != nil || c.Iss != Issuer || c.Aud != Resource || c.Sub != "" || c.Exp != 0 || c.State["active"] != true {
			t.Errorf("%s, %v", m.Claims, err)
		}
		if again := introspect(i.Raw); again.Body["active"] != false {
			t.Error("the answer passes for an access token")
		}
	})
	t.Run("META-10 a grant works if it is listed, and only then", func(t *testing.T) {
		l, _ := h.Get("/.well-known/oauth-authorization-server").Body["grant_types_supported"].([]any)
		for _, grant := range []string{
			oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials, oauth.GrantDeviceCode,
			oauth.GrantJWTBearer, oauth.GrantTokenExchange, "password", "implicit", "urn:openid:params:grant-type:ciba",
		} {
			a := h.Post("/token", url.Values{"grant_type": {grant}, "client_id": {ClientID}})
			if known := a.Str("error") != string(oauth.UnsupportedGrantType); known != slices.Contains(l, any(grant)) {
				t.Errorf("%s: listed %v, answered with %s", grant, slices.Contains(l, any(grant)), a.Raw)
			}
		}
	})
	t.Run("REV-03, REV-04 revoking the refresh token ends the access token, without a fetch", func(t *testing.T) {
		if r := h.Post("/revoke", change(nil2("token", a.Str("refresh_token")), []string{"client_id", ClientID})); !r.OK() {
			t.Fatalf("revoke: %d %s", r.Status, r.Raw)
		}
		if i := introspect(a.Str("access_token")); i.Body["active"] != false || len(i.Body) != 1 {
			t.Errorf("INT-02 got %s", i.Raw)
		}
		if r := h.Post("/token", RefreshForm(a.Str("refresh_token"))); r.Status != 400 || r.Str("error") != "invalid_grant" {
			t.Errorf("got %d %s", r.Status, r.Raw)
		}
	})
}

func nil2(name, value string) map[string][]string { return map[string][]string{name: {value}} }

func TestMetadataStandsWhereClientsLook(t *testing.T) {
	h := New(t, "issuer: https://as.test", "issuer: https://as.test/tenant")
	for _, p := range []string{
		"/.well-known/oauth-authorization-server/tenant", "/.well-known/openid-configuration/tenant",
		"/tenant/.well-known/openid-configuration", "/tenant/.well-known/oauth-authorization-server",
	} {
		t.Run("META-01, META-02, META-03, META-05, META-06, META-07, META-08, META-09, META-10, META-11, META-17 "+p, func(t *testing.T) {
			a := h.Get(p)
			if !a.OK() || a.Header.Get("Content-Type") != "application/json" || a.Str("issuer") != "https://as.test/tenant" {
				t.Fatalf("%d %s", a.Status, a.Raw)
			}
			if a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Body["client_id_metadata_document_supported"] != true ||
				a.Body["authorization_response_iss_parameter_supported"] != true {
				t.Errorf("%v %s", a.Header, a.Raw)
			}
			first := func(name string) any { l, _ := a.Body[name].([]any); return l[0] }
			if first("token_endpoint_auth_methods_supported") != "none" || first("code_challenge_methods_supported") != "S256" || first("response_types_supported") != "code" {
				t.Errorf("%s", a.Raw)
			}
			if l, _ := a.Body["code_challenge_methods_supported"].([]any); len(l) != 1 {
				t.Errorf("META-07 lists %v", l)
			}
			if l, _ := a.Body["response_types_supported"].([]any); len(l) != 1 {
				t.Errorf("META-10 lists %v", l)
			}
			algs, _ := a.Body["token_endpoint_auth_signing_alg_values_supported"].([]any)
			if !slices.Contains(algs, any("EdDSA")) || !slices.Contains(algs, any("Ed25519")) {
				t.Errorf("META-09 Ed25519 by one name only: %v", algs)
			}
			for _, alg := range algs {
				if alg == "none" || strings.HasPrefix(alg.(string), "HS") {
					t.Errorf("META-09 lists %s", alg)
				}
			}
			for _, e := range []string{"authorization_endpoint", "token_endpoint", "jwks_uri", "revocation_endpoint", "introspection_endpoint"} {
				if !strings.HasPrefix(a.Str(e), "https://as.test/tenant/") {
					t.Errorf("META-18 %s is %s", e, a.Str(e))
				}
			}
			if _, ok := a.Body["registration_endpoint"]; ok {
				t.Error("META-11 an endpoint that does not exist is listed")
			}
		})
	}
	t.Run("META-21 what a step-up may ask for is listed", func(t *testing.T) {
		if acr, _ := h.Get("/.well-known/oauth-authorization-server/tenant").Body["acr_values_supported"].([]any); len(acr) != 1 || acr[0] != login.ACR {
			t.Errorf("%v", acr)
		}
	})
	t.Run("META-04, META-15, META-22 members that are not live are left out", func(t *testing.T) {
		a := h.Get("/.well-known/oauth-authorization-server/tenant")
		for _, m := range []string{"mtls_endpoint_aliases", "authorization_details_types_supported", "require_pushed_authorization_requests", "require_signed_request_object"} {
			if _, ok := a.Body[m]; ok {
				t.Errorf("%s is listed", m)
			}
		}
		if l, _ := a.Body["protected_resources"].([]any); len(l) != 1 || l[0] != Resource {
			t.Errorf("protected_resources: %v", l)
		}
	})
	t.Run("META-16 offline_access is not listed", func(t *testing.T) {
		if strings.Contains(h.Get("/.well-known/oauth-authorization-server/tenant").Raw, "offline_access") {
			t.Error("it is")
		}
	})
	t.Run("META-11, META-18 everything that is listed is there", func(t *testing.T) {
		listed := 0
		for name, v := range h.Get("/.well-known/oauth-authorization-server/tenant").Body {
			address, _ := v.(string)
			if !strings.HasSuffix(name, "_endpoint") && name != "jwks_uri" {
				continue
			}
			path, ours := strings.CutPrefix(address, Issuer)
			if listed++; !ours {
				t.Errorf("%s is %v", name, v)
				continue
			}
			get, post := h.Get(path), h.Post(path, nil2("a", "b"))
			if get.Status == 404 || post.Status == 404 || get.Status == 405 && post.Status == 405 || get.Status >= 500 || post.Status >= 500 {
				t.Errorf("%s: GET is answered by %d, POST by %d", name, get.Status, post.Status)
			}
		}
		if listed < 8 {
			t.Errorf("%d addresses are listed", listed)
		}
	})
	t.Run("META-20 the key set is public and cacheable", func(t *testing.T) {
		a := h.Get("/tenant/jwks")
		keys, _ := a.Body["keys"].([]any)
		if !a.OK() || len(keys) == 0 || !strings.Contains(a.Header.Get("Cache-Control"), "max-age=") || strings.Contains(a.Raw, `"d"`) {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("META-18, attack AZ-20: a foreign Host header changes nothing", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, Issuer+"/.well-known/oauth-authorization-server/tenant", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "evil.test"
		req.Header.Set("X-Forwarded-Host", "evil.test")
		if a := h.Do(req); strings.Contains(a.Raw, "evil.test") {
			t.Error(a.Raw)
		}
	})
}

func TestAnAnswerLivesOnlySoLong(t *testing.T) {
	h := New(t)
	code := h.Person().Code(h.Authorize())
	h.Later(61 * time.Second)
	t.Run("AUTHZ-20 a code ends after 60 seconds", func(t *testing.T) {
		if a := h.Post("/token", CodeForm(code)); a.Status != 400 || a.Str("error") != "invalid_grant" {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
}

func TestAChangedDocumentLeavesATrace(t *testing.T) {
	h := New(t)
	john := h.Person()
	john.Code(h.Authorize())
	h.Net.Host("good.test").ServeClient("/c.json", map[string]any{"client_name": "Another Name", "redirect_uris": []string{Redirect, "https://good.test/second"}})
	h.Later(25 * time.Hour)
	page := john.Visit(h.Authorize("state", "s2"))
	if page.Has("password") {
		page = john.SignIn(page)
	}
	t.Run("CACHE-17, CONS-13 what people consented to has changed, so they are asked again", func(t *testing.T) {
		if !page.Has("decision") {
			t.Errorf("not asked: %s %s", page.URL, page.Text())
		}
	})
	h.Server.Close()
	t.Run("CACHE-17 the audit log says which members changed, and from what to what", func(t *testing.T) {
		events := h.Events(audit.TypeChange)
		if len(events) != 1 {
			t.Fatalf("%d events: %v", len(events), events)
		}
		d := events[0].Data
		if d["members"] != "client_name redirect_uris" || d["old_digest"] == "" || d["new_digest"] == "" || d["old_digest"] == d["new_digest"] {
			t.Errorf("%v", d)
		}
	})
}

func TestDiscoveryForOpenID(t *testing.T) {
	h := New(t)
	a := h.Get("/.well-known/openid-configuration")
	t.Run("OIDC-02 the required members are there, and PKCE too", func(t *testing.T) {
		for _, m := range []string{"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "response_types_supported", "subject_types_supported", "id_token_signing_alg_values_supported", "code_challenge_methods_supported"} {
			if a.Body[m] == nil {
				t.Errorf("%s is missing", m)
			}
		}
	})
	t.Run("POL-06 no fetch names the person, and a warm document is not fetched for the next one", func(t *testing.T) {
		host := h.Net.Host("good.test")
		h.Person().Code(h.Authorize())
		h.AddUser("jane", Password)
		jane := h.Person()
		page := jane.SignInAs(jane.Visit(h.Authorize()), "jane", Password)
		if page = jane.Answer(page, "allow"); !page.Left {
			t.Fatal(page.Text())
		}
		if n := host.Count("/c.json"); n != 1 {
			t.Errorf("%d fetches", n)
		}
		for _, r := range host.Requests() {
			for name, v := range r.Header {
				if strings.Contains(strings.Join(v, " "), User) || name == "Cookie" || name == "Referer" || name == "Authorization" || strings.HasPrefix(name, "X-Forwarded") {
					t.Errorf("%s: %v", name, v)
				}
			}
		}
	})
}
