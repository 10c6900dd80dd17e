package authorize

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

var update = flag.Bool("update", false, "rewrite the golden pages")

// varying are the parts of a page that differ from run to run.
var varying = []struct {
	find *regexp.Regexp
	put  string
}{
	{regexp.MustCompile(`(name="transaction" value=")[^"]+`), "${1}SEALED"},
	{regexp.MustCompile(`(/logo\?ref=)[^"]+`), "${1}SEALED"},
	{regexp.MustCompile(`(/assets/\w+)\.[\w-]+\.`), "${1}.HASH."},
	{regexp.MustCompile(`[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}`), "REFE-RENC"},
}

func golden(t *testing.T, name, body string) {
	t.Helper()
	for _, v := range varying {
		body = v.find.ReplaceAllString(body, v.put)
	}
	file := filepath.Join("testdata", name+".html")
	if *update {
		if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), body); diff != "" {
		t.Errorf("the page has changed; look at it, then run the test with -update (-want +got):\n%s", diff)
	}
}

// scene prepares a consent page for the golden files.
type scene struct {
	file  string
	place func(*testing.T) (*person, url.Values)
}

const (
	hostileID = "https://login.accounts.claude.ai.secure-sign-in.attacker.example.net/c.json"
	claudeID  = "https://claude.ai/oauth/claude-code-client-metadata"
	vscodeID  = "https://vscode.dev/oauth/client-metadata.json"
)

func (p *place) add(id string, change func(*cimd.Document)) {
	p.t.Helper()
	p.dir.docs[id] = document(p.t, id, change)
}

func (p *place) rule(r policy.Rule) {
	p.t.Helper()
	set := testPolicy()
	set.Rules = []policy.Rule{r}
	if err := set.Check(); err != nil {
		p.t.Fatal(err)
	}
	p.dir.policy = set
}

func claudeCode(d *cimd.Document) {
	d.Name, d.ApplicationType = "Claude Code", "native"
	d.RedirectURIs = []string{"http://localhost/callback", "http://127.0.0.1/callback"}
}

var scenes = []scene{
	{"development", func(t *testing.T) (*person, url.Values) {
		p := open(t)
		p.rule(policy.Rule{Name: "sandbox", Host: "good.example.com", Action: policy.Allow, Development: true})
		b := p.signedIn("john")
		b.consents(asks(goodID))
		return b, asks(goodID)
	}},
	{"particulars", func(t *testing.T) (*person, url.Values) {
		p := open(t)
		return p.signedIn("john"), asks(goodID, "scope", "issues:read", "authorization_details",
			`[{"type":"repository","repository":"acme/website","actions":["read","write"]},{"type":"repository","repository":"<b>a repository with a name that goes on and on, x</b>"}]`)
	}},
	{"step-up", func(t *testing.T) (*person, url.Values) {
		p := open(t)
		p.add(vscodeID, func(d *cimd.Document) {
			d.Name, d.ApplicationType, d.LogoURI = "Visual Studio Code", "native", "https://vscode.dev/logo.png"
			d.RedirectURIs = []string{"https://vscode.dev/redirect", "http://127.0.0.1:33418/"}
			d.ClientURI, d.PolicyURI, d.TOSURI = "https://code.visualstudio.com/", "https://go.microsoft.com/privacy", "https://go.microsoft.com/terms"
		})
		p.rule(policy.Rule{Name: "editor", Host: "vscode.dev", Action: policy.Allow})
		p.dir.logo = []byte("png")
		b := p.signedIn("john")
		v := asks(vscodeID, "redirect_uri", "https://vscode.dev/redirect")
		b.consents(v)
		v.Set("scope", "issues:read issues:write offline_access unknown")
		return b, v
	}},
	{"native-first-time", func(t *testing.T) (*person, url.Values) {
		p := open(t, func(c *Config) { c.Connections = "/connections" })
		p.add(claudeID, claudeCode)
		return p.signedIn("john"), asks(claudeID, "redirect_uri", "http://localhost:49152/callback", "scope", "issues:read issues:write")
	}},
	{"hostile", func(t *testing.T) (*person, url.Values) {
		p := open(t)
		p.add(hostileID, func(d *cimd.Document) {
			d.Name, d.LogoURI = "Claude <script>alert(1)</script> {{.}}", "https://claude.ai/logo.png"
			d.RedirectURIs = []string{"https://collector.example.org/cb"}
			d.Stale = true
		})
		return p.signedIn("john"), asks(hostileID, "redirect_uri", "https://collector.example.org/cb")
	}},
	{"registered-again", func(t *testing.T) (*person, url.Values) {
		p := open(t)
		b := p.signedIn("john")
		v := asks(operated)
		b.consents(v)
		b.site = "cross-site"
		return b, v
	}},
}

