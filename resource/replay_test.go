package resource

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestReplays(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	alice, bob := Token{Issuer: "https://as.test", Subject: "alice", ClientID: "app"}, Token{Issuer: "https://as.test", Subject: "bob", ClientID: "app"}
	proof := func(key, jti string) *jose.Proof { return &jose.Proof{JKT: key, JTI: jti, Issued: now} }
	// fill uses up as much as there is, each proof as whose says, and returns how many.
	fill := func(m *replays, most int, whose func(i int) (Token, string)) (n int) {
		for i := range most {
			who, key := whose(i)
			if m.use(who, proof(key, fmt.Sprint(key, i)), now) == proofNew {
				n++
			}
		}
		return n
	}
	t.Run("attack DP-08: the memory is bounded, each key has its part, and nothing is forgotten early", func(t *testing.T) {
		m := newReplays(8)
		var got []outcome
		for i := range 4 {
			got = append(got, m.use(alice, proof("a", fmt.Sprint(i)), now))
		}
		if want := []outcome{proofNew, proofNew, proofsFull, proofsFull}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if m.use(alice, proof("a", "0"), now) != proofUsed || m.use(bob, proof("b", "0"), now) != proofNew {
			t.Error("the fill of one key is felt by another, or a proof was forgotten")
		}
		if m.use(bob, proof("a", "0"), now) != proofUsed {
			t.Error("a proof is new with another token")
		}
		for i := range 100 {
			m.use(Token{Subject: fmt.Sprint(i)}, proof("c", oauth.RandomToken(4)), now)
		}
		if len(m.used) != 8 || m.use(Token{Subject: "last"}, proof("d", "x"), now) != proofsFull {
			t.Errorf("%d remembered", len(m.used))
		}
		now := now.Add(proofWindow + time.Second)
		if p := (&jose.Proof{JKT: "a", JTI: "0", Issued: now}); m.use(alice, p, now) != proofNew || m.use(alice, p, now) != proofUsed || len(m.used) != 1 || len(m.holders) != 3 {
			t.Errorf("after their time: %d, %d", len(m.used), len(m.holders))
		}
	})
	t.Run("attack DP-08: a proof is remembered until it is too old, to the nanosecond, and counts no longer", func(t *testing.T) {
		m := newReplays(0)
		end := now.Add(proofWindow)
		for at, want := range map[time.Time]outcome{end: proofUsed, end.Add(1): proofNew} {
			m.use(alice, proof("a", "0"), now)
			if got := m.use(alice, proof("a", "0"), at); got != want {
				t.Errorf("after %v: %v", at.Sub(now), got)
			}
		}
		if len(m.used) != 1 || len(m.holders) != 3 {
			t.Errorf("%d proofs of %d", len(m.used), len(m.holders))
		}
		for id, h := range m.holders {
			if h.n != 1 {
				t.Errorf("%x has %d", id[:4], h.n)
			}
		}
	})
	t.Run("attack DP-01: making room forgets nothing that could come again", func(t *testing.T) {
		m := newReplays(8) // two for a key
		m.use(alice, proof("a", "0"), now)
		m.use(alice, proof("a", "1"), now)
		for _, early := range []time.Duration{time.Minute, 0} {
			at := now.Add(proofWindow - early)
			if m.use(alice, proof("a", "2"), at) != proofsFull || m.swept != at {
				t.Errorf("%v early: there was room", early)
			}
			if m.use(alice, proof("a", "0"), at) != proofUsed {
				t.Errorf("%v early: it was forgotten", early)
			}
		}
	})
	t.Run("attack FA-11: a clock that was put back keeps nobody out for ever", func(t *testing.T) {
		m := newReplays(8)
		m.use(alice, proof("b", "0"), now) // makes room, and notes when
		back := now.Add(-time.Hour)
		earlier := func(jti string, at time.Time) *jose.Proof { return &jose.Proof{JKT: "a", JTI: jti, Issued: at} }
		m.use(alice, earlier("0", back), back)
		m.use(alice, earlier("1", back), back)
		later := back.Add(proofWindow + time.Second)
		if m.use(alice, earlier("2", later), later) != proofNew {
			t.Error("what has ended takes room until the clock is where it was")
		}
	})
	t.Run("attack DP-08: whatever keys and clients a user makes, others have room", func(t *testing.T) {
		const most = 4000
		for name, whose := range map[string]func(i int) (Token, string){
			"one key":        func(int) (Token, string) { return alice, "k" },
			"four keys":      func(i int) (Token, string) { return alice, fmt.Sprint("k", i%4) },
			"a key for each": func(i int) (Token, string) { return alice, fmt.Sprint("k", i) },
			"a client for each": func(i int) (Token, string) {
				return Token{Issuer: alice.Issuer, Subject: "alice", ClientID: fmt.Sprint("c", i)}, fmt.Sprint("k", i)
			},
		} {
			m := newReplays(most)
			took := fill(m, 2*most, whose)
			if took < most/4 || took > most/2 {
				t.Errorf("%s: took %d", name, took)
			}
			if n := fill(m, most, func(int) (Token, string) { return bob, "b" }); n < most/8 {
				t.Errorf("%s: left %d for the key of another", name, n)
			}
		}
	})
	t.Run("attack DP-08: a client of a user leaves room for the user's others, and a key for the client's", func(t *testing.T) {
		const most = 4000
		other := alice
		other.ClientID = "rogue"
		for name, whose := range map[string]func(i int) (Token, string){
			"one key":    func(int) (Token, string) { return other, "r" },
			"many keys":  func(i int) (Token, string) { return other, fmt.Sprint("r", i) },
			"own key":    func(int) (Token, string) { return alice, "r" },
			"own client": func(i int) (Token, string) { return alice, fmt.Sprint("r", i%3) },
		} {
			m := newReplays(most)
			fill(m, 2*most, whose)
			if n := fill(m, most, func(int) (Token, string) { return alice, "a" }); n < most/50 {
				t.Errorf("%s: left %d", name, n)
			}
		}
	})
	t.Run("attack DP-08: many who are greedy do not fill it either", func(t *testing.T) {
		const most = 4000
		m := newReplays(most)
		fill(m, 10*most, func(i int) (Token, string) {
			return Token{Issuer: "https://as.test", Subject: fmt.Sprint("g", i%20), ClientID: fmt.Sprint("c", i)}, fmt.Sprint("k", i)
		})
		if n := fill(m, most, func(int) (Token, string) { return bob, "b" }); n < most/100 {
			t.Errorf("left %d, %d are taken", n, len(m.used))
		}
	})
	t.Run("DPOP-01 a full share is told apart from a bad proof", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.DPoP.MaxProofs = 4 })
		key := newKey(t)
		token := w.bound(t, key)
		if rec := w.ask(withProof("DPoP", token, w.proof(t, key, token, nil))); rec.Code != 200 {
			t.Fatal(rec.Code)
		}
		rec := w.ask(withProof("DPoP", token, w.proof(t, key, token, nil)))
		if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || rec.Header().Get("WWW-Authenticate") != "" || w.seen != nil {
			t.Error(rec.Code, rec.Header())
		}
	})
	t.Run("attack DP-08: who fills the share of four keys is alone with it", func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.DPoP.MaxProofs = 64 })
		as := func(key jose.Private, user string) int {
			token := w.token(t, func(c map[string]any) {
				c["cnf"], c["sub"] = map[string]any{"jkt": key.Public().Thumbprint()}, user
			})
			return w.ask(withProof("DPoP", token, w.proof(t, key, token, nil))).Code
		}
		refused := 0
		for range 4 {
			key := newKey(t)
			for range 16 {
				if as(key, "greedy") == 503 {
					refused++
				}
			}
		}
		if refused == 0 {
			t.Error("it never ended")
		}
		for _, user := range []string{"alice", "bob", "carol"} {
			if status := as(newKey(t), user); status != 200 {
				t.Errorf("%s: %d", user, status)
			}
		}
	})
}
