package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// TestTheClockIsMoved: the time of day leaps while little time passes.
func TestTheClockIsMoved(t *testing.T) {
	for _, row := range []struct {
		name string
		leap time.Duration
	}{
		{"attack FA-11, CAUTH-06, REV-06: an hour ahead and back", time.Hour},
		{"attack FA-11, CAUTH-06, REV-06: five years ahead and back", 5 * 365 * 24 * time.Hour},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := open(t)
			seed(t, s)
			at, really := noon, time.Duration(0)
			s.passed = func(_, _ time.Time) time.Duration { d := really; really = 0; return d }
			pass := func(d time.Duration) { at, really = at.Add(d), really+d }
			prune := func() {
				t.Helper()
				_, err := s.Prune(t.Context(), at)
				forgotten, ferr := s.ForgetEvents(t.Context(), at.Add(-30*24*time.Hour), at)
				if err := errors.Join(err, ferr); err != nil || forgotten > 0 {
					t.Fatalf("by a clock that was moved %d events were removed, %v", forgotten, err)
				}
			}
			jti, page := HashOf("jti"), HashOf("page")
			if err := errors.Join(s.SpendID(t.Context(), "x", jti, at.Add(5*time.Minute), at),
				s.DenyToken(t.Context(), "denied", at.Add(10*time.Minute)), s.DenyConsent(t.Context(), page, at.Add(30*time.Minute), at)); err != nil {
				t.Fatal(err)
			}
			held := func() {
				t.Helper()
				if err := s.SpendID(t.Context(), "x", jti, noon.Add(5*time.Minute), noon); !errors.Is(err, ErrSpent) {
					t.Errorf("the identifier of an assertion: %v", err)
				}
				if denied, err := s.TokenDenied(t.Context(), "denied"); !denied || err != nil {
					t.Errorf("the denied token: %v, %v", denied, err)
				}
				if err := s.DenyConsent(t.Context(), page, noon.Add(30*time.Minute), noon); !errors.Is(err, ErrSpent) {
					t.Errorf("the answered page: %v", err)
				}
			}
			prune()
			pass(time.Minute)
			at = at.Add(row.leap) // the clock is moved
			for range 10 {
				prune()
				pass(time.Minute)
			}
			held()
			at = at.Add(-row.leap) // and moved back
			prune()
			held()
			pass(23 * time.Hour)
			prune()
			held()
			pass(2 * time.Hour)
			prune()
			if denied, err := s.TokenDenied(t.Context(), "denied"); denied || err != nil {
				t.Errorf("after a day the marks go as ever: %v, %v", denied, err)
			}
			events, err := s.Events(t.Context(), EventQuery{Type: audit.TypeConfig})
			if err != nil || len(events) != 2 || events[0].Code != "clock_moved" || events[0].Data["by"] != row.leap.String() {
				t.Errorf("attack FA-11: the audit shows the jumps: %+v, %v", events, err)
			}
			if n, err := s.ForgetEvents(t.Context(), at.Add(time.Hour), at.Add(26*time.Hour)); n == 0 || err != nil {
				t.Errorf("after a day events go as ever: %d, %v", n, err)
			}
		})
	}
	t.Run("a clock that goes as it should is trusted", func(t *testing.T) {
		var m moved
		for i := range 100 {
			leap, trusted := m.by(noon.Add(time.Duration(i)*61*time.Second), func(_, _ time.Time) time.Duration { return time.Minute })
			if leap != 0 || !trusted {
				t.Fatalf("look %d: %v", i, leap)
			}
		}
	})
}

// TestTheClockOfOneReplica: a machine came up with a clock that is wrong, and its
// server with it, so that there is no leap to notice.
func TestTheClockOfOneReplica(t *testing.T) {
	address := database(t)
	s, other := openAt(t, address), openAt(t, address)
	seed(t, s)
	jti := HashOf("jti")
	if err := errors.Join(s.SpendID(t.Context(), "x", jti, noon, noon), s.DenyToken(t.Context(), "denied", noon)); err != nil {
		t.Fatal(err)
	}
	later := noon.Add(5 * 365 * 24 * time.Hour)
	for _, off := range []time.Duration{5 * 365 * 24 * time.Hour, -5 * 365 * 24 * time.Hour, ClockMargin, -ClockMargin} {
		t.Run("attack FA-12, CAUTH-06, POL-07: it removes nothing while it differs by "+off.String(), func(t *testing.T) {
			s.wall = func() time.Time { return time.Now().Add(off) }
			n, err := s.Prune(t.Context(), later)
			forgotten, ferr := s.ForgetEvents(t.Context(), later, later)
			if n != 0 || forgotten != 0 || err == nil || ferr == nil || !strings.Contains(err.Error(), "clock of this machine") {
				t.Errorf("%d rows, %v, %d events, %v", n, err, forgotten, ferr)
			}
			if err := other.SpendID(t.Context(), "x", jti, noon, noon); !errors.Is(err, ErrSpent) {
				t.Errorf("the identifier of an assertion: %v", err)
			}
		})
	}
	t.Run("attack FA-12: 90 seconds are no matter, and the others go on", func(t *testing.T) {
		s.wall = func() time.Time { return time.Now().Add(90 * time.Second) }
		other.wall = func() time.Time { return time.Now().Add(-90 * time.Second) }
		for _, replica := range []*Store{s, other} {
			if _, err := replica.Prune(t.Context(), noon); err != nil {
				t.Error(err)
			}
		}
		if n, err := other.Prune(t.Context(), later); err != nil || n == 0 {
			t.Errorf("%d rows, %v", n, err)
		}
		if n, err := other.ForgetEvents(t.Context(), later, later); err != nil || n == 0 {
			t.Errorf("%d events, %v", n, err)
		}
	})
}
