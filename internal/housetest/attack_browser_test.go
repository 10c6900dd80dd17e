package housetest

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/oauth"
)

func cookies(p *Person) []*http.Cookie {
	u, _ := url.Parse(Issuer + "/consent")
	return p.Cookies(u)
}

func (p *Person) form(page *browse.Page, field string) *browse.Form {
	p.House.TB.Helper()
	f, err := page.Form(field)
	if err != nil {
		p.House.TB.Fatal(err)
	}
	return f
}

// TestConsentBelongsToABrowser: a decision counts in the browser and the session
// to which the page was shown, from our own page, and once.
func TestConsentBelongsToABrowser(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, eve := h.john(), h.AddUser("eve", Password)
	mallory := h.Person()
	mallory.SignInAs(mallory.Visit(Issuer+"/login"), "eve", Password)
	page := john.Visit(h.Authorize())
	if !page.Has("decision") {
		t.Fatalf("attack CN-01: no consent page: %s", page.Text())
	}
	form := func() *browse.Form { return john.form(page, "decision").With("decision", "allow") }
	forbidden := func(t *testing.T, got *browse.Page, code int) {
		t.Helper()
		if got.Left || got.Status != code || got.Header.Get("Location") != "" {
			t.Errorf("%d at %s: %s", got.Status, got.URL, got.Text())
		}
	}
	for _, origin := range []string{"https://evil.test", "null", "https://sub.as.test", "http://as.test"} {
		t.Run("CONS-06, attack CN-06: the form from "+origin, func(t *testing.T) {
			f := form()
			f.Origin = origin
			forbidden(t, john.Send(f), 403)
		})
	}
	t.Run("CONS-06, attack CN-06: without the sealed question", func(t *testing.T) {
		f := form()
		f.Values.Del("transaction")
		forbidden(t, john.Send(f), 403)
		forbidden(t, john.Send(form().With("transaction", "AAAA"+f.Values.Get("transaction"))), 403)
	})
	t.Run("AUTHZ-27, attack CN-14, attack CN-02: in another person's browser", func(t *testing.T) {
		forbidden(t, mallory.Send(form()), 403)
	})
	t.Run("AUTHZ-27, attack CN-06: another person's page", func(t *testing.T) {
		f := mallory.form(mallory.Visit(h.Authorize()), "decision")
		forbidden(t, john.Send(f.With("decision", "allow")), 403)
	})
	t.Run("AUTHZ-27, attack CN-14: a sign-in that was begun elsewhere is worth no more than a link", func(t *testing.T) {
		attacker := h.Person()
		begun := attacker.Visit(h.Authorize()).URL.String() // is at /login?tx=
		ada := h.AddUser("ada", Password)
		victim := h.Person()
		victim.SignInAs(victim.Visit(Issuer+"/login"), ada.Name, Password)
		h.grant(victim) // even who agreed before is asked
		got := victim.Visit(begun)
		if got.Left || !got.Has("decision") {
			t.Fatalf("%d at %s: %s", got.Status, got.URL, got.Text())
		}
		stolen := victim.form(got, "decision").With("decision", "allow")
		forbidden(t, attacker.Send(stolen), 403)
		forbidden(t, mallory.Send(stolen), 403)
		if page := attacker.Visit(begun); page.Left || !page.Has("password") {
			t.Errorf("%d at %s", page.Status, page.URL)
		}
	})
	t.Run("CONS-06: a decision that is none", func(t *testing.T) {
		forbidden(t, john.Send(form().With("decision", "maybe")), 400)
	})
	if n := len(h.Events(audit.TypeCode)); n != 1 { // the one of Ada's own
		t.Fatalf("%d codes were issued", n)
	}
	t.Run("AUTHZ-15, attack CN-07: the answer counts once", func(t *testing.T) {
		first := john.Send(form())
		if !first.Left || first.URL.Query().Get("code") == "" || len(first.Hops) != 1 || first.Hops[0] != 303 {
			t.Fatalf("%d at %s, %v", first.Status, first.URL, first.Hops)
		}
		forbidden(t, john.Send(form()), 409)
		forbidden(t, john.Send(form().With("decision", "deny")), 409)
		if a := h.Post("/token", CodeForm(first.URL.Query().Get("code"))); !a.OK() {
			t.Errorf("the first answer does not stand: %d %s", a.Status, a.Raw)
		}
	})
	t.Run("AUTHZ-27: a page that was open for too long", func(t *testing.T) {
		page = john.Visit(h.Authorize("scope", "mcp:write"))
		f := form()
		h.Later(31 * time.Minute)
		forbidden(t, john.Send(f), 403)
	})
	s := h.Store()
	defer s.Close()
	t.Run("attack CN-18: the consent was taken back while the page was open", func(t *testing.T) {
		user, err := s.UserByName(t.Context(), User)
		if err != nil {
			t.Fatal(err)
		}
		page = john.Visit(h.Authorize("scope", "mcp:write"))
		f := form()
		h.Later(time.Second)
		if err := s.RevokeUserClient(t.Context(), user.ID, ClientID, h.Now()); err != nil {
			t.Fatal(err)
		}
		h.Later(time.Minute) // what counts is when the page was shown, not when it is answered
		forbidden(t, john.Send(f), 403)
	})
	t.Run("attack CN-18, attack CN-19: the account was disabled while the page was open", func(t *testing.T) {
		f := mallory.form(mallory.Visit(h.Authorize()), "decision").With("decision", "allow")
		if err := s.DisableUser(t.Context(), eve.ID, h.Now()); err != nil {
			t.Fatal(err)
		}
		forbidden(t, mallory.Send(f), 403)
	})
}

