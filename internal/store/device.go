package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/oauth"
)

// The states of a device's request.
const (
	DevicePending  = "pending"  // nobody has answered yet
	DeviceApproved = "approved" // a person said yes
	DeviceDenied   = "denied"   // a person said no
	DeviceUsed     = "used"     // its code was redeemed
)

const (
	// SlowDown is what each poll before its time adds to the interval (RFC 8628
	// section 3.5).
	SlowDown = 5 * time.Second
	// PollSlack is how much earlier than the interval a poll may come: a client that
	// keeps to its interval is not told to slow down for a quicker network.
	PollSlack = 500 * time.Millisecond
)

// Device is the request of a device that shows a code for a person to type
// elsewhere (RFC 8628). Hash is that of its device_code.
type Device struct {
	Hash, UserCode             Hash
	ClientID, Resource         string
	Scopes                     oauth.Scopes
	Details                    string   // authorization_details, a JSON array; "" for none
	ACRValues, MaxAge          string   // acr_values and max_age, for the sign-in of who answers; "" for any
	AuthMethods                []string // allowed by the document
	Method, KeyThumbprint      string   // how the client authenticated
	JKT                        string   // of the DPoP key of the request; "" for none
	InstanceJKT                string
	CertThumbprint             string
	SecurityDigest             string
	Version                    int
	IP                         string // from where it was asked; "" after the answer, as Details is
	Created, Expires, NextPoll time.Time
	Interval                   time.Duration
	State                      string // pending, approved, denied or used
	GrantID                    string // "" before a yes
}

// DeviceAnswer is a person's yes to a device. The Code of the Answer and what it
// says about a pushed request are not used.
type DeviceAnswer struct {
	UserCode Hash
	Answer   Answer
}

const deviceColumns = `hash, user_code, client_id, resource, scopes, details, auth_methods, auth_method, key_thumbprint, jkt, instance_jkt,
	cert_thumbprint, security_digest, version, ip, created_at, expires_at, next_poll_at, poll_interval, state, grant_id, acr_values, max_age`

func (d *Device) columns() []any {
	return []any{&d.Hash, &d.UserCode, &d.ClientID, &d.Resource, scopesAt(&d.Scopes), &d.Details, words{&d.AuthMethods}, &d.Method, &d.KeyThumbprint, &d.JKT, &d.InstanceJKT,
		&d.CertThumbprint, &d.SecurityDigest, &d.Version, &d.IP, instant{&d.Created}, instant{&d.Expires}, instant{&d.NextPoll}, span{&d.Interval}, &d.State, &d.GrantID, &d.ACRValues, &d.MaxAge}
}

// span reads a duration that is kept in microseconds.
type span struct{ d *time.Duration }

// Scan implements sql.Scanner.
func (s span) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("a duration is kept as an integer, not as %T", v)
	}
	*s.d = time.Duration(n) * time.Microsecond
	return nil
}

// StartDevice keeps the request of a device. ErrConflict: the user code, or the
// device code, is taken; make another. ErrBusy: most requests wait already.
func (s *Store) StartDevice(ctx context.Context, d Device, most int, events ...audit.Event) error {
	if d.ClientID == "" || !d.Created.Before(d.Expires) || d.Interval <= 0 {
		return errors.New("start device: a client, an expiry and an interval are required")
	}
	lists, err := join(d.Scopes, d.AuthMethods)
	if err != nil {
		return wrap("start device", err)
	}
	if err := s.room(ctx, liveDevices, most, d.Created); err != nil {
		return wrap("start device", err)
	}
	return wrap("start device", s.write(ctx, func(t *tx) error {
		if err := t.room(liveDevices, most, d.Created); err != nil {
			return err
		}
		n, err := t.exec(`INSERT INTO device_codes (`+deviceColumns+`, too_fast)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 'pending', '', $20, $21, 0) ON CONFLICT DO NOTHING`,
			d.Hash, d.UserCode, d.ClientID, d.Resource, lists[0], d.Details, lists[1], d.Method, d.KeyThumbprint, d.JKT, d.InstanceJKT,
			d.CertThumbprint, d.SecurityDigest, d.Version, d.IP, micros(d.Created), micros(d.Expires), micros(d.NextPoll), d.Interval.Microseconds(), d.ACRValues, d.MaxAge)
		if err == nil && n == 0 {
			err = ErrConflict
		}
		if err != nil {
			return err
		}
		return t.record(d.Created, events...)
	}))
}

// liveDevices counts the requests that can still lead to a grant, up to a bound.
const liveDevices = `SELECT COUNT(*) FROM (SELECT 1 AS one FROM device_codes
	WHERE expires_at > $1 AND state IN ('pending', 'approved') LIMIT $2) AS live`

