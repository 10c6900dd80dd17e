package cimd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestNames(t *testing.T) {
	id := mustID(t, "https://app.acme.org/c.json")
	rows := []struct {
		name, in, want string
		warns          bool
	}{
		{"DOC-27 a plain name", "Acme Notes", "Acme Notes", false},
		{"DOC-27 letters of any script", "Wetter für Zürich 天気 тест עברית", "Wetter für Zürich 天気 тест עברית", false},
		{"DOC-27 NFC", "Cafe\u0301", "Café", true},
		{"DOC-27 direction marks", "Acme\u202eelgooG\u202c", "AcmeelgooG", true},
		{"DOC-27 isolates", "\u2066Acme\u2069", "Acme", true},
		{"DOC-27 zero-width characters", "Ac\u200bme\u200d\ufeff\u2060", "Acme", true},
		{"DOC-27 a soft hyphen", "Ac\u00adme", "Acme", true},
		{"DOC-27 control characters", "Ac\u0007me\u0085\u009f", "Acme", true},
		{"DOC-27 white space becomes one space", " \tAcme\n\u2028 \u3000Notes ", "Acme Notes", true},
		{"DOC-27 fillers and tags", "Ac\u3164\u115f\u2800me\U000e0041\ufe0f", "Acme", true},
		{"DOC-27 private use", "Ac\ue000me", "Acme", true},
		{"DOC-27 piled marks", "A" + strings.Repeat("\u0336", 50), "A" + strings.Repeat("\u0336", 4), true},
		{"DOC-27 a mark without a base", "\u0301Acme", "Acme", true},
		{"DOC-27 nothing visible", "\u200b \u202e", "", true},
		{"DOC-27 empty", "", "", true},
		{"DOC-27 too long", strings.Repeat("é", 81), strings.Repeat("é", 79) + "…", true},
		{"DOC-27 just not too long", strings.Repeat("é", 80), strings.Repeat("é", 80), false},
		{"DOC-27, attack DO-25: markup is text", "<script>alert(1)</script>", "<script>alert(1)</script>", false},
		{"DOC-27, attack DO-25: a template is text", "{{.}} ${7*7}", "{{.}} ${7*7}", false},
		{"DOC-27, attack DO-27: a famous name stays what it is, a claim", "Google", "Google", false},
		{"DOC-27 another host", "google.com", "", true},
		{"DOC-27 another host in a sentence", "Sign in to Google.com now", "", true},
		{"DOC-27 another host with a path", "Acme (accounts.google.com/signin)", "", true},
		{"DOC-27 another host after user information", "acme@google.com", "", true},
		{"DOC-27 a URL", "https://google", "", true},
		{"DOC-27 www", "www.google", "", true},
		{"DOC-27 a host with an ideographic full stop", "google。com", "", true},
		{"DOC-27 a host with a half-width full stop", "google｡com", "", true},
		{"DOC-27 a host with a full-width dot", "google．com", "", true},
		{"DOC-27 a host with a one-dot leader", "google․com", "", true},
		{"DOC-27 a host in full-width letters", "ｇｏｏｇｌｅ．ｃｏｍ", "", true},
		{"DOC-27 a host in Cyrillic letters", "gооgle.com", "", true},
		{"DOC-27 a host split by a zero-width space", "goo\u200bgle.com", "", true},
		{"DOC-27 an A-label", "xn--80ak6aa92e.com", "", true},
		{"DOC-27 an international top-level domain", "пример.рф", "", true},
		{"DOC-27 a host with a final dot", "google.com.", "", true},
		{"DOC-27 a country with rules of its own", "bank.co.uk", "", true},
		{"DOC-27 a top-level domain with a wildcard rule", "bank.ck", "", true},
		{"DOC-27 a private registry", "evil.github.io", "", true},
		{"DOC-27 a test name", "evil.test", "", true},
		{"DOC-27 an inner name", "vault.internal", "", true},
		{"DOC-27 an IPv4 address", "10.0.0.1", "", true},
		{"DOC-27 the client's own host", "App.acme.org", "App.acme.org", false},
		{"DOC-27 the client's own domain", "Acme.org", "Acme.org", false},
		{"DOC-27 a neighbour is another host", "login.acme.org", "", true},
		{"DOC-27 a program's name is no host", "Node.js client", "Node.js client", false},
		{"DOC-27 a version is no host", "Acme 2.1", "Acme 2.1", false},
		{"DOC-27 an abbreviation is no host", "Acme Inc. (U.S.A.)", "Acme Inc. (U.S.A.)", false},
		{"DOC-27 an ellipsis is no host", "Acme...com", "Acme...com", false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			in, _ := json.Marshal(r.in)
			body := document(spoil{"client_id": `"https://app.acme.org/c.json"`, "client_name": string(in), "client_name#de": string(in)})
			doc, err := Validate(id, body, ProfileMCP, Supported{})
			if err != nil {
				t.Fatal(err)
			}
			if doc.Name != r.want || doc.Names["de"] != r.want {
				t.Errorf("name %q, translation %q, want %q", doc.Name, doc.Names["de"], r.want)
			}
			if (len(doc.Warnings) > 0) != r.warns {
				t.Errorf("warnings %v", doc.Warnings)
			}
		})
	}
}

