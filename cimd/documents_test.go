package cimd

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPublishedClients reads documents in the shape that real clients publish.
// Each must work; a warning is what the client loses.
func TestPublishedClients(t *testing.T) {
	type want struct {
		warnings []string // "RULE member"
		methods  []string
		grants   []string
		appType  string
		loopback bool // all redirects are loopback
		foreign  []string
	}
	both, code := []string{"authorization_code", "refresh_token"}, []string{"authorization_code"}
	public, keyed := []string{"none"}, []string{"private_key_jwt"}
	rows := map[string]want{
		"claude":         {[]string{"DOC-20 grant_types[2]"}, public, both, "web", false, nil},
		"claude-code":    {nil, public, both, "native", true, nil},
		"chatgpt":        {[]string{"DOC-12 client_name"}, []string{"private_key_jwt", "none"}, both, "web", false, nil},
		"chatgpt-app":    {nil, []string{"private_key_jwt", "none"}, both, "web", false, nil},
		"codex":          {nil, public, both, "native", true, nil},
		"vscode":         {[]string{"DOC-20 grant_types[2]"}, public, both, "native", false, nil},
		"zed":            {nil, public, both, "native", true, nil},
		"opencode":       {nil, public, both, "native", true, nil},
		"goose":          {nil, public, code, "native", true, nil},
		"mcpjam":         {[]string{"DOC-20 grant_types[2]"}, public, both, "native", false, nil},
		"mcpc":           {nil, public, both, "native", true, nil},
		"vercel-connect": {nil, keyed, both, "web", false, nil},
		"minimal":        {[]string{"DOC-12 client_name"}, public, code, "web", false, nil},
		"service":        {nil, keyed, []string{"client_credentials"}, "web", false, nil},
		"localized":      {nil, public, both, "web", false, nil},
	}
	files, err := filepath.Glob("cimdtest/documents/*.json")
	made, _ := filepath.Glob("testdata/documents/*.json")
	files = append(files, made...)
	if err != nil || len(files) != len(rows) {
		t.Fatalf("%d files, %d rows, %v", len(files), len(rows), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run("DOC-12, DOC-13, DOC-14, DOC-16, DOC-20, DOC-21, DOC-22, DOC-24 the document of "+name, func(t *testing.T) {
			w, ok := rows[name]
			if !ok {
				t.Fatal("no expectation")
			}
			id, body := fixture(t, file)
			var sup Supported
			if name == "service" {
				sup.GrantTypes = []string{"authorization_code", "client_credentials"}
			}
			doc, err := Validate(id, body, ProfileMCP, sup)
			if err != nil {
				t.Fatal(err)
			}
			var warnings []string
			for _, f := range doc.Warnings {
				warnings = append(warnings, f.Rule+" "+f.Member)
			}
			got := want{warnings, doc.AuthMethods, doc.GrantTypes, doc.ApplicationType, doc.LoopbackOnly(), doc.ForeignHosts(false)}
			if diff := cmp.Diff(w, got, cmp.AllowUnexported(want{})); diff != "" {
				t.Error(diff)
			}
			for _, p := range []Profile{ProfileCIMD02, ProfileCIMD03} {
				if _, err := Validate(id, body, p, sup); err != nil {
					t.Errorf("profile %s: %v", p, err)
				}
			}
			if _, err := Parse(id.String()); err != nil && !strings.Contains(id.Host(), "mcpclient.example") {
				t.Errorf("the strict rules refuse a published client: %v", err)
			}
		})
	}
	t.Run("DOC-09, FETCH-08 a wildcard port is refused and explained", func(t *testing.T) {
		id, body := fixture(t, "testdata/documents/refused/fastmcp.json")
		_, err := Validate(id, body, ProfileMCP, Supported{})
		var e *Error
		if !errors.As(err, &e) || e.Rule != "DOC-09" || !strings.Contains(e.Hint, "wildcard") || !strings.Contains(e.Hint, "any port") {
			t.Errorf("got %v", err)
		}
	})
}

// fixture reads a document; the client_id is the one it names.
func fixture(t testing.TB, file string) (ID, []byte) {
	t.Helper()
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		ClientID string `json:"client_id"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	return mustID(t, m.ClientID), body
}

func TestForeignHosts(t *testing.T) {
	d := &Document{
		ID:        mustID(t, "https://app.Good.org/c.json"),
		ClientURI: "https://www.good.org/",
		RedirectURIs: []string{
			"https://app.good.org/cb", "http://localhost/cb", "https://login.good.org/cb",
			"https://evil.org/cb", "https://EVIL.org/cb2", "com.example.app:/cb",
		},
	}
	t.Run("DOC-25, attack DO-17: every redirect URI counts, not the first alone", func(t *testing.T) {
		want := []string{"com.example.app:", "evil.org", "login.good.org", "www.good.org"}
		if got := d.ForeignHosts(false); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if got, want := d.ForeignHosts(true), []string{"com.example.app:", "evil.org"}; !slices.Equal(got, want) {
			t.Errorf("same site: got %v, want %v", got, want)
		}
	})
	t.Run("DOC-25 neighbours on a shared host are not one site", func(t *testing.T) {
		d := &Document{ID: mustID(t, "https://apify.github.io/c.json"), RedirectURIs: []string{"https://evil.github.io/cb"}}
		if got := d.ForeignHosts(true); len(got) != 1 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("DOC-25 a host without a registrable domain stands for itself", func(t *testing.T) {
		id, err := URLRules{Loopback: true}.Parse("http://localhost:8080/c.json")
		if err != nil {
			t.Fatal(err)
		}
		d := &Document{ID: id, RedirectURIs: []string{"https://localhost/cb", "https://com/cb"}}
		if got := d.ForeignHosts(true); !slices.Equal(got, []string{"com"}) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("DOC-24 a document without redirects is not loopback only", func(t *testing.T) {
		if (&Document{}).LoopbackOnly() {
			t.Error("it is")
		}
	})
}
