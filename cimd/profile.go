package cimd

import (
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// Profile names the text whose rules decide where the drafts differ. The empty
// profile is ProfileMCP.
type Profile string

// The profiles.
const (
	// ProfileMCP is what MCP clients and servers do: client_name is expected, and
	// the authentication rules are those of the newest draft.
	ProfileMCP Profile = "mcp"
	// ProfileCIMD02 is draft-ietf-oauth-client-id-metadata-document-02.
	ProfileCIMD02 Profile = "cimd-02"
	// ProfileCIMD03 is draft -03, which has a client authentication section.
	ProfileCIMD03 Profile = "cimd-03"
)

// profileRules is everything that a profile decides; all other rules hold in
// each of them.
type profileRules struct {
	// nameExpected: a missing client_name is worth a warning. It is never an
	// error, because published clients leave it out (DOC-12).
	nameExpected bool
	// methodList: token_endpoint_auth_methods_supported is negotiated, and the
	// singular member must be in it (DOC-15, DOC-16). Otherwise the singular
	// member decides where it is present.
	methodList bool
	// statementBound: the bans on secrets also hold for the claims of an embedded
	// software_statement (DOC-06).
	statementBound bool
	// defaultMethod is used when neither authentication member is present. The
	// default of RFC 7591, client_secret_basic, can never be meant (DOC-13).
	defaultMethod string
}

var profiles = map[Profile]profileRules{
	ProfileMCP:    {nameExpected: true, methodList: true, statementBound: true, defaultMethod: oauth.MethodNone},
	ProfileCIMD02: {nameExpected: false, methodList: false, statementBound: false, defaultMethod: oauth.MethodNone},
	ProfileCIMD03: {nameExpected: false, methodList: true, statementBound: true, defaultMethod: oauth.MethodNone},
}

// rules returns what the profile decides, and false if it is not a profile.
func (p Profile) rules() (profileRules, bool) {
	if p == "" {
		p = ProfileMCP
	}
	r, ok := profiles[p]
	return r, ok
}

// Valid reports whether p is one of the profiles above or empty.
func (p Profile) Valid() bool {
	_, ok := p.rules()
	return ok
}

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

var (
	defaultGrants    = []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken}
	defaultResponses = []string{responseCode}
	defaultMethods   = []string{oauth.MethodPrivateKeyJWT, oauth.MethodNone}
)

const responseCode = "code"

func (s Supported) withDefaults() Supported {
	if s.GrantTypes == nil {
		s.GrantTypes = defaultGrants
	}
	if s.ResponseTypes == nil {
		s.ResponseTypes = defaultResponses
	}
	if s.AuthMethods == nil {
		s.AuthMethods = defaultMethods
	}
	if s.SigningAlgs == nil {
		s.SigningAlgs = jose.Algorithms
	}
	return s
}
