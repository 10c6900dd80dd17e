package cimd_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
)

// world is a resolver in a test net, with a clock that a test moves.
type world struct {
	*cimd.Resolver
	net  *cimdtest.Net
	host *cimdtest.Host

	mu     sync.Mutex
	now    time.Time
	events []cimd.Event
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// seen returns the types of the events so far, and forgets them.
func (w *world) seen() []string {
	var types []string
	for _, ev := range w.take() {
		types = append(types, ev.Type)
	}
	return types
}

func (w *world) take() []cimd.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	evs := w.events
	w.events = nil
	return evs
}

// start makes a world. The change sees the configuration before the resolver does.
func start(t testing.TB, change func(*cimd.Config)) *world {
	t.Helper()
	n := cimdtest.New(t)
	w := &world{net: n, host: n.Host("good.test"), now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	w.Resolver = w.open(t, change)
	return w
}

// open makes another resolver in the same world, as after a restart.
func (w *world) open(t testing.TB, change func(*cimd.Config)) *cimd.Resolver {
	t.Helper()
	cfg := w.net.Config()
	cfg.Now = w.clock
	cfg.Observe = func(_ context.Context, ev cimd.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, ev)
	}
	if change != nil {
		change(&cfg)
	}
	r, err := cimd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// refusal returns the *cimd.Error that every failure must be.
func refusal(t *testing.T, err error) *cimd.Error {
	t.Helper()
	var e *cimd.Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %T (%v), want *cimd.Error", err, err)
	}
	return e
}

func wantKind(t *testing.T, err error, kind cimd.Kind) *cimd.Error {
	t.Helper()
	e := refusal(t, err)
	if e.Kind != kind {
		t.Fatalf("kind is %q (%v), want %q", e.Kind, err, kind)
	}
	return e
}

func TestResolveKeepsNothingOfTheRequest(t *testing.T) {
	w := start(t, nil)
	clientID := w.host.ServeClient("/c.json", nil)
	request := "GET /authorize?client_id=" + clientID + "&state=" + strings.Repeat("x", 8<<20)
	id := cimdtest.ID(request[len("GET /authorize?client_id=") : len("GET /authorize?client_id=")+len(clientID)])
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	if _, err := w.Resolve(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.take()
	request, id = "", cimd.ID{} //nolint:ineffassign,wastedassign // lets go of the request
	if grown := heap() - before; grown > -4<<20 {
		t.Errorf("R2 the request that the client_id was a part of is still in memory (%d KiB)", grown>>10)
	}
	runtime.KeepAlive(w)
}

func TestResolve(t *testing.T) {
	t.Run("FETCH-01 an unknown URL client is fetched", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID(w.host.ServeClient("/c.json", map[string]any{"client_name": "Calendar"}))
		doc, err := w.Resolve(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if doc.ID != id || doc.Name != "Calendar" || doc.Stale || !doc.Fetched.Equal(w.clock()) || !doc.Checked.Equal(w.clock()) {
			t.Errorf("document is %+v", doc)
		}
		if got := w.seen(); !slices.Equal(got, []string{"fetch"}) {
			t.Errorf("events are %v", got)
		}
	})
	t.Run("CACHE-01, CACHE-23 a fresh document is not fetched again, and no event tells of its use", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil, "Cache-Control", "max-age=600"))
		first, err := w.Resolve(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		w.pass(599 * time.Second)
		again, err := w.Resolve(t.Context(), id)
		if err != nil || again != first {
			t.Errorf("second answer is %p, %v; first was %p", again, err, first)
		}
		if n := w.host.Count("/c.json"); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		if got := w.seen(); !slices.Equal(got, []string{"fetch"}) {
			t.Errorf("events are %v", got)
		}
	})
	t.Run("URL-07 the zero ID is refused", func(t *testing.T) {
		w := start(t, nil)
		_, err := w.Resolve(t.Context(), cimd.ID{})
		wantKind(t, err, cimd.KindURL)
	})
	t.Run("an ID of laxer rules than the resolver's causes no fetch", func(t *testing.T) {
		w := start(t, nil)
		w.host.ServeClient("/c.json?v=1", nil)
		id, err := cimd.URLRules{AllowTestNames: true, AllowQuery: true}.Parse("https://good.test/c.json?v=1")
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Resolve(t.Context(), id)
		wantKind(t, err, cimd.KindURL)
		_, err = w.Refresh(t.Context(), id)
		wantKind(t, err, cimd.KindURL)
		if n := w.Revalidate(t.Context(), []cimd.ID{id}); n != 0 || len(w.net.Dials()) != 0 {
			t.Errorf("revalidated %d with %d dials", n, len(w.net.Dials()))
		}
	})
}

