// Package cimdtest is a small internet for tests of programs that fetch client
// documents: hosts with names, public-looking addresses and certificates, that
// answer byte for byte what a test tells them to, misbehave on request, and
// remember every question.
//
//	net := cimdtest.New(t)
//	host := net.Host("good.test")
//	id := host.ServeClient("/client.json", nil)
//	r, err := cimd.New(net.Config())
//	doc, err := r.Resolve(ctx, cimdtest.ID(id))
//	host.Count("/client.json") // 1
//
// Nothing leaves the process but connections to one loopback listener: names are
// resolved by [Net.Lookup], and [Net.Dial] leads an address of the net to its host
// and refuses and counts every other one. Both fit [cimd.Egress].
package cimdtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
)

// TB is the part of testing.TB that New needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Net is a small internet. It is safe for concurrent use.
type Net struct {
	authority *authority
	listener  net.Listener
	server    *http.Server
	closing   chan struct{} // closed by Close: what hangs lets go

	mu     sync.Mutex // guards everything below
	hosts  map[string]*Host
	owners map[netip.Addr]*Host
	names  map[string]*name
	next   netip.Addr
	dials  []netip.AddrPort
	strays []netip.AddrPort
	log    []Request
	news   chan struct{} // closed at the next request
	closed bool
}

// name is what the net's DNS answers for a name that a test has scripted.
type name struct {
	calls  int
	answer func(call int) ([]netip.Addr, error)
}

// New starts a net that ends with the test.
func New(t TB) *Net {
	t.Helper()
	n, err := Start()
	if err != nil {
		t.Fatalf("start the test net: %v", err)
	}
	t.Cleanup(n.Close)
	return n
}

// Start starts a net outside a test, such as for a demonstration. The caller
// closes it.
func Start() (*Net, error) {
	authority, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("make the certificate authority: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	n := &Net{
		authority: authority, listener: l, closing: make(chan struct{}),
		hosts: make(map[string]*Host), owners: make(map[netip.Addr]*Host), names: make(map[string]*name),
		next: netip.MustParseAddr("93.184.216.34"), news: make(chan struct{}),
	}
	n.server = &http.Server{
		Handler:           http.HandlerFunc(n.serve),
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: 30 * time.Second,
	}
	secure := tls.NewListener(l, &tls.Config{
		GetConfigForClient: n.tlsConfig,
		NextProtos:         []string{"http/1.1"},
	})
	go func() { _ = n.server.Serve(secure) }() // ends with Close
	return n, nil
}

// Close ends the net and every connection to it.
func (n *Net) Close() {
	n.mu.Lock()
	closed := n.closed
	n.closed = true
	n.mu.Unlock()
	if closed {
		return
	}
	close(n.closing)
	_ = n.server.Close() // the listener is ours and the process may end
}

// Host returns the host of a name, which is made at the first call: it has a
// public-looking address, from 93.184.216.34 on, a name in DNS, and a certificate.
// It answers 404 until it is told otherwise.
func (n *Net) Host(hostname string) *Host {
	hostname = strings.ToLower(hostname)
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[hostname]; h != nil {
		return h
	}
	h := &Host{net: n, name: hostname, addr: n.next, routes: make(map[string]http.Handler)}
	n.next = n.next.Next()
	n.hosts[hostname] = h
	n.owners[h.addr] = h
	return h
}

// RootCAs returns a pool with the one authority that signed every certificate.
func (n *Net) RootCAs() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(n.authority.cert)
	return pool
}

// Egress returns settings that lead a resolver into the net.
func (n *Net) Egress() cimd.Egress {
	return cimd.Egress{RootCAs: n.RootCAs(), Lookup: n.Lookup, Dial: n.Dial}
}

// Rules are URL rules that accept the names that tests use, such as good.test,
// and are strict otherwise.
func (n *Net) Rules() cimd.URLRules { return cimd.URLRules{AllowTestNames: true} }

// Config returns the configuration of a resolver inside the net, for a test to
// complete.
func (n *Net) Config() cimd.Config { return cimd.Config{URL: n.Rules(), Egress: n.Egress()} }

// DNS makes a name resolve to these addresses; none means that the name does not
// exist. The name need not be a host of the net, and the addresses need not be
// ones that a guard lets pass.
func (n *Net) DNS(hostname string, addrs ...netip.Addr) {
	addrs = slices.Clone(addrs)
	n.DNSFunc(hostname, func(int) ([]netip.Addr, error) {
		if len(addrs) == 0 {
			return nil, notFound(hostname)
		}
		return addrs, nil
	})
}

// DNSFunc makes a name resolve to what answer returns for its nth lookup, counted
// from 0: a host that changes its mind.
func (n *Net) DNSFunc(hostname string, answer func(call int) ([]netip.Addr, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[strings.ToLower(hostname)] = &name{answer: answer}
}

// Lookup resolves a name of the net. It fits cimd.Egress.
func (n *Net) Lookup(ctx context.Context, hostname string) ([]netip.Addr, error) {
	hostname = strings.ToLower(hostname)
	n.mu.Lock()
	scripted, h := n.names[hostname], n.hosts[hostname]
	call := 0
	if scripted != nil {
		call = scripted.calls
		scripted.calls++
	}
	n.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch {
	case scripted != nil:
		return scripted.answer(call)
	case h != nil:
		return []netip.Addr{h.addr}, nil
	}
	return nil, notFound(hostname)
}

func notFound(hostname string) error {
	return &net.DNSError{Err: "no such host", Name: hostname, IsNotFound: true}
}

// Dial connects to the host that owns an address, whatever the port. Every other
// address is refused and counted among the strays. It fits cimd.Egress.
func (n *Net) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, to)
	h := n.owners[to.Addr()]
	if h == nil {
		n.strays = append(n.strays, to)
	}
	n.mu.Unlock()
	if h == nil {
		return nil, fmt.Errorf("dial %v: no such address in the test net", to)
	}
	h.mu.Lock()
	down, raw := h.down, h.wire
	h.mu.Unlock()
	if down {
		return nil, fmt.Errorf("dial %v: connection refused", to)
	}
	if raw != nil {
		near, far := net.Pipe()
		go n.holding(far, raw)
		return near, nil
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", n.listener.Addr().String())
}

// holding runs a raw conversation and ends it with the net.
func (n *Net) holding(conn net.Conn, talk func(net.Conn)) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-n.closing:
		case <-done:
		}
		_ = conn.Close() // it is over either way
	}()
	talk(conn)
}

// Dials returns every address that was dialled, in order.
func (n *Net) Dials() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.dials)
}

// Strays returns the addresses that were dialled although no host of the net has
// them. A guard that works leaves this empty.
func (n *Net) Strays() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.strays)
}

// Await returns when so many requests have arrived since the start, at any host,
// or with the error of ctx.
func (n *Net) Await(ctx context.Context, count int) error {
	for {
		n.mu.Lock()
		arrived, news := len(n.log), n.news
		n.mu.Unlock()
		if arrived >= count {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("await %d requests, %d arrived: %w", count, arrived, ctx.Err())
		}
	}
}

// Requests returns every request to any host, in order of arrival.
func (n *Net) Requests() []Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.log)
}
