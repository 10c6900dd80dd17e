package housetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// attested is a native app whose backend publishes keys and attests installations.
type attested struct {
	h        *House
	id       string
	backend  jose.Private
	instance jose.Private
}

const (
	attestedID      = "https://native.test/c.json"
	challengeHeader = "OAuth-Client-Attestation-Challenge"
)

func (h *House) attested(changes members) *attested {
	h.TB.Helper()
	a := &attested{h: h, backend: newKey(h.TB, jose.ES256), instance: newKey(h.TB, jose.ES256)}
	a.id = h.Net.Host("native.test").ServeClient("/c.json", changed(members{
		"token_endpoint_auth_method": oauth.MethodAttestation, "token_endpoint_auth_methods_supported": []string{oauth.MethodAttestation, oauth.MethodAttestationDPoP},
		"jwks_uri": "https://native.test/jwks.json", "redirect_uris": []string{"https://native.test/cb"},
	}, changes))
	h.Net.Host("native.test").ServeJSON("/jwks.json", keySet(h.TB, a.backend))
	return a
}

// attestation is a good one, with changes.
func (a *attested) attestation(changes members) string {
	a.h.TB.Helper()
	now := a.h.Now().Unix()
	return sign(a.h.TB, a.backend, oauth.TypAttestation, changed(members{
		"sub": a.id, "iat": now, "exp": now + 3600, "cnf": members{"jwk": a.instance.Public()},
	}, changes))
}

func (a *attested) pop(changes members) string {
	a.h.TB.Helper()
	return sign(a.h.TB, a.instance, oauth.TypAttestationPoP, changed(members{
		"aud": Issuer, "jti": oauth.RandomToken(12), "iat": a.h.Now().Unix(), "challenge": a.challenge(),
	}, changes))
}

// challenge asks the endpoint for one.
func (a *attested) challenge() string {
	a.h.TB.Helper()
	answer := a.h.Post("/challenge", nil)
	if !answer.OK() || answer.Header.Get("Cache-Control") != "no-store" || answer.Str("attestation_challenge") == "" {
		a.h.TB.Fatalf("ATT-06: %d %s", answer.Status, answer.Raw)
	}
	return answer.Str("attestation_challenge")
}

func attest(attestation, pop string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Add("OAuth-Client-Attestation", attestation)
		r.Header.Add("OAuth-Client-Attestation-PoP", pop)
	}
}

// good are the headers of a good request.
func (a *attested) good() func(*http.Request) { return attest(a.attestation(nil), a.pop(nil)) }

func (a *attested) code(p *Person) string {
	return p.Code(a.h.Authorize("client_id", a.id, "redirect_uri", "https://native.test/cb"))
}

func (a *attested) form(code string, changes ...string) url.Values {
	return change(CodeForm(code, "client_id", a.id, "redirect_uri", "https://native.test/cb"), changes)
}