func TestConsentPage(t *testing.T) {
	for _, s := range scenes {
		t.Run(s.file, func(t *testing.T) {
			b, v := s.place(t)
			page := b.authorize(v)
			asked(t, page)
			golden(t, s.file, page.body)
			if dir := os.Getenv("BONAFIDE_PAGES"); dir != "" {
				writePage(t, b.p, dir, s.file, page.body)
			}
		})
	}
	t.Run("return", func(t *testing.T) {
		p := open(t)
		page := p.signedIn("john").authorize(invalidScope(nativeID))
		golden(t, "return", page.body)
		if dir := os.Getenv("BONAFIDE_PAGES"); dir != "" {
			writePage(t, p, dir, "return", page.body)
		}
	})
}

// writePage writes a page with its stylesheet beside it, to be looked at.
func writePage(t *testing.T, p *place, dir, name, body string) {
	t.Helper()
	mux := http.NewServeMux()
	for _, r := range p.edge.Routes() {
		mux.Handle(r.Pattern, r.Handler)
	}
	p.mux = mux
	href := regexp.MustCompile(`href="(/assets/bonafide[^"]+)"`).FindStringSubmatch(body)
	css := p.browser().get(href[1]).body
	body = strings.Replace(body, `<link rel="stylesheet" href="`+href[1]+`">`, "<style>"+css+"</style>", 1)
	if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

// see returns the consent page for a client whose document was changed.
func see(t *testing.T, id string, change func(*cimd.Document), pairs ...string) answered {
	t.Helper()
	p := open(t)
	p.dir.logo = []byte("png")
	p.add(id, change)
	b := p.signedIn("john")
	page := b.authorize(asks(id, pairs...))
	asked(t, page)
	return page
}

func TestWhatThePageSays(t *testing.T) {
	good := func(*cimd.Document) {}
	t.Run("CONS-01: the host leads, the name follows as a claim", func(t *testing.T) {
		page := see(t, goodID, good)
		host, name := strings.Index(page.body, `<h1 class="host`), strings.Index(page.body, "calls itself “<b><bdi>Good App</bdi></b>”")
		if host < 0 || name < host || !strings.Contains(page.body, `<span class="cut">good.</span>example.com</h1>`) {
			t.Errorf("page\n%s", page.body)
		}
		if strings.Count(page.body, "<h1") != 1 {
			t.Error("more than one heading of the first rank")
		}
	})
	t.Run("CONS-01: a client without a name is its host", func(t *testing.T) {
		if page := see(t, goodID, func(d *cimd.Document) { d.Name = "" }); strings.Contains(page.body, "calls itself") {
			t.Errorf("page\n%s", page.body)
		}
	})
	t.Run("CONS-02: the redirect host is named", func(t *testing.T) {
		if page := see(t, goodID, good); !strings.Contains(page.body, "The answer goes to <b>good.example.com</b>") {
			t.Errorf("page\n%s", page.body)
		}
	})
	t.Run("CONS-03, attack CN-10: a public client on a computer is marked, with host and port", func(t *testing.T) {
		page := open(t).signedIn("john").authorize(asks(nativeID))
		for _, want := range []string{"Runs on this computer; cannot be proven", "anyone can claim its name", "<b>127.0.0.1:51004</b> (this computer)"} {
			if !strings.Contains(page.body, want) {
				t.Errorf("the page does not say %q", want)
			}
		}
	})
	t.Run("CONS-04: scopes, tools and the resource in words", func(t *testing.T) {
		page := see(t, goodID, good, "scope", "issues:write openid offline_access")
		for _, want := range []string{"wants to use <b>GitHub tools</b> for you", "<b>create issues</b>", "Can open issues in your name.", `<dt>Tools</dt><dd><ul class="tools"><li>create_issue</li>`, "know who you are", "stay connected"} {
			if !strings.Contains(page.body, want) {
				t.Errorf("the page does not say %q", want)
			}
		}
		fold := strings.Index(page.body, "<details")
		if before := page.body[:fold]; strings.Contains(before, "issues:write") {
			t.Error("the name of a scope stands outside the details")
		}
	})
	t.Run("CONS-06, attack CN-08: no frame, no script, nothing from elsewhere, on every page", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		page := b.authorize(asks(goodID))
		for name, a := range map[string]answered{
			"consent": page, "error": b.authorize(asks(goodID, "redirect_uri", "https://evil.test/")),
			"way back": b.authorize(invalidScope(goodID)), "outdated": b.get("/authorize/resume?tx=x"),
		} {
			csp := a.Header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "img-src 'self'", "base-uri 'none'"} {
				if !strings.Contains(csp, want) {
					t.Errorf("%s: no %s in %q", name, want, csp)
				}
			}
			if strings.Contains(csp, "script-src") || a.Header.Get("X-Frame-Options") != "DENY" || a.Header.Get("Referrer-Policy") != "no-referrer" || a.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: headers %v", name, a.Header)
			}
			if strings.Contains(a.body, "<script") || strings.Contains(a.body, "style=") || strings.Contains(a.body, " on") && regexp.MustCompile(`\son\w+=`).MatchString(a.body) {
				t.Errorf("%s: script or inline style", name)
			}
		}
	})
	t.Run("attack AZ-21: the page asks no other host for anything", func(t *testing.T) {
		page := see(t, goodID, func(d *cimd.Document) { d.LogoURI = "https://evil.test/logo.png" })
		for _, m := range regexp.MustCompile(`(?:src|srcset|action|poster|data)="([^"]+)"`).FindAllStringSubmatch(page.body, -1) {
			if !strings.HasPrefix(m[1], "/") {
				t.Errorf("the page loads or sends to %s", m[1])
			}
		}
	})
	t.Run("CONS-08, attack DO-27: no logo and no green for a client that nobody vouched for", func(t *testing.T) {
		page := see(t, goodID, func(d *cimd.Document) { d.Name, d.LogoURI = "Google", "https://google.com/logo.png" })
		if strings.Contains(page.body, "<img") || strings.Contains(page.body, `class="state proven"`) || !strings.Contains(page.body, "Address checked; not known to Acme") {
			t.Errorf("page\n%s", page.body)
		}
		if !strings.Contains(page.body, "Google is at google.com. This app is at example.com.") {
			t.Error("no warning about the name")
		}
	})
	t.Run("CONS-08: a client that a rule names gets both", func(t *testing.T) {
		p := open(t)
		p.dir.logo = []byte("png")
		p.dir.put(goodID, func(d *cimd.Document) { d.LogoURI = "https://good.example.com/logo.png" })
		p.rule(policy.Rule{Name: "r", Host: "good.example.com", Action: policy.Allow})
		page := p.signedIn("john").authorize(asks(goodID))
		if !strings.Contains(page.body, `<img src="/logo?ref=`) || !strings.Contains(page.body, "Identity checked at its own address") {
			t.Errorf("page\n%s", page.body)
		}
	})
	t.Run("CONS-10: links open nothing of ours and show their host", func(t *testing.T) {
		page := see(t, goodID, func(d *cimd.Document) {
			d.PolicyURI, d.TOSURI, d.ClientURI = "https://legal.example.com/p", "https://legal.example.com/t", "javascript:alert(1)"
		})
		if !strings.Contains(page.body, `<a href="https://legal.example.com/p" rel="noreferrer noopener" target="_blank">legal.example.com</a>`) || strings.Contains(page.body, "javascript:") {
			t.Errorf("page\n%s", page.body)
		}
	})
	t.Run("attack DO-25: a hostile name is text", func(t *testing.T) {
		page := see(t, goodID, func(d *cimd.Document) { d.Name = `</title><img src=x onerror=alert(1)>{{.}}` })
		if strings.Contains(page.body, "<img") || !strings.Contains(page.body, "&lt;img src=x onerror=alert(1)&gt;{{.}}") {
			t.Errorf("page\n%s", page.body)
		}
	})
	t.Run("attack DO-17: another redirect host is named and warned about", func(t *testing.T) {
		page := see(t, "https://evil.com/c.json", func(d *cimd.Document) { d.RedirectURIs = []string{"https://good.example.com/cb"} })
		if !strings.Contains(page.body, "The answer goes to <b>good.example.com</b>") || !strings.Contains(page.body, "The answer goes to example.com, not to evil.com.") {
			t.Errorf("page\n%s", page.body)
		}
	})
	t.Run("CONS-15, attack CU-26: an A-label stays one", func(t *testing.T) {
		page := see(t, "https://xn--80ak6aa92e.com/c.json", good, "redirect_uri", "https://xn--80ak6aa92e.com/cb")
		if !strings.Contains(page.body, `">xn--80ak6aa92e.com</h1>`) || !strings.Contains(page.body, "letters that other programs may show differently") {
			t.Errorf("page\n%s", page.body)
		}
	})
	t.Run("CONS-16: cancel is a button like allow, and neither has the focus", func(t *testing.T) {
		page := see(t, goodID, good)
		if !strings.Contains(page.body, `<button class="button primary" name="decision" value="allow">`) || !strings.Contains(page.body, `<button class="button secondary" name="decision" value="deny">`) {
			t.Errorf("page\n%s", page.body)
		}
		if strings.Contains(page.body, "autofocus") {
			t.Error("something has the focus")
		}
	})
	t.Run("the form may lead to the client in the end", func(t *testing.T) {
		p := open(t)
		csp := p.signedIn("john").authorize(asks(nativeID)).Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "form-action 'self'") || !strings.Contains(csp, "http://127.0.0.1:51004") {
			t.Errorf("CSP %q", csp)
		}
	})
	t.Run("AUTHZ-23 the name follows ui_locales", func(t *testing.T) {
		names := func(d *cimd.Document) { d.Names = map[string]string{"de": "Gute App", "fr": "Bonne App"} }
		for locales, want := range map[string]string{"de-CH en": "Gute App", "ja fr": "Bonne App", "ja": "Good App", "": "Good App"} {
			if page := see(t, goodID, names, "ui_locales", locales); !strings.Contains(page.body, want) {
				t.Errorf("ui_locales %q: no %q", locales, want)
			}
		}
	})
}

