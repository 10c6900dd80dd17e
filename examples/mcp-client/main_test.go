package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bonafide-id/bonafide/client"
	"github.com/bonafide-id/bonafide/oauth"
)

// town is an authorization server and an MCP server in one process. The tool
// create_issue needs more than the first token has.
func newTown(t *testing.T) (target string) {
	t.Helper()
	requests := map[string]url.Values{} // by code
	scopes := map[string]string{}       // by access token
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	target = srv.URL + "/mcp"
	metadata := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }
	}
	mux.HandleFunc("/.well-known/oauth-protected-resource/mcp", metadata(oauth.ResourceMetadata{Resource: target, AuthorizationServers: []string{srv.URL}}))
	mux.HandleFunc("/.well-known/oauth-authorization-server", metadata(oauth.ServerMetadata{
		Issuer: srv.URL, AuthorizationEndpoint: srv.URL + "/authorize", TokenEndpoint: srv.URL + "/token",
		CodeChallengeMethodsSupported: []string{"S256"}, ClientIDMetadataDocument: true, IssParameterSupported: true,
	}))
	mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		code := oauth.RandomToken(8)
		requests[code] = q
		http.Redirect(w, r, oauth.AppendQuery(q.Get("redirect_uri"), "code", code, "state", q.Get("state"), "iss", srv.URL), http.StatusSeeOther)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		q := requests[r.FormValue("code")]
		if !oauth.VerifierMatches(r.FormValue("code_verifier"), q.Get("code_challenge")) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		token := oauth.RandomToken(8)
		scopes[token] = q.Get("scope")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": q.Get("scope")})
	})
	server := mcp.NewServer(&mcp.Implementation{Name: "tracker"}, nil)
	tool := func(name string) {
		server.AddTool(&mcp.Tool{Name: name, InputSchema: json.RawMessage(`{"type":"object"}`)}, func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: name + " " + string(req.Params.Arguments)}}}, nil
		})
	}
	tool("list_issues")
	tool("create_issue")
	inner := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
	mux.HandleFunc("/mcp", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		needs := "issues:read"
		if bytes.Contains(body, []byte(`"create_issue"`)) {
			needs = "issues:write"
		}
		scope, ok := scopes[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		challenge := `resource_metadata="` + srv.URL + `/.well-known/oauth-protected-resource/mcp", scope="` + needs + `"`
		switch {
		case !ok:
			w.Header().Set("WWW-Authenticate", "Bearer "+challenge)
			w.WriteHeader(http.StatusUnauthorized)
		case !strings.Contains(" "+scope+" ", " "+needs+" "):
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", `+challenge)
			w.WriteHeader(http.StatusForbidden)
		default:
			inner.ServeHTTP(w, r)
		}
	})
	return target
}

func TestCall(t *testing.T) {
	target := newTown(t)
	var told, out bytes.Buffer
	var opened []string
	c, err := client.New(client.Config{
		ID:    "https://app.test/client.json",
		Trace: printer(&told),
		Open: func(address string) error {
			opened = append(opened, address)
			go func() {
				if resp, err := http.Get(address); err == nil {
					resp.Body.Close()
				}
			}()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("CLI-01, CLI-12 the MCP SDK signs in at the first request and steps up at the tool that needs it", func(t *testing.T) {
		if err := call(t.Context(), c, &out, target, &mcp.CallToolParams{Name: "list_issues"}); err != nil {
			t.Fatal(err)
		}
		args, err := parse([]string{"title=Buy milk"})
		if err != nil {
			t.Fatal(err)
		}
		if err := call(t.Context(), c, &out, target, &mcp.CallToolParams{Name: "create_issue", Arguments: args}); err != nil {
			t.Fatal(err)
		}
		if len(opened) != 2 || !strings.Contains(out.String(), `create_issue {"title":"Buy milk"}`) {
			t.Error(len(opened), out.String())
		}
		for n, want := range []string{"issues:read", "issues:read issues:write"} {
			u, _ := url.Parse(opened[n])
			if got := u.Query().Get("scope"); got != want {
				t.Errorf("sign-in %d asked for %q", n, got)
			}
		}
	})
	t.Run("CLI-05 every check is told", func(t *testing.T) {
		for _, line := range []string{"ok   check  the authorization server advertises PKCE with S256", "ok   ask    redeem the code for tokens - ", "/mcp (401)", `error="insufficient_scope"`, "/mcp (403)"} {
			if !strings.Contains(told.String(), line) {
				t.Errorf("%q is missing in\n%s", line, told.String())
			}
		}
	})
	t.Run("CLI-01 arguments that are none", func(t *testing.T) {
		if _, err := parse([]string{"title"}); err == nil {
			t.Error("parsed")
		}
	})
}

func TestPublish(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	id := "http://" + ln.Addr().String() + "/client.json"
	ln.Close()
	c, err := client.New(client.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	stop, err := publish(t.Context(), c, id)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	t.Run("CLI-28 the document that it publishes fits the client", func(t *testing.T) {
		if err := c.CheckPublished(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("CLI-06 nothing else is there, and only a computer's own address can be served", func(t *testing.T) {
		resp, err := http.Get(strings.Replace(id, "client", "other", 1))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Error(resp.Status)
		}
		if _, err := publish(t.Context(), c, "https://app.test/client.json"); err == nil || !strings.Contains(err.Error(), "https://app.test/client.json") {
			t.Error(err)
		}
	})
}
