// Package oauth holds the words of the protocol: error codes, parameter and
// metadata names, PKCE, scopes, redirect matching, well-known URLs and the
// WWW-Authenticate grammar. Everything here is a pure function or a value, and
// the package imports the standard library only, so that the server, the
// resource guard and the client agree on each word by construction.
package oauth

import (
	"errors"
	"fmt"
)

// Code is an error code of OAuth or one of its extensions, as sent on the wire.
type Code string

// The error codes that Bonafide sends. Each names the document that defines it.
const (
	InvalidRequest           Code = "invalid_request"               // RFC 6749
	InvalidClient            Code = "invalid_client"                // RFC 6749
	InvalidGrant             Code = "invalid_grant"                 // RFC 6749
	InvalidScope             Code = "invalid_scope"                 // RFC 6749
	UnauthorizedClient       Code = "unauthorized_client"           // RFC 6749
	UnsupportedGrantType     Code = "unsupported_grant_type"        // RFC 6749
	UnsupportedResponseType  Code = "unsupported_response_type"     // RFC 6749
	AccessDenied             Code = "access_denied"                 // RFC 6749
	ServerError              Code = "server_error"                  // RFC 6749
	TemporarilyUnavailable   Code = "temporarily_unavailable"       // RFC 6749
	InvalidTarget            Code = "invalid_target"                // RFC 8707
	UnsupportedTokenType     Code = "unsupported_token_type"        // RFC 7009
	InvalidToken             Code = "invalid_token"                 // RFC 6750
	InsufficientScope        Code = "insufficient_scope"            // RFC 6750
	LoginRequired            Code = "login_required"                // OpenID Connect Core
	ConsentRequired          Code = "consent_required"              // OpenID Connect Core
	InteractionRequired      Code = "interaction_required"          // OpenID Connect Core
	RequestNotSupported      Code = "request_not_supported"         // OpenID Connect Core
	RequestURINotSupported   Code = "request_uri_not_supported"     // OpenID Connect Core
	InvalidRequestURI        Code = "invalid_request_uri"           // OpenID Connect Core, RFC 9101
	InvalidRequestObject     Code = "invalid_request_object"        // OpenID Connect Core, RFC 9101
	InvalidDetails           Code = "invalid_authorization_details" // RFC 9396
	UnmetAuthenticationNeeds Code = "unmet_authentication_requirements"
	InvalidDPoPProof         Code = "invalid_dpop_proof"        // RFC 9449
	UseDPoPNonce             Code = "use_dpop_nonce"            // RFC 9449
	UseAttestationChallenge  Code = "use_attestation_challenge" // attestation-based client authentication
	UseFreshAttestation      Code = "use_fresh_attestation"     // attestation-based client authentication
)

// Error is a refusal: something the caller asked for and does not get. Code and
// Hint are shown to the caller; Err is the private cause and is only logged.
type Error struct {
	Code Code   // the OAuth error code
	Hint string // a sentence somebody can act on; never fetched bytes or inner addresses
	Rule string // the requirement row that failed, such as "FETCH-05"; may be empty
	Err  error  // private cause, for the log; may be nil
}

// Refuse returns a refusal with a code and a hint in the manner of fmt.Sprintf.
func Refuse(code Code, hint string, args ...any) *Error {
	if len(args) > 0 {
		hint = fmt.Sprintf(hint, args...)
	}
	return &Error{Code: code, Hint: hint}
}

// Because returns a copy of the refusal that carries a private cause.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// Under returns a copy of the refusal that names the requirement row it enforces.
func (e *Error) Under(rule string) *Error {
	c := *e
	c.Rule = rule
	return &c
}

// Error implements error. The text is for logs: it includes the private cause.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Hint
	if e.Rule != "" {
		s += " [" + e.Rule + "]"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError returns the refusal inside err. Anything that is not a refusal
// becomes server_error with err as its private cause, or temporarily_unavailable
// if it has a method Unavailable that says so: what stands behind the server is
// away, full or too slow.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var u interface{ Unavailable() bool }
	if errors.As(err, &u) && u.Unavailable() {
		return &Error{Code: TemporarilyUnavailable, Hint: "this server cannot do its work at the moment; try again in a little while", Err: err}
	}
	return &Error{Code: ServerError, Hint: "something went wrong on our side", Err: err}
}

// Grant types.
const (
	GrantAuthorizationCode = "authorization_code"
	GrantRefreshToken      = "refresh_token"
	GrantDeviceCode        = "urn:ietf:params:oauth:grant-type:device_code" // RFC 8628
)

// Client authentication methods (RFC 7591 and its registry).
const (
	MethodNone          = "none"
	MethodPrivateKeyJWT = "private_key_jwt"
	MethodSecretBasic   = "client_secret_basic"
	MethodSecretPost    = "client_secret_post"
	MethodSecretJWT     = "client_secret_jwt"

	MethodAttestation     = "attest_jwt_client_auth"      // attestation-based client authentication
	MethodAttestationDPoP = "attest_jwt_client_auth_dpop" // the same, with a DPoP proof for the proof of possession
	MethodSelfSignedTLS   = "self_signed_tls_client_auth" // RFC 8705 section 2.2
	MethodTLS             = "tls_client_auth"             // RFC 8705 section 2.1; not offered
)

// AssertionTypeJWT is the client_assertion_type of private_key_jwt (RFC 7523).
const AssertionTypeJWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// Media types of JSON Web Tokens, as they stand in the typ header.
const (
	TypAccessToken     = "at+jwt"                    // RFC 9068
	TypClientAssertion = "client-authentication+jwt" // RFC 7523bis
	TypRequestObject   = "oauth-authz-req+jwt"       // RFC 9101
	TypDPoP            = "dpop+jwt"                  // RFC 9449
	TypAttestation     = "oauth-client-attestation+jwt"
	TypAttestationPoP  = "oauth-client-attestation-pop+jwt"
	TypLogoutToken     = "logout+jwt" // OpenID Connect Back-Channel Logout
)

// ScopeOpenID and ScopeOfflineAccess are the two scopes with a meaning of their own.
const (
	ScopeOpenID        = "openid"
	ScopeOfflineAccess = "offline_access"
)
