package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
	"golang.org/x/text/unicode/norm"
)

// DetailType is one type of authorization_details that a resource understands
// (RFC 9396): a permission with particulars, such as which folder.
type DetailType struct {
	Type        string
	Title       string // "work in one of your folders"
	Description string
	Scope       string // the scope that a request must have with it; "" for none
	Fields      []DetailField
}

// DetailField is one particular of a type.
type DetailField struct {
	Name     string
	Title    string // "Folder"
	Kind     string // KindText, KindNumber or KindBoolean; "" is KindText
	Values   []string
	Many     bool // a list of texts
	Required bool
	Max      int // characters of a text; 0 is 64
}

// What a field may hold. A text with Values is one of them.
const (
	KindText    = "text"
	KindNumber  = "number"
	KindBoolean = "boolean"
)

// Limits on one authorization_details parameter. More is refused, never cut:
// people have to be able to read what they agree to.
const (
	MaxDetails     = 4096 // bytes as sent
	maxDetailCount = 8
	maxDetailList  = 16
	maxDetailText  = 256 // characters, whatever Max says
	detailText     = 64
)

// Detail is one entry of authorization_details, in words.
type Detail struct {
	Type  DetailType
	Facts []DetailFact // in the order of the type's fields
}

// DetailFact is one particular of an entry, in words.
type DetailFact struct {
	Title  string
	Values []string
}

// Details is what a request asks for beside scopes.
type Details struct {
	Entries []Detail
	JSON    string // the array as it is granted: only known members, in a fixed order; "" for none
}

// members of every type.
const (
	memberType      = "type"
	memberLocations = "locations" // RFC 9396 section 2.2
)

// DetailTypes returns the names of all types of all resources, in the order of
// the configuration.
func (s *Set) DetailTypes() []string {
	var out []string
	for i := range s.Resources {
		for _, t := range s.Resources[i].Details {
			if !slices.Contains(out, t.Type) {
				out = append(out, t.Type)
			}
		}
	}
	return out
}

// ReadDetails reads an authorization_details parameter for the resource. Every
// entry must be of a type that the resource knows and hold nothing but what the
// type allows: what is not understood cannot be shown to a person and is never
// granted (RFC 9396 section 5). The error is for the client's developer.
func (s *Set) ReadDetails(r *Resource, raw string) (Details, error) {
	if len(raw) > MaxDetails {
		return Details{}, fmt.Errorf("authorization_details is longer than %d bytes", MaxDetails)
	}
	var entries []json.RawMessage
	if json.Unmarshal([]byte(raw), &entries) != nil || len(entries) == 0 {
		return Details{}, errors.New("authorization_details must be a JSON array with at least one object")
	}
	if len(entries) > maxDetailCount {
		return Details{}, fmt.Errorf("authorization_details has more than %d entries", maxDetailCount)
	}
	var out Details
	granted := make([]map[string]any, 0, len(entries))
	for i, e := range entries {
		d, wire, err := s.readDetail(r, e)
		if err != nil {
			return Details{}, fmt.Errorf("authorization_details[%d]: %w", i, err)
		}
		out.Entries, granted = append(out.Entries, d), append(granted, wire)
	}
	b, err := json.Marshal(granted) // sorts the members
	out.JSON = string(b)
	return out, err
}

// KeepDetails returns what is left of granted details for a token with these
// scopes: the entries that the resource would still take as they stand, and whose
// scope is among them. It is "" when nothing is left.
func (s *Set) KeepDetails(r *Resource, granted string, scopes oauth.Scopes) string {
	var entries, left []json.RawMessage
	if granted == "" || json.Unmarshal([]byte(granted), &entries) != nil {
		return ""
	}
	held := r.Expand(scopes)
	for _, e := range entries {
		if d, _, err := s.readDetail(r, e); err == nil && (d.Type.Scope == "" || held.Has(d.Type.Scope)) {
			left = append(left, e)
		}
	}
	if len(left) == 0 {
		return ""
	}
	b, err := json.Marshal(left)
	if err != nil {
		return ""
	}
	return string(b)
}

