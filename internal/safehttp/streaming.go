package safehttp

import "net/http"

// Streaming returns a transport for calls to a peer that the user named, such as
// an MCP server, whose answers may be long or have no end. It is Trusted's
// transport without a limit on the body, on the wait for the first byte and on
// the number of connections: the caller's context ends a call.
func Streaming(c TrustedConfig) http.RoundTripper {
	t := Trusted(c).Transport.(bounded).next
	t.ResponseHeaderTimeout, t.MaxConnsPerHost = 0, 0
	return t
}
