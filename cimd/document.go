package cimd

import (
	"encoding/json"
	"time"
)

// Supported is what the server can do. Capabilities of a document are
// intersected with it. A nil list means the default named beside it.
type Supported struct {
	GrantTypes    []string // authorization_code, refresh_token
	ResponseTypes []string // code
	AuthMethods   []string // private_key_jwt, none
	SigningAlgs   []string // ES256, PS256, RS256, EdDSA
	// PrivateUseSchemes accepts redirect URIs such as com.example.app:/cb, whose
	// scheme must contain a period (DOC-11). Off by default: any other program on
	// the computer may claim the same scheme.
	PrivateUseSchemes bool
}

// Document is a valid Client ID Metadata Document, reduced to what a server
// uses. It is shared between goroutines and must not be changed.
type Document struct {
	ID    ID
	Name  string            // cleaned client_name; "" if absent or unusable: show the host
	Names map[string]string // cleaned client_name by language tag, lower-cased; nil if none

	RedirectURIs  []string // exactly as written
	GrantTypes    []string // those the server supports, in the document's order
	ResponseTypes []string // those the server supports, in the document's order
	AuthMethods   []string // usable ones, private_key_jwt before none; empty: answer unauthorized_client (DOC-17)

	SigningAlg string          // token_endpoint_auth_signing_alg, or "" for any supported one
	JWKS       json.RawMessage // inline key set: public keys only, validated; nil if absent
	JWKSURI    string

	Scope           string // upper bound of scopes; see HasScope
	HasScope        bool   // false: the document sets no bound, the server's default applies
	ApplicationType string // "web" or "native", inferred when absent

	ClientURI, LogoURI, PolicyURI, TOSURI string // absolute https URLs, or ""

	RequirePAR             bool // require_pushed_authorization_requests
	RequireSignedRequest   bool // require_signed_request_object
	DPoPBound              bool // dpop_bound_access_tokens
	MTLSBound              bool // tls_client_certificate_bound_access_tokens
	RequireAuthTime        bool
	DefaultMaxAge          int // seconds; -1 if absent
	IDTokenAlg             string
	BackchannelLogoutURI   string
	PostLogoutRedirectURIs []string

	Warnings       []Warning
	Raw            []byte // the document as fetched
	Digest         string // base64url SHA-256 of Raw
	SecurityDigest string // changes when a fact changes that a person consented to

	Fetched   time.Time // when this representation was received with status 200
	Checked   time.Time // when the host last confirmed it (200 or 304)
	Freshness Freshness
	Stale     bool // the last known good copy, used because the host cannot be reached
}

// LoopbackOnly reports whether every redirect URI leads to the user's own
// computer, where no host name protects against another program.
func (d *Document) LoopbackOnly() bool { return false }

// Validate reads a fetched document and returns it if it is valid for id under a
// profile. An error is a *Error with KindDocument, KindMismatch or KindTooLarge
// that names the first broken rule.
func Validate(id ID, body []byte, p Profile, s Supported) (*Document, error) {
	return nil, &Error{Kind: KindDocument, Hint: "not written yet"}
}
