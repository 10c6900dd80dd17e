package policy

import (
	"strings"

	"github.com/bonafide-id/bonafide/oauth"
)

// Resource is one protected server: an audience of tokens.
type Resource struct {
	ID      string   // the identifier, which becomes the aud of its tokens (RFC 8707)
	Name    string   // what people call it
	Aliases []string // other spellings that clients use, such as one with a trailing slash
	Scopes  []Scope
	Default oauth.Scopes // granted to a request that names no scope
	Details []DetailType // types of authorization_details (RFC 9396)

	// IntrospectionSecret is the hex SHA-256 of the secret with which the
	// resource may ask for the state of its own tokens; empty means it may not.
	IntrospectionSecret string
}

// Scope is one permission at a resource, in the words of the protocol and in
// those of the person who is asked.
type Scope struct {
	Name        string
	Title       string // "create issues"
	Description string // "Can open issues in your name."
	Tools       []string
	Implies     []string // scopes that this one includes
}

// Resource returns the resource that a request means: by its exact identifier,
// by one of its aliases, or by an identifier that differs only in the case of
// scheme and host (AUTHZ-18). Nothing else is guessed.
func (s *Set) Resource(id string) (*Resource, bool) {
	if r, ok := s.resources[id]; ok {
		return r, true
	}
	r, ok := s.resources[canonical(id)]
	return r, ok
}

// Scope returns the resource's scope of that name.
func (r *Resource) Scope(name string) (Scope, bool) {
	for _, sc := range r.Scopes {
		if sc.Name == name {
			return sc, true
		}
	}
	return Scope{}, false
}

// ScopeNames returns the names of all scopes, in the order of the configuration.
func (r *Resource) ScopeNames() oauth.Scopes {
	out := make(oauth.Scopes, 0, len(r.Scopes))
	for _, sc := range r.Scopes {
		out = append(out, sc.Name)
	}
	return out
}

// Expand returns the scopes together with all that they imply.
func (r *Resource) Expand(in oauth.Scopes) oauth.Scopes {
	out := in.Or(nil)
	for i := 0; i < len(out); i++ { // out grows while it is walked
		if sc, ok := r.Scope(out[i]); ok {
			out = out.Or(sc.Implies)
		}
	}
	return out
}

// canonical lower-cases scheme and host of a URL and leaves every other byte.
func canonical(id string) string {
	scheme, rest, ok := strings.Cut(id, "://")
	if !ok {
		return id
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	return strings.ToLower(scheme) + "://" + strings.ToLower(rest[:end]) + rest[end:]
}
