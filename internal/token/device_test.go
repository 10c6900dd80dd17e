package token

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// devices counts what reaches the store, and can break it.
type devices struct {
	*store.Store
	polls int
	err   error
}

func (d *devices) FindDevice(ctx context.Context, h store.Hash, now time.Time) (store.Device, error) {
	if d.err != nil {
		return store.Device{}, d.err
	}
	return d.Store.FindDevice(ctx, h, now)
}

func (d *devices) PollDevice(ctx context.Context, h store.Hash, now time.Time) (store.Device, error) {
	d.polls++
	return d.Store.PollDevice(ctx, h, now)
}

// withDevices opens the device flow to the clients of the house.
func withDevices(t testing.TB) (*house, *devices) {
	t.Helper()
	h := newHouse(t)
	d := &devices{Store: h.store}
	h.cfg.Devices = d
	for _, c := range h.people.clients {
		c.GrantTypes = append([]string{oauth.GrantDeviceCode}, c.GrantTypes...)
	}
	h.people.rules(t, policy.Rule{Client: public, Action: policy.Allow}, policy.Rule{Client: other, Action: policy.Allow})
	return h, d
}

// begun keeps a device that was started, and returns its code.
func (h *house) begun(t testing.TB, client string, change ...func(*store.Device)) (code string, user store.Hash) {
	t.Helper()
	now := h.clock.now()
	code, user = oauth.RandomToken(32), store.HashOf(oauth.RandomToken(8))
	d := store.Device{
		Hash: store.HashOf(code), UserCode: user, ClientID: client, Resource: mcp, Scopes: oauth.Scopes{"read", "write"},
		AuthMethods: h.people.clients[client].AuthMethods, Method: h.people.clients[client].AuthMethods[0],
		Created: now, Expires: now.Add(10 * time.Minute), NextPoll: now, Interval: 5 * time.Second,
	}
	for _, f := range change {
		f(&d)
	}
	if err := h.store.StartDevice(t.Context(), d, 100); err != nil {
		t.Fatal(err)
	}
	return code, user
}

// agreed is a yes to a device.
func (h *house) agreed(t testing.TB, client string, user store.Hash) {
	t.Helper()
	now := h.clock.now()
	a := store.Answer{
		Nonce: store.HashOf(oauth.RandomToken(16)), NonceExpires: now.Add(time.Minute), Session: h.session,
		Client: &store.Client{ID: client, Source: store.SourceCIMD, State: store.StateAllowed},
		Grant: store.Grant{ID: store.NewID(now), UserID: "user-1", ClientID: client, Resource: mcp, Scopes: oauth.Scopes{"read", "write"},
			AuthMethods: h.people.clients[client].AuthMethods, AuthTime: now, Kind: store.KindDevice},
	}
	if err := h.store.ApproveDevice(t.Context(), store.DeviceAnswer{UserCode: user, Answer: a}, now); err != nil {
		t.Fatal(err)
	}
}

func pollForm(client, code string) url.Values {
	return url.Values{"grant_type": {oauth.GrantDeviceCode}, "client_id": {client}, "device_code": {code}}
}

// is fails the test unless a response is this refusal.
func (r response) is(t *testing.T, status int, code oauth.Code, rule string) {
	t.Helper()
	if r.status != status || r.get("error") != string(code) || r.get("rule") != rule {
		t.Errorf("got %d %s, want %d %s [%s]", r.status, r.body, status, code, rule)
	}
}

