package main

import (
	"fmt"
	"io"
	"time"
)

// patience is how long a command is silent about what it waits for.
const patience = time.Second

// waiting says what a command is doing once it takes longer than people expect,
// and nothing if stop comes before. It writes to the standard error output, so
// that scripts see it beside the result and not in it. Nothing is written once
// stop has returned.
func waiting(w io.Writer, doing string) (stop func()) {
	over, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTimer(patience)
		defer t.Stop()
		select {
		case <-t.C:
			fmt.Fprintln(w, doing+" ...")
		case <-over:
		}
	}()
	return func() { close(over); <-gone }
}
