package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/bonafide-id/bonafide/internal/safehttp"
)

// globalByPython reads addresses and says of each whether the tables of Python's
// standard library, which follow the IANA registries, call it globally reachable.
const globalByPython = `
import ipaddress, sys
for line in sys.stdin:
    a = ipaddress.ip_address(line.strip())
    print(1 if a.is_global else 0)
`

// addresses compares the address guard with Python's ipaddress. An address that
// the guard lets through must be global there: that has no baseline. What the
// guard refuses beyond that must lie in a prefix of the baseline, which says why.
func (b baseline) addresses(ctx context.Context) (string, error) {
	version, err := run(ctx, "", "python3", "-c", "import sys, ipaddress; print(sys.version.split()[0])")
	if err != nil {
		return "", notRun("there is no python3")
	}
	f, err := safehttp.New(safehttp.Rules{})
	if err != nil {
		return "", err
	}
	probe := probes(b["addresses"])
	var in strings.Builder
	for _, a := range probe {
		fmt.Fprintln(&in, a)
	}
	cmd := exec.CommandContext(ctx, "python3", "-c", globalByPython)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	answers := bufio.NewScanner(strings.NewReader(string(out)))
	allowed, stricter := 0, 0
	for _, a := range probe {
		if !answers.Scan() {
			return "", fmt.Errorf("python stopped at %v", a)
		}
		global, refused := answers.Text() == "1", f.CheckAddr("https://client.example.com/c.json", a)
		switch {
		case refused == nil:
			allowed++
			if !global {
				return "", fmt.Errorf("%v is let through, and is not global by Python %s", a, version)
			}
		case global:
			stricter++
			if !within(b["addresses"], a) {
				return "", fmt.Errorf("%v is refused, and global by Python %s: %w", a, strings.TrimSpace(version), refused)
			}
		}
	}
	if allowed < len(probe)/10 {
		return "", fmt.Errorf("only %d of %d are let through: this proves little", allowed, len(probe))
	}
	return fmt.Sprintf("%d addresses, none too many; %d refused beyond Python %s", len(probe), stricter, strings.TrimSpace(version)), nil
}

// within reports whether an address falls under the baseline. Entries that a
// newer Python does not need are no error: its tables grow.
func within(entries map[string]string, a netip.Addr) bool {
	for cases := range entries {
		for c := range strings.FieldsSeq(cases) {
			if c == "isatap" {
				b := a.As16()
				if a.Is6() && b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
					return true
				}
				continue
			}
			if netip.MustParsePrefix(c).Contains(a) {
				return true
			}
		}
	}
	return false
}

// special are prefixes whose edges are looked at; more of them do no harm.
const special = `0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29 192.0.0.8/32
192.0.0.9/32 192.0.0.10/32 192.0.0.170/31 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24
198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32 168.63.129.16/32
::/128 ::1/128 ::ffff:0:0/96 ::/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128 2001:1::2/128
2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20
5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8 2000::/3 fd00:ec2::/32`

// probes are the edges of special prefixes and of each /16, and random addresses,
// the same on each run.
func probes(entries map[string]string) []netip.Addr {
	var out []netip.Addr
	list := special
	for cases := range entries {
		list += " " + cases
	}
	for s := range strings.FieldsSeq(list) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			continue // isatap
		}
		first := p.Masked().Addr()
		last := first.AsSlice()
		for i := p.Bits(); i < len(last)*8; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		end, _ := netip.AddrFromSlice(last)
		for _, a := range []netip.Addr{first, first.Next(), first.Prev(), end, end.Next(), end.Prev()} {
			if a.IsValid() {
				out = append(out, a)
			}
		}
	}
	for n := range 1 << 16 {
		hi, lo := byte(n>>8), byte(n)
		out = append(out, netip.AddrFrom4([4]byte{hi, lo}), netip.AddrFrom4([4]byte{hi, lo, 255, 255}), netip.AddrFrom16([16]byte{hi, lo, 15: 1}))
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 60_000 {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		out = append(out, netip.AddrFrom4([4]byte(b[:4])), netip.AddrFrom16(b))
		b[0] = 0x20 | b[0]&0x1f
		out = append(out, netip.AddrFrom16(b))
		if r.IntN(20) == 0 {
			copy(b[8:], []byte{b[8] & 2, 0, 0x5e, 0xfe})
			out = append(out, netip.AddrFrom16(b))
		}
	}
	return out
}
