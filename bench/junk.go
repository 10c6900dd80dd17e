package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// junkIDs measures what distinct client_ids that nobody ever agrees to leave
// behind: in memory, once it has settled, and in the database. They are well
// formed, half of them on one host and half each on a host of its own, and every
// request comes from another address.
func (b *bench) junkIDs(ctx context.Context) error {
	binary, _, err := b.built(ctx)
	if err != nil {
		return err
	}
	dir, addr, err := b.installed(ctx, "junk")
	if err != nil {
		return err
	}
	db := filepath.Join(dir, "bonafide.db")
	c, err := start(ctx, serverCore, binary, "serve", "-c", filepath.Join(dir, "bonafide.yaml"))
	if err != nil {
		return err
	}
	defer c.terminate().stop()
	if err := answers(ctx, "http://"+addr+"/readyz"); err != nil {
		return err
	}
	junk := func(id string) ask {
		a := authorizeAsk("/authorize", "CLIENT", "https://junk.test/cb")
		a.Path = replaceClient(a.Path, id)
		return a
	}
	l := load{
		Addr: addr, Host: issuerHost, Workers: workers, Sources: true, Want: []int{303, 400, 429, 503},
		Asks: []ask{junk("https://junk.test/c{n}.json"), junk("https://app{n}.junk{n}.test/client.json")}, Count: min(b.junk/10+1, 2000),
	}
	if _, err := b.drive(ctx, c, l); err != nil { // warm
		return err
	}
	before, err := c.rss()
	if err != nil {
		return err
	}
	rows, err := countRows(ctx, db)
	if err != nil {
		return err
	}
	l.From, l.Count = l.Count, b.junk
	o, err := b.drive(ctx, c, l)
	if err != nil {
		return err
	}
	after, err := c.rss()
	if err != nil {
		return err
	}
	stored, err := countRows(ctx, db)
	if err != nil {
		return err
	}
	limit, grown := atMost(64, "MiB"), after-before
	b.add(row{
		what: fmt.Sprintf("memory after %d distinct junk client_ids", b.junk), value: "+" + number(grown) + " MiB", floor: number(before) + " MiB",
		ratio: number(after / before), target: limit.String(), outcome: limit.judge(grown),
		note: fmt.Sprintf("floor: after the first %d; documents are fetched after the sign-in, so none was; %.0f /s, p99 %v; -junk 1000000 is the full number", l.From, o.rate(), o.P99.Round(100*time.Microsecond)),
	})
	none, left := atMost(0, "rows"), float64(stored-rows)
	b.add(row{
		what: fmt.Sprintf("rows stored for %d distinct junk client_ids", b.junk), value: number(left) + " rows", target: none.String(), outcome: none.judge(left),
		note: "all tables but the audit log",
	})
	return nil
}

// countRows counts the rows of all tables but the audit's.
func countRows(ctx context.Context, path string) (total int, err error) {
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, `SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'audit' AND name NOT LIKE 'sqlite_%'`)
	if err != nil {
		return 0, err
	}
	var counts []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return 0, errors.Join(err, rows.Close())
		}
		counts = append(counts, fmt.Sprintf(`(SELECT count(*) FROM "%s")`, name))
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "SELECT "+strings.Join(counts, " + ")).Scan(&total)
	return total, err
}
