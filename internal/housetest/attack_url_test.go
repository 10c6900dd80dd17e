package housetest

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
)

// TestClientIDsThatAreNoClients sends each client_id that must be refused by a
// person who is signed in, for whom the server would fetch.
func TestClientIDsThatAreNoClients(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, rec := h.john(), &records{h: h}
	for _, host := range []string{"xn--good-.test", "xn--a.test", "good.test.", "localhost", "intranet", "go\u00adod.test"} {
		h.Net.DNSFunc(host, func(int) ([]netip.Addr, error) {
			t.Errorf("%s was looked up", host)
			return nil, nil
		})
	}
	long := func(n int) string {
		const head = "https://good.test/"
		return head + strings.Repeat("a", n-len(head))
	}
	rows := []struct{ row, id string }{
		{"URL-18, attack CU-01: http", "http://good.test/c.json"},
		{"URL-03, attack CU-02: no path", "https://good.test"},
		{"URL-03, attack CU-02: no path, a query", "https://good.test?x=1"},
		{"URL-09, attack CU-03: the path /", "https://good.test/"},
		{"URL-02, attack CU-04: user and password", "https://user:pw@good.test/c.json"},
		{"URL-02, attack CU-05: empty user", "https://@good.test/c.json"},
		{"URL-05, attack CU-07: fragment", "https://good.test/c.json#x"},
		{"URL-05, attack CU-08: empty fragment", "https://good.test/c.json#"},
		{"URL-04, attack CU-09: dot segment", "https://good.test/a/../c.json"},
		{"URL-04, attack CU-10: encoded dot segment", "https://good.test/a/%2e%2e/c.json"},
		{"URL-04, attack CU-10: half encoded dot segment", "https://good.test/a/.%2E/c.json"},
		{"URL-04, attack CU-12: encoded slash after dots", "https://good.test/a/..%2fc.json"},
		{"URL-04, attack CU-12: encoded backslash after dots", "https://good.test/a/..%5cc.json"},
		{"URL-08, attack CU-14: a query", "https://good.test/c.json?v=1"},
		{"URL-01, attack CU-17: upper-case scheme", "HTTPS://good.test/c.json"},
		{"URL-06, attack CU-19: port with zeros", "https://good.test:00443/c.json"},
		{"URL-06, attack CU-19: empty port", "https://good.test:/c.json"},
		{"URL-06, attack CU-19: port 0", "https://good.test:0/c.json"},
		{"URL-06, attack CU-19: port 65536", "https://good.test:65536/c.json"},
		{"URL-06, attack SD-28: port 22", "https://good.test:22/c.json"},
		{"URL-06, attack SD-28: port 8080", "https://good.test:8080/c.json"},
		{"URL-10, attack CU-20: dot at the end of the host", "https://good.test./c.json"},
		{"URL-11, attack CU-22: no slashes", "https:good.test/c.json"},
		{"URL-11, attack CU-22: one slash", "https:/good.test/c.json"},
		{"URL-11, attack CU-22: empty host", "https:///good.test/c.json"},
		{"URL-10, attack CU-23: space before", " https://good.test/c.json"},
		{"URL-10, attack CU-23: space after", "https://good.test/c.json "},
		{"URL-10, attack CU-23: tab", "https://good.test/c\t.json"},
		{"URL-10, attack CU-23, attack AD-07: line break and escape sequence", "https://good.test/c\r\nevil: 1\x1b[2J.json"},
		{"URL-10, attack CU-23: NUL", "https://good.test/c.json\x00"},
		{"URL-10, attack CU-25: soft hyphen", "https://go\u00adod.test/c.json"},
		{"URL-10, attack CU-25: ideographic full stop", "https://good\u3002test/c.json"},
		{"URL-10, attack CU-25: full-width letters", "https://\uff47\uff4f\uff4f\uff44.test/c.json"},
		{"URL-10, attack CU-27: invalid A-label", "https://xn--good-.test/c.json"},
		{"URL-10, attack CU-27: A-label of a control character", "https://xn--a.test/c.json"},
		{"URL-10, attack CU-27: label of 64 octets", "https://" + strings.Repeat("a", 64) + ".test/c.json"},
		{"URL-10, attack CU-27: host of 254 octets", "https://" + strings.Repeat(strings.Repeat("a", 61)+".", 4) + "b.test/c.json"},
		{"URL-10, attack CU-28: 2,049 characters", long(2049)},
		{"URL-10, attack CU-28: 8,193 characters", long(8193)},
		{"URL-11, attack CU-30: loopback address", "https://127.0.0.1/c.json"},
		{"URL-11, attack CU-30: public address", "https://93.184.216.34/c.json"},
		{"URL-11, attack CU-30: IPv6 address", "https://[2606:2800:220:1::1]/c.json"},
		{"URL-11, attack SD-25: zone", "https://[fe80::1%25lo]/c.json"},
		{"URL-11, attack SD-23: address as one number", "https://2130706433/c.json"},
		{"URL-11, attack SD-23: address in octal", "https://0177.0.0.1/c.json"},
		{"URL-11, attack SD-27: localhost", "https://localhost/c.json"},
		{"URL-11, attack SD-27: single label", "https://intranet/c.json"},
		{"URL-11, attack SD-27: internal", "https://vault.internal/c.json"},
		{"FETCH-08, attack CU-31: javascript", "javascript:alert(1)"},
		{"FETCH-08, attack CU-31: file", "file:///etc/passwd"},
		{"FETCH-08, attack CU-31: data", "data:application/json,{}"},
		{"FETCH-08, attack CU-31: gopher", "gopher://good.test/c.json"},
		{"URL-14: the issuer", Issuer},
		{"URL-14: a resource", Resource},
		{"an opaque name that nobody registered", "my-client"},
	}
	before := h.fetches()
	for _, r := range rows {
		t.Run(r.row, func(t *testing.T) {
			page := john.Visit(h.Authorize("client_id", r.id))
			rec.add(r.row, local(t, page, 400))
		})
	}
	t.Run("URL-10, attack CU-28: 70,000 characters", func(t *testing.T) {
		page := john.Visit(h.Authorize("client_id", long(70_000)))
		rec.add("URL-10, attack CU-28: 70,000 characters", local(t, page, 414))
		if len(page.Body) > 20_000 {
			t.Errorf("the page has %d bytes", len(page.Body))
		}
	})
	t.Run("AUTHZ-01, attack CU-33: client_id given twice", func(t *testing.T) {
		page := john.Visit(h.Authorize() + "&client_id=" + url.QueryEscape("https://evil.test/c.json"))
		rec.add("AUTHZ-01, attack CU-33: client_id given twice", local(t, page, 400))
		if !strings.Contains(page.Text(), "client_id stands more than once") {
			t.Error(page.Text())
		}
	})
	if n := h.fetches() - before; n != 0 {
		t.Errorf("%d connections for client_ids that cannot be used", n)
	}
	rec.check(t)
	for _, e := range h.Events(audit.TypeRefusal) {
		if len(e.MarshalLine()) > 4096 {
			t.Errorf("attack CU-28: an event of %d bytes", len(e.MarshalLine()))
		}
	}
}

