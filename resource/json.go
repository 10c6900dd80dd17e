package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// Two readers must not see two different messages in one body. encoding/json
// takes the last of two equal names and ignores case; other readers take the
// first, or mind case. So what is decided upon here is read strictly.

var (
	errDuplicate = errors.New("a member name stands twice")
	errNotObject = errors.New("not a JSON object")
	errMembers   = errors.New("too many members")
)

const maxMembers = 256

// validJSON reports whether raw is one JSON value in valid UTF-8.
func validJSON(raw []byte) bool { return utf8.Valid(raw) && json.Valid(raw) }

// members calls each for every member of a JSON object in order. raw must be
// valid JSON. A name that stands twice, in whatever escapes, is an error.
func members(raw []byte, each func(name string, value []byte) error) error {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 || raw[0] != '{' {
		return errNotObject
	}
	var seen [16]string
	names := seen[:0]
	for i := skipSpace(raw, 1); raw[i] != '}'; {
		end := skipValue(raw, i)
		name := text(raw[i:end])
		for _, n := range names {
			if n == name {
				return errDuplicate
			}
		}
		if names = append(names, name); len(names) > maxMembers {
			return errMembers
		}
		i = skipSpace(raw, skipSpace(raw, end)+1) // over the colon
		end = skipValue(raw, i)
		if err := each(name, raw[i:end]); err != nil {
			return err
		}
		if i = skipSpace(raw, end); raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
	}
	return nil
}

// elements returns the elements of a JSON array. raw must be valid JSON.
func elements(raw []byte) [][]byte {
	var out [][]byte
	raw = bytes.TrimLeft(raw, " \t\r\n")
	for i := skipSpace(raw, 1); raw[i] != ']'; {
		end := skipValue(raw, i)
		out = append(out, raw[i:end])
		if i = skipSpace(raw, end); raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
	}
	return out
}

// text returns the value of a JSON string, or "" for any other value.
func text(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

func skipSpace(raw []byte, i int) int {
	for i < len(raw) && (raw[i] == ' ' || raw[i] == '\t' || raw[i] == '\r' || raw[i] == '\n') {
		i++
	}
	return i
}

// skipValue returns the index after the value that starts at i.
func skipValue(raw []byte, i int) int {
	depth := 0
	for ; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // end of the enclosing value: a literal stood before it
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n', ':':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}
