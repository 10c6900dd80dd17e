package housetest

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/bonafide-id/bonafide/resource"
)

type members = map[string]any

// changed returns members with changes; nil leaves one out.
func changed(m, changes members) members {
	out := maps.Clone(m)
	maps.Copy(out, changes)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

// proof is a good DPoP proof for POST /token, with changes.
func (h *House) proof(k jose.Private, changes members) func(*http.Request) {
	h.TB.Helper()
	raw, err := k.SignProof(changed(members{
		"jti": oauth.RandomToken(12), "htm": "POST", "htu": Issuer + "/token", "iat": h.Now().Unix(),
	}, changes))
	if err != nil {
		h.TB.Fatal(err)
	}
	return func(r *http.Request) { r.Header.Add("DPoP", raw) }
}

func TestProofsOfPossession(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, key := h.john(), newKey(t, jose.ES256)
	code := func() string { return john.Code(h.Authorize()) }
	t.Run("DPOP-02, DPOP-01: a token is bound to the key of the proof, and so is the refresh token of a public client", func(t *testing.T) {
		a := h.Post("/token", CodeForm(code()), h.proof(key, nil))
		if !a.OK() || a.Str("token_type") != "DPoP" {
			t.Fatal(a.Status, a.Raw)
		}
		token := a.Str("refresh_token")
		if token == "" {
			t.Fatal("no refresh token")
		}
		h.Post("/token", RefreshForm(token)).check(t, 400, oauth.InvalidGrant)
		t.Run("attack DP-06: with another key", func(t *testing.T) {
			h.Post("/token", RefreshForm(token), h.proof(newKey(t, jose.ES256), nil)).check(t, 400, oauth.InvalidGrant)
		})
		if b := h.Post("/token", RefreshForm(token), h.proof(key, nil)); !b.OK() || b.Str("token_type") != "DPoP" {
			t.Error(b.Status, b.Raw)
		}
	})
	c := code()
	one := h.proof(key, members{"jti": "used"})
	if a := h.Post("/token", CodeForm(code()), one); !a.OK() {
		t.Fatal(a.Status, a.Raw)
	}
	for _, r := range []struct {
		row  string
		edit []func(*http.Request)
	}{
		{"attack DP-01: a proof that was used", []func(*http.Request){one}},
		{"attack DP-02: the same jti with a query in htu", []func(*http.Request){h.proof(key, members{"jti": "used", "htu": Issuer + "/token?a=b"})}},
		{"attack DP-02: htm in another case", []func(*http.Request){h.proof(key, members{"htm": "post"})}},
		{"DPOP-01: two proofs", []func(*http.Request){h.proof(key, nil), h.proof(key, nil)}},
		{"DPOP-01: for another endpoint", []func(*http.Request){h.proof(key, members{"htu": Issuer + "/revoke"})}},
		{"DPOP-01, META-18: for the host that the Host header names", []func(*http.Request){h.proof(key, members{"htu": "https://evil.test/token"}), func(r *http.Request) {
			r.Host = "evil.test"
			r.Header.Set("X-Forwarded-Host", "evil.test")
		}}},
		{"attack DP-08: iat ten minutes ago", []func(*http.Request){h.proof(key, members{"iat": h.Now().Unix() - 600})}},
		{"attack DP-08: iat in ten minutes", []func(*http.Request){h.proof(key, members{"iat": h.Now().Unix() + 600})}},
		{"DPOP-01: no proof at all", []func(*http.Request){header("DPoP", "x")}},
	} {
		t.Run(r.row, func(t *testing.T) {
			h.Post("/token", CodeForm(c), r.edit...).check(t, 400, oauth.InvalidDPoPProof)
		})
	}
	t.Run("DPOP-01: the code is still good", func(t *testing.T) {
		if a := h.Post("/token", CodeForm(c), h.proof(key, nil)); !a.OK() {
			t.Error(a.Status, a.Raw)
		}
	})
	t.Run("attack DP-08: a proof beside a made-up code is not remembered", func(t *testing.T) {
		again := h.proof(key, members{"jti": "kept"})
		for range 3 {
			h.Post("/token", CodeForm("made-up"), again).check(t, 400, oauth.InvalidGrant)
		}
		if a := h.Post("/token", CodeForm(code()), again); !a.OK() {
			t.Error(a.Status, a.Raw)
		}
	})
	t.Run("attack DP-01: on the second replica", func(t *testing.T) {
		p := h.proof(key, nil)
		if a := h.Post("/token", CodeForm(code()), p); !a.OK() {
			t.Fatal(a.Status, a.Raw)
		}
		next := code()
		h.Start() // another server on the same database
		h.Post("/token", CodeForm(next), p).check(t, 400, oauth.InvalidDPoPProof)
		if a := h.Post("/token", CodeForm(next), h.proof(key, nil)); !a.OK() {
			t.Error(a.Status, a.Raw)
		}
	})
}

func TestProofsThatAreDemanded(t *testing.T) {
	t.Parallel()
	h := New(t, "policy: {default: allow}", `policy:
  default: allow
  rules: [{name: bound, client: "https://ruled.test/c.json", action: allow, require_dpop: true}]`)
	john, key := h.john(), newKey(t, jose.EdDSA)
	for row, id := range map[string]string{
		"DPOP-04: by the document": h.Net.Host("asks.test").ServeClient("/c.json", members{"dpop_bound_access_tokens": true}),
		"DPOP-04: by the policy":   h.Net.Host("ruled.test").ServeClient("/c.json", nil),
	} {
		t.Run(row, func(t *testing.T) {
			redirect := strings.TrimSuffix(id, "c.json") + "cb"
			code := john.Code(h.Authorize("client_id", id, "redirect_uri", redirect))
			form := CodeForm(code, "client_id", id, "redirect_uri", redirect)
			h.Post("/token", form).check(t, 400, oauth.InvalidDPoPProof)
			if a := h.Post("/token", form, h.proof(key, nil)); !a.OK() || a.Str("token_type") != "DPoP" {
				t.Error(a.Status, a.Raw)
			}
		})
	}
}

func TestNoncesOfProofs(t *testing.T) {
	t.Parallel()
	h := New(t, "", "dpop: {require_nonce: true}")
	john, key := h.john(), newKey(t, jose.ES256)
	refused := func(form map[string][]string, changes members) string {
		t.Helper()
		a := h.Post("/token", form, h.proof(key, changes))
		a.check(t, 400, oauth.UseDPoPNonce)
		return a.Header.Get("DPoP-Nonce")
	}
	t.Run("DPOP-03, attack DP-07: two attempts are enough, whatever nonce the first one had", func(t *testing.T) {
		john.Code(h.Authorize()) // the client is known from here on
		old := refused(CodeForm("x"), nil)
		h.Later(6 * time.Minute)
		for _, nonce := range []string{"", old, "x", jose.RandomNonces(0).At(h.Now())} {
			form := CodeForm(john.Code(h.Authorize()))
			fresh := refused(form, members{"nonce": nonce})
			a := h.Post("/token", form, h.proof(key, members{"nonce": fresh}))
			if !a.OK() || a.Header.Get("DPoP-Nonce") == "" || !strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), "DPoP-Nonce") {
				t.Error(a.Status, a.Raw, a.Header)
			}
		}
	})
	t.Run("DPOP-03: a replica takes the nonce of another", func(t *testing.T) {
		nonce := refused(CodeForm("x"), nil)
		form := CodeForm(john.Code(h.Authorize()))
		h.Start("", "dpop: {require_nonce: true}")
		if a := h.Post("/token", form, h.proof(key, members{"nonce": nonce})); !a.OK() {
			t.Error(a.Status, a.Raw)
		}
	})
	t.Run("ATT-06, DPOP-03: the challenge endpoint gives a nonce beforehand", func(t *testing.T) {
		nonce := h.Post("/challenge", nil).Header.Get("DPoP-Nonce")
		if a := h.Post("/token", CodeForm(john.Code(h.Authorize())), h.proof(key, members{"nonce": nonce})); !a.OK() {
			t.Error(a.Status, a.Raw)
		}
	})
	t.Run("DPOP-03: who sends no proof needs no nonce", func(t *testing.T) {
		if a := h.Post("/token", CodeForm(john.Code(h.Authorize()))); !a.OK() || a.Str("token_type") != "Bearer" {
			t.Error(a.Status, a.Raw)
		}
	})
}

