package directory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// rowsOnly is a store that holds rows and no documents.
type rowsOnly map[string]store.Client

func (r rowsOnly) Client(_ context.Context, id string) (store.Client, error) {
	if c, ok := r[id]; ok {
		return c, nil
	}
	return store.Client{}, store.ErrNotFound
}

func (r rowsOnly) ClientStanding(ctx context.Context, id string) (store.Client, error) {
	return r.Client(ctx, id)
}

func (rowsOnly) Document(context.Context, string) (store.Document, error) {
	return store.Document{}, store.ErrNotFound
}

func (rowsOnly) LoadCache(context.Context, string) ([]byte, bool, error) { return nil, false, nil }

func (rowsOnly) SaveCache(context.Context, string, string, []byte) error { return nil }

// registered and dynamic are rows of clients that may be used.
func registered(id string) store.Client {
	return store.Client{ID: id, Source: directory.SourceRegistered, State: directory.StateAllowed, RedirectURIs: []string{"https://good.test/cb"},
		GrantTypes: []string{"authorization_code"}, AuthMethods: []string{oauth.MethodSecretBasic}}
}

func dynamic(id, metadata string) store.Client {
	c := registered(id)
	c.Source, c.Metadata = directory.SourceDCR, []byte(metadata)
	return c
}

func under(t *testing.T, s directory.Store, set *policy.Set, now func() time.Time) *directory.Directory {
	t.Helper()
	d, err := directory.New(directory.Config{Store: s, Policy: checked(t, set), Enabled: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Resolver().Close() })
	return d
}

func TestADirectoryNeedsAStoreAndAPolicy(t *testing.T) {
	for name, c := range map[string]directory.Config{"no store": {Policy: checked(t, &policy.Set{})}, "no policy": {Store: rowsOnly{}}} {
		if _, err := directory.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStandingUnderThePolicy(t *testing.T) {
	rows := rowsOnly{"app": registered("app"), "self": dynamic("self", ""),
		"careful": dynamic("careful", `{"dpop_bound_access_tokens":true,"require_pushed_authorization_requests":true}`)}
	yes := policy.Rule{Dynamic: true, Action: policy.Allow}
	strict := policy.Rule{Dynamic: true, Action: policy.Allow, RequireDPoP: true, RequirePAR: true}
	for _, c := range []struct {
		name, id string
		set      policy.Set
		action   policy.Action
		rule     string
		strict   bool // DPoP and PAR are required
	}{
		{"POL-01 no default holds back who was registered by hand: deny", "app", policy.Set{Default: policy.Deny}, policy.Allow, "registered", false},
		{"POL-01 no default holds back who was registered by hand: ask", "app", policy.Set{Default: policy.Ask}, policy.Allow, "registered", false},
		{"POL-01 a rule that names it speaks for itself", "app", policy.Set{Default: policy.Deny, Rules: []policy.Rule{{Name: "r", Client: "app", Action: policy.Allow}}}, policy.Allow, "r", false},
		{"POL-01 a rule about those that register themselves does not mean it", "app", policy.Set{Default: policy.Deny, Rules: []policy.Rule{{Dynamic: true, Action: policy.Deny}}}, policy.Allow, "registered", false},
		{"DCR-01 the default holds back who registered itself: deny", "self", policy.Set{Default: policy.Deny}, policy.Deny, "default", false},
		{"DCR-01 the default holds back who registered itself: ask", "self", policy.Set{Default: policy.Ask}, policy.Ask, "default", false},
		{"DCR-01 a rule admits who registered itself", "self", policy.Set{Default: policy.Deny, Rules: []policy.Rule{yes}}, policy.Allow, "dynamic", false},
		{"what a client that registered itself demands of itself counts", "careful", policy.Set{Default: policy.Deny, Rules: []policy.Rule{yes}}, policy.Allow, "dynamic", true},
		{"POL-03 what a rule demands counts, whatever the client says", "self", policy.Set{Default: policy.Deny, Rules: []policy.Rule{strict}}, policy.Allow, "dynamic", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := under(t, rows, &c.set, nil)
			got, err := d.Stored(t.Context(), c.id)
			if err != nil {
				t.Fatal(err)
			}
			if dec := got.Decision; dec.Action != c.action || dec.Rule != c.rule || dec.RequireDPoP != c.strict || dec.RequirePAR != c.strict {
				t.Errorf("got %+v", dec)
			}
			if _, err := d.Find(t.Context(), c.id, false); (err == nil) != (c.action == policy.Allow) {
				t.Errorf("found: %v", err)
			}
		})
	}
}

func TestScopesOfClientsThatNoRuleMatches(t *testing.T) {
	rows := rowsOnly{"app": registered("app"), "self": dynamic("self", "")}
	set := policy.Set{Default: policy.Allow, HasUnnamed: true, Unnamed: oauth.Scopes{"read"}}
	d := under(t, rows, &set, nil)
	for _, c := range []struct{ name, id, left string }{
		{"POL-04 who was registered by hand is known", "app", "read write"},
		{"POL-04 who registered itself is not", "self", "read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := d.Stored(t.Context(), c.id)
			if err != nil {
				t.Fatal(err)
			}
			if left := got.Narrow(oauth.Scopes{"read", "write"}).String(); left != c.left {
				t.Errorf("%s is left", left)
			}
		})
	}
}

