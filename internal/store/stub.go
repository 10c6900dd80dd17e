package store

import (
	"context"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

var errSoon = errors.New("store: not built yet")

type Store struct{}

func Open(ctx context.Context, c Config) (*Store, error)                   { return nil, errSoon }
func (s *Store) Close() error                                              { return errSoon }
func (s *Store) Stats() Stats                                              { return Stats{} }
func (s *Store) AddUser(ctx context.Context, u User) error                 { return errSoon }
func (s *Store) UserByName(ctx context.Context, name string) (User, error) { return User{}, errSoon }
func (s *Store) UserByID(ctx context.Context, id string) (User, error)     { return User{}, errSoon }
func (s *Store) Users(ctx context.Context, after string, limit int) ([]User, error) {
	return nil, errSoon
}
func (s *Store) SetPassword(ctx context.Context, id, hash string, now time.Time) error {
	return errSoon
}
func (s *Store) DisableUser(ctx context.Context, id string, now time.Time) error { return errSoon }
func (s *Store) EnableUser(ctx context.Context, id string, now time.Time) error  { return errSoon }
func (s *Store) StartSession(ctx context.Context, ses Session) error             { return errSoon }
func (s *Store) FindSession(ctx context.Context, h Hash, now time.Time) (Session, User, error) {
	return Session{}, User{}, errSoon
}
func (s *Store) SeeSession(ctx context.Context, h Hash, seen, expires time.Time) error {
	return errSoon
}
func (s *Store) EndSession(ctx context.Context, h Hash) error          { return errSoon }
func (s *Store) Client(ctx context.Context, id string) (Client, error) { return Client{}, errSoon }
func (s *Store) Clients(ctx context.Context, after string, limit int) ([]Client, error) {
	return nil, errSoon
}
func (s *Store) RegisterClient(ctx context.Context, c Client, now time.Time) error { return errSoon }
func (s *Store) SetClientState(ctx context.Context, id, state, reason string, now time.Time) error {
	return errSoon
}
func (s *Store) LoadCache(ctx context.Context, key string) ([]byte, bool, error) {
	return nil, false, errSoon
}
func (s *Store) SaveCache(ctx context.Context, key, clientID string, entry []byte) error {
	return errSoon
}
func (s *Store) Document(ctx context.Context, clientID string) (Document, error) {
	return Document{}, errSoon
}
func (s *Store) Documents(ctx context.Context, clientID string, limit int) ([]Document, error) {
	return nil, errSoon
}
func (s *Store) Consent(ctx context.Context, userID, clientID, resource string) (Consent, error) {
	return Consent{}, errSoon
}
func (s *Store) AnswerConsent(ctx context.Context, a Answer, now time.Time) error { return errSoon }
func (s *Store) DenyConsent(ctx context.Context, nonce Hash, expires, now time.Time, events ...audit.Event) error {
	return errSoon
}
func (s *Store) FindCode(ctx context.Context, h Hash, now time.Time) (Code, error) {
	return Code{}, errSoon
}
func (s *Store) RedeemCode(ctx context.Context, r Redemption, now time.Time) (Grant, error) {
	return Grant{}, errSoon
}
func (s *Store) FindRefresh(ctx context.Context, h Hash, now time.Time) (Refresh, Grant, error) {
	return Refresh{}, Grant{}, errSoon
}
func (s *Store) RotateRefresh(ctx context.Context, r Rotation, now time.Time) error { return errSoon }
func (s *Store) RevokeGrant(ctx context.Context, grantID, reason string, now time.Time, events ...audit.Event) error {
	return errSoon
}
func (s *Store) RevokeUserClient(ctx context.Context, userID, clientID string, now time.Time, events ...audit.Event) error {
	return errSoon
}
func (s *Store) EndGrantsOf(ctx context.Context, w Whose, reason string, now time.Time, events ...audit.Event) (int, error) {
	return 0, errSoon
}
func (s *Store) GrantActive(ctx context.Context, grantID string) (Grant, error) {
	return Grant{}, errSoon
}
func (s *Store) Grants(ctx context.Context, userID, after string, limit int) ([]Grant, error) {
	return nil, errSoon
}
func (s *Store) DenyToken(ctx context.Context, jti string, expires time.Time, events ...audit.Event) error {
	return errSoon
}
func (s *Store) TokenDenied(ctx context.Context, jti string) (bool, error) { return false, errSoon }
func (s *Store) SpendID(ctx context.Context, issuer string, id Hash, expires, now time.Time) error {
	return errSoon
}
func (s *Store) SigningKeys(ctx context.Context) ([]SigningKey, error) { return nil, errSoon }
func (s *Store) AddSigningKey(ctx context.Context, key SigningKey, expectNewest string) error {
	return errSoon
}
func (s *Store) RetireSigningKey(ctx context.Context, kid string, at time.Time) error { return errSoon }
func (s *Store) AppendEvents(ctx context.Context, events ...audit.Event) error        { return errSoon }
func (s *Store) Events(ctx context.Context, q EventQuery) ([]audit.Event, error)      { return nil, errSoon }
func (s *Store) Prune(ctx context.Context, now time.Time) (n int, err error)          { return 0, errSoon }
