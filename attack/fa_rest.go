package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// faRest is what happens to clocks, hosts and networks.
var faRest = []row{
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
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(2 * time.Second):
						px.hangUp()
					}
				}
			})
			defer wg.Wait()
			defer close(stop)
			t.storm(s, p, 60)
			t.check(px.failed.Load() > 5, "only %d conflicts happened: the row proves nothing", px.failed.Load())
			return
		}
		dir := t.tmpfs(24)
		defer sh("umount", "-l", dir)
		s, _ := t.stored(dir)
		defer s.kill()
		p := s.newUser("john")
		p.grant()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
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
		})
		defer wg.Wait()
		defer close(stop)
		t.check(t.storm(s, p, 60) > 0, "nothing ever failed: the row proves nothing")
	}},
}
