package authorize

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/google/go-cmp/cmp"
)

// ledger is a store that remembers what the device flow writes.
type ledger struct {
	*store.Store
	started  store.Device
	most     int
	approved store.DeviceAnswer
	denied   store.Denial
	deniedAs store.Hash
	events   []audit.Event
	taken    int // so many user codes are taken
}

func (l *ledger) StartDevice(ctx context.Context, d store.Device, most int, events ...audit.Event) error {
	if l.taken--; l.taken >= 0 {
		return store.ErrConflict
	}
	l.started, l.most, l.events = d, most, events
	return l.Store.StartDevice(ctx, d, most, events...)
}

func (l *ledger) ApproveDevice(ctx context.Context, a store.DeviceAnswer, now time.Time) error {
	l.approved, l.events = a, a.Answer.Events
	return l.Store.ApproveDevice(ctx, a, now)
}

func (l *ledger) DenyDevice(ctx context.Context, userCode store.Hash, d store.Denial, now time.Time) error {
	l.deniedAs, l.denied, l.events = userCode, d, d.Events
	return l.Store.DenyDevice(ctx, userCode, d, now)
}

// vouching is a desk whose clients show everything that a client can show.
type vouching struct{ *desk }

func (v vouching) Authenticate(ctx context.Context, q clientauth.Request) (*clientauth.Client, error) {
	c, err := v.desk.Authenticate(ctx, q)
	if c != nil {
		c.KeyThumbprint, c.InstanceJKT, c.CertThumbprint = "thumb", "instance", "cert"
		c.Version = 7
	}
	return c, err
}

// openLedger is openDevices with a ledger.
func openLedger(t testing.TB, change ...func(*Config)) (*place, *ledger) {
	t.Helper()
	p := openDevices(t, change...)
	l := &ledger{Store: p.store}
	p.h.device.Devices = l
	return p, l
}

// heard returns the last event that was passed on, without what differs each time.
func (e *events) heard(t *testing.T) audit.Event {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.all) == 0 {
		t.Fatal("nothing was heard")
	}
	out := e.all[len(e.all)-1]
	if out.Ref == "" {
		t.Error("an event without a reference")
	}
	out.Seq, out.Ref = 0, ""
	return out
}

// wrote fails the test unless the store was handed the event that was passed on.
func (l *ledger) wrote(t *testing.T, heard audit.Event) {
	t.Helper()
	if len(l.events) != 1 {
		t.Fatalf("%d events", len(l.events))
	}
	e := l.events[0]
	e.Seq, e.Ref = 0, ""
	if diff := cmp.Diff(heard, e); diff != "" {
		t.Errorf("what was kept is not what was heard (-heard +kept):\n%s", diff)
	}
}

const folderDetail = `[{"actions":["read"],"repository":"a/b","type":"repository"}]`

