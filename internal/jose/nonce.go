package jose

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// Nonces makes and recognises values that only we can have given out, and keeps
// none of them: each is a time and a MAC over it, so that all replicas with the
// same key agree (RFC 9449 sections 8 and 9). It is safe for
// concurrent use.
type Nonces struct {
	key    [32]byte
	window time.Duration
}

// NewNonces returns nonces under a key. A nonce is good for one to two windows.
// A window of 0 is two minutes and a half.
func NewNonces(key [32]byte, window time.Duration) *Nonces {
	if window <= 0 {
		window = 150 * time.Second
	}
	return &Nonces{key: key, window: window}
}

// RandomNonces is NewNonces under a fresh key, for one process.
func RandomNonces(window time.Duration) *Nonces {
	var key [32]byte
	rand.Read(key[:])
	return NewNonces(key, window)
}

// At returns the DPoP nonce to hand out at a time: the same for everyone within
// a window, because what happens once is decided by the jti of the proof.
func (n *Nonces) At(now time.Time) string {
	return n.seal("dpop nonce", n.number(now), nil)
}

// Good reports whether nonce is the one of this window or of the one before. The
// one of the next is good as well: another replica's clock may be ahead.
func (n *Nonces) Good(nonce string, now time.Time) bool {
	at := n.number(now)
	ok := false
	for _, w := range []uint64{at, at - 1, at + 1} {
		ok = hmac.Equal([]byte(nonce), []byte(n.seal("dpop nonce", w, nil))) || ok
	}
	return ok
}

// Challenge returns a value that nobody was given before, good for two windows.
func (n *Nonces) Challenge(now time.Time) string {
	var once [16]byte
	rand.Read(once[:])
	return n.seal("challenge", uint64(now.Unix()), once[:])
}

// Challenged reports whether a challenge is ours and not too old, and until when
// it is: whoever lets it in once has to remember it so long.
func (n *Nonces) Challenged(challenge string, now time.Time) (until time.Time, ok bool) {
	raw, err := decode(challenge)
	if err != nil || len(raw) != 8+16+sha256.Size {
		return time.Time{}, false
	}
	made := binary.BigEndian.Uint64(raw)
	if !hmac.Equal([]byte(challenge), []byte(n.seal("challenge", made, raw[8:24]))) {
		return time.Time{}, false
	}
	from := time.Unix(int64(made), 0)
	until = from.Add(2 * n.window)
	return until, now.Before(until) && !from.After(now.Add(n.window))
}

func (n *Nonces) number(now time.Time) uint64 { return uint64(now.UnixNano() / int64(n.window)) }

// seal writes a number and some octets with their MAC, each purpose apart.
func (n *Nonces) seal(purpose string, number uint64, rest []byte) string {
	body := binary.BigEndian.AppendUint64(nil, number)
	body = append(body, rest...)
	mac := hmac.New(sha256.New, n.key[:])
	mac.Write([]byte(purpose + "\x00"))
	mac.Write(body)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(body))
}
