package register

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/oauth"

	"github.com/bonafide-id/bonafide/internal/web"
)

// The error codes of RFC 7591 section 3.2.2.
const (
	invalidRedirect     oauth.Code = "invalid_redirect_uri"
	invalidMetadata     oauth.Code = "invalid_client_metadata"
	unapprovedStatement oauth.Code = "unapproved_software_statement"
	typeWeb                        = "web"
	typeNative                     = "native"
	maxBody                        = 32 << 10
	maxRedirects                   = 20
	maxText                        = 512 // of what is kept for the operator's eyes
	maxContacts                    = 10
	defaultMethod                  = oauth.MethodSecretBasic // RFC 7591 section 2
	responseCode                   = "code"
)

// Grants are the grant types that a client can register for itself. The others
// are for clients that an operator named.
var Grants = []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken}

var methods = []string{oauth.MethodNone, oauth.MethodPrivateKeyJWT, oauth.MethodSecretBasic, oauth.MethodSecretPost}

// metadata is what a client is registered with. What it said beyond this is not
// kept and does not stand in the answer (RFC 7591 section 2: not understood).
type metadata struct {
	Name            string          `json:"client_name,omitempty"`
	URI             string          `json:"client_uri,omitempty"`
	Contacts        []string        `json:"contacts,omitempty"`
	SoftwareID      string          `json:"software_id,omitempty"`
	SoftwareVersion string          `json:"software_version,omitempty"`
	ApplicationType string          `json:"application_type"`
	RedirectURIs    []string        `json:"redirect_uris"`
	GrantTypes      []string        `json:"grant_types"`
	ResponseTypes   []string        `json:"response_types"`
	AuthMethod      string          `json:"token_endpoint_auth_method"`
	Scope           string          `json:"scope,omitempty"`
	JWKS            json.RawMessage `json:"jwks,omitempty"`
	directory.Declared
}

// readBody reads the one JSON object that a registration is: no member twice, no
// more than 32 KiB.
func readBody(r *http.Request) (map[string]json.RawMessage, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" || r.Header.Get("Content-Encoding") != "" || len(r.Header.Values("Content-Type")) != 1 {
		return nil, web.Refuse(http.StatusUnsupportedMediaType, oauth.Refuse(oauth.InvalidRequest, "the body must be application/json, without a content coding").Under("DCR-02"))
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if len(body) > maxBody {
		return nil, web.Refuse(http.StatusRequestEntityTooLarge, oauth.Refuse(oauth.InvalidRequest, "the body is larger than %d bytes", maxBody).Under("DCR-01"))
	}
	if err != nil {
		return nil, oauth.Refuse(oauth.InvalidRequest, "the body ended early").Because(err)
	}
	said, err := jose.Object(body)
	if err != nil {
		return nil, oauth.Refuse(invalidMetadata, "the body is not one strict JSON object: %s", err).Under("DCR-02")
	}
	for name, v := range said {
		if string(v) == "null" { // means that the client has no value (RFC 7591 section 2)
			delete(said, name)
		}
	}
	return said, nil
}

// reading is one registration on its way to its metadata; the first thing that is
// wrong is kept.
type reading struct {
	said map[string]json.RawMessage
	m    metadata
	err  *oauth.Error
}

func (r *reading) fail(code oauth.Code, rule, format string, args ...any) {
	if r.err == nil {
		r.err = oauth.Refuse(code, format, args...).Under(rule)
	}
}

// text returns a member that is a text, or other where it is absent.
func (r *reading) text(name, other string) string {
	raw, ok := r.said[name]
	if !ok {
		return other
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		r.fail(invalidMetadata, "DCR-02", "%s must be a text", name)
	}
	return s
}

func (r *reading) flag(name string) (b bool) {
	if raw, ok := r.said[name]; ok && json.Unmarshal(raw, &b) != nil {
		r.fail(invalidMetadata, "DCR-02", "%s must be true or false", name)
	}
	return b
}

// examine turns what a client says into what it is registered with, or says what
// is wrong.
func (h *Handler) examine(said map[string]json.RawMessage, dec policy.Decision, set *policy.Set) (*metadata, error) {
	r := &reading{said: said}
	r.refused(h.IDTokenAlg)
	r.methods(dec)
	r.documented(dec)
	r.applicationType(h.ApplicationType)
	r.scope(dec, set)
	r.forPeople()
	r.m.DPoPBound, r.m.RequirePAR = r.flag("dpop_bound_access_tokens"), r.flag("require_pushed_authorization_requests")
	if r.err != nil {
		return nil, r.err
	}
	return &r.m, nil
}

