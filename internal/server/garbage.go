package server

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
)

// The collector of Go runs when the heap has doubled. With a cache of documents
// full of what strangers brought that is 50 MiB of garbage, and fragments beside
// it. So the memory of the Go runtime has a soft limit: what a full cache takes
// with as much garbage as then fits below figure R2. A process that needs more,
// because ten thousand connections are open, gets a limit that leaves it room:
// one that it cannot keep would make the collector run all the time.
const (
	usualMemory = 64 << 20 // of the Go runtime; the program and SQLite come on top
	leastRoom   = 15 << 20 // for garbage
	fullCache   = 32 << 20 // in use; what is more is not the cache, and gets twice as much room for garbage
)

// footprint is what the runtime needs, in bytes.
type footprint struct {
	live      int64 // objects that the last collection found in use
	fragments int64 // what is not used of the pages they are on
	rest      int64 // stacks, and the runtime itself
}

// limit returns what the runtime may take with garbage.
func (f footprint) limit() int64 {
	return max(usualMemory, f.live+f.fragments+f.rest+max(leastRoom, 2*(f.live-fullCache)))
}

// measured returns the footprint of this process.
func measured() (f footprint) {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(s)
	n := func(i int) int64 {
		if s[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return int64(s[i].Value.Uint64()) //nolint:gosec // bytes of one process
	}
	f.live, f.fragments = n(0), n(1)
	f.rest = max(0, n(2)-n(1)-n(3)-n(4)-n(5))
	return f
}

// pace keeps the limit. An operator who sets GOGC or GOMEMLIMIT knows better.
type pace struct {
	limit int64 // 0: none yet
}

func (p *pace) tend(context.Context) error {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		p.follow(measured())
	}
	return nil
}

// follow sets the limit for a footprint, if it is not about what it is already.
func (p *pace) follow(f footprint) {
	want := f.limit()
	if d := want - p.limit; -1<<20 < d && d < 1<<20 {
		return
	}
	p.limit = want
	debug.SetMemoryLimit(want)
}
