// Command mcp-client signs its user in at a protected MCP server and calls one
// of its tools. It prints every exchange and every check of the sign-in.
//
//	mcp-client -id https://app.example/client.json \
//	    -resource https://mcp.example/mcp -tool create_issue title="Buy milk"
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bonafide-id/bonafide/client"
)

func main() {
	id := flag.String("id", os.Getenv("CLIENT_ID"), "URL of the client's document")
	target := flag.String("resource", os.Getenv("RESOURCE"), "URL of the MCP server")
	tool := flag.String("tool", "list_issues", "tool to call; arguments follow as name=value")
	keep := flag.Bool("keep", true, "keep tokens for the next run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *id, *target, *tool, *keep, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mcp-client:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, id, target, tool string, keep bool, arguments []string) error {
	cfg := client.Config{ID: id, Trace: printer(os.Stderr)}
	if keep {
		dir, err := os.UserConfigDir()
		if err != nil {
			return err
		}
		if cfg.Store, err = client.NewFileStore(filepath.Join(dir, "bonafide-mcp-client")); err != nil {
			return err
		}
	}
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	args, err := parse(arguments)
	if err != nil {
		return err
	}
	return call(ctx, c, os.Stdout, target, &mcp.CallToolParams{Name: tool, Arguments: args})
}

// call connects and calls the tool. All that it takes to be signed in is the
// http.Client.
func call(ctx context.Context, c *client.Client, out io.Writer, target string, params *mcp.CallToolParams) error {
	transport := &mcp.StreamableClientTransport{Endpoint: target, HTTPClient: c.HTTPClient(target), DisableStandaloneSSE: true}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "mcp-client", Version: "1.0.0"}, nil).Connect(ctx, transport, nil)
	if err != nil {
		return err
	}
	defer session.Close()
	result, err := session.CallTool(ctx, params)
	if err != nil {
		return err
	}
	for _, content := range result.Content {
		if text, ok := content.(*mcp.TextContent); ok {
			fmt.Fprintln(out, text.Text)
		}
	}
	if result.IsError {
		return fmt.Errorf("tool %s failed", params.Name)
	}
	return nil
}

func parse(arguments []string) (map[string]any, error) {
	args := map[string]any{}
	for _, a := range arguments {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			return nil, fmt.Errorf("argument %q must read name=value", a)
		}
		args[name] = value
	}
	return args, nil
}

// printer tells the steps of a sign-in, one line each.
func printer(w io.Writer) func(client.Step) {
	return func(s client.Step) {
		mark, end := "ok  ", ""
		if !s.OK() {
			mark, end = "FAIL", ": "+s.Err.Error()
		}
		if s.Status != 0 {
			end = fmt.Sprintf(" (%d)%s", s.Status, end)
		}
		if s.To != "" {
			end = " - " + s.To + end
		}
		fmt.Fprintf(w, "%s %-6s %s%s\n", mark, s.Kind, s.Text, end)
	}
}
