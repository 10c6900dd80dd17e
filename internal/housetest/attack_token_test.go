package housetest

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// TestCodesAtTheTokenEndpoint spoils one thing of a good request at a time. The
// code survives every one of them: what is refused consumes nothing.
func TestCodesAtTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	other := h.Net.Host("other.test").ServeClient("/c.json", map[string]any{"redirect_uris": []string{Redirect}})
	h.grant(john, "client_id", other) // known here, too
	code := john.Code(h.Authorize())
	before := h.fetches()
	for _, r := range []struct {
		row     string
		changes []string
		edit    func(*http.Request)
		status  int
		code    oauth.Code
	}{
		{"TOK-04, attack TK-05: another client", []string{"client_id", other}, nil, 400, oauth.InvalidGrant},
		{"TOK-04, attack TK-06: wrong verifier", []string{"code_verifier", strings.Repeat("a", 43)}, nil, 400, oauth.InvalidGrant},
		{"TOK-04, attack TK-06: no verifier", []string{"code_verifier", ""}, nil, 400, oauth.InvalidRequest},
		{"TOK-04, attack TK-06: verifier of 42 characters", []string{"code_verifier", strings.Repeat("a", 42)}, nil, 400, oauth.InvalidRequest},
		{"TOK-04, attack TK-06: verifier of 129 characters", []string{"code_verifier", strings.Repeat("a", 129)}, nil, 400, oauth.InvalidRequest},
		{"TOK-04, attack TK-06: verifier with a space", []string{"code_verifier", strings.Repeat("a", 42) + " "}, nil, 400, oauth.InvalidRequest},
		{"TOK-04, attack TK-06: the challenge instead of the verifier", []string{"code_verifier", Challenge}, nil, 400, oauth.InvalidGrant},
		{"TOK-05, attack TK-07: another redirect_uri", []string{"redirect_uri", Redirect + "/"}, nil, 400, oauth.InvalidGrant},
		{"TOK-07, attack TK-08: a resource that exists nowhere", []string{"resource", "https://other.test/mcp"}, nil, 400, oauth.InvalidTarget},
		{"attack TK-10: no client_id", []string{"client_id", ""}, nil, 400, oauth.InvalidRequest},
		{"attack TK-10: an unknown client", []string{"client_id", "https://good.test/unknown.json"}, nil, 401, oauth.InvalidClient},
		{"CAUTH-14, attack TK-10: Basic with the encoded client_id and a secret", []string{"client_id", ""}, basic(ClientID, "secret"), 401, oauth.InvalidClient},
		{"URL-17, attack TK-10: Basic with a raw client_id", []string{"client_id", ""}, func(r *http.Request) { r.SetBasicAuth(ClientID, "") }, 401, oauth.InvalidClient},
		{"CAUTH-02, attack TK-10: Basic and body disagree", nil, basic(other, ""), 400, oauth.InvalidRequest},
		{"CAUTH-02: Basic and a secret in the body", []string{"client_secret", "x"}, basic(ClientID, "x"), 400, oauth.InvalidRequest},
		{"CAUTH-14, mistake 15: a secret for a client that is a document", []string{"client_secret", "x"}, nil, 401, oauth.InvalidClient},
		{"attack TK-10: a bearer token as client authentication", nil, header("Authorization", "Bearer abc"), 401, oauth.InvalidClient},
		{"TOK-01: an unknown grant", []string{"grant_type", "password"}, nil, 400, oauth.UnsupportedGrantType},
		{"TOK-01: no grant_type", []string{"grant_type", ""}, nil, 400, oauth.InvalidRequest},
		{"TOK-01: no code", []string{"code", ""}, nil, 400, oauth.InvalidRequest},
		{"a code that nobody issued", []string{"code", oauth.RandomToken(32)}, nil, 400, oauth.InvalidGrant},
		{"a code of another size", []string{"code", strings.Repeat("x", 5000)}, nil, 400, oauth.InvalidGrant},
	} {
		t.Run(r.row, func(t *testing.T) {
			var edit []func(*http.Request)
			if r.edit != nil {
				edit = append(edit, r.edit)
			}
			a := h.Post("/token", CodeForm(code, r.changes...), edit...)
			a.check(t, r.status, r.code)
			if a.Header.Get("Pragma") != "no-cache" || oracles.MatchString(a.Raw) {
				t.Errorf("attack TK-13: %v %s", a.Header, a.Raw)
			}
			if r.edit != nil && r.status == 401 && !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("TOK-19: WWW-Authenticate is %q", a.Header.Get("WWW-Authenticate"))
			}
		})
	}
	t.Run("TOK-03, mistake 37: after all of that the code is still good", func(t *testing.T) {
		if a := h.Post("/token", CodeForm(code)); !a.OK() || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Pragma") != "no-cache" {
			t.Errorf("%d %v %s", a.Status, a.Header, a.Raw)
		}
	})
	t.Run("TOK-05: redirect_uri may be left out", func(t *testing.T) {
		if a := h.Post("/token", CodeForm(john.Code(h.Authorize()), "redirect_uri", "")); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("TOK-04, attack TK-06: the fifth wrong verifier closes the code", func(t *testing.T) {
		code := john.Code(h.Authorize())
		for range 5 {
			h.Post("/token", CodeForm(code, "code_verifier", strings.Repeat("a", 43))).check(t, 400, oauth.InvalidGrant)
		}
		h.Post("/token", CodeForm(code)).check(t, 400, oauth.InvalidGrant)
	})
	t.Run("FETCH-21: none of that fetched anything", func(t *testing.T) {
		if n := h.fetches() - before; n != 0 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestRequestsThatAreNoForms(t *testing.T) {
	t.Parallel()
	h := New(t)
	code := h.john().Code(h.Authorize())
	good := CodeForm(code).Encode()
	many := make([]string, 10_000)
	for i := range many {
		many[i] = "a=b"
	}
	form := "application/x-www-form-urlencoded"
	for _, r := range []struct {
		row, query, typ, body string
		status                int
	}{
		{"attack TK-11: two media types", "", "application/json, " + form, good, 415},
		{"attack TK-11: JSON", "", "application/json", `{"grant_type":"authorization_code"}`, 415},
		{"attack TK-11: multipart", "", "multipart/form-data; boundary=x", good, 415},
		{"attack TK-11: no media type", "", "", good, 415},
		{"attack TK-11: charset=utf-7", "", form + "; charset=utf-7", good, 415},
		{"attack TK-11: 10,000 parameters", "", form, strings.Join(many, "&"), 400},
		{"attack TK-11: 1 MiB", "", form, good + "&x=" + strings.Repeat("x", 1<<20), 413},
		{"TOK-01, attack TK-11: parameters in the query", "?" + good, form, "", 400},
		{"attack TK-11: the code in the query", "?code=" + code, form, change(CodeForm(code), []string{"code", ""}).Encode(), 400},
		{"attack TK-12: grant_type twice", "", form, good + "&grant_type=refresh_token", 400},
		{"attack TK-12: code twice", "", form, good + "&code=abc", 400},
		{"attack TK-12: the same code twice", "", form, good + "&code=" + code, 400},
		{"attack TK-11: a broken escape", "", form, good + "&x=%zz", 400},
	} {
		t.Run(r.row, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, Issuer+"/token"+r.query, strings.NewReader(r.body))
			if err != nil {
				t.Fatal(err)
			}
			if r.typ != "" {
				req.Header.Set("Content-Type", r.typ)
			}
			a := h.Do(req)
			if a.check(t, r.status, oauth.InvalidRequest); len(a.Raw) > 2000 {
				t.Errorf("an answer of %d bytes", len(a.Raw))
			}
		})
	}
	t.Run("attack TK-11: after all of that the code is still good", func(t *testing.T) {
		if a := h.Post("/token", CodeForm(code)); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	for _, p := range []string{"/token", "/revoke", "/introspect"} {
		t.Run("attack TK-14: "+p+" answers every origin and gives none a cookie", func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, Issuer+p, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Origin", "https://evil.test")
			req.Header.Set("Access-Control-Request-Method", "POST")
			for _, a := range []Answer{h.Do(req), h.Post(p, url.Values{}, header("Origin", "https://evil.test"))} {
				if a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header.Get("Access-Control-Allow-Credentials") != "" || a.Header.Get("Set-Cookie") != "" {
					t.Errorf("%d %v", a.Status, a.Header)
				}
			}
		})
		t.Run("attack TK-11: GET "+p, func(t *testing.T) {
			if a := h.Get(p + "?" + good); a.Status != 405 {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
}

func TestReplayEndsTheGrant(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	t.Run("TOK-03, attack TK-01: a code that comes back ends what it bought", func(t *testing.T) {
		code := john.Code(h.Authorize())
		a := h.Post("/token", CodeForm(code))
		if !a.OK() || !h.active(a.Str("access_token")) {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		h.Post("/token", CodeForm(code, "code_verifier", strings.Repeat("a", 43))).check(t, 400, oauth.InvalidGrant)
		if !h.active(a.Str("access_token")) {
			t.Fatal("a replay with a wrong verifier revoked the grant")
		}
		h.Post("/token", CodeForm(code)).check(t, 400, oauth.InvalidGrant)
		if h.active(a.Str("access_token")) {
			t.Error("the access token lives on")
		}
		h.Post("/token", RefreshForm(a.Str("refresh_token"))).check(t, 400, oauth.InvalidGrant)
		if n := len(h.Events(audit.TypeReuse)); n != 1 {
			t.Errorf("%d events of reuse", n)
		}
	})
	t.Run("TOK-11, attack RF-01: a refresh token that comes back late ends the family", func(t *testing.T) {
		a := h.grant(john)
		b := h.Post("/token", RefreshForm(a.Str("refresh_token")))
		h.Later(11 * time.Second)
		h.Post("/token", RefreshForm(a.Str("refresh_token"))).check(t, 400, oauth.InvalidGrant)
		h.Post("/token", RefreshForm(b.Str("refresh_token"))).check(t, 400, oauth.InvalidGrant)
		if h.active(b.Str("access_token")) {
			t.Error("the access token lives on")
		}
		if n := len(h.Events(audit.TypeReuse)); n != 2 {
			t.Errorf("%d events of reuse", n)
		}
	})
	t.Run("TOK-11, attack RF-01: within the grace, but after the successor was used", func(t *testing.T) {
		a := h.grant(john)
		b := h.Post("/token", RefreshForm(a.Str("refresh_token")))
		c := h.Post("/token", RefreshForm(b.Str("refresh_token")))
		h.Post("/token", RefreshForm(a.Str("refresh_token"))).check(t, 400, oauth.InvalidGrant)
		h.Post("/token", RefreshForm(c.Str("refresh_token"))).check(t, 400, oauth.InvalidGrant)
	})
	t.Run("TOK-12, attack RF-03: a lost answer is given again", func(t *testing.T) {
		a := h.grant(john)
		b := h.Post("/token", RefreshForm(a.Str("refresh_token")))
		h.Later(time.Second)
		again := h.Post("/token", RefreshForm(a.Str("refresh_token")))
		if !again.OK() || again.Str("refresh_token") != b.Str("refresh_token") {
			t.Fatalf("%d %s", again.Status, again.Raw)
		}
		if c := h.Post("/token", RefreshForm(again.Str("refresh_token"))); !c.OK() {
			t.Errorf("%d %s", c.Status, c.Raw)
		}
	})
	t.Run("TOK-14: a refresh token that is not used for 14 days ends", func(t *testing.T) {
		a := h.grant(h.john())
		h.Later(15 * 24 * time.Hour)
		h.Post("/token", RefreshForm(a.Str("refresh_token"))).check(t, 400, oauth.InvalidGrant)
	})
}

func TestRefreshOnlyNarrows(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	other := h.Net.Host("other.test").ServeClient("/c.json", map[string]any{"redirect_uris": []string{Redirect}})
	h.grant(john, "client_id", other)
	token := h.grant(john).Str("refresh_token")
	for _, r := range []struct {
		row     string
		changes []string
		status  int
		code    oauth.Code
	}{
		{"TOK-13, attack RF-05: another client", []string{"client_id", other}, 400, oauth.InvalidGrant},
		{"TOK-13, attack RF-06: a wider scope", []string{"scope", "mcp:read mcp:write"}, 400, oauth.InvalidScope},
		{"TOK-13, attack RF-06: another scope", []string{"scope", "mcp:write"}, 400, oauth.InvalidScope},
		{"TOK-07, attack RF-06: another resource", []string{"resource", "https://other.test/mcp"}, 400, oauth.InvalidTarget},
		{"no refresh token", []string{"refresh_token", ""}, 400, oauth.InvalidRequest},
		{"an access token as refresh token", []string{"refresh_token", "a.b.c"}, 400, oauth.InvalidGrant},
		{"attack RF-05: an unknown client", []string{"client_id", "https://good.test/unknown.json"}, 401, oauth.InvalidClient},
	} {
		t.Run(r.row, func(t *testing.T) {
			h.Post("/token", RefreshForm(token, r.changes...)).check(t, r.status, r.code)
		})
	}
	t.Run("TOK-13, attack RF-06: none of that rotated it", func(t *testing.T) {
		a := h.Post("/token", RefreshForm(token, "scope", "mcp:read"))
		if !a.OK() || len(h.Events(audit.TypeRefresh)) != 1 {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
}

// TestRefreshAfterSomethingChanged is about what happens between two refreshes.
func TestRefreshAfterSomethingChanged(t *testing.T) {
	t.Parallel()
	h := New(t)
	good := h.Net.Host("good.test")
	john := h.john()
	a := h.grant(john)
	refresh := func() Answer { return h.Post("/token", RefreshForm(a.Str("refresh_token"))) }
	for _, r := range []struct {
		row  string
		what func()
	}{
		{"TOK-06, CACHE-15, attack RF-08: the document is gone", func() { good.Remove("/c.json") }},
		{"TOK-06, mistake 28: the document says something else", func() {
			good.ServeClient("/c.json", map[string]any{"redirect_uris": []string{"https://evil.test/cb"}, "grant_types": []string{"authorization_code"}})
		}},
		{"TOK-06, attack FA-13: the document host is down", func() { good.Down(true) }},
	} {
		t.Run(r.row+": refresh goes on from the snapshot", func(t *testing.T) {
			r.what()
			h.Later(2 * time.Hour)
			before := h.fetches()
			b := refresh()
			if !b.OK() || h.fetches() != before {
				t.Fatalf("%d %s, %d connections", b.Status, b.Raw, h.fetches()-before)
			}
			a = b
		})
	}
	good.Down(false)
	good.ServeClient("/c.json", nil)
	h.Later(time.Hour)
	s := h.Store()
	defer s.Close()
	t.Run("CONS-14, attack RF-08, attack RF-10: a consent that was taken back ends its grants, and those of nobody else", func(t *testing.T) {
		ada := h.AddUser("ada", Password)
		p := h.Person()
		p.SignInAs(p.Visit(Issuer+"/login"), "ada", Password)
		hers := h.grant(p)
		if err := s.RevokeUserClient(t.Context(), ada.ID, ClientID, h.Now()); err != nil {
			t.Fatal(err)
		}
		h.Post("/token", RefreshForm(hers.Str("refresh_token"))).check(t, 400, oauth.InvalidGrant)
		if h.active(hers.Str("access_token")) {
			t.Error("her access token lives on")
		}
		b := refresh()
		if !b.OK() {
			t.Fatalf("John's connection ended, too: %d %s", b.Status, b.Raw)
		}
		a = b
	})
	t.Run("REV-03, attack RF-10, mistake 32: two installations of one client_id are two grants", func(t *testing.T) {
		john = h.john()
		second := h.grant(john)
		if r := h.Post("/revoke", change(nil2("token", second.Str("refresh_token")), []string{"client_id", ClientID})); !r.OK() {
			t.Fatal(r.Raw)
		}
		h.Post("/token", RefreshForm(second.Str("refresh_token"))).check(t, 400, oauth.InvalidGrant)
		b := refresh()
		if !b.OK() || !h.active(b.Str("access_token")) {
			t.Fatalf("%d %s", b.Status, b.Raw)
		}
		a = b
	})
	t.Run("TOK-16, attack RF-05, mistake 29: a blocked client", func(t *testing.T) {
		if err := s.SetClientState(t.Context(), ClientID, store.StateBlocked, "test", h.Now()); err != nil {
			t.Fatal(err)
		}
		b := refresh()
		if b.Status != 400 || b.Str("error") != "invalid_grant" && b.Str("error") != "unauthorized_client" {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
		if h.active(a.Str("access_token")) {
			t.Error("its access token lives on")
		}
		local(t, h.john().Visit(h.Authorize()), 403)
	})
	t.Run("TOK-16, attack RF-08, attack CN-19: a disabled user", func(t *testing.T) {
		other := h.Net.Host("other.test").ServeClient("/c.json", map[string]any{"redirect_uris": []string{Redirect}})
		eve := h.AddUser("eve", Password)
		p := h.Person()
		p.SignInAs(p.Visit(Issuer+"/login"), "eve", Password)
		b := h.grant(p, "client_id", other)
		if err := s.DisableUser(t.Context(), eve.ID, h.Now()); err != nil {
			t.Fatal(err)
		}
		h.Post("/token", RefreshForm(b.Str("refresh_token"), "client_id", other)).check(t, 400, oauth.InvalidGrant)
		if h.active(b.Str("access_token")) {
			t.Error("the access token lives on")
		}
		if page := p.Visit(h.Authorize("client_id", other)); !page.Has("password") {
			t.Errorf("the session lives on: %s", page.Text())
		}
	})
}

func TestRevocationAndIntrospection(t *testing.T) {
	t.Parallel()
	h := New(t, "policy: {default: allow}", `  - id: https://notes.test/
    name: Notes
    introspection_secret_sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
policy: {default: allow}`)
	john := h.john()
	other := h.Net.Host("other.test").ServeClient("/c.json", map[string]any{"redirect_uris": []string{Redirect}})
	h.grant(john, "client_id", other)
	a := h.grant(john)
	before := h.fetches()
	revoke := func(token string, changes ...string) Answer {
		return h.Post("/revoke", change(nil2("token", token), changes))
	}
	for _, token := range []string{a.Str("refresh_token"), a.Str("access_token")} {
		t.Run("REV-02, attack TK-16: another client's token", func(t *testing.T) {
			if r := revoke(token, "client_id", other); r.Status != 200 && r.Str("error") != "invalid_grant" {
				t.Errorf("%d %s", r.Status, r.Raw)
			}
			if !h.active(a.Str("access_token")) {
				t.Error("it was revoked")
			}
		})
	}
	t.Run("REV-02, attack TK-16: an unknown token", func(t *testing.T) {
		if r := revoke(oauth.RandomToken(32), "client_id", ClientID, "token_type_hint", "refresh_token"); !r.OK() {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
	})
	t.Run("REV-01: no client, or an unknown one", func(t *testing.T) {
		revoke(a.Str("refresh_token")).check(t, 400, oauth.InvalidRequest)
		revoke(a.Str("refresh_token"), "client_id", "https://good.test/unknown.json").check(t, 401, oauth.InvalidClient)
	})
	ask := func(token string, edit ...func(*http.Request)) Answer {
		return h.Post("/introspect", nil2("token", token), edit...)
	}
	t.Run("INT-01, attack TK-17: nobody, and a wrong secret", func(t *testing.T) {
		ask(a.Str("access_token")).check(t, 401, oauth.InvalidClient)
		ask(a.Str("access_token"), basic(Resource, "wrong")).check(t, 401, oauth.InvalidClient)
		ask(a.Str("access_token"), basic(ClientID, IntrospectionSecret)).check(t, 401, oauth.InvalidClient)
		h.Post("/introspect", change(nil2("token", a.Str("access_token")), []string{"client_id", ClientID})).check(t, 401, oauth.InvalidClient)
	})
	t.Run("INT-02, INT-03, attack TK-17: another resource server", func(t *testing.T) {
		if r := ask(a.Str("access_token"), basic("https://notes.test/", IntrospectionSecret)); !r.OK() || r.Body["active"] != false || len(r.Body) != 1 {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
	})
	t.Run("INT-04: a refresh token is never active", func(t *testing.T) {
		if h.active(a.Str("refresh_token")) || h.active("abc") || h.active("a.b.c") {
			t.Error("it is")
		}
	})
	t.Run("REV-03, attack TK-16: a wrong hint hides nothing", func(t *testing.T) {
		if r := revoke(a.Str("access_token"), "client_id", ClientID, "token_type_hint", "refresh_token"); !r.OK() || h.active(a.Str("access_token")) {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
		b := h.Post("/token", RefreshForm(a.Str("refresh_token")))
		if !b.OK() {
			t.Fatalf("%d %s", b.Status, b.Raw)
		}
		if r := revoke(b.Str("refresh_token"), "client_id", ClientID, "token_type_hint", "access_token"); !r.OK() || h.active(b.Str("access_token")) {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
	})
	t.Run("REV-04, mistake 36: none of that fetched a document", func(t *testing.T) {
		if n := h.fetches() - before; n != 0 {
			t.Errorf("%d connections", n)
		}
	})
}

// TestNothingLeaksIntoTheAudit walks a flow and looks for its secrets in
// everything that is kept.
func TestNothingLeaksIntoTheAudit(t *testing.T) {
	t.Parallel()
	h := New(t)
	p := h.john()
	code := p.Code(h.Authorize())
	a := h.Post("/token", CodeForm(code))
	b := h.Post("/token", RefreshForm(a.Str("refresh_token")))
	h.Post("/token", CodeForm(code))
	h.Post("/token", CodeForm(code, "client_secret", "a-secret-of-mine"))
	secrets := map[string]string{
		"code": code, "access token": a.Str("access_token"), "refresh token": a.Str("refresh_token"),
		"second refresh token": b.Str("refresh_token"), "password": Password, "client secret": "a-secret-of-mine", "verifier": Verifier,
	}
	u, _ := url.Parse(Issuer)
	for _, c := range p.Cookies(u) {
		secrets["cookie "+c.Name] = c.Value
	}
	h.Server.Close()
	s := h.Store()
	defer s.Close()
	kept, err := s.Events(t.Context(), store.EventQuery{Limit: 1000})
	if err != nil || len(kept) < 5 {
		t.Fatalf("%d events, %v", len(kept), err)
	}
	t.Run("TOK-23, POL-07, attack TK-13: no secret is in the audit", func(t *testing.T) {
		for _, e := range kept {
			for name, v := range secrets {
				if strings.Contains(string(e.MarshalLine()), v) {
					t.Errorf("the %s is in %s", name, e.MarshalLine())
				}
			}
		}
	})
}
