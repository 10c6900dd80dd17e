package authorize

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// goodAttempt is a request in which nothing is wrong.
func goodAttempt(t *testing.T) *attempt {
	t.Helper()
	set := testPolicy()
	if err := set.Check(); err != nil {
		t.Fatal(err)
	}
	return &attempt{
		req: &Request{ClientID: goodID, RedirectURI: "https://good.example.com/cb", ResponseType: "code", State: "s1", Scope: "issues:read",
			Challenge: challenge, Method: "S256", Resources: []string{resource}},
		client: &directory.Client{ID: goodID, Source: directory.SourceCIMD, Host: "good.example.com", RedirectURIs: []string{"https://good.example.com/cb"},
			GrantTypes: []string{"authorization_code"}, AuthMethods: []string{"none"}, Doc: document(t, goodID, nil)},
		policy: set,
		rules:  &rules{acrs: []string{login.ACR, login.ACRUpstream, "gold", "high"}},
		at:     atAuthorize,
	}
}

func TestTheTableOfChecks(t *testing.T) {
	listed := func(uris ...string) func(*attempt) { return func(a *attempt) { a.client.RedirectURIs = uris } }
	asked := func(uri string) func(*attempt) { return func(a *attempt) { a.req.RedirectURI = uri } }
	doc := func(change func(*cimd.Document)) func(*attempt) { return func(a *attempt) { change(a.client.Doc) } }
	push := func(a *attempt) { a.pushed = true }
	details := func(raw string) func(*attempt) { return func(a *attempt) { a.req.Details = raw } }
	fapi := func(a *attempt) {
		a.pushed, a.client.AuthMethods = true, []string{"private_key_jwt"}
		a.client.Decision.FAPI, a.client.Decision.RequirePAR, a.client.Decision.Rule = true, true, "banks"
	}
	rows := []struct {
		name  string
		spoil []func(*attempt)
		code  oauth.Code // "": the request is in order
		shown bool       // the answer stays on a page of ours
		rule  string
	}{
		{name: "a good request passes"},

		// The redirect URI.
		{name: "AUTHZ-02, AUTHZ-03, attack AZ-01: an unlisted redirect URI is shown, not followed", spoil: []func(*attempt){asked("https://evil.test/cb")}, code: oauth.InvalidRequest, shown: true, rule: "AUTHZ-03"},
		{name: "attack AZ-02: trailing slash", spoil: []func(*attempt){asked("https://good.example.com/cb/")}, code: oauth.InvalidRequest, shown: true},
		{name: "attack AZ-02: case", spoil: []func(*attempt){asked("https://good.example.com/CB")}, code: oauth.InvalidRequest, shown: true},
		{name: "attack AZ-02: percent-encoding", spoil: []func(*attempt){asked("https://good.example.com/%63b")}, code: oauth.InvalidRequest, shown: true},
		{name: "attack AZ-02: default port", spoil: []func(*attempt){asked("https://good.example.com:443/cb")}, code: oauth.InvalidRequest, shown: true},
		{name: "attack AZ-02: added query", spoil: []func(*attempt){asked("https://good.example.com/cb?x=1")}, code: oauth.InvalidRequest, shown: true},
		{name: "attack AZ-02: added fragment", spoil: []func(*attempt){asked("https://good.example.com/cb#x")}, code: oauth.InvalidRequest, shown: true},
		{name: "attack AZ-02: dot segments", spoil: []func(*attempt){asked("https://good.example.com/a/../cb")}, code: oauth.InvalidRequest, shown: true},
		{name: "AUTHZ-04, attack AZ-03: a portless loopback matches any port", spoil: []func(*attempt){listed("http://127.0.0.1/cb"), asked("http://127.0.0.1:51004/cb")}},
		{name: "AUTHZ-04: a ported loopback matches another port", spoil: []func(*attempt){listed("http://127.0.0.1:33418/"), asked("http://127.0.0.1:50000/")}},
		{name: "AUTHZ-04: the path of a loopback must match", spoil: []func(*attempt){listed("http://127.0.0.1/cb"), asked("http://127.0.0.1:51004/other")}, code: oauth.InvalidRequest, shown: true, rule: "AUTHZ-04"},
		{name: "AUTHZ-05: localhost matches any port", spoil: []func(*attempt){listed("http://localhost/callback"), asked("http://localhost:8123/callback")}},
		{name: "AUTHZ-05: localhost does not stand for 127.0.0.1", spoil: []func(*attempt){listed("http://127.0.0.1/cb"), asked("http://localhost:51004/cb")}, code: oauth.InvalidRequest, shown: true},
		{name: "attack AZ-05: no free port for https", spoil: []func(*attempt){listed("https://good.example.com:8443/cb"), asked("https://good.example.com:9443/cb")}, code: oauth.InvalidRequest, shown: true},
		{name: "AUTHZ-06, attack AZ-06: omitted while several are listed", spoil: []func(*attempt){asked(""), listed("https://good.example.com/cb", "https://good.example.com/cb2")}, code: oauth.InvalidRequest, shown: true, rule: "AUTHZ-06"},
		{name: "attack AZ-06: omitted with exactly one https entry means that one", spoil: []func(*attempt){asked("")}},
		{name: "attack AZ-06: omitted with one loopback entry", spoil: []func(*attempt){asked(""), listed("http://127.0.0.1/cb")}, code: oauth.InvalidRequest, shown: true, rule: "AUTHZ-06"},
		{name: "AUTHZ-06: omitted with an empty list", spoil: []func(*attempt){asked(""), listed()}, code: oauth.InvalidRequest, shown: true},
		{name: "AUTHZ-02: a bad redirect URI wins over every other mistake", spoil: []func(*attempt){asked("https://evil.test/cb"), func(a *attempt) { a.req.ResponseType, a.req.Challenge = "", "" }}, code: oauth.InvalidRequest, shown: true},

		// What the client may do at all.
		{name: "AUTHZ-29, DOC-17: no client authentication method in common", spoil: []func(*attempt){func(a *attempt) { a.client.AuthMethods = nil }}, code: oauth.UnauthorizedClient, rule: "AUTHZ-29"},
		{name: "POL-05: the policy leaves no authentication method", spoil: []func(*attempt){func(a *attempt) { a.client.Decision.Methods = []string{"private_key_jwt"} }}, code: oauth.UnauthorizedClient},
		{name: "POL-05: the policy excludes the grant", spoil: []func(*attempt){func(a *attempt) { a.client.Decision.Grants = []string{"client_credentials"} }}, code: oauth.UnauthorizedClient, rule: "POL-05"},
		{name: "a client without the code grant", spoil: []func(*attempt){func(a *attempt) { a.client.GrantTypes = []string{"refresh_token"} }}, code: oauth.UnauthorizedClient},
		{name: "DOC-30, PAR-08: the document takes pushed requests only", spoil: []func(*attempt){doc(func(d *cimd.Document) { d.RequirePAR = true })}, code: oauth.InvalidRequest, rule: "PAR-08"},
		{name: "DOC-30, PAR-08: and this one was pushed", spoil: []func(*attempt){doc(func(d *cimd.Document) { d.RequirePAR = true }), push}},
		{name: "PAR-08: the server takes pushed requests only", spoil: []func(*attempt){func(a *attempt) { a.rules.requirePAR = true }}, code: oauth.InvalidRequest, rule: "PAR-08"},
		{name: "PAR-08, POL-03: the policy takes pushed requests only", spoil: []func(*attempt){func(a *attempt) { a.client.Decision.RequirePAR = true }}, code: oauth.InvalidRequest, rule: "PAR-08"},
		{name: "PAR-01: pushed without a proof by a client that has keys", spoil: []func(*attempt){push, func(a *attempt) { a.unproven, a.client.AuthMethods = true, []string{"private_key_jwt"} }}, code: oauth.InvalidRequest, rule: "PAR-01"},
		{name: "PAR-01: pushed without a proof by a public client", spoil: []func(*attempt){push, func(a *attempt) { a.unproven = true }}},
		{name: "DOC-30: the document takes signed requests only", spoil: []func(*attempt){doc(func(d *cimd.Document) { d.RequireSignedRequest = true })}, code: oauth.InvalidRequest, rule: "DOC-30"},
		{name: "DOC-30: and this one is signed", spoil: []func(*attempt){doc(func(d *cimd.Document) { d.RequireSignedRequest = true }), func(a *attempt) { a.req.Signed = true }}},
		{name: "DOC-30: a client whose tokens are bound to a key may ask", spoil: []func(*attempt){doc(func(d *cimd.Document) { d.DPoPBound = true })}},
		{name: "DOC-30: certificates that cannot reach us", spoil: []func(*attempt){doc(func(d *cimd.Document) { d.MTLSBound = true })}, code: oauth.UnauthorizedClient, rule: "DOC-30"},
		{name: "DOC-30: certificates that can", spoil: []func(*attempt){doc(func(d *cimd.Document) { d.MTLSBound = true }), func(a *attempt) { a.rules.certificates = true }}},

		// The FAPI 2.0 security profile.
		{name: "POL-09: a client with a key that pushed its request", spoil: []func(*attempt){fapi}},
		{name: "POL-09: a public client", spoil: []func(*attempt){fapi, func(a *attempt) { a.client.AuthMethods = []string{"none"} }}, code: oauth.UnauthorizedClient, rule: "POL-09"},
		{name: "POL-09: a client with a shared secret", spoil: []func(*attempt){fapi, func(a *attempt) { a.client.AuthMethods = []string{"client_secret_basic"} }}, code: oauth.UnauthorizedClient, rule: "POL-09"},
		{name: "POL-09: a request in the address of the browser", spoil: []func(*attempt){fapi, func(a *attempt) { a.pushed = false }}, code: oauth.InvalidRequest, rule: "PAR-08"},
		{name: "POL-09: a redirect to the person's own computer", spoil: []func(*attempt){fapi, listed("http://127.0.0.1/cb"), asked("http://127.0.0.1:1234/cb")}, code: oauth.InvalidRequest, rule: "POL-09"},
		{name: "POL-09: a pushed request that leaves the redirect URI to us", spoil: []func(*attempt){fapi, asked("")}, code: oauth.InvalidRequest, rule: "POL-09"},
		{name: "POL-09: the device flow", spoil: []func(*attempt){fapi, func(a *attempt) { a.at = atDevice }}, code: oauth.UnauthorizedClient, rule: "POL-09"},

		// The form of the request.
		{name: "AUTHZ-25, attack AZ-15: a foreign request_uri is refused and never fetched", spoil: []func(*attempt){func(a *attempt) { a.req.Foreign = "request_uri" }}, code: oauth.RequestURINotSupported},
		{name: "AUTHZ-09, attack AZ-07: response_type=token", spoil: []func(*attempt){func(a *attempt) { a.req.ResponseType = "token" }}, code: oauth.UnsupportedResponseType},
		{name: "AUTHZ-09, attack AZ-07: response_type=code token", spoil: []func(*attempt){func(a *attempt) { a.req.ResponseType = "code token" }}, code: oauth.UnsupportedResponseType},
		{name: "AUTHZ-09, attack AZ-07: response_type missing", spoil: []func(*attempt){func(a *attempt) { a.req.ResponseType = "" }}, code: oauth.UnsupportedResponseType},
		{name: "attack AZ-15: response_mode=fragment", spoil: []func(*attempt){func(a *attempt) { a.req.ResponseMode = "fragment" }}, code: oauth.InvalidRequest},
		{name: "attack AZ-15: response_mode=form_post", spoil: []func(*attempt){func(a *attempt) { a.req.ResponseMode = "form_post" }}, code: oauth.InvalidRequest},
		{name: "response_mode=query is the default", spoil: []func(*attempt){func(a *attempt) { a.req.ResponseMode = "query" }}},

		// PKCE.
		{name: "AUTHZ-07, attack AZ-08: no challenge", spoil: []func(*attempt){func(a *attempt) { a.req.Challenge = "" }}, code: oauth.InvalidRequest, rule: "AUTHZ-07"},
		{name: "AUTHZ-07, attack AZ-08: method plain", spoil: []func(*attempt){func(a *attempt) { a.req.Method = "plain" }}, code: oauth.InvalidRequest, rule: "AUTHZ-07"},
		{name: "AUTHZ-07, attack AZ-08: method missing", spoil: []func(*attempt){func(a *attempt) { a.req.Method = "" }}, code: oauth.InvalidRequest, rule: "AUTHZ-07"},
		{name: "attack AZ-08: method s256", spoil: []func(*attempt){func(a *attempt) { a.req.Method = "s256" }}, code: oauth.InvalidRequest},
		{name: "attack AZ-09: method with a space", spoil: []func(*attempt){func(a *attempt) { a.req.Method = "S256 " }}, code: oauth.InvalidRequest},
		{name: "AUTHZ-08, attack AZ-08: challenge of 42 characters", spoil: []func(*attempt){func(a *attempt) { a.req.Challenge = challenge[:42] }}, code: oauth.InvalidRequest, rule: "AUTHZ-08"},
		{name: "AUTHZ-08, attack AZ-08: challenge with padding", spoil: []func(*attempt){func(a *attempt) { a.req.Challenge = challenge + "=" }}, code: oauth.InvalidRequest, rule: "AUTHZ-08"},
		{name: "AUTHZ-08, attack AZ-09: challenge of 129 characters", spoil: []func(*attempt){func(a *attempt) { a.req.Challenge = strings.Repeat("a", 129) }}, code: oauth.InvalidRequest, rule: "AUTHZ-08"},

		{name: "AUTHZ-28: the thumbprint of a key", spoil: []func(*attempt){func(a *attempt) { a.req.JKT = challenge }}},
		{name: "AUTHZ-28: a thumbprint that is too short", spoil: []func(*attempt){func(a *attempt) { a.req.JKT = challenge[:42] }}, code: oauth.InvalidRequest, rule: "AUTHZ-28"},
		{name: "AUTHZ-28: a thumbprint with padding", spoil: []func(*attempt){func(a *attempt) { a.req.JKT = challenge[:42] + "=" }}, code: oauth.InvalidRequest, rule: "AUTHZ-28"},

		// OpenID Connect.
		{name: "AUTHZ-23: an unknown prompt", spoil: []func(*attempt){func(a *attempt) { a.req.Prompt = "create" }}, code: oauth.InvalidRequest, rule: "AUTHZ-23"},
		{name: "AUTHZ-23: none with another value", spoil: []func(*attempt){func(a *attempt) { a.req.Prompt = "none login" }}, code: oauth.InvalidRequest, rule: "AUTHZ-23"},
		{name: "AUTHZ-23: login consent", spoil: []func(*attempt){func(a *attempt) { a.req.Prompt = "login consent" }}},
		{name: "AUTHZ-24: max_age that is no number", spoil: []func(*attempt){func(a *attempt) { a.req.MaxAge = "-1" }}, code: oauth.InvalidRequest, rule: "AUTHZ-24"},
		{name: "AUTHZ-24: max_age too large", spoil: []func(*attempt){func(a *attempt) { a.req.MaxAge = "99999999999" }}, code: oauth.InvalidRequest, rule: "AUTHZ-24"},
		{name: "AUTHZ-24: acr_values nobody here can meet", spoil: []func(*attempt){func(a *attempt) { a.req.ACRValues = "loa9" }}, code: oauth.UnmetAuthenticationNeeds, rule: "AUTHZ-24"},
		{name: "AUTHZ-24: one known acr is enough", spoil: []func(*attempt){func(a *attempt) { a.req.ACRValues = "loa9 high" }}},

		// The audience.
		{name: "AUTHZ-16, attack AZ-10: unknown resource", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = []string{"https://evil.test/"} }}, code: oauth.InvalidTarget, rule: "AUTHZ-16"},
		{name: "AUTHZ-16, attack AZ-10: resource with a fragment", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = []string{resource + "#frag"} }}, code: oauth.InvalidTarget},
		{name: "attack AZ-10: relative resource", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = []string{"/mcp"} }}, code: oauth.InvalidTarget},
		{name: "attack AZ-10: http instead of https", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = []string{"http://mcp.example.com/mcp"} }}, code: oauth.InvalidTarget},
		{name: "attack AZ-10: the same resource twice", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = []string{resource, resource} }}},
		{name: "attack AZ-10: two different resources", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = []string{resource, "https://other.example.com/mcp"} }}, code: oauth.InvalidTarget},
		{name: "AUTHZ-18: upper-case scheme and host", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = []string{"HTTPS://MCP.example.com/mcp"} }}},
		{name: "AUTHZ-18: an alias with a trailing slash", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = []string{resource + "/", resource} }}},
		{name: "AUTHZ-18: no trailing slash is guessed", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = []string{"https://other.example.com/mcp/"} }}, code: oauth.InvalidTarget},
		{name: "AUTHZ-17: no resource means the default", spoil: []func(*attempt){func(a *attempt) { a.req.Resources = nil }}},
		{name: "AUTHZ-17: no resource and no default", spoil: []func(*attempt){func(a *attempt) { a.req.Resources, a.policy.DefaultResource = nil, "" }}, code: oauth.InvalidTarget, rule: "AUTHZ-17"},
		{name: "AUTHZ-16, POL-05: the policy excludes the resource", spoil: []func(*attempt){func(a *attempt) { a.client.Decision.Resources = []string{"https://other.example.com/mcp"} }}, code: oauth.InvalidTarget},

		// The scope.
		{name: "AUTHZ-19, attack AZ-12: only unknown scopes", spoil: []func(*attempt){func(a *attempt) { a.req.Scope = "nope nothing" }}, code: oauth.InvalidScope, rule: "AUTHZ-19"},
		{name: "attack AZ-12: control characters", spoil: []func(*attempt){func(a *attempt) { a.req.Scope = "issues:read\x01" }}, code: oauth.InvalidScope},
		{name: "attack AZ-12: 5000 tokens", spoil: []func(*attempt){func(a *attempt) { a.req.Scope = strings.Repeat("a ", 2500) + strings.Repeat("b ", 2500) }}, code: oauth.InvalidScope},
		{name: "attack AZ-12: too many tokens", spoil: []func(*attempt){func(a *attempt) {
			for i := range 70 {
				a.req.Scope += " s" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
			}
		}}, code: oauth.InvalidScope},
		{name: "attack DO-28: nothing remains under the document's scope", spoil: []func(*attempt){func(a *attempt) { a.client.HasScopes, a.client.Scopes = true, oauth.Scopes{"admin"} }}, code: oauth.InvalidScope},
		{name: "AUTHZ-19: offline_access alone gives nothing", spoil: []func(*attempt){func(a *attempt) { a.req.Scope = "offline_access" }}, code: oauth.InvalidScope},
		{name: "openid alone is a sign-in", spoil: []func(*attempt){func(a *attempt) { a.req.Scope = "openid" }}},
		{name: "AUTHZ-19: unknown scopes refused where the configuration says so", spoil: []func(*attempt){func(a *attempt) { a.rules.refuseUnknownScopes, a.req.Scope = true, "issues:read nope" }}, code: oauth.InvalidScope},

		// What is asked for beside scopes.
		{name: "AUTHZ-26: details of a type that the resource knows", spoil: []func(*attempt){details(`[{"type":"repository","repository":"acme/site"}]`)}},
		{name: "AUTHZ-26: details stand in for scopes", spoil: []func(*attempt){details(`[{"type":"repository","repository":"acme/site"}]`), func(a *attempt) { a.req.Scope = "" }}},
		{name: "AUTHZ-26: details do not make up for scopes that are not there", spoil: []func(*attempt){details(`[{"type":"repository","repository":"acme/site"}]`), func(a *attempt) { a.req.Scope = "nope" }}, code: oauth.InvalidScope},
		{name: "AUTHZ-26: details of an unknown type", spoil: []func(*attempt){details(`[{"type":"payment"}]`)}, code: oauth.InvalidDetails, rule: "AUTHZ-26"},
		{name: "AUTHZ-26: details that are no JSON", spoil: []func(*attempt){details(`repository`)}, code: oauth.InvalidDetails, rule: "AUTHZ-26"},
		{name: "AUTHZ-26: details whose scope is not asked for", spoil: []func(*attempt){details(`[{"type":"settings"}]`)}, code: oauth.InvalidDetails, rule: "AUTHZ-26"},
		{name: "AUTHZ-26: details together with their scope", spoil: []func(*attempt){details(`[{"type":"settings"}]`), func(a *attempt) { a.req.Scope = "admin" }}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			a := goodAttempt(t)
			for _, f := range r.spoil {
				f(a)
			}
			err := a.check()
			if r.code == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("the request passed")
			}
			e, back := asRefusal(err)
			if a.at != atAuthorize {
				back, e = true, oauth.AsError(err)
			}
			if !back {
				var page *web.Refusal
				if !errors.As(err, &page) {
					t.Fatalf("%T is neither a page nor an answer to the client", err)
				}
				e = page.Err
				if page.Status != 400 || page.ClientURL != goodID {
					t.Errorf("the page has status %d and names %q", page.Status, page.ClientURL)
				}
			}
			if back == r.shown {
				t.Errorf("redirected %t, want shown %t", back, r.shown)
			}
			if e.Code != r.code || (r.rule != "" && e.Rule != r.rule) {
				t.Errorf("got %s under %s, want %s under %s", e.Code, e.Rule, r.code, r.rule)
			}
			if e.Hint == "" || e.Rule == "" {
				t.Errorf("AUTHZ-30: the refusal has no hint or no rule: %+v", e)
			}
		})
	}
}

