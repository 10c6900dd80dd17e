package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
)

// The Python clients, as py/requirements.txt pins them with all that they need.
const (
	pythonSDK      = "2.3.0"
	fastMCPVersion = "4.0.11"
)

// pythonScript runs a script of py/ as a client, in the environment that run.sh
// has made.
func pythonScript(script, name string) func(context.Context, *house) (string, error) {
	return func(ctx context.Context, h *house) (string, error) {
		if why := os.Getenv("INTEROP_NO_PYTHON"); why != "" {
			return "", notRun(why)
		}
		binary := "out/venv/bin/python"
		if _, err := os.Stat(binary); err != nil {
			return "", notRun("the Python packages are not installed")
		}
		id, err := h.publish(name, nil)
		if err != nil {
			return "", err
		}
		home, err := os.MkdirTemp(h.dir, "python-")
		if err != nil {
			return "", err
		}
		cmd := exec.CommandContext(ctx, binary, "-B", "py/"+script)
		cmd.Env = append(h.browserEnv(home), "ISSUER="+h.issuer, "RESOURCE="+h.resource, "REDIRECT="+redirect, "PERSON="+h.person, "CLIENT_ID="+id)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		detail, err := verdictOf(out, err, strings.TrimSpace(stderr.String()))
		return detail, err
	}
}
