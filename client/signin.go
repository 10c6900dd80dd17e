package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"

	"github.com/bonafide-id/bonafide/oauth"
)

// SignIn signs the user in at the resource and stores what was granted, whether
// or not somebody was signed in before. scopes are asked for beside those that
// the resource names.
func (c *Client) SignIn(ctx context.Context, resource string, scopes ...string) (*Grant, error) {
	target, err := canonical(resource)
	if err != nil {
		return nil, fmt.Errorf("sign in at %s: %w", resource, err)
	}
	unlock, err := c.lock(ctx, target)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := c.Discover(ctx, target)
	if err != nil {
		return nil, err
	}
	return c.signIn(ctx, target, s, s.Scopes.Or(scopes))
}

// lock lets one sign-in at a resource run at a time and returns the unlocking.
func (c *Client) lock(ctx context.Context, target string) (unlock func(), err error) {
	c.mu.Lock()
	l := c.signing[target]
	if l == nil {
		l = make(chan struct{}, 1)
		c.signing[target] = l
	}
	c.mu.Unlock()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// signIn gets a new grant and stores it: from the user in a browser here or on
// another device, or from the server alone. The caller holds the resource's lock.
func (c *Client) signIn(ctx context.Context, target string, s *Server, scopes oauth.Scopes) (*Grant, error) {
	scopes = s.askable(scopes)
	old, err := c.cfg.Store.Load(ctx, target)
	if err != nil {
		return nil, err
	}
	ask := Ask{Resource: s.Resource, Issuer: s.Issuer, Scopes: scopes, New: scopes}
	if c.belongs(old, s) {
		ask.New = scopes.Without(old.Asked)
	}
	if c.cfg.Confirm != nil {
		if err := c.cfg.Confirm(ctx, ask); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSignIn, err)
		}
	}
	if c.cfg.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Wait)
		defer cancel()
	}
	if c.browses() {
		return c.browse(ctx, target, s, scopes)
	}
	var g *Grant
	if c.cfg.Alone {
		g, err = c.actAlone(ctx, s, scopes)
	} else {
		g, err = c.connect(ctx, s, scopes)
	}
	if err != nil {
		return nil, fmt.Errorf("sign in at %s: %w", s.Issuer, err)
	}
	return g, c.cfg.Store.Update(ctx, target, func(*Grant) (*Grant, error) { return g, nil })
}

// browse runs the browser flow.
func (c *Client) browse(ctx context.Context, target string, s *Server, scopes oauth.Scopes) (*Grant, error) {
	l, err := listen(c.cfg.Redirect)
	if err != nil {
		return nil, err
	}
	defer l.close()
	f, err := c.Begin(ctx, s, l.redirect, scopes)
	if err != nil {
		return nil, err
	}
	l.serve(f.Expects)
	if err := c.cfg.Open(f.URL); err != nil {
		return nil, fmt.Errorf("sign in at %s: %w", s.Issuer, err)
	}
	select {
	case query := <-l.queries:
		g, err := f.Finish(ctx, query)
		if err == nil {
			err = c.cfg.Store.Update(ctx, target, func(*Grant) (*Grant, error) { return g, nil })
		}
		l.outcome <- err
		return g, err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: the browser did not come back: %w", ErrSignIn, context.Cause(ctx))
	}
}

// belongs reports whether a stored grant was made by this client's name at this
// very server (CLI-13).
func (c *Client) belongs(g *Grant, s *Server) bool {
	return g != nil && g.Issuer == s.Issuer && g.ClientID == s.ClientID && g.Resource == s.Resource
}

// current returns a grant whose access token can be used, refreshing it if need
// be; nil when only the user can go on. used is an access token that the resource
// has just refused; "" is none.
func (c *Client) current(ctx context.Context, target, used string) (*Grant, error) {
	usable := func(g *Grant) bool { return g.fresh(c.cfg.Now()) && g.AccessToken != used }
	g, err := c.cfg.Store.Load(ctx, target)
	if err != nil || g == nil || g.AccessToken == "" || !c.mine(ctx, g) {
		return nil, err
	}
	if usable(g) || g.RefreshToken == "" && g.AccessToken != used && c.cfg.Now().Before(g.Expires) {
		return g, nil
	}
	type outcome struct {
		g   *Grant
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		// The refresh token is spent when the server sees it. Who asked may
		// leave; what the server answers has to be kept all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTimeout)
		defer cancel()
		next, err := c.renew(ctx, target, usable)
		done <- outcome{next, err}
	}()
	select {
	case o := <-done:
		if o.err != nil && g.AccessToken != used && c.cfg.Now().Before(g.Expires) {
			return g, nil // it could not be replaced early, and is still good
		}
		return o.g, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// renewTimeout bounds a refresh, the wait for other programs included.
const renewTimeout = time.Minute

// renew replaces the grant that is not usable any more, unless somebody else did.
func (c *Client) renew(ctx context.Context, target string, usable func(*Grant) bool) (out *Grant, err error) {
	err = c.cfg.Store.Update(ctx, target, func(old *Grant) (*Grant, error) {
		if old == nil || !c.mine(ctx, old) {
			return old, nil
		}
		if usable(old) {
			out = old // somebody else was faster
			return old, nil
		}
		next, err := c.refreshGrant(ctx, old)
		if errors.Is(err, ErrSignIn) {
			over := *old // what was asked for is remembered, for the next sign-in
			over.AccessToken, over.RefreshToken = "", ""
			return &over, nil
		}
		out = next
		return next, err
	})
	return out, err
}

// mine reports whether a stored grant was made under a name of this client
// (CLI-13).
func (c *Client) mine(ctx context.Context, g *Grant) bool {
	_, err := c.standing(ctx, g.Issuer, g.ClientID)
	return err == nil
}

// TokenSource returns the resource's tokens for programs that are built on
// golang.org/x/oauth2. Token refreshes, and signs the user in when nothing else
// helps; the refresh token stays here. Prefer [Client.HTTPClient], which cannot
// send a token to the wrong place.
func (c *Client) TokenSource(ctx context.Context, resource string) oauth2.TokenSource {
	return &source{c, ctx, resource}
}

type source struct {
	client   *Client
	ctx      context.Context
	resource string
}

// Token implements oauth2.TokenSource.
func (s *source) Token() (*oauth2.Token, error) {
	target, err := canonical(s.resource)
	if err != nil {
		return nil, err
	}
	g, err := s.client.current(s.ctx, target, "")
	if err == nil && g == nil {
		g, err = s.client.signInOnce(s.ctx, target, "", oauth.Challenge{})
	}
	if err != nil {
		return nil, err
	}
	if g.bound() {
		return nil, errors.New("the token is bound to a key and useless without a proof for each request: use HTTPClient")
	}
	return &oauth2.Token{AccessToken: g.AccessToken, TokenType: "Bearer", Expiry: g.Expires}, nil
}
