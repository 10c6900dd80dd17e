package register

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestThrottle(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	t.Run("DCR-01 what is refused is not counted", func(t *testing.T) {
		th := newThrottle(time.Hour)
		for i := range 5 {
			wait := th.take(now.Add(time.Duration(i)*time.Minute), limit{"", 3}, limit{"a", 9})
			if want := map[bool]time.Duration{true: time.Hour - time.Duration(i)*time.Minute}[i > 2]; wait != want {
				t.Errorf("%d: wait %v, want %v", i, wait, want)
			}
		}
		if n := th.counts["a"].n; n != 3 {
			t.Errorf("counted %d", n)
		}
		if wait := th.take(now.Add(time.Hour), limit{"", 3}); wait != 0 {
			t.Errorf("the next hour: %v", wait)
		}
	})
	t.Run("DCR-01 the memory is bounded, and the count of all is never forgotten", func(t *testing.T) {
		th := newThrottle(time.Hour)
		for i := range maxCounted + 1000 {
			if wait := th.take(now, limit{"", maxCounted + 1000}, limit{fmt.Sprint(i), 1}); wait != 0 {
				t.Fatalf("%d: wait %v", i, wait)
			}
		}
		if len(th.counts) > maxCounted+1 || th.take(now, limit{"", maxCounted + 1000}) == 0 {
			t.Errorf("%d keys, %+v", len(th.counts), th.counts[""])
		}
	})
	t.Run("DCR-01 a customer's network is one", func(t *testing.T) {
		for a, b := range map[string]string{"2001:db8:1:200::1": "2001:db8:1:2ff::2", "::ffff:192.0.2.1": "192.0.2.1"} {
			if network(netip.MustParseAddr(a)) != network(netip.MustParseAddr(b)) {
				t.Errorf("%s and %s are two", a, b)
			}
		}
		if network(netip.MustParseAddr("192.0.2.1")) == network(netip.MustParseAddr("192.0.2.2")) {
			t.Error("two are one")
		}
	})
}
