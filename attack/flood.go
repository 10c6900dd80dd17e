package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// wire is a kept connection of a program that does as little as it can: requests
// are written by hand and answers read only as far as they are asked about. With
// a million requests net/http would be most of what is measured.
type wire struct {
	c net.Conn
	r *bufio.Reader
}

// wire connects to a server, from an address of its own.
func (s *server) wire() (*wire, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.w.address()}, Timeout: 20 * time.Second, KeepAlive: -1}
	raw, err := d.Dial("tcp", s.addr+":443")
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, &tls.Config{RootCAs: s.w.ca.pool, ServerName: "as.test", ClientSessionCache: s.w.sessions})
	c.SetDeadline(time.Now().Add(60 * time.Second))
	if err := c.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return &wire{c, bufio.NewReaderSize(c, 8<<10)}, nil
}

func (w *wire) close() { w.c.Close() }

// said is an answer on a wire.
type said struct {
	status   int
	location string
	body     []byte // nil where it was not wanted
}

// do sends a request and reads its answer, the body only if it is wanted.
func (w *wire) do(req []byte, body bool) (said, error) {
	w.c.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := w.c.Write(req); err != nil {
		return said{}, err
	}
	return w.read(body)
}

func (w *wire) read(body bool) (a said, err error) {
	line, err := w.r.ReadSlice('\n')
	if err != nil {
		return a, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return a, fmt.Errorf("no status line: %q", line)
	}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, err
	}
	length, chunked := 0, false
	for {
		line, err := w.r.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		name, value, ok := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(": "))
		if !ok {
			break // the empty line
		}
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return a, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		case bytes.EqualFold(name, []byte("Location")):
			a.location = string(value)
		}
	}
	if chunked {
		err = w.chunks(&a, body)
		return a, err
	}
	if !body {
		_, err = w.r.Discard(length)
		return a, err
	}
	a.body = make([]byte, length)
	_, err = io.ReadFull(w.r, a.body)
	return a, err
}

func (w *wire) chunks(a *said, keep bool) error {
	for {
		line, err := w.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		chunk := make([]byte, n+2) // with the line end behind it
		if _, err := io.ReadFull(w.r, chunk); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if keep {
			a.body = append(a.body, chunk[:n]...)
		}
	}
}

// wireGet is a GET as a browser sends it when somebody follows a link; cookies
// may be empty.
func wireGet(address, cookies string) []byte {
	b := append([]byte("GET "), strings.TrimPrefix(address, issuer)...)
	b = append(b, " HTTP/1.1\r\nHost: as.test\r\nAccept: text/html\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n"...)
	if cookies != "" {
		b = append(append(append(b, "Cookie: "...), cookies...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// wirePost is a POST of a form by a program.
func wirePost(path string, f url.Values) []byte {
	body := f.Encode()
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: as.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// flood is many requests over kept connections.
type flood struct {
	n, hands int
	stay     int // requests of one address, before its connection is given up for another; 0 is all
	body     bool
	request  func(i int) []byte
	kind     func(a said) string // names an answer; nil is by status
}

// flood sends them and returns how many answers there were of each kind. What was
// not answered is of the kind "error: ...".
func (t *trial) flood(f flood) tally {
	if f.kind == nil {
		f.kind = func(a said) string { return strconv.Itoa(a.status) }
	}
	out := tally{}
	var mu sync.Mutex
	var next atomic.Int64
	var wg sync.WaitGroup
	for range f.hands {
		wg.Go(func() {
			mine := tally{}
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				for k, n := range mine {
					out[k] += n
				}
			}()
			var w *wire
			sent := 0
			for {
				i := int(next.Add(1)) - 1
				if i >= f.n {
					break
				}
				var err error
				if w == nil {
					if w, err = t.s.wire(); err != nil {
						mine["error: "+short(err)]++
						continue
					}
				}
				a, err := w.do(f.request(i), f.body)
				if err != nil {
					mine["error: "+short(err)]++
				} else {
					mine[f.kind(a)]++
				}
				if sent++; err != nil || f.stay > 0 && sent%f.stay == 0 {
					w.close()
					w = nil
				}
			}
			if w != nil {
				w.close()
			}
		})
	}
	wg.Wait()
	return out
}

// short is an error without the addresses in it.
func short(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// tally counts answers by kind.
type tally map[string]int

func (t tally) String() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(t)) {
		parts = append(parts, fmt.Sprintf("%d x %s", t[k], k))
	}
	return strings.Join(parts, ", ")
}

// only reports whether every answer is of one of these kinds, and how many there are.
func (t tally) only(n int, kinds ...string) bool {
	sum := 0
	for _, k := range kinds {
		sum += t[k]
	}
	return sum == n && sum > 0
}

// scaled is how many to send: few by default, and as many as the row says with
// -scale full.
func (t *trial) scaled(quick, full int) int {
	if t.w.full {
		return full
	}
	return quick
}

// meanwhile sends honest requests while f runs, again and again, and wants none to
// fail. It returns how many there were and the slowest hundredth.
func (t *trial) meanwhile(what string, f func()) (n int, slow time.Duration) {
	done, over := make(chan struct{}), make(chan struct{})
	var times []time.Duration
	var bad []string
	t.honest(2) // gets what it needs
	go func() {
		defer close(over)
		for {
			if why := guarded(func() {
				took, failures := t.honest(100)
				times, bad = append(times, took...), append(bad, failures...)
			}); why != "" {
				bad = append(bad, why)
				return
			}
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	func() {
		defer func() {
			close(done)
			<-over
		}()
		f()
	}()
	t.check(len(bad) == 0, "%s: %d of %d honest requests failed: %s", what, len(bad), len(times), strings.Join(bad[:min(1, len(bad))], ""))
	if len(times) == 0 {
		return 0, 0
	}
	return len(times), p99(times)
}

// note says a figure in the report; it is no outcome.
func (t *trial) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}
