package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// person is somebody with a browser, at an address of their own. The browser
// stops where it is sent away from the server.
type person struct {
	s    *server
	addr net.IP
	jar  *cookiejar.Jar
	http *http.Client
}

// dialer returns how a client at an address reaches servers of the namespace: by
// our own book of names, never by asking the resolver.
func (w *world) dialer(from net.IP, s *server) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		name, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if name == "as.test" && s != nil {
			name = s.addr
		} else if net.ParseIP(name) == nil {
			w.mu.Lock()
			h := w.hosts[name]
			w.mu.Unlock()
			switch {
			case h != nil:
				name = h.addr.String()
			case name == "mcp.test":
				name, port = mcpAddr, "8081"
			default:
				return nil, fmt.Errorf("nobody is called %s", name)
			}
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, KeepAlive: -1}
		return d.DialContext(ctx, network, net.JoinHostPort(name, port))
	}
}

// address returns an address that nobody used before.
func (w *world) address() net.IP {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.people++
	n := w.people
	return net.IPv4(81, byte(2+n>>16), byte(n>>8), byte(n))
}

func (w *world) transport(from net.IP, s *server) *http.Transport {
	return &http.Transport{
		DialContext: w.dialer(from, s), TLSClientConfig: &tls.Config{RootCAs: w.ca.pool, ClientSessionCache: tls.NewLRUClientSessionCache(8)},
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 1 << 20,
	}
}

