package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// Identity is who an account is at another issuer: subjects are unique within
// their issuer and tenant only. Tenant is "" for an issuer that has none.
type Identity struct {
	Issuer, Tenant, Subject, UserID, Email string
	Created, LastSeen                      time.Time

	// Sole is for LinkIdentity alone: it refuses an account that is somebody else
	// at this issuer and tenant already. An address can be given to the next person,
	// who must not inherit the account of the one before.
	Sole bool
}

// UserByIdentity returns the account that is linked to an identity elsewhere. All
// three parts are compared byte for byte. A disabled account is returned too.
func (s *Store) UserByIdentity(ctx context.Context, issuer, tenant, subject string) (User, error) {
	var u User
	err := s.get(ctx, u.columns(), `SELECT `+userColumns+` FROM identities i JOIN users u ON u.id = i.user_id
		WHERE i.issuer = $1 AND i.tenant = $2 AND i.subject = $3`, issuer, tenant, subject)
	if err != nil {
		return User{}, wrap("find identity", err)
	}
	return u, nil
}

// UserByEmail returns the one account with this address. A disabled account counts,
// and is returned, only where no other has the address. The letters A-Z are
// compared in any case, all others as they are: two addresses that only look alike
// are two. ErrNotFound: there is none. ErrConflict: several are not disabled, and
// none of them is meant for sure.
func (s *Store) UserByEmail(ctx context.Context, email string) (User, error) {
	if email == "" {
		return User{}, wrap("find user", ErrNotFound)
	}
	all, err := s.addressed(ctx, email, `AND u.disabled_at IS NULL `)
	if err == nil && len(all) == 0 {
		all, err = s.addressed(ctx, email, "")
		all = all[:min(1, len(all))]
	}
	switch {
	case err != nil:
		return User{}, wrap("find user", err)
	case len(all) == 0:
		return User{}, wrap("find user", ErrNotFound)
	case len(all) > 1:
		return User{}, wrap("find user", ErrConflict)
	}
	return all[0], nil
}

// addressed returns two of the accounts with an address, or those that there are.
func (s *Store) addressed(ctx context.Context, email, which string) (all []User, err error) {
	err = s.list(ctx, func(scan func(...any) error) error {
		var u User
		err := scan(u.columns()...)
		all = append(all, u)
		return err
	}, `SELECT `+userColumns+` FROM users u WHERE u.email_key = $1 AND u.email_key <> '' `+which+`ORDER BY u.id LIMIT 2`, emailKey(email))
	return all, err
}

// emailKey is how an address is looked up. Only A-Z change: other letters whose
// lower case is one of a-z would make another's address ours.
func emailKey(email string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, email)
}

// LinkIdentity links an identity elsewhere to the account UserID. With create that
// account is made in the same commit; UserID is its identifier. An identity that
// is linked to this account already is seen again: its address and the time are
// kept; a zero time is now. ErrConflict: it is linked to somebody else, or the name or
// identifier or address of the new account is taken, or the identity is to be the account's
// sole one and is not. ErrNotFound: there is no such account.
// ErrEnded: the account is disabled.
func (s *Store) LinkIdentity(ctx context.Context, id Identity, create *User, events ...audit.Event) error {
	if id.Issuer == "" || id.Subject == "" || id.UserID == "" {
		return errors.New("link identity: an issuer, a subject and an account are required")
	}
	if create != nil && (create.ID != id.UserID || create.Name == "") {
		return errors.New("link identity: the new account is the one to link, and has a name")
	}
	if id.LastSeen.IsZero() {
		id.LastSeen = s.now()
	}
	if id.Created.IsZero() {
		id.Created = id.LastSeen
	}
	return wrap("link identity", s.write(ctx, func(t *tx) error {
		if create != nil {
			if err := t.insertNewcomer(*create); err != nil {
				return err
			}
		}
		if err := t.userStands(id.UserID); err != nil {
			return err
		}
		if id.Sole {
			if err := t.noOther(id); err != nil {
				return err
			}
		}
		var one int
		err := t.get([]any{&one}, `INSERT INTO identities (issuer, tenant, subject, user_id, email, created_at, last_seen_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (issuer, tenant, subject) DO UPDATE
			SET email = excluded.email, last_seen_at = excluded.last_seen_at WHERE identities.user_id = excluded.user_id RETURNING 1`,
			id.Issuer, id.Tenant, id.Subject, id.UserID, id.Email, micros(id.Created), micros(id.LastSeen))
		if errors.Is(err, ErrNotFound) {
			err = ErrConflict
		}
		if err != nil {
			return err
		}
		return t.record(id.LastSeen, events...)
	}))
}

// insertNewcomer adds the account of somebody who comes from an issuer. Whoever
// asked saw no account with the address, and so one made meanwhile, from another
// issuer, is ErrConflict: an operator may give two accounts one address, but two
// first sign-ins may not.
func (t *tx) insertNewcomer(u User) error {
	if err := t.insertUser(u); err != nil || u.Email == "" {
		return err
	}
	var one int
	err := t.get([]any{&one}, `SELECT 1 FROM users WHERE email_key = $1 AND email_key <> '' AND id <> $2 LIMIT 1`, emailKey(u.Email), u.ID)
	return absent(err)
}

// absent is ErrConflict if a row that must not be there was found.
func absent(err error) error {
	switch {
	case err == nil:
		return ErrConflict
	case errors.Is(err, ErrNotFound):
		return nil
	}
	return err
}

// noOther returns ErrConflict if the account is somebody else at the issuer.
func (t *tx) noOther(id Identity) error {
	var one int
	err := t.get([]any{&one}, `SELECT 1 FROM identities WHERE user_id = $1 AND issuer = $2 AND tenant = $3 AND subject <> $4 LIMIT 1`,
		id.UserID, id.Issuer, id.Tenant, id.Subject)
	return absent(err)
}

// SessionGrants returns of each client the oldest grant that was given in a session
// and has not ended, oldest first: who has to be told when the session ends. sid is
// the name that clients know.
func (s *Store) SessionGrants(ctx context.Context, sid string) ([]Grant, error) {
	if sid == "" {
		return nil, nil
	}
	var told holders
	err := s.list(ctx, func(scan func(...any) error) error {
		var g grantRow
		err := scan(g.columns()...)
		told.add(g.Grant)
		return err
	}, `SELECT `+grantColumns+` FROM grants g WHERE g.sid = $1 AND g.sid <> '' AND g.ended_at IS NULL ORDER BY g.id`, sid)
	return told.grants, wrap("list grants of a session", err)
}

// EndSessionsOf ends all sessions of an account and returns the names by which
// clients know them. Grants go on.
func (s *Store) EndSessionsOf(ctx context.Context, userID string, now time.Time, events ...audit.Event) (sids []string, err error) {
	err = s.write(ctx, func(t *tx) (err error) {
		if sids, err = t.endSessions(userID, now); err != nil {
			return err
		}
		return t.record(now, events...)
	})
	if err != nil {
		return nil, wrap("end sessions", err)
	}
	return sids, nil
}

// list runs a statement to its end and calls each with a function that scans the
// current row.
func (t *tx) list(each func(scan func(...any) error) error, query string, args ...any) error {
	s, err := t.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(t.ctx, args...)
	if err != nil {
		t.did(query, false, err)
		return err
	}
	defer rows.Close()
	t.did(query, true, nil) // whatever it returns, it may have changed as much
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			t.did(query, false, err)
			return err
		}
	}
	err = rows.Err()
	t.did(query, false, err)
	return err
}
