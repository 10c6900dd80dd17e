package web

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"net/netip"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

type record struct {
	ref    string
	ip     netip.Addr
	client string
}

func call(ctx context.Context) *record {
	if c, ok := ctx.Value(contextKey{}).(*record); ok {
		return c
	}
	return &record{}
}

// Edge wraps handlers.
type Edge struct{ cfg EdgeConfig }

// NewEdge checks the configuration.
func NewEdge(c EdgeConfig) (*Edge, error) { return nil, errors.New("not yet") }

// Page serves HTML to people. Cross-origin POSTs are refused.
func (e *Edge) Page(h Handler) http.Handler { panic("soon") }

// Entry is Page for the routes where other sites send people, such as
// /authorize: a POST from another origin is allowed there.
func (e *Edge) Entry(h Handler) http.Handler { panic("soon") }

// API serves JSON to programs, from any origin, without credentials.
func (e *Edge) API(h Handler) http.Handler { panic("soon") }

// Public serves cacheable documents to anyone.
func (e *Edge) Public(h Handler) http.Handler { panic("soon") }

// NotFound answers every request with the page "not found".
func (e *Edge) NotFound() http.Handler { panic("soon") }

// Routes returns the static files.
func (e *Edge) Routes() []Route { panic("soon") }

// Path returns p below the path of the issuer; URL the same as an absolute URL.
func (e *Edge) Path(p string) string { panic("soon") }

// URL returns the absolute URL of p at the issuer.
func (e *Edge) URL(p string) string { panic("soon") }

// Brand returns the operator's brand name, or "".
func (e *Edge) Brand() string { return e.cfg.Brand.Name }

// Render writes a page.
func (e *Edge) Render(w http.ResponseWriter, r *http.Request, status int, p Page) error {
	panic("soon")
}

// CookieName returns the name of one of our cookies.
func CookieName(issuer, name string) string { panic("soon") }

// SetCookie sets a cookie; life 0 makes it end with the browser session.
func (e *Edge) SetCookie(w http.ResponseWriter, name, value string, life time.Duration) {}

// ClearCookie ends a cookie.
func (e *Edge) ClearCookie(w http.ResponseWriter, name string) {}

// Cookie returns the value of one of our cookies: "" when it is absent or sent twice.
func (e *Edge) Cookie(r *http.Request, name string) string { return "" }

// WriteJSON writes v.
func WriteJSON(w http.ResponseWriter, status int, v any) error { panic("soon") }

// Form holds parameters with at most one value each; resource stands apart.
type Form map[string]string

// Params are the parameters of a request.
type Params struct {
	Form
	Resources []string
}

// ParseQuery reads the query of a GET.
func ParseQuery(r *http.Request) (Params, error) { panic("soon") }

// ParseBody reads a form body; the query is not looked at.
func ParseBody(r *http.Request) (Params, error) { panic("soon") }

// ParseRequest is ParseQuery for a GET and ParseBody for a POST without query
// parameters (AZ-16).
func ParseRequest(r *http.Request) (Params, error) { panic("soon") }

// Refusal is a refusal with what a page needs.
type Refusal struct {
	Err        *oauth.Error
	Status     int
	Title      string
	What       string
	Next       string
	ClientURL  string
	RetryAfter time.Duration
}

// Refuse returns a refusal with the status of its page.
func Refuse(status int, err error) *Refusal { return &Refusal{Err: oauth.AsError(err), Status: status} }

func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the oauth.Error.
func (r *Refusal) Unwrap() error { return r.Err }

// Sealer seals.
type Sealer struct{}

// NewSealer returns a sealer.
func NewSealer(key [32]byte) *Sealer { panic("soon") }

// Seal seals v.
func (s *Sealer) Seal(purpose string, expires time.Time, v any) (string, error) { panic("soon") }

// Open opens.
func (s *Sealer) Open(purpose, sealed string, now time.Time, v any) error { panic("soon") }

// DeriveKey derives.
func DeriveKey(master []byte, purpose string) [32]byte { panic("soon") }

// Template parses a page template with the functions of the frame.
func Template(name, text string) *template.Template { panic("soon") }

// NewServer returns an http.Server with bounds.
func NewServer(h http.Handler) *http.Server { panic("soon") }
