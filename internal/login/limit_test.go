package login

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func mustAddr(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr()
	}
	return netip.MustParseAddr(s)
}

var start = time.Unix(1700000000, 0)

// guess makes wrong attempts for d, as often as it is let, at most n.
func guess(l limits, account string, ip func(i int) netip.Addr, d, step time.Duration, n int) (made int) {
	for t, i := start, 0; t.Before(start.Add(d)) && made < n; t, i = t.Add(step), i+1 {
		if l.source(ip(i), t) > 0 || l.account(account, "", ip(i), t) > 0 {
			continue
		}
		l.failed(ip(i), t)
		made++
	}
	return made
}

func TestLimits(t *testing.T) {
	one := func(int) netip.Addr { return mustAddr("203.0.113.9") }
	many := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(i / 250 % 4), byte(i % 250)}) }
	t.Run("CN-20, POL-08 one source gets few guesses at one account in a day", func(t *testing.T) {
		if n := guess(newLimits(), "john", one, 24*time.Hour, 10*time.Second, 1e6); n > 150 {
			t.Errorf("%d guesses", n)
		}
	})
	t.Run("attack CN-20: 1,000 sources get few guesses at one account in a day", func(t *testing.T) {
		if n := guess(newLimits(), "john", many, 24*time.Hour, time.Second, 1e6); n > 400 {
			t.Errorf("%d guesses", n)
		}
	})
	t.Run("attack CN-20: one source cannot walk 10,000 accounts", func(t *testing.T) {
		l, made := newLimits(), 0
		for i := range 10000 {
			if now := start.Add(time.Duration(i) * 10 * time.Millisecond); l.source(one(0), now) == 0 && l.account(fmt.Sprint("account", i), "", one(0), now) == 0 {
				l.failed(one(0), now)
				made++
			}
		}
		if made > 40 {
			t.Errorf("%d guesses in 100 seconds", made)
		}
	})
	t.Run("POL-08 an office of 60 people behind one address signs in at once", func(t *testing.T) {
		l := newLimits()
		for i := range 60 {
			if l.source(one(0), start) > 0 || l.account(fmt.Sprint("account", i), "", one(0), start) > 0 {
				t.Fatalf("person %d has to wait", i)
			}
			l.succeeded(fmt.Sprint("account", i), "", one(0))
		}
	})
	t.Run("attack CN-20: guessing from everywhere does not keep out the owner's own browser", func(t *testing.T) {
		l := newLimits()
		guess(l, "john", many, time.Hour, time.Second, 1e6)
		now := start.Add(time.Hour)
		for i := 0; l.account("john", "", many(i), now) == 0; i++ { // somebody took this turn too
		}
		if d := l.account("john", "", mustAddr("192.0.2.1"), now); d <= 0 || d > 5*time.Minute {
			t.Errorf("a browser that nobody knows waits %v", d)
		}
		if d := l.account("john", "device", mustAddr("192.0.2.1"), now); d != 0 {
			t.Errorf("the owner's browser waits %v", d)
		}
	})
	t.Run("POL-08 the wait grows and has an end", func(t *testing.T) {
		var got []string
		for _, n := range []int{1, 5, 6, 7, 8, 16, 1000} {
			got = append(got, perSource.after(n).String())
		}
		if s := strings.Join(got, " "); s != "0s 0s 1s 2s 4s 15m0s 15m0s" {
			t.Errorf("waits %s", s)
		}
	})
	t.Run("POL-08 a right password forgives the wrong ones before it", func(t *testing.T) {
		l := newLimits()
		for range 7 {
			l.account("john", "", one(0), start)
		}
		if l.account("john", "", one(0), start) == 0 {
			t.Fatal("no wait after 7 attempts")
		}
		l.succeeded("john", "", one(0))
		if d := l.account("john", "", one(0), start); d != 0 {
			t.Errorf("still waits %v", d)
		}
	})
	t.Run("POL-08 time forgives too", func(t *testing.T) {
		l := newLimits()
		for range 6 {
			l.account("john", "", one(0), start)
		}
		later := start.Add(perSource.forget)
		for range perSource.free {
			if d := l.account("john", "", one(0), later); d != 0 {
				t.Errorf("waits %v", d)
			}
		}
	})
	t.Run("POL-08 the addresses of one IPv6 customer are one source", func(t *testing.T) {
		if sourceKey(mustAddr("2001:db8:0:1::1")) != sourceKey(mustAddr("2001:db8:0:ff::2")) || sourceKey(mustAddr("2001:db8:0:100::1")) == sourceKey(mustAddr("2001:db8::1")) {
			t.Error("the prefix is not /56")
		}
	})
}

func TestRecentIsBounded(t *testing.T) {
	m := newRecent[int](100)
	for i := range 10000 {
		*m.get(fmt.Sprint(i), func() *int { return new(int) }) = i
		m.get("kept", func() *int { return new(int) })
		if n := len(m.young) + len(m.old); n > 200 {
			t.Fatalf("%d keys", n)
		}
	}
	*m.get("kept", nil) = 7
	for i := range 99 {
		m.get(fmt.Sprint("x", i), func() *int { return new(int) })
	}
	if *m.get("kept", func() *int { return new(int) }) != 7 {
		t.Error("a key that was used a moment ago is forgotten")
	}
	m.drop("kept")
	if *m.get("kept", func() *int { return new(int) }) != 0 {
		t.Error("a dropped key is still there")
	}
}

func TestGate(t *testing.T) {
	t.Run("attack DS-11: a few sign-ins run, some wait, the rest hear at once that we are busy", func(t *testing.T) {
		synctest.Test(t, testGate)
	})
}

func testGate(t *testing.T) {
	g := newGate(1, 5*time.Second)
	leave, err := g.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entered := make(chan func())
	go func() {
		l, err := g.enter(t.Context())
		if err != nil {
			t.Error(err)
		}
		entered <- l
	}()
	synctest.Wait()
	leave()
	leave = <-entered

	began := time.Now()
	if _, err := g.enter(t.Context()); !errors.Is(err, errBusy) || time.Since(began) != 5*time.Second {
		t.Errorf("DS-11: after %v: %v", time.Since(began), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.enter(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left: %v", err)
	}
	refused := make(chan error, 100)
	for range 100 {
		go func() {
			l, err := g.enter(t.Context())
			if err == nil {
				l()
			}
			refused <- err
		}()
	}
	synctest.Wait()
	if len(refused) != 100-cap(g.waiting) {
		t.Errorf("DS-11: %d refused at once, want all but %d", len(refused), cap(g.waiting))
	}
	leave()
	synctest.Wait()
	if len(refused) != 100 || len(g.running) != 0 || len(g.waiting) != 0 {
		t.Errorf("%d answers, %d running, %d waiting", len(refused), len(g.running), len(g.waiting))
	}
}
