package store

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store/pgtest"

	"github.com/jackc/pgx/v5/pgconn"
)

// Whoever is told that the database is away asks again, so no other failure may
// pass for that, and none of these for another.
func TestAway(t *testing.T) {
	s := open(t)
	unique := s.write(t.Context(), func(tx *tx) error {
		for range 2 {
			if _, err := tx.exec(`INSERT INTO denied_tokens (jti, expires_at) VALUES ('twice', 1)`); err != nil {
				return err
			}
		}
		return nil
	})
	code := func(c string) error { return &pgconn.PgError{Code: c} }
	for _, c := range []struct {
		name string
		err  error
		away bool
	}{
		{"SQLite is busy", busyError(t, s), true}, {"SQLite refuses a row", unique, false},
		{"serialization", code("40001"), true}, {"a deadlock", code("40P01"), true}, {"the lock takes too long", code("55P03"), true},
		{"idled away", code("25P03"), true}, {"read-only", code("25006"), true}, {"no connection", code("08006"), true},
		{"too many connections", code("53300"), true}, {"the disk is full", code("53100"), true}, {"a statement takes too long", code("57014"), true},
		{"going down", code("57P01"), true}, {"starting up", code("57P03"), true}, {"a fault of the machine", code("58030"), true},
		{"a row that is there", code("23505"), false}, {"no such table", code("42P01"), false}, {"text that cannot be kept", code("22021"), false}, {"a failed transaction", code("25P02"), false},
		{"an error without a code", code(""), false}, {"an error with half a code", code("5"), false},
		{"a crowd", errCrowded, true}, {"an unknown outcome", errOutcome, true}, {"no answer in time", context.DeadlineExceeded, true}, {"the caller left", context.Canceled, false},
		{"a broken connection", driver.ErrBadConn, true}, {"a closed connection", sql.ErrConnDone, true}, {"the end of the stream", io.EOF, true}, {"the middle of an answer", io.ErrUnexpectedEOF, true},
		{"the network", &net.OpError{Op: "read", Err: errors.New("reset")}, true}, {"no way to connect", &pgconn.ConnectError{}, true}, {"a fact", ErrNotFound, false}, {"anything else", errors.New("x"), false},
	} {
		t.Run("URL-15 "+c.name, func(t *testing.T) {
			for _, err := range []error{c.err, fmt.Errorf("commit: %w", c.err)} {
				wrapped := wrap("verb", err)
				if unavailable(wrapped) != c.away || !errors.Is(wrapped, c.err) {
					t.Errorf("%v: unavailable is %v", wrapped, !c.away)
				}
			}
		})
	}
	if wrap("verb", nil) != nil {
		t.Error("a success is wrapped")
	}
	for code, again := range map[string]bool{"40001": true, "40P01": true, "55P03": false, "57014": false, "08006": false} {
		if transient(fmt.Errorf("x: %w", &pgconn.PgError{Code: code})) != again {
			t.Errorf("attack FA-09 %s is run again: %v", code, !again)
		}
	}
	if transient(unique) || transient(io.EOF) {
		t.Error("what will not succeed is run again")
	}
}

