package login

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/safehttp"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/upstream"
)

// startingLine lets another one in when one has looked and not yet written.
type startingLine struct {
	*store.Store
	wait func() // done once, when the first is about to be linked
}

func (s *startingLine) LinkIdentity(ctx context.Context, id store.Identity, create *store.User, events ...audit.Event) error {
	if wait := s.wait; wait != nil {
		s.wait = nil
		wait()
	}
	return s.Store.LinkIdentity(ctx, id, create, events...)
}

func TestTwoFirstSignInsAtOnce(t *testing.T) {
	egress, err := safehttp.New(safehttp.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	provider, err := upstream.New(upstream.Config{Name: "idp", Issuer: "https://idp.test", ClientID: "we", RedirectURI: "https://as.test/cb", Egress: egress})
	if err != nil {
		t.Fatal(err)
	}
	for name, link := range map[string][]string{"a new account": {LinkCreate}, "the account with the address": {LinkEmail}, "either": {LinkEmail, LinkCreate}} {
		t.Run("OIDC-05 the same person twice at one moment is one account: "+name, func(t *testing.T) {
			u := Upstream{Provider: provider, Title: "Acme", Link: link, Domains: []string{"acme.example"}}
			person := &upstream.Person{Subject: "u-1", Email: "jane@acme.example", EmailVerified: true}
			if link[0] == LinkEmail {
				person.Email = "john@acme.example"
			}
			line := &startingLine{}
			h := newHouse(t, func(c *Config) {
				line.Store, _ = c.Store.(*store.Store)
				c.Upstreams, c.Identities = []Upstream{u}, line
			})
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/login/callback/idp", nil)
			var other store.User
			line.wait = func() {
				if other, err = h.account(r, &u, person); err != nil {
					t.Error(err)
				}
			}
			mine, err := h.account(r, &u, person)
			if err != nil || mine.ID == "" || mine.ID != other.ID {
				t.Errorf("%+v and %+v, %v", mine, other, err)
			}
		})
	}
	t.Run("OIDC-05 two people with one address at one moment are not one account", func(t *testing.T) {
		u := Upstream{Provider: provider, Title: "Acme", Link: []string{LinkEmail, LinkCreate}, Domains: []string{"acme.example"}}
		line := &startingLine{}
		h := newHouse(t, func(c *Config) {
			line.Store, _ = c.Store.(*store.Store)
			c.Upstreams, c.Identities = []Upstream{u}, line
		})
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/login/callback/idp", nil)
		line.wait = func() {
			if _, err := h.account(r, &u, &upstream.Person{Subject: "u-1", Email: "jane@acme.example", EmailVerified: true}); err != nil {
				t.Error(err)
			}
		}
		if got, err := h.account(r, &u, &upstream.Person{Subject: "u-2", Email: "jane@acme.example", EmailVerified: true}); err == nil {
			t.Errorf("%+v", got)
		}
	})
}
