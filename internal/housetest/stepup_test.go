package housetest

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/client"
	"github.com/bonafide-id/bonafide/resource"
)

// A tool that wants a fresh sign-in, the server that asks for the password again,
// and the toolkit between them.
func TestTheToolkitSignsInAgainWhereAToolWantsIt(t *testing.T) {
	t.Parallel()
	h := New(t)
	g, err := resource.New(resource.Config{
		Resource: Resource, AuthorizationServers: []string{Issuer}, Baseline: []string{"mcp:read"},
		Tools: map[string][]string{"search": nil, "pay": nil}, HTTP: h.HTTP, Now: h.Now,
		Strength: map[string]resource.Strength{"pay": {ACR: []string{"urn:bonafide:acr:password"}, MaxAge: 10 * time.Minute}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Net.Host("mcp.test").Handle("*", g.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	})))
	k := h.toolkit(func(*client.Config) {})
	t.Run("RS-22, AUTHZ-24: a fresh sign-in is strong enough", func(t *testing.T) {
		k.use(t, "pay")
		if k.opens != 1 {
			t.Error(k.opens)
		}
	})
	t.Run("RS-22, AUTHZ-24, CLI-12: an old one is made fresh, once, and a session that lives on is not enough", func(t *testing.T) {
		h.Later(30 * time.Minute)
		k.use(t, "search")
		if k.opens != 1 {
			t.Error("for a tool that does not want it:", k.opens)
		}
		k.use(t, "pay")
		k.use(t, "pay")
		if k.opens != 2 {
			t.Error(k.opens, k.failures())
		}
	})
}
