package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 123456000, time.UTC)

func openAt(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Path: path, Now: func() time.Time { return noon }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func open(t testing.TB) *Store { return openAt(t, filepath.Join(t.TempDir(), "bonafide.db")) }

// raw opens the file behind the store's back.
func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestOpen(t *testing.T) {
	t.Run("a new database belongs to its owner only", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new")
		path := filepath.Join(dir, "a b?c#%41.db")
		s := openAt(t, path)
		seed(t, s)
		files, err := os.ReadDir(dir)
		if err != nil || len(files) == 0 {
			t.Fatalf("%v, %v", files, err)
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o600 || !strings.HasPrefix(f.Name(), "a b?c#%41.db") {
				t.Errorf("%s has mode %v", f.Name(), info.Mode())
			}
		}
	})
	t.Run("a path is required", func(t *testing.T) {
		if _, err := Open(t.Context(), Config{}); err == nil {
			t.Error("opened nothing")
		}
	})
	t.Run("a file that is no database is refused", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Config{Path: path}); err == nil {
			t.Error("opened")
		}
	})
	t.Run("a directory that cannot be made is an error", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Config{Path: filepath.Join(file, "x.db")}); err == nil {
			t.Error("opened")
		}
	})
	t.Run("a schema newer than the program is refused", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		s := openAt(t, path)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := raw(t, path).Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), Config{Path: path})
		if err == nil || !strings.Contains(err.Error(), "schema version 9999") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("many programs may start at once", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				s, err := Open(t.Context(), Config{Path: path})
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.AppendEvents(t.Context(), audit.Event{Type: audit.TypeConfig}); err != nil {
					t.Error(err)
				}
				if err := errors.Join(s.Close(), s.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		s := openAt(t, path)
		if intact, broken, err := s.VerifyEvents(t.Context()); intact != 4 || broken != 0 || err != nil {
			t.Errorf("%d intact, %d broken, %v", intact, broken, err)
		}
	})
	t.Run("pragmas hold on every connection", func(t *testing.T) {
		s := open(t)
		for name, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
			for _, db := range []*sql.DB{s.reads} {
				var got string
				if err := db.QueryRow("PRAGMA " + name).Scan(&got); err != nil || got != want {
					t.Errorf("%s is %s, %v", name, got, err)
				}
			}
			err := s.write(t.Context(), func(tx *tx) error {
				var got string
				if err := tx.get([]any{&got}, "PRAGMA "+name); err != nil || got != want {
					t.Errorf("writer: %s is %s, %v", name, got, err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		if _, err := s.reads.Exec(`DELETE FROM users`); err == nil {
			t.Error("a reader can write")
		}
	})
}

func TestSecretsAreHashed(t *testing.T) {
	t.Run("TOK-23 codes, refresh tokens, cookies and pages are nowhere in the file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		s := openAt(t, path)
		seed(t, s)
		family(t, s, "-family-")
		if err := s.RotateRefresh(t.Context(), Rotation{Old: refOf("-family-", 1), New: tokenOf("-family-", 2)}, noon); err != nil {
			t.Fatal(err)
		}
		if err := s.SpendID(t.Context(), "i", HashOf("jti-of-an-assertion"), noon, noon); err != nil {
			t.Fatal(err)
		}
		if err := s.AppendEvents(t.Context(), audit.Event{Data: map[string]string{"refresh_token": "-family-/1"}}); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"-family-", "jti-of-an", "nonce-"} {
				if bytes.Contains(b, []byte(secret)) {
					t.Errorf("%q stands in the file%s", secret, suffix)
				}
			}
		}
	})
}

func TestNewID(t *testing.T) {
	var ids []string
	for i := range 1000 {
		id := NewID(noon.Add(time.Duration(i) * time.Millisecond))
		if len(id) != 26 {
			t.Fatalf("%q has %d characters", id, len(id))
		}
		ids = append(ids, id)
	}
	if !slices.IsSorted(ids) {
		t.Error("identifiers do not sort by time")
	}
	if one, two := NewID(noon), NewID(noon); one == two {
		t.Error("two identifiers are the same")
	}
}

func TestAuditIsAppendOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s := openAt(t, path)
	for i := range 5 {
		if err := s.AppendEvents(t.Context(), audit.Event{Type: audit.TypeLogin, User: fmt.Sprint(i), Data: map[string]string{"n": fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(t *testing.T, wantIntact, wantBroken int64) {
		t.Helper()
		if intact, broken, err := s.VerifyEvents(t.Context()); err != nil || intact != wantIntact || broken != wantBroken {
			t.Errorf("%d intact, %d broken, %v; want %d and %d", intact, broken, err, wantIntact, wantBroken)
		}
	}
	verify(t, 5, 0)
	db := raw(t, path)
	t.Run("POL-07 the database refuses to change or remove an event", func(t *testing.T) {
		for _, q := range []string{`UPDATE audit SET user_id = 'x'`, `DELETE FROM audit WHERE seq = 3`} {
			if _, err := db.Exec(q); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v", q, err)
			}
		}
	})
	t.Run("POL-07, AD-09 a removal behind its back is found", func(t *testing.T) {
		// As if two events had been removed for their age: but no event says so.
		hash := HashOf("made up")
		if _, err := db.Exec(`INSERT INTO audit_checkpoint (one, seq, hash) VALUES (1, 2, $1)`, hash[:]); err != nil {
			t.Fatal(err)
		}
		verify(t, 0, 3)
		for _, q := range []string{`DELETE FROM audit_checkpoint`, `UPDATE audit_checkpoint SET seq = 1`, `DELETE FROM audit WHERE seq = 3`} {
			if _, err := db.Exec(q); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v", q, err)
			}
		}
		if _, err := db.Exec(`DROP TRIGGER audit_checkpoint_stays; DELETE FROM audit_checkpoint`); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("POL-07 a change behind its back is found", func(t *testing.T) {
		for _, q := range []string{`DROP TRIGGER audit_no_update`, `DROP TRIGGER audit_no_delete`, `UPDATE audit SET user_id = 'x' WHERE seq = 4`} {
			if _, err := db.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		verify(t, 3, 4)
	})
	t.Run("POL-07 so is one that only cleaning would hide", func(t *testing.T) {
		for _, q := range []string{`UPDATE audit SET user_id = '3' WHERE seq = 4`, `UPDATE audit SET data = '{"n":"2","token":"x"}' WHERE seq = 3`} {
			if _, err := db.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		verify(t, 2, 3)
		if _, err := db.Exec(`UPDATE audit SET data = '{"n":"2"}' WHERE seq = 3`); err != nil {
			t.Fatal(err)
		}
		verify(t, 5, 0)
	})
	t.Run("POL-07 a missing event is found", func(t *testing.T) {
		// What was changed behind the gap hides it from nobody.
		for _, q := range []string{`UPDATE audit SET user_id = 'x' WHERE seq = 5`, `DELETE FROM audit WHERE seq = 2`} {
			if _, err := db.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		verify(t, 1, 3)
	})
}

// path asks the database where it is.
func (s *Store) path(t *testing.T) string {
	t.Helper()
	var seq int
	var name, file string
	if err := s.reads.QueryRow("PRAGMA database_list").Scan(&seq, &name, &file); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestValuesThatCannotBeKept(t *testing.T) {
	s := open(t)
	seed(t, s)
	ctx := t.Context()
	good := Answer{Nonce: HashOf("n"), Session: HashOf("session"), NonceExpires: noon.Add(time.Hour),
		Grant: Grant{ID: "g", UserID: "u1", ClientID: benchClient}, Code: Code{Hash: HashOf("c"), Expires: noon.Add(time.Hour)}}
	spoil := func(f func(*Answer)) Answer {
		a := good
		f(&a)
		return a
	}
	for name, err := range map[string]error{
		"a scope with a space":  s.AnswerConsent(ctx, spoil(func(a *Answer) { a.Grant.Scopes = []string{"read write"} }), noon),
		"an empty method":       s.AnswerConsent(ctx, spoil(func(a *Answer) { a.Grant.AuthMethods = []string{""} }), noon),
		"no user":               s.AnswerConsent(ctx, spoil(func(a *Answer) { a.Grant.UserID = "" }), noon),
		"another's document":    s.AnswerConsent(ctx, spoil(func(a *Answer) { a.Document = &Document{ClientID: "x"} }), noon),
		"another's client":      s.AnswerConsent(ctx, spoil(func(a *Answer) { a.Client = &Client{ID: "x"} }), noon),
		"no user identifier":    s.AddUser(ctx, User{Name: "x"}),
		"no client identifier":  s.RegisterClient(ctx, Client{}, noon),
		"a made-up state":       s.SetClientState(ctx, benchClient, "fine", "", noon),
		"nobody's grants":       s.RevokeUserClient(ctx, "u1", "", noon),
		"an empty jti":          s.DenyToken(ctx, "", noon),
		"a token's own heir":    s.RotateRefresh(ctx, Rotation{Old: RefreshRef{Hash: HashOf("x")}, New: NewRefresh{Hash: HashOf("x")}}, noon),
		"an AMR with a space":   s.StartSession(ctx, Session{UserID: "u1", AMR: []string{"p w"}}),
		"a method with a space": s.RegisterClient(ctx, Client{ID: "x", AuthMethods: []string{"a b"}}, noon),
	} {
		if err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.EndGrantsOf(ctx, Whose{}, "x", noon); err == nil {
		t.Error("ended the grants of nobody")
	}
	if err := s.AnswerConsent(ctx, good, noon); err != nil {
		t.Errorf("the good answer: %v", err)
	}
}

func TestOperatorVerbs(t *testing.T) {
	s := open(t)
	seed(t, s)
	ctx := t.Context()
	if n, err := s.EndGrantsOf(ctx, Whose{UserID: "u1"}, "x", noon); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	family(t, s, "a")
	family(t, s, "b")
	if n, err := s.EndGrantsOf(ctx, Whose{ClientID: benchClient}, "tidying", noon, audit.Event{Type: audit.TypeRevocation}); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := errors.Join(s.DisableUser(ctx, "u1", noon), s.EnableUser(ctx, "u1", noon)); err != nil {
		t.Error(err)
	}
	if u, err := s.UserByID(ctx, "u1"); err != nil || u.Disabled {
		t.Errorf("%+v, %v", u, err)
	}
	if err := s.EnableUser(ctx, "nobody", noon); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := s.DisableUser(ctx, "nobody", noon); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := s.StartSession(ctx, Session{Hash: HashOf("again"), UserID: "u1", Expires: noon.Add(time.Hour)}); err != nil {
		t.Error(err)
	}
	if err := s.SeeSession(ctx, HashOf("again"), noon.Add(time.Minute), noon.Add(2*time.Hour)); err != nil {
		t.Error(err)
	}
	if ses, _, err := s.FindSession(ctx, HashOf("again"), noon.Add(time.Hour)); err != nil || !ses.LastSeen.Equal(noon.Add(time.Minute)) {
		t.Errorf("%+v, %v", ses, err)
	}
	if err := s.SeeSession(ctx, HashOf("session"), noon, noon); !errors.Is(err, ErrNotFound) {
		t.Errorf("an ended session was seen: %v", err)
	}
	if users, err := s.Users(ctx, "", 0); err != nil || len(users) != 1 {
		t.Errorf("%v, %v", users, err)
	}
	key := SigningKey{KID: "k", Alg: "ES256", Wrapped: []byte{1}, Created: noon}
	if err := errors.Join(s.AddSigningKey(ctx, key, ""), s.RetireSigningKey(ctx, "k", noon)); err != nil {
		t.Error(err)
	}
	if keys, err := s.SigningKeys(ctx); err != nil || len(keys) != 1 || !keys[0].Retire.Equal(noon) || !keys[0].Publish.IsZero() {
		t.Errorf("%+v, %v", keys, err)
	}
	if err := s.RetireSigningKey(ctx, "x", noon); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := s.AppendEvents(ctx); err != nil {
		t.Error(err)
	}
	if docs, err := s.Documents(ctx, benchClient, 0); err != nil || len(docs) != 0 {
		t.Errorf("%v, %v", docs, err)
	}
	if st := s.Stats(); st.Jobs == 0 || st.Commits == 0 || st.Commits > st.Jobs {
		t.Errorf("%+v", st)
	}
	if _, err := s.Prune(canceled(), noon); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestClientStandingIsWhatTheRowSays(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	if err := s.RegisterClient(ctx, Client{ID: "registered", RedirectURIs: []string{"https://app.example/cb"}}, noon); err != nil {
		t.Fatal(err)
	}
	if err := s.SetClientState(ctx, "https://blocked.example/c.json", StateBlocked, "test", noon); err != nil {
		t.Fatal(err)
	}
	doc := Document{ClientID: "https://pinned.example/c.json", Body: []byte("{}"), Digest: "d", SecurityDigest: "s", FetchedAt: noon}
	if err := s.PinClient(ctx, Client{ID: doc.ClientID}, doc, noon); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"registered", "https://blocked.example/c.json", "https://pinned.example/c.json"} {
		t.Run("URL-15, REV-06 "+id, func(t *testing.T) {
			row, err := s.Client(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			want := Client{ID: row.ID, Source: row.Source, State: row.State, Version: row.Version, Pinned: row.Pinned}
			got, err := s.ClientStanding(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := s.ClientStanding(ctx, "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("URL-15 got %v", err)
	}
}

func TestAWithdrawnKeyLeavesATrace(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	if err := s.AddSigningKey(ctx, SigningKey{KID: "k1", Alg: "ES256", Wrapped: []byte{1}, Created: noon, Publish: noon, Sign: noon}, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.WithdrawSigningKey(ctx, "k1", noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	t.Run("POL-07 what an operator does to a key is in the audit log", func(t *testing.T) {
		events, err := s.Events(ctx, EventQuery{Type: audit.TypeKey})
		if err != nil || len(events) != 1 || events[0].Code != "withdrawn" || events[0].Data["kid"] != "k1" {
			t.Errorf("%v, %v", events, err)
		}
	})
	t.Run("META-20 a later withdrawal does not bring a key back", func(t *testing.T) {
		if err := s.WithdrawSigningKey(ctx, "k1", noon.Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		keys, err := s.SigningKeys(ctx)
		if err != nil || len(keys) != 1 || !keys[0].Retire.Equal(noon.Add(time.Hour)) {
			t.Errorf("%v, %v", keys, err)
		}
	})
	if err := s.WithdrawSigningKey(ctx, "none", noon); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
