package cimd

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/bonafide-id/bonafide/oauth"
)

// Document is a valid Client ID Metadata Document, reduced to what a server
// uses. It is shared between goroutines and must not be changed.
type Document struct {
	ID    ID
	Name  string            // cleaned client_name; "" if absent or unusable: show the host
	Names map[string]string // cleaned client_name by language tag, lower-cased; nil if none

	RedirectURIs  []string // exactly as written
	GrantTypes    []string // those the server supports, in the document's order
	ResponseTypes []string // those the server supports, in the document's order
	AuthMethods   []string // usable ones, the strongest first and none last; empty: answer unauthorized_client (DOC-17)

	SigningAlg string          // token_endpoint_auth_signing_alg, or "" for any supported one
	JWKS       json.RawMessage // inline key set: public keys only, validated; nil if absent
	JWKSURI    string

	Scope           string // upper bound of scopes; see HasScope
	HasScope        bool   // false: the document sets no bound, the server's default applies (DOC-28)
	ApplicationType string // "web" or "native", inferred when absent (DOC-24)

	ClientURI, LogoURI, PolicyURI, TOSURI string // absolute https URLs, or "" (DOC-26)

	RequirePAR             bool   // require_pushed_authorization_requests
	RequireSignedRequest   bool   // require_signed_request_object
	RequestObjectAlg       string // request_object_signing_alg, or "" for any supported one
	DPoPBound              bool   // dpop_bound_access_tokens
	MTLSBound              bool   // tls_client_certificate_bound_access_tokens
	RequireAuthTime        bool   // require_auth_time
	DefaultMaxAge          int    // default_max_age in seconds; -1 if absent
	IDTokenAlg             string
	BackchannelLogoutURI   string
	PostLogoutRedirectURIs []string

	Warnings       []Warning
	Raw            []byte // the document as fetched
	Digest         string // base64url SHA-256 of Raw
	SecurityDigest string // changes when a fact changes that a person consented to, see securityDigest

	Fetched   time.Time // when this representation was received with status 200
	Checked   time.Time // when the host last confirmed it (200 or 304)
	Freshness Freshness
	Stale     bool // the last known good copy, used because the host cannot be reached
}

// LoopbackOnly reports whether every redirect URI leads to the user's own
// computer, where no host name protects against another program.
func (d *Document) LoopbackOnly() bool {
	for _, uri := range d.RedirectURIs {
		if !oauth.LoopbackRedirect(uri) {
			return false
		}
	}
	return len(d.RedirectURIs) > 0
}

// ForeignHosts returns the hosts of all redirect URIs and of client_uri that are
// neither the host of the client_id nor the user's own computer, sorted and in
// lower case. With sameSite, hosts under the same registrable domain count as
// one's own; two names on a shared host such as github.io never do. Whether a
// foreign host matters is the operator's policy: published clients have them
// (DOC-25).
func (d *Document) ForeignHosts(sameSite bool) []string {
	own := strings.ToLower(d.ID.Host())
	var out []string
	for _, uri := range append(slices.Clone(d.RedirectURIs), d.ClientURI) {
		if uri == "" || oauth.LoopbackRedirect(uri) {
			continue
		}
		host := RedirectHost(uri)
		if host == own || sameSite && site(host) == site(own) {
			continue
		}
		out = append(out, host)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// site returns the registrable domain of a host, or the host itself if it has none.
func site(host string) string {
	if s, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return s
	}
	return host
}