func TestStepUpShowsWhatIsNew(t *testing.T) {
	p := open(t)
	b := p.signedIn("john")
	b.consents(asks(goodID))
	page := b.authorize(asks(goodID, "scope", "issues:read issues:write"))
	have, fresh := strings.Index(page.body, "It may already"), strings.Index(page.body, `<h2 id="new">New</h2>`)
	t.Run("CONS-04: what is new stands apart from what was agreed to", func(t *testing.T) {
		if have < 0 || fresh < have || strings.Index(page.body, "read issues") > fresh || strings.Index(page.body, "create issues") < fresh {
			t.Errorf("page\n%s", page.body)
		}
	})
	t.Run("CONS-13: after a change of the client everything is new, and said so", func(t *testing.T) {
		p.dir.put(goodID, func(d *cimd.Document) { d.SecurityDigest = "s2" })
		page := b.authorize(asks(goodID))
		if strings.Contains(page.body, "It may already") || !strings.Contains(page.body, "This app has changed since you last agreed.") {
			t.Errorf("page\n%s", page.body)
		}
	})
}

func TestWarnings(t *testing.T) {
	client := func(host, name string, change func(*attempt)) *attempt {
		a := goodAttempt(t)
		a.client.Host, a.client.Name, a.redirect = host, name, "https://"+host+"/cb"
		if change != nil {
			change(a)
		}
		return a
	}
	rows := []struct {
		name string
		a    *attempt
		want []string // the beginnings, in order
	}{
		{"nothing to say", client("good.example.com", "Good", nil), nil},
		{"attack DO-27: a well-known name", client("evil.com", "Claude for Work", nil), []string{"Claude is at claude.ai"}},
		{"a well-known name at home", client("claude.ai", "Claude Code", nil), nil},
		{"a well-known name below home", client("api.claude.ai", "Claude", nil), nil},
		{"part of a word is no name", client("evil.com", "Claudette and Applewood", nil), nil},
		{"two words", client("evil.com", "My VS Code helper", nil), []string{"VS Code is at vscode.dev"}},
		{"another address in the name", client("evil.com", "Sign in to accounts.bank.co.uk now", nil), []string{"The name mentions accounts.bank.co.uk"}},
		{"its own address in the name", client("www.good.com", "good.com assistant", nil), nil},
		{"a file name is no address", client("good.com", "Node.js helper v1.2", nil), nil},
		{"mixed alphabets", client("evil.com", "Pаypal", nil), []string{"The name mixes alphabets"}},
		{"one other alphabet", client("good.com", "Яндекс карты", nil), nil},
		{"CONS-03: on a computer", client("good.com", "Good", func(a *attempt) { a.redirect = "http://127.0.0.1:1/" }), []string{"This app runs on a computer"}},
		{"on a computer, with a key", client("good.com", "Good", func(a *attempt) {
			a.redirect, a.client.AuthMethods = "http://127.0.0.1:1/", []string{"private_key_jwt"}
		}), nil},
		{"CONS-12: in development", client("good.com", "Good", func(a *attempt) { a.client.Decision.Development = true }), []string{"This app is in development"}},
		{"attack DO-17: another host", client("good.com", "Good", func(a *attempt) { a.redirect = "https://evil.com/" }), []string{"The answer goes to evil.com, not to good.com."}},
		{"another host of the same owner", client("good.com", "Good", func(a *attempt) { a.redirect = "https://www.good.com/" }), nil},
		{"neighbours on a shared host", client("me.github.io", "Good", func(a *attempt) { a.redirect = "https://you.github.io/" }), []string{"The answer goes to you.github.io"}},
		{"a scheme of its own", client("good.com", "Good", func(a *attempt) { a.redirect = "com.good.app:/cb" }), []string{"The answer goes to whichever app"}},
		{"CONS-15: an A-label", client("xn--80ak6aa92e.com", "Good", nil), []string{"This address is written in letters"}},
		{"stale", client("good.com", "Good", func(a *attempt) { a.client.Doc.Stale = true }), []string{"We cannot reach"}},
		{"first seen", client("good.com", "Good", func(a *attempt) { a.client.FirstSeen = true }), []string{"First time anyone at Acme connects good.com."}},
		{"a test name", client("good.test", "Good", nil), []string{"This address exists for tests only."}},
		{"the three most serious of five", client("xn--80ak6aa92e.test", "Claude", func(a *attempt) {
			a.redirect, a.client.FirstSeen, a.client.Doc.Stale = "http://127.0.0.1:1/", true, true
		}), []string{"Claude is at", "This app runs on a computer", "This address is written"}},
		{"a registered client needs none", client("", "Claude", func(a *attempt) {
			a.client.Source, a.client.Doc, a.redirect = directory.SourceRegistered, nil, "https://intranet.example.com/"
		}), nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got := r.a.warnings(&question{}, r.a.client.Name, "Acme")
			ok := len(got) == len(r.want)
			for i := range got {
				ok = ok && i < len(r.want) && strings.HasPrefix(got[i].True, r.want[i]) && got[i].Do != ""
			}
			if !ok {
				t.Errorf("got %+v, want %q", got, r.want)
			}
		})
	}
	t.Run("without a brand", func(t *testing.T) {
		a := client("good.com", "", func(a *attempt) { a.client.FirstSeen = true })
		if got := a.warnings(&question{}, "", ""); len(got) != 1 || got[0].True != "First time anyone here connects good.com." {
			t.Errorf("got %+v", got)
		}
	})
}

