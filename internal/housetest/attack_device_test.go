package housetest

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestDevicesThatRace(t *testing.T) {
	t.Parallel()
	h := televised(t)
	john := h.john()
	t.Run("DEV-06, attack DV-07: 16 polls at the moment of the yes, one token", func(t *testing.T) {
		for round := range 8 {
			a := h.started()
			page := john.enter(a.Str("user_code"))
			if round%2 == 0 { // half of the devices have asked before
				h.poll(a).check(t, 400, oauth.AuthorizationPending)
				h.Later(5 * time.Second)
			}
			if done := john.connect(page, "allow"); done.Status != http.StatusOK {
				t.Fatalf("%d %s", done.Status, done.Text())
			}
			answers, err := race(func() (Answer, error) { return h.TryPost(t.Context(), "/token", PollForm(a.Str("device_code"))) })
			if err != nil {
				t.Fatal(err)
			}
			won, token := 0, ""
			for _, b := range answers {
				if b.OK() {
					won, token = won+1, b.Str("access_token")
					continue
				}
				if code := b.Str("error"); b.Status != 400 || code != string(oauth.SlowDown) && code != string(oauth.InvalidGrant) {
					t.Errorf("%d %s", b.Status, b.Raw)
				}
			}
			if won != 1 || !h.active(token) {
				t.Fatalf("round %d: %d winners", round, won)
			}
		}
	})
	t.Run("attack DV-07, attack CN-07: two people answer one code, one answer counts", func(t *testing.T) {
		h.AddUser("eve", Password)
		eve := h.Person()
		eve.SignInAs(eve.Visit(Issuer+"/login"), "eve", Password)
		a := h.started()
		first, second := john.enter(a.Str("user_code")), eve.enter(a.Str("user_code"))
		if done := eve.connect(second, "deny"); done.Status != http.StatusOK {
			t.Fatalf("%d %s", done.Status, done.Text())
		}
		if late := john.connect(first, "allow"); late.Status != http.StatusConflict {
			t.Errorf("%d %s", late.Status, late.Text())
		}
		h.poll(a).check(t, 400, oauth.AccessDenied)
	})
}

