package policy_test

import (
	"testing"

	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestClientsThatRegisteredThemselves(t *testing.T) {
	s := &policy.Set{Default: policy.Ask, Rules: []policy.Rule{
		{Name: "one", Client: "dyn-one", Action: policy.Deny},
		{Name: "prefix", Prefix: "https://apps.test/", Action: policy.Deny},
		{Dynamic: true, Action: policy.Allow, Scopes: oauth.Scopes{"read"}, HasScopes: true},
	}}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, id, rule string
		dynamic        bool
		action         policy.Action
		explicit       bool
	}{
		{"POL-01 a rule about all of them", "dyn-two", "dynamic", true, policy.Allow, false},
		{"POL-01 a rule that names one", "dyn-one", "one", true, policy.Deny, true},
		{"POL-01 others are not meant", "https://other.test/c.json", "default", false, policy.Ask, false},
		{"POL-01 nor one that an operator registered", "dyn-two", "default", false, policy.Ask, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := s.Decide(policy.Subject{ID: c.id, Dynamic: c.dynamic})
			if d.Action != c.action || d.Rule != c.rule || d.Explicit != c.explicit || d.Names(oauth.GrantClientCredentials) {
				t.Errorf("%+v", d)
			}
		})
	}
	yes := true
	for _, r := range []policy.Rule{
		{Dynamic: true, Host: "app.test", Action: policy.Allow},
		{Dynamic: true, SameHost: true, Action: policy.Allow},
		{Dynamic: true, Device: &yes, Action: policy.Allow},
	} {
		t.Run("POL-01, DEV-09 a rule that cannot be meant", func(t *testing.T) {
			if err := (&policy.Set{Rules: []policy.Rule{r}}).Check(); err == nil {
				t.Errorf("%+v was accepted", r)
			}
		})
	}
}
