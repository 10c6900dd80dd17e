package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// What a resource or a server says must not make the client work for them, nor
// carry anything elsewhere.
func TestStrangersHaveBounds(t *testing.T) {
	t.Run("CLI-23, attack RS-13: of a long list of authorization servers a few are tried", func(t *testing.T) {
		for name, last := range map[string]bool{"that nobody knows": false, "with one that is registered": true} {
			w := newWorld(t, nil)
			asked := map[string]int{}
			w.as.more = func(rw http.ResponseWriter, r *http.Request) bool {
				if issuer, strange := strings.CutPrefix(r.URL.Path, "/.well-known/oauth-authorization-server/"); strange {
					asked[issuer]++
					http.NotFound(rw, r)
					return true
				}
				return false
			}
			w.rs.meta.AuthorizationServers = nil
			for i := range 500 {
				w.rs.meta.AuthorizationServers = append(w.rs.meta.AuthorizationServers, fmt.Sprint(w.as.URL, "/", i))
			}
			if last {
				w.rs.meta.AuthorizationServers = append(w.rs.meta.AuthorizationServers, w.as.URL)
				w.c.cfg.Registered = map[string]string{w.as.URL: "known"}
			}
			s, err := w.c.Discover(t.Context(), w.target())
			if found := err == nil && s.ClientID == "known"; found != last || len(asked) > maxServers {
				t.Errorf("%s: %v, %d were asked", name, err, len(asked))
			}
		}
	})
	t.Run("CLI-25 a device asks once a second at most, whatever the server says", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &deviceWorld{answers: []string{"authorization_pending", "authorization_pending", goodToken}, grant: strings.Replace(goodDevice, `600`, `600,"interval":0.001`, 1)}
			c, err := New(Config{ID: appID, HTTP: &http.Client{Transport: w}, Device: func(context.Context, DeviceCode) error { return nil }})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if _, err := c.SignIn(t.Context(), "https://mcp.test/mcp"); err != nil || time.Since(start) != 3*time.Second {
				t.Error(err, time.Since(start))
			}
		})
	})
	t.Run("CLI-27 a server that registers other redirect URIs is refused", func(t *testing.T) {
		for name, c := range map[string]struct {
			uris any
			good bool
		}{
			"as asked":          {[]string{defaultRedirect}, true},
			"among others":      {[]string{"https://app.test/cb", "http://127.0.0.1:3000/callback"}, true},
			"not repeated":      {nil, true},
			"of somebody else":  {[]string{"https://evil.test/cb"}, false},
			"with another path": {[]string{"http://127.0.0.1/other"}, false},
			"none":              {[]string{}, false},
		} {
			r := newRegistry(t, nil)
			r.answer = func(out map[string]any) { out["redirect_uris"] = c.uris }
			_, err := r.c.SignIn(t.Context(), r.target())
			if (err == nil) != c.good || !c.good && (r.opened() != 0 || !r.failed("CLI-27")) {
				t.Errorf("%s: %v after %d visits of the browser", name, err, r.opened())
			}
		}
	})
	t.Run("CLI-14, CLI-23 a redirect that leaves the resource's origin is the answer", func(t *testing.T) {
		var elsewhere atomic.Int32
		other := serveTLS(t, func(_ http.ResponseWriter, r *http.Request) { elsewhere.Add(1) })
		plain := httptest.NewServer(other.Config.Handler)
		defer plain.Close()
		for _, to := range []string{other.URL + "/mcp", plain.URL + "/mcp", "/mcp/further", "/aside", "//" + strings.TrimPrefix(other.URL, "https://")} {
			w := newWorld(t, nil)
			w.rs.with(func() {
				w.rs.first = func(rw http.ResponseWriter, r *http.Request) bool {
					redirects := r.URL.Path == "/mcp" && strings.HasPrefix(r.Header.Get("Authorization"), "Bearer")
					if redirects {
						http.Redirect(rw, r, to, http.StatusTemporaryRedirect)
					}
					return redirects
				}
			})
			resp, err := w.c.HTTPClient(w.target()).Post(w.target(), "application/json", strings.NewReader(`{"private":1}`))
			if err != nil {
				t.Fatal(to, err)
			}
			resp.Body.Close()
			want := map[string]int{"/mcp/further": 200, "/aside": 401}[to]
			if want == 0 {
				want = http.StatusTemporaryRedirect
			}
			if resp.StatusCode != want || elsewhere.Load() != 0 {
				t.Errorf("%s: %d, and %d requests went elsewhere", to, resp.StatusCode, elsewhere.Load())
			}
			if last := w.rs.seen[len(w.rs.seen)-1]; to == "/aside" && last != "POST /aside " {
				t.Errorf("%q", last)
			}
		}
	})
	t.Run("CLI-23 redirects in a circle end, and who brings an http.Client decides", func(t *testing.T) {
		w := newWorld(t, nil)
		var n atomic.Int32
		w.rs.with(func() {
			w.rs.first = func(rw http.ResponseWriter, r *http.Request) bool {
				n.Add(1)
				http.Redirect(rw, r, "/mcp", http.StatusTemporaryRedirect)
				return true
			}
		})
		if resp, err := w.c.HTTPClient(w.target()).Get(w.target()); err != nil || resp.StatusCode != 307 || n.Load() != maxRedirects {
			t.Error(err, n.Load())
		}
		mine := errors.New("mine")
		c, err := New(Config{ID: appID, HTTP: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return mine }}})
		if err != nil || c.HTTPClient("https://mcp.test/mcp").CheckRedirect(nil, nil) != mine {
			t.Error(err)
		}
	})
	t.Run("CLI-12 a refusal whose body has no end holds up nothing", func(t *testing.T) {
		w := newWorld(t, nil)
		w.rs.with(func() {
			w.rs.first = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPost || r.Header.Get("Authorization") != "" {
					return false
				}
				rw.Header().Set("WWW-Authenticate", "Bearer")
				rw.WriteHeader(http.StatusUnauthorized)
				_, _ = io.WriteString(rw, "wait")
				_ = http.NewResponseController(rw).Flush()
				<-r.Context().Done()
				return true
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, w.target(), strings.NewReader("{}"))
		resp, err := w.c.HTTPClient(w.target()).Do(req)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(err)
		}
		resp.Body.Close()
	})
	t.Run("CLI-20 a token that cannot be refreshed is used until it expires", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.token = func(out map[string]any) { delete(out, "refresh_token"); out["expires_in"] = 20 }
		h := w.c.HTTPClient(w.target())
		w.used(t, h)
		w.advance(19 * time.Second)
		w.used(t, h)
		if g, err := w.c.cfg.Store.Load(t.Context(), w.target()); err != nil || g.AccessToken == "" || w.opened() != 1 || len(w.as.posted) != 1 {
			t.Error(g, err, w.opened(), w.as.posted)
		}
		w.advance(time.Second)
		w.used(t, h)
		if w.opened() != 2 {
			t.Error("it is in use after its time")
		}
	})
	t.Run("CLI-22 nothing that is printed holds a secret", func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			c.Key, c.Registered, c.Secrets = key(t, "ES256"), map[string]string{"https://other.test": "me"}, map[string]string{"https://other.test": "s3cret"}
		})
		s, err := w.c.Discover(t.Context(), w.target())
		if err != nil {
			t.Fatal(err)
		}
		f, err := w.c.Begin(t.Context(), s, "https://app.test/cb", nil)
		if err != nil {
			t.Fatal(err)
		}
		private, _ := w.c.cfg.Key.MarshalPrivate()
		var jwk struct{ D string }
		_ = json.Unmarshal(private, &jwk)
		for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
			for _, text := range []string{fmt.Sprintf(format, f), fmt.Sprintf(format, w.c)} {
				for _, secret := range []string{f.state, f.verifier, "s3cret", jwk.D} {
					if secret == "" || strings.Contains(text, secret) || len(text) > 200 {
						t.Errorf("%s: %s", format, text)
					}
				}
			}
		}
		if fmt.Sprint(f) != "sign-in at "+w.as.URL+" for "+w.target()+" (read)" || fmt.Sprint(w.c) != `client "`+appID+`"` {
			t.Errorf("%v, %v", f, w.c)
		}
	})
}