// refused ends with what would be unsafe or untrue to leave out in silence:
// demands that are not met here, and what claims to vouch for the client.
func (r *reading) refused(idTokenAlg string) {
	if r.said["software_statement"] != nil {
		r.fail(unapprovedStatement, "DCR-02", "no issuer of software statements is trusted here; leave software_statement out")
	}
	for _, name := range []string{"client_id", "client_secret", "client_secret_expires_at", "client_id_issued_at", "registration_access_token", "registration_client_uri"} {
		if r.said[name] != nil {
			r.fail(invalidMetadata, "DCR-02", "%s is for this server to give; leave it out", name)
		}
	}
	if r.said["jwks_uri"] != nil {
		r.fail(invalidMetadata, "DCR-02", "jwks_uri is not followed for a client that registers itself; send the keys in jwks")
	}
	for _, name := range []string{"require_signed_request_object", "tls_client_certificate_bound_access_tokens"} {
		if r.flag(name) {
			r.fail(invalidMetadata, "DCR-02", "%s cannot be kept for a client that registers itself; a client with a document has it", name)
		}
	}
	if s := r.text("subject_type", "public"); s != "public" {
		r.fail(invalidMetadata, "DCR-02", "subject_type must be public")
	}
	if alg := r.text("id_token_signed_response_alg", idTokenAlg); alg != idTokenAlg {
		r.fail(invalidMetadata, "DCR-02", "id_token_signed_response_alg must be %s", idTokenAlg)
	}
	for _, name := range []string{"id_token_encrypted_response_alg", "userinfo_encrypted_response_alg", "userinfo_signed_response_alg", "request_object_encryption_alg", "sector_identifier_uri"} {
		if r.said[name] != nil {
			r.fail(invalidMetadata, "DCR-02", "%s is not supported here; leave it out", name)
		}
	}
}

// methods reads how the client will authenticate.
func (r *reading) methods(dec policy.Decision) {
	m := r.text("token_endpoint_auth_method", defaultMethod)
	switch {
	case !slices.Contains(methods, m):
		r.fail(invalidMetadata, "DCR-02", "token_endpoint_auth_method must be one of %s", strings.Join(methods, ", "))
	case !dec.MayAuthenticate(m):
		r.fail(invalidMetadata, "POL-03", "the policy of this server does not accept token_endpoint_auth_method %s", m)
	case m == oauth.MethodPrivateKeyJWT && r.said["jwks"] == nil:
		r.fail(invalidMetadata, "DCR-02", "private_key_jwt needs the client's public keys in jwks")
	case m != oauth.MethodPrivateKeyJWT && r.said["jwks"] != nil:
		r.fail(invalidMetadata, "DCR-02", "jwks goes with token_endpoint_auth_method private_key_jwt only")
	}
	r.m.AuthMethod = m
	if alg := r.text("token_endpoint_auth_signing_alg", ""); alg != "" && m == oauth.MethodPrivateKeyJWT {
		if !slices.Contains(jose.Accepted, alg) || !dec.MaySign(alg) {
			r.fail(invalidMetadata, "DCR-02", "token_endpoint_auth_signing_alg is not accepted here; the algorithms are %s", strings.Join(jose.Accepted, ", "))
		}
		r.m.SigningAlg = alg
	}
}

