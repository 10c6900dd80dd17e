package audit

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestCleanAtTheEdge(t *testing.T) {
	jws := func(header, payload string) string { return "eyJ" + header + "." + payload }
	for _, c := range []struct{ name, in, want string }{
		{"AD-07 nothing but controls", "\x00\x01\x1f\x7f", `\u0000\u0001\u001f\u007f`},
		{"AD-07 nothing but a line break", "\n", `\u000a`},
		{"spaces stay", "  ", "  "},
		{"the first and the last printable letters stay", " ~", " ~"},
		{"a replacement character that was sent stays", "a\ufffdb", "a\ufffdb"},
		{"letters beyond the first plane stay", "a\U0001f600b", "a\U0001f600b"},
		{"as long as may be", strings.Repeat("a", MaxField), strings.Repeat("a", MaxField)},
		{"a byte longer", strings.Repeat("a", MaxField+1), strings.Repeat("a", MaxField-3) + "…"},
		{"TK-13 the shortest credentials", "Bearer 12345678", Removed},
		{"TK-13 of any scheme", "dPoP 12345678", Removed},
		{"too short for credentials", "Bearer 1234567", "Bearer 1234567"},
		{"words behind a scheme", "basic things are hard", "basic things are hard"},
		{"a scheme alone", "bearer ", "bearer "},
		{"another word that begins like a scheme", "bearers 12345678", "bearers 12345678"},
		{"TK-13 the shortest JWS", jws("7890abc", "1234567890"), Removed},
		{"TK-13 a JWS of every letter", jws("azAZ09-_azAZ09-_", "azAZ09-_azAZ09-_"), Removed},
		{"too short a header", jws("789abc", "1234567890"), jws("789abc", "1234567890")},
		{"too short a payload", jws("7890abc", "123456789"), jws("7890abc", "123456789")},
		{"TK-13 a JWS behind something like one", "eyJ x " + jws("7890abc", "1234567890"), Removed},
		{"TK-13 the hash of a password", "$argon2id$v=19$m=1", Removed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (Event{User: c.in}).Clean().User; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNotedEventsAreCleanWhenTheyAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &memory{}
		var seen []Event
		l, err := New(Config{Sink: sink, Observe: func(e Event) { seen = append(seen, e) }, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		l.Note(Event{Type: TypeRefusal, User: "a\nb"})
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if len(sink.events) != 1 || sink.events[0].User != `a\u000ab` || !sink.events[0].Time.Equal(at.Truncate(time.Microsecond)) || len(seen) != 1 || seen[0].User != `a\u000ab` {
			t.Errorf("AD-07 wrote %+v, showed %+v", sink.events, seen)
		}
	})
}
