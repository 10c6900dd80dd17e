package main

import (
	"net/url"
	"strings"
	"time"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// device is a device that waits for a person.
type device struct {
	id, code, user, complete string
	interval                 time.Duration
}

func (s *server) startDevice(id string, changes ...string) (device, reply) {
	a := s.post("/device_authorization", change(values("client_id", id, "scope", "mcp:read", "resource", resource), changes))
	n, _ := a.body["interval"].(float64)
	return device{id, a.str("device_code"), a.str("user_code"), a.str("verification_uri_complete"), time.Duration(n) * time.Second}, a
}

func (t *trial) device() device {
	d, a := t.s.startDevice(t.vars["tv"].(string))
	if !a.ok() || d.code == "" || d.user == "" || d.interval == 0 {
		t.fatal("no device code: %s", a)
	}
	return d
}

func pollForm(d device, changes ...string) url.Values {
	return change(values("grant_type", deviceGrant, "device_code", d.code, "client_id", d.id, "resource", resource), changes)
}

func (s *server) poll(d device, changes ...string) reply {
	return s.post("/token", pollForm(d, changes...))
}

// typed opens the page for codes and types one.
func (p *person) typed(code string) *page {
	pg := p.visit(issuer + "/device")
	return p.send(pg.must("user_code").with("user_code", code))
}

// approve says yes on the page that asks.
func (p *person) approve(pg *page) *page {
	return p.send(pg.must("decision").with("started", "yes").with("decision", "allow"))
}

func (t *trial) approved(d device) {
	pg := t.john.typed(d.user)
	if !pg.has("started") {
		t.fatal("no question about the device: %s", pg)
	}
	if done := t.john.approve(pg); done.left || done.status != 200 {
		t.fatal("the device was not approved: %s", done)
	}
}

// userCode makes up a code of the right shape.
func userCode() string {
	const letters = "BCDFGHJKLMNPQRSTVWXZ"
	b := []byte(random(8))[:8]
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b[:4]) + "-" + string(b[4:])
}

