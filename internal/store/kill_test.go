package store

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// TestMain lets the test program stand in for a server that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("BONAFIDE_STORE_ROTATE"); path != "" {
		rotateForever(path)
	}
	os.Exit(m.Run())
}

// rotateForever rotates one family and says so after each acknowledged step.
func rotateForever(path string) {
	s, err := Open(context.Background(), Config{Path: path})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 1; ; i++ {
		r := Rotation{Old: refOf("f", i), New: tokenOf("f", i+1), Events: []audit.Event{{Type: audit.TypeRefresh}}}
		if err := s.RotateRefresh(context.Background(), r, noon); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(i + 1)
	}
}

func TestKilled(t *testing.T) {
	t.Run("attack RF-09: after a kill the acknowledged successor is live and exactly one token is", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		s := openAt(t, path)
		seed(t, s)
		family(t, s, "f")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "BONAFIDE_STORE_ROTATE="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := 0
		for acknowledged < 60 {
			if _, err := fmt.Fscanln(out, &acknowledged); err != nil {
				t.Fatalf("after %d: %v", acknowledged, err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for { // what it still said before it died
			var n int
			if _, err := fmt.Fscanln(out, &n); err != nil {
				break
			}
			acknowledged = n
		}
		_ = cmd.Wait()

		s = openAt(t, path)
		var live []int
		for i := 1; i <= acknowledged+2; i++ {
			r, _, err := s.FindRefresh(t.Context(), refOf("f", i), noon)
			if err == nil && !r.Used {
				live = append(live, i)
			} else if i < acknowledged && err != nil {
				t.Errorf("token %d: %v", i, err)
			}
		}
		if len(live) != 1 || live[0] < acknowledged {
			t.Errorf("live tokens %v, the last acknowledged is %d", live, acknowledged)
		}
		if intact, broken, err := s.VerifyEvents(t.Context()); broken != 0 || err != nil || int(intact) < acknowledged {
			t.Errorf("%d events intact, %d broken, %v", intact, broken, err)
		}
	})
}