func TestHosts(t *testing.T) {
	rows := []struct{ host, cut, sub, main string }{
		{"claude.ai", "", "", "claude.ai"},
		{"CLAUDE.ai", "", "", "claude.ai"},
		{"www.mcpjam.com", "", "www.", "mcpjam.com"},
		{"apify.github.io", "", "", "apify.github.io"},
		{"github.io", "", "", "github.io"},
		{"a.b.bbc.co.uk", "", "a.b.", "bbc.co.uk"},
		{"93.184.216.34", "", "", "93.184.216.34"},
		{"localhost", "", "", "localhost"},
		{"good.test", "", "", "good.test"},
		{"login.accounts.claude.ai.secure-sign-in.attacker.example.net", "….", "", "example.net"},
		{strings.Repeat("a", 63) + ".evil.com", "….", "", "evil.com"},
		{strings.Repeat("a.", 100) + strings.Repeat("b", 40) + ".com", "….", "", strings.Repeat("b", 40) + ".com"},
	}
	for _, r := range rows {
		t.Run("CONS-15: "+r.host, func(t *testing.T) {
			got := newHostView(r.host, headlineRoom)
			if got.Cut != r.cut || got.Sub != r.sub || got.Main != r.main {
				t.Errorf("got %+v", got)
			}
		})
	}
	if got := newHostView("code.visualstudio.com", textRoom).String(); got != "code.visualstudio.com" {
		t.Errorf("in the text: %q", got)
	}
	if d := newDestination("http://[::1]:8080/cb"); d.Host.Main != "::1" || d.Port != ":8080" || !d.Computer {
		t.Errorf("[::1]: %+v", d)
	}
	if d := newDestination("com.example.app:/cb"); !d.App || d.Host.Main != "com.example.app" {
		t.Errorf("scheme: %+v", d)
	}
	for c, want := range map[*directory.Client]string{
		{ID: "x", Host: "claude.ai", Name: "n"}: "claude.ai", {ID: "x", Name: "Intranet"}: "Intranet", {ID: "x"}: "x",
	} {
		if got := headline(c).String(); got != want {
			t.Errorf("headline %q, want %q", got, want)
		}
	}
}

