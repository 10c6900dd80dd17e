package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
)

// variants are inputs of the classes of a group that the catalogue does not list
// (R18): what one who has read our source would try next.
var variants = map[string]func(t *trial){
	"CU": variantsCU, "SD": variantsSD, "FT": variantsFT, "DO": variantsDO, "AZ": variantsAZ, "TK": variantsTK, "RF": variantsRF, "JK": variantsJK,
	"CA": variantsCA, "CN": variantsCN, "DV": variantsDV, "DP": variantsDP, "RS": variantsRS, "DS": variantsDS, "FA": variantsFA,
}

// withVariants appends the row of variants to a group.
func withVariants(g group) group {
	g.rows = append(slices.Clone(g.rows), row{g.name + "-R18", variants[g.name]})
	return g
}

func variantsCU(t *trial) {
	t.noClients(
		"https://good.test/c.json\u2028", "https://good.test/%00", "https://good.test/%0d%0aX", "https://good.test/a//../c.json", "https://good.test/%2E%2E", `https:\\good.test\c.json`,
		"https://good.test:443:443/c.json", "https://good.test:4\uff143/c.json", "https://[good.test]/c.json", "https://good.test%2f@evil.test/c.json", "https://good.test%23/c.json", "https://0x5db8d822/c.json", "https://[::ffff:5db8:d822]/c.json",
		"https://good.test/c.json%", "https://good.test/c.json%zz", "//good.test/c.json", "http\u017f://good.test/c.json", "urn:uuid:4c0f2d2e", "https://mcp.test/mcp", "https://mcp.test/mcp/", "https://MCP.test/mcp", "https://as.test/", issuer,
		"https://good.test:+443/c.json", "https://good.test:443 /c.json", "https://good.test\u200b/c.json", "https://good.test/\u202ec.json", "https://xn--a-ecp.ru./c.json", "blob:https://good.test/c.json", "https://good.test/c.json\x7f",
		"https://good.test/;/../c.json", "https://good.test/%252e%252e/..", "https://999.999.999.999/c.json", "https://1.2.3/c.json", "https://good.test,evil.test/c.json", "https://good.test&@evil.test/c.json",
	)
	h := t.w.host("good.test") // twice encoded is a path like any other: once decoded by us it would be another
	h.client("/%252e%252e/c.json", m{"redirect_uris": []string{redirect}})
	t.asks("twice encoded dots, byte for byte", t.john.visit(az("client_id", "https://good.test/%252e%252e/c.json")))
	t.check(h.count("/%252e%252e/c.json") == 1, "fetched from another path")
}

func variantsSD(t *trial) {
	for _, a := range []string{
		"::7f00:1", "::a9fe:a9fe", "::ffff:0:7f00:1", "64:ff9b:1:7f00:1::", "5f00::1", "100::1", "2001:2::1", "2001:10::1", "3fff::1", "2001:db8:ffff::1", "192.0.0.8", "192.0.0.170", "255.255.255.254", "fe80::a9fe:a9fe", "ff05::2", "fdff:ffff::1", "2002:a00:1::1", "2001:0:a9fe:a9fe::1",
	} {
		name := fresh("variant")
		t.w.dns.set(name, netip.MustParseAddr(a))
		pg := t.fetchFail(a, "https://"+name+"/c.json")
		t.check(pg.status == 502 && t.w.dns.count(name) > 0, "%s: status %d, %d questions", a, pg.status, t.w.dns.count(name))
	}
	lots := fresh("many") // a hundred bad addresses, and one more that is not
	var list []netip.Addr
	for i := range 20 {
		list = append(list, netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}))
	}
	t.w.dns.set(lots, list...)
	t.fetchFail("twenty private addresses", "https://"+lots+"/c.json")
	for _, target := range []string{"127.0.0.1", "as.test", "localhost"} { // an alias in front of an address that is refused
		name := fresh("alias")
		t.named(name, answer{cname: []string{target}, addrs: addrs("127.0.0.1")})
		t.fetchFail("alias of "+target, "https://"+name+"/c.json")
	}
}

