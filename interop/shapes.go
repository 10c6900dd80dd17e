package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// habit is how a published client behaves on the wire where it differs from the
// plain way.
type habit struct {
	authorize [][2]string // changes to the authorization request; "" leaves a parameter out
	basic     bool        // Basic with an empty secret first, then the same code with client_id
	noRefresh bool        // its document does not list refresh_token
}

var habits = map[string]habit{
	"chatgpt-app":    {authorize: [][2]string{{"scope", "issues:read offline_access"}}},
	"claude":         {authorize: [][2]string{{"scope", ""}}},
	"codex":          {basic: true},
	"goose":          {noRefresh: true},
	"mcpc":           {authorize: [][2]string{{"resource", ""}}},
	"mcpjam":         {authorize: [][2]string{{"prompt", "consent"}, {"scope", "issues:read offline_access"}}},
	"vercel-connect": {authorize: [][2]string{{"prompt", "consent"}}},
	"zed":            {basic: true, authorize: [][2]string{{"scope", ""}, {"resource", ""}}},
}

// shapes walks every published client through all legs, from each of its redirect
// URIs, and calls a tool. The documents stand under the clients' real names,
// which go no further than the proxy of this run.
func shapes(ctx context.Context, h *house) (string, error) {
	n, keys := 0, map[string]*jose.Private{} // by jwks_uri: both shapes of ChatGPT share theirs
	list := cimdtest.Shapes()
	for _, s := range list {
		h.docs.put(s.ClientID, page{s.Body, s.Header})
		var doc struct {
			RedirectURIs []string `json:"redirect_uris"`
			JWKSURI      string   `json:"jwks_uri"`
			Alg          string   `json:"token_endpoint_auth_signing_alg"`
		}
		if err := json.Unmarshal(s.Body, &doc); err != nil {
			return "", err
		}
		v := visitor{h: h, id: s.ClientID, habit: habits[s.Name], web: &http.Client{
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.ca.pool()}}, Timeout: 20 * time.Second,
		}}
		if doc.JWKSURI != "" {
			if keys[doc.JWKSURI] == nil {
				key, err := h.publishKey(doc.JWKSURI, cmp.Or(doc.Alg, jose.ES256))
				if err != nil {
					return "", err
				}
				keys[doc.JWKSURI] = &key
			}
			v.key = keys[doc.JWKSURI]
		}
		for _, redirect := range spellings(doc.RedirectURIs) {
			if err := v.walk(ctx, redirect); err != nil {
				return "", fmt.Errorf("%s at %s: %w", s.Name, redirect, err)
			}
			n++
		}
		v.web.CloseIdleConnections()
	}
	if err := fastMCP(ctx, h); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d clients by %d redirect URIs: tool, refresh; a wildcard is refused", len(list), n), nil
}

// spellings are the redirect URIs that clients use for the listed ones: on this
// computer with another port at each start, and as listed.
func spellings(listed []string) []string {
	var out []string
	for _, s := range listed {
		out = append(out, s)
		if u, err := url.Parse(s); err == nil && u.Scheme == "http" {
			host, _, _ := strings.Cut(strings.TrimPrefix(s, "http://"), "/")
			if u.Port() != "" {
				host = strings.TrimSuffix(host, ":"+u.Port())
			}
			out = append(out, "http://"+host+":51004"+u.Path)
		}
	}
	if len(out) > 6 {
		return out[:6] // mcpc lists twenty alike
	}
	return out
}

type visitor struct {
	h     *house
	id    string
	habit habit
	key   *jose.Private
	web   *http.Client
}

// publishKey makes a key and serves its public half at a jwks_uri.
func (h *house) publishKey(jwksURI, alg string) (jose.Private, error) {
	key, err := jose.Generate(alg)
	if err != nil {
		return key, err
	}
	set, err := jose.MarshalSet(key.Public())
	if err != nil {
		return key, err
	}
	h.docs.put(jwksURI, page{set, http.Header{"Content-Type": {"application/jwk-set+json"}}})
	return key, nil
}

func (v visitor) walk(ctx context.Context, redirect string) error {
	meta, err := v.discover(ctx)
	if err != nil {
		return err
	}
	verifier, state := oauth.RandomToken(32), oauth.RandomToken(16)
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {v.id}, "redirect_uri": {redirect}, "scope": {"issues:read"}, "resource": {v.h.resource},
		"state": {state}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for _, c := range v.habit.authorize {
		if q.Set(c[0], c[1]); c[1] == "" {
			q.Del(c[0])
		}
	}
	back, err := v.h.agree(ctx, meta.Authorize+"?"+q.Encode())
	if err != nil {
		return err
	}
	got := back.Query()
	if !strings.HasPrefix(back.String(), redirect+"?") || got.Get("state") != state || got.Get("iss") != v.h.issuer {
		return fmt.Errorf("the answer went to %s", back)
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {got.Get("code")}, "redirect_uri": {redirect}, "code_verifier": {verifier}}
	if r := q.Get("resource"); r != "" {
		form.Set("resource", r)
	}
	if v.habit.basic {
		if a, err := v.post(ctx, meta.Token, form, true); err != nil || a.status != 401 || a.Error != "invalid_client" {
			return fmt.Errorf("Basic with an empty secret got %d %s, %v", a.status, a.Error, err)
		}
	}
	a, err := v.post(ctx, meta.Token, form, false)
	if err != nil || a.Access == "" {
		return fmt.Errorf("the code got %d %s, %v", a.status, a.Error, err)
	}
	if err := v.use(ctx, a.Access); err != nil {
		return err
	}
	if v.habit.noRefresh != (a.Refresh == "") {
		return fmt.Errorf("refresh token: %t", a.Refresh != "")
	}
	if v.habit.noRefresh {
		return nil
	}
	b, err := v.post(ctx, meta.Token, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {a.Refresh}}, false)
	if err != nil || b.Access == "" || b.Refresh == "" || b.Refresh == a.Refresh {
		return fmt.Errorf("the refresh token got %d %s, %v", b.status, b.Error, err)
	}
	return v.use(ctx, b.Access)
}

