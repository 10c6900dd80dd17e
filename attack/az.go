package main

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// elsewhere wants a refusal for redirect URIs that a client does not list.
func (t *trial) elsewhere(id string, list ...string) {
	for _, to := range list {
		pg := t.john.visit(az("client_id", id, "redirect_uri", to))
		t.local(to, pg, 400)
		t.check(to == "" || !strings.Contains(pg.body, `href="`+to), "the page links to %s", to)
	}
}

// back wants the error told to a client that John agreed to, and shown to the
// person for one that he did not.
func (t *trial) back(code string, changes ...string) {
	what := strings.Join(changes, " ")
	if len(what) > 60 {
		what = what[:60]
	}
	pg := t.john.visit(az(changes...))
	q := url.Values{}
	if pg.left {
		q = pg.url.Query()
	}
	t.check(pg.left && q.Get("error") == code && q.Get("iss") == issuer && q.Get("state") == "s1" && !q.Has("code") && strings.HasPrefix(pg.url.String(), redirect+"?"), "%s: %s, want %s", what, pg, code)
	id := t.vars["stranger"].(string)
	pg = t.john.visit(azOf(id, changes...))
	t.check(!pg.left && pg.status == 400 && pg.header.Get("Location") == "" && !pg.has("decision") && !strings.Contains(pg.body, "http-equiv"), "%s, of a stranger: %s", what, pg)
	t.s.later(time.Second)
}

func backs(id, code string, list ...[]string) row {
	return row{id, func(t *trial) {
		for _, c := range list {
			t.back(code, c...)
		}
	}}
}

func p(list ...string) []string { return list }

