package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

type report struct {
	cat   *catalogue
	found *findings
	notes map[rowID]note
}

// state returns what became of a row. Without a note a row is done when a test
// names it.
func (r *report) state(id rowID) string {
	if n, ok := r.notes[id]; ok {
		return n.state
	}
	if len(r.found.tests[id]) > 0 {
		return done
	}
	return notYet
}

var testName = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark|Example)[A-Z]\w*`)

// problems returns what a reader of the document would be misled by.
func (r *report) problems() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, g := range slices.Concat(r.cat.requirements, r.cat.attacks) {
		for _, w := range g.rows {
			n, noted := r.notes[w.id]
			tests := len(r.found.tests[w.id])
			switch {
			case noted && n.state != notYet && tests == 0:
				say("%s: %s is marked %s, and no test names it", notesPath, w.id, n.state)
			case noted && tests > 0 && strings.Contains(n.text, untested):
				say("%s: %s is named by a test now: remove the line", notesPath, w.id)
			case !noted && tests == 0 && !w.id.attack:
				say("%s: %s is named by no test and has no note: say why", notesPath, w.id)
			}
			for _, t := range testName.FindAllString(n.text, -1) {
				if !r.found.funcs[t] {
					say("%s: the note of %s names %s, and there is no such test", notesPath, w.id, t)
				}
			}
			for _, id := range idsIn(n.text) {
				if !r.cat.known[id] {
					say("%s: the note of %s names %s, and there is no such row", notesPath, w.id, id)
				}
			}
		}
	}
	for id, tests := range r.found.tests {
		if !r.cat.known[id] {
			say("%s: the test %q names %s, and there is no such row", tests[0].file, tests[0].name, id)
		}
	}
	slices.Sort(out)
	return out
}

// markdown returns the document.
func (r *report) markdown() []byte {
	var b bytes.Buffer
	b.WriteString(preface)
	r.totals(&b, "Requirements", r.cat.requirements)
	r.totals(&b, "Attacks", r.cat.attacks)
	b.WriteString("\n## Requirements\n")
	for _, g := range r.cat.requirements {
		fmt.Fprintf(&b, "\n### %s: %s\n\n| row | asks for | state | where | tests | note |\n|---|---|---|---|---|---|\n", g.name, g.title)
		for _, w := range g.rows {
			tests := r.sorted(w.id)
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n",
				w.id, cell(w.what), r.state(w.id), where(tests), first(tests, 2), cell(r.notes[w.id].text))
		}
	}
	b.WriteString("\n## Attacks\n\nThe case of each row is told by the first test that names it. A row without a test has a note, or concerns a part that is not in this version.\n")
	for _, g := range r.cat.attacks {
		r.attacks(&b, g)
	}
	return b.Bytes()
}

const preface = `# Conformance

Written by ` + "`make docs`" + ` from the names of the tests and from [conformance.notes](conformance.notes); do not edit it. A row is *done* when it is built and at least one test names it, *different* when this product decided otherwise ([divergences.md](divergences.md) says why), and *not yet* otherwise. A case of ` + "`make attack`" + `, which attacks the binary as it ships, counts as a test of its row. ` + "`make test`" + ` fails when a row claims a test that does not exist.

Rows are numbered within their group and gathered from Client ID Metadata Documents, MCP authorization, OAuth 2.1 and the RFCs it draws on, OpenID Connect, and what field experience adds. The test column counts the named tests and shows up to two; one name in a table or in a data file may stand for several cases.

`

func (r *report) totals(b *bytes.Buffer, title string, groups []group) {
	fmt.Fprintf(b, "| %s | rows | done | different | not yet | named tests |\n|---|---:|---:|---:|---:|---:|\n", title)
	var sum [5]int
	for _, g := range groups {
		var n [5]int
		for _, w := range g.rows {
			n[0]++
			switch r.state(w.id) {
			case done:
				n[1]++
			case different:
				n[2]++
			default:
				n[3]++
			}
			n[4] += len(r.found.tests[w.id])
		}
		fmt.Fprintf(b, "| %s %s | %d | %d | %d | %d | %d |\n", g.name, g.title, n[0], n[1], n[2], n[3], n[4])
		for i := range sum {
			sum[i] += n[i]
		}
	}
	fmt.Fprintf(b, "| **all** | **%d** | **%d** | **%d** | **%d** | **%d** |\n\n", sum[0], sum[1], sum[2], sum[3], sum[4])
}

func (r *report) attacks(b *bytes.Buffer, g group) {
	fmt.Fprintf(b, "\n### %s: %s\n\n", g.name, g.title)
	var missing []string
	rows := 0
	for _, w := range g.rows {
		tests := r.sorted(w.id)
		if _, noted := r.notes[w.id]; !noted && len(tests) == 0 {
			missing = append(missing, w.id.name)
			continue
		}
		if rows++; rows == 1 {
			b.WriteString("| row | state | where | tests | note |\n|---|---|---|---|---|\n")
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", w.id.name, r.state(w.id), where(tests), first(tests, 1), cell(r.notes[w.id].text))
	}
	if len(missing) > 0 {
		fmt.Fprintf(b, "\nNot yet: %s.\n", strings.Join(missing, ", "))
	}
}

// sorted returns the tests of a row: those with a sentence and a function first.
func (r *report) sorted(id rowID) []named {
	return slices.SortedFunc(slices.Values(r.found.tests[id]), func(a, b named) int {
		return cmp.Or(
			cmp.Compare(rank(a), rank(b)),
			cmp.Compare(a.file, b.file), cmp.Compare(a.fn, b.fn), cmp.Compare(a.name, b.name))
	})
}

func rank(n named) int {
	switch {
	case n.name == "":
		return 2
	case n.fn == "":
		return 1
	}
	return 0
}

// where names the packages whose tests name the row.
func where(tests []named) string {
	seen := map[string]bool{}
	for _, t := range tests {
		seen[strings.TrimSuffix(t.pkg(), "/storetest")] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(seen)), ", ")
}

func first(tests []named, n int) string {
	if len(tests) == 0 {
		return ""
	}
	var names []string
	for _, t := range tests[:min(n, len(tests))] {
		s := t.file
		if t.fn != "" {
			s = t.fn
		}
		if t.name != "" {
			s += ": " + t.name
		}
		names = append(names, cell(s))
	}
	return fmt.Sprintf("%d: %s", len(tests), strings.Join(names, "; "))
}

var escapes = strings.NewReplacer("|", `\|`, "<", "&lt;", "\n", " ", "*", `\*`, "_", `\_`, "[", `\[`, "`", "'")

// cell makes a text fit for a cell of a table.
func cell(s string) string { return escapes.Replace(s) }
