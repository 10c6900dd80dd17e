package server

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// The collector of Go runs when the heap has doubled. With a cache of documents
// full of what strangers brought, that is 50 MiB of garbage in the memory of the
// machine, so that beyond 16 MiB in use it runs sooner: garbage takes 16 MiB
// (figure R2). A heap that is larger than any cache of ours, because ten thousand
// connections are open, goes by Go's own rule again, bit by bit: collecting it is
// dear.
const (
	garbageRoom = 16 << 20
	ordinary    = 48 << 20 // what the caches and the counts of strangers take at most
	leastRoom   = 20       // percent
	usualRoom   = 100      // percent, of Go
)

// room returns how much garbage there may be, in percent of what is in use.
func room(live uint64) int {
	if live == 0 {
		return usualRoom
	}
	spare := uint64(garbageRoom)
	if live > ordinary+spare {
		spare = live - ordinary
	}
	return int(min(usualRoom, max(leastRoom, spare*100/live)))
}

// garbage sets the pace of the collector. An operator who sets GOGC or GOMEMLIMIT
// knows better.
type garbage struct {
	set atomic.Int64 // percent; 0: as it was
}

func (g *garbage) tend(context.Context) error {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if live[0].Value.Kind() == metrics.KindUint64 {
		g.follow(live[0].Value.Uint64())
	}
	return nil
}

// follow sets the percentage for a heap, if it is not about what it is already.
func (g *garbage) follow(live uint64) {
	want, is := room(live), int(g.set.Load())
	if is == 0 {
		is = usualRoom
	}
	if want-is < 5 && is-want < 5 {
		return
	}
	debug.SetGCPercent(want)
	g.set.Store(int64(want))
}
