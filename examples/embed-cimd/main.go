// Command embed-cimd shows how a program embeds the cimd library: it resolves the
// client_ids on its command line and says what a server would make of them.
//
//	go run ./examples/embed-cimd https://client.example.com/metadata.json
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: embed-cimd CLIENT_ID...")
		os.Exit(2)
	}
	// The zero configuration is the one for production: public addresses only, no
	// redirects, five seconds, 5 KiB.
	good, err := run(ctx, cimd.Config{}, os.Args[1:], os.Stdout)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "embed-cimd:", err)
		os.Exit(1)
	case !good:
		os.Exit(1)
	}
}

// run resolves the client_ids and reports whether all of them are good. A server
// keeps one resolver for its whole life instead.
func run(ctx context.Context, cfg cimd.Config, clientIDs []string, out io.Writer) (bool, error) {
	resolver, err := cimd.New(cfg)
	if err != nil {
		return false, err
	}
	defer resolver.Close()
	all := true
	for _, clientID := range clientIDs {
		doc, err := resolve(ctx, cfg.URL, resolver, clientID)
		if err != nil {
			all = false
		}
		report(out, clientID, doc, err)
	}
	return all, nil
}

func resolve(ctx context.Context, rules cimd.URLRules, resolver *cimd.Resolver, clientID string) (*cimd.Document, error) {
	id, err := rules.Parse(clientID) // refuses what is no client_id, without any request
	if err != nil {
		return nil, err
	}
	return resolver.Resolve(ctx, id)
}

func report(out io.Writer, clientID string, doc *cimd.Document, err error) {
	fmt.Fprintf(out, "%q\n", clientID)
	var refusal *cimd.Error
	switch {
	case errors.As(err, &refusal):
		fmt.Fprintf(out, "  refused   %s %s: %s\n", refusal.Kind, refusal.Rule, refusal.Hint)
		if refusal.RetryAfter > 0 {
			fmt.Fprintf(out, "  again in  %s\n", refusal.RetryAfter.Round(time.Second))
		}
		return
	case err != nil:
		fmt.Fprintf(out, "  failed    %v\n", err)
		return
	}
	name := doc.Name
	if name == "" {
		name = "(none)"
	}
	fmt.Fprintf(out, "  good      host %s, calls itself %s\n", doc.ID.Host(), name)
	fmt.Fprintf(out, "  redirects %s\n", strings.Join(doc.RedirectURIs, " "))
	fmt.Fprintf(out, "  methods   %s\n", strings.Join(doc.AuthMethods, " "))
	fmt.Fprintf(out, "  fresh     %s (%s)\n", doc.Freshness.Lifetime.Round(time.Second), doc.Freshness.Reason)
	for _, w := range doc.Warnings {
		fmt.Fprintf(out, "  warning   %s\n", w)
	}
}
