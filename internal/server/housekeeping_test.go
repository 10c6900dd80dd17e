package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHousekeeping(t *testing.T) {
	t.Run("FETCH-24, attack FT-10: slow document hosts do not hold up the keys, and a task that fails is tried again", func(t *testing.T) {
		synctest.Test(t, slowTask)
	})
}

func slowTask(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var out bytes.Buffer
	keys, prunes, visits := 0, 0, 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		keep(ctx, slog.New(slog.NewTextHandler(&out, nil)),
			task{name: "keys", every: time.Second, do: func(context.Context) error { keys++; return nil }},
			task{name: "prune", every: time.Minute, do: func(context.Context) error { prunes++; return errors.New("disk on fire") }},
			task{name: "visit", every: time.Minute, first: true, do: func(ctx context.Context) error { visits++; <-ctx.Done(); return ctx.Err() }},
		)
	}()
	time.Sleep(10*time.Minute + time.Millisecond) // of the bubble's clock
	synctest.Wait()
	if keys != 600 || visits != 1 {
		t.Errorf("keys %d times, documents %d times", keys, visits)
	}
	stop()
	<-done
	if prunes != 10 || strings.Count(out.String(), "disk on fire") != 10 || strings.Contains(out.String(), "task=visit") {
		t.Errorf("%d times: %s", prunes, out.String())
	}
}

func TestAReloadNamesWhatNeedsARestart(t *testing.T) {
	now, err := Parse([]byte(minimal), ".", false)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{cfg: now}
	for name, c := range map[string]struct{ old, new, want string }{
		"the issuer":               {"https://auth.", "https://auth2.", "issuer"},
		"the network":              {"", "cimd: {egress: {deny: [203.0.113.0/24]}}", "cimd.egress.deny"},
		"the time of fetching":     {"", "cimd: {fetch: at_once}", "cimd.fetch"},
		"a lifetime":               {"", "tokens: {access: 5m}", "tokens.access"},
		"who may name an address":  {"", "trusted_proxies: [10.0.0.1/32]", "trusted_proxies"},
		"TLS where there was none": {"", "tls: {cert_file: a, key_file: b}", "tls.cert_file"},
		"several at once":          {"", "listen: 127.0.0.1:1\nunknown_scopes: refuse", "listen, unknown_scopes"},
	} {
		t.Run("POL-05 "+name+" is not taken over silently", func(t *testing.T) {
			text := minimal + c.new + "\n"
			if c.old != "" {
				text = strings.Replace(minimal, c.old, c.new, 1)
			}
			next, err := Parse([]byte(text), ".", false)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Reload(next); err == nil || !strings.HasPrefix(err.Error(), c.want+": ") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("policy, resources and the switch for documents may differ", func(t *testing.T) {
		next, err := Parse([]byte(strings.Replace(minimal, "read issues", "read them", 1)+"policy: {default: deny}\ncimd: {enabled: true}\nrequire_resource: true\n"), ".", false)
		if err != nil {
			t.Fatal(err)
		}
		if keys := needRestart(now, next); len(keys) > 0 {
			t.Errorf("%q", keys)
		}
	})
}