func TestWhatIsKeptOfADevice(t *testing.T) {
	t.Run("DEV-02, DEV-06 everything that the client proved when it asked", func(t *testing.T) {
		p, l := openLedger(t)
		p.h.Clients = vouching{&desk{p: p}}
		now := p.clock.Now()
		r := p.begin("scope", "issues:write", "authorization_details", folderDetail)
		if r.Code != 200 {
			t.Fatalf("%d %s", r.Code, r.Body)
		}
		code, _ := parseUserCode(r.body["user_code"].(string))
		want := store.Device{
			Hash: store.HashOf(r.body["device_code"].(string)), UserCode: userCodeHash(p.h.device.CodeKey, code),
			ClientID: tvID, Resource: resource, Scopes: oauth.Scopes{"issues:write"}, Details: l.started.Details,
			AuthMethods: []string{"none"}, Method: "none", KeyThumbprint: "thumb", InstanceJKT: "instance", CertThumbprint: "cert", SecurityDigest: "s1", Version: 7,
			IP: "203.0.113.9", Created: now, Expires: now.Add(10 * time.Minute), NextPoll: now, Interval: 5 * time.Second,
		}
		if diff := cmp.Diff(want, l.started); diff != "" || l.most != maxDevices || !strings.Contains(l.started.Details, `"a/b"`) {
			t.Errorf("most %d, details %s (-want +got):\n%s", l.most, l.started.Details, diff)
		}
		if r.body["verification_uri"] != issuer+"/device" || r.body["verification_uri_complete"] != issuer+"/device?user_code="+r.body["user_code"].(string) {
			t.Errorf("%s", r.Body)
		}
		wantEvent := audit.Event{Time: now, Type: audit.TypeDevice, IP: "203.0.113.9", Client: tvID, Resource: resource, Data: map[string]string{"scope": "issues:write", "method": "none"}}
		if diff := cmp.Diff(wantEvent, p.seen.heard(t)); diff != "" {
			t.Errorf("event (-want +got):\n%s", diff)
		}
		l.wrote(t, wantEvent)
	})
	t.Run("DEV-06, DPOP-02 the key of the proof", func(t *testing.T) {
		p, l := openLedger(t)
		p.h.Clients = proving{&desk{p: p}}
		if r := p.begin(); r.Code != 200 || l.started.JKT != "key" {
			t.Errorf("%s, key %q", r.Body, l.started.JKT)
		}
	})
	t.Run("DEV-03 a user code that is taken gives way to another, a few times", func(t *testing.T) {
		p, l := openLedger(t)
		l.taken = 3
		if r := p.begin(); r.Code != 200 {
			t.Errorf("three were taken: %d %s", r.Code, r.Body)
		}
		l.taken = 4
		p.begin().refused(t, 500, oauth.ServerError)
	})
	t.Run("DEV-01 the client_id in the body is that of the client that authenticated", func(t *testing.T) {
		p, _ := openLedger(t)
		p.h.Clients = another{&desk{p: p}}
		p.begin().refused(t, 400, oauth.InvalidRequest)
		p, l := openLedger(t)
		p.h.Clients = another{&desk{p: p}}
		if r := p.begin("client_id", ""); r.Code != 200 || l.started.ClientID != tvID { // it stands in the credentials
			t.Errorf("%d %s", r.Code, r.Body)
		}
	})
	t.Run("POL-08 what was refused before a client is known counts for its network", func(t *testing.T) {
		p, _ := openLedger(t)
		for range startsPerSource {
			p.begin("client_id", goodID).refused(t, 400, oauth.UnauthorizedClient)
		}
		r := p.begin()
		r.refused(t, 429, oauth.TemporarilyUnavailable)
		if r.Header().Get("Retry-After") != "600" {
			t.Errorf("Retry-After %q", r.Header().Get("Retry-After"))
		}
		p.clock.pass(10*time.Minute - time.Second)
		p.begin().refused(t, 429, oauth.TemporarilyUnavailable)
		p.clock.pass(time.Second)
		if r := p.begin(); r.Code != 200 {
			t.Errorf("a window later: %d", r.Code)
		}
	})
}

// proving is a desk where every request proves a key, and another one that
// believes the credentials and not the body.
type proving struct{ *desk }

func (proving) Check(http.ResponseWriter, *http.Request, *clientauth.Client) (clientauth.Possession, error) {
	return clientauth.Possession{JKT: "key"}, nil
}

type another struct{ *desk }

func (a another) Authenticate(ctx context.Context, q clientauth.Request) (*clientauth.Client, error) {
	if q.ClientID == "" {
		q.ClientID = tvID
		return a.desk.Authenticate(ctx, q)
	}
	c, err := a.desk.Authenticate(ctx, q)
	if err == nil {
		c.ID = "https://elsewhere.example.com/c.json"
	}
	return c, err
}

