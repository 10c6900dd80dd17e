package safehttp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestTrusted(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/large":
			io.WriteString(w, strings.Repeat("x", 101))
		case "/exact":
			io.WriteString(w, strings.Repeat("x", 100))
		case "/header":
			for range 100 {
				w.Header().Add("X-Filler", strings.Repeat("y", 1000))
			}
		case "/slow":
			<-r.Context().Done()
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	base := TrustedConfig{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, MaxBody: 100}
	client := func(change ...func(*TrustedConfig)) *http.Client {
		c := base
		for _, f := range change {
			f(&c)
		}
		client := Trusted(c)
		t.Cleanup(client.CloseIdleConnections)
		return client
	}
	read := func(client *http.Client, path string) (int, int, error) {
		resp, err := client.Get(srv.URL + path)
		if err != nil {
			return 0, 0, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, len(body), err
	}
	t.Run("a body at the limit", func(t *testing.T) {
		if status, n, err := read(client(), "/exact"); status != 200 || n != 100 || err != nil {
			t.Errorf("%d, %d bytes, %v", status, n, err)
		}
	})
	t.Run("a body over the limit", func(t *testing.T) {
		_, n, err := read(client(), "/large")
		if wantKind(t, err, KindTooLarge); n != 100 {
			t.Errorf("%d bytes", n)
		}
	})
	t.Run("a body over the limit stays an error, however often it is read", func(t *testing.T) {
		resp, err := client().Get(srv.URL + "/large")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.ReadAll(resp.Body)
		n, err := resp.Body.Read(make([]byte, 8))
		if wantKind(t, err, KindTooLarge); n != 0 {
			t.Errorf("%d bytes", n)
		}
	})
	t.Run("a redirect is the answer", func(t *testing.T) {
		if status, _, err := read(client(), "/moved"); status != 302 || err != nil {
			t.Errorf("%d, %v", status, err)
		}
	})
	t.Run("a header over the limit", func(t *testing.T) {
		if _, _, err := read(client(), "/header"); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("a peer that stalls", func(t *testing.T) {
		_, _, err := read(client(func(c *TrustedConfig) { c.Timeout = 20 * time.Millisecond }), "/slow")
		if e, ok := errors.AsType[*url.Error](err); !ok || !e.Timeout() {
			t.Errorf("error %v", err)
		}
	})
	t.Run("an unknown authority", func(t *testing.T) {
		if _, _, err := read(client(func(c *TrustedConfig) { c.RootCAs = nil }), "/exact"); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("a resolver and a dialer of ones own", func(t *testing.T) {
		to := netip.MustParseAddrPort(srv.Listener.Addr().String())
		var asked string
		own := client(func(c *TrustedConfig) {
			c.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
				asked = host
				return addrs("10.9.9.9", "10.0.0.1"), nil
			}
			c.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
				if a.String() != "10.0.0.1:443" {
					return nil, errors.New("refused")
				}
				return new(net.Dialer).DialContext(ctx, "tcp", to.String())
			}
		})
		resp, err := own.Get("https://example.com/exact") // the name in httptest's certificate
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if asked != "example.com" {
			t.Errorf("looked up %q", asked)
		}
	})
	t.Run("a dialer alone, and an address in the URL", func(t *testing.T) {
		if status, _, err := read(client(func(c *TrustedConfig) { c.Lookup = newWorld().lookup }), "/exact"); status != 200 || err != nil {
			t.Errorf("%d, %v", status, err)
		}
	})
	t.Run("a name that does not resolve, or to nothing", func(t *testing.T) {
		w := newWorld()
		w.names["empty.test"] = nil
		for _, host := range []string{"nowhere.test", "empty.test"} {
			if _, err := client(func(c *TrustedConfig) { c.Lookup = w.lookup }).Get("https://" + host + "/"); err == nil {
				t.Errorf("%s: connected", host)
			}
		}
	})
}

// FuzzTarget checks that whatever URL is accepted is sent exactly as written,
// to a host that is a proper name or address.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{canary, "https://[2606:4700::1111]/a?b", "https://93.184.216.40:443/", "https://u@evil.test/", "https://evil.test:0443/", "https://127.1/", "https://evil.test/%2e%2e/"} {
		f.Add(s)
	}
	fetcher, err := New(Rules{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := fetcher.target(raw)
		if err != nil {
			wantKind(t, err, KindURL)
			return
		}
		rest, ok := strings.CutPrefix(raw, "https://")
		authority, path, _ := strings.Cut(rest, "/")
		if !ok || strings.ContainsAny(authority, "@?#\\%") || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
			t.Fatalf("%q was accepted", raw)
		}
		host := strings.TrimSuffix(authority, ":443")
		if host != got.host && host != "["+got.host+"]" || got.port != 443 {
			t.Fatalf("%q goes to %s port %d", raw, got.host, got.port)
		}
		a, err := netip.ParseAddr(got.host)
		if (err == nil) != got.literal.IsValid() || a.Zone() != "" {
			t.Fatalf("%q: literal %v", raw, got.literal)
		}
		if err != nil && strings.Trim(strings.ToLower(got.host), "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			t.Fatalf("%q: host %q", raw, got.host)
		}
		if sent := got.url.RequestURI(); sent != "/"+path {
			t.Fatalf("%q sends %q", raw, sent)
		}
	})
}

// BenchmarkColdFetch compares a fetch with the plainest GET that closes its
// connection.
func BenchmarkColdFetch(b *testing.B) {
	doc := document(b)
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", doc.String())
	}
	b.Run("plain", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: testCA().pool},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		}}
		b.ReportAllocs()
		for b.Loop() {
			resp, err := client.Get(canary)
			if err != nil {
				b.Fatal(err)
			}
			io.ReadAll(resp.Body)
			resp.Body.Close()
		}
	})
	b.Run("safehttp", func(b *testing.B) {
		f, err := New(Rules{
			RootCAs: testCA().pool,
			Lookup:  func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{evil}, nil },
			Dial:    func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) { return dial(ctx) },
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := f.Get(b.Context(), Request{URL: canary}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
