package clientauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/bonafide-id/bonafide/internal/jose"
)

// bareKey returns a public key without a kid, and a function that signs
// assertions whose header has none either.
func bareKey(t *testing.T) (jose.Key, func(map[string]any) string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding
	raw, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "EC", "crv": "P-256", "x": b64.EncodeToString(point[1:33]), "y": b64.EncodeToString(point[33:]),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := jose.ParseSet(raw, jose.SetLimits{})
	if err != nil || len(set.Keys) != 1 {
		t.Fatalf("key set: %+v, %v", set, err)
	}
	return set.Keys[0], func(claims map[string]any) string {
		t.Helper()
		body, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		signed := b64.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + b64.EncodeToString(body)
		sum := sha256.Sum256([]byte(signed))
		r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		return signed + "." + b64.EncodeToString(sig)
	}
}
