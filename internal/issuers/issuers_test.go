package issuers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
)

// issuer is a key set behind an address, with a clock.
type issuer struct {
	*httptest.Server
	*Keys

	mu     sync.Mutex
	now    time.Time
	answer http.HandlerFunc
	looks  atomic.Int64
}

func (i *issuer) set(answer http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

func (i *issuer) later(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.now = i.now.Add(d)
}

func open(t *testing.T, answer http.HandlerFunc) *issuer {
	t.Helper()
	i := &issuer{now: time.Unix(1_800_000_000, 0), answer: answer}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.looks.Add(1)
		i.mu.Lock()
		answer := i.answer
		i.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(i.Close)
	keys, err := New(Config{URL: i.URL, HTTP: i.Client(), Now: func() time.Time {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.now
	}})
	if err != nil {
		t.Fatal(err)
	}
	i.Keys = keys
	return i
}

func serve(t *testing.T, header string, keys ...jose.Key) http.HandlerFunc {
	t.Helper()
	raw, err := jose.MarshalSet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set("Cache-Control", header)
		}
		_, _ = w.Write(raw)
	}
}

func key(t *testing.T) jose.Key {
	t.Helper()
	k, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

func TestFind(t *testing.T) {
	first, second := key(t), key(t)
	i := open(t, serve(t, "max-age=600", first))
	find := func(k jose.Key) error {
		t.Helper()
		got, err := i.Find(t.Context(), k.KID(), jose.ES256)
		if err == nil && got.Thumbprint() != k.Thumbprint() {
			t.Fatal("another key")
		}
		return err
	}
	t.Run("the first need fetches, the second does not", func(t *testing.T) {
		if err := errors.Join(find(first), find(first)); err != nil || i.looks.Load() != 1 {
			t.Fatalf("%v, %d looks", err, i.looks.Load())
		}
	})
	i.set(serve(t, "max-age=600", first, second))
	t.Run("XCH-01 an unknown kid makes it look again, once in half a minute", func(t *testing.T) {
		for range 50 {
			if err := find(key(t)); !errors.Is(err, jose.ErrNoKey) {
				t.Fatal(err)
			}
		}
		if n := i.looks.Load(); n != 1 {
			t.Fatalf("%d looks", n)
		}
		i.later(coolDown)
		if err := find(first); err != nil || i.looks.Load() != 1 {
			t.Fatalf("a known key: %v, %d looks", err, i.looks.Load())
		}
		if err := find(second); err != nil || i.looks.Load() != 2 {
			t.Fatalf("%v, %d looks", err, i.looks.Load())
		}
	})
	t.Run("an expired set is read again, and is used for an hour more while the issuer is down", func(t *testing.T) {
		i.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		i.later(10 * time.Minute)
		if err := find(first); err != nil || i.looks.Load() != 3 || i.Err() == nil {
			t.Fatalf("%v, %d looks, %v", err, i.looks.Load(), i.Err())
		}
		if err := find(key(t)); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("XCH-01 a new key that cannot be looked for is none that does not exist: %v", err)
		}
		i.later(lastGood)
		if err := find(first); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
	})
	t.Run("a withdrawn key is gone with the next set", func(t *testing.T) {
		i.set(serve(t, "", second))
		i.later(coolDown)
		if err := find(first); !errors.Is(err, jose.ErrNoKey) || find(second) != nil {
			t.Fatal(err)
		}
	})
}

func TestNobodyWaitsWhoNeedNot(t *testing.T) {
	k := key(t)
	i := open(t, serve(t, "max-age=60", k))
	if _, err := i.Find(t.Context(), k.KID(), jose.ES256); err != nil {
		t.Fatal(err)
	}
	i.later(time.Minute)
	started, release := make(chan struct{}), make(chan struct{})
	good := serve(t, "max-age=60", k)
	i.set(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-release
		good(w, r)
	})
	done := make(chan error)
	go func() {
		_, err := i.Find(context.WithoutCancel(t.Context()), k.KID(), jose.ES256)
		done <- err
	}()
	<-started
	if _, err := i.Find(t.Context(), k.KID(), jose.ES256); err != nil {
		t.Errorf("the kept key: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := i.Find(ctx, "unknown", jose.ES256); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a caller who has left: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestBadAnswers(t *testing.T) {
	private, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	good := serve(t, "", private.Public())
	for name, answer := range map[string]http.HandlerFunc{
		"a page of errors that holds a key set": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			good(w, r)
		},
		"a key set that ends far behind its end": func(w http.ResponseWriter, r *http.Request) {
			good(w, r)
			_, _ = w.Write(bytes.Repeat([]byte(" "), maxBytes))
		},
		"an error":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"no key set":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"hello":1}`)) },
		"an empty":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
		"too large":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxBytes+1)) },
		"a hang-up":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"no redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusNotModified) },
	} {
		t.Run(name, func(t *testing.T) {
			i := open(t, answer)
			if _, err := i.Find(t.Context(), private.KID(), jose.ES256); !errors.Is(err, ErrUnavailable) || i.Err() == nil {
				t.Fatalf("%v, %v", err, i.Err())
			}
			i.later(firstRetry)
			i.set(serve(t, "no-store", private.Public()))
			if _, err := i.Find(t.Context(), private.KID(), jose.ES256); err != nil || i.Err() != nil {
				t.Fatalf("once it works again: %v", err)
			}
		})
	}
}

func TestFile(t *testing.T) {
	k := key(t)
	raw, err := jose.MarshalSet(k)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "jwks.json")
	if _, err := New(Config{File: path}); err == nil {
		t.Error("a file that is not there")
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := New(Config{File: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Find(t.Context(), k.KID(), jose.ES256); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]Config{
		"neither": {}, "both": {URL: "https://idp.test/jwks", File: path, HTTP: http.DefaultClient}, "no client": {URL: "https://idp.test/jwks"},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLifetime(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"": standard, "max-age=1": floor, "max-age=7200": 2 * time.Hour, `public, max-age="999999"`: ceiling, "no-cache": floor, "no-store": floor, "public, No-Store": floor, "max-age=x": standard,
	} {
		if got := lifetime(http.Header{"Cache-Control": {header}}); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}

// body notes whether it was closed.
type body struct {
	io.ReadCloser
	closed *atomic.Int64
}

func (b body) Close() error {
	b.closed.Add(1)
	return b.ReadCloser.Close()
}

// noting is a transport that notes what is asked, and how many answers were closed.
type noting struct {
	http.RoundTripper
	accept string
	closed atomic.Int64
}

func (n *noting) RoundTrip(r *http.Request) (*http.Response, error) {
	n.accept = r.Header.Get("Accept")
	resp, err := n.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = body{resp.Body, &n.closed}
	}
	return resp, err
}

func TestOneLook(t *testing.T) {
	k := key(t)
	i := open(t, serve(t, "", k))
	client := i.Client()
	n := noting{RoundTripper: client.Transport}
	client.Transport = &n
	keys, err := New(Config{URL: i.URL, HTTP: client})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Find(t.Context(), k.KID(), jose.ES256); err != nil || n.closed.Load() != 1 || n.accept != "application/jwk-set+json, application/json" {
		t.Errorf("%v, %d closed, accepts %q", err, n.closed.Load(), n.accept)
	}
}
