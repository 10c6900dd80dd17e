package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// How long rows stay after they have lost their use.
const (
	// ReplayWindow keeps spent codes past their expiry, so that a replay is still
	// told apart from noise.
	ReplayWindow = 24 * time.Hour
	// PushedHistory keeps pushed requests past their expiry, answered or not: so long
	// somebody who began in time may need for the sign-in and the consent page.
	PushedHistory = 2 * time.Hour
	// FamilyHistory keeps refresh tokens past their expiry: for so long others of
	// their family may live on, and one that comes back ends them (TOK-11).
	FamilyHistory = 90 * 24 * time.Hour
	// ClockMargin keeps marks of what must not count again past their expiry, so
	// that a clock which is a little late cannot accept one twice.
	ClockMargin = 5 * time.Minute
	// Mistrust keeps all such marks after the clock was moved: what expired by
	// the one reading may be good by the next (FA-11).
	Mistrust = 24 * time.Hour
	// GrantHistory keeps ended grants and consents for those who ask what was.
	GrantHistory = 90 * 24 * time.Hour
	// AloneHistory keeps ended grants that clients got for themselves: they get one
	// with every token.
	AloneHistory = 7 * 24 * time.Hour
	// CacheLife keeps entries of the document cache that nobody saved again.
	CacheLife = 30 * 24 * time.Hour
)

// pruneStep is how many rows one step takes. Other changes run between the
// steps.
const pruneStep = 500

