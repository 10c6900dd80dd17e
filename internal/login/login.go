// Package login answers one question: who is the user at this browser? It has
// local accounts (name and password), sessions, and the pages to sign in and
// out. A handler that needs a user asks [Login.Current] and, when nobody is
// signed in, sends the browser away with [Login.Redirect]; it comes back to a
// path of ours that travelled sealed.
package login

// Return says where the browser goes after the sign-in, and what the page says
// meanwhile. All of it travels sealed in the browser.
type Return struct {
	// Path is one of our own paths, without a query, such as
	// "/authorize/resume".
	Path string
	// Sealed is the caller's sealed state; it comes back as the parameter
	// "tx" of Path. Empty: Path alone.
	Sealed string
	// Reason says why somebody who is signed in is asked again.
	Reason Reason
	// AppHost is the app on whose behalf the person signs in: a verified
	// host, or "". It is shown.
	AppHost string
	// Username fills the form (login_hint).
	Username string
	// RedirectHost is where the request may lead in the end, a redirect URI
	// or its origin: the page must allow it, because browsers apply
	// form-action to the redirects after the form (see web.Page).
	RedirectHost string
}

// Reason is why a person is sent to sign in.
type Reason string

// Reasons.
const (
	SignIn  Reason = ""       // nobody is signed in
	Again   Reason = "again"  // prompt=login, or max_age has passed: the password is asked again
	Another Reason = "switch" // the person wants to use another account
)

// ACR is the authentication context class of a sign-in with a password; AMR its
// methods (RFC 8176).
const ACR = "urn:bonafide:acr:password"
