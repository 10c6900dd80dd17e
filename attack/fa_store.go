package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// faStore is what happens to the process, the disk and the database.
var faStore = []row{
	{"FA-01", func(t *trial) {
		var slowest time.Duration
		for n := range max(t.w.rounds/2, 14) {
			g := t.john.grant("prompt", "consent")
			code := t.john.codeFor(az("prompt", "consent"))
			question := t.john.visit(az("prompt", "consent")).must("decision").with("decision", "allow")
			var redeemed, rotated, revoked reply
			var answered *page
			var wg sync.WaitGroup
			op := n % 5
			wg.Go(func() {
				switch op {
				case 0:
					redeemed = t.s.post("/token", codeForm(code))
				case 1:
					rotated = t.s.post("/token", refreshForm(g.str("refresh_token")))
				case 2:
					revoked = t.s.post("/revoke", values("token", g.str("refresh_token"), "client_id", goodID))
				case 3:
					answered, _ = t.john.trySend(question)
				default:
					t.s.cli("", "keys", "rotate")
				}
			})
			time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond)
			t.s.signal(syscall.SIGKILL)
			wg.Wait()
			slowest = max(slowest, t.again(t.s))
			switch op {
			case 0:
				again := t.s.post("/token", codeForm(code))
				if redeemed.ok() {
					t.check(again.is(400, "invalid_grant"), "kill %d: a redeemed code: %s", n, again)
				} else {
					t.check(again.ok() || again.is(400, "invalid_grant"), "kill %d: a code: %s", n, again)
					t.check(t.s.post("/token", codeForm(code)).is(400, "invalid_grant"), "kill %d: a code is good twice", n)
				}
			case 1:
				again := t.s.post("/token", refreshForm(g.str("refresh_token")))
				t.check(again.ok() && (!rotated.ok() || again.str("refresh_token") == rotated.str("refresh_token")), "kill %d: a rotation: %s", n, again)
			case 2:
				if revoked.ok() {
					t.check(!t.s.active(g.str("access_token")) && t.s.post("/token", refreshForm(g.str("refresh_token"))).is(400, "invalid_grant"), "kill %d: a revocation is undone", n)
				} else {
					t.check(true, "")
				}
			case 3:
				if answered != nil && answered.code() != "" {
					a := t.s.post("/token", codeForm(answered.code()))
					t.check(a.ok(), "kill %d: a code that was given out: %s", n, a)
				}
			default:
				t.check(t.john.grant("prompt", "consent").str("access_token") != "", "kill %d: keys", n)
			}
		}
		limit := 2 * time.Second
		if busy() {
			limit = 10 * time.Second
		}
		t.check(slowest < limit, "a restart took %v", slowest)
	}},
	{"FA-03", func(t *trial) {
		size := 48
		if t.w.engine.name() == "postgres" {
			size = 160
		}
		d := t.newDisk(size)
		defer d.close()
		s, pg := t.stored(d.dir)
		defer s.kill()
		if pg != nil {
			defer pg.control("stop", "-m", "immediate")
		}
		p := s.newUser("john")
		p.grant()
		t.must(sh("sync", "-f", d.dir)) // what initdb wrote; from here on nobody syncs but the store
		for n := range 8 {
			code := p.codeFor(az())
			a := s.post("/token", codeForm(code))
			b := s.post("/token", refreshForm(a.str("refresh_token")))
			c := p.grant("prompt", "consent")
			s.post("/revoke", values("token", c.str("refresh_token"), "client_id", goodID))
			t.check(a.ok() && b.ok(), "before the power fails: %s %s", a, b)
			os.WriteFile(filepath.Join(d.dir, fmt.Sprintf("unsynced%d", n)), []byte("x"), 0o644)
			cut := t.powerCut(d)
			_, err := os.Stat(filepath.Join(cut.dir, fmt.Sprintf("unsynced%d", n)))
			t.check(err != nil, "cut %d: what was not synced is there: the row proves nothing", n)
			after := t.revived(s, cut, pg)
			if after != nil {
				t.check(after.active(b.str("access_token")), "cut %d: an acknowledged grant is gone", n)
				x := after.post("/token", codeForm(code))
				t.check(x.is(400, "invalid_grant"), "cut %d: a redeemed code is good again: %s", n, x)
				t.check(!after.active(c.str("access_token")), "cut %d: a revocation is undone", n)
				after.kill()
			}
			if pg != nil {
				(&postgres{bin: pg.bin, dir: cut.dir + "/pg"}).control("stop", "-m", "immediate")
				pg.control("start")
				within(10*time.Second, func() bool { return s.get("/readyz").status == 200 && p.visit(az()).code() != "" })
			}
			cut.close()
		}
	}},
	{"FA-04", func(t *trial) {
		size := 24
		if t.w.engine.name() == "postgres" {
			size = 110
		}
		dir := t.tmpfs(size)
		defer sh("umount", "-l", dir)
		s, pg := t.stored(dir)
		defer s.kill()
		if pg != nil {
			defer pg.control("stop", "-m", "immediate")
		}
		p := s.newUser("john")
		a := p.grant()
		var codes []string
		for range 12 {
			codes = append(codes, p.codeFor(az()))
		}
		fill(dir)
		var got []reply
		for _, code := range codes {
			fill(dir)
			got = append(got, s.post("/token", codeForm(code)))
		}
		full := 0
		for i, b := range got {
			if unavailable(b) {
				full++
				continue
			}
			t.check(b.ok(), "code %d on a full disk: %s", i, b)
		}
		t.check(full > 0, "the disk was never full: the row proves nothing")
		if pg == nil {
			t.check(s.active(a.str("access_token")), "introspection on a full disk")
			t.check(s.get("/jwks").ok(), "keys on a full disk")
		}
		empty(dir)
		if pg != nil && pg.control("status") != nil {
			t.must(pg.control("start"))
		}
		t.check(within(5*time.Second, func() bool { return s.post("/token", refreshForm(a.str("refresh_token"))).ok() }), "no recovery within 5 s of space")
		for i, b := range got {
			if b.ok() {
				t.check(s.active(b.str("access_token")), "code %d: an acknowledged token is gone", i)
			} else {
				c := s.post("/token", codeForm(codes[i]))
				t.check(c.ok() || c.is(400, "invalid_grant"), "code %d afterwards: %s", i, c)
			}
		}
	}},
	{"FA-06", func(t *trial) {
		pg := t.w.engine.(*postgres)
		var acked []reply
		for n := range 4 {
			done := make(chan struct{})
			finish := sync.OnceFunc(func() { close(done) })
			var mu sync.Mutex
			var wg sync.WaitGroup
			defer wg.Wait()
			defer finish()
			for range 4 {
				wg.Go(func() {
					p := t.s.person()
					p.http.Jar = t.john.jar
					for {
						select {
						case <-done:
							return
						default:
						}
						pg, err := p.try(az(), "none")
						if err != nil || pg.code() == "" {
							if err == nil && (pg.status == 500 || pg.left) {
								mu.Lock()
								t.check(false, "an outage shows as %s", pg)
								mu.Unlock()
							}
							time.Sleep(20 * time.Millisecond)
							continue
						}
						a := t.s.post("/token", codeForm(pg.code()))
						mu.Lock()
						if a.ok() {
							acked = append(acked, a)
						} else {
							t.check(unavailable(a) || a.is(400, "invalid_grant"), "an outage at /token: %s", a)
						}
						mu.Unlock()
					}
				})
			}
			time.Sleep(400 * time.Millisecond)
			t.must(pg.control("restart", "-m", "immediate"))
			back := within(5*time.Second, func() bool { return t.s.get("/readyz").status == 200 && t.john.visit(az()).code() != "" })
			mu.Lock()
			t.check(back, "restart %d: no success within 5 s", n)
			mu.Unlock()
			finish()
			wg.Wait()
		}
		t.check(len(acked) > 20, "only %d acknowledged writes", len(acked))
		for _, a := range acked {
			if !t.check(t.s.active(a.str("access_token")), "an acknowledged token is gone") {
				break
			}
		}
	}},
	{"FA-07", func(t *trial) {
		px := t.w.dbproxy("93.184.216.61", databaseAddr)
		defer px.close()
		s := t.another(options{changes: []string{databaseAddr, "93.184.216.61"}})
		defer s.kill()
		p := s.newUser("john")
		p.grant()
		for range 8 {
			code := p.codeFor(az())
			px.lose.Store(1)
			a := s.post("/token", codeForm(code))
			px.lose.Store(0)
			b := s.post("/token", codeForm(code))
			t.check(a.ok() || unavailable(a), "the answer to COMMIT is lost: %s", a)
			t.check(!(a.ok() && b.ok()), "two tokens for one code")
			t.check(b.ok() || b.is(400, "invalid_grant") || unavailable(b), "and again: %s", b)
			t.check(s.post("/token", codeForm(code)).str("access_token") == "" || !b.ok(), "the code is good once more")
		}
		t.check(px.lost.Load() >= 4, "only %d answers were lost", px.lost.Load())
	}},
	{"FA-08", func(t *trial) {
		px := t.w.dbproxy("93.184.216.61", databaseAddr)
		defer px.close()
		s := t.another(options{changes: []string{databaseAddr, "93.184.216.61"}})
		defer s.kill()
		p := s.newUser("john")
		a := p.grant()
		token := a.str("refresh_token")
		px.delay.Store(int64(500 * time.Millisecond))
		b := s.post("/token", refreshForm(token))
		t.check(b.ok() || unavailable(b), "half a second for each question: %s", b)
		px.delay.Store(0)
		before := s.fds()
		px.cut.Store(true) // nothing answers, as behind a lock that is never given back
		var wg sync.WaitGroup
		var odd atomic.Int64
		for range 40 {
			wg.Go(func() {
				x := s.post("/token", refreshForm(token))
				if !unavailable(x) || x.took > 35*time.Second {
					odd.Add(1)
				}
			})
		}
		wg.Wait()
		t.check(odd.Load() == 0, "%d of 40 requests were not told to come back", odd.Load())
		t.check(s.get("/readyz").status == 503, "it calls itself ready")
		px.cut.Store(false)
		px.refuse.Store(true)
		px.hangUp()
		x := s.post("/token", refreshForm(token))
		t.check(unavailable(x), "no connection is to be had: %s", x)
		px.refuse.Store(false)
		t.check(within(8*time.Second, func() bool { return s.get("/readyz").status == 200 && p.visit(az()).code() != "" }), "it does not recover")
		t.check(s.fds() <= before+40, "%d files are open, %d before", s.fds(), before)
	}},
	{"FA-09", func(t *trial) {
		px := t.w.dbproxy("93.184.216.61", databaseAddr)
		defer px.close()
		s := t.another(options{changes: []string{databaseAddr, "93.184.216.61"}})
		defer s.kill()
		p := s.newUser("john")
		p.grant()
		px.conflict.Store(20)
		t.storm(s, p, 60)
		t.check(px.failed.Load() > 5, "only %d conflicts happened", px.failed.Load())
	}},
}
