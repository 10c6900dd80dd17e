package cimd

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/bonafide-id/bonafide/internal/planted"
)

// Limits on any document. More is refused, never cut off.
const (
	MaxDocument = 64 << 10 // bytes, also for Lint; a resolver's own limit is lower
	MaxDepth    = 16       // nesting
	MaxMembers  = 128      // members of one object
	MaxItems    = 256      // items of one array
	maxValues   = 4096     // values in the whole document
	maxNumber   = 64       // characters of one number
)

// valueKind is the type of a JSON value.
type valueKind uint8

const (
	kindNull valueKind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

var kindNames = [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}

func (k valueKind) String() string { return kindNames[k] }

// value is one JSON value. It refers to the text it was read from.
type value struct {
	kind       valueKind
	truth      bool
	text       string // a string after unescaping, or a number as written
	items      []value
	members    []member
	start, end int // extent in the source text
}

type member struct {
	name string
	val  value
}

// get returns the member with exactly this name (DO-04: the case matters), or
// nil.
func (v *value) get(name string) *value {
	for i := range v.members {
		if v.members[i].name == name {
			return &v.members[i].val
		}
	}
	return nil
}

// parseObject reads one JSON object and nothing else, strictly: valid UTF-8
// without a byte order mark, no duplicate names at any depth, no lone
// surrogates, no NUL, numbers a double can hold, and bounds on everything
// (DOC-01).
func parseObject(src string) (*value, error) {
	if len(src) > MaxDocument {
		return nil, fmt.Errorf("it is larger than %d bytes", MaxDocument)
	}
	if !utf8.ValidString(src) {
		return nil, fmt.Errorf("it is not valid UTF-8")
	}
	if strings.HasPrefix(src, "\ufeff") {
		return nil, fmt.Errorf("it starts with a byte order mark")
	}
	s := scanner{src: src}
	s.space()
	v, err := s.value(0)
	if err != nil {
		return nil, err
	}
	if s.space(); s.pos < len(src) {
		return nil, s.fail("there is something after the end of the object")
	}
	if v.kind != kindObject {
		return nil, fmt.Errorf("it is %s, not an object", v.kind)
	}
	return &v, nil
}

type scanner struct {
	src    string
	pos    int
	values int
}

func (s *scanner) fail(text string) error { return fmt.Errorf("%s (at byte %d)", text, s.pos) }

func (s *scanner) space() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

func (s *scanner) value(depth int) (value, error) {
	if s.values++; s.values > maxValues {
		return value{}, s.fail("it holds too many values")
	}
	v := value{start: s.pos}
	var err error
	switch c := s.peek(); {
	case c == '{' || c == '[':
		if depth >= MaxDepth {
			return v, s.fail("it is nested too deeply")
		}
		if c == '{' {
			v.kind = kindObject
			v.members, err = s.object(depth + 1)
		} else {
			v.kind = kindArray
			v.items, err = s.array(depth + 1)
		}
	case c == '"':
		v.kind = kindString
		v.text, err = s.str()
	case c == '-' || '0' <= c && c <= '9':
		v.kind = kindNumber
		v.text, err = s.number()
	case s.word("true"):
		v.kind, v.truth = kindBool, true
	case s.word("false"):
		v.kind = kindBool
	case s.word("null"):
		v.kind = kindNull
	case s.pos == len(s.src):
		err = s.fail("it ends too early")
	default:
		err = s.fail("there is no JSON value where one must be")
	}
	v.end = s.pos
	return v, err
}

func (s *scanner) word(w string) bool {
	if strings.HasPrefix(s.src[s.pos:], w) {
		s.pos += len(w)
		return true
	}
	return false
}

// next reads what follows a member or an item: a comma or the closing bracket.
func (s *scanner) next(closing byte) (more bool, err error) {
	s.space()
	switch s.peek() {
	case ',':
		s.pos++
		s.space()
		return true, nil
	case closing:
		s.pos++
		return false, nil
	}
	return false, s.fail("a comma or a closing bracket is missing")
}

func (s *scanner) object(depth int) ([]member, error) {
	s.pos++
	if s.space(); s.peek() == '}' {
		s.pos++
		return nil, nil
	}
	members := make([]member, 0, 8)
	for more := true; more; {
		if s.peek() != '"' {
			return nil, s.fail("a member name in double quotes is missing")
		}
		if len(members) == MaxMembers {
			return nil, s.fail("an object has too many members")
		}
		name, err := s.str()
		if err != nil {
			return nil, err
		}
		for i := range members {
			if members[i].name == name && !planted.Weak("twice") {
				return nil, s.fail("a member name occurs twice in one object")
			}
		}
		if s.space(); s.peek() != ':' {
			return nil, s.fail("a colon is missing after a member name")
		}
		s.pos++
		s.space()
		v, err := s.value(depth)
		if err != nil {
			return nil, err
		}
		members = append(members, member{name, v})
		if more, err = s.next('}'); err != nil {
			return nil, err
		}
	}
	return members, nil
}

func (s *scanner) array(depth int) ([]value, error) {
	s.pos++
	if s.space(); s.peek() == ']' {
		s.pos++
		return nil, nil
	}
	var items []value
	for more := true; more; {
		if len(items) == MaxItems {
			return nil, s.fail("an array has too many items")
		}
		v, err := s.value(depth)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
		if more, err = s.next(']'); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// str reads a string. Without escapes it is a part of the source text.
func (s *scanner) str() (string, error) {
	s.pos++
	start := s.pos
	var out []byte // nil until the first escape
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; {
		case c == '"':
			text := s.src[start:s.pos]
			s.pos++
			if out != nil {
				return string(append(out, text...)), nil
			}
			return text, nil
		case c < 0x20:
			return "", s.fail("a string holds a control character that is not escaped")
		case c == '\\':
			out = append(out, s.src[start:s.pos]...)
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
			start = s.pos
		default:
			s.pos++
		}
	}
	return "", s.fail("a string has no end")
}

// escapes maps the letter after a backslash to what it stands for.
var escapes = [256]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (s *scanner) escape() (rune, error) {
	if s.pos+1 >= len(s.src) {
		return 0, s.fail("a string has no end")
	}
	c := s.src[s.pos+1]
	if c != 'u' {
		r := escapes[c]
		if r == 0 {
			return 0, s.fail("an escape sequence is unknown")
		}
		s.pos += 2
		return r, nil
	}
	r, ok := s.unicodeEscape()
	if ok && utf16.IsSurrogate(r) {
		low, lowOK := s.unicodeEscape()
		r = utf16.DecodeRune(r, low)
		ok = lowOK && r != utf8.RuneError
	}
	switch {
	case !ok:
		return 0, s.fail("a \\u escape is malformed or half of a surrogate pair")
	case r == 0:
		return 0, s.fail("a string holds the character NUL")
	}
	return r, nil
}

// unicodeEscape reads one \uXXXX.
func (s *scanner) unicodeEscape() (rune, bool) {
	if s.pos+6 > len(s.src) || s.src[s.pos] != '\\' || s.src[s.pos+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(s.src[s.pos+2 : s.pos+6]) {
		d := unhex(c)
		if d < 0 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	s.pos += 6
	return r, true
}

// number reads a number by the grammar of RFC 8259 section 6.
func (s *scanner) number() (string, error) {
	start := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	ok := true
	if s.peek() == '0' {
		s.pos++
	} else {
		ok = s.digits()
	}
	if s.peek() == '.' {
		s.pos++
		ok = s.digits() && ok
	}
	if s.peek()|0x20 == 'e' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		ok = s.digits() && ok
	}
	text := s.src[start:s.pos]
	if !ok {
		return "", s.fail("a number is malformed")
	}
	if len(text) > maxNumber {
		return "", s.fail("a number is too long")
	}
	if _, err := strconv.ParseFloat(text, 64); err != nil {
		return "", s.fail("a number is too large")
	}
	return text, nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos > start
}
