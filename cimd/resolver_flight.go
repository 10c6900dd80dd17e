package cimd

import (
	"context"
	"sync"

	"github.com/bonafide-id/bonafide/internal/planted"
)

// flights runs one piece of work per key at a time and shares the result.
type flights struct {
	mu     sync.Mutex // guards m and closed
	m      map[key]*flight
	closed bool
	all    sync.WaitGroup
}

type flight struct {
	done  chan struct{} // closed when entry and err are set
	entry *entry
	err   *Error
}

// join returns the flight of a key. If there is none, may decides under the lock
// whether one starts: an entry or an error of it is the answer to this caller
// alone, so that the refusal of one never reaches another.
func (f *flights) join(k key, may, run func() (*entry, *Error)) (*flight, *entry, *Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.m[k]; fl != nil && !planted.Weak("coalesce") {
		return fl, nil, nil
	}
	if e, err := may(); e != nil || err != nil {
		return nil, e, err
	}
	if f.closed {
		return nil, nil, &Error{Kind: KindFetch, Hint: "the server is shutting down"}
	}
	fl := &flight{done: make(chan struct{})}
	if f.m == nil {
		f.m = make(map[key]*flight)
	}
	f.m[k] = fl
	f.all.Go(func() {
		// Whatever becomes of run, nobody waits for ever. It may call the program
		// that embeds us, which may end the goroutine.
		fl.err = &Error{Kind: KindFetch, Hint: "the fetch was given up"}
		defer func() {
			f.mu.Lock()
			delete(f.m, k)
			f.mu.Unlock()
			close(fl.done)
		}()
		fl.entry, fl.err = run()
	})
	return fl, nil, nil
}

// close lets nothing start any more and returns when nothing is in flight.
func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.all.Wait()
}

// result waits for the end of the flight, or for the end of the caller.
func (fl *flight) result(ctx context.Context) (*entry, *Error) {
	select {
	case <-fl.done:
		return fl.entry, fl.err
	case <-ctx.Done():
		return nil, &Error{Kind: KindFetch, Hint: "the request ended before the document arrived", Err: context.Cause(ctx)}
	}
}
