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

// family makes a grant whose first refresh token is HashOf(name + "/1").
func family(t testing.TB, s *Store, name string) string {
	t.Helper()
	ctx := context.Background()
	a := Answer{Nonce: HashOf("nonce" + name), Session: HashOf("session"), NonceExpires: noon.Add(time.Hour),
		Grant: Grant{ID: NewID(noon), UserID: "u1", ClientID: benchClient, Resource: "https://api.example/mcp", Scopes: []string{"read", "write"}, SecurityDigest: "digest", AuthTime: noon},
		Code:  Code{Hash: HashOf("code" + name), RedirectURI: "http://localhost/cb", Challenge: "c", Expires: noon.Add(time.Minute)}}
	seen, _ := s.Consent(ctx, a.Grant.UserID, a.Grant.ClientID, a.Grant.Resource)
	a.Endings = seen.Endings
	if err := s.AnswerConsent(ctx, a, noon); err != nil {
		t.Fatal(err)
	}
	_, err := s.RedeemCode(ctx, Redemption{Hash: a.Code.Hash, Method: "none",
		Refresh: &NewRefresh{Hash: HashOf(name + "/1"), Expires: noon.Add(14 * 24 * time.Hour), Absolute: noon.Add(90 * 24 * time.Hour)}}, noon)
	if err != nil {
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
				return t.insertRefresh(NewRefresh{Hash: HashOf(now.String()), Expires: now, Absolute: now}, NewID(now), 1)
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
			old := HashOf(fmt.Sprint(name, "/", i))
			now := noon.Add(time.Duration(i) * time.Millisecond)
			_, g, err := s.FindRefresh(ctx, old, now)
			if err != nil {
				b.Fatal(err)
			}
			err = s.RotateRefresh(ctx, Rotation{Old: old, Grace: grace,
				New:    NewRefresh{Hash: HashOf(fmt.Sprint(name, "/", i+1)), Expires: now.Add(14 * 24 * time.Hour)},
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
	h := HashOf("f/1")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.FindRefresh(context.Background(), h, noon); err != nil {
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
