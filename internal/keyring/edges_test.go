package keyring

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/google/go-cmp/cmp"
)

// rowOf returns the row of a key.
func rowOf(t *testing.T, s *store.Store, kid string) store.SigningKey {
	t.Helper()
	rows, err := s.SigningKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.KID == kid {
			return row
		}
	}
	t.Fatalf("no key %s", kid)
	return store.SigningKey{}
}

func TestEndsOfKeys(t *testing.T) {
	t.Run("META-20 the row of a key says when it was made, when it signs and, once it has a successor, when it is gone", func(t *testing.T) {
		c := newClock()
		s := openStore(t, c)
		r := mustNew(t, config(s, c))
		first, began := signing(t, r), c.now()
		c.move(time.Minute)
		if err := r.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		second := kids(t, r)[1]
		old, next := rowOf(t, s, first), rowOf(t, s, second)
		if !old.Created.Equal(began) || !old.Publish.Equal(began) || !old.Sign.Equal(began) {
			t.Errorf("the first key: %+v", old)
		}
		if now := c.now(); !next.Created.Equal(now) || !next.Publish.Equal(now) || !next.Sign.Equal(now.Add(time.Hour)) || !next.Retire.IsZero() {
			t.Errorf("the next key: %+v", next)
		}
		// TokenLife and what clocks may differ, after the next one signs.
		if want := next.Sign.Add(30*time.Minute + 5*time.Minute); !old.Retire.Equal(want) {
			t.Errorf("the first key is gone at %v, not at %v", old.Retire, want)
		}
	})
	t.Run("META-20 a key that is to go at a time that somebody set has a successor before, and keeps that time", func(t *testing.T) {
		c := newClock()
		s := openStore(t, c)
		r := mustNew(t, config(s, c))
		first := signing(t, r)
		gone := c.now().Add(6 * time.Hour)
		if err := s.RetireSigningKey(t.Context(), first, gone); err != nil {
			t.Fatal(err)
		}
		tick(t, r)
		if n := len(kids(t, r)); n != 1 {
			t.Fatalf("%d keys six hours before", n)
		}
		// It has to sign last so long before it goes that its tokens have expired,
		// and the successor has to be published for an hour before it signs.
		c.move(6*time.Hour - 35*time.Minute - time.Hour - time.Second)
		tick(t, r)
		if n := len(kids(t, r)); n != 1 {
			t.Fatalf("%d keys a second before the next is due", n)
		}
		c.move(time.Second)
		tick(t, r)
		if n := len(kids(t, r)); n != 2 {
			t.Fatalf("%d keys when the next is due", n)
		}
		if got := rowOf(t, s, first).Retire; !got.Equal(gone) {
			t.Errorf("the time that somebody set became %v", got)
		}
		c.move(time.Hour)
		tick(t, r)
		if signing(t, r) == first {
			t.Error("the successor does not sign in time")
		}
		c.move(35 * time.Minute)
		tick(t, r)
		if got := kids(t, r); len(got) != 1 || got[0] == first {
			t.Errorf("published %v", got)
		}
	})
	t.Run("META-20 a key of another algorithm that waits for its turn is enough", func(t *testing.T) {
		c := newClock()
		s := openStore(t, c)
		r := mustNew(t, config(s, c))
		if err := r.Rotate(t.Context()); err != nil { // an ES256 key waits
			t.Fatal(err)
		}
		cfg := config(s, c)
		cfg.Alg = jose.EdDSA
		if got := kids(t, mustNew(t, cfg)); len(got) != 2 {
			t.Errorf("%d keys while one waits", len(got))
		}
	})
	t.Run("attack FA-11: keys count by the time from which they sign, not by the time at which they were stored", func(t *testing.T) {
		now := newClock().now()
		made := func(kid string, sign time.Duration) *key {
			p, err := jose.Generate(jose.ES256)
			if err != nil {
				t.Fatal(err)
			}
			return &key{kid: kid, alg: jose.ES256, sign: now.Add(sign), private: p, public: p.Public()}
		}
		s, err := newState([]*key{made("ahead", 1000*time.Hour), made("old", -48*time.Hour), made("now", -24*time.Hour), made("next", time.Minute)}, now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range s.keys {
			got = append(got, k.kid)
		}
		if diff := cmp.Diff([]string{"now", "next", "ahead"}, got); diff != "" {
			t.Errorf("published (-want +got):\n%s", diff)
		}
		if k := s.signer(now); k.kid != "now" {
			t.Errorf("%s signs", k.kid)
		}
	})
}

func TestBounds(t *testing.T) {
	c := newClock()
	t.Run("the shortest times that are allowed, and those that are usual", func(t *testing.T) {
		cfg := config(openStore(t, c), c)
		cfg.PublishAhead, cfg.SignFor, cfg.TokenLife = time.Minute, time.Minute, 0
		r := mustNew(t, cfg)
		a := access(r)
		a.Expires = a.Issued.Add(time.Hour)
		if _, err := r.MintAccess(a); err != nil {
			t.Errorf("a token of an hour: %v", err)
		}
		a.Expires = a.Expires.Add(time.Second)
		if _, err := r.MintAccess(a); err == nil {
			t.Error("a token of more than an hour was minted")
		}
	})
	r := mustNew(t, config(openStore(t, c), c))
	for name, bind := range map[string]func(*AccessToken){
		"DPOP-02 a token that is bound to a key alone":         func(a *AccessToken) { a.CnfJKT = "jkt" },
		"DPOP-07 a token that is bound to a certificate alone": func(a *AccessToken) { a.CnfX5T = "x5t" },
	} {
		t.Run(name, func(t *testing.T) {
			a := access(r)
			bind(&a)
			token, err := r.MintAccess(a)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.VerifyAccess(token, c.now())
			if err != nil || got.CnfJKT != a.CnfJKT || got.CnfX5T != a.CnfX5T {
				t.Errorf("%q %q, %v", got.CnfJKT, got.CnfX5T, err)
			}
		})
	}
	t.Run("OIDC-09 a logout token is about a person or about a session", func(t *testing.T) {
		for name, l := range map[string]LogoutToken{"a person": {Subject: "user-1"}, "a session": {SID: "s1"}} {
			l.ClientID, l.JTI, l.Issued, l.Expires = "https://good.test/client.json", "j1", c.now(), c.now().Add(time.Minute)
			if _, err := r.MintLogout(l); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestIDTokensOfSessions(t *testing.T) {
	for alg, half := range map[string]func(string) []byte{
		jose.ES256: func(s string) []byte { sum := sha256.Sum256([]byte(s)); return sum[:16] },
		jose.EdDSA: func(s string) []byte { sum := sha512.Sum512([]byte(s)); return sum[:32] },
	} {
		t.Run("OIDC-01, OIDC-09 an ID token names the session, and the access token by the hash of "+alg, func(t *testing.T) {
			c := newClock()
			cfg := config(openStore(t, c), c)
			cfg.Alg = alg
			r := mustNew(t, cfg)
			id := IDToken{Subject: "user-1", ClientID: "https://good.test/client.json", SID: "s1", Issued: c.now(), Expires: c.now().Add(time.Minute), AccessToken: "abc.def"}
			token, err := r.MintID(id)
			if err != nil {
				t.Fatal(err)
			}
			_, claims := open(t, r, token)
			if claims["sid"] != "s1" || claims["at_hash"] != base64.RawURLEncoding.EncodeToString(half("abc.def")) {
				t.Errorf("%v", claims)
			}
			id.AccessToken, id.SID = "", ""
			if token, err = r.MintID(id); err != nil {
				t.Fatal(err)
			}
			_, claims = open(t, r, token)
			if claims["sid"] != nil || claims["at_hash"] != nil || claims["auth_time"] != nil {
				t.Errorf("%v", claims)
			}
		})
	}
}

func TestNewKeysAreInTheAudit(t *testing.T) {
	c := newClock()
	s := openStore(t, c)
	other, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "audit.db"), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	log, err := audit.New(audit.Config{Sink: other, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(s, c)
	cfg.Audit = log
	r := mustNew(t, cfg)
	c.move(time.Minute)
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	events, err := other.Events(t.Context(), store.EventQuery{Type: audit.TypeKey})
	if err != nil || len(events) != 2 {
		t.Fatalf("events %v, %v", events, err)
	}
	want := map[string]string{"kid": kids(t, r)[1], "alg": jose.ES256, "signs_from": "2026-03-01T13:01:00Z"}
	if diff := cmp.Diff(want, events[1].Data); diff != "" || !events[1].Time.Equal(c.now()) || events[1].Rule != "META-20" {
		t.Errorf("%+v, data (-want +got):\n%s", events[1], diff)
	}
	t.Run("a key of which the audit does not know is an error", func(t *testing.T) {
		cfg.Audit, err = audit.New(audit.Config{Sink: full{}, Now: c.now})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Store = openStore(t, c)
		if _, err := New(t.Context(), cfg); !errors.Is(err, errFull) {
			t.Errorf("%v", err)
		}
	})
}

// full is a sink that takes nothing.
type full struct{}

var errFull = errors.New("the disk is full")

func (full) AppendEvents(context.Context, ...audit.Event) error { return errFull }
