package housetest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// fetches returns how many connections led away from the server: every one is a
// document, a key set or a logo that it wanted.
func (h *House) fetches() int {
	own, n := h.Net.Host("as.test").Addr(), 0
	for _, a := range h.Net.Dials() {
		if a.Addr() != own {
			n++
		}
	}
	return n
}

// john is a person who is signed in: the strongest position from which a
// request can do harm, because documents are only fetched for such a one.
func (h *House) john() *Person {
	h.TB.Helper()
	p := h.Person()
	if page := p.SignIn(p.Visit(Issuer + "/login")); page.Has("password") {
		h.TB.Fatalf("not signed in: %s", page.Text())
	}
	return p
}

// grant lets John agree to a client and returns what /token answers.
func (h *House) grant(p *Person, changes ...string) Answer {
	h.TB.Helper()
	code := p.Code(h.Authorize(changes...))
	form := CodeForm(code)
	for i := 0; i+1 < len(changes); i += 2 {
		if changes[i] == "client_id" || changes[i] == "redirect_uri" {
			form.Set(changes[i], changes[i+1])
		}
	}
	a := h.Post("/token", form)
	if !a.OK() {
		h.TB.Fatalf("token: %d %s", a.Status, a.Raw)
	}
	return a
}

// active reports whether the resource sees an access token as active.
func (h *House) active(token string) bool {
	h.TB.Helper()
	a := h.Post("/introspect", nil2("token", token), basic(Resource, IntrospectionSecret))
	if !a.OK() {
		h.TB.Fatalf("introspect: %d %s", a.Status, a.Raw)
	}
	return a.Body["active"] == true
}

// basic sends credentials as HTTP Basic, form-encoded as OAuth 2.1 asks.
func basic(user, pass string) func(*http.Request) {
	enc := func(s string) string {
		return strings.NewReplacer("%", "%25", ":", "%3A", "/", "%2F", "+", "%2B").Replace(s)
	}
	return func(r *http.Request) { r.SetBasicAuth(enc(user), enc(pass)) }
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

// check fails the test unless an answer is this error.
func (a Answer) check(t testing.TB, status int, code oauth.Code) {
	t.Helper()
	if a.Status != status || a.Str("error") != string(code) {
		t.Errorf("got %d %s, want %d %s", a.Status, a.Raw, status, code)
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("TOK-02: Cache-Control is %q", a.Header.Get("Cache-Control"))
	}
	if _, ok := a.Body["access_token"]; ok {
		t.Errorf("there is a token: %s", a.Raw)
	}
}

// oracles are words that would tell a stranger what the network behind the
// server looks like.
var oracles = regexp.MustCompile(`(?i)connection refused|no such host|i/o timeout|dial tcp|lookup |x509|tls: |127\.0\.0\.1:|10\.0\.0\.|169\.254|goroutine|panic`)

var reference = regexp.MustCompile(`\b[0-9A-Z]{4}-[0-9A-Z]{4}\b`)

// local fails the test unless a page is a refusal of our own with this status:
// HTML, no way back to the client, no code. It returns the reference number.
func local(t testing.TB, p *browse.Page, status int) string {
	t.Helper()
	if p.Left {
		t.Fatalf("the browser was sent to %s", p.URL)
	}
	if p.Status != status {
		t.Errorf("status %d, want %d: %s", p.Status, status, p.Text())
	}
	if !strings.HasPrefix(p.Header.Get("Content-Type"), "text/html") || p.Header.Get("Location") != "" {
		t.Errorf("headers %v", p.Header)
	}
	if p.Has("decision") || strings.Contains(p.Body, "code=") || oracles.MatchString(p.Text()) {
		t.Errorf("the page says too much: %s", p.Text())
	}
	if strings.Contains(p.Body, "<script") || !strings.Contains(p.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Errorf("CONS-06: policy %q", p.Header.Get("Content-Security-Policy"))
	}
	ref := reference.FindString(p.Text())
	if ref == "" {
		t.Errorf("AUTHZ-30: no reference number: %s", p.Text())
	}
	return ref
}

// records collects the reference numbers of refusals, to be looked up when all
// events are written.
type records struct {
	h    *House
	rows []struct{ name, ref string }
}

func (r *records) add(name, ref string) {
	r.rows = append(r.rows, struct{ name, ref string }{name, ref})
	r.h.Later(2 * time.Second) // strangers' events are sampled: this row must not be the one too many
}

// check closes the server and wants exactly one refusal for each reference.
func (r *records) check(t *testing.T) {
	t.Helper()
	r.h.Server.Close()
	count := map[string]int{}
	for _, e := range r.h.Events(audit.TypeRefusal) {
		count[e.Ref]++
		if line := string(e.MarshalLine()); strings.Count(line, "\n") != 1 || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x00\r\t\x1b\u2028") {
			t.Errorf("AD-07: %q", line)
		}
	}
	for _, row := range r.rows {
		t.Run(row.name+" is recorded once", func(t *testing.T) {
			if count[row.ref] != 1 {
				t.Errorf("%d events with the reference %s", count[row.ref], row.ref)
			}
		})
	}
}

