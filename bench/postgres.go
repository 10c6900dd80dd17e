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
// replica and with two, against the floor that it has on SQLite: one signature and
// one row through the same writer. What the same server takes of bare INSERTs that
// are committed one by one, over as many connections, is said beside it. The targets
// are lower than on SQLite: the client and the token are looked up by way of a socket,
// and the database server shares the core.
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
	var other [2]string // for the floor and for bare INSERTs
	for i := range other {
		if other[i], err = cluster.Copy(ctx, "bench", empty); err != nil {
			return err
		}
	}
	one, first, err := b.serve(ctx, "postgres1", address, "", other[0])
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
	floor := refreshing("floor", first.Floor, clientID, first.Tokens)
	alone.server, both.server, floor.server = one, one, one
	for _, p := range []*peer{alone, both, floor} { // warm
		if _, err := p.turn(ctx, b, max(b.slice, time.Second))(); err != nil {
			return err
		}
		p.slowest, p.cost = 0, cost{}
	}
	bare, err := b.role(ctx, loadCore, "inserts", other[1], b.slice.String())
	if err != nil {
		return err
	}
	defer bare.stop()
	var ready bool
	if err := bare.hear(&ready); err != nil {
		return err
	}
	insert := func() (rate float64, err error) {
		if _, err := fmt.Fprintln(bare.in, "go"); err != nil {
			return 0, err
		}
		err = bare.hear(&rate)
		return rate, err
	}
	s, err := take(rounds, floor.turn(ctx, b, b.slice), alone.turn(ctx, b, b.slice), both.turn(ctx, b, b.slice), insert)
	if err != nil {
		return err
	}
	note := fmt.Sprintf("floor: one ES256 signature and one row through the same writer, %v; bare INSERTs over %d connections: %s /s; the server shares the core with the replicas; figure: ",
		floor.said(), workers, number(median(s.figures[2])))
	b.compare(row{what: "refresh, durable on PostgreSQL", note: note + alone.said()}, s, 0, "/s", atLeast(0.35))
	b.compare(row{what: "refresh, durable on PostgreSQL, two replicas", note: note + both.said() + " (of the first replica)"}, s, 1, "/s", atLeast(0.25))
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