// A resource may want the person to have signed in more strongly or lately (RFC 9470).
func TestStrongerSignIns(t *testing.T) {
	// demands makes the resource refuse what the last sign-in was too weak for.
	demands := func(w *world, challenge string, met func(asked url.Values) bool) {
		w.rs.with(func() {
			w.rs.first = func(rw http.ResponseWriter, r *http.Request) bool {
				weak := false
				w.as.with(func() {
					if r.Header.Get("Authorization") != "" && len(w.as.asked) > 0 {
						weak = !met(w.as.asked[len(w.as.asked)-1])
					}
				})
				if weak {
					rw.Header().Set("WWW-Authenticate", challenge+`, resource_metadata="`+w.rs.URL+w.rs.at+`"`)
					rw.WriteHeader(http.StatusUnauthorized)
				}
				return weak
			}
		})
	}
	const challenge = `Bearer error="insufficient_user_authentication", acr_values="gold silver", max_age="60", scope="read pay"`
	fresh := func(asked url.Values) bool {
		return asked.Get("acr_values") == "gold silver" && asked.Get("max_age") == "60"
	}
	t.Run("RS-22, CLI-12 the user signs in as the resource wants it, once, and the token is not refreshed for it", func(t *testing.T) {
		w := newWorld(t, nil)
		demands(w, challenge, fresh)
		w.used(t, w.c.HTTPClient(w.target()))
		var grants []string
		for _, f := range w.as.posted {
			grants = append(grants, f.Get("grant_type"))
		}
		if w.opened() != 2 || !slices.Equal(grants, []string{"authorization_code", "authorization_code"}) {
			t.Error(w.opened(), grants)
		}
		if first, last := w.as.asked[0], w.as.asked[1]; first.Has("acr_values") || first.Has("max_age") || last.Get("scope") != "read pay" {
			t.Error(first, last)
		}
	})
	t.Run("RS-22, CLI-12, attack RS-12: a resource that is never content does not get the user asked for ever", func(t *testing.T) {
		w := newWorld(t, nil)
		demands(w, challenge, func(url.Values) bool { return false })
		h := w.c.HTTPClient(w.target())
		for range 5 {
			resp, err := h.Get(w.target())
			if err != nil || resp.StatusCode != 401 {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		if w.opened() != 1+maxStepUps {
			t.Error(w.opened())
		}
	})
	t.Run("RS-22, CLI-24 a pushed request says it too", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.meta.PushedRequestEndpoint = w.as.URL + "/par"
		demands(w, challenge, func(asked url.Values) bool { return fresh(w.as.pushes[asked.Get("request_uri")]) })
		w.used(t, w.c.HTTPClient(w.target()))
	})
	for name, c := range map[string]struct{ challenge, acr, age string }{
		"max_age alone":             {`Bearer error="insufficient_user_authentication", max_age="0"`, "", "0"},
		"acr alone":                 {`Bearer error="insufficient_user_authentication", acr_values="gold"`, "gold", ""},
		"nothing":                   {`Bearer error="insufficient_user_authentication"`, "", ""},
		"max_age that is no number": {`Bearer error="insufficient_user_authentication", max_age="60&prompt=none"`, "", ""},
		"max_age below nothing":     {`Bearer error="insufficient_user_authentication", max_age="-1"`, "", ""},
		"acr that is no list":       {`Bearer error="insufficient_user_authentication", acr_values="a\"b"`, "", ""},
		"another error":             {`Bearer error="invalid_token", acr_values="gold", max_age="60"`, "", ""},
	} {
		t.Run("RS-22 a challenge with "+name, func(t *testing.T) {
			all, err := oauth.ParseChallenges([]string{c.challenge})
			if err != nil {
				t.Fatal(err)
			}
			if acr, age := strength(all[0]); acr != c.acr || age != c.age {
				t.Errorf("%q, %q", acr, age)
			}
		})
	}
	t.Run("RS-22 a program without a browser leaves it at the refusal", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Alone, c.Key = true, key(t, "ES256") })
		w.as.meta.TokenAuthMethods = []string{"private_key_jwt"}
		var n atomic.Int32
		w.rs.with(func() {
			w.rs.first = func(rw http.ResponseWriter, r *http.Request) bool {
				n.Add(1)
				rw.Header().Set("WWW-Authenticate", challenge)
				rw.WriteHeader(http.StatusUnauthorized)
				return true
			}
		})
		g := &Grant{Resource: w.target(), Issuer: w.as.URL, ClientID: appID, AccessToken: "at", Scopes: oauth.Scopes{"read", "pay"}}
		if err := w.c.cfg.Store.Update(t.Context(), w.target(), func(*Grant) (*Grant, error) { return g, nil }); err != nil {
			t.Fatal(err)
		}
		if resp, err := w.c.HTTPClient(w.target()).Get(w.target()); err != nil || resp.StatusCode != 401 || n.Load() != 1 || len(w.as.posted) != 0 {
			t.Error(err, n.Load(), w.as.posted)
		}
	})
}
