// Package policy decides which clients are admitted and how far: allow, ask or
// refuse, with ceilings on scopes, resources, grants and authentication methods.
// It is pure: a Set is a value, a decision is a function of the set and a
// subject, and nothing here looks anything up. Decisions are taken on every use
// of a client, cache hits and refreshes included, so they must stay cheap.
package policy

import (
	"net/url"
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
	"golang.org/x/net/publicsuffix"
)

// Action is what a rule says about a client.
type Action string

// The three answers. Ask means that an administrator has to approve the client
// first; until then it is refused with an explanation.
const (
	Allow Action = "allow"
	Ask   Action = "ask"
	Deny  Action = "deny"
)

// What a rule may say about refresh tokens.
const (
	RefreshByDocument = ""       // only if the client's document lists refresh_token
	RefreshAlways     = "always" // even if it does not
	RefreshNever      = "never"
)

// Rule is one line of a policy. Exactly one of Client, Prefix, Host and Dynamic
// says to whom it applies; the other members are ceilings on what an admitted client
// may do, and a zero member sets no ceiling.
type Rule struct {
	Name    string
	Client  string // the exact client_id, byte for byte
	Prefix  string // an https URL up to and including a slash; matched on the raw client_id
	Host    string // a host, or "*." and a host for every name below it; to admit one on another port than 443, with ":port"
	Dynamic bool   // every client that registered itself (RFC 7591)

	Action    Action
	Reason    string // shown to the person who is refused
	Scopes    oauth.Scopes
	HasScopes bool // Scopes is a ceiling even when it is empty
	Resources []string
	Methods   []string // token endpoint authentication methods
	Grants    []string
	Refresh   string
	Remember  *bool // whether a remembered consent may be silent; nil leaves it to the default rules
	Loopback  *bool // false refuses redirects to the person's own computer
	SameHost  bool  // every https redirect must be on the client's own host

	FAPI        bool     // the client is held to the FAPI 2.0 security profile (POL-09)
	RequirePAR  bool     // authorization requests come from POST /par only
	RequireDPoP bool     // tokens are bound to a key that the client proves to hold
	Device      *bool    // whether the device flow is open to the client; nil leaves it to its grants
	SigningAlgs []string // with which the client may sign assertions and request objects

	// Development marks clients that are being built, such as those of a service
	// that hosts documents for developers: nobody speaks for them (CONS-12).
	Development bool
}

// Set is a whole policy. Build it, call Check once, and share it read-only.
type Set struct {
	Rules           []Rule
	Default         Action
	Unnamed         oauth.Scopes // the ceiling of clients that no rule matches (POL-04)
	HasUnnamed      bool         // Unnamed is a ceiling even when it is empty
	Resources       []Resource
	DefaultResource string // the audience of a request without resource; "" refuses such requests

	resources map[string]*Resource
}

// Subject is who asks. Host is lower case without a port, and empty for a
// registered client whose id is not a URL.
type Subject struct {
	ID      string
	Host    string
	Port    uint16
	Dynamic bool // it registered itself
}

// Decision is the answer of a Set: the action, the rule that gave it and its
// ceilings.
type Decision struct {
	Action Action
	Rule   string // the name of the rule, or "default"
	Reason string

	Explicit  bool // a rule named this client, not the default nor one about all that registered themselves
	Scopes    oauth.Scopes
	HasScopes bool
	Resources []string
	Methods   []string
	Grants    []string
	Refresh   string
	Remember  *bool
	Loopback  *bool
	SameHost  bool

	FAPI        bool
	RequirePAR  bool // also where FAPI is set, which includes it
	RequireDPoP bool
	Device      *bool
	SigningAlgs []string
	Development bool
}

// Decide returns what the first matching rule says, or the default.
func (s *Set) Decide(who Subject) Decision {
	for i := range s.Rules {
		r := &s.Rules[i]
		if r.matches(who) {
			return Decision{
				Action: r.Action, Rule: r.Name, Reason: r.Reason, Explicit: !r.Dynamic,
				Scopes: r.Scopes, HasScopes: r.HasScopes, Resources: r.Resources,
				Methods: r.Methods, Grants: r.Grants, Refresh: r.Refresh,
				Remember: r.Remember, Loopback: r.Loopback, SameHost: r.SameHost,
				FAPI: r.FAPI, RequirePAR: r.RequirePAR || r.FAPI, RequireDPoP: r.RequireDPoP,
				Device: r.Device, SigningAlgs: r.SigningAlgs, Development: r.Development,
			}
		}
	}
	return Decision{Action: s.Default, Rule: "default", Scopes: s.Unnamed, HasScopes: s.HasUnnamed}
}

