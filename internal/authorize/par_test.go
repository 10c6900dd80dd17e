package authorize

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// desk is a client authentication that believes one secret, and whatever key the
// DPoP header names.
type desk struct {
	p        *place
	method   string // of who knows the secret; "" is private_key_jwt
	instance string
}

func (d *desk) Authenticate(ctx context.Context, q clientauth.Request) (*clientauth.Client, error) {
	if q.Admit != nil {
		if err := q.Admit(ctx, q.ClientID); err != nil {
			return nil, err
		}
	}
	c, err := d.p.dir.Find(ctx, q.ClientID, q.Resolve)
	if err != nil {
		return nil, err
	}
	method := oauth.MethodNone
	if q.Secret == "right" {
		if method = d.method; method == "" {
			method = oauth.MethodPrivateKeyJWT
		}
	}
	if q.Secret != "" && q.Secret != "right" || method == oauth.MethodNone && !slices.Contains(c.AuthMethods, oauth.MethodNone) {
		return nil, oauth.Refuse(oauth.InvalidClient, "not proven").Under("CAUTH-17")
	}
	return &clientauth.Client{Client: c, Method: method, InstanceJKT: d.instance}, nil
}

func (d *desk) Bare(q clientauth.Request) bool { return q.Secret == "" }

func (d *desk) Check(_ http.ResponseWriter, r *http.Request, _ *clientauth.Client) (clientauth.Possession, error) {
	return clientauth.Possession{JKT: r.Header.Get("DPoP")}, nil
}

// openPAR is a place where requests can be pushed.
func openPAR(t testing.TB, change ...func(*Config)) (*place, *desk) {
	t.Helper()
	d := &desk{}
	d.p = open(t, append([]func(*Config){func(c *Config) { c.Clients = d }}, change...)...)
	return d.p, d
}

// reply is what an endpoint for programs answered.
type reply struct {
	*httptest.ResponseRecorder
	t    testing.TB
	body map[string]any
}

func (p *place) push(v url.Values, headers ...string) reply {
	p.t.Helper()
	r := httptest.NewRequestWithContext(p.t.Context(), http.MethodPost, issuer+"/par", strings.NewReader(v.Encode()))
	r.RemoteAddr = "203.0.113.9:4711"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	p.mux.ServeHTTP(w, r)
	out := reply{ResponseRecorder: w, t: p.t}
	if err := json.Unmarshal(w.Body.Bytes(), &out.body); err != nil {
		p.t.Fatalf("%d, not JSON: %s", w.Code, w.Body)
	}
	return out
}

func (r reply) uri() string {
	r.t.Helper()
	uri, _ := r.body["request_uri"].(string)
	if r.Code != http.StatusCreated || uri == "" {
		r.t.Fatalf("%d %s", r.Code, r.Body)
	}
	return uri
}

func (r reply) refused(t *testing.T, status int, code oauth.Code) {
	t.Helper()
	if r.Code != status || r.body["error"] != string(code) {
		t.Errorf("got %d %s, want %d %s", r.Code, r.Body, status, code)
	}
}

