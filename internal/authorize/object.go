package authorize

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Limits on a signed request object (RFC 9101).
const (
	maxObject     = 10 << 10 // bytes; it travels through the sign-in as it is
	maxObjectLife = time.Hour
	objectSkew    = time.Minute // how far the client's clock may be ahead of ours
	maxJTI        = 256         // bytes
)

// signedRequest is a request whose parameters stand in an object. Whose it is
// shows only with the client's keys, so that it stays as it is until the client
// is known. It is never asked for anything but a form before that.
func signedRequest(clientID, object string) (Request, error) {
	q := Request{ClientID: clientID, Object: object}
	if err := q.identified(); err != nil {
		return q, err
	}
	if _, err := takeApart(object); err != nil {
		return q, objectRefused(clientID, err)
	}
	return q, q.travels()
}

// takeApart reads an object without believing it.
func takeApart(object string) (*jose.Message, error) {
	if len(object) > maxObject {
		return nil, fmt.Errorf("it is longer than %d bytes", maxObject)
	}
	if strings.Count(object, ".") == 4 {
		return nil, errors.New("it is encrypted; send it signed only")
	}
	m, err := jose.Parse(object, maxObject)
	if err != nil {
		return nil, err
	}
	if t := strings.TrimPrefix(strings.ToLower(m.Header.Typ), "application/"); t != "" && t != oauth.TypRequestObject {
		return nil, fmt.Errorf("its type is not %s", oauth.TypRequestObject)
	}
	return m, nil
}

// outline is what a request says about itself, proven or not. It decides where
// the sign-in page may lead and nothing else.
func (q *Request) outline() *Request {
	if q.Object == "" {
		return q
	}
	m, err := takeApart(q.Object)
	if err != nil {
		return q
	}
	told, err := claimsOf(m, q.ClientID)
	if err != nil {
		return q
	}
	return &told.Request
}

// object is what a signed request object says.
type object struct {
	Request                    Request
	Issuer, JTI, Subject       string
	Audience                   []string
	Expires, NotBefore, Issued *float64
}

// nested are claims that would make the object stand for yet another request.
var nested = []string{paramRequest, paramRequestURI}

// claimsOf reads the claims by their exact names. Only what stands in the object
// counts, and client_id outside must be the one inside (RFC 9101 section 5).
func claimsOf(m *jose.Message, clientID string) (*object, error) {
	members, err := jose.Object(m.Claims)
	if err != nil {
		return nil, err
	}
	var o object
	for _, name := range nested {
		if _, ok := members[name]; ok {
			return nil, fmt.Errorf("it holds %s", name)
		}
	}
	for name, into := range map[string]any{
		"iss": &o.Issuer, "jti": &o.JTI, "sub": &o.Subject, "exp": &o.Expires, "nbf": &o.NotBefore, "iat": &o.Issued,
	} {
		if v, ok := members[name]; ok && json.Unmarshal(v, into) != nil {
			return nil, fmt.Errorf("%s has the wrong type", name)
		}
	}
	if o.Audience, err = texts(members["aud"]); err != nil {
		return nil, fmt.Errorf("aud %w", err)
	}
	p := web.Params{Form: web.Form{}}
	if p.Resources, err = texts(members["resource"]); err != nil {
		return nil, fmt.Errorf("resource %w", err)
	}
	for _, f := range fields {
		v, ok := members[f.name]
		if !ok {
			continue
		}
		if p.Form[f.name], err = parameter(f.name, v); err != nil {
			return nil, fmt.Errorf("%s %w", f.name, err)
		}
	}
	if err := o.Request.fill(p); err != nil {
		return nil, err
	}
	if o.Request.ClientID != clientID {
		return nil, errors.New("client_id in it is not the one outside")
	}
	o.Request.Signed = true
	return &o, nil
}

// parameter returns a claim as the parameter of the same name: a text as it is,
// max_age also as a number, authorization_details as the JSON that it is.
func parameter(name string, raw json.RawMessage) (string, error) {
	var s *string
	if json.Unmarshal(raw, &s) == nil && s != nil {
		return *s, nil
	}
	switch {
	case name == "authorization_details" && raw[0] == '[',
		name == "max_age" && strings.Trim(string(raw), "0123456789") == "":
		return string(raw), nil
	}
	return "", errors.New("has the wrong type")
}

// texts returns a claim that is a text or a list of texts.
func texts(raw json.RawMessage) ([]string, error) {
	if raw == nil {
		return nil, nil
	}
	var one string
	if raw[0] == '"' && json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var many []string
	if raw[0] != '[' || json.Unmarshal(raw, &many) != nil {
		return nil, errors.New("has the wrong type")
	}
	return many, nil
}

