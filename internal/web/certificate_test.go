package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func someCertificate(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificate(t *testing.T) {
	e, err := NewEdge(EdgeConfig{Issuer: "https://as.test", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	theirs, proxys := someCertificate(t), someCertificate(t)
	flat := base64.StdEncoding.EncodeToString(theirs.Raw)
	block := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: theirs.Raw}))
	const header = "Client-Cert"
	for _, r := range []struct {
		row, peer string
		values    []string
		tls       *x509.Certificate
		want      *x509.Certificate
		fails     bool
	}{
		{row: "CAUTH-15 RFC 9440", peer: "10.1.2.3:4", values: []string{":" + flat + ":"}, want: theirs},
		{row: "CAUTH-15 PEM escaped for a URL", peer: "10.1.2.3:4", values: []string{url.PathEscape(block)}, want: theirs},
		{row: "CAUTH-15 PEM escaped but for plus and slash", peer: "10.1.2.3:4", values: []string{strings.NewReplacer("\n", "%0A", " ", "%20").Replace(block)}, want: theirs},
		{row: "CAUTH-15 PEM with spaces for line breaks", peer: "10.1.2.3:4", values: []string{strings.ReplaceAll(block, "\n", " ")}, want: theirs},
		{row: "CAUTH-15 base64 alone, of a chain the first", peer: "10.1.2.3:4", values: []string{flat + "," + flat}, want: theirs},
		{row: "CAUTH-15 an IPv4 address in IPv6", peer: "[::ffff:10.1.2.3]:4", values: []string{":" + flat + ":"}, want: theirs},
		{row: "CAUTH-15 the certificate of the proxy itself is not the client's", peer: "10.1.2.3:4", tls: proxys},
		{row: "CAUTH-15 the header and not the proxy's own", peer: "10.1.2.3:4", values: []string{":" + flat + ":"}, tls: proxys, want: theirs},
		{row: "CAUTH-15 an empty header is no certificate", peer: "10.1.2.3:4", values: []string{""}},
		{row: "CAUTH-15 our own listener", peer: "192.0.2.1:4", tls: theirs, want: theirs},
		{row: "CAUTH-15, attack CA-12: a header from somebody who is no proxy is not looked at", peer: "192.0.2.1:4", values: []string{":" + flat + ":"}},
		{row: "CAUTH-15, attack CA-12: also beside a certificate", peer: "192.0.2.1:4", values: []string{":" + flat + ":"}, tls: proxys, want: proxys},
		{row: "CAUTH-15, attack CA-12: also from an address that cannot be read", peer: "@", values: []string{":" + flat + ":"}},
		{row: "CAUTH-15 twice", peer: "10.1.2.3:4", values: []string{":" + flat + ":", ":" + flat + ":"}, fails: true},
		{row: "CAUTH-15 half of RFC 9440", peer: "10.1.2.3:4", values: []string{":" + flat}, fails: true},
		{row: "CAUTH-15 half of PEM", peer: "10.1.2.3:4", values: []string{strings.ReplaceAll(block, "-----END", " ")}, fails: true},
		{row: "CAUTH-15 a bad escape", peer: "10.1.2.3:4", values: []string{"%zz"}, fails: true},
		{row: "CAUTH-15 no base64", peer: "10.1.2.3:4", values: []string{"(null)"}, fails: true},
		{row: "CAUTH-15 no certificate", peer: "10.1.2.3:4", values: []string{"AAAA"}, fails: true},
		{row: "CAUTH-15 too long", peer: "10.1.2.3:4", values: []string{strings.Repeat("A", 20<<10)}, fails: true},
	} {
		t.Run(r.row, func(t *testing.T) {
			req := httptest.NewRequest("POST", "/token", nil)
			req.RemoteAddr, req.TLS = r.peer, nil
			for _, v := range r.values {
				req.Header.Add(header, v)
			}
			if r.tls != nil {
				req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{r.tls}}
			}
			got, err := e.Certificate(req, header)
			if (err != nil) != r.fails {
				t.Fatal(err)
			}
			if (got == nil) != (r.want == nil) || got != nil && !got.Equal(r.want) {
				t.Errorf("got %v", got)
			}
			if got, err := e.Certificate(req, ""); r.tls == nil && (got != nil || err != nil) {
				t.Errorf("without the name of a header: %v, %v", got, err)
			}
		})
	}
}
