package cimd

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const goodURL = "https://good.test/c.json"

// spoil is one change to the good document: raw JSON by member name. An empty
// value removes the member.
type spoil map[string]string

// document returns the good document with changes.
func document(changes spoil) []byte {
	m := map[string]string{
		"client_id":                  `"` + goodURL + `"`,
		"client_name":                `"Good"`,
		"redirect_uris":              `["https://good.test/cb"]`,
		"grant_types":                `["authorization_code","refresh_token"]`,
		"response_types":             `["code"]`,
		"token_endpoint_auth_method": `"none"`,
	}
	maps.Copy(m, changes)
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] != "" {
			parts = append(parts, `"`+name+`":`+m[name])
		}
	}
	return []byte("{" + strings.Join(parts, ",") + "}")
}

// redirect returns a document with one more redirect URI.
func redirect(uri string) spoil {
	b, _ := json.Marshal([]string{"https://good.test/cb", uri})
	return spoil{"redirect_uris": string(b)}
}

const (
	ecKey  = `{"kty":"EC","crv":"P-256","kid":"k1","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	keySet = `{"keys":[` + ecKey + `]}`
)

func withKey(member, val string) string {
	return `{"keys":[` + ecKey + `,` + strings.TrimSuffix(ecKey, "}") + `,"` + member + `":` + val + `}]}`
}

// statement returns a software_statement with these claims.
func statement(claims string) spoil {
	return spoil{"software_statement": `"eyJhbGciOiJub25lIn0.` + b64(claims) + `.c2ln"`}
}

// brokenRow is a document that must be refused by a rule. The kind is
// KindDocument unless stated.
type brokenRow struct {
	name   string
	change spoil
	rule   string
	kind   Kind
}

var brokenRows = []brokenRow{
	{"DOC-02, attack DO-01: another client_id", spoil{"client_id": `"https://good.test/other.json"`}, "DOC-02", KindMismatch},
	{"DOC-02, attack CU-16: the host in another case", spoil{"client_id": `"https://GOOD.test/c.json"`}, "DOC-02", KindMismatch},
	{"DOC-02, URL-07, attack CU-18: with the default port", spoil{"client_id": `"https://good.test:443/c.json"`}, "DOC-02", KindMismatch},
	{"DOC-02, URL-07: a trailing slash", spoil{"client_id": `"https://good.test/c.json/"`}, "DOC-02", KindMismatch},
	{"DOC-02, URL-07: percent-encoded", spoil{"client_id": `"https://good.test/%63.json"`}, "DOC-02", KindMismatch},
	{"DOC-02 an empty client_id", spoil{"client_id": `""`}, "DOC-02", KindMismatch},
	{"DOC-02, attack DO-02: no client_id", spoil{"client_id": ""}, "DOC-02", ""},
	{"DOC-02, attack DO-02: client_id is a number", spoil{"client_id": `1`}, "DOC-02", ""},
	{"DOC-02, attack DO-02: client_id is an array", spoil{"client_id": `["https://good.test/c.json"]`}, "DOC-02", ""},
	{"DOC-02 client_id is null", spoil{"client_id": `null`}, "DOC-02", ""},
	{"DOC-02, attack DO-04: client_id in upper case is another member", spoil{"client_id": "", "CLIENT_ID": `"https://good.test/c.json"`}, "DOC-02", ""},
	{"DOC-01, attack DO-07: NUL in the name", spoil{"client_name": `"a\u0000b"`}, "DOC-01", ""},
	{"DOC-01, attack DO-03: client_id twice", spoil{"client_id": `"https://good.test/c.json","client_id":"https://evil.test/c.json"`}, "DOC-01", ""},
	{"DOC-01, attack DO-19: 200 unknown members", spoil{"x": `1` + strings.TrimSuffix(strings.TrimPrefix(manyMembers(200), `{"client_id":"x"`), "}")}, "DOC-01", ""},

	{"DOC-03, attack DO-22: client_secret", spoil{"client_secret": `"s"`}, "DOC-03", ""},
	{"DOC-03, attack DO-22: client_secret is null", spoil{"client_secret": `null`}, "DOC-03", ""},
	{"DOC-03, attack DO-22: client_secret is empty", spoil{"client_secret": `""`}, "DOC-03", ""},
	{"DOC-03, attack DO-22: client_secret_expires_at", spoil{"client_secret_expires_at": `0`}, "DOC-03", ""},
	{"DOC-03, attack DO-22: registration_access_token", spoil{"registration_access_token": `null`}, "DOC-03", ""},
	{"DOC-04, attack DO-20: client_secret_basic", spoil{"token_endpoint_auth_method": `"client_secret_basic"`}, "DOC-04", ""},
	{"DOC-04, attack DO-20: client_secret_post", spoil{"token_endpoint_auth_method": `"client_secret_post"`}, "DOC-04", ""},
	{"DOC-04, attack DO-20: client_secret_jwt", spoil{"token_endpoint_auth_method": `"client_secret_jwt"`}, "DOC-04", ""},
	{"DOC-04, attack DO-21: a shared secret in another case", spoil{"token_endpoint_auth_method": `"Client_Secret_Basic"`}, "DOC-04", ""},
	{"DOC-04, attack DO-21: the list mixes client_secret_basic in", spoil{"token_endpoint_auth_methods_supported": `["none","client_secret_basic"]`}, "DOC-04", ""},
	{"DOC-05, attack JK-01: an oct key", spoil{"jwks": `{"keys":[{"kty":"oct","kid":"x"}]}`}, "DOC-05", ""},
	{"DOC-06 client_secret inside the software statement", statement(`{"client_secret":"s"}`), "DOC-03", ""},
	{"DOC-06 a shared-secret method inside the software statement", statement(`{"token_endpoint_auth_method":"client_secret_post"}`), "DOC-04", ""},
	{"DOC-06 a shared-secret method in a list inside the software statement", statement(`{"token_endpoint_auth_methods_supported":["client_secret_post"]}`), "DOC-04", ""},
	{"DOC-06 a private key inside the software statement", statement(`{"jwks":` + withKey("d", `"AA"`) + `}`), "DOC-05", ""},

	{"DOC-08, attack DO-10: no redirect_uris", spoil{"redirect_uris": ""}, "DOC-08", ""},
	{"DOC-08, attack DO-10: an empty list", spoil{"redirect_uris": `[]`}, "DOC-08", ""},
	{"DOC-08, attack DO-10: null", spoil{"redirect_uris": `null`}, "DOC-08", ""},
	{"DOC-08, attack DO-10: a string", spoil{"redirect_uris": `"https://good.test/cb"`}, "DOC-08", ""},
	{"DOC-08, attack DO-10: [null]", spoil{"redirect_uris": `[null]`}, "DOC-08", ""},
	{"DOC-08, attack DO-10: [1]", spoil{"redirect_uris": `[1]`}, "DOC-08", ""},
	{"DOC-08, attack DO-10: an empty string", spoil{"redirect_uris": `[""]`}, "DOC-08", ""},
	{"DOC-08, attack DO-10: a good one and a number", spoil{"redirect_uris": `["https://good.test/cb",1]`}, "DOC-08", ""},
	{"DOC-08, attack DO-19: 101 redirect URIs", spoil{"redirect_uris": `["https://good.test/cb"` + strings.Repeat(`,"https://good.test/cb"`, 100) + `]`}, "DOC-08", ""},
	{"DOC-09, attack DO-11: http on a host", redirect("http://good.test/cb"), "DOC-09", ""},
	{"DOC-10, FETCH-08, attack DO-12: javascript", redirect("javascript:alert(1)"), "DOC-10", ""},
	{"DOC-10, attack DO-12: javascript in another case", redirect("JavaScript:alert(1)"), "DOC-10", ""},
	{"DOC-10, attack DO-12: javascript with a tab", redirect("java\tscript:alert(1)"), "DOC-10", ""},
	{"DOC-10, attack DO-12: javascript after a control character", redirect("\x01javascript:alert(1)"), "DOC-10", ""},
	{"DOC-10, attack DO-12: data", redirect("data:text/html,x"), "DOC-10", ""},
	{"DOC-10, attack DO-12: vbscript", redirect("vbscript:x"), "DOC-10", ""},
	{"DOC-10, attack DO-12: blob", redirect("blob:x"), "DOC-10", ""},
	{"DOC-10, attack DO-12: blob of an origin", redirect("blob:https://good.test/x"), "DOC-10", ""},
	{"DOC-10, attack DO-12: file", redirect("file:///x"), "DOC-10", ""},
	{"DOC-10, attack DO-12: about", redirect("about:blank"), "DOC-10", ""},
	{"DOC-10, attack DO-12: view-source", redirect("view-source:https://x"), "DOC-10", ""},
	{"DOC-10 no host", redirect("https:///cb"), "DOC-09", ""},
	{"DOC-09, attack DO-14: a fragment", redirect("https://good.test/cb#f"), "DOC-09", ""},
	{"DOC-09, attack DO-14: an empty fragment", redirect("https://good.test/cb#"), "DOC-09", ""},
	{"DOC-09, attack DO-14: user information", redirect("https://u:p@good.test/cb"), "DOC-09", ""},
	{"DOC-09, attack DO-14: a wildcard host", redirect("https://*.good.test/cb"), "DOC-09", ""},
	{"DOC-09 a wildcard path", redirect("https://good.test/*"), "DOC-09", ""},
	{"DOC-09 a wildcard port", redirect("http://localhost:*/callback"), "DOC-09", ""},
	{"DOC-09, attack DO-14: a dot segment", redirect("https://good.test/../cb"), "DOC-09", ""},
	{"DOC-09 an encoded dot segment", redirect("https://good.test/%2e%2e/cb"), "DOC-09", ""},
	{"DOC-09, attack DO-15: localhost as user information", redirect("http://localhost:80@evil.test/cb"), "DOC-09", ""},
	{"DOC-09, attack DO-16: a name that starts with 127.0.0.1", redirect("http://127.0.0.1.evil.test/cb"), "DOC-09", ""},
	{"DOC-09, attack DO-16: a name that starts with localhost", redirect("http://localhost.evil.test/cb"), "DOC-09", ""},
	{"DOC-09, attack DO-16: an IPv4-mapped address", redirect("http://[::ffff:127.0.0.1]/cb"), "DOC-09", ""},
	{"DOC-09, attack DO-16: hexadecimal", redirect("http://0x7f.1/cb"), "DOC-09", ""},
	{"DOC-09, attack DO-16: two parts", redirect("http://127.1/cb"), "DOC-09", ""},
	{"DOC-09 another loopback address", redirect("http://127.0.0.2/cb"), "DOC-09", ""},
	{"DOC-09 LOCALHOST", redirect("http://LOCALHOST/cb"), "DOC-09", ""},
	{"DOC-09 an upper-case scheme", redirect("HTTPS://good.test/cb"), "DOC-09", ""},
	{"DOC-09 a relative reference", redirect("/cb"), "DOC-09", ""},
	{"DOC-09 a host without a scheme", redirect("good.test/cb"), "DOC-09", ""},
	{"DOC-09 a space", redirect("https://good.test/c b"), "DOC-09", ""},
	{"DOC-09 a backslash", redirect(`https://good.test\@evil.test/cb`), "DOC-09", ""},
	{"DOC-09 a line break", redirect("https://good.test/cb\r\nx: y"), "DOC-09", ""},
	{"DOC-09 a bad port", redirect("https://good.test:0/cb"), "DOC-09", ""},
	{"DOC-09 a host outside ASCII", redirect("https://gööd.test/cb"), "DOC-09", ""},
	{"DOC-09 too long", redirect("https://good.test/" + strings.Repeat("a", 2048)), "DOC-09", ""},
	{"DOC-11 a private-use scheme", redirect("com.example.app:/cb"), "DOC-11", ""},
	{"DOC-11 a private-use scheme without a period", redirect("myapp://cb"), "DOC-11", ""},
	{"DOC-11 an out-of-band URN", redirect("urn:ietf:wg:oauth:2.0:oob"), "DOC-11", ""},

	{"DOC-13, attack DO-21: a space before the method", spoil{"token_endpoint_auth_method": `" none"`}, "DOC-13", ""},
	{"DOC-13, attack DO-21: an empty method", spoil{"token_endpoint_auth_method": `""`}, "DOC-13", ""},
	{"DOC-13, attack DO-21: a null method", spoil{"token_endpoint_auth_method": `null`}, "DOC-13", ""},
	{"DOC-13, attack DO-21: a list as the method", spoil{"token_endpoint_auth_method": `["none"]`}, "DOC-13", ""},
	{"DOC-13, attack DO-21: the method in another case", spoil{"token_endpoint_auth_method": `"None"`}, "DOC-13", ""},
	{"DOC-13 a method that is too long", spoil{"token_endpoint_auth_method": `"` + strings.Repeat("n", 200) + `"`}, "DOC-13", ""},
	{"DOC-14 the list is null", spoil{"token_endpoint_auth_methods_supported": `null`}, "DOC-14", ""},
	{"DOC-14 the list is a string", spoil{"token_endpoint_auth_methods_supported": `"none"`}, "DOC-14", ""},
	{"DOC-14 the list is empty", spoil{"token_endpoint_auth_method": "", "token_endpoint_auth_methods_supported": `[]`}, "DOC-14", ""},
	{"DOC-14 the list holds a number", spoil{"token_endpoint_auth_methods_supported": `["none",1]`}, "DOC-14", ""},
	{"DOC-14 the list holds another case", spoil{"token_endpoint_auth_methods_supported": `["none","NONE"]`}, "DOC-14", ""},
	{"DOC-15 the method is not in the list", spoil{"token_endpoint_auth_methods_supported": `["private_key_jwt"]`, "jwks": keySet}, "DOC-15", ""},
	{"DOC-19 private_key_jwt without keys", spoil{"token_endpoint_auth_method": `"private_key_jwt"`}, "DOC-19", ""},
	{"DOC-19 private_key_jwt with an empty key set", spoil{"token_endpoint_auth_method": `"private_key_jwt"`, "jwks": `{"keys":[]}`}, "DOC-19", ""},
	{"DOC-19 private_key_jwt with no usable key", spoil{"token_endpoint_auth_method": `"private_key_jwt"`, "jwks": `{"keys":[{"kty":"zzz"}]}`}, "DOC-19", ""},
	{"DOC-19 self_signed_tls_client_auth without keys", spoil{"token_endpoint_auth_method": `"self_signed_tls_client_auth"`}, "DOC-19", ""},
	{"DOC-19 private_key_jwt without keys beside an unknown method", spoil{"token_endpoint_auth_method": "", "token_endpoint_auth_methods_supported": `["private_key_jwt","foo"]`}, "DOC-19", ""},

	{"DOC-20, attack DO-24: no supported grant", spoil{"grant_types": `["implicit","password"]`}, "DOC-20", ""},
	{"DOC-20 refresh_token alone", spoil{"grant_types": `["refresh_token"]`}, "DOC-20", ""},
	{"DOC-20 an empty list of grants", spoil{"grant_types": `[]`}, "DOC-20", ""},
	{"DOC-20 grants are a string", spoil{"grant_types": `"authorization_code"`}, "DOC-20", ""},
	{"DOC-20, attack DO-24: no supported response type", spoil{"response_types": `["token","code token"]`}, "DOC-20", ""},
	{"DOC-20 response types are a string", spoil{"response_types": `"code"`}, "DOC-20", ""},

	{"DOC-23, attack DO-23: jwks and jwks_uri", spoil{"jwks": keySet, "jwks_uri": `"https://good.test/jwks.json"`}, "DOC-23", ""},
	{"DOC-26 jwks_uri is http", spoil{"jwks_uri": `"http://good.test/jwks.json"`}, "DOC-26", ""},
	{"DOC-26 jwks_uri is http on localhost", spoil{"jwks_uri": `"http://localhost/jwks.json"`}, "DOC-26", ""},
	{"DOC-26 jwks_uri is relative", spoil{"jwks_uri": `"/jwks.json"`}, "DOC-26", ""},
	{"DOC-26 jwks_uri has user information", spoil{"jwks_uri": `"https://a@good.test/jwks.json"`}, "DOC-26", ""},
	{"DOC-26 jwks_uri has a fragment", spoil{"jwks_uri": `"https://good.test/jwks.json#"`}, "DOC-26", ""},
	{"DOC-26 jwks_uri is a number", spoil{"jwks_uri": `1`}, "DOC-26", ""},
	{"DOC-26 jwks_uri is empty", spoil{"jwks_uri": `""`}, "DOC-26", ""},
	{"DOC-26, attack JK-13: jwks_uri is the client_id", spoil{"jwks_uri": `"` + goodURL + `"`}, "DOC-26", ""},
	{"DOC-29 jwks is an array", spoil{"jwks": `[]`}, "DOC-29", ""},
	{"DOC-29 jwks is a string", spoil{"jwks": `"{}"`}, "DOC-29", ""},
	{"DOC-29 jwks has no keys member", spoil{"jwks": `{}`}, "DOC-29", ""},
	{"DOC-29, attack JK-07: 17 keys", spoil{"jwks": `{"keys":[` + strings.Repeat(ecKey+",", 16) + ecKey + `]}`}, "DOC-29", ""},

	{"FETCH-06, FETCH-08: javascript in client_uri", spoil{"client_uri": `"javascript:alert(1)"`}, "FETCH-08", ""},
	{"FETCH-06, FETCH-08: file in jwks_uri", spoil{"jwks_uri": `"file:///etc/passwd"`}, "FETCH-08", ""},
	{"FETCH-06, FETCH-08: data in policy_uri", spoil{"policy_uri": `"data:text/html,x"`}, "FETCH-08", ""},
	{"FETCH-06, FETCH-08: javascript in a translated tos_uri", spoil{"tos_uri#de": `" javascript:x"`}, "FETCH-08", ""},
	{"FETCH-06, FETCH-08: file in sector_identifier_uri", spoil{"sector_identifier_uri": `"file:///x"`}, "FETCH-08", ""},
	{"FETCH-06, FETCH-08: javascript in initiate_login_uri", spoil{"initiate_login_uri": `"javascript:x"`}, "FETCH-08", ""},
	{"FETCH-06, FETCH-08: gopher in request_uris", spoil{"request_uris": `["https://good.test/r","gopher://good.test/x"]`}, "FETCH-08", ""},
	{"FETCH-06, FETCH-08: file in backchannel_logout_uri", spoil{"backchannel_logout_uri": `"file:///x"`}, "FETCH-08", ""},
	{"FETCH-08 javascript in a member nobody knows", spoil{"x_my_uri": `"javascript:x"`}, "FETCH-08", ""},
	{"FETCH-08 javascript as the logo", spoil{"logo_uri": `"javascript:x"`}, "FETCH-08", ""},

	{"DOC-28 scope is an array", spoil{"scope": `["a"]`}, "DOC-28", ""},
	{"DOC-28 scope holds a quote", spoil{"scope": `"a \"b"`}, "DOC-28", ""},
	{"DOC-28 too many scopes", spoil{"scope": `"` + strings.Repeat("a ", 40) + manyScopes(70) + `"`}, "DOC-28", ""},
	{"DOC-30 dpop_bound_access_tokens is a string", spoil{"dpop_bound_access_tokens": `"true"`}, "DOC-30", ""},
	{"DOC-30 require_pushed_authorization_requests is a number", spoil{"require_pushed_authorization_requests": `1`}, "DOC-30", ""},
	{"DOC-30 default_max_age is negative", spoil{"default_max_age": `-1`}, "DOC-30", ""},
	{"DOC-30 default_max_age is a fraction", spoil{"default_max_age": `1.5`}, "DOC-30", ""},
	{"DOC-30 default_max_age is a string", spoil{"default_max_age": `"60"`}, "DOC-30", ""},
	{"DOC-30 default_max_age is too great", spoil{"default_max_age": `4294967296`}, "DOC-30", ""},
	{"DOC-30 the signing algorithm is none", spoil{"token_endpoint_auth_signing_alg": `"none"`}, "DOC-30", ""},
	{"DOC-30 the signing algorithm is an HMAC", spoil{"token_endpoint_auth_signing_alg": `"HS256"`}, "DOC-30", ""},
	{"DOC-30 the signing algorithm is empty", spoil{"token_endpoint_auth_signing_alg": `""`}, "DOC-30", ""},
	{"DOC-30 the signing algorithm is a list", spoil{"token_endpoint_auth_signing_alg": `["ES256"]`}, "DOC-30", ""},
	{"DOC-30 the algorithm of request objects has spaces", spoil{"request_object_signing_alg": `"E S"`}, "DOC-30", ""},
	{"DOC-30 ID tokens without signature", spoil{"id_token_signed_response_alg": `"none"`}, "DOC-30", ""},
	{"DOC-30 the ID token algorithm has spaces", spoil{"id_token_signed_response_alg": `"E S"`}, "DOC-30", ""},
	{"DOC-30 a bad post-logout redirect", spoil{"post_logout_redirect_uris": `["https://good.test/out","http://good.test/out"]`}, "DOC-09", ""},
	{"DOC-30 javascript as a post-logout redirect", spoil{"post_logout_redirect_uris": `["javascript:x"]`}, "DOC-10", ""},
}