func TestAttestationsEndToEnd(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, a := h.john(), h.attested(nil)
	t.Run("ATT-03: people are told that the app proves itself with a key", func(t *testing.T) {
		page := john.Visit(h.Authorize("client_id", a.id, "redirect_uri", "https://native.test/cb"))
		if !strings.Contains(page.Text(), "with a key of its own") {
			t.Error(page.Text())
		}
	})
	first := h.Post("/token", a.form(a.code(john), "client_id", ""), a.good())
	if !first.OK() {
		t.Fatal(first.Status, first.Raw)
	}
	t.Run("ATT-06: the answer gives the next challenge", func(t *testing.T) {
		next := first.Header.Get(challengeHeader)
		form := a.form(a.code(john))
		if b := h.Post("/token", form, attest(a.attestation(nil), a.pop(members{"challenge": next}))); !b.OK() {
			t.Error(b.Status, b.Raw)
		}
	})
	token := first.Str("refresh_token")
	refresh := func(token string, edit ...func(*http.Request)) Answer {
		return h.Post("/token", RefreshForm(token, "client_id", a.id), edit...)
	}
	t.Run("ATT-08: a refresh token belongs to the installation", func(t *testing.T) {
		refresh(token).check(t, 401, oauth.InvalidClient)
		other := *a
		other.instance = newKey(t, jose.ES256) // attested by the same backend
		refresh(token, other.good()).check(t, 400, oauth.InvalidGrant)
		if b := refresh(token, a.good()); !b.OK() {
			t.Fatal(b.Status, b.Raw)
		}
	})
	code := a.code(john)
	form := a.form(code)
	used := a.good()
	if b := h.Post("/token", a.form(a.code(john)), used); !b.OK() {
		t.Fatal(b.Status, b.Raw)
	}
	now := h.Now().Unix()
	stranger := *a
	stranger.backend = newKey(t, jose.ES256)
	impostor := *a
	impostor.instance = newKey(t, jose.ES256)
	for _, r := range []struct {
		row  string
		edit func(*http.Request)
	}{
		{"ATT-05, attack CA-15: a proof that was used", used},
		{"ATT-05, attack CA-15: a proof an hour old", attest(a.attestation(nil), a.pop(members{"iat": now - 3600}))},
		{"ATT-04, attack CA-15: aud is the endpoint", attest(a.attestation(nil), a.pop(members{"aud": Issuer + "/token"}))},
		{"ATT-04, attack CA-15: aud is another server", attest(a.attestation(nil), a.pop(members{"aud": "https://evil.test"}))},
		{"ATT-02, attack CA-15: the attestation has expired", attest(a.attestation(members{"exp": now - 1}), a.pop(nil))},
		{"ATT-03, attack CA-15: nobody trusts the attester", attest(stranger.attestation(nil), a.pop(nil))},
		{"ATT-02, attack CA-15: cnf holds the private key", attest(a.attestation(members{"cnf": members{"jwk": a.instance}}), a.pop(nil))},
		{"ATT-01, attack CA-15: two attestations", func(r *http.Request) {
			a.good()(r)
			r.Header.Add("OAuth-Client-Attestation", a.attestation(nil))
		}},
		{"ATT-01, attack CA-15: two proofs", func(r *http.Request) {
			a.good()(r)
			r.Header.Add("OAuth-Client-Attestation-PoP", a.pop(nil))
		}},
		{"ATT-04, attack CA-16: the proof of another key", attest(a.attestation(nil), impostor.pop(nil))},
		{"ATT-02, attack CA-16: sub is another client", attest(a.attestation(members{"sub": ClientID}), a.pop(nil))},
		{"ATT-04: a proof without the attestation", func(r *http.Request) { r.Header.Set("OAuth-Client-Attestation-PoP", a.pop(nil)) }},
		{"CAUTH-01: neither", func(*http.Request) {}},
	} {
		t.Run(r.row, func(t *testing.T) {
			answer := h.Post("/token", form, r.edit)
			answer.check(t, 401, oauth.InvalidClient)
			if answer.Str("rule") != "CAUTH-17" || answer.Header.Get(challengeHeader) != "" {
				t.Errorf("CAUTH-17: %s %v", answer.Raw, answer.Header)
			}
		})
	}
	spent := a.challenge()
	if b := h.Post("/token", a.form(a.code(john)), attest(a.attestation(nil), a.pop(members{"challenge": spent}))); !b.OK() {
		t.Fatal(b.Status, b.Raw)
	}
	for row, value := range map[string]any{
		"ATT-07, attack CA-16: no challenge":                nil,
		"ATT-07, attack CA-16: a challenge that was used":   spent,
		"ATT-07, attack CA-16: one of another server":       jose.RandomNonces(0).Challenge(h.Now()),
		"ATT-07, attack CA-16: a nonce of another endpoint": h.Post("/challenge", nil).Header.Get("DPoP-Nonce"),
	} {
		t.Run(row, func(t *testing.T) {
			answer := h.Post("/token", form, attest(a.attestation(nil), a.pop(members{"challenge": value})))
			answer.check(t, 400, oauth.UseAttestationChallenge)
			if answer.Header.Get(challengeHeader) == "" || !strings.Contains(answer.Header.Get("Access-Control-Expose-Headers"), challengeHeader) {
				t.Error(answer.Header)
			}
		})
	}
	t.Run("ATT-07: an attestation that is too old", func(t *testing.T) {
		answer := h.Post("/token", form, attest(a.attestation(members{"iat": now - 31*86400}), a.pop(nil)))
		answer.check(t, 400, oauth.UseFreshAttestation)
	})
	t.Run("CAUTH-02: beside a secret", func(t *testing.T) {
		h.Post("/token", change(form, []string{"client_secret", "x"}), a.good()).check(t, 400, oauth.InvalidRequest)
		form.Del("client_secret")
	})
	t.Run("ATT-03, CAUTH-12: attestations of strangers cause one fetch of keys in half a minute", func(t *testing.T) {
		h.Later(31 * time.Second)
		before := h.Net.Host("native.test").Count("/jwks.json")
		for range 20 {
			s := *a
			s.backend = newKey(t, jose.EdDSA)
			h.Post("/token", form, s.good()).check(t, 401, oauth.InvalidClient)
		}
		if n := h.Net.Host("native.test").Count("/jwks.json") - before; n > 1 {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("ATT-03: and after all that the code is still good", func(t *testing.T) {
		if b := h.Post("/token", form, a.good()); !b.OK() {
			t.Error(b.Status, b.Raw)
		}
	})
}

func TestAttestationsWithDPoP(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, a := h.john(), h.attested(nil)
	with := func(k jose.Private, changes members) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Add("OAuth-Client-Attestation", a.attestation(nil))
			h.proof(k, changes)(r)
		}
	}
	form := a.form(a.code(john))
	refused := h.Post("/token", form, with(a.instance, nil))
	t.Run("ATT-10, ATT-07: the nonce takes the place of the challenge", func(t *testing.T) {
		refused.check(t, 400, oauth.UseDPoPNonce)
	})
	nonce := members{"nonce": refused.Header.Get("DPoP-Nonce")}
	t.Run("ATT-10, attack CA-16: the proof of another key", func(t *testing.T) {
		h.Post("/token", form, with(newKey(t, jose.ES256), nonce)).check(t, 401, oauth.InvalidClient)
	})
	good := h.Post("/token", form, with(a.instance, nonce))
	t.Run("ATT-10: one proof authenticates the client and binds the token", func(t *testing.T) {
		if !good.OK() || good.Str("token_type") != "DPoP" {
			t.Fatal(good.Status, good.Raw)
		}
	})
	t.Run("ATT-08, ATT-10: the next refresh needs the same key", func(t *testing.T) {
		refresh := RefreshForm(good.Str("refresh_token"), "client_id", a.id)
		h.Post("/token", refresh, h.proof(a.instance, nonce)).check(t, 401, oauth.InvalidClient)
		if b := h.Post("/token", refresh, with(a.instance, nonce)); !b.OK() {
			t.Error(b.Status, b.Raw)
		}
	})
}

func TestAttestersOfTheOperator(t *testing.T) {
	t.Parallel()
	vendor := newKey(t, jose.ES256)
	h := New(t, "", `attestation: {require_challenge: false, attesters: [{issuer: "https://vendor.test", jwks_uri: "https://vendor.test/jwks.json", clients: ["`+attestedID+`"]}]}`)
	h.Net.Host("vendor.test").ServeJSON("/jwks.json", keySet(t, vendor))
	john, a := h.john(), h.attested(members{"jwks_uri": nil}) // the client publishes no keys of its own
	a.backend = vendor
	pop := func() string {
		return sign(t, a.instance, oauth.TypAttestationPoP, members{"aud": Issuer, "jti": oauth.RandomToken(12), "iat": h.Now().Unix()})
	}
	form := a.form(a.code(john))
	t.Run("ATT-03, attack CA-15: the attester under another name", func(t *testing.T) {
		h.Post("/token", form, attest(a.attestation(members{"iss": "https://elsewhere.test"}), pop())).check(t, 401, oauth.InvalidClient)
	})
	t.Run("ATT-03: an attester that the operator named", func(t *testing.T) {
		if b := h.Post("/token", form, attest(a.attestation(members{"iss": "https://vendor.test"}), pop())); !b.OK() {
			t.Error(b.Status, b.Raw)
		}
	})
}

// certificate is a self-signed one: as a proxy hands it on, and its key as a key set.
type certificate struct {
	header string
	keys   members
}

func selfSigned(t testing.TB) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return certificate{
		":" + base64.StdEncoding.EncodeToString(der) + ":",
		members{"keys": []members{{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}}},
	}
}

