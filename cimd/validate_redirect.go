package cimd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/oauth"
)

// MaxRedirectURIs is the greatest number of redirect URIs in a document (DO-19).
const MaxRedirectURIs = 100

// checkGrants intersects grant_types and response_types with what is supported
// (DOC-20, DOC-22). Only an intersection without a usable grant is an error.
func (r *reading) checkGrants() {
	var ok1, ok2 bool
	r.grants, r.doc.GrantTypes, ok1 = r.capabilities("grant_types", oauth.GrantAuthorizationCode, r.sup.GrantTypes)
	_, r.doc.ResponseTypes, ok2 = r.capabilities("response_types", responseCode, r.sup.ResponseTypes)
	if !ok1 || !ok2 {
		return
	}
	if len(r.doc.ResponseTypes) == 0 && slices.Contains(r.doc.GrantTypes, oauth.GrantAuthorizationCode) {
		r.warn("DOC-20", "response_types", "has no supported value, so authorization_code cannot be used")
		r.doc.GrantTypes = slices.DeleteFunc(r.doc.GrantTypes, func(g string) bool { return g == oauth.GrantAuthorizationCode })
	}
	// A refresh token continues another grant; alone it starts nothing.
	if !slices.ContainsFunc(r.doc.GrantTypes, func(g string) bool { return g != oauth.GrantRefreshToken }) {
		r.fail("DOC-20", "grant_types", "leaves nothing that this server supports; supported: "+strings.Join(r.sup.GrantTypes, ", "))
	}
}

// capabilities reads a list of capabilities. It returns the declared values, or
// the one that is implied if there is no list, and those that are supported.
func (r *reading) capabilities(name, implied string, supported []string) (declared, usable []string, ok bool) {
	v := r.optional(name)
	declared = []string{implied}
	if v != nil {
		if declared, ok = r.list("DOC-20", name, v); !ok {
			return nil, nil, false
		}
	}
	usable = make([]string, 0, len(declared))
	for _, d := range declared {
		if slices.Contains(supported, d) {
			usable = append(usable, d)
		} else {
			r.warn("DOC-20", locate(name, v, d), "is not supported here and was left out")
		}
	}
	return declared, usable, true
}

// checkRedirects requires good redirect URIs where a grant needs one (DOC-08),
// and infers the application type from them (DOC-24).
func (r *reading) checkRedirects() {
	needed := slices.Contains(r.doc.GrantTypes, oauth.GrantAuthorizationCode)
	v := r.root.get("redirect_uris")
	if !needed {
		v = r.optional("redirect_uris")
	}
	switch {
	case v != nil:
		r.doc.RedirectURIs = r.redirects("redirect_uris", v)
		if needed && v.kind == kindArray && len(v.items) == 0 {
			r.fail("DOC-08", "redirect_uris", "is an empty list; authorization_code needs at least one redirect URI")
		}
	case needed:
		r.fail("DOC-08", "redirect_uris", "is missing; authorization_code needs at least one redirect URI")
	}
	r.applicationType()
}

// redirects reads a list of redirect URIs. One bad entry spoils the document:
// a list whose bad entries are skipped invites to smuggle one in.
func (r *reading) redirects(name string, v *value) []string {
	list, ok := r.list("DOC-08", name, v)
	if !ok {
		return nil
	}
	if len(v.items) > MaxRedirectURIs {
		r.fail("DOC-08", name, fmt.Sprintf("has more than %d entries", MaxRedirectURIs))
		return nil
	}
	for i, item := range v.items {
		if f := r.checkRedirect(item.text); f != nil {
			r.fail(f.rule, at(name, i), f.text)
		}
	}
	return list
}

// checkRedirect reports what is wrong with a redirect URI: it must be an https
// URL, or http to exactly 127.0.0.1, [::1] or localhost (DOC-09 to DOC-11).
func (r *reading) checkRedirect(uri string) *fault {
	scheme := schemeOf(uri)
	switch {
	case strings.Contains(uri, "*"):
		return &fault{"DOC-09", "has a wildcard: a redirect URI is compared as it stands and is no pattern. " +
			"For http on localhost, 127.0.0.1 or [::1] leave the port out; any port then matches"}
	case activeScheme(scheme):
		return &fault{"DOC-10", "has a scheme that runs code or reads local data"}
	case scheme == "":
		return &fault{"DOC-09", "is not an absolute URI"}
	case scheme != "https" && scheme != "http":
		return r.checkPrivateScheme(uri, scheme)
	}
	p, f := splitURL(uri)
	if f != nil {
		return &fault{"DOC-09", f.text}
	}
	switch {
	case p.fragment:
		return &fault{"DOC-09", "has a fragment (a # sign)"}
	case p.scheme == "http" && !oauth.LoopbackRedirect(uri):
		return &fault{"DOC-09", "uses http on a host other than 127.0.0.1, [::1] or localhost; use https"}
	}
	return nil
}

// checkPrivateScheme decides about com.example.app:/cb and the like (DOC-11).
func (r *reading) checkPrivateScheme(uri, scheme string) *fault {
	switch {
	case !strings.Contains(scheme, "."):
		return &fault{"DOC-11", "has a private-use scheme without a period; use https, or http on a loopback address"}
	case !r.sup.PrivateUseSchemes:
		return &fault{"DOC-11", "has a private-use scheme, which this server does not accept; use https, or http on a loopback address"}
	}
	if f := checkChars(uri); f != nil {
		return &fault{"DOC-11", f.text}
	}
	rest := uri[len(scheme)+1:]
	switch {
	case scheme != uri[:len(scheme)]:
		return &fault{"DOC-11", "has upper-case letters in its scheme"}
	case strings.Contains(rest, "#"):
		return &fault{"DOC-11", "has a fragment (a # sign)"}
	case strings.HasPrefix(rest, "//") || !strings.HasPrefix(rest, "/"):
		return &fault{"DOC-11", "must have a single slash after its private-use scheme"}
	case !validPercent(rest) || hasDotSegment(rest):
		return &fault{"DOC-11", "has an invalid percent-encoding or a . or .. path segment"}
	}
	return nil
}

// applicationType reads application_type, or infers it: redirects to the user's
// own computer make a native application (DOC-24).
func (r *reading) applicationType() {
	d := r.doc
	loopback := slices.ContainsFunc(d.RedirectURIs, oauth.LoopbackRedirect)
	d.ApplicationType = "web"
	if loopback {
		d.ApplicationType = "native"
	}
	v := r.optional("application_type")
	switch {
	case v == nil:
	case v.kind != kindString || v.text != "web" && v.text != "native":
		r.warn("DOC-24", "application_type", "is neither web nor native and was ignored")
	default:
		d.ApplicationType = strings.Clone(v.text)
		if v.text == "web" && d.LoopbackOnly() {
			r.warn("DOC-24", "application_type", "is web, but all redirect URIs lead to the user's own computer; write native")
		}
	}
}
