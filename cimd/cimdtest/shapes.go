package cimdtest

import (
	"embed"
	"encoding/json"
	"net/http"
	"path"
	"strings"
)

//go:embed documents/*.json
var documents embed.FS

// Shape is the shape of a document that a real client publishes, as quoted in
// public. What a server must make of it is in the tests of package cimd.
type Shape struct {
	Name     string // of the file, such as "claude-code"
	ClientID string
	Body     []byte
	Header   http.Header // what the client's host sends, where that matters
}

// headers that real hosts send and that make a difference.
var headers = map[string]string{
	"claude-code":    "public, max-age=300",
	"vercel-connect": "private, max-age=0, must-revalidate",
}

// Shapes returns the shapes of real client documents, by name.
func Shapes() []Shape {
	entries, err := documents.ReadDir("documents")
	if err != nil {
		panic(err) // they are compiled in
	}
	var out []Shape
	for _, e := range entries {
		body, err := documents.ReadFile(path.Join("documents", e.Name()))
		if err != nil {
			panic(err)
		}
		var d struct {
			ClientID string `json:"client_id"`
		}
		if err := json.Unmarshal(body, &d); err != nil {
			panic(e.Name() + ": " + err.Error())
		}
		s := Shape{Name: strings.TrimSuffix(e.Name(), ".json"), ClientID: d.ClientID, Body: body, Header: http.Header{"Content-Type": {"application/json"}}}
		if cc := headers[s.Name]; cc != "" {
			s.Header.Set("Cache-Control", cc)
		}
		out = append(out, s)
	}
	return out
}

// ServeShape serves a shape at its client_id.
func (n *Net) ServeShape(s Shape) {
	rest := strings.TrimPrefix(s.ClientID, "https://")
	host, _, _ := strings.Cut(rest, "/")
	n.Host(host).Serve(strings.TrimPrefix(rest, host), Response{Header: s.Header, Body: s.Body})
}
