package jose

import (
	"bytes"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
)

// literalKey says what RFC 7517 and RFC 7518 want of the member of a key set from
// which k was read, and computes the thumbprint of RFC 7638 by hand.
func literalKey(m map[string]any, k Key) error {
	for _, name := range privateMembers {
		if _, there := m[name]; there {
			return fmt.Errorf("a key with %s was used", name)
		}
	}
	use, hasUse := m["use"]
	ops, hasOps := m["key_ops"].([]any)
	kid, _ := m["kid"].(string)
	if hasUse && use != "sig" && use != "" || hasOps && !slices.Contains(ops, any("verify")) || kid != k.KID() || len(kid) > 256 {
		return fmt.Errorf("use %v, key_ops %v, kid %q", use, ops, kid)
	}
	octets := func(name string) []byte {
		s, _ := m[name].(string)
		raw, err := b64.DecodeString(s)
		if err != nil || b64.EncodeToString(raw) != s {
			return nil
		}
		return raw
	}
	number := func(name string) *big.Int { return new(big.Int).SetBytes(octets(name)) }
	var fits, required string
	switch m["kty"] {
	case "RSA":
		n, e := number("n"), number("e")
		if n.BitLen() < 2048 || n.BitLen() > 8192 || e.Cmp(big.NewInt(65537)) < 0 || n.Bit(0)&e.Bit(0) == 0 {
			return fmt.Errorf("%d bits, exponent %v", n.BitLen(), e)
		}
		fits = " RS256 PS256 "
		required = fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, b64.EncodeToString(e.Bytes()), b64.EncodeToString(n.Bytes()))
	case "EC":
		// y^2 = x^3 - 3x + b, and both of full length
		curve, x, y := elliptic.P256().Params(), number("x"), number("y")
		right := new(big.Int).Exp(x, big.NewInt(3), curve.P)
		right.Sub(right, new(big.Int).Mul(x, big.NewInt(3))).Add(right, curve.B).Mod(right, curve.P)
		left := new(big.Int).Exp(y, big.NewInt(2), curve.P)
		if m["crv"] != "P-256" || len(octets("x")) != 32 || len(octets("y")) != 32 || left.Cmp(right) != 0 || x.Cmp(curve.P) >= 0 || y.Cmp(curve.P) >= 0 {
			return errors.New("not a point of P-256")
		}
		fits = " ES256 "
		required = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, m["x"], m["y"])
	case "OKP":
		if m["crv"] != "Ed25519" || len(octets("x")) != 32 {
			return errors.New("not a key of Ed25519")
		}
		fits = " EdDSA "
		required = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, m["x"])
	default:
		return fmt.Errorf("kty %v", m["kty"])
	}
	alg, _ := m["alg"].(string)
	for _, a := range Algorithms {
		want := bytes.Contains([]byte(fits), []byte(" "+a+" ")) && (alg == "" || alg == a || alg == "Ed25519" && a == "EdDSA")
		if k.Fits(a) != want {
			return fmt.Errorf("alg %q: fits %s: %v", alg, a, !want)
		}
	}
	if sum := sha256.Sum256([]byte(required)); k.Thumbprint() != b64.EncodeToString(sum[:]) {
		return fmt.Errorf("thumbprint %s of %s", k.Thumbprint(), required)
	}
	return nil
}

// FuzzSet: every key that is used is one by literalKey; every other is accounted
// for; a set with a private key is refused where its owner wrote it and loses
// only that key where it was fetched; and what is written again reads the same.
func FuzzSet(f *testing.F) {
	for _, p := range testKeys() {
		raw, err := MarshalSet(p.Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	const ed = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	for _, s := range []string{
		`{"keys":[` + ed + `,"alg":"Ed25519","kid":"a","use":"sig","key_ops":["verify"]},` + ed + `,"d":null}]}`, `{"keys":[1,null,{},[]]}`, ed + `,"d":"AA"}`,
		`{"keys":[{"kty":"EC","crv":"P-256","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU","alg":"ES256"}]}`,
		`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"oct","k":"AA"}],"keys2":0}`, `{"keys":[` + ed + `,"use":"","alg":"","key_ops":null}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseRemoteSet(raw, SetLimits{})
		own, ownErr := ParseSet(raw, SetLimits{})
		if err != nil {
			if ownErr == nil || len(own.Keys) > 0 {
				t.Fatalf("%q: %v, and from its owner %+v", raw, err, own)
			}
			return
		}
		top, err := strictObject(raw)
		if err != nil {
			t.Fatalf("%q was read: %v", raw, err)
		}
		list, _ := top["keys"].([]any)
		if len(s.Keys)+len(s.Dropped) != len(list) || len(list) > 16 {
			t.Fatalf("%q: %d used, %d dropped of %d", raw, len(s.Keys), len(s.Dropped), len(list))
		}
		private, next := false, 0
		for i, v := range list {
			m, _ := v.(map[string]any)
			private = private || m["kty"] == "oct" || slices.ContainsFunc(privateMembers, func(name string) bool { _, there := m[name]; return there })
			if slices.ContainsFunc(s.Dropped, func(d Dropped) bool { return d.Index == i }) {
				continue
			}
			if err := literalKey(m, s.Keys[next]); err != nil {
				t.Fatalf("%q, key %d: %v", raw, i, err)
			}
			next++
		}
		if private != errors.Is(ownErr, ErrPrivateKey) || !private && (ownErr != nil || len(own.Keys) != len(s.Keys)) {
			t.Fatalf("%q: private %v, from its owner %+v, %v", raw, private, own, ownErr)
		}
		again, err := MarshalSet(s.Keys...)
		if err != nil || !json.Valid(again) {
			t.Fatalf("%s, %v", again, err)
		}
		same, err := ParseSet(again, SetLimits{MaxBytes: 1 << 20})
		if err != nil || !slices.EqualFunc(same.Keys, s.Keys, Key.Equal) {
			t.Fatalf("%q written as %s: %+v, %v", raw, again, same, err)
		}
	})
}
