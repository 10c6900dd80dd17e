package bonafide_test

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/bonafide-id/bonafide"

// floors says on which floor each package stands. Imports go down only, never
// sideways. A new package must be given a floor here.
var floors = map[string]int{
	"oauth": 0, "internal/planted": 0,

	"internal/safehttp": 1, "internal/jose": 1,

	"cimd": 2, "resource": 2, "client": 2, "internal/issuers": 2,

	"internal/upstream": 3, "internal/policy": 3, "internal/audit": 3, "internal/web": 3,

	"internal/store": 4,

	"internal/directory": 5, "internal/keyring": 5,

	"internal/clientauth": 6, "internal/login": 6, "internal/backchannel": 6,

	"internal/authorize": 7, "internal/token": 7, "internal/register": 7,

	"internal/server": 8,

	"cmd/bonafide": 9,
}

// annexes stand on the floor of the package they belong to and may import it:
// test support and adapters that would force a dependency on everyone else.
var annexes = map[string]string{
	"cimd/cimdtest":                  "cimd",
	"internal/store/storetest":       "internal/store",
	"internal/store/pgtest":          "internal/store",
	"resource/resourcemcp":           "resource",
	"internal/housetest":             "internal/server",
	"internal/housetest/count":       "internal/server",
	"internal/housetest/conformance": "internal/server",
	"internal/demo":                  "internal/server",
	"internal/browse":                "internal/server",
}

// visitors are programs: they may import any front room, and no back room
// unless they live in cmd.
var visitors = []string{"examples/", "docs/"}

// onlyIn names imports that belong to one package.
var onlyIn = map[string]struct{ room, why string }{
	"github.com/go-jose/go-jose/v4": {"internal/jose", "one place decides about algorithms and keys"},
	"database/sql":                  {"internal/store", "single use and commits are decided in the store"},
	"modernc.org/sqlite":            {"internal/store", "single use and commits are decided in the store"},
	"github.com/jackc/pgx/v5":       {"internal/store", "single use and commits are decided in the store"},
	"github.com/pressly/goose/v3":   {"internal/store", "migrations belong to the store"},
	"code.dny.dev/ssrf":             {"internal/safehttp", "one guard decides which addresses are dialled"},
	"unsafe":                        {"", "nothing here needs it"},
}

// front rooms and what they may not pull in.
var front = []string{"oauth", "cimd", "resource", "client"}

type file struct {
	name  string // slash-separated, relative to the root
	pkg   string // directory
	test  bool
	ast   *ast.File
	lines int
}

func sources(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	fset := token.NewFileSet()
	var out []file
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules" || d.Name() == "vendor") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != "." {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(p)
		out = append(out, file{name, path.Dir(name), strings.HasSuffix(name, "_test.go"), f, bytes.Count(src, []byte("\n"))})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fset, out
}

func imports(f file) []string {
	var out []string
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		out = append(out, p)
	}
	return out
}

func local(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}

func floorOf(pkg string) (int, bool) {
	if home, ok := annexes[pkg]; ok {
		pkg = home
	}
	n, ok := floors[pkg]
	return n, ok
}

func visitor(pkg string) bool {
	return slices.ContainsFunc(visitors, func(v string) bool { return strings.HasPrefix(pkg+"/", v) })
}

