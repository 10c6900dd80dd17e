package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// named is a test that names a row.
type named struct {
	file string // relative to the root, with slashes
	fn   string // TestSomething, or "" for a table or a data file
	name string // the sentence, without the row IDs at its head
}

func (n named) pkg() string {
	dir := path.Dir(n.file)
	if i := strings.Index(dir, "/testdata"); i >= 0 {
		dir = dir[:i]
	}
	return dir
}

// findings is what the tests of the repository say.
type findings struct {
	tests map[rowID][]named
	funcs map[string]bool // every Test, Fuzz, Benchmark and Example function
}

const (
	requirementGroups = "URL|FETCH|DOC|CACHE|META|AUTHZ|CONS|PAR|TOK|CAUTH|ATT|DPOP|DEV|REV|INT|XCH|OIDC|DCR|RS|CLI|HOST|POL"
	attackGroups      = "CU|SD|FT|DO|JK|AZ|CN|TK|RF|CA|DP|DV|AD|HO|DS|FA"
)

var (
	anID = regexp.MustCompile(`\b(attack )?(` + requirementGroups + `|` + attackGroups + `)-(\d\d)\b`)
	// head is the list of IDs with which the name of a test begins. Mistakes of other
	// servers are numbered too, elsewhere.
	head = regexp.MustCompile(`^(?:error |warning )?(?:(?:(?:attack )?(?:` + requirementGroups + `|` + attackGroups + `)-\d\d|mistake \d+)(?:, | and |: | )?)+`)
	// idLine is a line of a list of examples: a JSON string, a rule, the reason.
	idLine = regexp.MustCompile(`^".*" # (.+)$`)
)

// idsIn returns the rows that a text names. RS-nn is a requirement unless
// "attack" stands before it; every other group is one or the other by its name.
func idsIn(text string) []rowID {
	var out []rowID
	for _, m := range anID.FindAllStringSubmatch(text, -1) {
		attack := m[1] != "" && m[2] == "RS" || strings.Contains("|"+attackGroups+"|", "|"+m[2]+"|")
		if id := (rowID{attack, m[2] + "-" + m[3]}); !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// scan reads every test of the repository: files that end in _test.go, files of
// test support that import testing or hold the store's contract, and the
// examples under testdata.
func scan(root string) (*findings, error) {
	f := &findings{tests: map[rowID][]named{}, funcs: map[string]bool{}}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "conformance") {
				return filepath.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		return f.file(filepath.ToSlash(rel), p)
	})
	return f, err
}

func (f *findings) file(rel, disk string) error {
	ext := path.Ext(rel)
	data := strings.Contains(rel, "/testdata/") && (ext == ".txt" || ext == ".txtar")
	if ext != ".go" && !data {
		return nil
	}
	src, err := os.ReadFile(disk)
	if err != nil {
		return err
	}
	switch {
	case ext == ".txtar":
		f.story(rel, string(src))
	case ext == ".txt":
		f.examples(rel, string(src))
	case strings.HasSuffix(rel, "_test.go"), strings.Contains(rel, "/storetest/"), bytes.Contains(src, []byte("\t\"testing\"\n")):
		return f.source(rel, src)
	case strings.HasPrefix(rel, "attack/"):
		return f.cases(rel, src)
	}
	return nil
}

// harness stands in place of a test's function where a row is a case of the harness
// that attacks the binary as it ships.
const harness = "make attack"

// aCase is the name of a case of the harness: the row and nothing else.
var aCase = regexp.MustCompile(`^(?:RS|` + attackGroups + `)-\d\d$`)

// cases takes the cases of the harness: {"SD-01", func...} in a list of rows, or
// the same by a function that makes one.
func (f *findings) cases(rel string, src []byte) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), rel, src, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			if len(n.Elts) == 2 {
				f.oneCase(rel, n.Elts[0])
			}
		case *ast.CallExpr:
			if _, plain := n.Fun.(*ast.Ident); plain && len(n.Args) > 1 {
				f.oneCase(rel, n.Args[0])
			}
		}
		return true
	})
	return nil
}

func (f *findings) oneCase(rel string, name ast.Expr) {
	lit, ok := name.(*ast.BasicLit)
	if !ok {
		return
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil || !aCase.MatchString(s) {
		return
	}
	id := rowID{attack: true, name: s}
	f.tests[id] = append(f.tests[id], named{file: rel, fn: harness})
}

// story takes the comment at the top of a txtar file, which is its name, and the
// comments of a script.
func (f *findings) story(rel, text string) {
	comment, _, _ := strings.Cut(text, "\n-- ")
	for line := range strings.Lines(comment) {
		f.add(named{file: rel}, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#")))
	}
}

func (f *findings) examples(rel, text string) {
	for line := range strings.Lines(text) {
		if m := idLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			f.add(named{file: rel}, m[1])
		}
	}
}

// source takes the string literals of a file that are names of tests: they begin
// with row IDs and are not messages.
func (f *findings) source(rel string, src []byte) error {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, rel, src, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, d := range parsed.Decls {
		in := named{file: rel}
		if fn, ok := d.(*ast.FuncDecl); ok && isTest(fn) {
			in.fn = fn.Name.Name
			f.funcs[in.fn] = true
		}
		f.literals(d, in)
	}
	return nil
}

func isTest(fn *ast.FuncDecl) bool {
	return fn.Recv == nil && slices.ContainsFunc([]string{"Test", "Fuzz", "Benchmark", "Example"}, func(p string) bool {
		return strings.HasPrefix(fn.Name.Name, p)
	})
}

func (f *findings) literals(d ast.Node, in named) {
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			return !isMessage(n)
		case *ast.BasicLit:
			if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && !strings.Contains(s, "\n") {
				f.add(in, s)
			}
		}
		return true
	})
}

// isMessage reports whether a call says what went wrong rather than names a test.
func isMessage(c *ast.CallExpr) bool {
	s, ok := c.Fun.(*ast.SelectorExpr)
	return ok && slices.Contains([]string{"Error", "Errorf", "Fatal", "Fatalf", "Log", "Logf", "Skip", "Skipf", "New", "Sprintf", "Printf"}, s.Sel.Name)
}

// add files a name under every row in it, if rows stand at its head.
func (f *findings) add(in named, text string) {
	top := head.FindString(text)
	if top == "" {
		return
	}
	if top == text && !strings.HasSuffix(text, " ") {
		return // an ID alone is what a test expects, not its name
	}
	in.name = strings.TrimSpace(text[len(top):])
	for _, id := range idsIn(text) {
		if !slices.Contains(f.tests[id], in) {
			f.tests[id] = append(f.tests[id], in)
		}
	}
}
