package store

import (
	"context"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// Policy is one revision of the rules that all replicas follow, numbered from 1.
type Policy struct {
	Revision int64
	Body     []byte
	Digest   string // of Body, as its author computes it
	At       time.Time
}

// NewestPolicy returns the policy in force. ErrNotFound: none was published.
func (s *Store) NewestPolicy(ctx context.Context) (Policy, error) {
	var p Policy
	err := s.get(ctx, p.columns(), newestPolicy)
	if err != nil {
		return Policy{}, wrap("find policy", err)
	}
	return p, nil
}

const newestPolicy = `SELECT revision, body, digest, at FROM policies ORDER BY revision DESC LIMIT 1`

func (p *Policy) columns() []any {
	return []any{&p.Revision, &p.Body, &p.Digest, instant{&p.At}}
}

// PublishPolicy puts a policy in force for all replicas and records the events.
// If it is in force already nothing changes. It returns the policy in force.
func (s *Store) PublishPolicy(ctx context.Context, p Policy, now time.Time, events ...audit.Event) (Policy, error) {
	return s.publish(ctx, p, now, func(*tx) (bool, error) { return true, nil }, events)
}

// OfferPolicy is PublishPolicy for somebody who does not know whether theirs is
// the newest: a policy that was ever published before changes nothing. It returns
// the policy in force, which then is another one.
func (s *Store) OfferPolicy(ctx context.Context, p Policy, now time.Time, events ...audit.Event) (Policy, error) {
	return s.publish(ctx, p, now, func(t *tx) (bool, error) {
		var one int
		err := t.get([]any{&one}, `SELECT 1 FROM policies WHERE digest = $1 LIMIT 1`, p.Digest)
		if errors.Is(err, ErrNotFound) {
			return true, nil
		}
		return false, err
	}, events)
}

func (s *Store) publish(ctx context.Context, p Policy, now time.Time, may func(*tx) (bool, error), events []audit.Event) (Policy, error) {
	if p.Digest == "" || len(p.Body) == 0 {
		return Policy{}, errors.New("publish policy: a body and its digest are required")
	}
	var out Policy
	err := s.write(ctx, func(t *tx) error {
		out = Policy{}
		err := t.get(out.columns(), newestPolicy)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if out.Digest == p.Digest {
			return nil
		}
		if ok, err := may(t); err != nil || !ok {
			return err
		}
		p.Revision, p.At = out.Revision+1, now
		out = p
		if _, err := t.exec(`INSERT INTO policies (revision, body, digest, at) VALUES ($1, $2, $3, $4)`, p.Revision, p.Body, p.Digest, micros(now)); err != nil {
			return err
		}
		if err := t.touch(TopicPolicy); err != nil {
			return err
		}
		return t.record(now, events...)
	})
	if err != nil {
		return Policy{}, wrap("publish policy", err)
	}
	return out, nil
}
