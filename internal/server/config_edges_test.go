package server

import (
	"strings"
	"testing"
)

func TestConfigurationAtTheEdge(t *testing.T) {
	const base = "issuer: https://as.test\nresources: [{id: https://mcp.test/mcp, name: Tools}]\n"
	for _, c := range []struct{ name, text, want string }{ // want "": it is well
		{"the shortest log", "audit: {keep: 24h}", ""},
		{"a log for ever", "audit: {keep: 0s}", ""},
		{"a log of less than a day", "audit: {keep: 23h}", "audit.keep"},
		{"a log of the future", "audit: {keep: -1h}", "audit.keep"},
		{"the shortest poll", "device: {interval: 1s, life: 1m}", ""},
		{"the longest poll", "device: {interval: 1m, life: 30m}", ""},
		{"a poll without pause", "device: {interval: 0s}", "device.interval"},
		{"a poll of an hour", "device: {interval: 1h}", "device.interval"},
		{"a poll of half a second more", "device: {interval: 1500ms}", "device.interval"},
		{"a device code for an hour", "device: {life: 1h}", "device.life"},
		{"no registration in an hour", "registration: {enabled: true, per_hour: 0}", "registration"},
		{"no registration at all", "registration: {enabled: true, most: 0}", "registration"},
		{"an issuer of assertions without a name", "id_jag: {issuers: [{jwks_uri: https://idp.test/jwks}]}", "issuer"},
		{"an assertion for a day", "id_jag: {issuers: [{issuer: https://idp.test, jwks_uri: https://idp.test/jwks, life: 24h}]}", "life"},
		{"an upstream issuer with a user", "upstream: [{name: a, issuer: https://u@idp.test, client_id: us}]", "issuer"},
		{"the longest code", "tokens: {code: 10m}", ""},
		{"a code for longer", "tokens: {code: 11m}", "tokens.code"},
		{"the longest grace", "tokens: {refresh_grace: 30s}", ""},
		{"a grace for longer", "tokens: {refresh_grace: 31s}", "tokens.refresh_grace"},
		{"the least document", "cimd: {document_bytes: 1024}", ""},
		{"less than a document", "cimd: {document_bytes: 1023}", "cimd.document_bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(base+c.text+"\n"), t.TempDir(), false)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	for issuer, want := range map[string]string{"": "issuer: give", "https://": "issuer", "https:///x": "issuer", "https://u@as.test": "issuer", "https://as.test?": "issuer"} {
		if _, err := Parse([]byte("issuer: \""+issuer+"\"\nresources: [{id: https://mcp.test/mcp, name: Tools}]\n"), t.TempDir(), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("META-04 %q: %v", issuer, err)
		}
	}
}
