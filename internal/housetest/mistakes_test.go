package housetest

import (
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// TestMistakesOfOthers is about mistakes of shipping servers that only show in
// the whole: the others stand beside the attacks that they are.
func TestMistakesOfOthers(t *testing.T) {
	h := New(t)
	john, good := h.john(), h.Net.Host("good.test")
	t.Run("mistake 9: fetches leave no connection and no goroutine behind", func(t *testing.T) {
		visit := func(i int) {
			h.Later(2 * time.Second)
			consents(t, h, john, "client_id", good.ServeClient(fmt.Sprintf("/leak%d.json", i), nil))
		}
		visit(0)
		before := runtime.NumGoroutine()
		for i := range 60 {
			visit(1 + i)
		}
		for i := 0; runtime.NumGoroutine() > before+20; i++ {
			if i == 1000 {
				t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
			}
			runtime.Gosched()
			runtime.GC()
		}
	})
	t.Run("CACHE-01, FETCH-24, mistake 19: a document is read again when its time is over", func(t *testing.T) {
		id := good.ServeClient("/again.json", nil, "Cache-Control", "max-age=300")
		h.grant(john, "client_id", id)
		good.ServeClient("/again.json", map[string]any{"client_name": "Another"}, "Cache-Control", "max-age=300")
		h.Later(6 * time.Minute)
		if text := consents(t, h, john, "client_id", id, "prompt", "consent"); !strings.Contains(text, "Another") {
			t.Error(text)
		}
	})
	t.Run("TOK-15, mistake 26: a refresh token without offline_access and without prompt=consent", func(t *testing.T) {
		a := h.grant(john)
		if a.Str("refresh_token") == "" || strings.Contains(a.Str("scope"), "offline_access") {
			t.Error(a.Raw)
		}
	})
	t.Run("CACHE-02, CACHE-07, FETCH-19: an uncacheable document stays within every budget", func(t *testing.T) {
		id := h.Net.Host("vercel.test").ServeClient("/c", nil, "Cache-Control", "private, max-age=0, must-revalidate")
		for i := range 150 {
			page := john.VisitFrom(h.Authorize("client_id", id, "redirect_uri", "https://vercel.test/cb"), "cross-site")
			if page.Status != 200 || !page.Has("decision") {
				t.Fatalf("visit %d: %d %s", i, page.Status, page.Text())
			}
			if i%3 == 0 {
				h.Later(61 * time.Second)
			}
		}
	})
	t.Run("REV-04, FETCH-21, mistake 36: with every host down, a signed-in life goes on", func(t *testing.T) {
		john = h.john()
		a, code := h.grant(john), john.Code(h.Authorize())
		good.Down(true)
		defer good.Down(false)
		if b := h.Post("/token", CodeForm(code)); !b.OK() {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
		b := h.Post("/token", RefreshForm(a.Str("refresh_token")))
		if !b.OK() || !h.active(b.Str("access_token")) {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
		if r := h.Post("/revoke", change(nil2("token", b.Str("access_token")), []string{"client_id", ClientID})); !r.OK() || h.active(b.Str("access_token")) {
			t.Errorf("%d %s", r.Status, r.Raw)
		}
	})
	t.Run("TOK-23, attack TK-18: what is looked up is a hash, and nothing else is kept", func(t *testing.T) {
		code := john.Code(h.Authorize())
		a := h.Post("/token", CodeForm(john.Code(h.Authorize())))
		secrets := []string{code, a.Str("refresh_token"), a.Str("access_token"), Password}
		for _, c := range cookies(john) {
			secrets = append(secrets, c.Value)
		}
		kept := h.kept(t)
		if !strings.Contains(kept, ClientID) {
			t.Fatal("the database was not read")
		}
		for i, s := range secrets {
			if strings.Contains(kept, s) {
				t.Errorf("secret %d is in the database", i)
			}
		}
	})
	t.Run("URL-15, mistake 35: a store that does not answer is our trouble, not an unknown client", func(t *testing.T) {
		token := h.grant(john).Str("refresh_token")
		h.Server.Close()
		for _, a := range []Answer{
			h.Post("/token", RefreshForm(token)), h.Post("/revoke", change(nil2("token", token), []string{"client_id", ClientID})),
			h.Post("/introspect", nil2("token", token), basic(Resource, IntrospectionSecret)),
		} {
			if a.Status < 500 && a.Body["active"] != false || a.Str("error") == "invalid_client" || a.Str("error") == "invalid_grant" || oracles.MatchString(a.Raw) || strings.Contains(a.Raw, "sql") {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		}
		page := john.Visit(h.Authorize())
		if page.Left || page.Status < 500 || strings.Contains(page.Body, "sql") || strings.Contains(page.Body, "closed") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

// TestManyAtOnce runs whole sign-ins side by side: nothing waits for itself.
func TestManyAtOnce(t *testing.T) {
	h := New(t)
	const people = 6
	var wg sync.WaitGroup
	browsers := make([]*Person, people)
	for i := range people {
		h.AddUser(fmt.Sprintf("user%d", i), Password)
		browsers[i] = h.Person()
		h.Net.Host(fmt.Sprintf("c%d.test", i)).ServeClient("/c.json", nil)
		browsers[i].SignInAs(browsers[i].Visit(Issuer+"/login"), fmt.Sprintf("user%d", i), Password)
		h.Later(time.Second)
	}
	failed := make(chan string, people)
	for i, p := range browsers {
		wg.Go(func() {
			if err := wander(h, p, fmt.Sprintf("https://c%d.test/c.json", i)); err != nil {
				failed <- err.Error()
			}
		})
	}
	wg.Wait()
	close(failed)
	t.Run("mistake 41: no deadlock, and nobody is refused", func(t *testing.T) {
		for text := range failed {
			t.Error(text)
		}
	})
}

// wander walks one person through a few sign-ins and refreshes.
func wander(h *House, p *Person, id string) error {
	ctx, back := h.TB.Context(), strings.TrimSuffix(id, "c.json")+"cb"
	for range 5 {
		page, err := p.From(ctx, h.Authorize("client_id", id, "redirect_uri", back), "cross-site")
		if err != nil {
			return err
		}
		form, err := page.Form("decision")
		if err != nil {
			return err
		}
		if page, err = p.Submit(ctx, form.With("decision", "allow")); err != nil {
			return err
		}
		if !page.Left {
			return fmt.Errorf("%d %s", page.Status, page.Text())
		}
		form2 := CodeForm(page.URL.Query().Get("code"), "client_id", id, "redirect_uri", back)
		for range 3 {
			a, err := h.TryPost(ctx, "/token", form2)
			if err != nil {
				return err
			}
			if !a.OK() {
				return fmt.Errorf("%d %s", a.Status, a.Raw)
			}
			form2 = RefreshForm(a.Str("refresh_token"), "client_id", id)
		}
	}
	return nil
}

// TestRealKeysOfRealClients holds the two algorithms that published clients use
// against the whole server (CAUTH-07).
func TestRealKeysOfRealClients(t *testing.T) {
	t.Parallel()
	h := New(t)
	john := h.john()
	for _, alg := range []string{jose.RS256, jose.ES256} {
		t.Run("CAUTH-07, META-09: "+alg+" when the document declares it, and no other", func(t *testing.T) {
			h.Later(time.Minute)
			id := "https://" + strings.ToLower(alg) + ".test/c.json"
			u, err := url.Parse(id)
			if err != nil {
				t.Fatal(err)
			}
			one, two := newKey(t, alg), newKey(t, jose.PS256)
			host := h.Net.Host(u.Host)
			host.ServeClient("/c.json", map[string]any{
				"token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": alg, "jwks_uri": host.URL("/jwks.json"),
			})
			host.ServeJSON("/jwks.json", keySet(t, one, two))
			k := &keyed{h: h, id: id, keys: []jose.Private{one}}
			code := john.Code(h.Authorize("client_id", id, "redirect_uri", host.URL("/cb")))
			form := func(key jose.Private) url.Values {
				return CodeForm(code, with(sign(t, key, "", k.claims(nil)), "client_id", id, "redirect_uri", host.URL("/cb"))...)
			}
			h.Post("/token", form(two)).check(t, 401, oauth.InvalidClient)
			if a := h.Post("/token", form(one)); !a.OK() {
				t.Errorf("%d %s", a.Status, a.Raw)
			}
		})
	}
}
