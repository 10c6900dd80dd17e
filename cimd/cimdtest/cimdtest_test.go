package cimdtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// get asks for a URL of the net over one connection and returns everything that
// came back, byte for byte.
func get(t *testing.T, n *Net, hostname, path string) (string, error) {
	t.Helper()
	addrs, err := n.Lookup(t.Context(), hostname)
	if err != nil {
		return "", err
	}
	raw, err := n.Dial(t.Context(), netip.AddrPortFrom(addrs[0], 443))
	if err != nil {
		return "", err
	}
	conn := tls.Client(raw, &tls.Config{RootCAs: n.RootCAs(), ServerName: hostname})
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if err := conn.HandshakeContext(t.Context()); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: "+hostname+"\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(conn)
	return string(b), err
}

func TestResponses(t *testing.T) {
	n := New(t)
	h := n.Host("good.test")
	gate := make(chan struct{})
	close(gate)
	rows := []struct {
		name string
		resp Response
		want string
	}{
		{"the headers are exactly those that were given",
			Response{Status: 203, Header: http.Header{"etag": {`"1"`}, "Age": {"1", "2"}}, Body: []byte("hi")},
			"HTTP/1.1 203 Non-Authoritative Information\r\nAge: 1\r\nAge: 2\r\netag: \"1\"\r\n\r\nhi"},
		{"the status is 200 if none is given", Response{Wait: gate}, "HTTP/1.1 200 OK\r\n\r\n"},
		{"raw bytes are sent as they are", Response{Raw: []byte("HTTP/9 nonsense\n")}, "HTTP/9 nonsense\n"},
		{"a body can drip", Response{Body: []byte("abc"), Drip: time.Microsecond, Delay: time.Microsecond}, "HTTP/1.1 200 OK\r\n\r\nabc"},
		{"JSON has its type and length", JSON(map[string]int{"a": 1}, "Age", "7"),
			"HTTP/1.1 200 OK\r\nAge: 7\r\nContent-Length: 7\r\nContent-Type: application/json\r\n\r\n{\"a\":1}"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h.Serve("/x", row.resp)
			if got, err := get(t, n, "good.test", "/x"); err != nil || got != row.want {
				t.Errorf("got %q, %v; want %q", got, err, row.want)
			}
		})
	}
	t.Run("a script plays in order and repeats its end", func(t *testing.T) {
		h.Script("/s", Response{Raw: []byte("1")}, Response{Raw: []byte("2")})
		var all string
		for range 3 {
			got, err := get(t, n, "good.test", "/s")
			if err != nil {
				t.Fatal(err)
			}
			all += got
		}
		if all != "122" {
			t.Errorf("got %q", all)
		}
		h.Script("/s")
		if got, _ := get(t, n, "good.test", "/s"); !strings.HasPrefix(got, "HTTP/1.1 404") {
			t.Errorf("an empty script answers %q", got)
		}
	})
	t.Run("raw conversations inside TLS and before it", func(t *testing.T) {
		h.Raw("/raw", func(c net.Conn) { _, _ = io.WriteString(c, "inside") })
		if got, err := get(t, n, "good.test", "/raw"); err != nil || got != "inside" {
			t.Errorf("got %q, %v", got, err)
		}
		h.Wire(func(c net.Conn) {
			_, _ = bufio.NewReader(c).ReadByte()
			_, _ = io.WriteString(c, "this is no handshake")
		})
		if _, err := get(t, n, "good.test", "/raw"); err == nil {
			t.Error("the handshake succeeded")
		}
		h.Wire(nil)
		if got, err := get(t, n, "good.test", "/raw"); err != nil || got != "inside" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("a handler of net/http, and one for all other paths", func(t *testing.T) {
		h.Handle("*", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusTeapot)
		}))
		if got, _ := get(t, n, "good.test", "/any"); !strings.HasPrefix(got, "HTTP/1.1 418") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a hanging answer ends with the net", func(t *testing.T) {
		own, err := Start()
		if err != nil {
			t.Fatal(err)
		}
		own.Host("slow.test").Serve("/h", Response{Hang: true})
		own.Host("slow.test").Serve("/w", Response{Wait: make(chan struct{})})
		own.Host("slow.test").Serve("/d", Response{Delay: time.Hour})
		ended := make(chan error, 3)
		for _, path := range []string{"/h", "/w", "/d"} {
			go func() { _, err := get(t, own, "slow.test", path); ended <- err }()
		}
		if err := own.Await(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		own.Close()
		own.Close()
		for range 3 {
			<-ended
		}
	})
}

