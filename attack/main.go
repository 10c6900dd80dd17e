// Command attack attacks the release binary of Bonafide from outside, in a
// network namespace that run.sh makes: every case of the attack catalogue with its one
// safe outcome. What is not listed as safe is unsafe; what could not be done is
// skipped, and both fail the run.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	only := flag.String("only", "", "groups or rows, such as SD or SD,FT-01")
	stores := flag.String("store", "both", "sqlite, postgres or both")
	binary := flag.String("binary", "out/bonafide", "the release binary")
	guarded := flag.String("mcp-server", "out/mcp-server", "the example MCP server")
	rounds := flag.Int("rounds", 100, "rounds of each race, with 16 racers")
	scale := flag.String("scale", "quick", "quick, or full: as many requests as the rows say")
	planted := flag.Bool("planted", false, "the binary has planted weaknesses: each group must notice its own")
	verbose := flag.Bool("v", false, "print every case")
	flag.Parse()
	if *scale != "quick" && *scale != "full" {
		return failed(fmt.Errorf("-scale %s is neither quick nor full", *scale))
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return failed(err)
	}
	if *scale == "full" && files.Max < 16_000 {
		return failed(fmt.Errorf("-scale full needs ten thousand connections at once: ulimit -n is %d, raise it to 16000", files.Max))
	}
	began := time.Now()
	busy()
	dir, err := os.MkdirTemp("", "bonafide-attack-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return failed(err)
	}
	w := &world{dir: dir, binary: absolute(*binary), guarded: absolute(*guarded), rounds: *rounds, verbose: *verbose, full: *scale == "full",
		hosts: map[string]*host{}, sessions: tls.NewLRUClientSessionCache(64)}
	if err := prepareNamespace(dir); err != nil {
		return failed(err)
	}
	if w.ca, err = newAuthority(dir); err != nil {
		return failed(err)
	}
	if w.dns, err = newNameServer(); err != nil {
		return failed(err)
	}
	if w.canary, err = newCanary(); err != nil {
		return failed(err)
	}
	groups, rows := selected(*only)
	if len(groups) == 0 {
		return failed(fmt.Errorf("-only %s names no group and no row", *only))
	}
	if *planted {
		return w.runPlanted(groups)
	}
	bad := 0
	var all []outcome
	for _, name := range []string{"sqlite", "postgres"} {
		if *stores != "both" && *stores != name {
			continue
		}
		out := w.runStore(name, groups, rows)
		bad += report(name, groups, out)
		all = append(all, out...)
	}
	n := map[string]int{}
	checks := 0
	for _, o := range all {
		n[o.state]++
		checks += o.checks
	}
	fmt.Printf("\ntotal: %d cases, %d checks: %d safe, %d unsafe, %d skipped; %v\n", len(all), checks, n["safe"], n["unsafe"], n["skipped"], time.Since(began).Round(time.Second))
	if bad > 0 || len(all) == 0 {
		return 1
	}
	return 0
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "attack:", err)
	return 1
}

func absolute(p string) string {
	if strings.HasPrefix(p, "/") {
		return p
	}
	d, _ := os.Getwd()
	return d + "/" + p
}

func (w *world) runStore(name string, groups []group, rows map[string]bool) []outcome {
	w.engine = sqlite{}
	if name == "postgres" {
		w.canary.allow(databaseAddr, 5432)
		p, err := newPostgres(w.dir, databaseAddr)
		if err != nil {
			fmt.Fprintln(os.Stderr, "attack:", err)
			var out []outcome
			for _, g := range groups {
				for _, r := range g.rows {
					out = append(out, outcome{group: g.name, id: r.id, state: "skipped", evidence: []string{err.Error()}})
				}
			}
			return out
		}
		w.engine = p
	}
	defer w.engine.close()
	var out []outcome
	for _, g := range groups {
		out = append(out, w.runGroup(g, rows)...)
	}
	return out
}

// selected returns the groups that -only names, and the rows if it names some.
func selected(only string) ([]group, map[string]bool) {
	groups := catalogue()
	if only == "" {
		return groups, nil
	}
	rows := map[string]bool{}
	var out []group
	for name := range strings.SplitSeq(only, ",") {
		for _, g := range groups {
			if g.name == name || strings.HasPrefix(name, g.name+"-") {
				if !slices.ContainsFunc(out, func(o group) bool { return o.name == g.name }) {
					out = append(out, g)
				}
				for _, r := range g.rows {
					if g.name == name || r.id == name {
						rows[r.id] = true
					}
				}
			}
		}
	}
	return out, rows
}

// report prints the cases that were not safe and the table, and returns how many
// there were.
func report(store string, groups []group, out []outcome) int {
	bad := 0
	for _, o := range out {
		if o.state != "safe" {
			bad++
			fmt.Printf("%-7s %s %s: %s\n", o.state, store, o.id, strings.ReplaceAll(strings.Join(o.evidence, " | "), "\n", " "))
		}
	}
	for _, o := range out {
		for _, n := range o.notes {
			fmt.Printf("figures %s %s: %s\n", store, o.id, n)
		}
	}
	fmt.Printf("\n%-9s %-6s %6s %7s %6s %7s %8s %7s\n", "store", "group", "cases", "checks", "safe", "unsafe", "skipped", "seconds")
	for _, g := range groups {
		n, checks, took := map[string]int{}, 0, time.Duration(0)
		for _, o := range out {
			if o.group == g.name {
				n[o.state]++
				n["all"]++
				checks += o.checks
				took += o.took
			}
		}
		fmt.Printf("%-9s %-6s %6d %7d %6d %7d %8d %7.1f\n", store, g.name, n["all"], checks, n["safe"], n["unsafe"], n["skipped"], took.Seconds())
	}
	return bad
}
