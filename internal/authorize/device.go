package authorize

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Devices is what the device flow may read and write.
type Devices interface {
	StartDevice(ctx context.Context, d store.Device, most int, events ...audit.Event) error
	GuessUserCode(ctx context.Context, g store.Guess, now time.Time) (store.Device, time.Duration, error)
	FindUserCode(ctx context.Context, h store.Hash, now time.Time) (store.Device, error)
	ApproveDevice(ctx context.Context, a store.DeviceAnswer, now time.Time) error
	DenyDevice(ctx context.Context, userCode store.Hash, d store.Denial, now time.Time) error
}

// DeviceFlow configures the device authorization grant (RFC 8628). Devices,
// CodeKey and Named are required.
type DeviceFlow struct {
	Devices Devices
	CodeKey [32]byte      // under which user codes are kept; the same on all replicas
	Life    time.Duration // of a code; 0 is ten minutes, at most half an hour
	Pace    time.Duration // between two polls; 0 is five seconds

	// Named reports whether a client is registered, or a rule of the policy names
	// it. Nothing is fetched for any other (DEV-09).
	Named func(ctx context.Context, clientID string) (bool, error)
}

// Limits of the device flow, each in a window of one code life. They keep what a
// guesser can expect below a thousandth of a hit (DV-03, R10): in any span as long
// as a code lives, two windows of wrong codes at most fall on as many codes as may
// wait at a time, which is 2 x 500 x 10,000 / 20^8 = 0.0004 hits. The store counts
// wrong codes and devices that wait, so that this holds for any number of replicas;
// clocks that are apart make it three windows and 0.0006. TestGuessing computes it.
const (
	maxDevices = 10_000 // that may wait at a time

	startsPerSource = 60
	startsPerClient = 2_000

	wrongPerAccount = 10
	wrongPerSource  = 40
	wrongInAll      = 500
)

const (
	pathDeviceStart   = "/device_authorization"
	pathDevice        = "/device"
	pathDeviceConfirm = "/device/confirm"
	pathDeviceDone    = "/device/done"
)

// deviceFlow is a DeviceFlow at work.
type deviceFlow struct {
	DeviceFlow
	starts, guesses *web.Throttle
}

// openDevices checks the configuration of the device flow, if there is one.
func (h *Handler) openDevices() error {
	if h.Device == nil {
		return nil
	}
	c := *h.Device
	if h.Clients == nil || c.Devices == nil || c.Named == nil || c.CodeKey == [32]byte{} {
		return errors.New("authorize: the device flow needs Clients, Devices, Named and CodeKey")
	}
	if c.Life == 0 {
		c.Life = 10 * time.Minute
	}
	if c.Pace == 0 {
		c.Pace = 5 * time.Second
	}
	if c.Life < time.Minute || c.Life > 30*time.Minute || c.Pace < time.Second || c.Pace > time.Minute {
		return errors.New("authorize: a device code lives one to thirty minutes, and a device asks every second to every minute")
	}
	h.device = &deviceFlow{c, web.NewThrottle(c.Life), web.NewThrottle(c.Life)}
	return nil
}

// deviceRoutes returns the endpoint that devices call, and the pages for the
// people who hold them.
func (h *Handler) deviceRoutes() []web.Route {
	if h.device == nil {
		return nil
	}
	return []web.Route{
		{Pattern: h.Edge.Path(pathDeviceStart), Handler: h.Edge.API(web.Only(h.startDevice, http.MethodPost))},
		{Pattern: h.Edge.Path(pathDevice), Handler: h.Edge.Page(h.enterCode)},
		{Pattern: h.Edge.Path(pathDeviceConfirm), Handler: h.Edge.Page(h.confirmDevice)},
		{Pattern: h.Edge.Path(pathDeviceDone), Handler: h.Edge.Page(web.Only(h.deviceDone, http.MethodGet))},
	}
}

// deviceStarted is the answer to a device (RFC 8628 section 3.2).
type deviceStarted struct {
	DeviceCode      string `json:"device_code"`
	UserCode        string `json:"user_code"`
	URI             string `json:"verification_uri"`
	URIComplete     string `json:"verification_uri_complete"`
	ExpiresIn       int64  `json:"expires_in"`
	IntervalSeconds int64  `json:"interval"`
}