func TestCertificatesOfClients(t *testing.T) {
	t.Parallel()
	cert := selfSigned(t)
	keys, shown := cert.keys, header("Client-Cert", cert.header)
	client := func(h *House) (string, func() url.Values) {
		id := h.Net.Host("tls.test").ServeClient("/c.json", members{
			"token_endpoint_auth_method": oauth.MethodSelfSignedTLS, "jwks": keys, "tls_client_certificate_bound_access_tokens": true,
		})
		john := h.john()
		return id, func() url.Values {
			return CodeForm(john.Code(h.Authorize("client_id", id, "redirect_uri", "https://tls.test/cb")), "client_id", id, "redirect_uri", "https://tls.test/cb")
		}
	}
	t.Run("CAUTH-15, DPOP-07: a certificate that a trusted proxy hands on", func(t *testing.T) {
		h := New(t, "", "trusted_proxies: [127.0.0.0/8, \"::1/128\"]\nmtls: {client_certificate_header: Client-Cert}")
		id, form := client(h)
		f := form()
		h.Post("/token", f).check(t, 401, oauth.InvalidClient)
		a := h.Post("/token", f, shown)
		if !a.OK() || a.Str("token_type") != "Bearer" {
			t.Fatal(a.Status, a.Raw)
		}
		body, err := base64.RawURLEncoding.DecodeString(strings.Split(a.Str("access_token"), ".")[1])
		if err != nil || !strings.Contains(string(body), `"x5t#S256":"`) {
			t.Error(string(body), err)
		}
		h.Post("/token", RefreshForm(a.Str("refresh_token"), "client_id", id)).check(t, 401, oauth.InvalidClient)
		if b := h.Post("/token", RefreshForm(a.Str("refresh_token"), "client_id", id), shown); !b.OK() {
			t.Error(b.Status, b.Raw)
		}
	})
	t.Run("CAUTH-15, attack CA-12: the header of somebody who is no proxy is not looked at", func(t *testing.T) {
		h := New(t, "", "trusted_proxies: [192.0.2.1/32]\nmtls: {client_certificate_header: Client-Cert}")
		_, form := client(h)
		h.Post("/token", form(), shown).check(t, 401, oauth.InvalidClient)
	})
	t.Run("CAUTH-15: where certificates are off, the method cannot be used", func(t *testing.T) {
		h := New(t)
		id, _ := client(h)
		page := h.john().Visit(h.Authorize("client_id", id, "redirect_uri", "https://tls.test/cb"))
		if page.Has("decision") {
			t.Error(page.Text())
		}
	})
}