func TestWhatAClientMayUse(t *testing.T) {
	c := directory.Client{GrantTypes: []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken}, Decision: policy.Decision{Grants: []string{oauth.GrantRefreshToken, oauth.GrantClientCredentials}}}
	for grant, want := range map[string]bool{oauth.GrantAuthorizationCode: false, oauth.GrantRefreshToken: true, oauth.GrantClientCredentials: false, "": false} {
		if c.Has(grant) != want {
			t.Errorf("POL-03 %q: %v", grant, !want)
		}
	}
	asked := oauth.Scopes{"read", "write"}
	for _, c := range []struct {
		name   string
		client directory.Client
		want   string
	}{
		{"who declares nothing is bound by nothing", directory.Client{}, "read write"},
		{"DOC-28 a declaration binds", directory.Client{HasScopes: true, Scopes: oauth.Scopes{"read"}}, "read"},
		{"DOC-28 also an empty one", directory.Client{HasScopes: true}, ""},
		{"POL-03 so does the policy", directory.Client{Decision: policy.Decision{HasScopes: true, Scopes: oauth.Scopes{"write"}}}, "write"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.client.Narrow(asked).String(); got != c.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestARegistrationRunsOut(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	row := dynamic("self", "")
	row.Expires = now
	rows := rowsOnly{"self": row}
	for after, want := range map[time.Duration]bool{-time.Microsecond: true, 0: false, time.Hour: false} {
		d := under(t, rows, &policy.Set{Default: policy.Allow}, func() time.Time { return now.Add(after) })
		if _, err := d.Find(t.Context(), "self", false); (err == nil) != want {
			t.Errorf("DCR-01 %v after its end: %v", after, err)
		}
	}
	t.Run("DCR-01 by the clock of the machine where there is no other", func(t *testing.T) {
		if _, err := under(t, rows, &policy.Set{Default: policy.Allow}, nil).Find(t.Context(), "self", false); (err == nil) != time.Now().Before(now) {
			t.Errorf("got %v", err)
		}
	})
}

func TestHousekeepingPassesOverWhatIsNoClient(t *testing.T) {
	h := open(t, policy.Rule{Host: "denied.test", Action: policy.Deny})
	good, denied := h.net.Host("good.test"), h.net.Host("denied.test")
	id, no := good.ServeClient("/c.json", nil), denied.ServeClient("/c.json", nil)
	t.Run("FETCH-24 one that cannot be fetched holds up no other, and who is in use is kept in memory", func(t *testing.T) {
		h.dir.Revalidate(t.Context(), []string{"not a url", no, id})
		if good.Count("/c.json") != 1 || denied.Count("*") != 0 {
			t.Errorf("%d and %d fetches", good.Count("/c.json"), denied.Count("*"))
		}
		for url, want := range map[string]bool{id: true, no: false} {
			if st, _ := h.dir.Resolver().Status(parse(t, h, url)); st.Pinned != want {
				t.Errorf("%s pinned: %v", url, st.Pinned)
			}
		}
	})
	t.Run("CACHE-22 so is a client with a row, once it is used", func(t *testing.T) {
		other := h.net.Host("other.test").ServeClient("/c.json", nil)
		c, err := h.dir.Find(t.Context(), other, true)
		if err != nil {
			t.Fatal(err)
		}
		if st, _ := h.dir.Resolver().Status(c.Doc.ID); st.Pinned {
			t.Error("a stranger is kept")
		}
		h.agree(t, c)
		if c, err = h.dir.Find(t.Context(), other, true); err != nil || c.Version != 1 {
			t.Errorf("%+v, %v", c, err)
		}
		if st, _ := h.dir.Resolver().Status(c.Doc.ID); !st.Pinned {
			t.Error("a client with a row is not kept")
		}
	})
}

func parse(t *testing.T, h *house, url string) cimd.ID {
	t.Helper()
	id, err := h.net.Config().URL.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestThePolicyIsAskedBeforeEachFetch(t *testing.T) {
	h := open(t)
	host := h.net.Host("good.test")
	id := host.ServeClient("/c.json", map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": host.URL("/jwks.json")})
	c, err := h.dir.Find(t.Context(), id, true)
	if err != nil {
		t.Fatal(err)
	}
	h.dir.SetPolicy(checked(t, &policy.Set{Default: policy.Deny}))
	t.Run("POL-05 the keys of a client that is no longer admitted are not fetched", func(t *testing.T) {
		_, err := h.dir.Keys(t.Context(), c, "k1")
		if e, ok := errors.AsType[*cimd.Error](err); !ok || e.Kind != cimd.KindRefused || host.Count("/jwks.json") != 0 {
			t.Errorf("%v, %d fetches", err, host.Count("/jwks.json"))
		}
	})
}

func TestAnOpaqueNameIsNoAddress(t *testing.T) {
	h := open(t)
	for _, on := range []bool{true, false} {
		h.dir.SetEnabled(on)
		_, err := h.dir.Find(t.Context(), "nobody", true)
		if status, e := status(t, err); status != 400 || e.Rule != "URL-01" {
			t.Errorf("URL-01, documents %v: got %d %v", on, status, e)
		}
	}
}
