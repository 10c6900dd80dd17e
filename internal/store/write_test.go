package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// hold occupies the writer until the returned function is called.
func hold(t *testing.T, s *Store) (release func() error) {
	t.Helper()
	started, gate, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var once sync.Once // a change may run several times
	go func() {
		done <- s.write(context.Background(), func(*tx) error {
			once.Do(func() { close(started) })
			<-gate
			return nil
		})
	}()
	<-started
	return func() error {
		close(gate)
		return <-done
	}
}

// untilQueued lets the callers that were started get into the queue.
func untilQueued(s *Store, n int) {
	for s.Stats().Queued < n {
		runtime.Gosched()
	}
}

func TestWriter(t *testing.T) {
	t.Run("waiting changes share one commit", func(t *testing.T) {
		s := open(t)
		seed(t, s)
		release := hold(t, s)
		before := s.Stats()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if err := s.SpendID(t.Context(), "x", HashOf(fmt.Sprint(i)), noon, noon); err != nil {
					t.Error(err)
				}
			})
		}
		untilQueued(s, 100)
		if err := release(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		after := s.Stats()
		if jobs, commits := after.Jobs-before.Jobs, after.Commits-before.Commits; jobs != 101 || commits > 2 {
			t.Errorf("%d changes in %d commits", jobs, commits)
		}
	})
	t.Run("a caller that leaves the queue is dropped, one that was served is not", func(t *testing.T) {
		s := open(t)
		release := hold(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- s.SpendID(ctx, "x", HashOf("left"), noon, noon) }()
		untilQueued(s, 1)
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := release(); err != nil {
			t.Fatal(err)
		}
		if err := s.SpendID(t.Context(), "x", HashOf("left"), noon, noon); err != nil {
			t.Errorf("a dropped change was carried out: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		err := s.write(ctx, func(tx *tx) error {
			cancel() // while it runs
			_, err := tx.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ($1, $2)`, "served", 1)
			return err
		})
		if denied, derr := s.TokenDenied(t.Context(), "served"); err != nil || derr != nil || !denied {
			t.Errorf("%v, %v, %v: a change that ran must stand and be reported", err, denied, derr)
		}
	})
	t.Run("a full queue lets callers wait and leave", func(t *testing.T) {
		s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "x.db"), Queue: 1})
		if err != nil {
			t.Fatal(err)
		}
		release := hold(t, s)
		queued := make(chan error, 1)
		go func() { queued <- s.SpendID(t.Context(), "x", HashOf("1"), noon, noon) }()
		untilQueued(s, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := s.SpendID(ctx, "x", HashOf("2"), noon, noon); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if err := errors.Join(release(), <-queued, s.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Run("Close carries out what waits and refuses what comes later", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		s := openAt(t, path)
		release := hold(t, s)
		results := make(chan error, 50)
		for i := range 50 {
			go func() { results <- s.SpendID(context.Background(), "x", HashOf(fmt.Sprint(i)), noon, noon) }()
		}
		untilQueued(s, 50)
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		<-s.closing
		if err := s.SpendID(t.Context(), "x", HashOf("late"), noon, noon); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		if err := errors.Join(release(), <-closed); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("a panic in one change is its own error", func(t *testing.T) {
		s := open(t)
		release := hold(t, s)
		bad, good := make(chan error, 1), make(chan error, 1)
		go func() {
			bad <- s.write(context.Background(), func(tx *tx) error {
				_, _ = tx.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ($1, $2)`, "half", 1)
				panic("oh")
			})
		}()
		go func() { good <- s.SpendID(context.Background(), "x", HashOf("1"), noon, noon) }()
		untilQueued(s, 2)
		if err := errors.Join(release(), <-good); err != nil {
			t.Error(err)
		}
		if err := <-bad; err == nil || !strings.Contains(err.Error(), "panic") {
			t.Errorf("got %v", err)
		}
		if denied, err := s.TokenDenied(t.Context(), "half"); denied || err != nil {
			t.Errorf("half a change stands: %v, %v", denied, err)
		}
	})
	t.Run("events of a failed change leave the chain whole", func(t *testing.T) { chainOfFailures(t, open(t)) })
}

