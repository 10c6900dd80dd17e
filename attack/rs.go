package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/client"
)

// protected is a guarded server that runs as a process of its own.
type protected struct {
	w      *world
	addr   string // with its port
	base   string
	cmd    *exec.Cmd
	clock  *clock
	offset time.Duration
	log    bytes.Buffer

	stopped bool
}

func (w *world) protect(binary, addr, base string, offset time.Duration, args ...string) *protected {
	g := &protected{w: w, addr: addr, base: base, offset: offset}
	cmd := exec.Command(binary, append([]string{"-listen", addr}, args...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "SSL_CERT_FILE=" + w.ca.file, "SSL_CERT_DIR=/nonexistent", "BONAFIDE_PLANTED=" + w.planted}
	cmd.Stdout, cmd.Stderr = &g.log, &g.log
	c, err := launch(cmd, offset)
	if err != nil {
		panic(stop{"the guarded server: " + err.Error()})
	}
	g.cmd, g.clock = cmd, c
	w.mu.Lock()
	w.guards = append(w.guards, g)
	w.mu.Unlock()
	host, port, _ := net.SplitHostPort(addr)
	n := 0
	fmt.Sscan(port, &n)
	w.canary.reserve(host, uint16(n))
	for range 500 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(81, 1, 1, 2)}, Timeout: time.Second}
		if conn, err := d.Dial("tcp", addr); err == nil {
			conn.Close()
			return g
		}
		time.Sleep(10 * time.Millisecond)
	}
	g.stop()
	panic(stop{"the guarded server does not listen: " + g.log.String()})
}

func (g *protected) stop() {
	if g.stopped {
		return
	}
	g.stopped = true
	g.cmd.Process.Kill()
	g.cmd.Wait()
	g.clock.close()
}

func (g *protected) later(d time.Duration) {
	g.offset += d
	if err := g.clock.set(g.offset, g.offset); err != nil {
		panic(stop{err.Error()})
	}
}

func (g *protected) client() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(81, 1, 1, 3)}}
		return d.DialContext(ctx, network, g.addr)
	}}}
}

const readCall = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{}}}`
const writeCall = `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"create","arguments":{"title":"x"}}}`

// call sends a message with a token.
func (g *protected) call(token, body string, edits ...edit) reply {
	req, _ := http.NewRequest(http.MethodPost, "http://mcp.test"+g.base, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for _, e := range edits {
		e(req)
	}
	return do(g.client(), req)
}

// created returns how often the tool that changes something ran.
func (g *protected) created() int {
	req, _ := http.NewRequest(http.MethodGet, "http://mcp.test/count", nil)
	n := -1
	fmt.Sscan(do(g.client(), req).raw, &n)
	return n
}

// foreign is an issuer in the hands of the harness: it can sign anything.
type foreign struct {
	host *host
	key  *key
}

func (t *trial) foreign(name string) *foreign {
	f := &foreign{t.w.host(name), newKey("ES256")}
	base := "https://" + name
	f.host.put("/.well-known/oauth-authorization-server", jsonResponse(m{"issuer": base, "authorization_endpoint": base + "/authorize", "token_endpoint": base + "/token", "jwks_uri": base + "/jwks", "response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"}}))
	f.host.put("/jwks", jsonResponse(m{"keys": []any{f.key.jwk(nil)}}))
	return f
}

// token is a good access token of the issuer, with header and claims changed.
func (f *foreign) token(now time.Time, head, change m) string {
	c := m{"iss": "https://" + f.host.name, "sub": "u1", "aud": resource, "client_id": goodID, "scope": "mcp:read", "jti": random(12), "iat": now.Unix(), "exp": now.Unix() + 300}
	for n, v := range change {
		if c[n] = v; v == nil {
			delete(c, n)
		}
	}
	h := m{"typ": "at+jwt"}
	for n, v := range head {
		h[n] = v
	}
	return f.key.sign(h, c)
}

func (t *trial) refusedToken(what, token string) {
	g := t.vars["guard"].(*protected)
	a := g.call(token, readCall)
	t.check(a.status == 401 && strings.Contains(a.header.Get("WWW-Authenticate"), "invalid_token"), "%s: %s %s", what, a, a.header.Get("WWW-Authenticate"))
}

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
			t.check(a.host.count("/jwks")-before <= 1, "%d fetches for %d unknown kids", a.host.count("/jwks")-before, n)
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

func foreignWith(f *foreign, k *key) *foreign { return &foreign{f.host, k} }

type countReader struct {
	io.Reader
	n *atomic.Int64
}

func (c countReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// growing is a server that answers every call with a demand for more.
func (t *trial) growing() {
	h := t.w.host(fresh("growing"))
	asked := 0
	h.put("/.well-known/oauth-protected-resource/mcp", jsonResponse(m{"resource": h.url("/mcp"), "authorization_servers": []string{h.url("")}, "scopes_supported": []string{"s0"}}))
	h.put("/.well-known/oauth-authorization-server", jsonResponse(m{"issuer": h.url(""), "authorization_endpoint": h.url("/authorize"), "token_endpoint": h.url("/token"), "response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"}, "client_id_metadata_document_supported": true, "authorization_response_iss_parameter_supported": true}))
	h.script("/token", func(n int) response {
		return jsonResponse(m{"access_token": fmt.Sprint("t", n), "token_type": "Bearer", "expires_in": 300, "scope": strings.Join(scopesTo(n), " ")})
	})
	h.script("/mcp", func(n int) response {
		r := jsonResponse(m{})
		if r.status = 403; n == 0 {
			r.status = 401
		}
		r.header.Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="insufficient_scope", scope="%s", resource_metadata="%s"`, strings.Join(scopesTo(n), " "), h.url("/.well-known/oauth-protected-resource/mcp")))
		if n == 0 {
			r.header.Set("WWW-Authenticate", fmt.Sprintf(`Bearer resource_metadata="%s"`, h.url("/.well-known/oauth-protected-resource/mcp")))
		}
		return r
	})
	var prompts []string
	tr := t.w.transport(t.w.address(), t.s)
	c, err := client.New(client.Config{ID: goodID, HTTP: &http.Client{Transport: tr}, Wait: 3 * time.Second,
		Confirm: func(_ context.Context, ask client.Ask) error {
			asked++
			prompts = append(prompts, ask.Scopes.String())
			return nil
		},
		Open: func(address string) error { return openAsUser(address, h.url("")) },
	})
	if err != nil {
		t.fatal("%v", err)
	}
	hc := c.HTTPClient(h.url("/mcp"))
	hc.Timeout = 20 * time.Second
	resp, err := hc.Post(h.url("/mcp"), "application/json", strings.NewReader(readCall))
	if err == nil {
		resp.Body.Close()
		t.check(resp.StatusCode == 403 || resp.StatusCode == 401, "it ends with %d", resp.StatusCode)
	}
	t.check(asked >= 1 && asked <= 6, "the person was asked %d times (%v), and then %v", asked, prompts, err)
}

