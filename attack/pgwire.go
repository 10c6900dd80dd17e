package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// pgwire is one connection to PostgreSQL that asks one question again and again:
// whether a server is in the middle of something. It is about too little to need a
// driver.
type pgwire struct {
	c net.Conn
	r *bufio.Reader
}

func newPgwire(addr string) (*pgwire, error) {
	c, err := net.DialTimeout("tcp", addr+":5432", 2*time.Second)
	if err != nil {
		return nil, err
	}
	p := &pgwire{c, bufio.NewReader(c)}
	body := append([]byte{0, 3, 0, 0}, "user\x00postgres\x00database\x00postgres\x00\x00"...)
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)); err != nil {
		return nil, err
	}
	_, err = p.read()
	return p, err
}

// read reads to the end of an answer and returns the last value in it.
func (p *pgwire) read() (string, error) {
	p.c.SetDeadline(time.Now().Add(5 * time.Second))
	value := ""
	for {
		var head [5]byte
		if _, err := io.ReadFull(p.r, head[:]); err != nil {
			return "", err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(p.r, body); err != nil {
			return "", err
		}
		switch head[0] {
		case 'E':
			return "", fmt.Errorf("PostgreSQL says %q", body)
		case 'D':
			value = string(body[6:])
		case 'Z':
			return value, nil
		}
	}
}

func (p *pgwire) busy(database string) (string, error) {
	q := "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND coalesce(datname, '" + database + "') = '" + database + "' AND state IS DISTINCT FROM 'idle' AND pid <> pg_backend_pid()\x00"
	if _, err := p.c.Write(append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(q)+4)), q...)); err != nil {
		return "", err
	}
	return p.read()
}

// quiet waits until no server is in the middle of a question: a clock that jumps
// meanwhile would run it out of time, as no real clock does.
func (p *postgres) quiet(database string) {
	calm := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end) && calm < 3; {
		if p.wire == nil {
			var err error
			if p.wire, err = newPgwire(p.addr); err != nil {
				return
			}
		}
		n, err := p.wire.busy(database)
		if err != nil {
			p.wire = nil
			return
		}
		if calm++; n != "0" {
			calm = 0
		}
		time.Sleep(2 * time.Millisecond)
	}
}
