package safehttp

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestGet(t *testing.T) {
	t.Run("FETCH-12, FETCH-14, FETCH-16, attack FT-31: the request holds what it has to and nothing else", func(t *testing.T) {
		synctest.Test(t, testGet)
	})
}

func testGet(t *testing.T) {
	w := newWorld()
	var seen string
	w.serve(evil, "evil.test", func(c net.Conn, request string) {
		seen = request
		raw("HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}")(c, request)
	})
	f := w.fetcher(t)
	for range 2 { // the second one sends no cookie and no Referer either
		seen = ""
		start := time.Now()
		resp, err := f.Get(t.Context(), Request{
			URL: canary + "?a=%20b&c", Accept: "application/json, application/*+json;q=0.9",
			IfNoneMatch: "\"v1\"", IfModifiedSince: "Sat, 01 Jan 2000 00:00:00 GMT",
		})
		if err != nil {
			t.Fatal(err)
		}
		want := &Response{
			Status: 200, Body: []byte("{}"), Sent: start, Received: start, Addr: netip.AddrPortFrom(evil, 443),
			Header: http.Header{"Set-Cookie": {"a=b"}, "Content-Length": {"2"}},
		}
		if diff := cmp.Diff(want, resp, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		wantRequest := "GET /c.json?a=%20b&c HTTP/1.1\r\n" +
			"Host: evil.test\r\n" +
			"User-Agent: Bonafide/1 (+https://bonafide.id)\r\n" +
			"Connection: close\r\n" +
			"Accept: application/json, application/*+json;q=0.9\r\n" +
			"Accept-Encoding: identity\r\n" +
			"If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT\r\n" +
			"If-None-Match: \"v1\"\r\n\r\n"
		if diff := cmp.Diff(wantRequest, seen); diff != "" {
			t.Error(diff)
		}
	}
	if w.closed != 2 {
		t.Errorf("%d connections closed, want 2", w.closed)
	}
}

// answer fetches the canary URL from a server that answers with these bytes,
// in a bubble of its own, and checks that the one connection is closed.
func answer(t *testing.T, serve func(net.Conn, string), check func(t *testing.T, w *world, resp *Response, err error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.serve(evil, "evil.test", serve)
		resp, err := get(t, w.fetcher(t), canary)
		if w.closed != 1 || len(w.dialled) != 1 || len(w.lookups) != 1 {
			t.Errorf("%d lookups, %d connections, %d closed; want 1 of each", len(w.lookups), len(w.dialled), w.closed)
		}
		check(t, w, resp, err)
	})
}

func TestStatusIsPassedThrough(t *testing.T) {
	var rows []string
	for _, code := range []int{301, 302, 303, 307, 308} {
		rows = append(rows, fmt.Sprintf("FETCH-02 redirect %d is an answer and is not followed", code))
	}
	for _, code := range []int{201, 203, 204, 206, 304, 404, 410, 429, 500, 503} {
		rows = append(rows, fmt.Sprintf("attack FT-17: status %d", code))
	}
	for _, name := range rows {
		t.Run(name, func(t *testing.T) {
			var code int
			for _, word := range strings.Fields(name) {
				fmt.Sscan(word, &code)
			}
			head := statusLine(code) + "Location: https://good.test/c.json\r\nRefresh: 0;url=https://good.test/\r\nAlt-Svc: h2=\"good.test:443\"\r\n"
			answer(t, raw(head+"Content-Length: 4\r\n\r\nbody"), func(t *testing.T, w *world, resp *Response, err error) {
				if err != nil || resp.Status != code || resp.Body != nil {
					t.Fatalf("got %+v, %v; want status %d without a body", resp, err, code)
				}
			})
		})
	}
	t.Run("FETCH-02, attack SD-30: a redirect to the same URL with a slash is not followed", func(t *testing.T) {
		answer(t, raw(statusLine(302)+"Location: "+canary+"/\r\n\r\n"), func(t *testing.T, w *world, resp *Response, err error) {
			if err != nil || resp.Status != 302 || resp.Header.Get("Location") != canary+"/" {
				t.Fatalf("got %+v, %v", resp, err)
			}
		})
	})
	t.Run("the body of an error page is not waited for", func(t *testing.T) {
		answer(t, raw(statusLine(500)+"Content-Length: 1000000\r\n\r\n"), func(t *testing.T, w *world, resp *Response, err error) {
			if err != nil || resp.Status != 500 {
				t.Fatalf("got %+v, %v", resp, err)
			}
		})
	})
}

func chunked(body string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(body), body) }

