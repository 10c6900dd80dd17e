package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver

	"github.com/bonafide-id/bonafide/internal/planted"
)

// Everything that is particular to SQLite stands in this file and in
// migrations/sqlite. The statements elsewhere are plain SQL with $1 parameters.

//go:embed migrations/*/*.sql
var migrations embed.FS

// busyTimeout is how long a connection waits for a lock that another process
// holds, in milliseconds. Inside this process nobody competes for one.
const busyTimeout = 5000

// pragmas of every connection. FULL makes each commit durable before it returns.
var pragmas = []string{
	fmt.Sprintf("busy_timeout(%d)", busyTimeout),
	"journal_mode(WAL)",
	synchronous(),
	"foreign_keys(1)",
	"trusted_schema(0)",
	"temp_store(MEMORY)",
}

func synchronous() string {
	if planted.Weak("sync") {
		return "synchronous(OFF)"
	}
	return "synchronous(FULL)"
}

// openSQLite returns the writer's database, with one connection and the newest
// schema, and the readers', whose connections can change nothing.
func openSQLite(ctx context.Context, path string, readers int) (w, r *sql.DB, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return nil, nil, fmt.Errorf("locate database: %w", err)
	}
	if err := createPrivate(path); err != nil {
		return nil, nil, fmt.Errorf("create database: %w", err)
	}
	defer func() {
		if err != nil {
			_ = closeAll(w, r) // err is why
			w, r = nil, nil
		}
	}()
	if w, err = sql.Open("sqlite", dsn(path, "cache_size(-4096)", "wal_autocheckpoint(2000)", "journal_size_limit(67108864)")); err != nil {
		return w, r, fmt.Errorf("open database: %w", err)
	}
	w.SetMaxOpenConns(1)
	if err = migrate(ctx, w); err != nil {
		return w, r, err
	}
	w.SetMaxIdleConns(-1) // a connection that the writer drops is closed, with what it had not committed
	if r, err = sql.Open("sqlite", dsn(path, "query_only(1)")); err != nil {
		return w, r, fmt.Errorf("open database for reading: %w", err)
	}
	r.SetMaxOpenConns(readers)
	r.SetMaxIdleConns(readers)
	if err = r.PingContext(ctx); err != nil {
		return w, r, fmt.Errorf("open database for reading: %w", err)
	}
	return w, r, nil
}

func dsn(path string, more ...string) string {
	q := url.Values{"_pragma": append(append([]string{}, pragmas...), more...), "_txlock": {"immediate"}}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	return u.String()
}

// createPrivate makes sure that the file exists and that a new one is readable
// by its owner only. SQLite gives its side files the mode of the database.
func createPrivate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// migrate brings the schema up to what this program knows. It refuses a schema
// that a newer program wrote: its rows may mean something else.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	// Two programs may start at once: the slower one finds the tables made and
	// looks again.
	for range 5 {
		var current, target int64
		if current, target, err = p.GetVersions(ctx); err == nil {
			if current > target {
				return newer(current, target)
			}
			if _, err = p.Up(ctx); err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("migrate database: %w", err)
}

// newer refuses a schema.
func newer(current, target int64) error {
	return fmt.Errorf("the database has schema version %d and this program knows %d: use a newer program", current, target)
}

func closeAll(dbs ...*sql.DB) error {
	var errs []error
	for _, db := range dbs {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}
