package store

import (
	"context"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/jackc/pgx/v5"
)

// What can be watched.
const (
	TopicClients = "clients" // a client was registered, changed, blocked, pinned
	TopicUsers   = "users"   // an account was changed, disabled, enabled
	TopicKeys    = "keys"    // a signing key was added or withdrawn
	TopicPolicy  = "policy"  // another policy is in force
)

// topics says which events are about something that is watched: whoever changes
// it records it in the same commit.
var topics = map[audit.Type]string{audit.TypeClient: TopicClients, audit.TypeUser: TopicUsers, audit.TypeKey: TopicKeys}

const (
	channel = "bonafide" // of LISTEN and NOTIFY

	lookAgain   = 2 * time.Second  // how soon a change is seen of which nobody was told
	stillThere  = 30 * time.Second // how often the connection that listens is tried
	listenAgain = time.Second      // pause before listening again
)

// touch notes that something was changed that others watch. They hear of it when
// the transaction is committed.
func (t *tx) touch(topic string) error {
	if topic == "" {
		return nil
	}
	if _, err := t.exec(`INSERT INTO revisions (topic, revision) VALUES ($1, 1)
		ON CONFLICT (topic) DO UPDATE SET revision = revisions.revision + 1`, topic); err != nil {
		return err
	}
	if t.postgres {
		if _, err := t.exec(`SELECT pg_notify($1, $2)`, channel, topic); err != nil {
			return err
		}
	}
	if t.topics == nil {
		t.topics = map[string]struct{}{}
	}
	t.topics[topic] = struct{}{}
	return nil
}

// Watch calls each for every topic that was changed, by this process or by any
// other on the same database, until ctx ends. At first it calls it for every
// topic that was ever changed: what happened before is not missed. Several
// changes may be told as one, and one may be told without need.
//
// A change is told when it is committed; on PostgreSQL replicas tell each other.
// One of which nobody was told, because a connection was lost or the file of
// SQLite was changed by another process, is seen a few seconds later.
func (s *Store) Watch(ctx context.Context, each func(topic string)) {
	wake := s.signals.listen()
	defer s.signals.leave(wake)
	var wg sync.WaitGroup
	defer wg.Wait()
	if s.postgres {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		wg.Go(func() { s.listen(ctx, wake) })
	}
	again := time.NewTicker(s.looks)
	defer again.Stop()
	seen := map[string]int64{}
	var blind sparing
	for {
		err := s.changed(ctx, seen, each)
		if err == nil {
			blind.ended()
		} else if ctx.Err() == nil && !s.closed.Load() && blind.due() {
			s.log.Warn("store: cannot see what was changed elsewhere; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.closing:
			return
		case <-wake:
		case <-again.C:
		}
	}
}

// changed calls each for the topics that have another revision than was seen.
func (s *Store) changed(ctx context.Context, seen map[string]int64, each func(topic string)) error {
	var news []string
	err := s.list(ctx, func(scan func(...any) error) error {
		var topic string
		var revision int64
		err := scan(&topic, &revision)
		if err == nil && seen[topic] != revision {
			seen[topic] = revision
			news = append(news, topic)
		}
		return err
	}, `SELECT topic, revision FROM revisions ORDER BY topic`)
	for _, topic := range news {
		each(topic)
	}
	return wrap("read revisions", err)
}

// listen wakes for each notification of another replica, until ctx ends. A
// connection that was lost is made again.
func (s *Store) listen(ctx context.Context, wake chan<- struct{}) {
	var deaf sparing
	for ctx.Err() == nil {
		err := s.listenOnce(ctx, func() {
			if deaf.ended() {
				s.log.Info("store: changes of other replicas are heard of again")
			}
			poke(wake) // also at first: what was said before is not heard of
		})
		if ctx.Err() != nil {
			return
		}
		if deaf.due() {
			s.log.Warn("store: changes of other replicas are looked up until they can be heard of again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
}

// listenOnce listens on one connection until it is lost. It calls heard once it
// listens and for each notification.
func (s *Store) listenOnce(ctx context.Context, heard func()) error {
	c, err := pgConfig(s.address)
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return err
	}
	defer func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer stop()
		_ = conn.Close(ctx) // it is of no more use either way
	}()
	within, stop := context.WithTimeout(ctx, s.answers)
	_, err = conn.Exec(within, "LISTEN "+channel)
	stop()
	if err != nil {
		return err
	}
	for {
		heard()
		if err := s.hear(ctx, conn); err != nil {
			return err
		}
	}
}

// hear returns when there was a notification. While there is none it makes sure
// that the server is there.
func (s *Store) hear(ctx context.Context, conn *pgx.Conn) error {
	for {
		wait, stop := context.WithTimeout(ctx, s.silence)
		_, err := conn.WaitForNotification(wait)
		quiet := wait.Err() != nil
		stop()
		if err == nil || !quiet || ctx.Err() != nil {
			return err
		}
		try, stop := context.WithTimeout(ctx, s.answers)
		err = conn.Ping(try)
		stop()
		if err != nil {
			return err
		}
	}
}

// sayAgain is how often the log says that something still does not work.
const sayAgain = time.Minute

// sparing is a trouble that the log is told of when it begins, and then only now
// and then: it is looked at far more often.
type sparing struct {
	last time.Time // when it was said
	said bool      // and goes on
}

// due reports whether the trouble is to be said now, and takes it as said.
func (s *sparing) due() bool {
	now := time.Now()
	if !s.last.IsZero() && now.Sub(s.last) < sayAgain {
		return false
	}
	s.last, s.said = now, true
	return true
}

// ended reports, once, whether a trouble that was said is over.
func (s *sparing) ended() bool {
	said := s.said
	s.said = false
	return said
}

// signals wakes those who watch.
type signals struct {
	mu sync.Mutex
	at map[chan struct{}]struct{}
}

// listen returns a channel that is woken from now on.
func (s *signals) listen() chan struct{} {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = map[chan struct{}]struct{}{}
	}
	s.at[c] = struct{}{}
	return c
}

// leave ends what listen began.
func (s *signals) leave(c chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.at, c)
}

// send wakes everybody if there is something to hear of.
func (s *signals) send(topics map[string]struct{}) {
	if len(topics) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.at {
		poke(c)
	}
}

// poke wakes one who listens, unless that has been done.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
