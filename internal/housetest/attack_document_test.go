package housetest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDocumentsThatAreRefused spoils one thing of a good document at a time. A
// row is a member with its value as JSON; "~" means that the text is the whole
// document.
func TestDocumentsThatAreRefused(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, rec, good := h.john(), &records{h: h}, h.Net.Host("good.test")
	uris := func(list string) string { return `"redirect_uris":` + list }
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"https://good.test/%d"`, i)
		}
		return b.String()[1:]
	}
	for i, r := range []struct{ row, member string }{
		{"DOC-02, attack DO-01: another client_id", `"client_id":"https://good.test/other.json"`},
		{"DOC-02, attack DO-02: client_id is a number", `"client_id":1`},
		{"DOC-02, attack DO-02: client_id is a list", `"client_id":["SELF"]`},
		{"DOC-02, attack DO-02: no client_id", `~{"client_name":"x","redirect_uris":["https://good.test/cb"]}`},
		{"DOC-01, attack DO-03: client_id twice", `~{"client_id":"SELF","client_id":"SELF","redirect_uris":["https://good.test/cb"]}`},
		{"DOC-01, attack DO-03: twice further in", `"x":{"a":[{"b":1,"b":2}]}`},
		{"DOC-01, attack DO-03: twice behind an escape", `"redirect\u005furis":["https://evil.test/cb"]`},
		{"DOC-01, attack DO-06: a second value", `~GOOD{"b":2}`},
		{"DOC-01, attack DO-06: a byte order mark", "~\ufeffGOOD"},
		{"DOC-01, attack DO-06: a comment", `~/* x */GOOD`},
		{"DOC-01, attack DO-06: a comma at the end", `"x":[1,]`},
		{"DOC-01, attack DO-06: single quotes", `'x':1`},
		{"DOC-01, attack DO-06: NaN", `"x":NaN`},
		{"DOC-01, attack DO-07: a byte that is no UTF-8", "\"client_name\":\"a\xffb\""},
		{"DOC-01, attack DO-07: a lone surrogate", `"client_name":"\ud800"`},
		{"DOC-01, attack DO-07: NUL", `"client_name":"a\u0000b"`},
		{"DOC-01, attack DO-08: deep", `"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000)},
		{"DOC-01, attack DO-09: a list", `~["SELF"]`},
		{"DOC-01, attack DO-09: a string", `~"SELF"`},
		{"DOC-01, attack DO-09: null", `~null`},
		{"DOC-01, attack DO-09: a number", `~1`},
		{"DOC-01, attack DO-09: nothing", `~`},
		{"DOC-08, attack DO-10: no redirect_uris", `~{"client_id":"SELF","client_name":"x"}`},
		{"DOC-08, attack DO-10: empty list", uris(`[]`)},
		{"DOC-08, attack DO-10: null", uris(`null`)},
		{"DOC-08, attack DO-10: a string", uris(`"https://good.test/cb"`)},
		{"DOC-08, attack DO-10: null inside", uris(`[null]`)},
		{"DOC-08, attack DO-10: a number inside", uris(`[1]`)},
		{"DOC-08, attack DO-10: an empty string inside", uris(`[""]`)},
		{"DOC-09, attack DO-11: http", uris(`["http://good.test/cb"]`)},
		{"DOC-10, attack DO-12: javascript", uris(`["javascript:alert(1)"]`)},
		{"DOC-10, attack DO-12: data", uris(`["https://good.test/cb","data:text/html,x"]`)},
		{"DOC-10, attack DO-12: vbscript", uris(`["vbscript:x"]`)},
		{"DOC-10, attack DO-12: blob", uris(`["blob:x"]`)},
		{"DOC-10, attack DO-12: file", uris(`["file:///x"]`)},
		{"DOC-10, attack DO-12: about", uris(`["about:blank"]`)},
		{"DOC-10, attack DO-12: view-source", uris(`["view-source:https://x"]`)},
		{"DOC-11: a private-use scheme", uris(`["cursor://anysphere/cb"]`)},
		{"DOC-09, attack DO-14: fragment", uris(`["https://good.test/cb#f"]`)},
		{"DOC-09, attack DO-14: user information", uris(`["https://u:p@good.test/cb"]`)},
		{"DOC-09, attack DO-14: wildcard", uris(`["https://*.good.test/cb"]`)},
		{"DOC-09, attack DO-14: dot segments", uris(`["https://good.test/../cb"]`)},
		{"DOC-09, attack DO-15: a port that is user information", uris(`["http://localhost:80@evil.test/cb"]`)},
		{"DOC-09, attack DO-16: a name that begins alike", uris(`["http://127.0.0.1.evil.test/cb"]`)},
		{"DOC-09, attack DO-16: localhost as a label", uris(`["http://localhost.evil.test/cb"]`)},
		{"DOC-09, attack DO-16: mapped address", uris(`["http://[::ffff:127.0.0.1]/cb"]`)},
		{"DOC-09, attack DO-16: hexadecimal address", uris(`["http://0x7f.1/cb"]`)},
		{"DOC-09, attack DO-16: short address", uris(`["http://127.1/cb"]`)},
		{"DOC-08, attack DO-19: 101 redirect URIs", uris(`[` + many(101) + `]`)},
		{"DOC-04, attack DO-20, mistake 16: client_secret_basic", `"token_endpoint_auth_method":"client_secret_basic"`},
		{"DOC-04, attack DO-20, mistake 16: client_secret_post", `"token_endpoint_auth_method":"client_secret_post"`},
		{"DOC-04, attack DO-20, mistake 16: client_secret_jwt", `"token_endpoint_auth_method":"client_secret_jwt"`},
		{"DOC-04, attack DO-21: a secret in the list", `"token_endpoint_auth_methods_supported":["none","client_secret_basic"]`},
		{"DOC-13, attack DO-21: empty method", `"token_endpoint_auth_method":""`},
		{"DOC-13, attack DO-21: null", `"token_endpoint_auth_method":null`},
		{"DOC-13, attack DO-21: a list", `"token_endpoint_auth_method":["none"]`},
		{"DOC-04, attack DO-21: another case", `"token_endpoint_auth_method":"Client_Secret_Basic"`},
		{"DOC-15: the method is not in the list", `"token_endpoint_auth_method":"none","token_endpoint_auth_methods_supported":["private_key_jwt"],"jwks_uri":"https://good.test/j"`},
		{"DOC-03, attack DO-22, mistake 15: client_secret", `"client_secret":"x"`},
		{"DOC-03, attack DO-22: client_secret null", `"client_secret":null`},
		{"DOC-03, attack DO-22: client_secret_expires_at", `"client_secret_expires_at":0`},
		{"DOC-03, attack DO-22: registration_access_token", `"registration_access_token":"x"`},
		{"DOC-06: a secret inside the software_statement", `"software_statement":"` + b64(map[string]any{"alg": "ES256"}) + "." + b64(map[string]any{"client_secret": "x"}) + `.AAAA"`},
		{"FETCH-08, attack SD-36: sector_identifier_uri is file", `"sector_identifier_uri":"file:///etc/passwd"`},
	} {
		path := fmt.Sprintf("/d%d.json", i)
		body := string(document(t, path, nil))
		if whole, ok := strings.CutPrefix(r.member, "~"); ok {
			body = strings.ReplaceAll(whole, "GOOD", body)
		} else {
			name, _, _ := strings.Cut(r.member[1:], `"`)
			body = string(document(t, path, map[string]any{name: nil}))
			body = body[:len(body)-1] + "," + r.member + "}"
		}
		body = strings.ReplaceAll(body, "SELF", good.URL(path))
		t.Run(r.row, func(t *testing.T) {
			good.Serve(path, response([]byte(body), "Cache-Control", "max-age=86400"))
			before := h.fetches()
			page := john.Visit(h.Authorize("client_id", good.URL(path)))
			rec.add(r.row, local(t, page, 400))
			if strings.Contains(page.Body, "client_name") && strings.Contains(r.member, "alert") || h.fetches()-before != 1 {
				t.Errorf("%d requests: %s", h.fetches()-before, page.Text())
			}
		})
	}
	for _, method := range []string{" none", "foo", "tls_client_auth", "self_signed_tls_client_auth"} {
		t.Run("DOC-17, AUTHZ-29, attack DO-21: method "+method+" never becomes none", func(t *testing.T) {
			id := good.ServeClient("/m"+strings.TrimSpace(method)+".json", map[string]any{"token_endpoint_auth_method": method})
			page := john.Visit(h.Authorize("client_id", id))
			if page.Left || page.Status != 400 || page.Has("decision") {
				t.Errorf("%d %s", page.Status, page.Text())
			}
		})
	}
	if n := len(h.Net.Strays()); n != 0 {
		t.Errorf("%d strays", n)
	}
	rec.check(t)
}

// TestDocumentsThatAreTolerated: what a document says beyond what we need stops
// nobody, and gives nobody more.
func TestDocumentsThatAreTolerated(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, good := h.john(), h.Net.Host("good.test")
	n := 0
	serve := func(change map[string]any) string {
		n++
		h.Later(time.Second)
		return good.ServeClient(fmt.Sprintf("/t%d.json", n), change)
	}
	for _, r := range []struct {
		row    string
		change map[string]any
	}{
		{"DOC-01, attack DO-04: CLIENT_ID is another member", map[string]any{"CLIENT_ID": "https://evil.test/x", "Redirect_URIs": []string{"https://evil.test/cb"}}},
		{"DOC-21: members that nobody knows", map[string]any{"x": 1, "client_name#de": "Gut", "y": map[string]any{"z": []any{}}}},
		{"DOC-20, attack DO-24, mistake 17: grants that we do not have", map[string]any{"grant_types": []string{"authorization_code", "refresh_token", "implicit", "password", "urn:ietf:params:oauth:grant-type:token-exchange"}}},
		{"DOC-20, attack DO-24: response types that we do not have", map[string]any{"response_types": []string{"code", "token", "code token"}}},
		{"DOC-13, mistake 24: no method", map[string]any{"token_endpoint_auth_method": nil}},
		{"DOC-14, DOC-16: a list with one that we know", map[string]any{"token_endpoint_auth_method": nil, "token_endpoint_auth_methods_supported": []string{"tls_client_auth", "none"}}},
		{"DOC-12: no name", map[string]any{"client_name": nil}},
		{"DOC-24: no application_type, and loopback", map[string]any{"redirect_uris": []string{"http://127.0.0.1/cb", Redirect}}},
		{"DOC-26: display URIs that cannot be used", map[string]any{"client_uri": "http://good.test", "tos_uri": "/tos", "policy_uri": "x"}},
		{"FETCH-06, attack SD-36: other URLs are never fetched", map[string]any{"sector_identifier_uri": "https://evil.test/s", "initiate_login_uri": "https://evil.test/i", "backchannel_logout_uri": "https://evil.test/b", "request_uris": []string{"https://evil.test/r"}}},
	} {
		t.Run(r.row, func(t *testing.T) {
			id := serve(r.change)
			a := h.grant(john, "client_id", id)
			if a.Str("scope") != "mcp:read" {
				t.Error(a.Raw)
			}
			local(t, john.Visit(h.Authorize("client_id", id, "redirect_uri", "https://evil.test/cb")), 400)
			for _, grant := range []string{"implicit", "password", "urn:ietf:params:oauth:grant-type:token-exchange"} {
				h.Post("/token", CodeForm("x", "client_id", id, "grant_type", grant)).check(t, 400, "unsupported_grant_type")
			}
		})
	}
	if h.Net.Host("evil.test").Count("*") != 0 {
		t.Error("evil.test was asked")
	}
	for _, name := range []string{"<script>alert(1)</script>", "</title><img src=x onerror=alert(1)>", "{{.}}", "${7*7}", `"><b>`} {
		t.Run("DOC-27, attack DO-25: name "+name, func(t *testing.T) {
			page := john.Visit(h.Authorize("client_id", serve(map[string]any{"client_name": name})))
			if page.Left || !page.Has("decision") || strings.Contains(page.Body, "<script") || strings.Contains(page.Body, "<img src=x") || strings.Contains(page.Body, `"><b>`) {
				t.Errorf("%d %s", page.Status, page.Body)
			}
			if !strings.Contains(page.Text(), "alert(1)") && !strings.Contains(page.Text(), "{{.}}") && !strings.Contains(page.Text(), "${7*7}") && !strings.Contains(page.Text(), "<b>") {
				t.Errorf("the name is gone: %s", page.Text())
			}
		})
	}
	t.Run("CONS-01, DOC-27, attack DO-27, mistake 20: a famous name stands behind the host", func(t *testing.T) {
		text := consents(t, h, john, "client_id", serve(map[string]any{"client_name": "Google"}))
		host, name := strings.Index(text, "good.test"), strings.Index(text, "Google")
		if host < 0 || name < 0 || host > name || !strings.Contains(text, "calls itself") {
			t.Error(text)
		}
	})
	t.Run("CONS-02, attack DO-17, mistake 33: redirects on other hosts are shown as such", func(t *testing.T) {
		id := serve(map[string]any{"redirect_uris": []string{Redirect, "https://evil.test/cb"}})
		text := consents(t, h, john, "client_id", id, "redirect_uri", "https://evil.test/cb")
		if !strings.Contains(text, "The answer goes to evil.test") {
			t.Error(text)
		}
	})
	t.Run("DOC-28, attack DO-28: scope is the least of request, document and policy", func(t *testing.T) {
		id := serve(map[string]any{"scope": "mcp:read admin:*"})
		a := h.grant(john, "client_id", id, "scope", "mcp:read mcp:write")
		if a.Str("scope") != "mcp:read" {
			t.Error(a.Raw)
		}
	})
	t.Run("DOC-30: demands that the request, or this server, does not meet", func(t *testing.T) {
		for _, name := range []string{"require_pushed_authorization_requests", "require_signed_request_object", "tls_client_certificate_bound_access_tokens"} {
			page := john.Visit(h.Authorize("client_id", serve(map[string]any{name: true})))
			if page.Left || page.Status != 400 || !strings.Contains(page.Text(), name) {
				t.Errorf("%d %s", page.Status, page.Text())
			}
		}
	})
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	h := New(t, "policy: {default: allow}", `policy:
  default: ask
  rules:
    - {host: blocked.test, action: deny, reason: Not this one.}
    - {host: good.test, action: allow, same_host: true}
    - {host: web.test, action: allow, loopback: false}
    - {client: 'https://read.test/c.json', action: allow, scopes: ['mcp:read']}
    - {host: '*.wide.test', action: allow}
    - {host: plain.test, action: allow}`)
	john, rec := h.john(), &records{h: h}
	serve := func(host string, change map[string]any) string {
		return h.Net.Host(host).ServeClient("/c.json", change)
	}
	before := h.fetches()
	for _, r := range []struct {
		row, host string
	}{
		{"POL-01: denied", "blocked.test"},
		{"POL-01: waiting for approval", "other.test"},
		{"POL-02, attack AD-10: ends alike", "evilplain.test"},
		{"POL-02, attack AD-10: begins alike", "plain.test.evil.test"},
		{"POL-02, attack AD-10: below an exact host", "sub.plain.test"},
		{"POL-02, attack AD-10: the apex of a wildcard", "wide.test"},
	} {
		t.Run(r.row, func(t *testing.T) {
			rec.add(r.row, local(t, john.Visit(h.Authorize("client_id", serve(r.host, nil))), 403))
		})
	}
	if n := h.fetches() - before; n != 0 {
		t.Errorf("%d connections for clients that the policy refuses", n)
	}
	t.Run("DOC-25, attack DO-17, mistake 33: same_host looks at every redirect URI", func(t *testing.T) {
		id := h.Net.Host("good.test").ServeClient("/two.json", map[string]any{"redirect_uris": []string{Redirect, "https://evil.test/cb"}})
		rec.add("same_host", local(t, john.Visit(h.Authorize("client_id", id)), 403))
	})
	t.Run("POL-03: no loopback", func(t *testing.T) {
		id := serve("web.test", map[string]any{"redirect_uris": []string{"https://web.test/cb", "http://127.0.0.1/cb"}})
		rec.add("no loopback", local(t, john.Visit(h.Authorize("client_id", id, "redirect_uri", "https://web.test/cb")), 403))
	})
	t.Run("POL-04, attack DO-28: the policy's scopes are the ceiling", func(t *testing.T) {
		id := serve("read.test", map[string]any{"redirect_uris": []string{Redirect}})
		if a := h.grant(john, "client_id", id, "scope", "mcp:read mcp:write"); a.Str("scope") != "mcp:read" {
			t.Error(a.Raw)
		}
	})
	t.Run("POL-02, attack AD-10: a name below the wildcard", func(t *testing.T) {
		consents(t, h, john, "client_id", serve("a.wide.test", map[string]any{"redirect_uris": []string{Redirect}}))
	})
	rec.check(t)
}

