package web

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestThrottle(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	t.Run("POL-08 so many in a window, and then a wait", func(t *testing.T) {
		th, now := NewThrottle(time.Minute), start
		for range 3 {
			if w := th.Take(now, Limit{"a", 3}, Limit{"b", 5}); w != 0 {
				t.Fatal(w)
			}
		}
		if w := th.Take(now.Add(10*time.Second), Limit{"a", 3}, Limit{"b", 5}); w != 50*time.Second {
			t.Errorf("wait %v", w)
		}
		if n := th.Count(now, "b"); n != 3 {
			t.Errorf("a refused attempt was counted: %d", n)
		}
		th.GiveBack(Limit{"a", 3})
		if w := th.Take(now, Limit{"a", 3}); w != 0 {
			t.Error("a count was not given back")
		}
		if n := th.Count(now.Add(time.Minute), "a"); n != 0 {
			t.Errorf("after the window: %d", n)
		}
		if w := th.Take(now.Add(time.Minute), Limit{"a", 3}); w != 0 {
			t.Errorf("after the window: wait %v", w)
		}
		th.GiveBack(Limit{"a", 3}, Limit{"a", 3}, Limit{"never", 3})
		if n := th.Count(now.Add(time.Minute), "a"); n != 0 {
			t.Errorf("more was given back than taken: %d", n)
		}
	})
	t.Run("POL-08 the longest of several waits counts", func(t *testing.T) {
		th := NewThrottle(time.Minute)
		th.Take(start, Limit{"a", 1})
		th.Take(start.Add(20*time.Second), Limit{"b", 1})
		for _, limits := range [][]Limit{{{"a", 1}, {"b", 1}}, {{"b", 1}, {"a", 1}}} {
			if w := th.Take(start.Add(30*time.Second), limits...); w != 50*time.Second {
				t.Errorf("wait %v", w)
			}
		}
	})
	t.Run("POL-08, attack FA-11: what a clock counted that was put back binds nobody for longer than two windows", func(t *testing.T) {
		th := NewThrottle(time.Minute)
		for range 3 {
			th.Take(start.AddDate(5, 0, 0), Limit{"a", 3})
		}
		if n := th.Count(start, "a"); n != 0 {
			t.Errorf("counted years ahead: %d", n)
		}
		if w := th.Take(start, Limit{"a", 1}); w != 0 {
			t.Errorf("wait %v", w)
		}
		// Whoever read the clock a while ago, and comes last, forgets nothing.
		if w := th.Take(start.Add(-time.Minute), Limit{"a", 1}); w != 2*time.Minute {
			t.Errorf("one who read the clock before: wait %v", w)
		}
		if w := th.Take(start.Add(time.Minute), Limit{"a", 1}); w != 0 {
			t.Errorf("after the window: wait %v", w)
		}
	})
	t.Run("POL-08 what comes at once is counted as what comes in a row", func(t *testing.T) {
		th := NewThrottle(time.Minute)
		var passed atomic.Int32
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if th.Take(start, Limit{"a", 7}) == 0 {
					passed.Add(1)
				}
			})
		}
		wg.Wait()
		if passed.Load() != 7 {
			t.Errorf("%d passed", passed.Load())
		}
	})
	t.Run("DCR-01, attack DP-08 its memory is bounded, and the count of all is never forgotten", func(t *testing.T) {
		th, most := NewThrottle(time.Minute), maxThrottled+1000
		for i := range most {
			if w := th.Take(start, Limit{Everybody, most}, Limit{fmt.Sprint(i), 1}); w != 0 {
				t.Fatalf("%d: wait %v", i, w)
			}
		}
		if len(th.counts) > maxThrottled+1 {
			t.Errorf("%d keys", len(th.counts))
		}
		if n := th.Count(start, Everybody); n != most {
			t.Errorf("of all %d are counted", n)
		}
		th.Take(start.Add(time.Hour), Limit{"new", 1})
		if len(th.counts) > maxThrottled-60 {
			t.Errorf("%d keys after their windows", len(th.counts))
		}
	})
	t.Run("POL-08 one customer is one source", func(t *testing.T) {
		for a, b := range map[string]string{
			"203.0.113.9": "::ffff:203.0.113.9", "2001:db8::1": "2001:db8:0:ff::2",
		} {
			if Network(netip.MustParseAddr(a)) != Network(netip.MustParseAddr(b)) {
				t.Errorf("%s and %s are two", a, b)
			}
		}
		for a, b := range map[string]string{"2001:db8::1": "2001:db8:0:100::1", "192.0.2.1": "192.0.2.2"} {
			if Network(netip.MustParseAddr(a)) == Network(netip.MustParseAddr(b)) {
				t.Errorf("%s and %s are one", a, b)
			}
		}
	})
}
