package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/bonafide-id/bonafide/resource"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// startTools serves two tools behind the guard, as any MCP server would.
func (h *house) startTools(ctx context.Context, ln net.Listener) error {
	guard, err := resource.New(resource.Config{
		Resource:             h.resource,
		AuthorizationServers: []string{h.issuer},
		Name:                 "GitHub tools",
		Baseline:             []string{"issues:read"},
		Scopes:               []resource.Scope{{Name: "issues:read"}, {Name: "issues:write", Implies: []string{"issues:read"}}},
		Tools:                map[string][]string{"list_issues": {"issues:read"}, "create_issue": {"issues:write"}},
		RootCAs:              h.ca.pool(),
	})
	if err != nil {
		return err
	}
	tools := tools()
	serve(ctx, h.tls(ln), guard.Handler(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, nil)))
	return nil
}

type issue struct {
	Title string `json:"title"`
}

func tools() *mcp.Server {
	var mu sync.Mutex
	issues := []string{"#1 Sign-in page is slow"}
	s := mcp.NewServer(&mcp.Implementation{Name: "github-app", Version: "1.0.0"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "list_issues", Description: "Lists the open issues."},
		func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			mu.Lock()
			defer mu.Unlock()
			return say(strings.Join(issues, "\n")), nil, nil
		})
	mcp.AddTool(s, &mcp.Tool{Name: "create_issue", Description: "Opens an issue."},
		func(_ context.Context, _ *mcp.CallToolRequest, i issue) (*mcp.CallToolResult, any, error) {
			mu.Lock()
			defer mu.Unlock()
			issues = append(issues, fmt.Sprintf("#%d %s", len(issues)+1, i.Title))
			return say("created " + issues[len(issues)-1]), nil, nil
		})
	return s
}

func say(text string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}
}

// call calls a tool and returns the text of its answer.
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
