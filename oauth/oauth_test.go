package oauth

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestErrorKeepsItsCauseToItself(t *testing.T) {
	cause := errors.New("row is gone")
	err := Refuse(InvalidGrant, "the code was used %s", "before").Because(cause).Under("TOK-03")
	if !errors.Is(err, cause) || err.Hint != "the code was used before" {
		t.Errorf("got %v", err)
	}
	if AsError(err) != err {
		t.Error("a refusal is not found again")
	}
	if e := AsError(cause); e.Code != ServerError || strings.Contains(e.Hint, "row") {
		t.Errorf("a private error leaks: %q", e.Hint)
	}
}

func TestPKCE(t *testing.T) {
	const verifier, challenge = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
	t.Run("AUTHZ-07 S256 agrees with the vector of RFC 7636", func(t *testing.T) {
		if S256(verifier) != challenge || !VerifierMatches(verifier, challenge) || VerifierMatches(verifier+"x", challenge) {
			t.Error("S256 is wrong")
		}
	})
	t.Run("CLI-07 a new verifier is 32 octets and never the same", func(t *testing.T) {
		a, b := NewVerifier(), NewVerifier()
		if len(a) != 43 || !ValidVerifier(a) || a == b {
			t.Errorf("got %q and %q", a, b)
		}
	})
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"AUTHZ-08 43 characters of base64url", challenge, true},
		{"AUTHZ-08, attack AZ-08: 42 characters", challenge[1:], false},
		{"AUTHZ-08, attack AZ-08: padding", challenge[1:] + "=", false},
		{"AUTHZ-08, attack AZ-09: 129 characters", strings.Repeat("a", 129), false},
		{"AUTHZ-08 a character outside the alphabet", "+" + challenge[1:], false},
		{"AUTHZ-08 stray low bits in the last character", challenge[:42] + "N", false},
		{"AUTHZ-08 empty", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if ValidChallenge(c.in) != c.ok {
				t.Errorf("%q", c.in)
			}
		})
	}
	for in, ok := range map[string]bool{strings.Repeat("a", 42): false, strings.Repeat("~", 43): true, strings.Repeat("a", 128): true, strings.Repeat("a", 129): false, strings.Repeat("a", 43) + "/": false} {
		if ValidVerifier(in) != ok {
			t.Errorf("attack TK-06: verifier %q", in)
		}
	}
}

func TestRedirectsMatchExactlyButForTheLoopbackPort(t *testing.T) {
	for _, c := range []struct {
		name, registered, requested string
		match                       bool
	}{
		{"AUTHZ-03 the same string", "https://good.test/cb", "https://good.test/cb", true},
		{"AUTHZ-03, attack AZ-02: trailing slash", "https://good.test/cb", "https://good.test/cb/", false},
		{"AUTHZ-03, attack AZ-02: host case", "https://good.test/cb", "https://Good.test/cb", false},
		{"AUTHZ-03, attack AZ-02: percent-encoding", "https://good.test/cb", "https://good.test/%63b", false},
		{"AUTHZ-03, attack AZ-02: default port", "https://good.test/cb", "https://good.test:443/cb", false},
		{"AUTHZ-03, attack AZ-02: added query", "https://good.test/cb", "https://good.test/cb?x=1", false},
		{"AUTHZ-03, attack AZ-02: added fragment", "https://good.test/cb", "https://good.test/cb#x", false},
		{"AUTHZ-03, attack AZ-02: dot segments", "https://good.test/cb", "https://good.test/a/../cb", false},
		{"AUTHZ-03, attack AZ-05: another https port", "https://good.test:8443/cb", "https://good.test:8444/cb", false},
		{"AUTHZ-04, attack AZ-03: a portless registration takes any port", "http://127.0.0.1/cb", "http://127.0.0.1:51004/cb", true},
		{"AUTHZ-04 a ported registration takes any port", "http://127.0.0.1:33418/", "http://127.0.0.1:50000/", true},
		{"AUTHZ-04 a ported registration takes none", "http://127.0.0.1:33418/", "http://127.0.0.1/", true},
		{"AUTHZ-04 IPv6", "http://[::1]/cb", "http://[::1]:9/cb", true},
		{"AUTHZ-04 the path must match", "http://127.0.0.1/cb", "http://127.0.0.1:1/cb2", false},
		{"AUTHZ-04 the query must match", "http://127.0.0.1/cb?a=1", "http://127.0.0.1:1/cb?a=2", false},
		{"AUTHZ-04 a fragment never matches", "http://127.0.0.1/cb", "http://127.0.0.1:1/cb#x", false},
		{"AUTHZ-04 https loopback keeps its port", "https://127.0.0.1/cb", "https://127.0.0.1:1/cb", false},
		{"AUTHZ-04 port zero in front", "http://127.0.0.1/cb", "http://127.0.0.1:080/cb", false},
		{"AUTHZ-04 port too large", "http://127.0.0.1/cb", "http://127.0.0.1:65536/cb", false},
		{"AUTHZ-04 empty port", "http://127.0.0.1/cb", "http://127.0.0.1:/cb", false},
		{"AUTHZ-04 a port that hides a host", "http://localhost/cb", "http://localhost:80@evil.test/cb", false},
		{"AUTHZ-04 a longer host", "http://127.0.0.1/cb", "http://127.0.0.1.evil.test/cb", false},
		{"AUTHZ-05 localhost takes any port", "http://localhost/callback", "http://localhost:51004/callback", true},
		{"AUTHZ-05 localhost is not 127.0.0.1", "http://localhost/callback", "http://127.0.0.1:51004/callback", false},
		{"AUTHZ-05 127.0.0.1 is not ::1", "http://127.0.0.1/callback", "http://[::1]:51004/callback", false},
		{"AUTHZ-05 a wildcard port is no pattern", "http://localhost:*/callback", "http://localhost:5000/callback", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := MatchRedirect(c.registered, c.requested); got != c.match {
				t.Errorf("registered %s, requested %s: %v", c.registered, c.requested, got)
			}
		})
	}
}

