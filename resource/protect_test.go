package resource

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func observe(last *Decision) func(context.Context, Decision) {
	return func(_ context.Context, d Decision) { *last = d }
}

const metadataURL = "https://mcp.test/.well-known/oauth-protected-resource/mcp"

func TestCredentials(t *testing.T) {
	w := newWorld(t, nil)
	good := w.token(t, nil)
	for _, tc := range []struct {
		name      string
		change    func(*http.Request)
		status    int
		errorCode string
	}{
		{"RS-14 one Authorization header is the way in", func(*http.Request) {}, 200, ""},
		{"RS-05 no credentials: 401 without an error", func(r *http.Request) { r.Header.Del("Authorization") }, 401, ""},
		{"RS-05 another scheme is no attempt", func(r *http.Request) { r.Header.Set("Authorization", "Basic YTpi") }, 401, ""},
		{"RS-14, attack RS-09: the scheme has no case", func(r *http.Request) { r.Header.Set("Authorization", "bEARER "+good) }, 200, ""},
		{"attack RS-09: two spaces are grammatical", func(r *http.Request) { r.Header.Set("Authorization", "Bearer  "+good) }, 200, ""},
		{"RS-14, attack RS-09: two Authorization headers", func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+good) }, 400, "invalid_request"},
		{"RS-14, attack RS-09: a query token is ignored", func(r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "access_token=" + good
		}, 401, ""},
		{"RS-14 a query token beside the header", func(r *http.Request) { r.URL.RawQuery = "access_token=" + good }, 400, "invalid_request"},
		{"RS-33 a scheme without a token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer") }, 400, "invalid_request"},
		{"RS-33 an empty header", func(r *http.Request) { r.Header.Set("Authorization", "") }, 400, "invalid_request"},
		{"RS-33 two tokens", func(r *http.Request) { r.Header.Set("Authorization", "Bearer a b") }, 400, "invalid_request"},
		{"RS-33 characters outside the grammar", func(r *http.Request) { r.Header.Set("Authorization", `Bearer "a"`) }, 400, "invalid_request"},
		{"RS-33 only padding", func(r *http.Request) { r.Header.Set("Authorization", "Bearer ==") }, 400, "invalid_request"},
		{"RS-33 a token without a scheme", func(r *http.Request) { r.Header.Set("Authorization", good) }, 400, "invalid_request"},
		{"attack RS-09: a header of 1 MiB", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat("a", 1<<20)) }, 431, ""},
		{"RS-06 something that is no token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer abc") }, 401, "invalid_token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := post(good, callTool("list"))
			tc.change(r)
			rec := w.ask(r)
			if rec.Code != tc.status {
				t.Fatalf("status %d, want %d: %s", rec.Code, tc.status, rec.Body)
			}
			if passed := w.seen != nil; passed != (tc.status == 200) || w.last.Allowed != passed {
				t.Errorf("reached the server: %v, observed %+v", passed, w.last)
			}
			if tc.status != 401 && tc.status != 400 {
				return
			}
			c := challengeOf(t, rec)
			if c.Get("error") != tc.errorCode || c.Get("resource_metadata") != metadataURL || c.Get("scope") != "mcp:read" {
				t.Errorf("challenge %q", c)
			}
			if tc.errorCode == "" && strings.Contains(c.String(), "error") {
				t.Errorf("challenge %q speaks of an error", c)
			}
			if rec.Header().Get("Cache-Control") != "no-store" {
				t.Error("a refusal may be cached")
			}
			if strings.Contains(rec.Body.String()+c.String(), good) {
				t.Error("the refusal repeats the token")
			}
		})
	}
}

