package housetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/store/pgtest"
)

// within is how long a replica may take to follow another. It is a second where
// nothing else runs on the machine.
const within = 10 * time.Second

// eventually tries until it is so.
func eventually(t *testing.T, what string, so func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !so() {
		if time.Since(start) > within {
			t.Fatalf("%s: not after %v", what, within)
		}
	}
	return time.Since(start)
}

func TestReplicas(t *testing.T) {
	h := NewReplicas(t, 2)
	john := h.Person()
	t.Run("attack FA-16: authorize on one replica, sign in and agree on the other, redeem on the first, refresh on the other", func(t *testing.T) {
		h.At(0)
		page := john.Visit(h.Authorize())
		h.At(1)
		if page.Has("password") {
			page = john.SignIn(page)
		}
		if !page.Left {
			page = john.Answer(page, "allow")
		}
		code := page.URL.Query().Get("code")
		if code == "" {
			t.Fatalf("no code: %s %s", page.URL, page.Text())
		}
		h.At(0)
		a := h.Post("/token", CodeForm(code))
		if !a.OK() {
			t.Fatalf("redeem: %d %s", a.Status, a.Raw)
		}
		h.At(1)
		b := h.Post("/token", RefreshForm(a.Str("refresh_token")))
		if !b.OK() {
			t.Fatalf("refresh: %d %s", b.Status, b.Raw)
		}
		for i := range 2 {
			h.At(i)
			if !h.active(b.Str("access_token")) {
				t.Errorf("replica %d does not know the token of the other", i)
			}
		}
		h.At(0)
		if a := h.Post("/token", CodeForm(code)); a.Status != 400 || a.Str("error") != "invalid_grant" {
			t.Errorf("TOK-03 a code that another replica saw redeemed: %d %s", a.Status, a.Raw)
		}
		h.At(1)
		if h.active(b.Str("access_token")) {
			t.Error("TOK-03 the replay on the other replica did not end the grant")
		}
	})
	t.Run("without a balancer that knows sessions the whole flow works", func(t *testing.T) {
		h.At(-1)
		if a := h.Post("/token", CodeForm(h.Person().Code(h.Authorize()))); !a.OK() {
			t.Errorf("%d %s", a.Status, a.Raw)
		}
	})
	t.Run("JK-14 both sign with one key and publish the same set", func(t *testing.T) {
		h.At(0)
		one := h.Get("/jwks").Raw
		h.At(1)
		if two := h.Get("/jwks").Raw; one != two {
			t.Errorf("%s\n%s", one, two)
		}
	})
	t.Run("META-20 a key that one replica or the command line adds is published by all", func(t *testing.T) {
		h.At(1)
		before := h.Get("/jwks").Raw
		if err := h.Replica(0).RotateKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("after %v", eventually(t, "the new key", func() bool { return h.Get("/jwks").Raw != before }))
	})
	t.Run("META-20 a key that was withdrawn is published by none", func(t *testing.T) {
		s := h.Store()
		keys, err := s.SigningKeys(t.Context())
		if err != nil || len(keys) != 2 {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		if err := s.WithdrawSigningKey(t.Context(), keys[0].KID, h.Now()); err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			h.At(i)
			eventually(t, "the end of the key", func() bool { return !strings.Contains(h.Get("/jwks").Raw, keys[0].KID) })
		}
	})
	t.Run("META-20 a change of which no replica was told is seen a few seconds later", func(t *testing.T) {
		before := h.Get("/jwks").Raw
		pgtest.Exec(t, h.address, `UPDATE signing_keys SET retire_at = $1 WHERE retire_at = 0`, h.Now().UnixMicro())
		pgtest.Exec(t, h.address, `UPDATE revisions SET revision = revision + 1 WHERE topic = 'keys'`)
		for i := range 2 {
			h.At(i)
			eventually(t, "another key", func() bool { return h.Get("/jwks").Raw != before })
		}
	})
	t.Run("REV-06, attack FA-16: a client that is blocked is blocked on all replicas", func(t *testing.T) {
		h.At(0)
		a := h.Post("/token", CodeForm(h.Person().Code(h.Authorize())))
		if err := h.Store().SetClientState(t.Context(), ClientID, store.StateBlocked, "phishing", h.Now()); err != nil {
			t.Fatal(err)
		}
		h.At(1)
		if b := h.Post("/token", RefreshForm(a.Str("refresh_token"))); b.OK() {
			t.Error("the other replica gives tokens to a blocked client")
		}
		if page := john.Visit(h.Authorize()); page.Left || page.Has("decision") || page.Has("password") {
			t.Errorf("the other replica asks for a blocked client: %s", page.Text())
		}
	})
	t.Run("attack FA-16: an account that is disabled is signed out everywhere", func(t *testing.T) {
		s := h.Store()
		if err := s.SetClientState(t.Context(), ClientID, store.StateAllowed, "", h.Now()); err != nil {
			t.Fatal(err)
		}
		jane := h.AddUser("jane", Password)
		p := h.Person()
		h.At(0)
		page := p.SignInAs(p.Visit(h.Authorize("prompt", "consent")), "jane", Password)
		if !page.Has("decision") {
			t.Fatal(page.Text())
		}
		if err := s.DisableUser(t.Context(), jane.ID, h.Now()); err != nil {
			t.Fatal(err)
		}
		h.At(1)
		if page := p.Visit(h.Authorize()); !page.Has("password") {
			t.Errorf("still signed in: %s", page.Text())
		}
	})
}

