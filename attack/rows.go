package main

import (
	"fmt"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// group is a group of the catalogue. Its rows attack one server after another
// proof that the server works for honest people.
type group struct {
	name    string
	options options
	prepare func(e *env) // after the baseline
	rows    []row
}

// row is one case of the catalogue with its one safe outcome.
type row struct {
	id  string
	run func(t *trial)
}

// over says which rows concern one kind of store only.
var over = map[string]string{"FA-06": "postgres", "FA-07": "postgres", "FA-08": "postgres", "FA-09": "postgres", "FA-16": "postgres", "FA-18": "postgres"}

// rowsOver are the rows of a group that concern a store.
func (g group) rowsOver(store string) []row {
	var out []row
	for _, r := range g.rows {
		if over[r.id] == "" || over[r.id] == store {
			out = append(out, r)
		}
	}
	return out
}

// env is what the rows of a group share.
type env struct {
	w    *world
	s    *server
	john *person
	vars map[string]any

	options options // of the group
}

// trial is one row under way.
type trial struct {
	*env
	id       string
	checks   int
	problems []string
	skipped  string
	refs     []string // of refusals: each must have left one audit event
	notes    []string // figures for the report
}

// stop is what a row panics with when it cannot go on.
type stop struct{ why string }

// skip ends a row that cannot be done here. A skipped row fails the run.
type skip struct{ why string }

// check counts one outcome. What is not the safe one is unsafe.
func (t *trial) check(ok bool, format string, args ...any) bool {
	t.checks++
	switch {
	case ok:
	case len(t.problems) < 8:
		t.problems = append(t.problems, fmt.Sprintf(format, args...))
	case len(t.problems) == 8:
		t.problems = append(t.problems, "and more")
	}
	return ok
}

func (t *trial) fatal(format string, args ...any) { panic(stop{fmt.Sprintf(format, args...)}) }

func (t *trial) skip(format string, args ...any) { panic(skip{fmt.Sprintf(format, args...)}) }

// local wants a refusal of our own: an HTML page without a way to the client and
// without a word about the network, and later one event in the audit.
func (t *trial) local(what string, pg *page, status ...int) {
	t.checks++
	var bad []string
	say := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	if pg.left {
		t.problems = append(t.problems, fmt.Sprintf("%s: the browser was sent to %s", what, pg.url))
		return
	}
	text := pg.text()
	say(pg.status >= 400 && pg.status < 500 || pg.status == 502 || pg.status == 503, "status %d", pg.status)
	say(len(status) == 0 || slices.Contains(status, pg.status), "status %d, want %v", pg.status, status)
	say(strings.HasPrefix(pg.header.Get("Content-Type"), "text/html"), "media type %q", pg.header.Get("Content-Type"))
	say(pg.header.Get("Location") == "", "Location %q", pg.header.Get("Location"))
	say(!pg.has("decision") && !strings.Contains(pg.body, "code="), "there is a question or a code")
	told := text // the page repeats the client_id that the visitor brought
	if id, err := url.Parse(pg.url.Query().Get("client_id")); err == nil && id.Host != "" {
		told = strings.ReplaceAll(told, id.Host, "")
	}
	say(!oracles.MatchString(told), "it tells about the network: %s", oracles.FindString(told))
	say(!strings.Contains(pg.body, "<script"), "there is a script")
	say(strings.Contains(pg.header.Get("Content-Security-Policy"), "frame-ancestors 'none'"), "it may be framed")
	ref := reference.FindString(text)
	say(ref != "", "no reference number")
	if len(bad) > 0 {
		t.problems = append(t.problems, fmt.Sprintf("%s: %s: %s", what, strings.Join(bad, "; "), pg))
	}
	if ref != "" {
		t.refs = append(t.refs, ref)
	}
	t.s.later(time.Second) // strangers' events are sampled by time
}

// at lets f attack another server than that of the group, and then wants the
// events of its refusals. The server has ended afterwards.
func (t *trial) at(s *server, f func(p *person)) {
	old, refs := t.env, t.refs
	defer func() { t.env, t.refs = old, refs }()
	p := s.newUser("john")
	t.env, t.refs = &env{w: old.w, s: s, john: p, vars: old.vars}, nil
	f(p)
	out := []outcome{{}}
	t.env.audit(out, map[int][]string{0: t.refs})
	t.problems = append(t.problems, out[0].evidence...)
}

// another starts a server beside that of the group.
func (t *trial) another(o options) *server {
	if o.addr == "" {
		o.addr = replicaAddr
	}
	s, err := t.w.start(o)
	if err != nil {
		t.fatal("%v", err)
	}
	return s
}

// asks wants the consent page.
func (t *trial) asks(what string, pg *page) {
	t.check(pg.asks(), "%s: no consent page: %s", what, pg)
}

// outcome of a row, for the table.
type outcome struct {
	group, id string
	checks    int
	state     string // safe, unsafe, skipped
	evidence  []string
	notes     []string
	took      time.Duration
}

// runGroup starts the server of a group, proves that it serves honest people and
// attacks it.
func (w *world) runGroup(g group, only map[string]bool) (out []outcome) {
	g.rows = g.rowsOver(w.engine.name())
	e := &env{w: w, vars: map[string]any{}, options: g.options}
	began := time.Now()
	if why := guarded(func() { e.begin(g) }); why != "" {
		for _, r := range g.rows {
			if len(only) == 0 || only[r.id] {
				out = append(out, outcome{group: g.name, id: r.id, state: "unsafe", evidence: []string{"the baseline of the group fails: " + why}})
			}
		}
		w.stopAll()
		return out
	}
	if w.verbose {
		fmt.Printf("%s %-4s baseline %v\n", w.engine.name(), g.name, time.Since(began).Round(time.Millisecond))
	}
	refs := map[int][]string{}
	for _, r := range g.rows {
		if len(only) > 0 && !only[r.id] {
			continue
		}
		t := &trial{env: e, id: r.id}
		began := time.Now()
		o := outcome{group: g.name, id: r.id, state: "safe"}
		why := guarded(func() { r.run(t) })
		if rest, ok := strings.CutPrefix(why, skipMark); ok {
			o.state, why, t.skipped = "skipped", "", rest
		}
		if why != "" {
			t.problems = append(t.problems, "could not go on: "+why)
		}
		if hits := w.canary.take(); len(hits) > 0 {
			t.problems = append(t.problems, "canary: "+strings.Join(hits, ", "))
		}
		if e.s.process != nil && !e.s.alive() {
			t.problems = append(t.problems, "the server has ended: "+tail(e.s.output(), 500))
		}
		if t.checks == 0 && o.state == "safe" && len(t.problems) == 0 {
			t.problems = append(t.problems, "nothing was checked")
		}
		o.checks, o.took, o.evidence, o.notes = t.checks, time.Since(began), t.problems, t.notes
		if len(t.problems) > 0 {
			o.state = "unsafe"
		} else if t.skipped != "" {
			o.evidence = []string{t.skipped}
		}
		refs[len(out)] = t.refs
		out = append(out, o)
		if w.verbose {
			fmt.Printf("%s %-6s %-7s %3d checks %6.2fs\n", w.engine.name(), o.id, o.state, o.checks, o.took.Seconds())
			for _, p := range slices.Concat(o.evidence, o.notes) {
				fmt.Printf("    %s\n", p)
			}
		}
		if e.s.process == nil || !e.s.alive() {
			if why := guarded(func() { e.begin(g) }); why != "" {
				out[len(out)-1].evidence = append(out[len(out)-1].evidence, "and does not come back: "+why)
				break
			}
			refs = map[int][]string{}
		}
	}
	if why := guarded(func() { e.audit(out, refs) }); why != "" && len(out) > 0 {
		o := &out[len(out)-1]
		o.state, o.evidence = "unsafe", append(o.evidence, "the audit cannot be read: "+why)
	}
	w.stopAll()
	return out
}

// audit wants one event for each refusal that a person saw. What came faster than
// the audit takes from strangers (DS-12) may be counted in an event instead.
func (e *env) audit(out []outcome, refs map[int][]string) {
	e.s.term() // writes what is in the queue
	seen, counted := map[string]int{}, 0
	for _, ev := range e.s.events("") {
		if ev["type"] == "suppressed" && ev["code"] == "refusal" {
			if data, ok := ev["data"].(map[string]any); ok {
				n, _ := strconv.Atoi(fmt.Sprint(data["count"]))
				counted += n
			}
		}
		if ref, ok := ev["ref"].(string); ok && (ev["type"] == "refusal" || ev["type"] == "refused") {
			seen[ref]++
		}
	}
	for i, list := range refs {
		for _, ref := range list {
			if seen[ref] == 0 && counted > 0 {
				counted--
				continue
			}
			if seen[ref] != 1 {
				out[i].state = "unsafe"
				out[i].evidence = append(out[i].evidence, fmt.Sprintf("%d audit events for the refusal %s", seen[ref], ref))
			}
		}
	}
}

const skipMark = "\x00skip "

// guarded runs f and returns why it stopped, or "".
func guarded(f func()) (why string) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case stop:
			why = v.why
		case skip:
			why = skipMark + v.why
		default:
			why = fmt.Sprintf("a mistake of the harness: %v", v)
			fmt.Fprintf(os.Stderr, "%v\n%s\n", v, debug.Stack())
		}
	}()
	f()
	return ""
}

