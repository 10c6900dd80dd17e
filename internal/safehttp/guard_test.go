package safehttp

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
)

// never fetches the URL in a world where the name has this answer and wants it
// to fail without a single dial.
func never(t *testing.T, answer []netip.Addr, rawURL string, kind Kind, change ...func(*Rules)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.names["evil.test"] = answer
		for _, a := range answer {
			w.serve(a.WithZone(""), "evil.test", raw(okAnswer))
		}
		_, err := get(t, w.fetcher(t, change...), rawURL)
		wantKind(t, err, kind)
		if len(w.dialled) != 0 {
			t.Errorf("dialled %v", w.dialled)
		}
		if kind == KindURL && len(w.lookups) != 0 {
			t.Errorf("looked up %v", w.lookups)
		}
	})
}

func TestForbiddenAddresses(t *testing.T) {
	for name, list := range map[string]string{
		"FETCH-04, attack SD-01: loopback":                         "127.0.0.1 127.255.255.254",
		"FETCH-04, attack SD-02: RFC 1918":                         "10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1",
		"FETCH-04, attack SD-03: link local metadata":              "169.254.169.254 169.254.170.2",
		"FETCH-04, attack SD-04: shared address space":             "100.64.0.1 100.100.100.200",
		"FETCH-04, attack SD-05: protocol assignments":             "192.0.0.192 192.0.0.1",
		"FETCH-04, attack SD-06: benchmarking, documentation":      "198.18.0.1 203.0.113.5 192.88.99.1 240.0.0.1",
		"FETCH-04, attack SD-07: a public-looking cloud service":   "168.63.129.16",
		"FETCH-04, attack SD-08: this network and multicast":       "0.0.0.0 224.0.0.1 255.255.255.255",
		"FETCH-04, attack SD-09: IPv6 of every local kind":         "::1 :: fe80::1 fc00::1 fd00:ec2::254 ff02::1",
		"FETCH-04, attack SD-10: IPv4-mapped":                      "::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::ffff:93.184.216.40",
		"FETCH-04 IPv4-compatible":                                 "::127.0.0.1 ::93.184.216.40",
		"FETCH-04, attack SD-12: NAT64":                            "64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1",
		"FETCH-04, attack SD-14: 6to4":                             "2002:7f00:1::",
		"FETCH-04, attack SD-15: Teredo and ISATAP":                "2001:0:7f00:1::1 2606:4700::5efe:169.254.169.254 2606:4700::200:5efe:5db8:d828",
		"FETCH-04, attack SD-20: where a chain of names ends":      "127.0.0.1 169.254.169.254",
		"FETCH-04, attack SD-26: an answer with a zone":            "::1%lo 2606:4700::1111%eth0",
		"FETCH-04 ranges that no registry calls global":            "5f00::1 4000::1 fec0::1 3fff::1 2001:db8::1 100::1",
		"FETCH-04 a metadata service at a unique local address":    "fd20:ce::254",
		"FETCH-04, attack SD-17: many bad addresses and no others": "10.0.0.1 10.0.0.2 127.0.0.1 ::1",
	} {
		t.Run(name, func(t *testing.T) {
			for s := range strings.FieldsSeq(list) {
				never(t, addrs(s), canary, KindAddress)
			}
			never(t, addrs(strings.Fields(list)...), canary, KindAddress)
		})
	}
	t.Run("FETCH-04, attack SD-07: the operator's own list", func(t *testing.T) {
		never(t, []netip.Addr{evil}, canary, KindAddress, func(r *Rules) { r.Deny = []netip.Prefix{netip.MustParsePrefix("93.184.216.40/31")} })
	})
	t.Run("attack SD-22: an empty answer and an error are failures of the resolver", func(t *testing.T) {
		never(t, nil, canary, KindDNS)
		never(t, nil, "https://servfail.test/c.json", KindDNS)
	})
}

