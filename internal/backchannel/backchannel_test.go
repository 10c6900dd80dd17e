package backchannel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/safehttp"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// world is everything around a notifier, as a test wants it.
type world struct {
	mu      sync.Mutex
	grants  []store.Grant
	broken  error
	lost    []error // of looking for a client, one after the other
	clients map[string]*directory.Client
	minted  []keyring.LogoutToken
	posts   []safehttp.Form
	answer  func(try int, uri string) (int, error)
	slow    bool          // posts wait for hold
	hold    chan struct{} // of the bubble
	busy    map[string]int
	most    map[string]int
	events  []audit.Event
}

func (w *world) SessionGrants(_ context.Context, sid string) ([]store.Grant, error) {
	var out []store.Grant
	for _, g := range w.grants {
		if g.SID == sid {
			out = append(out, g)
		}
	}
	return out, w.broken
}

func (w *world) Grants(_ context.Context, user, after string, limit int) ([]store.Grant, error) {
	var out []store.Grant
	for _, g := range w.grants {
		if g.UserID == user && g.ID > after && len(out) < limit {
			out = append(out, g)
		}
	}
	return out, w.broken
}

func (w *world) Known(_ context.Context, id string) (*directory.Client, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lost) > 0 {
		err := w.lost[0]
		if w.lost = w.lost[1:]; err != nil {
			return nil, err
		}
	}
	if c := w.clients[id]; c != nil {
		return c, nil
	}
	return nil, oauth.Refuse(oauth.InvalidClient, "unknown")
}

func (w *world) MintLogout(t keyring.LogoutToken) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.ClientID == "unsigned" {
		return "", errors.New("no key")
	}
	w.minted = append(w.minted, t)
	return fmt.Sprintf("token %d", len(w.minted)), nil
}

func (w *world) Post(ctx context.Context, p safehttp.Form) (*safehttp.Response, error) {
	w.mu.Lock()
	w.posts = append(w.posts, p)
	try := len(w.posts)
	for _, k := range []string{p.URL, "all"} {
		w.busy[k]++
		w.most[k] = max(w.most[k], w.busy[k])
	}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy[p.URL]--
		w.busy["all"]--
	}()
	if w.hold != nil {
		select {
		case <-w.hold:
		case <-ctx.Done():
			return nil, &safehttp.Error{Kind: safehttp.KindTimeout, Err: ctx.Err()}
		}
	}
	if w.answer == nil {
		return &safehttp.Response{Status: 200}, nil
	}
	status, err := w.answer(try, p.URL)
	if err != nil {
		return nil, err
	}
	return &safehttp.Response{Status: status}, nil
}

func (w *world) AppendEvents(_ context.Context, events ...audit.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, events...)
	return nil
}

func (w *world) codes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.events {
		if e.Type == audit.TypeLogoutNotice {
			out = append(out, e.Client+" "+e.Code+" "+e.Data["tries"]+" "+e.Data["status"]+e.Data["error"])
		}
	}
	slices.Sort(out)
	return out
}

func client(id string) *directory.Client {
	return &directory.Client{ID: id, State: directory.StateAllowed, BackchannelLogoutURI: "https://" + id + ".test/bye"}
}

func grant(id, client, sid string) store.Grant {
	return store.Grant{ID: id, UserID: "john", ClientID: client, SID: sid}
}