// begin starts the server of a group and walks the honest way once: sign-in,
// consent, code, tokens, introspection, refresh.
func (e *env) begin(g group) {
	e.w.forget()
	e.w.host("good.test").client("/c.json", nil)
	s, err := e.w.start(g.options)
	if err != nil {
		panic(stop{err.Error()})
	}
	e.s = s
	delete(e.vars, "twin")
	e.john = s.newUser("john")
	e.baseline(e.john)
	if p, ok := e.w.engine.(*postgres); ok { // a server that falls back to a file would pass every row
		if n, err := p.sql(s.database(), "SELECT count(*) FROM clients"); err != nil || n == "0" {
			panic(stop{fmt.Sprintf("the server does not keep its rows in PostgreSQL (%s, %v)", n, err)})
		}
	}
	if g.prepare != nil {
		g.prepare(e)
	}
}

func (e *env) baseline(p *person) {
	pg := p.visit(az())
	if !pg.asks() {
		panic(stop{"no consent page for the good client: " + pg.String()})
	}
	pg = p.answer(pg, "allow")
	if pg.code() == "" || pg.url.Query().Get("iss") != issuer || pg.url.Query().Get("state") != "s1" {
		panic(stop{"no code for the good client: " + pg.String()})
	}
	a := e.s.post("/token", codeForm(pg.code()))
	if !a.ok() || !e.s.active(a.str("access_token")) {
		panic(stop{"no tokens for the good client: " + a.String()})
	}
	if b := e.s.post("/token", refreshForm(a.str("refresh_token"))); !b.ok() || b.str("refresh_token") == "" {
		panic(stop{"no refresh for the good client: " + b.String()})
	}
}
