package oauth

import (
	"net/url"
	"strings"
)

// MatchRedirect reports whether a requested redirect URI is the registered one.
// The comparison is byte for byte, with one exception: an http URI whose host is
// exactly 127.0.0.1, [::1] or localhost may differ in its port, which a native
// application learns only when it listens (OAuth 2.1 section 8.4.2; AUTHZ-03,
// AUTHZ-04, AUTHZ-05). The three names never stand for one another. This is the
// only redirect matcher of the house.
func MatchRedirect(registered, requested string) bool {
	if registered == requested {
		return true
	}
	a, aok := splitLoopback(registered)
	b, bok := splitLoopback(requested)
	return aok && bok && a == b
}

// LoopbackRedirect reports whether uri is an http redirect to this computer.
func LoopbackRedirect(uri string) bool {
	_, ok := splitLoopback(uri)
	return ok
}

type loopback struct{ host, rest string }

// splitLoopback takes a loopback URI apart without normalizing anything. The
// port, if there is one, must be 1 to 5 digits that form a usable number.
func splitLoopback(uri string) (loopback, bool) {
	after, ok := strings.CutPrefix(uri, "http://")
	if !ok {
		return loopback{}, false
	}
	end := strings.IndexAny(after, "/?")
	if end < 0 {
		end = len(after)
	}
	authority, rest := after[:end], after[end:]
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
		tail, ok := strings.CutPrefix(authority, host)
		if !ok {
			continue
		}
		if tail == "" || validPort(tail) {
			return loopback{host, rest}, !strings.Contains(rest, "#")
		}
	}
	return loopback{}, false
}

func validPort(colonPort string) bool {
	p, ok := strings.CutPrefix(colonPort, ":")
	if !ok || p == "" || len(p) > 5 || p[0] == '0' {
		return false
	}
	n := 0
	for i := range len(p) {
		if p[i] < '0' || p[i] > '9' {
			return false
		}
		n = n*10 + int(p[i]-'0')
	}
	return n <= 65535
}

// AppendQuery returns uri with the pairs added to its query. What the query
// already holds stays as it is, byte for byte (AUTHZ-14). Pairs are name, value,
// name, value; a pair with an empty value is left out.
func AppendQuery(uri string, pairs ...string) string {
	var b strings.Builder
	b.WriteString(uri)
	sep := byte('?')
	if i := strings.IndexByte(uri, '?'); i >= 0 {
		sep = '&'
		if i == len(uri)-1 || strings.HasSuffix(uri, "&") {
			sep = 0
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		if sep != 0 {
			b.WriteByte(sep)
		}
		sep = '&'
		b.WriteString(url.QueryEscape(pairs[i]))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(pairs[i+1]))
	}
	return b.String()
}
