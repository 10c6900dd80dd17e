package safehttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// maxAddrs bounds how many addresses of one answer are tried.
const maxAddrs = 16

// connect opens a connection to the target: directly to an address that was
// resolved once and checked, or through the proxy.
func (f *Fetcher) connect(ctx context.Context, t target, maxHeader int64) (net.Conn, netip.AddrPort, error) {
	if f.rules.Proxy != nil {
		if t.literal.IsValid() {
			if err := f.check(t, t.literal); err != nil {
				return nil, netip.AddrPort{}, &Error{KindAddress, err}
			}
		}
		conn, err := f.tunnel(ctx, t, maxHeader)
		return conn, netip.AddrPort{}, err
	}
	addrs, err := f.resolve(ctx, t)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	conn, addr, err := dialEach(ctx, addrs, func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		return f.dial(ctx, t, a)
	})
	if err != nil {
		return nil, netip.AddrPort{}, &Error{KindConnect, err}
	}
	return conn, addr, nil
}

// resolve looks the host up, once, and returns the addresses that may be
// dialled, of which there is at least one.
func (f *Fetcher) resolve(ctx context.Context, t target) ([]netip.AddrPort, error) {
	answer := []netip.Addr{t.literal}
	if !t.literal.IsValid() {
		var err error
		if answer, err = f.lookup(ctx, t); err != nil {
			return nil, &Error{KindDNS, err}
		}
	}
	if len(answer) == 0 {
		return nil, &Error{KindDNS, errors.New("name has no address")}
	}
	var safe []netip.AddrPort
	var refused error
	for _, a := range answer {
		if err := f.check(t, a); err != nil {
			refused = err
			continue
		}
		if ap := netip.AddrPortFrom(a, t.port); len(safe) < maxAddrs && !slices.Contains(safe, ap) {
			safe = append(safe, ap)
		}
	}
	if len(safe) == 0 {
		return nil, &Error{KindAddress, refused}
	}
	return safe, nil
}

// lookup asks the configured resolver or the system. A public name is asked
// for as an absolute one, so that no search list turns it into an inner name.
func (f *Fetcher) lookup(ctx context.Context, t target) ([]netip.Addr, error) {
	if f.rules.Lookup != nil {
		return f.rules.Lookup(ctx, t.host)
	}
	if t.private || f.rules.Loopback {
		return systemLookup(ctx, t.host)
	}
	return systemLookup(ctx, t.host+".")
}

func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	list, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	out := make([]netip.Addr, 0, len(list))
	for _, ip := range list {
		if a, ok := netip.AddrFromSlice(ip.IP); ok {
			out = append(out, a.Unmap().WithZone(ip.Zone)) // package net writes A records in 16 bytes
		}
	}
	return out, nil
}

// dial connects to one checked address.
func (f *Fetcher) dial(ctx context.Context, t target, addr netip.AddrPort) (net.Conn, error) {
	if f.rules.Dial != nil {
		return f.rules.Dial(ctx, addr)
	}
	d := net.Dialer{
		KeepAlive: -1,
		Control: func(_, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if a != addr {
				return fmt.Errorf("about to dial %v instead of %v", a, addr)
			}
			return f.check(t, a.Addr())
		},
	}
	return d.DialContext(ctx, "tcp", addr.String())
}

// minAttempt is the least time one of several addresses gets, as long as there
// is that much.
const minAttempt = time.Second

// dialEach tries the addresses in order until one answers. Each gets an equal
// share of the time that is left, so that a dead first address does not use up
// the deadline of a good second one.
func dialEach(ctx context.Context, addrs []netip.AddrPort, dial Dial) (net.Conn, netip.AddrPort, error) {
	var errs []error
	for i, addr := range addrs {
		conn, err := dialOne(ctx, addr, len(addrs)-i, dial)
		if err == nil {
			return conn, addr, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, netip.AddrPort{}, errors.Join(errs...)
}

func dialOne(ctx context.Context, addr netip.AddrPort, left int, dial Dial) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		share := max(time.Until(deadline)/time.Duration(left), minAttempt)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, share)
		defer cancel()
	}
	return dial(ctx, addr)
}
