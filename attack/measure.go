package main

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// honest sends n requests of the everyday kind (a cached client's authorization
// page, an introspection) over a kept connection and returns how long each took,
// and what failed.
func (t *trial) honest(n int) (times []time.Duration, failures []string) {
	tr := t.w.transport(t.w.address(), t.s)
	tr.DisableKeepAlives = false
	c := &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer tr.CloseIdleConnections()
	type held struct {
		token string
		since time.Time
	}
	h, _ := t.vars["honest token"].(held)
	if age := t.s.now().Sub(h.since); h.token == "" || age > 4*time.Minute || age < 0 {
		h = held{t.john.grant("prompt", "consent").str("access_token"), t.s.now()}
		t.vars["honest token"] = h
	}
	token := h.token
	cookies := t.john.cookies()
	for i := range n {
		var req *http.Request
		if i%2 == 0 {
			req, _ = http.NewRequest(http.MethodGet, az("prompt", "consent"), nil)
			req.Header.Set("Cookie", cookies)
			req.Header.Set("Sec-Fetch-Site", "none")
		} else {
			req, _ = http.NewRequest(http.MethodPost, issuer+"/introspect", strings.NewReader(values("token", token).Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			basic(resource, secret)(req)
		}
		began := time.Now()
		a := do(c, req)
		times = append(times, time.Since(began))
		right := strings.Contains(a.raw, `name="decision"`)
		if i%2 == 1 {
			right = a.body["active"] == true
		}
		if a.err != nil || a.status != 200 || !right {
			failures = append(failures, a.String())
		}
	}
	return times, failures
}

func p99(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)*99/100]
}

// isolated measures honest requests before, during and after something hostile,
// three times, and wants no failure and, in the median, a p99 within figure R1 of the
// slower idle one: 1.5 times, or 10 ms more. The figure holds on a quiet machine; on
// one with other work it is 5 times, or 100 ms more, and the run says so.
func (t *trial) isolated(what string, hostile func(done <-chan struct{})) {
	t.honest(100)
	var over []time.Duration
	var text []string
	for range 3 {
		before, bad := t.honest(300)
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { hostile(done) })
		time.Sleep(200 * time.Millisecond)
		during, worse := t.honest(1000)
		close(done)
		wg.Wait()
		after, bad2 := t.honest(300)
		for _, f := range slices.Concat(bad, worse, bad2) {
			t.check(false, "%s: an honest request failed: %s", what, f)
			break
		}
		idle, hot := max(p99(before), p99(after)), p99(during)
		times, more := time.Duration(3), 10*time.Millisecond
		if busy() { // the figure is for a quiet machine
			times, more = 10, 100*time.Millisecond
		}
		over = append(over, hot-max(idle*times/2, idle+more))
		text = append(text, fmt.Sprintf("idle %v, under attack %v", idle.Round(100*time.Microsecond), hot.Round(100*time.Microsecond)))
	}
	slices.Sort(over)
	t.check(over[1] <= 0, "%s: honest p99 %s", what, strings.Join(text, "; "))
}

// busy reports whether the machine had other work to do when the run began.
var busy = sync.OnceValue(func() bool {
	raw, _ := os.ReadFile("/proc/loadavg")
	var load float64
	fmt.Sscanf(string(raw), "%g", &load)
	if load > 1 {
		fmt.Printf("note: the load of this machine is %.1f without us: latencies may be 5 times or 100 ms above idle, in place of 1.5 times or 10 ms\n", load)
	}
	return load > 1
})

// timing compares how long two kinds of requests take, in turns, by a Welch test of
// what is left without the slowest tenth. The catalogue's million samples are for the
// tests in process; from outside, this finds what differs by a tenth of a millisecond.
func (t *trial) timing(what string, n int, send func(known bool) reply) {
	var worst float64
	for range 3 { // a difference that is real is there each time
		var a, b []time.Duration
		for range n {
			yes, no := send(true), send(false)
			if !t.check(yes.err == nil && yes.status == no.status && yes.status >= 400, "%s: known %s, unknown %s", what, yes, no) {
				return
			}
			a, b = append(a, yes.took), append(b, no.took)
		}
		w := welch(trim(a), trim(b))
		if worst == 0 || w < worst {
			worst = w
		}
		if worst < 4.5 {
			break
		}
	}
	t.check(worst < 4.5, "%s: |t| is %.1f", what, worst)
}

func trim(list []time.Duration) []float64 {
	slices.Sort(list)
	var out []float64
	for _, d := range list[:len(list)*9/10] {
		out = append(out, float64(d))
	}
	return out
}

func welch(a, b []float64) float64 {
	stats := func(l []float64) (mean, of float64) {
		for _, v := range l {
			mean += v / float64(len(l))
		}
		for _, v := range l {
			of += (v - mean) * (v - mean) / float64(len(l)-1)
		}
		return mean, of / float64(len(l))
	}
	ma, va := stats(a)
	mb, vb := stats(b)
	return math.Abs(ma-mb) / math.Sqrt(va+vb)
}
