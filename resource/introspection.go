package resource

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// Introspection makes the guard ask the authorization server about each token
// (RFC 7662), so that a token that was revoked is refused before it expires, and
// so that tokens may be opaque. A token that is a JWT is checked here first, and
// only a good one is asked about. There must be exactly one authorization server.
//
// While the authorization server does not answer, requests get 503: nothing is let
// through on an answer that is older than Cache.
type Introspection struct {
	// Secret is the resource's own at the authorization server. It is required, and
	// it is sent to the introspection endpoint only.
	Secret string
	// User goes with it in HTTP Basic; "" is the resource's URL.
	User string
	// Endpoint is where to ask; "" is what the metadata of the authorization server
	// says.
	Endpoint string
	// Cache is how long a token that is active is not asked about again, and so how
	// long a revoked one may still be accepted; it is never accepted past its
	// expiry. 0 is 30 seconds, 5 minutes is the most, and less than 0 is not at all.
	Cache time.Duration
	// Timeout is how long a request waits for the answer; 0 is 3 seconds, 10 are the
	// most.
	Timeout time.Duration
}

const (
	introspectionCache   = 30 * time.Second
	introspectionWait    = 3 * time.Second
	inactiveCache        = 10 * time.Second // an inactive token stays so
	introspectionPause   = time.Second      // after a failure: nobody is made to wait for the next one
	introspectionStreams = 30 * time.Second // between two looks at an open stream without a cache
	maxAnswers           = 10_000
	maxQuestions         = 64 // at a time
	maxUnknown           = 48 // of them about tokens that were not active before
	maxAnswerBytes       = 64 << 10
	endpointLife         = time.Hour
)

// introspector asks about tokens and remembers the answers.
type introspector struct {
	Introspection
	from *issuer
	now  func() time.Time

	mu       sync.Mutex // guards the fields below
	answers  map[[32]byte]*verdict
	asking   int
	pause    time.Time // until when nothing is asked after a failure
	failure  error     // why
	found    string    // the endpoint of the metadata
	foundFor time.Time
}

// verdict is what became of one question. done is closed when it is there.
type verdict struct {
	done   chan struct{}
	claims *claims // nil: not active
	err    error   // there is no answer
	until  time.Time
}

// readIntrospection prepares the introspector, if there is to be one.
func (g *Guard) readIntrospection() error {
	if g.cfg.Introspection == nil {
		return nil
	}
	c := *g.cfg.Introspection
	if c.Cache == 0 {
		c.Cache = introspectionCache
	}
	if c.Timeout == 0 {
		c.Timeout = introspectionWait
	}
	if c.User == "" {
		c.User = g.cfg.Resource
	}
	switch {
	case c.Secret == "":
		return errors.New("introspection: the resource's secret is required")
	case len(g.issuers) != 1:
		return errors.New("introspection: name exactly one authorization server")
	case c.Cache > 5*time.Minute:
		return errors.New("introspection: the cache is 5 minutes at most")
	case c.Timeout < 0 || c.Timeout > 10*time.Second:
		return errors.New("introspection: the timeout is 10 seconds at most")
	}
	from := g.issuers[g.cfg.AuthorizationServers[0]]
	if c.Endpoint != "" {
		if err := from.endpoint("introspection endpoint", c.Endpoint); err != nil {
			return err
		}
	}
	g.introspect = &introspector{Introspection: c, from: from, now: g.cfg.Now, answers: map[[32]byte]*verdict{}}
	return nil
}

// confirm lets the authorization server decide about a token. local is what a JWT
// says, with a good signature; nil for a token that is none.
func (g *Guard) confirm(ctx context.Context, token string, local *claims) (*claims, error) {
	c, err := g.introspect.ask(ctx, token)
	switch {
	case err != nil:
		return nil, oauth.Refuse(oauth.TemporarilyUnavailable, "the authorization server does not say just now whether the access token is good").Under("RS-23").Because(err)
	case c == nil:
		return nil, invalid("RS-23", "the access token is not active")
	}
	if err := g.judge(c); err != nil {
		return nil, err
	}
	if local == nil {
		return c, nil
	}
	return local.within(c)
}

// within returns what a token says, no further than the authorization server says
// of it now.
func (c *claims) within(said *claims) (*claims, error) {
	if c.subject != said.subject || said.clientID != "" && c.clientID != said.clientID {
		return nil, invalid("RS-23", "the authorization server takes the access token for another one")
	}
	out := *c
	if said.scopes != nil {
		out.scopes = c.scopes.And(said.scopes)
	}
	if said.expires.Before(out.expires) {
		out.expires = said.expires
	}
	if out.bound == nil {
		out.bound = said.bound
	}
	if out.authTime.IsZero() {
		out.authTime = said.authTime
	}
	if out.acr == "" {
		out.acr = said.acr
	}
	return &out, nil
}

