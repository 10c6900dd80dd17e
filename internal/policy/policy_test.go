package policy

import (
	"strconv"
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/oauth"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/publicsuffix"
)

func set(t *testing.T, rules ...Rule) *Set {
	t.Helper()
	s := &Set{Rules: rules, Default: Deny, Resources: []Resource{github()}}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	return s
}

func github() Resource {
	return Resource{
		ID: "https://mcp.example/github", Name: "GitHub tools", Aliases: []string{"https://mcp.example/github/"},
		Scopes: []Scope{
			{Name: "issues:read", Title: "read issues", Tools: []string{"list_issues"}},
			{Name: "issues:write", Title: "create issues", Tools: []string{"create_issue"}, Implies: []string{"issues:read"}},
			{Name: "issues:admin", Title: "manage issues", Implies: []string{"issues:write"}},
		},
		Default: oauth.Scopes{"issues:read"},
	}
}

func subject(id string) Subject {
	host, _, _ := strings.Cut(strings.TrimPrefix(id, "https://"), "/")
	port := uint16(443)
	if h, ok := strings.CutSuffix(host, ":8443"); ok {
		host, port = h, 8443
	}
	return Subject{ID: id, Host: host, Port: port}
}

func TestHostPatternsMatchWholeLabels(t *testing.T) {
	for _, c := range []struct {
		name, pattern, id string
		match             bool
	}{
		{"POL-02, attack AD-10: the host itself matches", "good.test", "https://good.test/c.json", true},
		{"POL-02, attack AD-10: a longer name that ends alike does not match", "good.test", "https://evilgood.test/c.json", false},
		{"POL-02, attack AD-10: a name that goes on does not match", "good.test", "https://good.test.evil.test/c.json", false},
		{"POL-02, attack AD-10: a wildcard does not match the apex", "*.good.test", "https://good.test/c.json", false},
		{"POL-02, attack AD-10: a wildcard matches below at any depth", "*.good.test", "https://a.b.good.test/c.json", true},
		{"POL-02, attack AD-10: a wildcard needs the label boundary", "*.good.test", "https://evilgood.test/c.json", false},
		{"POL-02 another port is another origin", "good.test", "https://good.test:8443/c.json", false},
		{"POL-02 a pattern may name its port", "good.test:8443", "https://good.test:8443/c.json", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := set(t, Rule{Host: c.pattern, Action: Allow})
			if got := s.Decide(subject(c.id)).Action == Allow; got != c.match {
				t.Errorf("pattern %s, client %s: match is %v", c.pattern, c.id, got)
			}
		})
	}
}

func TestRulesMatchInOrder(t *testing.T) {
	s := set(t,
		Rule{Name: "blocked app", Client: "https://good.test/bad.json", Action: Deny, Reason: "retired"},
		Rule{Name: "apps", Prefix: "https://good.test/apps/", Action: Allow, Scopes: oauth.Scopes{"issues:read"}, HasScopes: true},
		Rule{Name: "host", Host: "good.test", Action: Ask},
		Rule{Name: "old", Client: "registered-1", Action: Allow},
	)
	for _, c := range []struct{ name, id, rule string }{
		{"POL-01 the exact client wins by order", "https://good.test/bad.json", "blocked app"},
		{"POL-01 a path prefix ends at a segment", "https://good.test/apps/a.json", "apps"},
		{"POL-01 a prefix is not a substring", "https://good.test/appsx/a.json", "host"},
		{"POL-01 a prefix does not reach another host", "https://evil.test/good.test/apps/a.json", "default"},
		{"POL-01 an opaque id is compared byte for byte", "registered-1", "old"},
		{"POL-01 all else falls to the default", "https://other.test/c.json", "default"},
	} {
		t.Run(c.name, func(t *testing.T) {
			who := subject(c.id)
			if !strings.HasPrefix(c.id, "https://") {
				who.Host = ""
			}
			if got := s.Decide(who); got.Rule != c.rule {
				t.Errorf("%s: rule %q, want %q", c.id, got.Rule, c.rule)
			}
		})
	}
	t.Run("POL-01 a closed server refuses what no rule names", func(t *testing.T) {
		if d := s.Decide(subject("https://other.test/c")); d.Action != Deny {
			t.Errorf("action %s", d.Action)
		}
	})
}

