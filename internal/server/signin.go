package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/backchannel"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/safehttp"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
)

// buildSignIn builds what knows people, and what tells clients when they leave.
func (s *Server) buildSignIn(sealer *web.Sealer) (err error) {
	cfg := s.cfg
	post, err := safehttp.New(s.egressRules())
	if err != nil {
		return err
	}
	if s.notices, err = backchannel.New(backchannel.Config{
		Grants: s.store, Clients: s.directory, Keys: s.keys, Post: post, Audit: s.audit,
		Logger: s.log, Now: s.opts.Now, Life: cfg.Tokens.Access,
	}); err != nil {
		return err
	}
	providers, err := s.upstreams()
	if err != nil {
		return err
	}
	s.login, err = login.New(login.Config{
		Store: s.store, Edge: s.edge, Sealer: sealer, Audit: s.audit, Now: s.opts.Now,
		Idle: cfg.Sessions.Idle, Absolute: cfg.Sessions.Absolute,
		Clients: s.directory, Hints: s.keys, SignedOut: s.notices.SessionEnded, Ended: s.notices.Ended,
		Connected: s.store, Policy: s.directory.Policy, AccessLife: cfg.Tokens.Access,
		Upstreams: providers, Identities: s.store, NoPasswords: !cfg.PasswordSignIn,
	})
	return err
}

// egressRules are the rules for requests to addresses that clients name: the same
// for a logout notice as for a document.
func (s *Server) egressRules() safehttp.Rules {
	e := s.egress
	return safehttp.Rules{
		Ports: e.Ports, Deny: e.Deny, Proxy: e.Proxy, RootCAs: e.RootCAs,
		Private: e.Private, Loopback: e.Loopback, Lookup: e.Lookup, Dial: e.Dial,
	}
}

// EndAccount does what ends the sessions of an account, such as disabling it, and
// tells the clients of those sessions. It is for the command line: the notices
// are tried before it returns, for a few seconds at most.
func EndAccount(ctx context.Context, cfg *Config, opts Options, userID string, do func(context.Context, *store.Store) error) error {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	opts.aside = true // the policy in this file is not published by the way
	s, err := New(ctx, cfg, opts)
	if err != nil {
		return err
	}
	defer s.Close()
	notices, err := s.notices.Of(ctx, userID)
	if err != nil {
		return err
	}
	if err := do(ctx, s.store); err != nil {
		return err
	}
	s.notices.Send(notices)
	return nil
}

// EndAll ends every session and every connection of an account, or with a client
// its connection alone, and returns how many grants ended.
func EndAll(ctx context.Context, s *store.Store, whose store.Whose, now time.Time) (int, error) {
	e := audit.Event{Time: now, Type: audit.TypeRevocation, User: whose.UserID, Client: whose.ClientID, Code: "ended_by_administrator"}
	if whose.ClientID == "" {
		if _, err := s.EndSessionsOf(ctx, whose.UserID, now); err != nil {
			return 0, err
		}
	}
	return s.EndGrantsOf(ctx, whose, "ended by an administrator", now, e)
}
