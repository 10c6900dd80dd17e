package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// baseline holds the exceptions that are understood and right: by suite and case,
// the reason.
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
	return b, nil
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
func (t *table) suites(context.Context, node, error, baseline) {}
