package cimd

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

var testRules = URLRules{AllowTestNames: true}

// idLine is one line of testdata/ids_*.txt.
type idLine struct{ raw, reason string }

func readIDs(t testing.TB, name string) []idLine {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out []idLine
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndex(line, `" # `)
		var raw string
		if i < 0 || json.Unmarshal([]byte(line[:i+1]), &raw) != nil {
			t.Fatalf("%s: malformed line %q", name, line)
		}
		out = append(out, idLine{raw, strings.TrimSpace(line[i+4:])})
	}
	if len(out) < 20 {
		t.Fatalf("%s: only %d lines", name, len(out))
	}
	return out
}

func mustID(t testing.TB, raw string) ID {
	t.Helper()
	id, err := testRules.Parse(raw)
	if err != nil {
		t.Fatalf("Parse(%q): %v", raw, err)
	}
	return id
}

func TestParseValid(t *testing.T) {
	for _, l := range readIDs(t, "ids_valid.txt") {
		t.Run("URL-01 "+strings.Replace(l.reason, "CU-", "attack CU-", 1), func(t *testing.T) {
			id, err := testRules.Parse(l.raw)
			if err != nil {
				t.Fatalf("Parse(%q): %v", l.raw, err)
			}
			if id.String() != l.raw {
				t.Errorf("String() = %q, want the input", id)
			}
			again, _ := testRules.Parse(strings.Clone(l.raw))
			if id != again {
				t.Error("two readings of one URL are not equal")
			}
		})
	}
}

func TestParseInvalid(t *testing.T) {
	for _, l := range readIDs(t, "ids_invalid.txt") {
		rule, reason, _ := strings.Cut(l.reason, " ")
		t.Run(rule+" "+strings.Replace(reason, "CU-", "attack CU-", 1), func(t *testing.T) {
			id, err := testRules.Parse(l.raw)
			var e *Error
			if !errors.As(err, &e) || e.Kind != KindURL {
				t.Fatalf("Parse(%q) = %v, %v, want a KindURL error", l.raw, id, err)
			}
			if e.Rule != rule {
				t.Errorf("Parse(%q): rule %s, want %s (%s)", l.raw, e.Rule, rule, e.Hint)
			}
			if id != (ID{}) || !id.IsZero() {
				t.Errorf("an invalid URL gave the ID %v", id)
			}
			if l.raw != "" && len(l.raw) > 12 && strings.Contains(err.Error(), l.raw) {
				t.Errorf("the error repeats the input: %v", err)
			}
		})
	}
}

