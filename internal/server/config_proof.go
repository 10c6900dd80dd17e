package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/issuers"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// DPoPConfig is about DPoP proofs at the server's own endpoints.
type DPoPConfig struct {
	// RequireNonce takes only proofs that carry a nonce of ours, so that none can be
	// made ahead of time. It costs clients a second request now and then.
	RequireNonce bool `yaml:"require_nonce"`
}

// AttestationConfig is about clients that authenticate one installation at a time,
// with an attestation of their own backend.
type AttestationConfig struct {
	Enabled bool `yaml:"enabled"`
	// RequireChallenge demands a challenge from POST /challenge in each proof.
	RequireChallenge bool `yaml:"require_challenge"`
	// MaxAge is how long ago an attestation may have been made, whatever its exp.
	MaxAge time.Duration `yaml:"max_age"`
	// Attesters are trusted beside the keys that a client publishes itself.
	Attesters []AttesterConfig `yaml:"attesters"`
}

// AttesterConfig is one attester; give one of JWKSURI and JWKSFile.
type AttesterConfig struct {
	Issuer   string   `yaml:"issuer"`
	JWKSURI  string   `yaml:"jwks_uri"`
	JWKSFile string   `yaml:"jwks_file"`
	Clients  []string `yaml:"clients"` // the client_ids that it may attest
}

// MTLSConfig is about clients that show a certificate. One of Request and
// ClientCertificateHeader turns it on.
type MTLSConfig struct {
	// Request makes our own TLS listener ask for certificates: with URL only those
	// who come to its host, else everybody.
	Request bool `yaml:"request"`
	// ClientCertificateHeader is the header in which a trusted proxy hands the
	// certificate on.
	ClientCertificateHeader string `yaml:"client_certificate_header"`
	// URL is a second origin of this server where certificates are asked for, so
	// that browsers are not bothered (mtls_endpoint_aliases).
	URL string `yaml:"url"`
}

// On reports whether certificates are looked at.
func (c MTLSConfig) On() bool { return c.Request || c.ClientCertificateHeader != "" }

func defaultAttestation() AttestationConfig {
	return AttestationConfig{Enabled: true, RequireChallenge: true, MaxAge: clientauth.DefaultMaxAge}
}

func (c *Config) checkProofs() error {
	if c.Attestation.MaxAge <= 0 {
		return errors.New("attestation.max_age: must be more than nothing")
	}
	for i, a := range c.Attestation.Attesters {
		at := fmt.Sprintf("attestation.attesters[%d]", i)
		switch {
		case a.Issuer == "":
			return fmt.Errorf("%s: give its issuer", at)
		case (a.JWKSURI == "") == (a.JWKSFile == ""):
			return fmt.Errorf("%s: give one of jwks_uri and jwks_file", at)
		case a.JWKSURI != "" && !strings.HasPrefix(a.JWKSURI, "https://"):
			return fmt.Errorf("%s.jwks_uri: %s must be https", at, a.JWKSURI)
		case len(a.Clients) == 0:
			return fmt.Errorf("%s: name the clients that it may attest", at)
		case slices.Contains(a.Clients, ""):
			return fmt.Errorf("%s: one of the clients is empty", at)
		}
	}
	return c.MTLS.check(c)
}

