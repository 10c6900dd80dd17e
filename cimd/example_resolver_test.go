package cimd_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
)

// A server resolves the client_id of an authorization request. Here the document
// host is a scripted one; in production the configuration is cimd.Config{}.
func ExampleResolver_Resolve() {
	net, err := cimdtest.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer net.Close()
	host := net.Host("calendar.test")
	host.ServeClient("/client.json", map[string]any{"client_name": "Calendar"}, "Cache-Control", "max-age=600")

	resolver, err := cimd.New(net.Config())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resolver.Close()

	// The source is whom the fetch is charged to, such as the browser's address.
	ctx := cimd.WithSource(context.Background(), "203.0.113.9")
	for _, clientID := range []string{
		"https://calendar.test/client.json",
		"https://calendar.test/client.json", // from memory
		"https://calendar.test/missing.json",
		"http://calendar.test/client.json",
	} {
		id, err := net.Rules().Parse(clientID)
		if err != nil {
			fmt.Println("no client_id:", err.(*cimd.Error).Rule)
			continue
		}
		doc, err := resolver.Resolve(ctx, id)
		var refusal *cimd.Error
		if errors.As(err, &refusal) {
			fmt.Println(refusal.Kind+":", refusal.Hint)
			continue
		}
		fmt.Println(doc.Name, doc.RedirectURIs, doc.Freshness.Reason)
	}
	fmt.Println(len(net.Requests()), "requests")

	// Output:
	// Calendar [https://calendar.test/cb] max-age=600
	// Calendar [https://calendar.test/cb] max-age=600
	// gone: the document must be answered with status 200; the host answered 404
	// no client_id: URL-18
	// 2 requests
}
