package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// peer is a server that refreshes: ours, its floor, or one that others wrote.
type peer struct {
	name, note string
	server     *child
	load       load
	last       outcome
	slowest    time.Duration // of the 99th percentiles
	cost       cost
}

// refreshing returns a peer with a token for each worker.
func refreshing(name, addr, client string, tokens []string) *peer {
	return &peer{name: name, load: load{
		Addr: addr, Host: issuerHost, Workers: workers, Want: []int{200}, Asks: []ask{refreshAsk(client)}, Tokens: tokens[:workers],
	}}
}

// turn drives the peer for a while.
func (p *peer) turn(ctx context.Context, b *bench, d time.Duration) turn {
	return func() (float64, error) {
		p.load.For = d
		var err error
		if p.last, err = b.drive(ctx, p.server, p.load); err != nil {
			return 0, fmt.Errorf("%s: %w", p.name, err)
		}
		p.load.Tokens = p.last.Tokens
		p.slowest = max(p.slowest, p.last.P99)
		p.cost.add(p.last)
		return p.last.rate(), nil
	}
}

// said describes how a peer answered.
func (p *peer) said() string {
	return fmt.Sprintf("p99 %v, %v", p.slowest.Round(100*time.Microsecond), &p.cost)
}

// refresh measures the refresh grant against its floor and against peers, all of
// them on the same core and asked in turn.
func (b *bench) refresh(ctx context.Context) error {
	ours, at, err := b.serve(ctx, "refresh")
	if err != nil {
		return err
	}
	defer ours.stop()
	floor := refreshing("floor", at.Floor, clientID, at.Tokens)
	floor.server = ours
	us := refreshing("bonafide", at.Addr, clientID, at.Tokens)
	us.server = ours
	all := []*peer{us}
	for _, start := range []func(context.Context) (*peer, error){b.oidcProvider, b.zitadel} {
		p, err := start(ctx)
		if err != nil {
			b.fail("refresh ahead of "+p.name, err)
			continue
		}
		defer p.server.stop()
		all = append(all, p)
	}
	var turns []turn
	for _, p := range append(all, floor) {
		if _, err := p.turn(ctx, b, max(b.slice, time.Second))(); err != nil { // warm: compilers, caches
			return err
		}
		p.slowest, p.cost = 0, cost{}
	}
	for _, p := range all {
		turns = append(turns, p.turn(ctx, b, b.slice))
	}
	s, err := take(rounds, floor.turn(ctx, b, b.slice), turns...)
	if err != nil {
		return err
	}
	b.compare(row{
		what: "refresh, durable on SQLite", note: "floor: one ES256 signature and one row through the same writer, " + floor.said() + "; figure: " + us.said(),
	}, s, 0, "/s", atLeast(0.7))
	for i, p := range all[1:] {
		l := atLeast(1)
		q := s.over(0, i+1)
		drift, loud := s.drift()
		r := row{
			what: "refresh ahead of " + p.name, value: number(median(s.figures[0])) + " /s", floor: number(median(s.figures[i+1])) + " /s",
			ratio: number(q), target: l.String(), outcome: l.judge(q), drift: drift, note: p.note + "; " + p.said(),
		}
		if loud {
			r.outcome += ", noisy"
		}
		b.add(r)
	}
	return nil
}

// peerUp is what a peer says when it is ready.
type peerUp struct {
	Addr, Client string
	Tokens       []string
}

func up(c *child, p *peer) (*peer, error) {
	var at peerUp
	if err := c.hear(&at); err != nil {
		return p, err
	}
	q := refreshing(p.name, at.Addr, at.Client, at.Tokens)
	q.server, q.note = c, p.note
	return q, nil
}

// oidcProvider starts the peer from npm.
func (b *bench) oidcProvider(ctx context.Context) (*peer, error) {
	p := &peer{name: "oidc-provider (npm)", note: "in memory, rotates, ES256 JWT; " + npmVersion()}
	if why := os.Getenv("BENCH_NO_NODE"); why != "" {
		return p, notRun(why)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return p, notRun("there is no node")
	}
	c, err := start(ctx, serverCore, node, "peers/oidc-provider.mjs", fmt.Sprint(workers))
	if err != nil {
		return p, err
	}
	return up(c, p)
}

// npmVersion returns the version of oidc-provider that is installed.
func npmVersion() string {
	raw, err := os.ReadFile("node_modules/oidc-provider/package.json")
	if err != nil {
		return "unknown version"
	}
	var p struct{ Version string }
	if err := json.Unmarshal(raw, &p); err != nil {
		return "unknown version"
	}
	return "v" + p.Version
}

// zitadel starts the peer in Go.
func (b *bench) zitadel(ctx context.Context) (*peer, error) {
	p := &peer{name: "zitadel/oidc op", note: "its example storage in memory, ES256 JWT; it signs an ID token as well, v3.45.0"}
	c, err := b.role(ctx, serverCore, "zitadel", fmt.Sprint(workers))
	if err != nil {
		return p, err
	}
	return up(c, p)
}
