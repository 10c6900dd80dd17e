package web

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// maxCertificate bounds a certificate in a header, in characters.
const maxCertificate = 16 << 10

// errCertificate is what every header is that holds no certificate.
var errCertificate = errors.New("the header of the proxy holds no certificate")

// Certificate returns the certificate that the client showed in its TLS
// handshake, or nil when it showed none (CAUTH-15). From a trusted proxy it is
// what the named header says, and never the proxy's own certificate; from
// everybody else it is the one of our own listener, and the header is not looked
// at: anybody can write it. Nothing about the certificate is verified but that
// its owner has the key.
func (e *Edge) Certificate(r *http.Request, header string) (*x509.Certificate, error) {
	peer, ok := parseAddr(r.RemoteAddr)
	if !ok || !e.trusted(peer) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return nil, nil
		}
		return r.TLS.PeerCertificates[0], nil
	}
	values := r.Header.Values(header)
	if header == "" || len(values) == 0 || len(values) == 1 && values[0] == "" {
		return nil, nil
	}
	if len(values) > 1 {
		return nil, errors.New("the header of the proxy stands twice")
	}
	return parseCertificate(values[0])
}

// parseCertificate reads a certificate in any of the forms in which proxies send
// it: RFC 9440 (base64 between colons), PEM with its line breaks escaped for a
// URL or turned into spaces, or base64 alone. Of a chain it is the first.
func parseCertificate(s string) (*x509.Certificate, error) {
	if len(s) > maxCertificate {
		return nil, errCertificate
	}
	if strings.Contains(s, "%") {
		var err error
		if s, err = url.PathUnescape(s); err != nil { // a plus is part of base64
			return nil, errCertificate
		}
	}
	s = strings.TrimSpace(s)
	if inner, ok := strings.CutPrefix(s, ":"); ok {
		if inner, ok = strings.CutSuffix(inner, ":"); !ok {
			return nil, errCertificate
		}
		s = inner
	}
	const begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
	if inner, ok := strings.CutPrefix(s, begin); ok {
		if s, _, ok = strings.Cut(inner, end); !ok {
			return nil, errCertificate
		}
	}
	s, _, _ = strings.Cut(s, ",")
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		return nil, errCertificate
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errCertificate
	}
	return cert, nil
}