// The response of a good host with one thing spoiled.
func TestResolveRefusesResponses(t *testing.T) {
	good := func() cimdtest.Response { return cimdtest.JSON(cimdtest.Document("https://good.test/c.json", nil)) }
	set := func(name, value string) func(*cimdtest.Response) {
		return func(r *cimdtest.Response) { r.Header.Set(name, value) }
	}
	status := func(n int) func(*cimdtest.Response) {
		return func(r *cimdtest.Response) { r.Status = n }
	}
	rows := []struct {
		name  string
		spoil func(*cimdtest.Response)
		kind  cimd.Kind // "" means accepted
		rule  string
	}{
		{"FETCH-03 status 200", func(*cimdtest.Response) {}, "", ""},
		{"FETCH-02, mistake 2: 301 is a failure", status(301), cimd.KindStatus, "FETCH-02"},
		{"FETCH-02 302 is a failure", status(302), cimd.KindStatus, "FETCH-02"},
		{"FETCH-02 303 is a failure", status(303), cimd.KindStatus, "FETCH-02"},
		{"FETCH-02 307 is a failure", status(307), cimd.KindStatus, "FETCH-02"},
		{"FETCH-02 308 is a failure", status(308), cimd.KindStatus, "FETCH-02"},
		{"FETCH-02 300 is a failure", status(300), cimd.KindStatus, "FETCH-02"},
		{"FETCH-03, attack FT-17: 201", status(201), cimd.KindStatus, "FETCH-03"},
		{"FETCH-03, attack FT-17: 203", status(203), cimd.KindStatus, "FETCH-03"},
		{"FETCH-03, attack FT-17: 206", status(206), cimd.KindStatus, "FETCH-03"},
		{"FETCH-03, attack FT-17: 304 that nobody asked for", func(r *cimdtest.Response) {
			r.Status, r.Body = 304, nil
			r.Header.Del("Content-Length")
		}, cimd.KindStatus, "FETCH-03"},
		{"FETCH-03, attack FT-17: 204", func(r *cimdtest.Response) {
			r.Status, r.Body = 204, nil
			r.Header.Del("Content-Length")
		}, cimd.KindStatus, "FETCH-03"},
		{"attack FT-17: 401", status(401), cimd.KindStatus, "FETCH-03"},
		{"attack FT-17: 404", status(404), cimd.KindGone, "CACHE-15"},
		{"attack FT-17: 410", status(410), cimd.KindGone, "CACHE-15"},
		{"attack FT-17: 429", status(429), cimd.KindStatus, "FETCH-03"},
		{"attack FT-17: 500", status(500), cimd.KindStatus, "FETCH-03"},
		{"attack FT-17: 503", status(503), cimd.KindStatus, "FETCH-03"},
		{"FETCH-13 application/x+json", set("Content-Type", "application/x+json"), "", ""},
		{"FETCH-13 charset=UTF-8", set("Content-Type", "Application/JSON; charset=\"UTF-8\""), "", ""},
		{"FETCH-13 another parameter", set("Content-Type", "application/json; profile=x"), "", ""},
		{"attack FT-18: text/html", set("Content-Type", "text/html"), cimd.KindType, "FETCH-13"},
		{"attack FT-18: text/plain", set("Content-Type", "text/plain; charset=utf-8"), cimd.KindType, "FETCH-13"},
		{"attack FT-18: text/json", set("Content-Type", "text/json"), cimd.KindType, "FETCH-13"},
		{"attack FT-18: application/jsonp", set("Content-Type", "application/jsonp"), cimd.KindType, "FETCH-13"},
		{"attack FT-18: application/+json", set("Content-Type", "application/+json"), cimd.KindType, "FETCH-13"},
		{"attack FT-18: image/svg+json", set("Content-Type", "image/x+json"), cimd.KindType, "FETCH-13"},
		{"attack FT-18: charset utf-16", set("Content-Type", "application/json; charset=utf-16"), cimd.KindType, "FETCH-13"},
		{"attack FT-18: unreadable", set("Content-Type", "application/json; charset"), cimd.KindType, "FETCH-13"},
		{"attack FT-18, mistake 12: no Content-Type", func(r *cimdtest.Response) { r.Header.Del("Content-Type") }, cimd.KindType, "FETCH-13"},
		{"attack FT-18: two Content-Types", func(r *cimdtest.Response) { r.Header.Add("Content-Type", "text/html") }, cimd.KindType, "FETCH-13"},
		{"FETCH-09, mistake 11: one byte over the limit", func(r *cimdtest.Response) {
			*r = padded(5<<10 + 1)
		}, cimd.KindTooLarge, "FETCH-09"},
		{"FETCH-09 exactly the limit", func(r *cimdtest.Response) { *r = padded(5 << 10) }, "", ""},
		{"FETCH-09 Content-Length is not trusted", func(r *cimdtest.Response) {
			*r = padded(5<<10 + 1)
			r.Header.Del("Content-Length")
		}, cimd.KindTooLarge, "FETCH-09"},
		{"CACHE-12 not JSON", func(r *cimdtest.Response) { r.Body = []byte("<html>"); r.Header.Del("Content-Length") }, cimd.KindDocument, ""},
		{"attack FT-30: another client's document", func(r *cimdtest.Response) {
			*r = cimdtest.JSON(cimdtest.Document("https://evil.test/c.json", nil))
		}, cimd.KindMismatch, ""},
	}
	w := start(t, nil)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := w.open(t, nil)
			resp := good()
			row.spoil(&resp)
			if resp.Status >= 300 && resp.Status < 400 {
				resp.Header.Set("Location", "https://good.test/other.json")
			}
			w.host.Serve("/c.json", resp)
			before := len(w.net.Requests())
			doc, err := r.Resolve(t.Context(), cimdtest.ID("https://good.test/c.json"))
			if asked := len(w.net.Requests()) - before; asked != 1 {
				t.Errorf("%d requests, want 1", asked)
			}
			if row.kind == "" {
				if err != nil || doc == nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			e := wantKind(t, err, row.kind)
			if row.rule != "" && e.Rule != row.rule {
				t.Errorf("rule is %q, want %q", e.Rule, row.rule)
			}
			if e.Hint == "" {
				t.Error("no hint for the developer")
			}
			if _, cached := r.Cached(t.Context(), cimdtest.ID("https://good.test/c.json")); cached {
				t.Error("CACHE-11, CACHE-12: the failure was cached")
			}
		})
	}
}

