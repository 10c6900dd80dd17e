package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bonafide-id/bonafide/internal/store/pgtest"
)

const sdk = "@modelcontextprotocol/"

type caller struct {
	name string
	node bool // needs Node
	do   func(context.Context, *house) (string, error)
}

// surroundings are what callers run in: the release binary, and Node.
type surroundings struct {
	binary  string
	err     error // there is no binary
	nodeErr error
}

// clients runs everything that signs in, in a house for each scheme and engine.
func (t *table) clients(ctx context.Context, n node, nodeErr error) {
	binary, err := build(ctx)
	if err == nil {
		defer os.RemoveAll(filepath.Dir(binary))
	}
	on := surroundings{binary, err, nodeErr}
	list := everybody(n)
	t.visit(ctx, on, "http", "", append(list, caller{"Rust SDK rmcp " + rmcpVersion, false, rust}))
	t.visit(ctx, on, "https", "", append(list, caller{"documents that clients publish", false, shapes})) // they stand under https names
	t.onPostgres(ctx, on, []caller{list[0], list[len(list)-1]})
}

// everybody returns the clients that speak http and https; Go's SDK is the first
// and MCP's suite the last.
func everybody(n node) []caller {
	remote, openid := "mcp-remote "+version("mcp-remote"), "openid-client "+version("openid-client")
	return []caller{
		{"Go MCP SDK v1.8.0", false, goSDK},
		{"TypeScript SDK " + version(sdk+"sdk"), true, n.typescript(sdk + "sdk")},
		{"TypeScript client " + version(sdk+"client"), true, n.typescript(sdk + "client")},
		{"Python SDK " + pythonSDK, false, pythonScript("sdk.py", "python-sdk")},
		{"FastMCP client " + fastMCPVersion, false, pythonScript("fast.py", "fastmcp-client")},
		{remote, true, n.mcpRemote},
		{remote + ", device flow", true, n.mcpRemoteDevice},
		{"MCP Inspector CLI " + version(sdk+"inspector"), true, n.inspector},
		{openid, true, n.openid("")},
		{"openid-client, private_key_jwt ES256", true, n.openid("ES256")},
		{"openid-client, private_key_jwt RS256", true, n.openid("RS256")},
		{"openid-client, private_key_jwt PS256", true, n.openid("PS256")},
		{"openid-client, private_key_jwt Ed25519", true, n.openid("EdDSA")},
		{"openid-client, PAR", true, n.bound("openid-client-par", "par", "")},
		{"openid-client, DPoP", true, n.bound("openid-client-dpop", "dpop", "")},
		{"openid-client, PAR, DPoP, private_key_jwt", true, n.bound("openid-client-all", "par dpop", "ES256")},
		{"openid-client, device flow, DPoP", true, n.bound(openidDevice, "device dpop", "")},
		{"openid-client, client_credentials, private_key_jwt, DPoP", true, n.bound(openidAlone, "alone dpop", "ES256")},
		{"MCP conformance " + version(sdk+"conformance") + ", authorization", true, n.conformance},
	}
}

// visit runs callers in a house of a scheme, over an engine: "" is SQLite.
func (t *table) visit(ctx context.Context, on surroundings, scheme, store string, list []caller) {
	over := scheme
	if store != "" {
		over += ", PostgreSQL"
	}
	h, err := (*house)(nil), on.err
	if err == nil && t.wants(over, list) {
		h, err = startHouse(ctx, on.binary, scheme, store)
	}
	defer h.close()
	for _, c := range list {
		t.add(ctx, c.name, over, 45*time.Second, func(ctx context.Context) (string, error) {
			switch {
			case err != nil:
				return "", err
			case c.node && on.nodeErr != nil:
				return "", on.nodeErr
			}
			detail, err := c.do(ctx, h)
			var reason notRun
			if err != nil && !errors.As(err, &reason) {
				err = fmt.Errorf("%w\nthe server's last words: %s", err, h.said(1500))
			}
			return detail, err
		})
	}
}

// wants reports whether any of the callers is to be run.
func (t *table) wants(over string, list []caller) bool {
	for _, c := range list {
		if t.only.MatchString(c.name + " (" + over + ")") {
			return true
		}
	}
	return false
}

// onPostgres is visit over a private PostgreSQL server.
func (t *table) onPostgres(ctx context.Context, on surroundings, list []caller) {
	const scheme = "https"
	if !t.wants(scheme+", PostgreSQL", list) {
		return
	}
	address := "unreachable"
	cluster, stop, err := pgtest.Start("")
	if err == nil {
		defer stop()
		address, err = cluster.Copy(ctx, "empty", func(string) error { return nil }) // the server brings it up to date
	}
	if errors.Is(err, exec.ErrNotFound) {
		err = notRun(err.Error())
	}
	if err != nil && on.err == nil {
		on.err = fmt.Errorf("start PostgreSQL: %w", err)
	}
	t.visit(ctx, on, scheme, address, list)
}
