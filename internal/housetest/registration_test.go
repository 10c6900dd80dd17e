package housetest

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// openly is a configuration in which clients may register themselves.
const openly = "registration: {enabled: true}"

// theirs is what an MCP client without a document sends: the members of the
// TypeScript SDK and of VS Code.
var theirs = members{
	"client_name": "Visual Tool", "client_uri": "https://tool.test/", "logo_uri": "https://tool.test/logo.png",
	"redirect_uris": []string{"http://127.0.0.1:33418/", "http://127.0.0.1/", "https://good.test/cb"},
	"grant_types":   []string{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"}, "response_types": []string{"code"},
	"token_endpoint_auth_method": "none", "application_type": "native", "scope": "mcp:read mcp:write who:knows",
	"software_id": "tool", "software_version": "1.2", "contacts": []string{"mail@tool.test"}, "tos_uri": "https://tool.test/tos", "x_unknown": members{"a": 1},
}

// tell sends JSON to an endpoint; a token goes into the header.
func (h *House) tell(method, path, token string, body any) Answer {
	h.TB.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		h.TB.Fatal(err)
	}
	return h.tellRaw(method, path, token, string(raw))
}

func (h *House) tellRaw(method, path, token, body string) Answer {
	h.TB.Helper()
	r, err := http.NewRequestWithContext(h.TB.Context(), method, Issuer+path, strings.NewReader(body))
	if err != nil {
		h.TB.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return h.Do(r)
}

// registers makes a client register itself and returns the answer.
func (h *House) registers(changes members) Answer {
	h.TB.Helper()
	a := h.tell(http.MethodPost, "/register", "", changed(theirs, changes))
	if a.Status != http.StatusCreated {
		h.TB.Fatalf("%d %s", a.Status, a.Raw)
	}
	return a
}

// registered returns the path of a registration.
func (a Answer) registration() string {
	return strings.TrimPrefix(a.Str("registration_client_uri"), Issuer)
}

func TestClientsThatRegisterThemselves(t *testing.T) {
	t.Parallel()
	h := New(t, "", openly, "policy: {default: allow}", `policy: {default: ask, rules: [{dynamic: true, action: allow, scopes: ["mcp:read"]}]}`)
	t.Run("META-01, DCR-01 the metadata names the endpoint", func(t *testing.T) {
		if got := h.Get("/.well-known/oauth-authorization-server").Str("registration_endpoint"); got != Issuer+"/register" {
			t.Errorf("got %q", got)
		}
	})
	a := h.registers(nil)
	id := a.Str("client_id")
	t.Run("DCR-01, DCR-02, DCR-03, DCR-05 what was registered is told, and what was put in its place", func(t *testing.T) {
		if strings.HasPrefix(id, "https:") || !strings.HasPrefix(id, "dyn-") || len(id) < 20 {
			t.Errorf("the id is %q", id)
		}
		want := members{
			"client_name": "Visual Tool", "client_uri": "https://tool.test/", "application_type": "native",
			"redirect_uris": []any{"http://127.0.0.1:33418/", "http://127.0.0.1/", "https://good.test/cb"},
			"grant_types":   []any{"authorization_code", "refresh_token"}, "response_types": []any{"code"},
			"token_endpoint_auth_method": "none", "scope": "mcp:read",
			"software_id": "tool", "software_version": "1.2", "contacts": []any{"mail@tool.test"},
			"client_id": id, "client_id_issued_at": float64(h.Now().Unix()),
			"registration_client_uri": Issuer + "/register/" + id, "registration_access_token": a.Str("registration_access_token"),
		}
		if diff := cmp.Diff(want, a.Body); diff != "" {
			t.Error(diff)
		}
		if a.Header.Get("Cache-Control") != "no-store" {
			t.Error("the answer may be stored")
		}
	})
	john := h.john()
	good := []string{"client_id", id, "redirect_uri", "http://127.0.0.1:50001/"}
	t.Run("DCR-01, CONS-08 the page leads with what is sure, and says that nobody has checked", func(t *testing.T) {
		page := john.Visit(h.Authorize(good...))
		text := page.Text()
		for _, want := range []string{"An app on this computer", "calls itself", "Visual Tool", "Registered itself; not checked by anyone", "Nobody has checked who makes it"} {
			if !strings.Contains(text, want) {
				t.Errorf("the page does not say %q: %s", want, text)
			}
		}
		if strings.Contains(text, "Registered by") || strings.Contains(text, "Identity checked") {
			t.Errorf("the page vouches for it: %s", text)
		}
		if page = john.Visit(h.Authorize("client_id", id)); !strings.Contains(page.Text(), "good.test") || strings.HasPrefix(page.Text(), "Visual") {
			t.Errorf("%s", page.Text())
		}
	})
	t.Run("DCR-01 from the registration to a tool and through a refresh", func(t *testing.T) {
		form := CodeForm(john.Code(h.Authorize(append(good, "scope", "mcp:read mcp:write")...)), good...)
		tokens := h.Post("/token", form)
		if !tokens.OK() || tokens.Str("scope") != "mcp:read" || !h.active(tokens.Str("access_token")) {
			t.Fatalf("%d %s", tokens.Status, tokens.Raw)
		}
		if again := h.Post("/token", RefreshForm(tokens.Str("refresh_token"), "client_id", id)); !again.OK() {
			t.Errorf("%d %s", again.Status, again.Raw)
		}
	})
	t.Run("CONS-05 people are asked each time", func(t *testing.T) {
		if page := john.Visit(h.Authorize(good...)); page.Left || !strings.Contains(page.Text(), "nobody has checked who makes this app") {
			t.Errorf("%s: %s", page.URL, page.Text())
		}
	})
	t.Run("CAUTH-13, DCR-02 a secret is made here and shown once", func(t *testing.T) {
		a := h.registers(members{"token_endpoint_auth_method": nil, "application_type": nil, "redirect_uris": []string{Redirect}})
		if a.Str("token_endpoint_auth_method") != "client_secret_basic" || a.Str("application_type") != "web" || len(a.Str("client_secret")) < 40 ||
			a.Body["client_secret_expires_at"] != float64(h.Now().Add(30*24*time.Hour).Unix()) {
			t.Fatal(a.Raw)
		}
		form := CodeForm(john.Code(h.Authorize("client_id", a.Str("client_id"))), "client_id", "")
		h.Post("/token", form, basic(a.Str("client_id"), "wrong")).check(t, 401, oauth.InvalidClient)
		if got := h.Post("/token", form, basic(a.Str("client_id"), a.Str("client_secret"))); !got.OK() {
			t.Errorf("%d %s", got.Status, got.Raw)
		}
		if b := h.tell(http.MethodGet, a.registration(), a.Str("registration_access_token"), nil); !b.OK() || b.Body["client_secret"] != nil {
			t.Errorf("shown again: %d %s", b.Status, b.Raw)
		}
	})
	t.Run("CAUTH-05, DCR-02 a client with keys", func(t *testing.T) {
		key := newKey(t, jose.ES256)
		a := h.registers(members{"token_endpoint_auth_method": "private_key_jwt", "jwks": keySet(t, key)})
		k := &keyed{h: h, id: a.Str("client_id"), keys: []jose.Private{key}}
		form := CodeForm(john.Code(h.Authorize("client_id", k.id)), append(with(k.assert(nil)), "client_id", k.id)...)
		if got := h.Post("/token", form); !got.OK() {
			t.Errorf("%d %s", got.Status, got.Raw)
		}
		h.Post("/token", CodeForm("any", "client_id", k.id)).check(t, 401, oauth.InvalidClient)
	})
	t.Run("DPOP-04, DCR-02 a client that binds itself to a key is held to it", func(t *testing.T) {
		a := h.registers(members{"dpop_bound_access_tokens": true})
		form := CodeForm(john.Code(h.Authorize("client_id", a.Str("client_id"))), "client_id", a.Str("client_id"))
		if got := h.Post("/token", form); got.OK() {
			t.Errorf("a token without a proof: %s", got.Raw)
		}
	})
	t.Run("DCR-04 it looks after its registration, with a new token each time", func(t *testing.T) {
		a := h.registers(nil)
		path, first := a.registration(), a.Str("registration_access_token")
		b := h.tell(http.MethodGet, path, first, nil)
		second := b.Str("registration_access_token")
		if !b.OK() || second == "" || second == first || b.Str("client_name") != "Visual Tool" {
			t.Fatalf("%d %s", b.Status, b.Raw)
		}
		h.tell(http.MethodGet, path, first, nil).check(t, 401, oauth.InvalidToken)
		c := h.tell(http.MethodPut, path, second, changed(theirs, members{"client_id": a.Str("client_id"), "redirect_uris": []string{"https://moved.test/cb"}, "contacts": nil}))
		if !c.OK() || c.Body["contacts"] != nil || !cmp.Equal(c.Body["redirect_uris"], any([]any{"https://moved.test/cb"})) || c.Body["client_id_issued_at"] != a.Body["client_id_issued_at"] {
			t.Fatalf("%d %s", c.Status, c.Raw)
		}
		if page := john.Visit(h.Authorize("client_id", a.Str("client_id"))); page.Left || page.Has("decision") {
			t.Errorf("the old redirect URI is good: %s", page.Text())
		}
		code := john.Code(h.Authorize("client_id", a.Str("client_id"), "redirect_uri", "https://moved.test/cb"))
		tokens := h.Post("/token", CodeForm(code, "client_id", a.Str("client_id"), "redirect_uri", "https://moved.test/cb"))
		if !tokens.OK() {
			t.Fatalf("%d %s", tokens.Status, tokens.Raw)
		}
		if d := h.tell(http.MethodDelete, path, c.Str("registration_access_token"), nil); d.Status != http.StatusNoContent {
			t.Fatalf("%d %s", d.Status, d.Raw)
		}
		if h.active(tokens.Str("access_token")) {
			t.Error("the client removed itself and its token is good")
		}
		if page := john.Visit(h.Authorize("client_id", a.Str("client_id"), "redirect_uri", "https://moved.test/cb")); page.Left || page.Has("decision") {
			t.Errorf("%s", page.Text())
		}
		h.tell(http.MethodGet, path, c.Str("registration_access_token"), nil).check(t, 401, oauth.InvalidToken)
	})
	t.Run("DCR-01 it expires unless it is used, and is not known then", func(t *testing.T) {
		used, unused := h.registers(nil), h.registers(nil)
		h.Later(29 * 24 * time.Hour)
		john := h.john()
		h.grant(john, "client_id", used.Str("client_id"))
		h.Later(2 * 24 * time.Hour)
		john = h.john()
		if page := john.Visit(h.Authorize("client_id", used.Str("client_id"))); !page.Has("decision") {
			t.Errorf("the one that was used: %s", page.Text())
		}
		page := john.Visit(h.Authorize("client_id", unused.Str("client_id")))
		if page.Left || page.Status != 400 || !strings.Contains(page.Text(), "not known here") {
			t.Errorf("the other: %d %s", page.Status, page.Text())
		}
		h.tell(http.MethodGet, unused.registration(), unused.Str("registration_access_token"), nil).check(t, 401, oauth.InvalidToken)
	})
	t.Run("POL-07, DCR-01 every registration leaves a trace with its name and its address", func(t *testing.T) {
		for _, e := range h.Events(audit.TypeClient) {
			if e.Code == "registered_itself" && e.Client == id && e.IP != "" && e.Ref != "" && e.Data["name"] == "Visual Tool" && e.Data["software_id"] == "tool" {
				return
			}
		}
		t.Error("no event")
	})
}

func TestRegistrationUnderThePolicy(t *testing.T) {
	t.Parallel()
	t.Run("DCR-01, META-01 it is off unless it is switched on", func(t *testing.T) {
		h := New(t)
		if a := h.tell(http.MethodPost, "/register", "", theirs); a.Status != http.StatusNotFound {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
		if got := h.Get("/.well-known/oauth-authorization-server").Str("registration_endpoint"); got != "" {
			t.Errorf("the metadata names %s", got)
		}
	})
	t.Run("POL-01 it is a stranger: the default decides", func(t *testing.T) {
		h := New(t, "", openly, "policy: {default: allow}", "policy: {default: ask}")
		id := h.registers(nil).Str("client_id")
		if page := h.john().Visit(h.Authorize("client_id", id)); page.Status != 403 || !strings.Contains(page.Text(), "not been approved yet") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
	t.Run("POL-01 a policy that refuses them says so at once", func(t *testing.T) {
		h := New(t, "", openly, "policy: {default: allow}", "policy: {default: allow, rules: [{dynamic: true, action: deny}]}")
		h.tell(http.MethodPost, "/register", "", theirs).check(t, 400, oauth.AccessDenied)
	})
	t.Run("POL-03 ceilings on methods and redirects", func(t *testing.T) {
		h := New(t, "", openly, "policy: {default: allow}", "policy: {default: allow, rules: [{dynamic: true, action: allow, methods: [private_key_jwt, client_secret_basic], loopback: false}]}")
		h.tell(http.MethodPost, "/register", "", theirs).check(t, 400, "invalid_client_metadata")
		h.tell(http.MethodPost, "/register", "", changed(theirs, members{"token_endpoint_auth_method": "client_secret_basic"})).check(t, 400, "invalid_redirect_uri")
		h.registers(members{"token_endpoint_auth_method": "client_secret_basic", "redirect_uris": []string{Redirect}})
	})
	t.Run("POL-09, DCR-02 what FAPI 2.0 would refuse later is refused at once", func(t *testing.T) {
		h := New(t, "", openly, "policy: {default: allow}", "policy: {default: allow, rules: [{dynamic: true, action: allow, fapi: true}]}")
		good := changed(theirs, members{"token_endpoint_auth_method": "private_key_jwt", "jwks": keySet(t, newKey(t, jose.ES256)), "redirect_uris": []string{Redirect}})
		for code, spoiled := range map[string]members{
			"invalid_redirect_uri":    {"redirect_uris": []string{Redirect, "http://127.0.0.1/"}},
			"invalid_client_metadata": {"token_endpoint_auth_signing_alg": "RS256"},
		} {
			h.tell(http.MethodPost, "/register", "", changed(good, spoiled)).check(t, 400, oauth.Code(code))
		}
		h.tell(http.MethodPost, "/register", "", changed(good, members{"token_endpoint_auth_method": "client_secret_basic", "jwks": nil})).check(t, 400, "invalid_client_metadata")
		if a := h.tell(http.MethodPost, "/register", "", good); a.Status != http.StatusCreated {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
}