func TestImportsGoDownOnly(t *testing.T) {
	_, files := sources(t)
	for _, f := range files {
		if f.pkg == "." {
			continue
		}
		here, known := floorOf(f.pkg)
		if !known && !visitor(f.pkg) {
			t.Errorf("%s: package %s has no floor; give it one in house_test.go", f.name, f.pkg)
			continue
		}
		for _, imp := range imports(f) {
			to, ok := local(imp)
			if !ok {
				continue
			}
			there, known := floorOf(to)
			switch {
			case !known:
				t.Errorf("%s imports %s, which has no floor", f.name, to)
			case visitor(f.pkg):
				if strings.HasPrefix(to, "internal/") {
					t.Errorf("%s imports %s: examples show what anybody can import", f.name, to)
				}
			case annexes[f.pkg] == to, f.test && annexes[to] == f.pkg, f.test && to == f.pkg:
			case f.test && to == "cimd/cimdtest" && here >= floors["cimd"]:
			case f.test && annexes[to] != "" && there < here:
			case annexes[to] != "" && !f.test && there <= here && annexes[f.pkg] == "" && here < floors["cmd/bonafide"]:
				t.Errorf("%s imports %s: support packages are for tests, annexes and cmd", f.name, to)
			case annexes[f.pkg] != "" && there <= here:
			case there >= here:
				t.Errorf("%s (floor %d) imports %s (floor %d): imports go down, never sideways", f.name, here, to, there)
			}
		}
	}
}

func TestSomeImportsBelongToOneRoom(t *testing.T) {
	_, files := sources(t)
	for _, f := range files {
		for _, imp := range imports(f) {
			for owned, rule := range onlyIn {
				if (imp == owned || strings.HasPrefix(imp, owned+"/")) && f.pkg != rule.room && !strings.HasPrefix(f.pkg, rule.room+"/") {
					t.Errorf("%s imports %s: %s", f.name, imp, rule.why)
				}
			}
			if f.pkg == "oauth" && !f.test && strings.Contains(imp, ".") {
				t.Errorf("%s imports %s: oauth stands on the standard library alone", f.name, imp)
			}
			if slices.Contains(front, f.pkg) && !f.test {
				for _, heavy := range []string{"go.opentelemetry.io", "github.com/prometheus", "github.com/modelcontextprotocol", "github.com/spf13", "go.yaml.in"} {
					if strings.HasPrefix(imp, heavy) {
						t.Errorf("%s imports %s: a front room must stay light", f.name, imp)
					}
				}
			}
		}
	}
}

