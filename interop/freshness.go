package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
)

// freshness runs the tests of HTTP caches that are about how long a response is
// fresh, against a cache whose every decision is cimd.Fresh. Tests that must hold
// and those that only make a cache better both count; the latter are where our
// care costs a request. What the suite merely asks about is left out.
func (b baseline) freshness(ctx context.Context, n node) (string, error) {
	origin, err := startOrigin(ctx, n)
	if err != nil {
		return "", err
	}
	ln, err := listen(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	serve(ctx, ln, &cache{origin: origin, kept: map[string]*kept{}})
	cmd := n.command(ctx, nil, "js/freshness.mjs")
	cmd.Env = append(cmd.Env, "PROXY=http://"+ln.Addr().String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var results []struct {
		ID, Name, Kind, Why string
		Passed              bool
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &results); err != nil {
		return "", err
	}
	total, found := 0, map[string]string{}
	for _, r := range results {
		if r.Kind == "check" {
			continue
		}
		total++
		if !r.Passed {
			found[r.ID] = r.Kind + ": " + r.Name + ": " + r.Why
		}
	}
	if total < 40 {
		return "", fmt.Errorf("only %d tests: this proves little", total)
	}
	return b.verdict("freshness", total, found)
}

// startOrigin starts the suite's own server on a free port.
func startOrigin(ctx context.Context, n node) (*url.URL, error) {
	ln, err := listen(ctx) // finds a free port
	if err != nil {
		return nil, err
	}
	_, port, _ := strings.Cut(ln.Addr().String(), ":")
	if err := ln.Close(); err != nil {
		return nil, err
	}
	cmd := n.command(ctx, nil, "node_modules/http-cache-tests/server/server.mjs")
	cmd.Env = append(cmd.Env, "npm_config_protocol=http", "npm_config_port="+port, "npm_config_pidfile=/dev/null")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		_, err := stdout.Read(buf) // its first line says that it listens
		ready <- err
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait() // ends with the context
	}()
	select {
	case err = <-ready:
	case <-time.After(20 * time.Second):
		err = errors.New("the origin of http-cache-tests does not start")
	}
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "http", Host: "localhost:" + port}, nil
}

// cache is a caching proxy for GET that asks cimd.Fresh and nothing else. Its
// floor and its default are as good as nothing, and its ceiling is out of the way.
type cache struct {
	origin *url.URL

	mu   sync.Mutex // guards kept
	kept map[string]*kept
}

type kept struct {
	header   http.Header
	body     []byte
	received time.Time
	fresh    cimd.Freshness
}

var limits = cimd.FreshnessLimits{Floor: 1, Default: 1, Ceiling: 100 * 365 * 24 * time.Hour}

// ServeHTTP answers from memory while a response is fresh, and else passes the
// request on.
func (c *cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.URL.RequestURI()
	if r.Method == http.MethodGet {
		c.mu.Lock()
		k := c.kept[key]
		c.mu.Unlock()
		if k != nil && time.Now().Before(k.fresh.Expires) {
			h := k.header.Clone()
			age, _ := strconv.Atoi(h.Get("Age"))
			h.Set("Age", strconv.Itoa(age+int(time.Since(k.received).Seconds())))
			write(w, http.StatusOK, h, k.body)
			return
		}
	}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, c.origin.String()+key, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	req.Header = r.Header.Clone()
	sent := time.Now()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	received := time.Now()
	if f := cimd.Fresh(resp.Header, sent, received, limits); r.Method == http.MethodGet && resp.StatusCode == http.StatusOK && f.Store {
		c.mu.Lock()
		c.kept[key] = &kept{resp.Header, body, received, f}
		c.mu.Unlock()
	}
	write(w, resp.StatusCode, resp.Header, body)
}

func write(w http.ResponseWriter, status int, h http.Header, body []byte) {
	for name, values := range h {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
