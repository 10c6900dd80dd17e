package client

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

func TestEveryEndpointIsChecked(t *testing.T) {
	const target, as = "https://mcp.test/mcp", "https://as.test"
	for name, spoil := range map[string]func(m *oauth.ServerMetadata, at string){
		"authorization_endpoint":                func(m *oauth.ServerMetadata, at string) { m.AuthorizationEndpoint = at },
		"token_endpoint":                        func(m *oauth.ServerMetadata, at string) { m.TokenEndpoint = at },
		"pushed_authorization_request_endpoint": func(m *oauth.ServerMetadata, at string) { m.PushedRequestEndpoint = at },
		"device_authorization_endpoint":         func(m *oauth.ServerMetadata, at string) { m.DeviceEndpoint = at },
		"revocation_endpoint":                   func(m *oauth.ServerMetadata, at string) { m.RevocationEndpoint = at },
		"registration_endpoint":                 func(m *oauth.ServerMetadata, at string) { m.RegistrationEndpoint = at },
		"challenge_endpoint":                    func(m *oauth.ServerMetadata, at string) { m.ChallengeEndpoint = at },
	} {
		t.Run("CLI-23, attack RS-13: "+name, func(t *testing.T) {
			w := newWorld(t, nil)
			for at, good := range map[string]bool{
				as + "/x": true, "http://as.test/x": false, "https://10.0.0.1/x": false, "http://127.0.0.1/x": false, "https://u:p@as.test/x": false,
			} {
				m := &oauth.ServerMetadata{Issuer: as, AuthorizationEndpoint: as + "/a", TokenEndpoint: as + "/t"}
				spoil(m, at)
				if err := w.c.checkEndpoints(target, m); good != (err == nil) || err != nil && !strings.Contains(err.Error(), name) {
					t.Errorf("%s: %v", at, err)
				}
			}
		})
	}
	t.Run("CLI-23 a resource on this computer may name a server of its network, with all endpoints", func(t *testing.T) {
		m := &oauth.ServerMetadata{Issuer: as, AuthorizationEndpoint: "https://10.0.0.1/a", TokenEndpoint: "https://10.0.0.1/t"}
		if err := newWorld(t, nil).c.checkEndpoints("http://127.0.0.1:8080/mcp", m); err != nil {
			t.Error(err)
		}
	})
	t.Run("CLI-04 an issuer with a query", func(t *testing.T) {
		w := newWorld(t, nil)
		if _, err := w.c.candidates(target, &oauth.ResourceMetadata{AuthorizationServers: []string{as + "?tenant=1"}}); err == nil {
			t.Error("it was accepted")
		}
	})
}

func TestWhoIsWho(t *testing.T) {
	const one, two = "https://one.test", "https://two.test"
	t.Run("CLI-13 a name, with its secret, belongs to the server where it was registered", func(t *testing.T) {
		for _, secrets := range []map[string]string{nil, {one: "s3cret"}} {
			w := newWorld(t, func(c *Config) { c.Registered, c.Secrets = map[string]string{one: "me", two: "I"}, secrets })
			for _, q := range []struct {
				issuer, id string
				good       bool
			}{{one, "me", true}, {two, "I", true}, {two, "me", false}, {one, "I", false}, {one, "old", false}, {one, "", false}, {"https://three.test", "me", false}, {two, appID, true}} {
				who, err := w.c.standing(t.Context(), q.issuer, q.id)
				if q.good != (err == nil) || err != nil && !errors.Is(err, ErrSignIn) {
					t.Errorf("%q at %s: %v", q.id, q.issuer, err)
				}
				if withSecret := who.secret != ""; withSecret != (q.good && q.issuer == one && secrets != nil) {
					t.Errorf("%q at %s: with a secret: %v", q.id, q.issuer, withSecret)
				}
			}
		}
	})
	t.Run("CLI-10 an answer with two states is not the awaited one", func(t *testing.T) {
		f := &Flow{state: "right"}
		for query, want := range map[string]bool{
			"state=right": true, "state=right&state=right": false, "state=right&state=x": false, "state=wrong": false, "state=": false, "": false, "state=right&%": false,
		} {
			if f.Expects(query) != want {
				t.Errorf("%q: %v", query, !want)
			}
		}
	})
	t.Run("CLI-01 of several challenges the one that says what is wrong", func(t *testing.T) {
		for header, want := range map[string]string{
			`DPoP algs="ES256", Bearer error="insufficient_scope"`:          "Bearer insufficient_scope",
			`Bearer error="insufficient_scope", DPoP error="invalid_token"`: "Bearer insufficient_scope",
			`Basic realm="x", DPoP scope="a", Bearer scope="b"`:             "DPoP ",
			`Negotiate`: " ",
		} {
			resp := &http.Response{StatusCode: 403, Header: http.Header{"Www-Authenticate": {header}}}
			if c := tokenChallenge(resp); c.Scheme+" "+c.Get("error") != want {
				t.Errorf("%s: %v", header, c)
			}
		}
	})
	t.Run("CLI-02 metadata at the root may be about the origin, however it is written", func(t *testing.T) {
		for about, good := range map[string]bool{"": true, "/": true, "/mcp": true, "/other": false} {
			w := newWorld(t, nil)
			w.rs.challenge, w.rs.at, w.rs.meta.Resource = "-", "/.well-known/oauth-protected-resource", w.rs.URL+about
			if s, err := w.c.Discover(t.Context(), w.target()); good != (err == nil) || good && s.Resource != w.rs.URL+about {
				t.Errorf("%q: %v", about, err)
			}
		}
	})
}

