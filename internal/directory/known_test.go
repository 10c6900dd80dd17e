package directory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestKnown(t *testing.T) {
	h := open(t)
	ctx := t.Context()
	host := h.net.Host("good.test")
	id := host.ServeClient("/c.json", map[string]any{"client_name": "First"})
	first, err := h.dir.Find(ctx, id, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("a stranger is not known", func(t *testing.T) {
		if _, err := h.dir.Known(ctx, id); oauth.AsError(err).Code != oauth.InvalidClient {
			t.Errorf("got %v", err)
		}
	})
	h.agree(t, first)
	host.ServeClient("/c.json", map[string]any{"client_name": "Second"})
	second := h.directory(t, h.store)
	if _, err := second.Resolver().Resolve(ctx, first.Doc.ID); err != nil {
		t.Fatal(err)
	}
	fetched := host.Count("*")
	known := func(d *directory.Directory, name string) *directory.Client {
		t.Helper()
		c, err := d.Known(ctx, id)
		if err != nil || c.Name != name || c.Version != 1 || c.Source != directory.SourceCIMD {
			t.Fatalf("got %+v, %v", c, err)
		}
		return c
	}
	t.Run("by its newest document that is at hand, under the version that was agreed to", func(t *testing.T) {
		if c := known(second, "Second"); c.State != directory.StateAllowed {
			t.Errorf("state %s", c.State)
		}
	})
	t.Run("without one by what was agreed to, and nothing is fetched", func(t *testing.T) {
		if err := h.store.SetClientState(ctx, id, directory.StateBlocked, "test", time.Now()); err != nil {
			t.Fatal(err)
		}
		known(h.directory(t, noCache{h.store}), "First")
		if host.Count("*") != fetched {
			t.Error("it was fetched")
		}
	})
	t.Run("REV-06 a block is seen", func(t *testing.T) {
		if c := known(second, "Second"); c.State != directory.StateBlocked {
			t.Errorf("state %s", c.State)
		}
		if err := h.store.SetClientState(ctx, id, directory.StateAllowed, "test", time.Now()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("URL-16 a pinned client is what it was pinned to", func(t *testing.T) {
		doc := store.Document{ClientID: id, Body: first.Doc.Raw, Digest: first.Doc.Digest, SecurityDigest: first.SecurityDigest, FetchedAt: time.Now()}
		if err := h.store.PinClient(ctx, store.Client{ID: id}, doc, time.Now()); err != nil {
			t.Fatal(err)
		}
		if c, err := second.Known(ctx, id); err != nil || c.Name != "First" {
			t.Errorf("got %+v, %v", c, err)
		}
	})
	t.Run("a registered client is its row", func(t *testing.T) {
		if c, err := under(t, rowsOnly{"app": registered("app")}, &policy.Set{}, nil).Known(ctx, "app"); err != nil || c.Doc != nil || c.ID != "app" {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

// noCache is a store without the cache of documents.
type noCache struct{ directory.Store }

func (noCache) LoadCache(context.Context, string) ([]byte, bool, error) { return nil, false, nil }

// failing is a store that fails from its second look at a client on.
type failing struct {
	directory.Store
	looks *int
}

func (f failing) ClientStanding(ctx context.Context, id string) (store.Client, error) {
	if *f.looks++; *f.looks > 1 {
		return store.Client{}, errors.New("disk on fire")
	}
	return f.Store.ClientStanding(ctx, id)
}

func TestKnownWithoutAStore(t *testing.T) {
	h := open(t)
	c, err := h.dir.Find(t.Context(), h.net.Host("good.test").ServeClient("/c.json", nil), true)
	if err != nil {
		t.Fatal(err)
	}
	h.agree(t, c)
	t.Run("URL-15 a store that fails meanwhile is a failure", func(t *testing.T) {
		if _, err := h.directory(t, failing{h.store, new(int)}).Known(t.Context(), c.ID); err == nil || oauth.AsError(err).Code != oauth.ServerError {
			t.Errorf("got %v", err)
		}
	})
}

func TestNamed(t *testing.T) {
	fetched := func(id string) store.Client {
		return store.Client{ID: id, Source: directory.SourceCIMD, State: directory.StateAllowed}
	}
	rows := rowsOnly{"app": registered("app"), "https://app.example.com/registered": registered("https://app.example.com/registered"), "self": dynamic("self", ""),
		"https://named.example.com/c": fetched("https://named.example.com/c"), "https://app.example.com/c": fetched("https://app.example.com/c")}
	set := &policy.Set{Default: policy.Allow, Rules: []policy.Rule{{Host: "named.example.com", Action: policy.Allow}, {Dynamic: true, Action: policy.Allow}},
		Resources: []policy.Resource{{ID: "https://mcp.example.com/x", Name: "X"}}}
	d := under(t, rows, set, nil)
	for id, want := range map[string]bool{
		"app": true, "https://app.example.com/registered": true,
		"self": false, "https://app.example.com/c": false, "https://app.example.com/stranger": false,
		"https://named.example.com/c": true, "https://named.example.com/stranger": true,
		// These are refused as every client that is not known.
		"nobody": true, "": true, "https://mcp.example.com/x": true, "https://app.example.com/#x": true,
	} {
		if got, err := d.Named(t.Context(), id); got != want || err != nil {
			t.Errorf("DEV-09 %q: %v, %v", id, got, err)
		}
	}
	if named, err := under(t, brokenStore{}, set, nil).Named(t.Context(), "app"); named || err == nil {
		t.Errorf("URL-15 a store that fails: %v, %v", named, err)
	}
}

func TestCeilingsOfDynamicClients(t *testing.T) {
	no := false
	row := dynamic("self", "")
	row.RedirectURIs = []string{"http://127.0.0.1/cb"}
	hand := registered("app")
	hand.RedirectURIs = row.RedirectURIs
	d := under(t, rowsOnly{"self": row, "app": hand}, &policy.Set{Rules: []policy.Rule{{Dynamic: true, Action: policy.Allow, Loopback: &no}, {Client: "app", Action: policy.Allow, Loopback: &no}}}, nil)
	if _, err := d.Find(t.Context(), "self", false); oauth.AsError(err).Rule != "POL-03" {
		t.Errorf("POL-03 a client that registered itself: %v", err)
	}
	if _, err := d.Find(t.Context(), "app", false); err != nil {
		t.Errorf("POL-03 what an administrator wrote down himself stands: %v", err)
	}
}
