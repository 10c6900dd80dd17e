package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaiting(t *testing.T) {
	for name, tt := range map[string]struct {
		takes time.Duration
		want  string
	}{
		"what is quick is silent":                       {patience - time.Millisecond, ""},
		"what takes longer than a second says so, once": {10 * patience, "asking claude.ai ...\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				stop := waiting(&out, "asking claude.ai")
				time.Sleep(tt.takes)
				stop()
				time.Sleep(time.Minute)
				if got := out.String(); got != tt.want {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}