func variantsFT(t *trial) {
	const typed = "Content-Type: application/json\r\n"
	raw := func(head string, body func(id string) []byte) func(string) response {
		return func(id string) response { return response{raw: append([]byte(head+"\r\n"), body(id)...)} }
	}
	doc := func(id string) []byte { return documentBytes(id, nil) }
	chunked := func(size string) func(string) []byte {
		return func(id string) []byte { return fmt.Appendf(nil, "%s\r\n%s\r\n0\r\n\r\n", size, doc(id)) }
	}
	for what, answer := range map[string]func(string) response{
		"two media types":              raw("HTTP/1.1 200 OK\r\n"+typed+"Content-Type: text/html\r\n", doc),
		"a charset of UTF-7":           raw("HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-7\r\n", doc),
		"gzip as transfer coding":      raw("HTTP/1.1 200 OK\r\n"+typed+"Transfer-Encoding: gzip, chunked\r\n", chunked("ffff")),
		"a status of four digits":      raw("HTTP/1.1 2000 OK\r\n"+typed, doc),
		"no version":                   raw("200 OK\r\n"+typed, doc),
		"switching protocols":          raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"+typed, doc),
		"a length with a sign":         raw("HTTP/1.1 200 OK\r\n"+typed+"Content-Length: +300\r\n", doc),
		"a length in hexadecimal":      raw("HTTP/1.1 200 OK\r\n"+typed+"Content-Length: 0x12c\r\n", doc),
		"a length beyond all":          raw("HTTP/1.1 200 OK\r\n"+typed+"Content-Length: 99999999999999999999\r\n", doc),
		"a negative chunk":             raw("HTTP/1.1 200 OK\r\n"+typed+"Transfer-Encoding: chunked\r\n", chunked("-1")),
		"a chunk beyond all":           raw("HTTP/1.1 200 OK\r\n"+typed+"Transfer-Encoding: chunked\r\n", chunked("fffffffffffffffff")),
		"no space after a header name": raw("HTTP/1.1 200 OK\r\nContent-Type : application/json\r\n", doc),
		"a NUL in a header":            raw("HTTP/1.1 200 OK\r\n"+typed+"X: a\x00b\r\n", doc),
		"a body of HTML":               raw("HTTP/1.1 200 OK\r\n"+typed+"Connection: close\r\n", func(string) []byte { return []byte("<!doctype html><html>") }),
		"an image that says JSON":      raw("HTTP/1.1 200 OK\r\n"+typed+"Connection: close\r\n", func(string) []byte { return pixels(8, 8) }),
		"UTF-16":                       raw("HTTP/1.1 200 OK\r\n"+typed+"Connection: close\r\n", func(id string) []byte { return wide(string(doc(id))) }),
	} {
		t.badAnswer(what, answer)
	}
}

// wide is a text in UTF-16 with a mark in front.
func wide(s string) []byte {
	out := []byte{0xfe, 0xff}
	for _, b := range []byte(s) {
		out = append(out, 0, b)
	}
	return out
}

func variantsDO(t *trial) {
	t.badDocs(
		uris(`["https://good.test/cb\u0000"]`), uris(`["https://good.test/cb\n"]`), uris(`["http://127.0.0.1:99999/cb"]`), uris(`["http://[::1%25lo]/cb"]`), uris(`["https:/good.test/cb"]`), uris(`["https:///cb"]`), uris(`["//good.test/cb"]`),
		uris(`["https://good.test\\cb"]`), uris(`["http://localhost:80:80/cb"]`), uris(`["http://localhost@127.0.0.1/cb"]`), uris(`["https://good.test/cb",["https://good.test/x"]]`), uris(`[{"uri":"https://good.test/cb"}]`), uris(`["mailto:x@good.test"]`), uris(`["intent://x#Intent;scheme=https;end"]`), uris(`["ws://good.test/cb"]`),
		`"client_id":"SELF\u0000"`, `"client_id":{"id":"SELF"}`, `"client_id":true`, "~GOOD\n\x00", "~\x00GOOD", `~{"client_id":"SELF","redirect_uris":["https://good.test/cb"],"redirect_uris":["https://evil.test/cb"]}`,
		`"jwks":{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB","d":"AQ"}]}`, `"jwks":{"keys":[{"kty":"oct","k":"AQ"}]}`, `"token_endpoint_auth_method":{"none":true}`, `"token_endpoint_auth_method":0`, `"client_secret":""`, `"registration_access_token":{}`, `"grant_types":"authorization_code"`, `"response_types":{"code":true}`,
		"\"client_name\":\"\\udc00\\ud800\"", `"client_id#x":"SELF","client_id":"https://evil.test/"`,
	)
	h := t.w.host(fresh("folded")) // names that fold together are others
	id := h.client("/c.json", m{"Client_Secret": "x", "REDIRECT_URIS": []string{"https://evil.test/cb"}, "token_endpoint_auth_method\u0000": "private_key_jwt"})
	pg := t.john.visit(azOf(id, "redirect_uri", "https://evil.test/cb"))
	t.local("a redirect of a name in capitals", pg, 400)
}

