package oauth

import (
	"errors"
	"net/url"
	"strings"
)

// ServerMetadata is the document of RFC 8414, with the members of OpenID
// Connect Discovery beside them. A nil pointer or empty list is left out.
type ServerMetadata struct {
	Issuer                        string   `json:"issuer"`
	AuthorizationEndpoint         string   `json:"authorization_endpoint"`
	TokenEndpoint                 string   `json:"token_endpoint"`
	JWKSURI                       string   `json:"jwks_uri"`
	RegistrationEndpoint          string   `json:"registration_endpoint,omitempty"`
	DeviceEndpoint                string   `json:"device_authorization_endpoint,omitempty"` // RFC 8628 section 4
	RevocationEndpoint            string   `json:"revocation_endpoint,omitempty"`
	IntrospectionEndpoint         string   `json:"introspection_endpoint,omitempty"`
	ScopesSupported               []string `json:"scopes_supported,omitempty"`
	ResponseTypesSupported        []string `json:"response_types_supported"`
	ResponseModesSupported        []string `json:"response_modes_supported,omitempty"`
	GrantTypesSupported           []string `json:"grant_types_supported,omitempty"`
	GrantProfiles                 []string `json:"authorization_grant_profiles_supported,omitempty"` // ID-JAG
	TokenAuthMethods              []string `json:"token_endpoint_auth_methods_supported,omitempty"`
	TokenAuthSigningAlgs          []string `json:"token_endpoint_auth_signing_alg_values_supported,omitempty"`
	RevocationAuthMethods         []string `json:"revocation_endpoint_auth_methods_supported,omitempty"`
	RevocationAuthSigningAlgs     []string `json:"revocation_endpoint_auth_signing_alg_values_supported,omitempty"`
	IntrospectionAuthMethods      []string `json:"introspection_endpoint_auth_methods_supported,omitempty"`
	IntrospectionSigningAlgs      []string `json:"introspection_signing_alg_values_supported,omitempty"` // RFC 9701
	CodeChallengeMethodsSupported []string `json:"code_challenge_methods_supported,omitempty"`
	ClientIDMetadataDocument      bool     `json:"client_id_metadata_document_supported"`
	IssParameterSupported         bool     `json:"authorization_response_iss_parameter_supported"`
	RequestParameterSupported     bool     `json:"request_parameter_supported"`
	RequestURIParameterSupported  bool     `json:"request_uri_parameter_supported"`
	RequestObjectSigningAlgs      []string `json:"request_object_signing_alg_values_supported,omitempty"` // RFC 9101
	PushedRequestEndpoint         string   `json:"pushed_authorization_request_endpoint,omitempty"`       // RFC 9126
	RequirePushed                 bool     `json:"require_pushed_authorization_requests,omitempty"`
	DetailTypes                   []string `json:"authorization_details_types_supported,omitempty"` // RFC 9396
	ProtectedResources            []string `json:"protected_resources,omitempty"`
	ACRValuesSupported            []string `json:"acr_values_supported,omitempty"`
	UILocalesSupported            []string `json:"ui_locales_supported,omitempty"`
	ServiceDocumentation          string   `json:"service_documentation,omitempty"`

	// Keys and certificates of clients: RFC 9449 section 5.1, attestation-based
	// client authentication, RFC 8705 sections 3.3 and 5.
	DPoPSigningAlgs           []string          `json:"dpop_signing_alg_values_supported,omitempty"`
	AttestationSigningAlgs    []string          `json:"client_attestation_signing_alg_values_supported,omitempty"`
	AttestationPoPSigningAlgs []string          `json:"client_attestation_pop_signing_alg_values_supported,omitempty"`
	ChallengeEndpoint         string            `json:"challenge_endpoint,omitempty"`
	CertificateBoundTokens    bool              `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	MTLSEndpointAliases       map[string]string `json:"mtls_endpoint_aliases,omitempty"`

	// OpenID Connect Discovery 1.0 section 3; sent in both documents.
	SubjectTypesSupported  []string `json:"subject_types_supported,omitempty"`
	IDTokenSigningAlgs     []string `json:"id_token_signing_alg_values_supported,omitempty"`
	ClaimsSupported        []string `json:"claims_supported,omitempty"`
	PromptValuesSupported  []string `json:"prompt_values_supported,omitempty"`
	ClaimsParameterSupport bool     `json:"claims_parameter_supported"`
	UserinfoEndpoint       string   `json:"userinfo_endpoint,omitempty"`
	EndSessionEndpoint     string   `json:"end_session_endpoint,omitempty"`         // RP-Initiated Logout
	BackchannelLogout      bool     `json:"backchannel_logout_supported,omitempty"` // Back-Channel Logout
	BackchannelLogoutSID   bool     `json:"backchannel_logout_session_supported,omitempty"`
}

// ResourceMetadata is the document of RFC 9728 section 2. Empty lists are left
// out (RS-04).
type ResourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers,omitempty"`
	ScopesSupported      []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported,omitempty"`
	ResourceName         string   `json:"resource_name,omitempty"`
	ResourceDocs         string   `json:"resource_documentation,omitempty"`
	ResourcePolicyURI    string   `json:"resource_policy_uri,omitempty"`
	DPoPSigningAlgs      []string `json:"dpop_signing_alg_values_supported,omitempty"`
	DPoPRequired         bool     `json:"dpop_bound_access_tokens_required,omitempty"`
}

// ServerMetadataURLs returns the places where the metadata of an issuer may
// stand, in the order in which an MCP client tries them: three for an issuer
// with a path, two for one without (META-02, CLI-03).
func ServerMetadataURLs(issuer string) ([]string, error) {
	base, path, err := splitOrigin(issuer)
	if err != nil {
		return nil, err
	}
	if path == "" {
		return []string{
			base + "/.well-known/oauth-authorization-server",
			base + "/.well-known/openid-configuration",
		}, nil
	}
	return []string{
		base + "/.well-known/oauth-authorization-server" + path,
		base + "/.well-known/openid-configuration" + path,
		base + path + "/.well-known/openid-configuration",
	}, nil
}

// ResourceMetadataURL returns the URL of a resource's RFC 9728 document: the
// well-known part goes between the host and the path (RFC 9728 section 3.1), and
// a query stays where it is.
func ResourceMetadataURL(resource string) (string, error) {
	u, err := url.Parse(resource)
	if err != nil || u.Host == "" || u.Fragment != "" || u.User != nil {
		return "", errors.New("a resource identifier is an absolute URL without fragment and user information")
	}
	base, path, err := splitOrigin(resource)
	if err != nil {
		return "", err
	}
	query := ""
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path, query = strings.TrimSuffix(path[:i], "/"), path[i:]
	}
	return base + "/.well-known/oauth-protected-resource" + path + query, nil
}

// splitOrigin takes an absolute http(s) URL apart as raw text: scheme and
// authority, and the rest without a trailing slash.
func splitOrigin(raw string) (origin, path string, err error) {
	scheme, after, ok := strings.Cut(raw, "://")
	if !ok || (scheme != "https" && scheme != "http") || after == "" {
		return "", "", errors.New("not an absolute http or https URL")
	}
	i := strings.IndexAny(after, "/?#")
	if i < 0 {
		return raw, "", nil
	}
	if i == 0 {
		return "", "", errors.New("the URL has no host")
	}
	return scheme + "://" + after[:i], strings.TrimSuffix(after[i:], "/"), nil
}
