package authorize

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Request is an authorization request after it was read: each parameter at most
// once, empty ones absent, unknown ones ignored, all of bounded length. Nothing
// after parse looks at the raw form. It travels sealed through the browser while
// the person signs in and decides, hence the short names.
type Request struct {
	ClientID     string   `json:"c"`
	RedirectURI  string   `json:"r,omitempty"`
	ResponseType string   `json:"t,omitempty"`
	ResponseMode string   `json:"m,omitempty"`
	State        string   `json:"s,omitempty"`
	Scope        string   `json:"o,omitempty"`
	Challenge    string   `json:"h,omitempty"`
	Method       string   `json:"d,omitempty"`
	Resources    []string `json:"a,omitempty"`
	Prompt       string   `json:"p,omitempty"`
	MaxAge       string   `json:"x,omitempty"`
	ACRValues    string   `json:"v,omitempty"`
	Nonce        string   `json:"n,omitempty"`
	LoginHint    string   `json:"l,omitempty"`
	UILocales    string   `json:"u,omitempty"`
	JKT          string   `json:"k,omitempty"` // dpop_jkt (RFC 9449 section 10)
	Details      string   `json:"e,omitempty"` // authorization_details (RFC 9396)
	Hint         string   `json:"i,omitempty"` // id_token_hint
	Foreign      string   `json:"f,omitempty"` // the name of a parameter we refuse to follow, such as request_uri

	// Object is a signed request object (RFC 9101). With one, everything but
	// ClientID stands in it and the members above are empty.
	Object string `json:"j,omitempty"`
	// Signed says that the members above come out of such an object.
	Signed bool `json:"g,omitempty"`

	uri string // a request_uri of ours
}

// fields says where each parameter goes and how many bytes it may have. A longer
// one is refused on a page of ours and never truncated: a state that cannot be
// returned whole must not be returned at all (AUTHZ-13).
var fields = []struct {
	name string
	max  int
	at   func(*Request) *string
}{
	{"client_id", 2048, func(q *Request) *string { return &q.ClientID }},
	{"redirect_uri", 2048, func(q *Request) *string { return &q.RedirectURI }},
	{"response_type", 64, func(q *Request) *string { return &q.ResponseType }},
	{"response_mode", 64, func(q *Request) *string { return &q.ResponseMode }},
	{"state", 4096, func(q *Request) *string { return &q.State }},
	{"scope", oauth.MaxScopes * (oauth.MaxScopeLength + 1), func(q *Request) *string { return &q.Scope }},
	{"code_challenge", 256, func(q *Request) *string { return &q.Challenge }},
	{"code_challenge_method", 64, func(q *Request) *string { return &q.Method }},
	{"prompt", 128, func(q *Request) *string { return &q.Prompt }},
	{"max_age", 32, func(q *Request) *string { return &q.MaxAge }},
	{"acr_values", 1024, func(q *Request) *string { return &q.ACRValues }},
	{"nonce", 512, func(q *Request) *string { return &q.Nonce }},
	{"login_hint", 256, func(q *Request) *string { return &q.LoginHint }},
	{"ui_locales", 256, func(q *Request) *string { return &q.UILocales }},
	{"dpop_jkt", 64, func(q *Request) *string { return &q.JKT }},
	{"authorization_details", policy.MaxDetails, func(q *Request) *string { return &q.Details }},
	{"id_token_hint", 4096, func(q *Request) *string { return &q.Hint }},
}

// The two parameters that stand for a whole request.
const (
	paramRequest    = "request"
	paramRequestURI = "request_uri"
)

const (
	maxResources     = 8
	maxResourceBytes = 2048

	// maxTravel bounds a request as it is sealed. On the way through the sign-in
	// it is wrapped twice, and the address that holds it has to fit into the
	// headers that a server reads.
	maxTravel = 16 << 10
)

