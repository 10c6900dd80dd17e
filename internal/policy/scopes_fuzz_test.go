package policy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/oauth"
)

// bag is the slow model of a set of scopes.
type bag map[string]bool

func bagOf(s oauth.Scopes) bag {
	b := bag{}
	for _, t := range s {
		b[t] = true
	}
	return b
}

// FuzzScopeSets compares what is done with sets of scopes and of resources on the
// way to a token with a model of maps: union, intersection, difference, covering,
// what scopes imply, and the ceilings of a decision. No token may ever get out
// that was not put in.
func FuzzScopeSets(f *testing.F) {
	f.Add("a b c", "b d", "a>b b>c c>a", "a", "https://r.test/x https://R.test/x")
	f.Add("", "a", "a>a", "", "")
	f.Add("a  a b", "b b", "x>y", "y", "https://r.test/x/")
	f.Add("offline_access openid", "openid", "openid>a", "a openid", "https://r.test/y#z")
	f.Fuzz(func(t *testing.T, left, right, implied, ceiling, resources string) {
		a, errA := oauth.ParseScopes(left)
		b, errB := oauth.ParseScopes(right)
		top, errC := oauth.ParseScopes(ceiling)
		if errA != nil || errB != nil || errC != nil {
			return
		}
		ma, mb, mt := bagOf(a), bagOf(b), bagOf(top)
		if len(ma) != len(a) {
			t.Errorf("%q was read with a token twice", left)
		}
		same := func(op string, got oauth.Scopes, in func(string) bool) {
			t.Helper()
			want := bag{}
			for _, m := range []bag{ma, mb} {
				for s := range m {
					if in(s) {
						want[s] = true
					}
				}
			}
			if !maps.Equal(bagOf(got), want) || len(got) != len(want) {
				t.Errorf("%s of %q and %q is %q, the model says %v", op, a, b, got, want)
			}
		}
		same("union", a.Or(b), func(s string) bool { return ma[s] || mb[s] })
		same("intersection", a.And(b), func(s string) bool { return ma[s] && mb[s] })
		same("difference", a.Without(b), func(s string) bool { return ma[s] && !mb[s] })
		covers := true
		for s := range mb {
			covers = covers && ma[s]
		}
		if a.Covers(b) != covers {
			t.Errorf("%q covers %q: %v", a, b, !covers)
		}
		if again, err := oauth.ParseScopes(a.String()); err != nil || !slices.Equal(again, a) {
			t.Errorf("%q is read back as %q, %v", a, again, err)
		}
		d := Decision{Scopes: top, HasScopes: true}
		same("ceiling", d.Narrow(a.Or(b)), func(s string) bool { return mt[s] })
		expands(t, a, implied)
		finds(t, resources)
	})
}

// expands compares Expand with the reachable nodes of a graph.
func expands(t *testing.T, from oauth.Scopes, implied string) {
	t.Helper()
	edges := map[string][]string{}
	for pair := range strings.FieldsSeq(implied) {
		if x, y, ok := strings.Cut(pair, ">"); ok && oauth.ValidScope(x) && oauth.ValidScope(y) && len(edges) < 20 {
			edges[x] = append(edges[x], y)
		}
	}
	r := Resource{}
	for name, to := range edges {
		r.Scopes = append(r.Scopes, Scope{Name: name, Implies: to})
	}
	want := bagOf(from)
	for grown := true; grown; {
		grown = false
		for x := range maps.Clone(want) {
			for _, y := range edges[x] {
				grown = grown || !want[y]
				want[y] = true
			}
		}
	}
	before := slices.Clone(from)
	if got := r.Expand(from); !maps.Equal(bagOf(got), want) || len(got) != len(want) {
		t.Errorf("%q expands to %q, the model says %v", from, got, want)
	}
	if !slices.Equal(before, from) {
		t.Errorf("Expand changed its argument from %q to %q", before, from)
	}
}

// finds checks that no spelling leads to a resource but its own, its aliases, and
// another case of scheme and host.
func finds(t *testing.T, resources string) {
	t.Helper()
	s := &Set{Default: Allow, Resources: []Resource{
		{ID: "https://r.test/x", Name: "X", Aliases: []string{"https://r.test/x/"}}, {ID: "https://r.test/y", Name: "Y"},
	}}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	for id := range strings.FieldsSeq(resources) {
		want := ""
		switch {
		case id == "https://r.test/x/":
			want = "https://r.test/x"
		case len(id) == len("https://r.test/x") && strings.EqualFold(id[:15], "https://r.test/") && (id[15] == 'x' || id[15] == 'y'):
			want = "https://r.test/" + id[15:]
		case len(id) == len("https://r.test/x/") && strings.EqualFold(id[:15], "https://r.test/") && id[15:] == "x/":
			want = "https://r.test/x"
		}
		got := ""
		if r, ok := s.Resource(id); ok {
			got = r.ID
		}
		if got != want {
			t.Errorf("%q finds %q, the model says %q", id, got, want)
		}
	}
}