func TestScopeDecisions(t *testing.T) {
	w := newWorld(t, nil)
	type row struct {
		name   string
		scope  string
		body   string
		status int
		needed string // of the challenge
	}
	for _, tc := range []row{
		{"RS-18 a tool that the baseline covers", "mcp:read", callTool("list"), 200, ""},
		{"RS-07, RS-08, attack RS-10: a tool that needs more: 403 with all that it needs", "mcp:read", callTool("create"), 403, "mcp:read mcp:write"},
		{"RS-09 a broader scope covers a tool", "mcp:write", callTool("create"), 200, ""},
		{"RS-09 over two steps", "mcp:admin", callTool("create"), 200, ""},
		{"RS-09 and the baseline too", "mcp:admin", callTool("list"), 200, ""},
		{"RS-09 a narrower scope does not cover a broader one", "mcp:write", callTool("purge"), 403, "mcp:read mcp:admin"},
		{"RS-07 a valid token without the baseline", "files:read", callTool("list"), 403, "mcp:read"},
		{"RS-07 a token without scopes", "", callTool("list"), 403, "mcp:read"},
		{"RS-18 another method with needs", "mcp:read", `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///x"}}`, 403, "mcp:read files:read"},
		{"RS-18 another method with its scope", "mcp:read files:read", `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///x"}}`, 200, ""},
		{"RS-18 a method without needs", "mcp:read", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, 200, ""},
		{"RS-18 a response to the server", "mcp:read", `{"jsonrpc":"2.0","id":1,"result":{}}`, 200, ""},
		{"attack RS-11: a batch with one call too many is refused whole", "mcp:read", "[" + callTool("list") + "," + callTool("create") + "]", 403, "mcp:read mcp:write"},
		{"attack RS-11: a batch that is covered", "mcp:write", "[" + callTool("list") + "," + callTool("create") + "]", 200, ""},
		{"attack RS-11: tools/call inside params is data", "mcp:read", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"method":"tools/call","params":{"name":"create"}}}`, 200, ""},
		{"attack RS-11: a nested name does not hide the real one", "mcp:read", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"name":"list"},"name":"create"}}`, 403, "mcp:read mcp:write"},
		{"RS-18 escapes in names are undone", "mcp:read", `{"jsonrpc":"2.0","id":1,"\u006dethod":"tools\/call","params":{"name":"cr\u0065ate"}}`, 403, "mcp:read mcp:write"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rec := w.ask(post(w.token(t, scope(tc.scope)), tc.body))
			if rec.Code != tc.status {
				t.Fatalf("status %d, want %d: %s", rec.Code, tc.status, rec.Body)
			}
			if tc.status == 200 {
				if w.body != tc.body || w.seen.ContentLength != int64(len(tc.body)) {
					t.Errorf("the server read %q", w.body)
				}
				return
			}
			c := challengeOf(t, rec)
			if c.Get("error") != "insufficient_scope" || c.Get("scope") != tc.needed || c.Get("resource_metadata") != metadataURL || c.Get("error_description") == "" {
				t.Errorf("challenge %q", c)
			}
			if w.seen != nil {
				t.Error("a refused call reached the server")
			}
			if w.last.Status != 403 || w.last.Rule != "RS-07" || w.last.Token.Subject != "john" {
				t.Errorf("observed %+v", w.last)
			}
		})
	}
}

