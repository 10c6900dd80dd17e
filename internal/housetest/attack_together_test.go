package housetest

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// together sends one request with all of the edits.
func together(edits ...func(*http.Request)) func(*http.Request) {
	return func(r *http.Request) {
		for _, e := range edits {
			e(r)
		}
	}
}

// object is a signed request of the attested app, with changes.
func (a *attested) object(changes members) string {
	a.h.TB.Helper()
	claims := members{"iss": a.id, "aud": Issuer, "exp": a.h.Now().Unix() + 300}
	for name, v := range a.h.pushForm("client_id", a.id, "redirect_uri", "https://native.test/cb") {
		claims[name] = v[0]
	}
	return sign(a.h.TB, a.backend, oauth.TypRequestObject, changed(claims, changes))
}

// TestEverythingTogether pushes a signed request with an attestation and a DPoP
// proof, and leaves out one of the proofs on each of the legs that follow.
func TestEverythingTogether(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, a, key := h.john(), h.attested(nil), newKey(t, jose.ES256)
	at := func(path string, k jose.Private) func(*http.Request) {
		return h.proof(k, members{"htu": Issuer + path})
	}
	twin := *a
	twin.instance = newKey(t, jose.ES256)
	push := func(object string, edits ...func(*http.Request)) Answer {
		return h.Post("/par", url.Values{"client_id": {a.id}, "request": {object}, "state": {"evil"}}, edits...)
	}
	code := func(t *testing.T) string {
		t.Helper()
		return john.Code(pushed(a.id, push(a.object(nil), a.good(), at("/par", key)).uri(t), "state", "evil"))
	}
	c := code(t)
	for name, edit := range map[string]func(*http.Request){
		"ATT-09: of another installation":              together(twin.good(), at("/token", key)),
		"AUTHZ-28: with another DPoP key":              together(a.good(), at("/token", newKey(t, jose.ES256))),
		"AUTHZ-28: without a DPoP proof":               a.good(),
		"AUTHZ-28: with the attested key for the DPoP": together(a.good(), at("/token", a.instance)),
	} {
		t.Run("PAR-10, "+name, func(t *testing.T) {
			h.Post("/token", a.form(c), edit).check(t, 400, oauth.InvalidGrant)
		})
	}
	t.Run("PAR-10, CAUTH-01: with the proof and no attestation", func(t *testing.T) {
		h.Post("/token", a.form(c), at("/token", key)).check(t, 401, oauth.InvalidClient)
	})
	got := h.Post("/token", a.form(c), together(a.good(), at("/token", key)))
	t.Run("PAR-10, ATT-09, DPOP-02: with everything", func(t *testing.T) {
		if !got.OK() || got.Str("token_type") != "DPoP" {
			t.Fatal(got.Status, got.Raw)
		}
	})
	refresh := func() url.Values { return RefreshForm(got.Str("refresh_token"), "client_id", a.id) }
	t.Run("ATT-08, DPOP-02: what began so goes on so", func(t *testing.T) {
		h.Post("/token", refresh(), together(twin.good(), at("/token", key))).check(t, 400, oauth.InvalidGrant)
		h.Post("/token", refresh(), a.good()).check(t, 400, oauth.InvalidGrant)
		h.Post("/token", refresh(), at("/token", key)).check(t, 401, oauth.InvalidClient)
		if b := h.Post("/token", refresh(), together(a.good(), at("/token", key))); !b.OK() || b.Str("token_type") != "DPoP" {
			t.Error(b.Status, b.Raw)
		}
	})
	for name, r := range map[string]struct {
		object string
		edit   func(*http.Request)
		status int
		code   oauth.Code
	}{
		"AUTHZ-28: dpop_jkt in it is of another key than the proof": {a.object(members{"dpop_jkt": key.Public().Thumbprint()}), together(a.good(), at("/par", newKey(t, jose.ES256))), 400, oauth.InvalidDPoPProof},
		"DPOP-01: the proof is for the token endpoint":              {a.object(nil), together(a.good(), at("/token", key)), 400, oauth.InvalidDPoPProof},
		"PAR-10: it is of another client":                           {a.object(members{"client_id": ClientID}), together(a.good(), at("/par", key)), 400, oauth.InvalidRequestObject},
		"AUTHZ-25: the installation signed it and not the client":   {sign(t, a.instance, oauth.TypRequestObject, members{"iss": a.id, "aud": Issuer, "exp": h.Now().Unix() + 300, "client_id": a.id}), together(a.good(), at("/par", key)), 400, oauth.InvalidRequestObject},
	} {
		t.Run("PAR-10, "+name, func(t *testing.T) {
			push(r.object, r.edit).check(t, r.status, r.code)
		})
	}
	t.Run("DPOP-01, PAR-03: a proof pushes once", func(t *testing.T) {
		proof := at("/par", key)
		push(a.object(nil), a.good(), proof).uri(t)
		push(a.object(nil), a.good(), proof).check(t, 400, oauth.InvalidDPoPProof)
	})
}

