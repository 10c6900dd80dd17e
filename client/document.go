package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// MaxDocument is the size that every authorization server reads, in bytes.
const MaxDocument = 5 << 10

// Document is a Client ID Metadata Document: what a client publishes at its
// client_id. There is no place in it for a secret.
type Document struct {
	ClientID        string          `json:"client_id"`
	ClientName      string          `json:"client_name,omitempty"`
	ClientURI       string          `json:"client_uri,omitempty"`
	LogoURI         string          `json:"logo_uri,omitempty"`
	PolicyURI       string          `json:"policy_uri,omitempty"`
	TOSURI          string          `json:"tos_uri,omitempty"`
	ApplicationType string          `json:"application_type,omitempty"` // "native" or "web"
	RedirectURIs    []string        `json:"redirect_uris,omitempty"`
	GrantTypes      []string        `json:"grant_types,omitempty"`
	ResponseTypes   []string        `json:"response_types,omitempty"`
	Scope           string          `json:"scope,omitempty"`
	AuthMethod      string          `json:"token_endpoint_auth_method,omitempty"`
	AuthMethods     []string        `json:"token_endpoint_auth_methods_supported,omitempty"`
	SigningAlg      string          `json:"token_endpoint_auth_signing_alg,omitempty"`
	JWKSURI         string          `json:"jwks_uri,omitempty"`
	JWKS            json.RawMessage `json:"jwks,omitempty"`
	DPoPBound       bool            `json:"dpop_bound_access_tokens,omitempty"` // servers then refuse token requests without a proof
	Contacts        []string        `json:"contacts,omitempty"`
	SoftwareID      string          `json:"software_id,omitempty"`
	SoftwareVersion string          `json:"software_version,omitempty"`
}

// Document returns the document that fits the client's configuration: publish it
// at Config.ID, after adding names and pages. The client itself never reads it
// back.
func (c *Client) Document(name string) Document {
	d := Document{
		ClientID:        c.cfg.ID,
		ClientName:      name,
		ApplicationType: "native",
		AuthMethod:      c.cfg.Methods[0],
		DPoPBound:       c.cfg.DPoP == DPoPAlways,
	}
	switch {
	case c.cfg.Alone:
		d.GrantTypes = []string{oauth.GrantClientCredentials}
	case c.cfg.Device != nil:
		d.GrantTypes = []string{oauth.GrantDeviceCode, oauth.GrantRefreshToken}
	default:
		d.RedirectURIs = []string{c.cfg.Redirect}
		d.GrantTypes = []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken}
		d.ResponseTypes = []string{"code"}
	}
	if len(c.cfg.Methods) > 1 {
		d.AuthMethods = c.cfg.Methods
	}
	if slices.Contains(c.cfg.Methods, oauth.MethodPrivateKeyJWT) {
		d.AuthMethod, d.SigningAlg = oauth.MethodPrivateKeyJWT, c.cfg.Key.Algorithm()
	}
	if !c.cfg.Key.IsZero() && !slices.Equal(c.cfg.Methods, []string{oauth.MethodNone}) {
		d.JWKS, _ = PublicKeys(c.cfg.Key)
	}
	return d
}

// Publish returns the document as it goes on a web server, with content type
// application/json, after checking what authorization servers will check.
func (d Document) Publish() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("publish client document: %w", err)
	}
	raw, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("publish client document: %w", err)
	}
	if len(raw) > MaxDocument {
		return nil, fmt.Errorf("publish client document: %d bytes are more than the %d that servers read", len(raw), MaxDocument)
	}
	return append(raw, '\n'), nil
}

func (d Document) check() error {
	if err := checkID(d.ClientID); err != nil {
		return err
	}
	if d.ClientName == "" {
		return errors.New("client_name is missing: people would see the host only")
	}
	for _, step := range []func() error{d.checkRedirects, d.checkMethods, d.checkKeys} {
		if err := step(); err != nil {
			return err
		}
	}
	for name, page := range map[string]string{"client_uri": d.ClientURI, "logo_uri": d.LogoURI, "policy_uri": d.PolicyURI, "tos_uri": d.TOSURI} {
		if page == "" {
			continue
		}
		if u, err := url.Parse(page); err != nil || u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("%s must be an https URL", name)
		}
	}
	if _, err := oauth.ParseScopes(d.Scope); err != nil {
		return fmt.Errorf("scope: %w", err)
	}
	return nil
}

func (d Document) checkRedirects() error {
	redirecting := len(d.GrantTypes) == 0 || slices.Contains(d.GrantTypes, oauth.GrantAuthorizationCode)
	if redirecting && len(d.RedirectURIs) == 0 {
		return errors.New("redirect_uris is missing")
	}
	for _, r := range d.RedirectURIs {
		u, err := url.Parse(r)
		switch {
		case err != nil || u.Host == "":
			return fmt.Errorf("redirect URI %q is not an absolute URL", r)
		case strings.ContainsAny(r, "#*"):
			return fmt.Errorf("redirect URI %q must be exact: no fragment, no wildcard (any port is good on a loopback address)", r)
		case u.Scheme != "https" && !oauth.LoopbackRedirect(r):
			return fmt.Errorf("redirect URI %q must be https, or http on a loopback address", r)
		case u.User != nil:
			return fmt.Errorf("redirect URI %q must not hold user information", r)
		}
	}
	return nil
}

func (d Document) checkMethods() error {
	for _, m := range append([]string{d.AuthMethod}, d.AuthMethods...) {
		switch m {
		case "", oauth.MethodNone, oauth.MethodPrivateKeyJWT, oauth.MethodAttestation, oauth.MethodAttestationDPoP:
		default:
			return fmt.Errorf("method %q: a client with a document has no secret; use %s or %s", m, oauth.MethodNone, oauth.MethodPrivateKeyJWT)
		}
	}
	return nil
}

func (d Document) checkKeys() error {
	needs := d.AuthMethod == oauth.MethodPrivateKeyJWT || slices.Contains(d.AuthMethods, oauth.MethodPrivateKeyJWT)
	switch {
	case needs && d.JWKSURI == "" && d.JWKS == nil:
		return errors.New("private_key_jwt needs jwks_uri or jwks")
	case d.JWKSURI != "" && d.JWKS != nil:
		return errors.New("jwks_uri and jwks exclude each other")
	case d.SigningAlg != "" && !slices.Contains(jose.Algorithms, d.SigningAlg):
		return fmt.Errorf("signing algorithm %q is not one of %s", d.SigningAlg, strings.Join(jose.Algorithms, ", "))
	}
	if d.JWKSURI != "" {
		if u, err := url.Parse(d.JWKSURI); err != nil || u.Scheme != "https" || u.Host == "" {
			return errors.New("jwks_uri must be an https URL")
		}
	}
	if d.JWKS == nil {
		return nil
	}
	set, err := jose.ParseSet(d.JWKS, jose.SetLimits{})
	if errors.Is(err, jose.ErrPrivateKey) {
		return errors.New("jwks holds a private key: publish the public half only, and retire this key")
	}
	if err != nil {
		return fmt.Errorf("jwks: %w", err)
	}
	if len(set.Keys) == 0 {
		return errors.New("jwks holds no usable key")
	}
	return nil
}
