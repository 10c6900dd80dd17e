package login

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bonafide-id/bonafide/internal/store"
)

// ErrName refuses a user name that nobody could type: empty, longer than 256
// bytes, with spaces around it or control characters in it.
var ErrName = fmt.Errorf("a user name has 1 to %d bytes, no control characters and no spaces around it", maxName)

// ErrEmail refuses an address that no provider would ever name, so that nobody
// would be linked by it: without a name, an @ and a domain, or with spaces in it.
var ErrEmail = errors.New("an email address reads like john@example.com")

// NewUser returns a new account, ready for store.AddUser; email may be "". The
// error is ErrName, ErrEmail or ErrPasswordLength.
func NewUser(name, email, password string, now time.Time) (store.User, error) {
	if name == "" || len(name) > maxName || strings.TrimSpace(name) != name || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return store.User{}, ErrName
	}
	if local, domain, ok := strings.Cut(email, "@"); email != "" && (!ok || local == "" || domain == "" || len(email) > maxName ||
		!utf8.ValidString(email) || strings.Contains(domain, "@") || strings.ContainsFunc(email, func(r rune) bool { return r == ' ' || !unicode.IsGraphic(r) })) {
		return store.User{}, ErrEmail
	}
	hash, err := HashPassword(password)
	if err != nil {
		return store.User{}, err
	}
	return store.User{ID: store.NewID(now), Name: name, Email: email, PasswordHash: hash, Created: now}, nil
}
