package demo_test

import (
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/internal/demo"
)

// TestTheWorkedExample runs the whole demo, as make demo does but with John
// played by the program.
func TestTheWorkedExample(t *testing.T) {
	for _, c := range []struct {
		name  string
		https bool
	}{{"over https", true}, {"over http on loopback", false}} {
		t.Run("CLI-12, RS-07, RS-08, AUTHZ-20, CONS-04, TOK-09 the worked example "+c.name, func(t *testing.T) {
			var out strings.Builder
			if err := demo.Run(t.Context(), demo.Options{Out: &out, Headless: true, HTTPS: c.https}); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			if !strings.HasSuffix(out.String(), "demo: ok\n") {
				t.Errorf("the last line is not demo: ok\n%s", out.String())
			}
		})
	}
}
