package cimd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/jose"
)

// newKey makes a key and returns its ID and the JWK.
func newKey(t *testing.T) (string, jose.Key) {
	t.Helper()
	k, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return k.KID(), k.Public()
}

func keySetJSON(t *testing.T, keys ...jose.Key) json.RawMessage {
	t.Helper()
	raw, err := jose.MarshalSet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// kids returns the key IDs of an answer of Keys.
func kids(t *testing.T, raw json.RawMessage, err error) []string {
	t.Helper()
	if err != nil {
		t.Fatalf("no keys: %v", err)
	}
	var set struct {
		Keys []struct {
			KID string `json:"kid"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range set.Keys {
		out = append(out, k.KID)
	}
	return out
}

// keyed starts a world with a client that publishes its keys at /jwks.json.
func keyed(t *testing.T, change func(*cimd.Config)) (*world, *cimd.Document) {
	t.Helper()
	w := start(t, change)
	id := w.host.ServeClient("/c.json", map[string]any{
		"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://good.test/jwks.json",
	}, "Cache-Control", "max-age=86400")
	doc, err := w.Resolve(t.Context(), cimdtest.ID(id))
	if err != nil {
		t.Fatal(err)
	}
	w.take()
	return w, doc
}

func TestKeys(t *testing.T) {
	a, ka := newKey(t)
	b, kb := newKey(t)
	t.Run("CACHE-19 a key set is kept apart from the document, with its own lifetime", func(t *testing.T) {
		w, doc := keyed(t, nil)
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka), "Cache-Control", "max-age=120")
		for range 3 {
			raw, err := w.Keys(t.Context(), doc, a)
			if got := kids(t, raw, err); !slices.Equal(got, []string{a}) {
				t.Errorf("keys are %v", got)
			}
		}
		if n := w.host.Count("/jwks.json"); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		w.pass(121 * time.Second)
		if _, err := w.Keys(t.Context(), doc, a); err != nil {
			t.Error(err)
		}
		if n := w.host.Count("/jwks.json"); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		if q := w.host.Requests(); !strings.HasPrefix(q[len(q)-1].Header.Get("Accept"), "application/jwk-set+json") {
			t.Errorf("asked for %q", q[len(q)-1].Header.Get("Accept"))
		}
	})
	t.Run("keys inside the document need no fetch", func(t *testing.T) {
		w := start(t, nil)
		id := w.host.ServeClient("/c.json", map[string]any{
			"token_endpoint_auth_method": "private_key_jwt", "jwks": keySetJSON(t, ka),
		})
		doc, err := w.Resolve(t.Context(), cimdtest.ID(id))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := w.Keys(t.Context(), doc, "another")
		if got := kids(t, raw, err); !slices.Equal(got, []string{a}) {
			t.Errorf("keys are %v", got)
		}
		if n := w.host.Count("*"); n != 1 {
			t.Errorf("%d requests, want the one for the document", n)
		}
	})
	t.Run("attack JK-09, CACHE-19: made-up key IDs cause one fetch in 30 seconds and cost no key", func(t *testing.T) {
		w, doc := keyed(t, nil)
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka))
		for i := range 100_000 {
			raw, err := w.Keys(t.Context(), doc, fmt.Sprint("random-", i))
			if err != nil || len(raw) < 50 {
				t.Fatalf("%s, %v", raw, err)
			}
		}
		if n := w.host.Count("/jwks.json"); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		for i := range 100 { // 100 seconds, one assertion each
			w.pass(time.Second)
			raw, err := w.Keys(t.Context(), doc, fmt.Sprint("random-", i))
			kids(t, raw, err)
		}
		if n := w.host.Count("/jwks.json"); n != 4 {
			t.Errorf("%d fetches in 100 s, want 4", n)
		}
	})
	t.Run("attack JK-09: the cool-down also holds while the host fails", func(t *testing.T) {
		w, doc := keyed(t, nil)
		w.host.Serve("/jwks.json", cimdtest.Response{Status: 500})
		for range 90 {
			if _, err := w.Keys(t.Context(), doc, "x"); err == nil {
				t.Fatal("keys out of nothing")
			}
			w.pass(time.Second)
		}
		if n := w.host.Count("/jwks.json"); n != 3 {
			t.Errorf("%d fetches in 90 s, want 3", n)
		}
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka))
		if _, err := w.Keys(t.Context(), doc, a); err != nil {
			t.Errorf("not noticed within 30 s: %v", err)
		}
	})
	t.Run("attack JK-11: a new key is found with one fetch, and an old one is gone when the host says so", func(t *testing.T) {
		w, doc := keyed(t, nil)
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka))
		raw, err := w.Keys(t.Context(), doc, a)
		kids(t, raw, err)
		w.pass(31 * time.Second)
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka, kb))
		raw, err = w.Keys(t.Context(), doc, b)
		if got := kids(t, raw, err); !slices.Equal(got, []string{a, b}) {
			t.Errorf("keys are %v", got)
		}
		if n := w.host.Count("/jwks.json"); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		w.take()
		w.host.ServeJSON("/jwks.json", keySetJSON(t, kb))
		w.pass(2 * time.Hour)
		raw, err = w.Keys(t.Context(), doc, a)
		if got := kids(t, raw, err); !slices.Equal(got, []string{b}) {
			t.Errorf("keys are %v", got)
		}
		evs := w.take()
		if len(evs) != 2 || evs[1].Type != cimd.EventChanged || !slices.Equal(evs[1].Members, []string{"keys"}) ||
			evs[1].URL != doc.JWKSURI || evs[1].OldDigest == evs[1].NewDigest {
			t.Errorf("CACHE-18: events are %+v", evs)
		}
	})
	t.Run("attack JK-12: while the host fails the last good set is used, for an hour", func(t *testing.T) {
		w, doc := keyed(t, nil)
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka), "Cache-Control", "max-age=60")
		raw, err := w.Keys(t.Context(), doc, a)
		kids(t, raw, err)
		for _, bad := range []cimdtest.Response{
			{Status: 500}, {Status: 302}, {Raw: []byte("gibberish\r\n\r\n")}, {Header: http.Header{"Content-Type": {"text/html"}}},
			cimdtest.JSON([]int{1}), cimdtest.JSON(strings.Repeat("x", 33<<10)),
		} {
			w.pass(5 * time.Minute)
			w.host.Serve("/jwks.json", bad)
			raw, err := w.Keys(t.Context(), doc, a)
			if got := kids(t, raw, err); !slices.Equal(got, []string{a}) {
				t.Errorf("keys are %v after %+v", got, bad)
			}
		}
		w.pass(40 * time.Minute)
		if _, err := w.Keys(t.Context(), doc, a); err == nil {
			t.Error("the last good set is used past its time")
		}
	})
	t.Run("attack JK-12: other keys replace the old ones, and 404 withdraws them all", func(t *testing.T) {
		w, doc := keyed(t, nil)
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka), "Cache-Control", "max-age=60")
		raw, err := w.Keys(t.Context(), doc, a)
		kids(t, raw, err)
		w.pass(2 * time.Minute)
		w.host.ServeJSON("/jwks.json", keySetJSON(t, kb), "Cache-Control", "max-age=60")
		raw, err = w.Keys(t.Context(), doc, a)
		if got := kids(t, raw, err); !slices.Equal(got, []string{b}) {
			t.Errorf("keys are %v", got)
		}
		w.pass(2 * time.Minute)
		w.host.Remove("/jwks.json")
		_, err = w.Keys(t.Context(), doc, b)
		wantKind(t, err, cimd.KindGone)
		w.host.Down(true)
		w.pass(time.Minute)
		_, err = w.Keys(t.Context(), doc, b)
		wantKind(t, err, cimd.KindFetch)
	})
	t.Run("attack JK-12: an unknown key ID while the host fails leaves a fresh set in use", func(t *testing.T) {
		w, doc := keyed(t, nil)
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka), "Cache-Control", "max-age=3600, must-revalidate")
		raw, err := w.Keys(t.Context(), doc, a)
		kids(t, raw, err)
		w.host.Down(true)
		w.pass(time.Minute)
		raw, err = w.Keys(t.Context(), doc, b)
		if got := kids(t, raw, err); !slices.Equal(got, []string{a}) {
			t.Errorf("keys are %v", got)
		}
	})
	t.Run("attack JK-13: a jwks_uri that is the client_id is refused", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID("https://good.test/c.json")
		_, err := w.Keys(t.Context(), &cimd.Document{ID: id, JWKSURI: id.String()}, "")
		wantKind(t, err, cimd.KindDocument)
		_, err = w.Keys(t.Context(), &cimd.Document{ID: id}, "")
		wantKind(t, err, cimd.KindDocument)
		if len(w.net.Dials()) != 0 {
			t.Error("it was fetched")
		}
	})
	t.Run("attack JK-13: two clients with one jwks_uri share the fetch", func(t *testing.T) {
		w, doc := keyed(t, nil)
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka))
		other := *doc
		other.ID = cimdtest.ID("https://other.test/c.json")
		for _, d := range []*cimd.Document{doc, &other} {
			raw, err := w.Keys(t.Context(), d, a)
			kids(t, raw, err)
		}
		if n := w.host.Count("/jwks.json"); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
	t.Run("attack SD-35, FETCH-06: a jwks_uri on an inner address is not dialled", func(t *testing.T) {
		w, doc := keyed(t, nil)
		w.net.DNS("inner.test", netip.MustParseAddr("127.0.0.1"))
		bad := *doc
		bad.JWKSURI = "https://inner.test/jwks.json"
		_, err := w.Keys(t.Context(), &bad, a)
		wantKind(t, err, cimd.KindFetch)
		if len(w.net.Strays()) != 0 {
			t.Errorf("dialled %v", w.net.Strays())
		}
	})
	t.Run("FETCH-10 the key set has a limit of its own", func(t *testing.T) {
		w, doc := keyed(t, nil)
		body := append(keySetJSON(t, ka), []byte(strings.Repeat(" ", 20<<10))...)
		w.host.Serve("/jwks.json", cimdtest.Response{Header: http.Header{"Content-Type": {"application/jwk-set+json"}}, Body: body})
		raw, err := w.Keys(t.Context(), doc, a)
		kids(t, raw, err)
	})
	t.Run("mistake 21: a key set survives a restart", func(t *testing.T) {
		kept := newShelf()
		w, doc := keyed(t, func(c *cimd.Config) { c.Persist = kept })
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka))
		raw, err := w.Keys(t.Context(), doc, a)
		kids(t, raw, err)
		w.Resolver = w.open(t, func(c *cimd.Config) { c.Persist = kept })
		raw, err = w.Keys(t.Context(), doc, a)
		kids(t, raw, err)
		if n := w.host.Count("/jwks.json"); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
	t.Run("a pinned client's keys need no budget", func(t *testing.T) {
		w, doc := keyed(t, func(c *cimd.Config) { c.Budgets.PerHost = cimd.Rate{Every: time.Hour, Burst: 1} })
		w.host.ServeJSON("/jwks.json", keySetJSON(t, ka))
		ctx := cimd.WithSource(context.Background(), "x")
		_, err := w.Keys(ctx, doc, a)
		wantKind(t, err, cimd.KindBusy)
		w.Pin(doc.ID, true)
		raw, err := w.Keys(ctx, doc, a)
		kids(t, raw, err)
		w.Pin(doc.ID, false)
		w.Pin(doc.ID, true) // with the keys in memory
	})
}