func (c MTLSConfig) check(all *Config) error {
	switch h := c.ClientCertificateHeader; {
	case c.Request && all.TLS.CertFile == "":
		return errors.New("mtls.request: this server has no TLS listener of its own; behind a proxy, give client_certificate_header")
	case h != "" && len(all.TrustedProxies) == 0:
		return errors.New("mtls.client_certificate_header: name the proxy in trusted_proxies; from everybody else the header is not looked at")
	case h != "" && (strings.Trim(h, headerLetters) != "" || slices.Contains(takenHeaders, http.CanonicalHeaderKey(h))):
		return fmt.Errorf("mtls.client_certificate_header: %s cannot be the name of that header", h)
	case c.URL == "":
		return nil
	case !c.On():
		return errors.New("mtls.url: nothing asks for certificates; set request or client_certificate_header")
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != c.URL || strings.ToLower(c.URL) != c.URL {
		return fmt.Errorf("mtls.url: %s must look like https://mtls.as.example", c.URL)
	}
	if strings.HasPrefix(all.Issuer+"/", c.URL+"/") {
		return errors.New("mtls.url: give another host than the issuer's, or leave it out")
	}
	return nil
}

const headerLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"

// takenHeaders mean something else.
var takenHeaders = []string{"Authorization", "Dpop", "Cookie", "Host", "Origin", "X-Forwarded-For"}

// clientMethods are the authentication methods that a document may name here.
func (c *Config) clientMethods() []string {
	out := []string{oauth.MethodNone, oauth.MethodPrivateKeyJWT}
	if c.Attestation.Enabled {
		out = append(out, oauth.MethodAttestation, oauth.MethodAttestationDPoP)
	}
	if c.MTLS.On() {
		out = append(out, oauth.MethodSelfSignedTLS)
	}
	return out
}

// proofs completes the configuration of client authentication.
func (s *Server) proofs(c clientauth.Config, master []byte) (clientauth.Config, error) {
	cfg := s.cfg
	c.Nonces = jose.NewNonces(web.DeriveKey(master, "nonces and challenges"), 0)
	c.RequireNonce = cfg.DPoP.RequireNonce
	if a := cfg.Attestation; a.Enabled {
		c.Attestation = &clientauth.Attestation{RequireChallenge: a.RequireChallenge, MaxAge: a.MaxAge}
		client, err := s.trusted()
		if err != nil {
			return c, err
		}
		for _, t := range a.Attesters {
			keys, err := issuers.New(issuers.Config{URL: t.JWKSURI, File: cfg.path(t.JWKSFile), HTTP: client, Now: s.opts.Now})
			if err != nil {
				return c, fmt.Errorf("attestation.attesters: %s: %w", t.Issuer, err)
			}
			c.Attestation.Attesters = append(c.Attestation.Attesters, clientauth.Attester{Issuer: t.Issuer, Clients: t.Clients, Keys: keys})
		}
	}
	if m := cfg.MTLS; m.On() {
		c.MTLS = &clientauth.MTLS{URL: m.URL, Certificate: func(r *http.Request) (*x509.Certificate, error) {
			return s.edge.Certificate(r, m.ClientCertificateHeader)
		}}
	}
	return c, nil
}

// describeProofs adds to the metadata what is about keys of clients (META-12,
// META-13, META-22).
func (s *Server) describeProofs(m *oauth.ServerMetadata) {
	m.DPoPSigningAlgs = jose.Accepted
	if a := s.cfg.Attestation; a.Enabled {
		m.AttestationSigningAlgs, m.AttestationPoPSigningAlgs = jose.Accepted, jose.Accepted
	}
	if s.challenges() {
		m.ChallengeEndpoint = s.edge.URL("/challenge")
	}
	mtls := s.cfg.MTLS
	if !mtls.On() {
		return
	}
	m.CertificateBoundTokens = true
	if mtls.URL == "" {
		return
	}
	m.MTLSEndpointAliases = map[string]string{}
	for name, at := range map[string]string{
		"token_endpoint": m.TokenEndpoint, "revocation_endpoint": m.RevocationEndpoint, "introspection_endpoint": m.IntrospectionEndpoint,
		"pushed_authorization_request_endpoint": m.PushedRequestEndpoint, "device_authorization_endpoint": m.DeviceEndpoint,
		"userinfo_endpoint": m.UserinfoEndpoint,
	} {
		if u, err := url.Parse(at); err == nil && at != "" {
			m.MTLSEndpointAliases[name] = mtls.URL + u.EscapedPath()
		}
	}
}

// challenges reports whether POST /challenge has something to give that is asked
// for: a client that is told of it has to use it.
func (s *Server) challenges() bool {
	return s.cfg.DPoP.RequireNonce || s.cfg.Attestation.Enabled && s.cfg.Attestation.RequireChallenge
}

// askForCertificates makes the TLS listener ask, where that is wanted. It takes
// any certificate, because only its key counts.
func (c *Config) askForCertificates(t *tls.Config) {
	switch {
	case !c.MTLS.Request:
	case c.MTLS.URL == "":
		t.ClientAuth = tls.RequestClientCert
	default:
		host := strings.TrimPrefix(c.MTLS.URL, "https://")
		if i := strings.LastIndexByte(host, ':'); i >= 0 {
			host = host[:i]
		}
		asking := t.Clone()
		asking.ClientAuth = tls.RequestClientCert
		t.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if strings.EqualFold(h.ServerName, host) {
				return asking, nil
			}
			return nil, nil
		}
	}
}
