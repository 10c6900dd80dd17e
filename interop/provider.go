package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/client"
	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// foreign is an authorization server that others wrote, oidc-provider, with a
// house around it that has no server of ours.
type foreign struct {
	*house
	end   func()
	mu    sync.Mutex // guards words
	words bytes.Buffer
}

// way is one way in which our client signs in there.
type way struct {
	name     string
	config   client.Config
	key      bool     // it holds a key that its document publishes
	document []string // methods or grants instead of the usual ones
	steps    []string // what the trace must say
	typ      string   // of the token
}

// provider lets our client toolkit sign in at oidc-provider in every way that both
// have. It speaks http: what is read over https comes from the document host.
func (t *table) provider(ctx context.Context, n node, nodeErr error) {
	const title = "client toolkit at oidc-provider "
	device := func(context.Context, client.DeviceCode) error { return nil } // set below
	ways := []way{
		{name: "CIMD, PAR", steps: []string{"push the authorization request"}, typ: "Bearer"},
		{name: "CIMD, PAR, private_key_jwt", key: true, steps: []string{"push the authorization request"}, typ: "Bearer"},
		{name: "CIMD, PAR, DPoP with nonces", config: client.Config{DPoP: client.DPoPAlways}, steps: []string{"push the authorization request"}, typ: "DPoP"},
		{name: "CIMD, PAR, private_key_jwt, DPoP", config: client.Config{DPoP: client.DPoPAlways}, key: true, typ: "DPoP"},
		{name: "CIMD, device flow", config: client.Config{Device: device}, document: []string{oauth.GrantDeviceCode, oauth.GrantRefreshToken}, typ: "Bearer"},
		{name: "CIMD, device flow, DPoP", config: client.Config{Device: device, DPoP: client.DPoPAlways}, document: []string{oauth.GrantDeviceCode, oauth.GrantRefreshToken}, typ: "DPoP"},
		{name: "CIMD, client credentials, private_key_jwt", config: client.Config{Alone: true}, key: true, document: []string{oauth.GrantClientCredentials}, typ: "Bearer"},
		{name: "CIMD, PAR, attestation", config: client.Config{Methods: []string{oauth.MethodAttestation}}, key: true, typ: "Bearer"},
		{name: "CIMD, PAR, attestation, DPoP", config: client.Config{Methods: []string{oauth.MethodAttestation}, DPoP: client.DPoPAlways}, key: true, typ: "DPoP"},
	}
	var f *foreign
	err := nodeErr
	if err == nil && slices.ContainsFunc(ways, func(w way) bool {
		return t.only.MatchString(title + version("oidc-provider") + ", " + w.name + " (http)")
	}) {
		if f, err = n.startProvider(ctx); err == nil {
			defer f.end()
		}
	}
	for i, w := range ways {
		t.add(ctx, title+version("oidc-provider")+", "+w.name, "http", 45*time.Second, func(ctx context.Context) (string, error) {
			if err != nil {
				return "", err
			}
			detail, err := f.signIn(ctx, fmt.Sprint("toolkit-", i), w)
			if err != nil {
				err = fmt.Errorf("%w\nits last words: %s", err, f.last())
			}
			return detail, err
		})
	}
}

// startProvider starts the server and a resource that trusts it.
func (n node) startProvider(ctx context.Context) (*foreign, error) {
	ctx, stop := context.WithCancel(ctx)
	f := &foreign{house: &house{scheme: "http"}, end: stop}
	err := f.start(ctx, n)
	if err != nil {
		f.end()
	}
	return f, err
}

func (f *foreign) start(ctx context.Context, n node) (err error) {
	h, stop := f.house, f.end
	if h.dir, err = os.MkdirTemp("", "bonafide-interop-"); err != nil {
		return err
	}
	f.end = func() { stop(); os.RemoveAll(h.dir) }
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
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	h.issuer = "http://localhost:" + port
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		return err
	}
	private, err := key.MarshalJSON()
	if err != nil {
		return err
	}
	cmd := n.command(ctx, h, "js/provider.mjs", port)
	cmd.Env = append(cmd.Env, "KEY="+string(private))
	cmd.Stderr = f
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	f.end = func() {
		in.Close()
		stop()
		_ = cmd.Wait() // it is told to end
		os.RemoveAll(h.dir)
	}
	words := bufio.NewScanner(out)
	for words.Scan() && words.Text() != "ready" {
	}
	if words.Text() != "ready" {
		return errors.New("oidc-provider does not start: " + f.last())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
	return h.startTools(ctx, mcpAt)
}

// Write keeps what the server says.
func (f *foreign) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.words.Write(p)
}

func (f *foreign) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.words.String()
	return s[max(0, len(s)-1500):]
}

