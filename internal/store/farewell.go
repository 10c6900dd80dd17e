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
// names of its sessions, and of each client one grant that was alive in each of
// them, whether it ended or goes on.
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
		if out.Grants, err = t.endGrantsIn(out.UserID, f.Reason, now); err != nil {
			return err
		}
		if out.SIDs, err = t.endSessions(out.UserID, now); err != nil {
			return err
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

// liveSessions are those of an account at a moment, by the names that clients know.
const liveSessions = `(SELECT s.sid FROM sessions s WHERE s.user_id = $1 AND s.ended_at IS NULL AND s.expires_at > $2)`

// endGrantsIn ends the grants of the sessions of an account but for those with
// offline_access, and returns one of each client in each session. An account
// can have any number of either: however many there are, they take the writer as
// many statements.
func (t *tx) endGrantsIn(userID, reason string, now time.Time) (grants []Grant, err error) {
	var told holders
	err = t.list(func(scan func(...any) error) error {
		var g grantRow
		err := scan(g.columns()...)
		told.add(g.Grant)
		return err
	}, `SELECT `+grantColumns+` FROM grants g WHERE g.sid IN `+liveSessions+` AND g.sid <> '' AND g.ended_at IS NULL`, userID, micros(now))
	if err != nil || len(told.grants) == 0 {
		return nil, err
	}
	_, err = t.exec(`UPDATE grants SET ended_at = $2, end_reason = $3 WHERE sid IN `+liveSessions+` AND sid <> '' AND ended_at IS NULL
		AND replace(' ' || scopes || ' ', ' `+oauth.ScopeOfflineAccess+` ', '') = ' ' || scopes || ' '`, userID, micros(now), reason)
	return told.grants, err
}

// holders collects one grant of each client in each session, the first that comes:
// who has come over and over is told once, and takes no room.
type holders struct {
	seen   map[holder]bool
	grants []Grant
}

type holder struct{ sid, client string }

func (h *holders) add(g Grant) {
	who := holder{g.SID, g.ClientID}
	if h.seen[who] {
		return
	}
	if h.seen == nil {
		h.seen = map[holder]bool{}
	}
	h.seen[who], h.grants = true, append(h.grants, g)
}