// padded is a good document of exactly n bytes.
func padded(n int) cimdtest.Response {
	r := cimdtest.JSON(cimdtest.Document("https://good.test/c.json", nil))
	r.Body = append(r.Body, []byte(strings.Repeat(" ", n-len(r.Body)))...)
	r.Header.Set("Content-Length", "")
	r.Header.Del("Content-Length")
	return r
}

func TestRequestIsConstant(t *testing.T) {
	w := start(t, nil)
	id := cimdtest.ID(w.host.ServeClient("/c.json", nil, "Set-Cookie", "a=b; Path=/", "Cache-Control", "max-age=60", "ETag", `"1"`))
	ctx := cimd.WithSource(t.Context(), "203.0.113.9")
	if _, err := w.Resolve(ctx, id); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Minute)
	if _, err := w.Resolve(ctx, id); err != nil {
		t.Fatal(err)
	}
	reqs := w.host.Requests()
	if len(reqs) != 2 {
		t.Fatalf("%d requests, want 2", len(reqs))
	}
	t.Run("FETCH-12 GET with Accept and a stable User-Agent", func(t *testing.T) {
		for _, q := range reqs {
			if q.Method != "GET" || q.Header.Get("Accept") != "application/json, application/*+json;q=0.9" ||
				!strings.HasPrefix(q.Header.Get("User-Agent"), "Bonafide/1") {
				t.Errorf("request is %+v", q)
			}
		}
	})
	t.Run("FETCH-14, attack FT-31, attack FT-27: nothing identifies a user and no cookie comes back", func(t *testing.T) {
		allowed := []string{"Accept", "Connection", "Host", "User-Agent", "If-None-Match", "Accept-Encoding"}
		for _, q := range reqs {
			for name, values := range q.Header {
				if !slices.Contains(allowed, name) || strings.Contains(strings.Join(values, ""), "203.0.113.9") {
					t.Errorf("request carries %s: %v", name, values)
				}
			}
			if q.Path != "/c.json" || q.Header.Get("Host") != "good.test" {
				t.Errorf("asked %s%s", q.Header.Get("Host"), q.Path)
			}
		}
	})
	t.Run("FETCH-16 no request body", func(t *testing.T) {
		if len(reqs[0].Body) != 0 || reqs[0].Header.Get("Content-Length") != "" {
			t.Errorf("request is %+v", reqs[0])
		}
	})
}

