package web

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
)

//go:embed assets/frame.html assets/error.html assets/parts.html
var pages embed.FS

var (
	parts     = template.Must(template.New("parts").Funcs(functions).ParseFS(pages, "assets/parts.html"))
	frame     = template.Must(template.Must(parts.Clone()).ParseFS(pages, "assets/frame.html")).Lookup("frame.html")
	errorPage = Template("error", readPage("assets/error.html"))
)

func readPage(name string) string {
	b, err := pages.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return string(b)
}

// Template parses the template of a page. It may use the parts of the frame
// (see assets/parts.html): {{template "icon-check"}} and its like, {{template
// "host" .URL}}, {{template "proven" "text"}}, {{template "look" "text"}},
// {{template "stop" "text"}}; and the function "host", which takes a URL apart
// for display. It panics on a mistake, so call it for a package variable.
func Template(name, text string) *template.Template {
	return template.Must(template.Must(parts.Clone()).New(name).Parse(text))
}

// framed is what the frame shows around a page.
type framed struct {
	Title, Brand, Stylesheet, Icon, Logo, Issuer, Ref string
	Content                                           template.HTML
}

// Render answers with a page inside the frame. When the template fails nothing
// is written and the error is returned.
func (e *Edge) Render(w http.ResponseWriter, r *http.Request, status int, p Page) error {
	var content, whole bytes.Buffer
	if err := p.Template.Execute(&content, p.Data); err != nil {
		return fmt.Errorf("render %s: %w", p.Template.Name(), err)
	}
	f := framed{
		Title: p.Title, Brand: e.cfg.Brand.Name, Issuer: e.host, Ref: Ref(r.Context()),
		Stylesheet: e.assetPath("bonafide.css"), Icon: e.assetPath("seal.svg"), Logo: e.assetPath("brand"),
		Content: template.HTML(content.String()), // #nosec G203: escaped by html/template one line above
	}
	if p.Template == errorPage { // it shows the reference itself
		f.Ref = ""
	}
	if err := e.frame.Execute(&whole, f); err != nil {
		return fmt.Errorf("render the frame: %w", err)
	}
	h := w.Header()
	h.Set("Content-Security-Policy", contentPolicy(p.RedirectHost))
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(whole.Bytes()) // the browser went away: there is nobody to tell
	return nil
}

// failPage is the only writer of error pages. Headers of the handler that would
// spoil the page do not survive; cookies do.
func (e *Edge) failPage(w http.ResponseWriter, r *http.Request, refusal *Refusal) {
	h := w.Header()
	h.Del("Location")
	h.Del("Content-Length")
	h.Del("Content-Encoding")
	h.Del("ETag")
	e.pageHeaders(h)
	setRetryAfter(h, refusal.Status, refusal.RetryAfter)
	client := refusal.ClientURL
	if client == "" {
		client = recordOf(r.Context()).client
	}
	page := Page{Title: refusal.Title, Template: errorPage, Data: map[string]any{
		"Refusal": refusal, "Client": client, "Ref": Ref(r.Context()), "Busy": refusal.Status == http.StatusServiceUnavailable,
	}}
	if err := e.Render(w, r, refusal.Status, page); err != nil { // our own template: tested
		http.Error(w, "something went wrong; reference "+Ref(r.Context()), http.StatusInternalServerError)
	}
}

// functions are what templates may call.
var functions = template.FuncMap{"host": SplitURL, "cut": cutLeft, "labels": labels}

// ShownURL is a URL taken apart for display: the scheme, the host with its port,
// and the rest. A part that was cut begins or ends with an ellipsis. What is not
// printable ASCII is written as percent escapes, so that nothing can turn the
// reading direction or look like another letter.
type ShownURL struct{ Scheme, Host, Rest string }

// SplitURL prepares a stranger's URL for display. A long host loses its left
// side, because the right side says whose it is; the rest loses its right side.
// A string that is no URL comes back in Rest.
func SplitURL(raw string) ShownURL {
	s := visible(raw)
	scheme, after, ok := strings.Cut(s, "://")
	if !ok || len(scheme) > 20 {
		return ShownURL{Rest: cutRight(s, 160)}
	}
	end := strings.IndexAny(after, "/?#\\")
	if end < 0 {
		end = len(after)
	}
	scheme += "://"
	host := after[:end]
	if at := strings.LastIndexByte(host, '@'); at >= 0 { // what stands before is not the host, whatever it looks like
		scheme, host = cutRight(scheme+host[:at+1], 60), host[at+1:]
	}
	return ShownURL{scheme, cutLeft(host, 64), cutRight(after[end:], 160)}
}

func visible(s string) string {
	if len(s) > 2048 {
		s = s[:2048]
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// labels returns the parts of a host, each with the dot behind it, for lines that
// break between them.
func labels(host string) []string { return strings.SplitAfter(host, ".") }

func cutLeft(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}

func cutRight(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
