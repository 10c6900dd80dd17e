package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const minimal = `
issuer: https://auth.example.com
resources:
  - id: https://mcp.example.com/github
    name: GitHub tools
    scopes: [{name: read, title: read issues}]
    default_scopes: [read]
`

func TestConfigHasDefaults(t *testing.T) {
	c, err := Parse([]byte(minimal), "/etc/bonafide", false)
	if err != nil {
		t.Fatal(err)
	}
	if c.CIMD.Enabled {
		t.Error("META-05 documents are resolved although nobody switched that on")
	}
	if c.Tokens.Access != 10*time.Minute || c.Tokens.Code != time.Minute || c.Policy.Default != "ask" || c.CIMD.Fetch != "after_sign_in" {
		t.Errorf("defaults: %+v", c)
	}
	if got := c.path(c.Store); got != "/etc/bonafide/bonafide.db" {
		t.Errorf("the store is at %s", got)
	}
	set, err := c.PolicySet()
	if err != nil || set.DefaultResource != "https://mcp.example.com/github" {
		t.Errorf("AUTHZ-17 one resource is the default one: %v, %v", set, err)
	}
	c.RequireResource = true
	if set, _ := c.PolicySet(); set.DefaultResource != "" {
		t.Error("AUTHZ-17 require_resource leaves no default")
	}
}

func TestConfigNamesTheMistake(t *testing.T) {
	for _, c := range []struct {
		name, add, replace, with, want string
		dev                            bool
	}{
		{name: "an unknown key", add: "issuerr: x\n", want: "unknown key issuerr"},
		{name: "an unknown key below", add: "cimd: {enable: true}\n", want: "enable"},
		{name: "META-04 a query in the issuer", replace: "auth.example.com", with: "auth.example.com?x", want: "META-04"},
		{name: "META-04 a fragment in the issuer", replace: "auth.example.com", with: "auth.example.com#", want: "META-04"},
		{name: "META-03 a slash at the end of the issuer", replace: "auth.example.com", with: "auth.example.com/", want: "slash"},
		{name: "META-18 an http issuer", replace: "https://auth", with: "http://auth", want: "https"},
		{name: "META-18 an http issuer on loopback without --dev", replace: "https://auth.example.com", with: "http://localhost:1", want: "--dev"},
		{name: "FETCH-07, attack SD-39: --dev on a public listener", add: "listen: 0.0.0.0:8080\n", dev: true, want: "loopback"},
		{name: "FETCH-07, attack SD-38: --dev on every address", add: "listen: ':8080'\n", dev: true, want: "loopback"},
		{name: "META-03 upper case in the issuer", replace: "auth.example.com", with: "Auth.example.com", want: "lower case"},
		{name: "META-03 a path that routers rewrite", replace: "auth.example.com", with: "auth.example.com/a/../b", want: "path"},
		{name: "META-03 a path with two slashes", replace: "auth.example.com", with: "auth.example.com//a", want: "path"},
		{name: "META-03 a path that looks like a pattern", replace: "auth.example.com", with: "auth.example.com/{tenant}", want: "path"},
		{name: "a listener without a port", add: "listen: localhost\n", want: "host:port"},
		{name: "TOK-08 an algorithm nobody here signs with", add: "tokens: {signing_alg: HS256}\n", want: "signing_alg"},
		{name: "CACHE-07 no floor", add: "cimd: {cache: {floor: 0s}}\n", want: "cimd.cache.floor"},
		{name: "FETCH-09 a limit of nothing", add: "cimd: {jwks_bytes: 0}\n", want: "cimd.jwks_bytes"},
		{name: "a proxy without its prefix length", add: "trusted_proxies: [127.0.0.1]\n", want: "127.0.0.1/32"},
		{name: "a time without a unit", add: "tokens: {access: 600}\n", want: "600 is not a span of time"},
		{name: "no resource", replace: "resources:", with: "x: &x", want: "x"},
		{name: "a document limit above the cap", add: "cimd: {document_bytes: 100000}\n", want: "document_bytes"},
		{name: "an unknown profile", add: "cimd: {profile: lax}\n", want: "profile"},
		{name: "an unknown time of fetching", add: "cimd: {fetch: never}\n", want: "fetch"},
		{name: "AUTHZ-20 a code that lives too long", add: "tokens: {code: 1h}\n", want: "AUTHZ-20"},
		{name: "TOK-12 a grace that is too long", add: "tokens: {refresh_grace: 5m}\n", want: "grace"},
		{name: "a store that is nowhere", add: "store: ''\n", want: "store: give"},
		{name: "POL-07 events that are hardly kept", add: "audit: {keep: 1h}\n", want: "audit.keep"},
		{name: "a certificate without a key", add: "tls: {cert_file: x}\n", want: "tls"},
		{name: "a rule that names nobody", add: "policy: {rules: [{action: allow}]}\n", want: "exactly one"},
		{name: "an introspection secret that is no hash", replace: "name: GitHub tools", with: "name: G\n    introspection_secret_sha256: secret", want: "hexadecimal"},
		{name: "two documents", add: "---\nissuer: x\n", want: "more than one"},
		{name: "a list for a value", add: "listen: [a]\n", want: "line 8: a list stands"},
		{name: "a value for a list", add: "trusted_proxies: 127.0.0.1\n", want: "line 8: 127.0.0.1 stands where a list belongs, such as [127.0.0.1]"},
		{name: "a value for keys", add: "cimd: off-and-on\n", want: "line 8: off-and-on stands where keys"},
		{name: "keys for a value", add: "store: {path: x}\n", want: "line 8: keys with values stand"},
		{name: "a word for a number", add: "cimd: {document_bytes: much}\n", want: "line 8: much is not a whole number"},
		{name: "a word for a switch", add: "cimd: {enabled: perhaps}\n", want: "line 8: perhaps is neither true nor false"},
		{name: "a key that stands twice", add: "store: a\nstore: b\n", want: "line 9: store stands twice, first at line 8"},
		{name: "a tab", add: "\tstore: a\n", want: "spaces, not with tabs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := minimal
			if c.replace != "" {
				text = strings.Replace(text, c.replace, c.with, 1)
			}
			_, err := Parse([]byte(text+c.add), ".", c.dev)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error that says %q", err, c.want)
			}
			if strings.Contains(err.Error(), "unmarshal") || strings.Contains(err.Error(), "!!") {
				t.Errorf("the error speaks of the program: %v", err)
			}
		})
	}
}