func TestTranslations(t *testing.T) {
	id := mustID(t, goodURL)
	validate := func(change spoil) *Document {
		t.Helper()
		doc, err := Validate(id, document(change), ProfileMCP, Supported{})
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	t.Run("DOC-21 translations by lower-case tag", func(t *testing.T) {
		doc := validate(spoil{"client_name#de-CH": `"Gut"`, "client_name#fr": `"Bon"`})
		if len(doc.Names) != 2 || doc.Names["de-ch"] != "Gut" || doc.Names["fr"] != "Bon" || len(doc.Warnings) != 0 {
			t.Errorf("%v %v", doc.Names, doc.Warnings)
		}
	})
	t.Run("DOC-21 odd translations are ignored", func(t *testing.T) {
		doc := validate(spoil{"client_name#de": `"Gut"`, "client_name#DE": `"Besser"`, "client_name#": `"x"`, "client_name#<b>": `"x"`, "client_name#it": `1`})
		if len(doc.Names) != 1 || len(doc.Warnings) != 4 {
			t.Errorf("%v %v", doc.Names, doc.Warnings)
		}
	})
	t.Run("DOC-21, attack DO-19: 50 names are kept, the 65th is not", func(t *testing.T) {
		for n, want := range map[int]int{50: 50, 80: MaxNames} {
			change := spoil{}
			for i := range n {
				change[fmt.Sprintf("client_name#x-%d", i)] = `"Gut"`
			}
			if doc := validate(change); len(doc.Names) != want {
				t.Errorf("%d names gave %d", n, len(doc.Names))
			}
		}
	})
	t.Run("DOC-27 a name that is not a string is left out", func(t *testing.T) {
		if doc := validate(spoil{"client_name": `["Good"]`}); doc.Name != "" || len(doc.Warnings) != 1 {
			t.Errorf("%q %v", doc.Name, doc.Warnings)
		}
	})
}

func TestCleanText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.String().Draw(t, "in")
		out := cleanText(in)
		if !utf8.ValidString(out) || out != strings.TrimSpace(out) || cleanText(out) != out {
			t.Fatalf("%q became %q", in, out)
		}
		for _, c := range out {
			if unicode.In(c, unicode.Cc, unicode.Cf, unicode.Co, unicode.Bidi_Control) {
				t.Fatalf("%q holds %U", out, c)
			}
		}
	})
}

func TestDisplayHost(t *testing.T) {
	for in, want := range map[string]string{
		"good.test": "good.test", "GOOD.Test": "good.test", "[::1]": "[::1]", "127.0.0.1": "127.0.0.1",
		"xn--80ak6aa92e.test": "xn--80ak6aa92e.test", "XN--80AK6AA92E.test": "xn--80ak6aa92e.test",
		"bücher.example": "xn--bcher-kva.example", "xn--é": `"xn--\u00e9"`, "аррӏе.test": "xn--80ak6aa92e.test",
	} {
		t.Run("CONS-15, attack CU-26: "+in, func(t *testing.T) {
			if got := DisplayHost(in); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	for in, want := range map[string]string{
		"https://GOOD.test:8443/cb": "good.test", "http://localhost/cb": "localhost", "http://[::1]:9/cb": "[::1]",
		"com.example.app:/cb": "com.example.app:", "nothing": "",
	} {
		t.Run("CONS-15 the host of "+in, func(t *testing.T) {
			if got := RedirectHost(in); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