func variantsAZ(t *trial) {
	t.elsewhere(goodID, "https://good.test/cb%00", "https://good.test/cb/.", "https://good.test/./cb", "https://good.test:0443/cb", "https://good.test./cb", "https://good.test/cb%2f", "https:good.test/cb", "https://good.test/cb&redirect_uri=https://evil.test", "\thttps://good.test/cb", "https://good.test/cb\u200b", "https://good.test/c\u0062\u0301", "https:\\\\good.test\\cb", "https://good.test/cb\r\nX: y")
	for _, c := range [][]string{p("prompt", "none login"), p("code_challenge_method", "S256,plain"), p("code_challenge", strings.Repeat("A", 44))} {
		t.back("invalid_request", c...)
	}
	for _, c := range [][]string{p("response_type", "code id_token"), p("response_type", "code code")} {
		t.back("unsupported_response_type", c...)
	}
	for _, name := range []string{"code_challenge", "code_challenge_method", "response_type", "state", "nonce", "client_id", "prompt"} {
		t.local("a NUL in "+name, t.john.visit(az(name, "code\x00")), 400)
	}
	for _, name := range []string{"prompt", "state", "redirect_uri", "scope", "nonce", "response_type", "request"} {
		t.local(name+" twice", t.john.visit(az(name, "x")+"&"+name+"=y"), 400)
	}
	for _, more := range []string{"&max_age=-1", "&max_age=1e9", "&max_age=99999999999999999999", "&prompt=create%00", "&claims={", "&authorization_details={", "&authorization_details=[]%00", "&dpop_jkt=x", "&resource[]=" + url.QueryEscape(resource), "&client_id[]=x", "&%00=x"} {
		pg := t.john.visit(az("prompt", "") + more)
		t.check(pg.status < 500 && (pg.left && strings.HasPrefix(pg.url.String(), redirect+"?") && pg.url.Query().Get("iss") == issuer || !pg.left && (pg.asks() || pg.status == 400 || pg.has("password"))), "%s: %s", more, pg)
	}
}

func variantsTK(t *trial) {
	code := t.vars["code"].(string)
	t.spoiled(400, "unsupported_grant_type", p("grant_type", "AUTHORIZATION_CODE"), p("grant_type", "authorization_code "), p("grant_type", "implicit"))
	t.spoiled(400, "invalid_grant", p("code", code+" "), p("code", strings.ToUpper(code)), p("code", code[:len(code)-1]), p("code", "' OR 1=1--"), p("code", strings.Repeat("c", 5000)), p("code", "\ufeff"+code), p("redirect_uri", redirect+" "), p("redirect_uri", "http://127.0.0.1/cb"))
	t.spoiled(401, "invalid_client", p("client_id", strings.ToUpper(goodID)), p("client_id", goodID+" "), p("client_id", "https://good.test:443/c.json"), p("client_id", goodID+"#"))
	t.spoiled(400, "invalid_request", p("code", code+"\x00"), p("client_id", goodID+"\x00"), p("code_verifier", verifier+"\x00"), p("code_verifier", verifier+"="))
	t.spoiled(400, "invalid_target", p("resource", "https://mcp.test/mcp?x"), p("resource", "https://mcp.test/MCP"), p("resource", "https://mcp.test/%6dcp"))
	a := t.s.postRaw("/token", formType, codeForm(code).Encode()+"&resource="+url.QueryEscape("https://notes.test/"))
	t.check(a.status == 400 && a.str("access_token") == "", "another resource beside the right one: %s", a)
	for what, e := range map[string]edit{
		"X-HTTP-Method-Override": withHeader("X-HTTP-Method-Override", "GET"), "a length that lies": func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, "a wrong scheme": withHeader("Authorization", "Negotiate abc"), "an empty one": withHeader("Authorization", ""),
	} {
		a := t.s.post("/token", codeForm("nonsense"), e)
		t.check(a.err == nil && a.status >= 400 && a.status < 500 && a.str("access_token") == "", "%s: %s", what, a)
	}
	t.still()
}

