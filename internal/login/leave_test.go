package login

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// rooms are the other rooms of the house, as a test wants them.
type rooms struct {
	told    []string
	clients map[string]*directory.Client
	hints   map[string]keyring.Hint
	grants  []store.Grant
	ended   []store.Whose
	broken  error
}

func (r *rooms) Known(_ context.Context, id string) (*directory.Client, error) {
	if c := r.clients[id]; c != nil {
		return c, nil
	}
	if r.broken != nil {
		return nil, r.broken
	}
	return nil, oauth.Refuse(oauth.InvalidClient, "unknown")
}

func (r *rooms) VerifyHint(token string) (keyring.Hint, error) {
	if h, ok := r.hints[token]; ok {
		return h, nil
	}
	return keyring.Hint{}, keyring.ErrNoHint
}

func (r *rooms) Grants(_ context.Context, _, after string, limit int) ([]store.Grant, error) {
	var out []store.Grant
	for _, g := range r.grants {
		if g.ID > after && len(out) < limit {
			out = append(out, g)
		}
	}
	return out, r.broken
}

func (r *rooms) EndGrantsOf(_ context.Context, w store.Whose, _ string, _ time.Time, _ ...audit.Event) (int, error) {
	r.ended = append(r.ended, w)
	return 1, r.broken
}

func newLeaving(t *testing.T) (*house, *rooms) {
	r := &rooms{
		clients: map[string]*directory.Client{"https://app.test/c": {
			ID: "https://app.test/c", Host: "app.test", Name: "App", State: directory.StateAllowed, PostLogoutRedirectURIs: []string{"https://app.test/bye"},
		}},
		hints: map[string]keyring.Hint{},
	}
	set := &policy.Set{Default: policy.Allow, Resources: []policy.Resource{{ID: "https://mcp.test/", Name: "Tools", Scopes: []policy.Scope{{Name: "read", Title: "look around"}}}}}
	if err := set.Check(); err != nil {
		t.Fatal(err)
	}
	return newHouse(t, func(c *Config) {
		c.Clients, c.Hints, c.Connected, c.Policy, c.AccessLife = r, r, r, func() *policy.Set { return set }, 90*time.Second
		c.SignedOut = func(_ context.Context, sid string) { r.told = append(r.told, sid) }
	}), r
}

func TestTheNameOfASession(t *testing.T) {
	h, r := newLeaving(t)
	b := h.browser()
	b.try("/login", "john", password)
	first := b.current()
	t.Run("OIDC-09 who signs in again stays in the session that clients know", func(t *testing.T) {
		b.try(h.way(Return{Path: "/x", Reason: ReasonAgain}), "john", password)
		if again := b.current(); again.Session.SID != first.Session.SID || first.Session.SID == "" || again.Session.Hash == first.Session.Hash || len(r.told) != 0 {
			t.Errorf("%q, then %q; told %q", first.Session.SID, again.Session.SID, r.told)
		}
	})
	t.Run("OIDC-09 when somebody else signs in, the clients of the one before are told", func(t *testing.T) {
		jane, err := NewUser("jane", "", password, h.clock.now)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.store.AddUser(t.Context(), jane); err != nil {
			t.Fatal(err)
		}
		b.try(h.way(Return{Path: "/x", Reason: ReasonSwitch}), "jane", password)
		if now := b.current(); now.User.Name != "jane" || now.Session.SID == first.Session.SID || !slices.Equal(r.told, []string{first.Session.SID}) {
			t.Errorf("%+v; told %q", now, r.told)
		}
	})
}