func TestClientsThatNoRuleMatches(t *testing.T) {
	asked := oauth.Scopes{"issues:read", "issues:write"}
	for _, c := range []struct {
		name, id string
		set      Set
		left     oauth.Scopes
	}{
		{"POL-04 a client that no rule matches has the scopes that are left to such", "https://other.test/c.json", Set{HasUnnamed: true, Unnamed: oauth.Scopes{"issues:read"}}, oauth.Scopes{"issues:read"}},
		{"POL-04 an empty list leaves it none", "https://other.test/c.json", Set{HasUnnamed: true}, nil},
		{"POL-04 without a list it has all", "https://other.test/c.json", Set{}, asked},
		{"POL-04 a client that a rule matches has what the rule says", "https://good.test/c.json", Set{HasUnnamed: true}, asked},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.set.Default, c.set.Rules = Allow, []Rule{{Host: "good.test", Action: Allow}}
			if err := c.set.Check(); err != nil {
				t.Fatal(err)
			}
			if got := c.set.Decide(subject(c.id)).Narrow(asked); got.String() != c.left.String() {
				t.Errorf("%s is left", got)
			}
		})
	}
	bad := Set{HasUnnamed: true, Unnamed: oauth.Scopes{"issues:read", "two words"}}
	if err := bad.Check(); err == nil || err.Error() != `policy: unnamed_scopes: "two words" is not a scope` {
		t.Error(err)
	}
}

func TestCeilingsNarrow(t *testing.T) {
	s := set(t, Rule{Host: "good.test", Action: Allow, Scopes: oauth.Scopes{"issues:read"}, HasScopes: true,
		Methods: []string{oauth.MethodPrivateKeyJWT}, Grants: []string{"authorization_code"}, Resources: []string{"https://mcp.example/github"}})
	d := s.Decide(subject("https://good.test/c"))
	if diff := cmp.Diff(oauth.Scopes{"issues:read"}, d.Narrow(oauth.Scopes{"issues:write", "issues:read"})); diff != "" {
		t.Error(diff)
	}
	if d.MayAuthenticate(oauth.MethodNone) || !d.MayAuthenticate(oauth.MethodPrivateKeyJWT) {
		t.Error("methods are not narrowed")
	}
	if d.MayRefresh(true) {
		t.Error("a grant ceiling without refresh_token still refreshes")
	}
	if d.MayUse("https://mcp.example/other") || !d.MayUse("https://mcp.example/github") {
		t.Error("resources are not narrowed")
	}
	t.Run("TOK-15 refresh follows the document unless the rule says otherwise", func(t *testing.T) {
		for _, c := range []struct {
			refresh          string
			documented, want bool
		}{{"", true, true}, {"", false, false}, {"always", false, true}, {"never", true, false}} {
			if got := (Decision{Refresh: c.refresh}).MayRefresh(c.documented); got != c.want {
				t.Errorf("refresh %q, documented %v: %v", c.refresh, c.documented, got)
			}
		}
	})
}

func TestResourcesAreFoundByExactNameOrAlias(t *testing.T) {
	s := set(t)
	for _, c := range []struct {
		name, id string
		found    bool
	}{
		{"AUTHZ-18 the identifier itself", "https://mcp.example/github", true},
		{"AUTHZ-18 upper-case scheme and host", "HTTPS://MCP.Example/github", true},
		{"AUTHZ-18 a configured alias", "https://mcp.example/github/", true},
		{"AUTHZ-18 the path keeps its case", "https://mcp.example/GitHub", false},
		{"AUTHZ-16 a prefix is another resource", "https://mcp.example/", false},
		{"AUTHZ-16 a query is another resource", "https://mcp.example/github?x", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, ok := s.Resource(c.id)
			if ok != c.found {
				t.Fatalf("found %v", ok)
			}
			if ok && r.ID != "https://mcp.example/github" {
				t.Errorf("mapped to %s", r.ID)
			}
		})
	}
}

func TestScopesImplyOthers(t *testing.T) {
	r := github()
	want := oauth.Scopes{"issues:admin", "issues:write", "issues:read"}
	if diff := cmp.Diff(want, r.Expand(oauth.Scopes{"issues:admin"})); diff != "" {
		t.Error(diff)
	}
}

