package cimd

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLint(t *testing.T) {
	id := mustID(t, goodURL)
	t.Run("DOC-31, attack HO-10: every defect is named, the first is the validator's", func(t *testing.T) {
		body := document(spoil{
			"client_id": `"https://evil.test/c.json"`, "client_secret": `"s"`, "client_name": `"google.com"`,
			"redirect_uris": `["http://good.test/cb","javascript:x","https://good.test/cb#f"]`,
			"jwks":          withKey("d", `"AA"`), "jwks_uri": `"http://good.test/jwks"`,
			"token_endpoint_auth_methods_supported": `["client_secret_basic"]`,
			"scope":                                 `[]`, "dpop_bound_access_tokens": `1`, "logo_uri": `"http://good.test/l.png"`,
		})
		doc, findings := Lint(id, body, ProfileMCP, Supported{})
		if doc != nil {
			t.Error("a broken document was returned")
		}
		var got []string
		for _, f := range findings {
			got = append(got, string(f.Severity)+" "+f.Rule+" "+f.Member)
		}
		want := []string{
			"error DOC-02 client_id", "error DOC-03 client_secret", "error DOC-04 token_endpoint_auth_methods_supported[0]",
			"error DOC-05 jwks.keys[1]", "error DOC-23 jwks", "error DOC-26 jwks_uri",
			"error DOC-09 redirect_uris[0]", "error DOC-10 redirect_uris[1]", "error DOC-09 redirect_uris[2]",
			"error DOC-28 scope", "warning DOC-27 client_name", "warning DOC-26 logo_uri", "error DOC-30 dpop_bound_access_tokens",
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("missing: %s", w)
			}
		}
		if len(got) != len(want) || got[0] != want[0] {
			t.Errorf("got %s", strings.Join(got, "\n"))
		}
	})
	t.Run("DOC-31 a good document has no findings", func(t *testing.T) {
		if doc, findings := Lint(id, document(nil), ProfileMCP, Supported{}); doc == nil || len(findings) != 0 {
			t.Errorf("%v", findings)
		}
	})
	t.Run("DOC-31 warnings are those of the document", func(t *testing.T) {
		doc, findings := Lint(id, document(spoil{"client_name": ""}), ProfileMCP, Supported{})
		if doc == nil || len(findings) != 1 || findings[0].String() != "warning: "+doc.Warnings[0].String() {
			t.Errorf("%v %v", doc, findings)
		}
	})
	t.Run("DOC-01 a finding about the whole document names no member", func(t *testing.T) {
		_, findings := Lint(id, []byte(`{`), ProfileMCP, Supported{})
		if len(findings) != 1 || findings[0].Member != "" || !strings.HasSuffix(findings[0].String(), "[DOC-01]") {
			t.Errorf("%v", findings)
		}
	})
	t.Run("an error reads well in a log and hides its cause from the hint", func(t *testing.T) {
		cause := &Error{Kind: KindFetch, Hint: "inner"}
		e := &Error{Kind: KindFetch, Rule: "FETCH-04", Hint: "the document could not be fetched", RetryAfter: time.Second, Err: cause}
		if got := e.Error(); !strings.HasPrefix(got, "client metadata: fetch: the document could not be fetched [FETCH-04]: ") || e.Unwrap() != error(cause) {
			t.Errorf("got %q", got)
		}
	})
}

func FuzzLint(f *testing.F) {
	for _, r := range brokenRows {
		f.Add(document(r.change))
	}
	f.Add(document(nil))
	id, err := testRules.Parse(goodURL)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := Validate(id, body, ProfileMCP, Supported{})
		lintAgrees(t, id, body, err)
		if err != nil {
			return
		}
		// What an accepted document must never hold.
		for _, uri := range doc.RedirectURIs {
			if strings.ContainsAny(uri, "#* \\") || !strings.HasPrefix(uri, "https://") && !strings.HasPrefix(uri, "http://") {
				t.Fatalf("redirect URI %q", uri)
			}
		}
		if len(doc.RedirectURIs) == 0 || doc.ID != id || len(doc.Name) > 4*MaxNameRunes || strings.ContainsAny(doc.Name, "\x00\n\u202e\u200b") {
			t.Fatalf("document %+v", doc)
		}
		for _, uri := range []string{doc.JWKSURI, doc.LogoURI, doc.ClientURI, doc.PolicyURI, doc.TOSURI, doc.BackchannelLogoutURI} {
			if uri != "" && !strings.HasPrefix(uri, "https://") {
				t.Fatalf("URL %q", uri)
			}
		}
	})
}

// twoKilobytes is a document of the usual size.
func twoKilobytes() []byte {
	return document(spoil{
		"client_uri": `"https://good.test/"`, "logo_uri": `"https://good.test/logo.png"`, "policy_uri": `"https://good.test/privacy"`,
		"tos_uri": `"https://good.test/tos"`, "scope": `"mcp:read mcp:write"`, "jwks_uri": `"https://good.test/jwks.json"`,
		"token_endpoint_auth_method":            `"private_key_jwt"`,
		"token_endpoint_auth_methods_supported": `["none","private_key_jwt"]`,
		"client_name#de":                        `"Gut"`, "contacts": `["a@good.test","b@good.test"]`,
		"redirect_uris": `["https://good.test/cb"` + strings.Repeat(`,"https://good.test/cb/`+strings.Repeat("x", 100)+`"`, 1) + `,"http://127.0.0.1/cb","http://localhost/cb"]`,
		"x":             `"` + strings.Repeat("x", 1250) + `"`,
	})
}

func BenchmarkValidate(b *testing.B) {
	id, body := mustID(b, goodURL), twoKilobytes()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Validate(id, body, ProfileMCP, Supported{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := testRules.Parse(goodURL); err != nil {
			b.Fatal(err)
		}
	}
}

func TestValidateCost(t *testing.T) {
	id, body := mustID(t, goodURL), twoKilobytes()
	if n := len(body); n < 1900 || n > 2300 {
		t.Fatalf("the document has %d bytes", n)
	}
	if got := testing.AllocsPerRun(50, func() { _, _ = Validate(id, body, ProfileMCP, Supported{}) }); got > 120 {
		t.Errorf("%v allocations", got)
	}
}
