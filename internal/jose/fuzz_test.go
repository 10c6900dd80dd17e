package jose

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	gojose "github.com/go-jose/go-jose/v4"
)

// strictObject says by encoding/json alone whether raw is one JSON object in
// which no name stands twice, and returns its members.
func strictObject(raw []byte) (map[string]any, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := strictValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows")
	}
	out, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	return out, nil
}

func strictValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth++; depth > maxDepth {
		return nil, errors.New("too deep")
	}
	object, list := map[string]any{}, []any{}
	for d.More() {
		name := ""
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return nil, err
			}
			name = t.(string)
		}
		v, err := strictValue(d, depth)
		if err != nil {
			return nil, err
		}
		if _, twice := object[name]; twice && open == '{' {
			return nil, errors.New("a name twice")
		}
		object[name] = v
		list = append(list, v)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if open == '[' {
		return list, nil
	}
	if len(object) > maxMembers {
		return nil, errors.New("too many members")
	}
	return object, nil
}

// literalHeader is the list of what a header must and must not say, member by
// member.
func literalHeader(raw []byte) (Header, bool) {
	members, err := strictObject(raw)
	if err != nil {
		return Header{}, false
	}
	for _, name := range []string{"crit", "b64", "enc", "zip"} {
		if _, there := members[name]; there {
			return Header{}, false
		}
	}
	values := map[string]string{}
	for _, name := range []string{"alg", "kid", "typ", "cty"} {
		v, there := members[name]
		s, isString := v.(string)
		if there && !isString {
			return Header{}, false
		}
		values[name] = s
	}
	if c := strings.ToLower(values["cty"]); c == "jwt" || c == "application/jwt" {
		return Header{}, false
	}
	h := Header{Alg: values["alg"], KID: values["kid"], Typ: values["typ"]}
	if h.Alg == "Ed25519" { // RFC 9864 section 2.2
		h.Alg = "EdDSA"
	}
	return h, slices.Contains([]string{"ES256", "PS256", "RS256", "EdDSA"}, h.Alg) && len(h.KID) <= 256
}

// FuzzHeader signs every header, however wrong. Parse must read it exactly when
// literalHeader does, and to the same; what verifies here verifies by go-jose,
// and what go-jose verifies under our allow-list is refused here only for a
// reason that literalHeader has, too.
func FuzzHeader(f *testing.F) {
	for _, s := range []string{
		`{"alg":"ES256","kid":"k1","typ":"JWT"}`, `{"alg":"EdDSA"}`, `{"alg":"Ed25519","kid":""}`, `{"alg":"none"}`, `{"alg":"HS256"}`, `{"ALG":"ES256"}`,
		`{"alg":"ES256","crit":["b64"],"b64":false}`, `{"alg":"ES256","alg":"EdDSA"}`, `{"alg":"ES256","\u0061lg":"none"}`, `{"alg":"EdDSA","cty":"application/JWT"}`,
		`{"alg":"EdDSA","jwk":{"kty":"oct","k":"AA"},"jku":"https://evil.test/k"}`, `{"alg":"EdDSA","x5c":[1],"nonce":7}`, `{"alg":"dir","enc":"A128GCM"}`, `{"alg":"EdDSA","kid":null}`,
	} {
		f.Add([]byte(s))
	}
	edwards, nist := testKeys()[EdDSA], testKeys()[ES256]
	f.Fuzz(func(t *testing.T, header []byte) {
		if len(header) > 8<<10 {
			return
		}
		want, ok := literalHeader(header)
		signer := nist
		if want.Alg == EdDSA {
			signer = edwards
		}
		token := forge(t, signer, string(header), `{"iss":"https://good.test/c.json"}`)
		m, err := Parse(token, 0)
		if (err == nil) != ok || ok && m.Header != want {
			t.Fatalf("%q: read as %+v, %v; the list says %+v, %v", header, m, err, want, ok)
		}
		if !ok {
			return
		}
		again, err := json.Marshal(map[string]string{"alg": m.Header.Alg, "kid": m.Header.KID, "typ": m.Header.Typ})
		if err != nil {
			t.Fatal(err)
		}
		second, err := Parse(forge(t, signer, string(again), `{}`), 0)
		if err != nil || second.Header != m.Header {
			t.Fatalf("%q became %s: %+v, %v", header, again, second, err)
		}
		if err := m.Verify(signer.Public()); (err == nil) != signer.Public().Fits(want.Alg) {
			t.Fatalf("%q: %v", header, err)
		} else if err == nil {
			checkTheirs(t, token, header, signer)
		}
	})
}

// checkTheirs wants go-jose to verify what verified here. It knows no alg
// Ed25519, and it reads the members that we do not look at on purpose: a header
// in which those are malformed, or a number is too large for a float64, is none
// of its business.
func checkTheirs(t *testing.T, token string, header []byte, p Private) {
	t.Helper()
	var members map[string]any
	if json.Unmarshal(header, &members) != nil {
		return
	}
	for _, name := range []string{"jwk", "x5c", "nonce"} {
		if _, there := members[name]; there {
			return
		}
	}
	if members["alg"] == "Ed25519" {
		return
	}
	theirs, err := gojose.ParseSignedCompact(token, []gojose.SignatureAlgorithm{gojose.ES256, gojose.PS256, gojose.RS256, gojose.EdDSA})
	if err != nil {
		t.Fatalf("go-jose does not parse %q: %v", header, err)
	}
	if _, err := theirs.Verify(p.key.pub); err != nil {
		t.Fatalf("go-jose does not verify %q: %v", header, err)
	}
}