func TestLoopbackRedirect(t *testing.T) {
	for uri, want := range map[string]bool{
		"http://127.0.0.1/cb": true, "http://[::1]:5/cb?a=b": true, "http://localhost": true,
		"http://127.0.0.1/cb#f": false, "http://127.0.0.1:99999/": false, "http://127.0.0.1.evil.test/": false, "https://127.0.0.1/": false,
	} {
		t.Run("AUTHZ-04 "+uri, func(t *testing.T) {
			if got := LoopbackRedirect(uri); got != want {
				t.Error(got)
			}
		})
	}
}

var loopbackURI = regexp.MustCompile(`(?s)^http://(127\.0\.0\.1|\[::1\]|localhost)(?::([1-9][0-9]{0,4}))?([/?][^#]*)?$`)

// loopbackParts takes a loopback URI apart into its host and what follows its port.
func loopbackParts(uri string) (host, rest string, ok bool) {
	m := loopbackURI.FindStringSubmatch(uri)
	if m == nil {
		return "", "", false
	}
	port, _ := strconv.Atoi(m[2])
	return m[1], m[3], port <= 65535
}

// FuzzMatchRedirect: two URIs match when they are equal byte for byte, or when
// both are loopback URIs by the grammar above and differ in nothing but the port.
// The two differ in one place, so that both answers are met.
func FuzzMatchRedirect(f *testing.F) {
	f.Add("http://127.0.0.1", "", ":5", "/cb")
	f.Add("https://a.test", "", ":443", "/cb")
	f.Add("http://localhost", ":80", ":80@evil.test", "/")
	f.Add("http://[::1]", ":1", ":65536", "?a#b")
	f.Add("http://", "127.0.0.1", "localhost", "")
	f.Add("http://localhost", ":0", ":00080", ".evil.test/")
	f.Fuzz(func(t *testing.T, head, x, y, tail string) {
		a, b := head+x+tail, head+y+tail
		hostA, restA, okA := loopbackParts(a)
		hostB, restB, okB := loopbackParts(b)
		want := a == b || okA && okB && hostA == hostB && restA == restB
		if MatchRedirect(a, b) != want || MatchRedirect(b, a) != want {
			t.Errorf("%q and %q match: %v, the grammar says %v", a, b, !want, want)
		}
		if LoopbackRedirect(a) != okA {
			t.Errorf("%q is a loopback URI: %v, the grammar says %v", a, !okA, okA)
		}
	})
}

