package clientauth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// notebook is a Spender in memory.
type notebook map[string]time.Time

func (n notebook) SpendID(_ context.Context, issuer string, id store.Hash, expires, now time.Time) error {
	key := issuer + " " + string(id[:])
	if now.Before(n[key]) {
		return store.ErrSpent
	}
	n[key] = expires
	return nil
}

// oneReading returns the members of the one JSON object in raw, and an error
// where two readers could disagree: a name that stands twice at any depth,
// invalid UTF-8, or more of it than anybody needs.
func oneReading(raw []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := readOnce(d, 0)
	if err != nil {
		return nil, err
	}
	out, ok := v.(map[string]any)
	if _, err := d.Token(); err != io.EOF || !ok || !utf8.Valid(raw) {
		return nil, errors.New("not one JSON object in UTF-8")
	}
	return out, nil
}

func readOnce(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	open, nested := t.(json.Delim)
	if err != nil || !nested {
		return t, err
	}
	if depth == 16 {
		return nil, errors.New("too deep")
	}
	object, list := map[string]any{}, []any{}
	for d.More() {
		var name string
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return nil, err
			}
			name = t.(string)
			if _, twice := object[name]; twice {
				return nil, errors.New("a name stands twice")
			}
		}
		v, err := readOnce(d, depth+1)
		if err != nil {
			return nil, err
		}
		object[name], list = v, append(list, v)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if open == '[' {
		return list, nil
	}
	if len(object) > 256 {
		return nil, errors.New("too many members")
	}
	return object, nil
}

// literalAssertion is CAUTH-03 to CAUTH-06 word by word over what encoding/json
// makes of the claims, with times as fractions of any precision.
func literalAssertion(raw []byte, clientID string, now time.Time) bool {
	m, err := oneReading(raw)
	if err != nil {
		return false
	}
	// CAUTH-03: iss and sub are the client, and so is the parameter if there is one.
	if m["iss"] != any(keyed) || m["sub"] != any(keyed) || clientID != "" && clientID != keyed {
		return false
	}
	// CAUTH-04: we are the sole audience, as a string or as a list of one.
	aud := m["aud"]
	if list, ok := aud.([]any); ok && len(list) == 1 {
		aud = list[0]
	}
	if aud != any(issuer) {
		return false
	}
	// CAUTH-05: exp is required and near; nbf and iat are honoured if they are there.
	times := map[string]*big.Rat{}
	for _, name := range []string{"exp", "nbf", "iat"} {
		if m[name] == nil {
			continue
		}
		n, ok := m[name].(json.Number)
		if !ok {
			return false
		}
		seconds, err := strconv.ParseFloat(n.String(), 64)
		if err != nil || seconds < 0 || seconds > 4*(1<<31-1) {
			return false
		}
		times[name] = new(big.Rat).SetFloat64(seconds)
	}
	exp := times["exp"]
	if exp == nil {
		return false
	}
	present := big.NewRat(now.Unix(), 1)
	plus := func(t *big.Rat, seconds int64) *big.Rat { return new(big.Rat).Add(t, big.NewRat(seconds, 1)) }
	if exp.Cmp(present) <= 0 || exp.Cmp(plus(present, 6*60)) > 0 {
		return false
	}
	for _, name := range []string{"nbf", "iat"} {
		if t := times[name]; t != nil && t.Cmp(plus(present, 60)) > 0 {
			return false
		}
	}
	if iat := times["iat"]; iat != nil && exp.Cmp(plus(iat, 6*60)) > 0 {
		return false
	}
	// CAUTH-06: there is an id of a size that can be remembered.
	jti, _ := m["jti"].(string)
	return jti != "" && len(jti) <= 256
}

