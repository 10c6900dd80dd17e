package store

import (
	"database/sql/driver"
	"fmt"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// micros is how a time is kept: microseconds since 1970 in UTC, 0 for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// instant reads a kept time. NULL and 0 are the zero time.
type instant struct{ t *time.Time }

// Scan implements sql.Scanner.
func (i instant) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*i.t = time.Time{}
	case int64:
		*i.t = time.Time{}
		if v != 0 {
			*i.t = time.UnixMicro(v).UTC()
		}
	default:
		return fmt.Errorf("a time is kept as an integer, not as %T", v)
	}
	return nil
}

// Value implements driver.Valuer.
func (h Hash) Value() (driver.Value, error) { return h[:], nil }

// Scan implements sql.Scanner. NULL is the zero hash.
func (h *Hash) Scan(v any) error {
	b, ok := v.([]byte)
	if v != nil && (!ok || len(b) != len(h)) {
		return fmt.Errorf("a hash is kept as %d bytes", len(h))
	}
	*h = Hash{}
	copy(h[:], b)
	return nil
}

// words reads a list of words that hold no space: scopes, methods.
type words struct{ list *[]string }

// Scan implements sql.Scanner.
func (w words) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("a list is kept as text, not as %T", v)
	}
	*w.list = nil
	if s != "" {
		*w.list = strings.Split(s, " ")
	}
	return nil
}

func scopesAt(s *oauth.Scopes) words { return words{(*[]string)(s)} }

// join writes a list of words. A word with a space in it would come back as two,
// so it is refused.
func join(lists ...[]string) ([]string, error) {
	out := make([]string, len(lists))
	for i, l := range lists {
		for _, w := range l {
			if w == "" || strings.ContainsAny(w, " \x00") {
				return nil, fmt.Errorf("%q cannot stand in a list", w)
			}
		}
		out[i] = strings.Join(l, " ")
	}
	return out, nil
}

// bound keeps the length of a list in reason.
func bound(limit, standard, most int) int {
	if limit <= 0 {
		return standard
	}
	return min(limit, most)
}