// back fails the test unless a browser was sent to the client's redirect URI
// with this error, the state and the issuer.
func back(t testing.TB, p *browse.Page, code oauth.Code) {
	t.Helper()
	if !p.Left {
		t.Fatalf("the browser is at %s (%d): %s", p.URL, p.Status, p.Text())
	}
	q := p.URL.Query()
	if q.Get("error") != string(code) || q.Get("iss") != Issuer || q.Has("code") {
		t.Errorf("got %s, want %s", p.URL, code)
	}
}

// keyed is a client with keys of its own, at keyed.test.
type keyed struct {
	h    *House
	id   string
	keys []jose.Private
	jti  int
}

const keyedID = "https://keyed.test/c.json"

// keyed serves a client that authenticates with private_key_jwt.
func (h *House) keyed(change map[string]any, algs ...string) *keyed {
	h.TB.Helper()
	k := &keyed{h: h}
	for _, alg := range algs {
		k.keys = append(k.keys, newKey(h.TB, alg))
	}
	doc := map[string]any{
		"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://keyed.test/jwks.json",
	}
	for name, v := range change {
		doc[name] = v
	}
	k.id = h.Net.Host("keyed.test").ServeClient("/c.json", doc)
	k.publish(k.keys...)
	return k
}

// publish serves a key set at the client's jwks_uri.
func (k *keyed) publish(keys ...jose.Private) {
	k.h.TB.Helper()
	k.h.Net.Host("keyed.test").ServeJSON("/jwks.json", keySet(k.h.TB, keys...))
}

func keySet(t testing.TB, keys ...jose.Private) any {
	t.Helper()
	var public []jose.Key
	for _, p := range keys {
		public = append(public, p.Public())
	}
	raw, err := jose.MarshalSet(public...)
	if err != nil {
		t.Fatal(err)
	}
	return rawJSON(raw)
}

type rawJSON []byte

func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

func newKey(t testing.TB, alg string) jose.Private {
	t.Helper()
	p, err := jose.Generate(alg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// claims are those of a good assertion, with changes; a nil value removes one.
func (k *keyed) claims(change map[string]any) map[string]any {
	k.jti++
	now := k.h.Now().Unix()
	c := map[string]any{
		"iss": k.id, "sub": k.id, "aud": Issuer, "exp": now + 60, "iat": now, "jti": fmt.Sprintf("jti-%s-%d", k.id, k.jti),
	}
	for name, v := range change {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

// assert signs a good assertion with changes.
func (k *keyed) assert(change map[string]any) string {
	k.h.TB.Helper()
	return sign(k.h.TB, k.keys[0], "client-authentication+jwt", k.claims(change))
}

func sign(t testing.TB, key jose.Private, typ string, claims any) string {
	t.Helper()
	s, err := key.Sign(typ, claims)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// with are the changes to a form that present an assertion.
func with(assertion string, more ...string) []string {
	return slices.Concat([]string{"client_assertion_type", oauth.AssertionTypeJWT, "client_assertion", assertion}, more)
}

// code lets a person agree to the keyed client and returns the code.
func (k *keyed) code(p *Person) string {
	k.h.TB.Helper()
	return p.Code(k.h.Authorize("client_id", k.id, "redirect_uri", "https://keyed.test/cb"))
}

// redeem sends a code with an assertion.
func (k *keyed) redeem(code, assertion string, more ...string) Answer {
	k.h.TB.Helper()
	return k.h.Post("/token", CodeForm(code, slices.Concat([]string{"client_id", k.id, "redirect_uri", "https://keyed.test/cb"}, with(assertion), more)...))
}
