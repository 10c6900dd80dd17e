package authorize

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestThrottle(t *testing.T) {
	t.Run("POL-08 so many in a window, and then a wait", func(t *testing.T) {
		th, now := newThrottle(time.Minute), start
		for range 3 {
			if w := th.take(now, limit{"a", 3}, limit{"b", 5}); w != 0 {
				t.Fatal(w)
			}
		}
		if w := th.take(now.Add(10*time.Second), limit{"a", 3}, limit{"b", 5}); w != 50*time.Second {
			t.Errorf("wait %v", w)
		}
		if w := th.take(now, limit{"b", 5}); w != 0 {
			t.Error("a refused attempt was counted")
		}
		th.giveBack(limit{"a", 3})
		if w := th.take(now, limit{"a", 3}); w != 0 {
			t.Error("a count was not given back")
		}
		if w := th.take(now.Add(time.Minute), limit{"a", 3}); w != 0 {
			t.Errorf("after the window: wait %v", w)
		}
	})
	t.Run("POL-08 what comes at once is counted as what comes in a row", func(t *testing.T) {
		th := newThrottle(time.Minute)
		var passed atomic.Int32
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if th.take(start, limit{"a", 7}) == 0 {
					passed.Add(1)
				}
			})
		}
		wg.Wait()
		if passed.Load() != 7 {
			t.Errorf("%d passed", passed.Load())
		}
	})
	t.Run("its memory is bounded", func(t *testing.T) {
		th := newThrottle(time.Minute)
		for i := range maxThrottled + 100 {
			th.take(start, limit{fmt.Sprint(i), 1})
		}
		if len(th.counts) > maxThrottled {
			t.Errorf("%d keys", len(th.counts))
		}
		th.take(start.Add(time.Hour), limit{"new", 1})
		if len(th.counts) > maxThrottled-60 {
			t.Errorf("%d keys after their windows", len(th.counts))
		}
	})
	t.Run("one customer is one source", func(t *testing.T) {
		for a, b := range map[string]string{
			"203.0.113.9": "::ffff:203.0.113.9", "2001:db8::1": "2001:db8:0:ff::2",
		} {
			if network(netip.MustParseAddr(a)) != network(netip.MustParseAddr(b)) {
				t.Errorf("%s and %s are two", a, b)
			}
		}
		if network(netip.MustParseAddr("2001:db8::1")) == network(netip.MustParseAddr("2001:db8:0:100::1")) {
			t.Error("two customers are one")
		}
	})
}
