package clientauth

import (
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// What one client may have remembered: the identifier of each assertion and each
// proof of possession takes a row until it has expired, ten minutes or so, and
// whoever holds the key can make as many as the store takes. So many at once and so
// many a second bound the rows of one client to about 120,000.
const (
	memoryAtOnce    = 50_000
	memoryPerSecond = 100
	memoryClients   = 8192 // whose use is known at a time

	// One attested installation of a client may take so much of that: whoever runs
	// the app on a computer of their own has such a key.
	instanceAtOnce    = memoryAtOnce / 10
	instancePerSecond = memoryPerSecond / 10
)

// memory counts what is remembered for each client, or for each installation of
// one. It is safe for concurrent use, and takes no more room than memoryClients
// need.
type memory struct {
	perSecond rate.Limit
	atOnce    int

	mu      sync.Mutex // guards clients
	clients map[[32]byte]*rate.Limiter
}

func newMemory(perSecond rate.Limit, atOnce int) *memory {
	return &memory{perSecond: perSecond, atOnce: atOnce, clients: map[[32]byte]*rate.Limiter{}}
}

// take counts one more for a client that has proven its key, or refuses and says
// when there is room again: who does not hold the key cannot use it up.
func (m *memory) take(client string, now time.Time) error {
	key := sha256.Sum256([]byte(client))
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.clients[key]
	if l == nil {
		m.makeRoom(now)
		l = rate.NewLimiter(m.perSecond, m.atOnce)
		m.clients[key] = l
	}
	if l.AllowN(now, 1) {
		return nil
	}
	return &web.Refusal{
		Err:    oauth.Refuse(oauth.TemporarilyUnavailable, "this client sent too many assertions; use access tokens until they expire, and try again in a second").Under("CAUTH-06"),
		Status: http.StatusTooManyRequests, RetryAfter: time.Second,
	}
}

// giveBack counts one less: what was taken was not remembered anew, because it was
// spent before. Whoever sends what somebody else's client has sent, over and over,
// uses up nothing of that client's.
func (m *memory) giveBack(client string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.clients[sha256.Sum256([]byte(client))]; l != nil {
		l.AllowN(now, -1)
	}
}

// makeRoom forgets, among a few, those who have used nothing lately, or else the
// one who has used least. The caller holds mu.
func (m *memory) makeRoom(now time.Time) {
	if len(m.clients) < memoryClients {
		return
	}
	var victim [32]byte
	most, looked := -1.0, 0
	for key, l := range m.clients {
		left := l.TokensAt(now)
		if left >= float64(m.atOnce) {
			delete(m.clients, key)
		} else if left > most {
			victim, most = key, left
		}
		if looked++; looked == 64 {
			break
		}
	}
	if len(m.clients) >= memoryClients {
		delete(m.clients, victim)
	}
}