func named(id, uri string, pairs ...string) url.Values {
	v := url.Values{"client_id": {id}, "request_uri": {uri}}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// granted returns what is kept behind a code.
func (p *place) granted(code string) store.Code {
	p.t.Helper()
	c, err := p.store.FindCode(p.t.Context(), store.HashOf(code), p.clock.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func TestPushing(t *testing.T) {
	p, _ := openPAR(t)
	keyed := func(pairs ...string) url.Values {
		return asks(keyedID, append([]string{"client_secret", "right"}, pairs...)...)
	}
	t.Run("PAR-04 a good request", func(t *testing.T) {
		r := p.push(keyed())
		if handle, ok := strings.CutPrefix(r.uri(), "urn:ietf:params:oauth:request_uri:"); !ok || len(handle) != 43 {
			t.Errorf("request_uri %s", r.uri())
		}
		if r.body["expires_in"] != 60.0 || !strings.Contains(r.Header().Get("Cache-Control"), "no-store") || len(r.body) != 2 {
			t.Errorf("%v %s", r.Header(), r.Body)
		}
		if again := p.push(keyed()); again.uri() == r.uri() {
			t.Error("the same name twice")
		}
	})
	t.Run("PAR-04, TOK-23 only the hash of the name is kept", func(t *testing.T) {
		handle := strings.TrimPrefix(p.push(keyed()).uri(), uriPrefix)
		kept, err := p.store.FindPushed(t.Context(), store.HashOf(handle), p.clock.Now())
		if err != nil || strings.Contains(string(kept.Request), handle) || kept.ClientID != keyedID {
			t.Errorf("%v %s", err, kept.Request)
		}
	})
	for _, r := range []struct {
		name   string
		form   url.Values
		status int
		code   oauth.Code
	}{
		{"PAR-01 a client with keys that shows none", asks(keyedID), 401, oauth.InvalidClient},
		{"PAR-01 a wrong secret", keyed("client_secret", "wrong"), 401, oauth.InvalidClient},
		{"PAR-02 request_uri inside", keyed("request_uri", "https://evil.test/ro"), 400, oauth.InvalidRequest},
		{"PAR-02 a request_uri of ours inside", keyed("request_uri", p.push(keyed()).uri()), 400, oauth.InvalidRequest},
		{"PAR-03, PAR-09 a redirect URI that is not listed", keyed("redirect_uri", "https://evil.test/cb"), 400, oauth.InvalidRequest},
		{"PAR-03 another response_type", keyed("response_type", "token"), 400, oauth.UnsupportedResponseType},
		{"PAR-03 no challenge", keyed("code_challenge", ""), 400, oauth.InvalidRequest},
		{"PAR-03 an unknown resource", keyed("resource", "https://evil.test/"), 400, oauth.InvalidTarget},
		{"PAR-03 an unknown scope", keyed("scope", "nope"), 400, oauth.InvalidScope},
		{"PAR-03, AUTHZ-26 details that nobody knows", keyed("authorization_details", `[{"type":"x"}]`), 400, oauth.InvalidDetails},
		{"PAR-03 a document that cannot be had", asks("https://gone.example.com/c.json"), 401, oauth.InvalidClient},
		{"PAR-03, AZ-13 a request that is too long", keyed("state", strings.Repeat("s", 5000)), 400, oauth.InvalidRequest},
		{"PAR-03 a body that is too long", keyed("state", strings.Repeat("s", 70<<10)), 413, oauth.InvalidRequest},
	} {
		t.Run(r.name, func(t *testing.T) { p.push(r.form).refused(t, r.status, r.code) })
	}
	t.Run("PAR-03 other methods and other bodies", func(t *testing.T) {
		w := httptest.NewRecorder()
		p.mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, issuer+"/par", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET: %d", w.Code)
		}
		p.push(keyed(), "Content-Type", "application/json").refused(t, 415, oauth.InvalidRequest)
	})
	t.Run("PAR-03, attack AZ-16: parameters in the query", func(t *testing.T) {
		r := httptest.NewRequest(http.MethodPost, issuer+"/par?state=evil", strings.NewReader(keyed().Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		if p.mux.ServeHTTP(w, r); w.Code != 400 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("PAR-01 without clients that can prove themselves there is no such endpoint", func(t *testing.T) {
		for _, r := range open(t).h.Routes() {
			if strings.HasSuffix(r.Pattern, "/par") {
				t.Error("there is one")
			}
		}
	})
}

func TestAPushedRequestAtTheEndpoint(t *testing.T) {
	p, _ := openPAR(t)
	pushed := func(t *testing.T, pairs ...string) string {
		t.Helper()
		return p.push(asks(goodID, pairs...)).uri()
	}
	t.Run("PAR-06 what stands beside it is not looked at", func(t *testing.T) {
		b := p.visitor("john")
		page := b.authorize(named(goodID, pushed(t), "redirect_uri", "https://evil.test/cb", "scope", "admin", "state", "evil", "response_type", "token"))
		asked(t, page)
		if strings.Contains(page.body, "evil.test") || strings.Contains(page.body, "change settings") {
			t.Error("the page shows what stands beside it")
		}
		if got := b.decide(page, "allow").location(t); got.Get("state") != "s1" || got.Get("code") == "" || got.Get("iss") != issuer {
			t.Errorf("%v", got)
		}
	})
	for _, choice := range []string{"allow", "deny"} {
		t.Run("PAR-05 it is answered once, and may be loaded again before: "+choice, func(t *testing.T) {
			uri, b := pushed(t), p.visitor("john")
			first, second := b.authorize(named(goodID, uri)), b.authorize(named(goodID, uri))
			asked(t, first)
			asked(t, second)
			b.decide(first, choice).location(t)
			if res := b.decide(second, choice); res.StatusCode != http.StatusConflict {
				t.Errorf("a second answer: %d", res.StatusCode)
			}
			if res := b.authorize(named(goodID, uri)); res.StatusCode != http.StatusBadRequest || !strings.Contains(res.body, "invalid_request_uri") {
				t.Errorf("afterwards: %d", res.StatusCode)
			}
		})
	}
	t.Run("PAR-05 it can be loaded again before the sign-in", func(t *testing.T) {
		uri, b := pushed(t), p.visitor("")
		sentToSignIn(t, b.authorize(named(goodID, uri)))
		sentToSignIn(t, b.authorize(named(goodID, uri)))
		asked(t, b.resumes("john"))
	})
	t.Run("PAR-05 a person who is slow is not cut off, and still it counts once", func(t *testing.T) {
		uri, b := pushed(t), p.visitor("")
		sentToSignIn(t, b.authorize(named(goodID, uri)))
		p.clock.pass(10 * time.Minute)
		page := b.resumes("john")
		asked(t, page)
		p.clock.pass(10 * time.Minute)
		if _, err := p.store.Prune(t.Context(), p.clock.Now()); err != nil {
			t.Fatal(err)
		}
		b.decide(page, "allow").code(t)
		sentToSignIn(t, p.visitor("").authorize(asks(goodID))) // another one, to have a way back
		if res := b.decide(page, "allow"); res.StatusCode != http.StatusConflict {
			t.Errorf("a second answer: %d", res.StatusCode)
		}
	})
	t.Run("PAR-05 after a minute the page says what to do", func(t *testing.T) {
		uri := pushed(t)
		p.clock.pass(time.Minute)
		res := p.visitor("john").authorize(named(goodID, uri))
		if res.StatusCode != http.StatusBadRequest || res.Header.Get("Location") != "" || !strings.Contains(res.body, "Go back to the app and connect again") {
			t.Errorf("%d %s", res.StatusCode, res.body)
		}
	})
	t.Run("PAR-06 only for the client that pushed it", func(t *testing.T) {
		res := p.visitor("john").authorize(named(nativeID, pushed(t)))
		if res.StatusCode != http.StatusBadRequest || res.transaction() != "" || !strings.Contains(res.body, "invalid_request_uri") {
			t.Errorf("%d %s", res.StatusCode, res.body)
		}
		if res := p.visitor("john").authorize(named("", pushed(t))); res.StatusCode != http.StatusBadRequest || res.transaction() != "" {
			t.Errorf("without client_id: %d", res.StatusCode)
		}
	})
	for name, uri := range map[string]string{"unknown": uriPrefix + strings.Repeat("A", 43), "empty": uriPrefix, "long": uriPrefix + strings.Repeat("A", 4096)} {
		t.Run("PAR-05, attack AZ-15: a forged request_uri, "+name, func(t *testing.T) {
			res := p.visitor("john").authorize(named(goodID, uri, "redirect_uri", "https://good.example.com/cb"))
			if res.StatusCode != http.StatusBadRequest || res.Header.Get("Location") != "" {
				t.Errorf("%d to %q", res.StatusCode, res.Header.Get("Location"))
			}
		})
	}
	t.Run("PAR-05 a form leads to the same request", func(t *testing.T) {
		b := p.visitor("john")
		res := b.do(http.MethodPost, "/authorize", named(goodID, pushed(t)))
		if res.StatusCode != http.StatusSeeOther {
			t.Fatalf("%d", res.StatusCode)
		}
		u, _ := url.Parse(res.Header.Get("Location"))
		asked(t, b.get(u.RequestURI()))
	})
	t.Run("POL-05, CACHE-21 what changed since it was pushed counts", func(t *testing.T) {
		uri := pushed(t)
		p.dir.put(goodID, func(d *cimd.Document) { d.RedirectURIs = []string{"https://good.example.com/other"} })
		defer p.dir.put(goodID, func(d *cimd.Document) { d.RedirectURIs = []string{"https://good.example.com/cb"} })
		if res := p.visitor("john").authorize(named(goodID, uri)); res.StatusCode != http.StatusBadRequest || res.Header.Get("Location") != "" {
			t.Errorf("%d to %q", res.StatusCode, res.Header.Get("Location"))
		}
	})
	t.Run("PAR-05 a remembered consent uses it up too", func(t *testing.T) {
		b := p.signedIn("john")
		b.consents(asks(goodID, "prompt", "consent"))
		uri := pushed(t)
		b.authorize(named(goodID, uri)).code(t)
		if res := b.authorize(named(goodID, uri)); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%d to %q", res.StatusCode, res.Header.Get("Location"))
		}
	})
}

func TestOnlyPushedRequests(t *testing.T) {
	for _, r := range []struct {
		name   string
		change func(*Config)
		dress  func(*place)
	}{
		{"PAR-08 by the configuration", func(c *Config) { c.RequirePAR = true }, func(*place) {}},
		{"PAR-08, DOC-30 by the client's document", func(*Config) {}, func(p *place) { p.dir.put(goodID, func(d *cimd.Document) { d.RequirePAR = true }) }},
		{"PAR-08, POL-03 by the policy", func(*Config) {}, func(p *place) {
			p.rule(policy.Rule{Name: "pushers", Host: "good.example.com", Action: policy.Allow, RequirePAR: true})
		}},
	} {
		t.Run(r.name, func(t *testing.T) {
			p, _ := openPAR(t, r.change)
			r.dress(p)
			b := p.visitor("john")
			if res := b.authorize(asks(goodID)); res.transaction() != "" || !strings.Contains(res.body, "pushed_authorization_request_endpoint") {
				t.Errorf("%d %s", res.StatusCode, res.body)
			}
			asked(t, b.authorize(named(goodID, p.push(asks(goodID)).uri())))
		})
	}
}

func TestPushingASignedRequest(t *testing.T) {
	p, _ := openPAR(t)
	s := p.signer(jose.ES256)
	form := func(object string, pairs ...string) url.Values {
		return carries(object, append([]string{"client_secret", "right"}, pairs...)...)
	}
	t.Run("PAR-10 parameters beside the object are not looked at", func(t *testing.T) {
		b := p.visitor("john")
		page := b.authorize(named(keyedID, p.push(form(s.sign(nil), "redirect_uri", "https://evil.test/cb", "state", "evil")).uri()))
		asked(t, page)
		if got := b.decide(page, "allow").location(t).Get("state"); got != "s1" {
			t.Errorf("state %q", got)
		}
	})
	t.Run("PAR-10 client_id inside is the client", func(t *testing.T) {
		p.push(form(s.sign(map[string]any{"client_id": goodID}))).refused(t, 400, oauth.InvalidRequestObject)
	})
	t.Run("PAR-10 a wrong object", func(t *testing.T) {
		p.push(form(s.sign(map[string]any{"aud": "https://evil.test"}))).refused(t, 400, oauth.InvalidRequestObject)
		p.push(form("hello")).refused(t, 400, oauth.InvalidRequestObject)
	})
	t.Run("PAR-10, PAR-03 what it asks for is checked", func(t *testing.T) {
		p.push(form(s.sign(map[string]any{"redirect_uri": "https://evil.test/cb"}))).refused(t, 400, oauth.InvalidRequest)
	})
	t.Run("AUTHZ-25 a jti counts once", func(t *testing.T) {
		object := s.sign(map[string]any{"jti": "one"})
		p.push(form(object)).uri()
		p.push(form(object)).refused(t, 400, oauth.InvalidRequestObject)
	})
	t.Run("DOC-30 it is a signed one at the endpoint too", func(t *testing.T) {
		p.dir.put(keyedID, func(d *cimd.Document) { d.RequireSignedRequest = true })
		p.push(asks(keyedID, "client_secret", "right")).refused(t, 400, oauth.InvalidRequest)
		asked(t, p.visitor("john").authorize(named(keyedID, p.push(form(s.sign(nil))).uri())))
	})
}