func TestCheckNamesTheMistake(t *testing.T) {
	good := func() *Set {
		return &Set{Default: Ask, Resources: []Resource{github()}, DefaultResource: "https://mcp.example/github",
			Rules: []Rule{{Name: "r", Host: "good.test", Action: Allow}}}
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		spoil func(*Set)
		want  string
	}{
		{"unknown default", func(s *Set) { s.Default = "maybe" }, "allow, ask or deny"},
		{"unknown action", func(s *Set) { s.Rules[0].Action = "permit" }, "allow, ask or deny"},
		{"two selectors", func(s *Set) { s.Rules[0].Client = "x" }, "exactly one"},
		{"no selector", func(s *Set) { s.Rules[0].Host = "" }, "exactly one"},
		{"prefix without a slash at the end", func(s *Set) { s.Rules[0].Host, s.Rules[0].Prefix = "", "https://good.test/app" }, "end in a slash"},
		{"prefix without a path", func(s *Set) { s.Rules[0].Host, s.Rules[0].Prefix = "", "https://good.test" }, "with a path"},
		{"prefix with a dot segment", func(s *Set) { s.Rules[0].Host, s.Rules[0].Prefix = "", "https://good.test/../" }, "dot segment"},
		{"prefix with user information", func(s *Set) { s.Rules[0].Host, s.Rules[0].Prefix = "", "https://a@good.test/" }, "plain"},
		{"POL-02 a wildcard over a public suffix", func(s *Set) { s.Rules[0].Host = "*.github.io" }, "different owners"},
		{"a wildcard over a top-level domain", func(s *Set) { s.Rules[0].Host = "*.com" }, "different owners"},
		{"a bare wildcard", func(s *Set) { s.Rules[0].Host = "*" }, "host name"},
		{"a wildcard inside a label", func(s *Set) { s.Rules[0].Host = "a*.good.test" }, "host name"},
		{"attack AD-10: an upper-case host", func(s *Set) { s.Rules[0].Host = "Good.test" }, "lower-case"},
		{"a host with two ports", func(s *Set) { s.Rules[0].Host = "good.test:8443:443" }, "lower-case"},
		{"attack AD-10: a trailing dot", func(s *Set) { s.Rules[0].Host = "good.test." }, "host name"},
		{"attack AD-10: a host that is not ASCII", func(s *Set) { s.Rules[0].Host = "gööd.test" }, "xn--"},
		{"a port that is none", func(s *Set) { s.Rules[0].Host = "good.test:https" }, "port"},
		{"a rule's scope", func(s *Set) { s.Rules[0].Scopes = oauth.Scopes{`a"b`} }, "not a scope"},
		{"a rule's resource", func(s *Set) { s.Rules[0].Resources = []string{"https://no.example/"} }, "not among"},
		{"a rule's method", func(s *Set) { s.Rules[0].Methods = []string{"magic"} }, "not known"},
		{"a rule's refresh", func(s *Set) { s.Rules[0].Refresh = "often" }, "always or never"},
		{"two rules with one name", func(s *Set) { s.Rules = append(s.Rules, s.Rules[0]) }, "used twice"},
		{"default resource", func(s *Set) { s.DefaultResource = "https://no.example/" }, "not among"},
		{"AUTHZ-16 resource with a fragment", func(s *Set) { s.Resources[0].ID += "#x" }, "fragment"},
		{"relative resource", func(s *Set) { s.Resources[0].ID = "/github" }, "absolute"},
		{"resource in upper case", func(s *Set) { s.Resources[0].ID = "https://MCP.example/github" }, "lower case"},
		{"resource without a name", func(s *Set) { s.Resources[0].Name = "" }, "give it a name"},
		{"alias that is taken", func(s *Set) { s.Resources[0].Aliases = []string{s.Resources[0].ID} }, "used twice"},
		{"RS-27 scope with a quote", func(s *Set) { s.Resources[0].Scopes[0].Name = `a"` }, "not a scope"},
		{"scope without a title", func(s *Set) { s.Resources[0].Scopes[0].Title = "" }, "needs a title"},
		{"scope twice", func(s *Set) { s.Resources[0].Scopes[1].Name = "issues:read" }, "stands twice"},
		{"implied scope that does not exist", func(s *Set) { s.Resources[0].Scopes[1].Implies = []string{"nope"} }, "implies"},
		{"default scope that does not exist", func(s *Set) { s.Resources[0].Default = oauth.Scopes{"nope"} }, "default scope"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := good()
			c.spoil(s)
			err := s.Check()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that says %q", err, c.want)
			}
		})
	}
}

// FuzzHostPatternNeverMatchesAnotherOwner compares label by label from the right.
// Half of the hosts end as the pattern does, or they would hardly ever match.
func FuzzHostPatternNeverMatchesAnotherOwner(f *testing.F) {
	f.Add("good.test", "evilgood.test", false, uint16(443), true)
	f.Add("*.good.test", "a.good.test", false, uint16(443), true)
	f.Add("*.good.test", "good.test.evil.test", false, uint16(443), false)
	f.Add("*.good.test:8443", "a", true, uint16(8443), true)
	f.Add("good.test", "evil", true, uint16(8443), false)
	f.Add("*.good.test", "evil.test/", true, uint16(443), false)
	f.Fuzz(func(t *testing.T, pattern, host string, same bool, port uint16, allow bool) {
		if checkHost(pattern) != nil {
			return
		}
		name, number, ported := strings.Cut(pattern, ":")
		if same {
			host += strings.TrimPrefix(name, "*")
		}
		r := Rule{Host: pattern, Action: Deny}
		if allow {
			r.Action = Allow
		}
		wantPort := port == 443
		if ported {
			wantPort = strings.TrimLeft(number, "0") == strconv.Itoa(int(port))
		} else if !allow {
			wantPort = true // what holds back holds everything of the host back
		}
		got := r.matches(Subject{ID: "https://" + host + "/c", Host: host, Port: port})
		want := host != "" && wantPort && slowMatch(strings.Split(name, "."), strings.Split(host, "."))
		if suffix, _ := publicsuffix.PublicSuffix(host); allow && strings.HasPrefix(name, "*") && strings.HasSuffix("."+suffix, strings.TrimPrefix(name, "*")) {
			want = false // another owner stands between
		}
		if got != want {
			t.Errorf("%s %q host %q port %d: %v, oracle says %v", r.Action, pattern, host, port, got, want)
		}
	})
}

