package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// The outcomes, in the order in which the table shows them.
const (
	outFailed = "failed"
	outMissed = "missed"
	outNotRun = "not run"
	outMet    = "met"
)

// noisy is the drift of a floor from start to end beyond which its figure proves
// nothing.
const noisy = 0.20

// quiet is the load average before the start from which on others are at work.
const quiet = 0.5

// row is one line of the table.
type row struct {
	what, value, floor, ratio, target, outcome, drift, note string
}

// limit is a target: a ratio or a value that must not be passed.
type limit struct {
	atLeast bool
	bound   float64
	unit    string // of a value; empty for a ratio
}

func atLeast(ratio float64) limit { return limit{atLeast: true, bound: ratio} }
func atMost(v float64, unit string) limit {
	return limit{bound: v, unit: unit}
}

func (l limit) String() string {
	sign := "<= "
	if l.atLeast {
		sign = ">= "
	}
	if l.unit == "" {
		return sign + number(l.bound)
	}
	return sign + number(l.bound) + " " + l.unit
}

func (l limit) judge(v float64) string {
	if math.IsNaN(v) || l.atLeast && v < l.bound || !l.atLeast && v > l.bound {
		return outMissed
	}
	return outMet
}

// series is a floor and what was measured between its turns.
type series struct {
	floor   []float64   // one more than turns
	figures [][]float64 // of each measured thing, one a turn
}

// turn measures once.
type turn func() (float64, error)

// take lets floor and figures take turns: floor, each figure, floor, ...
func take(n int, floor turn, figures ...turn) (series, error) {
	s := series{figures: make([][]float64, len(figures))}
	for i := range n + 1 {
		v, err := floor()
		if err != nil {
			return s, fmt.Errorf("floor: %w", err)
		}
		s.floor = append(s.floor, v)
		for j, f := range figures {
			if i == n {
				break
			}
			v, err := f()
			if err != nil {
				return s, err
			}
			s.figures[j] = append(s.figures[j], v)
		}
	}
	return s, nil
}

// ratio returns the median of figure i over the floors around it.
func (s series) ratio(i int) float64 {
	var out []float64
	for j, v := range s.figures[i] {
		out = append(out, v/((s.floor[j]+s.floor[j+1])/2))
	}
	return median(out)
}

// over returns the median of figure i over figure j of the same turn.
func (s series) over(i, j int) float64 {
	var out []float64
	for k := range s.figures[i] {
		out = append(out, s.figures[i][k]/s.figures[j][k])
	}
	return median(out)
}

// drift says what the floor was at the start and at the end, and how far apart.
func (s series) drift() (string, bool) {
	a, z := s.floor[0], s.floor[len(s.floor)-1]
	d := math.Abs(z-a) / math.Min(a, z)
	return fmt.Sprintf("%s > %s, %.0f %%", number(a), number(z), 100*d), d > noisy
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v) / 2
	if len(v)%2 == 1 {
		return v[n]
	}
	return (v[n-1] + v[n]) / 2
}

// number writes three digits that count.
func number(v float64) string {
	switch {
	case v == math.Trunc(v) && math.Abs(v) < 1e4, math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// compare adds a row: figure i of s against its floor, held to a limit. A limit
// with a unit is for the figure, one without for the ratio.
func (b *bench) compare(r row, s series, i int, unit string, l limit) {
	v, q := median(s.figures[i]), s.ratio(i)
	if r.value == "" {
		r.value = number(v) + " " + unit
	}
	if r.floor == "" {
		r.floor = number(median(s.floor)) + " " + unit
	}
	r.ratio, r.target = number(q), l.String()
	if l.unit != "" {
		q = v
	}
	r.outcome = l.judge(q)
	var loud bool
	if r.drift, loud = s.drift(); loud {
		r.outcome += ", noisy"
	}
	b.add(r)
}

func (b *bench) add(r row) { b.rows = append(b.rows, r) }

// print prints the table: what was measured, on what, and how steady it was.
func (b *bench) print(began time.Time, load string) {
	order := []string{outFailed, outMissed, outNotRun, outMet}
	slices.SortStableFunc(b.rows, func(x, y row) int {
		at := func(r row) int {
			return slices.IndexFunc(order, func(o string) bool { return strings.HasPrefix(r.outcome, o) })
		}
		return cmp.Compare(at(x), at(y))
	})
	count := map[string]int{}
	fmt.Println()
	fmt.Printf("%s, %d cores, %s %s/%s; %s\n", processor(), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, pinned())
	fmt.Printf("%d turns of %v for each figure, the floor before and after each, medians; %d connections; load average %s before, %s after\n\n",
		rounds, b.slice.Round(time.Millisecond), workers, load, loadAverage())
	if v, err := strconv.ParseFloat(load, 64); err != nil || v >= quiet {
		fmt.Printf("The machine was not quiet before the start (load %s, wanted below %v): take these figures for orientation.\n\n", load, quiet)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "outcome\twhat\tvalue\tfloor\tratio\ttarget\tfloor from start to end\tnote")
	for _, r := range b.rows {
		outcome, _, _ := strings.Cut(r.outcome, ",")
		count[outcome]++
		note := strings.Join(strings.Fields(r.note), " ")
		if len(note) > 200 {
			note = note[:200] + "..."
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.outcome, r.what, dash(r.value), dash(r.floor), dash(r.ratio), dash(r.target), dash(r.drift), note)
	}
	w.Flush()
	fmt.Printf("\nbench: %d met, %d missed, %d not run, %d failed in %v\n",
		count[outMet], count[outMissed], count[outNotRun], count[outFailed], time.Since(began).Round(time.Second))
}

func dash(s string) string { return cmp.Or(s, "-") }