func TestDevicePolls(t *testing.T) {
	h, d := withDevices(t)
	code, user := h.begun(t, public)
	poll := func(changes ...string) response {
		f := pollForm(public, code)
		for i := 0; i+1 < len(changes); i += 2 {
			f.Set(changes[i], changes[i+1])
		}
		return h.post("/token", f)
	}
	t.Run("DEV-04 nobody has answered", func(t *testing.T) { poll().is(t, 400, oauth.AuthorizationPending, "DEV-04") })
	t.Run("DEV-04, attack DV-02: a hundred polls in a second are told to slow down, and cost no write", func(t *testing.T) {
		before := d.polls
		for range 100 {
			h.clock.move(10 * time.Millisecond)
			poll().is(t, 400, oauth.SlowDown, "DEV-04")
		}
		if d.polls != before {
			t.Errorf("%d writes", d.polls-before)
		}
		h.clock.move(504 * time.Second) // five seconds, and five for each of the hundred
		poll().is(t, 400, oauth.SlowDown, "DEV-04")
	})
	t.Run("DEV-04 the store holds the pace where the memory does not know it", func(t *testing.T) {
		code, _ = h.begun(t, public)
		poll().is(t, 400, oauth.AuthorizationPending, "DEV-04")
		h.pacer = newPacer() // a restart, or another replica
		poll().is(t, 400, oauth.SlowDown, "DEV-04")
		h.clock.move(9 * time.Second)
		poll().is(t, 400, oauth.SlowDown, "DEV-04")
		h.clock.move(15 * time.Second)
		poll().is(t, 400, oauth.AuthorizationPending, "DEV-04")
	})
	t.Run("TOK-01 without a code", func(t *testing.T) { poll("device_code", "").is(t, 400, oauth.InvalidRequest, "TOK-01") })
	t.Run("DEV-06 a code that nobody was given", func(t *testing.T) {
		poll("device_code", oauth.RandomToken(32)).is(t, 400, oauth.InvalidGrant, "DEV-06")
	})
	t.Run("DEV-06, attack DV-09: a code of another client", func(t *testing.T) {
		poll("client_id", other).is(t, 400, oauth.InvalidGrant, "DEV-06")
	})
	t.Run("a store that fails is our failure", func(t *testing.T) {
		d.err = errors.New("the disk is on fire")
		poll().is(t, 500, oauth.ServerError, "")
		d.err = nil
	})
	t.Run("DEV-04 a yes", func(t *testing.T) {
		code, user = h.begun(t, public)
		h.agreed(t, public, user)
		if r := poll(); r.status != 200 || r.get("scope") != "read write" || r.get("refresh_token") == "" {
			t.Errorf("%d %s", r.status, r.body)
		}
		h.clock.move(5 * time.Second)
		poll().is(t, 400, oauth.InvalidGrant, "DEV-06")
	})
	t.Run("DEV-04 a no, and the end of a code", func(t *testing.T) {
		code, user = h.begun(t, public)
		now := h.clock.now()
		if err := h.store.DenyDevice(t.Context(), user, store.Denial{Nonce: store.HashOf("n"), NonceExpires: now.Add(time.Minute)}, now); err != nil {
			t.Fatal(err)
		}
		poll().is(t, 400, oauth.AccessDenied, "DEV-04")
		code, _ = h.begun(t, public)
		h.clock.move(10 * time.Minute)
		poll().is(t, 400, oauth.ExpiredToken, "DEV-04")
		poll("client_id", other).is(t, 400, oauth.InvalidGrant, "DEV-06")
	})
	t.Run("attack DV-10: the account was disabled between the yes and the poll", func(t *testing.T) {
		code, user = h.begun(t, public)
		h.agreed(t, public, user)
		if err := h.store.DisableUser(t.Context(), "user-1", h.clock.now()); err != nil {
			t.Fatal(err)
		}
		poll().is(t, 400, oauth.InvalidGrant, "DEV-04")
	})
}

