package web

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/oauth"
)

var update = flag.Bool("update", false, "write the golden files")

var (
	refPattern  = regexp.MustCompile(`[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}`)
	hashPattern = regexp.MustCompile(`(/assets/\w+)\.[\w-]{12}\.`)
)

// golden compares a page with testdata/name, apart from its reference number and
// the hashes of the assets.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = refPattern.ReplaceAllString(got, "7K2M-44QX")
	got = hashPattern.ReplaceAllString(got, "$1.HASH.")
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it):\n%s", path, diff)
	}
}

func newEdge(t *testing.T, change func(*EdgeConfig)) *Edge {
	t.Helper()
	c := EdgeConfig{Issuer: "https://auth.acme.example", Brand: Brand{Name: "Acme"}, Now: func() time.Time { return time.Unix(1700000000, 0) }, Logger: quiet()}
	if change != nil {
		change(&c)
	}
	e, err := NewEdge(c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func get(h http.Handler, url string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, url, nil))
	return w
}

func examplePage(t *testing.T) Page {
	t.Helper()
	text, err := os.ReadFile("testdata/example.html")
	if err != nil {
		t.Fatal(err)
	}
	return Page{
		Title: "Allow claude.ai?", Template: Template("example", string(text)), RedirectHost: "http://127.0.0.1:51004/callback",
		Data: map[string]any{"Host": "claude.ai", "Name": "Claude Code", "Local": false, "Long": false, "Logo": ""},
	}
}

func TestFrame(t *testing.T) {
	e := newEdge(t, nil)
	page := examplePage(t)
	w := get(e.Page(func(w http.ResponseWriter, r *http.Request) error {
		return e.Render(w, r, http.StatusOK, page)
	}), "/consent")
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	golden(t, "frame.golden.html", w.Body.String())
	t.Run("AZ-21 CONS-06 the page loads from our own origin only and has neither script nor inline style", func(t *testing.T) {
		body := w.Body.String()
		for _, bad := range []string{"<script", " style=", "<style", " onclick", "javascript:", "<iframe"} {
			if strings.Contains(body, bad) {
				t.Errorf("the page holds %q", bad)
			}
		}
		for _, m := range regexp.MustCompile(`(?:src|href|action)="([^"]*)"`).FindAllStringSubmatch(body, -1) {
			if !strings.HasPrefix(m[1], "/") || strings.HasPrefix(m[1], "//") {
				t.Errorf("the page points to %q", m[1])
			}
		}
	})
}

func TestErrorPages(t *testing.T) {
	approval := Refuse(http.StatusForbidden, oauth.Refuse(oauth.AccessDenied, "the client waits for approval"))
	approval.Title, approval.What = "This app is waiting for approval", "Nobody here has used app.example yet. We have told the administrator."
	approval.Turn, approval.Next = "Your administrator", "Try again when you hear that it is approved. You do not have to do anything else."
	approval.ClientURL = "https://app.example/oauth/client.json"
	fetch := Refuse(http.StatusBadGateway, oauth.Refuse(oauth.InvalidClient, "expected status 200 and a JSON document; the address could not be reached").Under("FETCH-05"))
	fetch.What = "Its address (app.example) did not answer. Nothing was shared."
	fetch.ClientURL = "https://app.example/oauth/client.json"
	long := Refuse(http.StatusBadRequest, oauth.Refuse(oauth.InvalidClient, "the client_id is not a usable URL").Under("URL-03"))
	long.ClientURL = "https://" + strings.Repeat("login.accounts.claude.ai.", 6) + "evil.example/\u202e<b>x"

	for _, tt := range []struct {
		file   string
		err    error
		status int
	}{
		{"error_fetch.golden.html", fetch, 502},
		{"error_approval.golden.html", approval, 403},
		{"error_longhost.golden.html", long, 400},
		{"error_server.golden.html", errSecret, 500},
		{"error_busy.golden.html", oauth.Refuse(oauth.TemporarilyUnavailable, "too busy to fetch"), 503},
		{"error_request.golden.html", oauth.Refuse(oauth.InvalidRequest, "redirect_uri stands more than once"), 400},
	} {
		t.Run("AUTHZ-30, CONS-06 "+tt.file, func(t *testing.T) {
			e := newEdge(t, nil)
			w := get(e.Page(func(http.ResponseWriter, *http.Request) error { return tt.err }), "/authorize?x=1")
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			golden(t, tt.file, w.Body.String())
		})
	}
}
