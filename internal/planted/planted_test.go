package planted

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestTheReleaseHasNoWeakness builds the binary as it ships, and as it is built
// for the harness, and looks for the switch in both.
func TestTheReleaseHasNoWeakness(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary twice")
	}
	for _, b := range []struct {
		args []string
		want bool
	}{{nil, false}, {[]string{"-tags", "planted"}, true}} {
		out := filepath.Join(t.TempDir(), "bonafide")
		args := append(append([]string{"build"}, b.args...), "-trimpath", "-ldflags", "-s -w", "-o", out, "../../cmd/bonafide")
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		raw, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(raw, []byte("BONAFIDE_PLANTED")); got != b.want {
			t.Errorf("go build %v: the switch is in the binary: %v", b.args, got)
		}
	}
}
