package housetest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestBadRegistrations(t *testing.T) {
	t.Parallel()
	h := New(t, "", openly, "", "tokens: {signing_alg: ES256}")
	key := newKey(t, jose.ES256)
	private := `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X3Zfp3yuRcc"}`
	for _, c := range []struct {
		name    string
		changes members
		code    oauth.Code
	}{
		{"DCR-02, DOC-08 no redirect URI", members{"redirect_uris": nil}, "invalid_client_metadata"},
		{"DCR-02, DOC-08 an empty list of them", members{"redirect_uris": []string{}}, "invalid_client_metadata"},
		{"DCR-02, DOC-09 http to somewhere else", members{"redirect_uris": []string{"http://evil.test/cb"}}, "invalid_redirect_uri"},
		{"DCR-02, DOC-09 a wildcard", members{"redirect_uris": []string{"https://*.evil.test/cb"}}, "invalid_redirect_uri"},
		{"DCR-02, DOC-09 a fragment", members{"redirect_uris": []string{"https://good.test/cb#x"}}, "invalid_redirect_uri"},
		{"DCR-02, DOC-10 a scheme that runs code", members{"redirect_uris": []string{"javascript:alert(1)"}}, "invalid_redirect_uri"},
		{"DCR-02, DOC-11 a scheme of an app", members{"redirect_uris": []string{"com.example.app:/cb"}}, "invalid_redirect_uri"},
		{"DCR-01 too many redirect URIs", members{"redirect_uris": many(21)}, "invalid_redirect_uri"},
		{"DCR-03 web, with a redirect to this computer", members{"application_type": "web"}, "invalid_redirect_uri"},
		{"DCR-03 no type means web", members{"application_type": nil}, "invalid_redirect_uri"},
		{"DCR-03 another type", members{"application_type": "browser"}, "invalid_client_metadata"},
		{"DCR-02 a method that is not offered", members{"token_endpoint_auth_method": "client_secret_jwt"}, "invalid_client_metadata"},
		{"DCR-02 a method that is no text", members{"token_endpoint_auth_method": 7}, "invalid_client_metadata"},
		{"DCR-02 keys of a client that does not use them", members{"jwks": keySet(t, key)}, "invalid_client_metadata"},
		{"DCR-02 private_key_jwt without keys", members{"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"},
		{"DCR-02 no usable key", members{"token_endpoint_auth_method": "private_key_jwt", "jwks": members{"keys": []any{}}}, "invalid_client_metadata"},
		{"DCR-02, attack DO-22: a private key", members{"token_endpoint_auth_method": "private_key_jwt", "jwks": rawJSON(`{"keys":[` + private + `]}`)}, "invalid_client_metadata"},
		{"DCR-02, FETCH-06 keys at an address", members{"token_endpoint_auth_method": "private_key_jwt", "jwks": keySet(t, key), "jwks_uri": "https://evil.test/jwks"}, "invalid_client_metadata"},
		{"DCR-02 an algorithm that is not accepted", members{"token_endpoint_auth_method": "private_key_jwt", "jwks": keySet(t, key), "token_endpoint_auth_signing_alg": "HS256"}, "invalid_client_metadata"},
		{"DCR-02 no grant that is offered", members{"grant_types": []string{"client_credentials", "implicit"}}, "invalid_client_metadata"},
		{"DCR-02 no response type that is offered", members{"response_types": []string{"token"}}, "invalid_client_metadata"},
		{"DCR-02 scopes that do not exist", members{"scope": "who:knows"}, "invalid_client_metadata"},
		{"DCR-02 a statement of somebody", members{"software_statement": "a.b.c"}, "unapproved_software_statement"},
		{"DCR-02, attack CU-01: an id of its own", members{"client_id": ClientID}, "invalid_client_metadata"},
		{"DCR-02 a secret of its own", members{"client_secret": "mine"}, "invalid_client_metadata"},
		{"DCR-02 a token of its own", members{"registration_access_token": "mine"}, "invalid_client_metadata"},
		{"DCR-02 signed requests cannot be promised", members{"require_signed_request_object": true}, "invalid_client_metadata"},
		{"DCR-02 certificates cannot be promised", members{"tls_client_certificate_bound_access_tokens": true}, "invalid_client_metadata"},
		{"DCR-02 pairwise subjects", members{"subject_type": "pairwise"}, "invalid_client_metadata"},
		{"DCR-02 ID tokens by another algorithm", members{"id_token_signed_response_alg": "RS256"}, "invalid_client_metadata"},
		{"DCR-02 encrypted ID tokens", members{"id_token_encrypted_response_alg": "RSA-OAEP"}, "invalid_client_metadata"},
		{"DCR-02 too much to remember", members{"software_id": strings.Repeat("x", 600)}, "invalid_client_metadata"},
		{"DCR-02 contacts that are no list", members{"contacts": "me"}, "invalid_client_metadata"},
		{"DCR-02 a flag that is none", members{"dpop_bound_access_tokens": "yes"}, "invalid_client_metadata"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.tell(http.MethodPost, "/register", "", changed(theirs, c.changes)).check(t, 400, c.code)
		})
	}
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"DCR-02 two values of one member", `{"redirect_uris":["https://good.test/cb"],"redirect_uris":["https://evil.test/cb"]}`, 400},
		{"DCR-02 no object", `[]`, 400},
		{"DCR-02 nothing", ``, 400},
		{"DCR-02 something behind it", `{"redirect_uris":["https://good.test/cb"]} x`, 400},
		{"DCR-02 bytes that are no text", "{\"client_name\":\"\xff\"}", 400},
		{"DCR-01 a body without end", `{"client_name":"` + strings.Repeat("x", 900<<10) + `"}`, 413},
		{"DCR-01 nesting without end", `{"x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			if a := h.tellRaw(http.MethodPost, "/register", "", c.body); a.Status != c.status {
				t.Errorf("got %d %s, want %d", a.Status, a.Raw, c.status)
			}
		})
	}
	t.Run("DCR-02 a form is no registration", func(t *testing.T) {
		if a := h.Post("/register", nil2("redirect_uris", Redirect)); a.Status != http.StatusUnsupportedMediaType {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("DCR-01, FETCH-20 nothing was fetched and nothing was kept", func(t *testing.T) {
		rows, err := h.Store().Clients(t.Context(), "", 100)
		if err != nil || len(rows) != 0 || h.fetches() != 0 {
			t.Errorf("%d rows, %d fetches, %v", len(rows), h.fetches(), err)
		}
	})
}

func TestFloodsOfRegistrations(t *testing.T) {
	t.Parallel()
	t.Run("DCR-01, POL-08 one network registers so many in an hour, and the next hour as many", func(t *testing.T) {
		h := New(t, "", "registration: {enabled: true, per_hour: 3}")
		for range 3 {
			h.registers(nil)
		}
		a := h.tell(http.MethodPost, "/register", "", theirs)
		if a.check(t, 429, oauth.TemporarilyUnavailable); a.Header.Get("Retry-After") != "3600" {
			t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
		}
		h.Later(time.Hour)
		h.registers(nil)
	})
	t.Run("DCR-01, POL-08 many networks register so many in an hour", func(t *testing.T) {
		h := New(t, "", "registration: {enabled: true, per_hour: 3, most_per_hour: 5}")
		raw := `{"redirect_uris":["https://good.test/cb"],"token_endpoint_auth_method":"none"}`
		from := func(i int) int {
			r := httptest.NewRequest(http.MethodPost, Issuer+"/register", strings.NewReader(raw))
			r.Header.Set("Content-Type", "application/json")
			r.RemoteAddr = fmt.Sprintf("198.51.100.%d:1", i)
			w := httptest.NewRecorder()
			h.Server.Handler().ServeHTTP(w, r)
			return w.Code
		}
		for i := range 8 {
			want := http.StatusCreated
			if i >= 5 {
				want = http.StatusTooManyRequests
			}
			if got := from(i); got != want {
				t.Errorf("network %d: got %d, want %d", i, got, want)
			}
		}
	})
	t.Run("DCR-01 there is room for so many that live", func(t *testing.T) {
		h := New(t, "", "registration: {enabled: true, most: 2, life: 24h}")
		h.registers(nil)
		h.registers(nil)
		h.tell(http.MethodPost, "/register", "", theirs).check(t, 503, oauth.TemporarilyUnavailable)
		h.Later(25 * time.Hour)
		h.registers(nil)
	})
}

func TestTheftOfRegistrations(t *testing.T) {
	t.Parallel()
	h := New(t, "", openly)
	mine, theirsToo := h.registers(nil), h.registers(nil)
	path, token := mine.registration(), mine.Str("registration_access_token")
	john := h.john()
	access := h.grant(john, "client_id", mine.Str("client_id")).Str("access_token")
	t.Run("DCR-04, DCR-05 whatever is wrong, the answer is one", func(t *testing.T) {
		want := ""
		for i, try := range []struct{ path, token string }{
			{path, "wrong"}, {path, ""}, {path, theirsToo.Str("registration_access_token")}, {theirsToo.registration(), token}, {path, access},
			{"/register/dyn-aaaaaaaaaaaaaaaaaaaaaa", token}, {"/register/https:", token}, {"/register/" + ClientID[8:12], token},
		} {
			for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPut} {
				a := h.tell(method, try.path, try.token, changed(theirs, members{"client_id": mine.Str("client_id")}))
				a.check(t, 401, oauth.InvalidToken)
				got := strings.Split(a.Raw, `"reference"`)[0] + a.Header.Get("WWW-Authenticate")
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("%d %s: another answer: %s", i, method, got)
				}
			}
		}
		if !h.active(access) {
			t.Error("the client is gone")
		}
	})
	t.Run("DCR-04 the token of a registration is no access token", func(t *testing.T) {
		if h.active(token) {
			t.Error("it is active")
		}
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, Issuer+"/userinfo", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		if a := h.Do(r); a.Status != 401 {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("DCR-04 a client changes itself only, and chooses no secret", func(t *testing.T) {
		for _, body := range []members{
			changed(theirs, members{"client_id": theirsToo.Str("client_id")}), theirs,
			changed(theirs, members{"client_id": mine.Str("client_id"), "client_secret": "mine"}),
			changed(theirs, members{"client_id": mine.Str("client_id"), "registration_access_token": token}),
			changed(theirs, members{"client_id": mine.Str("client_id"), "redirect_uris": []string{"http://evil.test/"}}),
		} {
			if a := h.tell(http.MethodPut, path, token, body); a.Status != 400 {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		}
	})
	t.Run("DCR-04 one token, sixteen at once: one of them wins", func(t *testing.T) {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			a := h.registers(nil)
			answers := h.rush(func(int) *http.Request {
				body := `{"client_id":"` + a.Str("client_id") + `","redirect_uris":["https://good.test/cb"],"token_endpoint_auth_method":"none"}`
				r := httptest.NewRequest(method, Issuer+a.registration(), strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Authorization", "Bearer "+a.Str("registration_access_token"))
				return r
			})
			won := 0
			for _, got := range answers {
				switch got.Status {
				case http.StatusOK, http.StatusNoContent:
					won++
				case http.StatusUnauthorized:
				default:
					t.Errorf("%s: %d %s", method, got.Status, got.Raw)
				}
			}
			if won != 1 {
				t.Errorf("%s: %d won", method, won)
			}
		}
	})
	t.Run("DCR-04, REV-06 one that an administrator blocked changes nothing any more", func(t *testing.T) {
		s := h.Store()
		defer s.Close()
		if err := s.SetClientState(t.Context(), mine.Str("client_id"), "blocked", "abuse", h.Now()); err != nil {
			t.Fatal(err)
		}
		h.tell(http.MethodGet, path, token, nil).check(t, 401, oauth.InvalidToken)
		if page := john.Visit(h.Authorize("client_id", mine.Str("client_id"))); page.Status != 403 || page.Has("decision") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

// TestPhishingByRegistration is about what a stranger gets by registering: a page
// of this server that leads to him.
func TestPhishingByRegistration(t *testing.T) {
	t.Parallel()
	h := New(t, "", openly)
	id := h.registers(members{"client_name": "Claude", "redirect_uris": []string{"https://evil.test/cb"}, "application_type": "web"}).Str("client_id")
	ask := []string{"client_id", id, "redirect_uri", "https://evil.test/cb"}
	t.Run("CONS-08, attack DO-27: the name of another is called out, and the page leads with where the answer goes", func(t *testing.T) {
		page := h.john().Visit(h.Authorize(ask...))
		text := page.Text()
		if !strings.Contains(text, "evil.test") || !strings.Contains(text, "Its name is that of something at claude.ai, and its answer goes to evil.test.") ||
			strings.Contains(text, "Allow Claude?") {
			t.Errorf("%s", text)
		}
	})
	t.Run("AUTHZ-12, attack AZ-08: an error is no redirect for strangers", func(t *testing.T) {
		for _, change := range [][]string{{"scope", "nothing"}, {"response_type", "token"}, {"prompt", "none"}} {
			if page := h.john().Visit(h.Authorize(append(ask, change...)...)); page.Left {
				t.Errorf("%v leads to %s", change, page.URL)
			}
		}
		if page := h.Person().Visit(h.Authorize(append(ask, "prompt", "none")...)); page.Left {
			t.Errorf("it leads to %s", page.URL)
		}
	})
	t.Run("OIDC-05 signing out leads nowhere for one that registered itself", func(t *testing.T) {
		id := h.registers(members{"post_logout_redirect_uris": []string{"https://evil.test/"}, "backchannel_logout_uri": "https://evil.test/bc"})
		if id.Body["post_logout_redirect_uris"] != nil || id.Body["backchannel_logout_uri"] != nil {
			t.Errorf("registered: %s", id.Raw)
		}
	})
	t.Run("TOK-17, DEV-09 no grant without a person, and none for devices", func(t *testing.T) {
		a := h.registers(members{"token_endpoint_auth_method": "client_secret_post", "grant_types": []string{"authorization_code", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code"}})
		who := []string{"client_id", a.Str("client_id"), "client_secret", a.Str("client_secret")}
		h.Post("/token", change(nil2("grant_type", "client_credentials"), who)).check(t, 400, oauth.UnauthorizedClient)
		h.Post("/device_authorization", change(nil2("scope", "mcp:read"), who)).check(t, 400, oauth.UnauthorizedClient)
	})
}

func many(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("https://good.test/%d", i))
	}
	return out
}
