package housetest

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// tvID is a client that runs on devices without a browser, and that a rule names.
const tvID = "https://tv.test/c.json"

// televised starts a house in which tv.test may use the device flow.
func televised(t testing.TB, changes ...string) *House {
	t.Helper()
	h := New(t, append([]string{"policy: {default: allow}", `policy:
  default: allow
  rules:
    - {host: tv.test, action: allow}
    - {host: keyed.test, action: allow}
    - {host: closed.test, action: allow, device: false}
    - {host: fapi.test, action: allow, fapi: true}`}, changes...)...)
	h.Net.Host("tv.test").ServeClient("/c.json", tvDocument())
	return h
}

func tvDocument() map[string]any {
	return map[string]any{
		"client_name": "Living Room", "redirect_uris": nil, "response_types": nil,
		"grant_types": []string{oauth.GrantDeviceCode, oauth.GrantRefreshToken},
	}
}

// device lets a device ask for a code, with changes as in Authorize.
func (h *House) device(changes ...string) Answer {
	h.TB.Helper()
	return h.Post("/device_authorization", change(url.Values{"client_id": {tvID}, "scope": {"mcp:read"}, "resource": {Resource}}, changes))
}

// started is device for a test that needs the codes.
func (h *House) started(changes ...string) Answer {
	h.TB.Helper()
	a := h.device(changes...)
	if !a.OK() {
		h.TB.Fatalf("device authorization: %d %s", a.Status, a.Raw)
	}
	return a
}

// PollForm is what a device asks the token endpoint with.
func PollForm(code string, changes ...string) url.Values {
	return change(url.Values{"grant_type": {oauth.GrantDeviceCode}, "device_code": {code}, "client_id": {tvID}}, changes)
}

// poll asks once, after the interval.
func (h *House) poll(a Answer, changes ...string) Answer {
	h.TB.Helper()
	h.Later(5 * time.Second)
	return h.Post("/token", PollForm(a.Str("device_code"), changes...))
}

// enter types a code on the device page.
func (p *Person) enter(code string) *browse.Page {
	p.House.TB.Helper()
	page := p.Visit(Issuer + "/device")
	if page.Has("password") {
		page = p.SignIn(page)
	}
	return p.Send(p.form(page, "user_code").With("user_code", code))
}

// connect answers the confirmation page.
func (p *Person) connect(page *browse.Page, decision string) *browse.Page {
	p.House.TB.Helper()
	return p.Send(p.form(page, "decision").With("started", "yes").With("decision", decision))
}

