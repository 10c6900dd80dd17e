package token

import (
	"context"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestTokensOfAKey(t *testing.T) {
	h := newHouse(t)
	k := newKey(t)
	jkt := k.Public().Thumbprint()
	t.Run("DPOP-02, INT-03 a request with a proof gets tokens for its key", func(t *testing.T) {
		r := h.ok(t, h.consent(t, public).form(), "DPoP", h.proof(t, k))
		if a := h.claims(t, r); a.CnfJKT != jkt || r.get("token_type") != "DPoP" {
			t.Errorf("token %+v, type %s", a, r.get("token_type"))
		}
		st := h.introspect1(t, r.get("access_token"))
		cnf, _ := st.json["cnf"].(map[string]any)
		if st.get("token_type") != "DPoP" || cnf["jkt"] != jkt || len(cnf) != 1 {
			t.Errorf("introspection %s", st.body)
		}
	})
	t.Run("DPOP-02 a request without one gets bearer tokens, as ever", func(t *testing.T) {
		r := h.ok(t, h.consent(t, public).form())
		if a := h.claims(t, r); a.CnfJKT != "" || r.get("token_type") != "Bearer" {
			t.Errorf("token %+v, type %s", a, r.get("token_type"))
		}
	})
	t.Run("DPOP-01, DPOP-04 a spoiled proof costs nothing", func(t *testing.T) {
		c := h.consent(t, public)
		h.refused(t, oauth.InvalidDPoPProof, c.form(), "DPoP", "x")
		p := h.proof(t, k)
		h.ok(t, c.form(), "DPoP", p)
		h.refused(t, oauth.InvalidDPoPProof, h.consent(t, public).form(), "DPoP", p) // used before
	})
	t.Run("DPOP-01, attack DP-08: a request that is refused does not use its proof up", func(t *testing.T) {
		c := h.consent(t, public)
		p := h.proof(t, k)
		bad := c.form()
		bad.Set("code_verifier", oauth.NewVerifier())
		h.refused(t, oauth.InvalidGrant, bad, "DPoP", p)
		h.ok(t, c.form(), "DPoP", p)
	})
	t.Run("DPOP-04, POL-03 a policy that demands a proof", func(t *testing.T) {
		h.people.rules(t, policy.Rule{Client: public, Action: policy.Allow, RequireDPoP: true})
		defer h.people.rules(t)
		c := h.consent(t, public)
		h.refused(t, oauth.InvalidDPoPProof, c.form())
		h.ok(t, c.form(), "DPoP", h.proof(t, k))
	})
}

// TestCodeOfNobody is about a code that was issued to no key.
func TestCodeOfNobody(t *testing.T) {
	h := newHouse(t)
	k, thief := newKey(t), newKey(t)
	for name, proof := range map[string]func() []string{
		"without a key": func() []string { return nil }, "with a key of their own": func() []string { return []string{"DPoP", h.proof(t, k)} },
	} {
		t.Run("TOK-03: a thief who redeems it with a key is noticed when its owner comes "+name, func(t *testing.T) {
			c := h.consent(t, public)
			theirs := h.ok(t, c.form(), "DPoP", h.proof(t, thief))
			wrong := c.form()
			wrong.Set("code_verifier", oauth.NewVerifier())
			h.refused(t, oauth.InvalidGrant, wrong, proof()...)
			if !h.active(t, c.grantID) {
				t.Fatal("a wrong verifier ended the grant")
			}
			h.refused(t, oauth.InvalidGrant, c.form(), proof()...)
			if h.active(t, c.grantID) {
				t.Error("the grant lives on")
			}
			h.refused(t, oauth.InvalidGrant, refreshForm(public, theirs.get("refresh_token")), "DPoP", h.proof(t, thief))
		})
	}
}

func TestRefreshOfAKey(t *testing.T) {
	h := newHouse(t)
	k, stranger := newKey(t), newKey(t)
	t.Run("DPOP-02, attack DP-06, attack RF-05: the refresh token of a public client belongs to its key", func(t *testing.T) {
		c := h.consent(t, public)
		first := h.ok(t, c.form(), "DPoP", h.proof(t, k)).get("refresh_token")
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first))
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first), "DPoP", h.proof(t, stranger))
		second := h.ok(t, refreshForm(public, first), "DPoP", h.proof(t, k))
		if a := h.claims(t, second); a.CnfJKT != k.Public().Thumbprint() || second.get("token_type") != "DPoP" {
			t.Errorf("token %+v", a)
		}
		h.ok(t, refreshForm(public, second.get("refresh_token")), "DPoP", h.proof(t, k)) // nothing was consumed on the way
	})
	t.Run("attack DP-06: who lacks the key cannot end the connection with a spent token either", func(t *testing.T) {
		c := h.consent(t, public)
		first := h.ok(t, c.form(), "DPoP", h.proof(t, k)).get("refresh_token")
		second := h.ok(t, refreshForm(public, first), "DPoP", h.proof(t, k)).get("refresh_token")
		h.ok(t, refreshForm(public, second), "DPoP", h.proof(t, k))
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first))
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first), "DPoP", h.proof(t, stranger))
		if !h.active(t, c.grantID) {
			t.Fatal("the grant ended")
		}
		h.refused(t, oauth.InvalidGrant, refreshForm(public, first), "DPoP", h.proof(t, k))
		if h.active(t, c.grantID) {
			t.Fatal("TOK-11 reuse with the key did not end it")
		}
	})
	t.Run("DPOP-02 a client that authenticates may change its key, and not do without one", func(t *testing.T) {
		c := h.consent(t, keyed)
		first := h.ok(t, h.assert(t, keyed, c.form()), "DPoP", h.proof(t, k)).get("refresh_token")
		h.refused(t, oauth.InvalidGrant, h.assert(t, keyed, refreshForm(keyed, first)))
		r := h.ok(t, h.assert(t, keyed, refreshForm(keyed, first)), "DPoP", h.proof(t, stranger))
		if a := h.claims(t, r); a.CnfJKT != stranger.Public().Thumbprint() {
			t.Errorf("token %+v", a)
		}
	})
	t.Run("DPOP-02 a proof at a refresh binds the access token of a grant that began without one", func(t *testing.T) {
		first := h.ok(t, h.consent(t, public).form()).get("refresh_token")
		if r := h.ok(t, refreshForm(public, first), "DPoP", h.proof(t, k)); h.claims(t, r).CnfJKT != k.Public().Thumbprint() {
			t.Error("a bearer token")
		}
	})
	t.Run("DPOP-02, attack DP-06: and the refresh token that a public client gets with it belongs to the key", func(t *testing.T) {
		c := h.consent(t, public)
		first := h.ok(t, c.form()).get("refresh_token")
		second := h.ok(t, refreshForm(public, first), "DPoP", h.proof(t, k)).get("refresh_token")
		h.refused(t, oauth.InvalidGrant, refreshForm(public, second))
		h.refused(t, oauth.InvalidGrant, refreshForm(public, second), "DPoP", h.proof(t, stranger))
		third := h.ok(t, refreshForm(public, second), "DPoP", h.proof(t, k)).get("refresh_token")
		h.refused(t, oauth.InvalidGrant, refreshForm(public, third), "DPoP", h.proof(t, stranger))
		h.refused(t, oauth.InvalidGrant, refreshForm(public, second)) // who lacks the key does not end it either
		h.refused(t, oauth.InvalidGrant, refreshForm(public, second), "DPoP", h.proof(t, stranger))
		if !h.active(t, c.grantID) {
			t.Error("the grant ended")
		}
	})
	t.Run("TOK-11, attack RF-01: a thief who shows a key for a token that belonged to none is noticed when its owner comes", func(t *testing.T) {
		for name, proof := range map[string]func() []string{
			"without a key": func() []string { return nil }, "with a key of their own": func() []string { return []string{"DPoP", h.proof(t, k)} },
		} {
			for _, wait := range []time.Duration{0, time.Hour} {
				c := h.consent(t, public)
				first := h.ok(t, c.form()).get("refresh_token")
				theirs := h.ok(t, refreshForm(public, first), "DPoP", h.proof(t, stranger)).get("refresh_token")
				h.clock.move(wait)
				h.refused(t, oauth.InvalidGrant, refreshForm(public, first), proof()...)
				if h.active(t, c.grantID) {
					t.Errorf("%s, after %v: the grant lives on", name, wait)
				}
				h.refused(t, oauth.InvalidGrant, refreshForm(public, theirs), "DPoP", h.proof(t, stranger))
			}
		}
	})
	t.Run("TOK-12 the answer that brings a key may be lost", func(t *testing.T) {
		first := h.ok(t, h.consent(t, public).form()).get("refresh_token")
		second := h.ok(t, refreshForm(public, first), "DPoP", h.proof(t, k)).get("refresh_token")
		if again := h.ok(t, refreshForm(public, first), "DPoP", h.proof(t, k)).get("refresh_token"); again != second {
			t.Error("another successor")
		}
	})
	t.Run("DPOP-02 that of a client that authenticates is bound by its authentication, as ever", func(t *testing.T) {
		first := h.ok(t, h.assert(t, keyed, h.consent(t, keyed).form())).get("refresh_token")
		second := h.ok(t, h.assert(t, keyed, refreshForm(keyed, first)), "DPoP", h.proof(t, k)).get("refresh_token")
		h.ok(t, h.assert(t, keyed, refreshForm(keyed, second)))
	})
}

