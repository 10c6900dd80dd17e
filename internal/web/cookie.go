package web

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// CookieName returns the full name of one of our cookies: with the prefix
// __Host-, which a browser accepts only from the host itself, over https and
// for every path; or without it for a --dev issuer on http (OIDC-11). Such cookies
// are shared by all paths and ports of a host, so an issuer that is more than a
// host has names of its own: two servers must not sign each other's people out.
func CookieName(issuer, name string) string {
	name = "bonafide_" + name
	scheme, rest, _ := strings.Cut(issuer, "://")
	if strings.ContainsAny(rest, "/:") {
		sum := sha256.Sum256([]byte(issuer))
		name += "_" + hex.EncodeToString(sum[:5])
	}
	if scheme == "https" {
		return "__Host-" + name
	}
	return name
}

// SetCookie gives the browser a cookie of ours: HttpOnly, SameSite=Lax, for the
// whole host, and Secure unless the issuer is on http. A life of 0 lets the
// cookie end with the browser.
func (e *Edge) SetCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: CookieName(e.cfg.Issuer, name), Value: value, Path: "/",
		MaxAge: int(life / time.Second), Secure: e.https, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// ClearCookie takes a cookie of ours from the browser.
func (e *Edge) ClearCookie(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{
		Name: CookieName(e.cfg.Issuer, name), Path: "/",
		MaxAge: -1, Secure: e.https, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// Cookie returns the value of one of our cookies. It is empty when the cookie is
// absent, or when there are several of one name: then somebody else planted one,
// and we cannot tell which (CN-13).
func (e *Edge) Cookie(r *http.Request, name string) string {
	found := r.CookiesNamed(CookieName(e.cfg.Issuer, name))
	if len(found) != 1 || len(found[0].Value) > 4096 {
		return ""
	}
	return found[0].Value
}

// CookieNames returns the names, as SetCookie takes them, of the cookies of ours
// in a request whose names begin with prefix, each once.
func (e *Edge) CookieNames(r *http.Request, prefix string) (names []string) {
	before, after, _ := strings.Cut(CookieName(e.cfg.Issuer, "*"), "*")
	for _, c := range r.Cookies() {
		rest, ok := strings.CutPrefix(c.Name, before)
		name, ok2 := strings.CutSuffix(rest, after)
		if ok && ok2 && strings.HasPrefix(name, prefix) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
