package housetest

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// TestRedirectURIs asks for the answer at places that the client does not list.
func TestRedirectURIs(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, rec, good := h.john(), &records{h: h}, h.Net.Host("good.test")
	h.grant(john) // even for a client that John agreed to
	native := good.ServeClient("/native.json", map[string]any{"redirect_uris": []string{"http://127.0.0.1/cb", "http://localhost:33418/", "http://[::1]/cb?x=1"}})
	ported := good.ServeClient("/ported.json", map[string]any{"redirect_uris": []string{"https://good.test:8443/cb", "https://good.test/q?a=1"}})
	for _, r := range []struct{ row, id, redirect string }{
		{"AUTHZ-02, attack AZ-01: not listed", ClientID, "https://evil.test/cb"},
		{"AUTHZ-03, attack AZ-02: slash at the end", ClientID, Redirect + "/"},
		{"AUTHZ-03, attack AZ-02: case of the path", ClientID, "https://good.test/CB"},
		{"AUTHZ-03, attack AZ-02: case of the host", ClientID, "https://GOOD.test/cb"},
		{"AUTHZ-03, attack AZ-02: case of the scheme", ClientID, "HTTPS://good.test/cb"},
		{"AUTHZ-03, attack AZ-02: percent-encoding", ClientID, "https://good.test/%63b"},
		{"AUTHZ-03, attack AZ-02: default port", ClientID, "https://good.test:443/cb"},
		{"AUTHZ-03, attack AZ-02: added query", ClientID, Redirect + "?x=1"},
		{"AUTHZ-03, attack AZ-02: empty query", ClientID, Redirect + "?"},
		{"AUTHZ-03, attack AZ-02: fragment", ClientID, Redirect + "#x"},
		{"AUTHZ-03, attack AZ-02: dot segments", ClientID, "https://good.test/x/../cb"},
		{"AUTHZ-03, attack AZ-02: user information", ClientID, "https://good.test@evil.test/cb"},
		{"AUTHZ-03, attack AZ-02: a host that begins alike", ClientID, "https://good.test.evil.test/cb"},
		{"AUTHZ-03, attack AZ-02: backslash", ClientID, `https://good.test\@evil.test/cb`},
		{"AUTHZ-03, attack AZ-02: space before", ClientID, " " + Redirect},
		{"AUTHZ-03: http in place of https", ClientID, "http://good.test/cb"},
		{"AUTHZ-02, attack DO-12: javascript", ClientID, "javascript:alert(1)"},
		{"AUTHZ-03, attack AZ-05: another port of a web address", ported, "https://good.test:9443/cb"},
		{"AUTHZ-03, attack AZ-05: no port", ported, "https://good.test/cb"},
		{"AUTHZ-03: another query", ported, "https://good.test/q?a=2"},
		{"AUTHZ-04, attack AZ-03: another path", native, "http://127.0.0.1:51004/cb/"},
		{"AUTHZ-04, attack AZ-03: https in place of http", native, "https://127.0.0.1:51004/cb"},
		{"AUTHZ-04, attack AZ-03: a port that is none", native, "http://127.0.0.1:51004x/cb"},
		{"AUTHZ-04, attack AZ-03: port 65536", native, "http://127.0.0.1:65536/cb"},
		{"AUTHZ-04, attack AZ-03: another loopback address", native, "http://127.0.0.2:51004/cb"},
		{"AUTHZ-05, attack AZ-03: another name of this computer", native, "http://localhost:51004/cb"},
		{"AUTHZ-04, attack DO-16: a name that begins alike", native, "http://127.0.0.1.evil.test:51004/cb"},
		{"AUTHZ-04, attack DO-15: a port that is user information", native, "http://127.0.0.1:80@evil.test/cb"},
		{"AUTHZ-04: another query", native, "http://[::1]:51004/cb?x=2"},
		{"AUTHZ-06, attack AZ-06: none, and several are listed", native, ""},
	} {
		t.Run(r.row, func(t *testing.T) {
			page := john.Visit(h.Authorize("client_id", r.id, "redirect_uri", r.redirect))
			rec.add(r.row, local(t, page, 400))
			if strings.Contains(page.Body, `href="`+r.redirect) && r.redirect != "" {
				t.Error("the page links to it")
			}
		})
	}
	for _, r := range []struct{ row, id, redirect string }{
		{"AUTHZ-04, attack AZ-03: another port of this computer", native, "http://127.0.0.1:51004/cb"},
		{"AUTHZ-04, attack AZ-03: no port", native, "http://127.0.0.1/cb"},
		{"AUTHZ-05, attack AZ-03: another port of localhost", native, "http://localhost:51004/"},
		{"AUTHZ-04, attack AZ-03: another port and the query of the document", native, "http://[::1]:51004/cb?x=1"},
		{"AUTHZ-14: a query of its own", ported, "https://good.test/q?a=1"},
		{"AUTHZ-06, attack AZ-06: none, and one is listed", ClientID, ""},
	} {
		t.Run(r.row, func(t *testing.T) {
			u := john.Consent(h.Authorize("client_id", r.id, "redirect_uri", r.redirect))
			want := r.redirect
			if want == "" {
				want = Redirect
			}
			if !strings.HasPrefix(u.String(), want) || u.Query().Get("code") == "" {
				t.Errorf("got %s", u)
			}
			form := CodeForm(u.Query().Get("code"), "client_id", r.id, "redirect_uri", want)
			if a := h.Post("/token", form); !a.OK() {
				t.Errorf("mistake 25: %d %s", a.Status, a.Raw)
			}
		})
	}
	t.Run("TOK-05, attack TK-07, mistake 25: the port that was used is the one that counts", func(t *testing.T) {
		code := john.Code(h.Authorize("client_id", native, "redirect_uri", "http://127.0.0.1:51004/cb"))
		h.Post("/token", CodeForm(code, "client_id", native, "redirect_uri", "http://127.0.0.1:51005/cb")).check(t, 400, oauth.InvalidGrant)
		if a := h.Post("/token", CodeForm(code, "client_id", native, "redirect_uri", "http://127.0.0.1:51004/cb")); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	rec.check(t)
}

// bad are requests that a client is told about, once it is trusted that far.
var bad = []struct {
	row     string
	changes []string
	code    oauth.Code
}{
	{"AUTHZ-09, attack AZ-07: response_type token", []string{"response_type", "token"}, oauth.UnsupportedResponseType},
	{"AUTHZ-09, attack AZ-07: response_type code token", []string{"response_type", "code token"}, oauth.UnsupportedResponseType},
	{"AUTHZ-09, attack AZ-07: no response_type", []string{"response_type", ""}, oauth.UnsupportedResponseType},
	{"AUTHZ-07, attack AZ-08: no challenge", []string{"code_challenge", ""}, oauth.InvalidRequest},
	{"AUTHZ-07, attack AZ-08: plain", []string{"code_challenge_method", "plain"}, oauth.InvalidRequest},
	{"AUTHZ-07, attack AZ-08: no method", []string{"code_challenge_method", ""}, oauth.InvalidRequest},
	{"AUTHZ-07, attack AZ-08: s256", []string{"code_challenge_method", "s256"}, oauth.InvalidRequest},
	{"AUTHZ-08, attack AZ-08: challenge of 42 characters", []string{"code_challenge", Challenge[:42]}, oauth.InvalidRequest},
	{"AUTHZ-08, attack AZ-08: challenge with padding", []string{"code_challenge", Challenge + "="}, oauth.InvalidRequest},
	{"AUTHZ-08, attack AZ-09: challenge of 129 characters", []string{"code_challenge", strings.Repeat("a", 129)}, oauth.InvalidRequest},
	{"AUTHZ-07, attack AZ-09: method with a space", []string{"code_challenge_method", "S256 "}, oauth.InvalidRequest},
	{"AUTHZ-16, attack AZ-10: resource with a fragment", []string{"resource", Resource + "#frag"}, oauth.InvalidTarget},
	{"AUTHZ-16, attack AZ-10: relative resource", []string{"resource", "/mcp"}, oauth.InvalidTarget},
	{"AUTHZ-16, attack AZ-10: http resource", []string{"resource", "http://mcp.test/mcp"}, oauth.InvalidTarget},
	{"AUTHZ-16, attack AZ-10: unknown resource", []string{"resource", "https://other.test/mcp"}, oauth.InvalidTarget},
	{"AUTHZ-16: a resource that begins alike", []string{"resource", "https://mcp.test"}, oauth.InvalidTarget},
	{"AUTHZ-19, attack AZ-12: unknown scope alone", []string{"scope", "nothing"}, oauth.InvalidScope},
	{"AUTHZ-19, attack AZ-12: scope with a control character", []string{"scope", "mcp:read\x01"}, oauth.InvalidScope},
	{"AUTHZ-19, attack AZ-12: scope with a quote", []string{"scope", `mcp:"read"`}, oauth.InvalidScope},
	{"AUTHZ-25, attack AZ-15: request_uri", []string{"request_uri", "https://evil.test/ro"}, oauth.RequestURINotSupported},
	{"AUTHZ-23, attack AZ-15: id_token_hint that is none", []string{"id_token_hint", "a.b.c"}, oauth.InvalidRequest},
	{"AUTHZ-26: details of a type that is not here", []string{"authorization_details", `[{"type":"payment"}]`}, "invalid_authorization_details"},
	{"AUTHZ-28: dpop_jkt that is no thumbprint", []string{"dpop_jkt", "abc"}, oauth.InvalidRequest},
	{"attack AZ-15: response_mode fragment", []string{"response_mode", "fragment"}, oauth.InvalidRequest},
	{"attack AZ-15: response_mode form_post", []string{"response_mode", "form_post"}, oauth.InvalidRequest},
	{"attack AZ-15: response_mode web_message", []string{"response_mode", "web_message"}, oauth.InvalidRequest},
	{"AUTHZ-23: unknown prompt", []string{"prompt", "always"}, oauth.InvalidRequest},
	{"AUTHZ-24: acr_values that nobody reaches", []string{"acr_values", "urn:x:face"}, oauth.UnmetAuthenticationNeeds},
}

// TestBadRequestsOfStrangers looks at the same requests from three distances:
// a stranger's document is never told by itself, one that John agreed to is.
func TestBadRequestsOfStrangers(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, rec := h.john(), &records{h: h}
	nobody := h.Person()
	for _, r := range bad {
		t.Run("AUTHZ-10, AUTHZ-11, attack AZ-17, "+r.row+": shown to the person", func(t *testing.T) {
			page := john.Visit(h.Authorize(r.changes...))
			if page.Left || page.Status != 400 || page.Header.Get("Location") != "" || page.Has("decision") {
				t.Fatalf("%d at %s: %s", page.Status, page.URL, page.Text())
			}
			if !strings.Contains(page.Text(), "good.test") || strings.Contains(page.Body, "http-equiv") {
				t.Errorf("the page does not name the destination, or goes there by itself: %s", page.Text())
			}
			rec.add(r.row, reference.FindString(page.Text()))
		})
		t.Run("AUTHZ-10, attack AZ-17, "+r.row+": nobody is signed in", func(t *testing.T) {
			if page := nobody.Visit(h.Authorize(r.changes...)); page.Left || len(page.Hops) > 0 && !page.Has("password") {
				t.Errorf("%d at %s", page.Status, page.URL)
			}
		})
	}
	h.grant(john)
	for _, r := range bad {
		t.Run("AUTHZ-12, AUTHZ-13, attack AZ-18, "+r.row+": told to a client that John agreed to", func(t *testing.T) {
			page := john.Visit(h.Authorize(r.changes...))
			back(t, page, r.code)
			if page.URL.Query().Get("state") != "s1" || !strings.HasPrefix(page.URL.String(), Redirect+"?") {
				t.Errorf("got %s", page.URL)
			}
		})
		h.Later(time.Second)
	}
	if h.Net.Host("evil.test").Count("*") != 0 {
		t.Error("attack AZ-15: request_uri was fetched")
	}
	rec.check(t)
}

func TestWhatIsNeverRedirected(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	h.grant(john)
	double := func(name, value string) string { return h.Authorize() + "&" + name + "=" + url.QueryEscape(value) }
	twenty := h.Authorize("resource", "")
	for range 20 {
		twenty += "&resource=" + url.QueryEscape(Resource)
	}
	for _, r := range []struct {
		row, address string
		status       int
	}{
		{"AUTHZ-01, attack AZ-09: code_challenge twice", double("code_challenge", Challenge), 400},
		{"AUTHZ-01, attack AZ-09: another code_challenge", double("code_challenge", strings.Repeat("a", 43)), 400},
		{"AUTHZ-01: state twice", double("state", "s2"), 400},
		{"AUTHZ-01: redirect_uri twice", double("redirect_uri", "https://evil.test/cb"), 400},
		{"AUTHZ-01: an unknown parameter twice", double("x", "1") + "&x=2", 400},
		{"AUTHZ-16, attack AZ-10: resource 20 times", twenty, 400},
		{"AUTHZ-19, attack AZ-12: 5,000 scopes", h.Authorize("scope", strings.Repeat("mcp:read ", 5000)), 400},
		{"AUTHZ-13, attack AZ-13: state of 100 kB", h.Authorize("state", strings.Repeat("s", 100_000)), 414},
		{"AUTHZ-13, attack AZ-13: state of 5,000 bytes", h.Authorize("state", strings.Repeat("s", 5_000)), 400},
		{"attack AZ-13: a broken escape", h.Authorize() + "&x=%zz", 400},
		{"attack AZ-13: bytes that are no UTF-8", h.Authorize() + "&x=%ff", 400},
		{"AUTHZ-02: no client_id", h.Authorize("client_id", ""), 400},
	} {
		t.Run(r.row, func(t *testing.T) {
			local(t, john.Visit(r.address), r.status)
		})
	}
	t.Run("AUTHZ-01, attack AZ-09: a challenge behind # is none", func(t *testing.T) {
		back(t, john.Visit(h.Authorize("code_challenge", "")+"#code_challenge="+Challenge), oauth.InvalidRequest)
	})
	t.Run("AUTHZ-16, attack AZ-10: the same resource twice is one", func(t *testing.T) {
		if page := john.Visit(double("resource", Resource)); !page.Left || page.URL.Query().Get("code") == "" {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
	for _, state := range []string{"a\r\nSet-Cookie: x=1", "<script>alert(1)</script>", "ü&code=x#y", " leading and trailing ", "%2F+%00"} {
		t.Run("AUTHZ-13, attack AZ-13: state comes back byte for byte", func(t *testing.T) {
			page := john.Visit(h.Authorize("state", state))
			if !page.Left || page.URL.Query().Get("state") != state || page.URL.Query().Get("code") == "x" || page.URL.Fragment != "" {
				t.Errorf("got %s", page.URL)
			}
		})
	}
	t.Run("AUTHZ-19, attack AZ-12: what does not exist is left out, and doubles are one", func(t *testing.T) {
		code := john.Code(h.Authorize("scope", "mcp:read unknown mcp:read"))
		if a := h.Post("/token", CodeForm(code)); a.Str("scope") != "mcp:read" {
			t.Error(a.Raw)
		}
	})
	t.Run("AUTHZ-01, attack AZ-12: an empty scope is none", func(t *testing.T) {
		code := john.Code(h.Authorize("scope", "") + "&scope=")
		if a := h.Post("/token", CodeForm(code)); a.Str("scope") != "mcp:read" {
			t.Error(a.Raw)
		}
	})
}

// send sends a bare request, without a browser's cookies.
func (h *House) send(method, address, body string, edit ...func(*http.Request)) *browse.Page {
	h.TB.Helper()
	req, err := http.NewRequestWithContext(h.TB.Context(), method, address, strings.NewReader(body))
	if err != nil {
		h.TB.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, e := range edit {
		e(req)
	}
	resp, err := h.HTTP.Do(req)
	if err != nil {
		h.TB.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		h.TB.Fatal(err)
	}
	return &browse.Page{URL: req.URL, Status: resp.StatusCode, Header: resp.Header, Body: string(raw)}
}

func TestMethodsAndHosts(t *testing.T) {
	t.Parallel()
	h := New(t)
	for _, method := range []string{http.MethodHead, http.MethodPut, http.MethodOptions, http.MethodDelete, http.MethodPatch} {
		t.Run("AUTHZ-22, attack AZ-20: "+method+" /authorize", func(t *testing.T) {
			page := h.send(method, h.Authorize(), "", header("Origin", "https://evil.test"))
			if page.Status != 405 || page.Header.Get("Location") != "" || page.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%d %v", page.Status, page.Header)
			}
		})
	}
	t.Run("AUTHZ-22: no CORS on /authorize", func(t *testing.T) {
		if page := h.send(http.MethodGet, h.Authorize(), "", header("Origin", "https://evil.test")); page.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%v", page.Header)
		}
	})
	t.Run("META-18, attack AZ-20: Host and forwarded headers of a stranger change nothing", func(t *testing.T) {
		for _, address := range []string{h.Authorize(), Issuer + "/login", Issuer + "/", h.Authorize("client_id", "x")} {
			page := h.send(http.MethodGet, address, "", func(r *http.Request) {
				r.Host = "evil.test"
				for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Server", "X-Host"} {
					r.Header.Set(name, "evil.test")
				}
				r.Header.Set("Forwarded", "host=evil.test;proto=http")
			})
			if strings.Contains(page.Body, "evil.test") || strings.Contains(page.Header.Get("Location"), "evil.test") || strings.Contains(page.Header.Get("Set-Cookie"), "Domain") {
				t.Errorf("%d %v %s", page.Status, page.Header, page.Body)
			}
		}
	})
	query := strings.TrimPrefix(h.Authorize(), Issuer+"/authorize?")
	for _, r := range []struct{ row, address, body string }{
		{"client_id in both, different", Issuer + "/authorize?client_id=https%3A%2F%2Fevil.test%2Fc.json", query},
		{"some here, some there", Issuer + "/authorize?state=s1", query},
	} {
		t.Run("attack AZ-16: "+r.row, func(t *testing.T) {
			local(t, h.send(http.MethodPost, r.address, r.body), 400)
		})
	}
	t.Run("AUTHZ-01, AUTHZ-15: POST with all of it in the body is taken, by 303", func(t *testing.T) {
		page := h.send(http.MethodPost, Issuer+"/authorize", query, header("Origin", "https://good.test"))
		if page.Status != http.StatusSeeOther || !strings.HasPrefix(page.Header.Get("Location"), "/authorize?") {
			t.Errorf("%d %v", page.Status, page.Header)
		}
	})
}

func TestPromptNone(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, nobody := h.john(), h.Person()
	loop := h.Net.Host("good.test").ServeClient("/loop.json", map[string]any{"redirect_uris": []string{"http://127.0.0.1/cb"}})
	quiet := func(more ...string) string { return h.Authorize(append([]string{"prompt", "none"}, more...)...) }
	t.Run("AUTHZ-23, attack AZ-14: nobody is signed in, and nobody knows the client", func(t *testing.T) {
		local(t, nobody.Visit(quiet()), 400)
	})
	t.Run("AUTHZ-23, attack AZ-14: signed in, and nothing was agreed to", func(t *testing.T) {
		if page := john.Visit(quiet()); page.Left || page.Status != 400 || page.Has("decision") {
			t.Errorf("%d at %s", page.Status, page.URL)
		}
	})
	h.grant(john)
	h.grant(john, "client_id", loop, "redirect_uri", "http://127.0.0.1:51004/cb")
	t.Run("AUTHZ-23, attack AZ-14: agreed, and asked from here", func(t *testing.T) {
		if page := john.Visit(quiet()); !page.Left || page.URL.Query().Get("code") == "" {
			t.Errorf("%d at %s", page.Status, page.URL)
		}
	})
	t.Run("CONS-05, attack AZ-14, attack CN-10: never silent for an app on this computer", func(t *testing.T) {
		back(t, john.Visit(quiet("client_id", loop, "redirect_uri", "http://127.0.0.1:6666/cb")), oauth.ConsentRequired)
	})
	t.Run("attack CN-04, mistake 30: never silent when another site sent the person", func(t *testing.T) {
		back(t, john.VisitFrom(quiet(), "cross-site"), oauth.ConsentRequired)
	})
	t.Run("AUTHZ-23, attack AZ-14: more than was agreed to", func(t *testing.T) {
		back(t, john.Visit(quiet("scope", "mcp:write")), oauth.ConsentRequired)
	})
}

// TestRegisteredClients: what an operator wrote down is trusted to be told.
func TestRegisteredClients(t *testing.T) {
	t.Parallel()
	h := New(t)
	s := h.Store()
	if err := s.RegisterClient(t.Context(), store.Client{
		ID: "desk", Source: store.SourceRegistered, Name: "Desk", RedirectURIs: []string{"https://desk.test/cb"},
		GrantTypes: []string{"authorization_code", "refresh_token"}, AuthMethods: []string{"none"},
	}, h.Now()); err != nil {
		t.Fatal(err)
	}
	john := h.john()
	change := []string{"client_id", "desk", "redirect_uri", "https://desk.test/cb"}
	t.Run("AUTHZ-12, attack AZ-08: an error is redirected", func(t *testing.T) {
		back(t, john.Visit(h.Authorize(append(change, "code_challenge_method", "plain")...)), oauth.InvalidRequest)
	})
	t.Run("CONS-16, attack AZ-18: a no is told", func(t *testing.T) {
		back(t, john.Answer(john.Visit(h.Authorize(change...)), "deny"), oauth.AccessDenied)
		if len(h.Events(audit.TypeConsentDenied)) != 1 {
			t.Error("it was not recorded")
		}
	})
	t.Run("CAUTH-13: it works without CIMD", func(t *testing.T) {
		if a := h.grant(john, change...); a.Str("scope") != "mcp:read" {
			t.Error(a.Raw)
		}
		if n := h.fetches(); n != 0 {
			t.Errorf("%d connections", n)
		}
	})
}
