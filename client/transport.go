package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bonafide-id/bonafide/oauth"
)

// HTTPClient returns an http.Client for calls to the resource: see [Transport]. It
// follows redirects on the resource's own origin. One that leads elsewhere is the
// answer, unless Config.HTTP says what becomes of redirects: what is sent to the
// resource is for nobody else, and least of all for the user's own network (CLI-23).
func (c *Client) HTTPClient(resource string) *http.Client {
	h := *c.calls
	t := c.Transport(resource)
	h.Transport = t
	if h.CheckRedirect == nil {
		h.CheckRedirect = t.checkRedirect
	}
	return &h
}

func (t *Transport) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects || originOf(req.URL.String()) != originOf(t.target) {
		return http.ErrUseLastResponse
	}
	return nil
}

// Transport returns an http.RoundTripper for calls to the resource.
func (c *Client) Transport(resource string) *Transport {
	t := &Transport{client: c, base: c.calls.Transport}
	t.target, t.err = canonical(resource)
	return t
}

// Transport puts the resource's access token on requests to the resource, and on
// no others. When the resource answers 401 it refreshes the token or signs the
// user in; when it answers 403 insufficient_scope it asks the user for what is
// missing beside what was asked before; then it repeats the request. After a few
// attempts that did not help it returns the resource's own answer, and does not
// ask the user again until a call went well: [Client.SignIn] does.
type Transport struct {
	client *Client
	base   http.RoundTripper
	target string
	err    error
}

const (
	maxStepUps = 2       // for one operation, until one of them helps
	maxSignIns = 2       // after 401 answers, until one of them helps
	maxSends   = 5       // of one request: a nonce, a refresh, a sign-in, a step-up
	maxReplay  = 1 << 20 // largest body of unknown origin that is kept for a repetition
	maxStepped = 1024    // operations whose failures are remembered

	maxRedirects = 10 // of one request
)

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.err != nil {
		closeBody(req)
		return nil, fmt.Errorf("call resource: %w", t.err)
	}
	if !within(t.target, req.URL) || req.Header.Get("Authorization") != "" {
		return t.base.RoundTrip(req) // not ours: no token, no reaction
	}
	req, replay, err := replayable(req, t.client.cfg.ContentDigest && req.Method == http.MethodPost)
	if err != nil {
		return nil, err
	}
	g, err := t.client.current(req.Context(), t.target, "")
	if err != nil {
		closeBody(req)
		return nil, fmt.Errorf("call resource: %w", err)
	}
	a := &attempt{Transport: t, req: req, replay: replay}
	for sent := 1; ; sent++ {
		resp, err := a.send(g)
		if err != nil || replay == nil || sent == maxSends {
			return resp, err
		}
		next, err := a.react(resp, g)
		if err == nil && next == nil {
			return resp, nil
		}
		resp.Body.Close() // without a look at what is left, which may be without end
		if err != nil {
			return nil, fmt.Errorf("call resource: %w", err)
		}
		g = next
	}
}

// attempt is one request of the caller, which may be sent several times.
type attempt struct {
	*Transport
	req       *http.Request
	replay    func() (io.ReadCloser, error) // nil: the body can be sent only once
	refreshed bool                          // after a 401
	signedIn  bool                          // after a 401
	nonced    bool                          // after a 401 that gave a nonce
}

func (a *attempt) send(g *Grant) (*http.Response, error) {
	out := a.req.Clone(a.req.Context())
	if a.replay != nil {
		body, err := a.replay()
		if err != nil {
			return nil, err
		}
		out.Body = body
	}
	if g != nil {
		if err := a.authorize(out, g); err != nil {
			closeBody(out)
			return nil, fmt.Errorf("call resource: %w", err)
		}
	}
	resp, err := a.base.RoundTrip(out)
	if err == nil {
		a.client.hear(atResource(a.target), resp.Header)
	}
	return resp, err
}

