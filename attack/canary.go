package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
)

// canaryAddrs are forbidden addresses on which somebody listens, so that a
// connection to them would succeed and not only be tried.
var canaryAddrs = addrs(
	"127.0.0.1", "127.0.0.2", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
	"192.0.0.192", "192.0.0.1", "198.18.0.1", "203.0.113.5", "192.88.99.1", "240.0.0.1", "168.63.129.16", "192.0.2.1", "198.51.100.1",
	"::1", "fc00::1", "fd00:ec2::254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00:1::1",
	"2606:4700::5efe:a9fe:a9fe", "2001:db8::1", "fd20:ce::254",
)

var canaryPorts = []uint16{22, 80, 443, 6379, 8080}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// canary counts what goes where nothing may go: connections that canaries
// accepted, and every SYN and every DNS question on the wire whose destination
// nobody has named, whether something listens there or not.
type canary struct {
	mu      sync.Mutex // guards what follows
	allowed map[netip.AddrPort]bool
	ours    map[netip.AddrPort]bool // only people and programs of the harness go there
	hits    map[string]int
	drops   func() (int, error)
}

func newCanary() (*canary, error) {
	c := &canary{allowed: map[netip.AddrPort]bool{}, ours: map[netip.AddrPort]bool{}, hits: map[string]int{}}
	c.allow(resolverAddr, 53)
	if err := c.sniff(); err != nil {
		return nil, fmt.Errorf("read packets: %w", err)
	}
	for _, a := range canaryAddrs {
		for _, p := range canaryPorts {
			ln, err := net.Listen("tcp", netip.AddrPortFrom(a, p).String())
			if err != nil {
				return nil, fmt.Errorf("listen at a canary: %w", err)
			}
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					if r := netip.MustParseAddrPort(conn.RemoteAddr().String()); r.Port() != proofPort {
						c.hit("accepted at " + ln.Addr().String())
					}
					conn.Close()
				}
			}()
		}
	}
	return c, c.prove()
}

// allow names a destination of ours.
func (c *canary) allow(addr string, port uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allowed[netip.AddrPortFrom(netip.MustParseAddr(addr), port)] = true
}

// reserve names a destination of people: the servers themselves have no business
// there.
func (c *canary) reserve(addr string, port uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ours[netip.AddrPortFrom(netip.MustParseAddr(addr), port)] = true
}

func (c *canary) forbid(addr string, port uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
	delete(c.allowed, at)
	delete(c.ours, at)
}

func (c *canary) hit(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hits[what]++
}

// take returns what was counted since the last call.
func (c *canary) take() []string {
	time.Sleep(2 * time.Millisecond) // what is on the wire is read behind our back
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for what, n := range c.hits {
		out = append(out, fmt.Sprintf("%d x %s", n, what))
	}
	c.hits = map[string]int{}
	if n, err := c.drops(); err != nil || n > 0 {
		out = append(out, fmt.Sprintf("%d packets were not seen (%v)", n, err))
	}
	slices.Sort(out)
	return out
}

const proofPort = 61

// prove dials two canaries and an address where nobody listens, and wants to be
// noticed: a canary that cannot sing proves nothing.
func (c *canary) prove() error {
	for _, a := range []string{"10.0.0.1:443", "[fc00::1]:443", "10.9.9.9:4242"} {
		d := net.Dialer{Timeout: time.Second}
		if conn, err := d.Dial("tcp", a); err == nil {
			conn.Close()
		}
		deadline := time.Now().Add(time.Second)
		for len(c.take()) == 0 {
			if time.Now().After(deadline) {
				return fmt.Errorf("the canary did not notice a connection to %s", a)
			}
		}
		time.Sleep(20 * time.Millisecond)
		c.take()
	}
	return nil
}

