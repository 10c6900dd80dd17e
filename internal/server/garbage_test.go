package server

import (
	"runtime/debug"
	"testing"
)

func TestRoomForGarbage(t *testing.T) {
	for _, row := range []struct {
		name string
		live uint64
		want int
	}{
		{"R2 nothing is known yet", 0, 100},
		{"R2 at rest it is Go's own", 6 << 20, 100},
		{"R2 up to 16 MiB it is Go's own", 16 << 20, 100},
		{"R2 with a full cache it is 16 MiB", 32 << 20, 50},
		{"R2 with everything full it is 16 MiB", 64 << 20, 25},
		{"R2 beyond that it grows again", 96 << 20, 50},
		{"R2 with ten thousand connections it is almost Go's own", 480 << 20, 90},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := room(row.live); got != row.want {
				t.Errorf("%d %%, want %d", got, row.want)
			}
		})
	}
	t.Run("R2 the collector is told, and told again when it is over", func(t *testing.T) {
		was := debug.SetGCPercent(100)
		defer debug.SetGCPercent(was)
		var g garbage
		g.follow(32 << 20)
		if got := debug.SetGCPercent(50); got != 50 {
			t.Errorf("%d %% with 32 MiB in use", got)
		}
		g.follow(33 << 20) // about the same
		g.follow(6 << 20)
		if got := debug.SetGCPercent(100); got != 100 {
			t.Errorf("%d %% at rest", got)
		}
	})
	t.Run("R2 an operator who sets it knows better", func(t *testing.T) {
		t.Setenv("GOGC", "80")
		was := debug.SetGCPercent(80)
		defer debug.SetGCPercent(was)
		if err := new(garbage).tend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := debug.SetGCPercent(80); got != 80 {
			t.Errorf("%d %%", got)
		}
	})
}
