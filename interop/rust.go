package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
)

// rmcpVersion is what rmcp/Cargo.toml pins. It is built without TLS, which would
// take a C library more, and so signs in over http only.
const rmcpVersion = "3.9.0"

// rust runs the client of rmcp/, which run.sh has built.
func rust(ctx context.Context, h *house) (string, error) {
	if why := os.Getenv("INTEROP_NO_RUST"); why != "" {
		return "", notRun(why)
	}
	const binary = "out/rmcp/debug/interop-rmcp"
	if _, err := os.Stat(binary); err != nil {
		return "", notRun("the Rust client is not built")
	}
	id, err := h.publish("rust-sdk", nil)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = append(h.browserEnv(h.dir), "RESOURCE="+h.resource, "REDIRECT="+redirect, "PERSON="+h.person, "CLIENT_ID="+id)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return verdictOf(out, err, strings.TrimSpace(stderr.String()))
}
