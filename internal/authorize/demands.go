package authorize

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// checkDemands holds the client to what its own document says about it: a weaker
// request in its name is not from it (DOC-30). What the token endpoint has to
// see, such as a DPoP proof, is checked there.
func checkDemands(a *attempt) *oauth.Error {
	doc := a.client.Doc
	switch {
	case doc == nil:
	case doc.RequireSignedRequest && !a.req.Signed && a.at != atDevice:
		return oauth.Refuse(oauth.InvalidRequest, "the client's document sets require_signed_request_object, and the request is not signed").Under("DOC-30")
	case doc.MTLSBound && !a.rules.certificates:
		return oauth.Refuse(oauth.UnauthorizedClient, "the client's document sets tls_client_certificate_bound_access_tokens, which this server does not offer").Under("DOC-30")
	}
	return nil
}

// checkPushed refuses a request that stands in the address of the browser where
// it has to be pushed before (PAR-08).
func checkPushed(a *attempt) *oauth.Error {
	const how = "send the request to the pushed_authorization_request_endpoint first"
	switch {
	case a.unproven && !(slices.Contains(a.client.AuthMethods, oauth.MethodNone) && a.client.Decision.MayAuthenticate(oauth.MethodNone)):
		return oauth.Refuse(oauth.InvalidRequest, "the request was pushed without client authentication, which the client's document or a policy asks for").Under("PAR-01")
	case a.pushed:
		return nil
	case a.rules.requirePAR:
		return oauth.Refuse(oauth.InvalidRequest, "this server takes pushed authorization requests only; %s", how).Under("PAR-08")
	case a.client.Decision.RequirePAR:
		return oauth.Refuse(oauth.InvalidRequest, "policy rule %q takes pushed authorization requests only; %s", a.client.Decision.Rule, how).Under("PAR-08")
	case a.client.Doc != nil && a.client.Doc.RequirePAR:
		return oauth.Refuse(oauth.InvalidRequest, "the client's document sets require_pushed_authorization_requests; %s", how).Under("PAR-08")
	}
	return nil
}

// checkForeign refuses a request_uri that is not one of ours. Nothing is ever
// fetched from it (AUTHZ-25).
func checkForeign(a *attempt) *oauth.Error {
	if a.req.Foreign == "" {
		return nil
	}
	return oauth.Refuse(oauth.RequestURINotSupported, "a request_uri from elsewhere is never fetched; push the request to this server, or send it in the parameter request").Under("AUTHZ-25")
}

// checkJKT checks the form of dpop_jkt: the SHA-256 thumbprint of a key, which
// redeeming the code then takes a proof of (RFC 9449 section 10).
func checkJKT(a *attempt) *oauth.Error {
	if a.req.JKT == "" || thumbprint(a.req.JKT) {
		return nil
	}
	return oauth.Refuse(oauth.InvalidRequest, "dpop_jkt must be the 43 characters of a base64url SHA-256").Under("AUTHZ-28")
}

func thumbprint(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 32 && len(s) == 43
}

// checkHint refuses an id_token_hint that cannot be an ID token of anybody. Whose
// it is, is looked at once the request is in order; see takeHint.
func checkHint(a *attempt) *oauth.Error {
	if a.req.Hint == "" {
		return nil
	}
	if _, err := jose.Parse(a.req.Hint, 0); err != nil {
		return oauth.Refuse(oauth.InvalidRequest, "id_token_hint is not an ID token").Under("AUTHZ-23")
	}
	return nil
}

// checkDetails reads authorization_details for the resource (AUTHZ-26).
func checkDetails(a *attempt) *oauth.Error {
	if a.req.Details == "" {
		return nil
	}
	d, err := a.policy.ReadDetails(a.resource, a.req.Details)
	if err != nil {
		return oauth.Refuse(oauth.InvalidDetails, "%s", err.Error()).Under("AUTHZ-26")
	}
	for _, e := range d.Entries {
		if s := e.Type.Scope; s != "" && !a.resource.Expand(a.scopes).Has(s) {
			return oauth.Refuse(oauth.InvalidDetails, "authorization_details of the type %s go with the scope %s", e.Type.Type, s).Under("AUTHZ-26")
		}
	}
	a.details = d
	return nil
}

// checkFAPI holds a client to the FAPI 2.0 security profile where the policy
// says so (POL-09). The rest of the profile is how this server is anyway: S256,
// iss in every answer, one audience, exact redirect URIs; and that the request
// was pushed is in checkPushed, and that tokens are bound is the token
// endpoint's.
func checkFAPI(a *attempt) *oauth.Error {
	d := a.client.Decision
	if !d.FAPI {
		return nil
	}
	if a.at == atDevice {
		return oauth.Refuse(oauth.UnauthorizedClient, "policy rule %q holds the client to FAPI 2.0, which has no device flow", d.Rule).Under("POL-09")
	}
	if !slices.ContainsFunc(a.client.AuthMethods, d.MayAuthenticate) {
		return oauth.Refuse(oauth.UnauthorizedClient, "policy rule %q holds the client to FAPI 2.0, and it cannot prove itself with a key or a certificate", d.Rule).Under("POL-09")
	}
	if a.req.RedirectURI == "" {
		return oauth.Refuse(oauth.InvalidRequest, "policy rule %q holds the client to FAPI 2.0, where a pushed request names its redirect_uri", d.Rule).Under("POL-09")
	}
	if strings.HasPrefix(a.redirect, "http:") {
		return oauth.Refuse(oauth.InvalidRequest, "policy rule %q holds the client to FAPI 2.0, which leaves no http redirects, not even to the person's own computer", d.Rule).Under("POL-09")
	}
	return nil
}
