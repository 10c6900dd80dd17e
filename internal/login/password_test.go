package login

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestPassword(t *testing.T) {
	encoded, err := HashPassword(password)
	if err != nil || !strings.HasPrefix(encoded, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("hash %q, error %v", encoded, err)
	}
	for _, tt := range []struct {
		name, password string
		want           bool
	}{
		{"the right one", password, true},
		{"a wrong one", password + "x", false},
		{"none", "", false},
		{"a huge one", strings.Repeat("x", MaxPassword+1), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := CheckPassword(encoded, tt.password); got != tt.want || err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	t.Run("two hashes of one password differ", func(t *testing.T) {
		if again, _ := HashPassword(password); again == encoded {
			t.Error("no salt")
		}
	})
	t.Run("an accent typed in two ways is one password", func(t *testing.T) {
		h, _ := HashPassword("caf\u00e9 au lait")
		if ok, err := CheckPassword(h, "cafe\u0301 au lait"); !ok || err != nil {
			t.Errorf("got %v, %v", ok, err)
		}
	})
	for _, bad := range []string{"", "short", strings.Repeat("x", MaxPassword+1)} {
		if _, err := HashPassword(bad); !errors.Is(err, ErrPasswordLength) {
			t.Errorf("a password of %d bytes: %v", len(bad), err)
		}
	}
	salt, key := "AAAAAAAAAAAAAAAAAAAAAA", strings.Repeat("A", 43)
	for _, bad := range []string{
		"", "plain", "$argon2i$v=19$m=19456,t=2,p=1$" + salt + "$" + key, "$argon2id$v=16$m=19456,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=9999999,t=2,p=1$" + salt + "$" + key, "$argon2id$v=19$m=19456,t=0,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=19456,t=99,p=1$" + salt + "$" + key, "$argon2id$v=19$m=4,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=19456,t=2,p=300$" + salt + "$" + key, "$argon2id$v=19$m=19456,t=2,p=1$AA$" + key,
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$AA", "$argon2id$v=19$m=19456,t=2,p=1$!$" + key,
		"$argon2id$v=19$m=19456,t=2,p=1x$" + salt + "$" + key, "$argon2id$v=19$m=019456,t=2,p=1$" + salt + "$" + key,
	} {
		if ok, err := CheckPassword(bad, password); ok || err == nil {
			t.Errorf("hash %q was read", bad)
		}
	}
}

func TestNewUser(t *testing.T) {
	u, err := NewUser("Jörg", "j@acme.example", password, start)
	if err != nil || u.ID == "" || u.Name != "Jörg" || !u.Created.Equal(start) {
		t.Errorf("got %+v, %v", u, err)
	}
	for _, bad := range []string{"", " john", "john ", "jo\nhn", "jo\u202ehn", "jo\xffhn", strings.Repeat("x", maxName+1)} {
		if _, err := NewUser(bad, "", password, start); !errors.Is(err, ErrName) {
			t.Errorf("name %q: %v", bad, err)
		}
	}
	for _, bad := range []string{"x", "@acme.example", "j@", "j@a@b", "j d@acme.example", "j@acme.example\n", " j@acme.example", strings.Repeat("j", 256) + "@acme.example"} {
		if _, err := NewUser("john", bad, password, start); !errors.Is(err, ErrEmail) {
			t.Errorf("address %q: %v", bad, err)
		}
	}
	if _, err := NewUser("john", "jörg@büro.example", password, start); err != nil {
		t.Error(err)
	}
	if _, err := NewUser("john", "", "short", start); !errors.Is(err, ErrPasswordLength) {
		t.Errorf("a short password: %v", err)
	}
}

func TestInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Millisecond: "a second", 30 * time.Second: "30 seconds", 100 * time.Second: "2 minutes", 15 * time.Minute: "15 minutes",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
