package server

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/web"
	"go.yaml.in/yaml/v3"
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
	if err := s.configured(ctx, "started", s.inForce()); err != nil {
		return err
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
	if _, err := next.PolicySet(); err != nil {
		return err
	}
	var err error
	pair := s.cert.Load()
	if pair != nil {
		read, err := next.certificate()
		if err != nil {
			return err
		}
		pair = &read
	}
	if s.cfg.shared() {
		err = s.publish(context.Background(), next)
	} else {
		err = s.enforce(context.Background(), "reloaded", next)
	}
	if err == nil {
		s.cert.Store(pair)
	}
	return err
}

// enforce puts the policy, the resources and the CIMD switch of a configuration
// in force.
func (s *Server) enforce(ctx context.Context, why string, next *Config) error {
	set, err := next.PolicySet()
	if err != nil {
		return err
	}
	if err := s.configured(ctx, why, next); err != nil {
		return err
	}
	s.directory.SetPolicy(set)
	s.directory.SetEnabled(next.CIMD.Enabled)
	return nil
}

// configured records which rules are in force from now on (POL-07).
func (s *Server) configured(ctx context.Context, why string, c *Config) error {
	text, err := yaml.Marshal(struct {
		CIMD      bool
		Policy    PolicyConfig
		Resources []ResourceConfig
	}{c.CIMD.Enabled, c.Policy, c.Resource})
	if err != nil {
		return fmt.Errorf("record the configuration: %w", err)
	}
	sum := sha256.Sum256(text)
	err = s.audit.Record(ctx, audit.Event{Time: s.opts.Now(), Type: audit.TypeConfig, Code: why, Data: map[string]string{
		"cimd": strconv.FormatBool(c.CIMD.Enabled), "default": c.Policy.Default, "rules": strconv.Itoa(len(c.Policy.Rules)),
		"resources": strconv.Itoa(len(c.Resource)), "digest": hex.EncodeToString(sum[:16]),
	}})
	if err != nil {
		return fmt.Errorf("record the configuration: %w", err)
	}
	return nil
}

// certificates returns a TLS configuration that follows Reload.
func (s *Server) certificates() (*tls.Config, error) {
	pair, err := s.cfg.certificate()
	if err != nil {
		return nil, err
	}
	s.cert.Store(&pair)
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert.Load(), nil },
	}
	s.cfg.askForCertificates(config)
	return config, nil
}

// certificate reads the pair that the configuration names.
func (c *Config) certificate() (tls.Certificate, error) {
	chain, err := os.ReadFile(c.path(c.TLS.CertFile))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls.cert_file: %w", err)
	}
	key, err := os.ReadFile(c.path(c.TLS.KeyFile))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls.key_file: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return pair, fmt.Errorf("tls.cert_file and tls.key_file: %s", strings.TrimPrefix(err.Error(), "tls: "))
	}
	return pair, nil
}

// certificate is the pair in use.
type certificate = atomic.Pointer[tls.Certificate]
