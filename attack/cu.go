package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// noClients wants a refusal without any traffic for each client_id.
func (t *trial) noClients(ids ...string) {
	for _, id := range ids {
		fetches, questions := t.w.fetches(), t.w.dns.total()
		pg := t.john.visit(az("client_id", id))
		t.local(fmt.Sprintf("%.80q", id), pg, 400, 414)
		t.check(t.w.fetches() == fetches, "%.80q: there was a connection", id)
		t.check(t.w.dns.total() == questions, "%.80q: a name was looked up", id)
		t.check(len(pg.body) < 20_000, "%.80q: the page has %d bytes", id, len(pg.body))
	}
}

func refused(id string, clients ...string) row {
	return row{id, func(t *trial) { t.noClients(clients...) }}
}

func longID(n int) string {
	const head = "https://good.test/"
	return head + strings.Repeat("a", n-len(head))
}

var groupCU = group{name: "CU", rows: []row{
	refused("CU-01", "http://good.test/c.json", "ws://good.test/c.json", "ftp://good.test/c.json"),
	refused("CU-02", "https://good.test", "https://good.test?x=1"),
	{"CU-03", func(t *trial) {
		t.noClients("https://good.test/")
		t.check(t.s.post("/token", codeForm("x", "client_id", "https://good.test/")).is(401, "invalid_client"), "/token knows it")
		out, err := t.s.cli("", "client", "check", "https://good.test/")
		t.check(err != nil, "the linter accepts it: %s", out)
		t.w.host("root.test").client("/", nil)
		s, err := t.w.start(options{addr: replicaAddr, changes: []string{"allow_test_names: true}", "allow_test_names: true, allow_root_path: true}"}})
		if err != nil {
			t.fatal("%v", err)
		}
		defer s.kill()
		p := s.newUser("john")
		a := p.grantOf("https://root.test/")
		b := s.post("/token", refreshForm(a.str("refresh_token"), "client_id", "https://root.test/"))
		t.check(b.ok(), "with its switch, it cannot refresh: %s", b)
	}},
	refused("CU-04", "https://user:pw@good.test/c.json", "https://user@good.test/c.json"),
	refused("CU-05", "https://@good.test/c.json", "https://:@good.test/c.json"),
	refused("CU-07", "https://good.test/c.json#x"),
	refused("CU-08", "https://good.test/c.json#"),
	refused("CU-09", "https://good.test/a/../c.json", "https://good.test/./c.json", "https://good.test/a/.."),
	refused("CU-10", "https://good.test/a/%2e%2e/c.json", "https://good.test/a/.%2E/c.json", "https://good.test/%2e/c.json"),
	refused("CU-12", "https://good.test/a/..%2fc.json", "https://good.test/a/..%5cc.json", "https://good.test/a/%2e%2e%2fc.json", `https://good.test/a/..\c.json`),
	{"CU-13", func(t *trial) {
		h := t.w.host("good.test")
		id := h.client("/a/..;/c.json", map[string]any{"redirect_uris": []string{redirect}})
		t.asks("byte for byte", t.john.visit(az("client_id", id)))
		t.check(h.count("/a/..;/c.json") == 1, "it was fetched %d times from its path", h.count("/a/..;/c.json"))
		h.put("/b/..;/c.json", jsonResponse(document(goodID, nil))) // what a proxy that normalises would answer
		t.local("normalised on the way", t.john.visit(az("client_id", "https://good.test/b/..;/c.json")), 400)
	}},
	{"CU-14", func(t *trial) {
		t.noClients("https://good.test/c.json?v=1", "https://good.test/c.json?")
		h := t.w.host("query.test")
		h.client("/q.json?v=1", nil)
		s, err := t.w.start(options{addr: replicaAddr, changes: []string{"allow_test_names: true}", "allow_test_names: true, allow_query: true}"}})
		if err != nil {
			t.fatal("%v", err)
		}
		defer s.kill()
		p := s.newUser("john")
		p.grantOf("https://query.test/q.json?v=1")
		t.check(h.count("/q.json?v=1") == 1 && h.count("/q.json") == 0, "the query was stripped before the fetch")
		pg := p.visit(azOf("https://query.test/q.json"))
		t.check(!pg.left && !pg.asks(), "without the query it is the same client: %s", pg)
		pg = p.visit(azOf("https://query.test/q.json?v=2"))
		t.check(!pg.left && !pg.asks(), "with another query it is the same client: %s", pg)
	}},
	{"CU-16", func(t *trial) {
		h := t.w.host("case.test")
		id := h.client("/c.json", nil)
		for n := range 2 {
			t.local("upper case", t.john.visit(azOf("https://CASE.test/c.json")), 400)
			t.s.later(time.Minute)
			t.check(h.count("/c.json") <= n+1, "fetched %d times", h.count("/c.json"))
		}
		before := h.count("/c.json")
		t.asks("the honest spelling", t.john.visit(azOf(id)))
		t.check(h.count("/c.json") == before+1, "it was cached under the wrong name")
		t.local("upper case, when the honest one is known", t.john.visit(azOf("https://CASE.test/c.json")), 400)
	}},
	refused("CU-17", "HTTPS://good.test/c.json", "Https://good.test/c.json"),
	{"CU-18", func(t *trial) {
		t.local("the default port", t.john.visit(az("client_id", "https://good.test:443/c.json")), 400)
		h := t.w.host("port.test")
		h.put("/p.json", jsonResponse(document("https://port.test/p.json", map[string]any{"client_id": "https://port.test:443/p.json"})))
		t.asks("a document that names the port", t.john.visit(az("client_id", "https://port.test:443/p.json", "redirect_uri", "https://port.test/cb")))
		t.local("and then without it", t.john.visit(az("client_id", "https://port.test/p.json", "redirect_uri", "https://port.test/cb")), 400)
	}},
	refused("CU-19", "https://good.test:00443/c.json", "https://good.test:/c.json", "https://good.test:0/c.json", "https://good.test:65536/c.json", "https://good.test:-1/c.json"),
	refused("CU-20", "https://good.test./c.json", "https://good.test../c.json"),
	refused("CU-22", "https:good.test/c.json", "https:/good.test/c.json", "https:///good.test/c.json", "//good.test/c.json", "https://"),
	{"CU-23", func(t *trial) {
		t.noClients(" https://good.test/c.json", "https://good.test/c.json ", "https://good.test/c\t.json", "https://good.test/c\r\n.json",
			"https://good.test/c\n{\"type\":\"forged\"}", "https://good.test/c.json\x00", "https://good\x00.test/c.json", "https://good.test/\x1b[2Jc.json", "https://good.test/\u2028c.json")
		for line := range strings.SplitSeq(strings.TrimSpace(t.s.output()), "\n") {
			t.check(!strings.ContainsAny(line, "\x00\r\t\x1b\u2028") && !strings.HasPrefix(line, `{"type":"forged"`), "a line of the log holds raw bytes: %q", line)
		}
	}},
	refused("CU-25", "https://go\u00adod.test/c.json", "https://good\u3002test/c.json", "https://\uff47\uff4f\uff4f\uff44.test/c.json", "https://g\u043e\u043ed.test/c.json", "https://%67ood.test/c.json"),
	{"CU-26", func(t *trial) {
		id := t.w.host("xn--80ak6aa92e.test").client("/c.json", nil)
		pg := t.john.visit(azOf(id))
		t.asks("a look-alike", pg)
		t.check(strings.Contains(pg.text(), "xn--80ak6aa92e.test") && !strings.ContainsFunc(pg.text(), func(r rune) bool { return r >= 0x400 && r < 0x500 }), "the page shows letters that look alike: %s", pg)
	}},
	refused("CU-27", "https://xn--good-.test/c.json", "https://xn--a.test/c.json", "https://xn--.test/c.json", "https://"+strings.Repeat("a", 64)+".test/c.json",
		"https://"+strings.Repeat(strings.Repeat("a", 61)+".", 4)+"b.test/c.json", "https://-good.test/c.json", "https://go_od.test/c.json", "https://good..test/c.json"),
	{"CU-28", func(t *trial) {
		rss := t.s.memory("VmRSS")
		t.noClients(longID(2049), longID(8193))
		before := t.w.fetches()
		pg := t.john.visit(az("client_id", longID(70_000))) // beyond the limit of a request: net/http answers
		t.check(!pg.left && (pg.status == 414 || pg.status == 431) && len(pg.body) < 2000 && pg.header.Get("Location") == "" && t.w.fetches() == before, "70,000 characters: %s", pg)
		t.check(t.s.memory("VmRSS") < rss+16<<10, "memory grew from %d to %d KiB", rss, t.s.memory("VmRSS"))
		for line := range strings.SplitSeq(t.s.output(), "\n") {
			t.check(len(line) < 4096, "a line of the log has %d bytes", len(line))
		}
	}},
	refused("CU-30", "https://127.0.0.1/c.json", "https://93.184.216.34/c.json", "https://[::1]/c.json", "https://[2606:2800:220:1::1]/c.json", "https://[::ffff:127.0.0.1]/c.json"),
	refused("CU-31", "javascript:alert(1)", "file:///etc/passwd", "data:application/json,{}", "gopher://good.test/c.json", "view-source:https://good.test/c.json", "jar:https://good.test/c.json"),
	{"CU-32", func(t *trial) {
		out, err := t.s.cli("", "client", "add", "https://good.test/registered.json", "--name", "Registered", "--redirect", redirect)
		t.check(err != nil, "a URL was registered by hand: %s", out)
		out, err = t.s.cli("", "client", "add", "by-hand", "--name", "By hand", "--redirect", redirect)
		if err != nil {
			t.fatal("%v", err)
		}
		t.check(!strings.Contains(out, "https://"), "the id of a registered client: %s", out)
		before := t.w.fetches()
		pg := t.john.visit(az("client_id", "by-hand"))
		t.asks("the registered client", pg)
		t.check(strings.Contains(pg.text(), "By hand") && t.w.fetches() == before, "a stored client was fetched: %s", pg)
	}},
	{"CU-33", func(t *trial) {
		for _, id := range []string{"https://evil.test/c.json", goodID} {
			before := t.w.fetches()
			pg := t.john.visit(az() + "&client_id=" + url.QueryEscape(id))
			t.local("client_id twice", pg, 400)
			t.check(t.w.fetches() == before, "there was a fetch")
		}
		pg := t.john.visit(az() + "&client%5Fid=" + url.QueryEscape("https://evil.test/c.json"))
		t.local("client_id twice, once in disguise", pg, 400)
	}},
}}
