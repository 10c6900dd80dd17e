package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// fds returns how many files the process has open.
func (s *server) fds() int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.process.Pid))
	return len(list)
}

// foreign returns what the process has open, each with its number, without what
// belongs to its database: a store opens connections when it first needs them.
// A connection is told by its two ends.
func (s *server) foreign() map[string]bool {
	dir := fmt.Sprintf("/proc/%d/fd/", s.process.Pid)
	list, _ := os.ReadDir(dir)
	open := map[string]bool{}
	ends := s.ends()
	for _, e := range list {
		to, err := os.Readlink(dir + e.Name())
		if err != nil || strings.HasPrefix(to, s.dir+"/house.db") {
			continue
		}
		if ends, ok := ends[to]; ok {
			if strings.Contains(ends, " > "+databaseAddr+":") {
				continue
			}
			to = ends
		}
		open[e.Name()+" "+to] = true
	}
	return open
}

// ends returns the two ends of each TCP connection and listener of the process.
func (s *server) ends() map[string]string {
	all := map[string]string{}
	for _, family := range []string{"tcp", "tcp6"} {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", s.process.Pid, family))
		for line := range strings.SplitSeq(string(raw), "\n") {
			f := strings.Fields(line)
			if len(f) < 10 || f[0] == "sl" {
				continue
			}
			all["socket:["+f[9]+"]"] = end(f[1]) + " > " + end(f[2])
		}
	}
	return all
}

// end reads an address as /proc writes it: words in the order of the machine.
func end(s string) string {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil {
		return s
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)).String()
}