// FindUserCode returns the request behind the code that a person typed. With
// ErrSpent (it was answered) and ErrExpired it is returned too.
func (s *Store) FindUserCode(ctx context.Context, h Hash, now time.Time) (Device, error) {
	var d Device
	err := s.get(ctx, d.columns(), `SELECT `+deviceColumns+` FROM device_codes WHERE user_code = $1`, h)
	switch {
	case err != nil:
		return Device{}, wrap("find user code", err)
	case d.State != DevicePending:
		return d, wrap("find user code", ErrSpent)
	}
	return d, wrap("find user code", d.over(now))
}

// FindDevice returns the request behind a device code. With ErrSpent (it was
// redeemed) and ErrExpired it is returned too.
func (s *Store) FindDevice(ctx context.Context, h Hash, now time.Time) (Device, error) {
	var d Device
	if err := s.get(ctx, d.columns(), `SELECT `+deviceColumns+` FROM device_codes WHERE hash = $1`, h); err != nil {
		return Device{}, wrap("find device", err)
	}
	return d, wrap("find device", d.over(now))
}

// over tells whether a request leads nowhere any more, but for a no, which its
// State says.
func (d *Device) over(now time.Time) error {
	switch {
	case d.State == DeviceUsed:
		return ErrSpent
	case d.State == DeviceDenied:
		return nil
	case !now.Before(d.Expires):
		return ErrExpired
	}
	return nil
}

// poll books a poll: one before its time makes the interval longer, in the same
// statement. A time that is further away than the interval was set by a replica
// with a clock ahead of ours, and nobody is told to slow down for that.
const poll = `UPDATE device_codes SET
	too_fast = CASE WHEN ` + early + ` THEN 1 ELSE 0 END,
	next_poll_at = CASE WHEN ` + early + ` THEN $2 + poll_interval + $3 - $4 ELSE $2 + poll_interval - $4 END,
	poll_interval = CASE WHEN ` + early + ` THEN poll_interval + $3 ELSE poll_interval END
	WHERE hash = $1 AND state IN ('pending', 'approved') AND expires_at > $2 RETURNING too_fast, ` + deviceColumns

const early = `next_poll_at > $2 AND next_poll_at <= $2 + poll_interval`

// PollDevice books a poll of a device and returns what became of its request:
// State is pending, approved or denied. ErrTooFast: the poll came before its time,
// and the interval is longer from now on by SlowDown; the next poll is judged by
// it. ErrSpent: the code was redeemed. ErrExpired: it is too old. ErrEnded: a
// person said yes, but the grant has ended or its user is disabled since.
// ErrBlocked: the client is not allowed. With all but ErrNotFound the request is
// returned too. The caller compares the client before it polls.
func (s *Store) PollDevice(ctx context.Context, h Hash, now time.Time) (Device, error) {
	var d Device
	var fact error // a poll that came too fast is booked none the less
	err := s.write(ctx, func(t *tx) error {
		var tooFast bool
		d, fact = Device{}, nil
		err := t.get(append([]any{&tooFast}, d.columns()...), poll, h, micros(now), SlowDown.Microseconds(), PollSlack.Microseconds())
		if errors.Is(err, ErrNotFound) {
			if err := t.get(d.columns(), `SELECT `+deviceColumns+` FROM device_codes WHERE hash = $1`, h); err != nil {
				return err
			}
			fact = d.over(now)
			return nil
		}
		if err != nil {
			return err
		}
		if tooFast {
			fact = ErrTooFast
			return nil
		}
		fact, err = t.deviceStands(d)
		return err
	})
	if err != nil {
		return Device{}, wrap("poll device", err)
	}
	return d, wrap("poll device", fact)
}

// deviceStands tells whether what a device waits for can still be given.
func (t *tx) deviceStands(d Device) (fact, err error) {
	if d.State == DeviceApproved {
		var g grantRow
		err := t.get(g.columns(), `SELECT `+grantColumns+` FROM grants g WHERE g.id = $1`, d.GrantID)
		return g.err(), err
	}
	var state string
	err = t.get([]any{&state}, `SELECT state FROM clients WHERE client_id = $1`, d.ClientID)
	switch {
	case errors.Is(err, ErrNotFound): // nobody has agreed to it yet
		return nil, nil
	case err == nil && state != StateAllowed:
		return ErrBlocked, nil
	}
	return nil, err
}

