package cimd

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"github.com/bonafide-id/bonafide/internal/planted"
)

// fault is one broken rule of a URL. Its text continues a sentence that starts
// with the name of the URL.
type fault struct{ rule, text string }

// urlParts is an absolute http or https URL taken apart without changing it.
type urlParts struct {
	scheme    string // "http" or "https"
	host      string // as written; an IPv6 address keeps its brackets
	hostStart int
	colonPort string // ":8080" or ""
	port      uint16
	path      string
	ip        bool // the host is an IP address
	query     bool // there is a query, perhaps an empty one
	fragment  bool // there is a fragment, perhaps an empty one
}

// splitURL reads an absolute http or https URL from the raw string, because URL
// parsers repair what must be refused (URL-04). It checks everything that holds
// for each URL in this package; which host, port, path and query are wanted is
// the caller's business.
func splitURL(raw string) (urlParts, *fault) {
	var p urlParts
	if f := checkChars(raw); f != nil {
		return p, f
	}
	after, ok := strings.CutPrefix(raw, "https://")
	p.scheme, p.port = "https", 443
	if !ok {
		after, ok = strings.CutPrefix(raw, "http://")
		p.scheme, p.port = "http", 80
	}
	if !ok {
		return p, schemeFault(raw)
	}
	p.hostStart = len(raw) - len(after)
	end := strings.IndexAny(after, "/?#")
	if end < 0 {
		end = len(after)
	}
	authority, rest := after[:end], after[end:]
	if strings.IndexByte(authority, '@') >= 0 {
		return p, &fault{"URL-02", "has user information (an @ sign before the path)"}
	}
	if f := p.splitAuthority(authority); f != nil {
		return p, f
	}
	if i := strings.IndexByte(rest, '#'); i >= 0 {
		rest, p.fragment = rest[:i], true
	}
	if !validPercent(rest) {
		return p, &fault{"URL-10", "has an invalid percent-encoding, or one of a control character"}
	}
	p.path = rest
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		p.path, p.query = rest[:i], true
	}
	if hasDotSegment(p.path) && !planted.Weak("dots") {
		return p, &fault{"URL-04", "has a . or .. path segment, plain or percent-encoded"}
	}
	return p, nil
}

// schemeFault explains why raw starts with neither "https://" nor "http://".
func schemeFault(raw string) *fault {
	scheme, after, ok := strings.Cut(raw, ":")
	switch lower := strings.ToLower(scheme); {
	case ok && (lower == "https" || lower == "http") && !strings.HasPrefix(after, "//"):
		return &fault{"URL-01", "does not start with https:// and a host"}
	case ok && lower == "https":
		return &fault{"URL-01", "has upper-case letters in its scheme; write https"}
	case ok && lower == "http":
		return &fault{"URL-18", "uses http; use https"}
	}
	return &fault{"URL-01", "is not an https URL"}
}

// checkChars bounds the length and admits the characters of RFC 3986 only.
func checkChars(raw string) *fault {
	if raw == "" {
		return &fault{"URL-10", "is empty"}
	}
	if len(raw) > MaxIDLength {
		return &fault{"URL-10", "is longer than 2048 characters"}
	}
	for i := range len(raw) {
		switch c := raw[i]; {
		case c <= ' ' || c == 0x7f:
			return &fault{"URL-10", "has a space or a control character"}
		case c > 0x7f:
			return &fault{"URL-10", "has a character outside ASCII; write an international host name as its A-label (xn--)"}
		case c == '\\':
			return &fault{"URL-10", "has a backslash"}
		case strings.IndexByte("\"<>^`{|}", c) >= 0:
			return &fault{"URL-10", "has a character that a URL cannot hold"}
		}
	}
	return nil
}

// splitAuthority fills in host, port and ip.
func (p *urlParts) splitAuthority(authority string) *fault {
	p.host = authority
	if strings.HasPrefix(authority, "[") {
		i := strings.IndexByte(authority, ']')
		if i < 0 {
			return &fault{"URL-11", "has an IPv6 address without its closing bracket"}
		}
		p.host, p.colonPort = authority[:i+1], authority[i+1:]
	} else if i := strings.IndexByte(authority, ':'); i >= 0 {
		p.host, p.colonPort = authority[:i], authority[i:]
	}
	if p.colonPort != "" {
		n, ok := parsePort(p.colonPort)
		if !ok {
			return &fault{"URL-06", "has a port that is not a number from 1 to 65535 without leading zeros"}
		}
		p.port = n
	}
	return p.checkHost()
}

// parsePort reads ":8080". It refuses an empty port, zero, leading zeros and
// numbers above 65535.
func parsePort(colonPort string) (uint16, bool) {
	digits, ok := strings.CutPrefix(colonPort, ":")
	if !ok || digits == "" || len(digits) > 5 || digits[0] == '0' {
		return 0, false
	}
	n := 0
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
		n = n*10 + int(digits[i]-'0')
	}
	return uint16(n), n <= 65535
}

