package cimd

import (
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/internal/planted"
)

// MaxIDLength is the greatest length of a client_id URL and of any other URL
// that is read from a document, in bytes (URL-10).
const MaxIDLength = 2048

// ID is a client_id URL that passed the rules. It is comparable, and two IDs are
// equal exactly when their strings are equal byte for byte (URL-07, URL-13). The
// zero value is no client.
type ID struct {
	raw                string
	hostStart, hostEnd uint16
	pathEnd            uint16
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
	// Private are exact client_ids, byte for byte, that an operator publishes inside
	// the own network: their host may be any name or address and their port any
	// port. Every other rule holds for them too. The egress needs the same entry.
	Private []string
	// Reserved are URLs that name something else and so can never be a client:
	// the server's own issuer, other issuers, protected resources. A client under
	// such a name could obtain tokens whose subject or audience is mistaken for
	// it. The case of the host, the port 443 and a final slash make no
	// difference here (URL-14).
	Reserved []string
}

// Parse checks a client_id with the strict rules. An error is always a *Error
// with KindURL.
func Parse(raw string) (ID, error) { return URLRules{}.Parse(raw) }

// Parse checks a client_id. It works on the string as it was sent and normalizes
// nothing: what it accepts is what must be fetched, compared and stored. An
// error is always a *Error with KindURL that names the broken rule.
func (u URLRules) Parse(raw string) (ID, error) {
	p, f := splitURL(raw)
	if f == nil {
		f = u.check(raw, &p)
	}
	if f != nil {
		return ID{}, urlError(f.rule, "the client_id "+f.text)
	}
	return ID{
		raw:       raw,
		hostStart: uint16(p.hostStart),
		hostEnd:   uint16(p.hostStart + len(p.host)),
		pathEnd:   uint16(p.hostStart + len(p.host) + len(p.colonPort) + len(p.path)),
		port:      p.port,
	}, nil
}

// check applies the rules that are particular to a client_id.
func (u URLRules) check(raw string, p *urlParts) *fault {
	local := u.Loopback && isLoopbackHost(p.host)
	switch {
	case p.scheme == "http" && !local:
		return &fault{"URL-18", "uses http; use https"}
	case p.fragment && !planted.Weak("fragment"):
		return &fault{"URL-05", "has a fragment (a # sign); remove it"}
	case p.path == "":
		return &fault{"URL-03", "has no path; it must name a document, such as /oauth/client.json"}
	case p.path == "/" && !u.AllowRootPath:
		return &fault{"URL-09", "has the path / alone; publish the document under a path of its own"}
	case p.query && !u.AllowQuery:
		return &fault{"URL-08", "has a query; publish the document under a path of its own"}
	case u.reserved(p):
		return &fault{"URL-14", "is the URL of a server or a resource and not of a client"}
	case local || slices.Contains(u.Private, raw):
		return nil
	case p.port != 443 && !slices.Contains(u.Ports, p.port) && !planted.Weak("port"):
		return &fault{"URL-06", "names a port that is not allowed here; use the default port"}
	case p.ip && !u.AllowIP:
		return &fault{"URL-11", "has an IP address as its host; use a public host name"}
	case p.ip:
		return nil
	}
	return checkPublicName(p.host, u.AllowTestNames)
}

// reserved reports whether p is one of the URLs that are no clients.
func (u URLRules) reserved(p *urlParts) bool {
	return slices.ContainsFunc(u.Reserved, func(raw string) bool {
		q, f := splitURL(raw)
		return f == nil && p.scheme == q.scheme && p.port == q.port && strings.EqualFold(p.host, q.host) &&
			strings.TrimSuffix(p.path, "/") == strings.TrimSuffix(q.path, "/")
	})
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
// brackets. Compare hosts in lower case, see [DisplayHost].
func (id ID) Host() string { return id.raw[id.hostStart:id.hostEnd] }

// Port returns the port: the explicit one, or the scheme's default.
func (id ID) Port() uint16 { return id.port }

// Path returns the path as written, without the query.
func (id ID) Path() string {
	authority := id.raw[id.hostEnd:id.pathEnd]
	if i := strings.IndexByte(authority, '/'); i >= 0 {
		return authority[i:]
	}
	return ""
}

// Warnings returns what the rules allow but the draft advises against.
func (id ID) Warnings() []Warning {
	var w []Warning
	add := func(rule, text string) { w = append(w, Warning{Rule: rule, Text: text}) }
	if id.IsZero() {
		return nil
	}
	if strings.HasPrefix(id.raw, "http:") {
		add("URL-18", "the client_id uses http, which works in development mode only")
	}
	if id.Path() == "/" {
		add("URL-09", "the path / is not recommended: the whole host becomes one client")
	}
	if int(id.pathEnd) < len(id.raw) {
		add("URL-08", "a query in a client_id is not recommended")
	}
	if after := id.raw[id.hostEnd:]; after[0] == ':' {
		add("URL-06", "the explicit port is part of the identity: with and without it are two clients")
	}
	if host := id.Host(); host != strings.ToLower(host) {
		add("URL-07", "upper-case letters in the host are part of the identity: another case is another client")
	}
	return w
}
