package housetest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/store/pgtest"
	"github.com/bonafide-id/bonafide/internal/store/storetest"
)

// A contest is about something that only one may have, however many ask for it
// at the same moment. Each runs on both engines: one server on a file of SQLite,
// and two replicas on one PostgreSQL, with half of the racers at either. `make
// races ROUNDS=10000` runs them at length.
type contest struct {
	name    string            // starts with the rows it stands for
	changes []string          // of the configuration
	begin   func(*House) ring // once for each house
	plant   plant             // a store that forgets what was taken
	most    int               // rounds in `make test`; 0 is all that were asked for
}

// ring makes a bout for each round.
type ring func() bout

// bout is one round.
type bout struct {
	send  func(i int) *http.Request             // of one racer
	prize func(i int, a Answer) string          // what the racer got; "" when it got nothing. All may get the same
	lost  func(a Answer) bool                   // whether it is the right refusal
	after func(prize string, as []Answer) error // what holds afterwards; may be nil
}

// plant is a mistake that is put into the database: what is taken is put back.
type plant struct{ table, event, undo string }

// tally is how a contest went.
type tally struct {
	rounds, answers int
	double          int // rounds with more than one prize
	none            int // rounds without any
	wrong           int // refusals that are not the right one
	trouble         int // answers of 500 and more
	after           int // rounds after which something did not hold
	first           error
	took            time.Duration
}

func (t *tally) clean() bool { return t.double+t.none+t.wrong+t.trouble+t.after == 0 }

func (t *tally) complain(n *int, format string, args ...any) {
	if *n++; t.first == nil {
		t.first = fmt.Errorf(format, args...)
	}
}

// contestRounds is how many rounds were asked for.
func contestRounds(t *testing.T) int {
	text := os.Getenv("BONAFIDE_ROUNDS")
	if text == "" {
		return 12
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("BONAFIDE_ROUNDS is %q", text)
	}
	return n
}

// hold runs a contest.
func (c contest) hold(h *House, rounds int) (out tally) {
	next := c.begin(h)
	start := time.Now()
	for range rounds {
		out.rounds++
		c.round(h, next(), &out)
	}
	out.took = time.Since(start)
	return out
}

func (c contest) round(h *House, b bout, out *tally) {
	answers := h.rush(b.send)
	prizes := map[string]bool{}
	prize := ""
	for i, a := range answers {
		out.answers++
		switch p := b.prize(i, a); {
		case p != "":
			prizes[p], prize = true, p
		case a.Status >= 500:
			out.complain(&out.trouble, "round %d: %d %s", out.rounds, a.Status, a.Raw)
		case !b.lost(a):
			out.complain(&out.wrong, "round %d: a loser got %d %s", out.rounds, a.Status, cmp.Or(a.Raw, a.Header.Get("Location")))
		}
	}
	switch {
	case len(prizes) > 1:
		out.complain(&out.double, "round %d: %d prizes", out.rounds, len(prizes))
	case len(prizes) == 0:
		out.complain(&out.none, "round %d: nobody won", out.rounds)
	case b.after != nil:
		if err := b.after(prize, answers); err != nil {
			out.complain(&out.after, "round %d: %w", out.rounds, err)
		}
	}
}

// rush lets racers go at once, by turns at each replica, without a network in
// between that would put them in order.
func (h *House) rush(send func(i int) *http.Request) []Answer {
	answers, start := make([]Answer, racers), make(chan struct{})
	var ready, wg sync.WaitGroup
	ready.Add(racers)
	for i := range racers {
		r := send(i)
		server := h.servers[i%len(h.servers)].Handler()
		wg.Go(func() {
			w := httptest.NewRecorder()
			ready.Done()
			<-start
			server.ServeHTTP(w, r)
			a := Answer{Status: w.Code, Header: w.Header(), Raw: w.Body.String()}
			_ = json.Unmarshal(w.Body.Bytes(), &a.Body) // pages are not JSON
			answers[i] = a
		})
	}
	ready.Wait()
	close(start)
	wg.Wait()
	return answers
}

// posts returns what sends the same form again and again.
func posts(path string, form url.Values, edit ...func(*http.Request)) func(int) *http.Request {
	return func(int) *http.Request {
		r := httptest.NewRequest(http.MethodPost, Issuer+path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, e := range edit {
			e(r)
		}
		return r
	}
}

// refused returns whether an answer is this refusal.
func refused(status int, codes ...string) func(Answer) bool {
	return func(a Answer) bool {
		for _, code := range codes {
			if a.Status == status && a.Str("error") == code {
				return true
			}
		}
		return false
	}
}

// engines are where contests are held.
var contestants = []struct {
	name  string
	house func(t *testing.T, changes ...string) *House
}{
	{"SQLite, one process", func(t *testing.T, changes ...string) *House { return newHouse(t, replicas{}, changes...) }},
	{"PostgreSQL, two replicas", func(t *testing.T, changes ...string) *House { return newHouse(t, onPostgres(t, 2), changes...) }},
}

func TestContests(t *testing.T) {
	rounds := contestRounds(t)
	table := []string{fmt.Sprintf("%-26s %-62s %7s %8s %6s %6s %6s %6s %6s %9s", "engine", "contest", "rounds", "answers", "double", "none", "wrong", "5xx", "after", "took")}
	for _, c := range contests {
		for _, e := range contestants {
			t.Run(c.name+": "+e.name, func(t *testing.T) {
				n := rounds
				if c.most > 0 && os.Getenv("BONAFIDE_ROUNDS") == "" {
					n = c.most
				}
				got := c.hold(e.house(t, c.changes...), n)
				if !got.clean() {
					t.Errorf("%+v: %v", got, got.first)
				}
				row := fmt.Sprintf("%-26s %-62.62s %7d %8d %6d %6d %6d %6d %6d %9s", e.name, c.name, got.rounds, got.answers,
					got.double, got.none, got.wrong, got.trouble, got.after, got.took.Round(time.Millisecond))
				t.Log(row)
				table = append(table, row)
			})
		}
	}
	t.Log("\n" + strings.Join(table, "\n"))
}

// TestContestsCatch: a store that forgets is found out by each contest.
func TestContestsCatch(t *testing.T) {
	for _, c := range contests {
		for _, e := range contestants {
			t.Run("a store that forgets: "+c.name+": "+e.name, func(t *testing.T) {
				h := e.house(t, c.changes...)
				next := c.begin(h)
				c.plant.in(t, h)
				var got tally
				for range 5 {
					got.rounds++
					c.round(h, next(), &got)
					if got.double+got.after > 0 {
						return
					}
				}
				t.Errorf("the contest passes a store that breaks it: %+v: %v", got, got.first)
			})
		}
	}
}

// in puts the mistake into the database of a house.
func (p plant) in(t *testing.T, h *House) {
	t.Helper()
	if h.address == "" {
		err := storetest.Exec(h.storePath(), "CREATE TRIGGER forget AFTER "+p.event+" ON "+p.table+" BEGIN "+p.undo+"; END")
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	pgtest.Exec(t, h.address, "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "+p.undo+"; RETURN NULL; END $$")
	pgtest.Exec(t, h.address, "CREATE TRIGGER forget AFTER "+p.event+" ON "+p.table+" FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION forget()")
}
