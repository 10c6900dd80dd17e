package main

import (
	"net/http"
	"strings"
	"sync"
)

const racers = 16

// racer is a program with a warm connection to one server.
type racer struct {
	s *server
	c *http.Client
}

// field makes the racers, spread over the servers.
func (w *world) field(servers ...*server) []racer {
	out := make([]racer, racers)
	for i := range out {
		s := servers[i%len(servers)]
		tr := w.transport(w.address(), s)
		tr.DisableKeepAlives = false
		out[i] = racer{s, &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	}
	return out
}

// race lets all of them send the same form at once.
func race(field []racer, path string, form string, edits ...edit) []reply {
	out := make([]reply, len(field))
	start := make(chan struct{})
	var ready, wg sync.WaitGroup
	ready.Add(len(field))
	for i, r := range field {
		wg.Go(func() {
			req, err := http.NewRequest(http.MethodPost, issuer+path, strings.NewReader(form))
			if err != nil {
				panic(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			for _, e := range edits {
				e(req)
			}
			ready.Done()
			<-start
			out[i] = do(r.c, req)
		})
	}
	ready.Wait()
	close(start)
	wg.Wait()
	return out
}

// fields are the fields of racers that a store allows: one server, and over
// PostgreSQL two.
func (t *trial) fields(twin *server) map[string][]racer {
	out := map[string][]racer{"one server": t.w.field(t.s)}
	if twin != nil {
		out["two replicas"] = t.w.field(t.s, twin)
	}
	return out
}

// twin is a second server on the same database, where the store allows one.
func (e *env) twin() *server {
	if e.w.engine.name() != "postgres" {
		return nil
	}
	if s, ok := e.vars["twin"].(*server); ok && s.alive() {
		if s.offset != e.s.offset {
			s.later(e.s.offset - s.offset)
		}
		return s
	}
	s, err := e.w.start(options{addr: twinAddr, twin: e.s, changes: e.options.changes})
	if err != nil {
		panic(stop{"the second replica: " + err.Error()})
	}
	e.vars["twin"] = s
	return s
}

// onceOnly races n rounds of one request and wants one winner in each; losers
// must get the error that is listed.
func (t *trial) onceOnly(what string, status int, code string, next func() (path, form string, edits []edit), won func(reply) bool) {
	for name, field := range t.fields(t.twin()) {
		for n := range t.w.rounds {
			path, form, edits := next()
			winners := 0
			for _, a := range race(field, path, form, edits...) {
				switch {
				case won(a):
					winners++
				case code == "" && a.status == status, a.is(status, code):
				default:
					t.check(false, "%s, %s, round %d: a loser got %s", what, name, n, a)
				}
			}
			if !t.check(winners == 1, "%s, %s, round %d: %d winners", what, name, n, winners) {
				return
			}
		}
	}
}
