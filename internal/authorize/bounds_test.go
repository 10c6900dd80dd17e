package authorize

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestARequestThatCannotTravelIsRefusedAtTheDoor(t *testing.T) {
	p := open(t)
	p.dir.cold[goodID] = true // nothing is looked at before the sign-in
	for name, form := range map[string]url.Values{
		"attack AZ-13: a state of control characters":       asks(goodID, "state", strings.Repeat("\x01", 4096)),
		"attack AZ-10: eight long resources of angle signs": {"client_id": {goodID}, "resource": slicesOf("https://"+strings.Repeat("<", 2000), 8)},
		"attack AZ-12: eight kilobytes of scope":            asks(goodID, "scope", strings.Repeat("\x02", 8000)),
	} {
		t.Run(name, func(t *testing.T) {
			p.browser().authorize(form).local(t, http.StatusBadRequest)
		})
	}
	t.Run("AUTHZ-13 what a client may need fits", func(t *testing.T) {
		long := asks(goodID, "state", strings.Repeat("s", 4096), "nonce", strings.Repeat("n", 512), "redirect_uri", "https://good.example.com/"+strings.Repeat("c", 2000))
		if a := p.browser().authorize(long); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/login" {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	})
}

func slicesOf(v string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestThePageNamesWhatAScopeIncludes(t *testing.T) {
	p := open(t)
	t.Run("CONS-04 a scope that implies another shows both", func(t *testing.T) {
		page := p.signedIn("john").authorize(asks(goodID, "scope", "issues:write"))
		for _, want := range []string{"create issues", "read issues"} {
			if !strings.Contains(page.body, want) {
				t.Errorf("the page does not say %q", want)
			}
		}
	})
}

func TestTheSignInPageKnowsWhereTheAnswerMayLead(t *testing.T) {
	for name, c := range map[string]struct{ redirect, want string }{
		"named":    {"https://good.example.com/cb", "https://good.example.com/cb"},
		"left out": {"", goodID},
	} {
		t.Run("CONS-06, AUTHZ-06 form-action allows a redirect that is "+name, func(t *testing.T) {
			p := open(t)
			p.dir.cold[goodID] = true
			p.browser().authorize(asks(goodID, "redirect_uri", c.redirect))
			if got := p.login.last.RedirectHost; got != c.want {
				t.Errorf("before the client is known: %q", got)
			}
			b := p.signedIn("john")
			b.decide(b.authorize(asks(goodID, "redirect_uri", c.redirect)), "switch")
			if got := p.login.last.RedirectHost; got != c.want {
				t.Errorf("after \"not you?\": %q", got)
			}
		})
	}
}
