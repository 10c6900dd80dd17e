package safehttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// document serves okBody over TLS on a real loopback port as evil.test and
// localhost.
func document(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	leaf := testCA().leaf("evil.test", func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{"evil.test", "localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	})
	srv := &httptest.Server{
		Listener: l,
		TLS:      &tls.Config{Certificates: []tls.Certificate{leaf}},
		Config: &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, okBody)
		})},
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// egress is a CONNECT proxy on loopback. It notes what it is asked for and
// connects everything to one address, or answers with another status.
type egress struct {
	addr   netip.AddrPort
	asked  chan *http.Request
	answer string // instead of 200
}

func newEgress(t *testing.T, to netip.AddrPort, config *tls.Config, answer string) *egress {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &egress{addr: l.Addr().(*net.TCPAddr).AddrPort(), asked: make(chan *http.Request, 10), answer: answer}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go e.serve(conn, to)
		}
	}()
	return e
}

func (e *egress) serve(conn net.Conn, to netip.AddrPort) {
	defer conn.Close()
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	e.asked <- req
	if e.answer != "" {
		io.WriteString(conn, e.answer)
		return
	}
	up, err := net.Dial("tcp", to.String())
	if err != nil {
		return
	}
	defer up.Close()
	io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { io.Copy(up, conn); up.Close() }()
	io.Copy(conn, up)
}

func TestProxy(t *testing.T) {
	doc := document(t)
	secure := &tls.Config{Certificates: []tls.Certificate{testCA().leaf("127.0.0.1", nil)}}
	untrusted := &tls.Config{Certificates: []tls.Certificate{newAuthority(nil).leaf("127.0.0.1", nil)}}
	for _, row := range []struct {
		name   string
		proxy  string
		config *tls.Config
		answer string
		url    string
		want   Kind
		asked  bool
	}{
		{"FETCH-16, attack SD-31: through an http proxy", "http://u:p%40@", nil, "", canary, "", true},
		{"FETCH-16 through an https proxy", "https://u:p%40@", secure, "", canary, "", true},
		{"FETCH-16 an https proxy without a good certificate", "https://u:p%40@", untrusted, "", canary, KindConnect, false},
		{"FETCH-16 a proxy that refuses", "http://u:p%40@", nil, "HTTP/1.1 403 Forbidden\r\n\r\n", canary, KindConnect, true},
		{"FETCH-16 a proxy that speaks for the target", "http://u:p%40@", nil, "HTTP/1.1 200 OK\r\n\r\nhello", canary, KindConnect, true},
		{"FETCH-16 a proxy that does not speak HTTP", "http://u:p%40@", nil, "hello\r\n\r\n", canary, KindConnect, true},
		{"FETCH-16 the certificate of the target is checked", "http://u:p%40@", nil, "", "https://good.test/c.json", KindTLS, true},
		{"FETCH-16 ports are checked all the same", "http://u:p%40@", nil, "", "https://evil.test:22/c.json", KindURL, false},
		{"FETCH-16 names are checked all the same", "http://u:p%40@", nil, "", "https://127.1/c.json", KindURL, false},
		{"FETCH-16 addresses in the URL are checked all the same", "http://u:p%40@", nil, "", "https://169.254.169.254/c.json", KindAddress, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := newEgress(t, doc, row.config, row.answer)
			w := newWorld()
			f := w.fetcher(t, func(r *Rules) {
				u, err := url.Parse(row.proxy + e.addr.String())
				if err != nil {
					t.Fatal(err)
				}
				r.Proxy = u
			})
			resp, err := get(t, f, row.url)
			if kindOf(err) != row.want || (err == nil) != (row.want == "") {
				t.Fatalf("error %v, want kind %q", err, row.want)
			}
			if len(w.lookups)+len(w.dialled) != 0 {
				t.Errorf("looked up %v, dialled %v past the proxy", w.lookups, w.dialled)
			}
			if asked := len(e.asked) > 0; asked != row.asked {
				t.Fatalf("the proxy was asked: %v, want %v", asked, row.asked)
			}
			if row.want != "" {
				return
			}
			if string(resp.Body) != okBody || resp.Addr.IsValid() {
				t.Errorf("got %+v", resp)
			}
			req := <-e.asked
			if req.Method != "CONNECT" || req.Host != "evil.test:443" || req.Header.Get("Proxy-Authorization") != "Basic dTpwQA==" {
				t.Errorf("the proxy was asked %s %s, %v", req.Method, req.Host, req.Header)
			}
		})
	}
	t.Run("FETCH-15 a proxy that never answers", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f := newWorld().fetcher(t, func(r *Rules) { r.Proxy = &url.URL{Scheme: "http", Host: l.Addr().String()} })
		_, err = f.Get(t.Context(), Request{URL: canary, Timeout: 30 * time.Millisecond})
		wantKind(t, err, KindTimeout)
	})
	t.Run("a proxy that is not there", func(t *testing.T) {
		f := newWorld().fetcher(t, func(r *Rules) { r.Proxy = &url.URL{Scheme: "http", Host: "127.0.0.1:1"} })
		_, err := get(t, f, canary)
		wantKind(t, err, KindConnect)
	})
}

