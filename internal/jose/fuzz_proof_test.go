package jose

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	gojose "github.com/go-jose/go-jose/v4"
)

// slowProof is RFC 9449 section 4.3 once more, written down item by item, with
// go-jose for keys, thumbprints and signatures. It returns the thumbprint.
func slowProof(raw string, r ProofRules) (string, bool) {
	if len(raw) > 8<<10 || strings.Count(raw, ".") != 2 {
		return "", false
	}
	object, err := gojose.ParseSignedCompact(raw, []gojose.SignatureAlgorithm{gojose.ES256, gojose.PS256, gojose.RS256, gojose.EdDSA})
	if err != nil || len(object.Signatures) != 1 {
		return "", false
	}
	head := object.Signatures[0].Protected
	if typ, _ := head.ExtraHeaders["typ"].(string); typ != "dpop+jwt" {
		return "", false
	}
	if head.JSONWebKey == nil || !head.JSONWebKey.Valid() || !head.JSONWebKey.IsPublic() {
		return "", false
	}
	payload, err := object.Verify(head.JSONWebKey)
	if err != nil {
		return "", false
	}
	claims, err := strictObject(payload)
	if err != nil {
		return "", false
	}
	jti, _ := claims["jti"].(string)
	htm, _ := claims["htm"].(string)
	htu, _ := claims["htu"].(string)
	iat, isNumber := claims["iat"].(json.Number)
	seconds, err := iat.Float64()
	if jti == "" || htm != r.Method || !isNumber || err != nil {
		return "", false
	}
	if math.Abs(seconds-float64(r.Now.Unix())) > math.Max(r.Past.Seconds(), r.Future.Seconds()) || seconds > float64(r.Now.Add(r.Future).Unix()) {
		return "", false
	}
	u, err := url.Parse(htu)
	if err != nil || u.User != nil || !strings.EqualFold(u.Scheme, "https") || strings.TrimSuffix(strings.ToLower(u.Host), ":443") != "as.test" || u.Path != "/token" {
		return "", false
	}
	if r.AccessToken != "" {
		sum := sha256.Sum256([]byte(r.AccessToken))
		if claims["ath"] != base64.RawURLEncoding.EncodeToString(sum[:]) {
			return "", false
		}
	}
	thumb, err := head.JSONWebKey.Thumbprint(crypto.SHA256)
	return base64.RawURLEncoding.EncodeToString(thumb), err == nil
}

// FuzzProof signs any header and any payload with a good key and puts its public
// half where the header says KEY. Nothing that ParseProof accepts is refused by
// slowProof, and both find the same key.
func FuzzProof(f *testing.F) {
	key := testKeys()[ES256]
	public, err := key.Public().MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	const head, body = `{"typ":"dpop+jwt","alg":"ES256","jwk":KEY}`, `{"jti":"a","htm":"POST","htu":"https://as.test/token","iat":1772366400}`
	for _, s := range [][2]string{
		{head, body}, {head, strings.Replace(body, "as.test", "AS.test:443", 1)}, {head, strings.Replace(body, "/token", "/%74oken?x#y", 1)},
		{head, strings.Replace(body, "1772366400", "1772366400.75", 1)}, {head, strings.Replace(body, "1772366400", "1.7723664e9", 1)},
		{strings.Replace(head, "ES256", "none", 1), body}, {strings.Replace(head, "KEY", `{"kty":"oct","k":"AA"}`, 1), body},
		{strings.Replace(head, "KEY}", `KEY,"jwk":{}}`, 1), body}, {strings.Replace(head, "{", `{"crit":["x"],`, 1), body},
		{head, strings.Replace(body, "{", `{"nonce":"n","ath":"x",`, 1)}, {head, body + " "}, {head, "{}"}, {"", ""},
	} {
		f.Add(s[0], s[1], false)
		f.Add(s[0], s[1], true)
	}
	f.Fuzz(func(t *testing.T, head, body string, withToken bool) {
		rules := ProofRules{Method: "POST", URL: "https://as.test/token", Now: time.Unix(1772366400, 0), Past: 5 * time.Minute, Future: time.Minute}
		if withToken {
			rules.AccessToken = "token"
			body = strings.Replace(body, `"ath":"x"`, `"ath":"`+ath("token")+`"`, 1)
		}
		raw := forge(t, key, strings.Replace(head, "KEY", string(public), 1), body)
		got, err := ParseProof(raw, rules)
		if err != nil {
			return
		}
		want, ok := slowProof(raw, rules)
		if !ok || got.JKT != want {
			t.Fatalf("accepted with key %s, want %s: %s %s", got.JKT, want, head, body)
		}
		if !bytes.Equal(got.Claims, []byte(body)) || got.JTI == "" {
			t.Fatalf("claims %s", got.Claims)
		}
	})
}
