package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// memory is a sink that fails while told to.
type memory struct {
	mu     sync.Mutex
	events []Event
	fail   error
	gate   chan struct{} // when set, AppendEvents waits for it
}

func (m *memory) AppendEvents(ctx context.Context, events ...Event) error {
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.events = append(m.events, events...)
	return nil
}

func (m *memory) types() map[Type]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[Type]int{}
	for _, e := range m.events {
		out[e.Type]++
	}
	return out
}

func (m *memory) suppressed() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]string{}
	for _, e := range m.events {
		if e.Type == TypeSuppressed {
			out[e.Code] = e.Data["count"]
		}
	}
	return out
}

func start(t *testing.T, c Config) *Log {
	t.Helper()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNewNeedsASink(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a log without a sink")
	}
}

func TestRecord(t *testing.T) {
	t.Run("POL-07 an event is written, cleaned and stamped before Record returns", func(t *testing.T) {
		m := &memory{}
		var seen []Event
		l := start(t, Config{Sink: m, Now: func() time.Time { return noon }, Observe: func(e Event) { seen = append(seen, e) }})
		defer l.Close(t.Context())
		if err := l.Record(t.Context(), Event{Type: TypeReuse, Client: "a\nb", Data: map[string]string{"token": "x"}}); err != nil {
			t.Fatal(err)
		}
		want := []Event{{Time: noon.UTC().Truncate(time.Microsecond), Type: TypeReuse, Client: `a\u000ab`, Data: map[string]string{}}}
		if d := cmp.Diff(want, m.events); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(want, seen); d != "" {
			t.Error(d)
		}
	})
	t.Run("what was not written is not observed", func(t *testing.T) {
		m := &memory{fail: errors.New("disk full")}
		l := start(t, Config{Sink: m, Observe: func(Event) { t.Error("observed") }})
		defer l.Close(t.Context())
		if err := l.Record(t.Context(), Event{Type: TypeReuse}); !errors.Is(err, m.fail) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("Observe passes on without writing", func(t *testing.T) {
		m := &memory{}
		var seen []Event
		l := start(t, Config{Sink: m, Observe: func(e Event) { seen = append(seen, e) }})
		defer l.Close(t.Context())
		l.Observe(Event{Type: TypeConsent, Time: noon})
		if len(m.events) != 0 || len(seen) != 1 {
			t.Errorf("%d written, %d seen", len(m.events), len(seen))
		}
	})
	t.Run("events are observed one at a time", func(t *testing.T) {
		inside := 0
		l := start(t, Config{Sink: &memory{}, Observe: func(Event) {
			if inside++; inside != 1 {
				t.Error("two at once")
			}
			inside--
		}})
		defer l.Close(t.Context())
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() { _ = l.Record(t.Context(), Event{Type: TypeLogin}) })
		}
		wg.Wait()
	})
}

func TestNote(t *testing.T) {
	t.Run("attack DS-12: a flood of refusals is counted, not written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &memory{}
			l := start(t, Config{Sink: m})
			const minutes, each = 10, 20_000
			for range minutes {
				for i := range each {
					l.Note(Event{Type: TypeRefusal, Client: fmt.Sprint(i)})
				}
				l.Note(Event{Type: TypeLoginFailed})
				time.Sleep(time.Minute)
				synctest.Wait()
			}
			if err := l.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := m.types()
			if most := DefaultBurst * minutes; got[TypeRefusal] > most || got[TypeRefusal] < minutes {
				t.Errorf("%d refusals written, want at most %d", got[TypeRefusal], most)
			}
			if got[TypeLoginFailed] != minutes {
				t.Errorf("a flood of one type hid %d events of another", minutes-got[TypeLoginFailed])
			}
			if got[TypeSuppressed] != minutes {
				t.Errorf("%d summaries, want one for each minute", got[TypeSuppressed])
			}
			total := got[TypeRefusal]
			for _, e := range m.events {
				if e.Type == TypeSuppressed {
					var n int
					fmt.Sscan(e.Data["count"], &n)
					total += n
				}
			}
			if total != minutes*each {
				t.Errorf("%d refusals written or counted, want %d", total, minutes*each)
			}
		})
	})
	t.Run("tokens come back with time, not with a clock that runs backwards", func(t *testing.T) {
		now := noon
		b := &bucket{tokens: 1, filled: now}
		take := func() bool {
			if b.fill(now, 1, 2); b.tokens < 1 {
				return false
			}
			b.tokens--
			return true
		}
		got := []bool{take(), take()}
		now = now.Add(-time.Hour)
		got = append(got, take())
		now = now.Add(time.Second)
		got = append(got, take(), take())
		now = now.Add(time.Hour)
		got = append(got, take(), take(), take())
		if want := []bool{true, false, false, true, false, true, true, false}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("Note never waits for a sink that does not answer", func(t *testing.T) {
		m := &memory{gate: make(chan struct{})}
		l := start(t, Config{Sink: m, Queue: 4, Burst: 1000})
		for range 500 {
			l.Note(Event{Type: TypeRefusal})
		}
		close(m.gate)
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		var counted int
		fmt.Sscan(m.suppressed()["refusal"], &counted)
		if written := m.types()[TypeRefusal]; written+counted != 500 || written < 4 {
			t.Errorf("%d written and %d counted of 500", written, counted)
		}
	})
	t.Run("what the sink refuses is counted and reported when it works again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &memory{fail: errors.New("disk full")}
			l := start(t, Config{Sink: m, Burst: 1})
			for range 3 {
				l.Note(Event{Type: TypeRefusal})
			}
			synctest.Wait()
			time.Sleep(time.Minute) // this report is lost as well
			synctest.Wait()
			m.mu.Lock()
			m.fail = nil
			m.mu.Unlock()
			time.Sleep(time.Minute)
			synctest.Wait()
			if d := cmp.Diff(map[string]string{"refusal": "3"}, m.suppressed()); d != "" {
				t.Error(d)
			}
			if err := l.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("the number of counters is bounded", func(t *testing.T) {
		l := start(t, Config{Sink: &memory{}})
		defer l.Close(t.Context())
		for i := range 1000 {
			l.Note(Event{Type: Type(fmt.Sprint(i))})
		}
		if n := len(l.buckets); n > maxTypes+1 {
			t.Errorf("%d counters", n)
		}
	})
}

func TestClose(t *testing.T) {
	t.Run("Close writes what waits; afterwards nothing panics", func(t *testing.T) {
		m := &memory{}
		l := start(t, Config{Sink: m})
		for range 50 {
			l.Note(Event{Type: TypeRefusal})
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					l.Note(Event{Type: TypeFetch})
				}
			})
		}
		if err := errors.Join(l.Close(t.Context()), l.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		before := m.types()
		l.Note(Event{Type: TypeRefusal})
		l.Observe(Event{Type: TypeRefusal})
		if d := cmp.Diff(before, m.types()); d != "" || before[TypeRefusal] != 50 {
			t.Errorf("%v, then %s", before, d)
		}
	})
	t.Run("Close gives up with its context", func(t *testing.T) {
		m := &memory{gate: make(chan struct{})}
		l := start(t, Config{Sink: m})
		l.Note(Event{Type: TypeRefusal})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		close(m.gate)
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
