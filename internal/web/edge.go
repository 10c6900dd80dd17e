package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/oauth"
	"golang.org/x/time/rate"
)

// Edge is what stands around every handler. It is safe for concurrent use.
type Edge struct {
	cfg     EdgeConfig
	https   bool
	base    string // path of the issuer without a trailing slash; often ""
	host    string // host of the issuer, as it stands in the URL
	origins *http.CrossOriginProtection
	assets  []asset
	frame   *template.Template

	lines    *rate.Limiter // of the log that strangers can cause
	unlogged atomic.Int64  // refusals since the last line
}

// Refusals are logged at most so often; beyond that they are counted. What the
// audit log keeps of them is bounded by itself.
const (
	logRate  = 10 // a second
	logBurst = 200
)

// NewEdge checks the configuration and reads the operator's logo, if any.
func NewEdge(c EdgeConfig) (*Edge, error) {
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("issuer %q is not a plain URL", c.Issuer)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopbackName(u.Hostname())) {
		return nil, fmt.Errorf("issuer %q must use https (http only on a loopback address)", c.Issuer)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 1 << 20
	}
	e := &Edge{
		cfg: c, https: u.Scheme == "https", base: strings.TrimRight(u.EscapedPath(), "/"), host: u.Host,
		origins: http.NewCrossOriginProtection(), lines: rate.NewLimiter(logRate, logBurst),
	}
	// Our own pages stay our own where a proxy puts another Host into the request.
	if err := e.origins.AddTrustedOrigin(u.Scheme + "://" + u.Host); err != nil {
		return nil, fmt.Errorf("issuer %q: %w", c.Issuer, err)
	}
	if e.assets, err = loadAssets(c.Brand.LogoPath); err != nil {
		return nil, err
	}
	e.frame = frame
	return e, nil
}

func loopbackName(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// Path returns p, which begins with a slash, below the path of the issuer.
func (e *Edge) Path(p string) string { return e.base + p }

// URL returns the absolute URL of p at the issuer (META-18).
func (e *Edge) URL(p string) string { return strings.TrimRight(e.cfg.Issuer, "/") + p }

// Issuer returns the issuer identifier as configured.
func (e *Edge) Issuer() string { return e.cfg.Issuer }

// Host returns the host of the issuer, with its port if it has one.
func (e *Edge) Host() string { return e.host }

// BrandName returns the operator's name, or "".
func (e *Edge) BrandName() string { return e.cfg.Brand.Name }

// Page serves HTML to people: GET and POST, with the headers of a page, without
// CORS, and without POSTs from other origins. An error becomes an error page.
func (e *Edge) Page(h Handler) http.Handler {
	return e.Entry(func(w http.ResponseWriter, r *http.Request) error {
		if err := e.origins.Check(r); err != nil && !planted.Weak("origin") {
			refusal := Refuse(http.StatusForbidden, oauth.Refuse(oauth.InvalidRequest,
				"the form came from another site, or from a browser too old to say where it came from").Under("CONS-06").Because(err))
			refusal.Title = "This form came from somewhere else"
			refusal.What = "We only accept this step from our own page. Nothing was changed."
			refusal.Next = "Go back to the app and start again there."
			return refusal
		}
		return h(w, r)
	})
}

// Entry is [Edge.Page] for the routes to which other sites send people, such as
// /authorize: a POST from another origin is let in, and since our cookies are
// SameSite=Lax it comes without them.
func (e *Edge) Entry(h Handler) http.Handler {
	return e.wrap(e.pageHeaders, e.failPage, Only(h, http.MethodGet, http.MethodPost))
}

// API serves JSON to programs on any origin, without credentials: nothing is
// stored on the way, OPTIONS is answered here (so mount it without a method),
// and an error becomes a JSON error. more are methods that h answers beside GET,
// HEAD and POST: a page needs leave for each.
func (e *Edge) API(h Handler, more ...string) http.Handler {
	return e.wrap(func(header http.Header) {
		e.baseHeaders(header)
		allowOrigins(header)
		noStore(header)
	}, e.failJSON, preflight(h, more...))
}

// Public serves documents that everyone may read and keep, such as metadata and
// keys: like [Edge.API], but a handler that sets no Cache-Control lets caches
// keep its answer for five minutes.
func (e *Edge) Public(h Handler) http.Handler {
	return e.wrap(func(header http.Header) {
		e.baseHeaders(header)
		allowOrigins(header)
		header.Set("Cache-Control", "public, max-age=300")
	}, e.failJSON, preflight(h))
}

// NotFound answers with the page for an address where nothing stands.
func (e *Edge) NotFound() http.Handler {
	return e.Entry(func(http.ResponseWriter, *http.Request) error {
		return Refuse(http.StatusNotFound, oauth.Refuse(oauth.InvalidRequest, "nothing stands at this address"))
	})
}

// Only lets a handler answer the named methods and refuses the rest with 405.
func Only(h Handler, methods ...string) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		for _, m := range methods {
			if r.Method == m {
				return h(w, r)
			}
		}
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return Refuse(http.StatusMethodNotAllowed, oauth.Refuse(oauth.InvalidRequest,
			"this address answers %s only", strings.Join(methods, " and ")).Under("AZ-20"))
	}
}

