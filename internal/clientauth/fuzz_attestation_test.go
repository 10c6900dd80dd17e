package clientauth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// once is a store that spends each id once.
type once map[string]bool

func (o once) SpendID(_ context.Context, issuer string, id store.Hash, _, _ time.Time) error {
	key := issuer + string(id[:])
	if o[key] {
		return store.ErrSpent
	}
	o[key] = true
	return nil
}

// FuzzAttestation signs any header and any claims with the key of the backend, and
// sends them beside whatever is given for the proof of possession. KEY stands for
// the public key of the installation and POP for a good proof. Whoever is let in
// has an attestation of the type of one, for the client that comes out and the key
// of the installation, and the proof was the good one and is good no more.
func FuzzAttestation(f *testing.F) {
	backend, err := jose.Generate(jose.ES256)
	if err != nil {
		f.Fatal(err)
	}
	instance, err := jose.Generate(jose.ES256)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	good, err := instance.Sign(oauth.TypAttestationPoP, map[string]any{"aud": issuer, "jti": "j", "iat": now.Unix()})
	if err != nil {
		f.Fatal(err)
	}
	public, err := instance.Public().MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	h := &people{keys: map[string]jose.Set{native: {Keys: []jose.Key{backend.Public()}}}, clients: map[string]*directory.Client{
		native: {ID: native, Source: store.SourceCIMD, State: directory.StateAllowed, Decision: policy.Decision{Action: policy.Allow}, AuthMethods: []string{oauth.MethodAttestation}},
	}}
	const typ, claims = oauth.TypAttestation, `{"sub":"` + native + `","exp":1800000600,"cnf":{"jwk":KEY}}`
	for _, s := range [][3]string{
		{typ, claims, "POP"}, {"JWT", claims, "POP"}, {typ, strings.Replace(claims, "1800000600", "1800000600.5", 1), "POP"},
		{typ, strings.Replace(claims, "KEY", `{"kty":"oct","k":"AA"}`, 1), "POP"}, {typ, strings.Replace(claims, "{", `{"sub":"x",`, 1), "POP"},
		{typ, strings.Replace(claims, "{", `{"Sub":"x","iat":1,"iss":"`+issuer+`",`, 1), "POP"}, {typ, claims, ""}, {typ, claims, "POP POP"}, {typ, claims, "a.b.c"},
		{typ, strings.Replace(claims, native, keyed, 1), "POP"}, {"", "{}", "POP"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, typ, claims, pop string) {
		a, err := New(Config{Issuer: issuer, Directory: h, Spender: once{}, Now: func() time.Time { return now }, Attestation: &Attestation{MaxAge: 100 * 365 * 24 * time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		claims = strings.Replace(claims, "KEY", string(public), 1)
		raw, err := backend.Sign(typ, rawJSON(claims))
		if err != nil {
			return // not JSON: nothing to sign
		}
		pop = strings.ReplaceAll(pop, "POP", good)
		r := requestTo("/token")
		r.Header = http.Header{headerAttestation: {raw}, http.CanonicalHeaderKey(headerAttestationPoP): {pop}}
		q := Request{Attestations: []string{raw}, AttestationProofs: []string{pop}, http: r}
		c, err := a.Authenticate(t.Context(), q)
		if err != nil {
			if e, ok := errors.AsType[*oauth.Error](err); !ok || e.Code == oauth.ServerError {
				t.Fatalf("a stranger causes %v", err)
			}
			return
		}
		if pop != good || typ != oauth.TypAttestation || c.ID != native || c.InstanceJKT != instance.Public().Thumbprint() {
			t.Fatalf("let in as %+v with typ %q, claims %s, proof %q", c, typ, claims, pop)
		}
		said := map[string]any{}
		if err := json.Unmarshal([]byte(claims), &said); err != nil || said["sub"] != native {
			t.Fatalf("let in with %s: %v", claims, err)
		}
		if exp, ok := said["exp"].(float64); !ok || exp <= float64(now.Unix()) {
			t.Fatalf("let in with %s", claims)
		}
		if _, err := a.Authenticate(t.Context(), q); err == nil {
			t.Fatal("the proof was good twice")
		}
	})
}

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }
