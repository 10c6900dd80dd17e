package housetest

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/internal/web"
)

// A tenant is an issuer with a path: everything stands below it.
const tenant = Issuer + "/tenant"

var links = regexp.MustCompile(`(?:href|src|action)="([^"]+)"`)

func TestAnIssuerWithAPath(t *testing.T) {
	h := New(t, "issuer: https://as.test", "issuer: "+tenant)
	below := func(t *testing.T, body string) {
		t.Helper()
		for _, m := range links.FindAllStringSubmatch(body, -1) {
			if strings.HasPrefix(m[1], "/") && !strings.HasPrefix(m[1], "/tenant/") && !strings.HasPrefix(m[1], "/.well-known/") {
				t.Errorf("a link leaves the issuer: %s", m[1])
			}
		}
	}
	john := h.Person()
	address := strings.Replace(h.Authorize("scope", "openid mcp:read"), Issuer, tenant, 1)
	var code string
	t.Run("META-02, META-18 sign-in, consent and code below the path", func(t *testing.T) {
		page := john.VisitFrom(address, "cross-site")
		if page.URL.Path != "/tenant/login" {
			t.Fatalf("at %s", page.URL)
		}
		below(t, page.Body)
		page = john.SignIn(page)
		below(t, page.Body)
		for _, m := range links.FindAllStringSubmatch(page.Body, -1) {
			if strings.Contains(m[1], "/assets/") {
				if a := h.Get(m[1]); !a.OK() {
					t.Errorf("%s: %d", m[1], a.Status)
				}
			}
		}
		back := john.Answer(page, "allow").URL
		if code = back.Query().Get("code"); code == "" || back.Query().Get("iss") != tenant {
			t.Fatalf("META-03 back at %s", back)
		}
	})
	t.Run("AUTHZ-01 a POST from another site finds its way below the path", func(t *testing.T) {
		u, _ := url.Parse(address)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tenant+"/authorize", strings.NewReader(u.RawQuery))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", "https://good.test")
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		if a := h.Do(req); a.Status != http.StatusSeeOther || !strings.HasPrefix(a.Header.Get("Location"), "/tenant/authorize?") {
			t.Errorf("%d to %s", a.Status, a.Header.Get("Location"))
		}
	})
	t.Run("OIDC-11 the cookies are those of this issuer", func(t *testing.T) {
		u, _ := url.Parse(tenant + "/login")
		mine := false
		for _, c := range john.Cookies(u) {
			mine = mine || c.Name == web.CookieName(tenant, "session")
			if c.Name == web.CookieName(Issuer, "session") {
				t.Errorf("%s is the cookie of another issuer", c.Name)
			}
		}
		if !mine {
			t.Error("there is no session cookie")
		}
	})
	a := h.Post("/tenant/token", CodeForm(code))
	t.Run("TOK-08 token, refresh, introspection and revocation below the path", func(t *testing.T) {
		if !a.OK() {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		if b := h.Post("/tenant/token", RefreshForm(a.Str("refresh_token"))); !b.OK() {
			t.Fatalf("refresh: %d %s", b.Status, b.Raw)
		} else {
			a = b
		}
		i := h.Post("/tenant/introspect", change(nil2("token", a.Str("access_token")), nil), func(r *http.Request) { r.SetBasicAuth("https%3A%2F%2Fmcp.test%2Fmcp", IntrospectionSecret) })
		if i.Body["active"] != true || i.Str("iss") != tenant {
			t.Errorf("introspection: %d %s", i.Status, i.Raw)
		}
		if r := h.Post("/tenant/revoke", change(nil2("token", a.Str("refresh_token")), []string{"client_id", ClientID})); !r.OK() {
			t.Errorf("revocation: %d %s", r.Status, r.Raw)
		}
	})
	t.Run("what people see below the path leads nowhere else", func(t *testing.T) {
		for _, p := range []string{"/tenant/", "/tenant", "/tenant/logout", "/tenant/login", "/tenant/nothing", "/tenant/authorize"} {
			page := john.Visit(Issuer + p)
			if page.URL.Host != "as.test" || page.Status >= 500 {
				t.Errorf("%s: %d at %s", p, page.Status, page.URL)
			}
			if (p == "/tenant" || p == "/tenant/") && page.Status != http.StatusOK {
				t.Errorf("home at %s: %d", p, page.Status)
			}
			below(t, page.Body)
		}
	})
	t.Run("nothing stands beside the path", func(t *testing.T) {
		for _, p := range []string{"/authorize", "/token", "/login", "/jwks", "/consent", "/healthz"} {
			if a := h.Get(p); a.Status != http.StatusNotFound {
				t.Errorf("%s: %d", p, a.Status)
			}
		}
	})
}
