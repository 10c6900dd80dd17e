package resource

import (
	"fmt"
	"slices"

	"github.com/bonafide-id/bonafide/oauth"
)

// readScopes checks every scope name (RS-27), closes the hierarchy (RS-09) and
// works out what each tool needs in full (RS-08).
func (g *Guard) readScopes() error {
	if err := g.readHierarchy(); err != nil {
		return err
	}
	var err error
	if g.baseline, err = g.named("baseline", g.cfg.Baseline); err != nil {
		return err
	}
	if _, err = g.named("scopes supported", g.cfg.ScopesSupported); err != nil {
		return err
	}
	if g.tools, err = g.needs("tool", g.cfg.Tools); err != nil {
		return err
	}
	if g.methods, err = g.needs("method", g.cfg.Methods); err != nil {
		return err
	}
	if g.cfg.Methods["tools/call"] != nil {
		return fmt.Errorf("method tools/call: use Tools and DefaultToolScopes")
	}
	other, err := g.named("default tool scopes", g.cfg.DefaultToolScopes)
	g.otherTools = g.baseline.Or(other)
	return err
}

func (g *Guard) needs(kind string, m map[string][]string) (map[string]oauth.Scopes, error) {
	out := make(map[string]oauth.Scopes, len(m))
	for name, scopes := range m {
		if name == "" {
			return nil, fmt.Errorf("a %s has no name", kind)
		}
		own, err := g.named(fmt.Sprintf("%s %q", kind, name), scopes)
		if err != nil {
			return nil, err
		}
		out[name] = g.baseline.Or(own)
	}
	return out, nil
}

// named checks a list of scopes. offline_access is a matter between client and
// authorization server and never asked for by a resource (RS-17).
func (g *Guard) named(where string, names []string) (oauth.Scopes, error) {
	var out oauth.Scopes
	for _, s := range names {
		switch {
		case !oauth.ValidScope(s):
			return nil, fmt.Errorf("%s: %q is not a scope: visible characters without space, quote and backslash", where, s)
		case s == oauth.ScopeOfflineAccess:
			return nil, fmt.Errorf("%s: %s is never a resource's to ask for", where, s)
		case len(g.cfg.Scopes) > 0 && g.implied[s] == nil:
			return nil, fmt.Errorf("%s: scope %q is not declared in Scopes", where, s)
		}
		out = out.Or(oauth.Scopes{s})
	}
	return out, nil
}

func (g *Guard) readHierarchy() error {
	direct := make(map[string][]string, len(g.cfg.Scopes))
	for _, s := range g.cfg.Scopes {
		if !oauth.ValidScope(s.Name) {
			return fmt.Errorf("scopes: %q is not a scope", s.Name)
		}
		if _, twice := direct[s.Name]; twice {
			return fmt.Errorf("scopes: %q is declared twice", s.Name)
		}
		direct[s.Name] = s.Implies
	}
	g.implied = make(map[string]oauth.Scopes, len(direct))
	for name := range direct {
		var all oauth.Scopes
		if err := closure(direct, name, &all, nil); err != nil {
			return err
		}
		g.implied[name] = all
	}
	return nil
}

// closure adds name and everything below it to all; path leads to name.
func closure(direct map[string][]string, name string, all *oauth.Scopes, path []string) error {
	below, known := direct[name]
	if !known {
		return fmt.Errorf("scopes: %q implies %q, which is not declared", path[len(path)-1], name)
	}
	if slices.Contains(path, name) {
		return fmt.Errorf("scopes: %q implies itself", name)
	}
	*all = all.Or(oauth.Scopes{name})
	for _, b := range below {
		if err := closure(direct, b, all, append(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// expand returns the scopes with everything that they imply. Without a
// hierarchy it returns its argument.
func (g *Guard) expand(s oauth.Scopes) oauth.Scopes {
	if len(g.implied) == 0 {
		return s
	}
	out := make(oauth.Scopes, 0, len(s)+4)
	for _, name := range s {
		if !out.Has(name) {
			out = append(out, name)
		}
		for _, below := range g.implied[name] {
			if !out.Has(below) {
				out = append(out, below)
			}
		}
	}
	return out
}

// Needs returns all scopes that a call of the tool needs. ok is false for a tool
// that the configuration does not know and that DefaultToolScopes does not
// admit. The caller must not change the result.
func (g *Guard) Needs(tool string) (scopes oauth.Scopes, ok bool) {
	if s, known := g.tools[tool]; known {
		return s, true
	}
	return g.otherTools, g.cfg.Tools == nil || g.cfg.DefaultToolScopes != nil
}