func TestTransport(t *testing.T) {
	t.Run("FETCH-04, FETCH-23, mistake 22: a forbidden address reads like a dead host", func(t *testing.T) {
		hints := map[string]string{}
		for _, name := range []string{"inner.test", "dead.test", "nowhere.test"} {
			w := start(t, nil)
			w.net.DNS("inner.test", netip.MustParseAddr("10.0.0.1"))
			w.net.Host("dead.test").Down(true)
			_, err := w.Resolve(t.Context(), cimdtest.ID("https://"+name+"/c.json"))
			e := wantKind(t, err, cimd.KindFetch)
			hints[name] = e.Rule + e.Hint
			if strings.Contains(e.Hint, "10.0.0.1") {
				t.Errorf("the hint names the address: %s", e.Hint)
			}
			if len(w.net.Strays()) != 0 {
				t.Errorf("dialled %v", w.net.Strays())
			}
		}
		if hints["inner.test"] != hints["dead.test"] || hints["dead.test"] != hints["nowhere.test"] {
			t.Errorf("hints differ: %v", hints)
		}
	})
	t.Run("FETCH-07 loopback is refused in production, and private addresses are even with the development exception", func(t *testing.T) {
		w := start(t, nil)
		w.net.DNS("local.test", netip.MustParseAddr("127.0.0.1"))
		w.net.DNS("lan.test", netip.MustParseAddr("192.168.1.1"))
		for _, name := range []string{"local.test", "lan.test"} {
			_, err := w.Resolve(t.Context(), cimdtest.ID("https://"+name+"/c.json"))
			wantKind(t, err, cimd.KindFetch)
		}
		if n := len(w.net.Dials()); n != 0 {
			t.Errorf("%d dials", n)
		}
		dev := w.open(t, func(c *cimd.Config) { c.Egress.Loopback = true })
		_, _ = dev.Resolve(t.Context(), cimdtest.ID("https://local.test/c.json")) // the net has nothing there
		_, err := dev.Resolve(t.Context(), cimdtest.ID("https://lan.test/c.json"))
		wantKind(t, err, cimd.KindFetch)
		for _, to := range w.net.Dials() {
			if !to.Addr().IsLoopback() {
				t.Errorf("dialled %v", to)
			}
		}
		if len(w.net.Dials()) == 0 {
			t.Error("the development exception has no effect")
		}
	})
	t.Run("FETCH-05, mistake 1: a name that changes its mind is dialled at the checked address only", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		w.net.DNSFunc("good.test", func(call int) ([]netip.Addr, error) {
			if call == 0 {
				return []netip.Addr{w.host.Addr()}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		})
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Refresh(t.Context(), id); err == nil {
			t.Error("the second lookup led to loopback and was accepted")
		}
		if len(w.net.Strays()) != 0 {
			t.Errorf("dialled %v", w.net.Strays())
		}
	})
	t.Run("FETCH-11 a certificate for another name is refused", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		w.host.UseCertificate(cimdtest.Certificate{Names: []string{"evil.test"}})
		_, err := w.Resolve(t.Context(), id)
		wantKind(t, err, cimd.KindFetch)
	})
	t.Run("FETCH-15 a host that never answers costs no more than the time limit", func(t *testing.T) {
		w := start(t, func(c *cimd.Config) { c.Limits.Timeout = 50 * time.Millisecond })
		w.host.Serve("/c.json", cimdtest.Response{Wait: make(chan struct{})})
		began := time.Now()
		_, err := w.Resolve(t.Context(), cimdtest.ID("https://good.test/c.json"))
		wantKind(t, err, cimd.KindFetch)
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("took %v", d)
		}
	})
	t.Run("FETCH-25 two hosts never share a connection", func(t *testing.T) {
		w := start(t, nil)
		other := w.net.Host("other.test")
		both := cimdtest.Certificate{Names: []string{"good.test", "other.test"}}
		w.host.UseCertificate(both)
		other.UseCertificate(both)
		w.net.DNS("other.test", w.host.Addr())
		for _, id := range []string{w.host.ServeClient("/c.json", nil), other.ServeClient("/c.json", nil)} {
			if _, err := w.Resolve(t.Context(), cimdtest.ID(id)); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(w.net.Dials()); n != 2 {
			t.Errorf("%d connections for two hosts", n)
		}
		for _, q := range w.net.Requests() {
			if q.ServerName != q.Header.Get("Host") {
				t.Errorf("%s was asked over a connection to %s", q.Header.Get("Host"), q.ServerName)
			}
		}
	})
	t.Run("FETCH-16, mistake 3: a proxy of the environment is not used", func(t *testing.T) {
		t.Setenv("HTTPS_PROXY", "http://127.0.0.1:9")
		w := start(t, nil)
		if _, err := w.Resolve(t.Context(), cimdtest.ID(w.host.ServeClient("/c.json", nil))); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPolicyHooks(t *testing.T) {
	t.Run("URL-15 the policy is asked before any lookup, on every use", func(t *testing.T) {
		blocked := false
		w := start(t, func(c *cimd.Config) {
			c.Admit = func(context.Context, cimd.ID) error {
				if blocked {
					return errors.New("blocked by an administrator")
				}
				return nil
			}
		})
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		blocked = true
		_, err := w.Resolve(t.Context(), id)
		e := wantKind(t, err, cimd.KindRefused)
		if strings.Contains(e.Hint, "administrator") {
			t.Errorf("the hint shows the private reason: %s", e.Hint)
		}
		if len(w.net.Dials()) != 0 {
			t.Error("a refused client was fetched")
		}
		blocked = false
		doc, err := w.Resolve(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		blocked = true
		if _, err := w.Resolve(t.Context(), id); err == nil {
			t.Error("a cached client passed the policy")
		}
		if _, ok := w.Cached(t.Context(), id); ok {
			t.Error("Cached passed the policy")
		}
		for name, call := range map[string]func() error{
			"Refresh": func() error { _, err := w.Refresh(t.Context(), id); return err },
			"Keys":    func() error { _, err := w.Keys(t.Context(), doc, ""); return err },
			"Logo":    func() error { _, err := w.Logo(t.Context(), doc); return err },
		} {
			if refusal(t, call()).Kind != cimd.KindRefused {
				t.Errorf("%s passed the policy", name)
			}
		}
		if n := w.Revalidate(t.Context(), []cimd.ID{id}); n != 0 {
			t.Error("Revalidate passed the policy")
		}
	})
	t.Run("an *Error of the policy is returned as it is", func(t *testing.T) {
		own := &cimd.Error{Kind: cimd.KindRefused, Rule: "URL-14", Hint: "this URL is the server's own"}
		w := start(t, func(c *cimd.Config) {
			c.Admit = func(context.Context, cimd.ID) error { return own }
		})
		if _, err := w.Resolve(t.Context(), cimdtest.ID("https://good.test/c.json")); err != error(own) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("the kill switch stops fetching and serving at once", func(t *testing.T) {
		off := false
		w := start(t, func(c *cimd.Config) { c.Disabled = func() bool { return off } })
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		if _, err := w.Resolve(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		off = true
		_, err := w.Resolve(t.Context(), id)
		wantKind(t, err, cimd.KindDisabled)
		_, err = w.Refresh(t.Context(), id)
		wantKind(t, err, cimd.KindDisabled)
		if n := w.host.Count("*"); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
	t.Run("FETCH-20, FETCH-21 Cached answers without a fetch", func(t *testing.T) {
		w := start(t, nil)
		id := cimdtest.ID(w.host.ServeClient("/c.json", nil))
		if _, ok := w.Cached(t.Context(), id); ok || len(w.net.Dials()) != 0 {
			t.Error("Cached knows or fetched a client that it never saw")
		}
		want, err := w.Resolve(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if doc, ok := w.Cached(t.Context(), id); !ok || doc != want {
			t.Error("Cached does not know a fresh client")
		}
		w.pass(2 * time.Hour)
		if _, ok := w.Cached(t.Context(), id); ok {
			t.Error("Cached answers with an expired document")
		}
	})
	t.Run("FETCH-17, FETCH-22 a failure is an error of its own kind, and all are told apart", func(t *testing.T) {
		w := start(t, nil)
		w.host.Serve("/bad.json", cimdtest.Response{Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte("{")})
		w.net.Host("dead.test").Down(true)
		for _, id := range []string{"https://good.test/bad.json", "https://good.test/none.json", "https://dead.test/c.json"} {
			if _, err := w.Resolve(t.Context(), cimdtest.ID(id)); err == nil {
				t.Fatalf("%s was accepted", id)
			}
		}
		var kinds []cimd.Kind
		for _, ev := range w.take() {
			kinds = append(kinds, ev.Kind)
			if ev.Type != cimd.EventRefused || ev.Err == nil {
				t.Errorf("event is %+v", ev)
			}
		}
		if want := []cimd.Kind{cimd.KindDocument, cimd.KindGone, cimd.KindFetch}; !slices.Equal(kinds, want) {
			t.Errorf("kinds are %v, want %v", kinds, want)
		}
	})
}

func TestDevelopmentWithoutTLS(t *testing.T) {
	var self string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch req.URL.Path {
		case "/c.json":
			fmt.Fprintf(w, `{"client_id":"%s/c.json","redirect_uris":["http://127.0.0.1/cb"],"token_endpoint_auth_method":"private_key_jwt","jwks_uri":"%s/jwks.json"}`, self, self)
		case "/jwks.json":
			fmt.Fprint(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k1"}]}`)
		}
	}))
	defer srv.Close()
	self = srv.URL
	cfg := cimd.Config{URL: cimd.URLRules{Loopback: true}, Egress: cimd.Egress{Loopback: true}}
	r, err := cimd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	id, err := cfg.URL.Parse(self + "/c.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := r.Resolve(t.Context(), id)
	if err != nil {
		t.Fatalf("URL-18 a client_id that the rules accept is fetched: %v", err)
	}
	if keys, err := r.Keys(t.Context(), doc, "k1"); err != nil || !strings.Contains(string(keys), "k1") {
		t.Errorf("URL-18 keys are %s, %v", keys, err)
	}
}
