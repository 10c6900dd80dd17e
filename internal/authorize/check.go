package authorize

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// attempt is one request on its way down the table. The upper half is what it
// came with; each check fills in its part of the lower half.
type attempt struct {
	req    *Request
	client *directory.Client
	policy *policy.Set
	rules  *rules
	at     endpoint

	pushed   bool           // the request came through POST /par
	unproven bool           // and nobody knew the client then
	once     *store.SpentID // what makes a signed request single-use; nil: nothing
	hinted   string         // whom id_token_hint names; "" nobody
	device   *store.Device  // that waits for the person; nil: none

	redirect string // where the answer goes, exactly as it will be used
	resource *policy.Resource
	scopes   oauth.Scopes
	dropped  oauth.Scopes // asked for and not available; the client learns it from the token response
	prompt   oauth.Scopes
	maxAge   time.Duration // negative: not asked for
	acr      oauth.Scopes  // acceptable authentication contexts; empty: any
	details  policy.Details
}

// rules is what the configuration adds to the checks.
type rules struct {
	refuseUnknownScopes bool
	acrs                []string // see Config.ACRs
	requirePAR          bool
	certificates        bool // clients can show certificates, so that tokens can be bound to them
}

// How a failed check is answered.
const (
	shown      = false // on a page of ours: the redirect URI proves nothing yet
	redirected = true  // to the client, as far as backToClient trusts it
)

// endpoint is where a request came in. The three share one table, so that none
// can be laxer than another by accident.
type endpoint uint8

// The columns of the table of checks.
const (
	atAuthorize endpoint = 1 << iota // GET and POST /authorize, through a browser
	atPAR                            // POST /par, before the browser (RFC 9126)
	atDevice                         // POST /device_authorization (RFC 8628)
	atBlind                          // POST /par while the client is not known: what needs no client

	atFront = atAuthorize | atPAR // a request that ends in a redirect
	atAll   = atFront | atDevice
)

// grant is the grant type that the request would end in.
func (e endpoint) grant() string {
	if e == atDevice {
		return oauth.GrantDeviceCode
	}
	return oauth.GrantAuthorizationCode
}

// checks is everything that can be wrong with a request, in the order in which
// it is looked at; the first failure is the answer. at says where a check counts.
var checks = []struct {
	name   string
	at     endpoint
	answer bool
	run    func(*attempt) *oauth.Error
}{
	{"redirect_uri", atFront, shown, checkRedirectURI},
	// ---- from here on the redirect URI is trusted ----
	{"security profile", atAll, redirected, checkFAPI},
	{"client authentication", atAll, redirected, checkMethods},
	{"grant", atAll, redirected, checkGrant},
	{"device flow", atDevice, redirected, checkDevice},
	{"what the client demands of us", atAll, redirected, checkDemands},
	{"how the request came", atAuthorize, redirected, checkPushed},
	{"request objects", atAll, redirected, checkForeign},
	{"response_type", atFront | atBlind, redirected, checkResponseType},
	{"response_mode", atFront | atBlind, redirected, checkResponseMode},
	{"pkce", atFront | atBlind, redirected, checkPKCE},
	{"dpop_jkt", atFront | atBlind, redirected, checkJKT},
	{"prompt", atFront | atBlind, redirected, checkPrompt},
	{"id_token_hint", atFront | atBlind, redirected, checkHint},
	{"max_age", atAll, redirected, checkMaxAge},
	{"acr_values", atAll, redirected, checkACR},
	{"resource", atAll, redirected, checkResource},
	{"scope", atAll, redirected, checkScope},
	{"authorization_details", atAll, redirected, checkDetails},
}

// errBack marks a refusal that the client may be told.
type errBack struct{ refusal *oauth.Error }

func (e errBack) Error() string { return e.refusal.Error() }
func (e errBack) Unwrap() error { return e.refusal }

// check runs the column of the table that is the attempt's. At /authorize an
// error is a *web.Refusal while the redirect URI is not trusted, and an errBack
// afterwards; the other endpoints answer in JSON, and there it is an *oauth.Error.
func (a *attempt) check() error {
	for _, c := range checks {
		if c.at&a.at == 0 {
			continue
		}
		err := c.run(a)
		switch {
		case err == nil:
		case a.at != atAuthorize:
			return err
		case c.answer: // redirected
			return errBack{err}
		default:
			return &web.Refusal{
				Err: err, Status: http.StatusBadRequest, ClientURL: a.client.ID,
				Title: "This sign-in link does not fit the app",
				What:  "The app asked us to send the answer to a place that it does not list. Nothing was shared.",
				Next:  "Go back to the app and start again. If that does not help, its developer has to correct it.",
			}
		}
	}
	return nil
}