func variantsRF(t *trial) {
	a := t.john.grant("prompt", "consent")
	token := a.str("refresh_token")
	code := t.john.codeFor(az("prompt", "consent"))
	for what, f := range map[string]url.Values{
		"a space": refreshForm(token + " "), "cut": refreshForm(token[:len(token)-1]), "longer": refreshForm(token + "A"), "in capitals": refreshForm(strings.ToUpper(token)), "a code": refreshForm(code), "an access token": refreshForm(a.str("access_token")), "a NUL": refreshForm(token + "\x00"), "SQL": refreshForm("' OR 1=1--"), "as a code": codeForm(token), "50 kB": refreshForm(strings.Repeat("r", 50_000)),
	} {
		b := t.s.post("/token", f)
		t.check(b.is(400, "invalid_grant") || b.is(400, "invalid_request"), "%s: %s", what, b)
	}
	b := t.s.post("/token", refreshForm(token))
	t.check(b.ok(), "and then the honest one: %s", b)
	c := t.s.post("/token", codeForm(code))
	t.check(c.ok(), "and the code that was tried as one: %s", c)
}

func variantsJK(t *trial) {
	k := t.vars["k"].(*keyed)
	good := k.keys[0]
	claims := func() string { return b64JSON(k.claims(nil)) }
	head := b64JSON(m{"alg": "ES256", "kid": good.kid})
	for what, sig := range map[string][]byte{
		"zeros": make([]byte, 64), "r is the order": append(order(), make([]byte, 32)...), "r and s are the order": append(order(), order()...), "ones": []byte(strings.Repeat("\xff", 64)), "one byte": {1}, "65 bytes": make([]byte, 65), "none": nil, "DER of nothing": {0x30, 6, 2, 1, 0, 2, 1, 0},
	} {
		t.refusedAssertion(k, "a signature of "+what, head+"."+claims()+"."+b64(sig))
	}
	for what, h := range map[string]any{
		"kid a list": m{"alg": "ES256", "kid": []string{good.kid}}, "kid null": m{"alg": "ES256", "kid": nil, "x": 1}, "kid a number": m{"alg": "ES256", "kid": 1}, "alg a list": m{"alg": []string{"ES256"}, "kid": good.kid}, "alg in small letters": m{"alg": "es256", "kid": good.kid}, "alg with a NUL": m{"alg": "ES256\x00", "kid": good.kid}, "a list": []any{"ES256"}, "a string": "ES256", "null": nil,
	} {
		if what == "kid null" {
			t.refusedAssertion(k, what, newKey("ES256").signRaw(b64JSON(h), claims()))
			continue
		}
		t.refusedAssertion(k, what, good.signRaw(b64JSON(h), claims()))
	}
	t.refusedAssertion(k, "another key's kid in small and large letters", newKey("ES256").sign(m{"kid": strings.ToUpper(good.kid)}, k.claims(nil)))
	a := k.auth(k.assert(nil))
	t.check(a.ok(), "and the honest one: %s", a)
}

// order is the order of P-256.
func order() []byte {
	return []byte("\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51")
}

