package directory

import (
	"encoding/json"
	"fmt"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// Where a client is known from.
const (
	SourceCIMD       = store.SourceCIMD
	SourceRegistered = store.SourceRegistered
	SourceDCR        = store.SourceDCR
)

// States of a client's row. A client without a row is StateAllowed.
const (
	StateAllowed = store.StateAllowed
	StatePending = store.StatePending
	StateBlocked = store.StateBlocked
	StateRetired = store.StateRetired
)

// Client is a client as the rest of the server sees it: identity, what it may
// use here, and what the policy says today. It is read-only.
type Client struct {
	ID     string
	Source string
	State  string
	Name   string // self-declared and cleaned; "" if it has none
	Host   string // host of the client_id; "" for an opaque id

	Doc *cimd.Document // nil for a client that was registered, or registered itself

	RedirectURIs []string
	GrantTypes   []string
	AuthMethods  []string // usable here under the policy, the strongest first; empty: none in common
	SigningAlg   string
	SecretHash   string
	JWKS         []byte       // registered key set of a registered client; nil if it has none
	Scopes       oauth.Scopes // ceiling of the client's own declaration
	HasScopes    bool

	PostLogoutRedirectURIs []string // where a person may go after signing out here, byte for byte
	BackchannelLogoutURI   string   // who is told that a session has ended; "" for nobody

	Policy         *policy.Set // that made the decision: a reload in between changes neither
	Decision       policy.Decision
	SecurityDigest string
	Version        int
	FirstSeen      bool // nobody here has consented to it yet
}

// Has reports whether the client may use a grant type, by its own declaration
// and by the policy.
func (c *Client) Has(grant string) bool {
	for _, g := range c.GrantTypes {
		if g == grant {
			return c.Decision.MayGrant(grant)
		}
	}
	return false
}

// Narrow returns what remains of the asked scopes under the client's own
// declaration and under the policy.
func (c *Client) Narrow(asked oauth.Scopes) oauth.Scopes {
	if c.HasScopes {
		asked = asked.And(c.Scopes)
	}
	return c.Decision.Narrow(asked)
}

// fromRow describes a client that an operator registered, or that registered
// itself. The default of the policy is about strangers: it neither refuses nor
// narrows the first, which only a rule that names it may, and it does the second.
func (d *Directory) fromRow(row store.Client) *Client {
	r := d.rules.Load()
	who := policy.Subject{ID: row.ID, Dynamic: row.Source == SourceDCR}
	if id, err := r.urls.Parse(row.ID); err == nil {
		who = subject(id)
	}
	dec := r.policy.Decide(who)
	if !dec.Explicit && !who.Dynamic {
		dec = policy.Decision{Action: policy.Allow, Rule: SourceRegistered}
	}
	said := declared(row)
	dec.RequireDPoP, dec.RequirePAR = dec.RequireDPoP || said.DPoPBound, dec.RequirePAR || said.RequirePAR
	scopes, _ := oauth.ParseScopes(row.Scope)
	return &Client{
		ID: row.ID, Source: row.Source, State: row.State, Name: row.Name,
		RedirectURIs: row.RedirectURIs, GrantTypes: row.GrantTypes,
		AuthMethods: allowed(row.AuthMethods, dec), SigningAlg: said.SigningAlg, SecretHash: row.SecretHash, JWKS: row.JWKS,
		PostLogoutRedirectURIs: row.PostLogoutRedirectURIs, BackchannelLogoutURI: row.BackchannelLogoutURI,
		Scopes: scopes, HasScopes: row.HasScope, Policy: r.policy, Decision: dec, Version: row.Version,
		SecurityDigest: registeredDigest(row),
	}
}

func fromDocument(doc *cimd.Document, set *policy.Set) *Client {
	dec := set.Decide(subject(doc.ID))
	scopes, _ := oauth.ParseScopes(doc.Scope)
	return &Client{
		ID: doc.ID.String(), Source: SourceCIMD, State: StateAllowed, Name: doc.Name, Host: doc.ID.Host(), Doc: doc,
		RedirectURIs: doc.RedirectURIs, GrantTypes: doc.GrantTypes,
		AuthMethods: allowed(doc.AuthMethods, dec), SigningAlg: doc.SigningAlg,
		PostLogoutRedirectURIs: doc.PostLogoutRedirectURIs, BackchannelLogoutURI: doc.BackchannelLogoutURI,
		Scopes: scopes, HasScopes: doc.HasScope, Policy: set, Decision: dec, SecurityDigest: doc.SecurityDigest,
	}
}

func allowed(methods []string, dec policy.Decision) []string {
	if len(dec.Methods) == 0 && !dec.FAPI {
		return methods
	}
	var out []string
	for _, m := range methods {
		if dec.MayAuthenticate(m) {
			out = append(out, m)
		}
	}
	return out
}

// registeredDigest changes when a registered client changes in a way that a
// person consented to.
func registeredDigest(row store.Client) string {
	b, err := json.Marshal([]any{row.RedirectURIs, row.AuthMethods, row.GrantTypes, row.Scope})
	if err != nil {
		return ""
	}
	h := store.HashOf(string(b))
	return fmt.Sprintf("%x", h[:16])
}
