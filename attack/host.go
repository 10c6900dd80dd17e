package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// response is what a document host answers.
type response struct {
	status int // 200 when it is 0
	header http.Header
	body   []byte
	raw    []byte                              // instead of everything above: the bytes on the wire
	drip   time.Duration                       // pause after each byte of the body
	do     func(c net.Conn, req *http.Request) // instead of everything
}

func answered(body []byte, header ...string) response {
	r := response{header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {fmt.Sprint(len(body))}}, body: body}
	for i := 0; i+1 < len(header); i += 2 {
		if r.header.Del(header[i]); header[i+1] != "" {
			r.header.Add(header[i], header[i+1])
		}
	}
	return r
}

func jsonResponse(v any, header ...string) response {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return answered(raw, header...)
}

func statusResponse(n int) response {
	r := answered([]byte("{}"))
	r.status = n
	return r
}

// received is a request that a host got.
type received struct {
	path   string
	method string
	header http.Header
	body   string
	conn   int // number of the connection it came on
}

// host is one web server with an address of its own, on port 443.
type host struct {
	w    *world
	name string
	addr netip.Addr

	mu       sync.Mutex // guards what follows
	conns    int
	open     int
	most     int // connections open at once
	requests []received
	paths    map[string]func(n int) response
	counts   map[string]int
	any      func(path string) response       // for paths where nothing else stands
	asked    func(req *http.Request) response // before all of that
	wire     func(net.Conn)
	config   *tls.Config
	good     *tls.Config // what config was at first
	down     bool
}

// host returns the web server of a name, and starts it if there is none.
func (w *world) host(name string) *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.hosts[name]; h != nil {
		return h
	}
	a := netip.MustParseAddr("93.184.220.1")
	switch name {
	case "good.test":
		a = netip.MustParseAddr(goodAddr)
	case "evil.test":
		a = netip.MustParseAddr(evilAddr)
	default:
		for range w.next {
			a = a.Next()
		}
		w.next++
	}
	h := &host{w: w, name: name, addr: a, paths: map[string]func(int) response{}, counts: map[string]int{}}
	h.config = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := w.ca.of(name)
		return &c, err
	}, NextProtos: []string{"http/1.1"}}
	h.good = h.config
	ln, err := net.Listen("tcp", netip.AddrPortFrom(a, 443).String())
	if err != nil {
		panic(err)
	}
	w.canary.allow(a.String(), 443)
	w.dns.set(name, a)
	w.hosts[name] = h
	go h.serve(ln)
	return h
}

// forget puts every host and every name back to what it was at first.
func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dns.mu.Lock()
	w.dns.scripts, w.dns.asked, w.dns.calls, w.dns.wild = map[string]func(bool, int) answer{}, map[string]int{}, map[string]int{}, nil
	w.dns.mu.Unlock()
	for name, h := range w.hosts {
		w.dns.set(name, h.addr)
		h.change(func(h *host) {
			h.conns, h.most, h.requests, h.wire, h.down, h.any, h.asked = 0, 0, nil, nil, false, nil, nil
			h.paths, h.counts, h.config = map[string]func(int) response{}, map[string]int{}, h.good
		})
	}
}

func (h *host) url(path string) string { return "https://" + h.name + path }

func (h *host) serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		h.mu.Lock()
		h.conns++
		n, wire, config, down := h.conns, h.wire, h.config, h.down
		h.open++
		h.most = max(h.most, h.open)
		h.mu.Unlock()
		go func() {
			defer func() {
				c.Close()
				h.mu.Lock()
				h.open--
				h.mu.Unlock()
			}()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			switch {
			case down:
				if t, ok := c.(*net.TCPConn); ok {
					t.SetLinger(0)
				}
			case wire != nil:
				wire(c)
			default:
				h.speak(tls.Server(c, config), n)
			}
		}()
	}
}

func (h *host) speak(c *tls.Conn, n int) {
	if c.Handshake() != nil {
		return
	}
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(io.LimitReader(req.Body, 1<<20))
		path := req.URL.RequestURI()
		h.mu.Lock()
		h.requests = append(h.requests, received{path, req.Method, req.Header, string(body), n})
		script := h.paths[path]
		if any := h.any; script == nil && any != nil {
			script = func(int) response { return any(path) }
		}
		if asked := h.asked; asked != nil {
			script = func(int) response { return asked(req) }
		}
		k := h.counts[path]
		h.counts[path]++
		h.mu.Unlock()
		a := statusResponse(404)
		if script != nil {
			a = script(k)
		}
		if a.do != nil {
			a.do(c, req)
			return
		}
		if !h.write(c, a) || req.Close {
			return
		}
	}
}

func (h *host) write(c net.Conn, a response) bool {
	if a.raw != nil {
		c.Write(a.raw)
		return false
	}
	if a.status == 0 {
		a.status = 200
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		for _, v := range a.header[name] {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	b.WriteString("\r\n")
	if a.drip == 0 {
		b.Write(a.body)
		_, err := c.Write(b.Bytes())
		return err == nil && a.header.Get("Content-Length") != ""
	}
	c.Write(b.Bytes())
	for i := range a.body {
		if _, err := c.Write(a.body[i : i+1]); err != nil {
			return false
		}
		time.Sleep(a.drip)
	}
	return true
}

// serve, script and the like say what stands at a path.
func (h *host) put(path string, a response) { h.script(path, func(int) response { return a }) }

func (h *host) script(path string, f func(n int) response) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.paths[path] = f
}

func (h *host) remove(path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.paths, path)
}

// change changes how the host behaves on the wire.
func (h *host) change(f func(h *host)) *host {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
	return h
}

// client puts a good document at a path, with members changed (nil removes one),
// and returns its client_id.
func (h *host) client(path string, members map[string]any, header ...string) string {
	h.put(path, jsonResponse(document(h.url(path), members), header...))
	return h.url(path)
}

func (h *host) count(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if path == "*" {
		return len(h.requests)
	}
	return h.counts[path]
}

func (h *host) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.conns
}

func (h *host) seen() []received {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

// document is a good document of a client.
func document(id string, members map[string]any) map[string]any {
	origin := strings.Join(strings.SplitN(id, "/", 4)[:3], "/")
	d := map[string]any{
		"client_id": id, "client_name": "Good", "redirect_uris": []string{origin + "/cb"},
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
		"token_endpoint_auth_method": "none",
	}
	for k, v := range members {
		if d[k] = v; v == nil {
			delete(d, k)
		}
	}
	return d
}

func documentBytes(id string, members map[string]any) []byte {
	raw, err := json.Marshal(document(id, members))
	if err != nil {
		panic(err)
	}
	return raw
}
