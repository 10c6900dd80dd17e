package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/store/pgtest"
	"github.com/jackc/pgx/v5"
)

// postgres measures the refresh grant over a private PostgreSQL server, with one
// replica and with two, as a share of what the same server takes of bare INSERTs
// that are committed one by one, over as many connections.
func (b *bench) postgres(ctx context.Context) error {
	cluster, stop, err := b.cluster()
	if err != nil {
		return err
	}
	defer stop()
	empty := func(string) error { return nil }
	address, err := cluster.Copy(ctx, "bench", empty)
	if err != nil {
		return err
	}
	floorDB, err := cluster.Copy(ctx, "bench", empty)
	if err != nil {
		return err
	}
	one, first, err := b.serve(ctx, "postgres1", address)
	if err != nil {
		return err
	}
	defer one.stop()
	key, err := filepath.Abs(filepath.Join(b.dir, "postgres1", "bonafide.key"))
	if err != nil {
		return err
	}
	two, second, err := b.serve(ctx, "postgres2", address, key)
	if err != nil {
		return err
	}
	defer two.stop()
	alone := refreshing("one replica", first.Addr, clientID, first.Tokens[:workers])
	both := refreshing("two replicas", first.Addr+" "+second.Addr, clientID, first.Tokens[workers:])
	alone.server, both.server = one, one
	for _, p := range []*peer{alone, both} { // warm
		if _, err := p.turn(ctx, b, max(b.slice, time.Second))(); err != nil {
			return err
		}
		p.slowest, p.cost = 0, cost{}
	}
	floor, err := b.role(ctx, loadCore, "inserts", floorDB, b.slice.String())
	if err != nil {
		return err
	}
	defer floor.stop()
	var ready bool
	if err := floor.hear(&ready); err != nil {
		return err
	}
	insert := func() (rate float64, err error) {
		if _, err := fmt.Fprintln(floor.in, "go"); err != nil {
			return 0, err
		}
		err = floor.hear(&rate)
		return rate, err
	}
	s, err := take(rounds, insert, alone.turn(ctx, b, b.slice), both.turn(ctx, b, b.slice))
	if err != nil {
		return err
	}
	note := fmt.Sprintf("floor: an INSERT and its commit over %d connections to the same server, which shares the core with the replicas; it has no HTTP, no signature and no look-up; figure: ", workers)
	b.compare(row{what: "refresh, durable on PostgreSQL", note: note + alone.said()}, s, 0, "/s", atLeast(0.2))
	b.compare(row{what: "refresh, durable on PostgreSQL, two replicas", note: note + both.said() + " (of the first replica)"}, s, 1, "/s", atLeast(0.2))
	return nil
}

// cluster starts a PostgreSQL server on the core of what is measured, with its
// files beside those of this run: a commit has to reach a disk.
func (b *bench) cluster() (*pgtest.Server, func() error, error) {
	dir, err := filepath.Abs(b.dir)
	if err != nil {
		return nil, nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // the server is not root
		return nil, nil, err
	}
	before, had := os.LookupEnv("TMPDIR")
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return nil, nil, err
	}
	cluster, stop, err := pgtest.Start("")
	if had {
		err = errors.Join(err, os.Setenv("TMPDIR", before))
	} else {
		err = errors.Join(err, os.Unsetenv("TMPDIR"))
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil, notRun(err.Error())
	}
	if err != nil {
		return nil, nil, err
	}
	raw, err := os.ReadFile(filepath.Join(cluster.Dir(), "data", "postmaster.pid"))
	pid, _, _ := strings.Cut(string(raw), "\n")
	if t := taskset(); err == nil && t != "" { // its processes inherit it
		err = command(context.Background(), "", t, "-cp", fmt.Sprint(serverCore), pid)
	}
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return cluster, stop, nil
}

// playInserts is the role "inserts": as often as it is told to, it writes rows of
// the size of a refresh token for a while, one a transaction.
func playInserts(args []string) error {
	slice, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	ctx := context.Background()
	conns := make([]*pgx.Conn, workers)
	for i := range conns {
		if conns[i], err = pgx.Connect(ctx, args[0]); err != nil {
			return err
		}
		defer conns[i].Close(ctx)
	}
	if _, err := conns[0].Exec(ctx, `CREATE TABLE bare (hash bytea PRIMARY KEY, grant_id text NOT NULL, at bigint NOT NULL)`); err != nil {
		return err
	}
	if err := say(true); err != nil {
		return err
	}
	for {
		var word string
		if _, err := fmt.Scanln(&word); err != nil {
			return nil // dismissed
		}
		rate, err := inserts(ctx, conns, slice)
		if err != nil {
			return err
		}
		if err := say(rate); err != nil {
			return err
		}
	}
}

// inserts returns the rows a second.
func inserts(ctx context.Context, conns []*pgx.Conn, slice time.Duration) (float64, error) {
	var n atomic.Int64
	failed := make([]error, len(conns))
	began := time.Now()
	var all sync.WaitGroup
	for i, c := range conns {
		all.Go(func() {
			for time.Since(began) < slice && failed[i] == nil {
				hash := make([]byte, 32)
				_, _ = rand.Read(hash) // does not fail
				if _, failed[i] = c.Exec(ctx, `INSERT INTO bare VALUES ($1, $2, $3)`, hash, "0123456789abcdefghijklmnop", began.UnixMicro()); failed[i] == nil {
					n.Add(1)
				}
			}
		})
	}
	all.Wait()
	return float64(n.Load()) / time.Since(began).Seconds(), errors.Join(failed...)
}
