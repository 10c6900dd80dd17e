package web

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/bonafide-id/bonafide/oauth"
)

// Limits on the parameters of one request. More is refused, never cut.
const (
	maxParams     = 100
	maxParamBytes = 64 << 10 // of the encoded query or body
)

// Form holds parameters that have at most one value each. A parameter with an
// empty value is absent (OAuth 2.1 section 3.1).
type Form map[string]string

// Params are the parameters of a request: those that may stand once, and the
// values of resource (RFC 8707), the only one that may be repeated, in order.
// Unknown parameters are kept.
type Params struct {
	Form
	Resources []string
}

// ParseQuery returns the parameters of the query. The error is a refusal with
// invalid_request: a parameter twice, an escape or an encoding that is wrong,
// too many or too large (AZ-13).
func ParseQuery(r *http.Request) (Params, error) {
	if len(r.URL.RawQuery) > maxParamBytes {
		return Params{}, Refuse(http.StatusRequestURITooLong, oauth.Refuse(oauth.InvalidRequest,
			"the query is longer than %d bytes", maxParamBytes).Under("AZ-13"))
	}
	return parse(r.URL.RawQuery)
}

// ParseBody returns the parameters of a form body and never those of the query
// (TK-11). The error is a refusal with invalid_request and status 415 for a body
// that is no form, 413 for one that is too large, else 400 as in [ParseQuery].
func ParseBody(r *http.Request) (Params, error) {
	if !isForm(r.Header) {
		return Params{}, Refuse(http.StatusUnsupportedMediaType, oauth.Refuse(oauth.InvalidRequest,
			"the body must be application/x-www-form-urlencoded in UTF-8, without a content coding").Under("TK-11"))
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxParamBytes+1))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge || len(body) > maxParamBytes {
		return Params{}, Refuse(http.StatusRequestEntityTooLarge, oauth.Refuse(oauth.InvalidRequest,
			"the body is larger than %d bytes", maxParamBytes).Under("TK-11"))
	}
	if err != nil {
		return Params{}, oauth.Refuse(oauth.InvalidRequest, "the body ended early").Because(err)
	}
	return parse(string(body))
}

// ParseRequest is [ParseBody] for a POST, whose query must be empty, and
// [ParseQuery] for everything else: the parameters of an authorization request
// stand in one place (AZ-16).
func ParseRequest(r *http.Request) (Params, error) {
	if r.Method != http.MethodPost {
		return ParseQuery(r)
	}
	if r.URL.RawQuery != "" {
		return Params{}, oauth.Refuse(oauth.InvalidRequest,
			"parameters of a POST request stand in the body only; the query must be empty").Under("AZ-16")
	}
	return ParseBody(r)
}

func isForm(h http.Header) bool {
	types := h.Values("Content-Type")
	if len(types) != 1 || h.Get("Content-Encoding") != "" {
		return false
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil || media != "application/x-www-form-urlencoded" {
		return false
	}
	charset, has := params["charset"]
	return !has || strings.EqualFold(charset, "utf-8")
}

func parse(raw string) (Params, error) {
	p := Params{Form: Form{}}
	if raw == "" {
		return p, nil
	}
	if strings.Count(raw, "&") >= maxParams {
		return Params{}, invalid("more than %d parameters", maxParams)
	}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, err := parsePair(pair)
		if err != nil {
			return Params{}, err
		}
		if name == "resource" {
			if value != "" {
				p.Resources = append(p.Resources, value)
			}
			continue
		}
		if seen[name] {
			return Params{}, invalid("%s stands more than once", parameterName(name))
		}
		seen[name] = true
		if value != "" {
			p.Form[name] = value
		}
	}
	return p, nil
}

func parsePair(pair string) (name, value string, err error) {
	if strings.Contains(pair, ";") { // once a separator: two readers could disagree
		return "", "", invalid("a semicolon in a parameter must be written as %s", "%3B")
	}
	rawName, rawValue, _ := strings.Cut(pair, "=")
	name, err1 := url.QueryUnescape(rawName)
	value, err2 := url.QueryUnescape(rawValue)
	if err := errors.Join(err1, err2); err != nil {
		return "", "", invalid("a parameter holds an invalid percent escape").Because(err)
	}
	if !utf8.ValidString(name) || !utf8.ValidString(value) {
		return "", "", invalid("a parameter is not UTF-8")
	}
	if strings.Contains(name, "\x00") || strings.Contains(value, "\x00") { // no database keeps it
		return "", "", invalid("a parameter holds a NUL")
	}
	return name, value, nil
}

func invalid(hint string, args ...any) *oauth.Error {
	return oauth.Refuse(oauth.InvalidRequest, hint, args...)
}

// parameterName returns name for a hint when it looks like a parameter of the
// protocol, and "a parameter" when a stranger made it up.
func parameterName(name string) string {
	if name == "" || len(name) > 40 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return "a parameter"
	}
	return name
}