func TestADeviceIsConnected(t *testing.T) {
	t.Parallel()
	h := televised(t)
	a := h.started("scope", "mcp:read mcp:write nonsense", "resource", Resource+"/")
	t.Run("DEV-02 the answer to the device", func(t *testing.T) {
		if a.Str("verification_uri") != Issuer+"/device" || a.Str("verification_uri_complete") != Issuer+"/device?user_code="+a.Str("user_code") ||
			a.Body["expires_in"] != 600.0 || a.Body["interval"] != 5.0 || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%v %s", a.Header, a.Raw)
		}
		if len(a.Str("device_code")) != 43 || len(a.Str("user_code")) != 9 || a.Str("user_code")[4] != '-' {
			t.Errorf("DEV-03, DEV-06: %s", a.Raw)
		}
	})
	t.Run("DEV-04 nobody has answered", func(t *testing.T) {
		h.Post("/token", PollForm(a.Str("device_code"))).check(t, 400, oauth.AuthorizationPending)
		h.poll(a).check(t, 400, oauth.AuthorizationPending)
	})
	john := h.Person()
	page := john.Visit(a.Str("verification_uri_complete"))
	t.Run("DEV-05 sign-in comes first, and a code in the address is not sent by itself", func(t *testing.T) {
		if !page.Has("password") {
			t.Fatalf("at %s: %s", page.URL, page.Text())
		}
		page = john.SignIn(page)
		if page.URL.Path != "/device" || !strings.Contains(page.Body, `value="`+a.Str("user_code")+`"`) || strings.Contains(page.Body, "tv.test") {
			t.Fatalf("at %s: %s", page.URL, page.Body)
		}
	})
	page = john.Send(john.form(page, "user_code").With("user_code", a.Str("user_code")))
	t.Run("DEV-05, attack DV-06: who asks, for what, when and from where, the code to compare, and the question", func(t *testing.T) {
		text := page.Text()
		for _, want := range []string{
			"tv.test", "Living Room", "Cannot be proven", "Example tools", "look things up", "make changes", a.Str("user_code"), "just now",
			"127.0.0.1", "Did you start this on your device?", "I started this myself",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("the page does not say %q: %s", want, text)
			}
		}
		if !strings.Contains(page.Body, "tv.test</h1>") {
			t.Error("the host does not lead the page")
		}
	})
	t.Run("DEV-05, attack DV-06: a yes without the comparison is asked again", func(t *testing.T) {
		page = john.Send(john.form(page, "decision").With("decision", "allow"))
		if page.Status != http.StatusUnprocessableEntity || !strings.Contains(page.Text(), "Please confirm first") {
			t.Fatalf("%d: %s", page.Status, page.Text())
		}
		h.poll(a).check(t, 400, oauth.AuthorizationPending)
	})
	page = john.connect(page, "allow")
	t.Run("the last page sends the person back to the device", func(t *testing.T) {
		if page.URL.Path != "/device/done" || !strings.Contains(page.Text(), "You can go back to your device") || !strings.Contains(page.Text(), "tv.test") {
			t.Fatalf("%d at %s: %s", page.Status, page.URL, page.Text())
		}
		if again := john.Visit(page.URL.String()); again.Status != 200 {
			t.Errorf("read again: %d", again.Status)
		}
	})
	b := h.poll(a)
	t.Run("DEV-04, DEV-07 the token is for the resource and the scopes that were asked for", func(t *testing.T) {
		if !b.OK() || b.Str("scope") != "mcp:read mcp:write" || b.Str("refresh_token") == "" || !h.active(b.Str("access_token")) {
			t.Fatalf("%d %s", b.Status, b.Raw)
		}
		i := h.Post("/introspect", nil2("token", b.Str("access_token")), basic(Resource, IntrospectionSecret))
		if i.Str("aud") != Resource || i.Str("client_id") != tvID {
			t.Errorf("%s", i.Raw)
		}
	})
	t.Run("DEV-06 a device code is good once, and its replay leaves the grant", func(t *testing.T) {
		h.poll(a).check(t, 400, oauth.InvalidGrant)
		if !h.active(b.Str("access_token")) {
			t.Error("the grant has ended")
		}
	})
	t.Run("TOK-12 the device refreshes as every client does", func(t *testing.T) {
		if c := h.Post("/token", RefreshForm(b.Str("refresh_token"), "client_id", tvID)); !c.OK() || c.Str("scope") != "mcp:read mcp:write" {
			t.Errorf("%d %s", c.Status, c.Raw)
		}
	})
	t.Run("CONS-13 what was agreed to is known the next time, and asked again all the same", func(t *testing.T) {
		page := john.enter(h.started().Str("user_code"))
		if text := page.Text(); !strings.Contains(text, "It may") || !page.Has("decision") {
			t.Errorf("%d: %s", page.Status, text)
		}
	})
}

