package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	maxBatch   = 256             // changes in one transaction
	maxRuns    = 5               // of one transaction, when the engine asks to run it again
	slowCommit = 2 * time.Second // worth a line in the log

	growFor  = 250 * time.Millisecond // after this a transaction takes in no more
	patience = 10 * time.Second       // of a caller in the queue; then the database is too slow for what is asked of it
)

// Store is the database. It is safe for use by many goroutines and holds no
// lock while it waits for the disk.
type Store struct {
	now      func() time.Time
	log      *slog.Logger
	postgres bool
	address  string  // of PostgreSQL
	writes   *sql.DB // one connection, owned by the writer goroutine
	reads    *sql.DB
	stmts    stmtCache // of reads
	queue    chan *job
	closing  chan struct{} // closed by Close
	stopped  chan struct{} // closed by the writer when no job will run any more
	closed   atomic.Bool
	moved    moved                                  // whether the clock was, for Prune
	passed   func(from, to time.Time) time.Duration // monotonic; a test has its own
	wall     func() time.Time                       // the clock of this machine; a test has its own
	waits    time.Duration                          // patience; a test has its own
	answers  time.Duration                          // within which PostgreSQL has to; a test has its own
	signals  signals                                // to those who watch
	looks    time.Duration                          // how often Watch looks again; a test has its own
	silence  time.Duration                          // after which the connection that listens is tried; a test has its own

	jobs, commits, retries atomic.Uint64
}

// Open opens the database, creates it if there is none and brings its schema up
// to date. Close the Store when no method is going to be called any more.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Path == "" {
		return nil, errors.New("store: a path is required")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Readers <= 0 {
		c.Readers = 6
	}
	if c.Queue <= 0 {
		c.Queue = 1024
	}
	var w, r *sql.DB
	var err error
	postgres := isPostgres(c.Path)
	if postgres {
		w, r, err = openPostgres(ctx, c.Path, c.Readers, c.Logger)
	} else {
		w, r, err = openSQLite(ctx, c.Path, c.Readers)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{
		now: c.Now, log: c.Logger, writes: w, reads: r, passed: monotonic, wall: time.Now, waits: patience, answers: pgBatch, looks: lookAgain, silence: stillThere,
		postgres: postgres, address: c.Path,
		queue:   make(chan *job, c.Queue),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	go s.writer()
	return s, nil
}

// Close carries out what waits in the queue and closes the database. Methods
// called later return ErrClosed.
func (s *Store) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	close(s.closing)
	<-s.stopped
	s.stmts.close()
	if err := closeAll(s.reads, s.writes); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// Stats returns what the writer did so far.
func (s *Store) Stats() Stats {
	return Stats{Queued: len(s.queue), Jobs: s.jobs.Load(), Commits: s.commits.Load(), Retries: s.retries.Load()}
}

// job is one change that waits for the writer. Whoever moves its state away
// from waiting decides whether it runs.
type job struct {
	ctx   context.Context
	do    func(*tx) error // may run several times; only its last run counts
	err   error           // of the last run; owned by the writer until done is closed
	state atomic.Int32    // waiting, running or dropped
	done  chan struct{}
}

const (
	waiting int32 = iota
	running
	dropped
)

// write queues a change and returns when it is durable or has failed. A change
// whose caller went away before it started is dropped; once it has started the
// caller waits for the truth.
func (s *Store) write(ctx context.Context, do func(*tx) error) error {
	j := &job{ctx: ctx, do: do, done: make(chan struct{})}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if s.closed.Load() {
		return ErrClosed
	}
	wait := time.NewTimer(s.waits)
	defer wait.Stop()
	select {
	case s.queue <- j:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.closing:
		return ErrClosed
	case <-wait.C:
		return errCrowded
	}
	select {
	case <-j.done:
		return j.err
	case <-wait.C:
		if j.state.CompareAndSwap(waiting, dropped) {
			return errCrowded
		}
	case <-ctx.Done():
		if j.state.CompareAndSwap(waiting, dropped) {
			return context.Cause(ctx)
		}
	case <-s.stopped:
		if j.state.CompareAndSwap(waiting, dropped) {
			return ErrClosed
		}
	}
	<-j.done
	return j.err
}

// writer is the only goroutine that changes the database.
func (s *Store) writer() {
	defer close(s.stopped)
	w := &tx{db: s.writes, postgres: s.postgres}
	defer w.drop()
	for {
		select {
		case j := <-s.queue:
			s.runBatch(w, j)
		case <-s.closing:
			for {
				select {
				case j := <-s.queue:
					s.runBatch(w, j)
				default:
					return
				}
			}
		}
	}
}

// runBatch carries out first, and all that waits behind it, in one transaction,
// and only then tells the callers. If the transaction fails, it fails for all of
// them; one that the engine asks to run again is run again.
func (s *Store) runBatch(w *tx, first *job) {
	batch := s.take(nil, first)
	if len(batch) == 0 {
		return
	}
	start := time.Now()
	ctx := context.Background()
	if s.postgres {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, s.answers)
		defer done()
	}
	var err error
	if w.apart > 0 {
		w.apart--
	}
	for run := range maxRuns {
		if batch, err = s.runOnce(ctx, w, batch); err == nil || !w.again(err) {
			break
		}
		s.retries.Add(1)
		if errors.Is(err, errApart) {
			w.apart = apartFor
			continue
		}
		s.log.Warn("store: transaction is run again", "run", run+1, "jobs", len(batch), "error", err)
	}
	if err == nil {
		s.signals.send(w.topics)
	} else {
		w.drop() // the next batch starts on a fresh connection
		err = fmt.Errorf("commit: %w", err)
		s.log.Error("store: transaction failed", "jobs", len(batch), "error", err)
	}
	if d := time.Since(start); d > slowCommit {
		s.log.Warn("store: slow transaction", "took", d, "jobs", len(batch))
	}
	s.commits.Add(1)
	s.jobs.Add(uint64(len(batch)))
	for _, j := range batch {
		if err != nil {
			j.err = err
		}
		close(j.done)
	}
}

// take claims a job, unless its caller has gone.
func (s *Store) take(batch []*job, j *job) []*job {
	if j.state.CompareAndSwap(waiting, running) {
		if j.ctx.Err() == nil {
			return append(batch, j)
		}
		j.err = context.Cause(j.ctx)
		close(j.done)
	}
	return batch
}

// runOnce runs the jobs and commits. The batch it returns has grown by what
// arrived meanwhile.
func (s *Store) runOnce(ctx context.Context, w *tx, batch []*job) (_ []*job, err error) {
	start := time.Now()
	if err := w.begin(ctx); err != nil {
		return batch, err
	}
	for i := 0; i < len(batch); i++ {
		if err := w.run(batch[i]); err != nil {
			w.rollback()
			return batch, err
		}
		if i == len(batch)-1 && time.Since(start) < growFor {
			if batch = s.arrived(batch); i == len(batch)-1 {
				// Those who are about to queue get their turn first: one
				// flush of the disk then serves more of them.
				runtime.Gosched()
				batch = s.arrived(batch)
			}
		}
	}
	err = w.flush()
	if err == nil {
		err = w.commit()
	}
	if err != nil {
		w.rollback()
	}
	return batch, err
}

// arrived adds one of those who wait in the queue now.
func (s *Store) arrived(batch []*job) []*job {
	for before := len(batch); len(batch) == before && len(batch) < maxBatch; {
		select {
		case j := <-s.queue:
			batch = s.take(batch, j)
		default:
			return batch
		}
	}
	return batch
}
