package directory

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const someone = "https://app.test/c.json"

// Each kind of failure has a page of its own, but for those that must look alike.
func TestRefusalsOfTheResolver(t *testing.T) {
	for kind, want := range map[cimd.Kind]struct {
		status int
		code   oauth.Code
		title  string
	}{
		cimd.KindURL:      {http.StatusBadRequest, oauth.InvalidClient, "not usable"},
		cimd.KindDisabled: {http.StatusBadRequest, oauth.InvalidClient, "not registered here"},
		cimd.KindRefused:  {http.StatusForbidden, oauth.UnauthorizedClient, "not allowed"},
		cimd.KindBusy:     {http.StatusServiceUnavailable, oauth.TemporarilyUnavailable, "Too many"},
		cimd.KindFetch:    {http.StatusBadGateway, oauth.InvalidClient, "could not check"},
		cimd.KindStatus:   {http.StatusBadGateway, oauth.InvalidClient, "could not check"},
		cimd.KindType:     {http.StatusBadGateway, oauth.InvalidClient, "could not check"},
		cimd.KindGone:     {http.StatusBadGateway, oauth.InvalidClient, "does not say who it is"}, // whether it ever did is not known
		cimd.KindTooLarge: {http.StatusBadGateway, oauth.InvalidClient, "too great length"},
		cimd.KindDocument: {http.StatusBadRequest, oauth.InvalidClient, "describes itself wrongly"},
		cimd.KindMismatch: {http.StatusBadRequest, oauth.InvalidClient, "describes itself wrongly"},
	} {
		plain := &cimd.Error{Kind: kind, Rule: "FETCH-99", Hint: "the hint", RetryAfter: 7 * time.Second}
		later := &cimd.Error{Kind: cimd.KindBackoff, Rule: "CACHE-13", Hint: "later", RetryAfter: 9 * time.Second, Err: fmt.Errorf("before: %w", plain)}
		for name, err := range map[string]error{"at once": plain, "CACHE-13 while it stands": later, "wrapped": fmt.Errorf("resolve: %w", plain)} {
			t.Run("FETCH-22 "+string(kind)+" "+name, func(t *testing.T) {
				r, ok := errors.AsType[*web.Refusal](refuseResolve(someone, err))
				if !ok || r.Status != want.status || r.Err.Code != want.code || !strings.Contains(r.Title, want.title) || r.ClientURL != someone {
					t.Fatalf("got %+v", r)
				}
				if kind != cimd.KindDisabled && (r.Err.Hint != "the hint" || r.Err.Rule != "FETCH-99" || !errors.Is(r, err)) {
					t.Errorf("the developer reads %q (%s), the log %v", r.Err.Hint, r.Err.Rule, r.Err)
				}
				if strings.Contains(r.Title+r.What+r.Next, "'") {
					t.Errorf("a typewriter's apostrophe: %q %q %q", r.Title, r.What, r.Next)
				}
				if kind == cimd.KindBusy && name == "at once" && r.RetryAfter != 7*time.Second {
					t.Errorf("to come again after %v", r.RetryAfter)
				}
			})
		}
	}
	t.Run("URL-14 one of our own addresses", func(t *testing.T) {
		r, ok := errors.AsType[*web.Refusal](refuseResolve(someone, &cimd.Error{Kind: cimd.KindURL, Rule: "URL-14"}))
		if !ok || r.Err.Rule != "URL-14" || !strings.Contains(r.Title, "cannot be right") {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("a back-off that tells no reason", func(t *testing.T) {
		r, ok := errors.AsType[*web.Refusal](refuseResolve(someone, &cimd.Error{Kind: cimd.KindBackoff, Hint: "later"}))
		if !ok || r.Status != http.StatusBadGateway || r.Err.Hint != "later" {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("URL-15 a failure of ours stays one", func(t *testing.T) {
		ours := errors.New("disk on fire")
		if err := refuseResolve(someone, ours); err != ours {
			t.Errorf("got %v", err)
		}
	})
}

func TestRefusalsOfThePolicy(t *testing.T) {
	for _, c := range []struct {
		name     string
		decision policy.Decision
		code     oauth.Code
		what     string
	}{
		{"deny in our words", policy.Decision{Action: policy.Deny}, oauth.UnauthorizedClient, "does not accept this app"},
		{"deny in the administrator's words", policy.Decision{Action: policy.Deny, Reason: "Retired last year."}, oauth.UnauthorizedClient, "Retired last year."},
		{"ask", policy.Decision{Action: policy.Ask, Reason: "not shown"}, oauth.AccessDenied, "administrator’s approval"},
	} {
		t.Run("POL-01 "+c.name, func(t *testing.T) {
			if r := refusePolicy(someone, c.decision); r.Status != http.StatusForbidden || r.Err.Code != c.code || !strings.Contains(r.What, c.what) {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestCeilingsOnRedirects(t *testing.T) {
	yes, no := true, false
	const own, other, local = "https://app.test/cb", "https://other.test/cb", "http://127.0.0.1/cb"
	for _, c := range []struct {
		name     string
		decision policy.Decision
		uris     []string
		rule     string
	}{
		{"no ceiling", policy.Decision{}, []string{own, other, local}, ""},
		{"loopback may be", policy.Decision{Loopback: &yes}, []string{local, other}, ""},
		{"POL-03 loopback may not be", policy.Decision{Loopback: &no}, []string{own, local}, "POL-03"},
		{"POL-03 which says nothing about others", policy.Decision{Loopback: &no}, []string{own, other}, ""},
		{"DOC-25 its own host", policy.Decision{SameHost: true}, []string{own, "https://APP.test/cb"}, ""},
		{"DOC-25 its own host, or this computer", policy.Decision{SameHost: true}, []string{own, local}, ""},
		{"DOC-25 another host", policy.Decision{SameHost: true}, []string{own, other}, "DOC-25"},
		{"DOC-25 another port", policy.Decision{SameHost: true}, []string{"https://app.test:8443/cb"}, "DOC-25"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := ceilings(&Client{ID: someone, Host: "app.test", RedirectURIs: c.uris, Decision: c.decision})
			if (err != nil) != (c.rule != "") || err != nil && oauth.AsError(err).Rule != c.rule {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestHostOf(t *testing.T) {
	long := strings.Repeat("a", 99)
	for url, want := range map[string]string{
		"https://app.test/c": "app.test", "https://app.test": "app.test", "https://app.test?x": "app.test", "https://app.test#x": "app.test", "https:///x": "",
		"https://us:er@app.test:8443/@x": "app.test:8443", "https://@app.test/": "app.test", "nobody": "",
		"https://" + long + "b/": long + "b", "https://" + long + "bc/": "…" + long[1:] + "bc",
	} {
		if got := hostOf(url); got != want {
			t.Errorf("FETCH-23 %s: %q", url, got)
		}
	}
}

// documents is a store with one client and its document.
type documents struct {
	Store
	read int
	err  error
}

func (d *documents) ClientStanding(_ context.Context, id string) (store.Client, error) {
	return store.Client{ID: id, Source: SourceCIMD, State: StateAllowed, Version: 3}, d.err
}

func (d *documents) Document(_ context.Context, id string) (store.Document, error) {
	d.read++
	return store.Document{ClientID: id, Version: 3, Body: []byte(`{"client_id":"` + id + `","client_name":"App","redirect_uris":["https://app.example.com/cb"]}`)}, nil
}

func TestSnapshotsAreKept(t *testing.T) {
	set := &policy.Set{Default: policy.Allow}
	if err := set.Check(); err != nil {
		t.Fatal(err)
	}
	s := &documents{}
	d, err := New(Config{Store: s, Policy: set, Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Resolver().Close()
	stored := func(id string) {
		t.Helper()
		if c, err := d.Stored(t.Context(), id); err != nil || c.Name != "App" || c.Version != 3 {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	stored("https://app.example.com/c")
	stored("https://app.example.com/c")
	if s.read != 1 {
		t.Errorf("a document that does not change was read %d times", s.read)
	}
	for i := range maxSnapshots - 1 {
		d.snapshots[fmt.Sprint(i)] = nil
	}
	stored("https://app.example.com/d")
	if n := len(d.snapshots); n != 1 {
		t.Errorf("DS-12 %d are kept", n)
	}
}

func TestRowsOfAClient(t *testing.T) {
	if c, d := (&Client{ID: "app"}).Rows(time.Unix(1, 0)); c != nil || d != nil {
		t.Errorf("a registered client has a row already: %+v, %+v", c, d)
	}
	doc := &cimd.Document{Name: "App", Digest: "d", SecurityDigest: "s", Raw: []byte("{}"), HasScope: true, Scope: "read"}
	c, d := (&Client{ID: someone, Doc: doc}).Rows(time.Unix(1, 0))
	if c == nil || d == nil || c.ID != someone || d.ClientID != someone || c.Source != SourceCIMD || c.State != StateAllowed || !c.HasScope || c.Scope != "read" ||
		d.Digest != "d" || d.SecurityDigest != "s" || string(d.Body) != "{}" || !c.Created.Equal(time.Unix(1, 0)) {
		t.Errorf("%+v, %+v", c, d)
	}
}
