package policy

import (
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/oauth"
)

func TestKeepDetails(t *testing.T) {
	s, r := driveSet(t)
	r.Scopes = append(r.Scopes, Scope{Name: "all", Title: "do all", Implies: []string{"files"}})
	const folder, quota = `{"path":"a","type":"folder"}`, `{"type":"quota"}`
	for _, c := range []struct {
		name, granted string
		scopes        oauth.Scopes
		want          string
	}{
		{"nothing was granted", "", oauth.Scopes{"files"}, ""},
		{"what was kept cannot be read", "[", oauth.Scopes{"files"}, ""},
		{"with its scope a type stays", "[" + folder + "," + quota + "]", oauth.Scopes{"files"}, "[" + folder + "," + quota + "]"},
		{"with a scope that includes it too", "[" + quota + "]", oauth.Scopes{"all"}, "[" + quota + "]"},
		{"without its scope a type goes, and one that needs none stays", "[" + folder + "," + quota + "]", nil, "[" + folder + "]"},
		{"another scope does not help", "[" + quota + "]", oauth.Scopes{"openid"}, ""},
		{"a type that the resource no longer has goes", `[{"type":"payment"},` + folder + "]", oauth.Scopes{"files"}, "[" + folder + "]"},
		{"so does an entry that it would no longer take", `[{"path":"a","mode":"dead","type":"folder"}]`, oauth.Scopes{"files"}, ""},
	} {
		t.Run("AUTHZ-26 "+c.name, func(t *testing.T) {
			if got := s.KeepDetails(r, c.granted, c.scopes); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestSelectDetails(t *testing.T) {
	s, r := driveSet(t)
	const folder, quota, markup = `{"path":"a","type":"folder"}`, `{"type":"quota"}`, `{"path":"<a>&","type":"folder"}`
	granted := "[" + folder + "," + quota + "," + markup + "]"
	for _, c := range []struct{ name, granted, asked, want string }{
		{"one of three", granted, `[ {"type":"folder", "path":"a"} ]`, "[" + folder + "]"},
		{"in another order", granted, "[" + quota + "," + folder + "]", "[" + quota + "," + folder + "]"},
		{"the resource as location is part of an entry", granted, `[{"path":"a","type":"folder","locations":["` + r.ID + `"]}]`, ""},
		{"one that was not granted", granted, `[{"path":"b","type":"folder"}]`, ""},
		{"one more particular", granted, `[{"path":"a","type":"folder","shared":true}]`, ""},
		{"an unknown type", granted, `[{"type":"payment"}]`, ""},
		{"nothing was granted", "", "[" + quota + "]", ""},
		{"what was kept cannot be read", "[", "[" + quota + "]", ""},
	} {
		t.Run("AUTHZ-26 "+c.name, func(t *testing.T) {
			if got, err := s.SelectDetails(r, c.granted, c.asked); got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
	t.Run("AUTHZ-26 letters that JSON escapes are the same letters", func(t *testing.T) {
		kept := s.KeepDetails(r, must(s.ReadDetails(r, "["+markup+"]"))(t).JSON, nil)
		if got, err := s.SelectDetails(r, kept, "["+markup+"]"); err != nil || got != kept {
			t.Errorf("got %s, %v", got, err)
		}
	})
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestReadDetailsAtTheEdge(t *testing.T) {
	s, r := driveSet(t)
	for _, c := range []struct {
		name, raw string
		ok        bool
	}{
		{"a no stays a no", `{"path":"a","shared":false,"type":"folder"}`, true},
		{"as long as may be, counted in characters", `{"path":"` + strings.Repeat("é", 20) + `","type":"folder"}`, true},
		{"four marks on a letter", `{"path":"x` + strings.Repeat("\u0323", 4) + `","type":"folder"}`, true},
		{"a mark on each of many letters", `{"path":"` + strings.Repeat("x\u0323", 6) + `","type":"folder"}`, true},
		{"a list of 16", `{"path":"a","tags":["0","1","2","3","4","5","6","7","8","9","a","b","c","d","e","f"],"type":"folder"}`, true},
		{"a pile of marks behind the first letter", `{"path":"x\u0323x` + strings.Repeat("\u0323", 5) + `","type":"folder"}`, false},
	} {
		t.Run("AUTHZ-26 "+c.name, func(t *testing.T) {
			d, err := s.ReadDetails(r, "["+c.raw+"]")
			if (err == nil) != c.ok || c.ok && d.JSON != "["+c.raw+"]" {
				t.Errorf("got %s, %v", d.JSON, err)
			}
		})
	}
	if _, err := s.ReadDetails(r, `[`+strings.Repeat(`{"type":"quota"},`, 7)+`{"type":"quota"}]`); err != nil {
		t.Errorf("AUTHZ-26 eight entries: %v", err)
	}
}

func TestTypesOfDetailsThatAreWell(t *testing.T) {
	for name, f := range map[string]DetailField{
		"a number with many": {Kind: KindNumber, Many: true}, "a truth with a length": {Kind: KindBoolean, Max: 3}, "less than no text": {Max: -1},
		"a text": {Kind: KindText, Max: 256, Many: true, Values: []string{"a"}}, "a number": {Kind: KindNumber}, "a truth": {Kind: KindBoolean},
	} {
		t.Run("AUTHZ-26 "+name, func(t *testing.T) {
			f.Name, f.Title = "f", "F"
			r := drive()
			r.Details[1].Fields = []DetailField{f}
			err := (&Set{Default: Allow, Resources: []Resource{r}}).Check()
			if bad := f.Kind != KindText && (f.Many || f.Max != 0); (err != nil) != bad {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCheckOfRulesAndResources(t *testing.T) {
	yes, no := true, false
	check := func(r Rule) error {
		if r.Client+r.Prefix+r.Host == "" && !r.Dynamic {
			r.Host = "good.test"
		}
		r.Action = Allow
		return (&Set{Default: Allow, Resources: []Resource{github()}, Rules: []Rule{r}}).Check()
	}
	for name, r := range map[string]Rule{
		"refresh never": {Refresh: RefreshNever}, "refresh always": {Refresh: RefreshAlways}, "the profile alone": {FAPI: true},
		"the profile and one more signature": {FAPI: true, SigningAlgs: []string{"RS256", "ES256"}}, "no device flow with the profile": {FAPI: true, Device: &no},
		"development that is not remembered": {Development: true, Remember: &no}, "development": {Development: true}, "remembered": {Remember: &yes},
		"no device flow for dynamic clients": {Dynamic: true, Device: &no}, "the last port": {Host: "good.test:65535"}, "a prefix of a whole host": {Prefix: "https://good.test/"},
		"a prefix with a port": {Prefix: "https://good.test:8443/apps/"},
	} {
		if err := check(r); err != nil {
			t.Errorf("POL-03 %s: %v", name, err)
		}
	}
	for name, r := range map[string]Rule{
		"refresh sometimes": {Refresh: "sometimes"}, "a prefix in capitals": {Prefix: "https://Good.test/"}, "a prefix without a host": {Prefix: "https:///a/"},
		"a prefix with a query": {Prefix: "https://good.test/a?b/"}, "a prefix with a dot segment": {Prefix: "https://good.test/../a/"},
		"a port in letters": {Host: "good.test:8a"}, "no port": {Host: "good.test:0"}, "a port too far": {Host: "good.test:65536"},
		"a wildcard of nothing": {Host: "*."}, "a dot at the end": {Host: "good.test."}, "a dot at the start": {Host: ".good.test"},
		"letters beyond ASCII": {Host: "gööd.test"}, "the device flow for dynamic clients": {Dynamic: true, Device: &yes}, "the own host of dynamic clients": {Dynamic: true, SameHost: true},
	} {
		if err := check(r); err == nil {
			t.Errorf("POL-02, POL-03 %s: accepted", name)
		}
	}
	for id, ok := range map[string]bool{
		"https://mcp.example/x": true, "http://localhost:8080/x": true, "ftp://mcp.example/x": false, "https://user@mcp.example/x": false,
		"https://mcp.example/x#y": false, "mcp.example/x": false, "https:///x": false, "https://MCP.example/x": false,
	} {
		if err := (&Set{Default: Allow, Resources: []Resource{{ID: id, Name: "X"}}}).Check(); (err == nil) != ok {
			t.Errorf("AUTHZ-16 %s: %v", id, err)
		}
	}
}
