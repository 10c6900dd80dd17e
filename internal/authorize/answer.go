package authorize

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// question is what a consent page asks. It travels sealed in the page's form and
// can be answered once, in the browser and the session to which it was shown.
type question struct {
	Visit   visit     `json:"v"`
	Session string    `json:"s"` // digest of the session
	Shown   string    `json:"d"` // digest of what the page said
	Nonce   string    `json:"n"`
	Asked   time.Time `json:"t"`
	Endings int64     `json:"e"` // a connection that is ended after so many is not revived (CN-18)

	user    *login.User
	before  store.Consent
	changed bool // the page is shown again because its subject changed
}

// The answers of the consent page.
const (
	answerAllow  = "allow"
	answerDeny   = "deny"
	answerSwitch = "switch" // not you?
)

var errOtherSession = errors.New("the session is not the one the page was shown to")

// answer reads the person's decision. It counts in the session to which the page
// was shown. After signing in again in the same browser, as with several apps in
// several tabs, the page is shown again for the new session. Client,
// document, policy and redirect URI are those of this moment, not those of the
// page; if what the page said is no longer so, it is asked again (CACHE-21, CN-18).
func (h *Handler) answer(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	var q question
	if err := h.Sealer.Open(purposeQuestion, p.Form["transaction"], h.Now(), &q); err != nil {
		return outdated(err)
	}
	v := &q.Visit
	web.SetClient(r.Context(), v.Request.ClientID)
	if q.user, err = h.SignIn.Current(r); err != nil {
		return err
	}
	if q.user == nil {
		return outdated(errOtherSession)
	}
	anew := q.Session != sessionDigest(q.user)
	if anew && v.Browser != h.browser(w, r) {
		return outdated(errOtherSession)
	}
	choice := p.Form["decision"]
	switch choice {
	case answerAllow, answerDeny:
	case answerSwitch:
		v.Silent = false // whoever comes back has this page before them
		back := h.outlined(v)
		back.Reason, back.RedirectHost = login.ReasonSwitch, v.Request.leadsTo()
		return h.signIn(w, r, v, back)
	default:
		return web.Refuse(http.StatusBadRequest, oauth.Refuse(oauth.InvalidRequest, "decision must be allow or deny"))
	}
	a, err := h.examine(r.Context(), v, q.user)
	if err != nil {
		if refusal, ok := asRefusal(err); ok {
			return h.tellClient(w, r, a, q.user, refusal)
		}
		return err
	}
	if !a.hintedAt(q.user) {
		return h.tellClient(w, r, a, q.user, loginRequired())
	}
	if choice == answerDeny && !anew {
		return h.deny(w, r, a, &q)
	}
	if reason, needed := a.mustSignIn(q.user, v.Started, h.Now()); anew && needed {
		back := a.back(reason)
		back.AppHost, back.RedirectHost = a.client.Host, a.redirect
		return h.signIn(w, r, v, back)
	}
	if !a.acrMet(q.user) {
		return h.tellClient(w, r, a, q.user, unmet())
	}
	if anew || q.Shown != a.shown() {
		if q.before, err = h.remembered(r.Context(), a, q.user); err != nil {
			return err
		}
		q.changed = true
		return h.ask(w, r, a, q)
	}
	return h.issue(w, r, a, q.user, decision{nonce: q.Nonce, asked: q.Asked, endings: q.Endings, pushed: v.Pushed})
}

// deny records the no and tells the client, whose redirect URI was matched a
// moment ago for a person who is signed in (CONS-16).
func (h *Handler) deny(w http.ResponseWriter, r *http.Request, a *attempt, q *question) error {
	e := h.event(r, audit.Event{
		Type: audit.TypeConsentDenied, Client: a.client.ID, User: q.user.User.ID, Resource: a.resource.ID, Code: string(oauth.AccessDenied),
		Data: map[string]string{"scope": a.scopes.String()},
	})
	now, d := h.Now(), store.Denial{Nonce: store.HashOf(q.Nonce), NonceExpires: q.Asked.Add(visitLife), Events: []audit.Event{e}}
	err := h.spend(r.Context(), a)
	switch {
	case err != nil:
	case q.Visit.Pushed != nil:
		err = h.Store.DenyPushed(r.Context(), q.Visit.Pushed.Hash, d, now)
	default:
		err = h.Store.DenyConsent(r.Context(), d.Nonce, d.NonceExpires, now, e)
	}
	if err != nil {
		return answerFailed(err)
	}
	h.Audit.Observe(e)
	return leave(w, r, h.errorURL(a, oauth.Refuse(oauth.AccessDenied, "the person said no")))
}

// decision is a yes: by the person to a page, or from a remembered consent.
type decision struct {
	nonce   string
	asked   time.Time
	endings int64 // as of when it was asked
	silent  bool
	pushed  *pushed // the kept request that it answers; nil: none
}

