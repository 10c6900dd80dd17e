package server

import (
	"strings"
	"testing"
)

func TestValuesThatNobodyMeant(t *testing.T) {
	for _, c := range []struct {
		name, add, replace, with, want string // want "" is accepted
		dev                            bool
	}{
		{name: "a scheme that is no database of ours", add: "store: 'postgress://db/x'\n", want: "store: postgress:// is not known"},
		{name: "pairs that are an address elsewhere", add: "store: 'host=db dbname=x'\n", want: "store: write the address"},
		{name: "a path of a file", add: "store: data/bona fide.db\n"},
		{name: "a space behind the listener", add: "listen: '127.0.0.1:8080 '\n", want: "listen: there are spaces"},
		{name: "a port that is none", add: "listen: 127.0.0.1:99999\n", want: `listen: "99999" is not a port`},
		{name: "no port", add: "listen: '127.0.0.1:'\n", want: "listen"},
		{name: "any port", add: "listen: 127.0.0.1:0\n"},
		{name: "the name of a port", add: "listen: 127.0.0.1:https\n"},
		{name: "a range that is none", add: "trusted_proxies: [10.0.0.0/8, proxy]\n", want: `line 8: "proxy" is not a range`},
		{name: "an empty range", add: "trusted_proxies: ['']\n", want: `line 8: "" is not a range`},
		{name: "an IPv6 address for a range", add: "cimd: {egress: {deny: ['2001:db8::1']}}\n", want: "line 8: 2001:db8::1 is one address; write 2001:db8::1/128"},
		{name: "ranges", add: "trusted_proxies: [10.0.0.0/8, '2001:db8::/32']\n"},
		{name: "FETCH-15 a fetch that is too long", add: "cimd: {timeout: 1m}\n", want: "cimd.timeout: 5s"},
		{name: "FETCH-09 a key set without bounds", add: "cimd: {jwks_bytes: 1000000000000}\n", want: "cimd.jwks_bytes"},
		{name: "FETCH-09 a logo without bounds", add: "cimd: {logo_bytes: 1000000000000}\n", want: "cimd.logo_bytes"},
		{name: "CACHE-07 a floor above the ceiling", add: "cimd: {cache: {floor: 2h, ceiling: 1h}}\n", want: "cimd.cache: the floor 2h0m0s"},
		{name: "CACHE-14 known good for ever", add: "cimd: {cache: {last_known_good: 99999h}}\n", want: "cimd.cache.last_known_good"},
		{name: "FETCH-08 a private URL over http", add: "cimd: {egress: {private_urls: ['http://a.internal/x']}}\n", want: "cimd.egress.private_urls[0]"},
		{name: "no span of time at all", add: "tokens: {access: ''}\n", want: "line 8: nothing is not a span"},
		{name: "XCH-01 an issuer that is a word", add: "id_jag: {issuers: [{issuer: acme, jwks_uri: 'https://a.example.com/j'}]}\n", want: "id_jag.issuers[0].issuer: acme must be an https URL"},
		{name: "an alias that is a word", replace: "    name:", with: "    aliases: [github]\n    name:", want: "alias github must be an absolute URL"},
		{name: "an empty alias", replace: "    name:", with: "    aliases: ['']\n    name:", want: "resources[0].aliases[0]: it is empty"},
		{name: "a folded text ends with a new line", replace: "[{name: read, title: read issues}]", with: "\n      - name: read\n        title: b\n        description: >\n          It can."},
		{name: "POL-03 a scope that no resource has", add: "policy: {rules: [{name: r, host: a.example.com, action: allow, scopes: [tool:read]}]}\n", want: `policy rule "r": scopes: no resource has the scope tool:read`},
		{name: "POL-04 the same for those that no rule names", add: "policy: {unnamed_scopes: [tool:read]}\n", want: "policy.unnamed_scopes: no resource has the scope tool:read"},
		{name: "POL-03 scopes of OpenID Connect", add: "policy: {rules: [{host: a.example.com, action: allow, scopes: [openid, offline_access]}]}\n"},
		{name: "POL-03 a grant that does not exist", add: "policy: {rules: [{name: r, host: a.example.com, action: allow, grants: [device_code]}]}\n", want: `policy rule "r": grants: "device_code" is not known`},
		{name: "POL-02 a client that no URL can be", add: "policy: {rules: [{name: r, client: 'http://a.example.com/c', action: allow}]}\n", want: `policy rule "r": client: no client can be called that`},
		{name: "POL-02 a client with a space behind it", add: "policy: {rules: [{name: r, client: 'https://a.example.com/c ', action: allow}]}\n", want: "policy.rules[0].client: there are spaces"},
		{name: "POL-02 a client that was registered by hand", add: "policy: {rules: [{client: reports, action: allow}]}\n"},
		{name: "POL-02 a host that is a word", add: "policy: {rules: [{name: r, host: claude, action: allow}]}\n", want: `policy rule "r": host: no client can be called that`},
		{name: "POL-02 a host that is an address", add: "policy: {rules: [{name: r, host: 10.0.0.8, action: allow}]}\n", want: `policy rule "r": host: no client can be called that`},
		{name: "POL-02 a host below a name for tests", add: "policy: {rules: [{name: r, host: '*.app.test', action: allow}]}\n", want: "host: no client can be called that"},
		{name: "POL-02 the same where they are allowed", add: "cimd: {allow_test_names: true}\npolicy: {rules: [{host: '*.app.test', action: allow}]}\n"},
		{name: "POL-02 a wildcard", add: "policy: {rules: [{host: '*.example.com', action: allow}]}\n"},
		{name: "POL-02 a port that is not open", add: "policy: {rules: [{name: r, host: 'a.example.com:8443', action: allow}]}\n", want: "host: no client can be called that"},
		{name: "POL-02 a port that is", add: "cimd: {ports: [8443]}\npolicy: {rules: [{host: 'a.example.com:8443', action: allow}]}\n"},
		{name: "POL-02 a prefix", add: "policy: {rules: [{prefix: 'https://a.example.com/agents/', action: allow}]}\n"},
		{name: "URL-18 a document on this computer", add: "policy: {rules: [{client: 'http://127.0.0.1:9000/c.json', action: allow}]}\n", dev: true},
		{name: "URL-18 and without --dev", add: "policy: {rules: [{client: 'http://127.0.0.1:9000/c.json', action: allow}]}\n", want: "client: no client can be called that"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := minimal
			if c.replace != "" {
				text = strings.Replace(text, c.replace, c.with, 1)
			}
			_, err := Parse([]byte(text+c.add), ".", c.dev)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want an error that says %q", err, c.want)
			}
		})
	}
}
