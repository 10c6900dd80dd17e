package cimd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/safehttp"
)

// steady is a resolver without a network, and a clock that a test moves.
type steady struct {
	*Resolver
	mu  sync.Mutex
	now time.Time
}

func (s *steady) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *steady) move(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func newSteady(t *testing.T, change func(*Config)) *steady {
	t.Helper()
	s := &steady{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	cfg := Config{URL: URLRules{AllowTestNames: true}, Now: s.clock, Egress: Egress{
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			return nil, fmt.Errorf("no such host %s", host)
		},
	}}
	if change != nil {
		change(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	s.Resolver = r
	return s
}

func mustParse(t testing.TB, raw string) ID {
	t.Helper()
	id, err := testRules.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// remember puts a good document into memory as if it had just been fetched.
func (s *steady) remember(t *testing.T, id ID, header http.Header) *entry {
	t.Helper()
	body, err := json.Marshal(map[string]any{"client_id": id.String(), "redirect_uris": []string{"https://good.test/cb"}})
	if err != nil {
		t.Fatal(err)
	}
	now := s.clock()
	header = header.Clone()
	header.Set("Content-Type", "application/json")
	e, refusal := s.read(documentTarget(id), &safehttp.Response{Status: 200, Header: header, Body: body, Sent: now, Received: now})
	if refusal != nil {
		t.Fatal(refusal)
	}
	s.keep(documentTarget(id), e)
	return e
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemoryUnderStrangers is R2 in the small: whatever strangers send, the memory
// that is kept is bounded.
func TestMemoryUnderStrangers(t *testing.T) {
	if testing.Short() {
		t.Skip("a flood")
	}
	const ids, most = 20_000, 24 << 20 // more than any of the memories holds
	pad := strings.Repeat("x", 1800)
	flood := func(t *testing.T, s *steady, raw func(i int) string) int64 {
		before := heap()
		for i := range ids {
			// As a server has it: the client_id is a part of the request line.
			line := "GET /authorize?client_id=" + raw(i) + "&state=" + pad
			id := mustParse(t, line[len("GET /authorize?client_id="):strings.IndexByte(line, '&')])
			if _, err := s.Resolve(WithSource(t.Context(), fmt.Sprintf("10.0.%d.%d", i>>8&255, i&255)), id); err == nil {
				t.Fatal("it resolved")
			}
		}
		grown := heap() - before
		runtime.KeepAlive(s)
		return grown
	}
	t.Run("R2, attack DS-01: names of hosts that do not exist, under the budgets", func(t *testing.T) {
		s := newSteady(t, nil)
		if grown := flood(t, s, func(i int) string { return fmt.Sprintf("https://h%d.test/%s%d", i, pad, i) }); grown > most {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
	t.Run("R2, attack DS-02: the same without any budget", func(t *testing.T) {
		none := Rate{Every: -1}
		s := newSteady(t, func(c *Config) { c.Budgets = Budgets{PerSource: none, PerHost: none, Global: none} })
		if grown := flood(t, s, func(i int) string { return fmt.Sprintf("https://h%d.test/%s%d", i, pad, i) }); grown > most {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
}

func TestMemoryOfEntries(t *testing.T) {
	t.Run("R2 headers count, and what was cut off is not kept", func(t *testing.T) {
		s := newSteady(t, nil)
		const most = 48 << 20
		before := heap()
		for i := range 14_000 {
			id := mustParse(t, fmt.Sprintf("https://h%d.test/c.json", i))
			long := fmt.Sprintf("%d%s", i, strings.Repeat("y", 3800))
			s.remember(t, id, http.Header{"Etag": {long}, "Pragma": {strings.Clone(long)}, "Vary": {strings.Clone(long)}, "Cache-Control": {"x=" + long}})
		}
		if grown := heap() - before; grown > most {
			t.Errorf("the heap grew by %d MiB, the limit is %d", grown>>20, most>>20)
		}
		runtime.KeepAlive(s)
	})
	t.Run("R2 a kept client_id is not a part of the request it came in", func(t *testing.T) {
		s := newSteady(t, func(c *Config) { c.Persist = fixedShelf{} })
		request := "GET /authorize?client_id=https://good.test/c.json&state=" + strings.Repeat("x", 1<<20)
		id := mustParse(t, request[25:25+len("https://good.test/c.json")])
		before := heap()
		_, err := s.Resolve(t.Context(), id)
		if err == nil {
			t.Fatal("it resolved")
		}
		s.Pin(id, true)
		id, request = ID{}, "" //nolint:ineffassign,wastedassign // lets go of the request
		if grown := heap() - before; grown > -1<<19 {
			t.Errorf("the request is still there: %d KiB", grown>>10)
		}
		runtime.KeepAlive(s)
	})
}

type fixedShelf struct{}

func (fixedShelf) Load(context.Context, string) ([]byte, bool, error) { return nil, false, nil }
func (fixedShelf) Save(context.Context, string, ID, []byte) error     { return nil }

func TestFailuresForgetTheirCause(t *testing.T) {
	chain := &tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{{Raw: make([]byte, 1<<16)}}, Err: errors.New(strings.Repeat("bad", 1000))}
	for _, cause := range []error{&safehttp.Error{Kind: safehttp.KindTLS, Err: chain}, chain} {
		b := newBackoff()
		tgt := documentTarget(mustParse(t, "https://good.test/c.json"))
		now := time.Unix(1e9, 0)
		b.failed(tgt, &Error{Kind: KindFetch, Rule: "FETCH-04", Hint: "hint", Err: cause}, now)
		f, ok := b.state(tgt)
		if !ok || f.last.Hint != "hint" || f.last.Rule != "FETCH-04" {
			t.Fatalf("R2 failure %+v", f)
		}
		if _, held := errors.AsType[*tls.CertificateVerificationError](f.last); held {
			t.Error("R2 a remembered failure holds the certificates of the host")
		}
		if n := len(f.last.Error()); n > 1024 {
			t.Errorf("R2 its text has %d bytes", n)
		}
		refusal := b.blocked(tgt, now, false)
		if refusal == nil || !soft(refusal) {
			t.Errorf("CACHE-14 %v is no longer a failure of the network", refusal)
		}
	}
	b := newBackoff()
	tgt := documentTarget(mustParse(t, "https://good.test/c.json"))
	slow := &Error{Kind: KindFetch, Err: &safehttp.Error{Kind: safehttp.KindTimeout, Err: context.DeadlineExceeded}}
	b.failed(tgt, slow, time.Unix(1e9, 0))
	if f, _ := b.state(tgt); !timedOut(f.last) || !hostFailed(f.last) {
		t.Error("DS-07 a time limit is no longer told from other failures")
	}
}

func TestClockSetBack(t *testing.T) {
	id := mustParse(t, "https://good.test/c.json")
	t.Run("attack FA-11: an entry from the future is asked about again", func(t *testing.T) {
		s := newSteady(t, nil)
		s.remember(t, id, http.Header{"Cache-Control": {"max-age=600"}})
		s.move(-30 * time.Second) // a correction of the clock changes nothing
		if _, ok := s.Cached(t.Context(), id); !ok {
			t.Error("a small step back made the entry stale")
		}
		s.move(-5 * 365 * 24 * time.Hour)
		if doc, ok := s.Cached(t.Context(), id); ok {
			t.Errorf("it is fresh until %v, and now is %v", doc.Freshness.Expires, s.clock())
		}
		if doc, err := s.Resolve(t.Context(), id); err == nil {
			t.Errorf("it stands in for its host: %v", doc.Stale)
		}
	})
	t.Run("attack FA-11, CACHE-13: a failure from the future holds up nothing", func(t *testing.T) {
		s := newSteady(t, nil)
		if _, err := s.Resolve(t.Context(), id); err == nil {
			t.Fatal("it resolved")
		}
		s.move(-time.Hour)
		_, err := s.Resolve(t.Context(), id)
		if e := asError(err); e.Kind != KindFetch {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("attack FA-11: the cool-down of a key set does not last longer", func(t *testing.T) {
		now := time.Unix(1e9, 0)
		e := &entry{keys: &fetchedKeys{}, received: now.Add(-2 * time.Hour), attempted: now.Add(time.Hour), fresh: Freshness{Expires: now.Add(time.Hour)}}
		if e.serves("new", now) {
			t.Error("an unknown kid waits for an hour")
		}
	})
}

// slowShelf hands out an old entry when it is told to.
type slowShelf struct {
	fixedShelf
	raw     []byte
	asked   chan struct{}
	release chan struct{}
	panics  bool
}

func (s *slowShelf) Load(context.Context, string) ([]byte, bool, error) {
	if s.panics {
		panic("damaged beyond reading")
	}
	close(s.asked)
	<-s.release
	return s.raw, true, nil
}

func TestRestore(t *testing.T) {
	id := mustParse(t, "https://good.test/c.json")
	t.Run("CACHE-12 a stored entry never replaces what was fetched while it was read", func(t *testing.T) {
		shelf := &slowShelf{asked: make(chan struct{}), release: make(chan struct{})}
		s := newSteady(t, func(c *Config) { c.Persist = shelf })
		old := s.clock().Add(-time.Minute)
		var err error
		shelf.raw, err = json.Marshal(record{Version: recordVersion, URL: id.String(), Sent: old, Received: old, Fetched: old, Changed: old,
			Header: http.Header{"Cache-Control": {"max-age=600"}},
			Body:   []byte(`{"client_id":"https://good.test/c.json","redirect_uris":["https://good.test/old"]}`)})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan *Document)
		go func() { doc, _ := s.Cached(t.Context(), id); got <- doc }()
		<-shelf.asked
		e := s.remember(t, id, http.Header{"Cache-Control": {"max-age=600"}})
		close(shelf.release)
		if doc := <-got; doc != e.doc {
			t.Errorf("got %+v", doc)
		}
		if s.docs.peek(documentTarget(id).key()) != e {
			t.Error("the old entry is in the cache now")
		}
	})
	t.Run("a stored entry that makes the reader panic is reported and does not end the process", func(t *testing.T) {
		var seen []Event
		s := newSteady(t, func(c *Config) {
			c.Persist = &slowShelf{panics: true}
			c.Observe = func(_ context.Context, ev Event) { seen = append(seen, ev) }
		})
		if _, ok := s.Cached(t.Context(), id); ok {
			t.Error("there is a document")
		}
		if len(seen) != 1 || seen[0].Type != EventStore || !strings.Contains(seen[0].Err.Error(), "panic") {
			t.Errorf("events are %+v", seen)
		}
	})
}

func TestFlightWithoutAnEnd(t *testing.T) {
	var f flights
	fl, _, _ := f.join(key{url: "x"}, func() (*entry, *Error) { return nil, nil }, func() (*entry, *Error) {
		runtime.Goexit() // what t.FailNow does in an Observe hook
		return nil, nil
	})
	e, err := fl.result(t.Context())
	if e != nil || err == nil {
		t.Errorf("R15 got %v, %v", e, err)
	}
	f.close()
	if len(f.m) != 0 {
		t.Error("R15 the flight is still there")
	}
}

func TestRefusedFetchesRememberNoSite(t *testing.T) {
	b := newBudget(Budgets{
		PerSource: Rate{Every: time.Hour, Burst: 2}, PerHost: Rate{Every: time.Hour, Burst: 1}, Global: Rate{Every: time.Hour, Burst: 5},
	})
	now := time.Unix(1e9, 0)
	if b.take("one", "evil.test", now) != nil || b.take("one", "a.test", now) != nil {
		t.Fatal("the budget refused too early")
	}
	for i := range 100 {
		if b.take("one", fmt.Sprintf("s%d.test", i), now) == nil {
			t.Fatal("DS-02 the source has no budget left")
		}
	}
	if n := b.sites.order.Len(); n != 2 {
		t.Errorf("DS-02 %d sites are remembered, so that refused requests can push one out", n)
	}
	if b.take("two", "evil.test", now) == nil {
		t.Error("DS-02 evil.test has a budget again")
	}
	full := newBudget(Budgets{PerSource: Rate{Every: time.Hour, Burst: 9}, PerHost: Rate{Every: time.Hour, Burst: 9}, Global: Rate{Every: time.Hour, Burst: 1}})
	for i := range 9 {
		full.take("one", fmt.Sprintf("s%d.test", i), now)
	}
	if n := full.sites.order.Len(); n != 1 {
		t.Errorf("DS-02 %d sites are remembered while the process has no budget left", n)
	}
	// A refusal by the last of the three gives back what the others took.
	for i := range 2 {
		if err := b.take("two", fmt.Sprintf("other%d.test", i), now); err != nil {
			t.Errorf("FETCH-19 fetch %d: %v", i, err)
		}
	}
}

func TestSharedKeySetStaysPinned(t *testing.T) {
	s := newSteady(t, nil)
	a, b := mustParse(t, "https://a.test/c.json"), mustParse(t, "https://b.test/c.json")
	const uri = "https://a.test/jwks.json"
	of := func(id ID) target { return target{kind: kindJWKS, url: uri, id: id} }
	e := s.remember(t, a, http.Header{})
	e.doc.JWKSURI = uri
	s.Pin(a, true)
	s.keep(of(a), &entry{keys: &fetchedKeys{}})
	if !s.keys.pinned(of(a).key()) {
		t.Fatal("CACHE-16 the key set is not pinned")
	}
	s.keep(of(b), &entry{keys: &fetchedKeys{}})
	if !s.keys.pinned(of(a).key()) {
		t.Error("CACHE-16 a stranger who names the same jwks_uri unpinned it")
	}
	s.Pin(a, false)
	if s.keys.pinned(of(a).key()) {
		t.Error("CACHE-16 the key set outlives the pin")
	}
}

// manyScans is a progressive JPEG whose scans are passes over the whole image in
// thirteen bytes each.
func manyScans(side, scans int) []byte {
	var b bytes.Buffer
	put := func(p ...byte) { b.Write(p) }
	put(0xff, 0xd8, 0xff, 0xdb, 0, 67, 0)
	put(bytes.Repeat([]byte{1}, 64)...)
	put(0xff, 0xc2, 0, 11, 8, byte(side>>8), byte(side), byte(side>>8), byte(side), 1, 1, 0x11, 0)
	table := func(id, symbol byte) {
		put(0xff, 0xc4, 0, 20, id, 1)
		put(make([]byte, 15)...)
		put(symbol)
	}
	table(0x00, 0)    // every DC difference is zero
	table(0x10, 0xe0) // the one AC symbol: 16,384 blocks without a coefficient
	put(0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0)
	put(make([]byte, (side/8*side/8+7)/8)...)
	for range scans - 1 {
		put(0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0, 0, 0, 0x7f)
	}
	put(0xff, 0xd9)
	return b.Bytes()
}

func TestLogoOfManyScans(t *testing.T) {
	s := newSteady(t, nil)
	if _, err := s.redraw(manyScans(64, 10)); err != nil {
		t.Fatalf("CONS-07 a progressive JPEG: %v", err)
	}
	bomb := manyScans(1024, 19_000)
	if int64(len(bomb)) > s.cfg.Limits.LogoBytes {
		t.Fatalf("the bomb has %d bytes and would not be read", len(bomb))
	}
	if _, err := s.redraw(bomb); err == nil || err.Rule != "CONS-07" {
		t.Errorf("R1, attack CN-15: 250 kB keep a processor busy for seconds: %v", err)
	}
}

func TestProfileThatDoesNotExist(t *testing.T) {
	if _, err := New(Config{Profile: "cimd-99"}); err == nil || !bytes.Contains([]byte(err.Error()), []byte("cimd-99")) {
		t.Errorf("got %v", err)
	}
}

func TestHeadersOfAConfirmation(t *testing.T) {
	stored := http.Header{"Age": {"3000"}, "Date": {"Thu, 01 Jan 1970 00:00:00 GMT"}, "Cache-Control": {"max-age=600"}, "Etag": {`"a"`}, "Content-Type": {"application/json"}}
	got := mergeHeaders(stored, http.Header{"Content-Type": {"text/html"}, "Set-Cookie": {"a=b"}})
	if got.Get("Age") != "" || got.Get("Date") != "" {
		t.Errorf("CACHE-09 a 304 inherits Age and Date of another response: %v", got)
	}
	if got.Get("Cache-Control") != "max-age=600" || got.Get("Etag") != `"a"` || got.Get("Content-Type") != "application/json" || got.Get("Set-Cookie") != "" {
		t.Errorf("CACHE-09 headers are %v", got)
	}
	if got := mergeHeaders(stored, http.Header{"Age": {"5"}, "Cache-Control": {"max-age=60"}}); got.Get("Age") != "5" || got.Get("Cache-Control") != "max-age=60" || stored.Get("Age") != "3000" {
		t.Errorf("CACHE-09 headers are %v", got)
	}
}
