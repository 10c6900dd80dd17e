package authorize

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	tvID  = "https://tv.example.com/c.json"
	typed = "WDJBMJHT"
)

// openDevices is a place where devices can be connected, with a client that a
// rule names.
func openDevices(t testing.TB, change ...func(*Config)) *place {
	t.Helper()
	p, _ := openPAR(t, append([]func(*Config){func(c *Config) {
		s, ok := c.Store.(*store.Store)
		if !ok {
			t.Fatal("the store is not one")
		}
		c.Device = &DeviceFlow{Devices: s, CodeKey: [32]byte{1}, Named: func(_ context.Context, id string) (bool, error) { return id != goodID, nil }}
	}}, change...)...)
	p.add(tvID, func(d *cimd.Document) {
		d.Name, d.RedirectURIs, d.GrantTypes, d.ResponseTypes = "Living Room", nil, []string{oauth.GrantDeviceCode, oauth.GrantRefreshToken}, nil
	})
	p.rule(policy.Rule{Name: "devices", Host: "*.example.com", Action: policy.Allow})
	return p
}

// wait puts a device into the store that shows a code of the test's choice.
func (p *place) wait(code string, change ...func(*store.Device)) store.Device {
	p.t.Helper()
	now := p.clock.Now()
	d := store.Device{
		Hash: store.HashOf("device " + code), UserCode: userCodeHash(p.h.device.CodeKey, code), ClientID: tvID, Resource: resource,
		Scopes: oauth.Scopes{"issues:read", "issues:write"}, AuthMethods: []string{"none"}, Method: "none", SecurityDigest: "s1", IP: "198.51.100.7",
		Created: now.Add(-2 * time.Minute), Expires: now.Add(8 * time.Minute), NextPoll: now, Interval: 5 * time.Second,
	}
	for _, f := range change {
		f(&d)
	}
	if err := p.store.StartDevice(p.t.Context(), d, maxDevices); err != nil {
		p.t.Fatal(err)
	}
	return d
}

var entryField = regexp.MustCompile(`name="form" value="([^"]+)"`)

// enter types a code and follows to the confirmation page.
func (b *person) enter(code string) answered {
	b.p.t.Helper()
	page := b.get("/device")
	m := entryField.FindStringSubmatch(page.body)
	if m == nil {
		b.p.t.Fatalf("no form: %d %s", page.StatusCode, page.body)
	}
	return b.follow(b.do(http.MethodPost, "/device", url.Values{"form": {m[1]}, "user_code": {code}}))
}

func (b *person) follow(a answered) answered {
	b.p.t.Helper()
	if to := a.Header.Get("Location"); a.StatusCode == http.StatusSeeOther && strings.HasPrefix(to, "/device") {
		return b.get(to)
	}
	return a
}

func (b *person) confirm(page answered, pairs ...string) answered {
	b.p.t.Helper()
	v := url.Values{"transaction": {page.transaction()}, "started": {"yes"}, "decision": {"allow"}}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return b.follow(b.do(http.MethodPost, "/device/confirm", v))
}

func (a answered) says(t *testing.T, status int, words ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("status %d, not %d: %s", a.StatusCode, status, a.body)
	}
	for _, w := range words {
		if !strings.Contains(a.body, w) {
			t.Errorf("the page does not say %q: %s", w, a.body)
		}
	}
}