type metadata struct {
	Issuer    string
	Authorize string   `json:"authorization_endpoint"`
	Token     string   `json:"token_endpoint"`
	Documents bool     `json:"client_id_metadata_document_supported"`
	Methods   []string `json:"token_endpoint_auth_methods_supported"`
	Servers   []string `json:"authorization_servers"`
}

// discover goes the way from a 401 to the endpoints.
func (v visitor) discover(ctx context.Context) (metadata, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.h.resource, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`))
	if err != nil {
		return metadata{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := v.web.Do(req)
	if err != nil {
		return metadata{}, err
	}
	resp.Body.Close()
	_, after, ok := strings.Cut(resp.Header.Get("WWW-Authenticate"), `resource_metadata="`)
	where, _, _ := strings.Cut(after, `"`)
	if resp.StatusCode != 401 || !ok {
		return metadata{}, fmt.Errorf("without a token: %d %q", resp.StatusCode, resp.Header.Get("WWW-Authenticate"))
	}
	var about, m metadata
	if err := v.get(ctx, where, &about); err != nil || !slices.Equal(about.Servers, []string{v.h.issuer}) {
		return m, fmt.Errorf("authorization_servers are %q, %v", about.Servers, err)
	}
	if err := v.get(ctx, v.h.issuer+"/.well-known/oauth-authorization-server", &m); err != nil {
		return m, err
	}
	if m.Issuer != v.h.issuer || !m.Documents || len(m.Methods) == 0 || m.Methods[0] != "none" {
		return m, fmt.Errorf("metadata a client would stumble over: %+v", m)
	}
	return m, nil
}

func (v visitor) get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := v.web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

type answer struct {
	status  int
	Error   string
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// post asks the token endpoint: with a key's assertion, with client_id in the
// body, or with Basic and no secret.
func (v visitor) post(ctx context.Context, endpoint string, form url.Values, basic bool) (answer, error) {
	f := url.Values{}
	for k, values := range form {
		f[k] = values
	}
	switch {
	case basic:
	case v.key != nil:
		now := time.Now()
		assertion, err := v.key.Sign("", map[string]any{
			"iss": v.id, "sub": v.id, "aud": v.h.issuer, "jti": oauth.RandomToken(16), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		})
		if err != nil {
			return answer{}, err
		}
		f.Set("client_id", v.id)
		f.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		f.Set("client_assertion", assertion)
	default:
		f.Set("client_id", v.id)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(f.Encode()))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if basic {
		req.SetBasicAuth(url.QueryEscape(v.id), "")
	}
	resp, err := v.web.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	err = json.NewDecoder(bytes.NewReader(raw)).Decode(&a)
	return a, err
}

// use calls a tool with a token.
func (v visitor) use(ctx context.Context, token string) error {
	web := &http.Client{Transport: bearer{v.web.Transport, token}}
	s, err := mcp.NewClient(&mcp.Implementation{Name: "shape", Version: "1.0.0"}, nil).Connect(ctx,
		&mcp.StreamableClientTransport{Endpoint: v.h.resource, HTTPClient: web, DisableStandaloneSSE: true}, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	text, err := call(ctx, s, "list_issues", nil)
	if err != nil || !strings.Contains(text, "#1") {
		return fmt.Errorf("list_issues: %q, %v", text, err)
	}
	return nil
}

type bearer struct {
	next  http.RoundTripper
	token string
}

// RoundTrip adds the token.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// fastMCP is the one published shape that must not come in: its wildcard is no
// pattern, and the page has to say so.
func fastMCP(ctx context.Context, h *house) error {
	id, err := h.publish("fastmcp", map[string]any{"redirect_uris": []string{"http://localhost:*/callback"}})
	if err != nil {
		return err
	}
	q := url.Values{
		"response_type": {"code"}, "client_id": {id}, "redirect_uri": {"http://localhost:51004/callback"}, "scope": {"issues:read"},
		"state": {"s"}, "code_challenge": {strings.Repeat("a", 43)}, "code_challenge_method": {"S256"},
	}
	_, err = h.agree(ctx, h.issuer+"/authorize?"+q.Encode())
	if err == nil || !strings.Contains(err.Error(), "answered 400") || !strings.Contains(err.Error(), "redirect_uris") {
		return fmt.Errorf("FastMCP's wildcard: %v", err)
	}
	return nil
}
