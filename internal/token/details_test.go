package token

import (
	"strings"
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
	t.Run("AUTHZ-26 a request for a token may name some of what was granted, and gets no more", func(t *testing.T) {
		token := begin(t, all, "read", "write")
		form := refreshForm(public, token)
		form.Set("authorization_details", `[ {"type":"folder", "path":"/a"} ]`)
		r := h.ok(t, form)
		if got := h.claims(t, r).Details; got != "["+folder+"]" || !strings.Contains(r.body, `"authorization_details":[`+folder+`]`) {
			t.Errorf("details %s in %s", got, r.body)
		}
		if got := h.claims(t, h.ok(t, refreshForm(public, r.get("refresh_token")))).Details; got != all {
			t.Errorf("all of it again: details %s", got)
		}
		first := h.consent(t, public, func(g *store.Grant) { g.Details, g.Scopes = all, []string{"read", "write"} }).form()
		first.Set("authorization_details", "["+week+"]")
		if got := h.claims(t, h.ok(t, first)).Details; got != "["+week+"]" {
			t.Errorf("with the code: details %s", got)
		}
	})
	for name, asked := range map[string]string{
		"another one of the type": `[{"type":"folder","path":"/b"}]`,
		"one more":                "[" + folder + "," + week + `,{"type":"folder","path":"/b"}]`,
		"an unknown type":         `[{"type":"payment"}]`,
		"an unknown member":       `[{"type":"week","day":1}]`,
		"no list":                 week,
		"no JSON":                 "week",
		"an empty list":           "[]",
	} {
		t.Run("AUTHZ-26, RF-06 refused, and nothing is used up: "+name, func(t *testing.T) {
			form := refreshForm(public, begin(t, all, "read", "write"))
			form.Set("authorization_details", asked)
			h.refused(t, oauth.InvalidDetails, form)
			form.Del("authorization_details")
			h.ok(t, form)
		})
	}
	t.Run("AUTHZ-26 what goes with a scope is not had without it", func(t *testing.T) {
		form := refreshForm(public, begin(t, all, "read", "write"))
		form.Set("scope", "read")
		form.Set("authorization_details", "["+folder+"]")
		h.refused(t, oauth.InvalidDetails, form)
	})
	t.Run("AUTHZ-26 nobody agreed to any", func(t *testing.T) {
		form := refreshForm(public, begin(t, "", "read"))
		form.Set("authorization_details", "["+week+"]")
		h.refused(t, oauth.InvalidDetails, form)
	})
}