func TestCheckFilesFindsWhatServeWouldStumbleOver(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Init(InitOptions{Dir: dir, Issuer: "https://auth.example.com", Resource: "https://mcp.example.com/mcp"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "junk"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ add, want string }{
		"nothing wrong":                        {"", ""},
		"a key file that is not there":         {"key_file: none", "none"},
		"keys of an attester that are nowhere": {"attestation: {attesters: [{issuer: 'https://a.example.com', jwks_file: none, clients: [x]}]}", "attestation.attesters[0].jwks_file"},
		"keys of an issuer that are none":      {"id_jag: {issuers: [{issuer: 'https://a.example.com', jwks_file: junk}]}", "id_jag.issuers[0].jwks_file"},
		"a proxy that is no URL":               {"cimd: {egress: {proxy: nonsense}}", "cimd.egress.proxy"},
		"authorities that are none":            {"cimd: {egress: {ca_file: junk}}", "cimd.egress.ca_file"},
		"a certificate that is none":           {"tls: {cert_file: junk, key_file: junk}", "tls.cert_file and tls.key_file"},
		"a certificate that is not there":      {"tls: {cert_file: none, key_file: junk}", "tls.cert_file"},
		"a key that is not there":              {"tls: {cert_file: junk, key_file: none}", "tls.key_file"},
		"a logo of no known kind":              {"brand: {logo: junk}", "logo"},
		"a store in a folder that is none":     {"store: data/bonafide.db", "there is no folder"},
		"a store below a file":                 {"store: junk/bonafide.db", "there is no folder"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := Parse([]byte(minimal+c.add+"\n"), dir, false)
			if err != nil {
				t.Fatal(err)
			}
			if err := cfg.CheckFiles(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that says %q", err, c.want)
			}
		})
	}
	t.Run("CACHE-14 last_known_good: 0s means never", func(t *testing.T) {
		cfg, err := Parse([]byte(minimal+"cimd: {cache: {last_known_good: 0s}}\n"), dir, false)
		if err != nil {
			t.Fatal(err)
		}
		if rc, err := cfg.Resolver(); err != nil || rc.Limits.LastKnownGood >= 0 {
			t.Errorf("%v, %v", rc.Limits.LastKnownGood, err)
		}
	})
	t.Run("POL-08 a proxy that nobody named is pointed out", func(t *testing.T) {
		for add, want := range map[string]int{"": 1, "trusted_proxies: [10.0.0.1/32]": 0, "tls: {cert_file: a, key_file: b}": 0, "trusted_proxies: [10.0.0.2/32] # no scope": 1} {
			text := minimal
			if strings.HasSuffix(add, "no scope") {
				text = strings.Replace(text, "    default_scopes: [read]\n", "", 1)
			}
			cfg, err := Parse([]byte(text+add+"\n"), dir, false)
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.Advice(); len(got) != want {
				t.Errorf("%q: %q", add, got)
			}
		}
	})
}

func TestInitWritesAConfigurationThatWorks(t *testing.T) {
	dir := t.TempDir()
	o := InitOptions{Dir: dir, Issuer: "https://auth.example.com", Resource: "https://mcp.example.com/mcp"}
	config, key, err := Init(o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(config, false)
	if err != nil {
		t.Fatal(err)
	}
	if !c.CIMD.Enabled || c.Policy.Default != "ask" {
		t.Errorf("init: %+v", c)
	}
	if _, err := readKey(key); err != nil {
		t.Error(err)
	}
	if _, _, err := Init(o); err == nil {
		t.Error("init overwrote a configuration")
	}
	t.Run("attack AD-14: a key that others can read is refused", func(t *testing.T) {
		if err := os.Chmod(key, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readKey(key); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("got %v", err)
		}
	})
	if _, err := readKey(filepath.Join(dir, "none")); err == nil {
		t.Error("a key file that is not there")
	}
}

func TestTheListenerIsNeverADestination(t *testing.T) {
	for listen, want := range map[string]string{
		"93.184.216.50:443": "[93.184.216.50/32]", "[2606:4700::1]:443": "[2606:4700::1/128]",
		"127.0.0.1:8080": "[]", "0.0.0.0:443": "[]", ":443": "[]", "localhost:1": "[]",
	} {
		t.Run("attack SD-33: a server on "+listen, func(t *testing.T) {
			if got := fmt.Sprint(ownAddress(listen)); got != want {
				t.Errorf("got %s", got)
			}
		})
	}
}
