package jose

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	gojose "github.com/go-jose/go-jose/v4"
)

type object = map[string]any

func pub(t *testing.T, p Private, change ...func(object)) object {
	t.Helper()
	raw, err := json.Marshal(p.Public())
	if err != nil {
		t.Fatal(err)
	}
	o := object{}
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(o)
	}
	return o
}

func setOf(t *testing.T, keys ...any) []byte {
	t.Helper()
	raw, err := json.Marshal(object{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func bigEnc(n *big.Int) string { return b64.EncodeToString(n.Bytes()) }

func odd(bits int) string {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return bigEnc(n.SetBit(n, 0, 1))
}

func TestSpoiledKeys(t *testing.T) {
	set := func(name string, v any) func(object) { return func(o object) { o[name] = v } }
	remove := func(name string) func(object) { return func(o object) { delete(o, name) } }
	other, err := Generate(ES256)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw384, err := gojose.JSONWebKey{Key: &p384.PublicKey, KeyID: "x"}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name   string
		alg    string
		spoil  func(object)
		reason string // "" = kept
	}{
		{"DOC-29 alg, use and kid may be absent", ES256, func(o object) { delete(o, "alg"); delete(o, "use"); delete(o, "kid") }, ""},
		{"DOC-29 key_ops with verify", ES256, set("key_ops", []string{"verify"}), ""},
		{"DOC-29 unknown members are ignored", ES256, set("x-note", object{"a": []int{1}}), ""},
		{"CAUTH-08 a certificate is not looked at", ES256, set("x5c", []string{"AAAA"}), ""},
		{"CAUTH-11 RSA with 8192 bits", RS256, set("n", odd(8192)), ""},
		{"CAUTH-11 RSA with the largest exponent", RS256, set("e", bigEnc(big.NewInt(1<<31-1))), ""},
		{"CAUTH-11, attack JK-07: RSA with 1024 bits", RS256, set("n", odd(1024)), "RSA modulus is shorter than 2048 bits"},
		{"CAUTH-11 RSA with 2047 bits", RS256, set("n", odd(2047)), "RSA modulus is shorter than 2048 bits"},
		{"CAUTH-11, attack JK-07: RSA with 16384 bits", RS256, set("n", odd(16384)), "RSA modulus is longer than 8192 bits"},
		{"CAUTH-11 RSA with an even modulus", RS256, set("n", bigEnc(new(big.Int).Lsh(big.NewInt(1), 2047))), "RSA modulus is even"},
		{"CAUTH-11, attack JK-07: RSA exponent 1", RS256, set("e", "AQ"), "RSA exponent is out of range"},
		{"CAUTH-11 RSA exponent 3", RS256, set("e", "Aw"), "RSA exponent is out of range"},
		{"CAUTH-11 RSA exponent 65538", RS256, set("e", bigEnc(big.NewInt(65538))), "RSA exponent is out of range"},
		{"CAUTH-11 RSA exponent 0", RS256, set("e", "AA"), "RSA exponent is out of range"},
		{"CAUTH-11 RSA exponent 2^31+1", RS256, set("e", bigEnc(big.NewInt(1<<31+1))), "RSA exponent is out of range"},
		{"CAUTH-11, attack JK-07: RSA exponent 2^64+1", RS256, set("e", bigEnc(new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 64), big.NewInt(1)))), "RSA exponent is out of range"},
		{"RSA without a modulus", RS256, remove("n"), "modulus is not base64url"},
		{"RSA without an exponent", RS256, remove("e"), "exponent is not base64url"},
		{"RSA with a padded modulus", RS256, func(o object) { o["n"] = o["n"].(string) + "=" }, "modulus is not base64url"},
		{"CAUTH-11, attack JK-07: a point that is not on the curve", ES256, set("y", other.jwkMember("y")), "not a valid public key on its curve"},
		{"CAUTH-11, attack JK-07: the point at infinity", ES256, func(o object) {
			o["x"], o["y"] = b64.EncodeToString(make([]byte, 32)), b64.EncodeToString(make([]byte, 32))
		}, "not a valid public key on its curve"},
		{"a short coordinate", ES256, func(o object) { o["x"] = o["x"].(string)[:40] }, "not a valid public key on its curve"},
		{"a coordinate with a line break", ES256, func(o object) { o["x"] = o["x"].(string) + "\n" }, "coordinate is not base64url"},
		{"no y", ES256, remove("y"), "not a valid public key on its curve"},
		{"DOC-29 an unknown curve", ES256, set("crv", "secp256k1"), "unknown curve"},
		{"a curve that does not match", ES256, set("crv", "P-384"), "not a valid public key on its curve"},
		{"Ed25519 with 31 bytes", EdDSA, set("x", b64.EncodeToString(make([]byte, 31))), "not a valid public key on its curve"},
		{"DOC-29 a key for agreement", EdDSA, set("crv", "X25519"), "unknown curve"},
		{"DOC-29 an unknown kty", ES256, set("kty", "AKP"), "unknown kty"},
		{"DOC-29 no kty", ES256, remove("kty"), "kty is missing"},
		{"DOC-29 kty in another case", ES256, func(o object) { delete(o, "kty"); o["Kty"] = "EC" }, "kty is missing"},
		{"attack JK-08: use enc", ES256, set("use", "enc"), "use is not sig"},
		{"attack JK-08: key_ops encrypt", ES256, set("key_ops", []string{"encrypt"}), "key_ops does not contain verify"},
		{"attack JK-08: key_ops empty", ES256, set("key_ops", []string{}), "key_ops does not contain verify"},
		{"key_ops is a string", ES256, set("key_ops", "verify"), "key_ops is not an array of strings"},
		{"attack JK-08: alg ES384 on P-256", ES256, set("alg", "ES384"), "no supported algorithm"},
		{"attack JK-08: alg RS256 on P-256", ES256, set("alg", "RS256"), "no supported algorithm"},
		{"attack JK-08: alg HS256 on RSA", RS256, set("alg", "HS256"), "no supported algorithm"},
		{"CAUTH-11 P-384 is sound and fits none of our algorithms", ES256, func(o object) { clear(o); json.Unmarshal(raw384, &o) }, "no supported algorithm"},
		{"kid is a number", ES256, set("kid", 7), "kid is not a string"},
		{"attack JK-06: kid of 64 kB", ES256, set("kid", strings.Repeat("a", 20<<10)), "kid is too long"},
	}
	// The points of low order, RFC 7748's curve in Edwards form, with the
	// encodings of small values that are not reduced.
	for _, h := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		raw, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		for _, sign := range []byte{0, 0x80} {
			point := bytes.Clone(raw)
			point[31] |= sign
			rows = append(rows, struct {
				name   string
				alg    string
				spoil  func(object)
				reason string
			}{fmt.Sprintf("CAUTH-11, attack JK-07: the Ed25519 point of low order %x", point), EdDSA, set("x", b64.EncodeToString(point)), "not a valid public key on its curve"})
		}
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			raw := setOf(t, pub(t, other), pub(t, testKeys()[row.alg], row.spoil))
			for _, parse := range []func([]byte, SetLimits) (Set, error){ParseSet, ParseRemoteSet} {
				s, err := parse(raw, SetLimits{})
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case row.reason == "" && len(s.Keys) != 2:
					t.Errorf("dropped: %+v", s.Dropped)
				case row.reason != "" && (len(s.Keys) != 1 || len(s.Dropped) != 1 || s.Dropped[0].Index != 1 || s.Dropped[0].Reason != row.reason):
					t.Errorf("%d keys, dropped %+v, want %q", len(s.Keys), s.Dropped, row.reason)
				case row.reason != "" && len(s.Dropped[0].KID) > maxKID:
					t.Error("a long kid is passed on")
				}
			}
		})
	}
}

