package store

import (
	"context"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/oauth"
)

// Consent returns what a user agreed to be asked about no more, for exactly this
// client and resource. The caller compares the security digest and the scopes
// (CONS-13). A consent that was ended is ErrNotFound; its Endings are returned
// even so.
func (s *Store) Consent(ctx context.Context, userID, clientID, resource string) (Consent, error) {
	c := Consent{UserID: userID, ClientID: clientID, Resource: resource}
	var given bool
	err := s.get(ctx, []any{&c.Endings, &given, &c.SecurityDigest, scopesAt(&c.Scopes), instant{&c.Given}},
		`SELECT e.n, c.user_id IS NOT NULL, COALESCE(c.security_digest, ''), COALESCE(c.scopes, ''), c.given_at
		FROM endings e LEFT JOIN consents c ON c.user_id = $1 AND c.client_id = $2 AND c.resource = $3 AND c.ended_at IS NULL
		WHERE e.one = 1`, userID, clientID, resource)
	if err == nil && !given {
		err = ErrNotFound
	}
	if err != nil {
		return Consent{Endings: c.Endings}, wrap("find consent", err)
	}
	return c, nil
}

// AnswerConsent carries out a person's yes: the page is spent, the client's row
// and document are kept, the consent is remembered if asked for, the grant and
// its code are written and the events recorded, all in one commit or not at all.
//
// ErrSpent: the page, or the pushed request behind it, was answered before
// (CN-07, PAR-05). ErrExpired: it is too old.
// ErrNotFound: the session has ended, its user is disabled or is not the grant's
// user, or the client has no row and none was given (CN-18). ErrEnded: the
// connection was ended while the page was open. ErrBlocked: the client is not
// allowed any more. ErrConflict: an operator registered the client meanwhile, so
// that the fetched document no longer speaks for it.
func (s *Store) AnswerConsent(ctx context.Context, a Answer, now time.Time) error {
	if err := a.check(); err != nil {
		return wrap("answer consent", err)
	}
	g := a.Grant
	g.Kind = KindCode
	return wrap("answer consent", s.write(ctx, func(t *tx) error {
		if err := t.spendNonce(a.Nonce, a.NonceExpires, now); err != nil {
			return err
		}
		if err := t.spendPushed(a.Pushed, g.ClientID, now); err != nil {
			return err
		}
		if err := t.agree(a, g, a.Code.Expires, now); err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO codes (hash, grant_id, redirect_uri, challenge, expires_at, jkt) VALUES ($1, $2, $3, $4, $5, $6)`,
			a.Code.Hash, g.ID, a.Code.RedirectURI, a.Code.Challenge, micros(a.Code.Expires), a.Code.JKT); err != nil {
			return err
		}
		return t.record(now, a.Events...)
	}))
}

// check refuses an answer that no page can have led to.
func (a *Answer) check() error {
	if a.Grant.ID == "" || a.Grant.UserID == "" || a.Grant.ClientID == "" {
		return errors.New("a grant names itself, its user and its client")
	}
	return a.fits()
}

// fits checks that client and document are those of the grant, and that its lists
// can be kept.
func (a *Answer) fits() error {
	if (a.Client != nil && a.Client.ID != a.Grant.ClientID) || (a.Document != nil && a.Document.ClientID != a.Grant.ClientID) {
		return errors.New("the client and the document are those of the grant")
	}
	_, err := join(a.Grant.Scopes, a.Grant.AuthMethods, a.Grant.AMR)
	return err
}

// agree carries out what every yes has in common: who answers and which client
// may profit is checked, the consent is remembered if asked for and the grant
// written. Until it is redeemed it ends at expires and is tied to no key but that
// of the attested instance that pushed the request (ATT-09).
func (t *tx) agree(a Answer, g Grant, expires, now time.Time) (err error) {
	if g.SID, err = t.mayAnswer(a, now); err != nil {
		return err
	}
	if g.Version, err = t.admit(a, now); err != nil {
		return err
	}
	if err := t.notEndedSince(a); err != nil {
		return err
	}
	if a.Remember {
		if err := t.remember(a.Grant, now); err != nil {
			return err
		}
	}
	g.AuthMethod, g.KeyThumbprint, g.JKT, g.CertThumbprint = "", "", "", ""
	return t.insertGrant(g, expires, now)
}

// insertGrant writes a new grant.
func (t *tx) insertGrant(g Grant, expires, now time.Time) error {
	lists, err := join(g.Scopes, g.AuthMethods, g.AMR)
	if err != nil {
		return err
	}
	var user any // NULL when the client acts for itself
	if g.UserID != "" {
		user = g.UserID
	}
	_, err = t.exec(`INSERT INTO grants (id, user_id, client_id, resource, scopes, security_digest, version, auth_methods,
		auth_method, key_thumbprint, auth_time, acr, amr, nonce, created_at, last_used_at, expires_at, head, head_expires_at, end_reason,
		kind, jkt, instance_jkt, cert_thumbprint, details, sid, actor)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $16, 0, 0, '', $17, $18, $19, $20, $21, $22, $23)`,
		g.ID, user, g.ClientID, g.Resource, lists[0], g.SecurityDigest, g.Version, lists[1],
		g.AuthMethod, g.KeyThumbprint, micros(g.AuthTime), g.ACR, lists[2], g.Nonce, micros(now), micros(expires),
		g.Kind, g.JKT, g.InstanceJKT, g.CertThumbprint, g.Details, g.SID, g.Actor)
	return err
}

// DenyConsent carries out a person's no: the page is spent, nothing else is
// written but the events. ErrSpent and ErrExpired as for AnswerConsent.
func (s *Store) DenyConsent(ctx context.Context, nonce Hash, expires, now time.Time, events ...audit.Event) error {
	return wrap("deny consent", s.write(ctx, func(t *tx) error {
		if err := t.spendNonce(nonce, expires, now); err != nil {
			return err
		}
		return t.record(now, events...)
	}))
}

// spendNonce marks a consent page as answered. The row is written here and not
// when the page is shown: before a person acts, nothing is kept.
func (t *tx) spendNonce(nonce Hash, expires, now time.Time) error {
	if !now.Before(expires) {
		return ErrExpired
	}
	n, err := t.exec(`INSERT INTO consent_nonces (hash, expires_at, used_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		nonce, micros(expires), micros(now))
	if err == nil && n == 0 {
		err = ErrSpent
	}
	return err
}

// mayAnswer checks who answers, a live session of the grant's own user, and
// returns the name by which clients know that session.
func (t *tx) mayAnswer(a Answer, now time.Time) (sid string, err error) {
	return sid, t.get([]any{&sid}, `SELECT s.sid FROM sessions s JOIN users u ON u.id = s.user_id
		WHERE s.hash = $1 AND s.user_id = $2 AND s.ended_at IS NULL AND s.expires_at > $3 AND u.disabled_at IS NULL`,
		a.Session, a.Grant.UserID, micros(now))
}

// notEndedSince checks that nobody ended the connection, or all of the person or
// of the client, since the page was shown. No clock has a say in it: replicas do
// not agree on the time as well as that.
func (t *tx) notEndedSince(a Answer) error {
	var one int
	err := t.get([]any{&one}, `SELECT 1 FROM users WHERE id = $1 AND ending > $3
		UNION ALL SELECT 1 FROM clients WHERE client_id = $2 AND ending > $3
		UNION ALL SELECT 1 FROM consents WHERE user_id = $1 AND client_id = $2 AND ending > $3 LIMIT 1`,
		a.Grant.UserID, a.Grant.ClientID, a.Endings)
	if err == nil {
		return ErrEnded
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// admit makes sure that the client has a row that allows it, keeps the document
// if it differs from the newest stored one and returns its version.
func (t *tx) admit(a Answer, now time.Time) (version int, err error) {
	var source, state string
	var expires time.Time
	err = t.get([]any{&source, &state, &version, instant{&expires}}, `SELECT source, state, version, expires_at FROM clients WHERE client_id = $1`, a.Grant.ClientID)
	switch {
	case errors.Is(err, ErrNotFound) && a.Client != nil && a.Client.Source != SourceDCR:
		c := *a.Client
		c.Version = 0
		if _, err := t.insertClient(c, now); err != nil {
			return 0, err
		}
		if c.State != "" && c.State != StateAllowed {
			return 0, ErrBlocked
		}
	case err != nil:
		return 0, err
	case state != StateAllowed || (!expires.IsZero() && !now.Before(expires)):
		return 0, ErrBlocked
	case source != SourceCIMD:
		if a.Document != nil || (a.Client != nil && a.Client.Source != source) {
			return 0, ErrConflict
		}
		return version, t.touchClient(a.Grant.ClientID, now)
	default:
		if err := t.pinned(a.Document); err != nil {
			return 0, err
		}
		if err := t.refetched(a, now); err != nil {
			return 0, err
		}
	}
	if a.Document == nil {
		return version, nil
	}
	return t.keepDocument(*a.Document)
}

// refetched brings the row of a fetched client up to its document. Its state and
// its source stay.
func (t *tx) refetched(a Answer, now time.Time) error {
	c := a.Client
	if c == nil {
		return t.touchClient(a.Grant.ClientID, now)
	}
	lists, err := join(c.GrantTypes, c.AuthMethods)
	if err != nil {
		return err
	}
	_, err = t.exec(`UPDATE clients SET name = $2, redirect_uris = $3, grant_types = $4, auth_methods = $5, scope = $6, has_scope = $7,
		jwks = $8, jwks_uri = $9, last_used_at = $10, post_logout_redirect_uris = $11, backchannel_logout_uri = $12 WHERE client_id = $1`,
		c.ID, c.Name, jsonText(c.RedirectURIs), lists[0], lists[1], c.Scope, c.HasScope, c.JWKS, c.JWKSURI, micros(now),
		jsonText(c.PostLogoutRedirectURIs), c.BackchannelLogoutURI)
	return err
}

// touchClient records that a client is used. One that expires does so as long
// after its last use as it did before. A use that a clock behind tells of moves
// neither back: of two clocks in turn each would prolong it again (FA-12).
func (t *tx) touchClient(id string, now time.Time) error {
	_, err := t.exec(`UPDATE clients SET expires_at = CASE WHEN expires_at > 0 AND last_used_at < $2 THEN expires_at + $2 - last_used_at ELSE expires_at END,
		last_used_at = CASE WHEN expires_at > 0 AND last_used_at > $2 THEN last_used_at ELSE $2 END WHERE client_id = $1`, id, micros(now))
	return err
}

// keepDocument stores a document unless it is the newest stored one, and returns
// its version. Older versions stay.
func (t *tx) keepDocument(d Document) (int, error) {
	var newest Document
	err := t.get([]any{&newest.Version, &newest.Digest},
		`SELECT version, digest FROM documents WHERE client_id = $1 ORDER BY version DESC LIMIT 1`, d.ClientID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	if err == nil && newest.Digest == d.Digest {
		return newest.Version, nil
	}
	lists, err := join(d.AuthMethods)
	if err != nil {
		return 0, err
	}
	version := newest.Version + 1
	if _, err := t.exec(`INSERT INTO documents (`+documentColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		d.ClientID, version, d.Body, d.Digest, d.SecurityDigest, lists[0], micros(d.FetchedAt)); err != nil {
		return 0, err
	}
	_, err = t.exec(`UPDATE clients SET version = $2 WHERE client_id = $1`, d.ClientID, version)
	return version, err
}

// remember keeps the consent behind a grant. Scopes add up while the client's
// security-relevant members stay what they were, and start anew otherwise.
func (t *tx) remember(g Grant, now time.Time) error {
	var digest string
	var had oauth.Scopes
	err := t.get([]any{&digest, scopesAt(&had)}, `SELECT security_digest, scopes FROM consents
		WHERE user_id = $1 AND client_id = $2 AND resource = $3 AND ended_at IS NULL`, g.UserID, g.ClientID, g.Resource)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	scopes := g.Scopes
	if err == nil && digest == g.SecurityDigest {
		scopes = had.Or(scopes)
	}
	_, err = t.exec(`INSERT INTO consents (user_id, client_id, resource, security_digest, scopes, given_at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (user_id, client_id, resource) DO UPDATE SET security_digest = excluded.security_digest, scopes = excluded.scopes,
		given_at = excluded.given_at, ended_at = NULL`,
		g.UserID, g.ClientID, g.Resource, g.SecurityDigest, scopes.String(), micros(now))
	return err
}
