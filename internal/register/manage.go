package register

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// manage answers a client about its own registration (RFC 7592). Each use of the
// registration access token but the last one, the deletion, is answered with the
// next token: of two that use the same one, one is refused (DCR-04).
func (h *Handler) manage(w http.ResponseWriter, r *http.Request) error {
	if wait := h.throttle.Take(h.Now(), web.Limit{Key: "manage " + web.Network(web.ClientIP(r.Context())), Most: perNetwork}); wait > 0 {
		return busy(http.StatusTooManyRequests, wait, "too many requests about registrations")
	}
	c, hash, err := h.holder(r)
	if errors.Is(err, errNotHolder) {
		return notHolder(w, err)
	}
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodPut:
		err = h.update(w, r, c, hash)
	case http.MethodDelete:
		err = h.remove(w, r, c, hash)
	default:
		err = h.show(w, r, c, hash)
	}
	for _, lost := range []error{store.ErrConflict, store.ErrBlocked, store.ErrNotFound} {
		if errors.Is(err, lost) { // somebody was faster, with the same token or as an operator
			return notHolder(w, err)
		}
	}
	return err
}

var errNotHolder = errors.New("no such registration, or another token")

// holder returns the client of the address if the request bears its registration
// access token, and the hash of that. What is wrong is not told apart: an id
// cannot be guessed here.
func (h *Handler) holder(r *http.Request) (*store.Client, string, error) {
	id := r.PathValue("id")
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(r.Header.Values("Authorization")) != 1 || !strings.HasPrefix(id, prefix) {
		return nil, "", errNotHolder
	}
	hash := clientauth.HashSecret(token)
	c, err := h.Store.Client(r.Context(), id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, "", errNotHolder
	case err != nil:
		return nil, "", fmt.Errorf("find a registration: %w", err)
	case c.Source != store.SourceDCR || c.State != store.StateAllowed || !h.Now().Before(c.Expires),
		subtle.ConstantTimeCompare([]byte(hash), []byte(c.RegistrationHash)) != 1:
		return nil, "", errNotHolder
	}
	web.SetClient(r.Context(), c.ID)
	return &c, hash, nil
}

// notHolder refuses with one answer for every reason.
func notHolder(w http.ResponseWriter, cause error) error {
	w.Header().Add("WWW-Authenticate", oauth.Challenge{Scheme: "Bearer", Params: []oauth.Param{{Name: "error", Value: string(oauth.InvalidToken)}}}.String())
	return oauth.Refuse(oauth.InvalidToken, "there is no such registration, it has expired, or this is not its current registration access token: each one is good once").Under("DCR-04").Because(cause)
}

// show tells a client how it is registered.
func (h *Handler) show(w http.ResponseWriter, r *http.Request, c *store.Client, hash string) error {
	var m metadata
	if err := json.Unmarshal(c.Metadata, &m); err != nil {
		return fmt.Errorf("read a registration: %w", err)
	}
	return h.replace(w, r, c, replacement{m: &m, old: hash, code: "looked_itself_up"})
}

// update replaces a registration as a whole (RFC 7592 section 2.2): what the
// client leaves out is gone. A secret stays, unless there was none.
func (h *Handler) update(w http.ResponseWriter, r *http.Request, c *store.Client, hash string) error {
	dec, set := h.Directory.Dynamic()
	if dec.Action == policy.Deny {
		return denied()
	}
	said, err := readBody(r)
	if err != nil {
		return err
	}
	var id, secret string
	if json.Unmarshal(said["client_id"], &id) != nil || id != c.ID {
		return oauth.Refuse(invalidMetadata, "client_id must be that of the registration").Under("DCR-04")
	}
	if raw, ok := said["client_secret"]; ok && (json.Unmarshal(raw, &secret) != nil || c.SecretHash == "" || !clientauth.SecretMatches(secret, c.SecretHash)) {
		return oauth.Refuse(invalidMetadata, "client_secret is not the one that was given; a client does not choose its own").Under("DCR-04")
	}
	delete(said, "client_id")
	delete(said, "client_secret")
	m, err := h.examine(said, dec, set)
	if err != nil {
		return err
	}
	next := m.row(c.ID)
	next.Created, next.Expires, next.SecretHash = c.Created, c.Expires, c.SecretHash
	how := replacement{m: m, old: hash, code: "updated_itself"}
	switch {
	case !m.secret():
		next.SecretHash = ""
	case next.SecretHash == "":
		how.secret, next.SecretHash = clientauth.NewSecret()
	}
	return h.replace(w, r, &next, how)
}

// replacement is what a registration is replaced by.
type replacement struct {
	m      *metadata
	old    string // hash of the token that is used up
	secret string // new; "" if it stays
	code   string // of the event
}

// replace writes a registration with the next token and answers with both.
func (h *Handler) replace(w http.ResponseWriter, r *http.Request, c *store.Client, how replacement) error {
	now := h.Now()
	var token string
	token, c.RegistrationHash = clientauth.NewSecret()
	c.Expires = now.Add(h.Life)
	event := h.event(r, c, how.code, how.m.forAudit())
	if err := h.Store.UpdateDynamic(r.Context(), *c, how.old, now, event); err != nil {
		return fmt.Errorf("replace a registration: %w", err)
	}
	h.Audit.Observe(event)
	return web.WriteJSON(w, http.StatusOK, h.answer(c, how.m, how.secret, token))
}

// remove ends a registration and all that was granted to the client.
func (h *Handler) remove(w http.ResponseWriter, r *http.Request, c *store.Client, hash string) error {
	event := h.event(r, c, "removed_itself", nil)
	if err := h.Store.RemoveDynamic(r.Context(), c.ID, hash, h.Now(), event); err != nil {
		return fmt.Errorf("remove a registration: %w", err)
	}
	h.Audit.Observe(event)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
