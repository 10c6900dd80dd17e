package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// Pushed are requests that wait for a person.
type Pushed interface {
	PushRequest(ctx context.Context, p store.Pushed, most int, events ...audit.Event) error
	FindPushed(context.Context, store.Hash, time.Time) (store.Pushed, error)
	DenyPushed(ctx context.Context, pushed store.Hash, d store.Denial, now time.Time) error
}

// Devices are devices that wait for a person.
type Devices interface {
	StartDevice(ctx context.Context, d store.Device, most int, events ...audit.Event) error
	GuessUserCode(ctx context.Context, g store.Guess, now time.Time) (store.Device, time.Duration, error)
	FindUserCode(context.Context, store.Hash, time.Time) (store.Device, error)
	FindDevice(context.Context, store.Hash, time.Time) (store.Device, error)
	PollDevice(context.Context, store.Hash, time.Time) (store.Device, error)
	ApproveDevice(context.Context, store.DeviceAnswer, time.Time) error
	DenyDevice(ctx context.Context, userCode store.Hash, d store.Denial, now time.Time) error
	RedeemDevice(context.Context, store.Redemption, time.Time) (store.Grant, error)
}

// Openings are grants without a page, and the grants of a session.
type Openings interface {
	OpenGrant(context.Context, store.Opening, time.Time) (store.Grant, error)
	SessionGrants(ctx context.Context, sid string) ([]store.Grant, error)
	EndSessionsOf(ctx context.Context, userID string, now time.Time, events ...audit.Event) ([]string, error)
}

// Identities are who people are elsewhere.
type Identities interface {
	UserByIdentity(ctx context.Context, issuer, tenant, subject string) (store.User, error)
	UserByEmail(ctx context.Context, email string) (store.User, error)
	LinkIdentity(ctx context.Context, id store.Identity, create *store.User, events ...audit.Event) error
}

// Dynamic are clients that register themselves.
type Dynamic interface {
	RegisterDynamic(ctx context.Context, c store.Client, most int, now time.Time, events ...audit.Event) error
	UpdateDynamic(ctx context.Context, c store.Client, oldRegistration string, now time.Time, events ...audit.Event) error
	RemoveDynamic(ctx context.Context, id, registration string, now time.Time, events ...audit.Event) error
}

// plenty is a bound that nothing here reaches.
const plenty = 100_000

// push leaves a request of the allowed client.
func (h *House) push(ctx context.Context) (store.Pushed, error) {
	h.n++
	p := store.Pushed{Hash: store.HashOf(fmt.Sprint("pushed ", h.n)), ClientID: ClientID, Request: []byte("sealed"), Created: Noon, Expires: Noon.Add(time.Minute)}
	return p, h.PushRequest(ctx, p, plenty)
}

// device is a good request of the allowed client.
func (h *House) device() store.Device {
	h.n++
	return store.Device{Hash: store.HashOf(fmt.Sprint("device ", h.n)), UserCode: store.HashOf(fmt.Sprint("user code ", h.n)),
		ClientID: ClientID, Resource: Resource, Scopes: scopes("read", "write"), Details: `[{"type":"t"}]`, ACRValues: "a b", MaxAge: "60", AuthMethods: []string{"none"},
		Method: "none", KeyThumbprint: "thumbprint", JKT: "jkt", InstanceJKT: "instance", CertThumbprint: "x5t", SecurityDigest: "digest", Version: 3, IP: "192.0.2.1",
		Created: Noon, Expires: Noon.Add(10 * time.Minute), NextPoll: Noon, Interval: 5 * time.Second}
}

// start leaves the request of a device.
func (h *House) start(ctx context.Context) (store.Device, error) {
	d := h.device()
	return d, h.StartDevice(ctx, d, plenty)
}

// yes is a good answer to a device, with a page and a grant of its own.
func (h *House) yes(d store.Device) store.DeviceAnswer {
	a := h.answer()
	a.Code = store.Code{}
	return store.DeviceAnswer{UserCode: d.UserCode, Answer: a}
}

// no is a good denial with a page of its own.
func (h *House) no() store.Denial {
	h.n++
	return store.Denial{Nonce: store.HashOf(fmt.Sprint("no ", h.n)), NonceExpires: Noon.Add(10 * time.Minute)}
}

// approved leaves a device to which a person said yes.
func (h *House) approved(ctx context.Context) (store.Device, store.DeviceAnswer, error) {
	d, err := h.start(ctx)
	a := h.yes(d)
	return d, a, errors.Join(err, h.shown(ctx, &a.Answer), h.ApproveDevice(ctx, a, Noon))
}

// ofDevice redeems the code of a device for a refresh token named after its answer.
func ofDevice(d store.Device, a store.DeviceAnswer) store.Redemption {
	r := redemption(a.Answer)
	r.Hash, r.JKT, r.InstanceJKT, r.CertThumbprint = d.Hash, "jkt", "instance", "x5t"
	return r
}

// opening is a grant that the allowed client gets with an assertion for a person.
func (h *House) opening() store.Opening {
	h.n++
	return store.Opening{
		Grant: store.Grant{ID: store.NewID(Noon) + fmt.Sprint(h.n), UserID: User, ClientID: ClientID, Resource: Resource, Scopes: scopes("read"),
			SecurityDigest: "digest", AuthMethods: []string{"private_key_jwt"}, AuthMethod: "private_key_jwt", KeyThumbprint: "thumbprint",
			Kind: store.KindJWT, JKT: "jkt", InstanceJKT: "instance", CertThumbprint: "x5t", Details: "[]", Actor: `{"sub":"agent"}`, AuthTime: Noon},
		Spend: []store.SpentID{{Issuer: "https://idp.example", ID: store.HashOf(fmt.Sprint("jti ", h.n)), Expires: Noon.Add(5 * time.Minute)}},
	}
}

// dynamic is a good client that registers itself.
func (h *House) dynamic() store.Client {
	h.n++
	return store.Client{ID: fmt.Sprint("dyn-", h.n), Name: "Dynamic", SecretHash: "secret", RedirectURIs: []string{"https://dyn.example/cb"},
		GrantTypes: []string{"authorization_code"}, AuthMethods: []string{"none"}, Scope: "read", HasScope: true, Expires: Noon.Add(24 * time.Hour),
		RegistrationHash: "registration 1", Metadata: []byte(`{"client_name":"Dynamic"}`), JWKS: []byte(`{"keys":[]}`), JWKSURI: "https://dyn.example/jwks",
		PostLogoutRedirectURIs: []string{"https://dyn.example/bye"}, BackchannelLogoutURI: "https://dyn.example/logout"}
}

// eventTypes are the types of the events behind a sequence number.
func (h *House) eventTypes(ctx context.Context, after int64) ([]audit.Type, error) {
	events, err := h.Events(ctx, store.EventQuery{After: after, Limit: 1000})
	var types []audit.Type
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types, err
}

// lastEvent is the newest sequence number.
func (h *House) lastEvent(ctx context.Context) (int64, error) {
	events, err := h.Events(ctx, store.EventQuery{Limit: 1000})
	if err != nil || len(events) == 0 {
		return 0, err
	}
	return events[len(events)-1].Seq, nil
}

// sorted is a list of scopes in order, for comparison.
func sorted(s oauth.Scopes) []string { return slices.Sorted(slices.Values(s)) }