// parse reads the request from the query of a GET or the body of a POST. What
// stands in a signed object or was pushed before is all there is: parameters
// beside it are not looked at (RFC 9101 section 6.3, RFC 9126 section 4). A
// request_uri that is not ours is refused by name instead of being ignored, and
// what it points to is never fetched (AUTHZ-25).
func parse(r *http.Request) (Request, error) {
	p, err := web.ParseRequest(r)
	if err != nil {
		return Request{}, err
	}
	object, uri := p.Form[paramRequest], p.Form[paramRequestURI]
	switch {
	case object != "" && uri != "":
		return Request{}, web.Refuse(http.StatusBadRequest,
			oauth.Refuse(oauth.InvalidRequest, "request and request_uri exclude each other").Under("AUTHZ-25"))
	case strings.HasPrefix(uri, uriPrefix):
		q := Request{ClientID: p.Form["client_id"], uri: uri}
		return q, q.identified()
	case object != "":
		return signedRequest(p.Form["client_id"], object)
	}
	q, err := read(p)
	if uri != "" {
		q.Foreign = paramRequestURI
	}
	return q, err
}

// read takes plain parameters.
func read(p web.Params) (Request, error) {
	var q Request
	if err := q.fill(p); err != nil {
		return q, err
	}
	if err := q.identified(); err != nil {
		return q, err
	}
	return q, q.travels()
}

// fill takes every parameter that we know, in its bounds.
func (q *Request) fill(p web.Params) error {
	for _, f := range fields {
		v := p.Form[f.name]
		if len(v) > f.max {
			return web.Refuse(http.StatusBadRequest,
				oauth.Refuse(oauth.InvalidRequest, "%s is longer than %d bytes", f.name, f.max).Under("AUTHZ-13"))
		}
		*f.at(q) = v
	}
	if len(p.Resources) > maxResources {
		return web.Refuse(http.StatusBadRequest,
			oauth.Refuse(oauth.InvalidTarget, "more than %d resource parameters", maxResources).Under("AUTHZ-16"))
	}
	for _, v := range p.Resources {
		if len(v) > maxResourceBytes {
			return web.Refuse(http.StatusBadRequest,
				oauth.Refuse(oauth.InvalidTarget, "resource is longer than %d bytes", maxResourceBytes).Under("AUTHZ-16"))
		}
	}
	q.Resources = p.Resources
	return nil
}

// identified refuses a request that does not say from which client it is.
func (q *Request) identified() error {
	switch {
	case q.ClientID == "":
		return web.Refuse(http.StatusBadRequest, oauth.Refuse(oauth.InvalidRequest, "client_id is missing").Under("AUTHZ-02"))
	case len(q.ClientID) > fields[0].max:
		return web.Refuse(http.StatusBadRequest,
			oauth.Refuse(oauth.InvalidRequest, "client_id is longer than %d bytes", fields[0].max).Under("AUTHZ-13"))
	}
	return nil
}

// travels refuses a request that would not fit into the address of the sign-in
// page. It is measured as it is sealed, because what needs escaping grows.
func (q *Request) travels() error {
	const mostEscaped, around = len(`\u0000`), 1 << 10 // of one octet; the names of all members
	if n := q.octets(); n*mostEscaped+around <= maxTravel {
		return nil
	}
	sealed, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if len(sealed) > maxTravel {
		return web.Refuse(http.StatusBadRequest,
			oauth.Refuse(oauth.InvalidRequest, "the parameters together are longer than %d bytes", maxTravel).Under("AZ-13"))
	}
	return nil
}

// octets is the length of everything that the request says.
func (q *Request) octets() int {
	n := len(q.Foreign)
	for _, f := range fields {
		n += len(*f.at(q))
	}
	for _, v := range q.Resources {
		n += len(v)
	}
	return n
}

// leadsTo returns where the answer may lead, before the client is known: only an
// https address can be left out (AUTHZ-06), and the client_id stands for it.
func (q *Request) leadsTo() string {
	if to := q.outline().RedirectURI; to != "" {
		return to
	}
	return q.ClientID
}

// query writes the request as the query of a GET.
func (q *Request) query() string {
	v := url.Values{}
	for _, f := range fields {
		if s := *f.at(q); s != "" {
			v.Set(f.name, s)
		}
	}
	for _, s := range q.Resources {
		v.Add("resource", s)
	}
	switch {
	case q.Foreign != "":
		v.Set(q.Foreign, "refused")
	case q.uri != "":
		v.Set(paramRequestURI, q.uri)
	case q.Object != "":
		v.Set(paramRequest, q.Object)
	}
	return v.Encode()
}
