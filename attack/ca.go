package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// authority is the one certification authority of the namespace. The server
// believes it by SSL_CERT_FILE.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	file string

	mu     sync.Mutex // guards issued
	issued map[string]tls.Certificate
	leaf   *ecdsa.PrivateKey
}

func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "attack root"},
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(40, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key, leaf: leaf, pool: x509.NewCertPool(), file: filepath.Join(dir, "root.pem"), issued: map[string]tls.Certificate{}}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	a.pool.AddCert(a.cert)
	return a, os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// spoil describes a certificate that must not be believed.
type spoil struct {
	names      []string
	ips        []net.IP
	notAfter   time.Time
	selfSigned bool
	sha1       bool
	rsa        bool
	constraint string // issued below an intermediate that may only issue for this name
}

func (a *authority) make(s spoil) (tls.Certificate, error) {
	var key crypto.Signer = a.leaf
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "attack"}, DNSNames: s.names, IPAddresses: s.ips,
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(30, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if !s.notAfter.IsZero() {
		t.NotAfter = s.notAfter
	}
	parent, signer := a.cert, crypto.Signer(a.key)
	var chain [][]byte
	if s.constraint != "" {
		between := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "attack constrained"}, NotBefore: t.NotBefore, NotAfter: time.Now().AddDate(30, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{s.constraint},
		}
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, err
		}
		der, err := x509.CreateCertificate(rand.Reader, between, a.cert, &k.PublicKey, a.key)
		if err != nil {
			return tls.Certificate{}, err
		}
		if parent, err = x509.ParseCertificate(der); err != nil {
			return tls.Certificate{}, err
		}
		signer, chain = k, [][]byte{der}
	}
	if s.selfSigned {
		parent, signer = t, key
	}
	if s.sha1 { // Go does not sign with SHA-1: the digest of the signature is relabelled by hand
		return a.sha1(t)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: append([][]byte{der}, chain...), PrivateKey: key}, nil
}

// sha1 issues a leaf below an RSA intermediate, whose signature is then made anew
// over SHA-1.
func (a *authority) sha1(t *x509.Certificate) (tls.Certificate, error) {
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return tls.Certificate{}, err
	}
	between := &x509.Certificate{
		SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "attack old"}, NotBefore: t.NotBefore, NotAfter: t.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, between, a.cert, &rk.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	parent, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := resignSHA1(t, parent, &a.leaf.PublicKey, rk)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{leaf, der}, PrivateKey: a.leaf}, nil
}

// of returns a good certificate for a name.
func (a *authority) of(name string) (tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.issued[name]; ok {
		return c, nil
	}
	c, err := a.make(spoil{names: []string{name}})
	if err == nil {
		a.issued[name] = c
	}
	return c, err
}

// files writes a good certificate and its key for a server.
func (a *authority) files(dir, name string) error {
	c, err := a.of(name)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "server.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "server.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}
