package safehttp

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOwnAddresses(t *testing.T) {
	t.Run("attack SD-33: the server does not fetch from itself, and notices a new address within seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.serve(evil, "evil.test", raw(okAnswer))
			f := w.fetcher(t)
			var own []netip.Addr
			reads := 0
			f.own.list = func() ([]netip.Addr, error) { reads++; return own, nil }
			for range 10 {
				if _, err := get(t, f, canary); err != nil {
					t.Fatal(err)
				}
			}
			if reads != 1 {
				t.Errorf("listed the interfaces %d times", reads)
			}
			own = []netip.Addr{evil}
			<-time.After(ownLifetime)
			_, err := get(t, f, canary)
			wantKind(t, err, KindAddress)
			if f.private[canary] = true; kindOf(f.CheckAddr(canary, evil)) != KindAddress {
				t.Error("a listed URL opens an own public address")
			}
			f.own.list = func() ([]netip.Addr, error) { return nil, errors.New("no netlink") }
			<-time.After(ownLifetime)
			_, err = get(t, f, canary)
			wantKind(t, err, KindAddress)
		})
	})
	t.Run("attack SD-33: the addresses of this machine are known", func(t *testing.T) {
		own, err := interfaceAddrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range own {
			if a.IsLoopback() || a.Zone() != "" || a.Is4In6() {
				t.Errorf("own address %v", a)
			}
		}
		all, err := net.InterfaceAddrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
				continue
			}
			if err := (&interfaces{list: interfaceAddrs, now: time.Now}).check(p.Addr()); err == nil {
				t.Errorf("%v is not known as ours", p.Addr())
			}
		}
	})
}

