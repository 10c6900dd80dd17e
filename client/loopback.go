package client

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// listener waits on a loopback address for the one request with which the
// browser comes back. It is open only while a sign-in is under way (CLI-18).
type listener struct {
	redirect string // the redirect URI with the port that was found
	host     string // authority of redirect: the only Host that is answered
	path     string
	nets     []net.Listener
	server   *http.Server
	expects  func(query string) bool // is this the awaited answer?
	taken    atomic.Bool             // the one answer came
	queries  chan string
	outcome  chan error // what to tell the person in the browser
}

// listen binds the loopback address of a redirect URI: the port that stands in
// it, or any free one.
func listen(redirect string) (*listener, error) {
	u, err := url.Parse(redirect)
	if err != nil {
		return nil, fmt.Errorf("listen for the browser: %w", err)
	}
	address, port := u.Hostname(), u.Port()
	if address == "localhost" {
		address = "127.0.0.1"
	}
	if port == "" {
		port = "0"
	}
	first, err := net.Listen("tcp", net.JoinHostPort(address, port))
	if err != nil {
		return nil, fmt.Errorf("listen for the browser: %w", err)
	}
	_, port, _ = net.SplitHostPort(first.Addr().String())
	l := &listener{nets: []net.Listener{first}, path: u.EscapedPath(), queries: make(chan string, 1), outcome: make(chan error, 1)}
	if u.Hostname() == "localhost" { // a browser may try the other family first
		if second, err := net.Listen("tcp", net.JoinHostPort("::1", port)); err == nil {
			l.nets = append(l.nets, second)
		}
	}
	l.host = net.JoinHostPort(u.Hostname(), port)
	l.redirect = "http://" + l.host + u.EscapedPath()
	if l.path == "" {
		l.path = "/"
	}
	return l, nil
}

// serve starts answering. expects decides which request is the awaited one.
func (l *listener) serve(expects func(query string) bool) {
	l.expects = expects
	l.server = &http.Server{Handler: l, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 32 << 10}
	for _, n := range l.nets {
		go func() { _ = l.server.Serve(n) }()
	}
}

// close lets a page that is being written finish, and frees the port. An answer
// that came too late is told so.
func (l *listener) close() {
	select {
	case l.outcome <- errors.New("nobody waits any more"):
	default: // the outcome is known
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if l.server != nil {
		_ = l.server.Shutdown(ctx)
	}
	for _, n := range l.nets {
		n.Close() // a server that had not begun to serve has not closed it
	}
}

// ServeHTTP takes one GET of the right path with the right state. Everything else
// on this port, from whatever program or page, learns nothing and changes
// nothing.
func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Connection", "close")
	if r.Method != http.MethodGet || r.Host != l.host || r.URL.EscapedPath() != l.path ||
		!l.expects(r.URL.RawQuery) || l.taken.Swap(true) {
		http.NotFound(w, r)
		return
	}
	l.queries <- r.URL.RawQuery
	var err error
	select {
	case err = <-l.outcome:
	case <-r.Context().Done():
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = page.Execute(w, pageData(err))
}

type pageText struct {
	Done                bool
	Title, Text, Detail string
}

func pageData(err error) pageText {
	if err == nil {
		return pageText{true, "You are signed in", "You can close this tab and go back to the application.", ""}
	}
	if e, ok := errors.AsType[*ServerError](err); ok {
		return pageText{false, "You are not signed in", "The sign-in was ended. You can close this tab; the application can try again.", string(e.Code) + " " + e.Description}
	}
	return pageText{false, "You are not signed in", "The answer could not be used. You can close this tab; the application says more.", ""}
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
:root { color-scheme: light dark; --paper: #f4f2ec; --sheet: #fffefb; --ink: #191c1b; --quiet: #545b58; --line: #dedbd1; --done: #17663a; --stop: #a32920 }
@media (prefers-color-scheme: dark) { :root { --paper: #101413; --sheet: #181d1c; --ink: #eceeea; --quiet: #a7b0ab; --line: #2e3534; --done: #7fd09a; --stop: #ff9d91 } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100dvh; display: grid; place-content: center; padding: 1rem; background: var(--paper); color: var(--ink);
	font: 1rem/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif }
main { width: min(26rem, calc(100vw - 2rem)); padding: 2rem; background: var(--sheet); border: 1px solid var(--line); border-radius: .75rem }
svg { display: block; width: 2.25rem; height: 2.25rem; margin: 0 0 1rem; fill: none; stroke: var(--done); stroke-width: 2; stroke-linecap: round; stroke-linejoin: round }
svg.stop { stroke: var(--stop) }
h1 { font-size: 1.5rem; line-height: 1.25; letter-spacing: -.01em; margin: 0 0 .5rem }
p { margin: 0; color: var(--quiet) }
p + p { margin-top: 1rem }
code { font: .875rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; color: var(--ink) }
</style>
<main>
{{if .Done}}<svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="10"/><path d="m7.5 12.5 3 3 6-6.5"/></svg>
{{else}}<svg class="stop" viewBox="0 0 24 24" aria-hidden="true"><path d="M8 2h8l6 6v8l-6 6H8l-6-6V8zM12 7.5v5.5M12 16.5v.01"/></svg>
{{end}}<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{with .Detail}}<p><code>{{.}}</code></p>
{{end}}</main>
</html>
`))
