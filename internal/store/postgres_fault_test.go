package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store/pgtest"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestLostConnection(t *testing.T) {
	address := database(t)
	proxy := pgtest.Shared(t).NewProxy(t)
	s := quiet(t, proxy.Through(t, address))
	seed(t, s)
	t.Run("attack FA-07: a commit whose answer is lost is an error, stands, and is never done twice", func(t *testing.T) {
		redeem := func() error {
			_, err := s.RedeemCode(t.Context(), Redemption{Hash: HashOf("code fa07"), Refresh: &NewRefresh{Hash: HashOf("fa07"), Absolute: noon.Add(time.Hour)},
				Events: []audit.Event{{Type: audit.TypeCode}}}, noon)
			return err
		}
		a := Answer{Nonce: HashOf("page fa07"), Session: HashOf("session"), NonceExpires: noon.Add(time.Hour),
			Grant: Grant{ID: "fa07", UserID: "u1", ClientID: benchClient}, Code: Code{Hash: HashOf("code fa07"), Expires: noon.Add(time.Minute)}}
		if err := s.AnswerConsent(t.Context(), a, noon); err != nil {
			t.Fatal(err)
		}
		proxy.CutAfter("; COMMIT")
		if err := redeem(); !errors.Is(err, errOutcome) || !unavailable(err) {
			t.Errorf("got %v", err)
		}
		if err := redeem(); !errors.Is(err, ErrSpent) {
			t.Errorf("a second time: %v", err)
		}
		events, err := s.Events(t.Context(), EventQuery{Type: audit.TypeCode})
		if err != nil || len(events) != 1 {
			t.Errorf("%d events, %v", len(events), err)
		}
	})
	t.Run("attack FA-06: what was lost before the commit was sent is done again, unseen", func(t *testing.T) {
		for _, cut := range []string{"pg_advisory_xact_lock", "SAVEPOINT job"} {
			before := s.Stats().Retries
			if cut == "SAVEPOINT job" { // of which there are some after a change that had to be undone
				_ = s.write(t.Context(), func(tx *tx) error {
					_, err := tx.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ('half', 1)`)
					return errors.Join(err, errors.New("no"))
				})
				before++
			}
			proxy.CutAfter(cut)
			if err := s.SpendID(t.Context(), "x", HashOf(cut), noon, noon); err != nil {
				t.Errorf("got %v", err)
			}
			if err := s.SpendID(t.Context(), "x", HashOf(cut), noon, noon); !errors.Is(err, ErrSpent) {
				t.Errorf("a second time: %v", err)
			}
			if s.Stats().Retries == before {
				t.Error("the connection was not lost")
			}
		}
	})
	t.Run("attack FA-06: while the database is away calls fail at once and say so, and it is found when it is back", func(t *testing.T) {
		proxy.Away(true)
		for range 3 {
			start := time.Now()
			_, _, err1 := s.FindSession(t.Context(), HashOf("session"), noon)
			err2 := s.SpendID(t.Context(), "x", HashOf("away"), noon, noon)
			if !unavailable(err1) || !unavailable(err2) {
				t.Errorf("got %v and %v", err1, err2)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
		}
		proxy.Away(false)
		start := time.Now()
		for {
			_, _, err1 := s.FindSession(t.Context(), HashOf("session"), noon)
			err2 := s.SpendID(t.Context(), "x", HashOf("back"), noon, noon)
			if err1 == nil && (err2 == nil || errors.Is(err2, ErrSpent)) {
				break
			}
			if time.Since(start) > 5*time.Second {
				t.Fatalf("after 5 s: %v and %v", err1, err2)
			}
		}
	})
	t.Run("attack FA-18: a replica whose network swallows everything gives nothing away", func(t *testing.T) {
		s := quiet(t, proxy.Through(t, address))
		s.answers = 500 * time.Millisecond
		proxy.Hold(true)
		done := make(chan error, 2)
		go func() { _, _, err := s.FindSession(t.Context(), HashOf("session"), noon); done <- err }()
		go func() { done <- s.SpendID(t.Context(), "x", HashOf("cut off"), noon, noon) }()
		other := quiet(t, address)
		if err := other.SpendID(t.Context(), "x", HashOf("the other works"), noon, noon); err != nil {
			t.Errorf("the replica that is not cut off: %v", err)
		}
		for range 2 {
			if err := <-done; !unavailable(err) {
				t.Errorf("got %v", err)
			}
		}
		proxy.Cut()
	})
}

func TestHungReplica(t *testing.T) {
	t.Run("attack FA-08, FA-18: a replica that hangs in a transaction loses the lock, and its change is done once", func(t *testing.T) {
		address := database(t)
		hung, other := quiet(t, address), quiet(t, address)
		started, gate := make(chan struct{}, maxRuns), make(chan struct{})
		done := make(chan error, 1)
		var runs atomic.Int32
		go func() {
			done <- hung.write(context.Background(), func(tx *tx) error {
				runs.Add(1)
				if _, err := tx.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ($1, 1)`, "hung"); err != nil {
					return err
				}
				started <- struct{}{}
				<-gate
				return nil
			})
		}()
		<-started
		start := time.Now()
		if err := other.SpendID(t.Context(), "x", HashOf("1"), noon, noon); err != nil {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		close(gate)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if runs.Load() != 2 {
			t.Errorf("%d runs", runs.Load())
		}
		if denied, err := other.TokenDenied(t.Context(), "hung"); !denied || err != nil {
			t.Errorf("%v, %v", denied, err)
		}
	})
}

