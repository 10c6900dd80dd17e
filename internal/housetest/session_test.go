package housetest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store"
)

// leaving is the document of a client that takes part in signing out.
func leaving(changes ...any) map[string]any {
	doc := map[string]any{
		"post_logout_redirect_uris": []string{"https://good.test/bye", "https://good.test/other?x=1"},
		"backchannel_logout_uri":    "https://good.test/logout",
	}
	for i := 0; i+1 < len(changes); i += 2 {
		doc[changes[i].(string)] = changes[i+1]
	}
	return doc
}

// openHouse is a house whose client uses OpenID Connect and has been agreed to.
func openHouse(t *testing.T) (*House, *Person, Answer) {
	t.Helper()
	h := New(t)
	h.Net.Host("good.test").ServeClient("/c.json", leaving())
	h.Net.Host("good.test").Handle("/logout", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	john := h.Person()
	a := h.Post("/token", CodeForm(john.Code(h.Authorize("scope", "openid mcp:read", "nonce", "n1"))))
	if !a.OK() || a.Str("id_token") == "" {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	return h, john, a
}

// claims reads a token that this house signed.
func (h *House) claims(token string) (jose.Header, map[string]any) {
	h.TB.Helper()
	m, err := jose.Parse(token, 0)
	if err != nil {
		h.TB.Fatal(err)
	}
	set, err := jose.ParseSet([]byte(h.Get("/jwks").Raw), jose.SetLimits{})
	if err != nil {
		h.TB.Fatal(err)
	}
	key, err := set.Find(m.Header.KID, m.Header.Alg)
	if err != nil {
		h.TB.Fatal(err)
	}
	if err := m.Verify(key); err != nil {
		h.TB.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(m.Claims, &out); err != nil {
		h.TB.Fatal(err)
	}
	return m.Header, out
}

// bye is the request of a client to sign the person out.
func bye(changes ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(changes); i += 2 {
		if changes[i+1] != "" {
			q.Set(changes[i], changes[i+1])
		}
	}
	return Issuer + "/logout?" + q.Encode()
}

func TestTheIDTokenAndUserinfoAgree(t *testing.T) {
	h, _, a := openHouse(t)
	_, id := h.claims(a.Str("id_token"))
	t.Run("OIDC-01 the ID token says who, for whom, when, and in which session", func(t *testing.T) {
		for _, name := range []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "sid", "acr", "amr"} {
			if id[name] == nil {
				t.Errorf("%s is missing: %v", name, id)
			}
		}
		if id["aud"] != ClientID || id["nonce"] != "n1" || id["iss"] != Issuer {
			t.Errorf("%v", id)
		}
	})
	ask := func(token string) Answer {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, Issuer+"/userinfo", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		return h.Do(req)
	}
	t.Run("OIDC-02, OIDC-03, META-17 userinfo stands where the metadata says, and the subject is the same", func(t *testing.T) {
		if at := h.Get("/.well-known/openid-configuration").Str("userinfo_endpoint"); at != Issuer+"/userinfo" {
			t.Errorf("%s", at)
		}
		if u := ask(a.Str("access_token")); !u.OK() || u.Str("sub") != id["sub"] || len(u.Body) != 1 || u.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%d %s", u.Status, u.Raw)
		}
	})
	t.Run("OIDC-03 a token without openid learns nothing", func(t *testing.T) {
		b := h.Post("/token", CodeForm(h.Person().Code(h.Authorize())))
		if u := ask(b.Str("access_token")); u.Status != 403 || u.Str("error") != "insufficient_scope" {
			t.Errorf("%d %s", u.Status, u.Raw)
		}
	})
	t.Run("OIDC-04 an ID token is no access token", func(t *testing.T) {
		if u := ask(a.Str("id_token")); u.Status != 401 {
			t.Errorf("%d %s", u.Status, u.Raw)
		}
	})
	t.Run("OIDC-03 after revocation nothing is said", func(t *testing.T) {
		h.Post("/revoke", change(nil2("token", a.Str("refresh_token")), []string{"client_id", ClientID}))
		if u := ask(a.Str("access_token")); u.Status != 401 || !strings.Contains(u.Header.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("%d %s", u.Status, u.Raw)
		}
	})
}

func TestUserinfoWithABoundToken(t *testing.T) {
	h := New(t)
	key, other := newKey(t, jose.ES256), newKey(t, jose.ES256)
	a := h.Post("/token", CodeForm(h.Person().Code(h.Authorize("scope", "openid mcp:read"))), h.proof(key, nil))
	if !a.OK() || a.Str("token_type") != "DPoP" {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	token := a.Str("access_token")
	athOf := func(token string) string {
		hash := sha256.Sum256([]byte(token))
		return base64.RawURLEncoding.EncodeToString(hash[:])
	}
	ath := athOf(token)
	for _, c := range []struct {
		name, scheme string
		key          jose.Private
		claims       members
		status       int
	}{
		{"DPOP-06, OIDC-03 with its key", "DPoP", key, members{"htm": "GET", "htu": Issuer + "/userinfo", "ath": ath}, 200},
		{"DPOP-06 with another key", "DPoP", other, members{"htm": "GET", "htu": Issuer + "/userinfo", "ath": ath}, 401},
		{"DPOP-01 with a proof for another endpoint", "DPoP", key, members{"htm": "GET", "htu": Issuer + "/token", "ath": ath}, 401},
		{"DPOP-01 with a proof for another token", "DPoP", key, members{"htm": "GET", "htu": Issuer + "/userinfo", "ath": athOf(token + "x")}, 401},
		{"DPOP-06 as a bearer token", "Bearer", key, members{"htm": "GET", "htu": Issuer + "/userinfo", "ath": ath}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, Issuer+"/userinfo", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", c.scheme+" "+token)
			h.proof(c.key, c.claims)(req)
			if u := h.Do(req); u.Status != c.status || (u.Str("sub") != "") != (c.status == 200) {
				t.Errorf("%d %s %v", u.Status, u.Raw, u.Header)
			}
		})
	}
}

func TestAClientSignsThePersonOut(t *testing.T) {
	h, john, a := openHouse(t)
	hint := a.Str("id_token")
	const to = "https://good.test/bye"
	t.Run("OIDC-08 refused on a page, and the person stays signed in", func(t *testing.T) {
		for name, address := range map[string]string{
			"another address":                 bye("id_token_hint", hint, "post_logout_redirect_uri", "https://good.test/by"),
			"a longer one":                    bye("id_token_hint", hint, "post_logout_redirect_uri", to+"/"),
			"in upper case":                   bye("id_token_hint", hint, "post_logout_redirect_uri", "https://GOOD.test/bye"),
			"a redirect URI of the sign-in":   bye("id_token_hint", hint, "post_logout_redirect_uri", Redirect),
			"neither hint nor client":         bye("post_logout_redirect_uri", to),
			"a client that is not known":      bye("client_id", "https://evil.test/c.json", "post_logout_redirect_uri", to),
			"another client than in the hint": bye("id_token_hint", hint, "client_id", "https://evil.test/c.json", "post_logout_redirect_uri", to),
			"a hint that is not ours":         bye("id_token_hint", hint[:len(hint)-4]+"AAAA", "post_logout_redirect_uri", to),
			"an access token as the hint":     bye("id_token_hint", a.Str("access_token"), "post_logout_redirect_uri", to),
			"a state without end":             bye("id_token_hint", hint, "post_logout_redirect_uri", to, "state", strings.Repeat("s", 4097)),
		} {
			page := john.VisitFrom(address, "cross-site")
			if page.Left || page.Status != 400 || !strings.Contains(page.Body, "OIDC-08") {
				t.Errorf("%s: %d %s %s", name, page.Status, page.URL, page.Text())
			}
		}
		if page := john.Visit(Issuer + "/logout"); !strings.Contains(page.Text(), "Sign out?") {
			t.Errorf("%s", page.Text())
		}
	})
	t.Run("OIDC-08 without a hint the person is asked, and then goes where the client lists, with the state", func(t *testing.T) {
		other := h.Person()
		other.Code(h.Authorize("scope", "openid mcp:read", "state", "s9"))
		page := other.VisitFrom(bye("client_id", ClientID, "post_logout_redirect_uri", "https://good.test/other?x=1", "state", "s 1"), "cross-site")
		if page.Left || !strings.Contains(page.Text(), "good.test") || !strings.Contains(page.Text(), "Sign out?") {
			t.Fatalf("%s %s", page.URL, page.Text())
		}
		f, err := page.Form("form")
		if err != nil {
			t.Fatal(err)
		}
		if page = other.Send(f); !page.Left || page.URL.String() != "https://good.test/other?x=1&state=s+1" {
			t.Errorf("%s", page.URL)
		}
	})
	t.Run("OIDC-08 with the ID token of another session the person is asked", func(t *testing.T) {
		other := h.Person()
		other.Code(h.Authorize("scope", "openid mcp:read", "state", "s10"))
		if page := other.VisitFrom(bye("id_token_hint", hint, "post_logout_redirect_uri", to), "cross-site"); page.Left || !strings.Contains(page.Text(), "Sign out?") {
			t.Errorf("%s %s", page.URL, page.Text())
		}
	})
	t.Run("OIDC-08 a POST from the client finds the session too", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, Issuer+"/logout", strings.NewReader(url.Values{"id_token_hint": {hint}, "state": {"x"}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", "https://good.test")
		if r := h.Do(req); r.Status != 303 || !strings.HasPrefix(r.Header.Get("Location"), "/logout?id_token_hint=") {
			t.Errorf("%d %v", r.Status, r.Header)
		}
	})
	t.Run("OIDC-08 with the ID token of this session, expired long ago, the session ends at once", func(t *testing.T) {
		h.Later(2 * time.Hour)
		page := john.VisitFrom(bye("id_token_hint", hint, "post_logout_redirect_uri", to, "state", "s1"), "cross-site")
		if !page.Left || page.URL.String() != to+"?state=s1" {
			t.Fatalf("%s %s", page.URL, page.Text())
		}
		if page := john.Visit(h.Authorize("prompt", "login")); !page.Has("password") {
			t.Error("still signed in")
		}
	})
	t.Run("OIDC-08 nobody is signed in: the client's own token leads back, a bare client_id only by a link", func(t *testing.T) {
		if page := john.VisitFrom(bye("id_token_hint", hint, "post_logout_redirect_uri", to, "state", "s2"), "cross-site"); !page.Left {
			t.Errorf("%s", page.Text())
		}
		page := john.VisitFrom(bye("client_id", ClientID, "post_logout_redirect_uri", to, "state", "s2"), "cross-site")
		if page.Left || !strings.Contains(page.Body, `href="https://good.test/bye?state=s2"`) {
			t.Errorf("%s %s", page.URL, page.Body)
		}
	})
}

func TestClientsAreTold(t *testing.T) {
	h, john, a := openHouse(t)
	_, id := h.claims(a.Str("id_token"))
	host := h.Net.Host("good.test")
	before := len(h.Net.Requests())
	page := john.Visit(Issuer + "/logout")
	f, err := page.Form("form")
	if err != nil {
		t.Fatal(err)
	}
	if page = john.Send(f); !strings.Contains(page.Text(), "You are signed out") {
		t.Fatal(page.Text())
	}
	await := func(path string, n int) {
		t.Helper()
		for host.Count(path) < n {
			before++
			if err := h.Net.Await(t.Context(), before); err != nil {
				t.Fatal(err)
			}
		}
	}
	await("/logout", 1)
	t.Run("OIDC-09 a logout token arrives that is nothing else", func(t *testing.T) {
		reqs := host.Requests()
		req := reqs[len(reqs)-1]
		form, err := url.ParseQuery(string(req.Body))
		if err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || req.Header.Get("Cookie") != "" {
			t.Fatalf("%+v", req)
		}
		head, c := h.claims(form.Get("logout_token"))
		events, _ := c["events"].(map[string]any)
		if head.Typ != "logout+jwt" || c["iss"] != Issuer || c["aud"] != ClientID || c["sub"] != id["sub"] || c["sid"] != id["sid"] || c["jti"] == "" || events["http://schemas.openid.net/event/backchannel-logout"] == nil {
			t.Errorf("%+v %v", head, c)
		}
		if _, has := c["nonce"]; has || c["exp"].(float64)-c["iat"].(float64) > 120 {
			t.Errorf("%v", c)
		}
		if page := h.Person().Visit(bye("id_token_hint", form.Get("logout_token"), "post_logout_redirect_uri", "https://good.test/bye")); page.Left {
			t.Error("OIDC-04 a logout token passes for an ID token")
		}
	})
	t.Run("OIDC-09 an account that is disabled on the command line has its clients told", func(t *testing.T) {
		jane := h.AddUser("jane", Password)
		b := h.Person()
		page := b.SignInAs(b.Visit(h.Authorize("scope", "openid mcp:read")), "jane", Password)
		if page = b.Answer(page, "allow"); !page.Left {
			t.Fatal(page.Text())
		}
		cfg, err := server.Parse([]byte(h.stored(Config)), h.Dir, false)
		if err != nil {
			t.Fatal(err)
		}
		e := h.Net.Egress()
		err = server.EndAccount(t.Context(), cfg, server.Options{Now: h.Now, Egress: &cimd.Egress{Lookup: e.Lookup, Dial: e.Dial, RootCAs: e.RootCAs}}, jane.ID,
			func(ctx context.Context, s *store.Store) error { return s.DisableUser(ctx, jane.ID, h.Now()) })
		if err != nil {
			t.Fatal(err)
		}
		if n := host.Count("/logout"); n != 2 {
			t.Errorf("%d notices", n)
		}
	})
	h.Server.Close()
	if sent := h.Events(audit.TypeLogoutNotice); len(sent) != 1 || sent[0].Code != "sent" || sent[0].Client != ClientID {
		t.Errorf("%+v", sent)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestLogoutNoticesGoNowhereElse(t *testing.T) {
	for name, uri := range map[string]string{
		"the metadata service": "https://169.254.169.254/latest", "loopback": "https://127.0.0.1/", "http": "http://169.254.169.254/",
		"a name with an inner address": "https://inner.test/",
	} {
		t.Run("OIDC-09, attack SD-36: backchannel_logout_uri at "+name, func(t *testing.T) {
			h := New(t)
			h.Net.DNS("inner.test", netip.MustParseAddr("10.0.0.7"))
			h.Net.Host("good.test").ServeClient("/c.json", leaving("backchannel_logout_uri", uri))
			john := h.Person()
			john.Code(h.Authorize("scope", "openid mcp:read"))
			f, err := john.Visit(Issuer + "/logout").Form("form")
			if err != nil {
				t.Fatal(err)
			}
			if page := john.Send(f); !strings.Contains(page.Text(), "You are signed out") {
				t.Fatal(page.Text())
			}
			h.Server.Close()
			if strays := h.Net.Strays(); len(strays) != 0 {
				t.Errorf("dialled %v", strays)
			}
			for _, e := range h.Events(audit.TypeLogoutNotice) {
				if e.Code != "failed" || strings.Contains(strings.Join(slices.Collect(mapValues(e.Data)), " "), "10.0.0.7") {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

func mapValues(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func TestPeopleEndTheirConnections(t *testing.T) {
	h, john, a := openHouse(t)
	h.Net.Host("other.test").ServeClient("/c.json", map[string]any{"client_name": "Other"})
	john.Code(h.Authorize("client_id", "https://other.test/c.json", "redirect_uri", "https://other.test/cb"))
	stranger := h.Person()
	t.Run("CONS-14 nobody is signed in: the page asks first and comes back", func(t *testing.T) {
		page := stranger.Visit(Issuer + "/connections")
		if !page.Has("password") {
			t.Fatal(page.Text())
		}
		h.AddUser("jane", Password)
		if page = stranger.SignInAs(page, "jane", Password); !strings.Contains(page.Text(), "No app is connected") {
			t.Errorf("%s %s", page.URL, page.Text())
		}
	})
	page := john.Visit(Issuer + "/connections")
	t.Run("CONS-14 the page says which app may do what, where, and when it was used", func(t *testing.T) {
		for _, want := range []string{"good.test", "other.test", "Example tools", "look things up", "know who you are", "just now", ClientID} {
			if !strings.Contains(page.Text(), want) {
				t.Errorf("%q is missing: %s", want, page.Text())
			}
		}
	})
	f, err := page.Form("client")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("CONS-14, attack CN-11: the form counts in its own session only", func(t *testing.T) {
		if p := stranger.Send(f.With("client", ClientID)); p.Status != 403 {
			t.Errorf("%d %s", p.Status, p.Text())
		}
		g := *f
		g.Origin = "https://evil.test"
		if p := john.Send(&g); p.Status != 403 {
			t.Errorf("%d %s", p.Status, p.Text())
		}
		if r := h.Post("/token", RefreshForm(a.Str("refresh_token"))); !r.OK() {
			t.Fatalf("%d %s", r.Status, r.Raw)
		} else {
			a = r
		}
	})
	t.Run("CONS-14 one connection ends, and the other goes on", func(t *testing.T) {
		page = john.Send(f.With("client", ClientID))
		if !strings.Contains(page.Text(), "Ended: good.test") || !strings.Contains(page.Text(), "other.test") {
			t.Errorf("%s", page.Text())
		}
		if r := h.Post("/token", RefreshForm(a.Str("refresh_token"))); r.Str("error") != "invalid_grant" {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
		if p := john.VisitFrom(h.Authorize("state", "s7"), "cross-site"); !p.Has("decision") {
			t.Errorf("the consent is still remembered: %s", p.URL)
		}
	})
	t.Run("CONS-14 all of them end", func(t *testing.T) {
		f, err := page.Form("all")
		if err != nil {
			t.Fatal(err)
		}
		if page = john.Send(f); !strings.Contains(page.Text(), "No app is connected") || !strings.Contains(page.Text(), "all apps") {
			t.Errorf("%s", page.Text())
		}
	})
	t.Run("CONS-14 administrators end them too", func(t *testing.T) {
		h.Later(time.Second)
		john.Code(h.Authorize("state", "s8"))
		s := h.Store()
		u := must(s.UserByName(t.Context(), User))(t)
		if n, err := server.EndAll(t.Context(), s, store.Whose{UserID: u.ID}, h.Now()); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if p := john.Visit(Issuer + "/connections"); !p.Has("password") {
			t.Errorf("still signed in: %s", p.Text())
		}
	})
}