// MayUse reports whether the decision leaves the resource to the client.
func (d Decision) MayUse(resource string) bool { return within(d.Resources, resource) }

// MayGrant reports whether the decision leaves the grant type to the client.
func (d Decision) MayGrant(grant string) bool { return within(d.Grants, grant) }

// MayAuthenticate reports whether the decision accepts the authentication method.
// FAPI 2.0 leaves keys and certificates (section 5.3.2.1).
func (d Decision) MayAuthenticate(method string) bool {
	return within(d.Methods, method) && (!d.FAPI || slices.Contains(fapiMethods, method))
}

var fapiMethods = []string{oauth.MethodPrivateKeyJWT, oauth.MethodSelfSignedTLS, oauth.MethodTLS}

// Names reports whether a rule names the client and lists the grant type among
// its grants. A grant that no person agrees to is given to a client with a
// document only then: that nothing forbids it is not enough.
func (d Decision) Names(grant string) bool {
	return d.Explicit && slices.Contains(d.Grants, grant)
}

// MaySign reports whether the decision accepts what the client signed with the
// algorithm. FAPI 2.0 has no RS256 (section 5.4.1).
func (d Decision) MaySign(alg string) bool {
	alg = jose.Canonical(alg)
	return within(d.SigningAlgs, alg) && !(d.FAPI && alg == jose.RS256)
}

// MustBind reports whether every token of the client has to be bound to a key
// or certificate of its own. dpop says that only a key will do.
func (d Decision) MustBind() (bind, dpop bool) {
	return d.FAPI || d.RequireDPoP, d.RequireDPoP
}

// MayRefresh reports whether the client gets refresh tokens, given whether its
// own document asks for them (TOK-15).
func (d Decision) MayRefresh(documented bool) bool {
	switch d.Refresh {
	case RefreshAlways:
		return true
	case RefreshNever:
		return false
	}
	return documented && d.MayGrant(oauth.GrantRefreshToken)
}

// Narrow returns the scopes that the decision's ceiling leaves.
func (d Decision) Narrow(asked oauth.Scopes) oauth.Scopes {
	if !d.HasScopes {
		return asked
	}
	return asked.And(d.Scopes)
}

func within(ceiling []string, v string) bool {
	if len(ceiling) == 0 {
		return true
	}
	for _, c := range ceiling {
		if c == v {
			return true
		}
	}
	return false
}

// matches compares on whole labels of the host and on the raw client_id, never
// on a substring of either (POL-02). A rule that holds clients back also covers
// the other spellings of an address and, unless it names a port, every port: only
// admission has to be exact.
func (r *Rule) matches(who Subject) bool {
	switch {
	case r.Dynamic:
		return who.Dynamic
	case r.Client != "":
		return who.ID == r.Client
	case r.Prefix != "":
		return strings.HasPrefix(who.ID, r.Prefix) || r.Action != Allow && r.spells(who)
	case r.Host == "" || who.Host == "":
		return false
	}
	host, port := splitPattern(r.Host)
	if who.Port != port && (r.Action == Allow || strings.Contains(r.Host, ":")) {
		return false
	}
	if below, ok := strings.CutPrefix(host, "*"); ok { // below is ".example.com"
		return len(who.Host) > len(below) && strings.HasSuffix(who.Host, below) &&
			(r.Action != Allow || oneOwner(who.Host, below[1:]))
	}
	return who.Host == host
}

// oneOwner reports whether a host below a domain belongs to the domain's owner:
// not where a public suffix stands between the two, as s3.amazonaws.com does
// between a customer's bucket and amazonaws.com (POL-02).
func oneOwner(host, domain string) bool {
	suffix, _ := publicsuffix.PublicSuffix(host)
	return len(suffix) < len(domain)
}

// spells reports whether the client is below the prefix in another spelling: of
// the case of the host, of the default port, or with percent escapes in the path.
func (r *Rule) spells(who Subject) bool {
	authority, path := splitURL(r.Prefix)
	host, port := splitPattern(authority)
	_, own := splitURL(who.ID)
	return who.Host == host && who.Port == port && strings.HasPrefix(unescaped(own), unescaped(path))
}

// splitURL returns the authority of a URL and the path behind its first slash.
func splitURL(raw string) (authority, path string) {
	_, rest, _ := strings.Cut(raw, "://")
	authority, path, _ = strings.Cut(rest, "/")
	return authority, path
}

func unescaped(path string) string {
	if s, err := url.PathUnescape(path); err == nil {
		return s
	}
	return path
}