func scopesTo(n int) []string {
	var out []string
	for i := range n + 1 {
		out = append(out, fmt.Sprint("s", i))
	}
	return out
}

// openAsUser is a person who says yes: the redirect comes at once.
func openAsUser(address, iss string) error {
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	q := req.URL.Query()
	go func() {
		back := q.Get("redirect_uri") + "?" + values("code", "x", "state", q.Get("state"), "iss", iss).Encode()
		for range 20 {
			from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(81, 1, 1, 4)}}
			d := &http.Client{Timeout: time.Second, Transport: &http.Transport{DialContext: from.DialContext}}
			if resp, err := d.Get(back); err == nil {
				resp.Body.Close()
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return nil
}

// lyingMetadata: what a protected resource says about itself must fit.
func (t *trial) lyingMetadata() {
	for what, lie := range map[string]struct {
		meta    func(h *host) m
		pointer string
	}{
		"another resource": {func(h *host) m {
			return m{"resource": "https://other.test/mcp", "authorization_servers": []string{issuer}}
		}, ""},
		"an http server": {func(h *host) m {
			return m{"resource": h.url("/mcp"), "authorization_servers": []string{"http://as.test"}}
		}, ""},
		"an inner server": {func(h *host) m {
			return m{"resource": h.url("/mcp"), "authorization_servers": []string{"https://10.0.0.1"}}
		}, ""},
		"localhost": {func(h *host) m {
			return m{"resource": h.url("/mcp"), "authorization_servers": []string{"https://localhost"}}
		}, ""},
		"metadata of the cloud": {func(h *host) m {
			return m{"resource": h.url("/mcp"), "authorization_servers": []string{"http://169.254.169.254"}}
		}, ""},
		"a pointer to elsewhere":  {func(h *host) m { return m{} }, "https://evil.test/prm"},
		"no authorization server": {func(h *host) m { return m{"resource": h.url("/mcp")} }, ""},
	} {
		h := t.w.host(fresh("lying"))
		pointer := lie.pointer
		if pointer == "" {
			pointer = h.url("/.well-known/oauth-protected-resource/mcp")
		}
		if meta := lie.meta(h); len(meta) > 0 {
			h.put("/.well-known/oauth-protected-resource/mcp", jsonResponse(meta))
			h.put("/.well-known/oauth-protected-resource", jsonResponse(meta))
		}
		h.script("/mcp", func(int) response {
			r := jsonResponse(m{})
			r.status = 401
			r.header.Set("WWW-Authenticate", `Bearer resource_metadata="`+pointer+`"`)
			return r
		})
		t.w.host("evil.test").put("/prm", jsonResponse(m{"resource": h.url("/mcp"), "authorization_servers": []string{"https://issuer-a.test"}}))
		opened := false
		c, err := client.New(client.Config{ID: goodID, HTTP: &http.Client{Transport: t.w.transport(t.w.address(), t.s)}, Wait: time.Second, Open: func(string) error { opened = true; return fmt.Errorf("no") }})
		if err != nil {
			t.fatal("%v", err)
		}
		hc := c.HTTPClient(h.url("/mcp"))
		hc.Timeout = 10 * time.Second
		resp, err := hc.Get(h.url("/mcp"))
		if err == nil {
			resp.Body.Close()
		}
		t.check(!opened && (err != nil || resp.StatusCode == 401), "%s: a browser was opened, or it went well (%v)", what, err)
	}
}