// SelectDetails returns the entries of granted details that a later request names
// (RFC 9396 section 6), each of which must be one of them as it stands: what lies
// within another only its type could tell. The error is for the client's developer.
func (s *Set) SelectDetails(r *Resource, granted, asked string) (string, error) {
	d, err := s.ReadDetails(r, asked)
	if err != nil {
		return "", err
	}
	var held, wanted []json.RawMessage
	if granted != "" {
		err = json.Unmarshal([]byte(granted), &held)
	}
	if err = errors.Join(err, json.Unmarshal([]byte(d.JSON), &wanted)); err != nil {
		return "", err
	}
	for i, w := range wanted {
		if !slices.ContainsFunc(held, func(h json.RawMessage) bool { return bytes.Equal(h, w) }) {
			return "", fmt.Errorf("authorization_details[%d] is not one of those that were granted", i)
		}
	}
	return d.JSON, nil
}

func (s *Set) readDetail(r *Resource, raw json.RawMessage) (d Detail, wire map[string]any, err error) {
	members, err := jose.Object(raw)
	if err != nil {
		return d, nil, err
	}
	var name string
	if json.Unmarshal(members[memberType], &name) != nil || name == "" {
		return d, nil, errors.New("type is missing")
	}
	i := slices.IndexFunc(r.Details, func(t DetailType) bool { return t.Type == name })
	if i < 0 {
		return d, nil, errors.New("the resource has no such type")
	}
	d.Type = r.Details[i]
	wire = map[string]any{memberType: name}
	if v, ok := members[memberLocations]; ok {
		if err := s.here(r, v); err != nil {
			return d, nil, err
		}
		wire[memberLocations] = []string{r.ID}
	}
	delete(members, memberType)
	delete(members, memberLocations)
	for _, f := range d.Type.Fields {
		v, ok := members[f.Name]
		if !ok {
			if f.Required {
				return d, nil, fmt.Errorf("%s is missing", f.Name)
			}
			continue
		}
		delete(members, f.Name)
		fact, value, err := f.read(v)
		if err != nil {
			return d, nil, fmt.Errorf("%s %w", f.Name, err)
		}
		d.Facts, wire[f.Name] = append(d.Facts, fact), value
	}
	if len(members) > 0 {
		return d, nil, errors.New("holds a member that the type does not have")
	}
	return d, wire, nil
}

// here checks that locations name the resource of the request and nothing else:
// a token is for one resource.
func (s *Set) here(r *Resource, raw json.RawMessage) error {
	var at []string
	if json.Unmarshal(raw, &at) != nil || len(at) == 0 || len(at) > maxDetailList {
		return errors.New("locations must be a list of resources")
	}
	for _, id := range at {
		if found, ok := s.Resource(id); !ok || found.ID != r.ID {
			return errors.New("locations may name only the resource of the request")
		}
	}
	return nil
}

