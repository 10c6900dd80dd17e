// Command mcp-client signs its user in at a protected MCP server and calls one
// of its tools. It prints every exchange and every check of the sign-in.
//
//	mcp-client -id https://app.example/client.json \
//	    -resource https://mcp.example/mcp -tool create_issue title="Buy milk"
//
// Without a web server of your own, and with an authorization server on this
// computer (bonafide serve --dev), it publishes its document itself:
//
//	mcp-client -publish -id http://127.0.0.1:8082/client.json \
//	    -resource http://127.0.0.1:8081/mcp
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bonafide-id/bonafide/client"
)

func main() {
	var o options
	flag.StringVar(&o.id, "id", os.Getenv("CLIENT_ID"), "URL of the client's document")
	flag.StringVar(&o.target, "resource", os.Getenv("RESOURCE"), "URL of the MCP server")
	flag.StringVar(&o.tool, "tool", "list_issues", "tool to call; arguments follow as name=value")
	flag.BoolVar(&o.keep, "keep", true, "keep tokens for the next run")
	flag.BoolVar(&o.publish, "publish", false, "serve the document at -id, which is then http on this computer")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mcp-client:", err)
		os.Exit(1)
	}
}

type options struct {
	id, target, tool string
	keep, publish    bool
}

func run(ctx context.Context, o options, arguments []string) error {
	if o.id == "" || o.target == "" {
		return errors.New("-id and -resource are needed; see -help")
	}
	cfg := client.Config{ID: o.id, Trace: printer(os.Stderr), Open: open}
	if o.keep {
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
	if o.publish {
		stop, err := publish(ctx, c, o.id)
		if err != nil {
			return fmt.Errorf("publish the document: %w", err)
		}
		defer stop()
	}
	return call(ctx, c, os.Stdout, o.target, &mcp.CallToolParams{Name: o.tool, Arguments: args})
}

// open shows the URL as well: not every terminal has a browser beside it.
func open(address string) error {
	fmt.Fprintf(os.Stderr, "\nSign in here, if no browser opens by itself:\n\n  %s\n\n", address)
	if err := client.OpenBrowser(address); err != nil {
		fmt.Fprintln(os.Stderr, "mcp-client:", err)
	}
	return nil
}

// publish serves the client's document at its client_id while the program runs.
// That is for trying things out: others can read it as long as it is there, and
// an authorization server that is not on this computer cannot at all.
func publish(ctx context.Context, c *client.Client, id string) (stop func(), err error) {
	at, err := url.Parse(id)
	if err != nil || at.Scheme != "http" {
		return nil, fmt.Errorf("%s is not an http URL on this computer", id)
	}
	raw, err := c.Document("Example client").Publish()
	if err != nil {
		return nil, err
	}
	document := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != at.EscapedPath() {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(raw)
	})
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(at.Hostname(), cmp.Or(at.Port(), "80")))
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: document, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(ln) }()
	return func() { _ = server.Close() }, nil
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
