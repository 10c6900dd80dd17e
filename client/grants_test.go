package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

func TestClientsThatActAlone(t *testing.T) {
	alone := func(t *testing.T, k Key) *world {
		w := newWorld(t, func(c *Config) { c.Alone, c.Key = true, k })
		w.as.meta.AuthorizationEndpoint, w.as.meta.CodeChallengeMethodsSupported = "", nil // it needs neither
		w.as.meta.ScopesSupported = []string{"read", "offline_access"}
		return w
	}
	t.Run("XCH-13 a token for the client itself, with its key, for the resource", func(t *testing.T) {
		k := key(t, "ES256")
		w := alone(t, k)
		h := w.c.HTTPClient(w.target())
		w.used(t, h)
		w.advance(time.Hour) // there is no refresh token: a new one is asked for
		w.used(t, h)
		if w.opened() != 0 || len(w.as.posted) != 2 {
			t.Fatal(w.opened(), len(w.as.posted))
		}
		f := w.as.posted[0]
		if f.Get("grant_type") != "client_credentials" || f.Get("resource") != w.target() || f.Get("scope") != "read" {
			t.Error(f)
		}
		if claims, _, _ := assertionClaims(t, k, f.Get("client_assertion")); claims["aud"] != w.as.URL || claims["sub"] != appID {
			t.Error(claims)
		}
	})
	t.Run("XCH-13, CLI-24 bound to a key where that is wanted", func(t *testing.T) {
		w := alone(t, key(t, "ES256"))
		w.c.cfg.DPoP, w.as.meta.DPoPSigningAlgs = DPoPAlways, []string{"ES256"}
		w.used(t, w.c.HTTPClient(w.target()))
		if len(w.rs.proofs) != 1 {
			t.Error("no proof")
		}
	})
	t.Run("XCH-13 a client that cannot prove itself is not one", func(t *testing.T) {
		if _, err := New(Config{ID: appID, Alone: true}); err == nil {
			t.Error("configured")
		}
		w := alone(t, key(t, "ES256"))
		w.c.cfg.Methods, w.as.meta.TokenAuthMethods = []string{"private_key_jwt", "none"}, []string{"none"}
		if _, err := w.c.SignIn(t.Context(), w.target()); err == nil || len(w.as.posted) != 0 {
			t.Error(err)
		}
	})
	t.Run("XCH-13 its document names its grant and no redirect URI", func(t *testing.T) {
		w := alone(t, key(t, "ES256"))
		d := w.c.Document("Robot")
		if _, err := d.Publish(); err != nil || !slices.Equal(d.GrantTypes, []string{"client_credentials"}) || d.RedirectURIs != nil || d.JWKS == nil {
			t.Error(d, err)
		}
	})
	t.Run("CLI-29 the extension that it uses, for the capabilities of each request", func(t *testing.T) {
		raw, err := json.Marshal(map[string]any{"extensions": alone(t, key(t, "ES256")).c.Extensions()})
		if err != nil || string(raw) != `{"extensions":{"io.modelcontextprotocol/oauth-client-credentials":{}}}` {
			t.Error(string(raw), err)
		}
		if e := newWorld(t, nil).c.Extensions(); e != nil {
			t.Error("a client with a user declares", e)
		}
	})
}

// deviceWorld is an authorization server and a resource without a network, so
// that minutes pass at once.
type deviceWorld struct {
	answers []string // of the token endpoint, in order; the last one stays
	grant   string   // answer of the device authorization endpoint
	polls   []time.Time
	forms   []url.Values
	down    int // requests for tokens that fail before one is answered
}

func (w *deviceWorld) RoundTrip(r *http.Request) (*http.Response, error) {
	reply := func(status int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	switch r.URL.Path {
	case "/mcp":
		return reply(401, "")
	case "/.well-known/oauth-protected-resource/mcp":
		return reply(200, `{"resource":"https://mcp.test/mcp","authorization_servers":["https://as.test"],"scopes_supported":["read"]}`)
	case "/.well-known/oauth-authorization-server":
		return reply(200, `{"issuer":"https://as.test","token_endpoint":"https://as.test/token","device_authorization_endpoint":"https://as.test/device","client_id_metadata_document_supported":true}`)
	}
	raw, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(raw))
	w.forms = append(w.forms, form)
	if r.URL.Path == "/device" {
		if w.grant == "" {
			return reply(400, `{"error":"unauthorized_client"}`)
		}
		return reply(200, w.grant)
	}
	w.polls = append(w.polls, time.Now())
	if w.down > 0 {
		w.down--
		return nil, errors.New("connection reset")
	}
	a := w.answers[0]
	if len(w.answers) > 1 {
		w.answers = w.answers[1:]
	}
	if strings.HasPrefix(a, "{") {
		return reply(200, a)
	}
	if a == "503" {
		return reply(503, "busy")
	}
	return reply(400, `{"error":"`+a+`"}`)
}

