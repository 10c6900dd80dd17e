package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
)

// guessChecks are the clauses about codes of devices that somebody typed.
var guessChecks = []Check{
	{"DEV-03, attack DV-03: replicas count wrong user codes together, however many are typed at once", func(ctx context.Context, h *House) error {
		const most = 7
		return h.replicas(func(s func(int) Store) error {
			return inFewRounds(func(n int) error {
				h.n++
				g := store.Guess{Window: time.Minute, Against: []store.Allowance{{Key: store.HashOf(fmt.Sprint("all ", h.n)), Most: most}}}
				var tried atomic.Int32
				if _, err := race(n, store.ErrTooFast, func(i int) error {
					mine := g
					mine.UserCode = store.HashOf(fmt.Sprint("wrong ", i))
					mine.Against = append([]store.Allowance{{Key: store.HashOf(fmt.Sprint("account ", h.n, i)), Most: 1}}, g.Against...)
					_, wait, err := s(i).GuessUserCode(ctx, mine, Noon)
					if errors.Is(err, store.ErrNotFound) {
						tried.Add(1)
						return nil
					}
					return errors.Join(err, same("wait", wait, time.Minute))
				}); err != nil {
					return err
				}
				return same("codes that were tried", int(tried.Load()), min(most, n))
			})
		})
	}},
	{"DEV-03 a right code counts for nothing, a wrong one against everything, until the window ends", func(ctx context.Context, h *House) error {
		d, err := h.start(ctx)
		used, _, uerr := h.approved(ctx)
		g := store.Guess{Window: time.Minute, Against: []store.Allowance{{Key: store.HashOf("john"), Most: 3}, {Key: store.HashOf("office"), Most: 5}}}
		guess := func(code store.Hash, now time.Time) (store.Device, time.Duration, error) {
			g.UserCode = code
			return h.GuessUserCode(ctx, g, now)
		}
		for range 10 {
			found, _, ferr := guess(d.UserCode, Noon)
			err = errors.Join(err, ferr, same("found", found.Hash, d.Hash))
		}
		nobody := store.HashOf("nobody")
		got, _, e1 := guess(nobody, Noon)
		_, _, e2 := guess(used.UserCode, Noon.Add(time.Second))
		_, _, e3 := guess(nobody, Noon.Add(time.Second))
		_, wait, e4 := guess(d.UserCode, Noon.Add(2*time.Second))
		g.Against[0].Key = store.HashOf("jane")
		_, _, e5 := guess(nobody, Noon.Add(2*time.Second))
		_, _, e6 := guess(nobody, Noon.Add(2*time.Second))
		_, _, e7 := guess(d.UserCode, Noon.Add(2*time.Second))
		g.Against[0].Key = store.HashOf("john")
		found, _, e8 := guess(d.UserCode, Noon.Add(time.Minute))
		_, _, e9 := guess(d.UserCode, d.Expires)
		err = errors.Join(err, uerr, is("wrong", e1, store.ErrNotFound), is("answered", e2, store.ErrSpent), is("wrong again", e3, store.ErrNotFound),
			is("the account has had its guesses", e4, store.ErrTooFast), same("wait", wait, 58*time.Second), is("another account", e5, store.ErrNotFound),
			is("another account again", e6, store.ErrNotFound), is("the network has had its guesses", e7, store.ErrTooFast),
			is("after the window", e8, nil), same("found after the window", found.Hash, d.Hash), same("nothing is returned with a wrong one", got.ClientID, ""),
			is("expired", e9, store.ErrExpired))
		g.UserCode, g.Against = nobody, nil
		if _, _, none := h.GuessUserCode(ctx, g, Noon); none == nil {
			err = errors.Join(err, errors.New("a guess that counts against nothing"))
		}
		return err
	}},
	{"DEV-03, attack FA-11: what was counted by a clock that was years ahead binds nobody once it is put back", func(ctx context.Context, h *House) error {
		d, err := h.start(ctx)
		g := store.Guess{Window: time.Minute, Against: []store.Allowance{{Key: store.HashOf("john"), Most: 2}}}
		guess := func(code store.Hash, now time.Time) (time.Duration, error) {
			g.UserCode = code
			_, wait, err := h.GuessUserCode(ctx, g, now)
			return wait, err
		}
		nobody, ahead := store.HashOf("nobody"), Noon.AddDate(5, 0, 0)
		for range 2 {
			_, wrong := guess(nobody, ahead)
			err = errors.Join(err, is("years ahead", wrong, store.ErrNotFound))
		}
		_, full := guess(d.UserCode, ahead)
		_, right := guess(d.UserCode, Noon)
		_, e1 := guess(nobody, Noon)
		_, e2 := guess(nobody, Noon)
		// A replica that is late by as much as is allowed counts with the others.
		wait, e3 := guess(d.UserCode, Noon.Add(-store.ClockMargin))
		_, after := guess(d.UserCode, Noon.Add(time.Minute))
		return errors.Join(err, is("years ahead, one too many", full, store.ErrTooFast), right, is("one wrong", e1, store.ErrNotFound), is("two", e2, store.ErrNotFound),
			is("a replica that is late", e3, store.ErrTooFast), same("which waits for", wait, time.Minute+store.ClockMargin), is("after the window", after, nil))
	}},
	{"DEV-03, attack DV-03, attack DS-13: what was counted is known after a restart, and swept when it has ended", func(ctx context.Context, h *House) error {
		g := store.Guess{UserCode: store.HashOf("nobody"), Window: time.Minute, Against: []store.Allowance{{Key: store.HashOf("john"), Most: 1}}}
		_, _, e1 := h.GuessUserCode(ctx, g, Noon)
		other, err := h.Reopen()
		if err != nil {
			return err
		}
		_, _, e2 := other.GuessUserCode(ctx, g, Noon)
		early, perr := h.Prune(ctx, Noon.Add(time.Minute))
		swept, perr2 := h.Prune(ctx, Noon.Add(time.Minute+store.ClockMargin+time.Second))
		return errors.Join(other.Close(), perr, perr2, is("wrong", e1, store.ErrNotFound), is("by another replica", e2, store.ErrTooFast),
			same("swept too early", early, 0), same("swept", swept, 1))
	}},
}
