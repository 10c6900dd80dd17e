package bonafide_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/server"
)

// The documents of this repository, whose commands and programs are tested.
func documents(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob("docs/decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	docs = append(docs, "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
	return append(docs, decisions...)
}

// block is a fenced block of a document. The comment on the line before it says
// how it is tested:
//
//	<!-- from: FILE -->   the block stands in FILE, but for its indentation
//	<!-- run -->          bash runs it, after the ones before it, in a new directory
//	<!-- make -->         each line is a target of the Makefile
//	<!-- config -->       `bonafide config check` accepts it
type block struct {
	file, lang, mark, text string
	line                   int
}

var markLine = regexp.MustCompile(`^<!-- (.*) -->$`)

func blocks(t *testing.T, file string) []block {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	var open *block
	mark := ""
	for i, line := range strings.Split(string(src), "\n") {
		switch fence, ok := strings.CutPrefix(line, "```"); {
		case ok && open == nil:
			open = &block{file: file, lang: fence, mark: mark, line: i + 1}
		case ok:
			out = append(out, *open)
			open, mark = nil, ""
		case open != nil:
			open.text += line + "\n"
		default:
			mark = ""
			if m := markLine.FindStringSubmatch(line); m != nil {
				mark = m[1]
			}
		}
	}
	if open != nil {
		t.Errorf("%s:%d: the block is not closed", file, open.line)
	}
	return out
}

// Every block with a command, a program or a configuration says how it is tested.
func TestDocumentsAreTested(t *testing.T) {
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			source, isCopy := strings.CutPrefix(b.mark, "from: ")
			switch {
			case b.lang == "go" && isCopy:
				standsIn(t, b, source)
			case b.lang == "sh" && b.mark == "make":
				isMakeTarget(t, b)
			case b.lang == "sh" && b.mark == "run", b.lang == "yaml" && b.mark == "config":
				// TestDocumentsRun and TestDocumentedConfiguration do these.
			case b.lang == "text", b.lang == "json", b.lang == "ini":
			default:
				t.Errorf("%s:%d: a block of %q does not say how it is tested", b.file, b.line, b.lang)
			}
		}
	}
}

// standsIn reports an error unless the block is part of a file, which the
// compiler and its own tests check.
func standsIn(t *testing.T, b block, file string) {
	t.Helper()
	src, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Errorf("%s:%d: %v", b.file, b.line, err)
		return
	}
	for indent := range 4 {
		var want strings.Builder
		for line := range strings.Lines(b.text) {
			if strings.TrimSpace(line) != "" {
				want.WriteString(strings.Repeat("\t", indent))
			}
			want.WriteString(line)
		}
		if bytes.Contains(src, []byte(want.String())) {
			return
		}
	}
	t.Errorf("%s:%d: the block does not stand in %s any more", b.file, b.line, file)
}

func isMakeTarget(t *testing.T, b block) {
	t.Helper()
	mk, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.text) {
		command, _, _ := strings.Cut(line, "#")
		words := strings.Fields(command)
		if len(words) == 0 {
			continue
		}
		if words[0] != "make" || len(words) < 2 || !regexp.MustCompile(`(?m)^`+words[1]+`:`).Match(mk) {
			t.Errorf("%s:%d: %q is no target of the Makefile", b.file, b.line, strings.TrimSpace(line))
		}
	}
}

// curl stands in for the program of that name in documents, which a bare machine
// may lack. It waits for a server that is still starting.
const curlEnv = "BONAFIDE_DOCS_CURL"

func TestMain(m *testing.M) {
	if os.Getenv(curlEnv) == "" {
		code := m.Run()
		if buildDir != "" {
			os.RemoveAll(buildDir)
		}
		os.Exit(code)
	}
	if err := curl(os.Args[len(os.Args)-1]); err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(1)
	}
}

