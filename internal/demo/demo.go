// Package demo runs the worked example on one computer: a document host, the
// authorization server, a protected MCP server and an MCP client that nobody
// registered. Every part is the real one; only the names are made up, in a small
// internet inside the process, and everything is thrown away at the end.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/client"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// Options say how the demo runs.
type Options struct {
	Out      io.Writer
	Headless bool // John is played by the program, through the real forms
	HTTPS    bool // the two servers use the throw-away CA; a browser will warn
	Color    bool
}

const (
	clientID  = "https://mcpclient.example/oauth/metadata.json"
	userName  = "john"
	readOnly  = "issues:read"
	readWrite = "issues:write"
)

// town is everything that runs during the demo.
type town struct {
	opts  Options
	trace *trace

	internet *cimdtest.Net
	ca       *authority
	dir      string
	server   *server.Server
	issuer   string
	resource string
	agent    *client.Client
	john     *john
	github   *github

	ctx  context.Context // of the whole run: the agent's callbacks take none
	stop context.CancelFunc
	done sync.WaitGroup
}

// Run runs the demo to its end: nil means that the whole worked example
// happened. Everything it made is gone when it returns.
func Run(ctx context.Context, o Options) error {
	t := &town{opts: o, trace: newTrace(o.Out, o.Color)}
	ctx, t.stop = context.WithCancel(ctx)
	t.ctx = ctx
	defer t.close()
	if err := t.build(ctx); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	t.explain()
	if err := t.story(ctx); err != nil {
		return err
	}
	if err := t.shapes(ctx); err != nil {
		return err
	}
	return t.verify(ctx)
}

func (t *town) close() {
	t.stop()
	t.done.Wait()
	if t.server != nil {
		t.server.Close()
	}
	if t.internet != nil {
		t.internet.Close()
	}
	if t.dir != "" {
		if err := os.RemoveAll(t.dir); err != nil {
			fmt.Fprintln(t.opts.Out, "could not remove", t.dir, err)
		}
	}
}

// build starts the document host, the authorization server, the MCP server and
// the client, in this order.
func (t *town) build(ctx context.Context) (err error) {
	if t.dir, err = os.MkdirTemp("", "bonafide-demo-"); err != nil {
		return err
	}
	if t.ca, err = newAuthority(); err != nil {
		return err
	}
	if t.internet, err = cimdtest.Start(); err != nil {
		return err
	}
	serverAt, err := t.listen(ctx)
	if err != nil {
		return err
	}
	githubAt, err := t.listen(ctx)
	if err != nil {
		return err
	}
	t.issuer, t.resource = t.origin(serverAt), t.origin(githubAt)+"/mcp"
	t.trace.name(t.issuer, t.resource)
	if err := t.publish(); err != nil {
		return err
	}
	if err := t.startServer(ctx, serverAt); err != nil {
		return err
	}
	t.github, err = startGitHub(t, githubAt)
	return err
}

func (t *town) listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", "127.0.0.1:0")
}

