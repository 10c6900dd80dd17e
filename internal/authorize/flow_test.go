package authorize

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// resumes signs the person in where the last request sent them and comes back.
func (b *person) resumes(user string) answered {
	b.p.t.Helper()
	b.signIn(user)
	return b.resume()
}

func (b *person) resume() answered {
	b.p.t.Helper()
	back := b.p.login.last
	if back.Path != "/authorize/resume" {
		b.p.t.Fatalf("the sign-in leads back to %q", back.Path)
	}
	site := b.site
	b.site = "same-origin" // the browser comes from our own sign-in page
	defer func() { b.site = site }()
	return b.get(back.Path + "?tx=" + url.QueryEscape(back.Sealed))
}

func sentToSignIn(t *testing.T, a answered) {
	t.Helper()
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/login" {
		t.Fatalf("got %d to %q, want the sign-in page\n%s", a.StatusCode, a.Header.Get("Location"), a.body)
	}
}

func asked(t *testing.T, a answered) {
	t.Helper()
	if a.StatusCode != http.StatusOK || a.transaction() == "" {
		t.Fatalf("got %d to %q, want the consent page\n%s", a.StatusCode, a.Header.Get("Location"), a.body)
	}
}

func TestFromRequestToCode(t *testing.T) {
	p := open(t)
	b := p.browser()
	b.site = "cross-site"
	sentToSignIn(t, b.authorize(asks(goodID, "nonce", "n1", "login_hint", "john", "state", "a b&c=\r\n<é>")))
	t.Run("AUTHZ-23 the sign-in page is told who asks, and login_hint", func(t *testing.T) {
		if got := p.login.last; got.AppHost != "good.example.com" || got.Username != "john" || got.RedirectHost != "https://good.example.com/cb" || got.Reason != login.ReasonNone {
			t.Errorf("the sign-in page is told %+v", got)
		}
	})
	t.Run("nothing is kept before the sign-in", func(t *testing.T) {
		if got := p.seen.types(); len(got) > 0 {
			t.Errorf("events %v", got)
		}
		if _, err := p.store.Client(t.Context(), goodID); err == nil {
			t.Error("the client has a row")
		}
	})
	page := b.resumes("john")
	asked(t, page)
	res := b.decide(page, "allow")
	q := res.location(t)
	t.Run("AUTHZ-12, attack AZ-18: iss is in the answer", func(t *testing.T) {
		if q.Get("iss") != issuer {
			t.Errorf("iss %q", q.Get("iss"))
		}
	})
	t.Run("AUTHZ-13, attack AZ-13: state comes back byte for byte", func(t *testing.T) {
		if q.Get("state") != "a b&c=\r\n<é>" || strings.ContainsAny(res.Header.Get("Location"), "\r\n<>") {
			t.Errorf("Location %q", res.Header.Get("Location"))
		}
	})
	t.Run("AUTHZ-15: 303 after the form", func(t *testing.T) {
		if res.StatusCode != 303 {
			t.Errorf("status %d", res.StatusCode)
		}
	})
	t.Run("AUTHZ-20, AUTHZ-16: the code is bound and lives 60 seconds", func(t *testing.T) {
		c, err := p.store.FindCode(t.Context(), store.HashOf(q.Get("code")), p.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		g := c.Grant
		if c.RedirectURI != "https://good.example.com/cb" || c.Challenge != challenge || !c.Expires.Equal(p.clock.Now().Add(time.Minute)) {
			t.Errorf("code %+v", c)
		}
		if g.UserID != "john" || g.ClientID != goodID || g.Resource != resource || g.Scopes.String() != "issues:read" || g.Nonce != "n1" ||
			g.SecurityDigest != "s1" || !slices.Equal(g.AuthMethods, []string{"none"}) || g.ACR != login.ACR || !g.AuthTime.Equal(p.clock.Now()) {
			t.Errorf("grant %+v", g)
		}
		if len(q.Get("code")) != 43 {
			t.Errorf("a code of %d characters", len(q.Get("code")))
		}
	})
	t.Run("AUTHZ-21: the challenge is not in the answer", func(t *testing.T) {
		if strings.Contains(res.Header.Get("Location"), challenge) || len(q) != 3 {
			t.Errorf("Location %q", res.Header.Get("Location"))
		}
	})
	t.Run("consent and code are recorded with what they say", func(t *testing.T) {
		if got := p.seen.types(); !slices.Equal(got, []string{"consent", "code"}) {
			t.Errorf("events %v", got)
		}
		for _, e := range p.seen.all {
			if e.Client != goodID || e.User != "john" || e.Resource != resource || e.Grant == "" || e.Ref == "" || e.IP != "203.0.113.9" {
				t.Errorf("event %+v", e)
			}
			if strings.Contains(string(e.MarshalLine()), q.Get("code")) {
				t.Error("the code is in the audit")
			}
		}
	})
	t.Run("the client is kept once somebody agreed", func(t *testing.T) {
		c, err := p.store.Client(t.Context(), goodID)
		if err != nil || c.Source != store.SourceCIMD {
			t.Errorf("%+v, %v", c, err)
		}
		if d, err := p.store.Document(t.Context(), goodID); err != nil || d.SecurityDigest != "s1" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

func TestRedirectKeepsItsQuery(t *testing.T) {
	t.Run("AUTHZ-14: the redirect URI's own query stays as it is", func(t *testing.T) {
		p := open(t)
		const uri = "https://good.example.com/cb?tenant=%61&x"
		p.dir.put(goodID, func(d *cimd.Document) { d.RedirectURIs = []string{uri} })
		b := p.signedIn("john")
		page := b.authorize(asks(goodID, "redirect_uri", uri))
		if got := b.decide(page, "allow").Header.Get("Location"); !strings.HasPrefix(got, uri+"&code=") {
			t.Errorf("Location %q", got)
		}
	})
}

func TestOmittedRedirect(t *testing.T) {
	t.Run("AUTHZ-20, attack AZ-06: the code holds the redirect URI that was used, also when it was left out", func(t *testing.T) {
		p := open(t)
		code := p.signedIn("john").consents(asks(goodID, "redirect_uri", ""))
		c, err := p.store.FindCode(t.Context(), store.HashOf(code), p.clock.Now())
		if err != nil || c.RedirectURI != "https://good.example.com/cb" {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

func TestFetchWaitsForTheSignIn(t *testing.T) {
	t.Run("FETCH-20: a client never seen is not fetched for somebody who is not signed in", func(t *testing.T) {
		p := open(t)
		p.dir.cold[goodID] = true
		b := p.browser()
		sentToSignIn(t, b.authorize(asks(goodID)))
		if p.dir.fetches != 0 {
			t.Fatal("the document was fetched")
		}
		if p.login.last.AppHost != "" {
			t.Errorf("the sign-in page names %q, which nobody has checked", p.login.last.AppHost)
		}
		asked(t, b.resumes("john"))
		if p.dir.fetches != 1 {
			t.Errorf("%d fetches", p.dir.fetches)
		}
	})
	t.Run("FETCH-20: the configuration may allow it", func(t *testing.T) {
		p := open(t, func(c *Config) { c.FetchBeforeSignIn = true })
		p.dir.cold[goodID] = true
		sentToSignIn(t, p.browser().authorize(asks(goodID)))
		if p.dir.fetches != 1 {
			t.Errorf("%d fetches", p.dir.fetches)
		}
	})
	t.Run("FETCH-17: a document that cannot be had ends on a page of ours", func(t *testing.T) {
		p := open(t)
		p.signedIn("john").authorize(asks("https://gone.example.com/c.json")).local(t, 502)
	})
	t.Run("FETCH-17, attack AZ-14: prompt=none for a client that would have to be fetched", func(t *testing.T) {
		p := open(t)
		p.dir.cold[goodID] = true
		p.browser().authorize(asks(goodID, "prompt", "none")).local(t, 400)
	})
}

// invalidScope is a request with a mistake behind the line of trust.
func invalidScope(id string) url.Values { return asks(id, "scope", "nope") }

func TestErrorsAreRedirectedOnlyWithTrust(t *testing.T) {
	t.Run("AUTHZ-10, attack AZ-17: nobody signed in: shown, with the destination named", func(t *testing.T) {
		p := open(t)
		got := p.browser().authorize(invalidScope(goodID))
		got.local(t, 400)
		if !strings.Contains(got.body, "Go back to good.example.com") || !strings.Contains(got.body, "invalid_scope") {
			t.Errorf("page\n%s", got.body)
		}
	})
	t.Run("AUTHZ-11, attack AZ-17: signed in, but this person never agreed: shown", func(t *testing.T) {
		p := open(t)
		p.signedIn("jane").consents(asks(goodID))
		p.signedIn("john").authorize(invalidScope(goodID)).local(t, 400)
	})
	t.Run("AUTHZ-11, AUTHZ-12, AUTHZ-13: a client this person agreed to is told", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.consents(asks(goodID))
		q := b.authorize(invalidScope(goodID)).location(t)
		if q.Get("error") != "invalid_scope" || q.Get("state") != "s1" || q.Get("iss") != issuer || !strings.Contains(q.Get("error_description"), "AUTHZ-19") {
			t.Errorf("answer %v", q)
		}
	})
	t.Run("AUTHZ-11: an agreement that was ended is none", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.consents(asks(goodID))
		if err := p.store.RevokeUserClient(t.Context(), "john", goodID, p.clock.Now()); err != nil {
			t.Fatal(err)
		}
		b.authorize(invalidScope(goodID)).local(t, 400)
	})
	t.Run("AUTHZ-11: a registered client is told", func(t *testing.T) {
		p := open(t)
		q := p.browser().authorize(asks(operated, "code_challenge", "")).location(t)
		if q.Get("error") != "invalid_request" {
			t.Errorf("answer %v", q)
		}
	})
	t.Run("AUTHZ-30: the page names the client, the reason and a reference, and the audit has it", func(t *testing.T) {
		p := open(t)
		got := p.signedIn("john").authorize(invalidScope(goodID))
		for _, want := range []string{"good.example.com", "AUTHZ-19", "none of the requested scopes", "Reference"} {
			if !strings.Contains(got.body, want) {
				t.Errorf("the page does not say %q", want)
			}
		}
		p.h.Audit.Close(t.Context())
		events, err := p.store.Events(t.Context(), store.EventQuery{Type: "refusal"})
		if err != nil || len(events) != 1 || events[0].Rule != "AUTHZ-19" || events[0].User != "john" || events[0].Code != "invalid_scope" {
			t.Errorf("events %+v, %v", events, err)
		}
	})
	t.Run("AUTHZ-02: no link to a redirect URI that is not listed", func(t *testing.T) {
		p := open(t)
		got := p.signedIn("john").authorize(asks(goodID, "redirect_uri", "https://evil.test/steal"))
		got.local(t, 400)
		if strings.Contains(got.body, "evil.test") {
			t.Errorf("the page holds the bad URI:\n%s", got.body)
		}
		if !strings.Contains(got.body, "AUTHZ-03") || !strings.Contains(got.body, "good.example.com") {
			t.Errorf("AUTHZ-30: the page does not say which rule of which client:\n%s", got.body)
		}
	})
}

func TestPrompt(t *testing.T) {
	for _, id := range []string{operated} {
		t.Run("AUTHZ-23, attack AZ-14: prompt=none with nobody signed in", func(t *testing.T) {
			p := open(t)
			q := p.browser().authorize(asks(id, "prompt", "none")).location(t)
			if q.Get("error") != "login_required" || q.Get("iss") != issuer {
				t.Errorf("answer %v", q)
			}
		})
		t.Run("AUTHZ-23, attack AZ-14: prompt=none without consent", func(t *testing.T) {
			p := open(t)
			if q := p.signedIn("john").authorize(asks(id, "prompt", "none")).location(t); q.Get("error") != "consent_required" {
				t.Errorf("answer %v", q)
			}
		})
	}
	t.Run("AUTHZ-10: prompt=none for a fetched client with nobody signed in is shown", func(t *testing.T) {
		open(t).browser().authorize(asks(goodID, "prompt", "none")).local(t, 400)
	})
	t.Run("AUTHZ-23: prompt=none with a remembered consent", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.consents(asks(goodID))
		b.authorize(asks(goodID, "prompt", "none")).code(t)
	})
	t.Run("attack AZ-14: prompt=none never gives a silent code to a public client on a computer", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.consents(asks(nativeID))
		if q := b.authorize(asks(nativeID, "prompt", "none")).location(t); q.Get("error") != "consent_required" || q.Has("code") {
			t.Errorf("answer %v", q)
		}
	})
	t.Run("AUTHZ-23: prompt=login asks for the password once", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		p.clock.pass(time.Second)
		sentToSignIn(t, b.authorize(asks(goodID, "prompt", "login")))
		if p.login.last.Reason != login.ReasonAgain {
			t.Errorf("reason %q", p.login.last.Reason)
		}
		sentToSignIn(t, b.resume()) // coming back without having done it
		p.clock.pass(time.Second)
		asked(t, b.resumes("john"))
	})
	t.Run("AUTHZ-23: prompt=select_account offers another account", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		p.clock.pass(time.Second)
		sentToSignIn(t, b.authorize(asks(goodID, "prompt", "select_account")))
		if p.login.last.Reason != login.ReasonSwitch {
			t.Errorf("reason %q", p.login.last.Reason)
		}
		asked(t, b.resumes("jane"))
	})
	t.Run("AUTHZ-23: prompt=consent is never silent", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.consents(asks(goodID))
		page := b.authorize(asks(goodID, "prompt", "consent"))
		asked(t, page)
		if !strings.Contains(page.body, "asked us to check with you again") {
			t.Error("the page does not say why it asks again")
		}
	})
}

func TestStepUp(t *testing.T) {
	t.Run("AUTHZ-24: max_age asks for the password again when the sign-in is too old", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		p.clock.pass(time.Minute)
		asked(t, b.authorize(asks(goodID, "max_age", "60")))
		p.clock.pass(time.Second)
		sentToSignIn(t, b.authorize(asks(goodID, "max_age", "60")))
		p.clock.pass(time.Second)
		asked(t, b.resumes("john"))
	})
	t.Run("AUTHZ-24: max_age=0 is met by signing in", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		p.clock.pass(time.Second)
		sentToSignIn(t, b.authorize(asks(goodID, "max_age", "0")))
		p.clock.pass(time.Second)
		page := b.resumes("john")
		p.clock.pass(time.Second)
		b.decide(page, "allow").code(t)
	})
	t.Run("AUTHZ-24: max_age with prompt=none cannot be met", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.consents(asks(goodID))
		p.clock.pass(time.Minute)
		if q := b.authorize(asks(goodID, "max_age", "5", "prompt", "none")).location(t); q.Get("error") != "login_required" {
			t.Errorf("answer %v", q)
		}
	})
	t.Run("AUTHZ-24: an acr that the sign-in does not reach ends in an error, not in a weaker token", func(t *testing.T) {
		p := open(t, func(c *Config) { c.ACRs = []string{login.ACR, "urn:example:strong"} })
		b := p.signedIn("john")
		b.consents(asks(goodID))
		p.clock.pass(time.Second)
		sentToSignIn(t, b.authorize(asks(goodID, "acr_values", "urn:example:strong"))) // it may succeed
		p.clock.pass(time.Second)
		if q := b.resumes("john").location(t); q.Get("error") != "unmet_authentication_requirements" || q.Has("code") {
			t.Errorf("answer %v", q)
		}
	})
	t.Run("AUTHZ-24: an acr that is met changes nothing", func(t *testing.T) {
		asked(t, open(t).signedIn("john").authorize(asks(goodID, "acr_values", "loa9 "+login.ACR)))
	})
}

