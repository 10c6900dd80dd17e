package storetest

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
)

// retention removes what is older than a day of a log that grew by an event each
// minute, and looks at what is left.
func retention(ctx context.Context, h *House) error {
	const grown, each = 2500, time.Minute
	now := Noon.Add(grown * each)
	var before []audit.Event
	for i := range grown {
		before = append(before, audit.Event{Type: audit.TypeFetch, Time: Noon.Add(time.Duration(i) * each), Data: map[string]string{"n": strconv.Itoa(i)}})
	}
	err := h.AppendEvents(ctx, before...)
	all, e1 := h.count(ctx)
	n0, e2 := h.ForgetEvents(ctx, Noon.Add(-time.Hour), now)
	n1, e3 := h.ForgetEvents(ctx, now.Add(-24*time.Hour), now)
	left, e4 := h.count(ctx)
	intact, broken, e5 := h.VerifyEvents(ctx)
	said, e6 := h.Events(ctx, store.EventQuery{Type: audit.TypeRetention})
	if err := errors.Join(err, e1, e2, e3, e4, e5, e6, same("nothing is too old", n0, 0), same("what is left and its proofs", left, all-n1+len(said)),
		same("all of it follows", intact, int64(left)), same("none is broken", broken, int64(0))); err != nil {
		return err
	}
	// A thousand go at a time; the few that are over by less than a day wait.
	if n1 != 1000 || len(said) != 1 {
		return errors.New("removed " + strconv.Itoa(n1) + " in " + strconv.Itoa(len(said)) + " steps")
	}
	n2, e7 := h.ForgetEvents(ctx, now.Add(25*time.Hour), now.Add(26*time.Hour))
	n3, e8 := h.ForgetEvents(ctx, now.Add(25*time.Hour), now.Add(26*time.Hour))
	intact, broken, e9 := h.VerifyEvents(ctx)
	left, e10 := h.count(ctx)
	err = h.AppendEvents(ctx, audit.Event{Type: audit.TypeFetch, Time: now})
	newest, e11 := h.Events(ctx, store.EventQuery{After: int64(all + len(said) + 2)})
	return errors.Join(err, e7, e8, e9, e10, e11, same("all that is old", n2 > 1000, true), same("and no more", n3, 0),
		same("all of it follows", intact, int64(left)), same("none is broken", broken, int64(0)),
		same("numbers go on", len(newest), 1))
}

func (h *House) count(ctx context.Context) (n int, err error) {
	for q := (store.EventQuery{Limit: 1000}); ; {
		page, err := h.Events(ctx, q)
		if n += len(page); err != nil || len(page) < q.Limit {
			return n, err
		}
		q.After = page[len(page)-1].Seq
	}
}
