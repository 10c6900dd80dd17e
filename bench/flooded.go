package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/server"
)

// internet is what the role "hosts" says when it is ready.
type internet struct {
	Addr, Control string
	Roots         string // PEM file
}

// told is what the hosts were asked.
type told struct {
	Served  int64 // documents
	Stalled int64 // requests that wait for ever at this moment
	Most    int64 // at one time
}

// hosts are all the hosts there are: each name below .test has a certificate, and
// each path a valid document, as large as a document may be where the path says so.
// Names that begin with "stall", and those that are told to, take a request and
// never answer.
type hosts struct {
	key  *ecdsa.PrivateKey
	root *x509.Certificate

	mu     sync.Mutex // guards issued
	issued map[string]*tls.Certificate

	served, stalled, most atomic.Int64
	silent                atomic.Bool // the known ones stall as well
}

// playHosts is the role "hosts": document hosts in a process of their own, so that
// they take no memory of what is measured.
func playHosts(args []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	h := &hosts{key: key, issued: map[string]*tls.Certificate{}}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if h.root, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	roots := filepath.Join(args[0], "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0)
	var lc net.ListenConfig
	documents, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	control, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
	secure := tls.NewListener(documents, &tls.Config{GetCertificate: h.certificate, NextProtos: []string{"http/1.1"}})
	ended := make(chan error, 2)
	go func() { ended <- srv.Serve(secure) }()
	asked := &http.Server{Handler: http.HandlerFunc(h.tell), ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
	go func() { ended <- asked.Serve(control) }()
	if err := say(internet{documents.Addr().String(), control.Addr().String(), roots}); err != nil {
		return err
	}
	untilDismissed()
	return errors.Join(srv.Close(), asked.Close())
}

func (h *hosts) tell(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/silence" {
		h.silent.Store(true)
	}
	_ = json.NewEncoder(w).Encode(told{h.served.Load(), h.stalled.Load(), h.most.Load()}) // whoever asked may have gone
}

// certificate issues one for each registrable domain.
func (h *hosts) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	labels := strings.Split(hello.ServerName, ".")
	domain := strings.Join(labels[max(0, len(labels)-2):], ".")
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.issued[domain]; c != nil {
		return c, nil
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(h.issued) + 2)), Subject: pkix.Name{CommonName: domain}, DNSNames: []string{domain, "*." + domain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, h.root, &h.key.PublicKey, h.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: h.key}
	if len(h.issued) > 20_000 {
		clear(h.issued)
	}
	h.issued[domain] = c
	return c, nil
}

// ServeHTTP implements http.Handler.
func (h *hosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.Host, "stall") || h.silent.Load() && strings.HasPrefix(r.Host, "known") {
		n := h.stalled.Add(1)
		for m := h.most.Load(); n > m && !h.most.CompareAndSwap(m, n); m = h.most.Load() {
		}
		defer h.stalled.Add(-1)
		<-r.Context().Done()
		return
	}
	more := map[string]any{}
	if strings.HasPrefix(r.URL.Path, "/large") {
		more["x_more"] = strings.Repeat("x", 4400)
	}
	life := "max-age=86400"
	if strings.HasPrefix(r.Host, "known") {
		life = "max-age=60"
	}
	a := cimdtest.JSON(cimdtest.Document("https://"+r.Host+r.URL.Path, more), "Cache-Control", life)
	for name, v := range a.Header {
		w.Header()[name] = v
	}
	h.served.Add(1)
	_, _ = w.Write(a.Body) // whoever asked may have gone
}

// playFlooded is the role "flooded": the real server from a real configuration,
// with the network of the role "hosts" and a clock that can be moved, and nothing
// else in its process.
func playFlooded(args []string) error {
	dir, net := args[0], internet{Addr: args[1], Roots: args[2]}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	config, seeded, err := install(ctx, place{dir: dir, listen: "127.0.0.1:0", fetch: "at_once", known: knownHosts})
	if err != nil {
		return err
	}
	cfg, err := server.Load(config, false)
	if err != nil {
		return err
	}
	egress, err := net.egress()
	if err != nil {
		return err
	}
	c := new(clock)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := server.New(ctx, cfg, server.Options{Logger: log, Now: c.now, Egress: egress})
	if err != nil {
		return err
	}
	defer s.Close()
	ln, err := cfg.Listener(ctx)
	if err != nil {
		return err
	}
	at, err := listenControl(ctx, c)
	if err != nil {
		return err
	}
	defer at.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln, nil) }()
	if err := say(served{ln.Addr().String(), at.Addr().String(), cfg.StorePath(), seeded}); err != nil {
		return err
	}
	untilDismissed()
	stop()
	return <-ended
}

// egress leads every name that ends in .test, but those below nowhere.test, to the
// hosts. Each registrable domain has an address of its own that looks public.
func (i internet) egress() (*cimd.Egress, error) {
	raw, err := os.ReadFile(i.Roots)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, errors.New("there is no certificate in " + i.Roots)
	}
	var d net.Dialer
	return &cimd.Egress{
		RootCAs: pool,
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			if !strings.HasSuffix(host, ".test") || strings.Contains(host, "nowhere") {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			h := fnv.New32a()
			h.Write([]byte(host))
			n := h.Sum32()
			return []netip.Addr{netip.AddrFrom4([4]byte{93, byte(n >> 16), byte(n >> 8), byte(n)})}, nil
		},
		Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", i.Addr)
		},
	}, nil
}

// listenControl answers about the process: /ahead moves its clock, /heap collects
// garbage and says what is left.
func listenControl(ctx context.Context, c *clock) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &floors{clock: c}
	mux := http.NewServeMux()
	mux.HandleFunc("/ahead", f.ahead)
	mux.HandleFunc("/heap", func(w http.ResponseWriter, _ *http.Request) {
		runtime.GC()
		runtime.GC() // what had a finalizer
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintln(w, m.HeapAlloc, runtime.NumGoroutine())
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(ln) }() // ends with the listener
	return ln, nil
}
