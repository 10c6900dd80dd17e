package keyring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/google/go-cmp/cmp"
)

const issuer = "https://as.test"

// clock is a clock that stands still until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func openStore(t *testing.T, c *clock) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "bonafide.db"), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func config(s Keys, c *clock) Config {
	return Config{
		Issuer: issuer, Store: s, WrapKey: [32]byte{1, 2, 3}, Now: c.now,
		PublishAhead: time.Hour, SignFor: 24 * time.Hour, TokenLife: 30 * time.Minute,
	}
}

func mustNew(t *testing.T, c Config) *Ring {
	t.Helper()
	r, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tick(t *testing.T, r *Ring) {
	t.Helper()
	if err := r.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// kids returns the key ids in the ring's JWKS.
func kids(t *testing.T, r *Ring) []string {
	t.Helper()
	set, err := jose.ParseSet(r.JWKS(), jose.SetLimits{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range set.Keys {
		out = append(out, k.KID())
	}
	return out
}

// signing returns the id of the key that signs now.
func signing(t *testing.T, r *Ring) string {
	t.Helper()
	token := mint(t, r)
	m, err := jose.Parse(token, maxToken)
	if err != nil {
		t.Fatal(err)
	}
	return m.Header.KID
}

func access(r *Ring) AccessToken {
	now := r.now()
	return AccessToken{
		Subject: "user-1", ClientID: "https://good.test/client.json", Audience: "https://mcp.test/mcp", GrantID: "grant-1", JTI: "jti-1",
		Scopes: []string{"read", "write"}, Issued: now, Expires: now.Add(10 * time.Minute),
		AuthTime: now.Add(-time.Minute), ACR: "pwd", AMR: []string{"pwd"},
	}
}

func mint(t *testing.T, r *Ring) string {
	t.Helper()
	token, err := r.MintAccess(access(r))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestSchedule(t *testing.T) {
	t.Run("META-20 the next key is published before it signs and the old one stays until its tokens have expired", func(t *testing.T) {
		c := newClock()
		r := mustNew(t, config(openStore(t, c), c))
		first := signing(t, r)
		if got := kids(t, r); len(got) != 1 || got[0] != first {
			t.Fatalf("at the start the JWKS has %v and %s signs", got, first)
		}
		c.move(23*time.Hour - time.Second)
		tick(t, r)
		if got := kids(t, r); len(got) != 1 {
			t.Fatalf("too early for a second key: %v", got)
		}
		c.move(time.Second)
		tick(t, r)
		both := kids(t, r)
		if len(both) != 2 || both[0] != first || signing(t, r) != first {
			t.Fatalf("the second key has to be published and not to sign: %v", both)
		}
		if ahead := time.Hour; r.CacheFor() >= ahead {
			t.Fatalf("the JWKS may be cached for %v, the next key is published %v ahead", r.CacheFor(), ahead)
		}
		c.move(time.Hour - time.Second)
		tick(t, r)
		last := mint(t, r) // the last token of the first key
		if signing(t, r) != first {
			t.Fatal("the second key signs too early")
		}
		c.move(time.Second)
		if signing(t, r) != both[1] { // without a tick: the clock decides
			t.Fatal("the second key does not sign")
		}
		c.move(10*time.Minute - 2*time.Second)
		tick(t, r)
		if _, err := r.VerifyAccess(last, c.now()); err != nil {
			t.Fatalf("a living token of the old key: %v", err)
		}
		c.move(20*time.Minute + clockSlop - time.Minute)
		tick(t, r)
		if got := kids(t, r); !cmp.Equal(got, both) {
			t.Fatalf("the old key left early: %v", got)
		}
		c.move(2 * time.Minute)
		tick(t, r)
		if got := kids(t, r); len(got) != 1 || got[0] != both[1] {
			t.Fatalf("the old key is still there: %v", got)
		}
	})

	t.Run("META-20 a daemon that slept for a year signs with its old key and publishes the next", func(t *testing.T) {
		c := newClock()
		s := openStore(t, c)
		first := signing(t, mustNew(t, config(s, c)))
		c.move(365 * 24 * time.Hour)
		r := mustNew(t, config(s, c))
		if signing(t, r) != first || len(kids(t, r)) != 2 {
			t.Fatal("the next key has to be published before it signs")
		}
	})

	t.Run("META-20 a rotation on demand publishes before it signs, and happens once", func(t *testing.T) {
		c := newClock()
		r := mustNew(t, config(openStore(t, c), c))
		first := signing(t, r)
		for range 3 {
			if err := r.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := kids(t, r); len(got) != 2 || signing(t, r) != first {
			t.Fatalf("after a rotation: %v", got)
		}
		c.move(time.Hour)
		if signing(t, r) == first {
			t.Fatal("the new key does not sign after an hour")
		}
	})

	t.Run("META-20 another algorithm in the configuration is rotated in", func(t *testing.T) {
		c := newClock()
		s := openStore(t, c)
		mustNew(t, config(s, c))
		other := config(s, c)
		other.Alg = jose.EdDSA
		r := mustNew(t, other)
		tick(t, r)
		if got := r.Algorithms(); !cmp.Equal(got, []string{jose.ES256, jose.EdDSA}) {
			t.Fatalf("algorithms %v", got)
		}
		c.move(time.Hour)
		if got := r.Algorithms(); !cmp.Equal(got, []string{jose.EdDSA, jose.ES256}) || len(kids(t, r)) != 2 {
			t.Fatalf("algorithms %v", got)
		}
	})

	t.Run("a clock that runs backwards still signs with a published key", func(t *testing.T) {
		c := newClock()
		r := mustNew(t, config(openStore(t, c), c))
		c.move(-48 * time.Hour)
		if !slices.Contains(kids(t, r), signing(t, r)) {
			t.Fatal("signed with a key that is not published")
		}
	})

	t.Run("META-20, attack FA-11: a clock that was five years ahead for a while does not end the rotation of keys", func(t *testing.T) {
		c := newClock()
		r := mustNew(t, config(openStore(t, c), c))
		const leap = 5 * 365 * 24 * time.Hour
		first := signing(t, r)
		c.move(leap)
		tick(t, r) // publishes a key for then
		c.move(-leap)
		tick(t, r)
		if signing(t, r) != first {
			t.Fatal("the key of another time signs")
		}
		if err := r.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := kids(t, r)
		if err := r.Rotate(t.Context()); err != nil || len(kids(t, r)) != len(before) {
			t.Fatalf("rotated twice: %v, %v", kids(t, r), err)
		}
		c.move(time.Hour + time.Minute)
		tick(t, r)
		second := signing(t, r)
		if second == first || !slices.Contains(before, second) {
			t.Fatal("a rotation on demand does nothing")
		}
		for range 3 { // and by itself, each day
			c.move(23 * time.Hour)
			tick(t, r)
			published := kids(t, r)
			c.move(time.Hour + time.Minute)
			tick(t, r)
			if next := signing(t, r); next == second || !slices.Contains(published, next) {
				t.Fatal("a key signs for ever, or one that was not published")
			} else {
				second = next
			}
		}
		if slices.Contains(kids(t, r), first) || len(kids(t, r)) > 4 {
			t.Fatalf("keys pile up: %v", kids(t, r))
		}
	})
	t.Run("META-20 a key that is withdrawn by hand is gone at the next tick, and another takes over", func(t *testing.T) {
		c := newClock()
		s := openStore(t, c)
		r := mustNew(t, config(s, c))
		first, token := signing(t, r), mint(t, r)
		if err := s.RetireSigningKey(t.Context(), first, c.now()); err != nil {
			t.Fatal(err)
		}
		tick(t, r)
		if slices.Contains(kids(t, r), first) || signing(t, r) == first {
			t.Fatal("the withdrawn key is still in use")
		}
		if _, err := r.VerifyAccess(token, c.now()); !errors.Is(err, ErrNotOurs) {
			t.Fatalf("a token of a withdrawn key: %v", err)
		}
	})
}

func TestReplicas(t *testing.T) {
	t.Run("attack JK-14: replicas that start at once end with one key", func(t *testing.T) {
		c := newClock()
		s := openStore(t, c)
		const replicas = 8
		rings := make([]*Ring, replicas)
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range replicas {
			wg.Go(func() {
				<-start
				r, err := New(context.Background(), config(s, c))
				if err != nil {
					t.Error(err)
				}
				rings[i] = r
			})
		}
		close(start)
		wg.Wait()
		if t.Failed() {
			return
		}
		want := signing(t, rings[0])
		for _, r := range rings {
			if got := kids(t, r); len(got) != 1 || got[0] != want {
				t.Fatalf("a replica has the keys %v, another signs with %s", got, want)
			}
		}
	})

	t.Run("attack JK-14: replicas that rotate at once end with one next key", func(t *testing.T) {
		c := newClock()
		s := openStore(t, c)
		a, b := mustNew(t, config(s, c)), mustNew(t, config(s, c))
		for _, r := range []*Ring{a, b} {
			if err := r.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(kids(t, a), kids(t, b)); diff != "" || len(kids(t, a)) != 2 {
			t.Fatalf("the replicas publish different keys: %s", diff)
		}
		c.move(time.Hour)
		if signing(t, a) != signing(t, b) {
			t.Fatal("the replicas sign with different keys")
		}
		if _, err := b.VerifyAccess(mint(t, a), c.now()); err != nil {
			t.Fatalf("a token of the other replica: %v", err)
		}
	})

	t.Run("a store that always says that somebody was faster is given up", func(t *testing.T) {
		c := newClock()
		if _, err := New(t.Context(), config(stubborn{}, c)); err == nil {
			t.Fatal("no error")
		}
	})
}

type stubborn struct{}

func (stubborn) SigningKeys(context.Context) ([]store.SigningKey, error) { return nil, nil }
func (stubborn) AddSigningKey(context.Context, store.SigningKey, string) error {
	return store.ErrConflict
}
func (stubborn) RetireSigningKey(context.Context, string, time.Time) error { return nil }

// broken fails at one verb.
type broken struct {
	Keys
	read, add, retire error
}

func (b broken) SigningKeys(ctx context.Context) ([]store.SigningKey, error) {
	if b.read != nil {
		return nil, b.read
	}
	return b.Keys.SigningKeys(ctx)
}

func (b broken) AddSigningKey(ctx context.Context, k store.SigningKey, newest string) error {
	if b.add != nil {
		return b.add
	}
	return b.Keys.AddSigningKey(ctx, k, newest)
}

func (b broken) RetireSigningKey(ctx context.Context, kid string, at time.Time) error {
	if b.retire != nil {
		return b.retire
	}
	return b.Keys.RetireSigningKey(ctx, kid, at)
}

func TestFailures(t *testing.T) {
	c := newClock()
	s := openStore(t, c)
	boom := errors.New("disk on fire")
	for name, b := range map[string]broken{
		"read": {Keys: s, read: boom}, "add": {Keys: s, add: boom},
	} {
		if _, err := New(t.Context(), config(b, c)); !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := mustNew(t, config(broken{Keys: s, retire: boom}, c))
	if err := r.Rotate(t.Context()); !errors.Is(err, boom) {
		t.Errorf("retire: %v", err)
	}
	if len(kids(t, r)) != 2 {
		t.Error("the ring goes on with what it read")
	}
}

func TestWrapping(t *testing.T) {
	c := newClock()
	s := openStore(t, c)
	r := mustNew(t, config(s, c))
	rows, err := s.SigningKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := r.signer().private.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var jwk struct{ D string }
	if err := json.Unmarshal(secret, &jwk); err != nil || jwk.D == "" {
		t.Fatalf("no private part in %d bytes: %v", len(secret), err)
	}
	t.Run("the private part is neither in the store in the clear nor in the JWKS", func(t *testing.T) {
		if bytes.Contains(rows[0].Wrapped, []byte(jwk.D)) || bytes.Contains(r.JWKS(), []byte(jwk.D)) || bytes.Contains(r.JWKS(), []byte(`"d"`)) {
			t.Fatal("the private key is readable")
		}
	})
	t.Run("with another wrapping key the server does not start, and says why", func(t *testing.T) {
		other := config(s, c)
		other.WrapKey = [32]byte{9}
		_, err := New(t.Context(), other)
		if err == nil || !strings.Contains(err.Error(), "key_file") || strings.Contains(err.Error(), jwk.D) {
			t.Fatalf("error %v", err)
		}
	})
	t.Run("a row under another key id does not unwrap", func(t *testing.T) {
		row := rows[0]
		row.KID = "somebody-else"
		if _, err := unwrap(config(s, c).WrapKey, row); err == nil {
			t.Fatal("unwrapped")
		}
	})
	t.Run("a row with another algorithm is refused", func(t *testing.T) {
		row := rows[0]
		row.Alg = jose.RS256
		if _, err := unwrap(config(s, c).WrapKey, row); err == nil {
			t.Fatal("unwrapped")
		}
	})
}

func TestConfig(t *testing.T) {
	c := newClock()
	s := openStore(t, c)
	for name, spoil := range map[string]func(*Config){
		"no issuer":                   func(c *Config) { c.Issuer = "" },
		"no store":                    func(c *Config) { c.Store = nil },
		"no wrapping key":             func(c *Config) { c.WrapKey = [32]byte{} },
		"symmetric algorithm":         func(c *Config) { c.Alg = "HS256" },
		"no time between":             func(c *Config) { c.PublishAhead = time.Second },
		"signs shorter than it waits": func(c *Config) { c.SignFor = time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(s, c)
			spoil(&cfg)
			if _, err := New(t.Context(), cfg); err == nil {
				t.Fatal("accepted")
			}
		})
	}
	t.Run("the defaults are good", func(t *testing.T) {
		r := mustNew(t, Config{Issuer: issuer, Store: s, WrapKey: [32]byte{1, 2, 3}})
		if r.CacheFor() != 15*time.Minute {
			t.Fatalf("cache time %v", r.CacheFor())
		}
	})
}

func TestAuditOfKeys(t *testing.T) {
	c := newClock()
	s := openStore(t, c)
	log, err := audit.New(audit.Config{Sink: s, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(s, c)
	cfg.Audit = log
	r := mustNew(t, cfg)
	events, err := s.Events(t.Context(), store.EventQuery{Type: audit.TypeKey})
	if err != nil || len(events) != 1 || events[0].Data["kid"] != signing(t, r) {
		t.Fatalf("events %v, %v", events, err)
	}
}

// A key that leaked has to be withdrawn in a hurry, by typing its kid.
func TestKidsCanBeTyped(t *testing.T) {
	for range 1000 { // one in 64 thumbprints begins with a hyphen
		k, err := generate(jose.ES256)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(k.KID(), "-") {
			t.Fatalf("kid %s would be taken for an option", k.KID())
		}
	}
}
