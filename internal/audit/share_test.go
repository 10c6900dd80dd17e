package audit

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// refused is a refusal of somebody at an address, with the reference they were told.
func refused(ip, ref string) Event { return Event{Type: TypeRefusal, IP: ip, Ref: ref} }

func (m *memory) refs() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]bool{}
	for _, e := range m.events {
		out[e.Ref] = true
	}
	return out
}

func TestNoFloodHidesOthers(t *testing.T) {
	floods := map[string]func(n int) string{
		"one address":                   func(int) string { return "203.0.113.9" },
		"one IPv6 network":              func(n int) string { return fmt.Sprintf("2001:db8:0:%x::%x", n%256, n) },
		"two hundred networks in turns": func(n int) string { return fmt.Sprintf("198.18.%d.9", n%200) },
	}
	for name, flooder := range floods {
		t.Run("attack DS-12, CAUTH-17: while "+name+" floods, the reference of everybody else finds its event", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				l := start(t, Config{Sink: m})
				const minutes, each = 10, 6_000
				var told []string
				for i := range minutes * each {
					l.Note(refused(flooder(i), fmt.Sprint("flood ", i)))
					if i%600 == 599 && i > each { // every six seconds somebody else, once many floods have shown what they are
						for range 2 { // twice, from one of forty networks
							told = append(told, fmt.Sprint("honest ", len(told)))
							l.Note(refused(fmt.Sprintf("192.0.2.%d", len(told)/2%40), told[len(told)-1]))
						}
					}
					time.Sleep(time.Minute / each)
				}
				if err := l.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				found, lost := m.refs(), 0
				for _, ref := range told {
					if !found[ref] {
						lost++
					}
				}
				if lost > 0 {
					t.Errorf("%d of %d references find nothing", lost, len(told))
				}
				if got, most := m.types()[TypeRefusal], DefaultBurst+int(minutes*60*DefaultRate); got > most+1 || got < most/2 {
					t.Errorf("%d refusals written, want at most %d and not much less", got, most)
				}
			})
		})
	}
	t.Run("attack DS-12: who cannot be told apart gets most of what there is", func(t *testing.T) {
		m := &memory{}
		l := start(t, Config{Sink: m, Now: func() time.Time { return noon }})
		for range 1000 {
			l.Note(refused("192.0.2.1", ""))
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := m.types()[TypeRefusal]; got != 75 {
			t.Errorf("%d written", got)
		}
	})
	t.Run("the count says who caused most of it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &memory{}
			l := start(t, Config{Sink: m, Burst: 1, Rate: 0.0001})
			for range 2 {
				for i := range 30 {
					l.Note(refused("192.0.2.1", ""))
					if i%3 == 0 {
						l.Note(refused("2001:db8::1", ""))
					}
				}
				time.Sleep(time.Minute)
				synctest.Wait()
			}
			if err := l.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range m.events {
				if e.Type == TypeSuppressed {
					got = append(got, e.Data["most"]+" "+e.Data["most_from"]+" of "+e.Data["count"])
				}
			}
			if want := "29 192.0.2.1 of 39, 30 192.0.2.1 of 40"; strings.Join(got, ", ") != want {
				t.Errorf("%q", got)
			}
		})
	})
	t.Run("attack DS-12: what is remembered of sources is bounded, and so is what is written for them", func(t *testing.T) {
		m := &memory{}
		l := start(t, Config{Sink: m, Now: func() time.Time { return noon }})
		at := netip.MustParseAddr("10.0.0.0")
		for range 5 * maxSources {
			l.Note(refused(at.String(), ""))
			at = at.Next()
		}
		if n := len(l.young) + len(l.old); n > 2*maxSources {
			t.Errorf("%d sources", n)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := m.types()[TypeRefusal]; got != DefaultBurst {
			t.Errorf("%d written", got)
		}
	})
	t.Run("a clock that is set back makes nobody loud for longer than an hour", func(t *testing.T) {
		now := noon
		l := start(t, Config{Sink: &memory{}, Now: func() time.Time { return now }})
		defer l.Close(t.Context())
		e := refused("192.0.2.1", "")
		for range few {
			l.Note(e)
		}
		now = noon.Add(-5 * fewIn)
		l.Note(e)
		if s := l.young[from{TypeRefusal, "192.0.2.1"}]; s.written != 1 || !s.until.Equal(now.Add(fewIn)) {
			t.Errorf("%d written until %v", s.written, s.until)
		}
	})
}

func TestOrigin(t *testing.T) {
	for want, e := range map[string]Event{
		"192.0.2.1":             {IP: "::ffff:192.0.2.1", Client: "https://a.test/c"},
		"2001:db8:0:100::/56":   {IP: "2001:db8:0:1ff::1"},
		"a.test:8443":           {IP: "invalid IP", Client: "https://a.test:8443/c.json"},
		"opaque":                {Client: "opaque"},
		"":                      {},
		strings.Repeat("b", 64): {Client: "https://" + strings.Repeat("a", 99) + strings.Repeat("b", 64) + "/c"},
	} {
		if got := origin(&e); got != want {
			t.Errorf("%+v: %q, not %q", e, got, want)
		}
	}
}
