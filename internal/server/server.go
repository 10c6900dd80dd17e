package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/authorize"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/token"
	"github.com/bonafide-id/bonafide/internal/web"
)

// Options are what a program that embeds the server may replace. The daemon
// leaves them empty; tests and the demo bring their own clock and network. The
// address guard stays in force over whatever Egress returns.
type Options struct {
	Logger  *slog.Logger
	Now     func() time.Time
	Observe func(audit.Event) // sees every audit event, in order
	Egress  *cimd.Egress      // Lookup, Dial and RootCAs replace the network's
}

// Server is the whole authorization server.
type Server struct {
	cfg  *Config
	opts Options
	log  *slog.Logger

	store     *store.Store
	audit     *audit.Log
	edge      *web.Edge
	directory *directory.Directory
	keys      *keyring.Ring
	login     *login.Login
	authorize *authorize.Handler
	token     *token.Handler
	mux       *http.ServeMux
	cert      certificate
	draining  atomic.Bool
}

// New opens the store and builds every room once. The configuration must have
// come from Load or Parse.
func New(ctx context.Context, cfg *Config, opts Options) (_ *Server, err error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{cfg: cfg, opts: opts, log: opts.Logger}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	master, err := readKey(cfg.path(cfg.KeyFile))
	if err != nil {
		return nil, err
	}
	if s.store, err = store.Open(ctx, store.Config{Path: cfg.path(cfg.Store), Logger: s.log, Now: opts.Now}); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if s.audit, err = audit.New(audit.Config{Sink: s.store, Observe: opts.Observe, Now: opts.Now, Logger: s.log}); err != nil {
		return nil, err
	}
	if err := s.buildFloors(ctx, master); err != nil {
		return nil, err
	}
	return s, s.buildEndpoints(master)
}

// buildFloors builds what the endpoints stand on.
func (s *Server) buildFloors(ctx context.Context, master []byte) (err error) {
	cfg := s.cfg
	set, err := cfg.PolicySet()
	if err != nil {
		return err
	}
	if s.edge, err = web.NewEdge(web.EdgeConfig{
		Issuer: cfg.Issuer, TrustedProxies: cfg.TrustedProxies, Refused: s.refused,
		Logger: s.log, Now: s.opts.Now, Brand: web.Brand{Name: cfg.Brand.Name, LogoPath: cfg.path(cfg.Brand.Logo)},
	}); err != nil {
		return err
	}
	rc, err := s.resolverConfig()
	if err != nil {
		return err
	}
	reserved := []string{cfg.Issuer}
	for _, r := range set.Resources {
		reserved = append(reserved, r.ID)
	}
	if s.directory, err = directory.New(directory.Config{
		Store: s.store, Policy: set, CIMD: rc, Enabled: cfg.CIMD.Enabled,
		Reserved: reserved, Logger: s.log, Now: s.opts.Now,
	}); err != nil {
		return err
	}
	s.keys, err = keyring.New(ctx, keyring.Config{
		Issuer: cfg.Issuer, Alg: cfg.Tokens.SigningAlg, Store: s.store,
		WrapKey: web.DeriveKey(master, "signing keys"), Now: s.opts.Now,
		TokenLife: cfg.Tokens.Access, Audit: s.audit,
	})
	return err
}

// resolverConfig turns the cimd section of the configuration into the library's.
func (s *Server) resolverConfig() (cimd.Config, error) {
	c := s.cfg.CIMD
	ports := append([]uint16{443}, c.Ports...)
	egress := cimd.Egress{Ports: ports, Deny: append(ownAddress(s.cfg.Listen), c.Egress.Deny...), Private: c.Egress.PrivateURLs, Loopback: s.cfg.Dev}
	if c.Egress.Proxy != "" {
		u, err := url.Parse(c.Egress.Proxy)
		if err != nil || u.Host == "" {
			return cimd.Config{}, fmt.Errorf("cimd.egress.proxy: %s is not a URL", c.Egress.Proxy)
		}
		egress.Proxy = u
	}
	if c.Egress.CAFile != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return cimd.Config{}, err
		}
		pem, err := os.ReadFile(s.cfg.path(c.Egress.CAFile))
		if err != nil {
			return cimd.Config{}, fmt.Errorf("cimd.egress.ca_file: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return cimd.Config{}, fmt.Errorf("cimd.egress.ca_file: %s holds no certificate", c.Egress.CAFile)
		}
		egress.RootCAs = pool
	}
	if o := s.opts.Egress; o != nil {
		egress.Lookup, egress.Dial, egress.RootCAs = o.Lookup, o.Dial, o.RootCAs
	}
	return cimd.Config{
		Profile: cimd.Profile(c.Profile),
		URL: cimd.URLRules{
			AllowQuery: c.AllowQuery, AllowRootPath: c.AllowRootPath, AllowTestNames: c.AllowTestNames,
			Loopback: s.cfg.Dev, Ports: ports,
		},
		Egress: egress,
		Limits: cimd.Limits{
			DocumentBytes: c.DocumentBytes, JWKSBytes: c.JWKSBytes, LogoBytes: c.LogoBytes, Timeout: c.Timeout,
			Freshness:     cimd.FreshnessLimits{Floor: c.Cache.Floor, Ceiling: c.Cache.Ceiling, Default: c.Cache.Default},
			LastKnownGood: c.Cache.LastKnownGood,
		},
		Observe: s.resolved, Now: s.opts.Now,
	}, nil
}

// ownAddress returns the address of the listener where it names one, so that a
// document cannot make the server call itself (SD-33). Loopback is refused anyway.
func ownAddress(listen string) []netip.Prefix {
	at, err := netip.ParseAddrPort(listen)
	if err != nil || at.Addr().IsUnspecified() || at.Addr().IsLoopback() {
		return nil
	}
	a := at.Addr().Unmap().WithZone("")
	return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
}

// Close ends what New began. It waits for audit events that are still queued.
func (s *Server) Close() {
	if s.directory != nil {
		s.directory.Resolver().Close()
	}
	if s.audit != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.audit.Close(ctx); err != nil {
			s.log.Error("audit events were lost at the end", "error", err)
		}
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("close the store", "error", err)
		}
	}
}

// refused notes a refusal of the edge, without making a stranger wait for the disk.
// A failed client authentication is noted where it failed, with the check that
// failed, under the same reference (CAUTH-17).
func (s *Server) refused(r web.Refused) {
	if r.Rule == "CAUTH-17" {
		return
	}
	s.audit.Note(audit.Event{
		Time: r.Time, Type: "refusal", Ref: r.Ref, Client: r.Client, IP: r.IP, Rule: r.Rule, Code: r.Code,
		Data: map[string]string{"method": r.Method, "path": r.Path, "status": strconv.Itoa(r.Status)},
	})
}

// resolved notes what the resolver did: fetches, refusals, changes.
func (s *Server) resolved(ctx context.Context, e cimd.Event) {
	data := map[string]string{"event": e.Type, "url": e.URL, "took": e.Duration.Round(time.Millisecond).String()}
	if e.Status != 0 {
		data["status"] = strconv.Itoa(e.Status)
	}
	if e.Freshness.Reason != "" {
		data["freshness"] = e.Freshness.Reason
	}
	if e.Kind != "" {
		data["kind"] = string(e.Kind)
	}
	if e.Err != nil {
		data["error"] = e.Err.Error()
	}
	s.audit.Note(audit.Event{
		Time: s.opts.Now(), Type: "fetch", Ref: web.Ref(ctx), Client: e.ID.String(), Rule: e.Rule, Data: data,
	})
}

func itoa(n int) string { return strconv.Itoa(n) }