func TestForbiddenURLs(t *testing.T) {
	for name, list := range map[string]string{
		"FETCH-08, FETCH-11 nothing but https":          "http://evil.test/c.json HTTPS://evil.test/c.json ftp://evil.test/c.json javascript:alert(1) data:,x file:///etc/passwd //evil.test/c.json c.json https:evil.test/c.json https:///c.json",
		"userinfo and fragments":                        "https://u:p@evil.test/c.json https://@evil.test/c.json https://evil.test/c.json# https://evil.test/c.json#x",
		"attack SD-23: addresses in disguise":           "https://2130706433/c.json https://0x7f000001/c.json https://0177.0.0.1/c.json https://127.1/c.json https://0/c.json https://evil.0x7f/c.json https://127.0.0.1./c.json https://evil.1a/c.json",
		"attack SD-25: zones in the URL":                "https://[::1%25lo]/c.json https://[fe80::1%25lo]/c.json https://[2606:4700::1111%25eth0]/c.json",
		"attack SD-27: names that are not public":       "https://localhost/c.json https://foo.localhost/c.json https://printer.local/c.json https://x.internal/c.json https://intranet/c.json https://metadata.google.internal/c.json https://x.HOME.ARPA/c.json https://x.onion/c.json",
		"attack SD-28: ports":                           "https://evil.test:22/c.json https://evil.test:25/c.json https://evil.test:6379/c.json https://evil.test:8080/c.json https://evil.test:9200/c.json https://evil.test:80/c.json",
		"ports that are written oddly":                  "https://evil.test:/c.json https://evil.test:0443/c.json https://evil.test:0/c.json https://evil.test:65979/c.json https://[2606:4700::1111]:/c.json",
		"hosts that are no names":                       "https://evil..test/c.json https://.evil.test/c.json https://evil.test./c.json https://ev_il.test/c.json https://-evil.test/c.json https://evil-.test/c.json https://\u00e9vil.test/c.json https://%65vil.test/c.json https://evil%2etest/c.json https://[evil.test]/c.json https://[127.0.0.1]/c.json https://" + strings.Repeat("a", 64) + ".test/ https://" + strings.Repeat("a.", 130) + "test/",
		"FETCH-14 what cannot be sent as it is written": "https://evil.test/a\"b https://evil.test/\u00e9 https://evil.test?x https://evil.test/a%zz",
	} {
		t.Run(name, func(t *testing.T) {
			for u := range strings.FieldsSeq(list) {
				never(t, []netip.Addr{evil}, u, KindURL)
			}
		})
	}
	t.Run("FETCH-04 an address in the URL is checked like an answer", func(t *testing.T) {
		for u := range strings.FieldsSeq("https://127.0.0.1/ https://[::1]/ https://[::ffff:127.0.0.1]/ https://169.254.169.254/ https://[fd00:ec2::254]/") {
			never(t, nil, u, KindAddress)
		}
	})
}

func TestAddressesAreDialledAsChecked(t *testing.T) {
	mixed := addrs("10.0.0.1", "93.184.216.77", "::1", "93.184.216.40", "127.0.0.1", "93.184.216.77")
	t.Run("FETCH-05, attack SD-17, attack SD-19: of a mixed answer only the public addresses are dialled, in order, once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.names["evil.test"] = mixed
			w.serve(evil, "evil.test", raw(okAnswer))
			resp, err := get(t, w.fetcher(t), canary)
			if err != nil || resp.Addr.String() != "93.184.216.40:443" {
				t.Fatalf("got %+v, %v", resp, err)
			}
			if len(w.dialled) != 2 || w.dialled[0].String() != "93.184.216.77:443" || len(w.lookups) != 1 {
				t.Errorf("dialled %v after %d lookups", w.dialled, len(w.lookups))
			}
		})
	})
	t.Run("FETCH-05, attack SD-19: a public address that refuses does not let a later answer in", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.names["evil.test"] = addrs("93.184.216.77", "::1")
			_, err := get(t, w.fetcher(t), canary)
			wantKind(t, err, KindConnect)
			if len(w.dialled) != 1 {
				t.Errorf("dialled %v", w.dialled)
			}
		})
	})
	t.Run("FETCH-05, attack SD-18: rebinding between lookups changes nothing, 1,000 times", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			calls := 0
			f := w.fetcher(t, func(r *Rules) {
				r.Lookup = func(context.Context, string) ([]netip.Addr, error) {
					if calls++; calls%2 == 1 {
						return []netip.Addr{evil}, nil
					}
					return addrs("127.0.0.1"), nil
				}
			})
			for i := range 1000 {
				_, err := get(t, f, canary)
				wantKind(t, err, []Kind{KindConnect, KindAddress}[i%2])
				if calls != i+1 {
					t.Fatalf("%d lookups for %d fetches", calls, i+1)
				}
			}
			for _, a := range w.dialled {
				if a.Addr() != evil {
					t.Fatalf("dialled %v", a)
				}
			}
		})
	})
	t.Run("FETCH-25, attack SD-32: no connection is kept, so a name that moves inside is refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.serve(evil, "evil.test", raw(okAnswer))
			f := w.fetcher(t)
			if _, err := get(t, f, canary); err != nil {
				t.Fatal(err)
			}
			w.names["evil.test"] = addrs("10.0.0.1")
			_, err := get(t, f, canary)
			wantKind(t, err, KindAddress)
			if len(w.dialled) != 1 || w.closed != 1 {
				t.Errorf("%d connections, %d closed", len(w.dialled), w.closed)
			}
		})
	})
	t.Run("FETCH-25, attack FT-13: HTTP/2 is not offered, and two hosts at one address get a connection and a certificate check each", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.names["good.test"] = []netip.Addr{evil}
			var asked []string
			leaf := testCA().leaf("evil.test", nil)
			w.serveTLS(evil, &tls.Config{
				NextProtos: []string{"h2", "http/1.1"},
				GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
					asked = append(asked, h.ServerName+" "+strings.Join(h.SupportedProtos, ","))
					return &leaf, nil
				},
			}, raw(okAnswer))
			f := w.fetcher(t)
			if _, err := get(t, f, canary); err != nil {
				t.Fatal(err)
			}
			_, err := get(t, f, "https://good.test/c.json")
			wantKind(t, err, KindTLS)
			if got := strings.Join(asked, "; "); got != "evil.test http/1.1; good.test http/1.1" {
				t.Errorf("asked for %q", got)
			}
		})
	})
	t.Run("FETCH-05 the default dialer checks again on its way into the kernel", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := New(Rules{Ports: []uint16{l.Addr().(*net.TCPAddr).AddrPort().Port()}})
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().(*net.TCPAddr).AddrPort()
		conn, err := f.dial(t.Context(), target{port: addr.Port()}, addr)
		if err == nil {
			conn.Close()
			t.Fatal("dialled loopback")
		}
		if !strings.Contains(err.Error(), "special-use: loopback") {
			t.Errorf("error %v is not the guard's", err)
		}
		allowed, err := f.dial(t.Context(), target{port: addr.Port(), private: true}, addr)
		if err != nil {
			t.Fatalf("the same dial where it is allowed: %v", err)
		}
		allowed.Close()
	})
}

