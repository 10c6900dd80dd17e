package housetest

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"testing"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// TestNoncesOnEachEndpoint demands a nonce in each proof, wherever one is taken.
func TestNoncesOnEachEndpoint(t *testing.T) {
	t.Parallel()
	h := televised(t, "", "dpop: {require_nonce: true}")
	john, key := h.john(), newKey(t, jose.ES256)
	nonce := h.Post("/challenge", nil).Header.Get("DPoP-Nonce")
	tokens := h.Post("/token", CodeForm(john.Code(h.Authorize("scope", "openid mcp:read"))), h.proof(key, members{"nonce": nonce}))
	if !tokens.OK() {
		t.Fatal(tokens.Status, tokens.Raw)
	}
	hash := sha256.Sum256([]byte(tokens.Str("access_token")))
	for path, c := range map[string]struct {
		status, refused int
		send            func(claims members) Answer
	}{
		"/par": {201, 400, func(claims members) Answer { return h.Post("/par", h.pushForm(), h.proof(key, claims)) }},
		"/device_authorization": {200, 400, func(claims members) Answer {
			return h.Post("/device_authorization", url.Values{"client_id": {tvID}, "scope": {"mcp:read"}, "resource": {Resource}}, h.proof(key, claims))
		}},
		"/userinfo": {200, 401, func(claims members) Answer {
			claims["htm"], claims["ath"] = "GET", base64.RawURLEncoding.EncodeToString(hash[:])
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, Issuer+"/userinfo", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "DPoP "+tokens.Str("access_token"))
			h.proof(key, claims)(req)
			return h.Do(req)
		}},
	} {
		t.Run("DPOP-03, attack DP-07: "+path, func(t *testing.T) {
			for _, bad := range []any{nil, "x", jose.RandomNonces(0).At(h.Now())} {
				a := c.send(members{"htu": Issuer + path, "nonce": bad})
				a.check(t, c.refused, oauth.UseDPoPNonce)
				fresh := a.Header.Get("DPoP-Nonce")
				proof := members{"htu": Issuer + path, "nonce": fresh, "jti": oauth.RandomToken(9)}
				if b := c.send(proof); b.Status != c.status || b.Header.Get("DPoP-Nonce") == "" {
					t.Fatalf("%d %s %v", b.Status, b.Raw, b.Header)
				}
				c.send(proof).check(t, c.refused, oauth.InvalidDPoPProof) // a nonce does not make it good twice
			}
		})
	}
}
