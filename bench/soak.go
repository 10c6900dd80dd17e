package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"time"

	_ "modernc.org/sqlite" // the engine that the store is on; read here to weigh its tables
)

// phases of the soak. Between them the clock goes ahead, so that what the early
// ones left behind expires and is pruned: from the middle on nothing may grow.
const (
	phases  = 16
	settled = 8 // after so many all must be flat: what the first left is 140 days old and gone
	ahead   = 20 * 24 * time.Hour

	keptDays = 120 // of audit, by the configuration
)

// soak rotates refresh tokens in chains for as long as it is told, over days of
// the server's clock.
func (b *bench) soak(ctx context.Context) error {
	c, at, err := b.serve(ctx, "soak")
	if err != nil {
		return err
	}
	defer c.stop()
	p := refreshing("bonafide", at.Addr, clientID, at.Tokens)
	p.load.Count = max(b.rotations/phases, workers)
	var mem, tables, audit, total []float64
	var rates []float64
	done := 0
	for range phases {
		o, err := b.drive(ctx, c, p.load)
		if err != nil {
			return fmt.Errorf("after %d rotations: %w", done+o.OK, err)
		}
		p.load.Tokens, done, rates = o.Tokens, done+o.OK, append(rates, o.rate())
		if _, err := at.control(ctx, "/ahead?by="+url.QueryEscape(ahead.String())); err != nil {
			return err
		}
		if _, err := at.control(ctx, "/prune"); err != nil {
			return err
		}
		m, err := c.rss()
		if err != nil {
			return err
		}
		w, err := weigh(ctx, at.DB)
		if err != nil {
			return err
		}
		mem, tables, audit, total = append(mem, m), append(tables, w.rest), append(audit, w.audit), append(total, w.file)
	}
	last := phases - 1
	note := fmt.Sprintf("%d rotations in %d chains over %d days of the clock, 0 errors, %.0f /s", done, workers, int(phases*ahead.Hours()/24), median(rates))
	grown := func(what, unit string, v []float64, l limit, note string) {
		q := v[last] / v[settled-1]
		b.add(row{what: what, value: number(v[last]) + " " + unit, floor: number(v[settled-1]) + " " + unit, ratio: number(q), target: l.String(), outcome: l.judge(q), note: note})
	}
	b.add(row{what: "soak, errors", value: "0", target: "<= 0", outcome: outMet, note: note + "; -rotations 5000000 is the full length"})
	flat := atMost(1.1, "")
	grown("soak, memory", "MiB", mem, flat, fmt.Sprintf("floor: after %d of %d phases", settled, phases))
	grown("soak, database without the audit log, pruned", "KiB", tables, flat, "pages of all tables and indexes but the audit's")
	each := 1024 * audit[last] / float64(int(keptDays*24*time.Hour/ahead)*(done/phases))
	grown("soak, database file and log", "KiB", total, flat, fmt.Sprintf("with the audit log, which is kept for %d days here and takes about %.0f bytes for each rotation", keptDays, each))
	return nil
}

// weight is what a database takes, in KiB.
type weight struct{ rest, audit, file float64 }

// weigh reads how many bytes each table and index has.
func weigh(ctx context.Context, path string) (w weight, err error) {
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		return w, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, `SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name GROUP BY m.tbl_name`)
	if err != nil {
		return w, fmt.Errorf("weigh the tables: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var size int64
		if err := rows.Scan(&name, &size); err != nil {
			return w, err
		}
		if name == "audit" {
			w.audit += float64(size) / 1024
		} else {
			w.rest += float64(size) / 1024
		}
	}
	for _, p := range []string{path, path + "-wal"} {
		info, err := os.Stat(p)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return w, err
		}
		w.file += float64(info.Size()) / 1024
	}
	return w, rows.Err()
}
