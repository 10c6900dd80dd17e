package cimd

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bonafide-id/bonafide/internal/safehttp"
)

func junk(i int) key { return key{kindDocument, fmt.Sprintf("https://junk.test/%d", i)} }

func sized(n int) *entry { return &entry{body: []byte(strings.Repeat("x", n))} }

func TestCacheBounds(t *testing.T) {
	t.Run("CACHE-16, mistake 18: the bounds of bytes and of number hold", func(t *testing.T) {
		c := newCache(1<<20, 300)
		for i := range 5000 {
			c.put(junk(i), sized(rand.IntN(5000)), i%100 == 0)
			if i%7 == 0 {
				c.get(junk(rand.IntN(i + 1)))
			}
			if n, b := c.size(); n > 300 || b > 1<<20 {
				t.Fatalf("after %d: %d entries, %d bytes", i, n, b)
			}
		}
		var sum, n = int64(0), 0
		for i := range c.queue {
			sum, n = sum+c.queue[i].bytes, n+c.queue[i].Len()
		}
		if entries, bytes := c.size(); sum != bytes || n != entries {
			t.Errorf("queues hold %d entries and %d bytes, the cache %d and %d", n, sum, entries, bytes)
		}
	})
	t.Run("replacing an entry counts its new size", func(t *testing.T) {
		c := newCache(1<<20, 10)
		c.put(junk(1), sized(1000), false)
		c.put(junk(1), sized(10), true)
		if n, b := c.size(); n != 1 || b != sized(10).cost()+int64(len(junk(1).url)) {
			t.Errorf("%d entries, %d bytes", n, b)
		}
		c.put(junk(1), sized(10), false)
		if c.queue[main].Len() != 1 {
			t.Error("an entry that is no longer pinned is not in the main queue")
		}
	})
	t.Run("an entry larger than the whole cache is alone in it", func(t *testing.T) {
		c := newCache(2000, 10)
		c.put(junk(1), sized(10), false)
		c.put(junk(2), sized(10_000), false)
		if c.peek(junk(1)) != nil || c.peek(junk(2)) == nil {
			t.Error("the wrong one stayed")
		}
	})
}

