package web

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientIP returns the address of the client. X-Forwarded-For is read only when
// the peer is a trusted proxy, and then from right to left: each trusted proxy
// vouches for the entry to its left, and the first address that is not a
// trusted proxy is the client. What stands further left is the client's own
// invention. An entry that is no address ends the walk.
func (e *Edge) clientIP(r *http.Request) netip.Addr {
	peer, ok := parseAddr(r.RemoteAddr)
	if !ok || !e.trusted(peer) {
		return peer
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		a, ok := parseAddr(strings.TrimSpace(hop))
		if !ok {
			return peer
		}
		peer = a
		if !e.trusted(a) {
			return a
		}
	}
	return peer
}

func (e *Edge) trusted(a netip.Addr) bool {
	return slices.ContainsFunc(e.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parseAddr reads an address with or without a port. IPv4 in IPv6 becomes IPv4
// and a zone is dropped, so that one client has one spelling.
func parseAddr(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return a.Unmap().WithZone(""), err == nil
}