// TestTheDocumentChangesBehindThePage: what the person decides about is looked at
// again when they decide.
func TestTheDocumentChangesBehindThePage(t *testing.T) {
	t.Parallel()
	h := New(t)
	john, host := h.john(), h.Net.Host("fickle.test")
	const short = "max-age=60"
	id := host.ServeClient("/c.json", nil, "Cache-Control", short)
	address := h.Authorize("client_id", id, "redirect_uri", "https://fickle.test/cb")
	open := func(change map[string]any) *browse.Page {
		t.Helper()
		host.ServeClient("/c.json", nil, "Cache-Control", short)
		h.Later(2 * time.Minute)
		page := john.Visit(address)
		if !page.Has("decision") {
			t.Fatalf("%d %s", page.Status, page.Text())
		}
		host.ServeClient("/c.json", change, "Cache-Control", short)
		h.Later(2 * time.Minute)
		return page
	}
	t.Run("CACHE-21, attack DO-29: the redirect URI is gone when the person says yes", func(t *testing.T) {
		page := open(map[string]any{"redirect_uris": []string{"https://evil.test/cb"}})
		local(t, john.Send(john.form(page, "decision").With("decision", "allow")), 400)
	})
	t.Run("CACHE-21: the name is another: the page is shown again and says so", func(t *testing.T) {
		page := open(map[string]any{"client_name": "Somebody else"})
		again := john.Send(john.form(page, "decision").With("decision", "allow"))
		if again.Left || !again.Has("decision") || !strings.Contains(again.Text(), "Something changed") || !strings.Contains(again.Text(), "Somebody else") {
			t.Errorf("%d at %s: %s", again.Status, again.URL, again.Text())
		}
	})
	t.Run("CACHE-15, CACHE-21, mistake 27: the document is gone", func(t *testing.T) {
		page := open(nil)
		host.Remove("/c.json")
		local(t, john.Send(john.form(page, "decision").With("decision", "allow")), 502)
	})
	t.Run("CACHE-21: it became invalid", func(t *testing.T) {
		page := open(map[string]any{"client_secret": "x"})
		local(t, john.Send(john.form(page, "decision").With("decision", "allow")), 400)
	})
	if n := len(h.Events(audit.TypeCode)); n != 0 {
		t.Errorf("%d codes were issued", n)
	}
	h.Later(2 * time.Minute)
	t.Run("attack DO-29, mistake 28: a code stays with the redirect URI and the document it was issued for", func(t *testing.T) {
		host.ServeClient("/c.json", nil, "Cache-Control", short)
		h.Later(2 * time.Minute)
		code := john.Code(address)
		host.ServeClient("/c.json", map[string]any{"redirect_uris": []string{"https://evil.test/cb"}}, "Cache-Control", short)
		h.Post("/token", CodeForm(code, "client_id", id, "redirect_uri", "https://evil.test/cb")).check(t, 400, oauth.InvalidGrant)
		if a := h.Post("/token", CodeForm(code, "client_id", id, "redirect_uri", "https://fickle.test/cb")); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("CONS-13, CACHE-17, mistake 31: a new logo asks nobody again, a new redirect URI does", func(t *testing.T) {
		host.ServeClient("/c.json", map[string]any{"logo_uri": "https://fickle.test/new.png"}, "Cache-Control", short)
		h.Later(2 * time.Minute)
		if page := john.Visit(address); !page.Left {
			t.Errorf("asked again for a logo: %s", page.Text())
		}
		host.ServeClient("/c.json", map[string]any{"redirect_uris": []string{"https://fickle.test/cb", "https://fickle.test/new"}}, "Cache-Control", short)
		h.Later(2 * time.Minute)
		if page := john.Visit(address); page.Left || !page.Has("decision") {
			t.Errorf("not asked again for another redirect URI: %v", page.URL)
		}
	})
}

func TestRememberedConsent(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	loop := h.Net.Host("good.test").ServeClient("/loop.json", map[string]any{"redirect_uris": []string{"http://127.0.0.1/cb", "http://localhost/cb"}})
	h.grant(john)
	h.grant(john, "client_id", loop, "redirect_uri", "http://127.0.0.1:51004/cb")
	for site, silent := range map[string]bool{"none": true, "same-origin": true, "same-site": false, "cross-site": false} {
		t.Run("CONS-05, attack CN-04, attack CN-05, mistake 30: Sec-Fetch-Site "+site, func(t *testing.T) {
			page := john.VisitFrom(h.Authorize(), site)
			if page.Left != silent {
				t.Errorf("at %s: %d %s", page.URL, page.Status, page.Text())
			}
			if !silent && !strings.Contains(page.Text(), "good.test") {
				t.Error("CONS-02: the destination is not shown")
			}
		})
	}
	bare := func(edit ...func(*http.Request)) *browse.Page {
		t.Helper()
		return h.send(http.MethodGet, h.Authorize(), "", append(edit, func(r *http.Request) {
			for _, c := range cookies(john) {
				r.AddCookie(c)
			}
		})...)
	}
	t.Run("attack CN-05: the header was stripped on the way, or stands twice", func(t *testing.T) {
		for _, page := range []*browse.Page{bare(), bare(header("Sec-Fetch-Site", "none"), header("Sec-Fetch-Site", "none"))} {
			if page.Status != 200 || !page.Has("decision") {
				t.Errorf("%d %v", page.Status, page.Header)
			}
		}
	})
	t.Run("CONS-05, attack CN-05: a prefetch gets no code", func(t *testing.T) {
		before := len(h.Events(audit.TypeCode))
		for _, name := range []string{"Sec-Purpose", "Purpose"} {
			page := bare(header("Sec-Fetch-Site", "none"), header(name, "prefetch"))
			if page.Status < 400 || page.Header.Get("Location") != "" {
				t.Errorf("%d %v", page.Status, page.Header)
			}
		}
		if page := bare(header("Sec-Fetch-Site", "none"), header("Sec-Purpose", "prefetch;prerender")); page.Status < 400 {
			t.Errorf("%d", page.Status)
		}
		if n := len(h.Events(audit.TypeCode)); n != before {
			t.Errorf("%d codes", n-before)
		}
	})
	t.Run("CONS-02, CONS-03, CONS-05, attack CN-10: an app on this computer is asked each time, with its port", func(t *testing.T) {
		page := john.Visit(h.Authorize("client_id", loop, "redirect_uri", "http://127.0.0.1:6666/cb"))
		text := page.Text()
		if page.Left || !strings.Contains(text, "127.0.0.1:6666") || !strings.Contains(text, "computer") {
			t.Errorf("at %s: %s", page.URL, text)
		}
	})
	t.Run("CONS-13: another person agreed to nothing", func(t *testing.T) {
		h.AddUser("ada", Password)
		p := h.Person()
		p.SignInAs(p.Visit(Issuer+"/login"), "ada", Password)
		if page := p.Visit(h.Authorize()); page.Left {
			t.Errorf("at %s", page.URL)
		}
	})
	t.Run("URL-13: another client_id of the same host agreed to nothing", func(t *testing.T) {
		id := h.Net.Host("good.test").ServeClient("/d.json", nil)
		if page := john.Visit(h.Authorize("client_id", id)); page.Left {
			t.Errorf("at %s", page.URL)
		}
	})
	t.Run("CONS-04: more than was agreed to is shown apart", func(t *testing.T) {
		page := john.Visit(h.Authorize("scope", "mcp:read mcp:write"))
		if page.Left || !strings.Contains(page.Text(), "It may already look things up") || !strings.Contains(page.Text(), "New make changes") {
			t.Errorf("at %s: %s", page.URL, page.Text())
		}
	})
}

func TestSessions(t *testing.T) {
	t.Parallel()
	h := New(t)
	session := func(p *Person) string {
		for _, c := range cookies(p) {
			if c.Name == "__Host-bonafide_session" {
				return c.Value
			}
		}
		return ""
	}
	u, _ := url.Parse(Issuer + "/")
	t.Run("AUTHZ-27, attack CN-12: a planted session id is not taken over", func(t *testing.T) {
		p := h.Person()
		planted := oauth.RandomToken(32)
		p.SetCookies(u, []*http.Cookie{{Name: "__Host-bonafide_session", Value: planted, Path: "/", Secure: true}})
		p.SignIn(p.Visit(Issuer + "/login"))
		if s := session(p); s == planted || s == "" {
			t.Errorf("the session is %q", s)
		}
		thief := h.Person()
		thief.SetCookies(u, []*http.Cookie{{Name: "__Host-bonafide_session", Value: planted, Path: "/", Secure: true}})
		if page := thief.Visit(h.Authorize()); !page.Has("password") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
	t.Run("AUTHZ-27, attack CN-12: signing in again ends the old session", func(t *testing.T) {
		p := h.john()
		old := session(p)
		h.Later(time.Second)
		p.SignIn(p.Visit(h.Authorize("prompt", "login")))
		if session(p) == old {
			t.Fatal("the session id is the same")
		}
		thief := h.Person()
		thief.SetCookies(u, []*http.Cookie{{Name: "__Host-bonafide_session", Value: old, Path: "/", Secure: true}})
		if page := thief.Visit(h.Authorize()); !page.Has("password") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
	john := h.john()
	get := func(cookie string) *browse.Page {
		t.Helper()
		return h.send(http.MethodGet, h.Authorize(), "", header("Cookie", cookie), header("Sec-Fetch-Site", "none"))
	}
	own := "__Host-bonafide_session=" + session(john)
	t.Run("attack CN-13: our cookies carry the prefix that no sibling host can set", func(t *testing.T) {
		page := h.send(http.MethodGet, h.Authorize(), "")
		for _, c := range page.Header.Values("Set-Cookie") {
			if !strings.HasPrefix(c, "__Host-") || !strings.Contains(c, "Secure") || !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax") || strings.Contains(c, "Domain") {
				t.Error(c)
			}
		}
	})
	t.Run("attack CN-13: two cookies of the name are none", func(t *testing.T) {
		if page := get(own); page.Status != 200 {
			t.Fatalf("%d", page.Status)
		}
		for _, both := range []string{own + "; __Host-bonafide_session=evil", "__Host-bonafide_session=evil; " + own} {
			if page := get(both); page.Status != 303 || !strings.HasPrefix(page.Header.Get("Location"), "/login") {
				t.Errorf("%d %v", page.Status, page.Header)
			}
		}
	})
	t.Run("attack CN-13: 200 cookies, and one of 16 kB", func(t *testing.T) {
		if page := get(own + strings.Repeat("; a=b", 200)); page.Status != 200 {
			t.Errorf("%d", page.Status)
		}
		if page := get(own + "; x=" + strings.Repeat("x", 16<<10)); page.Status >= 500 {
			t.Errorf("%d", page.Status)
		}
	})
	t.Run("AUTHZ-27, attack CN-11: nobody can sign a stranger's browser in", func(t *testing.T) {
		attacker, victim := h.Person(), h.Person()
		victim.Visit(Issuer + "/login")
		f := attacker.form(attacker.Visit(Issuer+"/login"), "password").With("username", User).With("password", Password)
		if page := victim.Send(f); page.Status != 400 || session(victim) != "" {
			t.Errorf("%d %s", page.Status, page.Text())
		}
		f = victim.form(victim.Visit(Issuer+"/login"), "password").With("username", User).With("password", Password)
		f.Origin = "https://evil.test"
		if page := victim.Send(f); page.Status != 403 || session(victim) != "" {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
	t.Run("attack CN-20: unknown name, wrong password and disabled account read the same, and guessing is slowed down", func(t *testing.T) {
		s := h.Store()
		defer s.Close()
		gone := h.AddUser("gone", Password)
		if err := s.DisableUser(t.Context(), gone.ID, h.Now()); err != nil {
			t.Fatal(err)
		}
		p := h.Person()
		texts := map[string]bool{}
		for _, try := range [][2]string{{User, "wrong"}, {"nobody", "wrong"}, {"gone", Password}} {
			page := p.SignInAs(p.Visit(Issuer+"/login"), try[0], try[1])
			if page.Status != 422 {
				t.Errorf("%s: status %d", try[0], page.Status)
			}
			texts[page.Text()] = true
		}
		if len(texts) != 1 {
			t.Errorf("the pages differ: %v", texts)
		}
		limited := false
		for range 30 {
			limited = limited || p.SignInAs(p.Visit(Issuer+"/login"), User, "wrong").Status == 429
		}
		if !limited {
			t.Error("30 wrong passwords in a second")
		}
	})
}

// TestPagesCannotBeFramed looks at every kind of page.
func TestPagesCannotBeFramed(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	for name, address := range map[string]string{
		"consent": h.Authorize(), "error": h.Authorize("client_id", "x"), "return": h.Authorize("response_type", "x"),
		"logout": Issuer + "/logout", "home": Issuer + "/", "nowhere": Issuer + "/nowhere", "damaged way back": Issuer + "/login?tx=x",
	} {
		t.Run("CONS-06, attack CN-08, attack AZ-21: "+name, func(t *testing.T) {
			page := john.Visit(address)
			csp := page.Header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "img-src 'self'"} {
				if !strings.Contains(csp, want) {
					t.Errorf("the policy is %q", csp)
				}
			}
			if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") || page.Header.Get("X-Frame-Options") != "DENY" ||
				page.Header.Get("Referrer-Policy") != "no-referrer" || page.Header.Get("Cache-Control") != "no-store" || page.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%v", page.Header)
			}
			for _, src := range []string{`src="http`, `href="http://`, "<script", " onload=", "style=\""} {
				if strings.Contains(page.Body, src) {
					t.Errorf("the page holds %s", src)
				}
			}
		})
	}
}

func picture(t *testing.T, w, height int) []byte {
	t.Helper()
	img := image.NewPaletted(image.Rect(0, 0, w, height), color.Palette{color.White, color.Black})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLogos(t *testing.T) {
	h := New(t, "policy: {default: allow}", "policy: {default: allow, rules: [{host: good.test, action: allow}]}")
	john, good := h.john(), h.Net.Host("good.test")
	h.Net.DNS("inner.test", mustAddr("10.0.0.1"))
	of := func(typ string, body []byte) cimdtest.Response {
		return cimdtest.Response{Header: http.Header{"Content-Type": {typ}}, Body: body}
	}
	good.Serve("/good.png", of("image/png", picture(t, 64, 64)))
	good.Serve("/l.svg", of("image/svg+xml", []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`)))
	good.Serve("/huge.png", of("image/png", picture(t, 20_000, 20)))
	good.Serve("/big.png", of("image/png", append(picture(t, 8, 8), make([]byte, 300<<10)...)))
	good.Serve("/html.png", of("image/png", []byte("GIF89a<html><script>alert(1)</script>")))
	good.Serve("/typed.png", of("text/html", picture(t, 64, 64)))
	good.Serve("/away.png", cimdtest.Response{Status: 302, Header: http.Header{"Location": {"https://good.test/good.png"}}})
	show := func(name, uri string) *browse.Page {
		t.Helper()
		id := good.ServeClient("/"+name+".json", map[string]any{"logo_uri": uri})
		page := john.Visit(h.Authorize("client_id", id))
		if page.Status != 200 || !page.Has("decision") {
			t.Fatalf("%d %s", page.Status, page.Text())
		}
		h.Later(time.Second)
		return page
	}
	for name, uri := range map[string]string{
		"attack CN-15: SVG with a script": "https://good.test/l.svg", "attack CN-15: 20,000 pixels wide": "https://good.test/huge.png",
		"FETCH-10, attack CN-15: too many bytes": "https://good.test/big.png", "attack CN-15: HTML that begins as a GIF": "https://good.test/html.png",
		"attack CN-15: wrong media type": "https://good.test/typed.png", "FETCH-06, attack CN-15: a redirect": "https://good.test/away.png",
		"FETCH-06, attack SD-34: a private address": "https://inner.test/l.png", "CONS-09: data:": "data:image/png;base64,AAAA",
		"attack CN-15: not there": "https://good.test/none.png",
	} {
		t.Run(name+" shows the page without a logo", func(t *testing.T) {
			if page := show("l"+string(reference.ReplaceAll([]byte(oauth.S256(name)), nil)), uri); strings.Contains(page.Body, "/logo?") {
				t.Errorf("%s", page.Body)
			}
		})
	}
	t.Run("CONS-07, attack CN-15: a good one is served by us, re-encoded", func(t *testing.T) {
		page := show("pretty", "https://good.test/good.png")
		_, rest, ok := strings.Cut(page.Body, `src="/logo?`)
		if !ok {
			t.Fatalf("no logo: %s", page.Body)
		}
		ref, _, _ := strings.Cut(rest, `"`)
		logo := john.Visit(Issuer + "/logo?" + ref)
		if logo.Status != 200 || logo.Header.Get("Content-Type") != "image/png" || logo.Header.Get("X-Content-Type-Options") != "nosniff" ||
			!strings.Contains(logo.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%d %v", logo.Status, logo.Header)
		}
		if page := h.Person().Visit(Issuer + "/logo?" + ref); page.Status == 200 {
			t.Error("a stranger sees it, too")
		}
	})
	if len(h.Net.Strays()) != 0 {
		t.Errorf("strays %v", h.Net.Strays())
	}
}