func TestSerializationFailure(t *testing.T) {
	s := openPG(t)
	for _, code := range []string{pgSerialization, pgDeadlock} {
		t.Run("attack FA-09: a transaction that the server undid is run again: "+code, func(t *testing.T) {
			runs := 0
			err := s.write(t.Context(), func(tx *tx) error {
				if _, err := tx.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ($1, 1)`, code); err != nil {
					return err
				}
				if runs++; runs < 3 {
					return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code})
				}
				return nil
			})
			if denied, derr := s.TokenDenied(t.Context(), code); err != nil || derr != nil || !denied || runs != 3 {
				t.Errorf("%d runs, %v, %v, %v", runs, denied, err, derr)
			}
			runs = 0
			err = s.write(t.Context(), func(*tx) error { runs++; return &pgconn.PgError{Code: code} })
			if runs != maxRuns || !unavailable(wrap("x", err)) {
				t.Errorf("%d runs, %v", runs, err)
			}
		})
	}
	t.Run("a change that fails in the server is undone alone", func(t *testing.T) {
		release := hold(t, s)
		bad, good := make(chan error, 1), make(chan error, 1)
		go func() {
			bad <- s.write(context.Background(), func(tx *tx) error {
				_, _ = tx.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ('half', 1)`)
				_, err := tx.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ('half', 1)`)
				return err
			})
		}()
		go func() { good <- s.SpendID(context.Background(), "x", HashOf("good"), noon, noon) }()
		untilQueued(s, 2)
		if err := errors.Join(release(), <-good); err != nil {
			t.Error(err)
		}
		if err := <-bad; err == nil || unavailable(wrap("x", err)) {
			t.Errorf("got %v", err)
		}
		if denied, err := s.TokenDenied(t.Context(), "half"); denied || err != nil {
			t.Errorf("half a change stands: %v, %v", denied, err)
		}
	})
	t.Run("a change that hides a failure of the server takes no other with it into a false yes", func(t *testing.T) {
		err := s.write(t.Context(), func(tx *tx) error {
			_, _ = tx.exec(`INSERT INTO no_such_table VALUES (1)`)
			return nil
		})
		if err == nil {
			t.Error("it was told that it stands")
		}
		if err := s.SpendID(t.Context(), "x", HashOf("afterwards"), noon, noon); err != nil {
			t.Error(err)
		}
	})
}

func TestServerRestart(t *testing.T) {
	t.Run("attack FA-06: after crashes of the server under load every acknowledged write is there, and calls succeed within 5 s", func(t *testing.T) {
		server := pgtest.New(t, "")
		address, err := server.Copy(t.Context(), "restart", func(a string) error { return quiet(t, a).Close() })
		if err != nil {
			t.Fatal(err)
		}
		s := quiet(t, address)
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		var kept []Hash
		var last time.Time
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					h := HashOf(fmt.Sprint(w, "/", i))
					if err := s.SpendID(ctx, "x", h, noon, noon); err == nil {
						mu.Lock()
						kept, last = append(kept, h), time.Now()
						mu.Unlock()
					}
				}
			})
		}
		for range 3 {
			if err := server.Restart(); err != nil {
				t.Fatal(err)
			}
			back := time.Now()
			for {
				mu.Lock()
				works := last.After(back)
				mu.Unlock()
				if works {
					break
				}
				if time.Since(back) > 5*time.Second {
					t.Fatal("nothing works 5 s after the server is back")
				}
				if _, _, err := s.FindSession(ctx, HashOf("x"), noon); errors.Is(err, ErrNotFound) {
					continue
				}
			}
		}
		stop()
		wg.Wait()
		if len(kept) == 0 {
			t.Fatal("nothing was written")
		}
		for _, h := range kept {
			if err := s.SpendID(t.Context(), "x", h, noon, noon); !errors.Is(err, ErrSpent) {
				t.Fatalf("an acknowledged write is lost: %v", err)
			}
		}
	})
}

// knocks counts attempts to connect and fails as long as it is told to.
type knocks struct {
	n    atomic.Int32
	down atomic.Bool
	wait chan struct{}
}

func (k *knocks) Connect(context.Context) (driver.Conn, error) {
	k.n.Add(1)
	if k.wait != nil {
		<-k.wait
	}
	if k.down.Load() {
		return nil, errors.New("away")
	}
	return nil, nil //nolint:nilnil // nobody uses it
}

func (k *knocks) Driver() driver.Driver { return nil }

func TestGate(t *testing.T) {
	t.Run("attack FA-06: one caller knocks at a server that is away, and a server that is back meets all", func(t *testing.T) {
		k := &knocks{}
		k.down.Store(true)
		g := &gate{Connector: k}
		if _, err := g.Connect(t.Context()); err == nil {
			t.Fatal("connected")
		}
		for range 100 {
			if _, err := g.Connect(t.Context()); err == nil {
				t.Fatal("connected")
			}
		}
		if n := k.n.Load(); n > 2 {
			t.Errorf("%d attempts", n)
		}
		g.next = time.Time{} // the pause is over
		k.wait = make(chan struct{})
		first := make(chan error)
		go func() { _, err := g.Connect(t.Context()); first <- err }()
		for k.n.Load() < 2 {
		}
		if _, err := g.Connect(t.Context()); err == nil {
			t.Error("a second one knocked")
		}
		k.down.Store(false)
		close(k.wait)
		if err := <-first; err != nil {
			t.Error(err)
		}
		for range 10 {
			if _, err := g.Connect(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("the pause grows to a second and no further", func(t *testing.T) {
		g := &gate{}
		now := time.Unix(0, 0)
		for range 20 {
			g.leave(now, errors.New("away"))
			if d := g.next.Sub(now); d < firstPause/2 || d > mostPause {
				t.Errorf("%v", d)
			}
		}
		if g.next.Sub(now) < mostPause/2 {
			t.Errorf("%v", g.next.Sub(now))
		}
	})
}
