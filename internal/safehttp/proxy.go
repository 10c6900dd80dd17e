package safehttp

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

// tunnel opens a connection to the target through the egress proxy by CONNECT.
// The proxy is the operator's: its address is resolved and dialled unguarded.
func (f *Fetcher) tunnel(ctx context.Context, t target, maxHeader int64) (net.Conn, error) {
	p := f.rules.Proxy
	port := map[string]string{"http": "80", "https": "443"}[p.Scheme]
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(p.Hostname(), cmp.Or(p.Port(), port)))
	if err != nil {
		return nil, &Error{KindConnect, fmt.Errorf("dial proxy: %w", err)}
	}
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	conn := tunnel{Conn: raw, raw: raw}
	if p.Scheme == "https" {
		config := f.tls.Clone()
		config.ServerName = p.Hostname()
		conn.Conn = tls.Client(raw, config)
	}
	if err := f.askProxy(conn, net.JoinHostPort(t.host, strconv.Itoa(int(t.port))), maxHeader); err != nil {
		raw.Close()
		return nil, &Error{KindConnect, fmt.Errorf("ask proxy: %w", err)}
	}
	return conn, nil
}

func (f *Fetcher) askProxy(conn net.Conn, addr string, maxHeader int64) error {
	req := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Host: addr}, Host: addr,
		Header: http.Header{"User-Agent": {f.rules.UserAgent}},
	}
	if u := f.rules.Proxy.User; u != nil {
		password, _ := u.Password()
		auth := http.Request{Header: http.Header{}}
		auth.SetBasicAuth(u.Username(), password)
		req.Header["Proxy-Authorization"] = auth.Header["Authorization"]
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	br := bufio.NewReader(&limited{r: conn, left: maxHeader})
	resp, err := http.ReadResponse(br, req) //nolint:bodyclose // the answer to CONNECT has no body; the tunnel follows
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("status %d", resp.StatusCode)
	case br.Buffered() > 0: // the target speaks only when spoken to
		return errors.New("bytes after the response")
	}
	return nil
}

// tunnel is a connection through a proxy. It closes without a farewell, which
// could block.
type tunnel struct {
	net.Conn
	raw net.Conn
}

// Close closes the connection to the proxy.
func (t tunnel) Close() error { return t.raw.Close() }