func TestDeviceBelongsToItsClient(t *testing.T) {
	h, _ := withDevices(t)
	try := func(client string, change func(*store.Device)) response {
		code, user := h.begun(t, client, change)
		h.agreed(t, client, user)
		return h.post("/token", pollForm(client, code))
	}
	for _, c := range []struct {
		name  string
		spoil func(*store.Device)
		code  oauth.Code
		rule  string
	}{
		{"DEV-06 another way to authenticate", func(d *store.Device) { d.Method = oauth.MethodPrivateKeyJWT }, oauth.InvalidClient, "DOC-18"},
		{"DEV-06 no proof of the key that the code is bound to", func(d *store.Device) { d.JKT = "jkt" }, oauth.InvalidGrant, "DEV-06"},
		{"DEV-06 another instance of the client", func(d *store.Device) { d.InstanceJKT = "instance" }, oauth.InvalidGrant, "DEV-06"},
		{"DEV-06 without the certificate", func(d *store.Device) { d.CertThumbprint = "cert" }, oauth.InvalidGrant, "DEV-06"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status := 400
			if c.code == oauth.InvalidClient {
				status = 401
			}
			try(public, c.spoil).is(t, status, c.code, c.rule)
		})
	}
	t.Run("DEV-06, DPOP-07 one that began without a certificate may come with one, and with no other than it began with", func(t *testing.T) {
		is := &issue{client: &clientauth.Client{Client: &directory.Client{ID: "r", Source: directory.SourceRegistered}, Method: oauth.MethodNone, CertThumbprint: "cert"}}
		for began, want := range map[string]oauth.Code{"": "", "cert": "", "other": oauth.InvalidGrant} {
			err := is.ownDevice(&store.Device{ClientID: "r", Method: oauth.MethodNone, CertThumbprint: began})
			if want == "" && err != nil || want != "" && (err == nil || oauth.AsError(err).Code != want) {
				t.Errorf("began with %q: %v", began, err)
			}
		}
	})
	t.Run("DEV-09 a rule that closed the flow meanwhile", func(t *testing.T) {
		no := false
		h.people.rules(t, policy.Rule{Client: public, Action: policy.Allow, Device: &no})
		try(public, func(*store.Device) {}).is(t, 400, oauth.UnauthorizedClient, "DEV-09")
		h.people.rules(t)
		try(public, func(*store.Device) {}).is(t, 400, oauth.UnauthorizedClient, "DEV-09")
	})
	t.Run("POL-09 FAPI 2.0 has no device flow, also not for a device that began before", func(t *testing.T) {
		is := &issue{client: &clientauth.Client{Client: &directory.Client{ID: "r", Source: directory.SourceRegistered}, Method: oauth.MethodPrivateKeyJWT}}
		is.client.Decision.FAPI = true
		if err := is.ownDevice(&store.Device{ClientID: "r", Method: oauth.MethodPrivateKeyJWT}); oauth.AsError(err).Code != oauth.UnauthorizedClient {
			t.Error(err)
		}
	})
	t.Run("DEV-09 a client that an operator registered needs no rule", func(t *testing.T) {
		is := &issue{client: &clientauth.Client{Client: &directory.Client{ID: "r", Source: directory.SourceRegistered}, Method: oauth.MethodNone}}
		if err := is.ownDevice(&store.Device{ClientID: "r", Method: oauth.MethodNone}); err != nil {
			t.Error(err)
		}
	})
}

func TestPacer(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	p := newPacer()
	t.Run("DEV-04 five seconds more each time", func(t *testing.T) {
		d := &store.Device{Hash: store.HashOf("a"), Interval: 5 * time.Second, Expires: now.Add(time.Hour)}
		if _, early := p.early(d, now); early {
			t.Error("the first poll is early")
		}
		for i := range 3 {
			interval, early := p.early(d, now.Add(time.Millisecond))
			if want := time.Duration(10+5*i) * time.Second; !early || interval != want {
				t.Errorf("%v, %v; want %v", interval, early, want)
			}
		}
		if _, early := p.early(d, now.Add(20*time.Second)); early {
			t.Error("a poll on time is early")
		}
	})
	t.Run("its memory is bounded", func(t *testing.T) {
		for i := range maxPaced + 100 {
			p.early(&store.Device{Hash: store.Hash{byte(i), byte(i >> 8), byte(i >> 16)}, Interval: time.Second, Expires: now}, now)
		}
		if len(p.codes) > maxPaced {
			t.Errorf("%d codes", len(p.codes))
		}
	})
}
