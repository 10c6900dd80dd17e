package store

import (
	"database/sql"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
)

// old returns a database of the program before the whole protocol.
func old(t *testing.T, engine string) (path string, db *sql.DB) {
	t.Helper()
	dialect, driver := goose.DialectSQLite3, "sqlite"
	if engine == "postgres" {
		dialect, driver, path = goose.DialectPostgres, "pgx", empty(t)
	} else if path = filepath.Join(t.TempDir(), "old.db"); createPrivate(path) != nil {
		t.Fatal("cannot make " + path)
	}
	source := path
	if engine == "sqlite" {
		source = dsn(path)
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Sub(migrations, "migrations/"+engine)
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(dialect, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	return path, db
}

// A database of the program before this schema keeps its people, sessions and
// grants.
func TestMigrateToProtocol(t *testing.T) {
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) { migrateToProtocol(t, engine) })
	}
}

func migrateToProtocol(t *testing.T, engine string) {
	path, db := old(t, engine)
	grant, code := NewID(noon), HashOf("code")
	expires := micros(noon) + 60e6
	for _, q := range []struct {
		query string
		args  []any
	}{
		{`INSERT INTO users (id, name, name_key, email, password_hash, created_at) VALUES ('u1', 'John', 'john', 'John@Example.test', 'x', $1)`, []any{micros(noon)}},
		{`INSERT INTO sessions (hash, user_id, auth_time, created_at, last_seen_at, expires_at, acr, amr) VALUES ($1, 'u1', $2, $2, $2, $3, '1', 'pwd')`, []any{HashOf("session"), micros(noon), expires}},
		{`INSERT INTO sessions (hash, user_id, auth_time, created_at, last_seen_at, expires_at, acr, amr) VALUES ($1, 'u1', $2, $2, $2, $3, '1', 'pwd')`, []any{HashOf("other"), micros(noon), expires}},
		{`INSERT INTO clients (client_id, source, state, reason, name, secret_hash, redirect_uris, grant_types, auth_methods, scope, has_scope, jwks_uri, version, created_at, last_used_at)
			VALUES ($1, 'registered', 'allowed', '', '', '', '[]', '', '', '', $3, '', 0, $2, $2)`, []any{benchClient, micros(noon), false}},
		{`INSERT INTO grants (id, user_id, client_id, resource, scopes, security_digest, version, auth_methods, auth_method, key_thumbprint, auth_time, acr, amr, nonce,
			created_at, last_used_at, expires_at, head, head_expires_at, end_reason) VALUES ($1, 'u1', $2, '', '', '', 0, '', '', '', $3, '', '', '', $3, $3, $4, 0, 0, '')`, []any{grant, benchClient, micros(noon), expires}},
		{`INSERT INTO codes (hash, grant_id, redirect_uri, challenge, expires_at) VALUES ($1, $2, '', '', $3)`, []any{code, grant, expires}},
	} {
		if _, err := db.Exec(q.query, q.args...); err != nil {
			t.Fatalf("%s: %v", q.query, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	s := openAt(t, path)
	t.Run("an old grant is one of a code, bound to nothing", func(t *testing.T) {
		g, err := s.GrantActive(t.Context(), grant)
		if err != nil || g.Kind != KindCode || g.JKT+g.InstanceJKT+g.CertThumbprint+g.Details+g.SID+g.Actor != "" {
			t.Errorf("%+v, %v", g, err)
		}
		if _, err := s.RedeemCode(t.Context(), Redemption{Hash: code, JKT: "jkt"}, noon); err != nil {
			t.Error(err)
		}
		if g, err := s.GrantActive(t.Context(), grant); err != nil || g.JKT != "jkt" {
			t.Errorf("%+v, %v", g, err)
		}
	})
	t.Run("an old session gets a name of its own", func(t *testing.T) {
		one, _, err1 := s.FindSession(t.Context(), HashOf("session"), noon)
		two, _, err2 := s.FindSession(t.Context(), HashOf("other"), noon)
		if err1 != nil || err2 != nil || one.SID == "" || one.SID == two.SID {
			t.Errorf("%q and %q, %v, %v", one.SID, two.SID, err1, err2)
		}
	})
	t.Run("an old account is found by its address", func(t *testing.T) {
		if u, err := s.UserByEmail(t.Context(), "john@example.TEST"); err != nil || u.ID != "u1" || u.Email != "John@Example.test" {
			t.Errorf("%+v, %v", u, err)
		}
	})
	t.Run("an old client never expires", func(t *testing.T) {
		if c, err := s.Client(t.Context(), benchClient); err != nil || !c.Expires.IsZero() || len(c.PostLogoutRedirectURIs) > 0 {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// A refresh token from when each had a row of its own works as before, and its
// successor is of the new kind.
func TestMigrateRefreshTokens(t *testing.T) {
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) { migrateRefreshTokens(t, engine) })
	}
}

func migrateRefreshTokens(t *testing.T, engine string) {
	path, db := old(t, engine)
	grant := NewID(noon)
	idle, absolute := noon.Add(time.Hour), noon.Add(2*time.Hour)
	first, second := RefreshRef{Hash: HashOf("first")}, RefreshRef{Hash: HashOf("second")}
	for _, q := range []struct {
		query string
		args  []any
	}{
		{`INSERT INTO users (id, name, name_key, email, password_hash, created_at) VALUES ('u1', 'John', 'john', '', 'x', $1)`, []any{micros(noon)}},
		{`INSERT INTO clients (client_id, source, state, reason, name, secret_hash, redirect_uris, grant_types, auth_methods, scope, has_scope, jwks_uri, version, created_at, last_used_at)
			VALUES ($1, 'registered', 'allowed', '', '', '', '[]', '', '', '', $3, '', 0, $2, $2)`, []any{benchClient, micros(noon), false}},
		{`INSERT INTO grants (id, user_id, client_id, resource, scopes, security_digest, version, auth_methods, auth_method, key_thumbprint, auth_time, acr, amr, nonce,
			created_at, last_used_at, expires_at, head, head_hash, head_expires_at, head_grace, end_reason)
			VALUES ($1, 'u1', $2, '', 'read', '', 0, '', 'none', '', $3, '', '', '', $3, $3, $4, 2, $5, $4, $6, '')`,
			[]any{grant, benchClient, micros(noon), micros(idle), second.Hash, []byte("sealed 2")}},
		{`INSERT INTO refresh_tokens (hash, grant_id, generation, scopes, expires_at, absolute_at) VALUES ($1, $2, 1, '', $3, $4)`, []any{first.Hash, grant, micros(idle), micros(absolute)}},
		{`INSERT INTO refresh_tokens (hash, grant_id, generation, scopes, expires_at, absolute_at) VALUES ($1, $2, 2, '', $3, $4)`, []any{second.Hash, grant, micros(idle), micros(absolute)}},
	} {
		if _, err := db.Exec(q.query, q.args...); err != nil {
			t.Fatalf("%s: %v", q.query, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	s := openAt(t, path)
	used, _, err := s.FindRefresh(t.Context(), first, noon)
	if err != nil || !used.Used || used.Successor != second.Hash || string(used.Grace) != "sealed 2" || used.GrantID != grant {
		t.Errorf("the first: %+v, %v", used, err)
	}
	newest, g, err := s.FindRefresh(t.Context(), second, noon)
	if err != nil || newest.Used || newest.Generation != 2 || !newest.Expires.Equal(idle) || !newest.Absolute.Equal(absolute) || g.ID != grant {
		t.Fatalf("the second: %+v, %+v, %v", newest, g, err)
	}
	next := RefreshRef{GrantID: grant, Generation: 3, Family: HashOf("family"), Hash: HashOf("third")}
	err = s.RotateRefresh(t.Context(), Rotation{Old: newest.RefreshRef, Grace: []byte("sealed 3"),
		New: NewRefresh{Hash: next.Hash, Family: next.Family, Expires: absolute.Add(time.Hour), Absolute: absolute.Add(time.Hour)}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if third, _, err := s.FindRefresh(t.Context(), next, noon); err != nil || third.Used || !third.Expires.Equal(absolute) || !third.Absolute.Equal(absolute) {
		t.Errorf("the third: %+v, %v", third, err)
	}
	for name, old := range map[string]RefreshRef{"first": first, "second": second} {
		r, _, err := s.FindRefresh(t.Context(), old, noon)
		if err != nil || !r.Used || r.SuccessorUsed != (name == "first") || r.Family != next.Family {
			t.Errorf("the %s afterwards: %+v, %v", name, r, err)
		}
	}
	if err := s.RotateRefresh(t.Context(), Rotation{Old: newest.RefreshRef, New: NewRefresh{Hash: HashOf("rival")}}, noon); !errors.Is(err, ErrSpent) {
		t.Errorf("the second once more: %v", err)
	}
}