// filter keeps TCP segments with SYN and without ACK, and UDP to port 53.
var filter = []bpf.Instruction{
	/* 0 */ bpf.LoadAbsolute{Off: 12, Size: 2},
	/* 1 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0800, SkipFalse: 9},
	/* 2 */ bpf.LoadMemShift{Off: 14},
	/* 3 */ bpf.LoadAbsolute{Off: 23, Size: 1},
	/* 4 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 17, SkipFalse: 2},
	/* 5 */ bpf.LoadIndirect{Off: 16, Size: 2},
	/* 6 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 53, SkipTrue: 14, SkipFalse: 15},
	/* 7 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipFalse: 14},
	/* 8 */ bpf.LoadIndirect{Off: 27, Size: 1},
	/* 9 */ bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x12},
	/* 10 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 2, SkipTrue: 10, SkipFalse: 11},
	/* 11 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x86dd, SkipFalse: 10},
	/* 12 */ bpf.LoadAbsolute{Off: 20, Size: 1},
	/* 13 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 17, SkipFalse: 2},
	/* 14 */ bpf.LoadAbsolute{Off: 56, Size: 2},
	/* 15 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 53, SkipTrue: 5, SkipFalse: 6},
	/* 16 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipFalse: 5},
	/* 17 */ bpf.LoadAbsolute{Off: 67, Size: 1},
	/* 18 */ bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x12},
	/* 19 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 2, SkipTrue: 1, SkipFalse: 2},
	/* 20 */ bpf.RetConstant{Val: 0},
	/* 21 */ bpf.RetConstant{Val: 128},
	/* 22 */ bpf.RetConstant{Val: 0},
}

func (c *canary) sniff() error {
	const all = 0x0300 // ETH_P_ALL in network order
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, all)
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	prog := make([]syscall.SockFilter, len(raw))
	for i, r := range raw {
		prog[i] = syscall.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := syscall.AttachLsf(fd, prog); err != nil {
		return err
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, 33 /* SO_RCVBUFFORCE */, 32<<20); err != nil {
		return err
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: all, Ifindex: lo.Index}); err != nil {
		return err
	}
	c.drops = func() (int, error) {
		var stats [2]uint32
		size := uint32(8)
		_, _, e := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), 263 /* SOL_PACKET */, 6 /* PACKET_STATISTICS */, uintptr(unsafe.Pointer(&stats)), uintptr(unsafe.Pointer(&size)), 0)
		if e != 0 {
			return 0, e
		}
		return int(stats[1]), nil
	}
	go func() {
		buf := make([]byte, 256)
		for {
			n, from, err := syscall.Recvfrom(fd, buf, 0)
			if err != nil {
				continue
			}
			if l, ok := from.(*syscall.SockaddrLinklayer); ok && l.Pkttype != 4 /* PACKET_OUTGOING */ {
				c.packet(buf[:n])
			}
		}
	}()
	return nil
}

func (c *canary) packet(b []byte) {
	if len(b) < 54 {
		return
	}
	var src, dst netip.Addr
	var proto byte
	var l4 []byte
	if binary.BigEndian.Uint16(b[12:]) == 0x0800 {
		src, _ = netip.AddrFromSlice(b[26:30])
		dst, _ = netip.AddrFromSlice(b[30:34])
		proto, l4 = b[23], b[14+int(b[14]&15)*4:]
	} else {
		src, _ = netip.AddrFromSlice(b[22:38])
		dst, _ = netip.AddrFromSlice(b[38:54])
		proto, l4 = b[20], b[54:]
	}
	if len(l4) < 4 {
		return
	}
	to := netip.AddrPortFrom(dst, binary.BigEndian.Uint16(l4[2:]))
	c.mu.Lock()
	ok := c.allowed[to] || src.Is4() && src.As4()[0] == 81 // people and programs of the harness
	c.mu.Unlock()
	if ok {
		return
	}
	kind := "SYN"
	if proto == 17 {
		kind = "DNS question"
	}
	c.hit(fmt.Sprintf("%s to %v (from %v)", kind, to, src))
}