func TestStepUpTakesNobodysTokens(t *testing.T) {
	for id, theirs := range map[string]bool{"https://other.test/c.json": false, appID: true} {
		t.Run("CLI-12, CLI-13 what another program got meanwhile is used if it is ours: "+id, func(t *testing.T) {
			w := newWorld(t, nil)
			g, err := w.c.SignIn(t.Context(), w.target())
			if err != nil {
				t.Fatal(err)
			}
			err = w.c.cfg.Store.Update(t.Context(), w.target(), func(old *Grant) (*Grant, error) {
				next := *old
				next.ClientID, next.AccessToken, next.Scopes = id, "theirs", oauth.Scopes{"read", "write"}
				return &next, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := w.c.stepUp(t.Context(), w.target(), g, oauth.Challenge{Scheme: "Bearer", Params: []oauth.Param{{Name: "error", Value: "insufficient_scope"}, {Name: "scope", Value: "write"}}}, "op")
			if err != nil || (got.AccessToken == "theirs") != theirs || (w.opened() == 1) != theirs {
				t.Error(got, err, w.opened())
			}
		})
	}
}

func TestWhatServersTell(t *testing.T) {
	header := func(name, v string) http.Header { return http.Header{http.CanonicalHeaderKey(name): {v}} }
	t.Run("CLI-24, attack DP-07: a nonce for a proof that was not sent is no reason to try again", func(t *testing.T) {
		w := newWorld(t, nil)
		n := 0
		w.as.more = func(rw http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/token" {
				return false
			}
			n++
			rw.Header().Set("DPoP-Nonce", "n1")
			failed(rw, 400, "use_dpop_nonce")
			return true
		}
		if _, err := w.c.SignIn(t.Context(), w.target()); err == nil || n != 1 {
			t.Error(err, n)
		}
	})
	t.Run("CLI-24 a nonce belongs to who gave it, is of a size to be sent back, and there are not too many", func(t *testing.T) {
		c := newWorld(t, nil).c
		const both = "https://both.test"
		c.hear(both, header(headerNonce, "of the server"))
		if got := c.heard(atResource(both)); got != "" {
			t.Errorf("a resource has the nonce of the server of the same name: %q", got)
		}
		c.hear("long", header(headerNonce, strings.Repeat("n", maxNonce+1)))
		c.hear("fits", header(headerNonce, strings.Repeat("n", maxNonce)))
		if c.heard("long") != "" || c.heard("fits") == "" {
			t.Error("the size of a nonce")
		}
		for i := range 2 * maxStepped {
			c.hear(strings.Repeat("x", i), header(headerNonce, "n"))
		}
		c.hear(both, header(headerNonce, "the next one"))
		if len(c.told) > maxStepped || c.heard(both) != "the next one" {
			t.Errorf("%d are kept, %q", len(c.told), c.heard(both))
		}
	})
	t.Run("CLI-17 a challenge is used once, and is of a size to be sent back", func(t *testing.T) {
		w := newWorld(t, nil)
		m := w.as.meta
		w.c.hear(m.Issuer, header(headerChallenge, "c1"))
		for i, want := range []string{"c1", ""} {
			if got, err := w.c.challenge(t.Context(), &m); err != nil || got != want {
				t.Errorf("%d: %q, %v", i, got, err)
			}
		}
		m.ChallengeEndpoint = m.Issuer + "/challenge"
		for length, good := range map[int]bool{maxNonce: true, maxNonce + 1: false} {
			w.answers("/challenge", 200, `{"attestation_challenge":"`+strings.Repeat("c", length)+`"}`)
			if got, err := w.c.challenge(t.Context(), &m); good != (err == nil) || good && len(got) != length {
				t.Errorf("%d: %v", length, err)
			}
		}
	})
	t.Run("CLI-13 an attestation is that of one client and one key", func(t *testing.T) {
		one, two := key(t, "ES256"), key(t, "ES256")
		names := map[string]bool{}
		for _, r := range []request{{client: standing{id: "a"}, key: one}, {client: standing{id: "a"}, key: two}, {client: standing{id: "b"}, key: one}} {
			names[r.attested()] = true
		}
		if len(names) != 3 {
			t.Error(names)
		}
	})
	t.Run("CLI-20 a server that does not know a client which others registered ends no grant", func(t *testing.T) {
		w := newWorld(t, nil)
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		w.advance(2 * time.Hour)
		w.as.with(func() { w.as.refuse = "invalid_client" })
		_, _, err := w.call(t, w.c.HTTPClient(w.target()), callBody("list"))
		g, _ := w.c.cfg.Store.Load(t.Context(), w.target())
		if err == nil || errors.Is(err, ErrSignIn) || g.RefreshToken == "" || w.opened() != 1 {
			t.Error(err, g, w.opened())
		}
		w.as.with(func() { w.as.refuse = "" })
		w.used(t, w.c.HTTPClient(w.target()))
		if w.opened() != 1 {
			t.Error("signed in again")
		}
	})
}

// told is a Store that tells of each change.
type told struct {
	Store
	changed chan error
}

func (s *told) Update(ctx context.Context, key string, change func(*Grant) (*Grant, error)) error {
	err := s.Store.Update(ctx, key, change)
	select {
	case s.changed <- err:
	default:
	}
	return err
}

func TestRefusedTokensAndRefreshes(t *testing.T) {
	signedIn := func(t *testing.T, change func(*Config)) *world {
		w := newWorld(t, change)
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		return w
	}
	sends := func(w *world, token string) (n int) {
		w.rs.with(func() {
			for _, s := range w.rs.seen {
				if strings.HasSuffix(s, "Bearer "+token) {
					n++
				}
			}
		})
		return n
	}
	t.Run("CLI-20 a refresh goes on when who asked for it goes away, and what it gave is kept", func(t *testing.T) {
		store := &told{NewMemoryStore(), make(chan error, 1)}
		w := signedIn(t, func(c *Config) { c.Store = store })
		<-store.changed
		w.advance(time.Hour)
		begun, release := make(chan bool), make(chan bool)
		w.as.with(func() {
			w.as.more = func(_ http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" {
					close(begun)
					<-release
				}
				return false
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := w.c.current(ctx, w.target(), "")
			gone <- err
		}()
		<-begun
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(release)
		if err := <-store.changed; err != nil {
			t.Fatal(err)
		}
		if g, err := w.c.current(t.Context(), w.target(), ""); err != nil || g.AccessToken != "access3" || len(w.as.posted) != 2 {
			t.Error(g, err, w.as.posted)
		}
	})
	t.Run("CLI-20 a token that was refused is not sent again because it cannot be refreshed just now", func(t *testing.T) {
		w := signedIn(t, nil)
		w.as.with(func() { clear(w.as.access); w.as.refuse = "temporarily_unavailable" })
		if _, _, err := w.call(t, w.c.HTTPClient(w.target()), callBody("list")); err == nil || sends(w, "access2") != 1 || w.opened() != 1 {
			t.Error(err, sends(w, "access2"))
		}
	})
	t.Run("CLI-20 nor because there is nothing to refresh it with", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.token = func(out map[string]any) { delete(out, "refresh_token") }
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		w.as.with(func() { clear(w.as.access) })
		w.used(t, w.c.HTTPClient(w.target()))
		if sends(w, "access2") != 1 || w.opened() != 2 {
			t.Error(sends(w, "access2"), w.opened())
		}
	})
	t.Run("CLI-13 a registration is that of one server, and is forgotten under its own name", func(t *testing.T) {
		c := newWorld(t, func(c *Config) { c.RegisterAs = "App" }).c
		const one = "https://one.test"
		keep := func(g *Grant) {
			if err := c.cfg.Store.Update(t.Context(), atIssuer(one), func(*Grant) (*Grant, error) { return g, nil }); err != nil {
				t.Fatal(err)
			}
		}
		keep(&Grant{Issuer: "https://two.test", ClientID: "x"})
		if r, err := c.registration(t.Context(), one); r != nil || err != nil {
			t.Error(r, err)
		}
		keep(&Grant{Issuer: one, ClientID: "x"})
		for id, kept := range map[string]bool{"y": true, "x": false} {
			keep(&Grant{Issuer: one, ClientID: "x"})
			if err := c.unregister(t.Context(), standing{id: id}, one); err != nil {
				t.Fatal(err)
			}
			if r, err := c.registration(t.Context(), one); (r != nil) != kept || err != nil {
				t.Error(id, r, err)
			}
		}
	})
	t.Run("CLI-23 answers are bounded", func(t *testing.T) {
		for size, good := range map[int]bool{maxBody: true, maxBody + 1: false, 3 * maxBody: false} {
			if _, err := readBounded(strings.NewReader(strings.Repeat("x", size))); good != (err == nil) {
				t.Errorf("%d: %v", size, err)
			}
		}
	})
	t.Run("CLI-25 a code is waited for an hour at most", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &deviceWorld{answers: []string{"authorization_pending"}, grant: strings.Replace(goodDevice, "600", "1e18", 1)}
			var until time.Time
			c, err := New(Config{ID: appID, HTTP: &http.Client{Transport: w}, Device: func(_ context.Context, d DeviceCode) error { until = d.Expires; return nil }})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if _, err := c.SignIn(t.Context(), "https://mcp.test/mcp"); !errors.Is(err, ErrSignIn) || time.Since(start) != deviceMost || until.Sub(start) != deviceMost {
				t.Error(err, time.Since(start), until.Sub(start))
			}
		})
	})
}
