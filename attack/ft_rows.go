package main

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

var groupFT = group{
	name:    "FT",
	options: options{changes: []string{"allow_test_names: true}", "allow_test_names: true, timeout: 2s}", "", "sessions: {idle: 720h, absolute: 2000h}"}},
	rows: []row{
		{"FT-01", func(t *trial) {
			t.badAnswer("5,121 bytes", func(id string) response { return answered(padded(id, 5121)) })
			t.badAnswer("5,121 bytes in chunks", func(id string) response {
				return response{raw: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1401\r\n%s\r\n0\r\n\r\n", padded(id, 5121))}
			})
			h := t.w.host(fresh("fits"))
			h.put("/c.json", answered(padded(h.url("/c.json"), 5120)))
			t.asks("5,120 bytes", t.john.visit(azOf(h.url("/c.json"))))
		}},
		{"FT-02", func(t *trial) {
			sent := make(chan int, 1)
			t.badAnswer("an endless body", func(string) response {
				return response{do: func(c net.Conn, _ *http.Request) {
					n := 0
					fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
					for {
						k, err := fmt.Fprint(c, "400\r\n"+strings.Repeat("x", 1024)+"\r\n")
						if n += k; err != nil || n > 64<<20 {
							sent <- n
							return
						}
					}
				}}
			})
			select {
			case n := <-sent: // what fits into the buffers of the kernel is sent, and not read
				t.check(n < 8<<20, "%d bytes were taken", n)
			case <-time.After(3 * time.Second):
				t.check(false, "the connection is still open")
			}
			t.badAnswer("without a length, to the end of the connection", func(id string) response {
				return response{raw: append([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"), padded(id, 20_000)...)}
			})
		}},
		{"FT-04", func(t *trial) {
			var zip bytes.Buffer
			z := gzip.NewWriter(&zip)
			z.Write(make([]byte, 64<<20))
			z.Close()
			before := t.s.memory("VmHWM")
			h := t.badAnswer("64 MiB in gzip", func(string) response { return answered(zip.Bytes(), "Content-Encoding", "gzip") })
			t.badAnswer("a small one that unpacks", func(id string) response {
				var b bytes.Buffer
				z := gzip.NewWriter(&b)
				z.Write(documentBytes(id, nil))
				z.Close()
				return answered(b.Bytes(), "Content-Encoding", "gzip")
			})
			for _, enc := range []string{"deflate", "br", "x-unknown", "gzip, identity"} {
				t.badAnswer(enc, func(id string) response { return answered(documentBytes(id, nil), "Content-Encoding", enc) })
			}
			t.check(t.s.memory("VmHWM") < before+8<<10, "memory grew from %d to %d KiB", before, t.s.memory("VmHWM"))
			for _, q := range h.seen() {
				t.check(!strings.Contains(q.header.Get("Accept-Encoding"), "gzip"), "it asks for %q", q.header.Get("Accept-Encoding"))
			}
		}},
		{"FT-06", func(t *trial) {
			t.badWire("TLS never starts", func(h *host) { h.wire = mute })
			t.badWire("closed at once", func(h *host) { h.wire = func(net.Conn) {} })
			t.badWire("a reset", func(h *host) { h.down = true })
		}},
		{"FT-07", func(t *trial) {
			t.badWire("one byte of a handshake a second", func(h *host) { h.wire = drip("\x16\x03\x03\x40\x00", time.Second) })
			t.badWire("not TLS", func(h *host) { h.wire = func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n{}"); mute(c) } })
		}},
		{"FT-08", func(t *trial) {
			h := t.w.host(fresh("heads"))
			h.put("/c.json", response{do: func(c net.Conn, _ *http.Request) {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
				for {
					if _, err := fmt.Fprint(c, "X-A: b\r\n"); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}})
			t.fetchFail("a header line each 100 ms", h.url("/c.json"))
			t.check(h.count("/c.json") == 1, "%d requests", h.count("/c.json"))
		}},
		{"FT-09", func(t *trial) {
			h := t.w.host(fresh("bodies"))
			h.put("/c.json", response{header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {"4000"}}, body: make([]byte, 4000), drip: 500 * time.Millisecond})
			t.fetchFail("a byte each 500 ms", h.url("/c.json"))
			t.check(h.count("/c.json") == 1, "%d requests", h.count("/c.json"))
		}},
		{"FT-10", func(t *trial) {
			var slow []*host
			for range 40 {
				h := t.w.host(fresh("slow"))
				h.change(func(h *host) {
					h.any = func(path string) response {
						doc := documentBytes(h.url(path), nil)
						return response{header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {fmt.Sprint(len(doc))}}, body: doc, drip: 1500 * time.Millisecond / time.Duration(len(doc))}
					}
				})
				slow = append(slow, h)
			}
			people := []*person{t.john}
			for i := range 3 {
				people = append(people, t.s.newUser(fmt.Sprintf("slow%d", i)))
			}
			t.isolated("40 slow hosts", func(done <-chan struct{}) {
				var wg sync.WaitGroup
				for i, h := range slow {
					wg.Go(func() {
						p := t.s.person()
						p.jar = people[i%len(people)].jar
						p.http.Jar = p.jar
						for n := 0; ; n++ {
							select {
							case <-done:
								return
							default:
								p.try(azOf(h.url(fmt.Sprintf("/c%d.json", n))), "none")
								time.Sleep(300 * time.Millisecond)
							}
						}
					})
				}
				wg.Wait()
			})
			most := 0
			for _, h := range slow {
				h.change(func(h *host) { most += h.most })
			}
			t.check(most > 4 && most <= 64, "up to %d fetches were under way", most)
		}},
		{"FT-11", func(t *trial) {
			t.badAnswer("900 kB of headers", func(id string) response {
				return rawHead("X: "+strings.Repeat("x", 900<<10)+"\r\n", documentBytes(id, nil))(id)
			})
			t.badAnswer("20,000 headers", func(id string) response {
				return rawHead(strings.Repeat("X: y\r\n", 20_000), documentBytes(id, nil))(id)
			})
			t.badAnswer("a thousand interim answers", func(id string) response {
				return response{raw: append([]byte(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 1000)+"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"), documentBytes(id, nil)...)}
			})
		}},
		{"FT-13", func(t *trial) {
			before := t.s.memory("VmRSS")
			for what, flood := range map[string][]byte{
				"CONTINUATION": append(frames(1, 0, 1, 0, 1), frames(9, 0, 1, 1000, 10_000)...), "SETTINGS": frames(4, 0, 0, 0, 100_000), "PUSH_PROMISE": frames(5, 4, 1, 4, 1000), "no END_STREAM": append(frames(1, 4, 1, 0, 1), frames(0, 0, 1, 1000, 2000)...),
			} {
				h := t.w.host(fresh("frames"))
				h.change(func(h *host) {
					h.wire = func(c net.Conn) {
						cert, _ := t.w.ca.of(h.name)
						s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
						if s.Handshake() == nil {
							s.Write(flood)
							mute(s)
						}
					}
				})
				t.fetchFail(what, h.url("/c.json"))
				t.check(h.connections() == 1, "%s: %d connections", what, h.connections())
			}
			t.check(t.s.memory("VmRSS") < before+16<<10, "memory grew from %d to %d KiB", before, t.s.memory("VmRSS"))
		}},
		{"FT-14", func(t *trial) {
			t.badAnswer("two lengths", func(id string) response {
				doc := documentBytes(id, nil)
				return rawHead(fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5\r\n", len(doc)), doc)(id)
			})
			t.badAnswer("a negative length", func(id string) response { return rawHead("Content-Length: -1\r\n", documentBytes(id, nil))(id) })
			t.badAnswer("a length that lies", func(id string) response { return rawHead("Content-Length: 20\r\n", documentBytes(id, nil))(id) })
			t.badAnswer("a body that ends early", func(id string) response {
				doc := documentBytes(id, nil)
				return rawHead(fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n", len(doc)+50), doc)(id)
			})
		}},
		{"FT-15", func(t *trial) {
			const smuggled = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
			for what, head := range map[string]string{
				"length and chunks": "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "a folded line": "X: a\r\n b\r\nTransfer-Encoding: chunked\r\n", "bare line feeds": "X: a\nY: b\nTransfer-Encoding: chunked\n",
			} {
				h := t.w.host(fresh("odd"))
				id := h.url("/c.json")
				doc := documentBytes(id, nil)
				h.put("/c.json", response{raw: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%s\r\n%x;%s\r\n%s\r\n0\r\n\r\n%s", head, len(doc), strings.Repeat("e", 3000), doc, smuggled)})
				// Documented (docs/divergences.md, net/http): the framing is read as Go reads it, the body is one exact document, and the connection is not used again.
				t.asks(what, t.john.visit(azOf(id)))
				t.asks(what+", the next document", t.john.visit(azOf(h.client("/d.json", nil))))
				t.check(h.connections() == 2, "%s: %d connections for two fetches", what, h.connections())
			}
		}},
		{"FT-17", func(t *trial) {
			for _, n := range []int{201, 202, 203, 204, 206, 226, 300, 304, 400, 401, 404, 410, 429, 500, 503} {
				t.badAnswer(fmt.Sprint(n), func(id string) response {
					r := answered(documentBytes(id, nil), "Etag", `"x"`)
					if n == 204 || n == 304 {
						r = answered(nil, "Etag", `"x"`, "Content-Length", "")
					}
					r.status = n
					return r
				})
			}
		}},
		{"FT-18", func(t *trial) {
			for _, typ := range []string{"text/html", "text/plain", "", "application/jsonp", "application/json; charset=utf-16", "application/octet-stream", "application/javascript", "application/json, text/html", "text/json"} {
				t.badAnswer(fmt.Sprintf("%q", typ), func(id string) response { return answered(documentBytes(id, nil), "Content-Type", typ) })
			}
			for _, typ := range []string{"application/json", "application/json; charset=utf-8", "application/cimd+json", "Application/JSON"} {
				h := t.w.host(fresh("typed"))
				h.put("/c.json", answered(documentBytes(h.url("/c.json"), nil), "Content-Type", typ))
				t.asks(typ, t.john.visit(azOf(h.url("/c.json"))))
			}
		}},
		{"FT-19", func(t *trial) {
			for what, s := range map[string]spoil{
				"expired": {notAfter: time.Unix(1e9, 0)}, "another name": {names: []string{"good.test"}}, "self-signed": {selfSigned: true}, "an address alone": {names: []string{}, ips: []net.IP{net.IPv4(93, 184, 220, 9)}},
				"a constrained issuer": {constraint: "other.test"}, "SHA-1": {sha1: true},
			} {
				h := t.w.host(fresh("cert"))
				if s.names == nil {
					s.names = []string{h.name}
				}
				c, err := t.w.ca.make(s)
				if err != nil {
					t.fatal("%s: %v", what, err)
				}
				id := h.client("/c.json", nil)
				good := h.config
				h.change(func(h *host) { h.config = &tls.Config{Certificates: []tls.Certificate{c}} })
				t.fetchFail(what, id)
				t.check(h.count("*") == 0 && h.connections() == 1, "%s: %d requests over %d connections", what, h.count("*"), h.connections())
				h.change(func(h *host) { h.config = good })
				t.s.later(40 * time.Second)
				t.asks(what+", mended", t.john.visit(azOf(id)))
			}
			for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
				h := t.w.host(fresh("oldtls"))
				id := h.client("/c.json", nil)
				h.change(func(h *host) { c := h.config.Clone(); c.MinVersion, c.MaxVersion = tls.VersionTLS10, v; h.config = c })
				t.fetchFail(tls.VersionName(v), id)
				t.check(h.count("*") == 0 && h.connections() == 1, "%s: %d requests over %d connections", tls.VersionName(v), h.count("*"), h.connections())
			}
			help, _ := t.s.cli("", "serve", "--help")
			t.check(help != "" && !strings.Contains(help, "insecure") && !strings.Contains(help, "verify"), "there is a switch: %s", help)
		}},
		{"FT-21", func(t *trial) {
			h := t.w.host(fresh("aging"))
			id := h.client("/c.json", m{"client_name": "First"}, "Cache-Control", "max-age=60")
			name := func() string { return t.john.visit(azOf(id)).text() }
			t.check(strings.Contains(name(), "First"), "at once: %s", name())
			t.s.later(30 * time.Second)
			h.client("/c.json", m{"client_name": "Second"}, "Cache-Control", "max-age=60")
			t.check(strings.Contains(name(), "First"), "after 30 s: %s", name())
			t.s.later(31 * time.Second)
			t.check(strings.Contains(name(), "Second"), "after 61 s: %s", name())
		}},
		{"FT-22", func(t *trial) {
			h := t.w.host(fresh("secretive"))
			id := h.client("/c.json", nil, "Cache-Control", "no-store")
			t.john.grantOf(id)     // the client has a row now
			t.john.visit(azOf(id)) // and its document would be kept from here on
			before := h.count("/c.json")
			t.s.restart()
			t.john.visit(azOf(id))
			t.check(h.count("/c.json") == before+1, "%d fetches after the restart", h.count("/c.json")-before)
			kept := t.w.host(fresh("kept"))
			id = kept.client("/c.json", nil, "Cache-Control", "max-age=3600")
			t.john.grantOf(id)
			t.john.visit(azOf(id))
			before = kept.count("/c.json")
			t.s.restart()
			t.john.visit(azOf(id))
			t.check(kept.count("/c.json") == before, "what may be kept was fetched again")
		}},
		{"FT-23", func(t *trial) {
			for header, want := range map[string]time.Duration{
				"max-age=60, max-age=9999": time.Minute, "max-age=-1": time.Minute, "max-age=1e9": time.Minute, "max-age=99999999999999999999": 24 * time.Hour,
				"MAX-AGE=3600": time.Hour, `max-age="3600"`: time.Hour, "max-age=9999999, s-maxage=3600": time.Hour, "max-age=0": time.Minute, "private, max-age=3600": time.Minute,
			} {
				t.life(header, want, "Cache-Control", header)
			}
		}},
		{"FT-24", func(t *trial) {
			t.life("Age: 3000", 600*time.Second, "Cache-Control", "max-age=3600", "Age", "3000")
			t.life("Age beyond all", time.Minute, "Cache-Control", "max-age=3600", "Age", "99999999")
			t.life("Date an hour ago", time.Hour, "Cache-Control", "max-age=7200", "Date", t.s.now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			t.life("Expires in 1970", time.Minute, "Expires", "Thu, 01 Jan 1970 00:00:00 GMT")
			t.life("Expires in 9999", 24*time.Hour, "Expires", "Fri, 31 Dec 9999 23:59:59 GMT")
		}},
		{"FT-25", func(t *trial) {
			h := t.w.host(fresh("tagged"))
			id := h.url("/c.json")
			h.script("/c.json", func(n int) response {
				if n == 0 {
					return answered(documentBytes(id, nil), "Etag", `"v1"`, "Cache-Control", "max-age=60")
				}
				return response{status: 304, header: http.Header{"Etag": {`"v1"`}, "Cache-Control": {"max-age=3600"}}}
			})
			for i, want := range []int{1, 2, 2} {
				t.asks(fmt.Sprint("visit ", i), t.john.visit(azOf(id)))
				t.check(h.count("/c.json") == want, "visit %d: %d requests", i, h.count("/c.json"))
				t.s.later(2 * time.Minute)
			}
			last := h.seen()[len(h.seen())-1]
			t.check(last.header.Get("If-None-Match") == `"v1"`, "the tag was not sent: %v", last.header)
		}},
		{"FT-27", func(t *trial) {
			t.life("Vary: *", time.Minute, "Cache-Control", "max-age=3600", "Vary", "*")
			t.life("Vary: User-Agent", time.Hour, "Cache-Control", "max-age=3600", "Vary", "User-Agent")
			h := t.w.host(fresh("cookie"))
			id := h.client("/c.json", nil, "Set-Cookie", "a=b; Path=/", "Cache-Control", "max-age=60")
			for range 2 {
				t.asks("a cookie", t.john.visit(azOf(id)))
				t.s.later(2 * time.Minute)
			}
			for _, q := range h.seen() {
				t.check(q.header.Get("Cookie") == "", "a cookie came back")
			}
		}},
		{"FT-28", func(t *trial) {
			h := t.w.host(fresh("broken"))
			id := h.url("/c.json")
			h.put("/c.json", answered([]byte(`{"client_id":`), "Cache-Control", "max-age=86400"))
			t.local("broken", t.john.visit(azOf(id)), 400)
			h.client("/c.json", nil)
			t.s.later(31 * time.Second)
			t.asks("mended", t.john.visit(azOf(id)))
		}},
		{"FT-29", func(t *trial) {
			h := t.w.host(fresh("outage"))
			id := h.client("/c.json", nil, "Cache-Control", "max-age=600")
			fail := func(n int) { h.put("/c.json", statusResponse(n)) }
			t.asks("at first", t.john.visit(azOf(id)))
			fail(500)
			t.s.later(30 * time.Minute)
			t.asks("500, in the grace", t.john.visit(azOf(id)))
			t.s.later(45 * time.Minute)
			t.local("500, past the grace", t.john.visit(azOf(id)), 502)
			h.client("/c.json", nil, "Cache-Control", "max-age=600")
			t.s.later(time.Minute)
			t.asks("back again", t.john.visit(azOf(id)))
			fail(404)
			t.s.later(11 * time.Minute)
			t.local("404", t.john.visit(azOf(id)), 502)
			fail(500)
			t.s.later(time.Minute)
			t.local("500 after 404", t.john.visit(azOf(id)), 502)
		}},
		{"FT-30", func(t *trial) {
			h := t.w.host(fresh("taken"))
			id := h.client("/c.json", nil, "Cache-Control", "max-age=60")
			a := t.john.grantOf(id)
			h.put("/c.json", jsonResponse(document("https://other.test/c.json", nil), "Cache-Control", "max-age=60"))
			t.s.later(2 * time.Minute)
			t.local("another client's document", t.john.visit(azOf(id)), 400)
			h.put("/c.json", statusResponse(500))
			t.s.later(2 * time.Minute)
			pg := t.john.visit(azOf(id))
			t.check(!pg.left && !pg.asks(), "the earlier document came back: %s", pg)
			b := t.s.post("/token", refreshForm(a.str("refresh_token"), "client_id", id))
			t.check(b.ok(), "what was granted before ends: %s", b)
		}},
		{"FT-31", func(t *trial) {
			pg := t.john.visit(azOf(t.w.host(fresh("plain")).client("/c.json", nil), "state", "john-was-here"))
			t.asks("a fetch", pg)
			agents := map[string]bool{}
			t.w.mu.Lock()
			defer t.w.mu.Unlock()
			for _, h := range t.w.hosts {
				for _, q := range h.seen() {
					for _, name := range []string{"Cookie", "Authorization", "Referer", "X-Forwarded-For", "Forwarded", "X-Real-Ip", "Accept-Language", "Origin", "From"} {
						t.check(q.header.Get(name) == "", "%s: %s", name, q.header.Get(name))
					}
					all, _ := json.Marshal(q.header)
					t.check(q.method == http.MethodGet && q.body == "" && !strings.Contains(string(all), "john"), "%s %s", q.method, all)
					agents[q.header.Get("User-Agent")] = true
				}
			}
			t.check(len(agents) == 1, "%d user agents: %v", len(agents), agents)
		}},
	},
}
