package jose

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrText says that a claim holds text that no store keeps as it is: a NUL, which
// PostgreSQL refuses, or half of a surrogate pair. Every such half reads as the
// replacement character, so that two subjects would become one.
var ErrText = errors.New("text holds a NUL or is not valid Unicode")

// ReadClaims reads claims into the pointers that are given for them, and returns
// all members. Names are compared byte for byte; encoding/json alone would take
// "AUD" for "aud". The error names a claim whose type is wrong, or whose text is
// ErrText; claims that nobody asks for may be anything.
func ReadClaims(raw []byte, into map[string]any) (map[string]json.RawMessage, error) {
	members, err := Object(raw)
	if err != nil {
		return nil, err
	}
	for name, to := range into {
		v, ok := members[name]
		if !ok {
			continue
		}
		if !kept(v) {
			return nil, fmt.Errorf("%s: %w", name, ErrText)
		}
		if json.Unmarshal(v, to) != nil {
			return nil, fmt.Errorf("%s has the wrong type", name)
		}
	}
	return members, nil
}

// kept reports whether every text in a JSON value can be kept as it is. Only an
// escape can make one that cannot, or the replacement character itself, which
// stands where something was lost already.
func kept(raw []byte) bool {
	var v any
	return json.Unmarshal(raw, &v) == nil && keptIn(v)
}

func keptIn(v any) bool {
	switch v := v.(type) {
	case string:
		return !strings.ContainsRune(v, 0) && !strings.ContainsRune(v, utf8.RuneError)
	case []any:
		for _, e := range v {
			if !keptIn(e) {
				return false
			}
		}
	case map[string]any:
		for name, e := range v {
			if !keptIn(name) || !keptIn(e) {
				return false
			}
		}
	}
	return true
}
