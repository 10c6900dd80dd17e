package token

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// online puts the house on the real directory, with a client on a small
// internet that has its keys at a jwks_uri. The client has been agreed to.
func online(t *testing.T) (h *house, host *cimdtest.Host, id string) {
	t.Helper()
	h = newHouse(t)
	net := cimdtest.New(t)
	host = net.Host("good.test")
	h.publishAt(t, host, h.key.Public())
	id = host.ServeClient("/client.json", map[string]any{
		"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": host.URL("/jwks"),
	})
	cfg := net.Config()
	cfg.Now = h.clock.now
	dir, err := directory.New(directory.Config{Store: h.store, Policy: h.people.policy(), CIMD: cfg, Enabled: true, Now: h.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Resolver().Close() })
	h.cfg.Policy = dir.Policy
	if h.cfg.Clients, err = clientauth.New(clientauth.Config{Issuer: issuer, Directory: dir, Spender: h.store, Now: h.clock.now}); err != nil {
		t.Fatal(err)
	}
	c, err := dir.Find(t.Context(), id, true)
	if err != nil {
		t.Fatal(err)
	}
	h.people.clients[id] = c
	return h, host, id
}

func (h *house) publishAt(t *testing.T, host *cimdtest.Host, keys ...jose.Key) {
	t.Helper()
	set, err := jose.MarshalSet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	host.Serve("/jwks", cimdtest.Response{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/jwk-set+json"}, "Cache-Control": {"max-age=3600"}}, Body: set})
}

func TestHostIsDown(t *testing.T) {
	h, host, id := online(t)
	first, second := h.consent(t, id), h.consent(t, id)
	r := h.ok(t, h.assert(t, id, first.form()))
	host.Down(true)
	host.Remove("/client.json")
	before := host.Count("*")
	t.Run("TOK-06 redemption and refresh work while the document's host is down", func(t *testing.T) {
		h.ok(t, h.assert(t, id, second.form()))
		h.clock.move(10 * time.Minute) // the document is not fresh any more
		r = h.ok(t, h.assert(t, id, refreshForm(id, r.get("refresh_token"))))
	})
	t.Run("REV-04, mistake 36: so does revocation, and introspection never needed it", func(t *testing.T) {
		if !h.isActive(t, r.get("access_token")) {
			t.Fatal("not active")
		}
		if got := h.post("/revoke", h.assert(t, id, url.Values{"token": {r.get("refresh_token")}})); got.status != http.StatusOK {
			t.Fatalf("status %d: %s", got.status, got.body)
		}
		if h.isActive(t, r.get("access_token")) {
			t.Fatal("still active")
		}
	})
	if got := host.Count("*"); got != before {
		t.Errorf("%d requests to the host", got-before)
	}
}

func TestKeysOverTheNetwork(t *testing.T) {
	t.Run("CAUTH-12 a stranger's assertion with a wrong audience fetches nothing", func(t *testing.T) {
		h, host, id := online(t)
		now := h.clock.now().Unix()
		for _, claims := range []map[string]any{
			{"iss": id, "sub": id, "aud": "https://evil.test", "exp": now + 60, "jti": "1"},
			{"iss": id, "sub": id, "aud": issuer, "exp": now - 60, "jti": "2"},
			{"iss": "https://nobody.test/c.json", "sub": "https://nobody.test/c.json", "aud": issuer, "exp": now + 60, "jti": "3"},
			{"iss": id, "sub": id, "aud": issuer, "exp": now + 60, "jti": "4"}, // known, but nobody agreed to it yet
		} {
			a, err := h.key.Sign("", claims)
			if err != nil {
				t.Fatal(err)
			}
			h.refused(t, oauth.InvalidClient, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"},
				"client_assertion_type": {oauth.AssertionTypeJWT}, "client_assertion": {a}})
		}
		if n := host.Count("/jwks"); n != 0 {
			t.Fatalf("the keys were fetched %d times", n)
		}
	})
	t.Run("attack JK-09: a thousand unknown key ids cost one fetch in 30 seconds, and the good key stays", func(t *testing.T) {
		h, host, id := online(t)
		c := h.consent(t, id)
		r := h.ok(t, h.assert(t, id, c.form()))
		before := host.Count("/jwks")
		for range 1000 {
			form := h.assert(t, id, refreshForm(id, r.get("refresh_token")))
			a := form.Get("client_assertion")
			head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"` + oauth.RandomToken(8) + `"}`))
			form.Set("client_assertion", head+a[strings.IndexByte(a, '.'):])
			h.refused(t, oauth.InvalidClient, form)
		}
		if n := host.Count("/jwks") - before; n > 1 {
			t.Fatalf("%d fetches", n)
		}
		h.ok(t, h.assert(t, id, refreshForm(id, r.get("refresh_token"))))
	})
	t.Run("attack JK-11: a new key is accepted within one fetch", func(t *testing.T) {
		h, host, id := online(t)
		c := h.consent(t, id)
		r := h.ok(t, h.assert(t, id, c.form()))
		next, err := jose.Generate(jose.RS256)
		if err != nil {
			t.Fatal(err)
		}
		h.publishAt(t, host, h.key.Public(), next.Public())
		h.clock.move(time.Minute)
		h.key = next
		h.ok(t, h.assert(t, id, refreshForm(id, r.get("refresh_token"))))
	})
}
