package cimd

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bonafide-id/bonafide/oauth"
)

// activeSchemes run code in a browser, read local data or carry their content
// inside the URL (FETCH-08).
var activeSchemes = []string{
	"javascript", "vbscript", "livescript", "data", "file", "filesystem", "blob", "about",
	"view-source", "jar", "chrome", "resource", "mhtml", "ms-its", "gopher", "ftp",
}

func activeScheme(scheme string) bool { return slices.Contains(activeSchemes, scheme) }

// schemeOf returns the scheme of a URI in lower case as a browser sees it, that
// is after removing white space and control characters, or "".
func schemeOf(uri string) string {
	scheme, _, ok := strings.Cut(uri, ":")
	if !ok {
		return ""
	}
	if strings.IndexFunc(scheme, func(c rune) bool { return c <= ' ' }) >= 0 {
		scheme = strings.Map(func(c rune) rune {
			if c <= ' ' {
				return -1
			}
			return c
		}, scheme)
	}
	for i := range len(scheme) {
		c := scheme[i]
		if letter := 'a' <= c|0x20 && c|0x20 <= 'z'; !letter && (i == 0 || !isAlnum(c) && c != '+' && c != '-' && c != '.') {
			return ""
		}
	}
	return strings.ToLower(scheme)
}

// checkSchemes looks at every member that is a URL by its name, known or not
// (FETCH-06, FETCH-08). Redirect URIs have a stricter check of their own, and a
// data: logo is only dropped (CONS-09).
func (r *reading) checkSchemes() {
	for i := range r.root.members {
		m := &r.root.members[i]
		name, _, _ := strings.Cut(m.name, "#")
		known := strings.HasSuffix(name, "_uri") || strings.HasSuffix(name, "_uris") || strings.HasSuffix(name, "_url")
		if !known || name == "redirect_uris" || name == "post_logout_redirect_uris" {
			continue
		}
		values := m.val.items
		if m.val.kind == kindString {
			values = []value{m.val}
		}
		for _, v := range values {
			scheme := schemeOf(v.text)
			if v.kind == kindString && activeScheme(scheme) && (name != "logo_uri" || scheme != "data") {
				r.fail("FETCH-08", safeMember(m.name), "has a scheme that runs code or reads local data")
			}
		}
	}
}

// safeMember returns a member name for a hint: a name of the document's own
// making is not repeated.
func safeMember(name string) string {
	if len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return "a URL member"
	}
	return name
}

// checkURI requires an absolute https URL. A document that itself came from this
// computer over http, in development, may name such URLs too.
func (r *reading) checkURI(uri string) *fault {
	p, f := splitURL(uri)
	switch {
	case f != nil:
		return f
	case p.scheme == "http" && !(isLoopbackHost(p.host) && strings.HasPrefix(r.id.raw, "http:")):
		return &fault{"DOC-26", "is not an https URL"}
	}
	return nil
}

// checkDisplayURIs reads the URLs that are shown to people. A bad one is
// dropped: it costs a link, not the client (DOC-26).
func (r *reading) checkDisplayURIs() {
	for _, m := range []struct {
		name string
		to   *string
	}{
		{"client_uri", &r.doc.ClientURI}, {"logo_uri", &r.doc.LogoURI},
		{"policy_uri", &r.doc.PolicyURI}, {"tos_uri", &r.doc.TOSURI},
	} {
		v := r.optional(m.name)
		if v == nil {
			continue
		}
		if v.kind != kindString {
			r.warn("DOC-26", m.name, "is not a string and was left out")
			continue
		}
		if m.name == "logo_uri" && schemeOf(v.text) == "data" {
			r.warn("CONS-09", m.name, "is a data: URL and was left out; publish the logo at an https URL")
			continue
		}
		if f := r.checkURI(v.text); f != nil {
			r.warn("DOC-26", m.name, f.text+"; it was left out")
			continue
		}
		*m.to = strings.Clone(v.text)
	}
}

// checkOtherURIs reads the URLs of extensions. Only the logout ones are used;
// the others are checked for what they could be made to fetch, and never fetched
// (FETCH-06).
func (r *reading) checkOtherURIs() {
	if uri, ok := r.extensionURI("backchannel_logout_uri"); ok {
		r.doc.BackchannelLogoutURI = uri
	}
	for _, name := range []string{"sector_identifier_uri", "initiate_login_uri", "frontchannel_logout_uri"} {
		r.extensionURI(name)
	}
	if v := r.optional("request_uris"); v != nil && v.kind == kindArray {
		for i, item := range v.items {
			if item.kind != kindString || r.checkURI(item.text) != nil {
				r.warn("FETCH-06", at("request_uris", i), "is not an https URL and was ignored")
			}
		}
	}
	if v := r.optional("post_logout_redirect_uris"); v != nil {
		r.doc.PostLogoutRedirectURIs = r.redirects("post_logout_redirect_uris", v)
	}
}

func (r *reading) extensionURI(name string) (string, bool) {
	v := r.optional(name)
	if v == nil {
		return "", false
	}
	if v.kind != kindString || r.checkURI(v.text) != nil {
		r.warn("FETCH-06", name, "is not an https URL and was ignored")
		return "", false
	}
	return strings.Clone(v.text), true
}

// checkScope reads the upper bound of scopes (DOC-28). A bound that cannot be
// read is an error: ignoring it would lift it.
func (r *reading) checkScope() {
	scope, ok := r.text("DOC-28", "scope")
	if !ok {
		return
	}
	if _, err := oauth.ParseScopes(scope); err != nil {
		r.fail("DOC-28", "scope", "is not a list of scopes separated by spaces, or too long")
		return
	}
	r.doc.Scope, r.doc.HasScope = scope, true
}

// checkFlags reads what a client demands of itself (DOC-30). A demand that
// cannot be read is an error, because ignoring it would weaken the client.
func (r *reading) checkFlags() {
	for _, m := range []struct {
		name string
		to   *bool
	}{
		{"require_pushed_authorization_requests", &r.doc.RequirePAR},
		{"require_signed_request_object", &r.doc.RequireSignedRequest},
		{"dpop_bound_access_tokens", &r.doc.DPoPBound},
		{"tls_client_certificate_bound_access_tokens", &r.doc.MTLSBound},
		{"require_auth_time", &r.doc.RequireAuthTime},
	} {
		if v := r.optional(m.name); v == nil {
			continue
		} else if v.kind != kindBool {
			r.fail("DOC-30", m.name, "is "+v.kind.String()+", not true or false")
		} else {
			*m.to = v.truth
		}
	}
	if v := r.optional("default_max_age"); v != nil {
		n, err := strconv.ParseInt(v.text, 10, 32)
		if v.kind != kindNumber || err != nil || n < 0 {
			r.fail("DOC-30", "default_max_age", "is not a whole number of seconds")
		} else {
			r.doc.DefaultMaxAge = int(n)
		}
	}
	if alg, ok := r.text("DOC-30", "request_object_signing_alg"); ok {
		if !token(alg) {
			r.fail("DOC-30", "request_object_signing_alg", "is no algorithm name")
		} else { // one that nobody here knows leaves plain requests to the client
			r.doc.RequestObjectAlg = alg
		}
	}
	if alg, ok := r.text("DOC-30", "id_token_signed_response_alg"); ok {
		switch {
		case !token(alg):
			r.fail("DOC-30", "id_token_signed_response_alg", "is no algorithm name")
		case alg == "none":
			r.fail("DOC-30", "id_token_signed_response_alg", "must name a signature; none proves nothing")
		default:
			r.doc.IDTokenAlg = alg
		}
	}
}
