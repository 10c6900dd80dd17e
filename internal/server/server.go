package server

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/authorize"
	"github.com/bonafide-id/bonafide/internal/backchannel"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/register"
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

	aside bool // a command beside the running server: it publishes and watches nothing
}

func (o Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
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
	notices   *backchannel.Notifier
	egress    cimd.Egress
	authorize *authorize.Handler
	clients   *clientauth.Authenticator
	token     *token.Handler
	register  *register.Handler // nil where no client may register itself
	mux       *http.ServeMux
	cert      certificate
	draining  atomic.Bool

	watching sync.WaitGroup
	unwatch  context.CancelFunc

	turn     sync.Mutex // guards what follows
	rules    *Config    // with the policy in force
	file     string     // digest of the policy that was last read from the file
	revision int64      // of the policy in force, where replicas share one
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
	if err := cfg.CheckFolder(); err != nil {
		return nil, err
	}
	if s.store, err = store.Open(ctx, store.Config{Path: cfg.StorePath(), Logger: s.log, Now: opts.Now}); err != nil {
		return nil, cfg.NotOpened(err)
	}
	if s.audit, err = audit.New(audit.Config{Sink: s.store, Observe: opts.Observe, Now: opts.Now, Logger: s.log}); err != nil {
		return nil, err
	}
	if err := s.buildFloors(ctx, master); err != nil {
		return nil, err
	}
	if err := s.buildEndpoints(master); err != nil {
		return nil, err
	}
	if !opts.aside {
		var background context.Context
		background, s.unwatch = context.WithCancel(context.WithoutCancel(ctx))
		s.watching.Go(func() { s.watch(background) })
	}
	return s, nil
}

// buildFloors builds what the endpoints stand on.
func (s *Server) buildFloors(ctx context.Context, master []byte) (err error) {
	cfg := s.cfg
	rules, err := s.settle(ctx)
	if err != nil {
		return err
	}
	s.rules = rules
	set, err := rules.PolicySet()
	if err != nil {
		return err
	}
	if s.edge, err = web.NewEdge(web.EdgeConfig{
		Issuer: cfg.Issuer, TrustedProxies: cfg.TrustedProxies, Refused: s.refused,
		Logger: s.log, Now: s.opts.Now, Brand: web.Brand{Name: cfg.Brand.Name, LogoPath: cfg.path(cfg.Brand.Logo)},
	}); err != nil {
		return err
	}
	rc, err := cfg.Resolver()
	if err != nil {
		return err
	}
	if o := s.opts.Egress; o != nil {
		rc.Egress.Lookup, rc.Egress.Dial, rc.Egress.RootCAs = o.Lookup, o.Dial, o.RootCAs
	}
	rc.Observe, rc.Now = s.resolved, s.opts.Now
	s.egress = rc.Egress
	if s.directory, err = directory.New(directory.Config{
		Store: s.store, Policy: set, CIMD: rc, Enabled: rules.CIMD.Enabled,
		Reserved: []string{cfg.Issuer}, Logger: s.log, Now: s.opts.Now,
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

// Close ends what New began. It waits for audit events that are still queued.
func (s *Server) Close() {
	if s.unwatch != nil {
		s.unwatch()
		s.watching.Wait()
	}
	if s.notices != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.notices.Close(ctx)
	}
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
	kind := audit.TypeFetch
	if e.Type == cimd.EventChanged {
		// Every change of a document leaves a trace: which members, from what to
		// what. A change that people consented to makes them be asked again.
		kind = audit.TypeChange
		data["members"] = strings.Join(e.Members, " ")
		data["old_digest"], data["new_digest"] = e.OldDigest, e.NewDigest
	}
	ev := audit.Event{Time: s.opts.Now(), Type: kind, Ref: web.Ref(ctx), Client: e.ID.String(), Rule: e.Rule, Data: data}
	if ip := web.ClientIP(ctx); ip.IsValid() { // for whom it was fetched
		ev.IP = ip.String()
	}
	s.audit.Note(ev)
}

func itoa(n int) string { return strconv.Itoa(n) }

// RotateKeys publishes the next signing key now, as an operator's decision.
func (s *Server) RotateKeys(ctx context.Context) error { return s.keys.Rotate(ctx) }

// RotateKeys does so from beside the running server, which sees it at once, or
// within a few seconds where the store is a file.
func RotateKeys(ctx context.Context, cfg *Config) error {
	s, err := New(ctx, cfg, Options{Logger: slog.New(slog.DiscardHandler), aside: true})
	if err != nil {
		return err
	}
	defer s.Close()
	return s.keys.Rotate(ctx)
}
