package keyring

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBoundAndDelegatedTokens(t *testing.T) {
	c := newClock()
	r := mustNew(t, config(openStore(t, c), c))
	a := access(r)
	a.CnfJKT, a.CnfX5T = "thumb", "cert"
	a.Actor, a.Details, a.Origins = `{"sub":"https://agent.test/c.json"}`, `[{"type":"payment"}]`, []string{"g0", "g1"}
	token, err := r.MintAccess(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("DPOP-02, DPOP-07, XCH-12 cnf, act and authorization_details stand where the standards put them", func(t *testing.T) {
		_, claims := open(t, r, token)
		for name, want := range map[string]any{
			"cnf":                   map[string]any{"jkt": "thumb", "x5t#S256": "cert"},
			"act":                   map[string]any{"sub": "https://agent.test/c.json"},
			"authorization_details": []any{map[string]any{"type": "payment"}},
			"bonafide.id/origins":   []any{"g0", "g1"},
		} {
			if diff := cmp.Diff(want, claims[name]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
	t.Run("what was minted is read back", func(t *testing.T) {
		back, err := r.VerifyAccess(token, c.now())
		if diff := cmp.Diff(a, back); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
	t.Run("a token without them has none of them", func(t *testing.T) {
		token, err := r.MintAccess(access(r))
		if err != nil {
			t.Fatal(err)
		}
		_, claims := open(t, r, token)
		for _, name := range []string{"cnf", "act", "authorization_details", "bonafide.id/origins"} {
			if _, has := claims[name]; has {
				t.Errorf("%s is there", name)
			}
		}
	})
	for name, spoil := range map[string]func(*AccessToken){
		"an actor that is no JSON": func(a *AccessToken) { a.Actor = `{"sub":` },
		"details that are no JSON": func(a *AccessToken) { a.Details = `[` },
	} {
		t.Run("not minted: "+name, func(t *testing.T) {
			a := access(r)
			spoil(&a)
			if _, err := r.MintAccess(a); err == nil {
				t.Fatal("minted")
			}
		})
	}
}
