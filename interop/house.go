package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// house is a running release binary with its surroundings: document host,
// protected MCP server, and a person.
type house struct {
	scheme   string // http or https: how clients reach the issuer and the resource
	store    string // the database, as the configuration names it; "" is a file
	dir      string
	issuer   string
	resource string
	person   string // URL of the person's doorbell
	browser  string // a program that opens an address as the system's browser would
	password string
	ca       *authority
	docs     *documents

	stop    context.CancelFunc
	started bool
	ended   chan struct{} // closed when the server has ended

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

const user = "john"

// startHouse starts everything. Over http the server runs with --dev and clients
// publish on loopback; over https it runs as in production, and documents are
// reached under their names by way of an egress proxy.
func startHouse(ctx context.Context, binary, scheme, store string) (*house, error) {
	h := &house{scheme: scheme, store: store, password: oauth.RandomToken(12), ended: make(chan struct{})}
	ctx, h.stop = context.WithCancel(ctx)
	if err := h.build(ctx, binary); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// close stops the server, waits for its end and removes what it wrote.
func (h *house) close() {
	if h == nil {
		return
	}
	h.stop()
	if h.started {
		<-h.ended
	}
	if err := os.RemoveAll(h.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func (h *house) build(ctx context.Context, binary string) (err error) {
	if h.dir, err = os.MkdirTemp("", "bonafide-interop-"); err != nil {
		return err
	}
	if h.ca, err = newAuthority(h.dir); err != nil {
		return err
	}
	if h.docs, err = startDocuments(ctx, h.ca); err != nil {
		return err
	}
	mcpAt, err := listen(ctx)
	if err != nil {
		return err
	}
	h.resource = h.origin(mcpAt.Addr()) + "/mcp"
	serverAt, err := listen(ctx) // finds a free port
	if err != nil {
		return err
	}
	h.issuer = h.origin(serverAt.Addr())
	if err := serverAt.Close(); err != nil {
		return err
	}
	if err := h.startServer(ctx, binary, serverAt.Addr().String()); err != nil {
		return err
	}
	if err := h.startTools(ctx, mcpAt); err != nil {
		return err
	}
	return h.startPerson(ctx)
}

func (h *house) origin(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return h.scheme + "://localhost:" + port
}

// tls wraps a listener where the house speaks https.
func (h *house) tls(ln net.Listener) net.Listener {
	if h.scheme == "http" {
		return ln
	}
	return tls.NewListener(ln, h.ca.config())
}

// clientID returns the client_id under which a client of this house publishes.
func (h *house) clientID(name string) string {
	if h.scheme == "http" {
		_, port, _ := net.SplitHostPort(h.docs.addr)
		return "https://localhost:" + port + "/" + name + "/client.json"
	}
	return "https://" + name + ".example/oauth/client.json"
}

// publish puts a document of a native client on the document host and returns
// its client_id.
func (h *house) publish(name string, change map[string]any) (string, error) {
	id := h.clientID(name)
	doc := map[string]any{
		"client_id": id, "client_name": "Interop " + name, "application_type": "native",
		"redirect_uris": []string{"http://127.0.0.1/callback"},
		"grant_types":   []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
		"token_endpoint_auth_method": "none",
	}
	for k, v := range change {
		doc[k] = v
	}
	return id, h.docs.publish(id, doc, "public, max-age=300")
}

const configuration = `
issuer: %s
listen: %s
store: %q
brand: {name: Acme}
cimd: {enabled: true%s}
resources:
  - id: %s
    name: GitHub tools
    default_scopes: [issues:read]
    scopes:
      - {name: "issues:read", title: read issues, description: It can see the issues that you can see., tools: [list_issues]}
      - {name: "issues:write", title: create issues, description: It can open issues in your name., tools: [create_issue], implies: ["issues:read"]}
policy:
  default: allow
  rules:
    - {client: %q, action: allow}
    - {client: %q, action: allow}
    - {client: %q, action: allow, grants: [client_credentials], scopes: ["issues:read"]}
`

// The clients that a rule has to name: of devices, and one that acts for itself.
const (
	remoteDevice = "mcp-remote-device"
	openidDevice = "openid-client-device"
	openidAlone  = "openid-client-alone"
)

func (h *house) startServer(ctx context.Context, binary, listen string) error {
	egress, tail := fmt.Sprintf(", egress: {ca_file: %s}", h.ca.file), ""
	if h.scheme == "https" {
		cert, key, err := h.ca.files(h.dir, "localhost")
		if err != nil {
			return err
		}
		egress = fmt.Sprintf(", allow_test_names: true, egress: {proxy: %q, ca_file: %s}", h.docs.proxy, h.ca.file)
		tail = fmt.Sprintf("tls: {cert_file: %s, key_file: %s}\n", cert, key)
	}
	config := filepath.Join(h.dir, "bonafide.yaml")
	dev := []string{}
	if h.scheme == "http" {
		dev = append(dev, "--dev")
	}
	if out, err := run(ctx, "", binary, "init", "--dir", h.dir, "--issuer", "https://localhost"); err != nil {
		return fmt.Errorf("bonafide init: %w: %s", err, out)
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration+tail, h.issuer, listen, cmp.Or(h.store, "bonafide.db"), egress, h.resource,
		h.clientID(remoteDevice), h.clientID(openidDevice), h.clientID(openidAlone)), 0o600); err != nil {
		return err
	}
	if out, err := run(ctx, "", binary, append([]string{"config", "check", "-c", config}, dev...)...); err != nil {
		return fmt.Errorf("bonafide config check: %w: %s", err, out)
	}
	if out, err := run(ctx, h.password+"\n", binary, "user", "add", user, "-c", config, "--password-file", "-"); err != nil {
		return fmt.Errorf("bonafide user add: %w: %s", err, out)
	}
	return h.serve(ctx, binary, append([]string{"serve", "-c", config, "--log", "json"}, dev...))
}

// serve starts the binary and waits until it says that it is ready.
func (h *house) serve(ctx context.Context, binary string, args []string) error {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{"HOME=" + h.dir, "PATH=/usr/bin:/bin"}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	h.started = true
	ready := make(chan struct{})
	go func() {
		defer close(h.ended)
		s := bufio.NewScanner(stderr)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			h.mu.Lock()
			h.log.Write(append(s.Bytes(), '\n'))
			h.mu.Unlock()
			var line struct{ Msg string }
			if json.Unmarshal(s.Bytes(), &line) == nil && line.Msg == "ready" {
				close(ready)
			}
		}
		_ = cmd.Wait() // the log says why
	}()
	select {
	case <-ready:
		return nil
	case <-h.ended:
	case <-time.After(20 * time.Second):
	}
	return errors.New("the server is not ready: " + h.said(2000))
}

// said returns the end of the server's log.
func (h *house) said(n int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.log.String()
	return s[max(0, len(s)-n):]
}

func run(ctx context.Context, in, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
