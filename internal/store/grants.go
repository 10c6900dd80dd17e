package store

import (
	"context"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

const grantColumns = `g.id, COALESCE(g.user_id, ''), g.client_id, g.resource, g.scopes, g.security_digest, g.version, g.auth_methods,
	g.auth_method, g.key_thumbprint, g.auth_time, g.acr, g.amr, g.nonce, g.created_at, g.last_used_at, g.ended_at, g.end_reason,
	g.kind, g.jkt, g.instance_jkt, g.cert_thumbprint, g.details, g.sid, g.actor, g.held_at IS NOT NULL`

// grantRow is a grant with what only the store needs to know.
type grantRow struct {
	Grant
	held bool
}

func (g *grantRow) columns() []any {
	return []any{&g.ID, &g.UserID, &g.ClientID, &g.Resource, scopesAt(&g.Scopes), &g.SecurityDigest, &g.Version, words{&g.AuthMethods},
		&g.AuthMethod, &g.KeyThumbprint, instant{&g.AuthTime}, &g.ACR, words{&g.AMR}, &g.Nonce, instant{&g.Created}, instant{&g.LastUsed},
		instant{&g.Ended}, &g.EndReason,
		&g.Kind, &g.JKT, &g.InstanceJKT, &g.CertThumbprint, &g.Details, &g.SID, &g.Actor, &g.held}
}

// standing is the condition under which a grant g can be used. Whoever disables
// a user or changes the state of a client writes into the grants what follows,
// in the same commit, so that the legs after the consent read nothing else.
const standing = `g.ended_at IS NULL AND g.held_at IS NULL`

// err tells why a grant does not stand.
func (g *grantRow) err() error {
	switch {
	case !g.Ended.IsZero():
		return ErrEnded
	case g.held:
		return ErrBlocked
	}
	return nil
}

// GrantActive returns a grant whose user and client still stand. With ErrEnded
// (the grant has ended or its user is disabled) and ErrBlocked (the client is
// not allowed) the grant is returned too.
func (s *Store) GrantActive(ctx context.Context, grantID string) (Grant, error) {
	var g grantRow
	err := s.get(ctx, g.columns(), `SELECT `+grantColumns+` FROM grants g WHERE g.id = $1`, grantID)
	if err != nil {
		return Grant{}, wrap("find grant", err)
	}
	return g.Grant, wrap("find grant", g.err())
}

// Grants returns the grants that have not ended, oldest first, starting behind
// after: those of one user, or all when userID is empty. The limit is 100 by
// default and 1000 at most.
func (s *Store) Grants(ctx context.Context, userID, after string, limit int) ([]Grant, error) {
	query := `SELECT ` + grantColumns + ` FROM grants g WHERE g.user_id = $1 AND g.id > $2 AND g.ended_at IS NULL ORDER BY g.id LIMIT $3`
	args := []any{userID, after, bound(limit, 100, 1000)}
	if userID == "" {
		query = `SELECT ` + grantColumns + ` FROM grants g WHERE g.id > $1 AND g.ended_at IS NULL ORDER BY g.id LIMIT $2`
		args = args[1:]
	}
	var out []Grant
	err := s.list(ctx, func(scan func(...any) error) error {
		var g grantRow
		err := scan(g.columns()...)
		out = append(out, g.Grant)
		return err
	}, query, args...)
	return out, wrap("list grants", err)
}

// RevokeGrant ends a grant and with it its code and its refresh family. A grant
// that has ended stays as it was, without an event: the first reason counts.
func (s *Store) RevokeGrant(ctx context.Context, grantID, reason string, now time.Time, events ...audit.Event) error {
	return wrap("revoke grant", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE grants SET ended_at = $2, end_reason = $3 WHERE id = $1 AND ended_at IS NULL`, grantID, micros(now), reason)
		if err != nil {
			return err
		}
		if n == 0 {
			var one int
			return t.get([]any{&one}, `SELECT 1 FROM grants WHERE id = $1`, grantID)
		}
		return t.record(now, events...)
	}))
}

// RevokeUserClient ends every grant between a user and a client and forgets what
// the user agreed to.
func (s *Store) RevokeUserClient(ctx context.Context, userID, clientID string, now time.Time, events ...audit.Event) error {
	if userID == "" || clientID == "" {
		return errors.New("revoke connection: a user and a client are required")
	}
	_, err := s.EndGrantsOf(ctx, Whose{ClientID: clientID, UserID: userID}, "revoked", now, events...)
	return err
}

// EndGrantsOf ends the grants of a client, of a user or between both, forgets
// the consents behind them and returns how many grants ended.
func (s *Store) EndGrantsOf(ctx context.Context, w Whose, reason string, now time.Time, events ...audit.Event) (int, error) {
	var n int
	err := s.write(ctx, func(t *tx) (err error) {
		if n, err = t.endGrants(w, reason, now); err != nil {
			return err
		}
		return t.record(now, events...)
	})
	return n, wrap("end grants", err)
}

// endGrants ends grants and consents, and gives the ending a number that whoever
// was asked before did not see: a page that was open meanwhile is refused (CN-18).
func (t *tx) endGrants(w Whose, reason string, now time.Time) (int, error) {
	at := micros(now)
	var ending int64
	if err := t.get([]any{&ending}, `UPDATE endings SET n = n + 1 WHERE one = 1 RETURNING n`); err != nil {
		return 0, err
	}
	switch {
	case w.ClientID != "" && w.UserID != "":
		// A consent that was not remembered left no row to mark.
		if _, err := t.exec(`INSERT INTO consents (user_id, client_id, resource, security_digest, scopes, given_at, ended_at, ending)
			SELECT u.id, c.client_id, '', '', '', $3, $3, 0 FROM users u, clients c WHERE u.id = $1 AND c.client_id = $2
			ON CONFLICT (user_id, client_id, resource) DO NOTHING`, w.UserID, w.ClientID, at); err != nil {
			return 0, err
		}
		if _, err := t.exec(`UPDATE consents SET ended_at = $1, ending = $4 WHERE user_id = $2 AND client_id = $3`, at, w.UserID, w.ClientID, ending); err != nil {
			return 0, err
		}
		n, err := t.exec(`UPDATE grants SET ended_at = $1, end_reason = $2 WHERE user_id = $3 AND client_id = $4 AND ended_at IS NULL`, at, reason, w.UserID, w.ClientID)
		return int(n), err
	case w.ClientID != "":
		if _, err := t.exec(`UPDATE clients SET ending = $2 WHERE client_id = $1`, w.ClientID, ending); err != nil {
			return 0, err
		}
		if _, err := t.exec(`UPDATE consents SET ended_at = $1 WHERE client_id = $2`, at, w.ClientID); err != nil {
			return 0, err
		}
		n, err := t.exec(`UPDATE grants SET ended_at = $1, end_reason = $2 WHERE client_id = $3 AND ended_at IS NULL`, at, reason, w.ClientID)
		return int(n), err
	case w.UserID != "":
		if _, err := t.exec(`UPDATE users SET ending = $2 WHERE id = $1`, w.UserID, ending); err != nil {
			return 0, err
		}
		if _, err := t.exec(`UPDATE consents SET ended_at = $1 WHERE user_id = $2`, at, w.UserID); err != nil {
			return 0, err
		}
		n, err := t.exec(`UPDATE grants SET ended_at = $1, end_reason = $2 WHERE user_id = $3 AND ended_at IS NULL`, at, reason, w.UserID)
		return int(n), err
	}
	return 0, errors.New("a client or a user is required")
}
