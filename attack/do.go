package main

import (
	"fmt"
	"strings"
	"time"
)

// docs wants each text refused as a document: local, one request, nothing kept.
// GOOD stands for a good document, SELF for its client_id; a text that does not
// begin with ~ replaces or adds one member.
func docs(id string, texts ...string) row {
	return row{id, func(t *trial) { t.badDocs(texts...) }}
}

func (t *trial) badDocs(texts ...string) {
	for _, text := range texts {
		h := t.w.host(fresh("do"))
		self := h.url("/c.json")
		body := string(documentBytes(self, nil))
		if whole, ok := strings.CutPrefix(text, "~"); ok {
			body = strings.ReplaceAll(whole, "GOOD", body)
		} else {
			name, _, _ := strings.Cut(text[1:], `"`)
			body = string(documentBytes(self, m{name: nil}))
			body = body[:len(body)-1] + "," + text + "}"
		}
		body = strings.ReplaceAll(body, "SELF", self)
		h.put("/c.json", answered([]byte(body), "Cache-Control", "max-age=86400"))
		what := fmt.Sprintf("%.60q", text)
		pg := t.john.visit(azOf(self))
		t.local(what, pg, 400)
		t.check(strings.Contains(pg.text(), "describes itself"), "%s: refused, but not for the document: %s", what, pg)
		t.check(h.count("*") == 1, "%s: %d requests", what, h.count("*"))
		t.check(pg.took < time.Second, "%s: it took %v", what, pg.took)
		for _, scheme := range []string{"javascript:", "vbscript:", "data:text", "blob:"} {
			t.check(!strings.Contains(pg.body, `href="`+scheme), "%s: the page links to %s", what, scheme)
		}
	}
}

func uris(list string) string { return `"redirect_uris":` + list }