// run gives a test a notifier in a bubble, and all of its events afterwards.
func run(t *testing.T, w *world, change func(*Config), do func(*Notifier)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w.busy, w.most = map[string]int{}, map[string]int{}
		if w.slow {
			w.hold = make(chan struct{})
		}
		quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
		log, err := audit.New(audit.Config{Sink: w, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		c := Config{Grants: w, Clients: w, Keys: w, Post: w, Audit: log, Logger: quiet}
		if change != nil {
			change(&c)
		}
		n, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		do(n)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n.Close(ctx)
		if err := log.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestASessionEnds(t *testing.T) {
	w := &world{
		grants:  []store.Grant{grant("1", "a", "s1"), grant("2", "a", "s1"), grant("3", "b", "s1"), grant("4", "a", "s2"), grant("5", "quiet", "s1"), grant("6", "gone", "s1"), grant("7", "blocked", "s1")},
		clients: map[string]*directory.Client{"a": client("a"), "b": client("b"), "quiet": {ID: "quiet", State: directory.StateAllowed}, "blocked": client("blocked")},
	}
	w.clients["blocked"].State = directory.StateBlocked
	run(t, w, nil, func(n *Notifier) {
		n.SessionEnded(context.Background(), "s1")
		synctest.Wait()
	})
	t.Run("OIDC-09 every client of the session is told once, about this session", func(t *testing.T) {
		if len(w.minted) != 2 || len(w.posts) != 2 {
			t.Fatalf("%+v", w.minted)
		}
		for _, m := range w.minted {
			if m.SID != "s1" || m.Subject != "john" || m.JTI == "" || m.Expires.Sub(m.Issued) != 2*time.Minute {
				t.Errorf("%+v", m)
			}
		}
		for _, p := range w.posts {
			if len(p.Values) != 1 || !strings.HasPrefix(p.Values.Get("logout_token"), "token ") || p.Timeout == 0 || !p.StatusOnly || p.User != "" {
				t.Errorf("%+v", p)
			}
		}
	})
	t.Run("OIDC-09 the audit log says what became of each", func(t *testing.T) {
		want := []string{"a sent 1 200", "b sent 1 200", "gone failed 1 the client is not known any more"}
		if got := w.codes(); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
}

func TestAttempts(t *testing.T) {
	failure := func(k safehttp.Kind) error { return &safehttp.Error{Kind: k, Err: errors.New("secret 10.0.0.1")} }
	for _, c := range []struct {
		name   string
		answer func(int, string) (int, error)
		tries  int
		want   string
	}{
		{"no content is a success too", func(int, string) (int, error) { return 204, nil }, 1, "a sent 1 204"},
		{"an error of the host is tried again", func(n int, _ string) (int, error) { return map[bool]int{true: 200, false: 503}[n == 3], nil }, 3, "a sent 3 200"},
		{"a host that never answers is given up", func(int, string) (int, error) { return 0, failure(safehttp.KindConnect) }, 4, "a failed 4 connect"},
		{"a refusal is final", func(int, string) (int, error) { return 400, nil }, 1, "a failed 1 400"},
		{"a redirect is final", func(int, string) (int, error) { return 302, nil }, 1, "a failed 1 302"},
		{"too many requests are tried again", func(n int, _ string) (int, error) { return map[bool]int{true: 200, false: 429}[n == 2], nil }, 2, "a sent 2 200"},
		{"attack SD-36: an address that must not be dialled is final", func(int, string) (int, error) { return 0, failure(safehttp.KindAddress) }, 1, "a failed 1 address"},
	} {
		t.Run("OIDC-09 "+c.name, func(t *testing.T) {
			w := &world{grants: []store.Grant{grant("1", "a", "s1")}, clients: map[string]*directory.Client{"a": client("a")}, answer: c.answer}
			run(t, w, nil, func(n *Notifier) {
				n.SessionEnded(context.Background(), "s1")
				time.Sleep(time.Hour) // of the bubble
			})
			if got := w.codes(); len(got) != 1 || got[0] != c.want || len(w.posts) != c.tries {
				t.Errorf("%q after %d posts", got, len(w.posts))
			}
			jtis := map[string]bool{}
			for _, m := range w.minted {
				jtis[m.JTI] = true
			}
			if len(jtis) != c.tries {
				t.Errorf("%d jti for %d attempts", len(jtis), c.tries)
			}
		})
	}
}

func TestTheStoreIsAway(t *testing.T) {
	down := errors.New("dial postgres: refused")
	for _, c := range []struct {
		name string
		lost []error
		want string
	}{
		{"a client that cannot be looked up is looked up again", []error{down, down}, "a sent 3 200"},
		{"so is one of a store that asks to wait", []error{oauth.Refuse(oauth.TemporarilyUnavailable, "wait")}, "a sent 2 200"},
		{"until it was tried often enough, and nobody says that the client is unknown", []error{down, down, down, down}, "a failed 4 the client could not be looked up"},
		{"a client that is gone is gone", []error{down, oauth.Refuse(oauth.InvalidClient, "unknown")}, "a failed 2 the client is not known any more"},
	} {
		t.Run("OIDC-09, URL-15 "+c.name, func(t *testing.T) {
			w := &world{grants: []store.Grant{grant("1", "a", "s1")}, clients: map[string]*directory.Client{"a": client("a")}, lost: c.lost}
			run(t, w, nil, func(n *Notifier) {
				n.SessionEnded(context.Background(), "s1")
				time.Sleep(time.Hour) // of the bubble
			})
			if got := w.codes(); !slices.Equal(got, []string{c.want}) {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestItIsBounded(t *testing.T) {
	many := func(n int, client string) (out []store.Grant) {
		for i := range n {
			out = append(out, store.Grant{ID: fmt.Sprintf("%s%04d", client, i), UserID: "john", ClientID: client, SID: fmt.Sprint("s", i)})
		}
		return out
	}
	w := &world{clients: map[string]*directory.Client{"a": client("a"), "b": client("b")}, slow: true}
	w.grants = append(many(20, "a"), many(20, "b")...)
	run(t, w, func(c *Config) { c.Queue, c.InFlight = 25, 8 }, func(n *Notifier) {
		list, err := n.Of(context.Background(), "john")
		if err != nil || len(list) != 40 {
			t.Fatalf("%d, %v", len(list), err)
		}
		n.Send(list) // nobody waits, although no host answers
		synctest.Wait()
		close(w.hold)
		synctest.Wait()
	})
	t.Run("OIDC-09 the queue is bounded, and what does not fit is noted", func(t *testing.T) {
		dropped := 0
		for _, c := range w.codes() {
			if strings.Contains(c, "dropped") {
				dropped++
			}
		}
		if dropped != 15 || len(w.posts) != 25 {
			t.Errorf("%d dropped, %d sent", dropped, len(w.posts))
		}
	})
	t.Run("OIDC-09 a slow host holds up nobody else", func(t *testing.T) {
		if a, b := w.most["https://a.test/bye"], w.most["https://b.test/bye"]; a != 2 || b != 2 {
			t.Errorf("%d and %d at one time", a, b)
		}
	})
}

func TestTheEnd(t *testing.T) {
	grants := []store.Grant{grant("1", "a", "s1")}
	clients := map[string]*directory.Client{"a": client("a"), "unsigned": client("unsigned")}
	t.Run("OIDC-09 what waits for its next attempt is tried once more at the end", func(t *testing.T) {
		w := &world{grants: grants, clients: clients, answer: func(n int, _ string) (int, error) { return map[bool]int{true: 200, false: 500}[n == 2], nil }}
		run(t, w, nil, func(n *Notifier) {
			n.SessionEnded(context.Background(), "s1")
			synctest.Wait()
		})
		if got := w.codes(); !slices.Equal(got, []string{"a sent 2 200"}) {
			t.Errorf("%q", got)
		}
	})
	t.Run("OIDC-09 what is on its way at the end is given up in time", func(t *testing.T) {
		w := &world{grants: []store.Grant{grant("1", "a", "s1"), grant("2", "a", "s2"), grant("3", "a", "s3")}, clients: clients, slow: true}
		run(t, w, func(c *Config) { c.InFlight = 1 }, func(n *Notifier) {
			for _, sid := range []string{"s1", "s2", "s3"} {
				n.SessionEnded(context.Background(), sid)
			}
			synctest.Wait()
		})
		if got := w.codes(); len(got) != 3 || len(w.posts) != 1 {
			t.Errorf("%q, %d posts", got, len(w.posts))
		}
	})
	t.Run("OIDC-09 after the end nothing is sent", func(t *testing.T) {
		w := &world{grants: grants, clients: clients}
		run(t, w, nil, func(n *Notifier) {
			n.Close(context.Background())
			n.SessionEnded(context.Background(), "s1")
		})
		if len(w.posts) != 0 || !slices.Equal(w.codes(), []string{"a dropped  "}) {
			t.Errorf("%d posts, %q", len(w.posts), w.codes())
		}
	})
	t.Run("URL-15 a store that does not answer ends no session less", func(t *testing.T) {
		w := &world{broken: errors.New("disk")}
		run(t, w, nil, func(n *Notifier) {
			n.SessionEnded(context.Background(), "s1")
			if _, err := n.Of(context.Background(), "john"); err == nil {
				t.Error("the failure was swallowed")
			}
		})
	})
	t.Run("a token that cannot be signed is not sent", func(t *testing.T) {
		w := &world{grants: []store.Grant{grant("1", "unsigned", "s1")}, clients: clients}
		run(t, w, nil, func(n *Notifier) {
			n.SessionEnded(context.Background(), "s1")
			synctest.Wait()
		})
		if len(w.posts) != 0 || len(w.codes()) != 1 {
			t.Errorf("%q", w.codes())
		}
	})
	t.Run("what is missing in the configuration", func(t *testing.T) {
		if _, err := New(Config{}); err == nil {
			t.Error("it was accepted")
		}
	})
}
