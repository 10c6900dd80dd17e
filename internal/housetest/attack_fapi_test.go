package housetest

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// banks is a house in which a rule holds the keyed client to FAPI 2.0 and names it
// for every grant.
func banks(t testing.TB, changes ...string) *House {
	t.Helper()
	return New(t, append([]string{"policy: {default: allow}", `
policy:
  default: allow
  rules:
    - name: banks
      client: https://keyed.test/c.json
      action: allow
      fapi: true
      grants: [authorization_code, refresh_token, client_credentials, "` + oauth.GrantJWTBearer + `", "` + oauth.GrantTokenExchange + `", "` + oauth.GrantDeviceCode + `"]
id_jag: {issuers: [{issuer: "https://idp.test", jwks_uri: "https://idp.test/jwks.json", link: create}]}
token_exchange: {rules: [{client: "https://keyed.test/c.json", from: "https://mcp.test/mcp", to: ["https://mcp.test/mcp"]}]}
`}, changes...)...)
}

// TestFAPIOnEachLeg sends one good request to each endpoint and each grant, and
// the same one without what FAPI 2.0 wants.
func TestFAPIOnEachLeg(t *testing.T) {
	t.Parallel()
	h := banks(t)
	k := h.keyed(map[string]any{
		"grant_types": []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials, oauth.GrantJWTBearer, oauth.GrantTokenExchange, oauth.GrantDeviceCode},
	}, jose.ES256, jose.RS256)
	john, key, idpKey := h.john(), newKey(t, jose.ES256), newKey(t, jose.ES256)
	h.Net.Host("idp.test").ServeJSON("/jwks.json", keySet(t, idpKey))
	t.Run("POL-09, PAR-03 a pushed request names its redirect URI, although the document lists one", func(t *testing.T) {
		k.push("redirect_uri", "").check(t, 400, oauth.InvalidRequest)
		k.push().uri(t)
	})
	t.Run("POL-09, CAUTH-04 aud is a text and no list", func(t *testing.T) {
		list := k.assert(map[string]any{"aud": []string{Issuer}})
		h.Post("/par", h.pushForm(slices.Concat([]string{"client_id", k.id, "redirect_uri", "https://keyed.test/cb"}, with(list))...)).check(t, 401, oauth.InvalidClient)
		h.Post("/revoke", change(nil2("token", "x"), with(k.assert(map[string]any{"aud": []string{Issuer}})))).check(t, 401, oauth.InvalidClient)
	})
	code := john.Code(pushed(k.id, k.push().uri(t)))
	bound := h.Post("/token", change(CodeForm(code, "client_id", k.id, "redirect_uri", "https://keyed.test/cb"), with(k.assert(nil))), h.proof(key, nil))
	if !bound.OK() {
		t.Fatal(bound.Status, bound.Raw)
	}
	refresh := bound.Str("refresh_token")
	legs := map[string]func() url.Values{
		"refresh":            func() url.Values { return RefreshForm(refresh, "client_id", k.id) },
		"client credentials": func() url.Values { return ownForm() },
		"identity assertion": func() url.Values { return h.assertion(idpKey, nil) },
		"exchange": func() url.Values {
			return url.Values{"grant_type": {oauth.GrantTokenExchange}, "subject_token": {bound.Str("access_token")}, "subject_token_type": {oauth.TokenTypeAccess}, "resource": {Resource}}
		},
	}
	for name, form := range legs {
		t.Run("POL-09, DPOP-02 no bearer token: "+name, func(t *testing.T) {
			if a := k.post("/token", form()); a.OK() {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
			rsa := newKey(t, jose.RS256)
			k.post("/token", form(), h.proof(rsa, nil)).check(t, 400, oauth.InvalidDPoPProof)
			h.Post("/token", change(form(), with(sign(t, k.keys[1], "", k.claims(nil)))), h.proof(key, nil)).check(t, 401, oauth.InvalidClient)
			if a := k.post("/token", form(), h.proof(key, nil)); !a.OK() || a.Str("token_type") != "DPoP" {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
	t.Run("POL-09 refresh tokens are not rotated", func(t *testing.T) {
		for range 3 {
			a := k.post("/token", RefreshForm(refresh, "client_id", k.id), h.proof(key, nil))
			if !a.OK() || a.Str("refresh_token") != refresh {
				t.Fatalf("%d %s", a.Status, a.Raw)
			}
		}
	})
	t.Run("POL-09, DEV-09 no device flow", func(t *testing.T) {
		k.post("/device_authorization", url.Values{"client_id": {k.id}, "resource": {Resource}}, h.proof(key, members{"htu": Issuer + "/device_authorization"})).check(t, 400, oauth.UnauthorizedClient)
	})
	t.Run("POL-09, PAR-08 no request in the address of the browser, signed or not", func(t *testing.T) {
		now := h.Now().Unix()
		claims := map[string]any{"iss": k.id, "aud": Issuer, "exp": now + 300, "nbf": now}
		for name, v := range h.pushForm("client_id", k.id, "redirect_uri", "https://keyed.test/cb") {
			claims[name] = v[0]
		}
		object := sign(t, k.keys[0], oauth.TypRequestObject, claims)
		page := john.Visit(Issuer + "/authorize?" + url.Values{"client_id": {k.id}, "request": {object}}.Encode())
		if page.Has("decision") || page.URL.Query().Has("code") {
			t.Errorf("%d at %s: %s", page.Status, page.URL, page.Text())
		}
		signed := func(by jose.Private) Answer {
			return k.post("/par", url.Values{"client_id": {k.id}, "request": {sign(t, by, oauth.TypRequestObject, claims)}})
		}
		signed(k.keys[1]).check(t, 400, oauth.InvalidRequestObject)
		if code := john.Code(pushed(k.id, signed(k.keys[0]).uri(t))); code == "" {
			t.Error("no code")
		}
	})
	for _, c := range []struct {
		ahead int64
		good  bool
	}{{10, true}, {61, false}} {
		t.Run(fmt.Sprintf("POL-09, CAUTH-05, DPOP-01 what was made %d seconds from now is good: %v", c.ahead, c.good), func(t *testing.T) {
			at := h.Now().Unix() + c.ahead
			said := func(what string, a Answer) {
				t.Helper()
				if a.OK() != c.good && (a.Status == http.StatusCreated) != c.good {
					t.Errorf("%s: %d %s", what, a.Status, a.Raw)
				}
			}
			for _, claim := range []string{"iat", "nbf"} {
				form := change(ownForm(), with(k.assert(map[string]any{claim: at})))
				said("an assertion, "+claim, h.Post("/token", form, h.proof(key, nil)))
				claims := map[string]any{"iss": k.id, "aud": Issuer, "exp": at + 60, claim: at}
				for name, v := range h.pushForm("client_id", k.id, "redirect_uri", "https://keyed.test/cb") {
					claims[name] = v[0]
				}
				said("a request object, "+claim, k.post("/par", url.Values{"client_id": {k.id}, "request": {sign(t, k.keys[0], oauth.TypRequestObject, claims)}}))
			}
			said("a DPoP proof", k.post("/token", ownForm(), h.proof(key, members{"iat": at})))
		})
	}
	t.Run("POL-09 a push without client authentication leads nowhere", func(t *testing.T) {
		a := h.Post("/par", h.pushForm("client_id", k.id, "redirect_uri", "https://keyed.test/cb"))
		if a.Status == http.StatusCreated || !strings.Contains(a.Raw, "invalid_client") {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
}

// TestOneBindingIsEnough is about clients under FAPI 2.0 that show a certificate
// and a DPoP proof. A resource that does not see certificates could not use a token
// that is bound to both, and nobody has asked for that.
func TestOneBindingIsEnough(t *testing.T) {
	t.Parallel()
	const proxied = "trusted_proxies: [127.0.0.0/8, \"::1/128\"]\nmtls: {client_certificate_header: Client-Cert}"
	h := banks(t, "", proxied)
	grants := []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantClientCredentials}
	k, key, shown := h.keyed(members{"grant_types": grants}, jose.ES256), newKey(t, jose.ES256), header("Client-Cert", selfSigned(t).header)
	cnf := func(t *testing.T, h *House, a Answer) string {
		t.Helper()
		if !a.OK() {
			t.Fatal(a.Status, a.Raw)
		}
		_, claims := h.claims(a.Str("access_token"))
		bound, _ := claims["cnf"].(map[string]any)
		return strings.Join(slices.Sorted(maps.Keys(bound)), " ")
	}
	for name, c := range map[string]struct {
		edit func(*http.Request)
		want string
	}{
		"a certificate": {shown, "x5t#S256"},
		"a proof":       {h.proof(key, nil), "jkt"},
		"both":          {together(shown, h.proof(key, nil)), "jkt"},
	} {
		t.Run("POL-09, DPOP-07, DPOP-02 a token for "+name, func(t *testing.T) {
			if got := cnf(t, k.h, k.post("/token", ownForm(), c.edit)); got != c.want {
				t.Errorf("bound to %s", got)
			}
		})
	}
	john := h.john()
	begin := func(edits ...func(*http.Request)) Answer {
		code := john.Code(pushed(k.id, k.push().uri(t)))
		a := k.post("/token", CodeForm(code, "client_id", k.id, "redirect_uri", "https://keyed.test/cb"), together(edits...))
		if !a.OK() {
			t.Fatal(a.Status, a.Raw)
		}
		return a
	}
	refresh := func(a Answer, edits ...func(*http.Request)) Answer {
		return k.post("/token", RefreshForm(a.Str("refresh_token"), "client_id", k.id), together(edits...))
	}
	t.Run("POL-09, DPOP-07 a grant that began with a proof needs no certificate, although there was one", func(t *testing.T) {
		a := begin(shown, h.proof(key, nil))
		if got := cnf(t, h, refresh(a, h.proof(key, nil))); got != "jkt" {
			t.Errorf("bound to %s", got)
		}
	})
	t.Run("POL-09, DPOP-07 one that began with a certificate needs one, and may come with a proof too", func(t *testing.T) {
		a := begin(shown)
		refresh(a, h.proof(key, nil)).check(t, 400, oauth.InvalidGrant)
		if got := cnf(t, h, refresh(a, shown)); got != "x5t#S256" {
			t.Errorf("bound to %s", got)
		}
		if got := cnf(t, h, refresh(a, shown, h.proof(key, nil))); got != "jkt" {
			t.Errorf("bound to %s", got)
		}
	})
	t.Run("DPOP-07, DOC-30 a document that asks for its certificate has it, beside a proof too", func(t *testing.T) {
		h := banks(t, "", proxied)
		k := h.keyed(members{"grant_types": grants, "tls_client_certificate_bound_access_tokens": true}, jose.ES256)
		if got := cnf(t, k.h, k.post("/token", ownForm(), together(shown, h.proof(key, nil)))); got != "jkt x5t#S256" {
			t.Errorf("bound to %s", got)
		}
	})
}

// TestFAPIWithACertificate is a client whose certificate is everything: it
// authenticates with it, and its tokens are bound to it.
func TestFAPIWithACertificate(t *testing.T) {
	t.Parallel()
	h := New(t, "policy: {default: allow}", "policy: {default: allow, rules: [{name: banks, host: tls.test, action: allow, fapi: true}]}",
		"", "trusted_proxies: [127.0.0.0/8, \"::1/128\"]\nmtls: {client_certificate_header: Client-Cert}")
	own, stolen := selfSigned(t), selfSigned(t)
	id := h.Net.Host("tls.test").ServeClient("/c.json", members{"token_endpoint_auth_method": oauth.MethodSelfSignedTLS, "jwks": own.keys})
	shown, other := header("Client-Cert", own.header), header("Client-Cert", stolen.header)
	form := func() url.Values { return h.pushForm("client_id", id, "redirect_uri", "https://tls.test/cb") }
	for name, edits := range map[string][]func(*http.Request){"no certificate": nil, "another one": {other}} {
		t.Run("POL-09, CAUTH-15, PAR-01 nothing is pushed with "+name, func(t *testing.T) {
			if a := h.Post("/par", form(), edits...); a.Status == http.StatusCreated {
				page := h.john().Visit(pushed(id, a.uri(t))) // nobody knew the client yet
				if page.Has("decision") || page.URL.Query().Has("code") {
					t.Errorf("%d at %s: %s", page.Status, page.URL, page.Text())
				}
			} else if a.Status != 401 {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
	code := h.john().Code(pushed(id, h.Post("/par", form(), shown).uri(t)))
	redeem := CodeForm(code, "client_id", id, "redirect_uri", "https://tls.test/cb")
	h.Post("/token", redeem).check(t, 401, oauth.InvalidClient)
	h.Post("/token", redeem, other).check(t, 401, oauth.InvalidClient)
	a := h.Post("/token", redeem, shown)
	t.Run("POL-09, DPOP-07 the token is bound to the certificate", func(t *testing.T) {
		if !a.OK() || a.Str("token_type") != "Bearer" {
			t.Fatal(a.Status, a.Raw)
		}
		_, claims := h.claims(a.Str("access_token"))
		if cnf, _ := claims["cnf"].(map[string]any); cnf["x5t#S256"] == nil || cnf["jkt"] != nil {
			t.Errorf("%v", claims["cnf"])
		}
	})
	t.Run("POL-09, DPOP-07 and so is what comes after it, under the same refresh token", func(t *testing.T) {
		refresh := RefreshForm(a.Str("refresh_token"), "client_id", id)
		h.Post("/token", refresh).check(t, 401, oauth.InvalidClient)
		h.Post("/token", refresh, other).check(t, 401, oauth.InvalidClient)
		if b := h.Post("/token", refresh, shown); !b.OK() || b.Str("refresh_token") != a.Str("refresh_token") {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
		h.Post("/revoke", nil2("token", a.Str("refresh_token")), other).check(t, 400, oauth.InvalidRequest) // who is it?
		h.Post("/revoke", change(nil2("token", a.Str("refresh_token")), []string{"client_id", id}), other).check(t, 401, oauth.InvalidClient)
	})
}
