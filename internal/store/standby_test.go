package store

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/store/pgtest"
)

// A standby shows the past: what was revoked or spent there is not, until it has
// caught up.
func TestStandby(t *testing.T) {
	migrate := func(a string) error { return quiet(t, a).Close() }
	server, primary := pgtest.New(t, ""), pgtest.New(t, "")
	address, err := server.Copy(t.Context(), "standby", migrate)
	if err != nil {
		t.Fatal(err)
	}
	other, err := primary.Copy(t.Context(), "standby", migrate) // of the same name
	if err != nil {
		t.Fatal(err)
	}
	s := quiet(t, address)
	seed(t, s)
	if err := errors.Join(server.Stop(), server.Demote()); err != nil {
		t.Fatal(err)
	}
	t.Run("attack FA-18: nothing is read from a standby, nothing written", func(t *testing.T) {
		for range 3 {
			_, _, err1 := s.FindSession(t.Context(), HashOf("session"), noon)
			_, err2 := s.Client(t.Context(), benchClient)
			_, err3 := s.SigningKeys(t.Context())
			err4 := s.SpendID(t.Context(), "x", HashOf("standby"), noon, noon)
			for _, err := range []error{err1, err2, err3, err4} {
				if !unavailable(err) {
					t.Errorf("got %v", err)
				}
			}
		}
	})
	t.Run("a server does not start on a standby, and says why", func(t *testing.T) {
		if _, err := Open(t.Context(), Config{Path: address}); err == nil || !strings.Contains(err.Error(), "standby") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of several hosts the primary is found, whatever stands first", func(t *testing.T) {
		u, err := url.Parse(other)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("host", server.Dir()+","+primary.Dir())
		// Whether it is meant or not: from an address without the option, and from one that asks for any.
		for _, attrs := range []string{"", "any", "prefer-standby"} {
			if q.Del("target_session_attrs"); attrs != "" {
				q.Set("target_session_attrs", attrs)
			}
			u.RawQuery = q.Encode()
			s := quiet(t, u.String())
			var standby bool
			if err := s.get(t.Context(), []any{&standby}, `SELECT pg_is_in_recovery()`); err != nil || standby {
				t.Errorf("%q: read from a standby: %v, %v", attrs, standby, err)
			}
			if err := s.SpendID(t.Context(), "x", HashOf("standby "+attrs), noon, noon); err != nil {
				t.Errorf("%q: %v", attrs, err)
			}
		}
	})
	t.Run("attack FA-06: a standby that took over is found", func(t *testing.T) {
		if err := server.Promote(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for {
			_, _, err1 := s.FindSession(t.Context(), HashOf("session"), noon)
			err2 := s.SpendID(t.Context(), "x", HashOf("promoted"), noon, noon)
			if err1 == nil && (err2 == nil || errors.Is(err2, ErrSpent)) {
				break
			}
			if time.Since(start) > 5*time.Second {
				t.Fatalf("after 5 s: %v and %v", err1, err2)
			}
		}
	})
}
