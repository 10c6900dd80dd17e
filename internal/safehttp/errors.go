package safehttp

// Kind says at which step a fetch failed.
type Kind string

// The steps at which a fetch can fail.
const (
	KindURL      Kind = "url"       // the URL itself: scheme, host syntax, port; nothing was sent
	KindAddress  Kind = "address"   // the name has no address that may be dialled
	KindDNS      Kind = "dns"       // the name could not be resolved
	KindConnect  Kind = "connect"   // no connection to any permitted address, or to the proxy
	KindTLS      Kind = "tls"       // handshake or certificate
	KindTimeout  Kind = "timeout"   // the deadline passed, or the caller went away
	KindTooLarge Kind = "too_large" // more bytes than the request allows
	KindProtocol Kind = "protocol"  // the answer is not HTTP as we accept it
)

// Error is every error of Get. Its text names addresses and is for logs only:
// a forbidden address and a dead host must look the same from outside.
type Error struct {
	Kind Kind
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return string(e.Kind) + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
