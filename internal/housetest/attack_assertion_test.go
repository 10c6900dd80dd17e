package housetest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

func b64(v any) string {
	raw, ok := v.([]byte)
	if !ok {
		var err error
		if raw, err = json.Marshal(v); err != nil {
			panic(err)
		}
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// reheaded signs nothing: it puts another header before an assertion.
func reheaded(assertion string, head map[string]any) string {
	_, rest, _ := strings.Cut(assertion, ".")
	return b64(head) + "." + rest
}

// hmacked is an assertion signed with a shared secret.
func hmacked(claims map[string]any, secret []byte) string {
	s := b64(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." + b64(claims)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(s))
	return s + "." + b64(mac.Sum(nil))
}

// TestAssertions presents each bad assertion with a good code, which survives
// them all.
func TestAssertions(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	k := h.keyed(nil, jose.ES256, jose.RS256)
	attacker := newKey(t, jose.ES256)
	access := h.grant(john).Str("access_token")
	code := k.code(john)
	if a := k.redeem(k.code(john), k.assert(nil)); !a.OK() { // the keys are known from here on
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	now := h.Now().Unix()
	set := func(name string, v any) string { return k.assert(map[string]any{name: v}) }
	good := k.assert(nil)
	public, err := json.Marshal(k.keys[1].Public())
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	before := h.fetches()
	for _, r := range []struct {
		row, assertion string
		status         int
	}{
		{"CAUTH-04, attack CA-02: aud is the token endpoint", set("aud", Issuer+"/token"), 401},
		{"CAUTH-04, attack CA-02: aud holds us and another", set("aud", []string{Issuer, "https://evil.test"}), 401},
		{"CAUTH-04, attack CA-02: aud is another server", set("aud", "https://evil.test"), 401},
		{"CAUTH-04, attack CA-02: aud is the issuer with a slash", set("aud", Issuer+"/"), 401},
		{"CAUTH-04, attack CA-02: no aud", set("aud", nil), 401},
		{"CAUTH-04, attack CA-02: empty list", set("aud", []string{}), 401},
		{"CAUTH-03, attack CA-04: iss and sub differ", set("sub", "https://evil.test/c.json"), 401},
		{"CAUTH-03, attack CA-04: iss and sub are another client", k.assert(map[string]any{"iss": ClientID, "sub": ClientID}), 401},
		{"CAUTH-03, attack CA-04: no iss", set("iss", nil), 401},
		{"CAUTH-05, attack CA-05: no exp", set("exp", nil), 401},
		{"CAUTH-05, attack CA-05: exp in ten years", set("exp", now+10*365*86400), 401},
		{"CAUTH-05, attack CA-05: exp a second ago", set("exp", now-1), 401},
		{"CAUTH-05, attack CA-05: exp as a string", set("exp", "soon"), 401},
		{"CAUTH-05, attack CA-05: exp is 1e300", set("exp", 1e300), 401},
		{"CAUTH-05, attack CA-05: exp is negative", set("exp", -5), 401},
		{"CAUTH-05, attack CA-05: nbf in ten minutes", set("nbf", now+600), 401},
		{"CAUTH-05, attack CA-05: iat in ten minutes", set("iat", now+600), 401},
		{"CAUTH-06, attack CA-07: no jti", set("jti", nil), 401},
		{"CAUTH-06, attack CA-07: empty jti", set("jti", ""), 401},
		{"CAUTH-06, attack CA-07: jti of 257 bytes", set("jti", strings.Repeat("j", 257)), 401},
		{"CAUTH-06, attack CA-07: jti of 64 kB", set("jti", strings.Repeat("j", 64<<10)), 413},
		{"attack CA-09: 1 MiB", good + strings.Repeat("A", 1<<20), 413},
		{"attack CA-09: 20,000 bytes", good + strings.Repeat("A", 20_000), 400},
		{"attack CA-09: dots without end", strings.Repeat(".", 15_000), 401},
		{"CAUTH-09, attack CA-10: typ at+jwt", sign(t, k.keys[0], "at+jwt", k.claims(nil)), 401},
		{"CAUTH-09, attack CA-10: typ dpop+jwt", sign(t, k.keys[0], "dpop+jwt", k.claims(nil)), 401},
		{"CAUTH-09, attack CA-10: an access token", access, 401},
		{"CAUTH-08, attack CA-11: crit", reheaded(good, map[string]any{"alg": "ES256", "kid": k.keys[0].KID(), "crit": []string{"b64"}, "b64": false}), 401},
		{"CAUTH-08, attack CA-11: unknown crit", reheaded(good, map[string]any{"alg": "ES256", "kid": k.keys[0].KID(), "crit": []string{"x"}, "x": 1}), 401},
		{"CAUTH-08, attack CA-11: alg twice", b64([]byte(`{"alg":"ES256","alg":"none","kid":"`+k.keys[0].KID()+`"}`)) + "." + rest, 401},
		{"attack CA-11: five parts", good + ".a.b", 401},
		{"attack CA-11: the JSON form", `{"protected":"` + head + `","payload":"` + payload + `","signature":"` + signature + `"}`, 401},
		{"attack CA-11: nested", sign(t, k.keys[0], "", map[string]any{"jwt": good}), 401},
		{"CAUTH-07, attack JK-03: alg none", reheaded(strings.TrimSuffix(good, signature), map[string]any{"alg": "none"}), 401},
		{"CAUTH-07, attack JK-03: HS256 with the public key", hmacked(k.claims(nil), public), 401},
		{"CAUTH-07: another header", reheaded(good, map[string]any{"alg": "ES256", "kid": k.keys[0].KID(), "typ": "JWT"}), 401},
		{"CAUTH-07, attack JK-08: the RSA key and another algorithm", reheaded(sign(t, k.keys[1], "", k.claims(nil)), map[string]any{"alg": "PS256", "kid": k.keys[1].KID()}), 401},
		{"CAUTH-07: an EC kid with an RSA signature", reheaded(sign(t, k.keys[1], "", k.claims(nil)), map[string]any{"alg": "RS256", "kid": k.keys[0].KID()}), 401},
		{"CAUTH-10: somebody else's key", sign(t, attacker, "", k.claims(nil)), 401},
		{"CAUTH-08, attack JK-05: keys in the header", reheaded(sign(t, attacker, "", k.claims(nil)), map[string]any{
			"alg": "ES256", "jku": "https://evil.test/jwks.json", "x5u": "https://evil.test/x", "jwk": attacker.Public(), "kid": k.keys[0].KID()}), 401},
		{"attack JK-06: kid is a path", reheaded(good, map[string]any{"alg": "ES256", "kid": "../../../../dev/null"}), 401},
		{"attack JK-06: kid is SQL", reheaded(good, map[string]any{"alg": "ES256", "kid": "' OR 1=1--"}), 401},
		{"attack JK-06: kid with line breaks", reheaded(good, map[string]any{"alg": "ES256", "kid": "a\r\nb"}), 401},
		{"attack JK-06: kid of 10 kB", reheaded(good, map[string]any{"alg": "ES256", "kid": strings.Repeat("k", 10_000)}), 401},
		{"attack CA-11: no JWT at all", "hello", 401},
	} {
		t.Run(r.row, func(t *testing.T) {
			want := oauth.InvalidClient
			if r.status != 401 {
				want = oauth.InvalidRequest
			}
			a := k.redeem(code, r.assertion)
			a.check(t, r.status, want)
			if r.status == 401 && a.Str("rule") != "CAUTH-17" {
				t.Errorf("CAUTH-17: the answer tells which check failed: %s", a.Raw)
			}
		})
	}
	t.Run("CAUTH-12, attack JK-05: no more than one of them made us look for keys", func(t *testing.T) {
		if n := h.fetches() - before; n > 1 || h.Net.Host("evil.test").Count("*") != 0 {
			t.Errorf("%d connections", n)
		}
	})
	for _, r := range []struct {
		row     string
		changes []string
		edit    func(*http.Request)
		status  int
		code    oauth.Code
	}{
		{"CAUTH-01, attack CA-12: no assertion", []string{"client_assertion", "", "client_assertion_type", ""}, nil, 401, oauth.InvalidClient},
		{"CAUTH-14, attack CA-12: a secret instead", []string{"client_assertion", "", "client_assertion_type", "", "client_secret", "x"}, nil, 401, oauth.InvalidClient},
		{"CAUTH-02, attack CA-12: an assertion and Basic", nil, basic(keyedID, "x"), 400, oauth.InvalidRequest},
		{"CAUTH-02: an assertion and a secret", []string{"client_secret", "x"}, nil, 400, oauth.InvalidRequest},
		{"CAUTH-03: another assertion type", []string{"client_assertion_type", "urn:x"}, nil, 401, oauth.InvalidClient},
		{"CAUTH-03: no assertion type", []string{"client_assertion_type", ""}, nil, 401, oauth.InvalidClient},
		{"CAUTH-03, attack CA-04: client_id of another client", []string{"client_id", ClientID}, nil, 401, oauth.InvalidClient},
	} {
		t.Run(r.row, func(t *testing.T) {
			var edit []func(*http.Request)
			if r.edit != nil {
				edit = append(edit, r.edit)
			}
			form := change(CodeForm(code, "client_id", k.id, "redirect_uri", "https://keyed.test/cb"), append(with(k.assert(nil)), r.changes...))
			h.Post("/token", form, edit...).check(t, r.status, r.code)
		})
	}
	t.Run("CAUTH-03, mistake 37: the code is still good, and client_id may be left out", func(t *testing.T) {
		if a := k.redeem(code, k.assert(nil), "client_id", ""); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("CAUTH-04, mistake 34: the Host header does not make an audience", func(t *testing.T) {
		a := h.Post("/revoke", change(nil2("token", "x"), with(set("aud", "https://evil.test"), "client_id", k.id)), func(r *http.Request) {
			r.Host = "evil.test"
			r.Header.Set("X-Forwarded-Host", "evil.test")
		})
		a.check(t, 401, oauth.InvalidClient)
	})
	h.Server.Close()
	t.Run("CAUTH-17: the audit says which check failed", func(t *testing.T) {
		seen := map[string]bool{}
		for _, e := range h.Events(audit.TypeRefusal) {
			seen[e.Rule] = true
		}
		for _, rule := range []string{"CAUTH-03", "CAUTH-04", "CAUTH-05", "CAUTH-06", "CAUTH-07"} {
			if !seen[rule] {
				t.Errorf("%s was never recorded", rule)
			}
		}
	})
}

func TestAssertionsThatAreGood(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	k := h.keyed(nil, jose.ES256, jose.RS256, jose.PS256, jose.EdDSA)
	code := k.code(john)
	if a := k.redeem(code, k.assert(nil)); !a.OK() {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	auth := func(assertion string) Answer {
		return h.Post("/revoke", change(nil2("token", "unknown"), with(assertion)))
	}
	for _, key := range k.keys {
		t.Run("CAUTH-07: "+key.Algorithm(), func(t *testing.T) {
			if a := auth(sign(t, key, "", k.claims(nil))); !a.OK() {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
	for _, typ := range []string{"", "JWT", "client-authentication+jwt", "oauth-client-auth+jwt"} {
		t.Run("CAUTH-09: typ "+typ, func(t *testing.T) {
			if a := auth(sign(t, k.keys[0], typ, k.claims(nil))); !a.OK() {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
	t.Run("CAUTH-04: aud as a list of one", func(t *testing.T) {
		if a := auth(k.assert(map[string]any{"aud": []string{Issuer}})); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("CAUTH-06, mistake 21, attack CA-01: an assertion is good once", func(t *testing.T) {
		s := k.assert(nil)
		if a := auth(s); !a.OK() {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		auth(s).check(t, 401, oauth.InvalidClient)
		h.Later(59 * time.Second)
		auth(s).check(t, 401, oauth.InvalidClient)
		auth(k.assert(map[string]any{"jti": "the same again"})).check(t, 200, "")
		auth(k.assert(map[string]any{"jti": "the same again"})).check(t, 401, oauth.InvalidClient)
	})
	t.Run("CAUTH-06, attack CA-01: and once even over a restart", func(t *testing.T) {
		s := k.assert(nil)
		auth(s).check(t, 200, "")
		h.Server.Close()
		h.Start()
		auth(s).check(t, 401, oauth.InvalidClient)
	})
	t.Run("CAUTH-06, attack CA-08: two clients may use the same jti", func(t *testing.T) {
		john := h.john()
		doc := map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://keyed.test/jwks.json", "redirect_uris": []string{"https://keyed.test/cb"}}
		id := h.Net.Host("twin.test").ServeClient("/c.json", doc)
		twin := &keyed{h: h, id: id, keys: k.keys}
		if a := twin.redeem(twin.code(john), twin.assert(map[string]any{"jti": "shared"})); !a.OK() {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		auth(k.assert(map[string]any{"jti": "shared"})).check(t, 200, "")
	})
	t.Run("attack JK-13: a client with the jwks_uri of another cannot use its assertions", func(t *testing.T) {
		john := h.john()
		thief := h.Net.Host("thief.test").ServeClient("/c.json", map[string]any{
			"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://keyed.test/jwks.json", "redirect_uris": []string{"https://keyed.test/cb"}})
		code := (&keyed{h: h, id: thief}).code(john)
		form := CodeForm(code, with(k.assert(nil), "client_id", thief, "redirect_uri", "https://keyed.test/cb")...)
		h.Post("/token", form).check(t, 401, oauth.InvalidClient)
		h.Post("/token", change(form, with(k.assert(nil), "client_id", ""))).check(t, 400, oauth.InvalidGrant)
	})
}

func TestKeySets(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, host := h.john(), h.Net.Host("keyed.test")
	k := h.keyed(nil, jose.ES256)
	old, fresh := k.keys[0], newKey(t, jose.ES256)
	if a := k.redeem(k.code(john), k.assert(nil)); !a.OK() {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	auth := func(key jose.Private) Answer {
		return h.Post("/revoke", change(nil2("token", "unknown"), with(sign(t, key, "", k.claims(nil)))))
	}
	t.Run("CACHE-19, CAUTH-12, attack JK-09, mistake 21: made-up kids cause one fetch in 30 seconds", func(t *testing.T) {
		h.Later(31 * time.Second)
		before := host.Count("/jwks.json")
		for range 100 {
			auth(newKey(t, jose.EdDSA)).check(t, 401, oauth.InvalidClient)
		}
		if n := host.Count("/jwks.json") - before; n > 1 {
			t.Errorf("%d fetches", n)
		}
		auth(old).check(t, 200, "")
	})
	t.Run("CACHE-18, CACHE-19, attack JK-11: a new key is accepted within one fetch, and the old one is refused once it is gone", func(t *testing.T) {
		h.Later(31 * time.Second)
		k.publish(old, fresh)
		auth(fresh).check(t, 200, "")
		auth(old).check(t, 200, "")
		k.publish(fresh)
		h.Later(2 * time.Hour)
		auth(old).check(t, 401, oauth.InvalidClient)
		auth(fresh).check(t, 200, "")
	})
	t.Run("attack JK-12: while the host fails, the last good set is used", func(t *testing.T) {
		for _, bad := range []cimdtest.Response{{Status: 500}, cimdtest.JSON(map[string]any{"keys": []any{}}), cimdtest.JSON("no set")} {
			host.Serve("/jwks.json", bad)
			h.Later(62 * time.Minute)
			auth(newKey(t, jose.EdDSA)).check(t, 401, oauth.InvalidClient)
			k.publish(fresh)
			h.Later(2 * time.Minute)
			auth(fresh).check(t, 200, "")
		}
		host.Down(true)
		h.Later(65 * time.Minute)
		auth(fresh).check(t, 200, "")
		host.Down(false)
	})
	t.Run("attack JK-12: a key set that is gone is withdrawn", func(t *testing.T) {
		h.Later(65 * time.Minute)
		auth(fresh).check(t, 200, "")
		host.Remove("/jwks.json")
		h.Later(65 * time.Minute)
		auth(fresh).check(t, 401, oauth.InvalidClient)
	})
	t.Run("DOC-05, CAUTH-11, attack JK-07, attack JK-08: bad keys are dropped one by one", func(t *testing.T) {
		h.Later(time.Hour)
		var one map[string]any
		raw, err := json.Marshal(fresh.Public())
		if err == nil {
			err = json.Unmarshal(raw, &one)
		}
		if err != nil {
			t.Fatal(err)
		}
		spoil := func(change map[string]any) map[string]any {
			m := map[string]any{}
			for n, v := range one {
				m[n] = v
			}
			for n, v := range change {
				m[n] = v
			}
			return m
		}
		host.ServeJSON("/jwks.json", map[string]any{"keys": []any{
			spoil(map[string]any{"kid": "enc", "use": "enc"}), spoil(map[string]any{"kid": "ops", "key_ops": []string{"encrypt"}}),
			spoil(map[string]any{"kid": "es384", "alg": "ES384"}), spoil(map[string]any{"kid": "off curve", "x": one["y"]}),
			spoil(map[string]any{"kid": "private", "d": one["x"]}), map[string]any{"kty": "oct", "k": "c2VjcmV0", "kid": "oct"},
			map[string]any{"kty": "RSA", "kid": "small", "n": base64.RawURLEncoding.EncodeToString(make([]byte, 128)), "e": "AQAB"}, "no key", one,
		}})
		auth(fresh).check(t, 200, "")
		for _, kid := range []string{"enc", "ops", "es384", "private"} {
			renamed, err := jose.ParsePrivate(renamed(t, fresh, kid))
			if err != nil {
				t.Fatal(err)
			}
			auth(renamed).check(t, 401, oauth.InvalidClient)
		}
	})
}

func renamed(t *testing.T, p jose.Private, kid string) []byte {
	t.Helper()
	raw, err := p.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	m["kid"] = kid
	if raw, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestKeysInDocuments(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	private := newKey(t, jose.ES256)
	var d, set any
	raw, _ := private.MarshalJSON()
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	set = keySet(t, private)
	auth := func(id string) map[string]any { return map[string]any{"token_endpoint_auth_method": "private_key_jwt"} }
	serve := func(name string, change map[string]any) string {
		doc := auth(name)
		for n, v := range change {
			doc[n] = v
		}
		return h.Net.Host("good.test").ServeClient("/"+name+".json", doc)
	}
	for _, r := range []struct {
		row, name string
		change    map[string]any
	}{
		{"DOC-05, attack JK-01: a private key", "private", map[string]any{"jwks": map[string]any{"keys": []any{d}}}},
		{"DOC-05, attack JK-01: a symmetric key", "oct", map[string]any{"jwks": map[string]any{"keys": []any{map[string]any{"kty": "oct", "k": "c2VjcmV0"}}}}},
		{"DOC-23, attack DO-23: jwks and jwks_uri", "both", map[string]any{"jwks": set, "jwks_uri": "https://good.test/jwks.json"}},
		{"DOC-19: no keys at all", "none", nil},
		{"attack JK-13: jwks_uri is the client_id", "self", map[string]any{"jwks_uri": "https://good.test/self.json"}},
		{"DOC-26: jwks_uri is http", "http", map[string]any{"jwks_uri": "http://good.test/jwks.json"}},
	} {
		t.Run(r.row, func(t *testing.T) {
			page := john.Visit(h.Authorize("client_id", serve(r.name, r.change)))
			local(t, page, 400)
			h.Later(time.Second)
		})
	}
	t.Run("DOC-29: inline keys work", func(t *testing.T) {
		k := &keyed{h: h, id: serve("inline", map[string]any{"jwks": set}), keys: []jose.Private{private}}
		code := john.Code(h.Authorize("client_id", k.id))
		form := CodeForm(code, with(k.assert(nil), "client_id", k.id)...)
		if a := h.Post("/token", form); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	for name, uri := range map[string]string{
		"attack SD-35: a host at a private address": "https://inner.test/jwks.json", "attack JK-13: our own key set": Issuer + "/jwks",
	} {
		t.Run("FETCH-06, "+name, func(t *testing.T) {
			h.Net.DNS("inner.test", mustAddr("10.0.0.1"))
			k := &keyed{h: h, id: serve("k"+name[7:9], map[string]any{"jwks_uri": uri}), keys: []jose.Private{private}}
			page := john.Visit(h.Authorize("client_id", k.id))
			if !page.Has("decision") {
				local(t, page, 400)
				return
			}
			code := john.Answer(page, "allow").URL.Query().Get("code")
			h.Post("/token", CodeForm(code, with(k.assert(nil), "client_id", k.id)...)).check(t, 401, oauth.InvalidClient)
		})
	}
	if len(h.Net.Strays()) != 0 {
		t.Errorf("strays %v", h.Net.Strays())
	}
}

// TestDowngrade is about a client that has keys and may also do without.
func TestDowngrade(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	k := h.keyed(map[string]any{"token_endpoint_auth_methods_supported": []string{"none", "private_key_jwt"}}, jose.ES256)
	t.Run("DOC-18: a grant that began with a key cannot go on without", func(t *testing.T) {
		a := k.redeem(k.code(john), k.assert(nil))
		if !a.OK() {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		h.Post("/token", RefreshForm(a.Str("refresh_token"), "client_id", k.id)).check(t, 401, oauth.InvalidClient)
		if b := h.Post("/token", RefreshForm(a.Str("refresh_token"), with(k.assert(nil), "client_id", k.id)...)); !b.OK() {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
	})
	t.Run("CACHE-17, attack DO-30: private_key_jwt becomes none after the code was issued", func(t *testing.T) {
		k := h.keyed(map[string]any{"client_id": "https://keyed.test/down.json"}, jose.ES256)
		host := h.Net.Host("keyed.test")
		doc := map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://keyed.test/jwks.json"}
		k.id = host.ServeClient("/down.json", doc)
		code := k.code(john)
		host.ServeClient("/down.json", nil) // method none
		h.Later(30 * time.Second)
		h.Post("/token", CodeForm(code, "client_id", k.id, "redirect_uri", "https://keyed.test/cb")).check(t, 401, oauth.InvalidClient)
		h.Later(2 * time.Hour)
		page := john.Visit(h.Authorize("client_id", k.id, "redirect_uri", "https://keyed.test/cb"))
		if !page.Has("decision") {
			t.Fatalf("consent was not asked again: %s", page.Text())
		}
		second := john.Answer(page, "allow").URL.Query().Get("code")
		if a := h.Post("/token", CodeForm(second, "client_id", k.id, "redirect_uri", "https://keyed.test/cb")); !a.OK() {
			t.Errorf("after a new consent: %d %s", a.Status, a.Raw)
		}
	})
	t.Run("DOC-18, attack DO-30: a code of the time of the key, after the change was agreed to", func(t *testing.T) {
		h := New(t, "policy: {default: allow}", "policy: {default: allow}\ntokens: {code: 10m}")
		john, host := h.john(), h.Net.Host("keyed.test")
		k := h.keyed(nil, jose.ES256)
		host.ServeClient("/c.json", map[string]any{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://keyed.test/jwks.json"}, "Cache-Control", "max-age=60")
		old := k.code(john)
		host.ServeClient("/c.json", nil, "Cache-Control", "max-age=60")
		h.Later(2 * time.Minute)
		address := h.Authorize("client_id", k.id, "redirect_uri", "https://keyed.test/cb")
		if page := john.Visit(address); !page.Has("decision") {
			t.Fatalf("consent was not asked again: %v", page.URL)
		}
		fresh := john.Code(address)
		redeem := func(code string) Answer {
			return h.Post("/token", CodeForm(code, "client_id", k.id, "redirect_uri", "https://keyed.test/cb"))
		}
		redeem(old).check(t, 401, oauth.InvalidClient)
		if a := redeem(fresh); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
}
