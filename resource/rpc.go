package resource

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/bonafide-id/bonafide/oauth"
)

// JSON-RPC error codes, of JSON-RPC 2.0 and of MCP 2026-07-28.
const (
	rpcParse          = -32700
	rpcInvalidRequest = -32600
	rpcInvalidParams  = -32602
	rpcHeaderMismatch = -32020
)

// headersSince is the first MCP version in which every message repeats its
// method and its name in headers.
const headersSince = "2026-07-28"

const maxBatch = 64

// rpcError is an answer of JSON-RPC to a message that cannot be judged.
type rpcError struct {
	status int
	code   int
	id     []byte
	rule   string
	text   string
}

func (e *rpcError) Error() string { return e.text }

// message is the part of a JSON-RPC message that a decision needs.
type message struct {
	id     []byte // raw JSON; nil in a notification
	method string // "" in a response
	name   string // params.name, or params.uri of resources/read
	named  bool   // the name is there, as a string
}

// exact are the members that are decided upon. A spelling that differs only in
// case would be the same member to some readers, so it is refused.
var exact = []string{"jsonrpc", "id", "method", "params", "name", "uri"}

func ambiguous(name string) error {
	for _, e := range exact {
		if name != e && strings.EqualFold(name, e) {
			return fmt.Errorf("member %q is easily taken for %q", name, e)
		}
	}
	return nil
}

// readMessages reads a body strictly: one message, or a batch.
func readMessages(body []byte) (msgs []message, batch bool, err error) {
	if !validJSON(body) {
		return nil, false, &rpcError{http.StatusBadRequest, rpcParse, nil, "RS-18", "the body is not valid JSON"}
	}
	raws := [][]byte{body}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); trimmed[0] == '[' {
		raws, batch = elements(trimmed), true
		if len(raws) == 0 || len(raws) > maxBatch {
			return nil, true, &rpcError{http.StatusBadRequest, rpcInvalidRequest, nil, "RS-18", "a batch must hold 1 to 64 messages"}
		}
	}
	for _, raw := range raws {
		m, err := readMessage(raw)
		if err != nil {
			return nil, batch, &rpcError{http.StatusBadRequest, rpcInvalidRequest, m.id, "RS-18", "the message is ambiguous or malformed: " + err.Error()}
		}
		msgs = append(msgs, m)
	}
	return msgs, batch, nil
}

func readMessage(raw []byte) (m message, err error) {
	var params []byte
	err = members(raw, func(name string, v []byte) error {
		switch name {
		case "id":
			if v[0] == '{' || v[0] == '[' || v[0] == 't' || v[0] == 'f' {
				return fmt.Errorf("id must be a string or a number")
			}
			m.id = v
		case "method":
			if v[0] != '"' {
				return fmt.Errorf("method must be a string")
			}
			m.method = text(v)
		case "params":
			params = v
		}
		return ambiguous(name)
	})
	if err != nil || params == nil {
		return m, err
	}
	member := "name"
	switch m.method {
	case "resources/read":
		member = "uri"
	case "tools/call", "prompts/get":
	default:
		return m, nil
	}
	return m, members(params, func(name string, v []byte) error {
		if name == member {
			if m.named = v[0] == '"'; !m.named {
				return fmt.Errorf("%s must be a string", member)
			}
			m.name = text(v)
		}
		return ambiguous(name)
	})
}

// disguised reports whether a method is one that needs something, but for its case
// or for the space around it: a server that is generous with names would carry it
// out as the other.
func (g *Guard) disguised(method string) bool {
	bare := strings.TrimSpace(method)
	like := func(name string) bool { return method != name && strings.EqualFold(bare, name) }
	for name := range g.methods {
		if like(name) {
			return true
		}
	}
	return like("tools/call") || like("prompts/get") || like("resources/read")
}

func (m message) takesName() bool {
	return m.method == "tools/call" || m.method == "prompts/get" || m.method == "resources/read"
}

// checkHeaders makes sure that what the headers say is what the body says:
// intermediaries route and count by the headers (RS-18). Headers that are there
// must agree in every version; from 2026-07-28 on they must be there.
func checkHeaders(h http.Header, msgs []message, batch bool) error {
	version := h.Get("Mcp-Protocol-Version")
	required := version >= headersSince
	methods, names := h.Values("Mcp-Method"), h.Values("Mcp-Name")
	if batch {
		if required || len(methods) > 0 || len(names) > 0 {
			return mismatch(nil, "a batch cannot agree with the Mcp headers")
		}
		return nil
	}
	m := msgs[0]
	if m.method == "" { // a response has neither
		if len(methods) > 0 || len(names) > 0 {
			return mismatch(m.id, "the Mcp headers do not belong to a response")
		}
		return nil
	}
	if len(methods) > 1 || len(names) > 1 {
		return mismatch(m.id, "an Mcp header stands twice")
	}
	switch {
	case len(methods) == 0 && required:
		return mismatch(m.id, "the Mcp-Method header is missing")
	case len(methods) == 1 && methods[0] != m.method:
		return mismatch(m.id, "the Mcp-Method header does not agree with the body")
	case len(names) == 0 && required && m.takesName():
		return mismatch(m.id, "the Mcp-Name header is missing")
	case len(names) == 1:
		name, ok := decodeHeader(names[0])
		if !ok || !m.named || name != m.name {
			return mismatch(m.id, "the Mcp-Name header does not agree with the body")
		}
	}
	return nil
}

func mismatch(id []byte, text string) error {
	return &rpcError{http.StatusBadRequest, rpcHeaderMismatch, id, "RS-18", text}
}

// decodeHeader undoes the sentinel under which a header carries text that is not
// plain ASCII: =?base64?…?=
func decodeHeader(v string) (string, bool) {
	inner, ok := strings.CutPrefix(v, "=?base64?")
	if !ok {
		return v, true
	}
	if inner, ok = strings.CutSuffix(inner, "?="); !ok {
		return v, true
	}
	b, err := base64.StdEncoding.Strict().DecodeString(inner)
	return string(b), err == nil
}

// needed returns what all messages of a body need together, and the message that
// needs most. A batch is judged as a whole: one HTTP answer cannot carry two
// statuses, and a call that is denied must have no effect.
func (g *Guard) needed(msgs []message) (oauth.Scopes, message, error) {
	all, deciding := g.baseline, msgs[0]
	for _, m := range msgs {
		if g.disguised(m.method) {
			return nil, m, &rpcError{http.StatusBadRequest, rpcInvalidRequest, m.id, "RS-18", "the method is spelled almost like another; say it exactly"}
		}
		own := g.methods[m.method]
		if m.method == "tools/call" {
			if !m.named || m.id == nil {
				return nil, m, &rpcError{http.StatusBadRequest, rpcInvalidRequest, m.id, "RS-18", "a tool call needs an id and params.name"}
			}
			scopes, ok := g.Needs(m.name)
			if !ok {
				status := http.StatusOK // the answer of a server to a single call of an unknown tool
				if len(msgs) > 1 {
					status = http.StatusBadRequest
				}
				return nil, m, &rpcError{status, rpcInvalidParams, m.id, "RS-18", "unknown tool"}
			}
			own = scopes
		}
		if !all.Covers(own) {
			all, deciding = all.Or(own), m
		}
	}
	return all, deciding, nil
}
