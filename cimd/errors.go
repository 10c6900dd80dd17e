package cimd

import "time"

// Kind says at which step a client_id URL failed to become a document. The list
// is closed: a caller may switch over it.
type Kind string

// The kinds of failure, in the order in which they can happen.
const (
	KindURL      Kind = "client_id_url"      // the client_id is not a usable URL; nothing was fetched
	KindDisabled Kind = "disabled"           // the resolver is switched off
	KindRefused  Kind = "refused"            // the Admit hook said no; nothing was fetched
	KindBusy     Kind = "busy"               // a fetch budget is spent; see Error.RetryAfter
	KindBackoff  Kind = "backoff"            // the last fetch failed a moment ago; see Error.RetryAfter
	KindFetch    Kind = "fetch"              // no response: network, TLS, time limit, or an address that is never dialled
	KindStatus   Kind = "status"             // a response with a status other than 200
	KindGone     Kind = "gone"               // 404 or 410: the client has withdrawn itself
	KindType     Kind = "content_type"       // not a JSON media type
	KindTooLarge Kind = "too_large"          // more bytes than the limit
	KindDocument Kind = "document"           // the document breaks a rule
	KindMismatch Kind = "client_id_mismatch" // the document names another client_id
)

// Error is the failure to turn a client_id URL into a document.
type Error struct {
	Kind Kind
	// Rule is the requirement that was broken, such as "FETCH-02"; it may be empty.
	Rule string
	// Hint tells the client's developer what was expected and what was seen. It
	// is safe to show: it never holds fetched bytes or inner addresses, and a
	// forbidden address reads the same as a network failure.
	Hint string
	// RetryAfter is how long to wait before the answer can differ; 0 means unknown.
	RetryAfter time.Duration
	// Err is the private cause, for logs only; it may be nil.
	Err error
}

// Error implements error. The text is for logs: it includes the private cause.
func (e *Error) Error() string {
	s := "client metadata: " + string(e.Kind) + ": " + e.Hint
	if e.Rule != "" {
		s += " [" + e.Rule + "]"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.Err }

// Warning is something that does not stop a client but that its developer or the
// operator should know: a member that was ignored, a value that was dropped.
// Text never repeats bytes of the document.
type Warning struct {
	Rule   string // the requirement, such as "DOC-20"
	Member string // the member of the document, such as "grant_types[2]"; "" for the whole
	Text   string
}

// String returns the warning as one line.
func (w Warning) String() string {
	if w.Member == "" {
		return w.Text + " [" + w.Rule + "]"
	}
	return w.Member + ": " + w.Text + " [" + w.Rule + "]"
}

// urlError returns the error of a client_id that is not a usable URL.
func urlError(rule, hint string) *Error { return &Error{Kind: KindURL, Rule: rule, Hint: hint} }
