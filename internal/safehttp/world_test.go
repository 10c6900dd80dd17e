package safehttp

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is an Internet of pipes: names, addresses and servers that do exactly
// what a test says. Inside a synctest bubble its time costs nothing, and the
// bubble itself fails if a fetch leaves a goroutine behind.
type world struct {
	mu      sync.Mutex
	names   map[string][]netip.Addr
	servers map[netip.Addr]func(net.Conn)
	lookups []string
	dialled []netip.AddrPort
	closed  int // connections that the fetcher closed
	read    int // bytes that the fetcher read

	serving sync.WaitGroup
}

var (
	evil   = netip.MustParseAddr("93.184.216.40")
	good   = netip.MustParseAddr("93.184.216.34")
	canary = "https://evil.test/c.json"
)

func newWorld() *world {
	return &world{names: map[string][]netip.Addr{"evil.test": {evil}, "good.test": {good}}, servers: map[netip.Addr]func(net.Conn){}}
}

// rules lets a Fetcher loose in this world.
func (w *world) rules() Rules {
	return Rules{RootCAs: testCA().pool, Lookup: w.lookup, Dial: w.dial}
}

func (w *world) fetcher(t *testing.T, change ...func(*Rules)) *Fetcher {
	t.Helper()
	r := w.rules()
	for _, c := range change {
		c(&r)
	}
	f, err := New(r)
	if err != nil {
		t.Fatal(err)
	}
	f.own.list = func() ([]netip.Addr, error) { return nil, nil }
	t.Cleanup(w.serving.Wait) // no server is left with an open connection
	return f
}

func (w *world) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookups = append(w.lookups, host)
	if addrs, ok := w.names[host]; ok {
		return addrs, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (w *world) dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialled = append(w.dialled, a)
	serve := w.servers[a.Addr()]
	if serve == nil {
		return nil, errors.New("connection refused")
	}
	client, server := newPipe()
	w.serving.Go(func() { serve(server) })
	return &watched{Conn: client, w: w}, nil
}

type watched struct {
	net.Conn
	w    *world
	once sync.Once
}

func (c *watched) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.read += n
	return n, err
}

func (c *watched) Close() error {
	c.once.Do(func() {
		c.w.mu.Lock()
		defer c.w.mu.Unlock()
		c.w.closed++
	})
	return c.Conn.Close()
}

// serve makes addr a TLS server for name that reads one request and hands it
// to answer.
func (w *world) serve(addr netip.Addr, name string, answer func(c net.Conn, request string)) {
	w.serveTLS(addr, &tls.Config{Certificates: []tls.Certificate{testCA().leaf(name, nil)}}, answer)
}

func (w *world) serveTLS(addr netip.Addr, config *tls.Config, answer func(c net.Conn, request string)) {
	w.servers[addr] = func(raw net.Conn) {
		defer raw.Close()
		c := tls.Server(raw, config)
		if err := c.Handshake(); err != nil {
			return
		}
		request, err := readRequest(c)
		if err != nil {
			return
		}
		answer(c, request)
		c.Close()
	}
}

func readRequest(r io.Reader) (string, error) {
	br, request := bufio.NewReader(r), ""
	for !strings.HasSuffix(request, "\r\n\r\n") {
		line, err := br.ReadString('\n')
		if err != nil {
			return "", err
		}
		request += line
	}
	return request, nil
}

// raw answers with these bytes.
func raw(parts ...string) func(net.Conn, string) {
	return func(c net.Conn, _ string) {
		for _, p := range parts {
			if _, err := io.WriteString(c, p); err != nil {
				return
			}
		}
	}
}

// authority is a certificate authority that signs anything.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

var testCA = sync.OnceValue(func() *authority { return newAuthority(nil) })

// The bubble of synctest begins in the year 2000.
var (
	notBefore = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)
)

func newAuthority(spoil func(*x509.Certificate)) *authority {
	key := newECKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if spoil != nil {
		spoil(tmpl)
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	a.cert = mint(tmpl, tmpl, &key.PublicKey, key)
	a.pool.AddCert(a.cert)
	return a
}

func newECKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func mint(tmpl, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

func (a *authority) leaf(name string, spoil func(*x509.Certificate)) tls.Certificate {
	key := newECKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: notBefore, NotAfter: notAfter,
		DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.DNSNames, tmpl.IPAddresses = nil, []net.IP{ip}
	}
	if spoil != nil {
		spoil(tmpl)
	}
	return tls.Certificate{Certificate: [][]byte{mint(tmpl, a.cert, &key.PublicKey, a.key).Raw}, PrivateKey: key}
}

func kindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}

func wantKind(t *testing.T, err error, kinds ...Kind) {
	t.Helper()
	for _, k := range kinds {
		if kindOf(err) == k {
			return
		}
	}
	t.Errorf("error %v (kind %q), want kind %q", err, kindOf(err), kinds)
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

const okBody = `{"client_id":"https://evil.test/c.json"}`

var okAnswer = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(okBody), okBody)

func get(t *testing.T, f *Fetcher, url string) (*Response, error) {
	t.Helper()
	return f.Get(t.Context(), Request{URL: url, Accept: "application/json"})
}

func statusLine(code int) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\n", code, http.StatusText(code))
}

// newPipe returns two ends of a connection that buffers like TCP does, which
// net.Pipe does not: there a client could not complain while its peer writes.
func newPipe() (net.Conn, net.Conn) {
	a, b := newHalf(), newHalf()
	return &end{in: a, out: b}, &end{in: b, out: a}
}

type half struct {
	mu     sync.Mutex
	change *sync.Cond
	data   []byte
	closed bool
}

func newHalf() *half {
	h := &half{}
	h.change = sync.NewCond(&h.mu)
	return h
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.change.Broadcast()
}

type end struct{ in, out *half }

func (e *end) Read(p []byte) (int, error) {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	for len(e.in.data) == 0 && !e.in.closed {
		e.in.change.Wait()
	}
	if len(e.in.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, e.in.data)
	e.in.data = e.in.data[n:]
	e.in.change.Broadcast()
	return n, nil
}

func (e *end) Write(p []byte) (int, error) {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	for len(e.out.data) > 32<<10 && !e.out.closed {
		e.out.change.Wait()
	}
	if e.out.closed {
		return 0, net.ErrClosed
	}
	e.out.data = append(e.out.data, p...)
	e.out.change.Broadcast()
	return len(p), nil
}

func (e *end) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

func (e *end) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (e *end) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }
