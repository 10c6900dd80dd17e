package housetest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/browse"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// racers is how many ask at once.
const racers = 16

// race lets racers go at once over the network and returns what they came back
// with.
func race(run func() (Answer, error)) ([]Answer, error) {
	var wg sync.WaitGroup
	answers, start := make([]Answer, racers), make(chan struct{})
	var failed atomic.Pointer[error]
	for i := range racers {
		wg.Go(func() {
			<-start
			a, err := run()
			if err != nil {
				failed.Store(&err)
			}
			answers[i] = a
		})
	}
	close(start)
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return answers, nil
}

// codes gets a code without a page: John has agreed before.
func (h *House) codes(p *Person) func() string {
	h.grant(p)
	return func() string { return p.Code(h.Authorize()) }
}

// contests are what only one may have. Add a row for whatever else is so.
var contests = []contest{
	{
		name:  "TOK-22, attack TK-02, attack TK-03: a code is redeemed once",
		begin: codeContest,
		plant: plant{"codes", "UPDATE OF used_at", "UPDATE codes SET used_at = NULL WHERE hash = NEW.hash"},
	},
	{
		name:  "TOK-12, TOK-22, attack RF-02: a refresh token has one successor, and its family one head",
		begin: refreshContest,
		plant: plant{"grants", "UPDATE OF head", "UPDATE grants SET head = OLD.head WHERE id = NEW.id AND OLD.head > 0"},
	},
	{
		name:  "CAUTH-06, attack CA-01: an assertion is good once",
		begin: assertionContest,
		plant: plant{"spent_ids", "INSERT", "DELETE FROM spent_ids WHERE hash = NEW.hash"},
	},
	{
		name:  "DPOP-01, attack DP-01: a proof is good once",
		begin: proofContest,
		plant: plant{"spent_ids", "INSERT", "DELETE FROM spent_ids WHERE hash = NEW.hash"},
	},
	{
		name:  "CONS-06, attack CN-07: a page is answered once",
		begin: consentContest,
		plant: plant{"consent_nonces", "INSERT", "DELETE FROM consent_nonces WHERE hash = NEW.hash"},
	},
	{
		name:  "PAR-05: a pushed request is answered once, on however many pages it stands",
		begin: pushedContest,
		plant: plant{"pushed_requests", "UPDATE OF used_at", "UPDATE pushed_requests SET used_at = NULL WHERE hash = NEW.hash"},
	},
	{
		name:    "DEV-06, attack DV-07: a device code is redeemed once",
		changes: []string{"policy: {default: allow}", "policy: {default: allow, rules: [{host: tv.test, action: allow}]}"},
		begin:   deviceContest,
		plant:   plant{"device_codes", "UPDATE", "UPDATE device_codes SET state = CASE WHEN state = 'used' THEN 'approved' ELSE state END, next_poll_at = 0 WHERE hash = NEW.hash"},
	},
}

func codeContest(h *House) ring {
	next := h.codes(h.john())
	return func() bout {
		return bout{
			send:  posts("/token", CodeForm(next())),
			prize: func(_ int, a Answer) string { return a.Str("access_token") },
			lost:  refused(400, "invalid_grant"),
			after: func(token string, _ []Answer) error {
				if h.active(token) {
					return errors.New("TOK-03: the replays did not end the grant")
				}
				return nil
			},
		}
	}
}

func refreshContest(h *House) ring {
	next := h.codes(h.john())
	refresh := func(token string) Answer { return h.Post("/token", RefreshForm(token)) }
	return func() bout {
		first := h.Post("/token", CodeForm(next())).Str("refresh_token")
		return bout{
			send:  posts("/token", RefreshForm(first)),
			prize: func(_ int, a Answer) string { return a.Str("refresh_token") },
			lost:  refused(400, "invalid_grant"),
			after: func(head string, _ []Answer) error {
				if again := refresh(first); again.Str("refresh_token") != head {
					return fmt.Errorf("TOK-12: who asks again because the answer was lost gets %d %s", again.Status, again.Raw)
				}
				second := refresh(head)
				if !second.OK() {
					return fmt.Errorf("the head is dead: %d %s", second.Status, second.Raw)
				}
				if replay := refresh(first); replay.Status != 400 || replay.Str("error") != "invalid_grant" {
					return fmt.Errorf("TOK-11: a replay gets %d %s", replay.Status, replay.Raw)
				}
				if late := refresh(second.Str("refresh_token")); late.OK() || h.active(second.Str("access_token")) {
					return errors.New("TOK-11: the family lives on after a replay")
				}
				return nil
			},
		}
	}
}

