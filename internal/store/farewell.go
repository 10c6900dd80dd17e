package store

import (
	"context"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/oauth"
)

// Farewell is the word of another issuer that somebody has signed out there. Spend
// is the identifier of the token that says so, Reason why the grants end.
type Farewell struct {
	Issuer, Tenant, Subject string
	Spend                   SpentID
	Reason                  string
}

// Departed is what ended with a farewell: the account, "" if none is linked, the
// names of its sessions, and every grant that was alive in them, those included
// that go on.
type Departed struct {
	UserID string
	SIDs   []string
	Grants []Grant
}

// SignOutIdentity takes a farewell: in one commit the token is spent, the sessions
// of the account end that is linked to the identity, and so do the grants that
// were given in them, but for those that are for when the person is away
// (offline_access; OpenID Connect Back-Channel Logout section 2.7). Either all of
// it happened or none of it, and the sender may come again. The events are about
// the account, and are recorded where there is one. ErrSpent: the token came
// before. An identity that is nobody here is no error.
func (s *Store) SignOutIdentity(ctx context.Context, f Farewell, now time.Time, events ...audit.Event) (Departed, error) {
	if f.Issuer == "" || f.Subject == "" {
		return Departed{}, errors.New("sign out identity: an issuer and a subject are required")
	}
	key := spentKey(f.Spend.Issuer, f.Spend.ID)
	var out Departed
	err := s.write(ctx, func(t *tx) error {
		out = Departed{} // a batch may be tried again
		if err := t.spendID(key, f.Spend.Expires, now); err != nil {
			return err
		}
		err := t.get([]any{&out.UserID}, `SELECT user_id FROM identities WHERE issuer = $1 AND tenant = $2 AND subject = $3`, f.Issuer, f.Tenant, f.Subject)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if out.SIDs, err = t.endSessions(out.UserID, now); err != nil {
			return err
		}
		for _, sid := range out.SIDs {
			grants, err := t.endGrantsIn(sid, f.Reason, now)
			if err != nil {
				return err
			}
			out.Grants = append(out.Grants, grants...)
		}
		about := make([]audit.Event, len(events))
		for i, e := range events {
			e.User, about[i] = out.UserID, e
		}
		return t.record(now, about...)
	})
	if err != nil {
		return Departed{}, wrap("sign out identity", err)
	}
	return out, nil
}

// endSessions ends the sessions of an account and returns their names.
func (t *tx) endSessions(userID string, now time.Time) (sids []string, err error) {
	err = t.list(func(scan func(...any) error) error {
		var sid string
		err := scan(&sid)
		sids = append(sids, sid)
		return err
	}, `UPDATE sessions SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 RETURNING sid`, userID, micros(now))
	return sids, err
}

// endGrantsIn ends the grants of a session but for those with offline_access, and
// returns all that were alive.
func (t *tx) endGrantsIn(sid, reason string, now time.Time) (grants []Grant, err error) {
	err = t.list(func(scan func(...any) error) error {
		var g grantRow
		err := scan(g.columns()...)
		grants = append(grants, g.Grant)
		return err
	}, `SELECT `+grantColumns+` FROM grants g WHERE g.sid = $1 AND g.sid <> '' AND g.ended_at IS NULL ORDER BY g.id`, sid)
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		if g.Scopes.Has(oauth.ScopeOfflineAccess) {
			continue
		}
		if _, err := t.exec(`UPDATE grants SET ended_at = $2, end_reason = $3 WHERE id = $1 AND ended_at IS NULL`, g.ID, micros(now), reason); err != nil {
			return nil, err
		}
	}
	return grants, nil
}