// react returns the grant with which to repeat the request, or nil when resp is
// the answer. A refusal is met with each remedy once.
func (a *attempt) react(resp *http.Response, g *Grant) (*Grant, error) {
	ctx, challenge := a.req.Context(), tokenChallenge(resp)
	a.tell(resp, challenge)
	if resp.StatusCode == http.StatusUnauthorized && g != nil && g.bound() {
		switch oauth.Code(challenge.Get("error")) {
		case oauth.UseDPoPNonce: // once; the token is not what is wrong
			if a.nonced || resp.Header.Get(headerNonce) == "" {
				return nil, nil
			}
			a.nonced = true
			return g, nil
		case oauth.InvalidDPoPProof:
			return nil, nil
		}
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		if g != nil && challenge.Get("error") == string(oauth.InsufficientUserAuthentication) { // the token is good
			return a.client.stepUp(ctx, a.target, g, challenge, operation(a.req, a.replay))
		}
		used := ""
		if g != nil {
			used = g.AccessToken
		}
		if g != nil && !a.refreshed {
			a.refreshed = true
			if next, err := a.client.current(ctx, a.target, used); err != nil || next != nil {
				return next, err
			}
		}
		if a.signedIn {
			a.client.count(a.target + fruitless)
			return nil, nil
		}
		if a.client.counted(a.target+fruitless) >= maxSignIns {
			a.client.step(Step{Kind: StepDecide, Text: "leave it at the refusal: signing in did not help before", Rule: "CLI-12"})
			return nil, nil
		}
		a.signedIn, a.refreshed = true, true
		return a.client.signInOnce(ctx, a.target, used, challenge)
	case http.StatusForbidden:
		a.client.forget(a.target + fruitless)
		if challenge.Get("error") != string(oauth.InsufficientScope) || g == nil {
			return nil, nil
		}
		return a.client.stepUp(ctx, a.target, g, challenge, operation(a.req, a.replay))
	}
	a.client.helped(a.target, func() string { return operation(a.req, a.replay) })
	return nil, nil
}

// fruitless marks, after a resource, the count of sign-ins whose token it
// refused. No operation is called so.
const fruitless = " 401"

// tell traces a refusal. Calls that succeed are the application's own business.
func (a *attempt) tell(resp *http.Response, challenge oauth.Challenge) {
	if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
		return
	}
	text := "call the resource"
	if challenge.Scheme != "" {
		text += ", which answers " + challenge.String()
	}
	a.client.step(Step{Kind: StepAsk, To: a.target, Text: text, Status: resp.StatusCode, Rule: "CLI-01"})
}

// signInOnce signs in unless somebody else did so since the token that was used.
func (c *Client) signInOnce(ctx context.Context, target, used string, challenge oauth.Challenge) (*Grant, error) {
	unlock, err := c.lock(ctx, target)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if g, err := c.cfg.Store.Load(ctx, target); err == nil && g.fresh(c.cfg.Now()) && g.AccessToken != used && c.mine(ctx, g) {
		return g, nil
	}
	var s *Server
	if challenge.Scheme == "" {
		s, err = c.Discover(ctx, target)
	} else {
		s, err = c.discover(ctx, target, challenge)
	}
	if err != nil {
		return nil, err
	}
	scopes := s.Scopes
	if old, err := c.cfg.Store.Load(ctx, target); err == nil && c.belongs(old, s) {
		scopes = old.Asked.Or(scopes) // what was agreed to before is not lost
	}
	return c.signIn(ctx, target, s, scopes)
}

// stepUp signs in for what was asked before and what the challenge names: scopes
// (CLI-12), or how the user has to sign in (RFC 9470). It gives up, with nil, when
// that cannot help or did not help before.
func (c *Client) stepUp(ctx context.Context, target string, g *Grant, challenge oauth.Challenge, op string) (*Grant, error) {
	wanted, err := oauth.ParseScopes(challenge.Get("scope"))
	acr, age := strength(challenge)
	stronger := (acr != "" || age != "") && c.browses()
	if (err != nil || len(wanted) == 0 || g.Scopes.Covers(wanted)) && !stronger {
		c.step(Step{Kind: StepDecide, Text: "leave it at the refusal: it names nothing that the token lacks", Rule: "CLI-12"})
		return nil, nil
	}
	unlock, err := c.lock(ctx, target)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if now, err := c.cfg.Store.Load(ctx, target); err == nil && now.fresh(c.cfg.Now()) && now.AccessToken != g.AccessToken && c.mine(ctx, now) && now.Scopes.Covers(wanted) {
		return now, nil // another request has just done it
	}
	if !c.mayStepUp(target + " " + op) {
		c.step(Step{Kind: StepDecide, Text: "leave it at the refusal: asking for more did not help before", Rule: "CLI-12"})
		return nil, nil
	}
	s, err := c.discover(ctx, target, challenge)
	if err != nil {
		return nil, err
	}
	scopes := wanted
	if c.belongs(g, s) {
		scopes = g.Asked.Or(wanted)
	}
	if len(scopes) == 0 {
		scopes = s.Scopes
	}
	c.step(Step{Kind: StepDecide, Text: "ask the user for more: " + scopes.String(), Rule: "CLI-12"})
	return c.signIn(ctx, target, s, scopes)
}

