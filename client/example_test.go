package client_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/bonafide-id/bonafide/client"
)

func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := client.NewFileStore(filepath.Join(dir, "tokens"))
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(client.Config{
		ID:    "https://app.example/client.json",
		Store: store,
		Trace: func(s client.Step) { log.Println(s.Kind, s.Text, s.To, s.Err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	httpClient := c.HTTPClient("https://mcp.example/mcp")
	// For the Go MCP SDK:
	//
	//	transport := &mcp.StreamableClientTransport{Endpoint: "https://mcp.example/mcp", HTTPClient: httpClient}
	//
	// The first request opens the browser.
	_ = httpClient
}

func ExampleClient_Document() {
	c, err := client.New(client.Config{ID: "https://app.example/client.json"})
	if err != nil {
		log.Fatal(err)
	}
	raw, err := c.Document("Example App").Publish()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(raw))
	// Output:
	// {
	//   "client_id": "https://app.example/client.json",
	//   "client_name": "Example App",
	//   "application_type": "native",
	//   "redirect_uris": [
	//     "http://127.0.0.1/callback"
	//   ],
	//   "grant_types": [
	//     "authorization_code",
	//     "refresh_token"
	//   ],
	//   "response_types": [
	//     "code"
	//   ],
	//   "token_endpoint_auth_method": "none"
	// }
}