func TestPlainHTTPInDevelopment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.names["localhost"] = addrs("127.0.0.1")
		w.servers[netip.MustParseAddr("127.0.0.1")] = func(c net.Conn) {
			defer c.Close()
			if request, err := readRequest(c); err == nil && strings.HasPrefix(request, "GET /c.json?a HTTP/1.1\r\nHost: localhost:8080\r\n") {
				raw(okAnswer)(c, request)
			}
		}
		resp, err := get(t, w.fetcher(t, func(r *Rules) { r.Loopback = true }), "http://localhost:8080/c.json?a")
		if err != nil || string(resp.Body) != okBody {
			t.Errorf("URL-18 %+v, %v", resp, err)
		}
	})
	loopback := func(r *Rules) { r.Loopback = true }
	for name, row := range map[string]struct {
		rules func(*Rules)
		url   string
	}{
		"URL-18, FETCH-11 not in production":       {func(*Rules) {}, "http://localhost/c.json"},
		"URL-18, FETCH-11 not to another host":     {loopback, "http://evil.test/c.json"},
		"URL-18 not below localhost":               {loopback, "http://x.localhost/c.json"},
		"URL-18 not to another loopback address":   {loopback, "http://127.0.0.2/c.json"},
		"URL-18 not to a private address":          {loopback, "http://10.0.0.1/c.json"},
		"URL-18, FETCH-16 not through a proxy":     {func(r *Rules) { r.Loopback, r.Proxy = true, &url.URL{Scheme: "http", Host: "proxy:3128"} }, "http://localhost/c.json"},
		"URL-18 not for a listed private URL":      {loopback, "http://clients/c.json"},
		"URL-18 not with a scheme in another case": {loopback, "HTTP://localhost/c.json"},
	} {
		t.Run(name, func(t *testing.T) { never(t, addrs("127.0.0.1"), row.url, KindURL, row.rules) })
	}
}

