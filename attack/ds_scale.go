package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// The rows that a flood makes: with -scale full they send what the catalogue says.

// toSignIn names the answers to strangers at /authorize.
func toSignIn(a said) string {
	if a.status == http.StatusSeeOther && strings.HasPrefix(strings.TrimPrefix(a.location, issuer), "/login") {
		return "sign-in"
	}
	return fmt.Sprint(a.status)
}

// kept is what a server has kept of what was sent to it.
type kept struct {
	rss  int   // KiB
	disk int64 // bytes of the database, its log and what the process has written
	rows int   // of all tables but the audit's; over SQLite of clients
}

func (t *trial) kept() kept {
	t.honest(2) // a token for honest requests is not what is looked for
	k := kept{rss: t.s.memory("VmRSS"), disk: t.disk(), rows: clientRows(t)}
	if p, ok := t.w.engine.(*postgres); ok {
		k.rows = t.number(p, `SELECT sum((xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I', relname), false, true, '')))[1]::text::int)
			FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'audit'`)
		k.disk += int64(t.number(p, "SELECT pg_database_size(current_database())"))
	}
	return k
}

func (t *trial) number(p *postgres, query string) int {
	text, err := p.sql(t.s.database(), query)
	if err != nil {
		t.fatal("%v", err)
	}
	n := 0
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.fatal("%s: %q is no number", query, text)
	}
	return n
}

// settled is kept after a pause long enough for what accounts and certificates
// took to be given back, so that it does not hide what grows afterwards.
func (t *trial) settled() kept {
	t.s.later(3 * time.Minute) // the Go runtime collects every two
	least := t.s.memory("VmRSS")
	for range 20 {
		t.honest(2)
		time.Sleep(100 * time.Millisecond)
		least = min(least, t.s.memory("VmRSS"))
	}
	k := t.kept()
	k.rss = least
	return k
}

func (k kept) since(old kept) string {
	return fmt.Sprintf("memory %+d KiB over %d, disk %+d KiB, rows %+d", k.rss-old.rss, old.rss, (k.disk-old.disk)>>10, k.rows-old.rows)
}

func ds01(t *trial) {
	h := t.swarm("wildcard", 0)
	names := func(prefix, cookies string) func(int) []byte {
		return func(i int) []byte {
			return wireGet(azOf(fmt.Sprintf("https://wildcard.test/%s%d.json", prefix, i)), cookies)
		}
	}
	t.flood(flood{n: 2000, hands: 16, stay: 500, request: names("warm", "")})
	before := t.settled()
	n, got, began := t.scaled(20_000, 1_000_000), tally{}, time.Now()
	honest, slow := t.meanwhile("strangers with many names", func() {
		got = t.flood(flood{n: n, hands: 16, stay: 500, request: names("", ""), kind: toSignIn})
	})
	took := time.Since(began)
	t.check(h.connections() == 0, "strangers caused %d fetches", h.connections())
	t.check(got.only(n, "sign-in"), "strangers are asked to sign in: %v", got)
	t.bounded("strangers", before)
	t.note("%d strangers in %v (%.0f/s), 0 fetches, %s; %d honest requests meanwhile, p99 %v", n, took.Round(time.Second), float64(n)/took.Seconds(), t.kept().since(before), honest, slow.Round(time.Millisecond))

	n, began = t.scaled(2000, 100_000), time.Now()
	honest, slow = t.meanwhile("somebody signed in with many names", func() {
		got = t.flood(flood{n: n, hands: 8, request: names("j", t.john.cookies())})
	})
	took = time.Since(began)
	most := 100 + int(took.Seconds()*2) + 2
	t.check(h.connections() <= most && got["503"] > 0 && got["200"] > 0 && got.only(n, "200", "503"), "somebody signed in caused %d fetches, %d are allowed: %v", h.connections(), most, got)
	t.bounded("somebody signed in", before)
	t.note("%d of somebody signed in, on one host, in %v: %d fetches, %d allowed; %v; %s; %d honest requests meanwhile, p99 %v", n, took.Round(time.Second), h.connections(), most, got, t.kept().since(before), honest, slow.Round(time.Millisecond))
	ada := t.vars["ada"].(*person)
	t.asks("another person", ada.visit(azOf(t.w.host(fresh("calm")).client("/c.json", nil))))
}

