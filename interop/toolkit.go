package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// extensions are the scenarios about extensions of MCP, which belong to no
// revision and which the suite does not list.
var extensions = []string{"auth/dpop", "auth/dpop-nonce", "auth/client-credentials-jwt", "auth/client-credentials-basic"}

// toolkit has MCP's own suite judge our client: it starts this program as a
// client (see asClient) against a server for each of its scenarios about
// authorization, and looks at every request. What the client must refuse is in
// there, too: a foreign iss, metadata about somebody else, endless step-ups.
func (b baseline) toolkit(revision string, n node) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		suite := "node_modules/@modelcontextprotocol/conformance/dist/index.js"
		list, err := n.command(ctx, nil, suite, "list", "--client", "--spec-version", revision).Output()
		if err != nil {
			return "", err
		}
		dir, err := os.MkdirTemp("", "bonafide-interop-suite-")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(dir)
		names := slices.Clone(extensions)
		for line := range strings.Lines(string(list)) {
			name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "- "), " ")
			if strings.HasPrefix(name, "auth/") {
				names = append(names, name)
			}
		}
		for _, name := range names {
			out, err := n.command(ctx, nil, suite, "client", "--command", self+" as-client", "--scenario", name, "--spec-version", revision, "--force", "-o", dir).CombinedOutput()
			if ctx.Err() != nil {
				return "", fmt.Errorf("%s: %w: %s", name, err, out)
			}
		}
		total, found, err := suiteChecks(dir)
		if err != nil {
			return "", err
		}
		if len(names) < 10+len(extensions) || total < 100 {
			return "", fmt.Errorf("only %d scenarios and %d checks: this proves little", len(names), total)
		}
		detail, err := b.verdict("toolkit "+revision, total, found)
		return fmt.Sprintf("%d scenarios, %s", len(names), detail), err
	}
}

// suiteChecks reads what the suite wrote of each scenario.
func suiteChecks(dir string) (total int, found map[string]string, err error) {
	found = map[string]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "checks.json" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var checks []struct{ ID, Status, Description, ErrorMessage string }
		if err := json.Unmarshal(raw, &checks); err != nil {
			return errors.Join(errors.New(path), err)
		}
		scenario, _, _ := strings.Cut(filepath.Base(filepath.Dir(path)), "-20") // then comes the time
		for _, c := range checks {
			total++
			if !slices.Contains([]string{"SUCCESS", "INFO", "SKIPPED"}, c.Status) {
				found[scenario+"/"+c.ID] = c.Status + ": " + c.Description + " " + c.ErrorMessage
			}
		}
		return nil
	})
	return total, found, err
}
