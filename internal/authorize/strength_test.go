package authorize

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

const strong = "urn:example:strong"

func strongToo(c *Config) { c.ACRs = []string{login.ACR, strong} }

// signInStrongly is signIn with a context that is more than a password.
func (b *person) signInStrongly(user string) {
	b.p.t.Helper()
	now, token := b.p.clock.Now(), oauth.RandomToken(32)
	err := b.p.store.StartSession(b.p.t.Context(), store.Session{Hash: store.HashOf(token), UserID: user, AuthTime: now, Created: now, LastSeen: now,
		Expires: now.Add(12 * time.Hour), ACR: strong, AMR: []string{"pwd", "otp"}})
	if err != nil {
		b.p.t.Fatal(err)
	}
	b.cookies["__Host-bonafide_session"] = token
}

func TestDevicesAskForStrength(t *testing.T) {
	const code = "BCDFGHJK"
	start := func(p *place, pairs ...string) string {
		t.Helper()
		r := p.begin(pairs...)
		user, _ := r.body["user_code"].(string)
		if r.Code != http.StatusOK || user == "" {
			t.Fatalf("%d %s", r.Code, r.Body)
		}
		return user
	}
	t.Run("AUTHZ-24, DEV-05 acr_values that the sign-in does not meet: the person signs in again, and with a stronger one goes on", func(t *testing.T) {
		p := openDevices(t, strongToo)
		b := p.signedIn("john")
		p.clock.pass(time.Minute)
		user := start(p, "acr_values", strong)
		if a := b.enter(user); a.Header.Get("Location") != "/login" || p.login.last.Reason != login.ReasonAgain || p.login.last.Path != pathDevice {
			t.Fatalf("%d %s: %+v", a.StatusCode, a.Header.Get("Location"), p.login.last)
		}
		if got := p.login.last.ACR; len(got) != 1 || got[0] != strong {
			t.Errorf("the sign-in page, and a provider behind it, are told %v", got)
		}
		b.signInStrongly("john")
		page := b.enter(user)
		b.confirm(page).says(t, 200, "Connected")
	})
	t.Run("AUTHZ-24 a sign-in that is new and still too weak is refused, and so is one that changed while the page was open", func(t *testing.T) {
		p := openDevices(t, strongToo)
		user := start(p, "acr_values", strong)
		p.clock.pass(time.Minute)
		p.signedIn("john").enter(user).says(t, 400, string(oauth.UnmetAuthenticationNeeds))
		b := p.browser()
		b.signInStrongly("john")
		page := b.enter(user)
		b.signIn("john")
		b.confirm(page).says(t, 400, string(oauth.UnmetAuthenticationNeeds))
	})
	t.Run("AUTHZ-24 max_age: an old sign-in is not enough, a new one is", func(t *testing.T) {
		p := openDevices(t)
		b := p.signedIn("john")
		p.clock.pass(time.Hour)
		user := start(p, "max_age", "60")
		if a := b.enter(user); a.Header.Get("Location") != "/login" || p.login.last.Reason != login.ReasonAgain {
			t.Fatalf("%d %s: %+v", a.StatusCode, a.Header.Get("Location"), p.login.last)
		}
		p.clock.pass(time.Minute)
		b.signIn("john")
		p.clock.pass(2 * time.Minute) // they need a while to read
		b.confirm(b.enter(user)).says(t, 200, "Connected")
	})
	t.Run("AUTHZ-24 without either any sign-in will do", func(t *testing.T) {
		p := openDevices(t, strongToo)
		b := p.signedIn("john")
		p.clock.pass(time.Hour)
		p.wait(code)
		b.confirm(b.enter(code)).says(t, 200, "Connected")
	})
	t.Run("AUTHZ-24 what no sign-in here can meet, and what is no number, is refused at once", func(t *testing.T) {
		p := openDevices(t, strongToo)
		p.begin("acr_values", "urn:example:never").refused(t, 400, oauth.UnmetAuthenticationNeeds)
		p.begin("max_age", "soon").refused(t, 400, oauth.InvalidRequest)
		if hint, _ := p.begin("max_age", "-1").body["error_description"].(string); !strings.Contains(hint, "max_age") {
			t.Error(hint)
		}
	})
}
