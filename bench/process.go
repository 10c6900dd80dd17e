package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The cores: what is measured has one, what asks has the other.
const (
	serverCore = 0
	loadCore   = 1
)

// roles are what this program can be beside the one who measures. Each says one
// line of JSON on standard output when it is ready, and ends with its standard
// input, so that none outlives the run.
var roles = map[string]func(args []string) error{
	"server": playServer, "load": playLoad, "micro": playMicro, "zitadel": playZitadel, "inserts": playInserts,
	"hosts": playHosts, "flooded": playFlooded,
}

func roleNames() string { return "server, load, micro, zitadel, inserts, hosts, flooded" }

func play(role string, args []string) error {
	do := roles[role]
	if do == nil {
		return errors.New("there is no such role")
	}
	return do(args)
}

// say writes the line that the one who measures waits for.
func say(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// untilDismissed returns when standard input ends.
func untilDismissed() { _, _ = io.Copy(io.Discard, os.Stdin) }

// child is a running process.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	words words
	stops func() // asks it to end
}

// words keeps the end of what a process says on standard error.
type words struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write implements io.Writer.
func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.b.Len() > 1<<16 {
		w.b.Reset()
	}
	return w.b.Write(p)
}

func (w *words) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.TrimSpace(w.b.String())
	return s[max(0, len(s)-400):]
}

// taskset is the program that pins; "" where there is none, or one core only.
var taskset = sync.OnceValue(func() string {
	path, err := exec.LookPath("taskset")
	if err != nil || runtime.NumCPU() < 2 {
		return ""
	}
	return path
})

func pinned() string {
	if taskset() == "" {
		return "nothing is pinned to a core"
	}
	return fmt.Sprintf("what is measured on core %d, the load on core %d", serverCore, loadCore)
}

// start starts a program on one core. It ends with ctx at the latest.
func start(ctx context.Context, core int, argv ...string) (*child, error) {
	if t := taskset(); t != "" {
		argv = append([]string{t, "-c", strconv.Itoa(core)}, argv...)
	}
	c := &child{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	c.cmd.Env = append(os.Environ(), "NODE_ENV=production")
	c.cmd.Stderr = &c.words
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.in, c.out = in, bufio.NewReaderSize(out, 1<<20)
	c.stops = func() { _ = in.Close() } // it may have ended
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// role starts this program in a role.
func (b *bench) role(ctx context.Context, core int, name string, args ...string) (*child, error) {
	c, err := start(ctx, core, append([]string{b.exe, "-role", name}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// hear reads the next line that the process says.
func (c *child) hear(v any) error {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		c.stop()
		return fmt.Errorf("the process said nothing: %w: %s", err, c.words.last())
	}
	return json.Unmarshal(line, v)
}

// stop asks the process to end, waits, and ends it if it does not.
func (c *child) stop() {
	c.stops()
	late := time.AfterFunc(10*time.Second, func() { _ = c.cmd.Process.Kill() }) // it may have ended
	defer late.Stop()
	_ = c.cmd.Wait() // what it was there for is over
}

// cpu returns the time that the process has spent computing.
func (c *child) cpu() time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // a tick is 1/100 s
}

// rss returns the resident memory of the process in MiB.
func (c *child) rss() (float64, error) { return c.memory("VmRSS") }

// memory returns a line of its status, such as VmHWM, in MiB.
func (c *child) memory(line string) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			return float64(kb) / 1024, err
		}
	}
	return 0, errors.New("the system does not say how much memory a process has")
}

// terminate makes stop send SIGTERM, as an operator would.
func (c *child) terminate() *child {
	c.stops = func() { _ = c.cmd.Process.Signal(syscall.SIGTERM) } // it may have ended
	return c
}

// command runs a program to its end.
func command(ctx context.Context, in string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, out)
	}
	return nil
}

func processor() string {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "an unknown processor"
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(rest, " \t:"))
		}
	}
	return "an unknown processor"
}

func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(raw), " ")
	return first
}
