package cimd

// Severity says whether a finding stops the client.
type Severity string

// The severities.
const (
	SeverityError   Severity = "error"   // the document is invalid
	SeverityWarning Severity = "warning" // the document works, with the stated loss
)

// Finding is one thing to say about a document. Text never repeats bytes of it.
type Finding struct {
	Rule     string // the requirement, such as "DOC-09"
	Member   string // where, such as "redirect_uris[2]"; "" for the whole document
	Severity Severity
	Text     string
}

// String returns the finding as one line.
func (f Finding) String() string {
	return string(f.Severity) + ": " + Warning{f.Rule, f.Member, f.Text}.String()
}

// Lint reads a document with the code and the rules of [Validate], but returns
// everything it found and not only the first error. The document is nil exactly
// if a finding is an error (DOC-31).
func Lint(id ID, body []byte, p Profile, s Supported) (*Document, []Finding) {
	r := read(id, body, p, s)
	if r.invalid != nil {
		return nil, r.findings
	}
	return r.doc, r.findings
}
