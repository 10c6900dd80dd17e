package cimd

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// TestTolerance holds documents that work although something is odd, with what
// remains of them and the rules of their warnings.
func TestTolerance(t *testing.T) {
	id := mustID(t, goodURL)
	const jwt, methods, method = `"private_key_jwt"`, "token_endpoint_auth_methods_supported", "token_endpoint_auth_method"
	keys := spoil{"jwks_uri": `"https://good.test/jwks.json"`}
	with := func(more spoil) spoil {
		out := spoil{}
		for k, v := range keys {
			out[k] = v
		}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	rows := []struct {
		name     string
		change   spoil
		sup      Supported
		profile  Profile
		warnings []string
		check    func(d *Document) any // must equal want
		want     string
	}{
		{"DOC-13 neither member: none", spoil{method: ""}, Supported{}, ProfileMCP, nil, authMethods, "none"},
		{"DOC-13 neither member: none, also with keys", with(spoil{method: ""}), Supported{}, ProfileMCP, nil, authMethods, "none"},
		{"DOC-13 neither member: none in cimd-02", spoil{method: ""}, Supported{}, ProfileCIMD02, nil, authMethods, "none"},
		{"DOC-14 the list alone: not none", with(spoil{method: "", methods: `[` + jwt + `]`}), Supported{}, ProfileMCP, nil, authMethods, "private_key_jwt"},
		{"DOC-14 the list alone: not none in cimd-02 either", with(spoil{method: "", methods: `[` + jwt + `]`}), Supported{}, ProfileCIMD02, nil, authMethods, "private_key_jwt"},
		{"DOC-14 the list alone with both", with(spoil{method: "", methods: `["none",` + jwt + `]`}), Supported{}, ProfileMCP, nil, authMethods, "private_key_jwt none"},
		{"DOC-15, DOC-18 the method is in the list: all of the list", with(spoil{method: jwt, methods: `["none",` + jwt + `]`}), Supported{}, ProfileMCP, nil, authMethods, "private_key_jwt none"},
		{"DOC-15 in cimd-02 the method decides alone", with(spoil{method: jwt, methods: `["none"]`}), Supported{}, ProfileCIMD02, nil, authMethods, "private_key_jwt"},
		{"DOC-16 an unsupported list member beside a supported one", spoil{methods: `["none","tls_client_auth"]`}, Supported{}, ProfileMCP, []string{"DOC-16"}, authMethods, "none"},
		{"DOC-16 what the server supports decides", with(spoil{methods: `["none",` + jwt + `]`}), Supported{AuthMethods: []string{"private_key_jwt"}}, ProfileMCP, []string{"DOC-16"}, authMethods, "private_key_jwt"},
		{"DOC-17, attack DO-21: an unknown method is never none", spoil{method: `"foo"`}, Supported{}, ProfileMCP, []string{"DOC-16", "DOC-17"}, authMethods, ""},
		{"DOC-17 a URI as the method", spoil{method: `"https://good.test/Method"`}, Supported{}, ProfileMCP, []string{"DOC-16", "DOC-17"}, authMethods, ""},
		{"DOC-17, attack DO-21: tls_client_auth", spoil{method: `"tls_client_auth"`}, Supported{}, ProfileMCP, []string{"DOC-16", "DOC-17"}, authMethods, ""},
		{"DOC-17, attack DO-21: self_signed_tls_client_auth with keys", with(spoil{method: `"self_signed_tls_client_auth"`}), Supported{}, ProfileMCP, []string{"DOC-16", "DOC-17"}, authMethods, ""},
		{"CAUTH-15, META-13 methods that the server can do, the strongest first", with(spoil{methods: `["none","attest_jwt_client_auth","self_signed_tls_client_auth",` + jwt + `]`}),
			Supported{AuthMethods: []string{"none", "self_signed_tls_client_auth", "attest_jwt_client_auth", "private_key_jwt"}}, ProfileMCP, nil, authMethods,
			"private_key_jwt attest_jwt_client_auth self_signed_tls_client_auth none"},
		{"ATT-03 an attester may vouch for a client without keys", spoil{method: `"attest_jwt_client_auth"`}, Supported{AuthMethods: []string{"attest_jwt_client_auth"}}, ProfileMCP, nil, authMethods, "attest_jwt_client_auth"},
		{"DOC-17 a server that demands keys, a client without", spoil{}, Supported{AuthMethods: []string{"private_key_jwt"}}, ProfileMCP, []string{"DOC-16", "DOC-17"}, authMethods, ""},
		{"DOC-19 private_key_jwt without keys is left out beside none", spoil{methods: `["none",` + jwt + `]`}, Supported{}, ProfileMCP, []string{"DOC-19"}, authMethods, "none"},
		{"DOC-30 an unsupported signing algorithm takes private_key_jwt away", with(spoil{method: jwt, "token_endpoint_auth_signing_alg": `"ES512"`}), Supported{}, ProfileMCP, []string{"DOC-30", "DOC-17"}, authMethods, ""},
		{"DOC-30 an unsupported signing algorithm leaves none", with(spoil{methods: `["none",` + jwt + `]`, "token_endpoint_auth_signing_alg": `"ES512"`}), Supported{}, ProfileMCP, []string{"DOC-30"}, authMethods, "none"},
		{"DOC-30, CAUTH-07 RS256 is supported", with(spoil{method: jwt, "token_endpoint_auth_signing_alg": `"RS256"`}), Supported{}, ProfileMCP, nil, func(d *Document) any { return d.SigningAlg }, "RS256"},
		{"DOC-30, CAUTH-07 Ed25519 is the new name of EdDSA", with(spoil{method: jwt, "token_endpoint_auth_signing_alg": `"Ed25519"`}), Supported{}, ProfileMCP, nil, func(d *Document) any { return d.SigningAlg }, "EdDSA"},

		{"DOC-05, DOC-29 inline public keys", spoil{method: jwt, "jwks": keySet}, Supported{}, ProfileMCP, []string{"DOC-29"}, func(d *Document) any { return string(d.JWKS) }, keySet},
		{"DOC-29 an unknown key type is left out", spoil{method: jwt, "jwks": `{"keys":[{"kty":"zzz"},` + ecKey + `]}`}, Supported{}, ProfileMCP, []string{"DOC-29", "DOC-29"}, authMethods, "private_key_jwt"},
		{"DOC-05 a member d outside a key is no key", spoil{"x": `{"d":"AA"}`}, Supported{}, ProfileMCP, nil, authMethods, "none"},
		{"DOC-06, DOC-07 a clean software statement is ignored", statement(`{"software_id":"x","client_name":"Evil"}`), Supported{}, ProfileMCP, []string{"DOC-07"}, name, "Good"},
		{"DOC-06 in cimd-02 the claims of a statement are not bound", statement(`{"client_secret":"s"}`), Supported{}, ProfileCIMD02, []string{"DOC-07"}, name, "Good"},
		{"DOC-07 a statement that is no JWT is ignored", spoil{"software_statement": `"x"`}, Supported{}, ProfileMCP, []string{"DOC-07"}, name, "Good"},
		{"DOC-07 a statement that is not base64 is ignored", spoil{"software_statement": `"a.?.c"`}, Supported{}, ProfileMCP, []string{"DOC-07"}, name, "Good"},
		{"DOC-07 a statement that is not JSON is ignored", statement(`[]`), Supported{}, ProfileMCP, []string{"DOC-07"}, name, "Good"},

		{"DOC-08 no redirect URIs are needed without authorization_code", spoil{"redirect_uris": "", "grant_types": `["client_credentials"]`}, Supported{GrantTypes: []string{"client_credentials"}}, ProfileMCP, nil, grants, "client_credentials"},
		{"DOC-08 redirect_uris may then be null", spoil{"redirect_uris": "null", "grant_types": `["client_credentials"]`}, Supported{GrantTypes: []string{"client_credentials"}}, ProfileMCP, []string{"DOC-21"}, appType, "web"},
		{"DOC-08 or empty", spoil{"redirect_uris": "[]", "grant_types": `["client_credentials"]`}, Supported{GrantTypes: []string{"client_credentials"}}, ProfileMCP, nil, appType, "web"},
		{"DOC-16 a warning names the place, also after a repetition", spoil{methods: `["none","none","foo"]`}, Supported{}, ProfileMCP, []string{"DOC-14", "DOC-16"}, func(d *Document) any { return d.Warnings[1].Member }, methods + "[2]"},
		{"DOC-09, AUTHZ-04 loopback redirects in all three spellings, with and without port", spoil{"redirect_uris": `["http://localhost/cb","http://127.0.0.1:8080/cb","http://[::1]/cb","http://localhost"]`}, Supported{}, ProfileMCP, nil, appType, "native"},
		{"DOC-09 a repeated redirect URI counts once", spoil{"redirect_uris": `["https://good.test/cb","https://good.test/cb"]`}, Supported{}, ProfileMCP, []string{"DOC-08"}, func(d *Document) any { return strings.Join(d.RedirectURIs, " ") }, "https://good.test/cb"},
		{"DOC-11 a private-use scheme by the switch", redirect("com.example.app:/cb?x=1"), Supported{PrivateUseSchemes: true}, ProfileMCP, nil, func(d *Document) any { return d.RedirectURIs[1] }, "com.example.app:/cb?x=1"},
		{"DOC-12 a missing name is a warning", spoil{"client_name": ""}, Supported{}, ProfileMCP, []string{"DOC-12"}, name, ""},
		{"DOC-12 a missing name is nothing in cimd-02", spoil{"client_name": ""}, Supported{}, ProfileCIMD02, nil, name, ""},
		{"DOC-12 a missing name is nothing in cimd-03", spoil{"client_name": ""}, Supported{}, ProfileCIMD03, nil, name, ""},
		{"DOC-20, attack DO-24: unsupported grants are left out", spoil{"grant_types": `["implicit","authorization_code","urn:ietf:params:oauth:grant-type:token-exchange"]`}, Supported{}, ProfileMCP, []string{"DOC-20", "DOC-20"}, grants, "authorization_code"},
		{"DOC-20, attack DO-24: unsupported response types are left out", spoil{"response_types": `["token","code","code token"]`}, Supported{}, ProfileMCP, []string{"DOC-20", "DOC-20"}, func(d *Document) any { return strings.Join(d.ResponseTypes, " ") }, "code"},
		{"DOC-20 without a response type another grant remains", spoil{"grant_types": `["authorization_code","client_credentials"]`, "response_types": `[]`}, Supported{GrantTypes: []string{"authorization_code", "client_credentials"}}, ProfileMCP, []string{"DOC-20"}, grants, "client_credentials"},
		{"DOC-21, attack DO-04, attack DO-19: unknown members are ignored", spoil{"CLIENT_ID": `"https://evil.test/x"`, "x": `{"y":[1]}`, "client_uri#de": `"https://good.test/de"`}, Supported{}, ProfileMCP, nil, name, "Good"},
		{"DOC-21 null is read as absent", spoil{"scope": `null`, "grant_types": `null`, "logo_uri": `null`, "jwks": `null`, "jwks_uri": `null`, "dpop_bound_access_tokens": `null`}, Supported{}, ProfileMCP, []string{"DOC-21", "DOC-21", "DOC-21", "DOC-21", "DOC-21", "DOC-21"}, grants, "authorization_code"},
		{"DOC-22 missing grant and response types", spoil{"grant_types": "", "response_types": ""}, Supported{}, ProfileMCP, nil, grants, "authorization_code"},
		{"DOC-24 an unknown application type is ignored", spoil{"application_type": `"tv"`}, Supported{}, ProfileMCP, []string{"DOC-24"}, appType, "web"},
		{"DOC-24 web with loopback redirects only", spoil{"application_type": `"web"`, "redirect_uris": `["http://localhost/cb"]`}, Supported{}, ProfileMCP, []string{"DOC-24"}, appType, "web"},
		{"DOC-24 native as declared", spoil{"application_type": `"native"`}, Supported{}, ProfileMCP, nil, appType, "native"},
		{"DOC-26 bad display URIs are dropped", spoil{"client_uri": `"http://good.test"`, "logo_uri": `"//good.test/l.png"`, "tos_uri": `1`, "policy_uri": `"ftps://good.test/p"`}, Supported{}, ProfileMCP, []string{"DOC-26", "DOC-26", "DOC-26", "DOC-26"}, func(d *Document) any { return d.ClientURI + d.LogoURI + d.TOSURI + d.PolicyURI }, ""},
		{"CONS-09 a data: logo is dropped", spoil{"logo_uri": `"data:image/png;base64,AA"`}, Supported{}, ProfileMCP, []string{"CONS-09"}, func(d *Document) any { return d.LogoURI }, ""},
		{"FETCH-06 bad URLs of extensions are ignored", spoil{"sector_identifier_uri": `"http://10.0.0.1/"`, "initiate_login_uri": `"x"`, "frontchannel_logout_uri": `1`, "backchannel_logout_uri": `"http://good.test/"`, "request_uris": `["https://good.test/r#abc","http://10.0.0.1/r"]`}, Supported{}, ProfileMCP, []string{"FETCH-06", "FETCH-06", "FETCH-06", "FETCH-06", "FETCH-06"}, func(d *Document) any { return d.BackchannelLogoutURI }, ""},
		{"DOC-28, attack DO-28: the scope is kept as the upper bound", spoil{"scope": `"mcp:read admin:*"`}, Supported{}, ProfileMCP, nil, func(d *Document) any { return d.Scope }, "mcp:read admin:*"},
		{"DOC-28 an empty scope is a bound too", spoil{"scope": `""`}, Supported{}, ProfileMCP, nil, func(d *Document) any { return map[bool]string{true: "bound"}[d.HasScope] }, "bound"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			body := document(r.change)
			doc, err := Validate(id, body, r.profile, r.sup)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.check(doc); got != r.want {
				t.Errorf("got %q, want %q", got, r.want)
			}
			var got []string
			for _, w := range doc.Warnings {
				got = append(got, w.Rule)
				if w.Text == "" || w.String() == "" {
					t.Errorf("an empty warning: %v", w)
				}
			}
			if !slices.Equal(got, r.warnings) {
				t.Errorf("warnings %v, want rules %v", doc.Warnings, r.warnings)
			}
		})
	}
}