// strength returns what a challenge wants of the sign-in itself (RFC 9470 section
// 3), for the authorization request; "" where it wants nothing that can be said.
func strength(challenge oauth.Challenge) (acrValues, maxAge string) {
	if challenge.Get("error") != string(oauth.InsufficientUserAuthentication) {
		return "", ""
	}
	if acr, err := oauth.ParseScopes(challenge.Get("acr_values")); err == nil { // the same grammar
		acrValues = acr.String()
	}
	if n, err := strconv.ParseUint(challenge.Get("max_age"), 10, 31); err == nil {
		maxAge = strconv.FormatUint(n, 10)
	}
	return acrValues, maxAge
}

// mayStepUp counts an attempt for an operation and reports whether it is one of
// the few.
func (c *Client) mayStepUp(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stepped[key] >= maxStepUps || c.stepped[key] == 0 && len(c.stepped) >= maxStepped {
		return false
	}
	c.stepped[key]++
	return true
}

func (c *Client) count(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stepped[key]++
}

func (c *Client) counted(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stepped[key]
}

func (c *Client) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stepped, key)
}

// helped forgets the attempts of an operation that was let through.
func (c *Client) helped(target string, op func() string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.stepped) > 0 {
		delete(c.stepped, target+" "+op())
		delete(c.stepped, target+fruitless)
	}
}

// operation names what a request does, so that failures are remembered for it
// alone: method, path, and for JSON-RPC the called method and tool.
func operation(req *http.Request, replay func() (io.ReadCloser, error)) string {
	op := req.Method + " " + req.URL.EscapedPath()
	if req.Body == nil || replay == nil {
		return op
	}
	body, err := replay()
	if err != nil {
		return op
	}
	defer body.Close()
	var m struct {
		Method string `json:"method"`
		Params struct {
			Name string `json:"name"`
		} `json:"params"`
	}
	raw, err := io.ReadAll(io.LimitReader(body, maxReplay))
	if err != nil || json.Unmarshal(raw, &m) != nil {
		return op
	}
	return op + " " + m.Method + " " + m.Params.Name
}

// replayable returns a request and a way to get its body again and again, or nil
// when the body can be sent only once. digest says that it has to be known before
// it is sent.
func replayable(req *http.Request, digest bool) (*http.Request, func() (io.ReadCloser, error), error) {
	none := func() (io.ReadCloser, error) { return http.NoBody, nil }
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return req, none, nil
	case req.GetBody != nil:
		req.Body.Close()
		return req, req.GetBody, nil
	case digest:
		return buffered(req)
	case req.ContentLength <= 0 || req.ContentLength > maxReplay: // 0 with a body is: not known
		return req, nil, nil
	}
	raw, err := io.ReadAll(io.LimitReader(req.Body, maxReplay))
	req.Body.Close()
	if err != nil {
		return nil, nil, err
	}
	return req, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }, nil
}

// within reports whether a URL belongs to a resource: the same origin, and the
// resource's path or one below it, written without tricks (CLI-14).
func within(target string, u *url.URL) bool {
	t, err := url.Parse(target)
	if err != nil || u.Scheme != t.Scheme || !strings.EqualFold(u.Host, t.Host) || u.User != nil {
		return false
	}
	path := u.EscapedPath()
	if strings.ContainsAny(path, "\\%") && path != t.EscapedPath() {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	base := strings.TrimSuffix(t.EscapedPath(), "/")
	return path == t.EscapedPath() || path == base || strings.HasPrefix(path, base+"/")
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
