package client

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

const redirectURI = "http://127.0.0.1:4444/callback"

// begin discovers and begins a flow.
func begin(t *testing.T, w *world) *Flow {
	t.Helper()
	s, err := w.c.Discover(t.Context(), w.target())
	if err != nil {
		t.Fatal(err)
	}
	f, err := w.c.Begin(t.Context(), s, redirectURI, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// visit sends the flow's user to the authorization server and returns the answer.
func visit(t *testing.T, w *world, f *Flow) url.Values {
	t.Helper()
	u, err := url.Parse(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	w.as.mu.Lock()
	defer w.as.mu.Unlock()
	w.as.codes["c1"] = q
	w.as.asked = append(w.as.asked, q)
	return url.Values{"code": {"c1"}, "state": {q.Get("state")}, "iss": {w.as.meta.Issuer}}
}

func TestAuthorizationRequest(t *testing.T) {
	w := newWorld(t, nil)
	a, b := begin(t, w), begin(t, w)
	u, err := url.Parse(a.URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	t.Run("CLI-08, CLI-11 what is asked for, where, and for which resource", func(t *testing.T) {
		for name, want := range map[string]string{
			"response_type": "code", "client_id": appID, "redirect_uri": redirectURI, "scope": "read",
			"resource": w.target(), "code_challenge_method": "S256",
		} {
			if len(q[name]) != 1 || q.Get(name) != want {
				t.Errorf("%s = %q", name, q[name])
			}
		}
	})
	t.Run("CLI-07 a verifier of 32 octets, fresh each time", func(t *testing.T) {
		if len(a.verifier) != 43 || !oauth.VerifierMatches(a.verifier, q.Get("code_challenge")) {
			t.Error(a.verifier)
		}
		if a.verifier == b.verifier {
			t.Error("used twice")
		}
	})
	t.Run("CLI-10 a random state", func(t *testing.T) {
		if len(a.state) < 22 || a.state == b.state || q.Get("state") != a.state {
			t.Error(a.state)
		}
	})
	t.Run("CLI-08 an endpoint's own query stays", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.meta.AuthorizationEndpoint += "?tenant=a"
		if f := begin(t, w); !strings.Contains(f.URL, "/authorize?tenant=a&response_type=code") {
			t.Error(f.URL)
		}
	})
}

func TestAnswer(t *testing.T) {
	for _, tc := range []struct {
		name   string
		meta   func(*world)
		change func(url.Values)
		ok     bool
	}{
		{"CLI-09 advertised and right", nil, func(url.Values) {}, true},
		{"CLI-09, attack HO-12: advertised and missing", nil, func(q url.Values) { q.Del("iss") }, false},
		{"CLI-09, attack HO-12: advertised and another", nil, func(q url.Values) { q.Set("iss", "https://evil.test") }, false},
		{"CLI-09 advertised, with one slash more", nil, func(q url.Values) { q.Set("iss", q.Get("iss")+"/") }, false},
		{"CLI-09 advertised and empty", nil, func(q url.Values) { q.Set("iss", "") }, false},
		{"CLI-09 not advertised and missing", unadvertised, func(q url.Values) { q.Del("iss") }, true},
		{"CLI-09 not advertised and right", unadvertised, func(url.Values) {}, true},
		{"CLI-09 not advertised and another", unadvertised, func(q url.Values) { q.Set("iss", "https://evil.test") }, false},
		{"CLI-10, attack HO-12: a wrong state", nil, func(q url.Values) { q.Set("state", "guess") }, false},
		{"CLI-10, attack HO-12: no state", nil, func(q url.Values) { q.Del("state") }, false},
		{"CLI-10 the state twice", nil, func(q url.Values) { q.Add("state", q.Get("state")) }, false},
		{"CLI-10 the code twice", nil, func(q url.Values) { q.Add("code", "c2") }, false},
		{"CLI-10 the issuer twice", nil, func(q url.Values) { q.Add("iss", q.Get("iss")) }, false},
		{"attack HO-12: a code and an error", nil, func(q url.Values) { q.Set("error", "access_denied") }, false},
		{"CLI-10 neither code nor error", nil, func(q url.Values) { q.Del("code") }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			if tc.meta != nil {
				tc.meta(w)
			}
			f := begin(t, w)
			q := visit(t, w, f)
			tc.change(q)
			g, err := f.Finish(t.Context(), q.Encode())
			if tc.ok {
				if err != nil || g.AccessToken == "" {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, ErrMismatch) {
				t.Errorf("error %v", err)
			}
			if len(w.as.posted) != 0 {
				t.Error("a token request was made")
			}
			if strings.Contains(fmt.Sprint(err), "evil.test") {
				t.Error("the error repeats the stranger")
			}
		})
	}
	t.Run("CLI-09 an error of another issuer is not shown", func(t *testing.T) {
		w := newWorld(t, nil)
		f := begin(t, w)
		_, err := f.Finish(t.Context(), url.Values{"state": {f.state}, "iss": {"https://evil.test"}, "error": {"access_denied"}, "error_description": {"call 555"}}.Encode())
		if _, is := errors.AsType[*ServerError](err); is || strings.Contains(err.Error(), "555") {
			t.Error(err)
		}
	})
	t.Run("CLI-09 an error of the right issuer is", func(t *testing.T) {
		w := newWorld(t, nil)
		f := begin(t, w)
		_, err := f.Finish(t.Context(), url.Values{"state": {f.state}, "iss": {w.as.URL}, "error": {"access_denied"}, "error_description": {"no"}}.Encode())
		if e, is := errors.AsType[*ServerError](err); !is || e.Code != oauth.AccessDenied || e.Description != "no" {
			t.Error(err)
		}
	})
	t.Run("CLI-10 an answer counts once", func(t *testing.T) {
		w := newWorld(t, nil)
		f := begin(t, w)
		q := visit(t, w, f).Encode()
		if _, err := f.Finish(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Finish(t.Context(), q); err == nil || len(w.as.posted) != 1 {
			t.Error("redeemed again")
		}
	})
	t.Run("CLI-10 a query that cannot be read", func(t *testing.T) {
		f := begin(t, newWorld(t, nil))
		if _, err := f.Finish(t.Context(), "%zz"); !errors.Is(err, ErrMismatch) {
			t.Error(err)
		}
	})
}

func unadvertised(w *world) { w.as.meta.IssParameterSupported = false }

func TestTokenRequest(t *testing.T) {
	redeem := func(t *testing.T, w *world) (*Grant, error) {
		f := begin(t, w)
		return f.Finish(t.Context(), visit(t, w, f).Encode())
	}
	t.Run("CLI-08, CLI-15 none: the client stands in the body, whatever the server lists first", func(t *testing.T) {
		w := newWorld(t, nil)
		g, err := redeem(t, w)
		if err != nil {
			t.Fatal(err)
		}
		f := w.as.posted[0]
		if w.as.auth[0] != "" || f.Get("client_id") != appID || f.Has("client_secret") || f.Has("client_assertion") || f.Get("resource") != w.target() {
			t.Error(w.as.auth, f)
		}
		if g.Scopes.String() != "read" || !g.Expires.Equal(w.now.Add(10*time.Minute)) || g.Issuer != w.as.URL || g.ClientID != appID || g.Resource != w.target() {
			t.Errorf("%v", g)
		}
	})
	t.Run("CLI-15 none is sent where the server forgot to list it", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.meta.TokenAuthMethods = []string{"client_secret_basic"}
		if _, err := redeem(t, w); err != nil || w.as.auth[0] != "" {
			t.Error(err)
		}
	})
	for _, alg := range []string{"ES256", "EdDSA", "RS256"} {
		t.Run("CLI-16 a fresh assertion for the issuer alone, signed with "+alg, func(t *testing.T) {
			k := key(t, alg)
			w := newWorld(t, func(c *Config) { c.Key = k })
			if _, err := redeem(t, w); err != nil {
				t.Fatal(err)
			}
			if _, err := redeem(t, w); err != nil {
				t.Fatal(err)
			}
			claims, typ, kid := assertionClaims(t, k, w.as.posted[0].Get("client_assertion"))
			if typ != "client-authentication+jwt" || kid != k.ID() || claims["iss"] != appID || claims["sub"] != appID || claims["aud"] != w.as.URL {
				t.Error(typ, kid, claims)
			}
			if life := claims["exp"].(float64) - claims["iat"].(float64); life <= 0 || life > 300 {
				t.Error("lifetime", life)
			}
			again, _, _ := assertionClaims(t, k, w.as.posted[1].Get("client_assertion"))
			if again["jti"] == claims["jti"] || len(claims["jti"].(string)) < 16 {
				t.Error("jti", claims["jti"], again["jti"])
			}
			if w.as.posted[0].Get("client_assertion_type") != oauth.AssertionTypeJWT {
				t.Error("type")
			}
		})
	}
	t.Run("attack CA-14: an assertion is made for the issuer that was verified, not for the endpoint it names", func(t *testing.T) {
		k := key(t, "ES256")
		w := newWorld(t, func(c *Config) { c.Key = k })
		honest := newAS(t)
		w.as.meta.TokenEndpoint = honest.URL + "/token"
		_, _ = redeem(t, w)
		if len(honest.posted) != 1 {
			t.Fatal("nothing was sent")
		}
		claims, _, _ := assertionClaims(t, k, honest.posted[0].Get("client_assertion"))
		if claims["aud"] != w.as.URL {
			t.Error("the honest server would accept it:", claims["aud"])
		}
	})
	for _, tc := range []struct {
		name          string
		ours          []string
		theirs, algs  []string
		want          string
		wantErrorPart string
	}{
		{"CLI-17 private_key_jwt before none", []string{"none", "private_key_jwt"}, []string{"none", "private_key_jwt"}, nil, "private_key_jwt", ""},
		{"CLI-17 none where the server has no private_key_jwt", []string{"private_key_jwt", "none"}, []string{"none"}, nil, "none", ""},
		{"CLI-17 none where the server does not take the key's algorithm", []string{"private_key_jwt", "none"}, []string{"none", "private_key_jwt"}, []string{"RS256"}, "none", ""},
		{"CLI-17 the algorithm fits", []string{"private_key_jwt"}, []string{"private_key_jwt"}, []string{"RS256", "ES256"}, "private_key_jwt", ""},
		{"CLI-17 a server that lists nothing", []string{"private_key_jwt"}, nil, nil, "private_key_jwt", ""},
		{"CLI-17 the algorithm's new name", []string{"private_key_jwt", "none"}, []string{"none", "private_key_jwt"}, []string{"Ed25519"}, "none", ""},
		{"CLI-17 nothing in common is an error, never a secret", []string{"private_key_jwt"}, []string{"client_secret_basic"}, nil, "", "no authentication method in common"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Key, c.Methods = key(t, "ES256"), tc.ours })
			got, _, err := w.c.choose(&oauth.ServerMetadata{TokenAuthMethods: tc.theirs, TokenAuthSigningAlgs: tc.algs}, standing{methods: tc.ours}, false)
			if got != tc.want || (err == nil) != (tc.wantErrorPart == "") || err != nil && !strings.Contains(err.Error(), tc.wantErrorPart) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	t.Run("CLI-17, CLI-16 a server that lists Ed25519 alone gets an assertion under that name", func(t *testing.T) {
		k := key(t, "EdDSA")
		w := newWorld(t, func(c *Config) { c.Key, c.Methods = k, []string{"private_key_jwt", "none"} })
		w.as.meta.TokenAuthSigningAlgs = []string{"ES384", "Ed25519"}
		if _, err := redeem(t, w); err != nil {
			t.Fatal(err)
		}
		raw := w.as.posted[0].Get("client_assertion")
		assertionClaims(t, k, raw)
		if head, _ := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[0]); !strings.Contains(string(head), `"alg":"Ed25519"`) {
			t.Error(string(head))
		}
	})
	for _, tc := range []struct {
		name   string
		key    bool
		theirs []string
		want   string
	}{
		{"CLI-13, CLI-17 a secret of a registered client, in Basic", false, []string{"client_secret_post", "client_secret_basic"}, "client_secret_basic"},
		{"CLI-13, CLI-17 in the body, where that is all", false, []string{"client_secret_post", "none"}, "client_secret_post"},
		{"CLI-13, CLI-17 a server that lists nothing", false, nil, "client_secret_basic"},
		{"CLI-17 the key comes first", true, []string{"client_secret_post", "private_key_jwt"}, "private_key_jwt"},
		{"CLI-17 nothing in common", false, []string{"tls_client_auth"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) {
				if tc.key {
					c.Key = key(t, "ES256")
				}
			})
			w.c.cfg.Registered, w.c.cfg.Secrets = map[string]string{w.as.URL: "r1"}, map[string]string{w.as.URL: "s3cret"}
			w.as.meta.TokenAuthMethods = tc.theirs
			g, err := w.c.SignIn(t.Context(), w.target())
			if tc.want == "" {
				if err == nil || w.opened() != 0 {
					t.Error("signed in")
				}
				return
			}
			if err != nil || g.ClientID != "r1" {
				t.Fatal(g, err)
			}
			user, pass, basic := (&http.Request{Header: w.as.headers[0]}).BasicAuth()
			f := w.as.posted[0]
			if basic != (tc.want == "client_secret_basic") || basic && (user != "r1" || pass != "s3cret" || f.Has("client_id")) ||
				(f.Get("client_secret") != "") != (tc.want == "client_secret_post") || f.Has("client_assertion") != tc.key {
				t.Error(f, w.as.headers)
			}
		})
	}
	t.Run("CLI-13, CLI-14 a secret of one server is none at another", func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			c.Registered, c.Secrets = map[string]string{"https://other.test": "r1"}, map[string]string{"https://other.test": "s3cret"}
		})
		if _, err := redeem(t, w); err != nil || w.as.posted[0].Has("client_secret") || w.as.auth[0] != "" {
			t.Error(err, w.as.posted)
		}
		if _, err := New(Config{ID: appID, Secrets: map[string]string{"https://other.test": "s"}}); err == nil {
			t.Error("a secret for nobody")
		}
	})
	for _, tc := range []struct {
		name   string
		change func(map[string]any)
		ok     bool
	}{
		{"CLI-26 the token type has no case", func(m map[string]any) { m["token_type"] = "BEARER" }, true},
		{"CLI-26 another token type", func(m map[string]any) { m["token_type"] = "DPoP" }, false},
		{"CLI-26 no token type", func(m map[string]any) { delete(m, "token_type") }, false},
		{"CLI-26 no access token", func(m map[string]any) { delete(m, "access_token") }, false},
		{"CLI-26 an access token that would break a header", func(m map[string]any) { m["access_token"] = "a\r\nb" }, false},
		{"CLI-26 no lifetime", func(m map[string]any) { delete(m, "expires_in") }, true},
		{"CLI-26 a lifetime as text", func(m map[string]any) { m["expires_in"] = "600" }, true},
		{"CLI-26 a scope outside the grammar", func(m map[string]any) { m["scope"] = `"` }, false},
		{"CLI-20 no refresh token", func(m map[string]any) { delete(m, "refresh_token") }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.as.token = tc.change
			if _, err := redeem(t, w); tc.ok != (err == nil) {
				t.Error(err)
			}
		})
	}
	t.Run("CLI-26 the granted scope counts, not the requested one", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.grant = func(string) string { return "less" }
		g, err := redeem(t, w)
		if err != nil || g.Scopes.String() != "less" || g.Asked.String() != "read" {
			t.Errorf("%v, %v", g, err)
		}
	})
	t.Run("CLI-14 the token endpoint's redirects are not followed, and it gets no cookie", func(t *testing.T) {
		for _, own := range []bool{false, true} { // an http.Client of the application's, which would
			other := newAS(t)
			jar, _ := cookiejar.New(nil)
			w := newWorld(t, func(c *Config) {
				if own {
					c.HTTP = &http.Client{Transport: other.Client().Transport, Jar: jar}
				}
			})
			u, _ := url.Parse(w.as.URL)
			jar.SetCookies(u, []*http.Cookie{{Name: "session", Value: "1"}})
			w.as.redirect = other.URL + "/token"
			if _, err := redeem(t, w); err == nil || len(other.posted) != 0 {
				t.Error("followed:", err)
			}
			if w.as.cookies != 0 {
				t.Error("cookies were sent")
			}
		}
	})
	t.Run("CLI-26 an answer without end is not read", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.token = func(m map[string]any) { m["x"] = strings.Repeat("x", 2<<20) }
		if _, err := redeem(t, w); err == nil {
			t.Error("read")
		}
	})
	t.Run("CLI-22 no token, code, verifier, state or assertion in trace, errors and prints", func(t *testing.T) {
		k := key(t, "ES256")
		w := newWorld(t, func(c *Config) { c.Key = k })
		f := begin(t, w)
		g, err := f.Finish(t.Context(), visit(t, w, f).Encode())
		if err != nil {
			t.Fatal(err)
		}
		told := fmt.Sprintf("%+v %#v %v %+v %#v %v %+v", w.steps, *g, g, *g, k, k, k)
		for _, secret := range []string{g.AccessToken, g.RefreshToken, f.verifier, f.state, w.as.posted[0].Get("client_assertion"), "c1"} {
			if strings.Contains(told, "{"+secret) || strings.Contains(told, ":"+secret) {
				t.Errorf("%q is told: %s", secret, told)
			}
		}
	})
	t.Run("attack AD-07: what a server says cannot steer a terminal", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Key, c.Methods = key(t, "ES256"), []string{"private_key_jwt"} })
		const clear = "\x1b[2J"
		refused := func() (all []error) {
			_, err := w.c.SignIn(t.Context(), w.target())
			return append(all, err)
		}
		w.as.refuse = "invalid" + clear
		all := refused()
		w.as.refuse = ""
		w.as.answer = func(q url.Values) { q.Del("code"); q.Set("error", "a"+clear); q.Set("error_description", "b"+clear) }
		all = append(all, refused()...)
		w.as.answer = nil
		w.as.meta.TokenAuthMethods, w.as.meta.TokenAuthSigningAlgs = []string{clear}, []string{clear}
		all = append(all, refused()...)
		for _, err := range all {
			if err == nil || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%q", err)
			}
		}
	})
	t.Run("CLI-26 a refusal of the token endpoint", func(t *testing.T) {
		w := newWorld(t, nil)
		w.as.refuse = "invalid_client"
		_, err := redeem(t, w)
		if e, is := errors.AsType[*ServerError](err); !is || e.Code != oauth.InvalidClient || e.Status != 400 || e.Reference != "" {
			t.Error(err)
		}
	})
	t.Run("CLI-26 a refusal with the reference by which the server's people find it", func(t *testing.T) {
		w := offering(t, nil)
		w.answers("/par", 400, `{"error":"access_denied","error_description":"it has to be approved","reference":"7K2M-44QX\u001b[2J"}`)
		_, err := w.c.SignIn(t.Context(), w.target())
		if e, is := errors.AsType[*ServerError](err); !is || !strings.HasPrefix(e.Reference, "7K2M-44QX") {
			t.Fatal(err)
		}
		if text := err.Error(); !strings.Contains(text, "approved") || !strings.Contains(text, "7K2M-44QX") || strings.Contains(text, "\x1b") {
			t.Errorf("%q", text)
		}
	})
}
