package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// reply is what an endpoint for programs answered.
type reply struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
	err    error
	took   time.Duration
}

func (a reply) str(name string) string {
	s, _ := a.body[name].(string)
	return s
}

func (a reply) ok() bool { return a.err == nil && a.status == 200 }

func (a reply) is(status int, code string) bool {
	return a.err == nil && a.status == status && a.str("error") == code && a.str("access_token") == ""
}

func (a reply) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("%d %s", a.status, head(strings.TrimSpace(a.raw), 300))
}

// edit changes a request before it is sent.
type edit = func(*http.Request)

func withHeader(name, value string) edit { return func(r *http.Request) { r.Header.Add(name, value) } }

func basic(user, pass string) edit {
	enc := strings.NewReplacer("%", "%25", ":", "%3A", "/", "%2F", "+", "%2B")
	return func(r *http.Request) { r.SetBasicAuth(enc.Replace(user), enc.Replace(pass)) }
}

// post sends a form to an endpoint of the server, from an address that all
// programs of the run share.
func (s *server) post(path string, f url.Values, edits ...edit) reply {
	return s.postRaw(path, "application/x-www-form-urlencoded", f.Encode(), edits...)
}

func (s *server) postRaw(path, typ, body string, edits ...edit) reply {
	req, err := http.NewRequest(http.MethodPost, issuer+path, strings.NewReader(body))
	if err != nil {
		return reply{err: err}
	}
	if typ != "" {
		req.Header.Set("Content-Type", typ)
	}
	for _, e := range edits {
		e(req)
	}
	return s.do(req)
}

func (s *server) get(path string, edits ...edit) reply {
	req, err := http.NewRequest(http.MethodGet, issuer+path, nil)
	if err != nil {
		return reply{err: err}
	}
	for _, e := range edits {
		e(req)
	}
	return s.do(req)
}

func (s *server) do(req *http.Request) reply { return do(s.program(), req) }

// program is an HTTP client without cookies and redirects.
func (s *server) program() *http.Client {
	return &http.Client{Transport: s.w.transport(s.w.address(), s), Timeout: 40 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func do(c *http.Client, req *http.Request) reply {
	began := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return reply{err: err, took: time.Since(began)}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	a := reply{status: resp.StatusCode, header: resp.Header, raw: string(raw), err: err, took: time.Since(began)}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		d := json.NewDecoder(bytes.NewReader(raw))
		_ = d.Decode(&a.body)
	}
	return a
}

func change(v url.Values, changes []string) url.Values {
	for i := 0; i+1 < len(changes); i += 2 {
		if v.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			v.Del(changes[i])
		}
	}
	return v
}

// az is the authorization request of the catalogue with changes as pairs of name
// and value; an empty value leaves the parameter out.
func az(changes ...string) string {
	q := change(url.Values{
		"response_type": {"code"}, "client_id": {goodID}, "redirect_uri": {redirect}, "scope": {"mcp:read"},
		"resource": {resource}, "state": {"s1"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}, changes)
	return issuer + "/authorize?" + q.Encode()
}

// azOf is az for a client on a host of its own: its redirect URI is there, too.
func azOf(id string, changes ...string) string {
	origin := strings.Join(strings.SplitN(id, "/", 4)[:3], "/")
	return az(append([]string{"client_id", id, "redirect_uri", origin + "/cb"}, changes...)...)
}

func codeForm(code string, changes ...string) url.Values {
	return change(url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "client_id": {goodID},
		"redirect_uri": {redirect}, "code_verifier": {verifier}, "resource": {resource},
	}, changes)
}

func refreshForm(token string, changes ...string) url.Values {
	return change(url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {goodID}, "resource": {resource},
	}, changes)
}

func values(pairs ...string) url.Values { return change(url.Values{}, pairs) }

// grant lets a person agree to a client and returns what /token answers.
func (p *person) grant(changes ...string) reply {
	code := p.codeFor(az(changes...))
	f := codeForm(code)
	for i := 0; i+1 < len(changes); i += 2 {
		if changes[i] == "client_id" || changes[i] == "redirect_uri" || changes[i] == "resource" {
			f.Set(changes[i], changes[i+1])
		}
	}
	a := p.s.post("/token", f)
	if !a.ok() {
		panic(stop{"no tokens: " + a.String()})
	}
	return a
}

// grantOf is grant for a client on a host of its own.
func (p *person) grantOf(id string, changes ...string) reply {
	origin := strings.Join(strings.SplitN(id, "/", 4)[:3], "/")
	return p.grant(append([]string{"client_id", id, "redirect_uri", origin + "/cb"}, changes...)...)
}

// active reports whether the resource sees an access token as active.
func (s *server) active(token string) bool {
	a := s.post("/introspect", values("token", token), basic(resource, secret))
	if !a.ok() {
		panic(stop{"introspect: " + a.String()})
	}
	return a.body["active"] == true
}

// events returns the audit events of a type, newest last.
func (s *server) events(kind string) []map[string]any {
	args := []string{"events"}
	if kind != "" {
		args = append(args, "--type", kind)
	}
	out, err := s.cli("", args...)
	if err != nil {
		panic(stop{err.Error()})
	}
	var list []map[string]any
	for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
		if line == "" {
			continue
		}
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			panic(stop{fmt.Sprintf("an event that is no JSON: %q", line)})
		}
		list = append(list, e)
	}
	return list
}
