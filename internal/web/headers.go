package web

import (
	"net/http"
	"net/url"
	"strings"
)

// baseHeaders are on every answer. Cross-Origin-Opener-Policy is left out on
// purpose: with any value but unsafe-none, a client that opens the sign-in in a
// popup loses its window and never hears the answer.
func (e *Edge) baseHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if e.https {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// pageHeaders are on every page, error pages included (CONS-06, AZ-21, CN-08).
func (e *Edge) pageHeaders(h http.Header) {
	e.baseHeaders(h)
	noStore(h)
	h.Set("Content-Security-Policy", contentPolicy(""))
	h.Set("Permissions-Policy", "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()")
}

func noStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
}

// contentPolicy is the policy of a page: our stylesheet, our images, our forms,
// no script, no frame. redirect is where a form may lead besides.
func contentPolicy(redirect string) string {
	policy := "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'"
	if sources := formSources(redirect); sources != "" {
		policy += " " + sources
	}
	return policy + "; base-uri 'none'; frame-ancestors 'none'"
}

// formSources returns the form-action sources for a redirect URI. Chromium
// applies form-action to every redirect that follows the POST, not only to our
// own: a client whose redirect page moves the browser on to another host of its
// own, as native apps do from the loopback listener to a page that says "done",
// would be stopped there. So https is allowed as a scheme, and what is not https
// is allowed exactly: a loopback listener by host and port, a private-use scheme
// by name. The grammar of sources has no IPv6 addresses, so for [::1] only
// the scheme can be named.
func formSources(redirect string) string {
	if redirect == "" {
		return ""
	}
	u, err := url.Parse(redirect)
	if err != nil || !plainScheme(u.Scheme) {
		return ""
	}
	switch {
	case u.Scheme == "https":
		return "https:"
	case u.Scheme != "http":
		return "https: " + u.Scheme + ":"
	case strings.Contains(u.Host, "["):
		return "https: http:"
	case u.Host == "" || strings.Trim(u.Host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:") != "":
		return ""
	default:
		return "https: http://" + u.Host
	}
}

func plainScheme(s string) bool {
	return s != "" && s != "javascript" && s != "data" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}

// allowOrigins opens an answer to scripts of every origin. Without
// Access-Control-Allow-Credentials a browser sends no cookie, so that a script
// can do no more than any program could (META-17, TK-14).
func allowOrigins(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After, DPoP-Nonce, OAuth-Client-Attestation-Challenge")
}

// preflight answers OPTIONS. The wildcard for headers does not cover
// Authorization, which stands beside it.
func preflight(h Handler, more ...string) Handler {
	methods := strings.Join(append([]string{"GET, HEAD, POST, OPTIONS"}, more...), ", ")
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != http.MethodOptions {
			return h(w, r)
		}
		w.Header().Set("Access-Control-Allow-Methods", methods)
		w.Header().Set("Access-Control-Allow-Headers", "*, Authorization")
		w.Header().Set("Access-Control-Max-Age", "7200")
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}
