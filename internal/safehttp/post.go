package safehttp

import (
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"time"
)

// maxForm bounds what is sent.
const maxForm = 64 << 10

// Form is one POST of a form, with the same limits and defaults as a Request.
type Form struct {
	URL    string
	Values url.Values
	Accept string

	// User and Secret go into HTTP Basic, form-encoded as RFC 6749 section 2.3.1
	// wants them, unless User is empty.
	User, Secret string

	// StatusOnly leaves the body of the answer unread, whatever its size.
	StatusOnly bool

	MaxBody, MaxHeader int64
	Timeout            time.Duration
}

// Post sends a form and returns the answer, under the same guard as Get: one
// name lookup, addresses that were checked, no redirect, one deadline. Unlike
// Get it reads the body of every status, because errors of OAuth stand there. An
// error is always a *Error.
func (f *Fetcher) Post(ctx context.Context, p Form) (*Response, error) {
	body := p.Values.Encode()
	if len(body) > maxForm {
		return nil, &Error{KindURL, errors.New("the form is too large")}
	}
	q := Request{URL: p.URL, Accept: p.Accept, MaxBody: p.MaxBody, MaxHeader: p.MaxHeader, Timeout: p.Timeout, post: &posted{body: body, statusOnly: p.StatusOnly}}
	if p.User != "" {
		q.post.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(p.User)+":"+url.QueryEscape(p.Secret)))
	}
	return f.Get(ctx, q)
}

// posted makes a Request a POST.
type posted struct {
	body, authorization string
	statusOnly          bool
}
