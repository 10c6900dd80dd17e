package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

func TestRemovalSaysWhatItRemoved(t *testing.T) {
	hash := HashOf("newest")
	good := func() audit.Event {
		return audit.Event{Type: audit.TypeRetention, Data: map[string]string{"through": "17", "hash": hex.EncodeToString(hash[:])}}
	}
	for _, row := range []struct {
		name  string
		spoil func(e *audit.Event)
		ok    bool
	}{
		{"AD-09 an event of the store", func(*audit.Event) {}, true},
		{"AD-09 an event of another type that says the same", func(e *audit.Event) { e.Type = audit.TypeConfig }, false},
		{"AD-09 no number", func(e *audit.Event) { e.Data["through"] = "x" }, false},
		{"AD-09 no hash", func(e *audit.Event) { delete(e.Data, "hash") }, false},
		{"AD-09 half a hash", func(e *audit.Event) { e.Data["hash"] = e.Data["hash"][:32] }, false},
		{"AD-09 more than a hash", func(e *audit.Event) { e.Data["hash"] += "00" }, false},
		{"AD-09 what is no hash", func(e *audit.Event) { e.Data["hash"] = strings.Repeat("z", 64) }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := good()
			row.spoil(&e)
			through, ok := removal(e)
			if ok != row.ok || ok && (through.seq != 17 || through.hash != hash) {
				t.Errorf("%+v, %v", through, ok)
			}
		})
	}
}

func TestWhatAListChangedIsUndone(t *testing.T) {
	s := open(t)
	seed(t, s)
	failure := errors.New("failed after it")
	err := s.write(t.Context(), func(tx *tx) error {
		if sids, err := tx.endSessions("u1", noon); err != nil || len(sids) != 1 {
			t.Errorf("%q, %v", sids, err)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Fatal(err)
	}
	if _, _, err := s.FindSession(t.Context(), HashOf("session"), noon); err != nil {
		t.Errorf("POL-07 a session that was ended in a change that failed: %v", err)
	}
}

func TestACrowdThatIsTurnedAwayDoesNotReachTheWriter(t *testing.T) {
	s := open(t)
	seed(t, s)
	device := Device{ClientID: "c", Created: noon, Expires: noon.Add(time.Minute), Interval: time.Second}
	guess := Guess{UserCode: HashOf("nobody"), Against: []Allowance{{Key: HashOf("john"), Most: 1}}, Window: time.Minute}
	_, _, wrong := s.GuessUserCode(t.Context(), guess, noon)
	if err := errors.Join(s.PushRequest(t.Context(), Pushed{ClientID: "c", Created: noon, Expires: noon.Add(time.Minute)}, 1), s.StartDevice(t.Context(), device, 1),
		s.RegisterDynamic(t.Context(), Client{ID: "dyn", Expires: noon.Add(time.Minute)}, 1, noon)); err != nil || !errors.Is(wrong, ErrNotFound) {
		t.Fatal(err, wrong)
	}
	for _, row := range []struct {
		name string
		do   func() error
		want error
	}{
		{"attack DS-13: a pushed request", func() error {
			return s.PushRequest(t.Context(), Pushed{Hash: HashOf("2"), ClientID: "c", Created: noon, Expires: noon.Add(time.Minute)}, 1)
		}, ErrBusy},
		{"attack DS-13: a device", func() error { d := device; d.Hash = HashOf("2"); return s.StartDevice(t.Context(), d, 1) }, ErrBusy},
		{"attack DS-13: a client that registers itself", func() error {
			return s.RegisterDynamic(t.Context(), Client{ID: "dyn-2", Expires: noon.Add(time.Minute)}, 1, noon)
		}, ErrBusy},
		{"attack DV-03: a guess", func() error { _, _, err := s.GuessUserCode(t.Context(), guess, noon); return err }, ErrTooFast},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := s.Stats().Jobs
			if err := row.do(); !errors.Is(err, row.want) {
				t.Errorf("%v, not %v", err, row.want)
			}
			if n := s.Stats().Jobs - before; n != 0 {
				t.Errorf("%d changes for what was refused", n)
			}
		})
	}
}

func TestWhatIsKeptOfAnIdentity(t *testing.T) {
	s := open(t)
	seed(t, s)
	kept := func() (email string, created, seen time.Time) {
		t.Helper()
		if err := s.get(t.Context(), []any{&email, instant{&created}, instant{&seen}}, `SELECT email, created_at, last_seen_at FROM identities`); err != nil {
			t.Fatal(err)
		}
		return email, created, seen
	}
	for _, row := range []struct {
		name          string
		id            Identity
		email         string
		created, seen time.Time
	}{
		{"XCH-10 linked", Identity{Email: "a@idp.example", LastSeen: noon}, "a@idp.example", noon, noon},
		{"XCH-10 seen again, with a new address", Identity{Email: "b@idp.example", LastSeen: noon.Add(time.Hour)}, "b@idp.example", noon, noon.Add(time.Hour)},
	} {
		row.id.Issuer, row.id.Subject, row.id.UserID = "i", "s", "u1"
		if err := s.LinkIdentity(t.Context(), row.id, nil); err != nil {
			t.Fatal(err)
		}
		if email, created, seen := kept(); email != row.email || !created.Equal(row.created) || !seen.Equal(row.seen) {
			t.Errorf("%s: %q, made %s, seen %s", row.name, email, created, seen)
		}
	}
}

