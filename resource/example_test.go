package resource_test

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/bonafide-id/bonafide/resource"
)

func Example() {
	guard, err := resource.New(resource.Config{
		Resource:             "https://mcp.example/mcp",
		AuthorizationServers: []string{"https://login.example"},
		Name:                 "Issue tracker",
		Baseline:             []string{"issues:read"},
		Scopes: []resource.Scope{
			{Name: "issues:read"},
			{Name: "issues:write", Implies: []string{"issues:read"}},
		},
		Tools: map[string][]string{
			"list_issues":  nil,
			"create_issue": {"issues:write"},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	mcpServer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := resource.FromContext(r.Context())
		fmt.Fprintln(w, "hello", caller.Subject)
	})
	handler := guard.Handler(mcpServer) // http.ListenAndServe(addr, handler)

	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, httptest.NewRequest("POST", "/mcp", nil))
	fmt.Println(rec.Code)
	fmt.Println(rec.Header().Get("WWW-Authenticate"))
	// Output:
	// 401
	// Bearer scope="issues:read", resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp"
}

func ExampleGuard_MetadataHandler() {
	guard, err := resource.New(resource.Config{
		Resource:             "https://mcp.example/tracker",
		AuthorizationServers: []string{"https://login.example"},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(guard.MetadataPath(), guard.MetadataHandler())
	mux.Handle("/tracker", guard.Protect(http.NotFoundHandler()))

	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, httptest.NewRequest("GET", guard.MetadataPath(), nil))
	var m map[string]any
	_ = json.Unmarshal(rec.Body.Bytes(), &m)
	fmt.Println(guard.MetadataPath(), m["resource"])
	// Output: /.well-known/oauth-protected-resource/tracker https://mcp.example/tracker
}
