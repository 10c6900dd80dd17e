// Package backchannel tells clients that a person's session has ended (OpenID
// Connect Back-Channel Logout 1.0). Whoever ends a session hands its name over
// and goes on at once; the notices wait in a bounded queue, leave through the
// guard against addresses that are none of our business, are tried a few times
// and end in the audit log either way.
package backchannel

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/safehttp"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Grants is what this package may read: who has something from a session.
type Grants interface {
	SessionGrants(ctx context.Context, sid string) ([]store.Grant, error)
	Grants(ctx context.Context, userID, after string, limit int) ([]store.Grant, error)
}

// Clients is what this package asks about clients.
type Clients interface {
	Known(ctx context.Context, clientID string) (*directory.Client, error)
}

// Keys signs the logout tokens.
type Keys interface {
	MintLogout(t keyring.LogoutToken) (string, error)
}

// Poster sends a form under a guard, such as a *safehttp.Fetcher.
type Poster interface {
	Post(ctx context.Context, p safehttp.Form) (*safehttp.Response, error)
}

// Config configures a [Notifier]. Grants, Clients, Keys, Post and Audit are
// required.
type Config struct {
	Grants  Grants
	Clients Clients
	Keys    Keys
	Post    Poster
	Audit   *audit.Log
	Logger  *slog.Logger     // nil is slog.Default
	Now     func() time.Time // nil is time.Now

	Queue    int             // notices that may wait, those between two attempts included; 0 is 1000
	InFlight int             // notices on their way at one time, a quarter of them to one host; 0 is 8
	Waits    []time.Duration // before the second attempt, the third and so on; nil is 2 s, 15 s, 60 s
	Timeout  time.Duration   // for one attempt; 0 is 5 s
	Life     time.Duration   // of a logout token; 0, and more, is 2 min, the most that the specification recommends
}

const tokenLife = 2 * time.Minute

// Notice is one thing to tell: this session of this person has ended.
type Notice struct{ ClientID, Subject, SID, Ref string }

// Notifier sends notices. It is safe for concurrent use.
type Notifier struct {
	cfg      Config
	ctx      context.Context // of everything under way
	cancel   context.CancelFunc
	inFlight chan struct{}
	closing  chan struct{} // closed by Close: nothing waits any longer

	mu      sync.Mutex // guards what follows
	closed  bool
	pending int
	idle    chan struct{} // closed when closed and nothing is pending
	hosts   map[string]*lane
}

// lane bounds what is on its way to one host.
type lane struct {
	slots chan struct{}
	users int
}

// New checks the configuration.
func New(c Config) (*Notifier, error) {
	if c.Grants == nil || c.Clients == nil || c.Keys == nil || c.Post == nil || c.Audit == nil {
		return nil, errors.New("backchannel: Grants, Clients, Keys, Post and Audit are required")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Queue <= 0 {
		c.Queue = 1000
	}
	if c.InFlight <= 0 {
		c.InFlight = 8
	}
	if c.Waits == nil {
		c.Waits = []time.Duration{2 * time.Second, 15 * time.Second, time.Minute}
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Life <= 0 || c.Life > tokenLife {
		c.Life = tokenLife
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Notifier{
		cfg: c, ctx: ctx, cancel: cancel, inFlight: make(chan struct{}, c.InFlight),
		closing: make(chan struct{}), idle: make(chan struct{}), hosts: map[string]*lane{},
	}, nil
}

// SessionEnded queues a notice for every client that holds a live grant of the
// session and wants to know. It reads the store and does not wait for anybody
// else; what cannot be read is logged, for the session has ended all the same.
func (n *Notifier) SessionEnded(ctx context.Context, sid string) {
	grants, err := n.cfg.Grants.SessionGrants(ctx, sid)
	if err != nil {
		n.cfg.Logger.Error("clients are not told of the end of a session", "ref", web.Ref(ctx), "error", err)
		return
	}
	n.Send(notices(ctx, grants))
}

// Ended queues a notice for every client that wants to know, about grants of
// sessions that have ended.
func (n *Notifier) Ended(ctx context.Context, grants []store.Grant) { n.Send(notices(ctx, grants)) }

// Of returns the notices about every session of a person from which a client
// still has something. It is for whoever ends the grants together with the
// sessions: to be asked before, and to be sent after.
func (n *Notifier) Of(ctx context.Context, userID string) ([]Notice, error) {
	const page = 500
	var out []Notice
	for after := ""; ; {
		grants, err := n.cfg.Grants.Grants(ctx, userID, after, page)
		if err != nil {
			return nil, err
		}
		out = append(out, notices(ctx, grants)...)
		if len(grants) < page {
			return out, nil
		}
		after = grants[len(grants)-1].ID
	}
}

func notices(ctx context.Context, grants []store.Grant) []Notice {
	var out []Notice
	for _, g := range grants {
		if g.SID != "" && g.UserID != "" {
			out = append(out, Notice{g.ClientID, g.UserID, g.SID, web.Ref(ctx)})
		}
	}
	return out
}

// Send queues notices, each once. What does not fit into the queue is dropped,
// and the audit log says so.
func (n *Notifier) Send(list []Notice) {
	seen := map[Notice]bool{}
	for _, x := range list {
		if seen[x] {
			continue
		}
		seen[x] = true
		n.mu.Lock()
		full := n.closed || n.pending >= n.cfg.Queue
		if !full {
			n.pending++
		}
		n.mu.Unlock()
		if full {
			n.note(x, "dropped", nil)
			continue
		}
		go n.deliver(x)
	}
}

// Close lets what waits be tried once more, at once, and returns when all of it
// is done or ctx has ended; what is still on its way then is given up.
func (n *Notifier) Close(ctx context.Context) {
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.closing)
		if n.pending == 0 {
			close(n.idle)
		}
	}
	n.mu.Unlock()
	select {
	case <-n.idle:
	case <-ctx.Done():
	}
	n.cancel()
	<-n.idle
}

func (n *Notifier) done() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending--
	if n.closed && n.pending == 0 {
		close(n.idle)
	}
}

