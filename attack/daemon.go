package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Names that every server has.
const (
	issuer    = "https://as.test"
	resource  = "https://mcp.test/mcp"
	redirect  = "https://good.test/cb"
	goodID    = "https://good.test/c.json"
	password  = "correct horse battery"
	verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
	secret    = "secret" // with which the resources introspect
)

const config = `issuer: https://as.test
listen: 93.184.216.50:443
tls: {cert_file: server.crt, key_file: server.key}
store: STORE
key_file: house.key
brand: {name: Acme}
cimd: {enabled: true, allow_test_names: true}
resources:
  - id: https://mcp.test/mcp
    name: Example tools
    aliases: [https://mcp.test/mcp/]
    default_scopes: [mcp:read]
    introspection_secret_sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
    scopes:
      - {name: "mcp:read", title: look things up, description: It can read what you can read., tools: [search]}
      - {name: "mcp:write", title: make changes, description: It can change things in your name., tools: [create], implies: ["mcp:read"]}
  - id: https://notes.test/
    name: Notes
    introspection_secret_sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
policy: {default: allow}
`

// server is one running release binary, or one that was.
type server struct {
	w       *world
	name    string // as.test
	addr    string
	dir     string
	env     []string
	args    []string
	clock   *clock
	offset  time.Duration
	mu      sync.Mutex // guards log
	log     bytes.Buffer
	process *os.Process
	ended   chan struct{}
	store   string
}

type options struct {
	changes []string // pairs: text of the configuration and what stands there instead; "" appends
	env     []string
	args    []string
	addr    string  // "" is the address of as.test
	twin    *server // shares key and database with another server
	storeAt string  // a database that is there, in place of a fresh one
}

// start starts a server with a database of its own.
func (w *world) start(o options) (*server, error) {
	s := &server{w: w, name: "as.test", addr: asAddr, env: o.env, args: o.args}
	if o.addr != "" {
		s.addr = o.addr
	}
	w.mu.Lock()
	w.servers++
	n := w.servers
	w.mu.Unlock()
	s.dir = filepath.Join(w.dir, fmt.Sprintf("as%d", n))
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	var key [32]byte
	rand.Read(key[:])
	raw := []byte(base64.RawURLEncoding.EncodeToString(key[:]))
	var err error
	if o.twin != nil {
		s.store, s.offset = o.twin.store, o.twin.offset
		if raw, err = os.ReadFile(filepath.Join(o.twin.dir, "house.key")); err != nil {
			return nil, err
		}
		if o.storeAt != "" {
			s.store = o.storeAt
		}
	} else if o.storeAt != "" {
		s.store = o.storeAt
	} else if s.store, err = w.engine.database(s.dir, n); err != nil {
		return nil, err
	}
	text := strings.Replace(config, "STORE", s.store, 1)
	text = strings.Replace(text, asAddr, s.addr, 1)
	for i := 0; i+1 < len(o.changes); i += 2 {
		if o.changes[i] == "" {
			text += o.changes[i+1] + "\n"
			continue
		}
		if !strings.Contains(text, o.changes[i]) {
			return nil, fmt.Errorf("the configuration does not hold %q", o.changes[i])
		}
		text = strings.Replace(text, o.changes[i], o.changes[i+1], 1)
	}
	if err := errors.Join(os.WriteFile(s.path("house.key"), raw, 0o600), os.WriteFile(s.path("bonafide.yaml"), []byte(text), 0o600), w.ca.files(s.dir, s.name)); err != nil {
		return nil, err
	}
	w.canary.reserve(s.addr, 443)
	w.mu.Lock()
	w.running = append(w.running, s)
	w.mu.Unlock()
	return s, s.run()
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

// logged is where the process writes.
func (s *server) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(b)
}