// TestWhoeverShowsAKeyLater begins with no key and shows one at a refresh.
func TestWhoeverShowsAKeyLater(t *testing.T) {
	t.Parallel()
	h := New(t)
	a := h.attested(members{"token_endpoint_auth_method": nil, "token_endpoint_auth_methods_supported": []string{oauth.MethodNone, oauth.MethodAttestation}})
	key := newKey(t, jose.ES256)
	first := h.Post("/token", a.form(a.code(h.john())))
	if !first.OK() {
		t.Fatal(first.Status, first.Raw)
	}
	refresh := func(b Answer, edits ...func(*http.Request)) Answer {
		return h.Post("/token", RefreshForm(b.Str("refresh_token"), "client_id", a.id), together(edits...))
	}
	bound := refresh(first, h.proof(key, nil))
	t.Run("DPOP-02, attack DP-06: its refresh token belongs to the DPoP key from then on", func(t *testing.T) {
		if !bound.OK() || bound.Str("token_type") != "DPoP" {
			t.Fatal(bound.Status, bound.Raw)
		}
		refresh(bound).check(t, 400, oauth.InvalidGrant)
		refresh(bound, h.proof(newKey(t, jose.ES256), nil)).check(t, 400, oauth.InvalidGrant)
	})
	attested := refresh(bound, a.good(), h.proof(key, nil))
	t.Run("ATT-08: and to the attested installation", func(t *testing.T) {
		if !attested.OK() {
			t.Fatal(attested.Status, attested.Raw)
		}
		twin := *a
		twin.instance = newKey(t, jose.ES256)
		refresh(attested, h.proof(key, nil)).check(t, 400, oauth.InvalidGrant)
		refresh(attested, twin.good(), h.proof(key, nil)).check(t, 400, oauth.InvalidGrant)
		if b := refresh(attested, a.good(), h.proof(key, nil)); !b.OK() {
			t.Error(b.Status, b.Raw)
		}
	})
}