func TestPools(t *testing.T) {
	for _, c := range []struct{ asked, want int }{{0, 6}, {-1, 6}, {2, 2}} {
		for _, path := range []string{filepath.Join(t.TempDir(), "x.db"), database(t)} {
			s, err := Open(t.Context(), Config{Path: path, Readers: c.asked})
			if err != nil {
				t.Fatal(err)
			}
			if r, w := s.reads.Stats().MaxOpenConnections, s.writes.Stats().MaxOpenConnections; r != c.want || w != 1 || cap(s.queue) != 1024 {
				t.Errorf("asked for %d: %d for reading, %d for writing, %d may wait", c.asked, r, w, cap(s.queue))
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Run("mistake 41: a list that fails in the middle gives its connection back", func(t *testing.T) {
		for _, s := range []*Store{open(t), openPG(t)} {
			seed(t, s)
			if err := s.AddUser(t.Context(), User{ID: "u2", Name: "Mary"}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			stop := errors.New("enough")
			for range 20 {
				if err := s.list(ctx, func(func(...any) error) error { return stop }, `SELECT id FROM users`); !errors.Is(err, stop) {
					t.Fatal(err)
				}
			}
			err := s.write(ctx, func(tx *tx) error {
				err := tx.list(func(func(...any) error) error { return stop }, `SELECT id FROM users`)
				return errors.Join(err, tx.touch(TopicKeys))
			})
			if !errors.Is(err, stop) || unavailable(wrap("x", err)) {
				t.Error(err)
			}
		}
	})
}

func TestSweepOfGrants(t *testing.T) {
	t.Run("attack DS-13: grants that are in use are passed over, however many have run out", func(t *testing.T) {
		s := open(t)
		seed(t, s)
		now := noon.Add(365 * 24 * time.Hour)
		if _, err := s.Prune(t.Context(), now); err != nil { // what seed left
			t.Fatal(err)
		}
		const n = pruneStep + 100
		if err := s.write(t.Context(), func(tx *tx) error {
			for i := range 2 * n {
				head := micros(noon)
				if i < n {
					head = micros(now)
				}
				if _, err := tx.exec(`INSERT INTO grants (id, user_id, client_id, resource, scopes, security_digest, version, auth_methods, auth_method, key_thumbprint, auth_time, acr, amr, nonce,
					created_at, last_used_at, expires_at, head, head_expires_at, end_reason) VALUES ($1, 'u1', $2, '', '', '', 0, '', '', '', 1, '', '', '', 1, 1, 1, 0, $3, '')`, fmt.Sprint("g", i), benchClient, head); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if touched, err := s.Prune(ctx, now); err != nil || touched != 2*n {
			t.Errorf("%d rows, %v", touched, err)
		}
		var live, ended int
		if err := s.get(t.Context(), []any{&live, &ended}, `SELECT (SELECT count(*) FROM grants WHERE ended_at IS NULL), (SELECT count(*) FROM grants WHERE end_reason = 'expired')`); err != nil || live != n || ended != n {
			t.Errorf("%d live, %d ended, %v", live, ended, err)
		}
		if touched, err := s.Prune(ctx, now); err != nil || touched != 0 {
			t.Errorf("a second time: %d rows, %v", touched, err)
		}
	})
}

func TestUnpinTwice(t *testing.T) {
	s := open(t)
	const id = "https://pinned.example/c"
	d := Document{ClientID: id, Digest: "d", Body: []byte("{}")}
	err := errors.Join(s.PinClient(t.Context(), Client{ID: id}, d, noon), s.UnpinClient(t.Context(), id, noon))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.UnpinClient(t.Context(), id, noon); !errors.Is(err, ErrNotFound) {
		t.Errorf("URL-16 a second time: %v", err)
	}
	if err := s.UnpinClient(t.Context(), "https://nobody.example/c", noon); !errors.Is(err, ErrNotFound) {
		t.Errorf("URL-16 nobody: %v", err)
	}
	if err := s.PinClient(t.Context(), Client{ID: id + "2"}, d, noon); err == nil {
		t.Error("URL-16 held to the document of another")
	}
}

func TestPinnedTo(t *testing.T) {
	s := open(t)
	seed(t, s)
	const id = "https://pinned.example/c"
	d := Document{ClientID: id, Digest: "d", Body: []byte("{}")}
	if err := s.PinClient(t.Context(), Client{ID: id}, d, noon); err != nil {
		t.Fatal(err)
	}
	for digest, want := range map[string]error{"another": ErrConflict, "d": nil} {
		other := d
		other.Digest = digest
		_, err := s.OpenGrant(t.Context(), Opening{Client: &Client{ID: id, Source: SourceCIMD}, Document: &other, Grant: Grant{ID: "g" + digest, ClientID: id, Kind: "client_credentials"}}, noon)
		if !errors.Is(err, want) {
			t.Errorf("URL-16 a grant by the document %s: %v", digest, err)
		}
	}
}

func TestWhatIsWatchedAndWhatNot(t *testing.T) {
	s := open(t)
	if err := s.AppendEvents(t.Context(), audit.Event{Type: audit.TypeLogin}); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := s.get(t.Context(), []any{&n}, `SELECT count(*) FROM revisions`); err != nil || n != 0 {
		t.Errorf("a sign-in wakes everybody: %d, %v", n, err)
	}
	for name, p := range map[string]Policy{"no body": {Digest: "d", Body: []byte{}}, "no digest": {Body: []byte("b")}} {
		if _, err := s.PublishPolicy(t.Context(), p, noon); err == nil {
			t.Errorf("%s: published", name)
		}
	}
}

func TestLinkedWhen(t *testing.T) {
	s := open(t)
	seed(t, s)
	at := noon.Add(-time.Hour)
	for _, id := range []Identity{{Issuer: "i", Subject: "s", UserID: "u1", LastSeen: at}, {Issuer: "i", Subject: "s", UserID: "u1"}} {
		if err := s.LinkIdentity(t.Context(), id, nil, audit.Event{Type: audit.TypeLogin}); err != nil {
			t.Fatal(err)
		}
	}
	events, err := s.Events(t.Context(), EventQuery{Type: audit.TypeLogin})
	if err != nil || len(events) != 2 || !events[0].Time.Equal(at) || !events[1].Time.Equal(noon) {
		t.Errorf("%+v, %v", events, err)
	}
}

func TestBoundsOfAnAddress(t *testing.T) {
	for option, want := range map[string]time.Duration{"": pgConnect, "?connect_timeout=1": time.Second, "?connect_timeout=60": pgConnect} {
		if c, err := pgConfig("postgres://u@h/db" + option); err != nil || c.ConnectTimeout != want {
			t.Errorf("attack FA-08 %q: %v, %v", option, c.ConnectTimeout, err)
		}
	}
}

func TestSweepOfDynamicClients(t *testing.T) {
	t.Run("DCR-01 a client that somebody agreed to is not swept away, and holds up no other", func(t *testing.T) {
		s := open(t)
		seed(t, s)
		for _, id := range []string{"agreed", "unused"} {
			if err := s.RegisterDynamic(t.Context(), Client{ID: id, Source: SourceDCR, Expires: noon.Add(time.Hour)}, 10, noon); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.write(t.Context(), func(tx *tx) error {
			_, err := tx.exec(`INSERT INTO consents (user_id, client_id, resource, security_digest, scopes, given_at) VALUES ('u1', 'agreed', '', '', '', 1)`)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prune(t.Context(), noon.Add(30*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		_, err1 := s.Client(t.Context(), "agreed")
		_, err2 := s.Client(t.Context(), "unused")
		if err1 != nil || !errors.Is(err2, ErrNotFound) {
			t.Errorf("%v, %v", err1, err2)
		}
	})
}

func TestAServerThatStopsToAnswer(t *testing.T) {
	t.Run("attack FA-08, FA-18: a transaction on a connection that works has an end", func(t *testing.T) {
		proxy := pgtest.Shared(t).NewProxy(t)
		s := quiet(t, proxy.Through(t, database(t)))
		if err := s.SpendID(t.Context(), "x", HashOf("1"), noon, noon); err != nil { // it is connected
			t.Fatal(err)
		}
		s.answers = 300 * time.Millisecond
		proxy.Hold(true)
		done := make(chan error, 1)
		go func() { done <- s.SpendID(context.Background(), "x", HashOf("2"), noon, noon) }()
		select {
		case err := <-done:
			if !unavailable(err) {
				t.Errorf("got %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("it has none")
		}
		proxy.Cut()
	})
}

// journal is a log that a test can wait for.
type journal struct {
	mu    sync.Mutex
	lines bytes.Buffer
	news  chan struct{}
}

func newJournal() (*journal, *slog.Logger) {
	j := &journal{news: make(chan struct{}, 1)}
	return j, slog.New(slog.NewTextHandler(j, nil))
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	poke(j.news)
	return j.lines.Write(line)
}

// says waits until the log holds a text.
func (j *journal) says(t *testing.T, text string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		j.mu.Lock()
		found := strings.Contains(j.lines.String(), text)
		j.mu.Unlock()
		if found {
			return
		}
		select {
		case <-j.news:
		case <-late:
			j.mu.Lock()
			defer j.mu.Unlock()
			t.Fatalf("the log does not say %q: %s", text, j.lines.String())
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Run("attack FA-03: a server that does not wait for its disk is told of", func(t *testing.T) {
		server := pgtest.New(t, "-c fsync=off")
		address, err := server.Copy(t.Context(), "empty", func(string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		j, log := newJournal()
		s, err := Open(t.Context(), Config{Path: address, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		j.says(t, "fsync")
	})
}

func TestWatchOfOneProcess(t *testing.T) {
	s := open(t)
	s.looks = time.Hour
	seed(t, s)
	one, two := watch(t, s), watch(t, s)
	for _, heard := range []<-chan string{one, two} {
		hears(t, heard, TopicClients, time.Minute)
	}
	t.Run("a change is told at once to all who watch, without looking again", func(t *testing.T) {
		for _, state := range []string{StateBlocked, StateAllowed} {
			if err := s.SetClientState(t.Context(), benchClient, state, "", noon); err != nil {
				t.Fatal(err)
			}
			for _, heard := range []<-chan string{one, two} {
				hears(t, heard, TopicClients, time.Minute)
			}
		}
	})
	t.Run("who has gone is told no more", func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		stop()
		s.Watch(ctx, func(string) {})
		s.signals.mu.Lock()
		defer s.signals.mu.Unlock()
		if n := len(s.signals.at); n != 2 {
			t.Errorf("%d watch", n)
		}
	})
}

// tried returns when a connection that listens has been tried.
func tried(t *testing.T, address string) {
	t.Helper()
	c := rawPG(t, address)
	for {
		var n int
		if err := c.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = '-- ping'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
	}
}

func TestListenerThatIsSilentlyDead(t *testing.T) {
	t.Run("attack FA-18: a connection on which nothing comes is tried, and made again", func(t *testing.T) {
		address := database(t)
		proxy := pgtest.Shared(t).NewProxy(t)
		a := quiet(t, address)
		j, log := newJournal()
		b, err := Open(t.Context(), Config{Path: proxy.Through(t, address), Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		seed(t, a)
		b.looks, b.silence, b.answers = time.Hour, 100*time.Millisecond, 300*time.Millisecond
		heard := watch(t, b)
		hears(t, heard, TopicClients, time.Minute)
		tried(t, address)
		proxy.Hold(true)
		if err := a.SetClientState(t.Context(), benchClient, StateBlocked, "", noon); err != nil {
			t.Fatal(err)
		}
		j.says(t, "changes of other replicas are looked up")
		proxy.Cut() // what was held back is lost
		hears(t, heard, TopicClients, time.Minute)
	})
	t.Run("attack FA-18: one that dies before it listens is made again too", func(t *testing.T) {
		address := database(t)
		proxy := pgtest.Shared(t).NewProxy(t)
		j, log := newJournal()
		s, err := Open(t.Context(), Config{Path: proxy.Through(t, address), Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.looks, s.silence, s.answers = time.Hour, 100*time.Millisecond, 300*time.Millisecond
		proxy.HoldAfter("LISTEN bonafide")
		watch(t, s)
		j.says(t, "changes of other replicas are looked up")
		proxy.Cut()
		tried(t, address)
	})
	t.Run("a quiet connection that answers is kept", func(t *testing.T) {
		address := database(t)
		j, log := newJournal()
		s, err := Open(t.Context(), Config{Path: address, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.looks, s.silence = time.Hour, 5*time.Millisecond
		heard := watch(t, s)
		tried(t, address)
		c := rawPG(t, address)
		var first, later string
		processes := func(at *string) { // of the store, one of which listens
			t.Helper()
			if err := c.QueryRow(t.Context(), `SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity
				WHERE datname = current_database() AND application_name = 'bonafide'`).Scan(at); err != nil {
				t.Fatal(err)
			}
		}
		for later != first || !strings.Contains(first, " ") { // until the one that reads and the one that listens are there
			first = later
			processes(&later)
		}
		for range 20 { // long enough for many a try
			if _, err := c.Exec(t.Context(), `SELECT pg_sleep(0.005)`); err != nil {
				t.Fatal(err)
			}
		}
		processes(&later)
		j.mu.Lock()
		defer j.mu.Unlock()
		if first != later || j.lines.Len() > 0 {
			t.Errorf("made again: %s, %s, %s", first, later, j.lines.String())
		}
		if len(heard) > 0 {
			t.Errorf("heard of %s", <-heard)
		}
	})
}
