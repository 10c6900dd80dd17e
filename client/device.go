package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

// DeviceCode is what a person types on another device to sign in here (RFC 8628).
type DeviceCode struct {
	Issuer          string
	UserCode        string // to be shown as it is
	VerificationURI string // where to type it: https, short enough to be typed as well
	Complete        string // the same with the code in it, for a QR code; "" if there is none
	Expires         time.Time
}

const (
	devicePoll   = 5 * time.Second // between two polls, where the server does not say
	deviceFloor  = time.Second     // the least that a server can make of it
	deviceSlower = 5 * time.Second // more of it, each time the server says slow_down
	deviceSlow   = 2 * time.Minute // the most that failures make of it
	deviceMost   = time.Hour       // the longest that a code is waited for
)

// deviceAnswer is the answer to a device authorization request.
type deviceAnswer struct {
	DeviceCode string  `json:"device_code"`
	UserCode   string  `json:"user_code"`
	URI        string  `json:"verification_uri"`
	Complete   string  `json:"verification_uri_complete"`
	Expires    float64 `json:"expires_in"`
	Interval   float64 `json:"interval"`
}

// connect signs the user in on another device: it asks for a code, has the
// application show it, and polls until the user has answered there (CLI-25).
func (c *Client) connect(ctx context.Context, s *Server, scopes oauth.Scopes) (*Grant, error) {
	if s.Metadata.DeviceEndpoint == "" {
		return nil, fmt.Errorf("%s offers no sign-in on another device", s.Issuer)
	}
	who, err := c.standing(ctx, s.Issuer, s.ClientID)
	if err != nil {
		return nil, err
	}
	key, bound, _, err := c.keyFor(ctx, s, who)
	if err != nil {
		return nil, err
	}
	form := url.Values{"resource": {s.Resource}}
	if len(scopes) > 0 {
		form.Set("scope", scopes.String())
	}
	r := request{text: "ask for a code to type on another device", place: s.Metadata.DeviceEndpoint, server: &s.Metadata, client: who, form: form, key: key, bound: bound}
	a, err := c.post(ctx, r)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, a.refused("device authorization endpoint")
	}
	var d deviceAnswer
	if err := c.check("CLI-25", "the answer holds a code to show and an address to open", d.read(a.body)); err != nil {
		return nil, err
	}
	life := time.Duration(min(d.Expires, deviceMost.Seconds()) * float64(time.Second))
	code := DeviceCode{Issuer: s.Issuer, UserCode: d.UserCode, VerificationURI: d.URI, Complete: d.Complete, Expires: c.cfg.Now().Add(life)}
	ctx, cancel := context.WithTimeoutCause(ctx, life, errors.New("the code has expired"))
	defer cancel()
	c.step(Step{Kind: StepUser, To: d.URI, Text: "have the user type a code on another device"})
	if err := c.cfg.Device(ctx, code); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignIn, err)
	}
	g, err := s.grant(scopes, key)
	if err != nil {
		return nil, err
	}
	r.text = "ask whether the user has answered"
	r.form = url.Values{"grant_type": {oauth.GrantDeviceCode}, "device_code": {d.DeviceCode}, "resource": {s.Resource}}
	return c.poll(ctx, r, g, time.Duration(d.Interval*float64(time.Second)))
}

// read takes the answer over. What is shown to a person cannot steer a screen,
// and what is opened is an address for a browser.
func (d *deviceAnswer) read(raw []byte) error {
	if json.Unmarshal(raw, d) != nil {
		return errors.New("the answer is not the JSON that was expected")
	}
	switch {
	case d.DeviceCode == "" || d.UserCode == "" || d.Expires < 1:
		return errors.New("the answer lacks a code or its lifetime")
	case len(d.UserCode) > 64 || strings.ContainsFunc(d.UserCode, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("the code cannot be shown")
	case math.IsNaN(d.Interval) || d.Interval <= 0:
		d.Interval = devicePoll.Seconds()
	}
	d.Interval = min(max(d.Interval, deviceFloor.Seconds()), deviceMost.Seconds())
	if err := checkOpen(d.URI); err != nil {
		return fmt.Errorf("verification_uri: %w", err)
	}
	if d.Complete != "" && checkOpen(d.Complete) != nil {
		d.Complete = ""
	}
	return nil
}

// poll asks in the server's own rhythm, slower when told so or when it cannot be
// reached, until the user has answered, the code has expired or ctx ends.
func (c *Client) poll(ctx context.Context, r request, g *Grant, interval time.Duration) (*Grant, error) {
	for {
		timer := time.NewTimer(interval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w: nobody answered: %w", ErrSignIn, context.Cause(ctx))
		}
		out, err := c.tokens(ctx, r, g)
		if err == nil {
			return out, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: nobody answered: %w", ErrSignIn, context.Cause(ctx))
		}
		e, refused := errors.AsType[*ServerError](err)
		switch {
		case refused && e.Code == oauth.AuthorizationPending:
		case refused && e.Code == oauth.SlowDown:
			interval += deviceSlower
		case refused && e.Code == oauth.ExpiredToken:
			return nil, fmt.Errorf("%w: the code was not used in time: %w", ErrSignIn, err)
		case passing(err): // RFC 8628 section 3.5
			interval = max(interval, min(2*interval, deviceSlow))
		default:
			return nil, err
		}
	}
}
