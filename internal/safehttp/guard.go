package safehttp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/planted"
)

// special is a range of addresses with the reason why no fetch goes there.
type special struct {
	prefix netip.Prefix
	reason string
}

func parseSpecial(list [][2]string) []special {
	out := make([]special, len(list))
	for i, s := range list {
		out[i] = special{netip.MustParsePrefix(s[0]), s[1]}
	}
	return out
}

// specials is our own table of special-purpose addresses (RFC 6890, the IANA
// registries, and what clouds put at public-looking places). The table of
// code.dny.dev/ssrf is asked as well: an address has to pass both.
var specials = parseSpecial([][2]string{
	{"0.0.0.0/8", "this network"},
	{"10.0.0.0/8", "private use"},
	{"100.64.0.0/10", "shared address space"},
	{"127.0.0.0/8", "loopback"},
	{"169.254.0.0/16", "link local"},
	{"172.16.0.0/12", "private use"},
	{"192.0.0.0/24", "protocol assignments"},
	{"192.0.2.0/24", "documentation"},
	{"192.31.196.0/24", "AS112"},
	{"192.52.193.0/24", "AMT"},
	{"192.88.99.0/24", "6to4 relay anycast"},
	{"192.168.0.0/16", "private use"},
	{"192.175.48.0/24", "AS112"},
	{"198.18.0.0/15", "benchmarking"},
	{"198.51.100.0/24", "documentation"},
	{"203.0.113.0/24", "documentation"},
	{"224.0.0.0/4", "multicast"},
	{"240.0.0.0/4", "reserved"},
	{"::/128", "unspecified"},
	{"::1/128", "loopback"},
	{"::ffff:0:0/96", "IPv4-mapped"},
	{"::/96", "IPv4-compatible"},
	{"64:ff9b::/96", "NAT64"},
	{"64:ff9b:1::/48", "local NAT64"},
	{"100::/64", "discard only"},
	{"100:0:0:1::/64", "dummy prefix"},
	{"2001::/32", "Teredo"},
	{"2001::/23", "protocol assignments"},
	{"2001:db8::/32", "documentation"},
	{"2002::/16", "6to4"},
	{"2620:4f:8000::/48", "AS112"},
	{"3fff::/20", "documentation"},
	{"5f00::/16", "segment routing"},
	{"fc00::/7", "unique local"},
	{"fe80::/10", "link local"},
	{"fec0::/10", "site local"},
	{"ff00::/8", "multicast"},
})

// metadata are services of clouds that trust whoever can reach them. They stay
// refused where private addresses are allowed.
var metadata = parseSpecial([][2]string{
	{"168.63.129.16/32", "Azure wire server"},
	{"fd00:ec2::/32", "AWS local services"},
	{"fd20:ce::254/128", "Google metadata"},
	{"fd00:42::42/128", "Scaleway metadata"},
})

// global is the part of IPv6 that the Internet lives in. Everything else is
// reserved.
var global = netip.MustParsePrefix("2000::/3")

// privateRanges are what Rules.Private opens.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("fc00::/7"),
}

// CheckAddr reports whether a fetch of this URL may dial this address: nil, or
// a *Error of KindURL or KindAddress. It is the check that Get makes.
func (f *Fetcher) CheckAddr(url string, a netip.Addr) error {
	t, err := f.target(url)
	if err != nil {
		return err
	}
	if err := f.check(t, a); err != nil {
		return &Error{KindAddress, err}
	}
	return nil
}

// check is the guard: every address passes here before it is dialled, and in
// the default dialer once more on its way into the kernel.
func (f *Fetcher) check(t target, a netip.Addr) error {
	switch {
	case planted.Weak("address"):
		return nil
	case !a.IsValid():
		return errors.New("no address")
	case a.Zone() != "": // Prefix.Contains is false for these, so no table would see them
		return fmt.Errorf("%v has a zone", a)
	case t.plain && !a.IsLoopback():
		return fmt.Errorf("%v is not this computer, and the URL has no TLS", a)
	}
	for _, p := range f.rules.Deny {
		if p.Contains(a) {
			return fmt.Errorf("%v is in the configured deny list", a)
		}
	}
	if err := find(metadata, a); err != nil {
		return err
	}
	if f.rules.Loopback && a.IsLoopback() && !a.Is4In6() {
		return nil
	}
	if t.private && !a.Is4In6() &&
		(a.IsLoopback() || slices.ContainsFunc(privateRanges, func(p netip.Prefix) bool { return p.Contains(a) })) {
		return nil
	}
	if !t.private && !slices.Contains(f.rules.Ports, t.port) {
		return fmt.Errorf("port %d is allowed on loopback only", t.port)
	}
	if err := find(specials, a); err != nil {
		return err
	}
	if a.Is6() && !global.Contains(a) {
		return fmt.Errorf("%v is not global unicast", a)
	}
	if isatap(a) {
		return fmt.Errorf("%v is an ISATAP address", a)
	}
	if err := f.guard.SafeAddr(a); err != nil {
		return err
	}
	return f.own.check(a)
}

func find(table []special, a netip.Addr) error {
	for _, s := range table {
		if s.prefix.Contains(a) {
			return fmt.Errorf("%v is special-use: %s", a, s.reason)
		}
	}
	return nil
}

// isatap reports whether the interface identifier carries an IPv4 address that
// a tunnel would forward to (RFC 5214 section 6.1).
func isatap(a netip.Addr) bool {
	b := a.As16()
	return a.Is6() && b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// ownLifetime is how long a list of interface addresses is believed.
const ownLifetime = 3 * time.Second

// interfaces refuses the machine's own addresses, so that a document cannot
// send the server to itself.
type interfaces struct {
	list func() ([]netip.Addr, error)
	now  func() time.Time

	mu    sync.Mutex // guards the fields below
	addrs []netip.Addr
	read  time.Time
}

func (i *interfaces) check(a netip.Addr) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if now := i.now(); i.read.IsZero() || now.Sub(i.read) >= ownLifetime {
		addrs, err := i.list()
		if err != nil {
			return fmt.Errorf("list own addresses: %w", err)
		}
		i.addrs, i.read = addrs, now
	}
	if slices.Contains(i.addrs, a) {
		return fmt.Errorf("%v is an address of this machine", a)
	}
	return nil
}

// interfaceAddrs lists the addresses of this machine but for those of its
// loopback interface: 127.0.0.0/8 and ::1 are refused by the tables, and other
// addresses there are not reached from outside. A server that listens on such
// an address has to add it to Rules.Deny.
func interfaceAddrs() ([]netip.Addr, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, iface := range list {
		if iface.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := iface.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, p.Addr().Unmap().WithZone(""))
			}
		}
	}
	return out, nil
}
