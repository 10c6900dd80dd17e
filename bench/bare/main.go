// Command bare is the least that a server in Go can be: it answers, and nothing
// else. It is the floor for start, memory and size.
package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	err := http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok") // whoever asked has gone
	}))
	if err != nil {
		os.Exit(1)
	}
}