func TestEnvironmentIsIgnored(t *testing.T) {
	doc := document(t)
	e := newEgress(t, doc, nil, "")
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"} {
		t.Setenv(name, "http://"+e.addr.String())
	}
	toDoc := func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", doc.String())
	}
	t.Run("FETCH-16, attack SD-31: proxies in the environment are not asked", func(t *testing.T) {
		f := newWorld().fetcher(t, func(r *Rules) { r.Dial = toDoc })
		if resp, err := get(t, f, canary); err != nil || string(resp.Body) != okBody {
			t.Errorf("got %+v, %v", resp, err)
		}
		client := Trusted(TrustedConfig{RootCAs: testCA().pool, Lookup: newWorld().lookup, Dial: toDoc})
		defer client.CloseIdleConnections()
		resp, err := client.Get(canary)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if len(e.asked) != 0 {
			t.Error("the proxy was asked")
		}
	})
}

func TestRealNetwork(t *testing.T) {
	doc := document(t)
	t.Run("FETCH-07, attack SD-38: the default resolver and dialer in development mode", func(t *testing.T) {
		f, err := New(Rules{RootCAs: testCA().pool, Loopback: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"localhost", "127.0.0.1"} {
			resp, err := get(t, f, fmt.Sprintf("https://%s:%d/c.json", host, doc.Port()))
			if err != nil || string(resp.Body) != okBody || !resp.Addr.Addr().IsLoopback() {
				t.Errorf("%s: %+v, %v", host, resp, err)
			}
		}
	})
	t.Run("attack SD-01: the same without development mode is refused", func(t *testing.T) {
		f, err := New(Rules{RootCAs: testCA().pool, Ports: []uint16{doc.Port()}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = get(t, f, fmt.Sprintf("https://127.0.0.1:%d/c.json", doc.Port()))
		wantKind(t, err, KindAddress)
	})
	t.Run("attack SD-10: the system resolver's answers are in their proper form", func(t *testing.T) {
		list, err := systemLookup(t.Context(), "localhost")
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			if a.Is4In6() || !a.IsLoopback() {
				t.Errorf("localhost is %v", a)
			}
		}
	})
	t.Run("attack SD-27: a public name is looked up as an absolute one", func(t *testing.T) {
		f, err := New(Rules{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // the error names what was asked, and no question leaves
		_, err = f.lookup(ctx, target{host: "evil.test"})
		if e, ok := errors.AsType[*net.DNSError](err); !ok || e.Name != "evil.test." {
			t.Errorf("lookup: %v", err)
		}
		_, err = f.lookup(ctx, target{host: "clients", private: true})
		if e, ok := errors.AsType[*net.DNSError](err); !ok || e.Name != "clients" {
			t.Errorf("private lookup: %v", err)
		}
	})
	t.Run("FETCH-15, attack FT-06: nothing is left behind: goroutines and connections", func(t *testing.T) {
		stuck, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer stuck.Close()
		var open atomic.Int64
		f := newWorld().fetcher(t, func(r *Rules) {
			r.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
				where := doc.String()
				if a.Addr() == good {
					where = stuck.Addr().String()
				}
				c, err := new(net.Dialer).DialContext(ctx, "tcp", where)
				if err == nil {
					open.Add(1)
					c = &counted{Conn: c, open: &open}
				}
				return c, err
			}
		})
		before := runtime.NumGoroutine()
		for range 20 {
			if _, err := get(t, f, canary); err != nil {
				t.Fatal(err)
			}
			_, err := f.Get(t.Context(), Request{URL: "https://good.test/c.json", Timeout: 5 * time.Millisecond})
			wantKind(t, err, KindTimeout)
		}
		if n := open.Load(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
		deadline := time.Now().Add(time.Second)
		for runtime.NumGoroutine() > before+2 && time.Now().Before(deadline) { // the server's own goroutines end a little later
			runtime.Gosched()
		}
		if n := runtime.NumGoroutine(); n > before+2 {
			t.Errorf("%d goroutines, %d before", n, before)
		}
	})
}

type counted struct {
	net.Conn
	open *atomic.Int64
	done atomic.Bool
}

func (c *counted) Close() error {
	if !c.done.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

func TestRules(t *testing.T) {
	for _, row := range []struct {
		name  string
		rules Rules
		ok    bool
	}{
		{"nothing", Rules{}, true},
		{"everything", Rules{Ports: []uint16{443, 8443}, Deny: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Proxy: &url.URL{Scheme: "http", Host: "proxy:3128"}, Private: []string{"https://clients:8443/c.json"}}, true},
		{"port 0", Rules{Ports: []uint16{0}}, false},
		{"no prefix", Rules{Deny: []netip.Prefix{{}}}, false},
		{"a mapped prefix", Rules{Deny: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 104)}}, false},
		{"a SOCKS proxy", Rules{Proxy: &url.URL{Scheme: "socks5", Host: "proxy:1080"}}, false},
		{"a proxy without a host", Rules{Proxy: &url.URL{Scheme: "http"}}, false},
		{"a private URL without TLS", Rules{Private: []string{"http://clients/c.json"}}, false},
		{"a private URL that is a pattern", Rules{Private: []string{"https://*.corp.example/c.json"}}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := New(row.rules); (err == nil) != row.ok {
				t.Errorf("error %v, want ok %v", err, row.ok)
			}
		})
	}
	t.Run("FETCH-07 no environment variable and no default opens an exception", func(t *testing.T) {
		f := newWorld().fetcher(t)
		for _, u := range []string{"https://127.0.0.1/", "https://10.0.0.1/", "https://[::1]/", "https://[fc00::1]/"} {
			wantKind(t, f.CheckAddr(u, f.mustTarget(t, u).literal), KindAddress)
		}
		wantKind(t, f.CheckAddr("http://evil.test/", evil), KindURL)
		wantKind(t, f.CheckAddr(canary, netip.Addr{}), KindAddress)
	})
}

func (f *Fetcher) mustTarget(t *testing.T, u string) target {
	t.Helper()
	got, err := f.target(u)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
