package housetest

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/audit"
)

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

// document returns a good document for a path at good.test, as bytes.
func document(t testing.TB, path string, change map[string]any) []byte {
	t.Helper()
	raw, err := json.Marshal(cimdtest.Document("https://good.test"+path, change))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func response(body []byte, header ...string) cimdtest.Response {
	r := cimdtest.Response{Header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {fmt.Sprint(len(body))}}, Body: body}
	for i := 0; i+1 < len(header); i += 2 {
		if r.Header.Del(header[i]); header[i+1] != "" {
			r.Header.Add(header[i], header[i+1])
		}
	}
	return r
}

// TestAnswersThatAreNoDocument lets a host answer in every wrong way. None is
// cached: the same host is heard again once it is mended.
func TestAnswersThatAreNoDocument(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, rec, good := h.john(), &records{h: h}, h.Net.Host("good.test")
	pad := func(path string, n int) []byte {
		raw := document(t, path, map[string]any{"x": ""})
		return bytes.Replace(raw, []byte(`"x":""`), []byte(`"x":"`+strings.Repeat("x", n-len(raw))+`"`), 1)
	}
	zip := func(n int) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(make([]byte, n))
		w.Close()
		return b.Bytes()
	}
	const p = "/n.json" // each row has its own path of the same length
	ok := document(t, p, nil)
	raw := func(head, body string) cimdtest.Response {
		return cimdtest.Response{Raw: []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + head + "\r\n" + body)}
	}
	status := func(n int, header ...string) cimdtest.Response {
		r := response(ok, header...)
		r.Status = n
		return r
	}
	rows := []struct {
		row    string
		answer cimdtest.Response
		page   int
	}{
		{"FETCH-09, attack FT-01, mistake 11: 5,121 bytes", response(pad(p, 5121)), 502},
		{"FETCH-09, attack FT-02: no length", response(pad(p, 20_000), "Content-Length", ""), 502},
		{"FETCH-09, attack FT-02: a length that lies", response(pad(p, 20_000), "Content-Length", "100"), 400},
		{"FETCH-09, attack FT-04: gzip", response(zip(1<<20), "Content-Encoding", "gzip"), 502},
		{"FETCH-09, attack FT-04: gzip of a good document that nobody asked for", response(ok, "Content-Encoding", "gzip"), 502},
		{"FETCH-15, attack FT-11: 900 kB of headers", raw("X: "+strings.Repeat("x", 900<<10)+"\r\n", string(ok)), 502},
		{"attack FT-14: two lengths", raw(fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5\r\n", len(ok)), string(ok)), 502},
		{"FETCH-13, attack FT-18, mistake 12: text/html", response(ok, "Content-Type", "text/html"), 502},
		{"FETCH-13, attack FT-18: text/plain", response(ok, "Content-Type", "text/plain"), 502},
		{"FETCH-13, attack FT-18: no type", response(ok, "Content-Type", ""), 502},
		{"FETCH-13, attack FT-18: jsonp", response(ok, "Content-Type", "application/jsonp"), 502},
		{"FETCH-13, attack FT-18: utf-16", response(ok, "Content-Type", "application/json; charset=utf-16"), 502},
		{"FETCH-02, attack SD-30, mistake 2: 301", status(301, "Location", "https://good.test/c.json"), 502},
		{"FETCH-02, attack SD-30: 302 to the same with a slash", status(302, "Location", "https://good.test/x.json/"), 502},
		{"FETCH-02: 307 to an inner address", status(307, "Location", "https://10.0.0.1/"), 502},
		{"FETCH-02: 308", status(308, "Location", "http://good.test/c.json"), 502},
	}
	for _, n := range []int{201, 203, 204, 206, 304, 404, 410, 429, 500, 503} {
		rows = append(rows, struct {
			row    string
			answer cimdtest.Response
			page   int
		}{fmt.Sprintf("FETCH-03, attack FT-17: %d", n), status(n), 502})
	}
	for i, r := range rows {
		p := fmt.Sprintf("/%c.json", 'A'+i)
		ok := document(t, p, nil)
		address := h.Authorize("client_id", good.URL(p))
		r.answer.Body = bytes.ReplaceAll(r.answer.Body, []byte("/n.json"), []byte(p))
		t.Run(r.row, func(t *testing.T) {
			h.Later(time.Minute)
			good.Serve(p, r.answer)
			before, calls := good.Count("*"), good.Count(p)
			rec.add(r.row, local(t, john.Visit(address), r.page))
			if n := good.Count("*") - before; n != 1 || good.Count(p)-calls != 1 {
				t.Errorf("%d requests", n)
			}
			h.Later(time.Minute) // past the back-off
			good.Serve(p, response(ok, "Cache-Control", "no-store"))
			if page := john.Visit(address); !page.Has("decision") {
				t.Errorf("CACHE-11: it was remembered: %d %s", page.Status, page.Text())
			}
			h.Later(2 * time.Minute) // past the floor
		})
	}
	address := h.Authorize("client_id", good.URL(p))
	for _, typ := range []string{"application/json", "application/json; charset=utf-8", "application/cimd+json", "Application/JSON"} {
		t.Run("FETCH-13, attack FT-18: "+typ+" is one", func(t *testing.T) {
			h.Later(2 * time.Hour)
			good.Serve(p, response(ok, "Content-Type", typ))
			if page := john.Visit(address); !page.Has("decision") {
				t.Errorf("%d %s", page.Status, page.Text())
			}
		})
	}
	t.Run("FETCH-12, FETCH-14, attack FT-31: what was sent says nothing about anybody", func(t *testing.T) {
		for _, q := range good.Requests() {
			for _, name := range []string{"Cookie", "Authorization", "Referer", "X-Forwarded-For", "Forwarded", "Accept-Language", "Origin"} {
				if q.Header.Get(name) != "" {
					t.Errorf("%s: %s", name, q.Header.Get(name))
				}
			}
			if q.Method != "GET" || len(q.Body) != 0 || !strings.HasPrefix(q.Header.Get("User-Agent"), "Bonafide/") || strings.Contains(q.Header.Get("Accept-Encoding"), "gzip") {
				t.Errorf("%s %v", q.Method, q.Header)
			}
		}
	})
	if n := len(h.Net.Strays()); n != 0 {
		t.Errorf("%d strays", n)
	}
	rec.check(t)
}

// TestHostsThatCannotBeReached: from outside, a forbidden address and a broken
// network are one and the same.
func TestHostsThatCannotBeReached(t *testing.T) {
	h := New(t, "allow_test_names: true}", "allow_test_names: true, timeout: 500ms}")
	john, rec := h.john(), &records{h: h}
	host := func(name string, set func(*cimdtest.Host)) string {
		x := h.Net.Host(name + ".test")
		x.ServeClient("/c.json", nil)
		set(x)
		return name
	}
	addr := func(name string, addrs ...string) string {
		var list []netip.Addr
		for _, a := range addrs {
			list = append(list, mustAddr(a))
		}
		h.Net.DNS(name+".test", list...)
		return name
	}
	drip := func(part string, every time.Duration) func(net.Conn) {
		return func(c net.Conn) {
			for i := 0; ; i++ {
				if _, err := c.Write([]byte{part[i%len(part)]}); err != nil {
					return
				}
				time.Sleep(every)
			}
		}
	}
	rows := []struct{ row, name string }{
		{"FETCH-04, attack SD-01, mistake 7: loopback", addr("loop", "127.0.0.1")},
		{"FETCH-04, attack SD-02: private", addr("private", "10.0.0.1")},
		{"FETCH-04, attack SD-03: link-local", addr("linklocal", "169.254.169.254")},
		{"FETCH-04, attack SD-04, mistake 4: shared", addr("shared", "100.100.100.200")},
		{"FETCH-04, attack SD-07: cloud wire server", addr("wire", "168.63.129.16")},
		{"FETCH-04, attack SD-08, mistake 6: 0.0.0.0", addr("zero", "0.0.0.0")},
		{"FETCH-04, attack SD-09: ::1", addr("six", "::1")},
		{"FETCH-04, attack SD-10: mapped", addr("mapped", "::ffff:127.0.0.1")},
		{"FETCH-04, attack SD-12, mistake 5: NAT64", addr("nat", "64:ff9b::a9fe:a9fe")},
		{"FETCH-04, attack SD-17: several bad ones", addr("bad", "10.0.0.1", "127.0.0.1", "::1")},
		{"FETCH-04, attack SD-22: the name does not exist", addr("nobody")},
		{"attack SD-33: ourselves under another name", addr("self", h.Net.Host("as.test").Addr().String())},
		{"attack FA-13: nobody listens", host("down", func(x *cimdtest.Host) { x.Down(true) })},
		{"FETCH-15, attack FT-06: TLS never starts", host("mute", func(x *cimdtest.Host) {
			x.Wire(func(c net.Conn) { c.Read(make([]byte, 1)); <-t.Context().Done() })
		})},
		{"FETCH-15, attack FT-07: the handshake drips", host("dripping", func(x *cimdtest.Host) { x.Wire(drip("\x16", 30*time.Millisecond)) })},
		{"FETCH-15, attack FT-08: the headers drip", host("heads", func(x *cimdtest.Host) { x.Raw("/c.json", drip("X: y\r\n", 10*time.Millisecond)) })},
		{"FETCH-15, attack FT-09: the body drips", host("bodies", func(x *cimdtest.Host) {
			x.Serve("/c.json", cimdtest.Response{Header: http.Header{"Content-Type": {"application/json"}}, Body: make([]byte, 4000), Drip: 5 * time.Millisecond})
		})},
		{"attack FT-13: frames of HTTP/2", host("frames", func(x *cimdtest.Host) {
			x.Raw("/c.json", func(c net.Conn) { c.Write(bytes.Repeat([]byte{0, 0, 0, 9, 0, 0, 0, 0, 1}, 10_000)) })
		})},
		{"attack FT-02: the body never ends", host("endless", func(x *cimdtest.Host) {
			x.Raw("/c.json", func(c net.Conn) {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
				for {
					if _, err := fmt.Fprint(c, "400\r\n"+strings.Repeat("x", 1024)+"\r\n"); err != nil {
						return
					}
				}
			})
		})},
		{"FETCH-11, attack FT-19: expired", host("expired", func(x *cimdtest.Host) { x.UseCertificate(cimdtest.Certificate{NotAfter: time.Unix(1e9, 0)}) })},
		{"FETCH-11, attack FT-19: another name", host("named", func(x *cimdtest.Host) { x.UseCertificate(cimdtest.Certificate{Names: []string{"good.test"}}) })},
		{"FETCH-11, attack FT-19: self-signed", host("selfsigned", func(x *cimdtest.Host) { x.UseCertificate(cimdtest.Certificate{SelfSigned: true}) })},
		{"FETCH-11, attack FT-19: TLS 1.1", host("oldtls", func(x *cimdtest.Host) { x.MaxTLS(tls.VersionTLS11) })},
	}
	seen := map[string][]string{}
	for _, r := range rows {
		t.Run(r.row, func(t *testing.T) {
			began := time.Now()
			page := john.Visit(h.Authorize("client_id", "https://"+r.name+".test/c.json", "redirect_uri", "https://"+r.name+".test/cb"))
			ref := local(t, page, 502)
			rec.add(r.row, ref)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			text := strings.NewReplacer(ref, "REF", r.name+".test", "HOST").Replace(page.Text())
			if r.name != "self" && r.name != "endless" && r.name != "frames" { // those were answers
				seen[text] = append(seen[text], r.row)
			}
			if again := john.Visit(h.Authorize("client_id", "https://"+r.name+".test/c.json")); again.Status != 502 {
				t.Errorf("CACHE-13: %d during the back-off", again.Status)
			}
		})
	}
	t.Run("FETCH-23, mistake 22: all of them read the same", func(t *testing.T) {
		if len(seen) != 1 {
			for text, rows := range seen {
				t.Errorf("%q\n%s", rows, text)
			}
		}
	})
	t.Run("attack SD-17, mistake 8: of one good and one bad address the good one is dialled", func(t *testing.T) {
		x := h.Net.Host("both.test")
		x.ServeClient("/c.json", nil)
		h.Net.DNS("both.test", mustAddr("10.0.0.1"), x.Addr(), mustAddr("127.0.0.1"))
		consents(t, h, john, "client_id", x.URL("/c.json"), "redirect_uri", x.URL("/cb"))
	})
	t.Run("FETCH-04: nothing was dialled that may not be", func(t *testing.T) {
		if n := h.Net.Strays(); len(n) != 0 {
			t.Errorf("strays %v", n)
		}
	})
	t.Run("FETCH-05, attack SD-18, mistake 1: a name that changes its address between the looks", func(t *testing.T) {
		x := h.Net.Host("rebind.test")
		x.ServeClient("/c.json", nil)
		h.Net.DNSFunc("rebind.test", func(call int) ([]netip.Addr, error) {
			if call == 0 {
				return []netip.Addr{x.Addr()}, nil
			}
			return []netip.Addr{mustAddr("127.0.0.1")}, nil
		})
		for range 20 {
			h.Later(2 * time.Minute)
			john.Visit(h.Authorize("client_id", x.URL("/c.json"), "redirect_uri", x.URL("/cb")))
		}
		if n := h.Net.Strays(); len(n) != 0 {
			t.Errorf("strays %v", n)
		}
	})
	rec.check(t)
}

// TestCacheHeaders walks the clock past each lifetime.
func TestCacheHeaders(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, good := h.john(), h.Net.Host("good.test")
	n := 0
	// life returns how long an answer with these headers is used, of the times that are tried.
	life := func(t *testing.T, header ...string) time.Duration {
		t.Helper()
		n++
		p := fmt.Sprintf("/cache%d.json", n)
		good.Serve(p, response(document(t, p, nil), header...))
		see := func() int {
			t.Helper()
			if page := john.Visit(h.Authorize("client_id", good.URL(p))); !page.Has("decision") {
				t.Fatalf("%d %s", page.Status, page.Text())
			}
			return good.Count(p)
		}
		see()
		var age, last time.Duration
		for _, at := range []time.Duration{59 * time.Second, 61 * time.Second, 59 * time.Minute, 61 * time.Minute, 23 * time.Hour, 25 * time.Hour} {
			h.Later(at - age)
			if age = at; at > 11*time.Hour {
				john = h.john() // the session has ended meanwhile
			}
			if see() > 1 {
				return last
			}
			last = at
		}
		return last
	}
	for _, r := range []struct {
		row    string
		header []string
		want   time.Duration
	}{
		{"CACHE-01, attack FT-21: max-age=60", []string{"Cache-Control", "max-age=60"}, 59 * time.Second},
		{"CACHE-02, attack FT-22: no-store has the floor", []string{"Cache-Control", "no-store"}, 59 * time.Second},
		{"CACHE-02, mistake 13: private, max-age=0", []string{"Cache-Control", "private, max-age=0, must-revalidate"}, 59 * time.Second},
		{"CACHE-05, attack FT-23: two values", []string{"Cache-Control", "max-age=60, max-age=9999"}, 59 * time.Second},
		{"CACHE-05, attack FT-23: negative", []string{"Cache-Control", "max-age=-1"}, 59 * time.Second},
		{"CACHE-02, attack FT-23: 99999999999999999999", []string{"Cache-Control", "max-age=99999999999999999999"}, 23 * time.Hour},
		{"CACHE-03, attack FT-23: s-maxage goes first", []string{"Cache-Control", "max-age=9999999, s-maxage=3600"}, 59 * time.Minute},
		{"CACHE-03, attack FT-23: upper case", []string{"Cache-Control", "MAX-AGE=3600"}, 59 * time.Minute},
		{"CACHE-04, attack FT-24: Age", []string{"Cache-Control", "max-age=3600", "Age", "3500"}, 61 * time.Second},
		{"CACHE-04, attack FT-24: Age beyond all", []string{"Cache-Control", "max-age=3600", "Age", "99999999"}, 59 * time.Second},
		{"CACHE-03, attack FT-24: Expires in 1970", []string{"Expires", "Thu, 01 Jan 1970 00:00:00 GMT"}, 59 * time.Second},
		{"CACHE-03, attack FT-24: Expires in 9999", []string{"Expires", "Fri, 31 Dec 9999 23:59:59 GMT"}, 23 * time.Hour},
		{"CACHE-06: nothing said", nil, 59 * time.Minute},
		{"CACHE-10, attack FT-27: Vary: *", []string{"Cache-Control", "max-age=3600", "Vary", "*"}, 59 * time.Second},
	} {
		t.Run(r.row, func(t *testing.T) {
			if got := life(t, r.header...); got != r.want {
				t.Errorf("used for %v, want %v", got, r.want)
			}
		})
	}
	t.Run("CACHE-09, attack FT-25, mistake 14: a tag is asked for, and 304 keeps the document", func(t *testing.T) {
		const p = "/tag.json"
		good.Script(p, response(document(t, p, nil), "Etag", `"v1"`, "Cache-Control", "max-age=60"),
			cimdtest.Response{Status: 304, Header: http.Header{"Etag": {`"v1"`}, "Cache-Control": {"max-age=3600"}}})
		address := h.Authorize("client_id", good.URL(p))
		for i, want := range []int{1, 2, 2} {
			if page := john.Visit(address); !page.Has("decision") || good.Count(p) != want {
				t.Fatalf("step %d: %d, %d requests", i, page.Status, good.Count(p))
			}
			h.Later(2 * time.Minute)
		}
		for _, q := range good.Requests() {
			if q.Path == p && q.Header.Get("If-None-Match") == `"v1"` {
				return
			}
		}
		t.Error("the tag was never sent")
	})
	t.Run("CACHE-11, CACHE-12, attack FT-28: a broken document with max-age is not kept", func(t *testing.T) {
		const p = "/broken.json"
		good.Serve(p, response([]byte(`{"client_id":`), "Cache-Control", "max-age=86400"))
		address := h.Authorize("client_id", good.URL(p))
		local(t, john.Visit(address), 400)
		good.Serve(p, response(document(t, p, nil)))
		h.Later(21 * time.Second)
		if page := john.Visit(address); !page.Has("decision") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
	t.Run("CACHE-14, CACHE-15, attack FT-29, mistake 27: 500 is bridged for an hour, 404 is not", func(t *testing.T) {
		const p = "/outage.json"
		serve := func(status int) {
			r := response(document(t, p, nil), "Cache-Control", "max-age=600")
			r.Status = status
			good.Serve(p, r)
		}
		address := h.Authorize("client_id", good.URL(p))
		serve(200)
		john.Visit(address)
		serve(500)
		h.Later(30 * time.Minute)
		if page := john.Visit(address); !page.Has("decision") {
			t.Fatalf("in the grace: %d %s", page.Status, page.Text())
		}
		h.Later(45 * time.Minute)
		local(t, john.Visit(address), 502)
		serve(200)
		h.Later(time.Minute)
		if page := john.Visit(address); !page.Has("decision") {
			t.Fatalf("back again: %d %s", page.Status, page.Text())
		}
		serve(404)
		h.Later(11 * time.Minute)
		local(t, john.Visit(address), 502)
		serve(500)
		h.Later(time.Minute)
		local(t, john.Visit(address), 502)
	})
	t.Run("CACHE-15, attack FT-30: the host answers with another client's document", func(t *testing.T) {
		const p = "/taken.json"
		good.Serve(p, response(document(t, p, nil), "Cache-Control", "max-age=60"))
		a := h.grant(john, "client_id", good.URL(p))
		good.Serve(p, response(document(t, "/other.json", nil), "Cache-Control", "max-age=60"))
		h.Later(2 * time.Minute)
		local(t, john.Visit(h.Authorize("client_id", good.URL(p))), 400)
		good.Serve(p, cimdtest.Response{Status: 500})
		h.Later(2 * time.Minute)
		if page := john.Visit(h.Authorize("client_id", good.URL(p))); page.Has("decision") || page.Left {
			t.Error("the earlier document came back")
		}
		if b := h.Post("/token", RefreshForm(a.Str("refresh_token"), "client_id", good.URL(p))); !b.OK() {
			t.Errorf("what was granted before goes on: %d %s", b.Status, b.Raw)
		}
	})
	t.Run("CACHE-07, attack FT-22: no-store is not written down", func(t *testing.T) {
		const p = "/secretive.json"
		good.Serve(p, response(document(t, p, nil), "Cache-Control", "no-store"))
		h.grant(john, "client_id", good.URL(p)) // the client has a row now
		before := good.Count(p)
		h.Server.Close()
		h.Start()
		john = h.john()
		john.Visit(h.Authorize("client_id", good.URL(p)))
		if good.Count(p) != before+1 {
			t.Errorf("%d requests after the restart", good.Count(p)-before)
		}
	})
	t.Run("CACHE-01: what may be kept is, for a client that somebody agreed to", func(t *testing.T) {
		const p = "/kept.json"
		good.Serve(p, response(document(t, p, nil), "Cache-Control", "max-age=3600"))
		h.grant(john, "client_id", good.URL(p))
		john.Visit(h.Authorize("client_id", good.URL(p)))
		before := good.Count(p)
		h.Server.Close()
		h.Start()
		if page := h.john().Visit(h.Authorize("client_id", good.URL(p))); !page.Left || good.Count(p) != before {
			t.Errorf("%d, %d requests after the restart", page.Status, good.Count(p)-before)
		}
	})
	h.Server.Close()
	if len(h.Events(audit.TypeFetch)) == 0 {
		t.Error("POL-07: no fetch was recorded")
	}
}

// TestOddFraming: what net/http lets pass is still one exact document within the
// limit, and what follows it on the connection is nobody's answer.
func TestOddFraming(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, good := h.john(), h.Net.Host("good.test")
	const smuggled = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	for i, r := range []struct{ row, head string }{
		{"length and chunks", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"},
		{"a folded header line", "X: a\r\n b\r\nTransfer-Encoding: chunked\r\n"},
	} {
		t.Run("attack FT-15: "+r.row, func(t *testing.T) {
			p := fmt.Sprintf("/f%d.json", i)
			body := document(t, p, nil)
			good.Serve(p, cimdtest.Response{Raw: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%s\r\n%x;%s\r\n%s\r\n0\r\n\r\n%s",
				r.head, len(body), strings.Repeat("e", 3000), body, smuggled)})
			consents(t, h, john, "client_id", good.URL(p))
			q := fmt.Sprintf("/g%d.json", i)
			good.Serve(q, response(document(t, q, nil)))
			consents(t, h, john, "client_id", good.URL(q))
		})
	}
}
