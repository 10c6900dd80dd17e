package policy

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
	"golang.org/x/net/publicsuffix"
)

// Check reports the first thing wrong with the set, in words for the person who
// wrote it, and prepares it for use. Call it once, before the set is shared.
func (s *Set) Check() error {
	if s.Default == "" {
		s.Default = Ask
	}
	if !s.Default.valid() {
		return fmt.Errorf("policy: default is %q; it must be allow, ask or deny", s.Default)
	}
	if err := checkScopes(s.Unnamed); err != nil {
		return fmt.Errorf("policy: unnamed_scopes: %w", err)
	}
	s.resources = map[string]*Resource{}
	for i := range s.Resources {
		r := &s.Resources[i]
		if err := r.check(); err != nil {
			return err
		}
		for _, id := range append([]string{r.ID}, r.Aliases...) {
			if _, taken := s.resources[id]; taken {
				return fmt.Errorf("resource %s: the identifier or alias %s is used twice", r.ID, id)
			}
			s.resources[id] = r
		}
	}
	if s.DefaultResource != "" && s.resources[s.DefaultResource] == nil {
		return fmt.Errorf("default_resource %s is not among the resources", s.DefaultResource)
	}
	names := map[string]bool{}
	for i := range s.Rules {
		r := &s.Rules[i]
		if r.Name == "" {
			if r.Name = r.Client + r.Prefix + r.Host; r.Dynamic {
				r.Name = "dynamic"
			}
		}
		if names[r.Name] {
			return fmt.Errorf("policy rule %q: the name is used twice", r.Name)
		}
		names[r.Name] = true
		if err := s.checkRule(r); err != nil {
			return fmt.Errorf("policy rule %q: %w", r.Name, err)
		}
	}
	return nil
}

func (a Action) valid() bool { return a == Allow || a == Ask || a == Deny }

func checkScopes(list oauth.Scopes) error {
	for _, t := range list {
		if !oauth.ValidScope(t) {
			return fmt.Errorf("%q is not a scope", t)
		}
	}
	return nil
}

func (s *Set) checkRule(r *Rule) error {
	given := 0
	for _, v := range []string{r.Client, r.Prefix, r.Host} {
		if v != "" {
			given++
		}
	}
	if r.Dynamic {
		given++
	}
	switch {
	case given != 1:
		return fmt.Errorf("give exactly one of client, prefix, host and dynamic")
	case r.Dynamic && r.SameHost:
		return fmt.Errorf("a client that registered itself has no host; leave same_host out")
	case r.Dynamic && r.Device != nil && *r.Device:
		return fmt.Errorf("the device flow is for clients that a rule names; leave device out")
	case !r.Action.valid():
		return fmt.Errorf("action is %q; it must be allow, ask or deny", r.Action)
	case r.Refresh != RefreshByDocument && r.Refresh != RefreshAlways && r.Refresh != RefreshNever:
		return fmt.Errorf("refresh is %q; it must be always or never, or be left out", r.Refresh)
	}
	if r.Prefix != "" {
		if err := checkPrefix(r.Prefix); err != nil {
			return err
		}
	}
	if r.Host != "" {
		if err := checkHost(r.Host); err != nil {
			return err
		}
	}
	if err := checkScopes(r.Scopes); err != nil {
		return err
	}
	for _, id := range r.Resources {
		if s.resources[id] == nil {
			return fmt.Errorf("resource %s is not among the resources", id)
		}
	}
	known := []string{
		oauth.MethodNone, oauth.MethodPrivateKeyJWT, oauth.MethodSecretBasic, oauth.MethodSecretPost,
		oauth.MethodSelfSignedTLS, oauth.MethodAttestation, oauth.MethodAttestationDPoP,
	}
	for _, m := range r.Methods {
		if !slices.Contains(known, m) {
			return fmt.Errorf("method %q is not known; the methods are %s", m, strings.Join(known, ", "))
		}
	}
	return r.checkProof()
}

