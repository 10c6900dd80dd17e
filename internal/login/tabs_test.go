package login

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

func typed(page string) url.Values {
	v := form(page)
	v.Set("username", "john")
	v.Set("password", password)
	return v
}

func TestTwoTabs(t *testing.T) {
	h := newHouse(t, nil)
	t.Run("AUTHZ-27 a second tab, or a second click, goes on as the person who signed in meanwhile", func(t *testing.T) {
		b := h.browser()
		first := typed(b.get(h.way(Return{Path: "/authorize/resume", Sealed: "one"})).Body.String())
		second := typed(b.get(h.way(Return{Path: "/authorize/resume", Sealed: "two"})).Body.String())
		if w := b.post("/login", first); w.Code != http.StatusSeeOther {
			t.Fatalf("status %d", w.Code)
		}
		kept := b.cookies[session]
		if w := b.post("/login", second); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/authorize/resume?tx=two" {
			t.Errorf("status %d to %q", w.Code, w.Header().Get("Location"))
		}
		if b.cookies[session] != kept {
			t.Error("the session changed")
		}
	})
	t.Run("OIDC-11 where a fresh sign-in is asked for, an old form is none", func(t *testing.T) {
		b := h.browser()
		form := typed(b.get(h.way(Return{Path: "/authorize/resume", Reason: ReasonAgain})).Body.String())
		b.post("/login", typed(b.get("/login").Body.String()))
		if w := b.post("/login", form); w.Code != http.StatusBadRequest {
			t.Errorf("status %d", w.Code)
		}
	})
	t.Run("the way back lasts for half an hour, and is looked at before the password", func(t *testing.T) {
		b := h.browser()
		v := typed(b.get(h.way(Return{Path: "/authorize/resume"})).Body.String())
		h.clock.pass(31 * time.Minute)
		if w := b.post("/login", v); w.Code != http.StatusBadRequest || b.cookies[session] != "" {
			t.Errorf("status %d", w.Code)
		}
	})
}

type deafSink struct{}

func (deafSink) AppendEvents(context.Context, ...audit.Event) error { return errors.New("disk full") }

func TestNobodySignsInUnrecorded(t *testing.T) {
	h := newHouse(t, func(c *Config) {
		log, err := audit.New(audit.Config{Sink: deafSink{}, Now: c.Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { log.Close(context.Background()) })
		c.Audit = log
	})
	t.Run("POL-07 a sign-in that cannot be recorded does not happen", func(t *testing.T) {
		b := h.browser()
		if w := b.try("/login", "john", password); w.Code != http.StatusInternalServerError || b.cookies[session] != "" {
			t.Errorf("status %d, cookies %v", w.Code, b.cookies)
		}
	})
}

func TestARefusedFormIsNoted(t *testing.T) {
	h := newHouse(t, nil)
	t.Run("POL-07, attack CN-11: the form of another browser leaves an event", func(t *testing.T) {
		v := typed(h.browser().get("/login").Body.String())
		h.browser().post("/login", v)
		if err := h.audit.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := h.events.of(audit.TypeLoginFailed); len(got) != 1 || got[0].Rule != "AUTHZ-27" || got[0].Ref == "" {
			t.Errorf("%+v", got)
		}
	})
}