// TestOracle compares the guard with an independent transcription of the IANA
// registries, read with arithmetic of its own.
func TestOracle(t *testing.T) {
	type span struct {
		lo, hi *big.Int
		v4     bool
		text   string
	}
	file, err := os.Open("testdata/special.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var spans []span
	var probe []netip.Addr
	for in := bufio.NewScanner(file); in.Scan(); {
		line, _, _ := strings.Cut(in.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		base, length, ok := strings.Cut(line, "/")
		a, err := netip.ParseAddr(base)
		bits, isNum := new(big.Int).SetString(length, 10)
		if !ok || err != nil || !isNum {
			t.Fatalf("bad line %q", in.Text())
		}
		width := uint(128)
		if a.Is4() {
			width = 32
		}
		lo := new(big.Int).SetBytes(a.AsSlice())
		size := new(big.Int).Lsh(big.NewInt(1), width-uint(bits.Int64()))
		hi := new(big.Int).Sub(new(big.Int).Add(lo, size), big.NewInt(1))
		spans = append(spans, span{lo, hi, a.Is4(), line})
		for _, n := range []*big.Int{lo, hi, new(big.Int).Sub(lo, big.NewInt(1)), new(big.Int).Add(hi, big.NewInt(1))} {
			if n.Sign() >= 0 && n.BitLen() <= int(width) {
				b := n.FillBytes(make([]byte, width/8))
				p, _ := netip.AddrFromSlice(b)
				probe = append(probe, p)
			}
		}
	}
	forbidden := func(a netip.Addr) string {
		n := new(big.Int).SetBytes(a.AsSlice())
		for _, s := range spans {
			if s.v4 == a.Is4() && n.Cmp(s.lo) >= 0 && n.Cmp(s.hi) <= 0 {
				return s.text
			}
		}
		if s := a.StringExpanded(); a.Is6() && (strings.HasSuffix(s[:29], ":0000:5efe") || strings.HasSuffix(s[:29], ":0200:5efe")) {
			return "ISATAP"
		}
		return ""
	}
	f := newWorld().fetcher(t)
	r := rand.New(rand.NewPCG(1, 2))
	fourteen := 14
	for range 100_000 {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		probe = append(probe, netip.AddrFrom4([4]byte(b[:4])))
		if r.IntN(2) == 0 {
			b[0] = 0x20 | b[0]&0x1f // the global part, or nearly all would be refused
		}
		if r.IntN(fourteen) == 0 {
			copy(b[8:], []byte{b[8] & 2, 0, 0x5e, 0xfe})
		}
		probe = append(probe, netip.AddrFrom16(b))
	}
	public := 0
	for _, a := range probe {
		want, got := forbidden(a), f.CheckAddr(canary, a)
		if (want != "") != (got != nil) {
			t.Errorf("FETCH-04 %v: registry says %q, guard says %v", a, want, got)
		}
		if got == nil {
			public++
		}
	}
	if share := float64(public) / float64(len(probe)); share < 0.3 || share > 0.9 {
		t.Errorf("%.0f %% of the addresses are public: the sample proves little", share*100)
	}
}

func TestCertificates(t *testing.T) {
	with := func(spoil func(*x509.Certificate)) tls.Certificate { return testCA().leaf("evil.test", spoil) }
	server := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	constrained := newAuthority(func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"good.test"}
	})
	for _, row := range []struct {
		name   string
		config *tls.Config
		ok     bool
		roots  *authority
	}{
		{"FETCH-11 a good certificate", server(with(nil)), true, nil},
		{"FETCH-11 TLS 1.2", &tls.Config{Certificates: []tls.Certificate{with(nil)}, MaxVersion: tls.VersionTLS12}, true, nil},
		{"FETCH-11, attack FT-19: expired", server(with(func(c *x509.Certificate) { c.NotAfter = notBefore.AddDate(1, 0, 0) })), false, nil},
		{"FETCH-11, attack FT-19: not yet valid", server(with(func(c *x509.Certificate) { c.NotBefore = notAfter.AddDate(-1, 0, 0) })), false, nil},
		{"FETCH-11, attack FT-19: wrong host", server(testCA().leaf("good.test", nil)), false, nil},
		{"FETCH-11, attack FT-19: a name in the subject only", server(with(func(c *x509.Certificate) { c.DNSNames = nil })), false, nil},
		{"FETCH-11, attack FT-19: an IP address only", server(testCA().leaf(evil.String(), nil)), false, nil},
		{"FETCH-11, attack FT-19: an unknown authority", server(newAuthority(nil).leaf("evil.test", nil)), false, nil},
		{"FETCH-11, attack FT-19: outside the authority's name constraints", server(constrained.leaf("evil.test", nil)), false, constrained},
		{"FETCH-11, attack FT-19: not for servers", server(with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })), false, nil},
		{"FETCH-11, attack FT-19: signed with SHA-1", server(with(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 })), false, nil},
		{"FETCH-11, attack FT-19: TLS 1.1", &tls.Config{Certificates: []tls.Certificate{with(nil)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false, nil},
		{"FETCH-14 no client certificate is sent", &tls.Config{Certificates: []tls.Certificate{with(nil)}, ClientAuth: tls.RequireAnyClientCert}, false, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.serveTLS(evil, row.config, raw(okAnswer))
				_, err := get(t, w.fetcher(t, func(r *Rules) {
					if row.roots != nil {
						r.RootCAs = row.roots.pool
					}
				}), canary)
				switch {
				case row.ok && err != nil:
					t.Error(err)
				case !row.ok:
					wantKind(t, err, KindTLS, KindProtocol, KindConnect) // TLS 1.3 learns late that a client certificate was wanted
				}
				if w.closed != 1 {
					t.Errorf("%d connections closed, want 1", w.closed)
				}
			})
		})
	}
	t.Run("FETCH-11, attack FT-19: plaintext on the TLS port", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.servers[evil] = func(c net.Conn) {
				defer c.Close()
				c.Read(make([]byte, 1<<10))
				raw(okAnswer)(c, "")
			}
			_, err := get(t, w.fetcher(t), canary)
			wantKind(t, err, KindTLS)
		})
	})
}
