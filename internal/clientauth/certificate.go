package clientauth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"net/http"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// MTLS says where the certificates of clients come from.
type MTLS struct {
	// Certificate returns what the client showed in its TLS handshake, or nil. It
	// must not believe anybody but our own listener and the trusted proxies.
	Certificate func(*http.Request) (*x509.Certificate, error)
	// URL is the second origin of the endpoints, where certificates are asked for
	// (mtls_endpoint_aliases), or "".
	URL string
}

// selfSigned authenticates with self_signed_tls_client_auth (RFC 8705 section
// 2.2): the key of the certificate has to be one that the client publishes. Who
// signed the certificate, its names and its dates say nothing (CAUTH-15).
func (a *Authenticator) selfSigned(ctx context.Context, c *directory.Client, cert *x509.Certificate) (*Client, error) {
	if err := mayUse(c, oauth.MethodSelfSignedTLS); err != nil {
		return nil, err
	}
	if cert == nil {
		return nil, fail("CAUTH-15", "no certificate came with the request")
	}
	key, err := jose.PublicKey(cert.PublicKey)
	if err != nil {
		return nil, fail("CAUTH-15", "key of the certificate: %w", err)
	}
	// A key that is not in the set may be new: its thumbprint is a kid that the
	// set does not have, so that the set is read again at a bounded rate.
	set, err := a.keysOf(ctx, c, "")
	if err == nil && !set.Has(key) {
		set, err = a.keysOf(ctx, c, key.Thumbprint())
	}
	if err != nil {
		return nil, err
	}
	if !set.Has(key) {
		return nil, fail("CAUTH-15", "the key of the certificate is not one of the client's")
	}
	return &Client{Client: c, Method: oauth.MethodSelfSignedTLS, KeyThumbprint: key.Thumbprint()}, nil
}

// certificate returns what the client showed, or nil.
func (a *Authenticator) certificate(q *Request) (*x509.Certificate, error) {
	if a.cfg.MTLS == nil || q.http == nil {
		return nil, nil
	}
	cert, err := a.cfg.MTLS.Certificate(q.http)
	if err != nil {
		return nil, fail("CAUTH-15", "%w", err)
	}
	return cert, nil
}

// shown notes the certificate of a client whose tokens are to be bound to it: by
// its own word, or because a policy demands that they be bound.
func (a *Authenticator) shown(c *Client, q *Request) error {
	bind, _ := c.Decision.MustBind()
	if !bind && (c.Doc == nil || !c.Doc.MTLSBound) {
		return nil
	}
	cert, err := a.certificate(q)
	if err != nil || cert == nil {
		return err
	}
	c.CertThumbprint = thumbprint(cert)
	return nil
}

// CertificateThumbprint returns the x5t#S256 of the certificate that came with a
// request, or "": for endpoints that take tokens which may be bound to one.
func (a *Authenticator) CertificateThumbprint(r *http.Request) string {
	cert, err := a.certificate(&Request{http: r})
	if err != nil || cert == nil {
		return ""
	}
	return thumbprint(cert)
}

func thumbprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