func TestReplicasFollowOnePolicy(t *testing.T) {
	h := NewReplicas(t, 2)
	config := func(changes ...string) *server.Config {
		t.Helper()
		text := h.stored(Config)
		for i := 0; i+1 < len(changes); i += 2 {
			text = strings.Replace(text, changes[i], changes[i+1], 1)
		}
		c, err := server.Parse([]byte(text), h.Dir, false)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	asked := func(i int) bool { // whether the replica lets strangers in
		h.At(i)
		page := h.Person().Visit(h.Authorize())
		return page.Has("password")
	}
	deny := config("policy: {default: allow}", "policy: {default: deny}")
	t.Run("POL-05 a policy that one replica reads again is in force on all", func(t *testing.T) {
		if !asked(0) || !asked(1) {
			t.Fatal("refused before")
		}
		if err := h.Replica(0).Reload(deny); err != nil {
			t.Fatal(err)
		}
		if asked(0) {
			t.Error("the replica that read it does not follow it")
		}
		t.Logf("after %v", eventually(t, "the policy", func() bool { return !asked(1) }))
	})
	t.Run("a signal to a replica whose file is as it was brings no old policy back", func(t *testing.T) {
		if err := h.Replica(1).Reload(config()); err != nil {
			t.Fatal(err)
		}
		if asked(1) || asked(0) {
			t.Error("the old policy is in force")
		}
	})
	t.Run("a replica that starts with an older file follows the newest policy", func(t *testing.T) {
		late := h.serve(config())
		h.servers = append(h.servers, late)
		h.Net.Host("as.test").Handle("*", h.balance())
		if asked(2) {
			t.Error("it goes by its file")
		}
	})
	t.Run("POL-05 the command line puts a policy in force on all replicas", func(t *testing.T) {
		revision, published, err := server.ApplyPolicy(t.Context(), config(), server.Options{Now: h.Now})
		if err != nil || !published || revision != 3 {
			t.Fatalf("%d, %v, %v", revision, published, err)
		}
		for i := range 3 {
			eventually(t, "the policy", func() bool { return asked(i) })
		}
		if revision, published, err := server.ApplyPolicy(t.Context(), config(), server.Options{Now: h.Now}); err != nil || published || revision != 3 {
			t.Errorf("again: %d, %v, %v", revision, published, err)
		}
	})
	t.Run("POL-05 a command about an account puts no policy in force by the way", func(t *testing.T) {
		before, err := h.Store().NewestPolicy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		unread := config("policy: {default: allow}", "policy: {default: ask}") // edited, and nobody was told
		err = server.EndAccount(t.Context(), unread, server.Options{Now: h.Now}, "nobody", func(context.Context, *store.Store) error { return nil })
		after, newest := h.Store().NewestPolicy(t.Context())
		if err != nil || newest != nil || after.Revision != before.Revision {
			t.Errorf("revision %d became %d, %v, %v", before.Revision, after.Revision, err, newest)
		}
	})
	t.Run("POL-07 the audit says what was published and who follows it", func(t *testing.T) {
		events, err := h.Store().Events(t.Context(), store.EventQuery{Type: audit.TypeConfig})
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for _, e := range events {
			n[e.Code]++
		}
		if n["published"] != 3 || n["adopted"] < 4 {
			t.Errorf("%v", n)
		}
	})
	t.Run("on SQLite there is nothing to publish", func(t *testing.T) {
		c, err := server.Parse([]byte(Config), t.TempDir(), false)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := server.ApplyPolicy(t.Context(), c, server.Options{}); err == nil || !strings.Contains(err.Error(), "SIGHUP") {
			t.Errorf("got %v", err)
		}
	})
}
