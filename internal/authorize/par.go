package authorize

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// uriPrefix begins every request_uri of ours (RFC 9126 section 2.2). What follows
// is a secret of 256 bits, of which only the hash is kept.
const uriPrefix = "urn:ietf:params:oauth:request_uri:"

// How much may be pushed. Only clients that proved who they are and that an
// operator named have the whole room, and as much of it as they like: anybody can
// publish keys. Those that proved nothing share half of it. Both are counted by
// where they come from and by whom they say they are.
const (
	mostPushed    = 20_000 // that wait at a time
	mostStrangers = mostPushed / 4 * 3
	mostUnproven  = mostPushed / 2
	perNetwork    = 120  // a minute, without proof
	perClient     = 600  // a minute, without proof
	perStranger   = 1200 // a minute from one network, and for one host of clients
)

// pushed is what is kept with a request beside itself, and travels in a visit.
type pushed struct {
	Hash        store.Hash `json:"h"`
	JKT         string     `json:"k,omitempty"` // of the DPoP proof it was pushed with
	InstanceJKT string     `json:"i,omitempty"` // key of the attested instance that pushed it (ATT-09)
	Unproven    bool       `json:"u,omitempty"` // the client's document may not be fetched yet
}

// kept is a pushed request as the store has it.
type kept struct {
	Request Request `json:"q"`
	Pushed  pushed  `json:"h"`
}

// push takes an authorization request from its client before the browser comes
// (RFC 9126). Everything is checked as at /authorize, by the same table, and
// again when the person is there.
func (h *Handler) push(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseRequest(r)
	if err != nil {
		return err
	}
	if p.Form[paramRequestURI] != "" {
		return oauth.Refuse(oauth.InvalidRequest, "request_uri has no place in a pushed request").Under("PAR-02")
	}
	ctx := cimd.WithSource(r.Context(), source(r.Context(), nil))
	c, err := h.pusher(r.WithContext(ctx), p)
	if err != nil {
		if r.Header.Get("Authorization") != "" && oauth.AsError(err).Code == oauth.InvalidClient { // TOK-19
			w.Header().Set("WWW-Authenticate", `Basic realm="pushed authorization request endpoint", charset="UTF-8"`)
		}
		return err
	}
	k, once, err := h.examinePushed(ctx, c, p)
	if err != nil {
		return err
	}
	possession, err := h.bindPushed(w, r, c, &k)
	if err != nil {
		return err
	}
	if err := k.Request.travels(); err != nil {
		return err
	}
	if once != nil {
		err := h.Store.SpendID(r.Context(), once.Issuer, once.ID, once.Expires, h.Now())
		if errors.Is(err, store.ErrSpent) {
			return objectRefused(c.ID, errors.New("its jti was used before"))
		}
		if err != nil {
			return fmt.Errorf("spend request object: %w", err)
		}
	}
	if err := possession.Spend(r.Context()); err != nil {
		return err
	}
	return h.keep(w, r, c, k)
}

// pusher authenticates the client as the token endpoint does. One that proves
// nothing is counted, and its document is fetched only where that may be done
// for people who are not signed in: else the client is not known yet, Doc and
// rows of it are nil, and what can be checked now is little (PAR-11, FETCH-20).
func (h *Handler) pusher(r *http.Request, p web.Params) (*clientauth.Client, error) {
	q := clientauth.FromHTTP(r, p)
	q.Resolve = true
	ctx := r.Context()
	limits := []web.Limit{{Key: "par " + web.Network(web.ClientIP(ctx)), Most: perNetwork}}
	bare := q.ClientID != "" && h.Clients.Bare(q)
	if bare {
		limits = append(limits, web.Limit{Key: "par client " + q.ClientID, Most: perClient})
	}
	if wait := h.throttle.Take(h.Now(), limits...); wait > 0 {
		return nil, tooManyPushed("without a proof of who the client is", wait)
	}
	if bare && !h.FetchBeforeSignIn {
		_, err := h.Directory.Find(ctx, q.ClientID, false)
		if errors.Is(err, directory.ErrDeferred) {
			web.SetClient(ctx, q.ClientID)
			return &clientauth.Client{Client: &directory.Client{ID: q.ClientID, Source: directory.SourceCIMD}}, nil
		}
	}
	c, err := h.Clients.Authenticate(ctx, q)
	if err != nil || c.Method == oauth.MethodNone {
		return c, err
	}
	if !spokenFor(c) { // a refusal stays counted: the next ones cost no authentication
		wait := h.throttle.Take(h.Now(),
			web.Limit{Key: "par proven " + web.Network(web.ClientIP(ctx)), Most: perStranger},
			web.Limit{Key: "par proven " + cmp.Or(c.Host, c.ID), Most: perStranger})
		if wait > 0 {
			return nil, tooManyPushed("by clients that no administrator has named", wait)
		}
	}
	h.throttle.GiveBack(limits...)
	return c, nil
}

func tooManyPushed(how string, wait time.Duration) error {
	return &web.Refusal{
		Err:    oauth.Refuse(oauth.TemporarilyUnavailable, "too many requests were pushed %s; try again later", how).Under("PAR-11"),
		Status: http.StatusTooManyRequests, RetryAfter: wait,
	}
}

// spokenFor reports whether an operator registered the client, or named it in a
// rule of the policy.
func spokenFor(c *clientauth.Client) bool {
	return c.Source == directory.SourceRegistered || c.Decision.Explicit
}

// unknown reports whether the client is one whose document may not be fetched yet.
func unknown(c *clientauth.Client) bool { return c.Method == "" }