func TestADeviceIsRefused(t *testing.T) {
	t.Parallel()
	h := televised(t)
	a := h.started()
	john := h.Person()
	page := john.connect(john.enter(strings.ToLower(a.Str("user_code"))), "deny")
	t.Run("DEV-04 a no is told to the person and to the device", func(t *testing.T) {
		if page.URL.Path != "/device/done" || !strings.Contains(page.Text(), "Nothing was connected") {
			t.Fatalf("%d at %s: %s", page.Status, page.URL, page.Text())
		}
		h.poll(a).check(t, 400, oauth.AccessDenied)
		h.poll(a).check(t, 400, oauth.AccessDenied)
	})
	t.Run("DEV-04 a code is answered once", func(t *testing.T) {
		if page := john.enter(a.Str("user_code")); page.Status != http.StatusUnprocessableEntity || !strings.Contains(page.Text(), "No device is waiting") {
			t.Errorf("%d: %s", page.Status, page.Text())
		}
	})
	t.Run("DEV-04 a code ends", func(t *testing.T) {
		b := h.started()
		open := john.enter(b.Str("user_code"))
		h.Later(10 * time.Minute)
		h.poll(b).check(t, 400, oauth.ExpiredToken)
		if page := john.enter(b.Str("user_code")); page.Status != http.StatusUnprocessableEntity {
			t.Errorf("%d: %s", page.Status, page.Text())
		}
		if page := john.connect(open, "allow"); page.Status != http.StatusConflict || !strings.Contains(page.Text(), "no longer valid") {
			t.Errorf("%d: %s", page.Status, page.Text())
		}
	})
	t.Run("DEV-04 who asks too often waits five seconds longer each time", func(t *testing.T) {
		c := h.started()
		ask := func() Answer { return h.Post("/token", PollForm(c.Str("device_code"))) }
		ask().check(t, 400, oauth.AuthorizationPending)
		h.Later(2 * time.Second)
		ask().check(t, 400, oauth.SlowDown) // 10 s now
		h.Later(5 * time.Second)
		ask().check(t, 400, oauth.SlowDown) // 15 s now
		h.Later(15 * time.Second)
		ask().check(t, 400, oauth.AuthorizationPending)
	})
}

