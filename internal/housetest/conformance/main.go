// Command conformance writes docs/conformance.md: every requirement row, what
// became of it, and the tests that name it. The names are read from the source of
// the tests; what only a person can say stands in docs/conformance.notes.
//
//	go run ./internal/housetest/conformance           write the document
//	go run ./internal/housetest/conformance -check    say what is wrong, write nothing
//
// It fails when a row that is marked done has no test, when a note names a row or
// a test that does not exist, and, with -check, when the document is not what it
// would write.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

const (
	documentPath = "docs/conformance.md"
	notesPath    = "docs/conformance.notes"
)

func main() {
	root := flag.String("root", ".", "root of the repository")
	check := flag.Bool("check", false, "write nothing; fail when the document is out of date")
	flag.Parse()
	problems, err := run(*root, *check)
	if err != nil {
		problems = append(problems, err.Error())
	}
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, p)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

// run writes or checks the document and returns what is wrong with rows, notes
// and tests.
func run(root string, check bool) ([]string, error) {
	cat, err := newCatalogue()
	if err != nil {
		return nil, err
	}
	found, err := scan(root)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(root, notesPath))
	if err != nil {
		return nil, fmt.Errorf("read the notes: %w", err)
	}
	notes, problems := parseNotes(string(text), cat)
	rep := report{cat, found, notes}
	problems = append(problems, rep.problems()...)
	want, path := rep.markdown(), filepath.Join(root, documentPath)
	if !check {
		return problems, os.WriteFile(path, want, 0o644)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		return problems, err
	}
	if !bytes.Equal(got, want) {
		problems = append(problems, documentPath+" is out of date: run make docs")
	}
	return problems, nil
}
