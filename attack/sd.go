package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// fetchFail wants a refusal after at most one attempt at a document host, and
// that nothing is left of it.
func (t *trial) fetchFail(what, id string, changes ...string) *page {
	files := t.s.foreign()
	before := t.w.fetches()
	pg := t.john.visit(azOf(id, changes...))
	t.local(what, pg)
	t.check(pg.status == 502 || pg.status == 400, "%s: status %d", what, pg.status) // 503 would say that nobody tried
	t.check(pg.took < 6500*time.Millisecond, "%s: it took %v", what, pg.took)
	t.check(t.w.fetches()-before <= 1, "%s: %d connections", what, t.w.fetches()-before)
	left := func() (list []string) {
		for file := range t.s.foreign() {
			if !files[file] {
				list = append(list, file)
			}
		}
		return list
	}
	within(time.Second, func() bool { return len(left()) <= 1 }) // the visitor's own connection
	t.check(len(left()) <= 1, "%s: these stay open: %s", what, strings.Join(left(), ", "))
	return pg
}

var nameCount atomic.Int64

// fresh returns a name of a host that nobody used before: each has budgets and
// back-off of its own.
func fresh(what string) string { return fmt.Sprintf("%s%d.test", what, nameCount.Add(1)) }

// addressed wants no connection to any of the addresses, alone and below a name.
func addressed(id string, list ...string) row {
	return row{id, func(t *trial) {
		for _, a := range list {
			name := fresh("sd")
			t.w.dns.set(name, netip.MustParseAddr(a))
			pg := t.fetchFail(a, "https://"+name+"/c.json")
			t.check(pg.status == 502, "%s: status %d", a, pg.status)
			t.check(t.w.dns.count(name) > 0, "%s: it was not even looked up", a)
		}
	}}
}

// named gives a name one answer for every question.
func (t *trial) named(name string, a answer) {
	t.w.dns.script(name, func(bool, int) answer { return a })
}