// checkRedirectURI compares with the client's list through the one matcher of
// the house. Without redirect_uri the only https entry of a list of one is used;
// any other list needs the parameter (AUTHZ-06).
func checkRedirectURI(a *attempt) *oauth.Error {
	asked, listed := a.req.RedirectURI, a.client.RedirectURIs
	if asked == "" {
		if len(listed) == 1 && !oauth.LoopbackRedirect(listed[0]) {
			a.redirect = listed[0]
			return nil
		}
		return oauth.Refuse(oauth.InvalidRequest, "redirect_uri is missing; it may be left out only by a client that lists exactly one https redirect URI").Under("AUTHZ-06")
	}
	for _, l := range listed {
		if oauth.MatchRedirect(l, asked) || planted.Weak("redirect") {
			a.redirect = asked
			return nil
		}
	}
	if oauth.LoopbackRedirect(asked) && slices.ContainsFunc(listed, oauth.LoopbackRedirect) {
		return oauth.Refuse(oauth.InvalidRequest, "redirect_uri is not one that the client lists; for a redirect to this computer only the port may differ, and localhost, 127.0.0.1 and [::1] do not stand for one another").Under("AUTHZ-04")
	}
	return oauth.Refuse(oauth.InvalidRequest, "redirect_uri is not one that the client lists; it must be the same byte for byte").Under("AUTHZ-03")
}

// checkMethods refuses a client that could never redeem its code (DOC-17).
func checkMethods(a *attempt) *oauth.Error {
	if slices.ContainsFunc(a.client.AuthMethods, a.client.Decision.MayAuthenticate) {
		return nil
	}
	return oauth.Refuse(oauth.UnauthorizedClient, "the client and this server have no client authentication method in common").Under("AUTHZ-29")
}

func checkGrant(a *attempt) *oauth.Error {
	grant := a.at.grant()
	if slices.Contains(a.client.GrantTypes, grant) && a.client.Decision.MayGrant(grant) {
		return nil
	}
	return oauth.Refuse(oauth.UnauthorizedClient, "the client may not use the grant type %s here", grant).Under("POL-05")
}

func checkResponseType(a *attempt) *oauth.Error {
	if a.req.ResponseType == "code" {
		return nil
	}
	return oauth.Refuse(oauth.UnsupportedResponseType, "response_type is required and must be code").Under("AUTHZ-09")
}

func checkResponseMode(a *attempt) *oauth.Error {
	if a.req.ResponseMode == "" || a.req.ResponseMode == "query" {
		return nil
	}
	return oauth.Refuse(oauth.InvalidRequest, "response_mode must be query").Under("AUTHZ-09")
}

// checkPKCE insists on S256. A missing method means plain in RFC 7636 and is
// refused like it (AUTHZ-07).
func checkPKCE(a *attempt) *oauth.Error {
	switch {
	case a.req.Challenge == "":
		return oauth.Refuse(oauth.InvalidRequest, "code_challenge is missing; PKCE with S256 is required").Under("AUTHZ-07")
	case a.req.Method != "S256" && !planted.Weak("pkce"):
		return oauth.Refuse(oauth.InvalidRequest, "code_challenge_method must be S256").Under("AUTHZ-07")
	case !oauth.ValidChallenge(a.req.Challenge):
		return oauth.Refuse(oauth.InvalidRequest, "code_challenge must be the 43 characters of a base64url SHA-256").Under("AUTHZ-08")
	}
	return nil
}

// The values of prompt (OpenID Connect Core section 3.1.2.1).
const (
	promptNone    = "none"
	promptLogin   = "login"
	promptConsent = "consent"
	promptAccount = "select_account"
)

func checkPrompt(a *attempt) *oauth.Error {
	for v := range strings.SplitSeq(a.req.Prompt, " ") {
		switch v {
		case "":
		case promptNone, promptLogin, promptConsent, promptAccount:
			a.prompt = append(a.prompt, v)
		default:
			return oauth.Refuse(oauth.InvalidRequest, "prompt may be none, login, consent or select_account").Under("AUTHZ-23")
		}
	}
	if a.prompt.Has(promptNone) && len(a.prompt) > 1 {
		return oauth.Refuse(oauth.InvalidRequest, "prompt=none cannot be combined with another value").Under("AUTHZ-23")
	}
	return nil
}

// checkMaxAge reads max_age, or takes the default of the client's document.
func checkMaxAge(a *attempt) *oauth.Error {
	a.maxAge = -1
	if a.req.MaxAge == "" {
		if doc := a.client.Doc; doc != nil && doc.DefaultMaxAge >= 0 {
			a.maxAge = time.Duration(doc.DefaultMaxAge) * time.Second
		}
		return nil
	}
	n, err := strconv.ParseUint(a.req.MaxAge, 10, 31)
	if err != nil {
		return oauth.Refuse(oauth.InvalidRequest, "max_age must be a number of seconds").Under("AUTHZ-24")
	}
	a.maxAge = time.Duration(n) * time.Second
	return nil
}

