package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store/pgtest"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// database returns the address of a fresh database with the newest schema.
func database(t testing.TB) string {
	t.Helper()
	return pgtest.Database(t, "bonafide", func(address string) error {
		s, err := Open(context.Background(), Config{Path: address})
		if err != nil {
			return err
		}
		return s.Close()
	})
}

// empty returns the address of a database without a schema.
func empty(t testing.TB) string {
	t.Helper()
	return pgtest.Database(t, "empty", func(string) error { return nil })
}

func openPG(t testing.TB) *Store { return openAt(t, database(t)) }

// rawPG connects to the database behind the store's back.
func rawPG(t testing.TB, address string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func TestOpenPostgres(t *testing.T) {
	t.Run("a schema newer than the program is refused", func(t *testing.T) {
		address := database(t)
		if _, err := rawPG(t, address).Exec(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)`); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), Config{Path: address})
		if err == nil || !strings.Contains(err.Error(), "schema version 9999") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("many programs may start at once on an empty database", func(t *testing.T) {
		address := empty(t)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				s, err := Open(t.Context(), Config{Path: address})
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.AppendEvents(t.Context(), audit.Event{Type: audit.TypeConfig}); err != nil {
					t.Error(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		s := openAt(t, address)
		if intact, broken, err := s.VerifyEvents(t.Context()); intact != 6 || broken != 0 || err != nil {
			t.Errorf("%d intact, %d broken, %v", intact, broken, err)
		}
	})
	t.Run("a server that is not there is an error that says so, without the password", func(t *testing.T) {
		_, err := Open(t.Context(), Config{Path: "postgres://u:hunter2@/db?host=" + t.TempDir()})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v", err)
		}
		_, err = Open(t.Context(), Config{Path: "postgres://u:hunter2@host:port/db"})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("locks that keep nobody out are found out", func(t *testing.T) {
		address := database(t)
		s := openAt(t, address)
		if err := locksHold(t.Context(), s.writes); err == nil {
			t.Error("nobody held the lock, and it was not noticed")
		}
		c := rawPG(t, address)
		if _, err := c.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, int64(schemaLock)); err != nil {
			t.Fatal(err)
		}
		if err := locksHold(t.Context(), s.writes); err != nil {
			t.Error(err)
		}
	})
	t.Run("readers change nothing, and the bounds hold on every connection", func(t *testing.T) {
		s := openPG(t)
		if _, err := s.reads.Exec(`DELETE FROM users`); err == nil || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("a reader can write: %v", err)
		}
		for name, want := range map[string]string{"statement_timeout": "8s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "3s", "synchronous_commit": "on"} {
			var read, written string
			err := s.reads.QueryRow("SHOW " + name).Scan(&read)
			err = errors.Join(err, s.write(t.Context(), func(tx *tx) error { return tx.get([]any{&written}, "SHOW "+name) }))
			if err != nil || read != want || written != want {
				t.Errorf("%s: %s for readers, %s for the writer, %v", name, read, written, err)
			}
		}
	})
	t.Run("the writer insists on durable commits", func(t *testing.T) {
		address := database(t)
		c := rawPG(t, address)
		if _, err := c.Exec(t.Context(), `DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = off'; END $$`); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := openAt(t, address).write(t.Context(), func(tx *tx) error { return tx.get([]any{&got}, "SHOW synchronous_commit") }); err != nil || got != "on" {
			t.Errorf("%s, %v", got, err)
		}
	})
	t.Run("what is written stands at once, whatever isolation the database has by default", func(t *testing.T) {
		address := database(t)
		c := rawPG(t, address)
		if _, err := c.Exec(t.Context(), `DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET default_transaction_isolation = ''serializable'''; END $$`); err != nil {
			t.Fatal(err)
		}
		replicas := []*Store{openAt(t, address), openAt(t, address)}
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if err := replicas[i%2].AppendEvents(t.Context(), audit.Event{Type: audit.TypeLogin}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if intact, broken, err := replicas[0].VerifyEvents(t.Context()); intact != 40 || broken != 0 || err != nil {
			t.Errorf("%d intact, %d broken, %v", intact, broken, err)
		}
	})
}

// TestSchemas: both engines have the same tables with the same columns, and the
// same indexes.
func TestSchemas(t *testing.T) {
	lite, pg := map[string][]string{}, map[string][]string{}
	db := raw(t, open(t).path(t))
	rows, err := db.Query(`SELECT m.name, p.name FROM sqlite_master m, pragma_table_info(m.name) p WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE 'goose%'
		UNION ALL SELECT 'indexes', name FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		lite[table] = append(lite[table], column)
	}
	prows, err := rawPG(t, database(t)).Query(t.Context(), `SELECT table_name, column_name::text FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE 'goose%'
		UNION ALL SELECT 'indexes', indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%\_pkey' AND indexname NOT LIKE '%\_key'`)
	if err != nil {
		t.Fatal(err)
	}
	for prows.Next() {
		var table, column string
		if err := prows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		pg[table] = append(pg[table], column)
	}
	for _, m := range []map[string][]string{lite, pg} {
		for _, columns := range m {
			slices.Sort(columns)
		}
	}
	if len(lite) < 14 {
		t.Errorf("only %d tables", len(lite))
	}
	if d := cmp.Diff(lite, pg); d != "" {
		t.Errorf("- SQLite, + PostgreSQL:\n%s", d)
	}
	t.Run("every text is compared by its bytes", func(t *testing.T) {
		var n int
		var name string
		err := rawPG(t, database(t)).QueryRow(t.Context(), `SELECT count(*), COALESCE(max(table_name || '.' || column_name), '') FROM information_schema.columns
			WHERE table_schema = 'public' AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C' AND table_name NOT LIKE 'goose%'`).Scan(&n, &name)
		if err != nil || n != 0 {
			t.Errorf("%d are not, such as %s; %v", n, name, err)
		}
	})
}

func TestAuditIsAppendOnlyOnPostgres(t *testing.T) {
	address := database(t)
	s := openAt(t, address)
	for i := range 3 {
		if err := s.AppendEvents(t.Context(), audit.Event{Type: audit.TypeLogin, User: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	c := rawPG(t, address)
	t.Run("POL-07 the database refuses to change or remove an event", func(t *testing.T) {
		for _, q := range []string{`UPDATE audit SET user_id = 'x'`, `DELETE FROM audit WHERE seq = 3`, `TRUNCATE audit`} {
			if _, err := c.Exec(t.Context(), q); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v", q, err)
			}
		}
	})
	t.Run("POL-07 a change behind its back is found", func(t *testing.T) {
		for _, q := range []string{`ALTER TABLE audit DISABLE TRIGGER USER`, `UPDATE audit SET user_id = 'x' WHERE seq = 2`} {
			if _, err := c.Exec(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if intact, broken, err := s.VerifyEvents(t.Context()); intact != 1 || broken != 2 || err != nil {
			t.Errorf("%d intact, %d broken, %v", intact, broken, err)
		}
	})
}

func TestTextThatPostgresCannotKeep(t *testing.T) {
	s := openPG(t)
	seed(t, s)
	for _, text := range []string{"a\x00b", "a\xffb"} {
		t.Run(fmt.Sprintf("URL-15 %q is in no row", text), func(t *testing.T) {
			_, err1 := s.Client(t.Context(), text)
			_, err2 := s.UserByName(t.Context(), text)
			_, err3 := s.Document(t.Context(), text)
			for _, err := range []error{err1, err2, err3} {
				if !errors.Is(err, ErrNotFound) {
					t.Errorf("got %v", err)
				}
			}
			if denied, err := s.TokenDenied(t.Context(), text); denied || err != nil {
				t.Errorf("%v, %v", denied, err)
			}
			if clients, err := s.Clients(t.Context(), text, 10); err != nil || len(clients) != 0 {
				t.Errorf("%v, %v", clients, err)
			}
		})
	}
	t.Run("URL-15 what cannot be kept is nobody else's", func(t *testing.T) {
		for _, id := range []Identity{{Issuer: "i", Subject: "a\x00b", UserID: "u1"}, {Issuer: "i", Subject: "s", Email: "a\x00b", UserID: "u1"}} {
			if err := s.LinkIdentity(t.Context(), id, nil); err == nil || isFact(err) {
				t.Errorf("got %v", err)
			}
		}
	})
	if err := s.AppendEvents(t.Context(), audit.Event{Type: audit.TypeLogin, User: "a\x00b", Data: map[string]string{"x\x00": "\xff"}}); err != nil {
		t.Errorf("an event with such a text is lost: %v", err)
	}
}

func TestBrokenPostgres(t *testing.T) {
	t.Run("every verb succeeds on PostgreSQL in good order", func(t *testing.T) {
		s := openPG(t)
		seed(t, s)
		family(t, s, "f")
		for _, v := range verbs() {
			if err := v.call(t.Context(), s); err != nil {
				t.Errorf("%s: %v", v.name, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, v := range verbs() {
			if err := v.call(t.Context(), s); !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v", v.name, err)
			}
		}
	})
	t.Run("URL-15, mistake 35: without a table nothing is called unknown or spent on PostgreSQL", func(t *testing.T) {
		address := database(t)
		c := rawPG(t, address)
		withoutTables(t, openAt(t, address), func(query string) error { _, err := c.Exec(t.Context(), query); return err }, func(string) bool { return true })
	})
}

// quiet returns a store that logs nothing and has the clock of the wall.
func quiet(t testing.TB, address string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Path: address, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// unavailable reports whether an error says that it is 503.
func unavailable(err error) bool {
	var e interface{ Unavailable() bool }
	return errors.As(err, &e) && e.Unavailable()
}

func TestFullDisk(t *testing.T) {
	t.Run("attack FA-04: a database without room is unavailable, not wrong, and goes on when there is room", func(t *testing.T) {
		s := openAt(t, filepath.Join(t.TempDir(), "x.db"))
		seed(t, s)
		limit := func(pages int) {
			t.Helper()
			if err := s.write(t.Context(), func(tx *tx) error {
				var n int
				return tx.get([]any{&n}, fmt.Sprint("PRAGMA max_page_count = ", pages))
			}); err != nil {
				t.Fatal(err)
			}
		}
		limit(1) // no more than it has
		var err error
		for i := 0; err == nil && i < 10_000; i++ {
			err = s.SpendID(t.Context(), "x", HashOf(fmt.Sprint(i)), noon, noon)
		}
		if !unavailable(err) {
			t.Errorf("got %v", err)
		}
		if _, _, err := s.FindSession(t.Context(), HashOf("session"), noon); err != nil {
			t.Errorf("reading: %v", err)
		}
		limit(1 << 20)
		if err := s.SpendID(t.Context(), "x", HashOf("after"), noon, noon); err != nil {
			t.Errorf("with room again: %v", err)
		}
		if _, broken, err := s.VerifyEvents(t.Context()); broken != 0 || err != nil {
			t.Errorf("%d, %v", broken, err)
		}
	})
	t.Run("a queue that does not move is left, and says that it is not for ever", func(t *testing.T) {
		s := open(t)
		s.waits = 20 * time.Millisecond
		release := hold(t, s)
		if err := s.SpendID(t.Context(), "x", HashOf("1"), noon, noon); !errors.Is(err, errCrowded) || !unavailable(err) {
			t.Errorf("got %v", err)
		}
		if err := release(); err != nil {
			t.Fatal(err)
		}
		if err := s.SpendID(t.Context(), "x", HashOf("1"), noon, noon); err != nil {
			t.Errorf("a dropped change was carried out: %v", err)
		}
	})
}