// consents opens a request and wants the consent page.
func consents(t *testing.T, h *House, p *Person, changes ...string) string {
	t.Helper()
	page := p.Visit(h.Authorize(changes...))
	if page.Status != 200 || !page.Has("decision") {
		t.Fatalf("%d %s", page.Status, page.Text())
	}
	return page.Text()
}

func TestClientIDsAreComparedByteForByte(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, rec, good := h.john(), &records{h: h}, h.Net.Host("good.test")
	upper := good.URL("/c.json")
	t.Run("URL-07, attack CU-16: upper case in the host is another client", func(t *testing.T) {
		for range 2 { // not cached under either name
			page := john.Visit(h.Authorize("client_id", "https://GOOD.test/c.json"))
			rec.add("URL-07, attack CU-16", local(t, page, 400))
			h.Later(30 * time.Second)
		}
		if n := good.Count("/c.json"); n != 2 {
			t.Errorf("%d fetches, want 2: a mismatch is never cached", n)
		}
		consents(t, h, john, "client_id", upper)
		if n := good.Count("/c.json"); n != 3 {
			t.Errorf("%d fetches, want 3: the document was kept under the wrong name", n)
		}
	})
	t.Run("URL-07, attack CU-18: the port of https written out is another client", func(t *testing.T) {
		page := john.Visit(h.Authorize("client_id", "https://good.test:443/c.json"))
		rec.add("URL-07, attack CU-18", local(t, page, 400))
		good.ServeClient("/port.json", map[string]any{"client_id": "https://good.test:443/port.json"})
		consents(t, h, john, "client_id", "https://good.test:443/port.json")
		rec.add("URL-07, attack CU-18, the other way round", local(t, john.Visit(h.Authorize("client_id", "https://good.test/port.json")), 400))
	})
	t.Run("attack CU-13: a path parameter is opaque", func(t *testing.T) {
		id := good.ServeClient("/a/..;/c.json", nil)
		consents(t, h, john, "client_id", id)
		if good.Count("/a/..;/c.json") != 1 {
			t.Error("it was fetched from another path")
		}
		good.ServeJSON("/b/..;/c.json", cimdtest.Document("https://good.test/c.json", nil)) // what a proxy that normalises would answer
		rec.add("attack CU-13", local(t, john.Visit(h.Authorize("client_id", "https://good.test/b/..;/c.json")), 400))
	})
	t.Run("CONS-01, CONS-15, attack CU-26: a look-alike host is shown as its A-label", func(t *testing.T) {
		id := h.Net.Host("xn--80ak6aa92e.test").ServeClient("/c.json", nil)
		text := consents(t, h, john, "client_id", id, "redirect_uri", "https://xn--80ak6aa92e.test/cb")
		if !strings.Contains(text, "xn--80ak6aa92e.test") || strings.ContainsFunc(text, func(r rune) bool { return r >= 0x400 && r < 0x500 }) {
			t.Error(text)
		}
	})
	t.Run("URL-15, attack CU-32: a registered URL is never taken over by a document", func(t *testing.T) {
		id := "https://good.test/registered.json"
		good.ServeClient("/registered.json", map[string]any{"client_name": "Fetched", "redirect_uris": []string{"https://evil.test/cb"}})
		s := h.Store()
		defer s.Close()
		if err := s.RegisterClient(t.Context(), store.Client{
			ID: id, Source: store.SourceRegistered, Name: "Registered", RedirectURIs: []string{Redirect},
			GrantTypes: []string{"authorization_code", "refresh_token"}, AuthMethods: []string{"none"},
		}, h.Now()); err != nil {
			t.Fatal(err)
		}
		if text := consents(t, h, john, "client_id", id); !strings.Contains(text, "Registered") || strings.Contains(text, "Fetched") {
			t.Error(text)
		}
		rec.add("URL-15, attack CU-32", local(t, john.Visit(h.Authorize("client_id", id, "redirect_uri", "https://evil.test/cb")), 400))
		if good.Count("/registered.json") != 0 {
			t.Error("the document was fetched")
		}
	})
	rec.check(t)
}

