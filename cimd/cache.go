package cimd

import (
	"container/list"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// cache holds entries under a bound of bytes and of number. A new entry is on
// probation; one that is used again before its turn comes moves to the main
// queue, and from there it leaves only after its uses are spent. One that left
// probation and comes back goes to the main queue at once. A flood of entries that
// nobody comes back to therefore passes through probation alone, and a pinned
// entry goes only when nothing else is left (CACHE-16, DS-08).
type cache struct {
	maxBytes   int64
	maxEntries int

	mu    sync.RWMutex // guards everything below; uses of a slot are atomic
	slots map[key]*slot
	queue [3]struct {
		list.List // oldest in front
		bytes     int64
	}
	bytes int64
	gone  *memory // of what left probation
}

const (
	probation = iota
	main
	pinned
)

// maxUses bounds how many rounds through the main queue an entry can earn.
const maxUses = 3

type slot struct {
	key   key
	entry *entry
	cost  int64
	uses  atomic.Int32
	queue int
	elem  *list.Element
}

func newCache(maxBytes int64, maxEntries int) *cache {
	return &cache{maxBytes: maxBytes, maxEntries: maxEntries, slots: make(map[key]*slot), gone: newMemory(maxEntries)}
}

// get returns the entry and counts a use of it.
func (c *cache) get(k key) *entry {
	c.mu.RLock()
	s := c.slots[k]
	if s == nil {
		c.mu.RUnlock()
		return nil
	}
	e := s.entry
	c.mu.RUnlock()
	if s.uses.Load() < maxUses {
		s.uses.Add(1)
	}
	return e
}

// peek returns the entry without counting a use.
func (c *cache) peek(k key) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.slots[k]; s != nil {
		return s.entry
	}
	return nil
}

// put stores an entry, and pins it if asked. Replacing an entry keeps its place.
func (c *cache) put(k key, e *entry, pin bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(k, e, pin)
}

// add stores an entry unless there is one, and returns the one that is there.
func (c *cache) add(k key, e *entry, pin bool) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.slots[k]; s != nil {
		return s.entry
	}
	c.putLocked(k, e, pin)
	return e
}

func (c *cache) putLocked(k key, e *entry, pin bool) {
	s := c.slots[k]
	if s == nil {
		s = &slot{key: k, queue: probation}
		if c.gone.take(k) {
			s.queue = main
		}
		c.slots[k] = s
	} else {
		c.unlink(s)
	}
	s.entry, s.cost = e, e.cost()+int64(len(k.url))
	if pin {
		s.queue = pinned
	} else if s.queue == pinned {
		s.queue = main
	}
	c.link(s)
	for (c.bytes > c.maxBytes || len(c.slots) > c.maxEntries) && len(c.slots) > 1 {
		c.evict()
	}
}

// pin moves an entry to the pinned queue or back to the main one.
func (c *cache) pin(k key, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[k]
	if s == nil || (s.queue == pinned) == on {
		return
	}
	c.unlink(s)
	s.queue = main
	if on {
		s.queue = pinned
	}
	c.link(s)
}

// pinned reports whether there is an entry that is pinned.
func (c *cache) pinned(k key) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.slots[k]
	return s != nil && s.queue == pinned
}

func (c *cache) link(s *slot) {
	q := &c.queue[s.queue]
	s.elem = q.PushBack(s)
	q.bytes += s.cost
	c.bytes += s.cost
}

func (c *cache) unlink(s *slot) {
	q := &c.queue[s.queue]
	q.Remove(s.elem)
	q.bytes -= s.cost
	c.bytes -= s.cost
}

// evict removes one entry, or moves one a step closer to its removal.
func (c *cache) evict() {
	from := c.victims()
	s := c.queue[from].Front().Value.(*slot)
	c.unlink(s)
	switch used := s.uses.Load() > 0; {
	case used && from == probation:
		s.queue = main
		c.link(s)
	case used && from == main:
		s.uses.Add(-1)
		c.link(s)
	default:
		delete(c.slots, s.key)
		if from == probation {
			c.gone.add(s.key)
		}
	}
}

// victims chooses the queue to take from: probation as long as it holds more than
// a tenth of the room, then main, then what is left of probation.
func (c *cache) victims() int {
	p, m := &c.queue[probation], &c.queue[main]
	large := p.bytes > c.maxBytes/10 || p.Len() > c.maxEntries/10
	switch {
	case p.Len() > 0 && (large || m.Len() == 0):
		return probation
	case m.Len() > 0:
		return main
	}
	return pinned
}

// memory is a set of the newest keys, by their hashes: a collision only gives an
// entry a better place.
type memory struct {
	seed maphash.Seed
	set  map[uint64]struct{}
	ring []uint64
	next int
}

func newMemory(n int) *memory {
	return &memory{seed: maphash.MakeSeed(), set: make(map[uint64]struct{}), ring: make([]uint64, max(n, 1))}
}

func (m *memory) add(k key) {
	h := maphash.Comparable(m.seed, k)
	delete(m.set, m.ring[m.next])
	m.ring[m.next] = h
	m.next = (m.next + 1) % len(m.ring)
	m.set[h] = struct{}{}
}

// take reports whether k is in the memory, and forgets it.
func (m *memory) take(k key) bool {
	h := maphash.Comparable(m.seed, k)
	_, ok := m.set[h]
	delete(m.set, h)
	return ok
}

func (c *cache) size() (entries int, bytes int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.slots), c.bytes
}
