package cimdtest

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Host is one host of a Net.
type Host struct {
	net  *Net
	name string
	addr netip.Addr

	mu     sync.Mutex // guards everything below
	routes map[string]http.Handler
	down   bool
	wire   func(net.Conn)
	cert   *Certificate
	maxTLS uint16
	issued *tls.Certificate
}

// Request is a request as a host saw it.
type Request struct {
	Host       string // the host that answered, by its name in the net
	ServerName string // the name in the TLS handshake
	Method     string
	Path       string      // with the query, as sent
	Header     http.Header // with Host
	Body       []byte      // the first 64 KiB
}

// Response is an answer, sent byte for byte: no header is added. Without a
// Content-Length or Transfer-Encoding the body ends with the connection, which is
// closed after every response.
type Response struct {
	Status int         // 0 means 200
	Header http.Header // written as given, in the order of the names
	Body   []byte
	Raw    []byte // if set, sent instead of status, headers and body

	Wait  <-chan struct{} // if set, nothing is sent before it is closed
	Delay time.Duration   // how long to wait before the first byte
	Drip  time.Duration   // if set, the body goes out byte by byte with this pause
	Hang  bool            // after the last byte the connection stays open and silent
}

// Name returns the name of the host.
func (h *Host) Name() string { return h.name }

// Addr returns the address that belongs to the host.
func (h *Host) Addr() netip.Addr { return h.addr }

// URL returns the https URL of a path at the host.
func (h *Host) URL(path string) string { return "https://" + h.name + path }

// Serve answers GET requests for a path, which includes a query if there is one,
// with r. A later answer for the same path replaces an earlier one.
func (h *Host) Serve(path string, r Response) {
	h.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h.hijack(w, func(conn net.Conn) { h.send(conn, r) })
	}))
}

// ServeJSON answers requests for a path with v as JSON and the media type
// application/json. More headers are pairs of name and value.
func (h *Host) ServeJSON(path string, v any, header ...string) {
	h.Serve(path, JSON(v, header...))
}

// JSON returns a response of v with the media type application/json. More headers
// are pairs of name and value, and replace those of the same name.
func JSON(v any, header ...string) Response {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("cimdtest: encode a response: %v", err)) // a test passed what is no JSON
	}
	hd := http.Header{"Content-Type": {"application/json"}, "Content-Length": {fmt.Sprint(len(body))}}
	for i := 0; i+1 < len(header); i += 2 {
		hd.Set(header[i], header[i+1])
	}
	return Response{Header: hd, Body: body}
}

// Script answers the first request for a path with the first response, and so on;
// the last one is repeated.
func (h *Host) Script(path string, responses ...Response) {
	if len(responses) == 0 {
		h.Remove(path)
		return
	}
	var mu sync.Mutex
	left := slices.Clone(responses)
	h.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		r := left[0]
		if len(left) > 1 {
			left = left[1:]
		}
		mu.Unlock()
		h.hijack(w, func(conn net.Conn) { h.send(conn, r) })
	}))
}

// Handle answers requests for a path with a handler of net/http, which adds the
// headers that it always adds. The path "*" stands for every path without an
// answer of its own.
func (h *Host) Handle(path string, handler http.Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.routes[path] = handler
}

// Raw answers requests for a path by talk, which gets the connection inside TLS
// after the request was read. The connection is closed when talk returns or the
// net ends.
func (h *Host) Raw(path string, talk func(net.Conn)) {
	h.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h.hijack(w, func(conn net.Conn) { h.net.holding(conn, talk) })
	}))
}

// Wire lets talk handle every new connection to the host itself, before TLS; nil
// returns to normal. The connection is closed when talk returns or the net ends.
func (h *Host) Wire(talk func(net.Conn)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wire = talk
}

// Down makes the host refuse connections, or accept them again.
func (h *Host) Down(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
}

// Remove makes a path answer 404 again.
func (h *Host) Remove(path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.routes, path)
}

// Requests returns the requests to the host, in order of arrival.
func (h *Host) Requests() []Request {
	var out []Request
	for _, r := range h.net.Requests() {
		if r.Host == h.name {
			out = append(out, r)
		}
	}
	return out
}

// Count returns how often a path was asked for; the path "*" counts them all.
func (h *Host) Count(path string) int {
	count := 0
	for _, r := range h.Requests() {
		if path == "*" || r.Path == path {
			count++
		}
	}
	return count
}

// serve finds the host that a client asked for in the TLS handshake.
func (n *Net) serve(w http.ResponseWriter, req *http.Request) {
	n.mu.Lock()
	h := n.hosts[strings.ToLower(req.TLS.ServerName)]
	n.mu.Unlock()
	if h == nil {
		http.NotFound(w, req)
		return
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, 64<<10))
	if err != nil {
		http.Error(w, "unreadable body", http.StatusBadRequest)
		return
	}
	req.Body = struct { // the handler gets all of it
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), req.Body), req.Body}
	seen := req.Header.Clone()
	seen.Set("Host", req.Host)
	n.mu.Lock()
	n.log = append(n.log, Request{
		Host: h.name, ServerName: req.TLS.ServerName, Method: req.Method, Path: req.RequestURI, Header: seen, Body: body,
	})
	close(n.news)
	n.news = make(chan struct{})
	n.mu.Unlock()
	h.mu.Lock()
	handler := h.routes[req.RequestURI]
	if handler == nil {
		handler = h.routes["*"]
	}
	h.mu.Unlock()
	if handler == nil {
		http.NotFound(w, req)
		return
	}
	handler.ServeHTTP(w, req)
}

func (h *Host) hijack(w http.ResponseWriter, talk func(net.Conn)) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer func() { _ = conn.Close() }() // the client may have gone first
	talk(conn)
}

// pause waits, and reports whether the net is still there.
func (h *Host) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-h.net.closing:
		return false
	}
}

func (h *Host) send(conn net.Conn, r Response) {
	if r.Wait != nil {
		select {
		case <-r.Wait:
		case <-h.net.closing:
			return
		}
	}
	if !h.pause(r.Delay) {
		return
	}
	head, body := r.Raw, []byte(nil)
	if head == nil {
		head, body = r.head(), r.Body
	}
	if r.Drip == 0 {
		head, body = append(slices.Clone(head), body...), nil
	}
	if _, err := conn.Write(head); err != nil {
		return // the client has gone
	}
	for i := range body {
		if !h.pause(r.Drip) {
			return
		}
		if _, err := conn.Write(body[i : i+1]); err != nil {
			return // the client has gone
		}
	}
	if r.Hang {
		<-h.net.closing
	}
}

// head writes the status line and exactly the given headers.
func (r Response) head() []byte {
	status := r.Status
	if status == 0 {
		status = http.StatusOK
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range r.Header[name] {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	b.WriteString("\r\n")
	return b.Bytes()
}