func TestDevicePages(t *testing.T) {
	steady := func(body string) string { return entryField.ReplaceAllString(body, `name="form" value="SEALED"`) }
	b := openDevices(t, func(c *Config) { c.Connections = "/connections" }).signedIn("john")
	b.p.wait(typed)
	golden(t, "device", steady(b.get("/device").body))
	golden(t, "device-brought", steady(b.get("/device?user_code=wdjb-mjht").body))
	golden(t, "device-wrong", steady(b.enter("BBBB-BBBB").body))
	page := b.enter(typed)
	page.says(t, 200)
	golden(t, "device-confirm", page.body)
	golden(t, "device-unconfirmed", b.confirm(page, "started", "").body)
	golden(t, "device-done", b.confirm(page).body)
	b.p.wait("BCDFGHJK", func(d *store.Device) {
		d.Method, d.AuthMethods, d.ClientID, d.IP = "private_key_jwt", []string{"private_key_jwt"}, keyedID, "203.0.113.200"
	})
	b.p.dir.put(keyedID, func(d *cimd.Document) { d.GrantTypes = []string{oauth.GrantDeviceCode}; d.Name = "GitHub" })
	page = b.enter("BCDFGHJK")
	golden(t, "device-keyed", page.body)
	golden(t, "device-denied", b.confirm(page, "decision", "deny").body)
}

// begin is POST /device_authorization.
func (p *place) begin(pairs ...string) reply {
	p.t.Helper()
	v := url.Values{"client_id": {tvID}, "scope": {"issues:read"}, "resource": {resource}}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	r := httptest.NewRequestWithContext(p.t.Context(), http.MethodPost, issuer+"/device_authorization", strings.NewReader(v.Encode()))
	r.RemoteAddr = "203.0.113.9:4711"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	p.mux.ServeHTTP(w, r)
	out := reply{ResponseRecorder: w, t: p.t}
	if err := json.Unmarshal(w.Body.Bytes(), &out.body); err != nil {
		p.t.Fatalf("%d, not JSON: %s", w.Code, w.Body)
	}
	return out
}

func TestDeviceRequests(t *testing.T) {
	t.Run("DEV-02 a good one", func(t *testing.T) {
		p := openDevices(t)
		r := p.begin()
		code, ok := parseUserCode(r.body["user_code"].(string))
		if r.Code != 200 || !ok || r.body["interval"] != 5.0 || r.body["expires_in"] != 600.0 {
			t.Fatalf("%d %s", r.Code, r.Body)
		}
		d, err := p.store.FindUserCode(t.Context(), userCodeHash(p.h.device.CodeKey, code), p.clock.Now())
		if err != nil || d.ClientID != tvID || d.IP != "203.0.113.9" || d.Method != "none" || d.Scopes.String() != "issues:read" {
			t.Errorf("%+v, %v", d, err)
		}
		if h := store.HashOf(r.body["device_code"].(string)); h != d.Hash {
			t.Error("DEV-06: the device code is not kept as its hash")
		}
	})
	for _, c := range []struct {
		name  string
		spoil []string
		code  oauth.Code
	}{
		{"DEV-09 a client that nobody named", []string{"client_id", goodID}, oauth.UnauthorizedClient},
		{"DEV-01 a document without the grant", []string{"client_id", nativeID}, oauth.UnauthorizedClient},
		{"DEV-01 a request object", []string{"request", "e30.e30.e30"}, oauth.InvalidRequest},
		{"DEV-01 a request_uri", []string{"request_uri", "https://evil.test/"}, oauth.InvalidRequest},
		{"DEV-07 a resource too much", []string{"resource", "https://nowhere.test/"}, oauth.InvalidTarget},
		{"DEV-07 no scope that exists", []string{"scope", "nonsense"}, oauth.InvalidScope},
		{"DEV-07 a scope that is none", []string{"scope", `"`}, oauth.InvalidScope},
		{"a parameter that is too long", []string{"ui_locales", strings.Repeat("x", 300)}, oauth.InvalidRequest},
	} {
		t.Run(c.name, func(t *testing.T) { openDevices(t).begin(c.spoil...).refused(t, 400, c.code) })
	}
	t.Run("POL-08 one network, one client and all together have their bounds", func(t *testing.T) {
		p := openDevices(t)
		for range startsPerSource {
			if r := p.begin(); r.Code != 200 {
				t.Fatalf("%d %s", r.Code, r.Body)
			}
		}
		r := p.begin()
		r.refused(t, 429, oauth.TemporarilyUnavailable)
		if r.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		p.clock.pass(p.h.device.Life)
		for range startsPerClient {
			p.h.device.starts.Take(p.clock.Now(), web.Limit{Key: "client " + tvID, Most: startsPerClient})
		}
		p.begin().refused(t, 429, oauth.TemporarilyUnavailable)
		p.h.device.starts = web.NewThrottle(time.Minute)
		p.h.device.Devices = fullHouse{p.store, store.ErrBusy}
		p.begin().refused(t, 503, oauth.TemporarilyUnavailable)
		p.h.device.Devices = fullHouse{p.store, store.ErrConflict}
		p.begin().refused(t, 500, oauth.ServerError)
		p.h.device.Named = func(context.Context, string) (bool, error) { return false, errors.New("the disk is on fire") }
		p.begin().refused(t, 500, oauth.ServerError)
	})
	t.Run("a configuration that cannot work", func(t *testing.T) {
		for name, spoil := range map[string]func(*DeviceFlow){
			"no key":   func(f *DeviceFlow) { f.CodeKey = [32]byte{} },
			"no store": func(f *DeviceFlow) { f.Devices = nil },
			"no names": func(f *DeviceFlow) { f.Named = nil },
			"life":     func(f *DeviceFlow) { f.Life = time.Hour },
			"pace":     func(f *DeviceFlow) { f.Pace = time.Hour },
		} {
			h := *openDevices(t).h
			flow := *h.Device
			spoil(&flow)
			if h.Device = &flow; h.openDevices() == nil {
				t.Errorf("%s: accepted", name)
			}
		}
	})
}

