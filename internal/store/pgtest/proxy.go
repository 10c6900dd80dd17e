package pgtest

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Proxy stands between a program and the server and can cut or hold the
// connections through it.
type Proxy struct {
	server string
	dir    string

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	cut   []byte // a connection that sends this is cut when the server has it
	still []byte // when a connection sends this, what the server says is kept back
	away  bool   // nobody is let in
	held  bool   // what the server says is kept back
	free  *sync.Cond
}

// NewProxy starts a proxy before the server.
func (s *Server) NewProxy(t testing.TB) *Proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "bonafide-pg-") //nolint:usetesting // the name of a socket must be short, and without commas
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &Proxy{server: filepath.Join(s.dir, ".s.PGSQL.5432"), dir: dir, conns: map[net.Conn]struct{}{}}
	p.free = sync.NewCond(&p.mu)
	ln, err := net.Listen("unix", filepath.Join(p.dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		p.Cut()
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

// Through returns the address that leads to the same database through the proxy.
func (p *Proxy) Through(t testing.TB, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("host", p.dir)
	u.RawQuery = q.Encode()
	return u.String()
}

// CutAfter cuts the connection that next sends text, once the server has it and
// has answered. The answer is not passed on.
func (p *Proxy) CutAfter(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = []byte(text)
}

// Away closes every connection and lets nobody in until it is called with false.
func (p *Proxy) Away(away bool) {
	p.mu.Lock()
	p.away = away
	p.mu.Unlock()
	if away {
		p.Cut()
	}
}

// Hold keeps back what the server says, as a network does that loses it.
func (p *Proxy) Hold(hold bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = hold
	p.free.Broadcast()
}

// HoldAfter does Hold when a connection next sends text.
func (p *Proxy) HoldAfter(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.still = []byte(text)
}

// Cut closes every connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
	p.held = false
	p.free.Broadcast()
}

func (p *Proxy) serve(c net.Conn) {
	defer c.Close()
	p.mu.Lock()
	away := p.away
	p.mu.Unlock()
	if away {
		return
	}
	s, err := net.Dial("unix", p.server)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	p.conns[c], p.conns[s] = struct{}{}, struct{}{}
	p.mu.Unlock()
	last := make(chan struct{}) // closed when the answer to what is cut is to be dropped
	done := make(chan struct{}, 2)
	go func() {
		p.upwards(c, s, last)
		done <- struct{}{}
	}()
	go func() {
		p.downwards(c, s, last)
		done <- struct{}{}
	}()
	<-done
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, s)
	p.mu.Unlock()
}

func (p *Proxy) upwards(c, s net.Conn, last chan struct{}) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		found := len(p.cut) > 0 && bytes.Contains(buf[:n], p.cut)
		if found {
			p.cut = nil
		}
		if len(p.still) > 0 && bytes.Contains(buf[:n], p.still) {
			p.still, p.held = nil, true
		}
		p.mu.Unlock()
		if found {
			close(last)
		}
		if _, err := s.Write(buf[:n]); err != nil {
			return
		}
		if found {
			io.Copy(io.Discard, c) //nolint:errcheck // until the other side is done
			return
		}
	}
}

func (p *Proxy) downwards(c, s net.Conn, last chan struct{}) {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-last: // the server has done it; nobody hears of it
			c.Close()
			return
		default:
		}
		p.mu.Lock()
		for p.held {
			p.free.Wait()
		}
		p.mu.Unlock()
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}
