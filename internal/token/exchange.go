package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// ExchangeRule lets one client exchange access tokens for one resource, which as a
// rule is its own, for tokens for others (RFC 8693).
type ExchangeRule struct {
	Client string   // the exact client_id of who exchanges
	From   string   // the resource that the presented token is for
	To     []string // the resources that it can be exchanged for

	// Scopes says which scopes of the target each scope of the presented token is
	// worth. Without it a scope is worth the one of the same name.
	Scopes map[string]oauth.Scopes
}

// maxActors bounds the chain of those who act for a person.
const maxActors = 4

// exchange is what a token exchange says beside scope and resource.
type exchange struct {
	subject     string // the token that is presented
	subjectType string
	wanted      string // requested_token_type
	audience    string // a target by its name or identifier
	actor       bool   // an actor_token was sent
}

func parseExchange(p web.Params, q *request) error {
	f := p.Form
	q.exchange = exchange{
		subject: f["subject_token"], subjectType: f["subject_token_type"], wanted: f["requested_token_type"], audience: f["audience"],
		actor: f["actor_token"] != "" || f["actor_token_type"] != "",
	}
	switch {
	case q.exchange.subject == "":
		return missing("subject_token")
	case q.exchange.subjectType != oauth.TokenTypeAccess:
		return badExchange("subject_token_type must be %s", oauth.TokenTypeAccess)
	case q.exchange.wanted != "" && q.exchange.wanted != oauth.TokenTypeAccess:
		return badExchange("requested_token_type must be %s, or be left out", oauth.TokenTypeAccess)
	case q.exchange.actor:
		return badExchange("actor_token is not supported: the actor is the client that authenticates")
	}
	return parseScope(p, q)
}

// badExchange is the refusal that RFC 8693 section 2.2.2 wants for everything that
// is wrong with a subject token.
func badExchange(hint string, args ...any) *oauth.Error {
	return oauth.Refuse(oauth.InvalidRequest, hint, args...).Under("XCH-12")
}

// findExchange checks the presented token and decides what it can be exchanged
// for: what a rule of the operator allows, no more than it is worth, and never for
// longer than it lives. The client acts for the person and says so: it becomes
// the actor, and who acted before stays behind it.
func (h *Handler) findExchange(ctx context.Context, is *issue) error {
	t, err := h.subjectToken(ctx, is)
	if err != nil {
		return err
	}
	target, err := h.exchangeTarget(is)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(h.cfg.Exchange, func(r ExchangeRule) bool {
		return r.Client == is.client.ID && r.From == t.Audience && slices.Contains(r.To, target.ID)
	})
	if i < 0 {
		return oauth.Refuse(oauth.InvalidTarget, "no rule lets this client exchange a token for %s into one for %s", t.Audience, target.ID).Under("XCH-12")
	}
	worth := h.worth(&h.cfg.Exchange[i], t, target)
	scopes := is.client.Narrow(worth)
	if asked := is.request.scopes; len(asked) > 0 {
		if !worth.Covers(asked) {
			return oauth.Refuse(oauth.InvalidScope, "scope goes beyond what the presented token is worth at the target").Under("XCH-12")
		}
		scopes = is.client.Narrow(asked)
	}
	if len(scopes) == 0 && len(target.Scopes) > 0 {
		return oauth.Refuse(oauth.InvalidScope, "the presented token is worth no scope of the target; the target has %s", target.ScopeNames()).Under("XCH-12")
	}
	actor, err := act(is.client.ID, t.Actor)
	if err != nil {
		return err
	}
	is.open(store.KindExchange, target.ID, scopes)
	g := &is.grant
	g.UserID, g.AuthTime, g.ACR, g.AMR, g.Actor = t.Subject, t.AuthTime, t.ACR, t.AMR, actor
	is.origins, is.until = append(slices.Clone(t.Origins), t.GrantID), t.Expires
	is.answer.Issued = oauth.TokenTypeAccess
	is.noted = map[string]string{"from": t.Audience, "from_jti": t.JTI, "origin": t.GrantID}
	return nil
}

// subjectToken returns what the presented token says, if it is one of ours that
// is still alive and a person stands behind it.
func (h *Handler) subjectToken(ctx context.Context, is *issue) (keyring.AccessToken, error) {
	dead := badExchange("subject_token is not an access token of this server that is still active")
	t, err := h.cfg.Keys.VerifyAccess(is.exchange.subject, is.now)
	if err != nil {
		return t, dead.Because(err)
	}
	live, err := h.alive(ctx, t)
	switch {
	case err != nil:
		return t, err
	case !live || t.GrantID == "":
		return t, dead.Because(errors.New("it or its grant was revoked"))
	case t.ClientOnly:
		// In other hands its subject would look like a person's (TOK-18).
		return t, badExchange("no person stands behind subject_token; use %s", oauth.GrantClientCredentials)
	case (t.CnfJKT != "" || t.CnfX5T != "") && is.jkt == "" && is.client.CertThumbprint == "":
		return t, badExchange("subject_token is bound to a key, so that what it is exchanged for has to be; send a DPoP proof")
	}
	return t, nil
}

// exchangeTarget returns the one resource that resource and audience mean.
func (h *Handler) exchangeTarget(is *issue) (*policy.Resource, error) {
	if is.exchange.audience == "" {
		if len(is.resources) == 0 {
			return nil, badExchange("resource is missing; name the protected server the token is for")
		}
		return h.target(is)
	}
	named, ok := resourceOf(h.cfg.Policy(), is.exchange.audience)
	if !ok {
		return nil, oauth.Refuse(oauth.InvalidTarget, "audience is not a protected server of this authorization server").Under("XCH-12")
	}
	is.resources = append(is.resources, named.ID)
	return h.target(is)
}

// worth returns the scopes of the target that a token can be exchanged for.
func (h *Handler) worth(rule *ExchangeRule, t keyring.AccessToken, target *policy.Resource) oauth.Scopes {
	held := t.Scopes
	if from, ok := h.cfg.Policy().Resource(t.Audience); ok {
		held = from.Expand(held)
	}
	if rule.Scopes == nil {
		return held.And(target.ScopeNames())
	}
	var out oauth.Scopes
	for _, s := range held {
		out = out.Or(rule.Scopes[s])
	}
	return out.And(target.ScopeNames())
}

// act is the actor claim: the client now, and within it who acted before (RFC
// 8693 section 4.1).
func act(clientID, before string) (string, error) {
	type actor struct {
		Subject string          `json:"sub"`
		Before  json.RawMessage `json:"act,omitempty"`
	}
	depth, rest := 1, []byte(before)
	for ; len(rest) > 0; depth++ {
		var a actor
		if err := json.Unmarshal(rest, &a); err != nil {
			return "", fmt.Errorf("read the actor of a token of ours: %w", err)
		}
		rest = a.Before
	}
	if depth > maxActors {
		return "", badExchange("subject_token was exchanged too often: at most %d act for one person", maxActors)
	}
	out, err := json.Marshal(actor{clientID, json.RawMessage(before)})
	return string(out), err
}
