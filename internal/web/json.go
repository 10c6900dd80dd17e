package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// WriteJSON answers with v as JSON. The answer is complete or not begun: when v
// cannot be encoded nothing is written and the error is returned.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client went away: there is nobody to tell
	return nil
}

// jsonError is the error answer of RFC 6749 section 5.2, with two members of
// ours: the requirement that failed, and the reference number.
type jsonError struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
	Rule        string `json:"rule,omitempty"`
	Reference   string `json:"reference,omitempty"`
}

// failJSON is the only writer of JSON errors. It keeps what the handler put into
// the header, such as WWW-Authenticate, and makes sure that nothing is stored.
func (e *Edge) failJSON(w http.ResponseWriter, r *http.Request, refusal *Refusal) {
	noStore(w.Header())
	status := jsonStatus(refusal)
	setRetryAfter(w.Header(), status, refusal.RetryAfter)
	_ = WriteJSON(w, status, jsonError{ // strings always encode
		Error: string(refusal.Err.Code), Description: describable(refusal.Err.Hint),
		Rule: refusal.Err.Rule, Reference: Ref(r.Context()),
	})
}

// describable limits a hint to the characters of error_description: printable
// ASCII without the double quote and the backslash (RFC 6749 section 5.2).
func describable(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '"':
			return '\''
		case c < ' ' || c > '~' || c == '\\':
			return '?'
		}
		return c
	}, s)
}
