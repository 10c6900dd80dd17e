package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

const (
	requestTimeout = 10 * time.Second
	maxBody        = 1 << 20
)

// statusError is an answer that is not the document: look in the next place.
type statusError struct {
	place  string
	status int
}

func (e *statusError) Error() string { return fmt.Sprintf("%s answered %d", e.place, e.status) }

// unreachable is a request without an answer.
type unreachable struct{ err error }

func (e *unreachable) Error() string { return e.err.Error() }
func (e *unreachable) Unwrap() error { return e.err }

// passing reports whether an error may be gone when the same is tried later: no
// answer, one of a server in trouble, or too many requests.
func passing(err error) bool {
	if _, silent := errors.AsType[*unreachable](err); silent {
		return true
	}
	status := 0
	if e, ok := errors.AsType[*statusError](err); ok {
		status = e.status
	}
	if e, ok := errors.AsType[*ServerError](err); ok {
		if status = e.Status; e.Code == oauth.TemporarilyUnavailable {
			return true
		}
	}
	return status == http.StatusTooManyRequests || status >= 500
}

func (c *Client) getJSON(ctx context.Context, text, place string, into any) error {
	resp, err := c.do(ctx, question{text: text, method: http.MethodGet, place: place})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &statusError{place, resp.StatusCode}
	}
	raw, err := readBounded(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s does not hold the JSON that was expected", place)
	}
	return nil
}

// question is one request of discovery or sign-in.
type question struct {
	text   string // for the trace
	method string
	place  string
	form   url.Values  // the body, or
	json   []byte      // the body
	header http.Header // beside those of every request
}

// do sends a question, without redirects, and tells it.
func (c *Client) do(ctx context.Context, q question) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	var body io.Reader
	content := ""
	switch {
	case q.form != nil:
		body, content = strings.NewReader(q.form.Encode()), "application/x-www-form-urlencoded"
	case q.json != nil:
		body, content = bytes.NewReader(q.json), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, q.method, q.place, body)
	if err != nil {
		cancel()
		return nil, err
	}
	maps.Copy(req.Header, q.header)
	req.Header.Set("Accept", "application/json")
	if content != "" {
		req.Header.Set("Content-Type", content)
	}
	to, _, _ := strings.Cut(q.place, "?")
	s := Step{Kind: StepAsk, To: to, Text: q.text}
	for _, name := range slices.Sorted(maps.Keys(q.form)) {
		s.Sent = append(s.Sent, redact([]string{name, q.form.Get(name)})...)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		cancel()
		s.Err = &unreachable{fmt.Errorf("ask %s: %w", to, unwrapURL(err))}
		c.step(s)
		return nil, s.Err
	}
	s.Status = resp.StatusCode
	c.step(s)
	resp.Body = &cancelBody{resp.Body, cancel}
	return resp, nil
}

// unwrapURL drops the *url.Error around a transport error: it repeats the URL.
func unwrapURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func readBounded(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(raw) > maxBody {
		err = errors.New("the answer is too large")
	}
	return raw, err
}