func TestARequestWithoutAScopeIsToldSo(t *testing.T) {
	a := goodAttempt(t)
	a.req.Scope = ""
	a.policy.Resources[0].Default = nil
	if err := checkResource(a); err != nil {
		t.Fatal(err)
	}
	if err := checkScope(a); err == nil || err.Code != oauth.InvalidScope || !strings.Contains(err.Hint, "names no scope") {
		t.Errorf("AUTHZ-19: %+v", err)
	}
}

func TestTheTrustLineIsOneRowBelowTheRedirectURI(t *testing.T) {
	if checks[0].name != "redirect_uri" || checks[0].answer != shown {
		t.Fatalf("the first check is %q", checks[0].name)
	}
	for _, c := range checks[1:] {
		if c.answer != redirected {
			t.Errorf("%s is shown, below the line from which the redirect URI is trusted", c.name)
		}
	}
}

func TestWhatTheChecksLeaveBehind(t *testing.T) {
	run := func(t *testing.T, change func(*attempt)) *attempt {
		t.Helper()
		a := goodAttempt(t)
		change(a)
		if err := a.check(); err != nil {
			t.Fatal(err)
		}
		return a
	}
	t.Run("AUTHZ-19, attack AZ-12: unknown and repeated scopes are dropped and remembered", func(t *testing.T) {
		a := run(t, func(a *attempt) { a.req.Scope = "issues:read nope issues:read  issues:write" })
		if got := a.scopes.String(); got != "issues:read issues:write" {
			t.Errorf("scopes %q", got)
		}
		if got := a.dropped.String(); got != "nope" {
			t.Errorf("dropped %q", got)
		}
	})
	t.Run("attack DO-28: the document and the policy are both ceilings", func(t *testing.T) {
		a := run(t, func(a *attempt) {
			a.req.Scope = "issues:read issues:write admin"
			a.client.HasScopes, a.client.Scopes = true, oauth.Scopes{"issues:read", "admin", "issues:*"}
			a.client.Decision = policy.Decision{HasScopes: true, Scopes: oauth.Scopes{"issues:read", "issues:write"}}
		})
		if got := a.scopes.String(); got != "issues:read" {
			t.Errorf("scopes %q", got)
		}
	})
	t.Run("attack AZ-12: no scope means the default of the resource", func(t *testing.T) {
		a := run(t, func(a *attempt) { a.req.Scope = "" })
		if got := a.scopes.String(); got != "issues:read" || len(a.dropped) > 0 {
			t.Errorf("scopes %q, dropped %q", got, a.dropped)
		}
	})
	t.Run("AUTHZ-18: the canonical resource is what the token is for", func(t *testing.T) {
		a := run(t, func(a *attempt) { a.req.Resources = []string{"HTTPS://MCP.example.com/mcp"} })
		if a.resource.ID != resource {
			t.Errorf("resource %q", a.resource.ID)
		}
	})
	t.Run("AUTHZ-04: the redirect URI is kept as it was asked for", func(t *testing.T) {
		a := run(t, func(a *attempt) {
			a.client.RedirectURIs, a.req.RedirectURI = []string{"http://127.0.0.1/cb"}, "http://127.0.0.1:51004/cb"
		})
		if a.redirect != "http://127.0.0.1:51004/cb" {
			t.Errorf("redirect %q", a.redirect)
		}
	})
	t.Run("DOC-30: default_max_age of the document counts when the request has none", func(t *testing.T) {
		a := run(t, func(a *attempt) { a.client.Doc.DefaultMaxAge = 300 })
		if a.maxAge != 5*time.Minute {
			t.Errorf("max_age %v", a.maxAge)
		}
		a = run(t, func(a *attempt) { a.client.Doc.DefaultMaxAge, a.req.MaxAge = 300, "60" })
		if a.maxAge != time.Minute {
			t.Errorf("max_age %v", a.maxAge)
		}
	})
	for asked, want := range map[string]oauth.Scopes{
		login.ACR:                    {login.ACR, login.ACRUpstream, "gold", "high"},
		login.ACRUpstream:            {login.ACRUpstream, "gold", "high"},
		"gold":                       {"gold"},
		"high gold":                  {"high", "gold"},
		"gold " + login.ACRUpstream:  {"gold", login.ACRUpstream, "high"},
		"loa9 high " + "urn:x:phrh2": {"high"},
	} {
		t.Run("AUTHZ-24: a stronger context satisfies a weaker request, and of two that are mapped none does for the other: "+asked, func(t *testing.T) {
			if a := run(t, func(a *attempt) { a.req.ACRValues = asked }); !slices.Equal(a.acr, want) {
				t.Errorf("acr %q", a.acr)
			}
		})
	}
}