func TestAppendQueryKeepsWhatIsThere(t *testing.T) {
	for _, c := range []struct{ name, uri, want string }{
		{"AUTHZ-14 no query yet", "https://a.test/cb", "https://a.test/cb?code=x%26y&iss=https%3A%2F%2Fas"},
		{"AUTHZ-14 a query stays byte for byte", "https://a.test/cb?q=%7e+z", "https://a.test/cb?q=%7e+z&code=x%26y&iss=https%3A%2F%2Fas"},
		{"AUTHZ-14 an empty query", "https://a.test/cb?", "https://a.test/cb?code=x%26y&iss=https%3A%2F%2Fas"},
		{"AUTHZ-14 a query that ends in an ampersand", "https://a.test/cb?a=1&", "https://a.test/cb?a=1&code=x%26y&iss=https%3A%2F%2Fas"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := AppendQuery(c.uri, "code", "x&y", "state", "", "iss", "https://as"); got != c.want {
				t.Errorf("got %s", got)
			}
		})
	}
	t.Run("AUTHZ-13, attack AZ-13: line ends in state cannot split a header", func(t *testing.T) {
		if got := AppendQuery("https://a.test/", "state", "a\r\nSet-Cookie: x"); strings.ContainsAny(got, "\r\n") {
			t.Errorf("got %q", got)
		}
	})
}

func TestScopes(t *testing.T) {
	s, err := ParseScopes("b  a b ")
	if err != nil || s.String() != "b a" {
		t.Fatalf("got %q, %v", s, err)
	}
	for _, bad := range []string{"a\tb", `a"b`, "a\\b", "é", strings.Repeat("x", 129), strings.Repeat("ab ", 5000), manyScopes(65)} {
		if _, err := ParseScopes(bad); err == nil {
			t.Errorf("attack AZ-12: %.40q was accepted", bad)
		}
	}
	if !s.Covers(Scopes{"a"}) || s.Covers(Scopes{"c"}) || !s.Covers(nil) {
		t.Error("Covers")
	}
	if diff := cmp.Diff(Scopes{"b", "a", "c"}, s.Or(Scopes{"c", "a"})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Scopes{"a"}, s.And(Scopes{"a", "z"})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Scopes{"b"}, s.Without(Scopes{"a"})); diff != "" {
		t.Error(diff)
	}
}

func manyScopes(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("s")
		b.WriteString(strings.Repeat("x", i+1))
		b.WriteString(" ")
	}
	return b.String()
}