func authMethods(d *Document) any { return strings.Join(d.AuthMethods, " ") }
func grants(d *Document) any      { return strings.Join(d.GrantTypes, " ") }
func name(d *Document) any        { return d.Name }
func appType(d *Document) any     { return d.ApplicationType }

func TestPrivateUseSchemes(t *testing.T) {
	id := mustID(t, goodURL)
	for _, uri := range []string{
		"myapp:/cb", "com.example.app://cb", "com.example.app:cb", "com.example.app:", "Com.example.app:/cb",
		"com.example.app:/cb#f", "com.example.app:/../cb", "com.example.app:/%zz", "com.example.app:/c b", "com.example.app:/*",
	} {
		t.Run("DOC-11 the switch does not accept "+uri, func(t *testing.T) {
			if _, err := Validate(id, document(redirect(uri)), ProfileMCP, Supported{PrivateUseSchemes: true}); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestDevelopmentDocument(t *testing.T) {
	t.Run("URL-18, DOC-26 a document from http://localhost may name URLs there", func(t *testing.T) {
		id, err := URLRules{Loopback: true}.Parse("http://localhost:8080/client.json")
		if err != nil {
			t.Fatal(err)
		}
		change := spoil{"client_id": `"http://localhost:8080/client.json"`, "jwks_uri": `"http://localhost:8080/jwks"`, "client_uri": `"http://good.test/"`}
		doc, err := Validate(id, document(change), ProfileMCP, Supported{})
		if err != nil {
			t.Fatal(err)
		}
		if doc.JWKSURI == "" || doc.ClientURI != "" {
			t.Errorf("jwks_uri %q, client_uri %q", doc.JWKSURI, doc.ClientURI)
		}
	})
}

func TestSecurityDigest(t *testing.T) {
	id := mustID(t, goodURL)
	digest := func(change spoil, s Supported) string {
		t.Helper()
		doc, err := Validate(id, document(change), ProfileMCP, s)
		if err != nil {
			t.Fatal(err)
		}
		return doc.SecurityDigest
	}
	base := digest(nil, Supported{})
	for name, change := range map[string]spoil{
		"a new name":                     {"client_name": `"Better"`},
		"a new logo":                     {"logo_uri": `"https://good.test/new.png"`},
		"unknown members":                {"x": `1`},
		"the order of the grants":        {"grant_types": `["refresh_token","authorization_code"]`},
		"the default spelled out":        {"token_endpoint_auth_method": "", "response_types": ""},
		"an application type as implied": {"application_type": `"web"`},
	} {
		t.Run("CACHE-17, CACHE-18 unchanged by "+name, func(t *testing.T) {
			if digest(change, Supported{}) != base {
				t.Error("it changed")
			}
		})
	}
	for name, change := range map[string]spoil{
		"another redirect URI":  redirect("https://good.test/cb2"),
		"a redirect URI less":   {"redirect_uris": `["https://good.test/cb3"]`},
		"other grants":          {"grant_types": `["authorization_code"]`},
		"a scope":               {"scope": `""`},
		"an application type":   {"application_type": `"native"`},
		"a source of keys":      {"jwks_uri": `"https://good.test/jwks"`},
		"inline keys":           {"jwks": keySet},
		"another method":        {"token_endpoint_auth_methods_supported": `["none","private_key_jwt"]`},
		"a grant not supported": {"grant_types": `["authorization_code","refresh_token","password"]`},
	} {
		t.Run("CACHE-17 changed by "+name, func(t *testing.T) {
			if digest(change, Supported{}) == base {
				t.Error("it did not change")
			}
		})
	}
	t.Run("CACHE-18 unchanged by new inline keys", func(t *testing.T) {
		a := digest(spoil{"jwks": keySet}, Supported{})
		if b := digest(spoil{"jwks": strings.Replace(keySet, "k1", "k2", 1)}, Supported{}); a != b {
			t.Error("it changed")
		}
	})
	t.Run("CACHE-17 unchanged by what the server supports", func(t *testing.T) {
		if digest(nil, Supported{GrantTypes: []string{"authorization_code"}}) != base {
			t.Error("it changed")
		}
	})
}
