package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/client"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// asClient is an MCP client that signs in with our toolkit and calls every tool
// that the server has. MCP's conformance suite starts it as a program of
// its own against servers that behave in many ways, good and bad.
func asClient(ctx context.Context, server string) error {
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	var refused error // by a server that wants a registered client
	cfg := client.Config{
		ID:         "https://conformance-test.local/client-metadata.json",
		Open:       func(address string) error { return visit(ctx, address) },
		Registered: map[string]string{},
		Trace: func(s client.Step) {
			fmt.Fprintln(os.Stderr, s.OK(), s.Text, s.To, s.Rule, s.Err)
			if errors.Is(s.Err, client.ErrNotAccepted) {
				refused = s.Err
			}
		},
	}
	for range 3 {
		refused = nil
		if err := useTools(ctx, cfg, server); err == nil || refused == nil {
			return err
		}
		// The toolkit never registers by itself: an application that has to does
		// so and says what came of it.
		issuer := refused.Error()[strings.LastIndex(refused.Error(), " ")+1:]
		id, err := register(ctx, issuer)
		if err != nil {
			return err
		}
		cfg.Registered[issuer] = id
	}
	return refused
}

// useTools opens a session and calls every tool there is.
func useTools(ctx context.Context, cfg client.Config, server string) error {
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "bonafide-toolkit", Version: "1.0.0"}, nil).Connect(ctx,
		&mcp.StreamableClientTransport{Endpoint: server, HTTPClient: c.HTTPClient(server), DisableStandaloneSSE: true}, nil)
	if err != nil {
		return err
	}
	defer session.Close()
	tools, err := session.ListTools(ctx, nil)
	if err != nil {
		return err
	}
	var failed []error
	for _, t := range tools.Tools {
		if _, err := call(ctx, session, t.Name, nil); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// visit plays a browser at a server that asks nobody.
func visit(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			fmt.Fprintln(os.Stderr, "browser:", err)
			return
		}
		resp.Body.Close()
	}()
	return nil
}

// register registers a public client dynamically (RFC 7591).
func register(ctx context.Context, issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", err
	}
	for _, at := range []string{
		"/.well-known/oauth-authorization-server" + u.Path, "/.well-known/openid-configuration" + u.Path, u.Path + "/.well-known/openid-configuration",
	} {
		var m struct {
			Endpoint string `json:"registration_endpoint"`
		}
		if ask(ctx, http.MethodGet, u.Scheme+"://"+u.Host+at, nil, &m) != nil || m.Endpoint == "" {
			continue
		}
		var c struct {
			ID string `json:"client_id"`
		}
		err := ask(ctx, http.MethodPost, m.Endpoint, map[string]any{
			"client_name": "Bonafide toolkit", "redirect_uris": []string{"http://127.0.0.1/callback"}, "application_type": "native",
			"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}, "token_endpoint_auth_method": "none",
		}, &c)
		return c.ID, err
	}
	return "", errors.New("nothing to register at: " + issuer)
}

func ask(ctx context.Context, method, url string, body, into any) error {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answered %d", url, resp.StatusCode)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
