package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bonafide-id/bonafide/internal/web"
)

// drainTime is how long requests in flight may take after SIGTERM.
const drainTime = 20 * time.Second

// Listener opens the listener of the configuration. With --dev it must turn out to
// be on loopback, whatever the name in the configuration resolved to (FETCH-07).
func (c *Config) Listener(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if a, ok := ln.Addr().(*net.TCPAddr); c.Dev && (!ok || !a.IP.IsLoopback()) {
		ln.Close()
		return nil, fmt.Errorf("--dev is only for a server that listens on loopback, and %s is not", ln.Addr())
	}
	return ln, nil
}

// Run serves on ln until ctx ends, then lets requests in flight finish. reload is
// called for each SIGHUP and returns the configuration to go on with.
func (s *Server) Run(ctx context.Context, ln net.Listener, reload func() (*Config, error)) error {
	for _, advice := range s.cfg.Advice() {
		s.log.Warn(advice)
	}
	srv := web.NewServer(s.mux)
	// What the HTTP server has to say is about strangers: a failed handshake, a
	// malformed request. It must not fill the log.
	srv.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	if s.cfg.TLS.CertFile != "" {
		certs, err := s.certificates()
		if err != nil {
			return err
		}
		srv.TLSConfig = certs
		ln = tls.NewListener(ln, certs)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	done := make(chan struct{})
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	go func() { defer close(done); s.housekeeping(background) }()
	defer func() { stop(); <-done }()

	for {
		select {
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case <-hup:
			s.onReload(reload)
		case <-ctx.Done():
			s.draining.Store(true)
			s.log.Info("draining: no new requests, those in flight may finish", "at_most", drainTime)
			last, cancel := context.WithTimeout(background, drainTime)
			defer cancel()
			if err := srv.Shutdown(last); err != nil {
				return fmt.Errorf("some requests did not finish in %s: %w", drainTime, err)
			}
			return nil
		}
	}
}

func (s *Server) onReload(reload func() (*Config, error)) {
	if reload == nil {
		return
	}
	next, err := reload()
	if err == nil {
		err = s.Reload(next)
	}
	if err != nil {
		s.log.Error("reload refused; everything stays as it was", "error", err)
		return
	}
	s.log.Info("reloaded: policy, resources, certificates", "cimd", s.directory.Enabled())
}

// Reload puts the policy, the resources and the CIMD switch of another
// configuration in force, and reads the certificates again. Whatever else differs
// needs a restart: then the error names it, and nothing changes.
func (s *Server) Reload(next *Config) error {
	if keys := needRestart(s.cfg, next); len(keys) > 0 {
		return fmt.Errorf("%s: this changes with a restart only", strings.Join(keys, ", "))
	}
	set, err := next.PolicySet()
	if err != nil {
		return err
	}
	if next.TLS.CertFile != "" && s.cert.Load() != nil {
		pair, err := tls.LoadX509KeyPair(next.path(next.TLS.CertFile), next.path(next.TLS.KeyFile))
		if err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		s.cert.Store(&pair)
	}
	s.directory.SetPolicy(set)
	s.directory.SetEnabled(next.CIMD.Enabled)
	return nil
}

// certificates returns a TLS configuration that follows Reload.
func (s *Server) certificates() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(s.cfg.path(s.cfg.TLS.CertFile), s.cfg.path(s.cfg.TLS.KeyFile))
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	s.cert.Store(&pair)
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert.Load(), nil },
	}, nil
}

// certificate is the pair in use.
type certificate = atomic.Pointer[tls.Certificate]
