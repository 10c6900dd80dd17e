package login

import (
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

// NewUser returns a new account, ready for store.AddUser. The error is ErrName
// or ErrPasswordLength.
func NewUser(name, email, password string, now time.Time) (store.User, error) {
	if name == "" || len(name) > maxName || strings.TrimSpace(name) != name || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return store.User{}, ErrName
	}
	hash, err := HashPassword(password)
	if err != nil {
		return store.User{}, err
	}
	return store.User{ID: store.NewID(now), Name: name, Email: email, PasswordHash: hash, Created: now}, nil
}