var groupAZ = group{
	name:    "AZ",
	prepare: func(e *env) { e.vars["stranger"] = e.w.host("stranger.test").client("/c.json", nil) },
	rows: []row{
		{"AZ-01", func(t *trial) {
			t.elsewhere(goodID, "https://evil.test/cb", "https://good.test/other", "javascript:alert(1)", "https://good.test.evil.test/cb")
		}},
		{"AZ-02", func(t *trial) {
			t.elsewhere(goodID, redirect+"/", "https://good.test/CB", "https://GOOD.test/cb", "HTTPS://good.test/cb", "https://good.test/%63b", "https://good.test:443/cb", redirect+"?x=1", redirect+"?", redirect+"#x", redirect+"#",
				"https://good.test/x/../cb", "https://good.test@evil.test/cb", `https://good.test\@evil.test/cb`, " "+redirect, redirect+" ", "http://good.test/cb", redirect+"\x00", "//good.test/cb", redirect+";x")
		}},
		{"AZ-03", func(t *trial) {
			id := t.w.host("native.test").client("/c.json", m{"redirect_uris": []string{"http://127.0.0.1/cb", "http://localhost:33418/", "http://[::1]/cb?x=1"}})
			for _, to := range []string{"http://127.0.0.1:51004/cb", "http://127.0.0.1/cb", "http://localhost:51004/", "http://[::1]:51004/cb?x=1"} {
				pg := t.john.consent(az("client_id", id, "redirect_uri", to))
				t.check(pg.code() != "" && strings.HasPrefix(pg.url.String(), to), "%s: %s", to, pg)
				a := t.s.post("/token", codeForm(pg.code(), "client_id", id, "redirect_uri", to))
				t.check(a.ok(), "%s at /token: %s", to, a)
			}
			t.elsewhere(id, "http://127.0.0.1:51004/cb/", "https://127.0.0.1:51004/cb", "http://127.0.0.1:51004x/cb", "http://127.0.0.1:65536/cb", "http://127.0.0.2:51004/cb", "http://localhost:51004/cb", "http://127.0.0.1.evil.test:51004/cb",
				"http://127.0.0.1:80@evil.test/cb", "http://[::1]:51004/cb?x=2", "http://0x7f.1:51004/cb", "http://127.0.0.1:-1/cb")
		}},
		{"AZ-05", func(t *trial) {
			id := t.w.host("ported.test").client("/c.json", m{"redirect_uris": []string{"https://ported.test:8443/cb"}})
			t.asks("as listed", t.john.visit(az("client_id", id, "redirect_uri", "https://ported.test:8443/cb")))
			t.elsewhere(id, "https://ported.test:9443/cb", "https://ported.test/cb", "https://ported.test:443/cb")
		}},
		{"AZ-06", func(t *trial) {
			id := t.w.host("several.test").client("/c.json", m{"redirect_uris": []string{"https://several.test/a", "https://several.test/b"}})
			t.elsewhere(id, "")
			pg := t.john.visit(az("redirect_uri", "")) // documented: the only one that is listed
			t.check(pg.left && strings.HasPrefix(pg.url.String(), redirect+"?"), "with one listed: %s", pg)
		}},
		backs("AZ-07", "unsupported_response_type", p("response_type", "token"), p("response_type", "code token"), p("response_type", ""), p("response_type", "CODE"), p("response_type", "none")),
		backs("AZ-08", "invalid_request", p("code_challenge", ""), p("code_challenge_method", "plain"), p("code_challenge_method", ""), p("code_challenge_method", "s256"), p("code_challenge", challenge[:42]), p("code_challenge", challenge+"="), p("code_challenge", strings.Repeat("+", 43))),
		{"AZ-09", func(t *trial) {
			for _, second := range []string{strings.Repeat("a", 43), challenge} {
				t.local("code_challenge twice", t.john.visit(az()+"&code_challenge="+second), 400)
			}
			t.back("invalid_request", "code_challenge", strings.Repeat("a", 129))
			t.back("invalid_request", "code_challenge_method", "S256 ")
			pg := t.john.visit(az("code_challenge", "") + "#code_challenge=" + challenge)
			t.check(pg.left && pg.url.Query().Get("error") == "invalid_request", "behind #: %s", pg)
		}},
		{"AZ-10", func(t *trial) {
			for _, r := range []string{resource + "#frag", "/mcp", "http://mcp.test/mcp", "https://other.test/mcp", "https://mcp.test", resource + "?x", "mcp.test/mcp", issuer} {
				t.back("invalid_target", "resource", r)
			}
			twenty := az("resource", "") + strings.Repeat("&resource="+url.QueryEscape(resource), 20)
			t.local("20 resources", t.john.visit(twenty), 400)
			pg := t.john.visit(az() + "&resource=" + url.QueryEscape(resource))
			t.check(pg.code() != "", "the same twice: %s", pg)
		}},
		{"AZ-12", func(t *trial) {
			t.local("5,000 scopes", t.john.visit(az("scope", strings.Repeat("mcp:read ", 5000))), 400, 414)
			t.back("invalid_scope", "scope", "mcp:read\x01")
			t.back("invalid_scope", "scope", `mcp:"read"`)
			t.back("invalid_scope", "scope", "nothing")
			a := t.s.post("/token", codeForm(t.john.codeFor(az("scope", "mcp:read unknown mcp:read"))))
			t.check(a.str("scope") == "mcp:read", "unknown and doubled: %s", a)
			a = t.s.post("/token", codeForm(t.john.codeFor(az("scope", "")+"&scope=")))
			t.check(a.str("scope") == "mcp:read", "empty: %s", a)
		}},
		{"AZ-13", func(t *trial) {
			pg := t.john.visit(az("state", strings.Repeat("s", 100_000)))
			t.check(!pg.left && (pg.status == 400 || pg.status == 414 || pg.status == 431), "100 kB: %s", pg)
			t.local("5,000 bytes", t.john.visit(az("state", strings.Repeat("s", 5000))), 400)
			for _, state := range []string{"a\r\nSet-Cookie: x=1", "<script>alert(1)</script>", "ü&code=x#y", " leading and trailing ", "%2F+%00", "a;b", "'\""} {
				pg := t.john.visit(az("state", state))
				t.check(pg.left && pg.url.Query().Get("state") == state && pg.url.Query().Get("code") != "x" && pg.url.Fragment == "", "state %q: %s", state, pg)
			}
		}},
		{"AZ-14", func(t *trial) {
			nobody := t.s.person()
			for who, b := range map[string]*person{"nobody": nobody, "john": t.john} {
				loop := t.w.host("quiet.test").client("/c.json", m{"redirect_uris": []string{"http://127.0.0.1/cb"}})
				pg := b.visit(az("client_id", loop, "redirect_uri", "http://127.0.0.1:6666/cb", "prompt", "none"))
				t.check(pg.code() == "" && (pg.left && strings.HasSuffix(pg.url.Query().Get("error"), "_required") || !pg.left && pg.status == 400), "%s, a client that nobody agreed to: %s", who, pg)
			}
			loop := t.w.host("quiet2.test").client("/c.json", m{"redirect_uris": []string{"http://127.0.0.1/cb"}})
			t.john.grant("client_id", loop, "redirect_uri", "http://127.0.0.1:6666/cb")
			pg := t.john.visit(az("client_id", loop, "redirect_uri", "http://127.0.0.1:6666/cb", "prompt", "none"))
			t.check(pg.left && pg.code() == "" && strings.HasSuffix(pg.url.Query().Get("error"), "_required"), "a loopback client that was agreed to: %s", pg)
			pg = nobody.visit(az("prompt", "none"))
			t.check(pg.code() == "" && (pg.left && pg.url.Query().Get("error") == "login_required" || !pg.left && pg.status == 400), "nobody is signed in: %s", pg)
		}},
		{"AZ-15", func(t *trial) {
			before := t.w.host("evil.test").connections()
			for _, c := range [][]string{
				p("request_uri", "https://evil.test/ro"), p("request_uri", "urn:ietf:params:oauth:request_uri:forged"), p("request", "a.b.c"), p("request", "eyJhbGciOiJub25lIn0.e30."),
				p("response_mode", "fragment"), p("response_mode", "web_message"), p("response_mode", "form_post"), p("id_token_hint", "a.b.c"), p("request_uri", "http://169.254.169.254/"),
			} {
				pg := t.john.visit(az(c...))
				told := pg.left && pg.url.Query().Get("error") != "" && strings.HasPrefix(pg.url.String(), redirect+"?")
				t.check(pg.code() == "" && !pg.asks() && (told || !pg.left && pg.status == 400), "%v: %s", c, pg)
			}
			t.check(t.w.host("evil.test").connections() == before, "request_uri was fetched")
		}},
		{"AZ-16", func(t *trial) {
			target, _ := url.Parse(az())
			for what, body := range map[string]string{
				"client_id differs": "client_id=" + url.QueryEscape("https://evil.test/c.json"), "client_id is the same": "client_id=" + url.QueryEscape(goodID), "state": "state=other",
			} {
				a := t.s.postRaw("/authorize?"+target.RawQuery, "application/x-www-form-urlencoded", body, withHeader("Cookie", t.john.cookies()))
				t.check(a.status == 400 && a.header.Get("Location") == "", "%s in query and body: %s", what, a)
			}
			whole := t.s.postRaw("/authorize", "application/x-www-form-urlencoded", target.RawQuery, withHeader("Cookie", t.john.cookies()), withHeader("Sec-Fetch-Site", "same-origin"), withHeader("Origin", issuer))
			t.check(whole.status == 200 || whole.status == 303, "all in the body: %s", whole)
		}},
		{"AZ-17", func(t *trial) {
			id := t.w.host("redirector.test").client("/c.json", m{"redirect_uris": []string{"https://evil.test/phish"}})
			for _, who := range []*person{t.john, t.s.person()} {
				for _, c := range [][]string{p("scope", "\x01"), p("response_type", "token"), p("prompt", "none"), p("code_challenge", "")} {
					pg := who.visit(az(append(p("client_id", id, "redirect_uri", "https://evil.test/phish"), c...)...))
					t.check(!pg.left && !strings.Contains(pg.body, "http-equiv"), "%v: %s", c, pg)
					if pg.status == 400 && !pg.has("password") {
						t.check(strings.Contains(pg.text(), "evil.test"), "%v: the page does not name where it leads: %s", c, pg)
					}
					t.s.later(time.Second)
				}
			}
		}},
		{"AZ-18", func(t *trial) {
			meta := t.s.get("/.well-known/oauth-authorization-server")
			t.check(meta.str("issuer") == issuer && meta.body["authorization_response_iss_parameter_supported"] == true, "metadata: %s", meta)
			for _, c := range [][]string{nil, p("scope", "nothing"), p("prompt", "none", "scope", "mcp:write"), p("response_type", "token")} {
				pg := t.john.visit(az(c...))
				t.check(pg.left && pg.url.Query().Get("iss") == issuer && len(pg.url.Query()["iss"]) == 1, "%v: %s", c, pg)
			}
			pg := t.john.answer(t.john.visit(az("prompt", "consent")), "deny")
			t.check(pg.left && pg.url.Query().Get("error") == "access_denied" && pg.url.Query().Get("iss") == issuer, "denied: %s", pg)
		}},
		{"AZ-20", func(t *trial) {
			for _, method := range []string{"HEAD", "PUT", "OPTIONS", "DELETE", "PATCH", "TRACE"} {
				req, _ := http.NewRequest(method, az(), nil)
				req.Header.Set("Origin", "https://evil.test")
				a := t.s.do(req)
				t.check(a.status == 405 && a.header.Get("Location") == "" && a.header.Get("Access-Control-Allow-Origin") == "", "%s: %s", method, a)
			}
			for _, path := range []string{"/login", "/", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/nowhere"} {
				a := t.s.get(path, func(r *http.Request) {
					r.Host = "evil.test"
					for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "X-Original-Host"} {
						r.Header.Set(name, "evil.test")
					}
					r.Header.Set("Forwarded", "host=evil.test;proto=http")
				})
				all := a.raw
				for _, v := range a.header {
					all += strings.Join(v, " ")
				}
				t.check(a.err == nil && !strings.Contains(all, "evil.test"), "%s repeats the Host header: %s", path, a)
			}
		}},
		{"AZ-21", func(t *trial) {
			pg := t.john.visit(az("prompt", "consent"))
			t.asks("consent", pg)
			csp := pg.header.Get("Content-Security-Policy")
			t.check(pg.header.Get("Referrer-Policy") == "no-referrer" && pg.header.Get("Cache-Control") == "no-store" && strings.Contains(csp, "default-src 'none'"), "headers %v", pg.header)
			for _, src := range []string{`src="http`, `src="//`, `url(http`, "@import", "<script", "<iframe", `rel="preconnect"`, `rel="dns-prefetch"`} {
				t.check(!strings.Contains(pg.body, src), "the page holds %s", src)
			}
			f := pg.must("decision").with("decision", "allow")
			req, _ := http.NewRequest(http.MethodPost, f.action.String(), strings.NewReader(f.values.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", issuer)
			req.Header.Set("Cookie", t.john.cookies())
			req.Header.Set("Sec-Fetch-Site", "same-origin")
			a := t.s.do(req)
			t.check(a.status == 303 && a.header.Get("Referrer-Policy") == "no-referrer" && a.header.Get("Cache-Control") == "no-store", "the redirect with the code: %d %v", a.status, a.header)
		}},
	},
}
