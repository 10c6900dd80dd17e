package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// documents is the host of the clients' documents: one TLS listener that answers
// for every name, and the proxy by which the server reaches it under those names.
type documents struct {
	addr  string // host:port of the TLS listener
	proxy string // URL of the egress proxy

	mu    sync.Mutex // guards what follows
	pages map[string]page
	asked []string // names that went through the proxy
}

type page struct {
	body   []byte
	header http.Header
}

func startDocuments(ctx context.Context, a *authority) (*documents, error) {
	d := &documents{pages: map[string]page{}}
	ln, err := listen(ctx)
	if err != nil {
		return nil, err
	}
	d.addr = ln.Addr().String()
	serve(ctx, tls.NewListener(ln, a.config()), d)
	if ln, err = listen(ctx); err != nil {
		return nil, err
	}
	d.proxy = "http://" + ln.Addr().String()
	serve(ctx, ln, http.HandlerFunc(d.tunnel))
	return d, nil
}

func listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", "127.0.0.1:0")
}

// serve serves until the context ends.
func serve(ctx context.Context, ln net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = s.Serve(ln) }() // ends with ErrServerClosed
	context.AfterFunc(ctx, func() { s.Close() })
}

// publish serves a JSON document at an https URL.
func (d *documents) publish(url string, v any, cacheControl string) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	d.put(url, page{body, http.Header{"Content-Type": {"application/json"}, "Cache-Control": {cacheControl}}})
	return nil
}

func (d *documents) put(url string, p page) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pages[strings.TrimPrefix(url, "https://")] = p
}

// ServeHTTP answers with what was published under the name and path.
func (d *documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	p, ok := d.pages[r.Host+r.URL.Path]
	d.mu.Unlock()
	if !ok || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	for name, values := range p.header {
		w.Header()[name] = values
	}
	_, _ = w.Write(p.body)
}

// tunnel is the operator's egress proxy: CONNECT to port 443 of any name ends at
// the document host.
func (d *documents) tunnel(w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.Host)
	if r.Method != http.MethodConnect || err != nil || port != "443" {
		http.Error(w, "only CONNECT to port 443", http.StatusForbidden)
		return
	}
	d.mu.Lock()
	d.asked = append(d.asked, host)
	d.mu.Unlock()
	to, err := new(net.Dialer).DialContext(r.Context(), "tcp", d.addr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	w.WriteHeader(http.StatusOK)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	go func() {
		_, _ = io.Copy(to, buffered)
		to.Close()
	}()
	_, _ = io.Copy(from, to)
}
