package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// swarm is a host that answers for every name that begins alike, at every path,
// with a good document.
func (t *trial) swarm(match string) *host {
	h := t.w.host(fresh("swarm"))
	h.change(func(h *host) {
		h.config = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := t.w.ca.of(hello.ServerName)
			return &c, err
		}}
		h.asked = func(req *http.Request) response {
			return jsonResponse(document("https://"+req.Host+req.URL.Path, nil), "Cache-Control", "max-age=86400")
		}
	})
	t.w.dns.mu.Lock()
	t.w.dns.wild = func(name string) (netip.Addr, bool) { return h.addr, strings.Contains(name, match) }
	t.w.dns.mu.Unlock()
	return h
}

// crowd sends requests with n hands and returns how each was answered.
func (t *trial) crowd(n, hands int, send func(i int) int) map[int]int {
	var mu sync.Mutex
	out := map[int]int{}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range hands {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				status := send(i)
				mu.Lock()
				out[status]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

// visits sends a person, or a stranger, to an address and returns the status.
func (t *trial) status(jar *person, address string) int {
	p := t.s.person()
	if jar != nil {
		p.http.Jar = jar.jar
	}
	pg, err := p.try(address, "none")
	if err != nil {
		return -1
	}
	if pg.left {
		return 302
	}
	return pg.status
}

// disk returns how many bytes the server has in its directory.
func (t *trial) disk() int64 {
	var n int64
	filepath.WalkDir(t.s.dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n + int64(len(t.s.output()))
}

var groupDS = group{
	name:    "DS",
	prepare: func(e *env) { e.vars["ada"] = e.s.newUser("ada") },
	rows: []row{
		{"DS-01", func(t *trial) {
			h := t.swarm("wildcard")
			rss, before, clients := t.s.memory("VmRSS"), t.disk(), clientRows(t)
			got := t.crowd(3000, 8, func(i int) int { return t.status(nil, azOf(fmt.Sprintf("https://wildcard.test/%d.json", i))) })
			t.check(h.connections() == 0, "strangers caused %d fetches", h.connections())
			t.check(got[200] == 3000, "strangers are asked to sign in: %v", got)
			began := time.Now()
			got = t.crowd(400, 8, func(i int) int { return t.status(t.john, azOf(fmt.Sprintf("https://wildcard.test/j%d.json", i))) })
			most := 100 + int(time.Since(began).Seconds()*2) + 2
			t.check(h.connections() <= most && got[503] > 0 && got[200] > 0, "somebody signed in caused %d fetches, %d are allowed: %v", h.connections(), most, got)
			t.check(t.s.memory("VmRSS") < rss+64<<10, "memory grew from %d to %d KiB", rss, t.s.memory("VmRSS"))
			t.check(clientRows(t) == clients, "%d rows of clients before, %d after", clients, clientRows(t))
			t.check(t.disk() < before+4<<20, "the disk grew by %d KiB", (t.disk()-before)>>10)
			ada := t.vars["ada"].(*person)
			t.asks("another person", ada.visit(azOf(t.w.host(fresh("calm")).client("/c.json", nil))))
		}},
		{"DS-02", func(t *trial) {
			h := t.swarm(".flood.test")
			t.s.later(2 * time.Minute)
			began := time.Now()
			people := []*person{t.john, t.vars["ada"].(*person), t.s.newUser("bob"), t.s.newUser("eve")}
			got := t.crowd(600, 8, func(i int) int { return t.status(people[i%4], azOf(fmt.Sprintf("https://h%d.flood.test/c.json", i))) })
			most := 100 + int(time.Since(began).Seconds()*2) + 4
			t.check(h.connections() <= most && got[503] > 0, "%d fetches below one domain, %d are allowed: %v", h.connections(), most, got)
			t.s.addUser("calm")
			t.asks("another domain", t.s.signedIn("calm").visit(azOf(t.w.host(fresh("neighbour")).client("/c.json", nil))))
		}},
		{"DS-04", func(t *trial) {
			h := t.w.host(fresh("cold"))
			id := h.url("/c.json")
			doc := documentBytes(id, nil)
			h.put("/c.json", response{header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {fmt.Sprint(len(doc))}}, body: doc, drip: 2 * time.Millisecond})
			got := map[int]int{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 400 {
				wg.Go(func() {
					p := t.s.person()
					p.http.Jar = t.john.jar
					if i%10 == 0 {
						p.http.Timeout = 150 * time.Millisecond // somebody who does not wait does not end it for the others
					}
					pg, err := p.try(azOf(id), "none")
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err != nil:
						got[-1]++
					default:
						got[pg.status]++
					}
				})
			}
			wg.Wait()
			t.check(h.count("/c.json") == 1, "%d fetches for one client", h.count("/c.json"))
			t.check(got[200] >= 360, "answers: %v", got)
		}},
		{"DS-06", func(t *trial) {
			t.s.later(2 * time.Minute)
			h := t.w.host(fresh("failing"))
			h.put("/c.json", statusResponse(500))
			id := h.url("/c.json")
			began := time.Now()
			got := t.crowd(300, 4, func(int) int { return t.status(t.john, azOf(id)) })
			most := 2 + int(time.Since(began).Seconds())
			t.check(h.connections() <= most, "%d fetches in %v", h.connections(), time.Since(began))
			t.check(got[502]+got[503] == 300, "answers: %v", got)
			n := h.connections()
			for range 20 { // in twenty seconds more, growing delays
				t.s.later(time.Second)
				t.john.visit(azOf(id))
			}
			t.check(h.connections()-n <= 6, "%d fetches in 20 s", h.connections()-n)
			h.client("/c.json", nil)
			t.s.later(31 * time.Second)
			t.asks("mended", t.john.visit(azOf(id)))
		}},
		{"DS-07", func(t *trial) {
			t.s.later(2 * time.Minute)
			h := t.w.host(fresh("honest"))
			id := h.client("/c.json", nil)
			t.asks("cached before", t.john.visit(azOf(id)))
			cold := h.client("/cold.json", nil)
			eve := t.s.newUser("spoofer")
			for i := range 40 {
				eve.visit(azOf(h.url(fmt.Sprintf("/wrong%d.json", i))))
			}
			t.asks("the cached client of that host", t.john.visit(azOf(id)))
			t.asks("an honest client of that host that is not cached", t.john.visit(azOf(cold)))
		}},
		{"DS-08", func(t *trial) {
			h := t.swarm("junk")
			honest := t.w.host(fresh("hot"))
			id := honest.client("/c.json", nil, "Cache-Control", "max-age=86400")
			t.john.grantOf(id)
			ada := t.vars["ada"].(*person)
			for n := range 15 { // as fast as the budget of one person allows
				t.crowd(60, 6, func(i int) int { return t.status(ada, azOf(fmt.Sprintf("https://junk%dx%d.test/c.json", n, i))) })
				t.s.later(40 * time.Second)
			}
			t.check(h.connections() > 500, "only %d junk clients were fetched", h.connections())
			before := honest.count("/c.json")
			hits := 0
			for range 20 {
				if pg := t.john.visit(azOf(id)); pg.left || pg.asks() {
					hits++
				}
			}
			t.check(hits == 20 && honest.count("/c.json") == before, "the honest client was fetched %d times more", honest.count("/c.json")-before)
		}},
		{"DS-09", func(t *trial) {
			var conns []net.Conn
			var mu sync.Mutex
			t.isolated("slow connections", func(done <-chan struct{}) {
				t.crowd(500, 10, func(i int) int {
					c := t.slowly(i)
					if c != nil {
						mu.Lock()
						conns = append(conns, c)
						mu.Unlock()
					}
					return 0
				})
				<-done
			})
			t.s.later(2 * time.Minute) // every time limit of a connection has passed
			open, patience := 0, time.Now().Add(3*time.Second)
			for _, c := range conns {
				c.SetReadDeadline(later(time.Now().Add(5*time.Millisecond), patience))
				buf := make([]byte, 512)
				for {
					_, err := c.Read(buf)
					if e, ok := err.(net.Error); ok && e.Timeout() {
						open++
					}
					if err != nil {
						break
					}
				}
				c.Close()
			}
			t.check(len(conns) > 500 && open == 0, "%d of %d slow connections are open after two minutes", open, len(conns))
		}},
		{"DS-11", func(t *trial) {
			t.isolated("a flood of passwords", func(done <-chan struct{}) {
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						for {
							select {
							case <-done:
								return
							default:
								p := t.s.person()
								if pg, err := p.try(issuer+"/login", "none"); err == nil {
									if f := pg.form("password"); f != nil {
										p.trySend(f.with("username", "nobody"+random(4)).with("password", "wrong"))
									}
								}
								time.Sleep(40 * time.Millisecond)
							}
						}
					})
				}
				wg.Wait()
			})
			t.check(t.s.memory("VmHWM") < 400<<10, "memory reached %d KiB", t.s.memory("VmHWM"))
		}},
		{"DS-12", func(t *trial) {
			before, rows := t.disk(), len(t.s.events("refusal"))
			began := time.Now()
			t.crowd(4000, 8, func(i int) int { return t.status(nil, az("client_id", fmt.Sprintf("http://x%d.test/", i))) })
			took := time.Since(began)
			after := len(t.s.events("refusal")) - rows
			most := 100 + int(took.Seconds()*5) + 60
			t.check(after <= most, "4,000 refusals in %v left %d events, %d are allowed", took, after, most)
			t.check(t.disk()-before < 4<<20, "the disk grew by %d KiB", (t.disk()-before)>>10)
		}},
		{"DS-13", func(t *trial) {
			rss, before := t.s.memory("VmRSS"), t.disk()
			form := values("client_id", goodID, "redirect_uri", redirect, "response_type", "code", "scope", "mcp:read", "resource", resource, "code_challenge", challenge, "code_challenge_method", "S256", "state", "s")
			got := t.crowd(1500, 8, func(int) int { return t.s.post("/par", form).status })
			t.check(got[201] > 0 && got[500] == 0 && got[-1] == 0, "pushed requests: %v", got)
			got = t.crowd(500, 8, func(i int) int { return t.status(nil, az("state", fmt.Sprint(i))) })
			t.check(got[200] == 500, "sign-ins that are never finished: %v", got)
			t.check(t.s.memory("VmRSS") < rss+48<<10, "memory grew from %d to %d KiB", rss, t.s.memory("VmRSS"))
			t.check(t.disk()-before < 12<<20, "the disk grew by %d KiB", (t.disk()-before)>>10)
			t.s.later(2 * time.Hour) // everything has expired and been swept
			a := t.s.post("/par", form)
			t.check(a.status == 201, "a push afterwards: %s", a)
			pg := t.john.visit(issuer + "/authorize?" + values("client_id", goodID, "request_uri", a.str("request_uri")).Encode())
			t.check(pg.left || pg.asks() || pg.has("password"), "and its use: %s", pg)
		}},
		{"DS-14", func(t *trial) {
			a := t.s.get("/metrics") // there is none: nothing can grow
			t.check(a.status == 404 || a.status == 200 && len(a.raw) < 1<<20 && !strings.Contains(a.raw, "wildcard.test") && !strings.Contains(a.raw, "flood.test"), "%s", a)
		}},
	},
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// clientRows returns how many clients the server has rows for.
func clientRows(t *trial) int {
	out, err := t.s.cli("", "client", "list", "--json")
	if err != nil {
		t.fatal("%v", err)
	}
	return strings.Count(out, "\n")
}

// slowly opens a connection that never says all of what it has begun.
func (t *trial) slowly(i int) net.Conn {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: t.w.address()}, Timeout: 5 * time.Second}
	raw, err := d.Dial("tcp", t.s.addr+":443")
	if err != nil {
		return nil
	}
	if i%3 == 0 { // TLS never begins
		raw.Write([]byte{22})
		return raw
	}
	c := tls.Client(raw, &tls.Config{RootCAs: t.w.ca.pool, ServerName: "as.test"})
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if c.Handshake() != nil {
		raw.Close()
		return nil
	}
	if i%3 == 1 {
		fmt.Fprint(c, "GET /login HTTP/1.1\r\nHost: as.test\r\nX-A: ")
	} else {
		fmt.Fprint(c, "POST /token HTTP/1.1\r\nHost: as.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\ngrant_type=")
	}
	return c
}