func TestMetadataAboutKeys(t *testing.T) {
	t.Parallel()
	list := func(a Answer, name string) (out []string) {
		values, _ := a.Body[name].([]any)
		for _, v := range values {
			out = append(out, v.(string))
		}
		return out
	}
	const at = "/.well-known/oauth-authorization-server"
	t.Run("META-12, META-13: what a house offers by itself", func(t *testing.T) {
		a := New(t).Get(at)
		methods := list(a, "token_endpoint_auth_methods_supported")
		if methods[0] != "none" || !slices.Contains(methods, oauth.MethodAttestation) || !slices.Contains(methods, oauth.MethodAttestationDPoP) || slices.Contains(methods, oauth.MethodSelfSignedTLS) {
			t.Error(methods)
		}
		for _, name := range []string{"dpop_signing_alg_values_supported", "client_attestation_signing_alg_values_supported", "client_attestation_pop_signing_alg_values_supported"} {
			if algs := list(a, name); !slices.Contains(algs, "ES256") || slices.ContainsFunc(algs, func(s string) bool { return s == "none" || strings.HasPrefix(s, "HS") }) {
				t.Error(name, algs)
			}
		}
		if a.Str("challenge_endpoint") != Issuer+"/challenge" {
			t.Error(a.Str("challenge_endpoint"))
		}
		for _, name := range []string{"mtls_endpoint_aliases", "tls_client_certificate_bound_access_tokens", "client_attestation_pop_methods_supported"} {
			if a.Body[name] != nil {
				t.Errorf("META-22: %s is there", name)
			}
		}
	})
	t.Run("META-13: and without attestations", func(t *testing.T) {
		h := New(t, "", "attestation: {enabled: false}")
		a := h.Get(at)
		if slices.Contains(list(a, "token_endpoint_auth_methods_supported"), oauth.MethodAttestation) || a.Body["challenge_endpoint"] != nil || a.Body["client_attestation_signing_alg_values_supported"] != nil {
			t.Error(a.Raw)
		}
		if b := h.Post("/challenge", nil); b.Status != 404 {
			t.Error(b.Status)
		}
	})
	t.Run("META-22: certificates, at a second origin", func(t *testing.T) {
		a := New(t, "", "trusted_proxies: [127.0.0.1/32]\nmtls: {client_certificate_header: Client-Cert, url: https://mtls.as.test}").Get(at)
		aliases, _ := a.Body["mtls_endpoint_aliases"].(map[string]any)
		if aliases["token_endpoint"] != "https://mtls.as.test/token" || aliases["revocation_endpoint"] != "https://mtls.as.test/revoke" || a.Body["tls_client_certificate_bound_access_tokens"] != true {
			t.Error(a.Raw)
		}
		if !slices.Contains(list(a, "token_endpoint_auth_methods_supported"), oauth.MethodSelfSignedTLS) {
			t.Error("META-22: the method is missing")
		}
	})
}