// startDevice serves POST /device_authorization: the client is authenticated as
// at the token endpoint, except that it may be one nobody here has agreed to yet;
// then the column of the table that is about devices decides (DEV-01, DEV-07).
func (h *Handler) startDevice(w http.ResponseWriter, r *http.Request) error {
	now, flow := h.now(), h.device
	from := web.Network(web.ClientIP(r.Context()))
	if wait := flow.starts.Take(now, web.Limit{Key: "from " + from, Most: startsPerSource}); wait > 0 {
		return tooManyDevices("this network started too many devices", wait)
	}
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	client, err := h.deviceClient(w, r, p)
	if err != nil {
		return err
	}
	a, err := readDevice(client, p, &h.rules)
	if err != nil {
		return err
	}
	possession, err := h.Clients.Check(w, r, client)
	if err != nil {
		return err
	}
	if wait := flow.starts.Take(now, web.Limit{Key: "client " + client.ID, Most: startsPerClient}); wait > 0 {
		return tooManyDevices("this client started too many devices", wait)
	}
	d := store.Device{
		ClientID: client.ID, Resource: a.resource.ID, Scopes: a.scopes, Details: a.details.JSON, ACRValues: a.req.ACRValues, MaxAge: a.req.MaxAge,
		AuthMethods: client.AuthMethods, Method: client.Method, KeyThumbprint: client.KeyThumbprint,
		JKT: possession.JKT, InstanceJKT: client.InstanceJKT, CertThumbprint: client.CertThumbprint,
		SecurityDigest: client.SecurityDigest, Version: client.Version, IP: ipText(r.Context()),
		Created: now, Expires: now.Add(flow.Life), NextPoll: now, Interval: flow.Pace,
	}
	if err := possession.Spend(r.Context()); err != nil {
		return err
	}
	answer, err := h.keepDevice(r, d)
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, answer)
}

// deviceClient authenticates the client that a device runs. One that nobody here
// has agreed to is looked up only if an operator spoke for it: what anybody can
// ask for must not make us fetch what anybody wrote (DEV-09, FETCH-20).
func (h *Handler) deviceClient(w http.ResponseWriter, r *http.Request, p web.Params) (*clientauth.Client, error) {
	auth := clientauth.FromHTTP(r, p)
	auth.Resolve = true
	auth.Admit = func(ctx context.Context, clientID string) error {
		named, err := h.device.Named(ctx, clientID)
		if err == nil && !named {
			return notForDevices()
		}
		return err
	}
	ctx := cimd.WithSource(r.Context(), source(r.Context(), nil))
	c, err := h.Clients.Authenticate(ctx, auth)
	if err != nil && auth.Basic && oauth.AsError(err).Code == oauth.InvalidClient {
		w.Header().Set("WWW-Authenticate", `Basic realm="device authorization endpoint", charset="UTF-8"`)
	}
	return c, err
}

// readDevice reads the request of a client and runs the column of the table that
// is about devices. There is no browser that could hold a signed request back, so
// that none is taken here. Of what is asked about the sign-in acr_values and max_age
// are kept (AUTHZ-24); prompt is not, since whoever answers a device is always asked,
// by a page that names the account.
func readDevice(c *clientauth.Client, p web.Params, rules *rules) (*attempt, error) {
	for _, name := range []string{paramRequest, paramRequestURI} {
		if p.Form[name] != "" {
			return nil, oauth.Refuse(oauth.InvalidRequest, "%s has no place in the request of a device", name).Under("DEV-01")
		}
	}
	var q Request
	if err := q.fill(p); err != nil {
		return nil, err
	}
	if q.ClientID != "" && q.ClientID != c.ID {
		return nil, oauth.Refuse(oauth.InvalidRequest, "client_id is not that of the client that authenticated").Under("DEV-01")
	}
	q.ClientID = c.ID
	a := &attempt{req: &q, client: c.Client, policy: c.Policy, rules: rules, at: atDevice}
	return a, a.check()
}