// FuzzAssertionClaims signs any text as the claims of an assertion. They
// authenticate the client exactly when literalAssertion says so, and once; what
// is refused neither asks for keys nor spends anything. Each claim is JSON as it
// stands there, or is absent when it is empty; rest follows the last one.
func FuzzAssertionClaims(f *testing.F) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) // 1772366400
	quoted := `"` + keyed + `"`
	add := func(spoil func(aud, exp, nbf, iat, jti, rest *string)) {
		aud, exp, nbf, iat, jti, rest := `"`+issuer+`"`, "1772366460", "1772366400", "1772366400.5", `"1"`, ""
		spoil(&aud, &exp, &nbf, &iat, &jti, &rest)
		f.Add(quoted, quoted, aud, exp, nbf, iat, jti, rest, "")
	}
	add(func(_, _, _, _, _, _ *string) {})
	add(func(aud, _, nbf, iat, _, _ *string) { *aud, *nbf, *iat = `["`+issuer+`"]`, "", "" })
	add(func(_, exp, _, iat, _, _ *string) { *exp, *iat = "1772366400.0000001", "1772366461" })
	add(func(_, exp, nbf, iat, _, _ *string) { *exp, *nbf, *iat = "1.77236676e9", "null", "null" })
	add(func(_, exp, nbf, iat, _, _ *string) { *exp, *nbf, *iat = "1772366760.000001", "-0", "1e400" })
	add(func(_, _, _, _, jti, rest *string) { *jti, *rest = `"\ud800"`, `,"AUD":"https://evil.test","x":[{}]` })
	add(func(_, _, _, _, _, rest *string) { *rest = `,"\u0061ud":"https://evil.test"` })
	f.Add(quoted, quoted, `"`+issuer+`"`, "1772366460", "", "", `"1"`, "", keyed)
	f.Add(`"`+public+`"`, quoted, `"`+issuer+`"`, "1772366460", "", "", `"1"`, "}", public)
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	b64 := base64.RawURLEncoding
	set, err := jose.ParseSet([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"`+b64.EncodeToString(private.Public().(ed25519.PublicKey))+`"}]}`), jose.SetLimits{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, iss, sub, aud, exp, nbf, iat, jti, rest, clientID string) {
		var members []string
		for _, m := range [][2]string{{"iss", iss}, {"sub", sub}, {"aud", aud}, {"exp", exp}, {"nbf", nbf}, {"iat", iat}, {"jti", jti}} {
			if m[1] != "" {
				members = append(members, `"`+m[0]+`":`+m[1])
			}
		}
		raw := []byte("{" + strings.Join(members, ",") + rest + "}")
		p := &people{clients: map[string]*directory.Client{}, keys: map[string]jose.Set{keyed: set}}
		p.add(directory.Client{ID: keyed, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodPrivateKeyJWT}})
		spent := notebook{}
		a, err := New(Config{Issuer: issuer, Directory: p, Spender: spent, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		signed := b64.EncodeToString([]byte(`{"alg":"EdDSA"}`)) + "." + b64.EncodeToString(raw)
		q := withAssertion(signed + "." + b64.EncodeToString(ed25519.Sign(private, []byte(signed))))
		q.ClientID = clientID
		want := literalAssertion(raw, clientID, now) && len(q.Assertion) <= 16<<10
		c, err := a.Authenticate(t.Context(), q)
		if (err == nil) != want {
			t.Fatalf("%q with client_id %q: %v, the rules say %v", raw, clientID, err, want)
		}
		if !want {
			if code := oauth.AsError(err).Code; code != oauth.InvalidClient && code != oauth.InvalidRequest || p.asked != 0 || len(spent) != 0 {
				t.Fatalf("%q: refused with %v, keys asked for %d times, %d ids spent", raw, err, p.asked, len(spent))
			}
			return
		}
		if c.ID != keyed || c.Method != oauth.MethodPrivateKeyJWT || len(spent) != 1 {
			t.Fatalf("%q: %+v, %d ids spent", raw, c, len(spent))
		}
		if _, err := a.Authenticate(t.Context(), q); oauth.AsError(err).Code != oauth.InvalidClient {
			t.Fatalf("%q was good twice: %v", raw, err)
		}
	})
}
