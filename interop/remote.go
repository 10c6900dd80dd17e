package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// remote is mcp-remote as a desktop host starts it: a local MCP server over
// standard input and output, which signs in by itself.
type remote struct {
	n    node
	h    *house
	home string
	args []string

	mu    sync.Mutex // guards words
	words strings.Builder
}

// mcpRemote signs in with the browser of the system, and again without it.
func (n node) mcpRemote(ctx context.Context, h *house) (string, error) {
	id, err := h.publish("mcp-remote", map[string]any{"redirect_uris": []string{"http://localhost/oauth/callback"}})
	if err != nil {
		return "", err
	}
	port, err := freePort(ctx)
	if err != nil {
		return "", err
	}
	r, err := n.newRemote(h, port, "--client-metadata-url", id, "--auth-timeout", "60")
	if err != nil {
		return "", err
	}
	if err := r.use(ctx, nil); err != nil {
		return "", err
	}
	if !r.asked() {
		return "", errors.New("it asked nobody: " + r.said())
	}
	if err := r.again(ctx); err != nil {
		return "", err
	}
	return "browser, tool, and again with what it kept", nil
}

// mcpRemoteDevice signs in on another device.
func (n node) mcpRemoteDevice(ctx context.Context, h *house) (string, error) {
	id, err := h.publish(remoteDevice, map[string]any{
		"redirect_uris": []string{}, "response_types": []string{},
		"grant_types": []string{"urn:ietf:params:oauth:grant-type:device_code", "refresh_token"},
	})
	if err != nil {
		return "", err
	}
	port, err := freePort(ctx)
	if err != nil {
		return "", err
	}
	r, err := n.newRemote(h, port, "--client-metadata-url", id, "--device-code")
	if err != nil {
		return "", err
	}
	answered := false
	if err := r.use(ctx, func(line string) error {
		address := strings.TrimSpace(line[strings.LastIndex(line, " ")+1:])
		if answered || !strings.HasPrefix(address, h.issuer+"/device") {
			return nil
		}
		answered = true
		_, err := h.agree(ctx, address)
		return err
	}); err != nil {
		return "", err
	}
	if !answered {
		return "", errors.New("it showed no address: " + r.said())
	}
	if err := r.again(ctx); err != nil {
		return "", err
	}
	return "code shown, tool, and again with what it kept", nil
}

func (n node) newRemote(h *house, port string, args ...string) (*remote, error) {
	home, err := os.MkdirTemp(h.dir, "mcp-remote-")
	return &remote{n: n, h: h, home: home, args: append([]string{"node_modules/mcp-remote/dist/proxy.js", h.resource, port}, args...)}, err
}

// use starts it, calls a tool and ends it. Each line it says goes to said.
func (r *remote) use(ctx context.Context, each func(line string) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := r.n.command(ctx, r.h, r.args...)
	cmd.Env = append(cmd.Env, r.h.browserEnv(r.home)...)
	cmd.Env = append(cmd.Env, "MCP_REMOTE_CONFIG_DIR="+r.home)
	out, in := io.Pipe()
	cmd.Stderr = in
	defer in.Close()
	go r.listen(out, func(line string) {
		if each == nil {
			return
		}
		if err := each(line); err != nil {
			cancel(err)
		}
	})
	session, err := mcp.NewClient(&mcp.Implementation{Name: "interop", Version: "1.0.0"}, nil).Connect(ctx, &mcp.CommandTransport{Command: cmd}, nil)
	if err != nil {
		return fmt.Errorf("%w (%v): %s", err, context.Cause(ctx), r.said())
	}
	defer session.Close()
	text, err := call(ctx, session, "list_issues", nil)
	if err != nil || !strings.Contains(text, "#1") {
		return fmt.Errorf("list_issues: %q, %w: %s", text, err, r.said())
	}
	return nil
}

// again uses it once more: nobody may be asked.
func (r *remote) again(ctx context.Context) error {
	r.mu.Lock()
	r.words.Reset()
	r.mu.Unlock()
	if err := r.use(ctx, nil); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	if r.asked() {
		return errors.New("it asked again: " + r.said())
	}
	return nil
}

func (r *remote) listen(out io.Reader, each func(string)) {
	for s := bufio.NewScanner(out); s.Scan(); {
		r.mu.Lock()
		fmt.Fprintln(&r.words, s.Text())
		r.mu.Unlock()
		each(s.Text())
	}
	_, _ = io.Copy(io.Discard, out) // a line too long: the rest does not matter
}

// asked reports whether it had a person sign in.
func (r *remote) asked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.words.String()
	return strings.Contains(s, "Please authorize this client") || strings.Contains(s, "To authorize this client")
}

func (r *remote) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.words.String()
	return s[max(0, len(s)-1200):]
}

func freePort(ctx context.Context) (string, error) {
	ln, err := listen(ctx)
	if err != nil {
		return "", err
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port, ln.Close()
}

// inspector runs the command line of the MCP Inspector: with the browser of the
// system, then with what it kept, and then it forgets that and signs in again. It
// cannot step up without a terminal, nor hold a key, nor use a device: it knows
// client_id URLs and secrets only. When it forgets a sign-in it means to revoke,
// but looks for the endpoint where its command line has kept none.
func (n node) inspector(ctx context.Context, h *house) (string, error) {
	id, err := h.publish("inspector", map[string]any{"redirect_uris": []string{"http://127.0.0.1/oauth/callback"}})
	if err != nil {
		return "", err
	}
	port, err := freePort(ctx)
	if err != nil {
		return "", err
	}
	home, err := os.MkdirTemp(h.dir, "inspector-")
	if err != nil {
		return "", err
	}
	ask := func(args ...string) (string, error) {
		cmd := n.command(ctx, h, append([]string{
			"node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js", "--cli", "--server-url", h.resource, "--transport", "http",
			"--client-metadata-url", id, "--callback-url", "http://127.0.0.1:" + port + "/oauth/callback", "--format", "json",
		}, args...)...)
		cmd.Env = append(append(cmd.Env, h.browserEnv(home)...), "MCP_AUTO_OPEN_ENABLED=true", "MCP_INSPECTOR_SECRET_STORE=file") // there is no terminal and no keychain
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%q: %w: %s %s", args, err, out, stderr.String())
		}
		return string(out), err
	}
	list := []string{"--method", "tools/call", "--tool-name", "list_issues"}
	if _, err := ask(append(list, "--stored-auth-only")...); !exited(err, "auth_required") {
		return "", fmt.Errorf("without a sign-in it did not say that one is needed: %v", err)
	}
	for _, how := range []string{"", "--stored-auth-only", "--relogin"} {
		args := list
		if how != "" {
			args = append(args[:len(args):len(args)], how)
		}
		if out, err := ask(args...); err != nil || !strings.Contains(out, "#1") {
			return "", fmt.Errorf("list_issues %s: %q, %w", how, out, err)
		}
	}
	out, err := ask("--method", "tools/list", "--stored-auth-only")
	if err != nil {
		return "", err
	}
	var listed any
	if json.Unmarshal([]byte(out), &listed) != nil || !strings.Contains(out, "create_issue") {
		return "", errors.New("tools/list: " + out)
	}
	return "browser, tool, kept sign-in, again; it has no step-up without a terminal, no keys, no device flow", nil
}

// exited reports whether a program ended with an error and a word.
func exited(err error, word string) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && strings.Contains(err.Error(), word)
}