func TestScopesOfStrangers(t *testing.T) {
	t.Parallel()
	h := New(t, "policy: {default: allow}", `policy:
  default: allow
  unnamed_scopes: ['mcp:read']
  rules:
    - {host: named.test, action: allow}`)
	john := h.john()
	for _, c := range []struct{ row, host, scope string }{
		{"POL-04: a client that no rule matches gets what is left to such", "stranger.test", "mcp:read"},
		{"POL-04: one that a rule matches gets what the rule leaves", "named.test", "mcp:read mcp:write"},
	} {
		t.Run(c.row, func(t *testing.T) {
			id := h.Net.Host(c.host).ServeClient("/c.json", map[string]any{"redirect_uris": []string{Redirect}})
			a := h.grant(john, "client_id", id, "scope", "mcp:read mcp:write")
			if a.Str("scope") != c.scope {
				t.Error(a.Raw)
			}
		})
	}
}

func TestCIMDIsOff(t *testing.T) {
	t.Parallel()
	h := New(t, "enabled: true", "enabled: false")
	john := h.john()
	before := h.fetches()
	local(t, john.Visit(h.Authorize()), 400)
	t.Run("META-05: neither fetched nor advertised", func(t *testing.T) {
		a := h.Get("/.well-known/oauth-authorization-server")
		if a.Body["client_id_metadata_document_supported"] == true || h.fetches() != before {
			t.Error(a.Raw)
		}
	})
}