func TestFailedCommit(t *testing.T) {
	// A foreign key that is checked at the end makes COMMIT itself fail.
	poison := func(tx *tx) error {
		for _, q := range []string{`PRAGMA defer_foreign_keys = ON`,
			`INSERT INTO documents (client_id, version, body, digest, security_digest, auth_methods, fetched_at) VALUES ('nobody', 1, x'00', '', '', '', 1)`} {
			if _, err := tx.exec(q); err != nil {
				return err
			}
		}
		return nil
	}
	t.Run("attack RF-09: when the commit fails, everybody is told and nothing stands", func(t *testing.T) {
		s := open(t)
		seed(t, s)
		family(t, s, "f")
		release := hold(t, s)
		rotated, poisoned := make(chan error, 1), make(chan error, 1)
		r := Rotation{Old: refOf("f", 1), New: tokenOf("f", 2), Events: []audit.Event{{Type: audit.TypeRefresh}}}
		go func() { rotated <- s.RotateRefresh(context.Background(), r, noon) }()
		go func() { poisoned <- s.write(context.Background(), poison) }()
		untilQueued(s, 2)
		if err := release(); err == nil {
			t.Error("the change that was in the same commit was told that it stands")
		}
		for name, c := range map[string]chan error{"rotation": rotated, "poison": poisoned} {
			if err := <-c; err == nil || errors.Is(err, ErrSpent) || errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, _, err := s.FindRefresh(t.Context(), refOf("f", 2), noon); !errors.Is(err, ErrNotFound) {
			t.Errorf("the successor is live: %v", err)
		}
		if err := s.RotateRefresh(t.Context(), r, noon); err != nil {
			t.Errorf("the old token is dead: %v", err)
		}
		if _, broken, err := s.VerifyEvents(t.Context()); broken != 0 || err != nil {
			t.Errorf("%d broken, %v", broken, err)
		}
	})
	t.Run("mistake 40: a transaction that has to be run again is, and the token is not lost", func(t *testing.T) {
		s := open(t)
		seed(t, s)
		grant := family(t, s, "f")
		busy := busyError(t, s)
		later := micros(noon.Add(time.Hour))
		runs := 0
		err := s.write(t.Context(), func(tx *tx) error {
			if n, err := tx.exec(rotate, grant, 1, refOf("f", 1).Hash, micros(noon), refOf("f", 2).Hash, refOf("f", 2).Family, later, later, nil); err != nil || n != 1 {
				return fmt.Errorf("%d rows, %w", n, err)
			}
			if runs++; runs < 3 {
				return busy
			}
			return nil
		})
		if err != nil || runs != 3 || s.Stats().Retries != 2 {
			t.Errorf("%d runs, %+v, %v", runs, s.Stats(), err)
		}
		if _, _, err := s.FindRefresh(t.Context(), refOf("f", 2), noon); err != nil {
			t.Errorf("the successor: %v", err)
		}
		runs = 0
		err = s.write(t.Context(), func(*tx) error { runs++; return busy })
		if err == nil || runs != maxRuns {
			t.Errorf("%d runs, %v", runs, err)
		}
		if err := s.SpendID(t.Context(), "x", HashOf("1"), noon, noon); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// busyError makes SQLite say that it is busy.
func busyError(t *testing.T, s *Store) error {
	t.Helper()
	path := s.path(t)
	a, b := raw(t, path), raw(t, path)
	if _, err := b.Exec("PRAGMA busy_timeout = 0"); err != nil {
		t.Fatal(err)
	}
	b.SetMaxOpenConns(1)
	if _, err := b.Exec("PRAGMA busy_timeout = 0"); err != nil {
		t.Fatal(err)
	}
	tx, err := a.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	_, busy := b.Exec("BEGIN IMMEDIATE")
	if !transient(busy) {
		t.Fatalf("not busy: %v", busy)
	}
	return fmt.Errorf("wrapped: %w", busy)
}

func TestNoDeadlock(t *testing.T) {
	t.Run("mistake 41: one connection for reading is enough for any number of callers", func(t *testing.T) {
		s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "x.db"), Readers: 1, Queue: 1, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		seed(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for j := range 5 {
					if err := s.SpendID(ctx, "x", HashOf(fmt.Sprint(i, "/", j)), noon, noon); err != nil {
						t.Error(err)
					}
					if _, _, err := s.FindSession(ctx, HashOf("session"), noon); err != nil {
						t.Error(err)
					}
					if _, err := s.Clients(ctx, "", 0); err != nil {
						t.Error(err)
					}
					if _, err := s.Prune(ctx, noon.Add(-time.Hour)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestSweepIsShort(t *testing.T) {
	t.Run("attack DS-13: no step of a sweep takes all", func(t *testing.T) {
		s := open(t)
		const n = 10_000
		err := s.write(t.Context(), func(tx *tx) error {
			for i := range n {
				if _, err := tx.exec(`INSERT INTO consent_nonces (hash, expires_at, used_at) VALUES ($1, $2, $3)`, HashOf(fmt.Sprint(i)), 1, 1); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		before := s.Stats().Commits
		swept, err := s.Prune(t.Context(), noon)
		commits := s.Stats().Commits - before
		if err != nil || swept != n || commits < n/pruneStep {
			t.Errorf("%d rows in %d commits, %v", swept, commits, err)
		}
		// How long a step takes is measured in bench: here it is bounded by its rows,
		// and others get their turn between two steps.
	})
}

func chainOfFailures(t *testing.T, s *Store) {
	t.Helper()
	release := hold(t, s)
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			_ = s.write(context.Background(), func(tx *tx) error {
				if err := tx.record(noon, audit.Event{Type: audit.TypeLogin, User: fmt.Sprint(i)}); err != nil {
					return err
				}
				if i%3 == 0 {
					return errors.New("no")
				}
				return nil
			})
		})
	}
	untilQueued(s, 60)
	if err := release(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if intact, broken, err := s.VerifyEvents(t.Context()); intact != 40 || broken != 0 || err != nil {
		t.Errorf("%d intact, %d broken, %v", intact, broken, err)
	}
}

// TestApart is about changes that fail after they changed something.
func TestApart(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { apart(t, open(t)) })
	t.Run("PostgreSQL", func(t *testing.T) {
		s := openPG(t)
		apart(t, s)
		chainOfFailures(t, s)
		unkept(t, s)
	})
}

// unkept: events wait for the end of a transaction. One that the database does not
// take fails its own change, whatever it waits with.
func unkept(t *testing.T, s *Store) {
	t.Helper()
	release := hold(t, s)
	bad, good := make(chan error, 1), make(chan error, 1)
	go func() {
		bad <- s.write(context.Background(), func(tx *tx) error { return tx.keep([]entry{{Event: audit.Event{Ref: "\x00"}, line: []byte("{}")}}) })
	}()
	go func() {
		good <- s.SpendID(context.Background(), "x", HashOf("good"), noon, noon)
	}()
	untilQueued(s, 2)
	if err := errors.Join(release(), <-good); err != nil {
		t.Error(err)
	}
	if err := <-bad; err == nil || errors.Is(err, errApart) {
		t.Errorf("got %v", err)
	}
	if _, broken, err := s.VerifyEvents(t.Context()); broken != 0 || err != nil {
		t.Errorf("%d broken, %v", broken, err)
	}
}

func apart(t *testing.T, s *Store) {
	runs := 0
	failing := func(tx *tx) error {
		runs++
		if _, err := tx.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ($1, $2)`, "half", 1); err != nil {
			return err
		}
		if err := tx.record(noon, audit.Event{Type: audit.TypeLogin}); err != nil {
			return err
		}
		return errors.New("no")
	}
	fails := func() int {
		runs = 0
		if err := s.write(t.Context(), failing); err == nil || err.Error() != "no" {
			t.Errorf("got %v", err)
		}
		return runs
	}
	if n := fails(); n != 2 {
		t.Errorf("the first ran %d times: all of its transaction is run again, to undo it alone", n)
	}
	for i := range apartFor - 1 {
		if n := fails(); n != 1 {
			t.Fatalf("number %d after it ran %d times: it had a savepoint", i, n)
		}
	}
	if n := fails(); n != 2 {
		t.Errorf("later it ran %d times: without need there are no savepoints", n)
	}
	for range apartFor {
		if err := s.SpendID(t.Context(), "x", HashOf(fmt.Sprint(t.Name(), s.jobs.Load())), noon, noon); err != nil {
			t.Fatal(err)
		}
	}
	refused := 0
	for range 3 { // it fails before it changes anything
		err := s.write(t.Context(), func(tx *tx) error {
			refused++
			var one int
			_ = tx.get([]any{&one}, `SELECT 1 FROM denied_tokens WHERE jti = $1`, "nobody")
			if n, err := tx.exec(`DELETE FROM denied_tokens WHERE jti = $1`, "nobody"); n != 0 || err != nil {
				t.Errorf("%d rows, %v", n, err)
			}
			return ErrNotFound
		})
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
	}
	if refused != 3 {
		t.Errorf("three refusals ran %d times", refused)
	}
	if denied, err := s.TokenDenied(t.Context(), "half"); denied || err != nil {
		t.Errorf("half a change stands: %v, %v", denied, err)
	}
	if intact, broken, err := s.VerifyEvents(t.Context()); intact != 0 || broken != 0 || err != nil {
		t.Errorf("%d events, %d broken, %v", intact, broken, err)
	}
	if s.Stats().Retries == 0 {
		t.Error("nobody counts what was run again")
	}
}
