package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// tx is the writer's connection with its prepared statements. It belongs to the
// writer goroutine. No caller's context is used here: a change that has started
// is carried out.
type tx struct {
	db       *sql.DB
	postgres bool
	conn     *sql.Conn // nil until needed and after a failure
	stmts    map[string]*sql.Stmt

	ctx        context.Context     // ends when the database has taken too long
	before     string              // goes before the next control statement
	committing bool                // COMMIT was sent
	head       head                // of the audit, as this transaction sees it
	pending    []row               // of the audit, on PostgreSQL: written together at the end of a transaction without savepoints
	topics     map[string]struct{} // what those who watch have to hear of

	apart   int  // for so many transactions more each job has a savepoint of its own
	changed bool // the current job changed something
	failed  bool // one of its statements did
}

// apartFor is for how many transactions jobs are kept apart after one of them
// had to be undone.
const apartFor = 16

// errApart says that a job has to be undone alone, and that it cannot be: nothing
// of the transaction happened, and it is run again with the jobs apart.
var errApart = errors.New("a change has to be undone alone")

// begin starts a transaction that may write. On PostgreSQL that goes with the
// first savepoint, if there are any, to save a way to the server and back.
func (t *tx) begin(ctx context.Context) error {
	t.ctx, t.head, t.pending, t.committing, t.topics = ctx, head{}, t.pending[:0], false, nil
	if t.conn == nil {
		conn, err := t.db.Conn(ctx)
		if err != nil {
			return err
		}
		t.conn, t.stmts = conn, map[string]*sql.Stmt{}
	}
	if !t.postgres {
		_, err := t.exec("BEGIN IMMEDIATE")
		return err
	}
	if t.before = pgBegin; t.apart > 0 {
		return nil
	}
	_, err := t.control("")
	return err
}

// commit makes the transaction durable. On PostgreSQL an error that is not the
// server's own refusal leaves open whether it stands, and errOutcome says so.
func (t *tx) commit() error {
	if !t.postgres {
		_, err := t.exec("COMMIT")
		return err
	}
	t.before, t.committing = "", true
	did, err := t.control(pgCommit)
	switch {
	case idledAway(err), unsent(err):
		t.committing = false // the server had ended it before it could read the commit
	case err != nil && !transient(err):
		return errors.Join(errOutcome, err)
	case err == nil && did != "COMMIT":
		return fmt.Errorf("the transaction ended with %q", did)
	}
	return err
}

// rollback undoes the transaction. The engine may have done so already, and then
// says that there is none.
func (t *tx) rollback() {
	if !t.postgres {
		_, _ = t.exec("ROLLBACK")
		return
	}
	if t.before = ""; t.conn != nil {
		_, _ = t.control("ROLLBACK")
	}
}

// drop closes the connection, which undoes what it had not committed.
func (t *tx) drop() {
	if t.conn == nil {
		return
	}
	if !t.postgres {
		for _, s := range t.stmts { // first: a statement must not outlive its connection
			_ = s.Close()
		}
	}
	_ = t.conn.Close()
	t.conn, t.stmts = nil, nil
}

// again reports whether a transaction that failed may be run again, and makes
// ready for it. What was lost before the commit was sent did not happen. What was
// lost after it may have: that is never run again.
func (t *tx) again(err error) bool {
	switch {
	case transient(err), errors.Is(err, errApart):
		return true
	case t.committing || t.ctx.Err() != nil || !t.lost():
		return false
	}
	t.drop()
	return true
}

// run carries out one job. Its own failure is left in job.err and undoes only
// what the job did; the error returned is one of the whole transaction. A savepoint
// costs as much as a small job, and nearly all jobs that fail do so before they
// change anything: they have one only when it turned out that one was needed.
func (t *tx) run(j *job) error {
	if t.apart > 0 {
		return t.runApart(j)
	}
	before, pending := t.head, len(t.pending)
	t.changed, t.failed = false, false
	j.err = t.guard(j.do)
	switch {
	case j.err != nil && (transient(j.err) || t.lost()):
		return j.err
	case t.failed || j.err != nil && t.changed:
		return errApart
	case j.err != nil:
		t.head, t.pending = before, t.pending[:pending]
	}
	return nil
}

// runApart is run with a savepoint.
func (t *tx) runApart(j *job) error {
	if err := t.steer("SAVEPOINT job"); err != nil {
		return err
	}
	before := t.head
	j.err = t.guard(j.do)
	if j.err != nil {
		if transient(j.err) || t.lost() {
			return j.err
		}
		t.head = before
		if err := t.steer("ROLLBACK TO job"); err != nil {
			return errors.Join(j.err, err)
		}
	}
	if t.postgres {
		t.before = "RELEASE job"
		return nil
	}
	return t.steer("RELEASE job")
}

// steer runs a statement that steers the transaction.
func (t *tx) steer(text string) (err error) {
	if t.postgres {
		_, err = t.control(text)
	} else {
		_, err = t.exec(text)
	}
	return err
}

// guard turns a panic of one job into its error: the writer serves everybody.
func (t *tx) guard(do func(*tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.failed = true
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
	s, err := t.conn.PrepareContext(t.ctx, query)
	if err != nil {
		t.failed = true
		return nil, err
	}
	t.stmts[query] = s
	return s, nil
}

// did notes what a statement did for the current job: whether it failed, or
// changed as much as one row.
func (t *tx) did(query string, rows bool, err error) {
	t.failed = t.failed || err != nil
	t.changed = t.changed || err == nil && rows && !strings.HasPrefix(query, "SELECT")
}

// exec runs a statement and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	s, err := t.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(t.ctx, args...)
	if err != nil {
		t.did(query, false, err)
		return 0, err
	}
	n, err := res.RowsAffected()
	t.did(query, n > 0, err)
	return n, err
}

// get reads the one row of a query, or returns ErrNotFound.
func (t *tx) get(scan []any, query string, args ...any) error {
	s, err := t.prepare(query)
	if err != nil {
		return err
	}
	err = s.QueryRowContext(t.ctx, args...).Scan(scan...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	t.did(query, true, err)
	return err
}

// found turns the absence of a row into a fact. Text that PostgreSQL cannot keep
// is in no row of it. In a transaction it is no fact: it may be what is written,
// and has failed it.
func found(err error) error {
	if errors.Is(err, sql.ErrNoRows) || unstorable(err) {
		return ErrNotFound
	}
	return err
}

// none is found for a list.
func none(err error) error {
	if unstorable(err) {
		return nil
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
	ctx, done := s.lookUp(ctx)
	defer done()
	stmt, err := s.stmts.prepare(ctx, s.reads, query)
	if err != nil {
		return err
	}
	return found(stmt.QueryRowContext(ctx, args...).Scan(scan...))
}

// lookUp returns the context of a look-up. The end of a request does not reach
// it, which would cost the connection on PostgreSQL; its deadline does, and that
// of a server that does not answer.
func (s *Store) lookUp(ctx context.Context) (context.Context, context.CancelFunc) {
	bare := context.WithoutCancel(ctx)
	if !s.postgres {
		return bare, func() {}
	}
	end := time.Now().Add(s.answers)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	return context.WithDeadline(bare, end)
}

// list reads rows outside any transaction and calls each with a function that
// scans the current one.
func (s *Store) list(ctx context.Context, each func(scan func(...any) error) error, query string, args ...any) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.postgres {
		var done context.CancelFunc
		ctx, done = s.lookUp(ctx)
		defer done()
	}
	stmt, err := s.stmts.prepare(ctx, s.reads, query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return none(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return none(rows.Err())
}