func TestExceptions(t *testing.T) {
	loopback := func(r *Rules) { r.Loopback = true }
	private := func(urls ...string) func(r *Rules) { return func(r *Rules) { r.Private = urls } }
	for _, row := range []struct {
		name   string
		rules  func(*Rules)
		url    string
		answer string
		want   Kind
	}{
		{"FETCH-07, attack SD-38: in development loopback works on any port", loopback, "https://localhost:8443/c.json", "127.0.0.1", ""},
		{"FETCH-07, attack SD-38: by address", loopback, "https://127.0.0.1:8443/c.json", "", ""},
		{"FETCH-07 by IPv6 address", loopback, "https://[::1]:8443/c.json", "", ""},
		{"FETCH-07 public addresses work on their port", loopback, "https://evil.test/c.json", "93.184.216.40", ""},
		{"FETCH-07 but not on another", loopback, "https://evil.test:8443/c.json", "93.184.216.40", KindAddress},
		{"FETCH-07, attack SD-39: private networks stay refused", loopback, "https://evil.test/c.json", "10.0.0.1", KindAddress},
		{"FETCH-07 unique local addresses too", loopback, "https://evil.test/c.json", "fc00::1", KindAddress},
		{"FETCH-07 link local too", loopback, "https://evil.test/c.json", "169.254.169.254", KindAddress},
		{"FETCH-07 unspecified too", loopback, "https://evil.test/c.json", "0.0.0.0", KindAddress},
		{"FETCH-07 mapped loopback too", loopback, "https://evil.test/c.json", "::ffff:127.0.0.1", KindAddress},
		{"FETCH-07 loopback with a zone too", loopback, "https://evil.test/c.json", "::1%lo", KindAddress},
		{"URL-18 http leads to no other computer, whatever localhost resolves to", loopback, "http://localhost/c.json", "93.184.216.40", KindAddress},
		{"a listed URL may be private", private("https://evil.test:8443/c.json"), "https://evil.test:8443/c.json", "10.0.0.1", ""},
		{"or loopback, or unique local", private("https://evil.test/c.json"), "https://evil.test/c.json", "127.0.0.1", ""},
		{"a listed name may have one label", private("https://clients/c.json"), "https://clients/c.json", "192.168.1.1", ""},
		{"a listed URL is compared byte for byte", private("https://evil.test/c.json"), "https://evil.test/d.json", "10.0.0.1", KindAddress},
		{"in every part", private("https://evil.test:443/c.json"), "https://evil.test/c.json", "10.0.0.1", KindAddress},
		{"a listed URL is not link local", private("https://evil.test/c.json"), "https://evil.test/c.json", "169.254.169.254", KindAddress},
		{"nor a metadata service", private("https://evil.test/c.json"), "https://evil.test/c.json", "fd00:ec2::254", KindAddress},
		{"nor multicast", private("https://evil.test/c.json"), "https://evil.test/c.json", "224.0.0.1", KindAddress},
		{"nor unspecified", private("https://evil.test/c.json"), "https://evil.test/c.json", "::", KindAddress},
		{"nor mapped", private("https://evil.test/c.json"), "https://evil.test/c.json", "::ffff:10.0.0.1", KindAddress},
		{"nor shared address space", private("https://evil.test/c.json"), "https://evil.test/c.json", "100.64.0.1", KindAddress},
		{"a listed URL may be public too", private("https://evil.test/c.json"), "https://evil.test/c.json", "93.184.216.40", ""},
		{"the deny list is above all lists", func(r *Rules) {
			r.Private, r.Loopback = []string{"https://evil.test/c.json"}, true
			r.Deny = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}, "https://evil.test/c.json", "127.0.0.1", KindAddress},
		{"configured ports", func(r *Rules) { r.Ports = []uint16{443, 8443} }, "https://evil.test:8443/c.json", "93.184.216.40", ""},
		{"IPv6 works", func(*Rules) {}, "https://evil.test/c.json", "2606:4700:4700::1111", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				f := w.fetcher(t, row.rules)
				u, err := f.target(row.url)
				if err != nil {
					t.Fatal(err)
				}
				where := u.literal
				if row.answer != "" {
					where = netip.MustParseAddr(row.answer)
					w.names[u.host] = []netip.Addr{where}
				}
				w.serve(where.WithZone(""), u.host, raw(okAnswer))
				_, err = get(t, f, row.url)
				if kindOf(err) != row.want || (err == nil) != (row.want == "") {
					t.Errorf("error %v, want kind %q", err, row.want)
				}
				if dialled := len(w.dialled) > 0; dialled != (row.want == "") {
					t.Errorf("dialled %v", w.dialled)
				}
				if got := f.CheckAddr(row.url, where); kindOf(got) != row.want {
					t.Errorf("CheckAddr says %v", got)
				}
			})
		})
	}
}

func TestPublicHost(t *testing.T) {
	for host, want := range map[string]bool{
		"as.test": true, "AS.test": true, "8.8.8.8": true, "2606:4700::1111": true,
		"127.0.0.1": false, "10.0.0.1": false, "100.64.0.1": false, "168.63.129.16": false, "::1": false, "::1%lo": false,
		"64:ff9b::7f00:1": false, "fe80::1": false, "::ffff:8.8.8.8": false,
		"localhost": false, "a.localhost": false, "printer.local": false, "intranet": false, "as.test.": false,
		"127.1": false, "2130706433": false, "0x7f000001": false, "": false, "a/b": false, "u@as.test": false, "a.test#": false,
	} {
		t.Run("CLI-23 public or not: "+host, func(t *testing.T) {
			if err := PublicHost(host); want != (err == nil) {
				t.Error(err)
			}
		})
	}
}
