package audit

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// Defaults of Config. Together they bound what strangers can make the audit
// grow: each type of noted event adds at most Rate rows a second after its first
// Burst, which is 18,000 rows or about 6 MB an hour (DS-12). See share.go for who
// gets how much of that.
const (
	DefaultRate     = 5.0
	DefaultBurst    = 100
	DefaultQueue    = 1024
	DefaultInterval = time.Minute

	maxTypes    = 64               // counted apart; more types share one counter
	writeBatch  = 64               // noted events written in one commit
	writeExpiry = 10 * time.Second // how long one background write may take
)

// Config says where events go. Only Sink is required.
type Config struct {
	Sink    Sink
	Observe func(Event)      // sees each recorded event, one at a time; must not call the Log
	Now     func() time.Time // default time.Now
	Logger  *slog.Logger     // told when events could not be written; default slog.Default()

	Rate     float64       // noted events of one type written per second
	Burst    int           // noted events of one type written at once
	Queue    int           // noted events that may wait to be written
	Interval time.Duration // how often counted events are reported
}

// Log takes events from the whole house. It is safe for use by many goroutines.
type Log struct {
	cfg   Config
	queue chan Event
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed when the background writer has finished

	mu      sync.Mutex       // guards all below
	closed  bool             //
	buckets map[Type]*bucket // one for each type that was noted

	young, old map[from]*source // who caused them; see source

	observing sync.Mutex // held while Config.Observe runs, so that it sees one event at a time
}

// bucket is a token bucket and a counter of what did not fit since the last
// report.
type bucket struct {
	tokens     float64
	filled     time.Time
	suppressed int64
	round      uint64 // of reports; a source counts anew in each
	most       int64  // suppressed of one source
	mostFrom   string
}

func full(tokens float64, now time.Time) bucket { return bucket{tokens: max(1, tokens), filled: now} }

// New returns a Log that writes to c.Sink. Close it to write what still waits.
func New(c Config) (*Log, error) {
	if c.Sink == nil {
		return nil, errors.New("audit: a sink is required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Rate <= 0 {
		c.Rate = DefaultRate
	}
	if c.Burst <= 0 {
		c.Burst = DefaultBurst
	}
	if c.Queue <= 0 {
		c.Queue = DefaultQueue
	}
	if c.Interval <= 0 {
		c.Interval = DefaultInterval
	}
	l := &Log{
		cfg:     c,
		queue:   make(chan Event, c.Queue),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		buckets: map[Type]*bucket{},
		young:   map[from]*source{},
	}
	go l.write()
	return l, nil
}

// Record writes the event and returns when it is durable. Use it for what must
// not be lost; what the store writes in its own commit goes to Observe instead.
func (l *Log) Record(ctx context.Context, e Event) error {
	e = l.stamp(e)
	if err := l.cfg.Sink.AppendEvents(ctx, e); err != nil {
		return err
	}
	l.observe(e)
	return nil
}

// Observe passes on an event that the store already wrote in its own commit.
func (l *Log) Observe(e Event) {
	if l.cfg.Observe != nil {
		l.observe(l.stamp(e))
	}
}

// Note writes the event soon and never waits. It is for what strangers can
// cause: beyond a rate for each type, and a share of it for each network or host
// of clients, or when the queue is full, events are only counted, and the count
// is written as one Suppressed event per type and interval. After Close it does
// nothing.
func (l *Log) Note(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.admit(&e) {
		return
	}
	select {
	case l.queue <- l.stamp(e):
	default:
		l.bucket(e.Type).suppressed++
	}
}

// Close writes what waits and the last counts, and returns when that is done or
// ctx has ended. It may be called more than once.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.stop)
	}
	l.mu.Unlock()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *Log) stamp(e Event) Event {
	if e.Time.IsZero() {
		e.Time = l.cfg.Now()
	}
	return e.Clean()
}

func (l *Log) observe(e Event) {
	if l.cfg.Observe == nil {
		return
	}
	l.observing.Lock()
	defer l.observing.Unlock()
	l.cfg.Observe(e)
}

// bucket returns the bucket of a type. The caller holds l.mu.
func (l *Log) bucket(t Type) *bucket {
	if b, ok := l.buckets[t]; ok {
		return b
	}
	if len(l.buckets) >= maxTypes {
		t = "other"
		if b, ok := l.buckets[t]; ok {
			return b
		}
	}
	b := full(float64(l.cfg.Burst), l.cfg.Now())
	l.buckets[t] = &b
	return &b
}

// fill adds the tokens that have come since the last time. A clock that runs
// backwards adds none.
func (b *bucket) fill(now time.Time, rate, burst float64) {
	if gone := now.Sub(b.filled); gone > 0 {
		b.tokens = min(burst, b.tokens+gone.Seconds()*rate)
	}
	b.filled = now
}

// write is the background writer: the only reader of the queue.
func (l *Log) write() {
	defer close(l.done)
	tick := time.NewTicker(l.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case e := <-l.queue:
			l.append(l.gather(e))
		case <-tick.C:
			l.append(l.counts())
		case <-l.stop:
			for {
				select {
				case e := <-l.queue:
					l.append(l.gather(e))
					continue
				default:
				}
				break
			}
			l.append(l.counts())
			return
		}
	}
}

// gather takes what else waits, up to one commit's worth.
func (l *Log) gather(first Event) []Event {
	events := []Event{first}
	for len(events) < writeBatch {
		select {
		case e := <-l.queue:
			events = append(events, e)
		default:
			return events
		}
	}
	return events
}

// counts returns one event for each type of which something was suppressed, and
// starts counting anew.
func (l *Log) counts() []Event {
	now := l.cfg.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	var events []Event
	for t, b := range l.buckets {
		if b.suppressed > 0 {
			data := map[string]string{"count": strconv.FormatInt(b.suppressed, 10)}
			if b.most > 0 {
				data["most"], data["most_from"] = strconv.FormatInt(b.most, 10), b.mostFrom
			}
			events = append(events, Event{Time: now, Type: TypeSuppressed, Code: string(t), Data: data}.Clean())
			b.suppressed, b.most, b.mostFrom = 0, 0, ""
			b.round++
		}
	}
	return events
}

// append writes events. What could not be written is counted again, so that the
// next report tells of it.
func (l *Log) append(events []Event) {
	if len(events) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeExpiry)
	defer cancel()
	if err := l.cfg.Sink.AppendEvents(ctx, events...); err != nil {
		l.cfg.Logger.Error("audit events could not be written", "count", len(events), "error", err)
		l.recount(events)
		return
	}
	for _, e := range events {
		l.observe(e)
	}
}

func (l *Log) recount(events []Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		if e.Type != TypeSuppressed {
			l.bucket(e.Type).suppressed++
			continue
		}
		if n, err := strconv.ParseInt(e.Data["count"], 10, 64); err == nil {
			l.bucket(Type(e.Code)).suppressed += n
		}
	}
}