func curl(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if errors.Is(err, syscall.ECONNREFUSED) {
			select {
			case <-time.After(20 * time.Millisecond):
				continue
			case <-ctx.Done():
			}
		}
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(os.Stdout, resp.Body)
		return err
	}
}

var buildDir string // set by built, removed at the end

// built returns a freshly built bonafide, which is built once.
var built = sync.OnceValues(func() (program string, err error) {
	if buildDir, err = os.MkdirTemp("", "bonafide-docs-"); err != nil {
		return "", err
	}
	program = filepath.Join(buildDir, "bonafide")
	build := exec.Command("go", "build", "-o", program, "./cmd/bonafide")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
})

// workshop is a directory with a freshly built bonafide in the path, whose
// servers listen on a free port instead of the one in the documents.
type workshop struct {
	dir, bin, port string
}

func newWorkshop(t *testing.T) workshop {
	t.Helper()
	w := workshop{dir: t.TempDir(), bin: t.TempDir()}
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, w.port, _ = net.SplitHostPort(ln.Addr().String())
	ln.Close()
	w.tool(t, "curl", curlEnv+"=1 exec '"+self+"' \"$@\"")
	w.tool(t, "bonafide", `real='`+program+`'
[ "$1" = init ] || exec "$real" "$@"
"$real" "$@" || exit $?
find . -name bonafide.yaml | while read -r f; do
	sed 's/127.0.0.1:8080/127.0.0.1:`+w.port+`/' "$f" > "$f.new" && mv "$f.new" "$f"
done`)
	return w
}