// keepDevice gives a request its two codes and keeps their hashes. The code that
// people type may be taken by another device; then there is another.
func (h *Handler) keepDevice(r *http.Request, d store.Device) (*deviceStarted, error) {
	flow := h.device
	e := h.event(r, audit.Event{
		Type: audit.TypeDevice, Client: d.ClientID, Resource: d.Resource,
		Data: map[string]string{"scope": d.Scopes.String(), "method": d.Method},
	})
	const tries = 4 // of ten thousand codes among 20^8, two meet once in two million
	for range tries {
		deviceCode, userCode := oauth.RandomToken(32), newUserCode()
		d.Hash, d.UserCode = store.HashOf(deviceCode), userCodeHash(flow.CodeKey, userCode)
		err := flow.Devices.StartDevice(r.Context(), d, maxDevices, e)
		switch {
		case errors.Is(err, store.ErrConflict):
			continue
		case errors.Is(err, store.ErrBusy):
			return nil, web.Refuse(http.StatusServiceUnavailable,
				oauth.Refuse(oauth.TemporarilyUnavailable, "too many devices wait at this moment; try again in a minute").Under("DEV-03").Because(err))
		case err != nil:
			return nil, err
		}
		h.Audit.Observe(e)
		shown := showUserCode(userCode)
		return &deviceStarted{
			DeviceCode: deviceCode, UserCode: shown,
			URI: h.Edge.URL(pathDevice), URIComplete: h.Edge.URL(pathDevice) + "?user_code=" + shown,
			ExpiresIn: int64(flow.Life / time.Second), IntervalSeconds: int64(flow.Pace / time.Second),
		}, nil
	}
	return nil, errors.New("start device: every user code was taken")
}

func tooManyDevices(what string, wait time.Duration) error {
	refusal := web.Refuse(http.StatusTooManyRequests, oauth.Refuse(oauth.TemporarilyUnavailable, "%s; try again later", what).Under("POL-08"))
	refusal.RetryAfter = wait
	return refusal
}

func ipText(ctx context.Context) string {
	if ip := web.ClientIP(ctx); ip.IsValid() {
		return ip.String()
	}
	return ""
}

// checkDevice refuses the device flow to a client with a document that no rule
// of the policy names: the code proves nothing about who shows it, so that the
// name on the page is all that a person has to go by (DEV-09).
func checkDevice(a *attempt) *oauth.Error {
	d := a.client.Decision
	switch {
	case d.Device != nil && !*d.Device:
	case a.client.Source != directory.SourceRegistered && !d.Explicit:
	default:
		return nil
	}
	return notForDevices()
}

func notForDevices() *oauth.Error {
	return oauth.Refuse(oauth.UnauthorizedClient, "the device flow is not open to this client here; an administrator can open it with a rule that names the client").Under("DEV-09")
}

// examineDevice finds the client of a device and runs the table again, on what
// was narrowed when the device asked: client, document and policy are those of
// this moment (CACHE-21).
func (h *Handler) examineDevice(ctx context.Context, d *store.Device, user *login.User) (*attempt, error) {
	c, err := h.Directory.Find(cimd.WithSource(ctx, source(ctx, user)), d.ClientID, true)
	if err != nil {
		return nil, err
	}
	q := &Request{ClientID: d.ClientID, Scope: d.Scopes.String(), Resources: []string{d.Resource}, Details: d.Details, ACRValues: d.ACRValues, MaxAge: d.MaxAge}
	a := &attempt{req: q, client: c, policy: c.Policy, rules: &h.rules, at: atDevice, device: d}
	if err := a.check(); err != nil {
		return nil, deviceRefused(c.ID, oauth.AsError(err))
	}
	if !slices.Contains(c.AuthMethods, d.Method) {
		return nil, deviceRefused(c.ID, oauth.Refuse(oauth.UnauthorizedClient, "the client no longer authenticates as it did when the device asked").Under("DOC-18"))
	}
	a.scopes = a.scopes.And(d.Scopes) // what was added to the defaults meanwhile was not asked for
	return a, nil
}

// deviceRefused says on a page that a device cannot be connected.
func deviceRefused(clientID string, e *oauth.Error) error {
	return &web.Refusal{
		Err: e, Status: http.StatusBadRequest, ClientURL: clientID,
		Title: "This device cannot be connected", What: plainly(e.Code) + " Nothing was shared.",
		Turn: "The people who make the app", Next: "Start again on the device. If that does not help, give the reference below to your administrator.",
	}
}
