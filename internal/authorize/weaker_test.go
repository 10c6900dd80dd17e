package authorize

import (
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestThePageIsAnsweredByAWeakerSignIn(t *testing.T) {
	t.Run("AUTHZ-24 a sign-in that came after the page has to be as strong as the client asked", func(t *testing.T) {
		p := open(t, strongToo)
		b := p.browser()
		b.signInStrongly("john")
		page := b.authorize(asks(operated, "acr_values", strong))
		b.signIn("john")
		if q := b.decide(page, "allow").location(t); q.Get("error") != string(oauth.UnmetAuthenticationNeeds) || q.Has("code") {
			t.Errorf("%v", q)
		}
	})
	t.Run("AUTHZ-24 and as fresh", func(t *testing.T) {
		p := open(t)
		b, other := p.signedIn("john"), p.signedIn("john")
		p.clock.pass(time.Hour)
		b.signIn("john")
		p.clock.pass(time.Minute)
		page := b.authorize(asks(operated, "max_age", "120"))
		b.cookies["__Host-bonafide_session"] = other.cookies["__Host-bonafide_session"]
		if a := b.decide(page, "allow"); a.Header.Get("Location") != "/login" || p.login.last.Reason != login.ReasonAgain {
			t.Errorf("%d %s: %s", a.StatusCode, a.Header.Get("Location"), p.login.last.Reason)
		}
	})
	t.Run("AUTHZ-24 one that is both is shown the page again", func(t *testing.T) {
		p := open(t, strongToo)
		b := p.browser()
		b.signInStrongly("john")
		page := b.authorize(asks(operated, "acr_values", strong))
		b.signInStrongly("john")
		page = b.decide(page, "allow")
		b.decide(page, "allow").code(t)
	})
}