func TestPostAndMethods(t *testing.T) {
	p := open(t)
	b := p.signedIn("john")
	t.Run("AUTHZ-01: POST is asked again by GET, so that cookies come along", func(t *testing.T) {
		b := p.browser()
		b.extra.Set("Origin", "https://good.example.com")
		b.extra.Set("Sec-Fetch-Site", "cross-site")
		res := b.do(http.MethodPost, "/authorize", asks(goodID, "state", "x y"))
		loc := res.Header.Get("Location")
		if res.StatusCode != 303 || !strings.HasPrefix(loc, "/authorize?") {
			t.Fatalf("%d to %q\n%s", res.StatusCode, loc, res.body)
		}
		c := p.signedIn("john")
		c.site = "cross-site"
		asked(t, c.get(loc))
	})
	t.Run("attack AZ-16: parameters in the query and in the body", func(t *testing.T) {
		b.do(http.MethodPost, "/authorize?client_id=x", asks(goodID)).local(t, 400)
	})
	for _, m := range []string{"HEAD", "PUT", "OPTIONS", "DELETE"} {
		t.Run("attack AZ-20: "+m, func(t *testing.T) {
			res := b.do(m, "/authorize?"+asks(goodID).Encode(), nil)
			if res.StatusCode != 405 || res.Header.Get("Location") != "" {
				t.Errorf("%d to %q", res.StatusCode, res.Header.Get("Location"))
			}
		})
	}
	t.Run("attack AZ-20: the Host header decides nothing", func(t *testing.T) {
		b := p.signedIn("john")
		b.extra.Set("X-Forwarded-Host", "evil.test")
		b.extra.Set("Host", "evil.test")
		page := b.authorize(asks(goodID))
		res := b.decide(page, "allow")
		if strings.Contains(page.body, "evil.test") || res.location(t).Get("iss") != issuer {
			t.Errorf("Location %q", res.Header.Get("Location"))
		}
	})
	t.Run("AUTHZ-22: no CORS", func(t *testing.T) {
		b := p.signedIn("john")
		b.extra.Set("Origin", "https://evil.test")
		for k := range b.authorize(asks(goodID)).Header {
			if strings.HasPrefix(k, "Access-Control-") {
				t.Errorf("header %s", k)
			}
		}
	})
	t.Run("GET /consent gives nothing", func(t *testing.T) { b.get("/consent").local(t, 405) })
}

