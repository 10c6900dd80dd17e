package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	var refused error // by a server that knows the client under another name
	cfg := client.Config{
		ID:            "https://conformance-test.local/client-metadata.json",
		RegisterAs:    "Bonafide toolkit",
		DPoP:          client.DPoPIfOffered,
		ContentDigest: true,
		Open:          func(address string) error { return visit(ctx, address) },
		Trace: func(s client.Step) {
			fmt.Fprintln(os.Stderr, s.OK(), s.Text, s.To, s.Rule, s.Err)
			if errors.Is(s.Err, client.ErrNotAccepted) {
				refused = s.Err
			}
		},
	}
	id, err := given(&cfg)
	if err != nil {
		return err
	}
	err = useTools(ctx, cfg, server)
	if err == nil || id == "" || refused == nil {
		return err
	}
	// What the suite gave is for the server that it is about to meet, whose name
	// it does not give.
	issuer := refused.Error()[strings.LastIndex(refused.Error(), " ")+1:]
	cfg.Registered = map[string]string{issuer: id}
	if cfg.Secrets != nil {
		cfg.Secrets = map[string]string{issuer: cfg.Secrets[nowhere]}
	}
	return useTools(ctx, cfg, server)
}

// nowhere is where a client_id is registered until its server is known.
const nowhere = "https://issuer.invalid"

// given takes over the credentials of a scenario that has some.
func given(cfg *client.Config) (id string, err error) {
	var c struct {
		ClientID string `json:"client_id"`
		Secret   string `json:"client_secret"`
		Key      string `json:"private_key_pem"`
	}
	if raw := os.Getenv("MCP_CONFORMANCE_CONTEXT"); raw == "" || json.Unmarshal([]byte(raw), &c) != nil || c.ClientID == "" {
		return "", nil
	}
	cfg.ID, cfg.RegisterAs = "", ""
	cfg.Alone = strings.Contains(os.Getenv("MCP_CONFORMANCE_SCENARIO"), "client-credentials")
	cfg.Registered = map[string]string{nowhere: c.ClientID}
	if c.Secret != "" {
		cfg.Secrets = map[string]string{nowhere: c.Secret}
	}
	if c.Key != "" {
		cfg.Key, err = client.ParseKey([]byte(c.Key))
	}
	return c.ClientID, err
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
		if _, err := call(ctx, session, t.Name, map[string]any{}); err != nil {
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
