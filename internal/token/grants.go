package token

import (
	"context"
	"slices"

	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// grantType is what is particular about one grant. parse reads its parameters.
// find looks up what was presented and checks that it is this client's and
// properly presented; it changes nothing, unless it finds that a spent secret
// came back. redeem is the single use and commits the events with it.
type grantType struct {
	parse  func(web.Params, *request) error
	find   func(*Handler, context.Context, *issue) error
	redeem func(*Handler, context.Context, *issue) error

	// offered reports whether the configuration has the grant; nil: it always has.
	offered func(*Config) bool

	// resolve lets a client with a document come here before anybody has agreed
	// to it: its document may be fetched, within the budgets of the directory.
	resolve bool

	// prefer says what is better than a fetch, where resolve allows one. nil: nothing.
	prefer func(*Handler, context.Context, *request) clientauth.Preference

	// alone marks a grant that no person agrees to. A client that no operator
	// registered gets it only if a policy rule names both (TOK-17).
	alone bool
}

// grants is everything that /token can do. Each grant has a file of its own.
var grants = map[string]grantType{
	oauth.GrantAuthorizationCode: {parse: parseCode, find: (*Handler).findCode, redeem: (*Handler).redeemCode},
	oauth.GrantRefreshToken:      {parse: parseRefresh, find: (*Handler).findRefresh, redeem: (*Handler).rotate},
	oauth.GrantDeviceCode: {parse: parseDevice, find: (*Handler).findDevice, redeem: (*Handler).redeemDevice, resolve: true, prefer: (*Handler).preferOfDevice,
		offered: func(c *Config) bool { return c.Devices != nil }},
	oauth.GrantClientCredentials: {parse: parseScope, find: (*Handler).findOwn, redeem: (*Handler).openGrant, resolve: true, alone: true},
	oauth.GrantJWTBearer: {parse: parseJWTBearer, find: (*Handler).findAssertion, redeem: (*Handler).redeemAssertion, resolve: true, alone: true,
		offered: func(c *Config) bool { return len(c.IDJAG) > 0 }},
	oauth.GrantTokenExchange: {parse: parseExchange, find: (*Handler).findExchange, redeem: (*Handler).openGrant, resolve: true, alone: true,
		offered: func(c *Config) bool { return len(c.Exchange) > 0 }},
}

// GrantTypes returns the grant types that work under a configuration, in the
// order of the alphabet (META-10).
func (c *Config) GrantTypes() []string {
	var out []string
	for name, g := range grants {
		if g.offered == nil || g.offered(c) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// GrantTypes returns the grant types that work at this endpoint (META-10).
func (h *Handler) GrantTypes() []string { return h.cfg.GrantTypes() }

// request is a token request after parsing: nothing behind it sees the form.
type request struct {
	grantType    string
	code         string
	verifier     string
	redirectURI  string
	refreshToken string
	deviceCode   string
	polled       *polled      // what the device code stands for; nil: nobody has looked
	scopes       oauth.Scopes // asked for; empty: all that was granted
	resources    []string     // asked for; empty: the one that was granted
	details      string       // authorization_details asked for; "": all that were granted
	assertion    string       // of the JWT bearer grant
	exchange     exchange     // of the token exchange
}

// parse reads a token request up to what is particular about its grant.
func (h *Handler) parse(p web.Params) (request, grantType, error) {
	q := request{grantType: p.Form["grant_type"], resources: p.Resources, details: p.Form["authorization_details"]}
	if q.grantType == "" {
		return q, grantType{}, missing("grant_type")
	}
	g, ok := grants[q.grantType]
	if !ok || g.offered != nil && !g.offered(&h.cfg) {
		return q, grantType{}, nil // refused once the client is known
	}
	err := g.parse(p, &q)
	return q, g, err
}

func missing(name string) error {
	return oauth.Refuse(oauth.InvalidRequest, "%s is missing", name).Under("TOK-01")
}

// parseScope reads the scope that a request asks for.
func parseScope(p web.Params, q *request) (err error) {
	if q.scopes, err = oauth.ParseScopes(p.Form["scope"]); err != nil {
		return oauth.Refuse(oauth.InvalidScope, "%v", err).Under("TOK-13")
	}
	return nil
}