func TestParseSwitches(t *testing.T) {
	dev := URLRules{Loopback: true}
	inner := URLRules{Private: []string{"https://apps.internal:8443/c.json"}}
	rows := []struct {
		name  string
		rules URLRules
		raw   string
		ok    bool
	}{
		{"URL-08, attack CU-14: a query is accepted by the switch, unchanged", URLRules{AllowQuery: true}, "https://good.org/c.json?v=1&a=%20", true},
		{"URL-08 an empty query too", URLRules{AllowQuery: true}, "https://good.org/c.json?", true},
		{"URL-03 a query is no path", URLRules{AllowQuery: true}, "https://good.org?v=1", false},
		{"URL-04 dots in a query are not segments", URLRules{AllowQuery: true}, "https://good.org/c.json?a=/../b", true},
		{"URL-10 a query must be well encoded", URLRules{AllowQuery: true}, "https://good.org/c.json?a=%", false},
		{"URL-09, attack CU-03: the path / is accepted by the switch", URLRules{AllowRootPath: true}, "https://good.org/", true},
		{"URL-03 the switch for / does not allow no path", URLRules{AllowRootPath: true}, "https://good.org", false},
		{"URL-11 an IP address is accepted by the switch", URLRules{AllowIP: true}, "https://93.184.216.34/c.json", true},
		{"URL-11 an IPv6 address is accepted by the switch", URLRules{AllowIP: true}, "https://[2606:2800:220:1::1]/c.json", true},
		{"URL-11 no legacy number, even with the switch", URLRules{AllowIP: true}, "https://2130706433/c.json", false},
		{"URL-11 no zone, even with the switch", URLRules{AllowIP: true}, "https://[fe80::1%25eth0]/c.json", false},
		{"URL-11 no long form, even with the switch", URLRules{AllowIP: true}, "https://[0:0:0:0:0:0:0:1]/c.json", false},
		{"URL-06 a listed port is accepted", URLRules{Ports: []uint16{8443}}, "https://good.org:8443/c.json", true},
		{"URL-06 443 stays accepted", URLRules{Ports: []uint16{8443}}, "https://good.org/c.json", true},
		{"URL-06 another port is not", URLRules{Ports: []uint16{8443}}, "https://good.org:8444/c.json", false},
		{"URL-11 names for tests are refused by default", URLRules{}, "https://good.test/c.json", false},
		{"URL-11 names for documentation are refused by default", URLRules{}, "https://mcpclient.example/c.json", false},
		{"URL-11 names for documentation are accepted by the switch", testRules, "https://mcpclient.example/c.json", true},
		{"URL-18 http on localhost in development", dev, "http://localhost:8080/c.json", true},
		{"URL-18 http on 127.0.0.1 in development", dev, "http://127.0.0.1:1/c.json", true},
		{"URL-18 http on [::1] in development", dev, "http://[::1]:9000/c.json", true},
		{"URL-18 https on localhost in development", dev, "https://localhost:8443/c.json", true},
		{"URL-18 http elsewhere is refused in development too", dev, "http://good.org/c.json", false},
		{"URL-18 a name under localhost is not this computer", dev, "http://app.localhost/c.json", false},
		{"URL-18 another loopback address is not in the exception", dev, "http://127.0.0.2/c.json", false},
		{"URL-18 a private address is not in the exception", dev, "http://192.168.0.1/c.json", false},
		{"URL-18 a spelling of localhost is not in the exception", dev, "http://LOCALHOST/c.json", false},
		{"URL-18 user information that looks like localhost", dev, "http://localhost:80@evil.org/c.json", false},
		{"URL-18 the strict rules refuse localhost", URLRules{}, "https://localhost/c.json", false},
		{"URL-14 the server's own issuer is no client", URLRules{Reserved: []string{"https://as.org/tenant"}}, "https://as.org/tenant", false},
		{"URL-14 a final slash, the host's case and port 443 make no difference", URLRules{Reserved: []string{"https://as.org/tenant"}}, "https://AS.org:443/tenant/", false},
		{"URL-14 a resource is no client", URLRules{Reserved: []string{"https://as.org", "https://mcp.org/mcp/"}}, "https://mcp.org/mcp", false},
		{"URL-14 an issuer without a path", URLRules{AllowRootPath: true, Reserved: []string{"https://as.org"}}, "https://as.org/", false},
		{"URL-14 another path at the issuer is a client", URLRules{Reserved: []string{"https://as.org", "https://as.org/tenant"}}, "https://as.org/tenant/client.json", true},
		{"URL-14 the query makes no other name of it", URLRules{AllowQuery: true, Reserved: []string{"https://as.org/tenant"}}, "https://as.org/tenant?x", false},
		{"URL-14 another port of the issuer is another server", URLRules{Ports: []uint16{8443}, Reserved: []string{"https://as.org/tenant"}}, "https://as.org:8443/tenant", true},
		{"URL-17 a client_id that is still form-encoded is no URL", URLRules{}, "https%3A%2F%2Fgood.org%2Fc.json", false},
		{"URL-05 development does not lift the other rules: fragment", dev, "http://localhost/c.json#", false},
		{"URL-04 development does not lift the other rules: dot segment", dev, "http://localhost/../c.json", false},
		{"FETCH-07 a private URL may have an inner name and a port", inner, "https://apps.internal:8443/c.json", true},
		{"FETCH-07 another path on that host is no private URL", inner, "https://apps.internal:8443/d.json", false},
		{"URL-05 a private URL keeps the other rules", URLRules{Private: []string{"https://apps.internal/c.json#"}}, "https://apps.internal/c.json#", false},
		{"URL-06 development does not lift the port of other hosts", dev, "https://good.org:8443/c.json", false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			id, err := r.rules.Parse(r.raw)
			if (err == nil) != r.ok {
				t.Fatalf("Parse(%q) = %v, %v, want ok %v", r.raw, id, err, r.ok)
			}
			if r.ok && id.String() != r.raw {
				t.Errorf("String() = %q", id)
			}
		})
	}
}

func TestIDParts(t *testing.T) {
	rules := URLRules{AllowQuery: true, AllowRootPath: true, Loopback: true, AllowTestNames: true, Ports: []uint16{8443}}
	for _, r := range []struct {
		raw, host, path string
		port            uint16
		warnings        []string
	}{
		{"https://good.test/a/c.json", "good.test", "/a/c.json", 443, nil},
		{"https://GOOD.test:443/c.json?x=/y", "GOOD.test", "/c.json", 443, []string{"URL-08", "URL-06", "URL-07"}},
		{"https://good.test:8443/", "good.test", "/", 8443, []string{"URL-09", "URL-06"}},
		{"http://[::1]:9000/c.json", "[::1]", "/c.json", 9000, []string{"URL-18", "URL-06"}},
		{"http://localhost/c.json", "localhost", "/c.json", 80, []string{"URL-18"}},
	} {
		t.Run("URL-06, URL-08, URL-09 parts and warnings of "+r.raw, func(t *testing.T) {
			id, err := rules.Parse(r.raw)
			if err != nil {
				t.Fatal(err)
			}
			if id.Host() != r.host || id.Path() != r.path || id.Port() != r.port {
				t.Errorf("host %q path %q port %d, want %q %q %d", id.Host(), id.Path(), id.Port(), r.host, r.path, r.port)
			}
			var got []string
			for _, w := range id.Warnings() {
				got = append(got, w.Rule)
			}
			if strings.Join(got, " ") != strings.Join(r.warnings, " ") {
				t.Errorf("warnings %v, want %v", got, r.warnings)
			}
		})
	}
	var zero ID
	if zero.String() != "" || zero.Host() != "" || zero.Path() != "" || zero.Port() != 0 || zero.Warnings() != nil || !zero.IsZero() {
		t.Error("the zero ID is not empty")
	}
}