// signIn has the client sign in, call a tool, and refresh.
func (f *foreign) signIn(ctx context.Context, name string, w way) (string, error) {
	cfg, opened := w.config, 0
	var steps []string
	var mu sync.Mutex // guards steps
	cfg.ID = f.clientID(name)
	cfg.Store = client.NewMemoryStore()
	cfg.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.ca.pool()}}, Timeout: 20 * time.Second}
	cfg.Open = func(address string) error {
		opened++
		return f.visit(ctx, address, true)
	}
	if cfg.Device != nil {
		cfg.Device = func(_ context.Context, code client.DeviceCode) error {
			opened++
			return f.visit(ctx, code.Complete, false)
		}
	}
	cfg.Trace = func(s client.Step) {
		mu.Lock()
		defer mu.Unlock()
		steps = append(steps, strings.TrimSpace(fmt.Sprint(s.Text, " ", s.Err)))
	}
	if err := f.introduce(name, w, &cfg); err != nil {
		return "", err
	}
	c, err := client.New(cfg)
	if err != nil {
		return "", err
	}
	use := func() error {
		session, err := mcp.NewClient(&mcp.Implementation{Name: "interop", Version: "1.0.0"}, nil).Connect(ctx,
			&mcp.StreamableClientTransport{Endpoint: f.resource, HTTPClient: c.HTTPClient(f.resource), DisableStandaloneSSE: true}, nil)
		if err != nil {
			return err
		}
		defer session.Close()
		text, err := call(ctx, session, "list_issues", nil)
		if err == nil && !strings.Contains(text, "#1") {
			err = errors.New("list_issues: " + text)
		}
		return err
	}
	if err := use(); err != nil {
		return "", fmt.Errorf("%w\nthe client's steps: %s", err, strings.Join(steps[max(0, len(steps)-12):], "; "))
	}
	g, err := cfg.Store.Load(ctx, f.resource)
	switch {
	case err != nil || g == nil:
		return "", fmt.Errorf("nothing was kept: %w", err)
	case !strings.EqualFold(cmp.Or(g.TokenType, "Bearer"), w.typ):
		return "", fmt.Errorf("the token is of type %q, want %s", g.TokenType, w.typ)
	case cfg.Alone && opened != 0, !cfg.Alone && opened != 1:
		return "", fmt.Errorf("a person was asked %d times", opened)
	}
	for _, want := range w.steps {
		if !slices.ContainsFunc(steps, func(s string) bool { return strings.Contains(s, want) }) {
			return "", fmt.Errorf("it did not %s: %s", want, strings.Join(steps, "; "))
		}
	}
	if err := f.wearOut(ctx, cfg.Store); err != nil {
		return "", err
	}
	before := g.RefreshToken
	if err := use(); err != nil {
		return "", fmt.Errorf("with a worn-out token: %w\nthe client's steps: %s", err, strings.Join(steps[max(0, len(steps)-12):], "; "))
	}
	if g, err = cfg.Store.Load(ctx, f.resource); err != nil || !cfg.Alone && (opened != 1 || g.RefreshToken == before) {
		return "", fmt.Errorf("the refresh: a person was asked %d times, rotated %t, %w", opened, g.RefreshToken != before, err)
	}
	return fmt.Sprintf("tool, refresh; %d steps", len(steps)), nil
}

// introduce publishes the client's document, and its keys if it has any.
func (f *foreign) introduce(name string, w way, cfg *client.Config) error {
	change := map[string]any{}
	if len(w.document) > 0 {
		change["grant_types"], change["redirect_uris"], change["response_types"] = w.document, []string{}, []string{}
	}
	if cfg.DPoP == client.DPoPAlways {
		change["dpop_bound_access_tokens"] = true
	}
	if w.key {
		raw, err := f.holdKey(name, jose.ES256, change)
		if err != nil {
			return err
		}
		if cfg.Key, err = client.ParseKey([]byte(raw)); err != nil {
			return err
		}
		if len(cfg.Methods) > 0 {
			change["token_endpoint_auth_method"] = cfg.Methods[0]
			delete(change, "token_endpoint_auth_signing_alg")
		}
	}
	_, err := f.publish(name, change)
	return err
}

// wearOut makes the access token that was kept one that nobody takes.
func (f *foreign) wearOut(ctx context.Context, s client.Store) error {
	return s.Update(ctx, f.resource, func(g *client.Grant) (*client.Grant, error) {
		g.AccessToken = g.AccessToken[:len(g.AccessToken)-8] + "AAAAAAAA"
		return g, nil
	})
}

// visit has a person sign in and agree on oidc-provider's own pages.
func (f *foreign) visit(ctx context.Context, address string, follow bool) error {
	issuer := strings.TrimPrefix(f.issuer, "http://")
	b, err := browse.New(browse.Config{RootCAs: f.ca.pool(), Stops: func(u *url.URL) bool { return u.Host != issuer }})
	if err != nil {
		return err
	}
	page, err := b.From(ctx, address, "cross-site")
	for range 8 {
		switch {
		case err != nil:
			return err
		case page.Left && follow:
			go func() { // the browser goes on while the client waits
				if err := open(ctx, page.URL.String()); err != nil {
					fmt.Fprintln(f, "callback:", err)
				}
			}()
			return nil
		case strings.Contains(page.Body, "<h1>Sign-in Success</h1>"):
			return nil
		}
		form, err2 := fillForeign(page)
		if err2 != nil {
			return err2
		}
		page, err = b.Submit(ctx, form)
	}
	return errors.New("the pages of oidc-provider go round in circles")
}

// fillForeign fills in whatever form a page of oidc-provider has.
func fillForeign(page *browse.Page) (*browse.Form, error) {
	if form, err := page.Form("login"); err == nil {
		return form.With("login", user).With("password", "any"), nil
	}
	if form, err := page.Form("prompt"); err == nil { // consent
		return form, nil
	}
	if form, err := page.Form("confirm"); err == nil { // the code that the device shows
		return form, nil
	}
	form, err := page.Form("user_code")
	if err == nil && form.Values.Get("user_code") == "" {
		form.With("user_code", page.URL.Query().Get("user_code"))
	}
	return form, err
}
