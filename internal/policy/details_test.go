package policy

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bonafide-id/bonafide/oauth"
)

func drive() Resource {
	return Resource{
		ID: "https://mcp.example/drive", Name: "Drive", Aliases: []string{"https://mcp.example/drive/"},
		Scopes: []Scope{{Name: "files", Title: "use files"}},
		Details: []DetailType{
			{Type: "folder", Title: "work in one folder", Fields: []DetailField{
				{Name: "path", Title: "Folder", Required: true, Max: 20},
				{Name: "actions", Title: "It may", Values: []string{"read", "write"}, Many: true},
				{Name: "mode", Title: "Mode", Values: []string{"live", "copy"}},
				{Name: "days", Title: "Days", Kind: KindNumber},
				{Name: "shared", Title: "With others", Kind: KindBoolean},
				{Name: "tags", Title: "Tags", Many: true},
			}},
			{Type: "quota", Title: "use space", Scope: "files"},
		},
	}
}

func driveSet(t testing.TB) (*Set, *Resource) {
	t.Helper()
	s := &Set{Default: Allow, Resources: []Resource{drive(), github()}}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	return s, &s.Resources[0]
}

func TestReadDetails(t *testing.T) {
	s, r := driveSet(t)
	for _, c := range []struct{ name, raw, want string }{
		{"AUTHZ-26 all that a type allows", `[{"shared":true,"type":"folder","path":"/Documents","days":7.5,"actions":["read","write"],"mode":"copy","tags":["é","x y"]}]`,
			`[{"actions":["read","write"],"days":7.5,"mode":"copy","path":"/Documents","shared":true,"tags":["é","x y"],"type":"folder"}]`},
		{"AUTHZ-26 only what has to be", `[{"type":"folder","path":"a"}]`, `[{"path":"a","type":"folder"}]`},
		{"AUTHZ-26 several types", ` [ {"type":"quota"} , {"type":"folder","path":"a"} ] `, `[{"type":"quota"},{"path":"a","type":"folder"}]`},
		{"AUTHZ-26 the resource as location, by an alias", `[{"type":"quota","locations":["https://mcp.example/drive/"]}]`, `[{"locations":["https://mcp.example/drive"],"type":"quota"}]`},
		{"AUTHZ-26 another resource as location", `[{"type":"quota","locations":["https://mcp.example/github"]}]`, ""},
		{"AUTHZ-26 a location nobody knows", `[{"type":"quota","locations":["https://evil.test/"]}]`, ""},
		{"AUTHZ-26 locations without any", `[{"type":"quota","locations":[]}]`, ""},
		{"AUTHZ-26 an unknown type", `[{"type":"payment"}]`, ""},
		{"AUTHZ-26 a type of another case", `[{"type":"Quota"}]`, ""},
		{"AUTHZ-26 no type", `[{"path":"a"}]`, ""},
		{"AUTHZ-26 a type that is a number", `[{"type":1}]`, ""},
		{"AUTHZ-26 one unknown type among known ones", `[{"type":"quota"},{"type":"payment"}]`, ""},
		{"AUTHZ-26 an unknown member", `[{"type":"quota","path":"a"}]`, ""},
		{"AUTHZ-26 a member twice", `[{"type":"folder","path":"a","path":"b"}]`, ""},
		{"AUTHZ-26 the type twice", `[{"type":"quota","type":"folder","path":"b"}]`, ""},
		{"AUTHZ-26 a member of another case", `[{"type":"folder","Path":"a"}]`, ""},
		{"AUTHZ-26 a member that has to be is missing", `[{"type":"folder","mode":"live"}]`, ""},
		{"AUTHZ-26 a member that has to be is null", `[{"type":"folder","path":null}]`, ""},
		{"AUTHZ-26 a member that has to be is empty", `[{"type":"folder","path":""}]`, ""},
		{"AUTHZ-26 a text that is a list", `[{"type":"folder","path":["a"]}]`, ""},
		{"AUTHZ-26 a text that is too long", `[{"type":"folder","path":"` + strings.Repeat("a", 21) + `"}]`, ""},
		{"AUTHZ-26 a text with a line break", `[{"type":"folder","path":"a\nb"}]`, ""},
		{"AUTHZ-26 a text that turns around", "[{\"type\":\"folder\",\"path\":\"a\u202eb\"}]", ""},
		{"AUTHZ-26 a text with a letter of no width", "[{\"type\":\"folder\",\"path\":\"a\u3164b\"}]", ""},
		{"AUTHZ-26 a text that picks a variant of a letter", "[{\"type\":\"folder\",\"path\":\"a\ufe0fb\"}]", ""},
		{"AUTHZ-26 a text with a joiner that is not shown", "[{\"type\":\"folder\",\"path\":\"a\u034fb\"}]", ""},
		{"AUTHZ-26 a text with a blank that is no space", "[{\"type\":\"folder\",\"path\":\"a\u2800b\"}]", ""},
		{"AUTHZ-26 a text that looks like another, composed", "[{\"type\":\"folder\",\"path\":\"e\u0301\"}]", ""},
		{"AUTHZ-26 a text with two spaces, of which one shows", "[{\"type\":\"folder\",\"path\":\"a  b\"}]", ""},
		{"AUTHZ-26 a text that is a pile of marks", "[{\"type\":\"folder\",\"path\":\"x" + strings.Repeat("\u0323", 5) + "\"}]", ""},
		{"AUTHZ-26 a text with hidden letters", "[{\"type\":\"folder\",\"path\":\"a\u200bb\"}]", ""},
		{"AUTHZ-26 a text with space around it", `[{"type":"folder","path":" a"}]`, ""},
		{"AUTHZ-26 a value that there is not", `[{"type":"folder","path":"a","mode":"dead"}]`, ""},
		{"AUTHZ-26 a value among others that there is not", `[{"type":"folder","path":"a","actions":["read","delete"]}]`, ""},
		{"AUTHZ-26 a value twice", `[{"type":"folder","path":"a","actions":["read","read"]}]`, ""},
		{"AUTHZ-26 a list without any", `[{"type":"folder","path":"a","actions":[]}]`, ""},
		{"AUTHZ-26 a list that is a text", `[{"type":"folder","path":"a","actions":"read"}]`, ""},
		{"AUTHZ-26 a list with null", `[{"type":"folder","path":"a","tags":[null]}]`, ""},
		{"AUTHZ-26 a list of 17", `[{"type":"folder","path":"a","tags":["0","1","2","3","4","5","6","7","8","9","a","b","c","d","e","f","g"]}]`, ""},
		{"AUTHZ-26 a number that is a text", `[{"type":"folder","path":"a","days":"7"}]`, ""},
		{"AUTHZ-26 a number that reads as another", `[{"type":"folder","path":"a","days":1e9}]`, ""},
		{"AUTHZ-26 a truth that is a number", `[{"type":"folder","path":"a","shared":1}]`, ""},
		{"AUTHZ-26 an object and no list", `{"type":"quota"}`, ""},
		{"AUTHZ-26 an empty list", `[]`, ""},
		{"AUTHZ-26 null", `null`, ""},
		{"AUTHZ-26 a list of null", `[null]`, ""},
		{"AUTHZ-26 no JSON", `[{"type":"quota"}`, ""},
		{"AUTHZ-26 more than one value", `[{"type":"quota"}] []`, ""},
		{"AUTHZ-26 nine entries", `[` + strings.Repeat(`{"type":"quota"},`, 8) + `{"type":"quota"}]`, ""},
		{"AUTHZ-26 five kilobytes", `[{"type":"quota"` + strings.Repeat(" ", 5000) + `}]`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := s.ReadDetails(r, c.raw)
			if (err == nil) != (c.want != "") {
				t.Fatalf("%v", err)
			}
			if err == nil && d.JSON != c.want {
				t.Errorf("granted %s, want %s", d.JSON, c.want)
			}
		})
	}
	t.Run("AUTHZ-26, CONS-04 in words, in the order of the configuration", func(t *testing.T) {
		d, err := s.ReadDetails(r, `[{"shared":false,"type":"folder","days":7,"path":"/a","actions":["read","write"]}]`)
		if err != nil {
			t.Fatal(err)
		}
		want := []DetailFact{{"Folder", []string{"/a"}}, {"It may", []string{"read", "write"}}, {"Days", []string{"7"}}, {"With others", []string{"no"}}}
		if diff := cmp.Diff(want, d.Entries[0].Facts); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("META-22 the types of all resources, once each", func(t *testing.T) {
		if diff := cmp.Diff([]string{"folder", "quota"}, s.DetailTypes()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCheckNamesTheMistakeInATypeOfDetails(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*DetailType)
		want  string
	}{
		{"no name", func(d *DetailType) { d.Type = "" }, "is not a type"},
		{"a name that stands twice", func(d *DetailType) { d.Type = "quota" }, "stands twice"},
		{"no title", func(d *DetailType) { d.Title = "" }, "needs a title"},
		{"a scope that does not exist", func(d *DetailType) { d.Scope = "nope" }, "not among its scopes"},
		{"a field without a name", func(d *DetailType) { d.Fields[0].Name = "" }, "name of a field"},
		{"a field twice", func(d *DetailType) { d.Fields[1].Name = "path" }, "stands twice"},
		{"a field of every type", func(d *DetailType) { d.Fields[0].Name = "locations" }, "every type"},
		{"a field without a title", func(d *DetailType) { d.Fields[0].Title = "" }, "needs a title"},
		{"an unknown kind", func(d *DetailType) { d.Fields[0].Kind = "date" }, "text, number or boolean"},
		{"values of a number", func(d *DetailType) { d.Fields[3].Values = []string{"1"} }, "are for texts"},
		{"a text without end", func(d *DetailType) { d.Fields[0].Max = 1000 }, "between 1 and 256"},
	} {
		t.Run("AUTHZ-26 "+c.name, func(t *testing.T) {
			r := drive()
			c.spoil(&r.Details[0])
			err := (&Set{Default: Allow, Resources: []Resource{r}}).Check()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that says %q", err, c.want)
			}
		})
	}
}

// FuzzDetails compares what is accepted with a slow second look at the same
// JSON: every member is one of the type's, and what is granted is what was asked
// for, reads the same once more, and is all in the words for people.
func FuzzDetails(f *testing.F) {
	s, r := driveSet(f)
	for _, raw := range []string{
		`[{"type":"folder","path":"/a","actions":["read"],"days":7,"shared":true,"tags":["x"],"mode":"live"}]`,
		`[{"type":"quota","locations":["https://mcp.example/drive/"]}]`, `[{"type":"folder","path":"a","days":1e9}]`,
		`[{"type":"folder","path":"\u202e"}]`, `[{"type":"folder","path":"\ud800"}]`, `[{"type":"quota"},{"type":"quota"}]`,
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		d, err := s.ReadDetails(r, raw)
		if err != nil {
			if d.JSON != "" && d.Entries == nil {
				t.Errorf("refused and granted: %s", d.JSON)
			}
			return
		}
		var asked, granted []map[string]any
		if json.Unmarshal([]byte(raw), &asked) != nil || json.Unmarshal([]byte(d.JSON), &granted) != nil {
			t.Fatalf("%q became %q", raw, d.JSON)
		}
		for _, e := range asked {
			if _, ok := e["locations"]; ok {
				e["locations"] = []any{r.ID}
			}
		}
		if diff := cmp.Diff(asked, granted); diff != "" {
			t.Errorf("granted is not what was asked for:\n%s", diff)
		}
		for i, e := range granted {
			typ := r.Details[slices.IndexFunc(r.Details, func(t DetailType) bool { return t.Type == e["type"] })]
			words := 0
			for name := range e {
				if name == "type" || name == "locations" {
					continue
				}
				words++
				if !slices.ContainsFunc(typ.Fields, func(f DetailField) bool { return f.Name == name }) {
					t.Errorf("%s has no field %s", typ.Type, name)
				}
			}
			if words != len(d.Entries[i].Facts) {
				t.Errorf("%d members and %d lines for people", words, len(d.Entries[i].Facts))
			}
		}
		if again, err := s.ReadDetails(r, d.JSON); err != nil || again.JSON != d.JSON {
			t.Errorf("%s reads differently the second time: %s, %v", d.JSON, again.JSON, err)
		}
	})
}

func TestWhatARuleDemands(t *testing.T) {
	yes := true
	s := set(t, Rule{Name: "banks", Host: "good.test", Action: Allow, FAPI: true, SigningAlgs: []string{"ES256", "Ed25519", "RS256"}},
		Rule{Name: "agents", Host: "agent.test", Action: Allow, RequirePAR: true, RequireDPoP: true, Device: &yes,
			Grants: []string{oauth.GrantAuthorizationCode, "client_credentials"}})
	banks, agents, rest := s.Decide(subject("https://good.test/c")), s.Decide(subject("https://agent.test/c")), s.Decide(subject("https://other.test/c"))
	t.Run("POL-09 FAPI 2.0 means pushed requests and bound tokens", func(t *testing.T) {
		if bind, dpop := banks.MustBind(); !banks.FAPI || !banks.RequirePAR || !bind || dpop {
			t.Errorf("%+v", banks)
		}
	})
	t.Run("POL-09 and keys or certificates", func(t *testing.T) {
		for method, want := range map[string]bool{oauth.MethodPrivateKeyJWT: true, oauth.MethodSelfSignedTLS: true, oauth.MethodNone: false,
			oauth.MethodSecretBasic: false, oauth.MethodSecretPost: false, oauth.MethodAttestation: false} {
			if banks.MayAuthenticate(method) != want {
				t.Errorf("%s: %v", method, !want)
			}
		}
	})
	t.Run("POL-09, POL-03 and signatures that it knows", func(t *testing.T) {
		for alg, want := range map[string]bool{"ES256": true, "EdDSA": true, "Ed25519": true, "RS256": false, "PS256": false} {
			if banks.MaySign(alg) != want {
				t.Errorf("%s: %v", alg, !want)
			}
		}
		if !rest.MaySign("RS256") || !rest.MaySign("PS256") || (Decision{FAPI: true}).MaySign("RS256") || !(Decision{FAPI: true}).MaySign("PS256") {
			t.Error("the profile alone leaves other signatures")
		}
	})
	t.Run("POL-03 pushed requests, DPoP and the device flow", func(t *testing.T) {
		if bind, dpop := agents.MustBind(); !agents.RequirePAR || !bind || !dpop || agents.Device == nil || !*agents.Device || agents.FAPI {
			t.Errorf("%+v", agents)
		}
		if bind, dpop := rest.MustBind(); bind || dpop || rest.RequirePAR || rest.Device != nil {
			t.Errorf("the default demands something: %+v", rest)
		}
	})
	t.Run("POL-03 a grant without a person has to be named", func(t *testing.T) {
		if !agents.Names("client_credentials") || agents.Names(oauth.GrantRefreshToken) || banks.Names("client_credentials") || rest.Names("client_credentials") {
			t.Error("named is not what was named")
		}
		if (Decision{Grants: []string{"client_credentials"}}).Names("client_credentials") {
			t.Error("a decision that no rule gave names a grant")
		}
	})
	for _, c := range []struct {
		name string
		rule Rule
		want string
	}{
		{"POL-09 FAPI 2.0 with a shared secret", Rule{FAPI: true, Methods: []string{oauth.MethodSecretBasic}}, "key or a certificate"},
		{"POL-09 FAPI 2.0 with the device flow", Rule{FAPI: true, Device: &yes}, "no device flow"},
		{"POL-09 FAPI 2.0 with RS256 alone", Rule{FAPI: true, SigningAlgs: []string{"RS256"}}, "no RS256"},
		{"CONS-12 a client in development that is remembered", Rule{Development: true, Remember: &yes}, "asked each time"},
		{"POL-03 an algorithm nobody knows", Rule{SigningAlgs: []string{"HS256"}}, "not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.rule.Host, c.rule.Action = "good.test", Allow
			err := (&Set{Default: Allow, Resources: []Resource{github()}, Rules: []Rule{c.rule}}).Check()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that says %q", err, c.want)
			}
		})
	}
}
