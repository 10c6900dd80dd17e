package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// many is how many distinct clients are in the cache.
const many = 10_000

// authorize measures the first request of a client whose document is in memory,
// up to the redirect to the sign-in page, against a handler that redirects at
// once; and many clients against one.
func (b *bench) authorize(ctx context.Context) error {
	c, at, err := b.serve(ctx, "authorize")
	if err != nil {
		return err
	}
	defer c.stop()
	known := load{Addr: at.Addr, Host: issuerHost, Workers: workers, For: b.slice, Want: []int{303}, Asks: distinct("/authorize", 1)}
	bare, all := known, known
	bare.Addr, bare.Asks = at.Floor, distinct("/bare", 1)
	all.Asks = distinct("/authorize", many+1)
	if err := b.warm(ctx, c, at, all); err != nil {
		return fmt.Errorf("warm: %w", err)
	}
	all.Asks = all.Asks[1:]
	one := all
	one.Asks = all.Asks[:1]
	costs := map[*load]*cost{}
	drive := func(l *load) turn {
		costs[l] = &cost{}
		return func() (float64, error) {
			o, err := b.drive(ctx, c, *l)
			costs[l].add(o)
			return o.rate(), err
		}
	}
	s, err := take(rounds, drive(&bare), drive(&known), drive(&one), drive(&all))
	if err != nil {
		return err
	}
	floor := "floor: a handler that redirects, same HTTP server, without the edge, " + costs[&bare].String() + "; figure: "
	b.compare(row{what: "authorize to sign-in, a client people agreed to", note: floor + costs[&known].String()}, s, 0, "/s", atLeast(0.3))
	b.compare(row{what: "authorize to sign-in, a client in memory only", note: floor + costs[&one].String()}, s, 1, "/s", atLeast(0.3))
	limit, q := atLeast(0.8), s.over(2, 1)
	drift, loud := s.drift()
	r := row{
		what: fmt.Sprintf("authorize, %d clients in memory over one", many), value: number(median(s.figures[2])) + " /s", floor: number(median(s.figures[1])) + " /s",
		ratio: number(q), target: limit.String(), outcome: limit.judge(q), drift: drift, note: costs[&all].String(),
	}
	if loud {
		r.outcome += ", noisy"
	}
	b.add(r)
	return nil
}

// distinct returns the first requests of n clients; the first is the one that
// everybody agreed to.
func distinct(path string, n int) []ask {
	out := []ask{authorizeAsk(path, clientID, "https://"+clientHost+"/cb")}
	for i := 1; i < n; i++ {
		host := site(i % sites)
		out = append(out, authorizeAsk(path, fmt.Sprintf("https://%s/client%d.json", host, i), "https://"+host+"/cb"))
	}
	return out
}

// warm asks once for each client, so that its document is fetched, and moves the
// clock so that the budgets of fetches last.
func (b *bench) warm(ctx context.Context, c *child, at served, l load) error {
	const step = 500
	l.Workers, l.Sources, l.For = 8, true, 0
	for from := 0; from < len(l.Asks); from += step {
		l.From, l.Count = from, min(step, len(l.Asks)-from)
		if _, err := b.drive(ctx, c, l); err != nil {
			return err
		}
		if _, err := at.control(ctx, "/ahead?by="+url.QueryEscape((10*time.Second).String())); err != nil {
			return err
		}
	}
	l.From, l.Count = 0, len(l.Asks) // all there? then this takes no fetch
	before, err := at.control(ctx, "/fetches")
	if err != nil {
		return err
	}
	if _, err := b.drive(ctx, c, l); err != nil {
		return err
	}
	after, err := at.control(ctx, "/fetches")
	if err != nil {
		return err
	}
	if strings.TrimSpace(after) != strings.TrimSpace(before) {
		return fmt.Errorf("the documents do not stay in memory: %s fetches and then %s", before, after)
	}
	return nil
}