// TestSweepByTheMicrosecond: what is as old as it may be stays, what is older goes.
func TestSweepByTheMicrosecond(t *testing.T) {
	tables := []struct {
		name, age, row string // the row's key is $1, its age $2
		keep           time.Duration
	}{
		{"device_codes", "expires_at", `INSERT INTO device_codes (` + deviceColumns + `, too_fast) VALUES ($1, $1, 'c', '', '', '', '', '', '', '', '', '', '', 0, '', 0, $2, 0, 1, 'used', '', '', '', 0)`, ReplayWindow},
		{"codes", "expires_at", `INSERT INTO codes (hash, grant_id, redirect_uri, challenge, expires_at, jkt) VALUES ($1, '', '', '', $2, '')`, ReplayWindow},
		{"refresh_tokens", "expires_at", `INSERT INTO refresh_tokens (hash, grant_id, generation, scopes, expires_at, absolute_at) VALUES ($1, '', 1, '', $2, $2)`, FamilyHistory},
		{"consent_nonces", "expires_at", `INSERT INTO consent_nonces (hash, expires_at, used_at) VALUES ($1, $2, 1)`, ClockMargin},
		{"spent_ids", "expires_at", `INSERT INTO spent_ids (hash, expires_at) VALUES ($1, $2)`, ClockMargin},
		{"guesses", "expires_at", `INSERT INTO guesses (key, n, expires_at) VALUES ($1, 1, $2)`, ClockMargin},
		{"pushed_requests", "expires_at", `INSERT INTO pushed_requests (hash, client_id, request, created_at, expires_at) VALUES ($1, 'c', '', 0, $2)`, PushedHistory},
	}
	for _, table := range tables {
		t.Run("attack DS-13: "+table.name, func(t *testing.T) {
			s := open(t)
			old := noon.Add(-table.keep)
			if err := s.write(t.Context(), func(tx *tx) error {
				_, err := tx.exec(table.row, HashOf("as old as it may be"), micros(old))
				if err == nil {
					_, err = tx.exec(table.row, HashOf("older"), micros(old.Add(-time.Microsecond)))
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if n, err := s.Prune(t.Context(), noon); err != nil || n != 1 {
				t.Fatalf("%d rows went, %v", n, err)
			}
			var left time.Time
			if err := s.get(t.Context(), []any{instant{&left}}, `SELECT `+table.age+` FROM `+table.name); err != nil || !left.Equal(old) {
				t.Errorf("what is left is of %s, %v", left, err)
			}
		})
	}
}

func TestWhatIsSweptWhileTheClockIsMistrusted(t *testing.T) {
	s := open(t)
	seed(t, s)
	s.passed = func(_, _ time.Time) time.Duration { return time.Minute }
	if _, err := s.Prune(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.PushRequest(t.Context(), Pushed{ClientID: "c", Created: noon, Expires: noon.Add(time.Minute)}, 1), s.DenyToken(t.Context(), "denied", noon)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Prune(t.Context(), noon.Add(6*time.Hour)); err != nil || n != 1 {
		t.Fatalf("attack FA-11, attack DS-13: %d rows went, %v", n, err)
	}
	if denied, err := s.TokenDenied(t.Context(), "denied"); !denied || err != nil {
		t.Errorf("attack FA-11, REV-06: the mark has gone: %v", err)
	}
}

func TestChain(t *testing.T) {
	before, line := HashOf("before"), []byte(`{"type":"fetch"}`)
	t.Run("POL-07 the hash of an event covers the one before it, its number and its line", func(t *testing.T) {
		want := Hash(sha256.Sum256(append(before[:], `{"seq":17,"type":"fetch"}`...)))
		if got := chain(before, 17, line); got != want {
			t.Errorf("%x, not %x", got, want)
		}
	})
}

func TestPagesOfAccounts(t *testing.T) {
	s := open(t)
	for i := range 5 {
		if err := s.AddUser(t.Context(), User{ID: fmt.Sprint("u", i), Name: fmt.Sprint("Person ", i), Created: noon}); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		after string
		limit int
		want  string
	}{
		{"", 2, "u0 u1"}, {"u1", 2, "u2 u3"}, {"u3", 2, "u4"}, {"u4", 2, ""}, {"", 0, "u0 u1 u2 u3 u4"},
	} {
		page, err := s.Users(t.Context(), row.after, row.limit)
		var ids []string
		for _, u := range page {
			ids = append(ids, u.ID)
		}
		if got := strings.Join(ids, " "); got != row.want || err != nil {
			t.Errorf("AD-09 behind %q: %q, %v", row.after, got, err)
		}
	}
}

func TestASessionIsSeen(t *testing.T) {
	s := open(t)
	seed(t, s)
	h, end := HashOf("session"), noon.Add(24*time.Hour)
	if err := s.SeeSession(t.Context(), h, end, end.Add(time.Hour)); !errors.Is(err, ErrNotFound) {
		t.Errorf("AUTHZ-23 a session that is seen at its end lives again: %v", err)
	}
	if err := s.SeeSession(t.Context(), h, noon.Add(time.Hour), noon.Add(30*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if ses, _, err := s.FindSession(t.Context(), h, end); err != nil || !ses.LastSeen.Equal(noon.Add(time.Hour)) || !ses.Expires.Equal(noon.Add(30*time.Hour)) {
		t.Errorf("%+v, %v", ses, err)
	}
}

func TestTheCacheGrowsOld(t *testing.T) {
	s := open(t)
	at := noon
	s.now = func() time.Time { return at }
	seed(t, s)
	if err := s.RegisterClient(t.Context(), Client{ID: "other"}, noon); err != nil {
		t.Fatal(err)
	}
	save := func(client string) {
		t.Helper()
		if err := s.SaveCache(t.Context(), "key", client, []byte(client)); err != nil {
			t.Fatal(err)
		}
	}
	kept := func(now time.Time) bool {
		t.Helper()
		_, perr := s.Prune(t.Context(), now)
		_, ok, err := s.LoadCache(t.Context(), "key")
		if err := errors.Join(perr, err); err != nil {
			t.Fatal(err)
		}
		return ok
	}
	save(benchClient)
	at = noon.Add(20 * 24 * time.Hour)
	save("other") // again, for another client
	var client string
	if err := s.get(t.Context(), []any{&client}, `SELECT client_id FROM cache`); err != nil || client != "other" {
		t.Errorf("whose it is: %q, %v", client, err)
	}
	if !kept(at.Add(CacheLife)) {
		t.Error("attack DS-13: an entry that was saved again went with its first saving")
	}
	if kept(at.Add(CacheLife + time.Microsecond)) {
		t.Error("attack DS-13: an old entry stays")
	}
}

func TestAPinHoldsOneClient(t *testing.T) {
	s := open(t)
	seed(t, s)
	pinned := func(id string) int {
		t.Helper()
		c, err := s.Client(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return c.Pinned
	}
	a, b := "https://a.example/c", "https://b.example/c"
	pin := func(id string) error {
		return s.PinClient(t.Context(), Client{ID: id}, Document{ClientID: id, Digest: "d", Body: []byte("{}")}, noon)
	}
	if err := errors.Join(pin(a), s.UnpinClient(t.Context(), a, noon), pin(b)); err != nil {
		t.Fatal(err)
	}
	if pinned(a) != 0 || pinned(b) != 1 || pinned(benchClient) != 0 {
		t.Errorf("URL-16 pinned are %d, %d and %d", pinned(a), pinned(b), pinned(benchClient))
	}
	if err := errors.Join(pin(a), s.UnpinClient(t.Context(), b, noon)); err != nil || pinned(a) != 1 || pinned(b) != 0 {
		t.Errorf("URL-16 %v; pinned are %d and %d", err, pinned(a), pinned(b))
	}
	if err := pin(benchClient); !errors.Is(err, ErrConflict) || pinned(benchClient) != 0 {
		t.Errorf("URL-16 a registered client was pinned: %v", err)
	}
	if err := s.PinClient(t.Context(), Client{}, Document{Digest: "d", Body: []byte("{}")}, noon); err == nil || errors.Is(err, ErrConflict) {
		t.Errorf("URL-16 nobody was pinned: %v", err)
	}
}

func TestAKeyIsWithdrawn(t *testing.T) {
	at := noon.Add(time.Hour)
	for _, row := range []struct {
		name         string
		retire, want time.Time
	}{
		{"JK-14 a key that would never end", time.Time{}, at},
		{"JK-14 a key that would end later", at.Add(time.Minute), at},
		{"JK-14 a key that ends earlier", at.Add(-time.Minute), at.Add(-time.Minute)},
	} {
		s := open(t)
		if err := errors.Join(s.AddSigningKey(t.Context(), SigningKey{KID: "kid", Alg: "ES256", Wrapped: []byte("wrapped"), Created: noon, Retire: row.retire}, ""), s.WithdrawSigningKey(t.Context(), "kid", at)); err != nil {
			t.Fatal(err)
		}
		if keys, err := s.SigningKeys(t.Context()); err != nil || len(keys) != 1 || !keys[0].Retire.Equal(row.want) {
			t.Errorf("%s: %+v, %v", row.name, keys, err)
		}
	}
}
