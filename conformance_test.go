package bonafide_test

import (
	"flag"
	"os/exec"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/conformance.md")

// docs/conformance.md is what the generator would write today, no row claims a
// test that does not exist, and no note speaks of an unknown row or test.
func TestConformanceIsUpToDate(t *testing.T) {
	sources(t) // read here, so that a changed test is not answered from the cache
	args := []string{"run", "./internal/housetest/conformance"}
	if !*update {
		args = append(args, "-check")
	}
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
