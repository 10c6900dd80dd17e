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
// that scripts see it beside the result and not in it.
func waiting(w io.Writer, doing string) (stop func()) {
	t := time.AfterFunc(patience, func() { fmt.Fprintln(w, doing+" ...") })
	return func() { t.Stop() }
}