func TestBoundToTheBrowser(t *testing.T) {
	t.Run("AUTHZ-27, attack CN-14: a request begun in another browser is worth no more than a stranger's link", func(t *testing.T) {
		p := open(t)
		attacker, victim := p.browser(), p.signedIn("john")
		victim.consents(asks(goodID))
		sentToSignIn(t, attacker.authorize(asks(goodID))) // Sec-Fetch-Site: none, as the attacker likes
		page := victim.resume()
		asked(t, page) // although john's consent is remembered
		attacker.decide(page, "allow").local(t, 403)
		victim.decide(page, "allow").code(t)
	})
	t.Run("AUTHZ-27, attack CN-14: nor does an earlier sign-in count for it", func(t *testing.T) {
		p := open(t)
		attacker := p.browser()
		p.clock.pass(time.Second)
		sentToSignIn(t, attacker.authorize(asks(goodID, "prompt", "login")))
		p.clock.pass(time.Second)
		victim := p.signedIn("john")
		p.clock.pass(time.Second)
		sentToSignIn(t, victim.resume())
	})
	t.Run("two tabs that raced for the cookie both go on", func(t *testing.T) {
		p := open(t)
		one, two := p.browser(), p.browser()
		sentToSignIn(t, one.authorize(asks(goodID)))
		first := p.login.last
		sentToSignIn(t, two.authorize(asks(goodID)))
		two.signIn("john") // the same browser: the second cookie is the one it kept
		asked(t, two.resume())
		p.login.last = first
		page := two.resume()
		asked(t, page)
		two.decide(page, "allow").code(t)
	})
	t.Run("attack CN-14: a consent page cannot be answered in another browser", func(t *testing.T) {
		p := open(t)
		page := p.signedIn("john").authorize(asks(goodID))
		asked(t, page)
		p.signedIn("john").decide(page, "allow").local(t, 403)
	})
	t.Run("attack CN-06: the page of another session", func(t *testing.T) {
		p := open(t)
		page := p.signedIn("jane").authorize(asks(goodID))
		b := p.signedIn("john")
		b.authorize(asks(goodID))
		b.decide(page, "allow").local(t, 403)
		b.decide(page, "deny").local(t, 403)
	})
	t.Run("attack CN-06: after signing in again the page is for the new session", func(t *testing.T) {
		for _, choice := range []string{"allow", "deny"} {
			p := open(t)
			b := p.signedIn("john")
			page := b.authorize(asks(goodID))
			b.signIn("jane")
			page = b.decide(page, choice)
			asked(t, page)
			if !strings.Contains(page.body, "jane@acme.example") || len(p.seen.types()) > 0 {
				t.Errorf("events %v, page\n%s", p.seen.types(), page.body)
			}
			b.decide(page, "allow").code(t)
		}
	})
	t.Run("attack CN-06: signed out meanwhile", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		delete(b.cookies, "__Host-bonafide_session")
		b.decide(page, "allow").local(t, 403)
	})
	t.Run("AUTHZ-27: a sealed request of half an hour ago", func(t *testing.T) {
		p := open(t)
		b := p.browser()
		sentToSignIn(t, b.authorize(asks(goodID)))
		p.clock.pass(31 * time.Minute)
		b.resumes("john").local(t, 403)
	})
	t.Run("AUTHZ-27: nothing but our own seal is resumed", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.get("/authorize/resume").local(t, 403)
		b.get("/authorize/resume?tx=abc").local(t, 403)
		page := b.authorize(asks(goodID))
		b.get("/authorize/resume?tx="+page.transaction()).local(t, 403) // another purpose
	})
	t.Run("the browser cookie is ours alone", func(t *testing.T) {
		p := open(t)
		for _, c := range p.browser().authorize(asks(goodID)).Cookies() {
			if c.Name != "__Host-bonafide_browser" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" {
				t.Errorf("cookie %+v", c)
			}
		}
	})
}

