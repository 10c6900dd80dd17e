package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// tx is the writer's connection with its prepared statements. It belongs to the
// writer goroutine. It never uses a context: a change that has started is
// carried out.
type tx struct {
	db    *sql.DB
	conn  *sql.Conn // nil until needed and after a failure
	stmts map[string]*sql.Stmt
	head  head // of the audit, as this transaction sees it
}

// begin starts a transaction that may write.
func (t *tx) begin() error {
	if t.conn == nil {
		conn, err := t.db.Conn(context.Background())
		if err != nil {
			return err
		}
		t.conn, t.stmts = conn, map[string]*sql.Stmt{}
	}
	t.head = head{}
	_, err := t.exec("BEGIN IMMEDIATE")
	return err
}

func (t *tx) commit() error {
	_, err := t.exec("COMMIT")
	return err
}

// rollback undoes the transaction. The engine may have done so already, and then
// says that there is none.
func (t *tx) rollback() { _, _ = t.exec("ROLLBACK") }

// drop closes the connection, which undoes what it had not committed.
func (t *tx) drop() {
	if t.conn == nil {
		return
	}
	for _, s := range t.stmts { // first: a statement must not outlive its connection
		_ = s.Close()
	}
	_ = t.conn.Close()
	t.conn, t.stmts = nil, nil
}

// run carries out one job. Its own failure is left in job.err and undoes only
// what the job did; the error returned is one of the whole transaction.
func (t *tx) run(j *job) error {
	if _, err := t.exec("SAVEPOINT job"); err != nil {
		return err
	}
	before := t.head
	j.err = t.guard(j.do)
	if j.err != nil {
		if transient(j.err) {
			return j.err
		}
		t.head = before
		if _, err := t.exec("ROLLBACK TO job"); err != nil {
			return errors.Join(j.err, err)
		}
	}
	_, err := t.exec("RELEASE job")
	return err
}

// guard turns a panic of one job into its error: the writer serves everybody.
func (t *tx) guard(do func(*tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: panic in a change: %v", p)
		}
	}()
	return do(t)
}

// prepare returns the prepared statement for a query, which must be a constant.
func (t *tx) prepare(query string) (*sql.Stmt, error) {
	if s, ok := t.stmts[query]; ok {
		return s, nil
	}
	s, err := t.conn.PrepareContext(context.Background(), query)
	if err == nil {
		t.stmts[query] = s
	}
	return s, err
}

// exec runs a statement and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	s, err := t.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := s.Exec(args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// get reads the one row of a query, or returns ErrNotFound.
func (t *tx) get(scan []any, query string, args ...any) error {
	s, err := t.prepare(query)
	if err != nil {
		return err
	}
	return found(s.QueryRow(args...).Scan(scan...))
}

// found turns the absence of a row into a fact.
func found(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// stmtCache holds the prepared statements of the readers.
type stmtCache struct{ m sync.Map } // query to *sql.Stmt

func (c *stmtCache) prepare(ctx context.Context, db *sql.DB, query string) (*sql.Stmt, error) {
	if s, ok := c.m.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := db.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if other, ok := c.m.LoadOrStore(query, s); ok {
		_ = s.Close()
		return other.(*sql.Stmt), nil
	}
	return s, nil
}

func (c *stmtCache) close() {
	c.m.Range(func(_, s any) bool {
		_ = s.(*sql.Stmt).Close()
		return true
	})
}

// get reads one row outside any transaction, or returns ErrNotFound. The
// connection is back in its pool when get returns. A look-up by key waits for
// nothing, so it is not begun when ctx has ended and not interrupted later: the
// watch over it would cost more than the look-up.
func (s *Store) get(ctx context.Context, scan []any, query string, args ...any) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx = context.WithoutCancel(ctx)
	stmt, err := s.stmts.prepare(ctx, s.reads, query)
	if err != nil {
		return err
	}
	return found(stmt.QueryRowContext(ctx, args...).Scan(scan...))
}

// list reads rows outside any transaction and calls each with a function that
// scans the current one.
func (s *Store) list(ctx context.Context, each func(scan func(...any) error) error, query string, args ...any) error {
	if s.closed.Load() {
		return ErrClosed
	}
	stmt, err := s.stmts.prepare(ctx, s.reads, query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
