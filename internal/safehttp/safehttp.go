// Package safehttp speaks HTTP to strangers. It is the one package that opens
// outgoing connections to URLs somebody else chose, and the one that builds an
// http.Client.
//
// A Fetcher sends a GET, or a POST of a form, to an https URL and returns the
// answer, whatever its status. What it does not do matters more:
//
//   - It dials no address that is not plainly public. The name is resolved
//     once; each address of the answer is checked, only the ones that pass are
//     dialled, in order, by address, and the default dialer checks again in
//     its control hook. An answer that mixes public and forbidden addresses is
//     used for its public ones; a forbidden one is never dialled.
//   - It follows no redirect, sends no cookie, credential or Referer, adds
//     nothing to the URL, and reads no proxy from the environment.
//   - It speaks HTTP/1.1 over TLS 1.2 or later, on a connection of its own
//     that is closed when Get returns. HTTP/2 is not offered: its flow control
//     and header frames are a surface without a use for one small document,
//     and no connection can be shared between hosts.
//   - It reads no more than it was told to, under one deadline from the name
//     lookup to the last byte, and asks for no compression.
//
// Of the oddities that net/http reads, it accepts: a response with both
// Content-Length and Transfer-Encoding (chunked wins), chunk extensions, bare
// line feeds, folded header lines, a body that ends with the connection. The
// document behind them still has to be exact, which a cut one is not, and no
// connection is reused that such a message could poison. It
// refuses: differing Content-Length headers, content codings, protocol
// switches, and more than a few interim responses.
//
// Trusted returns an ordinary, bounded http.Client for peers that the operator
// named: an issuer, a key set of our own.
package safehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"code.dny.dev/ssrf"
)

// UserAgent is the default User-Agent. It is the same for every fetch and says
// nothing of users or versions.
const UserAgent = "Bonafide/1 (+https://bonafide.id)"

// Defaults of a Request.
const (
	defaultBody    = 5 << 10
	defaultHeader  = 16 << 10
	defaultTimeout = 5 * time.Second
)

// Lookup resolves a host name. It must return soon after ctx ends. IPv4
// addresses have to come in their four-byte form.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// Dial opens a TCP connection to exactly this address.
type Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

// Rules say where a Fetcher may go. The zero value allows port 443 of public
// addresses.
type Rules struct {
	Ports []uint16       // destination ports; nil = 443 only
	Deny  []netip.Prefix // refused on top of the built-in table, in every mode

	// Proxy is an egress proxy (http or https) that every fetch goes through
	// by CONNECT. The proxy resolves and dials, so that address decisions are
	// the proxy's; the proxy's own address is the operator's choice and is not
	// checked. Syntax and ports of targets are checked all the same.
	Proxy *url.URL

	RootCAs *x509.CertPool // nil = system roots

	// Private lists exact URLs that may resolve to loopback, RFC 1918 and
	// unique local addresses, on the port they name. Link-local addresses and
	// cloud metadata services stay refused.
	Private []string

	// AnyPrivate treats every URL as if it stood in Private: for peers that an
	// operator named, whose further URLs are not known beforehand.
	AnyPrivate bool

	// Loopback is for development on one machine: loopback addresses are
	// allowed, on any port, and so is the name localhost; http without TLS is
	// allowed to localhost, 127.0.0.1 and [::1]. Private networks stay refused
	// (CIMD, SSRF considerations).
	Loopback bool

	UserAgent string           // "" = the constant UserAgent
	Lookup    Lookup           // nil = system resolver; its answer is checked like any other
	Dial      Dial             // nil = net.Dialer; only called with addresses that passed
	Now       func() time.Time // nil = time.Now; for Sent and Received
}

// Request is one GET. Zero limits mean 5 KiB of body, 16 KiB of header and
// five seconds for everything from the name lookup to the last byte.
type Request struct {
	URL, Accept, IfNoneMatch, IfModifiedSince string
	MaxBody, MaxHeader                        int64
	Timeout                                   time.Duration

	post *posted // of Post; nil for a GET
}

// Response is an answer with any status but 1xx. Body is read for status 200
// only, except after a POST. Sent is taken before the request goes out and Received when the header
// is complete, as RFC 9111 section 4.2.3 wants them. Addr is the address that
// answered, or zero behind a proxy.
type Response struct {
	Status         int
	Header         http.Header
	Body           []byte
	Sent, Received time.Time
	Addr           netip.AddrPort
}

// Fetcher sends requests under one set of Rules. It holds no connections and
// is safe for concurrent use.
type Fetcher struct {
	rules   Rules
	private map[string]bool
	guard   *ssrf.Guardian
	own     *interfaces
	tls     *tls.Config
}

// New checks the rules and returns a Fetcher.
func New(r Rules) (*Fetcher, error) {
	if r.Ports == nil {
		r.Ports = []uint16{443}
	}
	if slices.Contains(r.Ports, 0) {
		return nil, errors.New("egress rules: port 0")
	}
	for _, p := range r.Deny {
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("egress rules: deny: bad prefix %v", p)
		}
	}
	if p := r.Proxy; p != nil && (p.Scheme != "http" && p.Scheme != "https" || p.Hostname() == "") {
		return nil, errors.New("egress rules: proxy: not an http or https URL")
	}
	if r.UserAgent == "" {
		r.UserAgent = UserAgent
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	f := &Fetcher{
		rules:   r,
		private: make(map[string]bool),
		guard:   ssrf.New(ssrf.WithAnyPort()),
		own:     &interfaces{list: interfaceAddrs, now: time.Now},
		tls: &tls.Config{
			RootCAs:    r.RootCAs,
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"},
		},
	}
	for _, u := range r.Private {
		f.private[u] = true
	}
	for _, u := range r.Private {
		if _, err := f.target(u); err != nil {
			return nil, fmt.Errorf("egress rules: private: %q: %w", u, err)
		}
	}
	return f, nil
}

// Get sends the request and returns the answer. An error is always a *Error;
// its text is for logs. Redirects and refusals are answers, not errors. When
// Get returns, its connection is closed.
func (f *Fetcher) Get(ctx context.Context, q Request) (*Response, error) {
	if q.MaxBody <= 0 {
		q.MaxBody = defaultBody
	}
	if q.MaxHeader <= 0 {
		q.MaxHeader = defaultHeader
	}
	if q.Timeout <= 0 {
		q.Timeout = defaultTimeout
	}
	t, err := f.target(q.URL)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	resp, err := f.fetch(ctx, t, q)
	if err != nil && ctx.Err() != nil {
		return nil, &Error{KindTimeout, fmt.Errorf("%w (%w)", ctx.Err(), err)}
	}
	return resp, err
}

func (f *Fetcher) fetch(ctx context.Context, t target, q Request) (*Response, error) {
	conn, addr, err := f.connect(ctx, t, q.MaxHeader)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	stream := conn
	if !t.plain {
		config := f.tls.Clone()
		config.ServerName = t.host
		secure := tls.Client(conn, config)
		if err := secure.Handshake(); err != nil {
			return nil, &Error{KindTLS, err}
		}
		stream = secure
	}
	resp, err := f.exchange(stream, t, q)
	if err != nil {
		return nil, err
	}
	resp.Addr = addr
	return resp, nil
}
