// Package web is the edge and the frame of the daemon: what happens around
// every handler (reference number, client address, limits, panics, security
// headers, one event per request), how parameters are read, and how a refusal
// is written, once as JSON for programs and once as a page for people.
//
// A handler returns an error instead of writing it. A [*Refusal] or an
// [oauth.Error] says what the caller may know; everything else becomes
// server_error, and its text goes to the log under the reference number.
package web

import (
	"context"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"time"
)

// Handler serves one request. A returned error is written by the wrapper
// ([Edge.Page] or [Edge.API]); a handler that has begun to answer must not
// return one.
type Handler func(http.ResponseWriter, *http.Request) error

// Brand is what an operator puts on the pages: a name, and a file with a logo
// (PNG, JPEG, WebP or SVG, at most 256 KiB), both optional.
type Brand struct{ Name, LogoPath string }

// EdgeConfig configures an [Edge]. Issuer is required.
type EdgeConfig struct {
	// Issuer is the issuer identifier: an https URL, or http on a loopback
	// host for --dev. URLs, cookies and HSTS follow it and never the Host
	// header (META-18).
	Issuer string
	// TrustedProxies are the peers whose X-Forwarded-For is believed. Empty:
	// nobody's.
	TrustedProxies []netip.Prefix
	// Refused is told about every refusal, to be put into the audit log
	// without waiting: it must not block. Nil tells nobody.
	Refused func(Refused)
	// Logger gets one event per request. Nil is slog.Default.
	Logger *slog.Logger
	// Now is the clock. Nil is time.Now.
	Now func() time.Time
	// MaxBody bounds a request body in bytes. 0 is 1 MiB.
	MaxBody int64
	// Brand goes to the head of each page.
	Brand Brand
}

// Refused is what the edge knows about a refusal, for the audit log.
type Refused struct {
	Time                   time.Time
	Ref, Method, Path      string
	IP, Client, Code, Rule string
	Status                 int
}

// Page is one page inside the frame.
type Page struct {
	// Title stands in the browser's tab, before the brand.
	Title string
	// Template is executed with Data and becomes the content of <main>.
	// Make it with [Template].
	Template *template.Template
	Data     any
	// RedirectHost is where an answer to a form on this page may lead in the
	// end: a redirect URI or its origin. Browsers apply form-action to the
	// redirects after a POST, so that the page has to allow it. Empty: only
	// our own origin.
	RedirectHost string
}

// Route is a pattern of http.ServeMux and what answers there.
type Route struct {
	Pattern string
	Handler http.Handler
}

// Ref returns the reference number of the request, such as 7K2M-44QX: it stands
// on error pages, in JSON errors, in the log and in the audit events. It is
// empty outside of an edge.
func Ref(ctx context.Context) string { return recordOf(ctx).ref }

// ClientIP returns the address the request came from: the peer, or what a
// trusted proxy says. It is the zero Addr outside of an edge.
func ClientIP(ctx context.Context) netip.Addr { return recordOf(ctx).ip }

// SetClient tells the edge which client_id the request is about, for the event
// of a later refusal and for the error page.
func SetClient(ctx context.Context, clientID string) { recordOf(ctx).client = clientID }

// Answer returns the header of the answer to the request, for rooms that see the
// context only. Outside of an edge it is a header that nobody sends.
func Answer(ctx context.Context) http.Header {
	if h := recordOf(ctx).answer; h != nil {
		return h
	}
	return http.Header{}
}
