package resourcemcp_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/bonafide-id/bonafide/resource"
	"github.com/bonafide-id/bonafide/resource/resourcemcp"
)

// world is an authorization server's key, and an MCP server behind the guard.
type world struct {
	key     jose.Private
	issuer  string
	server  *mcp.Server
	http    *httptest.Server
	target  string
	created atomic.Int64
}

type out struct {
	Subject   string   `json:"subject"`
	Client    string   `json:"client"`
	Scopes    []string `json:"scopes"`
	UserID    string   `json:"user_id"`
	HasHeader bool     `json:"has_header"`
}

func newWorld(t *testing.T, options *mcp.StreamableHTTPOptions) *world {
	t.Helper()
	return newWorldWith(t, options, nil, func(*resource.Config) {})
}

func newWorldWith(t *testing.T, options *mcp.StreamableHTTPOptions, server *mcp.ServerOptions, change func(*resource.Config)) *world {
	t.Helper()
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{key: key}
	mux := http.NewServeMux()
	as := httptest.NewServer(mux)
	t.Cleanup(as.Close)
	w.issuer = as.URL
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(rw http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(rw).Encode(oauth.ServerMetadata{Issuer: as.URL, JWKSURI: as.URL + "/jwks"})
	})
	mux.HandleFunc("/jwks", func(rw http.ResponseWriter, _ *http.Request) {
		raw, _ := jose.MarshalSet(key.Public())
		_, _ = rw.Write(raw)
	})

	w.server = mcp.NewServer(&mcp.Implementation{Name: "test"}, server)
	scopes := resourcemcp.Scopes{}
	resourcemcp.AddTool(w.server, scopes, &mcp.Tool{Name: "whoami"}, w.whoami)
	resourcemcp.AddTool(w.server, scopes, &mcp.Tool{Name: "create"}, func(ctx context.Context, req *mcp.CallToolRequest, in struct{}) (*mcp.CallToolResult, out, error) {
		w.created.Add(1)
		return w.whoami(ctx, req, in)
	}, "mcp:write")

	var handler http.Handler
	w.http = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	t.Cleanup(w.http.Close)
	w.target = w.http.URL + "/mcp"
	cfg := resource.Config{Resource: w.target, AuthorizationServers: []string{as.URL}, Baseline: []string{"mcp:read"}, Tools: scopes}
	change(&cfg)
	guard, err := resource.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	handler = resourcemcp.Handler(guard, w.server, options)
	return w
}

func (w *world) whoami(ctx context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, out, error) {
	caller, _ := resource.FromContext(ctx)
	o := out{Subject: caller.Subject, Client: caller.ClientHost(), Scopes: caller.Scopes}
	if req.Extra != nil && req.Extra.TokenInfo != nil {
		o.UserID = req.Extra.TokenInfo.UserID
		_, o.HasHeader = req.Extra.Header["Authorization"]
	}
	return nil, o, nil
}

