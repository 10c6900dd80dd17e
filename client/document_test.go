package client

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/internal/jose"
)

func TestNew(t *testing.T) {
	k := key(t, "ES256")
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"CLI-06 a document's URL is enough", Config{ID: appID}, ""},
		{"CLI-06 so is a registered client_id", Config{Registered: map[string]string{"https://as.test": "x"}}, ""},
		{"CLI-06 neither", Config{}, "neither"},
		{"CLI-06 a client_id over http", Config{ID: "http://app.test/c.json"}, "https"},
		{"CLI-06 a client_id over http on this computer", Config{ID: "http://127.0.0.1:9000/c.json"}, ""},
		{"CLI-06 the other names of this computer", Config{ID: "http://[::1]:9000/c.json", RegisterAs: "x"}, ""},
		{"CLI-06 a client_id over http that begins like this computer", Config{ID: "http://localhost.app.test/c.json"}, "https"},
		{"CLI-06 a client_id over http on another loopback address", Config{ID: "http://127.0.0.2/c.json"}, "https"},
		{"CLI-06 a client_id without a path", Config{ID: "https://app.test"}, "path"},
		{"CLI-06 a client_id that is a root", Config{ID: "https://app.test/"}, "path"},
		{"CLI-06 a client_id with a fragment", Config{ID: appID + "#"}, "fragment"},
		{"CLI-06 a client_id with user information", Config{ID: "https://u@app.test/c"}, "user information"},
		{"CLI-06 a client_id with empty user information", Config{ID: "https://@app.test/c"}, "user information"},
		{"CLI-06 a client_id with dot segments", Config{ID: "https://app.test/a/../c"}, "dot"},
		{"CLI-18 a redirect that is not loopback", Config{ID: appID, Redirect: "https://app.test/cb"}, "Redirect"},
		{"CLI-18 a redirect to all interfaces", Config{ID: appID, Redirect: "http://0.0.0.0/cb"}, "Redirect"},
		{"CLI-18 a redirect with a query", Config{ID: appID, Redirect: "http://127.0.0.1/cb?a=b"}, "Redirect"},
		{"CLI-17 a method with a secret", Config{ID: appID, Methods: []string{"client_secret_basic"}}, "not for a client"},
		{"CLI-17 private_key_jwt without a key", Config{ID: appID, Methods: []string{"private_key_jwt"}}, "needs a Key"},
		{"CLI-17 both methods", Config{ID: appID, Key: k, Methods: []string{"private_key_jwt", "none"}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.cfg)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestDocument(t *testing.T) {
	k := key(t, "ES256")
	private, err := k.MarshalPrivate()
	if err != nil {
		t.Fatal(err)
	}
	public, err := PublicKeys(k)
	if err != nil {
		t.Fatal(err)
	}
	good := Document{
		ClientID: appID, ClientName: "App", RedirectURIs: []string{"http://127.0.0.1/callback", "https://app.test/cb"},
		GrantTypes: []string{"authorization_code", "refresh_token"}, ResponseTypes: []string{"code"}, AuthMethod: "private_key_jwt", JWKS: public,
	}
	for _, tc := range []struct {
		name   string
		change func(*Document)
		want   string
	}{
		{"CLI-17 a good document", func(*Document) {}, ""},
		{"CLI-17 keys at an address", func(d *Document) { d.JWKS, d.JWKSURI = nil, "https://app.test/jwks.json" }, ""},
		{"CLI-17 both kinds of keys", func(d *Document) { d.JWKSURI = "https://app.test/jwks.json" }, "exclude"},
		{"CLI-17 keys over http", func(d *Document) { d.JWKS, d.JWKSURI = nil, "http://app.test/jwks.json" }, "https"},
		{"CLI-17 no keys", func(d *Document) { d.JWKS = nil }, "needs jwks_uri"},
		{"CLI-17 a private key", func(d *Document) { d.JWKS = json.RawMessage(`{"keys":[` + string(private) + `]}`) }, "private key"},
		{"CLI-17 keys that are none", func(d *Document) { d.JWKS = json.RawMessage(`{}`) }, "jwks"},
		{"CLI-17 an empty key set", func(d *Document) { d.JWKS = json.RawMessage(`{"keys":[]}`) }, "no usable key"},
		{"CLI-17 a method with a secret", func(d *Document) { d.AuthMethod = "client_secret_post" }, "no secret"},
		{"CLI-17 a further method with a secret", func(d *Document) { d.AuthMethods = []string{"none", "client_secret_jwt"} }, "no secret"},
		{"CLI-17 an unknown algorithm", func(d *Document) { d.SigningAlg = "HS256" }, "HS256"},
		{"CLI-18 a wildcard", func(d *Document) { d.RedirectURIs = []string{"http://localhost:*/callback"} }, "absolute"},
		{"CLI-18 a wildcard in the path", func(d *Document) { d.RedirectURIs = []string{"https://app.test/*"} }, "wildcard"},
		{"CLI-18 a redirect over http", func(d *Document) { d.RedirectURIs = []string{"http://app.test/cb"} }, "https"},
		{"CLI-18 a private-use scheme", func(d *Document) { d.RedirectURIs = []string{"app.test:/cb"} }, "absolute"},
		{"CLI-18 a redirect with user information", func(d *Document) { d.RedirectURIs = []string{"https://u@app.test/cb"} }, "user information"},
		{"CLI-18 no redirect", func(d *Document) { d.RedirectURIs = nil }, "redirect_uris"},
		{"CLI-18 no redirect where none is needed", func(d *Document) {
			d.RedirectURIs, d.GrantTypes = nil, []string{"client_credentials"}
		}, ""},
		{"CLI-06 no name", func(d *Document) { d.ClientName = "" }, "client_name"},
		{"CLI-06 a bad client_id", func(d *Document) { d.ClientID = "app" }, "client_id"},
		{"CLI-06 a page over http", func(d *Document) { d.ClientURI = "http://app.test" }, "client_uri"},
		{"CLI-06 a scope outside the grammar", func(d *Document) { d.Scope = "a\"b" }, "scope"},
		{"CLI-06 too large", func(d *Document) { d.Contacts = []string{strings.Repeat("x", MaxDocument)} }, "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := good
			tc.change(&d)
			raw, err := d.Publish()
			if tc.want == "" {
				var back Document
				if err != nil || json.Unmarshal(raw, &back) != nil || len(raw) > MaxDocument {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	t.Run("CLI-17, CLI-28 the document that fits a client", func(t *testing.T) {
		for _, cfg := range []Config{{ID: appID}, {ID: appID, Key: k}, {ID: appID, Key: k, Methods: []string{"none", "private_key_jwt"}}} {
			c, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := c.Document("App").Publish()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(raw), `"d"`) || strings.Contains(string(raw), "secret") {
				t.Error(string(raw))
			}
		}
	})
}

func TestKey(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA", "PS256", "RS256"} {
		t.Run("CLI-16 a key survives its file: "+alg, func(t *testing.T) {
			k := key(t, alg)
			raw, err := k.MarshalPrivate()
			if err != nil {
				t.Fatal(err)
			}
			back, err := ParseKey(raw)
			if err != nil || back.ID() != k.ID() || back.Algorithm() != alg || back.IsZero() {
				t.Error(back, err)
			}
			set, err := PublicKeys(k, key(t, "ES256"))
			if err != nil {
				t.Fatal(err)
			}
			if s, err := jose.ParseSet(set, jose.SetLimits{}); err != nil || len(s.Keys) != 2 || s.Keys[0].KID() != k.ID() {
				t.Error(s, err)
			}
		})
	}
	t.Run("CLI-16 keys as PEM", func(t *testing.T) {
		ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		_, ed, _ := ed25519.GenerateKey(rand.Reader)
		rs, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		pkcs8 := func(k any) []byte { b, _ := x509.MarshalPKCS8PrivateKey(k); return b }
		sec1, _ := x509.MarshalECPrivateKey(ec)
		spki, _ := x509.MarshalPKIXPublicKey(&ec.PublicKey)
		for _, tc := range []struct {
			kind string
			der  []byte
			alg  string
		}{
			{"PRIVATE KEY", pkcs8(ec), "ES256"},
			{"PRIVATE KEY", pkcs8(ed), "EdDSA"},
			{"PRIVATE KEY", pkcs8(rs), "RS256"},
			{"EC PRIVATE KEY", sec1, "ES256"},
			{"RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs), "RS256"},
			{"PRIVATE KEY", pkcs8(p384), ""},
			{"PRIVATE KEY", []byte("x"), ""},
			{"PUBLIC KEY", spki, ""},
		} {
			k, err := ParseKey(pem.EncodeToMemory(&pem.Block{Type: tc.kind, Bytes: tc.der}))
			if (err == nil) != (tc.alg != "") || k.Algorithm() != tc.alg {
				t.Error(tc.kind, k, err)
			}
			if err != nil {
				continue
			}
			compact, err := k.private.Sign("x", map[string]int{"a": 1})
			if err != nil {
				t.Fatal(err)
			}
			m, err := jose.Parse(compact, 0)
			if err != nil || m.Verify(k.private.Public()) != nil {
				t.Error(tc.kind, "does not sign")
			}
		}
	})
	t.Run("CLI-16 what is no key", func(t *testing.T) {
		for _, raw := range []string{"", "{}", "nothing", `{"kty":"oct","k":"c2VjcmV0"}`} {
			if k, err := ParseKey([]byte(raw)); err == nil || !k.IsZero() {
				t.Errorf("%q became %s", raw, k)
			}
		}
		if _, err := GenerateKey("HS256"); err == nil {
			t.Error("HS256")
		}
		if _, err := (Key{}).MarshalPrivate(); err == nil {
			t.Error("the zero key")
		}
		if _, err := PublicKeys(Key{}); err == nil {
			t.Error("the zero key")
		}
	})
	t.Run("CLI-22 printing a key does not show it", func(t *testing.T) {
		k := key(t, "ES256")
		raw, _ := k.MarshalPrivate()
		var jwk map[string]string
		if err := json.Unmarshal(raw, &jwk); err != nil {
			t.Fatal(err)
		}
		want := "key " + k.ID() + " (ES256)"
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if diff := cmp.Diff(want, fmt.Sprintf(verb, k)); diff != "" {
				t.Error(verb, diff)
			}
		}
		if told := fmt.Sprintf("%+v %#v", Config{Key: k}, struct{ k Key }{k}); strings.Contains(told, jwk["d"]) {
			t.Error(told)
		}
	})
}