// checkHost checks the syntax of the host: an IP address in its one canonical
// form, or a DNS name of letters, digits and hyphens whose A-labels are valid.
func (p *urlParts) checkHost() *fault {
	host := p.host
	switch {
	case host == "":
		return &fault{"URL-11", "has no host"}
	case host[0] == '[':
		a, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || a.Zone() != "" || !a.Is6() || a.String() != host[1:len(host)-1] {
			return &fault{"URL-11", "has an IPv6 address that is malformed, not in its shortest form, or has a zone"}
		}
		p.ip = true
		return nil
	case len(host) > 253:
		return &fault{"URL-10", "has a host name longer than 253 characters"}
	case strings.HasSuffix(host, "."):
		return &fault{"URL-10", "has a host name that ends with a dot"}
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if f := checkLabel(label); f != nil {
			return f
		}
		last = label
	}
	if !numericLabel(last) {
		return nil
	}
	// A host that ends in a number is an IPv4 address to every browser, whatever
	// its notation; only the dotted one means the same to everybody.
	a, err := netip.ParseAddr(host)
	if err != nil || !a.Is4() {
		return &fault{"URL-11", "has a host that ends in a number but is no plain IPv4 address"}
	}
	p.ip = true
	return nil
}

func checkLabel(label string) *fault {
	switch {
	case label == "":
		return &fault{"URL-10", "has an empty label in its host name"}
	case len(label) > 63:
		return &fault{"URL-10", "has a host name label longer than 63 characters"}
	case label[0] == '-' || label[len(label)-1] == '-':
		return &fault{"URL-10", "has a host name label that starts or ends with a hyphen"}
	}
	for i := range len(label) {
		if c := label[i]; !isAlnum(c) && c != '-' {
			return &fault{"URL-10", "has a host name with characters other than letters, digits and hyphens"}
		}
	}
	if len(label) > 3 && strings.EqualFold(label[:4], "xn--") && !validALabel(strings.ToLower(label)) {
		return &fault{"URL-10", "has a host name with an invalid A-label (xn--)"}
	}
	return nil
}

// validALabel reports whether an xn-- label is what its own decoding encodes to,
// and decodes to permitted characters (RFC 5891).
func validALabel(label string) bool {
	u, err := idna.Registration.ToUnicode(label)
	if err != nil || u == label {
		return false
	}
	a, err := idna.Registration.ToASCII(u)
	return err == nil && a == label
}

// numericLabel reports whether a label is a number in the sense of the WHATWG
// URL standard: digits, or 0x and hexadecimal digits.
func numericLabel(label string) bool {
	if len(label) >= 2 && label[0] == '0' && label[1]|0x20 == 'x' {
		return strings.Trim(label[2:], "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// specialNames are top-level and infrastructure domains that never name a public
// web host (RFC 6761 and its registry, RFC 9476, RFC 8375).
var specialNames = []string{"localhost", "local", "internal", "onion", "invalid", "arpa", "alt"}

// testNames are reserved for testing and documentation (RFC 6761).
var testNames = []string{"test", "example"}

// checkPublicName refuses names that no public DNS server answers for (URL-11).
func checkPublicName(host string, allowTestNames bool) *fault {
	i := strings.LastIndexByte(host, '.')
	tld := strings.ToLower(host[i+1:])
	switch {
	case slices.Contains(specialNames, tld):
		return &fault{"URL-11", "has a special-use host name, which is not reachable from the internet"}
	case i < 0:
		return &fault{"URL-11", "has a host name of a single label; use a public host name"}
	case tld[0] <= '9':
		return &fault{"URL-11", "has a host under a domain that starts with a digit; there is none"}
	case !allowTestNames && slices.Contains(testNames, tld):
		return &fault{"URL-11", "has a host name that is reserved for tests"}
	}
	return nil
}

// isLoopbackHost reports whether host is one of the three spellings of this
// computer. No other spelling counts.
func isLoopbackHost(host string) bool {
	return host == "127.0.0.1" || host == "[::1]" || host == "localhost"
}

// validPercent reports whether each % starts an encoded octet that is no control
// character.
func validPercent(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		if i+2 >= len(s) {
			return false
		}
		hi, lo := unhex(s[i+1]), unhex(s[i+2])
		if hi < 0 || lo < 0 || hi < 2 || hi == 7 && lo == 15 {
			return false
		}
		i += 2
	}
	return true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// hasDotSegment reports whether some component on the way to the document could
// read a "." or ".." segment in path: dots may be percent-encoded, and encoded
// slashes and backslashes count as separators (URL-04).
func hasDotSegment(path string) bool {
	if strings.IndexByte(path, '.') < 0 && strings.IndexByte(path, '%') < 0 {
		return false
	}
	dots, others := 0, 0
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			c = byte(unhex(path[i+1])<<4 | unhex(path[i+2]))
			i += 2
			if c == '\\' {
				c = '/'
			}
		}
		switch c {
		case '/':
			if others == 0 && (dots == 1 || dots == 2) {
				return true
			}
			dots, others = 0, 0
		case '.':
			dots++
		default:
			others++
		}
	}
	return others == 0 && (dots == 1 || dots == 2)
}