func TestBodies(t *testing.T) {
	w := newWorld(t, nil)
	all := scope("mcp:admin files:read")
	for _, tc := range []struct {
		name   string
		body   string
		status int
		code   int
	}{
		{"attack RS-11: a tool in other case is an unknown tool", callTool("Create"), 200, rpcInvalidParams},
		{"attack RS-11: a trailing space is an unknown tool", callTool("create "), 200, rpcInvalidParams},
		{"attack RS-11: a Unicode look-alike is an unknown tool", callTool("cre\u0430te"), 200, rpcInvalidParams},
		{"attack RS-11: an unknown tool in a batch refuses it", "[" + callTool("list") + "," + callTool("nope") + "]", 400, rpcInvalidParams},
		{"attack RS-11: a method in other case is no method", `{"id":1,"method":"TOOLS/CALL","params":{"name":"purge"}}`, 400, rpcInvalidRequest},
		{"attack RS-11: a method with a space behind it is no method", `{"id":1,"method":"tools/call ","params":{"name":"purge"}}`, 400, rpcInvalidRequest},
		{"attack RS-11: a method with a line feed before it is no method", `{"id":1,"method":"\ntools/call","params":{"name":"purge"}}`, 400, rpcInvalidRequest},
		{"attack RS-11: another method with needs, in other case", `{"id":1,"method":"Resources/Read","params":{"uri":"file:///x"}}`, 400, rpcInvalidRequest},
		{"RS-18 method twice", `{"id":1,"method":"ping","method":"tools/call","params":{"name":"purge"}}`, 400, rpcInvalidRequest},
		{"RS-18 method twice in escapes", `{"id":1,"method":"ping","m\u0065thod":"tools/call"}`, 400, rpcInvalidRequest},
		{"RS-18 params twice", `{"id":1,"method":"tools/call","params":{"name":"list"},"params":{"name":"purge"}}`, 400, rpcInvalidRequest},
		{"RS-18 name twice", `{"id":1,"method":"tools/call","params":{"name":"list","name":"purge"}}`, 400, rpcInvalidRequest},
		{"RS-18 name in other case beside it", `{"id":1,"method":"tools/call","params":{"name":"list","Name":"purge"}}`, 400, rpcInvalidRequest},
		{"RS-18 method in other case", `{"id":1,"METHOD":"tools/call","params":{"name":"purge"}}`, 400, rpcInvalidRequest},
		{"RS-18 params with a long s", `{"id":1,"method":"tools/call","param\u017f":{"name":"purge"}}`, 400, rpcInvalidRequest},
		{"RS-18 a call without a name", `{"id":1,"method":"tools/call","params":{}}`, 400, rpcInvalidRequest},
		{"RS-18 a call without params", `{"id":1,"method":"tools/call"}`, 400, rpcInvalidRequest},
		{"RS-18 a call without an id has no answer to refuse", `{"method":"tools/call","params":{"name":"list"}}`, 400, rpcInvalidRequest},
		{"RS-18 a name that is a list", `{"id":1,"method":"tools/call","params":{"name":["list"]}}`, 400, rpcInvalidRequest},
		{"RS-18 params that are a list", `{"id":1,"method":"tools/call","params":["list"]}`, 400, rpcInvalidRequest},
		{"RS-18 a method that is a number", `{"id":1,"method":4}`, 400, rpcInvalidRequest},
		{"RS-18 an id that is an object", `{"id":{},"method":"ping"}`, 400, rpcInvalidRequest},
		{"RS-18 not JSON", `{"id":1,`, 400, rpcParse},
		{"RS-18 two values", `{"id":1,"method":"ping"}{"id":2,"method":"ping"}`, 400, rpcParse},
		{"RS-18 invalid UTF-8", "{\"id\":1,\"method\":\"p\xffing\"}", 400, rpcParse},
		{"RS-18 a byte order mark", "\ufeff{\"id\":1,\"method\":\"ping\"}", 400, rpcParse},
		{"RS-18 an empty body", "", 400, rpcParse},
		{"RS-18 a string", `"tools/call"`, 400, rpcInvalidRequest},
		{"RS-18 an empty batch", `[]`, 400, rpcInvalidRequest},
		{"RS-18 a batch in a batch", `[[]]`, 400, rpcInvalidRequest},
		{"RS-18 a batch without end", "[" + strings.Repeat(`{"id":1,"method":"ping"},`, 64) + `{"id":1,"method":"ping"}]`, 400, rpcInvalidRequest},
		{"RS-18 members without end", `{"id":1` + strings.Repeat(`,"a":1`, 1) + manyMembers(300) + `}`, 400, rpcInvalidRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rec := w.ask(post(w.token(t, all), tc.body))
			var answer struct {
				Version string `json:"jsonrpc"`
				Error   struct{ Code int }
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			if rec.Code != tc.status || answer.Error.Code != tc.code || answer.Version != "2.0" {
				t.Errorf("status %d: %s", rec.Code, rec.Body)
			}
			if w.seen != nil {
				t.Error("it reached the server")
			}
		})
	}
	t.Run("RS-18 the answer carries the id of the call", func(t *testing.T) {
		rec := w.ask(post(w.token(t, all), callTool("nope")))
		if !strings.Contains(rec.Body.String(), `"id":7`) {
			t.Error(rec.Body)
		}
	})
	t.Run("RS-18 a body over the limit", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.MaxBody = 100 })
		rec := w.ask(post(w.token(t, nil), `{"jsonrpc":"2.0","method":"`+strings.Repeat("x", 100)+`"}`))
		if rec.Code != http.StatusRequestEntityTooLarge || w.seen != nil {
			t.Error(rec.Code)
		}
	})
	t.Run("RS-18 an encoded body cannot be judged", func(t *testing.T) {
		r := post(w.token(t, nil), callTool("list"))
		r.Header.Set("Content-Encoding", "gzip")
		if rec := w.ask(r); rec.Code != http.StatusUnsupportedMediaType || w.seen != nil {
			t.Error(rec.Code)
		}
	})
	t.Run("RS-15 a stranger's body is not read", func(t *testing.T) {
		r := post("", "")
		r.Body = readBomb{t}
		if rec := w.ask(r); rec.Code != http.StatusUnauthorized {
			t.Error(rec.Code)
		}
	})
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"m` + strings.Repeat("x", i) + `":1`)
	}
	return b.String()
}

type readBomb struct{ t *testing.T }

func (b readBomb) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, net.ErrClosed
}
func (readBomb) Close() error { return nil }

func TestHeaders(t *testing.T) {
	w := newWorld(t, nil)
	all := w.token(t, scope("mcp:admin files:read"))
	const v = "2026-07-28"
	for _, tc := range []struct {
		name    string
		body    string
		headers []string
		ok      bool
	}{
		{"RS-18 headers that agree", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Method", "tools/call", "Mcp-Name", "create"}, true},
		{"RS-18 a name behind the Base64 sentinel", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Method", "tools/call", "Mcp-Name", "=?base64?Y3JlYXRl?="}, true},
		{"RS-18 older versions need no headers", callTool("create"), []string{"Mcp-Protocol-Version", "2025-11-25"}, true},
		{"RS-18 but they must agree where they are", callTool("create"), []string{"Mcp-Protocol-Version", "2025-11-25", "Mcp-Method", "ping"}, false},
		{"RS-18 the method differs", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Method", "tools/list", "Mcp-Name", "create"}, false},
		{"RS-18 the method differs in case", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Method", "Tools/call", "Mcp-Name", "create"}, false},
		{"RS-18 the name differs", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Method", "tools/call", "Mcp-Name", "list"}, false},
		{"RS-18 the decoded name differs", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Method", "tools/call", "Mcp-Name", "=?base64?bGlzdA==?="}, false},
		{"RS-18 the sentinel holds no Base64", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Method", "tools/call", "Mcp-Name", "=?base64?***?="}, false},
		{"RS-18 the method is missing", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Name", "create"}, false},
		{"RS-18 the name is missing", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Method", "tools/call"}, false},
		{"RS-18 the method stands twice", callTool("create"), []string{"Mcp-Protocol-Version", v, "Mcp-Method", "tools/call", "Mcp-Method", "tools/call", "Mcp-Name", "create"}, false},
		{"RS-18 a name that the body does not have", `{"jsonrpc":"2.0","id":1,"method":"ping"}`, []string{"Mcp-Method", "ping", "Mcp-Name", "create"}, false},
		{"RS-18 the uri of a resource is its name", `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b"}}`, []string{"Mcp-Protocol-Version", v, "Mcp-Method", "resources/read", "Mcp-Name", "a:b"}, true},
		{"RS-18 a response has no headers", `{"jsonrpc":"2.0","id":1,"result":{}}`, []string{"Mcp-Method", "ping"}, false},
		{"RS-18 a response needs none", `{"jsonrpc":"2.0","id":1,"result":{}}`, []string{"Mcp-Protocol-Version", v}, true},
		{"RS-18 a batch cannot agree", "[" + callTool("list") + "]", []string{"Mcp-Method", "tools/call"}, false},
		{"RS-18 there are no batches since 2026-07-28", "[" + callTool("list") + "]", []string{"Mcp-Protocol-Version", v}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := post(all, tc.body)
			for i := 0; i < len(tc.headers); i += 2 {
				r.Header.Add(tc.headers[i], tc.headers[i+1])
			}
			rec := w.ask(r)
			if tc.ok {
				if rec.Code != 200 || w.seen == nil {
					t.Errorf("status %d: %s", rec.Code, rec.Body)
				}
				return
			}
			if rec.Code != 400 || !strings.Contains(rec.Body.String(), `"code":-32020`) || w.seen != nil {
				t.Errorf("status %d: %s", rec.Code, rec.Body)
			}
		})
	}
}

