package cimd_test

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
)

func ExampleParse() {
	id, err := cimd.Parse("https://app.acme.org/oauth/client.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Host(), id.Path())

	_, err = cimd.Parse("https://app.acme.org/../client.json")
	var e *cimd.Error
	if errors.As(err, &e) {
		fmt.Println(e.Kind, e.Rule)
		fmt.Println(e.Hint)
	}
	// Output:
	// app.acme.org /oauth/client.json
	// client_id_url URL-04
	// the client_id has a . or .. path segment, plain or percent-encoded
}

func ExampleURLRules() {
	// Development: documents on this computer are accepted too.
	rules := cimd.URLRules{Loopback: true}
	id, err := rules.Parse("http://localhost:8080/client.json")
	fmt.Println(id, err)
	// Output:
	// http://localhost:8080/client.json <nil>
}

func ExampleValidate() {
	id, _ := cimd.Parse("https://app.acme.org/oauth/client.json")
	body := []byte(`{
		"client_id": "https://app.acme.org/oauth/client.json",
		"client_name": "Acme Notes",
		"redirect_uris": ["http://localhost/callback"],
		"grant_types": ["authorization_code", "refresh_token", "password"]
	}`)
	doc, err := cimd.Validate(id, body, cimd.ProfileMCP, cimd.Supported{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(doc.Name, doc.ApplicationType, doc.GrantTypes, doc.AuthMethods)
	for _, w := range doc.Warnings {
		fmt.Println(w)
	}
	// Output:
	// Acme Notes native [authorization_code refresh_token] [none]
	// grant_types[2]: is not supported here and was left out [DOC-20]
}

func ExampleLint() {
	id, _ := cimd.Parse("https://app.acme.org/oauth/client.json")
	body := []byte(`{
		"client_id": "https://app.acme.org/oauth/client.json",
		"redirect_uris": ["http://app.acme.org/callback"],
		"client_secret": ""
	}`)
	_, findings := cimd.Lint(id, body, cimd.ProfileMCP, cimd.Supported{})
	for _, f := range findings {
		fmt.Println(f)
	}
	// Output:
	// error: client_secret: must not stand in a public document, not even empty [DOC-03]
	// error: redirect_uris[0]: uses http on a host other than 127.0.0.1, [::1] or localhost; use https [DOC-09]
	// warning: client_name: is missing; people see the host instead [DOC-12]
}

func ExampleFresh() {
	received := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	h := http.Header{"Cache-Control": {"public, max-age=300"}, "Age": {"10"}}
	f := cimd.Fresh(h, received, received, cimd.FreshnessLimits{})
	fmt.Println(f.Lifetime, "because of", f.Reason)
	// Output:
	// 4m50s because of max-age=300, Age 10
}
