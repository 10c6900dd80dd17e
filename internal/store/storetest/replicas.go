package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
)

// Replicas is what replicas tell each other.
type Replicas interface {
	Watch(ctx context.Context, each func(topic string))
	NewestPolicy(context.Context) (store.Policy, error)
	PublishPolicy(ctx context.Context, p store.Policy, now time.Time, events ...audit.Event) (store.Policy, error)
	OfferPolicy(ctx context.Context, p store.Policy, now time.Time, events ...audit.Event) (store.Policy, error)
}

// replicaChecks are the clauses about several programs on one database.
var replicaChecks = []Check{
	{"what one handle changes, those who watch another are told", func(ctx context.Context, h *House) error {
		other, err := h.Reopen()
		if err != nil {
			return err
		}
		key := store.SigningKey{KID: "k", Alg: "ES256", Wrapped: []byte("x"), Created: Noon, Publish: Noon, Sign: Noon}
		for _, change := range []struct {
			topic string
			do    func(Store) error
		}{
			{store.TopicClients, func(s Store) error { return s.SetClientState(ctx, ClientID, store.StateBlocked, "x", Noon) }},
			{store.TopicKeys, func(s Store) error { return s.AddSigningKey(ctx, key, "") }},
			{store.TopicPolicy, func(s Store) error { return publish(ctx, s) }},
			{store.TopicUsers, func(s Store) error { return s.DisableUser(ctx, User, Noon) }},
		} {
			for name, by := range map[string]Store{"the same handle": h.Store, "another handle": other} {
				if name == "another handle" && change.topic == store.TopicKeys {
					continue // the key is there
				}
				if err := told(ctx, h.Store, change.topic, func() error { return change.do(by) }); err != nil {
					return errors.Join(fmt.Errorf("by %s: %w", name, err), other.Close())
				}
			}
		}
		return other.Close()
	}},
	{"POL-07 a policy is published once, and every handle has the newest", func(ctx context.Context, h *House) error {
		_, err := h.NewestPolicy(ctx)
		if err := is("before", err, store.ErrNotFound); err != nil {
			return err
		}
		other, err := h.Reopen()
		if err != nil {
			return err
		}
		event := audit.Event{Type: audit.TypeConfig, Code: "published"}
		var errs []error
		put := func(s Store, offer bool, text string, revision int64, body string) {
			do := s.PublishPolicy
			if offer {
				do = s.OfferPolicy
			}
			p, err := do(ctx, store.Policy{Body: []byte(text), Digest: "digest of " + text}, Noon, event)
			newest, nerr := h.NewestPolicy(ctx)
			errs = append(errs, err, nerr, same("revision", p.Revision, revision), same("body", string(p.Body), body), same("newest", newest, p))
		}
		put(h.Store, true, "one", 1, "one") // nobody knows it: it is published
		put(other, true, "one", 1, "one")
		put(other, false, "two", 2, "two")
		put(h.Store, true, "one", 2, "two") // an old one changes nothing
		put(h.Store, false, "two", 2, "two")
		put(h.Store, false, "one", 3, "one") // unless somebody insists
		events, err := h.Events(ctx, store.EventQuery{Type: audit.TypeConfig})
		errs = append(errs, err, same("events", len(events), 3), other.Close())
		return errors.Join(errs...)
	}},
	{"POL-07 of many replicas that start at once one publishes", func(ctx context.Context, h *House) error {
		var wg sync.WaitGroup
		errs := make([]error, racers)
		for i := range racers {
			wg.Go(func() {
				p, err := h.OfferPolicy(ctx, store.Policy{Body: []byte("x"), Digest: "x"}, Noon)
				errs[i] = errors.Join(err, same("revision", p.Revision, 1))
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}},
}

// publish puts two policies in force, one after the other: the first is another
// one than that in force, whoever calls.
func publish(ctx context.Context, s Store) error {
	for _, p := range []string{"1", "2"} {
		if _, err := s.PublishPolicy(ctx, store.Policy{Body: []byte(p), Digest: p}, Noon); err != nil {
			return err
		}
	}
	return nil
}

// told checks that who watches a store hears of what is done.
func told(ctx context.Context, s Store, topic string, do func() error) error {
	ctx, stop := context.WithCancel(ctx)
	heard := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func(t string) { heard <- t })
	}()
	defer func() { stop(); <-done }()
	for settled := false; !settled; { // what was changed before is told at first
		select {
		case <-heard:
		case <-time.After(100 * time.Millisecond):
			settled = true
		}
	}
	if err := do(); err != nil {
		return err
	}
	wait := time.After(10 * time.Second)
	for {
		select {
		case t := <-heard:
			if t == topic {
				return nil
			}
		case <-wait:
			return fmt.Errorf("nobody was told of a change of %s", topic)
		}
	}
}
