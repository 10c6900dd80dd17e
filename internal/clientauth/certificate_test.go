package clientauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// selfSignedCert is a certificate of a key, which is long out of date: nothing of
// it counts but the key.
func selfSignedCert(t *testing.T, curve elliptic.Curve) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "whoever"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0),
	}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestSelfSignedTLS(t *testing.T) {
	h := newHouse(t)
	var shown *x509.Certificate
	var broken error
	h.cfg.MTLS = &MTLS{URL: "https://mtls.as.test", Certificate: func(*http.Request) (*x509.Certificate, error) { return shown, broken }}
	good, _ := selfSignedCert(t, elliptic.P256())
	other, _ := selfSignedCert(t, elliptic.P256())
	big, _ := selfSignedCert(t, elliptic.P384())
	key, err := jose.PublicKey(good.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	const tls, both, bound = "https://tls.test/c.json", "https://both.test/c.json", "https://bound.test/c.json"
	h.people.add(directory.Client{ID: tls, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodSelfSignedTLS}})
	h.people.add(directory.Client{ID: both, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodSelfSignedTLS, oauth.MethodNone}})
	h.people.add(directory.Client{ID: bound, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodNone}, Doc: &cimd.Document{MTLSBound: true}})
	h.publish(tls, key)
	h.publish(both, key)
	request := func(id string) Request { return Request{ClientID: id, http: requestTo("/token")} }
	sum := sha256.Sum256(good.Raw)
	thumb := base64.RawURLEncoding.EncodeToString(sum[:])

	t.Run("CAUTH-15 the key of the certificate is one of the client's", func(t *testing.T) {
		shown = good
		c := h.accepted(t, request(tls), oauth.MethodSelfSignedTLS)
		if c.KeyThumbprint != key.Thumbprint() || c.CertThumbprint != "" {
			t.Errorf("%+v", c)
		}
		h.accepted(t, request(both), oauth.MethodSelfSignedTLS)
	})
	t.Run("DPOP-07 tokens are bound to it where the document or the policy asks for that", func(t *testing.T) {
		if c := h.accepted(t, request(bound), oauth.MethodNone); c.CertThumbprint != thumb {
			t.Errorf("%+v", c)
		}
		h.people.clients[tls].Decision.FAPI = true
		c := h.accepted(t, request(tls), oauth.MethodSelfSignedTLS)
		if c.CertThumbprint != thumb || h.Demands(c, "") != nil {
			t.Errorf("%+v", c)
		}
		if h.CertificateThumbprint(requestTo("/userinfo")) != thumb {
			t.Error("another thumbprint")
		}
	})
	t.Run("CAUTH-15 another key", func(t *testing.T) {
		for _, cert := range []*x509.Certificate{other, big} {
			shown = cert
			asked := h.people.asked
			h.refused(t, request(tls), "CAUTH-15")
			h.refused(t, request(both), "CAUTH-15") // a failed method is no reason for a weaker one
			if cert == other && h.people.asked != asked+4 {
				t.Error("the keys of the client were not read again")
			}
		}
	})
	t.Run("CAUTH-15, DPOP-07 no certificate", func(t *testing.T) {
		shown = nil
		h.refused(t, request(tls), "CAUTH-15")
		h.accepted(t, request(both), oauth.MethodNone)
		c := h.accepted(t, request(bound), oauth.MethodNone)
		wantCode(t, h.Demands(c, ""), oauth.InvalidRequest, "DPOP-07")
		if err := h.Demands(c, "a key"); err != nil {
			t.Error(err)
		}
	})
	t.Run("CAUTH-15 a header that cannot be read", func(t *testing.T) {
		broken = errors.New("no certificate")
		h.refused(t, request(tls), "CAUTH-15")
		h.refused(t, request(bound), "CAUTH-15")
		if h.CertificateThumbprint(requestTo("/userinfo")) != "" {
			t.Error("a thumbprint of nothing")
		}
		broken = nil
	})
	t.Run("CAUTH-15 where certificates are off, nobody has one", func(t *testing.T) {
		shown = good
		plain := newHouse(t)
		plain.people.clients[tls] = h.people.clients[tls]
		plain.refused(t, request(tls), "CAUTH-01")
		if c := plain.accepted(t, request(public), oauth.MethodNone); c.CertThumbprint != "" {
			t.Errorf("%+v", c)
		}
	})
	t.Run("DPOP-01, META-22 a proof at the second origin of the server", func(t *testing.T) {
		k := generate(t, jose.ES256)
		for host, ok := range map[string]bool{"mtls.as.test": true, "as.test": false, "evil.test": false} {
			r := requestTo("/token", h.proof(t, k, map[string]any{"htu": "https://mtls.as.test/token"}))
			r.Host = host
			if _, err := h.Proof(httptest.NewRecorder(), r, &Client{Client: h.people.clients[public]}); (err == nil) != ok {
				t.Errorf("%s: %v", host, err)
			}
		}
	})
}