func variantsCA(t *trial) {
	k := t.vars["k"].(*keyed)
	now := t.s.now().Unix()
	for _, c := range []m{
		{"aud": issuer + "\x00"}, {"aud": " " + issuer}, {"aud": issuer + "#"}, {"aud": issuer + "?"}, {"aud": "as.test"}, {"aud": []any{[]string{issuer}}}, {"iss": k.id + "\x00"}, {"iss": k.id + " ", "sub": k.id + " "}, {"sub": m{"x": k.id}}, {"sub": []string{k.id}}, {"exp": uint64(1) << 63}, {"exp": -1 << 62}, {"iat": 1e18}, {"nbf": 1e300}, {"exp": []int64{now + 60}}, {"exp": m{}}, {"jti": m{}}, {"jti": true}, {"iat": "now"}, {"nbf": fmt.Sprint(now)},
	} {
		t.refusedAssertion(k, compact(c), k.assert(c))
	}
	for what, pairs := range map[string][]string{
		"another type": {"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}, "no type": {"client_assertion_type", ""}, "the type in capitals": {"client_assertion_type", strings.ToUpper(assertionType)}, "no assertion": {"client_assertion", ""}, "and a secret": {"client_secret", "x"},
	} {
		a := t.s.post("/revoke", change(values(with(k.assert(nil), "token", "x")...), pairs))
		t.check(a.is(401, "invalid_client") || a.is(400, "invalid_request"), "%s: %s", what, a)
	}
	twice := values(with(k.assert(nil), "token", "x")...).Encode() + "&client_assertion=" + k.assert(nil)
	t.check(t.s.postRaw("/revoke", formType, twice).is(400, "invalid_request"), "two assertions")
	a := t.s.postRaw("/revoke?"+values(with(k.assert(nil))...).Encode(), formType, "token=x")
	t.check(a.status >= 400 && a.status < 500, "an assertion in the query: %s", a)
	one := k.assert(nil)
	for _, path := range []string{"/revoke", "/par", "/introspect"} { // used at one endpoint, it is used at all
		b := t.s.post(path, values(with(one, "token", "x")...))
		t.check(path == "/revoke" && b.ok() || path != "/revoke" && b.is(401, "invalid_client"), "the same at %s: %s", path, b)
	}
}

func variantsCN(t *trial) {
	t.john = t.s.signedIn("john") // the rows before took hours
	mia := t.s.newUser("mia")     // whoever signed in before the rows that move the clock may be signed out
	pg := mia.visit(az("prompt", "consent"))
	f := pg.must("decision").with("decision", "allow")
	post := func(typ, body string, edits ...edit) reply {
		all := append([]edit{withHeader("Cookie", mia.cookies()), withHeader("Origin", issuer), withHeader("Sec-Fetch-Site", "same-origin")}, edits...)
		return t.s.postRaw(f.action.Path, typ, body, all...)
	}
	bad := func(what string, a reply) {
		t.check(a.err == nil && a.status >= 400 && a.status < 500 && !strings.Contains(a.header.Get("Location"), "code="), "%s: %s", what, a)
	}
	good := f.values.Encode()
	bad("text/plain", post("text/plain", good))
	bad("JSON", post("application/json", compact(f.values)))
	bad("multipart", post("multipart/form-data; boundary=x", good))
	bad("no media type", post("", good))
	bad("in the query", post(formType+"", "", func(r *http.Request) { r.URL.RawQuery = good }))
	bad("two decisions", post(formType, good+"&decision=deny"))
	bad("two transactions", post(formType, good+"&transaction=x"))
	bad("another site by its fetch metadata", post(formType, good, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site"); r.Header.Del("Origin") }))
	bad("a sibling by its fetch metadata", post(formType, good, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site"); r.Header.Del("Origin") }))
	for _, origin := range []string{"https://as.test.evil.test", "https://evil.test/https://as.test", "HTTPS://evil.test", "https://as.test@evil.test", "chrome-extension://abc", "file://"} {
		bad("from "+origin, post(formType, good, func(r *http.Request) { r.Header.Set("Origin", origin); r.Header.Set("Sec-Fetch-Site", "cross-site") }))
	}
	a := t.s.get(f.action.Path+"?"+good, withHeader("Cookie", mia.cookies()), withHeader("Sec-Fetch-Site", "same-origin"))
	t.check(a.err == nil && !strings.Contains(a.header.Get("Location"), "code="), "GET: %s", a)
	bad("without a session", post(formType, good, func(r *http.Request) { r.Header.Del("Cookie") }))
	bad("two sessions", post(formType, good, func(r *http.Request) { r.Header.Set("Cookie", mia.cookies()+"; "+sessionCookie+"=x") }))
	back := mia.send(f)
	t.check(back.code() != "", "and then the honest answer: %s", back)
}

func variantsDV(t *trial) {
	d := t.device()
	t.approved(d)
	for what, f := range map[string]url.Values{
		"the user code as device code": pollForm(device{id: d.id, code: d.user}), "as an authorization code": codeForm(d.code, "client_id", d.id), "as a refresh token": refreshForm(d.code, "client_id", d.id), "in capitals": pollForm(device{id: d.id, code: strings.ToUpper(d.code)}), "a NUL": pollForm(device{id: d.id, code: d.code + "\x00"}), "none": pollForm(device{id: d.id}),
	} {
		a := t.s.post("/token", f)
		t.check(a.status == 400 && a.str("access_token") == "" && a.str("error") != "authorization_pending", "%s: %s", what, a)
	}
	a := t.s.poll(d, "resource", "https://notes.test/")
	t.check(a.str("access_token") == "" && a.status == 400, "another resource: %s", a)
	for what, f := range map[string]url.Values{
		"a scope nobody has": values("client_id", d.id, "scope", "nothing", "resource", resource), "another server's resource": values("client_id", d.id, "scope", "mcp:read", "resource", "https://evil.test/"), "no client": values("scope", "mcp:read"), "a redirect": values("client_id", goodID, "redirect_uri", redirect),
	} {
		b := t.s.post("/device_authorization", f)
		t.check((b.status == 400 || b.status == 401) && b.str("device_code") == "", "%s: %s", what, b)
	}
	zed := t.s.newUser("zed")
	for _, code := range []string{"' OR 1=1--", strings.Repeat("B", 10_000), "\x00", "%00", "<script>", "\u202eBBBB", "BBBB-BBBB\nBBBB"} {
		pg, err := zed.trySend(zed.visit(issuer+"/device").must("user_code").with("user_code", code))
		t.check(err == nil && !pg.left && pg.status < 500 && !pg.has("started") && !strings.Contains(pg.body, "<script"), "%.20q: %v %v", code, pg, err)
	}
	t.s.later(d.interval * 20)
	a = t.s.poll(d)
	t.check(a.ok(), "and then the device: %s", a)
}

func variantsDP(t *trial) {
	k := newKey("ES256")
	code := t.john.codeFor(az())
	one := func(head, change m) string { return t.proof(k, "POST", issuer+"/token", head, change) }
	off := k.jwk(m{"kid": nil, "alg": nil, "use": nil})
	off["x"] = off["y"]
	for what, proof := range map[string]string{
		"htu with user information": one(nil, m{"htu": "https://as.test@evil.test/token"}), "htu with an escape": one(nil, m{"htu": issuer + "/token%2f"}), "htu below": one(nil, m{"htu": issuer + "/token/x"}), "htu relative": one(nil, m{"htu": "/token"}), "htu a list": one(nil, m{"htu": []string{issuer + "/token"}}), "htm a list": one(nil, m{"htm": []string{"POST"}}),
		"a point off the curve": one(m{"jwk": off}, nil), "the key of another kind": one(m{"jwk": newKey("EdDSA").jwk(m{"kid": nil, "alg": nil, "use": nil})}, nil), "no key": one(m{"jwk": nil}, nil), "the key by URL": one(m{"jwk": nil, "jku": "https://evil.test/jwks.json"}, nil), "the key by kid": one(m{"jwk": nil, "kid": "k1"}, nil), "crit": one(m{"crit": []string{"x"}, "x": 1}, nil),
		"iat a string": one(nil, m{"iat": fmt.Sprint(t.s.now().Unix())}), "iat beyond all": one(nil, m{"iat": 1e300}), "jti empty": one(nil, m{"jti": ""}), "jti a number": one(nil, m{"jti": 1}), "jti of 10 kB": one(nil, m{"jti": strings.Repeat("j", 10<<10)}), "no typ": one(m{"typ": nil}, nil), "two in one header": one(nil, nil) + ", " + one(nil, nil), "zeros as signature": strings.Join(strings.Split(one(nil, nil), ".")[:2], ".") + "." + b64(make([]byte, 64)),
		"HS256 with the key in it": func() string {
			now := t.s.now().Unix()
			return hmacked(m{"jti": random(8), "htm": "POST", "htu": issuer + "/token", "iat": now}, []byte("secret"), m{"typ": "dpop+jwt", "jwk": m{"kty": "oct", "k": b64([]byte("secret"))}})
		}(),
	} {
		a := t.s.post("/token", codeForm(code), withHeader("DPoP", proof))
		t.check(a.is(400, "invalid_dpop_proof"), "%s: %s", what, a)
	}
	a := t.s.post("/token", codeForm(code), t.tokenProof(k))
	t.check(a.ok(), "and then the honest one: %s", a)
	b := t.s.post("/token", refreshForm(a.str("refresh_token")), withHeader("DPoP", t.proof(k, "POST", issuer+"/token", nil, m{"ath": hashOf("another")})))
	t.check(b.ok() || b.is(400, "invalid_dpop_proof"), "an ath that is not asked for: %s", b)
}

func variantsRS(t *trial) {
	g, a := t.vars["guard"].(*protected), t.vars["a"].(*foreign)
	at := t.s.now().Add(g.offset - t.s.offset)
	token := a.token(at, nil, nil)
	before := g.created()
	for what, body := range map[string]string{
		"a slash in disguise": strings.ReplaceAll(writeCall, "tools/call", `tools\/call`), "a letter in disguise": strings.ReplaceAll(writeCall, "tools/call", `\u0074ools/call`), "a name in disguise": strings.ReplaceAll(writeCall, `"method"`, `"\u006dethod"`), "params in disguise": strings.ReplaceAll(writeCall, `"params"`, `"par\u0061ms"`), "a notification": strings.ReplaceAll(writeCall, `"id":2,`, ``), "id null": strings.ReplaceAll(writeCall, `"id":2`, `"id":null`), "a space behind the method": strings.ReplaceAll(writeCall, "tools/call", "tools/call "), "the method in capitals": strings.ReplaceAll(writeCall, "tools/call", "TOOLS/CALL"),
		"params as a list": strings.ReplaceAll(writeCall, `{"name":"create","arguments":{"title":"x"}}`, `["create",{"title":"x"}]`), "UTF-16": string(wide(writeCall)), "a batch in a batch": "[[" + writeCall + "]]", "an empty batch and more": "[]" + writeCall, "line feeds": strings.ReplaceAll(writeCall, ":", "\n:\n"), "a form feed": "\f" + writeCall, "two lines": readCall + "\n" + writeCall, "a response that is a call": strings.ReplaceAll(writeCall, `"id":2`, `"id":2,"result":{}`),
	} {
		r := g.call(token, body)
		t.check(r.err == nil && r.status < 500, "%s: %s", what, r)
		t.check(g.created() == before, "%s: the tool ran: %s", what, r)
		before = g.created()
	}
	for what, e := range map[string]edit{
		"text/plain": func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, "no media type": func(r *http.Request) { r.Header.Del("Content-Type") }, "a query": func(r *http.Request) { r.URL.RawQuery = "method=tools/list" }, "an override": withHeader("X-HTTP-Method-Override", "GET"), "another path": func(r *http.Request) { r.URL.Path = "/mcp/../mcp" }, "a second body": withHeader("Mcp-Method", "tools/list"), "a batch header": withHeader("Mcp-Name", "search"),
	} {
		r := g.call(token, writeCall, e)
		t.check(r.err == nil && r.status >= 300 && r.status < 500 && g.created() == before, "%s: %s", what, r)
	}
	for _, c := range []m{{"scope": "mcp:read\x00mcp:write"}, {"scope": "mcp:readmcp:write"}, {"scope": "mcp:read,mcp:write"}, {"scope": "MCP:WRITE"}, {"scope": "mcp:*"}, {"scope": m{"mcp:write": true}}, {"scope": nil, "scopes": "mcp:write"}} {
		r := g.call(a.token(at, nil, c), writeCall)
		t.check((r.status == 403 || r.status == 401) && g.created() == before, "%s: %s", compact(c), r)
	}
	t.refusedToken("aud in a list in a list", a.token(at, nil, m{"aud": []any{[]string{resource}}}))
	t.refusedToken("cnf that nobody proves", a.token(at, nil, m{"cnf": m{"jkt": newKey("ES256").thumbprint()}}))
	t.refusedToken("zeros as signature", strings.Join(strings.Split(token, ".")[:2], ".")+"."+b64(make([]byte, 64)))
	r := g.call(a.token(at, nil, nil), readCall)
	t.check(r.ok(), "and the honest call: %s", r)
}

func variantsDS(t *trial) {
	// One address that says it is many: nobody named a proxy, so that nobody is believed.
	p := t.s.person()
	slowed := 0
	for i := range 60 {
		f := p.visit(issuer+"/login").must("password").with("username", fmt.Sprintf("many%d", i)).with("password", "wrong")
		req, _ := http.NewRequest(http.MethodPost, f.action.String(), strings.NewReader(f.values.Encode()))
		for name, v := range map[string]string{"Content-Type": formType, "Origin": issuer, "X-Forwarded-For": fmt.Sprintf("11.0.%d.1", i), "X-Real-Ip": fmt.Sprintf("11.1.%d.1", i), "Forwarded": fmt.Sprintf("for=11.2.%d.1", i), "True-Client-Ip": fmt.Sprintf("11.3.%d.1", i)} {
			req.Header.Set(name, v)
		}
		if pg, err := p.follow(req, "same-origin"); err == nil && pg.status == 429 {
			slowed++
		}
	}
	t.check(slowed > 20, "of 60 wrong passwords of one address under many names %d were held back", slowed)
	form := values("client_id", goodID, "redirect_uri", redirect, "response_type", "code", "scope", "mcp:read", "resource", resource, "code_challenge", challenge, "code_challenge_method", "S256", "state", "s")
	got := t.flood(flood{n: 300, hands: 1, request: func(i int) []byte {
		return []byte(strings.Replace(string(wirePost("/par", form)), "\r\n", fmt.Sprintf("\r\nX-Forwarded-For: 12.0.%d.%d\r\n", i/250, i%250), 1))
	}})
	t.check(got["429"] > 100 && got.only(300, "201", "429"), "300 pushed requests of one address under many names: %v", got)
	// Names of one site, in costumes: capitals, a port, deep below it.
	h := t.swarm(".costume.test", 0)
	t.s.later(3 * 60e9)
	cookies := t.john.cookies()
	got = t.flood(flood{n: 400, hands: 4, request: func(i int) []byte {
		id := []string{"https://a%d.costume.test/c.json", "https://A%d.Costume.test/c.json", "https://x.y.z.a%d.costume.test/c.json", "https://a%d.costume.test:443/c.json"}[i%4]
		return wireGet(azOf(fmt.Sprintf(id, i)), cookies)
	}})
	t.check(h.connections() > 20 && h.connections() <= 130 && got.only(400, "200", "503", "400", "502"), "%d fetches below one domain in costumes: %v", h.connections(), got)
}

func variantsFA(t *trial) {
	// A configuration with a mistake, read again while people come: nothing changes.
	for _, broken := range []string{"policy: {default: yes please}", "policy: {", "\x00", "issuer: https://evil.test\npolicy: {default: allow}"} {
		seen := strings.Count(t.s.output(), "reload refused")
		if err := t.s.reconfigure("policy: {default: allow}", broken); err != nil {
			t.fatal("%v", err)
		}
		t.s.signal(syscall.SIGHUP)
		t.check(within(3e9, func() bool { return strings.Count(t.s.output(), "reload refused") > seen }), "%.30q was not refused: %s", broken, tail(t.s.output(), 300))
		t.check(t.s.get("/.well-known/oauth-authorization-server").str("issuer") == issuer, "%.30q changed the issuer", broken)
		a := t.s.post("/token", codeForm(t.john.codeFor(az("prompt", "consent"))))
		t.check(a.ok(), "%.30q: an honest flow: %s", broken, a)
		if err := t.s.reconfigure(broken, "policy: {default: allow}"); err != nil {
			t.fatal("%v", err)
		}
	}
}
