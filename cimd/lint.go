package cimd

// Severity says whether a finding stops the client.
type Severity string

// The severities.
const (
	SeverityError   Severity = "error"   // the document is invalid
	SeverityWarning Severity = "warning" // the document works, with the stated loss
)

// Finding is one thing that Lint has to say about a document.
type Finding struct {
	Rule     string
	Member   string
	Severity Severity
	Text     string
}

// Lint reads a document like Validate does, with the same code and the same
// rules, but goes on after the first error and returns everything it found. The
// document is nil if a finding is an error (DOC-31).
func Lint(id ID, body []byte, p Profile, s Supported) (*Document, []Finding) { return nil, nil }
