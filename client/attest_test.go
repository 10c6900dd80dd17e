package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// installationOf is a world whose server knows attestations alone.
func installationOf(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := newWorld(t, change)
	w.as.meta.TokenAuthMethods = []string{oauth.MethodAttestation, oauth.MethodAttestationDPoP}
	w.as.meta.DPoPSigningAlgs = []string{"ES256"}
	return w
}

// claimsIn verifies a JWT and returns its claims.
func claimsIn(t *testing.T, compact, typ string, k jose.Key) map[string]any {
	t.Helper()
	m, err := jose.Parse(compact, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(k); err != nil || m.Header.Typ != typ {
		t.Fatal(err, m.Header)
	}
	var out map[string]any
	_ = json.Unmarshal(m.Claims, &out)
	return out
}

// instanceIn returns the key that an attestation names.
func instanceIn(t *testing.T, attestation map[string]any) jose.Key {
	t.Helper()
	raw, _ := json.Marshal(attestation["cnf"].(map[string]any)["jwk"])
	k, err := jose.ParseJWK(raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAttestations(t *testing.T) {
	t.Run("CLI-17 an attestation by the client's own key, and the proof of the installation", func(t *testing.T) {
		k := key(t, "ES256")
		w := installationOf(t, func(c *Config) { c.Key, c.Methods = k, []string{oauth.MethodAttestation} })
		h := w.c.HTTPClient(w.target())
		w.used(t, h)
		w.advance(50 * time.Minute)
		w.used(t, h)
		var jtis []string
		for _, header := range w.as.headers {
			a := claimsIn(t, header.Get(headerAttestation), oauth.TypAttestation, k.private.Public())
			p := claimsIn(t, header.Get(headerAttestationPoP), oauth.TypAttestationPoP, instanceIn(t, a))
			if a["sub"] != appID || p["aud"] != w.as.URL || p["challenge"] != nil || p["iat"] == nil || header.Get("DPoP") != "" {
				t.Error(a, p)
			}
			jtis = append(jtis, p["jti"].(string))
		}
		if len(jtis) != 2 || jtis[0] == jtis[1] || w.as.headers[0].Get(headerAttestation) != w.as.headers[1].Get(headerAttestation) {
			t.Error("the attestation is kept, the proof is fresh:", jtis)
		}
		if f := w.as.posted[0]; f.Get("client_id") != appID || f.Get("client_assertion") != "" {
			t.Error(f)
		}
		w.advance(15 * time.Minute)
		w.used(t, h)
		if w.as.headers[1].Get(headerAttestation) == w.as.headers[2].Get(headerAttestation) {
			t.Error("an expired attestation was sent")
		}
	})
	t.Run("CLI-17 the combined mode: the DPoP proof is the proof of the installation, and stands in for dpop_jkt", func(t *testing.T) {
		k := key(t, "ES256")
		w := installationOf(t, func(c *Config) { c.Key, c.Methods = k, []string{oauth.MethodAttestationDPoP} })
		w.as.meta.PushedRequestEndpoint = w.as.URL + "/par"
		w.used(t, w.c.HTTPClient(w.target()))
		for _, header := range w.as.headers {
			a := claimsIn(t, header.Get(headerAttestation), oauth.TypAttestation, k.private.Public())
			if header.Get(headerAttestationPoP) != "" || instanceIn(t, a).Thumbprint() != w.as.proofs[0].JKT {
				t.Error(header)
			}
		}
		if len(w.as.headers) != 2 || len(w.rs.proofs) != 1 || w.as.headers[0].Get("DPoP") == "" {
			t.Error(len(w.as.headers))
		}
	})
	t.Run("CLI-24 a plain request in the combined mode has no dpop_jkt", func(t *testing.T) {
		w := installationOf(t, func(c *Config) { c.Key, c.Methods = key(t, "ES256"), []string{oauth.MethodAttestationDPoP} })
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil || w.as.asked[0].Has("dpop_jkt") {
			t.Error(err, w.as.asked)
		}
	})
	t.Run("CLI-17 the backend is asked once, about this client, this server and this key", func(t *testing.T) {
		backend := key(t, "EdDSA")
		var asked []Attestation
		w := installationOf(t, func(c *Config) {
			c.DPoP = DPoPIfOffered
			c.Attest = func(_ context.Context, a Attestation) (string, error) {
				asked = append(asked, a)
				return backend.private.Sign(oauth.TypAttestation, map[string]any{"sub": a.ClientID, "exp": 1 << 35, "cnf": map[string]any{"jwk": a.Instance}})
			}
		})
		w.used(t, w.c.HTTPClient(w.target()))
		if _, err := w.c.SignIn(t.Context(), w.target()); err != nil {
			t.Fatal(err)
		}
		if len(asked) != 1 || asked[0].ClientID != appID || asked[0].Issuer != w.as.URL {
			t.Fatal(asked)
		}
		k, err := jose.ParseJWK(asked[0].Instance)
		if err != nil || k.Thumbprint() != w.as.proofs[0].JKT || w.as.headers[0].Get(headerAttestationPoP) != "" {
			t.Error("with DPoP on, both lists know the combined mode:", err)
		}
		d := w.c.Document("App")
		if !slices.Equal(d.AuthMethods, []string{oauth.MethodAttestation, oauth.MethodAttestationDPoP}) {
			t.Error(d)
		}
	})
	t.Run("CLI-24 a challenge of the endpoint, then that of the last answer, each once", func(t *testing.T) {
		w := installationOf(t, func(c *Config) { c.Key, c.Methods = key(t, "ES256"), []string{oauth.MethodAttestation} })
		w.as.meta.ChallengeEndpoint = w.as.URL + "/challenge"
		asked := 0
		w.as.more = func(rw http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/challenge" {
				if r.URL.Path == "/token" {
					rw.Header().Set(headerChallenge, "next")
				}
				return false
			}
			asked++
			_ = json.NewEncoder(rw).Encode(map[string]string{"attestation_challenge": "first"})
			return true
		}
		h := w.c.HTTPClient(w.target())
		for range 3 {
			w.used(t, h)
			w.advance(20 * time.Minute)
		}
		if got := challenges(t, w); !slices.Equal(got, []string{"first", "next", "next"}) || asked != 1 {
			t.Error(got, asked)
		}
	})
	for _, tc := range []struct {
		name string
		code oauth.Code
		with string // the challenge of the refusal
		want []string
		ok   bool
	}{
		{"CLI-24 a challenge that the server demands is given once", oauth.UseAttestationChallenge, "c1", []string{"", "c1"}, true},
		{"CLI-24 a demand without a challenge", oauth.UseAttestationChallenge, "", []string{""}, false},
		{"CLI-24 a server that is never content gets two requests", "", "c1", []string{"", "c1"}, false},
		{"CLI-24 a fresh attestation, once", oauth.UseFreshAttestation, "", []string{"", ""}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := installationOf(t, func(c *Config) { c.Key, c.Methods = key(t, "ES256"), []string{oauth.MethodAttestation} })
			w.as.more = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/token" || tc.code != "" && len(w.as.headers) > 1 {
					return false
				}
				if tc.with != "" {
					rw.Header().Set(headerChallenge, tc.with)
				}
				code := tc.code
				if code == "" {
					code = oauth.UseAttestationChallenge
				}
				failed(rw, 400, string(code))
				return true
			}
			_, err := w.c.SignIn(t.Context(), w.target())
			if got := challenges(t, w); (err == nil) != tc.ok || !slices.Equal(got, tc.want) {
				t.Error(err, got)
			}
		})
	}
	for name, attest := range map[string]func(context.Context, Attestation) (string, error){
		"CLI-17 a backend that fails":        func(context.Context, Attestation) (string, error) { return "", errors.New("down") },
		"CLI-17 a backend that gives no JWT": func(context.Context, Attestation) (string, error) { return "x", nil },
		"CLI-17 a backend whose attestation does not end": func(context.Context, Attestation) (string, error) {
			return key(t, "ES256").private.Sign("x", struct{}{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := installationOf(t, func(c *Config) { c.Attest = attest })
			if _, err := w.c.SignIn(t.Context(), w.target()); err == nil || len(w.as.posted) != 0 {
				t.Error(err)
			}
		})
	}
	t.Run("CLI-17 a client without anything to attest with", func(t *testing.T) {
		if _, err := New(Config{ID: appID, Methods: []string{oauth.MethodAttestation}}); err == nil {
			t.Error("configured")
		}
	})
}

// challenges returns the challenge of each proof of possession that was sent.
func challenges(t *testing.T, w *world) (out []string) {
	t.Helper()
	for _, h := range w.as.headers {
		m, err := jose.Parse(h.Get(headerAttestationPoP), 0)
		if err != nil {
			continue // a request of the challenge endpoint
		}
		var c struct{ Challenge string }
		_ = json.Unmarshal(m.Claims, &c)
		out = append(out, c.Challenge)
	}
	return out
}