var groupSD = group{name: "SD", rows: []row{
	addressed("SD-01", "127.0.0.1", "127.0.0.2", "127.255.255.254"),
	addressed("SD-02", "10.0.0.1", "172.16.0.1", "192.168.0.1", "172.31.255.255"),
	addressed("SD-03", "169.254.169.254", "169.254.0.1"),
	addressed("SD-04", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
	addressed("SD-05", "192.0.0.192", "192.0.0.1"),
	addressed("SD-06", "198.18.0.1", "198.19.255.255", "203.0.113.5", "192.88.99.1", "240.0.0.1", "192.0.2.1", "198.51.100.1"),
	addressed("SD-07", "168.63.129.16"),
	addressed("SD-08", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "255.255.255.255"),
	addressed("SD-09", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1"),
	{"SD-10", func(t *trial) {
		for _, a := range []string{"::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:10.0.0.1"} {
			name := fresh("mapped")
			t.named(name, answer{addrs: addrs(a)}) // as AAAA: the name server sends the 16 bytes
			t.fetchFail(a, "https://"+name+"/c.json")
		}
	}},
	addressed("SD-12", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
	addressed("SD-14", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
	addressed("SD-15", "2001:0:7f00:1::1", "2606:4700::5efe:169.254.169.254", "2606:4700::200:5efe:127.0.0.1"),
	{"SD-17", func(t *trial) {
		for _, bad := range [][]string{{"10.0.0.1"}, {"127.0.0.1", "169.254.169.254"}, {"::1", "fd00:ec2::254"}} {
			h := t.w.host(fresh("mixed")) // documented: the good one is dialled, the others never
			id := h.client("/c.json", nil)
			t.w.dns.set(h.name, append(addrs(bad...), h.addr)...)
			t.asks(strings.Join(bad, " "), t.john.visit(azOf(id)))
		}
	}},
	{"SD-18", func(t *trial) {
		h := t.w.host("rebind.test")
		var asked atomic.Int64
		t.w.dns.script(h.name, func(aaaa bool, _ int) answer {
			if asked.Add(1) <= 1 && !aaaa {
				return answer{addrs: []netip.Addr{h.addr}}
			}
			if aaaa {
				return answer{}
			}
			return answer{addrs: addrs("127.0.0.1")}
		})
		reached, most := 0, int64(0)
		for n := range 1000 {
			id := h.client(fmt.Sprintf("/r%d.json", n), nil)
			asked.Store(0)
			pg := t.john.visit(azOf(id))
			t.check(!pg.left, "try %d: %s", n, pg)
			if pg.asks() {
				reached++
			}
			most = max(most, asked.Load())
			t.s.later(time.Second)
		}
		t.check(reached > 300, "only %d of 1000 tries reached the public address: the row proves little", reached)
		t.check(most <= 2, "%d questions for one fetch: more than one resolution", most)
	}},
	{"SD-19", func(t *trial) {
		h := t.w.host(fresh("eyeballs")).change(func(h *host) { h.down = true })
		t.w.dns.script(h.name, func(aaaa bool, _ int) answer {
			if aaaa {
				return answer{addrs: addrs("::1"), delay: 250 * time.Millisecond}
			}
			return answer{addrs: []netip.Addr{h.addr}}
		})
		t.fetchFail("a reset, then ::1", "https://"+h.name+"/c.json")
	}},
	{"SD-20", func(t *trial) {
		for _, chain := range [][]string{{"x.evil.test", "localhost"}, {"x.evil.test", "metadata.google.internal"}, {"as.test"}} {
			name := fresh("alias")
			t.w.dns.script(name, func(bool, int) answer {
				return answer{cname: chain, addrs: addrs("127.0.0.1", "169.254.169.254", "::1")}
			})
			t.fetchFail(strings.Join(chain, " "), "https://"+name+"/c.json")
			name = fresh("alias")
			t.named(name, answer{cname: chain})
			t.fetchFail(strings.Join(chain, " ")+" without an address", "https://"+name+"/c.json")
		}
		loop := fresh("loop")
		t.named(loop, answer{cname: []string{"a." + loop, "b." + loop, "a." + loop}})
		t.fetchFail("a loop", "https://"+loop+"/c.json")
	}},
	{"SD-22", func(t *trial) {
		for what, a := range map[string]answer{
			"silence": {silent: true}, "SERVFAIL": {rcode: dnsmessage.RCodeServerFailure}, "REFUSED": {rcode: dnsmessage.RCodeRefused}, "after 8 s": {delay: 8 * time.Second},
		} {
			h := t.w.host(fresh("dns"))
			id := h.client("/c.json", nil)
			t.named(h.name, a)
			t.fetchFail(what, id)
			t.w.dns.set(h.name, h.addr)
			t.s.later(40 * time.Second)
			t.asks(what+" is over", t.john.visit(azOf(id)))
		}
	}},
	{"SD-23", func(t *trial) {
		list := []string{"https://2130706433/c.json", "https://0x7f000001/c.json", "https://0177.0.0.1/c.json", "https://127.1/c.json", "https://0/c.json", "https://0x7f.1/c.json", "https://127.0.0.1./c.json", "https://good.test.1/c.json", "https://a.0x7f/c.json"}
		t.noClients(list...)
		t.at(t.another(options{env: []string{"GODEBUG=netdns=cgo"}}), func(*person) { t.noClients(list...) })
	}},
	refused("SD-25", "https://[::1%25lo]/c.json", "https://[fe80::1%25lo]/c.json", "https://[::1%lo]/c.json", "https://[fe80::1%251]/c.json"),
	{"SD-26", func(t *trial) {
		if err := setHosts("::1%lo zoned.test\n127.0.0.1 plain.test\n"); err != nil {
			t.fatal("%v", err)
		}
		defer setHosts("127.0.0.1 unused-name\n")
		t.s.later(10 * time.Second) // the resolver keeps the file for 5 s
		t.fetchFail("::1%lo", "https://zoned.test/c.json")
		t.fetchFail("127.0.0.1 in /etc/hosts", "https://plain.test/c.json")
	}},
	{"SD-27", func(t *trial) {
		t.noClients("https://localhost/c.json", "https://foo.localhost/c.json", "https://printer.local/c.json", "https://x.internal/c.json", "https://intranet/c.json",
			"https://router.home.arpa/c.json", "https://LOCALHOST/c.json", "https://a.onion/c.json")
		honest := t.w.host("honest-client.com").client("/c.json", nil)
		t.at(t.another(options{changes: []string{", allow_test_names: true", ""}}), func(p *person) {
			t.asks("an honest name", p.visit(azOf(honest)))
			t.noClients("https://x.test/c.json", goodID, "https://x.example/c.json", "https://x.invalid/c.json")
		})
	}},
	refused("SD-28", "https://evil.test:22/c.json", "https://evil.test:25/c.json", "https://evil.test:80/c.json", "https://evil.test:6379/c.json", "https://evil.test:8080/c.json", "https://evil.test:8443/c.json", "https://evil.test:9200/c.json"),
	{"SD-30", func(t *trial) {
		for _, status := range []int{301, 302, 303, 307, 308} {
			h := t.w.host(fresh("redirect"))
			h.put("/c.json", func() response {
				r := answered(nil, "Location", h.url("/c.json/"))
				r.status = status
				return r
			}())
			h.client("/c.json/", nil)
			pg := t.fetchFail(fmt.Sprint(status), h.url("/c.json"))
			t.check(h.count("*") == 1, "%d: %d requests", status, h.count("*"))
			t.check(strings.Contains(strings.ToLower(pg.text()), "redirect"), "%d: the page does not say what happened: %s", status, pg)
		}
	}},
	{"SD-31", func(t *trial) {
		env := []string{}
		for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
			env = append(env, name+"=http://127.0.0.1:8080")
		}
		t.at(t.another(options{env: env}), func(p *person) {
			t.asks("with proxy variables", p.visit(az()))
			t.check(!strings.Contains(t.s.get("/readyz").raw, "127.0.0.1"), "/readyz: %s", t.s.get("/readyz").raw)
		})
		const at = "93.184.216.70"
		px, err := newProxy(at + ":3128")
		if err != nil {
			t.fatal("%v", err)
		}
		defer px.Close()
		t.w.canary.allow(at, 3128)
		s := t.another(options{changes: []string{"allow_test_names: true}", "allow_test_names: true, egress: {proxy: 'http://" + at + ":3128'}}"}})
		t.at(s, func(p *person) {
			t.asks("with a proxy of the operator", p.visit(az()))
			t.check(px.count.Load() == 1, "%d connections by way of the proxy", px.count.Load())
			ready := s.get("/readyz")
			t.check(strings.Contains(ready.raw, "proxy"), "/readyz does not tell of the proxy: %s", ready)
		})
	}},
	{"SD-32", func(t *trial) {
		h := t.w.host(fresh("pooled"))
		t.asks("while it is public", t.john.visit(azOf(h.client("/a.json", nil))))
		t.w.dns.set(h.name, netip.MustParseAddr("10.0.0.1"))
		id := h.client("/b.json", nil)
		t.fetchFail("after it moved to 10.0.0.1", id)
		t.check(h.count("/b.json") == 0, "the second document came over an old connection")
	}},
	{"SD-33", func(t *trial) {
		t.w.dns.set("self.test", netip.MustParseAddr(asAddr))
		t.noClients("https://self.test/authorize?client_id=https%3A%2F%2Fself.test%2Fauthorize")
		t.fetchFail("the server itself", "https://self.test/authorize")
		t.w.dns.set("as.test", netip.MustParseAddr(asAddr))
		t.fetchFail("the server itself by its own name", "https://as.test/authorize")
	}},
	{"SD-34", func(t *trial) {
		t.w.dns.set("inner.test", netip.MustParseAddr("10.0.0.1"))
		h := t.w.host("vouched.test") // only for a client that the operator named is a logo fetched at all
		h.put("/good.png", answered(pixels(64, 64), "Content-Type", "image/png"))
		s := t.another(options{changes: []string{"policy: {default: allow}", "policy: {default: allow, rules: [{host: vouched.test, action: allow}]}"}})
		t.at(s, func(p *person) {
			pg := p.visit(azOf(h.client("/good.json", m{"logo_uri": h.url("/good.png")})))
			t.asks("a good logo", pg)
			t.check(strings.Contains(pg.body, "/logo?"), "a good logo is not shown: %s", pg)
			for i, uri := range []string{"https://inner.test/l.png", "http://169.254.169.254/", "https://10.0.0.1/l.png", "https://localhost/l.png", "https://[::1]/l.png", "https://inner.test:8080/l.png", "https://vouched.test:22/l.png"} {
				pg := p.visit(azOf(h.client(fmt.Sprintf("/c%d.json", i), m{"logo_uri": uri})))
				if pg.left || pg.status == 400 { // the document is refused: nothing was fetched
					t.local(uri, pg, 400)
					continue
				}
				t.asks(uri, pg)
				t.check(!strings.Contains(pg.body, "/logo?") && !strings.Contains(pg.body, "inner.test/l.png"), "%s: the page shows a logo", uri)
			}
			t.check(t.w.dns.count("inner.test") > 0, "the logo at inner.test was not even looked up: the row proves nothing")
		})
	}},
	{"SD-35", func(t *trial) {
		for _, a := range []string{"127.0.0.1", "169.254.169.254", "::1"} {
			inner := fresh("innerkeys")
			t.w.dns.set(inner, netip.MustParseAddr(a))
			k := t.keyed(fresh("keyed"), m{"jwks_uri": "https://" + inner + "/jwks.json"}, "ES256")
			b := k.redeem(k.codeOf(t.john), k.assert(nil))
			t.check(t.w.dns.count(inner) > 0, "%s: the keys were not even looked for", a)
			t.check(b.is(401, "invalid_client"), "%s: %s", a, b)
			t.check(!oracles.MatchString(b.raw), "%s: it tells about the network: %s", a, b)
		}
		k := t.keyed(fresh("keyed"), nil, "ES256")
		b := k.redeem(k.codeOf(t.john), k.assert(nil))
		t.check(b.ok(), "keys at a public address: %s", b)
	}},
	{"SD-36", func(t *trial) {
		bad := "http://169.254.169.254/"
		for _, member := range []string{"sector_identifier_uri", "initiate_login_uri", "backchannel_logout_uri", "frontchannel_logout_uri", "request_uris", "post_logout_redirect_uris", "client_uri", "tos_uri", "policy_uri", "software_statement"} {
			var v any = bad
			if strings.HasSuffix(member, "uris") {
				v = []string{bad}
			}
			pg := t.john.visit(azOf(t.w.host(fresh("field")).client("/c.json", m{member: v})))
			if pg.asks() {
				t.check(t.john.answer(pg, "allow").code() != "", "%s: ignored, and then no code", member)
				continue
			}
			t.local(member, pg, 400)
		}
	}},
	{"SD-38", func(t *trial) {
		const at = "127.0.0.5"
		h, err := loopbackDocument(t.w)
		if err != nil {
			t.fatal("%v", err)
		}
		defer h.Close()
		t.w.canary.allow("127.0.0.1", 8443)
		defer t.w.canary.forbid("127.0.0.1", 8443)
		s := t.another(options{addr: at, args: []string{"--dev"}})
		t.at(s, func(p *person) {
			t.asks("everything on loopback, with --dev", p.visit(az("client_id", "https://127.0.0.1:8443/c.json", "redirect_uri", "http://127.0.0.1/cb")))
			t.w.dns.set("dev.test", netip.MustParseAddr("10.0.0.1"))
			t.fetchFail("--dev does not open private networks", "https://dev.test/c.json")
		})
		t.w.canary.forbid("127.0.0.1", 8443)
		t.noClients("https://127.0.0.1:8443/c.json")
		_, err = t.w.start(options{addr: replicaAddr, args: []string{"--dev"}})
		t.check(err != nil && strings.Contains(err.Error(), "--dev"), "it starts with --dev on %s: %v", replicaAddr, err)
	}},
	{"SD-39", func(t *trial) {
		for _, listen := range []string{"0.0.0.0:8444", "[::]:8444", ":8444", "unix:/tmp/x.sock", "/tmp/x.sock"} {
			_, err := t.w.start(options{addr: replicaAddr, args: []string{"--dev"}, changes: []string{"listen: " + replicaAddr + ":443", "listen: '" + listen + "'"}})
			t.check(err != nil && strings.Contains(err.Error(), "the server did not start"), "it starts with --dev on %s: %v", listen, err)
		}
		before := t.w.fetches()
		for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded"} {
			v := "127.0.0.1"
			if name == "Forwarded" {
				v = "for=127.0.0.1"
			}
			req, _ := http.NewRequest(http.MethodGet, az("client_id", "https://127.0.0.1:8443/c.json"), nil)
			req.Header.Set(name, v)
			req.Header.Set("Cookie", t.john.cookies())
			a := t.s.do(req)
			t.check(a.status == 400 && t.w.fetches() == before, "%s: %s", name, a)
		}
	}},
}}

// proxy is a proxy that knows CONNECT.
type proxy struct {
	net.Listener
	count atomic.Int64
}

func newProxy(at string) (*proxy, error) {
	ln, err := net.Listen("tcp", at)
	if err != nil {
		return nil, err
	}
	p := &proxy{Listener: ln}
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.count.Add(1)
		name, _, _ := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || name != "good.test" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		to, err := net.Dial("tcp", goodAddr+":443")
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		from, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(to, from); to.Close() })
		wg.Go(func() { io.Copy(from, to); from.Close() })
		wg.Wait()
	}))
	return p, nil
}

// loopbackDocument serves a document at https://127.0.0.1:8443/c.json.
func loopbackDocument(w *world) (net.Listener, error) {
	c, err := w.ca.make(spoil{ips: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		return nil, err
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:8443", &tls.Config{Certificates: []tls.Certificate{c}})
	if err != nil {
		return nil, err
	}
	doc := documentBytes("https://127.0.0.1:8443/c.json", m{"redirect_uris": []string{"http://127.0.0.1/cb"}})
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(doc)
	}))
	return ln, nil
}
