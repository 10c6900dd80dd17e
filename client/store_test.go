package client

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestStores(t *testing.T) {
	stores := map[string]func(t *testing.T) Store{
		"in memory": func(*testing.T) Store { return NewMemoryStore() },
		"in files": func(t *testing.T) Store {
			s, err := NewFileStore(filepath.Join(t.TempDir(), "tokens"))
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			put := func(t *testing.T, s Store, key string, g *Grant) {
				if err := s.Update(t.Context(), key, func(*Grant) (*Grant, error) { return g, nil }); err != nil {
					t.Fatal(err)
				}
			}
			t.Run("CLI-20 what was put is there, by key, until it is removed", func(t *testing.T) {
				s := open(t)
				if g, err := s.Load(t.Context(), "a"); g != nil || err != nil {
					t.Error(g, err)
				}
				put(t, s, "a", &Grant{AccessToken: "1"})
				put(t, s, "b/../a", &Grant{AccessToken: "2"})
				for key, want := range map[string]string{"a": "1", "b/../a": "2"} {
					if g, err := s.Load(t.Context(), key); err != nil || g.AccessToken != want {
						t.Error(key, g, err)
					}
				}
				put(t, s, "a", nil)
				put(t, s, "a", nil)
				if g, err := s.Load(t.Context(), "a"); g != nil || err != nil {
					t.Error(g, err)
				}
			})
			t.Run("CLI-20 a change that fails changes nothing", func(t *testing.T) {
				s := open(t)
				put(t, s, "a", &Grant{AccessToken: "1"})
				bad := errors.New("no")
				err := s.Update(t.Context(), "a", func(g *Grant) (*Grant, error) { g.AccessToken = "2"; return g, bad })
				if g, _ := s.Load(t.Context(), "a"); !errors.Is(err, bad) || g.AccessToken != "1" {
					t.Error(g, err)
				}
			})
			t.Run("CLI-20 changes of one key do not overlap", func(t *testing.T) {
				s := open(t)
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						err := s.Update(t.Context(), "n", func(g *Grant) (*Grant, error) {
							if g == nil {
								g = &Grant{AccessToken: "0"}
							}
							n, _ := strconv.Atoi(g.AccessToken)
							g.AccessToken = strconv.Itoa(n + 1)
							return g, nil
						})
						if err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if g, _ := s.Load(t.Context(), "n"); g.AccessToken != "20" {
					t.Error(g.AccessToken)
				}
			})
			t.Run("CLI-20 who waits for a change can give up", func(t *testing.T) {
				s := open(t)
				ctx, cancel := context.WithCancel(t.Context())
				err := s.Update(t.Context(), "a", func(*Grant) (*Grant, error) {
					cancel()
					return nil, s.Update(ctx, "a", func(*Grant) (*Grant, error) { t.Error("both inside"); return nil, nil })
				})
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

func TestFileStore(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing there")
	}
	open := func(t *testing.T) (*FileStore, string) {
		dir := filepath.Join(t.TempDir(), "tokens")
		s, err := NewFileStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		return s, dir
	}
	t.Run("CLI-22 files and directory are for the owner's eyes", func(t *testing.T) {
		s, dir := open(t)
		if err := s.Update(t.Context(), "a", func(*Grant) (*Grant, error) { return &Grant{AccessToken: "1"}, nil }); err != nil {
			t.Fatal(err)
		}
		_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil {
				t.Error(err)
				return nil
			}
			if info, _ := d.Info(); info.Mode().Perm()&0o077 != 0 {
				t.Error(p, info.Mode())
			}
			return nil
		})
	})
	t.Run("CLI-22 a directory that others can read is refused", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := NewFileStore(dir); err == nil || !strings.Contains(err.Error(), "chmod 700") {
			t.Error(err)
		}
	})
	t.Run("CLI-22 a file in the way", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewFileStore(path); err == nil {
			t.Error("opened")
		}
	})
	t.Run("CLI-20 a damaged file is an error, not a lost grant", func(t *testing.T) {
		s, _ := open(t)
		if err := os.WriteFile(s.path("a"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "sign in again") {
			t.Error(err)
		}
		if err := s.Update(t.Context(), "a", func(*Grant) (*Grant, error) { return nil, nil }); err == nil {
			t.Error("overwritten")
		}
	})
	t.Run("CLI-20 nothing but whole files is left behind", func(t *testing.T) {
		s, dir := open(t)
		for range 3 {
			_ = s.Update(t.Context(), "a", func(*Grant) (*Grant, error) { return &Grant{AccessToken: "1"}, nil })
		}
		all, _ := os.ReadDir(dir)
		for _, e := range all {
			if strings.HasPrefix(e.Name(), "new-") {
				t.Error(e.Name())
			}
		}
	})
	t.Run("CLI-20 another process waits for its turn", func(t *testing.T) {
		s, dir := open(t)
		var child *exec.Cmd
		err := s.Update(t.Context(), "n", func(*Grant) (*Grant, error) {
			child = exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestChildUpdates")
			child.Env = append(os.Environ(), "BONAFIDE_STORE="+dir)
			child.Stderr = os.Stderr
			out, err := child.StdoutPipe()
			if err != nil {
				return nil, err
			}
			if err := child.Start(); err != nil {
				return nil, err
			}
			ready := make([]byte, 1) // the child is about to ask for the lock
			if _, err := out.Read(ready); err != nil {
				return nil, err
			}
			return &Grant{AccessToken: "parent"}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Wait(); err != nil {
			t.Fatal(err)
		}
		if g, _ := s.Load(t.Context(), "n"); g.AccessToken != "parent child" {
			t.Errorf("%q", g.AccessToken)
		}
	})
}

// TestChildUpdates is the other process of the test above.
func TestChildUpdates(t *testing.T) {
	dir := os.Getenv("BONAFIDE_STORE")
	if dir == "" {
		t.Skip("runs as a child only")
	}
	s, err := NewFileStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdout.WriteString("r")
	err = s.Update(t.Context(), "n", func(g *Grant) (*Grant, error) {
		if g == nil {
			return &Grant{AccessToken: "child came first"}, nil
		}
		g.AccessToken += " child"
		return g, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
