package cimd_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
)

// resolveAll resolves paths c0, c1, ... of a host and returns how many came.
func resolveAll(ctx context.Context, w *world, host string, from, to int) (good int, last error) {
	for i := from; i < to; i++ {
		if _, err := w.Resolve(ctx, cimdtest.ID(fmt.Sprintf("https://%s/c%d.json", host, i))); err != nil {
			last = err
		} else {
			good++
		}
	}
	return good, last
}

// serveAll serves a good document at every path of a host.
func serveAll(h *cimdtest.Host, n int) {
	for i := range n {
		h.ServeClient(fmt.Sprintf("/c%d.json", i), nil)
	}
}

func TestSharedFetch(t *testing.T) {
	t.Run("FETCH-18, attack DS-04: any number of callers share one fetch", func(t *testing.T) {
		w := start(t, nil)
		release := make(chan struct{})
		answer := cimdtest.JSON(cimdtest.Document("https://good.test/c.json", nil))
		answer.Wait = release
		w.host.Serve("/c.json", answer)
		id := cimdtest.ID("https://good.test/c.json")
		const callers = 2000
		var begun, done sync.WaitGroup
		docs := make([]*cimd.Document, callers)
		errs := make([]error, callers)
		begun.Add(callers)
		for i := range callers {
			done.Go(func() {
				begun.Done()
				docs[i], errs[i] = w.Resolve(t.Context(), id)
			})
		}
		begun.Wait()
		close(release)
		done.Wait()
		for i := range callers {
			if errs[i] != nil || docs[i] != docs[0] {
				t.Fatalf("caller %d got %p, %v", i, docs[i], errs[i])
			}
		}
		if n := w.host.Count("/c.json"); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
	t.Run("mistake 10: a caller that goes away neither ends nor spoils the fetch", func(t *testing.T) {
		w := start(t, nil)
		release, asked := make(chan struct{}), make(chan struct{})
		w.net.DNSFunc("good.test", func(int) ([]netip.Addr, error) {
			close(asked) // a second lookup would panic
			return []netip.Addr{w.host.Addr()}, nil
		})
		answer := cimdtest.JSON(cimdtest.Document("https://good.test/c.json", nil))
		answer.Wait = release
		w.host.Serve("/c.json", answer)
		id := cimdtest.ID("https://good.test/c.json")
		ctx, leave := context.WithCancel(t.Context())
		gone, stayed := make(chan error, 1), make(chan error, 1)
		go func() { _, err := w.Resolve(ctx, id); gone <- err }()
		<-asked
		go func() { _, err := w.Resolve(t.Context(), id); stayed <- err }()
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that left got %v", err)
		}
		close(release)
		if err := <-stayed; err != nil {
			t.Errorf("the caller that stayed got %v", err)
		}
		if st, ok := w.Status(id); !ok || st.Failures != 0 {
			t.Errorf("the departure counts as a failure: %+v", st)
		}
	})
	t.Run("Close ends what is under way and refuses what comes", func(t *testing.T) {
		w := start(t, nil)
		asked := make(chan struct{})
		w.net.DNSFunc("good.test", func(int) ([]netip.Addr, error) {
			close(asked)
			return []netip.Addr{w.host.Addr()}, nil
		})
		w.host.Serve("/c.json", cimdtest.Response{Wait: make(chan struct{})})
		id := cimdtest.ID("https://good.test/c.json")
		got := make(chan error, 1)
		go func() { _, err := w.Resolve(t.Context(), id); got <- err }()
		<-asked
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		wantKind(t, <-got, cimd.KindFetch)
		_, err := w.Resolve(t.Context(), id)
		wantKind(t, err, cimd.KindFetch)
	})
}

func TestOneDeadlineForBothRequests(t *testing.T) {
	w := start(t, func(c *cimd.Config) { c.Limits.Timeout = 400 * time.Millisecond })
	doc := cimdtest.Document("https://good.test/c.json", nil)
	late := cimdtest.JSON(doc)
	late.Delay = 300 * time.Millisecond
	w.host.Script("/c.json", cimdtest.JSON(doc, "ETag", `"a"`),
		cimdtest.Response{Status: 304, Header: http.Header{"ETag": {`"other"`}}, Delay: 300 * time.Millisecond}, late)
	id := cimdtest.ID("https://good.test/c.json")
	if _, err := w.Resolve(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour)
	begun := time.Now()
	if _, err := w.Refresh(t.Context(), id); err == nil {
		t.Errorf("FETCH-15, R7 the host was given %v, the limit is 400ms", time.Since(begun))
	}
	if n := w.host.Count("*"); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

func TestBudgets(t *testing.T) {
	tight := func(b cimd.Budgets) func(*cimd.Config) {
		return func(c *cimd.Config) { c.Budgets = b }
	}
	t.Run("FETCH-19 a source that spends its budget stops nobody else", func(t *testing.T) {
		w := start(t, tight(cimd.Budgets{PerSource: cimd.Rate{Every: 10 * time.Second, Burst: 3}}))
		serveAll(w.host, 9)
		ctx := cimd.WithSource(t.Context(), "203.0.113.9")
		good, err := resolveAll(ctx, w, "good.test", 0, 6)
		e := wantKind(t, err, cimd.KindBusy)
		if good != 3 || e.Rule != "FETCH-19" || e.RetryAfter <= 0 || e.RetryAfter > 10*time.Second {
			t.Errorf("%d came, then %+v", good, e)
		}
		if good, _ := resolveAll(ctx, w, "good.test", 0, 3); good != 3 {
			t.Error("a cached client drew on the budget")
		}
		if good, err := resolveAll(cimd.WithSource(t.Context(), "203.0.113.10"), w, "good.test", 6, 9); good != 3 {
			t.Errorf("another source was stopped: %v", err)
		}
		w.pass(e.RetryAfter)
		if good, err := resolveAll(ctx, w, "good.test", 3, 4); good != 1 {
			t.Errorf("still refused after RetryAfter: %v", err)
		}
	})
	t.Run("FETCH-19 a spent budget of one caller is not the answer to another who waits for the same client", func(t *testing.T) {
		w := start(t, tight(cimd.Budgets{PerSource: cimd.Rate{Every: time.Hour, Burst: 1}}))
		serveAll(w.host, 2)
		poor := cimd.WithSource(t.Context(), "203.0.113.9")
		if good, _ := resolveAll(poor, w, "good.test", 0, 2); good != 1 {
			t.Fatalf("%d came", good)
		}
		if good, err := resolveAll(cimd.WithSource(t.Context(), "203.0.113.10"), w, "good.test", 1, 2); good != 1 {
			t.Errorf("refused: %v", err)
		}
	})
	t.Run("attack DS-01: a million paths on one host are held to the host's budget", func(t *testing.T) {
		w := start(t, tight(cimd.Budgets{PerHost: cimd.Rate{Every: time.Second, Burst: 5}}))
		good, err := resolveAll(t.Context(), w, "good.test", 0, 500)
		wantKind(t, err, cimd.KindBusy)
		if n := w.host.Count("*"); good != 0 || n != 5 {
			t.Errorf("%d requests, want 5", n)
		}
		w.pass(3 * time.Second)
		resolveAll(t.Context(), w, "good.test", 500, 1000)
		if n := w.host.Count("*"); n != 8 {
			t.Errorf("%d requests after three seconds, want 8", n)
		}
	})
	t.Run("attack DS-02: the subdomains of one domain share a budget, other domains do not", func(t *testing.T) {
		w := start(t, tight(cimd.Budgets{PerHost: cimd.Rate{Every: time.Second, Burst: 5}}))
		for i := range 20 {
			w.net.Host(fmt.Sprintf("h%d.evil.test", i))
			_, _ = w.Resolve(t.Context(), cimdtest.ID(fmt.Sprintf("https://h%d.evil.test/c.json", i))) // 404 or busy
		}
		if n := len(w.net.Requests()); n != 5 {
			t.Errorf("%d requests, want 5", n)
		}
		serveAll(w.host, 1)
		if good, err := resolveAll(t.Context(), w, "good.test", 0, 1); good != 1 {
			t.Errorf("another domain was stopped: %v", err)
		}
	})
	t.Run("FETCH-19, mistake 23: the neighbours on a public suffix have budgets of their own", func(t *testing.T) {
		w := start(t, tight(cimd.Budgets{PerHost: cimd.Rate{Every: time.Minute, Burst: 1}}))
		for _, name := range []string{"alice.github.io", "bob.github.io"} {
			serveAll(w.net.Host(name), 2)
			if good, err := resolveAll(t.Context(), w, name, 0, 2); good != 1 {
				t.Errorf("%s: %d came: %v", name, good, err)
			}
		}
	})
	t.Run("mistake 23: a pinned client and one that the Persister knows are fetched whatever strangers spend", func(t *testing.T) {
		kept := newShelf()
		w := start(t, func(c *cimd.Config) { c.Persist = kept })
		serveAll(w.host, 20)
		if good, err := resolveAll(t.Context(), w, "good.test", 0, 1); good != 1 {
			t.Fatal(err)
		}
		w.pass(2 * time.Hour)
		w.Resolver = w.open(t, func(c *cimd.Config) {
			c.Persist = kept
			c.Budgets.PerHost = cimd.Rate{Every: time.Hour, Burst: 1}
		})
		w.Pin(cimdtest.ID("https://good.test/c1.json"), true)
		good, err := resolveAll(t.Context(), w, "good.test", 10, 12)
		if wantKind(t, err, cimd.KindBusy); good != 1 {
			t.Fatalf("%d strangers came", good)
		}
		if good, err := resolveAll(t.Context(), w, "good.test", 0, 2); good != 2 {
			t.Errorf("a known client was refused: %v", err)
		}
		w.Pin(cimdtest.ID("https://good.test/c1.json"), false)
		w.pass(10 * time.Minute)
		if good, _ := resolveAll(t.Context(), w, "good.test", 2, 3); good != 0 {
			t.Error("a stranger was not held up")
		}
	})
	t.Run("the global budget holds over all hosts", func(t *testing.T) {
		w := start(t, tight(cimd.Budgets{Global: cimd.Rate{Every: time.Second, Burst: 4}}))
		for i := range 10 {
			name := fmt.Sprintf("h%d.test", i)
			serveAll(w.net.Host(name), 1)
			resolveAll(t.Context(), w, name, 0, 1)
		}
		if n := len(w.net.Requests()); n != 4 {
			t.Errorf("%d requests, want 4", n)
		}
	})
	t.Run("a negative Every means no limit", func(t *testing.T) {
		none := cimd.Rate{Every: -1}
		w := start(t, tight(cimd.Budgets{PerSource: none, PerHost: none, Global: none}))
		serveAll(w.host, 150)
		if good, err := resolveAll(cimd.WithSource(t.Context(), "x"), w, "good.test", 0, 150); good != 150 {
			t.Errorf("%d came: %v", good, err)
		}
	})
	t.Run("attack FT-10: slow hosts of strangers leave room for known clients", func(t *testing.T) {
		w := start(t, tight(cimd.Budgets{InFlight: 8, InFlightPerHost: 2}))
		cached := cimdtest.ID(w.host.ServeClient("/cached.json", nil))
		if _, err := w.Resolve(t.Context(), cached); err != nil {
			t.Fatal(err)
		}
		pinned := cimdtest.ID(w.host.ServeClient("/pinned.json", nil))
		w.Pin(pinned, true)
		hold := make(chan struct{})
		var slow sync.WaitGroup
		for i := range 40 {
			h := w.net.Host(fmt.Sprintf("slow%d.test", i))
			h.Serve("/c0.json", cimdtest.Response{Status: 500, Wait: hold})
			slow.Go(func() { resolveAll(t.Context(), w, h.Name(), 0, 1) })
		}
		if err := w.net.Await(t.Context(), 1+6); err != nil {
			t.Fatal(err)
		}
		for range 10_000 {
			if _, err := w.Resolve(t.Context(), cached); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Resolve(t.Context(), pinned); err != nil {
			t.Errorf("a pinned client found no room: %v", err)
		}
		close(hold)
		slow.Wait()
	})
}

func TestBackoff(t *testing.T) {
	t.Run("CACHE-13 a refusal says what it stands for", func(t *testing.T) {
		w := start(t, nil)
		w.host.Serve("/c.json", cimdtest.Response{Status: 302})
		id := cimdtest.ID("https://good.test/c.json")
		_, first := w.Resolve(t.Context(), id)
		_, second := w.Resolve(t.Context(), id)
		a, b := wantKind(t, first, cimd.KindStatus), wantKind(t, second, cimd.KindBackoff)
		if b.Rule != a.Rule || b.RetryAfter != time.Second || !errors.Is(second, first) {
			t.Errorf("first %+v, second %+v", a, b)
		}
		if n := w.host.Count("*"); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
	t.Run("attack DS-07: made-up paths on an honest host do not hold up the honest client", func(t *testing.T) {
		w := start(t, nil)
		honest := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		w.host.Serve("/bad.json", cimdtest.Response{Status: 500})
		for _, path := range []string{"/none.json", "/bad.json", "/c.jsonx"} {
			if _, err := w.Resolve(t.Context(), cimdtest.ID(w.host.URL(path))); err == nil {
				t.Fatal("accepted")
			}
		}
		if _, err := w.Resolve(t.Context(), honest); err != nil {
			t.Errorf("the honest client was refused: %v", err)
		}
	})
	t.Run("attack DS-06: a host that cannot be reached is tried for one URL at a time", func(t *testing.T) {
		w := start(t, nil)
		w.host.Down(true)
		serveAll(w.host, 50)
		resolveAll(t.Context(), w, "good.test", 0, 50)
		if n := len(w.net.Dials()); n != 1 {
			t.Errorf("%d dials, want 1", n)
		}
		// The host works again: it is noticed within 30 seconds.
		for range 10 {
			w.pass(20 * time.Second)
			resolveAll(t.Context(), w, "good.test", 0, 50)
		}
		w.host.Down(false)
		w.pass(30 * time.Second)
		if good, err := resolveAll(t.Context(), w, "good.test", 0, 50); good != 50 {
			t.Errorf("%d of 50 came 30 s after the host was repaired: %v", good, err)
		}
	})
	t.Run("attack DS-06: while a host that failed is tried again, the others wait for the outcome", func(t *testing.T) {
		w := start(t, nil)
		serveAll(w.host, 2)
		w.host.Down(true)
		resolveAll(t.Context(), w, "good.test", 0, 1)
		w.host.Down(false)
		w.pass(time.Second)
		release := make(chan struct{})
		slow := cimdtest.JSON(cimdtest.Document("https://good.test/c0.json", nil))
		slow.Wait = release
		w.host.Serve("/c0.json", slow)
		tried := make(chan error, 1)
		go func() { _, err := resolveAll(t.Context(), w, "good.test", 0, 1); tried <- err }()
		if err := w.net.Await(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		_, err := resolveAll(t.Context(), w, "good.test", 1, 2)
		wantKind(t, err, cimd.KindBackoff)
		close(release)
		if err := <-tried; err != nil {
			t.Error(err)
		}
		if good, err := resolveAll(t.Context(), w, "good.test", 1, 2); good != 1 {
			t.Errorf("the host answered, but: %v", err)
		}
	})
	t.Run("attack DS-07: a slow path on an honest host does not hold up a client that was good", func(t *testing.T) {
		w := start(t, func(c *cimd.Config) { c.Limits.Timeout = 500 * time.Millisecond })
		honest := cimdtest.ID(w.host.ServeClient("/c.json", nil, "Cache-Control", "max-age=60, must-revalidate"))
		if _, err := w.Resolve(t.Context(), honest); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Minute)
		w.host.Serve("/slow.json", cimdtest.Response{Wait: make(chan struct{})})
		_, err := w.Resolve(t.Context(), cimdtest.ID(w.host.URL("/slow.json")))
		wantKind(t, err, cimd.KindFetch)
		_, err = w.Resolve(t.Context(), cimdtest.ID(w.host.URL("/new.json")))
		wantKind(t, err, cimd.KindBackoff)
		if _, err := w.Resolve(t.Context(), honest); err != nil {
			t.Errorf("the honest client was refused: %v", err)
		}
	})
	t.Run("CACHE-13 an administrator is not held up, and the failure of another port is another host's", func(t *testing.T) {
		w := start(t, func(c *cimd.Config) {
			c.URL.Ports, c.Egress.Ports = []uint16{8443}, []uint16{443, 8443}
		})
		w.net.Host("dead.test").Down(true)
		id := cimdtest.ID("https://dead.test/c.json")
		for range 3 {
			_, err := w.Refresh(t.Context(), id)
			wantKind(t, err, cimd.KindFetch)
		}
		if n := len(w.net.Dials()); n != 3 {
			t.Errorf("%d dials, want 3", n)
		}
		other, err := cimd.URLRules{AllowTestNames: true, Ports: []uint16{8443}}.Parse("https://dead.test:8443/c.json")
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Resolve(t.Context(), other)
		wantKind(t, err, cimd.KindFetch)
	})
}
