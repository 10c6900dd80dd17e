package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/oauth"
)

func post(target, contentType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

const formType = "application/x-www-form-urlencoded"

func TestParameters(t *testing.T) {
	for _, tt := range []struct {
		name, raw string
		want      Params
		status    int // 0: fine
	}{
		{"AZ-13 none", "", Params{Form: Form{}}, 0},
		{"AZ-13 simple ones", "a=1&b=2", Params{Form: Form{"a": "1", "b": "2"}}, 0},
		{"AZ-13 escapes and plus", "state=a%20b+c%0D%0A%3Cscript%3E", Params{Form: Form{"state": "a b c\r\n<script>"}}, 0},
		{"AZ-13 an empty value is absent", "scope=&state&a=1", Params{Form: Form{"a": "1"}}, 0},
		{"AZ-13 unknown ones are kept", "utm_source=x", Params{Form: Form{"utm_source": "x"}}, 0},
		{"AZ-13 resource may be repeated, in order", "resource=b&a=1&resource=a&resource=", Params{Form: Form{"a": "1"}, Resources: []string{"b", "a"}}, 0},
		{"AZ-13 empty pairs do not matter", "&&a=1&", Params{Form: Form{"a": "1"}}, 0},
		{"AZ-13 an equals sign in a value", "a=b=c", Params{Form: Form{"a": "b=c"}}, 0},
		{"AZ-13 a parameter twice", "a=1&a=1", Params{}, 400},
		{"AZ-13 a parameter twice, once empty", "scope=&scope=x", Params{}, 400},
		{"AZ-13 a parameter twice, spelled differently", "client_id=1&client%5Fid=1", Params{}, 400},
		{"AZ-13 a semicolon", "a=1;b=2", Params{}, 400},
		{"AZ-13 a bad escape", "a=%zz", Params{}, 400},
		{"AZ-13 a bad escape in a name", "%=1", Params{}, 400},
		{"AZ-13 a cut escape", "a=%4", Params{}, 400},
		{"AZ-13 bytes that are not UTF-8", "a=%ff", Params{}, 400},
		{"AZ-13 a NUL", "a=b%00", Params{}, 400},
		{"AZ-13 a NUL in a name", "a%00=b", Params{}, 400},
		{"AZ-13 an overlong encoding", "a=%c0%af", Params{}, 400},
		{"AZ-13 101 parameters", strings.Repeat("&", 100), Params{}, 400},
		{"TK-11 10,000 parameters", strings.Repeat("a=&", 10000), Params{}, 400},
	} {
		for how, read := range map[string]func() (Params, error){
			"query": func() (Params, error) {
				return ParseQuery(&http.Request{Method: http.MethodGet, URL: &url.URL{RawQuery: tt.raw}})
			},
			"body": func() (Params, error) { return ParseBody(post("/token", formType, tt.raw)) },
		} {
			t.Run(tt.name+" in the "+how, func(t *testing.T) {
				got, err := read()
				if tt.status == 0 {
					if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
						t.Errorf("error %v\n%s", err, diff)
					}
					return
				}
				if r := asRefusal(err); err == nil || r.Err.Code != oauth.InvalidRequest || r.Status != tt.status {
					t.Errorf("got %v, error %v", got, err)
				}
			})
		}
	}
	t.Run("AZ-13 exactly 100 parameters are fine", func(t *testing.T) {
		var b strings.Builder
		for i := range 100 {
			fmt.Fprintf(&b, "&p%d=1", i)
		}
		if p, err := ParseQuery(&http.Request{URL: &url.URL{RawQuery: b.String()[1:]}}); err != nil || len(p.Form) != 100 {
			t.Errorf("%d parameters, error %v", len(p.Form), err)
		}
	})
	t.Run("AZ-13 a state of 100 kB is refused", func(t *testing.T) {
		_, err := ParseQuery(&http.Request{URL: &url.URL{RawQuery: "state=" + strings.Repeat("x", 100<<10)}})
		if r := asRefusal(err); err == nil || r.Status != http.StatusRequestURITooLong || r.Err.Code != oauth.InvalidRequest {
			t.Errorf("error %v", err)
		}
	})
	t.Run("FETCH-23 a hint never repeats what a stranger made up", func(t *testing.T) {
		_, err := ParseQuery(&http.Request{URL: &url.URL{RawQuery: "%3Cscript%3E=1&%3Cscript%3E=2"}})
		if r := asRefusal(err); err == nil || strings.Contains(r.Err.Hint, "script") {
			t.Errorf("error %v", err)
		}
		_, err = ParseQuery(&http.Request{URL: &url.URL{RawQuery: "redirect_uri=1&redirect_uri=2"}})
		if r := asRefusal(err); err == nil || !strings.Contains(r.Err.Hint, "redirect_uri") {
			t.Errorf("error %v", err)
		}
	})
}

