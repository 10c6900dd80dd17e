package token

import (
	"testing"

	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestDetailsOfATokenRequest(t *testing.T) {
	const folder, week = `{"path":"/a","type":"folder"}`, `{"type":"week"}`
	h := newHouse(t)
	begin := func(t *testing.T, details string, scopes ...string) string {
		t.Helper()
		h.people.rules(t)
		r := h.ok(t, h.consent(t, public, func(g *store.Grant) { g.Details, g.Scopes = details, scopes }).form())
		if got := h.claims(t, r).Details; got != details {
			t.Fatalf("details %s", got)
		}
		return r.get("refresh_token")
	}
	all := "[" + folder + "," + week + "]"
	t.Run("AUTHZ-26, RF-06 what goes with a scope goes without it too", func(t *testing.T) {
		form := refreshForm(public, begin(t, all, "read", "write"))
		form.Set("scope", "read")
		r := h.ok(t, form)
		if got := h.claims(t, r).Details; got != "["+week+"]" {
			t.Errorf("details %s in %s", got, r.body)
		}
		form = refreshForm(public, r.get("refresh_token"))
		if got := h.claims(t, h.ok(t, form)).Details; got != all {
			t.Errorf("the whole scope again: details %s", got)
		}
	})
	t.Run("AUTHZ-26, POL-05 what a policy withdraws takes along what goes with it", func(t *testing.T) {
		token := begin(t, all, "read", "write")
		h.people.rules(t, policy.Rule{Client: public, Action: policy.Allow, HasScopes: true, Scopes: oauth.Scopes{"read"}})
		if got := h.claims(t, h.ok(t, refreshForm(public, token))).Details; got != "["+week+"]" {
			t.Errorf("details %s", got)
		}
	})
	t.Run("AUTHZ-26, POL-05 a type that is no more is not in a new token, and without any it is worth nothing", func(t *testing.T) {
		token := begin(t, "["+week+"]")
		h.people.rules(t)
		h.people.set.Resources[0].Details = nil
		h.refused(t, oauth.InvalidGrant, refreshForm(public, token))
		h.people.rules(t)
		h.ok(t, refreshForm(public, token))
	})
	t.Run("AUTHZ-26, POL-05 nor one whose particulars are others by now", func(t *testing.T) {
		token := begin(t, all, "read", "write")
		h.people.rules(t)
		h.people.set.Resources[0].Details[0].Fields[0].Name = "place"
		r := h.ok(t, refreshForm(public, token))
		if got := h.claims(t, r).Details; got != "["+week+"]" {
			t.Errorf("details %s", got)
		}
	})
}
