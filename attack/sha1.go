package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
)

type certificate struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// resignSHA1 makes a certificate whose signature is SHA-1 with RSA: Go issues it
// with SHA-256, and the two algorithm identifiers and the signature are replaced.
func resignSHA1(t, parent *x509.Certificate, pub crypto.PublicKey, key *rsa.PrivateKey) ([]byte, error) {
	t.SignatureAlgorithm = x509.SHA256WithRSA
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	var c certificate
	if _, err := asn1.Unmarshal(der, &c); err != nil {
		return nil, err
	}
	// 1.2.840.113549.1.1.11 (SHA-256) and .5 (SHA-1) differ in the last octet.
	tbs := c.TBS.FullBytes
	old := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b}
	for i := 0; i+len(old) <= len(tbs); i++ {
		if string(tbs[i:i+len(old)]) == string(old) {
			tbs[i+len(old)-1] = 0x05
			break
		}
	}
	digest := sha1.Sum(tbs)
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA1, digest[:])
	if err != nil {
		return nil, err
	}
	c.TBS = asn1.RawValue{FullBytes: tbs}
	c.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}
	c.Signature = asn1.BitString{Bytes: sig, BitLength: len(sig) * 8}
	return asn1.Marshal(c)
}
