package store

import (
	"context"
	"database/sql/driver"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A connection that nobody answers on is given up after about as long as the
// server gives up on us.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}

// dial connects to the database server.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive, Control: giveUp}
	return d.DialContext(ctx, network, address)
}

// The pauses between attempts to connect while the server is away.
const (
	firstPause = 50 * time.Millisecond
	mostPause  = time.Second
)

// gate opens connections. While the server is away one caller at a time knocks,
// after a pause that grows, and the others are told at once: neither do requests
// pile up, nor does a server that comes back meet them all.
type gate struct {
	driver.Connector

	mu       sync.Mutex // guards what follows
	failed   error      // why the last attempt failed; nil when it did not
	pause    time.Duration
	next     time.Time // of the next attempt
	knocking bool
}

// Connect implements driver.Connector.
func (g *gate) Connect(ctx context.Context) (driver.Conn, error) {
	if err := g.enter(time.Now()); err != nil {
		return nil, err
	}
	c, err := g.Connector.Connect(ctx)
	g.leave(time.Now(), err)
	return c, err
}

// enter returns why there is no use in trying now.
func (g *gate) enter(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed == nil {
		return nil
	}
	if g.knocking || now.Before(g.next) {
		return g.failed
	}
	g.knocking = true
	return nil
}

// leave notes how an attempt ended.
func (g *gate) leave(now time.Time, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.knocking = false
	if g.failed = err; err == nil {
		g.pause = 0
		return
	}
	g.pause = min(max(2*g.pause, firstPause), mostPause)
	g.next = now.Add(g.pause/2 + rand.N(g.pause/2+1)) // replicas do not keep step
}
