package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
)

// task is a duty of the housekeeping.
type task struct {
	name  string
	every time.Duration
	first bool // at the start too
	do    func(context.Context) error
}

// housekeeping rotates keys, prunes what has expired and looks at the documents
// of clients that hold grants (FETCH-24), until ctx ends.
func (s *Server) housekeeping(ctx context.Context) {
	tasks := []task{
		{name: "rotate signing keys", every: 30 * time.Second, do: s.keys.Tick},
		{name: "prune", every: time.Minute, do: s.Prune},
		{name: "look at client documents", every: 15 * time.Minute, first: true, do: s.visit},
		{name: "pace of the collector", every: time.Second, do: new(pace).tend},
	}
	if s.cfg.shared() { // in case a change could not be followed when it was told
		tasks = append(tasks, task{name: "follow the policy", every: 30 * time.Second, do: s.follow})
	}
	keep(ctx, s.log, tasks...)
}

// Prune removes what has lost its use, and events past their time. The daemon
// does it each minute.
func (s *Server) Prune(ctx context.Context) error {
	now := s.opts.Now()
	if _, err := s.store.Prune(ctx, now); err != nil || s.cfg.Audit.Keep == 0 {
		return err
	}
	_, err := s.store.ForgetEvents(ctx, now.Add(-s.cfg.Audit.Keep), now)
	return err
}

// keep carries out each task in its time and in a goroutine of its own: the slow
// hosts of strangers must not hold up the rotation of keys. A failure is logged
// and tried again when the time comes. It returns when ctx has ended and all rest.
func keep(ctx context.Context, log *slog.Logger, tasks ...task) {
	var wg sync.WaitGroup
	for _, t := range tasks {
		wg.Go(func() {
			tick := time.NewTicker(t.every)
			defer tick.Stop()
			for due := t.first; ; due = true {
				if due {
					if err := t.do(ctx); err != nil && ctx.Err() == nil {
						log.Error("housekeeping", "task", t.name, "error", err)
					}
				}
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	wg.Wait()
}

// visit revalidates the documents of clients that somebody has agreed to.
func (s *Server) visit(ctx context.Context) error {
	const page = 200
	for after := ""; ; {
		rows, err := s.store.Clients(ctx, after, page)
		if err != nil {
			return err
		}
		var ids []string
		for _, c := range rows {
			if c.Source == directory.SourceCIMD && c.State == directory.StateAllowed {
				ids = append(ids, c.ID)
			}
			after = c.ID
		}
		s.directory.Revalidate(ctx, ids)
		if len(rows) < page || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