func TestCheckedAgainOnResume(t *testing.T) {
	begin := func(t *testing.T) (*place, *person) {
		p := open(t)
		b := p.browser()
		sentToSignIn(t, b.authorize(asks(goodID)))
		return p, b
	}
	t.Run("CACHE-21: the redirect URI is gone from the document", func(t *testing.T) {
		p, b := begin(t)
		p.dir.put(goodID, func(d *cimd.Document) { d.RedirectURIs = []string{"https://good.example.com/new"} })
		b.resumes("john").local(t, 400)
	})
	t.Run("CACHE-21, POL-05: the policy has changed", func(t *testing.T) {
		p, b := begin(t)
		set := testPolicy()
		set.Default = policy.Deny
		if err := set.Check(); err != nil {
			t.Fatal(err)
		}
		p.dir.policy = set
		b.resumes("john").local(t, 403)
	})
	t.Run("CACHE-21: the same at the answer to the consent page", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		p.dir.put(goodID, func(d *cimd.Document) { d.RedirectURIs = []string{"https://good.example.com/new"} })
		b.decide(page, "allow").local(t, 400)
	})
	t.Run("POL-05: a client that was blocked while the page was open", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		if err := p.store.SetClientState(t.Context(), goodID, store.StateBlocked, "test", p.clock.Now()); err != nil {
			t.Fatal(err)
		}
		b.decide(page, "allow").local(t, 403)
	})
	t.Run("CACHE-21: scopes that shrank while the page was open are asked again", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID, "scope", "issues:read issues:write"))
		p.dir.put(goodID, func(d *cimd.Document) { d.HasScope, d.Scope = true, "issues:read" })
		page = b.decide(page, "allow")
		asked(t, page)
		if !strings.Contains(page.body, "Something changed while this page was open") {
			t.Error("the page does not say that something changed")
		}
		code := b.decide(page, "allow").code(t)
		c, err := p.store.FindCode(t.Context(), store.HashOf(code), p.clock.Now())
		if err != nil || c.Grant.Scopes.String() != "issues:read" {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("a document whose security digest changed is asked again", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		p.dir.put(goodID, func(d *cimd.Document) { d.SecurityDigest = "s2" })
		asked(t, b.decide(page, "allow"))
	})
}