// fullHouse is a store that takes no device.
type fullHouse struct {
	*store.Store
	err error
}

func TestDeviceAnswers(t *testing.T) {
	t.Run("DEV-05 the same page says whether the device is in this network", func(t *testing.T) {
		for a, b := range map[string]string{"203.0.113.9": "203.0.113.9", "2001:db8::1": "2001:db8::2"} {
			if !samePlace(a, netip.MustParseAddr(b)) {
				t.Errorf("%s and %s", a, b)
			}
		}
		if samePlace("203.0.113.8", netip.MustParseAddr("203.0.113.9")) || samePlace("", netip.Addr{}) {
			t.Error("two networks are one")
		}
	})
	t.Run("DEV-08, attack CN-14: a page counts in the browser and the session to which it was shown", func(t *testing.T) {
		p := openDevices(t)
		p.wait(typed)
		john, jane := p.signedIn("john"), p.signedIn("jane")
		page := john.enter(typed)
		page.says(t, 200, "tv.example.com")
		jane.confirm(page).says(t, 403, "no longer valid")
		p.browser().confirm(page).says(t, 403, "no longer valid")
		john.signIn("jane") // in another tab
		anew := john.confirm(page)
		anew.says(t, 200, "Something changed", "jane@acme.example")
		john.confirm(anew).says(t, 200, "You can go back to your device")
		john.confirm(anew).says(t, 409)
	})
	t.Run("DEV-08 an address that was passed on is worth the code in it", func(t *testing.T) {
		p := openDevices(t)
		p.wait(typed)
		john := p.signedIn("john")
		m := entryField.FindStringSubmatch(john.get("/device").body)
		to := john.do(http.MethodPost, "/device", url.Values{"form": {m[1]}, "user_code": {typed}}).Header.Get("Location")
		jane := p.signedIn("jane")
		jane.follow(jane.get(to)).says(t, 200, "Connect a device", `value="WDJB-MJHT"`)
		nobody := p.browser()
		if a := nobody.get(to); a.Header.Get("Location") != "/login" {
			t.Errorf("%d %s", a.StatusCode, a.Header.Get("Location"))
		}
	})
	t.Run("DEV-08 a form of another session, or none, is shown again", func(t *testing.T) {
		p := openDevices(t)
		john, jane := p.signedIn("john"), p.signedIn("jane")
		m := entryField.FindStringSubmatch(john.get("/device").body)
		for _, token := range []string{m[1], "", "AAAA"} {
			jane.do(http.MethodPost, "/device", url.Values{"form": {token}, "user_code": {typed}}).says(t, 400, "press Continue once more", `value="WDJB-MJHT"`)
		}
	})
	t.Run("DEV-08 not you? leads to the sign-in and back with the code", func(t *testing.T) {
		p := openDevices(t)
		p.wait(typed)
		john := p.signedIn("john")
		page := john.enter(typed)
		if a := john.confirm(page, "decision", "switch"); a.Header.Get("Location") != "/login" || p.login.last.Path != "/device" {
			t.Fatalf("%d %+v", a.StatusCode, p.login.last)
		}
		john.signIn("jane")
		john.get("/device?tx="+url.QueryEscape(p.login.last.Sealed)).says(t, 200, `value="WDJB-MJHT"`, "jane@acme.example")
		m := entryField.FindStringSubmatch(john.get("/device").body)
		if a := john.do(http.MethodPost, "/device", url.Values{"form": {m[1]}, "user_code": {typed}, "decision": {"switch"}}); a.Header.Get("Location") != "/login" {
			t.Errorf("%d", a.StatusCode)
		}
	})
	t.Run("CACHE-21 what changed meanwhile is shown again, and what is not allowed any more is refused", func(t *testing.T) {
		p := openDevices(t)
		p.wait(typed)
		john := p.signedIn("john")
		page := john.enter(typed)
		p.dir.put(tvID, func(d *cimd.Document) { d.Name, d.SecurityDigest = "Other Name", "s2" })
		again := john.confirm(page)
		again.says(t, 200, "Something changed", "Other Name")
		p.dir.put(tvID, func(d *cimd.Document) { d.AuthMethods = []string{"private_key_jwt"} })
		john.confirm(again).says(t, 400, "This device cannot be connected")
		no := false
		p.rule(policy.Rule{Name: "closed", Host: "*.example.com", Action: policy.Allow, Device: &no})
		john.confirm(again).says(t, 400, "DEV-09")
		p.dir.put(tvID, func(d *cimd.Document) { d.GrantTypes = []string{"authorization_code"} })
		john.enter(typed).says(t, 400, "This device cannot be connected")
	})
	t.Run("a decision that is none", func(t *testing.T) {
		p := openDevices(t)
		p.wait(typed)
		john := p.signedIn("john")
		john.confirm(john.enter(typed), "decision", "maybe").says(t, 400)
	})
	t.Run("addresses that nobody sealed", func(t *testing.T) {
		john := openDevices(t).signedIn("john")
		john.get("/device/confirm?tx=AAAA").says(t, 403)
		john.get("/device/confirm").says(t, 403)
		john.get("/device/done?tx=AAAA").says(t, 403)
		john.get("/device?tx=AAAA").says(t, 200, "Type the code")
		john.do(http.MethodPost, "/device/confirm", url.Values{"transaction": {"AAAA"}}).says(t, 403)
		john.get("/device?user_code="+strings.Repeat("x", 500)).says(t, 200)
		john.get("/device?user_code=%3Cscript%3E").says(t, 200, "&lt;script&gt;")
	})
	t.Run("AUTHZ-26 what is asked for beside scopes is kept, and remembered by nobody", func(t *testing.T) {
		p := openDevices(t)
		d := p.wait(typed, func(d *store.Device) { d.Scopes = oauth.Scopes{"issues:read"} })
		john := p.signedIn("john")
		john.confirm(john.enter(typed)).says(t, 200, "go back")
		got, err := p.store.FindDevice(t.Context(), d.Hash, p.clock.Now())
		if err != nil || got.State != store.DeviceApproved {
			t.Fatalf("%+v, %v", got, err)
		}
		g, err := p.store.GrantActive(t.Context(), got.GrantID)
		if err != nil || g.Kind != store.KindDevice || g.UserID != "john" || g.Scopes.String() != "issues:read" {
			t.Errorf("%+v, %v", g, err)
		}
	})
}

