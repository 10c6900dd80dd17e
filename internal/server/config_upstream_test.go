package server

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const withUpstream = `
issuer: https://as.test
resources: [{id: https://mcp.test/mcp, name: Tools}]
upstream:
  - {name: acme, issuer: https://idp.test, client_id: us, link: [email], domains: [acme.example], scopes: [openid], client_secret_file: secret}
`

func TestUpstreamConfiguration(t *testing.T) {
	if _, err := Parse([]byte(withUpstream), t.TempDir(), false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"no name", "name: acme, ", "", "name"},
		{"a name that is no part of a path", "name: acme", "name: a/b", "name"},
		{"http", "https://idp.test", "http://idp.test", "issuer"},
		{"a query", "https://idp.test", "\"https://idp.test?x=1\"", "issuer"},
		{"ourselves", "https://idp.test", "https://as.test", "this server"},
		{"no client_id", "client_id: us, ", "", "client_id"},
		{"without openid", "[openid]", "[email]", "openid"},
		{"link without domains", "domains: [acme.example], ", "", "domains"},
		{"another link", "link: [email]", "link: [name]", "link"},
		{"a domain with a wildcard", "acme.example", "'*.acme.example'", "domain"},
		{"the same name twice", "client_secret_file: secret}", "client_secret_file: secret}\n  - {name: acme, issuer: https://b.test, client_id: us}", "name"},
		{"the same issuer twice", "client_secret_file: secret}", "client_secret_file: secret}\n  - {name: b, issuer: https://idp.test, client_id: us}", "twice"},
		{"an unknown key", "client_id: us", "client_id: us, client_secret: x", "unknown key client_secret"},
	} {
		t.Run("OIDC-05 refused: "+c.name, func(t *testing.T) {
			text := strings.Replace(withUpstream, c.old, c.new, 1)
			if text == withUpstream {
				t.Fatal("the test spoils nothing")
			}
			if _, err := Parse([]byte(text), t.TempDir(), false); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("OIDC-05 nobody could sign in", func(t *testing.T) {
		if _, err := Parse([]byte("issuer: https://as.test\nresources: [{id: https://mcp.test/mcp, name: Tools}]\npassword_sign_in: false\n"), t.TempDir(), false); err == nil || !strings.Contains(err.Error(), "nobody could sign in") {
			t.Errorf("%v", err)
		}
	})
	t.Run("OIDC-05 the secret stands in a file", func(t *testing.T) {
		c, err := Parse([]byte(withUpstream), t.TempDir(), false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Upstream[0].secret(c.path); err == nil {
			t.Error("there is no file")
		}
		for text, want := range map[string]string{"s3cret\n": "s3cret", " s \r\nx": "s", "\n": ""} {
			if err := os.WriteFile(filepath.Join(c.dir, "secret"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Upstream[0].secret(c.path); got != want || (err == nil) != (want != "") {
				t.Errorf("%q: %q, %v", text, got, err)
			}
		}
	})
}

func TestAddressesAreVerifiedWhereTheOperatorSaysSo(t *testing.T) {
	for text, want := range map[string]bool{"": false, "emails_verified: false, ": false, "emails_verified: true, ": true} {
		t.Run("OIDC-05, XCH-10 "+text, func(t *testing.T) {
			c, err := Parse([]byte(withUpstream+"id_jag: {issuers: [{"+text+"issuer: https://idp.test, jwks_uri: https://idp.test/jwks, link: email}]}\n"), t.TempDir(), false)
			if err != nil {
				t.Fatal(err)
			}
			trusted, err := c.IDJAG.trusted(c.path, http.DefaultClient, time.Now)
			if err != nil || len(trusted) != 1 || trusted[0].EmailsVerified != want {
				t.Errorf("%+v, %v", trusted, err)
			}
		})
	}
}
