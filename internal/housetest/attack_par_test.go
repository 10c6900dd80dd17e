package housetest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// pushForm is the form of a good request, with changes.
func (h *House) pushForm(changes ...string) url.Values {
	h.TB.Helper()
	u, err := url.Parse(h.Authorize(changes...))
	if err != nil {
		h.TB.Fatal(err)
	}
	return u.Query()
}

// uri is the name of a pushed request.
func (a Answer) uri(t testing.TB) string {
	t.Helper()
	if a.Status != http.StatusCreated || !strings.HasPrefix(a.Str("request_uri"), "urn:ietf:params:oauth:request_uri:") {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	return a.Str("request_uri")
}

// pushed is the address of a browser that brings a pushed request.
func pushed(client, uri string, more ...string) string {
	return Issuer + "/authorize?" + change(url.Values{"client_id": {client}, "request_uri": {uri}}, more).Encode()
}

// push sends a request of a client with keys.
func (k *keyed) push(changes ...string) Answer {
	k.h.TB.Helper()
	changes = slices.Concat([]string{"client_id", k.id, "redirect_uri", "https://keyed.test/cb"}, with(k.assert(nil)), changes)
	return k.h.Post("/par", k.h.pushForm(changes...))
}

func TestPushedRequests(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, k := h.john(), h.keyed(nil, jose.ES256, jose.RS256)
	t.Run("PAR-01, PAR-03, PAR-04, PAR-05: a client that nobody knew pushes, John agrees, the code is redeemed", func(t *testing.T) {
		code := john.Code(pushed(k.id, k.push().uri(t)))
		if a := k.redeem(code, k.assert(nil)); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("PAR-01, PAR-07: whom an assertion may be for", func(t *testing.T) {
		for _, aud := range []any{Issuer + "/token", Issuer + "/par", []string{Issuer, Issuer + "/par"}, "https://evil.test"} {
			form := h.pushForm(slices.Concat([]string{"client_id", k.id, "redirect_uri", "https://keyed.test/cb"}, with(k.assert(map[string]any{"aud": aud})))...)
			h.Post("/par", form).check(t, 401, oauth.InvalidClient)
		}
	})
	t.Run("PAR-01, CAUTH-06: an assertion counts once", func(t *testing.T) {
		form := h.pushForm(slices.Concat([]string{"client_id", k.id, "redirect_uri", "https://keyed.test/cb"}, with(k.assert(nil)))...)
		h.Post("/par", form).uri(t)
		h.Post("/par", form).check(t, 401, oauth.InvalidClient)
	})
	t.Run("PAR-01: a client with keys that leaves them out", func(t *testing.T) {
		h.Post("/par", h.pushForm("client_id", k.id, "redirect_uri", "https://keyed.test/cb")).check(t, 401, oauth.InvalidClient)
	})
	t.Run("PAR-01: a client_id that is not of the assertion", func(t *testing.T) {
		h.Post("/par", h.pushForm(with(k.assert(nil))...)).check(t, 401, oauth.InvalidClient)
	})
	t.Run("PAR-09, attack AZ-01: a redirect URI that is not listed, by a client that proved who it is", func(t *testing.T) {
		k.push("redirect_uri", "https://evil.test/cb").check(t, 400, oauth.InvalidRequest)
	})
	t.Run("PAR-06, attack AZ-17: parameters beside the request_uri change nothing", func(t *testing.T) {
		page := john.Visit(pushed(ClientID, h.Post("/par", h.pushForm()).uri(t), "redirect_uri", "https://evil.test/cb", "scope", "mcp:write", "state", "evil", "prompt", "none"))
		if page.Left || strings.Contains(page.Text(), "evil.test") || strings.Contains(page.Text(), "make changes") {
			t.Fatalf("%s: %s", page.URL, page.Text())
		}
		if page = john.Answer(page, "allow"); !page.Left || page.URL.Query().Get("state") != "s1" || page.URL.Host != "good.test" {
			t.Errorf("%s", page.URL)
		}
	})
	t.Run("PAR-06: another client's request_uri", func(t *testing.T) {
		if page := john.Visit(pushed(ClientID, k.push().uri(t))); page.Left || page.Status != 400 || page.Has("decision") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
	for _, uri := range []string{"urn:ietf:params:oauth:request_uri:forged", "urn:ietf:params:oauth:request_uri:"} {
		t.Run("PAR-05, attack AZ-15: "+uri, func(t *testing.T) {
			if page := john.Visit(pushed(ClientID, uri, "redirect_uri", Redirect)); page.Left || page.Status != 400 || !strings.Contains(page.Text(), "connect again") {
				t.Errorf("%d %s", page.Status, page.Text())
			}
		})
	}
	t.Run("PAR-05: it waits for a minute", func(t *testing.T) {
		uri := h.Post("/par", h.pushForm()).uri(t)
		h.Later(59 * time.Second)
		if page := john.Visit(pushed(ClientID, uri)); page.Left && page.URL.Query().Get("code") == "" || page.Status == 400 {
			t.Errorf("after 59 seconds: %d %s", page.Status, page.Text())
		}
		uri = h.Post("/par", h.pushForm()).uri(t)
		h.Later(time.Minute)
		if page := john.Visit(pushed(ClientID, uri)); page.Left || page.Status != 400 {
			t.Errorf("after a minute: %d %s", page.Status, page.URL)
		}
	})
	t.Run("PAR-03, SEC-12: browsers of other sites may not read the answer with cookies", func(t *testing.T) {
		a := h.Post("/par", h.pushForm(), func(r *http.Request) { r.Header.Set("Origin", "https://evil.test") })
		if a.Header.Get("Access-Control-Allow-Credentials") != "" || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%v", a.Header)
		}
	})
	if n := h.Net.Host("evil.test").Count("*"); n != 0 {
		t.Errorf("attack AZ-15: %d requests to evil.test", n)
	}
}

func TestStrangersWhoPush(t *testing.T) {
	t.Parallel()
	h := New(t)
	t.Run("PAR-11, FETCH-20: one who is not signed in makes this server fetch nothing", func(t *testing.T) {
		before := h.fetches()
		uri := h.Post("/par", h.pushForm()).uri(t)
		h.Post("/par", h.pushForm("client_id", "https://nowhere.test/c.json", "redirect_uri", "https://nowhere.test/cb")).uri(t)
		if n := h.fetches() - before; n != 0 {
			t.Errorf("%d connections", n)
		}
		if code := h.Person().Code(pushed(ClientID, uri)); code == "" {
			t.Error("no code")
		}
	})
	t.Run("PAR-11, FETCH-19: junk with an assertion has a budget", func(t *testing.T) {
		for i := range 200 {
			id := "https://h" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".test/c.json"
			key := newKey(t, jose.ES256)
			now := h.Now().Unix()
			junk := sign(t, key, "", map[string]any{"iss": id, "sub": id, "aud": Issuer, "exp": now + 60, "jti": id})
			if a := h.Post("/par", h.pushForm(slices.Concat([]string{"client_id", id}, with(junk))...)); a.Status == http.StatusTooManyRequests {
				if a.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				return
			}
		}
		t.Error("nobody was held back")
	})
	t.Run("POL-07: nothing is recorded of those who only push", func(t *testing.T) {
		if n := len(h.Events(audit.TypeConsent)); n != 1 {
			t.Errorf("%d consents", n)
		}
	})
}

func TestSignedRequestsEndToEnd(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, k := h.john(), h.keyed(map[string]any{"request_object_signing_alg": "ES256", "require_signed_request_object": true}, jose.ES256, jose.RS256)
	object := func(key jose.Private, changes map[string]any) string {
		t.Helper()
		now := h.Now().Unix()
		claims := map[string]any{"iss": k.id, "aud": Issuer, "exp": now + 300, "nbf": now}
		for name, v := range h.pushForm("client_id", k.id, "redirect_uri", "https://keyed.test/cb") {
			claims[name] = v[0]
		}
		return sign(t, key, oauth.TypRequestObject, changed(claims, changes))
	}
	at := func(object string, more ...string) string {
		return Issuer + "/authorize?" + change(url.Values{"client_id": {k.id}, "request": {object}}, more).Encode()
	}
	t.Run("AUTHZ-25, DOC-30: by value, with keys from the client's own address", func(t *testing.T) {
		if a := k.redeem(john.Code(at(object(k.keys[0], nil), "redirect_uri", "https://evil.test/cb", "state", "evil")), k.assert(nil)); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("AUTHZ-25, PAR-10: pushed", func(t *testing.T) {
		a := h.Post("/par", change(url.Values{"client_id": {k.id}, "request": {object(k.keys[0], map[string]any{"jti": "j1"})}, "redirect_uri": {"https://evil.test/cb"}}, with(k.assert(nil))))
		if code := john.Code(pushed(k.id, a.uri(t))); code == "" {
			t.Error("no code")
		}
	})
	for name, address := range map[string]string{
		"DOC-30: not signed": h.Authorize("client_id", k.id, "redirect_uri", "https://keyed.test/cb"),
		"AUTHZ-25, DOC-30: with another algorithm than the document says": at(object(k.keys[1], nil)),
		"AUTHZ-25, attack AZ-15: with somebody else's key":                at(object(newKey(t, jose.ES256), nil)),
		"AUTHZ-25, attack AZ-15: a request_uri inside":                    at(object(k.keys[0], map[string]any{"request_uri": "https://evil.test/ro"})),
		"AUTHZ-25: for another server":                                    at(object(k.keys[0], map[string]any{"aud": "https://evil.test"})),
		"AUTHZ-25: a client assertion":                                    at(k.assert(nil)),
		"AUTHZ-25: a redirect URI that is not listed":                     at(object(k.keys[0], map[string]any{"redirect_uri": "https://evil.test/cb"})),
	} {
		t.Run(name, func(t *testing.T) {
			if page := john.Visit(address); page.Left && page.URL.Query().Get("error") == "" || page.Has("decision") || page.URL.Host == "evil.test" {
				t.Errorf("%d at %s", page.Status, page.URL)
			}
		})
	}
	t.Run("AUTHZ-25, JK-09: unknown keys do not make this server ask again and again", func(t *testing.T) {
		before := h.Net.Host("keyed.test").Count("/jwks.json")
		for range 20 {
			john.Visit(at(object(newKey(t, jose.ES256), nil)))
		}
		if n := h.Net.Host("keyed.test").Count("/jwks.json") - before; n > 1 {
			t.Errorf("%d look-ups", n)
		}
	})
	if n := h.Net.Host("evil.test").Count("*"); n != 0 {
		t.Errorf("attack AZ-15: %d requests to evil.test", n)
	}
}

func TestDetailsEndToEnd(t *testing.T) {
	t.Parallel()
	h := New(t, "    default_scopes: [mcp:read]\n", `    default_scopes: [mcp:read]
    details:
      - type: folder
        title: work in one folder
        scope: "mcp:read"
        fields:
          - {name: path, title: Folder, required: true}
          - {name: actions, title: It may, values: [read, write], many: true}
`)
	john := h.john()
	const asks, granted = `[{"type":"folder","path":"/Documents","actions":["read"]}]`, `[{"actions":["read"],"path":"/Documents","type":"folder"}]`
	page := john.Visit(h.Authorize("authorization_details", asks))
	if text := page.Text(); !strings.Contains(text, "work in one folder") || !strings.Contains(text, "/Documents") {
		t.Fatalf("CONS-04: %s", text)
	}
	a := h.Post("/token", CodeForm(john.Answer(page, "allow").URL.Query().Get("code")))
	same := func(t *testing.T, where string, got any) {
		t.Helper()
		var want any
		if err := json.Unmarshal([]byte(granted), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", where, diff)
		}
	}
	t.Run("AUTHZ-26: what was granted stands in the answer, the token and introspection", func(t *testing.T) {
		same(t, "answer", a.Body["authorization_details"])
		same(t, "introspection", h.Post("/introspect", nil2("token", a.Str("access_token")), basic(Resource, IntrospectionSecret)).Body["authorization_details"])
	})
	t.Run("AUTHZ-26: and in what a refresh brings", func(t *testing.T) {
		b := h.Post("/token", RefreshForm(a.Str("refresh_token")))
		same(t, "answer", b.Body["authorization_details"])
		c := h.Post("/token", RefreshForm(b.Str("refresh_token"), "authorization_details", asks))
		same(t, "asked for by name", c.Body["authorization_details"])
		wider := strings.Replace(asks, "/Documents", "/", 1)
		h.Post("/token", RefreshForm(c.Str("refresh_token"), "authorization_details", wider)).check(t, 400, oauth.InvalidDetails)
	})
	t.Run("AUTHZ-26: never without asking", func(t *testing.T) {
		if page := john.Visit(h.Authorize("authorization_details", asks)); page.Left || !page.Has("decision") {
			t.Errorf("the browser is at %s", page.URL)
		}
	})
	t.Run("META-22, META-11: what is live is listed", func(t *testing.T) {
		m := h.Get("/.well-known/oauth-authorization-server")
		if l, _ := m.Body["authorization_details_types_supported"].([]any); len(l) != 1 || l[0] != "folder" {
			t.Errorf("%v", l)
		}
		if m.Str("pushed_authorization_request_endpoint") != Issuer+"/par" || m.Body["request_parameter_supported"] != true || m.Body["request_uri_parameter_supported"] != false {
			t.Errorf("%s", m.Raw)
		}
		if algs, _ := m.Body["request_object_signing_alg_values_supported"].([]any); len(algs) != len(jose.Accepted) {
			t.Errorf("%v", algs)
		}
	})
}

func TestFAPIEndToEnd(t *testing.T) {
	t.Parallel()
	h := New(t, "policy: {default: allow}", `policy:
  default: allow
  rules:
    - {name: banks, host: keyed.test, action: allow, fapi: true}
    - {name: pushers, host: good.test, action: allow, require_par: true, require_dpop: true}
par: {required: false, life: 30s}
`)
	john, k, key := h.john(), h.keyed(nil, jose.ES256, jose.RS256), newKey(t, jose.ES256)
	t.Run("POL-09: pushed, proven and bound", func(t *testing.T) {
		a := k.push("dpop_jkt", key.Public().Thumbprint())
		if a.Body["expires_in"] != 30.0 {
			t.Errorf("PAR-05: %s", a.Raw)
		}
		code := john.Code(pushed(k.id, a.uri(t)))
		form := func() url.Values {
			return CodeForm(code, slices.Concat([]string{"client_id", k.id, "redirect_uri", "https://keyed.test/cb"}, with(k.assert(nil)))...)
		}
		t.Run("AUTHZ-28: the code belongs to the key", func(t *testing.T) {
			h.Post("/token", form(), h.proof(newKey(t, jose.ES256), nil)).check(t, 400, oauth.InvalidGrant)
			if a := h.Post("/token", form()); a.OK() {
				t.Error("a bearer token")
			}
		})
		if a := h.Post("/token", form(), h.proof(key, nil)); !a.OK() || a.Str("token_type") != "DPoP" {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("POL-09: no bearer tokens", func(t *testing.T) {
		if a := k.redeem(john.Code(pushed(k.id, k.push().uri(t))), k.assert(nil)); a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("POL-09: no RS256", func(t *testing.T) {
		raw := sign(t, k.keys[1], "", k.claims(nil))
		h.Post("/par", h.pushForm(slices.Concat([]string{"client_id", k.id, "redirect_uri", "https://keyed.test/cb"}, with(raw))...)).check(t, 401, oauth.InvalidClient)
	})
	t.Run("POL-09, PAR-08: nothing in the address of the browser, and the page names the rule", func(t *testing.T) {
		page := john.Visit(h.Authorize("client_id", k.id, "redirect_uri", "https://keyed.test/cb"))
		if told := page.Text() + page.URL.Query().Get("error_description"); page.Has("decision") || page.URL.Query().Has("code") || !strings.Contains(told, "banks") {
			t.Errorf("%d at %s: %s", page.Status, page.URL, page.Text())
		}
	})
	t.Run("POL-03, PAR-08: another rule that takes pushed requests only", func(t *testing.T) {
		if page := john.Visit(h.Authorize()); page.Has("decision") || !strings.Contains(page.Text(), "pushers") {
			t.Errorf("%d at %s: %s", page.Status, page.URL, page.Text())
		}
		code := john.Code(pushed(ClientID, h.Post("/par", h.pushForm()).uri(t)))
		if a := h.Post("/token", CodeForm(code)); a.OK() {
			t.Error("POL-03: a bearer token")
		}
	})
}

func TestOnlyPushedRequestsByConfiguration(t *testing.T) {
	t.Parallel()
	h := New(t, "", "par: {required: true}")
	john := h.john()
	t.Run("PAR-08, META-11: required is listed and enforced", func(t *testing.T) {
		if h.Get("/.well-known/oauth-authorization-server").Body["require_pushed_authorization_requests"] != true {
			t.Error("not listed")
		}
		if page := john.Visit(h.Authorize()); page.Left || page.Has("decision") {
			t.Errorf("%s", page.URL)
		}
		if john.Code(pushed(ClientID, h.Post("/par", h.pushForm()).uri(t))) == "" {
			t.Error("no code")
		}
	})
}

func TestInstancesThatPush(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, a := h.john(), h.attested(nil)
	code := func(t *testing.T) string {
		t.Helper()
		form := h.pushForm("client_id", a.id, "redirect_uri", "https://native.test/cb")
		return john.Code(pushed(a.id, h.Post("/par", form, a.good()).uri(t)))
	}
	t.Run("ATT-09: another instance of the same app cannot redeem the code", func(t *testing.T) {
		c, mine := code(t), a.instance
		a.instance = newKey(t, jose.ES256)
		h.Post("/token", a.form(c), a.good()).check(t, 400, oauth.InvalidGrant)
		a.instance = mine
		if got := h.Post("/token", a.form(c), a.good()); !got.OK() {
			t.Errorf("its own: %d %s", got.Status, got.Raw)
		}
	})
}
