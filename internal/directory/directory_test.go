package directory_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const resource = "https://mcp.test/mcp"

type house struct {
	net   *cimdtest.Net
	store *store.Store
	dir   *directory.Directory
}

func open(t *testing.T, rules ...policy.Rule) *house {
	t.Helper()
	h := &house{net: cimdtest.New(t)}
	var err error
	if h.store, err = store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "a.db")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.store.Close() })
	h.dir = h.directory(t, h.store, rules...)
	return h
}

func (h *house) directory(t *testing.T, s directory.Store, rules ...policy.Rule) *directory.Directory {
	t.Helper()
	set := &policy.Set{Default: policy.Allow, Rules: rules, Resources: []policy.Resource{{ID: resource, Name: "Tools", Scopes: []policy.Scope{{Name: "read", Title: "read"}}}}}
	if err := set.Check(); err != nil {
		t.Fatal(err)
	}
	d, err := directory.New(directory.Config{Store: s, Policy: set, CIMD: h.net.Config(), Enabled: true, Reserved: []string{"https://as.test", resource}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Resolver().Close() })
	return d
}

// agree makes somebody agree to a client, which gives it a row and a snapshot.
func (h *house) agree(t *testing.T, c *directory.Client) {
	t.Helper()
	if err := h.tryAgree(t, c); err != nil {
		t.Fatal(err)
	}
}

