package housetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/login"
)

// demanding is a house of a provider with two contexts that are mapped, one of
// them twice.
func demanding(t *testing.T) (*House, *Provider) {
	t.Helper()
	h := New(t, "", strings.Replace(Upstream, `acr: {gold: "urn:acme:gold"}`, `acr: {gold: "urn:acme:gold", "au 79": "urn:acme:gold", silver: "urn:acme:silver", ag: "urn:acme:silver"}`, 1))
	return h, NewProvider(h)
}

func TestWhatAClientDemandsReachesTheProvider(t *testing.T) {
	for _, c := range []struct {
		name string
		ask  []string
		want map[string]string // "" is nothing
	}{
		{"nothing is demanded of who demands nothing", nil, map[string]string{"prompt": "", "max_age": "", "acr_values": "", "login_hint": ""}},
		{"prompt=login, although nobody is signed in here", []string{"prompt", "login"}, map[string]string{"prompt": "login", "max_age": "0"}},
		{"max_age", []string{"max_age", "3600"}, map[string]string{"max_age": "3600", "prompt": ""}},
		{"max_age=0 is a fresh sign-in", []string{"max_age", "0"}, map[string]string{"prompt": "login", "max_age": "0"}},
		{"prompt=select_account", []string{"prompt", "select_account"}, map[string]string{"prompt": "select_account", "max_age": ""}},
		{"both at once", []string{"prompt", "login select_account", "max_age", "60"}, map[string]string{"prompt": "login select_account", "max_age": "0"}},
		{"prompt=consent is ours to ask", []string{"prompt", "consent"}, map[string]string{"prompt": ""}},
		{"login_hint", []string{"login_hint", "john@acme.example"}, map[string]string{"login_hint": "john@acme.example"}},
		{"acr_values in the provider's own words, where they have no space", []string{"acr_values", "urn:acme:gold"}, map[string]string{"acr_values": "gold"}},
		{"in the order of the client", []string{"acr_values", "urn:acme:silver urn:acme:gold"}, map[string]string{"acr_values": "ag silver gold"}},
		{"nothing where any sign-in there will do", []string{"acr_values", "urn:acme:gold " + login.ACRUpstream}, map[string]string{"acr_values": ""}},
		{"nothing that the operator has not mapped", []string{"acr_values", "gold urn:acme:gold phr"}, map[string]string{"acr_values": "gold"}},
	} {
		t.Run("OIDC-11, AUTHZ-23, AUTHZ-24 "+c.name, func(t *testing.T) {
			h, idp := demanding(t)
			john := h.Traveller()
			john.press(john.Visit(h.Authorize(c.ask...)))
			asked := idp.Asked()
			if len(asked) != 1 {
				t.Fatalf("asked %d times", len(asked))
			}
			for name, want := range c.want {
				if got := asked[0].Get(name); got != want || asked[0].Has(name) != (want != "") {
					t.Errorf("%s=%q, want %q: %v", name, got, want, asked[0])
				}
			}
		})
	}
}