func TestWhatTheServerSees(t *testing.T) {
	w := newWorld(t, nil)
	t.Run("RS-26 who calls, through which client, and never the token", func(t *testing.T) {
		raw := w.token(t, nil)
		w.ask(post(raw, callTool("list")))
		got, ok := FromContext(w.seen.Context())
		if !ok || got.Subject != "john" || got.ClientHost() != "app.test" || got.ID != "t1" || got.Issuer != w.as.URL || got.ClientOnly() {
			t.Errorf("token %+v", got)
		}
		if diff := cmp.Diff([]string{"mcp:read"}, []string(got.Scopes)); diff != "" {
			t.Error(diff)
		}
		if !got.Expires.Equal(w.clock.Now().Add(600e9)) || !got.Issued.Equal(w.clock.Now()) {
			t.Error(got.Expires, got.Issued)
		}
		if got.User() != w.as.URL+" john" {
			t.Error(got.User())
		}
	})
	t.Run("RS-16, attack RS-15: the Authorization header does not reach the server", func(t *testing.T) {
		r := post(w.token(t, nil), callTool("list"))
		w.ask(r)
		if len(w.seen.Header.Values("Authorization")) != 0 {
			t.Error("the server could pass the token on")
		}
		if r.Header.Get("Authorization") == "" {
			t.Error("the caller's request was changed")
		}
	})
	t.Run("RS-09 Allows respects the hierarchy", func(t *testing.T) {
		w.ask(post(w.token(t, scope("mcp:write")), callTool("list")))
		got, _ := FromContext(w.seen.Context())
		if !got.Allows("mcp:read", "mcp:write") || got.Allows("mcp:admin") {
			t.Errorf("%+v", got)
		}
		if plain := (Token{Scopes: []string{"a"}}); !plain.Allows("a") || plain.Allows("b") {
			t.Error("a token made by hand")
		}
	})
	t.Run("RS-15 GET and DELETE are checked too, and have no body", func(t *testing.T) {
		for _, m := range []string{"GET", "DELETE"} {
			r := httptest.NewRequest(m, "/mcp", strings.NewReader(callTool("purge")))
			if rec := w.ask(r); rec.Code != 401 {
				t.Error(m, rec.Code)
			}
			r.Header.Set("Authorization", "Bearer "+w.token(t, nil))
			if rec := w.ask(r); rec.Code != 200 || w.body != "" {
				t.Error(m, rec.Code, w.body)
			}
		}
	})
	t.Run("RS-32 a stream ends with its token", func(t *testing.T) {
		r := httptest.NewRequest("GET", "/mcp", nil)
		r.Header.Set("Authorization", "Bearer "+w.token(t, nil))
		w.ask(r)
		if _, ok := w.seen.Context().Deadline(); !ok {
			t.Error("no deadline")
		}
		w.ask(post(w.token(t, nil), callTool("list")))
		if _, ok := w.seen.Context().Deadline(); ok {
			t.Error("a call has a deadline")
		}
	})
	t.Run("RS-32 a stream that is asked for in a batch ends with its token", func(t *testing.T) {
		const listen = `{"jsonrpc":"2.0","id":2,"method":"subscriptions/listen"}`
		for _, body := range []string{listen, "[" + callTool("create") + "," + listen + "]", "[" + listen + "," + callTool("create") + "]"} {
			w.ask(post(w.token(t, scope("mcp:admin")), body))
			if _, ok := w.seen.Context().Deadline(); !ok {
				t.Error("no deadline:", body)
			}
		}
	})
	t.Run("RS-32 a stream ends with its token where bodies are not read", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Tools, c.Methods = nil, nil })
		for method, want := range map[string]bool{"subscriptions/listen": true, "tools/call": false} {
			r := post(w.token(t, nil), `{"jsonrpc":"2.0","id":2,"method":"`+method+`"}`)
			r.Header.Set("Mcp-Method", method)
			w.ask(r)
			if _, ok := w.seen.Context().Deadline(); ok != want {
				t.Errorf("%s: deadline %v", method, ok)
			}
		}
	})
	t.Run("RS-18 scopes for all tools at once are a decision on the body too", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Tools, c.Methods, c.DefaultToolScopes = nil, nil, []string{"mcp:write"} })
		if rec := w.ask(post(w.token(t, nil), callTool("purge"))); rec.Code != 403 || w.seen != nil || challengeOf(t, rec).Get("scope") != "mcp:read mcp:write" {
			t.Error(rec.Code)
		}
		if rec := w.ask(post(w.token(t, scope("mcp:write")), callTool("purge"))); rec.Code != 200 {
			t.Error(rec.Code)
		}
	})
	t.Run("RS-18 without tools and methods the body is the server's own", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Tools, c.Methods = nil, nil })
		rec := w.ask(post(w.token(t, nil), "not JSON"))
		if rec.Code != 200 || w.body != "not JSON" {
			t.Error(rec.Code, w.body)
		}
	})
	t.Run("RS-18 a default for tools that are not listed", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.DefaultToolScopes = []string{"mcp:admin"} })
		if rec := w.ask(post(w.token(t, nil), callTool("new"))); rec.Code != 403 || challengeOf(t, rec).Get("scope") != "mcp:read mcp:admin" {
			t.Error(rec.Code)
		}
		if rec := w.ask(post(w.token(t, scope("mcp:admin")), callTool("new"))); rec.Code != 200 {
			t.Error(rec.Code)
		}
	})
	t.Run("RS-26 a token that no guard has seen", func(t *testing.T) {
		if _, ok := FromContext(t.Context()); ok {
			t.Error("found")
		}
	})
}