func TestParseBody(t *testing.T) {
	for _, tt := range []struct {
		name, contentType, body string
		status                  int
	}{
		{"a form", formType, "a=1", 0},
		{"a form in UTF-8", "Application/X-WWW-Form-Urlencoded; charset=UTF-8", "a=1", 0},
		{"no content type", "", "a=1", 415},
		{"JSON", "application/json", `{"a":"1"}`, 415},
		{"multipart", "multipart/form-data; boundary=x", "a=1", 415},
		{"two types in one header", "application/json, application/x-www-form-urlencoded", "a=1", 415},
		{"charset utf-7", formType + "; charset=utf-7", "a=1", 415},
		{"a charset twice", formType + "; charset=utf-8; charset=utf-7", "a=1", 415},
		{"text/plain, which a foreign form can send", "text/plain", "a=1", 415},
		{"more than 64 KiB", formType, "a=" + strings.Repeat("x", 64<<10), 413},
		{"1 MiB", formType, "a=" + strings.Repeat("x", 1<<20), 413},
	} {
		t.Run("attack TK-11: "+tt.name, func(t *testing.T) {
			e := newEdge(t, nil)
			var got Params
			h := e.API(func(_ http.ResponseWriter, r *http.Request) (err error) { got, err = ParseBody(r); return err })
			w := httptest.NewRecorder()
			h.ServeHTTP(w, post("/token?a=query&b=query", tt.contentType, tt.body))
			if tt.status == 0 {
				if diff := cmp.Diff(Params{Form: Form{"a": "1"}}, got); diff != "" || w.Code != 200 {
					t.Errorf("status %d\n%s", w.Code, diff)
				}
				return
			}
			if w.Code != tt.status || !strings.Contains(w.Body.String(), "invalid_request") || got.Form != nil {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
		})
	}
	t.Run("attack TK-11: two headers", func(t *testing.T) {
		r := post("/token", formType, "a=1")
		r.Header.Add("Content-Type", formType)
		if _, err := ParseBody(r); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("attack TK-11: a compressed body", func(t *testing.T) {
		r := post("/token", formType, "a=1")
		r.Header.Set("Content-Encoding", "gzip")
		if _, err := ParseBody(r); asRefusal(err).Status != 415 {
			t.Errorf("error %v", err)
		}
	})
	t.Run("TK-11 a lower limit of the edge holds", func(t *testing.T) {
		e := newEdge(t, func(c *EdgeConfig) { c.MaxBody = 10 })
		w := httptest.NewRecorder()
		e.API(func(_ http.ResponseWriter, r *http.Request) error { _, err := ParseBody(r); return err }).ServeHTTP(w, post("/", formType, "a=12345678901"))
		if w.Code != 413 {
			t.Errorf("status %d", w.Code)
		}
	})
	t.Run("a body that breaks off is the client's fault", func(t *testing.T) {
		r := post("/token", formType, "")
		r.Body = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))
		_, err := ParseBody(r)
		if got := asRefusal(err); got.Err.Code != oauth.InvalidRequest || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("error %v", err)
		}
	})
}

func TestParseRequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    *http.Request
		want string // of client_id; "" for a refusal
	}{
		{"AZ-16 GET has its parameters in the query", httptest.NewRequest(http.MethodGet, "/authorize?client_id=q", nil), "q"},
		{"AZ-16 POST has them in the body", post("/authorize", formType, "client_id=b"), "b"},
		{"attack AZ-16: parameters in both are refused", post("/authorize?client_id=q", formType, "client_id=b"), ""},
		{"attack AZ-16: a POST with a query alone is refused", post("/authorize?client_id=q", formType, ""), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParseRequest(tt.r)
			if p.Form["client_id"] != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("got %v, error %v", p, err)
			}
		})
	}
}

// wanted says by net/url what the parameters of raw are, and false if they must
// be refused: net/url takes anything more than once.
func wanted(raw string) (Params, bool) {
	all, err := url.ParseQuery(raw)
	if err != nil || len(strings.Split(raw, "&")) > 100 {
		return Params{}, false
	}
	p := Params{Form: Form{}}
	for name, values := range all {
		broken := func(s string) bool { return !utf8.ValidString(s) || strings.Contains(s, "\x00") }
		if broken(name) || slices.ContainsFunc(values, broken) || name != "resource" && len(values) > 1 {
			return Params{}, false
		}
		if name != "resource" && values[0] != "" {
			p.Form[name] = values[0]
		}
	}
	for _, v := range all["resource"] {
		if v != "" {
			p.Resources = append(p.Resources, v)
		}
	}
	return p, true
}

// FuzzParameters holds what we read in a query and in a body against net/url.
func FuzzParameters(f *testing.F) {
	for _, s := range []string{"a=1&b=2", "resource=a&resource=b", "a=%zz", "a;b", "a=%ff", "=&=", "scope=&scope=x", "&&a&", "a=b=c&%61=d", "resource=%c3&x=%a9", "a+b=%2B", strings.Repeat("&", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if len(raw) > maxParamBytes {
			return
		}
		want, ok := wanted(raw)
		body := httptest.NewRequest(http.MethodPost, "/token?a=other", strings.NewReader(raw))
		body.Header.Set("Content-Type", formType)
		inBody, bodyErr := ParseBody(body)
		inQuery, queryErr := ParseQuery(&http.Request{URL: &url.URL{RawQuery: raw}})
		for _, got := range []struct {
			p   Params
			err error
		}{{inBody, bodyErr}, {inQuery, queryErr}} {
			if (got.err == nil) != ok {
				t.Fatalf("%q: %v; net/url has %v, accepted %v", raw, got.err, want, ok)
			}
			if got.err != nil && oauth.AsError(got.err).Code != oauth.InvalidRequest {
				t.Fatalf("%q: %v", raw, got.err)
			}
			if d := cmp.Diff(want, got.p); d != "" {
				t.Fatalf("%q: %s", raw, d)
			}
		}
	})
}
