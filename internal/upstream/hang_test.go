package upstream

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
)

// hangs is a way to the provider at which every request takes as long as it may.
func (w *world) hangs(paths ...string) {
	for _, path := range paths {
		w.net.Host("idp.test").Handle(path, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			w.later(timeout)
			rw.WriteHeader(http.StatusServiceUnavailable)
		}))
	}
}

const discoveryPath = "/.well-known/openid-configuration"

func TestNobodyWaitsForAProviderThatHangs(t *testing.T) {
	t.Run("OIDC-05 not before it was ever heard of", func(t *testing.T) {
		w := newWorld(t, nil)
		w.hangs(discoveryPath)
		for range 5 {
			if _, err := w.AuthURL(t.Context(), Trip{}); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if n := w.net.Host("idp.test").Count(discoveryPath); n != 1 {
			t.Errorf("%d looks, each of which held up everybody", n)
		}
	})
	t.Run("OIDC-05 nor when what is known of it is an hour old", func(t *testing.T) {
		w := newWorld(t, nil)
		if _, err := w.exchange(); err != nil {
			t.Fatal(err)
		}
		w.later(2 * time.Hour)
		w.hangs(discoveryPath)
		before := w.net.Host("idp.test").Count(discoveryPath)
		for range 5 {
			if _, err := w.AuthURL(t.Context(), Trip{}); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.net.Host("idp.test").Count(discoveryPath) - before; n != 1 {
			t.Errorf("%d looks, each of which held up everybody", n)
		}
	})
	t.Run("OIDC-05 one that says it is another is not believed between two looks either", func(t *testing.T) {
		w := newWorld(t, nil)
		if _, err := w.exchange(); err != nil {
			t.Fatal(err)
		}
		w.later(2 * time.Hour)
		w.set(func() { w.discovery["issuer"] = "https://other.test" })
		for range 3 {
			if _, err := w.AuthURL(t.Context(), Trip{}); !errors.Is(err, ErrRefused) {
				t.Errorf("%v", err)
			}
		}
	})
}

func TestAStrangerWhoHangsUp(t *testing.T) {
	token := func(w *world, k jose.Private) string {
		t.Helper()
		raw, err := k.Sign("", w.claims)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	t.Run("attack DS-04: does not keep the provider's metadata from everybody else", func(t *testing.T) {
		w := newWorld(t, nil)
		_, _ = w.VerifyLogout(gone, token(w, w.key()))
		if _, err := w.exchange(); err != nil {
			t.Error(err)
		}
	})
	t.Run("attack DS-04: nor its keys", func(t *testing.T) {
		w := newWorld(t, nil)
		if _, err := w.AuthURL(t.Context(), Trip{}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.VerifyLogout(gone, token(w, w.key()))
		if _, err := w.exchange(); err != nil {
			t.Error(err)
		}
	})
}

func TestOldKeysEnd(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := w.exchange(); err != nil {
		t.Fatal(err)
	}
	w.later(48 * time.Hour)
	w.net.Host("idp.test").Handle("/jwks", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) }))
	w.set(func() { w.claims["iat"], w.claims["exp"] = w.now.Unix(), w.now.Unix()+600 })
	for range 2 { // once with a look, once between two
		if _, err := w.exchange(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("OIDC-05 keys of the day before yesterday: %v", err)
		}
	}
}
