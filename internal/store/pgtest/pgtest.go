// Package pgtest starts a private PostgreSQL server for the tests of a package:
// a cluster of its own in a temporary directory, durable as in production,
// reached through a Unix socket. It is made at the first use and goes with the
// test program, however that ends. The server comes from Debian's package
// postgresql; a test fails when there is none, it is never skipped.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running cluster.
type Server struct {
	bin, dir string
	owner    *syscall.Credential // nil: whoever runs the test
	stdin    io.Closer           // its end is the end of the server
	options  string
	n        atomic.Int64

	mu        sync.Mutex
	templates map[string]string // name of a migration to its database
}

var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns the cluster of this test program.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = start("") })
	if shared.err != nil {
		t.Fatalf("PostgreSQL is needed for this test: %v", shared.err)
	}
	return shared.server
}

// New starts a cluster that the test may stop and break. The options are those
// of the server's command line.
func New(t testing.TB, options string) *Server {
	t.Helper()
	s, err := start(options)
	if err != nil {
		t.Fatalf("PostgreSQL is needed for this test: %v", err)
	}
	t.Cleanup(func() { s.stdin.Close() })
	return s
}

// Start starts a cluster for a program that is not a test. It ends with stop, and
// with the program at the latest. Without PostgreSQL the error is
// exec.ErrNotFound.
func Start(options string) (s *Server, stop func() error, err error) {
	if s, err = start(options); err != nil {
		return nil, nil, err
	}
	return s, s.stdin.Close, nil
}

// Database returns the address of a fresh database in the cluster of this test
// program, which prepare has brought up to date. Prepare runs once for each
// name; later databases are copies.
func Database(t testing.TB, name string, prepare func(address string) error) string {
	t.Helper()
	s := Shared(t)
	address, err := s.Copy(t.Context(), name, prepare)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// Copy is Database for any cluster.
func (s *Server) Copy(ctx context.Context, name string, prepare func(address string) error) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	template, ok := s.templates[name]
	if !ok {
		template = fmt.Sprint("template_", s.n.Add(1))
		if err := s.do(ctx, "CREATE DATABASE "+template+" TEMPLATE template0 ENCODING 'UTF8'"); err != nil {
			return "", err
		}
		if err := prepare(s.Address(template)); err != nil {
			return "", fmt.Errorf("prepare a database: %w", err)
		}
		s.templates[name] = template
	}
	db := fmt.Sprint("test_", s.n.Add(1))
	return s.Address(db), s.do(ctx, "CREATE DATABASE "+db+" TEMPLATE "+template)
}

// Address returns the address of a database by its name.
func (s *Server) Address(db string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + db, RawQuery: url.Values{"host": {s.dir}}.Encode()}
	return u.String()
}

// Dir returns the directory of the server's socket, .s.PGSQL.5432.
func (s *Server) Dir() string { return s.dir }

// do runs one statement as the superuser.
func (s *Server) do(ctx context.Context, query string) error {
	c, err := pgx.Connect(ctx, s.Address("postgres"))
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, query)
	return errors.Join(err, c.Close(context.WithoutCancel(ctx)))
}

// Restart stops the server as a crash would and starts it again.
func (s *Server) Restart() error { return errors.Join(s.Stop(), s.Start()) }

// Stop stops the server as a crash would.
func (s *Server) Stop() error {
	return s.run("pg_ctl", "stop", "-D", filepath.Join(s.dir, "data"), "-m", "immediate", "-w")
}

// Start starts a server that was stopped.
func (s *Server) Start() error {
	return s.run("pg_ctl", "start", "-D", filepath.Join(s.dir, "data"), "-l", filepath.Join(s.dir, "log"), "-o", s.flags(), "-w", "-t", "60")
}

// Demote starts a server that was stopped as a standby, which can be read and not
// changed, and follows nobody.
func (s *Server) Demote() error {
	signal := filepath.Join(s.dir, "data", "standby.signal")
	err := os.WriteFile(signal, nil, 0o600)
	if s.owner != nil && err == nil {
		err = os.Chown(signal, int(s.owner.Uid), int(s.owner.Gid))
	}
	return errors.Join(err, s.Start())
}

// Promote makes a standby the primary.
func (s *Server) Promote() error {
	return s.run("pg_ctl", "promote", "-D", filepath.Join(s.dir, "data"), "-w")
}

// flags of the server. Everything that makes a commit durable keeps its default.
func (s *Server) flags() string {
	return "-c listen_addresses= -c max_connections=300 -c shared_buffers=64MB -c unix_socket_directories=" + s.dir + " " + s.options
}

func (s *Server) run(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	s.asOwner(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // the server keeps what it was started with open
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		return fmt.Errorf("%s: %w: %s %s", name, err, out.Bytes(), log)
	}
	return nil
}

// asOwner lets a command run as somebody who may run a server: root may not.
func (s *Server) asOwner(cmd *exec.Cmd) {
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "HOME="+s.dir, "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Setpgid: true}
}

// start makes a cluster and starts it.
func start(options string) (_ *Server, err error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, options: options, templates: map[string]string{}}
	if s.dir, err = os.MkdirTemp("", "bonafide-pg-"); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		if err := s.give(); err != nil {
			return nil, err
		}
	}
	if err := s.run("initdb", "-D", filepath.Join(s.dir, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"); err != nil {
		return nil, err
	}
	if err := s.keeper(); err != nil {
		return nil, err
	}
	return s, s.Start()
}

// give makes the directory the server's own.
func (s *Server) give() error {
	u, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("root cannot run a server, and there is nobody else to do it: %w", err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2, os.Chown(s.dir, uid, gid)); err != nil {
		return err
	}
	s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}

// keeper starts a process that does nothing until this one has ended, by
// whatever cause, and then ends the server and removes what it leaves.
func (s *Server) keeper() error {
	cmd := exec.Command("/bin/sh", "-c", `cat >/dev/null; "$0/pg_ctl" stop -D "$1/data" -m immediate; rm -rf "$1"`, s.bin, s.dir)
	s.asOwner(cmd)
	cmd.Dir = "/"
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	s.stdin = in
	return cmd.Start()
}

// find returns where the programs of the newest server are.
func find() (string, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	version := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		return n
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "initdb"))
		return err != nil || version(dir) < 15
	})
	if len(dirs) > 0 {
		return slices.MaxFunc(dirs, func(a, b string) int { return version(a) - version(b) }), nil
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(initdb), nil
	}
	return "", fmt.Errorf("no initdb in /usr/lib/postgresql/*/bin: scripts/need.sh initdb installs it: %w", exec.ErrNotFound)
}

// Exec runs a statement behind the back of whoever uses the database.
func Exec(t testing.TB, address, query string, args ...any) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Exec(t.Context(), query, args...)
	if err := errors.Join(err, c.Close(context.WithoutCancel(t.Context()))); err != nil {
		t.Fatal(err)
	}
}
