package authorize

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
)

// counted is a store that counts what is looked up, and what is asked for without.
type counted struct {
	*store.Store
	looked, turned int
}

func (c *counted) GuessUserCode(ctx context.Context, g store.Guess, now time.Time) (store.Device, time.Duration, error) {
	d, wait, err := c.Store.GuessUserCode(ctx, g, now)
	if errors.Is(err, store.ErrTooFast) {
		c.turned++
	} else {
		c.looked++
	}
	return d, wait, err
}

// TestGuessersTogether lets a hundred accounts at a thousand addresses guess at
// three replicas for as long as a code lives (R10). The arithmetic is in
// TestGuessing; here it is held against what the handlers really look up.
func TestGuessersTogether(t *testing.T) {
	p := openDevices(t)
	c := &counted{Store: p.store}
	p.h.device.Devices = c
	desks := []*web.Throttle{p.h.device.guesses, web.NewThrottle(p.h.device.Life), web.NewThrottle(p.h.device.Life)} // what replicas do not share
	waiting := map[string]bool{}
	for range 200 {
		code := newUserCode()
		waiting[code] = true
		now := p.clock.Now()
		if err := p.store.StartDevice(t.Context(), store.Device{
			Hash: store.HashOf(code), UserCode: userCodeHash(p.h.device.CodeKey, code), ClientID: tvID, Resource: resource, Method: "none",
			Created: now, Expires: now.Add(p.h.device.Life), NextPoll: now, Interval: time.Second,
		}, maxDevices); err != nil {
			t.Fatal(err)
		}
	}
	type guesser struct {
		*person
		token string
	}
	var guessers []guesser
	for i := range 100 {
		name := fmt.Sprint("guesser", i)
		if err := p.store.AddUser(t.Context(), store.User{ID: name, Name: name, PasswordHash: "x", Created: start}); err != nil {
			t.Fatal(err)
		}
		b := p.signedIn(name)
		guessers = append(guessers, guesser{b, entryField.FindStringSubmatch(b.get("/device").body)[1]})
	}
	const attempts = 6_000
	accepted := 0
	for i := range attempts {
		g := guessers[i%len(guessers)]
		form := url.Values{"form": {g.token}, "user_code": {newUserCode()}}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, issuer+"/device", strings.NewReader(form.Encode()))
		r.RemoteAddr = fmt.Sprintf("203.0.%d.%d:4711", i%1000/250, i%250)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		for k, v := range g.cookies {
			r.AddCookie(&http.Cookie{Name: k, Value: v})
		}
		w := httptest.NewRecorder()
		p.h.device.guesses = desks[i/len(guessers)%len(desks)]
		p.mux.ServeHTTP(w, r)
		if w.Code == http.StatusSeeOther {
			accepted++
		}
	}
	t.Run("DEV-03, attack DV-03: together they look up no more codes than all may", func(t *testing.T) {
		if accepted != 0 || c.looked != wrongInAll {
			t.Errorf("%d of %d guesses were looked up, %d accepted", c.looked, attempts, accepted)
		}
		if c.turned == 0 {
			t.Error("no replica asked the store after the others had used up what there was")
		}
	})
	t.Run("DEV-03, attack DV-03: when the window has passed people can go on", func(t *testing.T) {
		p.clock.pass(p.h.device.Life)
		john := p.signedIn("john")
		p.wait(typed)
		john.enter(typed).says(t, 200, "tv.example.com")
	})
}