func TestWellKnownURLs(t *testing.T) {
	got, err := ServerMetadataURLs("https://as.test/tenant/a")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("META-02, CLI-03 three places for an issuer with a path", func(t *testing.T) {
		want := []string{"https://as.test/.well-known/oauth-authorization-server/tenant/a",
			"https://as.test/.well-known/openid-configuration/tenant/a", "https://as.test/tenant/a/.well-known/openid-configuration"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("CLI-03 two places for an issuer without one", func(t *testing.T) {
		got, _ := ServerMetadataURLs("https://as.test")
		want := []string{"https://as.test/.well-known/oauth-authorization-server", "https://as.test/.well-known/openid-configuration"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	for in, want := range map[string]string{
		"https://mcp.test/mcp":     "https://mcp.test/.well-known/oauth-protected-resource/mcp",
		"https://mcp.test":         "https://mcp.test/.well-known/oauth-protected-resource",
		"https://mcp.test/":        "https://mcp.test/.well-known/oauth-protected-resource",
		"https://mcp.test/a/?k=v":  "https://mcp.test/.well-known/oauth-protected-resource/a?k=v",
		"https://mcp.test:8443/%7": "",
		"mcp.test":                 "",
		"https://u@mcp.test/":      "",
		"https://mcp.test/#x":      "",
	} {
		t.Run("RS-02 "+in, func(t *testing.T) {
			got, err := ResourceMetadataURL(in)
			if got != want || (err == nil) != (want != "") {
				t.Errorf("%s: got %q, %v", in, got, err)
			}
		})
	}
}

func TestChallenges(t *testing.T) {
	t.Run("CLI-01 several challenges, quoted strings and token68", func(t *testing.T) {
		got, err := ParseChallenges([]string{
			`Negotiate abc==, Bearer realm="a, \"b\"", error=insufficient_scope , scope="x y",resource_metadata="https://m.test/.well-known/x"`,
			`DPoP`, `Basic realm=x`, ``,
		})
		want := []Challenge{
			{Scheme: "Negotiate", Token68: "abc=="},
			{Scheme: "Bearer", Params: []Param{{"realm", `a, "b"`}, {"error", "insufficient_scope"}, {"scope", "x y"}, {"resource_metadata", "https://m.test/.well-known/x"}}},
			{Scheme: "DPoP"},
			{Scheme: "Basic", Params: []Param{{"realm", "x"}}},
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if got[1].Get("SCOPE") != "x y" {
			t.Error("CLI-01 names compare without case")
		}
	})
	t.Run("CLI-01 two schemes in one header without parameters", func(t *testing.T) {
		got, err := ParseChallenges([]string{"Basic, Bearer"})
		if err != nil || len(got) != 2 || got[1].Scheme != "Bearer" {
			t.Errorf("got %v, %v", got, err)
		}
	})
	for _, bad := range []string{`Bearer realm="x`, `Bearer a=1, a=2`, `Bearer realm="x\`, `"x"`, `Bearer =x`, strings.Repeat("A, ", 20)} {
		t.Run("CLI-01 malformed "+bad[:min(8, len(bad))], func(t *testing.T) {
			if got, err := ParseChallenges([]string{bad}); err == nil {
				t.Errorf("%q was read as %v", bad, got)
			}
		})
	}
	t.Run("RS-27 values are quoted and limited", func(t *testing.T) {
		got := Challenge{Scheme: "Bearer", Params: []Param{{"error", ""}, {"scope", "a b"}, {"error_description", "x\"y\\z\r\né"}}}.String()
		if got != `Bearer scope="a b", error_description="x y z    "` {
			t.Errorf("got %s", got)
		}
	})
}

func FuzzChallengesRoundTrip(f *testing.F) {
	f.Add("Bearer", "scope", "a b", "error", "x")
	f.Fuzz(func(t *testing.T, scheme, n1, v1, n2, v2 string) {
		in := Challenge{Scheme: scheme, Params: []Param{{n1, v1}, {n2, v2}}}
		for _, tok := range []string{scheme, n1, n2} {
			if tok == "" || strings.IndexFunc(tok, func(r rune) bool { return r > 0x7e || !tokenChar(byte(r)) }) >= 0 {
				return
			}
		}
		if v1 == "" || v2 == "" || strings.EqualFold(n1, n2) {
			return
		}
		got, err := ParseChallenges([]string{in.String()})
		if err != nil || len(got) != 1 || got[0].Scheme != scheme || len(got[0].Params) != 2 {
			t.Fatalf("%q was read as %v, %v", in.String(), got, err)
		}
		for i := range len(v1) {
			if c := v1[i]; c >= 0x20 && c <= 0x7e && c != '"' && c != '\\' && got[0].Params[0].Value[i] != c {
				t.Fatalf("value %q became %q", v1, got[0].Params[0].Value)
			}
		}
	})
}

// FuzzParseChallenges: what is read of any header consists of tokens, names no
// parameter twice and stays within the limit; written again with every value
// quoted, in one header or in one for each challenge, it is read as the same.
func FuzzParseChallenges(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="a\"b", scope="x y"`, `Basic, Bearer`, `Negotiate YII==, Bearer error=invalid_token`, `Bearer a = 1 ,, b="",`, "DPoP algs=\"ES256\"\tBearer",
		`Bearer resource_metadata="https://a.test/.well-known/oauth-protected-resource"`, `A=`, `A b/c==`, `A B=,C`, "A b=\"\x00\xff\\",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got, err := ParseChallenges([]string{header})
		if err != nil {
			return
		}
		if len(got) > MaxChallenges {
			t.Fatalf("%d challenges", len(got))
		}
		token := func(s string) bool {
			return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
		}
		var headers []string
		for _, c := range got {
			names := map[string]bool{}
			again := c.Scheme
			if c.Token68 != "" {
				again += " " + c.Token68
			}
			sep := " "
			for _, p := range c.Params {
				if low := strings.ToLower(p.Name); !token(p.Name) || names[low] || c.Token68 != "" {
					t.Fatalf("%q has the parameter %q", header, p.Name)
				} else {
					names[low] = true
				}
				again += sep + p.Name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(p.Value) + `"`
				sep = ", "
			}
			if !token(c.Scheme) || !strings.Contains(header, c.Scheme) || !strings.Contains(header, c.Token68) {
				t.Fatalf("%q has the challenge %+v", header, c)
			}
			headers = append(headers, again)
		}
		for _, form := range [][]string{headers, {strings.Join(headers, ", ")}} {
			same, err := ParseChallenges(form)
			if err != nil {
				t.Fatalf("%q written as %q: %v", header, form, err)
			}
			if d := cmp.Diff(got, same); d != "" {
				t.Fatalf("%q written as %q: %s", header, form, d)
			}
		}
	})
}
