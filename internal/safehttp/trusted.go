package safehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// TrustedConfig configures Trusted. Zero fields mean system roots, ten
// seconds, 1 MiB, the system resolver and net.Dialer.
type TrustedConfig struct {
	RootCAs *x509.CertPool
	Timeout time.Duration // over everything, the reading of the body included
	MaxBody int64         // bytes after decompression
	Lookup  Lookup
	Dial    Dial
}

// Trusted returns a client for peers that the operator or the user named, such
// as the issuer whose tokens a server accepts. Their addresses are not judged,
// private ones included. The client is bounded all the same: TLS 1.2 at least,
// no proxy from the environment, no cookies, 64 KiB of header, and a body that
// fails with a *Error of KindTooLarge at its limit. It does not follow
// redirects: the 3xx is the answer. It keeps connections alive for half a
// minute.
func Trusted(c TrustedConfig) *http.Client {
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 1 << 20
	}
	transport := &http.Transport{
		TLSClientConfig:        &tls.Config{RootCAs: c.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    c.Timeout,
		ResponseHeaderTimeout:  c.Timeout,
		MaxResponseHeaderBytes: 64 << 10,
		MaxConnsPerHost:        16,
		IdleConnTimeout:        30 * time.Second,
		ForceAttemptHTTP2:      true,
		DialContext:            (&net.Dialer{Timeout: c.Timeout}).DialContext,
	}
	if c.Lookup != nil || c.Dial != nil {
		transport.DialContext = c.dialContext
	}
	return &http.Client{
		Transport:     bounded{transport, c.MaxBody},
		Timeout:       c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (c TrustedConfig) dialContext(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, err
	}
	lookup, dial := c.Lookup, c.Dial
	if lookup == nil {
		lookup = systemLookup
	}
	if dial == nil {
		dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", a.String())
		}
	}
	var addrs []netip.AddrPort
	if literal, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, netip.AddrPortFrom(literal, uint16(port)))
	} else {
		answer, err := lookup(ctx, host)
		if err != nil {
			return nil, err
		}
		for _, a := range answer {
			addrs = append(addrs, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("host %q has no address", host)
	}
	conn, _, err := dialEach(ctx, addrs, dial)
	return conn, err
}

// bounded is a transport whose bodies fail at a limit.
type bounded struct {
	next  *http.Transport
	limit int64
}

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{resp.Body, b.limit}
	return resp, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections reach the pool.
func (b bounded) CloseIdleConnections() { b.next.CloseIdleConnections() }

type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader. It reads one byte further than the limit, to tell
// a body that ends there from one that goes on.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, &Error{KindTooLarge, fmt.Errorf("body over the limit")}
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, &Error{KindTooLarge, fmt.Errorf("body over the limit")}
	}
	return n, err
}
