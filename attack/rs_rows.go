package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

var groupRS = group{
	name: "RS",
	options: options{changes: []string{"policy: {default: allow}", `  - id: https://issues.test/mcp
    name: Issues
    default_scopes: [issues:read]
    scopes:
      - {name: "issues:read", title: read issues, description: Reads., tools: [list_issues]}
      - {name: "issues:write", title: write issues, description: Writes., tools: [create_issue], implies: ["issues:read"]}
policy: {default: allow}`}},
	prepare: func(e *env) {
		t := &trial{env: e}
		a, b := t.foreign("issuer-a.test"), t.foreign("issuer-b.test")
		e.w.dns.set("as.test", addrs(asAddr)[0])
		e.w.canary.allow(asAddr, 443) // the guarded server asks for keys
		g := e.w.protect(absolute("out/guard"), mcpAddr+":8081", "/mcp", 0, "-resource", resource, "-issuers", "https://issuer-a.test,https://issuer-b.test,"+issuer)
		e.vars["guard"], e.vars["a"], e.vars["b"] = g, a, b
		for what, token := range map[string]string{"A": a.token(time.Now(), nil, nil), "B": b.token(time.Now(), nil, nil), "the server": e.john.grant("prompt", "consent").str("access_token")} {
			if r := g.call(token, readCall); !r.ok() {
				panic(stop{"a good token of " + what + " at the guard: " + r.String() + g.log.String()})
			}
		}
	},
	rows: []row{
		{"RS-01", func(t *trial) {
			a := t.vars["a"].(*foreign)
			for _, aud := range []any{"https://other.test/mcp", nil, goodID, "https://mcp.test", "https://mcp.test/mcp/", "https://mcp.test/mc", "https://mcp.test/mcp/x", []string{}, []string{"https://other.test/mcp"}, "", "https://MCP.test/mcp", 1, m{"x": resource}, "*"} {
				t.refusedToken(fmt.Sprintf("aud %v", aud), a.token(time.Now(), nil, m{"aud": aud}))
			}
			t.refusedToken("a token of the server for another resource", t.john.grant("prompt", "consent", "resource", "https://issues.test/mcp", "scope", "issues:read").str("access_token"))
		}},
		{"RS-03", func(t *trial) {
			a, b := t.vars["a"].(*foreign), t.vars["b"].(*foreign)
			for _, iss := range []any{"https://evil.test", "https://issuer-a.test/", "https://ISSUER-A.test", nil, "", "http://issuer-a.test", []string{"https://issuer-a.test"}} {
				t.refusedToken(fmt.Sprintf("iss %v", iss), a.token(time.Now(), nil, m{"iss": iss}))
			}
			evil := foreign{a.host, &key{alg: "ES256", kid: a.key.kid, ec: b.key.ec}} // B's key under A's kid
			t.refusedToken("A's name, B's key, A's kid", evil.token(time.Now(), nil, nil))
			evil = foreign{a.host, b.key}
			t.refusedToken("A's name, B's key, B's kid", evil.token(time.Now(), nil, nil))
		}},
		{"RS-04", func(t *trial) {
			a, now := t.vars["a"].(*foreign), time.Now().Unix()
			for _, c := range []m{{"exp": now - 1}, {"exp": now - 3600}, {"nbf": now + 600}, {"iat": now + 600}, {"exp": nil}, {"exp": fmt.Sprint(now + 300)}, {"exp": 1e300}, {"exp": -1}, {"sub": nil}, {"exp": true}} {
				t.refusedToken(compact(c), a.token(time.Now(), nil, c))
			}
		}},
		{"RS-05", func(t *trial) {
			a, g := t.vars["a"].(*foreign), t.vars["guard"].(*protected)
			g.later(31 * time.Second)
			before := a.host.count("/jwks")
			evil := newKey("ES256")
			n := max(t.w.rounds*5, 200)
			for range n {
				evil.kid = random(8)
				f := foreign{a.host, evil}
				if r := g.call(f.token(time.Now().Add(g.offset), nil, nil), readCall); r.status != 401 && r.status != 503 {
					t.check(false, "an unknown kid: %s", r)
					break
				}
			}
			t.check(a.host.count("/jwks")-before == 1, "%d fetches for %d unknown kids, one is right", a.host.count("/jwks")-before, n)
			r := g.call(a.token(time.Now().Add(g.offset), nil, nil), readCall)
			t.check(r.ok(), "an honest call: %s", r)
		}},
		{"RS-07", func(t *trial) {
			a := t.vars["a"].(*foreign)
			g := t.vars["guard"].(*protected)
			at := time.Now().Add(g.offset)
			parts := strings.Split(a.token(at, nil, nil), ".")
			for _, alg := range []string{"none", "None", ""} {
				t.refusedToken("alg "+alg, b64JSON(m{"alg": alg, "typ": "at+jwt", "kid": a.key.kid})+"."+parts[1]+".")
			}
			claims := m{"iss": "https://issuer-a.test", "sub": "u1", "aud": resource, "scope": "mcp:read", "iat": at.Unix(), "exp": at.Unix() + 300}
			t.refusedToken("HS256 with the public key", hmacked(claims, []byte(compact(a.key.jwk(nil))), m{"typ": "at+jwt", "kid": a.key.kid}))
			t.refusedToken("RS512", a.token(at, m{"alg": "RS512"}, nil))
			t.refusedToken("crit", a.token(at, m{"crit": []string{"x"}, "x": 1}, nil))
			t.refusedToken("jwk in the header", foreignWith(a, newKey("ES256")).token(at, m{"jwk": newKey("ES256").jwk(nil)}, nil))
		}},
		{"RS-08", func(t *trial) {
			a, g := t.vars["a"].(*foreign), t.vars["guard"].(*protected)
			at := time.Now().Add(g.offset)
			for _, typ := range []any{"JWT", nil, "id_token", "dpop+jwt", "", "token-introspection+jwt", "logout+jwt"} {
				t.refusedToken(fmt.Sprintf("typ %v", typ), a.token(at, m{"typ": typ}, nil))
			}
			t.refusedToken("at+jwt with a nonce", a.token(at, nil, m{"nonce": "x"}))
			b := t.john.grant("prompt", "consent", "scope", "mcp:read openid")
			t.refusedToken("a refresh token", b.str("refresh_token"))
			if id := b.str("id_token"); id != "" {
				t.refusedToken("an ID token of the server", id)
			}
		}},
		{"RS-09", func(t *trial) {
			a, g := t.vars["a"].(*foreign), t.vars["guard"].(*protected)
			token := a.token(time.Now().Add(g.offset), nil, nil)
			set := func(v ...string) edit { return func(r *http.Request) { r.Header["Authorization"] = v } }
			for what, e := range map[string]edit{
				"twice": set("Bearer "+token, "Bearer "+token), "two different": set("Bearer "+token, "Basic eDp5"), "in the query": func(r *http.Request) { r.URL.RawQuery = "access_token=" + token }, "Basic": set("Basic " + token), "no scheme": set(token), "a comma": set("Bearer " + token + ", Bearer x"), "Token": set("Token " + token),
			} {
				r := g.call("", readCall, e)
				t.check(r.status == 401 || r.status == 400, "%s: %s", what, r)
			}
			t.check(g.call("", readCall, set("bearer "+token)).ok(), "bearer in lower case")
			r := g.call("", readCall, set("Bearer  "+token))
			t.check(r.ok() || r.status == 401 || r.status == 400, "two spaces: %s", r)
			r = g.call(strings.Repeat("a", 1<<20), readCall)
			t.check(r.err != nil || r.status == 431 || r.status == 401, "1 MiB: %s", r)
			r = g.call(strings.Repeat("a", 30<<10), readCall)
			t.check(r.status == 401 || r.status == 431, "30 KiB: %s", r)
		}},
		{"RS-10", func(t *trial) {
			g, a := t.vars["guard"].(*protected), t.vars["a"].(*foreign)
			token := a.token(time.Now().Add(g.offset), nil, nil)
			before := g.created()
			r := g.call(token, writeCall)
			ch := r.header.Get("WWW-Authenticate")
			t.check(r.status == 403 && strings.Contains(ch, "insufficient_scope") && strings.Contains(ch, "mcp:write") && strings.Contains(ch, "resource_metadata="), "%s %s", r, ch)
			t.check(g.created() == before, "the tool ran")
			r = g.call(a.token(time.Now().Add(g.offset), nil, m{"scope": "mcp:write"}), writeCall)
			t.check(r.ok() && g.created() == before+1, "with mcp:write: %s", r)
			e := t.w.protect(t.w.guarded, "93.184.216.55:8082", "/mcp", t.s.offset, "-resource", "https://issues.test/mcp", "-issuer", issuer)
			defer e.stop()
			t.vars["example"] = e
			mine := t.john.grant("prompt", "consent", "resource", "https://issues.test/mcp", "scope", "issues:read").str("access_token")
			r = e.call(mine, strings.ReplaceAll(readCall, "search", "list_issues"), withHeader("Mcp-Protocol-Version", "2025-06-18"))
			t.check(r.ok(), "the example server, reading: %s %s", r, e.log.String())
			r = e.call(mine, strings.ReplaceAll(writeCall, `"create"`, `"create_issue"`), withHeader("Mcp-Protocol-Version", "2025-06-18"))
			t.check(r.status == 403, "the example server, writing: %s", r)
			r = e.call(mine, strings.ReplaceAll(readCall, "search", "list_issues"), withHeader("Mcp-Protocol-Version", "2025-06-18"))
			t.check(strings.Contains(r.raw, `\"issues\":[]`) || strings.Contains(r.raw, `"issues":[]`), "an issue was made: %s", r)
		}},
		{"RS-11", func(t *trial) {
			g, a := t.vars["guard"].(*protected), t.vars["a"].(*foreign)
			token := a.token(time.Now().Add(g.offset), nil, nil)
			before := g.created()
			for what, body := range map[string]string{
				"a batch": "[" + readCall + "," + writeCall + "]", "a batch, the other way": "[" + writeCall + "," + readCall + "]", "case": strings.ReplaceAll(writeCall, "create", "Create"), "a space": strings.ReplaceAll(writeCall, `"create"`, `"create "`), "full width": strings.ReplaceAll(writeCall, "create", "\uff43reate"), "an escape": strings.ReplaceAll(writeCall, "create", `\u0063reate`), "a NUL": strings.ReplaceAll(writeCall, `"create"`, `"create\u0000"`),
				"the name twice": `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","name":"create"}}`, "the method twice": `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"create"}}`, "params twice": `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"},"params":{"name":"create"}}`,
				"names in capitals": `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"Name":"create"}}`, "both": `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","Name":"create"}}`, "METHOD": `{"jsonrpc":"2.0","id":1,"Method":"tools/call","params":{"name":"create"}}`, "nested": `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"method":"tools/call","params":{"name":"create"}}}}`,
				"a BOM": "\ufeff" + writeCall, "trailing": readCall + writeCall, "deep": strings.Repeat("[", 1000) + writeCall + strings.Repeat("]", 1000), "a string": `"tools/call"`, "no JSON": `create`,
			} {
				r := g.call(token, body)
				t.check(r.err == nil && r.status < 500, "%s: %s", what, r)
				t.check(g.created() == before, "%s: the tool ran: %s", what, r)
				before = g.created()
			}
			r := g.call(token, writeCall, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") })
			t.check(g.created() == before, "gzip: %s", r)
			r = g.call(token, strings.Repeat(" ", 5<<20)+writeCall)
			t.check(g.created() == before && r.status != 200, "5 MiB: %s", r)
		}},
		{"RS-12", func(t *trial) { t.growing() }},
		{"RS-13", func(t *trial) { t.lyingMetadata() }},
		{"RS-15", func(t *trial) {
			g := t.vars["guard"].(*protected)
			t.check(!strings.Contains(g.log.String(), "the token reached the handler"), "the handler saw the token: %s", g.log.String())
			var sources []string
			for _, dir := range []string{"../examples/*/*.go", "../resource/*.go", "../resource/resourcemcp/*.go"} {
				found, _ := filepath.Glob(dir)
				sources = append(sources, found...)
			}
			t.check(len(sources) > 10, "%d sources were found", len(sources))
			for _, name := range sources {
				raw, err := os.ReadFile(name)
				if err != nil || strings.HasSuffix(name, "_test.go") {
					continue
				}
				if strings.Contains(name, "examples/mcp-server") {
					t.check(!bytes.Contains(raw, []byte(`"Authorization"`)) && !bytes.Contains(raw, []byte("Bearer")), "%s handles the token", name)
				}
				t.check(!bytes.Contains(raw, []byte("func (c Caller) Token")) && !bytes.Contains(raw, []byte("RawToken")), "%s hands the token out", name)
			}
		}},
		{"RS-16", func(t *trial) {
			// The library has no introspection mode: what it depends on is the key set of the issuer. The same is wanted of that.
			f := t.foreign(fresh("keys"))
			g := t.w.protect(absolute("out/guard"), "93.184.216.56:8083", "/mcp", 0, "-resource", resource, "-issuers", "https://"+f.host.name)
			defer g.stop()
			f.host.change(func(h *host) { h.down = true })
			r := g.call(f.token(time.Now(), nil, nil), readCall)
			t.check(r.status == 503 || r.status == 401, "the keys cannot be had: %s", r)
			f.host.change(func(h *host) { h.down, h.wire = false, mute })
			g.later(40 * time.Second)
			r = g.call(f.token(time.Now().Add(g.offset), nil, nil), readCall)
			t.check((r.status == 503 || r.status == 401) && r.took < 12*time.Second, "the keys are slow: %s in %v", r, r.took)
			f.host.change(func(h *host) { h.wire = nil })
			g.later(2 * time.Minute)
			r = g.call(f.token(time.Now().Add(g.offset), nil, nil), readCall)
			t.check(r.ok(), "the keys are back: %s", r)
			old := f.token(time.Now().Add(g.offset), nil, m{"exp": time.Now().Add(g.offset).Unix() + 5})
			t.check(g.call(old, readCall).ok(), "a short token")
			g.later(6 * time.Second)
			r = g.call(old, readCall)
			t.check(r.status == 401, "past its exp: %s", r)
		}},
		{"RS-17", func(t *trial) {
			g, a := t.vars["guard"].(*protected), t.vars["a"].(*foreign)
			token := a.token(time.Now().Add(g.offset), nil, m{"exp": time.Now().Add(g.offset).Unix() + 30})
			req, _ := http.NewRequest(http.MethodGet, "http://mcp.test/mcp", nil)
			req.Header.Set("Authorization", "Bearer "+token)
			req.Header.Set("Accept", "text/event-stream")
			resp, err := g.client().Do(req)
			if err != nil || resp.StatusCode != 200 {
				t.fatal("no stream: %v", err)
			}
			defer resp.Body.Close()
			var got atomic.Int64
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				n, _ := io.Copy(io.Discard, countReader{resp.Body, &got})
				_ = n
			}()
			time.Sleep(300 * time.Millisecond)
			t.check(got.Load() > 0, "nothing streams")
			g.later(31 * time.Second)
			select {
			case <-ended:
				t.check(true, "")
			case <-time.After(3 * time.Second):
				t.check(false, "the stream goes on after its token has ended")
			}
			b := t.john.grant("prompt", "consent") // revoked: introspection knows at once, a signature until exp (docs/operate.md)
			t.s.post("/revoke", values("token", b.str("refresh_token"), "client_id", goodID))
			t.check(!t.s.active(b.str("access_token")), "introspection does not know of the revocation")
			life, _ := claimOf(b.str("access_token"), "exp").(float64)
			t.check(life-float64(t.s.now().Unix()) <= 601, "the token lives for %v s", life-float64(t.s.now().Unix()))
		}},
		{"RS-18", func(t *trial) {
			f := t.foreign(fresh("local"))
			g := t.w.protect(absolute("out/guard"), "127.0.0.1:8099", "/mcp", 0, "-resource", "http://127.0.0.1:8099/mcp", "-issuers", "https://"+f.host.name)
			defer g.stop()
			token := f.token(time.Now(), nil, m{"aud": "http://127.0.0.1:8099/mcp"})
			host := func(h string) edit { return func(r *http.Request) { r.Host = h } }
			r := g.call(token, readCall, host("127.0.0.1:8099"))
			t.check(r.ok(), "the honest way: %s", r)
			for what, e := range map[string]edit{
				"Host evil.test": host("evil.test"), "Host evil.test:8099": host("evil.test:8099"), "Host 127.0.0.1.evil.test": host("127.0.0.1.evil.test:8099"),
				"Origin evil": func(r *http.Request) { r.Host = "127.0.0.1:8099"; r.Header.Set("Origin", "https://evil.test") }, "Origin null": func(r *http.Request) { r.Host = "127.0.0.1:8099"; r.Header.Set("Origin", "null") }, "both evil": func(r *http.Request) { r.Host = "evil.test:8099"; r.Header.Set("Origin", "http://evil.test:8099") },
			} {
				r := g.call(token, readCall, e)
				t.check(r.status == 403, "%s: %s", what, r)
			}
		}},
	},
}