func TestGuessing(t *testing.T) {
	t.Run("DEV-03, attack DV-03: what all guessers together can expect is less than a thousandth of a hit", func(t *testing.T) {
		// In a span as long as a code lives lie parts of two windows at most by one clock, each
		// with wrongInAll guesses that were looked up, whoever made them, however
		// many they wanted to make. Each of them meets one of the codes that wait
		// with the chance of these codes among all.
		// The store counts for all replicas. Where their clocks are apart the
		// windows are shorter by that, and parts of a third one fit in.
		const guesses = 3 * wrongInAll
		expected := float64(guesses) * maxDevices / userCodeSpace
		t.Logf("%d guesses at %d codes of %d: %.2g hits expected", guesses, maxDevices, userCodeSpace, expected)
		if expected >= 1e-3 {
			t.Errorf("%g", expected)
		}
	})
	guess := func(b *person, token, code string) answered {
		return b.do(http.MethodPost, "/device", url.Values{"form": {token}, "user_code": {code}})
	}
	t.Run("DEV-03, attack DV-03: an account has so many guesses, however it spells them", func(t *testing.T) {
		p := openDevices(t)
		john := p.signedIn("john")
		token := entryField.FindStringSubmatch(john.get("/device").body)[1]
		for i, spelled := range []string{"BBBB-BBBB", "bbbb bbbb", "ｂｂｂｂｂｂｂｂ", "B.B.B.B.B.B.B.B", "bbbb—bbbb", "BBBBBBBB", "ВВВВВВВВ", "bBbBbBbB", "BBBB\u200bBBBB", "b b b b b b b b"} {
			if a := guess(john, token, spelled); a.StatusCode != 422 {
				t.Fatalf("%d: %d", i, a.StatusCode)
			}
		}
		p.wait(typed)
		a := guess(john, token, typed)
		a.says(t, 429, "many wrong codes")
		if a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		p.clock.pass(p.h.device.Life)
		p.wait("BCDFGHJK")
		if a := guess(john, token, "BCDFGHJK"); a.StatusCode != 303 {
			t.Errorf("after the window: %d", a.StatusCode)
		}
	})
	t.Run("what cannot be a code, and a right one, count for nothing", func(t *testing.T) {
		p := openDevices(t)
		john := p.signedIn("john")
		p.wait(typed)
		token := entryField.FindStringSubmatch(john.get("/device").body)[1]
		for range 2 * wrongPerAccount {
			guess(john, token, "AEIO-UAEI").says(t, 422, "eight letters")
			if a := guess(john, token, typed); a.StatusCode != 303 {
				t.Fatalf("%d", a.StatusCode)
			}
		}
	})
	t.Run("attack DV-03: a store that fails is no guess and no answer", func(t *testing.T) {
		p := openDevices(t)
		john := p.signedIn("john")
		p.wait(typed)
		page := john.enter(typed)
		p.h.device.Devices = lost{p.store}
		john.enter(typed).says(t, 500)
		john.confirm(page).says(t, 500)
	})
}

// lost is a store that cannot look up.
type lost struct{ *store.Store }

func (lost) FindUserCode(context.Context, store.Hash, time.Time) (store.Device, error) {
	return store.Device{}, errors.New("the disk is on fire")
}

func (lost) GuessUserCode(context.Context, store.Guess, time.Time) (store.Device, time.Duration, error) {
	return store.Device{}, 0, errors.New("the disk is on fire")
}

func (f fullHouse) StartDevice(context.Context, store.Device, int, ...audit.Event) error {
	return f.err
}
