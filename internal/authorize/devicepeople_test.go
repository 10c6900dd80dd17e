package authorize

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/google/go-cmp/cmp"
)

// guessing is a store that remembers the guess, and answers it as it is told.
type guessing struct {
	*store.Store
	last store.Guess
	wait time.Duration
	err  error
}

func (g *guessing) GuessUserCode(ctx context.Context, q store.Guess, now time.Time) (store.Device, time.Duration, error) {
	g.last = q
	if g.err != nil {
		return store.Device{}, g.wait, g.err
	}
	return g.Store.GuessUserCode(ctx, q, now)
}

func TestGuessesThatTheStoreCounts(t *testing.T) {
	p := openDevices(t)
	g := &guessing{Store: p.store}
	p.h.device.Devices = g
	p.wait(typed)
	john := p.signedIn("john")
	token := entryField.FindStringSubmatch(john.get("/device").body)[1]
	send := func(code string, pairs ...string) answered {
		v := url.Values{"form": {token}, "user_code": {code}}
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return john.do(http.MethodPost, "/device", v)
	}
	t.Run("DEV-03 a guess counts against the account, the network and all, each kept under the key of the codes", func(t *testing.T) {
		send(typed)
		key := p.h.device.CodeKey
		want := store.Guess{UserCode: userCodeHash(key, typed), Window: 10 * time.Minute, Against: []store.Allowance{
			{Key: userCodeHash(key, "account john"), Most: 10}, {Key: userCodeHash(key, "from 203.0.113.9"), Most: 40}, {Key: userCodeHash(key, "all"), Most: 500},
		}}
		if len(g.last.Against) == 3 {
			want.Against[2].Key = g.last.Against[2].Key // whatever everybody is called
		}
		if diff := cmp.Diff(want, g.last); diff != "" || g.last.Against[2].Key == userCodeHash([32]byte{}, "all") {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("DEV-03 when other replicas have used up what there is, the person waits, and nothing counts here", func(t *testing.T) {
		g.wait, g.err = 90*time.Second, store.ErrTooFast
		for range 2 * wrongPerAccount {
			a := send(typed)
			a.says(t, 429, "90 seconds", `value="WDJB-MJHT"`)
			if a.Header.Get("Retry-After") != "90" {
				t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
			}
		}
		g.err = nil
		if a := send(typed); a.StatusCode != http.StatusSeeOther {
			t.Errorf("afterwards: %d", a.StatusCode)
		}
	})
	t.Run("attack DV-03: a store that cannot look up lets nobody on", func(t *testing.T) {
		g.err = errors.New("disk")
		defer func() { g.err = nil }()
		if a := send(typed); a.StatusCode != http.StatusInternalServerError || a.Header.Get("Location") != "" {
			t.Errorf("%d %s", a.StatusCode, a.Header.Get("Location"))
		}
	})
	t.Run("DEV-05 what was typed stays in the form", func(t *testing.T) {
		send("BBBB-BBBC").says(t, 422, `value="BBBB-BBBC"`)
		send("AEIO").says(t, 422, `value="AEIO"`)
	})
	t.Run("DEV-08 a code goes along through the sign-in, wherever it was asked for, and why is known", func(t *testing.T) {
		brought := func(what string, a answered, why login.Reason) {
			t.Helper()
			if a.Header.Get("Location") != "/login" || p.login.last.Reason != why {
				t.Errorf("%s: %d %s, %v", what, a.StatusCode, a.Header.Get("Location"), p.login.last.Reason)
			}
		}
		session := john.cookies["__Host-bonafide_session"]
		filled := func(what string) {
			t.Helper()
			john.cookies["__Host-bonafide_session"] = session
			if a := john.get("/device?tx=" + url.QueryEscape(p.login.last.Sealed)); !strings.Contains(a.body, `value="WDJB-MJHT"`) {
				t.Errorf("%s: the code is lost: %s", what, a.body)
			}
		}
		brought("not you? at the form", send(typed, "decision", "switch"), login.ReasonSwitch)
		filled("not you? at the form")
		page := john.enter(typed)
		brought("not you? at the question", john.confirm(page, "decision", "switch"), login.ReasonSwitch)
		filled("not you? at the question")
		to := send(typed).Header.Get("Location")
		delete(john.cookies, "__Host-bonafide_session")
		brought("the form, signed out", send(typed), login.ReasonNone)
		filled("the form, signed out")
		delete(john.cookies, "__Host-bonafide_session")
		brought("the question, signed out", john.get(to), login.ReasonNone)
		filled("the question, signed out")
	})
}

// noRules puts a policy in force that allows everybody and names nobody.
func (p *place) noRules() {
	p.t.Helper()
	set := testPolicy()
	if err := set.Check(); err != nil {
		p.t.Fatal(err)
	}
	p.dir.policy = set
}

func TestWhoStartsDevices(t *testing.T) {
	t.Run("DEV-09, FETCH-20 whom nobody named is not looked up, and whom somebody named is, where it has to be fetched", func(t *testing.T) {
		p := openDevices(t)
		p.dir.cold[goodID], p.dir.cold[tvID] = true, true
		p.begin("client_id", goodID).refused(t, 400, oauth.UnauthorizedClient)
		if p.dir.fetches != 0 {
			t.Error("fetched")
		}
		if r := p.begin(); r.Code != 200 || p.dir.fetches != 1 {
			t.Errorf("%d %s, %d fetched", r.Code, r.Body, p.dir.fetches)
		}
	})
	t.Run("DEV-09 a client with a document needs a rule that names it, or one that says so", func(t *testing.T) {
		p := openDevices(t)
		p.noRules()
		p.begin().refused(t, 400, oauth.UnauthorizedClient)
		yes := true
		p.rule(policy.Rule{Name: "devices", Host: "*.example.com", Action: policy.Allow, Device: &yes})
		if r := p.begin(); r.Code != 200 {
			t.Errorf("%d %s", r.Code, r.Body)
		}
	})
	t.Run("DEV-09 a client that an operator registered needs none, and is called by its name at the end", func(t *testing.T) {
		p := openDevices(t)
		p.noRules()
		if err := p.store.RegisterClient(t.Context(), store.Client{ID: "kiosk", Name: "Kiosk", GrantTypes: []string{oauth.GrantDeviceCode}, AuthMethods: []string{"none"}}, start); err != nil {
			t.Fatal(err)
		}
		r := p.begin("client_id", "kiosk")
		if r.Code != 200 {
			t.Fatalf("%d %s", r.Code, r.Body)
		}
		john := p.signedIn("john")
		john.confirm(john.enter(r.body["user_code"].(string))).says(t, 200, "Kiosk", "go back")
	})
	t.Run("TOK-19, DEV-01 a challenge answers credentials in the header that are wrong, and nothing else", func(t *testing.T) {
		p := openDevices(t)
		send := func(secret, authorization string) reply {
			v := url.Values{"client_id": {tvID}, "scope": {"issues:read"}, "resource": {resource}}
			if secret != "" {
				v.Set("client_secret", secret)
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, issuer+"/device_authorization", strings.NewReader(v.Encode()))
			r.RemoteAddr = "203.0.113.9:4711"
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if authorization != "" {
				r.Header.Set("Authorization", authorization)
			}
			w := httptest.NewRecorder()
			p.mux.ServeHTTP(w, r)
			return reply{ResponseRecorder: w, t: t}
		}
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("a:b"))
		for _, c := range []struct {
			secret, authorization string
			status                int
			challenge             bool
		}{{"wrong", basic, 401, true}, {"wrong", "", 401, false}, {"", basic, 200, false}, {"", "", 200, false}} {
			if r := send(c.secret, c.authorization); r.Code != c.status || (r.Header().Get("WWW-Authenticate") != "") != c.challenge {
				t.Errorf("%+v: %d %v", c, r.Code, r.Header())
			}
		}
	})
	t.Run("POL-08 who starts too many holds up nobody in another network, and another client is another count", func(t *testing.T) {
		p := openDevices(t)
		for range startsPerSource + 1 {
			p.begin()
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, issuer+"/device_authorization", strings.NewReader(url.Values{"client_id": {tvID}, "resource": {resource}}.Encode()))
		r.RemoteAddr = "198.51.100.7:4711"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		if p.mux.ServeHTTP(w, r); w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if n := p.h.device.starts.Count(p.clock.Now(), "client "+tvID); n != startsPerSource+1 {
			t.Errorf("%d are counted for the client", n)
		}
	})
}

func TestWhatPeopleSeeOfADevice(t *testing.T) {
	p, l := openLedger(t)
	john := p.signedIn("john")
	t.Run("DEV-05 the page says whether the device is where the browser is", func(t *testing.T) {
		p.wait(typed, func(d *store.Device) { d.IP = "203.0.113.9" })
		john.enter(typed).says(t, 200, "203.0.113.9", ", the network you are on now")
		p.wait("BCDFGHJK")
		john.enter("BCDFGHJK").says(t, 200, "198.51.100.7", "<strong>not</strong> the network you are on now")
	})
	t.Run("DEV-05 what a client may already is told apart from what is new", func(t *testing.T) {
		p.wait("CDFGHJKL", func(d *store.Device) { d.Scopes = oauth.Scopes{"issues:read"} })
		page := john.enter("CDFGHJKL")
		page.says(t, 200, "It will be able to")
		john.confirm(page).says(t, 200, "go back")
		p.wait("DFGHJKLM")
		john.enter("DFGHJKLM").says(t, 200, "It may already", ">New<")
	})
	t.Run("CONS-12, DEV-05 what a careful friend would mention stands on the page of a device too", func(t *testing.T) {
		saying := func(code string, words string, rule policy.Rule, change func(*cimd.Document)) {
			t.Helper()
			p := openDevices(t)
			rule.Name, rule.Host, rule.Action = "devices", "*.example.com", policy.Allow
			p.rule(rule)
			if change != nil {
				p.dir.put(tvID, change)
			}
			p.wait(code)
			p.signedIn("john").enter(code).says(t, 200, "Did you start this on your device?", words)
		}
		saying("BCDFGHJK", "This app is in development.", policy.Rule{Development: true}, nil)
		saying("CDFGHJKL", "We cannot reach this app’s address right now.", policy.Rule{}, func(d *cimd.Document) { d.Stale = true })
		saying("DFGHJKLM", "First time anyone", policy.Rule{}, nil)
		p := openDevices(t)
		john := p.signedIn("john")
		p.wait("FGHJKLMN")
		john.confirm(john.enter("FGHJKLMN")).says(t, 200, "go back")
		p.dir.put(tvID, func(d *cimd.Document) { d.SecurityDigest = "s2" })
		p.wait("GHJKLMNP")
		john.enter("GHJKLMNP").says(t, 200, "This app has changed since you last agreed.")
	})
	t.Run("CACHE-21 what changed comes before what was not ticked", func(t *testing.T) {
		page := john.enter("DFGHJKLM")
		p.dir.put(tvID, func(d *cimd.Document) { d.Name, d.SecurityDigest = "Other Name", "s2" })
		john.confirm(page, "started", "").says(t, 200, "Something changed")
	})
	t.Run("FETCH-20 the document of a device that a person looks at is fetched", func(t *testing.T) {
		p.dir.cold[tvID] = true
		before := p.dir.fetches
		if john.enter("DFGHJKLM").says(t, 200); p.dir.fetches != before+1 {
			t.Error("not fetched")
		}
	})
	t.Run("CACHE-21 a device that asked for no scope gets none, whatever is usual by now", func(t *testing.T) {
		p.wait("FGHJKLMN", func(d *store.Device) { d.Scopes, d.Details = nil, folderDetail })
		page := john.enter("FGHJKLMN")
		john.confirm(page).says(t, 200, "go back")
		if g := l.approved.Answer.Grant; len(g.Scopes) != 0 || g.Details != folderDetail {
			t.Errorf("%+v", g)
		}
	})
	t.Run("DEV-04 a code that ended before anybody looked at the page", func(t *testing.T) {
		d := p.wait("GHJKLMNP")
		token := entryField.FindStringSubmatch(john.get("/device").body)[1]
		to := john.do(http.MethodPost, "/device", url.Values{"form": {token}, "user_code": {"GHJKLMNP"}}).Header.Get("Location")
		p.clock.pass(d.Expires.Sub(p.clock.Now()))
		john.get(to).says(t, 409, "This code is no longer valid")
	})
	t.Run("DEV-08 a session that cannot be read is no session that ended", func(t *testing.T) {
		p.wait("HJKLMNPQ")
		page := john.enter("HJKLMNPQ")
		p.h.SignIn = lostSessions{p.login}
		defer func() { p.h.SignIn = p.login }()
		for _, a := range []answered{
			john.confirm(page), john.get("/device"), john.do(http.MethodPost, "/device", url.Values{"user_code": {typed}}),
		} {
			if a.StatusCode != http.StatusInternalServerError {
				t.Errorf("%d", a.StatusCode)
			}
		}
	})
}

// lostSessions is a sign-in that cannot look sessions up.
type lostSessions struct{ *gateman }

func (lostSessions) Current(*http.Request) (*login.User, error) { return nil, errors.New("disk") }