// examinePushed reads the request of a client and runs the table.
func (h *Handler) examinePushed(ctx context.Context, c *clientauth.Client, p web.Params) (k kept, once *store.SpentID, err error) {
	if id := p.Form["client_id"]; id != "" && id != c.ID {
		return k, nil, oauth.Refuse(oauth.InvalidRequest, "client_id is not that of the client that authenticated").Under("PAR-01")
	}
	p.Form["client_id"] = c.ID
	if raw := p.Form[paramRequest]; raw != "" { // what stands beside it does not count (PAR-10)
		k.Request, err = signedRequest(c.ID, raw)
		if err == nil && !unknown(c) {
			var o *object
			if o, err = h.unseal(ctx, c.Client, &k.Request, h.now()); err == nil {
				k.Request, once = o.Request, o.once()
			}
		}
	} else {
		k.Request, err = read(p)
	}
	if err != nil {
		return k, nil, err
	}
	a := &attempt{req: &k.Request, client: c.Client, policy: c.Policy, rules: &h.rules, at: atPAR, pushed: true}
	if unknown(c) {
		a.at, k.Pushed.Unproven = atBlind, true
		if k.Request.Object != "" {
			return k, nil, nil
		}
	}
	return k, once, a.check()
}

// bindPushed ties the request to the keys of who pushed it: redeeming the code
// then takes a proof of the same DPoP key (RFC 9449 section 10.1) and the same
// attested instance (ATT-09).
func (h *Handler) bindPushed(w http.ResponseWriter, r *http.Request, c *clientauth.Client, k *kept) (clientauth.Possession, error) {
	if c.Method == oauth.MethodAttestationDPoP && k.Request.JKT != "" {
		return clientauth.Possession{}, oauth.Refuse(oauth.InvalidRequest, "dpop_jkt has no place where the attested key is the DPoP key").Under("AUTHZ-28")
	}
	possession, err := h.Clients.Check(w, r, c)
	if err != nil {
		return possession, err
	}
	if told := k.Request.outline().JKT; told != "" && possession.JKT != "" && told != possession.JKT {
		return possession, oauth.Refuse(oauth.InvalidDPoPProof, "the DPoP proof is by another key than dpop_jkt names").Under("AUTHZ-28")
	}
	k.Pushed.JKT, k.Pushed.InstanceJKT = possession.JKT, c.InstanceJKT
	return possession, nil
}

// keep stores the request and tells the client under what name.
func (h *Handler) keep(w http.ResponseWriter, r *http.Request, c *clientauth.Client, k kept) error {
	handle, now, most, life := oauth.RandomToken(32), h.now(), mostPushed, h.pushLife(c)
	switch {
	case unknown(c) || c.Method == oauth.MethodNone:
		most = mostUnproven
	case !spokenFor(c):
		most = mostStrangers
	}
	k.Pushed.Hash = store.HashOf(handle)
	raw, err := json.Marshal(k)
	if err != nil {
		return err
	}
	err = h.Store.PushRequest(r.Context(), store.Pushed{
		Hash: k.Pushed.Hash, ClientID: c.ID, Request: raw, Created: now, Expires: now.Add(life),
	}, most)
	if errors.Is(err, store.ErrBusy) {
		return &web.Refusal{
			Err:    oauth.Refuse(oauth.TemporarilyUnavailable, "too many pushed requests wait for their people; try again in a minute").Under("PAR-11"),
			Status: http.StatusServiceUnavailable, RetryAfter: h.PushLife,
		}
	}
	if err != nil {
		return fmt.Errorf("keep a pushed request: %w", err)
	}
	return web.WriteJSON(w, http.StatusCreated, struct {
		URI  string `json:"request_uri"`
		Life int    `json:"expires_in"`
	}{uriPrefix + handle, int(life / time.Second)})
}

// pushLife is how long a request of this client waits for its person. FAPI 2.0
// wants less than ten minutes (section 5.3.2.2), which others may have.
func (h *Handler) pushLife(c *clientauth.Client) time.Duration {
	if c.Decision.FAPI {
		return min(h.PushLife, 10*time.Minute-time.Second)
	}
	return h.PushLife
}

// recall finds the request that a browser names. It is not used up by that, since
// people load pages again; the answer to the consent page uses it up (PAR-05).
// Whatever else stands in the address is not looked at (PAR-06).
func (h *Handler) recall(ctx context.Context, q Request) (Request, *pushed, error) {
	p, err := h.Store.FindPushed(ctx, store.HashOf(strings.TrimPrefix(q.uri, uriPrefix)), h.Now())
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrExpired), errors.Is(err, store.ErrSpent):
		return q, nil, notWaiting(q.ClientID, err)
	case err != nil:
		return q, nil, fmt.Errorf("find a pushed request: %w", err)
	case p.ClientID != q.ClientID:
		return q, nil, notWaiting(q.ClientID, errors.New("another client pushed it"))
	}
	var k kept
	if err := json.Unmarshal(p.Request, &k); err != nil {
		return q, nil, fmt.Errorf("read a pushed request: %w", err)
	}
	return k.Request, &k.Pushed, nil
}

// notWaiting refuses a request_uri behind which no request of the client waits,
// with one page for every reason.
func notWaiting(clientID string, cause error) error {
	return &web.Refusal{
		Err: oauth.Refuse(oauth.InvalidRequestURI,
			"no request of this client waits under the request_uri: it has expired, was answered, or was pushed by another client; push it again").Under("PAR-05").Because(cause),
		Status: http.StatusBadRequest, ClientURL: clientID,
		Title: "This sign-in link has run out",
		What:  "What an app asks for is kept for a short time only and can be answered once. Nothing was shared.",
		Turn:  "You",
		Next:  "Go back to the app and connect again from there.",
	}
}