func (h *house) tryAgree(t *testing.T, c *directory.Client) error {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	if _, err := h.store.UserByName(ctx, "john"); errors.Is(err, store.ErrNotFound) {
		if err := h.store.AddUser(ctx, store.User{ID: "u1", Name: "john", PasswordHash: "x", Created: now}); err != nil {
			t.Fatal(err)
		}
	}
	session := store.HashOf(oauth.RandomToken(16))
	if err := h.store.StartSession(ctx, store.Session{Hash: session, UserID: "u1", AuthTime: now, Created: now, LastSeen: now, Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	page, err := h.store.Consent(ctx, "u1", c.ID, resource) // what is read when a page is shown
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	grant := store.Grant{ID: store.NewID(now), UserID: "u1", ClientID: c.ID, Resource: resource, SecurityDigest: c.SecurityDigest, AuthMethods: c.AuthMethods, Created: now}
	return h.store.AnswerConsent(ctx, store.Answer{
		Nonce: store.HashOf(oauth.RandomToken(16)), NonceExpires: now.Add(time.Hour), Session: session, Endings: page.Endings,
		Client:   &store.Client{ID: c.ID, Source: directory.SourceCIMD, State: directory.StateAllowed, Name: c.Name},
		Document: &store.Document{ClientID: c.ID, Body: c.Doc.Raw, Digest: c.Doc.Digest, SecurityDigest: c.SecurityDigest, FetchedAt: now},
		Grant:    grant, Code: store.Code{Hash: store.HashOf(oauth.RandomToken(16)), Grant: grant, RedirectURI: "https://good.test/cb", Challenge: "x", Expires: now.Add(time.Minute)},
	}, now)
}

func status(t *testing.T, err error) (int, *oauth.Error) {
	t.Helper()
	var r *web.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a refusal", err)
	}
	if r.Title == "" || r.What == "" || r.Next == "" {
		t.Errorf("the page has a gap: %+v", r)
	}
	return r.Status, r.Err
}

func TestFindResolvesADocument(t *testing.T) {
	h := open(t)
	good := h.net.Host("good.test")
	id := good.ServeClient("/c.json", map[string]any{"scope": "read other"})
	t.Run("FETCH-20 nothing is fetched before it may be", func(t *testing.T) {
		if _, err := h.dir.Find(t.Context(), id, false); !errors.Is(err, directory.ErrDeferred) {
			t.Errorf("got %v", err)
		}
		if n := good.Count("*"); n != 0 {
			t.Errorf("%d fetches", n)
		}
	})
	c, err := h.dir.Find(t.Context(), id, true)
	if err != nil {
		t.Fatal(err)
	}
	if c.Source != directory.SourceCIMD || c.Host != "good.test" || !c.FirstSeen || !c.Has("authorization_code") {
		t.Errorf("got %+v", c)
	}
	t.Run("DOC-28, attack DO-28: the document bounds the scopes", func(t *testing.T) {
		if got := c.Narrow(oauth.Scopes{"read", "write"}); got.String() != "read" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("FETCH-20 a cached document serves a stranger", func(t *testing.T) {
		if _, err := h.dir.Find(t.Context(), id, false); err != nil {
			t.Error(err)
		}
	})
	t.Run("mistake 18, attack DS-01: a stranger's client gets no row", func(t *testing.T) {
		if _, err := h.store.Client(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestFindRefuses(t *testing.T) {
	no := false
	h := open(t,
		policy.Rule{Host: "denied.test", Action: policy.Deny, Reason: "Retired last year."},
		policy.Rule{Host: "asked.test", Action: policy.Ask},
		policy.Rule{Host: "webonly.test", Action: policy.Allow, Loopback: &no},
		policy.Rule{Host: "own.test", Action: policy.Allow, SameHost: true},
		policy.Rule{Host: "keys.test", Action: policy.Allow, Methods: []string{oauth.MethodPrivateKeyJWT}},
	)
	for _, name := range []string{"good.test", "denied.test", "asked.test", "webonly.test", "own.test", "keys.test"} {
		h.net.Host(name).ServeClient("/c.json", nil)
	}
	h.net.Host("webonly.test").ServeClient("/c.json", map[string]any{"redirect_uris": []string{"http://127.0.0.1/cb"}})
	h.net.Host("own.test").ServeClient("/c.json", map[string]any{"redirect_uris": []string{"https://good.test/cb"}})
	h.net.Host("good.test").ServeJSON("/bad.json", map[string]any{"client_id": "https://good.test/other.json"})
	h.net.Host("good.test").Serve("/500.json", cimdtest.Response{Status: 500})
	h.net.Host("good.test").Serve("/410.json", cimdtest.Response{Status: 410})
	h.net.Host("good.test").Serve("/large.json", cimdtest.Response{Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`"` + strings.Repeat("x", 6000) + `"`)})

	for _, c := range []struct {
		name, id string
		status   int
		code     oauth.Code
		fetches  bool
	}{
		{"POL-01 denied by policy, without a fetch", "https://denied.test/c.json", 403, oauth.UnauthorizedClient, false},
		{"POL-01 waiting for approval, without a fetch", "https://asked.test/c.json", 403, oauth.AccessDenied, false},
		{"POL-03 loopback excluded by policy", "https://webonly.test/c.json", 403, oauth.UnauthorizedClient, true},
		{"DOC-25, attack DO-17: redirects on another host under a same-host policy", "https://own.test/c.json", 403, oauth.UnauthorizedClient, true},
		{"an opaque id nobody registered", "nobody", 400, oauth.InvalidClient, false},
		{"URL-18, attack CU-01: http", "http://good.test/c.json", 400, oauth.InvalidClient, false},
		{"URL-01, attack CU-31: another scheme", "javascript:alert(1)", 400, oauth.InvalidClient, false},
		{"URL-02, attack CU-05: empty userinfo", "https://@good.test/c.json", 400, oauth.InvalidClient, false},
		{"URL-14 the issuer", "https://as.test/", 400, oauth.InvalidClient, false},
		{"URL-14 a resource", resource, 400, oauth.InvalidClient, false},
		{"DOC-02, attack DO-01: another client_id in the document", "https://good.test/bad.json", 400, oauth.InvalidClient, true},
		{"FETCH-03, attack FT-17: 500", "https://good.test/500.json", 502, oauth.InvalidClient, true},
		{"CACHE-15: 410", "https://good.test/410.json", 502, oauth.InvalidClient, true},
		{"FETCH-09, attack FT-01: too large", "https://good.test/large.json", 502, oauth.InvalidClient, true},
		{"FETCH-22 a host that does not exist", "https://nowhere.test/c.json", 502, oauth.InvalidClient, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(h.net.Dials())
			_, err := h.dir.Find(t.Context(), c.id, true)
			status, e := status(t, err)
			if status != c.status || e.Code != c.code {
				t.Errorf("got %d %s (%s), want %d %s", status, e.Code, e.Hint, c.status, c.code)
			}
			if fetched := len(h.net.Dials()) > before; fetched != c.fetches {
				t.Errorf("fetched: %v", fetched)
			}
		})
	}
	t.Run("FETCH-23 a forbidden address and a dead host look the same", func(t *testing.T) {
		h.net.DNS("inner.test", netip.MustParseAddr("10.0.0.1"))
		_, one := h.dir.Find(t.Context(), "https://inner.test/c.json", true)
		h.net.Host("dead.test").Down(true)
		_, two := h.dir.Find(t.Context(), "https://dead.test/c.json", true)
		s1, e1 := status(t, one)
		s2, e2 := status(t, two)
		if s1 != s2 || e1.Hint != e2.Hint || e1.Code != e2.Code || e1.Rule != e2.Rule {
			t.Errorf("%d %+v\n%d %+v", s1, e1, s2, e2)
		}
		if len(h.net.Strays()) != 0 {
			t.Error("the forbidden address was dialled")
		}
	})
	t.Run("POL-03 a policy that demands keys leaves no method to a public client", func(t *testing.T) {
		c, err := h.dir.Find(t.Context(), "https://keys.test/c.json", true)
		if err != nil || len(c.AuthMethods) != 0 {
			t.Errorf("got %+v, %v", c, err)
		}
	})
	t.Run("META-05 switched off: nothing is fetched", func(t *testing.T) {
		h.dir.SetEnabled(false)
		defer h.dir.SetEnabled(true)
		before := len(h.net.Dials())
		_, err := h.dir.Find(t.Context(), "https://good.test/c.json", true)
		if status, e := status(t, err); status != 400 || e.Code != oauth.InvalidClient || len(h.net.Dials()) != before {
			t.Errorf("got %d %v", status, e)
		}
	})
}

func TestRegisteredClientsComeFirst(t *testing.T) {
	h := open(t)
	ctx := t.Context()
	id := h.net.Host("good.test").ServeClient("/c.json", nil)
	reg := store.Client{ID: id, Source: directory.SourceRegistered, State: directory.StateAllowed, RedirectURIs: []string{"https://good.test/registered"},
		GrantTypes: []string{"authorization_code"}, AuthMethods: []string{oauth.MethodSecretBasic}}
	if err := h.store.RegisterClient(ctx, reg, time.Now()); err != nil {
		t.Fatal(err)
	}
	t.Run("URL-15, URL-16, attack CU-32: a registered URL is never taken over by a document", func(t *testing.T) {
		c, err := h.dir.Find(ctx, id, true)
		if err != nil {
			t.Fatal(err)
		}
		if c.Source != directory.SourceRegistered || c.RedirectURIs[0] != "https://good.test/registered" || c.Doc != nil {
			t.Errorf("got %+v", c)
		}
		if n := h.net.Host("good.test").Count("*"); n != 0 {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("REV-06 a blocked client is refused without a fetch", func(t *testing.T) {
		if err := h.store.SetClientState(ctx, id, directory.StateBlocked, "test", time.Now()); err != nil {
			t.Fatal(err)
		}
		_, err := h.dir.Find(ctx, id, true)
		if status, e := status(t, err); status != 403 || e.Code != oauth.UnauthorizedClient {
			t.Errorf("got %d %v", status, e)
		}
		c, err := h.dir.Stored(ctx, id)
		if err != nil || c.State != directory.StateBlocked {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

func TestStoredReadsTheSnapshotAndNeverFetches(t *testing.T) {
	h := open(t)
	ctx := t.Context()
	host := h.net.Host("good.test")
	id := host.ServeClient("/c.json", nil)
	t.Run("an unknown client is invalid_client", func(t *testing.T) {
		if _, err := h.dir.Stored(ctx, id); oauth.AsError(err).Code != oauth.InvalidClient {
			t.Errorf("got %v", err)
		}
	})
	c, err := h.dir.Find(ctx, id, true)
	if err != nil {
		t.Fatal(err)
	}
	h.agree(t, c)
	host.Down(true)
	before := len(h.net.Dials())
	t.Run("TOK-06, REV-04, FETCH-21, mistake 36: the host is down and the snapshot serves", func(t *testing.T) {
		for range 2 {
			got, err := h.dir.Stored(ctx, id)
			if err != nil || got.SecurityDigest != c.SecurityDigest || got.State != directory.StateAllowed {
				t.Fatalf("got %+v, %v", got, err)
			}
		}
		if len(h.net.Dials()) != before {
			t.Error("it was fetched")
		}
	})
	t.Run("POL-05 the policy of today speaks about the snapshot", func(t *testing.T) {
		set := &policy.Set{Default: policy.Deny}
		if err := set.Check(); err != nil {
			t.Fatal(err)
		}
		h.dir.SetPolicy(set)
		got, err := h.dir.Stored(ctx, id)
		if err != nil || got.Decision.Action != policy.Deny {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("CACHE-01 a document that somebody agreed to survives a restart", func(t *testing.T) {
		host.Down(false)
		d := h.directory(t, h.store)
		if _, err := d.Find(ctx, id, true); err != nil { // fetched once more after the row existed, and kept
			t.Fatal(err)
		}
		host.Down(true)
		d = h.directory(t, h.store)
		if _, err := d.Find(ctx, id, false); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	})
}

func TestRevalidateLooksAgainAtClientsInUse(t *testing.T) {
	h := open(t)
	ctx := t.Context()
	host := h.net.Host("good.test")
	id := host.ServeClient("/c.json", nil, "Cache-Control", "max-age=0")
	now := time.Now()
	cfg := h.net.Config()
	cfg.Now = func() time.Time { return now }
	set := &policy.Set{Default: policy.Allow}
	if err := set.Check(); err != nil {
		t.Fatal(err)
	}
	d, err := directory.New(directory.Config{Store: h.store, Policy: set, CIMD: cfg, Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Resolver().Close()
	c, err := d.Find(ctx, id, true)
	if err != nil {
		t.Fatal(err)
	}
	h.agree(t, c)
	t.Run("FETCH-24, CACHE-23 a fresh document is left alone", func(t *testing.T) {
		d.Revalidate(ctx, []string{id})
		if n := host.Count("/c.json"); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("FETCH-24 a stale one is fetched again, without anybody waiting for it", func(t *testing.T) {
		now = now.Add(2 * time.Minute)
		d.Revalidate(ctx, []string{id})
		if n := host.Count("/c.json"); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("POL-05 a client that the policy no longer admits is not fetched", func(t *testing.T) {
		now = now.Add(2 * time.Minute)
		closed := &policy.Set{Default: policy.Deny}
		if err := closed.Check(); err != nil {
			t.Fatal(err)
		}
		d.SetPolicy(closed)
		d.Revalidate(ctx, []string{id, "not a url"})
		if n := host.Count("/c.json"); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestARegisteredClientHasItsOwnKeys(t *testing.T) {
	h := open(t)
	const set = `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k1","use":"sig","alg":"EdDSA"}]}`
	row := store.Client{ID: "keyed-app", Source: directory.SourceRegistered, State: directory.StateAllowed, RedirectURIs: []string{"https://good.test/cb"},
		GrantTypes: []string{"authorization_code"}, AuthMethods: []string{oauth.MethodPrivateKeyJWT}, JWKS: []byte(set)}
	if err := h.store.RegisterClient(t.Context(), row, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := h.dir.Stored(t.Context(), "keyed-app")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := h.dir.Keys(t.Context(), c, "k1")
	if err != nil || len(keys.Keys) != 1 || keys.Keys[0].KID() != "k1" {
		t.Errorf("CAUTH-08 got %+v, %v", keys, err)
	}
}

func TestAPinnedClientStaysWhatItWas(t *testing.T) {
	h := open(t)
	ctx := t.Context()
	host := h.net.Host("good.test")
	id := host.ServeClient("/c.json", map[string]any{"client_name": "First"})
	c, err := h.dir.Find(ctx, id, true)
	if err != nil {
		t.Fatal(err)
	}
	first := store.Document{ClientID: id, Body: c.Doc.Raw, Digest: c.Doc.Digest, SecurityDigest: c.SecurityDigest, FetchedAt: time.Now()}
	if err := h.store.PinClient(ctx, store.Client{ID: id, Name: c.Name}, first, time.Now()); err != nil {
		t.Fatal(err)
	}
	host.ServeClient("/c.json", map[string]any{"client_name": "Second", "redirect_uris": []string{"https://good.test/second"}})
	d := h.directory(t, h.store) // with an empty cache
	fetched := host.Count("/c.json")
	t.Run("URL-16, CACHE-22 the pinned version serves, and nothing is fetched", func(t *testing.T) {
		got, err := d.Find(ctx, id, false)
		if err != nil || got.Name != "First" || got.RedirectURIs[0] != "https://good.test/cb" {
			t.Fatalf("got %+v, %v", got, err)
		}
		if n := host.Count("/c.json"); n != fetched {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("URL-16, FETCH-24 housekeeping does not fetch it either", func(t *testing.T) {
		d.Revalidate(ctx, []string{id})
		if n := host.Count("/c.json"); n != fetched {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("URL-16 an answer that rests on another document is refused", func(t *testing.T) {
		other := *c
		doc := *c.Doc
		doc.Digest, other.Doc = "another", &doc
		if err := h.tryAgree(t, &other); !errors.Is(err, store.ErrConflict) {
			t.Errorf("got %v", err)
		}
		h.agree(t, c)
	})
	t.Run("CACHE-22 unpinned, the client follows its document again", func(t *testing.T) {
		if err := h.store.UnpinClient(ctx, id, time.Now()); err != nil {
			t.Fatal(err)
		}
		got, err := d.Find(ctx, id, true)
		if err != nil || got.Name != "Second" {
			t.Errorf("got %+v, %v", got, err)
		}
		if err := h.store.UnpinClient(ctx, id, time.Now()); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("twice: %v", err)
		}
	})
	t.Run("URL-15 a registered client cannot be pinned to a document", func(t *testing.T) {
		reg := store.Client{ID: "https://good.test/registered.json", RedirectURIs: []string{"https://good.test/cb"}}
		if err := h.store.RegisterClient(ctx, reg, time.Now()); err != nil {
			t.Fatal(err)
		}
		doc := first
		doc.ClientID = reg.ID
		if err := h.store.PinClient(ctx, store.Client{ID: reg.ID}, doc, time.Now()); !errors.Is(err, store.ErrConflict) {
			t.Errorf("got %v", err)
		}
	})
}

type brokenStore struct{ directory.Store }

func (brokenStore) ClientStanding(context.Context, string) (store.Client, error) {
	return store.Client{}, errors.New("disk on fire")
}

func (brokenStore) Client(context.Context, string) (store.Client, error) {
	return store.Client{}, errors.New("disk on fire")
}

func TestAStoreFailureIsNotAnUnknownClient(t *testing.T) {
	h := open(t)
	id := h.net.Host("good.test").ServeClient("/c.json", nil)
	d := h.directory(t, brokenStore{h.store})
	t.Run("URL-15, mistake 35: the directory fails closed", func(t *testing.T) {
		_, err := d.Find(t.Context(), id, true)
		if err == nil || oauth.AsError(err).Code != oauth.ServerError {
			t.Errorf("find: %v", err)
		}
		_, err = d.Stored(t.Context(), id)
		if err == nil || oauth.AsError(err).Code != oauth.ServerError {
			t.Errorf("stored: %v", err)
		}
		if len(h.net.Dials()) != 0 {
			t.Error("it was fetched all the same")
		}
	})
}

func TestKeysComeFromTheClientOnly(t *testing.T) {
	h := open(t)
	host := h.net.Host("good.test")
	const key = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k1","use":"sig","alg":"EdDSA"}`
	host.Serve("/jwks.json", cimdtest.Response{Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"keys":[` + key + `]}`)})
	id := host.ServeClient("/c.json", map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": host.URL("/jwks.json")})
	c, err := h.dir.Find(t.Context(), id, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("CAUTH-08 the key is found by its kid in the client's own set", func(t *testing.T) {
		set, err := h.dir.Keys(t.Context(), c, "k1")
		if err != nil || len(set.Keys) != 1 || set.Keys[0].KID() != "k1" {
			t.Errorf("got %+v, %v", set, err)
		}
	})
	t.Run("a registered client has none", func(t *testing.T) {
		set, err := h.dir.Keys(t.Context(), &directory.Client{ID: "x"}, "k1")
		if err != nil || len(set.Keys) != 0 {
			t.Errorf("got %+v, %v", set, err)
		}
	})
}

func TestCheckRedirect(t *testing.T) {
	for uri, ok := range map[string]bool{
		"https://app.example.com/cb": true, "http://127.0.0.1/cb": true, "http://localhost:3000/cb": true,
		"http://app.example.com/cb": false, "javascript:alert(1)": false, "https://app.example.com/cb#x": false, "http://localhost:*/cb": false, "": false,
	} {
		if err := directory.CheckRedirect(uri); (err == nil) != ok {
			t.Errorf("DOC-09 %q: %v", uri, err)
		}
	}
}