// documented reads what a document would say too, under the same rules.
func (r *reading) documented(dec policy.Decision) {
	if r.err != nil {
		return
	}
	grants := slices.DeleteFunc(slices.Clone(Grants), func(g string) bool { return !dec.MayGrant(g) })
	body := map[string]json.RawMessage{"token_endpoint_auth_method": json.RawMessage(`"none"`)}
	for _, name := range []string{"client_name", "redirect_uris", "grant_types", "response_types", "scope", "jwks", "token_endpoint_auth_signing_alg", "client_uri"} {
		if v := r.said[name]; v != nil {
			body[name] = v
		}
	}
	if r.m.AuthMethod == oauth.MethodPrivateKeyJWT {
		body["token_endpoint_auth_method"] = json.RawMessage(`"` + oauth.MethodPrivateKeyJWT + `"`)
	}
	doc, err := directory.CheckRegistration(body, grants)
	if e, ok := errors.AsType[*cimd.Error](err); ok {
		code := invalidMetadata
		if strings.HasPrefix(e.Hint, "redirect_uris[") {
			code = invalidRedirect
		}
		r.fail(code, e.Rule, "%s", e.Hint)
		return
	}
	switch {
	case err != nil:
		r.fail(oauth.ServerError, "", "the registration could not be read")
	case !slices.Contains(doc.GrantTypes, oauth.GrantAuthorizationCode) || !slices.Contains(doc.ResponseTypes, responseCode):
		r.fail(invalidMetadata, "DCR-02", "grant_types must hold authorization_code, and response_types code: what goes with them here is %s", strings.Join(grants, ", "))
	case len(doc.RedirectURIs) > maxRedirects:
		r.fail(invalidRedirect, "DCR-01", "redirect_uris has more than %d entries", maxRedirects)
	case r.m.AuthMethod == oauth.MethodPrivateKeyJWT && !slices.Contains(doc.AuthMethods, oauth.MethodPrivateKeyJWT):
		r.fail(invalidMetadata, "DCR-02", "jwks holds no key that can be used")
	default:
		r.m.Name, r.m.URI = doc.Name, doc.ClientURI
		r.m.RedirectURIs, r.m.GrantTypes, r.m.ResponseTypes = doc.RedirectURIs, doc.GrantTypes, doc.ResponseTypes
		r.m.JWKS, r.m.Scope = doc.JWKS, doc.Scope
	}
	if loopback := dec.Loopback; (dec.FAPI || loopback != nil && !*loopback) && slices.ContainsFunc(r.m.RedirectURIs, oauth.LoopbackRedirect) {
		r.fail(invalidRedirect, "POL-03", "the policy of this server excludes redirects to the person's own computer")
	}
}

// applicationType honours application_type: a web application has https redirects
// only (DCR-03). A native one may have https redirects too, which apps claim from
// the system (RFC 8252 section 7.2).
func (r *reading) applicationType(other string) {
	switch r.m.ApplicationType = r.text("application_type", other); r.m.ApplicationType {
	case typeNative:
	case typeWeb:
		if slices.ContainsFunc(r.m.RedirectURIs, oauth.LoopbackRedirect) {
			r.fail(invalidRedirect, "DCR-03", "redirects to the person's own computer are for application_type native, and this registration is for web, which is what counts where it says nothing")
		}
	default:
		r.fail(invalidMetadata, "DCR-03", "application_type must be web or native")
	}
}

// scope narrows what the client asks for to what there is and what the policy
// leaves. What remains stands in the answer.
func (r *reading) scope(dec policy.Decision, set *policy.Set) {
	asked, err := oauth.ParseScopes(r.m.Scope)
	if err != nil || len(asked) == 0 {
		r.m.Scope = ""
		return
	}
	there := oauth.Scopes{oauth.ScopeOpenID, oauth.ScopeOfflineAccess}
	for i := range set.Resources {
		if dec.MayUse(set.Resources[i].ID) {
			there = there.Or(set.Resources[i].ScopeNames())
		}
	}
	left := dec.Narrow(asked.And(there))
	if len(left) == 0 {
		r.fail(invalidMetadata, "DCR-02", "scope names nothing that a client can have here that registers itself")
	}
	r.m.Scope = left.String()
}

// forPeople keeps a few texts for the operator's eyes. They are shown to nobody
// else, and one that cannot be kept is refused.
func (r *reading) forPeople() {
	short := func(name, s string) string {
		if len(s) > maxText || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
			r.fail(invalidMetadata, "DCR-02", "%s must be at most %d printable characters", name, maxText)
		}
		return s
	}
	r.m.SoftwareID = short("software_id", r.text("software_id", ""))
	r.m.SoftwareVersion = short("software_version", r.text("software_version", ""))
	if raw := r.said["contacts"]; raw != nil {
		if json.Unmarshal(raw, &r.m.Contacts) != nil || len(r.m.Contacts) > maxContacts {
			r.fail(invalidMetadata, "DCR-02", "contacts must be a list of at most %d texts", maxContacts)
		}
		for i, c := range r.m.Contacts {
			short(fmt.Sprintf("contacts[%d]", i), c)
		}
	}
}

// forAudit is what an operator wants to find again.
func (m *metadata) forAudit() map[string]string {
	var hosts []string
	for _, s := range m.RedirectURIs {
		if u, err := url.Parse(s); err == nil && !slices.Contains(hosts, u.Host) {
			hosts = append(hosts, u.Host)
		}
	}
	data := map[string]string{"name": m.Name, "redirect_hosts": strings.Join(hosts, " "), "method": m.AuthMethod}
	for name, s := range map[string]string{"software_id": m.SoftwareID, "software_version": m.SoftwareVersion} {
		if s != "" {
			data[name] = s
		}
	}
	return data
}