func TestParse(t *testing.T) {
	p := open(t)
	b := p.browser()
	rows := []struct {
		name, query string
		status      int
	}{
		{"AUTHZ-01: a parameter twice", asks(goodID).Encode() + "&state=2", 400},
		{"attack AZ-09: code_challenge twice", asks(goodID).Encode() + "&code_challenge=x", 400},
		{"AUTHZ-02: no client_id", asks(goodID, "client_id", "").Encode(), 400},
		{"AUTHZ-01: an empty client_id is absent", asks(goodID, "client_id", "").Encode() + "&client_id=", 400},
		{"AUTHZ-13, attack AZ-13: a state above the limit", asks(goodID, "state", strings.Repeat("s", 4097)).Encode(), 400},
		{"attack AZ-13: a query above the limit", asks(goodID, "state", strings.Repeat("s", 100_000)).Encode(), 414},
		{"attack AZ-12: a scope above the limit", asks(goodID, "scope", strings.Repeat("s ", 5000)).Encode(), 400},
		{"attack AZ-10: twenty resources", asks(goodID).Encode() + strings.Repeat("&resource=https%3A%2F%2Fmcp.example.com%2Fmcp", 20), 400},
		{"AUTHZ-16: a resource above the limit", asks(goodID, "resource", "https://mcp.example.com/"+strings.Repeat("x", 2100)).Encode(), 400},
		{"a broken escape", "client_id=%zz", 400},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b.get("/authorize?"+r.query).local(t, r.status)
		})
	}
	t.Run("AUTHZ-01: unknown parameters are ignored, empty ones absent", func(t *testing.T) {
		got := p.signedIn("john").get("/authorize?" + asks(goodID).Encode() + "&foo=bar&nonce=&prompt=")
		if got.transaction() == "" {
			t.Errorf("no consent page: %d\n%s", got.StatusCode, got.body)
		}
	})
	t.Run("a request survives being written as a query", func(t *testing.T) {
		q := Request{ClientID: goodID, RedirectURI: "https://good.example.com/cb?a=b&c", State: "\r\n<>&", Resources: []string{"a", "b"}, Foreign: "request_uri", UILocales: "de fr"}
		v, err := url.ParseQuery(q.query())
		if err != nil {
			t.Fatal(err)
		}
		if v.Get("redirect_uri") != q.RedirectURI || v.Get("state") != q.State || len(v["resource"]) != 2 || !v.Has("request_uri") || v.Get("ui_locales") != "de fr" {
			t.Errorf("query %v", v)
		}
	})
}

