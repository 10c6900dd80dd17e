package resource

import (
	"crypto/sha256"
	"errors"
	"sync"
	"time"
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
// forgets nothing before its time: when it is full, what is new is refused.
type replays struct {
	most, perKey int

	mu    sync.Mutex // guards the fields below
	used  map[[32]byte]int64
	keys  map[string]*share
	swept time.Time
}

// share is what one key has in the memory: the ends of its proofs, in no order.
type share struct{ ends []int64 }

func newReplays(most int) *replays {
	if most <= 0 {
		most = 200_000
	}
	return &replays{most: most, perKey: max(most/4, 1), used: map[[32]byte]int64{}, keys: map[string]*share{}}
}

// use remembers the jti of a key until a proof with it would be too old.
func (m *replays) use(key, jti string, until, now time.Time) outcome {
	id := sha256.Sum256([]byte(key + " " + jti)) // a thumbprint holds no space
	m.mu.Lock()
	defer m.mu.Unlock()
	if end, ok := m.used[id]; ok && now.UnixNano() <= end {
		return proofUsed
	}
	s := m.keys[key]
	if len(m.used) >= m.most || s != nil && len(s.ends) >= m.perKey || now.Sub(m.swept) > proofWindow {
		m.sweep(now)
		s = m.keys[key]
	}
	if len(m.used) >= m.most || s != nil && len(s.ends) >= m.perKey {
		return proofsFull
	}
	if s == nil {
		s = &share{}
		m.keys[key] = s
	}
	m.used[id] = until.UnixNano()
	s.ends = append(s.ends, until.UnixNano())
	return proofNew
}

// sweep drops what has ended, at most once a second: a caller who has filled his
// share must not make everybody wait. The caller holds mu.
func (m *replays) sweep(now time.Time) {
	if since := now.Sub(m.swept); since >= 0 && since < time.Second {
		return
	}
	m.swept = now
	at := now.UnixNano()
	for id, end := range m.used {
		if end < at {
			delete(m.used, id)
		}
	}
	for key, s := range m.keys {
		live := s.ends[:0]
		for _, end := range s.ends {
			if end >= at {
				live = append(live, end)
			}
		}
		if s.ends = live; len(live) == 0 {
			delete(m.keys, key)
		}
	}
}