func TestAnswerOnce(t *testing.T) {
	t.Run("attack CN-07: the same answer twice gives one code", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		b.decide(page, "allow").code(t)
		b.decide(page, "allow").local(t, 409)
	})
	t.Run("attack CN-07: no after yes, and yes after no", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID, "prompt", "consent"))
		b.decide(page, "allow").code(t)
		b.decide(page, "deny").local(t, 409)
		page = b.authorize(asks(goodID, "prompt", "consent"))
		if q := b.decide(page, "deny").location(t); q.Get("error") != "access_denied" {
			t.Errorf("answer %v", q)
		}
		b.decide(page, "allow").local(t, 409)
	})
	t.Run("attack CN-07: sixteen clicks at once", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		results := make(chan int, 16)
		for range 16 {
			c := &person{p: p, cookies: b.cookies, extra: http.Header{}}
			go func() { results <- c.decide(page, "allow").StatusCode }()
		}
		yes := 0
		for range 16 {
			if <-results == 303 {
				yes++
			}
		}
		if yes != 1 {
			t.Errorf("%d codes for one decision", yes)
		}
	})
	t.Run("CONS-16: cancel tells the client, with state and iss, and leaves a trace", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		q := b.decide(b.authorize(asks(goodID)), "deny").location(t)
		if q.Get("error") != "access_denied" || q.Get("state") != "s1" || q.Get("iss") != issuer || q.Has("code") {
			t.Errorf("answer %v", q)
		}
		if got := p.seen.types(); !slices.Equal(got, []string{"consent_denied"}) {
			t.Errorf("events %v", got)
		}
		if _, err := p.store.Client(t.Context(), goodID); err == nil {
			t.Error("a client to which everybody said no has a row")
		}
	})
	t.Run("attack CN-18: the connection was ended while the page was open", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.consents(asks(goodID))
		page := b.authorize(asks(goodID, "prompt", "consent"))
		p.clock.pass(time.Second)
		if err := p.store.RevokeUserClient(t.Context(), "john", goodID, p.clock.Now()); err != nil {
			t.Fatal(err)
		}
		p.clock.pass(time.Second)
		b.decide(page, "allow").local(t, 403)
	})
	t.Run("attack CN-18, attack CN-19: the user was disabled while the page was open", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		if err := p.store.DisableUser(t.Context(), "john", p.clock.Now()); err != nil {
			t.Fatal(err)
		}
		b.decide(page, "allow").local(t, 403)
	})
	t.Run("attack CN-06: no token, a made-up one, no decision", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		b.do("POST", "/consent", url.Values{"decision": {"allow"}}).local(t, 403)
		b.do("POST", "/consent", url.Values{"decision": {"allow"}, "transaction": {"abc"}}).local(t, 403)
		b.do("POST", "/consent", url.Values{"transaction": {page.transaction()}}).local(t, 400)
	})
	for _, origin := range []string{"https://evil.test", "null"} {
		t.Run("attack CN-06: Origin "+origin, func(t *testing.T) {
			p := open(t)
			b := p.signedIn("john")
			page := b.authorize(asks(goodID))
			b.extra.Set("Origin", origin)
			b.extra.Set("Sec-Fetch-Site", "cross-site")
			b.decide(page, "allow").local(t, 403)
			b.extra["Sec-Fetch-Site"] = nil
			b.decide(page, "allow").local(t, 403)
		})
	}
	t.Run("a page of half an hour ago", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		p.clock.pass(31 * time.Minute)
		b.decide(page, "allow").local(t, 403)
	})
	t.Run("not you? is never followed by silence", func(t *testing.T) {
		p := open(t)
		p.signedIn("jane").consents(asks(goodID))
		b := p.signedIn("john")
		sentToSignIn(t, b.decide(b.authorize(asks(goodID)), "switch"))
		asked(t, b.resumes("jane"))
	})
	t.Run("not you? leads to the sign-in and back to the same request", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		sentToSignIn(t, b.decide(b.authorize(asks(goodID, "state", "mine")), "switch"))
		if p.login.last.Reason != login.ReasonSwitch {
			t.Errorf("reason %q", p.login.last.Reason)
		}
		page := b.resumes("jane")
		asked(t, page)
		if !strings.Contains(page.body, "jane@acme.example") {
			t.Error("the page is not for jane")
		}
		if q := b.decide(page, "allow").location(t); q.Get("state") != "mine" {
			t.Errorf("answer %v", q)
		}
	})
}

