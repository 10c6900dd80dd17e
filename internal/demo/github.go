package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/resource"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// github is the protected MCP server of the demo.
type github struct {
	mu      sync.Mutex // guards what follows
	issues  []string
	refused []resource.Decision
	allowed []resource.Decision
}

// startGitHub serves two tools behind the guard. The tools do not know about
// tokens: the guard has decided before they run.
func startGitHub(t *town, ln net.Listener) (*github, error) {
	g := &github{issues: []string{"#1 Sign-in page is slow", "#2 Typo in the handbook"}}
	guard, err := resource.New(resource.Config{
		Resource:             t.resource,
		AuthorizationServers: []string{t.issuer},
		Name:                 "GitHub tools",
		Baseline:             []string{readOnly},
		Scopes:               []resource.Scope{{Name: readOnly}, {Name: readWrite, Implies: []string{readOnly}}},
		Tools:                map[string][]string{"list_issues": {readOnly}, "create_issue": {readWrite}},
		RootCAs:              t.ca.pool(),
		Observe: func(_ context.Context, d resource.Decision) {
			g.mu.Lock()
			if d.Allowed {
				g.allowed = append(g.allowed, d)
			} else {
				g.refused = append(g.refused, d)
			}
			g.mu.Unlock()
			t.trace.decision(d)
		},
	})
	if err != nil {
		return nil, err
	}
	tools := g.server()
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, nil)
	srv := web.NewServer(guard.Handler(handler))
	srv.WriteTimeout = 0 // an MCP stream may stay open
	if t.opts.HTTPS {
		pair, err := t.ca.pair()
		if err != nil {
			return nil, err
		}
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	}
	t.done.Go(func() { _ = srv.Serve(ln) }) // ends with ErrServerClosed
	closed := t.stop
	t.stop = func() { closed(); srv.Close() }
	return g, nil
}

type createArgs struct {
	Title string `json:"title" jsonschema:"title of the issue"`
}

func (g *github) server() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "github-app", Version: "1.0.0"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "list_issues", Description: "Lists the open issues."},
		func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			return say(strings.Join(g.issues, "\n")), nil, nil
		})
	mcp.AddTool(s, &mcp.Tool{Name: "create_issue", Description: "Opens an issue."},
		func(ctx context.Context, _ *mcp.CallToolRequest, a createArgs) (*mcp.CallToolResult, any, error) {
			who, ok := resource.FromContext(ctx)
			by := "nobody"
			if ok {
				by = who.ClientHost()
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			g.issues = append(g.issues, fmt.Sprintf("#%d %s", len(g.issues)+1, a.Title))
			return say(fmt.Sprintf("created issue #%d: %s (by way of %s)", len(g.issues), a.Title, by)), nil, nil
		})
	return s
}

func say(text string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}
}

// connect opens an MCP session with the agent's HTTP client, which signs in when
// it is told to.
func (t *town) connect(ctx context.Context) (*mcp.ClientSession, error) {
	c := mcp.NewClient(&mcp.Implementation{Name: "issue-agent", Version: "1.0.0"}, nil)
	return c.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: t.resource, HTTPClient: t.agent.HTTPClient(t.resource), DisableStandaloneSSE: true,
	}, nil)
}

func call(ctx context.Context, s *mcp.ClientSession, tool string, args map[string]any) (string, error) {
	res, err := s.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		return "", err
	}
	var out []string
	for _, c := range res.Content {
		if text, ok := c.(*mcp.TextContent); ok {
			out = append(out, text.Text)
		}
	}
	if res.IsError {
		return "", errors.New(tool + ": " + strings.Join(out, " "))
	}
	return strings.Join(out, "\n"), nil
}
