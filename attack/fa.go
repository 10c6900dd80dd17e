package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// again starts the server anew after it was killed, and says how long that took.
func (t *trial) again(s *server) time.Duration {
	began := time.Now()
	<-s.ended
	s.clock.close()
	if err := s.run(); err != nil {
		t.fatal("it does not come back: %v", err)
	}
	return time.Since(began)
}

// unavailable is how a server says that it cannot, just now.
func unavailable(a reply) bool {
	return a.err == nil && a.status == 503 && a.header.Get("Retry-After") != "" && a.str("access_token") == "" && !oracles.MatchString(a.raw)
}

// within repeats something until it is true, for so long at most.
func within(d time.Duration, f func() bool) bool {
	for end := time.Now().Add(d); ; time.Sleep(50 * time.Millisecond) {
		if f() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

func sh(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (t *trial) must(err error) {
	if err != nil {
		t.fatal("%v", err)
	}
}

// disk is an ext4 file system in a file. A copy of the file is what a machine
// would find after its power failed: what was not synced is not there.
type disk struct {
	image, dir string
}

func (t *trial) newDisk(mb int) *disk {
	name := filepath.Join(t.w.dir, fresh("disk"))
	d := &disk{name + ".img", name}
	t.must(os.MkdirAll(d.dir, 0o755))
	t.must(sh("truncate", "-s", fmt.Sprintf("%dM", mb), d.image))
	t.must(sh("mkfs.ext4", "-q", d.image))
	t.must(sh("mount", "-o", "loop", d.image, d.dir))
	return d
}

func (t *trial) powerCut(d *disk) *disk {
	name := filepath.Join(t.w.dir, fresh("cut"))
	c := &disk{name + ".img", name}
	t.must(os.MkdirAll(c.dir, 0o755))
	t.must(sh("cp", "--sparse=always", d.image, c.image))
	t.must(sh("mount", "-o", "loop", c.image, c.dir))
	return c
}

func (d *disk) close() {
	sh("umount", d.dir)
	os.Remove(d.image)
}

// tmpfs is a small file system that can be filled.
func (t *trial) tmpfs(mb int) string {
	dir := filepath.Join(t.w.dir, fresh("full"))
	t.must(os.MkdirAll(dir, 0o755))
	t.must(sh("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", mb), "tmpfs", dir))
	return dir
}

func fill(dir string) {
	f, err := os.OpenFile(filepath.Join(dir, "ballast"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		for block := make([]byte, size); ; {
			if _, err := f.Write(block); err != nil {
				break
			}
		}
	}
}

func empty(dir string) { os.Remove(filepath.Join(dir, "ballast")) }

// stored starts a server whose database is in a directory, and returns what else
// runs there, or nil.
func (t *trial) stored(dir string) (*server, *postgres) {
	if t.w.engine.name() == "sqlite" {
		return t.another(options{changes: []string{"store: house.db", "store: " + dir + "/house.db"}}), nil
	}
	const addr = "93.184.216.62"
	t.w.canary.allow(addr, 5432)
	pg, err := newPostgres(dir, addr)
	t.must(err)
	store, err := pg.database("", 1)
	t.must(err)
	s, err := t.w.start(options{addr: replicaAddr, storeAt: store})
	t.must(err)
	return s, pg
}

var groupFA = group{
	name:    "FA",
	options: options{changes: []string{"", "tokens: {code: 10m}", "allow_test_names: true}", "allow_test_names: true, timeout: 2s}"}},
	rows:    slices.Concat(faStore, faRest),
}

// storm walks the whole flow n times while the store fails now and then, and wants
// every once-only thing to be good once at most, and nothing worse than 503. It
// returns how often something failed.
func (t *trial) storm(s *server, p *person, n int) (failed int) {
	good := 0
	for i := range n {
		pg, err := p.try(az(), "none")
		if err != nil || pg.code() == "" {
			t.check(err == nil && !pg.left && pg.status == 503, "round %d: %v %v", i, pg, err)
			failed++
			continue
		}
		code := pg.code()
		a := s.post("/token", codeForm(code))
		b := s.post("/token", codeForm(code))
		t.check(a.ok() || unavailable(a) || a.is(400, "invalid_grant"), "round %d, first: %s", i, a)
		t.check(b.ok() || unavailable(b) || b.is(400, "invalid_grant"), "round %d, again: %s", i, b)
		t.check(!(a.ok() && b.ok()), "round %d: two tokens for one code", i)
		if a.ok() {
			good++
		}
		if unavailable(a) || unavailable(b) {
			failed++
		}
	}
	t.check(good >= n/2, "only %d of %d honest flows went through", good, n)
	return failed
}

// revived starts a server on what a power cut left.
func (t *trial) revived(s *server, cut *disk, pg *postgres) *server {
	store := cut.dir + "/house.db"
	if pg != nil {
		pg.control("stop", "-m", "immediate") // one cluster has the address at a time
		for _, name := range []string{"/data/postmaster.pid", "/.s.PGSQL.5432", "/.s.PGSQL.5432.lock"} {
			os.Remove(cut.dir + "/pg" + name)
		}
		next := &postgres{bin: pg.bin, dir: cut.dir + "/pg", addr: pg.addr}
		conf := cut.dir + "/pg/data/postgresql.conf"
		raw, err := os.ReadFile(conf)
		t.must(err)
		t.must(os.WriteFile(conf, []byte(strings.ReplaceAll(string(raw), pg.dir, next.dir)), 0o600))
		t.must(sh("chown", "-R", "postgres:", next.dir))
		if err := next.control("start"); err != nil {
			raw, _ := os.ReadFile(next.dir + "/log")
			t.fatal("%v: %s", err, tail(string(raw), 800))
		}
		store = s.store
	}
	after, err := t.w.start(options{addr: "93.184.216.54", twin: s, storeAt: store})
	if err != nil {
		t.check(false, "it does not start on what the power cut left: %v", err)
		return nil
	}
	return after
}
