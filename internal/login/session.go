package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// sessionCookie holds 32 random bytes; the store knows their hash.
const sessionCookie = "session"

// Current returns the person who is signed in at this browser, or nil and no
// error when nobody is: no cookie, more than one (CN-13), a session that ended
// or was idle for too long, an account that was disabled (CN-19). A session that
// begins in the future was begun by a clock that has been put back since: it would
// be fresh for as long as the clock was ahead (AUTHZ-23, FA-11). An error is a
// failure of the store.
func (l *Login) Current(r *http.Request) (*User, error) {
	token := l.cfg.Edge.Cookie(r, sessionCookie)
	if token == "" {
		return nil, nil
	}
	now := l.cfg.Now()
	session, user, err := l.cfg.Store.FindSession(r.Context(), store.HashOf(token), now)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrExpired) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find session: %w", err)
	}
	if user.Disabled || !now.Before(l.ends(session.Created, session.LastSeen)) || session.Created.Sub(now) > store.ClockMargin {
		return nil, nil
	}
	if since := now.Sub(session.LastSeen); since >= l.touched || since < -store.ClockMargin {
		session.LastSeen, session.Expires = now, l.ends(session.Created, now)
		err := l.cfg.Store.SeeSession(r.Context(), session.Hash, session.LastSeen, session.Expires)
		if errors.Is(err, store.ErrNotFound) { // it ended a moment ago
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("note that the session was used: %w", err)
		}
	}
	return &User{session, user}, nil
}

// ends returns when a session ends that began at created and was last used at
// seen.
func (l *Login) ends(created, seen time.Time) time.Time {
	idle, absolute := seen.Add(l.cfg.Idle), created.Add(l.cfg.Absolute)
	if idle.Before(absolute) {
		return idle
	}
	return absolute
}

// authentication is how a person proved who they are.
type authentication struct {
	at  time.Time
	acr string
	amr []string
}

// start begins a session for user with a fresh secret, whatever the browser
// showed before (CN-12), and ends the one it had. Somebody who signs in again
// stays in the session that clients know; when somebody else signs in, the
// clients of the one before are told.
func (l *Login) start(w http.ResponseWriter, r *http.Request, user store.User, a authentication) error {
	before, err := l.Current(r)
	if err != nil {
		return err
	}
	if err := l.end(r.Context(), l.cfg.Edge.Cookie(r, sessionCookie)); err != nil {
		return err
	}
	now, sid := l.cfg.Now(), ""
	switch {
	case before == nil:
	case before.User.ID == user.ID:
		sid = before.Session.SID
	default:
		l.tell(r.Context(), before.Session.SID)
	}
	token := oauth.RandomToken(32)
	err = l.cfg.Store.StartSession(r.Context(), store.Session{
		Hash: store.HashOf(token), UserID: user.ID, SID: sid,
		AuthTime: a.at, Created: now, LastSeen: now, Expires: l.ends(now, now),
		ACR: a.acr, AMR: a.amr,
	})
	if err != nil {
		return fmt.Errorf("start session: %w", err)
	}
	l.cfg.Edge.SetCookie(w, sessionCookie, token, l.cfg.Absolute)
	return nil
}

// end ends the session behind a cookie value. None, or an unknown one, is fine.
func (l *Login) end(ctx context.Context, token string) error {
	if token == "" {
		return nil
	}
	if err := l.cfg.Store.EndSession(ctx, store.HashOf(token)); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}
