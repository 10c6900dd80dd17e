package cimd

import "strings"

// ID is a client_id URL that passed the rules. It is comparable, and two IDs are
// equal exactly when their strings are equal byte for byte (URL-07, URL-13). The
// zero value is no client.
type ID struct {
	raw                string
	hostStart, hostEnd uint16
	pathStart, pathEnd uint16
	port               uint16
}

// URLRules are the switches of the client_id URL check. The zero value is strict.
type URLRules struct {
	AllowQuery     bool     // accept a query component (URL-08)
	AllowRootPath  bool     // accept the path "/" (URL-09)
	AllowIP        bool     // accept an IP address as the host (URL-11)
	AllowTestNames bool     // accept hosts under .test and .example: for tests, demos and documentation
	Loopback       bool     // development: accept localhost, 127.0.0.1 and [::1], any port, also with http (URL-18)
	Ports          []uint16 // ports accepted besides 443 (URL-06)
}

// Parse checks a client_id with the strict rules. An error is always a *Error
// with KindURL.
func Parse(raw string) (ID, error) { return URLRules{}.Parse(raw) }

// Parse checks a client_id. It works on the string as it was sent and normalizes
// nothing. An error is always a *Error with KindURL.
func (u URLRules) Parse(raw string) (ID, error) {
	return ID{}, urlError("URL-01", "not written yet")
}

// LooksLikeURL reports whether a client_id asks to be treated as a URL: it has
// the scheme http or https in any case. It says nothing about validity.
func LooksLikeURL(raw string) bool {
	scheme, _, ok := strings.Cut(strings.TrimLeft(raw, " \t\r\n"), ":")
	return ok && (strings.EqualFold(scheme, "https") || strings.EqualFold(scheme, "http"))
}

// String returns the client_id exactly as it was sent.
func (id ID) String() string { return id.raw }

// IsZero reports whether id is the zero value, which names no client.
func (id ID) IsZero() bool { return id.raw == "" }

// Host returns the host as written, without the port; an IPv6 address keeps its
// brackets.
func (id ID) Host() string { return id.raw[id.hostStart:id.hostEnd] }

// Port returns the port: the explicit one, or the scheme's default.
func (id ID) Port() uint16 { return id.port }

// Path returns the path as written, without the query.
func (id ID) Path() string { return id.raw[id.pathStart:id.pathEnd] }

// Warnings returns what is allowed by the rules but unwise.
func (id ID) Warnings() []Warning { return nil }
