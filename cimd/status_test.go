package cimd_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
)

func TestStatus(t *testing.T) {
	t.Run("CACHE-22 what an administrator sees of a client", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil, "Cache-Control", "max-age=5", "Etag", `"1"`))
		if st, ok := w.Status(id); ok || st.Document != nil {
			t.Errorf("known before the first use: %+v", st)
		}
		began := w.clock()
		doc, err := w.Resolve(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		st, ok := w.Status(id)
		if !ok || st.Document != doc || !st.Usable || st.Pinned || st.Withdrawn != nil || st.LastError != nil {
			t.Errorf("status is %+v", st)
		}
		if st.Freshness.Lifetime != time.Minute || st.Freshness.Clamped != "floor" || st.Header.Get("Cache-Control") != "max-age=5" ||
			!st.LastFetch.Equal(began) || !st.LastChange.Equal(began) || !st.NextCheck.Equal(began.Add(time.Minute)) {
			t.Errorf("status is %+v", st)
		}
		w.Pin(id, true)
		w.pass(2 * time.Minute)
		w.host.ServeClient("/c.json", map[string]any{"client_name": "Other", "logo_uri": nil, "scope": "read"})
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		st, _ = w.Status(id)
		if !st.Pinned || st.Document.Name != "Other" || !st.LastChange.Equal(began.Add(2*time.Minute)) {
			t.Errorf("status is %+v", st)
		}
	})
	t.Run("CACHE-12, CACHE-22 after a failure the good copy and the back-off are shown", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		doc, err := w.Resolve(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Hour)
		w.host.Remove("/c.json")
		if _, err := w.Resolve(t.Context(), id); err == nil {
			t.Fatal("accepted")
		}
		st, ok := w.Status(id)
		if !ok || st.Usable || st.Document == nil || st.Document.Digest != doc.Digest || st.Failures != 1 ||
			!st.LastFetch.Equal(w.clock()) || !st.BackoffUntil.Equal(w.clock().Add(time.Second)) || !st.NextCheck.Equal(st.BackoffUntil) {
			t.Errorf("status is %+v", st)
		}
		if refusal(t, st.Withdrawn).Kind != cimd.KindGone || refusal(t, st.LastError).Kind != cimd.KindGone {
			t.Errorf("status is %+v", st)
		}
		w.pass(time.Minute)
		if st, _ := w.Status(id); !st.NextCheck.IsZero() || !st.BackoffUntil.IsZero() {
			t.Errorf("status is %+v", st)
		}
	})
	t.Run("a client that never came is known by its failure", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID("https://nowhere.test/c.json")
		if _, err := w.Resolve(t.Context(), id); err == nil {
			t.Fatal("accepted")
		}
		if st, ok := w.Status(id); !ok || st.Document != nil || st.Failures != 1 || st.LastError == nil {
			t.Errorf("status is %+v, %v", st, ok)
		}
	})
	t.Run("after a restart the Persister is asked", func(t *testing.T) {
		kept := newShelf()
		w := start(t, func(c *cimd.Config) { c.Persist = kept })
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		changed := w.clock()
		w.pass(time.Minute)
		r := w.open(t, func(c *cimd.Config) { c.Persist = kept })
		if st, ok := r.Status(id); !ok || !st.Usable || !st.LastChange.Equal(changed) {
			t.Errorf("status is %+v, %v", st, ok)
		}
		if n := w.host.Count("*"); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

func TestChangeEvent(t *testing.T) {
	t.Run("CACHE-17 a change names its members and digests", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID(w.host.ServeClient("/c.json", map[string]any{"scope": "read", "tos_uri": "https://good.test/tos"}))
		before, err := w.Resolve(cimd.WithSource(t.Context(), "session-1"), id)
		if err != nil {
			t.Fatal(err)
		}
		w.take()
		w.host.ServeClient("/c.json", map[string]any{"scope": "write", "policy_uri": "https://good.test/policy"})
		after, err := w.Refresh(cimd.WithSource(t.Context(), "session-2"), id)
		if err != nil {
			t.Fatal(err)
		}
		evs := w.take()
		if len(evs) != 2 || evs[0].Type != cimd.EventFetch || evs[1].Type != cimd.EventChanged {
			t.Fatalf("events are %+v", evs)
		}
		ev := evs[1]
		if !slices.Equal(ev.Members, []string{"policy_uri", "scope", "tos_uri"}) || ev.OldDigest != before.Digest ||
			ev.NewDigest != after.Digest || ev.ID != id || ev.URL != id.String() || ev.Status != 200 || ev.Source != "session-2" {
			t.Errorf("event is %+v", ev)
		}
	})
	t.Run("the same document written differently has no changed members", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.take()
		w.host.Serve("/c.json", padded(2000))
		if _, err := w.Refresh(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if evs := w.take(); len(evs) != 2 || evs[1].Type != cimd.EventChanged || len(evs[1].Members) != 0 {
			t.Errorf("events are %+v", evs)
		}
	})
}

func TestRevalidate(t *testing.T) {
	t.Run("FETCH-24 the documents of clients with live grants are read again when they have expired", func(t *testing.T) {
		w := start(t, func(c *cimd.Config) { c.Budgets.PerHost = cimd.Rate{Every: time.Hour, Burst: 1} })
		serveAll(w.host, 20)
		var ids []cimd.ID
		for i := range 20 {
			ids = append(ids, cimdtest.ID(w.host.URL("/c"+string(rune('0'+i%10))+".json")))
		}
		ids = ids[:10]
		if n := w.Revalidate(t.Context(), ids); n != 10 {
			t.Errorf("%d are good, want 10", n)
		}
		if n := w.Revalidate(t.Context(), ids); n != 10 || w.host.Count("*") != 10 {
			t.Errorf("%d are good after %d fetches", n, w.host.Count("*"))
		}
		w.pass(2 * time.Hour)
		w.host.Remove("/c3.json")
		if n := w.Revalidate(t.Context(), ids); n != 9 || w.host.Count("*") != 20 {
			t.Errorf("%d are good after %d fetches", n, w.host.Count("*"))
		}
		_, err := w.Resolve(t.Context(), ids[3])
		wantKind(t, err, cimd.KindBackoff)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w.pass(2 * time.Hour)
		if n := w.Revalidate(ctx, ids); n != 0 {
			t.Errorf("%d after the end", n)
		}
		if n := w.Revalidate(t.Context(), nil); n != 0 {
			t.Errorf("%d of none", n)
		}
	})
}

func TestEgressRules(t *testing.T) {
	t.Run("FETCH-06 a denied range, an exact private URL and a private authority hold for document, keys and logo", func(t *testing.T) {
		w := start(t, func(c *cimd.Config) {
			c.Egress.Private = []string{"https://corp.test/c.json", "https://corp.test/jwks.json"}
			dial := c.Egress.Dial
			c.Egress.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
				if to.Addr() == netip.MustParseAddr("10.1.2.3") {
					return dial(ctx, netip.AddrPortFrom(netip.MustParseAddr("93.184.216.35"), to.Port()))
				}
				return dial(ctx, to)
			}
		})
		corp := w.net.Host("corp.test") // the second host, at .35
		w.net.DNS("corp.test", netip.MustParseAddr("10.1.2.3"))
		_, key := newKey(t)
		corp.ServeJSON("/jwks.json", keySetJSON(t, key))
		doc, err := w.Resolve(t.Context(), cimdtest.ID(corp.ServeClient("/c.json", map[string]any{
			"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://corp.test/jwks.json"})))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Keys(t.Context(), doc, ""); err != nil {
			t.Error(err)
		}
		with := *doc
		with.LogoURI = "https://corp.test/logo.png"
		_, err = w.Logo(t.Context(), &with)
		wantKind(t, err, cimd.KindFetch)
		_, err = w.Resolve(t.Context(), cimdtest.ID(corp.ServeClient("/d.json", nil)))
		wantKind(t, err, cimd.KindFetch)

		denied := w.open(t, func(c *cimd.Config) { c.Egress.Deny = []netip.Prefix{netip.MustParsePrefix("93.184.216.0/24")} })
		_, err = denied.Resolve(t.Context(), cimdtest.ID(w.host.ServeClient("/e.json", nil)))
		wantKind(t, err, cimd.KindFetch)
	})
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]cimd.Config{
		"FETCH-10 a document limit over 64 KiB": {Limits: cimd.Limits{DocumentBytes: 64<<10 + 1}},
		"FETCH-15 a time limit over 5 s":        {Limits: cimd.Limits{Timeout: 6 * time.Second}},
		"a negative size":                       {Limits: cimd.Limits{JWKSBytes: -1}},
		"a negative number":                     {Limits: cimd.Limits{MaxEntries: -1}},
		"a floor above the ceiling":             {Limits: cimd.Limits{Freshness: cimd.FreshnessLimits{Floor: 2, Ceiling: 1}}},
		"CACHE-14 a day and more of stale use":  {Limits: cimd.Limits{LastKnownGood: 25 * time.Hour}},
		"a proxy that is none":                  {Egress: cimd.Egress{Proxy: &url.URL{Scheme: "ftp", Host: "p.test"}}},
	} {
		if r, err := cimd.New(c); err == nil {
			t.Errorf("%s was accepted", name)
			r.Close()
		}
	}
	t.Run("FETCH-10 the limit can be raised to 64 KiB", func(t *testing.T) {
		w := start(t, func(c *cimd.Config) { c.Limits.DocumentBytes = 64 << 10 })
		w.host.Serve("/c.json", padded(20<<10))
		if _, err := w.Resolve(t.Context(), cimdtest.ID("https://good.test/c.json")); err != nil {
			t.Error(err)
		}
	})
	t.Run("CACHE-14 a negative time turns stale use off", func(t *testing.T) {
		w := start(t, func(c *cimd.Config) { c.Limits.LastKnownGood = -1 })
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Hour)
		w.host.Down(true)
		if _, err := w.Resolve(t.Context(), id); err == nil {
			t.Error("a stale document was used")
		}
	})
	t.Run("an error prints its private cause for the log", func(t *testing.T) {
		w := start(t, nil)
		_, err := w.Resolve(t.Context(), cimdtest.ID("https://good.test/none.json"))
		if err == nil || errors.Unwrap(err) == nil || errors.Unwrap(err).Error() != "status 404" {
			t.Errorf("error is %v", err)
		}
	})
}