func TestDevicesOfThoseWhoAreLockedOut(t *testing.T) {
	t.Parallel()
	h := televised(t)
	s := h.Store()
	eve := h.AddUser("eve", Password)
	signedIn := func() *Person {
		p := h.Person()
		p.SignInAs(p.Visit(Issuer+"/login"), "eve", Password)
		return p
	}
	set := func(t *testing.T, disabled bool) {
		t.Helper()
		do := s.EnableUser
		if disabled {
			do = s.DisableUser
		}
		if err := do(t.Context(), eve.ID, h.Now()); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("attack DV-10, attack CN-19: an account that was disabled with the page open", func(t *testing.T) {
		p, a := signedIn(), h.started()
		page := p.enter(a.Str("user_code"))
		set(t, true)
		if got := p.connect(page, "allow"); got.Status != http.StatusForbidden {
			t.Errorf("%d %s", got.Status, got.Text())
		}
		if got := p.Visit(Issuer + "/device"); !got.Has("password") {
			t.Errorf("%d %s", got.Status, got.Text())
		}
		h.poll(a).check(t, 400, oauth.AuthorizationPending)
		set(t, false)
	})
	t.Run("attack DV-10: an account that was disabled between the yes and the poll", func(t *testing.T) {
		p, a := signedIn(), h.started()
		p.connect(p.enter(a.Str("user_code")), "allow")
		set(t, true)
		h.poll(a).check(t, 400, oauth.InvalidGrant)
		set(t, false)
		h.poll(a).check(t, 400, oauth.InvalidGrant)
	})
	t.Run("attack DV-10, attack CN-19: a client that was blocked between the yes and the poll", func(t *testing.T) {
		p, a := signedIn(), h.started()
		p.connect(p.enter(a.Str("user_code")), "allow")
		if err := s.SetClientState(t.Context(), tvID, store.StateBlocked, "no", h.Now()); err != nil {
			t.Fatal(err)
		}
		if got := h.poll(a); got.OK() {
			t.Errorf("%d %s", got.Status, got.Raw)
		}
	})
}

func TestPollsAndGuessesAreCheap(t *testing.T) {
	t.Parallel()
	h := televised(t)
	a := h.started()
	t.Run("DEV-04, attack DV-02: a device that asks a hundred times a second", func(t *testing.T) {
		h.Post("/token", PollForm(a.Str("device_code"))).check(t, 400, oauth.AuthorizationPending)
		for range 200 {
			h.Later(10 * time.Millisecond)
			h.Post("/token", PollForm(a.Str("device_code"))).check(t, 400, oauth.SlowDown)
		}
	})
	t.Run("attack DV-03: nobody guesses who is not signed in", func(t *testing.T) {
		form := h.john().form(h.john().Visit(Issuer+"/device"), "user_code") // even with somebody else's form
		if page := h.Person().Send(form.With("user_code", a.Str("user_code"))); !page.Has("password") || strings.Contains(page.Body, "tv.test") {
			t.Errorf("%d at %s", page.Status, page.URL)
		}
	})
	t.Run("DEV-03, attack DV-03: an account that guesses is held back, and only it", func(t *testing.T) {
		john := h.john()
		for range 10 {
			if page := john.enter("BBBB-BBBB"); page.Status != http.StatusUnprocessableEntity {
				t.Fatalf("%d %s", page.Status, page.Text())
			}
		}
		if page := john.enter(a.Str("user_code")); page.Status != http.StatusTooManyRequests || page.Header.Get("Retry-After") == "" || !strings.Contains(page.Text(), "10 minutes") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
		h.AddUser("eve", Password)
		eve := h.Person()
		eve.SignInAs(eve.Visit(Issuer+"/login"), "eve", Password)
		if page := eve.enter(a.Str("user_code")); !page.Has("started") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
	h.Server.Close() // writes what is noted behind the answers
	wrong, polls := 0, 0
	for _, e := range h.Events(audit.TypeRefusal) {
		switch e.Code {
		case "wrong user code":
			wrong++
		case string(oauth.SlowDown), string(oauth.AuthorizationPending):
			polls++
		}
	}
	if wrong != 10 || polls != 0 {
		t.Errorf("POL-07, attack DV-02: %d events of guesses, %d of polls", wrong, polls)
	}
}

func TestDevicePagesStandAlone(t *testing.T) {
	t.Parallel()
	h := televised(t)
	john := h.john()
	code := h.started().Str("user_code")
	page := john.enter(code)
	t.Run("DEV-08, attack CN-08: no page about a device can be framed", func(t *testing.T) {
		for _, address := range []string{page.URL.String(), Issuer + "/device", Issuer + "/device?user_code=" + code, Issuer + "/device/confirm", Issuer + "/device/done?tx=x"} {
			got := john.Visit(address)
			if got.Header.Get("X-Frame-Options") != "DENY" || !strings.Contains(got.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") ||
				!strings.Contains(got.Header.Get("Content-Security-Policy"), "form-action 'self';") || got.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %v", address, got.Header)
			}
			if strings.Contains(got.Body, "<script") || strings.Contains(got.Body, "http-equiv") {
				t.Errorf("%s sends itself: %s", address, got.Body)
			}
		}
	})
	t.Run("DEV-08, attack CN-06: forms from elsewhere", func(t *testing.T) {
		for _, field := range []string{"started", "user_code"} {
			from := page
			if field == "user_code" {
				from = john.Visit(Issuer + "/device")
			}
			for _, origin := range []string{"https://evil.test", "null"} {
				f := john.form(from, field).With("started", "yes").With("decision", "allow").With("user_code", code)
				f.Origin = origin
				if got := john.Send(f); got.Status != http.StatusForbidden {
					t.Errorf("%s from %s: %d %s", field, origin, got.Status, got.Text())
				}
			}
		}
	})
	t.Run("DEV-05, attack DV-06: no link answers for the person", func(t *testing.T) {
		for _, query := range []string{"&decision=allow&started=yes", "&form=x", "&tx=x"} {
			if got := john.VisitFrom(Issuer+"/device?user_code="+code+query, "cross-site"); got.URL.Path != "/device" || strings.Contains(got.Body, "tv.test") {
				t.Errorf("%s: %d at %s", query, got.Status, got.URL)
			}
		}
		if n := len(h.Events(audit.TypeConsent)); n != 0 {
			t.Errorf("%d answers", n)
		}
	})
}