func TestCacheEviction(t *testing.T) {
	t.Run("CACHE-16, attack DS-08: junk does not push out clients in use", func(t *testing.T) {
		c := newCache(64<<20, 1000)
		hits, asked := 0, 0
		honest := func(i int) key { return key{kindDocument, fmt.Sprintf("https://honest%d.test/c", i)} }
		ask := func(i int) {
			asked++
			if c.get(honest(i)) != nil {
				hits++
				return
			}
			c.put(honest(i), sized(500), false)
		}
		for range 2 {
			for i := range 500 {
				ask(i)
			}
		}
		hits, asked = 0, 0
		for i := range 10_000 {
			c.put(junk(i), sized(500), false)
			ask(rand.IntN(500))
		}
		if ratio := float64(hits) / float64(asked); ratio < 0.99 {
			t.Errorf("hit ratio of honest traffic is %.3f", ratio)
		}
	})
	t.Run("CACHE-16 a pinned entry outlives everything", func(t *testing.T) {
		c := newCache(64<<20, 100)
		quiet := key{kindDocument, "https://quiet.test/c"}
		c.put(quiet, sized(10), true)
		late := key{kindDocument, "https://late.test/c"}
		c.put(late, sized(10), false)
		c.pin(late, true)
		for i := range 10_000 {
			c.put(junk(i), sized(10), false)
			c.get(junk(i))
			c.get(junk(i))
		}
		if c.peek(quiet) == nil || c.peek(late) == nil {
			t.Error("a pinned entry is gone")
		}
		c.pin(late, false)
		c.pin(key{kindDocument, "https://none.test/"}, true)
		for i := range 10_000 {
			c.put(junk(i), sized(10), false)
			c.get(junk(i))
		}
		if c.peek(late) != nil || c.peek(quiet) == nil {
			t.Error("unpinning had no effect, or on another entry")
		}
	})
	t.Run("attack DS-08: junk that is asked for twice does not push out clients in use either", func(t *testing.T) {
		c := newCache(64<<20, 100)
		honest := func(i int) key { return key{kindDocument, fmt.Sprintf("https://honest%d.test/c", i)} }
		for i := range 20 {
			c.put(honest(i), sized(10), false)
			c.get(honest(i))
		}
		lost := 0
		for i := range 10_000 {
			c.put(junk(i), sized(10), false)
			c.get(junk(i))
			if h := honest(i % 20); c.get(h) == nil {
				lost++
				c.put(h, sized(10), false)
			}
		}
		if lost > 100 {
			t.Errorf("%d of 10,000 honest uses found nothing", lost)
		}
	})
	t.Run("more pins than room still leave the bounds in force", func(t *testing.T) {
		c := newCache(64<<20, 10)
		for i := range 100 {
			c.put(junk(i), sized(10), true)
		}
		if n, _ := c.size(); n != 10 {
			t.Errorf("%d entries", n)
		}
	})
	t.Run("CACHE-16, mistake 42: ten thousand clients fit with the default limits", func(t *testing.T) {
		cfg, err := withDefaults(Config{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for i := range 10_000 {
			r.docs.put(junk(i), sized(460), false)
		}
		for i := range 10_000 {
			if r.docs.peek(junk(i)) == nil {
				t.Fatalf("client %d of 10,000 is gone", i)
			}
		}
	})
}

func TestBounded(t *testing.T) {
	b := newBounded[int](3)
	for i, name := range []string{"a", "b", "c"} {
		*b.at(name) = i + 1
	}
	*b.at("a") += 10
	*b.at("d") = 4
	if b.peek("b") != nil || b.peek("a") == nil || *b.peek("a") != 11 || len(b.elems) != 3 || b.order.Len() != 3 {
		t.Error("the one used longest ago should be gone, and only that one")
	}
	b.drop("a")
	b.drop("a")
	if b.peek("a") != nil || b.order.Len() != 2 {
		t.Error("drop did not drop")
	}
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Budgets{InFlight: 4, InFlightPerHost: 2})
		ctx := t.Context()
		var leave []func()
		for _, site := range []string{"a", "a", "b"} {
			l, err := g.enter(ctx, place{site: site}, false)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, l)
		}
		entered := make(chan string, 10)
		for _, site := range []string{"a", "c"} {
			go func() {
				if l, err := g.enter(ctx, place{site: site}, false); err == nil {
					entered <- site
					leave = append(leave, l)
				}
			}()
			synctest.Wait()
		}
		if len(entered) != 0 {
			t.Fatal("a stranger took the reserved place")
		}
		known, err := g.enter(ctx, place{site: "a"}, true)
		if err != nil {
			t.Fatalf("a known client found no place: %v", err)
		}
		known()
		leave[2]() // b goes: c may enter, a third of a may not
		synctest.Wait()
		if len(entered) != 1 || <-entered != "c" {
			t.Fatal("the place of b did not go to c")
		}
		leave[0]()
		synctest.Wait()
		if len(entered) != 1 || <-entered != "a" {
			t.Fatal("the place of a did not go to a")
		}
		// Waiting is bounded by time.
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := g.enter(short, place{site: "a"}, false); err == nil || err.Kind != KindBusy {
			t.Errorf("error is %v", err)
		}
		// And by number.
		g.waiting = 16
		if _, err := g.enter(ctx, place{site: "a"}, false); err == nil || err.Kind != KindBusy || err.RetryAfter == 0 {
			t.Errorf("error is %v", err)
		}
	})
}

func TestGatePerSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Budgets{InFlight: 16, InFlightPerHost: 2})
		for i := range 4 {
			if _, err := g.enter(t.Context(), place{fmt.Sprint(i), "one"}, false); err != nil {
				t.Fatal(err)
			}
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.enter(short, place{"x", "one"}, false); err == nil {
			t.Error("one source holds more than a quarter of the places")
		}
		leave, err := g.enter(t.Context(), place{"x", "two"}, false)
		if err != nil {
			t.Fatalf("another source found no place: %v", err)
		}
		leave()
		if _, ok := g.held[place{source: "two"}]; ok {
			t.Error("a place that was left is still counted")
		}
	})
}