// prunings are the statements of Prune, each with how old a row must be. Those
// with ClockMargin remove marks: without one, something would count again.
var prunings = []struct {
	keep  time.Duration
	query string
}{
	// A rotation does not move its grant in the index: those in use are moved on first.
	{ReplayWindow, `UPDATE grants SET expires_at = head_expires_at WHERE id IN
		(SELECT id FROM grants WHERE ended_at IS NULL AND expires_at < $1 AND head_expires_at >= $1 ORDER BY expires_at LIMIT $2)`},
	{ReplayWindow, `UPDATE grants SET ended_at = $1, end_reason = 'expired' WHERE id IN
		(SELECT id FROM grants WHERE ended_at IS NULL AND expires_at < $1 AND head_expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{GrantHistory, `DELETE FROM grants WHERE id IN
		(SELECT id FROM grants WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2)`},
	{GrantHistory, `DELETE FROM consents WHERE (user_id, client_id, resource) IN
		(SELECT user_id, client_id, resource FROM consents WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2)`},
	{AloneHistory, `DELETE FROM grants WHERE id IN
		(SELECT id FROM grants WHERE user_id IS NULL AND ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2)`},
	// Past its expiry a request can still be answered by who has the page open.
	{PushedHistory, `DELETE FROM pushed_requests WHERE hash IN (SELECT hash FROM pushed_requests WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ReplayWindow, `DELETE FROM device_codes WHERE hash IN (SELECT hash FROM device_codes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ReplayWindow, `DELETE FROM clients WHERE client_id IN (SELECT c.client_id FROM clients c WHERE c.source = 'dcr' AND c.expires_at < $1
		AND NOT EXISTS (SELECT 1 FROM grants g WHERE g.client_id = c.client_id) AND NOT EXISTS (SELECT 1 FROM consents s WHERE s.client_id = c.client_id)
		AND NOT EXISTS (SELECT 1 FROM documents d WHERE d.client_id = c.client_id) AND NOT EXISTS (SELECT 1 FROM cache k WHERE k.client_id = c.client_id)
		ORDER BY c.expires_at LIMIT $2)`},
	{ReplayWindow, `DELETE FROM codes WHERE hash IN (SELECT hash FROM codes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{FamilyHistory, `DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ReplayWindow, `DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ClockMargin, `DELETE FROM consent_nonces WHERE hash IN (SELECT hash FROM consent_nonces WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ClockMargin, `DELETE FROM spent_ids WHERE hash IN (SELECT hash FROM spent_ids WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ClockMargin, `DELETE FROM guesses WHERE key IN (SELECT key FROM guesses WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{ClockMargin, `DELETE FROM denied_tokens WHERE jti IN (SELECT jti FROM denied_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`},
	{CacheLife, `DELETE FROM cache WHERE key IN (SELECT key FROM cache WHERE saved_at < $1 ORDER BY saved_at LIMIT $2)`},
}

// moved notices when the clock was set, by comparing the time of day with the
// time that passed on the monotonic clock.
type moved struct {
	mu       sync.Mutex // guards all below
	last     time.Time  // when it was asked before
	mistrust time.Duration
}

// jump is how far the two clocks may drift apart between two looks.
const jump = time.Minute

// by returns how far the clock was moved since the last call, 0 for not at all,
// and whether the time of day is to be trusted. Times without a monotonic
// reading are taken at their word.
func (m *moved) by(now time.Time, passed func(from, to time.Time) time.Duration) (leap time.Duration, trusted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.last.IsZero() {
		elapsed := passed(m.last, now)
		m.mistrust = max(0, m.mistrust-elapsed)
		if leap = now.Round(0).Sub(m.last.Round(0)) - elapsed; leap.Abs() > jump {
			m.mistrust = Mistrust
		} else {
			leap = 0
		}
	}
	m.last = now
	return leap, m.mistrust == 0
}

// trusted reports whether the time of day was to be trusted when it was asked
// last.
func (m *moved) trusted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mistrust == 0
}

// monotonic is the time that really passed.
func monotonic(from, to time.Time) time.Duration { return to.Sub(from) }

// clocksApart is how far the clock of this machine may be from the database's: of two
// replicas one can be so early and the other so late that together they use up
// ClockMargin.
const clocksApart = ClockMargin / 2

// clocksAgree makes sure that this machine does not remove by its own clock what
// is not old by the clock of anybody else. Where the database is a file there is
// none to compare with.
func (s *Store) clocksAgree(ctx context.Context) error {
	if !s.postgres {
		return nil
	}
	var micros int64
	before := s.wall()
	if err := s.get(ctx, []any{&micros}, `SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint`); err != nil {
		return err
	}
	there := time.UnixMicro(micros)
	if there.Before(before.Add(-clocksApart)) || there.After(s.wall().Add(clocksApart)) {
		return fmt.Errorf("by the clock of this machine it is %s, by that of the database %s: nothing is removed until they agree",
			before.UTC().Format(time.RFC3339), there.UTC().Format(time.RFC3339))
	}
	return nil
}

// Prune ends grants that ran out and removes what has lost its use, in short
// steps that let other changes through (DS-13). It returns how many rows it
// touched and stops early when ctx ends. Events are ForgetEvents' business. When it
// finds that the clock was moved it says so in the audit, and for a day it leaves
// the marks of what must not count again, so that no clock can wipe them out. A
// replica whose clock is far from the database's removes nothing, and says so.
func (s *Store) Prune(ctx context.Context, now time.Time) (n int, err error) {
	leap, trusted := s.moved.by(now, s.passed)
	if leap != 0 {
		err := s.AppendEvents(ctx, audit.Event{Time: now, Type: audit.TypeConfig, Code: "clock_moved", Data: map[string]string{"by": leap.String()}})
		if err != nil {
			return 0, fmt.Errorf("prune: %w", err)
		}
	}
	if err := s.clocksAgree(ctx); err != nil {
		return 0, wrap("prune", err)
	}
	for _, p := range prunings {
		if p.keep == ClockMargin && !trusted {
			continue
		}
		touched, err := s.sweep(ctx, p.query, now.Add(-p.keep))
		n += touched
		if err != nil {
			return n, fmt.Errorf("prune: %w", err)
		}
	}
	return n, nil
}

// sweep runs one statement of Prune until it finds nothing more.
func (s *Store) sweep(ctx context.Context, query string, before time.Time) (n int, err error) {
	for {
		var touched int64
		err := s.write(ctx, func(t *tx) (err error) {
			touched, err = t.exec(query, micros(before), pruneStep)
			return err
		})
		if err != nil {
			return n, err
		}
		n += int(touched)
		if touched < pruneStep {
			return n, nil
		}
	}
}
