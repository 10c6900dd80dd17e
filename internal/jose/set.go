package jose

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Set is a JWK Set (RFC 7517 section 5) reduced to the keys that can be used.
type Set struct {
	Keys    []Key
	Dropped []Dropped // the others, for a hint to the owner
}

// Dropped is a key that was left out of a Set.
type Dropped struct {
	Index  int    // position in the published array
	KID    string // as published; "" if absent, too long or not a string
	Reason string // our words; quotes nothing of the key
}

// SetLimits bounds what is read. Zero fields mean 32 KiB and 16 keys.
type SetLimits struct {
	MaxBytes, MaxKeys int
}

// ParseSet reads a key set that its owner wrote into a document. Private or
// symmetric key material anywhere in it refuses the whole set with
// ErrPrivateKey (CIMD, restrictions on keys). Keys that are weak, unknown or
// not for signatures are dropped one by one, so that the result may be empty.
// Other errors mean that raw is no key set within the limits.
func ParseSet(raw []byte, lim SetLimits) (Set, error) {
	s, err := parseSet(raw, lim)
	if err != nil {
		return Set{}, err
	}
	if slices.ContainsFunc(s.Dropped, func(d Dropped) bool { return d.Reason == ErrPrivateKey.Error() }) {
		return Set{}, ErrPrivateKey
	}
	return s, nil
}

// ParseRemoteSet reads a key set that came from a jwks_uri. It is ParseSet but
// for private and symmetric keys, which are dropped like any other bad key: a
// slip in a set that changes by itself must not lock the client out.
func ParseRemoteSet(raw []byte, lim SetLimits) (Set, error) {
	return parseSet(raw, lim)
}

func parseSet(raw []byte, lim SetLimits) (Set, error) {
	if lim.MaxBytes == 0 {
		lim.MaxBytes = 32 << 10
	}
	if lim.MaxKeys == 0 {
		lim.MaxKeys = 16
	}
	if len(raw) > lim.MaxBytes {
		return Set{}, fmt.Errorf("key set is larger than %d bytes", lim.MaxBytes)
	}
	top, err := Object(raw)
	if err != nil {
		return Set{}, fmt.Errorf("read key set: %w", err)
	}
	if top["keys"] == nil {
		if j, _ := readJWK(raw); j.private {
			return Set{}, ErrPrivateKey // somebody pasted a bare private key
		}
		return Set{}, errors.New("key set has no member keys")
	}
	list, err := elements(top["keys"])
	if err != nil {
		return Set{}, errors.New("keys is not an array")
	}
	if len(list) > lim.MaxKeys {
		return Set{}, fmt.Errorf("key set has more than %d keys", lim.MaxKeys)
	}
	var s Set
	for i, raw := range list {
		j, err := readJWK(raw)
		if err == nil || j.private {
			var k Key
			if k, err = j.key(); err == nil {
				s.Keys = append(s.Keys, k)
				continue
			}
		}
		d := Dropped{Index: i, KID: j.kid, Reason: err.Error()}
		if len(d.KID) > maxKID {
			d.KID = ""
		}
		s.Dropped = append(s.Dropped, d)
	}
	return s, nil
}

// Find returns the key for a token with this kid and alg in its header. With a
// kid the key has to carry the same; without one there has to be exactly one
// key that fits alg. Several keys are ErrAmbiguous unless they are one and the
// same, none is ErrNoKey.
func (s Set) Find(kid, alg string) (Key, error) {
	var found Key
	for _, k := range s.Keys {
		if kid != "" && k.kid != kid || !k.Fits(alg) {
			continue
		}
		if found.pub != nil && found.thumb != k.thumb {
			return Key{}, ErrAmbiguous
		}
		found = k
	}
	if found.pub == nil {
		return Key{}, ErrNoKey
	}
	return found, nil
}

// MarshalSet returns the keys as a JWK Set, each with kid, alg where declared,
// and use "sig".
func MarshalSet(keys ...Key) ([]byte, error) {
	list := make([]json.RawMessage, len(keys))
	for i, k := range keys {
		raw, err := k.MarshalJSON()
		if err != nil {
			return nil, err
		}
		list[i] = raw
	}
	return json.Marshal(map[string]any{"keys": list})
}