const (
	goodDevice = `{"device_code":"dc","user_code":"WDJB-MJHT","verification_uri":"https://as.test/device","verification_uri_complete":"https://as.test/device?user_code=WDJB-MJHT","expires_in":600}`
	goodToken  = `{"access_token":"at","token_type":"Bearer","refresh_token":"rt","expires_in":600}`
)

func TestDevices(t *testing.T) {
	var shown DeviceCode
	signIn := func(ctx context.Context, w *deviceWorld, wait time.Duration) (*Grant, error) {
		c, err := New(Config{ID: appID, HTTP: &http.Client{Transport: w}, Wait: wait, Device: func(_ context.Context, d DeviceCode) error { shown = d; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		return c.SignIn(ctx, "https://mcp.test/mcp")
	}
	gaps := func(start time.Time, polls []time.Time) (out []int) {
		for _, p := range polls {
			out = append(out, int(p.Sub(start)/time.Second))
			start = p
		}
		return out
	}
	for _, tc := range []struct {
		name    string
		grant   string
		answers []string
		down    int
		want    []int // seconds before each poll
	}{
		{"CLI-25 the interval is five seconds where the server does not say", goodDevice, []string{"authorization_pending", "authorization_pending", goodToken}, 0, []int{5, 5, 5}},
		{"CLI-25 the server's interval", strings.Replace(goodDevice, `600`, `600,"interval":2`, 1), []string{"authorization_pending", goodToken}, 0, []int{2, 2}},
		{"CLI-25 slow_down adds five seconds, each time and for good", goodDevice, []string{"slow_down", "authorization_pending", "slow_down", goodToken}, 0, []int{5, 10, 10, 15}},
		{"CLI-25 a server that cannot be reached is asked less often", goodDevice, []string{"authorization_pending", goodToken}, 2, []int{5, 10, 20, 20}},
		{"CLI-25 a server that fails is asked less often", goodDevice, []string{"503", goodToken}, 0, []int{5, 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &deviceWorld{answers: tc.answers, grant: tc.grant, down: tc.down}
				start := time.Now()
				g, err := signIn(t.Context(), w, 0)
				if err != nil || g.AccessToken != "at" || !slices.Equal(gaps(start, w.polls), tc.want) {
					t.Fatalf("%v, %v, %v", g, err, gaps(start, w.polls))
				}
				if shown.UserCode != "WDJB-MJHT" || shown.VerificationURI != "https://as.test/device" || shown.Complete == "" || !shown.Expires.Equal(start.Add(600*time.Second)) || shown.Issuer != "https://as.test" {
					t.Errorf("%+v", shown)
				}
				first, last := w.forms[0], w.forms[len(w.forms)-1]
				if first.Get("client_id") != appID || first.Get("scope") != "read" || first.Get("resource") != "https://mcp.test/mcp" ||
					last.Get("device_code") != "dc" || last.Get("grant_type") != oauth.GrantDeviceCode || last.Get("client_id") != appID {
					t.Error(first, last)
				}
			})
		})
	}
	for _, tc := range []struct {
		name    string
		grant   string
		answer  string
		asSign  bool // ErrSignIn
		polls   int
		atLeast time.Duration
	}{
		{"CLI-25 nobody answers: it stops when the code has expired", strings.Replace(goodDevice, "600", "602", 1), "authorization_pending", true, 120, 600 * time.Second},
		{"CLI-25 the server says that the code has expired", goodDevice, "expired_token", true, 1, 0},
		{"CLI-25 the user says no", goodDevice, "access_denied", false, 1, 0},
		{"CLI-25 another refusal is not asked again", goodDevice, "invalid_grant", false, 1, 0},
		{"CLI-25 a token that cannot be used is not asked for again", goodDevice, `{"access_token":"at","token_type":"mac"}`, false, 1, 0},
		{"CLI-25 a client that may not", "", "", false, 0, 0},
		{"CLI-25 an answer without a lifetime", strings.Replace(goodDevice, "600", "0", 1), "", false, 0, 0},
		{"CLI-25 a code that steers the terminal", strings.Replace(goodDevice, "WDJB", `\u001b[2J`, 1), "", false, 0, 0},
		{"CLI-25, CLI-19, attack HO-13: an address that is a program", strings.Replace(goodDevice, "https://as.test/device", "file:///bin/sh", 1), "", false, 0, 0},
		{"CLI-25 no JSON", "<html>", "", false, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &deviceWorld{answers: []string{tc.answer}, grant: tc.grant}
				start := time.Now()
				_, err := signIn(t.Context(), w, 0)
				if err == nil || errors.Is(err, ErrSignIn) != tc.asSign || len(w.polls) != tc.polls || time.Since(start) < tc.atLeast || time.Since(start) > 602*time.Second {
					t.Error(err, len(w.polls), time.Since(start))
				}
			})
		})
	}
	t.Run("CLI-25 the caller stops waiting, or the configuration does", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(12*time.Second, cancel)
			w := &deviceWorld{answers: []string{"authorization_pending"}, grant: goodDevice}
			if _, err := signIn(ctx, w, 0); !errors.Is(err, context.Canceled) || len(w.polls) != 2 {
				t.Error(err, len(w.polls))
			}
			w = &deviceWorld{answers: []string{"authorization_pending"}, grant: goodDevice}
			if _, err := signIn(t.Context(), w, 7*time.Second); !errors.Is(err, ErrSignIn) || len(w.polls) != 1 {
				t.Error(err, len(w.polls))
			}
		})
	})
	t.Run("CLI-25 an application that cannot show the code", func(t *testing.T) {
		w := &deviceWorld{answers: []string{goodToken}, grant: goodDevice}
		c, err := New(Config{ID: appID, HTTP: &http.Client{Transport: w}, Device: func(context.Context, DeviceCode) error { return errors.New("no screen") }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.SignIn(t.Context(), "https://mcp.test/mcp"); !errors.Is(err, ErrSignIn) || len(w.polls) != 0 {
			t.Error(err)
		}
		if d := c.Document("TV"); !slices.Contains(d.GrantTypes, oauth.GrantDeviceCode) || d.RedirectURIs != nil {
			t.Error(d)
		}
	})
	t.Run("CLI-25, CLI-24 a device has its tokens bound like any other", func(t *testing.T) {
		w := offering(t, func(c *Config) { c.Device = func(context.Context, DeviceCode) error { return nil } })
		w.as.meta.DeviceEndpoint = w.as.URL + "/device"
		w.answers("/device", 200, strings.Replace(goodDevice, `600`, `600,"interval":0.01`, 1))
		w.used(t, w.c.HTTPClient(w.target()))
		if w.opened() != 0 || len(w.rs.proofs) != 1 {
			t.Error(w.opened(), len(w.rs.proofs))
		}
	})
	t.Run("CLI-25 a server without that", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Device = func(context.Context, DeviceCode) error { return nil } })
		if _, err := w.c.SignIn(t.Context(), w.target()); err == nil {
			t.Error("signed in")
		}
	})
}