func (w *world) token(t *testing.T, subject, scope string) string {
	t.Helper()
	raw, err := w.key.Sign("at+jwt", map[string]any{
		"iss": w.issuer, "aud": w.target, "sub": subject, "client_id": "https://app.test/c.json", "scope": scope,
		"exp": time.Now().Add(time.Hour).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// bearer is a client's transport whose token can be changed between requests.
type bearer struct{ token atomic.Pointer[string] }

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+*b.token.Load())
	return http.DefaultTransport.RoundTrip(r)
}

func (w *world) connect(t *testing.T, b *bearer) *mcp.ClientSession {
	t.Helper()
	h := *w.http.Client()
	h.Transport = b
	tr := &mcp.StreamableClientTransport{Endpoint: w.target, HTTPClient: &h, DisableStandaloneSSE: true, MaxRetries: -1}
	s, err := mcp.NewClient(&mcp.Implementation{Name: "test"}, nil).Connect(t.Context(), tr, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func call(t *testing.T, s *mcp.ClientSession, tool string) (out, error) {
	t.Helper()
	var o out
	res, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: map[string]any{}})
	if err != nil {
		return o, err
	}
	raw, _ := json.Marshal(res.StructuredContent)
	return o, json.Unmarshal(raw, &o)
}

func TestHandler(t *testing.T) {
	for name, options := range map[string]*mcp.StreamableHTTPOptions{
		"in sessions":     nil,
		"without a state": {Stateless: true, JSONResponse: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options)
			b := &bearer{}
			read, write := w.token(t, "john", "mcp:read"), w.token(t, "john", "mcp:read mcp:write")
			b.token.Store(&read)
			s := w.connect(t, b)
			t.Run("RS-26 a tool learns who calls, and never sees the token", func(t *testing.T) {
				got, err := call(t, s, "whoami")
				if err != nil || got.Subject != "john" || got.Client != "app.test" || got.UserID != w.issuer+" john" {
					t.Errorf("%+v, %v", got, err)
				}
				if got.HasHeader {
					t.Error("attack RS-15: the SDK hands the Authorization header to tools")
				}
			})
			t.Run("RS-18, attack RS-10: a tool that needs more is not run", func(t *testing.T) {
				r, _ := http.NewRequest("POST", w.target, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"create","arguments":{}}}`))
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Accept", "application/json, text/event-stream")
				r.Header.Set("Authorization", "Bearer "+read)
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != 403 || !strings.Contains(resp.Header.Get("WWW-Authenticate"), `scope="mcp:read mcp:write"`) || w.created.Load() != 0 {
					t.Error(resp.StatusCode, resp.Header)
				}
			})
			t.Run("RS-15 each request counts with its own token", func(t *testing.T) {
				b.token.Store(&write)
				got, err := call(t, s, "create")
				if err != nil || strings.Join(got.Scopes, " ") != "mcp:read mcp:write" || w.created.Load() != 1 {
					t.Errorf("%+v, %v", got, err)
				}
			})
		})
	}
	t.Run("RS-15 a session belongs to its user", func(t *testing.T) {
		w := newWorld(t, nil)
		b := &bearer{}
		john, mary := w.token(t, "john", "mcp:read"), w.token(t, "mary", "mcp:read")
		b.token.Store(&john)
		s := w.connect(t, b)
		b.token.Store(&mary)
		if got, err := call(t, s, "whoami"); err == nil {
			t.Errorf("mary is in john's session: %+v", got)
		}
	})
	t.Run("RS-02 the metadata is served beside the server", func(t *testing.T) {
		w := newWorld(t, nil)
		resp, err := http.Get(w.http.URL + "/.well-known/oauth-protected-resource/mcp")
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(err)
		}
		resp.Body.Close()
	})
	t.Run("RS-18 the server decides again on what the SDK has read", func(t *testing.T) {
		w := newWorld(t, nil)
		near, far := mcp.NewInMemoryTransports() // past the guard
		if _, err := w.server.Connect(t.Context(), near, nil); err != nil {
			t.Fatal(err)
		}
		s, err := mcp.NewClient(&mcp.Implementation{Name: "test"}, nil).Connect(t.Context(), far, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := call(t, s, "create"); err == nil || w.created.Load() != 0 {
			t.Error("a tool ran without a token:", err)
		}
	})
	t.Run("RS-18 and on whether the token is enough for it", func(t *testing.T) {
		w := newWorld(t, nil)
		sdk := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return w.server }, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
		h := resourcemcp.WithTokenInfo(sdk) // as if the guard had read something else
		for tool, want := range map[string]bool{"whoami": true, "create": false, "unheard_of": false} {
			r := httptest.NewRequest("POST", "/mcp", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+tool+`","arguments":{}}}`))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json, text/event-stream")
			tok := resource.Token{Issuer: w.issuer, Subject: "john", Scopes: oauth.Scopes{"mcp:read"}, Expires: time.Now().Add(time.Hour)}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r.WithContext(resource.NewContext(r.Context(), tok)))
			if got := strings.Contains(rec.Body.String(), `"result"`); got != want || w.created.Load() != 0 {
				t.Errorf("%s: %d %s", tool, rec.Code, rec.Body)
			}
		}
	})
	t.Run("RS-32, attack RS-17: the SDK's stream ends with the token that opened it", func(t *testing.T) {
		w := newWorld(t, nil)
		b := &bearer{}
		long := w.token(t, "john", "mcp:read")
		b.token.Store(&long)
		s := w.connect(t, b)
		short, err := w.key.Sign("at+jwt", map[string]any{
			"iss": w.issuer, "aud": w.target, "sub": "john", "client_id": "https://app.test/c.json", "scope": "mcp:read",
			"exp": float64(time.Now().Add(300*time.Millisecond).UnixMilli()) / 1000,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, _ := http.NewRequestWithContext(ctx, "GET", w.target, nil)
		r.Header.Set("Accept", "text/event-stream")
		r.Header.Set("Authorization", "Bearer "+short)
		r.Header.Set("Mcp-Session-Id", s.ID())
		r.Header.Set("Mcp-Protocol-Version", s.InitializeResult().ProtocolVersion)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		if resp.StatusCode != 200 || ctx.Err() != nil {
			t.Error(resp.StatusCode, err, ctx.Err())
		}
	})
}

func TestWithTokenInfo(t *testing.T) {
	tok := resource.Token{Issuer: "https://as.test", Subject: "john", ClientID: "app", Scopes: oauth.Scopes{"a"}, Expires: time.Now().Add(-time.Hour)}
	t.Run("RS-26 handlers that ask the SDK find the same", func(t *testing.T) {
		h := resourcemcp.WithTokenInfo(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			info := auth.TokenInfoFromContext(r.Context())
			if info == nil || info.UserID != tok.User() || info.Extra["subject"] != "john" || info.Extra["client_id"] != "app" || len(info.Scopes) != 1 {
				t.Errorf("%+v", info)
			}
			if r.Header.Get("Authorization") != "" {
				t.Error("a header came through")
			}
		}))
		r := httptest.NewRequest("POST", "/", nil)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r.WithContext(resource.NewContext(r.Context(), tok)))
		if rec.Code != 200 {
			t.Error(rec.Code, rec.Body)
		}
	})
	t.Run("RS-15 without a guard in front nothing passes", func(t *testing.T) {
		h := resourcemcp.WithTokenInfo(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("passed") }))
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Authorization", "Bearer x")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != 500 {
			t.Error(rec.Code)
		}
	})
}

func TestAddTool(t *testing.T) {
	t.Run("RS-18 a tool has its scopes once", func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Error("the second registration would win")
			}
		}()
		s, scopes := mcp.NewServer(&mcp.Implementation{Name: "x"}, nil), resourcemcp.Scopes{"whoami": {"a"}}
		resourcemcp.AddTool(s, scopes, &mcp.Tool{Name: "whoami"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, out, error) {
			return nil, out{}, nil
		})
	})
}
