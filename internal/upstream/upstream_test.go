package upstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/safehttp"
)

const issuer = "https://idp.test"

// world is a provider in a small net, with a clock.
type world struct {
	*testing.T
	*Provider
	net *cimdtest.Net

	mu        sync.Mutex // guards what follows
	now       time.Time
	keys      []jose.Private
	discovery map[string]any
	claims    map[string]any
	tokens    []*http.Request
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) key() jose.Private {
	w.Helper()
	k, err := jose.Generate(jose.ES256)
	if err != nil {
		w.Fatal(err)
	}
	return k
}

// set changes what the provider says.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{T: t, net: cimdtest.New(t), now: time.Now().Truncate(time.Second)}
	w.keys = []jose.Private{w.key()}
	now := w.now.Unix()
	w.discovery = map[string]any{"issuer": issuer, "authorization_endpoint": issuer + "/authorize?a=b", "token_endpoint": issuer + "/token", "jwks_uri": issuer + "/jwks"}
	w.claims = map[string]any{"iss": issuer, "sub": "u-1", "aud": "we", "iat": now, "exp": now + 600, "nonce": "n"}
	host := w.net.Host("idp.test")
	answer := func(path string, v func() any) {
		host.Handle(path, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if path == "/token" {
				if err := r.ParseForm(); err != nil {
					t.Error(err)
				}
				w.tokens = append(w.tokens, r)
			}
			if err := json.NewEncoder(rw).Encode(v()); err != nil {
				t.Error(err)
			}
		}))
	}
	answer("/.well-known/openid-configuration", func() any { return w.discovery })
	answer("/jwks", func() any {
		var public []jose.Key
		for _, k := range w.keys {
			public = append(public, k.Public())
		}
		raw, err := jose.MarshalSet(public...)
		if err != nil {
			t.Error(err)
		}
		return json.RawMessage(raw)
	})
	answer("/token", func() any {
		token, err := w.keys[0].Sign("", w.claims)
		if err != nil {
			t.Error(err)
		}
		return map[string]string{"id_token": token, "access_token": "x"}
	})
	egress, err := safehttp.New(safehttp.Rules{RootCAs: w.net.RootCAs(), Lookup: w.net.Lookup, Dial: w.net.Dial})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Name: "idp", Issuer: issuer, ClientID: "we", Secret: "s3:cret", RedirectURI: "https://as.test/login/callback/idp", Egress: egress, Now: w.clock}
	if change != nil {
		change(&c)
	}
	if w.Provider, err = New(c); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) exchange() (*Person, error) {
	return w.Exchange(w.Context(), "code", Trip{Nonce: "n", Verifier: "v"})
}

func TestTheSecretGoesWhereTheProviderWantsIt(t *testing.T) {
	for _, c := range []struct {
		name    string
		secret  string
		methods []string
		basic   bool
		body    string
	}{
		{"HTTP Basic where it says nothing", "s3:cret", nil, true, ""},
		{"HTTP Basic where it takes both", "s3:cret", []string{"client_secret_post", "client_secret_basic"}, true, ""},
		{"the body where it takes nothing else", "s3:cret", []string{"client_secret_post"}, false, "s3:cret"},
		{"nowhere without one", "", nil, false, ""},
	} {
		t.Run("OIDC-05 "+c.name, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { cfg.Secret = c.secret })
			if c.methods != nil {
				w.discovery["token_endpoint_auth_methods_supported"] = c.methods
			}
			if _, err := w.exchange(); err != nil {
				t.Fatal(err)
			}
			r := w.tokens[0]
			user, pass, basic := r.BasicAuth()
			if basic != c.basic || basic && (user != "we" || pass != url.QueryEscape("s3:cret")) || r.PostForm.Get("client_secret") != c.body || (r.PostForm.Get("client_id") == "we") == basic {
				t.Errorf("%v %v", r.Header, r.PostForm)
			}
			if r.PostForm.Get("code_verifier") != "v" || r.PostForm.Get("grant_type") != "authorization_code" || r.PostForm.Get("redirect_uri") == "" {
				t.Errorf("%v", r.PostForm)
			}
		})
	}
}

