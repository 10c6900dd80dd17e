package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// starts is how often the program is started; the median counts.
const starts = 9

// built returns the release binary and the least server there can be, both built
// as `make build` does.
func (b *bench) built(ctx context.Context) (binary, bare string, err error) {
	dir, err := filepath.Abs(b.dir)
	if err != nil {
		return "", "", err
	}
	binary, bare = filepath.Join(dir, "bonafide"), filepath.Join(dir, "bare")
	for _, p := range []struct{ from, pkg, out string }{{"..", "./cmd/bonafide", binary}, {".", "./bare", bare}} {
		if _, err := os.Stat(p.out); err == nil {
			continue
		}
		if err := command(ctx, "", "env", "CGO_ENABLED=0", "go", "build", "-C", p.from, "-trimpath", "-ldflags", "-s -w", "-o", p.out, p.pkg); err != nil {
			return "", "", err
		}
	}
	return binary, bare, nil
}

// atRest measures how long the release binary takes to be ready on a database
// that exists, its memory once it is idle, and its size.
func (b *bench) atRest(ctx context.Context) error {
	binary, bare, err := b.built(ctx)
	if err != nil {
		return err
	}
	dir, addr, err := b.installed(ctx, "rest")
	if err != nil {
		return err
	}
	var floorMem, mem []float64
	once := func(path string, into *[]float64, argv ...string) turn {
		return func() (float64, error) {
			took, m, err := b.startOnce(ctx, addr, path, argv...)
			*into = append(*into, m)
			return float64(took) / float64(time.Millisecond), err
		}
	}
	s, err := take(starts, once("/", &floorMem, bare, addr), once("/readyz", &mem, binary, "serve", "-c", filepath.Join(dir, "bonafide.yaml")))
	if err != nil {
		return err
	}
	b.compare(row{what: "start to ready, existing database", note: "floor: a Go server that only answers; asked each millisecond"}, s, 0, "ms", atMost(60, "ms"))
	m := series{floorMem, [][]float64{mem}}
	b.compare(row{what: "memory at rest", note: "resident, half a second after ready; floor as above"}, m, 0, "MiB", atMost(25, "MiB"))
	return b.sizes(binary, bare)
}

func (b *bench) sizes(binary, bare string) error {
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	least, err := os.Stat(bare)
	if err != nil {
		return err
	}
	l, size, floor := atMost(30, "MB"), float64(info.Size())/1e6, float64(least.Size())/1e6
	b.add(row{
		what: "stripped binary", value: number(size) + " MB", floor: number(floor) + " MB", ratio: number(size / floor),
		target: l.String(), outcome: l.judge(size), note: "floor as above",
	})
	return nil
}

// installed makes a directory with everything that a server needs, and finds a
// port for it.
func (b *bench) installed(ctx context.Context, name string) (dir, addr string, err error) {
	if dir, err = filepath.Abs(filepath.Join(b.dir, name)); err != nil {
		return "", "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", "", err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	addr = ln.Addr().String()
	if err := ln.Close(); err != nil {
		return "", "", err
	}
	_, _, err = install(ctx, place{dir: dir, listen: addr, fetch: "after_sign_in"})
	return dir, addr, err
}

// startOnce starts a server, waits until it answers, lets it rest, reads its
// memory and ends it.
func (b *bench) startOnce(ctx context.Context, addr, path string, argv ...string) (time.Duration, float64, error) {
	began := time.Now()
	c, err := start(ctx, serverCore, argv...)
	if err != nil {
		return 0, 0, err
	}
	defer c.terminate().stop()
	if err := answers(ctx, "http://"+addr+path); err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, c.words.last())
	}
	took := time.Since(began)
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	m, err := c.rss()
	return took, m, err
}

// answers returns when a GET is answered with 200.
func answers(ctx context.Context, address string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("the server does not answer")
}

// replaceClient puts a client_id that holds {n} into the path of a request.
func replaceClient(path, clientID string) string {
	id := strings.ReplaceAll(url.QueryEscape(clientID), "%7Bn%7D", "{n}")
	return strings.Replace(path, "client_id=CLIENT", "client_id="+id, 1)
}

// How many strangers come: the first let the process grow to its working size.
const (
	firstStrangers = 30_000
	moreStrangers  = 100_000
)

// strangers measures what requests that lead nowhere leave behind in memory. Each
// has a client_id or a code of its own and comes from another address.
func (b *bench) strangers(ctx context.Context) error {
	binary, _, err := b.built(ctx)
	if err != nil {
		return err
	}
	dir, addr, err := b.installed(ctx, "strangers")
	if err != nil {
		return err
	}
	c, err := start(ctx, serverCore, binary, "serve", "-c", filepath.Join(dir, "bonafide.yaml"))
	if err != nil {
		return err
	}
	defer c.terminate().stop()
	if err := answers(ctx, "http://"+addr+"/readyz"); err != nil {
		return err
	}
	rest, err := c.rss()
	if err != nil {
		return err
	}
	never := func(redirect string) ask {
		a := authorizeAsk("/authorize", "CLIENT", redirect)
		a.Path = replaceClient(a.Path, "https://app{n}.stranger{n}.test/client.json")
		return a
	}
	l := load{
		Addr: addr, Host: issuerHost, Workers: workers, Sources: true, Want: []int{303, 400, 401, 404, 429}, Count: firstStrangers,
		Asks: []ask{
			never("https://stranger.test/cb"), never("http://127.0.0.1/cb"),
			{Method: "GET", Path: replaceClient(authorizeAsk("/authorize", "CLIENT", "https://x.test/").Path, "http://insecure{n}.test/")},
			{Method: "POST", Path: "/token", Body: "grant_type=authorization_code&client_id=https%3A%2F%2Fapp{n}.stranger.test%2Fc.json&code=c{n}&code_verifier=" + challenge + "&redirect_uri=https%3A%2F%2Fx.test%2F"},
			{Method: "POST", Path: "/token", Body: "grant_type=refresh_token&client_id=" + url.QueryEscape(clientID) + "&refresh_token=stranger{n}"},
			{Method: "GET", Path: "/nothing/{n}"},
		},
	}
	if _, err := b.drive(ctx, c, l); err != nil {
		return err
	}
	before, err := c.rss()
	if err != nil {
		return err
	}
	l.From, l.Count = firstStrangers, moreStrangers
	o, err := b.drive(ctx, c, l)
	if err != nil {
		return err
	}
	after, err := c.rss()
	if err != nil {
		return err
	}
	limit, q := atMost(1.1, ""), after/before
	b.add(row{
		what: fmt.Sprintf("memory after %d strangers' requests", moreStrangers), value: number(after) + " MiB", floor: number(before) + " MiB", ratio: number(q),
		target: limit.String(), outcome: limit.judge(q),
		note: fmt.Sprintf("floor: after the first %d; %s MiB at the start; %.0f /s, p99 %v", firstStrangers, number(rest), o.rate(), o.P99.Round(100*time.Microsecond)),
	})
	return nil
}
