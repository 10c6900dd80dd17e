package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// answer is what the name server says to one question.
type answer struct {
	addrs  []netip.Addr
	cname  []string // aliases in front of the addresses, or alone
	rcode  dnsmessage.RCode
	delay  time.Duration
	silent bool
}

// nameServer is the one resolver of the namespace. Each name has a script.
type nameServer struct {
	mu      sync.Mutex // guards what follows
	scripts map[string]func(aaaa bool, n int) answer
	asked   map[string]int // questions, by name
	calls   map[string]int // questions, by name and type
	wild    func(name string) (netip.Addr, bool)
}

func newNameServer() (*nameServer, error) {
	s := &nameServer{scripts: map[string]func(bool, int) answer{}, asked: map[string]int{}, calls: map[string]int{}}
	pc, err := net.ListenPacket("udp", net.JoinHostPort(resolverAddr, "53"))
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(resolverAddr, "53"))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			buf := make([]byte, 4096)
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			go func() {
				if out := s.reply(buf[:n]); out != nil {
					pc.WriteTo(out, from)
				}
			}()
		}
	}()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				buf := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, buf); err != nil {
					return
				}
				if out := s.reply(buf); out != nil {
					binary.BigEndian.PutUint16(size[:], uint16(len(out)))
					c.Write(append(size[:], out...))
				}
			}()
		}
	}()
	return s, nil
}

// set gives a name fixed addresses; none means that the name does not exist.
func (s *nameServer) set(name string, list ...netip.Addr) {
	a := answer{addrs: list}
	if len(list) == 0 {
		a.rcode = dnsmessage.RCodeNameError
	}
	s.script(name, func(bool, int) answer { return a })
}

// script gives a name a script: it is called with the type of the question and
// how often that was asked before.
func (s *nameServer) script(name string, f func(aaaa bool, n int) answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[strings.ToLower(name)] = f
}

// count returns how often a name was asked for, with any type.
func (s *nameServer) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[strings.ToLower(name)]
}

// total returns how many questions were asked.
func (s *nameServer) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, v := range s.asked {
		n += v
	}
	return n
}

func (s *nameServer) reply(raw []byte) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(raw)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	s.mu.Lock()
	f := s.scripts[name]
	if f == nil && s.wild != nil {
		if a, ok := s.wild(name); ok {
			f = func(bool, int) answer { return answer{addrs: []netip.Addr{a}} }
		}
	}
	s.asked[name]++
	key := name + " " + q.Type.String()
	n := s.calls[key]
	s.calls[key]++
	s.mu.Unlock()
	a := answer{rcode: dnsmessage.RCodeNameError}
	if f != nil && (q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeAAAA) {
		a = f(q.Type == dnsmessage.TypeAAAA, n)
	}
	if a.silent {
		return nil
	}
	time.Sleep(a.delay)
	out, err := pack(head, q, a)
	if err != nil {
		return nil
	}
	return out
}

func pack(head dnsmessage.Header, q dnsmessage.Question, a answer) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: head.ID, Response: true, RecursionDesired: true, RecursionAvailable: true, RCode: a.rcode,
	})
	b.EnableCompression()
	if err := errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers()); err != nil {
		return nil, err
	}
	owner := q.Name
	for _, alias := range a.cname {
		to, err := dnsmessage.NewName(alias + ".")
		if err != nil {
			return nil, err
		}
		if err := b.CNAMEResource(dnsmessage.ResourceHeader{Name: owner, Class: q.Class}, dnsmessage.CNAMEResource{CNAME: to}); err != nil {
			return nil, err
		}
		owner = to
	}
	for _, ip := range a.addrs {
		h := dnsmessage.ResourceHeader{Name: owner, Class: q.Class}
		var err error
		switch {
		case q.Type == dnsmessage.TypeA && ip.Is4():
			err = b.AResource(h, dnsmessage.AResource{A: ip.As4()})
		case q.Type == dnsmessage.TypeAAAA && ip.Is6():
			err = b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
		if err != nil {
			return nil, err
		}
	}
	return b.Finish()
}