func TestOriginAndHost(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Origins, c.Hosts = []string{"https://inspector.test"}, []string{"tracker.lan"}
	})
	token := w.token(t, nil)
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8081}
	public := &net.TCPAddr{IP: net.IPv4(93, 184, 216, 51), Port: 443}
	for _, tc := range []struct {
		name, origin, host string
		local              net.Addr
		ok                 bool
	}{
		{"RS-19 no Origin", "", "mcp.test", public, true},
		{"RS-19 the resource's own origin", "https://mcp.test", "mcp.test", public, true},
		{"RS-19 a listed origin", "https://inspector.test", "mcp.test", public, true},
		{"RS-19 another origin", "https://evil.test", "mcp.test", public, false},
		{"RS-19 an opaque origin", "null", "mcp.test", public, false},
		{"RS-19 a listed origin with a port", "https://inspector.test:8443", "mcp.test", public, false},
		{"RS-29 on a public address the Host decides nothing", "", "whatever.test", public, true},
		{"attack RS-18: a rebound name on a loopback listener", "", "evil.test", loopback, false},
		{"attack RS-18: a rebound name with its origin", "https://evil.test", "evil.test:8081", loopback, false},
		{"attack RS-18: the loopback names", "", "localhost:8081", loopback, true},
		{"attack RS-18: the loopback address", "", "127.0.0.1:8081", loopback, true},
		{"attack RS-18: IPv6", "", "[::1]:8081", loopback, true},
		{"attack RS-18: a name that starts like one", "", "localhost.evil.test:8081", loopback, false},
		{"attack RS-18: a proxy on the same machine keeps the public Host", "", "mcp.test", loopback, true},
		{"attack RS-18: a configured Host", "", "tracker.lan", loopback, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := post(token, callTool("list"))
			r.Host = tc.host
			if tc.origin != "" {
				r.Header.Set("Origin", tc.origin)
			}
			rec := w.ask(r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, tc.local)))
			if ok := rec.Code == 200; ok != tc.ok || !ok && (rec.Code != 403 || w.seen != nil || rec.Header().Get("WWW-Authenticate") != "") {
				t.Errorf("status %d: %s", rec.Code, rec.Body)
			}
			if tc.ok && tc.origin != "" && rec.Header().Get("Access-Control-Allow-Origin") != tc.origin {
				t.Error("the page cannot read the answer")
			}
		})
	}
	t.Run("RS-19 two origins are one too many", func(t *testing.T) {
		r := post(token, callTool("list"))
		r.Header["Origin"] = []string{"https://inspector.test", "https://evil.test"}
		if rec := w.ask(r); rec.Code != 403 || w.seen != nil {
			t.Error(rec.Code)
		}
	})
	t.Run("RS-19 a preflight is answered, for good origins only", func(t *testing.T) {
		r := httptest.NewRequest(http.MethodOptions, "/mcp", nil)
		r.Header.Set("Origin", "https://inspector.test")
		r.Header.Set("Access-Control-Request-Method", "POST")
		r.Header.Set("Access-Control-Request-Headers", "authorization, mcp-param-region")
		rec := w.ask(r)
		if rec.Code != 204 || rec.Header().Get("Access-Control-Allow-Headers") != "authorization, mcp-param-region" || w.seen != nil {
			t.Error(rec.Code, rec.Header())
		}
		r.Header.Set("Access-Control-Request-Headers", "x\x01")
		if rec := w.ask(r); rec.Header().Get("Access-Control-Allow-Headers") != "Authorization, Content-Type" {
			t.Error(rec.Header())
		}
		r.Header.Set("Origin", "https://evil.test")
		if rec := w.ask(r); rec.Code != 403 || rec.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Error(rec.Code, rec.Header())
		}
		r.Header.Set("Origin", "https://inspector.test")
		r.Header.Del("Access-Control-Request-Method")
		if rec := w.ask(r); rec.Code != 401 {
			t.Error("an OPTIONS request that is no preflight passed")
		}
	})
	t.Run("RS-19 a page can read the challenge", func(t *testing.T) {
		r := post("", callTool("list"))
		r.Header.Set("Origin", "https://inspector.test")
		if rec := w.ask(r); !strings.Contains(rec.Header().Get("Access-Control-Expose-Headers"), "WWW-Authenticate") {
			t.Error(rec.Header())
		}
	})
}