// Only internal/safehttp may build a client or a transport: everything else
// would dial without its rules.
func TestOnlySafehttpBuildsAnHTTPClient(t *testing.T) {
	fset, files := sources(t)
	for _, f := range files {
		if f.test || f.pkg == "internal/safehttp" || visitor(f.pkg) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if s, ok := n.Type.(*ast.SelectorExpr); ok && isIdent(s.X, "http") && (s.Sel.Name == "Client" || s.Sel.Name == "Transport") {
					t.Errorf("%s: builds an http.%s; ask internal/safehttp", fset.Position(n.Pos()), s.Sel.Name)
				}
			case *ast.SelectorExpr:
				if isIdent(n.X, "http") && slices.Contains([]string{"DefaultClient", "DefaultTransport", "Get", "Post", "PostForm", "Head"}, n.Sel.Name) {
					t.Errorf("%s: uses http.%s; ask internal/safehttp", fset.Position(n.Pos()), n.Sel.Name)
				}
				if n.Sel.Name == "InsecureSkipVerify" {
					t.Errorf("%s: certificates are always verified", fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	_, files := sources(t)
	said := map[string]bool{}
	for _, f := range files {
		if !f.test {
			said[f.pkg] = said[f.pkg] || (f.ast.Doc != nil && len(f.ast.Doc.Text()) > 60)
		}
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("%s: no package comment", pkg)
		}
	}
}

// A public package shows no internal type in its API.
func TestFrontRoomsShowNoInternalTypes(t *testing.T) {
	fset, files := sources(t)
	for _, f := range files {
		if f.test || !slices.ContainsFunc(front, func(p string) bool { return f.pkg == p || strings.HasPrefix(f.pkg, p+"/") }) {
			continue
		}
		inner := map[string]bool{}
		for _, i := range f.ast.Imports {
			p, _ := strconv.Unquote(i.Path.Value)
			if to, ok := local(p); ok && strings.HasPrefix(to, "internal/") {
				name := path.Base(to)
				if i.Name != nil {
					name = i.Name.Name
				}
				inner[name] = true
			}
		}
		report := func(n ast.Node) {
			ast.Inspect(n, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if id, ok := s.X.(*ast.Ident); ok && inner[id.Name] {
						t.Errorf("%s: the public API shows %s.%s", fset.Position(s.Pos()), id.Name, s.Sel.Name)
					}
				}
				return true
			})
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) {
					report(d.Type)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					ts, ok := s.(*ast.TypeSpec)
					if !ok || !ts.Name.IsExported() {
						continue
					}
					st, ok := ts.Type.(*ast.StructType)
					if !ok {
						report(ts.Type)
						continue
					}
					for _, fld := range st.Fields.List {
						if len(fld.Names) == 0 || fld.Names[0].IsExported() {
							report(fld.Type)
						}
					}
				}
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	e := d.Recv.List[0].Type
	if s, ok := e.(*ast.StarExpr); ok {
		e = s.X
	}
	id, ok := e.(*ast.Ident)
	return ok && id.IsExported()
}

// The budgets are a smoke alarm, not a goal.
const (
	maxFileLines  = 400
	maxFuncLines  = 100
	p95FuncLines  = 60
	maxParameters = 5
	maxMethods    = 7
)

func TestBudgets(t *testing.T) {
	fset, files := sources(t)
	var lengths []int
	lines := 0
	ifaces := 0
	for _, f := range files {
		if f.test || visitor(f.pkg) {
			continue
		}
		lines += f.lines
		if f.lines > maxFileLines {
			t.Errorf("%s: %d lines; split it by what a reader would search for (limit %d)", f.name, f.lines, maxFileLines)
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				l := fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1
				lengths = append(lengths, l)
				if l > maxFuncLines {
					t.Errorf("%s: %s is %d lines long (limit %d)", fset.Position(n.Pos()), n.Name.Name, l, maxFuncLines)
				}
				if p := n.Type.Params.NumFields(); p > maxParameters {
					t.Errorf("%s: %s takes %d parameters (limit %d)", fset.Position(n.Pos()), n.Name.Name, p, maxParameters)
				}
			case *ast.InterfaceType:
				if n.Methods.NumFields() > 0 {
					ifaces++
				}
				if m := n.Methods.NumFields(); m > maxMethods && !strings.HasSuffix(f.pkg, "storetest") {
					t.Errorf("%s: an interface with %d methods (limit %d)", fset.Position(n.Pos()), m, maxMethods)
				}
			}
			return true
		})
	}
	slices.Sort(lengths)
	if len(lengths) == 0 {
		t.Fatal("no functions were found")
	}
	if p95 := lengths[len(lengths)*95/100]; p95 > p95FuncLines {
		t.Errorf("the 95th percentile of function length is %d lines (limit %d)", p95, p95FuncLines)
	}
	t.Logf("%d lines, %d functions, p95 %d lines, %d interfaces (%.1f per 1000 lines)",
		lines, len(lengths), lengths[len(lengths)*95/100], ifaces, float64(ifaces)*1000/float64(lines))
}

func TestNoRoomIsNamedForWhatItIsNot(t *testing.T) {
	for pkg := range floors {
		if slices.Contains([]string{"util", "utils", "common", "helpers", "models", "types", "handlers", "services"}, path.Base(pkg)) {
			t.Errorf("%s: a package is named for a noun of the protocol or the household", pkg)
		}
	}
}

// TODO notes need an issue number, so that someone can find out what became of them.
func TestNoLooseEnds(t *testing.T) {
	_, files := sources(t)
	for _, f := range files {
		if f.name == "house_test.go" {
			continue
		}
		src, err := os.ReadFile(filepath.FromSlash(f.name))
		if err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(bytes.NewReader(src))
		sc.Buffer(nil, 1<<20)
		for n := 1; sc.Scan(); n++ {
			for _, word := range []string{"TODO", "FIXME", "XXX:"} {
				if strings.Contains(sc.Text(), word) {
					t.Errorf("%s:%d: %s", f.name, n, word)
				}
			}
		}
	}
}