// each takes every success for a prize of its own.
func each(status int) func(int, Answer) string {
	return func(i int, a Answer) string {
		if a.Status == status {
			return strconv.Itoa(i)
		}
		return ""
	}
}

func assertionContest(h *House) ring {
	k := h.keyed(nil, jose.ES256)
	if a := k.redeem(k.code(h.john()), k.assert(nil)); !a.OK() {
		h.TB.Fatalf("%d %s", a.Status, a.Raw)
	}
	return func() bout {
		return bout{send: posts("/revoke", change(nil2("token", "unknown"), with(k.assert(nil)))), prize: each(http.StatusOK), lost: refused(401, "invalid_client")}
	}
}

func proofContest(h *House) ring {
	key := newKey(h.TB, jose.ES256)
	h.grant(h.john()) // the client is known
	return func() bout {
		h.Later(10 * time.Minute) // nobody may push so often
		proof := h.proof(key, members{"htu": Issuer + "/par"})
		return bout{send: posts("/par", h.pushForm(), proof), prize: each(http.StatusCreated), lost: refused(400, string(oauth.InvalidDPoPProof))}
	}
}

// answered reads what a browser gets for its answer to a page.
func answered(_ int, a Answer) string {
	to, err := url.Parse(a.Header.Get("Location"))
	if err != nil || a.Status != http.StatusSeeOther {
		return ""
	}
	return to.Query().Get("code")
}

func tooLate(a Answer) bool { return a.Status == http.StatusConflict }

// decides sends the answers of a browser to pages that it has open.
func decides(forms []*browse.Form, cookie string) func(i int) *http.Request {
	return func(i int) *http.Request {
		return posts("/consent", forms[i%len(forms)].Values, header("Cookie", cookie), header("Origin", Issuer), header("Sec-Fetch-Site", "same-origin"))(i)
	}
}

func consentContest(h *House) ring {
	john := h.john()
	return func() bout {
		f, cookie := john.question(h.Authorize("prompt", "consent"))
		return bout{send: decides([]*browse.Form{f}, cookie), prize: answered, lost: tooLate}
	}
}

func pushedContest(h *House) ring {
	john := h.john()
	return func() bout {
		h.Later(40 * time.Second) // as above; in 10,000 rounds John's session goes on
		address := pushed(ClientID, h.Post("/par", h.pushForm("prompt", "consent")).uri(h.TB))
		var forms []*browse.Form
		var cookie string
		for range 4 {
			var f *browse.Form
			f, cookie = john.question(address)
			forms = append(forms, f)
		}
		return bout{send: decides(forms, cookie), prize: answered, lost: func(a Answer) bool { return a.Status == http.StatusConflict || a.Status == http.StatusBadRequest }}
	}
}

func deviceContest(h *House) ring {
	h.Net.Host("tv.test").ServeClient("/c.json", tvDocument())
	john := h.john()
	return func() bout {
		h.Later(45 * time.Second)
		a := h.started()
		if done := john.connect(john.enter(a.Str("user_code")), "allow"); done.Status != http.StatusOK {
			h.TB.Fatalf("%d %s", done.Status, done.Text())
		}
		return bout{send: posts("/token", PollForm(a.Str("device_code"))), prize: func(_ int, a Answer) string { return a.Str("access_token") },
			lost: refused(400, string(oauth.SlowDown), "invalid_grant"),
			after: func(string, []Answer) error {
				if late := h.poll(a); late.Status != 400 || late.Str("error") != "invalid_grant" {
					return fmt.Errorf("who asks later gets %d %s", late.Status, late.Raw)
				}
				return nil
			}}
	}
}

// question opens a consent page and returns its answered form and the cookies
// that go with it.
func (p *Person) question(address string) (*browse.Form, string) {
	p.House.TB.Helper()
	page := p.Visit(address)
	var parts []string
	for _, c := range cookies(p) {
		parts = append(parts, c.Name+"="+c.Value)
	}
	return p.form(page, "decision").With("decision", "allow"), strings.Join(parts, "; ")
}