func many(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"https://x.test/%d"`, i)
	}
	return strings.Join(list, ",")
}

// tolerated wants a document with more than we need to work, and to give the
// client nothing more.
func (t *trial) tolerated(what string, change m) reply {
	id := t.w.host(fresh("tolerated")).client("/c.json", change)
	a := t.john.grantOf(id)
	t.check(a.str("scope") == "mcp:read", "%s: %s", what, a)
	t.local(what+": a redirect elsewhere", t.john.visit(azOf(id, "redirect_uri", "https://evil.test/cb")), 400)
	return a
}

var groupDO = group{name: "DO", rows: []row{
	docs("DO-01", `"client_id":"https://good.test/other.json"`, `"client_id":"SELF/"`, `"client_id":"SELF?"`),
	docs("DO-02", `~{"redirect_uris":["https://good.test/cb"]}`, `"client_id":1`, `"client_id":["SELF"]`, `"client_id":null`, `"client_id":""`),
	docs("DO-03", `~{"client_id":"SELF","client_id":"https://evil.test/c.json","redirect_uris":["https://good.test/cb"]}`, `~{"client_id":"https://evil.test/c.json","client_id":"SELF","redirect_uris":["https://good.test/cb"]}`,
		`~{"client_id":"SELF","redirect_uris":["https://good.test/cb"],"x":{"a":1,"a":2}}`, `~{"client_id":"SELF","client_\u0069d":"SELF","redirect_uris":["https://good.test/cb"]}`),
	{"DO-04", func(t *trial) {
		t.tolerated("CLIENT_ID", m{"CLIENT_ID": "https://evil.test/x", "Redirect_URIs": []string{"https://evil.test/cb"}})
		t.badDocs(`~{"CLIENT_ID":"SELF","redirect_uris":["https://good.test/cb"]}`)
	}},
	docs("DO-06", `~GOOD{"b":2}`, `~GOODGOOD`, "~\ufeffGOOD", "~// x\nGOOD", `~{"client_id":"SELF","redirect_uris":["https://good.test/cb",]}`, `~{'client_id':'SELF'}`, `~{"client_id":"SELF","redirect_uris":["https://good.test/cb"],"x":NaN}`, "~GOOD\x00", "~GOOD,"),
	docs("DO-07", "\"client_name\":\"a\xffb\"", `"client_name":"\ud800"`, `"client_name":"\u0000"`, "\"x\":\"\xc0\x80\"", "\"\xff\":1"),
	{"DO-08", func(t *trial) {
		t.badDocs(`"x":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000), `"x":1e400`, `"x":`+strings.Repeat("9", 4000))
		for _, body := range []string{`"` + strings.Repeat(`\n`, 5000) + `"`, strings.Repeat("[", 10_000), strings.Repeat(`{"a":`, 1000)} {
			h := t.w.host(fresh("deep"))
			h.put("/c.json", answered([]byte(strings.Replace(string(documentBytes(h.url("/c.json"), m{"x": "X"})), `"X"`, body, 1))))
			pg := t.john.visit(azOf(h.url("/c.json")))
			t.local(body[:20], pg, 400, 502)
			t.check(pg.took < time.Second, "it took %v", pg.took)
		}
	}},
	docs("DO-09", `~[]`, `~"SELF"`, `~null`, `~1`, `~`, `~true`),
	docs("DO-10", `~{"client_id":"SELF","client_name":"x"}`, uris(`[]`), uris(`null`), uris(`"https://good.test/cb"`), uris(`[null]`), uris(`[1]`), uris(`[""]`), uris(`{}`)),
	docs("DO-11", uris(`["http://good.test/cb"]`), uris(`["https://good.test/cb","http://93.184.216.34/cb"]`)),
	docs("DO-12", uris(`["javascript:alert(1)"]`), uris(`["https://good.test/cb","data:text/html,x"]`), uris(`["vbscript:x"]`), uris(`["blob:x"]`), uris(`["file:///x"]`), uris(`["about:blank"]`), uris(`["view-source:https://x"]`), uris(`["JavaScript:alert(1)"]`), uris(`[" javascript:alert(1)"]`), uris(`["java\tscript:alert(1)"]`)),
	docs("DO-14", uris(`["https://good.test/cb#f"]`), uris(`["https://good.test/cb#"]`), uris(`["https://u:p@good.test/cb"]`), uris(`["https://*.good.test/cb"]`), uris(`["https://good.test/../cb"]`), uris(`["https://good.test/%2e%2e/cb"]`)),
	docs("DO-15", uris(`["http://localhost:80@evil.test/cb"]`), uris(`["http://127.0.0.1:80@evil.test/cb"]`), uris(`["http://localhost\\@evil.test/cb"]`)),
	docs("DO-16", uris(`["http://127.0.0.1.evil.test/cb"]`), uris(`["http://localhost.evil.test/cb"]`), uris(`["http://[::ffff:127.0.0.1]/cb"]`), uris(`["http://0x7f.1/cb"]`), uris(`["http://127.1/cb"]`), uris(`["http://2130706433/cb"]`), uris(`["http://localhost./cb"]`), uris(`["http://0.0.0.0/cb"]`)),
	{"DO-17", func(t *trial) {
		h := t.w.host(fresh("origin"))
		id := h.client("/c.json", m{"redirect_uris": []string{h.url("/cb"), redirect}})
		pg := t.john.visit(azOf(id, "redirect_uri", redirect)) // the default policy of the product shows where the answer goes
		t.asks("another origin", pg)
		t.check(strings.Contains(pg.text(), "The answer goes to good.test"), "the destination is not named: %s", pg)
		s := t.another(options{changes: []string{"policy: {default: allow}", "policy: {default: deny, rules: [{host: '" + h.name + "', action: allow, same_host: true}, {host: good.test, action: allow}]}"}})
		t.at(s, func(p *person) {
			t.local("with same_host", p.visit(azOf(id, "redirect_uri", redirect)), 403)
			t.asks("an honest client", p.visit(az()))
		})
	}},
	{"DO-19", func(t *trial) {
		t.badDocs(uris(`[` + many(101) + `]`))
		odd := m{}
		for i := range 30 {
			odd[fmt.Sprintf("m%d", i)] = i
			odd[fmt.Sprintf("client_name#de-x-l%d", i)] = "x"
		}
		t.tolerated("60 members that nobody knows", odd)
		for i := range 200 {
			odd[fmt.Sprintf("n%d", i)] = i
		}
		pg := t.john.visit(azOf(t.w.host(fresh("members")).client("/c.json", odd)))
		t.local("260 members", pg, 400, 502)
		h := t.w.host(fresh("contacts"))
		h.put("/c.json", jsonResponse(document(h.url("/c.json"), m{"contacts": strings.Split(strings.Repeat("a@b.test ", 1000), " ")})))
		t.local("1,000 contacts", t.john.visit(azOf(h.url("/c.json"))), 400, 502)
	}},
	docs("DO-20", `"token_endpoint_auth_method":"client_secret_basic"`, `"token_endpoint_auth_method":"client_secret_post"`, `"token_endpoint_auth_method":"client_secret_jwt"`),
	{"DO-21", func(t *trial) {
		t.badDocs(`"token_endpoint_auth_method":"Client_Secret_Basic"`, `"token_endpoint_auth_method":""`, `"token_endpoint_auth_method":null`, `"token_endpoint_auth_method":["none"]`, `"token_endpoint_auth_methods_supported":["none","client_secret_basic"]`)
		for _, method := range []string{" none", "None", "foo", "tls_client_auth", "self_signed_tls_client_auth", "none "} {
			pg := t.john.visit(azOf(t.w.host(fresh("method")).client("/c.json", m{"token_endpoint_auth_method": method})))
			t.check(!pg.left && pg.status == 400 && !pg.has("decision"), "%q: %s", method, pg)
		}
	}},
	docs("DO-22", `"client_secret":"x"`, `"client_secret":null`, `"client_secret_expires_at":0`, `"client_secret_expires_at":null`, `"registration_access_token":"x"`, `"registration_access_token":null`),
	{"DO-23", func(t *trial) {
		set := newKey("ES256").jwk(nil)
		for _, method := range []string{"none", "private_key_jwt"} {
			t.badDocs(`~{"client_id":"SELF","redirect_uris":["https://good.test/cb"],"token_endpoint_auth_method":"` + method + `","jwks":` + compact(m{"keys": []any{set}}) + `,"jwks_uri":"https://good.test/j"}`)
		}
	}},
	{"DO-24", func(t *trial) {
		grants := []string{"authorization_code", "refresh_token", "implicit", "password", "urn:ietf:params:oauth:grant-type:token-exchange", "client_credentials"}
		id := t.w.host(fresh("grants")).client("/c.json", m{"grant_types": grants, "response_types": []string{"code", "token", "code token", "id_token"}})
		t.john.grantOf(id)
		for _, g := range grants[2:] {
			a := t.s.post("/token", values("grant_type", g, "client_id", id, "username", "john", "password", password, "scope", "mcp:read", "resource", resource, "subject_token", "x", "subject_token_type", "urn:ietf:params:oauth:token-type:access_token"))
			t.check(a.status >= 400 && a.status < 500 && a.str("access_token") == "" && a.str("error") != "", "%s: %s", g, a)
		}
		for _, r := range []string{"token", "code token", "id_token"} {
			pg := t.john.visit(azOf(id, "response_type", r))
			t.check(pg.left && pg.url.Query().Get("error") == "unsupported_response_type" && !strings.Contains(pg.url.String(), "access_token"), "%s: %s", r, pg)
		}
	}},
	{"DO-25", func(t *trial) {
		for _, name := range []string{"<script>alert(1)</script>", "</title><img src=x onerror=alert(1)>", "{{.}}", "${7*7}", `"><b>x`, "<!--", "{{printf \"%s\" .}}"} {
			id := t.w.host(fresh("name")).client("/c.json", m{"client_name": name})
			pg := t.john.visit(azOf(id))
			t.asks(name, pg)
			t.check(!strings.Contains(pg.body, "<script") && !strings.Contains(pg.body, "<img src=x") && !strings.Contains(pg.body, `"><b>`) && strings.Contains(pg.text(), "“ "+strings.Join(strings.Fields(name), " ")+" ”"), "%s is not text: %s", name, pg)
			csp := pg.header.Get("Content-Security-Policy")
			t.check(strings.Contains(csp, "default-src 'none'") && !strings.Contains(csp, "unsafe") && !strings.Contains(csp, "script-src"), "the policy is %q", csp)
		}
	}},
	{"DO-27", func(t *trial) {
		h := t.w.host(fresh("famous"))
		pg := t.john.visit(azOf(h.client("/c.json", m{"client_name": "Google", "logo_uri": "https://good.test/google.png"})))
		t.asks("a famous name", pg)
		text := pg.text()
		at, name := strings.Index(text, h.name), strings.Index(text, "Google")
		t.check(at >= 0 && name > at && strings.Contains(text, "calls itself"), "the name stands before the host: %s", text)
	}},
	{"DO-28", func(t *trial) {
		id := t.w.host(fresh("scope")).client("/c.json", m{"scope": "mcp:read admin:*"})
		a := t.john.grantOf(id, "scope", "mcp:read mcp:write admin:*")
		t.check(a.str("scope") == "mcp:read", "granted %s", a)
	}},
	{"DO-29", func(t *trial) {
		h := t.w.host(fresh("fickle"))
		id := h.client("/c.json", nil, "Cache-Control", "max-age=60")
		code := t.john.codeFor(azOf(id))
		h.client("/c.json", m{"redirect_uris": []string{"https://evil.test/cb"}}, "Cache-Control", "max-age=60")
		f := func(to string) reply { return t.s.post("/token", codeForm(code, "client_id", id, "redirect_uri", to)) }
		t.check(f("https://evil.test/cb").is(400, "invalid_grant"), "the new redirect URI: %s", f("https://evil.test/cb"))
		a := f(h.url("/cb"))
		t.check(a.ok(), "the old one: %s", a)
		pg := t.john.visit(azOf(id, "prompt", "consent"))
		t.s.later(2 * time.Minute)
		if pg.asks() {
			back := t.john.answer(pg, "allow")
			t.check(!back.left, "the answer goes to an address that the document no longer has: %s", back)
		}
	}},
	{"DO-30", func(t *trial) {
		k := t.keyed(fresh("downgrade"), nil, "ES256")
		code := k.codeOf(t.john)
		k.host.client("/c.json", nil) // method none
		redeem := func(code string) reply {
			return t.s.post("/token", codeForm(code, "client_id", k.id, "redirect_uri", k.host.url("/cb")))
		}
		a := redeem(code)
		t.check(a.is(401, "invalid_client"), "without the key: %s", a)
		t.s.later(2 * time.Hour)
		pg := t.john.visit(azOf(k.id))
		t.asks("after the change", pg)
		t.check(redeem(code).str("access_token") == "", "the old code is good after the change")
		if b := redeem(t.john.answer(pg, "allow").code()); !b.ok() {
			t.check(false, "after a new consent: %s", b)
		}
	}},
}}
