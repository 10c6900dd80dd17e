package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
	rows: []row{
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
				var mu sync.Mutex
				var wg sync.WaitGroup
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
				t.check(within(5*time.Second, func() bool { return t.s.get("/readyz").status == 200 && t.john.visit(az()).code() != "" }), "restart %d: no success within 5 s", n)
				close(done)
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
		{"FA-11", func(t *trial) {
			s := t.another(options{changes: []string{"", "sessions: {idle: 90000h, absolute: 90000h}"}})
			defer s.kill()
			old := t.env
			defer func() { t.env = old }()
			t.env = &env{w: old.w, s: s, john: s.newUser("john"), vars: map[string]any{}}
			k := t.keyed(fresh("jumpy"), nil, "ES256")
			t.check(k.redeem(k.codeOf(t.john), k.assert(nil)).ok(), "a client with keys")
			gone := t.john.grant("prompt", "consent")
			t.check(s.post("/revoke", values("token", gone.str("refresh_token"), "client_id", goodID)).ok(), "revoke")
			for _, jump := range []time.Duration{time.Hour, -time.Hour, 5 * 365 * 24 * time.Hour, 0} {
				one := k.assert(nil)
				t.check(k.auth(one).ok(), "%v: an assertion", jump)
				code := t.john.codeFor(az("prompt", "consent"))
				t.check(s.post("/token", codeForm(code)).ok(), "%v: a code before", jump)
				s.offset = jump
				t.must(s.clock.set(jump, 0)) // the calendar jumps, the stopwatch does not
				t.check(k.auth(one).str("error") == "invalid_client", "%v: a used assertion is good again", jump)
				t.check(s.post("/token", codeForm(code)).str("access_token") == "", "%v: a used code is good again", jump)
				t.check(!s.active(gone.str("access_token")) && s.post("/token", refreshForm(gone.str("refresh_token"))).is(400, "invalid_grant"), "%v: a revocation is undone", jump)
				pg := t.john.visit(az("prompt", "consent"))
				if pg.has("password") { // a session that began in the future, or long ago
					t.john = s.signedIn("john")
					pg = t.john.visit(az("prompt", "consent"))
				}
				if !t.check(pg.asks(), "%v: no honest request goes through: %s", jump, pg) {
					continue
				}
				a := s.post("/token", codeForm(t.john.answer(pg, "allow").code()))
				exp, _ := claimOf(a.str("access_token"), "exp").(float64)
				iat, _ := claimOf(a.str("access_token"), "iat").(float64)
				life, _ := a.body["expires_in"].(float64)
				t.check(a.ok() && exp > iat && exp-iat <= 601 && life > 0 && life <= 600, "%v: a token from %v to %v: %s", jump, iat, exp, a)
			}
			h := t.w.host(fresh("late"))
			id := h.client("/c.json", m{"client_name": "Before"}, "Cache-Control", "max-age=3600")
			t.asks("cached", t.john.visit(azOf(id)))
			t.must(s.clock.set(-time.Hour, 0))
			t.must(s.clock.set(0, 2*time.Hour)) // two hours pass, whatever the calendar says
			h.client("/c.json", m{"client_name": "After"})
			t.must(s.clock.set(2*time.Hour, 2*time.Hour))
			s.offset = 2 * time.Hour
			pg := t.john.visit(azOf(id))
			t.check(strings.Contains(pg.text(), "After"), "a document is kept for ever: %s", pg)
			years := map[string]bool{}
			for _, e := range s.events("") {
				if at, ok := e["time"].(string); ok && len(at) > 4 {
					years[at[:4]] = true
				}
			}
			t.check(len(years) >= 2, "the audit does not show the jump: %v", years)
		}},
		{"FA-12", func(t *trial) {
			s := t.another(options{})
			defer s.kill()
			old := t.env
			defer func() { t.env = old }()
			t.env = &env{w: old.w, s: s, john: s.newUser("john"), vars: map[string]any{}}
			k := t.keyed(fresh("frozen"), nil, "ES256")
			t.check(k.redeem(k.codeOf(t.john), k.assert(nil)).ok(), "a client with keys")
			one, code := k.assert(nil), t.john.codeFor(az())
			t.check(k.auth(one).ok() && s.post("/token", codeForm(code)).ok(), "used once")
			t.must(s.clock.set(0, 10*time.Minute)) // ten minutes on the stopwatch, none in the calendar
			t.check(k.auth(one).is(401, "invalid_client"), "the assertion again")
			t.check(s.post("/token", codeForm(code)).is(400, "invalid_grant"), "the code again")
			t.check(t.john.visit(az()).code() != "" || t.john.visit(az()).asks(), "honest requests")
			if t.w.engine.name() == "postgres" {
				twin, err := t.w.start(options{addr: "93.184.216.54", twin: s})
				t.must(err)
				defer twin.kill()
				for _, skew := range []time.Duration{90 * time.Second, -90 * time.Second} {
					t.must(twin.clock.set(skew, 0))
					one, code := k.assert(nil), t.john.codeFor(az("prompt", "consent"))
					a, b := s.post("/token", codeForm(code)), twin.post("/token", codeForm(code))
					t.check(a.ok() && b.str("access_token") == "", "%v apart: %s, %s", skew, a, b)
					a, b = k.auth(one), twin.post("/revoke", values(with(one, "token", "x")...))
					t.check(!(a.ok() && b.ok()), "%v apart: an assertion is good at both", skew)
				}
			}
		}},
		{"FA-13", func(t *trial) {
			k := t.keyed(fresh("outage"), nil, "ES256")
			k.host.change(func(h *host) { h.down = true })
			t.local("at the first use", t.john.visit(azOf(k.id)), 502)
			k.host.change(func(h *host) { h.down = false })
			t.s.later(40 * time.Second)
			code, second := k.codeOf(t.john), k.codeOf(t.john)
			t.check(k.redeem(code, k.assert(nil)).ok(), "while it is up")
			public := t.w.host(fresh("outage"))
			id := public.client("/c.json", nil, "Cache-Control", "max-age=60")
			pcode := t.john.codeFor(azOf(id))
			public.change(func(h *host) { h.down = true })
			k.host.change(func(h *host) { h.down = true })
			a := t.s.post("/token", codeForm(pcode, "client_id", id, "redirect_uri", public.url("/cb")))
			t.check(a.ok(), "token time, method none: %s", a)
			a = k.redeem(second, k.assert(nil))
			t.check(a.ok(), "token time, with keys: %s", a)
			t.s.later(2 * time.Minute)
			t.check(func() bool { pg := t.john.visit(azOf(id)); return pg.left || pg.asks() }(), "revalidation of a cached document locks people out")
		}},
		{"FA-14", func(t *trial) {
			h := t.w.host(fresh("flapping"))
			id := h.url("/c.json")
			h.script("/c.json", func(n int) response {
				switch n % 3 {
				case 1:
					return statusResponse(500)
				case 2:
					return response{do: func(c net.Conn, _ *http.Request) { time.Sleep(6 * time.Second) }}
				}
				return jsonResponse(document(id, nil), "Cache-Control", "max-age=60")
			})
			t.asks("at first", t.john.visit(azOf(id)))
			bad := 0
			for range 120 {
				t.s.later(5 * time.Second)
				if pg := t.john.visit(azOf(id)); !pg.asks() {
					bad++
				}
			}
			t.check(bad == 0, "%d of 120 visits in ten minutes did not get the page", bad)
			t.check(h.connections() <= 40, "%d fetches in ten minutes", h.connections())
		}},
		{"FA-16", func(t *trial) {
			twin := t.twin()
			k := t.keyed(fresh("replica"), nil, "ES256")
			t.check(k.redeem(k.codeOf(t.john), k.assert(nil)).ok(), "a client with keys")
			field := t.w.field(t.s, twin)
			one := func(what, path string, form func() (string, []edit), won func(reply) bool) {
				for n := range max(t.w.rounds/4, 10) {
					f, edits := form()
					winners := 0
					for _, a := range race(field, path, f, edits...) {
						if won(a) {
							winners++
						}
						t.check(a.err == nil && a.status < 500, "%s, round %d: %s", what, n, a)
					}
					t.check(winners == 1, "%s, round %d: %d winners", what, n, winners)
				}
			}
			one("a code", "/token", func() (string, []edit) { return codeForm(t.john.codeFor(az())).Encode(), nil }, reply.ok)
			one("an assertion", "/revoke", func() (string, []edit) { return values(with(k.assert(nil), "token", "x")...).Encode(), nil }, reply.ok)
			one("a decision", "/consent", func() (string, []edit) {
				f := t.john.visit(az("prompt", "consent")).must("decision").with("decision", "allow")
				return f.values.Encode(), []edit{withHeader("Cookie", t.john.cookies()), withHeader("Origin", issuer), withHeader("Sec-Fetch-Site", "same-origin")}
			}, func(a reply) bool { return strings.Contains(a.header.Get("Location"), "code=") })
			token := t.john.grant().str("refresh_token")
			for n := range max(t.w.rounds/4, 10) {
				heads := map[string]bool{}
				for _, a := range race(field, "/token", refreshForm(token).Encode()) {
					if a.ok() {
						heads[a.str("refresh_token")] = true
					}
				}
				t.check(len(heads) == 1, "a refresh token, round %d: %d heads", n, len(heads))
				for head := range heads {
					token = head
				}
			}
		}},
		{"FA-17", func(t *trial) {
			s := t.another(options{})
			p := s.newUser("john")
			p.grant()
			slow := t.w.host(fresh("slow"))
			doc := documentBytes(slow.url("/c.json"), nil)
			slow.put("/c.json", response{header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {fmt.Sprint(len(doc))}}, body: doc, drip: 1000 * time.Millisecond / time.Duration(len(doc))})
			var wg sync.WaitGroup
			var pages [4]*page
			for i := range pages {
				wg.Go(func() {
					q := s.person()
					q.http.Jar = p.jar
					pages[i], _ = q.try(azOf(slow.url("/c.json")), "none")
				})
			}
			time.Sleep(400 * time.Millisecond)
			ready := &http.Client{Transport: t.w.transport(t.w.address(), s), Timeout: 5 * time.Second}
			ready.Transport.(*http.Transport).DisableKeepAlives = false
			req := func() reply { r, _ := http.NewRequest(http.MethodGet, issuer+"/readyz", nil); return do(ready, r) }
			t.check(req().status == 200, "ready before")
			s.signal(syscall.SIGTERM)
			time.Sleep(50 * time.Millisecond)
			if a := req(); a.err == nil {
				t.check(a.status == 503, "it says that it is ready while it ends: %s", a)
			}
			wg.Wait()
			for _, pg := range pages {
				t.check(pg != nil && pg.asks(), "a request in flight was cut off: %v", pg)
			}
			select {
			case <-s.ended:
				t.check(true, "")
			case <-time.After(25 * time.Second):
				t.check(false, "it does not end")
				s.kill()
			}
		}},
		{"FA-18", func(t *trial) {
			px := t.w.dbproxy("93.184.216.61", databaseAddr)
			defer px.close()
			twin, err := t.w.start(options{addr: "93.184.216.54", twin: t.s, changes: append([]string{databaseAddr, "93.184.216.61"}, t.options.changes...)})
			t.must(err)
			defer twin.kill()
			code, other := t.john.codeFor(az()), t.john.codeFor(az())
			t.check(twin.post("/token", codeForm(t.john.codeFor(az()))).ok(), "while both work")
			px.cut.Store(true)
			var a reply
			var wg sync.WaitGroup
			wg.Go(func() { a = twin.post("/token", codeForm(code)) })
			time.Sleep(300 * time.Millisecond)
			b := t.s.post("/token", codeForm(code))
			t.check(b.ok() || unavailable(b), "at the replica that works: %s", b)
			wg.Wait()
			t.check(unavailable(a), "the isolated replica: %s", a)
			c := twin.post("/token", codeForm(other))
			t.check(unavailable(c), "the isolated replica, another code: %s", c)
			px.cut.Store(false)
			px.hangUp()
			t.check(within(10*time.Second, func() bool { return twin.get("/readyz").status == 200 }), "it does not come back")
			if b.ok() {
				t.check(twin.post("/token", codeForm(code)).is(400, "invalid_grant"), "the code is good twice")
			}
			d := twin.post("/token", codeForm(other))
			t.check(d.ok() || d.is(400, "invalid_grant"), "after the cut: %s", d)
			t.check(t.s.post("/token", codeForm(other)).str("access_token") == "", "the other code is good twice")
		}},
		{"FA-19", func(t *trial) {
			if t.w.engine.name() == "postgres" {
				px := t.w.dbproxy("93.184.216.61", databaseAddr)
				defer px.close()
				s := t.another(options{changes: []string{databaseAddr, "93.184.216.61"}})
				defer s.kill()
				p := s.newUser("john")
				p.grant()
				px.conflict.Store(20)
				px.delay.Store(int64(5 * time.Millisecond))
				stop := make(chan struct{})
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(2 * time.Second):
							px.hangUp()
						}
					}
				}()
				t.storm(s, p, 60)
				close(stop)
				return
			}
			dir := t.tmpfs(24)
			defer sh("umount", "-l", dir)
			s, _ := t.stored(dir)
			defer s.kill()
			p := s.newUser("john")
			p.grant()
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						empty(dir)
						return
					default:
						fill(dir)
						time.Sleep(20 * time.Millisecond)
						empty(dir)
						time.Sleep(80 * time.Millisecond)
					}
				}
			}()
			t.storm(s, p, 60)
			close(stop)
			<-stopped
		}},
	},
}

// storm walks the whole flow n times while the store fails now and then, and wants
// every once-only thing to be good once at most, and nothing worse than 503.
func (t *trial) storm(s *server, p *person, n int) {
	good := 0
	for i := range n {
		pg, err := p.try(az(), "none")
		if err != nil || pg.code() == "" {
			t.check(err == nil && !pg.left && pg.status == 503, "round %d: %v %v", i, pg, err)
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
	}
	t.check(good >= n/2, "only %d of %d honest flows went through", good, n)
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
