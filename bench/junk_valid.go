package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// Figure R2: a million distinct client_ids, a fifth of them with valid documents.
const (
	validSites = 2000 // registrable domains of the attacker
	validStep  = 500  // valid ones between two moves of the clock; the budget is 1000 at once, 100 a second
	junkStep   = 4 * validStep
	stepAhead  = 10 * time.Second
	knownHosts = 24 // clients that people agreed to: a quarter of the fetches in flight is for these alone
	inFlight   = 64
	stallers   = 150  // connections that keep asking while fetches stall
	cacheFull  = 7000 // so many fill the cache
)

// flooded is a server under the flood of R2, with the hosts that it fetches from.
type flooded struct {
	b       *bench
	hosts   *child
	server  *child
	net     internet
	at      served
	sent    int // requests so far
	started time.Time
}

// validIDs measures what an attacker leaves in memory who brings valid documents.
// Four fifths of the requests name clients that are not there, or more of one host
// than may be fetched; a fifth names clients with good documents, half of them as
// large as a document may be.
//
// The budgets are those that ship. Two of the three cost the attacker something:
// each request comes from another address (a botnet, or one IPv6 network in place
// of each), because one source is good for two fetches a second; and the documents
// are spread over 2000 registrable domains, because one is good for two a second as
// well. The third, 100 a second for the whole process, nobody gets around:
// 200,000 documents take 34 minutes at the least. The clock of the server is moved
// for that. It fetches before the sign-in (cimd.fetch: at_once); with the default
// the attacker also needs accounts, one for each two documents a second.
func (b *bench) validIDs(ctx context.Context) error {
	f, err := b.flood(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	total := max(b.junk/5, 4*validStep)
	if err := f.bring(ctx, validStep); err != nil { // the working size of everything but the cache
		return fmt.Errorf("warm: %w", err)
	}
	first, empty, err := f.weigh(ctx)
	if err != nil {
		return err
	}
	var full float64
	highest, halfway := first, 0
	for done := validStep; done < total; done += validStep {
		if err := f.bring(ctx, validStep); err != nil {
			return err
		}
		m, err := f.server.rss()
		if err != nil {
			return err
		}
		highest = max(highest, m)
		if done == 2*cacheFull && total > 3*cacheFull {
			if _, full, err = f.weigh(ctx); err != nil {
				return err
			}
			halfway = f.sent
		}
	}
	hosted, err := f.told(ctx, "/")
	if err != nil {
		return err
	}
	if hosted.Served < int64(total)*95/100 {
		return fmt.Errorf("only %d of %d valid documents were fetched", hosted.Served, total)
	}
	after, err := f.server.rss()
	if err != nil {
		return err
	}
	var heap float64
	var settled time.Duration
	if full > 0 {
		if heap, settled, err = f.returns(ctx, full); err != nil {
			return err
		}
	}
	f.report(figures{hosted.Served, halfway, first, highest, after, empty, full, heap, settled})
	return f.stalling(ctx)
}

// figures of the flood, in MiB.
type figures struct {
	fetched                                  int64
	halfway                                  int
	first, highest, after, empty, full, heap float64
	settled                                  time.Duration
}

func (f *flooded) report(v figures) {
	b, limit, near := f.b, atMost(64, "MiB"), atMost(1.1, "")
	grown := v.highest - v.first
	b.add(row{
		what: fmt.Sprintf("memory, %d client_ids, %d of them valid", f.sent, v.fetched), value: "+" + number(grown) + " MiB", floor: number(v.first) + " MiB",
		ratio: number(v.highest / v.first), target: limit.String(), outcome: limit.judge(grown),
		note: fmt.Sprintf("the most at any time; %s at the end; %v in all, with the clock moved for the budgets; %d domains, each request from another address", number(v.after), time.Since(f.started).Round(time.Second), validSites),
	})
	if v.full == 0 { // the cache was never full: there is nothing to come back to
		return
	}
	b.add(row{
		what: "heap after that, collected", value: number(v.heap) + " MiB", floor: number(v.full) + " MiB", ratio: number(v.heap / v.full),
		target: near.String(), outcome: near.judge(v.heap / v.full),
		note: fmt.Sprintf("within %v; floor: after the first %d, when the cache was full; %s MiB with an empty cache: what is between is documents that are good for a day, and bounded", v.settled.Round(time.Second), v.halfway, number(v.empty)),
	})
}

// returns waits until the heap is back, a minute at most.
func (f *flooded) returns(ctx context.Context, full float64) (heap float64, after time.Duration, err error) {
	began := time.Now()
	for {
		if _, heap, err = f.weigh(ctx); err != nil || heap <= 1.1*full || time.Since(began) > time.Minute {
			return heap, time.Since(began), err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return heap, 0, ctx.Err()
		}
	}
}

// flood starts the hosts and the server.
func (b *bench) flood(ctx context.Context) (*flooded, error) {
	f := &flooded{b: b, started: time.Now()}
	dir, err := filepath.Abs(b.dir)
	if err != nil {
		return nil, err
	}
	if f.hosts, err = b.role(ctx, loadCore, "hosts", dir); err != nil {
		return nil, err
	}
	if err := f.hosts.hear(&f.net); err != nil {
		return nil, err
	}
	if f.server, f.at, err = b.serveAs(ctx, "flooded", "flooded", f.net.Addr, f.net.Roots); err != nil {
		f.hosts.stop()
		return nil, err
	}
	return f, nil
}

func (f *flooded) stop() {
	f.server.stop()
	f.hosts.stop()
}

// bring sends so many valid client_ids and four times as many that are not, and
// moves the clock so that the budgets are whole again.
func (f *flooded) bring(ctx context.Context, n int) error {
	var valid []ask
	for i := range validSites {
		path := "client"
		if i%2 == 1 {
			path = "large"
		}
		valid = append(valid, junkAsk(fmt.Sprintf("https://app.site%d.test/%s{n}.json", i, path), fmt.Sprintf("https://app.site%d.test/cb", i)))
	}
	junk := []ask{
		junkAsk("https://junk.test/c{n}.json", "https://junk.test/cb"), junkAsk("https://app{n}.nowhere{n}.test/client.json", "https://junk.test/cb"),
		junkAsk("https://nowhere.test/c{n}.json", "https://junk.test/cb"), junkAsk("https://app{n}.junk.test/client.json", "https://junk.test/cb"),
	}
	for _, asks := range [][]ask{valid, junk} {
		want, count := []int{303}, n
		if len(asks) < len(valid) {
			want, count = []int{303, 400, 429, 502, 503}, n*junkStep/validStep
		}
		l := load{Addr: f.at.Addr, Host: issuerHost, Workers: workers, Sources: true, Want: want, Asks: asks, From: f.sent, Count: count}
		if _, err := f.b.drive(ctx, f.server, l); err != nil {
			return err
		}
		f.sent += count
	}
	_, err := f.at.control(ctx, "/ahead?by="+stepAhead.String())
	return err
}

func junkAsk(id, redirect string) ask {
	a := authorizeAsk("/authorize", "CLIENT", redirect)
	a.Path = replaceClient(a.Path, id)
	return a
}

// weigh returns the resident memory and the heap after a collection, in MiB.
func (f *flooded) weigh(ctx context.Context) (rss, heap float64, err error) {
	if rss, err = f.server.rss(); err != nil {
		return 0, 0, err
	}
	text, err := f.at.control(ctx, "/heap")
	if err != nil {
		return 0, 0, err
	}
	var n, goroutines int64
	if _, err := fmt.Sscan(text, &n, &goroutines); err != nil {
		return 0, 0, fmt.Errorf("heap: %w", err)
	}
	return rss, float64(n) / (1 << 20), nil
}

// told asks the hosts what they were asked.
func (f *flooded) told(ctx context.Context, path string) (t told, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.net.Control+path, http.NoBody)
	if err != nil {
		return t, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return t, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(&t)
	return t, err
}

// stalling measures as many fetches as may be in flight, all of hosts that take the
// request and never answer. Those of clients that people agreed to are among them,
// because strangers get three quarters only.
func (f *flooded) stalling(ctx context.Context) error {
	var known, strange []ask
	for i := range knownHosts {
		known = append(known, junkAsk(knownID(i), fmt.Sprintf("https://known%d.test/cb", i)))
	}
	strange = []ask{junkAsk("https://stall{n}.test/client.json", "https://stall.test/cb"), junkAsk("https://a.stall{n}x.test/client.json", "https://stall.test/cb")}
	l := load{Addr: f.at.Addr, Host: issuerHost, Workers: knownHosts, Sources: true, Want: []int{303}, Asks: known, Count: 2 * knownHosts}
	if _, err := f.b.drive(ctx, f.server, l); err != nil { // they are fetched, and stay good for a minute
		return fmt.Errorf("the known clients: %w", err)
	}
	if _, err := f.at.control(ctx, "/ahead?by=2m"); err != nil {
		return err
	}
	if _, err := f.told(ctx, "/silence"); err != nil {
		return err
	}
	// The floor is the same crowd, whose names lead nowhere.
	l = load{
		Addr: f.at.Addr, Host: issuerHost, Workers: stallers, Sources: true, Want: []int{303, 400, 502, 503}, For: 3 * time.Second, From: f.sent,
		Asks: []ask{junkAsk("https://app{n}.nowhere{n}.test/client.json", "https://junk.test/cb")},
	}
	if _, err := f.b.drive(ctx, f.server, l); err != nil {
		return fmt.Errorf("the crowd: %w", err)
	}
	before, err := f.server.rss()
	if err != nil {
		return err
	}
	l = load{
		Addr: f.at.Addr, Host: issuerHost, Workers: stallers, Sources: true, Want: []int{303, 400, 502, 503}, For: 7 * time.Second, From: f.sent,
		Asks: append(append(known, strange...), repeated(strange, 40)...),
	}
	done := make(chan error, 1)
	go func() {
		_, err := f.b.drive(ctx, f.server, l)
		done <- err
	}()
	highest, tick := before, time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for driving := true; driving; {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("stalling: %w", err)
			}
			driving = false
		case <-tick.C:
		}
		m, err := f.server.rss()
		if err != nil {
			return err
		}
		highest = max(highest, m)
	}
	t, err := f.told(ctx, "/")
	if err != nil {
		return err
	}
	if t.Most > inFlight {
		return fmt.Errorf("%d fetches were in flight at a time", t.Most)
	}
	if t.Most < inFlight {
		return fmt.Errorf("only %d fetches were in flight at a time", t.Most)
	}
	limit, grown := atMost(16, "MiB"), highest-before
	f.b.add(row{
		what: fmt.Sprintf("memory, %d fetches in flight, all stalled", t.Most), value: "+" + number(grown) + " MiB", floor: number(before) + " MiB",
		ratio: number(highest / before), target: limit.String(), outcome: limit.judge(grown),
		note: fmt.Sprintf("the most at any time in 7 s; %d connections keep asking, and did before; the hosts take the request and never answer; 48 of strangers, the rest of clients that people agreed to", stallers),
	})
	return nil
}

func repeated(asks []ask, n int) (out []ask) {
	for range n {
		out = append(out, asks...)
	}
	return out
}
