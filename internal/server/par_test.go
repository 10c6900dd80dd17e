package server

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/internal/policy"
)

func TestConfigOfRequests(t *testing.T) {
	c, err := Parse([]byte(minimal), "", false)
	if err != nil || c.PAR.Life != time.Minute || c.PAR.Required {
		t.Errorf("PAR-05 defaults: %+v, %v", c.PAR, err)
	}
	for _, r := range []struct{ name, add, want string }{
		{"PAR-05 a life that is too short", "par: {life: 4s}\n", "PAR-05"},
		{"PAR-05 a life that is too long", "par: {life: 11m}\n", "PAR-05"},
		{"POL-09 FAPI 2.0 with secrets", "policy: {rules: [{host: a.example.com, action: allow, fapi: true, methods: [client_secret_basic]}]}\n", "key or a certificate"},
		{"POL-09 FAPI 2.0 and tokens that are signed with RS256", "tokens: {signing_alg: RS256}\npolicy: {rules: [{name: banks, host: a.example.com, action: allow, fapi: true}]}\n", "tokens.signing_alg: policy rule \"banks\""},
		{"POL-09 FAPI 2.0 and tokens that are signed with PS256", "tokens: {signing_alg: PS256}\npolicy: {rules: [{name: banks, host: a.example.com, action: allow, fapi: true}]}\n", ""},
		{"POL-03 an unknown algorithm", "policy: {rules: [{host: a.example.com, action: allow, signing_algs: [HS256]}]}\n", "HS256"},
		{"PAR-05 ten minutes", "par: {life: 10m, required: true}\n", ""},
	} {
		t.Run(r.name, func(t *testing.T) {
			_, err := Parse([]byte(minimal+r.add), "", false)
			if r.want == "" && err != nil || r.want != "" && (err == nil || !strings.Contains(err.Error(), r.want)) {
				t.Errorf("got %v, want an error that says %q", err, r.want)
			}
		})
	}
}

func TestPolicyOfTheConfiguration(t *testing.T) {
	text := strings.Replace(minimal, "    default_scopes: [read]\n", `    default_scopes: [read]
    details:
      - type: repository
        title: work in one repository
        scope: read
        fields:
          - {name: name, title: Repository, required: true, max: 100}
          - {name: stars, title: Stars, kind: number}
          - {name: may, title: It may, values: [read, write], many: true}
`, 1) + `policy:
  rules:
    - {name: banks, host: bank.example.com, action: allow, fapi: true, signing_algs: [ES256, Ed25519]}
    - {name: rest, host: app.example.com, action: allow, require_par: true, require_dpop: true, device: false, development: true}
`
	c, err := Parse([]byte(text), "", false)
	if err != nil {
		t.Fatal(err)
	}
	set, err := c.PolicySet()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("AUTHZ-26 types of authorization_details", func(t *testing.T) {
		want := []policy.DetailType{{Type: "repository", Title: "work in one repository", Scope: "read", Fields: []policy.DetailField{
			{Name: "name", Title: "Repository", Required: true, Max: 100},
			{Name: "stars", Title: "Stars", Kind: policy.KindNumber},
			{Name: "may", Title: "It may", Values: []string{"read", "write"}, Many: true},
		}}}
		if diff := cmp.Diff(want, set.Resources[0].Details); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("POL-03, POL-09, CONS-12 what a rule demands", func(t *testing.T) {
		no := false
		want := []policy.Rule{
			{Name: "banks", Host: "bank.example.com", Action: policy.Allow, FAPI: true, SigningAlgs: []string{"ES256", "EdDSA"}},
			{Name: "rest", Host: "app.example.com", Action: policy.Allow, RequirePAR: true, RequireDPoP: true, Device: &no, Development: true},
		}
		if diff := cmp.Diff(want, set.Rules); diff != "" {
			t.Error(diff)
		}
	})
}