// origin names a listener as its clients do. A browser takes http://localhost
// for as safe as https, so that the demo needs no certificate warning.
func (t *town) origin(ln net.Listener) string {
	scheme := "http"
	if t.opts.HTTPS {
		scheme = "https"
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return scheme + "://localhost:" + port
}

// publish makes the agent's key and puts its document and key set on the
// document host, with the toolkit that any client maker would use.
func (t *town) publish() error {
	key, err := client.GenerateKey("ES256")
	if err != nil {
		return err
	}
	t.agent, err = client.New(client.Config{
		ID: clientID, Key: key, Redirect: "http://127.0.0.1/callback",
		RootCAs: t.ca.pool(), Open: t.open, Wait: 15 * time.Minute, Trace: t.trace.step,
	})
	if err != nil {
		return err
	}
	host := t.internet.Host("mcpclient.example")
	doc := t.agent.Document("Issue Agent")
	doc.JWKS, doc.JWKSURI = nil, host.URL("/oauth/jwks.json")
	doc.ClientURI = host.URL("/")
	body, err := doc.Publish()
	if err != nil {
		return err
	}
	keys, err := client.PublicKeys(key)
	if err != nil {
		return err
	}
	host.Serve("/oauth/metadata.json", served(body, "application/json"))
	host.Serve("/oauth/jwks.json", served(keys, "application/jwk-set+json"))
	return nil
}

func served(body []byte, mediaType string) cimdtest.Response {
	return cimdtest.Response{Body: body, Header: map[string][]string{
		"Content-Type": {mediaType}, "Cache-Control": {"public, max-age=3600"}, "Etag": {`"v1"`},
	}}
}

// startServer writes a configuration as an operator would, adds John, and runs
// the daemon's own code on it.
func (t *town) startServer(ctx context.Context, ln net.Listener) error {
	key := filepath.Join(t.dir, "bonafide.key")
	if err := os.WriteFile(key, []byte(oauth.RandomToken(32)), 0o600); err != nil {
		return err
	}
	text := strings.NewReplacer("{{issuer}}", t.issuer, "{{listen}}", ln.Addr().String(), "{{resource}}", t.resource).Replace(configuration)
	if t.opts.HTTPS {
		cert, keyFile, err := t.ca.files(t.dir)
		if err != nil {
			return err
		}
		text += fmt.Sprintf("tls: {cert_file: %s, key_file: %s}\n", cert, keyFile)
	}
	cfg, err := server.Parse([]byte(text), t.dir, true)
	if err != nil {
		return err
	}
	egress := t.internet.Egress()
	t.server, err = server.New(ctx, cfg, server.Options{
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		Observe: func(e audit.Event) { t.trace.event(e) },
		Egress:  &cimd.Egress{Lookup: egress.Lookup, Dial: egress.Dial, RootCAs: egress.RootCAs},
	})
	if err != nil {
		return err
	}
	if err := t.addJohn(ctx, cfg.StorePath()); err != nil {
		return err
	}
	t.done.Go(func() {
		if err := t.server.Run(ctx, ln, nil); err != nil && ctx.Err() == nil {
			t.trace.say("the server stopped: " + err.Error())
		}
	})
	return nil
}

// addJohn does what `bonafide user add` does, through the same file.
func (t *town) addJohn(ctx context.Context, path string) error {
	b, err := browse.New(browse.Config{RootCAs: t.ca.pool()})
	if err != nil {
		return err
	}
	t.john = &john{town: t, password: oauth.RandomToken(9), browser: b}
	u, err := login.NewUser(userName, "john@acme.example", t.john.password, time.Now())
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, store.Config{Path: path, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return err
	}
	defer s.Close()
	return s.AddUser(ctx, u)
}

// open is how the agent shows John a page: it prints the address, or it plays
// John itself.
func (t *town) open(url string) error {
	if !t.opts.Headless {
		t.trace.invite(url, userName, t.john.password)
		return nil
	}
	t.done.Go(func() {
		if err := t.john.visit(t.ctx, url); err != nil && t.ctx.Err() == nil {
			t.john.failed(err)
			t.stop()
		}
	})
	return nil
}

// story is the worked example.
func (t *town) story(ctx context.Context) error {
	t.trace.chapter("1", "The agent asks github-app to list issues. It has no token and no registration anywhere.")
	session, err := t.connect(ctx)
	if err != nil {
		return t.because(err)
	}
	defer session.Close()
	text, err := call(ctx, session, "list_issues", nil)
	if err != nil {
		return t.because(err)
	}
	t.trace.answer("list_issues", text)

	t.trace.chapter("2", "The agent wants to create an issue. John has only agreed to reading.")
	text, err = call(ctx, session, "create_issue", map[string]any{"title": "Logo is missing on the pricing page"})
	if err != nil {
		return t.because(err)
	}
	t.trace.answer("create_issue", text)
	return nil
}

// because finds the reason behind a failed call: what John said or saw.
func (t *town) because(err error) error {
	if e := t.john.err(); e != nil {
		return e
	}
	var refused *client.ServerError
	if errors.As(err, &refused) && refused.Code == oauth.AccessDenied {
		return errors.New("nothing was shared, because John said no; run the demo again to say yes")
	}
	return err
}

func (t *town) explain() {
	t.trace.say(`Bonafide: where OAuth clients introduce themselves.

An AI agent that nobody registered wants to use a protected MCP server for John.
All it has is a document that says who it is. Everything below happens now, on
this computer, with the parts that you would run; it is thrown away at the end.
`)
	t.trace.facts([][2]string{
		{"agent", clientID + "   (a document on a host inside this process)"},
		{"server", t.issuer + "   (the authorization server; SQLite in " + t.dir + ")"},
		{"github-app", t.resource + "   (an MCP server: list_issues, create_issue)"},
	})
}

const configuration = `
issuer: {{issuer}}
listen: {{listen}}
brand: {name: Acme}
cimd: {enabled: true, allow_test_names: true}
par: {life: 10m} # people read what is printed before they open the address
resources:
  - id: {{resource}}
    name: GitHub tools
    default_scopes: [issues:read]
    scopes:
      - name: issues:read
        title: read issues
        description: It can see the issues that you can see.
        tools: [list_issues]
      - name: issues:write
        title: create issues
        description: It can open issues in your name.
        tools: [create_issue]
        implies: [issues:read]
policy: {default: allow}
`
