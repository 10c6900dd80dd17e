package token

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// desk is the userinfo endpoint of a house, with a proof that is whatever the test
// says.
type desk struct {
	*house
	mux    *http.ServeMux
	jkt    string
	failed error
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{house: newHouse(t), mux: http.NewServeMux()}
	d.cfg.People = d.store
	d.cfg.TokenProof = func(_ http.ResponseWriter, _ *http.Request, _, jkt string) error {
		if d.failed == nil && jkt != d.jkt {
			return oauth.Refuse(oauth.InvalidToken, "another key").Under("DPOP-06")
		}
		return d.failed
	}
	d.cfg.Certificate = func(r *http.Request) string { return r.Header.Get("Client-Cert") }
	edge, err := web.NewEdge(web.EdgeConfig{Issuer: issuer, Now: d.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	d.mux.Handle("/userinfo", edge.API(web.Only(d.Userinfo, http.MethodGet, http.MethodPost)))
	return d
}

// token mints an access token of ours with openid, spoiled by change.
func (d *desk) token(t *testing.T, change ...func(*keyring.AccessToken)) string {
	t.Helper()
	now := d.clock.now()
	a := keyring.AccessToken{
		Subject: "user-1", ClientID: public, Audience: mcp, JTI: oauth.RandomToken(8), Scopes: oauth.Scopes{"openid", "read"},
		Issued: now, Expires: now.Add(time.Minute), AuthTime: now, ACR: "pwd",
	}
	for _, c := range change {
		c(&a)
	}
	token, err := d.cfg.Keys.MintAccess(a)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (d *desk) ask(method, body string, headers ...string) response {
	r := httptest.NewRequest(method, issuer+"/userinfo", strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	d.mux.ServeHTTP(w, r)
	out := response{status: w.Code, header: w.Header(), body: w.Body.String()}
	_ = json.Unmarshal(w.Body.Bytes(), &out.json)
	return out
}

func TestUserinfoSaysWhoThePersonIs(t *testing.T) {
	d := newDesk(t)
	good := d.token(t)
	for _, c := range []struct {
		name, method, body string
		headers            []string
	}{
		{"GET with the header", "GET", "", []string{"Authorization", "Bearer " + good}},
		{"the scheme in lower case", "GET", "", []string{"Authorization", "bearer " + good}},
		{"POST with the header", "POST", "", []string{"Authorization", "Bearer " + good}},
		{"POST with the token in the body", "POST", url.Values{"access_token": {good}}.Encode(), nil},
	} {
		t.Run("OIDC-03, META-17 "+c.name, func(t *testing.T) {
			r := d.ask(c.method, c.body, c.headers...)
			if r.status != 200 || r.get("sub") != "user-1" || len(r.json) != 1 {
				t.Fatalf("%d %s", r.status, r.body)
			}
			if r.header.Get("Access-Control-Allow-Origin") != "*" || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v", r.header)
			}
		})
	}
	t.Run("OIDC-03 the subject is that of the ID token", func(t *testing.T) {
		r := d.ok(t, d.consent(t, public, withOpenID).form())
		id := r.get("id_token")
		payload := strings.Split(id, ".")
		if len(payload) != 3 {
			t.Fatal(r.body)
		}
		hint, err := d.cfg.Keys.VerifyHint(id)
		if err != nil {
			t.Fatal(err)
		}
		if u := d.ask("GET", "", "Authorization", "Bearer "+r.get("access_token")); u.get("sub") != hint.Subject {
			t.Errorf("%s and %s", u.body, hint.Subject)
		}
	})
	t.Run("OIDC-03 name and address for the scopes that say so", func(t *testing.T) {
		token := d.token(t, func(a *keyring.AccessToken) { a.Scopes = oauth.Scopes{"openid", "profile", "email"} })
		r := d.ask("GET", "", "Authorization", "Bearer "+token)
		if r.get("preferred_username") != "ada" || r.json["email"] != nil {
			t.Errorf("%s", r.body) // ada has no address
		}
	})
}

func TestUserinfoRefuses(t *testing.T) {
	d := newDesk(t)
	good := d.token(t)
	bound := d.token(t, func(a *keyring.AccessToken) { a.CnfJKT = "thumb" })
	certified := d.token(t, func(a *keyring.AccessToken) { a.CnfX5T = "cert" })
	denied := d.token(t, func(a *keyring.AccessToken) { a.JTI = "denied" })
	if err := d.store.DenyToken(t.Context(), "denied", d.clock.now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	idToken := d.ok(t, d.consent(t, public, withOpenID).form()).get("id_token")
	for _, c := range []struct {
		name    string
		method  string
		body    string
		headers []string
		status  int
		code    string
	}{
		{"OIDC-03 no token", "GET", "", nil, 401, "invalid_token"},
		{"OIDC-03 a token of nobody", "GET", "", []string{"Authorization", "Bearer x.y.z"}, 401, "invalid_token"},
		{"OIDC-03 Basic", "GET", "", []string{"Authorization", "Basic eDp5"}, 401, "invalid_token"},
		{"OIDC-04 an ID token", "GET", "", []string{"Authorization", "Bearer " + idToken}, 401, "invalid_token"},
		{"OIDC-03 without openid", "GET", "", []string{"Authorization", "Bearer " + d.token(t, func(a *keyring.AccessToken) { a.Scopes = oauth.Scopes{"read"} })}, 403, "insufficient_scope"},
		{"OIDC-03 without a person", "GET", "", []string{"Authorization", "Bearer " + d.token(t, func(a *keyring.AccessToken) { a.Subject, a.ClientOnly = public, true })}, 403, "insufficient_scope"},
		{"OIDC-03 of an account that is gone", "GET", "", []string{"Authorization", "Bearer " + d.token(t, func(a *keyring.AccessToken) { a.Subject = "nobody" })}, 401, "invalid_token"},
		{"OIDC-03 revoked", "GET", "", []string{"Authorization", "Bearer " + denied}, 401, "invalid_token"},
		{"OIDC-03 of a grant that is not there", "GET", "", []string{"Authorization", "Bearer " + d.token(t, func(a *keyring.AccessToken) { a.GrantID = "g" })}, 401, "invalid_token"},
		{"OIDC-03 two headers", "GET", "", []string{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}, 400, "invalid_request"},
		{"OIDC-03 header and body", "POST", url.Values{"access_token": {good}}.Encode(), []string{"Authorization", "Bearer " + good}, 400, "invalid_request"},
		{"DPOP-06 a bound token as a bearer token", "GET", "", []string{"Authorization", "Bearer " + bound}, 401, "invalid_token"},
		{"DPOP-06 a bound token in the body", "POST", url.Values{"access_token": {bound}}.Encode(), nil, 401, "invalid_token"},
		{"DPOP-06 a token that is not bound with the scheme DPoP", "GET", "", []string{"Authorization", "DPoP " + good}, 401, "invalid_token"},
		{"OIDC-03 bound to another certificate", "GET", "", []string{"Authorization", "Bearer " + certified, "Client-Cert", "other"}, 401, "invalid_token"},
		{"OIDC-03 bound to a certificate, without one", "GET", "", []string{"Authorization", "Bearer " + certified}, 401, "invalid_token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := d.ask(c.method, c.body, c.headers...)
			if r.status != c.status || r.get("error") != c.code {
				t.Fatalf("%d %s", r.status, r.body)
			}
			if challenge := r.header.Values("WWW-Authenticate"); c.status != 400 && len(challenge) != 2 {
				t.Errorf("%q", challenge)
			}
			if r.json["sub"] != nil {
				t.Error(r.body)
			}
		})
	}
	if got := d.ask("GET", "").header.Get("WWW-Authenticate"); strings.Contains(got, "error") {
		t.Errorf("RFC 6750: a request without a token is challenged without an error: %s", got)
	}
	t.Run("OIDC-03 of a disabled account", func(t *testing.T) {
		if err := d.store.DisableUser(t.Context(), "user-1", d.clock.now()); err != nil {
			t.Fatal(err)
		}
		if r := d.ask("GET", "", "Authorization", "Bearer "+good); r.status != 401 {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
}

func TestUserinfoWantsTheProof(t *testing.T) {
	d := newDesk(t)
	bound := d.token(t, func(a *keyring.AccessToken) { a.CnfJKT = "thumb" })
	ask := func() response { return d.ask("GET", "", "Authorization", "DPoP "+bound) }
	t.Run("DPOP-06 the right key", func(t *testing.T) {
		if d.jkt = "thumb"; ask().status != 200 {
			t.Error(ask().body)
		}
	})
	t.Run("DPOP-06 another key, or none", func(t *testing.T) {
		for _, d.jkt = range []string{"other", ""} {
			if r := ask(); r.status != 401 || r.get("error") != "invalid_token" {
				t.Errorf("%d %s", r.status, r.body)
			}
		}
	})
	t.Run("DPOP-01 a proof that is refused", func(t *testing.T) {
		d.failed = oauth.Refuse(oauth.UseDPoPNonce, "use the nonce")
		if r := ask(); r.status != 401 || r.get("error") != "use_dpop_nonce" || !strings.Contains(strings.Join(r.header.Values("WWW-Authenticate"), ","), `DPoP error="use_dpop_nonce"`) {
			t.Errorf("%d %s %v", r.status, r.body, r.header)
		}
	})
	t.Run("URL-15 a store that does not answer is not a refusal", func(t *testing.T) {
		d.failed = errors.New("disk")
		if r := ask(); r.status != 500 {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
	t.Run("OIDC-03 a certificate that fits", func(t *testing.T) {
		token := d.token(t, func(a *keyring.AccessToken) { a.CnfX5T = "cert" })
		if r := d.ask("GET", "", "Authorization", "Bearer "+token, "Client-Cert", "cert"); r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
	t.Run("DPOP-06 without a check of proofs a bound token is of no use", func(t *testing.T) {
		d.cfg.TokenProof, d.failed = nil, nil
		if r := ask(); r.status != 401 {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
}

func withOpenID(g *store.Grant) { g.Scopes = oauth.Scopes{"openid", "read"} }
