package store

import (
	"context"
	"errors"
	"time"
)

// Guess is a code that somebody typed for a device, and what it counts against if
// it is wrong.
type Guess struct {
	UserCode Hash
	Against  []Allowance
	Window   time.Duration // begins with the first wrong one
}

// Allowance is how many wrong codes something may have in a window, such as an
// account or a network.
type Allowance struct {
	Key  Hash
	Most int
}

// GuessUserCode returns the request behind the code that a person typed. A wrong
// one counts against every allowance, for all replicas and over restarts: they
// decide together how many codes are tried. ErrNotFound, ErrSpent and ErrExpired:
// it was wrong, and counted. ErrTooFast: an allowance is used up; nothing was
// looked up, and there is room again after wait.
func (s *Store) GuessUserCode(ctx context.Context, g Guess, now time.Time) (d Device, wait time.Duration, err error) {
	if len(g.Against) == 0 || g.Window <= 0 {
		return Device{}, 0, errors.New("guess user code: an allowance and a window are required")
	}
	if wait, err = g.usedUp(now, func(scan []any, query string, args ...any) error { return s.get(ctx, scan, query, args...) }); err == nil {
		var fact error // a wrong code is counted none the less
		err = s.write(ctx, func(t *tx) (err error) {
			d, fact = Device{}, nil
			if wait, err = g.usedUp(now, t.get); err != nil {
				return err
			}
			if fact, err = t.typed(&d, g.UserCode, now); err != nil || fact == nil {
				return err
			}
			for _, a := range g.Against {
				if err := t.countGuess(a.Key, g, now); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			err = fact
		}
	}
	if err != nil {
		return Device{}, wait, wrap("guess user code", err)
	}
	return d, 0, nil
}

// usedUp returns ErrTooFast, and until when, if an allowance has no room. The
// change itself looks again: the first look keeps a crowd that is turned away from
// the writer.
func (g *Guess) usedUp(now time.Time, get func(scan []any, query string, args ...any) error) (wait time.Duration, err error) {
	for _, a := range g.Against {
		var until time.Time
		err := get([]any{instant{&until}}, `SELECT expires_at FROM guesses WHERE key = $1 AND n >= $2 AND expires_at > $3 AND expires_at <= $4`,
			a.Key, a.Most, micros(now), g.latest(now))
		switch {
		case err == nil:
			wait = max(wait, until.Sub(now))
		case !errors.Is(err, ErrNotFound):
			return 0, err
		}
	}
	if wait > 0 {
		return wait, ErrTooFast
	}
	return 0, nil
}

// typed finds the request behind a user code, or the fact that makes it a wrong
// one.
func (t *tx) typed(d *Device, h Hash, now time.Time) (fact, err error) {
	err = t.get(d.columns(), `SELECT `+deviceColumns+` FROM device_codes WHERE user_code = $1`, h)
	switch {
	case errors.Is(err, ErrNotFound):
		return ErrNotFound, nil
	case err != nil:
		return nil, err
	case d.State != DevicePending:
		return ErrSpent, nil
	}
	return d.over(now), nil
}

// latest is when a window ends at the latest that is open now, as far as the clocks
// of replicas are apart. One that ends later was opened by a clock that has been put
// back since, and counts no more: it would bind everybody for years (FA-11).
func (g *Guess) latest(now time.Time) int64 { return micros(now.Add(g.Window + ClockMargin)) }

// countGuess counts a wrong code.
func (t *tx) countGuess(key Hash, g Guess, now time.Time) error {
	_, err := t.exec(`INSERT INTO guesses (key, n, expires_at) VALUES ($1, 1, $2) ON CONFLICT (key) DO UPDATE SET
		n = CASE WHEN guesses.expires_at > $3 AND guesses.expires_at <= $4 THEN guesses.n + 1 ELSE 1 END,
		expires_at = CASE WHEN guesses.expires_at > $3 AND guesses.expires_at <= $4 THEN guesses.expires_at ELSE excluded.expires_at END`,
		key, micros(now.Add(g.Window)), micros(now), g.latest(now))
	return err
}