// spend uses up a signed request that may be used once. It comes right before
// the answer is carried out: if that then fails, the client has to sign another.
func (h *Handler) spend(ctx context.Context, a *attempt) error {
	if a.once == nil {
		return nil
	}
	return h.Store.SpendID(ctx, a.once.Issuer, a.once.ID, a.once.Expires, h.Now())
}

// issue turns a yes into a grant and a code, in one commit with the events that
// record it, and sends the browser to the client. The code is 32 random octets
// of which only the hash is kept; the challenge stays here (AUTHZ-20, AUTHZ-21).
func (h *Handler) issue(w http.ResponseWriter, r *http.Request, a *attempt, user *login.User, d decision) error {
	now := h.Now()
	code := oauth.RandomToken(32)
	s := user.Session
	grant := store.Grant{
		ID: store.NewID(now), UserID: user.User.ID, ClientID: a.client.ID, Resource: a.resource.ID, Scopes: a.scopes,
		SecurityDigest: a.client.SecurityDigest, AuthMethods: a.client.AuthMethods,
		AuthTime: s.AuthTime, ACR: s.ACR, AMR: s.AMR, Nonce: a.req.Nonce, SID: s.SID, Details: a.details.JSON, Created: now,
	}
	client, document := a.client.Rows(now)
	events := h.issued(r, a, grant, d.silent)
	if err := h.spend(r.Context(), a); err != nil {
		return answerFailed(err)
	}
	answer := store.Answer{
		Nonce: store.HashOf(d.nonce), NonceExpires: d.asked.Add(visitLife), Endings: d.endings, Session: s.Hash,
		Client: client, Document: document, Grant: grant,
		Code: store.Code{
			Hash: store.HashOf(code), RedirectURI: a.redirect, Challenge: a.req.Challenge, JKT: a.req.JKT, Expires: now.Add(h.codeLife(a)),
		},
		Remember: a.details.JSON == "", Events: events,
	}
	if d.pushed != nil {
		answer.Pushed, answer.Grant.InstanceJKT = &d.pushed.Hash, d.pushed.InstanceJKT
		answer.Code.JKT = cmp.Or(d.pushed.JKT, a.req.JKT)
	}
	if err := h.Store.AnswerConsent(r.Context(), answer, now); err != nil {
		return answerFailed(err)
	}
	for _, e := range events {
		h.Audit.Observe(e)
	}
	return leave(w, r, oauth.AppendQuery(a.redirect, "code", code, "state", a.req.State, "iss", h.Issuer))
}

// codeLife is how long a code of this client can be redeemed. FAPI 2.0 allows a
// minute (section 5.3.2.1).
func (h *Handler) codeLife(a *attempt) time.Duration {
	if a.client.Decision.FAPI {
		return min(h.CodeLife, time.Minute)
	}
	return h.CodeLife
}

// issued returns the events of a yes.
func (h *Handler) issued(r *http.Request, a *attempt, g store.Grant, silent bool) []audit.Event {
	e := audit.Event{
		Client: g.ClientID, User: g.UserID, Resource: g.Resource, Grant: g.ID,
		Data: map[string]string{"scope": g.Scopes.String(), "redirect": redirectHost(a.redirect), "digest": g.SecurityDigest},
	}
	e.Type = audit.TypeCode
	if silent {
		e.Code = "remembered"
		return []audit.Event{h.event(r, e)}
	}
	asked := e
	asked.Type = audit.TypeConsent
	return []audit.Event{h.event(r, asked), h.event(r, e)}
}

// answerFailed translates what the store says about an answer.
func answerFailed(err error) error {
	switch {
	case errors.Is(err, store.ErrSpent):
		return &web.Refusal{
			Err:    oauth.Refuse(oauth.InvalidRequest, "the consent page was answered before").Under("CONS-06").Because(err),
			Status: http.StatusConflict,
			Title:  "You have answered this already",
			What:   "Each question counts once, and your first answer stands.",
			Next:   "Go back to the app. If it is still waiting, start again from there.",
		}
	case errors.Is(err, store.ErrExpired), errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrEnded), errors.Is(err, store.ErrConflict):
		return outdated(err)
	case errors.Is(err, store.ErrBlocked):
		return web.Refuse(http.StatusForbidden, oauth.Refuse(oauth.AccessDenied, "an administrator has blocked this client").Under("REV-06").Because(err))
	}
	return fmt.Errorf("answer the consent page: %w", err)
}

// shown is a digest of what a person agrees to: who asks, for what, and where
// the answer goes.
func (a *attempt) shown() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{
		a.client.ID, a.client.SecurityDigest, a.client.Name, a.resource.ID, a.scopes.String(), a.redirect, a.details.JSON,
	}, "\n")))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func sessionDigest(u *login.User) string {
	sum := sha256.Sum256(append([]byte("session "), u.Session.Hash[:]...))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}
