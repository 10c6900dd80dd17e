// Command interop lets clients and suites that others wrote judge Bonafide: the
// real release binary, over http on loopback and over https, with documents,
// tools and a person around it. It prints one table last and exits 1 when
// anything failed. What could not be had is "not run", never "pass".
//
//	cd interop && ./run.sh DPoP    only the rows that match
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
)

// notRun says why something was not run.
type notRun string

// Error returns the reason.
func (n notRun) Error() string { return string(n) }

type row struct {
	name, over, outcome, detail string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, 25*time.Minute)
	code := 0
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "as-client":
		err = asClient(ctx, os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "open":
		err = openAs(ctx, os.Args[2], os.Args[3])
	default:
		code = judge(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	cancel()
	stop()
	os.Exit(code)
}

// judge runs everything, or with a pattern the rows it matches, and prints the
// table.
func judge(ctx context.Context, args []string) int {
	only, err := regexp.Compile(strings.Join(args, "|"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	base, err := loadBaseline("baseline.json")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	n, nodeErr := findNode(ctx)
	t := &table{started: time.Now(), only: only}
	t.clients(ctx, n, nodeErr)
	t.provider(ctx, n, nodeErr)
	t.suites(ctx, n, nodeErr, base)
	return t.print()
}

type table struct {
	rows    []row
	started time.Time
	only    *regexp.Regexp
}

// add runs one row within its time.
func (t *table) add(ctx context.Context, name, over string, limit time.Duration, do func(context.Context) (string, error)) {
	if !t.only.MatchString(name + " (" + over + ")") {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	detail, err := do(ctx)
	r := row{name, over, "pass", detail}
	var reason notRun
	switch {
	case errors.As(err, &reason):
		r.outcome, r.detail = "not run", string(reason)
	case err != nil:
		r.outcome, r.detail = "fail", err.Error()
	}
	fmt.Printf("interop: %s (%s): %s in %v\n", name, over, r.outcome, time.Since(began).Round(10*time.Millisecond))
	if r.outcome == "fail" {
		fmt.Println("  " + strings.ReplaceAll(strings.TrimSpace(r.detail), "\n", "\n  "))
	}
	t.rows = append(t.rows, r)
}

// build makes the release binary as `make build` does.
func build(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "bonafide-interop-build-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "bonafide")
	out, err := run(ctx, "", "env", "CGO_ENABLED=0", "go", "build", "-C", "..", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./cmd/bonafide")
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return binary, nil
}

// print prints the table and returns the exit code.
func (t *table) print() int {
	count := map[string]int{}
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "client or suite\tover\toutcome\t")
	for _, r := range t.rows {
		detail, _, _ := strings.Cut(r.detail, "\n")
		if runes := []rune(detail); len(runes) > 90 {
			detail = string(runes[:90]) + "..."
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.name, r.over, r.outcome, detail)
		count[r.outcome]++
	}
	w.Flush()
	fmt.Printf("\ninterop: %d passed, %d failed, %d not run in %v\n", count["pass"], count["fail"], count["not run"], time.Since(t.started).Round(time.Second))
	if count["fail"] > 0 {
		return 1
	}
	return 0
}