func TestWhatAPersonIsKnownBy(t *testing.T) {
	w := newWorld(t, nil)
	now := w.now.Unix()
	for name, v := range map[string]any{
		"aud": []string{"we", "others"}, "azp": "we", "email": "a@b.example", "email_verified": true, "preferred_username": "a",
		"acr": strings.Repeat("x", 300), "amr": []string{"pwd", "with space", "", "otp"}, "auth_time": now - 60,
	} {
		w.claims[name] = v
	}
	p, err := w.exchange()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("OIDC-05 what cannot be used is left out", func(t *testing.T) {
		if p.Subject != "u-1" || p.Email != "a@b.example" || !p.EmailVerified || p.ACR != "" || len(p.AMR) != 2 || p.AuthTime.Unix() != now-60 {
			t.Errorf("%+v", p)
		}
	})
	t.Run("OIDC-05 a sign-in in the future says nothing", func(t *testing.T) {
		w.claims["auth_time"], w.claims["email_verified"] = now+3600, "yes"
		if p, err := w.exchange(); err != nil || !p.AuthTime.IsZero() || p.EmailVerified {
			t.Errorf("%+v, %v", p, err)
		}
	})
	for _, c := range []struct {
		said any // nil: nothing
		sure bool
		want bool
	}{{true, false, true}, {nil, false, false}, {"true", false, false}, {1, false, false}, {false, false, false}, {nil, true, true}, {false, true, false}, {"true", true, false}} {
		t.Run(fmt.Sprintf("OIDC-05 email_verified is %v, and the operator is sure of all addresses: %v", c.said, c.sure), func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { cfg.EmailsVerified = c.sure })
			w.claims["email"] = "a@b.example"
			if c.said != nil {
				w.claims["email_verified"] = c.said
			}
			if p, err := w.exchange(); err != nil || p.EmailVerified != c.want {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	t.Run("OIDC-05 a claim of the wrong type", func(t *testing.T) {
		w.claims["sub"] = 7
		if _, err := w.exchange(); !errors.Is(err, ErrRefused) {
			t.Errorf("%v", err)
		}
	})
}

func TestKeysAndDiscoveryAreKept(t *testing.T) {
	w := newWorld(t, nil)
	host := w.net.Host("idp.test")
	ok := func() {
		t.Helper()
		w.set(func() { w.claims["iat"], w.claims["exp"] = w.now.Unix(), w.now.Unix()+600 })
		if _, err := w.exchange(); err != nil {
			t.Fatal(err)
		}
	}
	ok()
	ok()
	if d, k := host.Count("/.well-known/openid-configuration"), host.Count("/jwks"); d != 1 || k != 1 {
		t.Errorf("%d and %d fetches", d, k)
	}
	t.Run("OIDC-05 a new key is found, and a stranger's kid costs one look in half a minute", func(t *testing.T) {
		w.later(time.Minute)
		w.set(func() { w.keys = []jose.Private{w.key()} })
		ok()
		before := host.Count("/jwks")
		foreign := w.key()
		for range 5 {
			token, err := foreign.Sign("", w.claims)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.verify(t.Context(), token, "n"); !errors.Is(err, ErrRefused) {
				t.Fatal(err)
			}
		}
		if n := host.Count("/jwks"); n != before {
			t.Errorf("%d looks", n-before)
		}
	})
	t.Run("OIDC-05 what is an hour old is used while the provider does not answer", func(t *testing.T) {
		w.later(2 * time.Hour)
		host.Down(true)
		now := w.clock().Unix()
		w.set(func() { w.claims["iat"], w.claims["exp"] = now, now+600 })
		token, err := w.keys[0].Sign("", w.claims)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.verify(t.Context(), token, "n"); err != nil {
			t.Error(err)
		}
		if _, err := w.AuthURL(t.Context(), Trip{State: "s"}); err != nil {
			t.Error(err)
		}
		w.later(48 * time.Hour)
		if _, err := w.AuthURL(t.Context(), Trip{State: "s"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v", err)
		}
		host.Down(false)
	})
	t.Run("nobody waits in a row for a provider that is down", func(t *testing.T) {
		w := newWorld(t, nil)
		host := w.net.Host("idp.test")
		w.set(func() { w.discovery["issuer"] = "https://other.test" })
		for range 5 {
			if _, err := w.AuthURL(t.Context(), Trip{}); !errors.Is(err, ErrRefused) {
				t.Fatal(err)
			}
		}
		if n := host.Count("/.well-known/openid-configuration"); n != 1 {
			t.Errorf("%d looks", n)
		}
		w.later(time.Minute)
		w.set(func() { w.discovery["issuer"] = issuer })
		if _, err := w.AuthURL(t.Context(), Trip{}); err != nil {
			t.Error(err)
		}
	})
}

func TestAKeySetThatGoesWrong(t *testing.T) {
	for name, body := range map[string]string{"is empty": `{"keys":[]}`, "holds nothing usable": `{"keys":[{"kty":"oct","k":"AAAA"}]}`, "is no key set": `<html>`} {
		t.Run("OIDC-05 a key set that "+name+" takes no key from us, and a new key is not refused for it", func(t *testing.T) {
			w := newWorld(t, nil)
			if _, err := w.exchange(); err != nil {
				t.Fatal(err)
			}
			good := w.keys[0]
			w.net.Host("idp.test").Handle("/jwks", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(body)) }))
			w.later(life + time.Minute)
			now := w.clock().Unix()
			w.set(func() { w.claims["iat"], w.claims["exp"] = now, now+600 })
			for range 2 { // once with a look, once between two
				token, err := good.Sign("", w.claims)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.verify(t.Context(), token, "n"); err != nil {
					t.Error(err)
				}
				if token, err = w.key().Sign("", w.claims); err != nil {
					t.Fatal(err)
				}
				if _, err := w.verify(t.Context(), token, "n"); !errors.Is(err, ErrUnavailable) {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

func TestTheWayThere(t *testing.T) {
	w := newWorld(t, nil)
	parse := func(trip Trip) url.Values {
		t.Helper()
		raw, err := w.AuthURL(t.Context(), trip)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(raw)
		if err != nil || u.Host != "idp.test" || u.Path != "/authorize" || u.Query().Get("a") != "b" {
			t.Fatalf("%s, %v", raw, err)
		}
		return u.Query()
	}
	if q := parse(Trip{State: "s", Nonce: "n", Verifier: "v", Hint: "john"}); q.Get("state") != "s" || q.Get("nonce") != "n" || q.Get("login_hint") != "john" || q.Get("prompt") != "" || q.Get("code_challenge") == "v" {
		t.Errorf("OIDC-05 %v", q)
	}
	if q := parse(Trip{Fresh: true}); q.Get("prompt") != "login" || q.Get("max_age") != "0" {
		t.Errorf("OIDC-11 %v", q)
	}
	if q := parse(Trip{Choose: true}); q.Get("prompt") != "select_account" {
		t.Errorf("%v", q)
	}
	t.Run("OIDC-06 iss is compared where it stands, and missed only where it is promised", func(t *testing.T) {
		if err := w.CheckIssuer(t.Context(), ""); err != nil {
			t.Error(err)
		}
		if err := w.CheckIssuer(t.Context(), issuer); err != nil {
			t.Error(err)
		}
		if err := w.CheckIssuer(t.Context(), issuer+"/"); !errors.Is(err, ErrRefused) {
			t.Errorf("%v", err)
		}
	})
}

func TestTheTokenEndpointFails(t *testing.T) {
	for status, want := range map[int]error{500: ErrUnavailable, 503: ErrUnavailable, 400: ErrRefused, 302: ErrRefused} {
		w := newWorld(t, nil)
		w.net.Host("idp.test").Handle("/token", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(status) }))
		if _, err := w.exchange(); !errors.Is(err, want) {
			t.Errorf("OIDC-05 %d: %v", status, err)
		}
	}
	w := newWorld(t, nil)
	w.net.Host("idp.test").Handle("/jwks", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("x")) }))
	if _, err := w.exchange(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	w = newWorld(t, nil)
	w.net.Host("idp.test").Remove("/.well-known/openid-configuration")
	if _, err := w.exchange(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestConfiguration(t *testing.T) {
	w := newWorld(t, nil)
	for name, spoil := range map[string]func(*Config){
		"name": func(c *Config) { c.Name = "" }, "client_id": func(c *Config) { c.ClientID = "" }, "egress": func(c *Config) { c.Egress = nil },
		"http": func(c *Config) { c.Issuer = "http://idp.test" }, "query": func(c *Config) { c.Issuer = issuer + "?x=1" }, "scopes": func(c *Config) { c.Scopes = []string{"email"} },
	} {
		c := w.cfg
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if w.Name() != "idp" || w.Issuer() != issuer {
		t.Error("it does not know itself")
	}
}