// TestBind spoils what a request proves, one member per row.
func TestBind(t *testing.T) {
	for _, row := range []struct {
		name   string
		method string
		code   store.Code
		grant  store.Grant
		jkt    string
		shown  clientauth.Client
		rule   string // of the refusal; "" for none
	}{
		{name: "nothing is bound", method: oauth.MethodNone},
		{name: "AUTHZ-28 the key of dpop_jkt", method: oauth.MethodNone, code: store.Code{JKT: "a"}, jkt: "a"},
		{name: "AUTHZ-28 another key than dpop_jkt", method: oauth.MethodNone, code: store.Code{JKT: "a"}, jkt: "b", rule: "AUTHZ-28"},
		{name: "AUTHZ-28 another key than dpop_jkt, of a client that authenticates", method: oauth.MethodPrivateKeyJWT, code: store.Code{JKT: "a"}, jkt: "b", rule: "AUTHZ-28"},
		{name: "AUTHZ-28 dpop_jkt and no proof", method: oauth.MethodNone, code: store.Code{JKT: "a"}, rule: "AUTHZ-28"},
		{name: "DPOP-02 the key of a public client", method: oauth.MethodNone, grant: store.Grant{JKT: "a"}, jkt: "a"},
		{name: "DPOP-02 another key of a public client", method: oauth.MethodNone, grant: store.Grant{JKT: "a"}, jkt: "b", rule: "DPOP-02"},
		{name: "DPOP-02 no key", method: oauth.MethodPrivateKeyJWT, grant: store.Grant{JKT: "a"}, rule: "DPOP-02"},
		{name: "DPOP-02 a new key of a client that authenticates", method: oauth.MethodPrivateKeyJWT, grant: store.Grant{JKT: "a"}, jkt: "b"},
		{name: "ATT-08 the same instance", method: oauth.MethodAttestation, grant: store.Grant{InstanceJKT: "a"}, shown: clientauth.Client{InstanceJKT: "a"}},
		{name: "ATT-08 another instance", method: oauth.MethodAttestation, grant: store.Grant{InstanceJKT: "a"}, shown: clientauth.Client{InstanceJKT: "b"}, rule: "ATT-08"},
		{name: "ATT-08 no attestation", method: oauth.MethodPrivateKeyJWT, grant: store.Grant{InstanceJKT: "a"}, rule: "ATT-08"},
		{name: "DPOP-07 the certificate of a public client", method: oauth.MethodNone, grant: store.Grant{CertThumbprint: "a"}, shown: clientauth.Client{CertThumbprint: "a"}},
		{name: "DPOP-07 another certificate of a public client", method: oauth.MethodNone, grant: store.Grant{CertThumbprint: "a"}, shown: clientauth.Client{CertThumbprint: "b"}, rule: "DPOP-07"},
		{name: "DPOP-07 no certificate", method: oauth.MethodSelfSignedTLS, grant: store.Grant{CertThumbprint: "a"}, rule: "DPOP-07"},
		{name: "DPOP-07 a renewed certificate", method: oauth.MethodSelfSignedTLS, grant: store.Grant{CertThumbprint: "a"}, shown: clientauth.Client{CertThumbprint: "b"}},
		{name: "DPOP-07 a key does not stand in for a certificate", method: oauth.MethodPrivateKeyJWT, grant: store.Grant{CertThumbprint: "a"}, jkt: "a", rule: "DPOP-07"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := row.shown
			c.Method = row.method
			err := new(Handler).bind(t.Context(), &issue{client: &c, code: row.code, grant: row.grant, jkt: row.jkt})
			switch e := oauth.AsError(err); {
			case row.rule == "" && err != nil:
				t.Error(err)
			case row.rule != "" && (err == nil || e.Code != oauth.InvalidGrant || e.Rule != row.rule):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDPoPKeyOfTheRequest(t *testing.T) {
	h := newHouse(t)
	k, stranger := newKey(t), newKey(t)
	t.Run("AUTHZ-28 the code demands the key of dpop_jkt, and waits for it", func(t *testing.T) {
		c := h.consentTo(t, public, k.Public().Thumbprint())
		h.refused(t, oauth.InvalidGrant, c.form())
		h.refused(t, oauth.InvalidGrant, c.form(), "DPoP", h.proof(t, stranger))
		h.ok(t, c.form(), "DPoP", h.proof(t, k))
		h.refused(t, oauth.InvalidGrant, c.form(), "DPoP", h.proof(t, stranger))
		if !h.active(t, c.grantID) {
			t.Fatal("a replay without the key ended the grant")
		}
		h.refused(t, oauth.InvalidGrant, c.form(), "DPoP", h.proof(t, k))
		if h.active(t, c.grantID) {
			t.Fatal("TOK-03 a replay with the key did not end the grant")
		}
	})
}

func TestFAPI(t *testing.T) {
	h := newHouse(t)
	k := newKey(t)
	h.people.rules(t, policy.Rule{Client: keyed, Action: policy.Allow, FAPI: true}, policy.Rule{Client: either, Action: policy.Allow, FAPI: true})
	t.Run("POL-09 tokens are bound to a key", func(t *testing.T) {
		c := h.consent(t, keyed)
		if r := h.post("/token", h.assert(t, keyed, c.form())); r.status != 400 || r.get("error") != string(oauth.InvalidDPoPProof) {
			t.Fatal(r.body)
		}
		h.ok(t, h.assert(t, keyed, c.form()), "DPoP", h.proof(t, k))
	})
	t.Run("POL-09 the client authenticates", func(t *testing.T) {
		h.refused(t, oauth.InvalidClient, h.consent(t, either).form(), "DPoP", h.proof(t, k))
	})
	t.Run("POL-09 refresh tokens are not rotated as a routine, and do not end for want of use", func(t *testing.T) {
		c := h.consent(t, keyed)
		token := h.ok(t, h.assert(t, keyed, c.form()), "DPoP", h.proof(t, k)).get("refresh_token")
		h.clock.move(h.cfg.Idle + 1)
		for range 3 {
			if r := h.ok(t, h.assert(t, keyed, refreshForm(keyed, token)), "DPoP", h.proof(t, k)); r.get("refresh_token") != token {
				t.Fatal("another refresh token")
			}
		}
		events := h.events(t, audit.TypeRefresh)
		if e := events[len(events)-1]; e.Grant != c.grantID || e.Data["rotated"] != "no" {
			t.Errorf("event %+v", e)
		}
		if g, err := h.store.GrantActive(t.Context(), c.grantID); err != nil || !g.LastUsed.Equal(h.clock.now().Truncate(time.Microsecond)) {
			t.Errorf("CONS-14 last used at %v, now it is %v; %v", g.LastUsed, h.clock.now(), err)
		}
		if err := h.store.RevokeGrant(t.Context(), c.grantID, "test", h.clock.now()); err != nil {
			t.Fatal(err)
		}
		h.refused(t, oauth.InvalidGrant, h.assert(t, keyed, refreshForm(keyed, token)), "DPoP", h.proof(t, k))
	})
	t.Run("POL-09, TOK-11 a grant that began before the rule goes on so, and a token from before is reuse", func(t *testing.T) {
		h.people.rules(t)
		c := h.consent(t, keyed)
		refresh := func(token string) string {
			t.Helper()
			return h.ok(t, h.assert(t, keyed, refreshForm(keyed, token)), "DPoP", h.proof(t, k)).get("refresh_token")
		}
		first := h.ok(t, h.assert(t, keyed, c.form()), "DPoP", h.proof(t, k)).get("refresh_token")
		second := refresh(first)
		h.people.rules(t, policy.Rule{Client: keyed, Action: policy.Allow, FAPI: true})
		for range 3 {
			if refresh(second) != second {
				t.Fatal("another refresh token")
			}
			h.clock.move(h.cfg.Idle - 1)
		}
		refresh(second)
		h.refused(t, oauth.InvalidGrant, h.assert(t, keyed, refreshForm(keyed, first)), "DPoP", h.proof(t, k))
		if h.active(t, c.grantID) {
			t.Error("a token whose successor was used ended nothing")
		}
	})
	t.Run("POL-09, TOK-16 who ends the connection at this moment is first", func(t *testing.T) {
		c := h.consent(t, keyed)
		token := h.ok(t, h.assert(t, keyed, c.form()), "DPoP", h.proof(t, k)).get("refresh_token")
		h.cfg.Grants = &ending{Grants: h.store, end: func() {
			if err := h.store.RevokeGrant(t.Context(), c.grantID, "test", h.clock.now()); err != nil {
				t.Error(err)
			}
		}}
		defer func() { h.cfg.Grants = h.store }()
		h.refused(t, oauth.InvalidGrant, h.assert(t, keyed, refreshForm(keyed, token)), "DPoP", h.proof(t, k))
	})
}

// ending is a store in which somebody ends the grant right after a refresh token
// was found.
type ending struct {
	Grants
	end func()
}

func (e *ending) FindRefresh(ctx context.Context, ref store.RefreshRef, now time.Time) (store.Refresh, store.Grant, error) {
	defer e.end()
	return e.Grants.FindRefresh(ctx, ref, now)
}
