package cimdtest

import (
	"fmt"
	"maps"

	"github.com/bonafide-id/bonafide/cimd"
)

// Document returns the members of a good client document: a public web client
// that uses authorization codes and refresh tokens and redirects to the path /cb
// of its own host. Members of change replace those of the same name; a nil value
// removes one.
func Document(clientID string, change map[string]any) map[string]any {
	doc := map[string]any{
		"client_id":                  clientID,
		"client_name":                "Good Client",
		"redirect_uris":              []string{redirect(clientID)},
		"grant_types":                []string{"authorization_code", "refresh_token"},
		"response_types":             []string{"code"},
		"token_endpoint_auth_method": "none",
	}
	maps.Copy(doc, change)
	maps.DeleteFunc(doc, func(_ string, v any) bool { return v == nil })
	return doc
}

func redirect(clientID string) string {
	id, err := cimd.URLRules{AllowTestNames: true, AllowQuery: true, AllowRootPath: true}.Parse(clientID)
	if err != nil {
		return "https://good.test/cb"
	}
	return "https://" + id.Host() + "/cb"
}

// ServeClient serves a good document at a path, with the changes of Document and
// headers as in ServeJSON, and returns its client_id.
func (h *Host) ServeClient(path string, change map[string]any, header ...string) string {
	clientID := h.URL(path)
	h.ServeJSON(path, Document(clientID, change), header...)
	return clientID
}

// ID parses a client_id with the rules of [Net.Rules] and panics if it is none: it
// is for constants in tests.
func ID(clientID string) cimd.ID {
	id, err := cimd.URLRules{AllowTestNames: true}.Parse(clientID)
	if err != nil {
		panic(fmt.Sprintf("cimdtest: %q: %v", clientID, err))
	}
	return id
}