func TestWhatAnAnswerToADeviceSays(t *testing.T) {
	p, l := openLedger(t)
	d := p.wait(typed, func(d *store.Device) {
		d.Details, d.InstanceJKT, d.JKT = folderDetail, "instance", "key"
	})
	john := p.signedIn("john")
	asked := p.clock.Now()
	page := john.enter(typed)
	p.clock.pass(3 * time.Second)
	t.Run("DEV-08, AUTHZ-26, ATT-08 a yes makes the grant that was shown, of this sign-in, for this instance", func(t *testing.T) {
		john.confirm(page).says(t, 200, "go back")
		now := p.clock.Now()
		got := l.approved.Answer
		s, _, err := p.store.FindSession(t.Context(), got.Session, now)
		if err != nil || s.UserID != "john" {
			t.Fatalf("%+v, %v", s, err)
		}
		want := store.Grant{
			ID: got.Grant.ID, UserID: "john", ClientID: tvID, Resource: resource, Scopes: oauth.Scopes{"issues:read", "issues:write"}, SecurityDigest: "s1",
			AuthMethods: []string{"none"}, AuthTime: s.AuthTime, ACR: login.ACR, AMR: []string{"pwd"}, SID: s.SID, Created: now, Kind: store.KindDevice,
			Details: folderDetail, InstanceJKT: "instance",
		}
		if diff := cmp.Diff(want, got.Grant); diff != "" || got.Grant.ID == "" || s.SID == "" {
			t.Errorf("grant (-want +got):\n%s", diff)
		}
		if l.approved.UserCode != d.UserCode || !got.NonceExpires.Equal(asked.Add(visitLife)) || got.Remember || got.Client == nil || got.Document == nil || got.Nonce == (store.Hash{}) {
			t.Errorf("%+v", l.approved)
		}
		wantEvent := audit.Event{Time: now, Type: audit.TypeConsent, IP: "203.0.113.9", Client: tvID, User: "john", Resource: resource, Grant: got.Grant.ID,
			Data: map[string]string{"scope": "issues:read issues:write", "digest": "s1", "device": "198.51.100.7"}}
		if diff := cmp.Diff(wantEvent, p.seen.heard(t)); diff != "" {
			t.Errorf("event (-want +got):\n%s", diff)
		}
		l.wrote(t, wantEvent)
	})
	t.Run("AUTHZ-26 a yes without details is remembered", func(t *testing.T) {
		p.wait("BCDFGHJK")
		john.confirm(john.enter("BCDFGHJK")).says(t, 200, "go back")
		if !l.approved.Answer.Remember {
			t.Error("forgotten")
		}
	})
	t.Run("DEV-08 a no is of this page and this code", func(t *testing.T) {
		d := p.wait("CDFGHJKL")
		asked := p.clock.Now()
		page := john.enter("CDFGHJKL")
		p.clock.pass(time.Second)
		john.confirm(page, "decision", "deny").says(t, 200, "Nothing was connected")
		if l.deniedAs != d.UserCode || l.denied.Nonce == (store.Hash{}) || !l.denied.NonceExpires.Equal(asked.Add(visitLife)) {
			t.Errorf("%+v", l.denied)
		}
		wantEvent := audit.Event{Time: p.clock.Now(), Type: audit.TypeConsentDenied, IP: "203.0.113.9", Client: tvID, User: "john", Resource: resource, Code: "access_denied",
			Data: map[string]string{"scope": "issues:read issues:write", "device": "198.51.100.7"}}
		if diff := cmp.Diff(wantEvent, p.seen.heard(t)); diff != "" {
			t.Errorf("event (-want +got):\n%s", diff)
		}
		l.wrote(t, wantEvent)
		if got, err := p.store.FindDevice(t.Context(), d.Hash, p.clock.Now()); err != nil || got.State != store.DeviceDenied {
			t.Errorf("%+v, %v", got, err)
		}
		john.confirm(page).says(t, 409, "no longer valid")
	})
	t.Run("DEV-08 a no of somebody else is asked again, and says no to nothing", func(t *testing.T) {
		d := p.wait("DFGHJKLM")
		page := john.enter("DFGHJKLM")
		john.signIn("jane")
		john.confirm(page, "decision", "deny").says(t, 200, "Something changed")
		if got, err := p.store.FindDevice(t.Context(), d.Hash, p.clock.Now()); err != nil || got.State != store.DevicePending {
			t.Errorf("%+v, %v", got, err)
		}
		john.signIn("john")
	})
	t.Run("DEV-08 a no to a client that is refused by now is a no", func(t *testing.T) {
		d := p.wait("FGHJKLMN")
		page := john.enter("FGHJKLMN")
		no := false
		p.rule(policy.Rule{Name: "closed", Host: "*.example.com", Action: policy.Allow, Device: &no})
		john.confirm(page, "decision", "deny").says(t, 200, "Nothing was connected")
		if got, err := p.store.FindDevice(t.Context(), d.Hash, p.clock.Now()); err != nil || got.State != store.DeviceDenied {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestScopesThatADeviceDidNotAskFor(t *testing.T) {
	t.Run("CACHE-21 what was added to the resource meanwhile is not granted to a device that asked before", func(t *testing.T) {
		p, l := openLedger(t)
		p.wait(typed, func(d *store.Device) { d.Scopes = oauth.Scopes{"issues:read"} })
		john := p.signedIn("john")
		page := john.enter(typed)
		if strings.Contains(page.body, "create issues") {
			t.Error("the page asks for more than the device")
		}
		john.confirm(page).says(t, 200, "go back")
		if got := l.approved.Answer.Grant.Scopes.String(); got != "issues:read" {
			t.Errorf("granted %s", got)
		}
	})
}

func TestHowLongTheDevicePagesLive(t *testing.T) {
	p, _ := openLedger(t)
	john := p.signedIn("john")
	p.wait(typed, func(d *store.Device) { d.Expires = d.Created.Add(24 * time.Hour) })
	form := func() string { return entryField.FindStringSubmatch(john.get("/device").body)[1] }
	send := func(token string) answered {
		return john.do(http.MethodPost, "/device", url.Values{"form": {token}, "user_code": {typed}})
	}
	for _, late := range []bool{false, true} {
		wait := visitLife - time.Second
		if late {
			wait = visitLife
		}
		t.Run("DEV-08 in time, and too late: "+wait.String(), func(t *testing.T) {
			token := form()
			p.clock.pass(wait)
			if a := send(token); (a.StatusCode == http.StatusSeeOther) == late {
				t.Errorf("the form: %d", a.StatusCode)
			}
			to := send(form()).Header.Get("Location")
			p.clock.pass(wait)
			if a := john.get(to); (a.StatusCode == http.StatusOK) == late {
				t.Errorf("the pick: %d", a.StatusCode)
			}
			page := john.enter(typed)
			p.clock.pass(wait)
			a := john.do(http.MethodPost, "/device/confirm", url.Values{"transaction": {page.transaction()}, "started": {""}, "decision": {"allow"}})
			if want := map[bool]int{false: 422, true: 403}[late]; a.StatusCode != want {
				t.Errorf("the question: %d", a.StatusCode)
			}
			session := john.cookies["__Host-bonafide_session"]
			delete(john.cookies, "__Host-bonafide_session")
			john.get("/device?user_code=" + typed)
			john.cookies["__Host-bonafide_session"] = session
			p.clock.pass(wait)
			if a := john.get("/device?tx=" + url.QueryEscape(p.login.last.Sealed)); strings.Contains(a.body, `value="WDJB-MJHT"`) == late {
				t.Errorf("what was brought along: %s", a.body)
			}
		})
	}
	t.Run("DEV-08 the last page too", func(t *testing.T) {
		to := john.do(http.MethodPost, "/device/confirm", url.Values{"transaction": {john.enter(typed).transaction()}, "started": {"yes"}, "decision": {"allow"}}).Header.Get("Location")
		john.get(to).says(t, 200, "Connected")
		john.get(to).says(t, 200, "Connected")
		p.clock.pass(visitLife)
		john.get(to).says(t, 403, "no longer valid")
	})
	t.Run("DEV-04 a code that ended while somebody looked at the page", func(t *testing.T) {
		d := p.wait("BCDFGHJK")
		page := john.enter("BCDFGHJK")
		p.clock.pass(d.Expires.Sub(p.clock.Now()))
		john.confirm(page).says(t, 409, "This code is no longer valid")
		john.confirm(page, "decision", "deny").says(t, 409, "This code is no longer valid")
	})
	t.Run("DEV-05 what was brought along by another browser is not filled in", func(t *testing.T) {
		jane := p.browser()
		jane.get("/device?user_code=" + typed)
		if a := john.get("/device?tx=" + url.QueryEscape(p.login.last.Sealed)); strings.Contains(a.body, `value="WDJB-MJHT"`) {
			t.Error("filled in")
		}
	})
	t.Run("DEV-05 what is too long for a code is not carried through the sign-in", func(t *testing.T) {
		jane := p.browser()
		for typed, kept := range map[string]bool{strings.Repeat("x", maxTyped): true, strings.Repeat("y", maxTyped+1): false} {
			jane.get("/device?user_code=" + typed)
			sealed := p.login.last.Sealed
			jane.signIn("jane")
			if a := jane.get("/device?tx=" + url.QueryEscape(sealed)); strings.Contains(a.body, typed) != kept {
				t.Errorf("%d bytes: kept %v", len(typed), !kept)
			}
			delete(jane.cookies, "__Host-bonafide_session")
			if p.login.last.Reason != login.ReasonNone || p.login.last.Path != "/device" {
				t.Errorf("%+v", p.login.last)
			}
		}
	})
}

func TestWrongCodesAreNoted(t *testing.T) {
	p, _ := openLedger(t)
	john := p.signedIn("john")
	token := entryField.FindStringSubmatch(john.get("/device").body)[1]
	guess := func() answered {
		return john.do(http.MethodPost, "/device", url.Values{"form": {token}, "user_code": {"BBBB-BBBB"}})
	}
	for range wrongPerAccount {
		guess().says(t, 422, "No device is waiting", "10 minutes")
	}
	t.Run("DEV-03 whoever has guessed too often waits for the rest of the window, and is told how long", func(t *testing.T) {
		p.clock.pass(9*time.Minute + 500*time.Millisecond)
		a := guess()
		a.says(t, 429, "60 seconds")
		if a.Header.Get("Retry-After") != "60" {
			t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
		}
	})
	if err := p.h.Audit.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := p.store.Events(t.Context(), store.EventQuery{Type: audit.TypeRefusal, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, e := range got {
		codes = append(codes, e.Code)
		if e.User != "john" || e.Rule != "DEV-03" || e.IP != "203.0.113.9" {
			t.Errorf("%+v", e)
		}
	}
	t.Run("DEV-03 the audit has wrong codes and who was held back", func(t *testing.T) {
		if !slices.Contains(codes, "wrong user code") || !slices.Contains(codes, "throttled") {
			t.Errorf("%q", codes)
		}
	})
}

func TestBoundsOfTheDeviceFlow(t *testing.T) {
	p := openDevices(t)
	for _, r := range []struct {
		life, pace time.Duration
		ok         bool
	}{
		{0, 0, true},
		{time.Minute, time.Second, true},
		{30 * time.Minute, time.Minute, true},
		{time.Minute - 1, time.Second, false},
		{30*time.Minute + 1, time.Second, false},
		{time.Minute, time.Second - 1, false},
		{time.Minute, time.Minute + 1, false},
	} {
		h := *p.h
		flow := *h.Device
		flow.Life, flow.Pace = r.life, r.pace
		h.Device = &flow
		if err := h.openDevices(); (err == nil) != r.ok {
			t.Errorf("life %v, pace %v: %v", r.life, r.pace, err)
		}
	}
	t.Run("DEV-02 without a client authentication there are no devices", func(t *testing.T) {
		h := *p.h
		if h.Clients = nil; h.openDevices() == nil {
			t.Error("accepted")
		}
	})
	t.Run("DEV-03 the most that may be guessed, and asked for", func(t *testing.T) { // docs and DV-03 say so
		if maxDevices != 10_000 || startsPerSource != 60 || startsPerClient != 2_000 || wrongPerAccount != 10 || wrongPerSource != 40 || wrongInAll != 500 {
			t.Error("the limits are others")
		}
	})
	t.Run("DEV-05 two browsers of one network, and none", func(t *testing.T) {
		if !samePlace("::ffff:203.0.113.9", netip.MustParseAddr("203.0.113.9")) || samePlace("203.0.113.9", netip.Addr{}) || samePlace("x", netip.MustParseAddr("203.0.113.9")) {
			t.Error("not as the pages say")
		}
	})
	t.Run("how long, as a person would say it", func(t *testing.T) {
		for d, want := range map[time.Duration]string{
			time.Millisecond: "a second", time.Second: "a second", 1001 * time.Millisecond: "2 seconds", 90 * time.Second: "90 seconds", 91 * time.Second: "2 minutes", 10 * time.Minute: "10 minutes",
		} {
			if got := within(d); got != want {
				t.Errorf("%v: %s", d, got)
			}
		}
	})
}

func TestWarningsOfTheDevicePage(t *testing.T) {
	t.Run("DEV-05 what is to stop a person stands before the warning that every device has", func(t *testing.T) {
		p := openDevices(t)
		p.wait(typed)
		p.dir.put(tvID, func(d *cimd.Document) { d.Name = "GitHub" })
		page := p.signedIn("john").enter(typed)
		page.says(t, 200)
		stop, always := strings.Index(page.body, "This app is at"), strings.Index(page.body, "Did you start this on your device?")
		if stop < 0 || always < stop {
			t.Errorf("at %d and %d", stop, always)
		}
	})
}
