// Command mcp-server is a small issue tracker as an MCP server, protected by
// Bonafide: reading issues needs issues:read, writing them issues:write.
//
//	mcp-server -listen 127.0.0.1:8081 \
//	    -resource http://127.0.0.1:8081/mcp -issuer http://localhost:8080
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bonafide-id/bonafide/resource"
	"github.com/bonafide-id/bonafide/resource/resourcemcp"
)

func main() {
	listen := flag.String("listen", env("LISTEN", "127.0.0.1:8081"), "address to listen on")
	public := flag.String("resource", env("RESOURCE", "http://127.0.0.1:8081/mcp"), "public URL of this server, as clients write it")
	issuer := flag.String("issuer", env("ISSUER", "http://localhost:8080"), "the authorization server")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := serve(ctx, *listen, resource.Config{Resource: *public, AuthorizationServers: []string{*issuer}}); err != nil {
		fmt.Fprintln(os.Stderr, "mcp-server:", err)
		os.Exit(1)
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func serve(ctx context.Context, listen string, cfg resource.Config) error {
	handler, err := newHandler(cfg)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: listen, Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(grace)
	}()
	slog.Info("serving", "resource", cfg.Resource, "listen", listen)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newHandler puts the tracker behind a guard. Everything about permissions is
// in this function.
func newHandler(cfg resource.Config) (http.Handler, error) {
	t := &tracker{}
	server := mcp.NewServer(&mcp.Implementation{Name: "issue-tracker", Version: "1.0.0"}, nil)
	scopes := resourcemcp.Scopes{}
	resourcemcp.AddTool(server, scopes, &mcp.Tool{Name: "list_issues", Description: "List your issues."}, t.list)
	resourcemcp.AddTool(server, scopes, &mcp.Tool{Name: "create_issue", Description: "Open an issue in your name."}, t.create, "issues:write")

	cfg.Name = "Issue tracker"
	cfg.Baseline = []string{"issues:read"}
	cfg.Scopes = []resource.Scope{{Name: "issues:read"}, {Name: "issues:write", Implies: []string{"issues:read"}}}
	cfg.Tools = scopes
	cfg.Observe = func(_ context.Context, d resource.Decision) {
		slog.Info("request", "allowed", d.Allowed, "status", d.Status, "rule", d.Rule, "method", d.Method, "tool", d.Tool,
			"user", d.Token.Subject, "client", d.Token.ClientHost(), "error", d.Err)
	}
	guard, err := resource.New(cfg)
	if err != nil {
		return nil, err
	}
	return resourcemcp.Handler(guard, server, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true}), nil
}

// tracker holds everybody's issues, in memory. A scope lets a client use a tool;
// whose issues it sees is decided here, by the user behind the token.
type tracker struct {
	mu     sync.Mutex // guards issues
	issues map[string][]issue
}

type issue struct {
	Number int    `json:"number"`
	Title  string `json:"title"`
}

type listOutput struct {
	Issues []issue `json:"issues"`
}

func (t *tracker) list(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, listOutput, error) {
	caller, ok := resource.FromContext(ctx)
	if !ok {
		return nil, listOutput{}, errors.New("nobody is signed in")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return nil, listOutput{append([]issue{}, t.issues[caller.User()]...)}, nil
}

type createInput struct {
	Title string `json:"title" jsonschema:"what the issue is about"`
}

func (t *tracker) create(ctx context.Context, _ *mcp.CallToolRequest, in createInput) (*mcp.CallToolResult, issue, error) {
	caller, ok := resource.FromContext(ctx)
	if !ok {
		return nil, issue{}, errors.New("nobody is signed in")
	}
	if in.Title == "" || len(in.Title) > 200 {
		return nil, issue{}, errors.New("a title has 1 to 200 characters")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.issues == nil {
		t.issues = map[string][]issue{}
	}
	mine := t.issues[caller.User()]
	made := issue{Number: len(mine) + 1, Title: in.Title}
	t.issues[caller.User()] = append(slices.Clip(mine), made)
	return nil, made, nil
}
