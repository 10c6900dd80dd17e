package token

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
)

// A refresh token says where it stands, so that the store keeps one row for a
// family instead of one for each token (TOK-12): 128 bits that all tokens of the
// family share, its generation, 256 bits of its own, and the name of the grant,
// in base64url. Whoever knows only some of it has nothing: the family's part tells
// a spent token that comes back from one that somebody made up, and only the hash
// of the whole newest token is good for anything.
const (
	familySize = 16
	ownAt      = familySize + 4
	grantAt    = ownAt + 32
	grantMost  = 64
)

// FirstRefresh returns the first refresh token of a grant, and how the store keeps
// it (TOK-14).
func FirstRefresh(grantID string, expires, absolute time.Time) (string, store.NewRefresh) {
	var family [familySize]byte
	rand.Read(family[:])
	token := refreshOf(family[:], 1, grantID)
	return token, newRefresh(token, expires, absolute)
}

// successor returns the token that follows another of its family. One that says
// nothing of itself begins the family that its successors share.
func successor(old string, ref store.RefreshRef) string {
	raw := splitRefresh(old)
	if raw == nil {
		raw = make([]byte, familySize)
		rand.Read(raw)
	}
	return refreshOf(raw[:familySize], ref.Generation+1, ref.GrantID)
}

func refreshOf(family []byte, generation int, grantID string) string {
	raw := make([]byte, grantAt, grantAt+len(grantID))
	copy(raw, family)
	binary.BigEndian.PutUint32(raw[familySize:], uint32(generation))
	rand.Read(raw[ownAt:grantAt])
	return base64.RawURLEncoding.EncodeToString(append(raw, grantID...))
}

// splitRefresh returns the octets of a refresh token that says where it stands;
// nil for any other text. They are written in one way only.
func splitRefresh(token string) []byte {
	if n := base64.RawURLEncoding.DecodedLen(len(token)); n <= grantAt || n > grantAt+grantMost {
		return nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token) // which passes over line breaks
	if err != nil || strings.ContainsAny(token, "\r\n") || strings.IndexFunc(string(raw[grantAt:]), notInID) >= 0 {
		return nil
	}
	return raw
}

// notInID reports whether no identifier of a grant has this letter: a database
// need not take every text.
func notInID(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'z') }

// refreshRef returns what a refresh token says of itself. Of any other text it is
// the hash alone, under which a token from before may be kept.
func refreshRef(token string) store.RefreshRef {
	ref := store.RefreshRef{Hash: store.HashOf(token)}
	if raw := splitRefresh(token); raw != nil {
		ref.Family = store.HashOf(string(raw[:familySize]))
		ref.Generation = int(binary.BigEndian.Uint32(raw[familySize:]))
		ref.GrantID = string(raw[grantAt:])
	}
	return ref
}

// newRefresh is how the store keeps a refresh token.
func newRefresh(token string, expires, absolute time.Time) store.NewRefresh {
	ref := refreshRef(token)
	return store.NewRefresh{Hash: ref.Hash, Family: ref.Family, Expires: expires, Absolute: absolute}
}
