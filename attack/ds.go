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
// with a good document that has so many bytes more than it needs.
func (t *trial) swarm(match string, more int) *host {
	h := t.w.host(fresh("swarm"))
	h.change(func(h *host) {
		h.config = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := t.w.ca.of(hello.ServerName)
			return &c, err
		}}
		h.asked = func(req *http.Request) response {
			return jsonResponse(document("https://"+req.Host+req.URL.Path, m{"x_more": strings.Repeat("x", more)}), "Cache-Control", "max-age=86400")
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
	options: options{changes: []string{"policy: {default: allow}", "policy: {default: allow, rules: [{host: gadget.test, action: allow}]}", "", "sessions: {idle: 720h, absolute: 2000h}"}},
	prepare: func(e *env) {
		e.vars["ada"] = e.s.newUser("ada")
		e.w.host("gadget.test").client("/c.json", m{"grant_types": []string{deviceGrant, "authorization_code", "refresh_token"}})
	},
	rows: []row{
		{"DS-01", ds01},
		{"DS-02", ds02},
		{"DS-04", ds04},
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
			t.check(h.count("*") > 15, "only %d of the spoofed names were fetched: the row proves little", h.count("*"))
			t.asks("the cached client of that host", t.john.visit(azOf(id)))
			t.asks("an honest client of that host that is not cached", t.john.visit(azOf(cold)))
		}},
		{"DS-08", ds08},
		{"DS-09", func(t *trial) {
			var conns []net.Conn
			var mu sync.Mutex
			t.isolated("slow connections", func(done <-chan struct{}) {
				t.crowd(t.scaled(500, 1700), 10, func(i int) int {
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
			var tried, busy, odd atomic.Int64
			t.isolated("a flood of passwords", func(done <-chan struct{}) {
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						for {
							select {
							case <-done:
								return
							default:
							}
							p := t.s.person()
							if pg, err := p.try(issuer+"/login", "none"); err == nil {
								if f := pg.form("password"); f != nil {
									pg, err = p.trySend(f.with("username", "nobody"+random(4)).with("password", "wrong"))
									switch {
									case err == nil && pg.status == http.StatusUnprocessableEntity:
										tried.Add(1)
									case err == nil && (pg.status == 429 || pg.status == 503):
										busy.Add(1)
									default:
										odd.Add(1)
									}
								}
							}
							time.Sleep(40 * time.Millisecond)
						}
					})
				}
				wg.Wait()
			})
			t.check(tried.Load() > 20 && odd.Load() == 0, "%d passwords were looked at, %d held back, %d answered oddly", tried.Load(), busy.Load(), odd.Load())
			t.check(t.s.memory("VmHWM") < 400<<10, "memory reached %d KiB", t.s.memory("VmHWM"))
		}},
		{"DS-12", ds12},
		{"DS-13", ds13},
		{"DS-14", func(t *trial) {
			a := t.s.get("/metrics") // there is none: nothing can grow
			t.check(a.err == nil && a.status == 404 || a.status == 200 && len(a.raw) < 1<<20 && !strings.Contains(a.raw, "wildcard.test") && !strings.Contains(a.raw, "flood.test"), "%s", a)
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
