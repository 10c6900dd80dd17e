package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/oauth"
)

func hello(w http.ResponseWriter, r *http.Request) error {
	_, err := io.WriteString(w, "hello")
	return err
}

func failing(err error) Handler {
	return func(http.ResponseWriter, *http.Request) error { return err }
}

func do(h http.Handler, method, url string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, url, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestNewEdge(t *testing.T) {
	for _, tt := range []struct {
		name, issuer string
		ok           bool
	}{
		{"META-18 https is fine", "https://auth.acme.example", true},
		{"META-18 a path is fine", "https://acme.example/auth", true},
		{"META-18 http on loopback is fine for --dev", "http://127.0.0.1:8080", true},
		{"META-18 http on localhost is fine for --dev", "http://localhost:8080", true},
		{"META-18 http on IPv6 loopback is fine for --dev", "http://[::1]:8080", true},
		{"META-18 http elsewhere is refused", "http://auth.acme.example", false},
		{"META-18 a fragment is refused", "https://auth.acme.example/#x", false},
		{"META-18 a query is refused", "https://auth.acme.example/?x", false},
		{"META-18 userinfo is refused", "https://x@auth.acme.example/", false},
		{"META-18 another scheme is refused", "ftp://auth.acme.example/", false},
		{"META-18 no URL is refused", "auth.acme.example", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewEdge(EdgeConfig{Issuer: tt.issuer}); (err == nil) != tt.ok {
				t.Errorf("NewEdge(%q): %v", tt.issuer, err)
			}
		})
	}
}

func TestPathsFollowTheIssuer(t *testing.T) {
	e := newEdge(t, func(c *EdgeConfig) { c.Issuer = "https://acme.example/auth" })
	if got := []string{e.Path("/login"), e.URL("/login"), e.Host(), e.Issuer(), e.BrandName()}; !cmp.Equal(got,
		[]string{"/auth/login", "https://acme.example/auth/login", "acme.example", "https://acme.example/auth", "Acme"}) {
		t.Errorf("got %q", got)
	}
	t.Run("META-18, attack AZ-20: a forged Host or X-Forwarded-Host changes nothing on the page", func(t *testing.T) {
		h := e.Page(failing(oauth.Refuse(oauth.InvalidRequest, "no")))
		r := httptest.NewRequest(http.MethodGet, "/auth/authorize", nil)
		honest := httptest.NewRecorder()
		h.ServeHTTP(honest, r)
		r.Host = "evil.test"
		r.Header.Set("X-Forwarded-Host", "evil.test")
		r.Header.Set("Forwarded", "host=evil.test")
		forged := httptest.NewRecorder()
		h.ServeHTTP(forged, r)
		clean := func(s string) string { return refPattern.ReplaceAllString(s, "") }
		if diff := cmp.Diff(clean(honest.Body.String()), clean(forged.Body.String())); diff != "" || strings.Contains(fmt.Sprint(forged.Header()), "evil") {
			t.Errorf("the answer differs:\n%s", diff)
		}
	})
}

