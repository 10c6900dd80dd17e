package login

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// attempt is what a person typed.
type attempt struct{ name, password string }

// maxName bounds a user name in bytes; a longer one belongs to nobody.
const maxName = 256

// errWrong says that the attempt failed, and nothing about why: an unknown name,
// a wrong password and a disabled account cost the same and look the same
// (CN-20).
var errWrong = errors.New("wrong user name or password")

// tooOften says that the attempt was not made.
type tooOften struct{ wait time.Duration }

func (e *tooOften) Error() string { return "too many attempts; wait " + e.wait.String() }

// device is the content of the device cookie.
type device struct {
	UserID string `json:"u"`
	ID     string `json:"d"`
}

// verify returns the account behind an attempt, or errWrong, or a *tooOften, or
// a refusal because too many sign in at once, or a failure of the store.
func (l *Login) verify(r *http.Request, a attempt) (store.User, error) {
	ctx, ip, now := r.Context(), web.ClientIP(r.Context()), l.cfg.Now()
	if d := l.limits.source(ip, now); d > 0 {
		return store.User{}, l.refused(r, "", "throttled", &tooOften{d})
	}
	user, err := l.find(r, a.name)
	if err != nil {
		return store.User{}, err
	}
	account, known := user.ID, ""
	if account == "" {
		account = "name " + fold(a.name)
	} else {
		known = l.device(r, user.ID)
	}
	if d := l.limits.account(account, known, ip, now); d > 0 {
		return store.User{}, l.refused(r, user.ID, "throttled", &tooOften{d})
	}
	leave, err := l.gate.enter(ctx)
	if err != nil {
		return store.User{}, err
	}
	defer leave()
	encoded := user.PasswordHash
	if encoded == "" {
		encoded = l.nobody
	}
	ok, err := CheckPassword(encoded, a.password)
	if err != nil {
		return store.User{}, fmt.Errorf("check the password of user %s: %w", user.ID, err)
	}
	if !ok || user.PasswordHash == "" || user.Disabled {
		l.limits.failed(ip, now)
		return store.User{}, l.refused(r, user.ID, "wrong", errWrong)
	}
	l.limits.succeeded(account, known, ip)
	return user, nil
}

// find returns the account of a name; the zero User when there is none.
func (l *Login) find(r *http.Request, name string) (store.User, error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > maxName {
		return store.User{}, nil
	}
	user, err := l.cfg.Store.UserByName(r.Context(), name)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, nil
	}
	if err != nil {
		return store.User{}, fmt.Errorf("find user: %w", err)
	}
	return user, nil
}

func fold(name string) string {
	return strings.ToLower(strings.TrimSpace(name[:min(len(name), maxName)]))
}

// refused notes a failed attempt and returns why.
func (l *Login) refused(r *http.Request, userID, code string, why error) error {
	l.note(r, userID, code, "POL-08")
	return why
}

// note writes the event of an attempt that led nowhere. What was typed is not
// noted: people type passwords into the wrong field.
func (l *Login) note(r *http.Request, userID, code, rule string) {
	l.cfg.Audit.Note(audit.Event{
		Time: l.cfg.Now(), Type: audit.TypeLoginFailed, Ref: web.Ref(r.Context()), User: userID,
		IP: web.ClientIP(r.Context()).String(), Code: code, Rule: rule,
	})
}

// device returns the identifier of this browser if somebody signed in to the
// account here before, or "".
func (l *Login) device(r *http.Request, userID string) string {
	var d device
	value := l.cfg.Edge.Cookie(r, deviceCookie)
	if value == "" || l.cfg.Sealer.Open(purposeDevice, value, l.cfg.Now(), &d) != nil || d.UserID != userID {
		return ""
	}
	return d.ID
}

// remember marks this browser as one where the account was signed in to.
func (l *Login) remember(w http.ResponseWriter, r *http.Request, user store.User, now time.Time) error {
	if l.device(r, user.ID) != "" {
		return nil
	}
	value, err := l.cfg.Sealer.Seal(purposeDevice, now.Add(deviceLife), device{user.ID, oauth.RandomToken(16)})
	if err != nil {
		return err
	}
	l.cfg.Edge.SetCookie(w, deviceCookie, value, deviceLife)
	return nil
}