// TestStrangersCauseNothing: without a session there is no fetch, and nothing is
// written down but a sample of refusals.
func TestStrangersCauseNothing(t *testing.T) {
	t.Parallel()
	h := New(t)
	nobody := h.Person()
	before := h.fetches()
	for i := range 100 {
		id := h.Net.Host(fmt.Sprintf("h%d.test", i)).ServeClient("/c.json", nil)
		if page := nobody.Visit(h.Authorize("client_id", id)); !page.Has("password") {
			t.Fatalf("%d %s", page.Status, page.Text())
		}
	}
	s := h.Store()
	defer s.Close()
	t.Run("FETCH-20, attack DS-01, mistake 18, mistake 38: nobody signed in, nothing fetched, nothing kept", func(t *testing.T) {
		if n := h.fetches() - before; n != 0 {
			t.Errorf("%d connections", n)
		}
		if rows, err := s.Clients(t.Context(), "", 1000); err != nil || len(rows) != 0 {
			t.Errorf("%d rows, %v", len(rows), err)
		}
	})
	john := h.john()
	t.Run("FETCH-19, attack DS-01: somebody signed in is slowed down, and others are not", func(t *testing.T) {
		busy := 0
		for i := range 100 {
			page := john.Visit(h.Authorize("client_id", fmt.Sprintf("https://h%d.test/c.json", i), "redirect_uri", fmt.Sprintf("https://h%d.test/cb", i)))
			if page.Status == 503 {
				busy++
				if page.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			}
		}
		if busy == 0 || busy == 100 {
			t.Errorf("%d of 100 had to wait", busy)
		}
		h.AddUser("ada", Password)
		ada := h.Person()
		ada.SignInAs(ada.Visit(Issuer+"/login"), "ada", Password)
		if page := ada.Visit(h.Authorize()); !page.Has("decision") {
			t.Errorf("mistake 23: %d %s", page.Status, page.Text())
		}
		if rows, err := s.Clients(t.Context(), "", 1000); err != nil || len(rows) != 0 {
			t.Errorf("mistake 18: %d rows before anybody agreed, %v", len(rows), err)
		}
	})
	t.Run("FETCH-18: one fetch for many visits", func(t *testing.T) {
		h.Later(time.Minute)
		id := h.Net.Host("one.test").ServeClient("/c.json", nil)
		for range 10 {
			consents(t, h, john, "client_id", id, "redirect_uri", "https://one.test/cb")
		}
		if n := h.Net.Host("one.test").Count("/c.json"); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}