func TestSilence(t *testing.T) {
	agreed := func(t *testing.T, v url.Values) (*place, *person) {
		t.Helper()
		p := open(t)
		b := p.signedIn("john")
		b.consents(v)
		return p, b
	}
	for _, site := range []string{"none", "same-origin"} {
		t.Run("attack CN-05: "+site+" may be silent", func(t *testing.T) {
			p, b := agreed(t, asks(goodID))
			b.site = site
			b.authorize(asks(goodID)).code(t)
			if got := p.seen.types(); !slices.Equal(got, []string{"consent", "code", "code"}) {
				t.Errorf("events %v", got)
			}
			if p.seen.all[2].Code != "remembered" {
				t.Errorf("event %+v", p.seen.all[2])
			}
		})
	}
	for _, site := range []string{"cross-site", "same-site", ""} {
		t.Run("attack CN-04, attack CN-05: Sec-Fetch-Site "+site+" is asked", func(t *testing.T) {
			_, b := agreed(t, asks(goodID))
			b.site = site
			page := b.authorize(asks(goodID))
			asked(t, page)
			if !strings.Contains(page.body, "another site sent you here") {
				t.Error("the page does not say why it asks again")
			}
		})
	}
	t.Run("attack CN-04: signing in does not wash off where a request came from", func(t *testing.T) {
		p, b := agreed(t, asks(goodID))
		delete(b.cookies, "__Host-bonafide_session")
		b.site = "cross-site"
		sentToSignIn(t, b.authorize(asks(goodID)))
		asked(t, b.resumes("john"))
		_ = p
	})
	t.Run("attack CN-05: prefetch and prerender get nothing", func(t *testing.T) {
		p, b := agreed(t, asks(goodID))
		for _, v := range []string{"prefetch", "prefetch;prerender", "prefetch;anonymous-client-ip"} {
			b.extra.Set("Sec-Purpose", v)
			b.authorize(asks(goodID)).local(t, 425)
			b.get("/authorize/resume?tx=x").local(t, 425)
		}
		if got := p.seen.types(); len(got) != 2 {
			t.Errorf("events %v", got)
		}
	})
	t.Run("CONS-05, attack CN-10: a public client on a computer is asked each time", func(t *testing.T) {
		_, b := agreed(t, asks(nativeID))
		page := b.authorize(asks(nativeID))
		asked(t, page)
		if !strings.Contains(page.body, "cannot prove that it is still the same one") {
			t.Error("the page does not say why it asks again")
		}
	})
	t.Run("CONS-05: a client that always authenticates may be silent", func(t *testing.T) {
		_, b := agreed(t, asks(keyedID))
		b.authorize(asks(keyedID, "redirect_uri", "http://127.0.0.1:4000/cb")).code(t)
	})
	t.Run("CONS-05: a public client that lists a loopback beside https is asked each time", func(t *testing.T) {
		p, b := agreed(t, asks(goodID))
		p.dir.put(goodID, func(d *cimd.Document) { d.RedirectURIs = append(d.RedirectURIs, "http://127.0.0.1/cb") })
		asked(t, b.authorize(asks(goodID)))
	})
	t.Run("CONS-05: the policy decides otherwise", func(t *testing.T) {
		p, b := agreed(t, asks(nativeID))
		yes, no := true, false
		for _, c := range []struct {
			remember *bool
			silent   bool
		}{{&yes, true}, {&no, false}} {
			set := testPolicy()
			set.Rules = []policy.Rule{{Name: "r", Host: "native.example.com", Action: policy.Allow, Remember: c.remember}}
			if err := set.Check(); err != nil {
				t.Fatal(err)
			}
			p.dir.policy = set
			if got := b.authorize(asks(nativeID)); (got.StatusCode == 303) != c.silent {
				t.Errorf("remember %t: status %d", *c.remember, got.StatusCode)
			}
		}
	})
	spoiled := []struct {
		name   string
		change func(*place, *person) url.Values
	}{
		{"CONS-13: another scope", func(*place, *person) url.Values { return asks(goodID, "scope", "issues:read admin") }},
		{"CONS-13: another resource", func(*place, *person) url.Values {
			return asks(goodID, "resource", "https://other.example.com/mcp", "scope", "x")
		}},
		{"CONS-13: another person", func(_ *place, b *person) url.Values { b.signIn("jane"); return asks(goodID) }},
		{"CONS-13: the document's security has changed", func(p *place, _ *person) url.Values {
			p.dir.put(goodID, func(d *cimd.Document) { d.SecurityDigest = "s2" })
			return asks(goodID)
		}},
		{"CONS-13: the connection was ended", func(p *place, _ *person) url.Values {
			if err := p.store.RevokeUserClient(t.Context(), "john", goodID, p.clock.Now()); err != nil {
				t.Fatal(err)
			}
			return asks(goodID)
		}},
	}
	for _, s := range spoiled {
		t.Run(s.name+" is asked", func(t *testing.T) {
			p, b := agreed(t, asks(goodID))
			p.clock.pass(time.Second)
			asked(t, b.authorize(s.change(p, b)))
		})
	}
	t.Run("CONS-13: fewer scopes, and scopes that are implied, are covered", func(t *testing.T) {
		_, b := agreed(t, asks(goodID, "scope", "issues:write"))
		b.authorize(asks(goodID, "scope", "issues:read")).code(t)
	})
	t.Run("mistake 31: a change that is no matter of security stays silent", func(t *testing.T) {
		p, b := agreed(t, asks(goodID))
		p.dir.put(goodID, func(d *cimd.Document) { d.Digest, d.LogoURI = "d2", "https://good.example.com/new.png" })
		b.authorize(asks(goodID)).code(t)
	})
	t.Run("attack CN-01: the page comes before any code, with the client and the redirect host", func(t *testing.T) {
		page := open(t).signedIn("john").authorize(asks(nativeID))
		asked(t, page)
		for _, want := range []string{"native.example.com", "127.0.0.1:51004"} {
			if !strings.Contains(page.body, want) {
				t.Errorf("the page does not name %s", want)
			}
		}
	})
	t.Run("attack DO-29: what was agreed to is what the code holds", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		code := b.consents(asks(goodID))
		p.dir.put(goodID, func(d *cimd.Document) {
			d.RedirectURIs, d.SecurityDigest = []string{"https://evil.example.com/cb"}, "s9"
		})
		c, err := p.store.FindCode(t.Context(), store.HashOf(code), p.clock.Now())
		if err != nil || c.RedirectURI != "https://good.example.com/cb" || c.Grant.SecurityDigest != "s1" {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("a registered client keeps its row", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.consents(asks(operated))
		c, err := p.store.Client(t.Context(), operated)
		if err != nil || c.Source != store.SourceRegistered || c.Name != "Intranet" {
			t.Errorf("%+v, %v", c, err)
		}
		b.authorize(asks(operated)).code(t)
	})
}

func TestTheConfigurationIsChecked(t *testing.T) {
	p := open(t)
	good := p.h.Config
	for name, spoil := range map[string]func(*Config){
		"no issuer": func(c *Config) { c.Issuer = "" }, "no directory": func(c *Config) { c.Directory = nil }, "no store": func(c *Config) { c.Store = nil },
		"no sign-in": func(c *Config) { c.SignIn = nil }, "no edge": func(c *Config) { c.Edge = nil }, "no sealer": func(c *Config) { c.Sealer = nil },
		"no audit": func(c *Config) { c.Audit = nil }, "AUTHZ-20: a code of an hour": func(c *Config) { c.CodeLife = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			spoil(&c)
			if _, err := New(c); err == nil {
				t.Error("accepted")
			}
		})
	}
	c := good
	c.CodeLife, c.ACRs, c.Now, c.Logger = 0, nil, nil, nil
	h, err := New(c)
	if err != nil || h.CodeLife != time.Minute || h.ACRs[0] != login.ACR || h.Now == nil {
		t.Errorf("defaults %+v, %v", h, err)
	}
}

func TestPKCEVectorIsTheOneOfTheRFC(t *testing.T) {
	if digest(verifier) != challenge || !oauth.VerifierMatches(verifier, challenge) {
		t.Error("the test vector is wrong")
	}
}
