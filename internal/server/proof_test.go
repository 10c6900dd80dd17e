package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
)

// pairOf is a certificate with its key, good for either side.
func pairOf(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names},
		&x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestAskForCertificates shakes hands with the listener of a configuration.
func TestAskForCertificates(t *testing.T) {
	ours, theirs := pairOf(t, "as.test", "mtls.as.test"), pairOf(t)
	for _, r := range []struct {
		row  string
		mtls MTLSConfig
		name string
		want bool
	}{
		{"CAUTH-15 certificates are off", MTLSConfig{}, "as.test", false},
		{"CAUTH-15 only a proxy asks", MTLSConfig{ClientCertificateHeader: "Client-Cert"}, "as.test", false},
		{"CAUTH-15 everybody is asked", MTLSConfig{Request: true}, "as.test", true},
		{"CAUTH-15, META-22 the second host asks", MTLSConfig{Request: true, URL: "https://mtls.as.test:8443"}, "mtls.as.test", true},
		{"CAUTH-15, META-22 and the first one does not", MTLSConfig{Request: true, URL: "https://mtls.as.test"}, "as.test", false},
	} {
		t.Run(r.row, func(t *testing.T) {
			conf := &tls.Config{Certificates: []tls.Certificate{ours}, MinVersion: tls.VersionTLS12}
			(&Config{MTLS: r.mtls}).askForCertificates(conf)
			near, far := net.Pipe()
			defer near.Close()
			defer far.Close()
			asked := false
			done := make(chan error, 1)
			go func() {
				done <- tls.Client(near, &tls.Config{
					ServerName: r.name, InsecureSkipVerify: true,
					GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { asked = true; return &theirs, nil },
				}).HandshakeContext(t.Context())
			}()
			server := tls.Server(far, conf)
			if err := server.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got := len(server.ConnectionState().PeerCertificates) == 1; got != r.want || asked != r.want {
				t.Errorf("got a certificate: %v, asked: %v", got, asked)
			}
		})
	}
}
