package token

import (
	"encoding/json"
	"testing"

	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// FuzzIdentityAssertion puts one claim of any value into a good assertion. What is
// accepted has to be for us, for the client, from the issuer and in its time, read
// in a way of its own.
func FuzzIdentityAssertion(f *testing.F) {
	for _, seed := range [][2]string{
		{"aud", `"https://as.test"`}, {"aud", `["https://as.test"]`}, {"aud", `["https://as.test","https://as.test"]`}, {"AUD", `"https://evil.test"`},
		{"client_id", `"other"`}, {"client_id", `["agent"]`}, {"iss", `"https://evil.test"`}, {"tenant", `"acme"`}, {"tenant", `null`},
		{"exp", `1e300`}, {"exp", `-1`}, {"iat", `0.5`}, {"nbf", `"soon"`}, {"jti", `""`}, {"resource", `[]`}, {"scope", `"a b"`},
		{"cnf", `{}`}, {"cnf", `{"jkt":"x"}`}, {"cnf", `null`}, {"sub", `"\u0000"`}, {"amr", `[" "]`}, {"x", `{"iss":1}`},
	} {
		f.Add(seed[0], seed[1])
	}
	h := newAgents(f)
	is := &issue{now: h.clock.now(), client: &clientauth.Client{Client: &directory.Client{ID: agent}}}
	f.Fuzz(func(t *testing.T, name, value string) {
		if !json.Valid([]byte(value)) || len(name)+len(value) > 4000 {
			return
		}
		claims := h.jag(map[string]any{name: json.RawMessage(value)})
		signed, err := h.idp.Sign(oauth.TypIDJAG, claims)
		if err != nil {
			return
		}
		is.assertion = signed
		a, err := h.readAssertion(t.Context(), is)
		if err != nil {
			return
		}
		m, err := jose.Parse(signed, maxAssertion)
		if err != nil {
			t.Fatal(err)
		}
		var said map[string]any
		if err := json.Unmarshal(m.Claims, &said); err != nil {
			t.Fatal(err)
		}
		if list, ok := said["aud"].([]any); ok && len(list) == 1 {
			said["aud"] = list[0]
		}
		for name, want := range map[string]any{"aud": issuer, "client_id": agent, "iss": idp} {
			if said[name] != want {
				t.Errorf("%s is %v", name, said[name])
			}
		}
		now := float64(is.now.Unix())
		if exp, _ := said["exp"].(float64); exp <= now || exp > now+11*60 {
			t.Errorf("exp is %v", said["exp"])
		}
		if iat, _ := said["iat"].(float64); iat > now+61 {
			t.Errorf("iat is %v", said["iat"])
		}
		if tenant := said["tenant"]; tenant != nil && tenant != "" {
			t.Errorf("tenant is %v", tenant)
		}
		if said["cnf"] != nil {
			t.Errorf("cnf is %v, and there is no proof", said["cnf"])
		}
		if a.Subject != said["sub"] || a.JTI != said["jti"] || a.Subject == "" || a.JTI == "" {
			t.Errorf("read %q and %q of %v", a.Subject, a.JTI, said)
		}
	})
}
