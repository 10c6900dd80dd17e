package store

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bonafide-id/bonafide/internal/store/pgtest"
)

// watch returns what a store hears of. What was changed before has been heard.
func watch(t *testing.T, s *Store) <-chan string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	heard, done := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func(topic string) { heard <- topic })
	}()
	t.Cleanup(func() { stop(); <-done })
	return heard
}

func hears(t *testing.T, heard <-chan string, topic string, within time.Duration) {
	t.Helper()
	late := time.After(within)
	for {
		select {
		case got := <-heard:
			if got == topic {
				return
			}
		case <-late:
			t.Fatalf("not heard of %s after %v", topic, within)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Run("what was changed before is told at first", func(t *testing.T) {
		s := open(t)
		seed(t, s)
		hears(t, watch(t, s), TopicClients, time.Minute)
	})
	t.Run("on PostgreSQL a replica is told, without looking again", func(t *testing.T) {
		address := database(t)
		a, b := quiet(t, address), quiet(t, address)
		seed(t, a)
		b.looks = time.Hour
		heard := watch(t, b)
		hears(t, heard, TopicClients, time.Minute)
		listening(t, address)
		if err := a.SetClientState(t.Context(), benchClient, StateBlocked, "", noon); err != nil {
			t.Fatal(err)
		}
		hears(t, heard, TopicClients, time.Minute)
	})
	t.Run("a change that was undone is told to nobody on another replica", func(t *testing.T) {
		address := database(t)
		a, b := quiet(t, address), quiet(t, address)
		seed(t, a)
		heard := watch(t, b)
		hears(t, heard, TopicUsers, time.Minute)
		listening(t, address)
		if err := a.SetPassword(t.Context(), "nobody", "x", noon); err == nil {
			t.Fatal("done")
		}
		if err := a.WithdrawSigningKey(t.Context(), "none", noon); err == nil {
			t.Fatal("done")
		}
		if err := a.DisableUser(t.Context(), "u1", noon); err != nil {
			t.Fatal(err)
		}
		for topic := range heard {
			if topic == TopicKeys {
				t.Error("heard of a key that was not withdrawn")
			}
			if topic == TopicUsers {
				break
			}
		}
	})
	t.Run("a notification that was missed is made up for by looking again", func(t *testing.T) {
		address := database(t)
		a, deaf := quiet(t, address), quiet(t, address)
		seed(t, a)
		deaf.looks = 20 * time.Millisecond
		deaf.address = strings.Replace(address, "/test_", "/no_such_database_", 1) // it cannot listen
		heard := watch(t, deaf)
		hears(t, heard, TopicClients, time.Minute)
		if err := a.SetClientState(t.Context(), benchClient, StateBlocked, "", noon); err != nil {
			t.Fatal(err)
		}
		hears(t, heard, TopicClients, time.Minute)
	})
	t.Run("a connection that listens and is lost is made again, and what was said meanwhile is seen", func(t *testing.T) {
		address := database(t)
		proxy := pgtest.Shared(t).NewProxy(t)
		a, b := quiet(t, address), quiet(t, proxy.Through(t, address))
		seed(t, a)
		b.looks = time.Hour
		heard := watch(t, b)
		hears(t, heard, TopicClients, time.Minute)
		listening(t, address)
		proxy.Away(true)
		if err := a.SetClientState(t.Context(), benchClient, StateBlocked, "", noon); err != nil {
			t.Fatal(err)
		}
		proxy.Away(false)
		hears(t, heard, TopicClients, time.Minute)
	})
	t.Run("it ends with the store", func(t *testing.T) {
		for _, s := range []*Store{open(t), openPG(t)} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.Watch(context.Background(), func(string) {})
			}()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			<-done
		}
	})
}

// listening returns when somebody listens on the database.
func listening(t *testing.T, address string) {
	t.Helper()
	c := rawPG(t, address)
	for {
		var n int
		if err := c.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN bonafide'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
	}
}

func TestSparing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sparing
		if s.ended() {
			t.Error("nothing began, and it has ended")
		}
		said := 0
		for range 150 { // two and a half minutes of an outage, tried each second
			if s.due() {
				said++
			}
			time.Sleep(time.Second)
		}
		if said != 3 {
			t.Errorf("it was said %d times", said)
		}
		if !s.ended() || s.ended() {
			t.Error("the end is said once")
		}
		for range 20 { // a connection that comes and goes
			if s.due() || s.ended() {
				t.Fatal("it is said for each loss")
			}
			time.Sleep(time.Second)
		}
		time.Sleep(sayAgain)
		if !s.due() || !s.ended() {
			t.Error("the next outage is not said")
		}
	})
}