func init() {
	for _, m := range privateMembers {
		brokenRows = append(brokenRows, brokenRow{"DOC-05, attack JK-01: a key with the member " + m, spoil{"jwks": withKey(m, `"AQAB"`)}, "DOC-05", ""})
	}
	brokenRows = append(brokenRows, brokenRow{"DOC-05, attack JK-01: a private member that is null", spoil{"jwks": withKey("d", `null`)}, "DOC-05", ""})
}

func manyScopes(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(" s" + strings.Repeat("x", i%50) + string(rune('a'+i%26)))
	}
	return b.String()
}

// TestBrokenDocuments spoils the good document, one row at a time, and holds the
// linter against the validator.
func TestBrokenDocuments(t *testing.T) {
	id := mustID(t, goodURL)
	if len(brokenRows) < 60 {
		t.Fatalf("only %d rows", len(brokenRows))
	}
	for _, r := range brokenRows {
		t.Run(r.name, func(t *testing.T) {
			body := document(r.change)
			doc, err := Validate(id, body, ProfileMCP, Supported{})
			var e *Error
			if !errors.As(err, &e) || doc != nil {
				t.Fatalf("accepted: %+v", doc)
			}
			kind := r.kind
			if kind == "" {
				kind = KindDocument
			}
			if e.Rule != r.rule || e.Kind != kind || e.Hint == "" {
				t.Errorf("got %s %s (%s), want %s %s", e.Kind, e.Rule, e.Hint, kind, r.rule)
			}
			for _, secret := range []string{"evil", "alert", "passwd", "AQAB", "GOOD"} {
				if strings.Contains(e.Error(), secret) {
					t.Errorf("the error repeats the document: %v", e)
				}
			}
			lintAgrees(t, id, body, err)
		})
	}
}