func TestTheEndpointsShareOneTable(t *testing.T) {
	t.Run("PAR-03: what is checked at /authorize is checked at /par, but for how the request came", func(t *testing.T) {
		for _, c := range checks {
			if c.at&atAuthorize != 0 && c.at&atPAR == 0 && c.name != "how the request came" {
				t.Errorf("%s is not checked at /par", c.name)
			}
		}
	})
	t.Run("PAR-03, PAR-09: a redirect URI that is not listed is refused in JSON at /par", func(t *testing.T) {
		a := goodAttempt(t)
		a.at, a.req.RedirectURI = atPAR, "https://evil.test/cb"
		e, ok := errors.AsType[*oauth.Error](a.check())
		if !ok || e.Code != oauth.InvalidRequest || e.Rule != "AUTHZ-03" {
			t.Errorf("%v", e)
		}
		if _, page := errors.AsType[*web.Refusal](a.check()); page {
			t.Error("the refusal is a page")
		}
	})
	t.Run("DEV-07: the audience and the scopes of a device are checked, its redirects are not", func(t *testing.T) {
		a := goodAttempt(t)
		a.at, a.req.RedirectURI, a.req.Challenge, a.req.ResponseType = atDevice, "", "", ""
		a.client.GrantTypes, a.client.Decision.Explicit = []string{oauth.GrantDeviceCode}, true
		if err := a.check(); err != nil || a.resource == nil || !a.scopes.Has("issues:read") {
			t.Errorf("%v", err)
		}
		a.req.Resources = []string{"https://evil.test/"}
		a.resource = nil
		if e := oauth.AsError(a.check()); e.Code != oauth.InvalidTarget {
			t.Errorf("%v", e)
		}
	})
}
