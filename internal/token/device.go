package token

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Devices is what the endpoint may do with the codes of devices.
type Devices interface {
	FindDevice(ctx context.Context, h store.Hash, now time.Time) (store.Device, error)
	PollDevice(ctx context.Context, h store.Hash, now time.Time) (store.Device, error)
	RedeemDevice(ctx context.Context, r store.Redemption, now time.Time) (store.Grant, error)
}

const hintDevice = "the device code is not known, was used before or belongs to another client; start again at the device authorization endpoint"

// parseDevice reads the poll of a device (RFC 8628 section 3.4). A scope in it is
// ignored, as with a code.
func parseDevice(p web.Params, q *request) error {
	if q.deviceCode = p.Form["device_code"]; q.deviceCode == "" {
		return missing("device_code")
	}
	return nil
}

// polled is what the store says about a device code.
type polled struct {
	store.Device
	err error
}

// preferOfDevice looks the code up and says how its client is described. Once a
// person has said yes it is the client that they agreed to, as with an authorization
// code, whatever its document says now and whether or not its host answers (TOK-06).
// Until then nobody may have agreed to it yet; but that a device waits is no reason
// to read a document over and over (FETCH-21). Whose the code is, is looked at later.
func (h *Handler) preferOfDevice(ctx context.Context, q *request) clientauth.Preference {
	d, err := h.cfg.Devices.FindDevice(ctx, store.HashOf(q.deviceCode), h.cfg.Now())
	q.polled = &polled{d, err}
	if d.State == store.DeviceApproved || d.State == store.DeviceUsed {
		return clientauth.PreferKept
	}
	return clientauth.PreferCached
}

// findDevice answers a poll. Most of them end here: nobody has answered yet, or
// the device asks too often, and an impatient one is told so without a write
// (DEV-04). The code belongs to the client that asked for it, in the way in which
// it authenticated, and to the keys that it showed then (DEV-06).
func (h *Handler) findDevice(ctx context.Context, is *issue) error {
	if is.polled == nil {
		h.preferOfDevice(ctx, &is.request)
	}
	hash, d, err := store.HashOf(is.deviceCode), is.polled.Device, is.polled.err
	if err != nil && !errors.Is(err, store.ErrExpired) {
		return gone(err, "DEV-06", hintDevice)
	}
	if refusal := is.ownDevice(&d); refusal != nil {
		return refusal
	}
	if err == nil && d.State != store.DeviceDenied {
		if interval, early := h.pacer.early(&d, is.now); early && !planted.Weak("pace") {
			return slowDown(interval)
		}
		d, err = h.cfg.Devices.PollDevice(ctx, hash, is.now)
		if planted.Weak("pace") && errors.Is(err, store.ErrTooFast) {
			err = nil
		}
	}
	switch {
	case errors.Is(err, store.ErrExpired):
		return oauth.Refuse(oauth.ExpiredToken, "the device code has expired; start again at the device authorization endpoint").Under("DEV-04").Because(err)
	case errors.Is(err, store.ErrTooFast):
		h.pacer.learn(&d)
		return slowDown(d.Interval)
	case errors.Is(err, store.ErrBlocked):
		return oauth.Refuse(oauth.UnauthorizedClient, "the client is not allowed here any more").Under("POL-05").Because(err)
	case errors.Is(err, store.ErrEnded):
		return gone(err, "DEV-04", hintGone)
	case err != nil:
		return gone(err, "DEV-06", hintDevice)
	case d.State == store.DeviceDenied:
		return oauth.Refuse(oauth.AccessDenied, "the person said no").Under("DEV-04")
	case d.State == store.DevicePending:
		return oauth.Refuse(oauth.AuthorizationPending, "the person has not answered yet").Under("DEV-04")
	}
	is.grant, err = h.cfg.Grants.GrantActive(ctx, d.GrantID)
	return gone(err, "DEV-04", hintGone)
}