// unseal replaces a signed object by what it says, after everything about it was
// found right: the cheap checks first, the keys of the client last. at is when
// the object arrived. It is looked at again each time a person comes back, with
// the keys of that moment; its clocks do not run on while they read and decide.
func (h *Handler) unseal(ctx context.Context, c *directory.Client, q *Request, at time.Time) (*object, error) {
	m, err := takeApart(q.Object)
	if err != nil {
		return nil, objectRefused(q.ClientID, err)
	}
	o, err := claimsOf(m, q.ClientID)
	if err != nil {
		return nil, objectRefused(q.ClientID, err)
	}
	for _, check := range []func() error{
		func() error { return o.addressed(h.Issuer) },
		func() error { return o.timely(at) },
		func() error { return o.traced(h.Now()) },
		func() error { return signable(c, m.Header.Alg) },
	} {
		if err := check(); err != nil {
			return nil, objectRefused(q.ClientID, err)
		}
	}
	set, err := h.Directory.Keys(ctx, c, m.Header.KID)
	if err != nil {
		_, ofResolver := errors.AsType[*cimd.Error](err)
		if _, told := errors.AsType[*oauth.Error](err); told || ofResolver { // what exactly stays in the log
			return nil, objectRefused(q.ClientID, oauth.Refuse(oauth.InvalidRequestObject, "the keys of the client cannot be had").Because(err))
		}
		return nil, fmt.Errorf("keys of the client: %w", err)
	}
	key, err := set.Find(m.Header.KID, m.Header.Alg)
	if err != nil {
		return nil, objectRefused(q.ClientID, errors.New("no key of the client fits it"))
	}
	if err := m.Verify(key); err != nil {
		return nil, objectRefused(q.ClientID, errors.New("its signature is wrong"))
	}
	return o, nil
}

// addressed checks from whom the object is and to whom: iss is the client and
// aud is this server (RFC 9101 section 4). An object that names the client as
// its subject is a client assertion (section 10.8).
func (o *object) addressed(issuer string) error {
	switch {
	case o.Issuer != o.Request.ClientID:
		return errors.New("iss is not the client_id")
	case !slices.Equal(o.Audience, []string{issuer}):
		return fmt.Errorf("aud must be %s and nothing else", issuer)
	case o.Subject == o.Request.ClientID:
		return errors.New("sub is the client_id, as in a client assertion")
	}
	return nil
}

// timely checks the times of the object against its arrival.
func (o *object) timely(at time.Time) error {
	if o.Expires == nil {
		return errors.New("exp is missing")
	}
	for _, t := range []*float64{o.Expires, o.NotBefore, o.Issued} {
		if t != nil && !(*t >= 0 && *t <= math.MaxInt32*4) {
			return errors.New("a time is out of range")
		}
	}
	expires := date(*o.Expires)
	switch {
	case !at.Before(expires):
		return errors.New("it has expired")
	case expires.Sub(at) > maxObjectLife+objectSkew:
		return fmt.Errorf("it expires more than %v from now", maxObjectLife)
	}
	for name, t := range map[string]*float64{"nbf": o.NotBefore, "iat": o.Issued} {
		switch {
		case t == nil:
		case date(*t).After(at.Add(objectSkew)):
			return fmt.Errorf("%s is in the future", name)
		case expires.Sub(date(*t)) > maxObjectLife+objectSkew:
			return fmt.Errorf("it lives for more than %v", maxObjectLife)
		}
	}
	if len(o.JTI) > maxJTI {
		return fmt.Errorf("jti is longer than %d bytes", maxJTI)
	}
	return nil
}

func date(seconds float64) time.Time {
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*float64(time.Second)))
}

// traced refuses an object that is so old that it may have been answered and
// forgotten since. Whoever signs in again and again carries a request along for
// as long as they like.
func (o *object) traced(now time.Time) error {
	if !now.Before(o.forgotten()) {
		return errors.New("it has expired")
	}
	return nil
}

// forgotten is until when it is remembered that the object was used.
func (o *object) forgotten() time.Time { return date(*o.Expires).Add(objectSkew + 2*visitLife) }

// signable reports whether the client may sign requests with an algorithm, by
// its own document and by the policy.
func signable(c *directory.Client, alg string) error {
	if doc := c.Doc; doc != nil && doc.RequestObjectAlg != "" && jose.Canonical(doc.RequestObjectAlg) != alg {
		return fmt.Errorf("it is signed with %s; the client's document says %s", alg, doc.RequestObjectAlg)
	}
	if !c.Decision.MaySign(alg) {
		return fmt.Errorf("policy rule %q does not accept %s", c.Decision.Rule, alg)
	}
	return nil
}

// once is what lets an object with a jti be used one time: it is spent together
// with the answer of the person, because before that a page may be loaded again.
func (o *object) once() *store.SpentID {
	if o.JTI == "" {
		return nil
	}
	return &store.SpentID{
		Issuer: "request object of " + o.Issuer, ID: store.HashOf(o.JTI), Expires: o.forgotten(),
	}
}

// objectRefused says what is wrong with a request object: to the developer, on a
// page of ours, since nothing in it is proven, the redirect URI included.
func objectRefused(clientID string, cause error) error {
	e := oauth.Refuse(oauth.InvalidRequestObject, "the request object was refused").Under("AUTHZ-25").Because(cause)
	if told, ok := errors.AsType[*oauth.Error](cause); ok && told.Code != oauth.ServerError {
		e.Hint = told.Hint
	} else {
		e.Hint += ": " + cause.Error()
	}
	return &web.Refusal{
		Err: e, Status: http.StatusBadRequest, ClientURL: clientID,
		Title: "The app’s request could not be checked",
		What:  "The app signed its request, and the signature or something in it is not right. Nothing was shared.",
		Next:  "Go back to the app and start again. If that does not help, its developer has to correct it.",
	}
}
