package resource

import (
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
)

var errShortKey = errors.New("the key for nonces needs at least 16 octets")

// outcome is what replays says about a proof.
type outcome int

const (
	proofNew outcome = iota
	proofUsed
	proofsFull
)

// replays remembers the proofs that were used, until they are too old anyway. It
// forgets nothing before its time: what there is no room for is refused. Nobody
// may have more than what is left then, neither a user, nor one of a user's
// clients of what the user may have, nor one of a client's keys of that. So who
// takes much leaves as much to the next one, whatever keys and clients he makes
// for it.
type replays struct {
	most int

	mu      sync.Mutex // guards the fields below
	used    map[[32]byte]spent
	holders map[[32]byte]*holder
	swept   time.Time
}

// spent is a proof that was used.
type spent struct {
	end int64 // when it is too old anyway, in nanoseconds
	by  *holder
}

// holder is a user, a client of a user, or a key of that, with something in the
// memory.
type holder struct {
	id [32]byte
	n  int     // proofs
	of *holder // whose it is; nil for a user
}

func newReplays(most int) *replays {
	if most <= 0 {
		most = 200_000
	}
	return &replays{most: most, used: map[[32]byte]spent{}, holders: map[[32]byte]*holder{}}
}

// use remembers the jti of a proof that came with a token until a proof with it
// would be too old.
func (m *replays) use(t Token, p *jose.Proof, now time.Time) outcome {
	id := sha256.Sum256([]byte(p.JKT + " " + p.JTI)) // a thumbprint holds no space
	until := p.Issued.Add(proofWindow).UnixNano()
	whose := owners(t, p.JKT)
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.used[id]; ok {
		if now.UnixNano() <= old.end {
			return proofUsed
		}
		m.drop(id, old)
	}
	if now.Sub(m.swept) > proofWindow || !m.fits(whose) {
		m.sweep(now)
	}
	if !m.fits(whose) {
		return proofsFull
	}
	m.used[id] = spent{until, m.hold(whose)}
	return proofNew
}

// owners names the user, the client and the key behind a proof.
func owners(t Token, jkt string) (ids [3][32]byte) {
	ids[0] = sha256.Sum256([]byte(t.User()))
	for i, name := range []string{t.ClientID, jkt} {
		ids[i+1] = sha256.Sum256(append(ids[i][:], name...))
	}
	return ids
}

// fits reports whether there is room for one more. The caller holds mu.
func (m *replays) fits(whose [3][32]byte) bool {
	left := m.most - len(m.used)
	for _, id := range whose {
		n := 0
		if h := m.holders[id]; h != nil {
			n = h.n
		}
		if n >= left {
			return false
		}
		left -= n
	}
	return true
}

// hold counts one more proof. The caller holds mu.
func (m *replays) hold(whose [3][32]byte) (h *holder) {
	for _, id := range whose {
		next := m.holders[id]
		if next == nil {
			next = &holder{id: id, of: h}
			m.holders[id] = next
		}
		next.n++
		h = next
	}
	return h
}

// sweep drops what has ended, at most once a second: a caller who has filled his
// share must not make everybody wait. The caller holds mu.
func (m *replays) sweep(now time.Time) {
	if since := now.Sub(m.swept); since >= 0 && since < time.Second {
		return
	}
	m.swept = now
	at := now.UnixNano()
	for id, p := range m.used {
		if p.end < at {
			m.drop(id, p)
		}
	}
}

// drop forgets a proof. The caller holds mu.
func (m *replays) drop(id [32]byte, p spent) {
	delete(m.used, id)
	for h := p.by; h != nil; h = h.of {
		if h.n--; h.n == 0 {
			delete(m.holders, h.id)
		}
	}
}
