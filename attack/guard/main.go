// Command guard is a small MCP server behind package resource, to be attacked:
// two tools, of which one changes something, a stream, and a count of what was
// changed.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/resource"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8081", "address to listen on")
	public := flag.String("resource", "https://mcp.test/mcp", "public URL")
	issuers := flag.String("issuers", "", "authorization servers, with commas between")
	flag.Parse()
	guard, err := resource.New(resource.Config{
		Resource: *public, AuthorizationServers: strings.Split(*issuers, ","), Baseline: []string{"mcp:read"},
		Scopes: []resource.Scope{{Name: "mcp:read"}, {Name: "mcp:write", Implies: []string{"mcp:read"}}},
		Tools:  map[string][]string{"search": nil, "create": {"mcp:write"}},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		os.Exit(1)
	}
	var created, seen atomic.Int64
	tools := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		if r.Header.Get("Authorization") != "" {
			fmt.Fprintln(os.Stderr, "guard: the token reached the handler")
			os.Exit(3)
		}
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "text/event-stream")
			for {
				if _, err := io.WriteString(w, "data: tick\n\n"); err != nil {
					return
				}
				if http.NewResponseController(w).Flush() != nil || r.Context().Err() != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		var calls []struct {
			Method string
			Params struct{ Name string }
		}
		if json.Unmarshal(body, &calls) != nil {
			calls = append(calls[:0], struct {
				Method string
				Params struct{ Name string }
			}{})
			_ = json.Unmarshal(body, &calls[0])
		}
		for _, c := range calls { // as loose as a server may be: the guard stands in front
			if strings.EqualFold(strings.TrimSpace(c.Params.Name), "create") {
				created.Add(1)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	})
	mux := http.NewServeMux()
	mux.Handle("/", guard.Handler(tools))
	mux.HandleFunc("/count", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%d %d", created.Load(), seen.Load()) })
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10}
	fmt.Fprintln(os.Stderr, "guard:", server.ListenAndServe())
	os.Exit(1)
}
