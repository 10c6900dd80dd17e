package oauth

// Grant types without a code: the client acts for itself, or for a person whom
// another server vouches for.
const (
	GrantClientCredentials = "client_credentials"                              // OAuth 2.1 section 4.2
	GrantJWTBearer         = "urn:ietf:params:oauth:grant-type:jwt-bearer"     // RFC 7523
	GrantTokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange" // RFC 8693
)

// ProfileIDJAG names the identity assertion authorization grant in
// authorization_grant_profiles_supported.
const ProfileIDJAG = "urn:ietf:params:oauth:grant-profile:id-jag"

// TypIDJAG is the type of an identity assertion authorization grant.
const TypIDJAG = "oauth-id-jag+jwt"

// TokenTypeAccess is the token type of an access token in a token exchange (RFC
// 8693 section 3).
const TokenTypeAccess = "urn:ietf:params:oauth:token-type:access_token"

// The values of token_type in a token response.
const (
	TokenBearer = "Bearer" // RFC 6750; also of a token bound to a certificate
	TokenDPoP   = "DPoP"   // RFC 9449
)