func TestLogo(t *testing.T) {
	p := open(t)
	p.dir.put(goodID, func(d *cimd.Document) { d.LogoURI = "https://good.example.com/logo.png" })
	p.rule(policy.Rule{Name: "r", Host: "good.example.com", Action: policy.Allow})
	p.dir.logo = []byte("\x89PNG\r\n\x1a\n...")
	b := p.signedIn("john")
	page := b.authorize(asks(goodID))
	src := regexp.MustCompile(`src="(/logo[^"]+)"`).FindStringSubmatch(page.body)
	if src == nil {
		t.Fatal("no logo on the page")
	}
	t.Run("CONS-07: served from our origin as PNG, without a chance to run anything", func(t *testing.T) {
		res := b.get(src[1])
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "image/png" || res.Header.Get("X-Content-Type-Options") != "nosniff" ||
			!strings.Contains(res.Header.Get("Content-Security-Policy"), "sandbox") || !bytes.Equal([]byte(res.body), p.dir.logo) {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	})
	t.Run("CONS-07: no open proxy", func(t *testing.T) {
		b.get("/logo").local(t, 404)
		b.get("/logo?ref="+url.QueryEscape(goodID)).local(t, 404)
		b.get("/logo?ref="+page.transaction()).local(t, 404)
		p.browser().get(src[1]).local(t, 404) // nobody signed in
		p.clock.pass(2 * time.Hour)
		b.get(src[1]).local(t, 404)
		p.clock.pass(-2 * time.Hour)
	})
	t.Run("CONS-07: a logo that fails is none", func(t *testing.T) {
		p.dir.logo = nil
		b.get(src[1]).local(t, 404)
		if page := b.authorize(asks(goodID)); strings.Contains(page.body, "<img") {
			t.Error("the page shows a broken picture")
		}
	})
}

func TestPlainWords(t *testing.T) {
	t.Run("AUTHZ-30: every error has words of its own for the person", func(t *testing.T) {
		seen := map[string]oauth.Code{}
		for _, code := range []oauth.Code{oauth.InvalidRequest, oauth.ConsentRequired, oauth.UnmetAuthenticationNeeds, oauth.UnauthorizedClient, oauth.InvalidTarget, oauth.InvalidScope} {
			s := plainly(code)
			if other, twice := seen[s]; twice || strings.Contains(s, string(code)) {
				t.Errorf("%s reads %q, like %s", code, s, other)
			}
			seen[s] = code
		}
	})
	t.Run("the reasons for asking again", func(t *testing.T) {
		a := goodAttempt(t)
		seen := map[string]bool{again(a, &visit{Silent: true}): true, again(a, &visit{}): true}
		a.prompt = oauth.Scopes{promptConsent}
		seen[again(a, &visit{})] = true
		a.prompt, a.client.RedirectURIs = nil, []string{"http://127.0.0.1/"}
		seen[again(a, &visit{})] = true
		if len(seen) != 4 {
			t.Errorf("reasons %v", seen)
		}
	})
	t.Run("CONS-04: what has no words yet is shown by its own name", func(t *testing.T) {
		a := goodAttempt(t)
		a.resource = &policy.Resource{ID: "https://mcp.example.com/mcp", Scopes: []policy.Scope{{Name: "x"}}}
		if got := resourceName(a); got != "mcp.example.com" {
			t.Errorf("resource %q", got)
		}
		if got := a.permission("x").Title; got != "x" {
			t.Errorf("permission %q", got)
		}
	})
	t.Run("CONS-09: a logo that is data is none", func(t *testing.T) {
		p := open(t)
		p.dir.logo = []byte("png")
		p.dir.put(goodID, func(d *cimd.Document) { d.LogoURI = "data:image/png;base64,AAAA" })
		p.rule(policy.Rule{Name: "r", Host: "good.example.com", Action: policy.Allow})
		if page := p.signedIn("john").authorize(asks(goodID)); strings.Contains(page.body, "<img") {
			t.Error("there is a logo")
		}
	})
	t.Run("what the store says about an answer", func(t *testing.T) {
		for err, want := range map[error]int{
			store.ErrSpent: 409, store.ErrExpired: 403, store.ErrNotFound: 403, store.ErrEnded: 403, store.ErrConflict: 403, store.ErrBlocked: 403, io.EOF: 0,
		} {
			var page *web.Refusal
			if got := answerFailed(fmt.Errorf("store: %w", err)); errors.As(got, &page) != (want > 0) || (page != nil && page.Status != want) {
				t.Errorf("%v: %v", err, got)
			}
		}
	})
}

// broken is a store that cannot answer.
type broken struct{ Store }

func (broken) Consent(context.Context, string, string, string) (store.Consent, error) {
	return store.Consent{}, errors.New("disk full at /var/lib/secret")
}

func TestStoreFailure(t *testing.T) {
	t.Run("URL-15: a store that does not answer is no refusal, and gives nothing away", func(t *testing.T) {
		p := open(t)
		b := p.signedIn("john")
		b.consents(asks(goodID))
		p.h.Store = broken{p.store}
		for _, v := range []url.Values{asks(goodID), invalidScope(goodID), asks(goodID, "prompt", "none")} {
			got := b.authorize(v)
			got.local(t, 500)
			if strings.Contains(got.body, "disk") {
				t.Errorf("page\n%s", got.body)
			}
		}
	})
}

func TestDetails(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "just now", -time.Hour: "just now", time.Minute: "1 minute ago", 59 * time.Minute: "59 minutes ago", time.Hour: "1 hour ago",
		47 * time.Hour: "47 hours ago", 48 * time.Hour: "2 days ago",
	} {
		if got := ago(d); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
	if got := accountName(store.User{Name: "john"}); got != "john" {
		t.Errorf("account %q", got)
	}
	e := oauth.Refuse(oauth.InvalidScope, "a \"quoted\" – \\hint\n")
	if got := describe(e); strings.ContainsAny(got, "\"\\\n–") {
		t.Errorf("description %q", got)
	}
}
