package housetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/bonafide-id/bonafide/oauth"
)

// Answer is what an endpoint for programs answered.
type Answer struct {
	Status int
	Header http.Header
	Body   map[string]any
	Raw    string
}

// Str returns a member of the answer that is a string.
func (a Answer) Str(name string) string {
	s, _ := a.Body[name].(string)
	return s
}

// OK reports whether the answer is 200.
func (a Answer) OK() bool { return a.Status == http.StatusOK }

// Post sends a form to an endpoint of the server. edit may change the request.
func (h *House) Post(path string, form url.Values, edit ...func(*http.Request)) Answer {
	h.TB.Helper()
	a, err := h.TryPost(h.TB.Context(), path, form, edit...)
	if err != nil {
		h.TB.Fatal(err)
	}
	return a
}

// TryPost is Post for goroutines.
func (h *House) TryPost(ctx context.Context, path string, form url.Values, edit ...func(*http.Request)) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, Issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, e := range edit {
		e(req)
	}
	return h.do(req)
}

// Get fetches a path of the server.
func (h *House) Get(path string) Answer {
	h.TB.Helper()
	req, err := http.NewRequestWithContext(h.TB.Context(), http.MethodGet, Issuer+path, nil)
	if err != nil {
		h.TB.Fatal(err)
	}
	a, err := h.do(req)
	if err != nil {
		h.TB.Fatal(err)
	}
	return a
}

// Do sends a request as it is.
func (h *House) Do(req *http.Request) Answer {
	h.TB.Helper()
	a, err := h.do(req)
	if err != nil {
		h.TB.Fatal(err)
	}
	return a
}

func (h *House) do(req *http.Request) (Answer, error) {
	resp, err := h.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 2<<20))
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Status: resp.StatusCode, Header: resp.Header, Raw: string(raw)}
	if err := json.Unmarshal(raw, &a.Body); err != nil && strings.Contains(resp.Header.Get("Content-Type"), "json") && len(raw) > 0 {
		return a, errors.Join(fmt.Errorf("%s: not JSON: %s", req.URL, raw), err)
	}
	return a, nil
}

// CodeForm is the form that redeems a code for the public client of the house,
// with changes as in Authorize.
func CodeForm(code string, changes ...string) url.Values {
	return change(url.Values{
		"grant_type": {oauth.GrantAuthorizationCode}, "code": {code}, "client_id": {ClientID},
		"redirect_uri": {Redirect}, "code_verifier": {Verifier}, "resource": {Resource},
	}, changes)
}

// RefreshForm is the form that uses a refresh token.
func RefreshForm(token string, changes ...string) url.Values {
	return change(url.Values{
		"grant_type": {oauth.GrantRefreshToken}, "refresh_token": {token}, "client_id": {ClientID}, "resource": {Resource},
	}, changes)
}

func change(v url.Values, changes []string) url.Values {
	for i := 0; i+1 < len(changes); i += 2 {
		if v.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			v.Del(changes[i])
		}
	}
	return v
}
