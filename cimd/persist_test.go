package cimd_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
)

func TestPersist(t *testing.T) {
	t.Run("URL-15 a failing store is reported and is no answer about the client", func(t *testing.T) {
		kept := newShelf()
		kept.fail = errors.New("disk on fire")
		w := start(t, func(c *cimd.Config) { c.Persist = kept })
		if _, err := w.Resolve(t.Context(), cimdtest.ID(w.host.ServeClient("/c.json", nil))); err != nil {
			t.Fatal(err)
		}
		evs := w.take()
		var types []string
		for _, ev := range evs {
			types = append(types, ev.Type)
			if ev.Type == cimd.EventStore && !errors.Is(ev.Err, kept.fail) {
				t.Errorf("event is %+v", ev)
			}
		}
		if !slices.Equal(types, []string{"store", "store", "fetch"}) {
			t.Errorf("events are %v", types)
		}
	})
	t.Run("a damaged entry is ignored and replaced", func(t *testing.T) {
		good := newShelf()
		w := start(t, func(c *cimd.Config) { c.Persist = good })
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		key := "document:" + id.String()
		whole := good.items[key]
		for name, bad := range map[string][]byte{
			"no JSON":              []byte("x"),
			"empty":                {},
			"cut off":              whole[:len(whole)/2],
			"of another version":   bytes.Replace(whole, []byte(`"v":1`), []byte(`"v":2`), 1),
			"of another URL":       bytes.Replace(whole, []byte("/c.json"), []byte("/d.json"), 1),
			"with an invalid body": bytes.Replace(whole, []byte(`"body":"`), []byte(`"body":"AAAA`), 1),
		} {
			kept := newShelf()
			kept.items[key] = bad
			before := w.host.Count("*")
			w.take()
			r := w.open(t, func(c *cimd.Config) { c.Persist = kept })
			if _, err := r.Resolve(t.Context(), id); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n := w.host.Count("*") - before; n != 1 {
				t.Errorf("%s: %d fetches, want 1", name, n)
			}
			if got := w.seen(); !slices.Equal(got, []string{"store", "fetch"}) {
				t.Errorf("%s: events are %v", name, got)
			}
			if bytes.Equal(kept.items[key], bad) {
				t.Errorf("%s: the entry was not replaced", name)
			}
		}
	})
	t.Run("FETCH-19 a client that somebody agreed to never draws on a budget, however often it is fetched", func(t *testing.T) {
		kept := newShelf()
		w := start(t, func(c *cimd.Config) { c.Persist = kept })
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		r := w.open(t, func(c *cimd.Config) {
			c.Persist = kept
			c.Budgets = cimd.Budgets{Global: cimd.Rate{Every: 1000 * time.Hour, Burst: 1}}
		})
		if _, err := r.Resolve(t.Context(), cimdtest.ID(w.host.ServeClient("/stranger.json", nil))); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			w.pass(2 * time.Hour)
			if _, err := r.Resolve(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.host.Count("/c.json"); n != 4 {
			t.Errorf("%d fetches, want 4", n)
		}
	})
	t.Run("an entry from the future is ignored", func(t *testing.T) {
		kept := newShelf()
		w := start(t, func(c *cimd.Config) { c.Persist = kept })
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.pass(-2 * time.Hour)
		r := w.open(t, func(c *cimd.Config) { c.Persist = kept })
		if _, ok := r.Cached(t.Context(), id); ok {
			t.Error("it is used")
		}
	})
	t.Run("rules that were tightened hold for kept entries", func(t *testing.T) {
		kept := newShelf()
		lax := func(c *cimd.Config) { c.Persist, c.URL.AllowQuery = kept, true }
		w := start(t, lax)
		w.host.ServeClient("/c.json?v=1", nil)
		id, err := cimd.URLRules{AllowTestNames: true, AllowQuery: true}.Parse("https://good.test/c.json?v=1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		strict := w.open(t, func(c *cimd.Config) { c.Persist = kept })
		if _, ok := strict.Cached(t.Context(), id); ok {
			t.Error("Cached answers")
		}
		_, err = strict.Resolve(t.Context(), id)
		wantKind(t, err, cimd.KindURL)
	})
	t.Run("URL-16 pinning hands over what is in memory, and what is kept is exempt from the budgets", func(t *testing.T) {
		var wanted bool
		kept := newShelf()
		w := start(t, func(c *cimd.Config) { c.Persist = choosy{kept, &wanted} })
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if len(kept.items) != 0 {
			t.Fatal("kept too early")
		}
		wanted = true
		w.Pin(id, true)
		if len(kept.items) != 1 {
			t.Error("pinning did not hand the document over")
		}
		w.Pin(cimd.ID{}, true)
	})
	t.Run("FETCH-14 nothing but cache headers is kept", func(t *testing.T) {
		kept := newShelf()
		w := start(t, func(c *cimd.Config) { c.Persist = kept })
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil, "Set-Cookie", "secret=1", "Server", "nginx", "Etag", `"1"`))
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if s := string(kept.items["document:"+id.String()]); strings.Contains(s, "secret") || strings.Contains(s, "nginx") || !strings.Contains(s, "Etag") {
			t.Errorf("entry is %s", s)
		}
	})
	t.Run("one load for many callers, and none for a client in memory", func(t *testing.T) {
		kept := newShelf()
		w := start(t, func(c *cimd.Config) { c.Persist = kept })
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		for range 5 {
			if _, err := w.Resolve(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if kept.loads != 1 {
			t.Errorf("%d loads, want 1", kept.loads)
		}
	})
}

// choosy is a shelf that keeps nothing before it is told to.
type choosy struct {
	*shelf
	wanted *bool
}

func (c choosy) Save(ctx context.Context, key string, id cimd.ID, entry []byte) error {
	if !*c.wanted {
		return nil
	}
	return c.shelf.Save(ctx, key, id, entry)
}
