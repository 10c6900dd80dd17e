package housetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// junkHost answers every path with the document of a client with keys elsewhere on
// the same host, and counts what it is asked for.
func (h *House) junkHost(name string) (asked func() int) {
	host := h.Net.Host(name)
	set, err := json.Marshal(keySet(h.TB, newKey(h.TB, jose.ES256)))
	if err != nil {
		h.TB.Fatal(err)
	}
	host.Handle("*", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "max-age=3600")
		if strings.HasSuffix(r.URL.Path, ".jwks") {
			_, _ = w.Write(set)
			return
		}
		id := "https://" + name + r.URL.Path
		_ = json.NewEncoder(w).Encode(map[string]any{"client_id": id, "client_name": "Junk", "redirect_uris": []string{"https://" + name + "/cb"},
			"grant_types":                []string{"authorization_code", oauth.GrantDeviceCode, oauth.GrantClientCredentials},
			"token_endpoint_auth_method": oauth.MethodPrivateKeyJWT, "jwks_uri": id + ".jwks"})
	}))
	return func() int { return host.Count("*") }
}

// TestJunkAssertions holds what a well-formed assertion of a client that nobody
// knows can make this server fetch against its exact bounds. Nothing can be known
// of a signature before the keys are there, so that some is fetched; not more.
func TestJunkAssertions(t *testing.T) {
	t.Parallel()
	h := New(t, "", "trusted_proxies: [127.0.0.0/8, \"::1/128\"]")
	key := newKey(t, jose.ES256)
	from := func(ip string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Forwarded-For", ip) }
	}
	claims := func(id string, changes map[string]any) map[string]any {
		now := h.Now().Unix()
		return changed(map[string]any{"iss": id, "sub": id, "aud": Issuer, "exp": now + 60, "iat": now, "jti": oauth.RandomToken(16)}, changes)
	}
	push := func(id, assertion, ip string, more ...string) Answer {
		return h.Post("/par", h.pushForm(append([]string{"client_id", id, "redirect_uri", ""}, with(assertion, more...)...)...), from(ip))
	}
	const perSource, perHost = 60, 100 // at once, as docs/operate.md has them; the clock of the house stands still
	flood := func(host string, n int, ip func(i int) string) (fetched int) {
		asked := h.junkHost(host)
		for i := range n {
			id := fmt.Sprintf("https://%s/c%d.json", host, i)
			if a := push(id, sign(t, key, "", claims(id, nil)), ip(i)); a.OK() || a.Status == http.StatusCreated {
				t.Fatalf("%d: taken: %s", i, a.Raw)
			}
		}
		return asked()
	}
	t.Run("CAUTH-12, FETCH-19, PAR-11: one address makes us fetch 60 times at once and not once more, keys among them", func(t *testing.T) {
		if n := flood("junk-one.test", 110, func(int) string { return "192.0.2.1" }); n != perSource {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("CAUTH-12, FETCH-19, PAR-11: one IPv6 network is one source, however many addresses it has", func(t *testing.T) {
		if n := flood("junk-six.test", 110, func(i int) string { return fmt.Sprintf("2001:db8:0:%x::%x", i, i) }); n != perSource {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("CAUTH-12, FETCH-19, attack DS-02: many addresses together make us ask one host 100 times at once", func(t *testing.T) {
		if n := flood("junk-many.test", 150, func(i int) string { return fmt.Sprintf("198.51.100.%d", i) }); n != perHost {
			t.Errorf("%d fetches", n)
		}
	})

	asked := h.junkHost("cheap.test")
	const id = "https://cheap.test/c.json"
	now := h.Now().Unix()
	for name, changes := range map[string]map[string]any{
		"CAUTH-03 iss is not sub":         {"sub": "https://cheap.test/other.json"},
		"CAUTH-03 no iss":                 {"iss": nil},
		"CAUTH-03 iss is not client_id":   {"iss": "https://cheap.test/other.json", "sub": "https://cheap.test/other.json"},
		"CAUTH-04 another audience":       {"aud": "https://other.test"},
		"CAUTH-04 the endpoint":           {"aud": Issuer + "/par"},
		"CAUTH-04 two audiences":          {"aud": []string{Issuer, "https://other.test"}},
		"CAUTH-04 no audience":            {"aud": nil},
		"CAUTH-05 no exp":                 {"exp": nil},
		"CAUTH-05 expired":                {"exp": now},
		"CAUTH-05 exp in an hour":         {"exp": now + 3600},
		"CAUTH-05 exp is a text":          {"exp": "soon"},
		"CAUTH-05 iat in ten minutes":     {"iat": now + 600},
		"CAUTH-05 nbf in ten minutes":     {"nbf": now + 600},
		"CAUTH-05 alive for an hour":      {"iat": now - 3600},
		"CAUTH-06 no jti":                 {"jti": nil},
		"CAUTH-06 a jti of 257 bytes":     {"jti": strings.Repeat("x", 257)},
		"CAUTH-06 a jti that is a number": {"jti": 7},
	} {
		t.Run("CAUTH-12, "+name+": nothing is fetched", func(t *testing.T) {
			push(id, sign(t, key, "", claims(id, changes)), "203.0.113.1").check(t, http.StatusUnauthorized, oauth.InvalidClient)
		})
	}
	good := func() string { return sign(t, key, "", claims(id, nil)) }
	for name, assertion := range map[string]string{
		"CAUTH-07 alg none":              reheaded(good(), map[string]any{"alg": "none"}),
		"CAUTH-07 alg HS256":             reheaded(good(), map[string]any{"alg": "HS256"}),
		"CAUTH-07 an unknown alg":        reheaded(good(), map[string]any{"alg": "ES257"}),
		"CAUTH-09 the type of a request": sign(t, key, oauth.TypRequestObject, claims(id, nil)),
		"CAUTH-07 crit":                  reheaded(good(), map[string]any{"alg": "ES256", "crit": []string{"x"}}),
		"CAUTH-07 no JWT":                "a.b",
	} {
		t.Run("CAUTH-12, "+name+": nothing is fetched", func(t *testing.T) {
			push(id, assertion, "203.0.113.2").check(t, http.StatusUnauthorized, oauth.InvalidClient)
		})
	}
	t.Run("CAUTH-12, CAUTH-02 two ways to authenticate: nothing is fetched", func(t *testing.T) {
		push(id, good(), "203.0.113.3", "client_secret", "x").check(t, http.StatusBadRequest, oauth.InvalidRequest)
	})
	t.Run("FETCH-21, DEV-09, REV-04: where no stranger may come nothing is fetched", func(t *testing.T) {
		for path, form := range map[string]url.Values{
			"/token":                {"grant_type": {"authorization_code"}, "code": {"x"}, "code_verifier": {Verifier}},
			"/token ":               {"grant_type": {oauth.GrantClientCredentials}, "resource": {Resource}},
			"/token  ":              {"grant_type": {oauth.GrantDeviceCode}, "device_code": {"x"}},
			"/device_authorization": {"resource": {Resource}},
			"/revoke":               {"token": {"x"}},
		} {
			if a := h.Post(strings.TrimSpace(path), change(form, with(good())), from("203.0.113.4")); a.OK() {
				t.Errorf("%s: %s", path, a.Raw)
			}
		}
	})
	if n := asked(); n != 0 {
		t.Errorf("CAUTH-12: %d requests before the cheap checks were through", n)
	}
}