func (s *server) person() *person {
	jar, _ := cookiejar.New(nil)
	p := &person{s: s, addr: s.w.address(), jar: jar}
	p.http = &http.Client{Transport: s.w.transport(p.addr, s), Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return p
}

// page is where a browser came to rest.
type page struct {
	url    *url.URL
	status int
	header http.Header
	body   string
	left   bool // the browser was sent away from the server
	hops   []int
	took   time.Duration
}

func (p *person) visit(address string) *page { return p.from(address, "none") }

// from opens an address by a link on a site, as in Sec-Fetch-Site.
func (p *person) from(address, site string) *page {
	pg, err := p.try(address, site)
	if err != nil {
		panic(stop{"the browser: " + err.Error()})
	}
	return pg
}

func (p *person) try(address, site string) (*page, error) {
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return p.follow(req, site)
}

// send submits a form.
func (p *person) send(f *form) *page {
	pg, err := p.trySend(f)
	if err != nil {
		panic(stop{"the browser: " + err.Error()})
	}
	return pg
}

func (p *person) trySend(f *form) (*page, error) {
	req, err := http.NewRequest(http.MethodPost, f.action.String(), strings.NewReader(f.values.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	origin, site := f.action.Scheme+"://"+f.action.Host, "same-origin"
	if f.origin != "" && f.origin != origin {
		origin, site = f.origin, "cross-site"
	}
	req.Header.Set("Origin", origin)
	return p.follow(req, site)
}

func (p *person) follow(req *http.Request, site string) (*page, error) {
	began := time.Now()
	pg := &page{}
	for range 20 {
		if req.URL.Host != "as.test" {
			pg.url, pg.left, pg.took = req.URL, true, time.Since(began)
			return pg, nil
		}
		req.Header.Set("Accept", "text/html,application/xhtml+xml")
		if site != "" {
			req.Header.Set("Sec-Fetch-Site", site)
			req.Header.Set("Sec-Fetch-Mode", "navigate")
			req.Header.Set("Sec-Fetch-Dest", "document")
		}
		resp, err := p.http.Do(req)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 300 && resp.StatusCode < 400 {
			to, err := resp.Location()
			if err != nil {
				return nil, err
			}
			pg.hops = append(pg.hops, resp.StatusCode)
			if to.Host != req.URL.Host && site != "none" {
				site = "cross-site"
			}
			if req, err = http.NewRequest(http.MethodGet, to.String(), nil); err != nil {
				return nil, err
			}
			continue
		}
		pg.url, pg.status, pg.header, pg.body, pg.took = req.URL, resp.StatusCode, resp.Header, string(body), time.Since(began)
		return pg, nil
	}
	return nil, errors.New("the redirects go round in circles")
}

// form is a form of a page, with what is hidden in it filled in.
type form struct {
	action *url.URL
	values url.Values
	origin string // replaces the origin, to play another site
}

func (f *form) with(name, value string) *form {
	f.values.Set(name, value)
	return f
}

func (f *form) copy() *form {
	v := url.Values{}
	for k, l := range f.values {
		v[k] = append([]string(nil), l...)
	}
	return &form{f.action, v, f.origin}
}

// form returns the form that has a field of that name, or nil.
func (p *page) form(field string) *form {
	doc, err := html.Parse(strings.NewReader(p.body))
	if err != nil || p.left {
		return nil
	}
	named := func(n *html.Node) bool { return attr(n, "name") == field }
	top := find(doc, func(n *html.Node) bool { return n.Data == "form" && find(n, named) != nil })
	if top == nil {
		return nil
	}
	f := &form{values: url.Values{}}
	if f.action, err = p.url.Parse(attr(top, "action")); err != nil {
		return nil
	}
	each(top, func(n *html.Node) {
		if n.Data == "input" && attr(n, "type") == "hidden" {
			f.values.Add(attr(n, "name"), attr(n, "value"))
		}
	})
	return f
}

// must is form for a page that has to have one.
func (p *page) must(field string) *form {
	f := p.form(field)
	if f == nil {
		panic(stop{fmt.Sprintf("the page has no form with %s: %s", field, p)})
	}
	return f
}

func (p *page) has(field string) bool { return p.form(field) != nil }

// asks reports whether this is the consent page.
func (p *page) asks() bool { return !p.left && p.status == 200 && p.has("decision") }

func (p *page) code() string {
	if !p.left {
		return ""
	}
	return p.url.Query().Get("code")
}

func (p *page) String() string {
	if p.left {
		return "sent to " + p.url.String()
	}
	return fmt.Sprintf("%d at %s: %s", p.status, tail(p.url.Path, 60), head(p.text(), 240))
}

func head(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

// text returns what a person reads.
func (p *page) text() string {
	doc, err := html.Parse(strings.NewReader(p.body))
	if err != nil {
		return ""
	}
	top := find(doc, func(n *html.Node) bool { return n.Data == "main" })
	if top == nil {
		top = doc
	}
	var words []string
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.TextNode && (n.Parent == nil || n.Parent.Data != "style") {
			words = append(words, strings.Fields(n.Data)...)
		}
		for c := range n.ChildNodes() {
			walk(c)
		}
	}
	walk(top)
	return strings.Join(words, " ")
}

func each(n *html.Node, do func(*html.Node)) {
	if n.Type == html.ElementNode {
		do(n)
	}
	for c := range n.ChildNodes() {
		each(c, do)
	}
}

func find(n *html.Node, want func(*html.Node) bool) *html.Node {
	var found *html.Node
	each(n, func(e *html.Node) {
		if found == nil && want(e) {
			found = e
		}
	})
	return found
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// signIn fills in the sign-in page.
func (p *person) signIn(pg *page, name, pass string) *page {
	return p.send(pg.must("password").with("username", name).with("password", pass))
}

// answer allows or denies on the consent page.
func (p *person) answer(pg *page, decision string) *page {
	return p.send(pg.must("decision").with("decision", decision))
}

// newUser adds an account and returns its owner, signed in.
func (s *server) newUser(name string) *person {
	s.addUser(name)
	return s.signedIn(name)
}

func (s *server) addUser(name string) {
	if _, err := s.cli(password+"\n", "user", "add", name, "--email", name+"@acme.example", "--password-file", "-"); err != nil {
		panic(stop{err.Error()})
	}
}

func (s *server) signedIn(name string) *person {
	p := s.person()
	if pg := p.signIn(p.visit(issuer+"/login"), name, password); pg.has("password") {
		panic(stop{"not signed in: " + pg.String()})
	}
	return p
}

// consent opens an authorization request, signs in as name if asked, allows, and
// returns where the browser was sent.
func (p *person) consent(address string) *page {
	pg := p.visit(address)
	if !pg.left {
		pg = p.answer(pg, "allow")
	}
	return pg
}

// codeFor is consent for a row that only wants the code.
func (p *person) codeFor(address string) string {
	pg := p.consent(address)
	if pg.code() == "" {
		panic(stop{"no code: " + pg.String()})
	}
	return pg.code()
}

func (p *person) cookie(name string) string {
	u, _ := url.Parse(issuer + "/")
	for _, c := range p.jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

func (p *person) cookies() string {
	u, _ := url.Parse(issuer + "/")
	var parts []string
	for _, c := range p.jar.Cookies(u) {
		parts = append(parts, c.Name+"="+c.Value)
	}
	return strings.Join(parts, "; ")
}

func (p *person) plant(cookies ...*http.Cookie) {
	u, _ := url.Parse(issuer + "/")
	p.jar.SetCookies(u, cookies)
}

var reference = regexp.MustCompile(`\b[0-9A-Z]{4}-[0-9A-Z]{4}\b`)

// oracles are words that would tell a stranger what the network behind the
// server looks like.
var oracles = regexp.MustCompile(`(?i)connection refused|no such host|i/o timeout|dial tcp|lookup |x509|tls: |127\.0\.0\.1:|10\.0\.0\.|169\.254|goroutine|panic|SQLSTATE|sqlite`)
