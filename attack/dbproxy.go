package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// dbproxy stands between a server and PostgreSQL and knows the messages of its
// protocol well enough to spoil one of them.
type dbproxy struct {
	ln       net.Listener
	to       string
	cut      atomic.Bool  // nothing goes through, and nobody hears that
	refuse   atomic.Bool  // connections are closed at once
	delay    atomic.Int64 // nanoseconds before each question, at most
	conflict atomic.Int64 // percent of the commits that fail to serialise
	lose     atomic.Int64 // so many commits are done, and the connection ends before the answer
	lost     atomic.Int64
	failed   atomic.Int64

	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

func (w *world) dbproxy(addr, to string) *dbproxy {
	ln, err := net.Listen("tcp", addr+":5432")
	if err != nil {
		panic(stop{err.Error()})
	}
	w.canary.allow(addr, 5432)
	p := &dbproxy{ln: ln, to: to + ":5432", conns: map[net.Conn]bool{}}
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

func (p *dbproxy) close() {
	p.ln.Close()
	p.hangUp()
}

func (p *dbproxy) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *dbproxy) wait() {
	for p.cut.Load() {
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *dbproxy) serve(c net.Conn) {
	defer c.Close()
	if p.refuse.Load() {
		return
	}
	d, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer d.Close()
	p.mu.Lock()
	p.conns[c] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}()
	var spoil atomic.Bool // the next answer becomes an error
	var lose atomic.Bool  // the next COMMIT is not answered
	go p.answers(c, d, &spoil, &lose)
	r := bufio.NewReader(c)
	first := true
	for {
		var head [5]byte
		from := 0
		if first {
			from = 1
		}
		if _, err := io.ReadFull(r, head[from:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		p.wait()
		if n := p.delay.Load(); n > 0 && (head[0] == 'Q' || head[0] == 'S') {
			time.Sleep(time.Duration(rand.Int64N(n) + 1))
		}
		if head[0] == 'Q' && strings.HasSuffix(strings.ToLower(strings.TrimRight(string(body), "\x00; ")), "commit") {
			switch {
			case p.lose.Add(-1) >= 0:
				lose.Store(true)
			case rand.Int64N(100) < p.conflict.Load():
				spoil.Store(true)
				body = []byte("rollback\x00")
				binary.BigEndian.PutUint32(head[1:], uint32(len(body)+4))
			}
		}
		if _, err := d.Write(append(append([]byte{}, head[from:]...), body...)); err != nil {
			return
		}
		first = false
	}
}

func (p *dbproxy) answers(c, d net.Conn, spoil, lose *atomic.Bool) {
	defer c.Close()
	defer d.Close()
	r := bufio.NewReader(d)
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		p.wait()
		switch {
		case lose.Load() && head[0] == 'C' && string(body) == "COMMIT\x00":
			p.lost.Add(1)
			return
		case spoil.Load() && head[0] != 'Z':
			continue
		case spoil.Load():
			spoil.Store(false)
			p.failed.Add(1)
			code := "40001"
			if rand.IntN(2) == 0 {
				code = "40P01"
			}
			text := []byte("SERROR\x00VERROR\x00C" + code + "\x00Mcould not serialize access\x00\x00")
			msg := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(text)+4))
			if _, err := c.Write(append(msg, text...)); err != nil {
				return
			}
		}
		if _, err := c.Write(append(head[:], body...)); err != nil {
			return
		}
	}
}
