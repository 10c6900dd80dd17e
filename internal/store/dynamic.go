package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// RegisterDynamic adds a client that registered itself (RFC 7591). It gets no new
// grant after Expires, which every use moves on by the time since the last one.
// ErrBusy: most such clients are live already. ErrConflict: the identifier is
// taken. The events are recorded with it, and one of the store's own if none is
// about the client; so it is for UpdateDynamic and RemoveDynamic.
func (s *Store) RegisterDynamic(ctx context.Context, c Client, most int, now time.Time, events ...audit.Event) error {
	if c.ID == "" || strings.HasPrefix(c.ID, "https://") {
		return errors.New("register dynamic client: an identifier that is no URL is required (DCR-05)")
	}
	if !now.Before(c.Expires) {
		return errors.New("register dynamic client: an expiry is required (DCR-01)")
	}
	c.Source, c.Version = SourceDCR, 0
	if err := s.room(ctx, liveDynamic, most, now); err != nil {
		return wrap("register dynamic client", err)
	}
	return wrap("register dynamic client", s.write(ctx, func(t *tx) error {
		if err := t.room(liveDynamic, most, now); err != nil {
			return err
		}
		n, err := t.insertClient(c, now)
		if err == nil && n == 0 {
			err = ErrConflict
		}
		if err != nil {
			return err
		}
		return t.record(now, told(events, c.ID, "registered_itself")...)
	}))
}

// liveDynamic counts the clients that registered themselves, up to a bound.
const liveDynamic = `SELECT COUNT(*) FROM (SELECT 1 AS one FROM clients WHERE source = 'dcr' AND expires_at > $1 LIMIT $2) AS live`

// UpdateDynamic replaces the metadata of a client that registered itself, if the
// hash of its registration access token is still oldRegistration, and makes
// c.RegistrationHash the new one: a token that is rotated is used once (DCR-04).
// A zero c.Expires leaves it as long after its last use as before. Its state and
// its source stay. ErrConflict: the token is another by now. ErrBlocked: the
// client is not allowed or has expired. ErrNotFound: no such client registered
// itself.
func (s *Store) UpdateDynamic(ctx context.Context, c Client, oldRegistration string, now time.Time, events ...audit.Event) error {
	if oldRegistration == "" || c.RegistrationHash == "" {
		return errors.New("update dynamic client: both registration tokens are required")
	}
	lists, err := join(c.GrantTypes, c.AuthMethods)
	if err != nil {
		return wrap("update dynamic client", err)
	}
	return wrap("update dynamic client", s.write(ctx, func(t *tx) error {
		var one int
		err := t.get([]any{&one}, `UPDATE clients SET registration_hash = $3, name = $4, secret_hash = $5, redirect_uris = $6, grant_types = $7,
			auth_methods = $8, scope = $9, has_scope = $10, jwks = $11, jwks_uri = $12, metadata = $13, post_logout_redirect_uris = $14,
			backchannel_logout_uri = $15, expires_at = CASE WHEN CAST($16 AS BIGINT) > 0 THEN CAST($16 AS BIGINT) ELSE expires_at + $17 - last_used_at END,
			last_used_at = $17
			WHERE client_id = $1 AND registration_hash = $2 AND source = 'dcr' AND state = 'allowed' AND expires_at > $17 RETURNING 1`,
			c.ID, oldRegistration, c.RegistrationHash, c.Name, c.SecretHash, jsonText(c.RedirectURIs), lists[0],
			lists[1], c.Scope, c.HasScope, c.JWKS, c.JWKSURI, c.Metadata, jsonText(c.PostLogoutRedirectURIs),
			c.BackchannelLogoutURI, micros(c.Expires), micros(now))
		if errors.Is(err, ErrNotFound) {
			return t.whyNotDynamic(c.ID, now)
		}
		if err != nil {
			return err
		}
		return t.record(now, told(events, c.ID, "updated_itself")...)
	}))
}

// RemoveDynamic retires a client that registered itself, if the hash of its
// registration access token is still registration, and ends its grants, refresh
// families and remembered consents in the same commit. The errors are those of
// UpdateDynamic.
func (s *Store) RemoveDynamic(ctx context.Context, id, registration string, now time.Time, events ...audit.Event) error {
	if registration == "" {
		return errors.New("remove dynamic client: a registration token is required")
	}
	return wrap("remove dynamic client", s.write(ctx, func(t *tx) error {
		var one int
		err := t.get([]any{&one}, `UPDATE clients SET state = 'retired', reason = 'removed itself', registration_hash = '', expires_at = $3
			WHERE client_id = $1 AND registration_hash = $2 AND source = 'dcr' AND state = 'allowed' AND expires_at > $3 RETURNING 1`,
			id, registration, micros(now))
		if errors.Is(err, ErrNotFound) {
			return t.whyNotDynamic(id, now)
		}
		if err != nil {
			return err
		}
		if _, err := t.endGrants(Whose{ClientID: id}, "client_retired", now); err != nil {
			return err
		}
		return t.record(now, told(events, id, "removed_itself")...)
	}))
}

// told returns the events of a change of a client by itself, with one about the
// client: that is also what wakes those who watch.
func told(events []audit.Event, id, code string) []audit.Event {
	if slices.ContainsFunc(events, func(e audit.Event) bool { return e.Type == audit.TypeClient }) {
		return events
	}
	return append([]audit.Event{{Type: audit.TypeClient, Client: id, Code: code}}, events...)
}

// whyNotDynamic tells why a client that registered itself could not be changed.
func (t *tx) whyNotDynamic(id string, now time.Time) error {
	var state string
	var expires time.Time
	err := t.get([]any{&state, instant{&expires}}, `SELECT state, expires_at FROM clients WHERE client_id = $1 AND source = 'dcr'`, id)
	switch {
	case err != nil:
		return err
	case state != StateAllowed || !now.Before(expires):
		return ErrBlocked
	}
	return ErrConflict
}
