package main

import (
	"fmt"
	"strings"
)

// States of a row.
const (
	done      = "done"
	different = "different"
	notYet    = "not yet"
)

// untested is the note of what is built and not named by a test. It has to go
// when a test comes.
const untested = "no test names it"

type note struct {
	state, text string
}

// parseNotes reads docs/conformance.notes: one line per row, "ID state text". The
// state is done, different or not-yet; ID may be a range within a group,
// DEV-01..09, and begins with "attack " where a requirement has the same name.
func parseNotes(text string, cat *catalogue) (map[rowID]note, []string) {
	notes := map[rowID]note{}
	var problems []string
	bad := func(line, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s: %q: %s", notesPath, line, fmt.Sprintf(format, args...)))
	}
	for line := range content(text) {
		rest, attack := strings.CutPrefix(line, "attack ")
		what, rest, _ := strings.Cut(rest, " ")
		state, said, _ := strings.Cut(rest, " ")
		if state == "not-yet" {
			state = notYet
		}
		if state != done && state != different && state != notYet {
			bad(line, "the state must be done, different or not-yet")
			continue
		}
		if state != done && said == "" {
			bad(line, "say why")
		}
		ids := span(what, attack, cat)
		if len(ids) == 0 {
			bad(line, "no such row")
		}
		for _, id := range ids {
			if _, twice := notes[id]; twice {
				bad(line, "%s has a note already", id)
			}
			notes[id] = note{state, said}
		}
	}
	return notes, problems
}

// span returns the known rows of "FETCH-02" or "FETCH-02..05".
func span(what string, attack bool, cat *catalogue) []rowID {
	first, last, isRange := strings.Cut(what, "..")
	ids := idsIn(first)
	if len(ids) != 1 || ids[0].name != first {
		return nil
	}
	ids[0].attack = ids[0].attack || attack
	if !isRange {
		last = first[len(first)-2:]
	}
	groups := cat.requirements
	if ids[0].attack {
		groups = cat.attacks
	}
	var out []rowID
	for _, g := range groups {
		for _, r := range g.rows {
			if g.name == ids[0].group() && r.id.name >= first && r.id.name <= g.name+"-"+last {
				out = append(out, r.id)
			}
		}
	}
	return out
}