func TestAProviderThatDoesNotDoWhatIsDemanded(t *testing.T) {
	ago := func(seconds int64) func(h *House, c map[string]any) {
		return func(h *House, c map[string]any) { c["auth_time"] = h.Now().Unix() - seconds }
	}
	silent := func(_ *House, c map[string]any) { delete(c, "auth_time") }
	for _, c := range []struct {
		name string
		ask  []string
		lie  func(h *House, c map[string]any)
		text string // of the refusal; "": it is accepted
	}{
		{"prompt=login, and it says that it was yesterday", []string{"prompt", "login"}, ago(86400), "did not ask you again"},
		{"prompt=login, and it does not say when it was", []string{"prompt", "login"}, silent, "does not say when you signed in"},
		{"prompt=login, and its clock is half a minute late", []string{"prompt", "login"}, ago(30), ""},
		{"max_age, and it was before", []string{"max_age", "3600"}, ago(3700), "did not ask you again"},
		{"max_age, and it does not say when it was", []string{"max_age", "3600"}, silent, "does not say when you signed in"},
		{"max_age, and it was in time", []string{"max_age", "3600"}, ago(3500), ""},
		{"max_age=0, and it was an hour ago", []string{"max_age", "0"}, ago(3600), "did not ask you again"},
		{"nothing, and it does not say when it was", nil, silent, ""},
		{"prompt=select_account, and the person was signed in there", []string{"prompt", "select_account"}, ago(86400), ""},
		{"prompt=select_account, and it does not say when it was", []string{"prompt", "select_account"}, silent, ""},
	} {
		t.Run("OIDC-11, AUTHZ-23, AUTHZ-24 "+c.name, func(t *testing.T) {
			h, idp := demanding(t)
			idp.Set(func(p *Provider) { p.Claims = func(claims map[string]any) { c.lie(h, claims) } })
			john := h.Traveller()
			page := john.press(john.Visit(h.Authorize(c.ask...)))
			if c.text == "" {
				if !page.Has("decision") {
					t.Fatalf("%d %s", page.Status, page.Text())
				}
				return
			}
			if page.Status != 403 || !strings.Contains(page.Text(), "Acme SSO "+c.text) || !strings.Contains(page.Text(), "Reference") {
				t.Fatalf("%d %s", page.Status, page.Text())
			}
			if again := john.Visit(Issuer + "/connections"); !again.Has("password") {
				t.Error("signed in")
			}
			h.Server.Close()
			if e := h.Events(audit.TypeLoginFailed); len(e) != 1 || e[0].Code != "upstream_stale" || e[0].Rule != "OIDC-11" {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestWhenSomebodySignedInElsewhere(t *testing.T) {
	h, idp := demanding(t)
	h.Net.Host("good.test").ServeClient("/c.json", leaving())
	idp.Set(func(p *Provider) { p.Claims = func(c map[string]any) { delete(c, "auth_time") } })
	john := h.Traveller()
	t.Run("OIDC-01, OIDC-11 nobody is told that an unknown time is now", func(t *testing.T) {
		page := john.Answer(john.press(john.Visit(h.Authorize("scope", "openid mcp:read"))), "allow")
		a := h.Post("/token", CodeForm(page.URL.Query().Get("code")))
		if _, id := h.claims(a.Str("id_token")); id["auth_time"] != nil || id["sub"] == nil {
			t.Errorf("%v", id)
		}
	})
	t.Run("AUTHZ-24 and it does not count for max_age later", func(t *testing.T) {
		h.Later(time.Minute)
		if page := john.Visit(h.Authorize("max_age", "3600", "state", "s2")); page.Has("decision") || page.Left {
			t.Errorf("%s %s", page.URL, page.Text())
		}
	})
	t.Run("OIDC-01 a client that demands auth_time gets it, or the person is told why not", func(t *testing.T) {
		doc := leaving()
		doc["require_auth_time"] = true
		h.Net.Host("good.test").ServeClient("/c.json", doc)
		h.Later(48 * time.Hour)
		jane := h.Traveller()
		page := jane.press(jane.Visit(h.Authorize("scope", "openid mcp:read", "state", "s3")))
		if page.Has("decision") || !page.Has("with") {
			t.Fatalf("%d %s", page.Status, page.Text())
		}
		if page = jane.press(page); page.Status != 403 || !strings.Contains(page.Text(), "does not say when you signed in") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

func TestMappedContextsHaveNoOrder(t *testing.T) {
	for _, c := range []struct {
		asked, there string
		met          bool
	}{
		{"urn:acme:gold", "gold", true}, {"urn:acme:gold", "au 79", true}, {"urn:acme:gold", "silver", false}, {"urn:acme:silver", "gold", false},
		{"urn:acme:silver urn:acme:gold", "gold", true}, {"urn:acme:gold", "bronze", false}, {login.ACRUpstream, "gold", true}, {login.ACR, "gold", true},
	} {
		t.Run(fmt.Sprintf("AUTHZ-24 %s is asked for, and the provider says %s", c.asked, c.there), func(t *testing.T) {
			h, idp := demanding(t)
			idp.Set(func(p *Provider) { p.Claims = func(claims map[string]any) { claims["acr"] = c.there } })
			john := h.Traveller()
			page := john.press(john.Visit(h.Authorize("acr_values", c.asked)))
			if page.Has("decision") != c.met {
				t.Fatalf("%d %s %s", page.Status, page.URL, page.Text())
			}
			if !c.met && (page.Has("password") || !strings.Contains(page.URL.String()+page.Body, "unmet_authentication_requirements")) {
				t.Errorf("%s %s", page.URL, page.Text())
			}
		})
	}
	t.Run("META-21 all of them stand in the metadata, once", func(t *testing.T) {
		h, _ := demanding(t)
		acr, _ := h.Get("/.well-known/openid-configuration").Body["acr_values_supported"].([]any)
		if !slices.Equal(acr, []any{login.ACR, login.ACRUpstream, "urn:acme:gold", "urn:acme:silver"}) {
			t.Errorf("%v", acr)
		}
	})
}

func TestDemandsOfAClientThatIsNotKnownYet(t *testing.T) {
	h, idp := ssoHouse(t)
	h.Net.Host("late.test").ServeClient("/c.json", nil)
	john := h.Traveller()
	f := must(john.Visit(h.Authorize("client_id", "https://late.test/c.json", "redirect_uri", "https://late.test/cb", "prompt", "login", "max_age", "99", "acr_values", "urn:acme:gold")).Form("with"))(t)
	t.Run("OIDC-11, FETCH-20 they reach the provider before the document of the client is fetched", func(t *testing.T) {
		if n := h.Net.Host("late.test").Count("/c.json"); n != 0 {
			t.Fatalf("%d fetches", n)
		}
		page := john.Send(f.With("with", "idp"))
		q := idp.Asked()[0]
		if q.Get("prompt") != "login" || q.Get("max_age") != "0" || q.Get("acr_values") != "gold" {
			t.Errorf("%v", q)
		}
		if !page.Has("decision") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}