func TestPageHeaders(t *testing.T) {
	e := newEdge(t, nil)
	ok := func(w http.ResponseWriter, r *http.Request) error {
		return e.Render(w, r, http.StatusOK, Page{Title: "x", Template: Template("x", "<p>x</p>")})
	}
	for _, tt := range []struct {
		name string
		h    http.Handler
	}{
		{"a page", e.Page(ok)},
		{"an entry", e.Entry(ok)},
		{"an error page", e.Page(failing(oauth.Refuse(oauth.InvalidRequest, "no")))},
		{"a failure", e.Page(failing(errSecret))},
		{"a panic", e.Page(func(http.ResponseWriter, *http.Request) error { panic("x") })},
		{"not found", e.NotFound()},
	} {
		t.Run("CONS-06, AUTHZ-22, META-17, AZ-21, attack CN-08: headers of "+tt.name, func(t *testing.T) {
			got := do(tt.h, http.MethodGet, "/x", "Origin", "https://evil.test").Header()
			want := map[string]string{
				"Content-Security-Policy":      "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
				"X-Frame-Options":              "DENY",
				"X-Content-Type-Options":       "nosniff",
				"Referrer-Policy":              "no-referrer",
				"Cache-Control":                "no-store",
				"Strict-Transport-Security":    "max-age=31536000",
				"Content-Type":                 "text/html; charset=utf-8",
				"Access-Control-Allow-Origin":  "",
				"Access-Control-Allow-Methods": "",
			}
			for name, value := range want {
				if got.Get(name) != value {
					t.Errorf("%s: %q, want %q", name, got.Get(name), value)
				}
			}
			if !strings.Contains(got.Get("Permissions-Policy"), "camera=()") {
				t.Error("no Permissions-Policy")
			}
		})
	}
	t.Run("META-18 no HSTS for an http issuer", func(t *testing.T) {
		dev := newEdge(t, func(c *EdgeConfig) { c.Issuer = "http://127.0.0.1:8080" })
		if got := get(dev.NotFound(), "/").Header().Get("Strict-Transport-Security"); got != "" {
			t.Errorf("HSTS %q", got)
		}
	})
}

