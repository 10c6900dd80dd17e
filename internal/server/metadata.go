package server

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/register"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// metadataLife is how long others may keep the metadata. It is short, so that
// switching documents off is soon advertised (META-05).
const metadataLife = time.Minute

// metadata describes what this server does today, for RFC 8414 and OpenID
// discovery alike. Only what works is listed.
func (s *Server) metadata() *oauth.ServerMetadata {
	at := s.edge.URL
	set := s.directory.Policy()
	methods := append(s.cfg.clientMethods(), oauth.MethodSecretBasic, oauth.MethodSecretPost)
	m := &oauth.ServerMetadata{
		Issuer:                s.cfg.Issuer,
		AuthorizationEndpoint: at("/authorize"),
		TokenEndpoint:         at("/token"),
		JWKSURI:               at("/jwks"),
		RevocationEndpoint:    at("/revoke"),

		ScopesSupported:               scopeNames(set),
		ResponseTypesSupported:        []string{"code"},
		ResponseModesSupported:        []string{"query"},
		GrantTypesSupported:           s.token.GrantTypes(),
		TokenAuthMethods:              methods, // none first: some clients take the first (META-06)
		TokenAuthSigningAlgs:          jose.Accepted,
		RevocationAuthMethods:         methods,
		RevocationAuthSigningAlgs:     jose.Accepted,
		CodeChallengeMethodsSupported: []string{"S256"},
		ClientIDMetadataDocument:      s.directory.Enabled(),
		IssParameterSupported:         true,
		PromptValuesSupported:         []string{"none", "login", "consent", "select_account"},
		ACRValuesSupported:            s.login.ACRs(),

		SubjectTypesSupported: []string{"public"},
		IDTokenSigningAlgs:    []string{s.cfg.Tokens.SigningAlg},
		ClaimsSupported:       []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash", "sid", "preferred_username", "email"},
		UserinfoEndpoint:      at("/userinfo"),
		EndSessionEndpoint:    at("/logout"),
		BackchannelLogout:     true,
		BackchannelLogoutSID:  true,
	}
	m.PushedRequestEndpoint, m.RequirePushed = at("/par"), s.cfg.PAR.Required
	m.RequestParameterSupported, m.RequestObjectSigningAlgs = true, jose.Accepted
	m.DetailTypes = set.DetailTypes()
	for _, r := range set.Resources {
		m.ProtectedResources = append(m.ProtectedResources, r.ID)
		if r.IntrospectionSecret != "" && m.IntrospectionEndpoint == "" {
			m.IntrospectionEndpoint = at("/introspect")
			m.IntrospectionAuthMethods = []string{oauth.MethodSecretBasic}
			m.IntrospectionSigningAlgs = s.keys.Algorithms()
		}
	}
	if s.register != nil {
		m.RegistrationEndpoint = at(register.Path)
	}
	if s.cfg.Device.Enabled {
		m.DeviceEndpoint = at("/device_authorization")
	}
	if len(s.cfg.IDJAG.Issuers) > 0 { // whom it trusts is not said (META-14)
		m.GrantProfiles = []string{oauth.ProfileIDJAG}
	}
	s.describeProofs(m) // last, because endpoints have aliases
	return m
}

// scopeNames lists the scopes of all resources, with openid first. There is no
// offline_access: asking for it changes nothing here (META-16).
func scopeNames(set *policy.Set) []string {
	out := oauth.Scopes{oauth.ScopeOpenID}
	for _, r := range set.Resources {
		out = out.Or(r.ScopeNames())
	}
	return out
}

func (s *Server) serveMetadata(w http.ResponseWriter, _ *http.Request) error {
	cacheable(w, metadataLife)
	return web.WriteJSON(w, http.StatusOK, s.metadata())
}

func (s *Server) serveJWKS(w http.ResponseWriter, _ *http.Request) error {
	cacheable(w, s.keys.CacheFor())
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_, err := w.Write(s.keys.JWKS())
	return err
}

func cacheable(w http.ResponseWriter, life time.Duration) {
	w.Header().Set("Cache-Control", "public, max-age="+itoa(int(life/time.Second)))
}

// metadataPaths returns the request paths under which a client may look for our
// metadata: path insertion for both documents, and the appended forms that
// OpenID Connect Discovery and some clients use (META-02).
func metadataPaths(issuer string) []string {
	u, err := url.Parse(issuer)
	if err != nil {
		return nil
	}
	p := strings.TrimSuffix(u.Path, "/")
	out := []string{"/.well-known/oauth-authorization-server" + p, "/.well-known/openid-configuration" + p}
	if p != "" {
		out = append(out, p+"/.well-known/openid-configuration", p+"/.well-known/oauth-authorization-server")
	}
	return out
}
