package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

const benchClient = "https://mcpclient.example/oauth/metadata.json"

// seed gives the store one user with one session and one allowed client.
func seed(t testing.TB, s *Store) {
	t.Helper()
	ctx := context.Background()
	if err := s.AddUser(ctx, User{ID: "u1", Name: "John", Created: noon}); err != nil {
		t.Fatal(err)
	}
	if err := s.RegisterClient(ctx, Client{ID: benchClient}, noon); err != nil {
		t.Fatal(err)
	}
	if err := s.StartSession(ctx, Session{Hash: HashOf("session"), UserID: "u1", AuthTime: noon, Created: noon, Expires: noon.Add(24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
}

// refOf is what the nth refresh token of a family says of itself.
func refOf(name string, n int) RefreshRef {
	return RefreshRef{GrantID: fmt.Sprintf("%.13x", HashOf(name)), Generation: n, Family: HashOf("family " + name), Hash: HashOf(fmt.Sprint(name, "/", n))}
}

// tokenOf is the nth refresh token of a family as it is written.
func tokenOf(name string, n int) NewRefresh {
	ref := refOf(name, n)
	return NewRefresh{Hash: ref.Hash, Family: ref.Family}
}

// family makes a grant whose first refresh token is refOf(name, 1).
func family(t testing.TB, s *Store, name string) string {
	t.Helper()
	ctx := context.Background()
	a := Answer{Nonce: HashOf("nonce" + name), Session: HashOf("session"), NonceExpires: noon.Add(time.Hour),
		Grant: Grant{ID: refOf(name, 1).GrantID, UserID: "u1", ClientID: benchClient, Resource: "https://api.example/mcp", Scopes: []string{"read", "write"}, SecurityDigest: "digest", AuthTime: noon},
		Code:  Code{Hash: HashOf("code" + name), RedirectURI: "http://localhost/cb", Challenge: "c", Expires: noon.Add(time.Minute)}}
	seen, _ := s.Consent(ctx, a.Grant.UserID, a.Grant.ClientID, a.Grant.Resource)
	a.Endings = seen.Endings
	if err := s.AnswerConsent(ctx, a, noon); err != nil {
		t.Fatal(err)
	}
	first := tokenOf(name, 1)
	first.Expires, first.Absolute = noon.Add(14*24*time.Hour), noon.Add(90*24*time.Hour)
	if _, err := s.RedeemCode(ctx, Redemption{Hash: a.Code.Hash, Method: "none", Refresh: &first}, noon); err != nil {
		t.Fatal(err)
	}
	return a.Grant.ID
}

// BenchmarkFloor is the least a refresh could cost: one row written durably.
func BenchmarkFloor(b *testing.B) {
	s := open(b)
	seed(b, s)
	var n atomic.Int64
	b.SetParallelism(16) // 32 workers on two cores
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.write(context.Background(), func(t *tx) error {
				now := noon.Add(time.Duration(n.Add(1)) * time.Millisecond)
				return t.spendID(HashOf(now.String()), now, noon)
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(s.jobs.Load())/float64(s.commits.Load()), "jobs/commit")
}

// BenchmarkRefresh is what the token endpoint does for one refresh.
func BenchmarkRefresh(b *testing.B) { refreshes(b, open(b)) }

// BenchmarkRefreshPostgres is the same for one of several replicas.
func BenchmarkRefreshPostgres(b *testing.B) { refreshes(b, openPG(b)) }

func refreshes(b *testing.B, s *Store) {
	b.Helper()
	seed(b, s)
	var families atomic.Int64
	for i := range 64 {
		family(b, s, fmt.Sprint("f", i))
	}
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		name := fmt.Sprint("f", families.Add(1)-1)
		grace := make([]byte, 100)
		ctx, cancel := context.WithCancel(context.Background()) // as a request has
		defer cancel()
		for i := 1; pb.Next(); i++ {
			old, next := refOf(name, i), tokenOf(name, i+1)
			now := noon.Add(time.Duration(i) * time.Millisecond)
			_, g, err := s.FindRefresh(ctx, old, now)
			if err != nil {
				b.Fatal(err)
			}
			next.Expires = now.Add(14 * 24 * time.Hour)
			err = s.RotateRefresh(ctx, Rotation{Old: old, Grace: grace, New: next,
				Events: []audit.Event{{Type: audit.TypeRefresh, Client: g.ClientID, User: g.UserID, Grant: g.ID, Resource: g.Resource, IP: "192.0.2.1"}}}, now)
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(s.jobs.Load())/float64(s.commits.Load()), "jobs/commit")
}

func BenchmarkFindRefresh(b *testing.B) {
	s := open(b)
	seed(b, s)
	family(b, s, "f")
	ref := refOf("f", 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.FindRefresh(context.Background(), ref, noon); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPushRequestWhenFull is what a request costs that is refused because as
// many as may wait do: whoever sends them must not hold up the writer.
func BenchmarkPushRequestWhenFull(b *testing.B) {
	s := open(b)
	const most = 10_000
	if err := s.write(context.Background(), func(t *tx) error {
		for i := range most {
			if _, err := t.exec(`INSERT INTO pushed_requests (hash, client_id, request, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)`,
				HashOf(fmt.Sprint(i)), benchClient, make([]byte, 2000), micros(noon), micros(noon.Add(time.Minute))); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	p := Pushed{Hash: HashOf("one more"), ClientID: benchClient, Request: make([]byte, 2000), Created: noon, Expires: noon.Add(time.Minute)}
	for b.Loop() {
		if err := s.PushRequest(context.Background(), p, most); err == nil {
			b.Fatal("let in")
		}
	}
}