// TestOneProofForEverything is the combined mode on the leg where a request is
// pushed.
func TestOneProofForEverything(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, a := h.john(), h.attested(nil)
	nonce := h.Post("/challenge", nil).Header.Get("DPoP-Nonce")
	both := func(path string, k jose.Private) func(*http.Request) {
		return together(header("OAuth-Client-Attestation", a.attestation(nil)), h.proof(k, members{"htu": Issuer + path, "nonce": nonce}))
	}
	form := func(more ...string) url.Values {
		return h.pushForm(slices.Concat([]string{"client_id", a.id, "redirect_uri", "https://native.test/cb"}, more)...)
	}
	t.Run("ATT-10, AUTHZ-28 dpop_jkt has no place beside it, plain or signed", func(t *testing.T) {
		jkt := a.instance.Public().Thumbprint()
		h.Post("/par", form("dpop_jkt", jkt), both("/par", a.instance)).check(t, 400, oauth.InvalidRequest)
		h.Post("/par", url.Values{"client_id": {a.id}, "request": {a.object(members{"dpop_jkt": jkt})}}, both("/par", a.instance)).check(t, 400, oauth.InvalidRequest)
	})
	t.Run("ATT-10, ATT-01, DPOP-03 the nonce is told where it is missing", func(t *testing.T) {
		b := h.Post("/par", form(), header("OAuth-Client-Attestation", a.attestation(nil)), h.proof(a.instance, members{"htu": Issuer + "/par"}))
		if b.check(t, 400, oauth.UseDPoPNonce); b.Header.Get("DPoP-Nonce") == "" {
			t.Error("no nonce")
		}
	})
	code := john.Code(pushed(a.id, h.Post("/par", form(), both("/par", a.instance)).uri(t)))
	t.Run("ATT-10, ATT-09 the code belongs to the installation, in either mode", func(t *testing.T) {
		twin := *a
		twin.instance = newKey(t, jose.ES256)
		h.Post("/token", a.form(code), twin.good()).check(t, 400, oauth.InvalidGrant)
		h.Post("/token", a.form(code), a.good()).check(t, 400, oauth.InvalidGrant) // no proof of the key that it was pushed with
		if b := h.Post("/token", a.form(code), both("/token", a.instance)); !b.OK() || b.Str("token_type") != "DPoP" {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
	})
}

// TestADeviceWithEverything is the device flow with an attestation, a DPoP proof, a
// resource and particulars.
func TestADeviceWithEverything(t *testing.T) {
	t.Parallel()
	h := New(t, "policy: {default: allow}", "policy: {default: allow, rules: [{host: native.test, action: allow}]}",
		"    default_scopes: [mcp:read]\n", `    default_scopes: [mcp:read]
    details: [{type: folder, title: work in one folder, scope: "mcp:read", fields: [{name: path, title: Folder, required: true}]}]
`)
	john, key := h.john(), newKey(t, jose.ES256)
	a := h.attested(members{"grant_types": []string{oauth.GrantDeviceCode, oauth.GrantRefreshToken}, "redirect_uris": nil, "response_types": nil})
	const folder = `[{"path":"/Documents","type":"folder"}]`
	at := func(path string, k jose.Private) func(*http.Request) {
		return together(a.good(), h.proof(k, members{"htu": Issuer + path}))
	}
	ask := func(changes ...string) url.Values {
		return change(url.Values{"client_id": {a.id}, "scope": {"mcp:read"}, "resource": {"https://mcp.test/mcp/"}, "authorization_details": {folder}}, changes)
	}
	start := func(changes ...string) Answer {
		return h.Post("/device_authorization", ask(changes...), at("/device_authorization", key))
	}
	start("authorization_details", `[{"type":"payment"}]`).check(t, 400, oauth.InvalidDetails)
	start("resource", "https://other.test/").check(t, 400, oauth.InvalidTarget)
	h.Post("/device_authorization", ask(), h.proof(key, members{"htu": Issuer + "/device_authorization"})).check(t, 401, oauth.InvalidClient)
	d := start()
	if !d.OK() {
		t.Fatal(d.Status, d.Raw)
	}
	page := john.enter(d.Str("user_code"))
	t.Run("DEV-05, AUTHZ-26 the page says which folder", func(t *testing.T) {
		if !strings.Contains(page.Text(), "/Documents") {
			t.Fatal(page.Text())
		}
	})
	john.connect(page, "allow")
	poll := func(edit func(*http.Request), changes ...string) Answer {
		h.Later(10 * time.Second)
		return h.Post("/token", PollForm(d.Str("device_code"), slices.Concat([]string{"client_id", a.id}, changes)...), edit)
	}
	twin := *a
	twin.instance = newKey(t, jose.ES256)
	t.Run("DEV-06, ATT-08 the code belongs to the installation and to its key", func(t *testing.T) {
		poll(together(twin.good(), h.proof(key, nil))).check(t, 400, oauth.InvalidGrant)
		poll(at("/token", newKey(t, jose.ES256))).check(t, 400, oauth.InvalidGrant)
		poll(a.good()).check(t, 400, oauth.InvalidGrant)
		poll(h.proof(key, nil)).check(t, 401, oauth.InvalidClient)
	})
	t.Run("DEV-07, AUTHZ-26 another resource and other particulars are not had, and cost nothing", func(t *testing.T) {
		poll(at("/token", key), "resource", "https://other.test/").check(t, 400, oauth.InvalidTarget)
		poll(at("/token", key), "authorization_details", strings.Replace(folder, "/Doc", "/", 1)).check(t, 400, oauth.InvalidDetails)
	})
	b := poll(at("/token", key), "resource", Resource)
	t.Run("DEV-07, AUTHZ-26, DPOP-02 the token is for that resource and folder, and bound", func(t *testing.T) {
		raw, err := json.Marshal(b.Body["authorization_details"])
		if err != nil || !b.OK() || b.Str("token_type") != "DPoP" || string(raw) != folder || !h.active(b.Str("access_token")) {
			t.Fatal(b.Status, b.Raw, string(raw), err)
		}
	})
	t.Run("ATT-08, DPOP-02 and so is what comes after it", func(t *testing.T) {
		form := func() url.Values { return RefreshForm(b.Str("refresh_token"), "client_id", a.id) }
		h.Post("/token", form(), together(twin.good(), h.proof(key, nil))).check(t, 400, oauth.InvalidGrant)
		h.Post("/token", form(), a.good()).check(t, 400, oauth.InvalidGrant)
		if c := h.Post("/token", form(), at("/token", key)); !c.OK() || c.Body["authorization_details"] == nil {
			t.Error(c.Status, c.Raw)
		}
	})
}

// TestIdentityAssertionsOfAKey is an identity assertion that belongs to a DPoP key,
// at the whole server.
func TestIdentityAssertionsOfAKey(t *testing.T) {
	t.Parallel()
	h := agents(t)
	k, idpKey, key := h.keyed(agentDocument, jose.ES256), newKey(t, jose.ES256), newKey(t, jose.ES256)
	h.Net.Host("idp.test").ServeJSON("/jwks.json", keySet(t, idpKey))
	form := h.assertion(idpKey, members{"cnf": members{"jkt": key.Public().Thumbprint()}})
	t.Run("XCH-09 without the proof, and with another key", func(t *testing.T) {
		k.post("/token", form).check(t, 400, oauth.InvalidGrant)
		k.post("/token", form, h.proof(newKey(t, jose.ES256), nil)).check(t, 400, oauth.InvalidGrant)
	})
	t.Run("XCH-09 a key in words that are not understood", func(t *testing.T) {
		k.post("/token", h.assertion(idpKey, members{"cnf": members{"jwk": key.Public()}}), h.proof(key, nil)).check(t, 400, oauth.InvalidGrant)
	})
	var token string
	t.Run("XCH-09, XCH-04, DPOP-02 with it, once", func(t *testing.T) {
		a := k.post("/token", form, h.proof(key, nil))
		if token = a.Str("access_token"); !a.OK() || a.Str("token_type") != "DPoP" || a.Body["refresh_token"] != nil {
			t.Fatal(a.Status, a.Raw)
		}
		k.post("/token", form, h.proof(key, nil)).check(t, 400, oauth.InvalidGrant)
	})
	swap := url.Values{"grant_type": {oauth.GrantTokenExchange}, "subject_token": {token}, "subject_token_type": {oauth.TokenTypeAccess}, "resource": {notes}}
	t.Run("XCH-12, DPOP-02 the bound token is exchanged for a bound one only", func(t *testing.T) {
		k.post("/token", swap).check(t, 400, oauth.InvalidRequest)
		own := newKey(t, jose.ES256)
		if a := k.post("/token", swap, h.proof(own, nil)); !a.OK() || a.Str("token_type") != "DPoP" || a.Str("scope") != "notes:read" {
			t.Error(a.Status, a.Raw)
		}
	})
	for name, changes := range map[string][]string{
		"more than it is worth":      {"scope", "notes:read mcp:write"},
		"a scope of nobody":          {"scope", "admin"},
		"particulars of nobody":      {"authorization_details", `[{"type":"x"}]`},
		"two targets":                {"audience", Resource},
		"a target of nobody":         {"resource", "https://evil.test/"},
		"an actor of its own choice": {"actor_token", token, "actor_token_type", oauth.TokenTypeAccess},
		"another kind of token":      {"requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"},
		"an ID token in its place":   {"subject_token_type", "urn:ietf:params:oauth:token-type:id_token"},
	} {
		t.Run("XCH-12 refused: "+name, func(t *testing.T) {
			if a := k.post("/token", change(url.Values{
				"grant_type": swap["grant_type"], "subject_token": swap["subject_token"], "subject_token_type": swap["subject_token_type"], "resource": swap["resource"],
			}, changes), h.proof(key, nil)); a.Status != 400 {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
	t.Run("XCH-11 no assertion and no token in an address: they are not read there", func(t *testing.T) {
		before := h.assertion(idpKey, nil)
		for name, at := range map[string]string{"assertion": "/token?" + before.Encode(), "subject_token": "/token?" + swap.Encode()} {
			if a := k.post(at, url.Values{"grant_type": before["grant_type"]}); a.Status != 400 || a.Str("access_token") != "" {
				t.Errorf("%s: %d %s", name, a.Status, a.Raw)
			}
		}
		if a := k.post("/token", before); !a.OK() {
			t.Errorf("it was not used up: %d %s", a.Status, a.Raw)
		}
	})
}

// notebook is a writer for what several goroutines log.
type notebook struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (n *notebook) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *notebook) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// TestNothingThatIsPresentedIsLogged presents assertions and tokens, good and bad,
// wherever they can be presented, and reads the log.
func TestNothingThatIsPresentedIsLogged(t *testing.T) {
	t.Parallel()
	h, logs := agents(t), &notebook{}
	h.Server.Close()
	h.Log = logs
	h.Start(agentRules...)
	k, idpKey, key := h.keyed(agentDocument, jose.ES256), newKey(t, jose.ES256), newKey(t, jose.ES256)
	h.Net.Host("idp.test").ServeJSON("/jwks.json", keySet(t, idpKey))
	john := h.john()
	tokens := h.Post("/token", CodeForm(john.Code(h.Authorize("scope", "openid mcp:read"))))
	if !tokens.OK() {
		t.Fatal(tokens.Status, tokens.Raw)
	}
	var shown []string
	present := func(form url.Values, edit ...func(*http.Request)) {
		assertion := k.assert(nil)
		for _, v := range form {
			shown = append(shown, v...)
		}
		shown = append(shown, assertion)
		for _, path := range []string{"/token", "/par", "/device_authorization", "/revoke", "/introspect", "/userinfo", "/logout", "/token?" + form.Encode(), "/par?" + form.Encode()} {
			h.Post(path, change(maps.Clone(form), with(assertion)), edit...)
		}
		h.Get("/userinfo?" + form.Encode())
		h.Get("/logout?" + form.Encode())
		h.Get("/authorize?" + form.Encode())
	}
	for _, spoiled := range []members{
		nil, {"aud": "https://evil.test"}, {"client_id": ClientID}, {"jti": nil}, {"exp": 1}, {"resource": 7}, {"scope": "\""}, {"sub": nil}, {"iss": "https://evil.test"}, {"cnf": members{}},
	} {
		form := h.assertion(idpKey, spoiled)
		present(form)
		raw := form.Get("assertion")
		present(url.Values{"grant_type": form["grant_type"], "assertion": {raw[:len(raw)-8] + "AAAAAAAA"}})
		present(url.Values{"grant_type": form["grant_type"], "assertion": {raw + ".AAAA"}, "client_id": {k.id}, "request": {raw}, "id_token_hint": {raw}})
	}
	for _, name := range []string{"access_token", "refresh_token", "id_token"} {
		token := tokens.Str(name)
		present(url.Values{
			"grant_type": {oauth.GrantTokenExchange}, "subject_token": {token}, "subject_token_type": {oauth.TokenTypeAccess}, "resource": {notes},
			"token": {token}, "access_token": {token}, "id_token_hint": {token}, "refresh_token": {token}, "device_code": {token}, "code": {token},
		}, header("Authorization", "DPoP "+token), h.proof(key, nil))
		present(url.Values{"grant_type": {oauth.GrantRefreshToken}, "refresh_token": {token}}, header("Authorization", "Bearer "+token))
	}
	h.Server.Close()
	text := logs.String()
	if n := strings.Count(text, "msg=request"); n < 300 {
		t.Fatalf("%d lines", n)
	}
	t.Run("XCH-11, attack TK-13: no part of an assertion or of a token stands in the log", func(t *testing.T) {
		for _, s := range shown {
			for part := range strings.SplitSeq(s, ".") {
				if at := strings.Index(text, part); len(part) > 40 && !strings.Contains(part, ":") && at >= 0 {
					t.Fatalf("the log holds %s", text[max(0, at-400):at+60])
				}
			}
		}
	})
}
