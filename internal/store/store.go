// Package store keeps what must survive a restart. Its methods are verbs, not
// rows: each is one atomic change with its security meaning in its name, and
// each is durable before it returns. What an attacker could use arrives hashed
// (HashOf) and time is always an argument. Consumers declare the few methods
// they may call as an interface of their own; that list is a permission
// statement. The contract that every engine keeps is in storetest.
//
// The facts a caller may have to branch on are ErrNotFound, ErrSpent,
// ErrExpired, ErrConflict, ErrEnded, ErrBlocked, ErrBusy and ErrTooFast. Any other error means that
// the store could not answer, which must never be read as "there is none"
// (URL-15). One that has a method Unavailable is of a database that is away, full
// or too slow: the same call may succeed a little later.
//
// The database is a file of SQLite for one process, or PostgreSQL for any number
// of replicas. Replicas share nothing else, and what one committed the others see
// in their next call.
package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"log/slog"
	"time"
)

// The facts. They may arrive wrapped: use errors.Is.
var (
	ErrNotFound = errors.New("store: no such row")
	ErrSpent    = errors.New("store: already used once")
	ErrExpired  = errors.New("store: expired")
	ErrConflict = errors.New("store: somebody else was faster")
	ErrEnded    = errors.New("store: the grant or session has ended or its user is disabled")
	ErrBlocked  = errors.New("store: the client is not allowed")
	ErrBusy     = errors.New("store: as many as may wait at once do")
	ErrTooFast  = errors.New("store: asked again before its time")
)

// ErrClosed is returned by every method once Close was called.
var ErrClosed = errors.New("store: closed")

// Of a store that cannot answer now. What they do not say is whether a change
// whose commit got no answer stands: who calls again finds out.
var (
	errCrowded = errors.New("store: too many changes wait for their turn")
	errOutcome = errors.New("store: the connection was lost during the commit, which may stand or not")
)

// Hash is the SHA-256 of a secret. Only the hash is ever kept (TOK-23).
type Hash [sha256.Size]byte

// HashOf returns the hash under which a secret is kept.
func HashOf(secret string) Hash { return sha256.Sum256([]byte(secret)) }

// Config says where the data is.
type Config struct {
	Path   string           // an SQLite file, created with mode 0600 if it is missing, or a postgres:// address
	Logger *slog.Logger     // told about retries and slow commits; default slog.Default()
	Now    func() time.Time // default time.Now; only for verbs that take no time

	Readers int // connections for reading; default 6
	Queue   int // changes that may wait for the writer; default 1024
}

// Shared reports whether the path names a database that several replicas may
// use at once.
func Shared(path string) bool { return isPostgres(path) }

// Stats counts what the writer did since Open.
type Stats struct {
	Queued  int    // changes waiting now
	Jobs    uint64 // changes carried out
	Commits uint64 // transactions they took
	Retries uint64 // transactions that had to be run again
}

// idEncoding keeps the order of the bytes in the order of the text.
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// NewID returns a fresh identifier of 26 characters: the time in milliseconds,
// then 80 random bits. Identifiers made later sort later.
func NewID(now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:]) // never fails since Go 1.24
	return idEncoding.EncodeToString(b[:])
}
