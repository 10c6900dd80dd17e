package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"go.yaml.in/yaml/v3"
)

// Replicas on one PostgreSQL follow one policy, whatever stands in the file of
// each: what a reload may change is a revision in the database, and the newest
// counts. On SQLite the file is the truth.

// shared reports whether there may be other replicas.
func (c *Config) shared() bool { return store.Shared(c.Store) }

// checkStore refuses an address that cannot be read.
func (c *Config) checkStore() error {
	if c.Store == "" {
		return errors.New("store: give the path of an SQLite file, or a postgres:// address")
	}
	if !c.shared() {
		return checkStorePath(c.Store)
	}
	if err := store.CheckAddress(c.Store); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// rulebook is the part of a configuration that is published.
type rulebook struct {
	CIMD            bool             `yaml:"cimd"`
	DefaultResource string           `yaml:"default_resource"`
	RequireResource bool             `yaml:"require_resource"`
	Resources       []ResourceConfig `yaml:"resources"`
	Policy          PolicyConfig     `yaml:"policy"`
}

// rulebook returns what is published of the configuration.
func (c *Config) rulebook() (store.Policy, error) {
	body, err := yaml.Marshal(rulebook{c.CIMD.Enabled, c.DefaultResource, c.RequireResource, c.Resource, c.Policy})
	if err != nil {
		return store.Policy{}, fmt.Errorf("publish the policy: %w", err)
	}
	sum := sha256.Sum256(body)
	return store.Policy{Body: body, Digest: hex.EncodeToString(sum[:])}, nil
}

// under returns the configuration with a published policy in it, checked. One
// that a newer program published may hold what this one does not know.
func (c *Config) under(p store.Policy) (*Config, error) {
	var b rulebook
	dec := yaml.NewDecoder(bytes.NewReader(p.Body))
	dec.KnownFields(true)
	if err := dec.Decode(&b); err != nil {
		return nil, fmt.Errorf("read revision %d of the policy: %s", p.Revision, inWords(err.Error()))
	}
	next := *c
	next.CIMD.Enabled, next.DefaultResource, next.RequireResource, next.Resource, next.Policy = b.CIMD, b.DefaultResource, b.RequireResource, b.Resources, b.Policy
	if _, err := next.PolicySet(); err != nil {
		return nil, fmt.Errorf("read revision %d of the policy: %w", p.Revision, err)
	}
	return &next, nil
}

// settle returns the configuration to start with. A policy that nobody knows yet
// is published; one that is older than the newest gives way to it.
func (s *Server) settle(ctx context.Context) (*Config, error) {
	if !s.cfg.shared() {
		return s.cfg, nil
	}
	mine, err := s.cfg.rulebook()
	if err != nil {
		return nil, err
	}
	var newest store.Policy
	if s.opts.aside {
		if newest, err = s.store.NewestPolicy(ctx); errors.Is(err, store.ErrNotFound) {
			return s.cfg, nil
		}
	} else {
		newest, err = s.store.OfferPolicy(ctx, mine, s.opts.Now(), publishing(mine))
	}
	if err != nil {
		return nil, err
	}
	s.file, s.revision = mine.Digest, newest.Revision
	if newest.Digest == mine.Digest {
		return s.cfg, nil
	}
	s.log.Warn("the policy in the configuration file is an older one; the newest that was published is in force", "revision", newest.Revision, "since", newest.At)
	return s.cfg.under(newest)
}

// publishing is the event of a policy that is published.
func publishing(p store.Policy) audit.Event {
	return audit.Event{Type: audit.TypeConfig, Code: "published", Data: map[string]string{"digest": p.Digest}}
}

// publish publishes the policy of a configuration that was read again, unless it
// is the one that stood in the file before: a signal because of new certificates
// must not bring an old policy back.
func (s *Server) publish(ctx context.Context, next *Config) error {
	mine, err := next.rulebook()
	if err != nil {
		return err
	}
	s.turn.Lock()
	known := s.file == mine.Digest
	s.turn.Unlock()
	if !known {
		if _, err := s.store.PublishPolicy(ctx, mine, s.opts.Now(), publishing(mine)); err != nil {
			return err
		}
		s.turn.Lock()
		s.file = mine.Digest
		s.turn.Unlock()
	}
	return s.follow(ctx)
}

// follow puts the newest policy in force if it is not.
func (s *Server) follow(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	newest, err := s.store.NewestPolicy(ctx)
	if err != nil {
		return err
	}
	if newest.Revision == s.revision {
		return nil
	}
	next, err := s.cfg.under(newest)
	if err != nil {
		return err
	}
	if err := s.enforce(ctx, "adopted", next); err != nil {
		return err
	}
	s.rules, s.revision = next, newest.Revision
	s.log.Info("another policy is in force", "revision", newest.Revision, "since", newest.At)
	return nil
}

// inForce returns the configuration with the policy in force.
func (s *Server) inForce() *Config {
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.rules
}

// watch follows what other replicas and the command line change, until ctx ends.
// Clients, users and sessions are read from the store on each request and need
// no more.
func (s *Server) watch(ctx context.Context) {
	s.store.Watch(ctx, func(topic string) {
		var err error
		switch topic {
		case store.TopicKeys:
			err = s.keys.Tick(ctx)
		case store.TopicPolicy:
			err = s.follow(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("cannot follow a change; housekeeping tries again", "topic", topic, "error", err)
		}
	})
}

// ApplyPolicy publishes the policy and the resources of a configuration for all
// replicas on its database. It returns their revision, and whether it is new.
func ApplyPolicy(ctx context.Context, cfg *Config, o Options) (revision int64, published bool, err error) {
	if !cfg.shared() {
		return 0, false, errors.New("the store is a file of SQLite: the server goes by its configuration file; send it SIGHUP")
	}
	mine, err := cfg.rulebook()
	if err != nil {
		return 0, false, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s, err := store.Open(ctx, store.Config{Path: cfg.StorePath(), Logger: o.Logger, Now: o.Now})
	if err != nil {
		return 0, false, cfg.NotOpened(err)
	}
	defer s.Close()
	before, err := s.NewestPolicy(ctx)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, false, err
	}
	in, err := s.PublishPolicy(ctx, mine, o.now(), publishing(mine))
	return in.Revision, in.Revision != before.Revision, err
}
