package jose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// member is one name and value of a JSON object, as written.
type member struct {
	name  string
	value []byte
}

// Object splits a JSON object into its members. It is stricter than
// encoding/json: names are compared byte for byte after unescaping, a name
// that stands twice in an object at any depth is refused, and so are invalid
// UTF-8, trailing bytes and nesting deeper than 16. The values point into raw.
func Object(raw []byte) (map[string]json.RawMessage, error) {
	list, err := members(raw)
	if err != nil {
		return nil, err
	}
	out := make(map[string]json.RawMessage, len(list))
	for _, m := range list {
		out[m.name] = m.value
	}
	return out, nil
}

// members is Object in the order of the text.
func members(raw []byte) ([]member, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("JSON is not valid UTF-8")
	}
	if !json.Valid(raw) {
		return nil, errors.New("not valid JSON")
	}
	s := scanner{data: bytes.TrimSpace(raw)}
	if s.data[0] != '{' {
		return nil, errors.New("not a JSON object")
	}
	return s.object(1)
}

// elements splits a JSON array that members has already accepted.
func elements(raw []byte) ([][]byte, error) {
	s := scanner{data: raw}
	if len(raw) == 0 || raw[0] != '[' {
		return nil, errors.New("not a JSON array")
	}
	return s.array(1)
}

// scanner walks JSON that json.Valid has accepted, so that it only has to
// find where values end.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) space() {
	for {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n', ',', ':':
			s.pos++ // json.Valid vouched for commas and colons
		default:
			return
		}
	}
}

func (s *scanner) object(depth int) ([]member, error) {
	if depth > maxDepth {
		return nil, errors.New("JSON is nested too deeply")
	}
	out := make([]member, 0, 8)
	s.pos++
	for {
		s.space()
		if s.data[s.pos] == '}' {
			s.pos++
			return out, nil
		}
		name, err := text(s.string())
		if err != nil {
			return nil, err
		}
		for i := range out {
			if out[i].name == name {
				return nil, fmt.Errorf("JSON object has a member twice: %.64q", name)
			}
		}
		if len(out) == maxMembers {
			return nil, errors.New("JSON object has too many members")
		}
		s.space()
		value, err := s.value(depth)
		if err != nil {
			return nil, err
		}
		out = append(out, member{name, value})
	}
}

func (s *scanner) array(depth int) ([][]byte, error) {
	if depth > maxDepth {
		return nil, errors.New("JSON is nested too deeply")
	}
	var out [][]byte
	s.pos++
	for {
		s.space()
		if s.data[s.pos] == ']' {
			s.pos++
			return out, nil
		}
		value, err := s.value(depth)
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
}

func (s *scanner) value(depth int) ([]byte, error) {
	start := s.pos
	var err error
	switch s.data[s.pos] {
	case '{':
		_, err = s.object(depth + 1)
	case '[':
		_, err = s.array(depth + 1)
	case '"':
		s.string()
	default: // a number or a literal
		for s.pos < len(s.data) && bytes.IndexByte([]byte(",]} \t\r\n"), s.data[s.pos]) < 0 {
			s.pos++
		}
	}
	return s.data[start:s.pos], err
}

func (s *scanner) string() []byte {
	start := s.pos
	for s.pos++; s.data[s.pos] != '"'; s.pos++ {
		if s.data[s.pos] == '\\' {
			s.pos++
		}
	}
	s.pos++
	return s.data[start:s.pos]
}

// text returns the value of a JSON string, and an error for any other value.
func text(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", errors.New("not a JSON string")
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var v string
	err := json.Unmarshal(raw, &v)
	return v, err
}