func TestConfigurationOfProofs(t *testing.T) {
	t.Parallel()
	for add, want := range map[string]string{
		"attestation: {max_age: 0s}": "attestation.max_age",
		"attestation: {attesters: [{jwks_uri: https://a.test/jwks, clients: [x]}]}":          "issuer",
		"attestation: {attesters: [{issuer: a, clients: [x]}]}":                              "jwks_uri",
		"attestation: {attesters: [{issuer: a, jwks_uri: http://a.test, clients: [x]}]}":     "https",
		"attestation: {attesters: [{issuer: a, jwks_uri: https://a.test}]}":                  "clients",
		"attestation: {attesters: [{issuer: a, jwks_uri: https://a.test, clients: [\"\"]}]}": "empty",
		"mtls: {request: true}":                                                                                           "mtls.request",
		"mtls: {client_certificate_header: Client-Cert}":                                                                  "trusted_proxies",
		"mtls: {client_certificate_header: Authorization}\ntrusted_proxies: [127.0.0.1/32]":                               "Authorization",
		"mtls: {client_certificate_header: \"a b\"}\ntrusted_proxies: [127.0.0.1/32]":                                     "cannot be",
		"mtls: {url: https://mtls.as.test}":                                                                               "mtls.url",
		"mtls: {client_certificate_header: Client-Cert, url: https://as.test}\ntrusted_proxies: [127.0.0.1/32]":           "another host",
		"mtls: {client_certificate_header: Client-Cert, url: https://mtls.as.test/path}\ntrusted_proxies: [127.0.0.1/32]": "must look like",
	} {
		if _, err := server.Parse([]byte(Config+add+"\n"), t.TempDir(), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CAUTH-15, ATT-03: %s: %v", add, err)
		}
	}
}

// TestBoundTokensAtTheResource takes a token from the server to the guard.
func TestBoundTokensAtTheResource(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, key := h.john(), newKey(t, jose.ES256)
	g, err := resource.New(resource.Config{
		Resource: Resource, AuthorizationServers: []string{Issuer}, Baseline: []string{"mcp:read"}, HTTP: h.HTTP, Now: h.Now,
		DPoP: resource.DPoP{Required: true, ContentDigest: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	sum := sha256.Sum256([]byte(body))
	ask := func(scheme, token string, k jose.Private) int {
		hash := sha256.Sum256([]byte(token))
		r := httptest.NewRequest("POST", "/mcp", strings.NewReader(body))
		r.Header.Set("Authorization", scheme+" "+token)
		h.proof(k, members{
			"htu": Resource, "ath": base64.RawURLEncoding.EncodeToString(hash[:]),
			"content_digest": "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":",
		})(r)
		w := httptest.NewRecorder()
		g.Protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		return w.Code
	}
	bound := h.Post("/token", CodeForm(john.Code(h.Authorize())), h.proof(key, nil)).Str("access_token")
	plain := h.Post("/token", CodeForm(john.Code(h.Authorize()))).Str("access_token")
	for _, r := range []struct {
		row, scheme, token string
		key                jose.Private
		status             int
	}{
		{"RS-24, DPOP-02, DPOP-05: with the key that it is bound to", "DPoP", bound, key, 200},
		{"DPOP-06, attack DP-04: as a bearer token", "Bearer", bound, key, 401},
		{"RS-24: with another key", "DPoP", bound, newKey(t, jose.ES256), 401},
		{"DPOP-06: a token that is not bound", "DPoP", plain, key, 401},
		{"RS-24: a token that is not bound, as what it is", "Bearer", plain, key, 401},
	} {
		t.Run(r.row, func(t *testing.T) {
			if status := ask(r.scheme, r.token, r.key); status != r.status {
				t.Errorf("status %d, want %d", status, r.status)
			}
		})
	}
}
