package housetest

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/jose"
)

// Bounds of a race. The store's own contract runs far more of them; here it is
// about the way through the whole server.
const (
	rounds = 25
	racers = 16
)

// race lets racers go at once and returns what they came back with.
func race(run func() (Answer, error)) ([]Answer, error) {
	var wg sync.WaitGroup
	answers, start := make([]Answer, racers), make(chan struct{})
	var failed atomic.Pointer[error]
	for i := range racers {
		wg.Go(func() {
			<-start
			a, err := run()
			if err != nil {
				failed.Store(&err)
			}
			answers[i] = a
		})
	}
	close(start)
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return answers, nil
}

// codes gets a code without a page: John has agreed before.
func (h *House) codes(p *Person) func() string {
	h.grant(p)
	return func() string { return p.Code(h.Authorize()) }
}

func TestRaces(t *testing.T) {
	h := New(t)
	john := h.john()
	next := h.codes(john)
	try := func(form url.Values) []Answer {
		t.Helper()
		answers, err := race(func() (Answer, error) { return h.TryPost(t.Context(), "/token", form) })
		if err != nil {
			t.Fatal(err)
		}
		return answers
	}
	t.Run("TOK-22, attack TK-02: 16 requests with one code, one token", func(t *testing.T) {
		for range rounds {
			won, access := 0, ""
			for _, a := range try(CodeForm(next())) {
				if a.OK() {
					won++
					access = a.Str("access_token")
					continue
				}
				a.check(t, 400, "invalid_grant")
			}
			if won != 1 {
				t.Fatalf("%d winners", won)
			}
			if h.active(access) {
				t.Fatal("TOK-03: the replays did not end the grant")
			}
		}
	})
	t.Run("TOK-12, TOK-22, attack RF-02: 16 requests with one refresh token, one family", func(t *testing.T) {
		a := h.Post("/token", CodeForm(next()))
		for round := range rounds {
			heads := map[string]bool{}
			for _, b := range try(RefreshForm(a.Str("refresh_token"))) {
				if !b.OK() {
					b.check(t, 400, "invalid_grant")
					continue
				}
				heads[b.Str("refresh_token")] = true
			}
			if len(heads) != 1 {
				t.Fatalf("round %d: %d heads", round, len(heads))
			}
			for head := range heads {
				a.Body["refresh_token"] = head
			}
		}
	})
	t.Run("CAUTH-06, attack CA-01: 16 requests with one assertion, one success", func(t *testing.T) {
		k := h.keyed(nil, jose.ES256)
		if a := k.redeem(k.code(john), k.assert(nil)); !a.OK() {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		for range rounds {
			form := change(nil2("token", "unknown"), with(k.assert(nil)))
			answers, err := race(func() (Answer, error) { return h.TryPost(t.Context(), "/revoke", form) })
			if err != nil {
				t.Fatal(err)
			}
			won := 0
			for _, a := range answers {
				if a.OK() {
					won++
					continue
				}
				a.check(t, 401, "invalid_client")
			}
			if won != 1 {
				t.Fatalf("%d winners", won)
			}
		}
	})
	t.Run("CONS-06, attack CN-07: 16 answers to one consent page, one code", func(t *testing.T) {
		for range rounds {
			f, cookie := john.question(h)
			answers, err := race(func() (Answer, error) {
				return h.TryPost(t.Context(), "/consent", f.Values, header("Cookie", cookie), header("Origin", Issuer), header("Sec-Fetch-Site", "same-origin"))
			})
			if err != nil {
				t.Fatal(err)
			}
			won := 0
			for _, a := range answers {
				switch {
				case a.Status == http.StatusSeeOther && strings.Contains(a.Header.Get("Location"), "code="):
					won++
				case a.Status != http.StatusConflict:
					t.Errorf("%d %s", a.Status, a.Header.Get("Location"))
				}
			}
			if won != 1 {
				t.Fatalf("%d winners", won)
			}
		}
	})
}

// question opens a consent page and returns its answered form and the cookies
// that go with it.
func (p *Person) question(h *House) (*browse.Form, string) {
	h.TB.Helper()
	page := p.Visit(h.Authorize("prompt", "consent"))
	var parts []string
	for _, c := range cookies(p) {
		parts = append(parts, c.Name+"="+c.Value)
	}
	return p.form(page, "decision").With("decision", "allow"), strings.Join(parts, "; ")
}