func (w workshop) tool(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.bin, name), []byte("#!/usr/bin/env bash\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// leaveNothing ends the servers that a script started, also when it fails.
const leaveNothing = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"

func (w workshop) bash(t *testing.T, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", leaveNothing+strings.ReplaceAll(script, "127.0.0.1:8080", "127.0.0.1:"+w.port))
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "PATH="+w.bin+":"+os.Getenv("PATH"), "HOME="+w.dir)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The commands of each document run in their order, as a reader would type them.
func TestDocumentsRun(t *testing.T) {
	for _, file := range documents(t) {
		var script strings.Builder
		for _, b := range blocks(t, file) {
			if b.mark == "run" {
				fmt.Fprintf(&script, "echo '--- %s:%d'\n%s", b.file, b.line, b.text)
			}
		}
		if script.Len() == 0 {
			continue
		}
		t.Run(file, func(t *testing.T) {
			if out, err := newWorkshop(t).bash(t, script.String()); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// baseConfig holds what every configuration needs; a block that has a key of its
// own replaces the one here.
var baseConfig = []string{
	"issuer: https://auth.example.com\n",
	"resources:\n  - id: https://mcp.example.com/mcp\n    name: Example tools\n    scopes: [{name: \"tools:read\", title: look things up}]\n",
}

// Every configuration in the documents is one that the server takes.
func TestDocumentedConfiguration(t *testing.T) {
	w := newWorkshop(t)
	if out, err := w.bash(t, "bonafide init && rm bonafide.yaml"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	certificate(t, w.dir, "server.crt", "server.key")
	certificate(t, w.dir, "internal-ca.pem", "internal-ca.key")
	if err := os.WriteFile(filepath.Join(w.dir, "acme.secret"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			if b.mark != "config" {
				continue
			}
			text := b.text
			for _, base := range baseConfig {
				key, _, _ := strings.Cut(base, "\n")
				key, _, _ = strings.Cut(key, ":")
				if !strings.HasPrefix(b.text, key+":") && !strings.Contains(b.text, "\n"+key+":") {
					text = base + text
				}
			}
			if err := os.WriteFile(filepath.Join(w.dir, "bonafide.yaml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := w.bash(t, "bonafide config check"); err != nil {
				t.Errorf("%s:%d: %v\n%s", b.file, b.line, err, out)
			}
		}
	}
}

// certificate writes a certificate and its key as PEM files.
func certificate(t *testing.T, dir, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	inline  = regexp.MustCompile("`(bonafide [a-z][^`]*)`")
	aFlag   = regexp.MustCompile(`^--[a-z][a-z-]*`)
	aVerb   = regexp.MustCompile(`^[a-z]+$`)
	theLink = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
)

// Commands that stand in a sentence exist, with the flags that they are given.
func TestDocumentedCommandsExist(t *testing.T) {
	w := newWorkshop(t)
	help := map[string]string{}
	for _, file := range documents(t) {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inline.FindAllStringSubmatch(string(src), -1) {
			words := strings.Fields(m[1])
			end := 1
			for end < len(words) && aVerb.MatchString(words[end]) {
				end++
			}
			command := strings.Join(words[:end], " ")
			if _, ok := help[command]; !ok {
				out, err := w.bash(t, command+" --help")
				if err != nil || !strings.Contains(out, "\n  "+command+" ") && !strings.Contains(out, "\n  "+command+"\n") {
					t.Errorf("%s: there is no command %q", file, command)
				}
				help[command] = out
			}
			for _, word := range words[end:] {
				if flag := aFlag.FindString(word); flag != "" && !strings.Contains(help[command], flag) {
					t.Errorf("%s: %s has no flag %s", file, command, flag)
				}
			}
		}
	}
	if len(help) == 0 {
		t.Error("no command was found in the documents")
	}
}

// Links between the documents lead somewhere.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	for _, file := range documents(t) {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range theLink.FindAllStringSubmatch(string(src), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), filepath.FromSlash(m[1]))); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", file, m[1])
			}
		}
	}
}

// The documented names of the configuration are those that exist, and all of
// them are documented.
func TestEveryConfigurationKeyIsDocumented(t *testing.T) {
	var src []byte
	files, err := filepath.Glob("internal/server/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		src = append(src, b...)
	}
	whole, err := os.ReadFile("docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, doc, _ := strings.Cut(string(whole), "\n## Configuration\n")
	doc, _, _ = strings.Cut(doc, "\n## ")
	keys := map[string]bool{}
	for _, m := range regexp.MustCompile("`yaml:\"([a-z_0-9]+)\"`").FindAllStringSubmatch(string(src), -1) {
		keys[m[1]] = true
	}
	if len(keys) < 50 {
		t.Fatalf("only %d keys were found", len(keys))
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z_0-9.\\[\\]]+)` \\| (?:`([^`]+)`)?")
	defaults := reflect.ValueOf(server.Defaults())
	told := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(doc, -1) {
		if m[2] != "" && !strings.Contains(m[1], "[]") {
			if is := setting(defaults, m[1]); is != m[2] {
				t.Errorf("docs/operate.md: the default of %s is %s and not %s", m[1], is, m[2])
			}
		}
		for part := range strings.SplitSeq(strings.ReplaceAll(m[1], "[]", ""), ".") {
			told[part] = true
			if !keys[part] {
				t.Errorf("docs/operate.md: %s: there is no key %s", m[1], part)
			}
		}
	}
	var missing []string
	for k := range keys {
		if !told[k] {
			missing = append(missing, k)
		}
	}
	if slices.Sort(missing); len(missing) > 0 {
		t.Errorf("docs/operate.md says nothing about: %s", strings.Join(missing, ", "))
	}
}

// setting returns a member of a configuration by its path in the file, as it
// would be written there.
func setting(v reflect.Value, path string) string {
	name, rest, deeper := strings.Cut(path, ".")
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); tag != name {
			continue
		}
		if deeper {
			return setting(v.Field(i), rest)
		}
		if d, ok := v.Field(i).Interface().(time.Duration); ok {
			return short(d)
		}
		return fmt.Sprint(v.Field(i).Interface())
	}
	return "nothing"
}

// short writes a duration in its largest whole unit up to hours; a minute is 60s
// where the documents say so.
func short(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d > time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
