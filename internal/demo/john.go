package demo

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/safehttp"
	"golang.org/x/net/html"
)

// john plays the person: he follows redirects as a browser does, keeps cookies,
// reads the pages, and sends the forms that are on them with what is hidden in
// them.
type john struct {
	town     *town
	password string

	mu     sync.Mutex // guards what follows
	client *http.Client
	reason error
	pages  []string // the text of the consent pages, in order
}

func (j *john) failed(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.reason == nil {
		j.reason = fmt.Errorf("john: %w", err)
	}
}

func (j *john) err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.reason
}

func (j *john) read() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.pages)
}

// browser returns John's browser: cookies are kept between visits.
func (j *john) browser() (*http.Client, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.client == nil {
		jar, err := cookiejar.New(nil)
		if err != nil {
			return nil, err
		}
		j.client = safehttp.Trusted(safehttp.TrustedConfig{RootCAs: j.town.ca.pool(), Timeout: 10 * time.Second, MaxBody: 1 << 20})
		j.client.Jar = jar
	}
	return j.client, nil
}

// visit opens an address and does what its pages ask, until the browser has left
// the authorization server.
func (j *john) visit(address string) error {
	b, err := j.browser()
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodGet, address, nil) //nolint:noctx // John's patience is the client's time limit
	if err != nil {
		return err
	}
	for range 20 {
		req.Header.Set("Accept", "text/html")
		resp, err := b.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode == http.StatusSeeOther || resp.StatusCode == http.StatusFound {
			to, err := resp.Location()
			if err != nil {
				return err
			}
			if req, err = http.NewRequest(http.MethodGet, to.String(), nil); err != nil { //nolint:noctx // as above
				return err
			}
			continue
		}
		if req.URL.Port() != port(j.town.issuer) {
			return j.arrived(resp.StatusCode, string(body))
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s: %s", req.URL.Path, resp.Status, textOf(string(body)))
		}
		if req, err = j.answer(req.URL, string(body)); err != nil {
			return err
		}
	}
	return errors.New("the pages go round in circles")
}

// arrived is the page of the agent's own listener.
func (j *john) arrived(status int, _ string) error {
	if status != http.StatusOK {
		return fmt.Errorf("the agent's page answered %d", status)
	}
	return nil
}

// answer fills in the form of a page.
func (j *john) answer(page *url.URL, body string) (*http.Request, error) {
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	form := find(doc, func(n *html.Node) bool {
		return n.Data == "form" && find(n, func(c *html.Node) bool { return attr(c, "name") == "password" || attr(c, "name") == "decision" }) != nil
	})
	if form == nil {
		return nil, fmt.Errorf("%s has no form to fill in: %s", page.Path, textOf(body))
	}
	values := url.Values{}
	each(form, func(n *html.Node) {
		if n.Data == "input" && attr(n, "type") == "hidden" {
			values.Add(attr(n, "name"), attr(n, "value"))
		}
	})
	if find(form, func(n *html.Node) bool { return attr(n, "name") == "password" }) != nil {
		values.Set("username", userName)
		values.Set("password", j.password)
		j.town.trace.line("john", true, "signs in with name and password", "")
	} else {
		if err := j.consider(textOf(body)); err != nil {
			return nil, err
		}
		values.Set("decision", "allow")
	}
	action, err := page.Parse(attr(form, "action"))
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, action.String(), strings.NewReader(values.Encode())) //nolint:noctx // as above
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", page.Scheme+"://"+page.Host)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	return req, nil
}

// consider reads a consent page and agrees only if it says who asks and for what.
func (j *john) consider(text string) error {
	wanted := []string{"mcpclient.example", "GitHub tools", "127.0.0.1", userName}
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			return fmt.Errorf("the consent page does not say %q: %s", w, text)
		}
	}
	j.mu.Lock()
	j.pages = append(j.pages, text)
	n := len(j.pages)
	j.mu.Unlock()
	if n == 1 {
		j.town.trace.line("john", true, "reads: mcpclient.example wants to read issues; the answer goes to this computer. Allow.", "")
	} else {
		j.town.trace.line("john", true, "reads: it may already read issues, new is to create issues. Allow.", "")
	}
	return nil
}

func port(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Port()
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

// textOf returns what a person reads on a page.
func textOf(page string) string {
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		return ""
	}
	body := find(doc, func(n *html.Node) bool { return n.Data == "main" })
	if body == nil {
		body = doc
	}
	var words []string
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.TextNode {
			words = append(words, strings.Fields(n.Data)...)
		}
		for c := range n.ChildNodes() {
			walk(c)
		}
	}
	walk(body)
	return strings.Join(words, " ")
}
