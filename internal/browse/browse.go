// Package browse is a browser without a screen: it follows redirects, keeps
// cookies, reads the text of pages and sends their forms with everything that is
// hidden in them, and the headers that a browser adds. The demo plays John with
// it, and tests play everybody else.
package browse

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/safehttp"
	"golang.org/x/net/html"
)

// Config says how a browser reaches the network and where it stops.
type Config struct {
	RootCAs *x509.CertPool
	Lookup  safehttp.Lookup // nil is the system's resolver
	Dial    safehttp.Dial   // nil is the network
	// Stops reports that an address is the end of the way, such as a redirect URI
	// at which nobody listens: it is not opened. Nil stops nowhere.
	Stops func(*url.URL) bool
}

// Browser is one person's browser. It is used by one goroutine at a time.
type Browser struct {
	cfg  Config
	http *http.Client
}

// New returns a browser without cookies.
func New(c Config) (*Browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	h := safehttp.Trusted(safehttp.TrustedConfig{
		RootCAs: c.RootCAs, Timeout: 20 * time.Second, MaxBody: 2 << 20, Lookup: c.Lookup, Dial: c.Dial,
	})
	h.Jar = jar
	return &Browser{cfg: c, http: h}, nil
}

// Cookies returns the cookies that would be sent to an address.
func (b *Browser) Cookies(u *url.URL) []*http.Cookie { return b.http.Jar.Cookies(u) }

// SetCookies plants cookies.
func (b *Browser) SetCookies(u *url.URL, cookies []*http.Cookie) { b.http.Jar.SetCookies(u, cookies) }

// Page is where a browser came to rest.
type Page struct {
	URL    *url.URL
	Status int
	Header http.Header
	Body   string
	Left   bool  // the page was not opened: Config.Stops said so
	Hops   []int // status of each redirect on the way
}

// Open goes to an address as if it had been typed.
func (b *Browser) Open(ctx context.Context, address string) (*Page, error) {
	return b.From(ctx, address, "none")
}

// From goes to an address by a link on a site: "same-origin", "same-site" or
// "cross-site", as in Sec-Fetch-Site.
func (b *Browser) From(ctx context.Context, address, site string) (*Page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return b.follow(req, site)
}

// Submit sends a form.
func (b *Browser) Submit(ctx context.Context, f *Form) (*Page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.Action.String(), strings.NewReader(f.Values.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	origin := f.Page.URL.Scheme + "://" + f.Page.URL.Host
	if f.Origin != "" {
		origin = f.Origin
	}
	req.Header.Set("Origin", origin)
	site := "same-origin"
	if origin != f.Action.Scheme+"://"+f.Action.Host {
		site = "cross-site"
	}
	return b.follow(req, site)
}

const maxHops = 20

func (b *Browser) follow(req *http.Request, site string) (*Page, error) {
	page := &Page{}
	for range maxHops {
		if b.cfg.Stops != nil && b.cfg.Stops(req.URL) {
			page.URL, page.Left = req.URL, true
			return page, nil
		}
		req.Header.Set("Accept", "text/html,application/xhtml+xml")
		req.Header.Set("Sec-Fetch-Site", site)
		req.Header.Set("Sec-Fetch-Mode", "navigate")
		req.Header.Set("Sec-Fetch-Dest", "document")
		resp, err := b.http.Do(req)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 2<<20))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if to, err := resp.Location(); err == nil && resp.StatusCode >= 300 && resp.StatusCode < 400 {
			page.Hops = append(page.Hops, resp.StatusCode)
			if to.Host != req.URL.Host && site != "none" {
				site = "cross-site"
			}
			if req, err = http.NewRequestWithContext(req.Context(), http.MethodGet, to.String(), nil); err != nil {
				return nil, err
			}
			continue
		}
		page.URL, page.Status, page.Header, page.Body = req.URL, resp.StatusCode, resp.Header, string(body)
		return page, nil
	}
	return nil, errors.New("the redirects go round in circles")
}

// Text returns what a person reads on the page.
func (p *Page) Text() string {
	doc, err := html.Parse(strings.NewReader(p.Body))
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

// Form is a form of a page, with what is hidden in it filled in.
type Form struct {
	Page   *Page
	Action *url.URL
	Values url.Values
	Origin string // replaces the origin of the page, to play another site
}

// Form returns the form that has a field of that name.
func (p *Page) Form(field string) (*Form, error) {
	doc, err := html.Parse(strings.NewReader(p.Body))
	if err != nil {
		return nil, err
	}
	named := func(n *html.Node) bool { return attr(n, "name") == field }
	form := find(doc, func(n *html.Node) bool { return n.Data == "form" && find(n, named) != nil })
	if form == nil {
		return nil, fmt.Errorf("%s (status %d) has no form with a field %s: %s", p.URL.Path, p.Status, field, p.Text())
	}
	f := &Form{Page: p, Values: url.Values{}}
	if f.Action, err = p.URL.Parse(attr(form, "action")); err != nil {
		return nil, err
	}
	each(form, func(n *html.Node) {
		if n.Data == "input" && attr(n, "type") == "hidden" {
			f.Values.Add(attr(n, "name"), attr(n, "value"))
		}
	})
	return f, nil
}

// Has reports whether the page has a form with a field of that name.
func (p *Page) Has(field string) bool {
	_, err := p.Form(field)
	return err == nil
}

// With returns the form with a value set.
func (f *Form) With(name, value string) *Form {
	f.Values.Set(name, value)
	return f
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