func TestIDIdentity(t *testing.T) {
	t.Run("URL-07, URL-13, attack CU-16, attack CU-18, attack CU-20: each spelling is a client of its own", func(t *testing.T) {
		seen := map[ID]string{}
		for _, raw := range []string{
			"https://good.test/c.json", "https://good.test:443/c.json", "https://GOOD.test/c.json",
			"https://good.test/C.json", "https://good.test/c.json/", "https://good.test/%63.json", "https://good.test//c.json",
		} {
			id := mustID(t, raw)
			if other, twice := seen[id]; twice {
				t.Errorf("%s and %s are one client", raw, other)
			}
			seen[id] = raw
		}
	})
	t.Run("attack CU-28: long input is refused without allocation in its size", func(t *testing.T) {
		for _, n := range []int{2049, 8193, 70000, 10 << 20} {
			raw := "https://good.test/" + strings.Repeat("a", n-18)
			if _, err := testRules.Parse(raw); err == nil {
				t.Errorf("%d characters were accepted", n)
			}
			got := testing.AllocsPerRun(10, func() { _, _ = testRules.Parse(raw) })
			if got > 8 {
				t.Errorf("%d characters: %v allocations", n, got)
			}
		}
	})
	t.Run("a valid URL is read without allocation", func(t *testing.T) {
		if got := testing.AllocsPerRun(100, func() { _, _ = testRules.Parse("https://good.test/oauth/client.json") }); got != 0 {
			t.Errorf("%v allocations", got)
		}
	})
}

func TestLooksLikeURL(t *testing.T) {
	for raw, want := range map[string]bool{
		"https://good.test/c.json": true, "http://good.test": true, "HTTPS://x": true, "https:good.test": true, " https://x": true,
		"my-client": false, "": false, "javascript:x": false, "httpsx://y": false, "https": false, "urn:https:x": false,
	} {
		t.Run("URL-12 scheme of "+raw, func(t *testing.T) {
			if got := LooksLikeURL(raw); got != want {
				t.Errorf("LooksLikeURL(%q) = %v", raw, got)
			}
		})
	}
}

// TestParseOracle compares the scanner with a slow reading of the rules.
func TestParseOracle(t *testing.T) {
	pieces := []string{"https://", "http://", "good.test", "a", ".", "..", "/", "%2e", "%2F", "%5c", "@", ":", "443", "?", "#", "[", "::1", "]", "xn--", "\\", " ", "é", "c.json"}
	rapid.Check(t, func(t *rapid.T) {
		raw := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 10).Draw(t, "pieces"), "")
		id, err := testRules.Parse(raw)
		if err != nil {
			return
		}
		checkAccepted(t, raw, id)
	})
}

type failer interface {
	Fatalf(format string, args ...any)
}

// checkAccepted states what must hold for any accepted client_id.
func checkAccepted(t failer, raw string, id ID) {
	if id.String() != raw || !strings.HasPrefix(raw, "https://") || len(raw) > MaxIDLength {
		t.Fatalf("%q was accepted as %q", raw, id)
	}
	for i := range len(raw) {
		if raw[i] <= ' ' || raw[i] >= utf8.RuneSelf || strings.IndexByte(`\@#?`, raw[i]) >= 0 && strings.IndexByte(raw, '/') > i {
			t.Fatalf("%q holds a bad character", raw)
		}
	}
	decoded := strings.NewReplacer("%2e", ".", "%2E", ".", "%2f", "/", "%2F", "/", "%5c", "/", "%5C", "/").Replace(id.Path())
	for seg := range strings.SplitSeq(decoded, "/") {
		if seg == "." || seg == ".." {
			t.Fatalf("%q has a dot segment", raw)
		}
	}
	if strings.ContainsAny(raw, "#?") || strings.ContainsAny(id.Host(), "@:[]%") || !strings.HasPrefix(id.Path(), "/") || id.Path() == "/" {
		t.Fatalf("%q has host %q, path %q", raw, id.Host(), id.Path())
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"ids_valid.txt", "ids_invalid.txt"} {
		for _, l := range readIDs(f, name) {
			f.Add(l.raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if id, err := testRules.Parse(raw); err == nil {
			checkAccepted(t, raw, id)
		}
	})
}
