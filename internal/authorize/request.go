package authorize

import (
	"encoding/json"
	"net/http"
	"net/url"

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
	Foreign      string   `json:"f,omitempty"` // the name of a parameter we refuse to follow, such as request_uri
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
}

// foreign names the parameters that would change who is asking for what if we
// followed them. They are refused by name instead of being ignored, and nothing
// they point to is ever fetched (AUTHZ-25).
var foreign = []string{"request", "request_uri", "id_token_hint"}

const (
	maxResources     = 8
	maxResourceBytes = 2048

	// maxTravel bounds a request as it is sealed. On the way through the sign-in
	// it is wrapped twice, and the address that holds it has to fit into the
	// headers that a server reads.
	maxTravel = 16 << 10
)

// parse reads the request from the query of a GET or the body of a POST.
func parse(r *http.Request) (Request, error) {
	var q Request
	p, err := web.ParseRequest(r)
	if err != nil {
		return q, err
	}
	for _, f := range fields {
		v := p.Form[f.name]
		if len(v) > f.max {
			return q, web.Refuse(http.StatusBadRequest,
				oauth.Refuse(oauth.InvalidRequest, "%s is longer than %d bytes", f.name, f.max).Under("AUTHZ-13"))
		}
		*f.at(&q) = v
	}
	for _, name := range foreign {
		if p.Form[name] != "" {
			q.Foreign = name
			break
		}
	}
	if len(p.Resources) > maxResources {
		return q, web.Refuse(http.StatusBadRequest,
			oauth.Refuse(oauth.InvalidTarget, "more than %d resource parameters", maxResources).Under("AUTHZ-16"))
	}
	for _, v := range p.Resources {
		if len(v) > maxResourceBytes {
			return q, web.Refuse(http.StatusBadRequest,
				oauth.Refuse(oauth.InvalidTarget, "resource is longer than %d bytes", maxResourceBytes).Under("AUTHZ-16"))
		}
	}
	q.Resources = p.Resources
	if q.ClientID == "" {
		return q, web.Refuse(http.StatusBadRequest, oauth.Refuse(oauth.InvalidRequest, "client_id is missing").Under("AUTHZ-02"))
	}
	return q, q.travels()
}

// travels refuses a request that would not fit into the address of the sign-in
// page. It is measured as it is sealed, because what needs escaping grows.
func (q *Request) travels() error {
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

// leadsTo returns where the answer may lead, before the client is known: only an
// https address can be left out (AUTHZ-06), and the client_id stands for it.
func (q *Request) leadsTo() string {
	if q.RedirectURI == "" {
		return q.ClientID
	}
	return q.RedirectURI
}

// query writes the request as the query of a GET.
func (q *Request) query() string {
	v := url.Values{}
	for _, f := range fields {
		if s := *f.at(q); s != "" {
			v.Set(f.name, s)
		}
	}
	if q.Foreign != "" {
		v.Set(q.Foreign, "refused")
	}
	for _, s := range q.Resources {
		v.Add("resource", s)
	}
	return v.Encode()
}