func TestAnswers(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\n"
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(make([]byte, 4<<20))
	z.Close()
	endless := func(head, part string) func(net.Conn, string) {
		return func(c net.Conn, _ string) {
			io.WriteString(c, head)
			for {
				if _, err := io.WriteString(c, part); err != nil {
					return
				}
			}
		}
	}
	for _, row := range []struct {
		name  string
		serve func(net.Conn, string)
		want  Kind // "" = accepted, with body
		body  string
	}{
		{"a body at the limit", raw(ok + "Content-Length: 5120\r\n\r\n" + strings.Repeat("x", 5120)), "", strings.Repeat("x", 5120)},
		{"a body that ends with the connection", raw(ok + "\r\n{}"), "", "{}"},
		{"interim responses before the answer", raw("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", okAnswer), "", okBody},
		{"attack FT-04: identity is no content coding", raw(ok + "Content-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}"), "", "{}"},
		{"FETCH-09, attack FT-01: one byte over the limit, announced", raw(ok + "Content-Length: 5121\r\n\r\n" + strings.Repeat("x", 5121)), KindTooLarge, ""},
		{"FETCH-09 one byte over the limit, not announced", raw(ok + "\r\n" + strings.Repeat("x", 5121)), KindTooLarge, ""},
		{"FETCH-09 a small body announced as large", raw(ok + "Content-Length: 99999999999\r\n\r\n{}"), KindTooLarge, ""},
		{"FETCH-09, attack FT-02: chunks without end", endless(ok+"Transfer-Encoding: chunked\r\n\r\n", chunked(strings.Repeat("x", 1000))), KindTooLarge, ""},
		{"attack FT-02: tiny chunks with long extensions, without end", endless(ok+"Transfer-Encoding: chunked\r\n\r\n", "1;"+strings.Repeat("e", 1000)+"\r\nx\r\n"), KindProtocol, ""},
		{"FETCH-09, attack FT-04: gzip", raw(ok + "Content-Encoding: gzip\r\n\r\n" + zipped.String()), KindProtocol, ""},
		{"attack FT-04: an unknown coding in a second header", raw(ok + "Content-Encoding: identity\r\nContent-Encoding: br\r\n\r\n{}"), KindProtocol, ""},
		{"FETCH-15, attack FT-11: 900 kB of headers", raw(ok + strings.Repeat("X-Filler: "+strings.Repeat("y", 990)+"\r\n", 900) + "\r\n{}"), KindTooLarge, ""},
		{"FETCH-15, attack FT-11: one header line without end", endless(ok+"X-Filler: ", strings.Repeat("y", 1000)), KindTooLarge, ""},
		{"FETCH-15 interim responses without end", endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"), KindProtocol, ""},
		{"FETCH-15 interim responses count against the header", endless("", "HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("y", 8000)+"\r\n\r\n"), KindTooLarge, ""},
		{"FETCH-15 trailers without end", endless(ok+"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", "X-Trailer: y\r\n"), KindProtocol, ""},
		{"FETCH-15 a protocol switch", raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), KindProtocol, ""},
		{"attack FT-13: HTTP/2 frames", endless("\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x00\x09\x00\x00\x00\x00\x01"), KindTooLarge, ""},
		{"attack FT-14: two differing lengths", raw(ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "), KindProtocol, ""},
		{"a negative length", raw(ok + "Content-Length: -1\r\n\r\n{}"), KindProtocol, ""},
		{"attack FT-15: length and chunks: chunks win", raw(ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), "", "{}"},
		{"attack FT-15: a chunk extension of 3,000 bytes is skipped", raw(ok + "Transfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("e", 3000) + "\r\n{}\r\n0\r\n\r\n"), "", "{}"},
		{"attack FT-15: bare line feeds are read", raw("HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), "", "{}"},
		{"attack FT-15: folded header lines are read", raw(ok + "X-Fold: a\r\n b\r\nContent-Length: 2\r\n\r\n{}"), "", "{}"},
		{"attack FT-15: an unknown transfer coding", raw(ok + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), KindProtocol, ""},
		{"a body cut short", raw(ok + "Content-Length: 10\r\n\r\n{}"), KindProtocol, ""},
		{"no HTTP at all", raw("SSH-2.0-OpenSSH_9.9\r\n"), KindProtocol, ""},
		{"nothing", raw(), KindProtocol, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			answer(t, row.serve, func(t *testing.T, w *world, resp *Response, err error) {
				if w.read > 64<<10 {
					t.Errorf("read %d bytes", w.read)
				}
				if row.want != "" {
					wantKind(t, err, row.want)
				} else if err != nil || string(resp.Body) != row.body || resp.Status != 200 {
					t.Errorf("got %+v, %v", resp, err)
				}
			})
		})
	}
}

// drip writes s byte by byte with a pause before each, for ever again.
func drip(c net.Conn, s string, pause time.Duration) {
	for i := 0; ; i++ {
		<-time.After(pause) // bubble time
		if _, err := c.Write([]byte{s[i%len(s)]}); err != nil {
			return
		}
	}
}

func TestDeadline(t *testing.T) {
	afterTLS := func(answer func(net.Conn)) func(w *world) {
		return func(w *world) { w.serve(evil, "evil.test", func(c net.Conn, _ string) { answer(c) }) }
	}
	rawServer := func(serve func(net.Conn)) func(w *world) {
		return func(w *world) { w.servers[evil] = func(c net.Conn) { defer c.Close(); serve(c) } }
	}
	for _, row := range []struct {
		name string
		set  func(w *world)
	}{
		{"FETCH-15, attack FT-06: TCP and then nothing", rawServer(func(c net.Conn) { io.Copy(io.Discard, c) })},
		{"FETCH-15, attack FT-07: the handshake drips", rawServer(func(c net.Conn) {
			go io.Copy(io.Discard, c)
			drip(c, "\x16\x03\x03\x3f\xff\x02\x00\x3f\x00"+strings.Repeat("\x03", 1000), time.Second)
		})},
		{"FETCH-15, attack FT-08: the header drips", afterTLS(func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				<-time.After(100 * time.Millisecond) // bubble time
				if _, err := io.WriteString(c, "X-Drip: y\r\n"); err != nil {
					return
				}
			}
		})},
		{"FETCH-15, attack FT-09: the body drips", afterTLS(func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
			drip(c, "x", 500*time.Millisecond)
		})},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				row.set(w)
				start := time.Now()
				_, err := get(t, w.fetcher(t), canary)
				wantKind(t, err, KindTimeout)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v hides the deadline", err)
				}
				if d := time.Since(start); d != 5*time.Second {
					t.Errorf("took %v, want 5s", d)
				}
				if w.closed != 1 {
					t.Errorf("%d connections closed, want 1", w.closed)
				}
			})
		})
	}
	t.Run("FETCH-15, attack SD-22: the resolver never answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newWorld().fetcher(t, func(r *Rules) {
				r.Lookup = func(ctx context.Context, _ string) ([]netip.Addr, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			})
			start := time.Now()
			_, err := get(t, f, canary)
			wantKind(t, err, KindTimeout)
			if d := time.Since(start); d != 5*time.Second {
				t.Errorf("took %v, want 5s", d)
			}
		})
	})
	t.Run("FETCH-15 a dead first address leaves time for the second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.names["evil.test"] = append([]netip.Addr{netip.MustParseAddr("93.184.216.99")}, evil)
			w.serve(evil, "evil.test", raw(okAnswer))
			f := w.fetcher(t, func(r *Rules) {
				r.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
					if a.Addr() == evil {
						return w.dial(ctx, a)
					}
					<-ctx.Done()
					return nil, ctx.Err()
				}
			})
			start := time.Now()
			resp, err := get(t, f, canary)
			if err != nil || resp.Addr.Addr() != evil {
				t.Fatalf("got %+v, %v", resp, err)
			}
			if d := time.Since(start); d != 2500*time.Millisecond {
				t.Errorf("took %v, want half of the deadline", d)
			}
		})
	})
	t.Run("a caller that goes away ends the fetch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.servers[evil] = func(c net.Conn) { defer c.Close(); io.Copy(io.Discard, c) }
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			_, err := w.fetcher(t).Get(ctx, Request{URL: canary})
			wantKind(t, err, KindTimeout)
			if !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
				t.Errorf("error %v after %v", err, time.Since(start))
			}
		})
	})
}

func TestRequestLimits(t *testing.T) {
	for _, row := range []struct {
		name string
		q    Request
		want Kind
	}{
		{"FETCH-09, FETCH-15 both limits are exact", Request{URL: canary, MaxBody: 20, MaxHeader: 246}, ""},
		{"FETCH-09 the body is a byte too long", Request{URL: canary, MaxBody: 19, MaxHeader: 246}, KindTooLarge},
		{"FETCH-15 the header is a byte too long", Request{URL: canary, MaxBody: 20, MaxHeader: 245}, KindTooLarge},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.serve(evil, "evil.test", raw("HTTP/1.1 200 OK\r\nX-A: "+strings.Repeat("y", 200)+"\r\nContent-Length: 20\r\n\r\n"+strings.Repeat("x", 20)))
				_, err := w.fetcher(t).Get(t.Context(), row.q)
				if kindOf(err) != row.want {
					t.Errorf("error %v, want kind %q", err, row.want)
				}
			})
		})
	}
}
