package safehttp

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// inbox is a server that keeps the requests it was sent, with their bodies.
func (w *world) inbox(answer string) *[]string {
	var seen []string
	w.servers[evil] = func(conn net.Conn) {
		defer conn.Close()
		c := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{testCA().leaf("evil.test", nil)}})
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		seen = append(seen, req.Method+" "+req.RequestURI+" "+req.Header.Get("Content-Type")+" "+req.Header.Get("Authorization")+" "+string(body))
		raw(answer)(c, "")
		c.Close()
	}
	return &seen
}

func TestPost(t *testing.T) {
	form := Form{URL: "https://evil.test/bye", Values: url.Values{"logout_token": {"a b"}}}
	t.Run("OIDC-09 one form, sent once, and the body of any status is read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			seen := w.inbox("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}")
			resp, err := w.fetcher(t).Post(t.Context(), form)
			if err != nil || resp.Status != 400 || string(resp.Body) != "{}" {
				t.Fatalf("%+v, %v", resp, err)
			}
			if diff := cmp.Diff([]string{"POST /bye application/x-www-form-urlencoded  logout_token=a+b"}, *seen); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("OIDC-05 a user and a secret are form-encoded in Basic", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			seen := w.inbox("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			f := form
			f.User, f.Secret = "https://as.test", "s:1"
			if _, err := w.fetcher(t).Post(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			if len(*seen) != 1 || !strings.Contains((*seen)[0], " Basic aHR0cHMlM0ElMkYlMkZhcy50ZXN0OnMlM0Ex ") {
				t.Errorf("%q", *seen)
			}
		})
	})
	t.Run("OIDC-09 a redirect is the answer, and nothing follows it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.inbox("HTTP/1.1 307 Temporary Redirect\r\nLocation: https://good.test/\r\nContent-Length: 0\r\n\r\n")
			resp, err := w.fetcher(t).Post(t.Context(), form)
			if err != nil || resp.Status != 307 || len(w.dialled) != 1 {
				t.Errorf("%+v, %v, %v", resp, err, w.dialled)
			}
		})
	})
	t.Run("OIDC-09 only the status is wanted: a large body is left alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.inbox("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000))
			f := form
			f.StatusOnly = true
			resp, err := w.fetcher(t).Post(t.Context(), f)
			if err != nil || resp.Status != 200 || resp.Body != nil {
				t.Errorf("%+v, %v", resp, err)
			}
		})
	})
	t.Run("a body over the limit is an error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.inbox("HTTP/1.1 400 Bad Request\r\nContent-Length: 6000\r\n\r\n" + strings.Repeat("x", 6000))
			_, err := w.fetcher(t).Post(t.Context(), form)
			wantKind(t, err, KindTooLarge)
		})
	})
	t.Run("a form over the limit is not sent", func(t *testing.T) {
		w := newWorld()
		_, err := w.fetcher(t).Post(t.Context(), Form{URL: form.URL, Values: url.Values{"x": {strings.Repeat("x", maxForm)}}})
		if wantKind(t, err, KindURL); len(w.lookups) != 0 {
			t.Error("it was looked up")
		}
	})
	for _, c := range []struct{ name, url, addr string }{
		{"the metadata service of a cloud", "https://evil.test/", "169.254.169.254"},
		{"loopback", "https://evil.test/", "127.0.0.1"},
		{"a private address", "https://evil.test/", "10.0.0.1"},
		{"an address in the URL", "https://169.254.169.254/", ""},
		{"http", "http://evil.test/", ""},
		{"another port", "https://evil.test:8443/", ""},
	} {
		t.Run("attack SD-36: nothing is posted to "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				if c.addr != "" {
					w.names["evil.test"] = addrs(c.addr)
				}
				_, err := w.fetcher(t).Post(t.Context(), Form{URL: c.url})
				if wantKind(t, err, KindURL, KindAddress); len(w.dialled) != 0 {
					t.Errorf("dialled %v", w.dialled)
				}
			})
		})
	}
	t.Run("one deadline over everything", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.servers[evil] = func(c net.Conn) { _, _ = io.Copy(io.Discard, c); c.Close() }
			f := form
			f.Timeout = time.Second
			_, err := w.fetcher(t).Post(t.Context(), f)
			wantKind(t, err, KindTimeout)
		})
	})
}

func TestAnyPrivate(t *testing.T) {
	w := newWorld()
	f := w.fetcher(t, func(r *Rules) { r.AnyPrivate = true })
	for addr, allowed := range map[string]bool{
		"10.1.2.3": true, "127.0.0.1": true, "192.168.1.1": true, "fd12::1": true,
		"169.254.169.254": false, "fe80::1": false, "168.63.129.16": false, "fd00:ec2::254": false, "224.0.0.1": false, "0.0.0.0": false,
	} {
		t.Run("attack CN-17: with private addresses allowed, "+addr, func(t *testing.T) {
			if err := f.CheckAddr("https://idp.corp:8443/token", netip.MustParseAddr(addr)); (err == nil) != allowed {
				t.Errorf("%v", err)
			}
		})
	}
}