// output returns everything that the process has written.
func (s *server) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// run starts the process, with the clock where the server left it, and waits
// until it answers.
func (s *server) run() error {
	cmd := s.command(append([]string{"serve"}, s.args...)...)
	cmd.Stdout, cmd.Stderr = s, s
	c, err := launch(cmd, s.offset)
	if err != nil {
		return err
	}
	s.clock, s.process, s.ended = c, cmd.Process, make(chan struct{})
	ended := s.ended
	go func() {
		cmd.Wait()
		close(ended)
	}()
	deadline := time.Now().Add(20 * time.Second)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(81, 1, 1, 1)}, Timeout: time.Second}
	for {
		conn, err := d.Dial("tcp", net.JoinHostPort(s.addr, "443"))
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("the server did not start: %s", tail(s.output(), 600))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.kill()
			return fmt.Errorf("the server does not listen after 20 s: %s", tail(s.output(), 600))
		}
	}
}

func (s *server) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.w.binary, append(args, "-c", s.path("bonafide.yaml"))...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "SSL_CERT_FILE=" + s.w.ca.file, "SSL_CERT_DIR=/nonexistent", "TMPDIR=" + s.dir, "HOME=" + s.dir}, s.env...)
	if s.w.planted != "" {
		cmd.Env = append(cmd.Env, "BONAFIDE_PLANTED="+s.w.planted)
	}
	return cmd
}

// launch starts a process whose clock is moved before its first instruction.
func launch(cmd *exec.Cmd, offset time.Duration) (*clock, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, 0, nil); err != nil {
		return nil, err
	}
	c, err := newClock(cmd.Process.Pid)
	if err == nil {
		err = c.set(offset, offset)
	}
	if e := syscall.PtraceDetach(cmd.Process.Pid); e != nil {
		err = errors.Join(err, e)
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
	return c, err
}

// cli runs another command of the binary against the same database, at the same
// time of day, and returns what it printed.
func (s *server) cli(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := s.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	c, err := launch(cmd, s.offset)
	if err != nil {
		return "", err
	}
	defer c.close()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("bonafide %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// now is what time the server has.
func (s *server) now() time.Time { return time.Now().Add(s.offset) }

// later moves the clock of the server: of the day, and of what runs.
func (s *server) later(d time.Duration) {
	d = d.Round(time.Second)
	p, over := s.w.engine.(*postgres)
	if over {
		p.quiet(s.database()) // a question on its way would run out of time
	}
	over = over && d > 2*time.Second
	s.offset += d
	if err := s.clock.set(s.clock.real+d, s.clock.mono+d); err != nil {
		panic(stop{"move the clock: " + err.Error()})
	}
	if over { // what was due runs now, and connections that are old are made anew
		time.Sleep(50 * time.Millisecond)
		p.quiet(s.database())
	}
}

// database is the name of the database of a server over PostgreSQL.
func (s *server) database() string {
	name, _, _ := strings.Cut(s.store[strings.LastIndexByte(s.store, '/')+1:], "?")
	return name
}

func (s *server) signal(sig syscall.Signal) {
	if s.process != nil {
		s.process.Signal(sig)
	}
}

// term ends the process as an operator would.
func (s *server) term() {
	s.signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(30 * time.Second):
		s.kill()
	}
	s.clock.close()
}

func (s *server) kill() {
	s.signal(syscall.SIGKILL)
	<-s.ended
	s.clock.close()
}

// restart ends the process and starts another on the same database.
func (s *server) restart() {
	s.term()
	if err := s.run(); err != nil {
		panic(stop{err.Error()})
	}
}

// reconfigure changes the configuration and lets the server read it again.
func (s *server) reconfigure(from, to string) error {
	raw, err := os.ReadFile(s.path("bonafide.yaml"))
	if err != nil {
		return err
	}
	if !strings.Contains(string(raw), from) {
		return fmt.Errorf("the configuration does not hold %q", from)
	}
	return os.WriteFile(s.path("bonafide.yaml"), []byte(strings.Replace(string(raw), from, to, 1)), 0o600)
}

// memory returns a line of /proc/PID/status such as VmRSS, in KiB.
func (s *server) memory(field string) int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Pid))
	for line := range strings.SplitSeq(string(raw), "\n") {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n := 0
			fmt.Sscanf(rest, "%d", &n)
			return n
		}
	}
	return 0
}

func (s *server) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}
