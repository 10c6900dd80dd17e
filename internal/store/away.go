package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// away is an error of a database that cannot do its work now: nobody is at
// fault, and the same call may succeed a little later.
type away struct{ error }

// Unwrap returns the cause.
func (a away) Unwrap() error { return a.error }

// Unavailable tells whoever answers the request that it is 503 and not 500.
func (away) Unavailable() bool { return true }

// wrap says which verb failed, and whether it may succeed a little later.
func wrap(verb string, err error) error {
	if err == nil {
		return nil
	}
	if isAway(err) {
		err = away{err}
	}
	return fmt.Errorf("%s: %w", verb, err)
}

// isAway reports whether an error is about the database and not about what it
// was asked.
func isAway(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgAway(e)
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM:
			return true
		}
		return false
	}
	if errors.Is(err, errCrowded) || errors.Is(err, errOutcome) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) { // the connection ended in the middle of an answer
		return true
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// transient reports whether the engine undid the transaction and it may succeed
// when it is run again.
func transient(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgTransient(e)
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		code := e.Code() & 0xff
		return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
	}
	return false
}
