package server

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestRoomForGarbage(t *testing.T) {
	const mib = 1 << 20
	for _, row := range []struct {
		name string
		is   footprint
		want int64
	}{
		{"R2 nothing is known yet", footprint{}, 64 * mib},
		{"R2 at rest", footprint{6 * mib, 4 * mib, 6 * mib}, 64 * mib},
		{"R2 with a full cache garbage takes what is left", footprint{30 * mib, 8 * mib, 8 * mib}, 64 * mib},
		{"R2 a heap in fragments keeps room for garbage", footprint{36 * mib, 40 * mib, 8 * mib}, 99 * mib},
		{"R2 ten thousand connections get as much as Go would give them", footprint{400 * mib, 30 * mib, 60 * mib}, 1226 * mib},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := row.is.limit(); got != row.want {
				t.Errorf("%d MiB, want %d", got/mib, row.want/mib)
			}
		})
	}
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	t.Run("R2 the collector is told, and told again when it is over", func(t *testing.T) {
		var p pace
		for _, row := range []struct{ live, want int64 }{{6 * mib, 64 * mib}, {232 * mib, 632 * mib}, {232*mib + 1000, 632 * mib}, {6 * mib, 64 * mib}} {
			p.follow(footprint{live: row.live})
			if got := debug.SetMemoryLimit(-1); got != row.want {
				t.Errorf("with %d MiB in use: %d MiB, want %d", row.live/mib, got/mib, row.want/mib)
			}
		}
	})
	t.Run("R2 what is measured is what there is", func(t *testing.T) {
		ballast := make([]byte, 64*mib)
		runtime.GC()
		if f := measured(); f.live < 64*mib || f.live > 512*mib || f.rest <= 0 || f.fragments <= 0 {
			t.Errorf("%+v", f)
		}
		runtime.KeepAlive(ballast)
	})
	t.Run("R2 an operator who sets it knows better", func(t *testing.T) {
		for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
			t.Run(name, func(t *testing.T) {
				t.Setenv(name, "100")
				debug.SetMemoryLimit(math.MaxInt64)
				if err := new(pace).tend(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
					t.Errorf("%d", got)
				}
			})
		}
	})
}
