package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// world is the namespace during the run over one store.
type world struct {
	dir     string
	binary  string
	guarded string // the example MCP server
	planted string // name of the weakness that the planted binary has now
	rounds  int
	verbose bool
	full    bool // as many requests as the rows say
	engine  engine
	ca      *authority
	dns     *nameServer
	canary  *canary

	sessions tls.ClientSessionCache // of TLS, for connections that come again

	mu      sync.Mutex // guards what follows
	hosts   map[string]*host
	next    int
	people  int
	servers int
	running []*server
	guards  []*protected
}

// fetches returns how many connections reached document hosts.
func (w *world) fetches() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, h := range w.hosts {
		n += h.connections()
	}
	return n
}

// stopAll ends every server that still runs.
func (w *world) stopAll() {
	w.mu.Lock()
	list, guards := w.running, w.guards
	w.running, w.guards = nil, nil
	w.mu.Unlock()
	for _, g := range guards {
		g.stop()
	}
	for _, s := range list {
		if s.process != nil && s.alive() {
			s.kill()
		}
	}
}

// engine is a kind of store.
type engine interface {
	name() string
	database(dir string, n int) (string, error) // a fresh one, as the configuration names it
	close()
}

type sqlite struct{}

func (sqlite) name() string                         { return "sqlite" }
func (sqlite) database(string, int) (string, error) { return "house.db", nil }
func (sqlite) close()                               {}

// postgres is a private cluster from Debian's packages.
type postgres struct {
	bin, dir, addr string
	wire           *pgwire
}

func newPostgres(dir, addr string) (*postgres, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("there is no PostgreSQL here (%v)", err)
	}
	p := &postgres{bin: filepath.Dir(found[len(found)-1]), dir: filepath.Join(dir, "pg"), addr: addr}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	if out, err := exec.Command("chown", "-R", "postgres:", p.dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("chown: %w: %s", err, out)
	}
	if err := p.sh(p.bin+"/initdb", "-D", p.dir+"/data", "-U", "postgres", "-A", "trust", "--no-sync", "--wal-segsize=1"); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("\nlisten_addresses = '%s'\nport = 5432\nunix_socket_directories = '%s'\nmax_connections = 120\nshared_buffers = 64MB\nfsync = on\nmax_wal_size = 16MB\nmin_wal_size = 2MB\n", addr, p.dir)
	f, err := os.OpenFile(p.dir+"/data/postgresql.conf", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(conf); err != nil {
		return nil, err
	}
	f.Close()
	hba, err := os.OpenFile(p.dir+"/data/pg_hba.conf", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if _, err := hba.WriteString("host all all 0.0.0.0/0 trust\n"); err != nil {
		return nil, err
	}
	hba.Close()
	return p, p.control("start")
}

func (p *postgres) control(what ...string) error {
	return p.sh(append([]string{p.bin + "/pg_ctl", "-D", p.dir + "/data", "-l", p.dir + "/log", "-w", "-t", "30"}, what...)...)
}

// sh runs a program of PostgreSQL as its user.
func (p *postgres) sh(args ...string) error {
	cmd := exec.Command("runuser", append([]string{"-u", "postgres", "--"}, args...)...)
	cmd.Dir = "/"
	done := make(chan error, 1)
	out, err := os.CreateTemp("", "pg")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { done <- cmd.Wait() }()
	select {
	case err = <-done:
	case <-time.After(60 * time.Second):
		cmd.Process.Kill()
		err = fmt.Errorf("no end after 60 s")
	}
	if err != nil {
		text, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, tail(string(text), 400))
	}
	return nil
}

// sql runs one statement in a database.
func (p *postgres) sql(database, statement string) (string, error) {
	cmd := exec.Command("runuser", "-u", "postgres", "--", p.bin+"/psql", "-h", p.dir, "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-At", "-c", statement)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", statement, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func (p *postgres) name() string { return "postgres" }

func (p *postgres) database(_ string, n int) (string, error) {
	name := fmt.Sprintf("as%d", n)
	if _, err := p.sql("postgres", "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	return fmt.Sprintf("postgres://postgres@%s:5432/%s?sslmode=disable", p.addr, name), nil
}

func (p *postgres) close() { p.control("stop", "-m", "immediate") }