func TestLog(t *testing.T) {
	n := New(t)
	h := n.Host("Good.TEST")
	if h != n.Host("good.test") || h.Name() != "good.test" {
		t.Error("a name is one host in any case")
	}
	h.ServeJSON("/a?x=1", 1)
	for _, path := range []string{"/a?x=1", "/a", "/b"} {
		if _, err := get2(t, n, path); err != nil {
			t.Fatal(err)
		}
	}
	reqs := h.Requests()
	if len(reqs) != 3 || reqs[0].Path != "/a?x=1" || reqs[0].ServerName != "good.test" || reqs[0].Header.Get("Host") != "good.test" ||
		reqs[0].Header.Get("X-Seen") != "yes" || reqs[0].Method != "GET" {
		t.Errorf("requests are %+v", reqs)
	}
	if h.Count("/a?x=1") != 1 || h.Count("/c") != 0 || h.Count("*") != 3 || n.Host("other.test").Count("*") != 0 {
		t.Error("the counts are wrong")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Await(ended, 3); err != nil {
		t.Error(err)
	}
	if err := n.Await(ended, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("awaiting a fourth request: %v", err)
	}
	if len(n.Dials()) != 3 || len(n.Strays()) != 0 {
		t.Errorf("dials %v, strays %v", n.Dials(), n.Strays())
	}
}

// get2 is get for a server that keeps connections open: it reads one response.
func get2(t *testing.T, n *Net, path string) (int, error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: n.RootCAs()},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return n.Dial(ctx, netip.AddrPortFrom(n.Host("good.test").Addr(), 443))
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://good.test"+path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Seen", "yes")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func TestNames(t *testing.T) {
	n := New(t)
	a, b := n.Host("a.test"), n.Host("b.test")
	if a.Addr() == b.Addr() || !a.Addr().IsGlobalUnicast() || a.Addr().IsPrivate() {
		t.Errorf("addresses are %v and %v", a.Addr(), b.Addr())
	}
	lookup := func(name string) []netip.Addr {
		addrs, err := n.Lookup(t.Context(), name)
		var dns *net.DNSError
		if err != nil && (!errors.As(err, &dns) || !dns.IsNotFound) {
			t.Errorf("lookup of %s: %v", name, err)
		}
		return addrs
	}
	if got := lookup("A.test"); !slices.Equal(got, []netip.Addr{a.Addr()}) {
		t.Errorf("a.test is %v", got)
	}
	if got := lookup("nowhere.test"); got != nil {
		t.Errorf("nowhere.test is %v", got)
	}
	ten := netip.MustParseAddr("10.0.0.1")
	n.DNS("a.test", ten, a.Addr())
	if got := lookup("a.test"); !slices.Equal(got, []netip.Addr{ten, a.Addr()}) {
		t.Errorf("a.test is %v", got)
	}
	n.DNS("a.test")
	if got := lookup("a.test"); got != nil {
		t.Errorf("a.test is %v", got)
	}
	n.DNSFunc("b.test", func(call int) ([]netip.Addr, error) {
		return []netip.Addr{ten, b.Addr()}[call : call+1], nil
	})
	if first, second := lookup("b.test"), lookup("b.test"); first[0] != ten || second[0] != b.Addr() {
		t.Errorf("b.test is %v, then %v", first, second)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Lookup(ended, "b.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("a lookup after the end: %v", err)
	}
	if _, err := n.Dial(t.Context(), netip.AddrPortFrom(ten, 6379)); err == nil {
		t.Error("a stray got a connection")
	}
	if s := n.Strays(); len(s) != 1 || s[0].Port() != 6379 {
		t.Errorf("strays are %v", s)
	}
	a.Down(true)
	if _, err := n.Dial(t.Context(), netip.AddrPortFrom(a.Addr(), 443)); err == nil || len(n.Strays()) != 1 {
		t.Errorf("dialling a host that is down: %v, strays %v", err, n.Strays())
	}
}

func TestCertificates(t *testing.T) {
	n := New(t)
	h := n.Host("good.test")
	h.Serve("/", Response{})
	ok := func() error { _, err := get(t, n, "good.test", "/"); return err }
	if err := ok(); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, n, "GOOD.test", "/"); err != nil || got != "HTTP/1.1 200 OK\r\n\r\n" {
		t.Errorf("a name in capitals: %q, %v", got, err)
	}
	for name, c := range map[string]Certificate{
		"expired":      {NotAfter: time.Now().Add(-time.Hour)},
		"not yet good": {NotBefore: time.Now().Add(time.Hour)},
		"another name": {Names: []string{"evil.test"}},
		"an address":   {Names: []string{"93.184.216.34"}},
		"self-signed":  {SelfSigned: true},
	} {
		h.UseCertificate(c)
		if ok() == nil {
			t.Errorf("a certificate that is %s was accepted", name)
		}
	}
	h.UseCertificate(Certificate{Names: []string{"other.test", "good.test"}})
	if err := ok(); err != nil {
		t.Error(err)
	}
	h.MaxTLS(tls.VersionTLS11)
	if ok() == nil {
		t.Error("TLS 1.1 was accepted")
	}
	n.DNS("unknown.test", h.Addr())
	if _, err := get(t, n, "unknown.test", "/"); err == nil {
		t.Error("a name that is no host of the net got a certificate")
	}
}

func TestDocument(t *testing.T) {
	doc := Document("https://a.test/c.json", map[string]any{"client_name": nil, "scope": "read"})
	if _, ok := doc["client_name"]; ok || doc["scope"] != "read" || doc["client_id"] != "https://a.test/c.json" ||
		doc["redirect_uris"].([]string)[0] != "https://a.test/cb" {
		t.Errorf("document is %v", doc)
	}
	if got := Document("not a URL", nil)["redirect_uris"].([]string)[0]; got != "https://good.test/cb" {
		t.Errorf("redirect is %s", got)
	}
	if got := ID("https://a.test/c.json").String(); got != "https://a.test/c.json" {
		t.Errorf("ID is %s", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("ID of a bad URL did not panic")
		}
	}()
	ID("https://a.test")
}
