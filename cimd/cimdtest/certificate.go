package cimdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"time"
)

// Certificate says what certificate a host presents. A zero field means what is
// right: the host's own name, a validity from 2000 to 2099, signed by the
// authority of the net.
type Certificate struct {
	Names      []string // DNS names, or IP addresses
	NotBefore  time.Time
	NotAfter   time.Time
	SelfSigned bool
}

// UseCertificate makes the host present another certificate from now on.
func (h *Host) UseCertificate(c Certificate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cert, h.issued = &c, nil
}

// MaxTLS bounds the TLS version of the host, such as tls.VersionTLS11.
func (h *Host) MaxTLS(version uint16) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.maxTLS = version
}

// authority signs the certificates of a net. All hosts share one key: what tells
// them apart is the name.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cimdtest authority"},
		NotBefore: year(2000), NotAfter: year(2099), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{key, cert}, nil
}

func year(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }

func (a *authority) issue(c Certificate, hostname string) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: hostname},
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if tmpl.NotBefore.IsZero() {
		tmpl.NotBefore = year(2000)
	}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotAfter = year(2099)
	}
	names := c.Names
	if len(names) == 0 {
		names = []string{hostname}
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, name)
		}
	}
	parent := a.cert
	if c.SelfSigned {
		parent = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &a.key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}, nil
}

// tlsConfig answers a handshake as the host it names.
func (n *Net) tlsConfig(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	n.mu.Lock()
	h := n.hosts[strings.ToLower(hello.ServerName)]
	n.mu.Unlock()
	if h == nil {
		return nil, errors.New("no such host in the test net")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.issued == nil {
		var c Certificate
		if h.cert != nil {
			c = *h.cert
		}
		issued, err := n.authority.issue(c, h.name)
		if err != nil {
			return nil, err
		}
		h.issued = issued
	}
	return &tls.Config{
		Certificates: []tls.Certificate{*h.issued}, NextProtos: []string{"http/1.1"},
		MinVersion: tls.VersionTLS10, MaxVersion: h.maxTLS,
	}, nil
}