// bounded wants figure R2 of memory, R6 of the disk, and no row.
func (t *trial) bounded(what string, before kept) {
	after := t.kept()
	t.check(after.rss <= before.rss+64<<10, "%s: memory grew from %d to %d KiB", what, before.rss, after.rss)
	t.check(after.disk <= before.disk+10_000_000, "%s: the disk grew by %d KiB", what, (after.disk-before.disk)>>10)
	t.check(after.rows <= before.rows, "%s: %d rows before, %d after", what, before.rows, after.rows)
}

func ds02(t *trial) {
	h := t.swarm(".flood.test", 0)
	people := []*person{t.john, t.vars["ada"].(*person), t.s.newUser("bob"), t.s.newUser("eve")}
	calm := t.s.newUser("calm")
	var cookies []string
	for _, p := range people {
		cookies = append(cookies, p.cookies())
	}
	before := t.settled()
	n, got, began, asked := t.scaled(4000, 100_000), tally{}, time.Now(), 0
	honest, slow := t.meanwhile("many hosts of one domain", func() {
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { // somebody new comes from another domain, again and again
			for range 20 {
				pg, err := calm.try(azOf(t.w.host(fresh("neighbour")).client("/c.json", nil)), "none")
				if err == nil && pg.asks() {
					asked++
				}
				select {
				case <-done:
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
		got = t.flood(flood{n: n, hands: 8, request: func(i int) []byte {
			return wireGet(azOf(fmt.Sprintf("https://h%d.flood.test/c.json", i)), cookies[i%4])
		}})
		close(done)
		wg.Wait()
	})
	took := time.Since(began)
	most := 100 + int(took.Seconds()*2) + 4
	t.check(h.connections() <= most && h.connections() > 0 && got["503"] > 0 && got.only(n, "200", "503"), "%d fetches below one domain, %d are allowed: %v", h.connections(), most, got)
	t.check(asked == 20, "of 20 clients of other domains %d came through meanwhile", asked)
	after := t.kept()
	t.check(after.rss <= before.rss+64<<10, "memory grew: %s", after.since(before))
	t.note("%d hosts below one domain in %v: %d fetches, %d allowed; 20 of 20 other domains; %s; %d honest requests meanwhile, p99 %v", n, took.Round(time.Second), h.connections(), most, after.since(before), honest, slow.Round(time.Millisecond))
}

func ds04(t *trial) {
	h := t.w.host(fresh("cold"))
	id := h.url("/c.json")
	doc := documentBytes(id, nil)
	n, slowly := t.scaled(400, 10_000), time.Second
	if t.w.full {
		slowly = 3 * time.Second // all have to come while it is under way
	}
	h.script("/c.json", func(int) response {
		time.Sleep(slowly)
		return answered(doc)
	})
	wires := make([]*wire, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 32)
	first := []byte("GET /jwks HTTP/1.1\r\nHost: as.test\r\n\r\n") // who sends nothing for ten seconds is sent away
	for i := range wires {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			w, err := t.s.wire()
			if err != nil {
				return
			}
			if _, err := w.do(first, false); err != nil {
				w.close()
				return
			}
			wires[i] = w
		})
	}
	wg.Wait()
	req := wireGet(azOf(id), t.john.cookies())
	start, sent := make(chan struct{}), make([]time.Duration, n)
	rss := t.s.memory("VmRSS")
	got := tally{}
	var mu sync.Mutex
	var began time.Time
	for i, w := range wires {
		wg.Go(func() {
			kind := "no connection"
			defer func() {
				mu.Lock()
				got[kind]++
				mu.Unlock()
			}()
			if w == nil {
				return
			}
			defer w.close()
			<-start
			w.c.SetDeadline(time.Now().Add(60 * time.Second))
			if _, err := w.c.Write(req); err != nil {
				kind = "error: " + short(err)
				return
			}
			sent[i] = time.Since(began)
			if i%10 == 0 { // somebody who does not wait does not end it for the others
				time.Sleep(slowly / 4)
				kind = "gone"
				return
			}
			a, err := w.read(false)
			if kind = fmt.Sprint(a.status); err != nil {
				kind = "error: " + short(err)
			}
		})
	}
	began = time.Now()
	close(start)
	wg.Wait()
	took, last := time.Since(began), time.Duration(0)
	for _, d := range sent {
		last = max(last, d)
	}
	t.check(h.count("/c.json") == 1, "%d fetches for one client", h.count("/c.json"))
	t.check(last < slowly, "the last of them was sent after %v, when the document was there", last)
	t.check(got["200"] == n-(n+9)/10 && got["gone"] == (n+9)/10, "answers: %v", got)
	t.note("%d at once, the last sent after %v of the %v that the document takes: %d fetch, %v, all within %v; memory %+d KiB over %d with the connections", n, last.Round(time.Millisecond), slowly, h.count("/c.json"), got, took.Round(10*time.Millisecond), t.s.memory("VmRSS")-rss, rss)
}

func ds08(t *trial) {
	h := t.swarm("junk", 4400) // as large as a document may be: the memory of the cache is what is attacked
	const cached = "max-age=86400"
	known := t.w.host(fresh("hot"))
	id := known.client("/c.json", nil, "Cache-Control", cached)
	t.john.grantOf(id)
	hot := []*host{known}
	for range 10 { // honest ones that nobody has agreed to yet, but people come for them
		g := t.w.host(fresh("warm"))
		g.client("/c.json", nil, "Cache-Control", cached)
		for range 2 {
			t.asks("a client that many use", t.john.visit(azOf(g.url("/c.json"))))
		}
		hot = append(hot, g)
	}
	people := []*person{t.vars["ada"].(*person)}
	rounds, each := 15, 60 // as fast as the budget of one person allows
	if t.w.full {
		rounds, each = 10, 50
		for i := range 19 {
			people = append(people, t.s.newUser(fmt.Sprintf("junk%d", i)))
		}
	}
	before := t.settled()
	visits, hits, got := 0, 0, tally{}
	for n := range rounds {
		var cookies []string
		for _, p := range people {
			cookies = append(cookies, p.cookies())
		}
		round := t.flood(flood{n: each * len(people), hands: 8, request: func(i int) []byte {
			return wireGet(azOf(fmt.Sprintf("https://junk%dx%d.test/c.json", n, i)), cookies[i%len(people)])
		}})
		for k, v := range round {
			got[k] += v
		}
		for _, g := range hot {
			old := g.count("/c.json")
			pg := t.john.visit(azOf(g.url("/c.json")))
			if visits++; (pg.asks() || pg.left) && g.count("/c.json") == old {
				hits++
			}
		}
		t.s.later(40 * time.Second)
	}
	junk := h.count("*")
	t.check(junk >= rounds*each*len(people)*9/10, "only %d junk clients were fetched: %v", junk, got)
	t.check(known.count("/c.json") == 1, "the client that people agreed to was fetched %d times", known.count("/c.json"))
	t.check(hits*100 >= visits*99, "of %d honest visits %d were answered from memory", visits, hits)
	after := t.kept()
	t.check(after.rss <= before.rss+64<<10, "memory grew: %s", after.since(before))
	t.note("%d junk clients with valid documents of 5 KB: hits %d of %d honest visits; %s", junk, hits, visits, after.since(before))
}

func ds12(t *trial) {
	before, rows := t.kept(), len(t.s.events("refusal"))
	n, got, began := t.scaled(20_000, 1_000_000), tally{}, time.Now()
	honest, slow := t.meanwhile("refusals", func() {
		got = t.flood(flood{n: n, hands: 16, stay: 500, request: func(i int) []byte { return wireGet(az("client_id", fmt.Sprintf("http://x%d.test/", i)), "") }})
	})
	took := time.Since(began)
	events := len(t.s.events("refusal")) - rows
	most := 100 + int(took.Seconds()*5) + 60
	t.check(got.only(n, "400"), "answers: %v", got)
	t.check(events > 0 && events <= most, "%d refusals in %v left %d events, %d are allowed", n, took, events, most)
	after := t.kept()
	t.check(after.disk <= before.disk+10_000_000, "the disk grew: %s", after.since(before))
	t.check(after.rss <= before.rss+64<<10, "memory grew: %s", after.since(before))
	t.note("%d refusals in %v: %d events, %d allowed; %s; %d honest requests meanwhile, p99 %v", n, took.Round(time.Second), events, most, after.since(before), honest, slow.Round(time.Millisecond))
}

func ds13(t *trial) {
	form := values("client_id", goodID, "redirect_uri", redirect, "response_type", "code", "scope", "mcp:read", "resource", resource, "code_challenge", challenge, "code_challenge_method", "S256", "state", "s")
	before := t.kept()
	n, began := t.scaled(1500, 10_000), time.Now()
	pushed := t.flood(flood{n: n, hands: 8, stay: 100, request: func(int) []byte { return wirePost("/par", form) }})
	t.check(pushed["201"] > 0 && pushed.only(n, "201", "429"), "pushed requests: %v", pushed)
	started := t.flood(flood{n: n, hands: 8, stay: 50, request: func(int) []byte {
		return wirePost("/device_authorization", values("client_id", "https://gadget.test/c.json", "scope", "mcp:read", "resource", resource))
	}})
	t.check(started["200"] > 100 && started["200"] <= 2000 && started.only(n, "200", "429"), "devices that nobody answers: %v", started)
	visits := t.flood(flood{n: n, hands: 8, stay: 100, request: func(i int) []byte { return wireGet(az("state", fmt.Sprint(i)), "") }, kind: toSignIn})
	t.check(visits.only(n, "sign-in"), "sign-ins that are never finished: %v", visits)
	after := t.kept()
	t.check(after.rss <= before.rss+48<<10, "memory grew: %s", after.since(before))
	t.check(after.disk <= before.disk+12<<20, "the disk grew: %s", after.since(before))
	t.note("%d each in %v: pushed %v; devices %v; sign-ins %v; %s", n, time.Since(began).Round(time.Second), pushed, started, visits, after.since(before))
	var worst time.Duration
	t.s.later(26 * time.Hour) // everything has expired; the sweep comes within a minute
	_, _ = t.meanwhile("the sweep", func() {
		for range 20 {
			began := time.Now()
			if a := t.s.post("/introspect", values("token", "none"), basic(resource, secret)); !t.check(a.ok(), "while it is swept: %s", a) {
				break
			}
			worst = max(worst, time.Since(began))
			t.s.later(5 * time.Second)
		}
	})
	a := t.s.post("/par", form)
	t.check(a.status == 201, "a push afterwards: %s", a)
	t.note("the slowest answer while it was swept: %v", worst.Round(time.Millisecond))
	if p, ok := t.w.engine.(*postgres); ok {
		left := t.number(p, "SELECT count(*) FROM pushed_requests WHERE expires_at < extract(epoch from now()) * 1000000")
		t.check(left == 0, "%d pushed requests are there a day after they expired", left)
	}
	pg := t.john.visit(issuer + "/authorize?" + values("client_id", goodID, "request_uri", a.str("request_uri")).Encode())
	t.check(pg.left || pg.asks() || pg.has("password"), "and its use: %s", pg)
}
