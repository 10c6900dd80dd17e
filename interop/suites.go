package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// baseline holds the exceptions that are understood and right: by suite, then by
// cases with a space between them, the reason.
type baseline map[string]map[string]string

func loadBaseline(name string) (baseline, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var b baseline
	if err := json.Unmarshal(raw, &b); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for suite, entries := range b {
		for cases, reason := range entries {
			if len(reason) < 10 {
				return nil, fmt.Errorf("%s: %s %q has no reason", name, suite, cases)
			}
		}
	}
	return b, nil
}

// verdict compares what a suite found with its baseline. Both a surprise and an
// entry that nothing needs any more are errors.
func (b baseline) verdict(suite string, total int, found map[string]string) (string, error) {
	expected := map[string]bool{}
	for cases := range b[suite] {
		for c := range strings.FieldsSeq(cases) {
			expected[c] = true
		}
	}
	var wrong []string
	for c, what := range found {
		if !expected[c] {
			wrong = append(wrong, c+": "+what)
		}
	}
	for c := range expected {
		if _, ok := found[c]; !ok {
			wrong = append(wrong, c+": in the baseline and did not happen")
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return "", fmt.Errorf("%d of %d surprises\n%s", len(wrong), total, strings.Join(wrong[:min(len(wrong), 40)], "\n"))
	}
	if len(found) == 0 {
		return fmt.Sprintf("%d cases", total), nil
	}
	return fmt.Sprintf("%d cases, %d exceptions as in the baseline", total, len(found)), nil
}

// version returns the version of an installed npm package.
func version(pkg string) string {
	raw, err := os.ReadFile(filepath.Join("node_modules", pkg, "package.json"))
	var p struct{ Version string }
	if err != nil || json.Unmarshal(raw, &p) != nil {
		return "(not installed)"
	}
	return p.Version
}

// suites runs what judges single packages.
func (t *table) suites(ctx context.Context, n node, nodeErr error, b baseline) {
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		t.add(ctx, "MCP conformance "+version(sdk+"conformance")+", client toolkit", revision, 3*time.Minute, func(ctx context.Context) (string, error) {
			if nodeErr != nil {
				return "", nodeErr
			}
			return b.toolkit(revision, n)(ctx)
		})
	}
	t.add(ctx, "Wycheproof JWS "+wycheproofDate+", internal/jose", "-", 3*time.Minute, b.wycheproof)
	t.add(ctx, "WPT URLs and WHATWG "+whatwgVersion+", cimd.Parse", "-", time.Minute, b.urls)
	t.add(ctx, "IANA registries by Python's ipaddress, address guard", "-", 2*time.Minute, b.addresses)
	t.add(ctx, "http-cache-tests "+version("http-cache-tests")+", cimd.Fresh", "http", 3*time.Minute, func(ctx context.Context) (string, error) {
		if nodeErr != nil {
			return "", nodeErr
		}
		return b.freshness(ctx, n)
	})
}

// module returns the directory of a module, downloaded if need be and checked
// against its sum. It is not in go.mod: what cannot be had is not run, and the
// rest is.
func module(ctx context.Context, path, version, sum string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", path+"@"+version)
	cmd.Dir = os.TempDir() // outside of any module
	out, err := cmd.Output()
	var m struct{ Dir, Sum, Error string }
	if e := json.Unmarshal(out, &m); e != nil || err != nil || m.Dir == "" {
		return "", notRun("the module " + path + " cannot be had: " + m.Error)
	}
	if m.Sum != sum {
		return "", fmt.Errorf("%s has the sum %s, want %s", path, m.Sum, sum)
	}
	return m.Dir, nil
}

const (
	wycheproofPath    = "github.com/c2sp/wycheproof"
	wycheproofDate    = "2026-09-02"
	wycheproofVersion = "v0.0.0-20260902155932-3fa63dd0344a"
	wycheproofSum     = "h1:pNbL2nztRsWfW/ispAwsvcDFxs9Id38uIsR2/Up5G2c="
)

// wycheproof hands the JWS vectors to a test inside internal/jose and compares
// what it says.
func (b baseline) wycheproof(ctx context.Context) (string, error) {
	dir, err := module(ctx, wycheproofPath, wycheproofVersion, wycheproofSum)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-C", "..", "-count=1", "-tags", "interop", "-run", "^TestWycheproof$", "-v", "./internal/jose")
	cmd.Env = append(os.Environ(), "WYCHEPROOF="+filepath.Join(dir, "testvectors_v1", "json_web_signature_test.json"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	total, accepted, found := 0, 0, map[string]string{}
	for line := range strings.Lines(string(out)) {
		text, ok := strings.CutPrefix(line, "wycheproof ")
		if !ok {
			continue
		}
		var c struct {
			ID                  int
			Group, Comment, Why string
			Want, Got           bool
		}
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return "", err
		}
		total++
		if c.Got {
			accepted++
		}
		switch {
		case c.Got && !c.Want: // no baseline for a forgery
			return "", fmt.Errorf("test %d of %s (%s) is invalid and accepted", c.ID, c.Group, c.Comment)
		case c.Want && !c.Got:
			found[fmt.Sprint(c.ID)] = c.Group + " " + c.Comment + ": " + c.Why
		}
	}
	if total < 300 || accepted < 10 {
		return "", fmt.Errorf("only %d vectors, %d accepted: this proves little", total, accepted)
	}
	return b.verdict("wycheproof", total, found)
}
