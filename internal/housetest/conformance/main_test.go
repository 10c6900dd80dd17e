package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// repository writes files below a new root and returns it.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// The names in this source are written so that the generator does not take them
// for tests of ours: it does not look into its own directory.
const source = `package x

import "testing"

var table = []string{"URL-02 empty user information"}

func TestOne(t *testing.T) {
	t.Run("FETCH-02, attack SD-30: a redirect is a failure", nil)
	t.Run("attack RS-10: write with a read token", nil)
	t.Run("RS-10 another issuer", nil)
	t.Run("URL-03 "+"made up", nil)
	want := "URL-04"
	t.Errorf("URL-05 this is a message: %s", want)
	t.Run("a sentence about URL-06", nil)
	t.Run("mistake 18, attack DS-01: no row", nil)
	t.Run("FT-29, mistake 27: final", nil)
}
`

func TestScan(t *testing.T) {
	root := repository(t, map[string]string{
		"a/x_test.go":             source,
		"a/x.go":                  "package x\n\nvar s = \"URL-07 not a test\"\n",
		"a/testdata/ids.txt":      "# URL-08 a comment\n\"https://h\" # URL-09 CU-03: the path alone\n",
		"a/testdata/c/one.txtar":  "CACHE-13, attack DS-06: attempts are spaced\n\n-- story --\nURL-10 no name\n",
		"a/storetest/contract.go": "package storetest\n\nvar c = \"TOK-22 one winner\"\n",
		"attack/cu.go":            "package main\n\nvar rows = []row{{\"CU-07\", func(t *trial) { t.only(\"CU-08\") }}, bad(\"RS-09\", \"text\"), {\"CU-09 is none\", nil}}\n",
		".git/y_test.go":          "not Go",
	})
	f, err := scan(root)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for id, tests := range f.tests {
		for _, n := range tests {
			got[id.String()] += n.file + "|" + n.fn + "|" + n.name
		}
	}
	want := map[string]string{
		"URL-02":       "a/x_test.go||empty user information",
		"FETCH-02":     "a/x_test.go|TestOne|a redirect is a failure",
		"SD-30":        "a/x_test.go|TestOne|a redirect is a failure",
		"attack RS-10": "a/x_test.go|TestOne|write with a read token",
		"RS-10":        "a/x_test.go|TestOne|another issuer",
		"URL-03":       "a/x_test.go|TestOne|",
		"DS-01":        "a/x_test.go|TestOne|no row",
		"FT-29":        "a/x_test.go|TestOne|final",
		"URL-09":       "a/testdata/ids.txt||the path alone",
		"CU-03":        "a/testdata/ids.txt||the path alone",
		"CACHE-13":     "a/testdata/c/one.txtar||attempts are spaced",
		"DS-06":        "a/testdata/c/one.txtar||attempts are spaced",
		"TOK-22":       "a/storetest/contract.go||one winner",
		"CU-07":        "attack/cu.go|make attack|",
		"attack RS-09": "attack/cu.go|make attack|",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !f.funcs["TestOne"] {
		t.Error("the test function was not found")
	}
}

func TestNotes(t *testing.T) {
	cat, err := newCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	notes, problems := parseNotes("# a comment\nDEV-01..03 not-yet later\nattack RS-10 done\nRS-10 different because\n", cat)
	if len(problems) > 0 {
		t.Error(problems)
	}
	want := map[rowID]note{
		{name: "DEV-01"}: {notYet, "later"}, {name: "DEV-02"}: {notYet, "later"}, {name: "DEV-03"}: {notYet, "later"},
		{attack: true, name: "RS-10"}: {done, ""}, {name: "RS-10"}: {different, "because"},
	}
	if diff := cmp.Diff(want, notes, cmp.AllowUnexported(rowID{}, note{})); diff != "" {
		t.Error(diff)
	}
	for text, says := range map[string]string{
		"URL-99 done":               "no such row",
		"nonsense done":             "no such row",
		"URL-01 perhaps":            "the state must be",
		"URL-01 not-yet":            "say why",
		"URL-01 done\nURL-01 done":  "a note already",
		"URL-01, URL-02 not-yet no": "the state must be",
	} {
		if _, problems := parseNotes(text, cat); len(problems) == 0 || !strings.Contains(problems[0], says) {
			t.Errorf("%q: %v", text, problems)
		}
	}
}

func TestProblems(t *testing.T) {
	cat, err := newCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, g := range cat.requirements {
		for _, r := range g.rows {
			all += r.id.name + " not-yet later\n"
		}
	}
	without := func(id string) string { return strings.Replace(all, "\n"+id+" not-yet later", "", 1) }
	for _, c := range []struct{ name, notes, test, says string }{
		{"nothing is wrong", all, "", ""},
		{"a row that is done has a test", without("URL-02") + "URL-02 done", "", "URL-02 is marked done, and no test names it"},
		{"a row that is different has one too", without("URL-02") + "URL-02 different so", "", "URL-02 is marked different"},
		{"a row without a test says why", without("URL-02"), "", "URL-02 is named by no test"},
		{"a test is enough", without("URL-02"), "URL-02 a sentence", ""},
		{"an unknown test", without("URL-02") + "URL-02 not-yet see TestNowhere", "", "there is no such test"},
		{"a known test", without("URL-02") + "URL-02 not-yet see TestOne", "", ""},
		{"an unknown row in a note", without("URL-02") + "URL-02 not-yet see URL-77", "", "URL-77, and there is no such row"},
		{"an unknown row in a test", all, "URL-77 a sentence", "there is no such row"},
		{"a note that a test has overtaken", without("URL-02") + "URL-02 not-yet no test names it", "URL-02 a sentence", "remove the line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := repository(t, map[string]string{
				notesPath:     c.notes,
				"a/x_test.go": "package x\n\nfunc TestOne() { run(\"" + c.test + "\") }\n",
			})
			problems, err := run(root, false)
			if err != nil {
				t.Fatal(err)
			}
			if c.says == "" && len(problems) > 0 {
				t.Error(problems)
			}
			if c.says != "" && !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, c.says) }) {
				t.Errorf("got %v, want %q", problems, c.says)
			}
			checked, err := run(root, true)
			if err != nil || len(checked) != len(problems) {
				t.Errorf("what was just written is not up to date: %v, %v", checked, err)
			}
		})
	}
	t.Run("a document that somebody edited", func(t *testing.T) {
		root := repository(t, map[string]string{notesPath: all})
		if _, err := run(root, false); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, documentPath), []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		problems, err := run(root, true)
		if err != nil || len(problems) != 1 || !strings.Contains(problems[0], "out of date") {
			t.Errorf("%v, %v", problems, err)
		}
	})
}

func TestMarkdown(t *testing.T) {
	cat, err := newCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	id := rowID{name: "URL-02"}
	rep := report{cat, &findings{tests: map[rowID][]named{id: {
		{"a/b_test.go", "", "a table | with a bar"}, {"a/a_test.go", "TestA", "first"}, {"c/testdata/x.txt", "", "third"},
	}}}, map[rowID]note{id: {different, "because"}}}
	got := string(rep.markdown())
	for _, want := range []string{
		"| URL-02 | no user information, not even an empty one | different | a, c | 3: TestA: first; a/b\\_test.go: a table \\| with a bar | because |\n",
		"| URL client_id URLs | 18 | 0 | 1 | 17 | 3 |\n",
		"\nNot yet: CU-01, ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the document lacks %q", want)
		}
	}
}