// ApproveDevice carries out a person's yes to a device, once: the page is spent,
// the client's row and document are kept, the consent is remembered if asked for,
// the grant is written and the events recorded, all in one commit or not at all.
//
// ErrSpent: the page or the request was answered before. ErrExpired: one of them
// is too old. ErrNotFound: there is no such request of this client, or as for
// AnswerConsent, as are ErrEnded, ErrBlocked and ErrConflict.
func (s *Store) ApproveDevice(ctx context.Context, a DeviceAnswer, now time.Time) error {
	if err := a.Answer.check(); err != nil {
		return wrap("approve device", err)
	}
	g := a.Answer.Grant
	g.Kind = KindDevice
	return wrap("approve device", s.write(ctx, func(t *tx) error {
		if err := t.spendNonce(a.Answer.Nonce, a.Answer.NonceExpires, now); err != nil {
			return err
		}
		var expires time.Time
		err := t.get([]any{instant{&expires}}, `UPDATE device_codes SET state = 'approved', grant_id = $3, details = '', ip = ''
			WHERE user_code = $1 AND client_id = $2 AND state = 'pending' AND expires_at > $4 RETURNING expires_at`,
			a.UserCode, g.ClientID, g.ID, micros(now))
		if errors.Is(err, ErrNotFound) {
			return t.whyNotUserCode(a.UserCode, now)
		}
		if err != nil {
			return err
		}
		if err := t.agree(a.Answer, g, expires, now); err != nil {
			return err
		}
		return t.record(now, a.Answer.Events...)
	}))
}

// DenyDevice carries out a person's no to a device, once: the page and the
// request are spent and the events recorded. ErrSpent and ErrExpired as for
// ApproveDevice, ErrNotFound: there is no such request.
func (s *Store) DenyDevice(ctx context.Context, userCode Hash, d Denial, now time.Time) error {
	return wrap("deny device", s.write(ctx, func(t *tx) error {
		if err := t.spendNonce(d.Nonce, d.NonceExpires, now); err != nil {
			return err
		}
		var one int
		err := t.get([]any{&one}, `UPDATE device_codes SET state = 'denied', details = '', ip = '' WHERE user_code = $1 AND state = 'pending' AND expires_at > $2 RETURNING 1`,
			userCode, micros(now))
		if errors.Is(err, ErrNotFound) {
			return t.whyNotUserCode(userCode, now)
		}
		if err != nil {
			return err
		}
		return t.record(now, d.Events...)
	}))
}

// whyNotUserCode tells why a request could not be answered.
func (t *tx) whyNotUserCode(h Hash, now time.Time) error {
	var d Device
	if err := t.get(d.columns(), `SELECT `+deviceColumns+` FROM device_codes WHERE user_code = $1`, h); err != nil {
		return err
	}
	switch {
	case d.State != DevicePending:
		return ErrSpent
	case !now.Before(d.Expires):
		return ErrExpired
	}
	return ErrNotFound // it is another client's
}

// RedeemDevice spends the code of a device to which a person said yes, ties its
// grant to the way the client authenticated and to its keys, writes the first
// refresh token and records the events, in one commit. It succeeds at most once
// for each code: a second call returns ErrSpent. ErrExpired: the code is too old.
// ErrConflict: nobody has said yes. ErrEnded: the grant has ended or its user is
// disabled. ErrBlocked: the client is not allowed. Whenever it fails, the code is
// as it was.
func (s *Store) RedeemDevice(ctx context.Context, r Redemption, now time.Time) (Grant, error) {
	events, err := entries(now, r.Events...)
	if err != nil {
		return Grant{}, wrap("redeem device", err)
	}
	var g grantRow
	err = s.write(ctx, func(t *tx) error {
		var grantID string
		err := t.get([]any{&grantID}, `UPDATE device_codes SET state = 'used' WHERE hash = $1 AND state = 'approved' AND expires_at > $2 RETURNING grant_id`,
			r.Hash, micros(now))
		if errors.Is(err, ErrNotFound) {
			return t.whyNotDevice(r.Hash, now)
		}
		if err != nil {
			return err
		}
		if err := t.bind(grantID, r, now); err != nil {
			return err
		}
		if err := t.get(g.columns(), `SELECT `+grantColumns+` FROM grants g WHERE g.id = $1`, grantID); err != nil {
			return err
		}
		return t.keep(events)
	})
	if err != nil {
		return Grant{}, wrap("redeem device", err)
	}
	return g.Grant, nil
}

// whyNotDevice tells why the code of a device could not be redeemed.
func (t *tx) whyNotDevice(h Hash, now time.Time) error {
	var d Device
	if err := t.get(d.columns(), `SELECT `+deviceColumns+` FROM device_codes WHERE hash = $1`, h); err != nil {
		return err
	}
	if err := d.over(now); err != nil {
		return err
	}
	return ErrConflict
}
