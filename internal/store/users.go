package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

const userColumns = `u.id, u.name, u.email, u.password_hash, u.disabled_at IS NOT NULL, u.created_at`

func (u *User) columns() []any {
	return []any{&u.ID, &u.Name, &u.Email, &u.PasswordHash, &u.Disabled, instant{&u.Created}}
}

// AddUser adds an account. ErrConflict means that the identifier or the name, in
// any case, is taken.
func (s *Store) AddUser(ctx context.Context, u User) error {
	if u.ID == "" || u.Name == "" {
		return errors.New("add user: an identifier and a name are required")
	}
	return wrap("add user", s.write(ctx, func(t *tx) error { return t.insertUser(u) }))
}

// insertUser adds an account and records it.
func (t *tx) insertUser(u User) error {
	n, err := t.exec(`INSERT INTO users (id, name, name_key, email, email_key, password_hash, disabled_at, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
		u.ID, u.Name, strings.ToLower(u.Name), u.Email, emailKey(u.Email), u.PasswordHash, disabledAt(u), micros(u.Created))
	if err != nil {
		return err
	}
	if n == 0 {
		return ErrConflict
	}
	return t.record(u.Created, audit.Event{Type: audit.TypeUser, User: u.ID, Code: "added", Data: map[string]string{"name": u.Name}})
}

func disabledAt(u User) any {
	if u.Disabled {
		return micros(u.Created)
	}
	return nil
}

// UserByName returns the account that a person names at sign-in, in any case of
// letters. A disabled account is returned too.
func (s *Store) UserByName(ctx context.Context, name string) (User, error) {
	var u User
	err := s.get(ctx, u.columns(), `SELECT `+userColumns+` FROM users u WHERE u.name_key = $1`, strings.ToLower(name))
	return u, wrap("find user", err)
}

// UserByID returns an account. A disabled account is returned too.
func (s *Store) UserByID(ctx context.Context, id string) (User, error) {
	var u User
	err := s.get(ctx, u.columns(), `SELECT `+userColumns+` FROM users u WHERE u.id = $1`, id)
	return u, wrap("find user", err)
}

// Users returns accounts in the order of their identifiers, starting behind
// after. The limit is 100 by default and 1000 at most.
func (s *Store) Users(ctx context.Context, after string, limit int) ([]User, error) {
	var out []User
	err := s.list(ctx, func(scan func(...any) error) error {
		var u User
		err := scan(u.columns()...)
		out = append(out, u)
		return err
	}, `SELECT `+userColumns+` FROM users u WHERE u.id > $1 ORDER BY u.id LIMIT $2`, after, bound(limit, 100, 1000))
	return out, wrap("list users", err)
}

// SetPassword changes a password. In the same commit every session and every
// grant of the account ends, and what it agreed to is forgotten: whoever knew
// the old password keeps nothing (TOK-14).
func (s *Store) SetPassword(ctx context.Context, id, hash string, now time.Time) error {
	return wrap("set password", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE users SET password_hash = $2 WHERE id = $1`, id, hash)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		return t.endUser(id, "password_changed", now)
	}))
}

// DisableUser disables an account and ends its sessions, grants and remembered
// consents in the same commit. It may be called again.
func (s *Store) DisableUser(ctx context.Context, id string, now time.Time) error {
	return wrap("disable user", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE users SET disabled_at = COALESCE(disabled_at, $2) WHERE id = $1`, id, micros(now))
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		return t.endUser(id, "user_disabled", now)
	}))
}

// EnableUser lets a disabled account sign in again. What ended stays ended.
func (s *Store) EnableUser(ctx context.Context, id string, now time.Time) error {
	return wrap("enable user", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE users SET disabled_at = NULL WHERE id = $1`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		return t.record(now, audit.Event{Type: audit.TypeUser, User: id, Code: "user_enabled"})
	}))
}

// endUser ends all that an account has running and records why.
func (t *tx) endUser(id, why string, now time.Time) error {
	if _, err := t.exec(`UPDATE sessions SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL`, id, micros(now)); err != nil {
		return err
	}
	n, err := t.endGrants(Whose{UserID: id}, why, now)
	if err != nil {
		return err
	}
	return t.record(now, audit.Event{Type: audit.TypeUser, User: id, Code: why, Data: map[string]string{"grants_ended": fmt.Sprint(n)}})
}

// StartSession keeps a new session of an account that is not disabled; else it
// returns ErrNotFound.
func (s *Store) StartSession(ctx context.Context, ses Session) error {
	lists, err := join(ses.AMR)
	if err != nil {
		return wrap("start session", err)
	}
	if ses.SID == "" {
		ses.SID = NewID(ses.Created)
	}
	return wrap("start session", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`INSERT INTO sessions (hash, user_id, auth_time, created_at, last_seen_at, expires_at, acr, amr, sid)
			SELECT $1, u.id, $3, $4, $5, $6, $7, $8, $9 FROM users u WHERE u.id = $2 AND u.disabled_at IS NULL`,
			ses.Hash, ses.UserID, micros(ses.AuthTime), micros(ses.Created), micros(ses.LastSeen), micros(ses.Expires), ses.ACR, lists[0], ses.SID)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	}))
}

// FindSession returns a session and its account. ErrNotFound means that there is
// none, that it has ended or expired, or that the account is disabled.
func (s *Store) FindSession(ctx context.Context, h Hash, now time.Time) (Session, User, error) {
	var ses Session
	var u User
	err := s.get(ctx, append([]any{&ses.Hash, &ses.UserID, instant{&ses.AuthTime}, instant{&ses.Created}, instant{&ses.LastSeen},
		instant{&ses.Expires}, &ses.ACR, words{&ses.AMR}, &ses.SID}, u.columns()...),
		`SELECT s.hash, s.user_id, s.auth_time, s.created_at, s.last_seen_at, s.expires_at, s.acr, s.amr, s.sid, `+userColumns+`
		FROM sessions s JOIN users u ON u.id = s.user_id
		WHERE s.hash = $1 AND s.ended_at IS NULL AND s.expires_at > $2 AND u.disabled_at IS NULL`, h, micros(now))
	if err != nil {
		return Session{}, User{}, wrap("find session", err)
	}
	return ses, u, nil
}

// SeeSession records that a session was used and moves its expiry. ErrNotFound
// means that it has ended.
func (s *Store) SeeSession(ctx context.Context, h Hash, seen, expires time.Time) error {
	return wrap("see session", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE sessions SET last_seen_at = $2, expires_at = $3 WHERE hash = $1 AND ended_at IS NULL AND expires_at > $2`,
			h, micros(seen), micros(expires))
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	}))
}

// EndSession ends a session. Ending one that is not there is no error.
func (s *Store) EndSession(ctx context.Context, h Hash) error {
	return wrap("end session", s.write(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE sessions SET ended_at = $2 WHERE hash = $1 AND ended_at IS NULL`, h, micros(s.now()))
		return err
	}))
}