// A fetch that waited for its turn while its host failed is not sent.
func TestQueuedFetchOfFailedHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Config{URL: URLRules{AllowTestNames: true}, Budgets: Budgets{InFlightPerHost: 1}})
		if err != nil {
			t.Fatal(err)
		}
		id, err := r.cfg.URL.Parse("https://good.test/c.json")
		if err != nil {
			t.Fatal(err)
		}
		leave, refusal := r.gate.enter(t.Context(), place{site: "good.test"}, false)
		if refusal != nil {
			t.Fatal(refusal)
		}
		got := make(chan error, 1)
		go func() { _, err := r.Resolve(t.Context(), id); got <- err }()
		synctest.Wait()
		cause := &Error{Kind: KindFetch, Err: &safehttp.Error{Kind: safehttp.KindConnect, Err: io.EOF}}
		r.backoff.failed(target{kind: kindDocument, url: "https://good.test/other"}, cause, time.Now().Add(1))
		leave()
		if e := asError(<-got); e.Kind != KindBackoff {
			t.Errorf("error is %v", e)
		}
		r.Close()
	})
}

func TestSites(t *testing.T) {
	for url, want := range map[string]string{
		"https://a.b.evil.test/c":        "evil.test",
		"https://EVIL.test/c":            "evil.test",
		"https://alice.github.io/c":      "alice.github.io",
		"https://x.alice.github.io/c":    "alice.github.io",
		"https://shop.example.co.uk/c":   "example.co.uk",
		"https://93.184.216.34/c":        "93.184.216.34",
		"https://localhost:8443/c":       "localhost",
		"https://github.io/c":            "github.io",
		"https://[2606:2800:220::1]/c":   "2606:2800:220::1",
		"http://127.0.0.1/c":             "127.0.0.1",
		"https://good.test:8443/c":       "good.test",
		"https://%zz.test/unparseable\n": "https://%zz.test/unparseable\n",
	} {
		if got := (target{url: url}).site(); got != want {
			t.Errorf("site of %q is %q, want %q", url, got, want)
		}
	}
	if a, b := (target{url: "http://127.0.0.1/c"}).host(), (target{url: "https://127.0.0.1/c"}).host(); a == b {
		t.Errorf("http and https are one host %q", a)
	}
}

func TestPanicIsAFailure(t *testing.T) {
	r, err := New(Config{URL: URLRules{AllowTestNames: true}, Now: func() time.Time { return time.Unix(1e9, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.http = nil // any use panics
	id, err := r.cfg.URL.Parse("https://good.test/c.json")
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Resolve(t.Context(), id)
	if e := asError(err); e.Kind != KindDocument || !strings.Contains(e.Error(), "panic") || strings.Contains(e.Hint, "panic") {
		t.Errorf("error is %v", err)
	}
}

func BenchmarkResolveFromMemory(b *testing.B) {
	r, err := New(Config{URL: URLRules{AllowTestNames: true}})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	id, err := r.cfg.URL.Parse("https://good.test/c.json")
	if err != nil {
		b.Fatal(err)
	}
	t := documentTarget(id)
	r.docs.put(t.key(), &entry{doc: &Document{ID: id}, fresh: Freshness{Expires: time.Now().Add(time.Hour)}}, false)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Resolve(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
}

func TestResolveFromMemoryDoesNotAllocate(t *testing.T) {
	r, err := New(Config{URL: URLRules{AllowTestNames: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	id, err := r.cfg.URL.Parse("https://good.test/c.json")
	if err != nil {
		t.Fatal(err)
	}
	r.docs.put(documentTarget(id).key(), &entry{doc: &Document{ID: id}, fresh: Freshness{Expires: time.Now().Add(time.Hour)}}, false)
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Resolve(ctx, id); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
