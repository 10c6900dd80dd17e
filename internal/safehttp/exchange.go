package safehttp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
)

// maxInterim bounds 1xx responses before the answer.
const maxInterim = 4

var errHeaderTooLarge = errors.New("header is too large")

// exchange sends the request on an open connection and reads the answer. The
// caller closes the connection, which is also what ends a read too slow.
func (f *Fetcher) exchange(conn net.Conn, t target, q Request) (*Response, error) {
	req := &http.Request{
		Method: http.MethodGet, URL: t.url, Host: t.url.Host, Close: true,
		Header: http.Header{
			"User-Agent":      {f.rules.UserAgent},
			"Accept-Encoding": {"identity"},
		},
	}
	for name, value := range map[string]string{
		"Accept": q.Accept, "If-None-Match": q.IfNoneMatch, "If-Modified-Since": q.IfModifiedSince,
	} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if p := q.post; p != nil {
		req.Method, req.ContentLength, req.Body = http.MethodPost, int64(len(p.body)), io.NopCloser(strings.NewReader(p.body))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if p.authorization != "" {
			req.Header.Set("Authorization", p.authorization)
		}
	}
	out := &Response{Sent: f.rules.Now()}
	if err := req.Write(conn); err != nil {
		return nil, &Error{KindConnect, fmt.Errorf("send request: %w", err)}
	}
	in := &limited{r: conn, left: q.MaxHeader}
	resp, err := readHead(in, req) //nolint:bodyclose // the connection is closed instead: closing a body would drain it
	if err != nil {
		return nil, err
	}
	// The body is not closed: Close would read it to its end. The caller closes
	// the connection, and that is all that is to be released.
	out.Received, out.Status, out.Header = f.rules.Now(), resp.StatusCode, resp.Header
	if q.post == nil && resp.StatusCode != http.StatusOK || q.post != nil && q.post.statusOnly {
		return out, nil
	}
	for _, c := range resp.Header.Values("Content-Encoding") {
		if c = strings.TrimSpace(c); c != "" && !strings.EqualFold(c, "identity") {
			return nil, &Error{KindProtocol, errors.New("body is compressed")}
		}
	}
	if resp.ContentLength > q.MaxBody {
		return nil, &Error{KindTooLarge, fmt.Errorf("body of %d bytes, limit %d", resp.ContentLength, q.MaxBody)}
	}
	out.Body, err = io.ReadAll(io.LimitReader(resp.Body, q.MaxBody+1))
	switch {
	case int64(len(out.Body)) > q.MaxBody:
		return nil, &Error{KindTooLarge, fmt.Errorf("body over the limit of %d bytes", q.MaxBody)}
	case err != nil:
		return nil, &Error{KindProtocol, fmt.Errorf("read body: %w", err)}
	}
	return out, nil
}

// readHead reads up to the end of the final response's header and then lifts
// the limit, which the body has another of.
func readHead(in *limited, req *http.Request) (*http.Response, error) {
	br := bufio.NewReader(in)
	for range maxInterim + 1 {
		resp, err := http.ReadResponse(br, req)
		switch {
		case err != nil && in.hit: // err may tell of the line that was cut off
			return nil, &Error{KindTooLarge, errHeaderTooLarge}
		case err != nil:
			return nil, &Error{KindProtocol, fmt.Errorf("read response: %w", err)}
		case resp.StatusCode == http.StatusSwitchingProtocols, resp.StatusCode < 100:
			return nil, &Error{KindProtocol, fmt.Errorf("unexpected status %d", resp.StatusCode)}
		case resp.StatusCode >= 200:
			in.left = math.MaxInt64
			return resp, nil
		}
	}
	return nil, &Error{KindProtocol, errors.New("too many interim responses")}
}

// limited reads at most left bytes and then fails.
type limited struct {
	r    io.Reader
	left int64
	hit  bool // somebody asked for more
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		l.hit = true
		return 0, errHeaderTooLarge
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	return n, err
}