func TestLeavingForAClient(t *testing.T) {
	h, r := newLeaving(t)
	b := h.browser()
	b.try("/login", "john", password)
	sid := b.current().Session.SID
	q := func(hint string) string {
		return "/logout?" + url.Values{"client_id": {"https://app.test/c"}, "id_token_hint": {hint}, "post_logout_redirect_uri": {"https://app.test/bye"}}.Encode()
	}
	for name, hint := range map[string]keyring.Hint{
		"of another session": {Subject: h.user.ID, ClientID: "https://app.test/c", SID: "other"},
		"of another person":  {Subject: "other", ClientID: "https://app.test/c", SID: sid},
		"without a session":  {Subject: h.user.ID, ClientID: "https://app.test/c"},
	} {
		t.Run("OIDC-08 asked first: an ID token "+name, func(t *testing.T) {
			r.hints["x"] = hint
			if w := b.get(q("x")); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "asks to sign you out") || b.current() == nil {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	t.Run("OIDC-08 a form that is too old, or of another session, is shown again", func(t *testing.T) {
		old := form(b.get("/logout").Body.String())
		h.clock.now = h.clock.now.Add(2 * time.Hour)
		if w := b.post("/logout/confirm", old); !strings.Contains(w.Body.String(), "Sign out?") || b.current() == nil {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		other := h.browser()
		other.try("/login", "john", password)
		if w := b.post("/logout/confirm", form(other.get("/logout").Body.String())); !strings.Contains(w.Body.String(), "Sign out?") || b.current() == nil {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("URL-15 a directory that does not answer is not a wrong client", func(t *testing.T) {
		r.broken = errors.New("disk")
		defer func() { r.broken = nil }()
		if w := b.get("/logout?client_id=https://else.test/c"); w.Code != http.StatusInternalServerError {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("OIDC-08 a client that is blocked leads nobody anywhere", func(t *testing.T) {
		r.clients["https://app.test/c"].State = directory.StateBlocked
		defer func() { r.clients["https://app.test/c"].State = directory.StateAllowed }()
		if w := b.get(q("")); w.Code != http.StatusBadRequest {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("OIDC-08, OIDC-09 the ID token of this session ends it, and the clients are told", func(t *testing.T) {
		r.hints["x"] = keyring.Hint{Subject: h.user.ID, ClientID: "https://app.test/c", SID: sid}
		w := b.get(q("x"))
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "https://app.test/bye" || b.current() != nil || !slices.Equal(r.told, []string{sid}) {
			t.Errorf("%d %v; told %q", w.Code, w.Header(), r.told)
		}
		if ev := h.events.of(audit.TypeLogout); len(ev) != 1 || ev[0].Client != "https://app.test/c" {
			t.Errorf("%+v", ev)
		}
		if w := b.post("/logout/confirm", url.Values{}); !strings.Contains(w.Body.String(), "You are signed out") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

func TestConnectionsPage(t *testing.T) {
	h, r := newLeaving(t)
	now := h.clock.now
	for i, g := range []store.Grant{
		{ClientID: "https://app.test/c", Resource: "https://mcp.test/", Scopes: oauth.Scopes{"read", "openid", "offline_access", "strange"}, Created: now.Add(-72 * time.Hour), LastUsed: now.Add(-3 * time.Hour)},
		{ClientID: "https://app.test/c", Resource: "https://gone.test/", Created: now.Add(-71 * time.Hour)},
		{ClientID: "registered", Resource: "https://mcp.test/", Scopes: oauth.Scopes{"read"}, Created: now.Add(-time.Minute)},
	} {
		g.ID = string(rune('a' + i))
		r.grants = append(r.grants, g)
	}
	b := h.browser()
	b.try("/login", "john", password)
	page := b.get("/connections").Body.String()
	t.Run("CONS-14 what the page says", func(t *testing.T) {
		for _, want := range []string{"app.test", "App", "registered", "look around", "know who you are", "stay connected", "strange", "gone.test", "3 hours ago", "3 days ago", "1 minute ago"} {
			if !strings.Contains(page, want) {
				t.Errorf("%q is missing", want)
			}
		}
		if strings.Index(page, "registered</h2>") > strings.Index(page, "app.test</h2>") {
			t.Error("the one that was used last does not come first")
		}
	})
	t.Run("CONS-14 what the form does", func(t *testing.T) {
		v := form(page)
		v.Del("all")
		v.Set("client", "https://app.test/c")
		w := b.post("/connections", v)
		if !strings.Contains(w.Body.String(), "within 2 minutes") || len(r.ended) != 1 || r.ended[0] != (store.Whose{ClientID: "https://app.test/c", UserID: h.user.ID}) {
			t.Errorf("%+v %s", r.ended, w.Body)
		}
		v.Del("client")
		if w := b.post("/connections", v); w.Code != http.StatusBadRequest || len(r.ended) != 1 {
			t.Errorf("%d", w.Code)
		}
		v.Set("all", "yes")
		if b.post("/connections", v); len(r.ended) != 2 || r.ended[1] != (store.Whose{UserID: h.user.ID}) {
			t.Errorf("%+v", r.ended)
		}
		v.Set("form", "x")
		if w := b.post("/connections", v); w.Code != http.StatusForbidden || len(r.ended) != 2 {
			t.Errorf("%d", w.Code)
		}
	})
	t.Run("URL-15 a store that does not answer", func(t *testing.T) {
		r.broken = errors.New("disk")
		if w := b.get("/connections"); w.Code != http.StatusInternalServerError {
			t.Errorf("%d", w.Code)
		}
		v := form(page)
		if w := b.post("/connections", v); w.Code != http.StatusInternalServerError {
			t.Errorf("%d", w.Code)
		}
	})
	t.Run("CONS-14 many connections are counted", func(t *testing.T) {
		r.broken = nil
		for i := range 700 {
			r.grants = append(r.grants, store.Grant{ID: "m" + store.NewID(now.Add(time.Duration(i)*time.Second)), ClientID: "client" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)), Created: now})
		}
		if page := b.get("/connections").Body.String(); !strings.Contains(page, "are not shown") {
			t.Error("they are not")
		}
	})
}