func TestWhoMayUseTheDeviceFlow(t *testing.T) {
	t.Parallel()
	h := televised(t)
	good := h.Net.Host("good.test")
	good.ServeClient("/tv.json", tvDocument())
	h.Net.Host("closed.test").ServeClient("/c.json", tvDocument())
	h.Net.Host("fapi.test").ServeClient("/c.json", map[string]any{"grant_types": []string{oauth.GrantDeviceCode},
		"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://fapi.test/jwks", "redirect_uris": nil, "response_types": nil})
	h.Net.Host("tv.test").ServeClient("/web.json", nil)
	for _, r := range []struct {
		name    string
		changes []string
		status  int
		code    oauth.Code
	}{
		{"DEV-09 a client with a document that no rule names", []string{"client_id", "https://good.test/tv.json"}, 400, oauth.UnauthorizedClient},
		{"DEV-09 a rule may close the flow to a client that it admits", []string{"client_id", "https://closed.test/c.json"}, 400, oauth.UnauthorizedClient},
		{"DEV-01, attack DV-01: a document without the grant", []string{"client_id", "https://tv.test/web.json"}, 400, oauth.UnauthorizedClient},
		{"DEV-01 a client that has to authenticate and does not", []string{"client_id", "https://fapi.test/c.json"}, 401, oauth.InvalidClient},
		{"DEV-01 a client that nobody knows", []string{"client_id", "nobody"}, 401, oauth.InvalidClient},
		{"DEV-01 no client", []string{"client_id", ""}, 400, oauth.InvalidRequest},
		{"DEV-07 a resource that is not here", []string{"resource", "https://elsewhere.test/"}, 400, oauth.InvalidTarget},
		{"DEV-07 scopes that do not exist", []string{"scope", "nonsense"}, 400, oauth.InvalidScope},
		{"a signed request", []string{"request", "e30.e30."}, 400, oauth.InvalidRequest},
	} {
		t.Run(r.name, func(t *testing.T) {
			fetched := len(good.Requests())
			h.device(r.changes...).check(t, r.status, r.code)
			if n := len(good.Requests()); n != fetched {
				t.Error("FETCH-20: the document of a client that no operator spoke for was fetched")
			}
		})
	}
	t.Run("META-10, DEV-01 the metadata names endpoint and grant, and the document may name it", func(t *testing.T) {
		m := h.Get("/.well-known/oauth-authorization-server")
		if m.Str("device_authorization_endpoint") != Issuer+"/device_authorization" || !strings.Contains(m.Raw, oauth.GrantDeviceCode) {
			t.Errorf("%s", m.Raw)
		}
	})
	t.Run("a server without the flow knows nothing of it", func(t *testing.T) {
		h := televised(t, "", "device: {enabled: false}")
		if a := h.device(); a.Status != 404 {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
		h.Post("/token", PollForm("x")).check(t, 401, oauth.InvalidClient) // which nobody here knows
		if m := h.Get("/.well-known/oauth-authorization-server"); strings.Contains(m.Raw, "device") {
			t.Errorf("%s", m.Raw)
		}
		if page := h.Person().Visit(Issuer + "/device"); page.Status != 404 {
			t.Errorf("%d", page.Status)
		}
	})
}

func TestADeviceWithKeys(t *testing.T) {
	t.Parallel()
	h := televised(t)
	k := h.keyed(map[string]any{"grant_types": []string{oauth.GrantDeviceCode, oauth.GrantRefreshToken}, "redirect_uris": nil, "response_types": nil}, jose.ES256)
	asserted := func() []string { return with(k.assert(nil), "client_id", k.id) }
	a := h.started(asserted()...)
	john := h.Person()
	page := john.enter(a.Str("user_code"))
	t.Run("DEV-05 a client that proved itself is shown as one", func(t *testing.T) {
		if text := page.Text(); !strings.Contains(text, "Identity checked at its own address") || strings.Contains(text, "Cannot be proven") {
			t.Errorf("%s", text)
		}
	})
	john.connect(page, "allow")
	t.Run("DEV-06, attack DV-09: the code without the key, or by another client", func(t *testing.T) {
		h.poll(a, "client_id", k.id).check(t, 401, oauth.InvalidClient)
		h.poll(a).check(t, 400, oauth.InvalidGrant)
	})
	if b := h.poll(a, asserted()...); !b.OK() {
		t.Errorf("DEV-06: %d %s", b.Status, b.Raw)
	}
	h.poll(a, asserted()...).check(t, 400, oauth.InvalidGrant)
}

func TestADeviceWithAProof(t *testing.T) {
	t.Parallel()
	h := televised(t)
	john, key := h.john(), newKey(t, jose.ES256)
	form := url.Values{"client_id": {tvID}, "scope": {"mcp:read"}, "resource": {Resource}}
	start := h.proof(key, members{"htu": Issuer + "/device_authorization"})
	a := h.Post("/device_authorization", form, start)
	if !a.OK() {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	t.Run("DPOP-01, attack DP-01: a proof starts one device", func(t *testing.T) {
		h.Post("/device_authorization", form, start).check(t, 400, oauth.InvalidDPoPProof)
		h.Post("/device_authorization", form, h.proof(key, nil)).check(t, 400, oauth.InvalidDPoPProof) // for /token
	})
	john.connect(john.enter(a.Str("user_code")), "allow")
	poll := func(edit ...func(*http.Request)) Answer {
		h.Later(5 * time.Second)
		return h.Post("/token", PollForm(a.Str("device_code")), edit...)
	}
	t.Run("DEV-06, attack DP-06: the code belongs to the key of the device", func(t *testing.T) {
		poll().check(t, 400, oauth.InvalidGrant)
		poll(h.proof(newKey(t, jose.ES256), nil)).check(t, 400, oauth.InvalidGrant)
		b := poll(h.proof(key, nil))
		if !b.OK() || b.Str("token_type") != "DPoP" {
			t.Fatalf("%d %s", b.Status, b.Raw)
		}
		refresh := RefreshForm(b.Str("refresh_token"), "client_id", tvID)
		h.Post("/token", refresh).check(t, 400, oauth.InvalidGrant)
		if c := h.Post("/token", refresh, h.proof(key, nil)); !c.OK() {
			t.Errorf("DPOP-02: %d %s", c.Status, c.Raw)
		}
	})
}
