package bonafide_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/browse"
)

// The steps of "On your own computer" in the operator's guide, as somebody would
// type them: a server, an MCP server and a client, each started by its line in the
// document, and John who signs in and says yes.
func TestTheStepsOnOnesOwnComputer(t *testing.T) {
	var setup string
	var lines []string
	for _, b := range blocks(t, "docs/operate.md") {
		switch {
		case b.mark == "run" && strings.Contains(b.text, "--dir try"):
			setup = b.text
		case b.lang == "text" && strings.Contains(b.text, "go run ./examples/mcp-client"):
			lines = strings.Split(strings.TrimSpace(b.text), "\n")
		}
	}
	if setup == "" || len(lines) != 3 {
		t.Fatalf("the guide does not have the steps: %q", lines)
	}
	y := yard{workshop: newWorkshop(t), ports: map[string]string{}}
	for _, port := range []string{"8080", "8081", "8082"} {
		y.ports[port] = freePort(t)
	}
	for _, name := range []string{"mcp-server", "mcp-client"} {
		build := exec.Command("go", "build", "-o", filepath.Join(y.bin, name), "./examples/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	y.tool(t, "xdg-open", "true") // nobody sits here: the address is read from the terminal
	// The port where the server listens is the default, which is not in the file.
	if out, err := y.bash(t, y.here(setup)+"\necho 'listen: 127.0.0.1:"+y.ports["8080"]+"' >> try/bonafide.yaml\n"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	y.start(t, lines[0], "msg=ready")
	y.start(t, lines[1], "serving")
	t.Run("CLI-01, CLI-06 the client signs John in and calls the tool", func(t *testing.T) {
		out := y.client(t, lines[2])
		if !strings.Contains(out, `{"issues":[]}`) {
			t.Errorf("it printed %s", out)
		}
	})
	t.Run("CLI-12 it asks for more when it needs more", func(t *testing.T) {
		out := y.client(t, lines[2]+" -tool create_issue title='Buy milk'")
		if !strings.Contains(out, `"title":"Buy milk"`) {
			t.Errorf("it printed %s", out)
		}
	})
}

// yard is a workshop whose programs listen where nothing else does.
type yard struct {
	workshop
	ports map[string]string // by the one in the document
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// here writes a line of the document for this yard.
func (y yard) here(line string) string {
	for theirs, ours := range y.ports {
		line = strings.ReplaceAll(line, ":"+theirs, ":"+ours)
	}
	return strings.ReplaceAll(line, "go run ./examples/", "")
}

func (y yard) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-c", "exec "+y.here(line))
	cmd.Dir = y.dir
	cmd.Env = append(os.Environ(), "PATH="+y.bin+":"+os.Getenv("PATH"), "HOME="+y.dir, "XDG_CONFIG_HOME="+y.dir,
		y.here("LISTEN=127.0.0.1:8081"), y.here("RESOURCE=http://127.0.0.1:8081/mcp"), y.here("ISSUER=http://localhost:8080"))
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// start runs a line until the test is over, and returns when it says that it is
// ready.
func (y yard) start(t *testing.T, line, ready string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := y.command(ctx, line)
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	said := bufio.NewScanner(out)
	for said.Scan() {
		if strings.Contains(said.Text(), ready) {
			go func() {
				for said.Scan() { // what it says later is nobody's business, but has to go somewhere
				}
			}()
			return
		}
	}
	t.Fatalf("%s ended before it was ready", line)
}

// client runs the line of the client, signs John in at the address that it prints,
// and returns what it answers.
func (y yard) client(t *testing.T, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := y.command(ctx, line)
	var answer bytes.Buffer
	cmd.Stdout = &answer
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var told strings.Builder
	for said := bufio.NewScanner(out); said.Scan(); {
		fmt.Fprintln(&told, said.Text())
		if address := strings.TrimSpace(said.Text()); strings.HasPrefix(address, "http://localhost:") {
			if err := john(ctx, address); err != nil {
				t.Errorf("John: %v", err)
				cancel()
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, told.String())
	}
	return answer.String()
}

// john opens an address, signs in and agrees.
func john(ctx context.Context, address string) error {
	b, err := browse.New(browse.Config{})
	if err != nil {
		return err
	}
	page, err := b.Open(ctx, address)
	if err != nil {
		return err
	}
	form, err := page.Form("password")
	if err != nil {
		return err
	}
	if page, err = b.Submit(ctx, form.With("username", "john").With("password", "correct horse battery staple")); err != nil {
		return err
	}
	if form, err = page.Form("decision"); err != nil {
		return err
	}
	if page, err = b.Submit(ctx, form.With("decision", "allow")); err != nil {
		return err
	}
	if !strings.Contains(page.Text(), "You are signed in") {
		return fmt.Errorf("at %s: %s", page.URL, page.Text())
	}
	return nil
}