func slowMatch(pattern, host []string) bool {
	if pattern[0] != "*" {
		return strings.Join(pattern, ".") == strings.Join(host, ".")
	}
	tail := pattern[1:]
	if len(host) <= len(tail) {
		return false
	}
	// At least one octet must stand before the tail.
	if len(host) == len(tail)+1 && host[0] == "" {
		return false
	}
	for i := 1; i <= len(tail); i++ {
		if tail[len(tail)-i] != host[len(host)-i] {
			return false
		}
	}
	return true
}

func TestARuleThatHoldsBackKnowsEverySpelling(t *testing.T) {
	for _, c := range []struct {
		name, id string
		rule     Rule
		match    bool
	}{
		{"the prefix as written", "https://good.test/bad/c.json", Rule{Prefix: "https://good.test/bad/"}, true},
		{"upper case in the host", "https://GOOD.test/bad/c.json", Rule{Prefix: "https://good.test/bad/"}, true},
		{"the default port", "https://good.test:443/bad/c.json", Rule{Prefix: "https://good.test/bad/"}, true},
		{"a percent escape in the path", "https://good.test/b%61d/c.json", Rule{Prefix: "https://good.test/bad/"}, true},
		{"the neighbour stays free", "https://good.test/badge/c.json", Rule{Prefix: "https://good.test/bad/"}, false},
		{"another host stays free", "https://evil.test/bad/c.json", Rule{Prefix: "https://good.test/bad/"}, false},
		{"a host on another port", "https://good.test:8443/c.json", Rule{Host: "good.test"}, true},
		{"names below a host on another port", "https://a.good.test:8443/c.json", Rule{Host: "*.good.test"}, true},
		{"a host whose port is named", "https://good.test/c.json", Rule{Host: "good.test:8443"}, false},
	} {
		for _, action := range []Action{Deny, Ask} {
			t.Run("POL-02, attack AD-10: "+string(action)+" and "+c.name, func(t *testing.T) {
				c.rule.Action = action
				s := set(t, c.rule)
				s.Default = Allow
				who := subject(strings.Replace(c.id, ":443/", "/", 1))
				who.ID, who.Host = c.id, strings.ToLower(who.Host)
				if got := s.Decide(who).Action == action; got != c.match {
					t.Errorf("%+v, client %s: match is %v", c.rule, c.id, got)
				}
			})
		}
		t.Run("POL-02 allow is exact about "+c.name, func(t *testing.T) {
			if c.rule.Action = Allow; c.rule.Prefix == "" || strings.HasPrefix(c.id, c.rule.Prefix) {
				return
			}
			s := set(t, c.rule)
			if s.Decide(subject(c.id)).Action == Allow {
				t.Errorf("%+v admits %s", c.rule, c.id)
			}
		})
	}
}

func TestAWildcardAdmitsOneOwnerOnly(t *testing.T) {
	for _, c := range []struct {
		name, pattern, id string
		action            Action
		match             bool
	}{
		{"POL-02 a customer's bucket is not the cloud's own host", "*.amazonaws.com", "https://evil.s3.amazonaws.com/c.json", Allow, false},
		{"POL-02 the suffix itself is not one owner's either", "*.amazonaws.com", "https://s3.amazonaws.com/c.json", Allow, false},
		{"POL-02 the cloud's own host is", "*.amazonaws.com", "https://console.amazonaws.com/c.json", Allow, true},
		{"POL-02 a refusal reaches them all", "*.amazonaws.com", "https://evil.s3.amazonaws.com/c.json", Deny, true},
		{"POL-02 the names below a customer's own are one owner's", "*.acme.github.io", "https://app.acme.github.io/c.json", Allow, true},
		{"POL-02 an ordinary domain", "*.good.test", "https://a.b.good.test/c.json", Allow, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Rule{Host: c.pattern, Action: c.action}
			if got := r.matches(subject(c.id)); got != c.match {
				t.Errorf("%s %s: %v", c.pattern, c.id, got)
			}
		})
	}
}
