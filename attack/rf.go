package main

import (
	"sync"
	"syscall"
	"time"
)

var groupRF = group{
	name:    "RF",
	options: options{changes: []string{"", "sessions: {idle: 720h, absolute: 2000h}"}},
	prepare: func(e *env) {
		e.vars["other"] = e.w.host("other.test").client("/c.json", m{"redirect_uris": []string{redirect}})
		e.john.grant("client_id", e.vars["other"].(string))
	},
	rows: []row{
		{"RF-01", func(t *trial) {
			a := t.john.grant()
			b := t.s.post("/token", refreshForm(a.str("refresh_token")))
			t.check(b.ok() && b.str("refresh_token") != a.str("refresh_token"), "it does not rotate: %s", b)
			t.s.later(31 * time.Second)
			c := t.s.post("/token", refreshForm(a.str("refresh_token")))
			t.check(c.is(400, "invalid_grant"), "the old one, late: %s", c)
			d := t.s.post("/token", refreshForm(b.str("refresh_token")))
			t.check(d.is(400, "invalid_grant") && !t.s.active(b.str("access_token")), "the family lives on: %s", d)
			t.check(len(t.s.events("reuse")) > 0, "no event")
			a = t.john.grant() // in the grace, but after the successor was used
			b = t.s.post("/token", refreshForm(a.str("refresh_token")))
			c = t.s.post("/token", refreshForm(b.str("refresh_token")))
			d = t.s.post("/token", refreshForm(a.str("refresh_token")))
			t.check(c.ok() && d.is(400, "invalid_grant"), "after the successor was used: %s", d)
			t.check(t.s.post("/token", refreshForm(c.str("refresh_token"))).is(400, "invalid_grant"), "the family lives on")
		}},
		{"RF-02", func(t *trial) {
			for name, field := range t.fields(t.twin()) {
				token := t.john.grant().str("refresh_token")
				for n := range t.w.rounds {
					heads := map[string]bool{}
					for _, a := range race(field, "/token", refreshForm(token).Encode()) {
						if a.ok() {
							heads[a.str("refresh_token")] = true
						} else {
							t.check(a.is(400, "invalid_grant"), "%s, round %d: %s", name, n, a)
						}
					}
					if !t.check(len(heads) == 1, "%s, round %d: %d heads", name, n, len(heads)) {
						return
					}
					for head := range heads {
						token = head
					}
				}
			}
		}},
		{"RF-03", func(t *trial) {
			a := t.john.grant()
			b := t.s.post("/token", refreshForm(a.str("refresh_token")))
			t.s.later(time.Second)
			again := t.s.post("/token", refreshForm(a.str("refresh_token")))
			t.check(again.ok() && again.str("refresh_token") == b.str("refresh_token"), "a lost answer: %s", again)
			c := t.s.post("/token", refreshForm(again.str("refresh_token")))
			t.check(c.ok(), "and then: %s", c)
		}},
		{"RF-05", func(t *trial) {
			token := t.john.grant().str("refresh_token")
			a := t.s.post("/token", refreshForm(token, "client_id", t.vars["other"].(string)))
			t.check(a.is(400, "invalid_grant"), "another client: %s", a)
			a = t.s.post("/token", refreshForm(token, "client_id", "https://good.test/unknown.json"))
			t.check(a.is(401, "invalid_client"), "an unknown client: %s", a)
			a = t.s.post("/token", refreshForm(token))
			t.check(a.ok(), "its own: %s", a)
			h := t.w.host(fresh("blocked"))
			b := t.john.grantOf(h.client("/c.json", nil))
			if _, err := t.s.cli("", "client", "block", h.url("/c.json"), "--reason", "test"); err != nil {
				t.fatal("%v", err)
			}
			a = t.s.post("/token", refreshForm(b.str("refresh_token"), "client_id", h.url("/c.json")))
			t.check(a.is(400, "invalid_grant") || a.is(400, "unauthorized_client"), "a blocked client: %s", a)
			t.check(!t.s.active(b.str("access_token")), "the access token of a blocked client lives on")
			t.local("a blocked client at /authorize", t.john.visit(azOf(h.url("/c.json"))), 403)
		}},
		{"RF-06", func(t *trial) {
			token := t.john.grant().str("refresh_token")
			for _, c := range [][]string{p("scope", "mcp:read mcp:write"), p("scope", "mcp:write"), p("resource", "https://notes.test/"), p("resource", "https://other.test/mcp")} {
				want := "invalid_scope"
				if c[0] == "resource" {
					want = "invalid_target"
				}
				a := t.s.post("/token", refreshForm(token, c...))
				t.check(a.is(400, want), "%v: %s", c, a)
			}
			t.s.later(31 * time.Second)
			a := t.s.post("/token", refreshForm(token, "scope", "mcp:read"))
			t.check(a.ok(), "none of that rotated it: %s", a)
		}},
		{"RF-08", func(t *trial) {
			h := t.w.host(fresh("gone"))
			id := h.client("/c.json", nil)
			a := t.john.grantOf(id)
			h.remove("/c.json")
			t.s.later(2 * time.Hour)
			b := t.s.post("/token", refreshForm(a.str("refresh_token"), "client_id", id)) // documented: a refresh goes on from what was agreed to
			t.check(b.ok(), "the document is gone: %s", b)
			h.change(func(h *host) { h.down = true })
			c := t.s.post("/token", refreshForm(b.str("refresh_token"), "client_id", id))
			t.check(c.ok(), "the host is down: %s", c)
			eve := t.s.newUser("eve")
			d := eve.grant()
			if _, err := t.s.cli("", "user", "disable", "eve"); err != nil {
				t.fatal("%v", err)
			}
			t.check(t.s.post("/token", refreshForm(d.str("refresh_token"))).is(400, "invalid_grant"), "the user is disabled")
			t.check(!t.s.active(d.str("access_token")), "her access token lives on")
			pg := eve.visit(az())
			t.check(pg.has("password"), "her session lives on: %s", pg)
			ada := t.s.newUser("ada")
			f := ada.grant()
			if _, err := t.s.cli("a quite different passphrase\n", "user", "password", "ada", "--password-file", "-"); err != nil {
				t.fatal("%v", err)
			}
			t.check(t.s.post("/token", refreshForm(f.str("refresh_token"))).is(400, "invalid_grant"), "the password is new")
		}},
		{"RF-09", func(t *trial) {
			token := t.john.grant().str("refresh_token")
			for n := range 8 {
				var wg sync.WaitGroup
				var answer reply
				wg.Go(func() { answer = t.s.post("/token", refreshForm(token)) })
				time.Sleep(time.Duration(n) * 500 * time.Microsecond)
				t.s.signal(syscall.SIGKILL)
				wg.Wait()
				<-t.s.ended
				t.s.clock.close()
				if err := t.s.run(); err != nil {
					t.fatal("after kill -9: %v", err)
				}
				old := t.s.post("/token", refreshForm(token)) // in the grace: the same successor, or the first one
				if answer.ok() {
					t.check(old.ok() && old.str("refresh_token") == answer.str("refresh_token"), "kill %d: an acknowledged rotation: %s", n, old)
				}
				if !t.check(old.ok(), "kill %d: both are dead: %s", n, old) {
					token = t.john.grant().str("refresh_token")
					continue
				}
				token = old.str("refresh_token")
			}
		}},
		{"RF-10", func(t *trial) {
			one, two := t.john.grant(), t.john.grant("prompt", "consent")
			t.check(t.s.post("/revoke", values("token", two.str("refresh_token"), "client_id", goodID)).ok(), "revoke")
			t.check(t.s.post("/token", refreshForm(two.str("refresh_token"))).is(400, "invalid_grant"), "the revoked one lives on")
			a := t.s.post("/token", refreshForm(one.str("refresh_token")))
			t.check(a.ok() && t.s.active(a.str("access_token")), "the other installation was signed out: %s", a)
		}},
	},
}