// ask returns what the authorization server says about a token: nil claims for one
// that is not active. Who asks about the same token at once shares one question,
// and whoever asked, it ends in time.
func (i *introspector) ask(ctx context.Context, token string) (*claims, error) {
	key, now := sha256.Sum256([]byte(token)), i.now()
	i.mu.Lock()
	v := i.answers[key]
	if v != nil && !v.until.IsZero() && now.Before(v.until) {
		i.mu.Unlock()
		return v.claims, v.err
	}
	if v == nil || !v.until.IsZero() {
		if err := i.may(now, v != nil && v.claims != nil); err != nil {
			i.mu.Unlock()
			return nil, err
		}
		v = &verdict{done: make(chan struct{})}
		i.answers[key] = v
		i.asking++
		go i.question(context.WithoutCancel(ctx), key, token, v)
	}
	i.mu.Unlock()
	select {
	case <-v.done:
		return v.claims, v.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errManyQuestions = errors.New("too many questions to the authorization server at a time")

// may reports why nothing can be asked just now, and makes room for one answer.
// Strangers can ask about as many tokens as they like: what was active before has
// places of its own, and is forgotten last. The caller holds mu.
func (i *introspector) may(now time.Time, before bool) error {
	most := maxUnknown
	if before {
		most = maxQuestions
	}
	switch {
	case now.Before(i.pause):
		return i.failure
	case i.asking >= most:
		return errManyQuestions
	}
	var active [sha256.Size]byte
	looked, found := 0, false
	for key, v := range i.answers {
		if len(i.answers) < maxAnswers || looked == maxQuestions+64 {
			break
		}
		switch looked++; {
		case v.until.IsZero():
		case v.claims == nil:
			delete(i.answers, key)
		default:
			active, found = key, true
		}
	}
	if found && len(i.answers) >= maxAnswers {
		delete(i.answers, active) // at worst it is asked again
	}
	return nil
}

// question asks and gives everyone the answer who waits for it.
func (i *introspector) question(ctx context.Context, key [32]byte, token string, v *verdict) {
	ctx, cancel := context.WithTimeout(ctx, i.Timeout)
	defer cancel()
	c, err := i.post(ctx, token)
	now := i.now()
	i.mu.Lock()
	defer i.mu.Unlock()
	defer close(v.done)
	i.asking--
	v.claims, v.err = c, err
	var own *aboutToken
	switch {
	case errors.As(err, &own):
		v.until = now.Add(introspectionPause)
	case err != nil:
		i.pause, i.failure = now.Add(introspectionPause), err
		delete(i.answers, key)
		return
	case c == nil:
		v.until = now.Add(inactiveCache)
	default:
		if v.until = now.Add(i.Cache); c.expires.Before(v.until) {
			v.until = c.expires
		}
	}
	if !now.Before(v.until) {
		delete(i.answers, key)
	}
}

// aboutToken is a failure that lies in what was asked or said about one token: it
// does not speak against the endpoint, and must not hold up what others ask.
type aboutToken struct{ err error }

func (e *aboutToken) Error() string { return e.err.Error() }

// post asks the introspection endpoint. Only a 200 with JSON is an answer.
func (i *introspector) post(ctx context.Context, token string) (*claims, error) {
	where, err := i.where(ctx)
	if err != nil {
		return nil, err
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(url.QueryEscape(i.User), url.QueryEscape(i.Secret))
	resp, err := i.from.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge: // some servers say so of what cannot be a token of theirs
		return nil, &aboutToken{fmt.Errorf("%s answered %d", where, resp.StatusCode)}
	default:
		return nil, fmt.Errorf("%s answered %d", where, resp.StatusCode)
	}
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, fmt.Errorf("%s did not answer with JSON", where)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxAnswerBytes || !validJSON(body) {
		return nil, fmt.Errorf("%s answered with too much, or with no JSON", where)
	}
	return i.read(body)
}

// read reads an answer. One that is active has to be whole, from the authorization
// server that was asked, and about an access token.
func (i *introspector) read(body []byte) (*claims, error) {
	active, access, dpop := false, true, false
	err := members(body, func(name string, v []byte) error {
		switch name {
		case "active":
			switch string(v) {
			case "true":
				active = true
			case "false":
			default:
				return errClaim
			}
		case "token_type", "token_use", "typ":
			kind := strings.ToLower(text(v))
			access = access && !slices.Contains(notAccess, kind)
			dpop = dpop || kind == "dpop"
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the answer about a token: %w", err)
	}
	if !active || !access {
		return nil, nil //nolint:nilnil // not active is an answer
	}
	c, err := readClaims(body)
	if err != nil {
		return nil, &aboutToken{fmt.Errorf("read the answer about a token: %w", err)}
	}
	if c.issuer == "" {
		c.issuer = i.from.id
	}
	if c.issuer != i.from.id {
		return nil, &aboutToken{fmt.Errorf("the answer about a token names the issuer %q", c.issuer)}
	}
	if dpop && (c.bound == nil || c.bound.jkt == "") {
		return nil, &aboutToken{errors.New("the answer about a token says that it is bound to a key, and not to which")}
	}
	return c, nil
}

// notAccess is what servers call tokens that are active and not for a resource
// (token_type; token_use of some, and typ of others): a hint that the question is
// about an access token binds nobody (RFC 7662 section 2.1).
var notAccess = []string{"refresh_token", "refresh", "offline", "id_token", "id", "n_a"}

// where returns the endpoint, from the metadata where it is not configured.
func (i *introspector) where(ctx context.Context) (string, error) {
	if i.Endpoint != "" {
		return i.Endpoint, nil
	}
	i.mu.Lock()
	found, good := i.found, i.now().Before(i.foundFor)
	i.mu.Unlock()
	if good {
		return found, nil
	}
	m, err := i.from.metadata(ctx)
	if err == nil {
		err = i.from.endpoint("introspection_endpoint", m.IntrospectionEndpoint)
	}
	if err != nil {
		return "", fmt.Errorf("find the introspection endpoint of %s: %w", i.from.id, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.found, i.foundFor = m.IntrospectionEndpoint, i.now().Add(endpointLife)
	return i.found, nil
}

// watch looks at the token of an open stream again and again, and ends the stream
// when the token is not known to be good any more (RS-32).
func (g *Guard) watch(ctx context.Context, end func(), token string) {
	every := g.introspect.Cache
	if every <= 0 {
		every = introspectionStreams
	}
	tick := time.NewTicker(max(every, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := g.confirm(ctx, token, nil); err != nil {
				end()
				return
			}
		}
	}
}
