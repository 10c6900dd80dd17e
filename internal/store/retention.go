package store

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// forgetStep is how many events one step of ForgetEvents removes at most.
const forgetStep = 1000

// ForgetEvents removes events from before a time, the oldest first, in steps that
// let other changes through, and returns how many. The hash of the newest one it
// removes stays, and each step is an event itself that names it, so that what is
// left still proves itself (VerifyEvents). So that this does not write an event
// for each it removes, fewer than a thousand wait until the oldest of them is a
// day over. While Prune mistrusts the clock nothing is removed: by a clock that is
// years ahead everything is old (FA-11); nor is it by a replica whose clock is far
// from the database's. ctx can end it between two steps.
func (s *Store) ForgetEvents(ctx context.Context, before, now time.Time) (n int, err error) {
	if !s.moved.trusted() {
		return 0, nil
	}
	if err := s.clocksAgree(ctx); err != nil {
		return 0, wrap("forget events", err)
	}
	for {
		step := 0
		err := s.write(ctx, func(t *tx) (err error) {
			step, err = t.forget(before, now)
			return err
		})
		n += step
		if err != nil || step < forgetStep {
			return n, wrap("forget events", err)
		}
	}
}

func (t *tx) forget(before, now time.Time) (int, error) {
	var oldest int64
	var at time.Time
	if err := t.get([]any{&oldest, instant{&at}}, `SELECT seq, at FROM audit ORDER BY seq LIMIT 1`); err != nil {
		return 0, ignore(err, ErrNotFound)
	}
	var through head
	err := t.get([]any{&through.seq, &through.hash}, `SELECT seq, hash FROM audit WHERE seq < $1 AND at < $2 ORDER BY seq DESC LIMIT 1`,
		oldest+forgetStep, micros(before))
	if err != nil {
		return 0, ignore(err, ErrNotFound)
	}
	n := int(through.seq - oldest + 1)
	if n < forgetStep && at.After(before.Add(-24*time.Hour)) {
		return 0, nil
	}
	// First the event, which follows what it removes.
	if err := t.record(now, audit.Event{Time: now, Type: audit.TypeRetention, Code: "removed", Data: map[string]string{
		"through": strconv.FormatInt(through.seq, 10), "hash": hex.EncodeToString(through.hash[:]), "events": strconv.Itoa(n),
	}}); err != nil {
		return 0, err
	}
	if _, err := t.exec(`INSERT INTO audit_checkpoint (one, seq, hash) VALUES (1, $1, $2)
		ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, hash = excluded.hash`, through.seq, through.hash); err != nil {
		return 0, err
	}
	_, err = t.exec(`DELETE FROM audit WHERE seq <= $1`, through.seq)
	return n, err
}

// checkpoint returns where the kept audit begins: the zero head if nothing was
// ever removed.
func (s *Store) checkpoint(ctx context.Context) (at head, err error) {
	err = s.get(ctx, []any{&at.seq, &at.hash}, `SELECT seq, hash FROM audit_checkpoint`)
	return at, ignore(err, ErrNotFound)
}

// removal returns what an event says was removed; ok is false for other events.
func removal(e audit.Event) (through head, ok bool) {
	if e.Type != audit.TypeRetention {
		return head{}, false
	}
	seq, err1 := strconv.ParseInt(e.Data["through"], 10, 64)
	hash, err2 := hex.DecodeString(e.Data["hash"])
	if errors.Join(err1, err2) != nil || len(hash) != len(through.hash) {
		return head{}, false
	}
	return head{seq: seq, hash: Hash(hash)}, true
}

func ignore(err, fact error) error {
	if errors.Is(err, fact) {
		return nil
	}
	return err
}