// deliver tries a notice until it has arrived, is refused for good, or was tried
// often enough. A client that could not be looked up is an attempt too: the store
// may be back by the next.
func (n *Notifier) deliver(x Notice) {
	defer n.done()
	for uri, tried := "", 1; ; tried++ {
		var out outcome
		if uri == "" {
			uri, out = n.find(x)
		}
		if uri != "" {
			out = n.once(x, uri)
		}
		if out.data == nil {
			return // the client does not want to know
		}
		out.data["tries"] = itoa(tried)
		last := n.isClosing()
		switch {
		case out.ok:
			n.note(x, "sent", out.data)
			return
		case out.final || last || tried > len(n.cfg.Waits):
			n.note(x, "failed", out.data)
			return
		}
		timer := time.NewTimer(n.cfg.Waits[tried-1])
		select {
		case <-timer.C:
		case <-n.closing:
			timer.Stop()
		}
	}
}

// find returns where a client wants to be told. Without an address the outcome
// says why there is none; it has no data where the client wants no notices.
func (n *Notifier) find(x Notice) (uri string, out outcome) {
	c, err := n.cfg.Clients.Known(n.ctx, x.ClientID)
	if err == nil {
		if c.State == directory.StateAllowed {
			uri = c.BackchannelLogoutURI
		}
		return uri, outcome{}
	}
	why := "the client is not known any more"
	switch oauth.AsError(err).Code {
	case oauth.ServerError, oauth.TemporarilyUnavailable:
		n.cfg.Logger.Error("look up a client that is to be told of the end of a session", "client", x.ClientID, "ref", x.Ref, "error", err)
		why, out.final = "the client could not be looked up", n.ctx.Err() != nil
	default:
		out.final = true
	}
	out.data = map[string]string{"error": why}
	return "", out
}

func (n *Notifier) isClosing() bool {
	select {
	case <-n.closing:
		return true
	default:
		return false
	}
}

// outcome is what came of one attempt.
type outcome struct {
	ok, final bool
	data      map[string]string
}

// once makes one attempt, with a token of its own: the one before may have
// expired, and a client refuses a jti that it has seen (OIDC-09).
func (n *Notifier) once(x Notice, uri string) outcome {
	out := outcome{data: map[string]string{"url": uri}}
	leave, err := n.enter(uri)
	if err != nil {
		out.final, out.data["error"] = true, "given up at the end"
		return out
	}
	defer leave()
	now := n.cfg.Now()
	token, err := n.cfg.Keys.MintLogout(keyring.LogoutToken{
		Subject: x.Subject, ClientID: x.ClientID, SID: x.SID, JTI: oauth.RandomToken(16), Issued: now, Expires: now.Add(n.cfg.Life),
	})
	if err != nil {
		n.cfg.Logger.Error("mint a logout token", "client", x.ClientID, "error", err)
		out.final, out.data["error"] = true, "the token could not be signed"
		return out
	}
	resp, err := n.cfg.Post.Post(n.ctx, safehttp.Form{
		URL: uri, Values: url.Values{"logout_token": {token}}, Timeout: n.cfg.Timeout, StatusOnly: true,
	})
	if err != nil {
		kind := safehttp.Kind("")
		if e, ok := errors.AsType[*safehttp.Error](err); ok {
			kind = e.Kind
		}
		out.final = kind == safehttp.KindURL || kind == safehttp.KindAddress || n.ctx.Err() != nil
		out.data["error"] = string(kind)
		return out
	}
	out.data["status"] = itoa(resp.Status)
	switch s := resp.Status; {
	case s == http.StatusOK || s == http.StatusNoContent:
		out.ok = true
	case s < 500 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests: // a redirect is not followed either
		out.final = true
	}
	return out
}
