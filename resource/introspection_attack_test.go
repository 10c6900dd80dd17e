package resource

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
)

// Strangers can bring as many tokens as they like, and of any kind.
func TestStrangersTokensHoldNobodyUp(t *testing.T) {
	for name, change := range map[string]func(a *asker){
		"400: no token of the server looks so": func(a *asker) { a.status = 400 },
		"413: no token is so long":             func(a *asker) { a.status = 413 },
		"of another issuer":                    func(a *asker) { a.raw = `{"active":true,"iss":"https://other.test"}` },
		"with a claim that cannot be read":     func(a *asker) { a.raw = `{"active":true,"exp":"never"}` },
		"bound to a key that is not named":     func(a *asker) { a.raw = `{"active":true,"token_type":"DPoP"}` },
	} {
		t.Run("RS-23, attack RS-16: what is wrong with one token is not held against the next: "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, g := asking(t, nil)
				a.tokens["good"] = says(nil)
				change(a)
				for range 3 {
					if rec := status(g, "strange"); rec.Code != 503 {
						t.Errorf("got %d", rec.Code)
					}
				}
				if a.count() != 1 {
					t.Errorf("%d questions about one token", a.count())
				}
				a.change(func() { a.status, a.raw = 0, "" })
				if rec := status(g, "good"); rec.Code != 200 {
					t.Errorf("the next one: %d", rec.Code)
				}
				time.Sleep(introspectionPause)
				a.tokens["strange"] = says(nil)
				if rec := status(g, "strange"); rec.Code != 200 {
					t.Errorf("and it is asked about again: %d", rec.Code)
				}
			})
		})
	}
	t.Run("RS-23, attack RS-16: who was in before is asked about while strangers take all other places", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			a.tokens["good"] = says(nil)
			if rec := status(g, "good"); rec.Code != 200 {
				t.Fatal(rec.Code)
			}
			time.Sleep(introspectionCache)
			a.change(func() { a.slow = time.Second })
			var all sync.WaitGroup
			for i := range 4 * maxQuestions {
				all.Go(func() { status(g, fmt.Sprintf("junk-%d", i)) })
			}
			synctest.Wait()
			if rec := status(g, "good"); rec.Code != 200 {
				t.Errorf("got %d", rec.Code)
			}
			all.Wait()
			if n := a.count(); n != maxUnknown+2 {
				t.Errorf("%d questions", n)
			}
		})
	})
	t.Run("RS-23 the places of those who were in before are bounded too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			for i := range 2 * maxQuestions {
				a.tokens[fmt.Sprint("good-", i)] = says(nil)
				status(g, fmt.Sprint("good-", i))
			}
			before := a.count()
			time.Sleep(introspectionCache)
			a.change(func() { a.slow = time.Second })
			var all sync.WaitGroup
			for i := range 2 * maxQuestions {
				all.Go(func() { status(g, fmt.Sprint("good-", i)) })
			}
			all.Wait()
			if n := a.count() - before; n != maxQuestions {
				t.Errorf("%d questions", n)
			}
		})
	})
	t.Run("RS-23 strangers' tokens do not push out of the memory what is active", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			for i := range 100 {
				a.tokens[fmt.Sprint("good-", i)] = says(nil)
				status(g, fmt.Sprint("good-", i))
			}
			for i := range maxAnswers + 1000 {
				status(g, fmt.Sprintf("junk-%d", i))
			}
			before := a.count()
			for i := range 100 {
				status(g, fmt.Sprint("good-", i))
			}
			if n := a.count() - before; n > 0 || len(g.introspect.answers) > maxAnswers {
				t.Errorf("%d questions, %d answers", n, len(g.introspect.answers))
			}
		})
	})
	t.Run("RS-23 the memory is bounded where all are active", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			past := &verdict{done: make(chan struct{}), claims: &claims{}, until: time.Now().Add(time.Hour)}
			for i := range maxAnswers {
				g.introspect.answers[[32]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}] = past
			}
			a.tokens["good"] = says(nil)
			if rec := status(g, "good"); rec.Code != 200 || len(g.introspect.answers) != maxAnswers {
				t.Errorf("got %d with %d answers", rec.Code, len(g.introspect.answers))
			}
		})
	})
}

func TestAnswersAboutOtherTokens(t *testing.T) {
	for what, changes := range map[string]map[string]any{
		"a refresh token, as RFC 8693 calls it":        {"token_type": "N_A"},
		"a refresh token by its type":                  {"token_type": "refresh_token"},
		"a refresh token by its use":                   {"token_type": "Bearer", "token_use": "refresh_token"},
		"a refresh token of another server":            {"typ": "Refresh"},
		"a refresh token for somebody who is not here": {"typ": "Offline"},
		"an ID token": {"typ": "ID"},
	} {
		t.Run("RS-23, attack RS-08: what is active and no access token is refused: "+what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, g := asking(t, nil)
				a.tokens["other"] = says(changes)
				if rec := status(g, "other"); rec.Code != 401 || !strings.Contains(rec.Header().Get("WWW-Authenticate"), "invalid_token") {
					t.Errorf("got %d %v", rec.Code, rec.Header())
				}
			})
		})
	}
	for _, changes := range []map[string]any{{"token_type": "bearer"}, {"token_type": "Bearer", "token_use": "access_token"}, {"typ": "Bearer"}, {"token_type": "access_token"}} {
		t.Run(fmt.Sprint("RS-23 an access token, whatever it is called: ", changes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, g := asking(t, nil)
				a.tokens["good"] = says(changes)
				if rec := status(g, "good"); rec.Code != 200 {
					t.Errorf("got %d", rec.Code)
				}
			})
		})
	}
	t.Run("RS-24, RS-23 a token that is bound to a key is bound to one that is named", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			for _, cnf := range []any{nil, map[string]any{"x5t#S256": "x"}} {
				a.tokens["bound"] = says(map[string]any{"token_type": "DPoP", "cnf": cnf})
				if rec := status(g, "bound"); rec.Code != 503 {
					t.Errorf("%v: got %d", cnf, rec.Code)
				}
				time.Sleep(introspectionCache)
			}
		})
	})
	t.Run("RS-23 the answer can take all scopes away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, g := asking(t, nil)
			raw, err := a.key.Sign("at+jwt", says(nil))
			if err != nil {
				t.Fatal(err)
			}
			a.tokens[raw] = says(map[string]any{"scope": ""})
			if rec := status(g, raw); rec.Code != 403 {
				t.Errorf("got %d", rec.Code)
			}
			if m, err := jose.Parse(raw, 0); err != nil || !strings.Contains(string(m.Claims), "mcp:read") {
				t.Error("the token itself has none")
			}
		})
	})
}