var groupDV = group{
	name:    "DV",
	options: options{changes: []string{"policy: {default: allow}", "policy: {default: allow, rules: [{host: tv.test, action: allow}, {host: radio.test, action: allow}]}"}},
	prepare: func(e *env) {
		grants := []string{"authorization_code", "refresh_token", deviceGrant}
		e.vars["tv"] = e.w.host("tv.test").client("/c.json", m{"grant_types": grants})
		e.vars["radio"] = e.w.host("radio.test").client("/c.json", m{"grant_types": grants})
		t := &trial{env: e}
		d := t.device()
		if a := e.s.poll(d); !a.is(400, "authorization_pending") {
			panic(stop{"a first poll: " + a.String()})
		}
		t.approved(d)
		e.s.later(6 * time.Second)
		if a := e.s.poll(d); !a.ok() || !e.s.active(a.str("access_token")) {
			panic(stop{"no tokens for a device: " + a.String()})
		}
	},
	rows: []row{
		{"DV-01", func(t *trial) {
			id := t.w.host("radio.test").client("/plain.json", nil)
			_, a := t.s.startDevice(id)
			t.check(a.is(400, "unauthorized_client"), "a document without the grant: %s", a)
			before := t.w.fetches()
			_, a = t.s.startDevice(t.w.host(fresh("unnamed")).client("/c.json", m{"grant_types": []string{deviceGrant}}))
			t.check((a.status == 400 || a.status == 401) && a.str("device_code") == "" && t.w.fetches() == before, "a client that no rule names: %s", a)
		}},
		{"DV-02", func(t *trial) {
			d := t.device()
			t.check(t.s.poll(d).is(400, "authorization_pending"), "the first poll")
			slow := 0
			began := time.Now()
			for range 100 {
				if a := t.s.poll(d); a.is(400, "slow_down") {
					slow++
				}
			}
			t.check(slow == 100, "%d of 100 polls at once were told to slow down", slow)
			t.check(time.Since(began) < 20*time.Second, "it took %v", time.Since(began))
			d = t.device()
			t.s.poll(d)
			t.check(t.s.poll(d).is(400, "slow_down"), "too fast")
			t.s.later(d.interval + time.Second) // the interval has grown by five seconds
			t.check(t.s.poll(d).is(400, "slow_down"), "the interval did not grow")
			t.s.later(d.interval + 11*time.Second)
			a := t.s.poll(d)
			t.check(a.is(400, "authorization_pending"), "after the longer interval: %s", a)
		}},
		{"DV-03", func(t *trial) {
			var live []device
			for range 20 {
				live = append(live, t.device())
			}
			guess := func(p *person) (checked bool) {
				pg, err := p.try(issuer+"/device", "none")
				if err != nil || pg.form("user_code") == nil {
					return false
				}
				pg, err = p.trySend(pg.form("user_code").with("user_code", userCode()))
				if err != nil {
					return false
				}
				t.check(!pg.has("started"), "a guess was right")
				return pg.status != 429 && pg.status != 503
			}
			eve := t.s.newUser("eve")
			checked := 0
			for range 60 {
				if guess(eve) {
					checked++
				}
			}
			t.check(checked >= 5 && checked <= 20, "one account: %d of 60 guesses were looked at", checked)
			nobody := t.s.person()
			checked = 0
			for range 80 {
				if guess(nobody) {
					checked++
				}
			}
			t.check(checked <= 60, "one address without an account: %d of 80 guesses were looked at", checked)
			d := live[0]
			pg := t.john.typed(d.user)
			t.check(pg.has("started"), "the honest person with the right code: %s", pg)
		}},
		{"DV-05", func(t *trial) {
			d := t.device()
			bare := strings.NewReplacer("-", "", " ", "").Replace(d.user)
			wide := strings.Map(func(r rune) rune { return r - '!' + '\uff01' }, bare)
			for _, v := range []string{strings.ToLower(d.user), bare, strings.ToLower(bare), " " + d.user + " ", strings.Join(strings.Split(bare, ""), " "), strings.Join(strings.Split(bare, ""), "-"), wide, bare[:4] + "\u2010" + bare[4:]} {
				pg := t.john.typed(v)
				t.check(pg.has("started") || v == wide && !pg.left && pg.status < 500, "%q: %s", v, pg)
			}
			bob := t.s.newUser("bob")
			looked := 0
			for i := range 40 { // one wrong code in forty costumes is one bucket
				v := strings.Repeat("B", 8)
				if i%2 == 0 {
					v = strings.ToLower(v)
				}
				v = v[:i%8] + strings.Repeat("-", i%3) + v[i%8:]
				pg := bob.visit(issuer + "/device")
				if f := pg.form("user_code"); f != nil && bob.send(f.with("user_code", v)).status < 429 {
					looked++
				}
			}
			t.check(looked >= 5 && looked <= 20, "%d of 40 spellings were looked at", looked)
		}},
		{"DV-06", func(t *trial) {
			d := t.device()
			victim := t.s.newUser("victim")
			pg := victim.from(d.complete, "cross-site")
			t.check(!pg.left && pg.status == 200, "%s", pg)
			t.check(t.s.poll(d).is(400, "authorization_pending"), "a link approved the device")
			for !pg.has("started") && pg.form("user_code") != nil {
				next := victim.send(pg.must("user_code").with("user_code", d.user))
				if next.body == pg.body {
					break
				}
				pg = next
			}
			if !pg.has("started") {
				t.fatal("no question: %s", pg)
			}
			text := pg.text()
			t.check(strings.Contains(text, "tv.test") && strings.Contains(text, "look things up") && strings.Contains(text, d.user), "the page does not say enough: %s", text)
			t.check(strings.Contains(strings.ToLower(text), "started this") || strings.Contains(strings.ToLower(text), "did you start"), "it does not ask who began: %s", text)
			t.check(!strings.Contains(pg.body, "<script") && !strings.Contains(pg.body, "checked"), "it submits itself or is ticked already")
			back := victim.send(pg.must("decision").with("decision", "allow"))
			t.s.later(d.interval + 6*time.Second)
			a := t.s.poll(d)
			t.check(a.is(400, "authorization_pending") || a.is(400, "slow_down"), "without the tick it was approved: %s, %s", back, a)
			f := pg.must("decision").with("decision", "allow").with("started", "yes")
			f.origin = "https://evil.test"
			t.forbidden("from another site", victim.send(f), 403)
		}},
		{"DV-07", func(t *trial) {
			rounds := t.w.rounds
			defer func() { t.w.rounds = rounds }()
			t.w.rounds = max(rounds/5, 10)
			for name, field := range t.fields(t.twin()) {
				for n := range t.w.rounds {
					d := t.device()
					t.approved(d)
					won, access := 0, map[string]bool{}
					for _, a := range race(field, "/token", pollForm(d).Encode()) {
						if a.ok() {
							won++
							access[a.str("access_token")] = true
						} else {
							t.check(a.is(400, "slow_down") || a.is(400, "invalid_grant") || a.is(400, "expired_token"), "%s, round %d: a loser got %s", name, n, a)
						}
					}
					t.s.later(30 * time.Second)
					t.check(won <= 1, "%s, round %d: %d winners", name, n, won)
					if won == 0 {
						a := t.s.poll(d)
						t.check(a.ok(), "%s, round %d: nobody won, and then %s", name, n, a)
					}
				}
			}
		}},
		{"DV-09", func(t *trial) {
			d := t.device()
			t.approved(d)
			a := t.s.poll(d, "client_id", t.vars["radio"].(string))
			t.check(a.is(400, "invalid_grant") || a.is(401, "invalid_client"), "another client: %s", a)
			a = t.s.poll(device{id: d.id, code: random(32)})
			t.check(a.is(400, "invalid_grant") || a.is(400, "expired_token"), "a guess: %s", a)
			t.s.later(30 * time.Second)
			a = t.s.poll(d)
			t.check(a.ok(), "the right client: %s", a)
			t.s.later(30 * time.Second)
			a = t.s.poll(d)
			t.check(a.is(400, "invalid_grant") || a.is(400, "expired_token"), "again: %s", a)
			d = t.device()
			t.s.later(31 * time.Minute)
			a = t.s.poll(d)
			t.check(a.is(400, "expired_token"), "expired: %s", a)
			pg := t.john.typed(d.user)
			t.check(!pg.has("started"), "an expired code is asked about: %s", pg)
		}},
		{"DV-10", func(t *trial) {
			carl, d := t.s.newUser("carl"), t.device()
			pg := carl.typed(d.user)
			t.check(pg.has("started"), "%s", pg)
			if _, err := t.s.cli("", "user", "disable", "carl"); err != nil {
				t.fatal("%v", err)
			}
			carl.approve(pg)
			t.s.later(30 * time.Second)
			a := t.s.poll(d)
			t.check(a.is(400, "authorization_pending") || a.is(400, "access_denied") || a.is(400, "invalid_grant"), "approved by a disabled user: %s", a)
			dora := t.s.newUser("dora")
			d = t.device()
			dora.approve(dora.typed(d.user))
			if _, err := t.s.cli("", "user", "disable", "dora"); err != nil {
				t.fatal("%v", err)
			}
			a = t.s.poll(d)
			t.check(a.is(400, "access_denied") || a.is(400, "invalid_grant"), "disabled between approval and poll: %s", a)
		}},
	},
}
