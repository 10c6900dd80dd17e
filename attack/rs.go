package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
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
	own := t.w.host("own-as.test")
	own.put("/.well-known/oauth-authorization-server", jsonResponse(m{"issuer": own.url(""), "authorization_endpoint": own.url("/authorize"), "token_endpoint": own.url("/token"), "response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"}, "client_id_metadata_document_supported": true}))
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
		"nothing of it is a lie": {func(h *host) m {
			return m{"resource": h.url("/mcp"), "authorization_servers": []string{own.url("")}}
		}, ""},
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
		if what == "nothing of it is a lie" {
			t.check(opened, "%s, and no browser was opened: the row proves nothing (%v)", what, err)
			continue
		}
		t.check(!opened && (err != nil || resp.StatusCode == 401), "%s: a browser was opened, or it went well (%v)", what, err)
	}
}