func TestFormAction(t *testing.T) {
	for _, tt := range []struct{ redirect, want string }{
		{"", ""},
		{"https://app.example/cb", " https:"},
		{"http://127.0.0.1:51004/callback", " https: http://127.0.0.1:51004"},
		{"http://localhost/callback", " https: http://localhost"},
		{"http://[::1]:51004/callback", " https: http:"},
		{"com.example.app:/callback", " https: com.example.app:"},
		{"cursor://anysphere/callback", " https: cursor:"},
		{"javascript:alert(1)", ""},
		{"data:text/html,x", ""},
		{"http://a;script-src/", ""},
		{"http://a b/", ""},
		{"x;y:/", ""},
		{"/relative", ""},
		{"http:///cb", ""},
		{"%", ""},
	} {
		t.Run("CONS-06 form-action allows the way to "+tt.redirect, func(t *testing.T) {
			want := "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'" + tt.want + "; base-uri 'none'; frame-ancestors 'none'"
			if got := contentPolicy(tt.redirect); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestCrossOriginPosts(t *testing.T) {
	e := newEdge(t, nil)
	for _, tt := range []struct {
		name    string
		h       http.Handler
		headers []string
		status  int
	}{
		{"CONS-06 our own form is let in", e.Page(hello), []string{"Sec-Fetch-Site", "same-origin", "Origin", "null"}, 200},
		{"CONS-06 a form of another site is refused", e.Page(hello), []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.test"}, 403},
		{"CONS-06 a form of a sibling host is refused", e.Page(hello), []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"CONS-06 an old browser's foreign Origin is refused", e.Page(hello), []string{"Origin", "https://evil.test"}, 403},
		{"CONS-06 our own form from an old browser is let in although a proxy changed Host", e.Page(hello), []string{"Origin", "https://auth.acme.example", "Host", "127.0.0.1:8080"}, 200},
		{"CONS-06 a foreign form is refused although a proxy changed Host", e.Page(hello), []string{"Origin", "https://evil.test", "Host", "127.0.0.1:8080"}, 403},
		{"AUTHZ-27 an entry takes a form of another site", e.Entry(hello), []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://app.example"}, 200},
		{"META-17 an API takes a browser client's POST", e.API(hello), []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://app.example"}, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if w := do(tt.h, http.MethodPost, "https://auth.acme.example/x", tt.headers...); w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	e := newEdge(t, nil)
	for _, m := range []string{"HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "BREW"} {
		t.Run("attack AZ-20: "+m+" on a page is refused", func(t *testing.T) {
			w := do(e.Entry(hello), m, "/authorize", "Origin", "https://evil.test", "Access-Control-Request-Method", "POST")
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, POST" || w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("status %d, headers %v", w.Code, w.Header())
			}
		})
	}
	t.Run("AZ-20 an API refuses as JSON", func(t *testing.T) {
		w := do(e.API(Only(hello, http.MethodPost)), http.MethodGet, "/token")
		if w.Code != http.StatusMethodNotAllowed || !strings.Contains(w.Body.String(), `"error":"invalid_request"`) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}

func TestAPI(t *testing.T) {
	e := newEdge(t, nil)
	t.Run("META-17, TK-14 any origin may read, without credentials", func(t *testing.T) {
		for _, h := range []http.Handler{e.API(hello), e.Public(hello), e.API(failing(errSecret))} {
			got := do(h, http.MethodPost, "/token", "Origin", "https://evil.test", "Cookie", "a=b").Header()
			if got.Get("Access-Control-Allow-Origin") != "*" || got.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("headers %v", got)
			}
		}
	})
	t.Run("META-17 the preflight is answered", func(t *testing.T) {
		h := e.API(func(http.ResponseWriter, *http.Request) error { t.Error("the handler ran"); return nil })
		w := do(h, http.MethodOptions, "/token", "Origin", "https://app.example", "Access-Control-Request-Method", "POST")
		if w.Code != http.StatusNoContent || w.Header().Get("Access-Control-Allow-Headers") != "*, Authorization" || !strings.Contains(w.Header().Get("Access-Control-Allow-Methods"), "POST") {
			t.Errorf("status %d, headers %v", w.Code, w.Header())
		}
	})
	t.Run("META-17 a page may use the methods that there are and no more", func(t *testing.T) {
		for want, h := range map[string]http.Handler{
			"GET, HEAD, POST, OPTIONS": e.API(hello), "GET, HEAD, POST, OPTIONS, PUT, DELETE": e.API(hello, "PUT", "DELETE"),
		} {
			w := do(h, http.MethodOptions, "/register/dyn-1", "Origin", "https://app.example", "Access-Control-Request-Method", "PUT")
			if got := w.Header().Get("Access-Control-Allow-Methods"); got != want {
				t.Errorf("methods %q, want %q", got, want)
			}
		}
	})
	t.Run("TK-13 nothing is stored, on success and on error", func(t *testing.T) {
		for _, h := range []http.Handler{e.API(hello), e.API(failing(errSecret)), e.Public(failing(errSecret))} {
			if got := do(h, http.MethodPost, "/token").Header(); got.Get("Cache-Control") != "no-store" || got.Get("Pragma") != "no-cache" {
				t.Errorf("headers %v", got)
			}
		}
	})
	t.Run("META-20 public documents may be kept", func(t *testing.T) {
		if got := get(e.Public(hello), "/jwks").Header().Get("Cache-Control"); got != "public, max-age=300" {
			t.Errorf("Cache-Control %q", got)
		}
	})
}

func TestJSONErrors(t *testing.T) {
	e := newEdge(t, nil)
	busy := Refuse(http.StatusServiceUnavailable, oauth.Refuse(oauth.TemporarilyUnavailable, "busy"))
	busy.RetryAfter = 1500 * time.Millisecond
	for _, tt := range []struct {
		name       string
		err        error
		status     int
		want       jsonError
		retryAfter string
	}{
		{"invalid_request is 400", oauth.Refuse(oauth.InvalidRequest, "h"), 400, jsonError{Error: "invalid_request", Description: "h"}, ""},
		{"invalid_client is 401", oauth.Refuse(oauth.InvalidClient, "h").Under("CAUTH-01"), 401, jsonError{Error: "invalid_client", Description: "h", Rule: "CAUTH-01"}, ""},
		{"invalid_grant is 400", fmt.Errorf("wrapped: %w", oauth.Refuse(oauth.InvalidGrant, "h")), 400, jsonError{Error: "invalid_grant", Description: "h"}, ""},
		{"access_denied is 400", oauth.Refuse(oauth.AccessDenied, "h"), 400, jsonError{Error: "access_denied", Description: "h"}, ""},
		{"invalid_token is 401", oauth.Refuse(oauth.InvalidToken, "h"), 401, jsonError{Error: "invalid_token", Description: "h"}, ""},
		{"insufficient_scope is 403", oauth.Refuse(oauth.InsufficientScope, "h"), 403, jsonError{Error: "insufficient_scope", Description: "h"}, ""},
		{"temporarily_unavailable is 503", oauth.Refuse(oauth.TemporarilyUnavailable, "h"), 503, jsonError{Error: "temporarily_unavailable", Description: "h"}, "30"},
		{"a Retry-After is rounded up", busy, 503, jsonError{Error: "temporarily_unavailable", Description: "busy"}, "2"},
		{"a page status does not show", Refuse(502, oauth.Refuse(oauth.InvalidClient, "h")), 401, jsonError{Error: "invalid_client", Description: "h"}, ""},
		{"FETCH-23 anything else is 500 and says nothing", errSecret, 500, jsonError{Error: "server_error", Description: "something went wrong on our side"}, ""},
		{"FETCH-23 a private cause stays private", oauth.Refuse(oauth.InvalidClient, "h").Because(errSecret), 401, jsonError{Error: "invalid_client", Description: "h"}, ""},
		{"only the characters of RFC 6749 go out", oauth.Refuse(oauth.InvalidRequest, "a\"b\\c\nd\u00e9"), 400, jsonError{Error: "invalid_request", Description: "a'b?c?d?"}, ""},
	} {
		t.Run("TK-13 "+tt.name, func(t *testing.T) {
			w := get(e.API(failing(tt.err)), "/token")
			var got jsonError
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if !refPattern.MatchString(got.Reference) {
				t.Errorf("reference %q", got.Reference)
			}
			got.Reference = ""
			if diff := cmp.Diff(tt.want, got); diff != "" || w.Code != tt.status || w.Header().Get("Retry-After") != tt.retryAfter {
				t.Errorf("status %d, Retry-After %q\n%s", w.Code, w.Header().Get("Retry-After"), diff)
			}
			if ct := w.Header().Get("Content-Type"); ct != "application/json" {
				t.Errorf("Content-Type %q", ct)
			}
			if strings.Contains(w.Body.String(), "hunter2") {
				t.Error("the cause leaked")
			}
		})
	}
	t.Run("a handler's WWW-Authenticate survives", func(t *testing.T) {
		w := get(e.API(func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
			return oauth.Refuse(oauth.InvalidClient, "no")
		}), "/token")
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("status %d, headers %v", w.Code, w.Header())
		}
	})
	t.Run("a value that cannot be encoded is an error and nothing is sent", func(t *testing.T) {
		w := get(e.API(func(w http.ResponseWriter, r *http.Request) error { return WriteJSON(w, 200, func() {}) }), "/x")
		if w.Code != 500 || !strings.Contains(w.Body.String(), "server_error") {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}

// TestNothingLeaks looks at the answer, the log and the event of one failing request.
func TestNothingLeaks(t *testing.T) {
	var log bytes.Buffer
	var events []Refused
	e := newEdge(t, func(c *EdgeConfig) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Refused = func(r Refused) { events = append(events, r) }
	})
	const token = "eyJhbGciOiJFUzI1NiJ9.secret.signature"
	type poison struct{ token string }
	for _, tt := range []struct {
		name string
		h    Handler
		log  string // must be in the log
	}{
		{"an error", failing(errSecret), "10.0.0.7"},
		{"a panic with a string", func(http.ResponseWriter, *http.Request) error { panic("token " + token) }, "a value of type string"},
		{"a panic with an error", func(http.ResponseWriter, *http.Request) error { panic(errors.New(token)) }, "an error of type"},
		{"a panic with a struct", func(http.ResponseWriter, *http.Request) error { panic(poison{token}) }, "poison"},
		{"a panic of the runtime", func(_ http.ResponseWriter, r *http.Request) error { return []error{}[len(r.Method)] }, "index out of range"},
	} {
		for kind, wrap := range map[string]func(Handler) http.Handler{"page": e.Page, "API": func(h Handler) http.Handler { return e.API(h) }} {
			t.Run("FETCH-23, TK-13, AUTHZ-30 "+tt.name+" on "+kind, func(t *testing.T) {
				log.Reset()
				events = nil
				w := do(wrap(tt.h), http.MethodGet, "/authorize?code="+token, "Authorization", "Bearer "+token)
				if w.Code != 500 {
					t.Errorf("status %d", w.Code)
				}
				answer := w.Body.String() + fmt.Sprint(w.Header())
				for _, secret := range []string{token, "hunter2", "10.0.0.7", "goroutine", "panic"} {
					if strings.Contains(answer, secret) {
						t.Errorf("the answer holds %q:\n%s", secret, answer)
					}
				}
				if strings.Contains(log.String(), token) {
					t.Errorf("the log holds the token:\n%s", &log)
				}
				if !strings.Contains(log.String(), tt.log) {
					t.Errorf("the log lacks %q:\n%s", tt.log, &log)
				}
				ref := refPattern.FindString(w.Body.String())
				if ref == "" || !strings.Contains(log.String(), ref) || len(events) != 1 || events[0].Ref != ref || events[0].Code != "server_error" {
					t.Errorf("reference %q, events %+v, log %s", ref, events, &log)
				}
			})
		}
	}
}

func TestEvents(t *testing.T) {
	var log bytes.Buffer
	var events []Refused
	e := newEdge(t, func(c *EdgeConfig) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		c.Refused = func(r Refused) { events = append(events, r) }
	})
	refusal := Refuse(502, oauth.Refuse(oauth.InvalidClient, "no").Under("FETCH-02"))
	refusal.ClientURL = "https://app.example/c"
	w := get(e.Page(failing(refusal)), "/authorize?state=secret")
	want := []Refused{{Time: time.Unix(1700000000, 0), Ref: refPattern.FindString(w.Body.String()), Method: "GET", Path: "/authorize", IP: "192.0.2.1",
		Client: "https://app.example/c", Code: "invalid_client", Rule: "FETCH-02", Status: 502}}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(log.String(), "secret") || strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), `"level":"INFO"`) {
		t.Errorf("log %s", &log)
	}

	events = nil
	w = get(e.API(func(_ http.ResponseWriter, r *http.Request) error {
		SetClient(r.Context(), "client-1")
		return oauth.Refuse(oauth.InvalidGrant, "no")
	}), "/token")
	if len(events) != 1 || events[0].Client != "client-1" || !strings.Contains(w.Body.String(), events[0].Ref) {
		t.Errorf("events %+v", events)
	}

	events = nil
	log.Reset()
	get(e.NotFound(), "/wp-login.php")
	get(e.Page(hello), "/")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	t.Run("POL-07 a client that leaves before it reads its refusal is noted all the same", func(t *testing.T) {
		e.Page(failing(refusal)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/consent", nil).WithContext(gone))
		if len(events) != 1 || events[0].Rule != "FETCH-02" {
			t.Errorf("events %+v", events)
		}
		events = nil
	})
	e.Page(failing(errSecret)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(gone))
	if len(events) != 0 {
		t.Errorf("a wrong address, a success and a client that left made events: %+v", events)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines at info, want the wrong address only:\n%s", n, &log)
	}
}

func TestTheLogIsBounded(t *testing.T) {
	var log bytes.Buffer
	now := time.Unix(1700000000, 0)
	e := newEdge(t, func(c *EdgeConfig) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Now = func() time.Time { return now }
	})
	t.Run("attack DS-12: refusals of strangers fill the log at a bounded rate, and the rest is counted", func(t *testing.T) {
		for range 10 * logBurst {
			get(e.NotFound(), "/wp-login.php")
		}
		if n := strings.Count(log.String(), "\n"); n != logBurst {
			t.Errorf("%d lines", n)
		}
		log.Reset()
		now = now.Add(time.Second)
		get(e.NotFound(), "/wp-login.php")
		if !strings.Contains(log.String(), fmt.Sprintf("unlogged=%d", 9*logBurst)) {
			t.Errorf("log %s", &log)
		}
	})
	t.Run("a failure of our own is always told", func(t *testing.T) {
		for range 2 * logBurst {
			get(e.NotFound(), "/wp-login.php")
		}
		log.Reset()
		get(e.Page(failing(errSecret)), "/")
		if !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("log %s", &log)
		}
	})
}

func TestAnswerHasBegun(t *testing.T) {
	e := newEdge(t, nil)
	w := get(e.Page(func(w http.ResponseWriter, r *http.Request) error {
		_, _ = io.WriteString(w, "half")
		return errSecret
	}), "/")
	if w.Code != 200 || w.Body.String() != "half" {
		t.Errorf("status %d: %q", w.Code, w.Body)
	}
	t.Run("http.ErrAbortHandler goes through", func(t *testing.T) {
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("recovered %v", v)
			}
		}()
		get(e.Page(func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }), "/")
	})
	t.Run("a page whose template fails is an error page", func(t *testing.T) {
		w := get(e.Page(func(w http.ResponseWriter, r *http.Request) error {
			return e.Render(w, r, 200, Page{Template: Template("bad", `{{.Missing.Field}}`), Data: struct{ Missing *Page }{}})
		}), "/")
		if w.Code != 500 || !strings.Contains(w.Body.String(), "Something went wrong on our side") {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
	t.Run("an error page keeps cookies and drops what spoils it", func(t *testing.T) {
		w := get(e.Page(func(w http.ResponseWriter, r *http.Request) error {
			e.ClearCookie(w, "session")
			w.Header().Set("Location", "https://evil.test")
			w.Header().Set("Content-Length", "1")
			w.Header().Set("Cache-Control", "public")
			return oauth.Refuse(oauth.AccessDenied, "no")
		}), "/")
		h := w.Header()
		if w.Code != 403 || h.Get("Location") != "" || h.Get("Content-Length") != "" || h.Get("Cache-Control") != "no-store" || h.Get("Set-Cookie") == "" {
			t.Errorf("status %d, headers %v", w.Code, h)
		}
	})
	t.Run("flushing reaches the connection", func(t *testing.T) {
		w := get(e.API(func(w http.ResponseWriter, r *http.Request) error { return http.NewResponseController(w).Flush() }), "/")
		if !w.Flushed {
			t.Error("not flushed")
		}
	})
}

func TestClientIP(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, tt := range []struct {
		name, remote, forwarded, want string
		proxies                       []netip.Prefix
	}{
		{"the peer, with nobody trusted", "10.1.1.1:1234", "203.0.113.9", "10.1.1.1", nil},
		{"the peer, when it is not a proxy of ours", "198.51.100.7:1234", "203.0.113.9", "198.51.100.7", proxies},
		{"the last entry, from a trusted proxy", "10.1.1.1:1234", "203.0.113.9", "203.0.113.9", proxies},
		{"what stands left of the client's address is the client's invention", "10.1.1.1:1234", "127.0.0.1, 10.9.9.9, 203.0.113.9", "203.0.113.9", proxies},
		{"two trusted proxies in a row", "10.1.1.1:1234", "203.0.113.9, 10.2.2.2", "203.0.113.9", proxies},
		{"only trusted proxies: the leftmost", "10.1.1.1:1234", "10.3.3.3, 10.2.2.2", "10.3.3.3", proxies},
		{"junk ends the walk", "10.1.1.1:1234", "203.0.113.9, junk", "10.1.1.1", proxies},
		{"junk behind a proxy ends the walk there", "10.1.1.1:1234", "<script>, 10.2.2.2", "10.2.2.2", proxies},
		{"no header", "10.1.1.1:1234", "", "10.1.1.1", proxies},
		{"a port in the header", "10.1.1.1:1234", "203.0.113.9:5555", "203.0.113.9", proxies},
		{"IPv6 with brackets and port", "[fd00::1]:1234", "[2001:db8::9]:5555", "2001:db8::9", proxies},
		{"IPv6 with brackets", "[fd00::1]:1234", "[2001:db8::9]", "2001:db8::9", proxies},
		{"IPv4 in IPv6 is IPv4", "[::ffff:10.1.1.1]:1234", "203.0.113.9", "203.0.113.9", proxies},
		{"a zone does not matter", "[fe80::1%eth0]:1234", "", "fe80::1", proxies},
	} {
		t.Run("META-18 "+tt.name, func(t *testing.T) {
			e := newEdge(t, func(c *EdgeConfig) { c.TrustedProxies = tt.proxies })
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = tt.remote
			for line := range strings.SplitSeq(tt.forwarded, "|") {
				if line != "" {
					r.Header.Add("X-Forwarded-For", line)
				}
			}
			r.Header.Set("X-Real-Ip", "192.0.2.66")
			r.Header.Set("Forwarded", "for=192.0.2.66")
			var got netip.Addr
			e.API(func(_ http.ResponseWriter, r *http.Request) error { got = ClientIP(r.Context()); return nil }).ServeHTTP(httptest.NewRecorder(), r)
			if got.String() != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRef(t *testing.T) {
	whole := regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}$`)
	seen := map[string]bool{}
	for range 1000 {
		ref := newRef()
		if !whole.MatchString(ref) || seen[ref] {
			t.Fatalf("reference %q", ref)
		}
		seen[ref] = true
	}
	if Ref(t.Context()) != "" || ClientIP(t.Context()).IsValid() {
		t.Error("outside of an edge there is neither a reference nor an address")
	}
}

func TestCookies(t *testing.T) {
	e := newEdge(t, nil)
	dev := newEdge(t, func(c *EdgeConfig) { c.Issuer = "http://127.0.0.1:8080" })
	set := func(e *Edge, f func(http.ResponseWriter)) string {
		w := httptest.NewRecorder()
		f(w)
		return w.Header().Get("Set-Cookie")
	}
	for _, tt := range []struct{ name, got, want string }{
		{"a cookie that lasts", set(e, func(w http.ResponseWriter) { e.SetCookie(w, "session", "v", time.Hour) }),
			"__Host-bonafide_session=v; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"},
		{"a cookie for the browser session", set(e, func(w http.ResponseWriter) { e.SetCookie(w, "login", "v", 0) }),
			"__Host-bonafide_login=v; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"a cookie that ends", set(e, func(w http.ResponseWriter) { e.ClearCookie(w, "session") }),
			"__Host-bonafide_session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"},
		{"a cookie in development", set(dev, func(w http.ResponseWriter) { dev.SetCookie(w, "session", "v", time.Hour) }),
			CookieName("http://127.0.0.1:8080", "session") + "=v; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"},
	} {
		t.Run("OIDC-11, CN-13 "+tt.name, func(t *testing.T) {
			if tt.got != tt.want {
				t.Errorf("got  %s\nwant %s", tt.got, tt.want)
			}
		})
	}
	for _, tt := range []struct{ name, header, want string }{
		{"one cookie counts", "a=b; __Host-bonafide_session=v", "v"},
		{"attack CN-13: two of our name count as none", "__Host-bonafide_session=v; __Host-bonafide_session=w", ""},
		{"attack CN-13: a name without the prefix is not ours", "bonafide_session=v", ""},
		{"attack CN-13: a 16 kB cookie counts as none", "__Host-bonafide_session=" + strings.Repeat("x", 16<<10), ""},
		{"attack CN-13: 200 other cookies do not matter", strings.Repeat("x=y; ", 200) + "__Host-bonafide_session=v", "v"},
		{"no cookie", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("Cookie", tt.header)
			if got := e.Cookie(r, "session"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCookieNames(t *testing.T) {
	t.Run("OIDC-11 issuers that share a host do not share cookies", func(t *testing.T) {
		seen := map[string]string{}
		for _, issuer := range []string{
			"https://as.test", "https://as.test/a", "https://as.test/b", "https://as.test:8443", "http://127.0.0.1:8080", "http://127.0.0.1:9090", "http://localhost",
		} {
			name := CookieName(issuer, "session")
			if other, taken := seen[name]; taken {
				t.Errorf("%s and %s both use %s", issuer, other, name)
			}
			seen[name] = issuer
			if strings.HasPrefix(name, "__Host-") != strings.HasPrefix(issuer, "https:") {
				t.Errorf("%s uses %s", issuer, name)
			}
		}
		if seen["__Host-bonafide_session"] != "https://as.test" {
			t.Error("an issuer that is a host alone has the plain name")
		}
	})
}

func TestAssets(t *testing.T) {
	dir := t.TempDir()
	logo := filepath.Join(dir, "logo.SVG")
	if err := os.WriteFile(logo, []byte("<svg/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, func(c *EdgeConfig) { c.Brand.LogoPath = logo })
	mux := http.NewServeMux()
	for _, r := range e.Routes() {
		mux.Handle(r.Pattern, r.Handler)
	}
	page := get(e.NotFound(), "/").Body.String()
	found := regexp.MustCompile(`/assets/[\w.-]+`).FindAllString(page, -1)
	if len(found) != 3 {
		t.Fatalf("the page uses %q, want the stylesheet, the seal and the logo", found)
	}
	types := map[string]string{".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	for _, path := range found {
		w := get(mux, path)
		h := w.Header()
		if w.Code != 200 || h.Get("Content-Type") != types[strings.ToLower(filepath.Ext(path))] || h.Get("Cache-Control") != "public, max-age=31536000, immutable" ||
			h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%s: status %d, headers %v", path, w.Code, h)
		}
	}
	if w := do(mux, http.MethodPost, found[0]); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d", w.Code)
	}
	for _, bad := range []string{"logo.gif", "missing.png", "big.png"} {
		t.Run("a logo that cannot be used stops the start: "+bad, func(t *testing.T) {
			if bad == "big.png" {
				if err := os.WriteFile(filepath.Join(dir, bad), make([]byte, maxLogo+1), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := NewEdge(EdgeConfig{Issuer: "https://a.example", Brand: Brand{LogoPath: filepath.Join(dir, bad)}}); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestServerBounds(t *testing.T) {
	s := NewServer(http.NotFoundHandler())
	t.Run("DS-09 slow strangers are cut off", func(t *testing.T) {
		if s.ReadHeaderTimeout <= 0 || s.ReadHeaderTimeout > 15*time.Second || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 {
			t.Errorf("timeouts %v %v %v %v", s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout)
		}
	})
	t.Run("ATT-11 headers of 16 KiB and more pass", func(t *testing.T) {
		e := newEdge(t, nil)
		ts := httptest.NewUnstartedServer(e.API(hello))
		ts.Config.MaxHeaderBytes = s.MaxHeaderBytes
		ts.Start()
		defer ts.Close()
		for size, want := range map[int]int{40 << 10: 200, 100 << 10: 431} {
			req, _ := http.NewRequest(http.MethodGet, ts.URL, nil)
			req.Header.Set("OAuth-Client-Attestation", strings.Repeat("x", size))
			resp, err := ts.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%d bytes: status %d, want %d", size, resp.StatusCode, want)
			}
		}
	})
}

func TestSplitURL(t *testing.T) {
	for _, tt := range []struct {
		raw  string
		want ShownURL
	}{
		{"https://claude.ai/oauth/x", ShownURL{"https://", "claude.ai", "/oauth/x"}},
		{"https://claude.ai", ShownURL{"https://", "claude.ai", ""}},
		{"https://claude.ai@evil.test/", ShownURL{"https://claude.ai@", "evil.test", "/"}},
		{"https://evil.test\\@claude.ai/", ShownURL{"https://", "evil.test", "\\@claude.ai/"}},
		{"https://evil.test\u202e/x", ShownURL{"https://", "evil.test%E2%80%AE", "/x"}},
		{"https://" + strings.Repeat("a.", 60) + "evil.test/", ShownURL{"https://", "…" + (strings.Repeat("a.", 60) + "evil.test")[120+9-64:], "/"}},
		{"s6BhdRkqt3", ShownURL{"", "", "s6BhdRkqt3"}},
		{"https://a/" + strings.Repeat("x", 5000), ShownURL{"https://", "a", "/" + strings.Repeat("x", 159) + "…"}},
		{"a b\n", ShownURL{"", "", "a%20b%0A"}},
	} {
		t.Run("AUTHZ-30 "+cutRight(tt.raw, 40), func(t *testing.T) {
			if diff := cmp.Diff(tt.want, SplitURL(tt.raw)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