// TestSwitchesForClientIDs turns on what is off by default: one switch each,
// the same at every endpoint.
func TestSwitchesForClientIDs(t *testing.T) {
	t.Parallel()
	h := New(t, "allow_test_names: true}", "allow_test_names: true, allow_query: true, allow_root_path: true}")
	john, good := h.john(), h.Net.Host("good.test")
	for _, path := range []string{"/", "/q.json?v=1"} {
		id := good.ServeClient(path, nil)
		t.Run("URL-08, URL-09, attack CU-03, attack CU-14: "+path+" is accepted byte for byte by its switch", func(t *testing.T) {
			consents(t, h, john, "client_id", id)
			if good.Count(path) != 1 {
				t.Errorf("fetched %d times", good.Count(path))
			}
			a := h.grant(john, "client_id", id)
			if !h.Post("/token", RefreshForm(a.Str("refresh_token"), "client_id", id)).OK() {
				t.Error("it cannot refresh")
			}
			h.Post("/token", RefreshForm(a.Str("refresh_token"), "client_id", strings.TrimSuffix(id, "?v=1")+"x")).check(t, 401, "invalid_client")
		})
	}
	t.Run("URL-08, attack CU-14: without the query it is another client", func(t *testing.T) {
		local(t, john.Visit(h.Authorize("client_id", "https://good.test/q.json")), 502)
	})
}
