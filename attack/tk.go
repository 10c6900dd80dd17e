package main

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

// spoiled wants each change of a good redemption refused, and nothing consumed.
func (t *trial) spoiled(status int, code string, list ...[]string) {
	good := t.vars["code"].(string)
	for _, c := range list {
		a := t.s.post("/token", codeForm(good, c...))
		t.check(a.is(status, code), "%v: %s, want %d %s", c, a, status, code)
		t.plain(a)
	}
}

// plain wants the headers of an endpoint that answers with secrets, and no word
// about what is inside.
func (t *trial) plain(a reply) {
	t.check(a.err == nil && a.header.Get("Cache-Control") == "no-store" && a.header.Get("Pragma") == "no-cache" && !oracles.MatchString(a.raw), "headers or words: %v %s", a.header, a)
}

// still wants the code of the group to be good after all of that.
func (t *trial) still() {
	a := t.s.post("/token", codeForm(t.vars["code"].(string)))
	t.check(a.ok(), "the code is gone: %s", a)
	t.vars["code"] = t.john.codeFor(az())
}

const formType = "application/x-www-form-urlencoded"

var groupTK = group{
	name:    "TK",
	options: options{changes: []string{"", "tokens: {code: 10m}"}},
	prepare: func(e *env) {
		e.vars["other"] = e.w.host("other.test").client("/c.json", m{"redirect_uris": []string{redirect}})
		e.john.grant("client_id", e.vars["other"].(string))
		e.vars["code"] = e.john.codeFor(az())
	},
	rows: []row{
		{"TK-01", func(t *trial) {
			code := t.john.codeFor(az())
			a := t.s.post("/token", codeForm(code))
			t.check(a.ok() && t.s.active(a.str("access_token")), "%s", a)
			b := t.s.post("/token", codeForm(code))
			t.check(b.is(400, "invalid_grant"), "the second time: %s", b)
			t.check(!t.s.active(a.str("access_token")), "the access token lives on")
			c := t.s.post("/token", refreshForm(a.str("refresh_token")))
			t.check(c.is(400, "invalid_grant"), "the refresh token lives on: %s", c)
			t.check(len(t.s.events("reuse")) > 0, "no event")
		}},
		{"TK-02", func(t *trial) {
			var access string
			t.onceOnly("a code", 400, "invalid_grant", func() (string, string, []edit) {
				if access != "" {
					t.check(!t.s.active(access), "the replays did not end the grant")
				}
				return "/token", codeForm(t.john.codeFor(az())).Encode(), nil
			}, func(a reply) bool {
				if a.ok() {
					access = a.str("access_token")
				}
				return a.ok()
			})
		}},
		{"TK-03", func(t *trial) {
			twin := t.twin()
			if twin == nil { // one process is all that SQLite has; the store's own lock is what is raced here
				cliBeside(t)
				return
			}
			for range 10 {
				code := t.john.codeFor(az())
				a, b := t.s.post("/token", codeForm(code)), twin.post("/token", codeForm(code))
				t.check(a.ok() && b.is(400, "invalid_grant"), "first %s, then at the other replica %s", a, b)
				t.check(!twin.active(a.str("access_token")), "the replay at the other replica did not end the grant")
			}
		}},
		{"TK-05", func(t *trial) {
			t.spoiled(400, "invalid_grant", p("client_id", t.vars["other"].(string)))
			t.still()
		}},
		{"TK-06", func(t *trial) {
			t.spoiled(400, "invalid_grant", p("code_verifier", strings.Repeat("a", 43)), p("code_verifier", challenge))
			t.spoiled(400, "invalid_request", p("code_verifier", ""), p("code_verifier", strings.Repeat("a", 42)), p("code_verifier", strings.Repeat("a", 129)), p("code_verifier", strings.Repeat("a", 42)+" "), p("code_verifier", strings.Repeat("ä", 30)))
			t.still()
			code := t.john.codeFor(az())
			for range 5 {
				t.s.post("/token", codeForm(code, "code_verifier", strings.Repeat("a", 43)))
			}
			a := t.s.post("/token", codeForm(code))
			t.check(a.is(400, "invalid_grant"), "after five wrong verifiers: %s", a)
		}},
		{"TK-07", func(t *trial) {
			t.spoiled(400, "invalid_grant", p("redirect_uri", redirect+"/"), p("redirect_uri", "https://evil.test/cb"), p("redirect_uri", "https://GOOD.test/cb"))
			t.still()
			code := t.john.codeFor(az())
			a := t.s.post("/token", codeForm(code, "redirect_uri", "")) // documented: OAuth 2.1 does not need it
			t.check(a.ok(), "without redirect_uri: %s", a)
		}},
		{"TK-08", func(t *trial) {
			t.spoiled(400, "invalid_target", p("resource", "https://notes.test/"), p("resource", "https://other.test/mcp"), p("resource", resource+"#x"))
			t.still()
		}},
		{"TK-10", func(t *trial) {
			t.spoiled(400, "invalid_request", p("client_id", ""))
			t.spoiled(401, "invalid_client", p("client_id", "https://good.test/unknown.json"), p("client_secret", "x"))
			code := t.vars["code"].(string)
			for what, a := range map[string]reply{
				"Basic with a secret": t.s.post("/token", codeForm(code, "client_id", ""), basic(goodID, "secret")),
				"a raw colon":         t.s.post("/token", codeForm(code, "client_id", ""), func(r *http.Request) { r.SetBasicAuth(goodID, "") }),
				"a bearer token":      t.s.post("/token", codeForm(code), withHeader("Authorization", "Bearer abc")),
			} {
				t.check(a.is(401, "invalid_client"), "%s: %s", what, a)
			}
			a := t.s.post("/token", codeForm(code), basic(t.vars["other"].(string), ""))
			t.check(a.is(400, "invalid_request"), "Basic and body differ: %s", a)
			t.still()
		}},
		{"TK-11", func(t *trial) {
			code := t.vars["code"].(string)
			good := codeForm(code).Encode()
			for what, r := range map[string]struct{ query, typ, body string }{
				"two media types": {"", "application/json, " + formType, good}, "JSON": {"", "application/json", `{"grant_type":"authorization_code"}`}, "multipart": {"", "multipart/form-data; boundary=x", good},
				"no media type": {"", "", good}, "utf-7": {"", formType + "; charset=utf-7", good}, "10,000 parameters": {"", formType, good + strings.Repeat("&a=b", 10_000)}, "1 MiB": {"", formType, good + "&x=" + strings.Repeat("x", 1<<20)},
				"in the query": {"?" + good, formType, ""}, "the code in the query": {"?code=" + code, formType, codeForm("").Encode()}, "a broken escape": {"", formType, good + "&x=%zz"}, "a semicolon": {"", formType, good + ";x=1&grant_type;=1"},
			} {
				a := t.s.postRaw("/token"+r.query, r.typ, r.body)
				early := what == "1 MiB" && a.err != nil // the server answers and closes before all of it is sent
				t.check(early || a.err == nil && a.status >= 400 && a.status < 500 && a.str("access_token") == "" && len(a.raw) < 2000, "%s: %s", what, a)
			}
			for _, path := range []string{"/token", "/revoke", "/introspect"} {
				t.check(t.s.get(path+"?"+good).status == 405, "GET %s", path)
			}
			t.still()
		}},
		{"TK-12", func(t *trial) {
			good := codeForm(t.vars["code"].(string)).Encode()
			for _, more := range []string{"&grant_type=refresh_token", "&code=abc", "&code=" + t.vars["code"].(string), "&client_id=" + goodID, "&code_verifier=" + verifier} {
				a := t.s.postRaw("/token", formType, good+more)
				t.check(a.is(400, "invalid_request"), "%s: %s", more, a)
			}
			t.still()
		}},
		{"TK-13", func(t *trial) {
			code := t.john.codeFor(az())
			a := t.s.post("/token", codeForm(code))
			t.plain(a)
			t.plain(t.s.post("/token", codeForm("x")))
			t.plain(t.s.post("/revoke", values("token", "x")))
			t.s.post("/token", codeForm(code, "client_secret", "a-secret-of-mine"))
			t.s.post("/token", codeForm(code))
			var all strings.Builder
			all.WriteString(t.s.output())
			t.s.later(2 * time.Minute)
			for _, e := range t.s.events("") {
				all.WriteString(compact(e))
			}
			text := all.String()
			for name, secret := range map[string]string{"code": code, "access token": a.str("access_token"), "refresh token": a.str("refresh_token"), "verifier": verifier, "password": password, "client secret": "a-secret-of-mine", "session": t.john.cookie("__Host-bonafide_session")} {
				t.check(secret != "" && !strings.Contains(text, secret), "the %s is in the log or the audit", name)
			}
		}},
		{"TK-14", func(t *trial) {
			for _, path := range []string{"/token", "/revoke", "/introspect", "/register", "/admin", "/authorize", "/par", "/userinfo"} {
				for _, method := range []string{http.MethodOptions, http.MethodPost} {
					req, _ := http.NewRequest(method, issuer+path, nil)
					req.Header.Set("Origin", "https://evil.test")
					req.Header.Set("Access-Control-Request-Method", "POST")
					a := t.s.do(req)
					origin := a.header.Get("Access-Control-Allow-Origin")
					t.check(a.err == nil && a.header.Get("Access-Control-Allow-Credentials") == "" && (origin == "" || origin == "*") && a.header.Get("Set-Cookie") == "", "%s %s: %v", method, path, a.header)
					t.check(path != "/admin" && path != "/authorize" || origin == "", "%s %s: %q may read it", method, path, origin)
				}
			}
		}},
		{"TK-16", func(t *trial) {
			a := t.john.grant("prompt", "consent")
			for _, token := range []string{a.str("refresh_token"), a.str("access_token")} {
				b := t.s.post("/revoke", values("token", token, "client_id", t.vars["other"].(string)))
				t.check((b.ok() || b.str("error") == "invalid_grant") && t.s.active(a.str("access_token")), "by another client: %s", b)
			}
			t.check(t.s.post("/revoke", values("token", random(32), "client_id", goodID, "token_type_hint", "refresh_token")).ok(), "an unknown token")
			b := t.s.post("/revoke", values("token", a.str("refresh_token"), "client_id", goodID, "token_type_hint", "access_token"))
			t.check(b.ok() && !t.s.active(a.str("access_token")), "a wrong hint: %s", b)
		}},
		{"TK-17", func(t *trial) {
			token := t.john.grant("prompt", "consent").str("access_token")
			for what, a := range map[string]reply{
				"nobody": t.s.post("/introspect", values("token", token)), "a wrong secret": t.s.post("/introspect", values("token", token), basic(resource, "wrong")),
				"a client": t.s.post("/introspect", values("token", token), basic(goodID, secret)), "a public client": t.s.post("/introspect", values("token", token, "client_id", goodID)),
			} {
				t.check(a.is(401, "invalid_client"), "%s: %s", what, a)
			}
			a := t.s.post("/introspect", values("token", token), basic("https://notes.test/", secret))
			t.check(a.ok() && a.body["active"] == false && len(a.body) == 1, "another resource: %s", a)
			t.check(t.s.active(token), "the token's own resource sees it as inactive")
		}},
		{"TK-18", func(t *trial) {
			codes := []string{t.vars["code"].(string), random(32)} // of one shape: the first is one that exists
			t.timing("codes", 300, func(known bool) reply {
				code := codes[1]
				if known {
					code = codes[0]
				}
				return t.s.post("/token", codeForm(code, "client_id", t.vars["other"].(string)))
			})
			t.still()
		}},
	},
}

// cliBeside redeems codes while another process uses the same database file.
func cliBeside(t *trial) {
	stop := make(chan struct{})
	var beside, failed int
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := t.s.cli("", "user", "list"); err != nil {
					failed++
				}
				beside++
			}
		}
	})
	defer func() {
		close(stop)
		wg.Wait()
		t.check(beside > 3 && failed == 0, "of %d programs beside the server %d failed", beside, failed)
	}()
	t.onceOnly("a code, with another process at the file", 400, "invalid_grant", func() (string, string, []edit) {
		return "/token", codeForm(t.john.codeFor(az())).Encode(), nil
	}, reply.ok)
}