func TestPrivateMaterial(t *testing.T) {
	good := testKeys()[ES256]
	spoiled := []any{object{"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, object{"kty": "oct"}}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
		spoiled = append(spoiled, pub(t, testKeys()[RS256], func(o object) { o[name] = "AQAB" }))
		spoiled = append(spoiled, object{"kty": "future", name: nil})
	}
	for i, key := range spoiled {
		t.Run(fmt.Sprintf("DOC-05, attack JK-01: private material %d refuses an inline set and is dropped from a remote one", i), func(t *testing.T) {
			raw := setOf(t, pub(t, good), key)
			if _, err := ParseSet(raw, SetLimits{}); !errors.Is(err, ErrPrivateKey) {
				t.Errorf("inline: %v, want ErrPrivateKey", err)
			}
			s, err := ParseRemoteSet(raw, SetLimits{})
			if err != nil || len(s.Keys) != 1 || len(s.Dropped) != 1 || s.Dropped[0].Reason != ErrPrivateKey.Error() {
				t.Errorf("remote: %+v, %v", s, err)
			}
		})
	}
	t.Run("DOC-05 a private key of every kind, as its owner wrote it", func(t *testing.T) {
		for alg, p := range testKeys() {
			if _, err := ParseSet(setOf(t, p), SetLimits{}); !errors.Is(err, ErrPrivateKey) {
				t.Errorf("%s: %v", alg, err)
			}
			bare, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseSet(bare, SetLimits{}); !errors.Is(err, ErrPrivateKey) {
				t.Errorf("%s, without a set around it: %v", alg, err)
			}
		}
	})
}

func TestSetLimits(t *testing.T) {
	key := pub(t, testKeys()[ES256])
	many := func(n int) []byte { return setOf(t, make([]any, n)...) }
	for _, row := range []struct {
		name string
		raw  []byte
		lim  SetLimits
		ok   bool
	}{
		{"DOC-29 an empty set", []byte(`{"keys":[]}`), SetLimits{}, true},
		{"DOC-29 sixteen keys", many(16), SetLimits{}, true},
		{"DOC-29, attack JK-07: seventeen keys", many(17), SetLimits{}, false},
		{"attack JK-07: 500 keys", many(500), SetLimits{}, false},
		{"a limit of ones own", many(2), SetLimits{MaxKeys: 1}, false},
		{"DOC-29, attack JK-07: over 32 KiB", append(setOf(t, key), bytes.Repeat([]byte(" "), 32<<10)...), SetLimits{}, false},
		{"over a size of ones own", setOf(t, key), SetLimits{MaxBytes: 20}, false},
		{"no keys member", []byte(`{"Keys":[]}`), SetLimits{}, false},
		{"keys is an object", []byte(`{"keys":{}}`), SetLimits{}, false},
		{"keys twice", []byte(`{"keys":[],"keys":[]}`), SetLimits{}, false},
		{"a key member twice", []byte(`{"keys":[{"kty":"EC","kty":"RSA"}]}`), SetLimits{}, false},
		{"an array", []byte(`[]`), SetLimits{}, false},
		{"no JSON", []byte(`<html>`), SetLimits{}, false},
		{"nothing", nil, SetLimits{}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := ParseRemoteSet(row.raw, row.lim)
			if (err == nil) != row.ok {
				t.Errorf("error %v, want ok %v", err, row.ok)
			}
		})
	}
	t.Run("a key that is no object is dropped", func(t *testing.T) {
		s, err := ParseRemoteSet([]byte(`{"keys":[7,null,"x",[]]}`), SetLimits{})
		if err != nil || len(s.Dropped) != 4 || len(s.Keys) != 0 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestFind(t *testing.T) {
	es, rs, ed := testKeys()[ES256].Public(), testKeys()[RS256].Public(), testKeys()[EdDSA].Public()
	second, err := Generate(ES256)
	if err != nil {
		t.Fatal(err)
	}
	named := func(k Key, kid string) Key { k.kid = kid; return k }
	open := func(k Key) Key { k.alg = ""; return k }
	for _, row := range []struct {
		name     string
		keys     []Key
		kid, alg string
		want     Key
		err      error
	}{
		{"CAUTH-10 by kid", []Key{named(es, "a"), named(second.Public(), "b")}, "b", ES256, named(second.Public(), "b"), nil},
		{"CAUTH-10 an unknown kid", []Key{named(es, "a")}, "b", ES256, Key{}, ErrNoKey},
		{"CAUTH-10 a kid is no key without one", []Key{named(es, "")}, "a", ES256, Key{}, ErrNoKey},
		{"CAUTH-10 the kid of a key of another kind", []Key{named(rs, "a")}, "a", ES256, Key{}, ErrNoKey},
		{"CAUTH-10 no kid and one key that fits", []Key{named(rs, "a"), named(es, "b"), named(ed, "c")}, "", ES256, named(es, "b"), nil},
		{"CAUTH-10 no kid and two keys that fit", []Key{es, second.Public()}, "", ES256, Key{}, ErrAmbiguous},
		{"CAUTH-10 no kid and one key under two names", []Key{named(es, "a"), named(es, "b")}, "", ES256, named(es, "b"), nil},
		{"CAUTH-10 no kid and none that fits", []Key{rs, ed}, "", ES256, Key{}, ErrNoKey},
		{"CAUTH-10, attack JK-07: one kid, two kinds", []Key{named(es, "a"), named(rs, "a")}, "a", RS256, named(rs, "a"), nil},
		{"CAUTH-10, attack JK-07: one kid, two keys of a kind", []Key{named(es, "a"), named(second.Public(), "a")}, "a", ES256, Key{}, ErrAmbiguous},
		{"CAUTH-07 alg of the key decides", []Key{rs}, rs.kid, PS256, Key{}, ErrNoKey},
		{"CAUTH-07 a key that leaves alg open fits", []Key{open(rs)}, rs.kid, PS256, open(rs), nil},
		{"CAUTH-07 no algorithm fits nothing", []Key{es, rs, ed}, "", "", Key{}, ErrNoKey},
		{"CAUTH-07 none fits nothing", []Key{open(es), open(rs), open(ed)}, "", "none", Key{}, ErrNoKey},
		{"an empty set", nil, "a", ES256, Key{}, ErrNoKey},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := Set{Keys: row.keys}.Find(row.kid, row.alg)
			if !errors.Is(err, row.err) || !got.Equal(row.want) {
				t.Errorf("got %v %v, want %v %v", got.KID(), err, row.want.KID(), row.err)
			}
		})
	}
}

func TestMarshalSet(t *testing.T) {
	var keys []Key
	for _, alg := range Algorithms {
		keys = append(keys, testKeys()[alg].Public())
	}
	raw, err := MarshalSet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSet(raw, SetLimits{})
	if err != nil || len(s.Keys) != len(keys) {
		t.Fatalf("%+v, %v", s, err)
	}
	for i, k := range s.Keys {
		if !k.Equal(keys[i]) || k.Algorithm() != Algorithms[i] {
			t.Errorf("key %d came back as %s %s", i, k.KID(), k.Algorithm())
		}
	}
	var plain struct{ Keys []object }
	if err := json.Unmarshal(raw, &plain); err != nil {
		t.Fatal(err)
	}
	for _, k := range plain.Keys {
		if k["use"] != "sig" || k["kid"] == "" || k["d"] != nil {
			t.Errorf("published as %v", k)
		}
	}
	if raw, err := MarshalSet(); err != nil || string(raw) != `{"keys":[]}` {
		t.Errorf("no keys: %s, %v", raw, err)
	}
	if _, err := MarshalSet(Key{}); err == nil {
		t.Error("published no key")
	}
}

func TestObject(t *testing.T) {
	for in, want := range map[string]string{
		`{}`: ``,
		` { "a" : 1 , "b" : [ 1 , { "a" : "x\"}," } ] } `: `a=1 b=[ 1 , { "a" : "x\"}," } ]`,
		`{"\u0061":true,"A":null}`:                        `A=null a=true`,
		`{"a":-1.5e3,"b":"\\"}`:                           `a=-1.5e3 b="\\"`,
	} {
		got, err := Object([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		var parts []string
		for _, name := range []string{"A", "a", "b"} {
			if v, ok := got[name]; ok {
				parts = append(parts, name+"="+string(v))
			}
		}
		if s := strings.Join(parts, " "); s != want {
			t.Errorf("%s is %s, want %s", in, s, want)
		}
	}
	wide := "{"
	for i := range 300 {
		wide += fmt.Sprintf(`"m%d":0,`, i)
	}
	for _, in := range []string{"", "  ", "null", "[]", `{"a":1,"a":1}`, `{"a":{"b":1,"b":1}}`, `{"a":[{"b":1,"b":1}]}`, `{"a":1}x`,
		"{\"\xff\":1}", `{"a":01}`, strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), wide + `"x":0}`} {
		if _, err := Object([]byte(in)); err == nil {
			t.Errorf("%.60q was read", in)
		}
	}
}

// FuzzObject holds our reading of JSON against encoding/json's.
func FuzzObject(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,"\"",{}]},"c":null}`))
	f.Add([]byte(`{"a":1,"\u0061":2}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := Object(in)
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(in, &want); err != nil {
			t.Fatalf("%q: encoding/json says %v", in, err)
		}
		if len(got) != len(want) {
			t.Fatalf("%q: %d members, want %d", in, len(got), len(want))
		}
		for name, v := range want {
			if !bytes.Equal(bytes.TrimSpace(v), got[name]) {
				t.Fatalf("%q: %q is %q, want %q", in, name, got[name], v)
			}
		}
	})
}
