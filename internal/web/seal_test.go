package web

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSealer(t *testing.T) {
	now := time.Unix(1700000000, 0)
	s := NewSealer(DeriveKey([]byte("0123456789abcdef"), "test"))
	type state struct{ A, B string }
	in := state{"1", "2"}
	sealed, err := s.Seal("consent", now.Add(time.Minute), in)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := base64.RawURLEncoding.DecodeString(sealed)
	flipped := append([]byte(nil), raw...)
	flipped[len(flipped)-1] ^= 1
	list, _ := s.Seal("consent", now.Add(time.Minute), []int{1})
	for _, tt := range []struct {
		name, purpose, sealed string
		by                    *Sealer
		now                   time.Time
		want                  error
	}{
		{"as it was sealed", "consent", sealed, s, now, nil},
		{"in its last second", "consent", sealed, s, now.Add(59 * time.Second), nil},
		{"too late", "consent", sealed, s, now.Add(time.Minute), ErrSealExpired},
		{"for another purpose", "login", sealed, s, now, ErrSeal},
		{"with another key", "consent", sealed, NewSealer(DeriveKey([]byte("0123456789abcdef"), "other")), now, ErrSeal},
		{"changed by one bit", "consent", base64.RawURLEncoding.EncodeToString(flipped), s, now, ErrSeal},
		{"cut", "consent", sealed[:len(sealed)-4], s, now, ErrSeal},
		{"cut to a nonce", "consent", sealed[:12], s, now, ErrSeal},
		{"empty", "consent", "", s, now, ErrSeal},
		{"not base64url", "consent", "!" + sealed, s, now, ErrSeal},
		{"huge", "consent", strings.Repeat("A", maxSealed+1), s, now, ErrSeal},
		{"of another shape", "consent", list, s, now, ErrSeal},
	} {
		t.Run("AUTHZ-27 "+tt.name, func(t *testing.T) {
			var out state
			err := tt.by.Open(tt.purpose, tt.sealed, tt.now, &out)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil && out != in {
				t.Errorf("got %v", out)
			}
		})
	}
	t.Run("sealing twice gives two texts that hide their content", func(t *testing.T) {
		again, _ := s.Seal("consent", now.Add(time.Minute), in)
		if again == sealed || strings.Contains(string(raw), `"A"`) {
			t.Error("the seal is not random or not secret")
		}
	})
	t.Run("what cannot be sealed is an error", func(t *testing.T) {
		if _, err := s.Seal("x", now, func() {}); err == nil {
			t.Error("sealed a function")
		}
		if _, err := s.Seal("x", now, strings.Repeat("x", maxSealed)); err == nil {
			t.Error("sealed more than Open would read")
		}
	})
	t.Run("a short master secret is refused", func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Error("accepted")
			}
		}()
		DeriveKey([]byte("short"), "x")
	})
}