func TestSignOut(t *testing.T) {
	type revoked struct{ token, hint string }
	start := func(t *testing.T, change func(*Config)) (*world, *[]revoked) {
		w := newWorld(t, change)
		w.as.meta.RevocationEndpoint = w.as.URL + "/revoke"
		var got []revoked
		w.as.more = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/revoke" {
				return false
			}
			got = append(got, revoked{r.PostForm.Get("token"), r.PostForm.Get("token_type_hint")})
			return true
		}
		return w, &got
	}
	t.Run("CLI-30 the refresh token is revoked, by the client that it was given to", func(t *testing.T) {
		k := key(t, "ES256")
		w, got := start(t, func(c *Config) { c.Key = k })
		g, err := w.c.SignIn(t.Context(), w.target())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.c.SignOut(t.Context(), w.target()); err != nil || !slices.Equal(*got, []revoked{{g.RefreshToken, "refresh_token"}}) {
			t.Error(err, *got)
		}
		if claims, _, _ := assertionClaims(t, k, w.as.lastForm.Get("client_assertion")); claims["aud"] != w.as.URL {
			t.Error(claims)
		}
		if err := w.c.SignOut(t.Context(), w.target()); err != nil || len(*got) != 1 {
			t.Error("again:", err, *got)
		}
		if told := fmt.Sprintf("%+v", w.steps); strings.Contains(told, g.RefreshToken) {
			t.Error("CLI-22: the trace tells it")
		}
	})
	t.Run("CLI-30 without a refresh token the access token is", func(t *testing.T) {
		w, got := start(t, nil)
		w.as.token = func(m map[string]any) { delete(m, "refresh_token") }
		g, err := w.c.SignIn(t.Context(), w.target())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.c.SignOut(t.Context(), w.target()); err != nil || !slices.Equal(*got, []revoked{{g.AccessToken, "access_token"}}) {
			t.Error(err, *got)
		}
	})
	t.Run("CLI-30 a server that fails is told of, and the tokens are gone all the same", func(t *testing.T) {
		w, _ := start(t, nil)
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		w.answers("/revoke", 503, "{}")
		if err := w.c.SignOut(t.Context(), w.target()); err == nil {
			t.Error("nothing said")
		}
		if g, _ := w.c.cfg.Store.Load(t.Context(), w.target()); g != nil {
			t.Error("kept", g)
		}
	})
	t.Run("CLI-13, CLI-30 a grant of another client is forgotten and not revoked", func(t *testing.T) {
		w, got := start(t, nil)
		other := &Grant{Resource: w.target(), Issuer: w.as.URL, ClientID: "https://other.test/c.json", AccessToken: "a", RefreshToken: "r"}
		_ = w.c.cfg.Store.Update(t.Context(), w.target(), func(*Grant) (*Grant, error) { return other, nil })
		if err := w.c.SignOut(t.Context(), w.target()); err != nil || len(*got) != 0 {
			t.Error(err, *got)
		}
	})
}
