package login

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// The cost of a password hash: argon2id with 2 passes over 19 MiB in one lane,
// the first choice of the OWASP password storage cheat sheet. A stored hash
// carries its own cost, so that these may rise without a migration.
const (
	passes   = 2
	memory   = 19 * 1024 // KiB
	lanes    = 1
	saltSize = 16
	keySize  = 32
)

// The length of a password in bytes. The floor applies to new passwords; the
// ceiling bounds the work of a stranger's attempt.
const (
	MinPassword = 8
	MaxPassword = 1024
)

// ErrPasswordLength refuses a new password that is too short or too long.
var ErrPasswordLength = fmt.Errorf("a password has %d to %d bytes", MinPassword, MaxPassword)

// HashPassword returns password as an argon2id hash in PHC string format:
// $argon2id$v=19$m=19456,t=2,p=1$salt$key. It costs about 34 ms and 19 MiB.
func HashPassword(password string) (string, error) {
	if len(password) < MinPassword || len(password) > MaxPassword {
		return "", ErrPasswordLength
	}
	h := phc{memory: memory, passes: passes, lanes: lanes, salt: make([]byte, saltSize)}
	rand.Read(h.salt)
	h.key = h.derive(password, keySize)
	return h.String(), nil
}

// CheckPassword reports whether password is the one behind an encoded hash. It
// compares in constant time. A hash that cannot be read is an error, not a
// wrong password.
func CheckPassword(encoded, password string) (bool, error) {
	h, err := parsePHC(encoded)
	if err != nil {
		return false, err
	}
	if len(password) > MaxPassword {
		return false, nil
	}
	return subtle.ConstantTimeCompare(h.derive(password, uint32(len(h.key))), h.key) == 1, nil
}

// phc is an argon2id hash taken apart.
type phc struct {
	memory, passes uint32
	lanes          uint8
	salt, key      []byte
}

// hashOfNobody returns a hash that no password has and that costs as much to
// check as a real one. Nothing is derived for it: a random key will do, and the
// start of the server does not wait for argon2.
func hashOfNobody() string {
	h := phc{memory: memory, passes: passes, lanes: lanes, salt: make([]byte, saltSize), key: make([]byte, keySize)}
	rand.Read(h.salt)
	rand.Read(h.key)
	return h.String()
}

func (h phc) derive(password string, size uint32) []byte {
	// One password has one spelling in bytes, whichever keyboard it came from.
	return argon2.IDKey(norm.NFC.Bytes([]byte(password)), h.salt, h.passes, h.memory, h.lanes, size)
}

func (h phc) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		h.memory, h.passes, h.lanes, b64.EncodeToString(h.salt), b64.EncodeToString(h.key))
}

var errHash = errors.New("not an argon2id hash in PHC string format, or its cost is out of bounds")

// parsePHC reads what String writes. The cost is bounded from above, so that a
// planted hash cannot take the memory of the machine.
func parsePHC(s string) (phc, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return phc{}, errHash
	}
	var h phc
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.lanes); err != nil {
		return phc{}, errHash
	}
	if h.passes < 1 || h.passes > 16 || h.lanes < 1 || h.lanes > 8 || h.memory < 8*uint32(h.lanes) || h.memory > 256*1024 {
		return phc{}, errHash
	}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	h.key, err2 = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(h.salt) < 8 || len(h.salt) > 64 || len(h.key) < 16 || len(h.key) > 64 {
		return phc{}, errHash
	}
	if h.String() != s { // one spelling only
		return phc{}, errHash
	}
	return h, nil
}