// ownDevice checks that a device code is this client's to use, now as when it was
// asked for.
func (is *issue) ownDevice(d *store.Device) error {
	c := is.client
	switch {
	case d.ClientID != c.ID && !planted.Weak("device"):
		return invalidGrant("DEV-06", hintDevice, "the device code belongs to another client")
	case d.Method != c.Method:
		return oauth.Refuse(oauth.InvalidClient, "the client authenticates in another way than when it asked for the device code").Under("DOC-18")
	case d.JKT != "" && d.JKT != is.jkt:
		return invalidGrant("DEV-06", hintKey, "no proof, or one with another key")
	case d.InstanceJKT != c.InstanceJKT:
		return invalidGrant("DEV-06", hintInstance, "another instance of the client")
	case d.CertThumbprint != "" && d.CertThumbprint != c.CertThumbprint:
		return invalidGrant("DEV-06", hintCertificate, "no certificate, or another one")
	case c.Decision.FAPI:
		return oauth.Refuse(oauth.UnauthorizedClient, "the client is held to FAPI 2.0, which has no device flow").Under("POL-09")
	case c.Decision.Device != nil && !*c.Decision.Device, c.Source != directory.SourceRegistered && !c.Decision.Explicit:
		return oauth.Refuse(oauth.UnauthorizedClient, "the device flow is not open to this client any more").Under("DEV-09")
	}
	return nil
}

// redeemDevice spends the code and writes the first refresh token in the same
// commit.
func (h *Handler) redeemDevice(ctx context.Context, is *issue) error {
	data := map[string]string{"jti": is.jti, "scope": is.answer.Scope, "method": is.client.Method, "grant": "device_code"}
	redemption := h.redemption(is, store.HashOf(is.deviceCode))
	if is.noRefresh != "" {
		data["no_refresh"] = is.noRefresh
	}
	e := is.event(ctx, audit.TypeToken, data)
	redemption.Events = []audit.Event{e}
	if _, err := h.cfg.Devices.RedeemDevice(ctx, redemption, is.now); err != nil {
		return gone(err, "DEV-06", hintDevice)
	}
	h.cfg.Audit.Observe(e)
	return nil
}

func slowDown(interval time.Duration) error {
	return oauth.Refuse(oauth.SlowDown, "the device asks too often; it may ask every %d seconds", int((interval+time.Second-1)/time.Second)).Under("DEV-04")
}

// pacer holds devices to their pace in memory, so that one that asks a hundred
// times a second costs a hundred reads and no write. What it forgets the store
// still knows. It is safe for concurrent use, and its memory is bounded.
type pacer struct {
	mu    sync.Mutex // guards codes
	codes map[store.Hash]pace
}

type pace struct {
	next     time.Time
	interval time.Duration
	until    time.Time // the code ends then
}

const maxPaced = 20_000 // twice as many as may wait at a time

func newPacer() *pacer { return &pacer{codes: map[store.Hash]pace{}} }

// early reports whether a poll comes before its time, and then makes the interval
// longer. Of several that come at once one is on time.
func (p *pacer) early(d *store.Device, now time.Time) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.codes[d.Hash]
	if !ok {
		p.room(now)
		c = pace{interval: d.Interval, until: d.Expires}
	}
	early := now.Before(c.next)
	if early {
		c.interval += store.SlowDown
	}
	c.next = now.Add(c.interval - store.PollSlack)
	p.codes[d.Hash] = c
	return c.interval, early
}

// learn takes over what the store knows better: another replica was asked too.
func (p *pacer) learn(d *store.Device) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codes[d.Hash] = pace{next: d.NextPoll, interval: d.Interval, until: d.Expires}
}

// room forgets codes that have ended, or any one if none has. The caller holds mu.
func (p *pacer) room(now time.Time) {
	if len(p.codes) < maxPaced {
		return
	}
	var victim store.Hash
	looked := 0
	for h, c := range p.codes {
		victim = h
		if !now.Before(c.until) {
			delete(p.codes, h)
		}
		if looked++; looked == 64 {
			break
		}
	}
	if len(p.codes) >= maxPaced {
		delete(p.codes, victim)
	}
}