// record is what the edge knows about a request. Only the goroutine of the
// request touches it.
type record struct {
	ref    string
	ip     netip.Addr
	client string
	answer http.Header
}

type recordKey struct{}

func recordOf(ctx context.Context) *record {
	if c, ok := ctx.Value(recordKey{}).(*record); ok {
		return c
	}
	return new(record)
}

// wrap is the edge itself, in the order in which things happen.
func (e *Edge) wrap(headers func(http.Header), fail func(http.ResponseWriter, *http.Request, *Refusal), h Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := e.cfg.Now()
		rec := &record{ref: newRef(), ip: e.clientIP(r)}
		r = r.WithContext(context.WithValue(r.Context(), recordKey{}, rec))
		if r.Body != nil {
			r.Body = http.MaxBytesReader(w, r.Body, e.cfg.MaxBody)
		}
		rw := &response{ResponseWriter: w}
		rec.answer = rw.Header()
		headers(rec.answer)
		err := run(h, rw, r)
		var refusal *Refusal
		if err != nil {
			refusal = asRefusal(err)
			if !rw.started() {
				fail(rw, r, refusal)
			}
			e.tell(r, rec, refusal)
		}
		e.log(r, rec, rw, refusal, e.cfg.Now().Sub(began))
	})
}

// panicked is a panic of a handler, as an error.
type panicked struct {
	what  string
	stack []byte
}

func (p *panicked) Error() string { return "panic: " + p.what }

// run calls h and turns a panic into an error. Of the panic's value only the
// runtime's own text is kept: any other text could hold a secret (TK-13).
func run(h Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case runtime.Error:
			err = &panicked{v.Error(), debug.Stack()}
		case error:
			if errors.Is(v, http.ErrAbortHandler) {
				panic(v)
			}
			err = &panicked{fmt.Sprintf("an error of type %T", v), debug.Stack()}
		default:
			err = &panicked{fmt.Sprintf("a value of type %T", v), debug.Stack()}
		}
	}()
	return h(w, r)
}

// tell hands a refusal to the audit log. A wrong address or method is not worth
// an event, and neither is what fails because the client went away, nor a device
// that is told to ask again.
func (e *Edge) tell(r *http.Request, rec *record, refusal *Refusal) {
	status := refusal.Status
	if e.cfg.Refused == nil || status == http.StatusNotFound || status == http.StatusMethodNotAllowed ||
		refusal.Err.Code == oauth.ServerError && r.Context().Err() != nil || refusal.waiting() {
		return
	}
	client := rec.client
	if client == "" {
		client = refusal.ClientURL
	}
	e.cfg.Refused(Refused{
		Time: e.cfg.Now(), Ref: rec.ref, Method: r.Method, Path: short(r.URL.Path), IP: rec.ip.String(),
		Client: client, Code: string(refusal.Err.Code), Rule: refusal.Err.Rule, Status: status,
	})
}

// log writes the one event of a request. The query, the headers and the body
// are never part of it.
func (e *Edge) log(r *http.Request, rec *record, rw *response, refusal *Refusal, took time.Duration) {
	level := slog.LevelDebug
	attrs := []slog.Attr{
		slog.String("ref", rec.ref), slog.String("method", r.Method), slog.String("path", short(r.URL.Path)),
		slog.Int("status", rw.status), slog.Int64("bytes", rw.bytes), slog.Duration("took", took), slog.String("ip", rec.ip.String()),
	}
	if refusal != nil {
		level = slog.LevelInfo
		attrs = append(attrs, slog.String("code", string(refusal.Err.Code)), slog.String("rule", refusal.Err.Rule), slog.String("hint", refusal.Err.Hint))
		if refusal.Err.Err != nil {
			attrs = append(attrs, slog.String("cause", refusal.Err.Err.Error()))
		}
		if p, ok := errors.AsType[*panicked](refusal); ok {
			attrs = append(attrs, slog.String("stack", string(bytes.TrimSpace(p.stack))))
		}
		switch {
		case refusal.Err.Code == oauth.ServerError:
			level = slog.LevelError
		case refusal.waiting():
			level = slog.LevelDebug
		case !e.lines.AllowN(e.cfg.Now(), 1):
			e.unlogged.Add(1)
			level = slog.LevelDebug
		default:
			if n := e.unlogged.Swap(0); n > 0 {
				attrs = append(attrs, slog.Int64("unlogged", n))
			}
		}
	}
	if r.Context().Err() != nil {
		level = slog.LevelDebug // the client went away; nobody saw the answer
	}
	e.cfg.Logger.LogAttrs(r.Context(), level, "request", attrs...)
}

// short bounds a path for logs and events.
func short(path string) string {
	if len(path) > 200 {
		path = path[:200]
	}
	return strings.ToValidUTF8(path, "?")
}

// response remembers what was sent.
type response struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *response) started() bool { return w.status != 0 }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
