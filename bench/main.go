// Command bench measures Bonafide against floors and peers, in one run, on this
// machine, over loopback. Every figure is a ratio against something measured in
// the same run, in the order floor, figure, floor. It prints one table last,
// misses first, and exits 1 only when something could not be measured: a miss is
// a finding. What could not be had is "not run".
//
// The program starts itself again in roles: the server under test on core 0, the
// load on core 1.
//
//	make bench TIME=10s                                   longer turns
//	cd bench && ./run.sh 3s -only refresh                 one section
//	cd bench && ./run.sh 3s -only soak -rotations 5000000 the whole soak, about half an hour
//	cd bench && ./run.sh 3s -only junk -junk 1000000      all of the junk, about ten minutes
//
// BENCH_PROFILE=FILE writes CPU profiles of the server under test to FILE.refresh,
// FILE.authorize and FILE.soak.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"
)

// rounds is how often floor and figure take turns: the median counts.
const rounds = 5

// workers is how many connections ask at a time.
const workers = 32

// bench is one run.
type bench struct {
	exe       string
	dir       string        // of this run, removed at its end
	slice     time.Duration // how long each turn of a measurement takes
	rotations int
	junk      int
	rows      []row
	failed    int
}

// notRun says why something was not run.
type notRun string

// Error returns the reason.
func (n notRun) Error() string { return string(n) }

func main() {
	role := flag.String("role", "", "what this process is: "+roleNames()+"; empty runs the measurements")
	each := flag.Duration("time", 3*time.Second, "how long each figure is measured, over all its turns but the floor's")
	rotations := flag.Int("rotations", 20_000, "rotations of the soak; the target is 5000000")
	junk := flag.Int("junk", 20_000, "distinct junk client_ids; the target is 1000000")
	only := flag.String("only", "", "run only the sections that match this pattern")
	flag.Parse()
	if *role != "" {
		if err := play(*role, flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", *role+":", err)
			os.Exit(1)
		}
		return
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, &bench{slice: max(*each/rounds, 20*time.Millisecond), rotations: *rotations, junk: *junk}, pattern)
	stop()
	os.Exit(code)
}

// run goes through the sections and prints the table.
func run(ctx context.Context, b *bench, only *regexp.Regexp) int {
	var err error
	if b.exe, err = os.Executable(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	// Beside the program and not in /tmp, which is memory on some machines: a
	// commit has to reach a disk.
	if b.dir, err = os.MkdirTemp("out", "run-"); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	defer os.RemoveAll(b.dir)
	began, load := time.Now(), loadAverage()
	for _, s := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"resolve and verify", b.micro},
		{"refresh and peers", b.refresh},
		{"refresh on PostgreSQL", b.postgres},
		{"authorize", b.authorize},
		{"PAR", b.push},
		{"device polling", b.polling},
		{"start, memory and size", b.atRest},
		{"strangers", b.strangers},
		{"junk client_ids", b.junkIDs},
		{"junk with valid documents", b.validIDs},
		{"soak", b.soak},
	} {
		if !only.MatchString(s.name) {
			b.add(row{what: s.name, outcome: outNotRun, note: "left out by -only"})
			continue
		}
		at := time.Now()
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.name)
		if err := s.do(ctx); err != nil {
			b.fail(s.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %v\n", s.name, time.Since(at).Round(100*time.Millisecond))
	}
	b.print(began, load)
	if b.failed > 0 {
		return 1
	}
	return 0
}

// fail adds a row for what could not be measured.
func (b *bench) fail(what string, err error) {
	r := row{what: what, outcome: outFailed, note: err.Error()}
	if reason, ok := errors.AsType[notRun](err); ok {
		r.outcome, r.note = outNotRun, string(reason)
	} else {
		b.failed++
	}
	b.add(r)
}