// lintAgrees checks that Lint and Validate say the same about a document.
func lintAgrees(t *testing.T, id ID, body []byte, err error) {
	t.Helper()
	doc, findings := Lint(id, body, ProfileMCP, Supported{})
	i := slices.IndexFunc(findings, func(f Finding) bool { return f.Severity == SeverityError })
	if (err != nil) != (i >= 0) || (err != nil) != (doc == nil) {
		t.Fatalf("DOC-31, attack HO-10: Validate says %v, Lint says %v", err, findings)
	}
	var e *Error
	if errors.As(err, &e) {
		if f := findings[i]; f.Rule != e.Rule || !strings.HasSuffix(e.Hint, f.Text) {
			t.Fatalf("DOC-31, attack HO-10: Validate says %v, Lint says %v", e, f)
		}
	}
}

func TestGoodDocument(t *testing.T) {
	id := mustID(t, goodURL)
	body := document(spoil{
		"client_uri": `"https://good.test/#about"`, "logo_uri": `"https://cdn.good.test/l.png"`,
		"policy_uri": `"https://good.test/privacy?x=1"`, "tos_uri": `"https://good.test/tos"`,
		"scope": `"mcp:read mcp:write"`, "jwks_uri": `"https://good.test/jwks.json"`,
		"token_endpoint_auth_method": `"private_key_jwt"`, "token_endpoint_auth_signing_alg": `"ES256"`, "request_object_signing_alg": `"PS256"`,
		"require_pushed_authorization_requests": `true`, "require_signed_request_object": `true`,
		"dpop_bound_access_tokens": `true`, "tls_client_certificate_bound_access_tokens": `true`,
		"require_auth_time": `true`, "default_max_age": `3600`, "id_token_signed_response_alg": `"ES256"`,
		"backchannel_logout_uri": `"https://good.test/bc"`, "post_logout_redirect_uris": `["https://good.test/out"]`,
		"redirect_uris": `["https://good.test/cb?a=b","https://good.test/cb2","http://[::1]:99/cb","https://10.0.0.1:8443"]`,
	})
	t.Run("DOC-02, DOC-26, DOC-28, DOC-30 every member is read", func(t *testing.T) {
		got, err := Validate(id, body, ProfileMCP, Supported{})
		if err != nil {
			t.Fatal(err)
		}
		want := &Document{
			ID: id, Name: "Good",
			RedirectURIs: []string{"https://good.test/cb?a=b", "https://good.test/cb2", "http://[::1]:99/cb", "https://10.0.0.1:8443"},
			GrantTypes:   []string{"authorization_code", "refresh_token"}, ResponseTypes: []string{"code"},
			AuthMethods: []string{"private_key_jwt"}, SigningAlg: "ES256", JWKSURI: "https://good.test/jwks.json",
			Scope: "mcp:read mcp:write", HasScope: true, ApplicationType: "native",
			ClientURI: "https://good.test/#about", LogoURI: "https://cdn.good.test/l.png",
			PolicyURI: "https://good.test/privacy?x=1", TOSURI: "https://good.test/tos",
			RequirePAR: true, RequireSignedRequest: true, DPoPBound: true, MTLSBound: true, RequireAuthTime: true,
			DefaultMaxAge: 3600, IDTokenAlg: "ES256", RequestObjectAlg: "PS256", BackchannelLogoutURI: "https://good.test/bc",
			PostLogoutRedirectURIs: []string{"https://good.test/out"},
			Raw:                    body, Digest: digestOf(body), SecurityDigest: got.SecurityDigest,
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b ID) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		lintAgrees(t, id, body, nil)
	})
	t.Run("DOC-28, DOC-30 absent members have their defaults", func(t *testing.T) {
		got, err := Validate(id, document(nil), ProfileMCP, Supported{})
		if err != nil {
			t.Fatal(err)
		}
		if got.HasScope || got.DefaultMaxAge != -1 || got.DPoPBound || got.RequirePAR || got.ApplicationType != "web" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("the document keeps its own copy of the body", func(t *testing.T) {
		body := document(spoil{"jwks": keySet})
		got, err := Validate(id, body, ProfileMCP, Supported{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range body {
			body[i] = 'x'
		}
		if got.Name != "Good" || got.RedirectURIs[0] != "https://good.test/cb" || string(got.JWKS) != keySet || got.Raw[0] != '{' {
			t.Errorf("got %+v", got)
		}
	})
}

func TestValidateArguments(t *testing.T) {
	id := mustID(t, goodURL)
	for _, r := range []struct {
		name string
		id   ID
		body string
		p    Profile
		kind Kind
	}{
		{"FETCH-10 a document beyond 64 KiB", id, strings.Repeat(" ", MaxDocument+1), ProfileMCP, KindTooLarge},
		{"DOC-02 the zero ID", ID{}, `{"client_id":""}`, ProfileMCP, KindDocument},
		{"a profile that does not exist", id, string(document(nil)), "cimd-99", KindDocument},
	} {
		t.Run(r.name, func(t *testing.T) {
			_, err := Validate(r.id, []byte(r.body), r.p, Supported{})
			var e *Error
			if !errors.As(err, &e) || e.Kind != r.kind {
				t.Errorf("got %v", err)
			}
		})
	}
	if Profile("cimd-99").Valid() || !Profile("").Valid() || !ProfileCIMD02.Valid() {
		t.Error("Profile.Valid is wrong")
	}
	t.Run("DOC-20, DOC-22 the implied grant is not supported", func(t *testing.T) {
		_, err := Validate(id, document(spoil{"grant_types": ""}), ProfileMCP, Supported{GrantTypes: []string{"client_credentials"}})
		var e *Error
		if !errors.As(err, &e) || e.Rule != "DOC-20" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("FETCH-09, FETCH-10 a document beyond 5 KiB has a warning", func(t *testing.T) {
		doc, err := Validate(id, document(spoil{"x": `"` + strings.Repeat("y", 6000) + `"`}), ProfileMCP, Supported{})
		if err != nil || len(doc.Warnings) != 1 || doc.Warnings[0].Rule != "FETCH-09" {
			t.Errorf("%v %v", doc, err)
		}
	})
	t.Run("attack DO-08: 64 KiB cost less than 5 ms, with room for a slow machine", func(t *testing.T) {
		for _, fill := range []string{`[`, `"\u0041`, `{"a":`, `1,`, `"a","a",`, `{"":1},`} {
			body := []byte(`{"client_id":"` + goodURL + `","redirect_uris":[` + strings.Repeat(fill, (60<<10)/len(fill)))
			if d := fastest(func() { _, _ = Lint(id, body, ProfileMCP, Supported{}) }); d > 50*time.Millisecond {
				t.Errorf("%q: %v", fill, d)
			}
		}
	})
	t.Run("URL-08 warnings of the client_id are passed on", func(t *testing.T) {
		id, err := URLRules{AllowQuery: true, AllowTestNames: true}.Parse(goodURL + "?v=1")
		if err != nil {
			t.Fatal(err)
		}
		doc, err := Validate(id, document(spoil{"client_id": `"` + goodURL + `?v=1"`}), ProfileMCP, Supported{})
		if err != nil || len(doc.Warnings) != 1 || doc.Warnings[0].Rule != "URL-08" {
			t.Errorf("%v %v", doc, err)
		}
	})
}