// plainNumber is a number that reads the same for people and programs.
var plainNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,6})?$`)

func (f *DetailField) read(raw json.RawMessage) (DetailFact, any, error) {
	fact := DetailFact{Title: f.Title}
	switch {
	case f.Kind == KindNumber:
		if !plainNumber.Match(raw) {
			return fact, nil, errors.New("must be a plain number")
		}
		fact.Values = []string{string(raw)}
		return fact, json.Number(raw), nil
	case f.Kind == KindBoolean:
		switch string(raw) {
		case "true":
			fact.Values = []string{"yes"}
			return fact, true, nil
		case "false":
			fact.Values = []string{"no"}
			return fact, false, nil
		}
		return fact, nil, errors.New("must be true or false")
	case f.Many:
		var list []*string
		if json.Unmarshal(raw, &list) != nil || len(list) == 0 || len(list) > maxDetailList {
			return fact, nil, fmt.Errorf("must be a list of 1 to %d texts", maxDetailList)
		}
		for _, v := range list {
			if v == nil || slices.Contains(fact.Values, *v) {
				return fact, nil, errors.New("must be a list of different texts")
			}
			if err := f.text(*v); err != nil {
				return fact, nil, err
			}
			fact.Values = append(fact.Values, *v)
		}
		return fact, fact.Values, nil
	}
	var v *string
	if json.Unmarshal(raw, &v) != nil || v == nil {
		return fact, nil, errors.New("must be a text")
	}
	if err := f.text(*v); err != nil {
		return fact, nil, err
	}
	fact.Values = []string{*v}
	return fact, *v, nil
}

// text checks one text: one of the values, or something that shows on a page as
// what it is, without letters that turn or hide others.
func (f *DetailField) text(v string) error {
	if len(f.Values) > 0 {
		if !slices.Contains(f.Values, v) {
			return fmt.Errorf("must be one of %s", strings.Join(f.Values, ", "))
		}
		return nil
	}
	most := f.Max
	if most == 0 {
		most = detailText
	}
	switch {
	case strings.Join(strings.Fields(v), " ") != v || v == "":
		return errors.New("must be a text without space around it, and with one between words")
	case utf8.RuneCountInString(v) > most:
		return fmt.Errorf("is longer than %d characters", most)
	case strings.ContainsFunc(v, hidden):
		return errors.New("holds a character that cannot be shown")
	case !norm.NFC.IsNormalString(v):
		return errors.New("must be in Unicode normal form C; it looks like another text")
	case piled(v):
		return errors.New("holds a pile of marks")
	}
	return nil
}

// hidden reports whether people cannot see a character, or cannot tell which of
// several it is: two texts with different hidden characters are two permissions
// that look the same.
func hidden(c rune) bool {
	return !unicode.IsPrint(c) || c == utf8.RuneError || c == 0x2800 || // braille pattern blank
		unicode.In(c, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) || c == 0x034f // combining grapheme joiner
}

// piled reports whether more marks stand on one letter than any language needs.
func piled(s string) bool {
	const most = 4
	marks := 0
	for _, c := range s {
		if !unicode.Is(unicode.M, c) {
			marks = 0
		} else if marks++; marks > most {
			return true
		}
	}
	return false
}

// checkDetails reports what is wrong with the types of a resource.
func (r *Resource) checkDetails() error {
	seen := map[string]bool{}
	for i := range r.Details {
		t := &r.Details[i]
		switch {
		case !oauth.ValidScope(t.Type):
			return fmt.Errorf("resource %s: %q is not a type of authorization_details", r.ID, t.Type)
		case seen[t.Type]:
			return fmt.Errorf("resource %s: the type %s stands twice", r.ID, t.Type)
		case t.Title == "":
			return fmt.Errorf("resource %s: the type %s needs a title; people read it when they are asked", r.ID, t.Type)
		}
		seen[t.Type] = true
		if _, ok := r.Scope(t.Scope); t.Scope != "" && !ok {
			return fmt.Errorf("resource %s: the type %s goes with scope %s, which is not among its scopes", r.ID, t.Type, t.Scope)
		}
		if err := t.check(); err != nil {
			return fmt.Errorf("resource %s: the type %s: %w", r.ID, t.Type, err)
		}
	}
	return nil
}

func (t *DetailType) check() error {
	seen := map[string]bool{memberType: true, memberLocations: true}
	for i := range t.Fields {
		f := &t.Fields[i]
		switch {
		case !oauth.ValidScope(f.Name):
			return fmt.Errorf("%q is not the name of a field", f.Name)
		case seen[f.Name]:
			return fmt.Errorf("the field %s stands twice, or belongs to every type", f.Name)
		case f.Title == "":
			return fmt.Errorf("the field %s needs a title; people read it when they are asked", f.Name)
		case !slices.Contains([]string{"", KindText, KindNumber, KindBoolean}, f.Kind):
			return fmt.Errorf("the field %s: kind is %q; it must be text, number or boolean", f.Name, f.Kind)
		case f.Kind != "" && f.Kind != KindText && (len(f.Values) > 0 || f.Many || f.Max != 0):
			return fmt.Errorf("the field %s: values, many and max are for texts", f.Name)
		case f.Max < 0 || f.Max > maxDetailText:
			return fmt.Errorf("the field %s: max is not between 1 and %d", f.Name, maxDetailText)
		}
		seen[f.Name] = true
	}
	return nil
}
