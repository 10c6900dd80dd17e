package demo

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/bonafide-id/bonafide/internal/browse"
)

// john plays the person: he opens the address, signs in, reads what he is asked
// and agrees if the page says what it should.
type john struct {
	town     *town
	password string
	browser  *browse.Browser

	mu     sync.Mutex // guards what follows
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

// visit opens an address and does what its pages ask, until the browser has left
// the authorization server.
func (j *john) visit(ctx context.Context, address string) error {
	page, err := j.browser.Open(ctx, address)
	for range 5 {
		if err != nil {
			return err
		}
		if page.URL.Host != hostPort(j.town.issuer) {
			if page.Status != 200 {
				return fmt.Errorf("the agent's page answered %d", page.Status)
			}
			return nil
		}
		if page.Status != 200 {
			return fmt.Errorf("%s answered %d: %s", page.URL.Path, page.Status, page.Text())
		}
		var form *browse.Form
		if form, err = j.answer(page); err != nil {
			return err
		}
		page, err = j.browser.Submit(ctx, form)
	}
	return errors.New("the pages go round in circles")
}

// answer fills in the form of a page.
func (j *john) answer(page *browse.Page) (*browse.Form, error) {
	if form, err := page.Form("password"); err == nil {
		j.town.trace.line("john", true, "signs in with name and password", "")
		return form.With("username", userName).With("password", j.password), nil
	}
	form, err := page.Form("decision")
	if err != nil {
		return nil, err
	}
	return form.With("decision", "allow"), j.consider(page.Text())
}

// lessons are what John has to find on his first and on his second page, and how
// the trace tells it.
var lessons = []struct {
	told string
	says []string
}{
	{"reads: mcpclient.example wants to read issues; the answer goes to this computer. Allow.", []string{"It will be able to read issues", "this computer"}},
	{"reads: it may already read issues, new is to create issues. Allow.", []string{"It may already read issues", "New create issues", "create_issue"}},
}

// consider reads a consent page and agrees only if it says who asks and for what,
// and what of it is new.
func (j *john) consider(text string) error {
	j.mu.Lock()
	j.pages = append(j.pages, text)
	n := len(j.pages)
	j.mu.Unlock()
	if n > len(lessons) {
		return fmt.Errorf("john is asked a third time: %s", text)
	}
	for _, w := range append([]string{"mcpclient.example", "GitHub tools", "127.0.0.1", userName}, lessons[n-1].says...) {
		if !strings.Contains(text, w) {
			return fmt.Errorf("the consent page does not say %q: %s", w, text)
		}
	}
	j.town.trace.line("john", true, lessons[n-1].told, "")
	return nil
}

func hostPort(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}