// checkACR keeps the authentication contexts that would satisfy the client: each
// one it names, and for those of our own each stronger one. Which of two contexts
// of a provider is the stronger one nobody has said. If none of its values can ever be met the
// request ends here rather than in a weaker token (RFC 9470 section 5).
func checkACR(a *attempt) *oauth.Error {
	if a.req.ACRValues == "" {
		return nil
	}
	for v := range strings.SplitSeq(a.req.ACRValues, " ") {
		switch i := slices.Index(a.rules.acrs, v); {
		case i < 0:
		case v == login.ACR || v == login.ACRUpstream:
			a.acr = a.acr.Or(a.rules.acrs[i:])
		default:
			a.acr = a.acr.Or(oauth.Scopes{v})
		}
	}
	if len(a.acr) == 0 {
		return unmet()
	}
	return nil
}

func unmet() *oauth.Error {
	return oauth.Refuse(oauth.UnmetAuthenticationNeeds, "none of the requested acr_values can be satisfied by this sign-in").Under("AUTHZ-24")
}

// checkResource finds the one audience of the request. There is no token that is
// good everywhere: without resource the configured default is meant, and without
// a default the request is refused (AUTHZ-17).
func checkResource(a *attempt) *oauth.Error {
	asked := a.req.Resources
	if len(asked) == 0 {
		if a.policy.DefaultResource == "" {
			return oauth.Refuse(oauth.InvalidTarget, "resource is missing; name the protected server the token is for").Under("AUTHZ-17")
		}
		asked = []string{a.policy.DefaultResource}
	}
	for _, id := range asked {
		res, ok := a.policy.Resource(id)
		switch {
		case !ok:
			return oauth.Refuse(oauth.InvalidTarget, "resource is not a protected server of this authorization server").Under("AUTHZ-16")
		case a.resource != nil && a.resource.ID != res.ID:
			return oauth.Refuse(oauth.InvalidTarget, "a token is for one resource; send one authorization request for each").Under("AUTHZ-16")
		}
		a.resource = res
	}
	if !a.client.Decision.MayUse(a.resource.ID) {
		return oauth.Refuse(oauth.InvalidTarget, "the client may not use this resource").Under("AUTHZ-16")
	}
	return nil
}

// standard are the scopes that belong to the server and not to a resource.
var standard = oauth.Scopes{oauth.ScopeOpenID, oauth.ScopeOfflineAccess}

// checkScope narrows what was asked for to what exists, to what the client's
// document names and to what the policy leaves (AUTHZ-19, DO-28). What is left
// over is dropped, which the client learns from the token response, unless the
// configuration refuses it or nothing remains.
func checkScope(a *attempt) *oauth.Error {
	asked, err := oauth.ParseScopes(a.req.Scope)
	if err != nil {
		return oauth.Refuse(oauth.InvalidScope, "%s", err.Error()).Under("AUTHZ-19")
	}
	if len(asked) == 0 && a.req.Details == "" {
		asked = a.resource.Default
	}
	known := asked.And(a.resource.ScopeNames().Or(standard))
	if unknown := asked.Without(known); len(unknown) > 0 && a.rules.refuseUnknownScopes {
		return oauth.Refuse(oauth.InvalidScope, "the resource has no scope %q", unknown[0]).Under("AUTHZ-19")
	}
	a.scopes = a.client.Decision.Narrow(known)
	if a.client.HasScopes {
		a.scopes = a.scopes.And(a.client.Scopes)
	}
	a.dropped = asked.Without(a.scopes)
	useful := a.scopes.Without(oauth.Scopes{oauth.ScopeOfflineAccess})
	if len(useful) == 0 && len(a.resource.Scopes) > 0 && (len(asked) > 0 || a.req.Details == "") {
		if len(asked) == 0 {
			return oauth.Refuse(oauth.InvalidScope, "the request names no scope, and the resource gives none by itself; it has %s", a.resource.ScopeNames()).Under("AUTHZ-19")
		}
		return oauth.Refuse(oauth.InvalidScope, "none of the requested scopes is available to this client; the resource has %s", a.resource.ScopeNames()).Under("AUTHZ-19")
	}
	return nil
}

// asRefusal returns the refusal inside err, and whether the client may be told.
func asRefusal(err error) (*oauth.Error, bool) {
	if back, ok := errors.AsType[errBack](err); ok {
		return back.refusal, true
	}
	return nil, false
}