// checkProof checks what the rule says about how the client proves itself.
func (r *Rule) checkProof() error {
	for i, alg := range r.SigningAlgs {
		if !slices.Contains(jose.Accepted, alg) {
			return fmt.Errorf("signing_algs: %q is not known; the algorithms are %s", alg, strings.Join(jose.Accepted, ", "))
		}
		r.SigningAlgs[i] = jose.Canonical(alg)
	}
	switch {
	case r.Development && r.Remember != nil && *r.Remember:
		return fmt.Errorf("development means that people are asked each time; leave remember out")
	case !r.FAPI:
	case slices.ContainsFunc(r.Methods, func(m string) bool { return !slices.Contains(fapiMethods, m) }):
		return fmt.Errorf("fapi is for clients that prove themselves with a key or a certificate; leave the other methods out")
	case r.Device != nil && *r.Device:
		return fmt.Errorf("fapi leaves no device flow; leave device out")
	case len(r.SigningAlgs) > 0 && !slices.ContainsFunc(r.SigningAlgs, func(a string) bool { return a != jose.RS256 }):
		return fmt.Errorf("fapi leaves no RS256, and signing_algs names nothing else")
	}
	return nil
}

func checkPrefix(p string) error {
	rest, ok := strings.CutPrefix(p, "https://")
	host, path, slash := strings.Cut(rest, "/")
	if !ok || host == "" || !slash {
		return fmt.Errorf("prefix %s must be an https URL with a path", p)
	}
	if !strings.HasSuffix(p, "/") {
		return fmt.Errorf("prefix %s must end in a slash, so that it ends with a whole path segment", p)
	}
	if strings.ContainsAny(host, "@?#\\*") || strings.ContainsAny(path, "?#\\") || strings.ToLower(host) != host {
		return fmt.Errorf("prefix %s must be plain: a lower-case host and a path", p)
	}
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "." || seg == ".." {
			return fmt.Errorf("prefix %s holds a dot segment, which no client_id may hold", p)
		}
	}
	return nil
}

func checkHost(pattern string) error {
	host, _ := splitPattern(pattern)
	if i := strings.LastIndexByte(pattern, ':'); i >= 0 {
		n, err := strconv.ParseUint(pattern[i+1:], 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("host %s: the port is not a number from 1 to 65535", pattern)
		}
	}
	name, wild := strings.CutPrefix(host, "*.")
	if strings.ContainsAny(name, "*/@?#[]:\\ ") || name == "" || strings.ToLower(name) != name ||
		strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") {
		return fmt.Errorf("host %s must be a lower-case host name, or *. and a host name", pattern)
	}
	for i := range len(name) {
		if name[i] > 0x7e {
			return fmt.Errorf("host %s must be written in its xn-- form", pattern)
		}
	}
	if wild {
		if suffix, _ := publicsuffix.PublicSuffix(name); suffix == name {
			return fmt.Errorf("host %s: names below %s belong to different owners; name the hosts one by one", pattern, name)
		}
	}
	return nil
}

// splitPattern takes a host pattern apart; the port is 443 unless it is given.
func splitPattern(pattern string) (host string, port uint16) {
	i := strings.LastIndexByte(pattern, ':')
	if i < 0 {
		return pattern, 443
	}
	n, err := strconv.ParseUint(pattern[i+1:], 10, 16)
	if err != nil {
		return pattern[:i], 0
	}
	return pattern[:i], uint16(n)
}

func (r *Resource) check() error {
	u, err := url.Parse(r.ID)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || strings.Contains(r.ID, "#") || u.User != nil {
		return fmt.Errorf("resource %s: the identifier must be an absolute URL without a fragment", r.ID)
	}
	if canonical(r.ID) != r.ID {
		return fmt.Errorf("resource %s: write scheme and host in lower case", r.ID)
	}
	if r.Name == "" {
		return fmt.Errorf("resource %s: give it a name; people read it when they are asked", r.ID)
	}
	seen := map[string]bool{}
	for _, sc := range r.Scopes {
		if !oauth.ValidScope(sc.Name) {
			return fmt.Errorf("resource %s: %q is not a scope", r.ID, sc.Name)
		}
		if seen[sc.Name] {
			return fmt.Errorf("resource %s: scope %s stands twice", r.ID, sc.Name)
		}
		seen[sc.Name] = true
		if sc.Title == "" {
			return fmt.Errorf("resource %s: scope %s needs a title; people read it when they are asked", r.ID, sc.Name)
		}
	}
	for _, sc := range r.Scopes {
		for _, i := range sc.Implies {
			if !seen[i] {
				return fmt.Errorf("resource %s: scope %s implies %s, which is not among its scopes", r.ID, sc.Name, i)
			}
		}
	}
	for _, t := range r.Default {
		if !seen[t] {
			return fmt.Errorf("resource %s: default scope %s is not among its scopes", r.ID, t)
		}
	}
	return r.checkDetails()
}
